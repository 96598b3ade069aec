"""A Kubernetes API server in memory, over real HTTP, that behaves like a real one and fails as it is told to.

Any resource can be defined; objects are put, changed and deleted by its methods or over its API. It speaks discovery, lists with
pages, watches with bookmarks, streaming lists, create, the four patches, delete. It forgets (`compact`), cuts, falls silent,
restarts, refuses; `fail` scripts what the next requests get. Every request is remembered in `requests`.

    async with FakeKubernetes(clock) as cluster:
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        cluster.put(routes, "default/web", {"spec": {"host": "web.example.com"}})
        connect_to(cluster.url, cluster.token)
        cluster.cut()
"""

from __future__ import annotations

import asyncio
import base64
import bisect
import json
import ssl
import time
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from email.utils import formatdate
from fnmatch import fnmatchcase
from types import TracebackType
from typing import Any, Literal

import msgspec
from aiohttp import web

from vedette.clients.kubernetes import Resource
from vedette.errors import BadRequest
from vedette.kit.clock import Clock, SystemClock, rfc3339
from vedette.model.selector import Selector, parse
from vedette.ports import JsonObject

REMEMBERED = 100_000
"""Requests that are kept; the oldest go."""
MOST_WATCHERS = 1000
LARGEST_BODY = 3 * 1024 * 1024
"""Bytes of a request, as a real server's default."""

TOKEN = "sha256~fake-token"
USER = "system:serviceaccount:vedette:watcher"

Streaming = Literal["yes", "ignored", "refused", "etcd-3.4"]
"""What a watch with sendInitialEvents gets: what it asked for; what a watch without it would get, bookmarks included; 422; the
ERROR 500 of a server on etcd 3.4."""

_encode = msgspec.json.Encoder().encode


class Asked(msgspec.Struct, frozen=True):
    """One request that was made."""

    method: str
    path: str
    query: Mapping[str, str]
    verb: str
    """get, list, watch, create, patch, delete, or "" for discovery."""
    token: str
    body: Any = None
    content_type: str = ""


class Fault(msgspec.Struct):
    """What the next matching requests get instead of an answer."""

    verb: str
    path: str
    status: int
    """0: the connection is reset; -1: no answer ever."""
    message: str
    reason: str
    retry_after: int | None
    times: int
    plain: bool
    event: JsonObject | None
    """For a watch: 200, then this one line, then a clean end."""
    after: int = 0
    """So many matching requests are answered before."""


class _Event(msgspec.Struct, frozen=True):
    revision: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    key: tuple[str, str]
    now: JsonObject
    before: JsonObject | None


class _Collection:
    """The objects of one resource, every state they had, and its events."""

    def __init__(self, resource: Resource, *, cached: bool, crd: bool) -> None:
        self.resource = resource
        self.cached = cached
        """Whether it has a watch cache: bookmarks, and 410 after a restart."""
        self.crd = crd
        self.states: dict[tuple[str, str], list[tuple[int, JsonObject | None]]] = {}
        self.events: list[_Event] = []
        self.since = 0
        """The oldest revision that a watch may begin from."""

    def at(self, revision: int) -> dict[tuple[str, str], JsonObject]:
        found = {}
        for key in sorted(self.states):
            states = self.states[key]
            index = bisect.bisect_right(states, revision, key=lambda one: one[0])
            if index and (obj := states[index - 1][1]) is not None:
                found[key] = obj
        return found

    def now(self, key: tuple[str, str]) -> JsonObject | None:
        states = self.states.get(key)
        return states[-1][1] if states else None


class _Refused(Exception):
    def __init__(self, status: int, reason: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": more.pop("metadata", {}),
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": status,
            **({"details": more.pop("details")} if "details" in more else {}),
        }
        self.headers: dict[str, str] = more.pop("headers", {})


