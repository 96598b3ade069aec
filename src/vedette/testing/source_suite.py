"""What every broker must do for sources/openstack.py, and the source with it: run on the fake one and on a real RabbitMQ.

A test module subclasses `SourceSuite` and gives a fixture `upstream`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import pytest

from vedette.clients.amqp import AmqpBroker, Broker, address
from vedette.errors import QueueShared, TryLater
from vedette.kit.clock import SystemClock, parse_us
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import GAP, NOT_UNDERSTOOD, Notice
from vedette.sources.openstack import OpenStackSource, Options, QueueOptions
from vedette.testing.broker import FakeBroker
from vedette.testing.proxy import Proxy
from vedette.testing.rabbit import Publisher, Rabbit

PATIENCE = 30.0
"""Seconds after which a test says what it waited for in vain."""

INFO = "notifications.info"


def message(number: int | str, **fields: Any) -> bytes:
    """A notification with the id `m<number>`."""
    inner = {
        "message_id": f"m{number}",
        "publisher_id": "network.ctl",
        "event_type": "port.update.end",
        "priority": "INFO",
        "payload": {"port": {"id": str(number)}},
        "timestamp": "2026-11-20 15:18:30.420516",
        **fields,
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()


def messages(count: int, start: int = 0) -> list[bytes]:
    return [message(number) for number in range(start, start + count)]


def ids(count: int, start: int = 0) -> list[str]:
    return [f"m{number}" for number in range(start, start + count)]


class Taker:
    """An `offer` that keeps what it is given, and can be slow, unwell or dead."""

    def __init__(self) -> None:
        self.batches: list[tuple[Notice, ...]] = []
        """What was taken, offer by offer."""
        self.entries: list[NewEntry] = []
        """Of what was taken, that which came with its readings."""
        self.offered: list[tuple[Notice, ...]] = []
        """What was offered, taken or not."""
        self.refuse = 0
        """How many of the next offers to answer with TryLater."""
        self.hold = asyncio.Event()
        """Clear it: offers take their notices, and then don't return."""
        self.hold.set()
        self._changed = asyncio.Condition()

    async def __call__(self, notices: Sequence[Notice | NewEntry]) -> None:
        taken = tuple(one.notice if isinstance(one, NewEntry) else one for one in notices)
        self.offered.append(taken)
        refused = self.refuse > 0 and any(one.event_type != GAP for one in taken)
        if refused:
            self.refuse -= 1
        else:
            self.batches.append(taken)
            self.entries += [one for one in notices if isinstance(one, NewEntry)]
        async with self._changed:
            self._changed.notify_all()
        if refused:
            raise TryLater("the log is full", delay=0.02)
        await self.hold.wait()

    @property
    def notices(self) -> list[Notice]:
        return [notice for batch in self.batches for notice in batch]

    @property
    def news(self) -> list[str]:
        """Ids of ordinary notices, in the order they came."""
        return [notice.id for notice in self.notices if notice.event_type not in (GAP, NOT_UNDERSTOOD)]

    @property
    def gaps(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(notice.payload) for notice in self.notices if notice.event_type == GAP]

    @property
    def causes(self) -> list[str]:
        return [gap["cause"] for gap in self.gaps]

    @property
    def set_aside(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(notice.payload) for notice in self.notices if notice.event_type == NOT_UNDERSTOOD]

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until it holds; looked at after each offer."""
        try:
            async with asyncio.timeout(PATIENCE), self._changed:
                await self._changed.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"waited {PATIENCE:g} s for {what}; news {len(self.news)}, causes {self.causes}") from None

    async def heard(self, expected: Iterable[str]) -> None:
        """Wait until all of these were taken at least once."""
        wanted = set(expected)
        await self.until(lambda: wanted <= set(self.news), f"{len(wanted)} notices")


async def until(condition: Callable[[], bool], what: str) -> None:
    """For what tells nobody when it changes, like a status."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE:g} s for {what}") from None


async def until_depth(upstream: Upstream, messages: int) -> None:
    """A quorum queue counts a little after it took."""
    try:
        async with asyncio.timeout(PATIENCE):
            while await upstream.depth() != messages:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {PATIENCE:g} s for {messages} messages; {await upstream.depth()} are ready") from None


