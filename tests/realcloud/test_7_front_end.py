"""Part 7: what a front end's users ask for, done by a real Keystone, Nova, Heat, Cinder and Neutron with their own rights; and
what came of it is shown.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from figures import Figures
from tenants import AUTH_URL, PASSWORD, Tenants, connect, until
from test_6_mirror import Shown, template
from vedette_process import free_port, serving

from vedette.testing.concertim import PASSWORD as FRONT_PASSWORD
from vedette.testing.concertim import FakeConcertim

PART = "7. A front end's buttons"
JWT_SECRET = "what the front end and we sign with, in the tests of a real cloud"
ROLE = "watcher"


class Front:
    """Who asks."""

    def __init__(self, port: int, tenants: Tenants, shown: Shown, figures: Figures) -> None:
        self.port, self.tenants, self.shown, self.figures = port, tenants, shown, figures
        admin = tenants.admin
        self.admin = self.env(admin.current_user_id, admin.current_project_id)
        self.user = self.env(tenants.one.user, tenants.one.project)

    def env(self, user: str, project: str) -> dict[str, str]:
        return {"auth_url": AUTH_URL, "user_id": user, "password": PASSWORD, "project_id": project}

    async def ask(self, method: str, path: str, *, env: Any = None, **body: Any) -> tuple[int, Any]:
        token = jwt.encode({"exp": time.time() + 60}, JWT_SECRET, algorithm="HS256")
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.request(
                method,
                f"https://127.0.0.1:{self.port}{path}",
                data=json.dumps({"cloud_env": env or self.user, **body}),
                ssl=self.shown.vedette.context,
            ) as answer,
        ):
            return answer.status, await answer.json()

    async def good(self, method: str, path: str, **more: Any) -> Any:
        status, answer = await self.ask(method, path, **more)
        assert status == 201, (status, answer)
        return answer

    async def button(self, type_: str, id_: str, word: str, so: Any) -> None:
        """Ask for it, three times as after lost answers; until the cloud says so, and the front end shows it."""
        began = time.monotonic()
        await self.good("POST", f"/update_status/{type_}/{id_}", action=word)
        answered = time.monotonic() - began
        for _ in range(2):
            await self.good("POST", f"/update_status/{type_}/{id_}", action=word)
        await asyncio.to_thread(until, f"{word} of {type_} {id_}", so)
        done = time.monotonic() - began
        await self.shown.equal()
        took = time.monotonic() - began
        self.figures.add(PART, f"{type_}, {word}: answered, done, shown after", f"{answered:.2f} s, {done:.1f} s, {took:.1f} s")


@pytest.fixture
async def front(tenants: Tenants, tmp_path: Path, figures: Figures) -> AsyncIterator[Front]:
    port = free_port()
    name = tenants.named("concertim")
    face = {
        "listen": f"127.0.0.1:{port}",
        "jwt_secret": JWT_SECRET,
        "users": {"concertim": name},
        "create_missing": True,
    }
    async with FakeConcertim() as fake:
        fake.add_team("one", tenants.one.project)
        mirror = {"name": "racks", "type": "concertim", "url": fake.url, "password": FRONT_PASSWORD, "compare": "10m"}
        more = {"mirrors": [mirror], "faces": {"concertim": face}}
        had = tenants.admin.identity.find_role(ROLE)
        try:
            async with serving(tmp_path, tenants.tag, api={"resync": "10m"}, more=more) as vedette:
                identity = tenants.admin.identity
                await asyncio.to_thread(until, "the user to be made", lambda: identity.find_user(name))
                yield Front(port, tenants, Shown(tenants, fake, vedette), figures)
        finally:
            if had is None and (role := tenants.admin.identity.find_role(ROLE)) is not None:
                tenants.admin.identity.delete_role(role)


async def test_users_teams_and_keys(front: Front, tenants: Tenants) -> None:
    name, identity = tenants.named("ann"), tenants.admin.identity
    user = project = ""
    try:
        for _ in range(3):
            made = await front.good(
                "POST", "/user", env=front.admin, username=name, name="Ann", email="a@b.example", password=PASSWORD
            )
            user = made["user_cloud_id"]
            project = (await front.good("POST", "/team", env=front.admin, name=name))["project_id"]
            role = {"role": "member", "project_id": project, "user_id": user}
            await front.good("POST", "/team_role", env=front.admin, team_role=role)
        assert identity.get_user(user).name == f"CM_{name}"
        mine = front.env(user, project)
        key = await front.good("POST", "/key_pairs", env=mine, key_pair={"name": "made", "key_type": "ssh"})
        assert "PRIVATE KEY" in key["key_pair"]["private_key"]
        public = connect().compute.get(f"/os-keypairs/made?user_id={user}", microversion="2.10").json()["keypair"]["public_key"]
        for _ in range(3):
            await front.good("POST", "/key_pairs", env=mine, key_pair={"name": "mine", "public_key": public})
        listed = await front.good("GET", "/key_pairs", env=mine)
        assert sorted(one["keypair"]["name"] for one in listed["key_pairs"]) == ["made", "mine"]
        for one in ("made", "mine", "mine"):
            await front.good("DELETE", "/key_pairs", env=mine, keypair_name=one)
        limits = (await front.good("GET", "/team/limits", env=mine))["limits"]
        assert limits["maxTotalCores"] > 0
        quotas = (await front.good("GET", f"/team/{project}/quotas", env=front.admin))["quotas"]
        assert {"cores", "gigabytes", "network"} <= quotas.keys()
        stats = (await front.good("GET", "/statistics", env=front.admin))["stats"]
        assert stats["total_vcpus"] > 0
        assert (await front.ask("POST", "/user", env=front.user, username=f"{name}-2", password=PASSWORD))[0] == 403
        assert (await front.ask("GET", "/key_pairs", env={**mine, "password": "wrong"}))[0] == 401
        change = {"cloud_user_id": user, "new_data": {"password": "another-word"}}
        await front.good("PATCH", "/user", env=front.admin, user_info=change)
        assert (await front.ask("GET", "/key_pairs", env=mine))[0] == 401
    finally:
        if project:
            await front.good("DELETE", "/team", env=front.admin, team_info={"project_id": project})
        if user:
            await front.good("DELETE", "/user", env=front.admin, user_info={"cloud_user_id": user})
    # (Each of Keystone's processes has a cache.)
    await asyncio.to_thread(until, "the user to be gone", lambda: identity.find_user(user) is None)
    await asyncio.to_thread(until, "the project to be gone", lambda: identity.find_project(project) is None)


async def test_buttons_really_do_it(front: Front, tenants: Tenants) -> None:
    cloud, name = tenants.one.cloud, tenants.named("buttons")

    def make() -> str:
        net = cloud.network.create_network(name=name)
        cloud.network.create_subnet(name=name, network_id=net.id, ip_version=4, cidr="10.77.0.0/24")
        body = {"stack_name": name, "template": template(2, net.id), "timeout_mins": 5}
        cloud.orchestration.post("/stacks", json=body).raise_for_status()
        found = until("the stack", lambda: [one for one in front.shown.heat("/stacks")["stacks"] if one["stack_name"] == name])[0]
        until("it to be made", lambda: status() == "CREATE_COMPLETE")
        return str(found["id"])

    def status() -> str:
        found = [one for one in front.shown.heat("/stacks")["stacks"] if one["stack_name"] == name]
        return found[0]["stack_status"] if found else ""

    stack = await asyncio.to_thread(make)
    await front.shown.equal()
    rows = list(front.shown.front.devices.values())
    servers = [row["metadata"]["openstack_instance_id"] for row in rows if row["kind"] == "Instance"]

    def is_(id_: str, vm_state: str) -> Any:
        def look() -> bool:
            server = cloud.compute.get_server(id_)
            return server.vm_state == vm_state and not server.task_state

        return look

    first = servers[0]
    await front.button("instances", first, "off", is_(first, "stopped"))
    await front.button("instances", first, "on", is_(first, "active"))
    await front.button("instances", first, "suspend", is_(first, "suspended"))
    await front.button("instances", first, "resume", is_(first, "active"))
    await front.button("racks", stack, "suspend", lambda: status() == "SUSPEND_COMPLETE")
    assert all(cloud.compute.get_server(one).vm_state == "suspended" for one in servers)
    await front.button("racks", stack, "resume", lambda: status() == "RESUME_COMPLETE")
    await front.button("instances", first, "destroy", lambda: cloud.compute.find_server(first) is None)
    code, answer = await front.ask(
        "POST", f"/update_status/instances/{servers[1]}", env=front.env(tenants.two.user, tenants.two.project), action="off"
    )
    assert code == 404, answer
    disk = await asyncio.to_thread(cloud.block_storage.create_volume, size=1, name=name)
    await asyncio.to_thread(until, "the volume", lambda: cloud.block_storage.get_volume(disk.id).status == "available")
    await front.button("volumes", disk.id, "destroy", lambda: cloud.block_storage.find_volume(disk.id) is None)
    lan = await asyncio.to_thread(cloud.network.create_network, name=f"{name}-lan")
    await front.button("networks", lan.id, "destroy", lambda: cloud.network.find_network(lan.id) is None)
    await front.button("racks", stack, "destroy", lambda: status() == "")
    assert not front.shown.front.racks
    # Everything was written down, and came to its end.
    async with asyncio.timeout(60):
        while True:
            plans = (await front.shown.vedette.json("/apis/vedette.dev/v1/actionplans"))["items"]
            states = [one["status"]["state"] for one in plans]
            assert "FAILED" not in states, plans
            if set(states) == {"SUCCEEDED"}:
                break
            await asyncio.sleep(0.5)
    front.figures.add(PART, "plans of one step, all SUCCEEDED", len(states))
