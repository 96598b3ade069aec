"""Aodh's alarms, compared now and then with what webhooks told: a transition whose webhook never came triggers its audit too.

Aodh posts an alarm's transition once, and does not try again. In: its list of alarms (`GET /v2/alarms`). Out: triggers, to
engine/audits.py, each in one write with what is known of the alarm then, so that a transition counts once whatever dies when.

A transition was missed if an alarm is in a state since a moment for which nothing was told of it, and the actions of that state
name an audit of ours. It has to be older than `GRACE`: its webhook may be on its way. An alarm that is seen for the first time is
only remembered, unless it went to its state after our last look: what was there before us is no news.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from vedette.engine.records import OWNER
from vedette.errors import BadRequest, NoService, NotFound, Refused, TooBusy, VedetteError
from vedette.kit.clock import Clock, parse_us
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.model.advice import Trigger
from vedette.model.alarmed import objects_in
from vedette.model.delivery import PutState, Work
from vedette.ports import Cloud, JsonObject, Store

log = logging.getLogger("vedette.engine.alarms")

ALARMING = "alarming"
SPACE = "alarm"
"""Of the rows: an alarm's id → `Known`; `LOOKED` → when we looked last."""
LOOKED = "*"
GRACE = 60.0
"""Seconds that a webhook may take, and that Aodh's clock may be ahead of ours."""
PAGE = 1_000
MOST = 50_000
"""Alarms that are looked at."""
FORGET = 86_400.0
"""Seconds after which what was told of an alarm is forgotten that Aodh does not list."""

_ACTIONS = {"ok": "ok_actions", "alarm": "alarm_actions", "insufficient data": "insufficient_data_actions"}
_WEBHOOK = re.compile(r"/v1/webhooks/([^/]+)/?$")


class Known(msgspec.Struct, frozen=True):
    """What was last told of an alarm."""

    state: str
    at: int
    """UTC microseconds: when it was told, or since when it is so."""


class TriggerAudit(Protocol):
    """Audits.trigger."""

    def __call__(self, ident: str, trigger: Trigger, *, work: Sequence[Work] = ()) -> Awaitable[None]: ...


def remembered(trigger: Trigger) -> list[Work]:
    """The write that keeps what a webhook told of one of Aodh's alarms; nothing for what is none."""
    alarm = trigger.alarm
    if trigger.cause != "webhook" or not isinstance(alarm, dict):
        return []
    id_, state = alarm.get("alarm_id"), alarm.get("current")
    if not isinstance(id_, str) or not 0 < len(id_) <= 255 or state not in _ACTIONS:
        return []
    return [_put(id_, Known(state, trigger.at))]


