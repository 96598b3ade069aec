"""A small world whose servers move between hosts, its actions, and an applier on a clock that stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from msgspec.structs import replace

from vedette.engine.applier import Applier, ApplierSettings
from vedette.engine.records import Records
from vedette.errors import CloudUnavailable, GiveUp
from vedette.kit.tasks import cancel, keep_running
from vedette.kit.telemetry import Telemetry
from vedette.model.audit import ACTION, PLAN, Action, ActionPlan, Record
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Hands, JsonObject, Ready, Skip, Standing, Store
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

SECONDS = 20.0
"""How long a move takes."""


class World:
    """Where each server is, and what was asked for. `at` is called before and after each request: a place to crash."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.hosts: dict[str, str] = {}
        self.moving: dict[str, tuple[str, float]] = {}
        """Server → where to, and when it is there."""
        self.asked: list[tuple[str, str, str]] = []
        """(request id, server, where to)."""
        self.head: Callable[[], int] = lambda: 0
        self.heads: dict[str, int] = {}
        """Request id → the newest revision when it was made."""
        self.aborted: list[str] = []
        self.most: dict[str, int] = {}
        """Place → the most that went on there at a time."""
        self.going: dict[str, int] = {}
        self.ill = False
        """No question is answered."""
        self.unwell = 0
        """So many of the next requests are not answered."""
        self.deaf = 0
        """So many of the next requests are done, and not answered."""
        self.at: Callable[[str], Awaitable[None]] = _nothing

    def where(self, server: str) -> str:
        target, until = self.moving.get(server, ("", 0.0))
        if target and self.clock.monotonic() >= until - 0.0005:
            del self.moving[server]
            self.hosts[server] = target
        return self.hosts.get(server, "")

    async def move(self, request: str, server: str, target: str, seconds: float) -> None:
        await self.at("before")
        if self.unwell:
            self.unwell -= 1
            raise CloudUnavailable("nova: 503")
        assert server not in self.moving, "it is on its way already"
        self.asked.append((request, server, target))
        self.heads[request] = self.head()
        self.moving[server] = (target, self.clock.monotonic() + seconds)
        await self.at("after")
        if self.deaf:
            self.deaf -= 1
            raise CloudUnavailable("nova: no answer")

    def enter(self, places: Sequence[str]) -> None:
        for place in places:
            self.going[place] = self.going.get(place, 0) + 1
            self.most[place] = max(self.most.get(place, 0), self.going[place])

    def leave(self, places: Sequence[str]) -> None:
        for place in places:
            self.going[place] -= 1


async def _nothing(where: str) -> None: ...


def places(given: JsonObject) -> tuple[str, ...]:
    source, target = given["source_node"], given["destination_node"]
    return f"host:{source}", f"host:{target}", f"pair:{source}>{target}"


