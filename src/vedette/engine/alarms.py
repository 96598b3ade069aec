"""Aodh's alarms, compared now and then with what webhooks told: a transition whose webhook never came triggers its audit too.

Aodh posts an alarm's transition once, and does not try again. In: its list of alarms (`GET /v2/alarms`). Out: triggers, to
engine/audits.py, each in one write with what is known of the alarm then, so that a transition counts once whatever dies when.

A transition was missed if an alarm is in another state than was last told to an audit or seen, or in the same one for another
reason (it left it and came back), and the actions of that state name the audit. `state_timestamp` tells nothing of it: Aodh's
evaluator never moves that. What looks missed has to look so for `GRACE`: its webhook may be on its way.

An alarm that is seen for the first time is only remembered, unless it was made after our last look: what was there before us is
no news. Nor is a state that somebody set by hand, or that an alarm was made with: Aodh posts nothing of those either.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from vedette.engine.records import OWNER
from vedette.errors import BadRequest, NoService, NotFound, Refused, TooBusy, VedetteError
from vedette.kit.clock import Clock, parse_us
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.model.advice import Trigger
from vedette.model.alarmed import trigger_of
from vedette.model.audit import Audit
from vedette.model.delivery import PutState, Work
from vedette.ports import Cloud, JsonObject, Store

log = logging.getLogger("vedette.engine.alarms")

ALARMING = "alarming"
SEEN, TOLD = "alarm", "alarm-told"
"""Spaces of the rows `<alarm's id>/<audit, as the action names it>` → `Known`: as Aodh's list had it, and as webhooks told it.
Two, so that neither writes over what is news to the other."""
LOOKED = "*"
"""Among what was seen: when we looked last."""
GRACE = 60.0
"""Seconds that a webhook may take, and that Aodh's clock may be behind ours."""
PAGE = 1_000
MOST = 50_000
"""Alarms that are looked at."""
FORGET = 86_400.0
"""Seconds after which what was told of an alarm is forgotten that Aodh does not list."""

MOST_CONDITIONS = 100
"""Of a rule, that are looked at for what it measures."""

_ACTIONS = {"ok": "ok_actions", "alarm": "alarm_actions", "insufficient data": "insufficient_data_actions"}
_NOT_EVALUATED = ("Not evaluated", "Manually set via API")
"""How Aodh's reasons begin for states that it posts nothing of."""
_WEBHOOK = re.compile(r"/v1/webhooks/([^/]+)/?$")


class Known(msgspec.Struct, frozen=True):
    """What was last told or seen of an alarm, for one audit."""

    state: str
    at: int
    """UTC microseconds."""
    reason: str = ""
    """A digest of Aodh's reason for the state; "": not known."""


class TriggerAudit(Protocol):
    """Audits.trigger."""

    def __call__(self, ident: str, trigger: Trigger, *, work: Sequence[Work] = ()) -> Awaitable[None]: ...


def remembered(audit: Audit, trigger: Trigger) -> list[Work]:
    """The writes that keep what a webhook told of one of Aodh's alarms; none for what is none. Its action may have named the
    audit either way."""
    alarm = trigger.alarm
    if trigger.cause != "webhook" or not isinstance(alarm, dict):
        return []
    id_, state, data = alarm.get("alarm_id"), alarm.get("current"), alarm.get("reason_data")
    if not isinstance(id_, str) or not 0 < len(id_) <= 255 or state not in _ACTIONS:
        return []
    # A repeated action has a reason of its own, and Aodh keeps that of the transition; of events it keeps each one's.
    kept = alarm.get("previous") != state or (isinstance(data, dict) and data.get("type") == "event")
    known = Known(state, trigger.at, _digest(alarm.get("reason")) if kept else "")
    return [_put(TOLD, f"{id_}/{ident}", known) for ident in (audit.uuid, audit.name)]


def _put(space: str, key: str, known: Known) -> PutState:
    return PutState(OWNER, space, key, msgspec.json.encode(known), due=known.at)


def _digest(reason: Any) -> str:
    return hashlib.sha256(reason.encode()).hexdigest()[:16] if isinstance(reason, str) and reason else ""


