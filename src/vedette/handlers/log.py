"""Writes a line into Vedette's own log for each event: to see what a condition matches before something real is called.

An event comes in, a line on stderr goes out (kit/log.py gives it its form).
"""

from __future__ import annotations

import logging
from typing import Literal

import msgspec

from vedette.handlers._target import excerpt
from vedette.handlers._template import Values, template
from vedette.kit.log import kv
from vedette.ports import Context, Event, HandlerNeeds

log = logging.getLogger("vedette.handlers.log")

LONGEST = 8_192
"""Characters of a line; the rest is cut off."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A line in Vedette's own log."""

    message: str = "{event.type} {event.verb} {key}"
    """The line's text, a template."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Its level. What is below `log.level` is not written."""


def build(options: Options, needs: HandlerNeeds) -> LogHandler:
    """Raises ConfigError: the template can't be read."""
    return LogHandler(options, needs)


class LogHandler:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        self._message = template(options.message, "line", path="message")
        self._level = logging.getLevelNamesMapping()[options.level.upper()]

    async def handle(self, event: Event, context: Context) -> str:
        text = excerpt(self._message.fill(Values(event)), LONGEST)
        log.log(self._level, "%s", text, extra=kv(handler=event.handler, revision=event.revision))
        return excerpt(text)

    async def close(self) -> None:
        """Nothing is open."""
