"""Health monitors, from neutron-lbaas's `healthmonitor.*.end` (v2) and `health_monitor.*.end` (v1) and from Octavias that
announce `octavia.healthmonitor.*.end`; Octavia's own does not."""

from __future__ import annotations

from vedette.kinds._balance import TRANSIENT_FIELDS, proof, transient
from vedette.kinds._balance_scan import SCAN
from vedette.kinds._octavia import HEALTHMONITOR
from vedette.ports import Column, Kind

KIND = Kind(
    kind="HealthMonitor",
    plural="healthmonitors",
    singular="healthmonitor",
    short_names=("hm",),
    doc="A load balancer's health monitor: how it finds out which members are well.",
    events=("octavia.healthmonitor.*.end", "healthmonitor.*.end", "health_monitor.*.end"),
    read=HEALTHMONITOR.balance_reader(),
    api=HEALTHMONITOR.api(
        proof=proof("healthmonitors"),
        params=(),
        by_ids=False,
        transient=transient,
        transient_fields=TRANSIENT_FIELDS,
        scan=SCAN,
    ),
    fields=HEALTHMONITOR.fields,
    columns=(
        Column("Monitor-Name", ("name",)),
        Column("Type", ("type",)),
        Column("Operating", ("operating_status",)),
        Column("Pool", ("pools", "*", "id"), priority=1),
    ),
)
