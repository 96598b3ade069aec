"""Time, asked for as a port so that tests own it.

The wall clock only stamps; schedules and timeouts use the monotonic clock, so a step of the wall clock moves nothing.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """What the service knows of time."""

    def now_us(self) -> int:
        """Wall clock, UTC microseconds since 1970."""
        ...

    def monotonic(self) -> float:
        """Seconds; only differences mean something."""
        ...

    async def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def rfc3339(us: int) -> str:
    """Microseconds to `2026-11-20T15:18:30Z`, the form of Kubernetes' creationTimestamp (RFC 3339, whole seconds)."""
    return _second(us // 1_000_000)


@lru_cache(maxsize=4096)
def _second(second: int) -> str:
    """Kept: a batch is written within a second, and an object's creation is said again with each of its changes."""
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_us(us: int) -> str:
    """Microseconds to `2026-11-20T15:18:30.420516Z` (Kubernetes' MicroTime)."""
    return f"{rfc3339(us)[:-1]}.{us % 1_000_000:06d}Z"


def parse_us(text: str) -> int | None:
    """A timestamp in any form that OpenStack was seen to send, as UTC microseconds; None when it is none.

    Naive ones are UTC. Seen: `2026-11-20 15:18:30.420516`, `…T15:18:30Z`, `… 15:19:10+00:00`, `…T15:46:10.524678+0000`, empty.
    """
    if len(text) < 10:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    delta = when - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
