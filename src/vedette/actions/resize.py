"""Gives a server another flavor, and confirms it.

Nova answers 202, moves the server to a host that has room for it (maybe the same), and waits for a word then: this is it.
"""

from __future__ import annotations

from vedette.actions._nova import COMPUTE, MICROVERSION, NAME, SETTLE_SECONDS, TASK, UUID, act, server, the_server
from vedette.errors import GiveUp, NotFound
from vedette.model.paths import segment
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

_POSSIBLE = ("ACTIVE", "SHUTOFF")
STARTS_SECONDS = 60.0
"""Nova says what it is doing with a server before it answers, or never."""


async def _flavor(hands: Hands, word: str) -> JsonObject:
    """By its id, or else its name. Raises GiveUp: none, or several of that name."""
    try:
        answer = await hands.cloud.get(COMPUTE, f"/flavors/{segment(word)}", microversion=MICROVERSION)
    except NotFound:
        pass
    else:
        found: JsonObject = answer.body["flavor"]
        return found
    named: list[JsonObject] = []
    async for page in hands.cloud.pages(
        COMPUTE, "/flavors/detail", "flavors", [("is_public", "None")], microversion=MICROVERSION
    ):
        named += [one for one in page.items if one["name"] == word]
    if len(named) != 1:
        raise GiveUp(f"there {'is no flavor' if not named else 'are several flavors'} {word}")
    return named[0]


def _has(found: JsonObject, flavor: JsonObject) -> bool:
    """From microversion 2.47 on a server shows what its flavor was, and not its id."""
    shown = found.get("flavor") or {}
    if "id" in shown:
        return bool(shown["id"] == flavor["id"])
    return bool(shown.get("original_name") == flavor["name"])


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    found = await server(hands.cloud, parameters["resource_id"])
    if found is None:
        return Skip(f"server {parameters['resource_id']} is gone")
    flavor = await _flavor(hands, parameters["flavor"])
    if _has(found, flavor) and found["status"] != "VERIFY_RESIZE":
        return Skip(f"server {found['id']} has flavor {flavor['name']} already")
    if found.get(TASK):
        raise GiveUp(f"server {found['id']} is busy: {found[TASK]}")
    if found.get("locked"):
        raise GiveUp(f"server {found['id']} is locked")
    if found["status"] not in _POSSIBLE:
        raise GiveUp(f"server {found['id']} is {found['status']}: a resize wants {' or '.join(_POSSIBLE)}")
    shown = found.get("flavor") or {}
    return Ready({"flavor": shown.get("id") or shown.get("original_name"), "status": found["status"]})


async def _resize(hands: Hands, id_: str, flavor: JsonObject) -> None:
    """Ask for it, unless it is under way, confirm it, and wait until the server has settled. Raises GiveUp."""
    parameters = {"resource_id": id_}
    found = await the_server(hands, parameters)
    if not _has(found, flavor) and not found.get(TASK) and found["status"] != "VERIFY_RESIZE":
        await act(hands, id_, "resize", {"flavorRef": flavor["id"]})
    began = hands.clock.monotonic()
    seen_busy = False

    async def over() -> bool:
        nonlocal seen_busy
        now = await the_server(hands, parameters)
        if now.get(TASK):
            seen_busy = True
            hands.say(str(now[TASK]))
            return False
        if now["status"] == "VERIFY_RESIZE":
            seen_busy = True
            await act(hands, id_, "confirmResize")
            return False
        if now["status"] == "ERROR":
            raise GiveUp(f"server {id_} is in ERROR: {(now.get('fault') or {}).get('message', 'no reason given')}")
        if _has(now, flavor):
            return True
        if seen_busy or hands.clock.monotonic() - began > STARTS_SECONDS:
            raise GiveUp(f"Nova did not resize server {id_}: it has another flavor still")
        return False

    await hands.wait(over, SETTLE_SECONDS, f"the resize of server {id_}")


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    await _resize(hands, parameters["resource_id"], await _flavor(hands, parameters["flavor"]))


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    found = await the_server(hands, parameters)
    if not _has(found, await _flavor(hands, parameters["flavor"])):
        raise GiveUp(f"server {found['id']} does not have flavor {parameters['flavor']}")
    if found["status"] != before.get("status"):
        raise GiveUp(f"server {found['id']} was {before.get('status')} and is {found['status']}")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    found = await server(hands.cloud, parameters["resource_id"])
    if found is None:
        return "unsure"
    if found.get(TASK) or found["status"] == "VERIFY_RESIZE":
        return "running"
    if found["status"] == "ERROR":
        return "unsure"
    return "done" if _has(found, await _flavor(hands, parameters["flavor"])) else "undone"


async def _undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    if not before.get("flavor"):
        raise GiveUp("which flavor it had is not known")
    await _resize(hands, parameters["resource_id"], await _flavor(hands, before["flavor"]))


ACTION = Action(
    name="resize",
    doc="Resize a server with specified flavor.",
    schema={
        "type": "object",
        "properties": {"resource_id": UUID, "resource_name": NAME, "flavor": {"type": "string", "minLength": 1}},
        "required": ["resource_id", "flavor"],
        "additionalProperties": False,
    },
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    undo=_undo,
)
