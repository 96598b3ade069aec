"""A Vedette in this process, in memory, for tests of its API: news is offered by hand, callers have tokens of a fake Keystone.

`open_service` needs no token; `Cloud` has TLS, Keystone, two projects, an admin and a system reader.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
import yarl

from vedette.app import Service
from vedette.config import load_text
from vedette.kit.clock import SystemClock
from vedette.model.notice import Notice
from vedette.testing.keystone import FakeKeystone
from vedette.testing.tls import Authority

SECONDS = 60.0
"""Until a wait counts as broken; nothing here takes that long."""
GROUP = "openstack.vedette.dev"
APIS = f"/apis/{GROUP}/v1"

A, B = "aaaa0000aaaa4000aaaa0000aaaa0000", "bbbb1111bbbb4111bbbb1111bbbb1111"
"""Ids of two projects, of the form that Keystone gives."""
HOST = "fake-host-77"
"""What no tenant may ever read; every name of a host in these tests has it."""

_numbers = itertools.count(1)


def uuid_of(number: int, prefix: str = "00000000") -> str:
    return f"{prefix}-0000-4000-8000-{number:012d}"


class Running:
    """A started service, and the news it is told."""

    def __init__(self, service: Service, context: ssl.SSLContext | None = None) -> None:
        self.service = service
        self.context = context

    @property
    def url(self) -> str:
        return self.at(self.service.addresses[0])

    @property
    def weaas_url(self) -> str:
        return self.at(self.service.face_addresses["weaas"][0])

    @property
    def head(self) -> int:
        assert self.service.store is not None
        return self.service.store.head

    def at(self, address: tuple[str, int]) -> str:
        return f"{'https' if self.context else 'http'}://{address[0]}:{address[1]}"

    async def tell(self, event_type: str, payload: Any, **more: Any) -> int:
        """One notice of the source `one`, sent now; the head after it."""
        assert self.service.ingest is not None
        number = next(_numbers)
        notice = Notice(
            **{
                "id": f"n-{number}",
                "source": "one",
                "event_type": event_type,
                "sent_at": self.service.clock.now_us() + number,
                "payload": msgspec.Raw(msgspec.json.encode(payload)),
                "priority": "INFO",
                "publisher": f"service.{HOST}",
                **more,
            }
        )
        await self.service.ingest.offer([notice])
        return self.head

    async def port(self, id_: str, verb: str = "create", project: str = A, **fields: Any) -> int:
        return await self.tell(f"port.{verb}.end", {"port": port(id_, project, **fields)})

    async def until_watched(self, count: int = 1) -> None:
        """Return when so many watchers are live: what is told from here on comes to all of them."""
        hub = self.service.hub
        assert hub is not None
        async with asyncio.timeout(SECONDS):
            while sum(watcher.live for watcher in hub._watchers) < count:
                await asyncio.sleep(0.005)

    async def until_unwatched(self) -> None:
        assert self.service.hub is not None
        async with asyncio.timeout(SECONDS):
            await self.service.hub.emptied()


def port(id_: str, project: str = A, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "name": "",
        "project_id": project,
        "tenant_id": project,
        "network_id": uuid_of(1, "4e000000"),
        "mac_address": "fa:16:3e:00:00:01",
        "fixed_ips": [{"subnet_id": uuid_of(2, "5b000000"), "ip_address": "10.0.0.5"}],
        "status": "DOWN",
        "admin_state_up": True,
        "device_id": "",
        "device_owner": "",
        "security_groups": [],
        "binding:host_id": HOST,
        "binding:vif_type": "ovs",
        "binding:vnic_type": "normal",
        "created_at": "2026-11-20T15:00:00Z",
        **fields,
    }


def network(id_: str, project: str = A, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "name": "net",
        "project_id": project,
        "tenant_id": project,
        "status": "ACTIVE",
        "shared": False,
        "router:external": False,
        "admin_state_up": True,
        "mtu": 1450,
        "provider:network_type": "vxlan",
        "provider:physical_network": HOST,
        "provider:segmentation_id": 77,
        "created_at": "2026-11-20T15:00:00Z",
        **fields,
    }


def instance(id_: str, project: str = A, **fields: Any) -> dict[str, Any]:
    """Nova's unversioned payload."""
    return {
        "tenant_id": project,
        "user_id": "alice",
        "instance_id": id_,
        "display_name": "vm",
        "hostname": HOST,
        "host": HOST,
        "node": f"{HOST}.node",
        "instance_type": "m1.small",
        "instance_flavor_id": "2",
        "memory_mb": 2048,
        "vcpus": 1,
        "root_gb": 20,
        "ephemeral_gb": 0,
        "disk_gb": 20,
        "availability_zone": "nova",
        "created_at": "2026-11-20 15:00:00+00:00",
        "launched_at": "",
        "deleted_at": "",
        "terminated_at": "",
        "image_ref_url": "",
        "state": "active",
        "state_description": "",
        "progress": "",
        "metadata": {},
        **fields,
    }


