"""Audits: decides which are due, runs them, and leaves the plan in the log.

Follows the records (engine/records.py) and the triggers that wait (engine/triggers.py). A run is begun by one write (the audit
is ONGOING, the triggers that it took are no longer waiting) and ended by one (the plan with its actions, the audit's state, the
run is over): after a crash in between it is begun again with the same triggers. The work itself is done through
engine/advising.py, and engine/applier.py carries the plan out.

- ONESHOT: as soon as it is PENDING, once.
- CONTINUOUS: every `interval` (seconds, or cron in UTC), between `start_time` and `end_time`. It stays ONGOING.
- EVENT: when triggers wait. What comes during a run waits for the next one, which takes all of them (`on_busy: coalesce`) or the
  oldest (`queue`). FAILED and SUCCEEDED ones run again. While a plan is carried out, or a cool-down lasts, triggers wait.

A run that doesn't take place is counted on the audit, and its `status_message` says why.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Literal

import msgspec

from vedette.engine.advising import Advising, Interrupted, Proposal, Run
from vedette.engine.audit_times import next_run, run_is_due
from vedette.engine.record_notices import Told, audit_notice
from vedette.engine.records import OWNER, Records
from vedette.engine.triggers import MOST_KEPT, RUNNING, Taken, Triggers
from vedette.errors import BadRequest, Conflict, Expired, NotFound, Refused, TooBusy, TryLater, VedetteError
from vedette.kit.clock import Clock, parse_us, rfc3339, rfc3339_us
from vedette.kit.log import kv
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model import goals
from vedette.model.advice import Done, Trigger
from vedette.model.audit import Action, ActionPlan, Audit, Record, StrategyRecord
from vedette.model.delivery import PutState, Work
from vedette.model.snapshot import Snapshot
from vedette.ports import Action as ActionPlug
from vedette.ports import JsonObject, Meter, Store, Strategy

log = logging.getLogger("vedette.engine.audits")

WRITES = 5
"""Times that the end of a run is written anew because somebody changed the audit."""
MOST_ATTEMPTS = 3
"""Of one run whose cloud or meter can't be asked, or whose strategy's process ended."""
MOST_DEATHS = 20
"""Of the service in the middle of one run; strategies are no part of it, so it will hardly have been the run."""
RETRY_SECONDS = (5.0, 30.0)
"""Waits before the second and the third attempt of a run whose cloud or meter can't be asked."""
SAY_SECONDS = 2.0
"""Between two words on how far a run is, on the audit."""
LOOK_SECONDS = 60.0
"""At least so often all audits are looked at: also when nothing happens."""
COOLED = "cooled"
"""Space of the rows that say when a run last looked at an alarmed object: `<audit>/<object>`."""
MOST_COOLED = 1_000
"""Objects of an audit that are remembered."""

OnBusy = Literal["coalesce", "queue", "reject"]


class AuditSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How one audit's triggers and plans are treated; see config.Audits."""

    on_busy: OnBusy = "coalesce"
    max_queued: int = 1_000
    rerun_failed: bool = True
    cooldown: float = 0.0
    object_cooldown: float = 0.0
    policy: str = "stop"
    dry_run: bool = False
    planner: str = "graph"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of all audits."""

    source: str
    """The source whose inventory is audited."""
    usual: AuditSettings = AuditSettings()
    special: Mapping[str, AuditSettings] = {}
    """Of some audits, by name or uuid."""
    runs: int = 2
    """Audits that run at one time."""
    remember_alarms: bool = False
    """Keep what webhooks tell of alarms, for engine/alarms.py."""

    def of(self, audit: Audit) -> AuditSettings:
        return self.special.get(audit.name) or self.special.get(audit.uuid) or self.usual


class Audits:
    """See the module. `load`, then `run` until cancelled."""

    def __init__(
        self,
        store: Store,
        records: Records,
        advising: Sequence[Advising],
        strategies: Mapping[str, Strategy],
        actions: Mapping[str, ActionPlug],
        meters: Sequence[Meter],
        clock: Clock,
        telemetry: Telemetry,
        settings: Settings,
    ) -> None:
        self._store = store
        self._records = records
        self._advising = list(advising)
        self._strategies = strategies
        self._actions = actions
        self._meters = meters
        self._clock = clock
        self.settings = settings
        self._triggers = Triggers(store, clock, remember_alarms=settings.remember_alarms)
        self._wake = asyncio.Event()
        self._running: dict[str, asyncio.Task[None]] = {}
        """Audit → its run."""
        self._resumed: dict[str, Taken] = {}
        """Runs that were under way when the service ended."""
        self._measuring: set[asyncio.Task[None]] = set()
        self._cooled: dict[str, dict[str, int]] = {}
        self._ended_at: dict[str, int] = {}
        """Audit → when its last run ended, for the cool-down."""
        self._not_before: dict[str, int] = {}
        """Audit → when it is tried again."""
        self._lent = 0
        records.on_change.append(self._changed)
        self._runs = telemetry.counter("audit_runs_total", "Runs of audits, by how they ended", "audit", "outcome")
        self._accepted = telemetry.counter("audit_triggers_total", "Triggers of EVENT audits", "audit", "outcome")
        self._took = telemetry.histogram(
            "audit_run_seconds", "How long runs of audits took", "strategy", buckets=(0.1, 0.5, 1, 5, 15, 60, 300)
        )
        telemetry.gauge("audits_running", "Audits that run now").set_function(lambda: len(self._running))
        telemetry.gauge("audit_triggers_waiting", "Triggers that wait for a run").set_function(self._triggers.number)

    # --- from outside ------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """What was under way."""
        self._resumed = await self._triggers.load()
        for row in await self._store.state(OWNER, COOLED):
            key, _, thing = row.key.partition("/")
            self._cooled.setdefault(key, {})[thing] = row.due
        for audit in self._records.all(Audit):
            ended = max((parse_us(plan.created_at) or 0 for plan in self._records.plans_of(audit.uuid)), default=0)
            if ended:
                self._ended_at[audit.uuid] = ended

    async def run(self) -> None:
        """Until cancelled; raises nothing by itself."""
        try:
            while True:
                self._wake.clear()
                soonest = self._look()
                wait = LOOK_SECONDS if soonest is None else min(LOOK_SECONDS, max(0.0, (soonest - self._clock.now_us()) / 1e6))
                await self._sleep(wait)
        finally:
            await cancel(*self._running.values(), *self._measuring)

    async def _sleep(self, seconds: float) -> None:
        woken = asyncio.ensure_future(self._wake.wait())
        slept = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({woken, slept}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel(woken, slept)

    async def trigger(self, ident: str, trigger: Trigger, *, key: str = "", work: Sequence[Work] = ()) -> None:
        """Returns when the trigger is durable, and `work` with it: a run that begins after it will know of it.

        Raises NotFound; BadRequest (no EVENT audit, or in a state in which it can't be triggered: Watcher's words); TooBusy
        (`on_busy: queue`, and the queue is full); StoreUnavailable."""
        audit = self._records.find(Audit, ident)
        settings = self.settings.of(audit)
        if audit.audit_type != "EVENT":
            raise BadRequest(f"Audit type {audit.audit_type} is disallowed.")
        waiting = self._triggers.waiting(audit.uuid)
        busy = audit.state == "ONGOING" or waiting is not None
        allowed = {"PENDING", "SUCCEEDED", "ONGOING"} | ({"FAILED"} if settings.rerun_failed else set())
        if audit.state not in allowed or (busy and settings.on_busy == "reject"):
            self._accepted.labels(audit.name, "refused").inc()
            raise BadRequest(f"Audit state {'ONGOING' if busy else audit.state} is disallowed.")
        keep = MOST_KEPT
        if settings.on_busy == "queue":
            keep = settings.max_queued
            if waiting is not None and waiting.count >= keep:
                self._accepted.labels(audit.name, "refused").inc()
                raise TooBusy(f"{keep} triggers of audit {audit.name} wait already", delay=10.0)
        await self._triggers.add(audit, trigger, keep=keep, key=key, work=work)
        self._accepted.labels(audit.name, "accepted").inc()
        self._wake.set()

    def plan_ended(self, plan: ActionPlan) -> None:
        """A plan was carried out: its efficacy is measured, and who waited for it may go on."""
        self._wake.set()
        strategy = self._strategies.get(plan.strategy_name)
        if plan.dry_run or strategy is None or strategy.measure is None or plan.state not in ("SUCCEEDED", "FAILED"):
            return
        task = asyncio.create_task(self._measure(plan), name=f"efficacy of {plan.uuid}")
        self._measuring.add(task)
        task.add_done_callback(self._measuring.discard)

    async def replay(self, ident: str, revision: int = 0) -> JsonObject:
        """What the audit would have proposed at a revision (0: now). Changes nothing. Raises NotFound, Expired, BadRequest,
        TryLater."""
        audit = self._records.find(Audit, ident)
        strategy = self._strategy(audit)
        triggers: list[Trigger] = []
        for plan in self._records.plans_of(audit.uuid):
            if plan.snapshot_revision == revision:
                triggers = msgspec.convert(plan.trigger, list[Trigger])
        at = self._clock.now_us()
        if revision:
            entries, _ = await self._store.entries(revision - 1, limit=1)
            at = entries[0].entry.appended_at if entries else at
        async with self._lend() as run:
            revision, built = await run.snapshot("now", strategy.models, audit.scope, self.settings.source, revision=revision)
            measured = await run.measured("now", strategy.name, audit.parameters, self._meters, at)
            order = self.settings.of(audit).planner
            found = await run.propose("now", strategy.name, audit.parameters, triggers, order)
        indicators, overall = goals.shown(goals.BY_NAME[strategy.goal], found.indicators)
        return {
            "audit": {"uuid": audit.uuid, "name": audit.name},
            "strategy": strategy.name,
            "revision": str(revision),
            "at": rfc3339(at),
            "snapshot": msgspec.to_builtins(built),
            "actions": [{"action_type": one.action_type, "input_parameters": one.parameters} for one in found.actions],
            "efficacy_indicators": indicators,
            "global_efficacy": overall,
            "notes": [*measured.missing, *found.notes],
        }

    async def data_model(self, ident: str = "") -> list[JsonObject]:
        """Watcher's compute data model, in the scope of an audit if one is named. Raises NotFound."""
        scope = self._records.find(Audit, ident).scope if ident else []
        async with self._lend() as run:
            await run.snapshot("now", ("compute",), scope, self.settings.source)
            rows: list[JsonObject] = await run.model("now")
        return rows

    async def strategy_state(self, name: str) -> list[JsonObject]:
        """What a strategy needs, and whether it is there, in the form of Watcher's `strategies/{name}/state`. Raises NotFound."""
        strategy = self._strategies.get(name)
        if strategy is None:
            raise NotFound(f"Strategy {name} could not be found")
        usual = {key: value["default"] for key, value in strategy.schema.get("properties", {}).items() if "default" in value}
        try:
            queries = strategy.metrics(Snapshot(revision=0), usual)
        except (BadRequest, KeyError):
            queries = ()  # it depends on parameters that have no default
        states = {meter: await meter.state() for meter in self._meters} if queries else {}
        metrics = [
            {query.metric: "available" if any(query.metric in meter.metrics for meter in self._meters) else "not available"}
            for query in queries
        ]
        meters = [f"{type(meter).__module__.rpartition('.')[2]}: {state}" for meter, state in states.items()]
        return [
            {"type": "Datasource", "state": "; ".join(meters), "mandatory": bool(queries), "comment": ""},
            {"type": "Metrics", "state": metrics, "mandatory": False, "comment": ""},
            {
                "type": "CDM",
                "state": [{f"{one}_model": "available"} for one in strategy.models],
                "mandatory": True,
                "comment": "",
            },
            {"type": "Name", "state": name, "mandatory": "", "comment": ""},
        ]

    # --- which are due -----------------------------------------------------------------------------------------------------

    def _changed(self, before: Record | None, now: Record | None) -> None:
        if isinstance(now or before, Audit | ActionPlan):
            self._wake.set()

    def _look(self) -> int | None:
        """Begin what is due; when the next one will be (UTC microseconds), None: nobody knows."""
        soonest: int | None = None
        now = self._clock.now_us()
        for audit in self._records.all(Audit):
            if audit.uuid in self._running or len(self._running) >= self.settings.runs:
                continue
            due = self._due(audit, now)
            if due is None:
                continue
            if due > now:
                soonest = due if soonest is None else min(soonest, due)
                continue
            task = asyncio.create_task(self._one(audit.uuid), name=f"audit {audit.name}")
            self._running[audit.uuid] = task
            task.add_done_callback(lambda task, key=audit.uuid: self._over(key, task))  # type: ignore[misc]
        return soonest

    def _over(self, key: str, task: asyncio.Task[None]) -> None:
        self._running.pop(key, None)
        self._wake.set()
        if not task.cancelled() and task.exception() is not None:
            # A bug of ours, or a store that can't be written: not again at once.
            self._not_before[key] = self._clock.now_us() + 10_000_000
            log.error("an audit's run could not be carried on", exc_info=task.exception(), extra=kv(audit=key))

    def _due(self, audit: Audit, now: int) -> int | None:
        """When it should run (not after `now`: at once); None: not until something happens."""
        not_before = self._not_before.get(audit.uuid, 0)
        if audit.uuid in self._resumed:
            return max(not_before, 0)
        if audit.audit_type == "ONESHOT":
            return not_before if audit.state == "PENDING" else None
        if audit.audit_type == "CONTINUOUS":
            due = run_is_due(audit, now)
            return None if due is None else max(due, not_before)
        waiting = self._triggers.waiting(audit.uuid)
        if waiting is None or audit.state not in ("PENDING", "SUCCEEDED", "FAILED"):
            return None
        if not audit.force and self._plan_under_way():
            return None  # `_changed` wakes us when the plan has ended
        return max(not_before, self._cool_until(audit, [trigger for _, trigger in waiting.kept]))

    def _cool_until(self, audit: Audit, triggers: Sequence[Trigger]) -> int:
        settings = self.settings.of(audit)
        until = 0
        if settings.cooldown and audit.uuid in self._ended_at:
            until = self._ended_at[audit.uuid] + round(settings.cooldown * 1e6)
        if settings.object_cooldown:
            cooled = self._cooled.get(audit.uuid, {})
            span = round(settings.object_cooldown * 1e6)
            # As soon as one of the triggers speaks of something that has cooled down, or of nothing.
            free = min(
                max((cooled[one] + span for one in trigger.objects if one in cooled), default=0)
                if trigger.objects and all(one in cooled for one in trigger.objects)
                else 0
                for trigger in triggers
            )
            until = max(until, free)
        return until

    def _plan_under_way(self) -> str:
        """A plan that is being carried out; "": none is."""
        # (What somebody asked for at a front end is one step, and none of ours.)
        plans = (plan for plan in self._records.all(ActionPlan) if not plan.requested_by)
        return next((plan.uuid for plan in plans if plan.state in ("ONGOING", "CANCELLING")), "")

    # --- one run -----------------------------------------------------------------------------------------------------------

    async def _one(self, key: str) -> None:
        try:
            audit = self._records.get(Audit, key)
            taken = await self._begin(audit)
        except (NotFound, Conflict):
            return  # deleted, or changed: it is looked at again
        if taken is None:
            return
        began = self._clock.monotonic()
        outcome = "failed"
        try:
            outcome = await self._carry(key, taken)
        finally:
            self._ended_at[key] = self._clock.now_us()
            self._runs.labels(audit.name, outcome).inc()
            self._took.labels(self._strategy_name(audit)).observe(self._clock.monotonic() - began)
            log.info("an audit has run", extra=kv(audit=audit.name, run=taken.number, triggers=taken.count, outcome=outcome))

    async def _begin(self, audit: Audit) -> Taken | None:
        """The write that begins a run; None: there is none now."""
        key, now = audit.uuid, self._clock.now_us()
        resumed = self._resumed.get(key)
        if resumed is not None:
            if audit.state != "ONGOING" or resumed.attempt >= MOST_DEATHS:
                await self._fail(key, f"the service ended {resumed.attempt} times in the middle of run {resumed.number}")
                self._resumed.pop(key, None)
                return None
            taken = msgspec.structs.replace(resumed, attempt=resumed.attempt + 1)
            await self._store.append([], work=[PutState(OWNER, RUNNING, key, msgspec.json.encode(taken))])
            self._resumed.pop(key, None)
            log.warning("a run that was cut off is begun again", extra=kv(audit=audit.name, run=taken.number))
            return taken
        if audit.audit_type == "CONTINUOUS" and audit.end_time and now >= (parse_us(audit.end_time) or now + 1):
            await self._records.write([msgspec.structs.replace(audit, state="SUCCEEDED", next_run_time=None)])
            return None
        blocking = "" if audit.force else self._plan_under_way()
        if blocking and audit.audit_type != "EVENT":
            await self._skip(audit, f"action plan {blocking} is being carried out")
            return None
        settings = self.settings.of(audit)
        triggers, count, gone = self._triggers.take(key, 1 if settings.on_busy == "queue" else MOST_KEPT)
        taken = Taken(number=audit.runs + 1, started_at=now, triggers=triggers, count=count)
        begun = msgspec.structs.replace(
            audit,
            state="ONGOING",
            runs=taken.number,
            triggers=audit.triggers + count,
            hostname=self._records.hostname or None,
            status_message=None,
        )
        work: list[Work] = [*gone, PutState(OWNER, RUNNING, key, msgspec.json.encode(taken))]
        work += self._cool(audit, triggers, now)
        try:
            await self._records.write([begun], work=work, notes=[audit_notice("strategy.start", begun, self._records)])
        except BaseException:
            self._triggers.kept(key)
            raise
        self._triggers.taken(key)
        return taken

    async def _carry(self, key: str, taken: Taken) -> str:
        """From the snapshot to the plan; how it ended."""
        for attempt in range(MOST_ATTEMPTS):
            try:
                return await self._propose(key, taken)
            except TryLater as why:
                trouble: VedetteError = why
                if attempt + 1 < MOST_ATTEMPTS:
                    wait = max(RETRY_SECONDS[attempt], min(why.delay, 60.0))
                    await self._say(key, f"{why}; tried again in {wait:.0f} s")
                    await self._clock.sleep(wait)
            except Interrupted as why:
                trouble = why
            except (Conflict, NotFound):
                log.info("an audit was changed while it ran: its result is dropped", extra=kv(audit=key))
                await self._store.append([], work=[PutState(OWNER, RUNNING, key, None)])
                return "dropped"
            except VedetteError as why:
                trouble = why
                break
        audit = self._find(key)
        if audit is not None and audit.audit_type == "CONTINUOUS" and isinstance(trouble, TryLater):
            # The next one is on its way: nobody has to get up for it.
            await self._skip(audit, str(trouble), work=[PutState(OWNER, RUNNING, key, None)])
            return "skipped"
        await self._fail(key, str(trouble), trouble)
        return "failed"

    async def _propose(self, key: str, taken: Taken) -> str:
        audit = self._records.get(Audit, key)
        strategy = self._strategy(audit)
        say = _Saying(self, key)
        async with self._lend() as run:
            revision, built = await run.snapshot("now", strategy.models, audit.scope, self.settings.source, say=say)
            say("measuring")
            measured = await run.measured("now", strategy.name, audit.parameters, self._meters, self._clock.now_us(), say=say)
            say(f"{strategy.name} thinks about {built.hosts} hosts and {built.servers} servers")
            order = self.settings.of(audit).planner
            found = await run.propose("now", strategy.name, audit.parameters, taken.triggers, order)
        await say.ended()
        for _ in range(WRITES):
            try:
                return await self._keep(key, taken, strategy, revision, found, measured.missing)
            except Conflict:
                # Somebody changed the audit, or one of its old plans: whoever cancelled it has the last word.
                if self._records.get(Audit, key).state != "ONGOING":
                    raise
        raise Conflict(f"audit {key} is changed all the time")

    async def _keep(
        self,
        key: str,
        taken: Taken,
        strategy: Strategy,
        revision: int,
        found: Proposal,
        missing: Sequence[str],
    ) -> str:
        """The write that ends a run. Raises Conflict."""
        audit = self._records.get(Audit, key)
        if audit.state != "ONGOING":
            raise Conflict(f"audit {audit.name} is {audit.state}")
        settings = self.settings.of(audit)
        indicators, overall = goals.shown(goals.BY_NAME[strategy.goal], found.indicators)
        plan = ActionPlan(
            uuid=str(uuid.uuid4()),
            audit_uuid=key,
            audit_name=audit.name,
            strategy_uuid=self._records.named(StrategyRecord, strategy.name),
            strategy_name=strategy.name,
            state="SUCCEEDED" if not found.actions else "PENDING" if audit.auto_trigger else "RECOMMENDED",
            efficacy_indicators=indicators,
            global_efficacy=overall,
            hostname=self._records.hostname or None,
            snapshot_revision=revision,
            run=taken.number,
            run_started_at=rfc3339_us(taken.started_at),
            trigger=[msgspec.to_builtins(one) for one in taken.triggers],
            triggers=taken.count,
            notes=[*missing, *found.notes],
            policy=settings.policy,
            dry_run=settings.dry_run,
        )
        names = [str(uuid.uuid4()) for _ in found.actions]
        actions = [
            Action(
                uuid=names[number],
                action_plan_uuid=plan.uuid,
                audit_uuid=key,
                action_type=one.action_type,
                description=self._actions[one.action_type].doc,
                input_parameters=one.parameters,
                parents=[names[parent] for parent in one.parents],
                order=number,
            )
            for number, one in enumerate(found.actions)
        ]
        ended = msgspec.structs.replace(audit, state="SUCCEEDED", status_message=None)
        if audit.audit_type == "CONTINUOUS":
            ended = msgspec.structs.replace(audit, status_message=None, next_run_time=self._next(audit, taken.started_at))
        old = [
            msgspec.structs.replace(one, state="SUPERSEDED", status_message=f"Superseded by action plan {plan.uuid}.")
            for one in self._records.plans_of(key)
            if one.state == "RECOMMENDED" and audit.audit_type != "ONESHOT"
        ]
        notes = [audit_notice(what, ended, self._records) for what in ("strategy.end", "planner.start", "planner.end")]
        await self._records.write([*old, plan, *actions, ended], work=[PutState(OWNER, RUNNING, key, None)], notes=notes)
        return "planned" if found.actions else "nothing to do"

    async def _skip(self, audit: Audit, why: str, work: Sequence[Work] = ()) -> None:
        """A run that does not take place."""
        self._runs.labels(audit.name, "skipped").inc()
        log.warning("a run of an audit is skipped", extra=kv(audit=audit.name, why=why))
        skipped = msgspec.structs.replace(audit, skipped=audit.skipped + 1, status_message=f"Skipped: {why}.")
        if audit.audit_type == "ONESHOT":
            skipped = msgspec.structs.replace(skipped, state="CANCELLED")
        else:
            next_time = self._next(audit, self._clock.now_us())
            skipped = msgspec.structs.replace(skipped, state="ONGOING", next_run_time=next_time)
        await self._records.write([skipped], work=work)

    async def _fail(self, key: str, why: str, fault: Exception | None = None) -> None:
        log.error("an audit failed", extra=kv(audit=key, why=why))

        def failed(audit: Audit) -> Audit:
            return msgspec.structs.replace(audit, state="FAILED", status_message=why[:1000], next_run_time=None)

        over: list[Work] = [PutState(OWNER, RUNNING, key, None)]
        for _ in range(MOST_ATTEMPTS):
            audit = self._find(key)
            if audit is None or audit.state != "ONGOING":
                await self._store.append([], work=over)
                return
            after = failed(audit)
            notes: list[Told] = [audit_notice("strategy.error", after, self._records, fault)]
            try:
                await self._records.write([after], work=over, notes=notes)
            except Conflict:
                continue
            return

    async def _say(self, key: str, text: str) -> None:
        """How far a run is, on the audit."""
        try:
            await self._records.update(
                Audit,
                key,
                lambda audit: msgspec.structs.replace(audit, status_message=text) if audit.state == "ONGOING" else audit,
            )
        except (NotFound, Conflict):
            return

    def _cool(self, audit: Audit, triggers: Sequence[Trigger], now: int) -> list[Work]:
        if not self.settings.of(audit).object_cooldown:
            return []
        cooled = self._cooled.setdefault(audit.uuid, {})
        work: list[Work] = []
        for one in dict.fromkeys(thing for trigger in triggers for thing in trigger.objects):
            cooled.pop(one, None)
            cooled[one] = now
            work.append(PutState(OWNER, COOLED, f"{audit.uuid}/{one}", b"{}", due=now))
        while len(cooled) > MOST_COOLED:
            oldest = next(iter(cooled))
            del cooled[oldest]
            work.append(PutState(OWNER, COOLED, f"{audit.uuid}/{oldest}", None))
        return work

    async def _measure(self, plan: ActionPlan) -> None:
        """How the plan turned out, beside what was predicted."""
        audit = self._find(plan.audit_uuid)
        scope, parameters = (audit.scope, audit.parameters) if audit is not None else ([], {})
        strategy = self._strategies[plan.strategy_name]
        done = [
            Done(one.action_type, one.input_parameters, "CANCELLED" if one.outcome == "undone" else one.state)
            for one in self._records.actions_of(plan.uuid)
        ]
        try:
            async with self._lend() as run:
                source = self.settings.source
                await run.snapshot("before", strategy.models, scope, source, revision=plan.snapshot_revision)
                await run.snapshot("after", strategy.models, scope, source)
                await run.measured("after", strategy.name, parameters, self._meters, self._clock.now_us())
                found = await run.outcome("before", "after", strategy.name, parameters, done)
        except (VedetteError, Expired) as why:
            log.warning("the efficacy of a plan can't be measured", extra=kv(plan=plan.uuid, why=why))
            return
        indicators, overall = goals.shown(goals.BY_NAME[strategy.goal], found)
        try:
            await self._records.update(
                ActionPlan,
                plan.uuid,
                lambda one: msgspec.structs.replace(one, measured_indicators=indicators, measured_efficacy=overall),
            )
        except (NotFound, Conflict) as why:
            log.info("the efficacy of a plan was not kept", extra=kv(plan=plan.uuid, why=why))

    def _lend(self) -> AbstractAsyncContextManager[Run]:
        """One of the processes, in turn."""
        self._lent += 1
        return self._advising[self._lent % len(self._advising)].lend()

    def _find(self, key: str) -> Audit | None:
        try:
            return self._records.get(Audit, key)
        except NotFound:
            return None

    def _strategy_name(self, audit: Audit) -> str:
        """The audit's own, else the goal's default one, else the first of the goal's; "": the goal has none."""
        if audit.strategy_name:
            return audit.strategy_name
        default = goals.BY_NAME[audit.goal_name].default_strategy if audit.goal_name in goals.BY_NAME else ""
        if default in self._strategies:
            return default
        return min((name for name, one in self._strategies.items() if one.goal == audit.goal_name), default="")

    def _strategy(self, audit: Audit) -> Strategy:
        """Raises Refused."""
        name = self._strategy_name(audit)
        if not name:
            raise Refused(f"No strategy could be found to achieve the '{audit.goal_name}' goal.")
        if name not in self._strategies:
            raise Refused(f"there is no strategy {name!r} any more")
        return self._strategies[name]

    def _next(self, audit: Audit, started: int) -> str | None:
        return None if audit.interval is None else rfc3339(next_run(audit.interval, started, self._clock.now_us()))


class _Saying:
    """Words on how far a run is: written now and then, never waited for."""

    def __init__(self, audits: Audits, key: str) -> None:
        self._audits, self._key = audits, key
        self._next = audits._clock.monotonic() + SAY_SECONDS
        self._writing: asyncio.Task[None] | None = None

    def __call__(self, text: str) -> None:
        now = self._audits._clock.monotonic()
        if now < self._next or (self._writing is not None and not self._writing.done()):
            return
        self._next = now + SAY_SECONDS
        self._writing = asyncio.create_task(self._audits._say(self._key, text), name=f"progress of {self._key}")

    async def ended(self) -> None:
        if self._writing is not None:
            await self._writing
