"""Carries out action plans: which one, and when.

In: records of plans, whoever wrote them (compat/infra_optim.py, engine/audits.py, another process of ours that is gone). A plan
that is PENDING is begun when it is approved, inside a change window, and when no other is being carried out; one that becomes
CANCELLING is stopped; RECOMMENDED ones that are too old are SUPERSEDED. How one plan is carried out is engine/plan_run.py's,
what becomes of one action engine/action_run.py's.

On start, plans that were begun are taken up again first: that is all there is to a crash.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal, get_args

import msgspec

from vedette.engine.action_run import Numbers, Tools
from vedette.engine.change_windows import ChangeWindows
from vedette.engine.hands import News
from vedette.engine.plan_run import Limits, PlanRun, cancel_actions
from vedette.engine.records import Records
from vedette.errors import ConfigError, VedetteError
from vedette.kit.clock import Clock, parse_us
from vedette.kit.log import kv
from vedette.kit.tasks import cancel, wait_for_event
from vedette.kit.telemetry import Telemetry
from vedette.model.audit import ActionPlan, PlanState, Record
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Store

log = logging.getLogger("vedette.engine.applier")

EXPIRY_CHECK_SECONDS = 1800.0
RETRY_SECONDS = 5.0
"""After the store could not take what plans are told."""


class ApplierSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How plans are carried out."""

    parallel: int = 10
    """Actions at a time, in all."""
    per_host: int = 2
    """Actions at a time that put a load on one host."""
    per_pair: int = 1
    """Migrations at a time from one host to one other."""
    per_pool: int = 2
    """Actions at a time that put a load on one storage pool."""
    per_zone: int = 0
    """Actions at a time that put a load on hosts of one availability zone; 0: no limit."""
    policy: Literal["stop", "continue", "rollback"] = "stop"
    """What happens when an action fails, for plans that don't say. `stop`: nothing more is begun. `continue`: only what depends
    on it is not begun. `rollback`: as `stop`, and what was done is undone, backwards."""
    action_timeout: float = 3600.0
    """Seconds that one action may take."""
    approval: bool = False
    """Whether somebody has to approve each plan before it is begun."""
    change_windows: tuple[str, ...] = ()
    """When plans may be begun, e.g. `mon-fri 22:00-04:00`; none: always. One that was begun goes on to its end."""
    timezone: str = "UTC"
    """Of the change windows, e.g. `Europe/Vienna`."""
    expiry: float = 24 * 3600.0
    """Seconds after which a plan that nobody started is SUPERSEDED; 0: never. Looked at every half an hour."""


