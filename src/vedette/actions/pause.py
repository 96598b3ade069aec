"""Pauses a server: it stays in its host's memory."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="pause",
    doc="Pause a server",
    done=frozenset({"PAUSED"}),
    possible=frozenset({"ACTIVE"}),
    what="pause",
    back="unpause",
)
