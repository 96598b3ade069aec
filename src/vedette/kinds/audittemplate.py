"""Audit templates, as objects: written through engine/records.py."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="AuditTemplate",
    plural="audittemplates",
    singular="audittemplate",
    short_names=("at",),
    group=VEDETTE,
    doc="A goal, a strategy and a scope that audits are made from.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "name": Field("string", "Its name."),
        "description": Field("string", "What it is for."),
        "goal_uuid": Field("string", "The goal, by id."),
        "goal_name": Field("string", "The goal, by name."),
        "strategy_uuid": Field("string", "The strategy, by id; null: the goal's default one."),
        "strategy_name": Field("string", "The strategy, by name."),
        "scope": Field("array", "What its audits look at."),
        "default_parameters": Field("object", "Parameters of the strategy unless an audit says otherwise."),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(
        Column("Template-Name", ("name",)),
        Column("Goal", ("goal_name",)),
        Column("Strategy", ("strategy_name",)),
    ),
)
