"""Everybody who follows the log over a socket: catch up, then live, never in each other's way.

Commits come in from the store (`follow`); bytes go out to transports that `api/` hands over. A watcher is a position and a
socket. Watchers that want the same (selection, selector, form, scope) are a *group*: what a commit produced is matched and
encoded once per group and written, joined, to every member by one broadcaster. A member whose socket is full leaves the group,
keeps its position and comes back through the ring of recent entries, or from the store when the ring has gone by. Nobody
waits for it.

Limits: unsent bytes of one watcher stay under `max_buffer_bytes`; one whose socket takes nothing for `stall_timeout` is cut and
can resume; above `max_watchers` a new one gets TooBusy. The ring holds `ring_bytes`.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import enum
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol, cast

import msgspec

from vedette.engine.conditions import Condition, View
from vedette.errors import Expired, TooBusy
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.log import kv
from vedette.kit.tasks import closable
from vedette.kit.telemetry import Telemetry
from vedette.model.change import Change, Version
from vedette.model.fold import is_whole, place_of, restamp
from vedette.model.reading import Key
from vedette.model.selector import SOURCE_LABEL, Selector
from vedette.ports import Appended, Scope, Selection, Store

log = logging.getLogger("vedette.engine.watch")

SLICE_SECONDS = 0.002
"""How long matching may hold the loop before somebody else gets a turn."""
WRITE_SECONDS = 0.010
"""The same for writing to many sockets: one event to 10,000 watchers takes about 75 ms."""
FUTURE_GRACE_SECONDS = 3.0
"""A client that asks for a revision we don't have yet may have read it from elsewhere a moment ago; then it is Expired."""


READ_CHANGES = 200
"""How many changes a watcher that is far behind reads from the store at a time."""


class Limits(msgspec.Struct, frozen=True):
    bookmark_seconds: float = 15.0
    max_watchers: int = 10_000
    max_buffer_bytes: int = 256 * 1024
    stall_timeout: float = 60.0
    ring_bytes: int = 64 * 1024 * 1024


class Transport(Protocol):
    """The part of asyncio's WriteTransport that the broadcaster uses."""

    def write(self, data: bytes | bytearray | memoryview) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...
    def is_closing(self) -> bool: ...
    def abort(self) -> None: ...


class Form(msgspec.Struct, frozen=True):
    """How an event looks on the wire. Equal names are the same form."""

    name: str
    event: Callable[[str, Key, bytes], bytes]
    """(ADDED|MODIFIED|DELETED, key, the object's JSON in the form the caller may see) → a line."""
    bookmark: Callable[[int, bool], bytes]
    """(revision, initial events end here) → a line."""


class Ended(enum.Enum):
    """Why a watch is over."""

    TIMEOUT = "its timeoutSeconds passed"
    SHUTDOWN = "the service stops"
    STALLED = "its socket took nothing for too long"
    REVOKED = "its rights ended"


class Feed(Protocol):
    """What a group follows. Equal keys share a group."""

    @property
    def key(self) -> tuple[Any, ...]: ...

    @property
    def selection(self) -> Selection: ...

    def lines(self, appended: Appended, memo: Memo) -> bytes:
        """What this entry means to the group; b"" for nothing."""
        ...

    def bookmark(self, revision: int, initial_end: bool = False) -> bytes: ...

    async def read(self, store: Store, after: int) -> tuple[bytes, int]:
        """The lines from the log, when the ring has gone by; and up to where that is complete. Raises Expired."""
        ...


class _Look(msgspec.Struct, frozen=True):
    """What a selector looks at of one state."""

    name: str
    namespace: str
    labels: dict[str, str]
    served: dict[str, Any]

    def fields(self, selector: Selector) -> Mapping[str, Any]:
        """Where its paths start."""
        if selector.whole:
            return self.served
        status = self.served.get("status")
        return status if isinstance(status, dict) else {}  # another API server's may be anything


