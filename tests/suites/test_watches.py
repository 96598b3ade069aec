"""The watch on every store passes the same suite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vedette.ports import Store
from vedette.store.memory import MemoryStore
from vedette.store.sqlite import SqliteStore
from vedette.testing.watch_suite import LoopClock, Opener, WatchSuite

SHM = Path("/dev/shm")


class TestInMemory(WatchSuite):
    durable = False

    @contextmanager
    def place(self) -> Iterator[Opener]:
        async def opener(clock: LoopClock) -> Store:
            return MemoryStore(clock)

        yield opener


class TestOnSqlite(WatchSuite):
    durable = True

    @contextmanager
    def place(self) -> Iterator[Opener]:
        # In memory where there is such a folder: hypothesis opens hundreds, and waits for no disk there.
        with tempfile.TemporaryDirectory(prefix="vedette-", dir=SHM if SHM.is_dir() else None) as folder:

            async def opener(clock: LoopClock) -> Store:
                return await SqliteStore.open(Path(folder), clock)

            yield opener
