"""What the fake cloud does when a caller changes things with its own token: accounts, key pairs, servers, stacks, volumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from vedette.testing.clock import FakeClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.cloud_service import Service


class Http:
    """Plain requests with a user's token, or with the one that is said."""

    def __init__(self, cloud: FakeCloud, session: aiohttp.ClientSession) -> None:
        self._cloud = cloud
        self._session = session

    async def url(
        self, method: str, url: str, said: Any = None, *, user: str = "demo", token: str = "", version: str = ""
    ) -> tuple[int, Any]:
        headers = {"X-Auth-Token": token or self._cloud.token(user)}
        if version:
            headers["OpenStack-API-Version"] = version
        async with self._session.request(method, url, headers=headers, json=said, allow_redirects=False) as response:
            body = await response.read()
            return response.status, await response.json() if body and response.content_type == "application/json" else body

    async def __call__(
        self, service: Service, method: str, path: str, said: Any = None, *, user: str = "demo", version: str = ""
    ) -> tuple[int, Any]:
        at = service.endpoint(self._cloud.project_id(self._cloud.credentials(user)["project_id"]))
        root = at if at.endswith(service.root) or f"{service.root}/" in at else at + service.root
        return await self.url(method, root + path, said, user=user, version=f"{service.type} {version}" if version else "")

    async def keystone(
        self, method: str, path: str, said: Any = None, *, user: str = "admin", token: str = ""
    ) -> tuple[int, Any]:
        return await self.url(method, self._cloud.identity.url + path, said, user=user, token=token)

    async def login(self, user: dict[str, Any], password: str, project: str = "") -> tuple[int, str]:
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": {**user, "password": password}}}}
        if project:
            auth["scope"] = {"project": {"id": project}}
        async with self._session.post(f"{self._cloud.identity.url}/auth/tokens", json={"auth": auth}) as response:
            return response.status, response.headers.get("X-Subject-Token", "")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def cloud(clock: FakeClock) -> AsyncIterator[FakeCloud]:
    async with FakeCloud(clock) as cloud:
        yield cloud


@pytest.fixture
async def http(cloud: FakeCloud) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession() as session:
        yield Http(cloud, session)


async def made(http: Http, kind: str, name: str, **more: Any) -> str:
    status, body = await http.keystone("POST", f"/{kind}s", {kind: {"name": name, **more}})
    assert status == 201, body
    return str(body[kind]["id"])


