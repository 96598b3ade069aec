"""Guarantee 9: the applier is taken away at every point where it writes or asks for something, and another one goes on.

Every action ends as done, undone, or unsure; no request is made twice, and none that was not written down before; what the
records say at the end is so in the world.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import pytest
from applying import Rig, move, note
from msgspec.structs import replace

from vedette.engine.records import Records
from vedette.errors import StoreUnavailable
from vedette.kit.tasks import cancel
from vedette.model.audit import ActionPlan
from vedette.model.delivery import Work
from vedette.model.entry import NewEntry
from vedette.model.reading import Key
from vedette.ports import Store
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

Plan = Sequence[tuple[str, dict[str, Any], Sequence[int]]]
HOURS = 4_000.0
"""Seconds that a plan has in these tests."""


class Fuse:
    """Counts the points that a process passes, and ends it at one of them."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.passed = 0
        self.dead = asyncio.Event()
        self._buried = asyncio.Event()

    async def point(self) -> None:
        self.passed += 1
        if self.passed == self.at:
            self.dead.set()
        if self.dead.is_set():
            await self._buried.wait()
            raise StoreUnavailable("this process is dead")

    async def bury(self, rig: Rig) -> None:
        task, rig.task = rig.task, None
        assert task is not None
        task.cancel()
        self._buried.set()
        await cancel(task)
        await rig.stop()


