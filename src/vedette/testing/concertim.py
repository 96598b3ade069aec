"""A Concertim front end with its metric daemon, as far as a service that fills it sees it: JSON over HTTP, in both dialects.

`v1`: racks belong to users, `POST /api/v1/nodes` takes flat fields. `v2`: racks belong to teams and have an order, devices have a
type and `details`; flat fields are taken too. Validation, statuses and the shapes of answers are the front end's: create and
update answer 200, a refusal is 422 with `{field: [messages]}`, lists have less than what is shown alone.

Faults are a test's to set: `trouble`, `stop` and `start`. Everything written is in `writes`.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, Literal

import jwt
import msgspec
from aiohttp import web

from vedette.ports import JsonObject

Dialect = Literal["v1", "v2"]
Fault = int | Literal["drop", "cut"] | float
"""A status to answer with; the connection closed before anything is done, or after it was done; seconds to wait first."""

PASSWORD = "concertim-secret"
MOST_BODY = 1024 * 1024
MOST_WRITES = 100_000
MOST_VALUES = 10_000
"""Of one metric of one device; the oldest go."""
DAY = 86_400.0
TALLEST = 72
HEIGHTS = range(1, 7)
"""Heights that there are pictures for."""
LONGEST_NAME = 150

STATUSES: Mapping[str, frozenset[str]] = {
    "rack": frozenset(("IN_PROGRESS", "FAILED", "ACTIVE", "STOPPED")),
    "Instance": frozenset(("IN_PROGRESS", "FAILED", "ACTIVE", "STOPPED", "SUSPENDED")),
    "Volume": frozenset(("IN_PROGRESS", "FAILED", "ACTIVE", "AVAILABLE")),
    "Network": frozenset(("IN_PROGRESS", "FAILED", "ACTIVE", "STOPPED")),
}
DETAILS: Mapping[str, tuple[str, frozenset[str]]] = {
    "Instance": (
        "Device::ComputeDetails",
        frozenset(("public_ips", "private_ips", "ssh_key", "volume_details", "login_user")),
    ),
    "Volume": (
        "Device::VolumeDetails",
        frozenset(("availability_zone", "bootable", "encrypted", "size", "volume_type")),
    ),
    "Network": (
        "Device::NetworkDetails",
        frozenset(("admin_state_up", "l2_adjacency", "mtu", "shared", "port_security_enabled")),
    ),
}
OBJECTS = frozenset(("metadata", "network_details", "volume_details", "details"))
"""Taken as JSON objects alone; anything else is dropped without a word."""
METRIC_TYPES = frozenset(("string", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float", "double"))
SLOPES = frozenset(("zero", "positive", "negative", "both", "derivative"))

_DEVICE = frozenset(("name", "description", "cost", "status", "metadata"))
_RACK_NAME = re.compile(r"[a-zA-Z0-9\-_]+")
_DEVICE_NAME = {"v1": re.compile(r"[a-zA-Z0-9\-]+"), "v2": re.compile(r"[a-zA-Z0-9\-.]+")}


class Refused(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(str(status))
        self.status, self.body = status, body


class Trouble:
    """What goes wrong. `next` are faults of the requests to come, one each; of those after it a `share` has one of `kinds`."""

    def __init__(self, seed: int = 0) -> None:
        self.next: deque[Fault] = deque()
        self.share = 0.0
        self.kinds: tuple[Fault, ...] = (500, 503, "drop", "cut", 0.05)
        self.had: Counter[str] = Counter()
        self._random = random.Random(seed)

    def fault(self) -> Fault | None:
        found = self.next.popleft() if self.next else None
        if found is None and self.share and self._random.random() < self.share:
            found = self._random.choice(self.kinds)
        if found is not None:
            self.had[str(found)] += 1
        return found


class FakeConcertim:
    """One front end on 127.0.0.1. As a context manager it is there; `stop` and `start` take it away and bring it back."""

    def __init__(self, dialect: Dialect = "v2", *, login: str = "admin", password: str = PASSWORD, seed: int = 0) -> None:
        self.dialect = dialect
        self.login, self.password = login, password
        self.trouble = Trouble(seed)
        self.users: dict[str, JsonObject] = {}
        self.teams: dict[str, JsonObject] = {}
        self.templates: dict[str, JsonObject] = {}
        self.racks: dict[str, JsonObject] = {}
        self.devices: dict[str, JsonObject] = {}
        """With `rack_id`, `start_u` and `template_id` in them; they are shown otherwise."""
        self._inside: dict[str, dict[str, JsonObject]] = {}
        """Rack → its devices."""
        self.metrics: dict[str, dict[str, list[float]]] = {}
        """Device → name → the values that came."""
        self.auto_refresh = True
        """Whether the metric daemon knows a device as soon as it is there; else at the next `refresh`."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """Requests by (method, what): `("PATCH", "device")`."""
        self.writes: deque[tuple[str, str, JsonObject]] = deque(maxlen=MOST_WRITES)
        """(method, path, body) of what was changed."""
        self.deaf_to: frozenset[str] = frozenset()
        """Fields that it takes and does not keep."""
        self.logins = 0
        self.token_seconds = DAY
        self.port = 0
        self._secret = uuid.UUID(int=random.Random(seed).getrandbits(128)).hex
        self._allowed: dict[str, str] = {}
        """Tokens that hold: jti → user."""
        self._passwords: dict[str, str] = {}
        """Of those who are no admin, by login."""
        self._caller: JsonObject = {}
        """Whose request is worked on. Nothing is awaited meanwhile."""
        self._daemon_knows: set[str] = set()
        self._numbers = 0
        self._random = random.Random(seed + 1)
        self._runner: web.AppRunner | None = None
        self.add_user(login, root=True)
        if dialect == "v2":
            for tag in ("volume", "network"):
                self.add_template(name=tag, height=1, tag=tag, ram=None, disk=None, vcpus=None)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # --- what a test does

    async def __aenter__(self) -> FakeConcertim:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """On the port that it had."""
        app = web.Application(client_max_size=MOST_BODY)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """What it holds stays."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def add_user(self, login: str, *, root: bool = False, project_id: str | None = None, password: str = PASSWORD) -> Any:
        """Its id. Who is no admin can sign in too, and only look."""
        self._passwords[login] = password
        id_ = self._id()
        user: JsonObject = {
            "id": id_,
            "login": login,
            "name": login,
            "fullname": login,
            "email": f"{login}@example.org",
            "root": root,
            "status": "ACTIVE",
        }
        if self.dialect == "v1":
            user |= {"project_id": project_id, "cost": "0.00", "billing_period_start": None, "billing_period_end": None}
        else:
            user |= {"cloud_user_id": None if root else self._id(), "team_roles": []}
        self.users[str(id_)] = user
        return id_

    def add_team(self, name: str, project_id: str) -> Any:
        """Its id."""
        id_ = self._id()
        self.teams[str(id_)] = {
            "id": id_,
            "name": name,
            "project_id": project_id,
            "billing_acct_id": None,
            "billing_period_start": None,
            "billing_period_end": None,
            "cost": "0.00",
            "credits": "0.00",
        }
        return id_

    def add_template(self, **fields: Any) -> Any:
        """Made by hand. Its id."""
        id_ = self._id()
        plain = {"name": "by hand", "description": "", "height": 1, "tag": None, "foreign_id": None}
        self.templates[str(id_)] = {"id": id_, **plain, "vcpus": 1, "ram": 512, "disk": 1, **fields}
        return id_

    def add_rack(self, owner: Any, name: str, **fields: Any) -> Any:
        """Made by hand. Its id."""
        key = "team_id" if self.dialect == "v2" else "user_id"
        body = {"name": name, "u_height": 42, "status": "ACTIVE", "metadata": {}, key: owner, "order_id": self._id(), **fields}
        return self._create_rack({"rack": body})["id"]

    def add_device(self, rack: Any, template: Any, name: str, start_u: int, **fields: Any) -> Any:
        """Made by hand. Its id."""
        body = {"name": name, "status": "ACTIVE", "metadata": {}, "type": "Instance", **fields}
        body["location"] = {"facing": "f", "rack_id": rack, "start_u": start_u}
        return self._create_device({"template_id": template, "device": body})["id"]

    def refresh(self) -> None:
        """The metric daemon reads the data source map."""
        self._daemon_knows = set(self.devices)

    def revoke_tokens(self) -> None:
        self._allowed.clear()

    def by(self, what: Literal["rack", "device"], ours: str) -> list[JsonObject]:
        """Those that stand for this object of the cloud."""
        name = {"rack": "openstack_stack_id", "device": "openstack_instance_id"}[what]
        rows = self.racks if what == "rack" else self.devices
        return [row for row in rows.values() if (row.get("metadata") or {}).get(name) == ours]

    @staticmethod
    def _own(rows: Mapping[str, JsonObject], id_: Any) -> Any:
        """The id as it is kept: a number may come as text."""
        row = rows.get(str(id_))
        return id_ if row is None else row["id"]

    def _id(self) -> Any:
        self._numbers += 1
        if self.dialect == "v1":
            return self._numbers
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    # --- a request

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        fault = self.trouble.fault()
        raw = await request.read()
        if isinstance(fault, float):
            await asyncio.sleep(fault)
        elif fault == "drop":
            return _closed(request)
        elif isinstance(fault, int):
            return web.json_response({"errors": [{"status": str(fault), "title": "trouble"}]}, status=fault)
        try:
            answer: web.StreamResponse = self._routed(request, raw)
        except Refused as why:
            answer = web.json_response(why.body, status=why.status)
        if fault == "cut":
            return _closed(request)
        return answer

    def _routed(self, request: web.Request, raw: bytes) -> web.Response:
        path, method = request.path, request.method
        if path in ("/users/sign_in.json", "/accounts/sign_in.json") and method == "POST":
            return self._sign_in(_body(raw))
        if path.startswith("/mrd/"):
            return self._daemon(request, method, path.removeprefix("/mrd"), raw)
        self._caller = user = self._signed_in(request)
        for way, pattern, what, work in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found is not None and way == method:
                if self.dialect == "v1" and what == "team":
                    break
                self.counts[method, what] += 1
                body = _body(raw) if method in ("POST", "PATCH", "PUT") else {}
                if method != "GET":
                    if not user["root"]:
                        raise Refused(403, _errors(403, "Forbidden"))
                    answer = work(self, *found.groups(), body, request.query)
                    self.writes.append((method, path, body))
                else:
                    answer = work(self, *found.groups(), body, request.query)
                return web.json_response(answer, dumps=_dumps)
        raise Refused(404, _errors(404, "Not Found"))

    def _sign_in(self, body: JsonObject) -> web.Response:
        said = body.get("user")
        said = said if isinstance(said, dict) else {}
        # `password` is a test's to change, so that the admin's is looked at last
        passwords = self._passwords | {self.login: self.password}
        user = next((one for one in self.users.values() if one["login"] == said.get("login")), None)
        if user is None or passwords[user["login"]] != said.get("password"):
            raise Refused(401, {"error": "Invalid login or password."})
        self.logins += 1
        jti = uuid.uuid4().hex
        self._allowed[jti] = str(user["id"])
        token = self.token(jti=jti)
        return web.json_response(user, headers={"Authorization": f"Bearer {token}"}, dumps=_dumps)

    def token(self, **claims: Any) -> str:
        """As the front end signs it."""
        return jwt.encode({"exp": time.time() + self.token_seconds, **claims}, self._secret, algorithm="HS256")

    def _signed_in(self, request: web.Request, *, listed: bool = True) -> JsonObject:
        scheme, _, word = request.headers.get("Authorization", "").partition(" ")
        try:
            claims = jwt.decode(word if scheme == "Bearer" else "", self._secret, algorithms=["HS256"])
        except jwt.InvalidTokenError:
            raise Refused(401, _errors(401, "Unauthorized")) from None
        if not listed:
            return {}
        user = self.users.get(self._allowed.get(str(claims.get("jti")), ""))
        if user is None:
            raise Refused(401, _errors(401, "Unauthorized"))
        return user

    # --- templates

    def _show_template(self, row: JsonObject) -> JsonObject:
        return dict(row)

    def _list_templates(self, *_: Any) -> list[JsonObject]:
        return [self._show_template(row) for row in self.templates.values()]

    def _get_template(self, id_: str, *_: Any) -> JsonObject:
        return self._show_template(_found(self.templates, id_))

    def _create_template(self, body: JsonObject, *_: Any) -> JsonObject:
        given = _permitted(body, "template", ("name", "description", "height", "ram", "disk", "vcpus", "foreign_id"))
        row = {"description": None, "height": None, "ram": None, "disk": None, "vcpus": None, "foreign_id": None, **given}
        self._check_template(row)
        id_ = self._id()
        self.templates[str(id_)] = row = {"id": id_, "tag": None, **row}
        return self._show_template(row)

    def _change_template(self, id_: str, body: JsonObject, *_: Any) -> JsonObject:
        row = _found(self.templates, id_)
        given = _permitted(body, "template", ("name", "description", "ram", "disk", "vcpus", "foreign_id"))
        self._check_template({**row, **given})
        row.update(given)
        return self._show_template(row)

    def _check_template(self, row: JsonObject) -> None:
        wrong = _Wrong()
        if not isinstance(row.get("name"), str) or not row["name"]:
            wrong("name", "can't be blank")
        if not _whole(row.get("height")) or row["height"] not in HEIGHTS:
            wrong("height", "is not included in the list")
        if not row.get("tag"):
            for name in ("ram", "disk", "vcpus"):
                if not _whole(row.get(name)) or row[name] <= 0:
                    wrong(name, "must be greater than 0")
        wrong.check()

    def _delete_template(self, id_: str, body: JsonObject, query: Mapping[str, str]) -> JsonObject:
        _found(self.templates, id_)
        users = [one for one in self.devices.values() if str(one["template_id"]) == id_]
        if users and query.get("recurse") != "true":
            raise Refused(422, {"errors": "Cannot delete template as there are devices using it"})
        for one in users:
            self._forget_device(str(one["id"]))
        del self.templates[id_]
        return {}

    # --- racks

    def _owner(self, row: JsonObject) -> JsonObject | None:
        owner = (self.teams if self.dialect == "v2" else self.users).get(str(row["owner_id"]))
        return None if owner is None else dict(owner)

    def _show_rack(self, row: JsonObject, *, alone: bool = True) -> JsonObject:
        hidden = ("owner_id", "order_id") if self.dialect == "v1" else ("owner_id",)
        shown: JsonObject = {name: value for name, value in row.items() if name not in hidden}
        if self.dialect == "v2" or self._caller.get("root"):
            shown["owner"] = self._owner(row)
        if alone:
            shown["devices"] = [self._show_device(one, alone=False) for one in self._in_rack(row["id"])]
        return shown

    def _in_rack(self, rack: Any) -> list[JsonObject]:
        return list(self._inside.get(str(rack), {}).values())

    def _list_racks(self, *_: Any) -> list[JsonObject]:
        return [self._show_rack(row, alone=False) for row in self.racks.values()]

    def _get_rack(self, id_: str, *_: Any) -> JsonObject:
        return self._show_rack(_found(self.racks, id_))

    _RACK = ("name", "u_height", "cost", "status", "network_details", "creation_output", "metadata")

    def _create_rack(self, body: JsonObject, *_: Any) -> JsonObject:
        owner = "team_id" if self.dialect == "v2" else "user_id"
        given = _permitted(body, "rack", (*self._RACK, owner, "order_id"))
        row: JsonObject = {
            "name": None,
            "u_height": 42,
            "cost": "0.00",
            "status": None,
            "network_details": {},
            "creation_output": None,
            "metadata": {},
            "order_id": None,
            "modified_timestamp": 0,
            **{name: value for name, value in given.items() if name != owner},
            "owner_id": self._own((self.teams if self.dialect == "v2" else self.users), given.get(owner)),
        }
        self._check_rack(row)
        id_ = self._id()
        self.racks[str(id_)] = row = {"id": id_, **row, "modified_timestamp": self._numbers}
        return self._show_rack(row)

    def _change_rack(self, id_: str, body: JsonObject, *_: Any) -> JsonObject:
        row = _found(self.racks, id_)
        given = _permitted(body, "rack", self._RACK)
        self._check_rack({**row, **given})
        self._numbers += 1
        row.update(given, modified_timestamp=self._numbers)
        return self._show_rack(row)

    def _check_rack(self, row: JsonObject) -> None:
        wrong = _Wrong()
        others = [one for one in self.racks.values() if one["id"] != row.get("id")]
        owner = "team" if self.dialect == "v2" else "user"
        if str(row["owner_id"]) not in (self.teams if self.dialect == "v2" else self.users):
            wrong(owner, "must exist")
        if not isinstance(row["name"], str) or not _RACK_NAME.fullmatch(row["name"]):
            wrong("name", "can contain only alphanumeric characters, hyphens and underscores")
        elif any(one["name"] == row["name"] and one["owner_id"] == row["owner_id"] for one in others):
            wrong("name", "has already been taken")
        height = row["u_height"]
        if not _whole(height) or not 1 <= height <= TALLEST:
            wrong("u_height", f"must be between 1 and {TALLEST}")
        elif row.get("id") is not None and any(self._end(one) > height for one in self._in_rack(row["id"])):
            wrong("u_height", "is too small for its devices")
        if not _one_of(row["status"], STATUSES["rack"]):
            wrong("status", "is not included in the list")
        if not _amount(row["cost"]):
            wrong("cost", "must be greater than or equal to 0")
        if self.dialect == "v2":
            if not row.get("order_id"):
                wrong("order_id", "can't be blank")
            elif any(one["order_id"] == row["order_id"] for one in others):
                wrong("order_id", "has already been taken")
        wrong.check()

    def _delete_rack(self, id_: str, body: JsonObject, query: Mapping[str, str]) -> JsonObject:
        row = _found(self.racks, id_)
        inside = self._in_rack(row["id"])
        if inside and query.get("recurse") != "true":
            raise Refused(422, {"errors": "Cannot delete rack as it is not empty"})
        for one in inside:
            self._forget_device(str(one["id"]))
        del self.racks[id_]
        return {}

    # --- devices

    def _end(self, row: JsonObject) -> int:
        template = self.templates[str(row["template_id"])]
        return int(row["start_u"]) + int(template["height"]) - 1

    def _show_device(self, row: JsonObject, *, alone: bool = True) -> JsonObject:
        hidden = ("rack_id", "start_u", "facing", "details", "template_id", "kind")
        shown: JsonObject = {name: value for name, value in row.items() if name not in hidden} | row["details"]
        shown["location"] = {
            "depth": 2,
            "start_u": row["start_u"],
            "end_u": self._end(row),
            "facing": row["facing"],
            "rack_id": row["rack_id"],
            "type": "RackChassis",
        }
        if self.dialect == "v2":
            shown["type"] = row["kind"]
        if alone:
            shown["template"] = self._show_template(self.templates[str(row["template_id"])])
        else:
            shown["template_id"] = row["template_id"]
        return shown

    def _list_devices(self, *_: Any) -> list[JsonObject]:
        return [self._show_device(row, alone=False) for row in self.devices.values()]

    def _get_device(self, id_: str, *_: Any) -> JsonObject:
        return self._show_device(_found(self.devices, id_))

    def _details(self, given: JsonObject, kind: str) -> JsonObject:
        """From `details`, or flat, as before there were any."""
        word, names = DETAILS[kind]
        inner = given.get("details") if self.dialect == "v2" else None
        if isinstance(inner, dict):
            if inner.get("type") not in (None, word):
                raise Refused(422, {"details": [f"must be {word}"]})
            found = {name: value for name, value in inner.items() if name in names}
        else:
            found = {name: given[name] for name in names if name in given}
        return {name: value for name, value in found.items() if name not in OBJECTS or isinstance(value, dict)}

    def _create_device(self, body: JsonObject, *_: Any) -> JsonObject:
        given = body.get("device")
        if not isinstance(given, dict):
            raise Refused(400, _errors(400, "param is missing or the value is empty: device"))
        kind = given.get("type", "Instance") if self.dialect == "v2" else "Instance"
        if not _one_of(kind, DETAILS):
            raise Refused(422, {"type": ["is not included in the list"]})
        plain = _permitted(body, "device", _DEVICE)
        location = given.get("location")
        location = location if isinstance(location, dict) else {}
        row: JsonObject = {
            "name": None,
            "description": None,
            "cost": "0.00",
            "status": None,
            "metadata": {},
            **plain,
            "kind": kind,
            "details": dict.fromkeys(DETAILS[kind][1]) | self._details(given, kind),
            "template_id": self._own(self.templates, body.get("template_id")),
            "rack_id": self._own(self.racks, location.get("rack_id")),
            "start_u": location.get("start_u"),
            "facing": location.get("facing"),
        }
        self._check_device(row)
        id_ = self._id()
        self.devices[str(id_)] = row = {"id": id_, **row}
        self._inside.setdefault(str(row["rack_id"]), {})[str(id_)] = row
        if self.auto_refresh:
            self._daemon_knows.add(str(id_))
        return self._show_device(row)

    def _change_device(self, id_: str, body: JsonObject, *_: Any) -> JsonObject:
        row = _found(self.devices, id_)
        given = body.get("device")
        given = given if isinstance(given, dict) else {}
        new = {**row, **_permitted(body, "device", _DEVICE - self.deaf_to)}
        new["details"] = row["details"] | self._details(given, row["kind"])
        location = given.get("location")
        if isinstance(location, dict):
            if str(location.get("rack_id", row["rack_id"])) != str(row["rack_id"]):
                raise Refused(422, {"rack_id": ["cannot be changed"]})
            new |= {name: location[name] for name in ("start_u", "facing") if name in location}
        self._check_device(new)
        row.update(new)
        return self._show_device(row)

    def _check_device(self, row: JsonObject) -> None:
        wrong = _Wrong()
        kind = row["kind"]
        inside = [one for one in self._in_rack(row["rack_id"]) if one["id"] != row.get("id")]
        name = row["name"]
        if not isinstance(name, str) or not _DEVICE_NAME[self.dialect].fullmatch(name):
            wrong("name", "can contain only alphanumeric characters and hyphens")
        elif len(name) > LONGEST_NAME:
            wrong("name", f"is too long (maximum is {LONGEST_NAME} characters)")
        elif any(one["name"] == name for one in inside):
            wrong("name", "has already been taken")
        if not _one_of(row["status"], STATUSES[kind]):
            wrong("status", "is not included in the list")
        if not _amount(row["cost"]):
            wrong("cost", "must be greater than or equal to 0")
        template = self.templates.get(str(row["template_id"]))
        if template is None:
            wrong("template", "must exist")
        elif (template["tag"] or None) != (None if kind == "Instance" else kind.lower()):
            wrong("template", f"cannot be used for a device of type {kind}")
        rack = self.racks.get(str(row["rack_id"]))
        if rack is None:
            wrong("rack", "must exist")
        if row["facing"] not in ("f", "b"):
            wrong("facing", "is not included in the list")
        if not _whole(row["start_u"]) or row["start_u"] < 1:
            wrong("start_u", "must be greater than 0")
        elif template is not None and rack is not None:
            end = self._end(row)
            if end > rack["u_height"]:
                wrong("start_u", "is too high for the rack")
            elif any(one["start_u"] <= end and self._end(one) >= row["start_u"] for one in inside):
                wrong("start_u", "is occupied")
        wrong.check()

    def _delete_device(self, id_: str, *_: Any) -> JsonObject:
        _found(self.devices, id_)
        self._forget_device(id_)
        return {}

    def _forget_device(self, id_: str) -> None:
        row = self.devices.pop(id_)
        self._inside[str(row["rack_id"])].pop(id_, None)
        self._daemon_knows.discard(id_)

    # --- people

    def _list_users(self, *_: Any) -> list[JsonObject]:
        return list(self.users.values())

    def _current_user(self, *_: Any) -> JsonObject:
        return self._caller

    def _change_user(self, id_: str, body: JsonObject, *_: Any) -> JsonObject:
        row = _found(self.users, id_)
        given = _permitted(body, "user", ("cost", "billing_period_start", "billing_period_end"))
        if not _amount(given.get("cost", 0)):
            raise Refused(422, {"cost": ["must be greater than or equal to 0"]})
        row.update(given)
        return row

    def _list_teams(self, *_: Any) -> list[JsonObject]:
        return list(self.teams.values())

    def _change_team(self, id_: str, body: JsonObject, *_: Any) -> JsonObject:
        row = _found(self.teams, id_)
        given = _permitted(body, "team", ("cost", "billing_period_start", "billing_period_end", "credits"))
        if not _amount(given.get("cost", 0)):
            raise Refused(422, {"cost": ["must be greater than or equal to 0"]})
        row.update(given)
        return row

    def _data_source_map(self, *_: Any) -> JsonObject:
        return {"grid": {"cluster": {str(id_): str(id_) for id_ in self.devices}}}

    # --- the metric daemon

    def _daemon(self, request: web.Request, method: str, path: str, raw: bytes) -> web.Response:
        if method == "GET" and path == "/status":
            return web.json_response({"status": 200})
        shown = re.fullmatch(r"/devices/([^/]+)/metrics/current", path)
        if method == "GET" and shown is not None:
            return web.json_response([{"name": name, "value": values[-1]} for name, values in self._metrics(shown[1]).items()])
        put = re.fullmatch(r"/([^/]+)/metrics", path)
        if method != "PUT" or put is None:
            raise Refused(404, {"status": 404, "errors": [{"title": "Not Found"}]})
        self._signed_in(request, listed=False)
        self.counts["PUT", "metric"] += 1
        try:
            said = msgspec.json.decode(raw)
        except msgspec.DecodeError:
            raise Refused(400, {"status": 400, "errors": [{"title": "Bad Request"}]}) from None
        metrics = self._metrics(put[1])
        wrong = _wrong_metric(said)
        if wrong:
            raise Refused(422, {"status": 422, "errors": [{"title": "Unprocessable Entity", "source": wrong}]})
        values = self.metrics.setdefault(put[1], metrics).setdefault(said["name"], [])
        values.append(said["value"])
        del values[:-MOST_VALUES]
        self.writes.append((method, f"/mrd{path}", said))
        return web.json_response({"status": 200})

    def _metrics(self, id_: str) -> dict[str, list[float]]:
        if id_ not in self._daemon_knows:
            detail = f"Host Not Found: {id_}"
            raise Refused(404, {"status": 404, "errors": [{"title": "Host Not Found", "detail": detail}]})
        return self.metrics.get(id_, {})