class Memo:
    """What was worked out for one entry already, shared by all groups: what selectors look at, and encoded lines.

    Keyed by the identity of a Version: those of one entry live as long as its memo.
    """

    __slots__ = ("_lines", "_looks", "_views")

    def __init__(self) -> None:
        self._views: dict[Scope, tuple[View, ...]] = {}
        self._looks: dict[tuple[int, bool], _Look] = {}
        self._lines: dict[tuple[Any, ...], bytes] = {}

    def look(self, key: Key, version: Version, admin: bool) -> _Look:
        """What a selector looks at, in the form the caller sees; decoded once."""
        found = self._looks.get((id(version), admin))
        if found is None:
            served = msgspec.json.decode(version.admin_form() if admin else version.tenant_form())
            labels = {SOURCE_LABEL: key.source}
            if is_whole(version):
                # Theirs are as they are at the origin; the source can be asked for all the same, though none of them says it.
                theirs = served["metadata"].get("labels")
                if isinstance(theirs, dict):
                    labels |= {name: value for name, value in theirs.items() if isinstance(value, str)}
            found = self._looks[id(version), admin] = _Look(*place_of(key, version), labels, served)
        return found

    def views(self, appended: Appended, scope: Scope, payload: Callable[[msgspec.Raw], bytes]) -> tuple[View, ...]:
        """The entry as a filter sees it in the form of one caller: with each change that is shown to it, or bare."""
        found = self._views.get(scope)
        if found is None:
            changes: list[Change | None] = [change for change in appended.changes if scope.sees(change.now)]
            found = tuple(
                View(appended, change, scope=scope, payload=None if scope.admin else payload) for change in changes or [None]
            )
            self._views[scope] = found
        return found

    def line(self, form: Form, verb: str, key: Key, version: Version, admin: bool) -> bytes:
        name = (form.name, verb, id(version), admin)
        found = self._lines.get(name)
        if found is None:
            body = version.admin_form() if admin else version.tenant_form()
            found = self._lines[name] = form.event(verb, key, body)
        return found

    def left(self, form: Form, key: Key, before: Version, revision: int, admin: bool) -> bytes:
        """DELETED with the content that the caller could see, under the revision at which it left."""
        name = (form.name, "left", id(before), admin)
        found = self._lines.get(name)
        if found is None:
            gone = restamp(before, revision)
            found = self._lines[name] = form.event("DELETED", key, gone.admin_form() if admin else gone.tenant_form())
        return found


class ChangeFeed:
    """Objects: ADDED, MODIFIED, DELETED as one caller sees them through one selector."""

    def __init__(self, selection: Selection, selector: Selector, form: Form) -> None:
        self.selection = selection
        self.selector = selector
        self.form = form
        self.admin = selection.scope.admin
        self.key = ("changes", selection, selector, form.name)

    def tags(self) -> Iterable[tuple[str, ...]]:
        """Where in the broadcaster's index its selection is found."""
        selection, scope = self.selection, self.selection.scope
        kind = (selection.group, selection.kind)
        if scope.admin:
            return [("all", *kind)] if selection.project is None else [("project", selection.project, *kind)]
        wanted: list[tuple[str, ...]] = [("shared", *kind)]
        projects = scope.projects if selection.project is None else scope.projects & {selection.project}
        wanted += [("project", project, *kind) for project in projects if project]
        if scope.user:
            wanted.append(("owner", scope.user, *kind))
        return wanted

    def lines(self, appended: Appended, memo: Memo) -> bytes:
        found = b""
        for change in appended.changes:
            found += self.line(change, memo)
        return found

    def line(self, change: Change, memo: Memo) -> bytes:
        """What this change means to one caller; b"" for nothing."""
        now, before, key = change.now, change.before, change.key
        is_in = self.selection.holds(key, now)
        was_in = before is not None and self.selection.holds(key, before)
        return self.told(change, is_in, was_in, memo) if is_in or was_in else b""

    def told(self, change: Change, is_in: bool, was_in: bool, memo: Memo) -> bytes:
        """The event of a change whose states the selection holds or not; the selector is asked here.

        Entering is ADDED; leaving is DELETED with the content that was seen, under the change's revision.
        """
        now, before, key = change.now, change.before, change.key
        selectable = is_in
        if not self.selector.everything:
            is_in = is_in and self._matches(key, now, memo)
            was_in = was_in and before is not None and self._matches(key, before, memo)
        if before is None or not was_in:
            return memo.line(self.form, "ADDED", key, now, self.admin) if is_in and change.verb != "DELETED" else b""
        if change.verb == "DELETED":
            # The notice of a deletion may name another project than the one under which the caller knows the object.
            if selectable and now.project == before.project:
                return memo.line(self.form, "DELETED", key, now, self.admin)
            return memo.left(self.form, key, before, change.revision, self.admin)
        if is_in and (now.project == before.project or place_of(key, now) == place_of(key, before)):
            return memo.line(self.form, "MODIFIED", key, now, self.admin)
        left = memo.left(self.form, key, before, change.revision, self.admin)
        # Another namespace is another name in Kubernetes: gone there, new here.
        return left + memo.line(self.form, "ADDED", key, now, self.admin) if is_in else left

    def holds(self, key: Key, version: Version, memo: Memo) -> bool:
        return self.selection.holds(key, version) and (self.selector.everything or self._matches(key, version, memo))

    def _matches(self, key: Key, version: Version, memo: Memo) -> bool:
        look = memo.look(key, version, self.admin)
        return self.selector.matches(look.name, look.namespace, look.labels, look.fields(self.selector))

    def bookmark(self, revision: int, initial_end: bool = False) -> bytes:
        return self.form.bookmark(revision, initial_end)

    async def read(self, store: Store, after: int) -> tuple[bytes, int]:
        changes, upto = await store.changes(after, selection=self.selection, limit=READ_CHANGES)
        return b"".join([self.line(change, Memo()) for change in changes]), upto


