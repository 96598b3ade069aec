"""One open stream: from an aiohttp request to a `Watcher` on the hub, and its clean end.

Used by every route that streams. What is written goes straight to the connection's transport, framed as HTTP/1.1 chunks by the
hub; aiohttp does the headers and the last chunk.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from vedette.api.server import IDENTITY, TOKEN, Needs
from vedette.api.status import error_event
from vedette.engine.watch import Ended, Feed, Watcher
from vedette.errors import TooBusy, Unauthenticated, VedetteError


async def stream(
    needs: Needs,
    request: web.Request,
    feed: Feed,
    *,
    after: int,
    content_type: str,
    bookmarks: bool,
    initial: AsyncIterator[bytes] | None = None,
    timeout: float | None = None,
    error_line: Any = error_event,
) -> web.StreamResponse:
    """Serve `feed` from `after`. Raises (before the answer has begun) TooBusy and what the caller's rights say."""
    identity, token = request[IDENTITY], request[TOKEN]
    needs.hub.check_room()
    if needs.hub.streams(identity.key) >= needs.max_streams:
        raise TooBusy(f"{needs.max_streams} streams are open with this token (watch.max_streams)", delay=10)
    response = web.StreamResponse(headers={"Cache-Control": "no-cache, private", "X-Accel-Buffering": "no"})
    response.content_type = content_type
    chunked = request.version >= (1, 1)
    if chunked:
        response.enable_chunked_encoding()
    else:
        response.force_close()
    writer = await response.prepare(request)
    transport = request.transport
    if writer is None or transport is None:
        raise ConnectionResetError("the client is gone")
    watcher = Watcher(feed, transport, writer.drain, chunked=chunked, bookmarks=bookmarks, owner=identity.key)
    try:
        try:
            async with needs.rights.hold(identity, token, watcher):
                ended = await needs.hub.serve(watcher, after=after, initial=initial, timeout=timeout)
            if ended is Ended.REVOKED:
                raise Unauthenticated("the rights of this token have changed or ended")
        except VedetteError as why:
            # The answer has begun with 200; the stream itself has to say why it ends.
            await send(needs, response, error_line(why))
        if not transport.is_closing():
            async with asyncio.timeout(needs.hub.limits.stall_timeout):
                await response.write_eof()
    except ConnectionError:
        pass  # the client is gone: nobody to answer, and nothing that a log should shout about
    except TimeoutError:
        transport.abort()  # it takes not even the end; others may want its place
    return response


PIECE = 65_536


async def send(needs: Needs, response: web.StreamResponse, data: bytes) -> None:
    """Write part of a long answer at the client's pace. Raises ConnectionResetError when its socket takes nothing for
    `watch.stall_timeout`: an answer that nobody reads is not kept for ever."""
    for at in range(0, len(data), PIECE):
        try:
            async with asyncio.timeout(needs.hub.limits.stall_timeout):
                await response.write(data[at : at + PIECE])
        except TimeoutError:
            raise ConnectionResetError("the client reads nothing") from None


Writer = AbstractStreamWriter
