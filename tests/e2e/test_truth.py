"""A whole Vedette, a whole (fake) cloud over HTTP, watchers over HTTP: what the cloud doesn't announce arrives all the same.

What resync and verify decide is in tests/unit; here it is told by the real client, the real kinds, the watch API and its forms.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from serving import APIS, SECONDS, Asker, Running, Stream, serving

from vedette.config import SourceConfig, load_text
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.ports import Source
from vedette.sources.openstack import OpenStackSource
from vedette.testing.broker import FakeBroker
from vedette.testing.cloud import Announcement, FakeCloud

EXCHANGES = ("nova", "neutron", "octavia", "heat", "openstack", "glance", "keystone")


class Place(Running):
    """The service, the cloud that it looks at, the broker between them."""

    cloud: FakeCloud
    broker: FakeBroker

    async def resync(self, *kinds: str, **more: Any) -> dict[str, dict[str, Any]]:
        """The reports of a pass, by kind."""
        async with aiohttp.ClientSession() as session:
            body = {"kinds": kinds, **more}
            async with session.post(f"{self.url}/v1/resync", json=body, timeout=aiohttp.ClientTimeout(SECONDS)) as answer:
                assert answer.status == 200, await answer.text()
                lines = [json.loads(line) async for line in answer.content]
        return {line["kind"]: line for line in lines}

    def number(self, name: str, **labels: str) -> float:
        return self.service.telemetry.registry.get_sample_value(f"vedette_{name}", labels) or 0.0


@asynccontextmanager
async def placed(folder: Path, *, api: dict[str, Any] | None = None, user: str = "admin", **more: Any) -> AsyncIterator[Place]:
    broker = FakeBroker()
    for name in EXCHANGES:
        broker.declare_exchange(name)

    def build(one: SourceConfig, clock: Clock, telemetry: Telemetry) -> Source:
        return OpenStackSource(one.options, clock, telemetry, broker=broker)

    async with FakeCloud(SystemClock()) as cloud:

        def publish(said: Announcement) -> None:
            broker.publish(said.exchange, said.body, routing_key=said.routing_key)

        cloud.listeners.append(publish)
        settings = {
            "listen": "127.0.0.1:0",
            "data_dir": str(folder / "store"),
            "auth": {"mode": "none"},
            "watch": {"bookmark_seconds": "1s"},
            "sources": [
                {
                    "name": "region-one",
                    "type": "openstack",
                    "amqp": "amqp://localhost",
                    "exchanges": list(EXCHANGES),
                    "api": {**cloud.credentials(user), "scan": "500ms", "resync": "0s", **(api or {})},
                }
            ],
            **more,
        }
        if api == {}:
            del settings["sources"][0]["api"]
        async with serving(load_text(json.dumps(settings), {}), build_source=build) as running:
            place = Place(running.service)
            place.cloud, place.broker = cloud, broker
            yield place


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with placed(tmp_path) as one:
        await listed(one)
        yield one


@pytest.fixture
async def asker(place: Place) -> AsyncIterator[Asker]:
    async with aiohttp.ClientSession() as session:
        yield Asker(place, session)


async def listed(place: Place) -> None:
    """Return when the pass of the start is over."""
    resync = place.service.resync
    assert resync is not None
    async with asyncio.timeout(SECONDS):
        while any(one.state != "idle" for one in resync.reports()):
            await asyncio.sleep(0.02)


async def until(stream: Stream, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first event of which it holds."""
    async with asyncio.timeout(SECONDS):
        while True:
            event = await stream.event()
            if event["type"] != "BOOKMARK" and wanted(event):
                return event


def of(id_: str, **status: str) -> Callable[[dict[str, Any]], bool]:
    def holds(event: dict[str, Any]) -> bool:
        shown = event["object"]["status"]
        return event["object"]["metadata"]["name"] == id_ and all(shown.get(name) == value for name, value in status.items())

    return holds


async def test_on_start_the_inventory_is_the_clouds(place: Place, asker: Asker) -> None:
    """Nothing of the furniture was ever announced."""
    cloud = place.cloud
    shown = await asker.json(f"{APIS}/networks")
    assert {item["metadata"]["name"] for item in shown["items"]} == set(cloud.network.networks)
    annotations = shown["items"][0]["metadata"]["annotations"]
    assert annotations["vedette.dev/origin"] == "resync"
    assert annotations["vedette.dev/event-type"] == "network.create.resync"
    assert len((await asker.json(f"{APIS}/hypervisors"))["items"]) == 3
    status = await asker.json("/v1/status")
    (of_cloud,) = status["clouds"]
    states = {one["kind"]: one["state"] for one in of_cloud["resync"]["kinds"]}
    assert {kind for kind, state in states.items() if state != "done"} == {"baremetalnode"}, of_cloud
    assert states["baremetalnode"] == "absent", "this cloud has no Ironic"
    assert all(one["seesAll"] for one in of_cloud["resync"]["kinds"] if one["kind"] not in ("stack", "baremetalnode"))
    head = place.head
    again = await place.resync()
    assert {kind for kind, one in again.items() if one["state"] != "done"} == {"baremetalnode"}
    assert place.head == head, "what is known makes no entry"


