"""One action, from its pre-condition to its end; and back, when its plan is rolled back.

Started by engine/plan_run.py, which knows the order and the limits. What is written down here, and when, is the promise: an
action is begun only after its intent (state ONGOING, what its pre-condition found, the request's id) is durable, and so is the
undoing of one (outcome `undoing`). Whoever finds an intent without an end, after a crash, asks the action where it stands.

The end of each is one of: done, skipped, failed, cancelled, undone, not undone, unsure.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from uuid import uuid4

import msgspec

from vedette.engine.hands import News, Saying, Waiting
from vedette.engine.records import Records
from vedette.errors import GiveUp, TryLater, VedetteError
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock, rfc3339
from vedette.kit.log import kv
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.audit import Action, ActionPlan, ActionState
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Hands, Ready, Skip, Standing

log = logging.getLogger("vedette.engine.applier")

MOST_BEGUN = 5
"""An action whose cloud did not answer is looked at and begun again, so often in all."""
MOST_ASKED = 10
"""A cloud that can't be asked for a pre-condition is asked so often, with up to 30 s between."""
MOST_LOOKED = 3
"""After a failure: it is over, and only the word for it is open."""
SETTLE_SECONDS = 60.0
"""After a deadline or an abort: so long something may still be on its way."""
MOST_TEXT = 1000
"""Characters of a `status_message`."""
FINAL: frozenset[ActionState] = frozenset(("SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED", "DELETED"))
WITHDRAWN = "The action plan was cancelled."
BETWEEN = "The action plan was cancelled while it was rolled back."

T = TypeVar("T")


class Numbers:
    """What is counted of plans and actions."""

    def __init__(self, telemetry: Telemetry) -> None:
        self.plans = telemetry.gauge("action_plans", "Action plans there are, by state", "state")
        self.ended = telemetry.counter("action_plans_ended_total", "Action plans that were carried out, by their end", "state")
        self.running = telemetry.gauge("actions_running", "Actions that are being carried out or undone now")
        self.actions = telemetry.counter("actions_total", "Actions, by type and what became of them", "type", "outcome")
        self.seconds = telemetry.histogram(
            "action_seconds", "How long an action took", "type", buckets=(0.1, 1, 5, 15, 60, 300, 900, 3600, 14400)
        )


class Tools(msgspec.Struct, frozen=True, kw_only=True):
    """What all actions of a service share."""

    records: Records
    kinds: Mapping[str, Kind]
    cloud: Callable[[], Cloud]
    clock: Clock
    news: News
    numbers: Numbers
    timeout: float
    """Seconds that an action may take."""


class Fault(msgspec.Struct, frozen=True):
    """A call of an action's own code that did not end well."""

    text: str
    again: bool = False
    """The cloud could not be asked, or did not answer."""
    late: bool = False
    """It was not over at its deadline."""


