"""Part 3: who sees what. Over TLS, with Keystone's tokens of two projects: each one's lists, watches and events hold its own
objects and fields only, which are those that the cloud's own API shows it. kubectl gets in with `vedette kubeconfig`. A stream
ends when its token is revoked, or its role is taken away.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from figures import Figures
from tenants import AUTH_URL, PASSWORD, PATIENCE, Tenant, Tenants, connect, until
from vedette_process import BASE, Follower, VedetteProcess, serving

from vedette.plugins import kinds

PART = "3. Tenants"
KINDS = {kind.kind: kind for kind in kinds()}
FOLLOWED = (
    "Port", "Network", "Subnet", "Router", "FloatingIP", "SecurityGroup", "Server", "ServerGroup", "Keypair", "Image", "Volume",
    "Snapshot", "LoadBalancer", "Listener", "Pool", "Member", "HealthMonitor", "Stack", "Project", "Flavor",
)  # fmt: skip
ADMINS = (
    "Action", "ActionPlan", "Aggregate", "Audit", "BaremetalNode", "ComputeService", "Hypervisor", "ResourceProvider",
    "StoragePool", "User", "VolumeType",
)  # fmt: skip
"""Kinds that no tenant sees anything of."""
THEIRS: Mapping[str, tuple[str, str, str]] = {
    "Port": ("network", "/ports", "ports"),
    "Network": ("network", "/networks", "networks"),
    "Subnet": ("network", "/subnets", "subnets"),
    "Router": ("network", "/routers", "routers"),
    "FloatingIP": ("network", "/floatingips", "floatingips"),
    "SecurityGroup": ("network", "/security-groups", "security_groups"),
    "Server": ("compute", "/servers/detail", "servers"),
    "Image": ("image", "/images?visibility=all&limit=1000", "images"),
    "Volume": ("block_storage", "/volumes/detail", "volumes"),
    "Snapshot": ("block_storage", "/snapshots/detail", "snapshots"),
    "LoadBalancer": ("load_balancer", "/lbaas/loadbalancers", "loadbalancers"),
    "Listener": ("load_balancer", "/lbaas/listeners", "listeners"),
    "Pool": ("load_balancer", "/lbaas/pools", "pools"),
    "HealthMonitor": ("load_balancer", "/lbaas/healthmonitors", "healthmonitors"),
    "Stack": ("orchestration", "/stacks", "stacks"),
}
"""How a tenant lists a kind for itself: service, path, key."""
MICROVERSIONS = {"compute": "2.90", "block_storage": "3.68"}
NOT_THERE = {
    ("Network", "is_default"): "false in every notification; the API has it for external ones",
    ("Image", "properties"): "they stand beside the fields in Glance's API",
    ("Server", "fault"): "null, or in the answer for that server only",
    ("Router", "interfaces_info"): "Neutron's API has it as the ports of the router",
    ("Stack", "project"): "named to admins; it is the tenant's own",
    ("Stack", "stack_owner"): "as its own user knows",
}
"""Fields that a tenant is shown here, and not by the API's list."""
HOSTS = (b"fake-1", b"fake-2", b"fake-3")


@pytest.fixture
async def vedette(tenants: Tenants, tmp_path: Path) -> AsyncIterator[VedetteProcess]:
    async with serving(tmp_path, tenants.tag, api={"resync": "10m"}) as found:
        yield found


