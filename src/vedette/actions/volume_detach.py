"""Takes a volume from the servers that use it.

Nova is asked, which tells its host and Cinder; an attachment that no server has (left over) is Cinder's alone.
https://docs.openstack.org/api-ref/compute/#detach-a-volume-from-an-instance
"""

from __future__ import annotations

from vedette.actions._cinder import BLOCK_STORAGE, MICROVERSION, the_volume, volume
from vedette.actions._nova import COMPUTE, ONE_OBJECT, SETTLE_SECONDS, server
from vedette.actions._nova import MICROVERSION as NOVAS
from vedette.errors import GiveUp, NotFound, Refused
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    found = await volume(hands.cloud, parameters["resource_id"])
    if found is None:
        return Skip(f"volume {parameters['resource_id']} is gone")
    if not found.get("attachments"):
        return Skip(f"no server uses volume {found['id']}")
    if found["status"] == "detaching":
        return Skip(f"volume {found['id']} is being detached already")
    if found["status"] != "in-use":
        raise GiveUp(f"volume {found['id']} is {found['status']}: it has to be in-use")
    if len(found["attachments"]) > 1:
        # Cinder lets one go at a time, and which one is nothing that can be said here.
        raise GiveUp(f"volume {found['id']} is used by {len(found['attachments'])} servers: detach it from each of them at Nova")
    return Ready({"servers": [one["server_id"] for one in found["attachments"]]})


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    found = await the_volume(hands, parameters)
    id_ = found["id"]
    for one in () if found["status"] == "detaching" else found.get("attachments") or ():
        try:
            await _detach(hands, id_, one)
        except Refused as why:
            raise GiveUp(str(why)) from None
    seen_busy = False

    async def free() -> bool:
        nonlocal seen_busy
        now = await the_volume(hands, parameters)
        if str(now["status"]).startswith("error"):
            raise GiveUp(f"volume {id_} is {now['status']}")
        if seen_busy and now["status"] == "in-use":
            raise GiveUp(f"volume {id_} is still in use: its server kept it")
        seen_busy = seen_busy or now["status"] == "detaching"
        return not now.get("attachments") and now["status"] == "available"

    await hands.wait(free, SETTLE_SECONDS, f"the detaching of volume {id_}")


async def _detach(hands: Hands, id_: str, attachment: JsonObject) -> None:
    user = attachment.get("server_id")
    if user:
        try:
            await hands.cloud.send(
                "DELETE",
                COMPUTE,
                f"/servers/{user}/os-volume_attachments/{id_}",
                microversion=NOVAS,
                request_id=hands.request_id,
            )
            return
        except NotFound:
            # Left over in Cinder only where the server can be seen and does not have it. (Somebody else's may be using it.)
            if await server(hands.cloud, user) is None:
                raise GiveUp(f"server {user} can't be seen, and may use it: an admin has to clear this attachment") from None
    body = {"os-detach": {"attachment_id": attachment.get("attachment_id")}}
    await hands.cloud.send(
        "POST", BLOCK_STORAGE, f"/volumes/{id_}/action", body, microversion=MICROVERSION, request_id=hands.request_id
    )


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    found = await the_volume(hands, parameters)
    if found.get("attachments"):
        raise GiveUp(f"volume {found['id']} is {found['status']}")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    found = await volume(hands.cloud, parameters["resource_id"])
    if found is None:
        return "unsure"
    if found["status"] == "detaching":
        return "running"
    return "undone" if found.get("attachments") else "done"


ACTION = Action(
    name="volume_detach",
    doc="Take a volume from the servers that use it",
    schema=ONE_OBJECT,
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    resource="volume",
)
