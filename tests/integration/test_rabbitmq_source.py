"""The source against a real RabbitMQ that is restarted, killed, cut off, silent, shared and flooded."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vedette.clients.amqp import AmqpBroker, Queue, Wanted, address
from vedette.errors import BrokerUnavailable, CannotStart, ConfigError
from vedette.testing.proxy import Proxy
from vedette.testing.rabbit import Rabbit, free_ports
from vedette.testing.source_suite import PATIENCE, RabbitUpstream, Taker, consuming, ids, messages, running, until, until_depth
from vedette.testing.tls import Authority, Pair

pytestmark = pytest.mark.rabbitmq

CAPTURES = Path(__file__).parents[1] / "captures"


async def bounce(upstream: RabbitUpstream, *, kill: bool) -> None:
    """Stop (or kill -9) the node and start it again; the publisher's connection is a new one then."""
    rabbit = upstream.rabbit
    await asyncio.to_thread(upstream.publisher.close)
    await asyncio.to_thread(rabbit.kill if kill else rabbit.stop)
    await asyncio.to_thread(rabbit.start)
    upstream.publisher = await asyncio.to_thread(rabbit.publisher)


async def test_after_a_restart_and_a_kill_of_the_broker_the_bindings_are_made_again(upstream: RabbitUpstream) -> None:
    taker = Taker()
    async with consuming(upstream, taker) as source:
        await upstream.publish(messages(50))
        await taker.heard(ids(50))
        # The orderly restart comes first: a quorum queue that is seconds old does not survive kill -9 (RabbitMQ's own limit).
        for round_, kill in enumerate((False, True), start=1):
            await bounce(upstream, kill=kill)
            await taker.until(lambda: taker.causes.count("reconnect") == round_, "the gap")  # noqa: B023
            # Transient exchanges are gone with the broker, and the bindings with them: nothing is heard until they are back.
            await until(lambda: "waiting for nova" in source.status().detail, "the missing exchange")
            assert not source.status().ready
            await upstream.declare("nova")
            await taker.until(lambda: taker.causes.count("exchange-gone") == round_, "the binding")  # noqa: B023
            assert source.status().ready
            await upstream.publish(messages(50, 50 * round_))
            await taker.heard(ids(50, 50 * round_))
        await until_depth(upstream, 0)
    counts = Counter(taker.news)
    print(
        f"\n{upstream.queue_type}: 150 published, {len(counts)} heard, {len(taker.news) - len(counts)} twice, gaps {taker.causes}"
    )
    assert set(counts) == set(ids(150))
    assert taker.causes == ["queue-created", *["reconnect", "exchange-gone"] * 2]


async def test_messages_that_waited_through_a_restart_are_heard_although_the_source_was_away(upstream: RabbitUpstream) -> None:
    first, taker = Taker(), Taker()
    async with consuming(upstream, first):
        await first.until(lambda: bool(first.causes), "the queue")
    await upstream.publish(messages(100))
    await until_depth(upstream, 100)
    await bounce(upstream, kill=False)
    await upstream.declare("nova")
    async with consuming(upstream, taker):
        await taker.heard(ids(100))
    assert taker.news == ids(100)