def _furnish(tenants: Tenants, tenant: Tenant, *, share: bool) -> dict[str, set[str]]:
    """Some of most kinds in a project, settled; the ids, by kind. An admin binds a port, as Nova does: its host is known."""
    cloud, admin = tenant.cloud, tenants.admin
    made: dict[str, set[str]] = {}

    def keep(kind: str, found: Any) -> Any:
        made.setdefault(kind, set()).add(found.id)
        return found

    n = cloud.network
    named = f"{tenant.name}-"
    net = keep("Network", n.create_network(name=named + "net"))
    range_ = {"ip_version": 4, "cidr": "10.60.0.0/24"}
    sub = keep("Subnet", n.create_subnet(name=named + "sub", network_id=net.id, **range_))
    keep("SecurityGroup", n.create_security_group(name=named + "group"))
    bind = {"device_id": named + "device", "device_owner": "compute:nova", "binding_host_id": "fake-1"}
    bound = keep("Port", admin.network.create_port(network_id=net.id, name=named + "bound", project_id=tenant.project, **bind))
    until("a port to be ACTIVE", lambda: n.get_port(bound.id).status == "ACTIVE")
    router = keep("Router", n.create_router(name=named + "router"))
    public = admin.network.find_network("public").id
    n.update_router(router, external_gateway_info={"network_id": public})
    n.add_interface_to_router(router, subnet_id=sub.id)
    keep("FloatingIP", n.create_ip(floating_network_id=public, port_id=bound.id))
    if share:
        policy = {"object_type": "network", "action": "access_as_shared", "target_tenant": "*"}
        shared = keep("Network", n.create_network(name=named + "shared"))
        keep("Subnet", n.create_subnet(name=named + "shared", network_id=shared.id, ip_version=4, cidr="10.61.0.0/24"))
        admin.network.create_rbac_policy(object_id=shared.id, **policy)
    image = admin.image.find_image("cirros").id
    flavor = admin.compute.find_flavor("m1.tiny").id
    key = cloud.compute.create_keypair(name=named + "key")
    made["Keypair"] = {f"{tenant.user}:{key.name}"}
    keep("ServerGroup", cloud.compute.create_server_group(name=named + "apart", policy="anti-affinity"))
    what = {"image_id": image, "flavor_id": flavor, "key_name": key.name, "networks": [{"uuid": net.id}]}
    server = keep("Server", cloud.compute.create_server(name=named + "server", **what))
    until("a server to be ACTIVE", lambda: cloud.compute.get_server(server.id).status == "ACTIVE")
    kind = {"disk_format": "raw", "container_format": "bare"}
    keep("Image", cloud.image.create_image(name=named + "image", data=b"x", wait=True, **kind))
    v = cloud.block_storage
    volume = keep("Volume", v.create_volume(name=named + "volume", size=1))
    until("a volume", lambda: v.get_volume(volume.id).status == "available")
    snapshot = keep("Snapshot", v.create_snapshot(volume_id=volume.id, name=named + "snapshot"))
    until("a snapshot", lambda: v.get_snapshot(snapshot.id).status == "available")
    random = {"type": "OS::Heat::RandomString", "properties": {"length": 8}}
    template = {"heat_template_version": "2018-08-31", "resources": {"r": random}}
    stack = {"stack_name": named + "stack", "template": template, "timeout_mins": 5}
    made["Stack"] = {cloud.orchestration.post("/stacks", json=stack).json()["stack"]["id"]}
    lbs = cloud.load_balancer
    lb = keep("LoadBalancer", lbs.create_load_balancer(name=named + "lb", vip_subnet_id=sub.id))

    def settled() -> None:
        until("a load balancer to be ACTIVE", lambda: lbs.get_load_balancer(lb.id).provisioning_status == "ACTIVE")

    settled()
    http = {"protocol": "HTTP"}
    listener = keep("Listener", lbs.create_listener(name=named + "listener", protocol_port=80, load_balancer_id=lb.id, **http))
    settled()
    balanced = {"lb_algorithm": "ROUND_ROBIN", "listener_id": listener.id}
    pool = keep("Pool", lbs.create_pool(name=named + "pool", **balanced, **http))
    settled()
    member = {"address": "10.60.0.50", "protocol_port": 8080, "subnet_id": sub.id}
    keep("Member", lbs.create_member(pool, name=named + "member", **member))
    settled()
    health = {"type": "HTTP", "delay": 5, "timeout": 3, "max_retries": 3}
    keep("HealthMonitor", lbs.create_health_monitor(name=named + "monitor", pool_id=pool.id, **health))
    settled()
    return made


