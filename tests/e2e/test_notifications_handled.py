"""What a cloud says over a real RabbitMQ, and what is called for it: an address, and a queue of the same broker; with the broker
restarted and Vedette killed meanwhile. Each at least once, in the order of each object, and `explain` says what became of it.

Left out: many more deliveries under kill -9 (tests/integration/test_dispatch_killed.py).
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rig import PATIENCE, Bus, Child, Client, Message, asking, new_mark, settings

from vedette.testing.rabbit import Rabbit, free_ports
from vedette.testing.rest import FakeRest

pytestmark = pytest.mark.rabbitmq

PORTS = 20
_NAMES = uuid.UUID("6f7f8c39-5f4c-4d27-9a38-33d9a4f7be10")


def news(count: int) -> list[Message]:
    """Neutron's notices of ports: each is made, and then changed again and again."""
    return [Message("neutron", "notifications.info", json.dumps(_said(number)).encode()) for number in range(count)]


def _said(number: int) -> dict[str, Any]:
    turn, which = divmod(number, PORTS)
    port = {
        "id": port_id(which),
        "name": f"{'keep' if wanted(number) else 'skip'}-{number}",
        "project_id": f"{which % 3:032x}",
        "status": "ACTIVE",
        "created_at": "2026-11-20T15:00:00Z",
        "revision_number": turn,
    }
    return {
        "message_id": str(uuid.uuid5(_NAMES, f"message {number}")),
        "publisher_id": "network.ctl",
        "event_type": "port.update.end" if turn else "port.create.end",
        "priority": "INFO",
        "payload": {"port": port},
        "timestamp": f"2026-11-20 15:00:{number // 1000:02}.{number % 1000:03}000",
    }


def port_id(which: int) -> str:
    return str(uuid.uuid5(_NAMES, str(which)))


def wanted(number: int) -> bool:
    return number % 3 != 1


def told(events: Iterable[dict[str, Any]]) -> dict[str, list[int]]:
    """Port → the numbers that were told of it, in order; what was told again counts once."""
    found: dict[str, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for event in events:
        if event["id"] in seen:
            continue
        seen.add(event["id"])
        port = event["data"]["object"]["status"] if "object" in event["data"] else event["data"]["port"]
        found[port["id"]].append(int(port["name"].partition("-")[2]))
    return found


async def until_settled(client: Client, messages: int) -> list[dict[str, Any]]:
    """Every message is in the log and nothing is owed; the handlers then."""
    said: Any = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                raw = (await client.get("/v1/events", after="0", follow="false", type="port.*"))[1]
                said = (await client.status())["handlers"]
                if len(raw.splitlines()) >= messages and not any(one["pending"] or one["lag"] for one in said):
                    return list(said)
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(f"in vain: {len(raw.splitlines())} entries, {said}") from None


async def test_each_reaches_its_targets_in_order_through_kills_and_a_restart_of_the_broker(
    rabbit: Rabbit, tmp_path: Path
) -> None:
    messages = news(600)
    bus, (port,) = Bus(rabbit.url, new_mark()), free_ports(1)
    await asyncio.to_thread(bus.open)
    publisher = rabbit.publisher()
    queue = f"handled.{bus.mark}"
    publisher.queue(queue, durable=True)
    publisher.close()
    async with FakeRest() as rest:
        config = yaml.safe_load(settings(rabbit.url, bus.mark, tmp_path / "data", port=port))
        retry = {"attempts": 3, "first": "50ms", "most": "500ms"}
        config["handlers"] = [
            {
                "name": "cmdb",
                "use": "http",
                "on": {"kinds": ["port"], "when": "object.status.name.startsWith('keep-')"},
                "options": {"url": f"http://127.0.0.1:{rest.port}/ports/{{key.id}}"},
                "retry": retry,
            },
            {
                "name": "queue",
                "use": "amqp",
                "on": {"types": ["port.*.end"], "when": "event.payload.port.name.startsWith('keep-')"},
                "options": {"amqp": rabbit.url, "exchange": "", "routing_key": queue},
                "retry": retry,
            },
        ]
        child = Child(tmp_path, json.dumps(config), port)
        child.start()
        try:
            async with asking(port) as client:
                await client.up()
                rest.answers.extend([500] * 5)
                publishing = asyncio.create_task(asyncio.to_thread(bus.publish_surely, messages))
                for step, restart in ((100, False), (300, True)):
                    end = time.monotonic() + PATIENCE
                    while len(bus.confirmed) < step:
                        assert time.monotonic() < end, f"{len(bus.confirmed)} are confirmed, not {step}"
                        await asyncio.sleep(0.01)
                    if restart:
                        await asyncio.to_thread(rabbit.stop)
                    child.kill()
                    if restart:
                        await asyncio.to_thread(rabbit.start)
                    child.start()
                assert await publishing == len(messages)
                await client.up()
                handlers = await until_settled(client, len(messages))
                publisher = rabbit.publisher()
                queued = await asyncio.to_thread(publisher.drain, queue)
                called = [json.loads(one.body) for one in rest.sent]
                print(f"\ncalled {len(called)}, queued {len(queued)} of {sum(map(wanted, range(len(messages))))}; {handlers}")
                want = {port_id(which): [n for n in range(which, len(messages), PORTS) if wanted(n)] for which in range(PORTS)}
                assert told(called) == want
                assert told(map(json.loads, queued)) == want
                assert [one["deadLetters"] for one in handlers] == [0, 0]

                # Why, and what became of it.
                kept = called[-1]
                explained = json.loads((await client.get(f"/v1/explain/{kept['revision']}"))[1])
                assert "Traceback" not in child.errors()
                cmdb, other = explained["handlers"]
                assert (cmdb["handler"], cmdb["matched"], other["handler"], other["matched"]) == ("cmdb", True, "queue", True)
                (delivery,) = cmdb["deliveries"]
                assert (delivery["outcome"], delivery["idempotencyKey"]) == ("done", rest.sent[-1].headers["Idempotency-Key"])
                assert delivery["detail"].startswith("200")
                assert [one["outcome"] for one in other["deliveries"]] == ["done"]
                log = json.loads(
                    b"[" + b",".join((await client.get("/v1/events", after="0", follow="false"))[1].splitlines()) + b"]"
                )
                skipped = next(one for one in log if one["id"] == _said(1)["message_id"])
                explained = json.loads((await client.get(f"/v1/explain/{skipped['revision']}"))[1])
                for one in explained["handlers"]:
                    assert (one["matched"], one["deliveries"]) == (False, [])
                    (false,) = [why for about in one["about"] for on in about["on"] for why in on["whyNot"]]
                    assert "startsWith('keep-')" in false
        finally:
            print(child.errors()[-3000:])
            child.stop()
            publisher.close()
            publisher = rabbit.publisher()
            publisher.delete_queue(queue)
            publisher.close()
            await asyncio.to_thread(bus.delete_queue, f"vedette.{bus.mark}")
            await asyncio.to_thread(bus.close)