async def test_a_port_that_goes_active_silently_is_streamed(place: Place, asker: Asker) -> None:
    async with asker.watch(f"{APIS}/ports?watch=1&allowWatchBookmarks=1") as stream:
        await place.until_watched()
        port = place.cloud.port(device_id="vm-1", device_owner="compute:nova")
        await until(stream, of(port, status="DOWN"))
        await place.cloud.asked("network", "/ports")
        place.cloud.port_active(port)
        event = await until(stream, of(port, status="ACTIVE"))
        assert event["type"] == "MODIFIED"
        assert event["object"]["metadata"]["annotations"]["vedette.dev/origin"] == "verify"
    await place.until_unwatched()


async def test_weaas_clients_see_it_too_raw_or_not(place: Place, asker: Asker) -> None:
    async with asker.watch("/port") as stream, asker.watch("/port?format=raw") as raw:
        await place.until_watched(2)
        port = place.cloud.port(device_id="vm-1", device_owner="compute:nova")
        await until(stream, of(port, status="DOWN"))
        place.cloud.port_active(port)
        await until(stream, of(port, status="ACTIVE"))
        said = await until_said(raw, "port.update.verify")
        assert said["payload"]["port"]["status"] == "ACTIVE"
        assert (said["payload"]["port"]["id"], said["payload"]["reason"]) == (port, "settle")


async def until_said(raw: Stream, event_type: str) -> dict[str, Any]:
    """The first raw notification of this type."""
    async with asyncio.timeout(SECONDS):
        while True:
            line = await raw.line()
            said: dict[str, Any] = json.loads(line) if line.strip() else {}
            if said.get("event_type") == event_type:
                return said


async def test_without_a_watcher_the_api_is_left_alone(place: Place) -> None:
    cloud = place.cloud
    before = cloud.count()
    port = cloud.port(device_id="vm-1", device_owner="compute:nova")
    cloud.loadbalancer(provisioning_status="PENDING_CREATE")
    await asyncio.sleep(2)
    assert cloud.count() == before
    cloud.port_active(port)
    await asyncio.sleep(1)
    assert cloud.count() == before


async def test_load_balancers_and_what_is_under_them_are_streamed_and_then_left_alone(place: Place, asker: Asker) -> None:
    cloud = place.cloud
    async with (
        asker.watch(f"{APIS}/loadbalancers?watch=1") as balancers,
        asker.watch(f"{APIS}/listeners?watch=1") as listeners,
        asker.watch(f"{APIS}/members?watch=1") as members,
    ):
        await place.until_watched(3)
        balancer = cloud.loadbalancer(provisioning_status="PENDING_CREATE")
        await until(balancers, of(balancer, provisioning_status="PENDING_CREATE"))
        cloud.lb_settled(balancer)
        await until(balancers, of(balancer, provisioning_status="ACTIVE"))
        cloud.lb_status(balancer, provisioning="PENDING_UPDATE")
        listener = cloud.listener(balancer, provisioning_status="PENDING_CREATE")
        await until(listeners, of(listener, provisioning_status="PENDING_CREATE"))
        cloud.lb_settled(balancer)
        shown = await until(listeners, of(listener, provisioning_status="ACTIVE"))
        assert shown["object"]["status"]["loadbalancers"] == [{"id": balancer}]
        cloud.lb_status(balancer, provisioning="PENDING_UPDATE")
        pool = cloud.pool(listener=listener, provisioning_status="PENDING_CREATE")
        member = cloud.member(pool, provisioning_status="PENDING_CREATE")
        await until(members, of(member, provisioning_status="PENDING_CREATE"))
        cloud.lb_settled(balancer)
        await until(members, of(member, provisioning_status="ACTIVE"))
        cloud.delete("listener", listener)
        cloud.lb_settled(balancer)
        event = await until(listeners, lambda event: event["type"] == "DELETED")
        assert event["object"]["metadata"]["name"] == listener
    await place.until_unwatched()
    await asyncio.sleep(1)
    before = cloud.count("load-balancer")
    cloud.listener(balancer)
    await asyncio.sleep(2)
    assert cloud.count("load-balancer") == before


async def test_a_dead_compute_service_is_seen_by_who_follows_it(place: Place, asker: Asker) -> None:
    async with asker.watch(f"{APIS}/computeservices?watch=1&resourceVersion=0") as stream:
        await until(stream, lambda event: event["object"]["status"].get("host") == "fake-2")
        place.cloud.compute_down("fake-2")
        event = await until(stream, lambda event: event["object"]["status"]["state"] == "down")
        assert event["object"]["status"]["host"] == "fake-2"
    async with asker.watch(f"{APIS}/hypervisors?watch=1&resourceVersion=0") as stream:
        await until(stream, lambda event: event["object"]["status"]["state"] == "down")


