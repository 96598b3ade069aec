"""Does nothing but say something: for trying out plans. Its switches make it fail where a test wants it to."""

from __future__ import annotations

import logging

from vedette.errors import GiveUp
from vedette.kit.log import kv
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

log = logging.getLogger("vedette.actions.nop")


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    if parameters.get("skip_pre_condition"):
        return Skip("Skipped in pre_condition")
    if parameters.get("fail_pre_condition"):
        raise GiveUp("Failed in pre_condition")
    return Ready()


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    log.info("nop: %s", parameters["message"], extra=kv(request_id=hands.request_id))
    hands.say(str(parameters["message"]))
    if parameters.get("fail_execute"):
        raise GiveUp("Failed in execute")


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    if parameters.get("fail_post_condition"):
        raise GiveUp("Failed in post_condition")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    return "undone"


async def _undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    log.info("nop is undone: %s", parameters["message"], extra=kv(request_id=hands.request_id))


_SWITCHES = ("skip_pre_condition", "fail_pre_condition", "fail_execute", "fail_post_condition")

ACTION = Action(
    name="nop",
    doc="Logging a NOP message",
    schema={
        "type": "object",
        "properties": {
            "message": {"type": ["string", "null"]},
            "resource_id": {"type": ["string", "null"]},
            **{name: {"type": "boolean", "default": False} for name in _SWITCHES},
        },
        "required": ["message"],
        "additionalProperties": False,
    },
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    undo=_undo,
    resource="",
)
