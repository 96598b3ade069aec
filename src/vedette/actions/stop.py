"""Stops a server."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="stop",
    doc="Stop a server",
    done=frozenset({"SHUTOFF"}),
    possible=frozenset({"ACTIVE", "ERROR"}),
    what="os-stop",
    back="os-start",
)
