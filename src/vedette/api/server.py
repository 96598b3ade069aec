"""The HTTP server: listeners, the gate every request passes, and the routes found in `routes/`.

Requests come in; each is identified (deny by default), answered by one route, and every error leaves as a Kubernetes Status.
Routes ask the store and the hub; what they may show is part of their query (`ports.Selection`), never a filter here.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDictProxy

from vedette.api.auth import token_from
from vedette.api.hooks import PATH as HOOK_PATH
from vedette.api.hooks import Hook
from vedette.api.rights import Rights
from vedette.api.status import of_code, status
from vedette.api.tickets import Tickets
from vedette.engine.audits import Audits
from vedette.engine.dispatch import Dispatch
from vedette.engine.polling import Polling
from vedette.engine.records import Records
from vedette.engine.resync import Resync
from vedette.engine.verify import Verify
from vedette.engine.watch import Hub
from vedette.errors import Forbidden, VedetteError
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.ports import Authenticator, Identity, JsonObject, Kind, Offer, SourceStatus, Store

log = logging.getLogger("vedette.api")
http_log = logging.getLogger("vedette.api.http")
"""What aiohttp says of connections, see `_NoQuotes`."""


class _NoQuotes(logging.Filter):
    """What can't be parsed as HTTP is logged by aiohttp as an error that quotes it, a token in the path included, as often as
    somebody likes to send it. Here it is one line at debug level that quotes nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, HttpProcessingError):
            return True
        record.msg, record.args, record.exc_info = "a request could not be parsed: %s", (type(error).__name__,), None
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return http_log.isEnabledFor(logging.DEBUG)


http_log.addFilter(_NoQuotes())

IDENTITY = web.RequestKey("identity", Identity)
TOKEN = web.RequestKey("token", str)
AUTHENTICATOR: web.AppKey[Authenticator] = web.AppKey("authenticator")
"""For the one route that judges its callers by itself (routes/hooks.py)."""

STARTED = web.RequestKey("started", bool)
"""The answer's first line is on the wire: what goes wrong now can't be a Status any more."""

OPEN = frozenset(("/", "/healthz", "/livez", "/readyz"))
"""Answered without a token: they say whether the service is well, and (`/`, WEaaS') which names there are."""
MAX_LINE = 16_384
"""Bytes of a path and its query: two selectors of the longest, written with %, and a continue token."""
MAX_HEADERS = 32_768
"""Bytes of all headers; the longest tokens (PKI) have 8 KB."""
MAX_PARSED = 65_536
"""Bytes of the first line and of each header that the parser takes: above the limits that we answer ourselves."""
MAX_BODY = 1_048_576
"""Bytes; a hook has a limit of its own."""

InItsWords = Callable[[web.Request, Exception], Exception]
"""What an older face makes of an error, so that its clients read what they know."""


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """What routes are given."""

    store: Store
    hub: Hub
    resync: Resync
    verify: Verify
    dispatch: Dispatch
    kinds: tuple[Kind, ...]
    clock: Clock
    telemetry: Telemetry
    rights: Rights
    tickets: Tickets
    sources: Callable[[], Sequence[SourceStatus]]
    source_names: tuple[str, ...]
    default_source: str
    """The one that `/apis/…` serves; "" when there are several and none is marked: then all of them."""
    cors: tuple[str, ...] = ()
    hosts: frozenset[str] | None = None
    """Host names that may be asked without authentication (DNS rebinding); None: any, every request has a token."""
    max_streams: int = 100
    """Open streams per token."""
    hooks: Mapping[str, Hook] = {}
    """Who may send news over HTTP, by name."""
    offer: Offer | None = None
    """Where hooks hand over news."""
    records: Records | None = None
    """Of audits and plans; None: there are none."""
    audits: Audits | None = None
    mirrors: Callable[[], Sequence[JsonObject]] = tuple
    """How it stands with each mirror."""
    polling: Polling | None = None
    """Measurements of servers; None: nobody reads any."""


