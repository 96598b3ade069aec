"""What `/clusters/{source}` serves: our own kinds for an OpenStack source, what its API server has for a Kubernetes one.

The latter is known from the source's `Resource` objects (kinds/resource.py). Routes ask here which resource a path means; what
the caller may see of it is the store's to say, as everywhere. Which resources there are is told to every caller, as an API
server tells it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from vedette.api.discovery import NAMESPACE, Resource, of_kind
from vedette.api.server import Needs
from vedette.errors import NotFound
from vedette.model.change import Version
from vedette.model.fold import is_whole
from vedette.model.reading import VEDETTE, has_namespaces
from vedette.ports import EVERYTHING, Kind, Scope, Selection, Store

RESOURCE = "Resource"
"""Kind of what says which resources a source has (kinds/resource.py)."""
MOST_NAMESPACES = 10_000
"""Of one source, where it doesn't follow namespaces themselves; others are not listed."""


class Served(msgspec.Struct, frozen=True):
    """A resource as the routes of objects serve it."""

    kind: Kind
    version: str = "v1"
    namespaced: bool = True
    whole: bool = False
    """Of a Kubernetes source: ids are `namespace/name`, or the name alone."""

    @property
    def api_version(self) -> str:
        return f"{self.kind.group}/{self.version}" if self.kind.group else self.version

    @property
    def called(self) -> str:
        """As an API server names it in its errors: `routes.route.openshift.io`."""
        return f"{self.kind.plural}.{self.kind.group}" if self.kind.group else self.kind.plural


def source_of(needs: Needs, request: web.Request) -> str:
    """The source that a path speaks of: `/clusters/{source}`, `/clusters/*` ("") for all; without it the default one."""
    source = request.match_info.get("source")
    if source is None:
        return needs.default_source
    if source == "*":
        return ""
    if source not in needs.source_names:
        raise NotFound(f"no source is called {source[:80]!a}")
    return source


async def served(needs: Needs, request: web.Request, group: str, version: str, plural: str) -> Served:
    """What a path means. Raises NotFound.

    Of all sources together (`/clusters/*`) ours come first: another Vedette's ports are listed with our own.
    """
    kind = next((kind for kind in needs.kinds if (kind.group, kind.plural) == (group, plural)), None) if version == "v1" else None
    if "source" in request.match_info:
        source = source_of(needs, request)
        if source and await is_kubernetes(needs, source):
            kind = None
        if kind is None:
            found = await _resource(needs.store, source, group, version, plural)
            if found is not None:
                return _served(found)
    if kind is None:
        raise NotFound("the server could not find the requested resource")
    return Served(kind, namespaced=has_namespaces(kind.group))


async def is_kubernetes(needs: Needs, source: str) -> bool:
    """Whether objects of this source are whole objects of another API server."""
    if any(one.name == source and one.type == "kubernetes" for one in needs.sources()):
        return True
    return bool((await needs.store.objects(_resources(source), limit=1)).items)


async def resources(store: Store, source: str) -> tuple[Resource, ...]:
    """What a source ("" for all of them) has, each once, in the order of their ids."""
    found: dict[tuple[str, str, str], Resource] = {}
    after: tuple[str, str] | None = None
    while True:
        page = await store.objects(_resources(source), after=after)
        for _, version in page.items:
            one = _read(version)
            if one is not None:
                found.setdefault((one.group, one.version, one.plural), one)
        after = page.after
        if after is None:
            return tuple(found.values())


def with_namespaces(there: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Namespaces are always there: projects, or what a Kubernetes source's objects are in where it doesn't follow them."""
    return there if any((one.group, one.plural) == ("", "namespaces") for one in there) else (of_kind(NAMESPACE), *there)


async def namespaces(store: Store, source: str, scope: Scope, revision: int, of: Sequence[Resource]) -> list[str]:
    """The namespaces in which the caller sees an object of the source: found by leaping from one to the next."""
    found: set[str] = set()
    for one in of:
        selection = Selection(scope=scope, group=one.group, kind=one.kind, source=source)
        after = (source, "")
        while one.namespaced and len(found) < MOST_NAMESPACES:
            page = await store.objects(selection, revision=revision, after=after, limit=1)
            if not page.items:
                break
            namespace = page.items[0][0].id.rpartition("/")[0]
            if namespace:
                found.add(namespace)
            # "0" is what comes after "/": behind every id of this namespace, before those of the next.
            after = (source, f"{namespace}0" if namespace else page.items[0][0].id)
    return sorted(found)


async def _resource(store: Store, source: str, group: str, version: str, plural: str) -> Resource | None:
    selection = _resources(source)
    id_ = f"{plural}.{group}/{version}" if group else f"{plural}/{version}"
    page = await store.objects(msgspec.structs.replace(selection, id=id_), limit=1)
    return _read(page.items[0][1]) if page.items else None


def _resources(source: str) -> Selection:
    return Selection(scope=EVERYTHING, group=VEDETTE, kind=RESOURCE, source=source)


class _Status(msgspec.Struct):
    plural: str
    kind: str
    version: str
    group: str = ""
    singular: str = ""
    namespaced: bool = True
    shortNames: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


class _Object(msgspec.Struct):
    status: _Status


_decoder = msgspec.json.Decoder(_Object)


def _read(version: Version) -> Resource | None:
    """None: another Vedette's own, or nothing that could be served."""
    if is_whole(version):
        return None
    try:
        said = _decoder.decode(version.body).status
    except msgspec.ValidationError:
        return None
    return Resource(
        group=said.group,
        version=said.version,
        plural=said.plural,
        singular=said.singular or said.kind.lower(),
        kind=said.kind,
        namespaced=said.namespaced,
        short_names=said.shortNames,
        categories=said.categories,
    )


def _served(resource: Resource) -> Served:
    kind = Kind(
        kind=resource.kind,
        plural=resource.plural,
        singular=resource.singular,
        group=resource.group,
        doc="",
        events=(),
        read=lambda _notice: (),
        fields={},
        columns=(),
    )
    return Served(kind, version=resource.version, namespaced=resource.namespaced, whole=True)
