"""Makes a port and takes it away again, so that one sees whether a cloud announces it: the only writing that Vedette does there.

In: a cloud and a name that nothing else has. Out: a port of that name, on a network of its own where the account may make one.
`vedette doctor --try-port` is who asks. Everything made is found again by its name, so nothing is left behind that was made while
nobody waited for the answer any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from vedette.clients.openstack import OpenStackCloud
from vedette.errors import BadRequest, CloudUnavailable, Forbidden, NoService, NotFound, Unauthenticated, VedetteError
from vedette.kit.tasks import spawn
from vedette.ports import JsonObject

if TYPE_CHECKING:
    from vedette.clients.openstack_sdk import Raw

DELETE_TRIES = 3
"""A network that still has its port can't go; Neutron may need a moment to see that it has none."""
PAUSE_SECONDS = 1.0


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """The port that there is now."""

    id: str
    network: str
    """Id of its network."""
    own_network: bool
    """Whether that was made for it."""


class PortTrial:
    """`make` once, then always `remove`, also after `make` was cancelled or failed."""

    def __init__(self, cloud: OpenStackCloud, name: str, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self._cloud = cloud
        self._sleep = sleep
        self._name = name
        self._sending: set[asyncio.Task[Any]] = set()
        self._may_be_there: set[str] = set()
        """`network`, `port`: what was asked for. A refusal may have been the second answer, after one that was lost."""

    async def make(self) -> Made:
        """Raises what ports.Cloud says; Forbidden also where there is no network that may be used."""
        try:
            # (Without a network that projects may have, Neutron answers 503.)
            network, own = await self._new("network", {"description": "of vedette doctor; may be deleted"}), True
        except (Forbidden, BadRequest, NotFound, CloudUnavailable) as why:
            network, own = await self._usable(why), False
        # In a network of others nobody's addresses are used up.
        port = {"network_id": network, **({} if own else {"fixed_ips": []})}
        return Made(id=await self._new("port", port), network=network, own_network=own)

    async def remove(self) -> list[str]:
        """Delete what has the name; commands that delete what could not be deleted. Raises nothing of the cloud's."""
        if self._sending:
            await asyncio.wait(self._sending)  # what is being made now has to be found
        left: list[str] = []
        for kind in ("port", "network"):
            if kind not in self._may_be_there:
                continue
            try:
                ids = await self._named(kind)
            except VedetteError:
                left.append(f"openstack {kind} delete {self._name}")
                continue
            left += [f"openstack {kind} delete {id_}" for id_ in ids if not await self._delete(kind, id_)]
        return left

    async def _new(self, kind: str, fields: JsonObject) -> str:
        """Its id."""
        self._may_be_there.add(kind)
        try:
            raw = await self._send("POST", f"/{kind}s", {kind: {"name": self._name, "admin_state_up": False, **fields}})
        except (NoService, Unauthenticated):
            self._may_be_there.discard(kind)
            raise
        try:
            return str(msgspec.json.decode(raw.body)[kind]["id"])
        except (msgspec.DecodeError, KeyError, TypeError):
            raise CloudUnavailable(f"network made a {kind} and did not say which: is {raw.url} really its address?") from None

    async def _usable(self, why: VedetteError) -> str:
        """A network of the account's own project, else a shared one; none that leads outside."""
        project = (await self._cloud.account()).project_id
        for query in (("project_id", project), ("shared", "true")):
            async for page in self._cloud.pages("network", "/networks", "networks", [query, ("router:external", "false")]):
                for network in page.items:
                    # One of ours may be there all the same; it will be deleted.
                    if isinstance(network.get("id"), str) and network.get("name") != self._name:
                        return str(network["id"])
        raise Forbidden(f"{why}; and there is no other network that it may use")

    async def _named(self, kind: str) -> list[str]:
        found: list[str] = []
        async for page in self._cloud.pages("network", f"/{kind}s", f"{kind}s", [("name", self._name)]):
            # A service that knows no such filter would give everybody's.
            found += [str(one["id"]) for one in page.items if one.get("name") == self._name]
        return found

    async def _delete(self, kind: str, id_: str) -> bool:
        for tried in range(DELETE_TRIES):
            if tried:
                await self._sleep(PAUSE_SECONDS)
            try:
                await self._send("DELETE", f"/{kind}s/{id_}")
            except NotFound:
                return True
            except VedetteError:
                continue
            return True
        return False

    async def _send(self, method: str, path: str, body: JsonObject | None = None) -> Raw:
        """The answer. Whoever stops waiting for it stops nothing: `remove` has to know when it is over."""
        cloud = self._cloud

        async def sent() -> Raw:
            raw = await cloud._try("network", path, lambda sdk, job: sdk.send(job, method, "network", path, body))
            return cloud._well("network", path, raw)

        task = spawn(self._sending, sent(), f"{method} {path}")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda over: over.cancelled() or over.exception())  # nobody else will look
            raise