_Work = Callable[..., Any]
_ROUTES: tuple[tuple[str, str, str, _Work], ...] = (
    ("GET", r"/api/v1/users", "user", FakeConcertim._list_users),
    ("GET", r"/api/v1/users/current", "user", FakeConcertim._current_user),
    ("PATCH", r"/api/v1/users/([^/]+)", "user", FakeConcertim._change_user),
    ("GET", r"/api/v1/teams", "team", FakeConcertim._list_teams),
    ("PATCH", r"/api/v1/teams/([^/]+)", "team", FakeConcertim._change_team),
    ("GET", r"/api/v1/templates", "template", FakeConcertim._list_templates),
    ("GET", r"/api/v1/templates/([^/]+)", "template", FakeConcertim._get_template),
    ("POST", r"/api/v1/templates", "template", FakeConcertim._create_template),
    ("PATCH", r"/api/v1/templates/([^/]+)", "template", FakeConcertim._change_template),
    ("DELETE", r"/api/v1/templates/([^/]+)", "template", FakeConcertim._delete_template),
    ("GET", r"/api/v1/racks", "rack", FakeConcertim._list_racks),
    ("GET", r"/api/v1/racks/([^/]+)", "rack", FakeConcertim._get_rack),
    ("POST", r"/api/v1/racks", "rack", FakeConcertim._create_rack),
    ("PATCH", r"/api/v1/racks/([^/]+)", "rack", FakeConcertim._change_rack),
    ("DELETE", r"/api/v1/racks/([^/]+)", "rack", FakeConcertim._delete_rack),
    ("GET", r"/api/v1/devices", "device", FakeConcertim._list_devices),
    ("GET", r"/api/v1/devices/([^/]+)", "device", FakeConcertim._get_device),
    ("POST", r"/api/v1/nodes", "device", FakeConcertim._create_device),
    ("PATCH", r"/api/v1/devices/([^/]+)", "device", FakeConcertim._change_device),
    ("DELETE", r"/api/v1/devices/([^/]+)", "device", FakeConcertim._delete_device),
    ("GET", r"/api/v1/data-source-maps", "data-source-map", FakeConcertim._data_source_map),
)