class Filter(msgspec.Struct, frozen=True):
    """A condition on notices. It is asked of what the caller is shown: of a notice with several changes, one has to fit."""

    condition: Condition
    payload: Callable[[msgspec.Raw], bytes]
    """What tenants see of a payload."""


class NoticeFeed:
    """The notices themselves (`/v1/events`, WEaaS' raw format)."""

    def __init__(
        self, name: str, selection: Selection, types: tuple[str, ...], render: Callable[[Appended], bytes],
        bookmark: Callable[[int], bytes], filter_: Filter | None = None,
    ) -> None:  # fmt: skip
        self.selection = selection
        self.types = types
        self.render = render
        self._bookmark = bookmark
        self._wanted = _matcher(types)
        self._filter = filter_
        self.key = ("notices", name, selection, types, filter_.condition.text if filter_ is not None else "")

    def lines(self, appended: Appended, memo: Memo) -> bytes:
        if not self._wanted(appended.entry.notice.event_type) or not self.selection.tells(appended):
            return b""
        return self.told(appended, memo)

    def told(self, appended: Appended, memo: Memo | None = None) -> bytes:
        """The line of an entry that type and selection let through; b"" when the filter does not."""
        wanted = self._filter
        if wanted is not None:
            views = (memo or Memo()).views(appended, self.selection.scope, wanted.payload)
            if not any(wanted.condition.holds(view) for view in views):
                return b""
        return self.render(appended)

    async def told_all(self, found: Sequence[Appended]) -> bytes:
        """The same of many, without holding the loop: a filter may take its time."""
        parts = []
        until = time.perf_counter() + SLICE_SECONDS
        for one in found:
            parts.append(self.told(one))
            if time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_SECONDS
        return b"".join(parts)

    def bookmark(self, revision: int, initial_end: bool = False) -> bytes:
        return self._bookmark(revision)

    async def read(self, store: Store, after: int) -> tuple[bytes, int]:
        found, upto = await store.entries(after, types=self.types, selection=self.selection, limit=READ_CHANGES)
        return await self.told_all(found), upto


class Watcher:
    """A position and a socket."""

    __slots__ = (
        "base", "bookmarks", "chunked", "drain", "ended", "feed", "live", "owner", "position", "since", "taken", "transport",
        "wake",
    )  # fmt: skip

    def __init__(
        self,
        feed: Feed,
        transport: Transport,
        drain: Callable[[], Awaitable[None]],
        *,
        chunked: bool,
        bookmarks: bool,
        owner: str,
    ) -> None:
        self.feed = feed
        self.transport = transport
        self.drain = drain
        self.chunked = chunked
        self.bookmarks = bookmarks
        self.owner = owner
        self.position = 0
        self.live = False
        self.ended: Ended | None = None
        self.wake: asyncio.Future[None] | None = None
        self.base = 0
        """What its group had been written when its socket had taken nothing of it yet."""
        self.taken = 0
        """Bytes that its socket had taken when it was last seen to take some, at `since`."""
        self.since = 0.0

    def end(self, why: Ended) -> None:
        """Ask the watch to finish; its own coroutine does it."""
        if self.ended is None:
            self.ended = why
        self.poke()

    def poke(self) -> None:
        if self.wake is not None and not self.wake.done():
            self.wake.set_result(None)


class _Group:
    """Watchers that get the same bytes."""

    __slots__ = ("chunked", "feed", "live", "plain")

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.live: dict[Watcher, None] = {}
        self.plain = self.chunked = 0
        """Bytes written to each member so far, without and with the framing: what a member's socket took follows from it
        and from what is unsent, and costs nothing per delivery."""


