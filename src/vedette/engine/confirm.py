"""Is it really gone? What resync and verify ask before anything is deleted."""

from __future__ import annotations

from collections.abc import Sequence

from vedette.errors import Forbidden, NotFound, TryLater
from vedette.kit.clock import Clock
from vedette.model.reading import Reading
from vedette.ports import Api, CloudUse, Kind


async def sees_all(use: CloudUse, api: Api) -> bool:
    """Whether our account's listings hold every project's objects: by its role, and because the service itself says so, by
    answering what it answers such accounts only. To anybody else an object of another project looks like one that is gone.

    Raises what the cloud raises, but not Forbidden: that is an answer.
    """
    account = await use.cloud.account()
    may = account.system or not use.admin_roles.isdisjoint(role.lower() for role in account.roles)
    if not may or account.domain_id:
        return False
    if not api.proof:
        return True
    try:
        await use.cloud.get(api.service, api.proof)
    except (Forbidden, NotFound):
        return False
    return True


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
