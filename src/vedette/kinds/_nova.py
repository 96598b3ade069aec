"""What Nova says of a server in words and numbers, and what reading its API has in common. Nova's kinds are next."""

from __future__ import annotations

from collections.abc import AsyncIterator

from vedette.errors import NotUnderstood
from vedette.model.notice import Notice
from vedette.ports import Cloud, Items, JsonObject

COMPUTE = "compute"
ADMINS_ONLY = "/servers?status=deleted&limit=1"
"""Deleted servers are listed to whom Nova takes for an admin, by its own word (`context_is_admin`) and no rule beside it. To
others who ask for every project's server groups it gives their own, and other projects' private flavors aren't there for them."""
FLAVORS = "2.75"
"""2.55 description, 2.61 extra specs, 2.75 a swap of 0."""

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


async def every_flavor(cloud: Cloud) -> AsyncIterator[tuple[str, JsonObject]]:
    """Id and all that the API shows, public or not."""
    async for page in flavor_pages(cloud):
        for item in page.items:
            id_ = item.get("id")
            if isinstance(id_, str) and id_:
                yield id_, item


def flavor_pages(cloud: Cloud) -> AsyncIterator[Items]:
    return cloud.pages(COMPUTE, "/flavors/detail", "flavors", (("is_public", "None"),), microversion=FLAVORS)
