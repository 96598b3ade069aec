"""Load balancers, from Octavia's `octavia.loadbalancer.*.end` and from neutron-lbaas's `loadbalancer.*.end`.

Octavia announces one only when it went ACTIVE, without any status, and in an update it sends the values from *before* the
update. So an update is read for what can't change; the rest has to be looked up.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vedette.kinds._balance import TRANSIENT_FIELDS, proof, transient
from vedette.kinds._balance_scan import SCAN, statuses
from vedette.kinds._octavia import LOADBALANCER
from vedette.model.reading import Reading
from vedette.ports import Cloud, Column, JsonObject, Kind


def unsettled(status: JsonObject) -> bool:
    """Octavia's notifications say no status at all: one that nobody has looked up is unsettled too."""
    return not status.get("provisioning_status") or transient(status)


async def trees(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    """Their statuses, and those of everything below them: one request for each. (Octavia answers `id=a&id=b` with 500.)"""
    return [one for id_ in ids for one in await statuses(cloud, id_)]


API = LOADBALANCER.api(
    proof=proof("loadbalancers"),
    params=(),
    by_ids=False,
    transient=unsettled,
    transient_fields=TRANSIENT_FIELDS,
    scan=SCAN,
)

KIND = Kind(
    kind="LoadBalancer",
    plural="loadbalancers",
    singular="loadbalancer",
    short_names=("lb",),
    doc="An Octavia load balancer: an address, and what it balances.",
    events=("octavia.loadbalancer.*.end", "loadbalancer.*.end"),
    read=LOADBALANCER.balance_reader(),
    api=msgspec.structs.replace(API, some=trees),
    fields=LOADBALANCER.fields,
    columns=(
        Column("LB-Name", ("name",)),
        Column("VIP-Address", ("vip_address",)),
        Column("Provisioning", ("provisioning_status",)),
        Column("Operating", ("operating_status",)),
        Column("Provider", ("provider",), priority=1),
        Column("VIP-Port", ("vip_port_id",), priority=1),
    ),
)