class _Audience:
    """Groups with one selection, whatever their selectors and forms: asked once whether a change concerns them.

    Groups whose selector wants a field to equal a text (`status.network_id=…`, the usual one) are found by that text.
    """

    __slots__ = ("admin", "by_field", "count", "rest", "selection", "tags")

    def __init__(self, selection: Selection, tags: tuple[tuple[str, ...], ...]) -> None:
        self.selection = selection
        self.tags = tags
        self.admin = selection.scope.admin
        self.count = 0
        self.rest: dict[_Group, None] = {}
        self.by_field: dict[str, dict[str, dict[_Group, None]]] = {}

    def add(self, group: _Group, selector: Selector) -> None:
        self.count += 1
        term = _wanted_text(selector)
        if term is None:
            self.rest[group] = None
        else:
            self.by_field.setdefault(term[0], {}).setdefault(term[1], {})[group] = None

    def remove(self, group: _Group, selector: Selector) -> None:
        self.count -= 1
        term = _wanted_text(selector)
        if term is None:
            del self.rest[group]
            return
        field, text = term
        del self.by_field[field][text][group]
        if not self.by_field[field][text]:
            del self.by_field[field][text]
        if not self.by_field[field]:
            del self.by_field[field]

    def candidates(self, change: Change, is_in: bool, was_in: bool, memo: Memo) -> Iterable[_Group]:
        """The groups whose selector may hold before or after the change; it is still asked."""
        if not self.by_field:
            return self.rest
        found = dict(self.rest)
        for version, concerned in ((change.now, is_in), (change.before, was_in)):
            if version is None or not concerned:
                continue
            status = memo.look(change.key, version, self.admin).served.get("status")
            for field, by_text in self.by_field.items():
                value = status.get(field) if isinstance(status, dict) else None
                if isinstance(value, str):
                    found.update(by_text.get(value, {}))
                else:  # lists, numbers, null: the selector knows what equals them
                    for groups in by_text.values():
                        found.update(groups)
        return found


def _wanted_text(selector: Selector) -> tuple[str, str] | None:
    """(field under `status`, text). Selectors of whole objects are asked one by one."""
    if selector.whole:
        return None
    return next(((term.path[0], term.value) for term in selector.status if term.equal and len(term.path) == 1), None)


