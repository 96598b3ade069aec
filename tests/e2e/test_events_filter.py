"""`filter=` on `/v1/events`: what fits comes, from the log and live; a caller can ask for nothing that it is not shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yarl
from serving import HOST, SECONDS, A, Asker, B, Cloud, Running, asking, cloud, open_service, uuid_of


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path) as place:
        yield place


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path) as running:
        yield running


def asked(text: str, **more: str) -> str:
    return str(yarl.URL("/v1/events").with_query({"filter": text, "after": "0", "follow": "false", **more}))


async def found(asker: Asker, text: str, **options: Any) -> list[str]:
    """The ids of the ports in the events that fit."""
    code, _, body = await asker.get(asked(text), **options)
    assert code == 200, body
    return [json.loads(line)["data"]["port"]["id"] for line in body.splitlines()]


async def test_only_what_fits_comes(running: Running) -> None:
    one, other = uuid_of(1), uuid_of(2)
    await running.port(one)
    await running.port(other, status="ACTIVE")
    await running.port(one, "update", status="ACTIVE")
    async with asking(running) as asker:
        assert await found(asker, "object.status.status == 'ACTIVE'") == [other, one]
        assert await found(asker, "object.status.status == 'ACTIVE' && old.status.status == 'DOWN'") == [one]
        assert await found(asker, "'status.status' in changed && event.verb == 'MODIFIED'") == [one]
        assert await found(asker, "event.payload.port.id.endsWith('2')") == [other]
        assert await found(asker, f"object.status['binding:host_id'] == '{HOST}'") == [one, other, one]
        assert await found(asker, "object.status.nothing == 1") == []
        assert await found(asker, " ") == [one, other, one]


async def test_a_filter_that_can_not_be_read_is_a_bad_request_that_says_where(running: Running) -> None:
    async with asking(running) as asker:
        for text, why in (
            ("event.typ == 'x'", "filter: 1:7: event has no typ; did you mean type?\n  event.typ == 'x'\n        ^"),
            ("event.type", "filter: 1:1: the expression is not a condition: it gives something else than true or false"),
            ("event.type.matches('x')", "filter: 1:12: matches can't be used here"),
            ("event.type == '" + "x" * 3000 + "'", "filter: an expression has at most 2048 characters"),
        ):
            said = await asker.status(asked(text), 400)
            assert said["message"].startswith(why), said["message"]


async def test_a_filter_on_a_stream_lets_through_what_comes(running: Running) -> None:
    async with asking(running) as asker, asyncio.timeout(SECONDS):
        path = str(yarl.URL("/v1/events").with_query({"filter": "object.status.name == 'wanted'"}))
        async with asker.watch(path) as stream, asker.watch(path) as same, asker.watch("/v1/events") as everything:
            await running.until_watched(3)
            assert running.service.hub is not None
            assert len(running.service.hub._notices) == 2  # asked once for all that want the same
            await running.port(uuid_of(1), name="other")
            await running.port(uuid_of(2), name="wanted")
            for one, ids in ((stream, [2]), (same, [2]), (everything, [1, 2])):
                for number in ids:
                    assert (await one.event())["data"]["port"]["id"] == uuid_of(number)


PROBES = (
    f"object.status['binding:host_id'] == '{HOST}'",
    "'binding:host_id' in object.status || 'binding:vif_type' in object.status",
    f"event.payload.port['binding:host_id'].startsWith('{HOST[:4]}')",
    "'binding:host_id' in event.payload.port",
    "'status.binding:host_id' in changed",
    "changed.exists(path, path.contains('host'))",
    f"object == {{}} || old.status['binding:host_id'] != '{HOST}'",
    "event.publisher != ''",
    "event.user != ''",
    f"event.project == '{B}' || object.metadata.namespace == '{B}' || old.metadata.namespace == '{B}'",
    "old != {} && old.status.name == 'in-b'",
)


async def test_a_tenant_finds_nothing_by_asking_for_what_it_is_not_shown(place: Cloud) -> None:
    one = uuid_of(1)
    await place.port(one, project=B, name="in-b")
    await place.port(one, "update", project=B, name="in-b", **{"binding:host_id": "elsewhere"})
    await place.port(one, "update", name="in-a")  # to the other project, and back to its host
    await place.port(one, "update", name="again", **{"binding:host_id": f"{HOST}-2"})
    async with asking(place) as asker:
        alice, root = place.token("alice"), place.token("root")
        shown = await found(asker, "true", headers=alice)
        assert shown == [one, one]
        for probe in PROBES:
            assert await found(asker, probe, headers=alice) == [], probe
        assert await found(asker, "event.verb == 'ADDED' && old == {}", headers=alice) == [one]
        assert await found(asker, "old.status.name == 'in-a' && 'status.name' in changed", headers=alice) == [one]
        assert await found(asker, "'status.binding:host_id' in changed && event.publisher != ''", headers=root) != []
        assert await found(asker, f"object.metadata.namespace == '{A}' && old.metadata.namespace == '{B}'", headers=root) == [one]
