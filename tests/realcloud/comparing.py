"""What Vedette serves against what the cloud's API lists, object by object and field by field.

The API is read by the kinds' own `api.list` through clients/openstack.py, as resync reads it, and put into the form in which
objects are served. What differs is a `Difference`; announced.py says which of them have their reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal, NamedTuple

import msgspec
from vedette_process import ACCOUNT, SOURCE

from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import NoService
from vedette.kit.clock import SystemClock, rfc3339
from vedette.kit.telemetry import Telemetry
from vedette.model.fold import NO_PROJECT, fold
from vedette.model.reading import Key, Reading
from vedette.plugins import kinds
from vedette.ports import Cloud

KINDS = {kind.kind: kind for kind in kinds()}
Name = tuple[str, str]
"""An object: kind and id."""
How = Literal["never said", "said otherwise", "said alone", "not announced", "gone"]
"""`never said`: the API has the field, the inventory hasn't. `said otherwise`: two values. `said alone`: only the inventory has
it. `not announced`: the object is in the listing alone. `gone`: in the inventory alone."""


class Listed(NamedTuple):
    """An object in the API."""

    status: dict[str, Any]
    """Its fields, admins' too, and `id`."""
    namespace: str
    created: str
    """"" when the API doesn't say."""


class Difference(NamedTuple):
    """One of them; `field` is "" for whole objects."""

    how: How
    kind: str
    id: str
    status: Mapping[str, Any]
    """All of the object: as it is served, or as it is listed when it isn't."""
    field: str = ""
    served: Any = None
    listed: Any = None


@asynccontextmanager
async def as_admin() -> AsyncIterator[OpenStackCloud]:
    """The cloud's API as an admin of it."""
    account = credentials(ACCOUNT, environ={}, folders=())
    cloud = OpenStackCloud(account, name="tests", clock=SystemClock(), telemetry=Telemetry())
    try:
        yield cloud
    finally:
        await cloud.close()


async def listed(cloud: Cloud, only: Iterable[str] = ()) -> dict[Name, Listed]:
    """Everything that the API lists, of these kinds or of all whose service there is."""
    found: dict[Name, Listed] = {}
    for kind in KINDS.values():
        if (only and kind.kind not in only) or kind.api is None:
            continue
        async with aclosing(kind.api.list(cloud)) as pages:  # type: ignore[type-var]
            async for readings in _of_a_service(pages):
                for reading in readings:
                    if reading.kind != kind.kind:
                        continue
                    state, _ = fold(None, reading, Key(SOURCE, reading.group, reading.kind, reading.id), 1)
                    if state is None or state.deleted:
                        continue
                    fields = msgspec.json.decode(msgspec.json.encode({**state.fields, **state.admin}))
                    created = rfc3339(state.created) if reading.created is not None else ""
                    found[kind.kind, reading.id] = Listed({"id": reading.id, **fields}, state.project or NO_PROJECT, created)
    return found


async def _of_a_service(pages: AsyncIterator[Sequence[Reading]]) -> AsyncIterator[Sequence[Reading]]:
    """The cloud has no Ironic."""
    try:
        async for readings in pages:
            yield readings
    except NoService:
        return


def differences(
    served: Mapping[Name, Mapping[str, Any]], there: Mapping[Name, Listed], before: Iterable[Name] = ()
) -> list[Difference]:
    """Every way in which what is served is not what the API lists. `before`: objects that were there before Vedette was: of
    these it can only know what was said since."""
    old = set(before)
    found: list[Difference] = []
    for name in sorted(served.keys() | there.keys()):
        if name not in there:
            found.append(Difference("gone", *name, served[name]["status"]))
            continue
        if name not in served:
            if name not in old or not KINDS[name[0]].events:
                found.append(Difference("not announced", *name, there[name].status))
            continue
        have, want = served[name]["status"], there[name].status
        for field in sorted(have.keys() | want.keys()):
            if field not in have:
                if name not in old:
                    found.append(Difference("never said", *name, have, field, listed=want[field]))
            elif field not in want:
                found.append(Difference("said alone", *name, have, field, served=have[field]))
            elif not alike(have[field], want[field]):
                found.append(Difference("said otherwise", *name, have, field, have[field], want[field]))
        metadata = served[name]["metadata"]
        pairs = [("namespace", metadata["namespace"], there[name].namespace)]
        if there[name].created and name not in old:
            pairs.append(("creationTimestamp", metadata["creationTimestamp"], there[name].created))
        found += [
            Difference("said otherwise", *name, have, f"metadata.{what}", one, other)
            for what, one, other in pairs
            if one != other
        ]
    return found


def alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same; 1, 1.0 and true are three."""
    return one == other and msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")


def shown(found: Iterable[Difference], most: int = 40) -> str:
    """For a person."""
    lines = [
        f"{one.kind} {one.id} ({_called(one.status)}) {one.field or 'as a whole'}: {one.how}; "
        f"served {one.served!r:.300}, listed {one.listed!r:.300}"
        for one in found
    ]
    more = f"\n… and {len(lines) - most} more" if len(lines) > most else ""
    return "\n".join(lines[:most]) + more


def _called(status: Mapping[str, Any]) -> str:
    return str(status.get("name") or status.get("stack_name") or status.get("device_owner") or "no name")
