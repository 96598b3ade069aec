"""What Vedette keeps of audits: templates, audits, action plans and actions, with the fields that Watcher's API gives them.

They are objects of the log (group `vedette.dev`), written and read by engine/records.py and served by compat/infra_optim.py and
as kinds. Times are RFC 3339 with seconds; "" and None are "not".

The state machines are Watcher's (`AUDIT`, `PLAN`, `ACTION`): state → the states that may follow.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

AuditType = Literal["ONESHOT", "CONTINUOUS", "EVENT"]
AuditState = Literal["PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED", "DELETED"]
PlanState = Literal[
    "RECOMMENDED", "PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLING", "CANCELLED", "SUPERSEDED", "DELETED"
]
ActionState = Literal["PENDING", "ONGOING", "SUCCEEDED", "FAILED", "SKIPPED", "CANCELLING", "CANCELLED", "DELETED"]

AUDIT: dict[str, frozenset[str]] = {
    "PENDING": frozenset({"ONGOING", "CANCELLED"}),
    "ONGOING": frozenset({"SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED"}),
    "SUSPENDED": frozenset({"ONGOING", "DELETED"}),
    "SUCCEEDED": frozenset({"DELETED"}),
    "FAILED": frozenset({"DELETED"}),
    "CANCELLED": frozenset({"DELETED"}),
}
"""What a user may ask for. An EVENT audit also goes from SUCCEEDED and FAILED to ONGOING, when it is triggered."""

PLAN: dict[str, frozenset[str]] = {
    "RECOMMENDED": frozenset({"PENDING", "CANCELLED", "SUPERSEDED"}),
    "PENDING": frozenset({"ONGOING", "CANCELLED"}),
    "ONGOING": frozenset({"SUCCEEDED", "FAILED", "CANCELLING"}),
    "CANCELLING": frozenset({"CANCELLED", "FAILED"}),
}
PLAN_BY_USER: dict[str, frozenset[str]] = {
    "RECOMMENDED": frozenset({"PENDING", "CANCELLED"}),
    "PENDING": frozenset({"CANCELLED"}),
    "ONGOING": frozenset({"CANCELLING"}),
}
PLAN_DELETABLE = frozenset({"SUCCEEDED", "RECOMMENDED", "FAILED", "SUPERSEDED", "CANCELLED"})
AUDIT_DELETABLE = frozenset({"FAILED", "SUCCEEDED", "CANCELLED", "SUSPENDED"})

ACTION: dict[str, frozenset[str]] = {
    "PENDING": frozenset({"ONGOING", "SKIPPED", "FAILED", "CANCELLED"}),
    "ONGOING": frozenset({"SUCCEEDED", "FAILED", "CANCELLING"}),
    "CANCELLING": frozenset({"CANCELLED", "FAILED"}),
}


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What all of them have."""

    KIND: ClassVar[str]
    """The kind's name in the log."""
    EVENT: ClassVar[str]
    """The beginning of its event types: `audit`, `action_plan`, …"""

    uuid: str
    created_at: str = ""
    updated_at: str | None = None
    deleted_at: str | None = None


