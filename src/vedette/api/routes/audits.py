"""Audits and plans beyond Watcher's API: `POST /v1/audits/{ident}/replay` shows what one would have proposed, `…/trigger` sets it
off, `POST /v1/actionplans/{uuid}/start|cancel|approve` does that to a plan, `POST /v1/audits/purge` forgets what was deleted.
For admins.

(As objects that can be watched they are `audits.vedette.dev`, `actionplans.vedette.dev` and `actions.vedette.dev`; they are made
through compat/infra_optim.py.) `vedette audits` and `vedette plans` are the clients.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec
from aiohttp import web

from vedette.api.server import Needs, need_admin
from vedette.api.when import moment
from vedette.engine.records import Records
from vedette.errors import BadRequest, NotFound, Refused
from vedette.model.advice import Trigger
from vedette.model.audit import PLAN_BY_USER, RECORDS, ActionPlan, Audit, GoalRecord

T = TypeVar("T")


class _Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    at: str = ""


class _Purge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    before: str
    kinds: tuple[str, ...] = ()
    goal: str = ""
    most: int = 0
    dry_run: bool = False


_replay = msgspec.json.Decoder(_Replay)
_purge = msgspec.json.Decoder(_Purge)


def routes(needs: Needs) -> list[web.RouteDef]:
    def records() -> Records:
        if needs.records is None:
            raise NotFound("there are no audits here: the configuration has no section `audits`")
        return needs.records

    async def replay(request: web.Request) -> web.Response:
        need_admin(request)
        audit = records().find(Audit, request.match_info["ident"])
        assert needs.audits is not None, "they come together"
        said = _decoded(_replay, await request.read())
        at = said.at
        revision = int(at) if at.isdecimal() and len(at) < 19 else 0
        if at and not revision:
            revision = await needs.store.revision_at(moment(at, needs.clock.now_us(), "at"))
        return _json(await needs.audits.replay(audit.uuid, revision))

    async def trigger(request: web.Request) -> web.Response:
        identity = need_admin(request)
        audit = records().find(Audit, request.match_info["ident"])
        assert needs.audits is not None, "they come together"
        now = needs.clock.now_us()
        await needs.audits.trigger(audit.uuid, Trigger(at=now, cause="user", alarm={"by": identity.name}))
        return _json({"audit": audit.uuid, "name": audit.name}, 202)

    async def approve(request: web.Request) -> web.Response:
        identity = need_admin(request)

        def approved(plan: ActionPlan) -> ActionPlan:
            if plan.state not in ("RECOMMENDED", "PENDING"):
                raise Refused(f"action plan {plan.uuid} is {plan.state}: only one that was not begun can be approved")
            return msgspec.structs.replace(plan, approved_by=identity.name)

        return _json(await records().update(ActionPlan, request.match_info["uuid"], approved))

    async def start(request: web.Request) -> web.Response:
        need_admin(request)
        return _json(await records().update(ActionPlan, request.match_info["uuid"], lambda plan: _moved(plan, "PENDING")))

    async def cancel(request: web.Request) -> web.Response:
        need_admin(request)

        def cancelled(plan: ActionPlan) -> ActionPlan:
            return _moved(plan, "CANCELLING" if plan.state == "ONGOING" else "CANCELLED")

        return _json(await records().update(ActionPlan, request.match_info["uuid"], cancelled))

    async def purge(request: web.Request) -> web.Response:
        need_admin(request)
        there, said = records(), _decoded(_purge, await request.read())
        names = {kind.KIND for kind in RECORDS}
        for one in said.kinds:
            if one not in names:
                raise BadRequest(f"there is no kind {one[:40]!a}; there are {', '.join(sorted(names))}")
        before = moment(said.before, needs.clock.now_us(), "before")
        goal = there.find(GoalRecord, said.goal).uuid if said.goal else ""
        return _json(await there.purge(before, said.kinds, goal=goal, dry_run=said.dry_run, most=max(0, said.most)))

    return [
        web.post("/v1/audits/purge", purge),
        web.post("/v1/audits/{ident}/replay", replay),
        web.post("/v1/audits/{ident}/trigger", trigger),
        web.post("/v1/actionplans/{uuid}/approve", approve),
        web.post("/v1/actionplans/{uuid}/start", start),
        web.post("/v1/actionplans/{uuid}/cancel", cancel),
    ]


def _moved(plan: ActionPlan, state: str) -> ActionPlan:
    if state not in PLAN_BY_USER.get(plan.state, ()):
        raise Refused(f"action plan {plan.uuid} is {plan.state}: it can't become {state}")
    return msgspec.structs.replace(plan, state=state)


def _decoded(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body or b"{}")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise BadRequest(f"the body is not as it should be: {why}") from None


def _json(body: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
