"""Suspends a server: its memory goes to disk."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="suspend",
    doc="Suspend a server",
    done=frozenset({"SUSPENDED"}),
    possible=frozenset({"ACTIVE"}),
    what="suspend",
    back="resume",
)
