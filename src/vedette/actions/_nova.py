"""What actions on servers and compute services share: reading them from Nova, and waiting for them to settle."""

from __future__ import annotations

from typing import Any

from vedette.errors import GiveUp, NotFound, Refused
from vedette.ports import Action as Kind
from vedette.ports import Cloud, Hands, JsonObject, Ready, Skip, Standing

COMPUTE = "compute"
MICROVERSION = "2.56"
"""As Watcher asks: a cold migration takes a host from 2.56 on; at 2.30 to 2.67 Nova checks the host that a live one names."""
HOST = "OS-EXT-SRV-ATTR:hypervisor_hostname"
SERVICE_HOST = "OS-EXT-SRV-ATTR:host"
TASK = "OS-EXT-STS:task_state"

SETTLE_SECONDS = 3_600.0
"""The applier has a deadline of its own; this is for an action that is tried alone."""

UUID = {"type": "string", "pattern": "^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$"}
NAME = {"type": ["string", "null"]}
ONE_OBJECT: JsonObject = {
    "type": "object",
    "properties": {"resource_id": UUID, "resource_name": NAME},
    "required": ["resource_id"],
    "additionalProperties": False,
}
"""Parameters of an action that needs to know only what it is about."""


async def server(cloud: Cloud, id_: str) -> JsonObject | None:
    """A server as Nova shows it now; None: it is gone."""
    try:
        answer = await cloud.get(COMPUTE, f"/servers/{id_}", microversion=MICROVERSION)
    except NotFound:
        return None
    found: JsonObject = answer.body["server"]
    return found


async def the_server(hands: Hands, parameters: JsonObject) -> JsonObject:
    """The one that an action is about. Raises GiveUp: it is gone."""
    found = await server(hands.cloud, parameters["resource_id"])
    if found is None:
        raise GiveUp(f"server {parameters['resource_id']} is gone")
    return found


async def act(hands: Hands, id_: str, what: str, more: Any = None) -> None:
    """`POST /servers/{id}/action`. Raises GiveUp when Nova refuses it."""
    try:
        await hands.cloud.send(
            "POST",
            COMPUTE,
            f"/servers/{id_}/action",
            {what: more},
            microversion=MICROVERSION,
            request_id=hands.request_id,
        )
    except Refused as why:
        raise GiveUp(str(why)) from None


async def settled(hands: Hands, id_: str, what: str) -> JsonObject:
    """The server, once Nova does nothing with it any more. Raises GiveUp: it is gone, or that takes too long."""
    last: list[JsonObject] = []

    async def ready() -> bool:
        found = await server(hands.cloud, id_)
        if found is None:
            raise GiveUp(f"server {id_} is gone")
        last[:] = [found]
        if found.get(TASK):
            hands.say(f"{what}: {found[TASK]}")
        return not found.get(TASK)

    await hands.wait(ready, SETTLE_SECONDS, f"{what} of server {id_}")
    return last[0]


def switched(
    *,
    name: str,
    doc: str,
    done: frozenset[str],
    possible: frozenset[str],
    what: str,
    back: str,
    more: Any = None,
) -> Kind:
    """An action that changes a server's state, such as stopping it. `done`: statuses in which there is nothing to do; `possible`:
    those in which it can be asked for; `what` and `back`: Nova's names of it and of what takes it back."""

    async def check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
        found = await server(hands.cloud, parameters["resource_id"])
        if found is None:
            return Skip(f"server {parameters['resource_id']} is gone")
        if found["status"] in done:
            return Skip(f"server {found['id']} is {found['status']} already")
        if found.get(TASK):
            raise GiveUp(f"server {found['id']} is busy: {found[TASK]}")
        if found["status"] not in possible:
            raise GiveUp(f"server {found['id']} is {found['status']}: {name} wants {' or '.join(sorted(possible))}")
        return Ready({"status": found["status"]})

    async def run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        found = await the_server(hands, parameters)
        if found["status"] not in done and not found.get(TASK):
            await act(hands, found["id"], what, more)
        await settled(hands, found["id"], name)

    async def verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        found = await the_server(hands, parameters)
        if found["status"] not in done:
            raise GiveUp(f"server {found['id']} is {found['status']} after {name}")

    async def look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
        found = await server(hands.cloud, parameters["resource_id"])
        if found is None:
            return "unsure"
        if found.get(TASK):
            return "running"
        if found["status"] in done:
            return "done"
        return "undone" if found["status"] == before.get("status") else "unsure"

    async def undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        found = await the_server(hands, parameters)
        if found["status"] in done:
            await act(hands, found["id"], back)
            found = await settled(hands, found["id"], f"undoing {name}")
        if found["status"] != before.get("status"):
            raise GiveUp(f"server {found['id']} is {found['status']}, and was {before.get('status')}")

    return Kind(
        name=name,
        doc=doc,
        schema=ONE_OBJECT,
        check=check,
        run=run,
        verify=verify,
        look=look,
        undo=undo,
    )
