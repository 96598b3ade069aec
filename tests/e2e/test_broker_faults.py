"""The whole service on a real RabbitMQ that fails: nothing that was acknowledged is lost, nothing is twice in the log, gaps are
written down, and clients resume, or list again where they must. Each test prints its counts (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import expectation
import pytest
from rig import (
    PATIENCE,
    Bus,
    Child,
    Client,
    Message,
    Mirror,
    asking,
    compare,
    config,
    heard,
    new_mark,
    served,
    serving,
    settings,
    until,
    wanted,
)

from vedette.testing.proxy import Proxy
from vedette.testing.rabbit import Rabbit, free_ports

pytestmark = pytest.mark.rabbitmq

PORTS = 300
"""Objects that the messages are about."""
_NAMES = uuid.UUID("0d5f5f0e-9d6f-4c59-8d0a-7b6f1f0c2a55")


def news(count: int, start: int = 0) -> list[Message]:
    """Neutron's notices of ports: each is made, changed many times, and one in ten goes in the end."""
    return [
        Message("neutron", "notifications.info", json.dumps(inner(number)).encode()) for number in range(start, start + count)
    ]


def inner(number: int) -> dict[str, Any]:
    turn, which = divmod(number, PORTS)
    port = {
        "id": str(uuid.uuid5(_NAMES, str(which))),
        "name": f"port-{number}",
        "project_id": f"{which % 7:032x}",
        "status": "DOWN",
        "admin_state_up": bool(turn % 2),
        "fixed_ips": [{"subnet_id": "s", "ip_address": f"10.0.{which // 250}.{which % 250}"}],
        "binding:host_id": f"host-{turn % 5}",
        "created_at": "2026-11-20T15:00:00Z",
        "revision_number": turn,
    }
    event = "create" if turn == 0 else "delete" if which % 10 == 0 and turn == 5 else "update"
    payload = {"port": port} if event != "delete" else {"port_id": port["id"], "port": port}
    seconds, micro = divmod(number * 500, 1_000_000)
    return {
        "message_id": str(uuid.uuid5(_NAMES, f"message {number}")),
        "publisher_id": "network.ctl",
        "event_type": f"port.{event}.end",
        "priority": "INFO",
        "payload": payload,
        "timestamp": f"2026-11-20 15:{seconds // 60:02}:{seconds % 60:02}.{micro:06}",
    }


def ids(messages: list[Message]) -> list[str]:
    return [json.loads(message.body)["message_id"] for message in messages]


def expected(messages: list[Message]) -> expectation.Inventory:
    return expectation.after(json.loads(message.body) for message in messages)


@pytest.fixture
async def bus(rabbit: Rabbit) -> AsyncIterator[Bus]:
    bus = Bus(rabbit.url, new_mark())
    await asyncio.to_thread(bus.open)
    yield bus
    await asyncio.to_thread(bus.delete_queue, f"vedette.{bus.mark}")
    await asyncio.to_thread(bus.close)


@contextlib.asynccontextmanager
async def mirroring(client: Client) -> AsyncIterator[Mirror]:
    """A controller that follows the ports all the time."""
    mirror = Mirror(client, "Port")
    task = asyncio.create_task(mirror.run())
    try:
        await mirror.reached(1)
        yield mirror
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def progress(bus: Bus, count: int) -> None:
    """Wait until so many messages are confirmed."""
    end = time.monotonic() + PATIENCE
    while len(bus.confirmed) < count:
        assert time.monotonic() < end, f"{len(bus.confirmed)} messages are confirmed, not {count}"
        await asyncio.sleep(0.01)


async def check(client: Client, mirror: Mirror, messages: list[Message]) -> dict[str, Any]:
    """All is there, nothing twice, and both the list and the mirror are what they must be. Returns what to print."""
    await heard(client, ids(messages))
    log = await client.log()
    own = [entry for entry in log if entry["type"].startswith("vedette.")]
    entries = Counter(entry["id"] for entry in log)
    assert set(entries.values()) == {1}, "an id is twice in the log"
    assert len(log) - len(own) == len(messages)
    revisions = [int(entry["revision"]) for entry in log]
    assert revisions == sorted(set(revisions))
    want = wanted(expected(messages))
    compare(served("Port", (await client.list("Port")).body["items"]), want, "the list")
    await mirror.reached(revisions[-1])
    compare(mirror.objects(), want, "the mirror")
    return {"entries": len(log) - len(own), "gaps": causes(log), "mirror": (mirror.events, mirror.cuts, mirror.expired)}