class Alarms:
    """One cloud's alarms."""

    def __init__(
        self,
        store: Store,
        cloud: Callable[[], Cloud | None],
        trigger: TriggerAudit,
        clock: Clock,
        telemetry: Telemetry,
        *,
        interval: float,
    ) -> None:
        """`interval`: seconds between two looks."""
        self._store, self._cloud, self._trigger, self._clock, self._interval = store, cloud, trigger, clock, interval
        self.trouble = ""
        """Why the last look failed; "" it did not."""
        self._suspects: dict[str, tuple[Known, float]] = {}
        """Row → what it would be, since when (monotonic) a webhook seems to be missing. Lost with the process: then it begins
        anew."""
        self._missed = telemetry.counter(
            "alarm_transitions_total", "Transitions of Aodh's alarms whose webhook never came, by what became of them.", "outcome"
        ).labels

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._clock.sleep(min(self._interval, GRACE) if self._suspects else self._interval)
            await self.look()

    async def look(self) -> int:
        """Once: how many transitions were missed. What can't be asked now is asked at the next look."""
        cloud = self._cloud()
        try:
            found = 0 if cloud is None else await self._look(cloud)
        except VedetteError as why:
            if str(why) != self.trouble:
                log.warning("alarms can't be compared with what webhooks told: %s", why)
            self.trouble = str(why)
            return 0
        self.trouble = ""
        return found

    async def _look(self, cloud: Cloud) -> int:
        began = self._clock.now_us()
        # Whole, before the rows are read: a webhook that comes meanwhile is among these.
        try:
            alarms = [alarm async for alarm in _all(cloud) if _idents(alarm, _ACTIONS)]
        except NoService:  # a cloud without Aodh; who calls our webhooks then is not kept for ever either
            await self._write(self._old(TOLD, await self._known(TOLD), set(), began))
            return 0
        seen, told = await self._known(SEEN), await self._known(TOLD)
        looked = seen.pop(LOOKED, None)
        listed: set[str] = set()
        quiet: list[Work] = []
        suspects: dict[str, tuple[Known, float]] = {}
        unknown: set[str] = set()
        """Suspects that were made after our last look: the next one has to find them so, too."""
        missed = 0
        for alarm in alarms:
            said = _said(alarm)
            now = Known(alarm["state"], began, _digest(said))
            took = False
            for ident in _idents(alarm, _ACTIONS):
                key = f"{alarm['alarm_id']}/{ident}"
                listed.add(key)
                before = max((one[key] for one in (seen, told) if key in one), key=lambda one: one.at, default=None)
                if before is not None:
                    same = before.state == now.state and (not now.reason or before.reason == now.reason)
                    if same or before.at > began:
                        continue
                if not self._posted(alarm, ident, said, before, looked):
                    quiet.append(_put(SEEN, key, now))
                    continue
                suspect, since = self._suspects.get(key, (None, 0.0))
                if suspect is None or (suspect.state, suspect.reason) != (now.state, now.reason):
                    since = self._clock.monotonic()
                settled = self._clock.monotonic() - since >= GRACE and await self._settle(alarm, before, ident, now)
                if not settled:
                    suspects[key] = (now, since)
                    unknown |= {key} if before is None else set()
                took = took or settled == "triggered"
            missed += took
        self._suspects = suspects
        quiet += [*self._old(SEEN, seen, listed, began), *self._old(TOLD, told, listed, began)]
        if not unknown:
            quiet.append(_put(SEEN, LOOKED, Known("ok", began)))
        await self._write(quiet)
        return missed

    def _old(self, space: str, rows: Mapping[str, Known], listed: Collection[str], now: int) -> list[Work]:
        """The writes that forget what was told long ago of alarms that are not listed."""
        before = now - FORGET * 1_000_000
        return [PutState(OWNER, space, key, None) for key, one in rows.items() if key not in listed and one.at < before]

    async def _write(self, work: Sequence[Work]) -> None:
        for start in range(0, len(work), 1_000):
            await self._store.append([], work=work[start : start + 1_000])

    async def _known(self, space: str) -> dict[str, Known]:
        return {row.key: msgspec.json.decode(row.value, type=Known) for row in await self._store.state(OWNER, space)}

    def _posted(self, alarm: JsonObject, ident: str, said: str, before: Known | None, looked: Known | None) -> bool:
        """Whether Aodh will have called this audit for the state in which the alarm is, other than `before`."""
        state = alarm["state"]
        if alarm.get("enabled") is False or ident not in _idents(alarm, (state,)) or said.startswith(_NOT_EVALUATED):
            return False
        if before is not None:
            # In the same state, and nobody knew for what reason: now we do.
            return before.state != state or bool(before.reason)
        # One that was there at the last look has a row, if it named the audit then. What is made since has its time of making.
        made = parse_us(alarm.get("state_timestamp") or "") or 0
        return looked is not None and made > looked.at - GRACE * 1_000_000 and state != "insufficient data"

    async def _settle(
        self, alarm: JsonObject, before: Known | None, ident: str, now: Known
    ) -> Literal["", "triggered", "refused"]:
        """Trigger the audit, and know of the alarm in the same write. "": it has to be tried again."""
        work = [_put(SEEN, f"{alarm['alarm_id']}/{ident}", now)]
        about = kv(alarm=alarm["alarm_id"], name=alarm.get("name"), state=alarm["state"], audit=ident)
        try:
            await self._trigger(ident, _trigger(alarm, before, self._clock.now_us()), work=work)
        except TooBusy as why:
            log.warning("an alarm's audit can't be triggered now, and will be: %s", why, extra=about)
            return ""
        except (BadRequest, NotFound, Refused) as why:
            self._missed("refused").inc()
            log.warning("an alarm whose webhook never came would be refused: %s", why, extra=about)
            await self._store.append([], work=work)
            return "refused"
        self._missed("triggered").inc()
        log.warning("an alarm's webhook never came: its audit is triggered", extra=about)
        return "triggered"


