"""Pool members, from neutron-lbaas's `member.*.end` and from Octavias that announce `octavia.member.*.end`; Octavia's own does
not."""

from __future__ import annotations

from vedette.kinds._balance import PROJECT, STATES, TIMES, balance_reader
from vedette.ports import Column, Field, Kind

FIELDS = {
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
}

KIND = Kind(
    kind="Member",
    plural="members",
    singular="member",
    doc="A member of a load balancer's pool: a server behind it.",
    events=("octavia.member.*.end", "member.*.end"),
    read=balance_reader("Member", "member", FIELDS),
    fields=FIELDS,
    columns=(
        Column("Member-Name", ("name",)),
        Column("Address", ("address",)),
        Column("Port", ("protocol_port",), "integer"),
        Column("Operating", ("operating_status",)),
        Column("Weight", ("weight",), "integer", priority=1),
        Column("Pool", ("pool_id",), priority=1),
    ),
)
