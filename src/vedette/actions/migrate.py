"""Moves a server to another host, alive or stopped.

Whether it was moved is asked of the server, never of the request: Nova answers 202 and does it later, and a live migration that
fails leaves the server running where it was. `before` has the host it was on; after that, being there means that nothing
happened, and being anywhere else that it did.
"""

from __future__ import annotations

from vedette.actions._nova import (
    COMPUTE,
    HOST,
    NAME,
    SERVICE_HOST,
    SETTLE_SECONDS,
    TASK,
    UUID,
    act,
    server,
    the_server,
)
from vedette.errors import Forbidden, GiveUp, NotFound, Refused
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

LIVE = ("ACTIVE", "PAUSED")
COLD = ("ACTIVE", "SHUTOFF")
_ENDED = ("error", "failed", "cancelled")
"""Statuses of a migration that came to nothing."""
STARTS_SECONDS = 60.0
"""Nova says what it is doing with a server before it answers, or never: one that did nothing for so long won't."""


def _is_on(found: JsonObject, host: str | None) -> bool:
    return host in (found.get(HOST), found.get(SERVICE_HOST))


async def _usable(hands: Hands, host: str) -> None:
    """Raises GiveUp: no such host, or one that takes no servers."""
    answer = await hands.cloud.get(COMPUTE, "/os-services", [("binary", "nova-compute")], microversion="2.53")
    services = {one["host"]: one for one in answer.body["services"]}
    service = services.get(host)
    if service is None:
        async for page in hands.cloud.pages(COMPUTE, "/os-hypervisors/detail", "hypervisors", microversion="2.53"):
            for one in page.items:
                if one["hypervisor_hostname"] == host:
                    service = services.get(one["service"]["host"])
    if service is None:
        raise GiveUp(f"there is no compute host {host}")
    if service["status"] != "enabled" or service.get("state") == "down":
        raise GiveUp(f"compute host {host} is {service['status']} and {service.get('state')}")


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    found = await server(hands.cloud, parameters["resource_id"])
    if found is None:
        return Skip(f"server {parameters['resource_id']} is gone")
    if not _is_on(found, parameters["source_node"]):
        return Skip(f"server {found['id']} is on {found.get(HOST)}, not on {parameters['source_node']}")
    target = parameters.get("destination_node")
    if target and _is_on(found, target):
        return Skip(f"server {found['id']} is on {target} already")
    if found.get(TASK):
        raise GiveUp(f"server {found['id']} is busy: {found[TASK]}")
    if found.get("locked"):
        raise GiveUp(f"server {found['id']} is locked")
    wanted = LIVE if parameters["migration_type"] == "live" else COLD
    if found["status"] not in wanted:
        raise GiveUp(
            f"server {found['id']} is {found['status']}: a {parameters['migration_type']} migration wants {' or '.join(wanted)}"
        )
    if target:
        await _usable(hands, target)
    return Ready({"host": found.get(HOST), "service_host": found.get(SERVICE_HOST), "status": found["status"]})


async def _move(hands: Hands, parameters: JsonObject, from_host: JsonObject, target: str | None) -> None:
    """Ask for it, unless it is under way, and wait until the server has settled. Raises GiveUp."""
    id_, live = parameters["resource_id"], parameters["migration_type"] == "live"
    found = await the_server(hands, parameters)
    moved = not _is_on(found, from_host.get("host"))
    last = await _last(hands, id_)
    if not moved and not found.get(TASK) and found["status"] != "VERIFY_RESIZE":
        if live:
            # Nova itself finds out whether the disk has to go along.
            await act(hands, id_, "os-migrateLive", {"host": target, "block_migration": "auto"})
        else:
            await act(hands, id_, "migrate", {"host": target} if target else None)
    began = hands.clock.monotonic()
    seen_busy = False

    async def over() -> bool:
        nonlocal seen_busy
        now = await the_server(hands, parameters)
        if now.get(TASK):
            seen_busy = True
            progress = f", {now['progress']} %" if now.get("progress") else ""
            hands.say(f"{now[TASK]}{progress}")
            return False
        if now["status"] == "VERIFY_RESIZE":
            # A cold migration wants a word: this is it.
            await act(hands, id_, "confirmResize")
            return False
        if not _is_on(now, from_host.get("host")):
            return True
        if now["status"] == "ERROR":
            raise GiveUp(f"server {id_} is in ERROR: {(now.get('fault') or {}).get('message', 'no reason given')}")
        newest = await _last(hands, id_)
        ended = newest is not None and newest != last and newest.get("status") in _ENDED
        if seen_busy or ended or hands.clock.monotonic() - began > STARTS_SECONDS:
            why = f" (migration {newest.get('uuid') or newest.get('id')} is {newest.get('status')})" if newest else ""
            raise GiveUp(f"Nova did not move server {id_}: it is still on {now.get(HOST)}{why}")
        return False

    await hands.wait(over, SETTLE_SECONDS, f"the migration of server {id_}")


