"""What the fake Keystone does when it is asked to change something: users, projects, roles and who has them where.

In: a request that no list answers, from testing/keystone.py. Only an admin may; a user may not even change himself here. As with
Fernet tokens, a new password ends the tokens that were got with the old one, and so does the end of a user or a project.
https://docs.openstack.org/api-ref/identity/v3/
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Protocol

import msgspec
from aiohttp import web

_ONE = re.compile(r"/v3/(users|projects|roles)(?:/([^/]+))?")
_GRANT = re.compile(r"/v3/projects/([^/]+)/users/([^/]+)/roles(?:/([^/]+))?")
_TEXTS = ("name", "password", "email", "description", "domain_id", "default_project_id")
LONGEST_NAME = 255


class Keystone(Protocol):
    """What of `testing/keystone.py` is needed here."""

    domains: dict[str, str]
    users: dict[str, Any]
    projects: dict[str, Any]
    grants: set[Any]
    named_roles: set[str]
    credentials: dict[str, Any]

    def add_user(self, name: str, password: str = "", *, domain: str = "default") -> str: ...

    def add_project(self, name: str, *, domain: str = "default") -> str: ...

    def add_role(self, name: str) -> str: ...

    def roles(self) -> list[str]: ...

    def role_row(self, name: str) -> dict[str, Any]: ...

    def user_row(self, user: Any) -> dict[str, Any]: ...

    def project_row(self, project: Any) -> dict[str, Any]: ...

    def end_tokens(self, *, user: str = "", project: str = "") -> None: ...

    def grant(self, user: str, role: str, *, project: str = "") -> None: ...

    def ungrant(self, user: str, role: str, *, project: str = "") -> None: ...


class No(Exception):
    """An error in Keystone's form."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def changed(keystone: Keystone, request: web.Request, body: bytes, roles: frozenset[str] | None) -> web.Response | None:
    """The answer; None: it is no change. `roles`: the asker's, None for nobody. Raises No."""
    path, method = request.path.rstrip("/"), request.method
    grant, one = _GRANT.fullmatch(path), _ONE.fullmatch(path)
    if grant is None and (one is None or method == "GET"):
        return None
    if roles is None:
        raise No(401, "The request you have made requires authentication.")
    if "admin" not in roles:
        raise No(403, f"You are not authorized to perform the requested action: {_action(method, grant, one)}.")
    if grant is not None:
        return _granted(keystone, method, grant[1], grant[2], grant[3] or "")
    assert one is not None
    kind, id_ = one[1][:-1], one[2] or ""
    if method == "POST" and not id_:
        return _json(201, {kind: _made(keystone, kind, _given(body, kind))})
    if method == "PATCH" and id_:
        return _json(200, {kind: _patched(keystone, kind, id_, _given(body, kind))})
    if method == "DELETE" and id_:
        _deleted(keystone, kind, id_)
        return web.Response(status=204)
    raise No(405, "The method is not allowed for the requested URL.")


def _action(method: str, grant: re.Match[str] | None, one: re.Match[str] | None) -> str:
    if grant is not None:
        return {"PUT": "identity:create_grant", "DELETE": "identity:revoke_grant"}.get(method, "identity:check_grant")
    verb = {"POST": "create", "PATCH": "update", "DELETE": "delete"}.get(method, "get")
    return f"identity:{verb}_{one[1][:-1] if one else ''}"


def _given(body: bytes, kind: str) -> dict[str, Any]:
    try:
        given = msgspec.json.decode(body)[kind]
    except (msgspec.DecodeError, KeyError, TypeError):
        given = None
    if not isinstance(given, dict):
        raise No(400, f"Expecting to find {kind} in request body.")
    for name, value in given.items():
        if name in _TEXTS and value is not None and not isinstance(value, str):
            # (Without the value: it may be a password.)
            raise No(400, f"Invalid input for field '{name}': is not of type 'string'")
        if name == "enabled" and not isinstance(value, bool):
            raise No(400, f"Invalid input for field 'enabled': {value!r} is not of type 'boolean'")
    return given


def _made(keystone: Keystone, kind: str, given: dict[str, Any]) -> dict[str, Any]:
    name, domain = _name(given), given.get("domain_id") or "default"
    if kind == "role":
        if name in keystone.roles():
            raise No(409, f"Conflict occurred attempting to store role - Duplicate entry found with name {name}.")
        keystone.add_role(name)
        return keystone.role_row(name)
    if domain not in keystone.domains:
        raise No(404, f"Could not find domain: {domain}.")
    _free(keystone, kind, name, domain)
    if kind == "project":
        id_ = keystone.add_project(name, domain=domain)
    else:
        id_ = keystone.add_user(name, given.get("password") or "", domain=domain)
    rest = {key: value for key, value in given.items() if key not in ("name", "password", "domain_id")}
    return _set(keystone, kind, id_, rest)


