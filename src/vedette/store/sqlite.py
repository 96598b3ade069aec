"""The log in one SQLite file: durable when `append` returns, and nothing to install.

Entries come in from `engine/ingest.py`; `engine/watch.py` follows. One thread writes, fed by a queue: whatever arrived while the
last commit ran is the next batch (group commit), at most 1,000 entries, in one transaction: entries, changes, objects and the
place they reflect. WAL with `synchronous=FULL`: every commit is fsynced before anybody is told. Reads run on a few threads with
connections of their own and end before an answer is sent, so no read transaction waits for a client.

What happens at the limits: a full disk fails the batch with StoreUnavailable (nothing kept, the source doesn't ack and tries
again); 20,000 entries waiting for the writer do the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import logging
import os
import queue
import socket
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from vedette import __version__
from vedette.errors import (
    CannotStart,
    Conflict,
    Expired,
    NotFound,
    NotUnderstood,
    StoreForeign,
    StoreInUse,
    StoreNewer,
    StoreUnavailable,
    VedetteError,
)
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.model.change import Change, Object, Version
from vedette.model.delivery import Cursor, Delivery, Outcome, State, Work
from vedette.model.entry import Entry, NewEntry
from vedette.model.fold import Held, apply, bare, decode
from vedette.model.notice import Notice
from vedette.model.reading import Key, Reading
from vedette.ports import Appended, Page, Scope, Selection, Stats
from vedette.store import _work

log = logging.getLogger("vedette.store.sqlite")
T = TypeVar("T")

APPLICATION_ID = 0x56454454
"""`VEDT` in the file's header: how we know a store of ours."""
FILE = "vedette.db"
BATCH = 1_000
WAITING = 20_000
KEPT_FREE = 256
"""Free pages (2 MiB) that stay in the file for what comes next; or a sixteenth of the file."""
SHRINK = 1_000
"""Free pages given back at a time: about 20 ms of the writer."""
LOG_LIMIT = 128 * 1_048_576
"""Bytes of write-ahead log at which the writer waits for readers: as long as they overlap, SQLite can't begin it anew, and it
would grow without end."""
LOOKED_AT = 50_000
"""Rows a question may look at before it answers with what it has, and up to where: nobody may hold a reader for minutes."""
CACHED_OBJECTS = 8_192
"""Decoded objects the writer keeps (about 5 kB each): busy objects are folded without reading them back."""
READERS = 4


