"""Subnets, from Neutron's `subnet.*.end`; whether everybody may see them from their network's `network.*.end`.

Neutron seldom says of a subnet whether it is shared: that is its network's affair (but an external network's subnets are not
shown to everybody, only a shared one's).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.kinds._neutron import COMMON, OWNED, Resource, given_to_all, tags
from vedette.kinds._said import decoded
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Cloud, Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    **OWNED,
    "network_id": Field("string", "The network it belongs to."),
    "cidr": Field("string", "Its range of addresses."),
    "ip_version": Field("integer", "4 or 6."),
    "gateway_ip": Field("string", "Its gateway; null for none."),
    "enable_dhcp": Field("boolean", "Whether Neutron answers DHCP on it."),
    "allocation_pools": Field("array", "The ranges that ports get addresses from: start and end."),
    "host_routes": Field("array", "Routes that its hosts get: destination and nexthop."),
    "dns_nameservers": Field("array", "Name servers that its hosts get."),
    "dns_publish_fixed_ip": Field("boolean", "Whether its addresses are published in DNS."),
    "ipv6_ra_mode": Field("string", "Who sends router advertisements, and of which kind."),
    "ipv6_address_mode": Field("string", "How its hosts get IPv6 addresses."),
    "service_types": Field("array", "The device owners it is reserved for."),
    "subnetpool_id": Field("string", "The pool that its range came from."),
    "segment_id": Field("string", "The segment it is on."),
    "router:external": Field("boolean", "Whether its network is external."),
    "shared": Field("boolean", "Whether its network is shared; seldom said."),
    "tags": Field("array", "Its tags."),
    **COMMON,
}


def shared(public: Mapping[str, Any]) -> bool | None:
    return public.get("shared")


class _Network(msgspec.Struct, gc=False):
    shared: bool | UnsetType | None = UNSET
    subnets: list[str] | UnsetType | None = UNSET


class _NetworkNotice(msgspec.Struct, gc=False):
    network: _Network | UnsetType = UNSET


_network = msgspec.json.Decoder(_NetworkNotice)


def _of_network(notice: Notice) -> Iterable[Reading]:
    """A network that begins or ends to be shared takes its subnets with it; so does one that is deleted, and they have no event
    of their own then."""
    if notice.event_type not in ("network.update.end", "network.delete.end"):
        return ()
    said: _NetworkNotice = decoded(_network.decode, notice.payload, notice.event_type)
    if said.network is UNSET or not said.network.subnets:
        return ()
    if notice.event_type == "network.delete.end":
        return [Reading(kind="Subnet", id=id_, verb="delete", as_of=notice.sent_at) for id_ in said.network.subnets if id_]
    if not isinstance(said.network.shared, bool):
        return ()
    everybody = said.network.shared
    return [
        Reading(kind="Subnet", id=id_, verb="update", as_of=notice.sent_at, shared=everybody, only_known=True)
        for id_ in said.network.subnets
        if id_
    ]


SUBNET = Resource(
    "Subnet",
    "subnet",
    FIELDS,
    shared=shared,
    # Not the name servers: hosts ask the first one first.
    unordered=("allocation_pools", "host_routes", "service_types", "tags"),
)


async def _as_its_network(cloud: Cloud, readings: Sequence[Reading]) -> Sequence[Reading]:
    """Whether everybody sees it. The API never says."""
    says = await given_to_all(cloud)
    if says is None:
        return readings
    return [msgspec.structs.replace(one, shared=says(one.fields.get("network_id"), "access_as_shared")) for one in readings]


KIND = Kind(
    kind="Subnet",
    plural="subnets",
    singular="subnet",
    short_names=("sub",),
    doc="A Neutron subnet: a range of addresses on a network.",
    events=("subnet.*.end", "network.update.end", "network.delete.end", "tag.*.end"),
    read=SUBNET.reader(more={"tag": tags("Subnet", "subnets"), "network": _of_network}),
    api=SUBNET.api(finish=_as_its_network),
    fields=FIELDS,
    columns=(
        Column("Subnet-Name", ("name",)),
        Column("Network", ("network_id",)),
        Column("Subnet", ("cidr",)),
        Column("Gateway", ("gateway_ip",), priority=1),
        Column("DHCP", ("enable_dhcp",), "boolean", priority=1),
    ),
    audience="shared",
)
