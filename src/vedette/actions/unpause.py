"""Lets a paused server go on."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="unpause",
    doc="Unpause a server",
    done=frozenset({"ACTIVE"}),
    possible=frozenset({"PAUSED"}),
    what="unpause",
    back="pause",
)
