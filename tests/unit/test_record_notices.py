"""engine/record_notices.py: Watcher's notifications, field by field (the names are written down here, not taken from there)."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from vedette.engine.catalogue import id_of, sync
from vedette.engine.record_notices import Told, audit_notice, told
from vedette.engine.records import Records
from vedette.errors import BadRequest
from vedette.model.audit import Action, ActionPlan, Audit, AuditTemplate, GoalRecord, Record, StrategyRecord
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

TIMES = {"created_at", "updated_at", "deleted_at"}
GOAL = {"uuid", "name", "display_name", "efficacy_specification"} | TIMES
STRATEGY = {"uuid", "name", "display_name", "parameters_spec"} | TIMES
AUDIT = {
    *("uuid", "name", "audit_type", "state", "parameters", "interval", "scope", "goal_uuid", "strategy_uuid", "auto_trigger"),
    *("next_run_time", "status_message"),
} | TIMES
PLAN = {"uuid", "state", "global_efficacy", "audit_uuid", "strategy_uuid", "status_message"} | TIMES
ACTION = {"uuid", "action_type", "input_parameters", "state", "parents", "action_plan_uuid", "status_message"} | TIMES
UPDATE = {"old_state", "state", "status_message"}
FAULT = {"module_name", "function_name", "exception", "exception_message"}

AUDIT_ID, PLAN_ID, ACTION_ID = (str(uuid.uuid5(uuid.NAMESPACE_DNS, name)) for name in ("audit", "plan", "action"))


@pytest.fixture
async def records() -> Records:
    clock = FakeClock()
    records = Records(MemoryStore(clock), clock, "here")
    await records.load()
    await sync(records, {})
    await records.write([STRATEGY_RECORD, audit(), plan(), action()])
    return records


STRATEGY_RECORD = StrategyRecord(
    uuid=id_of(StrategyRecord, "dummy"), name="dummy", display_name="Dummy", goal_uuid="g", goal_name="dummy"
)


def audit(**more: Any) -> Audit:
    return Audit(
        uuid=AUDIT_ID,
        name="a",
        audit_type="EVENT",
        goal_uuid=id_of(GoalRecord, "dummy"),
        goal_name="dummy",
        strategy_uuid=STRATEGY_RECORD.uuid,
        **more,
    )


def plan(**more: Any) -> ActionPlan:
    return ActionPlan(uuid=PLAN_ID, audit_uuid=AUDIT_ID, strategy_uuid=STRATEGY_RECORD.uuid, strategy_name="dummy", **more)


def action(**more: Any) -> Action:
    return Action(uuid=ACTION_ID, action_plan_uuid=PLAN_ID, audit_uuid=AUDIT_ID, action_type="nop", **more)


def opened(found: Any) -> tuple[str, str, dict[str, Any]]:
    """(name, version, data) of an object."""
    assert set(found) == {f"watcher_object.{part}" for part in ("name", "namespace", "version", "data")}
    assert found["watcher_object.namespace"] == "watcher"
    return found["watcher_object.name"], found["watcher_object.version"], found["watcher_object.data"]


def one(found: list[Told]) -> Told:
    (single,) = found
    return single


@pytest.mark.parametrize("verb", ["create", "update", "delete"])
async def test_of_an_audit(records: Records, verb: str) -> None:
    after = audit(state="ONGOING", status_message="why")
    changes: dict[str, tuple[Record | None, Record | None]] = {
        "create": (None, audit()),
        "update": (audit(), after),
        "delete": (audit(), None),
    }
    notice = one(told(*changes[verb], records))
    assert (notice.event_type, notice.priority) == (f"audit.{verb}", "INFO")
    name, version, data = opened(notice.payload)
    assert (name, version) == (f"Audit{verb.capitalize()}Payload", "1.2")
    assert set(data) == AUDIT | {"goal", "strategy"} | ({"state_update"} if verb == "update" else set())
    name, version, goal = opened(data["goal"])
    assert (name, version, set(goal), goal["name"]) == ("GoalPayload", "1.0", GOAL, "dummy")
    name, version, strategy = opened(data["strategy"])
    assert (name, version, set(strategy), strategy["name"]) == ("StrategyPayload", "1.0", STRATEGY, "dummy")
    if verb == "update":
        name, version, update = opened(data["state_update"])
        assert (name, version) == ("AuditStateUpdatePayload", "1.1")
        assert update == {"old_state": "PENDING", "state": "ONGOING", "status_message": "why"}


async def test_of_a_plan_and_its_actions(records: Records) -> None:
    _, version, data = opened(one(told(None, plan(), records)).payload)
    assert (version, set(data)) == ("1.2", PLAN | {"audit", "strategy"})
    name, version, terse = opened(data["audit"])
    assert (name, version, set(terse)) == ("TerseAuditPayload", "1.3", AUDIT)
    _, version, data = opened(one(told(None, action(), records)).payload)
    assert (version, set(data)) == ("1.1", ACTION | {"action_plan"})
    name, version, terse = opened(data["action_plan"])
    assert (name, version, set(terse)) == ("TerseActionPlanPayload", "1.2", PLAN)


@pytest.mark.parametrize(
    ("before", "after", "event", "payload"),
    [
        ("PENDING", "ONGOING", "execution.start", "Action"),
        ("ONGOING", "SUCCEEDED", "execution.end", "Action"),
        ("ONGOING", "FAILED", "execution.error", "Action"),
        ("ONGOING", "CANCELLING", "cancel.start", "Cancel"),
        ("CANCELLING", "CANCELLED", "cancel.end", "Cancel"),
        ("CANCELLING", "FAILED", "cancel.error", "Cancel"),
        ("RECOMMENDED", "PENDING", "", ""),
        ("RECOMMENDED", "SUPERSEDED", "", ""),
    ],
)
async def test_of_what_a_plan_goes_through(records: Records, before: str, after: str, event: str, payload: str) -> None:
    found = told(plan(state=before), plan(state=after, status_message="so"), records)
    assert found[0].event_type == "action_plan.update"
    if not event:
        assert len(found) == 1
        return
    second = found[1]
    failed = event.endswith("error")
    assert (second.event_type, second.priority) == (f"action_plan.{event}", "ERROR" if failed else "INFO")
    name, _, data = opened(second.payload)
    assert (name, set(data)) == (f"ActionPlan{payload}Payload", PLAN | {"audit", "strategy", "fault"})
    if failed:
        name, version, fault = opened(data["fault"])
        assert (name, version, set(fault), fault["exception_message"]) == ("ExceptionPayload", "1.0", FAULT, "so")
    else:
        assert data["fault"] is None


@pytest.mark.parametrize(
    ("before", "after", "event", "payload"),
    [
        ("PENDING", "ONGOING", "execution.start", "Execution"),
        ("ONGOING", "SUCCEEDED", "execution.end", "Execution"),
        ("ONGOING", "FAILED", "execution.error", "Execution"),
        ("CANCELLING", "CANCELLED", "cancel.end", "Cancel"),
        ("PENDING", "SKIPPED", "", ""),
    ],
)
async def test_of_what_an_action_goes_through(records: Records, before: str, after: str, event: str, payload: str) -> None:
    found = told(action(state=before), action(state=after, request_id="req-1"), records)
    assert [notice.event_type for notice in found] == ["action.update", *([f"action.{event}"] if event else [])]
    if event:
        name, _, data = opened(found[1].payload)
        assert (name, set(data)) == (f"Action{payload}Payload", ACTION | {"action_plan", "fault"})
        assert found[1].request_id == "req-1"


async def test_of_a_run(records: Records) -> None:
    start = audit_notice("strategy.start", audit(), records)
    name, _, data = opened(start.payload)
    assert (start.event_type, start.priority, name) == ("audit.strategy.start", "INFO", "AuditActionPayload")
    assert set(data) == AUDIT | {"goal", "strategy", "fault"}
    failed = audit_notice("planner.error", audit(), records, BadRequest("no such action"))
    _, _, fault = opened(opened(failed.payload)[2]["fault"])
    assert (failed.event_type, failed.priority) == ("audit.planner.error", "ERROR")
    assert (fault["exception"], fault["exception_message"]) == ("BadRequest", "no such action")


async def test_what_watcher_has_no_word_for_is_ours(records: Records) -> None:
    template = AuditTemplate(uuid="t", name="t", goal_uuid="g", goal_name="dummy")
    assert one(told(None, template, records)).event_type == "vedette.audit_template.create"


async def test_what_is_gone_is_null(records: Records) -> None:
    await records.write(deletes=[records.get(ActionPlan, PLAN_ID), records.get(Audit, AUDIT_ID)])
    assert opened(one(told(None, action(), records)).payload)[2]["action_plan"] is None
    assert opened(one(told(None, plan(), records)).payload)[2]["audit"] is None
    assert opened(one(told(None, msgspec.structs.replace(audit(), strategy_uuid="x"), records)).payload)[2]["strategy"] is None


async def test_they_are_in_the_log_with_the_record(records: Records) -> None:
    """A plan that is written together with its actions is known to their notices."""
    other = msgspec.structs.replace(plan(), uuid="p2")
    step = msgspec.structs.replace(action(), uuid="a2", action_plan_uuid="p2")
    store = records._store
    head = store.head
    await records.write([other, step])
    entries, _ = await store.entries(head)
    assert [entry.entry.notice.event_type for entry in entries] == ["action_plan.create", "action.create"]
    assert {entry.entry.notice.publisher for entry in entries} == {"infra-optim:here"}
    payload = msgspec.json.decode(entries[1].entry.notice.payload)
    assert opened(opened(payload)[2]["action_plan"])[2]["uuid"] == "p2"
