"""kill -9 in the middle of a resync, again and again: every object is there in the end, and each miss was told once."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from rig import ADMIN, PATIENCE, Bus, Child, asking, new_mark, settings

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.rabbit import Rabbit, free_ports

pytestmark = pytest.mark.rabbitmq
PORTS = 4000
KILLS = 4


@pytest.fixture
def bus(rabbit: Rabbit) -> Iterator[Bus]:
    bus = Bus(rabbit.url, new_mark())
    bus.open()
    yield bus
    bus.close()


async def test_killed_in_the_middle_of_a_resync(rabbit: Rabbit, bus: Bus, tmp_path: Path) -> None:
    async with FakeCloud(SystemClock(), furnished=True) as cloud:
        first = cloud.ports(PORTS)
        (port,) = free_ports(1)
        api = {**cloud.credentials(), "page": 100, "resync": "0s"}
        text = settings(rabbit.url, bus.mark, tmp_path / "data", port=port).replace(
            "    check: 1s\n", f"    check: 1s\n    api: {json.dumps(api)}\n"
        )
        service = Child(tmp_path, text, port)
        service.start()
        try:
            async with asking(port) as client:
                await client.up()
                for number in range(KILLS):
                    # Somewhere in the listing, a little later each time.
                    before = cloud.count("network", "/ports")
                    await cloud.asked("network", "/ports", before + 3 + 5 * number)
                    service.kill()
                    if number == 1:
                        for id_ in first[:10]:
                            cloud.delete("port", id_, announce=False)
                        cloud.ports(10)
                    service.start()
                    await client.up()
                await whole(port)
                events = await told(port)
                shown = await names(port)
            code = service.stop()
            assert code == 0
        except BaseException:
            print(service.errors()[-4000:])
            service.stop()
            raise
        assert shown == set(cloud.network.ports)
        assert len(shown) == PORTS
        seen = Counter(events)
        assert {key for key, times in seen.items() if times > 1} == set(), "each miss is told once"
        assert {id_ for what, id_ in seen if what == "port.create.resync"} >= shown
        assert {id_ for what, id_ in seen if what == "port.delete.resync"} <= set(first[:10])
        assert "Traceback" not in service.errors()


async def asked(port: int, path: str) -> Any:
    async with (
        aiohttp.ClientSession(headers={"X-Auth-Token": ADMIN}) as session,
        session.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.read()


async def whole(port: int) -> None:
    """Return when a pass over all ports is over."""
    async with asyncio.timeout(PATIENCE):
        while True:
            (of_cloud,) = json.loads(await asked(port, "/v1/status"))["clouds"]
            report = next(one for one in of_cloud["resync"]["kinds"] if one["kind"] == "port")
            if report["state"] == "done" and of_cloud["resync"]["state"] == "idle":
                return
            await asyncio.sleep(0.1)


async def told(port: int) -> list[tuple[str, str]]:
    """(event type, id of the port) of all that resync told, also of ports."""
    body = await asked(port, "/v1/events?after=0&follow=false&type=port.*.resync")
    events = [json.loads(line) for line in body.splitlines()]
    return [
        (event["type"].removeprefix("openstack."), event["data"]["port"]["id"])
        for event in events
        if event["type"] != "vedette.bookmark"
    ]


async def names(port: int) -> set[str]:
    body = await asked(port, "/apis/openstack.vedette.dev/v1/ports")
    return {item["metadata"]["name"] for item in json.loads(body)["items"]}
