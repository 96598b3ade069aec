"""What the fake cloud does when a caller changes things with its own token: accounts, key pairs, servers, stacks, volumes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from vedette.testing.clock import FakeClock
from vedette.testing.cloud import FakeCloud
from vedette.testing.cloud_service import Service


class Http:
    """Plain requests with a user's token, or with the one that is said."""

    def __init__(self, cloud: FakeCloud, session: aiohttp.ClientSession) -> None:
        self._cloud = cloud
        self._session = session

    async def url(
        self, method: str, url: str, said: Any = None, *, user: str = "demo", token: str = "", version: str = ""
    ) -> tuple[int, Any]:
        headers = {"X-Auth-Token": token or self._cloud.token(user)}
        if version:
            headers["OpenStack-API-Version"] = version
        async with self._session.request(method, url, headers=headers, json=said, allow_redirects=False) as response:
            body = await response.read()
            return response.status, await response.json() if body and response.content_type == "application/json" else body

    async def __call__(
        self, service: Service, method: str, path: str, said: Any = None, *, user: str = "demo", version: str = ""
    ) -> tuple[int, Any]:
        at = service.endpoint(self._cloud.project_id(self._cloud.credentials(user)["project_id"]))
        root = at if at.endswith(service.root) or f"{service.root}/" in at else at + service.root
        return await self.url(method, root + path, said, user=user, version=f"{service.type} {version}" if version else "")

    async def keystone(
        self, method: str, path: str, said: Any = None, *, user: str = "admin", token: str = ""
    ) -> tuple[int, Any]:
        return await self.url(method, self._cloud.identity.url + path, said, user=user, token=token)

    async def login(self, user: dict[str, Any], password: str, project: str = "") -> tuple[int, str]:
        auth: dict[str, Any] = {"identity": {"methods": ["password"], "password": {"user": {**user, "password": password}}}}
        if project:
            auth["scope"] = {"project": {"id": project}}
        async with self._session.post(f"{self._cloud.identity.url}/auth/tokens", json={"auth": auth}) as response:
            return response.status, response.headers.get("X-Subject-Token", "")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def cloud(clock: FakeClock) -> AsyncIterator[FakeCloud]:
    async with FakeCloud(clock) as cloud:
        yield cloud


@pytest.fixture
async def http(cloud: FakeCloud) -> AsyncIterator[Http]:
    async with aiohttp.ClientSession() as session:
        yield Http(cloud, session)


async def made(http: Http, kind: str, name: str, **more: Any) -> str:
    status, body = await http.keystone("POST", f"/{kind}s", {kind: {"name": name, **more}})
    assert status == 201, body
    return str(body[kind]["id"])


async def soon(cloud: FakeCloud) -> None:
    """What is begun at once is over."""
    for _ in range(20):
        await asyncio.sleep(0)


# --- Keystone


async def test_a_user_is_made_signs_in_and_has_a_new_password(cloud: FakeCloud, http: Http) -> None:
    wanted = {"name": "ann", "domain_id": "default", "password": "first!", "email": "a@b.example", "description": "Ann"}
    status, body = await http.keystone("POST", "/users", {"user": wanted})
    assert status == 201
    user = body["user"]
    assert (user["email"], user["description"], user["enabled"]) == ("a@b.example", "Ann", True)
    assert "password" not in user
    by_name = {"name": "ann", "domain": {"id": "default"}}
    for who in (by_name, {"id": user["id"]}):
        status, token = await http.login(who, "first!")
        assert status == 201
    status, body = await http.keystone("GET", f"/users/{user['id']}", token=token)
    assert (status, body["user"]["email"]) == (200, "a@b.example"), "a user sees himself"
    assert (await http.keystone("GET", "/users", token=token))[0] == 403, "and nobody else"
    assert (await http.keystone("PATCH", f"/users/{user['id']}", {"user": {"password": "second"}}))[0] == 200
    assert (await http.keystone("GET", f"/users/{user['id']}", token=token))[0] == 401
    assert (await http.login(by_name, "first!"))[0] == 401
    assert (await http.login(by_name, "second"))[0] == 201
    assert (await http.keystone("PATCH", f"/users/{user['id']}", {"user": {"password": None}}))[0] == 200
    assert (await http.login(by_name, "second"))[0] == 401
    assert "second" not in repr(cloud.identity.users)
    assert "first" not in repr(cloud.identity.users)


