"""Brings a shelved server back."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="unshelve",
    doc="Unshelve a server",
    done=frozenset({"ACTIVE"}),
    possible=frozenset({"SHELVED", "SHELVED_OFFLOADED"}),
    what="unshelve",
    back="shelve",
)
