"""Get, list and watch of every kind: `/apis/{group}/v1[/namespaces/{project}]/{plural}[/{name}]`, also per source.

The protocol is Kubernetes' own (kubernetes.io/docs/reference/using-api/api-concepts). A namespace is a project's id; `no-project`
holds what has none. Objects of a Kubernetes source are under `/clusters/{source}/apis/{group}/{version}` and `/api/v1` there, in
the namespaces that they have at their origin.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing

import msgspec
from aiohttp import web

from vedette.api import clusters
from vedette.api.accept import Accepted, accepted, truthy
from vedette.api.clusters import Served
from vedette.api.server import IDENTITY, Needs
from vedette.api.streams import send, stream
from vedette.api.table import columns, partial, row
from vedette.engine.watch import ChangeFeed, Form, Memo
from vedette.errors import BadRequest, Invalid, NotFound
from vedette.model.change import Version
from vedette.model.fold import NO_PROJECT, id_of
from vedette.model.reading import VEDETTE, VEDETTE_SOURCE, Key
from vedette.model.selector import Selector
from vedette.model.selector import parse as parse_selector
from vedette.ports import Kind, Selection

PAGE = 500
MOST = 10_000
"""Objects a page with `limit` may have; without a limit a list is streamed."""
LONGEST_WATCH = 31 * 86_400
"""Seconds that `timeoutSeconds` can ask for."""
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")


def routes(needs: Needs) -> list[web.RouteDef]:
    async def served(request: web.Request) -> Served:
        path = request.match_info
        found = await clusters.served(needs, request, path.get("group", ""), path.get("version", "v1"), path["plural"])
        if "namespace" in path and not found.namespaced:
            raise NotFound(NO_SUCH)
        return found

    async def some(request: web.Request) -> web.StreamResponse:
        return await many(needs, request, await served(request))

    async def single(request: web.Request) -> web.StreamResponse:
        found = await served(request)
        if found.namespaced and "namespace" not in request.match_info:
            raise NotFound(NO_SUCH)
        return await one(needs, request, found)

    cluster = "/clusters/{source}"
    return [
        web.get(base + path, handler, allow_head=False)
        for base in ("/apis/{group}/v1", f"{cluster}/apis/{{group}}/{{version}}", f"{cluster}/api/{{version}}")
        for path, handler in (
            ("/{plural}", some),
            ("/namespaces/{namespace}/{plural}", some),
            ("/namespaces/{namespace}/{plural}/{name}", single),
            ("/{plural}/{name}", single),
        )
    ]


NO_SUCH = "the server could not find the requested resource"


async def many(needs: Needs, request: web.Request, served: Served) -> web.StreamResponse:
    """A list or a watch."""
    asked = _asked(needs, request, served)
    return await (_watch if asked.watch else _list)(needs, request, asked)


async def one(needs: Needs, request: web.Request, served: Served) -> web.StreamResponse:
    asked = _asked(needs, request, served)
    name = request.match_info["name"]
    # Its namespace is part of the selection, for an object of another API server part of its id.
    id_ = _id_at_origin(request.match_info.get("namespace"), name) if served.whole else id_of(name)
    page = await needs.store.objects(msgspec.structs.replace(asked.selection, id=id_, prefix=""), limit=1)
    if not page.items:
        raise NotFound(f'{served.called} "{name}" not found')
    body = asked.form(page.items[0][1])
    if asked.accepted.form == "table":
        table = _table(asked, [row(asked.kind, body, asked.include)], {"resourceVersion": str(page.items[0][1].revision)})
        return _json(msgspec.json.encode(table))
    return _json(partial(body) if asked.accepted.form == "partial" else body)


class _Asked(msgspec.Struct, frozen=True):
    """A request, understood."""

    served: Served
    selection: Selection
    selector: Selector
    accepted: Accepted
    include: str
    watch: bool

    @property
    def kind(self) -> Kind:
        return self.served.kind

    def form(self, version: Version) -> bytes:
        """The object as this caller may see it."""
        return version.admin_form() if self.selection.scope.admin else version.tenant_form()

    def item(self, version: Version) -> bytes:
        """The same as an item of the list that was asked for."""
        body = self.form(version)
        if self.accepted.form == "table":
            return msgspec.json.encode(row(self.kind, body, self.include))
        return partial(body) if self.accepted.form == "partial" else body


def _source(needs: Needs, request: web.Request, kind: Kind) -> str:
    """The source of what is asked for; "": of all of them. What Vedette itself owns has no default source: it is ours, not what
    another Vedette has of the kind; and what there is in clusters is told of each."""
    if kind.group != VEDETTE or "source" in request.match_info:
        return clusters.source_of(needs, request)
    return "" if kind.kind == clusters.RESOURCE else VEDETTE_SOURCE


def _asked(needs: Needs, request: web.Request, served: Served) -> _Asked:
    query = request.query
    selector = parse_selector(query.get("labelSelector", ""), query.get("fieldSelector", ""), whole=served.whole)
    namespace = request.match_info.get("namespace")
    if namespace is None and selector.namespace is not None:
        namespace = selector.namespace  # `metadata.namespace=` is the same question, and the store can use it
    kind = served.kind
    selection = Selection(
        scope=request[IDENTITY].scope,
        group=kind.group,
        kind=kind.kind,
        source=_source(needs, request, kind),
    )
    if served.whole:
        id_ = prefix = ""
        if selector.name is not None and (namespace is not None or not served.namespaced):
            id_ = _id_at_origin(namespace if served.namespaced else None, selector.name)
        elif namespace is not None and served.namespaced:
            prefix = f"{namespace}/"
        selection = msgspec.structs.replace(selection, id=id_, prefix=prefix)
    else:
        selection = msgspec.structs.replace(
            selection,
            project=None if namespace is None else "" if namespace == NO_PROJECT else namespace,
            id=id_of(selector.name) if selector.name is not None else "",
        )
    include = query.get("includeObject", "Metadata")
    if include not in ("None", "Metadata", "Object"):
        raise BadRequest(f"includeObject must be None, Metadata or Object, not {include[:40]!a}")
    return _Asked(
        served=served,
        selection=selection,
        selector=selector,
        accepted=accepted(request.headers.get("Accept", "")),
        include=include,
        watch=flag(query, "watch"),
    )


def _id_at_origin(namespace: str | None, name: str) -> str:
    return name if namespace is None else f"{namespace}/{name}"


# --- list ------------------------------------------------------------------------------------------------------------------


async def _list(needs: Needs, request: web.Request, asked: _Asked) -> web.StreamResponse:
    limit = _integer(request.query.get("limit", ""), "limit")
    revision, after = await _start(needs, request)
    pages = _pages(needs, asked, revision, after, min(limit, MOST) if limit > 0 else 0)
    if limit > 0:
        items: list[bytes] = []
        token = ""
        async for part in pages:
            items += part.items
            revision, token = part.revision, part.token
        return _json(_opening(asked, {"resourceVersion": str(revision), "continue": token}) + b",".join(items) + b"]}")
    # Without a limit: streamed page by page, so 100,000 objects cost no more memory than 500.
    async with aclosing(pages):
        first = await anext(pages)
        response = web.StreamResponse()
        response.content_type = "application/json"
        await response.prepare(request)
        opening = _opening(asked, {"resourceVersion": str(first.revision), "continue": ""})
        await send(needs, response, opening + b",".join(first.items))
        some = bool(first.items)
        async for part in pages:
            if part.items:
                await send(needs, response, (b"," if some else b"") + b",".join(part.items))
                some = True
    await send(needs, response, b"]}")
    await response.write_eof()
    return response


def _opening(asked: _Asked, metadata: dict[str, str]) -> bytes:
    """A list, up to its first item."""
    if asked.accepted.form == "table":
        return msgspec.json.encode(_table(asked, [], metadata))[:-2]
    if asked.accepted.form == "partial":
        head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "items": []}
    else:
        version = asked.served.api_version
        head = {"kind": f"{asked.kind.kind}List", "apiVersion": version, "metadata": metadata, "items": []}
    return msgspec.json.encode(head)[:-2]


class _Part(msgspec.Struct, frozen=True):
    revision: int
    items: list[bytes]
    token: str


async def _pages(
    needs: Needs, asked: _Asked, revision: int, after: tuple[str, str] | None, limit: int
) -> AsyncGenerator[_Part, None]:
    """The selected objects as of one revision, in the caller's form, at most `limit` (0: all), page by page."""
    feed = ChangeFeed(asked.selection, asked.selector, _form(asked))
    left = limit
    while True:
        # A selector that looks into bodies may throw most of a page away; then whole pages are read until the limit is met.
        size = min(PAGE, left) if left and asked.selector.everything else PAGE
        page = await needs.store.objects(asked.selection, revision=revision, after=after, limit=size)
        revision, after = page.revision, page.after
        items: list[bytes] = []
        token = ""
        for index, (key, version) in enumerate(page.items):
            if asked.selector.everything or feed.holds(key, version, Memo()):
                items.append(asked.item(version))
                if left and len(items) == left:
                    if index + 1 < len(page.items) or after is not None:
                        token = _token(revision, (key.source, key.id))
                    after = None
                    break
        left -= len(items) if left else 0
        yield _Part(revision, items, token)
        if after is None:
            return


