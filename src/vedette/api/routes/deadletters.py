"""Dead letters: `GET /v1/deadletters` lists them, `GET /v1/deadletters/{id}` shows one with its event, `POST
/v1/deadletters/redrive` has them delivered again, `…/discard` takes them out. For admins. engine/dispatch.py does the work;
`vedette deadletters` is the client. (As objects that can be watched they are `deadletters.vedette.dev`.)

Which ones: `ids`, or `handler`, `since`, `until` (when they failed: a time, or a span that counts back from now) and `contains`
(a piece of the error or of the event); for all of them `all`. A redrive or a discard answers with a line now and then that says
how far it is, and one with the sum. It ends when its caller goes away, between two letters.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.routes.handlers import check_name
from vedette.api.server import Needs, need_admin
from vedette.api.status import error_event
from vedette.api.streams import send
from vedette.api.when import moment
from vedette.engine import letters
from vedette.errors import BadRequest, NotFound, TooBusy, VedetteError
from vedette.kit.clock import rfc3339_us
from vedette.kit.log import kv
from vedette.kit.tasks import cancel
from vedette.model.delivery import Delivery

log = logging.getLogger("vedette.api.deadletters")

PAGE = 500
"""Letters in a list unless `limit` says otherwise."""
MOST = 10_000
MOST_IDS = 10_000
LOOK_SECONDS = 0.25
"""How often a caller is told how far it is."""
RATES = (0.001, 100_000.0)
"""A second: the least and the most that make sense."""


class _Which(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    ids: tuple[str, ...] = ()
    handler: str = ""
    since: str = ""
    until: str = ""
    contains: str = ""
    all: bool = False
    rate: float = 0.0


_which = msgspec.json.Decoder(_Which)


def routes(needs: Needs) -> list[web.RouteDef]:
    busy = asyncio.Lock()

    async def every(request: web.Request) -> web.Response:
        need_admin(request)
        query = request.query
        odd = sorted(set(query) - {"handler", "since", "until", "contains", "limit"})
        if odd:
            raise BadRequest(f"there is no {odd[0][:40]!a} here; there are handler, since, until, contains and limit")
        limit = query.get("limit", str(PAGE))
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10 and 1 <= int(limit) <= MOST):
            raise BadRequest(f"limit is a number from 1 to {MOST}, not {limit[:40]!a}")
        which = _Which(
            handler=query.get("handler", ""),
            since=query.get("since", ""),
            until=query.get("until", ""),
            contains=query.get("contains", ""),
        )
        found = await _chosen(needs, which)
        body = {"total": len(found), "items": [shown(d) for d in found[: int(limit)]]}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def letter(request: web.Request) -> web.Response:
        need_admin(request)
        name = request.match_info["id"]
        found = await needs.dispatch.dead_letters(ids=(name,))
        if not found:
            raise NotFound(f"no dead letter is called {name[:120]!a}; it may have been redriven or discarded")
        body = {**shown(found[0]), "event": _told_event(found[0])}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def redrive(request: web.Request) -> web.StreamResponse:
        who = need_admin(request).name
        which = await _asked(request)
        there = {one["name"] for one in needs.dispatch.status()}

        async def work(some: Sequence[Delivery]) -> int:
            return await needs.dispatch.redrive(some, rate=which.rate, who=who)

        def check(found: Sequence[Delivery]) -> None:
            gone = sorted({d.handler for d in found} - there)
            if gone:
                raise NotFound(
                    f"handler {gone[0]} is not configured, nobody could take its letters: configure it again, or discard them"
                )

        return await _settle(needs, request, busy, which, "redriven", work, check)

    async def discard(request: web.Request) -> web.StreamResponse:
        who = need_admin(request).name
        which = await _asked(request)

        async def work(some: Sequence[Delivery]) -> int:
            return await needs.dispatch.discard(some, who=who)

        return await _settle(needs, request, busy, which, "discarded", work, lambda _found: None)

    return [
        web.get("/v1/deadletters", every),
        web.post("/v1/deadletters/redrive", redrive),
        web.post("/v1/deadletters/discard", discard),
        web.get("/v1/deadletters/{id}", letter),
    ]


async def _asked(request: web.Request) -> _Which:
    body = await request.read()
    try:
        which = _which.decode(body) if body.strip() else _Which()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise BadRequest(f"the body does not say which dead letters: {why}") from None
    chosen = which.handler or which.since or which.until or which.contains
    if which.ids and (chosen or which.all):
        raise BadRequest("ids name the letters: leave the other conditions out")
    if len(which.ids) > MOST_IDS:
        raise BadRequest(f"at most {MOST_IDS} ids at a time")
    if not (which.ids or chosen or which.all):
        raise BadRequest('no dead letter is chosen: give ids, or handler, since, until, contains; or "all": true for every one')
    if which.rate and not (math.isfinite(which.rate) and RATES[0] <= which.rate <= RATES[1]):
        raise BadRequest(f"rate is a number of calls a second from {RATES[0]:g} to {RATES[1]:g}; 0 or none: no limit")
    return which


async def _chosen(needs: Needs, which: _Which) -> list[Delivery]:
    """Raises NotFound when there is no such handler, or no letter of one of the ids."""
    now = needs.clock.now_us()
    found = await needs.dispatch.dead_letters(
        handler=which.handler,
        ids=which.ids,
        since=moment(which.since, now, "since") if which.since else 0,
        until=moment(which.until, now, "until") if which.until else 0,
        contains=which.contains,
    )
    if which.handler and not found:
        # Letters of one that is not configured any more are found; nothing is found of a name that never was.
        check_name(needs, which.handler)
    missing = sorted(set(which.ids) - {letters.letter_id(d) for d in found})
    if missing:
        raise NotFound(
            f"no dead letter is called {missing[0][:120]!a}; it may have been redriven or discarded. Nothing was done"
            if len(missing) == 1
            else f"{len(missing)} of these are no dead letters, such as {missing[0][:120]!a}. Nothing was done"
        )
    return found


class _Letters(Sequence[Delivery]):
    """Handed out one by one, so that one sees how far it is."""

    def __init__(self, some: Sequence[Delivery]) -> None:
        self._some = some
        self.begun = 0

    def __len__(self) -> int:
        return len(self._some)

    def __getitem__(self, at: Any) -> Any:
        return self._some[at]

    def __iter__(self) -> Iterator[Delivery]:
        for one in self._some:
            self.begun += 1
            yield one


async def _settle(
    needs: Needs,
    request: web.Request,
    busy: asyncio.Lock,
    which: _Which,
    word: str,
    work: Callable[[Sequence[Delivery]], Awaitable[int]],
    check: Callable[[Sequence[Delivery]], None],
) -> web.StreamResponse:
    """One at a time: each has its letters in memory, with their events."""
    if busy.locked():
        raise TooBusy("dead letters are being redriven or discarded; wait until that has ended", delay=2)
    async with busy:
        found = await _chosen(needs, which)
        check(found)
        lost = [letters.letter_id(d) for d in found if not d.event] if word == "redriven" else []
        some = _Letters([d for d in found if d.event] if word == "redriven" else found)
        response = web.StreamResponse(headers={"Cache-Control": "no-cache, private"})
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        log.info("dead letters are %s", word, extra=kv(letters=len(some), who=need_admin(request).name))
        task = asyncio.ensure_future(work(some))
        try:
            said = -1
            while not (await asyncio.wait([task], timeout=LOOK_SECONDS))[0]:
                if some.begun != said:
                    said = some.begun
                    await send(needs, response, _line({"type": "progress", "done": max(0, said - 1), "of": len(some)}))
            settled = task.result()
        except VedetteError as why:
            await send(needs, response, error_event(why))
        else:
            await send(needs, response, _line({"type": "end", word: settled, "lost": lost}))
        finally:
            await cancel(task)
        await response.write_eof()
    return response


def _line(told: dict[str, Any]) -> bytes:
    return msgspec.json.encode(told) + b"\n"


# --- how one is shown ------------------------------------------------------------------------------------------------------


def shown(d: Delivery) -> dict[str, Any]:
    """A dead letter as the API shows it, but for its event."""
    return {"id": letters.letter_id(d), **letters.fields_of(d, letters.event_of(d))}


def _told_event(d: Delivery) -> dict[str, Any] | None:
    """The copy that is kept; None: it is lost."""
    event = letters.event_of(d)
    if event is None:
        return None
    notice = event.notice
    return {
        "notification": {
            "id": notice.id,
            "source": notice.source,
            "type": notice.event_type,
            "sentAt": rfc3339_us(notice.sent_at) if notice.sent_at else None,
            "publisher": notice.publisher,
            "requestId": notice.request_id,
            "user": notice.actor_user,
            "project": notice.actor_project,
            "origin": notice.origin,
            "payload": notice.payload,
        },
        "verb": event.verb,
        "object": event.raw_object if event.verb else None,
        "old": event.raw_old if event.verb and event.raw_old != msgspec.Raw(b"{}") else None,
        "appendedAt": rfc3339_us(event.appended_at),
        "requestId": event.request_id,
        "replay": event.replay,
    }
