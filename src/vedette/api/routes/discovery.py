"""`/api`, `/apis`, `/openapi`, `/version`: what a client reads before it asks for anything. Also under `/clusters/{source}`.

The documents are made once from the kinds; what answers here are bytes. With and without a trailing slash: kr8s asks `/version/`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from aiohttp import web

from vedette.api import discovery, openapi
from vedette.api.accept import JSON, media_types, not_acceptable
from vedette.ports import Kind

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Served(Protocol):
    """The part of `server.Needs` that these routes use."""

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Every kind that is served."""
        ...


def routes(needs: Served) -> list[web.RouteDef]:
    kinds = needs.kinds
    found: dict[str, Handler] = {
        "/version": _document(discovery.version()),
        "/api": _groups(discovery.api_versions(), kinds, core=True),
        "/api/v1": _document(discovery.core_resources()),
        "/apis": _groups(discovery.group_list(kinds), kinds, core=False),
        # A client that asks for protobuf alone is told so (406), not given bytes that it can't read.
        "/openapi/v2": _document(openapi.v2(kinds)),
    }
    hashes: dict[str, str] = {}
    for group in ("", *discovery.groups(kinds)):
        path = f"apis/{group}/v1" if group else "api/v1"
        document = openapi.v3(kinds, group)
        hashes[path] = hashlib.sha256(msgspec.json.encode(document)).hexdigest()[:32].upper()
        found[f"/openapi/v3/{path}"] = _document(document, cached=hashes[path])
        if group:
            found[f"/apis/{group}"] = _document(discovery.group(group))
            found[f"/apis/{group}/v1"] = _document(discovery.resources(kinds, group))
    # The addresses in it begin with /openapi/v3; clients put the prefix that they came by before it (kubernetes issue 117463).
    found["/openapi/v3"] = _document(openapi.v3_paths(kinds, hashes))
    return [
        web.get(prefix + path + slash, handler)
        for prefix in ("", "/clusters/{source}")
        for path, handler in found.items()
        for slash in ("", "/")
    ]


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


def _groups(plain: dict[str, Any], kinds: Sequence[Kind], *, core: bool) -> Handler:
    """The plain document, or the aggregated one for a client that names it first."""
    otherwise = _document(plain)
    forms = {
        ("APIGroupDiscoveryList", "apidiscovery.k8s.io", version): (
            discovery.aggregated_type(version),
            msgspec.json.encode(discovery.aggregated(kinds, version, core=core)),
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
