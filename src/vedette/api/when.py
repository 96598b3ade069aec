"""Times and places as callers write them: `2026-11-20T15:00:00Z`, `15m` (ago), or a revision of the log.

Used by the routes that take a span of the log.
"""

from __future__ import annotations

import re

from vedette.api.server import Needs
from vedette.errors import BadRequest
from vedette.kit.clock import parse_us

_SPAN = re.compile(r"([0-9]+)([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str, now: int, name: str) -> int:
    """UTC microseconds of a time, or of a span that counts back from `now`. Raises BadRequest with the field's `name`."""
    spans = _SPAN.findall(text)
    if spans and "".join(f"{number}{unit}" for number, unit in spans) == text:
        if len(text) > 16:
            raise BadRequest(f"{name} is too long ago: {text[:40]!a}")
        return max(0, now - sum(int(number) * _UNITS[unit] for number, unit in spans) * 1_000_000)
    when = parse_us(text)
    if when is None:
        raise BadRequest(f"{name} must be a time (2026-11-20T15:00:00Z) or a span (15m, 2h), not {text[:40]!a}")
    return max(0, when)


def is_revision(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 19


async def place(needs: Needs, text: str, name: str, *, first: bool) -> int:
    """Where in the log a span begins (`first`: what is wanted comes after it) or ends (it goes up to there): a revision is part
    of the span, a time is not reached by it. Raises BadRequest."""
    if not is_revision(text):
        return await needs.store.revision_at(moment(text, needs.clock.now_us(), name))
    revision = int(text)
    if revision > needs.store.head:
        raise BadRequest(f"{name}: revision {revision} is not in the log yet, the newest is {needs.store.head}")
    return max(0, revision - 1) if first else revision