def configured(folder: Path, text: str, **watch: Any) -> Any:
    """A configuration with a quiet source called `one`, on a free port."""
    quiet = folder / "quiet.jsonl"
    quiet.touch()
    limits = {"bookmark_seconds": "15s", **watch}
    whole = {
        "listen": "127.0.0.1:0",
        "data_dir": "",
        "sources": [{"name": "one", "type": "replay", "path": str(quiet)}],
        "watch": limits,
        **json.loads(text),
    }
    return load_text(json.dumps(whole), {})


@asynccontextmanager
async def open_service(folder: Path, *, watch: Mapping[str, Any] | None = None, **more: Any) -> AsyncIterator[Running]:
    """Without authentication; `more` are keys of the configuration."""
    async with serving(configured(folder, json.dumps({"auth": {"mode": "none"}, **more}), **(watch or {}))) as running:
        yield running


@asynccontextmanager
async def serving(config: Any, *, context: ssl.SSLContext | None = None, **more: Any) -> AsyncIterator[Running]:
    service = Service(config, **more)
    await service.start()
    try:
        yield Running(service, context)
    finally:
        await service.stop()


class Cloud(Running):
    """With a Keystone: alice in project A, bob in B, `root` an admin, `auditor` a reader of the system."""

    keystone: FakeKeystone
    authority: Authority
    users: dict[str, str]
    tokens: dict[str, str]

    def token(self, who: str) -> dict[str, str]:
        return {"X-Auth-Token": self.tokens[who]}

    def issue(self, who: str) -> str:
        user = self.users[who]
        if who == "auditor":
            return self.keystone.issue(user, system=True)
        return self.keystone.issue(user, project={"alice": A, "bob": B, "root": self.admin_project}[who])

    admin_project: str


@asynccontextmanager
async def cloud(
    folder: Path, *, recheck_seconds: float = 60.0, watch: Mapping[str, Any] | None = None, **more: Any
) -> AsyncIterator[Cloud]:
    authority = Authority(folder / "tls")
    pair = authority.server()
    async with FakeKeystone(SystemClock()) as keystone:
        for id_, name in ((A, "project-a"), (B, "project-b")):
            made = keystone.add_project(name)
            project = keystone.projects.pop(made)
            keystone.projects[id_] = msgspec.structs.replace(project, id=id_)
        service_project = keystone.add_project("service")
        admin_project = keystone.add_project("admin")
        asker = keystone.add_user("vedette", "vedette-password")
        keystone.grant(asker, "service", project=service_project)
        users = {name: keystone.add_user(name, f"{name}-password") for name in ("alice", "bob", "root", "auditor")}
        keystone.grant(users["alice"], "member", project=A)
        keystone.grant(users["bob"], "member", project=B)
        keystone.grant(users["root"], "admin", project=admin_project)
        keystone.grant(users["auditor"], "reader", system=True)
        settings = {
            "tls": {"cert": str(pair.cert), "key": str(pair.key)},
            "auth": {
                "mode": "keystone",
                "keystone": {
                    "auth_url": keystone.url,
                    "username": "vedette",
                    "password": "vedette-password",
                    "user_domain_name": "Default",
                    "project_name": "service",
                    "project_domain_name": "Default",
                },
            },
            **more,
        }
        config = configured(folder, json.dumps(settings), **(watch or {}))
        service = Service(config, recheck_seconds=recheck_seconds)
        await service.start()
        try:
            found = Cloud(service, authority.client_context())
            found.keystone, found.authority, found.users, found.admin_project = keystone, authority, users, admin_project
            found.tokens = {name: found.issue(name) for name in users}
            yield found
        finally:
            await service.stop()


# --- asking ----------------------------------------------------------------------------------------------------------------


class Stream:
    """An open watch, line by line."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response
        self.raw = b""

    async def line(self) -> bytes:
        """b"" at the end."""
        async with asyncio.timeout(SECONDS):
            found = await self.response.content.readline()
        self.raw += found
        return found

    async def event(self) -> dict[str, Any]:
        found = await self.line()
        assert found, "the stream has ended"
        event: dict[str, Any] = json.loads(found)
        return event

    async def change(self) -> tuple[str, str]:
        """The next event that is no bookmark: its type and the object's name."""
        while True:
            event = await self.event()
            if event["type"] != "BOOKMARK":
                return event["type"], event["object"].get("metadata", {}).get("name", event["object"].get("message", ""))

    async def rest(self) -> bytes:
        """Everything up to its end."""
        async with asyncio.timeout(SECONDS):
            found = await self.response.content.read()
        self.raw += found
        return found


