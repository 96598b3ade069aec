"""Guarantee 3 over HTTP: the server is killed again and again, and no client misses anything, or sees anything twice.

A real server process plays a recording; clients on bare sockets mirror what they may see and go on after each cut from where
they were. Afterwards the log is opened and `Truth` (testing/watch_suite.py) says what each of them had to see, revision by
revision. Killed with SIGKILL, at last stopped with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from watching import SECONDS, Answer, Gone, get

from vedette.kit.clock import SystemClock
from vedette.ports import EVERYTHING, Scope
from vedette.store.sqlite import SqliteStore
from vedette.testing.rabbit import free_ports
from vedette.testing.watch_suite import WISHES, Client, Socket, Truth, View

BASE = "/apis/openstack.vedette.dev/v1"
A, B, C = (letter * 32 for letter in "abc")
TOKENS = {"admin": "token-of-the-admin-0", "alice": "token-of-alice-in-a-0", "both": "token-of-a-and-b-000"}
SCOPES = {
    "admin": EVERYTHING,
    "alice": Scope(projects=frozenset({A})),
    "both": Scope(projects=frozenset({A, B})),
}
NOTICES = 900
KILLS = 5
ACTIVE = WISHES[1]


def history(seed: int) -> list[bytes]:
    """Lines of a recording: single and bulk creates, updates, moves between projects, shared flips, deletes, revivals."""
    dice = random.Random(seed)
    when = datetime(2026, 11, 20, 15, 0, 0)  # noqa: DTZ001 - oslo's are naive
    lines = []

    def thing(id_: str, **more: Any) -> dict[str, Any]:
        return {
            "id": id_,
            "name": dice.choice(["x", "y" * dice.randrange(1, 1500)]),
            "status": dice.choice(["ACTIVE", "DOWN"]),
            "project_id": dice.choice([A, A, B, C]),
            **more,
        }

    for number in range(NOTICES):
        ids = [f"{dice.randrange(14):08x}-0000-4000-8000-000000000000" for _ in range(3)]
        what = dice.random()
        if what < 0.08:
            event_type, payload = "port.create.end", {"ports": [thing(id_) for id_ in dict.fromkeys(ids)]}
        elif what < 0.6:
            verb = dice.choice(["create", "update", "update", "update"])
            event_type, payload = f"port.{verb}.end", {"port": thing(ids[0], **{"binding:host_id": dice.choice(["h1", "h2"])})}
        elif what < 0.7:
            event_type, payload = "port.delete.end", {"port_id": ids[0]}
        elif what < 0.95:
            event_type, payload = "network.update.end", {"network": thing(ids[0], shared=dice.random() < 0.4)}
        else:
            event_type, payload = "network.delete.end", {"network_id": ids[0]}
        when += timedelta(milliseconds=1500)
        inner = {
            "message_id": f"{seed}-{number}",
            "publisher_id": "network.ctl",
            "event_type": event_type,
            "priority": "INFO",
            "payload": payload,
            "timestamp": f"{when:%Y-%m-%d %H:%M:%S.%f}",
        }
        body = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)})
        line = {"recv_ts": number * 0.002, "exchange": "neutron", "routing_key": "notifications.info", "body": body}
        lines.append(json.dumps(line).encode() + b"\n")
    return lines


class Server:
    """`vedette serve` as a process, on the same folder and port each time."""

    def __init__(self, folder: Path, lines: list[bytes]) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        recording = folder / "recording.jsonl"
        recording.write_bytes(b"".join(lines))
        self.config = folder / "vedette.yaml"
        tokens = [
            {"token": TOKENS["admin"], "name": "admin", "projects": ["*"], "roles": ["admin"]},
            {"token": TOKENS["alice"], "name": "alice", "projects": [A]},
            {"token": TOKENS["both"], "name": "both", "projects": [A, B]},
        ]
        self.config.write_text(
            json.dumps(
                {
                    "listen": f"127.0.0.1:{self.port}",
                    "data_dir": str(folder / "data"),
                    "auth": {"mode": "tokens", "tokens": tokens},
                    "sources": [{"name": "one", "type": "replay", "path": str(recording), "speed": 1}],
                    "watch": {"bookmark_seconds": "300ms", "max_streams": 400},
                }
            )
        )
        self.up = asyncio.Event()
        self.said: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vedette.cli", "serve", "--config", str(self.config),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE, env={**os.environ},
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        async with asyncio.timeout(SECONDS):
            waiting = asyncio.create_task(self.up.wait())
            await asyncio.wait({waiting, self._reading}, return_when=asyncio.FIRST_COMPLETED)
        assert self.up.is_set(), "".join(self.said)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        while line := (await self._process.stderr.readline()).decode():
            self.said.append(line)
            if "listening" in line:
                self.up.set()

    async def end(self, number: int) -> int:
        """Send a signal and wait until it is gone; its exit code."""
        assert self._process is not None
        assert self._reading is not None
        self.up.clear()
        self._process.send_signal(number)
        async with asyncio.timeout(SECONDS):
            code = await self._process.wait()
            await self._reading
        return code


class Connection(NamedTuple):
    """What one connection brought."""

    after: int
    lines: list[bytes]
    clean: bool


class Mirror:
    """A client that lists once and then watches for ever, over any number of connections.

    `as_kubernetes`: it goes on from the last event it saw. Else from the last revision that it knows to be complete.
    """

    def __init__(self, server: Server, who: str, plural: str, view: View, namespace: str = "", *, as_kubernetes: bool) -> None:
        self.server = server
        self.who = who
        self.view = view
        self.as_kubernetes = as_kubernetes
        self.path = f"{BASE}/{f'namespaces/{namespace}/' if namespace else ''}{plural}"
        self.select = f"&fieldSelector={view.wish.fields.replace('=', '%3D', 1)}" if view.wish.fields else ""
        self.listed: tuple[int, list[dict[str, Any]]] | None = None
        self.connections: list[Connection] = []
        self.place = 0
        self.at = 0
        self.events = 0
        self.expired = 0
        self.moved = asyncio.Event()

    async def run(self) -> None:
        """Until the server ends a stream cleanly."""
        token = TOKENS[self.who]
        while True:
            await self.server.up.wait()
            try:
                if self.listed is None:
                    found = await get(self.server.port, f"{self.path}?{self.select}", token=token)
                    self.place = self.at = int(found["metadata"]["resourceVersion"])
                    self.listed = (self.place, found["items"])
                query = f"watch=1&allowWatchBookmarks=true&resourceVersion={self.place}{self.select}"
                answer = await Answer.of(self.server.port, f"{self.path}?{query}", token=token)
            except (OSError, Gone):
                await asyncio.sleep(0)  # killed at this moment
                continue
            assert answer.code == 200, answer.code
            connection = Connection(self.place, [], False)
            try:
                while line := await answer.line():
                    self._line(line, connection.lines)
            except Gone:
                self.at = self.place
                self.connections.append(connection)
            else:
                self.connections.append(connection._replace(clean=True))
                return
            finally:
                await answer.close()

    def _line(self, line: bytes, lines: list[bytes]) -> None:
        event = json.loads(line)
        assert event["type"] != "ERROR", event
        revision = int(event["object"]["metadata"]["resourceVersion"])
        lines.append(line)
        if event["type"] == "BOOKMARK":
            self.place = self.at = revision
        else:
            self.events += 1
            if self.as_kubernetes:
                self.place = revision
            elif revision > self.at:
                self.place = max(self.place, self.at)  # a later one: what came before is complete
            self.at = revision
        self.moved.set()

    async def reach(self, revision: int) -> None:
        while self.place < revision:
            self.moved.clear()
            await self.moved.wait()

    def check(self, truth: Truth) -> Client:
        """Every revision of its selection, once, in order and whole; and the mirror is the list at each."""
        assert self.listed is not None
        client = Client(self.view, truth, chunked=False)
        revision, items = self.listed
        client.list(revision)
        assert sorted(json.dumps(one, sort_keys=True) for one in items) == sorted(
            json.dumps(one, sort_keys=True) for one in client.mirror.values()
        )
        for connection in self.connections:
            if not self.as_kubernetes or not client.torn:
                assert connection.after == client.place
            client.socket = Socket()
            client.socket.got += b"".join(line + b"\n" for line in connection.lines)
            client.read(clean=connection.clean, as_kubernetes=self.as_kubernetes)
        return client


async def rude(server: Server, seed: int) -> int:
    """Watches and vanishes with a reset, in the middle of whatever comes, again and again. Returns how often."""
    dice = random.Random(seed)
    count = 0
    try:
        while True:
            await server.up.wait()
            try:
                answer = await Answer.of(server.port, f"{BASE}/ports?watch=1", token=TOKENS["admin"])
                try:
                    for _ in range(dice.randrange(20)):
                        await answer.line()
                finally:
                    await answer.reset()
                count += 1
            except (OSError, Gone):
                await asyncio.sleep(0)
    except asyncio.CancelledError:
        return count


async def test_killed_again_and_again_and_every_client_sees_every_change_once(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    server = Server(tmp_path, history(seed))
    everything, active = WISHES[0], ACTIVE
    mirrors = []
    for as_kubernetes in (False, True):
        for who, scope in SCOPES.items():
            mirrors += [
                Mirror(server, who, "networks", View(scope, "Network", "", A, everything), A, as_kubernetes=as_kubernetes),
                Mirror(server, who, "networks", View(scope, "Network", "", A, active), A, as_kubernetes=as_kubernetes),
                Mirror(server, who, "ports", View(scope, "Port", "", None, everything), as_kubernetes=as_kubernetes),
                Mirror(server, who, "ports", View(scope, "Port", "", None, active), as_kubernetes=as_kubernetes),
            ]
    # Bulk creates and moves are several events of one revision: after a cut inside one, only a careful client is whole.
    mirrors = [mirror for mirror in mirrors if not (mirror.as_kubernetes and mirror.view.kind == "Port")]
    await server.start()
    start = int((await get(server.port, "/v1/status", token=TOKENS["admin"]))["store"]["oldestRevision"])
    running = [asyncio.create_task(mirror.run()) for mirror in mirrors]
    vandals = [asyncio.create_task(rude(server, seed + number)) for number in range(3)]
    async with asyncio.timeout(2 * SECONDS):
        for _ in range(KILLS):
            enough = mirrors[2].events + dice.randrange(20, NOTICES // (2 * KILLS))
            while mirrors[2].events < enough:
                mirrors[2].moved.clear()
                await mirrors[2].moved.wait()
            assert await server.end(signal.SIGKILL) == -signal.SIGKILL
            await server.start()
        head = 0
        while head < start + NOTICES:  # the recording is through when the log has all of it
            await mirrors[2].reach(head + 1)
            status = await get(server.port, "/v1/status", token=TOKENS["admin"])
            head = int(status["store"]["headRevision"])
        for mirror in mirrors:
            await mirror.reach(head)
        resets = 0
        for vandal in vandals:
            vandal.cancel()
            resets += await vandal
        final = {
            mirror.path + mirror.select + mirror.who: (
                await get(server.port, f"{mirror.path}?{mirror.select}", token=TOKENS[mirror.who])
            )["items"]
            for mirror in mirrors
        }
        # SIGTERM: every stream ends with its last chunk, else `run` would go on.
        assert await server.end(signal.SIGTERM) == 0
        await asyncio.gather(*running)
    store = await SqliteStore.open(tmp_path / "data", SystemClock())
    truth = Truth(store.oldest)
    await truth.learn(store)
    await store.close()
    assert truth.head - truth.start == NOTICES, "each notice is one entry, however often it was offered"
    assert truth.head == head
    torn, cuts, seen = 0, 0, Counter[str]()
    for mirror in mirrors:
        client = mirror.check(truth)
        assert client.place == head
        mine = final[mirror.path + mirror.select + mirror.who]
        assert sorted(map(_text, client.mirror.values())) == sorted(map(_text, mine))
        torn += client.torn
        cuts += sum(not one.clean for one in mirror.connections)
        seen += client.seen
    bad = [line for line in server.said if "ERROR" in line or "Traceback" in line or "WARNING" in line]
    assert not bad, "".join(server.said)[-6000:]
    print(
        f"{KILLS} kills, {len(mirrors)} clients, {cuts} cut connections ({torn} inside a revision), {resets} resets; {dict(seen)}"
    )
    assert cuts >= KILLS * len(mirrors) // 2
    assert resets > 0


def _text(found: dict[str, Any]) -> str:
    return json.dumps(found, sort_keys=True)
