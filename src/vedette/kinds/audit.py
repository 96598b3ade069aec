"""Audits, as objects: written through engine/records.py by the API and by engine/audits.py."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Audit",
    plural="audits",
    singular="audit",
    short_names=(),
    group=VEDETTE,
    doc="A question to a strategy: once, again and again, or when something happens.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "name": Field("string", "Its name."),
        "audit_type": Field("string", "ONESHOT, CONTINUOUS or EVENT."),
        "state": Field("string", "PENDING, ONGOING, SUCCEEDED, FAILED, CANCELLED or SUSPENDED."),
        "goal_uuid": Field("string", "The goal, by id."),
        "goal_name": Field("string", "The goal, by name."),
        "strategy_uuid": Field("string", "The strategy, by id; null: the goal's default one."),
        "strategy_name": Field("string", "The strategy, by name."),
        "parameters": Field("object", "The strategy's parameters."),
        "interval": Field("string", "Of a CONTINUOUS audit: seconds, or a cron expression in UTC."),
        "scope": Field("array", "What it looks at."),
        "auto_trigger": Field("boolean", "Whether its plans are carried out without being asked for."),
        "next_run_time": Field("string", "When a CONTINUOUS audit runs next."),
        "hostname": Field("string", "Where it ran last."),
        "start_time": Field("string", "Not before this."),
        "end_time": Field("string", "Not after this."),
        "force": Field("boolean", "Whether it also runs while an action plan is being carried out."),
        "status_message": Field("string", "How far it is, or why the last run did not take place or failed."),
        "runs": Field("integer", "Runs that were begun."),
        "skipped": Field("integer", "Runs that did not take place."),
        "triggers": Field("integer", "Triggers that runs have taken up."),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(
        Column("Audit-Name", ("name",)),
        Column("Type", ("audit_type",)),
        Column("State", ("state",)),
        Column("Goal", ("goal_name",)),
        Column("Strategy", ("strategy_name",), priority=1),
        Column("Runs", ("runs",), "integer"),
        Column("Message", ("status_message",)),
    ),
)
