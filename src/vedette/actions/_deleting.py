"""What actions that delete something share. Nothing of it can be taken back, and what is gone already is not asked for again.

Which object, and what keeps it from going, is the action's own; see server_delete.py, volume_delete.py, network_delete.py,
stack_delete.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from vedette.actions._nova import ONE_OBJECT, SETTLE_SECONDS
from vedette.errors import GiveUp, NotFound, Refused
from vedette.ports import Action, Cloud, Hands, JsonObject, Ready, Skip, Standing


def deleted(
    *,
    resource: str,
    service: str,
    show: Callable[[Cloud, str], Awaitable[JsonObject | None]],
    under_way: Callable[[JsonObject], bool],
    path: Callable[[JsonObject], str],
    against: Callable[[JsonObject], str] = lambda found: "",
    failed: Callable[[JsonObject], str] = lambda found: "",
    as_good_as: Callable[[JsonObject], bool] = lambda found: False,
    microversion: str = "",
) -> Action:
    """`show`: the object as it is now, None: there is none. `under_way`: it is being deleted. `path`: what DELETE is sent to.
    `against`: why it can't be deleted now, "" it can. `failed`: why its deletion came to nothing, "" it did not. `as_good_as`:
    it is still shown, to admins, and is gone for its owner."""

    async def left(hands: Hands, parameters: JsonObject) -> JsonObject | None:
        found = await show(hands.cloud, parameters["resource_id"])
        return None if found is not None and as_good_as(found) else found

    async def check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
        found = await left(hands, parameters)
        if found is None:
            return Skip(f"{resource} {parameters['resource_id']} is gone")
        if under_way(found):
            return Skip(f"{resource} {parameters['resource_id']} is being deleted already")
        if why := against(found):
            raise GiveUp(f"{resource} {parameters['resource_id']} can't be deleted: {why}")
        return Ready()

    async def run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        id_ = parameters["resource_id"]
        found = await left(hands, parameters)
        if found is not None and not under_way(found):
            try:
                await hands.cloud.send("DELETE", service, path(found), microversion=microversion, request_id=hands.request_id)
            except NotFound:
                return  # it went between the two
            except Refused as why:
                raise GiveUp(str(why)) from None

        async def gone() -> bool:
            now = await left(hands, parameters)
            if now is not None and (why := failed(now)):
                raise GiveUp(f"{resource} {id_} was not deleted: {why}")
            return now is None

        await hands.wait(gone, SETTLE_SECONDS, f"the deletion of {resource} {id_}")

    async def verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        found = await left(hands, parameters)
        if found is not None:
            why = failed(found)
            raise GiveUp(f"{resource} {parameters['resource_id']} is still there{why and f': {why}'}")

    async def look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
        found = await left(hands, parameters)
        if found is None:
            return "done"
        return "running" if under_way(found) else "undone"

    return Action(
        name=f"{resource}_delete",
        doc=f"Delete a {resource}",
        schema=ONE_OBJECT,
        check=check,
        run=run,
        verify=verify,
        look=look,
        resource=resource,
    )
