"""`oss_watcher` as its users run it: the seed's oss.conf byte for byte, a real RabbitMQ, a cloud's API, and a REST server."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from vedette.kit.clock import SystemClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.cloud_service import Announcement
from vedette.testing.rabbit import Publisher, Rabbit, free_ports
from vedette.testing.rest import FakeRest

pytestmark = pytest.mark.rabbitmq

SEED = Path(__file__).parents[1] / "unit" / "oss_seed"
COMMAND = (sys.executable, "-c", "from vedette.cli.oss_watcher import main; main()")
SECONDS = 60.0
FOREIGN = "monitoring.info"
"""The queue that the publishers themselves declare, and somebody else may read."""


class Bus:
    """What the cloud announces, as Nova and Neutron of the seed's time sent it: bare, on the topic `monitoring`. Each message
    comes twice."""

    def __init__(self, publisher: Publisher, cloud: FakeCloud) -> None:
        self.publisher = publisher
        self.sent = 0
        self.wrapped = False
        for exchange in ("nova", "neutron"):
            publisher.exchange(exchange)
        publisher.queue(FOREIGN, exchange="nova", keys=[FOREIGN])
        publisher.queue(FOREIGN, exchange="neutron", keys=[FOREIGN])
        cloud.listeners.append(self.announce)

    def announce(self, said: Announcement) -> None:
        topic, _, priority = said.routing_key.rpartition(".")
        if topic != "notifications" or said.exchange not in ("nova", "neutron"):
            return
        body = said.body if self.wrapped else json.loads(said.body)["oslo.message"].encode()
        sent = self.publisher.publish(said.exchange, [body, body], routing_key=f"monitoring.{priority}")
        self.sent += sent if priority == "info" else 0


class Place:
    """Everything but the command, in one folder."""

    def __init__(self, folder: Path, rabbit: Rabbit, cloud: FakeCloud, rest: FakeRest, bus: Bus) -> None:
        self.folder, self.rabbit, self.cloud, self.rest, self.bus = folder, rabbit, cloud, rest, bus
        [self.port] = free_ports(1)
        account = cloud.credentials("admin")
        self.environ = {
            **os.environ,
            "OS_DEFAULT__LOG_FILE": str(folder / "logs" / "oss.log"),
            "OS_DEFAULT__DATA_DIR": str(folder / "data"),
            "OS_DEFAULT__LISTEN": f"127.0.0.1:{self.port}",
            "OS_RABBIT__HOST": "127.0.0.1",
            "OS_RABBIT__PORT": str(rabbit.port),
            "OS_RABBIT__USER": "guest",
            "OS_RABBIT__PASSWORD": "guest",
            "OS_RABBIT__QUEUE": f"oss_watcher-{self.port}",
            "OS_REST__HOST": "http://127.0.0.1",
            "OS_REST__PORT": str(rest.port),
            "OS_OPENSTACK__AUTH_URL": account["auth_url"].replace("/v3", "/v2.0"),
            "OS_OPENSTACK__USER": account["username"],
            "OS_OPENSTACK__PASSWORD": account["password"],
            "OS_OPENSTACK__TENANT": "admin",
        }
        self.conf = Path(shutil.copy(SEED / "oss.conf", folder / "oss.conf"))

    @asynccontextmanager
    async def watching(self, **environ: str) -> AsyncIterator[Watcher]:
        process = await asyncio.create_subprocess_exec(
            *COMMAND, f"--config-file={self.conf}", env={**self.environ, **environ}, cwd=self.folder,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
        )  # fmt: skip
        watcher = Watcher(process)
        reading = asyncio.create_task(watcher.read())
        try:
            yield watcher
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(SECONDS):
                await process.wait()
                await reading

    async def bound(self) -> None:
        """Until what is announced reaches our queue: it may still be on its way to exist."""
        async with asyncio.timeout(SECONDS):
            while self.bus.publisher.consumers(self.environ["OS_RABBIT__QUEUE"]) < 1:
                await asyncio.sleep(0.3)

    def server(self, name: str, **fields: Any) -> str:
        metadata = {"Owner": "some_owner", "additional_users": "a,b", "application_name": "Fake name"}
        address = {"addr": "10.0.0.5", "version": 4, "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01"}
        return self.cloud.server(name=name, metadata=metadata, addresses={"net": [address]}, **fields)

    async def calls(self, count: int) -> list[tuple[str, str, str]]:
        """(path, FQDN, IP) of what came, once that many have; all of it with credentials and a key of its own."""
        sent = await self.rest.until(count, SECONDS)
        expected = "Basic " + base64.b64encode(b"user:password").decode()
        assert all(one.headers["Authorization"] == expected for one in sent)
        details = [json.loads(one.body) for one in sent]
        return [(one.path, said["FQDN"], said["IP"]) for one, said in zip(sent, details, strict=True)]


class Watcher:
    """The command while it runs, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._more = asyncio.Condition()

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._more:
                self.lines.append(line.decode().rstrip("\n"))
                self._more.notify_all()

    async def says(self, text: str) -> None:
        async with asyncio.timeout(SECONDS), self._more:
            await self._more.wait_for(lambda: any(text in line for line in self.lines) or self.process.returncode is not None)
        assert any(text in line for line in self.lines), "\n".join(self.lines)

    async def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        await self.process.wait()


