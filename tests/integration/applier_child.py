"""A process with a store on disk and an applier whose actions write into a file, to be killed. Run by test_applier_killed.py.

The file is the cloud: each line is a request that it took, and when it will have done it; so a request goes on while nobody is
there. The process makes plans until it is killed, or, told to finish, none and ends when all have ended.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from vedette.engine.applier import Applier, ApplierSettings
from vedette.engine.records import Records
from vedette.errors import GiveUp
from vedette.kit.clock import SystemClock
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.audit import Action, ActionPlan
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Hands, JsonObject, Ready, Skip, Standing
from vedette.store.sqlite import SqliteStore

ACTIONS = 12
"""Of a plan."""
WAITING = 2
"""Plans that have not ended, at most."""


class Line(msgspec.Struct, array_like=True):
    """A request that was taken."""

    request: str
    resource: str
    what: str
    """`do` or `undo`."""
    done_at: float
    """Unix time."""
    head: int
    """Newest revision of the log when it was made."""


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


def lines(file: Path) -> list[Line]:
    return [msgspec.json.decode(line, type=Line) for line in file.read_bytes().splitlines()] if file.exists() else []


class World:
    def __init__(self, file: Path, store: SqliteStore) -> None:
        self._store = store
        self._last = {line.resource: line for line in lines(file)}
        self._file = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def standing(self, resource: str) -> Standing:
        last = self._last.get(resource)
        if last is None:
            return "undone"
        if time.time() < last.done_at:
            return "running"
        return "done" if last.what == "do" else "undone"

    async def ask(self, hands: Hands, resource: str, what: str) -> None:
        wanted: Standing = "done" if what == "do" else "undone"
        await asyncio.sleep(random.random() * 0.02)
        if self.standing(resource) != "running" and self.standing(resource) != wanted:
            line = Line(hands.request_id, resource, what, time.time() + random.random() * 0.4, self._store.head)
            os.write(self._file, msgspec.json.encode(line) + b"\n")
            self._last[resource] = line
        await asyncio.sleep(random.random() * 0.02)
        while self.standing(resource) == "running":
            await asyncio.sleep(0.01)
        if self.standing(resource) != wanted:
            raise GiveUp(f"{resource} is {self.standing(resource)}")


def kinds(world: World) -> Mapping[str, Kind]:
    async def check(hands: Hands, given: JsonObject) -> Ready | Skip:
        return Skip("it is so already") if world.standing(given["resource_id"]) == "done" else Ready({"it": "undone"})

    async def run(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        if given["fails"] == "before":
            raise GiveUp("made to fail before")
        await world.ask(hands, given["resource_id"], "do")
        if given["fails"] == "after":
            raise GiveUp("made to fail after")

    async def verify(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        if world.standing(given["resource_id"]) != "done":
            raise GiveUp("it is not so")

    async def look(hands: Hands, given: JsonObject, before: JsonObject) -> Standing:
        return world.standing(given["resource_id"])

    async def undo(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        await world.ask(hands, given["resource_id"], "undo")

    write = Kind(name="write", doc="", schema={}, check=check, run=run, verify=verify, look=look, undo=undo)
    return {"write": write, "scribble": replace(write, name="scribble", undo=None)}


async def propose(records: Records, dice: random.Random) -> None:
    """One more plan."""
    plan = ActionPlan(
        uuid=str(uuid4()),
        audit_uuid="audit",
        strategy_uuid="s",
        strategy_name="s",
        state="PENDING",
        policy=dice.choice(("stop", "continue", "rollback", "rollback")),
    )
    actions: list[Action] = []
    for n in range(ACTIONS):
        given: dict[str, Any] = {"resource_id": str(uuid4()), "fails": dice.choice([*[""] * 20, "before", "after"])}
        actions.append(
            Action(
                uuid=str(uuid4()),
                action_plan_uuid=plan.uuid,
                audit_uuid="audit",
                action_type=dice.choice(("write", "write", "write", "scribble")),
                input_parameters=given,
                parents=[one.uuid for one in actions if dice.random() < 0.15],
                order=n,
            )
        )
    await records.write([plan, *actions])


async def work(folder: Path, file: Path, seed: int, finish: bool) -> None:
    clock, dice = SystemClock(), random.Random(seed)
    store = await SqliteStore.open(folder, clock)
    records = Records(store, clock)
    await records.load()
    applier = Applier(
        records, store, kinds(World(file, store)), lambda: cast(Cloud, None), clock, Telemetry(), ApplierSettings(parallel=4)
    )
    running = asyncio.create_task(applier.run())
    say("open 0")
    while True:
        assert not running.done(), running
        living = [plan for plan in records.all(ActionPlan) if plan.state in ("PENDING", "ONGOING", "CANCELLING")]
        if finish and not living:
            break
        if not finish and len(living) < WAITING:
            await propose(records, dice)
        if not finish and dice.random() < 0.01:
            for plan in living:
                if plan.state == "ONGOING":
                    await records.update(
                        ActionPlan, plan.uuid, lambda now: replace(now, state="CANCELLING") if now.state == "ONGOING" else now
                    )
        await asyncio.sleep(0.02)
    say("idle")
    await cancel(running)
    applier.close()
    await store.close()


def main() -> None:
    folder, file, seed, finish = sys.argv[1:]
    random.seed(int(seed))
    asyncio.run(work(Path(folder), Path(file), int(seed), finish == "finish"))


if __name__ == "__main__":
    main()