async def test_connections_cut_in_a_stream_of_messages_lose_nothing(upstream: RabbitUpstream) -> None:
    taker = Taker()
    cuts, count = 5, 6000
    async with consuming(upstream, taker, prefetch=200):
        for part in range(cuts):
            publishing = asyncio.create_task(upstream.publish(messages(count // cuts, part * (count // cuts))))
            await taker.until(lambda: len(set(taker.news)) > part * (count // cuts), "some of this part")  # noqa: B023
            await upstream.cut()
            await publishing
            await taker.until(lambda: taker.causes.count("reconnect") > part, "the gap")  # noqa: B023
        await taker.heard(ids(count))
        await until_depth(upstream, 0)
    counts = Counter(taker.news)
    print(f"\n{upstream.queue_type}: {count} published, {cuts} cuts, {len(counts)} heard, {len(taker.news) - count} again")
    assert set(counts) == set(ids(count))


async def test_a_burst_of_20000_is_taken_in_batches_and_nothing_is_lost(upstream: RabbitUpstream) -> None:
    with gzip.open(CAPTURES / "core-1.jsonl.gz") as file:
        bodies = [json.loads(line)["body"].encode() for line in file]
    taker = Taker()
    count = 20_000
    async with consuming(upstream, taker) as source:
        await upstream.publish([bodies[number % len(bodies)] for number in range(count)])
        await taker.until(lambda: len(taker.news) >= count, "the burst")
        await until_depth(upstream, 0)
        assert source.status().ready
    sizes = [len(batch) for batch in taker.batches]
    print(f"\n{upstream.queue_type}: {count} published, {len(taker.news)} heard in {len(sizes)} offers, largest {max(sizes)}")
    assert len(taker.news) == count
    assert set(Counter(taker.news).values()) <= {count // len(bodies), count // len(bodies) + 1}
    assert max(sizes) <= 1000


async def test_a_queue_of_ceilometers_gets_all_messages_and_so_do_we(upstream: RabbitUpstream) -> None:
    other = f"ceilometer.{upstream.queue}"
    taker = Taker()
    keys = ("notifications.info",)
    await asyncio.to_thread(upstream.publisher.queue, other, exchange=upstream.named("nova"), keys=keys, auto_delete=True)
    async with consuming(upstream, taker):
        await upstream.publish(messages(200))
        await taker.heard(ids(200))
    theirs = await asyncio.to_thread(upstream.publisher.drain, other)
    await asyncio.to_thread(upstream.publisher.delete_queue, other)
    print(f"\n{upstream.queue_type}: 200 published, ours {len(taker.news)}, ceilometer's {len(theirs)}")
    assert taker.news == ids(200)
    assert theirs == messages(200)


async def test_a_silent_connection_is_noticed_and_given_up(upstream: RabbitUpstream) -> None:
    taker = Taker()
    async with consuming(upstream, taker, timeout_s=1.0) as source:
        await upstream.publish(messages(10))
        await taker.heard(ids(10))
        upstream.proxy.silence()
        await upstream.publish(messages(10, 10))
        await until(lambda: not source.status().ready, "the check to notice")
        upstream.proxy.cut()
        upstream.proxy.resume()
        await taker.heard(ids(20))
        assert "reconnect" in taker.causes
        await until_depth(upstream, 0)


async def test_a_broker_that_is_not_there_is_tried_until_it_is(rabbit: Rabbit, upstream: RabbitUpstream) -> None:
    taker = Taker()
    upstream.proxy.refuse()
    source = upstream.source()
    async with running(source, taker):
        await until(lambda: source.status().detail != "not started", "a failed try")
        assert not source.status().ready
        upstream.proxy.resume()
        await until(lambda: source.status().ready, "readiness")


async def test_the_next_address_is_tried(rabbit: Rabbit, upstream: RabbitUpstream) -> None:
    dead = free_ports(1)[0]
    broker = AmqpBroker([address(f"amqp://127.0.0.1:{dead}"), address(upstream.url)], name="two")
    session = await broker.open(wanted(upstream))
    await session.close()
    assert session.ended == "closed"


async def test_a_consumer_that_comes_later_is_a_gap_or_is_turned_away(upstream: RabbitUpstream) -> None:
    taker = Taker()
    async with consuming(upstream, taker) as source:
        await taker.until(lambda: bool(taker.causes), "the first gap")
        if upstream.queue_type == "classic":
            # Our consumer is an exclusive one, and RabbitMQ holds to that for classic queues.
            with pytest.raises(Exception, match="exclusive use"):
                await upstream.other_consumer()
            return
        leave = await upstream.other_consumer()
        await taker.until(lambda: taker.causes.count("foreign-consumer") == 1, "the gap")
        await until(lambda: not source.status().ready, "the status")
        await leave()
        await taker.until(lambda: taker.causes.count("foreign-consumer") == 2, "its end")
        await until(lambda: source.status().ready, "readiness")


async def test_a_queue_with_other_settings_is_refused_and_says_what_to_do(upstream: RabbitUpstream) -> None:
    first, taker = Taker(), Taker()
    async with consuming(upstream, first):
        await first.until(lambda: bool(first.causes), "the queue")
    with pytest.raises(CannotStart, match=r"other settings.*x-max-length.*rabbitmqctl delete_queue"):
        await upstream.source(queue={"max_length": 5}).run(taker)


async def test_an_unused_queue_expires(upstream: RabbitUpstream) -> None:
    taker = Taker()
    async with consuming(upstream, taker, queue={"expires_s": 1}):
        await taker.until(lambda: bool(taker.causes), "the queue")
    # Asked by rabbitmqctl: to look over AMQP counts as a use of the queue, and it would live on.
    async with asyncio.timeout(PATIENCE):
        while upstream.queue in await asyncio.to_thread(upstream.rabbit.ctl, "list_queues", "name"):
            pass


async def test_two_sources_are_isolated_from_each_other(upstream: RabbitUpstream) -> None:
    """One's broker is cut and refused for good; the other one hears everything and has no gap."""
    lame, fine = Taker(), Taker()
    async with Proxy("127.0.0.1", upstream.rabbit.port) as bad:
        good = upstream.proxy
        upstream.proxy = bad
        async with consuming(upstream, lame, name="lame", queue={"name": f"{upstream.queue}.lame"}) as lame_source:
            upstream.proxy = good
            async with consuming(upstream, fine, name="fine") as fine_source:
                await fine.until(lambda: bool(fine.causes), "the queue")
                bad.refuse()
                bad.cut()
                await until(lambda: not lame_source.status().ready, "the cut")
                await upstream.publish(messages(100))
                await fine.heard(ids(100))
                assert fine_source.status().ready
                assert fine.causes == ["queue-created"]
    await asyncio.to_thread(upstream.publisher.delete_queue, f"{upstream.queue}.lame")


async def test_a_wrong_password_says_so_and_is_tried_again(upstream: RabbitUpstream) -> None:
    wrong = address(upstream.url, password="wrong")
    with pytest.raises(BrokerUnavailable, match="user name or the password") as caught:
        await AmqpBroker([wrong], name="x").open(wanted(upstream))
    assert "wrong" not in str(caught.value)


async def test_an_unknown_vhost_says_so(upstream: RabbitUpstream) -> None:
    where = address(upstream.url.replace("%2F", "nowhere"))
    with pytest.raises(BrokerUnavailable, match="nowhere"):
        await AmqpBroker([where], name="x").open(wanted(upstream))


async def test_a_broker_that_never_answers_is_given_up_in_time(upstream: RabbitUpstream) -> None:
    upstream.proxy.silence()
    with pytest.raises(BrokerUnavailable):
        await AmqpBroker([address(upstream.url)], name="x").open(wanted(upstream, timeout_s=0.5))


def wanted(upstream: RabbitUpstream, **more: Any) -> Wanted:
    return Wanted(
        queue=Queue(name=upstream.queue, type="classic" if upstream.queue_type == "classic" else "quorum"),
        exchanges=(upstream.named("nova"),),
        routing_keys=("notifications.info",),
        **more,
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://h", ("h", 5672, "/", "guest", "guest", False)),
        ("amqps://h", ("h", 5671, "/", "guest", "guest", True)),
        ("amqp://u:p%40s@h:7/a%2Fb", ("h", 7, "a/b", "u", "p@s", False)),
        ("amqp://u:pw@[::1]:7/%2F", ("::1", 7, "/", "u", "pw", False)),
    ],
)
def test_addresses(url: str, expected: tuple[Any, ...]) -> None:
    one = address(url)
    assert (one.host, one.port, one.vhost, one.username, one.password, one.tls) == expected
    assert one.password == "guest" or one.password not in repr(one)


@pytest.mark.parametrize("url", ["http://h", "h:5672", "amqp://", "amqp://u:se/cret@h:x", "amqp://u:secret@h/v?heartbeat=0"])
def test_bad_addresses_are_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        address(url)
    assert "secret" not in str(caught.value)


async def test_tls_is_verified_by_authority_and_by_name(upstream: RabbitUpstream, tmp_path: Path) -> None:
    trusted, foreign = Authority(tmp_path / "trusted"), Authority(tmp_path / "foreign", name="somebody else")

    async def attempt(shown: Pair, ca: Authority | None) -> str:
        context = ca.client_context() if ca else None
        async with Proxy("127.0.0.1", upstream.rabbit.port, tls=shown.server_context()) as proxy:
            broker = AmqpBroker([address(f"amqps://localhost:{proxy.port}")], name="tls", tls=context)
            try:
                session = await broker.open(wanted(upstream))
            except BrokerUnavailable as why:
                return str(why)
            await session.close()
            return "open"

    ours = trusted.server()
    assert await attempt(ours, trusted) == "open"
    # The system's authorities, when no other is named.
    assert "CERTIFICATE_VERIFY_FAILED" in await attempt(ours, None)
    assert "CERTIFICATE_VERIFY_FAILED" in await attempt(ours, foreign)
    assert "localhost" in await attempt(trusted.server("elsewhere", hosts=("elsewhere.example",)), trusted)