async def test_what_happened_while_nobody_listened_is_told_once(place: Place, asker: Asker) -> None:
    cloud = place.cloud
    # Made by an admin: what is announced of a tenant's has no host, and the listing would complete it.
    stays, changes, goes = (cloud.port(admin=True) for _ in range(3))
    async with asker.watch(f"{APIS}/ports?watch=1&resourceVersion=0") as stream:
        waits = {stays, changes, goes}
        while waits:  # in whichever order: as they come, or by their ids if they are there before the watch
            waits.discard((await until(stream, lambda event: True))["object"]["metadata"]["name"])
        place.broker.stop()
        cloud.bus_up = False
        came = cloud.port(name="came", admin=True)
        cloud.change("port", changes, name="changed")
        cloud.delete("port", goes)
        cloud.bus_up = True
        place.broker.start()
        for name in EXCHANGES:
            place.broker.declare_exchange(name)
        seen: dict[str, str] = {}
        async with asyncio.timeout(SECONDS):
            while len(seen) < 3:
                event = await stream.event()
                if event["type"] != "BOOKMARK":
                    assert event["object"]["metadata"]["name"] not in seen, "once"
                    seen[event["object"]["metadata"]["name"]] = event["type"]
        assert seen == {came: "ADDED", changes: "MODIFIED", goes: "DELETED"}
    await listed(place)
    again = await place.resync("port")
    assert again["port"]["missed"] == {"created": 0, "updated": 0, "deleted": 0}
    for reason in ("create", "update", "delete"):
        assert place.number("resync_missed_total", source="region-one", kind="port", reason=f"missed-{reason}") >= 1
    shown = await asker.json(f"{APIS}/ports")
    assert {item["metadata"]["name"] for item in shown["items"]} == set(cloud.network.ports)


async def test_a_listing_that_breaks_off_deletes_nothing_and_says_so(place: Place, asker: Asker) -> None:
    cloud = place.cloud
    gone = cloud.ports(5)
    assert (await place.resync("port"))["port"]["missed"]["created"] == 5
    cloud.bus_up = False
    for id_ in gone:
        cloud.delete("port", id_)
    cloud.network.fail(503, "/ports")
    report = (await place.resync("port"))["port"]
    assert report["state"] == "incomplete"
    assert report["detail"]
    assert {item["metadata"]["name"] for item in (await asker.json(f"{APIS}/ports"))["items"]} >= set(gone)
    cloud.network.heal()
    report = (await place.resync("port"))["port"]
    assert (report["state"], report["missed"]["deleted"]) == ("done", 5)


async def test_many_deletions_wait_for_a_person(place: Place, asker: Asker) -> None:
    cloud = place.cloud
    gone = cloud.ports(30)
    await place.resync("port")
    cloud.bus_up = False
    for id_ in gone:
        cloud.delete("port", id_)
    report = (await place.resync("port"))["port"]
    assert (report["state"], report["held"]) == ("held", 30)
    report = (await place.resync("port", confirm=True))["port"]
    assert (report["state"], report["missed"]["deleted"]) == ("done", 30)


async def test_a_tenants_account_updates_and_deletes_nothing(tmp_path: Path) -> None:
    async with placed(tmp_path, user="demo") as place, aiohttp.ClientSession() as session:
        asker = Asker(place, session)
        await listed(place)
        cloud = place.cloud
        own, others = cloud.port(), cloud.port(project="admin", network=cloud.public)
        async with asyncio.timeout(SECONDS):
            while len((await asker.json(f"{APIS}/ports"))["items"]) < 2:
                await asyncio.sleep(0.05)
        cloud.change("port", own, announce=False, name="mine")
        report = (await place.resync("port"))["port"]
        assert (report["state"], report["seesAll"]) == ("done", False)
        assert "roles" in report["detail"]
        shown = {item["metadata"]["name"]: item for item in (await asker.json(f"{APIS}/ports"))["items"]}
        assert shown[own]["status"]["name"] == "mine"
        assert others in shown


async def test_a_source_without_an_api_says_that_notifications_are_all_there_is(tmp_path: Path) -> None:
    async with placed(tmp_path, api={}) as place, aiohttp.ClientSession() as session:
        asker = Asker(place, session)
        (told,) = (await asker.json("/v1/status"))["clouds"]
        assert (told["source"], told["api"]) == ("region-one", False)
        assert "notifications" in told["detail"]
        assert place.cloud.count() == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[]", 400),
        (b"{", 400),
        (b'{"kinds": "port"}', 400),
        (b'{"kind": "port"}', 400),
        (b'{"kinds": ["nothing"]}', 400),
        (b'{"source": "elsewhere"}', 404),
        (b'{"kinds": ["ports", "lb"]}', 200),
        (b"", 200),
    ],
)
async def test_what_a_resync_takes(place: Place, asker: Asker, body: bytes, code: int) -> None:
    found, _, said = await asker.get("/v1/resync", method="POST", data=body)
    assert found == code, said
    if code == 200 and body:
        assert {json.loads(line)["kind"] for line in said.splitlines()} == {"port", "loadbalancer"}
    found, _, said = await asker.get("/v1/resync?wait=false", method="POST", data=body)
    assert found == (202 if code == 200 else code)
