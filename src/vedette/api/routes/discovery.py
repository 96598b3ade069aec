"""`/api`, `/apis`, `/openapi`, `/version`: what a client reads before it asks for anything. Also under `/clusters/{source}`.

The documents are made once from the kinds, those of a Kubernetes source when what it has changes; what answers here are bytes.
With and without a trailing slash: kr8s asks `/version/`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from vedette.api import clusters, discovery, openapi
from vedette.api.accept import JSON, media_types, not_acceptable
from vedette.api.server import Needs
from vedette.errors import NotFound
from vedette.ports import Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(needs: Needs) -> list[web.RouteDef]:
    kinds = needs.kinds
    ours = clusters.with_namespaces(tuple(discovery.of_kind(kind) for kind in kinds))
    schemas = _schemas(kinds)
    found = {**_documents(ours), **schemas}

    async def of_cluster(request: web.Request) -> web.StreamResponse:
        """The same of one source, or of all: what is there may change with every entry."""
        source = request.match_info["source"]
        documents = found
        if source == "*":
            words = {(one.group, one.version, one.plural) for one in ours}
            theirs = await clusters.resources(needs.store, "")
            more = tuple(one for one in theirs if (one.group, one.version, one.plural) not in words)
            documents = {**found, **_documents((*ours, *more)), **schemas} if more else found
        elif await clusters.is_kubernetes(needs, source):
            documents = _documents(clusters.with_namespaces(await clusters.resources(needs.store, source)))
        answer = documents.get("/" + request.match_info["document"].rstrip("/"))
        if answer is None:
            raise NotFound("the server could not find the requested resource")
        return await answer(request)

    return [
        *(web.get(path + slash, handler) for path, handler in found.items() for slash in ("", "/")),
        web.get(f"/clusters/{{source}}/{{document:{_DOCUMENTS}}}", of_cluster),
    ]


_DOCUMENTS = "(?:version|api(?:/[^/]+)?|apis(?:/[^/]+)?(?:/[^/]+)?|openapi/v2|openapi/v3(?:/.+)?)/?"


def _schemas(kinds: Sequence[Kind]) -> dict[str, Handler]:
    """What our own kinds look like; of another API server's only the names are known."""
    # A client that asks for protobuf alone is told so (406), not given bytes that it can't read.
    found = {"/openapi/v2": _document(openapi.v2(kinds))}
    hashes: dict[str, str] = {}
    for group in ("", *discovery.groups(kinds)):
        path = f"apis/{group}/v1" if group else "api/v1"
        document = openapi.v3(kinds, group)
        hashes[path] = hashlib.sha256(msgspec.json.encode(document)).hexdigest()[:32].upper()
        found[f"/openapi/v3/{path}"] = _document(document, cached=hashes[path])
    # The addresses in it begin with /openapi/v3; clients put the prefix that they came by before it (kubernetes issue 117463).
    found["/openapi/v3"] = _document(openapi.v3_paths(kinds, hashes))
    return found


@functools.lru_cache(maxsize=16)
def _documents(there: tuple[discovery.Resource, ...]) -> dict[str, Handler]:
    """What there is, by the documents' paths. Made anew only when that has changed."""
    found: dict[str, Handler] = {
        "/version": _document(discovery.version()),
        "/api": _groups(discovery.api_versions(), there, core=True),
        "/apis": _groups(discovery.group_list(there), there, core=False),
        "/openapi/v2": _document(openapi.nothing_v2()),
        "/openapi/v3": _document({"paths": {}}),
    }
    for group in ("", *discovery.groups(there)):
        if group:
            found[f"/apis/{group}"] = _document(discovery.group(there, group))
        for version in discovery.versions(there, group):
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            found[path] = _document(discovery.resources(there, group, version))
    return found


def _document(document: dict[str, Any], *, cached: str = "") -> Handler:
    """Answers always the same; `cached` is a hash that, given as `?hash=`, may be kept for ever."""
    body = msgspec.json.encode(document)

    async def answer(request: web.Request) -> web.Response:
        accept = request.headers.get("Accept", "")
        if accept.strip() and not any(media.covers(JSON) and not media.transform() for media in media_types(accept)):
            raise not_acceptable((JSON,))
        headers = (
            {"Cache-Control": "private, max-age=31536000, immutable"} if cached and request.query.get("hash") == cached else {}
        )
        return web.Response(body=body, content_type=JSON, headers=headers)

    return answer


def _groups(plain: dict[str, Any], there: Sequence[discovery.Resource], *, core: bool) -> Handler:
    """The plain document, or the aggregated one for a client that names it first."""
    otherwise = _document(plain)
    forms = {
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", version): (
            discovery.aggregated_type(version),
            msgspec.json.encode(discovery.aggregated(there, version, core=core)),
        )
        for version in ("v2", "v2beta1")
    }

    async def answer(request: web.Request) -> web.StreamResponse:
        for media in media_types(request.headers.get("Accept", "")):
            transform = media.transform()
            if media.covers(JSON) and transform in forms:
                type_, body = forms[transform]
                return web.Response(body=body, headers={"Content-Type": type_, "Vary": "Accept"})
            if media.covers(JSON) and transform is None:
                break
        return await otherwise(request)

    return answer
