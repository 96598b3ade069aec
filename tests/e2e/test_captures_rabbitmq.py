"""Every notification of every capture, published to a real RabbitMQ and asked for over HTTP: counts, objects, history, streams.

What must be there is computed by expectation.py, which shares no code with the kinds.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import corpus
import expectation
import pytest
from rig import (
    ADMIN,
    PLURALS,
    TENANTS,
    Bus,
    Client,
    Message,
    Mirror,
    Objects,
    asking,
    compare,
    config,
    new_mark,
    serving,
    wanted,
)

from vedette.testing.rabbit import Rabbit

pytestmark = pytest.mark.rabbitmq

EXISTS = ".exists"
STOPS = (40, 333, 520, 700, 900, 1060, 1400, 1750, 2000, 2100, 2200)
"""Numbers of messages after which publishing stops until all is consumed."""


class Recorded:
    """All captures, one after the other, as they were on the wire."""

    def __init__(self, *, bare: bool = False) -> None:
        self.messages: list[Message] = []
        self.inner: list[dict[str, Any]] = []
        for capture in corpus.CAPTURES:
            for line, inner in corpus.messages(capture):
                body = json.dumps(inner).encode() if bare else line["body"].encode()
                self.messages.append(Message(line["exchange"], line["routing_key"], body, line["properties"]))
                self.inner.append(inner)

    def __len__(self) -> int:
        return len(self.messages)


@pytest.fixture
async def bus(rabbit: Rabbit) -> AsyncIterator[Bus]:
    """Somebody who publishes, with names of its own."""
    mark = new_mark()
    bus = Bus(rabbit.url, mark)
    await asyncio.to_thread(bus.open)
    yield bus
    await asyncio.to_thread(bus.delete_queue, f"vedette.{mark}")
    await asyncio.to_thread(bus.close)


async def test_every_notification_of_every_capture(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """Published as recorded. The counts are exact; at every stop, and as of many earlier revisions, the admin and two tenants
    see what they must; watchers that were there from the start end with the same."""
    recorded = Recorded()
    inventory = expectation.Inventory()
    exists = 0
    async with serving(config(rabbit.url, bus.mark, tmp_path)) as service, asking(service.addresses[0][1]) as client:
        await client.ready()
        async with watching(client) as mirrors:
            done = 0
            for stop in (*STOPS, len(recorded)):
                assert await asyncio.to_thread(bus.publish, recorded.messages[done:stop]) == stop - done
                for inner in recorded.inner[done:stop]:
                    inventory.feed(inner)
                    exists += inner["event_type"].endswith(EXISTS)
                done = stop
                counts = await client.consumed(stop)
                assert counts == {
                    "received": stop,
                    "events": stop - exists,
                    "duplicates": 0,
                    "not_interesting": exists,
                    "not_understood": 0,
                }
                await everybody_sees(client, inventory, f"after {stop} messages")
            log = await client.log()
            head = int(log[-1]["revision"])
            for (kind, token), mirror in mirrors.items():
                await mirror.reached(head)
                listed = await client.list(kind, token)
                assert mirror.items == {item["metadata"]["name"]: item for item in listed.body["items"]}
            told = sum(mirror.events for mirror in mirrors.values())
        print(f"\n{counts}, {len(mirrors)} watchers were told of {told} changes")
        assert exists > 0
        assert told > 1000
        ids = [entry["id"] for entry in log if not entry["type"].startswith("vedette.")]
        assert ids == [one["message_id"] for one in recorded.inner if not one["event_type"].endswith(EXISTS)]
        compared = await history(client, recorded, log)
        print(f"as of {compared} earlier revisions, for {1 + len(TENANTS)} callers: the same")


async def everybody_sees(client: Client, inventory: expectation.Inventory, when: str, *, revision: str = "") -> None:
    compare(await client.objects(revision=revision), wanted(inventory), f"{when}, the admin")
    for project, token in TENANTS.items():
        compare(await client.objects(token, revision=revision), wanted(inventory, tenant=project), f"{when}, {project}")


async def history(client: Client, recorded: Recorded, log: list[dict[str, Any]]) -> int:
    """Lists as of earlier revisions, after all is over."""
    revisions = {entry["id"]: entry["revision"] for entry in log}
    inventory = expectation.Inventory()
    compared = 0
    for number, inner in enumerate(recorded.inner):
        inventory.feed(inner)
        if number % 47 == 20 and inner["message_id"] in revisions:
            await everybody_sees(client, inventory, f"as of message {number}", revision=revisions[inner["message_id"]])
            compared += 1
    assert compared > 30
    return compared


@contextlib.asynccontextmanager
async def watching(client: Client) -> AsyncIterator[dict[tuple[str, str], Mirror]]:
    """A watcher of every kind, for the admin and for each tenant."""
    mirrors = {(kind, token): Mirror(client, kind, token) for kind in PLURALS for token in (ADMIN, *TENANTS.values())}
    tasks = [asyncio.create_task(mirror.run()) for mirror in mirrors.values()]
    try:
        for mirror in mirrors.values():
            await mirror.reached(1)
        yield mirrors
        for task in tasks:
            assert not task.done(), task.exception()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_the_bare_envelope_gives_the_same_objects(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """oslo.messaging's 1.0 driver: the inner message alone."""
    recorded = Recorded(bare=True)
    assert not any(b"oslo.message" in message.body for message in recorded.messages)
    inventory = expectation.Inventory()
    async with serving(config(rabbit.url, bus.mark, tmp_path)) as service, asking(service.addresses[0][1]) as client:
        await client.ready()
        done = 0
        for stop in (*STOPS, len(recorded)):
            await asyncio.to_thread(bus.publish, recorded.messages[done:stop])
            for inner in recorded.inner[done:stop]:
                inventory.feed(inner)
            done = stop
            counts = await client.consumed(stop)
            await everybody_sees(client, inventory, f"after {stop} bare messages")
        exists = sum(inner["event_type"].endswith(EXISTS) for inner in recorded.inner)
        assert counts["events"] == len(recorded) - exists
        assert counts["not_understood"] == counts["duplicates"] == 0


