"""What Neutron's notifications have in common, and neutron-lbaas's and Octavia's with them. The kinds of those services are next.

`<resource>.create.end` and `.update.end` carry the whole object as the caller may see it, `.delete.end` its id and mostly the
last object, bulk requests a list under the plural. `.start` carries request bodies and says nothing of what is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import NotUnderstood
from vedette.kinds._said import Shape, Verb, decoded, moment, untyped
from vedette.model.notice import Notice
from vedette.model.reading import Part, Reading
from vedette.ports import Field

VERBS: dict[str, Verb] = {"create": "create", "update": "update", "delete": "delete"}

Tidy = Callable[[dict[str, Any]], None]
Shared = Callable[[Mapping[str, Any]], bool | None]


def reader(
    kind: str,
    resource: str,
    fields: Mapping[str, Field],
    *,
    plural: str = "",
    more: Mapping[str, Callable[[Notice], Iterable[Reading]]] | None = None,
    tidy: Tidy | None = None,
    shared: Shared | None = None,
) -> Callable[[Notice], Iterable[Reading]]:
    """A `Kind.read` for `<resource>.{create,update,delete}.end`.

    `more`: other events of the kind, by their first word (`tag`). `tidy` brings the fields into the API's form, in place;
    `shared` says of them whether everybody may see the object.
    """
    plural = plural or f"{resource}s"
    shape = Shape(kind, fields)
    envelope: Any = msgspec.defstruct(
        f"{kind}Notice",
        [
            ("one", shape.struct | UnsetType, UNSET),
            ("many", list[shape.struct] | UnsetType, UNSET),  # type: ignore[name-defined]
            ("id", str | UnsetType, UNSET),
        ],
        rename={"one": resource, "many": plural, "id": f"{resource}_id"},
        gc=False,
    )
    decode = msgspec.json.Decoder(envelope).decode
    verbs = {f"{resource}.{word}.end": verb for word, verb in VERBS.items()}
    others = more or {}

    def read(notice: Notice) -> Iterable[Reading]:
        verb = verbs.get(notice.event_type)
        if verb is None:
            other = others.get(notice.event_type.partition(".")[0])
            return () if other is None else other(notice)
        try:
            said = decode(notice.payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return forgiving(notice, verb)
        if said.one is not UNSET:
            return (reading(notice, verb, *shape.split(said.one)),)
        if said.many is not UNSET:
            return [reading(notice, verb, *shape.split(item)) for item in said.many]
        if verb == "delete" and said.id is not UNSET and said.id:
            return (Reading(kind=kind, id=said.id, verb="delete", as_of=notice.sent_at),)
        raise NotUnderstood(f"{notice.event_type}: no {resource} in the payload")

    def reading(notice: Notice, verb: Verb, id_: str, public: dict[str, Any], admin: dict[str, Any]) -> Reading:
        if not id_:
            raise NotUnderstood(f"{notice.event_type}: a {resource} without an id")
        if tidy is not None:
            tidy(public)
        project = public.get("project_id", UNSET)
        if project is UNSET:
            project = public.get("tenant_id", UNSET)
        return Reading(
            kind=kind,
            id=id_,
            verb=verb,
            as_of=notice.sent_at,
            # The object in a delete was read before the last change that something else made to it: the deletion is later
            # than any revision, so only the clock orders it.
            version=None if verb == "delete" else public.get("revision_number"),
            created=moment(public.get("created_at")),
            project=None if project is UNSET else (project or ""),
            shared=None if shared is None else shared(public),
            fields=public,
            admin=admin,
        )

    def forgiving(notice: Notice, verb: Verb) -> list[Reading]:
        said = untyped(notice.payload, notice.event_type)
        one, many, id_ = said.get(resource), said.get(plural), said.get(f"{resource}_id")
        items = [one] if isinstance(one, dict) else many
        if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
            return [reading(notice, verb, *shape.forgive(item)) for item in items]
        if verb == "delete" and isinstance(id_, str) and id_:
            return [Reading(kind=kind, id=id_, verb="delete", as_of=notice.sent_at)]
        raise NotUnderstood(f"{notice.event_type}: no {resource} in the payload")

    return read


class _Tags(msgspec.Struct, gc=False):
    parent_resource: str
    parent_resource_id: str
    tags: list[str] | None = None


_tags = msgspec.json.Decoder(_Tags)


def tags(kind: str, parent: str) -> Callable[[Notice], Iterable[Reading]]:
    """Reads `tag.{create,update,delete,delete_all}.end` for one parent (`ports`): `create` and `delete` name the one tag that
    came or went, `update` all there are (neutron, extensions/tagging.py). They carry no revision of the parent."""

    def read(notice: Notice) -> Iterable[Reading]:
        action = notice.event_type.removeprefix("tag.")
        if action not in ("create.end", "update.end", "delete.end", "delete_all.end"):
            return ()
        said: _Tags = decoded(_tags.decode, notice.payload, notice.event_type)
        if said.parent_resource != parent or not said.parent_resource_id:
            return ()
        named = said.tags or []
        fields: dict[str, Any] = {}
        parts: tuple[Part, ...] = ()
        if action == "create.end":
            parts = tuple(Part("tags", "", tag, tag) for tag in named)
        elif action == "delete.end":
            parts = tuple(Part("tags", "", tag) for tag in named)
        else:
            fields = {"tags": named}
        return (
            Reading(
                kind=kind,
                id=said.parent_resource_id,
                verb="update",
                as_of=notice.sent_at,
                fields=fields,
                parts=parts,
                only_known=True,
            ),
        )

    return read


COMMON = {
    "created_at": Field("string", "When it was created."),
    "updated_at": Field("string", "When it was last updated."),
    "revision_number": Field("integer", "Neutron's count of its changes."),
}
"""Fields of every Neutron object."""

OWNED = {
    "project_id": Field("string", "The project that owns it."),
    "tenant_id": Field("string", "The same as project_id, under its old name."),
}
