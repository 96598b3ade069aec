"""Action plans, as objects: engine/audits.py makes them, engine/applier.py carries them out."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="ActionPlan",
    plural="actionplans",
    singular="actionplan",
    short_names=("ap",),
    group=VEDETTE,
    doc="What an audit proposes to do, and what became of it.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "audit_uuid": Field("string", "The audit that made it."),
        "audit_name": Field("string", "That audit's name."),
        "strategy_uuid": Field("string", "The strategy, by id."),
        "strategy_name": Field("string", "The strategy, by name."),
        "state": Field("string", "RECOMMENDED, PENDING, ONGOING, SUCCEEDED, FAILED, CANCELLING, CANCELLED or SUPERSEDED."),
        "efficacy_indicators": Field("array", "What the strategy promises: name, description, unit and value."),
        "global_efficacy": Field("array", "The same for the whole."),
        "hostname": Field("string", "Where it was made."),
        "status_message": Field("string", "What it waits for, or why it ended so."),
        "snapshot_revision": Field("integer", "The revision of the inventory that it was made for."),
        "run": Field("integer", "The audit's run that made it."),
        "run_started_at": Field("string", "When that run began."),
        "trigger": Field("array", "What set the audit off, oldest first; at most 100."),
        "triggers": Field("integer", "How many triggers there were."),
        "notes": Field("array", "What the strategy has to say: what it left out and why."),
        "policy": Field("string", "What happens when an action fails: stop, continue or rollback."),
        "dry_run": Field("boolean", "Whether preconditions are looked at and nothing is done."),
        "approved_by": Field("string", "Who approved it."),
        "requested_by": Field("string", "Who asked for it at a front end; then no audit made it."),
        "undoing": Field("boolean", "Whether it is being taken back."),
        "measured_indicators": Field("array", "The indicators as they turned out."),
        "measured_efficacy": Field("array", "The same for the whole."),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(
        Column("Audit", ("audit_name",)),
        Column("Strategy", ("strategy_name",)),
        Column("State", ("state",)),
        Column("Requested By", ("requested_by",), priority=1),
        Column("Triggers", ("triggers",), "integer", priority=1),
        Column("Message", ("status_message",)),
    ),
)
