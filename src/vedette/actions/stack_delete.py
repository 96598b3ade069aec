"""Deletes a stack and everything in it. https://docs.openstack.org/api-ref/orchestration/v1/#delete-stack"""

from __future__ import annotations

from vedette.actions._deleting import deleted
from vedette.actions._heat import ORCHESTRATION, path, stack
from vedette.ports import JsonObject


def _failed(found: JsonObject) -> str:
    status = str(found["stack_status"])
    return f"it is {status}: {found.get('stack_status_reason')}" if status == "DELETE_FAILED" else ""


ACTION = deleted(
    resource="stack",
    service=ORCHESTRATION,
    show=stack,
    under_way=lambda found: found["stack_status"] == "DELETE_IN_PROGRESS",
    path=path,
    failed=_failed,
)
