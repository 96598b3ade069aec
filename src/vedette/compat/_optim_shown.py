"""Records as Watcher's API shows them: which fields in a list, which in detail, which from which microversion on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vedette.compat._optim_http import Item, links
from vedette.kit.clock import parse_us, rfc3339
from vedette.model.audit import (
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    GoalRecord,
    Record,
    ScoringEngineRecord,
    StrategyRecord,
)

Version = tuple[int, int]


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One collection of the API."""

    name: str
    """In paths and bodies: `audit_templates`."""
    kind: type[Record]
    policy: str
    """The first half of its policies' names: `audit_template`."""
    short: tuple[str, ...]
    """Fields of a list."""
    full: tuple[str, ...]
    """Fields of one, and of a list in detail."""
    since: Mapping[str, Version] = {}
    """Field → the microversion that brought it."""
    filters: tuple[str, ...] = ()
    by_name: bool = True
    """Whether its path takes a name too."""

    def show(self, record: Record, base: str, version: Version, *, detail: bool) -> Item:
        fields = self.full if detail else self.short
        shown = {name: _value(record, name) for name in fields if version >= self.since.get(name, (1, 0))}
        shown["links"] = links(base, self.name, record.uuid)
        return shown


_TIMES = ("created_at", "updated_at", "deleted_at")

GOALS = Resource(
    name="goals",
    kind=GoalRecord,
    policy="goal",
    short=("uuid", "name", "display_name", "efficacy_specification"),
    full=("uuid", "name", "display_name", "efficacy_specification", *_TIMES),
)
STRATEGIES = Resource(
    name="strategies",
    kind=StrategyRecord,
    policy="strategy",
    short=("uuid", "name", "display_name", "goal_uuid", "goal_name"),
    full=("uuid", "name", "display_name", "goal_uuid", "goal_name", "parameters_spec", *_TIMES),
    filters=("goal",),
)
SCORING_ENGINES = Resource(
    name="scoring_engines",
    kind=ScoringEngineRecord,
    policy="scoring_engine",
    short=("uuid", "name", "description"),
    full=("uuid", "name", "description", "metainfo", *_TIMES),
)
TEMPLATES = Resource(
    name="audit_templates",
    kind=AuditTemplate,
    policy="audit_template",
    short=("uuid", "name", "goal_uuid", "goal_name", "scope", "strategy_uuid", "strategy_name"),
    full=(
        "uuid", "name", "description", "goal_uuid", "goal_name", "strategy_uuid", "strategy_name", "scope",
        "default_parameters", *_TIMES,
    ),
    since={"default_parameters": (1, 7)},
    filters=("goal", "strategy"),
)  # fmt: skip
AUDITS = Resource(
    name="audits",
    kind=Audit,
    policy="audit",
    short=(
        "uuid", "name", "audit_type", "state", "goal_uuid", "interval", "scope", "strategy_uuid", "goal_name", "strategy_name",
        "auto_trigger", "next_run_time",
    ),
    full=(
        "uuid", "name", "audit_type", "state", "goal_uuid", "goal_name", "strategy_uuid", "strategy_name", "parameters",
        "interval", "scope", "auto_trigger", "next_run_time", "hostname", "start_time", "end_time", "force", "status_message",
        *_TIMES,
    ),
    since={"start_time": (1, 1), "end_time": (1, 1), "force": (1, 2), "status_message": (1, 5)},
    filters=("goal", "strategy"),
)  # fmt: skip
PLANS = Resource(
    name="action_plans",
    kind=ActionPlan,
    policy="action_plan",
    short=(
        "uuid", "state", "efficacy_indicators", "global_efficacy", "updated_at", "audit_uuid", "strategy_uuid", "strategy_name",
    ),
    full=(
        "uuid", "state", "audit_uuid", "strategy_uuid", "strategy_name", "efficacy_indicators", "global_efficacy", "hostname",
        "status_message", *_TIMES,
    ),
    since={"status_message": (1, 5)},
    filters=("audit_uuid", "strategy"),
    by_name=False,
)  # fmt: skip
ACTIONS = Resource(
    name="actions",
    kind=Action,
    policy="action",
    short=("uuid", "state", "action_plan_uuid", "action_type", "parents"),
    full=(
        "uuid", "action_plan_uuid", "action_type", "description", "input_parameters", "parents", "state", "status_message",
        *_TIMES,
    ),
    since={"status_message": (1, 5)},
    filters=("action_plan_uuid", "audit_uuid"),
    by_name=False,
)  # fmt: skip

RESOURCES: Sequence[Resource] = (GOALS, STRATEGIES, SCORING_ENGINES, TEMPLATES, AUDITS, PLANS, ACTIONS)


def _value(record: Record, name: str) -> Any:
    value = getattr(record, name)
    if value is not None and name in (*_TIMES, "next_run_time", "start_time", "end_time"):
        moment = parse_us(value)
        # As Watcher writes them: UTC, with the offset where the database's time has one.
        return value if moment is None else rfc3339(moment)[:-1] + "+00:00"
    return msgspec.to_builtins(value)
