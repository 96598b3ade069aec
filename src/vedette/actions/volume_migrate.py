"""Moves a volume to another storage pool, or gives it another type, which moves it if that type is elsewhere.

Cinder answers 202 and does it later, and a migration that fails leaves the volume where it was: whether it was moved is asked of
the volume. `swap` is `migrate`: Cinder has Nova swap what a server uses.
https://docs.openstack.org/api-ref/block-storage/v3/#volume-actions-volumes-action
"""

from __future__ import annotations

from vedette.actions._cinder import BLOCK_STORAGE, MICROVERSION, the_volume, volume
from vedette.actions._nova import NAME, SETTLE_SECONDS, UUID, server
from vedette.errors import GiveUp, Refused
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

POOL = "os-vol-host-attr:host"
MOVING = "os-vol-mig-status-attr:migstat"
_FREE = ("available", "in-use")
_UNDER_WAY = ("starting", "migrating", "completing")
_RUNS = ("ACTIVE", "PAUSED")
STARTS_SECONDS = 60.0
"""Cinder says what it is doing with a volume within moments, or never."""


def _busy(found: JsonObject) -> str:
    """What Cinder does with it; "" nothing."""
    moving = found.get(MOVING) or found.get("migration_status")
    if moving in _UNDER_WAY:
        return str(moving)
    return "" if found["status"] in _FREE or str(found["status"]).startswith("error") else str(found["status"])


def _wanted(parameters: JsonObject) -> tuple[str, str]:
    """(the field of a volume that tells, its value when it is done)."""
    if parameters["migration_type"] == "retype":
        return "volume_type", parameters["destination_type"]
    return POOL, parameters["destination_node"]


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    field, wanted = _wanted(parameters)
    found = await volume(hands.cloud, parameters["resource_id"])
    if found is None:
        return Skip(f"volume {parameters['resource_id']} is gone")
    if found.get(field) == wanted:
        return Skip(f"volume {found['id']} is {'of type' if field == 'volume_type' else 'in'} {wanted} already")
    if busy := _busy(found):
        raise GiveUp(f"volume {found['id']} is busy: {busy}")
    if found["status"] not in _FREE:
        raise GiveUp(f"volume {found['id']} is {found['status']}: it has to be {' or '.join(_FREE)}")
    if field == "volume_type":
        await _type_there(hands, wanted)
    else:
        await _pool_there(hands, wanted)
        params = [("volume_id", found["id"]), ("all_tenants", "1"), ("limit", "1")]
        snapshots = await hands.cloud.get(BLOCK_STORAGE, "/snapshots", params, microversion=MICROVERSION)
        if snapshots.body["snapshots"]:
            raise GiveUp(f"volume {found['id']} has snapshots: Cinder does not migrate it")
    for one in found.get("attachments") or []:
        user = await server(hands.cloud, one["server_id"])
        if user is not None and user["status"] not in _RUNS:
            raise GiveUp(
                f"server {user['id']}, which has volume {found['id']}, is {user['status']}: it has to be {' or '.join(_RUNS)}"
            )
    return Ready({"pool": found.get(POOL), "type": found.get("volume_type")})


async def _type_there(hands: Hands, name: str) -> None:
    async for page in hands.cloud.pages(
        BLOCK_STORAGE, "/types", "volume_types", [("is_public", "None")], microversion=MICROVERSION
    ):
        if any(one["name"] == name for one in page.items):
            return
    raise GiveUp(f"there is no volume type {name}")


async def _pool_there(hands: Hands, name: str) -> None:
    async for page in hands.cloud.pages(BLOCK_STORAGE, "/scheduler-stats/get_pools", "pools", microversion=MICROVERSION):
        if any(one["name"] == name for one in page.items):
            return
    raise GiveUp(f"there is no storage pool {name}")


async def _change(hands: Hands, id_: str, field: str, wanted: str | None) -> None:
    """Have a volume's pool or type changed, unless that is under way, and wait for the end. Raises GiveUp."""
    found = await the_volume(hands, {"resource_id": id_})
    if found.get(field) != wanted and not _busy(found):
        if field == "volume_type":
            body: JsonObject = {"os-retype": {"new_type": wanted, "migration_policy": "on-demand"}}
        else:
            body = {"os-migrate_volume": {"host": wanted, "force_host_copy": False, "lock_volume": True}}
        path = f"/volumes/{id_}/action"
        try:
            await hands.cloud.send("POST", BLOCK_STORAGE, path, body, microversion=MICROVERSION, request_id=hands.request_id)
        except Refused as why:
            raise GiveUp(str(why)) from None
    began = hands.clock.monotonic()
    seen_busy = False

    async def over() -> bool:
        nonlocal seen_busy
        now = await the_volume(hands, {"resource_id": id_})
        if busy := _busy(now):
            seen_busy = True
            hands.say(busy)
            return False
        if now.get(field) == wanted:
            return True
        if str(now["status"]).startswith("error"):
            raise GiveUp(f"volume {id_} is {now['status']}")
        if seen_busy or now.get(MOVING) == "error" or hands.clock.monotonic() - began > STARTS_SECONDS:
            where = f"of type {now.get('volume_type')}" if field == "volume_type" else f"in {now.get(POOL)}"
            raise GiveUp(f"Cinder did not change volume {id_}: it is still {where}")
        return False

    await hands.wait(over, SETTLE_SECONDS, f"the migration of volume {id_}")


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    await _change(hands, parameters["resource_id"], *_wanted(parameters))


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    field, wanted = _wanted(parameters)
    found = await the_volume(hands, parameters)
    if found.get(field) != wanted:
        raise GiveUp(f"volume {found['id']} is {'of type' if field == 'volume_type' else 'in'} {found.get(field)}, not {wanted}")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    field, wanted = _wanted(parameters)
    found = await volume(hands.cloud, parameters["resource_id"])
    if found is None:
        return "unsure"
    if _busy(found):
        return "running"
    if found["status"] not in _FREE:
        return "unsure"
    return "done" if found.get(field) == wanted else "undone"


async def _undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    """Back to where it was, or to what it was."""
    if parameters["migration_type"] == "retype":
        if not before.get("type"):
            raise GiveUp("a volume can't be given back that it had no type")
        await _change(hands, parameters["resource_id"], "volume_type", before["type"])
    found = await the_volume(hands, parameters)
    if before.get("pool") and found.get(POOL) != before["pool"]:
        await _change(hands, parameters["resource_id"], POOL, before["pool"])


def _places(parameters: JsonObject) -> tuple[str, ...]:
    target = parameters.get("destination_node")
    return (f"pool:{target}",) if target else ()


ACTION = Action(
    name="volume_migrate",
    doc="Moving a volume to destination_node, or giving it destination_type",
    schema={
        "type": "object",
        "properties": {
            "resource_id": UUID,
            "resource_name": NAME,
            "migration_type": {"type": "string", "enum": ["swap", "migrate", "retype"]},
            "destination_node": {"type": ["string", "null"]},
            "destination_type": {"type": ["string", "null"]},
        },
        "required": ["resource_id", "migration_type"],
        "additionalProperties": False,
        "if": {"properties": {"migration_type": {"const": "retype"}}},
        "then": {"required": ["destination_type"], "properties": {"destination_type": {"type": "string", "minLength": 1}}},
        "else": {"required": ["destination_node"], "properties": {"destination_node": {"type": "string", "minLength": 1}}},
    },
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    undo=_undo,
    places=_places,
    resource="volume",
)
