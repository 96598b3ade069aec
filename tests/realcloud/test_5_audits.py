"""Part 5: audits that change a real Nova. An alarm empties a host by live migrations; a plan that fails half-way takes back what
it did; `python-watcherclient` does each step, with a Keystone whose catalog has us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from figures import Figures
from keystoneauth1 import session as sessions
from keystoneauth1.identity import v3
from tenants import AUTH_URL, PASSWORD, PATIENCE, REGION, Tenants, until
from vedette_process import VedetteProcess, free_port, serving
from watcherclient import client as watcher

PART = "5. Audits"
HOSTS = ("fake-1", "fake-2", "fake-3")
MIGRATES = 240.0
"""Seconds for a plan."""
ALARM = {
    "alarm_id": "6a0ed0e5-1f3c-4f2f-9f0d-3c1d4a1e5d0a",
    "alarm_name": "a host is hot",
    "severity": "critical",
    "previous": "ok",
    "current": "alarm",
    "reason": "Transition to alarm due to 1 samples outside threshold, most recent: 99.0",
    "reason_data": {"type": "threshold", "resource_id": "fake-1", "most_recent": 99.0},
}


class Place:
    """A Vedette with Watcher's API, and servers on `fake-1`."""

    def __init__(self, vedette: VedetteProcess, url: str, tenants: Tenants, servers: list[str]) -> None:
        self.vedette = vedette
        self.url = url
        self.tenants = tenants
        self.servers = servers

    def host_of(self, id_: str) -> str:
        return str(self.tenants.admin.compute.get_server(id_).hypervisor_hostname)

    def status_of(self, id_: str) -> str:
        return str(self.tenants.admin.compute.get_server(id_).status)

    def client(self) -> Any:
        auth = v3.Password(
            auth_url=AUTH_URL,
            username="admin",
            password=PASSWORD,
            project_name="admin",
            user_domain_name="Default",
            project_domain_name="Default",
        )
        session = sessions.Session(auth=auth, verify=str(self.vedette.authority.ca))
        return watcher.get_client("1", session=session, region_name=REGION, os_infra_optim_api_version="1.7")

    async def alarm(self, audit: str) -> float:
        """What Aodh sends; seconds until it is answered."""
        headers = {"X-Auth-Token": await self.vedette.admin()}
        began = time.monotonic()
        async with (
            self.vedette.session() as session,
            session.post(f"{self.url}/v1/webhooks/{audit}", json=ALARM, headers=headers) as answer,
        ):
            assert answer.status == 202, await answer.text()
        return time.monotonic() - began


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


def ended(client: Any, audit: str, number: int = 1) -> Any:
    """The audit's last plan, carried out."""

    def look() -> Any:
        plans = client.action_plan.list(audit=audit, detail=True)
        if len(plans) < number or plans[-1].state not in ("SUCCEEDED", "FAILED", "CANCELLED"):
            return None
        return plans[-1]

    return until("a plan to be carried out", look, seconds=MIGRATES)


@pytest.fixture
def servers(tenants: Tenants) -> Iterator[list[str]]:
    """Three servers, settled, all of them on fake-1; every host takes servers again at the end."""
    compute, cloud = tenants.admin.compute, tenants.one.cloud
    image, flavor = tenants.admin.image.find_image("cirros").id, tenants.admin.compute.find_flavor("m1.tiny").id
    net = cloud.network.create_network(name=tenants.named("audited"))
    cloud.network.create_subnet(name=tenants.named("audited"), network_id=net.id, ip_version=4, cidr="10.77.0.0/24")
    made = [
        cloud.compute.create_server(
            name=tenants.named(f"audited-{n}"), image_id=image, flavor_id=flavor, networks=[{"uuid": net.id}]
        ).id
        for n in range(3)
    ]
    for id_ in made:
        until("a server to be ACTIVE", lambda id_=id_: compute.get_server(id_).status == "ACTIVE")
        if compute.get_server(id_).hypervisor_hostname != "fake-1":
            compute.live_migrate_server(id_, host="fake-1", block_migration="auto")
            until("a server to be on fake-1", lambda id_=id_: _settled_on(compute, id_, "fake-1"))
    try:
        yield made
    finally:
        for service in compute.services(binary="nova-compute"):
            if service.status != "enabled":
                compute.enable_service(service)