GARBAGE = (
    b"",
    b"\x00\xff\xfe",
    b"not json",
    b"[]",
    b"null",
    b'"text"',
    b"{}",
    b'{"event_type": "port.create.end"}',
    b'{"event_type": 7, "payload": {}, "message_id": "m"}',
    b'{"event_type": "", "payload": {}, "message_id": "m"}',
    b'{"event_type": "' + b"x" * 300 + b'", "payload": {}}',
    b'{"oslo.version": "2.0", "oslo.message": "{\\"event_type\\": \\"port.create.end\\""}',
    b'{"oslo.version": "2.0", "oslo.message": {}}',
    b'{"payload": ' + b"[" * 3000 + b"]" * 3000 + b', "event_type": "x", "message_id": "deep"}',
)


async def test_the_sum_is_exact_with_duplicates_garbage_and_what_is_dropped(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    """received = events + duplicates + not interesting + not understood, each of them known beforehand."""
    recorded = Recorded()
    messages: list[Message] = []
    want = Counter[str]()
    for number, (message, inner) in enumerate(zip(recorded.messages, recorded.inner, strict=True)):
        messages.append(message)
        dropped = inner["event_type"].endswith(EXISTS)
        want["not_interesting" if dropped else "events"] += 1
        if number % 7 == 3:
            messages.append(message)
            want["not_interesting" if dropped else "duplicates"] += 1
        if number >= 200 and number % 90 == 0:
            # Long ago, and now in the other envelope: the id tells.
            old = recorded.inner[number - 200]
            messages.append(recorded.messages[number - 200]._replace(body=json.dumps(old).encode()))
            want["not_interesting" if old["event_type"].endswith(EXISTS) else "duplicates"] += 1
        if number % 150 == 0 and number // 150 < len(GARBAGE):
            messages.append(message._replace(body=GARBAGE[number // 150]))
            want["not_understood"] += 1
    messages.append(messages[-1]._replace(body=GARBAGE[2]))  # the same bytes again are the same notice
    want["duplicates"] += 1
    want["received"] = len(messages)
    assert len(messages) == want["events"] + want["duplicates"] + want["not_interesting"] + want["not_understood"]
    assert want["not_understood"] == len(GARBAGE)
    async with serving(config(rabbit.url, bus.mark, tmp_path)) as service, asking(service.addresses[0][1]) as client:
        await client.ready()
        await asyncio.to_thread(bus.publish, messages)
        counts = await client.consumed(len(messages))
        print(f"\n{counts}")
        assert counts == dict(want)
        log = await client.log()
        of = Counter(entry["type"] if entry["type"].startswith("vedette.") else "event" for entry in log)
        assert of == {"event": want["events"], "vedette.not-understood": want["not_understood"], "vedette.gap": 1}
        assert len({entry["id"] for entry in log}) == len(log)
        compare(await client.objects(), wanted(expectation.after(recorded.inner)), "at the end")


SECRET = "planted-"
"""Every planted secret begins so; none is in any recording."""


def planted(recorded: Recorded) -> list[Message]:
    """The recordings with secrets in them, under keys and at depths of all sorts, and messages that can't be read."""
    names = ("auth_token", "adminPass", "user_data", "connection_info", "X-Service-Password", "private_key", "my_secret_thing")
    messages: list[Message] = []
    for number, (message, inner) in enumerate(zip(recorded.messages, recorded.inner, strict=True)):
        inner = json.loads(json.dumps(inner))
        inner["_context_auth_token"] = f"{SECRET}context-{number}"
        inner["_context_service_catalog"] = [{"password": f"{SECRET}catalog-{number}"}]
        value: Any = f"{SECRET}payload-{number}"
        for level in range(number % 6):
            value = {"level": value} if level % 2 else [value]
        name = names[number % len(names)]
        payload = inner["payload"].get("nova_object.data", inner["payload"])
        payload["beside"] = {"deep": [{name: value}], "text": json.dumps({name: f"{SECRET}text-{number}"})}
        payload["trace"] = f"failed with {name}='{SECRET}repr-{number}'"
        text = json.dumps(inner)
        body = text if number % 2 else json.dumps({"oslo.version": "2.0", "oslo.message": text})
        messages.append(message._replace(body=body.encode()))
    cut_off = [message._replace(body=message.body[: len(message.body) - 40]) for message in messages[:20]]
    odd = {"event_type": ["port.create.end"], "payload": {"auth_token": f"{SECRET}odd"}}
    return [*messages, *cut_off, messages[0]._replace(body=json.dumps(odd).encode())]


async def test_no_secret_is_stored_streamed_or_logged(
    rabbit: Rabbit, bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not the tokens that the real cloud sent, not those planted here: in no file, no stream, no log line at any level."""
    recorded = Recorded()
    messages = planted(recorded)
    needles = (SECRET.encode(), b"recorded-token-", b"driver_volume_type", b"internalURL")
    for needle in needles:
        assert any(needle in message.body for message in [*messages, *recorded.messages]), needle
    caplog.set_level(logging.DEBUG)
    own = logging.getLogger("vedette")
    own.setLevel(logging.DEBUG)
    own.addHandler(caplog.handler)
    try:
        async with serving(config(rabbit.url, bus.mark, tmp_path)) as service, asking(service.addresses[0][1]) as client:
            await client.ready()
            async with watching(client) as mirrors:
                await asyncio.to_thread(bus.publish, messages)
                counts = await client.consumed(len(messages))
                log = await client.log()
                for mirror in mirrors.values():
                    await mirror.reached(int(log[-1]["revision"]))
            compare(await client.objects(), wanted(expectation.after(recorded.inner)), "at the end")
            streamed = b"\n".join(client.heard)
            files = contents(tmp_path)
        files |= contents(tmp_path)  # and once more when it is closed
    finally:
        own.removeHandler(caplog.handler)
        own.setLevel(logging.NOTSET)
    logged = caplog.text.encode()
    seen = sum(len(held) for held in files.values())
    print(f"\n{counts}; searched {len(files)} files of {seen} bytes, {len(streamed)} bytes streamed, {len(logged)} logged")
    assert counts["not_understood"] == 21
    assert b"vedette.not-understood" in streamed
    assert b"port.update.end" in streamed
    assert any(b"port.update.end" in held for held in files.values())
    assert b"connected" in logged
    for needle in needles:
        assert needle not in streamed, needle
        assert needle not in logged, needle
        for name, held in files.items():
            assert needle not in held, (needle, name)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_tenants_see_some_things_and_not_others() -> None:
    """What the comparisons above rest on: at the stops there is something to hide, and something to share."""
    recorded = Recorded()
    hidden = shown = fields = 0
    for stop in STOPS:
        inventory = expectation.after(recorded.inner[:stop])
        everything: Objects = wanted(inventory)
        for project in TENANTS:
            part = wanted(inventory, tenant=project)
            shown += len(part)
            hidden += len(everything) - len(part)
            fields += sum(1 for key in part if everything[key].admin)
    assert shown > 50
    assert hidden > 50
    assert fields > 10