async def _all(cloud: Cloud) -> AsyncIterator[JsonObject]:
    """Alarms of every project, page by page. Raises what Cloud raises, TooBusy (more than MOST)."""
    everybody = [("q.field", "all_projects"), ("q.op", "eq"), ("q.value", "true")]
    marker = ""
    for _ in range(MOST // PAGE):
        params = [("limit", str(PAGE)), ("sort", "alarm_id:asc"), *([("marker", marker)] if marker else [])]
        try:
            page = await cloud.query(ALARMING, "/alarms", None, [*params, *everybody])
        except BadRequest:
            if not everybody:
                raise
            everybody = []  # an older one shows an admin all of them anyway
            page = await cloud.query(ALARMING, "/alarms", None, params)
        if not isinstance(page, list):
            raise BadRequest("Aodh's answer is no list of alarms")
        for alarm in page:
            if isinstance(alarm, dict) and isinstance(alarm.get("alarm_id"), str) and alarm.get("state") in _ACTIONS:
                yield alarm
        last = page[-1].get("alarm_id") if page and isinstance(page[-1], dict) else None
        if len(page) < PAGE or not isinstance(last, str) or last == marker:
            return
        marker = last
    raise TooBusy(f"Aodh has more than {MOST} alarms")


def _idents(alarm: JsonObject, states: Iterable[str]) -> list[str]:
    """Names or uuids of the audits that the actions of these states name."""
    found: dict[str, None] = {}
    for state in states:
        actions = alarm.get(_ACTIONS[state])
        for action in actions if isinstance(actions, list) else ():
            if isinstance(action, str) and (ident := ident_of(action)):
                found[ident] = None
    return list(found)


def _said(alarm: JsonObject) -> str:
    """Aodh's reason for its state, secrets masked as in what webhooks tell; "" from an Aodh that keeps none."""
    reason = alarm.get("state_reason")
    if not isinstance(reason, str):
        return ""
    alarmed = trigger_of(msgspec.json.encode({"reason": reason}), 0).alarm
    return str(alarmed["reason"]) if isinstance(alarmed, dict) else ""


def ident_of(action: str) -> str:
    """The audit that an alarm's action triggers, `trust+https://…/v1/webhooks/AUDIT`; "" for any other action."""
    try:
        address = urlsplit(action)
    except ValueError:
        return ""
    if address.scheme not in ("http", "https", "trust+http", "trust+https"):
        return ""
    match = _WEBHOOK.search(address.path)
    return unquote(match[1]) if match else ""


def _trigger(alarm: JsonObject, told: Known | None, now: int) -> Trigger:
    """As the webhook would have been, as far as Aodh still knows; the rule stands for the measured resource."""
    rule = alarm.get(f"{alarm.get('type')}_rule")
    body = {
        "alarm_id": alarm["alarm_id"],
        "alarm_name": alarm.get("name"),
        "severity": alarm.get("severity"),
        "previous": None if told is None else told.state,
        "current": alarm["state"],
        "reason": alarm.get("state_reason"),
        "reason_data": {"type": alarm.get("type"), "rule": rule, "resources": equalities(rule)},
    }
    return msgspec.structs.replace(trigger_of(msgspec.json.encode(body), now), cause="reconcile")


def equalities(rule: Any) -> dict[str, str]:
    """What a rule wants to be equal: `{"=": {"host": "h1"}}` in the JSON of Gnocchi's query, `traits.host eq h1` of an event."""
    query = rule.get("query") if isinstance(rule, dict) else None
    if isinstance(query, str):
        try:
            query = msgspec.json.decode(query)
        except (msgspec.DecodeError, RecursionError):
            return {}
    found: dict[str, str] = {}
    stack: list[Any] = [query]
    for _ in range(MOST_CONDITIONS):
        if not stack:
            break
        one = stack.pop()
        if isinstance(one, list):
            stack += reversed(one)
        elif isinstance(one, dict) and "field" in one:
            field, value = one["field"], one.get("value")
            if isinstance(field, str) and isinstance(value, str) and one.get("op", "eq") == "eq":
                found[field.rpartition(".")[2]] = value
        elif isinstance(one, dict):
            for operator, operand in one.items():
                if operator in ("=", "==", "eq") and isinstance(operand, dict):
                    found |= {str(field): value for field, value in operand.items() if isinstance(value, str)}
                elif operator in ("and", "or", "\u2227", "\u2228") and isinstance(operand, list):
                    stack += reversed(operand)
    return found
