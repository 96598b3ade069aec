"""Compute services, from Nova's versioned `service.{create,update,delete}`.

They say what somebody switched; whether a service is alive is never announced (a dead nova-compute says nothing), so it isn't
read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.kinds._nova import named
from vedette.kinds._said import Verb, decoded, second
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "binary": Field("string", "nova-compute, nova-scheduler, nova-conductor …"),
    "host": Field("string", "The host it runs on."),
    "zone": Field("string", "Its availability zone, where the notice says it."),
    "status": Field("string", "enabled or disabled."),
    "disabled_reason": Field("string", "Why it is disabled."),
    "forced_down": Field("boolean", "Whether somebody declared it down."),
    "updated_at": Field("string", "When it was last seen up."),
}


class _Service(msgspec.Struct, gc=False):
    uuid: str | None = None
    host: str | UnsetType | None = UNSET
    binary: str | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET
    disabled_reason: str | UnsetType | None = UNSET
    availability_zone: str | UnsetType | None = UNSET
    last_seen_up: str | UnsetType | None = UNSET
    forced_down: bool | UnsetType | None = UNSET


class _ServiceObject(msgspec.Struct, gc=False):
    data: _Service = msgspec.field(name="nova_object.data")


_service = msgspec.json.Decoder(_ServiceObject)
_VERBS: dict[str, Verb] = {"service.create": "create", "service.update": "update", "service.delete": "delete"}


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one compute service."""
    verb = _VERBS.get(notice.event_type)
    if verb is None:
        return ()
    notified: _ServiceObject = decoded(_service.decode, notice.payload, notice.event_type)
    said = notified.data
    fields: dict[str, Any] = {}
    if said.binary is not UNSET:
        fields["binary"] = said.binary
    if said.host is not UNSET:
        fields["host"] = said.host
    if said.availability_zone is not UNSET and said.availability_zone is not None:
        fields["zone"] = said.availability_zone
    if isinstance(said.disabled, bool):
        fields["status"] = "disabled" if said.disabled else "enabled"
    if said.disabled_reason is not UNSET:
        fields["disabled_reason"] = said.disabled_reason
    if said.forced_down is not UNSET:
        fields["forced_down"] = said.forced_down
    if said.last_seen_up is not UNSET and said.last_seen_up is not None:
        fields["updated_at"] = second(said.last_seen_up)
    return (
        Reading(
            kind="ComputeService",
            id=named(said.uuid, notice, "service"),
            verb=verb,
            as_of=notice.sent_at,
            project="",
            fields=fields,
        ),
    )


KIND = Kind(
    kind="ComputeService",
    plural="computeservices",
    singular="computeservice",
    short_names=("csvc",),
    doc="A Nova service on a host: nova-compute, nova-scheduler, nova-conductor.",
    events=tuple(_VERBS),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Binary", ("binary",)),
        Column("Host", ("host",)),
        Column("Zone", ("zone",)),
        Column("Status", ("status",)),
        Column("Forced-Down", ("forced_down",), "boolean", priority=1),
        Column("Reason", ("disabled_reason",), priority=1),
    ),
    audience="admin",
)
