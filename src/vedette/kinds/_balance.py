"""What the load balancing kinds have in common: three ways in which the same objects were announced.

- neutron-lbaas: `<resource>.<verb>.end` in Neutron's form, `{"listener": {…}}`, deletes with only `{"listener_id": …}`;
- Octavia: `octavia.loadbalancer.<verb>.end` only, a flat provider dict whose id is `loadbalancer_id`;
- forks of Octavia: `octavia.<resource>.<verb>.end`, the same flat provider dict with `<resource>_id`.

The flat dicts name some things as drivers do; here they get the names of the load balancing API.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._neutron import VERBS, reader
from vedette.kinds._said import Shape, moment, untyped
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Field

PROJECT = {
    "project_id": Field("string", "The project that owns it."),
    "tenant_id": Field("string", "The same as project_id, under its old name."),
}
STATES = {
    "admin_state_up": Field("boolean", "Whether it is switched on."),
    "provisioning_status": Field("string", "ACTIVE, PENDING_CREATE, PENDING_UPDATE, PENDING_DELETE, ERROR …"),
    "operating_status": Field("string", "ONLINE, OFFLINE, DEGRADED, ERROR, NO_MONITOR …"),
}
TIMES = {
    "created_at": Field("string", "When it was created."),
    "updated_at": Field("string", "When it was last updated."),
}
"""neutron-lbaas and Octavia's API have them; Octavia's notifications don't."""


def balance_reader(
    kind: str,
    resource: str,
    fields: Mapping[str, Field],
    *,
    old_name: str = "",
    parents: Mapping[str, str] | None = None,
    stale: frozenset[str] = frozenset(),
) -> Callable[[Notice], Iterable[Reading]]:
    """A `Kind.read`. `old_name`: what neutron-lbaas calls the resource, where that differs. `parents`: a driver's single id,
    and the API's list of references that it becomes (`loadbalancer_id` → `loadbalancers`). `stale`: fields that an Octavia
    update carries with their old values."""
    references = parents or {}
    in_neutron = [reader(kind, name, fields) for name in dict.fromkeys((resource, old_name)) if name]
    drivers = dict(fields) | {driver: Field("string", "") for driver in references}
    shape = Shape(f"{kind}Driver", drivers, ids=(f"{resource}_id", "id"))
    decode = msgspec.json.Decoder(shape.struct).decode

    def read(notice: Notice) -> Iterable[Reading]:
        event = notice.event_type
        if not event.startswith("octavia."):
            for read_neutron in in_neutron:
                readings = tuple(read_neutron(notice))
                if readings:
                    return readings
            return ()
        words = event.split(".")
        verb = VERBS.get(words[2]) if len(words) == 4 and words[1] == resource and words[3] == "end" else None
        if verb is None:
            return ()
        try:
            id_, public, admin = shape.split(decode(notice.payload))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            id_, public, admin = shape.forgive(untyped(notice.payload, event))
        if not id_:
            raise NotUnderstood(f"{event}: a {resource} without an id")
        for driver, listed in references.items():
            parent = public.pop(driver, None)
            if parent:
                public[listed] = [{"id": parent}]
        if verb == "update":
            for name in stale:
                public.pop(name, None)
        project = public.get("project_id", public.get("tenant_id"))
        return (
            Reading(
                kind=kind,
                id=id_,
                verb=verb,
                as_of=notice.sent_at,
                created=moment(public.get("created_at")),
                project=project,
                fields=public,
                admin=admin,
            ),
        )

    return read