@pytest.fixture
async def place(tmp_path: Path, rabbit: Rabbit) -> AsyncIterator[Place]:
    publisher = rabbit.publisher()
    async with FakeCloud(SystemClock()) as cloud, FakeRest() as rest:
        place = Place(tmp_path, rabbit, cloud, rest, Bus(publisher, cloud))
        try:
            yield place
        finally:
            for queue in (FOREIGN, place.environ["OS_RABBIT__QUEUE"]):
                publisher.delete_queue(queue)
            publisher.close()


def associate(place: Place, server: str) -> str:
    """A floating IP, given to the server's port, then described."""
    cloud = place.cloud
    port = cloud.port(device_id=server, device_owner="compute:nova")
    fip = cloud.create("floatingip")
    cloud.change("floatingip", fip, port_id=port, fixed_ip_address="10.0.0.5", router_id="r")
    cloud.change("floatingip", fip, description="of the web")
    return fip


async def test_what_comes_and_goes_is_posted_once_each_and_nothing_is_stolen(place: Place) -> None:
    async with place.watching() as watcher:
        await place.bound()
        server = place.server("vm")
        [(path, name, address)] = await place.calls(1)
        assert (path, name, address) == ("/some_url", "vm", "10.0.0.5")
        assert json.loads(place.rest.sent[0].body) == {
            "FQDN": "vm",
            "IP": "10.0.0.5",
            "IPType": "Public",
            "OS": "",
            "Storage": 1,
            "Ram": 0.5,
            "CPU": 1,
            "Datacenter": "KDC",
            "SecurityDomain": "DQT",
            "Owner": "some_owner",
            "AdditionalUsers": ["a", "b"],
            "ApplicationName": "Fake name",
            "EnvironmentCI": "",
            "Description": "",
            "CreationDate": place.cloud.compute.servers[server]["created"][:10],
        }
        fip = associate(place, server)
        public = place.cloud.network.floatingips[fip]["floating_ip_address"]
        await place.calls(2)
        place.bus.wrapped = True
        place.cloud.change("floatingip", fip, port_id=None, fixed_ip_address=None, router_id=None)
        await place.calls(3)
        place.cloud.delete("server", server)
        assert await place.calls(4) == [
            ("/some_url", "vm", "10.0.0.5"),
            ("/some_url", "vm", public),
            ("/some_url2", "vm", public),
            ("/some_url2", "vm", "10.0.0.5"),
        ]
        assert place.rest.sent[0].body == place.rest.sent[3].body
        assert place.rest.sent[1].body == place.rest.sent[2].body
        assert len({one.headers["Idempotency-Key"] for one in place.rest.sent}) == 4
    assert watcher.process.returncode == 0
    assert place.bus.publisher.depth(FOREIGN) == place.bus.sent
    assert len(place.rest.sent) == 4
    said = [line for line in watcher.lines if re.match(r"[\d-]{10} [\d:]{8} INFO \((service|base_connection)\)", line)]
    events = "compute.instance.create.end,floatingip.update.end"
    assert [line[20:] for line in said[:5]] == [
        "INFO (service) Listen queue monitoring.info",
        f"INFO (service) Handled events of creation: {events}",
        f"INFO (service) Handled events of deletion: {events.replace('create', 'delete')}",
        "INFO (service) Plugin `oss_framework.plugins.rest_plugin.RESTNotify`is loaded.",
        f"INFO (base_connection) Connecting to 127.0.0.1:{place.rabbit.port}",
    ]
    logged = (place.folder / "logs" / "oss.log").read_text().splitlines()
    assert set(said) <= set(logged)
    shown = "\n".join(watcher.lines)
    for secret in ("guest:", "passwprd", "admin's password", "user:password"):
        assert secret not in shown


