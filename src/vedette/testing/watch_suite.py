"""What a watch has to be on every store: ordered, unique, reliable, atomic, resumable, bookmarkable, filterable (etcd's words).

Subclass `WatchSuite` and say where a store lives, as for `store_suite.StoreSuite`:

    class TestMemory(WatchSuite):
        durable = False

        @contextmanager
        def place(self):
            yield memory_opener

What a client must see is worked out by `Truth` from the log's entries: what was shown before an entry and after it, compared.
It shares no code with `engine/watch.py`. Time is the event loop's and stands still until a test moves it (`Loop`); sockets are
`Socket`: they take what they are told to, and count.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from vedette.engine.watch import READ_CHANGES, ChangeFeed, Ended, Form, Hub, Limits, Memo, Watcher
from vedette.errors import Expired
from vedette.kit.telemetry import Telemetry
from vedette.model.change import Version
from vedette.model.entry import NewEntry
from vedette.model.fold import Held, apply
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.model.selector import parse
from vedette.ports import EVERYTHING, Scope, Selection, Store

T0 = 1_795_187_946_000_000
PATIENCE = 30.0
"""Real seconds after which a test that waits in vain is ended, with the place where it stands."""
TURNS = 30
"""Turns of the loop that every task in memory needs at the most to come to rest."""

# --- time -------------------------------------------------------------------------------------------------------------------


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose clock stands still: `advance` moves it, and every timeout with it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def time(self) -> float:
        return self.now


class LoopClock:
    """kit/clock's port on that loop; a store's thread may ask it, too."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def now_us(self) -> int:
        return T0 + round(self._loop.time() * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def rest() -> None:
    """Let every task that is not waiting for time, a thread or a socket come to rest."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def advance(seconds: float) -> None:
    """Move the loop's clock, at most a second at a time, so that what a timer starts again is due at its own moment."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    until = loop.now + seconds
    await rest()
    while loop.now < until:
        loop.now = min(until, loop.now + 1.0)
        await rest()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test on a `Loop`. One that waits for ever fails instead, and so does one that leaves a task behind."""

    async def watched() -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        timer = threading.Timer(PATIENCE, lambda: loop.call_soon_threadsafe(task.cancel, f"nothing in {PATIENCE} s"))
        timer.start()
        try:
            await main
        finally:
            timer.cancel()
            timer.join()
        left = [one for one in asyncio.all_tasks() if one is not task]
        assert not left, f"tasks left behind: {left}"

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(watched())


# --- a socket ---------------------------------------------------------------------------------------------------------------


class Socket:
    """The far end of a connection: a `Transport` that takes what its client takes, and what the client has by then."""

    def __init__(self, *, open_: bool = True) -> None:
        self.open = open_
        """Takes everything at once; else only what `take` takes."""
        self.got = bytearray()
        self.unsent = bytearray()
        self.most = 0
        """The largest number of unsent bytes so far."""
        self.writes: list[int] = []
        self.aborted = False
        self.lost = asyncio.Event()
        self._high = 65_536
        self._waiting: list[asyncio.Future[None]] = []
        self._arrived: list[asyncio.Future[None]] = []

    # What the hub uses.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.is_closing():
            raise RuntimeError("unable to perform operation; the handler is closed")  # as uvloop does
        self.writes.append(len(data))
        if self.open and not self.unsent:
            self._take(bytes(data))
            return
        self.unsent += data
        self.most = max(self.most, len(self.unsent))

    def get_write_buffer_size(self) -> int:
        return len(self.unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high is not None
        self._high = high

    def is_closing(self) -> bool:
        return self.lost.is_set()

    def abort(self) -> None:
        self.aborted = True
        self.lose()

    async def drain(self) -> None:
        """aiohttp's: waits while there is more than `high`, until a quarter of that is left."""
        if len(self.unsent) <= self._high:
            return
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            await waiting
        finally:
            self._waiting.remove(waiting)

    # What tests use.

    def take(self, count: int) -> None:
        """The client reads that many bytes."""
        some = bytes(self.unsent[:count])
        del self.unsent[:count]
        if some:
            self._take(some)
        if len(self.unsent) <= self._high // 4:
            self._wake(self._waiting)

    def flow(self) -> None:
        """From now on the client reads everything."""
        self.open = True
        self.take(len(self.unsent))

    def stop(self) -> None:
        """From now on the client reads nothing."""
        self.open = False

    def lose(self) -> None:
        """The connection is gone, with all that was not taken."""
        self.unsent.clear()
        self.lost.set()
        self._wake(self._waiting)
        self._wake(self._arrived)

    async def has(self, enough: Callable[[bytes], bool]) -> None:
        """Until what was taken is enough, or the connection is gone."""
        while not enough(bytes(self.got)) and not self.lost.is_set():
            arrived = asyncio.get_running_loop().create_future()
            self._arrived.append(arrived)
            await arrived

    def _take(self, data: bytes) -> None:
        self.got += data
        self._wake(self._arrived)

    def _wake(self, waiting: list[asyncio.Future[None]]) -> None:
        for one in waiting:
            if not one.done():
                one.set_result(None)
        if waiting is self._arrived:
            waiting.clear()


def unchunked(data: bytes) -> bytes:
    """What a client reads out of HTTP/1.1 chunks; of one that is not there to its end, as much as there is."""
    found, at = b"", 0
    while (end := data.find(b"\r\n", at)) >= 0:
        size = int(data[at:end], 16)
        assert size > 0, "a last chunk that nobody asked for"
        body = data[end + 2 : end + 2 + size]
        found += body
        at = end + 2 + size + 2
        if len(data) < at:
            return found
        assert data[at - 2 : at] == b"\r\n", "chunk without its end"
    return found


# --- what is watched --------------------------------------------------------------------------------------------------------


def _event(verb: str, _key: Key, body: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (verb.encode(), body)


def _bookmark(revision: int, initial_end: bool) -> bytes:
    metadata: dict[str, Any] = {"resourceVersion": str(revision)}
    if initial_end:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": metadata}}).encode() + b"\n"


FORM = Form("suite", _event, _bookmark)
ADMINS_ONLY = "binding:host_id"
"""The field of these histories that tenants never see."""


class Wish(NamedTuple):
    """A selector, and what it means to an object as the caller sees it."""

    labels: str
    fields: str
    holds: Callable[[dict[str, Any]], bool]


def _is(found: dict[str, Any], name: str, wanted: str) -> bool:
    """Whether a field is that text, or a list in which it is."""
    value = found["status"].get(name)
    values = value if isinstance(value, list) else [value]
    return wanted in ["" if one is None else one if isinstance(one, str) else json.dumps(one) for one in values]


def _status(name: str, wanted: str, equal: bool = True) -> Callable[[dict[str, Any]], bool]:
    return lambda found: _is(found, name, wanted) is equal


WISHES = (
    Wish("", "", lambda _: True),
    Wish("", "status.status=ACTIVE", _status("status", "ACTIVE")),
    Wish("", "status.status!=ACTIVE", _status("status", "ACTIVE", False)),
    Wish("", "status.size=2", _status("size", "2")),
    Wish("", f"status.{ADMINS_ONLY}=h1", _status(ADMINS_ONLY, "h1")),
    Wish("", f"status.{ADMINS_ONLY}!=h1", _status(ADMINS_ONLY, "h1", False)),
    Wish("", "status.status=DOWN,status.size!=1", lambda o: _is(o, "status", "DOWN") and not _is(o, "size", "1")),
    Wish("", "metadata.name=c~2f~c3~b6", lambda o: o["metadata"]["name"] == "c~2f~c3~b6"),
    Wish("", "metadata.name!=a", lambda o: o["metadata"]["name"] != "a"),
    Wish("", "metadata.namespace=p2", lambda o: o["metadata"]["namespace"] == "p2"),
    Wish("vedette.dev/source in (two)", "", lambda o: o["metadata"]["labels"]["vedette.dev/source"] == "two"),
    Wish("vedette.dev/source!=two,!env", "status.status=ACTIVE",
         lambda o: o["metadata"]["labels"]["vedette.dev/source"] != "two" and _is(o, "status", "ACTIVE")),
)  # fmt: skip


class View(NamedTuple):
    """What one client watches."""

    scope: Scope
    kind: str
    source: str
    project: str | None
    wish: Wish

    def selection(self) -> Selection:
        return Selection(self.scope, OPENSTACK if self.kind else "", self.kind, self.source, self.project)

    def feed(self) -> ChangeFeed:
        return ChangeFeed(self.selection(), parse(self.wish.labels, self.wish.fields), FORM)


Name = tuple[str, str, str, str]
"""(kind, source, namespace, name): what a client keys its mirror by."""


def name_in(found: dict[str, Any]) -> Name:
    metadata = found["metadata"]
    return found["kind"], metadata["labels"]["vedette.dev/source"], metadata["namespace"], metadata["name"]


class Event(NamedTuple):
    verb: str
    name: Name
    now: dict[str, Any] | None
    """What it must carry; None: a deletion, see `was` and `last`."""
    was: dict[str, Any] | None
    last: dict[str, Any] | None
    """A deletion carries what was seen before it; of an object that is gone also the content of its last notice."""


class Truth:
    """What every revision showed, from the log alone: entries folded anew, and views of the outcome compared."""

    def __init__(self, start: int) -> None:
        self.start = self.head = start
        self.living: dict[int, dict[Key, Version]] = {start: {}}
        self.gone: dict[int, dict[Key, Version]] = {}
        self._held: dict[Key, Held] = {}
        self._shown: dict[tuple[int, View], dict[Name, dict[str, Any]]] = {}
        self._decoded: dict[int, dict[str, Any]] = {}

    async def learn(self, store: Store) -> None:
        """Read on in the log."""
        while self.head < store.head:
            found, upto = await store.entries(self.head)
            for one in found:
                _, touched = apply(one.entry, self._held.get)
                before = {key for key, held in self._held.items() if not held.state.deleted}
                self._held.update(touched)
                living = {key: held.version for key, held in self._held.items() if not held.state.deleted and held.version}
                gone = {key: held.version for key, held in touched.items() if held.state.deleted and key in before}
                self.gone[one.entry.revision] = {key: version for key, version in gone.items() if version is not None}
                assert one.entry.revision == self.head + 1
                self.head = one.entry.revision
                self.living[self.head] = living
            self.head = upto

    def shown(self, view: View, revision: int) -> dict[Name, dict[str, Any]]:
        """The list at this revision."""
        known = self._shown.get((revision, view))
        if known is None:
            found = (self._seen(view, key, version) for key, version in self.living[revision].items())
            known = self._shown[revision, view] = {name_in(one): one for one in found if one is not None}
        return known

    def events(self, view: View, revision: int) -> list[Event]:
        """What this revision means to the view."""
        before, now = self.shown(view, revision - 1), self.shown(view, revision)
        if before == now:
            return []
        last = {}
        for key, version in self.gone.get(revision, {}).items():
            found = self._object(version, view.scope.admin)
            if self._sees(view.scope, version) and view.project in (None, version.project) and self._right_kind(view, key):
                last[name_in(found)] = found
        gone = [Event("DELETED", name, None, was, last.get(name)) for name, was in before.items() if name not in now]
        new = [Event("ADDED" if name not in before else "MODIFIED", name, found, None, None)
               for name, found in now.items() if before.get(name) != found]  # fmt: skip
        return gone + new

    def _seen(self, view: View, key: Key, version: Version) -> dict[str, Any] | None:
        if not self._right_kind(view, key) or not self._sees(view.scope, version) or view.project not in (None, version.project):
            return None
        found = self._object(version, view.scope.admin)
        return found if view.wish.holds(found) else None

    @staticmethod
    def _right_kind(view: View, key: Key) -> bool:
        return view.kind in ("", key.kind) and view.source in ("", key.source)

    @staticmethod
    def _sees(scope: Scope, version: Version) -> bool:
        return (
            scope.admin
            or version.shared
            or (version.project in scope.projects and version.project != "")
            or (scope.user == version.owner and scope.user != "")
        )

    def _object(self, version: Version, admin: bool) -> dict[str, Any]:
        found = self._decoded.get(id(version))
        if found is None:
            found = self._decoded[id(version)] = json.loads(version.body)
        if admin or ADMINS_ONLY not in found["status"]:
            return found
        return {**found, "status": {name: value for name, value in found["status"].items() if name != ADMINS_ONLY}}


# --- a client ---------------------------------------------------------------------------------------------------------------


class Client:
    """Mirrors a view over any number of connections, and checks each revision when it is complete.

    A revision is complete when a later one or a bookmark follows it, or the stream ended cleanly. After a cut the client goes on
    from the last complete one (`place`) and forgets what it has of the next. Kubernetes' own clients go on from the last event
    they saw; `torn` counts the cuts after which that would have lost the rest of a revision (see `docs/guarantees.md`).
    """

    def __init__(self, view: View, truth: Truth, *, chunked: bool = True, bookmarks: bool = True) -> None:
        self.view = view
        self.truth = truth
        self.chunked = chunked
        self.bookmarks = bookmarks
        self.mirror: dict[Name, dict[str, Any]] = {}
        self.place = 0
        self.begun = False
        """Its initial state is complete."""
        self.group: list[tuple[str, dict[str, Any]]] = []
        self.at = 0
        """Revision of `group`."""
        self.seen: Counter[str] = Counter()
        self.torn = 0
        self.socket: Socket | None = None
        self.watcher: Watcher | None = None
        self.task: asyncio.Task[Ended] | None = None

    def list(self, revision: int) -> None:
        """Begin with the list as of this revision."""
        self.mirror = dict(self.truth.shown(self.view, revision))
        self.place, self.at, self.group, self.begun = revision, revision, [], True

    def start_over(self) -> None:
        """Begin with the initial events of a watch."""
        self.mirror, self.group, self.begun, self.at = {}, [], False, 0

    def read(self, *, clean: bool, as_kubernetes: bool = False) -> None:
        """Take in what the connection brought. `clean`: it brought everything that was written."""
        assert self.socket is not None
        data = bytes(self.socket.got)
        if self.chunked:
            data = unchunked(data)
        *lines, rest_ = data.split(b"\n")
        assert not (clean and rest_), f"half a line at a clean end: {rest_!r}"
        for line in lines:
            self._line(json.loads(line))
        if clean:
            self._complete()
        elif self.group and self.begun:
            if Counter(_named(self.group)) == Counter((one.verb, one.name) for one in self.truth.events(self.view, self.at)):
                if as_kubernetes:
                    self._complete()
            else:
                self.torn += 1
        if self.begun and not clean:
            self.group = []
            self.at = self.place

    def _line(self, line: dict[str, Any]) -> None:
        verb, found = line["type"], line["object"]
        revision = int(found["metadata"]["resourceVersion"])
        self.seen[verb] += 1
        if not self.begun:
            self._initial(verb, revision, found)
            return
        assert revision >= self.at, f"{verb} of {revision} after {self.at}: not in order"
        if verb == "BOOKMARK":
            assert self.bookmarks, "a bookmark that nobody asked for"
            self._complete()
            self._nothing_until(revision)
            return
        if revision > self.at:
            self._complete()
            self.at = revision
        else:
            assert self.group, f"{verb} of {revision}, which was complete"
        self.group.append((verb, found))

    def _initial(self, verb: str, revision: int, found: dict[str, Any]) -> None:
        if verb == "BOOKMARK":
            assert found["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
            assert self.mirror == self.truth.shown(self.view, revision), "the initial events are not the list"
            self.begun = True
            self.place = self.at = revision
            return
        name = name_in(found)
        assert verb == "ADDED"
        assert name not in self.mirror, "twice in the initial events"
        self.mirror[name] = found

    def _nothing_until(self, revision: int) -> None:
        """Reliable: nothing that the view shows happened after `place`, up to here."""
        for missed in range(self.place + 1, revision + 1):
            events = self.truth.events(self.view, missed)
            assert not events, f"{events} of {missed} never came; now at {revision}"
        self.place = self.at = max(revision, self.place)
        assert self.mirror == self.truth.shown(self.view, self.place)

    def _complete(self) -> None:
        """Unique and atomic: all events of a revision, each once, and then the mirror is the list."""
        if not self.group:
            return
        group, revision = self.group, self.at
        self.group = []
        self._nothing_until(revision - 1)
        expected = self.truth.events(self.view, revision)
        assert Counter(_named(group)) == Counter((one.verb, one.name) for one in expected), f"at {revision}"
        wanted = {(one.verb, one.name): one for one in expected}
        added: set[tuple[str, str, str]] = set()
        for verb, found in group:
            one = wanted[verb, name_in(found)]
            if verb == "DELETED":
                plain = _without_revision(found)
                assert plain in [_without_revision(old) for old in (one.was, one.last) if old], "a deletion with other content"
                assert (one.name[0], one.name[1], one.name[3]) not in added, "it came elsewhere before it left here"
                del self.mirror[one.name]
            else:
                assert found == one.now
                assert found["metadata"]["resourceVersion"] == str(revision)
                added.add((one.name[0], one.name[1], one.name[3]))
                self.mirror[one.name] = found
        self.place = self.at = revision
        assert self.mirror == self.truth.shown(self.view, revision), "the mirror is not the list"


def _named(group: Sequence[tuple[str, dict[str, Any]]]) -> list[tuple[str, Name]]:
    return [(verb, name_in(found)) for verb, found in group]


def _without_revision(found: dict[str, Any]) -> dict[str, Any]:
    metadata = {name: value for name, value in found["metadata"].items() if name != "resourceVersion"}
    return {**found, "metadata": metadata}


# --- the stage: a store, a hub, clients ---------------------------------------------------------------------------------------

Opener = Callable[[LoopClock], Awaitable[Store]]
SMALL = Limits(bookmark_seconds=15.0, max_watchers=100, max_buffer_bytes=8_192, stall_timeout=60.0, ring_bytes=20_000)


class Stage:
    """A store, a hub on it, and clients of that hub."""

    def __init__(self, opener: Opener, limits: Limits = SMALL, *, durable: bool = False) -> None:
        self.opener = opener
        self.limits = limits
        self.durable = durable
        self.clock = LoopClock(asyncio.get_running_loop())
        self.telemetry = Telemetry()
        self.clients: list[Client] = []
        self.store: Store
        self.hub: Hub
        self.truth: Truth
        self._running: asyncio.Task[None] | None = None
        self._ids = 0
        self._as_of = T0

    async def __aenter__(self) -> Stage:
        self.store = await self.opener(self.clock)
        self.truth = Truth(self.store.head)
        await self.start_hub()
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self.clients:
            await self.cut(client, 0, check=False)
        await self.stop_hub()
        await self.store.close()

    async def start_hub(self) -> None:
        self.hub = Hub(self.store, self.limits, self.telemetry, self.clock)
        self._running = asyncio.create_task(self.hub.run(), name="hub")
        await asyncio.sleep(0)

    async def stop_hub(self) -> None:
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait([self._running])
        assert self._running.cancelled()
        assert self.hub.watchers == 0
        hub = self.hub
        assert not any((hub._groups, hub._index, hub._audiences, hub._notices, hub._ahead)), "somebody was left behind"

    async def restart(self) -> None:
        """The service stops, and starts again on what its store kept. Every stream ends cleanly with what it was written."""
        self.hub.close()
        await rest()
        for client in self.clients:
            if client.task is not None:
                if client.socket is not None:
                    client.socket.flow()
                await self.ended(client, Ended.SHUTDOWN)
        await self.stop_hub()
        if self.durable:
            await self.store.close()
            self.store = await self.opener(self.clock)
        await self.start_hub()

    def count(self, name: str) -> int:
        """A counter of the hub's."""
        return int(self.telemetry.registry.get_sample_value(f"vedette_{name}") or 0)

    def client(self, view: View, *, chunked: bool = True, bookmarks: bool = True) -> Client:
        client = Client(view, self.truth, chunked=chunked, bookmarks=bookmarks)
        self.clients.append(client)
        return client

    def connect(
        self, client: Client, *, socket: Socket | None = None, timeout: float | None = None, owner: str = "somebody"
    ) -> Socket:
        """Watch from the client's place, or from initial events when it has none."""
        assert client.task is None
        socket = client.socket = socket or Socket()
        feed = client.view.feed()
        watcher = client.watcher = Watcher(
            feed, socket, socket.drain, chunked=client.chunked, bookmarks=client.bookmarks, owner=owner
        )
        initial, after = None, client.place
        if not client.begun:
            client.start_over()
            after = self.store.head
            initial = initial_events(self.store, feed, after)
        client.task = asyncio.create_task(
            self.hub.serve(watcher, after=after, initial=initial, timeout=timeout), name="a client's watch"
        )
        return socket

    async def cut(self, client: Client, more: int, *, check: bool = True, as_kubernetes: bool = False) -> None:
        """The connection goes after `more` of the bytes that wait; aiohttp then cancels whoever serves it."""
        if client.task is None or client.socket is None:
            return
        client.socket.take(more)
        client.socket.lose()
        client.task.cancel()
        await asyncio.wait([client.task])
        assert client.socket.most <= self.limits.max_buffer_bytes
        if not client.task.cancelled():
            assert isinstance(client.task.exception(), ConnectionResetError | Expired | None)
        client.task = None
        if check:
            await self.truth.learn(self.store)
            client.read(clean=False, as_kubernetes=as_kubernetes)

    async def ended(self, client: Client, *why: Ended) -> None:
        """Its watch is over; takes in what it brought."""
        assert client.task is not None
        assert client.socket is not None
        how: Ended | None = None
        try:
            how = await client.task
        except Expired:
            assert client.place < self.store.oldest, "told to list again for no reason"
            client.start_over()
        except ConnectionResetError:
            assert client.socket.lost.is_set()
        client.task = None
        assert client.socket.most <= self.limits.max_buffer_bytes
        assert not why or how in why or how is None, f"ended by {how}"
        await self.truth.learn(self.store)
        if client.begun or client.socket.got:
            client.read(clean=how is not None and not client.socket.lost.is_set())

    def news(self, *readings: Reading, source: str = "one", event_type: str = "port.update.end", id_: str = "") -> NewEntry:
        self._ids += 1
        notice = Notice(
            id=id_ or f"n{self._ids}",
            source=source,
            event_type=event_type,
            sent_at=T0,
            payload=msgspec.Raw(b'{"n":%d}' % self._ids),
        )
        return NewEntry(notice, readings)

    def said(self, verb: str, id_: str, *, kind: str = "Port", late: bool = False, **rest: Any) -> Reading:
        self._as_of += 1_000_000
        as_of = self._as_of - (20_000_000 if late else 0)
        return Reading(kind=kind, id=id_, verb=verb, as_of=as_of, **rest)  # type: ignore[arg-type]

    async def add(self, *readings: Reading, **rest: Any) -> int:
        (revision,) = await self.store.append([self.news(*readings, **rest)])
        assert revision is not None
        return revision

    async def caught_up(self, *clients: Client) -> None:
        """Until all of these are live at the head and their sockets took everything."""
        for client in clients or self.clients:
            watcher, socket, task = client.watcher, client.socket, client.task
            assert watcher is not None
            assert socket is not None
            assert task is not None
            # Turn by turn: what is awaited is a state, and no single event tells it.
            while not task.done() and (not watcher.live or self.hub.served != self.store.head or socket.unsent):  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def arrive(self) -> None:
        """Nothing is checked yet; all that was to come has come."""
        for client in self.clients:
            assert client.socket is not None
            client.socket.flow()
        await self.caught_up()

    async def check(self) -> None:
        """All clients are brought up to the head, and then their mirrors are the list."""
        for client in self.clients:
            if client.task is not None and client.task.done():
                await self.ended(client)
            if client.task is None:
                self.connect(client)
            assert client.socket is not None
            client.socket.flow()
        await self.caught_up()
        await self.truth.learn(self.store)
        for client in self.clients:
            assert client.socket is not None
            assert client.socket.most <= self.limits.max_buffer_bytes
            client.read(clean=True)
            client.socket.got.clear()
            client._nothing_until(self.store.head)
            listed = await everything(self.store, client.view)
            assert client.mirror == listed, "the mirror is not what the store lists"


async def everything(store: Store, view: View) -> dict[Name, dict[str, Any]]:
    """What the store lists for a view now, read with the caller's own eyes."""
    found: dict[Name, dict[str, Any]] = {}
    after: tuple[str, str] | None = None
    while True:
        page = await store.objects(view.selection(), after=after, limit=3)
        for _, version in page.items:
            body = json.loads(version.admin_form() if view.scope.admin else version.tenant_form())
            if view.wish.holds(body):
                found[name_in(body)] = body
        after = page.after
        if after is None:
            return found


async def initial_events(store: Store, feed: ChangeFeed, at: int) -> AsyncIterator[bytes]:
    """As api/routes/objects.py has them."""
    after: tuple[str, str] | None = None
    while True:
        page = await store.objects(feed.selection, revision=at, after=after, limit=2)
        for key, version in page.items:
            if feed.holds(key, version, Memo()):
                yield _event("ADDED", key, version.admin_form() if feed.admin else version.tenant_form())
        after = page.after
        if after is None:
            break
    yield feed.bookmark(at, True)


# --- random histories -------------------------------------------------------------------------------------------------------

IDS = ("a", "b", "c/ö", "..", "~41", "0b6b4b1c-5a51-4d3f-8d5e-7c1d9f2b3a10")


class Said(NamedTuple):
    kind: str
    id: str
    verb: str
    project: str | None
    shared: bool | None
    owner: str | None
    fields: dict[str, Any]
    host: str | None
    late: bool


saids = st.builds(
    Said,
    kind=st.sampled_from(["Port", "Port", "Network"]),
    id=st.sampled_from(IDS),
    verb=st.sampled_from(["create", "update", "update", "update", "delete"]),
    project=st.sampled_from([None, None, "p1", "p2", "p3", ""]),
    shared=st.sampled_from([None, None, True, False]),
    owner=st.sampled_from([None, None, "u1", ""]),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(["ACTIVE", "DOWN", None, ["ACTIVE"]]),
            "size": st.integers(0, 2),
            "name": st.sampled_from(["x", "y" * 700]),
        },
    ),
    host=st.sampled_from([None, None, "h1", "h2"]),
    late=st.sampled_from([False, False, False, False, True]),
)
news = st.tuples(
    st.sampled_from(["one", "one", "two"]), st.one_of(st.lists(saids, min_size=1, max_size=4), st.lists(saids, max_size=1))
)
scopes = st.sampled_from(
    [
        EVERYTHING,
        Scope(projects=frozenset({"p1"})),
        Scope(projects=frozenset({"p1", "p2"}), user="u1"),
        Scope(projects=frozenset({"p3"})),
        Scope(user="u1"),
        Scope(projects=frozenset({""})),
    ]
)
views = st.builds(
    View,
    scope=scopes,
    kind=st.sampled_from(["Port", "Port", "Network", ""]),
    source=st.sampled_from(["", "one"]),
    project=st.sampled_from([None, None, "p1", "p2", ""]),
    wish=st.sampled_from(WISHES),
)


class Write(NamedTuple):
    commits: list[tuple[str, list[Said]]]


class Join(NamedTuple):
    view: View
    back: int
    """How far behind the head its list is; -1: it asks for initial events."""
    chunked: bool
    bookmarks: bool
    open: bool


class Cut(NamedTuple):
    which: int
    more: int
    as_kubernetes: bool


class Turn(NamedTuple):
    """What a socket does from now on; a number: takes that many bytes."""

    which: int
    what: str | int


class Pass(NamedTuple):
    turns: int


class Sleep(NamedTuple):
    seconds: int


class Restart(NamedTuple):
    pass


Step = Write | Join | Cut | Turn | Pass | Sleep | Restart
which = st.integers(0, 7)
writes = st.builds(Write, st.lists(news, min_size=1, max_size=15))
joins = st.builds(Join, views, st.integers(-1, 9), st.booleans(), st.booleans(), st.booleans())
steps = st.tuples(
    st.lists(st.one_of(writes, joins, joins, joins), min_size=3, max_size=10),
    st.lists(
        st.one_of(
            writes,
            writes,
            writes,
            joins,
            st.builds(Cut, which, st.sampled_from([0, 1, 100, 700, 2000, 100_000]), st.booleans()),
            st.builds(Turn, which, st.sampled_from(["flow", "stop", "stop", 1, 50, 900, 5000])),
            st.builds(Pass, st.integers(0, 4)),
            st.builds(Sleep, st.sampled_from([1, 16, 61])),
            st.just(Restart()),
        ),
        min_size=10,
        max_size=40,
    ),
).map(lambda two: two[0] + two[1])
limits = st.builds(
    lambda ring, buffer: msgspec.structs.replace(SMALL, ring_bytes=ring, max_buffer_bytes=buffer),
    st.sampled_from([1, 6_000, 20_000, 10_000_000]),
    st.sampled_from([2_048, 2_048, 8_192]),
)
random_history = settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors], database=None
)


