"""News by HTTP: `POST /v1/hooks/{format}/{name}`. 204 means that it is durable; nothing else means that.

A request is judged (`api/hooks.py`), read up to the hook's limit, understood by the format's file in `webhooks/`, and offered to
engine/ingest.py as a source's messages are. 400 (415: a format that isn't read) says what is wrong with it, 413 that it is too
large; 429 and 503 have a Retry-After, and nothing was kept. A hook that isn't there is 404 to everybody, with any token.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from vedette.api.auth import token_from
from vedette.api.hooks import AUTHENTICATES, PATH, Hook, Invites, Signed, admit
from vedette.api.server import AUTHENTICATOR, Needs
from vedette.api.status import code_of
from vedette.errors import (
    BadRequest,
    MethodNotAllowed,
    NotFound,
    NotUnderstood,
    StoreUnavailable,
    TooBusy,
    Unauthenticated,
    UnsupportedFormat,
)
from vedette.kit.log import kv
from vedette.model.notice import Notice
from vedette.ports import Offer, Request

log = logging.getLogger("vedette.api.hooks")

MAX_IN_HAND = 64
"""Requests of one hook between their headers and their answer; one more is told to come back (429). But whoever sends a signature
is not known before the body is here: of those the one that has been at it the longest goes (408)."""
BODY_SECONDS = 30.0
"""How long a body may take to come in (408)."""
BUSY_SECONDS = 1.0
"""When to come back after a 429."""


class _Desk:
    """One hook, and how many requests it has in hand."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        self.in_hand = 0
        self.unproven: dict[asyncio.Timeout, None] = {}
        """Bodies that are coming in and may be anybody's, the oldest first."""

    def make_room(self) -> None:
        """For one more. Raises TooBusy."""
        if self.in_hand < MAX_IN_HAND:
            return
        if not self.unproven:
            raise TooBusy(f"this hook has {MAX_IN_HAND} requests in hand", delay=BUSY_SECONDS)
        oldest = next(iter(self.unproven))
        del self.unproven[oldest]
        oldest.reschedule(0)

    def gauged(self) -> float:
        return self.in_hand


def routes(needs: Needs) -> list[web.RouteDef]:
    desks = {(hook.format, hook.name): _Desk(hook) for hook in needs.hooks.values()}
    counted = needs.telemetry.counter("hook_requests_total", "Requests that hooks answered", "hook", "code")
    progress = needs.telemetry.gauge(
        "source_last_progress_timestamp_seconds", "When a source last heard something (Unix time).", "source"
    )
    in_hand = needs.telemetry.gauge("hook_requests_in_hand", "Requests of a hook that are not answered yet", "hook")
    for desk in desks.values():
        in_hand.labels(desk.hook.name).set_function(desk.gauged)

    async def called(request: web.Request) -> web.StreamResponse:
        desk = desks.get((request.match_info["format"], request.match_info["name"]))
        if desk is None:
            raise NotFound("there is no such hook")
        hook = desk.hook
        try:
            response = await _answered(needs, desk, request)
        except Exception as why:
            code = why.status if isinstance(why, web.HTTPException) else code_of(why)
            counted.labels(hook.name, str(code)).inc()
            if isinstance(why, NotUnderstood):
                # Its caller is one of ours: somebody has to set one of the two right.
                log.warning("a hook's request was refused: %s", why, extra=kv(hook=hook.name, format=hook.format))
            raise
        counted.labels(hook.name, str(response.status)).inc()
        if request.method == "POST":
            progress.labels(hook.name).set(needs.clock.now_us() / 1_000_000)
        return response

    return [web.route("*", PATH, called)]


async def _answered(needs: Needs, desk: _Desk, request: web.Request) -> web.StreamResponse:
    hook = desk.hook
    if request.method == "OPTIONS" and isinstance(hook.webhook, Invites):
        return _invitation(hook.webhook, request)
    if request.method != "POST":
        raise MethodNotAllowed("a hook takes POST", allowed=("POST",))
    signed = await admit(hook, request.headers, token_from(request) or "", request.app[AUTHENTICATOR], needs.clock)
    desk.make_room()
    desk.in_hand += 1
    try:
        body = await _body(request, hook.max_body, desk.unproven if signed is not None else {})
        if signed is not None and not signed.fits(hook.hmac_secret, body):
            raise Unauthenticated("the signature is not that of this timestamp and body")
        notices = hook.webhook.parse(_request(needs, hook, request, signed, body))
        if notices:
            await _offer(needs.offer, notices)
    finally:
        desk.in_hand -= 1
    return web.Response(status=204)


def _invitation(webhook: Invites, request: web.Request) -> web.Response:
    """The handshake; it needs no token and gives no right. Who isn't invited gets what any other hook says to OPTIONS. A callback
    (`WebHook-Request-Callback`) is never called: we ask no address that a stranger names."""
    origin = request.headers.get("WebHook-Request-Origin", "").strip()
    if not origin or not origin.isprintable() or not webhook.invites(origin):
        raise MethodNotAllowed("a hook takes POST", allowed=("POST",))
    # No rate is promised or held back: what is too much at one time is told so (429).
    return web.Response(status=204, headers={"Allow": "POST", "WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})


async def _body(request: web.Request, most: int, reading: dict[asyncio.Timeout, None]) -> bytes:
    """The body, of bounded size and in bounded time, meanwhile in `reading`. Raises aiohttp's 408 and 413; UnsupportedFormat,
    BadRequest."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise UnsupportedFormat("the body is compressed (Content-Encoding): send it as it is")
    if (request.content_length or 0) > most:
        raise _too_large(most, request.content_length or 0)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS) as limit:
            reading[limit] = None
            try:
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > most:
                        raise _too_large(most, size)
                    parts.append(part)
            finally:
                reading.pop(limit, None)
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason=f"the body took longer than {BODY_SECONDS:g} s, or others wait") from None
    except (web.RequestPayloadError, HttpProcessingError) as why:
        raise BadRequest(f"the body can't be read: {type(why).__name__}") from None
    return b"".join(parts)


def _too_large(most: int, size: int) -> web.HTTPRequestEntityTooLarge:
    return web.HTTPRequestEntityTooLarge(most, size, reason=f"the body has more than {most} bytes")


def _request(needs: Needs, hook: Hook, request: web.Request, signed: Signed | None, body: bytes) -> Request:
    headers: Mapping[str, str] = {
        name.lower(): value for name, value in request.headers.items() if name.lower() not in AUTHENTICATES
    }
    if signed is not None:
        headers = {name: value for name, value in headers.items() if name == "content-type"}
    return Request(
        name=hook.name,
        headers=headers,
        query={} if signed is not None else dict(request.query),
        body=body,
        received_at=needs.clock.now_us() if signed is None else signed.at_us,
    )


async def _offer(offer: Offer | None, notices: Sequence[Notice]) -> None:
    """Returns when the notices are durable, and counted: also when the caller is gone by then."""
    if offer is None:
        raise StoreUnavailable("nothing takes news yet")
    offering = asyncio.ensure_future(offer(notices))
    try:
        await asyncio.shield(offering)
    except asyncio.CancelledError:
        # Cut short, it would be in the log and in no counter. It is a matter of one commit.
        await asyncio.wait([offering])
        if not offering.cancelled():
            offering.exception()  # seen
        raise
