"""Waits, so that what comes after it comes later. Can be cut short."""

from __future__ import annotations

import asyncio

from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

_sleeping: dict[str, asyncio.Event] = {}
"""Request → what ends its sleep."""


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    return Ready()


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    """After a crash it sleeps from the beginning."""
    cut = _sleeping.setdefault(hands.request_id, asyncio.Event())
    slept = asyncio.ensure_future(hands.clock.sleep(float(parameters["duration"])))
    ended = asyncio.ensure_future(cut.wait())
    try:
        await asyncio.wait({slept, ended}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        slept.cancel()
        ended.cancel()
        _sleeping.pop(hands.request_id, None)


async def _nothing(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    return None


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    return "undone"


async def _abort(hands: Hands, parameters: JsonObject, before: JsonObject) -> bool:
    sleeping = _sleeping.get(hands.request_id)
    if sleeping is None:
        return False
    sleeping.set()
    return True


ACTION = Action(
    name="sleep",
    doc="Wait for a given interval in seconds.",
    schema={
        "type": "object",
        "properties": {
            "duration": {"type": "number", "minimum": 0, "maximum": 86_400},
            "resource_id": {"type": ["string", "null"]},
        },
        "required": ["duration"],
        "additionalProperties": False,
    },
    check=_check,
    run=_run,
    verify=_nothing,
    look=_look,
    undo=_nothing,
    abort=_abort,
    resource="",
)
