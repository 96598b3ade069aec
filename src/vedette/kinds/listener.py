"""Listeners, from neutron-lbaas's `listener.*.end` and from Octavias that announce `octavia.listener.*.end`; Octavia's own
does not.

TLS keys that a driver is given (`default_tls_container_data` and the like) are never read.
"""

from __future__ import annotations

from vedette.kinds._balance import PROJECT, STATES, TIMES, TRANSIENT_FIELDS, Balanced, proof, transient
from vedette.kinds._balance_scan import SCAN
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    **PROJECT,
    **STATES,
    "loadbalancers": Field("array", "The load balancer it belongs to, by id."),
    "protocol": Field("string", "HTTP, HTTPS, TCP, UDP, SCTP, PROMETHEUS or TERMINATED_HTTPS."),
    "protocol_port": Field("integer", "The port it listens on."),
    "connection_limit": Field("integer", "Most connections at once; -1 for no limit."),
    "default_pool_id": Field("string", "Where requests go that no policy sends elsewhere."),
    "default_tls_container_ref": Field("string", "Where its certificate is kept."),
    "sni_container_refs": Field("array", "Where its other certificates are kept."),
    "insert_headers": Field("object", "Headers that it adds to requests."),
    "l7policies": Field("array", "Its layer-7 policies."),
    "allowed_cidrs": Field("array", "Who may connect."),
    "timeout_client_data": Field("integer", "Milliseconds of silence that it allows a client."),
    "timeout_member_connect": Field("integer", "Milliseconds to connect to a member."),
    "timeout_member_data": Field("integer", "Milliseconds of silence that it allows a member."),
    "timeout_tcp_inspect": Field("integer", "Milliseconds to wait for content to inspect."),
    "client_authentication": Field("string", "Whether clients must show a certificate."),
    "tls_ciphers": Field("string", "The ciphers it accepts."),
    "tls_versions": Field("array", "The TLS versions it accepts."),
    "alpn_protocols": Field("array", "The ALPN protocols it accepts."),
    "tags": Field("array", "Its tags."),
    **TIMES,
}

LISTENER = Balanced("Listener", "listener", FIELDS, parents={"loadbalancer_id": "loadbalancers"})

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
    fields=FIELDS,
    columns=(
        Column("Listener-Name", ("name",)),
        Column("Protocol", ("protocol",)),
        Column("Port", ("protocol_port",), "integer"),
        Column("Provisioning", ("provisioning_status",)),
        Column("Default-Pool", ("default_pool_id",), priority=1),
        Column("Load-Balancer", ("loadbalancers", "*", "id"), priority=1),
    ),
)
