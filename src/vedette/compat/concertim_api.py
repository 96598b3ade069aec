"""The API that a Concertim front end asks, both generations of it: under `/concertim`, and at a port of its own (42356).

Requests come in with a signature of the front end's and the credentials of whom it asks for (`cloud_env`). What is asked for is
done with these credentials, which are forgotten when the request is over. Users, teams and key pairs are made at once
(_concertim_accounts.py); what a button does to a rack, a device, a volume or a network is an action plan of one step, in the log
before it is begun (engine/errands.py). The front end asks up to ten times: twice is as good as once.

What is different from the service that this replaces, and why, is in docs/howto/from-concertim-openstack-service.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from vedette.api.server import Face
from vedette.clients.keystone import Credentials, issue_token
from vedette.clients.openstack import OpenStackCloud
from vedette.compat._concertim_accounts import Accounts, Names
from vedette.compat._concertim_again import Again, Answered
from vedette.compat._concertim_billing import Billing
from vedette.compat._concertim_http import (
    LONGEST_KEY,
    CloudEnv,
    InvalidCall,
    Missing,
    Partial,
    answer,
    body_of,
    check_signature,
    cloud_env_of,
    error,
    generation,
    inner,
    optional,
    same_url,
    text,
)
from vedette.engine.errands import Errand, Errands
from vedette.errors import BadRequest, Conflict, GiveUp, NoService, NotFound, Refused, Unauthenticated, VedetteError
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.model.paths import segment
from vedette.ports import Cloud, JsonObject

log = logging.getLogger("vedette.compat.concertim_api")

COMPUTE, NETWORK, BLOCK_STORAGE, ORCHESTRATION = "compute", "network", "block-storage", "orchestration"
KEYPAIRS_MICROVERSION = "2.2"
STATISTICS_MICROVERSION = "2.53"
"""From 2.88 on Nova has no totals of its hypervisors any more."""
STATISTICS = {
    "total_vcpus": "vcpus",
    "used_vcpus": "vcpus_used",
    "total_disk_space": "local_gb",
    "used_disk_space": "local_gb_used",
    "total_ram": "memory_mb",
    "used_ram": "memory_mb_used",
    "running_vms": "running_vms",
}
"""The front end's word and Nova's. Disks are in GiB, memory in MiB."""
TIMEOUT_SECONDS = 45.0
"""For one try of a request to the cloud, of which there may be several: the front end waits for 60, and asks again."""
REFUSED_SECONDS = 60.0
"""After Keystone refused a user's credentials: until it is asked with the same ones again."""
MOST_REFUSED = 1_000
REFUSED = "Keystone refused these credentials"
ONE_BY_ONE = 16
"""Servers of a rack that are asked at a time, where Heat can't do it."""

ACTIONS: Mapping[str, Mapping[str, str]] = {
    "racks": {"suspend": "stack_suspend", "resume": "stack_resume", "destroy": "stack_delete"},
    "instances": {
        "on": "start",
        "off": "stop",
        "suspend": "suspend",
        "resume": "resume",
        "destroy": "server_delete",
    },
    "volumes": {"destroy": "volume_delete", "detach": "volume_detach"},
    "networks": {"destroy": "network_delete"},
}
"""What a button of the front end is: its type of object, its word, our action."""
FIRST_TYPES = {"devices": "instances"}
"""The first generation's word for it."""
ON_SERVERS = {"stack_suspend": "suspend", "stack_resume": "resume", "stack_delete": "server_delete"}
"""What is done to each server of a rack instead, where Heat refuses."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")

ONCE = frozenset({("POST", "/key_pairs"), ("POST", "/credits"), ("POST", "/create_order")})
"""What is not the same twice: an answer that nobody took is kept for who asks again."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Work = Callable[[web.Request, JsonObject], Awaitable[web.Response]]


class ConcertimNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """What the API stands on."""

    errands: Errands
    own: OpenStackCloud
    """The source's own way to the cloud: where Keystone is, and who reads what anybody may know."""
    source: str
    clock: Clock
    telemetry: Telemetry
    jwt_secret: Secret
    authenticate: bool = True
    auth_urls: tuple[str, ...] = ()
    names: Names = Names()
    billing: Billing


