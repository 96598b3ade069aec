"""Is it really gone? What resync and verify ask before anything is deleted."""

from __future__ import annotations

from collections.abc import Sequence

from vedette.errors import FixInput, Forbidden, NotFound, TryLater
from vedette.kit.clock import Clock
from vedette.model.reading import Reading
from vedette.ports import Api, CloudUse, Kind


async def doubt(use: CloudUse, api: Api) -> str:
    """Why our account's listings may lack other projects' objects; "" when they hold them all: by its role, and because the
    service itself says so, by answering what it answers such accounts only. To anybody else an object of another project looks
    like one that is gone.

    Raises TryLater, Unauthenticated when nobody can say who we are.
    """
    account = await use.cloud.account()
    may = account.system or not use.admin_roles.isdisjoint(role.lower() for role in account.roles)
    if not may:
        return f"its account has none of the roles that see every project's objects ({', '.join(sorted(use.admin_roles))})"
    if account.domain_id:
        return "its account is scoped to a domain, and sees the objects of that one only"
    if api.proof:
        try:
            await use.cloud.get(api.service, api.proof)
        except (Forbidden, FixInput, TryLater) as why:
            return f"the service did not say that its account sees every project's objects ({why})"
    return ""


async def sees_all(use: CloudUse, api: Api) -> bool:
    """Whether there is no doubt. Raises what `doubt` raises."""
    return not await doubt(use, api)


async def look(use: CloudUse, kind: Kind, id_: str, clock: Clock) -> Sequence[Reading] | None:
    """One object, asked for by its id: that it is gone, or what it is; None: nobody says. Means something only where
    `sees_all`."""
    assert kind.api is not None
    asked_us = clock.now_us()
    try:
        return await kind.api.get(use.cloud, id_)
    except NotFound:
        return (Reading(kind=kind.kind, group=kind.group, id=id_, verb="delete", as_of=asked_us),)
    except (TryLater, Forbidden):
        return None
