"""Health monitors, from neutron-lbaas's `healthmonitor.*.end` (v2) and `health_monitor.*.end` (v1) and from Octavias that
announce `octavia.healthmonitor.*.end`; Octavia's own does not."""

from __future__ import annotations

from vedette.kinds._balance import PROJECT, STATES, TIMES, TRANSIENT_FIELDS, Balanced, proof, transient
from vedette.kinds._balance_scan import SCAN
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    **PROJECT,
    **STATES,
    "pools": Field("array", "The pool it watches, by id."),
    "type": Field("string", "How it asks: HTTP, HTTPS, PING, TCP, TLS-HELLO, UDP-CONNECT …"),
    "delay": Field("integer", "Seconds between two questions."),
    "timeout": Field("integer", "Seconds to wait for an answer."),
    "max_retries": Field("integer", "Good answers that make a member ONLINE again."),
    "max_retries_down": Field("integer", "Bad answers that make a member ERROR."),
    "http_method": Field("string", "The method it asks with."),
    "url_path": Field("string", "The path it asks for."),
    "expected_codes": Field("string", "The status codes that are good answers."),
    "http_version": Field("number", "1.0 or 1.1."),
    "domain_name": Field("string", "The host name it asks for."),
    "tags": Field("array", "Its tags."),
    **TIMES,
}

HEALTHMONITOR = Balanced("HealthMonitor", "healthmonitor", FIELDS, old_name="health_monitor", parents={"pool_id": "pools"})

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
    fields=FIELDS,
    columns=(
        Column("Monitor-Name", ("name",)),
        Column("Type", ("type",)),
        Column("Operating", ("operating_status",)),
        Column("Pool", ("pools", "*", "id"), priority=1),
    ),
)