async def _start(needs: Needs, request: web.Request) -> tuple[int, tuple[str, str] | None]:
    """As of which revision (0: now), and after which object. Raises Expired, BadRequest, Invalid."""
    query = request.query
    text, match, token = query.get("resourceVersion", ""), query.get("resourceVersionMatch", ""), query.get("continue", "")
    if token:
        if text not in ("", "0"):
            raise BadRequest("specifying resource version is not allowed when using continue")
        return _from_token(token)
    revision = revision_of(text)
    if match not in ("", "Exact", "NotOlderThan"):
        raise _bad_match(f"must be Exact or NotOlderThan, not {match[:40]!a}")
    if match and not text:
        raise _bad_match("is forbidden unless resourceVersion is provided")
    if match == "Exact":
        if revision == 0:
            raise _bad_match('is forbidden with resourceVersion "0"')
        await needs.hub.check_place(revision)
        return revision, None
    if revision > needs.store.head:
        await needs.hub.check_place(revision)
    return 0, None


def _token(revision: int, after: tuple[str, str]) -> str:
    body = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": "\0".join(after)})
    return base64.urlsafe_b64encode(body).decode().rstrip("=")


class _Continue(msgspec.Struct):
    v: str
    rv: int
    start: str


def _from_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        place = msgspec.json.decode(raw, type=_Continue)
        source, id_ = place.start.split("\0", 1)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        raise BadRequest("continue key is not valid: take it from metadata.continue of the page before") from None
    if place.v != "meta.k8s.io/v1" or place.rv <= 0:
        raise BadRequest("continue key is not valid: take it from metadata.continue of the page before")
    return place.rv, (source, id_)


