"""Measurements of servers on a timer: what a meter gives, and engine/polling.py hands on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

SampleName = Literal["cpu_load", "ram_usage", "network_usage", "throughput", "iops"]

UNITS: Mapping[SampleName, str] = {
    "cpu_load": "%",
    "ram_usage": "%",
    "network_usage": "B/s",
    "throughput": "B/s",
    "iops": "OPS/s",
}
"""`cpu_load`: of one processor, so that a busy server with four reads 400, unless it is asked for per vCPU. `ram_usage`: of the
server's memory. `network_usage`: in and out, of all its interfaces together. `throughput`, `iops`: reads and writes, of all its
disks together."""


class Sample(msgspec.Struct, frozen=True):
    """One value of one server."""

    server: str
    project: str
    name: SampleName
    value: float
    """In the unit of `UNITS`."""


class Samples(msgspec.Struct, frozen=True):
    """What one round gave."""

    at: int
    """UTC microseconds."""
    samples: tuple[Sample, ...] = ()
    servers: int = 0
    """That the datasource knows in these projects."""
    missing: int = 0
    """Values that these servers should have and have no data for: they are not among the samples, and never 0."""
    trouble: str = ""
    """Why some have none, where the datasource says it: an archive policy without the aggregation, say."""
