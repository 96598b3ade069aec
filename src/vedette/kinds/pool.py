"""Pools, from neutron-lbaas's `pool.*.end` and from Octavias that announce `octavia.pool.*.end`; Octavia's own does not."""

from __future__ import annotations

from typing import Any

from vedette.kinds._balance import PROJECT, STATES, TIMES, TRANSIENT_FIELDS, Balanced, proof, transient, without_young
from vedette.kinds._balance_scan import SCAN
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    **PROJECT,
    **STATES,
    "loadbalancers": Field("array", "The load balancer it belongs to, by id."),
    "listeners": Field("array", "The listeners that use it, by id."),
    "members": Field("array", "Its members, by id."),
    "healthmonitor_id": Field("string", "Its health monitor."),
    "protocol": Field("string", "What it speaks to its members: HTTP, HTTPS, PROXY, TCP, UDP …"),
    "lb_algorithm": Field("string", "How it chooses: ROUND_ROBIN, LEAST_CONNECTIONS, SOURCE_IP …"),
    "session_persistence": Field("object", "How it keeps a client with its member; null for not."),
    "tls_enabled": Field("boolean", "Whether it speaks TLS to its members."),
    "tls_ciphers": Field("string", "The ciphers it uses."),
    "tls_versions": Field("array", "The TLS versions it uses."),
    "alpn_protocols": Field("array", "The ALPN protocols it offers."),
    "tags": Field("array", "Its tags."),
    **TIMES,
}


def _as_shown(public: dict[str, Any], as_of: int) -> None:
    without_young(public, as_of)
    public.setdefault("healthmonitor_id", None)  # Octavia leaves it out where there is none


POOL = Balanced(
    "Pool",
    "pool",
    FIELDS,
    parents={"loadbalancer_id": "loadbalancers", "listener_id": "listeners"},
    doubt=_as_shown,
)

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
    fields=FIELDS,
    columns=(
        Column("Pool-Name", ("name",)),
        Column("Protocol", ("protocol",)),
        Column("Algorithm", ("lb_algorithm",)),
        Column("Provisioning", ("provisioning_status",)),
        Column("Members", ("members", "*", "id"), priority=1),
    ),
)
