"""Goals of audits (model/goals.py), as objects: engine/catalogue.py keeps them equal to the code."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Goal",
    plural="goals",
    singular="goal",
    short_names=(),
    group=VEDETTE,
    doc="What an audit is to achieve, as OpenStack Watcher names it.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "name": Field("string", "Its name."),
        "display_name": Field("string", "Its name for people."),
        "efficacy_specification": Field(
            "array", "The indicators that tell how well it was achieved: name, description, unit and schema."
        ),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(Column("Display-Name", ("display_name",)),),
)
