"""What actions on volumes share: reading one from Cinder."""

from __future__ import annotations

from vedette.errors import GiveUp, NotFound
from vedette.ports import Cloud, Hands, JsonObject

BLOCK_STORAGE = "block-storage"
MICROVERSION = "3.59"


async def volume(cloud: Cloud, id_: str) -> JsonObject | None:
    """A volume as Cinder shows it now; None: it is gone."""
    try:
        answer = await cloud.get(BLOCK_STORAGE, f"/volumes/{id_}", microversion=MICROVERSION)
    except NotFound:
        return None
    found: JsonObject = answer.body["volume"]
    return found


async def the_volume(hands: Hands, parameters: JsonObject) -> JsonObject:
    """The one that an action is about. Raises GiveUp: it is gone."""
    found = await volume(hands.cloud, parameters["resource_id"])
    if found is None:
        raise GiveUp(f"volume {parameters['resource_id']} is gone")
    return found