def _name(given: dict[str, Any]) -> str:
    name = given.get("name")
    if not isinstance(name, str) or not name.strip() or len(name) > LONGEST_NAME:
        raise No(400, "Invalid input for field 'name'")
    return name


def _free(keystone: Keystone, kind: str, name: str, domain: str, but: str = "") -> None:
    """Raises No, where the name is another one's already: in any case, as MySQL compares."""
    for one in _there(keystone, kind).values():
        if one.id != but and one.name.lower() == name.lower() and one.domain == domain:
            text = f"Duplicate entry found with name {name} at domain ID {domain}."
            raise No(409, f"Conflict occurred attempting to store {kind} - {text}")


def _there(keystone: Keystone, kind: str) -> dict[str, Any]:
    return {"user": keystone.users, "project": keystone.projects}.get(kind, {})


def _patched(keystone: Keystone, kind: str, id_: str, given: dict[str, Any]) -> dict[str, Any]:
    one = _there(keystone, kind).get(id_)
    if one is None:
        raise No(404, f"Could not find {kind}: {id_}.")
    if given.get("domain_id", one.domain) != one.domain:
        raise No(400, "Cannot change Domain ID")
    if "name" in given:
        _free(keystone, kind, _name(given), one.domain, but=id_)
    return _set(keystone, kind, id_, given)


def _set(keystone: Keystone, kind: str, id_: str, given: dict[str, Any]) -> dict[str, Any]:
    one = _there(keystone, kind)[id_]
    for name in ("name", "email", "description"):
        if name in given and hasattr(one, name):
            setattr(one, name, given[name] or "")
    if "enabled" in given:
        one.enabled = given["enabled"]
    if kind == "project":
        if not one.enabled:
            keystone.end_tokens(project=id_)
        return keystone.project_row(one)
    if "default_project_id" in given:
        one.default_project = given["default_project_id"] or ""
    if "password" in given:
        # Without one nobody can sign in as the user: not with the old one, and not with none.
        one.password = given["password"] or secrets.token_urlsafe(16)
    if "password" in given or not one.enabled:
        keystone.end_tokens(user=id_)
    return keystone.user_row(one)


def _deleted(keystone: Keystone, kind: str, id_: str) -> None:
    if kind == "role":
        role = _role(keystone, id_)
        keystone.named_roles.discard(role)
        keystone.grants = {grant for grant in keystone.grants if grant[1] != role}
        return
    if _there(keystone, kind).pop(id_, None) is None:
        raise No(404, f"Could not find {kind}: {id_}.")
    keystone.end_tokens(**{kind: id_})
    keystone.grants = {
        (user, role, target)
        for user, role, target in keystone.grants
        if not (kind == "user" and user == id_) and not (kind == "project" and target == ("project", id_))
    }
    keystone.credentials = {name: one for name, one in keystone.credentials.items() if id_ not in (one.user, one.project)}
    for user in keystone.users.values():
        if user.default_project == id_:
            user.default_project = ""


def _role(keystone: Keystone, id_: str) -> str:
    """Its name. Raises No."""
    name = id_.removeprefix("role-")
    if name == id_ or name not in keystone.roles():
        raise No(404, f"Could not find role: {id_}.")
    return name


def _granted(keystone: Keystone, method: str, project: str, user: str, role_id: str) -> web.Response:
    if method not in (("GET", "HEAD", "PUT", "DELETE") if role_id else ("GET", "HEAD")):
        raise No(405, "The method is not allowed for the requested URL.")
    if project not in keystone.projects:
        raise No(404, f"Could not find project: {project}.")
    if user not in keystone.users:
        raise No(404, f"Could not find user: {user}.")
    has = {role for who, role, where in keystone.grants if who == user and where == ("project", project)}
    if not role_id:
        links = {"next": None, "self": f"/v3/projects/{project}/users/{user}/roles", "previous": None}
        return _json(200, {"roles": [keystone.role_row(role) for role in sorted(has)], "links": links})
    role = _role(keystone, role_id)
    if method == "PUT":
        keystone.grant(user, role, project=project)
    elif role not in has:
        raise No(404, f"Could not find role assignment with role: {role_id}, user or group: {user}, project: {project}.")
    elif method == "DELETE":
        keystone.ungrant(user, role, project=project)
    return web.Response(status=204)


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
