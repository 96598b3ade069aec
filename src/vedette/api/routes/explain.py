"""Why a handler was called, or why not: `GET /v1/explain/{revision}`, or `/{dead letter's id}`. For admins.

engine/explain.py takes it apart; `vedette explain` is the client.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.server import Needs, need_admin
from vedette.api.when import is_revision
from vedette.engine import letters
from vedette.errors import BadRequest, Expired, NotFound

_LETTER = re.compile(r"(?P<handler>.+?)[./](?P<revision>[0-9]{1,19})(?:[./][0-9]{1,9})?", re.ASCII)
"""A dead letter's id, or a delivery's idempotency key."""


def routes(needs: Needs) -> list[web.RouteDef]:
    async def explain(request: web.Request) -> web.Response:
        need_admin(request)
        about = request.match_info["about"]
        match = _LETTER.fullmatch(about)
        if is_revision(about):
            told = await _explained(needs, int(about))
        elif match is not None:
            told = await _of_letter(needs, about, int(match["revision"]))
        else:
            raise BadRequest(f"{about[:80]!a} is neither a revision nor the id of a dead letter (<handler>.<revision>)")
        return web.Response(body=msgspec.json.encode(told), content_type="application/json")

    return [web.get("/v1/explain/{about:.+}", explain)]


async def _explained(needs: Needs, revision: int) -> dict[str, Any]:
    if revision > needs.store.head:
        raise NotFound(f"revision {revision} is not in the log yet, the newest is {needs.store.head}")
    try:
        return await needs.dispatch.explain(revision)
    except Expired:
        raise Expired(
            f"revision {revision} is not in the log any more, the oldest one is {needs.store.oldest + 1}"
            if revision <= needs.store.oldest
            else f"there is no revision {revision}"
        ) from None


async def _of_letter(needs: Needs, about: str, revision: int) -> dict[str, Any]:
    """Of the entry behind it; where that has left the log, what the letter itself holds."""
    try:
        return await _explained(needs, revision)
    except Expired as gone:
        found = await needs.dispatch.dead_letters(ids=(about,))
        if not found:
            raise
        event = letters.event_of(found[0])
        if event is None:
            raise Expired(f"the event of {about[:120]} is lost: {found[0].detail}") from None
        return {
            "revision": str(revision),
            "type": event.notice.event_type,
            "source": event.notice.source,
            "id": event.notice.id,
            "gone": f"{gone}; what the dead letter kept of it: vedette deadletters show {about}",
            "handlers": [{"handler": d.handler, "matched": None, "about": [], "deliveries": [letters.shown(d)]} for d in found],
        }