def kinds(world: World) -> Mapping[str, Kind]:
    """`move` can be undone and stopped; `push` can neither; `note` has no effect at all.

    Parameters: `fails` names the step that fails, `seconds` is how long a move takes, `patience` how long it is waited for,
    `blind` makes `look` unsure."""

    def fails(given: JsonObject, step: str) -> None:
        if given.get("fails") == step:
            raise GiveUp(f"{step} of {given.get('resource_id', 'a note')} is made to fail")

    def answers() -> None:
        if world.ill:
            raise CloudUnavailable("nova: 502")

    async def check(hands: Hands, given: JsonObject) -> Ready | Skip:
        await asyncio.sleep(0)
        answers()
        fails(given, "check")
        if given.get("fails") == "bug":
            raise KeyError("bug")
        here = world.where(given["resource_id"])
        if here == given["destination_node"]:
            return Skip("it is there already")
        if here != given["source_node"]:
            return Skip(f"it is not on {given['source_node']}")
        return Ready({"from": here})

    async def to(hands: Hands, given: JsonObject, target: str) -> None:
        server = given["resource_id"]
        here = (*places(given), "all")
        world.enter(here)
        try:
            if world.where(server) != target and server not in world.moving:
                await world.move(hands.request_id, server, target, given.get("seconds", SECONDS))
            hands.say(f"moving to {target}")

            async def there() -> bool:
                if world.where(server) != target and server not in world.moving:
                    raise GiveUp(f"{server} is on {world.where(server)}")
                return world.where(server) == target

            await hands.wait(there, given.get("patience", 100_000), f"{server} on {target}")
        finally:
            world.leave(here)

    async def run(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        fails(given, "run")
        await to(hands, given, given["destination_node"])
        fails(given, "late")

    async def verify(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        await world.at("verify")
        answers()
        fails(given, "verify")
        if world.where(given["resource_id"]) != given["destination_node"]:
            raise GiveUp("it is not there")

    async def look(hands: Hands, given: JsonObject, before: JsonObject) -> Standing:
        await asyncio.sleep(0)
        answers()
        if given.get("blind"):
            return "unsure"
        here = world.where(given["resource_id"])
        if given["resource_id"] in world.moving:
            return "running"
        return "done" if here == given["destination_node"] else "undone" if here == before.get("from") else "unsure"

    async def undo(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        fails(given, "undo")
        await to(hands, given, before["from"])

    async def abort(hands: Hands, given: JsonObject, before: JsonObject) -> bool:
        world.aborted.append(given["resource_id"])
        fails(given, "abort")
        world.moving.pop(given["resource_id"], None)
        return True

    async def ready(hands: Hands, given: JsonObject) -> Ready | Skip:
        fails(given, "check")
        return Ready()

    async def note(hands: Hands, given: JsonObject, before: JsonObject) -> None:
        fails(given, "run")

    async def looked(hands: Hands, given: JsonObject, before: JsonObject) -> Standing:
        return "done"

    move = Kind(
        name="move",
        doc="Moves a server.",
        schema={},
        check=check,
        run=run,
        verify=verify,
        look=look,
        undo=undo,
        abort=abort,
        places=places,
    )
    push = Kind(name="push", doc="", schema={}, check=check, run=run, verify=verify, look=look, places=places)
    noted = Kind(name="note", doc="", schema={}, check=ready, run=note, verify=note, look=looked, resource="")
    return {"move": move, "push": push, "note": noted}


class Slow:
    """A store whose writes take some turns of the event loop: two may be on their way at a time."""

    def __init__(self, inner: Store, turns: int) -> None:
        self._inner = inner
        self._turns = turns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def append(self, *given: Any, **more: Any) -> Sequence[int | None]:
        for _ in range(self._turns):
            await asyncio.sleep(0)
        return await self._inner.append(*given, **more)


class Rig:
    """A store, a world and an applier that can be taken away and built anew."""

    def __init__(self, clock: FakeClock | None = None, **settings: Any) -> None:
        self.clock = clock or FakeClock()
        self.store: Store = MemoryStore(self.clock)
        self.world = World(self.clock)
        self.settings = ApplierSettings(**settings)
        self.records: Records
        self.applier: Applier
        self.telemetry = Telemetry()
        self.ended: list[ActionPlan] = []
        self.history: dict[str, list[str]] = {}
        """uuid → states, as they were written."""
        self.wrong: list[str] = []
        """Steps that the state tables don't have."""
        self.task: asyncio.Task[None] | None = None
        self.zones: dict[str, str] = {}

    async def start(self) -> Rig:
        """A new process: nothing of the old one but the store and the world."""
        self.world.head = lambda: self.store.head
        self.records = Records(self.store, self.clock, "here")
        await self.records.load()
        self.records.on_change.append(self._saw)
        self.applier = Applier(
            self.records,
            self.store,
            kinds(self.world),
            lambda: cast(Cloud, None),
            self.clock,
            self.telemetry,
            self.settings,
            zone_of=lambda host: self.zones.get(host, ""),
        )
        self.applier.on_ended.append(self.ended.append)
        self.task = asyncio.create_task(keep_running("applier", self.applier.run, sleep=self.clock.sleep))
        await self.turn()
        return self

    async def stop(self) -> None:
        if self.task is not None:
            await cancel(self.task)
            self.task = None
        self.applier.close()
        self.records.on_change.clear()

    async def __aenter__(self) -> Rig:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def turn(self) -> None:
        await self.clock.advance(0)

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        for _ in range(round(seconds / step)):
            await self.clock.advance(step)
            assert self.task is None or not self.task.done(), self.task

    def _saw(self, before: Record | None, now: Record | None) -> None:
        one = now or before
        if not isinstance(one, Action | ActionPlan):
            return
        states = self.history.setdefault(one.uuid, [])
        state = "gone" if now is None else one.state
        if states and states[-1] == state:
            return
        table: Mapping[str, frozenset[str]] = ACTION if isinstance(one, Action) else PLAN
        if states and state not in table.get(states[-1], ()):
            self.wrong.append(f"{one.KIND} {one.uuid}: {states[-1]} → {state}")
        states.append(state)

    # --- plans ---

    async def plan(
        self, *actions: tuple[str, dict[str, Any], Sequence[int]], uuid: str = "plan", state: Any = "PENDING", **more: Any
    ) -> str:
        """Writes a plan of (type, parameters, parents)."""
        plan = ActionPlan(uuid=uuid, audit_uuid="audit", strategy_uuid="s", strategy_name="s", state=state, **more)
        made = [
            Action(
                uuid=f"{uuid}/{n}",
                action_plan_uuid=uuid,
                audit_uuid="audit",
                action_type=action_type,
                input_parameters=given,
                parents=[f"{uuid}/{parent}" for parent in parents],
                order=n,
            )
            for n, (action_type, given, parents) in enumerate(actions)
        ]
        for one in made:
            server = one.input_parameters.get("resource_id")
            if server and not one.input_parameters.get("elsewhere"):
                self.world.hosts.setdefault(server, one.input_parameters["source_node"])
        await self.records.write([plan, *made])
        await self.turn()
        return uuid

    async def set_state(self, state: Any, uuid: str = "plan") -> None:
        """As the API does."""
        await self.records.update(ActionPlan, uuid, lambda plan: replace(plan, state=state))
        await self.turn()

    def of_plan(self, uuid: str = "plan") -> ActionPlan:
        return self.records.get(ActionPlan, uuid)

    def actions(self, uuid: str = "plan") -> list[Action]:
        return self.records.actions_of(uuid)

    def ends(self, uuid: str = "plan") -> list[str]:
        """`SUCCEEDED/done` of each action."""
        return [f"{action.state}/{action.outcome}" if action.outcome else action.state for action in self.actions(uuid)]


def move(
    server: str, source: str = "a", target: str = "b", *parents: int, how: str = "move", **more: Any
) -> tuple[str, dict[str, Any], Sequence[int]]:
    return how, {"resource_id": server, "source_node": source, "destination_node": target, **more}, parents


def note(*parents: int, **more: Any) -> tuple[str, dict[str, Any], Sequence[int]]:
    return "note", more, parents