class ActionRun:
    """See the module. Each of `carry_out`, `resume`, `look_only` and `undo` returns when the record says what became of it; what
    they raise is the store's trouble, and the intent stays."""

    def __init__(self, uuid: str, tools: Tools) -> None:
        self.uuid = uuid
        self._tools = tools
        self._clock = tools.clock
        self._records = tools.records
        self._started = self._clock.monotonic()
        self._until = self._started + tools.timeout
        self._withdrawn = ""
        self._begun = self._aborting = False
        self._working: asyncio.Future[Any] | None = None
        """`run` of the action, while it is at it."""
        self._saying = Saying(tools.records, tools.clock, uuid)
        action = self._record
        self._kind = tools.kinds.get(action.action_type)
        self._parameters = action.input_parameters
        self._before = action.before or {}
        self._hands: Hands | None = None

    @property
    def _record(self) -> Action:
        return self._records.get(Action, self.uuid)

    # --- from the pre-condition to the end ---

    async def carry_out(self) -> None:
        """One that is PENDING."""
        try:
            request = _request_id()
            kind = self._equip(request)
            if isinstance(kind, Fault):
                await self._end("FAILED", "failed", kind.text)
                return
            found = await self._ask(lambda: kind.check(self._equipped, self._parameters), MOST_ASKED)
            if isinstance(found, Fault) and self._withdrawn:
                await self._end("CANCELLED", "cancelled", self._withdrawn)
            elif isinstance(found, Fault):
                what = "can't be looked at" if found.again or found.late else "does not hold"
                await self._end("FAILED", "failed", f"The pre-condition {what}: {found.text}")
            elif isinstance(found, Skip):
                await self._end("SKIPPED", "skipped", found.reason)
            else:
                self._before = found.before
                if await self._intend(request):
                    if self._withdrawn:  # while the intent was being written: nothing has been done
                        await self._stopping()
                        await self._end("CANCELLED", "cancelled", self._withdrawn)
                    else:
                        await self._drive(kind, None)
                elif self._record.state == "PENDING":
                    await self._end("CANCELLED", "cancelled", self._withdrawn or WITHDRAWN)
        finally:
            await self._saying.close()

    async def look_only(self) -> None:
        """A dry run: whether it could be done, and nothing is done."""
        kind = self._equip(_request_id())
        found: Ready | Skip | Fault
        if isinstance(kind, Fault):
            found = kind
        else:
            found = await self._ask(lambda: kind.check(self._equipped, self._parameters), MOST_ASKED)
        if isinstance(found, Fault):
            await self._end("SKIPPED", "skipped", f"Dry run: would fail: {found.text}")
        elif isinstance(found, Skip):
            await self._end("SKIPPED", "skipped", f"Dry run: would be skipped: {found.reason}")
        else:
            await self._end("SKIPPED", "skipped", "Dry run: would be done.")

    async def resume(self) -> None:
        """One that was begun by somebody who is gone: ONGOING or CANCELLING."""
        self._begun = True
        try:
            action = self._record
            kind = self._equip(action.request_id)
            if isinstance(kind, Fault):
                await self._end("FAILED", "unsure", f"It was begun, and it is not known what became of it: {kind.text}")
                return
            standing = await self._look(kind, 0)
            log.info("an action that was begun is taken up again", extra=self._told(standing=standing, attempt=action.attempt))
            cancelling = action.state == "CANCELLING" or self._plan_state != "ONGOING"
            if cancelling and standing != "done":
                if standing == "running" and kind.abort is not None:
                    await self._stop(kind)
                elif standing == "running":
                    await self._settled(kind, self._tools.timeout)
                await self._end_cancelled(kind)
            else:
                await self._drive(kind, standing)
        finally:
            await self._saying.close()

    def withdraw(self, why: str) -> None:
        """If it wasn't begun yet, it is not begun any more."""
        self._withdrawn = why

    async def abort(self) -> None:
        """End it in the middle, if it can; else it goes on to its end."""
        kind = self._kind
        if not self._begun:
            self.withdraw(WITHDRAWN)
        elif kind is not None and kind.abort is not None:
            await self._stop(kind)

    async def _drive(self, kind: Kind, standing: Standing | None) -> None:
        """From an intent to the end. `standing`: where it stands, if it was not written just now."""
        waits = delays(1.0, 30.0)
        fault: Fault | None = None
        for _ in range(MOST_BEGUN):
            if standing == "done":
                break
            if standing == "unsure":
                why = f" ({fault.text})" if fault else ""
                await self._end("FAILED", "unsure", f"It was begun, and the cloud can't tell what became of it{why}")
                return
            if standing is not None and not await self._intend_again():
                await self._end_cancelled(kind)
                return
            if standing is not None and self._record.state != "ONGOING":
                return
            fault = await self._bounded(kind.run(self._equipped, self._parameters, self._before), working=True)
            if self._record.state == "CANCELLING":
                await self._end_cancelled(kind)
                return
            if fault is None:
                break
            if fault.late:
                await self._end_late(kind)
                return
            if not fault.again:
                # It failed; whether it is over is another matter: a wait that was given up ends nothing in the cloud.
                over = await self._look(kind, MOST_LOOKED) in ("done", "undone")
                await self._end("FAILED", "failed" if over else "unsure", fault.text)
                return
            log.warning("the cloud did not answer, the action is looked at again: %s", fault.text, extra=self._told())
            await self._clock.sleep(next(waits))
            standing = await self._look(kind, 0)
        else:
            await self._end("FAILED", "unsure", f"Given up after {MOST_BEGUN} attempts: {fault.text if fault else ''}")
            return
        await self._end_verified(kind)

    async def _end_verified(self, kind: Kind, remark: str | None = None) -> None:
        fault = await self._ask(lambda: kind.verify(self._equipped, self._parameters, self._before), MOST_ASKED)
        if isinstance(fault, Fault) and (fault.again or fault.late):
            await self._end("FAILED", "unsure", f"The post-condition can't be looked at: {fault.text}")
        elif isinstance(fault, Fault):
            await self._end("FAILED", "failed", f"The post-condition does not hold: {fault.text}")
        else:
            await self._end("SUCCEEDED", "done", remark)

    async def _end_late(self, kind: Kind) -> None:
        """Its time is over: what became of it?"""
        text = f"It took longer than {self._tools.timeout:.0f} seconds"
        standing = await self._settled(kind, 0)
        if standing == "running" and kind.abort is not None:
            await self._aborted(kind)
            standing = await self._settled(kind, SETTLE_SECONDS)
        if standing == "done":
            await self._end_verified(kind, f"{text}.")
        elif standing == "undone":
            await self._end("FAILED", "failed", f"{text}: it was not done.")
        else:
            await self._end("FAILED", "unsure", f"{text}, and the cloud can't tell what becomes of it.")

    async def _end_cancelled(self, kind: Kind) -> None:
        standing = await self._settled(kind, SETTLE_SECONDS)
        await self._stopping()
        if standing == "done":
            await self._end("CANCELLED", "done", "It was done before it could be stopped.")
        elif standing == "undone":
            await self._end("CANCELLED", "cancelled", WITHDRAWN)
        else:
            await self._end("FAILED", "unsure", "It was to be stopped, and the cloud can't tell what became of it.")

    async def _stop(self, kind: Kind) -> None:
        """Write down that it is to be stopped, and do so."""
        if self._aborting:
            return
        self._aborting = True
        if kind.abort is None:
            return
        await self._stopping()
        if self._record.state == "CANCELLING" and await self._aborted(kind) and self._working is not None:
            # It is still waiting, and will see that what it waits for has ended. One that doesn't is not waited for.
            timer = asyncio.ensure_future(self._clock.sleep(SETTLE_SECONDS))
            try:
                await asyncio.wait({self._working, timer}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await cancel(timer)
            if self._working is not None:
                self._working.cancel()

    async def _stopping(self) -> None:
        await self._records.update(
            Action,
            self.uuid,
            lambda action: msgspec.structs.replace(action, state="CANCELLING") if action.state == "ONGOING" else action,
        )

    async def _aborted(self, kind: Kind) -> bool:
        assert kind.abort is not None
        ended = await self._bounded(kind.abort(self._equipped, self._parameters, self._before), SETTLE_SECONDS)
        if isinstance(ended, Fault):
            log.warning("an action could not be stopped: %s", ended.text, extra=self._told())
        return ended is True

    # --- and back ---

    async def undo(self) -> None:
        """One that is over; afterwards its `outcome` is `undone`, `not undone`, or what it was if there was nothing to undo."""
        try:
            action = self._record
            kind = self._equip(_request_id())
            if isinstance(kind, Fault):
                await self._not_undone(kind.text)
                return
            if action.state == "FAILED" or action.outcome == "undoing":
                standing = await self._settled(kind, self._tools.timeout if action.outcome == "undoing" else SETTLE_SECONDS)
                if standing == "undone":
                    if action.outcome == "undoing":
                        await self._undone()
                    return
                if standing != "done":
                    await self._end_undo("unsure", "The cloud can't tell where it stands: look at it yourself.")
                    return
            if self._plan_state != "ONGOING":
                await self._not_undone(BETWEEN)
            elif kind.undo is None:
                await self._not_undone(f"{action.action_type} can't be undone")
            else:
                await self._undo(kind, action)
        finally:
            await self._saying.close()

    async def _undo(self, kind: Kind, action: Action) -> None:
        assert kind.undo is not None
        waits = delays(1.0, 30.0)
        fault: Fault | None = None
        for _ in range(MOST_BEGUN):
            request = _request_id()
            self._equip(request)
            self._until = self._clock.monotonic() + self._tools.timeout
            text = action.status_message if action.state == "FAILED" else "Being undone."
            await self._records.update(Action, self.uuid, changed(outcome="undoing", request_id=request, status_message=text))
            fault = await self._bounded(kind.undo(self._equipped, self._parameters, self._before))
            if fault is None:
                await self._undone()
                return
            if not fault.again:
                break
            log.warning("the cloud did not answer, what is undone is looked at again: %s", fault.text, extra=self._told())
            await self._clock.sleep(next(waits))
            standing = await self._settled(kind, SETTLE_SECONDS)
            if standing == "undone":
                await self._undone()
                return
            if standing != "done":
                await self._end_undo("unsure", f"The cloud can't tell where it stands: {fault.text}")
                return
        standing = await self._settled(kind, 0)
        if standing == "undone":
            await self._undone()
        elif standing == "done":
            await self._not_undone(fault.text if fault else "")
        else:
            await self._end_undo("unsure", f"Not undone, as far as the cloud can tell: {fault.text if fault else ''}")

    async def _undone(self) -> None:
        await self._end_undo("undone", "Undone: the action plan was rolled back.")

    async def _not_undone(self, why: str) -> None:
        await self._end_undo("not undone", f"Not undone: {why}")

    async def _end_undo(self, outcome: str, text: str) -> None:
        await self._saying.close()
        action = self._record
        was = f" It had failed: {action.status_message}" if action.state == "FAILED" else ""
        message = f"{text}{was}"[:MOST_TEXT]
        await self._records.update(Action, self.uuid, changed(outcome=outcome, status_message=message))
        self._count(outcome)
        (log.info if outcome == "undone" else log.error)("an action was rolled back: %s", text, extra=self._told(outcome=outcome))

    # --- what is written ---

    async def _intend(self, request: str) -> bool:
        """Write that it is begun. False: it is not to be begun any more."""

        def intent(action: Action) -> Action:
            if action.state != "PENDING" or self._withdrawn or self._plan_state != "ONGOING":
                return action
            return msgspec.structs.replace(
                action,
                state="ONGOING",
                before=self._before,
                request_id=request,
                attempt=1,
                started_at=rfc3339(self._clock.now_us()),
                status_message=None,
            )

        # From here on an abort finds something to stop; before the write is through it waits for it (the same record).
        self._begun = (await self._records.update(Action, self.uuid, intent)).state == "ONGOING"
        return self._begun

    async def _intend_again(self) -> bool:
        """After a crash, or when the cloud did not answer. False: the plan was cancelled meanwhile."""
        request = _request_id()

        def intent(action: Action) -> Action:
            if action.state != "ONGOING" or self._plan_state != "ONGOING":
                return action
            return msgspec.structs.replace(action, request_id=request, attempt=action.attempt + 1)

        kept = await self._records.update(Action, self.uuid, intent)
        if kept.request_id != request:
            return False
        self._equip(request)
        return True

    async def _end(self, state: ActionState, outcome: str, text: str | None) -> None:
        await self._saying.close()

        def ended(action: Action) -> Action:
            if action.state in FINAL:
                return action
            now, said, message = state, outcome, text[:MOST_TEXT] if text else None
            if action.state == "CANCELLING" and state == "SUCCEEDED":
                now, message = "CANCELLED", "It was done before it could be stopped."
            return msgspec.structs.replace(
                action, state=now, outcome=said, status_message=message, ended_at=rfc3339(self._clock.now_us())
            )

        before = self._record
        kept = await self._records.update(Action, self.uuid, ended)
        if before.state in FINAL:
            return
        self._count(kept.outcome)
        if self._begun:
            self._tools.numbers.seconds.labels(kept.action_type).observe(self._clock.monotonic() - self._started)
        if kept.state == "FAILED":
            log.error("an action failed: %s", kept.status_message, extra=self._told(outcome=kept.outcome))
        else:
            log.info("an action ended", extra=self._told(state=kept.state, why=kept.status_message or "done"))

    # --- calls of the action's own code ---

    def _equip(self, request: str) -> Kind | Fault:
        """Hands for one request; or why there are none."""
        if self._kind is None:
            return Fault(f"there is no action {self._record.action_type}: its file is missing in this version")
        try:
            cloud = self._tools.cloud()
        except VedetteError as why:
            return Fault(str(why))
        resource = str(self._parameters.get("resource_id") or "")
        self._hands = Hands(
            cloud=cloud,
            clock=self._clock,
            request_id=request,
            say=self._saying,
            wait=Waiting(self._clock, self._tools.news, resource),
        )
        return self._kind

    @property
    def _equipped(self) -> Hands:
        assert self._hands is not None
        return self._hands

    async def _look(self, kind: Kind, most: int) -> Standing:
        standing = await self._ask(lambda: kind.look(self._equipped, self._parameters, self._before), most)
        if isinstance(standing, Fault):
            log.warning("where an action stands can't be told: %s", standing.text, extra=self._told())
            return "unsure"
        return standing

    async def _settled(self, kind: Kind, seconds: float) -> Standing:
        """Where it stands when it isn't on its way any more, or after so many seconds."""
        self._until = self._clock.monotonic() + max(seconds, SETTLE_SECONDS)
        found: Standing = "running"

        async def settled() -> bool:
            nonlocal found
            found = await self._look(kind, 0)
            return found != "running"

        with suppress(GiveUp):
            await self._equipped.wait(settled, seconds, "its end")
        return found

    async def _ask(self, ask: Callable[[], Awaitable[T]], most: int) -> T | Fault:
        """A question that changes nothing: asked again while the cloud is unwell, at most so often (0: until the deadline)."""
        waits, asked = delays(1.0, 30.0), 0
        while True:
            asked += 1
            found = await self._bounded(_awaited(ask))
            if not isinstance(found, Fault) or not found.again or asked == most or (self._withdrawn and not self._begun):
                return found
            wait = next(waits)
            if self._clock.monotonic() + wait >= self._until:
                return found
            await self._clock.sleep(wait)

    async def _bounded(
        self, work: Coroutine[Any, Any, T] | Awaitable[T], seconds: float = 0.0, *, working: bool = False
    ) -> T | Fault:
        """What it returns; or how it went wrong. Until the action's deadline, or so many seconds."""
        task = asyncio.ensure_future(work)
        left = seconds or max(0.001, self._until - self._clock.monotonic())
        timer = asyncio.ensure_future(self._clock.sleep(left))
        if working:
            self._working = task
        try:
            await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if working:
                self._working = None
            late = not task.done()
            if not late and not task.cancelled():
                task.exception()  # it is seen, also when we are cancelled ourselves
            await cancel(timer, *([task] if late else []))
        if late:
            return Fault(f"no end after {left:.0f} seconds", late=True)
        if task.cancelled():
            return Fault("it was stopped")
        why = task.exception()
        if why is None:
            return task.result()
        if isinstance(why, TryLater):
            return Fault(str(why), again=True)
        if isinstance(why, VedetteError):
            return Fault(str(why))
        log.error("an error in an action", exc_info=why, extra=self._told())
        return Fault(f"an error in the action itself: {type(why).__name__}: {why}")

    # --- the rest ---

    @property
    def _plan_state(self) -> str:
        return self._records.get(ActionPlan, self._record.action_plan_uuid).state

    def _count(self, outcome: str) -> None:
        self._tools.numbers.actions.labels(self._record.action_type, outcome).inc()

    def _told(self, **more: Any) -> dict[str, Any]:
        action = self._record
        return kv(action=self.uuid, plan=action.action_plan_uuid, what=name(action), **more)


def name(action: Action) -> str:
    """`migrate web-1`."""
    what = action.input_parameters.get("resource_name") or action.input_parameters.get("resource_id") or ""
    return f"{action.action_type} {what}".strip()


def changed(**fields: Any) -> Callable[[Action], Action]:
    """For `Records.update`."""
    return lambda action: msgspec.structs.replace(action, **fields)


async def _awaited(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()


def _request_id() -> str:
    return f"req-{uuid4()}"