class ConcertimApi:
    """The routes. `close` when the listeners are closed: what is being done is done to its end."""

    def __init__(self, needs: ConcertimNeeds) -> None:
        self._needs = needs
        self._again = Again(needs.clock)
        self._changing = asyncio.Lock()
        """Accounts: what one request takes back, another one must not have been told it has."""
        self._refused: dict[bytes, float] = {}
        """Credentials that Keystone refused (a digest) → until when it is not asked. It locks accounts that fail too often."""
        self._asked = needs.telemetry.counter(
            "front_end_requests_total", "Requests of a front end, by route and status.", "route", "status"
        )

    def face(self, prefix: str = "") -> Face:
        """The routes below `prefix` ("": at the root). All of them are the gate's to let through: each looks for the front end's
        own signature."""
        routes = [web.get(prefix or "/", _running), *(web.get(f"{prefix}/", _running) for _ in (1,) if prefix)]
        for method, path, work in self._routes():
            routes.append(web.route(method, prefix + path, self._guarded(path, work)))
        # Last: the gate's word for what isn't there is that the token is no user's, which leads the front end astray.
        routes.append(web.route("*", f"{prefix}/{{rest:.*}}", self._guarded("*", _nothing)))

        def in_its_form(request: web.Request, why: Exception) -> web.Response | None:
            ours = not prefix or request.path == prefix or request.path.startswith(f"{prefix}/")
            return error(request, why, first=self._first(request)) if ours else None

        # (The last one is called otherwise once it is a route.)
        public = frozenset(route.path for route in routes) | {f"{prefix}/{{rest}}"}
        return Face(routes=routes, public=public, error=in_its_form)

    async def close(self, seconds: float) -> None:
        """What is under way gets so long to end."""
        await self._again.close(seconds)

    def _routes(self) -> list[tuple[str, str, Work]]:
        return [
            ("POST", "/create_user_project", self.create_user_project),
            ("POST", "/user", self.create_user),
            ("PATCH", "/user", self.change_user),
            ("DELETE", "/user", self.delete_user),
            ("POST", "/team", self.create_team),
            ("DELETE", "/team", self.delete_team),
            ("GET", "/team/limits", self.limits),
            ("GET", "/team/{project_id}/quotas", self.quotas),
            ("POST", "/team_role", self.grant_role),
            ("PATCH", "/team_role", self.change_role),
            ("DELETE", "/team_role", self.withdraw_role),
            ("POST", "/update_status/{type}/{id}", self.update_status),
            ("POST", "/key_pairs", self.create_key_pair),
            ("GET", "/key_pairs", self.list_key_pairs),
            ("DELETE", "/key_pairs", self.delete_key_pair),
            ("GET", "/statistics", self.statistics),
            *self._needs.billing.routes(),
        ]

    def _guarded(self, route: str, work: Work) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if self._needs.authenticate:
                check_signature(request, self._needs.jwt_secret)
            raw = await request.read()
            body = body_of(raw)
            return await self._again.answer(
                request, raw, lambda: self._answered(route, work, request, body), keep=(request.method, route) in ONCE
            )

        return guarded

    async def _answered(self, route: str, work: Work, request: web.Request, body: JsonObject) -> Answered:
        try:
            response = await work(request, body)
        except Exception as why:
            response = error(request, why, first=self._first(request))
            if not isinstance(why, VedetteError | web.HTTPException):
                # (Without its text: what a body has in it may be in there.)
                log.error(
                    "a request of the front end failed: %s",
                    type(why).__name__,
                    exc_info=_without_values(why),
                    extra=kv(method=request.method, route=route),
                )
            else:
                log.warning(
                    "refused to the front end: %s", why, extra=kv(method=request.method, route=route, status=response.status)
                )
        self._asked.labels(f"{request.method} {route}", str(response.status)).inc()
        kept = response.body if isinstance(response.body, bytes) else b""
        return Answered(response.status, dict(response.headers), kept)

    def _first(self, request: web.Request) -> bool:
        """Whether it is answered as the first generation was."""
        if request.path.endswith("/create_user_project") or request.match_info.get("type") in FIRST_TYPES:
            return True
        return not self._needs.authenticate and generation(request) == 1

    def _done(self, request: web.Request, body: JsonObject, *, first: int = 202) -> web.Response:
        return answer(first if self._first(request) else 201, {"success": True, **body})

    # --- whose rights ------------------------------------------------------------------------------------------------------

    def _env(self, request: web.Request, body: JsonObject) -> CloudEnv:
        """Raises Missing, BadRequest."""
        found = cloud_env_of(body, request.query)
        if found is None:
            raise Missing("cloud_env is missing")
        return found

    @asynccontextmanager
    async def _as(self, env: CloudEnv) -> Any:
        """The cloud, as the asker sees it. Raises Unauthenticated: his Keystone is not ours, and is not asked."""
        own = self._needs.own.credentials
        if not any(same_url(env.auth_url, one) for one in (own.auth_url, *self._needs.auth_urls)):
            raise Unauthenticated(
                f"cloud_env.auth_url is not this cloud's Keystone, {own.auth_url}: "
                "correct it, or add it to faces.concertim.auth_urls"
            )
        key = hashlib.sha256(
            msgspec.json.encode(
                [env.user_id, env.username, env.user_domain_name, env.password.reveal(), env.project_id, env.project_name]
            )
        ).digest()
        now = self._needs.clock.monotonic()
        if self._refused.get(key, 0.0) > now:
            raise Unauthenticated(REFUSED)
        # (With an id no domain is said.)
        cloud = OpenStackCloud(
            Credentials(
                auth_url=own.auth_url,
                user_id=env.user_id,
                username="" if env.user_id else env.username,
                password=env.password,
                user_domain_name="" if env.user_id else env.user_domain_name,
                user_domain_id="" if env.user_id or env.user_domain_name else "default",
                project_id=env.project_id,
                project_name="" if env.project_id else env.project_name,
                project_domain_name="" if env.project_id else env.project_domain_name,
                project_domain_id="" if env.project_id or env.project_domain_name else "default",
                cacert=own.cacert,
                cert=own.cert,
                key=own.key,
                region_name=own.region_name,
                interface=own.interface,
            ),
            name=self._needs.source,
            clock=self._needs.clock,
            telemetry=self._needs.telemetry,
            timeout_s=TIMEOUT_SECONDS / 4,
            threads=2,
        )
        try:
            yield cloud
        except Unauthenticated:
            self._refused = {one: until for one, until in self._refused.items() if until > now}
            if len(self._refused) < MOST_REFUSED:
                self._refused[key] = now + REFUSED_SECONDS
            raise Unauthenticated(REFUSED) from None
        finally:
            await cloud.close()

    async def _signs_in(self, user_id: str, password: Secret) -> bool:
        """Whether this is the user's password."""
        own = self._needs.own.credentials
        made = Credentials(
            auth_url=own.auth_url, user_id=user_id, password=password, cacert=own.cacert, cert=own.cert, key=own.key
        )
        try:
            await issue_token(made, clock=self._needs.clock)
        except Unauthenticated:
            return False
        return True

    @asynccontextmanager
    async def _accounts(self, request: web.Request, body: JsonObject) -> Any:
        async with self._changing, self._as(self._env(request, body)) as cloud:
            accounts = Accounts(cloud, self._needs.names, self._signs_in)
            try:
                yield accounts
            except BaseException:
                await accounts.take_back()
                raise
            # A role or a password may be another one now.
            self._refused.clear()

    # --- users and teams ---------------------------------------------------------------------------------------------------

    async def create_user_project(self, request: web.Request, body: JsonObject) -> web.Response:
        env = self._env(request, body)
        name, password = text(body, "username"), Secret(text(body, "password", longest=LONGEST_KEY))
        email = optional(body, "email")
        async with self._accounts(request, body) as accounts:
            user = await accounts.user(name, password, email=email)
            project = await accounts.project(name)
            await accounts.staff(project, billing=env.billing_enabled)
            await accounts.grant(project, user, "member")
        log.info("a user and a project were made for the front end", extra=kv(user=user, project=project, by=env.who))
        return answer(201, {"username": name, "user_id": user, "project_id": project})

    async def create_user(self, request: web.Request, body: JsonObject) -> web.Response:
        name, password = text(body, "username"), Secret(text(body, "password", longest=LONGEST_KEY))
        email, full = optional(body, "email"), optional(body, "name")
        async with self._accounts(request, body) as accounts:
            user = await accounts.user(name, password, email=email, full_name=full)
        log.info("a user was made for the front end", extra=kv(user=user))
        return answer(201, {"success": True, "username": name, "user_cloud_id": user})

    async def change_user(self, request: web.Request, body: JsonObject) -> web.Response:
        info = inner(body, "user_info")
        user, new = text(info, "cloud_user_id", of="user_info."), inner(info, "new_data")
        email, password = optional(new, "email"), optional(new, "password", longest=LONGEST_KEY)
        async with self._accounts(request, body) as accounts:
            updated = await accounts.change_user(user, email=email, password=Secret(password) if password else None)
        log.info("a user was changed for the front end", extra=kv(user=user, changed=",".join(updated)))
        return answer(201, {"success": True, "updated": updated})

    async def delete_user(self, request: web.Request, body: JsonObject) -> web.Response:
        user = text(inner(body, "user_info"), "cloud_user_id", of="user_info.")
        async with self._accounts(request, body) as accounts:
            await accounts.delete_user(user)
        log.info("a user was deleted for the front end", extra=kv(user=user))
        return answer(201, {"success": True})

    async def create_team(self, request: web.Request, body: JsonObject) -> web.Response:
        env, name = self._env(request, body), text(body, "name")
        known = optional(body, "project_id")
        account = optional(body, "billing_acct_id", others=("billing_account_id",))
        async with self._accounts(request, body) as accounts:
            project = known or await accounts.project(name)
            await accounts.staff(project, billing=env.billing_enabled)
            account = account or await self._needs.billing.account_for(project, name) or ""
        log.info("a project was made for the front end", extra=kv(project=project, by=env.who))
        return answer(201, {"success": True, "project_id": project, "billing_acct_id": account or None})

    async def delete_team(self, request: web.Request, body: JsonObject) -> web.Response:
        project = text(inner(body, "team_info"), "project_id", of="team_info.")
        async with self._accounts(request, body) as accounts:
            # Nobody could reach what is left in it any more, and it would go on costing.
            await accounts.delete_project(project, lambda: self._left_in(project))
        log.info("a project was deleted for the front end", extra=kv(project=project))
        return answer(201, {"success": True})

    async def _left_in(self, project: str) -> str:
        """What keeps a project from being deleted; "": nothing. The cloud is asked: what we know of it may be nothing yet."""
        found: list[str] = []
        query = (("all_tenants", "1"), ("project_id", project), ("limit", "1"))
        for service, key in ((COMPUTE, "servers"), (BLOCK_STORAGE, "volumes")):
            try:
                rows = (await self._needs.own.get(service, f"/{key}", query)).body.get(key)
            except NoService:
                continue
            if rows:
                found.append(key)
        try:
            async for page in self._needs.own.pages(ORCHESTRATION, "/stacks", "stacks"):
                if any(row.get("project") == project for row in page.items):
                    found.append("stacks")
                    break
        except NoService:
            pass
        return " and ".join(found)

    async def grant_role(self, request: web.Request, body: JsonObject) -> web.Response:
        role = inner(body, "team_role")
        name, project, user = (text(role, one, of="team_role.") for one in ("role", "project_id", "user_id"))
        async with self._accounts(request, body) as accounts:
            await accounts.grant(project, user, name)
        log.info("a role was granted for the front end", extra=kv(role=name, project=project, user=user))
        return answer(201, {"success": True})

    async def change_role(self, request: web.Request, body: JsonObject) -> web.Response:
        role = inner(body, "team_role")
        old, new, project, user = (
            text(role, one, of="team_role.") for one in ("current_role", "new_role", "project_id", "user_id")
        )
        async with self._accounts(request, body) as accounts:
            # In this order: never without any.
            await accounts.grant(project, user, new)
            if old != new:
                await accounts.withdraw(project, user, old)
        log.info("a role was changed for the front end", extra=kv(was=old, role=new, project=project, user=user))
        return answer(201, {"success": True})

    async def withdraw_role(self, request: web.Request, body: JsonObject) -> web.Response:
        role = inner(body, "team_role")
        name, project, user = (text(role, one, of="team_role.") for one in ("role", "project_id", "user_id"))
        async with self._accounts(request, body) as accounts:
            await accounts.withdraw(project, user, name)
        log.info("a role was withdrawn for the front end", extra=kv(role=name, project=project, user=user))
        return answer(201, {"success": True})

    # --- what there is -----------------------------------------------------------------------------------------------------

    async def quotas(self, request: web.Request, body: JsonObject) -> web.Response:
        project = segment(request.match_info["project_id"])
        asked = (
            (COMPUTE, f"/os-quota-sets/{project}", "quota_set"),
            (BLOCK_STORAGE, f"/os-quota-sets/{project}", "quota_set"),
            (NETWORK, f"/quotas/{project}", "quota"),
        )
        # The front end says nobody's credentials here.
        env = cloud_env_of(body, request.query)
        if env is None:
            found = await _each_of(self._needs.own, asked)
        else:
            async with self._as(env) as cloud:
                found = await _each_of(cloud, asked)
        found.pop("id", None)
        return answer(201, {"success": True, "quotas": found})

    async def limits(self, request: web.Request, body: JsonObject) -> web.Response:
        async with self._as(self._env(request, body)) as cloud:
            found = await _each_of(cloud, ((COMPUTE, "/limits", "limits"), (BLOCK_STORAGE, "/limits", "limits")))
        return answer(201, {"success": True, "limits": found})

    async def statistics(self, request: web.Request, body: JsonObject) -> web.Response:
        env = cloud_env_of(body, request.query)
        if env is None:
            stats = await _statistics(self._needs.own)
        else:
            async with self._as(env) as cloud:
                stats = await _statistics(cloud)
        return answer(201, {"success": True, "stats": stats})

    # --- key pairs ---------------------------------------------------------------------------------------------------------

    async def create_key_pair(self, request: web.Request, body: JsonObject) -> web.Response:
        given = inner(body, "key_pair")
        name, public = text(given, "name", of="key_pair."), optional(given, "public_key", of="key_pair.", longest=LONGEST_KEY)
        wanted: JsonObject = {"name": name, "type": optional(given, "key_type", of="key_pair.") or "ssh"}
        if public:
            wanted["public_key"] = public
        async with self._as(self._env(request, body)) as cloud:
            try:
                made = await cloud.send("POST", COMPUTE, "/os-keypairs", {"keypair": wanted}, microversion=KEYPAIRS_MICROVERSION)
                key = made["keypair"]
            except Refused as why:
                # The same key under the same name: the last answer was lost. (A key that Nova made can't be given out again.)
                there = await _key_pair(cloud, name) if public else None
                if there is None or str(there.get("public_key", "")).split()[:2] != public.split()[:2]:
                    raise Conflict(f"a key pair {name} is there already: delete it first, or take another name") from why
                key = there
        return self._done(request, {"key_pair": key})

    async def list_key_pairs(self, request: web.Request, body: JsonObject) -> web.Response:
        async with self._as(self._env(request, body)) as cloud:
            found: list[JsonObject] = []
            async for page in cloud.pages(COMPUTE, "/os-keypairs", "keypairs", microversion=KEYPAIRS_MICROVERSION):
                found += page.items
        return self._done(request, {"key_pairs": found})

    async def delete_key_pair(self, request: web.Request, body: JsonObject) -> web.Response:
        name = text(body, "keypair_name")
        async with self._as(self._env(request, body)) as cloud:
            try:
                await cloud.send("DELETE", COMPUTE, f"/os-keypairs/{segment(name)}", microversion=KEYPAIRS_MICROVERSION)
            except NotFound:
                # Gone is what was wanted; that a name never was is worth saying once, and is not an error ten times.
                log.info("a key pair that is to be deleted is not there", extra=kv(name=name))
        return self._done(request, {"key_pair_name": name})

    # --- buttons -----------------------------------------------------------------------------------------------------------

    async def update_status(self, request: web.Request, body: JsonObject) -> web.Response:
        said, id_ = request.match_info["type"], request.match_info["id"]
        type_ = FIRST_TYPES.get(said, said)
        if type_ not in ACTIONS:
            raise InvalidCall(f"there are no {said[:40]}: {', '.join(ACTIONS)}")
        word = text(body, "action")
        action = ACTIONS[type_].get(word)
        if action is None:
            raise InvalidCall(f"{word[:40]} is nothing that can be done to {said}: {', '.join(ACTIONS[type_])}")
        env = self._env(request, body)
        if not _UUID.fullmatch(id_):
            raise NotFound(f"there is nothing of the id {id_[:64]!r}")
        async with self._as(env) as cloud:
            name = await self._name(cloud, type_, action, id_)
            if name is None:
                return self._done(request, {"cloud_response": f"{id_} is gone already"})
            errand = Errand(action=action, id=id_, name=name, by=f"concertim: {env.who}")
            try:
                words = await self._needs.errands.do(errand, cloud)
            except (BadRequest, NoService) as why:
                if type_ != "racks":
                    raise
                words = await self._one_by_one(cloud, errand, why)
        return self._done(request, {"cloud_response": words})

    async def _name(self, cloud: Cloud, type_: str, action: str, id_: str) -> str | None:
        """What the asker's own object is called; None: it is gone, by an earlier request like this one. Raises NotFound."""
        service, path, key, name = {
            "racks": (ORCHESTRATION, f"/stacks?id={segment(id_)}", "stacks", "stack_name"),
            "instances": (COMPUTE, f"/servers/{segment(id_)}", "server", "name"),
            "volumes": (BLOCK_STORAGE, f"/volumes/{segment(id_)}", "volume", "name"),
            "networks": (NETWORK, f"/networks/{segment(id_)}", "network", "name"),
        }[type_]
        try:
            bare, _, query = path.partition("?")
            found = (await cloud.get(service, bare, (("id", id_),) if query else ())).body.get(key)
            if isinstance(found, list):
                found = next((one for one in found if one.get("id") == id_), None)
            if not isinstance(found, dict):
                raise NotFound(f"there is no stack {id_[:64]}, or none that this user may see")
        except NotFound:
            if action.endswith("_delete") and self._needs.errands.done_before(action, id_):
                return None
            raise
        return str(found.get(name) or "")

    async def _one_by_one(self, cloud: Cloud, rack: Errand, refused: VedetteError) -> str:
        """Heat can't do it to the stack, so its servers are asked. Raises Partial, GiveUp."""
        answer_ = await cloud.get(
            ORCHESTRATION, f"/stacks/{segment(rack.name)}/{segment(rack.id)}/resources", (("nested_depth", "5"),)
        )
        rows = answer_.body.get("resources") or ()
        servers = [
            str(one["physical_resource_id"])
            for one in rows
            if one.get("resource_type") == "OS::Nova::Server" and one.get("physical_resource_id")
        ]
        if not servers:
            raise GiveUp(f"Heat refused it: {refused}")
        log.warning("Heat refused what was asked for, its servers are asked: %s", refused, extra=kv(stack=rack.id))
        turns = asyncio.Semaphore(ONE_BY_ONE)

        async def ask(id_: str) -> JsonObject:
            async with turns:
                try:
                    words = await self._needs.errands.do(Errand(action=ON_SERVERS[rack.action], id=id_, by=rack.by), cloud)
                except VedetteError as why:
                    return {"id": id_, "success": False, "message": str(why)[:300]}
                return {"id": id_, "success": True, "message": words}

        results = list(await asyncio.gather(*(ask(id_) for id_ in servers)))
        well = sum(1 for one in results if one["success"])
        said = f"Heat refused it ({refused}); of its {len(servers)} servers {well} were asked"
        if well < len(servers) or rack.action == "stack_delete":
            # Of a rack that is to be destroyed the stack itself is left.
            raise Partial(said, results)
        return said


