"""What the load balancing kinds have in common: three ways in which the same objects were announced, and Octavia's API.

- neutron-lbaas: `<resource>.<verb>.end` in Neutron's form, `{"listener": {…}}`, deletes with only `{"listener_id": …}`;
- Octavia: `octavia.loadbalancer.<verb>.end` only, a flat provider dict whose id is `loadbalancer_id`;
- forks of Octavia: `octavia.<resource>.<verb>.end`, the same flat provider dict with `<resource>_id`.

The flat dicts name some things as drivers do; here they get the names of the load balancing API. What that API shows is in
Neutron's form again. How it is looked at again and again is in _balance_scan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._neutron import NOBODY, VERBS, Resource
from vedette.kinds._said import Shape, untyped
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Field, JsonObject

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

SERVICE = "load-balancer"

UNORDERED = ("listeners", "pools", "members", "tags", "allowed_cidrs", "sni_container_refs", "additional_vips")


def proof(plural: str) -> str:
    """Octavia refuses the list of another project's objects to whom it wouldn't show every project's. This is the very rule
    that its lists go by (`get_all-global`); `/octavia/amphorae` is for admins only, and some who see all are none."""
    return f"/lbaas/{plural}?project_id={NOBODY}&limit=1&fields=id"


def transient(status: JsonObject) -> bool:
    """Whether Octavia is at work on it: it announces no end of that."""
    return str(status.get("provisioning_status")).startswith("PENDING_")


TRANSIENT_FIELDS = ("provisioning_status",)


class Balanced(Resource):
    """One of the load balancing resources: how it is announced, and shown by Octavia's API."""

    def __init__(
        self,
        kind: str,
        name: str,
        fields: Mapping[str, Field],
        *,
        old_name: str = "",
        parents: Mapping[str, str] | None = None,
        stale: frozenset[str] = frozenset(),
        absent: Sequence[str] = (),
    ) -> None:
        """`old_name`: what neutron-lbaas calls the resource, where that differs. `parents`: a driver's single id, and the API's
        list of references that it becomes (`loadbalancer_id` → `loadbalancers`). `stale`: fields that an Octavia update
        carries with their old values. `absent`: what the API leaves out where there is none."""
        super().__init__(kind, name, fields, service=SERVICE, path=f"/lbaas/{name}s", unordered=UNORDERED, absent=absent)
        self._old_name, self._parents, self._stale = old_name, parents or {}, stale

    def balance_reader(self) -> Callable[[Notice], Iterable[Reading]]:
        """A `Kind.read`."""
        kind, name, references, stale = self.kind, self.name, self._parents, self._stale
        in_neutron = [self.reader()]
        if self._old_name:
            in_neutron.append(Resource(kind, self._old_name, self.fields, unordered=UNORDERED).reader())
        drivers = dict(self.fields) | {driver: Field("string", "") for driver in references}
        shape = Shape(f"{kind}Driver", drivers, ids=(f"{name}_id", "id"))
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
            verb = VERBS.get(words[2]) if len(words) == 4 and words[1] == name and words[3] == "end" else None
            if verb is None:
                return ()
            try:
                id_, public, admin = shape.split(decode(notice.payload))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                id_, public, admin = shape.forgive(untyped(notice.payload, event))
            if not id_:
                raise NotUnderstood(f"{event}: a {name} without an id")
            for driver, listed in references.items():
                parent = public.pop(driver, None)
                if parent:
                    public[listed] = [{"id": parent}]
            if verb == "update":
                for field in stale:
                    public.pop(field, None)
            for field in ("name", "description"):
                if field in public and public[field] is None:
                    public[field] = ""  # as the API has it
            return (self.reading(verb, notice.sent_at, id_, public, admin),)

        return read


def references(fields: Mapping[str, Any], name: str) -> list[str]:
    """The ids in a list of references, `[{"id": …}]`."""
    listed = fields.get(name)
    ids = [one.get("id") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    return [id_ for id_ in ids if isinstance(id_, str)]