class Upstream(Protocol):
    """A broker under test: how to publish to it, look at it and hurt it. Exchange names are the test's own."""

    async def declare(self, exchange: str) -> None: ...
    async def undeclare(self, exchange: str) -> None: ...
    async def publish(
        self, bodies: Sequence[bytes], *, exchange: str = "nova", routing_key: str = INFO, content_encoding: str = "utf-8"
    ) -> None: ...
    async def depth(self) -> int: ...
    async def consumers(self) -> int: ...
    async def cut(self) -> None: ...
    async def delete_queue(self) -> None: ...
    async def other_consumer(self) -> Callable[[], Any]:
        """Somebody else consumes our queue; returns how to end that."""
        ...

    def source(self, name: str = "region-one", **options: Any) -> OpenStackSource: ...


def options(name: str, given: dict[str, Any], **more: Any) -> Options:
    """Settings that notice soon."""
    queue = QueueOptions(**{"name": "vedette", **more.pop("queue", {}), **given.pop("queue", {})})
    quick: dict[str, Any] = {
        "check_s": 0.1,
        "heartbeat_s": 1,
        "timeout_s": 10.0,
        "exchanges": ("nova",),
        "amqp": ("amqp://fake",),
    }
    return Options(name=name, queue=queue, **{**quick, **more, **given})


class FakeUpstream:
    """On testing/broker.py."""

    def __init__(self) -> None:
        self.broker = FakeBroker()
        self.broker.declare_exchange("nova")

    async def declare(self, exchange: str) -> None:
        self.broker.declare_exchange(exchange)

    async def undeclare(self, exchange: str) -> None:
        self.broker.delete_exchange(exchange)

    async def publish(
        self, bodies: Sequence[bytes], *, exchange: str = "nova", routing_key: str = INFO, content_encoding: str = "utf-8"
    ) -> None:
        for body in bodies:
            self.broker.publish(exchange, body, routing_key=routing_key, content_encoding=content_encoding)

    async def depth(self) -> int:
        queue = self.broker.queues.get("vedette")
        return len(queue.ready) if queue else -1

    async def consumers(self) -> int:
        queue = self.broker.queues.get("vedette")
        return queue.consumers if queue else -1

    async def cut(self) -> None:
        self.broker.cut()

    async def delete_queue(self) -> None:
        self.broker.delete_queue("vedette")

    async def other_consumer(self) -> Callable[[], Any]:
        queue = self.broker.queues["vedette"]
        queue.foreign += 1

        async def leave() -> None:
            queue.foreign -= 1

        return leave

    def source(self, name: str = "region-one", **given: Any) -> OpenStackSource:
        return OpenStackSource(options(name, given), SystemClock(), Telemetry(), broker=self.broker)


class RabbitUpstream:
    """On a real node, through a proxy that can be cut. Names of exchanges and of the queue are this test's own, so that one
    node serves a whole run."""

    def __init__(self, rabbit: Rabbit, proxy: Proxy, *, queue_type: str = "quorum") -> None:
        self.rabbit = rabbit
        self.proxy = proxy
        self.queue_type = queue_type
        self._mark = uuid.uuid4().hex[:8]
        self.queue = f"vedette.{self._mark}"
        self.publisher: Publisher = rabbit.publisher()
        self.publisher.exchange(self.named("nova"))

    def named(self, exchange: str) -> str:
        return f"{exchange}.{self._mark}"

    async def declare(self, exchange: str) -> None:
        await asyncio.to_thread(self.publisher.exchange, self.named(exchange))

    async def undeclare(self, exchange: str) -> None:
        await asyncio.to_thread(self.publisher.delete_exchange, self.named(exchange))

    async def publish(
        self, bodies: Sequence[bytes], *, exchange: str = "nova", routing_key: str = INFO, content_encoding: str = "utf-8"
    ) -> None:
        await asyncio.to_thread(
            self.publisher.publish,
            self.named(exchange),
            bodies,
            routing_key=routing_key,
            content_encoding=content_encoding,
        )

    async def depth(self) -> int:
        return await asyncio.to_thread(self.publisher.depth, self.queue)

    async def consumers(self) -> int:
        return await asyncio.to_thread(self.publisher.consumers, self.queue)

    async def cut(self) -> None:
        self.proxy.cut()

    async def delete_queue(self) -> None:
        await asyncio.to_thread(self.publisher.delete_queue, self.queue)

    async def other_consumer(self) -> Callable[[], Any]:
        other = await asyncio.to_thread(self.rabbit.publisher)
        try:
            await asyncio.to_thread(other.consume, self.queue)
        except BaseException:
            await asyncio.to_thread(other.close)
            raise

        async def leave() -> None:
            await asyncio.to_thread(other.close)

        return leave

    def source(self, name: str = "region-one", **given: Any) -> OpenStackSource:
        given["exchanges"] = tuple(self.named(exchange) for exchange in given.get("exchanges", ("nova",)))
        settings = options(name, given, queue={"name": self.queue, "type": self.queue_type}, amqp=(self.url,))
        broker: Broker = AmqpBroker([address(url) for url in settings.amqp], name=name, heartbeat_s=settings.heartbeat_s)
        return OpenStackSource(settings, SystemClock(), Telemetry(), broker=broker)

    @property
    def url(self) -> str:
        """Through the proxy."""
        return f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/%2F"

    def close(self) -> None:
        self.publisher.delete_queue(self.queue)
        self.publisher.close()