class Mortal:
    """A store as one process sees it."""

    def __init__(self, inner: MemoryStore, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(
        self, entries: Sequence[NewEntry], expect: Mapping[Key, int] | None = None, work: Sequence[Work] = ()
    ) -> Sequence[int | None]:
        await self._fuse.point()
        for _ in range(2):  # others go on meanwhile
            await asyncio.sleep(0)
        revisions = await self._inner.append(entries, expect, work)
        await self._fuse.point()
        return revisions


class Ailing:
    """A store that can't take one of the writes."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner
        self.writes = 0
        self.refuses = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(self, *given: Any, **more: Any) -> Sequence[int | None]:
        self.writes += 1
        if self.writes == self.refuses:
            raise StoreUnavailable("disk full")
        return await self._inner.append(*given, **more)


class Story:
    """One plan, and how it went."""

    def __init__(self, plan: Plan, policy: str, cancel_at: float = 0.0, seed: int = 0, meddles: bool = False) -> None:
        self.plan = plan
        self.policy = policy
        self.cancel_at = cancel_at
        self.dice = random.Random(seed)
        self.meddles = meddles
        """Somebody changes the world while nobody is there."""
        self.met: set[str] = set()
        self.points = 0

    async def goes(self, *crashes: int) -> Rig:
        """From the beginning to the end, with a crash at each of these points of successive processes."""
        clock = FakeClock()
        rig, inner = Rig(clock), MemoryStore(clock)
        for number, at in enumerate((*crashes, 0)):
            fuse = Fuse(at)
            rig.store = cast(Store, Mortal(inner, fuse))

            async def passes(where: str, fuse: Fuse = fuse) -> None:
                await fuse.point()

            rig.world.at = passes
            if number == 0:
                fuse.at, fuse.passed = 0, 0  # what writes the plan is no process of ours
                await rig.start()
                await rig.plan(*self.plan, policy=self.policy, state="RECOMMENDED")
                await rig.records.update(ActionPlan, "plan", lambda plan: replace(plan, state="PENDING"))
                fuse.at, fuse.passed = at, 0
            else:
                await rig.start()
            if await self._lives(rig, inner, fuse):
                self.points = fuse.passed
                break
            await fuse.bury(rig)
            if self.meddles:
                self._meddle(rig)
            clock.tick(self.dice.choice((0, 5, 60)))
        self._holds(rig, await self._intents(inner))
        await rig.stop()
        return rig

    async def _lives(self, rig: Rig, inner: MemoryStore, fuse: Fuse) -> bool:
        """Whether it came to the end of the plan."""
        while not fuse.dead.is_set():
            if rig.clock.monotonic() > HOURS:
                raise AssertionError(f"no end: {rig.of_plan()} {rig.actions()}")
            if rig.of_plan().state not in ("PENDING", "ONGOING", "CANCELLING"):
                return True
            if self.cancel_at and rig.clock.monotonic() >= self.cancel_at and rig.of_plan().state == "ONGOING":
                user = Records(inner, rig.clock)  # whose write is no point of ours
                await user.load()
                await user.update(ActionPlan, "plan", lambda plan: replace(plan, state="CANCELLING"))
            await rig.clock.advance(2.5)
            assert rig.task is not None
            assert not rig.task.done() or fuse.dead.is_set(), rig.task
        return False

    def _meddle(self, rig: Rig) -> None:
        for server in list(rig.world.moving):
            match self.dice.randrange(3):
                case 0:
                    del rig.world.moving[server]  # it was given up by the cloud
                case 1:
                    del rig.world.moving[server]
                    rig.world.hosts[server] = "elsewhere"

    async def _intents(self, store: MemoryStore) -> dict[str, int]:
        """Request → revision at which it was written down."""
        found: dict[str, int] = {}
        some, _ = await store.entries(store.oldest, limit=100_000)
        for one in some:
            for change in one.changes:
                if change.key.kind == "Action":
                    status = msgspec.json.decode(change.now.body)["status"]
                    if status.get("state") == "ONGOING" or status.get("outcome") == "undoing":
                        found.setdefault(status["request_id"], change.revision)
        return found

    def _holds(self, rig: Rig, intents: dict[str, int]) -> None:
        requests = [request for request, _, _ in rig.world.asked]
        assert len(requests) == len(set(requests)), "one request, one effect"
        for request in requests:
            assert request in intents, "nothing was done that was not written down"
            assert intents[request] <= rig.world.heads[request], "and not before it was"
        plan = rig.of_plan()
        assert plan.state in ("SUCCEEDED", "FAILED", "CANCELLED")
        assert not plan.undoing
        for action in rig.actions():
            given, server = action.input_parameters, action.input_parameters.get("resource_id", "")
            assert action.state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED"), action
            assert action.outcome in ("done", "skipped", "failed", "cancelled", "undone", "not undone", "unsure"), action
            self.met.add(action.outcome)
            if action.action_type == "note":
                continue
            here = rig.world.where(server)
            if action.outcome in ("done", "not undone"):
                assert here == given["destination_node"], action
            elif action.outcome in ("cancelled", "undone"):
                assert here == given["source_node"], action
            if self.policy == "rollback" and plan.state == "FAILED":
                assert action.outcome != "done", action
        assert not rig.wrong


STRAIGHT: Plan = [move("s0"), move("s1", "a", "c", 0), move("s2", "x", "y"), note(1, 2)]
BROKEN: Plan = [
    move("s0"),
    move("s1", "a", "c", 0),
    move("s2", "x", "y", how="push"),
    note(1, fails="run"),
    move("s4", "x", "z", 3),
]
HALF: Plan = [move("s0"), move("s1", "a", "c", 0, fails="verify"), move("s2", "a", "d", 1)]


@pytest.mark.parametrize(
    ("plan", "policy", "cancel_at", "state", "outcomes"),
    [
        (STRAIGHT, "stop", 0.0, "SUCCEEDED", {"done"}),
        (BROKEN, "continue", 0.0, "FAILED", {"done", "failed", "cancelled"}),
        (BROKEN, "rollback", 0.0, "FAILED", {"undone", "not undone", "failed", "cancelled"}),
        (HALF, "rollback", 0.0, "FAILED", {"undone", "cancelled"}),
        (STRAIGHT, "stop", 10.0, "CANCELLED", {"done", "cancelled"}),
    ],
    ids=["straight", "continue", "rollback", "half done", "cancelled"],
)
async def test_a_crash_at_every_point_changes_no_end(
    plan: Plan, policy: str, cancel_at: float, state: str, outcomes: set[str]
) -> None:
    calm = Story(plan, policy, cancel_at)
    ends = (await calm.goes()).ends()
    assert calm.points > 15
    for at in range(1, calm.points + 1):
        story = Story(plan, policy, cancel_at, seed=at)
        rig = await story.goes(at)
        assert rig.of_plan().state == state, at
        if not cancel_at:  # what is done in time is a matter of luck there
            assert rig.ends() == ends, at
            assert story.met == outcomes
    print(f"{policy}: a crash at each of {calm.points} points, {len(ends)} actions each time")


@pytest.mark.parametrize(("plan", "policy"), [(STRAIGHT, "stop"), (BROKEN, "rollback")], ids=["straight", "rollback"])
async def test_a_write_that_the_store_refuses_changes_no_end(plan: Plan, policy: str) -> None:
    """The applier is started again, in the same process, and takes up what it had begun itself."""
    ends: list[str] = []
    calm: list[tuple[str, str]] = []
    refused = writes = 0
    while refused <= writes:
        rig = Rig()
        store = Ailing(rig.store)
        rig.store = cast(Store, store)
        async with rig:
            await rig.plan(*plan, policy=policy, state="RECOMMENDED")
            store.writes, store.refuses = 0, 0
            await rig.records.update(ActionPlan, "plan", lambda plan: replace(plan, state="PENDING"))
            store.writes, store.refuses = 0, refused
            await rig.pass_time(300, 5)
            writes = writes or store.writes
            ends = ends or rig.ends()
            assert rig.ends() == ends, refused
            assert rig.of_plan().state == ("FAILED" if policy == "rollback" else "SUCCEEDED")
            asked = [(server, target) for _, server, target in rig.world.asked]
            calm = calm or asked
            assert sorted(asked) == sorted(calm), "nothing is asked for twice"
        refused += 1
    assert refused > 10


async def test_many_plans_many_crashes_and_a_world_that_changes_meanwhile() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    crashes = 0
    met: set[str] = set()
    for _ in range(150):
        plan: list[tuple[str, dict[str, Any], Sequence[int]]] = []
        for n in range(dice.randrange(2, 7)):
            parents = [one for one in range(n) if dice.random() < 0.3]
            fails = dice.choice(("", "", "", "", "check", "run", "verify", "undo", "abort"))
            how = dice.choice(("move", "move", "push"))
            plan.append(move(f"s{n}", dice.choice("ab"), dice.choice("cd"), *parents, how=how, fails=fails))
        story = Story(
            plan,
            dice.choice(("stop", "continue", "rollback")),
            cancel_at=dice.choice((0.0, 0.0, 15.0, 45.0)),
            seed=dice.randrange(2**32),
            meddles=dice.random() < 0.5,
        )
        at = [dice.randrange(1, 40) for _ in range(dice.randrange(1, 5))]
        try:
            await story.goes(*at)
        except BaseException:
            print(f"seed {seed}: {plan} {story.policy} cancelled at {story.cancel_at}, crashes at {at}, meddles {story.meddles}")
            raise
        crashes += len(at)
        met |= story.met
    print(f"150 plans, up to {crashes} crashes, ends: {sorted(met)}")
    assert met >= {"done", "failed", "cancelled", "undone", "not undone", "unsure"}
