"""A full disk, damaged and foreign files, other schemas: clear words, nothing overwritten, no hang."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import store_child

from vedette import __version__
from vedette.errors import CannotStart, Expired, NotFound, StoreForeign, StoreInUse, StoreNewer, StoreUnavailable
from vedette.model.delivery import Cursor, PutCursor
from vedette.model.entry import NewEntry
from vedette.ports import EVERYTHING, Scope, Selection
from vedette.store.sqlite import FILE, SqliteStore
from vedette.testing.store_suite import ALL, T0, Lab, SetClock, nothing_is_orphaned, port, status_of

MIB = 1_048_576
SCHEMA_1 = resources.files("vedette.store").joinpath("sql/0001_log.sql").read_text()
SCHEMA_2 = resources.files("vedette.store").joinpath("sql/0002_handlers.sql").read_text()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="vedette-") as name:
        yield Path(name)


def lab_in(folder: Path, **how: Any) -> Lab:
    async def opener(clock: SetClock) -> SqliteStore:
        return await SqliteStore.open(folder, clock, **how)

    return Lab(opener, durable=True)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file's bytes; but the lock's, and what SQLite puts beside a file to read it."""
    names = ("lock", f"{FILE}-shm")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in names and path.stat().st_size}


async def refused(folder: Path, kind: type[CannotStart], match: str, **how: Any) -> None:
    """It doesn't open, says why, and leaves every byte and the lock alone."""
    before = contents(folder)
    for _ in range(2):
        with pytest.raises(kind, match=match) as told:
            await SqliteStore.open(folder, SetClock(), **how)
        assert type(told.value) is kind, told.value
        assert contents(folder) == before


async def make(folder: Path, entries: int = 60) -> Lab:
    """A store with something in every table, closed: one file."""
    lab = await lab_in(folder).open()
    for n in range(entries):
        verb = "delete" if n % 9 == 8 else "create"
        await lab.add(
            verb, f"o{n % 11}", project=f"p{n % 2}", fields={"n": n, "fill": "y" * 300}, payload=b'"' + b"x" * (n * 60) + b'"'
        )
    await lab.store.retain(horizon=lab.clock.now - (entries - 10) * 1_000_000)
    await lab.store.close()
    assert contents(folder).keys() == {FILE}
    return lab


# --- a full disk ------------------------------------------------------------------------------------------------------------


def test_a_process_that_may_not_write_more_says_so_reads_on_and_recovers_by_itself(folder: Path) -> None:
    """The kernel's own limit on file sizes: works anywhere."""
    command = [sys.executable, store_child.__file__, "fill", str(folder / "data")]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60)
    print(done.stdout.decode())
    lines = dict(line.split(" ", 1) for line in done.stdout.decode().splitlines() if " " in line)
    assert "can't be opened" in lines["cannot-start"]
    assert "Look at the disk" in lines["cannot-start"]
    assert "MiB free" in lines["unavailable"]
    assert "goes on by itself" in lines["unavailable"]
    kept = int(lines["kept"].split()[0])
    assert kept > 100
    assert lines["kept"].split()[1:6] == ["entries", str(kept), "head", str(kept), "objects"]
    assert int(lines["kept"].split()[6]) > 10
    assert done.stdout.decode().splitlines().count("still-full") == 3
    assert lines["room"] == "True True"
    assert int(lines["reopened"]) == kept + 50