class SqliteStore:
    """See `ports.Store`. Open with `SqliteStore.open`."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        lock: int,
        migrations: Sequence[tuple[int, str]] | None = None,
        log_limit: int = LOG_LIMIT,
        pragmas: Mapping[str, int] | None = None,
    ) -> None:
        self._path = folder / FILE
        self._clock = clock
        self._loop = loop
        self._lock = lock
        self._followers: list[Callable[[Sequence[Appended]], None]] = []
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._queue: queue.SimpleQueue[_Append | _Do | None] = queue.SimpleQueue()
        self._queued = 0
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="vedette-read")
        self._reader = threading.local()
        self._reader_connections: list[sqlite3.Connection] = []
        self._write = _open_file(self._path, clock, _migrations() if migrations is None else migrations)
        for name, value in (pragmas or {}).items():
            self._write.execute(f"PRAGMA {name} = {int(value)}").fetchall()
        self._writer_state = _Writer(self._write)
        self._head = self._writer_state.head
        self._oldest = self._writer_state.oldest
        self._log_limit = self._log_due = log_limit
        self._closed = False
        self._shut: asyncio.Future[None] | None = None
        self._thread = threading.Thread(target=self._run, name="vedette-write", daemon=True)
        self._thread.start()

    @classmethod
    async def open(
        cls,
        folder: Path,
        clock: Clock,
        *,
        migrations: Sequence[tuple[int, str]] | None = None,
        log_limit: int = LOG_LIMIT,
        pragmas: Mapping[str, int] | None = None,
    ) -> SqliteStore:
        """Open the store in this folder, or make it. `migrations`: (number, SQL) in order, instead of those in sql/.
        `log_limit`: bytes, see LOG_LIMIT. `pragmas`: more of SQLite's own settings for the writer, e.g. `max_page_count`.

        Raises StoreInUse, StoreForeign (the file isn't ours or is damaged; it is not touched), StoreNewer; CannotStart when
        the folder can't be used.
        """
        loop = asyncio.get_running_loop()

        def start() -> SqliteStore:
            lock = _hold(folder)
            try:
                return cls(folder, clock, loop, lock, migrations, log_limit, pragmas)
            except OSError as why:
                os.close(lock)
                raise CannotStart(f"{folder} can't be used: {why}") from why
            except BaseException:
                os.close(lock)
                raise

        starting = asyncio.ensure_future(asyncio.to_thread(start))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread can't be stopped; what it opens must not keep the folder.
            await asyncio.wait([starting])
            if not starting.cancelled() and starting.exception() is None:
                await starting.result().close()
            raise

    @property
    def head(self) -> int:
        return self._head

    @property
    def oldest(self) -> int:
        return self._oldest

    # --- writing ---

    async def append(
        self, entries: Sequence[NewEntry], expect: Mapping[Key, int] | None = None, work: Sequence[Work] = ()
    ) -> Sequence[int | None]:
        if not entries and not expect and not work:
            return []
        return await self._submit(_Append(entries, expect, self._loop.create_future(), work))

    async def adopt(self, entries: Sequence[Entry]) -> None:
        for start in range(0, len(entries), BATCH):
            await self._submit(_Append(entries[start : start + BATCH], None, self._loop.create_future()))

    async def retain(self, *, horizon: int, max_bytes: int = 0, most: int = 1000) -> int:
        done = self._loop.create_future()
        self._put(_Do(lambda: self._retain(horizon, max_bytes, most), done))
        gone: int = await done
        return gone

    async def wait_folded(self, revision: int) -> None:
        self._check_open()
        if self._head < revision:
            waiter: asyncio.Future[None] = self._loop.create_future()
            one = (revision, waiter)
            self._waiting.append(one)
            try:
                await waiter
            finally:
                if one in self._waiting:
                    self._waiting.remove(one)

    def follow(self, wake: Callable[[Sequence[Appended]], None]) -> Callable[[], None]:
        def told(appended: Sequence[Appended]) -> None:  # one of its own each time: the same function may follow twice
            wake(appended)

        self._followers.append(told)
        return lambda: self._followers.remove(told) if told in self._followers else None

    async def close(self) -> None:
        """Finish what is queued, then let go of the folder. A second call waits for the first."""
        if self._shut is None:
            self._closed = True
            self._queue.put(None)
            self._shut = asyncio.ensure_future(asyncio.to_thread(self._let_go))
        await asyncio.shield(self._shut)
        self._followers.clear()
        for _, waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(StoreUnavailable(_CLOSED))

    def _let_go(self) -> None:
        """In a thread: readers may have a long question, and the last connection to go writes the log into the file."""
        self._thread.join()
        self._readers.shutdown(wait=True)
        for connection in self._reader_connections:
            connection.close()
        self._write.close()
        os.close(self._lock)

    # --- reading ---

    async def get(self, key: Key, scope: Scope) -> Version:
        where, values = _scope_sql(scope, "o")
        sql = (
            "SELECT c.revision, c.body, c.cut, c.project, c.shared, c.owner FROM objects o JOIN changes c ON c.seq = o.seq "
            f"WHERE o.grp = ? AND o.kind = ? AND o.source = ? AND o.id = ? AND o.deleted = 0 AND {where}"
        )
        row = await self._read(lambda db: db.execute(sql, (key.group, key.kind, key.source, key.id, *values)).fetchone())
        if row is None:
            raise NotFound(f"{key.kind} {key.id} not found")
        return _version(row)

    async def held(self, keys: Sequence[Key]) -> Sequence[Object | None]:
        def look(db: sqlite3.Connection) -> list[Object | None]:
            found: list[Object | None] = []
            for key in keys:
                row = db.execute(_OBJECT, (key.group, key.kind, key.source, key.id)).fetchone()
                found.append(None if row is None else _read_placed(key, row).held.state)
            return found

        return await self._read(look)

    async def objects(
        self, selection: Selection, *, revision: int = 0, after: tuple[str, str] | None = None, limit: int = 500
    ) -> Page:
        now = self._head  # before the snapshot is taken: a page must not claim what it can't show
        return await self._read(lambda db: self._list(db, selection, revision, now, after, limit))

    async def changes(self, after: int, *, selection: Selection, limit: int = 500) -> tuple[Sequence[Change], int]:
        end = self._head
        return await self._read(lambda db: self._changes(db, after, end, selection, limit))

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
        end = min(before, self._head) if before else self._head
        return await self._read(lambda db: self._entries(db, after, end, types, source, selection, limit))

    async def revision_at(self, when: int) -> int:
        def search(db: sqlite3.Connection) -> int:
            # appended_at never decreases along the log, so halving finds the place without an index on it.
            high = self._head
            low = min(_meta(db, "oldest"), high)  # from the snapshot: retention may just have moved it
            while low < high:
                middle = (low + high + 1) // 2
                sql = "SELECT appended_at FROM entries WHERE revision >= ? ORDER BY revision LIMIT 1"
                row = db.execute(sql, (middle,)).fetchone()
                if row is not None and row[0] < when:
                    low = middle
                else:
                    high = middle - 1
            return low

        return await self._read(search)

    async def cursors(self) -> Mapping[str, Cursor]:
        return await self._read(_work.read_cursors)

    async def deliveries(
        self,
        *,
        handler: str = "",
        outcomes: Sequence[Outcome] = (),
        revision: int = 0,
        after: tuple[int, str, int] = (0, "", 0),
        limit: int = 1000,
    ) -> Sequence[Delivery]:
        return await self._read(lambda db: _work.read_deliveries(db, handler, outcomes, revision, after, limit))

    async def state(self, owner: str, space: str, key: str = "") -> Sequence[State]:
        return await self._read(lambda db: _work.read_state(db, owner, space, key))

    async def projects(self) -> Sequence[str]:
        sql = "SELECT DISTINCT project FROM objects WHERE deleted = 0 AND project != '' ORDER BY project"
        return await self._read(lambda db: [row[0] for row in db.execute(sql)])

    async def stats(self) -> Stats:
        def count(db: sqlite3.Connection) -> Stats:
            (objects,) = db.execute("SELECT count(*) FROM objects WHERE deleted = 0").fetchone()
            entries = _meta(db, "entries")  # kept with every write: no need to count millions
            return Stats(entries=entries, objects=objects, bytes=_size(db), oldest=self._oldest, head=self._head)

        return await self._read(count)

    def size(self) -> int:
        """Bytes on disk, the write-ahead log included."""
        total = 0
        for path in self._path.parent.glob(f"{FILE}*"):
            with contextlib.suppress(FileNotFoundError):  # the -wal goes when the last connection does
                total += path.stat().st_size
        return total

    # --- the writer thread ---

    async def _submit(self, work: _Append) -> Sequence[int | None]:
        size = work.size
        if self._queued + size > WAITING and self._queued:
            raise StoreUnavailable(f"{self._queued} entries wait to be written", delay=0.2)
        self._put(work)
        self._queued += size
        # Counted until it is written, not until somebody stops waiting: who gives up and comes again must find the limit.
        work.done.add_done_callback(lambda _: self._written(size))
        return await asyncio.shield(work.done)

    def _written(self, entries: int) -> None:
        self._queued -= entries

    def _put(self, work: _Append | _Do) -> None:
        self._check_open()
        self._queue.put(work)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable(_CLOSED)

    def _run(self) -> None:
        """Take what is there, write it in one transaction, say so; until None comes."""
        after: _Append | _Do | None
        while (work := self._queue.get()) is not None:
            if isinstance(work, _Do):
                self._do(work)
                continue
            batch, count, after = [work], work.size, None
            while count < BATCH:
                try:
                    more = self._queue.get_nowait()
                except queue.Empty:
                    break
                if not isinstance(more, _Append):
                    after = more
                    if more is None:
                        self._queue.put(None)
                    break
                batch.append(more)
                count += more.size
            self._commit(batch)
            self._bound_log()
            if isinstance(after, _Do):
                self._do(after)

    def _commit(self, batch: list[_Append]) -> None:
        now = self._clock.now_us()
        count = sum(len(work.entries) for work in batch)
        try:
            appended, answers = self._writer_state.write(batch, now)
        except (*_UNFIT, ValueError, TypeError, OverflowError) as why:
            if len(batch) > 1:  # one of them can't be stored; the others can
                for work in batch:
                    self._commit([work])
                return
            log.exception("entries that can't be stored were refused", extra=kv(entries=count))
            if batch[0].entries:
                first = batch[0].entries[0].notice
                told = f"{count} entries from {first.source} ({first.event_type} {first.id!r} first) can't be stored: {why}"
            else:
                told = f"what handlers owe can't be stored: {why}"
            refused = NotUnderstood(told)
            self._call(lambda: _fail(batch, refused))
        except Exception as why:
            error = _unavailable(why, self._path)
            bug = not isinstance(why, sqlite3.Error)
            log.error("the batch was not written: %s", str(error), extra=kv(entries=count), exc_info=bug)
            self._call(lambda: _fail(batch, error))
        else:
            self._call(lambda: self._publish(appended, batch, answers))

    def _bound_log(self) -> None:
        """Begin the write-ahead log anew when it has grown too long; readers that are under way get a second to end."""
        try:
            there = os.stat(f"{self._path}-wal").st_size
            if there < self._log_due:
                return
            self._write.execute("PRAGMA busy_timeout = 1000")
            (busy, _, _) = self._write.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._log_due = there + self._log_limit // 2 if busy else self._log_limit
            self._write.execute("PRAGMA busy_timeout = 10000")
        except (OSError, sqlite3.Error, UnicodeDecodeError) as why:
            self._log_due += self._log_limit // 2
            log.warning("the write-ahead log could not be begun anew, trying again later: %s", why)

    def _do(self, work: _Do) -> None:
        try:
            result = work.work()
        except Exception as why:  # noqa: BLE001 - handed to whoever asked
            error = _unavailable(why, self._path) if not isinstance(why, VedetteError) else why
            self._call(lambda: work.done.set_exception(error) if not work.done.done() else None)
        else:
            self._call(lambda: work.done.set_result(result) if not work.done.done() else None)

    def _call(self, report: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(report)

    def _publish(
        self, appended: Sequence[Appended], batch: Sequence[_Append], answers: Sequence[Sequence[int | None] | VedetteError]
    ) -> None:
        """In the loop, after the commit: followers first, then those who wait for their own write."""
        if appended:
            self._head = appended[-1].entry.revision
            for wake in tuple(self._followers):
                try:
                    wake(appended)
                except Exception:
                    log.exception("a follower failed; the others and the writers go on")
            if self._waiting:
                due = [waiter for revision, waiter in self._waiting if revision <= self._head]
                self._waiting = [one for one in self._waiting if one[0] > self._head]
                for waiter in due:
                    if not waiter.done():
                        waiter.set_result(None)
        for work, answer in zip(batch, answers, strict=True):
            if work.done.done():
                continue
            if isinstance(answer, VedetteError):
                work.done.set_exception(answer)
            else:
                work.done.set_result(answer)

    def _retain(self, horizon: int, max_bytes: int, most: int) -> int:
        """One short transaction. A change that leaves the log takes along the state before it, and stays itself as long as it
        is an object's present state or what stood before a change still kept: so each body goes exactly once."""
        db = self._write
        # Not beyond what followers were told: `oldest` must never pass the head that they see.
        sql = "SELECT revision, appended_at, notice FROM entries WHERE revision <= ? ORDER BY revision LIMIT ?"
        rows = db.execute(sql, (self._head, most)).fetchall()
        too_big = bool(max_bytes) and _size(db) > max_bytes
        needed = None if too_big else _work.held_from(db)
        going = [row for row in rows if too_big or (row[1] < horizon and (needed is None or row[0] < needed))]
        if not going:
            self._shrink()
            return 0
        last = going[-1][0]
        try:
            db.execute("BEGIN IMMEDIATE")
            changes = db.execute(
                "SELECT seq, before, verb, grp, kind, source, id FROM changes WHERE revision > ? AND revision <= ?",
                (self._writer_state.oldest, last),
            ).fetchall()
            db.executemany("DELETE FROM changes WHERE seq = ?", [(row[1],) for row in changes if row[1] is not None])
            for seq, _, verb, *key in changes:
                if verb != "DELETED":
                    continue
                gone = db.execute(
                    "DELETE FROM objects WHERE grp = ? AND kind = ? AND source = ? AND id = ? AND seq = ? AND deleted = 1",
                    (*key, seq),
                )
                if gone.rowcount:
                    db.execute("DELETE FROM changes WHERE seq = ?", (seq,))
                    self._writer_state.forget(Key(key[2], key[0], key[1], key[3]))
            # Tombstones of things never seen have no change; they live as long as the log.
            unseen = db.execute("DELETE FROM objects WHERE deleted = 1 AND seq IS NULL AND revision <= ?", (last,))
            if unseen.rowcount:
                self._writer_state.forget_all()
            # (An adopted log may hold an id twice: what it was seen at later stays.)
            ids = [(_seen_id(_notice_head(row[2])), last) for row in going]
            db.executemany("DELETE FROM seen WHERE id = ? AND revision <= ?", ids)
            db.execute("DELETE FROM entries WHERE revision <= ?", (last,))
            _work.forget_settled(db, last)
            db.execute("UPDATE meta SET value = ? WHERE name = 'oldest'", (last,))
            db.execute("UPDATE meta SET value = value - ? WHERE name = 'entries'", (len(going),))
            db.execute("COMMIT")
        except BaseException:
            _rollback(db)
            self._writer_state.forget_all()
            raise
        self._writer_state.oldest = last
        self._call(lambda: self._moved(last))
        self._shrink()
        return len(going)

    def _shrink(self) -> None:
        """Give free pages back, a few at a time, so that a log that has shrunk shows on the disk. Some are left for the next
        entries: moving pages only to grow again would double the writing."""
        db = self._write
        (free,) = db.execute("PRAGMA freelist_count").fetchone()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        if free > max(KEPT_FREE, pages // 16):
            try:
                # executescript steps to the end; execute stops at this pragma's first row, which is one page.
                db.executescript(f"PRAGMA incremental_vacuum({min(SHRINK, free - KEPT_FREE)})")
            except sqlite3.OperationalError as why:  # a full disk, most likely; what was retained is gone all the same
                log.warning("the file could not be made smaller, trying again later: %s", why)

    def _moved(self, oldest: int) -> None:
        self._oldest = max(self._oldest, oldest)

    # --- reader threads ---

    async def _read(self, ask: Callable[[sqlite3.Connection], T]) -> T:
        self._check_open()

        def work() -> T:
            db: sqlite3.Connection | None = getattr(self._reader, "db", None)
            try:
                if db is None:
                    db = self._reader.db = _connect(self._path, read_only=True)
                    self._reader_connections.append(db)
                # One snapshot for the whole question, ended before anybody waits for a client.
                db.execute("BEGIN")
                return ask(db)
            except VedetteError:
                raise
            except Exception as why:
                if not isinstance(why, sqlite3.OperationalError):
                    log.exception("the store could not be read")
                raise _unavailable(why, self._path) from why
            finally:
                if db is not None:
                    _rollback(db)

        return await self._loop.run_in_executor(self._readers, work)

    def _check_place(self, db: sqlite3.Connection, revision: int, oldest: int = 0) -> None:
        oldest = oldest or _meta(db, "oldest")  # from the same snapshot: retention may have moved on since the request came
        if not oldest <= revision <= self._head:
            raise Expired(f"revision {revision} is not in the log ({oldest} to {self._head}): list again")

    def _list(
        self,
        db: sqlite3.Connection,
        selection: Selection,
        revision: int,
        now: int,
        after: tuple[str, str] | None,
        limit: int,
    ) -> Page:
        oldest = _meta(db, "oldest")
        # Retention may have passed `now` while this question waited for a thread: then the oldest place is the present.
        at = revision or max(now, oldest)
        self._check_place(db, at, oldest)
        where = ["o.seq IS NOT NULL", "(o.deleted = 0 OR o.revision > ?)"]
        values: list[Any] = [at]
        scope, scope_values = _scope_sql(selection.scope, "o")
        if selection.project is not None:
            scope, scope_values = f"({scope}) AND o.project = ?", [*scope_values, selection.project]
        where.append(f"(({scope}) OR o.scoped_at > ?)")
        values += [*scope_values, at]
        for column, value in (("kind", selection.kind), ("source", selection.source), ("id", selection.id)):
            if value:
                where.append(f"o.{column} = ?")
                values.append(value)
        if selection.kind:
            where.append("o.grp = ?")
            values.append(selection.group)
        # Where the page before ended is the better lower bound, once it is inside the range.
        begun = after is not None and selection.source == after[0] and after[1] >= selection.prefix
        prefixed, prefix_values = _prefix_sql("" if begun else selection.prefix, selection.prefix, "o")
        where += prefixed
        values += prefix_values
        if after is not None:
            if selection.source == after[0]:
                # Beside `source = ?` SQLite does not see that the pair below is a range, and would begin at the start.
                where.append("o.id > ?")
                values.append(after[1])
            else:
                where.append("(o.source, o.id) > (?, ?)")
                values += after
        sql = (
            "SELECT o.source, o.grp, o.kind, o.id, "
            "c.revision, c.body, c.cut, c.project, c.shared, c.owner, c.before, c.verb, c.seq "
            f"FROM objects o JOIN changes c ON c.seq = o.seq WHERE {' AND '.join(where)} "
            f"ORDER BY o.source, o.id{'' if selection.kind else ', o.grp, o.kind'}"
        )
        items: list[tuple[Key, Version]] = []
        for source, group, kind, id_, *rest, before, verb, seq in db.execute(sql, values):
            row: Any = rest
            # Written after `at`: go back to what stood then. Seldom more than a step: pages follow each other closely.
            while row is not None and row[0] > at:
                if before is not None and before >= seq:
                    raise sqlite3.DatabaseError(f"the history of {kind} {id_} goes in a circle")
                row = None if before is None else db.execute(_STATE, (before,)).fetchone()
                if row is not None:
                    seq = before
                    *row, before, verb = row
            if row is None or verb == "DELETED":
                continue
            key, version = Key(source, group, kind, id_), _version(row)
            if selection.holds(key, version):
                # Never between two kinds' objects of one id: the next page starts after the id.
                if len(items) >= limit and (last := items[-1][0]) and (last.source, last.id) != (source, id_):
                    return Page(at, items, (last.source, last.id))
                items.append((key, version))
        return Page(at, items, None)

    def _changes(
        self, db: sqlite3.Connection, after: int, end: int, selection: Selection, limit: int
    ) -> tuple[Sequence[Change], int]:
        self._check_place(db, after)
        if end - after > LOOKED_AT:
            sql = "SELECT revision FROM changes WHERE revision > ? ORDER BY revision LIMIT 1 OFFSET ?"
            row = db.execute(sql, (after, LOOKED_AT)).fetchone()
            end = end if row is None else min(end, row[0])
        now, now_values = _selection_sql(selection, "c")
        was, was_values = _selection_sql(selection, "b")
        sql = (
            "SELECT c.revision, c.source, c.grp, c.kind, c.id, c.verb, c.body, c.cut, c.project, c.shared, c.owner, "
            "b.revision, b.body, b.cut, b.project, b.shared, b.owner "
            "FROM changes c LEFT JOIN changes b ON b.seq = c.before AND c.verb != 'ADDED' "
            f"WHERE c.revision > ? AND c.revision <= ? AND (({now}) OR ({was})) ORDER BY c.revision, c.seq"
        )
        found: list[Change] = []
        for row in db.execute(sql, (after, end, *now_values, *was_values)):
            if len(found) >= limit and found and found[-1].revision != row[0]:
                return found, found[-1].revision  # never half an entry
            found.append(_change(row))
        return found, end

    def _entries(
        self,
        db: sqlite3.Connection,
        after: int,
        end: int,
        types: Sequence[str],
        source: str,
        selection: Selection | None,
        limit: int,
    ) -> tuple[Sequence[Appended], int]:
        self._check_place(db, after)
        where = "revision > ? AND revision <= ?"
        values: list[Any] = [after, end]
        own = [name for name in types if name.startswith("vedette.") and not set("*?[") & set(name)]
        if types and len(own) == len(types):  # exact names of ours: the small index
            where += f" AND event_type LIKE 'vedette.%' AND event_type IN ({', '.join('?' * len(own))})"
            values += own
        if source:
            where += " AND source = ?"
            values.append(source)
        # The payload is the widest column by far: read only of those that are wanted.
        sql = f"SELECT revision, event_type FROM entries WHERE {where} ORDER BY revision"
        found: list[Appended] = []
        looked_at = 0
        for revision, event_type in db.execute(sql, values):
            looked_at += 1
            if not types or any(fnmatchcase(event_type, pattern) for pattern in types):
                row = db.execute("SELECT appended_at, notice, payload FROM entries WHERE revision = ?", (revision,)).fetchone()
                one = Appended(_entry(revision, *row), tuple(_changes_of(db, revision)))
                if selection is None or selection.tells(one):
                    found.append(one)
                else:
                    looked_at += 10  # about what it cost
            if len(found) >= limit or looked_at >= LOOKED_AT:
                return found, revision
        return found, max(after, end)


class _Append(msgspec.Struct):
    # Seen by the garbage collector: a failed one is in a circle with its future's traceback.
    entries: Sequence[NewEntry] | Sequence[Entry]
    expect: Mapping[Key, int] | None
    done: asyncio.Future[Sequence[int | None]]
    work: Sequence[Work] = ()

    @property
    def size(self) -> int:
        return len(self.entries) + len(self.work)


class _Do(msgspec.Struct):
    work: Callable[[], Any]
    done: asyncio.Future[Any]


class _Placed(msgspec.Struct, gc=False):
    """What the writer knows of an object: the fold's view, where its row points, since when its scope holds."""

    held: Held
    seq: int | None
    scoped_at: int


class _Writer:
    """Folds and writes batches. Lives in the writer thread."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._cache: OrderedDict[Key, _Placed | None] = OrderedDict()
        self.head = _meta(db, "head")
        self.oldest = _meta(db, "oldest")
        # Not max(seq): a number that retention took out must never name another change.
        self._seq = _meta(db, "seq")
        self._last_at = _meta(db, "last_at")

    def forget(self, key: Key) -> None:
        self._cache.pop(key, None)

    def forget_all(self) -> None:
        self._cache.clear()

    def write(self, batch: Sequence[_Append], now: int) -> tuple[list[Appended], list[Sequence[int | None] | VedetteError]]:
        """One transaction for all of them. Raises sqlite3.Error: then nothing was written, and nothing is remembered."""
        before = (self.head, self._seq, self._last_at)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            result = self._write(batch, max(now, self._last_at))
            self._db.execute("COMMIT")
        except BaseException:
            _rollback(self._db)
            self._cache.clear()
            self.head, self._seq, self._last_at = before
            raise
        while len(self._cache) > CACHED_OBJECTS:
            self._cache.popitem(last=False)
        return result

    def _write(self, batch: Sequence[_Append], now: int) -> tuple[list[Appended], list[Sequence[int | None] | VedetteError]]:
        ids = [_seen_id(new.notice) for work in batch for new in work.entries]
        known = self._known(ids)
        next_id = iter(ids)
        answers: list[Sequence[int | None] | VedetteError] = []
        appended: list[Appended] = []
        entry_rows: list[tuple[Any, ...]] = []
        seen_rows: list[tuple[Any, ...]] = []
        change_rows: list[tuple[Any, ...]] = []
        touched: dict[Key, _Placed] = {}
        owed: list[Work] = []
        for work in batch:
            if work.expect and (conflict := self._conflict(work.expect)):
                answers.append(conflict)
                for _ in work.entries:
                    next(next_id)
                continue
            answer: list[int | None] = []
            for new in work.entries:
                id_ = next(next_id)
                if isinstance(new, Entry):  # of another log, which has told duplicates from news already
                    if new.revision <= self.head:
                        answer.append(None)
                        continue
                    entry = new
                else:
                    if id_ in known:
                        answer.append(None)
                        continue
                    entry = Entry(self.head + 1, now, new.notice, new.readings)
                known.add(id_)
                entry, packed, changes, objects = self._fold(entry)
                self.head = revision = entry.revision
                self._last_at = max(self._last_at, entry.appended_at)
                befores = {}
                for change in changes:
                    placed = self._cache[change.key]
                    befores[change.key] = placed.seq if placed is not None else None
                seqs: dict[Key, int] = {}
                for change in changes:
                    self._seq += 1
                    seqs[change.key] = self._seq
                    key, version = change.key, change.now
                    change_rows.append(
                        (
                            *(self._seq, revision, key.source, key.group, key.kind, key.id, change.verb, befores[key]),
                            *(version.project, version.shared, version.owner, version.cut, version.body),
                        )
                    )
                for key, held in objects.items():
                    was = self._cache[key]
                    touched[key] = self._cache[key] = _placed(held, was, seqs.get(key), revision)
                notice = entry.notice
                entry_rows.append((revision, entry.appended_at, notice.source, notice.event_type, packed, bytes(notice.payload)))
                seen_rows.append((id_, revision))
                appended.append(Appended(entry, tuple(changes)))
                answer.append(revision)
            answers.append(answer)
            owed += work.work
        if owed:
            _work.write(self._db, owed)
        if appended:
            db = self._db
            _work.insert(db, "INSERT INTO entries", entry_rows)
            _work.insert(db, "INSERT OR REPLACE INTO seen", seen_rows)
            _work.insert(db, "INSERT INTO changes", change_rows)
            # Once per object, however often the batch touched it.
            _work.insert(db, "INSERT OR REPLACE INTO objects", [_object_row(key, placed) for key, placed in touched.items()])
            places = [(self.head, "head"), (self._last_at, "last_at"), (self._seq, "seq")]
            db.executemany("UPDATE meta SET value = ? WHERE name = ?", places)
            db.execute("UPDATE meta SET value = value + ? WHERE name = 'entries'", (len(appended),))
        return appended, answers

    def _fold(self, entry: Entry) -> tuple[Entry, bytes, list[Change], dict[Key, Held]]:
        """The entry as it is kept: one that can't be folded stays in the log without its readings. No retry would help, and a
        source that offered it for ever would stand still."""
        try:
            return (entry, _pack(entry), *apply(entry, self._hold))
        except (sqlite3.Error, MemoryError):
            raise
        except Exception as why:
            told = kv(source=entry.notice.source, event_type=entry.notice.event_type, id=entry.notice.id, why=why)
            log.exception("a notice was kept, but what was read from it can't be folded", extra=told)
            entry = bare(entry)
            return entry, _pack(entry), [], {}

    def _known(self, ids: list[bytes]) -> set[bytes]:
        """Which of the ids the log has."""
        found: set[bytes] = set()
        for start in range(0, len(ids), 100):
            some = ids[start : start + 100]
            marks = ", ".join("?" * len(some))
            found.update(row[0] for row in self._db.execute(f"SELECT id FROM seen WHERE id IN ({marks})", some))
        return found

    def _conflict(self, expect: Mapping[Key, int]) -> Conflict | None:
        for key, revision in expect.items():
            held = self._hold(key)
            now = 0 if held is None or held.state.deleted else held.state.revision
            if now != revision:
                return Conflict(f"{key.kind} {key.id} is at {now}, not at {revision}")
        return None

    def _hold(self, key: Key) -> Held | None:
        """What is known of an object, with the batch's own changes; leaves it in the cache."""
        try:
            placed = self._cache[key]
            self._cache.move_to_end(key)
        except KeyError:
            row = self._db.execute(_OBJECT, (key.group, key.kind, key.source, key.id)).fetchone()
            try:
                placed = self._cache[key] = None if row is None else _read_placed(key, row)
            except Exception as why:
                raise sqlite3.DatabaseError(f"what is stored of {key.kind} {key.id} can't be read: {why}") from why
        return placed.held if placed is not None else None


_OBJECT = (
    "SELECT o.seq, o.revision, o.as_of, o.version, o.deleted, o.scoped_at, o.project, o.shared, o.owner, "
    "c.revision, c.body, c.cut, c.project, c.shared, c.owner "
    "FROM objects o LEFT JOIN changes c ON c.seq = o.seq WHERE o.grp = ? AND o.kind = ? AND o.source = ? AND o.id = ?"
)
_STATE = "SELECT revision, body, cut, project, shared, owner, before, verb FROM changes WHERE seq = ?"


def _placed(held: Held, was: _Placed | None, seq: int | None, revision: int) -> _Placed:
    state = held.state
    if was is None:
        return _Placed(held, seq, revision)
    old = was.held.state
    same = (state.project, state.shared, state.owner) == (old.project, old.shared, old.owner)
    return _Placed(held, was.seq if seq is None else seq, was.scoped_at if same else revision)


def _object_row(key: Key, placed: _Placed) -> tuple[Any, ...]:
    state = placed.held.state
    return (
        *(key.group, key.kind, key.source, key.id, placed.seq, state.revision, state.project, state.shared, state.owner),
        *(state.as_of, state.version, state.deleted, placed.scoped_at),
    )


def _read_placed(key: Key, row: Sequence[Any]) -> _Placed:
    seq, revision, as_of, number, deleted, scoped_at, project, shared, owner = row[:9]
    if seq is None:
        state = decode(
            Version(revision, _NOTHING, len(_NOTHING) - 2, project, bool(shared), owner),
            key,
            as_of=as_of,
            newest=number,
            deleted=bool(deleted),
        )
        return _Placed(Held(state, None), None, scoped_at)
    version = _version(row[9:])
    return _Placed(Held(decode(version, key, as_of=as_of, newest=number, deleted=bool(deleted)), version), seq, scoped_at)


_NOTHING = b'{"metadata":{"uid":"","creationTimestamp":"1970-01-01T00:00:00Z"},"status":{"id":""}}'


class _Stored(msgspec.Struct, array_like=True):
    """The `notice` column: everything of an entry but its payload, which stays as it was sent."""

    id: str
    source: str
    event_type: str
    sent_at: int
    priority: str
    publisher: str
    request_id: str
    global_request_id: str
    actor_user: str
    actor_project: str
    origin: str
    traceparent: str
    readings: tuple[Reading, ...]


class _StoredHead(msgspec.Struct, array_like=True):
    id: str
    source: str
    event_type: str
    sent_at: int


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(_Stored)
_head_unpacker = msgspec.msgpack.Decoder(_StoredHead)
_UNFIT = (sqlite3.ProgrammingError, sqlite3.InterfaceError, sqlite3.DataError, sqlite3.IntegrityError)
"""What SQLite says of a value that it can't take: the same call would fail again."""
_CLOSED = "the store is closed"


def _pack(entry: Entry) -> bytes:
    n = entry.notice
    stored = _Stored(
        n.id,
        n.source,
        n.event_type,
        n.sent_at,
        n.priority,
        n.publisher,
        n.request_id,
        n.global_request_id,
        n.actor_user,
        n.actor_project,
        n.origin,
        n.traceparent,
        entry.readings,
    )
    try:
        return _packer.encode(stored)
    except OverflowError:  # JSON knows integers beyond 64 bits, msgpack doesn't; the first byte tells the two apart
        return msgspec.json.encode(stored)


def _entry(revision: int, appended_at: int, packed: bytes, payload: bytes) -> Entry:
    s = msgspec.json.decode(packed, type=_Stored) if packed[:1] == b"[" else _unpacker.decode(packed)
    notice = Notice(
        id=s.id,
        source=s.source,
        event_type=s.event_type,
        sent_at=s.sent_at,
        payload=msgspec.Raw(payload),
        priority=s.priority,
        publisher=s.publisher,
        request_id=s.request_id,
        global_request_id=s.global_request_id,
        actor_user=s.actor_user,
        actor_project=s.actor_project,
        origin=s.origin,
        traceparent=s.traceparent,
    )
    return Entry(revision, appended_at, notice, s.readings)


def _notice_head(packed: bytes) -> _StoredHead:
    return msgspec.json.decode(packed, type=_StoredHead) if packed[:1] == b"[" else _head_unpacker.decode(packed)


def _seen_id(notice: Notice | _StoredHead) -> bytes:
    """16 bytes: the notice's own second, then a hash of source and id."""
    second = min(max(notice.sent_at // 1_000_000, 0), 0xFFFFFFFF)
    digest = hashlib.blake2b(f"{notice.source}\0{notice.id}".encode(), digest_size=12)
    return second.to_bytes(4, "big") + digest.digest()


def _version(row: Sequence[Any]) -> Version:
    revision, body, cut, project, shared, owner = row
    return Version(revision, body, cut, project, bool(shared), owner)


def _change(row: Sequence[Any]) -> Change:
    revision, source, group, kind, id_, verb = row[:6]
    before = _version(row[11:17]) if row[11] is not None else None
    return Change(revision, Key(source, group, kind, id_), verb, _version((revision, *row[6:11])), before)


def _changes_of(db: sqlite3.Connection, revision: int) -> list[Change]:
    sql = (
        "SELECT c.revision, c.source, c.grp, c.kind, c.id, c.verb, c.body, c.cut, c.project, c.shared, c.owner, "
        "b.revision, b.body, b.cut, b.project, b.shared, b.owner "
        "FROM changes c LEFT JOIN changes b ON b.seq = c.before AND c.verb != 'ADDED' WHERE c.revision = ? ORDER BY c.seq"
    )
    return [_change(row) for row in db.execute(sql, (revision,))]


def _scope_sql(scope: Scope, table: str) -> tuple[str, list[Any]]:
    """The tenant's condition, for the query: never a filter afterwards."""
    if scope.admin:
        return "1", []
    terms, values = [f"{table}.shared = 1"], []
    projects = sorted(project for project in scope.projects if project)
    if projects:
        terms.append(f"{table}.project IN ({', '.join('?' * len(projects))})")
        values += projects
    if scope.user:
        terms.append(f"{table}.owner = ?")
        values.append(scope.user)
    return f"({' OR '.join(terms)})", values


def _selection_sql(selection: Selection, table: str) -> tuple[str, list[Any]]:
    where, values = _scope_sql(selection.scope, table)
    for column, value in (("source", selection.source), ("kind", selection.kind), ("id", selection.id)):
        if value:
            where += f" AND {table}.{column} = ?"
            values.append(value)
    if selection.kind:
        where += f" AND {table}.grp = ?"
        values.append(selection.group)
    if selection.project is not None:
        where += f" AND {table}.project = ?"
        values.append(selection.project)
    prefixed, prefix_values = _prefix_sql(selection.prefix, selection.prefix, table)
    return " AND ".join((where, *prefixed)), [*values, *prefix_values]


def _prefix_sql(low: str, prefix: str, table: str) -> tuple[list[str], list[Any]]:
    """Ids from `low` on that begin with `prefix`, as a range of the index: SQLite compares UTF-8 bytes, which have the order of
    the code points."""
    where, values = ([f"{table}.id >= ?"], [low]) if low else ([], [])
    end = prefix.rstrip("\U0010ffff")
    if end:
        beyond = ord(end[-1]) + 1
        where.append(f"{table}.id < ?")
        values.append(end[:-1] + chr(0xE000 if 0xD800 <= beyond <= 0xDFFF else beyond))
    return where, values


# --- the file ---


def _hold(folder: Path) -> int:
    """Lock the folder for this process; the kernel lets go when the process ends, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as why:
        raise CannotStart(f"data_dir {folder} can't be used: {why}") from why
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.suppress(OSError):  # the name is only for the message; a full disk must not keep us from starting
            os.ftruncate(fd, 0)
            os.write(fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
    except BlockingIOError:
        holder = os.read(fd, 200).decode(errors="replace").strip() or "another process"
        os.close(fd)
        raise StoreInUse(
            f"{folder} is in use by {holder}; one process each: stop it, or give this one its own data_dir"
        ) from None
    except OSError as why:
        os.close(fd)
        raise CannotStart(f"data_dir {folder} can't be locked: {why}") from why
    return fd


def _open_file(path: Path, clock: Clock, migrations: Sequence[tuple[int, str]]) -> sqlite3.Connection:
    try:
        if path.exists():
            _check_header(path)
            _check_inside(path, migrations)
        else:
            _create(path, clock, migrations)
        db = _connect(path)
        try:
            _migrate(db, path, migrations)
        except BaseException:
            db.close()
            raise
    except sqlite3.OperationalError as why:
        raise CannotStart(f"{path} can't be opened: {why}. Look at the disk and at who may write there") from why
    except (sqlite3.DatabaseError, UnicodeDecodeError) as why:
        # Python can't decode what SQLite says of a schema whose names are no UTF-8 any more.
        raise _damaged(path, why) from why
    return db


def _damaged(path: Path, why: object) -> StoreForeign:
    return StoreForeign(f"{path} is damaged ({why}); it was not changed. Restore a copy, or move it away to start anew")


def _check_inside(path: Path, migrations: Sequence[tuple[int, str]]) -> None:
    """Through a connection that can't write, since closing one that can would already change the file. Raises StoreNewer,
    StoreForeign."""
    try:
        with contextlib.closing(_connect(path, read_only=True)) as db:
            (at,) = db.execute("PRAGMA user_version").fetchone()
            if at > migrations[-1][0]:
                writer = db.execute("SELECT value FROM meta WHERE name = 'written_by'").fetchone()
                raise StoreNewer(
                    f"{path} has schema {at}, this version of Vedette ({__version__}) knows {migrations[-1][0]}: "
                    f"install Vedette {_version_text(writer[0]) if writer else 'as it was when it wrote this'} or newer"
                )
            for name in ("head", "oldest", "last_at", "seq", "entries"):
                _meta(db, name)
            for table in ("entries", "seen", "changes", "objects"):
                db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()
    except sqlite3.OperationalError as why:
        if any(word in str(why) for word in ("no such", "malformed")):
            raise _damaged(path, why) from why
        raise


def _version_number(text: str) -> int:
    """`1.2.3` as 1002003: how `meta`, which holds integers, names the version that last changed the schema."""
    major, minor, patch = (int(part) for part in text.split(".")[:3])
    return major * 1_000_000 + minor * 1_000 + patch


def _version_text(number: int) -> str:
    return f"{number // 1_000_000}.{number // 1_000 % 1_000}.{number % 1_000}"


def _check_header(path: Path) -> None:
    """Before SQLite gets to touch the file: is it ours, and is it all there? (File format: sqlite.org/fileformat.html §1.3)"""
    with path.open("rb") as file:
        header = file.read(100)
    if not header:
        raise StoreForeign(f"{path} is empty, which no store of ours ever is. Restore a copy, or remove it to start anew")
    if len(header) < 100 or not header.startswith(b"SQLite format 3\0"):
        raise StoreForeign(f"{path} is not a Vedette store; it was not touched. Set data_dir to another folder")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise StoreForeign(f"{path} is an SQLite file of another program; it was not touched. Set data_dir to another folder")
    page = int.from_bytes(header[16:18], "big")
    page = 65536 if page == 1 else page
    wanted, there = int.from_bytes(header[28:32], "big") * page, path.stat().st_size
    wal = path.with_name(path.name + "-wal")
    if there < wanted and not (wal.exists() and wal.stat().st_size):
        raise StoreForeign(
            f"{path} is cut short ({there} of {wanted} bytes); it was not changed. Restore a copy, or move it away to start anew"
        )


def _connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    target = f"file:{_quoted(path)}?mode={'ro' if read_only else 'rwc'}"
    db = sqlite3.connect(target, uri=True, isolation_level=None, check_same_thread=False, timeout=10, cached_statements=256)
    db.execute("PRAGMA mmap_size = 268435456")
    if read_only:
        db.execute("PRAGMA query_only = 1")
    else:
        db.execute("PRAGMA synchronous = FULL")
        # 32 MiB of log between checkpoints: fewer fsyncs of the main file under load.
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA cache_size = -65536")
    return db


def _quoted(path: Path) -> str:
    return quote(str(path.absolute()))


def _create(path: Path, clock: Clock, migrations: Sequence[tuple[int, str]]) -> None:
    """Made under another name and renamed when complete: a crash in between leaves nothing that looks like a store."""
    left = [name for name in (f"{FILE}-wal", f"{FILE}-journal") if path.with_name(name).exists()]
    if left:
        raise StoreForeign(f"{path} is missing, but {left[0]}, which belongs to it, is there: restore both, or remove that too")
    new = path.with_name(f"{FILE}.new")
    for name in (new, new.with_name(f"{new.name}-wal"), new.with_name(f"{new.name}-journal")):
        name.unlink(missing_ok=True)
    with contextlib.closing(_connect(new)) as db:
        db.execute("PRAGMA page_size = 8192")
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        now = clock.now_us()
        number, text = migrations[0]
        db.execute("BEGIN IMMEDIATE")
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in _statements(text):
            db.execute(statement)
        # Revisions start at the time of creation: those of an earlier or wiped store are too old here, never from the future.
        rows = [("head", now), ("oldest", now), ("created", now), ("last_at", 0), ("seq", 0), ("entries", 0)]
        db.executemany("INSERT INTO meta VALUES (?, ?)", [*rows, ("written_by", _version_number(__version__))])
        db.execute(f"PRAGMA user_version = {number}")
        db.execute("COMMIT")
        db.execute("PRAGMA journal_mode = WAL").fetchall()
    os.rename(new, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _migrate(db: sqlite3.Connection, path: Path, migrations: Sequence[tuple[int, str]]) -> None:
    """Forward, each step in a transaction of its own: a crash or an error leaves the schema before it."""
    (at,) = db.execute("PRAGMA user_version").fetchone()
    for number, text in migrations:
        if number > at:
            log.info("migrating the store", extra=kv(path=path, to=number))
            db.execute("BEGIN IMMEDIATE")
            for statement in _statements(text):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number}")
            written_by = ("written_by", _version_number(__version__))
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", written_by)
            db.execute("COMMIT")


def _migrations() -> list[tuple[int, str]]:
    """(number, SQL) of every file in sql/, in order; a new one is found by its name."""
    folder = resources.files("vedette.store").joinpath("sql")
    files = sorted(item.name for item in folder.iterdir() if item.name.endswith(".sql"))
    return [(int(name.split("_")[0]), folder.joinpath(name).read_text()) for name in files]


def _statements(text: str) -> list[str]:
    """Split at `;`: our files have none inside strings. (executescript would commit on its own.)"""
    lines = (line.split("--")[0] for line in text.splitlines())
    return [part.strip() for part in "\n".join(lines).split(";") if part.strip()]


def _meta(db: sqlite3.Connection, name: str) -> int:
    row = db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
    if row is None or not isinstance(row[0], int):
        raise sqlite3.DatabaseError(f"its {name} is missing")
    return row[0]


def _size(db: sqlite3.Connection) -> int:
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (page,) = db.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * page)


def _rollback(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        with contextlib.suppress(sqlite3.Error, UnicodeDecodeError):  # the error that brought us here is the one to tell
            db.execute("ROLLBACK")


def _unavailable(why: Exception, path: Path) -> StoreUnavailable:
    text = str(why) or type(why).__name__
    if isinstance(why, sqlite3.OperationalError):
        with contextlib.suppress(OSError):  # the folder itself may be what is gone
            disk = os.statvfs(path.parent)
            free = f"{path.parent} has {disk.f_bavail * disk.f_frsize // 1_048_576} MiB free"
            if "full" in text:
                text = f"{text}: {free}; make room, it goes on by itself"
            elif "I/O" in text:
                text = f"{text}: {free}; look at that disk, its quota and the kernel's log. It goes on by itself when that works"
    elif isinstance(why, sqlite3.DatabaseError | UnicodeDecodeError):
        text = f"{path} is damaged ({text}): stop the service, and restore a copy or move the file away to start anew"
    return StoreUnavailable(f"the store can't be written or read: {text}", delay=2.0)


def _fail(batch: Sequence[_Append], why: VedetteError) -> None:
    for work in batch:
        if not work.done.done():
            work.done.set_exception(why)
