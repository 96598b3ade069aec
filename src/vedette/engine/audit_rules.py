"""Rules that trigger EVENT audits: an event that one matches comes from engine/dispatch.py like a handler's, a trigger goes to
engine/audits.py.

So a rule has what a handler has: a place in the log, windows, at-least-once, retries, dead letters (`vedette deadletters`), and
`vedette explain` says why it did not match. A trigger that is made twice while the first still waits is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

import msgspec

from vedette.engine.conditions import Expression, View
from vedette.engine.triggers import TRIGGER_EVENT
from vedette.errors import BadRequest, GiveUp, NotFound
from vedette.model import cloudevent
from vedette.model.advice import Trigger
from vedette.model.change import Change, Version
from vedette.model.entry import Entry
from vedette.ports import Appended, Context, Event

LONGEST_ALARM = 64 * 1024
"""Bytes of an event that goes along with the trigger; of a larger one only what it is about."""
MOST_OBJECTS = 100

_PAYLOAD = ("instance_id", "instance_uuid", "uuid", "host", "node", "hypervisor_hostname", "compute", "resource_id", "volume_id")
"""Fields of a payload, at its top or in `nova_object.data`, that name what it is about."""
_STATUS = ("OS-EXT-SRV-ATTR:hypervisor_hostname", "OS-EXT-SRV-ATTR:host", "hypervisor_hostname", "host", "os-vol-host-attr:host")


class TriggerAudit(Protocol):
    """Audits.trigger."""

    def __call__(self, ident: str, trigger: Trigger, *, key: str = "") -> Awaitable[None]: ...


class RuleHandler:
    """A ports.Handler: see the module."""

    def __init__(self, name: str, audit: str, trigger: TriggerAudit, objects: Sequence[Expression] = ()) -> None:
        self._name = name
        self._audit = audit
        self._trigger = trigger
        self._objects = objects

    async def handle(self, event: Event, context: Context) -> str:
        if event.notice.event_type == TRIGGER_EVENT:
            return "a trigger is no reason for a trigger"
        alarm = _told(event)
        concerned = self._named(event) if self._objects else objects_of(event)
        trigger = Trigger(
            at=event.notice.sent_at or event.appended_at,
            cause="rule",
            rule=self._name,
            alarm=alarm,
            objects=concerned[:MOST_OBJECTS],
        )
        try:
            await self._trigger(self._audit, trigger, key=event.idempotency_key)
        except NotFound:
            raise GiveUp(f"there is no audit {self._audit!r}: make it (audit_type EVENT), then redrive this") from None
        except BadRequest as why:
            raise GiveUp(f"audit {self._audit}: {why}") from None
        return f"audit {self._audit} is triggered"

    def _named(self, event: Event) -> tuple[str, ...]:
        view = _view(event)
        return tuple(dict.fromkeys(value for one in self._objects if (value := one.value(view))))

    async def close(self) -> None:
        """Nothing is open."""


def objects_of(event: Event) -> tuple[str, ...]:
    """Ids and names of what an event is about: its object, and the hosts that it or the payload names."""
    found: list[Any] = []
    if event.key is not None:
        found.append(event.key.id)
    status = event.object.get("status")
    if isinstance(status, dict):
        found += [status.get(name) for name in _STATUS]
    payload = event.payload
    for fields in (payload, payload.get("nova_object.data")) if isinstance(payload, dict) else ():
        if isinstance(fields, dict):
            found += [fields.get(name) for name in _PAYLOAD]
    return tuple(dict.fromkeys(one for one in found if isinstance(one, str) and one))


def _told(event: Event) -> Any:
    """The event as a CloudEvent, as handlers' targets get it."""
    if event.verb and event.key is not None:
        told = cloudevent.of_change(
            event.notice,
            revision=event.revision,
            appended_at=event.appended_at,
            key=event.key,
            verb=event.verb,
            now=event.raw_object,
            before=event.raw_old,
        )
    else:
        subject = cloudevent.subject(event.key.kind, event.key.id) if event.key is not None else None
        told = cloudevent.of_notice(event.notice, revision=event.revision, appended_at=event.appended_at, subject=subject)
    if len(told) > LONGEST_ALARM:
        return {"type": event.notice.event_type, "id": event.notice.id, "revision": str(event.revision), "cut": len(told)}
    return msgspec.json.decode(told)


def _view(event: Event) -> View:
    """What expressions look at."""
    entry = Entry(event.revision, event.appended_at, event.notice)
    if not event.verb or event.key is None:
        return View(Appended(entry, ()), None)
    old = bytes(event.raw_old)
    change = Change(
        revision=event.revision,
        key=event.key,
        verb=event.verb,
        now=_version(event.revision, bytes(event.raw_object)),
        before=None if old == b"{}" else _version(0, old),
    )
    return View(Appended(entry, (change,)), change)


def _version(revision: int, body: bytes) -> Version:
    return Version(revision=revision, body=body, cut=len(body), project="", shared=False, owner="")
