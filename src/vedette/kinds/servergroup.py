"""Server groups, from Nova's `servergroup.*` (unversioned) and `server_group.*` (versioned), and from its API.

Nova keeps deleted servers as members. Its notifications name them, its API doesn't; and nothing is said of a group when a server
of it is deleted. So of `add_member` only the last one is read: the new one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from vedette.kinds._api import readings, the
from vedette.kinds._nova import ADMINS_ONLY, COMPUTE, named
from vedette.kinds._said import Shape, Verb, decoded
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Part, Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "policy": Field("string", "affinity, anti-affinity, or one of their soft forms."),
    "rules": Field("object", "Rules of the policy, e.g. max_server_per_host."),
    "members": Field("array", "Ids of the servers in it."),
    "project_id": Field("string", "The project that owns it."),
    "user_id": Field("string", "The user who made it."),
}


class _Versioned(msgspec.Struct, gc=False):
    uuid: str | None = None
    name: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    policy: str | None = None
    policies: list[str] | None = None
    rules: dict[str, Any] | None = None
    members: list[str] | None = None


class _Group(msgspec.Struct, gc=False):
    server_group_id: str | None = None
    name: str | None = None
    user_id: str | None = None
    project_id: str | None = None
    policy: str | None = None
    policies: list[str] | None = None
    rules: dict[str, Any] | None = msgspec.field(name="_rules", default=None)
    instance_uuids: list[str] | None = None
    data: _Versioned | None = msgspec.field(name="nova_object.data", default=None)


_group = msgspec.json.Decoder(_Group)


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice of either format says of one server group."""
    start, _, action = notice.event_type.partition(".")
    if start not in ("servergroup", "server_group") or action.endswith(".start"):
        return ()
    notified: _Group = decoded(_group.decode, notice.payload, notice.event_type)
    said = notified if notified.data is None else notified.data
    id_ = notified.server_group_id if notified.data is None else notified.data.uuid
    verb: Verb = "create" if action == "create" else "delete" if action == "delete" else "update"
    fields: dict[str, Any] = {}
    if said.name is not None:
        fields["name"] = said.name
    if said.policy or said.policies:
        fields["policy"] = said.policy or (said.policies[0] if said.policies else None)
    if said.rules is not None:
        fields["rules"] = _rules(said.rules)
    if said.project_id is not None:
        fields["project_id"] = said.project_id
    if said.user_id is not None:
        fields["user_id"] = said.user_id
    parts: tuple[Part, ...] = ()
    if notified.data is not None:
        members = notified.data.members
        if members and action == "add_member":
            parts = (Part("members", "", members[-1], members[-1]),)
        elif members is not None:
            fields["members"] = sorted(members)
    elif action == "create":
        # Nobody can be in a group that was just made.
        fields["members"] = []
    elif action == "addmember":
        parts = tuple(Part("members", "", server, server) for server in notified.instance_uuids or ())
    return (
        Reading(
            kind="ServerGroup",
            id=named(id_, notice, "server group"),
            verb=verb,
            as_of=notice.sent_at,
            project=said.project_id,
            fields=fields,
            parts=parts,
            only_known=bool(parts),
        ),
    )


def _rules(said: dict[str, Any]) -> dict[str, Any]:
    """`max_server_per_host` is a text in the notification, and a number in the API."""
    return {name: int(value) if isinstance(value, str) and value.isdecimal() else value for name, value in said.items()}


MICROVERSION = "2.64"
"""One policy, and its rules."""

_shape = Shape("ServerGroup", FIELDS)


async def list_groups(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every project's. Nova gives others than admins their own, without a word."""
    params = (("all_projects", "True"),)
    async for page in cloud.pages(COMPUTE, "/os-server-groups", "server_groups", params, microversion=MICROVERSION):
        yield readings(page.items, page.as_of, shown)


async def get_group(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    answer = await cloud.get(COMPUTE, f"/os-server-groups/{segment(id_)}", microversion=MICROVERSION)
    return the(answer, "server_group", shown)


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one server group."""
    id_, fields, _ = _shape.of(item)
    if not id_:
        return None
    if "members" in fields:
        fields["members"] = sorted(one for one in fields["members"] or () if isinstance(one, str))
    if fields.get("rules") is not None:
        fields["rules"] = _rules(fields["rules"])
    policies = item.get("policies")
    if "policy" not in fields and isinstance(policies, list) and policies and isinstance(policies[0], str):
        fields["policy"] = policies[0]
    return Reading(kind="ServerGroup", id=id_, verb="create", as_of=as_of, project=fields.get("project_id"), fields=fields)


KIND = Kind(
    kind="ServerGroup",
    plural="servergroups",
    singular="servergroup",
    short_names=("sgrp",),
    doc="A Nova server group: servers that should be placed together or apart.",
    events=(
        "servergroup.create",
        "servergroup.delete",
        "servergroup.addmember",
        "server_group.create",
        "server_group.delete",
        "server_group.add_member",
    ),
    read=read,
    api=Api(service=COMPUTE, list=list_groups, get=get_group, proof=ADMINS_ONLY),
    fields=FIELDS,
    columns=(
        Column("Group-Name", ("name",)),
        Column("Policy", ("policy",)),
        Column("Members", ("members", "*"), priority=1),
    ),
)
