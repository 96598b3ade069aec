"""OpenStack Watcher's API (v1, microversions 1.0 to 1.7) on our records: under `/infra-optim`, and at a port of its own.

Requests come in, records are read and written (engine/records.py), and engine/audits.py and engine/applier.py act on what they
see there. Only a webhook calls something: `trigger`, which returns when the trigger is durable. `python-watcherclient` and
`openstack optimize` work unchanged. What Watcher does and we don't, is in docs/howto/from-watcher.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.server import IDENTITY, Face
from vedette.compat._optim_audits import audit_of, changed, template_changed, template_of
from vedette.compat._optim_http import (
    Item,
    answer,
    body_of,
    empty,
    error,
    listed,
    patch_error,
    patch_of,
    patched,
    version_of,
)
from vedette.compat._optim_shown import ACTIONS, AUDITS, PLANS, RESOURCES, STRATEGIES, TEMPLATES, Resource
from vedette.engine.records import Records
from vedette.errors import BadRequest, Conflict, Forbidden, NotAcceptable, NotFound
from vedette.kit.clock import Clock
from vedette.model.advice import Trigger
from vedette.model.alarmed import LARGEST as LARGEST_ALARM
from vedette.model.alarmed import trigger_of
from vedette.model.audit import (
    AUDIT_DELETABLE,
    PLAN_BY_USER,
    PLAN_DELETABLE,
    Action,
    ActionPlan,
    Audit,
    AuditTemplate,
    Record,
    StrategyRecord,
)
from vedette.ports import Identity

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ADMIN_ROLES = frozenset({"administrator"})
"""Beside those of `auth.keystone.admin_roles`; Watcher's policy `admin_api` has it."""
SERVICE_ROLES = ADMIN_ROLES | {"service"}
TRIES = 10


class OptimNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What the API stands on."""

    records: Records
    clock: Clock
    trigger: Callable[[str, Trigger], Awaitable[None]]
    """`Audits.trigger`."""
    strategy_state: Callable[[str], Awaitable[list[Item]]]
    data_model: Callable[[str], Awaitable[list[Item]]]
    """Rows, in the scope of an audit ("": all)."""
    services: Callable[[], Sequence[Item]]
    """`id name host status last_seen_up` of each."""
    enable_webhooks_auth: bool = True
    max_limit: int = 1000


def face(needs: OptimNeeds, prefix: str = "") -> Face:
    """The routes below `prefix` ("": at the root) with their errors in Watcher's form."""
    hook = f"{prefix}/v1/webhooks/{{ident}}"

    def in_its_form(request: web.Request, why: Exception) -> web.Response | None:
        ours = not prefix or request.path == prefix or request.path.startswith(f"{prefix}/")
        return error(request, why) if ours else None

    return Face(
        routes=_Api(needs, prefix).routes(),
        public=frozenset() if needs.enable_webhooks_auth else frozenset({hook, f"{hook}/"}),
        error=in_its_form,
    )


