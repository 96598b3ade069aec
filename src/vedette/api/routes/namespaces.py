"""Core `/api/v1/namespaces`: the projects that the caller sees, so that kubectl, kopf and dashboards find their way.

List and get are the projects that have an object now and those of the kind Project; a watch tells what happens to the latter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.accept import accepted
from vedette.api.discovery import NAMESPACE
from vedette.api.routes.objects import bookmark_of, flag
from vedette.api.server import IDENTITY, Needs
from vedette.api.streams import stream
from vedette.api.table import partial, row, table
from vedette.engine.watch import ChangeFeed, Form
from vedette.errors import NotFound
from vedette.model.fold import NO_PROJECT
from vedette.model.reading import OPENSTACK, Key
from vedette.model.selector import parse as parse_selector
from vedette.ports import Selection


def routes(needs: Needs) -> list[web.RouteDef]:
    async def known(request: web.Request) -> tuple[int, dict[str, dict[str, Any]]]:
        """Every namespace the caller sees, by name; as of a revision."""
        scope = request[IDENTITY].scope
        revision = needs.store.head
        names = set(await needs.store.projects()) | {NO_PROJECT} if scope.admin else set(scope.projects)
        found = {name: _namespace(name, "", str(needs.store.oldest), "1970-01-01T00:00:00Z") for name in names if name}
        after: tuple[str, str] | None = None
        while True:
            page = await needs.store.objects(_projects(request), revision=revision, after=after)
            for key, version in page.items:
                found[key.id] = _of_project(msgspec.json.decode(version.tenant_form()))
            after = page.after
            if after is None:
                return revision, found

    async def many(request: web.Request) -> web.StreamResponse:
        query = request.query
        selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""))
        if flag(query, "watch"):
            return await _watch(needs, request, known)
        revision, found = await known(request)
        items = [
            item for name, item in sorted(found.items()) if selector.matches(name, "", item["metadata"]["labels"], item["status"])
        ]
        metadata = {"resourceVersion": str(revision)}
        form = accepted(request.headers.get("Accept", "")).form
        bodies = [msgspec.json.encode(item) for item in items]
        if form == "table":
            return _json(table(NAMESPACE, [row(NAMESPACE, body) for body in bodies], metadata))
        if form == "partial":
            raw = [msgspec.Raw(partial(body)) for body in bodies]
            head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            return _json({**head, "metadata": metadata, "items": raw})
        return _json({"kind": "NamespaceList", "apiVersion": "v1", "metadata": metadata, "items": items})

    async def one(request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        _, found = await known(request)
        if name not in found:
            raise NotFound(f'namespaces "{name}" not found')
        item = found[name]
        if accepted(request.headers.get("Accept", "")).form == "table":
            return _json(table(NAMESPACE, [row(NAMESPACE, msgspec.json.encode(item))], {}))
        return _json(item)

    return [
        route
        for prefix in ("", "/clusters/{source}")
        for route in (
            web.get(prefix + "/api/v1/namespaces", many, allow_head=False),
            web.get(prefix + "/api/v1/namespaces/{name}", one, allow_head=False),
        )
    ]


def _projects(request: web.Request) -> Selection:
    return Selection(scope=request[IDENTITY].scope, group=OPENSTACK, kind="Project")


def _of_project(project: dict[str, Any]) -> dict[str, Any]:
    metadata, status = project["metadata"], project["status"]
    return _namespace(status["id"], str(status.get("name") or ""), metadata["resourceVersion"], metadata["creationTimestamp"])


def _namespace(name: str, title: str, revision: str, created: str) -> dict[str, Any]:
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


async def _watch(needs: Needs, request: web.Request, known: Any) -> web.StreamResponse:
    query = request.query
    selector = parse_selector("", "")
    feed = ChangeFeed(_projects(request), selector, Form("namespaces", _event, bookmark_of("v1", "Namespace")))
    text = query.get("resourceVersion", "")
    bookmarks = flag(query, "allowWatchBookmarks")
    after = int(text) if text.isascii() and text.isdigit() else 0
    initial = None
    if after == 0:
        after, found = await known(request)
        initial = _initial(list(found.values()), feed.bookmark(after, True) if bookmarks else b"")
    seconds = query.get("timeoutSeconds", "")
    timeout = float(seconds) if seconds.isascii() and seconds.isdigit() and seconds != "0" else None
    return await stream(
        needs, request, feed,
        after=after, content_type="application/json", bookmarks=bookmarks, initial=initial, timeout=timeout,
    )  # fmt: skip


async def _initial(items: list[dict[str, Any]], end: bytes) -> AsyncIterator[bytes]:
    yield b"".join(msgspec.json.encode({"type": "ADDED", "object": item}) + b"\n" for item in items) + end


def _event(verb: str, key: Key, body: bytes) -> bytes:
    return msgspec.json.encode({"type": verb, "object": _of_project(msgspec.json.decode(body))}) + b"\n"


def _json(body: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")
