"""A whole Vedette with audits on a whole (fake) cloud, and the real `python-watcherclient` beside it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from serving import SECONDS

from vedette.app import Service
from vedette.config import SourceConfig, load_text
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.model.fold import name_of
from vedette.plugins import load
from vedette.ports import Source
from vedette.sources.openstack import OpenStackSource
from vedette.testing.broker import FakeBroker
from vedette.testing.cloud import Announcement, FakeCloud
from vedette.testing.keystone import Listed

EXCHANGES = ("nova", "neutron", "octavia", "heat", "openstack", "glance", "keystone")


class Place:
    """The service, the cloud that it looks at and changes, and who may ask for what."""

    def __init__(self, service: Service, cloud: FakeCloud) -> None:
        self.service = service
        self.cloud = cloud
        self.tokens: dict[str, str] = {}

    @property
    def url(self) -> str:
        host, port = self.service.face_addresses["infra_optim"][0]
        return f"http://{host}:{port}"

    @property
    def main_url(self) -> str:
        host, port = self.service.addresses[0]
        return f"http://{host}:{port}"

    async def ask(
        self, method: str, path: str, body: Any = None, *, user: str = "admin", version: str = "latest", **headers: str
    ) -> tuple[int, Any]:
        """(status, body) of the API at its own port."""
        sent = {"OpenStack-API-Version": f"infra-optim {version}", **headers}
        if user:
            sent["X-Auth-Token"] = self.tokens.setdefault(user, self.cloud.token(user))
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, data=data, headers=sent, timeout=aiohttp.ClientTimeout(SECONDS)) as answer,
        ):
            raw = await answer.read()
            return answer.status, json.loads(raw) if raw else None

    async def good(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, answer = await self.ask(method, path, body, **more)
        assert status < 300, (status, answer)
        return answer

    async def until(self, ready: Callable[[], Awaitable[Any]]) -> Any:
        async with asyncio.timeout(SECONDS):
            while not (found := await ready()):
                await asyncio.sleep(0.02)
        return found

    async def audit_in(self, ident: str, state: str) -> Any:
        """The audit, once it is in this state."""

        async def ready() -> Any:
            audit = await self.good("GET", f"/v1/audits/{ident}")
            return audit if audit["state"] == state else None

        return await self.until(ready)

    async def plan_in(self, ident: str, *states: str) -> Any:
        async def ready() -> Any:
            plan = await self.good("GET", f"/v1/action_plans/{ident}")
            return plan if plan["state"] in states else None

        return await self.until(ready)

    async def plans_of(self, audit: str) -> list[Any]:
        found = await self.good("GET", f"/v1/action_plans/detail?audit_uuid={audit}")
        plans: list[Any] = found["action_plans"]
        return plans

    def server(self, host: str, **fields: Any) -> str:
        """A server on this host, announced."""
        id_ = self.cloud.server(**fields)
        self.cloud.compute.change("server", id_, {"OS-EXT-SRV-ATTR:host": host, "OS-EXT-SRV-ATTR:hypervisor_hostname": host})
        return id_

    def host_of(self, id_: str) -> str:
        host: str = self.cloud.compute.servers[id_]["OS-EXT-SRV-ATTR:hypervisor_hostname"]
        return host

    async def object(self, plural: str, id_: str) -> Any:
        """As an admin is served it."""
        url = f"{self.main_url}/apis/openstack.vedette.dev/v1/{plural}?fieldSelector=metadata.name={name_of(id_)}"
        headers = {"X-Auth-Token": self.cloud.token("admin")}
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            (found,) = (await answer.json())["items"]
        return found

    async def resynced(self) -> None:
        """The inventory is what the cloud has."""
        assert self.service.resync is not None
        headers = {"X-Auth-Token": self.cloud.token("admin")}
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                f"{self.main_url}/v1/resync", json={"kinds": []}, headers=headers, timeout=aiohttp.ClientTimeout(SECONDS)
            ) as answer,
        ):
            assert answer.status == 200, await answer.text()
            await answer.read()


@asynccontextmanager
async def optimizing(
    folder: Path,
    *,
    audits: dict[str, Any] | None = None,
    cloud: FakeCloud | None = None,
    beside: Sequence[dict[str, Any]] = (),
    **more: Any,
) -> AsyncIterator[Place]:
    """`audits`: the section of the configuration. `cloud`: one that is there already (after a restart). `beside`: further
    sources."""
    if cloud is None:
        async with (
            FakeCloud(SystemClock()) as fresh,
            optimizing(folder, audits=audits, cloud=fresh, beside=beside, **more) as place,
        ):
            yield place
        return
    broker = FakeBroker()
    for name in EXCHANGES:
        broker.declare_exchange(name)

    def build(one: SourceConfig, clock: Clock, telemetry: Telemetry) -> Source:
        if one.type != "openstack":
            source: Source = load("sources", one.type).build(one.options, clock=clock, telemetry=telemetry)
            return source
        return OpenStackSource(one.options, clock, telemetry, broker=broker)

    def publish(said: Announcement) -> None:
        broker.publish(said.exchange, said.body, routing_key=said.routing_key)

    cloud.listeners.append(publish)
    settings = {
        "listen": "127.0.0.1:0",
        "data_dir": str(folder / "store"),
        "auth": {"mode": "keystone", "keystone": cloud.credentials("admin")},
        "sources": [
            {
                "name": "region-one",
                "type": "openstack",
                "amqp": "amqp://localhost",
                "exchanges": list(EXCHANGES),
                "api": {**cloud.credentials("admin"), "scan": "1s", "resync": "0s"},
                "default": True,
            },
            *beside,
        ],
        "audits": audits or {},
        "faces": {"infra_optim": {"listen": "127.0.0.1:0"}},
        **more,
    }
    service = Service(load_text(yaml.safe_dump(settings), {}), build_source=build)
    await service.start()
    place = Place(service, cloud)
    cloud.identity.catalog = _with_us(cloud.identity.catalog, place)
    try:
        await place.resynced()
        yield place
    finally:
        await service.stop()
        cloud.listeners.remove(publish)


def _with_us(catalog: Any, place: Place) -> Any:
    return lambda project: [*catalog(project), Listed("infra-optim", "watcher", place.url)]
