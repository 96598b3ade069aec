"""What the tests of this folder stand on: a whole service on a real RabbitMQ, somebody who publishes to it, and clients that
list and watch over HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import expectation
import pika
import pika.exceptions
from expectation import Inventory

from vedette.app import Service
from vedette.config import Config, load_text

ADMIN = "token-of-the-admin-0123456789"
FIRST_PROJECT = "e1f65416a4774cd380649215b9f46e17"
SECOND_PROJECT = "6121328959d14a6ca65f500452b30ecf"
"""The recordings' two tenants."""
TENANTS = {FIRST_PROJECT: "token-of-tenant-one-0123456789", SECOND_PROJECT: "token-of-tenant-two-0123456789"}

EXCHANGES = ("nova", "neutron", "octavia", "heat", "openstack", "glance", "keystone")
PATIENCE = 90.0
"""Seconds after which a wait is a failure."""
BASE = "/apis/openstack.vedette.dev/v1"
PLURALS = expectation.plurals()


# --- objects, as they are served and as they must be ---------------------------------------------------------------------------


class Shown(NamedTuple):
    """One object as it came, without what differs from run to run."""

    project: str
    created: str
    public: dict[str, Any]
    admin: dict[str, Any]

    @classmethod
    def read(cls, admin_form: bytes, tenant_form: bytes) -> Shown:
        """From both forms of it."""
        whole, part = json.loads(admin_form), json.loads(tenant_form)
        public = part["status"]
        assert whole["metadata"] == part["metadata"]
        assert {name: whole["status"][name] for name in public} == public
        admin = {name: value for name, value in whole["status"].items() if name not in public}
        return cls.of(whole, public, admin)

    @classmethod
    def of(cls, item: dict[str, Any], public: dict[str, Any], admin: dict[str, Any]) -> Shown:
        metadata = item["metadata"]
        assert public["id"]
        public = {name: value for name, value in public.items() if name != "id"}
        return cls(metadata["namespace"], metadata["creationTimestamp"], public, admin)


Objects = dict[tuple[str, str], Shown]


def wanted(inventory: Inventory, *, tenant: str | None = None) -> Objects:
    """What the admin must see (both forms taken apart), or what a tenant must see."""
    found: Objects = {}
    for key, thing in inventory.living().items():
        if tenant is None or thing.seen_by(tenant, ""):
            created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(thing.created))
            admin = thing.admin if tenant is None else {}
            found[key] = Shown(thing.project or expectation.NO_PROJECT, created, thing.public, admin)
    return found


def served(kind: str, items: Iterable[dict[str, Any]]) -> Objects:
    """A list's items by their key; which field is which is told by the published table."""
    table = expectation.contract()[kind]
    found: Objects = {}
    for item in items:
        status = item["status"]
        assert item["kind"] == kind
        admin = {name: value for name, value in status.items() if name != "id" and table[name].admin}
        public = {name: value for name, value in status.items() if name == "id" or not table[name].admin}
        for name, value in status.items():
            assert name == "id" or table[name].holds(value), (kind, name, value)
        key = kind, status["id"]
        assert key not in found, f"{key} is there twice"
        found[key] = Shown.of(item, public, admin)
    return found


def compare(got: Objects, want: Objects, when: str) -> None:
    """Fails with the first differences, field by field. JSON's types count: 1, 1.0 and true are three."""
    if got == want and _text(got) == _text(want):
        return
    lines: list[str] = []
    for key in sorted(got.keys() | want.keys()):
        if key not in got or key not in want:
            lines.append(f"{key} is {'missing' if key not in got else 'there and should not be'}")
            continue
        for part, (one, other) in zip(Shown._fields, zip(got[key], want[key], strict=True), strict=True):
            if isinstance(one, dict) and isinstance(other, dict):
                differing = (name for name in sorted(one.keys() | other.keys()) if _field(one, name) != _field(other, name))
                lines += [f"{key}.{name}: {_field(one, name)}, expected {_field(other, name)}" for name in differing]
            elif one != other:
                lines.append(f"{key} {part}: {one!r}, expected {other!r}")
    assert not lines, f"{when}: {len(lines)} differences\n" + "\n".join(lines[:20])


def _field(fields: dict[str, Any], name: str) -> str:
    return _text(fields[name]) if name in fields else "absent"


def _text(value: Any) -> str:
    if isinstance(value, dict) and value and isinstance(next(iter(value)), tuple):
        value = [[list(key), list(shown)] for key, shown in sorted(value.items())]
    return json.dumps(value, sort_keys=True)


# --- publishing --------------------------------------------------------------------------------------------------------------


class Message(NamedTuple):
    """What goes on the wire."""

    exchange: str
    routing_key: str
    body: bytes
    properties: Mapping[str, Any] = {}


