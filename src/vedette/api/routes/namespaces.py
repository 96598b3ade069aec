"""Core `/api/v1/namespaces`: the projects that the caller sees, so that kubectl, kopf and dashboards find their way.

List and get are the projects that have an object now and those of the kind Project; a watch tells what happens to the latter.
Of a Kubernetes source they are its Namespace objects, or, where it doesn't follow those, the namespaces of its objects; then a
watch tells nothing after the first list.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
from aiohttp import web

from vedette.api import clusters
from vedette.api.accept import accepted, truthy
from vedette.api.discovery import NAMESPACE
from vedette.api.routes import objects
from vedette.api.routes.objects import (
    bookmark_of,
    flag,
    json_event,
    partial_event,
    revision_of,
    table_bookmark,
    table_event,
    timeout_of,
)
from vedette.api.server import IDENTITY, Needs
from vedette.api.streams import stream
from vedette.api.table import partial, row, table
from vedette.engine.watch import ChangeFeed, Form, Memo
from vedette.errors import NotFound
from vedette.model.change import Version
from vedette.model.fold import NO_PROJECT
from vedette.model.reading import OPENSTACK, Key
from vedette.model.selector import Selector
from vedette.model.selector import parse as parse_selector
from vedette.ports import Selection


def routes(needs: Needs) -> list[web.RouteDef]:
    async def known(request: web.Request) -> tuple[int, dict[str, dict[str, Any]]]:
        """Every namespace the caller sees, by name; as of a revision."""
        scope = request[IDENTITY].scope
        selection = await _told_by(needs, request)
        revision = needs.store.head
        if selection.kind == NAMESPACE.kind:
            of = await clusters.resources(needs.store, selection.source)
            seen = await clusters.namespaces(needs.store, selection.source, scope, revision, of)
            return revision, {name: _namespace(name, "", str(needs.store.oldest), None) for name in seen}
        names = set(await needs.store.projects()) | {NO_PROJECT} if scope.admin else set(scope.projects)
        found = {name: _namespace(name, "", str(needs.store.oldest), None) for name in names if name}
        after: tuple[str, str] | None = None
        while True:
            page = await needs.store.objects(selection, revision=revision, after=after)
            for key, version in page.items:
                found[key.id] = _of_project(msgspec.json.decode(version.tenant_form()))
            after = page.after
            if after is None:
                return revision, found

    async def followed(request: web.Request) -> clusters.Served | None:
        """Where a Kubernetes source follows its namespaces: they are objects like any other."""
        if "source" not in request.match_info or not clusters.source_of(needs, request):
            return None
        try:
            return await clusters.served(needs, request, "", "v1", "namespaces")
        except NotFound:
            return None

    async def many(request: web.Request) -> web.StreamResponse:
        if (served := await followed(request)) is not None:
            return await objects.many(needs, request, served)
        query = request.query
        selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        form = accepted(request.headers.get("Accept", "")).form
        if flag(query, "watch"):
            return await _watch(needs, request, selector, form, known)
        revision, found = await known(request)
        bodies = [msgspec.json.encode(item) for name, item in sorted(found.items()) if _holds(selector, item)]
        metadata = {"resourceVersion": str(revision)}
        if form == "table":
            return _json(table(NAMESPACE, [row(NAMESPACE, body) for body in bodies], metadata))
        if form == "partial":
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return _json({**head, "metadata": metadata, "items": [msgspec.Raw(partial(body)) for body in bodies]})
        items = [msgspec.Raw(body) for body in bodies]
        return _json({"kind": "NamespaceList", "apiVersion": "v1", "metadata": metadata, "items": items})

    async def one(request: web.Request) -> web.StreamResponse:
        if (served := await followed(request)) is not None:
            return await objects.one(needs, request, served)
        name = request.match_info["name"]
        _, found = await known(request)
        if name not in found:
            raise NotFound(f'namespaces "{name}" not found')
        body = msgspec.json.encode(found[name])
        form = accepted(request.headers.get("Accept", "")).form
        if form == "table":
            return _json(table(NAMESPACE, [row(NAMESPACE, body)], {}))
        return _json(msgspec.Raw(partial(body) if form == "partial" else body))

    return [
        route
        for prefix in ("", "/clusters/{source}")
        for route in (
            web.get(prefix + "/api/v1/namespaces", many, allow_head=False),
            web.get(prefix + "/api/v1/namespaces/{name}", one, allow_head=False),
        )
    ]


async def _told_by(needs: Needs, request: web.Request) -> Selection:
    """The objects that tell of namespaces: projects; of a Kubernetes source its namespaces, though it follows none."""
    source = clusters.source_of(needs, request)
    scope = request[IDENTITY].scope
    if source and "source" in request.match_info and await clusters.is_kubernetes(needs, source):
        return Selection(scope=scope, group="", kind=NAMESPACE.kind, source=source)
    return Selection(scope=scope, group=OPENSTACK, kind="Project", source=source)


def _holds(selector: Selector, namespace: dict[str, Any]) -> bool:
    metadata = namespace["metadata"]
    return selector.matches(metadata["name"], "", metadata["labels"], namespace["status"])


def _of_project(project: dict[str, Any]) -> dict[str, Any]:
    metadata, status = project["metadata"], project["status"]
    return _namespace(status["id"], str(status.get("name") or ""), metadata["resourceVersion"], metadata["creationTimestamp"])


def _namespace(name: str, title: str, revision: str, created: str | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": name,
            "uid": name,
            "resourceVersion": revision,
            "creationTimestamp": created,
            "labels": {"kubernetes.io/metadata.name": name},
            "annotations": {"vedette.dev/project-name": title} if title else {},
        },
        "spec": {},
        "status": {"phase": "Active"},
    }


class _Namespaces(ChangeFeed):
    """Projects as namespaces: what the selector looks at is the namespace."""

    def _matches(self, key: Key, version: Version, memo: Memo) -> bool:
        return _holds(self.selector, _of_project(msgspec.json.decode(version.tenant_form())))


async def _watch(needs: Needs, request: web.Request, selector: Selector, form: str, known: Any) -> web.StreamResponse:
    query = request.query
    feed = _Namespaces(await _told_by(needs, request), selector, _FORMS[form])
    bookmarks = flag(query, "allowWatchBookmarks")
    after = revision_of(query.get("resourceVersion", ""))
    timeout = timeout_of(query)
    wants_initial = query.get("sendInitialEvents", "")
    initial = None
    if truthy(wants_initial) or (not wants_initial and after == 0):
        after, found = await known(request)
        bodies = [msgspec.json.encode(item) for _, item in sorted(found.items()) if _holds(selector, item)]
        initial = _initial(feed, bodies, feed.bookmark(after, True) if bookmarks else b"")
    return await stream(
        needs, request, feed,
        after=after or needs.store.head, content_type="application/json", bookmarks=bookmarks, initial=initial, timeout=timeout,
    )  # fmt: skip


async def _initial(feed: ChangeFeed, bodies: list[bytes], end: bytes) -> AsyncIterator[bytes]:
    key = Key("", "", "Namespace", "")
    yield b"".join(_LINES[feed.form.name]("ADDED", key, body) for body in bodies) + end


_LINES: dict[str, Callable[[str, Key, bytes], bytes]] = {
    "namespaces/json": json_event,
    "namespaces/table": table_event(NAMESPACE, "Metadata"),
    "namespaces/partial": partial_event,
}
"""Each form's line of a namespace."""


def _form(name: str, bookmark: Callable[[int, bool], bytes]) -> Form:
    line = _LINES[name]

    def of_project(verb: str, key: Key, body: bytes) -> bytes:
        return line(verb, key, msgspec.json.encode(_of_project(msgspec.json.decode(body))))

    return Form(name, of_project, bookmark)


_FORMS = {
    "json": _form("namespaces/json", bookmark_of("v1", "Namespace")),
    "table": _form("namespaces/table", table_bookmark(NAMESPACE)),
    "partial": _form("namespaces/partial", bookmark_of("meta.k8s.io/v1", "PartialObjectMetadata")),
}


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
