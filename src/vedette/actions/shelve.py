"""Shelves a server: it frees its host, by and by."""

from __future__ import annotations

from vedette.actions._nova import switched

ACTION = switched(
    name="shelve",
    doc="Shelve a server",
    done=frozenset({"SHELVED", "SHELVED_OFFLOADED"}),
    possible=frozenset({"ACTIVE", "SHUTOFF", "PAUSED", "SUSPENDED"}),
    what="shelve",
    back="unshelve",
)
