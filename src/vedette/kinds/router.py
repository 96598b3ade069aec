"""Routers, from Neutron's `router.*.end`; their interfaces from `router.interface.{create,delete}`, which have no `.end`.

The API doesn't show a router's interfaces: there they are ports, which no notification speaks of.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._neutron import COMMON, OWNED, STABLE, Resource, in_order, tags
from vedette.kinds._said import decoded
from vedette.model.notice import Notice
from vedette.model.reading import Part, Reading
from vedette.ports import Cloud, Column, Field, Kind

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


def _tidy(public: dict[str, Any]) -> None:
    gateway = public.get("external_gateway_info")
    if gateway and isinstance(gateway.get("external_fixed_ips"), list):
        public["external_gateway_info"] = {**gateway, "external_fixed_ips": in_order(gateway["external_fixed_ips"])}


ROUTER = Resource("Router", "router", FIELDS, tidy=_tidy, unordered=("routes", "availability_zones", "tags"))
_interface = msgspec.json.Decoder(_InterfaceNotice)
_read_router = ROUTER.reader(more={"tag": tags("Router", "routers")})


def read(notice: Notice) -> Iterable[Reading]:
    if notice.event_type == "router.create.end":
        # It has none yet, and says so nowhere.
        return [msgspec.structs.replace(one, fields={**one.fields, "interfaces_info": []}) for one in _read_router(notice)]
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
        Part("interfaces_info", "subnet_id", subnet, _interface_info(at.port_id, subnet, at.network_id) if there else None)
        for subnet in at.subnet_ids or (at.subnet_id,)
        if subnet
    )
    return (Reading(kind="Router", id=at.id, verb="update", as_of=notice.sent_at, parts=parts, only_known=True),)


def _interface_info(port: Any, subnet: str, network: Any) -> dict[str, Any]:
    return {"port_id": port, "subnet_id": subnet, "network_id": network}


INTERFACES = ("network:router_interface", "network:router_interface_distributed", "network:ha_router_replicated_interface")
"""Owners of the ports that are interfaces. (Others of a router's ports are its gateway and what keeps it available.)"""
AT_ONCE = 50
"""Routers whose ports are asked for in one request: a URL of 3 kB."""


async def _with_interfaces(cloud: Cloud, readings: Sequence[Reading]) -> Sequence[Reading]:
    """The routers with their interfaces, in the form of `router.interface.create`.

    Their ports are asked for after them: an interface that comes later than the reading's as-of may be in it already, but one
    that came before is never left out.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {one.id: {} for one in readings}
    routers = list(found)
    asked = [("fields", name) for name in ("id", "device_id", "network_id", "fixed_ips")]
    for start in range(0, len(routers), AT_ONCE):
        ids = [("device_id", id_) for id_ in routers[start : start + AT_ONCE]]
        params = [*ids, *(("device_owner", owner) for owner in INTERFACES), *asked, *STABLE]
        async for page in cloud.pages("network", "/ports", "ports", params):
            for port in page.items:
                device, addresses = port.get("device_id"), port.get("fixed_ips")
                of_router = found.get(device) if isinstance(device, str) else None
                if of_router is None or not isinstance(addresses, list):
                    continue
                for address in addresses:
                    subnet = address.get("subnet_id") if isinstance(address, dict) else None
                    if isinstance(subnet, str):
                        of_router[subnet] = _interface_info(port.get("id"), subnet, port.get("network_id"))
    return [
        msgspec.structs.replace(
            one, fields={**one.fields, "interfaces_info": [info for _, info in sorted(found[one.id].items())]}
        )
        for one in readings
    ]


KIND = Kind(
    kind="Router",
    plural="routers",
    singular="router",
    short_names=("rt",),
    doc="A Neutron router.",
    events=("router.*.end", "router.interface.create", "router.interface.delete", "tag.*.end"),
    read=read,
    api=ROUTER.api(finish=_with_interfaces),
    fields=FIELDS,
    columns=(
        Column("Router-Name", ("name",)),
        Column("Status", ("status",)),
        Column("State", ("admin_state_up",), "boolean"),
        Column("Gateway", ("external_gateway_info", "network_id"), priority=1),
        Column("Subnets", ("interfaces_info", "*", "subnet_id"), priority=1),
    ),
)
