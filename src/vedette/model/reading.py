"""A reading: what one notice says of one object. Given by `kinds/*.read`, stored in the entry, folded by model/fold.py."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

OPENSTACK = "openstack.vedette.dev"
"""API group of the objects of an OpenStack source. Every group of ours has one version, v1."""

VEDETTE = "vedette.dev"
"""API group of what Vedette itself owns: handlers, dead letters, …"""
VEDETTE_SOURCE = "vedette"
"""The source of such objects in their keys; no source in a configuration may be called so."""


def has_namespaces(group: str) -> bool:
    """Of a group of ours: what the cloud owns is in a namespace, its project; what Vedette itself owns is in none."""
    return group not in ("", VEDETTE)


class Key(msgspec.Struct, frozen=True, gc=False, order=True):
    """Names an object: (source, group, kind, id). `kind` is the Kubernetes kind (`Port`), `id` OpenStack's own id."""

    source: str
    group: str
    kind: str
    id: str


class Part(msgspec.Struct, frozen=True):
    """News of one item of a list field: put it (replacing the item with the same `id_field`) or, without `value`, take it out."""

    field: str
    id_field: str
    id: str
    value: Any = None


class Reading(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a notice says of one object: only the fields it speaks of; the others are kept.

    `create` makes the object or revives a tombstone if it is newer; `update` makes it when nothing was known, and is ignored
    on a tombstone; `delete` leaves a tombstone with the last known content (plus `fields`, if any).
    """

    kind: str
    """The Kubernetes kind, e.g. `Port`."""
    id: str
    verb: Literal["create", "update", "delete"]
    as_of: int
    """UTC microseconds: the notice's own timestamp; for an API reading the moment the request was sent."""
    version: int | None = None
    """Neutron's revision_number, where this reading has it: it decides before `as_of` when both sides have one."""
    created: int | None = None
    """When the object was created (UTC microseconds), where the notice says it."""
    project: str | None = None
    """The object's own project; None: this reading doesn't say (what is known stays)."""
    shared: bool | None = None
    """True: everybody may see it. None: this reading doesn't say."""
    owner: str | None = None
    """A user who may see it beside the project (keypairs)."""
    fields: dict[str, Any] = {}
    """What everybody who may see the object sees, named as OpenStack's API names it."""
    admin: dict[str, Any] = {}
    """What only admins see (`binding:*`, hosts, …)."""
    parts: tuple[Part, ...] = ()
    only_known: bool = False
    """Ignore this reading when the object isn't known: it says too little to make one."""
    group: str = OPENSTACK
    whole: bool = False
    """`fields` is the whole object as another Kubernetes API serves it (apiVersion, kind, metadata, spec, …) and takes the
    place of all that was known. Served as it is there, under our resourceVersion."""
