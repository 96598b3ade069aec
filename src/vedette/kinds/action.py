"""Actions of plans, as objects: engine/audits.py makes them, engine/applier.py carries them out."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Action",
    plural="actions",
    singular="action",
    short_names=(),
    group=VEDETTE,
    doc="One step of an action plan.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "action_plan_uuid": Field("string", "The plan that it belongs to."),
        "audit_uuid": Field("string", "The audit that made the plan."),
        "action_type": Field("string", "What kind of action it is."),
        "description": Field("string", "The same in a sentence."),
        "input_parameters": Field("object", "What it does it to."),
        "parents": Field("array", "Actions that have to be over before it begins."),
        "state": Field("string", "PENDING, ONGOING, SUCCEEDED, FAILED, SKIPPED, CANCELLING or CANCELLED."),
        "status_message": Field("string", "How far it is, or why it ended so."),
        "order": Field("integer", "Its place in the plan."),
        "before": Field("object", "What was there before it: undoing needs that."),
        "request_id": Field("string", "The request under which it asks the cloud."),
        "attempt": Field("integer", "How often it was begun."),
        "started_at": Field("string", "When it was begun."),
        "ended_at": Field("string", "When it ended."),
        "outcome": Field("string", "done, skipped, failed, cancelled, undone, not undone, or unsure."),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(
        Column("Type", ("action_type",)),
        Column("State", ("state",)),
        Column("Outcome", ("outcome",)),
        Column("Plan", ("action_plan_uuid",), priority=1),
        Column("Message", ("status_message",)),
    ),
)
