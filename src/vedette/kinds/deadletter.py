"""Deliveries that no retry will make, until somebody redrives or discards them; engine/letters.py tells of them."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="DeadLetter",
    plural="deadletters",
    singular="deadletter",
    short_names=("dl",),
    group=VEDETTE,
    doc="A delivery that failed for good: what it was about, why, and what to do next.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "handler": Field("string", "The handler that was called."),
        "revision": Field("string", "The entry of the log."),
        "number": Field("integer", "0 for the entry's first match, 1 for the next, …"),
        "idempotencyKey": Field("string", "What the target was told, each time the same."),
        "subject": Field("object", "The object: source, group, kind and id."),
        "eventType": Field("string", "The notification's event type."),
        "verb": Field("string", "ADDED, MODIFIED or DELETED; empty for a notification."),
        "attempts": Field("integer", "Calls that were made."),
        "error": Field("string", "Why the last one failed."),
        "nextStep": Field("string", "What to do."),
        "firstAt": Field("string", "When it was first tried."),
        "failedAt": Field("string", "When it was given up."),
    },
    columns=(
        Column("Handler", ("handler",)),
        Column("Event", ("eventType",)),
        Column("Attempts", ("attempts",), "integer"),
        Column("Error", ("error",)),
        Column("Next", ("nextStep",), priority=1),
    ),
)
