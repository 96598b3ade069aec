"""Routers, from Neutron's `router.*.end`; their interfaces from `router.interface.{create,delete}`, which have no `.end`."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._neutron import COMMON, OWNED, reader, tags
from vedette.kinds._said import decoded
from vedette.model.notice import Notice
from vedette.model.reading import Part, Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    **OWNED,
    "status": Field("string", "ACTIVE, BUILD, DOWN, ERROR or ALLOCATING."),
    "admin_state_up": Field("boolean", "Whether it is switched on."),
    "external_gateway_info": Field("object", "Its external network, addresses there and SNAT; null for none."),
    "external_gateways": Field("array", "All its external gateways, where it may have several."),
    "interfaces_info": Field("array", "Its interfaces, one for each subnet: port_id, subnet_id, network_id."),
    "routes": Field("array", "Its extra routes: destination and nexthop."),
    "flavor_id": Field("string", "Its flavor."),
    "availability_zone_hints": Field("array", "The availability zones asked for."),
    "availability_zones": Field("array", "The availability zones it is in."),
    "enable_ndp_proxy": Field("boolean", "Whether it answers neighbour discovery for others."),
    "qos_policy_id": Field("string", "QoS policy of its gateway."),
    "tags": Field("array", "Its tags."),
    **COMMON,
    "distributed": Field("boolean", "Whether it is distributed over the compute hosts.", admin=True),
    "ha": Field("boolean", "Whether it is highly available.", admin=True),
}


class _Interface(msgspec.Struct, gc=False):
    id: str
    """The router's, not the interface's."""
    port_id: str | None = None
    network_id: str | None = None
    subnet_id: str | None = None
    subnet_ids: list[str] | None = None


class _InterfaceNotice(msgspec.Struct, gc=False):
    router_interface: _Interface


_interface = msgspec.json.Decoder(_InterfaceNotice)
_read_router = reader("Router", "router", FIELDS, more={"tag": tags("Router", "routers")})


def read(notice: Notice) -> Iterable[Reading]:
    if not notice.event_type.startswith("router.interface."):
        return _read_router(notice)
    if notice.event_type not in ("router.interface.create", "router.interface.delete"):
        return ()
    said: _InterfaceNotice = decoded(_interface.decode, notice.payload, notice.event_type)
    at = said.router_interface
    if not at.id:
        raise NotUnderstood(f"{notice.event_type}: a router without an id")
    there = notice.event_type == "router.interface.create"
    # By subnet, not by port: one port may serve several IPv6 subnets, which come and go one by one.
    parts = tuple(
        Part(
            "interfaces_info",
            "subnet_id",
            subnet,
            {"port_id": at.port_id, "subnet_id": subnet, "network_id": at.network_id} if there else None,
        )
        for subnet in at.subnet_ids or (at.subnet_id,)
        if subnet
    )
    return (Reading(kind="Router", id=at.id, verb="update", as_of=notice.sent_at, parts=parts, only_known=True),)


KIND = Kind(
    kind="Router",
    plural="routers",
    singular="router",
    short_names=("rt",),
    doc="A Neutron router.",
    events=("router.*.end", "router.interface.create", "router.interface.delete", "tag.*.end"),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Router-Name", ("name",)),
        Column("Status", ("status",)),
        Column("State", ("admin_state_up",), "boolean"),
        Column("Gateway", ("external_gateway_info", "network_id"), priority=1),
        Column("Subnets", ("interfaces_info", "*", "subnet_id"), priority=1),
    ),
)
