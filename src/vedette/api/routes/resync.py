"""Compare with the cloud now: `POST /v1/resync`, for admins. The answer tells of each kind as it goes, one JSON object a line.

Body (all of it may be left out): `{"source": …, "kinds": ["port", …], "confirm": true}`. `?wait=false` answers 202 at once. The
pass goes on when the caller goes away. engine/resync.py does the work; `vedette resync` is the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.accept import truthy
from vedette.api.server import Needs, need_admin
from vedette.engine.resync import FINAL, KindReport
from vedette.errors import BadRequest, NotFound
from vedette.kit.clock import rfc3339_us

LOOK_SECONDS = 0.25
"""How often a waiting caller is told how far it is."""


class _Asked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str = ""
    kinds: tuple[str, ...] = ()
    confirm: bool = False


_asked = msgspec.json.Decoder(_Asked)


def routes(needs: Needs) -> list[web.RouteDef]:
    names = {name: kind.singular for kind in needs.kinds for name in (kind.singular, kind.plural, *kind.short_names)}

    async def resync(request: web.Request) -> web.StreamResponse:
        need_admin(request)
        body = await request.read()
        try:
            asked = _asked.decode(body) if body.strip() else _Asked()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
            raise BadRequest(f"the body is not what a resync takes: {why}") from None
        source = _source(needs, asked.source)
        kinds = []
        for name in asked.kinds:
            kind = names.get(name.lower())
            if kind is None:
                raise BadRequest(f"no kind is called {name[:80]!a}")
            kinds.append(kind)
        asked_us = needs.clock.now_us()
        done = needs.resync.ask(source, kinds, confirm=asked.confirm)
        wanted = frozenset(kinds or needs.resync.kinds)
        if "wait" in request.query and not truthy(request.query["wait"]):
            done.add_done_callback(_nobody_waits)
            told = msgspec.json.encode({"source": source, "kinds": sorted(wanted)}) + b"\n"
            return web.Response(status=202, body=told, content_type="application/json")
        return await _told(needs, request, source, wanted, asked_us, done)

    return [web.post("/v1/resync", resync)]


def _nobody_waits(done: asyncio.Future[Sequence[KindReport]]) -> None:
    """How it ended is in the status; here it is only looked at, or asyncio calls it forgotten."""
    if not done.cancelled():
        done.exception()


def _source(needs: Needs, name: str) -> str:
    there = needs.resync.sources
    if name:
        return name
    if len(there) == 1:
        return there[0]
    if needs.default_source in there:
        return needs.default_source
    if not there:
        raise NotFound("no source has an API to list from: give one to a source (`api:`)")
    raise BadRequest(f"say which source: {', '.join(there)}")


async def _told(
    needs: Needs, request: web.Request, source: str, wanted: frozenset[str], asked_us: int, done: asyncio.Future[Any]
) -> web.StreamResponse:
    """A line whenever a kind has got further, and at the end one of each. What ended before it was asked for is no news."""
    response = web.StreamResponse(headers={"Cache-Control": "no-cache, private"})
    response.content_type = "application/x-ndjson"
    await response.prepare(request)
    said: dict[str, tuple[Any, ...]] = {}
    begun: set[str] = set()
    while not done.done():
        for one in needs.resync.reports():
            if one.source != source:
                continue
            for report in one.kinds:
                if report.kind not in wanted:
                    continue
                if report.ended_at >= asked_us or (report.state not in FINAL and report.state != "never"):
                    begun.add(report.kind)
                far = (report.state, report.listed, report.missed)
                if report.kind in begun and said.get(report.kind) != far:
                    said[report.kind] = far
                    await response.write(line(report))
        await asyncio.wait([done], timeout=LOOK_SECONDS)
    for report in await asyncio.shield(done):
        await response.write(line(report))
    await response.write_eof()
    return response


def line(report: KindReport) -> bytes:
    """One kind's report as a line of JSON."""
    return msgspec.json.encode(shown(report)) + b"\n"


def shown(report: KindReport) -> dict[str, Any]:
    """A report as the API shows it."""
    return {
        "kind": report.kind,
        "state": report.state,
        "detail": report.detail,
        "listed": report.listed,
        "missed": {"created": report.created, "updated": report.updated, "deleted": report.deleted},
        "completed": report.completed,
        "held": report.held,
        "seesAll": report.sees_all,
        "seconds": round(report.took, 3),
        "endedAt": rfc3339_us(report.ended_at) if report.ended_at else None,
        "completeAt": rfc3339_us(report.complete_at) if report.complete_at else None,
    }
