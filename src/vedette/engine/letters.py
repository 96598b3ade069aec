"""What the log is told of handlers: their status, and each dead letter that appears or is settled, as objects of our own.

engine/dispatch.py appends these entries with the writes that they tell of; they are served as `handlers` and `deadletters`. Which
of two is the newer one is a matter of their order in the log (`head`: its end, the earlier one in it): no clock that was set back
or stood still loses one.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vedette.engine.cause import request_id
from vedette.kit.clock import rfc3339_us
from vedette.model.delivery import Delivery
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE, VEDETTE_SOURCE, Reading
from vedette.ports import Event

DEADLETTER_EVENT = "vedette.deadletter"
HANDLER_EVENT = "vedette.handler"

_event = msgspec.json.Decoder(Event).decode


def status(now: int, head: int, name: str, fields: dict[str, Any]) -> NewEntry:
    """A handler's status has changed. `now`: UTC microseconds. It counts as the handler's own doing: one that follows handlers
    and fails would else be told of each of its failures, and fail again."""
    reading = Reading(
        kind="Handler", group=VEDETTE, version=head + 1, id=name, verb="create", as_of=now, fields={"name": name, **fields}
    )
    own = request_id(name, now, 0, 1)
    return NewEntry(_notice(now, f"{HANDLER_EVENT}.update", name, {"name": name, **fields}, own), (reading,))


def forgotten(now: int, head: int, name: str) -> NewEntry:
    """A handler that is not configured any more was let go of."""
    reading = Reading(kind="Handler", group=VEDETTE, version=head + 1, id=name, verb="delete", as_of=now)
    return NewEntry(_notice(now, f"{HANDLER_EVENT}.forget", name, {"name": name}), (reading,))


def appeared(now: int, head: int, d: Delivery, event: Event | None) -> NewEntry:
    """A delivery became a dead letter."""
    fields = fields_of(d, event)
    reading = Reading(
        kind="DeadLetter", group=VEDETTE, version=head + 1, id=letter_id(d), verb="create", as_of=now, fields=fields
    )
    request = "" if event is None else event.request_id
    return NewEntry(_notice(now, f"{DEADLETTER_EVENT}.create", letter_id(d), fields, request), (reading,))


def settled(now: int, head: int, d: Delivery, what: str, who: str) -> NewEntry:
    """A dead letter was redriven or discarded."""
    reading = Reading(kind="DeadLetter", group=VEDETTE, version=head + 1, id=letter_id(d), verb="delete", as_of=now)
    payload = {"handler": d.handler, "revision": str(d.revision), "number": d.number, "settled": what, "by": who}
    return NewEntry(_notice(now, f"{DEADLETTER_EVENT}.{what}", letter_id(d), payload), (reading,))


def fields_of(d: Delivery, event: Event | None) -> dict[str, Any]:
    """A dead letter's fields. `event`: see `event_of`."""
    source, group, kind, id_ = (d.subject.split("/", 3) + [""] * 4)[:4]
    return {
        "handler": d.handler,
        "revision": str(d.revision),
        "number": d.number,
        "idempotencyKey": d.idempotency_key,
        "subject": {"source": source, "group": group, "kind": kind, "id": id_} if d.subject else None,
        "eventType": event.notice.event_type if event is not None else "",
        "verb": event.verb if event is not None else "",
        "attempts": d.attempt,
        "error": d.detail,
        "nextStep": _next_step(d),
        "firstAt": rfc3339_us(d.first_at) if d.first_at else None,
        "failedAt": rfc3339_us(d.at),
    }


def event_of(d: Delivery) -> Event | None:
    """The copy that a dead letter keeps of its event; None: it is lost."""
    return _event(d.event) if d.event else None


def letter_id(d: Delivery) -> str:
    """A dead letter's name: `<handler>.<revision>`, and `.<number>` behind it for a further match of the entry."""
    return f"{d.handler}.{d.revision}" + (f".{d.number}" if d.number else "")


def shown(d: Delivery) -> dict[str, Any]:
    """A delivery as the API shows it."""
    return {
        "id": letter_id(d),
        "idempotencyKey": d.idempotency_key,
        "subject": d.subject,
        "outcome": d.outcome,
        "attempts": d.attempt,
        "detail": d.detail,
        "at": rfc3339_us(d.at) if d.at else None,
        "nextAt": rfc3339_us(d.next_at) if d.outcome == "pending" and d.next_at else None,
        "replay": d.replay,
    }


def _next_step(d: Delivery) -> str:
    """For the person who reads it at night."""
    if not d.event:
        return f"its event is lost: vedette deadletters discard {letter_id(d)}, and vedette resync to compare with the cloud"
    return f"mend the cause, then: vedette deadletters redrive {letter_id(d)}"


def _notice(now: int, event_type: str, name: str, payload: dict[str, Any], request: str = "") -> Notice:
    return Notice(
        id=f"{event_type}/{name}/{now}",
        source=VEDETTE_SOURCE,
        event_type=event_type,
        sent_at=now,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        origin="vedette",
        global_request_id=request,
    )
