"""One thing done for somebody who asks for it at a front end, with his own rights: a plan of one step that is in the log before
it is begun.

In: an action (`actions/`), an object and the asker's own way to the cloud, from compat/concertim_api.py. While the asker waits
its pre-condition is looked at, the intent is written down, and the cloud is asked. He is answered then; what becomes of it is
looked at with the account that Vedette reads the cloud with, and nothing of the asker's is kept. After a crash in the middle, and
when the cloud gave no answer, the cloud is looked at too, and nothing is asked for again: the asker has the right to, we don't.

Asked again while it is under way, it is not done twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import uuid4

import msgspec

from vedette.engine.hands import News, Waiting
from vedette.engine.records import DELETED, OWNER, Records
from vedette.errors import Conflict, NotAllowed, NotFound, TryLater, VedetteError
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock, rfc3339
from vedette.kit.log import kv
from vedette.kit.tasks import cancel, spawn
from vedette.kit.telemetry import Telemetry
from vedette.model.audit import Action, ActionPlan
from vedette.model.delivery import PutState
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Hands, Skip, Standing, Store

log = logging.getLogger("vedette.engine.errands")

GRACE_SECONDS = 30.0
"""Some services begin later than they answer (Heat): until then, "as before" does not mean that nothing comes of it."""
KEPT = 1_000
"""Errands that are over and stay in the list of plans; the oldest go, as plans do that are deleted."""
MOST_UNDER_WAY = 1_000
MOST_TEXT = 500


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    action: str
    """A file of `actions/`."""
    id: str
    name: str = ""
    """The object's, for people."""
    by: str
    """Who asks, for people: never a secret."""


class _Begun(Exception):
    """The cloud was asked: what comes now is waiting."""


