"""Guarantees 1 and 2 with a real process that is killed (SIGKILL) again and again under load, retention running too."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import store_child

from vedette.errors import CannotStart
from vedette.kit.clock import SystemClock
from vedette.model.entry import NewEntry
from vedette.ports import EVERYTHING, Appended, Selection, Store
from vedette.store.memory import MemoryStore
from vedette.store.sqlite import SqliteStore
from vedette.testing.store_suite import SetClock, nothing_is_orphaned

ROUNDS = 20
BY_THE_TEST = 10**12
"""Numbers from here on are the test's own entries."""
EVERY = Selection(EVERYTHING)


@pytest.fixture
def folder() -> Iterator[Path]:
    # A real disk: what is in a tmpfs is durable without any fsync.
    with tempfile.TemporaryDirectory(prefix="vedette-") as name:
        yield Path(name) / "data"


def start(what: str, folder: Path, *rest: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, store_child.__file__, what, str(folder), *map(str, rest)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def kill_after(child: subprocess.Popen[bytes], lines: int, seconds: float) -> list[bytes]:
    """What it said until it was dead. The pause is the random point, counted from the last line that was waited for."""
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(lines)]
    time.sleep(seconds)
    child.kill()
    said += child.stdout.readlines()
    assert child.wait() == -9, b"".join(said).decode()
    child.stdout.close()
    return said


async def all_entries(store: Store, after: int) -> list[Appended]:
    found: list[Appended] = []
    while after < store.head:
        some, after = await store.entries(after, limit=5_000)
        found += some
    return found


def test_killed_at_any_point_nothing_acknowledged_is_lost_and_nothing_is_twice(folder: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    acked: dict[int, int] = {}
    offered: set[int] = set()
    known: dict[int, str] = {}
    """Every revision that was ever seen, and its notice: none is given twice."""
    totals = {"rounds": 0, "acked": 0, "found": 0, "durable before their ack was heard": 0, "retained": 0, "lost": 0}
    refold: MemoryStore | None = None

    async def look() -> None:
        nonlocal refold
        store = await SqliteStore.open(folder, SystemClock())
        if refold is None:
            refold = MemoryStore(SetClock(store.oldest))
        # It goes on where it was.
        head, number = store.head, BY_THE_TEST + totals["rounds"]
        (revision,) = await store.append([NewEntry(store_child.entry_of(number).notice)])
        assert revision == head + 1
        offered.add(number)
        acked[number] = revision
        entries = await all_entries(store, store.oldest)
        revisions = [one.entry.revision for one in entries]
        assert revisions == list(range(store.oldest + 1, store.head + 1))
        ids = [one.entry.notice.id for one in entries]
        assert len(set(ids)) == len(ids)
        for revision, id_ in zip(revisions, ids, strict=True):
            assert known.setdefault(revision, id_) == id_, "a revision was given twice"
        here = {id_: revision for revision, id_ in zip(revisions, ids, strict=True)}
        for number, revision in acked.items():
            if revision > store.oldest:
                totals["lost"] += here.get(f"m{number}") != revision
            else:
                assert known[revision] == f"m{number}", "retention took it before it was seen"
        assert totals["lost"] == 0
        assert {int(id_[1:]) for id_ in ids if id_.startswith("m")} <= offered
        totals["found"] += sum(1 for one in entries if one.entry.revision > refold.head)
        totals["retained"] = len(known) - len(entries)
        # Objects and history are what the log says.
        assert store.oldest <= refold.head
        await refold.adopt([one.entry for one in entries])
        assert refold.head == store.head
        assert await store.objects(EVERY, limit=10_000) == await refold.objects(EVERY, limit=10_000)
        again, _ = await refold.entries(store.oldest, limit=10**9)
        assert entries == again
        await store.close()
        nothing_is_orphaned(folder)

    first, again = 1, list[int]()
    while totals["rounds"] < ROUNDS:
        totals["rounds"] += 1
        retain = totals["rounds"] > 3 and dice.random() < 0.7
        child = start("append", folder, first, int(retain), *again)
        # Some die while they open (the very first time, while they make the file), most while they write.
        lines = dice.choice([1, 1, 2, 10, 40, 80, 150])
        said = kill_after(child, lines, dice.random() * (0.2 if lines == 1 else 0.05))
        for group in store_child.words(said, "offered"):
            offered.update(map(int, group))
        heard: dict[int, int] = {}
        for group in store_child.words(said, "acked"):
            for word in group:
                number, revision = map(int, word.split(":"))
                if revision:
                    heard[number] = revision
                elif number not in acked:  # a duplicate of what was durable before its ack was heard
                    totals["durable before their ack was heard"] += 1
                    assert f"m{number}" in known.values()
                    acked[number] = next(revision for revision, id_ in known.items() if id_ == f"m{number}")
        assert not heard.keys() & acked.keys(), "acknowledged as new, twice"
        acked |= heard
        totals["acked"] = len(acked)
        asyncio.run(look())
        again = sorted(offered - acked.keys())
        first = max((number for number in offered if number < BY_THE_TEST), default=0) + 1
    print("killed: " + ", ".join(f"{name}={number}" for name, number in totals.items()))
    assert totals["acked"] > 500
    assert totals["retained"] > 0


def test_killed_while_it_is_made_a_store_is_there_or_not_but_never_half(folder: Path) -> None:
    dice = random.Random()
    made = 0
    for n in range(12):
        place = folder / str(n)
        child = start("append", place, 1, 0)
        said = kill_after(child, 1, dice.random() * 0.04)
        acked = [word.split(":") for group in store_child.words(said, "acked") for word in group]

        async def look(place: Path = place, acked: list[list[str]] = acked) -> bool:
            before = (place / "vedette.db").exists()
            store = await SqliteStore.open(place, SystemClock())
            ids = {one.entry.notice.id: one.entry.revision for one in await all_entries(store, store.oldest)}
            assert all(ids[f"m{number}"] == int(revision) for number, revision in acked)
            await store.append([store_child.entry_of(10**6)])
            await store.close()
            return before

        made += asyncio.run(look())
    print(f"killed while starting: 12, of which {made} had a store")


def test_a_folder_tells_who_holds_it_until_its_holder_is_killed(folder: Path) -> None:
    holder = start("hold", folder)
    assert holder.stdout is not None
    assert [holder.stdout.readline() for _ in range(2)] == [b"start\n", b"open\n"]

    async def open_and_close() -> None:
        await (await SqliteStore.open(folder, SystemClock())).close()

    for _ in range(2):
        with pytest.raises(CannotStart, match=f"in use by pid {holder.pid} on .*one process each") as told:
            asyncio.run(open_and_close())
        assert type(told.value).__name__ == "StoreInUse"
    kill_after(holder, 0, 0)
    asyncio.run(open_and_close())
