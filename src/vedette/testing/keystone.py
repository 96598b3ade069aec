"""A Keystone (Identity v3) on 127.0.0.1: users, projects, roles, tokens and their ends, and everything that can go wrong.

It answers what `clients/keystone.py`, keystoneauth and the openstack command ask to get a token and to validate one, over real
HTTP; to admins it lists its users and projects and changes them (testing/keystone_changes.py). Roles are looked up when a token
is validated, as with Fernet tokens. Time is the clock it is given, in `Date` too. `testing/cloud.py` puts the other services into
its catalog.
https://docs.openstack.org/api-ref/identity/v3/
"""

from __future__ import annotations

import asyncio
import re
import secrets
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any, Literal

import msgspec
from aiohttp import web

from vedette.kit.clock import Clock, rfc3339_us
from vedette.testing.keystone_changes import No, changed

Target = tuple[Literal["project", "domain", "system", ""], str]
"""What a token or a role is for: ("project", id), ("domain", id), ("system", "all"), ("", "") for no scope."""

NOTHING: Target = ("", "")

INTERFACES = ("public", "internal", "admin")


class Listed(msgspec.Struct, frozen=True):
    """A service in the catalog."""

    type: str
    name: str
    url: str


class User(msgspec.Struct):
    id: str
    name: str
    password: str
    domain: str
    enabled: bool = True
    default_project: str = ""
    email: str = ""
    description: str = ""

    def __repr__(self) -> str:
        """Without the password: what a test prints is read by others."""
        return f"User({self.id!r}, {self.name!r}, domain={self.domain!r}, enabled={self.enabled!r})"


class Project(msgspec.Struct):
    id: str
    name: str
    domain: str
    enabled: bool = True
    description: str = ""


class ApplicationCredential(msgspec.Struct):
    id: str
    name: str
    secret: str
    user: str
    project: str
    roles: frozenset[str]
    access_rules: bool = False
    """Good for some requests of some services only: validating asks for a header that shows the asker knows about it."""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"ApplicationCredential({self.id!r}, {self.name!r}, user={self.user!r}, project={self.project!r})"


class Token(msgspec.Struct):
    user: str
    target: Target
    issued_at: int
    expires_at: int
    methods: list[str]
    credential: str = ""
    revoked: bool = False


