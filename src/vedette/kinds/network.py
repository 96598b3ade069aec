"""Networks, from Neutron's `network.*.end`; their list of subnets also from `subnet.*.end`, their sharing from
`rbac_policy.*.end`.

A network gets and loses subnets without an event of its own, and is shared by an RBAC policy without one either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.kinds._neutron import COMMON, OWNED, Resource, given_to_all, tags
from vedette.kinds._said import decoded
from vedette.model.notice import Notice
from vedette.model.reading import Part, Reading
from vedette.ports import Cloud, Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    **OWNED,
    "status": Field("string", "ACTIVE, BUILD, DOWN or ERROR."),
    "admin_state_up": Field("boolean", "Whether it is switched on."),
    "subnets": Field("array", "Ids of its subnets."),
    "shared": Field("boolean", "Whether every project may use it."),
    "router:external": Field("boolean", "Whether routers reach the outside through it."),
    "is_default": Field("boolean", "Whether it is the default external network."),
    "mtu": Field("integer", "Largest packet, in bytes."),
    "port_security_enabled": Field("boolean", "What its ports have by default."),
    "dns_domain": Field("string", "Domain of its ports' names in DNS."),
    "qos_policy_id": Field("string", "Its QoS policy."),
    "vlan_transparent": Field("boolean", "Whether it lets VLAN tags through."),
    "l2_adjacency": Field("boolean", "Whether all of it is one layer-2 segment."),
    "availability_zone_hints": Field("array", "The availability zones asked for."),
    "availability_zones": Field("array", "The availability zones it is in."),
    "ipv4_address_scope": Field("string", "Address scope of its IPv4 subnets."),
    "ipv6_address_scope": Field("string", "Address scope of its IPv6 subnets."),
    "tags": Field("array", "Its tags."),
    **COMMON,
    "provider:network_type": Field("string", "How it is carried: flat, vlan, vxlan, geneve …", admin=True),
    "provider:physical_network": Field("string", "The physical network that carries it.", admin=True),
    "provider:segmentation_id": Field("integer", "Its VLAN id or tunnel key.", admin=True),
    "segments": Field("array", "Its provider segments, where it has several.", admin=True),
}


def shared(public: Mapping[str, Any]) -> bool | None:
    """Everybody sees a network that is shared or external. Unknown while the notice speaks of one of the two and says no."""
    if public.get("shared") or public.get("router:external"):
        return True
    return False if "shared" in public and "router:external" in public else None


class _Policy(msgspec.Struct, gc=False):
    object_type: str | None = None
    object_id: str | None = None
    action: str | None = None
    target_tenant: str | None = None
    target_project: str | None = None


class _PolicyNotice(msgspec.Struct, gc=False):
    rbac_policy: _Policy | None = None


_policy = msgspec.json.Decoder(_PolicyNotice)


def _sharing(notice: Notice) -> Iterable[Reading]:
    """A policy for `*` (there is at most one of each action) is what makes a network shared or external."""
    if notice.event_type not in ("rbac_policy.create.end", "rbac_policy.delete.end"):
        return ()
    said: _PolicyNotice = decoded(_policy.decode, notice.payload, notice.event_type)
    policy = said.rbac_policy
    if policy is None or policy.object_type != "network" or not policy.object_id:
        return ()
    if "*" not in (policy.target_tenant, policy.target_project):
        return ()
    field = {"access_as_shared": "shared", "access_as_external": "router:external"}.get(policy.action or "")
    if field is None:
        return ()
    on = notice.event_type == "rbac_policy.create.end"
    return (
        Reading(
            kind="Network",
            id=policy.object_id,
            verb="update",
            as_of=notice.sent_at,
            # A network that loses one of the two may have the other still. Showing it to too few until its next news is the
            # safe mistake.
            shared=on,
            fields={field: on},
            only_known=True,
        ),
    )


class _Subnet(msgspec.Struct, gc=False):
    id: str
    network_id: str | None = None


class _SubnetNotice(msgspec.Struct, gc=False):
    subnet: _Subnet | UnsetType = UNSET
    subnets: list[_Subnet] | UnsetType = UNSET


_subnet = msgspec.json.Decoder(_SubnetNotice)


def _subnets(notice: Notice) -> Iterable[Reading]:
    if notice.event_type not in ("subnet.create.end", "subnet.delete.end"):
        return ()
    said: _SubnetNotice = decoded(_subnet.decode, notice.payload, notice.event_type)
    there = notice.event_type == "subnet.create.end"
    return [
        Reading(
            kind="Network",
            id=item.network_id,
            verb="update",
            as_of=notice.sent_at,
            parts=(Part("subnets", "", item.id, item.id if there else None),),
            only_known=True,
        )
        for item in ([said.subnet] if said.subnet is not UNSET else said.subnets if said.subnets is not UNSET else [])
        if item.id and item.network_id
    ]


NETWORK = Resource("Network", "network", FIELDS, shared=shared, unordered=("subnets", "availability_zones", "tags"))


async def _as_everybody_sees(cloud: Cloud, readings: Sequence[Reading]) -> Sequence[Reading]:
    """`shared` as it is for everybody, not for our account."""
    says = await given_to_all(cloud)
    if says is None:
        return readings
    told = []
    for one in readings:
        everybody, outside = says(one.id, "access_as_shared"), says(one.id, "access_as_external")
        fields = {name: value for name, value in one.fields.items() if name != "shared"}
        if everybody is not None:
            fields["shared"] = everybody
        visible = True if everybody or outside else everybody
        told.append(msgspec.structs.replace(one, fields=fields, shared=visible))
    return told


KIND = Kind(
    kind="Network",
    plural="networks",
    singular="network",
    short_names=("net",),
    doc="A Neutron network.",
    events=("network.*.end", "subnet.*.end", "rbac_policy.*.end", "tag.*.end"),
    read=NETWORK.reader(more={"tag": tags("Network", "networks"), "subnet": _subnets, "rbac_policy": _sharing}),
    api=NETWORK.api(finish=_as_everybody_sees),
    fields=FIELDS,
    columns=(
        Column("Network-Name", ("name",)),
        Column("Subnets", ("subnets", "*")),
        Column("Status", ("status",), priority=1),
        Column("Shared", ("shared",), "boolean", priority=1),
        Column("External", ("router:external",), "boolean", priority=1),
        Column("Type", ("provider:network_type",), priority=1, doc="Shown to admins only."),
    ),
    audience="shared",
)