async def soon(cloud: FakeCloud) -> None:
    """What is begun at once is over."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- Keystone


async def test_a_user_is_made_signs_in_and_has_a_new_password(cloud: FakeCloud, http: Http) -> None:
    wanted = {"name": "ann", "domain_id": "default", "password": "first!", "email": "a@b.example", "description": "Ann"}
    status, body = await http.keystone("POST", "/users", {"user": wanted})
    assert status == 201
    user = body["user"]
    assert (user["email"], user["description"], user["enabled"]) == ("a@b.example", "Ann", True)
    assert "password" not in user
    by_name = {"name": "ann", "domain": {"id": "default"}}
    for who in (by_name, {"id": user["id"]}):
        status, token = await http.login(who, "first!")
        assert status == 201
    status, body = await http.keystone("GET", f"/users/{user['id']}", token=token)
    assert (status, body["user"]["email"]) == (200, "a@b.example"), "a user sees himself"
    assert (await http.keystone("GET", "/users", token=token))[0] == 403, "and nobody else"
    assert (await http.keystone("PATCH", f"/users/{user['id']}", {"user": {"password": "second"}}))[0] == 200
    assert (await http.keystone("GET", f"/users/{user['id']}", token=token))[0] == 401
    assert (await http.login(by_name, "first!"))[0] == 401
    assert (await http.login(by_name, "second"))[0] == 201
    assert (await http.keystone("PATCH", f"/users/{user['id']}", {"user": {"password": None}}))[0] == 200
    assert (await http.login(by_name, "second"))[0] == 401
    assert "second" not in repr(cloud.identity.users)
    assert "first" not in repr(cloud.identity.users)


async def test_names_are_free_or_409_and_lists_find_them(http: Http) -> None:
    for kind in ("user", "project"):
        one, other = await made(http, kind, "x"), await made(http, kind, "y")
        status, body = await http.keystone("POST", f"/{kind}s", {kind: {"name": "x", "domain_id": "default"}})
        assert (status, body["error"]["code"], body["error"]["title"]) == (409, 409, "Conflict")
        assert (await http.keystone("PATCH", f"/{kind}s/{other}", {kind: {"name": "x"}}))[0] == 409
        assert (await http.keystone("PATCH", f"/{kind}s/{other}", {kind: {"name": "y", "enabled": False}}))[0] == 200
        _, body = await http.keystone("GET", f"/{kind}s?name=x&domain_id=default")
        assert [row["id"] for row in body[f"{kind}s"]] == [one]
        assert (await http.keystone("GET", f"/{kind}s?name=x&domain_id=else"))[1][f"{kind}s"] == []
        for wrong in ({"name": ""}, {"name": 5}, {"name": "n" * 256}, {"name": "n", "enabled": "yes"}):
            assert (await http.keystone("POST", f"/{kind}s", {kind: wrong}))[0] == 400
        assert (await http.keystone("POST", f"/{kind}s", {kind: {"name": "z", "domain_id": "none"}}))[0] == 404
        assert (await http.keystone("DELETE", f"/{kind}s/{one}"))[0] == 204
        assert (await http.keystone("DELETE", f"/{kind}s/{one}"))[0] == 404
        assert (await http.keystone("PATCH", f"/{kind}s/{one}", {kind: {"name": "w"}}))[0] == 404


async def test_a_grant_opens_a_project_and_its_end_closes_it(cloud: FakeCloud, http: Http) -> None:
    user, project = await made(http, "user", "bob", password="pw"), await made(http, "project", "lab", description="d")
    role = cloud.identity.add_role("watcher")
    _, body = await http.keystone("GET", "/roles?name=watcher")
    assert [row["id"] for row in body["roles"]] == [role]
    rating = await made(http, "role", "rating")
    assert (await http.keystone("POST", "/roles", {"role": {"name": "rating"}}))[0] == 409
    at = f"/projects/{project}/users/{user}/roles"
    assert (await http.login({"id": user}, "pw", project))[0] == 401
    assert (await http.keystone("HEAD", f"{at}/{role}"))[0] == 404
    assert (await http.keystone("DELETE", f"{at}/{role}"))[0] == 404
    for _ in range(2):
        assert (await http.keystone("PUT", f"{at}/{role}"))[0] == 204
    assert (await http.keystone("HEAD", f"{at}/{role}"))[0] == 204
    assert [row["name"] for row in (await http.keystone("GET", at))[1]["roles"]] == ["watcher"]
    assert (await http.keystone("POST", f"{at}/{role}"))[0] == 405
    assert (await http.keystone("DELETE", at))[0] == 405
    for path in (f"/projects/no/users/{user}/roles/{role}", f"/projects/{project}/users/no/roles/{role}", f"{at}/no"):
        assert (await http.keystone("PUT", path))[0] == 404
    status, token = await http.login({"id": user}, "pw", project)
    assert status == 201
    _, body = await http.keystone("GET", f"/role_assignments?user.id={user}")
    assert [(row["role"]["id"], row["scope"]["project"]["id"]) for row in body["role_assignments"]] == [(role, project)]
    assert (await http.keystone("GET", f"/projects/{project}", token=token))[1]["project"]["description"] == "d"
    assert (await http.keystone("DELETE", f"{at}/{role}"))[0] == 204
    assert (await http.login({"id": user}, "pw", project))[0] == 401
    assert (await http.keystone("PUT", f"{at}/{rating}"))[0] == 204
    _, token = await http.login({"id": user}, "pw", project)
    assert (await http.keystone("DELETE", f"/projects/{project}"))[0] == 204
    assert (await http.keystone("GET", f"/users/{user}", token=token))[0] == 401
    assert not [grant for grant in cloud.identity.grants if grant[2] == ("project", project)]
    _, token = await http.login({"id": user}, "pw")
    assert (await http.keystone("GET", f"/users/{user}", token=token))[0] == 200
    assert (await http.keystone("DELETE", f"/users/{user}"))[0] == 204
    assert (await http.keystone("GET", f"/users/{user}", token=token))[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users"),
        ("PATCH", "/users/{user}"),
        ("DELETE", "/users/{user}"),
        ("POST", "/projects"),
        ("DELETE", "/projects/{project}"),
        ("POST", "/roles"),
        ("GET", "/roles"),
        ("PUT", "/projects/{project}/users/{user}/roles/role-admin"),
        ("GET", "/projects/{project}/users/{user}/roles"),
    ],
)
async def test_only_an_admin_changes_accounts(cloud: FakeCloud, http: Http, method: str, path: str) -> None:
    at = path.format(user=cloud.user_id("demo"), project=cloud.project_id("demo"))
    status, body = await http.keystone(method, at, {"user": {}}, user="demo")
    assert (status, body["error"]["title"]) == (403, "Forbidden")
    assert body["error"]["message"].startswith("You are not authorized to perform the requested action: identity:")


# --- Nova


async def test_key_pairs_by_microversion(cloud: FakeCloud, http: Http) -> None:
    nova, public = cloud.compute, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAA me"
    status, body = await http(nova, "POST", "/os-keypairs", {"keypair": {"name": "old"}})
    assert (status, "type" in body["keypair"]) == (200, False)
    status, body = await http(nova, "POST", "/os-keypairs", {"keypair": {"name": "new", "type": "ssh"}}, version="2.2")
    assert (status, body["keypair"]["type"], body["keypair"]["user_id"]) == (201, "ssh", cloud.user_id("demo"))
    private = body["keypair"]["private_key"]
    assert private.startswith("-----BEGIN")
    assert private not in str([nova.keypairs[id_] for id_ in nova.keypairs])
    assert body["keypair"]["public_key"].startswith("ssh-rsa AAAAB3NzaC1yc2E")
    assert (await http(nova, "POST", "/os-keypairs", {"keypair": {"name": "new"}}, version="2.2"))[0] == 409
    for wrong in (
        {"name": "a/b"},
        {"name": "a@b"},
        {"name": " a"},
        {"name": ""},
        {"name": "a", "public_key": "no"},
        {"name": "a", "type": "x"},
    ):
        assert (await http(nova, "POST", "/os-keypairs", {"keypair": wrong}, version="2.2"))[0] == 400, wrong
    assert (await http(nova, "POST", "/os-keypairs", {"keypair": {"name": "a"}}, version="2.92"))[0] == 400
    status, body = await http(nova, "POST", "/os-keypairs", {"keypair": {"name": "a@b.c", "public_key": public}}, version="2.92")
    assert (status, body["keypair"]["public_key"], "private_key" in body["keypair"]) == (201, public, False)
    _, body = await http(nova, "GET", "/os-keypairs", version="2.2")
    assert [one["keypair"]["name"] for one in body["keypairs"]] == ["a@b.c", "new", "old"]
    assert (await http(nova, "GET", "/os-keypairs", user="admin"))[1] == {"keypairs": []}
    assert (await http(nova, "GET", "/os-keypairs/new", user="admin"))[0] == 404
    assert (await http(nova, "GET", "/os-keypairs/new"))[0] == 200
    assert (await http(nova, "DELETE", "/os-keypairs/old"))[0] == 202
    assert (await http(nova, "DELETE", "/os-keypairs/new", version="2.2"))[0] == 204
    assert (await http(nova, "DELETE", "/os-keypairs/new", version="2.2"))[0] == 404
    nova.quotas["key_pairs"] = 1
    assert (await http(nova, "POST", "/os-keypairs", {"keypair": {"name": "more"}}))[0] == 403


async def test_novas_limits_quotas_and_statistics(cloud: FakeCloud, http: Http) -> None:
    nova, demo, admin = cloud.compute, cloud.project_id("demo"), cloud.project_id("admin")
    cloud.server()
    absolute = (await http(nova, "GET", "/limits"))[1]["limits"]["absolute"]
    assert (absolute["totalInstancesUsed"], absolute["maxTotalCores"], absolute["maxTotalKeypairs"]) == (1, 20, 100)
    assert (await http(nova, "GET", f"/limits?tenant_id={admin}"))[0] == 403
    assert (await http(nova, "GET", f"/os-quota-sets/{demo}"))[1]["quota_set"]["instances"] == 10
    detail = (await http(nova, "GET", f"/os-quota-sets/{demo}/detail"))[1]["quota_set"]
    assert (detail["id"], detail["instances"]) == (demo, {"limit": 10, "in_use": 1, "reserved": 0})
    for path in (f"/os-quota-sets/{admin}", f"/os-quota-sets/{admin}/detail"):
        assert (await http(nova, "GET", path))[0] == 403
    assert (await http(nova, "GET", "/os-quota-sets/none", user="admin"))[0] == 400
    assert (await http(nova, "GET", "/os-hypervisors/statistics"))[0] == 403
    status, body = await http(nova, "GET", "/os-hypervisors/statistics", user="admin", version="2.87")
    assert (status, body["hypervisor_statistics"]["count"]) == (200, 3)
    assert (await http(nova, "GET", "/os-hypervisors/statistics", user="admin", version="2.88"))[0] == 404


async def test_a_tenant_switches_and_deletes_own_servers_only(cloud: FakeCloud, http: Http) -> None:
    nova, server, other = cloud.compute, cloud.server(), cloud.server(project="admin")
    for action, status in (
        *(("suspend", "SUSPENDED"), ("resume", "ACTIVE"), ("pause", "PAUSED"), ("unpause", "ACTIVE")),
        *(("os-stop", "SHUTOFF"),),
    ):
        assert (await http(nova, "POST", f"/servers/{server}/action", {action: None}))[0] == 202
        await soon(cloud)
        assert nova.servers[server]["status"] == status
    for action in ("suspend", "os-stop"):
        status, body = await http(nova, "POST", f"/servers/{server}/action", {action: None})
        text = f"Cannot '{action.removeprefix('os-')}' instance {server} while it is in vm_state stopped"
        assert (status, body["conflictingRequest"]["message"]) == (409, text)
    assert (await http(nova, "POST", f"/servers/{server}/action", {"os-start": None}))[0] == 202
    for method, path, said in (("POST", f"/servers/{other}/action", {"suspend": None}), ("DELETE", f"/servers/{other}", None)):
        assert (await http(nova, method, path, said))[0] == 404
    cloud.change("server", server, locked=True)
    assert (await http(nova, "DELETE", f"/servers/{server}"))[0] == 409
    cloud.change("server", server, locked=False)
    assert (await http(nova, "DELETE", f"/servers/{server}"))[0] == 204
    assert (await http(nova, "GET", f"/servers/{server}"))[0] == 404


# --- Heat


async def test_a_stack_is_suspended_resumed_checked_and_deleted_with_its_servers(cloud: FakeCloud, http: Http) -> None:
    heat, server, stack = cloud.orchestration, cloud.server(), cloud.create("stack", {"stack_name": "s"})
    heat.add_resource(stack, "OS::Nova::Server", server)
    at = f"/stacks/s/{stack}"

    async def act(action: str, after: str) -> None:
        assert (await http(heat, "POST", f"{at}/actions", {action: None}))[0] == 200
        await soon(cloud)
        assert heat.stacks[stack]["stack_status"] == after

    await act("suspend", "SUSPEND_COMPLETE")
    assert cloud.compute.servers[server]["status"] == "SUSPENDED"
    await act("resume", "RESUME_COMPLETE")
    assert cloud.compute.servers[server]["status"] == "ACTIVE"
    await act("check", "CHECK_COMPLETE")
    heat.fails.add(stack)
    await act("suspend", "SUSPEND_FAILED")
    assert cloud.announced[-1].event_type == "orchestration.stack.suspend.error"
    cloud.compute.state(server, "stopped")
    await act("suspend", "SUSPEND_FAILED")
    assert f"Cannot 'suspend' instance {server}" in heat.stacks[stack]["stack_status_reason"]
    for wrong in ({"explode": None}, {}, {"suspend": None, "resume": None}, {"cancel_update": None}):
        assert (await http(heat, "POST", f"{at}/actions", wrong))[0] == 400
    cloud.change("stack", stack, stack_status="UPDATE_IN_PROGRESS")
    assert (await http(heat, "POST", f"{at}/actions", {"suspend": None}))[0] == 409
    await act("cancel_update", "ROLLBACK_COMPLETE")
    other = cloud.create("stack", {"stack_name": "o"}, project="admin")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/actions")):
        assert (await http(heat, method, f"/stacks/o/{other}{path}", {"suspend": None} if path else None))[0] == 404
    assert [(await http(heat, method, f"/stacks/{stack}"))[0] for method in ("GET", "DELETE")] == [302, 302]
    assert (await http(heat, "DELETE", at))[0] == 204
    await soon(cloud)
    assert server not in cloud.compute.servers
    assert (await http(heat, "GET", at))[1]["stack"]["stack_status"] == "DELETE_COMPLETE"
    assert (await http(heat, "DELETE", at))[0] == 404


# --- Cinder and Neutron


async def test_a_volume_is_detached_by_nova_or_by_cinder_and_deleted_then(cloud: FakeCloud, http: Http) -> None:
    cinder, nova, server, volume = cloud.block_storage, cloud.compute, cloud.server(), cloud.create("volume", {"size": 2})
    assert (await http(cinder, "POST", f"/volumes/{volume}/action", {"os-detach": {}}))[0] == 400
    cinder.attach(volume, server)
    status, body = await http(cinder, "DELETE", f"/volumes/{volume}")
    assert (status, body["badRequest"]["message"][:53]) == (400, "Invalid volume: Volume status must be available or er")
    at = f"/servers/{server}/os-volume_attachments"
    (one,) = (await http(nova, "GET", at))[1]["volumeAttachments"]
    assert (one["id"], one["volumeId"], one["serverId"]) == (volume, volume, server)
    assert "id" not in (await http(nova, "GET", f"{at}/{volume}", version="2.89"))[1]["volumeAttachment"]
    assert (await http(nova, "DELETE", f"{at}/{volume}"))[0] == 202
    assert cinder.volumes[volume]["status"] == "available"
    assert [(await http(nova, method, f"{at}/{volume}"))[0] for method in ("GET", "DELETE")] == [404, 404]
    cinder.attach(volume, server)
    act = f"/volumes/{volume}/action"
    assert (await http(cinder, "POST", act, {"os-force_detach": {}}))[0] == 403
    assert (await http(cinder, "POST", act, {"os-detach": {"attachment_id": "none"}}))[0] == 404
    cinder.detach_guarded = True
    assert (await http(cinder, "POST", act, {"os-detach": {}}))[0] == 409
    cinder.detach_guarded = False
    attachment = cinder.volumes[volume]["attachments"][0]["attachment_id"]
    assert (await http(cinder, "POST", act, {"os-detach": {"attachment_id": attachment}}))[0] == 202
    cinder.attach(volume, server)
    assert (await http(nova, "DELETE", f"/servers/{server}"))[0] == 204
    assert cinder.volumes[volume]["status"] == "available"
    snapshot, demo = cloud.create("snapshot", {"volume_id": volume}), cloud.project_id("demo")
    absolute = (await http(cinder, "GET", "/limits"))[1]["limits"]["absolute"]
    assert [absolute[f"total{name}Used"] for name in ("Volumes", "Snapshots", "Gigabytes")] == [1, 1, 4]
    quotas = (await http(cinder, "GET", f"/os-quota-sets/{demo}?usage=true"))[1]["quota_set"]
    assert quotas["volumes"] == {"limit": 10, "in_use": 1, "reserved": 0, "allocated": 0}
    assert (await http(cinder, "GET", f"/os-quota-sets/{cloud.project_id('admin')}"))[0] == 403
    assert (await http(cinder, "DELETE", f"/volumes/{volume}"))[0] == 400
    assert (await http(cinder, "DELETE", f"/volumes/{volume}?cascade=true"))[0] == 202
    assert volume not in cinder.volumes
    assert snapshot not in cinder.snapshots


async def test_a_network_in_use_stays_and_dhcp_is_no_use(cloud: FakeCloud, http: Http) -> None:
    neutron, demo = cloud.network, cloud.project_id("demo")
    network = cloud.create("network")
    subnet = cloud.create("subnet", {"network_id": network})
    port, dhcp = cloud.port(network=network), cloud.port(network=network, device_owner="network:dhcp")
    status, body = await http(neutron, "DELETE", f"/networks/{network}")
    assert (status, body["NeutronError"]["type"]) == (409, "NetworkInUse")
    details = (await http(neutron, "GET", f"/quotas/{demo}/details.json"))[1]["quota"]
    assert details["port"] == {"limit": -1, "used": 2, "reserved": 0}
    assert details.keys() == (await http(neutron, "GET", f"/quotas/{demo}"))[1]["quota"].keys()
    assert (await http(neutron, "GET", f"/quotas/{cloud.project_id('admin')}/details"))[0] == 403
    cloud.delete("port", port)
    assert (await http(neutron, "DELETE", f"/networks/{network}"))[0] == 204
    assert not {dhcp, subnet} & {*neutron.ports, *neutron.subnets}
    assert (await http(neutron, "DELETE", f"/networks/{network}"))[0] == 404
    assert (await http(neutron, "DELETE", f"/networks/{cloud.public}"))[0] == 403
    assert (await http(neutron, "DELETE", f"/networks/{cloud.create('network', project='admin')}"))[0] == 404
