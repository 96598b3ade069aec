"""Measurements from a file: for trying things out, and for tests. Read anew when it has changed.

The file is JSON or YAML: metric → host name or server id → number, in the units of model/advice.py.

    host_cpu_usage: {compute-1: 81.5, compute-2: 12}
    instance_cpu_usage: {6f1c…: 40}
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import msgspec
import yaml

from vedette.errors import BadRequest, ConfigError
from vedette.kit.units import FilePath
from vedette.model.advice import MetricName, Query, Resource
from vedette.ports import MeterNeeds

LARGEST = 64 * 1024 * 1024
"""Bytes of the file."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements from a file."""

    path: FilePath
    """The file: metric → host name or server id → number, as JSON or YAML."""


def build(options: Options, needs: MeterNeeds) -> StaticMeter:
    """Raises ConfigError: the file can't be read."""
    meter = StaticMeter(Path(options.path))
    try:
        meter.load()
    except BadRequest as why:
        raise ConfigError(str(why), path="path") from None
    return meter


class StaticMeter:
    """See the module."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stamp: tuple[int, int] = (0, 0)
        self._values: dict[str, dict[str, float]] = {}
        self.metrics: frozenset[str] = frozenset(get_args(MetricName))

    def load(self) -> None:
        """Read the file if it is another one than before. Raises BadRequest."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_mtime_ns, stat.st_size)
            if stamp == self._stamp:
                return
            if stat.st_size > LARGEST:
                raise BadRequest(f"{self._path} has more than {LARGEST} bytes")
            found: Any = yaml.safe_load(self._path.read_bytes())
        except (OSError, yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as why:
            raise BadRequest(f"measurements in {self._path} can't be read: {why}") from None
        try:
            values = msgspec.convert(found or {}, dict[str, dict[str, float]])
        except msgspec.ValidationError as why:
            raise BadRequest(f"{self._path} is no mapping of metrics to numbers: {why}") from None
        for name in values:
            if name not in get_args(MetricName):
                raise BadRequest(f"{self._path}: there is no metric {name!r}; there are {', '.join(get_args(MetricName))}")
        self._values, self._stamp = values, stamp
        self.metrics = frozenset(values)

    async def read(self, query: Query, resources: Sequence[Resource], at: int) -> Mapping[str, float]:
        await asyncio.to_thread(self.load)
        values = self._values.get(query.metric, {})
        return {one.id: values[name] for one in resources for name in (one.id, one.uuid) if name in values}

    async def state(self) -> str:
        try:
            await asyncio.to_thread(self.load)
        except BadRequest as why:
            return f"not available: {why}"
        return "available"

    async def close(self) -> None:
        """Nothing is open."""
