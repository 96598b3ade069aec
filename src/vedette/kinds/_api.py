"""What reading a service's API has in common for the kinds whose API shows other forms than their notifications do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from vedette.kinds._said import second
from vedette.model.reading import Reading
from vedette.ports import Answer, JsonObject

Show = Callable[[JsonObject, int], Reading | None]
"""What one item of an answer says, as of when the answer was asked for; None: nothing (it has no id)."""


def readings(items: Iterable[Any], as_of: int, show: Show) -> list[Reading]:
    """What the items say. One that can't be read takes none of the others with it."""
    shown = (show(item, as_of) for item in items if isinstance(item, dict))
    return [reading for reading in shown if reading is not None]


def the(answer: Answer, key: str, show: Show) -> list[Reading]:
    """What an answer about one object says. Nothing, when it shows none: that is odd, and no proof that it is gone."""
    return readings((answer.body.get(key),), answer.as_of, show)


def in_seconds(fields: dict[str, Any], *names: str) -> None:
    """These timestamps in the form that readings have, in place."""
    for name in names:
        if name in fields:
            fields[name] = second(fields[name])


def empty_is_none(fields: dict[str, Any], *names: str) -> None:
    """Nova's API shows "" for what has no value; a reading null. In place."""
    for name in names:
        if fields.get(name) == "":
            fields[name] = None
