"""`vedette serve` as a process of its own beside the real cloud, that can be killed; and what is asked of it over https.

Its callers have Keystone's tokens, its source has a queue of its own on the cloud's RabbitMQ.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import yaml
from bus import AMQP_URL, Bus
from tenants import AUTH_URL, PASSWORD, PATIENCE, REGION, connect

from vedette.kit.clock import parse_us
from vedette.model.reading import OPENSTACK
from vedette.plugins import kinds
from vedette.testing.tls import Authority

SOURCE = "real"
BASE = "/apis/openstack.vedette.dev/v1"
PLURALS = {kind.kind: kind.plural for kind in kinds() if kind.group == OPENSTACK}
SAMPLE = re.compile(r"^vedette_(?P<name>\w+?)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
ACCOUNT = {
    "auth_url": AUTH_URL,
    "username": "admin",
    "password": PASSWORD,
    "project_name": "admin",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
    "region_name": REGION,
}
"""Of `api:`: somebody who sees every project."""


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        return port


class VedetteProcess:
    """See the module. `api`: the source's settings beside the account; None: notifications are all there is."""

    def __init__(
        self, folder: Path, tag: str, *, api: Mapping[str, Any] | None, check: str = "2s", more: Mapping[str, Any] | None = None
    ) -> None:
        self.queue = f"vedette.{tag}"
        self.authority = Authority(folder / "tls")
        self.url = f"https://127.0.0.1:{free_port()}"
        self.context = self.authority.client_context()
        self.starts = 0
        self._folder = folder
        self._file = folder / "vedette.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        self._token = ""
        pair = self.authority.server()
        source: dict[str, Any] = {
            "name": SOURCE,
            "type": "openstack",
            "amqp": AMQP_URL,
            "queue": {"name": self.queue, "type": "classic", "expires": "1h"},
            "check": check,
        }
        if api is not None:
            source["api"] = {**ACCOUNT, **api}
        who = {name: ACCOUNT[name] for name in ("auth_url", "user_domain_name", "project_domain_name")}
        settings = {
            "listen": self.url.removeprefix("https://"),
            "tls": {"cert": str(pair.cert), "key": str(pair.key)},
            "data_dir": str(folder / "data"),
            "auth": {
                "mode": "keystone",
                "keystone": {**who, "username": "svc", "password": PASSWORD, "project_name": "service"},
            },
            "watch": {"bookmark_seconds": "2s"},
            "sources": [source],
            "log": {"format": "json"},
            **(more or {}),
        }
        self._file.write_text(yaml.safe_dump(settings))

    # --- the process ---

    def start(self) -> None:
        with (self._folder / "vedette.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vedette.cli", "serve", "--config", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self._folder)},
            )
        self.starts += 1

    async def ready(self) -> float:
        """Wait until its source is connected; how long that took."""
        began = time.monotonic()
        async with self.session() as session:
            while time.monotonic() < began + PATIENCE:
                assert self._process is not None
                assert self._process.poll() is None, f"vedette ended by itself:\n{self.log()[-4000:]}"
                try:
                    async with session.get(f"{self.url}/readyz") as answer:
                        if answer.status == 200:
                            return time.monotonic() - began
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.1)
        raise AssertionError(f"vedette was not ready in {PATIENCE:g} s:\n{self.log()[-4000:]}")

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        assert self._process.poll() is None, f"vedette ended by itself:\n{self.log()[-4000:]}"
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> None:
        """SIGTERM; it must end well."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            assert self._process.wait(30) == 0, self.log()[-4000:]
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
            raise

    def log(self) -> str:
        return (self._folder / "vedette.log").read_text()

    def memory(self) -> int:
        """Its resident memory at its highest, MiB."""
        assert self._process is not None
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        assert found
        return int(found[1]) // 1024

    def cpu(self) -> float:
        """Seconds of processor time that it has used."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    # --- asking it ---

    @asynccontextmanager
    async def session(self) -> AsyncIterator[aiohttp.ClientSession]:
        connector = aiohttp.TCPConnector(ssl=self.context, limit=0)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
            yield session

    async def admin(self) -> str:
        """A token of the admin's."""
        if not self._token:
            self._token = str((await asyncio.to_thread(connect)).auth_token)
        return self._token

    async def get(self, path: str, token: str = "", **query: str) -> bytes:
        """The body of a 200; as admin without a token."""
        token = token or await self.admin()
        async with (
            self.session() as session,
            session.get(self.url + path, params=query, headers={"X-Auth-Token": token}) as answer,
        ):
            body = await answer.read()
            assert answer.status == 200, (path, answer.status, body[:500])
            return body

    async def json(self, path: str, token: str = "", **query: str) -> Any:
        return json.loads(await self.get(path, token, **query))

    async def items(self, kind: str, token: str = "", *, revision: int = 0) -> list[dict[str, Any]]:
        """Every object of a kind that the caller sees, now or as of a revision."""
        found: list[dict[str, Any]] = []
        query = {"limit": "500"}
        if revision:
            query |= {"resourceVersion": str(revision), "resourceVersionMatch": "Exact"}
        while True:
            page = await self.json(f"{BASE}/{PLURALS[kind]}", token, **query)
            found += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return found
            query = {"limit": "500", "continue": more}

    async def inventory(self, token: str = "", *, revision: int = 0) -> dict[tuple[str, str], dict[str, Any]]:
        """Every object that the caller sees, by kind and id, now or as of a revision."""
        found = {}
        for kind in PLURALS:
            for item in await self.items(kind, token, revision=revision):
                found[kind, item["status"]["id"]] = item
        return found

    async def head(self) -> int:
        return int((await self.json("/v1/status"))["store"]["headRevision"])

    async def events(self, after: int = 0, **query: str) -> list[dict[str, Any]]:
        """What the log holds after a revision, as CloudEvents, up to where it ends now."""
        body = await self.get("/v1/events", after=str(after), follow="false", **query)
        return [json.loads(line) for line in body.splitlines()]

    async def metrics(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        """The samples of one metric, by their labels."""
        text = (await self.get("/metrics")).decode()
        return {
            tuple(sorted(LABEL.findall(sample["labels"] or ""))): float(sample["value"])
            for sample in SAMPLE.finditer(text)
            if sample["name"] == name
        }

    async def quiet(self, seconds: float = 6.0, most: float = 60.0) -> None:
        """Wait until nothing new has come for so long; not for ever, since others may use the cloud too."""
        end = time.monotonic() + most
        head, since = await self.head(), time.monotonic()
        while time.monotonic() < min(end, since + seconds):
            await asyncio.sleep(0.5)
            now = await self.head()
            if now != head:
                head, since = now, time.monotonic()

    async def command(self, *words: str, **environ: str) -> tuple[int, str, str]:
        """`vedette …` as a process: its exit code, stdout and stderr."""
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("vedette"), *words,
            env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self._folder), **environ},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def resync(self, *singulars: str, ok: bool = True) -> dict[str, dict[str, Any]]:
        """`vedette resync`, to its end, which must be well if `ok`: how each kind ended."""
        who = {f"OS_{name.upper()}": value for name, value in ACCOUNT.items()}
        words = ("resync", *singulars, "-o", "json", "--server", self.url, "--ca", str(self.authority.ca))
        code, out, err = await self.command(*words, **who)
        found = {report["kind"]: report for report in map(json.loads, out.splitlines())}
        assert code == 0 or not ok, (err, found)
        return found

    async def resynced(self, started: int, *, whole: bool = True) -> dict[str, Any]:
        """Wait until every kind has been compared after `started` (UTC microseconds), as a whole if `whole`, and nothing is
        being compared; what `clouds` says of it in the status."""
        end = time.monotonic() + PATIENCE
        while True:
            found: dict[str, Any] = (await self.json("/v1/status"))["clouds"][0]["resync"]
            there = [one for one in found["kinds"] if one["state"] != "absent"]  # this cloud has no Ironic
            times = [parse_us(one["completeAt" if whole else "endedAt"] or "") or 0 for one in there]
            if found["state"] == "idle" and min(times) > started:
                return found
            assert time.monotonic() < end, found
            await asyncio.sleep(0.25)

    @asynccontextmanager
    async def watch(self, kind: str, token: str = "", **query: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """An open watch; its status isn't looked at."""
        token = token or await self.admin()
        params = {"watch": "1", "allowWatchBookmarks": "true", **query}
        forever = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        headers = {"X-Auth-Token": token}
        url = f"{self.url}{BASE}/{PLURALS[kind]}"
        async with self.session() as session, session.get(url, params=params, headers=headers, timeout=forever) as answer:
            yield answer

    @asynccontextmanager
    async def follow(self, kinds: Iterable[str], token: str = "") -> AsyncIterator[Follower]:
        """Somebody who lists these kinds and watches them from there on."""
        follower = Follower(self, token or await self.admin())
        try:
            for kind in kinds:
                await follower.begin(kind)
            yield follower
        finally:
            await follower.end()


class Event(NamedTuple):
    """One change, as a watcher got it."""

    at: float
    """time.monotonic()"""
    verb: str
    kind: str
    id: str
    status: dict[str, Any]
    metadata: dict[str, Any]


class Follower:
    """One caller's lists and watches. A stream that is cut is asked for again from its place; what it says then must follow on:
    nothing is told twice, nothing is changed that isn't there."""

    def __init__(self, vedette: VedetteProcess, token: str) -> None:
        self.events: list[Event] = []
        self.raw: list[bytes] = []
        """Every byte that was served to this caller, in pieces."""
        self.there: dict[tuple[str, str], dict[str, Any]] = {}
        """The objects that it knows now: their status."""
        self.cuts = 0
        self._places: dict[str, int] = {}
        self._vedette = vedette
        self._token = token
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, kind: str) -> None:
        body = await self._vedette.get(f"{BASE}/{PLURALS[kind]}", self._token)
        self.raw.append(body)
        page = json.loads(body)
        assert not page["metadata"].get("continue"), "more objects than a page has"
        for item in page["items"]:
            self.there[kind, item["status"]["id"]] = item["status"]
        self._places[kind] = int(page["metadata"]["resourceVersion"])
        opened = asyncio.Event()
        task = asyncio.create_task(self._read(kind, page["metadata"]["resourceVersion"], opened))
        self._tasks.append(task)
        await opened.wait()

    async def _read(self, kind: str, revision: str, opened: asyncio.Event) -> None:
        while True:
            try:
                async with self._vedette.watch(kind, self._token, resourceVersion=revision) as answer:
                    assert answer.status == 200, await answer.text()
                    opened.set()
                    async for line in answer.content:
                        self.raw.append(line)
                        found = json.loads(line)
                        assert found["type"] != "ERROR", found
                        revision = found["object"]["metadata"]["resourceVersion"]
                        self._places[kind] = int(revision)
                        if found["type"] != "BOOKMARK":
                            self._take(kind, found["type"], found["object"])
            except aiohttp.ClientError:
                pass
            self.cuts += 1
            await asyncio.sleep(0.2)

    def _take(self, kind: str, verb: str, item: dict[str, Any]) -> None:
        name = kind, item["status"]["id"]
        assert (name in self.there) == (verb != "ADDED"), (
            f"{verb} of {name}, which is {'' if name in self.there else 'not '}known"
        )
        if verb == "DELETED":
            del self.there[name]
        else:
            self.there[name] = item["status"]
        self.events.append(Event(time.monotonic(), verb, *name, item["status"], item["metadata"]))

    async def until(self, what: str, look: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until `look()` gives something true."""
        end = time.monotonic() + seconds
        while not (found := look()):
            self.well()
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds:g} s for {what}")
            await asyncio.sleep(0.02)
        return found

    def well(self) -> None:
        """Raises what a stream raised."""
        for task in self._tasks:
            if task.done():
                task.result()

    @property
    def at(self) -> int:
        """The revision up to which every stream has come."""
        return min(self._places.values())

    def of(self, id_: str) -> list[Event]:
        """What was told of the object with this id."""
        return [one for one in self.events if one.id == id_]

    async def end(self) -> None:
        self.well()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def serving(
    folder: Path, tag: str, *, api: Mapping[str, Any] | None, check: str = "2s", more: Mapping[str, Any] | None = None
) -> AsyncIterator[VedetteProcess]:
    """A Vedette of this test's own, connected; its queue goes with it. `more`: sections of the configuration."""
    service = VedetteProcess(folder, tag, api=api, check=check, more=more)
    service.start()
    try:
        await service.ready()
        yield service
    finally:
        try:
            service.stop()
        finally:
            Bus().delete_queue(service.queue)
