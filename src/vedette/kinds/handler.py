"""Handlers of the configuration, as Vedette sees them itself: engine/letters.py tells of them with the readings made."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="Handler",
    plural="handlers",
    singular="handler",
    group=VEDETTE,
    doc="A handler of the configuration: where it is in the log, and whether its target answers.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "name": Field("string", "Its name in the configuration."),
        "use": Field("string", "The plug that is called."),
        "state": Field(
            "string",
            "`ready`; `behind` (it reads the log to where the others are); `waiting` (its target does not answer); `paused` (too "
            "many dead letters); `unconfigured` (it is not in the configuration, and its place in the log is kept).",
        ),
        "detail": Field("string", "What a person would want to know besides."),
        "position": Field("string", "The revision up to which the log was sorted for it, when this was written."),
        "pending": Field("integer", "Deliveries that waited, when this was written; `/metrics` has it now."),
        "deadLetters": Field("integer", "Its dead letters."),
        "lastError": Field("string", "What went wrong last."),
    },
    columns=(
        Column("Use", ("use",)),
        Column("State", ("state",)),
        Column("Dead", ("deadLetters",), "integer"),
        Column("Pending", ("pending",), "integer", priority=1),
        Column("Detail", ("detail",)),
    ),
)