class Applier:
    """See the module. `run` until cancelled; one that was started again goes on where the last one was."""

    def __init__(
        self,
        records: Records,
        store: Store,
        actions: Mapping[str, Kind],
        cloud: Callable[[], Cloud],
        clock: Clock,
        telemetry: Telemetry,
        settings: ApplierSettings,
        *,
        zone_of: Callable[[str], str] = lambda host: "",
    ) -> None:
        """`cloud`: the one that is changed; raises when there is none. `zone_of`: a host's availability zone, "" if it isn't
        known. Raises ConfigError: a change window or the time zone can't be read, or no action may run at all."""
        if settings.parallel < 1:
            raise ConfigError(f"parallel is {settings.parallel}: at least one action has to be allowed at a time")
        self._records = records
        self._clock = clock
        self._settings = settings
        self._windows = ChangeWindows(settings.change_windows, settings.timezone)
        self._news = News(store)
        self._numbers = Numbers(telemetry)
        self._tools = Tools(
            records=records,
            kinds=actions,
            cloud=cloud,
            clock=clock,
            news=self._news,
            numbers=self._numbers,
            timeout=settings.action_timeout,
        )
        self._limits = Limits(
            parallel=settings.parallel,
            per_host=settings.per_host,
            per_pair=settings.per_pair,
            per_pool=settings.per_pool,
            per_zone=settings.per_zone,
            zone_of=zone_of,
        )
        self.on_ended: list[Callable[[ActionPlan], None]] = []
        """Called with each plan that was carried out, as it is then: SUCCEEDED, FAILED, CANCELLED. After a crash between the end
        and the call it is not."""
        self._woken = asyncio.Event()
        self._current: PlanRun | None = None
        self._waiting: dict[str, None] = {}
        """Plans that are PENDING, in the order in which they became so."""
        self._dropped: dict[str, None] = {}
        """Plans that were cancelled before they were begun, whose actions are still PENDING."""
        self._expiry_due = 0.0
        records.on_change.append(self._changed)

    async def run(self) -> None:
        """Raises what the store raises while a plan is carried out: start it again."""
        self._begin()
        task: asyncio.Task[None] | None = None
        try:
            while True:
                self._woken.clear()
                if task is not None and task.done():
                    done, task = task, None
                    done.result()
                try:
                    if task is None:
                        found = self._next()
                        if found:
                            self._current = PlanRun(found, self._tools, self._limits, self._settings.policy)
                            task = asyncio.create_task(self._carry_out(self._current), name=f"action plan {found}")
                    await self._drop()
                    await self._expire()
                    rest = await self._tell_waiting()
                except VedetteError as why:
                    # What is carried out goes on: these are only words, and what nobody waits for.
                    log.warning("what plans are told could not be written: %s", why)
                    rest = RETRY_SECONDS
                await wait_for_event(self._woken, rest, self._clock.sleep)
        finally:
            if task is not None:
                await cancel(task)
            self._current = None

    def close(self) -> None:
        """After `run` was cancelled: hear nothing any more."""
        self._news.close()
        if self._changed in self._records.on_change:
            self._records.on_change.remove(self._changed)

    @property
    def current(self) -> str:
        """The plan that is being carried out; "": none."""
        return self._current.uuid if self._current is not None else ""

    # --- inside ---

    def _begin(self) -> None:
        plans = {plan.uuid: plan for plan in self._records.all(ActionPlan)}
        pending = [uuid for uuid, plan in plans.items() if plan.state == "PENDING"]
        self._waiting = dict.fromkeys([uuid for uuid in self._waiting if uuid in pending] + pending)
        for plan in plans.values():
            if plan.state == "CANCELLED" and any(one.state == "PENDING" for one in self._records.actions_of(plan.uuid)):
                self._dropped[plan.uuid] = None
        self._expiry_due = self._clock.monotonic()
        states = Counter(plan.state for plan in plans.values())
        for state in get_args(PlanState):
            self._numbers.plans.labels(state).set(states[state])

    def _changed(self, before: Record | None, now: Record | None) -> None:
        if not isinstance(before, ActionPlan) and not isinstance(now, ActionPlan):
            return
        was = before.state if isinstance(before, ActionPlan) else ""
        is_ = now.state if isinstance(now, ActionPlan) else ""
        if was != is_:
            if was:
                self._numbers.plans.labels(was).dec()
            if is_:
                self._numbers.plans.labels(is_).inc()
        one = now or before
        assert one is not None
        if is_ == "PENDING":
            self._waiting.setdefault(one.uuid)
        else:
            self._waiting.pop(one.uuid, None)
        if is_ == "CANCELLED" and was in ("RECOMMENDED", "PENDING"):
            self._dropped[one.uuid] = None
        if self._current is not None and self._current.uuid == one.uuid:
            self._current.woken.set()
        self._woken.set()

    def _next(self) -> str:
        """The plan to carry out now; "": none."""
        for plan in self._records.all(ActionPlan):
            # (What somebody asked for at a front end is done with his rights, not with ours.)
            if plan.state in ("ONGOING", "CANCELLING") and not plan.requested_by:
                return plan.uuid
        opens = self._opens()
        for uuid in self._waiting:
            if not self._waits_for(self._records.get(ActionPlan, uuid), opens):
                return uuid
        return ""

    def _opens(self) -> int:
        """0: plans may be begun now; else when (UTC microseconds)."""
        now = self._clock.now_us()
        opens = self._windows.opens(now)
        return 0 if opens <= now else opens

    def _waits_for(self, plan: ActionPlan, opens: int) -> str:
        """What keeps it from being begun, apart from other plans; "": nothing. A dry run changes nothing: it needs neither."""
        if plan.dry_run:
            return ""
        if self._settings.approval and not plan.approved_by:
            return f"waits for approval: vedette plans approve {plan.uuid}"
        return f"waits for the next change window: {self._windows.says(opens)}" if opens else ""

    async def _carry_out(self, run: PlanRun) -> None:
        try:
            plan = await run.run()
        finally:
            self._current = None
            self._woken.set()
        if plan is not None:
            for told in self.on_ended:
                told(plan)

    async def _tell_waiting(self) -> float:
        """Plans that wait say for what. Returns after how many seconds there may be something to do."""
        rest = self._expiry_due - self._clock.monotonic()
        opens = self._opens()
        if opens and self._waiting:
            rest = min(rest, (opens - self._clock.now_us()) / 1_000_000)
        ahead = self.current
        for uuid in list(self._waiting):
            if uuid == self.current:
                continue
            text = self._waits_for(self._records.get(ActionPlan, uuid), opens)
            if text:
                await self._tell(uuid, text)
            elif ahead:
                await self._tell(uuid, f"waits for action plan {ahead}")
                ahead = uuid
            else:
                self._woken.set()  # what it waited for has ended just now
        return max(0.001, rest)

    async def _tell(self, uuid: str, text: str) -> None:
        def tell(plan: ActionPlan) -> ActionPlan:
            if plan.state != "PENDING" or plan.status_message == text:
                return plan
            return msgspec.structs.replace(plan, status_message=text)

        await self._records.update(ActionPlan, uuid, tell)

    async def _drop(self) -> None:
        for uuid in list(self._dropped):
            actions = [action.uuid for action in self._records.actions_of(uuid) if action.state == "PENDING"]
            await cancel_actions(self._tools, actions, "The action plan was cancelled.")
            self._dropped.pop(uuid, None)

    async def _expire(self) -> None:
        if self._clock.monotonic() < self._expiry_due:
            return
        if self._settings.expiry:
            horizon = self._clock.now_us() - round(self._settings.expiry * 1_000_000)

            def supersede(plan: ActionPlan) -> ActionPlan:
                if plan.state != "RECOMMENDED":
                    return plan
                text = f"Nobody started it within {self._settings.expiry / 3600:g} hours."
                return msgspec.structs.replace(plan, state="SUPERSEDED", status_message=text)

            for plan in self._records.all(ActionPlan):
                if plan.state == "RECOMMENDED" and (parse_us(plan.created_at) or 0) < horizon:
                    await self._records.update(ActionPlan, plan.uuid, supersede)
                    log.info("an action plan that nobody started is superseded", extra=kv(plan=plan.uuid))
        self._expiry_due = self._clock.monotonic() + EXPIRY_CHECK_SECONDS
