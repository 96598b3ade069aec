"""Scoring engines: pure functions of a list of numbers, with a description of what the numbers are. Watcher's samples.

`SCORING_ENGINES` is what the API lists. A strategy calls one by `scored`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence

import msgspec

from vedette.errors import BadRequest

MiB = 1024 * 1024

FEATURES = (
    "proc-processor-time-%",
    "mem-total-bytes",
    "mem-avail-bytes",
    "mem-page-reads/sec",
    "mem-page-writes/sec",
    "disk-read-bytes/sec",
    "disk-write-bytes/sec",
    "net-bytes-received/sec",
    "net-bytes-sent/sec",
)
RESULTS = ("workload", "idle-probability", "cpu-probability", "memory-probability", "disk-probability")
WORKLOADS = ("idle", "cpu-intensive", "memory-intensive", "disk-intensive")


class ScoringEngine(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    metainfo: str = ""
    """JSON, or nothing."""
    score: Callable[[Sequence[float]], list[float]]


def _workload(features: Sequence[float]) -> list[float]:
    """Which of WORKLOADS it is, and how likely each is, in per cent."""
    if len(features) != len(FEATURES):
        raise BadRequest(f"dummy_scorer takes {len(FEATURES)} numbers ({', '.join(FEATURES)}), not {len(features)}")
    busy, _, _, reads, writes, disk_reads, disk_writes, _, _ = features
    if busy >= 80:
        return [1, 0.0, 100.0, 0.0, 0.0]
    if reads >= 1000 and writes >= 1000:
        return [2, 0.0, 0.0, 100.0, 0.0]
    if disk_reads >= 50 * MiB and disk_writes >= 50 * MiB:
        return [3, 0.0, 0.0, 0.0, 100.0]
    return [0, 100.0, 50.0 if busy >= 40 else 0.0, 50.0 if reads >= 500 or writes >= 500 else 0.0, 0.0]


def _of_all(name: str, function: Callable[[Sequence[float]], float]) -> Callable[[Sequence[float]], list[float]]:
    def score(features: Sequence[float]) -> list[float]:
        if not features:
            raise BadRequest(f"{name} takes at least one number")
        return [function(features)]

    return score


SCORING_ENGINES: tuple[ScoringEngine, ...] = (
    ScoringEngine(
        name="dummy_scorer",
        description="Dummy workload classifier",
        metainfo=json.dumps({"feature_columns": FEATURES, "result_columns": RESULTS, "workloads": WORKLOADS}),
        score=_workload,
    ),
    ScoringEngine(
        name="dummy_min_scorer",
        description="Dummy Scorer calculating the minimum value",
        score=_of_all("dummy_min_scorer", min),
    ),
    ScoringEngine(
        name="dummy_max_scorer",
        description="Dummy Scorer calculating the maximum value",
        score=_of_all("dummy_max_scorer", max),
    ),
    ScoringEngine(
        name="dummy_avg_scorer",
        description="Dummy Scorer calculating the average value",
        score=_of_all("dummy_avg_scorer", lambda features: math.fsum(features) / len(features)),
    ),
)
_BY_NAME = {one.name: one for one in SCORING_ENGINES}


def scored(name: str, features: Sequence[float]) -> list[float]:
    """Raises BadRequest: there is no such engine, or it takes other numbers."""
    if name not in _BY_NAME:
        raise BadRequest(f"there is no scoring engine {name!r}: there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name].score(features)