def _as_it_is(_request: web.Request, why: Exception) -> Exception:
    return why


class Face(msgspec.Struct, frozen=True, kw_only=True):
    """An older API beside ours: its routes, and what is different about them."""

    routes: Sequence[web.RouteDef]
    public: frozenset[str] = frozenset()
    """Routes, as they are written, that want no token."""
    error: Callable[[web.Request, Exception], web.Response | None] = lambda request, why: None
    """An error in the form that its clients know; None: the request is not for this face."""


NO_FACE = Face(routes=())


def together(faces: Sequence[Face]) -> Face:
    """Several of them, beside each other at one port."""

    def error(request: web.Request, why: Exception) -> web.Response | None:
        return next((said for face in faces if (said := face.error(request, why)) is not None), None)

    return Face(
        routes=[route for face in faces for route in face.routes],
        public=frozenset(route for face in faces for route in face.public),
        error=error,
    )


def build(
    needs: Needs,
    authenticator: Authenticator,
    *,
    faces: Sequence[web.RouteDef] = (),
    path_token: Callable[[web.Request], str | None] = lambda _request: None,
    in_its_words: InItsWords = _as_it_is,
    face: Face = NO_FACE,
) -> web.Application:
    """The application: the gate, every route that a file in `routes/` gives, and those of older faces (`compat/`), whose
    tokens may be part of the path and whose errors have texts, or a form, of their own."""
    app = bare(needs, authenticator, routes=faces, path_token=path_token, in_its_words=in_its_words, face=face)
    package = importlib.import_module("vedette.api.routes")
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda module: module.name):
        app.router.add_routes(importlib.import_module(f"{package.__name__}.{module.name}").routes(needs))
    return app


def bare(
    needs: Needs,
    authenticator: Authenticator,
    *,
    routes: Sequence[web.RouteDef],
    path_token: Callable[[web.Request], str | None] = lambda _request: None,
    in_its_words: InItsWords = _as_it_is,
    face: Face = NO_FACE,
) -> web.Application:
    """An application with the gate and only these routes: an older face at its own port."""
    gate = _gate(needs, authenticator, path_token, face.public)
    app = web.Application(middlewares=[_errors(needs, in_its_words, face), gate], client_max_size=MAX_BODY)
    app[AUTHENTICATOR] = authenticator
    app.on_response_prepare.append(_preparing(needs))
    app.router.add_routes([*routes, *face.routes])
    return app


class Server:
    """Listens on every address, plain or TLS, until stopped."""

    def __init__(
        self,
        app: web.Application,
        *,
        listen: Sequence[tuple[str, int]],
        tls: Callable[[], ssl.SSLContext] | None,
        untaken: float = 60.0,
    ) -> None:
        """`untaken`: seconds after which the kernel gives up a connection whose peer takes nothing (TCP_USER_TIMEOUT)."""
        self._untaken = untaken
        self._runner = web.AppRunner(
            app,
            access_log=None,  # it would log tokens in WEaaS paths; counts are metrics, errors are logged here
            logger=http_log,
            handler_cancellation=True,  # a client that is gone ends its watch at once
            max_line_size=MAX_PARSED,
            max_field_size=MAX_PARSED,
            keepalive_timeout=75.0,
            shutdown_timeout=5.0,
        )
        self._listen = listen
        self._tls = tls
        self.addresses: list[tuple[str, int]] = []
        """Where it really listens (port 0 is given one)."""

    async def start(self) -> None:
        """Raises OSError with the address when it can't listen there."""
        await self._runner.setup()
        for host, port in self._listen:
            sock = _listener(host, port, self._untaken)
            self.addresses.append(sock.getsockname()[:2])
            await web.SockSite(self._runner, sock, ssl_context=self._tls() if self._tls else None, backlog=4096).start()

    async def stop(self) -> None:
        """Close the listeners and the connections; streams were ended by the hub before."""
        await self._runner.cleanup()