class FakeKeystone:
    """`async with FakeKeystone(clock) as keystone: … keystone.url …`. What it holds is in plain attributes: look, change."""

    def __init__(self, clock: Clock, *, tls: ssl.SSLContext | None = None) -> None:
        self._clock = clock
        self._tls = tls
        self._runner: web.AppRunner | None = None
        self._port = 0
        self._news = asyncio.Condition()
        self.domains = {"default": "Default"}
        self.users: dict[str, User] = {}
        self.projects: dict[str, Project] = {}
        self.grants: set[tuple[str, str, Target]] = set()
        """(user id, role name, target)"""
        self.named_roles = {"admin", "member", "reader"}
        """Beside those that somebody has."""
        self.credentials: dict[str, ApplicationCredential] = {}
        self.tokens: dict[str, Token] = {}
        self.seconds = 3600.0
        """How long new tokens live."""
        self.admin_project = ""
        """The id of the admin project, where the cloud names one (`[resource] admin_project_name`)."""
        self.catalog: Callable[[str], list[Listed]] = lambda project: []
        """What else is in the catalog of a token for this project ("": for none)."""
        self.dates = True
        """Whether answers have a `Date`. (A Keystone on uWSGI with no web server in front sends none.)"""
        self.around: Callable[[web.Request, Callable[[], web.Response]], Awaitable[web.StreamResponse]] | None = None
        """Called with each request and what makes its answer, instead of answering at once."""
        # faults
        self.fault = 0
        """Answer everything with this status."""
        self.location = ""
        """Where to, when the fault is a redirect."""
        self.garbage: bytes | None = None
        """Answer everything with this body."""
        self.amnesia = False
        """Tokens are issued, and then not known."""
        self.latency = 0.0
        """Seconds of the clock before anything is answered."""
        self.held: asyncio.Event | None = None
        """Nothing is answered before it is set."""
        self.requests: Counter[str] = Counter()
        """`GET /v3/auth/tokens` → how often it came in, whatever was answered."""

    # --- running

    async def start(self) -> None:
        """Listen; at the same port as before, if there was one."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(self._stamp)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be down: connections are cut, new ones refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> FakeKeystone:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    @property
    def root(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v3"

    @property
    def validations(self) -> int:
        return self.requests["GET /v3/auth/tokens"]

    @property
    def logins(self) -> int:
        return self.requests["POST /v3/auth/tokens"]

    async def asked(self, what: str, times: int = 1) -> None:
        """Return when this has come in so often, e.g. `GET /v3/auth/tokens`."""
        async with self._news:
            await self._news.wait_for(lambda: self.requests[what] >= times)

    # --- the cloud

    def add_user(self, name: str, password: str = "", *, domain: str = "default") -> str:
        """Its id."""
        user = User(secrets.token_hex(16), name, password or secrets.token_urlsafe(16), domain)
        self.users[user.id] = user
        return user.id

    def add_project(self, name: str, *, domain: str = "default") -> str:
        """Its id."""
        project = Project(secrets.token_hex(16), name, domain)
        self.projects[project.id] = project
        return project.id

    def add_role(self, name: str) -> str:
        """Its id. (One that is there stays as it is.)"""
        self.named_roles.add(name)
        return f"role-{name}"

    def roles(self) -> list[str]:
        return sorted(self.named_roles | {role for _, role, _ in self.grants})

    def end_tokens(self, *, user: str = "", project: str = "") -> None:
        """Those of this user, or for this project, are known no more."""
        for token in self.tokens.values():
            if token.user == user or token.target == ("project", project):
                token.revoked = True

    def grant(self, user: str, role: str, *, project: str = "", domain: str = "", system: bool = False) -> None:
        self.grants.add((user, role, _target(project, domain, system)))

    def ungrant(self, user: str, role: str, *, project: str = "", domain: str = "", system: bool = False) -> None:
        self.grants.discard((user, role, _target(project, domain, system)))

    def add_credential(
        self, user: str, project: str, *, name: str = "app", roles: frozenset[str] | None = None, access_rules: bool = False
    ) -> ApplicationCredential:
        """An application credential with some of the user's roles (all, unless said)."""
        has = self._roles(user, ("project", project))
        made = ApplicationCredential(
            secrets.token_hex(16),
            name,
            secrets.token_urlsafe(24),
            user,
            project,
            has if roles is None else roles & has,
            access_rules,
        )
        self.credentials[made.id] = made
        return made

    def issue(
        self,
        user: str,
        *,
        project: str = "",
        domain: str = "",
        system: bool = False,
        seconds: float | None = None,
        credential: str = "",
    ) -> str:
        """A token, without asking for a password; no scope: an unscoped one."""
        return self._issue(user, _target(project, domain, system), ["password"], credential, seconds)

    def revoke(self, token: str) -> None:
        self.tokens[token].revoked = True

    def revoke_all(self) -> None:
        """As after a rotation of keys that went wrong: no token is known any more."""
        for token in self.tokens.values():
            token.revoked = True

    def holder(self, token: str) -> tuple[str, Target, frozenset[str]] | None:
        """User, scope and roles of a token that is valid; None when it isn't."""
        found = self._valid(token)
        return None if found is None else (found.user, found.target, self._roles_of(found))

    def _issue(self, user: str, target: Target, methods: list[str], credential: str = "", seconds: float | None = None) -> str:
        now = self._clock.now_us()
        life = self.seconds if seconds is None else seconds
        # As long as a Fernet token, and with its first characters.
        text = "gAAAAAB" + secrets.token_urlsafe(150)
        self.tokens[text] = Token(user, target, now, now + round(life * 1_000_000), methods, credential)
        return text

    def _roles(self, user: str, target: Target) -> frozenset[str]:
        return frozenset(role for who, role, where in self.grants if who == user and where == target)

    def _roles_of(self, token: Token) -> frozenset[str]:
        has = self._roles(token.user, token.target)
        return has & self.credentials[token.credential].roles if token.credential else has

    def _valid(self, text: str) -> Token | None:
        token = self.tokens.get(text)
        if token is None or token.revoked or self._clock.now_us() >= token.expires_at or not self._can_have(token):
            return None
        return token

    def _can_have(self, token: Token) -> bool:
        user = self.users.get(token.user)
        if user is None or not user.enabled:
            return False
        if token.credential and token.credential not in self.credentials:
            return False
        kind, id_ = token.target
        if kind == "project" and not (id_ in self.projects and self.projects[id_].enabled):
            return False
        # Without a role there, there is no token for it.
        return not kind or bool(self._roles_of(token))

    # --- answers

    async def _stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.pop("Date", None)
        if self.dates:
            response.headers["Date"] = formatdate(self._clock.now_us() / 1_000_000, usegmt=True)
        response.headers["x-openstack-request-id"] = f"req-{secrets.token_hex(16)}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        async with self._news:
            self.requests[f"{request.method} {request.path}"] += 1
            self._news.notify_all()
        body = await request.read()
        if self.held is not None:
            await self.held.wait()
        if self.latency:
            await self._clock.sleep(self.latency)
        if self.fault:
            response = _error(self.fault, "The server is out of order")
            if self.location:
                response.headers["Location"] = self.location
        elif self.garbage is not None:
            response = web.Response(body=self.garbage, content_type="application/json")
        elif self.around is not None:
            return await self.around(request, lambda: self._routed(request, body))
        else:
            response = self._routed(request, body)
        return response

    def _routed(self, request: web.Request, body: bytes) -> web.Response:
        path = request.path.rstrip("/")
        if path == "":
            return _json(300, {"versions": {"values": [self._version()]}})
        if path == "/v3":
            return _json(200, {"version": self._version()})
        if path == "/v3/auth/tokens" and request.method == "POST":
            return self._login(body, catalog="nocatalog" not in request.query)
        if path == "/v3/auth/tokens" and request.method in ("GET", "HEAD", "DELETE"):
            return self._look(request)
        asker = self._valid(request.headers.get("X-Auth-Token", ""))
        try:
            made = changed(self, request, body, None if asker is None else self._roles_of(asker))
        except No as why:
            return _error(why.status, str(why))
        if made is not None:
            return made
        if request.method == "GET" and (match := _LISTS.fullmatch(path)) is not None:
            return self._shown(request, match[1], match[2] or "")
        return _error(404, "The resource could not be found.")

    def _shown(self, request: web.Request, kind: str, id_: str) -> web.Response:
        """Users, projects or domains; no pages: Keystone's have none."""
        asker = self._valid(request.headers.get("X-Auth-Token", ""))
        if asker is None:
            return _error(401, "The request you have made requires authentication.")
        own = kind == "auth/projects"
        # (An unscoped token's target is "", and so is the id of a list.)
        himself = bool(id_) and id_ == {"users": asker.user, "projects": asker.target[1]}.get(kind)
        if not own and not himself and "admin" not in self._roles_of(asker):
            action = f"get_{kind[:-1]}" if id_ else f"list_{kind}"
            return _error(403, f"You are not authorized to perform the requested action: identity:{action}.")
        rows = self._rows(kind, asker.user)
        name = kind.rpartition("/")[2]
        if id_:
            found = next((row for row in rows if row["id"] == id_), None)
            if found is None:
                return _error(404, f"Could not find {name[:-1]}: {id_}.")
            return _json(200, {name[:-1]: found})
        if kind == "role_assignments":
            of = {key: request.query.get(f"{key}.id") for key in ("user", "role")}
            rows = [row for row in rows if all(id_ in (None, row[key]["id"]) for key, id_ in of.items())]
            return _json(200, {name: rows, "links": {"next": None, "self": f"{self.root}{request.path_qs}", "previous": None}})
        known = ("name", "domain_id", "enabled")
        wanted = [(key, value.lower()) for key, value in request.query.items() if key in known]
        rows = [row for row in rows if all(str(row.get(key)).lower() == value for key, value in wanted)]
        return _json(200, {name: rows, "links": {"next": None, "self": f"{self.root}{request.path_qs}", "previous": None}})

    def _rows(self, kind: str, asker: str) -> list[dict[str, Any]]:
        if kind == "users":
            return [self.user_row(user) for user in self.users.values()]
        if kind == "roles":
            return [self.role_row(name) for name in self.roles()]
        if kind == "role_assignments":
            return [
                {"role": {"id": f"role-{role}"}, "user": {"id": user}, "scope": {scope: {"id": id_}}, "links": {}}
                for user, role, (scope, id_) in self.grants
            ]
        if kind == "domains":
            return [
                {"id": id_, "name": name, "description": "", "enabled": True, "tags": [], "options": {}}
                for id_, name in self.domains.items()
            ]
        mine = {id_ for user, _, (scope, id_) in self.grants if user == asker and scope == "project"}
        return [self.project_row(one) for one in self.projects.values() if kind == "projects" or one.id in mine]

    def role_row(self, name: str) -> dict[str, Any]:
        return {"id": f"role-{name}", "name": name, "domain_id": None, "description": None, "options": {}}

    def user_row(self, user: User) -> dict[str, Any]:
        row: dict[str, Any] = {
            "id": user.id,
            "name": user.name,
            "domain_id": user.domain,
            "enabled": user.enabled,
            "password_expires_at": None,
            "options": {},
            "links": {"self": f"{self.url}/users/{user.id}"},
        }
        more = {"default_project_id": user.default_project, "email": user.email, "description": user.description}
        return row | {name: value for name, value in more.items() if value}

    def project_row(self, project: Project) -> dict[str, Any]:
        return {
            "id": project.id,
            "name": project.name,
            "domain_id": project.domain,
            "description": project.description,
            "enabled": project.enabled,
            "parent_id": project.domain,
            "is_domain": False,
            "tags": [],
            "options": {},
            "links": {"self": f"{self.url}/projects/{project.id}"},
        }

    def _version(self) -> dict[str, Any]:
        return {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{self.url}/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
        }

    def _look(self, request: web.Request) -> web.Response:
        asker = self._valid(request.headers.get("X-Auth-Token", ""))
        if asker is None:
            return _error(401, "The request you have made requires authentication.")
        subject = request.headers.get("X-Subject-Token", "")
        own = subject == request.headers.get("X-Auth-Token")
        if not own and not self._roles_of(asker) & {"admin", "service"}:
            return _error(403, "You are not authorized to perform the requested action: identity:validate_token.")
        token = self._valid(subject)
        if token is not None and token.credential and self.credentials[token.credential].access_rules:
            token = token if "OpenStack-Identity-Access-Rules" in request.headers else None
        if token is None:
            # Real ones repeat the token here.
            return _error(404, f"Could not find token: {subject}.")
        if request.method == "DELETE":
            token.revoked = True
            return web.Response(status=204)
        return self._told(200, subject, token, catalog="nocatalog" not in request.query)

    def _told(self, status: int, text: str, token: Token, *, catalog: bool) -> web.Response:
        user = self.users[token.user]
        kind, id_ = token.target
        body: dict[str, Any] = {
            "methods": token.methods,
            "user": {"id": user.id, "name": user.name, "domain": self._domain(user.domain), "password_expires_at": None},
            "audit_ids": [secrets.token_urlsafe(16)],
            "issued_at": rfc3339_us(token.issued_at),
            "expires_at": rfc3339_us(token.expires_at),
        }
        if kind:
            body["roles"] = [{"id": f"role-{role}", "name": role} for role in sorted(self._roles_of(token))]
        if kind == "project":
            project = self.projects[id_]
            body |= {"project": {"id": id_, "name": project.name, "domain": self._domain(project.domain)}, "is_domain": False}
            if self.admin_project:
                body["is_admin_project"] = id_ == self.admin_project
        elif kind == "domain":
            body["domain"] = self._domain(id_)
        elif kind == "system":
            body["system"] = {"all": True}
        if token.credential:
            credential = self.credentials[token.credential]
            body["application_credential"] = {"id": credential.id, "name": credential.name, "restricted": True}
        if catalog and kind:
            listed = [Listed("identity", "keystone", self.url), *self.catalog(id_ if kind == "project" else "")]
            body["catalog"] = [_in_catalog(one) for one in listed]
        response = _json(status, {"token": body})
        response.headers["X-Subject-Token"] = text
        return response

    def _domain(self, id_: str) -> dict[str, str]:
        return {"id": id_, "name": self.domains.get(id_, id_)}

    def _login(self, body: bytes, *, catalog: bool) -> web.Response:
        try:
            auth = msgspec.json.decode(body)["auth"]
            (method,) = auth["identity"]["methods"]
            given = auth["identity"][method]
            scope = auth.get("scope", {})
            target: Target | None
            if method == "password":
                user = self._user(given["user"])
                good = user is not None and user.password == given["user"]["password"]
                target, credential = self._scope(scope), ""
            elif method == "token":
                old = self._valid(given["id"])
                user = self.users[old.user] if old is not None else None
                good, target, credential = old is not None, self._scope(scope), ""
            elif method == "application_credential":
                found = self._credential(given)
                if scope:
                    return _error(401, "Application credentials cannot request a scope.")
                user = self.users.get(found.user) if found is not None else None
                good = found is not None and found.secret == given["secret"]
                target = ("project", found.project) if found is not None else NOTHING
                credential = found.id if found is not None else ""
            else:
                return _error(401, f"Attempted to authenticate with an unsupported method: {method}.")
        except (msgspec.DecodeError, KeyError, TypeError, ValueError):
            return _error(400, "The request body could not be understood.")
        now = self._clock.now_us()
        if user is None or not good or target is None:
            return _error(401, "The request you have made requires authentication.")
        if not self._can_have(Token(user.id, target, now, now, [], credential)):
            return _error(401, "The request you have made requires authentication.")
        text = self._issue(user.id, target, [method], credential)
        self.tokens[text].revoked = self.amnesia
        return self._told(201, text, self.tokens[text], catalog=catalog)

    def _user(self, given: dict[str, Any]) -> User | None:
        if "id" in given:
            return self.users.get(given["id"])
        domain = self._domain_id(given["domain"])
        return next((user for user in self.users.values() if user.name == given["name"] and user.domain == domain), None)

    def _credential(self, given: dict[str, Any]) -> ApplicationCredential | None:
        if "id" in given:
            return self.credentials.get(given["id"])
        user = self._user(given["user"])
        every = self.credentials.values()
        return next((one for one in every if user is not None and one.user == user.id and one.name == given["name"]), None)

    def _domain_id(self, given: dict[str, Any]) -> str:
        return str(given["id"]) if "id" in given else next((i for i, name in self.domains.items() if name == given["name"]), "")

    def _scope(self, scope: dict[str, Any]) -> Target | None:
        """None: it names something that isn't there."""
        if not scope:
            return NOTHING
        if scope.get("system", {}).get("all"):
            return ("system", "all")
        if "domain" in scope:
            domain = self._domain_id(scope["domain"])
            return ("domain", domain) if domain in self.domains else None
        wanted = scope["project"]
        if "id" in wanted:
            return ("project", wanted["id"])
        domain = self._domain_id(wanted["domain"])
        ids = (one.id for one in self.projects.values() if one.name == wanted["name"] and one.domain == domain)
        id_ = next(ids, None)
        return ("project", id_) if id_ is not None else None


def _in_catalog(one: Listed) -> dict[str, Any]:
    endpoints = [
        {"id": f"{one.type}-{which}", "interface": which, "region": "RegionOne", "region_id": "RegionOne", "url": one.url}
        for which in INTERFACES
    ]
    return {"id": one.type, "type": one.type, "name": one.name, "endpoints": endpoints}


TITLES = {400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 409: "Conflict"}
_LISTS = re.compile(r"/v3/(users|projects|domains|roles|role_assignments|auth/projects)(?:/([^/]+))?")


def _target(project: str, domain: str, system: bool) -> Target:
    if project:
        return ("project", project)
    if domain:
        return ("domain", domain)
    return ("system", "all") if system else NOTHING


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")


def _error(status: int, message: str) -> web.Response:
    return _json(status, {"error": {"code": status, "title": TITLES.get(status, "Error"), "message": message}})
