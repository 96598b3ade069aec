"""Ports, from Neutron's `port.*.end` and `tag.*.end`.

Neutron shows in a notification what the *caller* may see: a tenant's port.create.end has no host, Nova's port.update.end has
it. And it announces no status change: ports go ACTIVE silently. Nor does it announce the ports that it makes itself, of routers
and floating IPs.
"""

from __future__ import annotations

from typing import Any

from vedette.kinds._neutron import COMMON, OWNED, Resource, in_order, tags
from vedette.ports import Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name, often empty."),
    "description": Field("string", "Free text."),
    "network_id": Field("string", "The network it is on."),
    **OWNED,
    "mac_address": Field("string", "Its MAC address."),
    "fixed_ips": Field("array", "Its addresses: subnet_id and ip_address of each."),
    "admin_state_up": Field("boolean", "Whether it is switched on."),
    "status": Field("string", "ACTIVE, BUILD, DOWN or ERROR; Neutron announces no change of it by itself."),
    "device_id": Field("string", "The id of what uses it: a server, a router, `lb-<load balancer>` …"),
    "device_owner": Field("string", "What uses it: `compute:<zone>`, `network:router_interface`, `Octavia` …"),
    "security_groups": Field("array", "Ids of its security groups."),
    "allowed_address_pairs": Field("array", "Addresses it may use beside its own."),
    "extra_dhcp_opts": Field("array", "DHCP options for it."),
    "port_security_enabled": Field("boolean", "Whether security groups and anti-spoofing apply."),
    "binding:vnic_type": Field("string", "What kind of virtual NIC it asks for: normal, direct, macvtap …"),
    "dns_name": Field("string", "Its host name for DNS."),
    "dns_domain": Field("string", "Its domain for DNS."),
    "dns_assignment": Field("array", "The names that it has in DNS, with their addresses."),
    "qos_policy_id": Field("string", "Its QoS policy."),
    "qos_network_policy_id": Field("string", "The QoS policy that it has from its network."),
    "ip_allocation": Field("string", "How it gets addresses: immediate, deferred or none."),
    "propagate_uplink_status": Field("boolean", "Whether the uplink's status shows on it."),
    "mac_learning_enabled": Field("boolean", "Whether MAC learning is on."),
    "numa_affinity_policy": Field("string", "NUMA affinity that it asks for."),
    "data_plane_status": Field("string", "Status of its data plane, set from outside: ACTIVE or DOWN."),
    "trunk_details": Field("object", "The trunk and its subports, for a trunk's parent port."),
    "tags": Field("array", "Its tags."),
    **COMMON,
    "binding:host_id": Field("string", "The host it is bound to.", admin=True),
    "binding:profile": Field("object", "What the binding tells the driver, e.g. migrating_to.", admin=True),
    "binding:vif_type": Field("string", "How it is plugged: ovs, bridge, unbound, binding_failed …", admin=True),
    "binding:vif_details": Field("object", "Details of how it is plugged.", admin=True),
    "resource_request": Field("object", "Resources that the scheduler must find for it.", admin=True),
    "hints": Field("object", "Hints for the back end.", admin=True),
}


def transient(status: JsonObject) -> bool:
    """Whether it belongs to something and waits to be wired: it goes ACTIVE, and nobody says so.

    Not a port that is switched off, nor one that no driver would bind: something has to be done to them first, and that is
    announced. (Nor a floating IP's own port, whose status is `N/A`.) But one that is only unbound may still move: a trunk binds
    its subports silently, and an L3 agent a router's ports.
    """
    return (
        status.get("status") in ("DOWN", "BUILD")
        and bool(status.get("device_id") or status.get("device_owner"))
        and status.get("admin_state_up") is not False
        and status.get("binding:vif_type") != "binding_failed"
    )


def _tidy(public: dict[str, Any]) -> None:
    trunk = public.get("trunk_details")
    if trunk and isinstance(trunk.get("sub_ports"), list):
        public["trunk_details"] = {**trunk, "sub_ports": in_order(trunk["sub_ports"])}


PORT = Resource(
    "Port",
    "port",
    FIELDS,
    tidy=_tidy,
    unordered=("fixed_ips", "security_groups", "allowed_address_pairs", "extra_dhcp_opts", "dns_assignment", "tags"),
)

KIND = Kind(
    kind="Port",
    plural="ports",
    singular="port",
    doc="A Neutron port: a virtual network card, its addresses and what it is plugged into.",
    events=("port.*.end", "tag.*.end"),
    read=PORT.reader(more={"tag": tags("Port", "ports")}),
    api=PORT.api(
        transient=transient,
        transient_fields=("status", "device_id", "device_owner", "admin_state_up", "binding:vif_type"),
    ),
    fields=FIELDS,
    columns=(
        Column("Port-Name", ("name",)),
        Column("MAC", ("mac_address",)),
        Column("Fixed-IPs", ("fixed_ips", "*", "ip_address")),
        Column("Status", ("status",)),
        Column("Device", ("device_id",), priority=1),
        Column("Owner", ("device_owner",), priority=1),
        Column("Network", ("network_id",), priority=1),
        Column("Host", ("binding:host_id",), priority=1, doc="Shown to admins only."),
    ),
)
