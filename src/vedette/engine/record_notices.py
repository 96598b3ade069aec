"""What the log is told when a record changes: Watcher's versioned notifications, with its event types, objects and field names.

engine/records.py appends them; the first of a change carries the record itself. handlers/watcher_notifications.py publishes them.
What Watcher has no notification of (goals, strategies, templates) has an event type of our own. A change of state gives a second
one: `action_plan.execution.start`, `action.execution.error`, … (Watcher 17, watcher/notifications/*.py; state changes as in
applier/action_plan/default.py and applier/workflow_engine/base.py.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

import msgspec

from vedette.errors import NotFound
from vedette.model.audit import Action, ActionPlan, Audit, GoalRecord, Record, StrategyRecord

R = TypeVar("R", bound=Record)
Fields = dict[str, Any]


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One notice, not yet made."""

    event_type: str
    payload: Fields
    priority: str = "INFO"
    request_id: str = ""


class Lookup(Protocol):
    """Where the goal of an audit or the plan of an action is found. Raises NotFound."""

    def get(self, kind: type[R], ident: str) -> R: ...


_TIMES = ("created_at", "updated_at", "deleted_at")
_GOAL = ("uuid", "name", "display_name", "efficacy_specification", *_TIMES)
_STRATEGY = ("uuid", "name", "display_name", "parameters_spec", *_TIMES)
_AUDIT = (
    "uuid", "name", "audit_type", "state", "parameters", "interval", "scope", "goal_uuid", "strategy_uuid", "auto_trigger",
    "next_run_time", *_TIMES, "status_message",
)  # fmt: skip
_PLAN = ("uuid", "state", "global_efficacy", "audit_uuid", "strategy_uuid", "status_message", *_TIMES)
_ACTION = ("uuid", "action_type", "input_parameters", "state", "parents", "action_plan_uuid", "status_message", *_TIMES)

_PLAN_MOVES: Mapping[tuple[str, str], str] = {
    ("PENDING", "ONGOING"): "execution.start",
    ("ONGOING", "SUCCEEDED"): "execution.end",
    ("ONGOING", "FAILED"): "execution.error",
    ("ONGOING", "CANCELLING"): "cancel.start",
    ("CANCELLING", "CANCELLED"): "cancel.end",
    ("CANCELLING", "FAILED"): "cancel.error",
}
_ACTION_MOVES: Mapping[tuple[str, str], str] = {
    ("PENDING", "ONGOING"): "execution.start",
    ("ONGOING", "SUCCEEDED"): "execution.end",
    ("ONGOING", "FAILED"): "execution.error",
    ("PENDING", "FAILED"): "execution.error",
    ("ONGOING", "CANCELLING"): "cancel.start",
    ("CANCELLING", "CANCELLED"): "cancel.end",
    ("ONGOING", "CANCELLED"): "cancel.end",
    ("CANCELLING", "FAILED"): "cancel.error",
}


def told(before: Record | None, now: Record | None, records: Lookup) -> list[Told]:
    """The notices of one change, at least one: `before` None: it is new; `now` None: it is deleted."""
    record = now or before
    assert record is not None
    verb = "create" if before is None else "delete" if now is None else "update"
    match record:
        case Audit():
            fields, name = _audit(record, records), "Audit"
        case ActionPlan():
            fields, name = _plan(record, records), "ActionPlan"
        case Action():
            fields, name = _action(record, records), "Action"
        case _:
            return [Told(event_type=f"vedette.{record.EVENT}.{verb}", payload=msgspec.to_builtins(record))]
    if verb == "update":
        fields["state_update"] = _state_update(name, before, record)
    found = [Told(event_type=f"{record.EVENT}.{verb}", payload=_object(f"{name}{verb.capitalize()}Payload", fields, name))]
    moved = _moved(before, record) if verb == "update" else ""
    if moved:
        found.append(_of_a_move(name, record, moved, fields))
    return found


