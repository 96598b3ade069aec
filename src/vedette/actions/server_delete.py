"""Deletes a server. https://docs.openstack.org/api-ref/compute/#delete-server"""

from __future__ import annotations

from vedette.actions._deleting import deleted
from vedette.actions._nova import COMPUTE, MICROVERSION, TASK, server

ACTION = deleted(
    resource="server",
    service=COMPUTE,
    show=server,
    under_way=lambda found: found.get(TASK) in ("deleting", "soft-deleting"),
    # What is soft-deleted stays for a while, and is out of its owner's sight.
    as_good_as=lambda found: found["status"] in ("DELETED", "SOFT_DELETED"),
    path=lambda found: f"/servers/{found['id']}",
    microversion=MICROVERSION,
)
