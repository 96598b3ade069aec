"""Guarantee 6 with real processes: the engine is killed (SIGKILL) again and again while it delivers, and so is the target."""

from __future__ import annotations

import asyncio
import random
import select
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import dispatch_child
import msgspec
import pytest
from dispatch_child import ATTEMPTS, HANDLER
from store_child import words

from vedette.kit.clock import SystemClock
from vedette.model.delivery import Delivery
from vedette.store.sqlite import SqliteStore

KILLS = 8
CONCURRENCY = 10
"""Calls at a time: the default."""
SECONDS = 120.0
"""For what is owed to be delivered, at most."""


@pytest.fixture
def folder() -> Iterator[Path]:
    # A real disk: what is in a tmpfs is durable without any fsync.
    with tempfile.TemporaryDirectory(prefix="vedette-") as name:
        yield Path(name)


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for one in started:
        kill(one)


def start(children: list[subprocess.Popen[bytes]], *words: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, dispatch_child.__file__, *map(str, words)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    children.append(child)
    return child


def kill(child: subprocess.Popen[bytes]) -> list[bytes]:
    """What it had said."""
    assert child.stdout is not None
    if child.stdout.closed:
        return []
    child.kill()
    said = child.stdout.read().splitlines(keepends=True)
    child.wait()
    child.stdout.close()
    return said


def opened(child: subprocess.Popen[bytes]) -> int:
    """The number that it says when it is ready."""
    assert child.stdout is not None
    (group,) = words([child.stdout.readline()], "open")
    return int(group[0])


def until_idle(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    until, said = time.monotonic() + SECONDS, b""
    while b"idle\n" not in said:
        ready, _, _ = select.select([child.stdout], [], [], max(0.0, until - time.monotonic()))
        assert ready, f"it still owes something after {SECONDS} s: {said[-500:]!r}"
        some = child.stdout.read(65_536)
        assert some, f"it ended by itself: {said[-500:]!r}"
        said += some
    assert child.wait(30) == 0


def received(file: Path) -> list[tuple[int, str, int]]:
    """(revision, path, the object's `n`), as they came."""
    found = []
    for line in file.read_bytes().splitlines():
        key, path, n = msgspec.json.decode(line)
        name, revision = key.split("/")
        assert name == HANDLER
        found.append((int(revision), path, n))
    return found


async def in_the_store(folder: Path) -> tuple[dict[int, int], list[Delivery]]:
    """Revision → number of each notice, and every delivery."""
    store = await SqliteStore.open(folder, SystemClock())
    try:
        log, after = {}, store.oldest
        while after < store.head:
            some, after = await store.entries(after, limit=5_000)
            log |= {one.entry.revision: int(one.entry.notice.id[1:]) for one in some if one.entry.notice.source == "one"}
        return log, list(await store.deliveries(limit=10**6))
    finally:
        await store.close()


def at_least_once_and_in_order(file: Path, log: dict[int, int]) -> int:
    """How many came more than once."""
    came = received(file)
    first: dict[str, list[int]] = defaultdict(list)
    seen: dict[int, int] = {}
    for revision, path, n in came:
        assert log[revision] == n, "it was told of another state than the entry's"
        if revision not in seen:
            first[path].append(revision)
        seen[revision] = seen.get(revision, 0) + 1
    assert seen.keys() == log.keys(), f"lost: {sorted(log.keys() - seen.keys())[:10]}"
    for path, revisions in first.items():
        assert revisions == sorted(revisions), f"{path}: first arrivals out of order"
    return len(came) - len(seen)


def test_the_engine_is_killed_in_a_loop_and_each_event_arrives_at_least_once(
    folder: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    dice = random.Random()
    data, file = folder / "data", folder / "received"
    port = opened(start(children, "serve", 0, file))
    offered: set[int] = set()
    acked: set[int] = set()
    for _ in range(KILLS):
        again = sorted(offered - acked)
        engine = start(children, "work", data, port, max(offered, default=0) + 1, 10**9, *again)
        opened(engine)
        time.sleep(dice.random())
        said = kill(engine)
        offered |= {int(word) for group in words(said, "offered") for word in group}
        acked |= {int(word) for group in words(said, "acked") for word in group}
    engine = start(children, "work", data, port, 1, 0, *sorted(offered - acked))
    until_idle(engine)
    log, deliveries = asyncio.run(in_the_store(data))
    assert set(log.values()) == offered
    twice = at_least_once_and_in_order(file, log)
    assert [d.revision for d in deliveries] == sorted(log)
    assert {d.outcome for d in deliveries} == {"done"}
    print(f"engine killed {KILLS} times: {len(log)} events, {len(log)} arrived, {twice} of them again")
    assert len(log) > 200


def test_a_target_is_killed_and_started_again_and_no_attempt_is_burned_while_it_is_away(
    folder: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    dice = random.Random()
    data, file = folder / "data", folder / "received"
    target = start(children, "serve", 0, file)
    port = opened(target)
    total = 3_000
    engine = start(children, "work", data, port, 1, total)
    opened(engine)
    for number in range(1, KILLS + 1):
        until = time.monotonic() + SECONDS
        while len(received(file)) < total * number // (KILLS + 2):  # it is in the middle of it
            assert time.monotonic() < until, f"nothing arrives after kill {number - 1}"
            time.sleep(0.005)
        kill(target)
        time.sleep(dice.random() * 0.5)
        target = start(children, "serve", port, file)
        opened(target)
    until_idle(engine)
    log, deliveries = asyncio.run(in_the_store(data))
    assert len(log) == total
    twice = at_least_once_and_in_order(file, log)
    assert {d.outcome for d in deliveries} == {"done"}
    attempts = sum(d.attempt for d in deliveries)
    print(
        f"target killed {KILLS} times: {total} events, {total} arrived, {twice} of them again, {attempts} attempts, "
        f"at most {max(d.attempt for d in deliveries)} of {ATTEMPTS} for one"
    )
    # Only what the target had in its hands when it was killed has cost one.
    assert attempts <= total + KILLS * CONCURRENCY
