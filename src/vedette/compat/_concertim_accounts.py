"""Users, projects and roles in Keystone, as a front end has them made: each call says what should be so, and makes it so.

In: the asker's way to the cloud. For compat/concertim_api.py, whose callers ask up to ten times: what is there already is
taken for made, what is gone already for removed. What was not made for a front end (its name begins otherwise) is left alone.
https://docs.openstack.org/api-ref/identity/v3/
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from vedette.errors import Conflict, Forbidden, NotFound, Refused, VedetteError
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.model.paths import segment
from vedette.ports import Cloud, JsonObject, Params

log = logging.getLogger("vedette.compat.concertim_api")

IDENTITY = "identity"
OURS = "CM_"
"""What names of users and projects begin with that were made for a front end, since its first version."""

BACK_SECONDS = 10.0
"""For taking one thing back: the service may be stopping."""

Undo = tuple[str, Callable[[], Awaitable[Any]]]


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts that get roles in every project that is made."""

    concertim: str = "concertim"
    admin: str = "admin"
    cloudkitty: str = "cloudkitty"


class Accounts:
    """What one asker may do in Keystone."""

    def __init__(self, cloud: Cloud, names: Names, signs_in: Callable[[str, Secret], Awaitable[bool]]) -> None:
        """`signs_in(user id, password)`: whether this is the user's password."""
        self._cloud = cloud
        self._signs_in = signs_in
        self._names = names
        self._domain = ""
        self.made: list[Undo] = []
        """What this request made, in order, and how it is taken back."""

    async def domain(self) -> str:
        """The asker's own: what is made is made there."""
        if not self._domain:
            account = await self._cloud.account()
            found = await self._cloud.get(IDENTITY, f"/users/{segment(account.user_id)}")
            self._domain = str(found.body["user"]["domain_id"])
        return self._domain

    # --- users

    async def user(self, name: str, password: Secret, *, email: str = "", full_name: str = "") -> str:
        """The id of the user `CM_<name>`. One that is there has to have this password already (an answer was lost): else it is
        somebody else's. Raises Conflict."""
        wanted: JsonObject = {"password": password.reveal()}
        if email:
            wanted["email"] = email
        found = await self._named("users", f"{OURS}{name}")
        if found is None:
            body = {
                "name": f"{OURS}{name}",
                "domain_id": await self.domain(),
                "description": f"Concertim user {full_name or name}"[:255],
                **wanted,
            }
            found = await self._make("user", body)
        elif not await self._signs_in(str(found["id"]), password):
            raise Conflict(f"the name {OURS}{name} is taken, by a user with another password")
        return str(found["id"])

    async def change_user(self, id_: str, *, email: str = "", password: Secret | None = None) -> list[str]:
        """What was changed."""
        change: JsonObject = {"email": email} if email else {}
        if password:
            change["password"] = password.reveal()
        if not change:
            return []
        await self._must_be_ours("users", id_)
        await self._send("PATCH", f"/users/{segment(id_)}", {"user": change})
        return sorted(change)

    async def delete_user(self, id_: str) -> None:
        try:
            await self._must_be_ours("users", id_)
            await self._send("DELETE", f"/users/{segment(id_)}")
        except NotFound:
            return

    # --- projects

    async def project(self, name: str) -> str:
        """The id of the project `CM_<name>_proj`."""
        full = f"{OURS}{name}_proj"
        found = await self._named("projects", full)
        if found is None:
            body = {"name": full, "domain_id": await self.domain(), "description": f"Concertim project {name}"[:255]}
            found = await self._make("project", body)
        return str(found["id"])

    async def delete_project(self, id_: str, left: Callable[[], Awaitable[str]]) -> bool:
        """False: it was not made for a front end, and stays. `left`: what is still in it. Raises Conflict: something is."""
        try:
            await self._must_be_ours("projects", id_)
            if there := await left():
                raise Conflict(f"the project still has {there}: destroy them first")
            await self._send("DELETE", f"/projects/{segment(id_)}")
        except NotFound:
            return True
        except Forbidden as why:
            if not isinstance(why, _NotOurs):
                raise
            log.warning("a project that was not made for the front end stays", extra=kv(project=id_))
            return False
        return True

    # --- roles

    async def staff(self, project: str, *, billing: bool) -> None:
        """The roles that our own accounts have in every project."""
        grants = [(self._names.concertim, "watcher"), (self._names.concertim, "member"), (self._names.admin, "admin")]
        if billing:
            grants.append((self._names.cloudkitty, "rating"))
        for name, role in grants:
            await self.grant(project, await self.user_id(name), role)

    async def user_id(self, name: str) -> str:
        """Of an account that has to be there. Raises NotFound."""
        found = await self._named("users", name)
        if found is None:
            raise NotFound(f"the cloud has no user {name} in the domain {await self.domain()}: openstack user create {name}")
        return str(found["id"])

    async def grant(self, project: str, user: str, role: str) -> None:
        """Nothing changes where it is so already."""
        path = f"/projects/{segment(project)}/users/{segment(user)}/roles/{segment(await self.role_id(role))}"
        await self._send("PUT", path)

    async def withdraw(self, project: str, user: str, role: str) -> None:
        path = f"/projects/{segment(project)}/users/{segment(user)}/roles/{segment(await self.role_id(role))}"
        try:
            await self._send("DELETE", path)
        except NotFound:
            return

    async def role_id(self, name: str) -> str:
        """Raises NotFound."""
        answer = await self._cloud.get(IDENTITY, "/roles", (("name", name),))
        rows = answer.body.get("roles")
        for row in rows if isinstance(rows, list) else ():
            if row.get("name") == name and not row.get("domain_id"):
                return str(row["id"])
        raise NotFound(f"the cloud has no role {name}: openstack role create {name}")

    # --- back

    async def take_back(self) -> None:
        """What this request made goes again, backwards. Raises nothing: the error that counts is the one before."""
        for what, undo in reversed(self.made):
            try:
                async with asyncio.timeout(BACK_SECONDS):
                    await undo()
            except NotFound:
                continue
            except TimeoutError:
                log.error("%s was made and could not be removed again in time", what, extra=kv(what=what))
            except VedetteError as why:
                log.error("%s was made and could not be removed again: %s", what, why, extra=kv(what=what))
        self.made.clear()

    # --- inside

    async def _make(self, kind: str, body: JsonObject) -> JsonObject:
        try:
            answer = await self._cloud.send("POST", IDENTITY, f"/{kind}s", {kind: body})
        except Refused:
            # Somebody else was faster, the same request's last attempt for one.
            found = await self._named(f"{kind}s", body["name"])
            if found is None:
                raise Conflict(f"the name {body['name']} is taken") from None
            return found
        made: JsonObject = answer[kind]
        path = f"/{kind}s/{segment(made['id'])}"
        self.made.append((f"{kind} {body['name']}", lambda: self._send("DELETE", path)))
        return made

    async def _named(self, kinds: str, name: str) -> JsonObject | None:
        params: Params = (("name", name), ("domain_id", await self.domain()))
        answer = await self._cloud.get(IDENTITY, f"/{kinds}", params)
        rows: Sequence[JsonObject] = answer.body.get(kinds) or ()
        # Keystone's database may compare without case.
        return next((row for row in rows if row.get("name") == name), None)

    async def _must_be_ours(self, kinds: str, id_: str) -> None:
        """Raises NotFound, Forbidden."""
        kind = kinds.removesuffix("s")
        answer = await self._cloud.get(IDENTITY, f"/{kinds}/{segment(id_)}")
        name = str(answer.body[kind]["name"])
        if not name.startswith(OURS):
            raise _NotOurs(f"the {kind} {name} was not made for the front end: it is left alone")

    async def _send(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        return await self._cloud.send(method, IDENTITY, path, body)


class _NotOurs(Forbidden):
    """It was made by somebody else."""
