"""What reading Cinder's API has in common for volumes and snapshots."""

from __future__ import annotations

from vedette.ports import JsonObject

BLOCK_STORAGE = "block-storage"
MICROVERSION = "3.63"
"""volume_type_id."""
EVERYBODYS = (("all_tenants", "1"),)
"""Others than admins get their own all the same, without a word."""
ADMINS_ONLY = "/os-services"

_MOVING = ("reserved", "backing-up", "restoring-backup")


def transient(item: JsonObject) -> bool:
    """Whether Cinder is at work on it: what fails may end without a word. (`error_deleting` is how that ended.)"""
    status = item.get("status")
    if not isinstance(status, str) or status.startswith("error"):
        return False
    return status.endswith("ing") or status in _MOVING
