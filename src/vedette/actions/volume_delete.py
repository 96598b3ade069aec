"""Deletes a volume that no server uses. https://docs.openstack.org/api-ref/block-storage/v3/#delete-a-volume"""

from __future__ import annotations

from vedette.actions._cinder import BLOCK_STORAGE, MICROVERSION, volume
from vedette.actions._deleting import deleted
from vedette.ports import JsonObject


def _against(found: JsonObject) -> str:
    status = str(found["status"])
    if found.get("attachments"):
        return "a server uses it"
    return "" if status in ("available", "downloading") or status.startswith("error") else f"it is {status}"


ACTION = deleted(
    resource="volume",
    service=BLOCK_STORAGE,
    show=volume,
    under_way=lambda found: found["status"] == "deleting",
    path=lambda found: f"/volumes/{found['id']}",
    against=_against,
    failed=lambda found: f"it is {found['status']}" if found["status"] == "error_deleting" else "",
    microversion=MICROVERSION,
)
