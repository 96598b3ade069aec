"""Guarantee 9 with real processes: the applier is killed (SIGKILL) again and again while it carries out plans."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import applier_child
import msgspec
import pytest
from applier_child import lines
from store_child import words

from vedette.engine.records import Records
from vedette.kit.clock import SystemClock
from vedette.model.audit import Action, ActionPlan
from vedette.store.sqlite import SqliteStore

KILLS = 12
SECONDS = 120.0
"""For what was begun to end, at most."""


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
    command = [sys.executable, applier_child.__file__, *map(str, words)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, bufsize=0)
    children.append(child)
    return child


def kill(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    if not child.stdout.closed:
        child.kill()
        child.wait()
        child.stdout.close()


def until_open(child: subprocess.Popen[bytes]) -> None:
    assert child.stdout is not None
    assert list(words([child.stdout.readline()], "open")) == [["0"]]


async def in_the_store(folder: Path) -> tuple[list[ActionPlan], dict[str, list[Action]], dict[str, int]]:
    """Plans, the actions of each, and the revision at which each request was written down."""
    store = await SqliteStore.open(folder, SystemClock())
    try:
        records = Records(store, SystemClock())
        await records.load()
        plans = records.all(ActionPlan)
        intents: dict[str, int] = {}
        after = store.oldest
        while after < store.head:
            some, after = await store.entries(after, limit=5_000)
            for change in (change for one in some for change in one.changes if change.key.kind == "Action"):
                status = msgspec.json.decode(change.now.body)["status"]
                if status["state"] == "ONGOING" or status["outcome"] == "undoing":
                    intents.setdefault(status["request_id"], change.revision)
        return plans, {plan.uuid: records.actions_of(plan.uuid) for plan in plans}, intents
    finally:
        await store.close()


def test_the_applier_is_killed_in_a_loop_and_every_action_comes_to_an_end(
    folder: Path, children: list[subprocess.Popen[bytes]]
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    data, file = folder / "data", folder / "cloud"
    in_hand = 0
    for _ in range(KILLS):
        child = start(children, data, file, dice.randrange(2**32), "go on")
        until_open(child)
        time.sleep(dice.uniform(0.05, 0.7))
        kill(child)
        now = time.time()
        in_hand += sum(line.done_at > now for line in lines(file))
    child = start(children, data, file, 0, "finish")
    until_open(child)
    assert child.wait(SECONDS) == 0
    plans, actions, intents = asyncio.run(in_the_store(data))
    asked = lines(file)

    requests = Counter(line.request for line in asked)
    assert set(requests.values()) == {1}, "one request, one effect"
    for line in asked:
        assert line.request in intents, "nothing was done that was not written down"
        assert intents[line.request] <= line.head, "and not before it was"
    last = {line.resource: line.what for line in asked}
    outcomes: Counter[str] = Counter()
    again = 0
    for plan in plans:
        assert plan.state in ("SUCCEEDED", "FAILED", "CANCELLED")
        assert not plan.undoing
        for action in actions[plan.uuid]:
            outcomes[action.outcome] += 1
            again += max(0, action.attempt - 1)
            there = last.get(action.input_parameters["resource_id"], "never")
            match action.state, action.outcome:
                case ("SUCCEEDED" | "CANCELLED", "done") | ("SUCCEEDED", "not undone"):
                    assert there == "do"
                case _, "undone":
                    assert there == "undo"
                case _, "cancelled":
                    assert there == "never"
                case "FAILED", "failed":
                    assert there in ("never", "do")
                    assert plan.policy != "rollback" or there == "never" or plan.state == "CANCELLED"
                case "FAILED", "not undone":
                    assert there == "do"
                case other:
                    raise AssertionError(f"{other}: {action}")
    states = Counter(plan.state for plan in plans)
    print(
        f"applier killed {KILLS} times: {len(plans)} plans {dict(states)}, {outcomes.total()} actions {dict(outcomes)}, "
        f"{len(asked)} requests, {in_hand} of them under way at a kill, {again} begun again"
    )
    assert outcomes["done"] + outcomes["undone"] > 10
    assert in_hand > 0, "it was never killed in the middle of one"
