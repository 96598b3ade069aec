"""Starts a server that was stopped."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="start",
    doc="Start a server",
    done=frozenset({"ACTIVE"}),
    possible=frozenset({"SHUTOFF"}),
    what="os-start",
    back="os-stop",
)
