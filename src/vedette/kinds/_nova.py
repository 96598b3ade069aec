"""What Nova says of a server in words and numbers, and how its API shows it. Nova's kinds are next."""

from __future__ import annotations

from vedette.errors import NotUnderstood
from vedette.model.notice import Notice

STATUSES: dict[str, dict[str, str]] = {
    "active": {
        "": "ACTIVE",
        "rebooting": "REBOOT",
        "reboot_pending": "REBOOT",
        "reboot_started": "REBOOT",
        "rebooting_hard": "HARD_REBOOT",
        "reboot_pending_hard": "HARD_REBOOT",
        "reboot_started_hard": "HARD_REBOOT",
        "updating_password": "PASSWORD",
        "rebuilding": "REBUILD",
        "rebuild_block_device_mapping": "REBUILD",
        "rebuild_spawning": "REBUILD",
        "migrating": "MIGRATING",
        "resize_prep": "RESIZE",
        "resize_migrating": "RESIZE",
        "resize_migrated": "RESIZE",
        "resize_finish": "RESIZE",
    },
    "building": {"": "BUILD"},
    "stopped": {
        "": "SHUTOFF",
        "resize_prep": "RESIZE",
        "resize_migrating": "RESIZE",
        "resize_migrated": "RESIZE",
        "resize_finish": "RESIZE",
        "rebuilding": "REBUILD",
        "rebuild_block_device_mapping": "REBUILD",
        "rebuild_spawning": "REBUILD",
    },
    "resized": {"": "VERIFY_RESIZE", "resize_reverting": "REVERT_RESIZE"},
    "paused": {"": "PAUSED", "migrating": "MIGRATING"},
    "suspended": {"": "SUSPENDED"},
    "rescued": {"": "RESCUE"},
    "error": {
        "": "ERROR",
        "rebuilding": "REBUILD",
        "rebuild_block_device_mapping": "REBUILD",
        "rebuild_spawning": "REBUILD",
    },
    "deleted": {"": "DELETED"},
    "soft-delete": {"": "SOFT_DELETED"},
    "shelved": {"": "SHELVED"},
    "shelved_offloaded": {"": "SHELVED_OFFLOADED"},
}
"""What the compute API shows as `status` for a vm_state and a task_state ("": any other task)."""

POWER_STATES = {"pending": 0, "nostate": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}
"""The compute API's integers for the words of the versioned notifications (nova, objects/fields.py and
compute/power_state.py)."""


def status(vm_state: str | None, task_state: str | None) -> str:
    """The API's `status`."""
    of_task = STATUSES.get(vm_state or "")
    return "UNKNOWN" if of_task is None else of_task.get(task_state or "", of_task[""])


def named(id_: str | None, notice: Notice, what: str) -> str:
    """The id. Raises NotUnderstood when there is none."""
    if not id_:
        raise NotUnderstood(f"{notice.event_type}: a {what} without an id")
    return id_