@contextlib.asynccontextmanager
async def running(source: OpenStackSource, taker: Taker) -> AsyncIterator[asyncio.Task[None]]:
    """The source at work, cancelled at the end. An error of its own is the test's."""
    task = asyncio.create_task(source.run(taker))
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def consuming(upstream: Upstream, taker: Taker, **given: Any) -> AsyncIterator[OpenStackSource]:
    """A source that is bound and consumes."""
    source = upstream.source(**given)
    async with running(source, taker) as task:
        await until(lambda: source.status().ready or task.done(), "readiness")
        yield source


class SourceSuite:
    """The tests. Each is a sentence about what a source promises."""

    async def test_every_message_is_offered_once_in_order_and_acknowledged(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker) as source:
            await upstream.publish(messages(300))
            await taker.heard(ids(300))
            assert taker.news == ids(300)
            await until(lambda: "consuming" in source.status().detail, "the acknowledgement")
            assert source.status().last_progress > 0
        await until_depth(upstream, 0)
        assert await upstream.consumers() == 0

    async def test_all_topics_and_priorities_are_bound_and_nothing_else(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await upstream.publish([message("rpc")], routing_key="conductor")
            await upstream.publish([message("reply")], routing_key="notifications")
            for number, key in enumerate(("notifications.error", "versioned_notifications.info", "notifications.warn")):
                await upstream.publish([message(number)], routing_key=key)
            await taker.heard(ids(3))
            assert taker.news == ids(3)

    async def test_what_arrives_while_an_offer_runs_is_the_next_batch(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker, prefetch=500):
            await taker.until(lambda: bool(taker.causes), "the first gap")
            taker.hold.clear()
            await upstream.publish(messages(1))
            await taker.heard(ids(1))
            await upstream.publish(messages(400, 1))
            taker.hold.set()
            await taker.heard(ids(401))
            assert taker.news == ids(401)
            assert len(taker.batches) < 200

    async def test_a_batch_has_at_most_1000_notices(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker, prefetch=3000):
            await taker.until(lambda: bool(taker.causes), "the first gap")
            taker.hold.clear()
            await upstream.publish(messages(2500))
            await taker.until(lambda: bool(taker.news), "the first batch")
            taker.hold.set()
            await taker.heard(ids(2500))
            assert taker.news == ids(2500)
            assert max(map(len, taker.batches)) <= 1000

    async def test_nothing_is_acknowledged_before_the_offer_returned(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await taker.until(lambda: bool(taker.causes), "the first gap")
            taker.hold.clear()
            await upstream.publish(messages(20))
            await taker.until(lambda: bool(taker.news), "the first batch")
            first = list(taker.news)
            await upstream.cut()
            taker.hold.set()
            # The log has them, the broker doesn't know: all of them come again.
            await taker.until(lambda: Counter(taker.news)[first[0]] == 2 and set(ids(20)) <= set(taker.news), "redelivery")
        assert set(taker.news) == set(ids(20))

    async def test_a_crash_between_append_and_acknowledgement_loses_nothing(self, upstream: Upstream) -> None:
        crashed = Taker()
        async with consuming(upstream, crashed):
            await crashed.until(lambda: bool(crashed.causes), "the first gap")
            crashed.hold.clear()
            await upstream.publish(messages(20))
            await crashed.until(lambda: bool(crashed.news), "the first batch")
        taker = Taker()
        async with consuming(upstream, taker):
            await taker.heard(ids(20))
            assert taker.news == ids(20)
            assert taker.causes == []

    async def test_an_offer_that_is_refused_is_made_again_unchanged_and_nothing_overtakes_it(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await taker.until(lambda: bool(taker.causes), "the first gap")
            taker.refuse = 5
            await upstream.publish(messages(50))
            await taker.heard(ids(50))
            assert taker.news == ids(50)
            tries = [batch for batch in taker.offered if batch[0].event_type != GAP][:6]
            assert all(batch == tries[0] for batch in tries)

    async def test_a_batch_that_is_refused_when_the_connection_goes_comes_again(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await taker.until(lambda: bool(taker.causes), "the first gap")
            taker.refuse = 1_000_000
            await upstream.publish(messages(10))
            await taker.until(lambda: taker.refuse < 1_000_000, "a refusal")
            await upstream.cut()
            await taker.until(lambda: "reconnect" in taker.causes, "the new session")
            taker.refuse = 0
            await taker.heard(ids(10))
            assert taker.news == ids(10)

    async def test_garbage_is_set_aside_with_its_reason_and_never_stops_the_queue(self, upstream: Upstream) -> None:
        garbage = [b"", b"\x00\xff", b"[1, 2", b"{}", b'{"oslo.message": "{"}', b"[" * 5000, message("x", event_type=5)]
        taker = Taker()
        async with consuming(upstream, taker):
            for number, body in enumerate(garbage):
                await upstream.publish([body, message(number)])
            await upstream.publish([b"not gzip"], content_encoding="gzip")
            await upstream.publish([message("last")])
            await taker.heard(["mlast"])
            assert taker.news == [*ids(len(garbage)), "mlast"]
            assert len(taker.set_aside) == len(garbage) + 1
            assert all(aside["reason"] and aside["routing_key"] == INFO for aside in taker.set_aside)
        await until_depth(upstream, 0)

    async def test_secrets_are_gone_before_the_offer(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await upstream.publish([message(0, payload={"a": [{"admin_pass": "hunter2"}]}, _context_auth_token="hunter2")])
            await upstream.publish([b'{"password": "hunter2"', message(1)])
            await taker.heard(ids(2))
        assert not any("hunter2" in repr(notice) for notice in taker.notices)
        assert not any(b"hunter2" in bytes(notice.payload) for notice in taker.notices)

    async def test_a_queue_that_was_not_there_is_a_gap_from_nobody_knows_when_and_one_that_was_is_none(
        self, upstream: Upstream
    ) -> None:
        first, second = Taker(), Taker()
        async with consuming(upstream, first):
            await first.until(lambda: bool(first.causes), "the gap")
        assert [(gap["cause"], gap["from"]) for gap in first.gaps] == [("queue-created", None)]
        await upstream.publish(messages(1))
        async with consuming(upstream, second):
            await second.heard(ids(1))
        assert second.causes == []

    async def test_a_lost_connection_is_rebuilt_and_the_gap_is_told_before_what_follows(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker) as source:
            await upstream.publish(messages(5))
            await taker.heard(ids(5))
            for round_ in range(1, 4):
                await upstream.cut()
                await taker.until(lambda: taker.causes.count("reconnect") == round_, "the gap")  # noqa: B023
                await upstream.publish(messages(5, 5 * round_))
                await taker.heard(ids(5, 5 * round_))
            assert set(taker.news) == set(ids(20))
            gap = taker.gaps[-1]
            since, until_ = parse_us(gap["from"]), parse_us(gap["to"])
            assert since is not None
            assert until_ is not None
            assert since <= until_
            assert source.status().gaps == 4
        gaps = [notice for notice in taker.notices if notice.event_type == GAP]
        assert len({notice.id for notice in gaps}) == 4
        assert {notice.origin for notice in gaps} == {"vedette"}

    async def test_a_queue_that_was_deleted_is_made_again_and_is_a_gap(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await upstream.publish(messages(3))
            await taker.heard(ids(3))
            await upstream.delete_queue()
            await taker.until(lambda: "queue-gone" in taker.causes, "the gap")
            await upstream.publish(messages(3, 3))
            await taker.heard(ids(3, 3))
        assert taker.gaps[-1]["from"] is not None

    async def test_a_gap_begins_before_what_was_still_waiting(self, upstream: Upstream) -> None:
        async with consuming(upstream, Taker()):
            pass  # the queue is there, and nobody reads it
        await upstream.publish(messages(1))
        await until_depth(upstream, 1)
        taker = Taker()
        taker.hold.clear()
        async with running(upstream.source(), taker):
            await taker.heard(ids(1))
            await upstream.delete_queue()
            taker.hold.set()
            await taker.until(lambda: "queue-gone" in taker.causes, "the gap")
        begins = taker.gaps[-1]["from"]
        # What waited went with the queue, so from the time of the last message that is surely kept, or from nobody knows when.
        assert begins in (None, "2026-11-20T15:18:30.420516Z")

    async def test_an_exchange_that_does_not_exist_yet_is_waited_for(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker, exchanges=("nova", "glance")) as source:
            assert "waiting for glance" in source.status().detail
            await upstream.declare("glance")
            await until(lambda: "waiting for" not in source.status().detail, "the binding")
            await upstream.publish(messages(3), exchange="glance")
            await taker.heard(ids(3))
        assert taker.causes == ["queue-created"]

    async def test_with_no_exchange_at_all_it_is_not_ready(self, upstream: Upstream) -> None:
        taker = Taker()
        source = upstream.source(exchanges=("keystone",))
        async with running(source, taker):
            await taker.until(lambda: bool(taker.causes), "the session")
            assert not source.status().ready
            assert "waiting for keystone" in source.status().detail
            await upstream.declare("keystone")
            await until(lambda: source.status().ready, "readiness")

    async def test_bindings_lost_with_an_exchange_come_back_and_it_is_a_gap(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker) as source:
            await upstream.undeclare("nova")
            await until(lambda: "waiting for nova" in source.status().detail, "the check")
            await upstream.declare("nova")
            await taker.until(lambda: "exchange-gone" in taker.causes, "the gap")
            await upstream.publish(messages(3))
            await taker.heard(ids(3))

    async def test_a_queue_found_full_is_a_gap_when_noticed_and_when_over(self, upstream: Upstream) -> None:
        first, taker = Taker(), Taker()
        limits = {"queue": {"max_length": 20}}
        async with consuming(upstream, first, **limits):
            await first.until(lambda: bool(first.causes), "the first gap")
        await upstream.publish(messages(50))
        await until_depth(upstream, 20)
        async with consuming(upstream, taker, **limits):
            # The oldest went: what is left is the newest.
            await taker.heard(ids(20, 30))
            await taker.until(lambda: taker.causes.count("queue-full") == 2, "both gaps")
        assert taker.news == ids(20, 30)
        assert taker.causes == ["queue-full", "queue-full"]

    async def test_a_queue_that_somebody_else_consumes_is_refused(self, upstream: Upstream) -> None:
        first, taker = Taker(), Taker()
        async with consuming(upstream, first):
            await first.until(lambda: bool(first.causes), "the queue")
        leave = await upstream.other_consumer()
        source = upstream.source()
        try:
            with pytest.raises(QueueShared, match="somebody else"):
                async with asyncio.timeout(PATIENCE):
                    await source.run(taker)
        finally:
            await leave()
        assert not source.status().ready
        assert taker.offered == []

    async def test_it_waits_for_its_own_former_consumer_to_go(self, upstream: Upstream) -> None:
        first, taker = Taker(), Taker()
        async with consuming(upstream, first):
            await first.until(lambda: bool(first.causes), "the queue")
        leave = await upstream.other_consumer()
        source = upstream.source()
        async with running(source, taker) as task:
            await until(lambda: "another consumer" in source.status().detail, "the wait")
            await leave()
            await until(lambda: source.status().ready or task.done(), "readiness")
            await upstream.publish(messages(3))
            await taker.heard(ids(3))

    async def test_a_shared_queue_is_consumed_when_told_to(self, upstream: Upstream) -> None:
        first, taker = Taker(), Taker()
        async with consuming(upstream, first):
            await first.until(lambda: bool(first.causes), "the queue")
        leave = await upstream.other_consumer()
        try:
            async with consuming(upstream, taker, shared_queue=True) as source:
                assert source.status().ready
        finally:
            await leave()

    async def test_what_was_not_acknowledged_when_it_is_stopped_is_back_in_the_queue(self, upstream: Upstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await taker.until(lambda: bool(taker.causes), "the first gap")
            taker.refuse = 1_000_000
            await upstream.publish(messages(10))
            await taker.until(lambda: taker.refuse < 1_000_000, "a refusal")
        await until_depth(upstream, 10)
        assert await upstream.consumers() == 0

    async def test_readiness_follows_the_session(self, upstream: Upstream) -> None:
        taker = Taker()
        source = upstream.source()
        assert not source.status().ready
        async with running(source, taker):
            await until(lambda: source.status().ready, "readiness")
        assert not source.status().ready
        assert source.status().detail == "stopped"