class _Api:
    """The routes. Each begins with who may, then with the microversion."""

    def __init__(self, needs: OptimNeeds, prefix: str) -> None:
        self._needs = needs
        self._records = needs.records
        self._prefix = prefix

    def routes(self) -> list[web.RouteDef]:
        """Each with and without a slash at its end: clients send both."""
        found = self._routes()
        return [
            *found,
            *(web.route(one.method, f"{one.path}/", one.handler) for one in found if not one.path.endswith("/")),
        ]

    def _routes(self) -> list[web.RouteDef]:
        at = f"{self._prefix}/v1"
        found: list[web.RouteDef] = [web.get(self._prefix or "/", self.root), web.get(at, self.v1)]
        for resource in RESOURCES:
            found += [
                web.get(f"{at}/{resource.name}", self._lister(resource, detail=False)),
                web.get(f"{at}/{resource.name}/detail", self._lister(resource, detail=True)),
                web.get(f"{at}/{resource.name}/{{ident}}", self._getter(resource)),
            ]
        return [
            *found,
            web.get(f"{at}/strategies/{{ident}}/state", self.strategy_state),
            web.post(f"{at}/audit_templates", self.create_template),
            web.patch(f"{at}/audit_templates/{{ident}}", self.change_template),
            web.delete(f"{at}/audit_templates/{{ident}}", self.delete_template),
            web.post(f"{at}/audits", self.create_audit),
            web.patch(f"{at}/audits/{{ident}}", self.change_audit),
            web.delete(f"{at}/audits/{{ident}}", self.delete_audit),
            web.post(f"{at}/action_plans/{{ident}}/start", self.start_plan),
            web.patch(f"{at}/action_plans/{{ident}}", self.change_plan),
            web.delete(f"{at}/action_plans/{{ident}}", self.delete_plan),
            web.patch(f"{at}/actions/{{ident}}", self.change_action),
            web.get(f"{at}/services", self._services(detail=False)),
            web.get(f"{at}/services/detail", self._services(detail=True)),
            web.get(f"{at}/services/{{ident}}", self.service),
            web.get(f"{at}/data_model", self.data_model),
            web.post(f"{at}/webhooks/{{ident}}", self.webhook),
        ]

    # --- what there is -----------------------------------------------------------------------------------------------------

    def _base(self, request: web.Request) -> str:
        """Of links: as the caller reached us."""
        return f"{request.scheme}://{request.host}{self._prefix}"

    async def root(self, request: web.Request) -> web.Response:
        version = {
            "id": "v1",
            "status": "CURRENT",
            "min_version": "1.0",
            "version": "1.7",
            "max_version": "1.7",
            "links": [{"href": f"{self._base(request)}/v1/", "rel": "self"}],
        }
        return answer(
            request,
            {
                "name": "OpenStack Watcher API",
                "description": "Audits and action plans of Vedette, in the form of OpenStack Watcher's API.",
                "versions": [version],
                "default_version": version,
            },
        )

    async def v1(self, request: web.Request) -> web.Response:
        self._admin(request, "v1:get")
        version, base = version_of(request), self._base(request)
        body: Item = {
            "id": "v1",
            "media_types": [{"base": "application/json", "type": "application/vnd.openstack.watcher.v1+json"}],
            "links": [{"href": f"{base}/v1/", "rel": "self"}],
        }
        names = [*(one.name for one in RESOURCES), "services"]
        names += ["data_model"] if version >= (1, 3) else []
        names += ["webhooks"] if version >= (1, 4) else []
        for name in names:
            body[name] = [{"href": f"{base}/v1/{name}/", "rel": "self"}, {"href": f"{base}/{name}/", "rel": "bookmark"}]
        return answer(request, body)

    def _lister(self, resource: Resource, *, detail: bool) -> Handler:
        async def every(request: web.Request) -> web.Response:
            self._admin(request, f"{resource.policy}:{'detail' if detail else 'get_all'}")
            version, base = version_of(request), self._base(request)
            records = self._filtered(request, resource)
            if request.headers.get("X-Show-Deleted", "").lower() == "true":
                gone = await self._records.deleted(resource.kind)
                records = sorted([*records, *gone], key=lambda one: one.created_at)
            shown = [resource.show(one, base, version, detail=detail) for one in records]
            body = listed(
                request,
                shown,
                base=base,
                resource=resource.name,
                max_limit=self._needs.max_limit,
                keys=[name for name in resource.full if version >= resource.since.get(name, (1, 0))],
                filters=resource.filters,
                detail=detail,
            )
            return answer(request, body)

        return every

    def _filtered(self, request: web.Request, resource: Resource) -> list[Any]:
        query = request.query
        if resource is ACTIONS:
            plan, audit = query.get("action_plan_uuid"), query.get("audit_uuid")
            if plan and audit:
                raise BadRequest("Filtering actions on both audit and action-plan is prohibited")
            if plan:
                return list(self._records.actions_of(plan))
            if audit:
                return [one for each in self._records.plans_of(audit) for one in self._records.actions_of(each.uuid)]
            return list(self._records.all(Action))
        found: list[Any] = list(self._records.all(resource.kind))
        if audit_uuid := query.get("audit_uuid") if resource is PLANS else None:
            found = list(self._records.plans_of(audit_uuid))
        for name in ("goal", "strategy"):
            wanted = query.get(name) if name in resource.filters else None
            if wanted:
                found = [one for one in found if wanted in (getattr(one, f"{name}_uuid"), getattr(one, f"{name}_name"))]
        return found

    def _getter(self, resource: Resource) -> Handler:
        async def one(request: web.Request) -> web.Response:
            self._admin(request, f"{resource.policy}:get")
            version = version_of(request)
            ident = request.match_info["ident"]
            try:
                record = self._found(resource, ident)
            except NotFound:
                if request.headers.get("X-Show-Deleted", "").lower() != "true":
                    raise
                gone = [each for each in await self._records.deleted(resource.kind) if each.uuid == ident]
                if not gone:
                    raise
                record = gone[0]
            return answer(request, resource.show(record, self._base(request), version, detail=True))

        return one

    def _found(self, resource: Resource, ident: str) -> Any:
        """Raises NotFound in Watcher's words."""
        try:
            if resource.by_name:
                return self._records.find(resource.kind, ident)
            return self._records.get(resource.kind, ident)
        except NotFound:
            raise NotFound(f"{resource.kind.KIND} {ident[:100]} could not be found") from None

    # --- strategies, services, data model ----------------------------------------------------------------------------------

    async def strategy_state(self, request: web.Request) -> web.Response:
        self._admin(request, "strategy:state")
        version_of(request)
        record: StrategyRecord = self._found(STRATEGIES, request.match_info["ident"])
        return answer(request, await self._needs.strategy_state(record.name))

    def _shown_service(self, one: Item, base: str, *, detail: bool) -> Item:
        names = ("id", "name", "host", "status", *(("last_seen_up", *_TIMES) if detail else ()))
        links = [
            {"href": f"{base}/v1/services/{one['id']}", "rel": "self"},
            {"href": f"{base}/services/{one['id']}", "rel": "bookmark"},
        ]
        return {**{name: one.get(name) for name in names}, "links": links}

    def _services(self, *, detail: bool) -> Handler:
        async def every(request: web.Request) -> web.Response:
            self._admin(request, f"service:{'detail' if detail else 'get_all'}")
            version_of(request)
            base = self._base(request)
            shown = [self._shown_service(one, base, detail=detail) for one in self._needs.services()]
            body = listed(
                request,
                shown,
                base=base,
                resource="services",
                max_limit=self._needs.max_limit,
                keys=("id", "name", "host", "status", "last_seen_up"),
                detail=detail,
                marker_field="id",
            )
            return answer(request, body)

        return every

    async def service(self, request: web.Request) -> web.Response:
        self._admin(request, "service:get")
        version_of(request)
        ident = request.match_info["ident"]
        for one in self._needs.services():
            if ident in (str(one["id"]), one["name"]):
                return answer(request, self._shown_service(one, self._base(request), detail=True))
        raise NotFound(f"The service resource {ident[:100]} could not be found")

    async def data_model(self, request: web.Request) -> web.Response:
        self._admin(request, "data_model:get_all")
        version = version_of(request)
        if version < (1, 3):
            raise NotAcceptable("Request not acceptable.")
        kind = request.query.get("data_model_type", "compute")
        if kind != "compute":
            raise NotFound(f"The {kind[:60]} data model could not be found")
        audit = request.query.get("audit_uuid") or request.query.get("audit") or ""
        if audit:
            audit = self._found(AUDITS, audit).uuid
        rows = await self._needs.data_model(audit)
        if version < (1, 6):
            newer = ("server_pinned_az", "server_flavor_extra_specs")
            rows = [{name: value for name, value in row.items() if name not in newer} for row in rows]
        return answer(request, {"context": rows})

    # --- templates ---------------------------------------------------------------------------------------------------------

    async def create_template(self, request: web.Request) -> web.Response:
        self._admin(request, "audit_template:create")
        version = version_of(request)
        template = template_of(await body_of(request), self._records, version)
        (kept,) = await self._records.write([template])
        return self._made(request, TEMPLATES, kept)

    async def change_template(self, request: web.Request) -> web.Response:
        self._admin(request, "audit_template:update")
        version, body = version_of(request), await body_of(request)
        ident = self._found(TEMPLATES, request.match_info["ident"]).uuid
        kept = await self._records.update(AuditTemplate, ident, lambda one: template_changed(one, body, self._records, version))
        return answer(request, TEMPLATES.show(kept, self._base(request), version, detail=True))

    async def delete_template(self, request: web.Request) -> web.Response:
        self._admin(request, "audit_template:delete")
        version_of(request)
        await self._records.write(deletes=[self._found(TEMPLATES, request.match_info["ident"])])
        return empty(request, 204)

    # --- audits ------------------------------------------------------------------------------------------------------------

    async def create_audit(self, request: web.Request) -> web.Response:
        self._admin(request, "audit:create")
        version = version_of(request)
        audit = audit_of(await body_of(request), self._records, version, self._needs.clock.now_us())
        (kept,) = await self._records.write([audit])
        return self._made(request, AUDITS, kept)

    async def change_audit(self, request: web.Request) -> web.Response:
        self._admin(request, "audit:update")
        version, body = version_of(request), await body_of(request)
        ident = self._found(AUDITS, request.match_info["ident"]).uuid
        kept = await self._records.update(Audit, ident, lambda one: changed(one, body, self._records, version))
        return answer(request, AUDITS.show(kept, self._base(request), version, detail=True))

    async def delete_audit(self, request: web.Request) -> web.Response:
        self._admin(request, "audit:delete")
        version_of(request)
        audit: Audit = self._found(AUDITS, request.match_info["ident"])
        if audit.state not in AUDIT_DELETABLE:
            raise BadRequest(f"Couldn't delete when state is '{audit.state}'.")
        await self._records.write(deletes=[audit])
        return empty(request, 204)

    # --- plans and actions -------------------------------------------------------------------------------------------------

    async def start_plan(self, request: web.Request) -> web.Response:
        self._admin(request, "action_plan:start")
        version = version_of(request)
        ident = self._found(PLANS, request.match_info["ident"]).uuid

        def started(plan: ActionPlan) -> ActionPlan:
            if plan.state != "RECOMMENDED":
                raise BadRequest(f"Couldn't start when state is '{plan.state}'.")
            return msgspec.structs.replace(plan, state="PENDING")

        kept = await self._records.update(ActionPlan, ident, started)
        return answer(request, PLANS.show(kept, self._base(request), version, detail=True))

    async def change_plan(self, request: web.Request) -> web.Response:
        self._admin(request, "action_plan:update")
        version, body = version_of(request), await body_of(request)
        ident = self._found(PLANS, request.match_info["ident"]).uuid
        patch = patch_of(body, internal=_PLAN_OURS)
        for _ in range(TRIES):
            plan = self._records.get(ActionPlan, ident)
            after = patched({"state": plan.state}, patch).get("state")
            if plan.requested_by:
                raise BadRequest(patch_error(patch, f"it was asked for by {plan.requested_by}, and is under way"))
            if not (isinstance(after, str) and after in PLAN_BY_USER.get(plan.state, ())):
                raise BadRequest(patch_error(patch, f"State transition not allowed: ({plan.state} -> {str(after)[:40]})"))
            puts: list[Record] = [msgspec.structs.replace(plan, state=after)]
            if after == "CANCELLED":
                # Nothing of it was begun, so nobody else will.
                puts += [
                    msgspec.structs.replace(one, state="CANCELLED", outcome="cancelled")
                    for one in self._records.actions_of(ident)
                    if one.state == "PENDING"
                ]
            try:
                kept = (await self._records.write(puts))[0]
            except Conflict:
                continue
            return answer(request, PLANS.show(kept, self._base(request), version, detail=True))
        raise Conflict(f"action plan {ident} changes all the time")

    async def delete_plan(self, request: web.Request) -> web.Response:
        self._admin(request, "action_plan:delete")
        version_of(request)
        plan: ActionPlan = self._found(PLANS, request.match_info["ident"])
        if plan.state not in PLAN_DELETABLE:
            raise BadRequest(f"Couldn't delete when state is '{plan.state}'.")
        await self._records.write(deletes=[plan, *self._records.actions_of(plan.uuid)])
        return empty(request, 204)

    async def change_action(self, request: web.Request) -> web.Response:
        self._admin(request, "action:update")
        version = version_of(request)
        if version < (1, 5):
            raise BadRequest("API microversion 1.5 or higher is required.")
        patch = patch_of(await body_of(request))
        ident = self._found(ACTIONS, request.match_info["ident"]).uuid
        kept = await self._records.update(Action, ident, lambda one: self._skipped(one, patch))
        return answer(request, ACTIONS.show(kept, self._base(request), version, detail=True))

    def _skipped(self, action: Action, patch: list[Item]) -> Action:
        """Raises BadRequest, Conflict."""
        before = {"state": action.state, "status_message": action.status_message}
        after = patched(before, patch)
        if set(after) - set(before):
            raise BadRequest(patch_error(patch, "only state and status_message can be changed"))
        reason = after.get("status_message")
        if reason is not None and not isinstance(reason, str):
            raise BadRequest("Invalid input for field/attribute status_message.")
        if after.get("state") != action.state:
            if (action.state, after.get("state")) != ("PENDING", "SKIPPED"):
                raise Conflict(f"State transition not allowed: ({action.state} -> {str(after.get('state'))[:40]})")
            plan = self._records.get(ActionPlan, action.action_plan_uuid)
            if plan.state not in ("RECOMMENDED", "PENDING"):
                raise Conflict(f"State update not allowed for actionplan state: {plan.state}")
        elif reason != action.status_message and action.state != "SKIPPED":
            raise Conflict("status_message update only allowed when action state is SKIPPED")
        message = "Action skipped by user."
        if reason is not None and reason != action.status_message:
            message += f" Reason: {reason[:255]}"
        elif after.get("state") == action.state:
            return action
        return msgspec.structs.replace(action, state="SKIPPED", status_message=message, outcome="skipped")

    # --- webhooks ----------------------------------------------------------------------------------------------------------

    async def webhook(self, request: web.Request) -> web.Response:
        version_of(request)
        ident = request.match_info["ident"]
        if self._needs.enable_webhooks_auth:
            self._allowed(request, "webhook:trigger", SERVICE_ROLES)
        if (request.content_length or 0) > LARGEST_ALARM:
            raise web.HTTPRequestEntityTooLarge(LARGEST_ALARM, request.content_length or 0)
        body = await request.read()
        if len(body) > LARGEST_ALARM:
            raise web.HTTPRequestEntityTooLarge(LARGEST_ALARM, len(body))
        audit: Audit = self._found(AUDITS, ident)
        await self._needs.trigger(audit.uuid, trigger_of(body, self._needs.clock.now_us()))
        return empty(request, 202)

    # --- who may -----------------------------------------------------------------------------------------------------------

    def _admin(self, request: web.Request, action: str) -> None:
        self._allowed(request, action, ADMIN_ROLES)

    def _allowed(self, request: web.Request, action: str, roles: frozenset[str]) -> None:
        """Raises Forbidden in Watcher's words."""
        identity: Identity = request[IDENTITY]
        reads = request.method in ("GET", "HEAD")
        if (identity.scope.admin and (reads or not identity.reads_only)) or roles & {role.lower() for role in identity.roles}:
            return
        raise Forbidden(f"Policy doesn't allow {action} to be performed.")

    def _made(self, request: web.Request, resource: Resource, record: Record) -> web.Response:
        base = self._base(request)
        shown = resource.show(record, base, version_of(request), detail=True)
        return answer(request, shown, 201, {"Location": f"{base}/v1/{resource.name}/{record.uuid}"})


_TIMES = ("created_at", "updated_at", "deleted_at")
_PLAN_OURS = frozenset(
    {"status_message", "audit_uuid", "strategy_uuid", "strategy_name", "efficacy_indicators", "global_efficacy", "hostname"}
)
