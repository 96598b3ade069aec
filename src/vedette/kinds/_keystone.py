"""Keystone's notifications, CADF (`notification_format=cadf`, the default) or basic, and its API. The kinds project and user are
next.

Both notifications carry only ids: `target.id` and `resource_info` in CADF, `resource_info` in basic. So one says that something
is there, or gone, or switched off, and not even its name: that is known from the API alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.errors import Forbidden, NotFound, NotUnderstood
from vedette.kinds._api import readings, the
from vedette.kinds._said import Shape, Verb, decoded
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Field, Items, JsonObject


class _Target(msgspec.Struct, gc=False):
    id: str | None = None


class _Event(msgspec.Struct, gc=False):
    outcome: str | None = None
    target: _Target | None = None
    resource_info: Any = None


_event = msgspec.json.Decoder(_Event)
_VERBS: dict[str, Verb] = {
    "created": "create",
    "updated": "update",
    "disabled": "update",
    "enabled": "update",
    "deleted": "delete",
}


def identity_reader(kind: str, resource: str, *, own_project: bool = False) -> Callable[[Notice], Iterable[Reading]]:
    """A `Kind.read` for `identity.<resource>.*`. `own_project`: the object is the project it belongs to."""
    prefix = f"identity.{resource}."

    def read(notice: Notice) -> Iterable[Reading]:
        action = notice.event_type.removeprefix(prefix)
        verb = _VERBS.get(action)
        if verb is None:
            return ()
        said: _Event = decoded(_event.decode, notice.payload, notice.event_type)
        if said.outcome not in (None, "success"):
            return ()
        info = said.resource_info
        id_ = info if isinstance(info, str) and info else said.target.id if said.target is not None else None
        if not id_:
            raise NotUnderstood(f"{notice.event_type}: a {resource} without an id")
        return (
            Reading(
                kind=kind,
                id=id_,
                verb=verb,
                as_of=notice.sent_at,
                project=id_ if own_project else "",
                fields={"enabled": action == "enabled"} if action in ("enabled", "disabled") else {},
            ),
        )

    return read


IDENTITY = "identity"
ADMINS_ONLY = "/domains"
"""Only who may see every domain is shown them."""


async def every_user(cloud: Cloud) -> AsyncIterator[Items]:
    """The users of all domains.

    Where domains have drivers of their own (LDAP), Keystone lists those of one domain at a time, and without a word. So a domain
    that no user was seen of is asked for by name.
    """
    seen: set[Any] = set()
    async for page in cloud.pages(IDENTITY, "/users", "users"):
        seen.update(item.get("domain_id") for item in page.items if isinstance(item.get("domain_id"), str))
        yield page
    async for domain in _domains(cloud):
        if domain not in seen:
            async for page in cloud.pages(IDENTITY, "/users", "users", (("domain_id", domain),)):
                yield page


async def _domains(cloud: Cloud) -> AsyncIterator[str]:
    try:
        async for page in cloud.pages(IDENTITY, "/domains", "domains"):
            for item in page.items:
                if isinstance(item.get("id"), str) and item["id"]:
                    yield item["id"]
    except (Forbidden, NotFound):
        return  # an admin of one domain: it was that one's users


async def every_project(cloud: Cloud) -> AsyncIterator[Items]:
    """The projects of all domains, without the domains themselves."""
    async for page in cloud.pages(IDENTITY, "/projects", "projects"):
        yield page


def identity_api(
    kind: str,
    resource: str,
    fields: Mapping[str, Field],
    every: Callable[[Cloud], AsyncIterator[Items]],
    *,
    own_project: bool = False,
) -> Api:
    """A `Kind.api`. What Keystone leaves out has no value, and is null."""
    shape = Shape(kind, fields)

    def shown(item: JsonObject, as_of: int) -> Reading | None:
        id_, public, _ = shape.of(item)
        if not id_:
            return None
        said = {name: public.get(name) for name in fields if name in public or name not in item}
        tags = said.get("tags")
        if tags is not None:
            said["tags"] = sorted(tag for tag in tags if isinstance(tag, str))
        return Reading(kind=kind, id=id_, verb="create", as_of=as_of, project=id_ if own_project else "", fields=said)

    async def list_(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
        async for page in every(cloud):
            yield readings(page.items, page.as_of, shown)

    async def get(cloud: Cloud, id_: str) -> Sequence[Reading]:
        answer = await cloud.get(IDENTITY, f"/{resource}s/{segment(id_)}")
        # From a cache, which has it as it was some minutes ago, even when it is gone by now. So it says nothing but that it is
        # there, and brings nothing back to life.
        found = the(answer, resource, shown)
        return [Reading(kind=kind, id=one.id, verb="update", as_of=one.as_of, only_known=True) for one in found]

    return Api(service=IDENTITY, list=list_, get=get, proof=ADMINS_ONLY)