async def test_each_tenant_sees_its_own(tenants: Tenants, vedette: VedetteProcess, figures: Figures) -> None:
    tokens = [await asyncio.to_thread(tenant.token) for tenant in (tenants.one, tenants.two)]
    async with (
        vedette.follow(FOLLOWED, tokens[0]) as one,
        vedette.follow(FOLLOWED, tokens[1]) as two,
        vedette.follow(FOLLOWED) as admin,
    ):
        started = await vedette.head()
        made = await asyncio.gather(
            asyncio.to_thread(_furnish, tenants, tenants.one, share=True),
            asyncio.to_thread(_furnish, tenants, tenants.two, share=False),
        )
        # What was made reaches its own tenant, and the admin: also what no notification tells of.
        for follower, mine in ((one, made[0]), (two, made[1]), (admin, made[0]), (admin, made[1])):
            wanted = {(kind, id_) for kind, ids in mine.items() for id_ in ids}
            await follower.until(
                f"all of {sorted(wanted)}", lambda follower=follower, wanted=wanted: wanted <= follower.there.keys()
            )
        await vedette.quiet()
        await vedette.resync()  # Neutron's own ports and the like
        for tenant, other, follower, others in (
            (tenants.one, tenants.two, one, made[1]),
            (tenants.two, tenants.one, two, made[0]),
        ):
            token = tokens[0] if follower is one else tokens[1]
            kept = await _only_its_own(vedette, tenants, tenant, follower, token, started)
            _holds_nothing_of(kept, other, others, shared=follower is two)
            rows, fields = await _as_the_api_shows(vedette, tenant, token)
            figures.add(
                PART, f"project {tenant.name.rpartition('-')[2]} sees", f"{rows} objects, {fields} fields, all its API's own"
            )
            figures.add(PART, "looked through for hosts and the other's ids", f"{sum(map(len, kept)) / 1000:.0f} kB")
        hosts = {event.status.get("binding:host_id") for event in admin.events if event.kind == "Port"}
        assert hosts & {"fake-1", "fake-2", "fake-3"}, "the admin sees hosts, so there were some to be seen"


async def _only_its_own(
    vedette: VedetteProcess, tenants: Tenants, tenant: Tenant, follower: Follower, token: str, started: int
) -> list[bytes]:
    """Lists, watches, events, namespaces and every kind that admins alone see: all bytes that this tenant got."""
    kept = list(follower.raw)
    for kind in KINDS.values():
        body = await vedette.get(f"/apis/{kind.group}/v1/{kind.plural}", token)
        kept.append(body)
        items = json.loads(body)["items"]
        assert not (items and kind.kind in ADMINS), (kind.kind, items[:1])
        for item in items:
            secret = [name for name in item["status"] if name in kind.fields and kind.fields[name].admin]
            assert not secret, (kind.kind, secret)
            own = item["metadata"]["namespace"] == tenant.project
            assert own or kind.audience == "shared" or kind.kind == "Keypair", (kind.kind, item["metadata"])
    for event in follower.events:
        own = event.metadata["namespace"] == tenant.project
        assert own or KINDS[event.kind].audience in ("shared", "owner"), event
    events = await vedette.get("/v1/events", token, after=str(started), follow="false")
    assert events, "it is told of nothing"
    kept.append(events)
    spaces = await vedette.json("/api/v1/namespaces", token)
    assert tenant.project in {item["metadata"]["name"] for item in spaces["items"]}
    kept.append(json.dumps(spaces).encode())
    for path in ("/v1/status", "/metrics"):
        async with vedette.session() as session, session.get(vedette.url + path, headers={"X-Auth-Token": token}) as answer:
            # The metrics are open to whoever is on the machine itself.
            assert answer.status == (403 if path == "/v1/status" else 200), (path, answer.status)
    return kept


def _holds_nothing_of(kept: list[bytes], other: Tenant, others: Mapping[str, set[str]], *, shared: bool) -> None:
    """No host's name, and nothing of the other project: not its id, nor its objects', unless they are shared with everybody."""
    everything = b"\n".join(kept)
    for host in HOSTS:
        at = everything.find(host)
        assert at < 0, everything[max(0, at - 300) : at + 100]
    secret = {id_ for kind, ids in others.items() for id_ in ids if not (shared and kind in ("Network", "Subnet"))}
    for id_ in secret:
        assert id_.encode() not in everything, id_
    if not shared:
        assert other.project.encode() not in everything


