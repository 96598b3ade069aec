"""Strategies (strategies/), as objects: engine/catalogue.py keeps them equal to the code."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Strategy",
    plural="strategies",
    singular="strategy",
    short_names=(),
    group=VEDETTE,
    doc="A way to achieve a goal: what an audit runs.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "name": Field("string", "Its name."),
        "display_name": Field("string", "Its name for people."),
        "goal_uuid": Field("string", "The goal that it serves, by id."),
        "goal_name": Field("string", "The goal that it serves, by name."),
        "parameters_spec": Field("object", "JSON schema of its parameters."),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(
        Column("Goal", ("goal_name",)),
        Column("Display-Name", ("display_name",), priority=1),
    ),
)
