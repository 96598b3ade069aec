"""What tests of actions stand on: the fake cloud over HTTP, our client to it, and what an action is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from vedette import plugins
from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import GiveUp
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.ports import Action, Hands, JsonObject, Ready, Skip
from vedette.testing.cloud import FakeCloud

REQUEST = "req-11111111-2222-4333-8444-555555555555"
SECONDS = 20.0
"""Until a wait counts as broken."""


class Place:
    """A cloud with three hosts."""

    def __init__(self, fake: FakeCloud, cloud: OpenStackCloud) -> None:
        self.fake = fake
        self.said: list[str] = []
        self.hands = Hands(cloud=cloud, clock=SystemClock(), request_id=REQUEST, say=self.said.append, wait=self._wait)

    async def _wait(self, ready: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
        async with asyncio.timeout(SECONDS):
            while not await ready():
                await asyncio.sleep(0.01)

    def server(self, host: str = "fake-1", **fields: Any) -> str:
        id_ = self.fake.server(**fields)
        self.fake.compute.change("server", id_, {"OS-EXT-SRV-ATTR:host": host, "OS-EXT-SRV-ATTR:hypervisor_hostname": host})
        return id_

    def at(self, id_: str) -> tuple[str, str]:
        """(host, status)"""
        row = self.fake.compute.servers[id_]
        return row["OS-EXT-SRV-ATTR:hypervisor_hostname"], row["status"]

    def asked(self, action: str, id_: str) -> int:
        return self.fake.compute.moves.asked[action, id_]

    async def all_of(self, action: Action, parameters: JsonObject) -> JsonObject:
        """Check, run, verify; what was there before."""
        found = await action.check(self.hands, parameters)
        assert isinstance(found, Ready), found
        await action.run(self.hands, parameters, found.before)
        await action.verify(self.hands, parameters, found.before)
        return found.before

    async def refused(self, action: Action, parameters: JsonObject) -> str:
        """Why `check` does not let it be run: with `skip: ` before it when there is nothing to do."""
        try:
            found = await action.check(self.hands, parameters)
        except GiveUp as why:
            return str(why)
        assert isinstance(found, Skip), found
        return f"skip: {found.reason}"


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    async with FakeCloud(SystemClock()) as fake:
        made = credentials(fake.credentials("admin"))
        cloud = OpenStackCloud(made, name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5)
        try:
            yield Place(fake, cloud)
        finally:
            await cloud.close()


def action(name: str) -> Action:
    return plugins.actions()[name]
