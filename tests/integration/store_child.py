"""A process that appends as fast as it can, to be killed: run by test_store_kill.py and test_store_disk.py.

It says each thing that was promised on its standard output, after it was promised.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec

from vedette.errors import CannotStart, StoreUnavailable
from vedette.kit.clock import SystemClock
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import EVERYTHING, Selection
from vedette.store.sqlite import SqliteStore

PRODUCERS = 6
PAYLOAD = msgspec.Raw(b'{"fill":"' + b"x" * 1_500 + b'"}')
MIB = 1_048_576


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def entry_of(number: int) -> NewEntry:
    """The same number is the same notice, as from a broker that delivers again."""
    verb = "delete" if number % 7 == 6 else "create"
    # Never late: the number is the as-of. Never an update: what retention forgot must not matter.
    readings = tuple(
        Reading(
            kind="Port", id=f"o{(number * step) % 60}", verb=verb, as_of=number, project=f"p{number % 3}", fields={"n": number}
        )
        for step in range(1, 1 + number % 3)
    )
    return NewEntry(
        Notice(id=f"m{number}", source="one", event_type="port.update.end", sent_at=number, payload=PAYLOAD), readings
    )


async def append_for_ever(folder: Path, first: int, again: list[int], retain: bool) -> None:
    started = SystemClock().now_us()
    store = await SqliteStore.open(folder, SystemClock())
    say(f"open {store.head}")
    numbers = iter(range(first, first + 10**9))

    async def offer(group: list[int]) -> None:
        say("offered " + " ".join(map(str, group)))
        revisions = await store.append([entry_of(number) for number in group])
        say("acked " + " ".join(f"{number}:{revision or 0}" for number, revision in zip(group, revisions, strict=True)))

    async def produce(size: int) -> None:
        while True:
            await offer([next(numbers) for _ in range(size)])

    async def forget() -> None:
        while True:
            # Only what was there before this round: the test has seen it.
            await store.retain(horizon=started, most=40)
            await asyncio.sleep(0)

    if again:
        await offer(again)
    async with asyncio.TaskGroup() as group:
        for size in range(1, PRODUCERS + 1):
            group.create_task(produce(size))
        if retain:
            group.create_task(forget())


async def fill_the_disk(folder: Path) -> None:
    """A limit on the size of files, in place of a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))

    limit(4096)
    try:
        await SqliteStore.open(folder, SystemClock())
    except CannotStart as why:
        say(f"cannot-start {why}")
    limit(3 * MIB)
    store = await SqliteStore.open(folder, SystemClock())
    kept = 0
    numbers = iter(range(1, 10**9))
    while True:
        batch = [entry_of(next(numbers)) for _ in range(50)]
        try:
            await store.append(batch)
        except StoreUnavailable as why:
            say(f"unavailable {why}")
            break
        kept += len(batch)
    head = store.head
    objects = await store.objects(Selection(EVERYTHING))
    entries, _ = await store.entries(store.oldest, limit=10**6)
    say(f"kept {kept} entries {len(entries)} head {head - store.oldest} objects {len(objects.items)}")
    for _ in range(3):
        try:
            await store.append(batch)
        except StoreUnavailable:
            say("still-full")
    limit(200 * MIB)
    revisions = await store.append(batch)
    say(f"room {revisions[0] == head + 1} {revisions[-1] == head + 50}")
    await store.close()
    store = await SqliteStore.open(folder, SystemClock())
    entries, _ = await store.entries(store.oldest, limit=10**6)
    say(f"reopened {len(entries)}")
    await store.close()


async def hold_the_folder(folder: Path) -> None:
    await SqliteStore.open(folder, SystemClock())
    say("open")
    await asyncio.Event().wait()


def main() -> None:
    what, folder, *rest = sys.argv[1:]
    say("start")
    match what:
        case "append":
            first, retain, *again = map(int, rest)
            asyncio.run(append_for_ever(Path(folder), first, again, bool(retain)))
        case "fill":
            asyncio.run(fill_the_disk(Path(folder)))
        case "hold":
            asyncio.run(hold_the_folder(Path(folder)))


def words(lines: list[bytes], first: str) -> Iterator[list[str]]:
    """The rest of each whole line that begins with this word."""
    for line in lines:
        if line.endswith(b"\n"):
            word, _, rest = line.decode().rstrip("\n").partition(" ")
            if word == first:
                yield rest.split()


if __name__ == "__main__":
    main()
