"""A Concertim front end's requests to a whole Vedette beside a whole (fake) cloud."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import jwt
from optimizing import Place, optimizing
from serving import SECONDS

from vedette.kit.clock import SystemClock
from vedette.model.audit import Action, ActionPlan
from vedette.testing.cloud import FakeCloud

JWT_SECRET = "what-the-front-end-and-we-sign-with, long enough for every algorithm that a forger may try"


class Front:
    """Who asks. `env` of a user is what the front end knows of it."""

    def __init__(self, place: Place, cloud: FakeCloud, *, signs: bool) -> None:
        self.place, self.cloud, self.signs = place, cloud, signs

    @property
    def url(self) -> str:
        host, port = self.place.service.face_addresses["concertim"][0]
        return f"http://{host}:{port}"

    def token(self, secret: str = JWT_SECRET, **claims: Any) -> str:
        return jwt.encode({"exp": time.time() + 60, **claims}, secret, algorithm="HS256")

    def env(self, user: str = "admin", **more: Any) -> dict[str, Any]:
        known = self.cloud.credentials(user)
        id_ = self.cloud.user_id(user)
        return {
            "auth_url": known["auth_url"],
            "user_id": id_,
            "password": known["password"],
            "project_id": known["project_id"],
            **more,
        }

    async def ask(
        self, method: str, path: str, body: Any = None, *, user: str = "admin", token: str | None = None, at: str = ""
    ) -> tuple[int, Any]:
        """(status, body). `user`: whose `cloud_env` goes along; "": nobody's. `token` "": not signed."""
        signed = (self.token() if self.signs else "") if token is None else token
        headers = {"Authorization": f"Bearer {signed}"} if signed else {}
        if not isinstance(body, bytes):
            said = {**({"cloud_env": self.env(user)} if user else {}), **(body or {})}
            body = json.dumps(said).encode() if said else None
        async with (
            aiohttp.ClientSession() as session,
            session.request(
                method, (at or self.url) + path, data=body, headers=headers, timeout=aiohttp.ClientTimeout(SECONDS)
            ) as answer,
        ):
            raw = await answer.read()
            try:
                return answer.status, json.loads(raw)
            except ValueError:
                return answer.status, raw.decode()

    async def good(self, method: str, path: str, body: Any = None, *, status: int = 201, **more: Any) -> Any:
        got, answer = await self.ask(method, path, body, **more)
        assert got == status, (got, answer)
        return answer

    async def ten_times(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """As its job queue does when answers are lost; the last answer."""
        answers = [await self.good(method, path, body, **more) for _ in range(10)]
        return answers[-1]

    def plans(self) -> list[tuple[ActionPlan, Action]]:
        records = self.place.service.records
        assert records is not None
        found = [one for one in records.all(ActionPlan) if one.requested_by]
        return [(one, *records.actions_of(one.uuid)) for one in found]

    async def over(self) -> list[tuple[str, str, str]]:
        """(action, state, outcome) of every plan, once none is under way."""

        async def ready() -> Any:
            return all(plan.state != "ONGOING" for plan, _ in self.plans())

        await self.place.until(ready)
        return [(action.action_type, plan.state, action.outcome) for plan, action in self.plans()]


@asynccontextmanager
async def fronting(
    folder: Path, *, signs: bool = True, cloud: FakeCloud | None = None, more: dict[str, Any] | None = None, **face: Any
) -> AsyncIterator[Front]:
    """`signs`: a front end of the second generation. `cloud`: one that is there already. `more`: further sections of the
    configuration. `face`: `faces.concertim`."""
    if cloud is None:
        async with FakeCloud(SystemClock()) as fresh:
            furnish(fresh)
            async with fronting(folder, signs=signs, cloud=fresh, more=more, **face) as front:
                yield front
        return
    settings = {
        "listen": "127.0.0.1:0",
        **({"jwt_secret": JWT_SECRET} if signs else {"authenticate": False}),
        **face,
    }
    faces = {"infra_optim": {"listen": "127.0.0.1:0"}, "concertim": settings}
    async with optimizing(folder, cloud=cloud, faces=faces, **(more or {})) as place:
        yield Front(place, cloud, signs=signs)


def furnish(cloud: FakeCloud) -> None:
    """The roles and users that have to be there."""
    for role in ("watcher", "rating"):
        cloud.identity.add_role(role)
    for name in ("concertim", "cloudkitty"):
        cloud.user(name, project="service", roles=("member",))