class GoalRecord(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "Goal"
    EVENT: ClassVar[str] = "goal"
    name: str
    display_name: str
    efficacy_specification: list[dict[str, Any]] = []


class StrategyRecord(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "Strategy"
    EVENT: ClassVar[str] = "strategy"
    name: str
    display_name: str
    goal_uuid: str
    goal_name: str
    parameters_spec: dict[str, Any] = {}


class ScoringEngineRecord(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "ScoringEngine"
    EVENT: ClassVar[str] = "scoring_engine"
    name: str
    description: str
    metainfo: str = ""


class AuditTemplate(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "AuditTemplate"
    EVENT: ClassVar[str] = "audit_template"
    name: str
    description: str = ""
    goal_uuid: str
    goal_name: str
    strategy_uuid: str | None = None
    strategy_name: str | None = None
    scope: list[dict[str, Any]] = []
    default_parameters: dict[str, Any] = {}


class Audit(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "Audit"
    EVENT: ClassVar[str] = "audit"
    name: str
    audit_type: AuditType
    state: AuditState = "PENDING"
    goal_uuid: str
    goal_name: str
    strategy_uuid: str | None = None
    """None: the goal's default one."""
    strategy_name: str | None = None
    parameters: dict[str, Any] = {}
    interval: str | None = None
    """Seconds, or five cron fields (UTC)."""
    scope: list[dict[str, Any]] = []
    auto_trigger: bool = False
    next_run_time: str | None = None
    hostname: str | None = None
    start_time: str | None = None
    end_time: str | None = None
    force: bool = False
    status_message: str | None = None
    runs: int = 0
    """Ours: runs that were begun."""
    skipped: int = 0
    """Ours: runs that did not take place; `status_message` says why the last one didn't."""
    triggers: int = 0
    """Ours: triggers that were accepted."""


class ActionPlan(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "ActionPlan"
    EVENT: ClassVar[str] = "action_plan"
    audit_uuid: str
    audit_name: str = ""
    strategy_uuid: str
    strategy_name: str
    state: PlanState = "RECOMMENDED"
    efficacy_indicators: list[dict[str, Any]] = []
    global_efficacy: list[dict[str, Any]] = []
    hostname: str | None = None
    status_message: str | None = None
    snapshot_revision: int = 0
    """Ours: the revision of the inventory that it was made for."""
    run: int = 0
    """Ours: the audit's run that made it."""
    run_started_at: str = ""
    """Ours: when that run began."""
    trigger: list[dict[str, Any]] = []
    """Ours: what set the audit off (model/advice.py, Trigger); the first of many, at most 100."""
    triggers: int = 0
    """Ours: how many there were."""
    notes: list[str] = []
    """Ours: what the strategy has to say."""
    policy: str = "stop"
    """Ours: `stop`, `continue` or `rollback` when an action fails."""
    dry_run: bool = False
    """Ours: preconditions are looked at and nothing is done."""
    undoing: bool = False
    """Ours: it failed, and what was done is being undone (policy `rollback`); a crash goes on with that."""
    approved_by: str | None = None
    """Ours: who approved it, where approval is wanted."""
    requested_by: str = ""
    """Ours: who asked for it at a front end. It has no audit, and is carried out with the asker's own rights while he waits
    (engine/errands.py), never by the applier."""
    measured_indicators: list[dict[str, Any]] = []
    """Ours: the efficacy as measured after the plan, beside the predicted one."""
    measured_efficacy: list[dict[str, Any]] = []


class Action(Record, frozen=True, kw_only=True):
    KIND: ClassVar[str] = "Action"
    EVENT: ClassVar[str] = "action"
    action_plan_uuid: str
    audit_uuid: str
    action_type: str
    description: str = ""
    input_parameters: dict[str, Any] = {}
    parents: list[str] = []
    state: ActionState = "PENDING"
    status_message: str | None = None
    order: int = 0
    """Ours: its place in the plan."""
    before: dict[str, Any] | None = None
    """Ours: what its pre-condition found, written with the intent: what undoing it needs."""
    request_id: str = ""
    """Ours: the request under which it asks the cloud, `req-…`."""
    attempt: int = 0
    """Ours: how often it was begun; more than 1 after a crash."""
    started_at: str | None = None
    ended_at: str | None = None
    outcome: str = ""
    """Ours, beside the state: `done`, `skipped`, `failed`, `cancelled`, `undoing` (written before it is undone),
    `undone`, `not undone` (with the reason in `status_message`), `unsure` (a crash or its deadline in the middle, and the cloud
    can't tell). One that was undone stays SUCCEEDED."""


RECORDS: tuple[type[Record], ...] = (
    GoalRecord,
    StrategyRecord,
    ScoringEngineRecord,
    AuditTemplate,
    Audit,
    ActionPlan,
    Action,
)
