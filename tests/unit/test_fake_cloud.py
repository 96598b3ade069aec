"""The fake cloud, as openstacksdk and plain HTTP see it: discovery, policy, pages, filters, faults, and what it announces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import openstack
import pytest

from vedette.testing.clock import FakeClock
from vedette.testing.cloud import FakeCloud

# openstacksdk warns of its own code, whenever it is used at all.
pytestmark = [
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK50Warning"),
    pytest.mark.filterwarnings("ignore::openstack.warnings.RemovedInSDK60Warning"),
]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def cloud(clock: FakeClock) -> AsyncIterator[FakeCloud]:
    async with FakeCloud(clock) as cloud:
        yield cloud


class Http:
    """Plain requests with a user's token."""

    def __init__(self, cloud: FakeCloud) -> None:
        self._cloud = cloud
        self._session = aiohttp.ClientSession()

    async def get(self, url: str, user: str = "admin", version: str = "", **headers: str) -> tuple[int, Any]:
        headers = {"X-Auth-Token": self._cloud.token(user)} | headers
        if version:
            headers["OpenStack-API-Version"] = version
        async with self._session.get(url, headers=headers) as response:
            is_json = response.content_type == "application/json"
            return response.status, await response.json() if is_json else await response.text()

    async def close(self) -> None:
        await self._session.close()


@pytest.fixture
async def http(cloud: FakeCloud) -> AsyncIterator[Http]:
    http = Http(cloud)
    yield http
    await http.close()


@pytest.fixture
def sdk(cloud: FakeCloud) -> Iterator[Any]:
    """`sdk("admin")` → an openstacksdk connection, to be used in a thread."""
    made: list[Any] = []

    def connect(user: str = "admin") -> Any:
        made.append(openstack.connect(**cloud.credentials(user), load_yaml_config=False, load_envvars=False))
        return made[-1]

    yield connect
    for connection in made:
        connection.close()


async def test_openstacksdk_finds_and_lists_every_service(cloud: FakeCloud, sdk: Any) -> None:
    port = cloud.port(name="one")
    balancer = cloud.loadbalancer(name="two")
    listener = cloud.listener(balancer)
    pool = cloud.pool(listener=listener)
    member = cloud.member(pool)
    server = cloud.server(name="three", ports=[port])

    def look() -> None:
        seen = sdk("admin")
        assert "one" in [found.name for found in seen.network.ports()]
        assert [found.name for found in seen.network.networks()] == sorted(
            ["private", "public"], key=lambda name: {"private": cloud.private, "public": cloud.public}[name]
        )
        assert [found.id for found in seen.load_balancer.load_balancers()] == [balancer]
        assert [found.id for found in seen.load_balancer.members(pool)] == [member]
        assert [found.id for found in seen.compute.servers(all_projects=True)] == [server]
        assert (
            seen.compute.get_server(server).addresses["private"][0]["addr"]
            == cloud.network.ports[port]["fixed_ips"][0]["ip_address"]
        )
        assert {found.host for found in seen.compute.services()} == {"fake-1", "fake-2", "fake-3"}
        assert {found.name for found in seen.identity.users()} == {"admin", "demo"}

    await asyncio.to_thread(look)