def causes(log: list[dict[str, Any]]) -> list[str]:
    return [entry["data"]["cause"] for entry in log if entry["type"] == "vedette.gap"]


async def test_broker_restarted_in_the_middle(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """The publisher sends again what was not confirmed, as a careful one does."""
    messages = news(3000)
    async with serving(config(rabbit.url, bus.mark, tmp_path)) as service, asking(service.addresses[0][1]) as client:
        await client.ready()
        async with mirroring(client) as mirror:
            publishing = asyncio.create_task(asyncio.to_thread(bus.publish_surely, messages))
            await progress(bus, 1000)
            await asyncio.to_thread(rabbit.restart)
            assert await publishing == len(messages)
            told = await check(client, mirror, messages)
            await client.ready()
        counts = await client.counts()
        print(f"\nrestart: {len(messages)} confirmed, {bus.retries} sent again; {counts}; {told}")
        assert bus.retries >= 1
        assert told["gaps"][0] == "queue-created"
        assert "reconnect" in told["gaps"]
        assert counts["events"] == len(messages)
        assert counts["received"] == counts["events"] + counts["duplicates"]


async def test_connection_cut_again_and_again(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    messages = news(4000)
    cuts = 5
    async with (
        Proxy("127.0.0.1", rabbit.port) as proxy,
        serving(config(f"amqp://guest:guest@127.0.0.1:{proxy.port}/%2F", bus.mark, tmp_path)) as service,
        asking(service.addresses[0][1]) as client,
    ):
        await client.ready()
        async with mirroring(client) as mirror:
            publishing = asyncio.create_task(asyncio.to_thread(bus.publish_surely, messages))
            for number in range(cuts):
                await progress(bus, 600 * (number + 1))
                sessions = proxy.accepted

                async def anew(sessions: int = sessions) -> bool:
                    return proxy.accepted > sessions

                proxy.cut()
                await until(anew, lambda: "a new connection")
                await client.ready()
            assert await publishing == len(messages)
            told = await check(client, mirror, messages)
        counts = await client.counts()
        print(f"\n{cuts} cuts: {len(messages)} confirmed; {counts}; {told}")
        assert Counter(told["gaps"]) == {"queue-created": 1, "reconnect": cuts}
        assert counts["events"] == len(messages)
        assert counts["received"] == counts["events"] + counts["duplicates"]


@pytest.mark.parametrize(
    ("queue_type", "again"),
    [("quorum", False), ("classic", False), ("classic", True)],
    ids=["quorum-deleted", "classic-deleted", "classic-made-anew-by-somebody-else"],
)
async def test_queue_deleted_and_consumer_cancelled(
    rabbit: Rabbit, bus: Bus, tmp_path: Path, queue_type: str, again: bool
) -> None:
    """What was in the queue goes with it, and that is a gap in the log. What comes after the gap is heard, all of it; so is
    what was taken before. Made anew by somebody else, the queue is there without its bindings.

    (A quorum queue made anew within milliseconds is not here: RabbitMQ 3.10 neither cancels our consumer nor delivers to it, and
    counts it as a consumer all the same.)
    """
    queue = f"vedette.{bus.mark}"
    messages = news(2500)
    other = Bus(rabbit.url, bus.mark)
    await asyncio.to_thread(other.open)
    told_so = config(rabbit.url, bus.mark, tmp_path, queue_type=queue_type)
    async with serving(told_so) as service, asking(service.addresses[0][1]) as client:
        await client.ready()
        async with mirroring(client) as mirror:
            assert await asyncio.to_thread(bus.publish_surely, messages[:500]) == 500
            await client.consumed(500)
            publishing = asyncio.create_task(asyncio.to_thread(bus.publish_surely, messages[500:2000]))
            await progress(bus, 600)
            await asyncio.to_thread(other.delete_queue, queue)
            if again:
                await asyncio.to_thread(other.make_classic_queue, queue)
            gone = len(bus.confirmed)
            await asyncio.to_thread(other.close, exchanges=False)
            await client.gaps(2)
            assert await publishing == 1500
            assert await asyncio.to_thread(bus.publish_surely, messages[2000:]) == 500
            await heard(client, ids(messages[2000:]))
            log = await client.log()
            there = {entry["id"] for entry in log}
            lost = [number for number, id_ in enumerate(ids(messages)) if id_ not in there]
            kept = [message for message, id_ in zip(messages, ids(messages), strict=True) if id_ in there]
            told = await check(client, mirror, kept)
        counts = await client.counts()
        what = f"{queue_type} queue {'made anew' if again else 'deleted'}"
        print(f"\n{what}: 2500 confirmed, {len(lost)} went with it; {counts}; {told}")
        assert all(500 <= number <= gone for number in lost), (gone, lost)
        assert told["gaps"][0] == "queue-created"
        assert len(told["gaps"]) == 2
        assert told["gaps"][1] in ("queue-gone", "reconnect") if again else told["gaps"][1] == "queue-gone"
        gap = next(entry["data"] for entry in log if entry["type"] == "vedette.gap" and entry["data"]["cause"] != "queue-created")
        assert gap["from"] <= gap["to"]


async def test_burst_of_100000(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """The service in a process of its own, as it runs; published as fast as one thread can."""
    count = 100_000
    bodies = news(count)
    with child(rabbit, bus, tmp_path) as service:
        async with asking(service.port) as client:
            await client.up()
            used = service.cpu()
            begun = time.monotonic()
            publishing = asyncio.create_task(asyncio.to_thread(bus.publish, bodies))
            await publishing
            published = time.monotonic() - begun
            counts = await client.consumed(count)
            took = time.monotonic() - begun
            used = service.cpu() - used
            print(
                f"\nburst: {count} published in {published:.1f} s, all in the log after {took:.1f} s: "
                f"{count / took:.0f}/s, {used / count * 1e6:.0f} µs of processor each; {counts}"
            )
            assert counts["events"] == counts["received"] == count
            compare(served("Port", (await client.list("Port")).body["items"]), wanted(expected(bodies)), "the list")
            status = await client.status()
            assert status["store"]["entries"] == count + 1  # and the gap of a new queue
    assert await asyncio.to_thread(bus.delete_queue, f"vedette.{bus.mark}") == 0, "all was acknowledged"


async def test_killed_again_and_again_while_consuming(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """kill -9: what was acknowledged is in the log, what was not comes again, and is once in the log. Clients resume."""
    messages = news(6000)
    kills = 5
    with child(rabbit, bus, tmp_path) as service:
        async with asking(service.port) as client:
            await client.up()
            async with mirroring(client) as mirror:
                publishing = asyncio.create_task(asyncio.to_thread(bus.publish_surely, messages))
                for number in range(kills):
                    await progress(bus, 800 * (number + 1))
                    service.kill()
                    service.start()
                    await client.up()
                assert await publishing == len(messages)
                told = await check(client, mirror, messages)
                counts = await client.counts()
    left = await asyncio.to_thread(bus.delete_queue, f"vedette.{bus.mark}")
    print(f"\n{kills} kills: {len(messages)} confirmed, the last process: {counts}; {told}; {left} left in the queue")
    assert left == 0
    assert mirror.cuts >= kills
    assert mirror.expired == 0
    assert told["gaps"] == ["queue-created"]


@contextlib.contextmanager
def child(rabbit: Rabbit, bus: Bus, folder: Path) -> Iterator[Child]:
    """`vedette serve`, started; asked to stop at the end."""
    (port,) = free_ports(1)
    service = Child(folder, settings(rabbit.url, bus.mark, folder / "data", port=port), port)
    service.start()
    try:
        yield service
        code = service.stop()
        assert code == 0, service.errors()[-4000:]
    except BaseException:
        print(service.errors()[-4000:])
        with contextlib.suppress(Exception):
            service.stop()
        raise


async def test_store_wiped_between_two_runs(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """The folder is gone: a client's place is gone with it, and it lists again by itself. What waited in the queue is heard."""
    data = tmp_path / "data"
    first, second = news(700), news(900, 700)
    (port,) = free_ports(1)
    async with asking(port) as client:
        async with serving(config(rabbit.url, bus.mark, data, port=port)):
            await client.ready()
            await asyncio.to_thread(bus.publish_surely, first)
            await client.consumed(len(first))
            old = (await client.list("Port")).revision
        mirror = Mirror(client, "Port")
        async with serving(config(rabbit.url, bus.mark, data, port=port)):
            task = asyncio.create_task(mirror.run())
            await mirror.reached(int(old))
        shutil.rmtree(data)
        await asyncio.to_thread(bus.publish_surely, second)
        try:
            async with serving(config(rabbit.url, bus.mark, data, port=port)):
                await client.ready()
                await client.consumed(len(second))
                exact = await client.list("Port", revision=old)
                assert exact.status == 410, exact.body
                assert exact.body["reason"] == "Expired"
                told = await check(client, mirror, second)
                assert not task.done(), task.exception()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    print(f"\nwiped: {len(first)} before, {len(second)} waited in the queue; {told}")
    assert mirror.expired == 1
    assert mirror.relisted == 1