async def _running(_request: web.Request) -> web.Response:
    return web.Response(text="Running\n")


async def _nothing(request: web.Request, body: JsonObject) -> web.Response:
    raise NotFound(f"there is no {request.method[:10]} {request.match_info['rest'][:100]}")


async def _key_pair(cloud: Cloud, name: str) -> JsonObject | None:
    try:
        found = await cloud.get(COMPUTE, f"/os-keypairs/{segment(name)}", microversion=KEYPAIRS_MICROVERSION)
    except NotFound:
        return None
    key: JsonObject = found.body["keypair"]
    return key


async def _each_of(cloud: Cloud, asked: tuple[tuple[str, str, str], ...]) -> JsonObject:
    """What several services say, in one object; one that the cloud does not have says nothing."""
    found: JsonObject = {}
    for service, path, key in asked:
        try:
            body = (await cloud.get(service, path)).body.get(key)
        except NoService:
            continue
        if isinstance(body, dict):
            # Limits are `absolute` and `rate`, quotas are plain.
            absolute = body.get("absolute")
            found |= absolute if isinstance(absolute, dict) else body
    return found


async def _statistics(cloud: Cloud) -> JsonObject:
    found = await cloud.get(COMPUTE, "/os-hypervisors/statistics", microversion=STATISTICS_MICROVERSION)
    said = found.body.get("hypervisor_statistics") or {}
    return {name: said.get(novas, 0) for name, novas in STATISTICS.items()}


def _without_values(why: BaseException) -> Any:
    """A traceback whose last line has the type alone."""
    bare = RuntimeError(type(why).__name__)
    return (RuntimeError, bare, why.__traceback__)
