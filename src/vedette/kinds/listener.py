"""Listeners, from neutron-lbaas's `listener.*.end` and from Octavias that announce `octavia.listener.*.end`; Octavia's own
does not.

TLS keys that a driver is given (`default_tls_container_data` and the like) are never read.
"""

from __future__ import annotations

from vedette.kinds._balance import TRANSIENT_FIELDS, proof, transient
from vedette.kinds._balance_scan import SCAN
from vedette.kinds._octavia import LISTENER
from vedette.ports import Column, Kind

KIND = Kind(
    kind="Listener",
    plural="listeners",
    singular="listener",
    short_names=("lsn",),
    doc="A load balancer's listener: a protocol and a port.",
    events=("octavia.listener.*.end", "listener.*.end"),
    read=LISTENER.balance_reader(),
    api=LISTENER.api(
        proof=proof("listeners"),
        params=(),
        by_ids=False,
        transient=transient,
        transient_fields=TRANSIENT_FIELDS,
        scan=SCAN,
    ),
    fields=LISTENER.fields,
    columns=(
        Column("Listener-Name", ("name",)),
        Column("Protocol", ("protocol",)),
        Column("Port", ("protocol_port",), "integer"),
        Column("Provisioning", ("provisioning_status",)),
        Column("Default-Pool", ("default_pool_id",), priority=1),
        Column("Load-Balancer", ("loadbalancers", "*", "id"), priority=1),
    ),
)
