"""What Neutron's notifications and its API have in common, and neutron-lbaas's and Octavia's with them. The kinds of those
services are next.

`<resource>.create.end` and `.update.end` carry the whole object as the caller may see it, `.delete.end` its id and mostly the
last object, bulk requests a list under the plural. `.start` carries request bodies and says nothing of what is. The API shows
the same object in the same form, so both are read by one `Resource`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import BadRequest, Forbidden, NotFound, NotUnderstood
from vedette.kinds._said import Shape, Verb, decoded, moment, untyped
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Part, Reading
from vedette.ports import Api, Cloud, Field, JsonObject, Params, Scan

VERBS: dict[str, Verb] = {"create": "create", "update": "update", "delete": "delete"}

Tidy = Callable[[dict[str, Any]], None]
Shared = Callable[[Mapping[str, Any]], bool | None]
Finish = Callable[[Cloud, Sequence[Reading]], Awaitable[Sequence[Reading]]]

NOBODY = "0" * 32
"""A project that isn't there."""
PROOF = f"/quotas/{NOBODY}"
"""Another project's quota is shown to whom Neutron takes for an admin, and those are the ones whose lists hold every project's
objects. Most things that only admins get (`/agents`) are no proof: others get 200 and an empty list."""
STABLE = (("sort_key", "id"), ("sort_dir", "asc"))
"""Sorted by what never changes, so that no object moves from a page that isn't read yet to one that is."""


