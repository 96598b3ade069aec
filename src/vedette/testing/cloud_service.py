"""What every service of the fake cloud (`testing/cloud.py`) is made of: a listener, its rows, its faults, and the log of calls.

A service says which paths it has and what they answer; this module does the rest: tokens, microversions, dates, faults, counting.
Rows are kept encoded, so that a list of 100,000 is a join of bytes.
"""

from __future__ import annotations

import asyncio
import random
import re
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from vedette.kit.clock import Clock, rfc3339, rfc3339_us
from vedette.testing.keystone import FakeKeystone

Row = dict[str, Any]
Query = Sequence[tuple[str, str]]

TENANT = ("member", "reader", "load-balancer_member")
"""The roles of a tenant."""
REMEMBERED = 100_000
"""Calls and announcements that are kept; the oldest go."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Row).decode


# --- rows ------------------------------------------------------------------------------------------------------------------


class _Kept(msgspec.Struct, gc=False):
    raw: bytes
    project: str
    shared: bool
    place: Any
    """Where it is in lists."""
    shown: bytes | None = None
    """As tenants see it, once somebody asked."""


class Rows(Mapping[str, Mapping[str, Any]]):
    """Objects of one kind by id, in the form that admins see. What is read is a copy that can't be written to: change a row
    with the cloud's methods, or `put` another."""

    def __init__(
        self,
        *,
        key: str = "id",
        project: Callable[[Row], str] = lambda row: row.get("project_id") or "",
        shared: Callable[[Row], bool] = lambda _: False,
        place: Callable[[Row], Any] | None = None,
        newest_first: bool = False,
    ) -> None:
        self._key = key
        self._project = project
        self._shared = shared
        self._place = place or (lambda row: row[key])
        self._newest_first = newest_first
        self.granted: dict[str, set[str]] = {}
        """Row → projects, beside its own, that see it."""
        self._kept: dict[str, _Kept] = {}
        self._order: list[str] | None = None
        self._at: dict[str, int] = {}

    def __getitem__(self, id_: str) -> Mapping[str, Any]:
        return MappingProxyType(self.copy(id_))

    def __iter__(self) -> Iterator[str]:
        return iter(self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._kept

    def copy(self, id_: str) -> Row:
        """Raises KeyError."""
        return _decode(self._kept[id_].raw)

    def put(self, row: Row) -> None:
        """Add it, or replace the one of that id."""
        id_ = row[self._key]
        if id_ not in self._kept:
            self._order = None
        self._kept[id_] = _Kept(_encode(row), self._project(row), self._shared(row), self._place(row))

    def put_raw(self, id_: str, raw: bytes, project: str, place: Any = None) -> None:
        """The same for a row that is encoded already, not shared."""
        if id_ not in self._kept:
            self._order = None
        self._kept[id_] = _Kept(raw, project, False, id_ if place is None else place)

    def remove(self, id_: str) -> Row:
        """The row that was there. Raises KeyError."""
        self._order = None
        return _decode(self._kept.pop(id_).raw)

    def clear(self) -> None:
        self._order = None
        self._kept.clear()

    def ordered(self) -> list[str]:
        """Ids as the service lists them."""
        if self._order is None:
            kept = self._kept
            self._order = sorted(kept, key=lambda id_: (kept[id_].place, id_), reverse=self._newest_first)
            self._at = {id_: at for at, id_ in enumerate(self._order)}
        return self._order

    def place(self, id_: str) -> int:
        """Its place in `ordered`. Raises KeyError."""
        self.ordered()
        return self._at[id_]

    def seen(self, id_: str, who: Who) -> bool:
        kept = self._kept.get(id_)
        return kept is not None and (
            who.admin or kept.shared or kept.project == who.project or who.project in self.granted.get(id_, ())
        )

    def raw(self, id_: str) -> bytes:
        return self._kept[id_].raw

    def shown(self, id_: str, show: Callable[[Row], Row]) -> bytes:
        """As tenants see it; made once."""
        kept = self._kept[id_]
        if kept.shown is None:
            kept.shown = _encode(show(_decode(kept.raw)))
        return kept.shown


# --- who asks, what is answered --------------------------------------------------------------------------------------------


class Who(msgspec.Struct, frozen=True):
    """Whose token came with a request."""

    user: str
    project: str
    roles: frozenset[str]

    @property
    def admin(self) -> bool:
        return "admin" in self.roles


class Ask(msgspec.Struct, frozen=True):
    """One request, as a service's handler gets it."""

    method: str
    path: str
    """Under the versioned root."""
    at: str
    """The path from the host on."""
    named: tuple[str, ...]
    """What the route's pattern caught."""
    query: Query
    body: Any
    who: Who
    microversion: tuple[int, int]
    request_id: str = ""
    """X-Openstack-Request-Id, as the caller sent it."""

    def one(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.query if key == name), default)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.query if key == name]

    def but(self, *names: str) -> list[tuple[str, str]]:
        """The query without these."""
        return [(key, value) for key, value in self.query if key not in names]