def audit_notice(what: str, audit: Audit, records: Lookup, fault: Exception | None = None) -> Told:
    """A notice of a run that changes no record: `strategy.start`, `strategy.end`, `strategy.error`, `planner.start`, …"""
    fields = {**_audit(audit, records), "fault": None if fault is None else _fault(type(fault).__name__, str(fault))}
    priority = "ERROR" if what.endswith(".error") else "INFO"
    return Told(event_type=f"audit.{what}", payload=_object("AuditActionPayload", fields, "Audit"), priority=priority)


def _moved(before: Record | None, record: Record) -> str:
    """What a change of state is called, if it is one that Watcher tells of."""
    match before, record:
        case ActionPlan(), ActionPlan():
            return _PLAN_MOVES.get((before.state, record.state), "")
        case Action(), Action():
            return _ACTION_MOVES.get((before.state, record.state), "")
    return ""


def _of_a_move(name: str, record: Record, moved: str, fields: Fields) -> Told:
    failed = moved.endswith(".error")
    fields = {key: value for key, value in fields.items() if key != "state_update"}
    fields["fault"] = _fault("", str(getattr(record, "status_message", None) or "")) if failed else None
    what = moved.partition(".")[0]
    kind = "Cancel" if what == "cancel" else "Action" if name == "ActionPlan" else "Execution"
    return Told(
        event_type=f"{record.EVENT}.{moved}",
        payload=_object(f"{name}{kind}Payload", fields, name),
        priority="ERROR" if failed else "INFO",
        request_id=record.request_id if isinstance(record, Action) else "",
    )


# --- objects ---------------------------------------------------------------------------------------------------------------

_VERSIONS = {"Audit": "1.2", "ActionPlan": "1.2", "Action": "1.1"}
"""Of the payloads that a notice has, by what they are of."""


def _object(name: str, data: Fields, of: str = "", version: str = "") -> Fields:
    return {
        "watcher_object.name": name,
        "watcher_object.namespace": "watcher",
        "watcher_object.version": version or _VERSIONS[of],
        "watcher_object.data": data,
    }


def _picked(record: Record, names: tuple[str, ...]) -> Fields:
    picked = {name: getattr(record, name) for name in names}
    for name in _TIMES:
        # As Watcher's are: empty ones are null.
        picked[name] = picked[name] or None
    return picked


def _goal(ident: str, records: Lookup) -> Fields | None:
    try:
        return _object("GoalPayload", _picked(records.get(GoalRecord, ident), _GOAL), version="1.0")
    except NotFound:
        return None


def _strategy(ident: str | None, records: Lookup) -> Fields | None:
    try:
        return (
            None
            if ident is None
            else _object("StrategyPayload", _picked(records.get(StrategyRecord, ident), _STRATEGY), version="1.0")
        )
    except NotFound:
        return None


def _audit(audit: Audit, records: Lookup) -> Fields:
    return {
        **_picked(audit, _AUDIT),
        "goal": _goal(audit.goal_uuid, records),
        "strategy": _strategy(audit.strategy_uuid, records),
    }


def _plan(plan: ActionPlan, records: Lookup) -> Fields:
    try:
        audit = _object("TerseAuditPayload", _picked(records.get(Audit, plan.audit_uuid), _AUDIT), version="1.3")
    except NotFound:
        audit = None  # deleted before its plan
    return {**_picked(plan, _PLAN), "audit": audit, "strategy": _strategy(plan.strategy_uuid, records)}


def _action(action: Action, records: Lookup) -> Fields:
    try:
        plan = _object("TerseActionPlanPayload", _picked(records.get(ActionPlan, action.action_plan_uuid), _PLAN), version="1.2")
    except NotFound:
        plan = None
    return {**_picked(action, _ACTION), "action_plan": plan}


def _state_update(name: str, before: Record | None, now: Record) -> Fields:
    old, new = getattr(before, "state", None), getattr(now, "state", None)
    moved = old != new
    data = {
        "old_state": old if moved else None,
        "state": new if moved else None,
        "status_message": getattr(now, "status_message", None) if moved else None,
    }
    return _object(f"{name}StateUpdatePayload", data, version="1.1")


def _fault(exception: str, message: str) -> Fields:
    data = {"module_name": "", "function_name": "", "exception": exception, "exception_message": message}
    return _object("ExceptionPayload", data, version="1.0")
