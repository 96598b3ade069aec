"""A clock that stands still until a test moves it: the port of `kit/clock.py`, for tests and for whoever writes a plug.

`advance` moves both clocks and wakes whoever sleeps, each at its own moment and in order, so what a sleeper does next (sleep
again, for one) happens at the time it would have happened. `step` moves the wall clock alone, as NTP does.
"""

from __future__ import annotations

import asyncio
import heapq

START_US = 1_795_187_946_000_000
"""2026-11-20T15:19:06Z: a moment inside the captures."""

_TURNS = 50
"""Turns of the event loop given to what was woken: enough for a chain of tasks that wait on each other in memory."""


class FakeClock:
    """See the module."""

    def __init__(self, now_us: int = START_US) -> None:
        self._wall = now_us
        self._us = 0
        """Monotonic microseconds: whole numbers, so a hundred small steps are one large one."""
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def now_us(self) -> int:
        return self._wall

    def monotonic(self) -> float:
        return self._us / 1_000_000

    @property
    def sleeping(self) -> int:
        """How many wait on this clock now."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def sleep(self, seconds: float) -> None:
        """Until the clock has been moved that far."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._sleepers, (self._us + round(seconds * 1_000_000), self._count, future))
        await future

    def step(self, seconds: float) -> None:
        """The wall clock is corrected; nobody wakes."""
        self._wall += round(seconds * 1_000_000)

    def tick(self, seconds: float) -> None:
        """Move both clocks; sleepers wake when the event loop next turns."""
        target = self._us + round(seconds * 1_000_000)
        while self._sleepers and self._sleepers[0][0] <= target:
            self._wake()
        self._to(target)

    async def advance(self, seconds: float) -> None:
        """Move both clocks, stopping at each sleeper's moment until what it started has come to rest."""
        target = self._us + round(seconds * 1_000_000)
        await _settle()
        while self._sleepers and self._sleepers[0][0] <= target:
            self._wake()
            await _settle()
        self._to(target)
        await _settle()

    def _wake(self) -> None:
        due, _, future = heapq.heappop(self._sleepers)
        self._to(due)
        if not future.done():  # it was cancelled
            future.set_result(None)

    def _to(self, us: int) -> None:
        self._wall += us - self._us
        self._us = us


async def _settle() -> None:
    for _ in range(_TURNS):
        await asyncio.sleep(0)