class Reply(msgspec.Struct, frozen=True):
    """What a handler answers: something to encode, or bytes."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"


class Refused(Exception):
    """An error in the service's own form: raised in handlers."""

    def __init__(self, status: int, message: str, kind: str = "", more: Any = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.more = more


class Call(NamedTuple):
    """One request that came in."""

    service: str
    method: str
    path: str
    """Under the versioned root."""
    query: tuple[tuple[str, str], ...]
    user: str
    at: int
    """UTC microseconds on the cloud's clock."""


# --- faults ----------------------------------------------------------------------------------------------------------------


class Fault(msgspec.Struct):
    """What goes wrong, for the requests that match."""

    path: str = "*"
    """fnmatch pattern on the path under the versioned root."""
    method: str = ""
    after: int = 0
    """So many matching requests are well first."""
    times: int | None = None
    """Then so many are not; None: all."""
    status: int = 0
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    """What is answered instead; with no status: 200."""
    cut: bool = False
    """The connection is cut in the middle of the body."""
    latency: float = 0.0
    """Seconds of the clock."""
    held: asyncio.Event | None = None
    """Nothing is answered before it is set."""
    undone: bool = False
    """With `status`: what was asked for is not done. (Else it is, and its answer is another one.)"""
    stale: bool = False
    """With `held` and `latency`: the answer is made first, and then kept back."""
    hits: int = 0
    """How many requests it has met."""

    def meets(self, method: str, path: str) -> bool:
        """Whether this request is one of its own; counts it if it could be."""
        if (self.method and self.method != method) or not fnmatchcase(path, self.path):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times is not None:
            if self.times <= 0:
                return False
            self.times -= 1
        self.hits += 1
        return True


class Door:
    """What a request goes through before and after it is answered: it is counted, delayed, refused, cut."""

    def __init__(self, house: House, service: str, error: Callable[[int], Reply] | None = None) -> None:
        """`error`: what the service says with a status, in its own form."""
        self._house = house
        self._error = error or _identity_error
        self._service = service
        self.faults: list[Fault] = []

    def fail(
        self,
        status: int,
        path: str = "*",
        *,
        times: int | None = None,
        after: int = 0,
        method: str = "",
        retry_after: float | str | None = None,
        body: bytes | None = None,
        undone: bool = False,
    ) -> Fault:
        """Answer with this status; with the service's own error, or with this body. `undone`: before anything is done."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        return self.add(Fault(path, method, after, times, status, headers, body, undone=undone))

    def garble(self, body: bytes, path: str = "*", *, times: int | None = None, after: int = 0) -> Fault:
        """Answer 200 with these bytes."""
        return self.add(Fault(path, after=after, times=times, body=body))

    def cut(self, path: str = "*", *, times: int | None = None, after: int = 0) -> Fault:
        """Cut the connection in the middle of the body."""
        return self.add(Fault(path, after=after, times=times, cut=True))

    def slow(self, seconds: float, path: str = "*", *, times: int | None = None, stale: bool = False) -> Fault:
        """Wait so long on the cloud's clock."""
        return self.add(Fault(path, times=times, latency=seconds, stale=stale))

    def hold(self, path: str = "*", *, times: int | None = None, after: int = 0, stale: bool = False) -> asyncio.Event:
        """Answer when the event is set. `stale`: with what was true when the request came."""
        event = asyncio.Event()
        self.add(Fault(path, after=after, times=times, held=event, stale=stale))
        return event

    def add(self, fault: Fault) -> Fault:
        self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """All is well again; what is held is let go."""
        for fault in self.faults:
            if fault.held is not None:
                fault.held.set()
        self.faults.clear()

    async def through(self, request: web.Request, path: str, user: str, answer: Callable[[], web.Response]) -> web.StreamResponse:
        """`path`: as it is counted; `answer` makes the answer, when the time has come."""
        house = self._house
        query = tuple(request.query.items())
        await house.called(Call(self._service, request.method, path, query, user, house.clock.now_us()))
        met = [fault for fault in self.faults if fault.meets(request.method, path)]
        made = answer() if any(fault.stale for fault in met) else None
        for fault in met:
            if fault.latency:
                await house.clock.sleep(fault.latency)
            if fault.held is not None:
                await fault.held.wait()
        for fault in met:
            if fault.status and fault.undone:
                return _response(self._error(fault.status), fault.headers)
        response = made if made is not None else answer()
        for fault in met:
            if fault.body is not None:
                return web.Response(status=fault.status or 200, body=fault.body, headers=dict(fault.headers))
            if fault.status:
                return _response(self._error(fault.status), fault.headers)
            if fault.cut:
                return await _cut(request, response)
        return response


OUT_OF_ORDER = "The service is out of order."


def _identity_error(status: int) -> Reply:
    return Reply({"error": {"code": status, "title": "Error", "message": OUT_OF_ORDER}}, status)


async def _cut(request: web.Request, whole: web.Response) -> web.StreamResponse:
    body = whole.body if isinstance(whole.body, bytes) else b""
    half = web.StreamResponse(
        status=whole.status, headers={"Content-Type": "application/json", "Content-Length": str(len(body) + 9)}
    )
    await half.prepare(request)
    await half.write(body[: len(body) // 2])
    assert request.transport is not None
    request.transport.abort()
    return half


# --- the house -------------------------------------------------------------------------------------------------------------


class Announcement(NamedTuple):
    """One notification, as it is on the wire."""

    exchange: str
    routing_key: str
    body: bytes
    event_type: str
    payload: Row


class House:
    """What the services of one cloud share: clock, Keystone, ids, the bus, and the log of calls."""

    def __init__(self, clock: Clock, *, seed: int = 0) -> None:
        self.clock = clock
        self._random = random.Random(seed)
        self.identity = FakeKeystone(clock)
        self.calls: Counter[tuple[str, str, str]] = Counter()
        """(catalog type, method, path under the versioned root) → how often; version documents are not counted."""
        self.log: deque[Call] = deque(maxlen=REMEMBERED)
        self.announced: deque[Announcement] = deque(maxlen=REMEMBERED)
        """What went out on the bus."""
        self.listeners: list[Callable[[Announcement], None]] = []
        """Called with each announcement."""
        self.bus_up = True
        """False: announcements are lost, as while RabbitMQ is down."""
        self.lost = 0
        """Announcements that were lost."""
        self._news = asyncio.Condition()
        self._passwords: dict[str, str] = {}
        self._homes: dict[str, str] = {}

    # --- who is there

    def project(self, name: str, *, announce: bool = False) -> str:
        """Its id; made if it isn't there."""
        for one in self.identity.projects.values():
            if one.name == name:
                return one.id
        made = self.identity.add_project(name)
        if announce:
            self._say("project", "created", made)
        return made

    def project_id(self, name: str) -> str:
        """By name or by id. Raises KeyError."""
        if name in self.identity.projects:
            return name
        return {one.name: one.id for one in self.identity.projects.values()}[name]

    def user(self, name: str, *, project: str, roles: tuple[str, ...] = TENANT, announce: bool = False) -> str:
        """A user with these roles in a project (made if it isn't there); the id."""
        password = f"{name}'s password"
        user = self.identity.add_user(name, password)
        for role in roles:
            self.identity.grant(user, role, project=self.project(project))
        self._passwords[name], self._homes[name] = password, self.project(project)
        if announce:
            self._say("user", "created", user)
        return user

    def delete_user(self, name: str, *, announce: bool = True) -> None:
        """By name or by id. Raises KeyError."""
        gone = self.identity.users.pop(self.user_id(name))
        self.identity.grants = {grant for grant in self.identity.grants if grant[0] != gone.id}
        if announce:
            self._say("user", "deleted", gone.id)

    def delete_project(self, name: str, *, announce: bool = True) -> None:
        """By name or by id; what is in it stays, as in a real cloud. Raises KeyError."""
        gone = self.identity.projects.pop(self.project_id(name))
        if announce:
            self._say("project", "deleted", gone.id)

    def _say(self, kind: str, did: str, id_: str) -> None:
        admin = self.someone("", admin=True)
        uri = "data/security/project" if kind == "project" else "data/security/account/user"
        payload = {
            "typeURI": "http://schemas.dmtf.org/cloud/audit/1.0/event",
            "eventType": "activity",
            "id": self.id(),
            "eventTime": rfc3339_us(self.clock.now_us())[:-1] + "+0000",
            "action": f"{did}.{kind}",
            "outcome": "success",
            "observer": {"id": "bbcd7d18824c4b38a76ddc7264e99b9f", "typeURI": "service/security"},
            "initiator": {"id": admin, "typeURI": "service/security/account/user", "user_id": admin},
            "target": {"id": id_, "typeURI": uri},
            "resource_info": id_,
        }
        self.announce("keystone", f"identity.{kind}.{did}", payload, publisher="identity.vm", context=False)

    def user_id(self, name: str) -> str:
        """By name or by id. Raises KeyError."""
        if name in self.identity.users:
            return name
        return {one.name: one.id for one in self.identity.users.values()}[name]

    def someone(self, project: str, *, admin: bool = False) -> str:
        """A user of this project, or an admin: who did it, in announcements."""
        for user, role, (kind, id_) in sorted(self.identity.grants):
            if kind == "project" and (role == "admin" if admin else id_ == project):
                return user
        return self.user_id("admin")

    def credentials(self, user: str = "admin", *, project: str = "") -> dict[str, str]:
        """How to be this user, named as in clouds.yaml: for `clients.keystone.credentials()`, for a source's `api`, and for
        `openstack.connect(**cloud.credentials())`."""
        home = self.project_id(project) if project else self._homes[user]
        return {
            "auth_url": self.identity.url,
            "username": user,
            "password": self._passwords[user],
            "project_id": home,
            "user_domain_id": "default",
        }

    def environ(self, user: str = "admin") -> dict[str, str]:
        """The same as OS_* variables, for the openstack command."""
        named = {f"OS_{name.upper()}": value for name, value in self.credentials(user).items()}
        return named | {"OS_IDENTITY_API_VERSION": "3", "OS_REGION_NAME": "RegionOne"}

    def token(self, user: str = "admin") -> str:
        """A token, without asking Keystone for it."""
        return self.identity.issue(self.user_id(user), project=self._homes[user])

    # --- small things

    def id(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def hex_id(self) -> str:
        return self.id().replace("-", "")

    def number(self, below: int) -> int:
        return self._random.randrange(below)

    def second(self) -> str:
        """`2026-11-20T15:19:06Z`"""
        return rfc3339(self.clock.now_us())

    def naive(self) -> str:
        """`2026-11-20T15:19:06`"""
        return self.second()[:-1]

    def micro(self) -> str:
        """`2026-11-20T15:19:06.000000`"""
        return f"{self.naive()}.000000"

    # --- the bus

    def announce(
        self,
        exchange: str,
        event_type: str,
        payload: Row,
        *,
        publisher: str | None,
        project: str | None = None,
        user: str | None = None,
        admin: bool = False,
        context: bool = True,
        topic: str = "notifications",
        priority: str = "INFO",
    ) -> None:
        """Send one notification in oslo.messaging's double envelope. `context`: with `_context_*` keys (Glance and Keystone
        send none)."""
        if not self.bus_up:
            self.lost += 1
            return
        stamp = rfc3339_us(self.clock.now_us())[:-1].replace("T", " ")
        message: Row = {}
        if context:
            message |= {
                "_context_user": user,
                "_context_user_id": user,
                "_context_project_id": project,
                "_context_project": project,
                "_context_tenant": project,
                "_context_is_admin": admin,
                "_context_auth_token": None,
                "_context_request_id": f"req-{self.id()}",
                "_context_global_request_id": None,
                "_context_roles": ["admin", "member", "reader"] if admin else ["member", "reader"],
            }
        message |= {
            "message_id": self.id(),
            "publisher_id": publisher,
            "event_type": event_type,
            "priority": priority,
            "payload": payload,
            "timestamp": stamp,
            "_unique_id": self.hex_id(),
        }
        body = _encode({"oslo.version": "2.0", "oslo.message": _encode(message).decode()})
        sent = Announcement(exchange, f"{topic}.{priority.lower()}", body, event_type, payload)
        self.announced.append(sent)
        for listener in self.listeners:
            listener(sent)

    # --- calls

    async def called(self, call: Call) -> None:
        async with self._news:
            self.calls[call.service, call.method, call.path] += 1
            self.log.append(call)
            self._news.notify_all()

    async def asked(self, service: str, path: str, times: int = 1, *, method: str = "GET") -> None:
        """Return when this has come in so often, whatever was answered."""
        async with self._news:
            await self._news.wait_for(lambda: self.calls[service, method, path] >= times)

    def count(self, service: str = "", path: str = "*", *, method: str = "") -> int:
        """Calls so far; `path` is an fnmatch pattern, nothing given is everything."""
        return sum(
            number
            for (one, verb, at), number in self.calls.items()
            if (not service or service == one) and (not method or method == verb) and fnmatchcase(at, path)
        )

    def who(self, token: str) -> Who | None:
        """Whose token this is; None for none."""
        found = self.identity.holder(token)
        if found is None:
            return None
        user, (kind, id_), roles = found
        return Who(user, id_ if kind == "project" else "", roles)


# --- a service -------------------------------------------------------------------------------------------------------------

Handler = Callable[[Ask], Reply]


class Service:
    """One service on a port of its own. Faults are `cloud.network.door`'s methods, and the service's own by the same names."""

    type = ""
    """In ports.Cloud, in the log of calls, and as a rule in the catalog."""
    name = ""
    root = ""
    """The versioned root: what `endpoint` ends with, or would."""
    oldest = (1, 0)

    def __init__(self, house: House) -> None:
        self.house = house
        self.in_catalog = True
        """False: the catalog doesn't have it."""
        self.catalog_type = self.type
        self.newest = (1, 0)
        """The newest microversion that it knows, where it has any."""
        self.dates = True
        """Whether answers have a `Date`. (Without a web server in front, Keystone, Octavia, Cinder and Placement have none.)"""
        self.largest_page = 1000
        self.door = Door(house, self.type, lambda status: self.error(Refused(status, OUT_OF_ORDER)))
        self.fail, self.garble, self.cut = self.door.fail, self.door.garble, self.door.cut
        self.slow, self.hold, self.heal = self.door.slow, self.door.hold, self.door.heal
        self._routes = [(method, re.compile(pattern), handler) for method, pattern, handler in self.routes()]
        self._runner: web.AppRunner | None = None
        self._port = 0

    # --- what a service says

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        """Method, pattern of the path under the versioned root, who answers."""
        raise NotImplementedError

    def discovery(self, path: str) -> Reply | None:
        """The version document at a path from the host on; None when there is none. Asked without a token."""
        raise NotImplementedError

    def under(self, path: str, who: Who | None) -> str | None:
        """The path under the versioned root; None: it isn't there."""
        return path[len(self.root) :] if path.startswith(self.root + "/") else None

    def endpoint(self, project: str) -> str:
        """What the catalog says."""
        return self.url

    def error(self, why: Refused) -> Reply:
        """In the service's own form."""
        raise NotImplementedError

    def nobody(self) -> Reply:
        """The answer to a request with no token, or one that isn't valid."""
        said = {"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made requires authentication."}}
        return Reply(said, 401, {"WWW-Authenticate": f'Keystone uri="{self.house.identity.root}"'})

    def microversion(self, headers: Mapping[str, str]) -> tuple[int, int]:
        """What was asked for. Raises Refused."""
        return self.oldest

    def headers(self, microversion: tuple[int, int]) -> Mapping[str, str]:
        return {}

    # --- running

    @property
    def url(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Listen; at the same port as before, if there was one."""
        app = web.Application(client_max_size=16 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._answer)
        app.on_response_prepare.append(self._stamp)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Be down: connections are cut, new ones refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _stamp(self, request: web.Request, response: web.StreamResponse) -> None:
        response.headers.pop("Date", None)
        if self.dates:
            response.headers["Date"] = formatdate(self.house.clock.now_us() / 1_000_000, usegmt=True)
        response.headers.setdefault("X-Openstack-Request-Id", f"req-{self.house.id()}")

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        document = self.discovery(request.path)
        if document is not None:
            return _response(document)
        who = self.house.who(request.headers.get("X-Auth-Token", ""))
        path = self.under(request.path, who)
        shown = request.path if path is None else path
        return await self.door.through(request, shown, who.user if who else "", partial(self._made, request, who, path, body))

    def _made(self, request: web.Request, who: Who | None, path: str | None, body: bytes) -> web.Response:
        if who is None:
            return _response(self.nobody())
        microversion = self.oldest
        try:
            microversion = self.microversion(request.headers)
            reply = self._handled(request, who, path, body, microversion)
        except Refused as why:
            reply = self.error(why)
        return _response(reply, self.headers(microversion))

    def _handled(self, request: web.Request, who: Who, path: str | None, body: bytes, microversion: tuple[int, int]) -> Reply:
        if path is None:
            raise Refused(404, "The resource could not be found.", "HTTPNotFound")
        try:
            said = _decode(body) if body else {}
        except msgspec.DecodeError:
            raise Refused(400, "Malformed request body", "HTTPBadRequest") from None
        there = False
        for method, pattern, handler in self._routes:
            match = pattern.fullmatch(path)
            if match is None:
                continue
            there = True
            if method == request.method:
                named = tuple(group or "" for group in match.groups())
                query = tuple(request.query.items())
                sent = request.headers.get("X-Openstack-Request-Id", "")
                return handler(Ask(request.method, path, request.path, named, query, said, who, microversion, sent))
        if there:
            raise Refused(405, "The method is not allowed for this resource.", "HTTPMethodNotAllowed")
        raise Refused(404, "The resource could not be found.", "HTTPNotFound")

    # --- lists

    def page(
        self,
        ask: Ask,
        rows: Rows,
        show: Callable[[Row], Row],
        *,
        plain: bool,
        same: bool = False,
        keep: Callable[[Row], bool] | None,
        ids: Sequence[str] | None = None,
        no_marker: Refused,
        limit: int,
        visible: Callable[[str], bool] | None = None,
    ) -> tuple[list[bytes], str, str, bool]:
        """One page: encoded rows, the first's id, the last's, and whether it is full.

        `plain`: this asker sees rows as they are kept. `same`: all others see the same of one row. `keep`: the filter on kept
        rows. `ids`: only these can be meant.
        """
        order = rows.ordered()
        marker = ask.one("marker")
        start = 0
        if marker:
            if not (visible(marker) if visible else rows.seen(marker, ask.who)):
                raise no_marker
            start = rows.place(marker) + 1
        candidates: Iterable[str] = range_of(order, start)
        if ids is not None:
            candidates = sorted((id_ for id_ in set(ids) if id_ in rows and rows.place(id_) >= start), key=rows.place)
        found: list[bytes] = []
        first = last = ""
        fields = ask.all("fields")
        for id_ in candidates:
            if len(found) >= limit:
                break
            if not (visible(id_) if visible else rows.seen(id_, ask.who)):
                continue
            if keep is not None and not keep(rows.copy(id_)):
                continue
            if fields:
                row = show(rows.copy(id_))
                found.append(_encode({name: row[name] for name in fields if name in row}))
            elif plain:
                found.append(rows.raw(id_))
            elif same:
                found.append(rows.shown(id_, show))
            else:
                found.append(_encode(show(rows.copy(id_))))
            first, last = first or id_, id_
        return found, first, last, bool(limit) and len(found) >= limit

    def limit(self, ask: Ask) -> int:
        """How many the asker gets in a page. Raises Refused."""
        text = ask.one("limit")
        if not text:
            return self.largest_page
        try:
            number = int(text)
        except ValueError:
            number = -1
        if number < 0:
            raise Refused(400, f"Bad limit request: Limit must be an integer 0 or greater and not '{text}'.", "BadRequest")
        return min(number, self.largest_page) if number else self.largest_page


def range_of(order: Sequence[str], start: int) -> Iterator[str]:
    """Its items from `start` on, without copying it."""
    for at in range(start, len(order)):
        yield order[at]


def joined(key: str, items: Sequence[bytes], **more: Any) -> bytes:
    """`{"ports": [...], "ports_links": ...}` from encoded items."""
    tail = b"".join(b", " + _encode(name) + b": " + _encode(value) for name, value in more.items())
    return b"".join((b"{", _encode(key), b": [", b", ".join(items), b"]", tail, b"}"))


def matches(row: Mapping[str, Any], name: str, wanted: Sequence[str]) -> bool:
    """Whether a field has one of these values, as services compare: texts, `true` and `false` in any case."""
    value = row.get(name)
    if isinstance(value, bool):
        return any(text.lower() in (("true", "1") if value else ("false", "0")) for text in wanted)
    if value is None:
        return "" in wanted
    return str(value) in wanted


def _response(reply: Reply, more: Mapping[str, str] = {}) -> web.Response:
    body = reply.body if isinstance(reply.body, bytes) else b"" if reply.body is None else _encode(reply.body)
    headers = {**more, **reply.headers}
    if body:
        headers["Content-Type"] = reply.content_type
    return web.Response(status=reply.status, body=body, headers=headers)
