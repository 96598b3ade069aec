"""Pools, from neutron-lbaas's `pool.*.end` and from Octavias that announce `octavia.pool.*.end`; Octavia's own does not."""

from __future__ import annotations

from vedette.kinds._balance import TRANSIENT_FIELDS, proof, transient
from vedette.kinds._balance_scan import SCAN
from vedette.kinds._octavia import POOL
from vedette.ports import Column, Kind

KIND = Kind(
    kind="Pool",
    plural="pools",
    singular="pool",
    doc="A load balancer's pool: members and how to choose among them.",
    events=("octavia.pool.*.end", "pool.*.end"),
    read=POOL.balance_reader(),
    api=POOL.api(
        proof=proof("pools"),
        params=(),
        by_ids=False,
        transient=transient,
        transient_fields=TRANSIENT_FIELDS,
        scan=SCAN,
    ),
    fields=POOL.fields,
    columns=(
        Column("Pool-Name", ("name",)),
        Column("Protocol", ("protocol",)),
        Column("Algorithm", ("lb_algorithm",)),
        Column("Provisioning", ("provisioning_status",)),
        Column("Members", ("members", "*", "id"), priority=1),
    ),
)
