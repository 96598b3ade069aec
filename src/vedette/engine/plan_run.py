"""One action plan, carried out: what may begin, what has to wait, what becomes of the rest when something fails.

Started by engine/applier.py for a plan that is PENDING, or that somebody was at who is gone. Each action is an ActionRun
(engine/action_run.py). All that is decided here follows from the records, so a new process decides the same.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.engine.action_run import BETWEEN, FINAL, MOST_TEXT, WITHDRAWN, ActionRun, Tools, changed, name
from vedette.engine.planner import arranged, backwards
from vedette.engine.records import TRIES
from vedette.errors import Conflict, NotFound
from vedette.kit.log import kv
from vedette.kit.tasks import cancel
from vedette.model.advice import Proposed
from vedette.model.audit import Action, ActionPlan, PlanState
from vedette.ports import Action as Kind

log = logging.getLogger("vedette.engine.applier")

AT_ONCE = 200
"""Actions that are cancelled in one write."""
NAMED = 10
"""Actions that a plan's message names."""
SKIPPED = "One or more actions were skipped."
"""Watcher's words."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much may happen at a time; 0: no limit."""

    parallel: int = 10
    per_host: int = 2
    per_pair: int = 1
    per_pool: int = 2
    per_zone: int = 0
    zone_of: Callable[[str], str] = lambda host: ""

    def of(self, place: str) -> int:
        match place.partition(":")[0]:
            case "host":
                return self.per_host
            case "pair":
                return self.per_pair
            case "pool":
                return self.per_pool
            case "zone":
                return self.per_zone
            case "resource":
                return 1
        return 0


