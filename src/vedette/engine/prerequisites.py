"""What a front end needs the cloud to have, looked at when the service starts: roles, users, archive policies. Each that is
missing is named, with the command that makes it; roles and users are made where that is wanted.

In: our account's way to the cloud. Out: what is missing, to the log (app.py) and to `vedette doctor`. It stops nothing: a cloud
that can't be asked now is asked again.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence

import msgspec

from vedette.errors import NoService, NotFound, Refused, TryLater, VedetteError
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.model.paths import segment
from vedette.ports import Cloud

log = logging.getLogger("vedette.engine.prerequisites")

IDENTITY, METRIC = "identity", "metric"
POLICIES = ("concertim_rate_policy", "concertim_policy")
"""As deploy/ceilometer/archive-policies.sh makes them."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Names of what there has to be."""

    roles: Sequence[str]
    users: Sequence[str]
    policies: Sequence[str] = ()


class Absent(msgspec.Struct, frozen=True):
    """One that isn't there."""

    kind: str
    """role, user, archive policy"""
    name: str
    fix: str


async def absent(cloud: Cloud, wanted: Wanted) -> list[Absent]:
    """What is missing. Raises what the cloud raises; a cloud without Gnocchi wants no archive policies."""
    found = [
        Absent("role", name, f"openstack role create {name}") for name in wanted.roles if not await _named(cloud, "roles", name)
    ]
    found += [
        Absent("user", name, f"openstack user create --password-prompt {name}")
        for name in wanted.users
        if not await _named(cloud, "users", name)
    ]
    for name in wanted.policies:
        try:
            await cloud.get(METRIC, f"/archive_policy/{segment(name)}")
        except NoService:
            break
        except NotFound:
            found.append(Absent("archive policy", name, "deploy/ceilometer/archive-policies.sh"))
    return found


async def make(cloud: Cloud, one: Absent) -> bool:
    """Whether it is there now. A user gets a password that nobody knows: set one where somebody is to sign in. Raises what the
    cloud raises."""
    try:
        if one.kind == "role":
            await cloud.send("POST", IDENTITY, "/roles", {"role": {"name": one.name}})
        elif one.kind == "user":
            account = await cloud.account()
            own = await cloud.get(IDENTITY, f"/users/{segment(account.user_id)}")
            body = {
                "name": one.name,
                "domain_id": own.body["user"]["domain_id"],
                "password": secrets.token_urlsafe(32),
                "description": "Made by Vedette for a front end",
            }
            await cloud.send("POST", IDENTITY, "/users", {"user": body})
        else:
            return False
    except Refused:
        return True  # somebody else did
    return True


class Prerequisites:
    """`run` looks once, as soon as the cloud can be asked, and is done."""

    def __init__(self, cloud: Cloud, wanted: Wanted, clock: Clock, telemetry: Telemetry, *, create: bool = False) -> None:
        self._cloud = cloud
        self._wanted = wanted
        self._clock = clock
        self._create = create
        self._missing = telemetry.gauge(
            "prerequisites_missing", "Roles, users and archive policies that a front end needs and the cloud does not have."
        )

    async def run(self) -> None:
        waits = delays(5.0, 300.0)
        while True:
            try:
                missing = await absent(self._cloud, self._wanted)
                left = [one for one in missing if not (self._create and await self._made(one))]
            except TryLater as why:
                log.info("what a front end needs could not be looked at yet: %s", why)
                await self._clock.sleep(next(waits))
                continue
            except VedetteError as why:
                log.error("what a front end needs can't be looked at: %s", why)
                return
            break
        self._missing.set(len(left))
        for one in left:
            log.error("the cloud has no %s %s, which a front end needs: %s", one.kind, one.name, one.fix, extra=kv(name=one.name))

    async def _made(self, one: Absent) -> bool:
        try:
            made = await make(self._cloud, one)
        except VedetteError as why:
            if isinstance(why, TryLater):
                raise
            log.error("the %s %s could not be made: %s", one.kind, one.name, why)
            return False
        if made:
            log.warning("the %s %s was missing, and was made", one.kind, one.name, extra=kv(name=one.name))
        return made


async def _named(cloud: Cloud, plural: str, name: str) -> bool:
    rows = (await cloud.get(IDENTITY, f"/{plural}", (("name", name),))).body.get(plural)
    return any(isinstance(row, dict) and row.get("name") == name for row in (rows if isinstance(rows, list) else ()))
