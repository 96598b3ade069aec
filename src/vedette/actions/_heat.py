"""What actions on stacks share: reading one from Heat, and having it suspended or resumed with all that is in it.

Heat begins later than it answers: in the moments before, a stack looks as if nobody had asked. Its `updated_time` does not move
with these actions, so where one stands is told by the status alone.
https://docs.openstack.org/api-ref/orchestration/v1/#stack-actions
"""

from __future__ import annotations

from vedette.actions._nova import ONE_OBJECT, SETTLE_SECONDS
from vedette.errors import GiveUp, Refused
from vedette.ports import Action, Cloud, Hands, JsonObject, Ready, Skip, Standing

ORCHESTRATION = "orchestration"
STARTS_SECONDS = 30.0
"""Heat begins within moments, or never."""


async def stack(cloud: Cloud, id_: str) -> JsonObject | None:
    """A stack as Heat lists it now; None: it is gone, or not ours to see. (By its own address it is shown long after its end.)"""
    answer = await cloud.get(ORCHESTRATION, "/stacks", (("show_nested", "true"), ("show_hidden", "true"), ("id", id_)))
    items = answer.body.get("stacks")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("id") == id_ and item.get("stack_status") != "DELETE_COMPLETE":
            return item
    return None


def path(found: JsonObject) -> str:
    return f"/stacks/{found['stack_name']}/{found['id']}"


def switched(word: str) -> Action:
    """`suspend`, `resume`: Heat does it to everything in the stack."""
    verb = word.upper()
    done, running, failed = f"{verb}_COMPLETE", f"{verb}_IN_PROGRESS", f"{verb}_FAILED"

    async def check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
        found = await stack(hands.cloud, parameters["resource_id"])
        if found is None:
            return Skip(f"stack {parameters['resource_id']} is gone")
        status = found["stack_status"]
        if status in (done, running):
            return Skip(f"stack {found['stack_name']} is {status} already")
        if status.endswith("_IN_PROGRESS"):
            raise GiveUp(f"stack {found['stack_name']} is busy: {status}")
        return Ready({"stack_status": status})

    async def run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        id_ = parameters["resource_id"]
        found = await stack(hands.cloud, id_)
        if found is None:
            raise GiveUp(f"stack {id_} is gone")
        if found["stack_status"] not in (done, running):
            try:
                await hands.cloud.send("POST", ORCHESTRATION, f"{path(found)}/actions", {word: None}, request_id=hands.request_id)
            except Refused as why:
                raise GiveUp(str(why)) from None
        began = hands.clock.monotonic()
        seen = False

        async def over() -> bool:
            nonlocal seen
            now = await stack(hands.cloud, id_)
            if now is None:
                raise GiveUp(f"stack {id_} is gone")
            status = now["stack_status"]
            seen = seen or status == running
            if status == failed and (seen or before.get("stack_status") != failed):
                raise GiveUp(f"stack {now['stack_name']} is {status}: {now.get('stack_status_reason')}")
            if status != done and not seen and hands.clock.monotonic() - began > STARTS_SECONDS:
                raise GiveUp(f"Heat did not begin: stack {now['stack_name']} is still {status}")
            hands.say(status)
            return bool(status == done)

        await hands.wait(over, SETTLE_SECONDS, f"{word} of stack {id_}")

    async def verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
        found = await stack(hands.cloud, parameters["resource_id"])
        if found is None:
            raise GiveUp(f"stack {parameters['resource_id']} is gone")
        if found["stack_status"] != done:
            raise GiveUp(f"stack {found['stack_name']} is {found['stack_status']}: {found.get('stack_status_reason')}")

    async def look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
        found = await stack(hands.cloud, parameters["resource_id"])
        if found is None:
            return "unsure"
        status = found["stack_status"]
        if status == done:
            return "done"
        if status == running:
            return "running"
        return "undone" if status == before.get("stack_status") else "unsure"

    return Action(
        name=f"stack_{word}",
        doc=f"{word.capitalize()} everything in a stack",
        schema=ONE_OBJECT,
        check=check,
        run=run,
        verify=verify,
        look=look,
        resource="stack",
    )