async def _last(hands: Hands, id_: str) -> JsonObject | None:
    """Nova's record of the server's last migration."""
    try:
        answer = await hands.cloud.get(COMPUTE, "/os-migrations", [("instance_uuid", id_)], microversion="2.59")
    except (NotFound, Forbidden):
        return None
    rows: list[JsonObject] = answer.body.get("migrations") or []
    return max(rows, key=lambda row: (str(row.get("created_at")), row.get("id") or 0), default=None)


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    await _move(hands, parameters, before, parameters.get("destination_node") or None)


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    found = await the_server(hands, parameters)
    target = parameters.get("destination_node")
    if target and not _is_on(found, target):
        raise GiveUp(f"server {found['id']} is on {found.get(HOST)}, not on {target}")
    if _is_on(found, before.get("host")):
        raise GiveUp(f"server {found['id']} is still on {before.get('host')}")
    if found["status"] != before.get("status"):
        raise GiveUp(f"server {found['id']} was {before.get('status')} and is {found['status']}")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    found = await server(hands.cloud, parameters["resource_id"])
    if found is None:
        return "unsure"
    if found.get(TASK) or found["status"] == "VERIFY_RESIZE":
        return "running"
    if found["status"] == "ERROR" and before.get("status") != "ERROR":
        return "unsure"
    return "undone" if _is_on(found, before.get("host")) else "done"


async def _undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    found = await the_server(hands, parameters)
    if _is_on(found, before.get("host")):
        return
    if found.get(TASK):
        raise GiveUp(f"server {found['id']} is busy: {found[TASK]}")
    here: JsonObject = {"host": found.get(HOST)}
    await _move(hands, parameters, here, before.get("service_host") or before.get("host"))
    found = await the_server(hands, parameters)
    if not _is_on(found, before.get("host")):
        raise GiveUp(f"server {found['id']} is on {found.get(HOST)}, not back on {before.get('host')}")


async def _abort(hands: Hands, parameters: JsonObject, before: JsonObject) -> bool:
    """Only a live migration can be aborted."""
    if parameters["migration_type"] != "live":
        return False
    id_ = parameters["resource_id"]
    answer = await hands.cloud.get(COMPUTE, f"/servers/{id_}/migrations", microversion="2.24")
    for one in answer.body.get("migrations") or []:
        path = f"/servers/{id_}/migrations/{one['id']}"
        try:
            await hands.cloud.send("DELETE", COMPUTE, path, microversion="2.24", request_id=hands.request_id)
        except (Refused, NotFound):
            return False
        return True
    return False


def _places(parameters: JsonObject) -> tuple[str, ...]:
    source, target = parameters["source_node"], parameters.get("destination_node")
    if not target:
        return (f"host:{source}",)
    return f"host:{source}", f"host:{target}", f"pair:{source}>{target}"


ACTION = Action(
    name="migrate",
    doc="Moving a VM instance from source_node to destination_node",
    schema={
        "type": "object",
        "properties": {
            "resource_id": UUID,
            "resource_name": NAME,
            "migration_type": {"type": "string", "enum": ["live", "cold"]},
            "source_node": {"type": "string", "minLength": 1},
            "destination_node": {"type": ["string", "null"]},
        },
        "required": ["migration_type", "resource_id", "source_node"],
        "additionalProperties": False,
    },
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    undo=_undo,
    abort=_abort,
    places=_places,
)