async def fill(lab: Lab, some: Callable[[], list[NewEntry]]) -> tuple[int, list[NewEntry], StoreUnavailable]:
    """How many entries were kept, the batch that was not, and why."""
    kept = 0
    while True:
        batch = some()
        try:
            kept += len(await lab.store.append(batch))
        except StoreUnavailable as why:
            return kept, batch, why


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of its own, where we may mount one."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "vedette-test", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode != 0:
        pytest.skip("can't mount a small file system here; the limit on file sizes and max_page_count are tested all the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


async def test_a_full_file_system_says_what_to_do_and_goes_on_when_there_is_room(folder: Path) -> None:
    with small_disk(folder / "disk", 8) as disk:
        lab = await lab_in(disk / "data").open()
        await lab.add("create", "first", fields={"n": 1})
        (disk / "somebody-elses").write_bytes(b"x" * 3 * MIB)

        def some() -> list[NewEntry]:
            return [lab.said("create", f"o{n}", payload=b'"' + b"x" * 2_000 + b'"') for n in range(50)]

        kept, batch, told = await fill(lab, some)
        assert "full" in str(told)
        assert f"{disk / 'data'} has 0 MiB free; make room, it goes on by itself" in str(told)
        assert told.delay > 0
        assert lab.store.head == T0 + 1 + kept
        assert len(await lab.all_entries(T0)) == 1 + kept
        assert status_of(await lab.store.get(port("first"), EVERYTHING))["n"] == 1
        with pytest.raises(StoreUnavailable, match="make room"):
            await lab.store.append(batch)
        (disk / "somebody-elses").unlink()
        assert list(await lab.store.append(batch)) == list(range(T0 + 2 + kept, T0 + 52 + kept))
        await lab.reopen()
        assert len(await lab.all_entries(T0)) == 51 + kept
        await lab.store.close()
        nothing_is_orphaned(disk / "data")


async def test_a_full_file_keeps_nothing_of_the_batch_and_retention_makes_room(folder: Path) -> None:
    lab = await lab_in(folder, pragmas={"max_page_count": 200}).open()
    heard: list[int] = []
    lab.store.follow(lambda appended: heard.extend(one.entry.revision for one in appended))

    def some() -> list[NewEntry]:
        return [lab.said("update", f"o{n}", payload=b'"' + b"x" * 3_000 + b'"', fields={"n": n}) for n in range(10)]

    _, batch, told = await fill(lab, some)
    assert "make room, it goes on by itself" in str(told)
    head = lab.store.head
    # Everybody of the batch hears it; a reader doesn't notice.
    answers = await asyncio.gather(
        *(lab.store.append([new]) for new in batch * 10), lab.store.objects(ALL), return_exceptions=True
    )
    assert {type(answer) for answer in answers[:-1]} == {StoreUnavailable}
    assert len(answers[-1].items) == 10  # type: ignore[union-attr]
    assert (lab.store.head, len(await lab.all_entries(T0))) == (head, head - T0)
    assert heard == list(range(T0 + 1, head + 1))
    assert await lab.store.retain(horizon=lab.clock.now - 200_000_000) > 0
    revisions = await lab.store.append(batch)
    assert list(revisions) == list(range(head + 1, head + 11)), "no revision is lost over it"
    assert heard == list(range(T0 + 1, head + 11))
    assert status_of(await lab.store.get(port("o9"), EVERYTHING))["n"] == 9
    await lab.store.close()
    nothing_is_orphaned(folder)


async def test_failing_for_hours_leaves_nothing_in_memory(folder: Path) -> None:
    lab = await lab_in(folder, pragmas={"max_page_count": 60}).open()
    marked = lab.news(payload=b'"' + b"x" * MIB + b'"')
    before = sys.getrefcount(marked)
    for _ in range(50):
        with pytest.raises(StoreUnavailable):
            await lab.store.append([marked])
    await lab.add("create", "a")
    gc.collect()
    assert sys.getrefcount(marked) <= before + 1
    await lab.store.close()


# --- files that are not ours, or not whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "match"),
    [
        (b"", "is empty"),
        (b"hello", "not a Vedette store"),
        (b"SQLite format 3\0", "not a Vedette store"),
        (b"\0" * 100_000, "not a Vedette store"),
        (random.Random(1).randbytes(100_000), "not a Vedette store"),
    ],
    ids=["empty", "text", "a cut header", "zeros", "noise"],
)
async def test_a_file_that_is_not_ours_is_left_alone(folder: Path, what: bytes, match: str) -> None:
    (folder / FILE).write_bytes(what)
    await refused(folder, StoreForeign, match)
    assert (folder / FILE).read_bytes() == what