async def test_names_are_free_or_409_and_lists_find_them(http: Http) -> None:
    for kind in ("user", "project"):
        one, other = await made(http, kind, "x"), await made(http, kind, "y")
        status, body = await http.keystone("POST", f"/{kind}s", {kind: {"name": "x", "domain_id": "default"}})
        assert (status, body["error"]["code"], body["error"]["title"]) == (409, 409, "Conflict")
        assert (await http.keystone("PATCH", f"/{kind}s/{other}", {kind: {"name": "x"}}))[0] == 409
        assert (await http.keystone("PATCH", f"/{kind}s/{other}", {kind: {"name": "y", "enabled": False}}))[0] == 200
        _, body = await http.keystone("GET", f"/{kind}s?name=x&domain_id=default")
        assert [row["id"] for row in body[f"{kind}s"]] == [one]
        assert (await http.keystone("GET", f"/{kind}s?name=x&domain_id=else"))[1][f"{kind}s"] == []
        for wrong in ({"name": ""}, {"name": 5}, {"name": "n" * 256}, {"name": "n", "enabled": "yes"}):
            assert (await http.keystone("POST", f"/{kind}s", {kind: wrong}))[0] == 400
        assert (await http.keystone("POST", f"/{kind}s", {kind: {"name": "z", "domain_id": "none"}}))[0] == 404
        assert (await http.keystone("DELETE", f"/{kind}s/{one}"))[0] == 204
        assert (await http.keystone("DELETE", f"/{kind}s/{one}"))[0] == 404
        assert (await http.keystone("PATCH", f"/{kind}s/{one}", {kind: {"name": "w"}}))[0] == 404


async def test_a_grant_opens_a_project_and_its_end_closes_it(cloud: FakeCloud, http: Http) -> None:
    user, project = await made(http, "user", "bob", password="pw"), await made(http, "project", "lab", description="d")
    role = cloud.identity.add_role("watcher")
    _, body = await http.keystone("GET", "/roles?name=watcher")
    assert [row["id"] for row in body["roles"]] == [role]
    rating = await made(http, "role", "rating")
    assert (await http.keystone("POST", "/roles", {"role": {"name": "rating"}}))[0] == 409
    at = f"/projects/{project}/users/{user}/roles"
    assert (await http.login({"id": user}, "pw", project))[0] == 401
    assert (await http.keystone("HEAD", f"{at}/{role}"))[0] == 404
    assert (await http.keystone("DELETE", f"{at}/{role}"))[0] == 404
    for _ in range(2):
        assert (await http.keystone("PUT", f"{at}/{role}"))[0] == 204
    assert (await http.keystone("HEAD", f"{at}/{role}"))[0] == 204
    assert [row["name"] for row in (await http.keystone("GET", at))[1]["roles"]] == ["watcher"]
    assert (await http.keystone("POST", f"{at}/{role}"))[0] == 405
    assert (await http.keystone("DELETE", at))[0] == 405
    for path in (f"/projects/no/users/{user}/roles/{role}", f"/projects/{project}/users/no/roles/{role}", f"{at}/no"):
        assert (await http.keystone("PUT", path))[0] == 404
    status, token = await http.login({"id": user}, "pw", project)
    assert status == 201
    _, body = await http.keystone("GET", f"/role_assignments?user.id={user}")
    assert [(row["role"]["id"], row["scope"]["project"]["id"]) for row in body["role_assignments"]] == [(role, project)]
    assert (await http.keystone("GET", f"/projects/{project}", token=token))[1]["project"]["description"] == "d"
    assert (await http.keystone("DELETE", f"{at}/{role}"))[0] == 204
    assert (await http.login({"id": user}, "pw", project))[0] == 401
    assert (await http.keystone("PUT", f"{at}/{rating}"))[0] == 204
    _, token = await http.login({"id": user}, "pw", project)
    assert (await http.keystone("DELETE", f"/projects/{project}"))[0] == 204
    assert (await http.keystone("GET", f"/users/{user}", token=token))[0] == 401
    assert not [grant for grant in cloud.identity.grants if grant[2] == ("project", project)]
    _, token = await http.login({"id": user}, "pw")
    assert (await http.keystone("GET", f"/users/{user}", token=token))[0] == 200
    assert (await http.keystone("DELETE", f"/users/{user}"))[0] == 204
    assert (await http.keystone("GET", f"/users/{user}", token=token))[0] == 401


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/users"),
        ("PATCH", "/users/{user}"),
        ("DELETE", "/users/{user}"),
        ("POST", "/projects"),
        ("DELETE", "/projects/{project}"),
        ("POST", "/roles"),
        ("GET", "/roles"),
        ("PUT", "/projects/{project}/users/{user}/roles/role-admin"),
        ("GET", "/projects/{project}/users/{user}/roles"),
    ],
)
async def test_only_an_admin_changes_accounts(cloud: FakeCloud, http: Http, method: str, path: str) -> None:
    at = path.format(user=cloud.user_id("demo"), project=cloud.project_id("demo"))
    status, body = await http.keystone(method, at, {"user": {}}, user="demo")
    assert (status, body["error"]["title"]) == (403, "Forbidden")
    assert body["error"]["message"].startswith("You are not authorized to perform the requested action: identity:")