# --- watch -----------------------------------------------------------------------------------------------------------------


async def _watch(needs: Needs, request: web.Request, asked: _Asked) -> web.StreamResponse:
    query = request.query
    revision = revision_of(query.get("resourceVersion", ""))
    bookmarks = flag(query, "allowWatchBookmarks")
    match, wants_initial = query.get("resourceVersionMatch", ""), query.get("sendInitialEvents", "")
    if wants_initial and match != "NotOlderThan":
        raise _bad_match("must be NotOlderThan when sendInitialEvents is given")
    if match and not wants_initial:
        raise _bad_match("is forbidden for watch unless sendInitialEvents is provided")
    timeout = timeout_of(query)
    feed = ChangeFeed(asked.selection, asked.selector, _form(asked))
    initial: AsyncIterator[bytes] | None = None
    if (wants_initial and truthy(wants_initial)) or (not wants_initial and revision == 0):
        after = needs.store.head
        if revision > after:
            await needs.hub.check_place(revision)
            after = needs.store.head
        initial = initial_events(needs, feed, after, end=bookmarks)
    else:
        after = revision or needs.store.head
    return await stream(
        needs, request, feed,
        after=after, content_type="application/json", bookmarks=bookmarks, initial=initial, timeout=timeout,
    )  # fmt: skip


async def initial_events(needs: Needs, feed: ChangeFeed, at: int, *, end: bool) -> AsyncIterator[bytes]:
    """ADDED for every object as of `at`, then the bookmark that says so."""
    after: tuple[str, str] | None = None
    while True:
        page = await needs.store.objects(feed.selection, revision=at, after=after, limit=PAGE)
        memo = Memo()
        part = b"".join(
            memo.line(feed.form, "ADDED", key, version, feed.admin)
            for key, version in page.items
            if feed.holds(key, version, memo)
        )
        if part:
            yield part
        after = page.after
        if after is None:
            break
    if end:
        yield feed.bookmark(at, True)


