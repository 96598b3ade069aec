"""Resumes a suspended server."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="resume",
    doc="Resume a server",
    done=frozenset({"ACTIVE"}),
    possible=frozenset({"SUSPENDED"}),
    what="resume",
    back="suspend",
)