class Errands:
    """`do` from anywhere in the loop; `run` until cancelled looks after what is under way."""

    def __init__(
        self,
        records: Records,
        store: Store,
        actions: Mapping[str, Kind],
        cloud: Callable[[], Cloud],
        clock: Clock,
        telemetry: Telemetry,
        *,
        timeout: float = 3600.0,
    ) -> None:
        """`cloud`: ours, to look with; raises when there is none. `timeout`: seconds until one without an end has failed."""
        self._records = records
        self._store = store
        self._actions = actions
        self._cloud = cloud
        self._clock = clock
        self._timeout = timeout
        self._news = News(store)
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}
        """Object → who has it in hand, and how many wait for it."""
        self._following: set[asyncio.Task[Any]] = set()
        self._followed: set[str] = set()
        self._taken_up: set[str] = set()
        """Plans that another process of ours began."""
        self._counted = telemetry.counter(
            "errands_total", "Actions that somebody asked for at a front end, by how they ended.", "action", "outcome"
        )
        telemetry.gauge("errands_under_way", "Actions asked for at a front end that are not over.").set_function(
            lambda: len(self._followed)
        )

    async def run(self) -> None:
        """Take up what was under way when the last process ended; then wait to be cancelled."""
        for plan in self._records.all(ActionPlan):
            if plan.requested_by and plan.state == "ONGOING":
                self._taken_up.add(plan.uuid)
                self._follow(plan.uuid)
        try:
            await asyncio.Event().wait()
        finally:
            await cancel(*self._following)
            self._news.close()

    async def do(self, errand: Errand, cloud: Cloud) -> str:
        """Begin it, with the asker's `cloud`; a few words for him. Raises GiveUp (it can't be done now, and why) and what the
        cloud raises."""
        async with self._turn(errand.id):
            under_way = self._under_way(errand)
            if under_way is not None and not await self._never_begun(under_way, cloud):
                return f"{_said(under_way)}: under way since {under_way.started_at}"
            if len(self._followed) >= MOST_UNDER_WAY:
                raise TryLater(f"{MOST_UNDER_WAY} actions are under way: ask again later", delay=30)
            kind = self._actions[errand.action]
            request = f"req-{uuid4()}"
            hands = Hands(cloud=cloud, clock=self._clock, request_id=request, say=lambda text: None, wait=_no_more)
            parameters = {"resource_id": errand.id, **({"resource_name": errand.name} if errand.name else {})}
            found = await kind.check(hands, parameters)
            if isinstance(found, Skip):
                return found.reason
            plan, action = await self._intend(errand, kind, parameters, found.before, request)
            try:
                await kind.run(hands, parameters, found.before)
            except _Begun:
                pass
            except TryLater as why:
                # It may have been done all the same.
                standing = await self._look(kind, hands, action)
                if standing not in ("done", "running"):
                    outcome = "failed" if standing == "undone" else "unsure"
                    await self._failed(plan.uuid, outcome, f"The cloud did not answer: {why}")
                    raise
            except VedetteError as why:
                await self._failed(plan.uuid, "failed", str(why))
                raise
            except BaseException as why:
                # Ours, or the service stops: the cloud is looked at.
                log.error("an errand broke off: %s", type(why).__name__, extra=self._told(action))
                self._follow(plan.uuid)
                raise
            self._follow(plan.uuid)
            log.info("asked for at a front end, and begun", extra=self._told(action, by=errand.by))
            return f"{_said(action)}: asked for"

    def done_before(self, action: str, id_: str) -> bool:
        """Whether this was done, or is under way, by what the log still has: who asks again for what is gone is not told that it
        never was."""
        return any(
            one.action_type == action
            and one.input_parameters.get("resource_id") == id_
            and one.state in ("ONGOING", "SUCCEEDED")
            and not one.audit_uuid
            for one in self._records.all(Action)
        )

    # --- inside ---

    async def _never_begun(self, action: Action, cloud: Cloud) -> bool:
        """Of one that another process of ours wrote down and may have died before it asked: whether everything is as before. Then
        it is over, and who asks again now is not told that it is under way."""
        if action.action_plan_uuid not in self._taken_up:
            return False
        hands = Hands(cloud=cloud, clock=self._clock, request_id=action.request_id, say=lambda text: None, wait=_no_more)
        if await self._look(self._actions[action.action_type], hands, action) != "undone":
            return False
        await self._end(action.action_plan_uuid, "FAILED", "failed", "It was not begun, and was asked for again.")
        return True

    def _turn(self, id_: str) -> _Turn:
        return _Turn(self._turns, id_)

    def _under_way(self, errand: Errand) -> Action | None:
        for uuid in self._followed:
            for one in self._records.actions_of(uuid):
                what = (one.action_type, one.input_parameters.get("resource_id"))
                if one.state == "ONGOING" and what == (errand.action, errand.id):
                    return one
        return None

    async def _intend(
        self, errand: Errand, kind: Kind, parameters: dict[str, Any], before: dict[str, Any], request: str
    ) -> tuple[ActionPlan, Action]:
        now = rfc3339(self._clock.now_us())
        plan = ActionPlan(
            uuid=str(uuid4()),
            audit_uuid="",
            strategy_uuid="",
            strategy_name="",
            state="ONGOING",
            hostname=self._records.hostname,
            requested_by=errand.by,
            status_message=f"{kind.name} {errand.name or errand.id}",
        )
        action = Action(
            uuid=str(uuid4()),
            action_plan_uuid=plan.uuid,
            audit_uuid="",
            action_type=kind.name,
            description=kind.doc,
            input_parameters=parameters,
            state="ONGOING",
            before=before,
            request_id=request,
            attempt=1,
            started_at=now,
        )
        await self._records.write([plan, action])
        return plan, action

    def _follow(self, plan: str) -> None:
        self._followed.add(plan)
        task = spawn(self._following, self._followed_to_its_end(plan), f"errand {plan}")
        task.add_done_callback(lambda over: self._followed.discard(plan))

    async def _followed_to_its_end(self, plan: str) -> None:
        try:
            (action,) = self._records.actions_of(plan)
            kind = self._actions.get(action.action_type)
            if kind is None:
                await self._end(plan, "FAILED", "unsure", f"There is no action {action.action_type} in this version.")
                return
            state, outcome, text = await self._outcome(kind, action)
            waits = delays(1.0, 60.0)
            while True:
                try:
                    await self._end(plan, state, outcome, text)
                    return
                except TryLater as why:
                    log.warning("the end of an errand could not be written yet: %s", why, extra=self._told(action))
                    await self._clock.sleep(next(waits))
        except asyncio.CancelledError:
            raise
        except Exception:
            # It stays ONGOING, and is taken up again with the next start.
            log.exception("an errand could not be followed to its end", extra=kv(plan=plan))

    async def _outcome(self, kind: Kind, action: Action) -> tuple[str, str, str | None]:
        """(state, outcome, words)"""
        waiting = Waiting(self._clock, self._news, str(action.input_parameters.get("resource_id") or ""))
        until = self._clock.monotonic() + GRACE_SECONDS
        standing: Standing = "running"
        hands: Hands | None = None

        async def over() -> bool:
            nonlocal standing, hands
            hands = Hands(
                cloud=self._cloud(), clock=self._clock, request_id=action.request_id, say=lambda text: None, wait=waiting
            )
            try:
                standing = await kind.look(hands, action.input_parameters, action.before or {})
                if standing == "done":
                    await kind.verify(hands, action.input_parameters, action.before or {})
            except NotAllowed as why:
                # Of our own account: it says nothing of the errand.
                raise TryLater(str(why)) from None
            return standing in ("done", "unsure") or (standing == "undone" and self._clock.monotonic() >= until)

        try:
            await waiting(over, self._timeout, action.action_type)
            if standing != "done":
                assert hands is not None
                await kind.verify(hands, action.input_parameters, action.before or {})
        except VedetteError as why:
            return "FAILED", "failed" if standing == "undone" else "unsure", str(why)
        return "SUCCEEDED", "done", None

    async def _look(self, kind: Kind, hands: Hands, action: Action) -> Standing:
        try:
            return await kind.look(hands, action.input_parameters, action.before or {})
        except VedetteError as why:
            log.warning("where an errand stands can't be told: %s", why, extra=self._told(action))
            return "unsure"

    async def _failed(self, plan: str, outcome: str, text: str) -> None:
        """Where that can't be written now, it is looked after until it can: the asker is told of the cloud's error alone."""
        try:
            await self._end(plan, "FAILED", outcome, text)
        except TryLater as why:
            log.warning("the end of an errand could not be written yet: %s", why, extra=kv(plan=plan))
            self._follow(plan)

    async def _end(self, plan: str, state: Any, outcome: str, text: str | None) -> None:
        """Raises StoreUnavailable."""
        while True:
            now = self._records.get(ActionPlan, plan)
            (action,) = self._records.actions_of(plan)
            if now.state != "ONGOING":
                return
            said = text[:MOST_TEXT] if text else None
            ended = msgspec.structs.replace(
                action, state=state, outcome=outcome, status_message=said, ended_at=rfc3339(self._clock.now_us())
            )
            try:
                # In a list of plans this is all there is to see of what was asked for.
                words = _said(action) if said is None else f"{_said(action)}: {said}"
                await self._records.write([ended, msgspec.structs.replace(now, state=state, status_message=words)])
            except Conflict:
                continue
            break
        self._counted.labels(action.action_type, outcome).inc()
        told = self._told(action, by=now.requested_by, outcome=outcome)
        if state == "FAILED":
            log.error("what was asked for at a front end failed: %s", said, extra=told)
        else:
            log.info("what was asked for at a front end is done", extra=told)
        await self._forget_old()

    async def _forget_old(self) -> None:
        over = [one for one in self._records.all(ActionPlan) if one.requested_by and one.state != "ONGOING"]
        for plan in over[: max(0, len(over) - KEPT)]:
            try:
                gone = [plan, *self._records.actions_of(plan.uuid)]
                await self._records.write(deletes=gone)
                # Without the copies that deleted plans leave: there would be no end to them.
                await self._store.append([], work=[PutState(OWNER, DELETED, f"{one.KIND}/{one.uuid}", None) for one in gone])
            except (Conflict, NotFound):
                continue  # somebody else did

    def _told(self, action: Action, **more: Any) -> dict[str, Any]:
        return kv(plan=action.action_plan_uuid, what=_said(action), request_id=action.request_id, **more)


class _Turn:
    """One after the other for one object; who has been there last leaves nothing behind."""

    def __init__(self, turns: dict[str, tuple[asyncio.Lock, int]], id_: str) -> None:
        self._turns = turns
        self._id = id_

    async def __aenter__(self) -> None:
        lock, waiting = self._turns.get(self._id, (asyncio.Lock(), 0))
        self._turns[self._id] = (lock, waiting + 1)
        try:
            await lock.acquire()
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._turns[self._id][0].release()
        self._leave()

    def _leave(self) -> None:
        lock, waiting = self._turns.pop(self._id)
        if waiting > 1:
            self._turns[self._id] = (lock, waiting - 1)


async def _no_more(ready: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
    """`Hands.wait` while the asker waits: he is not kept until the end."""
    raise _Begun


def _said(action: Action) -> str:
    what = action.input_parameters.get("resource_name") or action.input_parameters.get("resource_id")
    return f"{action.action_type} {what}"