async def test_the_database_of_another_program_is_left_alone(folder: Path) -> None:
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("CREATE TABLE meta (name TEXT, value INTEGER)")
        db.commit()
    await refused(folder, StoreForeign, "of another program")


@pytest.mark.parametrize("keep", [99, 100, 4096, 8192, 8193, 0.3, 0.9, -8192, -1])
async def test_a_store_that_is_cut_short_is_left_alone(folder: Path, keep: float) -> None:
    await make(folder)
    whole = (folder / FILE).read_bytes()
    size = int(len(whole) * keep) if isinstance(keep, float) else keep if keep > 0 else len(whole) + int(keep)
    (folder / FILE).write_bytes(whole[:size])
    await refused(folder, StoreForeign, "cut short|not a Vedette store")
    (folder / FILE).write_bytes(whole)
    lab = await lab_in(folder).open()
    assert await lab.ids()
    await lab.store.close()


async def test_a_log_without_its_file_is_left_alone(folder: Path) -> None:
    """SQLite would take a stranger's write-ahead log into a new file, or throw it away."""
    (folder / f"{FILE}-wal").write_bytes(b"x" * 5_000)
    await refused(folder, StoreForeign, "missing")


async def test_a_store_that_lost_a_table_is_left_alone(folder: Path) -> None:
    await make(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("DROP TABLE objects")
    await refused(folder, StoreForeign, "damaged")


async def test_a_store_whose_schema_is_no_text_is_left_alone(folder: Path) -> None:
    """SQLite names what it can't read, in the bytes that it finds there: Python can't decode them."""
    await make(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET name = CAST(x'6F626AE5' AS TEXT), sql = 'CREATE nothing' WHERE name = 'objects'")
        db.commit()
    await refused(folder, StoreForeign, "damaged")


@pytest.mark.parametrize("name", ["head", "oldest", "last_at", "seq", "entries"])
async def test_a_store_that_lost_its_place_is_left_alone(folder: Path, name: str) -> None:
    await make(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("DELETE FROM meta WHERE name = ?", (name,))
        db.commit()
    await refused(folder, StoreForeign, f"its {name} is missing")


async def use(folder: Path) -> str:
    """Open a store and ask for everything; what became of it."""
    before = contents(folder)
    try:
        lab = await lab_in(folder).open()
    except CannotStart:
        return "refused" if contents(folder) == before else "refused, and changed"
    outcome = "unnoticed"
    tenant = Selection(Scope(projects=frozenset({"p1"})))
    last = lab.store.head
    questions = [
        lambda: lab.store.objects(ALL, limit=1000),
        lambda: lab.store.objects(tenant, revision=lab.store.oldest, limit=1000),
        lambda: lab.store.changes(lab.store.oldest, selection=ALL, limit=1000),
        lambda: lab.store.entries(lab.store.oldest, limit=1000),
        lambda: lab.store.entries(lab.store.oldest, types=["vedette.gap"]),
        lambda: lab.store.revision_at(T0 + 5_000_000),
        lambda: lab.store.projects(),
        lambda: lab.store.stats(),
        lambda: lab.store.append([lab.said("update", f"o{n}", fields={"n": -n}) for n in range(11)]),
        lambda: lab.store.objects(ALL, revision=last),
        lambda: lab.store.retain(horizon=T0 + 10**12),
    ]
    lab.clock.now += 10**9
    for question in questions:
        try:
            await asyncio.wait_for(question(), 20)
        except StoreUnavailable:
            outcome = "told"
        except (Expired, NotFound):
            outcome = "other answers"  # a place that was flipped
    await lab.store.close()
    return outcome


@pytest.mark.parametrize("part", range(4))
async def test_flipped_bits_never_hang_crash_or_change_what_was_refused(folder: Path, part: int) -> None:
    await make(folder / "good")
    good = (folder / "good" / FILE).read_bytes()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    # The magic words (without them it is no database: refused, whatever the dice say of the rest), the rest of the header,
    # the beginnings of pages (where their structure is), and anywhere.
    places = [
        dice.randrange(16),
        *dice.sample(range(16, 100), 13),
        *(dice.randrange(len(good) // 8192) * 8192 + dice.randrange(40) for _ in range(16)),
        *(dice.randrange(len(good)) for _ in range(20)),
    ]
    counts: dict[str, int] = {}
    for n, place in enumerate(places):
        bad = bytearray(good)
        bad[place] ^= 1 << dice.randrange(8)
        here = folder / f"bad{n}"
        here.mkdir()
        (here / FILE).write_bytes(bad)
        try:
            outcome = await use(here)
        except BaseException as why:
            raise AssertionError(f"a bit flipped in byte {place}") from why
        counts[outcome] = counts.get(outcome, 0) + 1
        shutil.rmtree(here)
    print(f"flipped {len(places)} bits one by one: {counts}")
    assert "refused" in counts
    assert "refused, and changed" not in counts


async def test_a_history_that_goes_in_a_circle_is_told_not_followed_for_ever(folder: Path) -> None:
    lab = await make(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("UPDATE changes SET before = seq WHERE before IS NOT NULL")
        db.commit()
    await lab.open()
    with pytest.raises(StoreUnavailable, match="circle"):
        await lab.store.objects(ALL, revision=lab.store.oldest)
    await lab.store.close()


async def test_an_object_that_can_no_longer_be_read_stops_the_writing_not_the_reading(folder: Path) -> None:
    """It is damage, not an odd notice: news of it must wait, not be kept without its readings."""
    lab = await make(folder)
    with closing(sqlite3.connect(folder / FILE)) as db:
        db.execute("UPDATE changes SET body = X'7B7B' WHERE id = 'o1'")
        db.commit()
    await lab.open()
    head = lab.store.head
    with pytest.raises(StoreUnavailable, match=r"damaged.*Port o1"):
        await lab.store.append([lab.said("update", "o1", fields={"n": 5})])
    assert lab.store.head == head
    assert "o2" in await lab.ids()
    assert list(await lab.store.append([lab.said("update", "o2", fields={"n": 5})])) == [head + 1]
    await lab.store.close()


# --- schemas ----------------------------------------------------------------------------------------------------------------

SCHEMA_3 = """
-- A note for each object; `;` ends a statement.
CREATE TABLE notes (id TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
INSERT INTO notes SELECT DISTINCT id, count(*) FROM changes GROUP BY id;
"""


async def test_a_newer_schema_is_refused_and_the_version_to_install_is_named(folder: Path) -> None:
    lab = await lab_in(folder, migrations=[(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3)]).open()
    await lab.add("create", "a")
    await lab.store.close()
    await refused(
        folder, StoreNewer, rf"has schema 3, this version of Vedette \({__version__}\) knows 2: install Vedette {__version__} or"
    )
    await lab.open()
    assert await lab.ids() == ["a"]
    await lab.store.close()


async def test_a_newer_store_that_was_killed_is_refused_without_touching_its_log(folder: Path) -> None:
    lab = await lab_in(folder / "data", migrations=[(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3)]).open()
    await lab.add("create", "a")
    (folder / "copy").mkdir()
    for name in (FILE, f"{FILE}-wal"):
        shutil.copy(folder / "data" / name, folder / "copy" / name)
    await lab.store.close()
    await refused(folder / "copy", StoreNewer, "install")
    copy = await lab_in(folder / "copy", migrations=[(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3)]).open()
    assert await copy.ids() == ["a"]
    await copy.store.close()


async def test_a_store_of_an_older_schema_is_brought_forward_and_keeps_everything(folder: Path) -> None:
    old = await make(folder)
    await old.open()
    entries, objects = await old.all_entries(old.store.oldest), await old.store.objects(ALL)
    await old.store.close()
    new = await lab_in(
        folder, migrations=[(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3), (4, "CREATE INDEX notes_n ON notes (n)")]
    ).open()
    assert await new.all_entries(new.store.oldest) == entries
    assert await new.store.objects(ALL) == objects
    await new.add("create", "later")
    await new.reopen()
    await new.store.close()
    with closing(sqlite3.connect(folder / FILE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (4,)
        assert db.execute("SELECT count(*) FROM notes").fetchone() == (11,)
    await refused(folder, StoreNewer, "has schema 4")


async def test_a_migration_that_fails_leaves_the_schema_before_it(folder: Path) -> None:
    lab = await make(folder)
    broken = [(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3), (4, "CREATE TABLE half (n INTEGER); INSERT INTO nowhere VALUES (1)")]
    for _ in range(2):
        with pytest.raises(CannotStart, match="nowhere"):
            await SqliteStore.open(folder, SetClock(), migrations=broken)
    with closing(sqlite3.connect(folder / FILE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)
        assert db.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall() == []
    lab = await lab_in(folder, migrations=broken[:3]).open()
    assert await lab.ids()
    await lab.store.close()


async def test_a_new_store_has_the_newest_schema(folder: Path) -> None:
    lab = await lab_in(folder, migrations=[(1, SCHEMA_1), (2, SCHEMA_2), (3, SCHEMA_3)]).open()
    await lab.store.close()
    with closing(sqlite3.connect(folder / FILE)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (3,)


# --- the folder -------------------------------------------------------------------------------------------------------------


async def test_one_folder_one_store(folder: Path) -> None:
    lab = await lab_in(folder).open()
    with pytest.raises(StoreInUse, match=f"in use by pid {os.getpid()} on"):
        await SqliteStore.open(folder, SetClock())
    await lab.add("create", "a")
    await lab.reopen()
    await lab.store.close()


async def test_a_folder_that_cannot_be_one_is_told(folder: Path) -> None:
    (folder / "file").write_text("x")
    with pytest.raises(CannotStart, match="can't be used"):
        await SqliteStore.open(folder / "file", SetClock())
    with pytest.raises(CannotStart, match="can't be used"):
        await SqliteStore.open(folder / "file" / "below", SetClock())


async def test_what_a_crash_left_of_a_store_in_the_making_is_made_anew(folder: Path) -> None:
    (folder / f"{FILE}.new").write_bytes(b"half")
    (folder / f"{FILE}.new-journal").write_bytes(b"half")
    lab = await lab_in(folder).open()
    await lab.add("create", "a")
    await lab.store.close()
    assert contents(folder).keys() == {FILE}


async def test_opening_and_closing_leaves_no_file_and_no_thread_open(folder: Path) -> None:
    def open_files() -> list[str]:
        found = []
        for fd in os.listdir("/proc/self/fd"):
            try:
                found.append(os.readlink(f"/proc/self/fd/{fd}"))
            except OSError:
                continue  # the one that listed them
        return [name for name in found if str(folder) in name]

    for n in range(10):
        lab = await lab_in(folder).open()
        await asyncio.gather(*(lab.store.objects(ALL) for _ in range(8)), lab.add("create", f"o{n}", id=f"n{n}"))
        await lab.store.close()
    (folder / "bad").mkdir()
    (folder / "bad" / FILE).write_bytes((folder / FILE).read_bytes()[:8192])
    for _ in range(3):
        with pytest.raises(StoreForeign):
            await SqliteStore.open(folder / "bad", SetClock())
    gc.collect()
    assert open_files() == []


async def test_a_store_from_before_handlers_has_what_they_owe_after_it_was_opened(folder: Path) -> None:
    old = await lab_in(folder, migrations=[(1, SCHEMA_1)]).open()
    revision = await old.add("create", "a")
    await old.store.close()
    new = await lab_in(folder).open()
    assert await new.ids() == ["a"]
    assert await new.store.cursors() == {}
    await new.store.append([], work=[PutCursor("h", Cursor(revision))])
    await new.reopen()
    assert await new.store.cursors() == {"h": Cursor(revision)}
    await new.store.close()