class Asker:
    """An HTTP client that keeps what it was answered."""

    def __init__(self, running: Running, session: aiohttp.ClientSession) -> None:
        self._running = running
        self._session = session

    async def get(self, path: str | yarl.URL, *, method: str = "GET", **options: Any) -> tuple[int, dict[str, str], bytes]:
        url = path if "://" in str(path) else self._running.url + str(path)
        async with asyncio.timeout(SECONDS), self._session.request(method, url, **options) as response:
            return response.status, dict(response.headers), await response.read()

    async def json(self, path: str, **options: Any) -> Any:
        code, _, body = await self.get(path, **options)
        assert code == 200, body
        return json.loads(body)

    async def names(self, path: str, **options: Any) -> list[str]:
        return [item["metadata"]["name"] for item in (await self.json(path, **options))["items"]]

    async def status(self, path: str, code: int, **options: Any) -> dict[str, Any]:
        """The Status of an error."""
        found, headers, body = await self.get(path, **options)
        assert found == code, (found, body)
        assert headers["Content-Type"].startswith("application/json"), headers
        said: dict[str, Any] = json.loads(body)
        assert (said["kind"], said["apiVersion"], said["status"], said["code"]) == ("Status", "v1", "Failure", code)
        return said

    @asynccontextmanager
    async def watch(self, path: str, **options: Any) -> AsyncIterator[Stream]:
        url = path if "://" in path else self._running.url + path
        async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=None), **options) as response:
            assert response.status == 200, await response.read()
            yield Stream(response)


@asynccontextmanager
async def asking(running: Running, **options: Any) -> AsyncIterator[Asker]:
    connector = aiohttp.TCPConnector(ssl=running.context if running.context is not None else True, limit=0)
    async with aiohttp.ClientSession(connector=connector, **options) as session:
        yield Asker(running, session)


def in_a_loop(test: Any, loop: asyncio.AbstractEventLoop) -> None:
    """Hypothesis runs plain functions: from a thread, each example in the loop of the service."""
    inner = test.hypothesis.inner_test

    def plain(**values: Any) -> None:
        asyncio.run_coroutine_threadsafe(inner(**values), loop).result(SECONDS)

    test.hypothesis.inner_test = plain
    test()


# --- kubectl ---------------------------------------------------------------------------------------------------------------


def kubectls() -> list[str]:
    """As in tests/unit/test_discovery_clients.py: those of VEDETTE_KUBECTL, and the one on PATH."""
    named = [path for path in os.environ.get("VEDETTE_KUBECTL", "").split(os.pathsep) if path]
    found = [*named, *(one for one in [shutil.which("kubectl")] if one)]
    if not found:
        if os.environ.get("CI"):
            pytest.fail("there is no kubectl")
        pytest.skip("there is no kubectl")
    return found


class Kubectl:
    """One kubectl, with nothing of this machine's: its own home, configuration and cache."""

    def __init__(self, path: str, home: Path, *options: str, **environ: str) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._command = (path, "--cache-dir", str(home / "cache"), *options)
        self._environ = {"HOME": str(home), "KUBECONFIG": str(home / "config"), "PATH": os.environ.get("PATH", ""), **environ}
        (home / "config").touch()

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command, *arguments, env=self._environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *arguments: str) -> tuple[int, str, str]:
        """(exit code, stdout, stderr)"""
        process = await self.start(*arguments)
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def said(self, *arguments: str) -> list[list[str]]:
        """The words of each line of a call that succeeds without a warning."""
        code, out, err = await self.run(*arguments)
        assert (code, err) == (0, "")
        return [line.split() for line in out.splitlines()]

    @asynccontextmanager
    async def watching(self, *arguments: str) -> AsyncIterator[asyncio.StreamReader]:
        """Its output while it runs."""
        process = await self.start(*arguments)
        assert process.stdout is not None
        try:
            yield process.stdout
        finally:
            process.terminate()
            async with asyncio.timeout(SECONDS):
                await process.communicate()

    async def minor(self) -> int:
        code, out, _ = await self.run("version", "--client", "-o", "json")
        assert code == 0
        return int(json.loads(out)["clientVersion"]["gitVersion"].split(".")[1])


async def words(reader: asyncio.StreamReader) -> list[str]:
    async with asyncio.timeout(SECONDS):
        return (await reader.readline()).decode().split()