def _settled_on(compute: Any, id_: str, host: str) -> bool:
    server = compute.get_server(id_)
    return server.hypervisor_hostname == host and server.status == "ACTIVE" and not server.task_state


@pytest.fixture
async def place(tenants: Tenants, servers: list[str], tmp_path: Path) -> AsyncIterator[Place]:
    port = free_port()
    identity = tenants.admin.identity
    service = identity.create_service(name=tenants.named("watcher"), type="infra-optim")
    more = {
        # One action at a time, so that what fails comes last.
        "audits": {"policy": "rollback", "parallel": 1},
        "faces": {"infra_optim": {"listen": f"127.0.0.1:{port}"}},
    }
    endpoint = identity.create_endpoint(
        service_id=service.id, interface="public", url=f"https://127.0.0.1:{port}", region_id=REGION
    )
    try:
        async with serving(tmp_path, tenants.tag, api={"resync": "10m"}, more=more) as vedette:
            await _knows(vedette, servers)
            yield Place(vedette, f"https://127.0.0.1:{port}", tenants, servers)
    finally:
        identity.delete_endpoint(endpoint)
        identity.delete_service(service)


async def _knows(vedette: VedetteProcess, servers: list[str]) -> None:
    """The inventory has the servers, the hosts and what Placement says of them."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        there = {item["metadata"]["name"] for item in await vedette.items("Server")}
        providers = await vedette.items("ResourceProvider")
        if there >= set(servers) and len(providers) >= len(HOSTS) and len(await vedette.items("Hypervisor")) >= len(HOSTS):
            return
        await asyncio.sleep(0.5)
    raise AssertionError("the inventory is not complete")


async def test_an_alarm_empties_a_host(place: Place, figures: Figures) -> None:
    client = await in_thread(place.client)

    def prepared() -> Any:
        client.audit_template.create(name="empty", goal="cluster_maintaining", strategy="host_maintenance")
        return client.audit.create(
            name="empty-fake-1",
            audit_type="EVENT",
            audit_template_uuid=client.audit_template.get("empty").uuid,
            parameters={"maintenance_node": "fake-1", "backup_node": "fake-2"},
            auto_trigger=True,
        )

    audit = await in_thread(prepared)
    assert audit.state == "PENDING"
    began = time.monotonic()
    answered = await place.alarm("empty-fake-1")
    plan = await in_thread(lambda: ended(client, audit.uuid))
    took = time.monotonic() - began
    actions = await in_thread(lambda: client.action.list(action_plan=plan.uuid, detail=True))
    assert plan.state == "SUCCEEDED", [(one.action_type, one.state, one.status_message) for one in actions]
    assert {place.host_of(one) for one in place.servers} == {"fake-2"}
    assert {place.status_of(one) for one in place.servers} == {"ACTIVE"}
    moved = [one for one in actions if one.action_type == "migrate"]
    assert len(moved) >= len(place.servers)
    assert {one.state for one in actions} == {"SUCCEEDED"}
    services = {one.host: one for one in place.tenants.admin.compute.services(binary="nova-compute")}
    assert (services["fake-1"].status, services["fake-1"].disabled_reason) == ("disabled", "watcher_maintaining")
    # The inventory knows it too, by Nova's own notifications.
    served = {item["metadata"]["name"]: item["status"] for item in await place.vedette.items("Server")}
    assert {served[one]["OS-EXT-SRV-ATTR:hypervisor_hostname"] for one in place.servers} == {"fake-2"}
    figures.add(PART, "an alarm's webhook was answered after", f"{answered * 1000:.0f} ms")
    figures.add(PART, f"the host was empty and disabled, {len(moved)} live migrations later, after", f"{took:.1f} s")


def completed(place: Place, id_: str, since: str) -> list[Any]:
    """Migrations of a server that Nova calls completed: somewhat after the server is there."""
    told = place.tenants.admin.compute.get(f"/os-migrations?instance_uuid={id_}", microversion="2.59").json()["migrations"]
    return [one for one in told if one["status"] == "completed" and one["created_at"] >= since]


async def test_a_plan_that_fails_half_way_is_taken_back(place: Place, figures: Figures) -> None:
    client = await in_thread(place.client)
    first, second, _ = place.servers
    move = {"migration_type": "live", "source_node": "fake-1"}
    actions = [
        {"action_type": "migrate", "resource_id": first, "input_parameters": {**move, "destination_node": "fake-2"}},
        {"action_type": "migrate", "resource_id": second, "input_parameters": {**move, "destination_node": "fake-3"}},
        {"action_type": "nop", "resource_id": "", "input_parameters": {"message": "the last straw", "fail_execute": True}},
    ]

    def planned() -> Any:
        audit = client.audit.create(
            name="half-way", audit_type="ONESHOT", goal="unclassified", strategy="actuator", parameters={"actions": actions}
        )
        until("the audit to have run", lambda: client.audit.get(audit.uuid).state == "SUCCEEDED")
        (plan,) = client.action_plan.list(audit=audit.uuid)
        return plan

    plan = await in_thread(planned)
    # One after the other: what fails comes last.
    found = await in_thread(lambda: client.action.list(action_plan=plan.uuid, detail=True))
    assert [one.action_type for one in found] == ["migrate", "migrate", "nop"]
    began, since = time.monotonic(), datetime.now(UTC).replace(tzinfo=None, microsecond=0).isoformat()
    await in_thread(lambda: client.action_plan.start(plan.uuid))
    plan = await in_thread(lambda: ended(client, plan.audit_uuid))
    assert plan.state == "FAILED"
    assert {place.host_of(one) for one in place.servers} == {"fake-1"}
    assert {place.status_of(one) for one in place.servers} == {"ACTIVE"}
    found = await in_thread(lambda: client.action.list(action_plan=plan.uuid, detail=True))
    assert [(one.action_type, one.state) for one in found] == [
        ("migrate", "SUCCEEDED"),
        ("migrate", "SUCCEEDED"),
        ("nop", "FAILED"),
    ]
    served = await place.vedette.json("/apis/vedette.dev/v1/actions")
    mine = [item["status"] for item in served["items"] if item["status"]["action_plan_uuid"] == plan.uuid]
    assert sorted(one["outcome"] for one in mine) == ["failed", "undone", "undone"], mine
    # There and back, as Nova counts them.
    for id_ in (first, second):
        await in_thread(lambda id_=id_: until(f"two migrations of {id_}", lambda: len(completed(place, id_, since)) >= 2))
        assert len(completed(place, id_, since)) == 2
    figures.add(PART, "a plan that failed at its last step was taken back after", f"{time.monotonic() - began:.1f} s")


async def test_where_no_token_is_nothing_is_triggered(place: Place) -> None:
    client = await in_thread(place.client)
    await in_thread(lambda: client.audit.create(name="e", audit_type="EVENT", goal="dummy"))
    async with place.vedette.session() as session:
        for headers, code in (({}, 401), ({"X-Auth-Token": "no-token"}, 401), ({"X-Auth-Token": place.tenants.one.token()}, 403)):
            async with session.post(f"{place.url}/v1/webhooks/e", json=ALARM, headers=headers) as answer:
                assert answer.status == code, await answer.text()
    assert isinstance(session, aiohttp.ClientSession)
    assert (await in_thread(lambda: client.audit.get("e"))).state == "PENDING"