def _listener(host: str, port: int, untaken: float) -> socket.socket:
    """A listening socket whose accepted ones notice that a client vanished: by keepalive after 30 s of silence, and by data
    that nobody acknowledges or takes for `untaken` seconds. (Linux hands these options down to accepted sockets.)"""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", 15),
            ("TCP_KEEPINTVL", 5),
            ("TCP_KEEPCNT", 3),
            ("TCP_USER_TIMEOUT", int(untaken * 1000)),
        ):
            if hasattr(socket, option):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        sock.bind(address)
        sock.setblocking(False)
    except OSError as why:
        sock.close()
        raise OSError(why.errno, f"can't listen on {host}:{port}: {why.strerror}") from None
    return sock


def reloading_context(cert: Path, key: Path, *, every: float = 1.0) -> Callable[[], ssl.SSLContext]:
    """A TLS context that reads the files again when they change: handshakes look, at most once a second.

    A pair that can't be read, or of which only one half is there yet, is logged; the old one stays in use.
    """
    seen = [_stamp(cert, key), time.monotonic()]
    # A context is never changed in use: a certificate loaded without its key would leave it with neither pair.
    current = [_context(cert, key)]
    front = _context(cert, key)

    def look(connection: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
        now = time.monotonic()
        if now - seen[1] >= every:
            seen[1] = now
            stamp = _stamp(cert, key)
            if stamp is not None and stamp != seen[0]:
                try:
                    current[0] = _context(cert, key)
                except (ssl.SSLError, OSError) as why:
                    log.error("the new certificate can't be used, the old one stays: %s", why, extra=kv(cert=cert))
                else:
                    seen[0] = stamp
                    log.info("certificate reloaded", extra=kv(cert=cert))
        connection.context = current[0]

    # Asked in every handshake, also of clients that name no server (OpenSSL's servername callback).
    front.sni_callback = look
    return lambda: front


def _context(cert: Path, key: Path) -> ssl.SSLContext:
    """Raises OSError, ssl.SSLError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(cert, key)
    return context


def _stamp(*paths: Path) -> Any:
    try:
        return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    except OSError:
        return None


def _errors(needs: Needs, in_its_words: InItsWords, face: Face) -> Middleware:
    """Whatever goes wrong leaves as a Status object with the right code; nothing internal is told."""
    counted = needs.telemetry.counter("http_requests_total", "Requests answered", "code")

    @web.middleware
    async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except ConnectionError:
            raise  # the client is gone: nobody to answer
        except Exception as why:
            if not isinstance(why, (VedetteError, web.HTTPException)):
                log.exception("a request failed", extra=kv(method=request.method, route=_route_name(request)))
            if request.get(STARTED):
                # A second answer inside the first would be read as part of it. Cut, the client knows that it hasn't all.
                if isinstance(why, VedetteError):
                    log.warning("an answer was cut in the middle: %s", why, extra=kv(route=_route_name(request)))
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError("the answer can't be completed") from why
            response = face.error(request, why) or _said(in_its_words(request, why))
        counted.labels(str(response.status)).inc()
        return response

    return errors


def _preparing(needs: Needs) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Before an answer's first byte, streams too."""

    async def preparing(request: web.Request, response: web.StreamResponse) -> None:
        request[STARTED] = True
        _cors(needs, request, response)

    return preparing


def _said(why: Exception) -> web.Response:
    if isinstance(why, web.HTTPException):
        # aiohttp's own: no such path, a method that a path doesn't have, a body that is too large.
        code, headers, body = of_code(why.status, why.reason)
        if "Allow" in why.headers:
            headers["Allow"] = why.headers["Allow"]
    else:
        code, headers, body = status(why)
    return web.Response(status=code, headers=headers, body=body, content_type="application/json")


def _route_name(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "?"


def _gate(
    needs: Needs, authenticator: Authenticator, path_token: Callable[[web.Request], str | None], public: frozenset[str]
) -> Middleware:
    """Who is asking? Without an answer there is no route, not even a 404."""

    @web.middleware
    async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
        # Of the route that was found, not of the path: nothing else can look like it.
        hook = _route_name(request) == HOOK_PATH
        _check_size(request, body=not hook)
        if needs.hosts is not None and not _host_is_ours(request.headers, needs.hosts):
            raise Forbidden("this host name is not served (protection against DNS rebinding); use 127.0.0.1 or localhost")
        if hook:
            return await handler(request)  # each has its own token, signature or roles
        if needs.hosts is not None and request.method not in _SAFE and not _page_may(request.headers, needs):
            # Where nobody needs a token, a browser would do for any page what its user may do.
            raise Forbidden("a page of another origin may change nothing here; `cors` names those that may")
        if request.method == "OPTIONS" and "Origin" in request.headers:
            return web.Response(status=204)
        if request.path in OPEN or _route_name(request) in public:
            return await handler(request)
        ticket = request.query.get("ticket") if request.path == "/v1/events" else None
        if ticket is not None:
            # The token behind it is judged like any other: it may have ended since the ticket was issued.
            _, token = needs.tickets.redeem(ticket)
        else:
            if request.path in ("/metrics", "/metrics/cloud") and is_loopback(request):
                return await handler(request)
            token = token_from(request) or path_token(request) or ""
        request[IDENTITY] = await authenticator.identify(token)
        request[TOKEN] = token
        return await handler(request)

    return gate


def _check_size(request: web.Request, *, body: bool) -> None:
    if len(request.raw_path) > MAX_LINE:
        raise web.HTTPRequestURITooLong(reason=f"the path and its query have more than {MAX_LINE} bytes")
    if sum(len(name) + len(value) for name, value in request.raw_headers) > MAX_HEADERS:
        raise web.HTTPRequestHeaderFieldsTooLarge(reason=f"the headers have more than {MAX_HEADERS} bytes")
    if body and (request.content_length or 0) > MAX_BODY:
        raise web.HTTPRequestEntityTooLarge(MAX_BODY, request.content_length or 0)


def _cors(needs: Needs, request: web.Request, response: web.StreamResponse) -> None:
    """Off unless an origin is configured; never with credentials (tokens travel in headers that the page sets)."""
    origin = request.headers.get("Origin")
    if origin is not None and (origin in needs.cors or "*" in needs.cors):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
        if request.method == "OPTIONS":
            response.headers["Access-Control-Allow-Headers"] = "Authorization, X-Auth-Token, Content-Type, Last-Event-ID"
            response.headers["Access-Control-Allow-Methods"] = "GET, POST"


_SAFE = ("GET", "HEAD", "OPTIONS")


def _page_may(headers: Mapping[str, str], needs: Needs) -> bool:
    """Browsers say from where a page sends what changes something (a POST, also one without preflight); other clients don't."""
    origin = headers.get("Origin")
    return origin is None or origin.partition("://")[2] == headers.get("Host") or origin in needs.cors or "*" in needs.cors


def _host_is_ours(headers: CIMultiDictProxy[str] | Mapping[str, str], hosts: frozenset[str]) -> bool:
    """A request without the header (HTTP/1.0) can't come from a rebound name: browsers always send it."""
    host = headers.get("Host")
    if host is None:
        return True
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    return name.lower() in hosts


def is_loopback(request: web.Request) -> bool:
    peer: Any = request.transport.get_extra_info("peername") if request.transport is not None else None
    # A proxy on this machine forwards the world: its requests say so.
    return bool(peer) and peer[0] in ("127.0.0.1", "::1") and not any(name in request.headers for name in _FORWARDED)


_FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "Via")


def need_admin(request: web.Request) -> Identity:
    identity = request[IDENTITY]
    if not identity.scope.admin:
        raise Forbidden("this needs an admin role")
    if identity.reads_only and request.method not in _SAFE:
        raise Forbidden("this needs an admin role: a reader sees everything and changes nothing")
    return identity