class Resource:
    """One of Neutron's resources, or one in its form: how its notices and its API's answers are read."""

    def __init__(
        self,
        kind: str,
        name: str,
        fields: Mapping[str, Field],
        *,
        plural: str = "",
        service: str = "network",
        path: str = "",
        tidy: Tidy | None = None,
        shared: Shared | None = None,
        unordered: Sequence[str] = (),
        absent: Sequence[str] = (),
    ) -> None:
        """`path`: of its list in the API. `tidy` brings the fields into the API's form, in place; `shared` says of them whether
        everybody may see the object. `unordered`: lists whose order means nothing, and that come in any. `absent`: what
        the API leaves out where there is none."""
        self.kind, self.name, self.plural = kind, name, plural or f"{name}s"
        self.service, self.path = service, path or f"/{self.plural}"
        self.fields, self.shape = fields, Shape(kind, fields)
        self._tidy, self._shared, self._unordered, self._absent = tidy, shared, unordered, absent

    # --- from notices ---

    def reader(
        self, *, more: Mapping[str, Callable[[Notice], Iterable[Reading]]] | None = None
    ) -> Callable[[Notice], Iterable[Reading]]:
        """A `Kind.read` for `<name>.{create,update,delete}.end`. `more`: other events of the kind, by their first word."""
        kind, name, shape = self.kind, self.name, self.shape
        envelope: Any = msgspec.defstruct(
            f"{kind}Notice",
            [
                ("one", shape.struct | UnsetType, UNSET),
                ("many", list[shape.struct] | UnsetType, UNSET),  # type: ignore[name-defined]
                ("id", str | UnsetType, UNSET),
            ],
            rename={"one": name, "many": self.plural, "id": f"{name}_id"},
            gc=False,
        )
        decode = msgspec.json.Decoder(envelope).decode
        verbs = {f"{name}.{word}.end": verb for word, verb in VERBS.items()}
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
                return (reading(notice, verb, shape.split(said.one)),)
            if said.many is not UNSET:
                return [reading(notice, verb, shape.split(item)) for item in said.many]
            if verb == "delete" and said.id is not UNSET and said.id:
                return (Reading(kind=kind, id=said.id, verb="delete", as_of=notice.sent_at),)
            raise NotUnderstood(f"{notice.event_type}: no {name} in the payload")

        def reading(notice: Notice, verb: Verb, said: tuple[str, dict[str, Any], dict[str, Any]]) -> Reading:
            if not said[0]:
                raise NotUnderstood(f"{notice.event_type}: a {name} without an id")
            return self.reading(verb, notice.sent_at, *said)

        def forgiving(notice: Notice, verb: Verb) -> list[Reading]:
            said = untyped(notice.payload, notice.event_type)
            one, many, id_ = said.get(name), said.get(self.plural), said.get(f"{name}_id")
            items = [one] if isinstance(one, dict) else many
            if isinstance(items, list) and items and all(isinstance(item, dict) for item in items):
                return [reading(notice, verb, shape.forgive(item)) for item in items]
            if verb == "delete" and isinstance(id_, str) and id_:
                return [Reading(kind=kind, id=id_, verb="delete", as_of=notice.sent_at)]
            raise NotUnderstood(f"{notice.event_type}: no {name} in the payload")

        return read

    def reading(self, verb: Verb, as_of: int, id_: str, public: dict[str, Any], admin: dict[str, Any]) -> Reading:
        """What the fields of one object say, whoever said them."""
        if self._tidy is not None:
            self._tidy(public)
        for field in self._unordered:
            items = public.get(field)
            if items and len(items) > 1:
                public[field] = in_order(items)
        project = public.get("project_id", UNSET)
        if project is UNSET:
            project = public.get("tenant_id", UNSET)
        return Reading(
            kind=self.kind,
            id=id_,
            verb=verb,
            as_of=as_of,
            # The object in a delete was read before the last change that something else made to it: the deletion is later
            # than any revision, so only the clock orders it.
            version=None if verb == "delete" else public.get("revision_number"),
            created=moment(public.get("created_at")),
            project=None if project is UNSET else (project or ""),
            shared=None if self._shared is None else self._shared(public),
            fields=public,
            admin=admin,
        )

    # --- from the API ---

    def shown(self, item: Any, as_of: int) -> Reading | None:
        """An object in an answer; None when it has no id: nothing can be said of it, and it is no reason to lose the others."""
        if not isinstance(item, dict):
            return None
        id_, public, admin = self.shape.of(item)
        if not id_:
            return None
        public.update({name: None for name in self._absent if name not in item})
        return self.reading("create", as_of, id_, public, admin)

    def all_shown(self, items: Iterable[Any], as_of: int) -> list[Reading]:
        return [reading for item in items if (reading := self.shown(item, as_of)) is not None]

    async def get(self, cloud: Cloud, id_: str) -> Sequence[Reading]:
        answer = await cloud.get(self.service, f"{self.path}/{segment(id_)}")
        reading = self.shown(answer.body.get(self.name), answer.as_of)
        return () if reading is None else (reading,)

    async def pages(self, cloud: Cloud, params: Params = ()) -> AsyncIterator[list[Reading]]:
        async for page in cloud.pages(self.service, self.path, self.plural, params):
            yield self.all_shown(page.items, page.as_of)

    def api(
        self,
        *,
        proof: str = PROOF,
        params: Params = STABLE,
        by_ids: bool = True,
        finish: Finish | None = None,
        transient: Callable[[JsonObject], bool] | None = None,
        transient_fields: tuple[str, ...] = (),
        scan: Scan | None = None,
    ) -> Api:
        """A `Kind.api`. `by_ids`: the service takes `id=a&id=b`. `finish` gets what its objects' own answer doesn't say."""

        async def finished(cloud: Cloud, readings: Sequence[Reading]) -> Sequence[Reading]:
            return await finish(cloud, readings) if finish is not None and readings else readings

        async def list_(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
            async for readings in self.pages(cloud, params):
                yield await finished(cloud, readings)

        async def get(cloud: Cloud, id_: str) -> Sequence[Reading]:
            return await finished(cloud, await self.get(cloud, id_))

        async def some(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
            if not ids:
                return ()
            found = [one async for page in self.pages(cloud, [("id", id_) for id_ in ids]) for one in page]
            return await finished(cloud, found)

        return Api(
            service=self.service,
            list=list_,
            get=get,
            some=some if by_ids else None,
            proof=proof,
            transient=transient,
            transient_fields=transient_fields,
            scan=scan,
        )


def in_order(items: list[Any]) -> list[Any]:
    """The items in one order, whichever they came in: by id where they have one, else by what they say."""
    return sorted(items, key=_place)


def _place(item: Any) -> tuple[str, str]:
    if isinstance(item, str):
        return item, ""
    id_ = item.get("id") if isinstance(item, dict) else None
    return id_ if isinstance(id_, str) else "", json.dumps(item, sort_keys=True)


Says = Callable[[str | None, str], bool | None]


async def given_to_all(cloud: Cloud) -> Says | None:
    """Who knows of a network and an action (`access_as_shared`, `access_as_external`) whether every project has it; its None:
    this account can't know. None: a Neutron without RBAC policies.

    A network's own `shared` means "with the one who asks": to an admin a network is shared that is shared with the admin's
    project alone. Only a policy for `*` gives it to everybody, and only admins see everybody's policies.
    """
    given: set[tuple[str, str]] = set()
    named = ("id", "object_id", "action", "target_tenant")
    # Not `STABLE`: of these, Neutron refuses to be told the order.
    params = (("object_type", "network"), ("target_tenant", "*"), *(("fields", name) for name in named))
    try:
        async for page in cloud.pages("network", "/rbac-policies", "rbac_policies", params):
            for one in page.items:
                network, action = one.get("object_id"), one.get("action")
                if one.get("target_tenant") == "*" and isinstance(network, str) and isinstance(action, str):
                    given.add((network, action))
    except NotFound:
        return None
    try:
        await cloud.get("network", PROOF)
        whole = True
    except (Forbidden, NotFound, BadRequest):
        whole = False

    def says(network: str | None, action: str) -> bool | None:
        return True if (network, action) in given else (False if whole else None)

    return says


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
            fields = {"tags": in_order(named)}
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
