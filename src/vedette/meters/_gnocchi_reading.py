"""Values of many of Gnocchi's metrics in one question (`/v1/aggregates`), for gnocchi.py and _gnocchi_servers.py.

If one metric lacks the aggregation or the granularity, Gnocchi refuses them all: halves are asked for then, until it is known
which have no data. https://gnocchi.osci.io/rest.html
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from vedette.errors import BadRequest, NotFound, TryLater
from vedette.kit.clock import rfc3339_us
from vedette.ports import Cloud

T = TypeVar("T")

METRIC = "metric"
RESOURCES = 200
"""Asked for in one question."""
MOST_SPLITS = 256
"""Questions that a measurement may cost for finding out which metrics have no data; then the rest counts as such."""


class Reading:
    """One measurement under way: values of many metrics over a period, each `together`ed into one."""

    def __init__(
        self,
        cloud: Cloud,
        turn: asyncio.Semaphore,
        how: str,
        granularity: int,
        start: int,
        stop: int,
        together: Callable[[Sequence[float]], float],
    ) -> None:
        """`how`: an aggregation, such as `rate:mean`. `start`, `stop`: UTC microseconds."""
        self._cloud, self._turn = cloud, turn
        self.how = how
        self._granularity, self._start, self._stop, self._together = granularity, start, stop, together
        self.refused = ""
        """What Gnocchi said of a metric without data."""
        self.without = 0
        """Metrics that it said so of."""
        self._splits = 0

    async def every(self, metrics: Sequence[str]) -> dict[str, float]:
        """`measures` of however many."""
        measured = await gathered(self.measures(some) for some in chunks(metrics))
        return {metric: value for part in measured for metric, value in part.items()}

    async def measures(self, metrics: Sequence[str]) -> dict[str, float]:
        """Metric → its value over the period. Who has none is missing."""
        try:
            return await self._ask(metrics)
        except (BadRequest, NotFound) as why:
            if len(metrics) == 1 or self._splits >= MOST_SPLITS:
                self.refused = self.refused or str(why)
                self.without += len(metrics)
                return {}
        self._splits += 2
        half = len(metrics) // 2
        return {**await self.measures(metrics[:half]), **await self.measures(metrics[half:])}

    async def _ask(self, metrics: Sequence[str]) -> dict[str, float]:
        params = [
            ("start", rfc3339_us(self._start)),
            ("stop", rfc3339_us(self._stop)),
            ("granularity", str(self._granularity)),
            # Else it refuses them all as soon as one lacks a point that another has.
            ("fill", "dropna"),
        ]
        operations: list[Any] = ["metric", *([one, self.how] for one in metrics)]
        async with self._turn:
            answer = await self._cloud.query(METRIC, "/aggregates", {"operations": operations}, params)
        told = answer.get("measures") if isinstance(answer, dict) else None
        if not isinstance(told, dict):
            raise TryLater("Gnocchi's answer has no measures", delay=30)
        found: dict[str, float] = {}
        for metric in metrics:
            values = _values(told.get(metric), self.how)
            if values:
                found[metric] = self._together(values)
        return found


def _values(said: Any, how: str) -> list[float]:
    """Of the measures of a period, `[time, granularity, value]` each, oldest first."""
    rows = said.get(how) if isinstance(said, dict) else None
    return [
        float(row[2])
        for row in (rows if isinstance(rows, list) else ())
        if isinstance(row, list) and len(row) == 3 and isinstance(row[2], int | float) and math.isfinite(row[2])
    ]


def chunks(items: Sequence[str]) -> Iterable[Sequence[str]]:
    return (items[start : start + RESOURCES] for start in range(0, len(items), RESOURCES))


async def gathered(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """All of them; the first error ends the others, and is raised as it is."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
