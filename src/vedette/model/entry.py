"""An entry: one notice with its readings, in the log under one revision."""

from __future__ import annotations

import msgspec

from vedette.model.notice import Notice
from vedette.model.reading import Reading


class NewEntry(msgspec.Struct, frozen=True):
    """What is offered to a store: it gives the revision."""

    notice: Notice
    readings: tuple[Reading, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """What the log holds."""

    revision: int
    appended_at: int
    """UTC microseconds; never decreases from entry to entry."""
    notice: Notice
    readings: tuple[Reading, ...] = ()
