"""Deletes a network; Neutron refuses one that still has ports of servers or routers.
https://docs.openstack.org/api-ref/network/v2/#delete-network"""

from __future__ import annotations

from vedette.actions._deleting import deleted
from vedette.errors import NotFound
from vedette.ports import Cloud, JsonObject

NETWORK = "network"


async def _network(cloud: Cloud, id_: str) -> JsonObject | None:
    try:
        answer = await cloud.get(NETWORK, f"/networks/{id_}")
    except NotFound:
        return None
    found: JsonObject = answer.body["network"]
    return found


ACTION = deleted(
    resource="network",
    service=NETWORK,
    show=_network,
    # Neutron does it at once or not at all.
    under_way=lambda found: False,
    path=lambda found: f"/networks/{found['id']}",
)