class Bus:
    """Publishes as the services do (persistent, transient topic exchanges of a name of the test's own), with publisher
    confirms and `mandatory`: what returned is in a queue. Blocking: for a thread."""

    def __init__(self, url: str, mark: str) -> None:
        self._url = url
        self.mark = mark
        self._connection: pika.BlockingConnection | None = None
        self._channel: Any = None
        self._sure: Any = None
        """A channel with publisher confirms."""
        self.confirmed: list[Message] = []
        """What `publish_surely` knows to be in a queue, in order; read by other threads while it grows."""
        self.retries = 0
        """Times in which a message had to be sent again: it may be in the queue twice."""

    def open(self) -> None:
        parameters = pika.URLParameters(self._url)
        parameters.heartbeat = 0
        self._connection = pika.BlockingConnection(parameters)
        self._channel = self._connection.channel()
        for exchange in EXCHANGES:
            self._channel.exchange_declare(self.named(exchange), exchange_type="topic", durable=False, auto_delete=False)

    def named(self, exchange: str) -> str:
        return f"{exchange}.{self.mark}"

    def publish(self, messages: Iterable[Message]) -> int:
        """All of them, in order; answered when the broker has them. For a broker that is well."""
        if self._channel is None:
            self.open()
        count = 0
        for message in messages:
            self._send(self._channel, message)
            count += 1
        # One channel, one order: the answer comes after the messages.
        self._channel.exchange_declare(self.named("nova"), passive=True)
        return count

    def publish_surely(self, messages: Iterable[Message]) -> int:
        """One by one, each until it is confirmed as being in a queue, through whatever happens to the broker."""
        count = 0
        for message in messages:
            end = time.monotonic() + PATIENCE
            while True:
                try:
                    if self._connection is None:
                        self.open()
                    if self._sure is None:
                        assert self._connection is not None
                        self._sure = self._connection.channel()
                        self._sure.confirm_delivery()
                    self._send(self._sure, message, mandatory=True)
                except pika.exceptions.UnroutableError:
                    # Transient exchanges lose their bindings with the broker; the consumer binds them again.
                    time.sleep(0.05)
                except (pika.exceptions.AMQPError, OSError):
                    self.retries += 1
                    self._drop()
                    time.sleep(0.1)
                else:
                    count += 1
                    self.confirmed.append(message)
                    break
                if time.monotonic() > end:
                    raise AssertionError(f"a message was not taken in {PATIENCE:g} s")
        return count

    def delete_queue(self, name: str) -> int:
        """Messages that went with it."""
        if self._channel is None:
            self.open()
        return int(self._channel.queue_delete(name).method.message_count)

    def make_classic_queue(self, name: str) -> None:
        """As the service makes it, but not bound to anything."""
        limits = {"x-max-length": 1_000_000, "x-overflow": "drop-head", "x-expires": 7 * 86_400_000}
        self._channel.queue_declare(name, durable=True, arguments={"x-queue-type": "classic", **limits})

    def close(self, *, exchanges: bool = True) -> None:
        """Take what was declared away with it."""
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            if exchanges:
                if self._channel is None:
                    self.open()
                for exchange in EXCHANGES:
                    self._channel.exchange_delete(self.named(exchange))
        self._drop()

    def _send(self, channel: Any, message: Message, *, mandatory: bool = False) -> None:
        given = dict(message.properties) or {"content_type": "application/json", "content_encoding": "utf-8", "delivery_mode": 2}
        properties = pika.BasicProperties(**given)
        channel.basic_publish(self.named(message.exchange), message.routing_key, message.body, properties, mandatory=mandatory)

    def _drop(self) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            if self._connection is not None:
                self._connection.close()
        self._connection = self._channel = self._sure = None


# --- the service -------------------------------------------------------------------------------------------------------------


def settings(url: str, mark: str, data_dir: Path | str, *, port: int = 0, queue_type: str = "quorum") -> str:
    """A configuration with one source and three callers, as its file would be."""
    exchanges = ", ".join(f"{name}.{mark}" for name in EXCHANGES)
    tenants = "\n".join(
        f'    - {{token: {token}, name: tenant{number}, projects: ["{project}"]}}'
        for number, (project, token) in enumerate(TENANTS.items())
    )
    return f"""
listen: 127.0.0.1:{port}
data_dir: {data_dir}
auth:
  mode: tokens
  tokens:
    - {{token: {ADMIN}, name: ops, projects: ["*"], roles: [admin]}}
{tenants}
sources:
  - name: region-one
    type: openstack
    amqp: {url}
    exchanges: [{exchanges}]
    queue: {{name: vedette.{mark}, type: {queue_type}}}
    check: 1s
watch: {{bookmark_seconds: 1}}
"""