class _Wrong:
    """Collects what is wrong with which field."""

    def __init__(self) -> None:
        self._fields: dict[str, list[str]] = {}

    def __call__(self, field: str, message: str) -> None:
        self._fields.setdefault(field, []).append(message)

    def check(self) -> None:
        if self._fields:
            raise Refused(422, self._fields)


def _wrong_metric(said: Any) -> str:
    """The field that is wrong; "": none."""
    if not isinstance(said, dict):
        return "body"
    if not isinstance(said.get("name"), str) or not said["name"]:
        return "name"
    if not _one_of(said.get("type"), METRIC_TYPES):
        return "type"
    value = said.get("value")
    if said["type"] == "string":
        if not isinstance(value, str):
            return "value"
    elif isinstance(value, bool) or not isinstance(value, int | float):
        return "value"
    units = said.get("units")
    if not isinstance(units, str) or any(one in units for one in "<>'\"&"):
        return "units"
    if not _one_of(said.get("slope"), SLOPES):
        return "slope"
    if not _whole(said.get("ttl")) or said["ttl"] < 1:
        return "ttl"
    return ""


def _body(raw: bytes) -> JsonObject:
    try:
        found = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError:
        raise Refused(400, _errors(400, "Bad Request")) from None
    return found if isinstance(found, dict) else {}


def _permitted(body: JsonObject, key: str, names: Iterable[str]) -> JsonObject:
    """Strong parameters: what isn't permitted is left out, and so is what should be an object and is none."""
    given = body.get(key)
    if not isinstance(given, dict):
        raise Refused(400, _errors(400, f"param is missing or the value is empty: {key}"))
    found = {name: given[name] for name in names if name in given}
    return {name: value for name, value in found.items() if name not in OBJECTS or isinstance(value, dict)}


def _found(rows: Mapping[str, JsonObject], id_: str) -> JsonObject:
    if id_ not in rows:
        raise Refused(404, _errors(404, "Not Found"))
    return rows[id_]


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _one_of(value: Any, allowed: Container[str]) -> bool:
    """Also for what can't be in a set: lists and objects are wrong, not an accident."""
    return isinstance(value, str) and value in allowed


def _amount(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and 0 <= float(value) < math.inf
    except (TypeError, ValueError):
        return False


def _errors(status: int, title: str) -> JsonObject:
    return {"errors": [{"status": str(status), "title": title, "description": title}]}


def _dumps(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _closed(request: web.Request) -> web.Response:
    """The connection ends here."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()
