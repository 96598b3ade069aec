"""Scoring engines, as objects: engine/catalogue.py keeps them equal to the code."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="ScoringEngine",
    plural="scoringengines",
    singular="scoringengine",
    short_names=(),
    group=VEDETTE,
    doc="A model that scores data for strategies.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "uuid": Field("string", "Its id, as Watcher's API has it."),
        "name": Field("string", "Its name."),
        "description": Field("string", "What it does."),
        "metainfo": Field("string", "What it takes, as JSON in a string."),
        "created_at": Field("string", "When it was made."),
        "updated_at": Field("string", "When it was last changed."),
        "deleted_at": Field("string", "When it was deleted."),
    },
    columns=(Column("Description", ("description",)),),
)