def _put(id_: str, known: Known) -> PutState:
    return PutState(OWNER, SPACE, id_, msgspec.json.encode(known), due=known.at)


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
        self._missed = telemetry.counter(
            "alarm_transitions_total", "Transitions of Aodh's alarms whose webhook never came, by what became of them.", "outcome"
        ).labels

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._clock.sleep(self._interval)
            await self.look()

    async def look(self) -> int:
        """Once: how many transitions were missed. What can't be asked now is asked at the next look."""
        cloud = self._cloud()
        try:
            found = 0 if cloud is None else await self._look(cloud)
        except NoService:
            self.trouble = ""  # a cloud without Aodh
            return 0
        except VedetteError as why:
            if str(why) != self.trouble:
                log.warning("alarms can't be compared with what webhooks told: %s", why)
            self.trouble = str(why)
            return 0
        self.trouble = ""
        return found

    async def _look(self, cloud: Cloud) -> int:
        began = self._clock.now_us()
        rows = {row.key: row for row in await self._store.state(OWNER, SPACE)}
        known = {key: msgspec.json.decode(row.value, type=Known) for key, row in rows.items()}
        looked = known.pop(LOOKED, None)
        missed = 0
        listed: set[str] = set()
        quiet: list[Work] = []
        async for alarm in _all(cloud):
            id_, state, since = alarm["alarm_id"], alarm["state"], parse_us(alarm.get("state_timestamp") or "") or began
            listed.add(id_)
            if since > began - GRACE * 1_000_000:
                continue  # its webhook may be on its way
            told = known.get(id_)
            if told is not None and told.state == state and since <= told.at + GRACE * 1_000_000:
                continue
            now = _put(id_, Known(state, since))
            old = told is None and (looked is None or since <= looked.at)
            idents = [] if old else _idents(alarm)
            if not idents:
                quiet.append(now)
            elif await self._missed_one(alarm, told, idents, now):
                missed += 1
        for key, one in known.items():
            if key not in listed and one.at < began - FORGET * 1_000_000:
                quiet.append(PutState(OWNER, SPACE, key, None))
        # What is younger than the grace now is looked at next time.
        quiet.append(_put(LOOKED, Known("ok", began - int(GRACE * 1_000_000))))
        for start in range(0, len(quiet), 1_000):
            await self._store.append([], work=quiet[start : start + 1_000])
        return missed

    async def _missed_one(self, alarm: JsonObject, told: Known | None, idents: Sequence[str], now: PutState) -> bool:
        """Trigger each of the audits; whether one was. The last one's write says that the alarm is known."""
        trigger = _trigger(alarm, told, self._clock.now_us())
        taken = False
        for number, ident in enumerate(idents, start=1):
            work = [now] if number == len(idents) else []
            about = kv(alarm=alarm["alarm_id"], name=alarm.get("name"), state=alarm["state"], audit=ident)
            try:
                await self._trigger(ident, trigger, work=work)
            except TooBusy as why:
                log.warning("an alarm's audit can't be triggered now, and will be: %s", why, extra=about)
                return taken  # the next look finds it again
            except (BadRequest, NotFound, Refused) as why:
                self._missed("refused").inc()
                log.warning("an alarm whose webhook never came would be refused: %s", why, extra=about)
                await self._store.append([], work=work)
            else:
                taken = True
                self._missed("triggered").inc()
                log.warning("an alarm's webhook never came: its audit is triggered", extra=about)
        return taken


async def _all(cloud: Cloud) -> AsyncIterator[JsonObject]:
    """Alarms of every project, page by page. Raises what Cloud raises, TooBusy (more than MOST)."""
    everybody = [("q.field", "all_projects"), ("q.op", "eq"), ("q.value", "true")]
    marker = ""
    for _ in range(MOST // PAGE):
        params = [("limit", str(PAGE)), ("sort", "alarm_id:asc"), *([("marker", marker)] if marker else [])]
        try:
            page = await cloud.query(ALARMING, "/alarms", None, [*params, *everybody])
        except BadRequest:
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


def _idents(alarm: JsonObject) -> list[str]:
    """Names or uuids of the audits that the actions of its present state name."""
    found: dict[str, None] = {}
    actions = alarm.get(_ACTIONS[alarm["state"]])
    for action in actions if isinstance(actions, list) else ():
        if isinstance(action, str) and (ident := ident_of(action)):
            found[ident] = None
    return list(found)


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


def _trigger(alarm: Mapping[str, Any], told: Known | None, now: int) -> Trigger:
    """As the webhook would have been, as far as Aodh still knows; the rule stands for the measured resource."""
    rule = alarm.get(f"{alarm.get('type')}_rule")
    body = {
        "alarm_id": alarm["alarm_id"],
        "alarm_name": alarm.get("name"),
        "severity": alarm.get("severity"),
        "previous": None if told is None else told.state,
        "current": alarm["state"],
        "reason": alarm.get("state_reason"),
        "reason_data": {"type": alarm.get("type"), "rule": rule, "state_timestamp": alarm.get("state_timestamp")},
    }
    return Trigger(at=now, cause="reconcile", alarm=body, objects=objects_in(body))