async def _as_the_api_shows(vedette: VedetteProcess, tenant: Tenant, token: str) -> tuple[int, int]:
    """Its objects and their fields are those that the cloud's own API lists for it: how many."""
    rows = fields = 0
    strange: set[tuple[str, str]] = set()
    for kind, (service, path, key) in THEIRS.items():
        more = {"microversion": MICROVERSIONS[service]} if service in MICROVERSIONS else {}
        proxy = getattr(tenant.cloud, service)
        answer = await asyncio.to_thread(lambda proxy=proxy, path=path, more=more: proxy.get(path, **more))
        listed = {item["id"]: item for item in answer.json()[key]}
        served = {item["status"]["id"]: item for item in await vedette.items(kind, token)}
        # What is shared with everybody is in both, too. (Not in both: a network that an RBAC policy shares with one project.)
        missing = {id_ for id_, item in listed.items() if id_ not in served and not _anothers(item, tenant)}
        assert served.keys() <= listed.keys(), (kind, served.keys() - listed.keys())
        assert not missing, (kind, missing)
        for id_, item in served.items():
            shown = {name for name in item["status"] if (kind, name) not in NOT_THERE}
            strange |= {(kind, name) for name in shown - listed[id_].keys()}
            rows += 1
            fields += len(shown)
    assert not strange, f"the cloud's API doesn't list these for a tenant: {sorted(strange)}"
    return rows, fields


def _anothers(item: Mapping[str, Any], tenant: Tenant) -> bool:
    return any(item.get(name, tenant.project) != tenant.project for name in ("project_id", "tenant_id", "owner"))


# --- kubectl ---------------------------------------------------------------------------------------------------------------


def _environ(tenant: Tenant) -> dict[str, str]:
    return {
        "OS_AUTH_URL": AUTH_URL,
        "OS_USERNAME": tenant.name,
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": tenant.name,
        "OS_USER_DOMAIN_NAME": "Default",
        "OS_PROJECT_DOMAIN_NAME": "Default",
    }


def _kubectl() -> str:
    """One that can wait for a field, which those before 1.23 can't."""
    there = [shutil.which("kubectl") or "", *os.environ.get("VEDETTE_KUBECTL", "").split(os.pathsep)]
    for path in filter(None, there):
        told = subprocess.run([path, "wait", "--help"], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if "jsonpath" in told.stdout:
            return path
    pytest.fail("there is no kubectl of 1.23 or newer: put one on the PATH, or its path in VEDETTE_KUBECTL")


async def _run(*words: str, **environ: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *words, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environ},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE):
        out, err = await process.communicate()
    assert process.returncode == 0, (words, out.decode(), err.decode())
    return out.decode()


async def test_kubectl_gets_in_with_a_kubeconfig(
    tenants: Tenants, vedette: VedetteProcess, tmp_path: Path, figures: Figures
) -> None:
    one, two = tenants.one, tenants.two
    n = one.cloud.network
    net = await asyncio.to_thread(lambda: n.create_network(name=tenants.named("kubectl")))
    port = await asyncio.to_thread(lambda: n.create_port(network_id=net.id, name=tenants.named("kubectl")))
    other = await asyncio.to_thread(lambda: two.cloud.network.create_network(name=tenants.named("kubectl-two")))
    config = tmp_path / "kubeconfig"
    code, _, err = await vedette.command(
        "kubeconfig", "--server", vedette.url, "--ca", str(vedette.authority.ca), "--write", str(config), **_environ(one)
    )
    assert code == 0, err
    assert PASSWORD not in config.read_text()
    kubectl = (_kubectl(), "--kubeconfig", str(config), "--cache-dir", str(tmp_path / "cache"))
    environ = {"HOME": str(tmp_path), **_environ(one)}

    async def seen() -> str:
        return await _run(*kubectl, "get", "networks,ports", "-o", "name", **environ)

    async with asyncio.timeout(PATIENCE):
        while port.id not in (words := await seen()):
            await asyncio.sleep(1)
    assert net.id in words
    assert other.id not in words
    # Its own namespace without being asked; nothing in the other's.
    assert not (await _run(*kubectl, "get", "ports,securitygroups", "-n", two.project, "-o", "name", **environ)).split()
    wide = await _run(*kubectl, "get", "port", port.id, "-o", "yaml", **environ)
    assert "binding:host_id" not in wide
    # `kubectl wait` ends with the port, which goes ACTIVE without a word.
    waiting = asyncio.create_task(
        _run(*kubectl, "wait", f"port/{port.id}", "--for=jsonpath={.status.status}=ACTIVE", "--timeout=170s", **environ)
    )
    bind = {"binding_host_id": "fake-2", "device_id": "kubectl", "device_owner": "compute:nova"}
    began = time.monotonic()
    await asyncio.to_thread(lambda: tenants.admin.network.update_port(port.id, **bind))
    try:
        assert "condition met" in await waiting
    finally:
        waiting.cancel()
    figures.add(PART, "`kubectl wait --for=jsonpath` of a port, from its binding to the end", f"{time.monotonic() - began:.1f} s")


