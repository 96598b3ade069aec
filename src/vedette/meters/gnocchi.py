"""Measurements from Gnocchi: Ceilometer's of hosts and servers. Many resources in one question.

First it is asked which metrics resources have (`/v1/search/resource`), then for the measures of many metrics at once
(`/v1/aggregates`). If one of those lacks the aggregation or the granularity, Gnocchi refuses them all: halves are asked for then,
until it is known which have no data. https://gnocchi.osci.io/rest.html
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.errors import BadRequest, ConfigError, Forbidden, NoService, NotFound, TryLater, VedetteError
from vedette.kit.log import kv
from vedette.meters import _gnocchi_servers
from vedette.meters._gnocchi_reading import METRIC, Reading, chunks, gathered
from vedette.model.advice import MetricName, Query, Resource
from vedette.model.sample import Samples
from vedette.ports import Cloud, MeterNeeds

log = logging.getLogger("vedette.meters.gnocchi")

AT_A_TIME = 4
"""Questions."""

_NAMES: Mapping[MetricName, str] = {
    "host_cpu_usage": "compute.node.cpu.percent",
    "host_ram_usage": "hardware.memory.used",
    "host_outlet_temp": "hardware.ipmi.node.outlet_temperature",
    "host_inlet_temp": "hardware.ipmi.node.temperature",
    "host_airflow": "hardware.ipmi.node.airflow",
    "host_power": "hardware.ipmi.node.power",
    "instance_cpu_usage": "cpu",
    "instance_ram_usage": "memory.resident",
    "instance_l3_cache_usage": "cpu_l3_cache",
}
"""As in OpenStack Watcher's datasource."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements from Gnocchi, with the account of a source's `api`."""

    source: str = ""
    """The source whose cloud it belongs to; none: the one that audits are for."""
    names: dict[str, str] = {}
    """Other names of metrics there, such as `instance_ram_usage: memory.usage`."""
    hosts: tuple[str, ...] = ("{host}_{host}", "{host}")
    """What hosts are called there (`original_resource_id`), the first that there is; `{host}` is the hypervisor's name."""


def build(options: Options, needs: MeterNeeds) -> GnocchiMeter:
    """Raises ConfigError."""
    for name in options.names:
        if name not in _NAMES:
            raise ConfigError(f"there is no measurement {name!r}; there are {', '.join(sorted(_NAMES))}", path="names")
    if not options.hosts:
        raise ConfigError("wants at least one form, such as `{host}`", path="hosts")
    cloud = needs.cloud(options.source)
    if cloud is None:
        raise ConfigError(f"source {options.source!r} has no API: set its `api`", path="source")
    return GnocchiMeter(options, cloud)


class GnocchiMeter:
    """See the module."""

    metrics = frozenset({*_NAMES, "instance_ram_allocated", "instance_root_disk_size"})

    def __init__(self, options: Options, cloud: Cloud) -> None:
        self._options = options
        self._cloud = cloud
        self._turn = asyncio.Semaphore(AT_A_TIME)

    async def read(self, query: Query, resources: Sequence[Resource], at: int) -> Mapping[str, float]:
        if query.metric == "instance_ram_allocated":
            return {one.id: float(one.memory) for one in resources}
        if query.metric == "instance_root_disk_size":
            return {one.id: float(one.disk) for one in resources}
        try:
            found = await self._read(query, resources, at)
        except (Forbidden, NoService) as why:
            raise BadRequest(str(why)) from None
        return {one.id: _in_units(query, one, found[one.id]) for one in resources if one.id in found}

    async def _read(self, query: Query, resources: Sequence[Resource], at: int) -> dict[str, float]:
        """Resource → what Gnocchi says."""
        name = self._options.names.get(query.metric) or _NAMES[query.metric]
        owners = await self._metrics(name, resources, hosts=query.of_hosts)
        # Processor time is a counter: what it grows by is what was used.
        how = f"rate:{query.aggregate}" if query.metric == "instance_cpu_usage" else query.aggregate
        start = at - query.period * 1_000_000
        reading = Reading(self._cloud, self._turn, how, query.granularity, start, at, _TOGETHER[query.aggregate])
        measured = await reading.every(list(owners))
        if reading.refused:
            log.warning(
                "Gnocchi has not what was asked for: no data",
                extra=kv(
                    metric=name, aggregation=reading.how, granularity=query.granularity, of=reading.without, why=reading.refused
                ),
            )
        return {owners[metric]: value for metric, value in measured.items()}

    async def _metrics(self, name: str, resources: Sequence[Resource], *, hosts: bool) -> dict[str, str]:
        """Id of a metric of this name → the resource that it is of."""
        forms = self._options.hosts if hosts else ("{host}",)
        called = [{form.replace("{host}", one.id): one.id for one in resources} for form in forms]
        attribute, type_ = ("original_resource_id", "generic") if hosts else ("id", "instance")
        wanted = list(dict.fromkeys(word for words in called for word in words))
        pages = await gathered(self._search(type_, attribute, some) for some in chunks(wanted))
        there: dict[str, str] = {}
        for row in (row for page in pages for row in page):
            metrics, word = row.get("metrics"), row.get(attribute)
            if isinstance(metrics, dict) and isinstance(word, str) and isinstance(metrics.get(name), str):
                there[word] = metrics[name]
        found: dict[str, str] = {}
        seen: set[str] = set()
        for words in called:
            for word, id_ in words.items():
                if word in there and id_ not in seen:
                    seen.add(id_)
                    found[there[word]] = id_
        return found

    async def _search(self, type_: str, attribute: str, words: Sequence[str]) -> list[Any]:
        async with self._turn:
            try:
                rows = await self._cloud.query(
                    METRIC, f"/search/resource/{type_}", {"in": {attribute: list(words)}}, [("limit", str(len(words)))]
                )
            except NotFound:
                return []  # nothing of this type was ever measured
        if not isinstance(rows, list):
            raise TryLater("Gnocchi's answer is no list of resources", delay=30)
        return [row for row in rows if isinstance(row, dict)]

    async def samples(self, projects: Sequence[str], at: int, granularity: int, *, per_vcpu: bool) -> Samples:
        """See ports.Sampler."""
        return await _gnocchi_servers.samples(self._cloud, self._turn, projects, at, granularity, per_vcpu=per_vcpu)

    async def state(self) -> str:
        try:
            await self._cloud.get(METRIC, "/capabilities")
        except VedetteError as why:
            return f"not available: {why}"
        return "available"

    async def close(self) -> None:
        """The cloud is the source's."""


_TOGETHER: Mapping[str, Callable[[Sequence[float]], float]] = {
    "mean": lambda values: math.fsum(values) / len(values),
    "min": min,
    "max": max,
    "count": math.fsum,
}


def _in_units(query: Query, resource: Resource, value: float) -> float:
    """As model/advice.py wants it."""
    match query.metric:
        case "instance_cpu_usage":
            # Nanoseconds of a span. After a migration the counter begins anew: less than nothing was not used.
            share = value / (query.granularity * 1e9) / (resource.vcpus or 1) * 100
            return min(100.0, max(0.0, share))
        case "host_ram_usage":
            return value / 1024  # KiB
        case "host_airflow":
            return value * 10  # CFM
    return value
