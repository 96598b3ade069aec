"""The log in memory: the same promises as SQLite but durability. For tests and for trying things out.

Entries come in from `engine/ingest.py`; `engine/watch.py` follows. Everything happens in the event loop.
"""

from __future__ import annotations

import asyncio
import bisect
import logging
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase

from vedette.errors import Conflict, Expired, NotFound, StoreUnavailable
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.model.change import Change, Object, Version
from vedette.model.delivery import Cursor, Delivery, Outcome, State, Work
from vedette.model.entry import Entry, NewEntry
from vedette.model.fold import Held, apply, bare
from vedette.model.notice import Notice
from vedette.model.reading import Key
from vedette.ports import Appended, Page, Scope, Selection, Stats
from vedette.store._work import MemoryWork

log = logging.getLogger("vedette.store.memory")


class MemoryStore:
    """See `ports.Store`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._head = self._oldest = clock.now_us()
        self._log: list[Appended] = []
        self._seen: dict[tuple[str, str, int], int] = {}
        self._held: dict[Key, Held] = {}
        self._history: dict[Key, list[Change]] = {}
        self._followers: list[Callable[[Sequence[Appended]], None]] = []
        self._folded = asyncio.Event()
        self._bytes = 0
        self._last_at = 0
        self._closed = False
        self._work = MemoryWork()

    @property
    def head(self) -> int:
        return self._head

    @property
    def oldest(self) -> int:
        return self._oldest

    async def append(
        self, entries: Sequence[NewEntry], expect: Mapping[Key, int] | None = None, work: Sequence[Work] = ()
    ) -> Sequence[int | None]:
        self._check_open()
        for key, revision in (expect or {}).items():
            held = self._held.get(key)
            now = 0 if held is None or held.state.deleted else held.state.revision
            if now != revision:
                raise Conflict(f"{key.kind} {key.id} is at {now}, not at {revision}")
        now_us = self._now()
        revisions: list[int | None] = []
        appended: list[Appended] = []
        for new in entries:
            if _seen_id(new.notice) in self._seen:
                revisions.append(None)
                continue
            revision = self._head + 1
            appended.append(self._fold(Entry(revision, now_us, new.notice, new.readings)))
            revisions.append(revision)
        self._work.write(work)
        self._publish(appended)
        return revisions

    async def adopt(self, entries: Sequence[Entry]) -> None:
        self._check_open()
        self._publish([self._fold(entry) for entry in entries if entry.revision > self._head])

    async def wait_folded(self, revision: int) -> None:
        self._check_open()
        while self._head < revision:
            self._folded.clear()
            await self._folded.wait()
            self._check_open()

    async def get(self, key: Key, scope: Scope) -> Version:
        self._check_open()
        held = self._held.get(key)
        if held is None or held.state.deleted or held.version is None or not scope.sees(held.version):
            raise NotFound(f"{key.kind} {key.id} not found")
        return held.version

    async def held(self, keys: Sequence[Key]) -> Sequence[Object | None]:
        self._check_open()
        return [held.state if (held := self._held.get(key)) is not None else None for key in keys]

    async def objects(
        self, selection: Selection, *, revision: int = 0, after: tuple[str, str] | None = None, limit: int = 500
    ) -> Page:
        at = revision or self._head
        self._check_place(at)
        items: list[tuple[Key, Version]] = []
        for key in sorted(self._history, key=lambda k: (k.source, k.id, k.group, k.kind)):
            if after is not None and (key.source, key.id) <= after:
                continue
            past = self._history[key]
            index = bisect.bisect_right(past, at, key=lambda change: change.revision)
            if index == 0 or past[index - 1].verb == "DELETED":
                continue
            version = past[index - 1].now
            if selection.holds(key, version):
                # Never between two kinds' objects of one id: the next page starts after the id.
                if len(items) >= limit and (last := items[-1][0]) and (last.source, last.id) != (key.source, key.id):
                    return Page(at, items, (last.source, last.id))
                items.append((key, version))
        return Page(at, items, None)

    async def changes(self, after: int, *, selection: Selection, limit: int = 500) -> tuple[Sequence[Change], int]:
        self._check_place(after)
        found: list[Change] = []
        for one in self._log[self._index(after) :]:
            concerned = [change for change in one.changes if selection.concerns(change)]
            if concerned and found and len(found) >= limit:
                return found, found[-1].revision  # never half an entry
            found += concerned
        return found, self._head

    async def entries(
        self,
        after: int,
        *,
        types: Sequence[str] = (),
        source: str = "",
        selection: Selection | None = None,
        limit: int = 500,
        before: int = 0,
    ) -> tuple[Sequence[Appended], int]:
        self._check_place(after)
        found: list[Appended] = []
        for one in self._log[self._index(after) :]:
            notice = one.entry.notice
            if before and one.entry.revision > before:
                return found, max(after, before)
            if source and notice.source != source:
                continue
            if types and not any(fnmatchcase(notice.event_type, pattern) for pattern in types):
                continue
            if selection is not None and not selection.tells(one):
                continue
            found.append(one)
            if len(found) >= limit:
                return found, one.entry.revision
        return found, max(after, min(before, self._head)) if before else self._head

    async def revision_at(self, when: int) -> int:
        index = bisect.bisect_left(self._log, when, key=lambda one: one.entry.appended_at)
        return self._log[index - 1].entry.revision if index else self._oldest

    async def cursors(self) -> Mapping[str, Cursor]:
        self._check_open()
        return dict(self._work.cursors)

    async def deliveries(
        self,
        *,
        handler: str = "",
        outcomes: Sequence[Outcome] = (),
        revision: int = 0,
        after: tuple[int, str, int] = (0, "", 0),
        limit: int = 1000,
    ) -> Sequence[Delivery]:
        self._check_open()
        return self._work.deliveries(handler, outcomes, revision, after, limit)

    async def state(self, owner: str, space: str, key: str = "") -> Sequence[State]:
        self._check_open()
        return self._work.state(owner, space, key)

    async def projects(self) -> Sequence[str]:
        live = (held.state.project for held in self._held.values() if not held.state.deleted)
        return sorted({project for project in live if project})

    def follow(self, wake: Callable[[Sequence[Appended]], None]) -> Callable[[], None]:
        def told(appended: Sequence[Appended]) -> None:  # one of its own each time: the same function may follow twice
            wake(appended)

        self._followers.append(told)
        return lambda: self._followers.remove(told) if told in self._followers else None

    async def retain(self, *, horizon: int, max_bytes: int = 0, most: int = 1000) -> int:
        going = 0
        needed = self._work.held_from()
        while going < min(most, len(self._log)):
            one = self._log[going]
            old = one.entry.appended_at < horizon and (needed is None or one.entry.revision < needed)
            if not old and not (max_bytes and self._bytes > max_bytes):
                break
            going += 1
            self._bytes -= _size(one)
            self._oldest = one.entry.revision
            dedup = _seen_id(one.entry.notice)
            if self._seen[dedup] == one.entry.revision:
                del self._seen[dedup]
            for reading in one.entry.readings:  # tombstones of things never seen live as long as the log
                key = Key(one.entry.notice.source, reading.group, reading.kind, reading.id)
                held = self._held.get(key)
                if held is not None and held.version is None and held.state.revision <= one.entry.revision:
                    del self._held[key]
            for change in one.changes:
                past = self._history[change.key]
                while past[0].revision < change.revision:  # what stood before a change goes with it
                    past.pop(0)
                if change.verb == "DELETED" and len(past) == 1:
                    del self._history[change.key]
                    del self._held[change.key]
        del self._log[:going]
        self._work.forget_settled(self._oldest)
        return going

    async def stats(self) -> Stats:
        live = sum(1 for held in self._held.values() if not held.state.deleted)
        return Stats(entries=len(self._log), objects=live, bytes=self._bytes, oldest=self._oldest, head=self._head)

    async def close(self) -> None:
        self._closed = True
        self._followers.clear()
        self._folded.set()

    # --- inside ---

    def _now(self) -> int:
        """The wall clock, but never back: retention and `since` need the order of the log."""
        return max(self._clock.now_us(), self._last_at)

    def _fold(self, entry: Entry) -> Appended:
        try:
            changes, touched = apply(entry, self._held.get)
        except Exception as why:
            told = kv(source=entry.notice.source, event_type=entry.notice.event_type, id=entry.notice.id, why=why)
            log.exception("a notice was kept, but what was read from it can't be folded", extra=told)
            entry, changes, touched = bare(entry), [], {}
        self._held.update(touched)
        for change in changes:
            self._history.setdefault(change.key, []).append(change)
        self._seen[_seen_id(entry.notice)] = entry.revision
        self._head = entry.revision
        self._last_at = entry.appended_at
        one = Appended(entry, tuple(changes))
        self._log.append(one)
        self._bytes += _size(one)
        return one

    def _publish(self, appended: Sequence[Appended]) -> None:
        if appended:
            self._folded.set()
            for wake in tuple(self._followers):
                try:
                    wake(appended)
                except Exception:
                    log.exception("a follower failed; the others and the writers go on")

    def _index(self, after: int) -> int:
        return bisect.bisect_right(self._log, after, key=lambda one: one.entry.revision)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

    def _check_place(self, revision: int) -> None:
        self._check_open()
        if not self._oldest <= revision <= self._head:
            raise Expired(f"revision {revision} is not in the log ({self._oldest} to {self._head}): list again")


def _seen_id(notice: Notice) -> tuple[str, str, int]:
    """As in SQLite: the id, and the second in which it was sent."""
    return notice.source, notice.id, min(max(notice.sent_at // 1_000_000, 0), 0xFFFFFFFF)


def _size(one: Appended) -> int:
    return len(one.entry.notice.payload) + sum(len(change.now.body) for change in one.changes)