# --- rights that end --------------------------------------------------------------------------------------------------------


async def _ends(vedette: VedetteProcess, token: str, opened: asyncio.Event) -> float:
    """Watch ports until the stream ends; when it did (monotonic)."""
    async with vedette.watch("Port", token, resourceVersion=str(await vedette.head())) as answer:
        assert answer.status == 200, await answer.text()
        opened.set()
        async with asyncio.timeout(PATIENCE):
            while await answer.content.readline():
                pass
    return time.monotonic()


async def _until_it_ends(vedette: VedetteProcess, token: str, act: Any) -> float:
    opened = asyncio.Event()
    reading = asyncio.create_task(_ends(vedette, token, opened))
    try:
        begun = asyncio.ensure_future(opened.wait())
        await asyncio.wait({begun, reading}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            begun.cancel()
            assert reading.done(), "the watch was not opened"
            await reading  # why it could not be
        await asyncio.sleep(1)  # its rights were looked at as it began
        began = time.monotonic()
        await asyncio.to_thread(act)
        return await reading - began
    finally:
        reading.cancel()


async def test_a_stream_ends_with_the_role_that_let_it_in(tenants: Tenants, vedette: VedetteProcess, figures: Figures) -> None:
    identity = tenants.admin.identity
    member = identity.find_role("member")
    guest = identity.create_user(name=tenants.named("guest"), password=PASSWORD, domain_id="default")
    identity.assign_project_role_to_user(tenants.one.project, guest, member)
    token = str(connect(tenants.named("guest"), tenants.one.name).auth_token)
    net = tenants.one.cloud.network.create_network(name=tenants.named("to-be-seen"))
    async with vedette.follow(("Network",), token) as follower:
        await follower.until("a network", lambda: ("Network", net.id) in follower.there)
    took = await _until_it_ends(
        vedette, token, lambda: identity.unassign_project_role_from_user(tenants.one.project, guest, member)
    )
    figures.add(PART, "a stream ends after its role was taken away (announced)", f"{took:.1f} s")
    # Keystone calls the token valid for another moment; without a role in it.
    assert await _refused(vedette, token) or net.id not in str(await vedette.items("Network", token))


async def test_a_stream_ends_with_its_token(tenants: Tenants, vedette: VedetteProcess, figures: Figures) -> None:
    token = await asyncio.to_thread(tenants.one.token)
    kept = await asyncio.to_thread(tenants.one.token)
    headers = {"X-Subject-Token": token}
    took = await _until_it_ends(
        vedette, token, lambda: tenants.admin.identity.delete("/auth/tokens", headers=headers).raise_for_status()
    )
    figures.add(PART, "a stream ends after its token was revoked (not announced; looked at once a minute)", f"{took:.1f} s")
    assert await _refused(vedette, token)
    assert not await _refused(vedette, kept), "another token of the same user goes on"


async def _refused(vedette: VedetteProcess, token: str) -> bool:
    headers = {"X-Auth-Token": token}
    async with vedette.session() as session, session.get(f"{vedette.url}{BASE}/ports", headers=headers) as answer:
        assert answer.status in (200, 401), answer.status
        return answer.status == 401


async def test_nobody_gets_in_without_a_token_or_believes_a_stranger(vedette: VedetteProcess) -> None:
    async with vedette.session() as session, session.get(f"{vedette.url}{BASE}/ports") as answer:
        assert answer.status == 401
    assert await _refused(vedette, "gAAAAABnonsense")
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"{vedette.url}/healthz")
