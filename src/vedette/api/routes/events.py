"""The notices themselves, as CloudEvents 1.0: `GET /v1/events`, NDJSON or Server-Sent Events.

`?after=<revision>` (0: from the oldest there is; absent: from now), `type=` (fnmatch patterns, comma separated), `source`,
`project`, `kind`, `id`, `filter=` (a condition, engine/conditions.py), `since=` (RFC 3339 or `15m`), `follow=false` ends at the
newest. As SSE, `id:` is the revision and `Last-Event-ID` resumes. Tenants get the events of their own projects' objects, without
what tells of hosts; their filter sees no more.
(CloudEvents: github.com/cloudevents/spec, v1.0.2; SSE: html.spec.whatwg.org §9.2)
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.accept import accepted, truthy
from vedette.api.server import IDENTITY, Needs
from vedette.api.status import error_event
from vedette.api.streams import send, stream
from vedette.api.when import is_revision, moment
from vedette.engine.conditions import compile
from vedette.engine.watch import Filter, NoticeFeed
from vedette.errors import BadRequest, ConfigError
from vedette.model import cloudevent
from vedette.model.fold import NO_PROJECT
from vedette.ports import Appended, Kind, Scope, Selection

_HOSTLY = re.compile(
    r"host|hypervisor|(^|_)node$|_compute$|^launched_on$|^(cell|cell_name|instance_name|reservation_id)$"
    r"|^binding|^provider|^OS-EXT-SRV-ATTR:|^publisher|(^|_)ip_path$|^connect(or|ion_info)$|^migrating_to$"
    r"|^(traceback|exception|details|migration_context|request_spec|resource_request|hints|projects)$",
    re.I,
)
"""Fields of a payload that OpenStack shows admins only: where things run, and the inside of an error."""


def routes(needs: Needs) -> list[web.RouteDef]:
    kinds = {name: kind for kind in needs.kinds for name in (kind.singular, kind.plural, kind.kind.lower(), *kind.short_names)}

    async def events(request: web.Request) -> web.StreamResponse:
        query = request.query
        scope = request[IDENTITY].scope
        sse = accepted(request.headers.get("Accept", "")).sse
        selection = _selection(needs, request, kinds)
        types = tuple(sorted({part.strip() for part in query.get("type", "").split(",") if part.strip()}))
        if len(types) > 32:
            raise BadRequest("at most 32 types")
        types = tuple(name.removeprefix("openstack.") for name in types)
        render = _render(sse, scope)
        form = f"events/{'sse' if sse else 'ndjson'}"
        feed = NoticeFeed(form, selection, types, render, _bookmark(sse), _filter(query.get("filter", "")))
        after = await _after(needs, request)
        if query.get("follow", "") and not truthy(query["follow"]):
            return await _until_now(needs, request, feed, after, sse)
        return await stream(
            needs, request, feed,
            after=after, content_type="text/event-stream" if sse else "application/x-ndjson", bookmarks=True,
            error_line=_sse_error if sse else error_event,
        )  # fmt: skip

    return [web.get("/v1/events", events, allow_head=False)]


async def _until_now(needs: Needs, request: web.Request, feed: NoticeFeed, after: int, sse: bool) -> web.StreamResponse:
    await needs.hub.check_place(after)
    end = needs.store.head
    response = web.StreamResponse(headers={"Cache-Control": "no-cache, private"})
    response.content_type = "text/event-stream" if sse else "application/x-ndjson"
    await response.prepare(request)
    while after < end:
        found, after = await needs.store.entries(after, types=feed.types, selection=feed.selection, limit=200, before=end)
        part = await feed.told_all(found)
        if part:
            await send(needs, response, part)
    await response.write_eof()
    return response


def _selection(needs: Needs, request: web.Request, kinds: dict[str, Kind]) -> Selection:
    query = request.query
    kind = None
    if query.get("kind"):
        kind = kinds.get(query["kind"].lower())
        if kind is None:
            raise BadRequest(f"no kind is called {query['kind'][:80]!a}")
    project = query.get("project")
    source = query.get("source", "")
    if source and source not in needs.source_names:
        raise BadRequest(f"no source is called {source[:80]!a}; there are: {', '.join(needs.source_names)}")
    return Selection(
        scope=request[IDENTITY].scope,
        group=kind.group if kind else "",
        kind=kind.kind if kind else "",
        source=source,
        project=None if project is None else "" if project == NO_PROJECT else project,
        id=query.get("id", ""),
    )


def _filter(text: str) -> Filter | None:
    if not text.strip():
        return None
    try:
        return Filter(compile(text, path="filter", stranger=True), for_tenants)
    except ConfigError as why:
        raise BadRequest(str(why)) from None


async def _after(needs: Needs, request: web.Request) -> int:
    text = request.headers.get("Last-Event-ID") or request.query.get("after", "")
    since = request.query.get("since", "")
    if text:
        if not is_revision(text):
            raise BadRequest(f"after must be a revision, not {text[:40]!a}")
        return int(text) or needs.store.oldest
    if since:
        return await needs.store.revision_at(moment(since, needs.clock.now_us(), "since"))
    return needs.store.head


def cloud_event(appended: Appended, scope: Scope) -> bytes:
    """One CloudEvent in JSON: admins see the payload and its publisher as they came, tenants without what tells of hosts."""
    entry = appended.entry
    return cloudevent.of_notice(
        entry.notice,
        revision=entry.revision,
        appended_at=entry.appended_at,
        subject=next((cloudevent.subject(reading.kind, reading.id) for reading in entry.readings), None),
        data=None if scope.admin else msgspec.Raw(for_tenants(entry.notice.payload)),
        publisher=scope.admin,
    )


def for_tenants(payload: msgspec.Raw) -> bytes:
    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shown(item) for name, item in value.items() if not _HOSTLY.search(name)}
        if isinstance(value, list):
            return [shown(item) for item in value]
        return value

    return msgspec.json.encode(shown(msgspec.json.decode(payload)))


def _render(sse: bool, scope: Scope) -> Callable[[Appended], bytes]:
    def ndjson(appended: Appended) -> bytes:
        return cloud_event(appended, scope) + b"\n"

    def server_sent(appended: Appended) -> bytes:
        return b"id: %d\ndata: %b\n\n" % (appended.entry.revision, cloud_event(appended, scope))

    return server_sent if sse else ndjson


def _bookmark(sse: bool) -> Callable[[int], bytes]:
    """A place to resume from: an SSE event without data only moves Last-Event-ID; in NDJSON a line of its own type."""
    if sse:
        return lambda revision: b"id: %d\n: bookmark\n\n" % revision
    return lambda revision: (
        b'{"specversion":"1.0","type":"vedette.bookmark","id":"%d","source":"/","revision":"%d"}\n'
        % (
            revision,
            revision,
        )
    )


def _sse_error(why: Exception) -> bytes:
    return b"event: error\ndata: %b\n\n" % error_event(why).strip()