def config(*args: Any, **more: Any) -> Config:
    return load_text(settings(*args, **more), {})


class Child:
    """`vedette serve` in a process of its own, that can be killed."""

    def __init__(self, folder: Path, text: str, port: int) -> None:
        self.port = port
        self._folder = folder
        self._file = folder / "vedette.yaml"
        self._file.write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "vedette.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "vedette.cli", "serve", "--config", str(self._file)],
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
            )

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        assert self._process.poll() is None, f"it ended by itself:\n{self.errors()}"
        self._process.kill()
        self._process.wait(30)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def cpu(self) -> float:
        """Seconds of processor time it has used."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def errors(self) -> str:
        return (self._folder / "vedette.log").read_text()


@contextlib.asynccontextmanager
async def serving(settings: Config) -> AsyncIterator[Service]:
    """The service of `vedette serve`, in this process."""
    service = Service(settings)
    await service.start()
    try:
        yield service
        assert service.failed is not None
        assert not service.failed.done(), service.failed.exception()
    finally:
        await service.stop()


def new_mark() -> str:
    """For the names of exchanges and queue: one broker serves a whole run."""
    return uuid.uuid4().hex[:8]


# --- asking ------------------------------------------------------------------------------------------------------------------


class Listed(NamedTuple):
    status: int
    revision: str
    body: dict[str, Any]


class Client:
    """Asks the service over HTTP."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self.url = f"http://127.0.0.1:{port}"
        self.heard: list[bytes] = []
        """Every line of every stream that was read with this client."""

    async def get(self, path: str, token: str = ADMIN, **params: str) -> tuple[int, bytes]:
        async with self._session.get(self.url + path, params=params, headers={"X-Auth-Token": token}) as response:
            return response.status, await response.read()

    async def list(self, kind: str, token: str = ADMIN, *, revision: str = "") -> Listed:
        """All of a kind, now or as of a revision."""
        params = {"resourceVersion": revision, "resourceVersionMatch": "Exact"} if revision else {}
        status, raw = await self.get(f"{BASE}/{PLURALS[kind]}", token, **params)
        body = json.loads(raw)
        return Listed(status, body.get("metadata", {}).get("resourceVersion", ""), body)

    async def objects(self, token: str = ADMIN, *, revision: str = "") -> Objects:
        """All objects of every kind."""
        found: Objects = {}
        for kind in PLURALS:
            listed = await self.list(kind, token, revision=revision)
            assert listed.status == 200, listed.body
            assert not revision or listed.revision == revision
            found |= served(kind, listed.body["items"])
        return found

    async def counts(self) -> dict[str, int]:
        """received, events, duplicates, not_interesting, not_understood and gaps, from /metrics."""
        status, raw = await self.get("/metrics", "")
        assert status == 200
        found = dict.fromkeys(("received", "events", "duplicates", "not_interesting", "not_understood"), 0)
        text = raw.decode()
        for name in found:
            rows = re.findall(rf"^vedette_notices_{name}_total{{[^}}]*}} (\S+)$", text, re.MULTILINE)
            found[name] = int(sum(float(row) for row in rows))
        return found

    async def consumed(self, received: int) -> dict[str, int]:
        """Wait until so many messages were taken; the counts then. Metrics tell nobody when they change."""
        counts: dict[str, int] = {}

        async def enough() -> bool:
            nonlocal counts
            counts = await self.counts()
            return counts["received"] >= received

        await until(enough, lambda: f"{received} messages; {counts}")
        return counts

    async def ready(self) -> None:
        last = b""

        async def well() -> bool:
            nonlocal last
            status, last = await self.get("/readyz")
            return status == 200

        await until(well, lambda: f"readiness: {last.decode()}")

    async def up(self) -> None:
        """Wait until it answers: for a process that was just started."""

        async def answers() -> bool:
            try:
                return (await self.get("/healthz"))[0] == 200
            except (aiohttp.ClientError, ConnectionError):
                return False

        await until(answers, lambda: "an answer")
        await self.ready()

    async def gaps(self, count: int) -> None:
        """Wait until the source has written down so many gaps."""
        found = 0

        async def enough() -> bool:
            nonlocal found
            found = (await self.status())["sources"][0]["gaps"]
            return found >= count

        await until(enough, lambda: f"{count} gaps; {found}")

    async def log(self) -> list[dict[str, Any]]:
        """Every entry of the log, as CloudEvents."""
        status, raw = await self.get("/v1/events", after="0", follow="false")
        assert status == 200, raw
        self.heard.append(raw)
        return [json.loads(line) for line in raw.splitlines()]

    async def status(self) -> dict[str, Any]:
        status, raw = await self.get("/v1/status")
        assert status == 200, raw
        found: dict[str, Any] = json.loads(raw)
        return found

    @contextlib.asynccontextmanager
    async def stream(self, path: str, token: str = ADMIN, **params: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
        """The events of a stream, as they come."""
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        async with self._session.get(
            self.url + path, params=params, headers={"X-Auth-Token": token}, timeout=timeout
        ) as response:
            if response.status in (429, 503):
                raise aiohttp.ClientConnectionError(f"the service says {response.status}: later")
            assert response.status == 200, await response.text()

            async def lines() -> AsyncIterator[dict[str, Any]]:
                rest = b""
                async for part in response.content.iter_any():
                    *whole, rest = (rest + part).split(b"\n")
                    for line in whole:
                        self.heard.append(line)
                        yield json.loads(line)

            yield lines()


@contextlib.asynccontextmanager
async def asking(port: int) -> AsyncIterator[Client]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        yield Client(session, port)


async def heard(client: Client, ids: Iterable[str]) -> None:
    """Wait until the log has all of these."""
    missing = set(ids)
    try:
        async with asyncio.timeout(PATIENCE), client.stream("/v1/events", after="0") as events:
            async for event in events:
                missing.discard(event["id"])
                if not missing:
                    return
    except TimeoutError:
        raise AssertionError(f"{len(missing)} messages are not in the log after {PATIENCE:g} s") from None


class Mirror:
    """Keeps a copy of one kind from its watch, as a controller does."""

    def __init__(self, client: Client, kind: str, token: str = ADMIN) -> None:
        self._client = client
        self._kind = kind
        self._token = token
        self.items: dict[str, dict[str, Any]] = {}
        self.revision = ""
        self.events = 0
        self.expired = 0
        """Times in which the place to resume from was gone."""
        self.relisted = 0
        self.cuts = 0
        self._failed: Exception | None = None
        self._moved = asyncio.Condition()

    async def run(self) -> None:
        """List once, then follow, resuming after every cut from the last place; list again only when that place is gone.
        Until cancelled."""
        try:
            await self._run()
        except Exception as why:
            async with self._moved:
                self._failed = why
                self._moved.notify_all()
            raise

    async def _run(self) -> None:
        while True:
            try:
                if not self.revision or self.expired > self.relisted:
                    listed = await self._client.list(self._kind, self._token)
                    if listed.status in (429, 503):
                        raise aiohttp.ClientConnectionError(f"the service says {listed.status}: later")
                    assert listed.status == 200, listed.body
                    self.relisted = self.expired
                    self.items = {item["metadata"]["name"]: item for item in listed.body["items"]}
                    await self._at(listed.revision)
                await self.follow()
            except (aiohttp.ClientError, ConnectionError):
                self.cuts += 1
                await asyncio.sleep(0.05)  # the service is away; nobody tells when it is back

    async def follow(self) -> None:
        """Follow from `revision` until the stream ends, or the place turns out to be gone."""
        params = {"watch": "1", "resourceVersion": self.revision, "allowWatchBookmarks": "true"}
        async with self._client.stream(f"{BASE}/{PLURALS[self._kind]}", self._token, **params) as events:
            async for event in events:
                item = event["object"]
                if event["type"] == "ERROR":
                    assert event["object"]["reason"] == "Expired", item
                    assert item["code"] == 410, item
                    self.expired += 1
                    return
                name = item["metadata"].get("name", "")
                if event["type"] == "DELETED":
                    del self.items[name]
                elif event["type"] != "BOOKMARK":
                    assert (name in self.items) == (event["type"] == "MODIFIED"), (event["type"], name)
                    self.items[name] = item
                self.events += event["type"] != "BOOKMARK"
                await self._at(item["metadata"]["resourceVersion"])

    async def _at(self, revision: str) -> None:
        assert not self.revision or self.expired or int(revision) >= int(self.revision)
        async with self._moved:
            self.revision = revision
            self._moved.notify_all()

    async def reached(self, revision: int) -> None:
        """Wait until the watch has told of everything up to this revision."""
        try:
            async with asyncio.timeout(PATIENCE), self._moved:
                await self._moved.wait_for(lambda: self._failed is not None or int(self.revision or 0) >= revision)
                if self._failed is not None:
                    raise AssertionError(f"the watch of {self._kind} failed") from self._failed
        except TimeoutError:
            raise AssertionError(f"the watch of {self._kind} is at {self.revision}, not at {revision}") from None

    def objects(self) -> Objects:
        return served(self._kind, self.items.values())


async def until(condition: Callable[[], Any], what: Callable[[], str]) -> None:
    """For what tells nobody when it changes."""
    end = time.monotonic() + PATIENCE
    while not await condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {PATIENCE:g} s for {what()}")
        await asyncio.sleep(0.02)
