"""Floating IPs, from Neutron's `floatingip.*.end`. Their status goes ACTIVE silently, as ports' does."""

from __future__ import annotations

from vedette.kinds._neutron import COMMON, OWNED, Resource, tags
from vedette.ports import Column, Field, JsonObject, Kind

FIELDS = {
    "floating_ip_address": Field("string", "The address."),
    "fixed_ip_address": Field("string", "The fixed address behind it; null when it isn't associated."),
    "port_id": Field("string", "The port behind it; null when it isn't associated."),
    "router_id": Field("string", "The router that translates it."),
    "floating_network_id": Field("string", "The external network it is from."),
    "status": Field("string", "ACTIVE, DOWN or ERROR; Neutron announces no change of it by itself."),
    "description": Field("string", "Free text."),
    **OWNED,
    "port_details": Field("object", "The port behind it, as it was when Neutron spoke."),
    "port_forwardings": Field("array", "Its port forwardings."),
    "dns_name": Field("string", "Its host name in DNS."),
    "dns_domain": Field("string", "Its domain in DNS."),
    "qos_policy_id": Field("string", "Its QoS policy."),
    "qos_network_policy_id": Field("string", "The QoS policy that it has from its network."),
    "tags": Field("array", "Its tags."),
    **COMMON,
}


def transient(status: JsonObject) -> bool:
    """Whether the agent still has to do what was asked for: it is associated and not ACTIVE, or ACTIVE for nobody. (One that
    forwards ports has a router and no port of its own, and is ACTIVE for good.)"""
    if status.get("port_id"):
        return status.get("status") == "DOWN"
    return status.get("status") == "ACTIVE" and not status.get("router_id")


FLOATINGIP = Resource("FloatingIP", "floatingip", FIELDS, unordered=("port_forwardings", "tags"))

KIND = Kind(
    kind="FloatingIP",
    plural="floatingips",
    singular="floatingip",
    short_names=("fip",),
    doc="A Neutron floating IP: an external address, and the port that it leads to.",
    events=("floatingip.*.end", "tag.*.end"),
    read=FLOATINGIP.reader(more={"tag": tags("FloatingIP", "floatingips")}),
    api=FLOATINGIP.api(transient=transient, transient_fields=("status", "port_id", "router_id")),
    fields=FIELDS,
    columns=(
        Column("Floating-IP", ("floating_ip_address",)),
        Column("Fixed-IP", ("fixed_ip_address",)),
        Column("Port", ("port_id",)),
        Column("Status", ("status",)),
        Column("Network", ("floating_network_id",), priority=1),
        Column("Router", ("router_id",), priority=1),
    ),
)
