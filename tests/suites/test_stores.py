"""Every store passes the same suite; and what only SQLite promises."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from hypothesis import given

from vedette.errors import NotUnderstood, StoreUnavailable
from vedette.model.entry import NewEntry
from vedette.model.reading import OPENSTACK
from vedette.ports import EVERYTHING, Selection, Store
from vedette.store.sqlite import FILE, WAITING, SqliteStore
from vedette.testing.store_suite import (
    ALL,
    SECOND,
    T0,
    Historian,
    Lab,
    Opener,
    Reopen,
    Retain,
    SetClock,
    Step,
    StoreSuite,
    compare,
    memory_place,
    nothing_is_orphaned,
    notice,
    random_history,
    reading,
    status_of,
    steps,
)

SHM = Path("/dev/shm")


@contextmanager
def sqlite_folder() -> Iterator[Path]:
    """In memory where there is such a folder: hypothesis opens hundreds, and waits for no disk there."""
    with tempfile.TemporaryDirectory(prefix="vedette-", dir=SHM if SHM.is_dir() else None) as folder:
        yield Path(folder)


def opener_in(folder: Path) -> Opener:
    async def opener(clock: SetClock) -> Store:
        return await SqliteStore.open(folder, clock)

    return opener


def dump(folder: Path, *tables: str) -> dict[str, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(folder / FILE)) as db:
        return {table: db.execute(f"SELECT * FROM {table}").fetchall() for table in tables}


class TestMemory(StoreSuite):
    durable = False
    place = contextmanager(lambda self: memory_place())


class TestSqlite(StoreSuite):
    durable = True

    @contextmanager
    def place(self) -> Iterator[Opener]:
        with sqlite_folder() as folder:
            yield opener_in(folder)
            nothing_is_orphaned(folder)

    @random_history
    @given(steps)
    def test_memory_and_sqlite_give_the_same_answers(self, history: list[Step]) -> None:
        async def both() -> None:
            with self.place() as opener, contextmanager(memory_place)() as memory:
                one, other = await Lab(memory, durable=False).open(), await Lab(opener, durable=True).open()
                try:
                    await compare(one, other, history)
                finally:
                    await other.store.close()

        asyncio.run(both())

    @random_history
    @given(steps)
    def test_two_folders_of_one_log_end_byte_equal(self, history: list[Step]) -> None:
        async def both() -> None:
            with sqlite_folder() as first, sqlite_folder() as second:
                one = await Lab(opener_in(first), durable=True).open()
                await Historian(one).play([step for step in history if not isinstance(step, Retain)])
                entries = [each.entry for each in await one.all_entries(T0)]
                other = await Lab(opener_in(second), durable=True).open()
                half = len(entries) // 2
                await other.store.adopt(entries[:half])
                if Reopen() in history:
                    await other.reopen()
                await other.store.adopt(entries[half:])
                assert await other.all_changes(T0) == await one.all_changes(T0)
                await one.store.close()
                await other.store.close()
                tables = ("entries", "seen", "changes", "objects", "meta")
                assert dump(first, *tables) == dump(second, *tables)

        asyncio.run(both())


# --- what only SQLite promises ----------------------------------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[Path]:
    with sqlite_folder() as folder:
        yield folder


@pytest.fixture
async def lab(folder: Path) -> AsyncIterator[Lab]:
    lab = await Lab(opener_in(folder), durable=True).open()
    yield lab
    await lab.store.close()


def sqlite_of(lab: Lab) -> SqliteStore:
    assert isinstance(lab.store, SqliteStore)
    return lab.store


async def test_an_append_that_is_cancelled_is_written_all_the_same_and_offered_again_is_a_duplicate(lab: Lab) -> None:
    one = lab.said("create", "a")
    task = asyncio.create_task(lab.store.append([one]))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(await lab.store.append([one])) == [None]
    assert await lab.ids() == ["a"]


async def test_close_waits_for_what_is_queued(lab: Lab) -> None:
    appends = [asyncio.create_task(lab.store.append([lab.said("create", f"o{n}")])) for n in range(100)]
    retention = asyncio.create_task(lab.store.retain(horizon=0))
    await asyncio.sleep(0)
    await asyncio.gather(lab.store.close(), lab.store.close())
    assert [answer[0] for answer in await asyncio.gather(*appends)] == list(range(T0 + 1, T0 + 101))
    assert await retention == 0
    await lab.open()
    assert lab.store.head == T0 + 100


async def test_a_close_that_is_cancelled_still_lets_go_of_the_folder(lab: Lab) -> None:
    appends = [asyncio.create_task(lab.store.append([lab.said("create", f"o{n}")])) for n in range(100)]
    await asyncio.sleep(0)
    closing_ = asyncio.create_task(lab.store.close())
    await asyncio.sleep(0)
    closing_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing_
    await lab.store.close()
    await asyncio.gather(*appends)
    await lab.open()
    assert lab.store.head == T0 + 100


async def test_an_open_that_is_cancelled_leaves_nobody_in_the_folder(folder: Path) -> None:
    opening = asyncio.create_task(SqliteStore.open(folder, SetClock()))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    store = await SqliteStore.open(folder, SetClock())
    await store.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("vedette-")]


async def test_too_many_waiting_entries_are_refused_and_giving_up_makes_no_room(folder: Path) -> None:
    class Stuck(SetClock):
        """Holds the writer: it asks for the time before each batch."""

        held = threading.Event()

        def now_us(self) -> int:
            if threading.current_thread().name == "vedette-write":
                self.held.wait()
            return super().now_us()

    clock = Stuck()
    lab = await Lab(opener_in(folder), durable=True, clock=clock).open()
    some = [lab.news() for _ in range(WAITING // 4)]
    tasks = [asyncio.create_task(lab.store.append([NewEntry(notice(f"{n}-{new.notice.id}")) for new in some])) for n in range(4)]
    await asyncio.sleep(0)
    tasks[3].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[3]
    with pytest.raises(StoreUnavailable, match="wait to be written"):
        await lab.store.append([lab.news()])
    clock.held.set()
    await asyncio.gather(*tasks[:3])
    await lab.store.append([lab.news()])
    await lab.store.close()


async def test_a_notice_that_cannot_be_stored_is_refused_alone(lab: Lab) -> None:
    bad = NewEntry(notice("\ud800"))
    answers = await asyncio.gather(
        lab.store.append([lab.said("create", "a")]),
        lab.store.append([lab.said("create", "b"), bad]),
        lab.store.append([lab.said("create", "c")]),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [list, NotUnderstood, list]
    assert await lab.ids() == ["a", "c"]
    assert lab.store.head == T0 + 2


async def test_many_readers_and_a_writer_never_find_the_file_locked_and_the_log_stays_short(folder: Path) -> None:
    clock = SetClock()
    store = await SqliteStore.open(folder, clock, log_limit=4 * 1_048_576)
    lab = Lab(opener_in(folder), durable=True, clock=clock)
    lab.store = store
    writing = True
    longest = 0

    async def read() -> int:
        reads = 0
        while writing:
            page = await store.objects(Selection(EVERYTHING, OPENSTACK, "Port"), limit=1000)
            changes, upto = await store.changes(page.revision, selection=ALL)
            assert all(page.revision < change.revision <= upto for change in changes)
            assert upto >= page.revision
            reads += 1
        return reads

    async def write() -> None:
        nonlocal writing, longest
        for n in range(150):
            batch = [lab.said("update", f"o{m:03}", fields={"n": n, "fill": "x" * 900}) for m in range(60)]
            await store.append(batch)
            if n % 5 == 0:
                await store.retain(horizon=clock.now - 600 * SECOND, most=400)
            longest = max(longest, (folder / f"{FILE}-wal").stat().st_size)
        writing = False

    results = await asyncio.gather(write(), *(read() for _ in range(8)))
    assert sum(reads or 0 for reads in results) > 8
    assert longest < 12 * 1_048_576, "readers that overlap keep the write-ahead log from starting anew"
    await store.close()
    nothing_is_orphaned(folder)


async def test_a_list_is_as_of_the_head_although_its_snapshot_is_newer(folder: Path) -> None:
    """The writer commits before the loop hears of it: a list in between must be one of the older place."""
    lab = await Lab(opener_in(folder), durable=True).open()
    await lab.add("create", "a", fields={"n": 0})
    append = asyncio.create_task(lab.store.append([lab.said("update", "a", fields={"n": 1}), lab.said("create", "b")]))
    listing = asyncio.create_task(lab.store.objects(ALL))
    await asyncio.sleep(0)
    # The loop stands still until the commit is in the file, so the list that began before it can't be told of it.
    with closing(sqlite3.connect(folder / FILE)) as spy:
        while spy.execute("SELECT value FROM meta WHERE name = 'head'").fetchone()[0] < T0 + 3:
            pass
    assert lab.store.head == T0 + 1
    page = await listing
    await append
    assert page.revision == T0 + 1
    assert [(key.id, status_of(version)["n"]) for key, version in page.items] == [("a", 0)]
    missing = await lab.all_changes(T0 + 1)
    assert [change.key.id for change in missing] == ["a", "b"]
    await lab.store.close()


async def test_a_question_that_looks_at_very_much_answers_in_parts(lab: Lab) -> None:
    now = lab.clock.now
    for start in range(0, 52_000, 4_000):
        await lab.store.append(
            [
                NewEntry(notice(f"many{n}"), (reading("update", f"o{n % 3}", now, fields={"n": n}),))
                for n in range(start, start + 4_000)
            ]
        )
    await lab.add("create", "rare", project="p1", event_type="rare.news")
    found, upto = await lab.store.entries(T0, types=["rare.*"])
    assert (list(found), upto) == ([], T0 + 50_000)
    assert [one.entry.notice.event_type for one in await lab.all_entries(T0, types=["rare.*"])] == ["rare.news"]
    tenant = Selection(EVERYTHING, OPENSTACK, "Port", id="rare")
    changes, upto = await lab.store.changes(T0, selection=tenant)
    assert list(changes) == []
    assert T0 < upto < lab.store.head
    assert [change.key.id for change in await lab.all_changes(T0, tenant)] == ["rare"]


async def test_the_file_shrinks_when_the_log_does(lab: Lab, folder: Path) -> None:
    for n in range(6):
        await lab.store.append(
            [lab.said("update", f"o{m}", payload=b'"' + b"x" * 8_000 + b'"', fields={"n": n}) for m in range(250)]
        )
    big = (folder / FILE).stat().st_size + (folder / f"{FILE}-wal").stat().st_size
    keep = 6 * 1_048_576
    gone = 0
    while some := await lab.store.retain(horizon=0, max_bytes=keep, most=100):
        gone += some
    stats = await lab.store.stats()
    assert stats.bytes <= keep
    assert stats.entries == 1_500 - gone > 0, "not more than was needed"
    assert stats.objects == 250
    for _ in range(10):
        await lab.store.retain(horizon=0, max_bytes=keep)
    await lab.reopen()
    small = (folder / FILE).stat().st_size
    assert big > 12_000_000
    assert small <= keep + 4 * 1_048_576
    # All gone: the present alone is left.
    await lab.retain_all(horizon=lab.clock.now + 1)
    await lab.reopen()
    assert (folder / FILE).stat().st_size < 4 * 1_048_576
    nothing_is_orphaned(folder)


async def test_a_number_of_a_change_that_went_is_never_given_again(lab: Lab, folder: Path) -> None:
    await lab.add("create", "a")
    await lab.add("delete", "a")
    await lab.retain_all(horizon=lab.clock.now + 1)
    await lab.reopen()
    await lab.add("create", "b")
    await lab.store.close()
    assert [row[0] for row in dump(folder, "changes")["changes"]] == [3]
    await lab.open()


async def test_a_copied_folder_goes_on_as_a_store_of_its_own(lab: Lab, folder: Path) -> None:
    await lab.add("create", "a")
    await lab.store.close()
    with sqlite_folder() as elsewhere:
        shutil.copy(folder / FILE, elsewhere / FILE)
        copy = await SqliteStore.open(elsewhere, lab.clock)
        await lab.open()
        await asyncio.gather(lab.add("create", "b"), copy.append([lab.said("create", "c")]))
        assert await lab.ids() == ["a", "b"]
        assert [key.id for key, _ in (await copy.objects(ALL)).items] == ["a", "c"]
        await copy.close()


async def test_the_plan_of_a_list_uses_the_order_on_disk(lab: Lab, folder: Path) -> None:
    """A page of 100,000 objects must not be sorted, and one in the middle must not begin at the start."""
    for n in range(20):
        await lab.add("create", f"o{n:02}")
    page = await lab.store.objects(Selection(EVERYTHING, OPENSTACK, "Port"), after=("one", "o10"), limit=5)
    assert [key.id for key, _ in page.items] == [f"o{n}" for n in range(11, 16)]
    pinned = await lab.store.objects(Selection(EVERYTHING, OPENSTACK, "Port", "one"), after=("one", "o10"), limit=5)
    assert pinned.items == page.items
    for condition in ("(o.source, o.id) > ('one', 'o10')", "o.source = 'one' AND o.id > 'o10'"):
        sql = (
            "EXPLAIN QUERY PLAN SELECT o.source FROM objects o JOIN changes c ON c.seq = o.seq WHERE o.seq IS NOT NULL AND "
            "(o.deleted = 0 OR o.revision > 5) AND ((1) OR o.scoped_at > 5) AND o.kind = 'Port' AND o.grp = 'x' AND "
            f"{condition} ORDER BY o.source, o.id"
        )
        with closing(sqlite3.connect(folder / FILE)) as db:
            plan = " ".join(row[3] for row in db.execute(sql))
        assert "SEARCH o USING PRIMARY KEY" in plan
        assert ">" in plan, plan  # a range to begin at, not only columns that are equal
        assert "TEMP B-TREE" not in plan


def test_a_store_says_how_big_it_is_without_counting(folder: Path) -> None:
    async def work() -> None:
        lab = await Lab(opener_in(folder), durable=True).open()
        await lab.store.append([lab.news() for _ in range(10)])
        await lab.store.retain(horizon=lab.clock.now + 1, most=4)
        await lab.reopen()
        stats = await lab.store.stats()
        assert (stats.entries, stats.oldest, stats.head) == (6, T0 + 4, T0 + 10)
        assert sqlite_of(lab).size() >= stats.bytes > 0
        await lab.store.close()

    asyncio.run(work())