class PlanRun:
    """See the module."""

    def __init__(self, uuid: str, tools: Tools, limits: Limits, policy: str) -> None:
        """`policy`: of a plan that names none."""
        self.uuid = uuid
        self.woken = asyncio.Event()
        """Set by who sees that the plan has changed."""
        self._tools = tools
        self._records = tools.records
        self._limits = limits
        self._policy = policy
        self._running: dict[asyncio.Task[None], tuple[str, ActionRun]] = {}
        self._aborts: set[asyncio.Task[None]] = set()
        self._stopped = False
        """Nothing new is begun."""
        self._aborted = False
        self._began = tools.clock.monotonic()

    async def run(self) -> ActionPlan | None:
        """Until it has ended; as it is then. None: it was not to be carried out any more."""
        try:
            if not await self._begin():
                return None
            await self._forward()
            if await self._rolls_back():
                await self._back()
            return await self._end()
        except NotFound:
            log.error("an action plan went away while it was carried out", extra=kv(plan=self.uuid))
            return None
        finally:
            await cancel(*self._running, *self._aborts)
            self._tools.numbers.running.set(0)

    # --- the beginning and the end ---

    async def _begin(self) -> bool:
        def begin(plan: ActionPlan) -> ActionPlan:
            if plan.state != "PENDING":
                return plan
            hostname = self._records.hostname or plan.hostname
            return msgspec.structs.replace(plan, state="ONGOING", status_message=None, hostname=hostname)

        before = self._plan.state
        plan = await self._records.update(ActionPlan, self.uuid, begin)
        if plan.state not in ("ONGOING", "CANCELLING"):
            return False
        self._stopped = plan.undoing
        log.info(
            "an action plan is begun" if before == "PENDING" else "an action plan is taken up again",
            extra=self._told(actions=len(self._actions()), policy=self._policy_of(plan), dry_run=plan.dry_run),
        )
        return True

    async def _end(self) -> ActionPlan:
        actions = self._actions()

        def end(plan: ActionPlan) -> ActionPlan:
            # Decided on what the plan is now: somebody may have cancelled it a moment ago.
            if plan.state not in ("ONGOING", "CANCELLING"):
                return plan
            failed = [action for action in actions if action.state == "FAILED"]
            state: PlanState = "SUCCEEDED"
            if plan.state == "CANCELLING":
                state = "CANCELLED"
            elif failed or any(action.state not in FINAL or action.state == "CANCELLED" for action in actions):
                state = "FAILED"
            text = _message(plan, state, actions, failed)[:MOST_TEXT] or None
            return msgspec.structs.replace(plan, state=state, status_message=text, undoing=False)

        plan = await self._records.update(ActionPlan, self.uuid, end)
        self._tools.numbers.ended.labels(plan.state).inc()
        took = round(self._tools.clock.monotonic() - self._began, 1)
        told = self._told(state=plan.state, seconds=took, why=plan.status_message or "")
        (log.warning if plan.state == "FAILED" else log.info)("an action plan has ended", extra=told)
        return plan

    # --- forwards ---

    async def _forward(self) -> None:
        actions = self._actions()
        parents = {action.uuid: action.parents for action in actions}
        walk = Walk([action.uuid for action in actions], parents, self._places_of(actions), self._limits)
        dry = self._plan.dry_run
        for action in actions:
            if action.state in ("ONGOING", "CANCELLING"):
                walk.begun(action.uuid)
                self._start(action.uuid, lambda run: run.resume())
        for action in actions:
            if action.state in FINAL:
                await self._over(walk, action.uuid)
        while True:
            await self._look_at_plan()
            while not self._stopped and len(self._running) < self._limits.parallel:
                uuid = walk.take()
                if uuid is None:
                    break
                if self._records.get(Action, uuid).state == "PENDING":
                    self._start(uuid, (lambda run: run.look_only()) if dry else (lambda run: run.carry_out()))
                else:
                    walk.release(uuid)
                    await self._over(walk, uuid)
            if not self._running:
                break
            for uuid in await self._wait():
                walk.release(uuid)
                await self._over(walk, uuid)
        # Normally there is none left; only records that no planner made can wait for each other.
        await self._cancel(parents, "It waits for an action that is not part of the plan, or that waits for it.")

    async def _over(self, walk: Walk, uuid: str) -> None:
        """What follows from the end of an action."""
        action = self._records.get(Action, uuid)
        if action.state in ("SUCCEEDED", "SKIPPED"):
            walk.over(uuid)
        elif action.state == "FAILED":
            why = f"Not begun: action {uuid} ({name(action)}) failed."
            if self._policy_of(self._plan) == "continue":
                await self._cancel(walk.behind(uuid), why)
            else:
                await self._stop(why)

    async def _look_at_plan(self) -> None:
        if self._plan.state == "CANCELLING" and not self._aborted:
            self._aborted = True
            log.info("an action plan is cancelled", extra=self._told(running=len(self._running)))
            await self._stop(WITHDRAWN)
            for _, run in list(self._running.values()):
                task = asyncio.create_task(run.abort(), name=f"stop action {run.uuid}")
                self._aborts.add(task)

    async def _stop(self, why: str) -> None:
        """Nothing that isn't begun is begun any more; what runs, runs on."""
        self._stopped = True
        for _, run in self._running.values():
            run.withdraw(why)
        at_it = {uuid for uuid, _ in self._running.values()}
        await self._cancel([action.uuid for action in self._actions() if action.uuid not in at_it], why)

    async def _cancel(self, uuids: Iterable[str], why: str) -> None:
        """Those among them that are PENDING."""
        await cancel_actions(self._tools, list(uuids), why)

    # --- backwards ---

    async def _rolls_back(self) -> bool:
        """Whether what was done is to be undone; that it is, is written before anything is."""
        if self._plan.undoing:
            return True
        if self._policy_of(self._plan) != "rollback" or not any(action.state == "FAILED" for action in self._actions()):
            return False

        def undoing(plan: ActionPlan) -> ActionPlan:
            if plan.state != "ONGOING":
                return plan
            return msgspec.structs.replace(plan, undoing=True, status_message="An action failed: rolling back.")

        return (await self._records.update(ActionPlan, self.uuid, undoing)).undoing

    async def _back(self) -> None:
        actions = self._actions()[::-1]
        order, before = _back_order(actions, self._tools.kinds)
        wanted = {action.uuid for action in actions if self._to_undo(action)}
        log.warning("an action plan is rolled back", extra=self._told(actions=len(wanted)))
        walk = Walk(order, before, self._places_of(actions), self._limits)
        for action in actions:
            if action.outcome == "undoing":  # by somebody who is gone: it is brought to an end, also if the plan is cancelled
                walk.begun(action.uuid)
                self._start(action.uuid, lambda run: run.undo())
        while True:
            cancelled = self._plan.state == "CANCELLING"
            while not cancelled and len(self._running) < self._limits.parallel:
                uuid = walk.take()
                if uuid is None:
                    break
                if uuid in wanted:
                    self._start(uuid, lambda run: run.undo())
                else:
                    walk.release(uuid)
                    walk.over(uuid)
            if not self._running:
                break
            for uuid in await self._wait():
                # Also where it could not be undone: the others are no better off for waiting.
                walk.release(uuid)
                walk.over(uuid)
        for action in self._actions():
            if self._to_undo(action) and action.state == "SUCCEEDED":  # the plan was cancelled in between
                left = changed(outcome="not undone", status_message=f"Not undone: {BETWEEN}")
                await self._records.update(Action, action.uuid, left)

    def _to_undo(self, action: Action) -> bool:
        kind = self._tools.kinds.get(action.action_type)
        if kind is not None and not kind.resource and kind.undo is None:
            return False  # it is about nothing: nop, sleep
        if action.state == "SUCCEEDED":
            return action.outcome in ("done", "undoing")
        # One that failed may be half done.
        return action.state == "FAILED" and action.attempt > 0 and action.outcome in ("failed", "unsure", "undoing")

    # --- tasks ---

    def _start(self, uuid: str, work: Callable[[ActionRun], Any]) -> None:
        run = ActionRun(uuid, self._tools)
        self._running[asyncio.create_task(work(run), name=f"action {uuid}")] = (uuid, run)
        self._tools.numbers.running.set(len(self._running))

    async def _wait(self) -> list[str]:
        """Until an action is over, or the plan has changed; those that are over. Raises what a task raised."""
        woken = asyncio.ensure_future(self.woken.wait())
        try:
            await asyncio.wait({*self._running, *self._aborts, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(woken)
        self.woken.clear()
        for task in [task for task in self._aborts if task.done()]:
            self._aborts.discard(task)
            task.result()
        ended = [task for task in self._running if task.done()]
        over = [self._running.pop(task)[0] for task in ended]
        self._tools.numbers.running.set(len(self._running))
        wrong = [why for task in ended if (why := task.exception()) is not None]
        if wrong:
            raise wrong[0]
        return over

    # --- the rest ---

    @property
    def _plan(self) -> ActionPlan:
        return self._records.get(ActionPlan, self.uuid)

    def _actions(self) -> list[Action]:
        return self._records.actions_of(self.uuid)

    def _policy_of(self, plan: ActionPlan) -> str:
        return plan.policy or self._policy

    def _places_of(self, actions: Sequence[Action]) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for action in actions:
            places = self._named_places(action)
            if self._limits.per_zone:
                zones = {self._limits.zone_of(place[5:]) for place in places if place.startswith("host:")}
                places |= {f"zone:{zone}" for zone in zones if zone}
            resource = action.input_parameters.get("resource_id")
            if resource:
                places.add(f"resource:{resource}")
            found[action.uuid] = tuple(sorted(place for place in places if self._limits.of(place)))
        return found

    def _named_places(self, action: Action) -> set[str]:
        kind = self._tools.kinds.get(action.action_type)
        if kind is None:
            return set()
        try:
            return set(kind.places(action.input_parameters))
        except Exception:
            # Its parameters are not what they should be: its pre-condition will say so, and the others go on.
            log.exception("where an action puts a load can't be told", extra=self._told(action=action.uuid))
            return set()

    def _told(self, **more: Any) -> dict[str, Any]:
        plan = self._plan
        return kv(plan=self.uuid, audit=plan.audit_name or plan.audit_uuid, **more)


class Walk:
    """The order of a plan, one way or the other: what may begin now. A place that is full holds up only what needs it."""

    def __init__(
        self, order: Sequence[str], before: Mapping[str, Collection[str]], places: Mapping[str, tuple[str, ...]], limits: Limits
    ) -> None:
        self._rank = {uuid: at for at, uuid in enumerate(order)}
        self._places = places
        self._limits = limits
        self._next: dict[str, list[str]] = {uuid: [] for uuid in order}
        self._missing: dict[str, int] = {}
        """How many it still waits for. What is waited for and isn't part of the order is never over."""
        for uuid in order:
            waits = set(before[uuid])
            self._missing[uuid] = len(waits)
            for one in waits:
                if one in self._next:
                    self._next[one].append(uuid)
        self._ready: list[tuple[int, str]] = [(rank, uuid) for uuid, rank in self._rank.items() if not self._missing[uuid]]
        self._used: dict[str, int] = {}
        self._parked: dict[str, list[tuple[int, str]]] = {}
        """Full place → those that would begin if there were room in it."""
        self._freed: set[str] = set()
        """Places with room again, and somebody parked."""
        self._out: set[str] = set()
        """Begun, or over."""
        self._over: set[str] = set()

    def take(self) -> str | None:
        """The first in the order that may begin, with its places."""
        while True:
            self._freed = {place for place in self._freed if self._parked.get(place) and not self._full(place)}
            heaps = [self._parked[place] for place in self._freed]
            heap = min((one for one in (self._ready, *heaps) if one), key=lambda one: one[0], default=None)
            if heap is None:
                return None
            rank, uuid = heapq.heappop(heap)
            if uuid in self._out:
                continue
            full = next((place for place in self._places[uuid] if self._full(place)), None)
            if full is None:
                self.begun(uuid)
                return uuid
            heapq.heappush(self._parked.setdefault(full, []), (rank, uuid))

    def _full(self, place: str) -> bool:
        return self._used.get(place, 0) >= self._limits.of(place)

    def begun(self, uuid: str) -> None:
        """It takes its places, whether there is room or not (it was begun by another process)."""
        self._out.add(uuid)
        for place in self._places[uuid]:
            self._used[place] = self._used.get(place, 0) + 1

    def release(self, uuid: str) -> None:
        for place in self._places[uuid]:
            self._used[place] -= 1
            self._freed.add(place)

    def over(self, uuid: str) -> None:
        """Those that wait for it wait for one less."""
        if uuid in self._over:
            return
        self._over.add(uuid)
        self._out.add(uuid)
        for one in self._next[uuid]:
            self._missing[one] -= 1
            if not self._missing[one]:
                heapq.heappush(self._ready, (self._rank[one], one))

    def behind(self, uuid: str) -> list[str]:
        """All that wait for it, also through others."""
        found: dict[str, None] = {}
        todo = [uuid]
        while todo:
            for one in self._next[todo.pop()]:
                if one not in found:
                    found[one] = None
                    todo.append(one)
        return list(found)


async def cancel_actions(tools: Tools, uuids: Sequence[str], why: str) -> None:
    """Those that are PENDING become CANCELLED, some hundreds in a write."""
    records = tools.records
    for at in range(0, len(uuids), AT_ONCE):
        some = uuids[at : at + AT_ONCE]
        for _ in range(TRIES):
            pending = [action for action in (records.get(Action, uuid) for uuid in some) if action.state == "PENDING"]
            if not pending:
                break
            try:
                await records.write(
                    [
                        msgspec.structs.replace(action, state="CANCELLED", outcome="cancelled", status_message=why[:MOST_TEXT])
                        for action in pending
                    ]
                )
            except Conflict:
                continue
            for action in pending:
                tools.numbers.actions.labels(action.action_type, "cancelled").inc()
            break


def _back_order(actions: Sequence[Action], kinds: Mapping[str, Kind]) -> tuple[list[str], dict[str, set[str]]]:
    """In which order they are undone, and what each waits for. `actions`: last ones first.

    Backwards; but strictly backwards would bring servers back to a host that takes none yet, since it was disabled before they
    left. So it is planned as any moving of servers is, and where that leaves room, what one depended on is undone after it.
    """
    known = [action for action in actions if action.action_type in kinds]
    proposed = [backwards(Proposed(action.action_type, action.input_parameters)) for action in known]
    places, parents = arranged(proposed, "graph", kinds)
    order = [known[place].uuid for place in places] + [action.uuid for action in actions if action.action_type not in kinds]
    before = {action.uuid: set[str]() for action in actions}
    for place, action in enumerate(known):
        before[action.uuid].update(known[parent].uuid for parent in parents[place])
    rank = {uuid: at for at, uuid in enumerate(order)}
    for action in actions:
        for parent in action.parents:
            if parent in rank and rank[action.uuid] < rank[parent]:
                before[parent].add(action.uuid)
    return order, before


def _message(plan: ActionPlan, state: PlanState, actions: Sequence[Action], failed: Sequence[Action]) -> str:
    parts: list[str] = []
    if plan.dry_run and state == "SUCCEEDED":
        said = [action.status_message or "" for action in actions]
        would = sum(text.startswith("Dry run: would be done") for text in said)
        fail = sum(text.startswith("Dry run: would fail") for text in said)
        return f"Dry run: {would} would be done, {fail} would fail, {len(said) - would - fail} would be skipped."
    if state == "CANCELLED":
        done = sum(action.outcome == "done" for action in actions)
        parts.append(f"Cancelled: {done} of {len(actions)} actions were done.")
    if failed:
        first = failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        parts.append(f"Action {first.uuid} ({name(first)}) failed{more}: {first.status_message}")
    elif state == "FAILED":
        parts.append("Not all actions could be begun.")
    if plan.undoing:
        undone = sum(action.outcome == "undone" for action in actions)
        left = [action for action in actions if action.outcome in ("not undone", "unsure")]
        parts.append(f"Rolled back: {undone} undone.")
        if left:
            names = "; ".join(f"{action.uuid} ({name(action)}): {action.status_message}" for action in left[:NAMED])
            parts.append(f"Not undone: {len(left)}: {names}{'; …' if len(left) > NAMED else ''}")
    if state == "SUCCEEDED" and any(action.state == "SKIPPED" for action in actions):
        parts.append(SKIPPED)
    return " ".join(parts)
