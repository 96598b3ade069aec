"""Hypervisors. Nova announces nothing of them: no event is read, and the fields are those that a listing gives."""

from __future__ import annotations

from collections.abc import Iterable

from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "hypervisor_hostname": Field("string", "Its name."),
    "hypervisor_type": Field("string", "QEMU, VMware, ironic …"),
    "hypervisor_version": Field("integer", "Its version as a number."),
    "host_ip": Field("string", "Its address."),
    "state": Field("string", "up or down."),
    "status": Field("string", "enabled or disabled."),
    "service": Field("object", "The nova-compute that runs it: id, host, disabled_reason."),
    "uptime": Field("string", "How long it has been up, in its own words."),
}


def read(notice: Notice) -> Iterable[Reading]:
    """Nothing: no notification speaks of a hypervisor."""
    return ()


KIND = Kind(
    kind="Hypervisor",
    plural="hypervisors",
    singular="hypervisor",
    short_names=("hv",),
    doc="A Nova hypervisor: a machine that runs servers.",
    events=(),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Hostname", ("hypervisor_hostname",)),
        Column("Type", ("hypervisor_type",)),
        Column("Host-IP", ("host_ip",)),
        Column("State", ("state",)),
        Column("Status", ("status",), priority=1),
    ),
    audience="admin",
)