class FakeKubernetes:
    """See the module."""

    def __init__(
        self,
        clock: Clock | None = None,
        *,
        token: str = TOKEN,
        tls: ssl.SSLContext | None = None,
        revision: int = 100,
    ) -> None:
        """`token` "": everybody is let in."""
        self._clock = clock or SystemClock()
        self._tls = tls
        self.token = token
        self.revision = revision
        self.requests: deque[Asked] = deque(maxlen=REMEMBERED)
        self.faults: list[Fault] = []
        self.denied: set[tuple[str, str]] = set()
        """(verb, plural) that the account may not; ("*", plural) for all verbs."""
        self.streaming: Streaming = "yes"
        self.bookmark_s = 60.0
        """Between two bookmarks of an idle watch; 0: only when `bookmark` is called."""
        self.page_limit = 0
        """The largest page, whatever is asked for; 0: none."""
        self.wakes_for = 0.0
        """Seconds (of the event loop) that each watch collects events for before it writes them."""
        self.hidden_groups: set[str] = set()
        """API groups that are down: 503."""
        self.user = ""
        """Whom it takes the account for; "": the service account, or nobody where everybody is let in."""
        self.ahead_s = 0.0
        """Seconds that its clock, as its answers' Date has it, is ahead of this machine's."""
        self._collections: dict[str, _Collection] = {}
        self._wake = asyncio.Event()
        self._stalled = False
        self._bookmarks = 0
        self._ends = 0
        self._closing = False
        self._open: dict[asyncio.Task[Any], web.Request] = {}
        self._runner: web.AppRunner | None = None
        self._port = 0

    # --- life

    async def __aenter__(self) -> FakeKubernetes:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, why: BaseException | None, at: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; again on the same port after a `stop`."""
        self._closing = False
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(self._date)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1.0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self, *, abruptly: bool = True) -> None:
        """New connections are refused. `abruptly`: open ones end as after kill -9, else cleanly."""
        self._closing = True
        if abruptly:
            self.cut()
        self._notify()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def restart(self, *, abruptly: bool = True) -> None:
        """A new process on the same etcd: what a watch cache had is gone, so older revisions are too old."""
        await self.stop(abruptly=abruptly)
        for collection in self._collections.values():
            if collection.cached:
                collection.since = self.revision
        self._stalled = False
        await self.start()

    @property
    def port(self) -> int:
        return self._port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def watchers(self) -> int:
        """Watches open now."""
        return len(self._open)

    # --- what it serves

    def define(
        self,
        api_version: str,
        plural: str,
        kind: str,
        *,
        namespaced: bool = True,
        short_names: tuple[str, ...] = (),
        categories: tuple[str, ...] = (),
        cached: bool = True,
        crd: bool | None = None,
        root: str = "",
    ) -> Resource:
        """Serve a resource, e.g. `("v1", "pods", "Pod")`. `cached` False: as Events are. `root` `/oapi/v1`: OpenShift 3's."""
        group, _, version = api_version.rpartition("/")
        resource = Resource(
            group=group,
            version=version,
            plural=plural,
            kind=kind,
            namespaced=namespaced,
            singular=kind.lower(),
            short_names=short_names,
            categories=categories,
            verbs=("create", "delete", "get", "list", "patch", "watch"),
            root=root,
        )
        is_crd = bool(group and "." in group and not group.endswith(".k8s.io")) if crd is None else crd
        self._collections[self._root(resource) + "/" + plural] = _Collection(resource, cached=cached, crd=is_crd)
        return resource

    def undefine(self, resource: Resource) -> None:
        """Its CRD is deleted: DELETED for each object, then the watches end, then 404."""
        collection = self._of(resource)
        for key, obj in collection.at(self.revision).items():
            self._record(collection, key, None, obj)
        del self._collections[self._root(resource) + "/" + resource.plural]
        self._notify()

    # --- its objects

    def put(self, resource: Resource, where: str, content: JsonObject | None = None, *, subresource: str = "") -> JsonObject:
        """Create or replace `namespace/name` (or `name`); the object. An update that changes nothing is none. What `content` says
        of metadata is kept; what a server fills in is filled in."""
        collection = self._of(resource)
        namespace, _, name = where.rpartition("/")
        known = collection.now((namespace, name))
        obj: JsonObject = json.loads(json.dumps(content or {}))
        metadata = obj.setdefault("metadata", {})
        metadata.update({"name": name, **({"namespace": namespace} if resource.namespaced else {})})
        return self._store(collection, (namespace, name), obj, known, manager="kubectl", status_only=subresource == "status")

    def remove(self, resource: Resource, where: str) -> JsonObject:
        """Delete an object: its last state, with the deletion's own revision. With finalizers it only begins to go. KeyError."""
        namespace, _, name = where.rpartition("/")
        collection = self._of(resource)
        known = collection.now((namespace, name))
        if known is None:
            raise KeyError(where)
        return self._delete(collection, (namespace, name), known)

    def objects(self, resource: Resource) -> dict[str, JsonObject]:
        """`namespace/name` → the object as it is now."""
        return {_where(key): obj for key, obj in self._of(resource).at(self.revision).items()}

    def rewind(self, revision: int) -> None:
        """etcd is restored from a backup of that revision; everything that is open ends."""
        for collection in self._collections.values():
            for states in collection.states.values():
                del states[bisect.bisect_right(states, revision, key=lambda one: one[0]) :]
            collection.states = {key: states for key, states in collection.states.items() if states}
            collection.events = [event for event in collection.events if event.revision <= revision]
            collection.since = min(collection.since, revision)
        self.revision = revision
        self.cut()

    # --- its faults

    def compact(self, revision: int = 0) -> None:
        """Forget what was before this revision (0: everything until now): watches and lists from there are 410 Expired."""
        for collection in self._collections.values():
            collection.since = max(collection.since, revision or self.revision)

    def cut(self) -> None:
        """End every watch as kill -9 does: no final chunk."""
        for request in list(self._open.values()):
            if request.transport is not None:
                request.transport.abort()

    def end(self) -> None:
        """End every watch cleanly, as a server does at will."""
        self._ends += 1
        self._notify()

    def stall(self) -> None:
        """Keep every connection open and say nothing on it, bookmarks neither; new requests get no answer."""
        self._stalled = True

    def resume(self) -> None:
        self._stalled = False
        self._notify()

    def bookmark(self) -> None:
        """Send one to every watch that asked for them, now."""
        self._bookmarks += 1
        self._notify()

    def revoke(self, plural: str, *verbs: str) -> None:
        """Take rights away: open watches go on, new requests are 403."""
        self.denied.update((verb, plural) for verb in verbs or ("*",))

    def grant(self, plural: str) -> None:
        self.denied = {one for one in self.denied if one[1] != plural}

    def rotate_token(self, token: str) -> None:
        """Only this one is good from now on."""
        self.token = token

    def fail(
        self,
        status: int,
        *,
        verb: str = "*",
        path: str = "*",
        times: int = 1,
        message: str = "",
        reason: str = "",
        retry_after: int | None = None,
        plain: bool = False,
        after: int = 0,
    ) -> None:
        """The next `times` requests of this verb and path (patterns) are answered with `status`; 0: reset, -1: never answered.
        `plain`: with a text instead of a Status. `after`: so many are answered as ever before."""
        self.faults.append(Fault(verb, path, status, message, reason, retry_after, times, plain, None, after))

    def fail_watch(self, status: JsonObject, *, path: str = "*", times: int = 1) -> None:
        """The next watches are answered with 200, an ERROR event with this Status, and a clean end."""
        event = {"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", **status}}
        self.faults.append(Fault("watch", path, 200, "", "", None, times, False, event))

    def asked(self, verb: str, path: str = "*") -> list[Asked]:
        """The requests of this verb, oldest first."""
        return [one for one in self.requests if one.verb == verb and fnmatchcase(one.path, path)]

    # --- requests

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path.rstrip("/") or "/"
        collection, key, subresource = self._find(path)
        query = dict(request.query)
        watching = request.method == "GET" and key[1] == "" and query.get("watch") in ("true", "1")
        verb = _verb(request.method, key[1], watching) if collection is not None else ""
        body = await request.read()
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.requests.append(
            Asked(request.method, path, query, verb, token, msgspec.json.decode(body) if body else None, request.content_type)
        )
        try:
            await self._hurt(request, verb, path)
            if self._stalled:
                await self._until(lambda: not self._stalled)
            if self.token and token != self.token:
                raise _Refused(401, "Unauthorized", "Unauthorized")
            if collection is None:
                return self._review(path, body) if request.method == "POST" else self._discover(path)
            self._check_rights(collection.resource, verb, key[0])
            if watching:
                return await self._watch(request, collection, key[0], query)
            return await self._do(request, collection, key, subresource, query, body)
        except _Scripted as scripted:
            return await _one_line(request, scripted.event)
        except _Refused as why:
            return web.json_response(why.body, status=why.status, headers=why.headers)

    async def _hurt(self, request: web.Request, verb: str, path: str) -> None:
        for fault in list(self.faults):
            if not fnmatchcase(verb, fault.verb) or not fnmatchcase(path, fault.path):
                continue
            if fault.after:
                fault.after -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.faults.remove(fault)
            if fault.event is not None:
                raise _Scripted(fault.event)
            if fault.status == 0:
                assert request.transport is not None
                request.transport.abort()
                await asyncio.sleep(3600)  # (cancelled with its connection)
            if fault.status == -1:
                await self._until(lambda: False)
            headers = {"Retry-After": str(fault.retry_after)} if fault.retry_after is not None else {}
            if fault.plain:
                raise _plain(fault.status, fault.message, headers)
            raise _Refused(fault.status, fault.reason, fault.message or f"scripted {fault.status}", headers=headers)

    async def _date(self, _request: web.Request, response: web.StreamResponse) -> None:
        if self.ahead_s:
            response.headers["Date"] = formatdate(time.time() + self.ahead_s, usegmt=True)

    def _review(self, path: str, body: bytes) -> web.StreamResponse:
        """Who the account is, and what it may."""
        asked = msgspec.json.decode(body, type=dict[str, Any])
        head = {"apiVersion": asked.get("apiVersion"), "kind": asked.get("kind"), "metadata": {"creationTimestamp": None}}
        if path == "/apis/authentication.k8s.io/v1/selfsubjectreviews":
            user = {"username": self.user or (USER if self.token else "system:anonymous")}
            return web.json_response({**head, "status": {"userInfo": user}}, status=201)
        if path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            wanted = asked["spec"]["resourceAttributes"]
            allowed = not self._denies(wanted["resource"], wanted["verb"])
            return web.json_response({**head, "spec": asked["spec"], "status": {"allowed": allowed}}, status=201)
        raise _plain(404, "404 page not found")

    def _denies(self, plural: str, verb: str) -> bool:
        return (verb, plural) in self.denied or ("*", plural) in self.denied

    def _check_rights(self, resource: Resource, verb: str, namespace: str) -> None:
        if self._denies(resource.plural, verb):
            scope = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
            raise _Refused(
                403,
                "Forbidden",
                f'{resource.plural}{"." + resource.group if resource.group else ""} is forbidden: User "{USER}" cannot {verb} '
                f'resource "{resource.plural}" in API group "{resource.group}" {scope}',
            )

    async def _do(
        self,
        request: web.Request,
        collection: _Collection,
        key: tuple[str, str],
        subresource: str,
        query: Mapping[str, str],
        body: bytes,
    ) -> web.StreamResponse:
        namespace, name = key
        resource = collection.resource
        if request.method == "GET" and not name:
            return self._list(collection, namespace, query)
        known = collection.now(key)
        if request.method == "POST" and not name:
            obj = msgspec.json.decode(body, type=dict[str, Any])
            name = obj.get("metadata", {}).get("name", "")
            obj.setdefault("metadata", {})["namespace"] = namespace
            if not resource.namespaced:
                del obj["metadata"]["namespace"]
            if collection.now((namespace, name)) is not None:
                raise _Refused(409, "AlreadyExists", f'{resource.plural} "{name}" already exists')
            return web.json_response(
                self._store(collection, (namespace, name), obj, None, manager="vedette", status_only=False), status=201
            )
        if request.method == "PATCH":
            return self._patch(request, collection, key, subresource, query, body, known)
        if known is None:
            raise _Refused(404, "NotFound", f'{resource.plural} "{name}" not found')
        if request.method == "GET":
            return web.json_response(self._shown(collection, known))
        if request.method == "DELETE":
            return web.json_response(self._delete(collection, key, known))
        raise _Refused(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")

    def _patch(
        self,
        request: web.Request,
        collection: _Collection,
        key: tuple[str, str],
        subresource: str,
        query: Mapping[str, str],
        body: bytes,
        known: JsonObject | None,
    ) -> web.StreamResponse:
        form = request.content_type
        patch = msgspec.json.decode(body)
        applying = form == "application/apply-patch+yaml"
        if known is None and not applying:
            raise _Refused(404, "NotFound", f'{collection.resource.plural} "{key[1]}" not found')
        before: JsonObject = json.loads(json.dumps(known or {"metadata": {"name": key[1], "namespace": key[0]}}))
        if form == "application/strategic-merge-patch+json":
            if collection.crd:
                raise _Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
            after = _merge(before, patch, by_name=True)
        elif form == "application/merge-patch+json":
            after = _merge(before, patch)
        elif applying:
            if "fieldManager" not in query:
                raise _Refused(400, "BadRequest", "fieldManager is required for apply patch")
            after = _merge(before, patch)
        elif form == "application/json-patch+json":
            after = _json_patch(before, patch)
        else:
            raise _Refused(415, "UnsupportedMediaType", "the body of the request was in an unknown format")
        wanted = patch.get("metadata", {}).get("resourceVersion") if isinstance(patch, dict) else None
        if wanted and known is not None and wanted != known["metadata"]["resourceVersion"]:
            raise _Refused(409, "Conflict", "the object has been modified; please apply your changes to the latest version")
        manager = query.get("fieldManager", "vedette")
        stored = self._store(collection, key, after, known, manager=manager, status_only=subresource == "status")
        return web.json_response(self._shown(collection, stored), status=200 if known is not None else 201)

    def _list(self, collection: _Collection, namespace: str, query: Mapping[str, str]) -> web.StreamResponse:
        selector = _selector(query)
        limit = int(query.get("limit", "0") or 0)
        if self.page_limit:
            limit = min(limit or self.page_limit, self.page_limit)
        revision, start = self.revision, ("", "")
        asked = query.get("resourceVersion", "")
        if asked not in ("", "0"):
            if not asked.isdecimal():
                raise _Refused(400, "BadRequest", f"invalid resource version {asked}")
            if int(asked) > self.revision:
                raise _Refused(
                    504,
                    "Timeout",
                    f"Timeout: Too large resource version: {asked}, current: {self.revision}",
                    details={"retryAfterSeconds": 1, "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large"}]},
                    headers={"Retry-After": "1"},
                )
            if query.get("resourceVersionMatch") == "Exact":
                revision = int(asked)
                if revision < collection.since:
                    raise _Refused(410, "Expired", "The resourceVersion for the provided list is too old.")
        if asked == "0" and collection.cached:
            limit = 0
        if token := query.get("continue"):
            if asked:
                raise _Refused(400, "BadRequest", "specifying resource version is not allowed when using continue")
            revision, start = self._continued(collection, token)
        every = [(key, obj) for key, obj in collection.at(revision).items() if _in(namespace, key, obj, selector)]
        items = [(key, obj) for key, obj in every if key > start]
        page = items[:limit] if limit else items
        metadata: JsonObject = {"resourceVersion": str(revision)}
        if len(page) < len(items):
            metadata["continue"] = _token(revision, page[-1][0])
            if selector.everything:
                metadata["remainingItemCount"] = len(items) - len(page)
        elif collection.crd:
            metadata["continue"] = ""
        resource = collection.resource
        head = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata}
        return web.json_response(
            {**head, "items": [self._shown(collection, obj, listed=True) for _, obj in page]}, dumps=lambda o: _encode(o).decode()
        )

    def _continued(self, collection: _Collection, token: str) -> tuple[int, tuple[str, str]]:
        try:
            place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            start = (str(place["start"][0]), str(place["start"][1]))
            revision = int(place["rv"])
        except (ValueError, KeyError, TypeError, IndexError):
            raise _Refused(400, "BadRequest", "continue key is not valid") from None
        if revision == -1:
            return self.revision, start
        if revision < collection.since:
            raise _Refused(
                410,
                "Expired",
                "The provided continue parameter is too old to display a consistent list result. You can start a new list "
                "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
                "the results.",
                metadata={"continue": _token(-1, start)},
            )
        return revision, start

    # --- watches

    async def _watch(
        self, request: web.Request, collection: _Collection, namespace: str, query: Mapping[str, str]
    ) -> web.StreamResponse:
        selector = _selector(query)
        initial = query.get("sendInitialEvents")
        match = query.get("resourceVersionMatch")
        bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        asked = query.get("resourceVersion", "")
        if (initial is None) != (match is None) or (initial is not None and self.streaming == "refused"):
            raise _invalid("resourceVersionMatch" if self.streaming != "refused" else "sendInitialEvents")
        if asked and not asked.isdecimal():
            raise _Refused(500, "", f"strconv.ParseUint: parsing {asked!r}: invalid syntax")
        if len(self._open) >= MOST_WATCHERS:
            raise _Refused(429, "TooManyRequests", "too many watches", headers={"Retry-After": "1"})
        seconds = int(query.get("timeoutSeconds", "0") or 0)
        marked = initial == "true" and bookmarks
        begin = asked in ("", "0") if initial is None else initial == "true"
        if begin and initial is None and bookmarks and self.streaming in ("yes", "etcd-3.4"):
            marked = True  # as a 1.36 does it, as if it had been asked for
        if initial is not None and self.streaming == "ignored":
            marked, begin = False, True
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        if begin and marked and self.streaming == "etcd-3.4" and collection.cached:
            await response.write(_encode_line("ERROR", _status(500, "InternalError", f"an error on the server ({_ETCD_3_4})")))
            await response.write_eof()
            return response
        revision = self.revision if begin or not asked else int(asked)
        if not begin and revision < collection.since:
            text = f"too old resource version: {asked} ({collection.since})"
            if not collection.cached:
                text = "The resourceVersion for the provided watch is too old."
            await response.write(_encode_line("ERROR", _status(410, "Expired", text)))
            await response.write_eof()
            return response
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = request
        try:
            await self._stream(
                response,
                collection,
                namespace,
                selector,
                revision,
                begin=begin,
                marked=marked,
                bookmarks=bookmarks,
                seconds=seconds,
            )
        except (ConnectionError, web.HTTPException):
            pass
        finally:
            del self._open[task]
        return response

    async def _stream(
        self,
        response: web.StreamResponse,
        collection: _Collection,
        namespace: str,
        selector: Selector,
        revision: int,
        *,
        begin: bool,
        marked: bool,
        bookmarks: bool,
        seconds: int,
    ) -> None:
        started = self._clock.monotonic()
        told, ends = self._bookmarks, self._ends
        next_bookmark = started + self.bookmark_s
        if begin:
            lines = [
                _encode_line("ADDED", self._shown(collection, obj))
                for key, obj in collection.at(revision).items()
                if _in(namespace, key, obj, selector)
            ]
            if marked:
                lines.append(self._bookmark_line(collection, revision, end=True))
            await response.write(b"".join(lines))
        place = bisect.bisect_right(collection.events, revision, key=lambda event: event.revision)
        gone = False
        while not self._closing:
            now = self._clock.monotonic()
            due = bool(self.bookmark_s) and now >= next_bookmark
            if due:
                next_bookmark = now + self.bookmark_s
            if not self._stalled:
                events = collection.events[place:]
                place += len(events)
                # (From a revision that the server has not come to: nothing until then.)
                events = [event for event in events if event.revision > revision]
                lines = [line for event in events if (line := self._line(collection, event, namespace, selector))]
                if events:
                    revision = max(revision, events[-1].revision)
                if (due and collection.cached) or told != self._bookmarks:
                    told = self._bookmarks
                    # (A watch from the future says nothing until the server is there.)
                    if bookmarks and revision <= self.revision:
                        lines.append(self._bookmark_line(collection, self.revision))
                if lines:
                    await response.write(b"".join(lines))
                gone = self._collections.get(self._root(collection.resource) + "/" + collection.resource.plural) is not collection
                if gone or ends != self._ends or (seconds and now - started >= seconds) or seconds < 0:
                    await response.write_eof()
                    return
            until = min(started + seconds if seconds > 0 else float("inf"), next_bookmark if self.bookmark_s else float("inf"))
            if self.wakes_for:
                await asyncio.sleep(self.wakes_for)
            await self._woken(until)
        await response.write_eof()

    def _line(self, collection: _Collection, event: _Event, namespace: str, selector: Selector) -> bytes:
        now_in = event.type != "DELETED" and _in(namespace, event.key, event.now, selector)
        last = event.before if event.type != "ADDED" else None
        was_in = last is not None and _in(namespace, event.key, last, selector)
        if event.type == "DELETED":
            return _encode_line("DELETED", self._shown(collection, event.now)) if was_in else b""
        if now_in:
            return _encode_line("MODIFIED" if was_in else "ADDED", self._shown(collection, event.now))
        if was_in:
            assert last is not None
            # Its previous content, and the revision of the change that took it out.
            left = {**last, "metadata": {**last["metadata"], "resourceVersion": event.now["metadata"]["resourceVersion"]}}
            return _encode_line("DELETED", self._shown(collection, left))
        return b""

    def _bookmark_line(self, collection: _Collection, revision: int, *, end: bool = False) -> bytes:
        metadata: JsonObject = {"resourceVersion": str(revision)}
        if end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        resource = collection.resource
        obj: JsonObject = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": metadata}
        if not collection.crd:
            metadata["creationTimestamp"] = None
            obj |= {"spec": {}, "status": {}}
        return _encode_line("BOOKMARK", obj)

    async def _woken(self, until: float) -> None:
        """Until something happened, or the clock has come to `until`."""
        wake = asyncio.ensure_future(self._wake.wait())
        waits: list[asyncio.Future[Any]] = [wake]
        if until != float("inf"):
            waits.append(asyncio.ensure_future(self._clock.sleep(max(0.001, until - self._clock.monotonic()))))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not self._closing and not condition():
            await self._woken(float("inf"))

    def _notify(self) -> None:
        self._wake.set()
        self._wake = asyncio.Event()

    # --- state

    def _store(
        self,
        collection: _Collection,
        key: tuple[str, str],
        obj: JsonObject,
        known: JsonObject | None,
        *,
        manager: str,
        status_only: bool,
    ) -> JsonObject:
        resource = collection.resource
        metadata = obj.setdefault("metadata", {})
        if resource.namespaced:
            metadata.setdefault("namespace", key[0])
        else:
            metadata.pop("namespace", None)
        old = known["metadata"] if known is not None else None
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj}
        if status_only and known is not None:
            obj = {**known, "status": obj.get("status", {}), "metadata": {**known["metadata"]}}
            metadata = obj["metadata"]
        if old is None:
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", rfc3339(self._clock.now_us()))
            metadata["generation"] = 1
        else:
            for name in ("uid", "creationTimestamp", "generation", "managedFields", "deletionTimestamp"):
                if name in old:
                    metadata[name] = old[name]
            metadata["resourceVersion"] = old["resourceVersion"]
            if obj == known:
                return known or obj
            if _without(obj) != _without(known or {}) and not status_only:
                metadata["generation"] = old["generation"] + 1
        metadata["managedFields"] = [
            {
                "manager": manager,
                "operation": "Update",
                "apiVersion": resource.api_version,
                "time": rfc3339(self._clock.now_us()),
                "fieldsType": "FieldsV1",
                "fieldsV1": {"f:spec": {}},
            }
        ]
        if old is not None and "deletionTimestamp" in metadata and not metadata.get("finalizers"):
            # The last finalizer is gone; the object of the DELETED event still lists it.
            return self._record(collection, key, None, known or obj)
        return self._record(collection, key, obj, known)

    def _delete(self, collection: _Collection, key: tuple[str, str], known: JsonObject) -> JsonObject:
        metadata = known["metadata"]
        if metadata.get("finalizers"):
            if "deletionTimestamp" in metadata:
                return known
            going = {
                **metadata,
                "deletionTimestamp": rfc3339(self._clock.now_us()),
                "deletionGracePeriodSeconds": 0,
                "generation": metadata["generation"] + 1,
            }
            return self._record(collection, key, {**known, "metadata": going}, known)
        return self._record(collection, key, None, known)

    def _record(
        self, collection: _Collection, key: tuple[str, str], obj: JsonObject | None, known: JsonObject | None
    ) -> JsonObject:
        self.revision += 1
        told = obj if obj is not None else known
        assert told is not None
        told = {**told, "metadata": {**told["metadata"], "resourceVersion": str(self.revision)}}
        collection.states.setdefault(key, []).append((self.revision, told if obj is not None else None))
        kind: Literal["ADDED", "MODIFIED", "DELETED"] = "DELETED" if obj is None else "ADDED" if known is None else "MODIFIED"
        collection.events.append(_Event(self.revision, kind, key, told, known))
        self._notify()
        return told

    def _shown(self, collection: _Collection, obj: JsonObject, *, listed: bool = False) -> JsonObject:
        if listed and not collection.crd:
            return {name: value for name, value in obj.items() if name not in ("kind", "apiVersion")}
        return obj

    # --- discovery

    def _discover(self, path: str) -> web.StreamResponse:
        groups = self._groups()
        if path == "/version":
            return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
        if path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path == "/apis":
            listed = [_group(name, versions) for name, versions in groups.items() if name]
            return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})
        name = path.removeprefix("/apis/")
        if name.split("/")[0] in self.hidden_groups:
            raise _Refused(503, "ServiceUnavailable", "service unavailable")
        if name in groups:
            return web.json_response({"kind": "APIGroup", "apiVersion": "v1", **_group(name, groups[name])})
        found = [one.resource for one in self._collections.values() if self._root(one.resource) == path]
        if not found and path != "/api/v1":
            raise _plain(404, "404 page not found")
        listed = [part for resource in found for part in _api_resources(resource)]
        version = path.removeprefix("/apis/").removeprefix("/api/").removeprefix("/oapi/")
        return web.json_response({"kind": "APIResourceList", "groupVersion": version, "resources": listed})

    def _groups(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for one in self._collections.values():
            if one.resource.root:
                continue
            versions = groups.setdefault(one.resource.group, [])
            if one.resource.version not in versions:
                versions.append(one.resource.version)
        return groups

    def _find(self, path: str) -> tuple[_Collection | None, tuple[str, str], str]:
        """The collection of a path, (namespace, name) and the subresource."""
        for root, collection in self._collections.items():
            prefix, _, plural = root.rpartition("/")
            if not path.startswith(prefix + "/"):
                continue
            parts = path[len(prefix) + 1 :].split("/")
            namespace = ""
            if len(parts) >= 3 and parts[0] == "namespaces" and collection.resource.namespaced:
                namespace, parts = parts[1], parts[2:]
            if parts[0] != plural or len(parts) > 3:
                continue
            if plural == "namespaces" and len(parts) == 3 and parts[2] not in ("status", "finalize"):
                continue  # a collection in a namespace
            parts += ["", ""]
            return collection, (namespace, parts[1]), parts[2]
        return None, ("", ""), ""

    def _of(self, resource: Resource) -> _Collection:
        return self._collections[self._root(resource) + "/" + resource.plural]

    @staticmethod
    def _root(resource: Resource) -> str:
        return resource.path().rpartition("/")[0]


_ETCD_3_4 = "a watch stream was requested by the client but the required storage feature RequestWatchProgress is disabled"


class _Scripted(Exception):
    def __init__(self, event: JsonObject) -> None:
        super().__init__("scripted")
        self.event = event


async def _one_line(request: web.Request, event: JsonObject) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(_encode(event) + b"\n")
    await response.write_eof()
    return response


def _plain(status: int, text: str, headers: Mapping[str, str] | None = None) -> web.HTTPException:
    class Plain(web.HTTPException):
        status_code = status

    return Plain(text=text, headers=headers)


def _invalid(field: str) -> _Refused:
    return _Refused(
        422,
        "Invalid",
        f"ListOptions.meta.k8s.io is invalid: {field}: Forbidden",
        details={"causes": [{"reason": "FieldValueForbidden", "message": "Forbidden", "field": field}]},
    )


def _status(code: int, reason: str, message: str) -> JsonObject:
    head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
    return {**head, "message": message, "reason": reason, "code": code}


def _verb(method: str, name: str, watching: bool) -> str:
    if method == "GET":
        return "watch" if watching else "get" if name else "list"
    return {"POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}.get(method, method.lower())


def _where(key: tuple[str, str]) -> str:
    return "/".join(part for part in key if part)


def _without(obj: JsonObject) -> JsonObject:
    return {name: value for name, value in obj.items() if name not in ("metadata", "status")}


def _encode_line(kind: str, obj: JsonObject) -> bytes:
    return _encode({"type": kind, "object": obj}) + b"\n"


def _selector(query: Mapping[str, str]) -> Selector:
    try:
        selector = parse(query.get("labelSelector", ""), query.get("fieldSelector", ""))
    except BadRequest as why:
        raise _Refused(400, "BadRequest", str(why)) from None
    if selector.status:
        raise _Refused(400, "BadRequest", f"field label not supported: {'.'.join(selector.status[0].path)}")
    return selector


def _in(namespace: str, key: tuple[str, str], obj: JsonObject, selector: Selector) -> bool:
    if namespace and key[0] != namespace:
        return False
    return selector.matches(key[1], key[0], obj["metadata"].get("labels") or {}, {})


def _token(revision: int, start: tuple[str, str]) -> str:
    place = {"v": "meta.k8s.io/v1", "rv": revision, "start": list(start)}
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _group(name: str, versions: list[str]) -> JsonObject:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def _api_resources(resource: Resource) -> list[JsonObject]:
    listed: JsonObject = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(resource.verbs),
    }
    if resource.short_names:
        listed["shortNames"] = list(resource.short_names)
    if resource.categories:
        listed["categories"] = list(resource.categories)
    status = {**listed, "name": f"{resource.plural}/status", "singularName": "", "verbs": ["get", "patch", "update"]}
    return [listed, status]


def _merge(value: Any, patch: Any, *, by_name: bool = False) -> Any:
    """RFC 7386; `by_name`: lists of objects with names are merged by them, as a strategic merge does."""
    if by_name and isinstance(value, list) and isinstance(patch, list):
        named = all(isinstance(one, dict) and "name" in one for one in [*value, *patch])
        if not named:
            return patch
        merged = {one["name"]: one for one in value}
        for one in patch:
            if one.get("$patch") == "delete":
                merged.pop(one["name"], None)
            else:
                merged[one["name"]] = _merge(merged.get(one["name"], {}), one, by_name=True)
        return list(merged.values())
    if not isinstance(patch, dict):
        return patch
    result = dict(value) if isinstance(value, dict) else {}
    for name, part in patch.items():
        if part is None:
            result.pop(name, None)
        else:
            result[name] = _merge(result.get(name), part, by_name=by_name)
    return result


def _json_patch(value: Any, operations: Any) -> Any:
    """RFC 6902, without `move` and `copy`."""
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at = value
        try:
            for part in parts[:-1]:
                at = at[int(part)] if isinstance(at, list) else at[part]
            last, what = parts[-1], operation["op"]
            if what == "test":
                if (at[int(last)] if isinstance(at, list) else at[last]) != operation["value"]:
                    raise _Refused(422, "Invalid", f"testing value {operation['path']} failed")
            elif isinstance(at, list):
                index = len(at) if last == "-" else int(last)
                if what == "remove":
                    del at[index]
                elif what == "replace":
                    at[index] = operation["value"]
                else:
                    at.insert(index, operation["value"])
            elif what == "remove" or (what == "replace" and last not in at):
                del at[last]
            else:
                at[last] = operation["value"]
        except (KeyError, IndexError, ValueError, TypeError):
            raise _Refused(422, "Invalid", f"the path {operation['path']} is not there") from None
    return value
