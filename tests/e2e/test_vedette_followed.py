"""A Vedette whose source is another Vedette: the same objects in both, through ends of either, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from cli_processes import free_port
from serving import SECONDS

from vedette.app import Service
from vedette.config import SourceConfig, load_text
from vedette.errors import ConfigError
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.model.reading import OPENSTACK
from vedette.plugins import load
from vedette.ports import EVERYTHING, Selection, Source
from vedette.sources.openstack import OpenStackSource
from vedette.testing.broker import FakeBroker
from vedette.testing.cloud import Announcement, FakeCloud

TOKEN = "of-an-admin-of-the-first-one"
EXCHANGES = ("nova", "neutron", "heat", "openstack")


class Both:
    """A cloud, the one that hears it, and where the other one may find that."""

    def __init__(self, cloud: FakeCloud, folder: Path) -> None:
        self.cloud, self.folder = cloud, folder
        self.port = free_port()
        self.broker = FakeBroker()
        for name in EXCHANGES:
            self.broker.declare_exchange(name)
        cloud.listeners.append(self._publish)

    def _publish(self, said: Announcement) -> None:
        self.broker.publish(said.exchange, said.body, routing_key=said.routing_key)

    @asynccontextmanager
    async def first(self, data: str = "first", **more: Any) -> AsyncIterator[Service]:
        source = {"name": "region-one", "type": "openstack", "amqp": "amqp://localhost", "exchanges": list(EXCHANGES)}
        tokens = [{"token": TOKEN, "name": "second", "projects": ["*"], "roles": ["admin"]}]
        settings = {
            "listen": f"127.0.0.1:{self.port}",
            "data_dir": str(self.folder / data),
            "auth": {"mode": "tokens", "tokens": tokens},
            "watch": {"bookmark_seconds": "1s"},
            "sources": [source],
            **more,
        }

        def build(one: SourceConfig, clock: Clock, telemetry: Telemetry) -> Source:
            return OpenStackSource(one.options, clock, telemetry, broker=self.broker)

        async with running(settings, build) as service:
            await until(service, lambda said: said["sources"][0]["ready"])
            yield service

    @asynccontextmanager
    async def second(self, **source: Any) -> AsyncIterator[Service]:
        one = {
            "name": "far",
            "type": "vedette",
            "url": f"http://127.0.0.1:{self.port}",
            "token": TOKEN,
            "source": "region-one",
            **source,
        }
        settings = {"listen": "127.0.0.1:0", "data_dir": str(self.folder / "second"), "auth": {"mode": "none"}, "sources": [one]}
        async with running(settings) as service:
            yield service


@asynccontextmanager
async def running(settings: dict[str, Any], build: Any = None) -> AsyncIterator[Service]:
    service = Service(load_text(yaml.safe_dump(settings), {}), build_source=build)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


async def until(service: Service, so: Callable[[Any], bool]) -> Any:
    """The service's status, once it is so."""
    host, port = service.addresses[0]
    async with asyncio.timeout(SECONDS), aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"}) as session:
        while True:
            async with session.get(f"http://{host}:{port}/v1/status") as answer:
                assert answer.status == 200, await answer.text()
                said = await answer.json()
            if so(said):
                return said
            await asyncio.sleep(0.05)


async def objects(service: Service, source: str) -> dict[str, bytes]:
    """Kind and id → what is known, without what is ours alone."""
    assert service.store is not None
    found: dict[str, bytes] = {}
    for kind in ("Server", "Port", "Stack", "Network"):
        page = await service.store.objects(Selection(EVERYTHING, group=OPENSTACK, kind=kind, source=source), limit=1000)
        for key, version in page.items:
            found[f"{kind}/{key.id}"] = version.body.partition(b'"status":')[2]
    return found


async def events(service: Service) -> list[tuple[str, str]]:
    """(id, type) of every entry that its source brought."""
    assert service.store is not None
    found = await service.store.entries(service.store.oldest, limit=10_000)
    return [(one.entry.notice.id, one.entry.notice.event_type) for one in found[0]]


async def equal(one: Service, other: Service, least: int) -> dict[str, bytes]:
    """What both know, once they know the same of so many objects."""
    async with asyncio.timeout(SECONDS):
        while True:
            here, there = await objects(one, "region-one"), await objects(other, "far")
            if here == there and len(here) >= least:
                return here
            await asyncio.sleep(0.05)


@pytest.fixture
async def both(tmp_path: Path) -> AsyncIterator[Both]:
    async with FakeCloud(SystemClock()) as cloud:
        yield Both(cloud, tmp_path)


async def test_what_one_hears_the_other_has_through_ends_of_either(both: Both) -> None:
    cloud = both.cloud
    async with both.first() as first:
        server = cloud.server(name="a")
        async with both.second() as second:
            cloud.port()
            await equal(first, second, 2)
            cloud.compute.state(server, "stopped")
            cloud.create("stack")
            known = await equal(first, second, 3)
            assert {name.partition("/")[0] for name in known} == {"Server", "Port", "Stack"}
            assert b"stopped" in known[f"Server/{server}"]
        # While the second is away.
        for _ in range(30):
            cloud.port()
        async with both.second() as second:
            cloud.server(name="b")
            await equal(first, second, 34)
    # While the first is away: its queue at the broker keeps it.
    async with both.second() as second:
        cloud.server(name="c")
        assert len(await objects(second, "far")) == 34
        async with both.first() as first:
            cloud.server(name="d")
            await equal(first, second, 36)
            heard = [one for one in await events(first) if not one[1].startswith("vedette.")]
            got = [one for one in await events(second) if not one[1].startswith("vedette.")]
            assert got == heard, "the same, in the same order, and nothing twice"
            status = await until(second, lambda said: said["sources"][0]["ready"])
            assert status["sources"][0]["type"] == "vedette"


async def test_a_log_that_is_a_new_one_is_a_gap_and_read_from_its_beginning(both: Both) -> None:
    async with both.second() as second:
        async with both.first() as first:
            for _ in range(20):
                both.cloud.port()
            await equal(first, second, 20)
        async with both.first(data="anew") as first:
            for _ in range(3):
                both.cloud.server()

            async with asyncio.timeout(SECONDS):
                while len([name for name in await objects(second, "far") if name.startswith("Server/")]) < 3:
                    await asyncio.sleep(0.05)
            assert "vedette.gap" in [type_ for _, type_ in await events(second)]


async def test_a_token_that_is_refused_is_said(both: Both) -> None:
    async with both.first(), both.second(token="of-nobody-who-is-known-here") as second:
        said = await until(second, lambda said: "does not take our token" in said["sources"][0]["detail"])
        assert said["sources"][0]["ready"] is False


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "vedette.example.org", "token": "x"}, "wants an address"),
        ({"url": "https://vedette.example.org"}, "token: is missing"),
        ({"url": "https://vedette.example.org", "token": "x", "ca": "/nowhere.pem"}, "nowhere.pem"),
    ],
)
def test_settings_that_can_not_be_are_refused(options: dict[str, Any], words: str) -> None:
    text = yaml.safe_dump({"sources": [{"name": "far", "type": "vedette", "source": "one", **options}], "data_dir": ""})

    def built() -> Any:
        options_ = load_text(text, {}).sources[0].options
        return load("sources", "vedette").build(options_, clock=SystemClock(), telemetry=Telemetry())

    with pytest.raises(ConfigError, match=words):
        built()