async def test_what_was_created_and_deleted_while_it_was_down_is_told_once(place: Place) -> None:
    async with place.watching():
        await place.bound()
        place.server("first")
        second = place.server("second")
        await place.calls(2)
    # Nobody says anything of these.
    third = place.server("third", announce=False)
    place.cloud.delete("server", second, announce=False)
    async with place.watching():
        told = await place.calls(4)
        assert sorted(told[2:]) == [("/some_url", "third", "10.0.0.5"), ("/some_url2", "second", "10.0.0.5")]
        place.cloud.delete("server", third)
        await place.calls(5)
    assert len(place.rest.sent) == 5


async def test_instances_that_were_there_before_are_no_news(place: Place) -> None:
    old = place.server("old", announce=False)
    await asyncio.sleep(1.1)  # the cloud counts in seconds
    async with place.watching() as watcher:
        await place.bound()
        place.server("new")
        assert await place.calls(1) == [("/some_url", "new", "10.0.0.5")]
        await watcher.says("resynced")
        place.cloud.delete("server", old)
        assert (await place.calls(2))[1] == ("/some_url2", "old", "10.0.0.5")


async def test_a_rest_server_that_is_unwell_gets_everything_later_in_the_order_of_each_node(place: Place) -> None:
    place.rest.answers.extend([500] * 5)
    async with place.watching() as watcher:
        await place.bound()
        servers = [place.server(f"vm-{number}") for number in range(3)]
        for server in servers:
            place.cloud.delete("server", server)
        await place.rest.until(3, SECONDS)
        await watcher.kill()
    async with place.watching():
        await place.rest.until(11, SECONDS)
    done = [one for one in place.rest.sent[5:] if one.path]
    for number in range(3):
        paths = [one.path for one in done if json.loads(one.body)["FQDN"] == f"vm-{number}"]
        assert list(dict.fromkeys(paths)) == ["/some_url", "/some_url2"]


async def test_the_seeds_own_plugin_and_the_shipped_one_each_get_everything(place: Place) -> None:
    own = place.folder / "plugins" / "new_plugin"
    own.mkdir(parents=True)
    shutil.copy(SEED / "new_plugin.py.txt", own / "__init__.py")
    environ = {
        "OS_DEFAULT__ENABLED_PLUGINS": "rest_plugin.RESTNotify,new_plugin.YourPlugin",
        "OS_DEFAULT__PLUGINS_DIR": str(own.parent),
    }
    place.rest.answering.clear()
    async with place.watching(**environ) as watcher:
        await place.bound()
        place.server("vm")
        await watcher.says("Handled by YourPlugin.")
        await watcher.says("'FQDN': 'vm'")
        place.rest.answering.set()
        assert await place.calls(1) == [("/some_url", "vm", "10.0.0.5")]
