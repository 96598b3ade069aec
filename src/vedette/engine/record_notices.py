"""What the log is told when a record changes: Watcher's versioned notifications, with its event types and field names.

engine/records.py appends them; the first of a change carries the record itself. (Watcher 17, watcher/notifications/*.py.)
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec

from vedette.model.audit import Audit, Record

R = TypeVar("R", bound=Record)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One notice, not yet made."""

    event_type: str
    payload: dict[str, Any]
    priority: str = "INFO"
    request_id: str = ""


class Lookup(Protocol):
    """Where the goal of an audit or the plan of an action is found."""

    def get(self, kind: type[R], uuid: str) -> R: ...


def told(before: Record | None, now: Record | None, records: Lookup) -> list[Told]:
    """The notices of one change, at least one: `before` None: it is new; `now` None: it is deleted."""
    record = now or before
    assert record is not None
    verb = "create" if before is None else "delete" if now is None else "update"
    return [Told(event_type=f"{record.EVENT}.{verb}", payload=msgspec.to_builtins(record))]


def audit_notice(what: str, audit: Audit, records: Lookup, fault: Exception | None = None) -> Told:
    """A notice of a run that changes no record: `strategy.start`, `strategy.end`, `strategy.error`, `planner.start`, …"""
    payload: dict[str, Any] = msgspec.to_builtins(audit)
    if fault is not None:
        payload["fault"] = {"exception": type(fault).__name__, "exception_message": str(fault)}
    return Told(event_type=f"audit.{what}", payload=payload, priority="ERROR" if what.endswith("error") else "INFO")