def _form(asked: _Asked) -> Form:
    kind = asked.kind
    # Another Vedette's ports have no columns of their own, ours do: lines of one form are written once for all who want it.
    name = f"{asked.served.api_version}/{kind.kind}/{'whole' if asked.served.whole else 'ours'}"
    if asked.accepted.form == "table":
        return Form(f"table/{name}/{asked.include}", table_event(kind, asked.include), table_bookmark(kind))
    if asked.accepted.form == "partial":
        return Form(f"partial/{name}", partial_event, bookmark_of("meta.k8s.io/v1", "PartialObjectMetadata"))
    return Form(f"json/{name}", json_event, bookmark_of(asked.served.api_version, kind.kind))


def json_form(kind: Kind) -> Form:
    """Whole objects of ours, one event a line."""
    return Form(f"json/{kind.group}/v1/{kind.kind}/ours", json_event, bookmark_of(f"{kind.group}/v1", kind.kind))


def json_event(verb: str, key: Key, body: bytes) -> bytes:
    return b'{"type":"%b","object":%b}\n' % (verb.encode(), body)


def partial_event(verb: str, key: Key, body: bytes) -> bytes:
    return json_event(verb, key, partial(body))


def bookmark_of(api_version: str, kind: str) -> Callable[[int, bool], bytes]:
    """A BOOKMARK: nothing but a place to resume from."""

    def line(revision: int, initial_end: bool) -> bytes:
        metadata: dict[str, object] = {"resourceVersion": str(revision)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        event = {"type": "BOOKMARK", "object": {"apiVersion": api_version, "kind": kind, "metadata": metadata}}
        return msgspec.json.encode(event) + b"\n"

    return line


def table_event(kind: Kind, include: str) -> Callable[[str, Key, bytes], bytes]:
    definitions = columns(kind)

    def line(verb: str, key: Key, body: bytes) -> bytes:
        rows = [row(kind, body, include)]
        # Every event has the column definitions (a real server: the first one only), so that events are the same for all.
        table = {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": {}, "columnDefinitions": definitions, "rows": rows}
        return msgspec.json.encode({"type": verb, "object": table}) + b"\n"

    return line


def table_bookmark(kind: Kind) -> Callable[[int, bool], bytes]:
    definitions = columns(kind)

    def line(revision: int, initial_end: bool) -> bytes:
        place = {"resourceVersion": str(revision)}
        metadata: dict[str, object] = dict(place)
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        held = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata}
        table = {
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": place, "columnDefinitions": definitions,
            "rows": [{"cells": [""] * len(definitions), "object": held}],
        }  # fmt: skip
        return msgspec.json.encode({"type": "BOOKMARK", "object": table}) + b"\n"

    return line


# --- small things ----------------------------------------------------------------------------------------------------------


def _table(asked: _Asked, rows: Sequence[object], metadata: dict[str, str]) -> dict[str, object]:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": columns(asked.kind),
        "rows": rows,
    }


def _json(body: bytes) -> web.Response:
    return web.Response(body=body, content_type="application/json")


def _bad_match(what: str) -> Invalid:
    return Invalid("resourceVersionMatch", what)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A boolean parameter, false when it is absent or empty."""
    text = query.get(name, "")
    return bool(text) and truthy(text)


def _integer(text: str, name: str) -> int:
    if not text:
        return 0
    if not _WHOLE.fullmatch(text):
        raise BadRequest(f"{name} must be a whole number, not {text[:40]!a}")
    return int(text)


def timeout_of(query: Mapping[str, str]) -> float | None:
    """`timeoutSeconds`: None for no end (0, or none). Below 0 ends at once, as a real server does. Raises BadRequest."""
    seconds = _integer(query.get("timeoutSeconds", ""), "timeoutSeconds")
    return None if seconds == 0 else float(min(max(0, seconds), LONGEST_WATCH))


def revision_of(text: str) -> int:
    """A `resourceVersion`; 0 for none. Raises BadRequest."""
    if not text:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BadRequest(f"resourceVersion must be one that this server gave, not {text[:40]!a}")
    return int(text)
