"""Octavia's five resources: their fields, and how each is announced and shown. In one place, because one scan reads all of them
(_balance_scan.py); what a kind is beside that is in its own file.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from vedette.errors import NotFound
from vedette.kinds._balance import PROJECT, SERVICE, STATES, TIMES, Balanced
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Cloud, Field

LOADBALANCER = Balanced(
    "LoadBalancer",
    "loadbalancer",
    {
        "name": Field("string", "Its name."),
        "description": Field("string", "Free text."),
        **PROJECT,
        **STATES,
        "vip_address": Field("string", "The address it listens on."),
        "vip_network_id": Field("string", "The network of that address."),
        "vip_port_id": Field("string", "The port of that address."),
        "vip_subnet_id": Field("string", "The subnet of that address."),
        "vip_qos_policy_id": Field("string", "QoS policy of that port."),
        "additional_vips": Field("array", "More addresses that it listens on."),
        "provider": Field("string", "Who provides it: amphora, ovn …"),
        "flavor_id": Field("string", "Its flavor."),
        "availability_zone": Field("string", "Its availability zone."),
        "listeners": Field("array", "Its listeners, by id."),
        "pools": Field("array", "Its pools, by id."),
        "tags": Field("array", "Its tags."),
        **TIMES,
    },
    stale=frozenset({"name", "description", "admin_state_up", "vip_qos_policy_id", "listeners", "pools", "tags"}),
)
"""In an update Octavia sends the values from before the update: it is read for what can't change."""

LISTENER = Balanced(
    "Listener",
    "listener",
    {
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
    },
    parents={"loadbalancer_id": "loadbalancers"},
)


POOL = Balanced(
    "Pool",
    "pool",
    {
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
    },
    parents={"loadbalancer_id": "loadbalancers", "listener_id": "listeners"},
    absent=("healthmonitor_id",),
)

MEMBER = Balanced(
    "Member",
    "member",
    {
        "name": Field("string", "Its name."),
        **PROJECT,
        **STATES,
        "pool_id": Field("string", "Its pool (in the API: part of its URL), where the notice says it."),
        "address": Field("string", "Its address."),
        "protocol_port": Field("integer", "Its port."),
        "subnet_id": Field("string", "The subnet of its address."),
        "weight": Field("integer", "Its share of the requests."),
        "backup": Field("boolean", "Whether it is used only when all others are down."),
        "monitor_address": Field("string", "Where its health is asked, if elsewhere."),
        "monitor_port": Field("integer", "The port where its health is asked, if another."),
        "tags": Field("array", "Its tags."),
        **TIMES,
    },
)

HEALTHMONITOR = Balanced(
    "HealthMonitor",
    "healthmonitor",
    {
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
    },
    old_name="health_monitor",
    parents={"pool_id": "pools"},
)


async def members_of(cloud: Cloud, pool: str) -> Sequence[Reading]:
    """A pool's members; none when it is gone."""
    path = f"/lbaas/pools/{segment(pool)}/members"
    try:
        return [
            in_pool(one, pool)
            async for page in cloud.pages(SERVICE, path, "members")
            for one in MEMBER.all_shown(page.items, page.as_of)
        ]
    except NotFound:
        return ()


def in_pool(member: Reading, pool: str) -> Reading:
    """The API says a member's pool in the path only."""
    return replace(member, fields={**member.fields, "pool_id": pool})
