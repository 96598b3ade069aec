"""How the service is: `/healthz`, `/livez`, `/readyz`, `/metrics`, `/v1/status`; and `/v1/tickets` for browsers."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from vedette.api.routes.resync import shown
from vedette.api.server import IDENTITY, TOKEN, Needs, is_loopback, need_admin
from vedette.engine.polling import exposition
from vedette.errors import NotFound
from vedette.kit.clock import rfc3339_us


def routes(needs: Needs) -> list[web.RouteDef]:
    async def alive(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def ready(_request: web.Request) -> web.Response:
        """200 while every source is connected and the store can be read; 503 names what is not (no details: it is open)."""
        lines = [f"[{'+' if one.ready else '-'}] source {one.name}" for one in needs.sources()]
        well = all(one.ready for one in needs.sources())
        return web.Response(status=200 if well else 503, text="\n".join([*lines, "ok" if well else "not ready"]) + "\n")

    async def metrics(request: web.Request) -> web.Response:
        if not is_loopback(request):
            need_admin(request)
        return web.Response(body=needs.telemetry.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def cloud_metrics(request: web.Request) -> web.Response:
        """What servers use, for Prometheus: nothing of ours, and every project's, so for whom `/metrics` is for."""
        if not is_loopback(request):
            need_admin(request)
        if needs.polling is None:
            raise NotFound("servers are not measured: add a section polling to the configuration")
        body = exposition(needs.polling.shown())
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def tell(request: web.Request) -> web.Response:
        """Sources, store, handlers and watchers, for admins: what `vedette doctor` and a person at 3 a.m. look at."""
        need_admin(request)
        stats = await needs.store.stats()
        body = {
            "sources": [
                {
                    "name": one.name,
                    "type": one.type,
                    "ready": one.ready,
                    "detail": one.detail,
                    "lastProgress": rfc3339_us(one.last_progress) if one.last_progress else None,
                    "gaps": one.gaps,
                }
                for one in needs.sources()
            ],
            "store": {
                "entries": stats.entries,
                "objects": stats.objects,
                "bytes": stats.bytes,
                "oldestRevision": str(stats.oldest),
                "headRevision": str(stats.head),
            },
            "clouds": _clouds(needs),
            "handlers": needs.dispatch.status(),
            "mirrors": needs.mirrors(),
            "polling": None if needs.polling is None else needs.polling.status(),
            "watch": {"position": str(needs.hub.position), "watchers": needs.hub.watchers},
        }
        return web.Response(body=msgspec.json.encode(body) + b"\n", content_type="application/json")

    async def ticket(request: web.Request) -> web.Response:
        """One ticket, good for one `GET /v1/events?ticket=…` within half a minute: a browser's EventSource sends no headers."""
        issued = {
            "ticket": needs.tickets.issue(request[IDENTITY], request[TOKEN]),
            "expiresAt": rfc3339_us(needs.clock.now_us() + int(needs.tickets.life_seconds * 1_000_000)),
        }
        return web.Response(status=201, body=msgspec.json.encode(issued) + b"\n", content_type="application/json")

    return [
        web.get("/healthz", alive),
        web.get("/livez", alive),
        web.get("/readyz", ready),
        web.get("/metrics", metrics),
        web.get("/metrics/cloud", cloud_metrics),
        web.get("/v1/status", tell),
        web.post("/v1/tickets", ticket),
    ]


def _clouds(needs: Needs) -> list[dict[str, Any]]:
    """What is known of each source's API: how true the inventory is, and what is looked after."""
    verified = {one.source: one for one in needs.verify.reports()}
    found: list[dict[str, Any]] = []
    for one in needs.resync.reports():
        looks = verified.get(one.source)
        found.append(
            {
                "source": one.source,
                "api": True,
                "resync": {
                    "state": one.state,
                    "detail": one.detail,
                    "nextInSeconds": round(one.next_in, 1) or None,
                    "kinds": [shown(report) for report in one.kinds],
                },
                "verify": None
                if looks is None
                else {"followed": looks.followed, "waiting": looks.waiting, "detail": looks.detail},
            }
        )
    there = {one["source"] for one in found}
    alone = [name for name in needs.source_names if name not in there]
    return found + [{"source": name, "api": False, "detail": "no API is set: notifications are all there is"} for name in alone]