class Player:
    """Plays a random history, and lets the clients check what they get."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    async def play(self, history: Sequence[Step]) -> None:
        stage = self.stage
        for step in history:
            match step:
                case Write():
                    await stage.store.append(
                        [stage.news(*map(self._reading, said), source=source) for source, said in step.commits]
                    )
                case Join():
                    await self._join(step)
                case Cut():
                    if client := self._pick(step.which):
                        await stage.cut(client, step.more, as_kubernetes=step.as_kubernetes)
                        stage.connect(client, socket=Socket(open_=step.more % 2 == 0))
                case Turn():
                    if (client := self._pick(step.which)) and client.socket:
                        self._turn(client.socket, step.what)
                case Pass():
                    for _ in range(step.turns):
                        await asyncio.sleep(0)
                case Sleep():
                    await advance(step.seconds)
                case Restart():
                    await stage.restart()
            await self._reconnect()
        await stage.check()

    def _pick(self, which: int) -> Client | None:
        clients = self.stage.clients
        return clients[which % len(clients)] if clients else None

    def _reading(self, said: Said) -> Reading:
        return self.stage.said(
            said.verb, said.id, kind=said.kind, late=said.late, project=said.project, shared=said.shared, owner=said.owner,
            fields=said.fields, admin={} if said.host is None else {ADMINS_ONLY: said.host},
        )  # fmt: skip

    async def _join(self, step: Join) -> None:
        stage = self.stage
        if len(stage.clients) == 8:
            return
        client = stage.client(step.view, chunked=step.chunked, bookmarks=step.bookmarks)
        await stage.truth.learn(stage.store)
        if step.back >= 0:
            client.list(max(stage.truth.start, stage.store.head - step.back))
        stage.connect(client, socket=Socket(open_=step.open))

    def _turn(self, socket: Socket, what: str | int) -> None:
        if isinstance(what, int):
            socket.take(what)
        elif what == "flow":
            socket.flow()
        else:
            socket.stop()

    async def _reconnect(self) -> None:
        """Those that were cut (stalled, or the service stopped) come again."""
        for client in self.stage.clients:
            if client.task is not None and client.task.done():
                await self.stage.ended(client, Ended.STALLED)
            if client.task is None:
                self.stage.connect(client)


# --- the suite --------------------------------------------------------------------------------------------------------------

ADMIN_PORTS = View(EVERYTHING, "Port", "", None, WISHES[0])


class WatchSuite:
    """Subclass it; see the module."""

    durable = False

    @contextlib.contextmanager
    def place(self) -> Iterator[Opener]:
        yield from ()
        raise NotImplementedError

    def on(self, play: Callable[[Stage], Awaitable[None]], limits: Limits = SMALL) -> None:
        """Run a test on a new store."""

        async def main(opener: Opener) -> None:
            async with Stage(opener, limits, durable=self.durable) as stage:
                await play(stage)

        with self.place() as opener:
            run(main(opener))

    @given(history=steps, limits=limits)
    @random_history
    def test_every_client_sees_every_change_of_its_selection_once_and_in_order(self, history: list[Step], limits: Limits) -> None:
        async def play(stage: Stage) -> None:
            await Player(stage).play(history)
            event(f"events: {sum(sum(client.seen.values()) for client in stage.clients) // 50 * 50}")
            event(f"cut inside a revision: {any(client.torn for client in stage.clients)}")
            event(f"left the live ones: {min(stage.count('watch_lagging_total'), 5)}")

        self.on(play, limits)

    # --- one property at a time ---

    def test_a_place_from_before_a_restart_is_still_good(self) -> None:
        async def play(stage: Stage) -> None:
            await stage.add(stage.said("create", "a", project="p1"))
            await stage.truth.learn(stage.store)
            client = stage.client(ADMIN_PORTS)
            client.list(stage.store.head)
            revisions = []
            for number in range(5):
                stage.connect(client)
                revisions.append(await stage.add(stage.said("update", "a", fields={"size": number})))
                await stage.caught_up()
                await stage.restart()
                revisions.append(await stage.add(stage.said("update", "a", fields={"size": number, "status": f"S{number}"})))
            await stage.check()
            assert client.seen["MODIFIED"] == len(revisions)
            assert revisions == sorted(set(revisions))

        self.on(play)

    def test_a_revision_that_is_still_to_come_is_waited_for(self) -> None:
        async def play(stage: Stage) -> None:
            client = stage.client(ADMIN_PORTS)
            await stage.truth.learn(stage.store)
            client.list(stage.store.head)
            client.place = stage.store.head + 1
            stage.connect(client)
            await rest()
            await stage.add(stage.said("create", "a", project="p1"))
            await stage.truth.learn(stage.store)
            client.list(stage.store.head)
            await stage.add(stage.said("update", "a", fields={"size": 1}))
            await stage.check()
            assert client.seen == {"MODIFIED": 1}

        self.on(play)

    def test_a_revision_that_never_comes_is_expired_after_three_seconds(self) -> None:
        async def play(stage: Stage) -> None:
            client = stage.client(ADMIN_PORTS)
            client.begun, client.place = True, stage.store.head + 5
            stage.connect(client)
            await advance(2.9)
            assert client.task is not None
            assert not client.task.done()
            await advance(0.2)
            with pytest.raises(Expired, match="future"):
                await client.task
            client.task = None

        self.on(play)

    def test_a_place_that_retention_has_passed_is_expired_also_while_catching_up(self) -> None:
        async def play(stage: Stage) -> None:
            await stage.truth.learn(stage.store)
            behind, new = stage.client(ADMIN_PORTS), stage.client(ADMIN_PORTS)
            behind.list(stage.store.head)
            new.list(stage.store.head)
            stage.connect(behind, socket=Socket(open_=False))
            # More than a watcher reads from the store at a time.
            many = [stage.news(stage.said("create", f"{number}")) for number in range(2 * READ_CHANGES)]
            await stage.store.append(many)
            assert behind.socket is not None
            while not behind.socket.unsent:
                await rest()
            assert behind.watcher is not None
            assert not behind.watcher.live
            await stage.truth.learn(stage.store)
            while await stage.store.retain(horizon=stage.clock.now_us() + 1, most=1000):
                pass
            stage.connect(new)
            await stage.add(stage.said("create", "later"))
            behind.socket.flow()
            for client in (behind, new):
                assert client.task is not None
                with pytest.raises(Expired):
                    await client.task
                client.task = None
            # What came before is right all the same.
            behind.read(clean=True)
            assert 0 < behind.seen["ADDED"] < len(many)

        self.on(play, msgspec.structs.replace(SMALL, ring_bytes=1))

    def test_tenants_see_nothing_of_what_leaves_them(self) -> None:
        """A move, a flip of `shared` and a deletion under another project: gone with what was seen, never with what is new."""

        async def play(stage: Stage) -> None:
            mine = View(Scope(projects=frozenset({"p1"})), "Port", "", None, WISHES[0])
            client, other = stage.client(mine), stage.client(ADMIN_PORTS)
            await stage.truth.learn(stage.store)
            for one in (client, other):
                one.list(stage.store.head)
                stage.connect(one)
            for id_ in ("moved", "gone"):
                await stage.add(stage.said("create", id_, project="p1", fields={"name": "seen"}, admin={ADMINS_ONLY: "h1"}))
            await stage.add(stage.said("create", "lent", project="p2", shared=True, fields={"name": "seen"}))
            await stage.add(stage.said("update", "moved", project="p2", fields={"name": "hidden"}))
            await stage.add(stage.said("update", "lent", shared=False, fields={"name": "hidden"}))
            await stage.add(stage.said("delete", "gone", project="p2", fields={"name": "hidden"}))
            await stage.arrive()
            assert client.socket is not None
            data = bytes(client.socket.got)
            assert data.count(b'"DELETED"') == data.count(b'"ADDED"') == 3
            assert b"hidden" not in data
            assert b"h1" not in data
            await stage.check()
            assert client.mirror == {}

        self.on(play)
