"""`concertim-openstack-service` as processes of its own, with the old config.yaml, between a broker, a cloud and a front end: one
process for everything, and one for each component, of which one is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
import yaml
from cli_processes import free_port
from fronting import JWT_SECRET, furnish
from serving import SECONDS

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import Announcement, FakeCloud
from vedette.testing.concertim import PASSWORD, FakeConcertim
from vedette.testing.rabbit import Rabbit

COMMAND = (str(Path(sys.executable).parent / "concertim-openstack-service"),)
EXCHANGES = ("nova", "neutron", "octavia", "heat", "cinder", "openstack", "glance", "keystone")


class Place:
    """What the processes stand between."""

    def __init__(self, folder: Path, cloud: FakeCloud, front: FakeConcertim, rabbit: Rabbit) -> None:
        self.folder, self.cloud, self.front = folder, cloud, front
        self._publisher = rabbit.publisher()
        for name in EXCHANGES:
            self._publisher.exchange(name)
        cloud.listeners.append(self._publish)
        known = cloud.credentials("admin")
        self.config = folder / "config.yaml"
        text = {
            "log_level": "info",
            "openstack": {
                "auth_url": known["auth_url"],
                "user_id": cloud.user_id("admin"),
                "password": known["password"],
                "project_id": known["project_id"],
            },
            "rmq": {"rmq_username": "guest", "rmq_password": "guest", "rmq_address": "127.0.0.1", "rmq_port": rabbit.port},
            "concertim": {
                "concertim_url": front.url,
                "concertim_username": "admin",
                "concertim_password": PASSWORD,
                "default_rack_height": 42,
            },
        }
        self.config.write_text(yaml.safe_dump(text))
        self.mq, self.api = free_port(), free_port()
        self.logs = folder / "log"

    def close(self) -> None:
        self._publisher.close()

    def _publish(self, said: Announcement) -> None:
        self._publisher.publish(said.exchange, [said.body], routing_key=said.routing_key)

    def command(self, component: str, *more: str) -> tuple[str, ...]:
        port = self.mq if component in ("updates_mq", "all") else free_port()
        return (
            *COMMAND, f"run={component}", f"config={self.config}", f"data={self.folder / 'data' / component}", f"log={self.logs}",
            f"listen=127.0.0.1:{port}", f"api_listen=127.0.0.1:{self.api}", f"follow=http://127.0.0.1:{self.mq}", *more,
        )  # fmt: skip

    async def start(self, component: str, *more: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self.command(component, *more),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "JWT_SECRET": JWT_SECRET},
        )

    @asynccontextmanager
    async def running(self, component: str) -> AsyncIterator[asyncio.subprocess.Process]:
        process = await self.start(component)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                async with asyncio.timeout(SECONDS):
                    assert await process.wait() == 0, self.log(component)

    def log(self, component: str) -> str:
        name = {"api": "api_server"}.get(component, component)
        path = self.logs / f"{name}.log"
        return path.read_text()[-4000:] if path.exists() else "(no log)"

    async def until(self, what: str, so: Any) -> None:
        began = time.monotonic()
        while not so():
            if time.monotonic() - began > SECONDS:
                logs = "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in self.logs.glob("*.log"))
                raise AssertionError(f"not so: {what}\n{logs}")
            await asyncio.sleep(0.05)

    def shown(self) -> dict[str, str]:
        """Server → status of its device."""
        return {row["metadata"]["openstack_instance_id"]: row["status"] for row in self.front.devices.values()}

    def stack(self, servers: int) -> list[str]:
        heat = self.cloud.orchestration
        id_ = self.cloud.create("stack", {"stack_status": "CREATE_IN_PROGRESS"})
        made = [self.cloud.server(name=f"node-{n}") for n in range(servers)]
        for one in made:
            heat.add_resource(id_, "OS::Nova::Server", one)
        heat.change("stack", id_, {"stack_status": "CREATE_COMPLETE"})
        return made

    async def ask(self, method: str, path: str, **body: Any) -> tuple[int, Any]:
        known = self.cloud.credentials("demo")
        env = {
            "auth_url": known["auth_url"],
            "user_id": self.cloud.user_id("demo"),
            "password": known["password"],
            "project_id": known["project_id"],
        }
        token = jwt.encode({"exp": time.time() + 60}, JWT_SECRET, algorithm="HS256")
        url = f"http://127.0.0.1:{self.api}{path}"
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session,
            session.request(method, url, data=json.dumps({"cloud_env": env, **body})) as answer,
        ):
            return answer.status, await answer.json()

    async def up(self) -> None:
        async with asyncio.timeout(SECONDS), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{self.api}/") as answer:
                        assert await answer.text() == "Running\n"
                        return
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)


@pytest.fixture
async def place(tmp_path: Path, rabbit: Rabbit) -> AsyncIterator[Place]:
    async with FakeCloud(SystemClock()) as cloud, FakeConcertim() as front:
        furnish(cloud)
        cloud.metric.in_catalog = True
        front.add_team("demo", cloud.project_id("demo"))
        cloud.identity.grant(cloud.user_id("concertim"), "watcher", project=cloud.project_id("demo"))
        there = Place(tmp_path, cloud, front, rabbit)
        try:
            yield there
        finally:
            there.close()


def measured(cloud: FakeCloud, server: str) -> None:
    """A quarter of one processor, for the last minutes."""
    now = cloud.clock.now_us()
    minute = 60_000_000
    points = [(now // minute * minute - minute * back, 15e9) for back in range(6)]
    resource = cloud.metric.resource("instance", server, id_=server, project_id=cloud.project_id("demo"))
    cloud.metric.measured(resource, "cpu", points, policy="concertim-rate", how="rate:mean")


async def test_one_process_for_everything(place: Place) -> None:
    servers = place.stack(2)
    async with place.running("all"):
        await place.up()
        await place.until("both are shown", lambda: place.shown() == dict.fromkeys(servers, "ACTIVE"))
        status, _ = await place.ask("POST", f"/update_status/instances/{servers[0]}", action="off")
        assert status == 201
        await place.until("it is shown as stopped", lambda: place.shown()[servers[0]] == "STOPPED")
    log = place.log("all")
    assert "a mirror was compared" in log
    for secret in (
        PASSWORD,
        JWT_SECRET,
        place.cloud.credentials("admin")["password"],
        place.cloud.credentials("demo")["password"],
    ):
        assert secret not in log


async def test_one_process_for_each_component(place: Place) -> None:
    servers = place.stack(2)
    async with AsyncExitStack() as stack:
        mq = await stack.enter_async_context(place.running("updates_mq"))
        for component in ("updates_bulk", "api"):
            await stack.enter_async_context(place.running(component))
        await place.up()
        await place.until("both are shown", lambda: place.shown() == dict.fromkeys(servers, "ACTIVE"))
        # What one is asked for, the cloud announces, the second hears, and the third shows.
        assert (await place.ask("POST", f"/update_status/devices/{servers[0]}", action="off"))[0] == 202
        await place.until("it is shown as stopped", lambda: place.shown()[servers[0]] == "STOPPED")
        os.kill(mq.pid, signal.SIGKILL)
        await mq.wait()
        place.cloud.compute.state(servers[1], "stopped")
        async with place.running("updates_mq"):
            await place.until("the queue kept it", lambda: place.shown()[servers[1]] == "STOPPED")
            more = place.stack(1)
            await place.until("a new one is shown", lambda: place.shown().get(more[0]) == "ACTIVE")
        assert len(place.front.racks) == 2
        assert sorted(path.name for path in place.logs.iterdir()) == ["api_server.log", "updates_bulk.log", "updates_mq.log"]


async def test_one_pass_and_its_end(place: Place) -> None:
    (server,) = place.stack(1)
    measured(place.cloud, server)

    async def once(component: str) -> int:
        process = await place.start(component, "test=True")
        async with asyncio.timeout(SECONDS):
            return await process.wait()

    # Before there is a device there is nobody to hand measurements to, and that is no failure.
    assert await once("updates_bulk") == 0, place.log("updates_bulk")
    assert place.shown() == {server: "ACTIVE"}
    place.front.refresh()
    written = [one for one in place.front.writes if not one[1].startswith("/mrd")]
    assert await once("metrics") == 0, place.log("metrics")
    assert [list(one) for one in place.front.metrics.values()] == [["cpu_load"]]
    assert [one for one in place.front.writes if not one[1].startswith("/mrd")] == written, "measurements alone are written"
    assert await once("updates_mq") == 0, place.log("updates_mq")
    await place.front.stop()
    assert await once("updates_bulk") != 0
    assert "did not go well" not in place.log("updates_bulk"), "that is for who started it, on stderr"