class Hub:
    """The one broadcaster, and the way in for every watch."""

    def __init__(self, store: Store, limits: Limits, telemetry: Telemetry, clock: Clock | None = None) -> None:
        self._store = store
        self._clock = clock or SystemClock()
        self.limits = limits
        self.position = store.head
        """Everything up to here is matched: a watcher that joins must stand here."""
        self.served = store.head
        """Everything up to here was written to every live watcher."""
        self._ring: list[Appended] = []
        self._ring_starts = store.head
        self._ring_bytes = 0
        self._next = 0
        self._groups: dict[tuple[Any, ...], _Group] = {}
        self._audiences: dict[Selection, _Audience] = {}
        self._index: dict[tuple[str, ...], dict[_Audience, None]] = {}
        self._notices: dict[_Group, None] = {}
        self._watchers: set[Watcher] = set()
        self._streams: Counter[str] = Counter()
        """Watches per owner: counted, since 10,000 that come back at once each ask."""
        self._followed: Counter[Selection] = Counter()
        self.on_followed: list[Callable[[], None]] = []
        """Called when `followed` says something else than before."""
        self._woken = asyncio.Event()
        self._ahead: set[Watcher] = set()
        """Watchers that wait for `position` to come up to theirs."""
        self._left = asyncio.Event()
        """Set when a watch has ended."""
        self._closing = False
        self._stop_following: Callable[[], None] | None = None
        self._delivered = telemetry.counter("watch_events_total", "Events written to watchers, one per event and watcher")
        self._sent = telemetry.counter("watch_bytes_total", "Bytes written to watchers")
        self._lagged = telemetry.counter("watch_lagging_total", "Times a watcher's socket was full and it left the live group")
        self._cut = telemetry.counter("watch_cut_total", "Watchers cut because their socket took nothing")
        telemetry.gauge("watchers", "Open watches").set_function(lambda: len(self._watchers))
        telemetry.gauge("watchers_lagging", "Watchers that catch up").set_function(
            lambda: sum(1 for watcher in self._watchers if not watcher.live)
        )
        telemetry.gauge("watch_groups", "Groups of watchers that want the same").set_function(lambda: len(self._groups))
        telemetry.gauge("watch_position", "Revision up to which live watchers were served").set_function(lambda: self.served)

    async def run(self) -> None:
        """Broadcast until cancelled. After an error it may be run again: nobody misses what came in between."""
        self._begin()
        try:
            next_bookmark = self._clock.monotonic() + self.limits.bookmark_seconds
            while True:
                # (Never asyncio.wait_for here: up to Python 3.11 it swallows a cancellation that comes as the waiting ends.)
                with contextlib.suppress(TimeoutError):  # time for the bookmarks
                    async with asyncio.timeout(max(0.0, next_bookmark - self._clock.monotonic())):
                        await self._woken.wait()
                self._woken.clear()
                while self._next < len(self._ring):
                    if self._ring_bytes > 2 * self.limits.ring_bytes:
                        self._trim()
                        if self._ring_bytes > 2 * self.limits.ring_bytes:
                            self._overrun()
                            break
                    await self._broadcast()
                self._trim()
                if self._clock.monotonic() >= next_bookmark:
                    next_bookmark = self._clock.monotonic() + self.limits.bookmark_seconds
                    await self._bookmarks()
        finally:
            if self._stop_following is not None:
                self._stop_following()

    def close(self) -> None:
        """End every watch cleanly; new ones are refused."""
        self._closing = True
        for watcher in self._watchers:
            watcher.end(Ended.SHUTDOWN)

    async def emptied(self) -> None:
        """Return when no watch is open."""
        while self._watchers:
            self._left.clear()
            await self._left.wait()

    def end(self, owner: str, why: Ended) -> None:
        """End all watches of one token."""
        for watcher in self._watchers:
            if watcher.owner == owner:
                watcher.end(why)

    def followed(self) -> Collection[Selection]:
        """What open watches wait for, each selection once. Whoever follows everything (all kinds) waits for nothing in
        particular."""
        return self._followed.keys()

    def _follows(self, watcher: Watcher, by: int) -> None:
        selection = watcher.feed.selection
        if not selection.kind:
            return
        was = self._followed[selection]
        self._followed[selection] += by
        if not self._followed[selection]:
            del self._followed[selection]
        if not was or was + by == 0:
            for told in tuple(self.on_followed):
                told()

    @property
    def watchers(self) -> int:
        return len(self._watchers)

    def streams(self, owner: str) -> int:
        return self._streams[owner]

    def check_room(self) -> None:
        """Before an answer has begun: raises TooBusy."""
        if self._closing:
            raise TooBusy("the service is stopping", delay=1)
        if len(self._watchers) >= self.limits.max_watchers:
            raise TooBusy(f"{self.limits.max_watchers} watches are open (watch.max_watchers)", delay=5)

    async def check_place(self, after: int) -> None:
        """Raises Expired when one can't follow from here; waits a moment for a revision that is still to come."""
        if after > self._store.head:
            try:
                async with asyncio.timeout(FUTURE_GRACE_SECONDS):
                    await self._store.wait_folded(after)
            except TimeoutError:
                raise Expired(f"revision {after} is in the future (the newest is {self._store.head}): list again") from None
        if after < self._store.oldest:
            raise Expired(f"too old resource version: {after} ({self._store.oldest})")

    async def serve(
        self, watcher: Watcher, *, after: int, initial: AsyncIterator[bytes] | None = None, timeout: float | None = None
    ) -> Ended:
        """Follow from `after` until something ends it. `initial` (the state as of `after`) is sent first.

        Raises Expired (the place is gone; the caller says so on the wire) and ConnectionError (the client is gone).
        """
        limit = self.limits.max_buffer_bytes
        watcher.transport.set_write_buffer_limits(high=limit // 4)
        watcher.position = after
        deadline = None if timeout is None else self._clock.monotonic() + timeout
        # Counted from here on, also while it waits for its place: no await lies between `check_room` and this.
        self._watchers.add(watcher)
        self._streams[watcher.owner] += 1
        self._follows(watcher, 1)
        try:
            if self._closing:
                watcher.end(Ended.SHUTDOWN)
            else:
                await self.check_place(after)
            if initial is not None and not self._is_over(watcher, deadline):
                async with contextlib.aclosing(closable(initial)) as parts:
                    async for part in parts:
                        await self.send(watcher, part)
                        if self._is_over(watcher, deadline):
                            break
            while not self._is_over(watcher, None):
                await self._catch_up(watcher, deadline)
                if self._is_over(watcher, None):
                    break
                if watcher.transport.is_closing():
                    raise ConnectionResetError("the client is gone")
                # No await between the last look at the position and this: nothing can slip in between.
                self._join(watcher)
                await self._asleep(watcher, deadline)
            return _why(watcher)
        finally:
            self._leave(watcher)
            self._follows(watcher, -1)
            self._watchers.discard(watcher)
            self._streams[watcher.owner] -= 1
            if not self._streams[watcher.owner]:
                del self._streams[watcher.owner]
            self._left.set()

    async def send(self, watcher: Watcher, data: bytes) -> None:
        """Write at the socket's own pace, in pieces that keep the buffer bounded. Ends the watch when nothing moves."""
        transport, limit = watcher.transport, self.limits.max_buffer_bytes
        step = max(1024, limit // 4)
        data = _chunk(data) if watcher.chunked else data
        view = memoryview(data)
        for start in range(0, len(view), step):
            piece = view[start : start + step]
            # What the broadcaster wrote before the watcher left its group may still be there.
            if transport.get_write_buffer_size() + len(piece) > limit and not await self._drained(watcher):
                return
            if transport.is_closing():
                raise ConnectionResetError("the client is gone")
            transport.write(piece)
            # What the socket took at once costs no turn of the loop.
            if transport.get_write_buffer_size() > step and not await self._drained(watcher):
                return
        self._sent.inc(len(data))

    # --- inside ---

    def _begin(self) -> None:
        """Follow the store from its head on. Watchers that were live before (the last run ended by an error) go on from the
        place up to which they were served, so what came in since is read from the store."""
        self._stop_following = self._store.follow(self._appended)
        head = self._store.head
        if self.position != head:
            for group in tuple(self._groups.values()):
                for watcher in tuple(group.live):
                    self._lag(watcher, self.position)
        self._ring.clear()
        self._ring_bytes = self._next = 0
        self._ring_starts = head
        self._move(head)
        self.served = head

    def _is_over(self, watcher: Watcher, deadline: float | None) -> bool:
        if watcher.ended is None and deadline is not None and self._clock.monotonic() >= deadline:
            watcher.end(Ended.TIMEOUT)
        return watcher.ended is not None

    async def _asleep(self, watcher: Watcher, deadline: float | None) -> None:
        """Until it is poked, or its time is over."""
        watcher.wake = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(None if deadline is None else max(0.0, deadline - self._clock.monotonic())):
                await watcher.wake
        except TimeoutError:
            watcher.end(Ended.TIMEOUT)
        finally:
            watcher.wake = None

    async def _drained(self, watcher: Watcher) -> bool:
        """Whether its socket took most of what is unsent, however slowly; False: it took nothing for too long and is cut."""
        while True:
            unsent = watcher.transport.get_write_buffer_size()
            try:
                async with asyncio.timeout(self.limits.stall_timeout):
                    await watcher.drain()
            except TimeoutError:
                if watcher.transport.get_write_buffer_size() < unsent:
                    continue  # slow is not stalled
                self._stalled(watcher)
                return False
            return True

    def _appended(self, appended: Sequence[Appended]) -> None:
        """Called by the store after each commit, in the loop."""
        self._ring.extend(appended)
        for one in appended:
            self._ring_bytes += _weight(one)
        self._woken.set()

    async def _broadcast(self) -> None:
        """Match what is next for at most 2 ms, then write it to the live members of each group, joined."""
        until = time.perf_counter() + SLICE_SECONDS
        pending: dict[_Group, list[bytes]] = {}
        was = self.position
        if not self._groups:  # nobody is live: the ring alone is kept up
            self._next = len(self._ring)
        while self._next < len(self._ring):
            appended = self._ring[self._next]
            self._next += 1
            self.match(appended, pending)
            if time.perf_counter() >= until:
                break
        # From here on a watcher that joins must have come up to this place through the ring by itself; those who are written
        # to are the ones that were live now.
        self._move(self._ring[self._next - 1].entry.revision)
        work: list[tuple[bytes, bytes, int, tuple[Watcher, ...]]] = []
        framed: dict[bytes, bytes] = {}
        for group, lines in pending.items():
            data = lines[0] if len(lines) == 1 else b"".join(lines)
            chunk = framed.get(data)
            if chunk is None:
                chunk = framed[data] = _chunk(data)
            group.plain += len(data)
            group.chunked += len(chunk)
            work.append((data, chunk, len(lines), tuple(group.live)))
        limit = self.limits.max_buffer_bytes
        until = time.perf_counter() + WRITE_SECONDS
        for data, chunk, events, watchers in work:
            size, room = len(chunk), limit - len(chunk)
            written = 0
            for watcher in watchers:
                if not watcher.live:
                    continue
                transport = watcher.transport
                try:
                    if transport.get_write_buffer_size() > room:
                        self._lag(watcher, was)
                        continue
                    transport.write(chunk if watcher.chunked else data)
                except Exception:  # noqa: BLE001 - whatever one transport says, it must not reach the others
                    self._gone(watcher)
                    continue
                written += 1
                if not written & 63 and time.perf_counter() >= until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + WRITE_SECONDS
            self._delivered.inc(written * events)
            self._sent.inc(written * size)
        self.served = self.position

    def _move(self, position: int) -> None:
        self.position = position
        for watcher in self._ahead:
            watcher.poke()

    def _overrun(self) -> None:
        """More came in than the ring may hold before it could be handed out: everybody reads it from the store instead."""
        log.warning("the ring ran over; live watchers go on from the store", extra=kv(entries=len(self._ring) - self._next))
        for group in tuple(self._groups.values()):
            for watcher in tuple(group.live):
                self._lag(watcher, self.position)
        self._ring_starts = self._ring[-1].entry.revision
        self._ring.clear()
        self._ring_bytes = self._next = 0
        self._move(self._ring_starts)
        self.served = self.position

    def match(self, appended: Appended, pending: dict[_Group, list[bytes]]) -> None:
        """Which groups an entry concerns, through the index, and what it means to each."""
        memo = Memo()
        index = self._index
        failed: list[_Group] = []
        for change in appended.changes:
            key, now, before = change.key, change.now, change.before
            found: dict[_Audience, None] = {}
            for tag in _tags_of(change):
                for name in ((*tag, key.group, key.kind), (*tag, "", "")):
                    audiences = index.get(name)
                    if audiences:
                        found.update(audiences)
            for audience in found:
                is_in = audience.selection.holds(key, now)
                was_in = before is not None and audience.selection.holds(key, before)
                if not is_in and not was_in:
                    continue
                for group in audience.candidates(change, is_in, was_in, memo):
                    try:
                        line = cast(ChangeFeed, group.feed).told(change, is_in, was_in, memo)
                    except Exception:
                        log.exception("a change can't be told to a group", extra=kv(kind=key.kind, id=key.id))
                        failed.append(group)
                        continue
                    if line:
                        pending.setdefault(group, []).append(line)
        for group in self._notices:
            try:
                line = group.feed.lines(appended, memo)
            except Exception:
                log.exception("a notice can't be told to a group", extra=kv(revision=appended.entry.revision))
                failed.append(group)
                continue
            if line:
                pending.setdefault(group, []).append(line)
        for group in failed:
            # Others go on. These come to the same place by themselves and end there with the error, each on its own stream.
            pending.pop(group, None)
            for watcher in tuple(group.live):
                self._lag(watcher, self.position)

    async def _catch_up(self, watcher: Watcher, deadline: float | None) -> None:
        """From the ring, or from the store when the ring has gone by, until it stands exactly where the live ones stand.

        Ends without giving up the loop after its last look at `position`: then the caller may join.
        """
        clock = self._clock
        said = clock.monotonic()
        while watcher.position != self.position and not self._is_over(watcher, deadline):
            if watcher.position > self.position:
                # It read from the store what the broadcaster has still to hand out; both will meet.
                self._ahead.add(watcher)
                try:
                    await self._asleep(watcher, deadline)
                finally:
                    self._ahead.discard(watcher)
                continue
            if watcher.position < self._ring_starts:
                part, upto = await watcher.feed.read(self._store, watcher.position)
                await asyncio.sleep(0)  # a store in memory never waits, nor does a socket that takes everything
            else:
                part, upto, whole = self._from_ring(watcher)
                if not whole:
                    await asyncio.sleep(0)
            if part:
                await self.send(watcher, part)
                if watcher.ended is Ended.STALLED:
                    return
                said = clock.monotonic()
            watcher.position = upto
            if watcher.bookmarks and clock.monotonic() - said >= self.limits.bookmark_seconds:
                await self.send(watcher, watcher.feed.bookmark(watcher.position))
                said = clock.monotonic()

    def _from_ring(self, watcher: Watcher) -> tuple[bytes, int, bool]:
        """The lines after its position, up to where, and whether that is all for now."""
        start = bisect.bisect_right(self._ring, watcher.position, key=lambda one: one.entry.revision)
        parts: list[bytes] = []
        size, upto = 0, watcher.position
        until = time.perf_counter() + SLICE_SECONDS
        for index in range(start, self._next):
            one = self._ring[index]
            lines = watcher.feed.lines(one, Memo())
            upto = one.entry.revision
            if lines:
                parts.append(lines)
                size += len(lines)
            if size >= 65_536 or time.perf_counter() >= until:
                break
        return b"".join(parts), upto, upto == self.position

    def _join(self, watcher: Watcher) -> None:
        feed = watcher.feed
        group = self._groups.get(feed.key)
        if group is None:
            group = self._groups[feed.key] = _Group(feed)
            if isinstance(feed, ChangeFeed):
                audience = self._audiences.get(feed.selection)
                if audience is None:
                    audience = self._audiences[feed.selection] = _Audience(feed.selection, tuple(feed.tags()))
                    for tag in audience.tags:
                        self._index.setdefault(tag, {})[audience] = None
                audience.add(group, feed.selector)
            else:
                self._notices[group] = None
        group.live[watcher] = None
        watcher.live = True
        watcher.base = (group.chunked if watcher.chunked else group.plain) - watcher.transport.get_write_buffer_size()
        watcher.taken, watcher.since = 0, self._clock.monotonic()

    def _leave(self, watcher: Watcher) -> None:
        if not watcher.live:
            return
        watcher.live = False
        feed = watcher.feed
        group = self._groups[feed.key]
        del group.live[watcher]
        if group.live:
            return
        del self._groups[feed.key]
        if not isinstance(feed, ChangeFeed):
            del self._notices[group]
            return
        audience = self._audiences[feed.selection]
        audience.remove(group, feed.selector)
        if not audience.count:
            del self._audiences[feed.selection]
            for tag in audience.tags:
                members = self._index[tag]
                del members[audience]
                if not members:
                    del self._index[tag]

    def _lag(self, watcher: Watcher, position: int) -> None:
        """Its socket is full: it leaves the group with its place and catches up at its own pace."""
        self._leave(watcher)
        watcher.position = position
        self._lagged.inc()
        watcher.poke()

    def _gone(self, watcher: Watcher) -> None:
        """Its transport raised; its own coroutine finds out next. (uvloop raises RuntimeError when the connection closed a moment
        ago; asyncio says nothing.)"""
        if not watcher.transport.is_closing():
            log.exception("a watcher's connection failed and is cut", extra=kv(position=watcher.position))
        self._leave(watcher)
        watcher.transport.abort()
        watcher.poke()

    def _stalled(self, watcher: Watcher) -> None:
        log.info(
            "cut a watcher whose socket took nothing", extra=kv(seconds=self.limits.stall_timeout, position=watcher.position)
        )
        self._cut.inc()
        watcher.end(Ended.STALLED)
        watcher.transport.abort()

    async def _bookmarks(self) -> None:
        """A place to resume from, and proof of life. In the broadcaster's own task: never ahead of an event."""
        until = time.perf_counter() + WRITE_SECONDS
        now = self._clock.monotonic()
        for group in tuple(self._groups.values()):
            line = group.feed.bookmark(self.position)
            chunk = _chunk(line)
            for watcher in tuple(group.live):
                if not watcher.live:
                    continue
                transport = watcher.transport
                try:
                    unsent = transport.get_write_buffer_size()
                    taken = (group.chunked if watcher.chunked else group.plain) - watcher.base - unsent
                    # Not the size of what is unsent: that grows, too, when a slow socket takes less than comes in.
                    if not unsent or taken > watcher.taken:
                        watcher.taken, watcher.since = taken, now
                    elif now - watcher.since >= self.limits.stall_timeout:
                        self._stalled(watcher)
                        continue
                    if watcher.bookmarks and not unsent:  # behind unsent events it would be no proof of anything
                        said = chunk if watcher.chunked else line
                        transport.write(said)
                        watcher.base -= len(said)
                except Exception:  # noqa: BLE001 - as in `_broadcast`
                    self._gone(watcher)
                if time.perf_counter() >= until:
                    await asyncio.sleep(0)
                    until = time.perf_counter() + WRITE_SECONDS

    def _trim(self) -> None:
        going = 0
        while self._ring_bytes > self.limits.ring_bytes and going < self._next:
            self._ring_bytes -= _weight(self._ring[going])
            going += 1
        if going:
            self._ring_starts = self._ring[going - 1].entry.revision
            del self._ring[:going]
            self._next -= going


def _why(watcher: Watcher) -> Ended:
    assert watcher.ended is not None
    return watcher.ended


def _tags_of(change: Change) -> Iterable[tuple[str, ...]]:
    now, before = change.now, change.before
    tags: dict[tuple[str, ...], None] = {("all",): None, ("project", now.project): None}
    for version in (now, before):
        if version is None:
            continue
        tags[("project", version.project)] = None
        if version.owner:
            tags[("owner", version.owner)] = None
        if version.shared:
            tags[("shared",)] = None
    return tags


def _chunk(data: bytes) -> bytes:
    """HTTP/1.1 chunk (RFC 9112 §7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _weight(one: Appended) -> int:
    """Bytes an entry holds on to in the ring."""
    size = 512 + len(one.entry.notice.payload)
    for change in one.changes:
        size += 512 + len(change.now.body) + (len(change.before.body) if change.before is not None else 0)
    return size


def _matcher(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Whether an event type is wanted; there are few types, so each is decided once."""
    decided: dict[str, bool] = {}

    def wanted(event_type: str) -> bool:
        found = decided.get(event_type)
        if found is None:
            if len(decided) > 10_000:  # types come from outside
                decided.clear()
            found = decided[event_type] = not patterns or any(fnmatchcase(event_type, pattern) for pattern in patterns)
        return found

    return wanted
