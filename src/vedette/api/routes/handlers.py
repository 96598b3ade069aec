"""Handlers: how each is, `GET /v1/handlers`; one that is gone is let go of, `POST /v1/handlers/{name}/forget`; what is in the log
is delivered again, `POST /v1/handlers/{name}/replay`. For admins. engine/dispatch.py does the work; `vedette handlers` and
`vedette replay` are the clients.

A replay's body: `{"from": …, "to": …, "dryRun": true}`, each end a revision (which belongs to it), a time (RFC 3339) or a span
that counts back from now (`2h`); without `to` it goes up to the newest. The answer is one JSON object a line: each match, a line
that says it is still waiting while there is none, and how it ended. It goes on as long as the caller listens.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.server import Needs, need_admin
from vedette.api.status import error_event
from vedette.api.streams import send
from vedette.api.when import place
from vedette.errors import BadRequest, Expired, NotFound, TooBusy, VedetteError
from vedette.kit.clock import rfc3339_us
from vedette.kit.log import kv
from vedette.kit.tasks import cancel, closable
from vedette.ports import Appended

log = logging.getLogger("vedette.api.handlers")

WAIT_SECONDS = 5.0
"""A caller hears at least this often that it goes on: the handler may have no room, or nothing matches for a while."""
MOST_REPLAYS = 4
"""At one time: each reads the log as fast as it can."""

Match = tuple[Appended, int, str]


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    from_: str = msgspec.field(default="", name="from")
    to: str = ""
    dry_run: bool = False


_asked = msgspec.json.Decoder(_Asked)


def routes(needs: Needs) -> list[web.RouteDef]:
    replaying: set[object] = set()

    async def handlers(request: web.Request) -> web.Response:
        need_admin(request)
        return web.Response(body=msgspec.json.encode({"handlers": needs.dispatch.status()}), content_type="application/json")

    async def forget(request: web.Request) -> web.Response:
        who = need_admin(request).name
        name = request.match_info["name"]
        await needs.dispatch.forget(name)
        log.warning("a handler's place in the log was let go of", extra=kv(handler=name, who=who))
        return web.Response(body=msgspec.json.encode({"forgotten": name}), content_type="application/json")

    async def replay(request: web.Request) -> web.StreamResponse:
        who = need_admin(request).name
        name = request.match_info["name"]
        body = await request.read()
        try:
            asked = _asked.decode(body) if body.strip() else _Asked()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
            raise BadRequest(f"the body is not what a replay takes: {why}") from None
        check_name(needs, name)
        if not asked.from_:
            raise BadRequest("say from where: from (a revision, a time such as 2026-11-20T15:00:00Z, or 2h: two hours ago)")
        after = await place(needs, asked.from_, "from", first=True)
        before = await place(needs, asked.to, "to", first=False) if asked.to else needs.store.head
        if before < after:
            raise BadRequest("the end of what is to be replayed is before its beginning")
        oldest = needs.store.oldest
        if after < oldest:  # a time always begins with the oldest that there is
            raise Expired(f"revision {asked.from_} has left the log; the oldest one is {oldest + 1}")
        if len(replaying) >= MOST_REPLAYS:
            raise TooBusy(f"{MOST_REPLAYS} replays are going on; wait until one has ended", delay=10)
        mark = object()
        replaying.add(mark)
        try:
            if not asked.dry_run:
                log.warning("events are delivered again", extra=kv(handler=name, after=after, upto=before, who=who))
            return await _told(needs, request, needs.dispatch.replay(name, after, before, dry_run=asked.dry_run), asked.dry_run)
        finally:
            replaying.discard(mark)

    return [
        web.get("/v1/handlers", handlers),
        web.post("/v1/handlers/{name}/forget", forget),
        web.post("/v1/handlers/{name}/replay", replay),
    ]


def check_name(needs: Needs, name: str) -> None:
    """Raises NotFound, with those that there are, when no handler of the configuration has this name."""
    there = sorted(one["name"] for one in needs.dispatch.status())
    if name not in there:
        raise NotFound(f"no handler is called {name[:80]!a}; there are: {', '.join(there) or 'none is configured'}")


async def _told(needs: Needs, request: web.Request, matches: AsyncIterator[Match], dry_run: bool) -> web.StreamResponse:
    """A line for each match. What ends it early is the last line, and every line says up to where it is."""
    response = web.StreamResponse(headers={"Cache-Control": "no-cache, private"})
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    count, upto = 0, 0
    try:
        async with aclosing(closable(matches)) as whole, aclosing(patiently(whole)) as found:
            async for match in found:
                if match is None:
                    await send(needs, response, _line({"type": "waiting", "matched": count, "upTo": str(upto)}))
                    continue
                count, upto = count + 1, match[0].entry.revision
                await send(needs, response, _line(shown(match)))
    except VedetteError as why:
        await send(needs, response, error_event(why))
    else:
        await send(needs, response, _line({"type": "end", "matched": count, "upTo": str(upto), "dryRun": dry_run}))
    await response.write_eof()
    return response


async def patiently(matches: AsyncGenerator[Match, None], *, seconds: float = WAIT_SECONDS) -> AsyncGenerator[Match | None, None]:
    """The matches, and None whenever there was none for so many seconds."""
    step: asyncio.Task[Match] | None = None
    try:
        while True:
            step = asyncio.ensure_future(anext(matches))
            while not (await asyncio.wait([step], timeout=seconds))[0]:
                yield None
            try:
                found = step.result()
            except StopAsyncIteration:
                return
            yield found
    finally:
        if step is not None and not step.done():
            await cancel(step)


def shown(match: Match) -> dict[str, Any]:
    """A match as the API shows it."""
    appended, at, subject = match
    entry = appended.entry
    return {
        "type": "match",
        "revision": str(entry.revision),
        "eventType": entry.notice.event_type,
        "verb": appended.changes[at].verb if at >= 0 else "",
        "subject": subject,
        "sentAt": rfc3339_us(entry.notice.sent_at) if entry.notice.sent_at else None,
    }


def _line(told: dict[str, Any]) -> bytes:
    return msgspec.json.encode(told) + b"\n"
