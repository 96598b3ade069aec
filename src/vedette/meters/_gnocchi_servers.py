"""What servers use, from Gnocchi, for engine/polling.py: processor, memory, network and disks of every server of some projects.

First the resources of the projects are searched (instances, their interfaces and their disks), then the last measures of all
their metrics, many in one question. The names are Ceilometer's; rates are `rate:mean` of its counters, so the archive policy has
to keep that aggregation. What has no data is missing, never 0.
https://docs.openstack.org/ceilometer/latest/admin/telemetry-measurements.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vedette.errors import NotFound, TryLater
from vedette.meters._gnocchi_reading import METRIC, Reading, gathered
from vedette.model.sample import Sample, SampleName, Samples
from vedette.ports import Cloud

PROJECTS = 50
"""In one question."""
PAGE = 1000
"""Resources in one answer."""
MOST = 100_000
"""Resources of one type that are looked at."""
SPANS = 3
"""Of the granularity that are looked back: the last one is seldom there yet."""

_RATES: Mapping[str, tuple[SampleName, str]] = {
    "network.incoming.bytes": ("network_usage", "instance_network_interface"),
    "network.outgoing.bytes": ("network_usage", "instance_network_interface"),
    "disk.device.read.bytes": ("throughput", "instance_disk"),
    "disk.device.write.bytes": ("throughput", "instance_disk"),
    "disk.device.read.requests": ("iops", "instance_disk"),
    "disk.device.write.requests": ("iops", "instance_disk"),
}


async def samples(
    cloud: Cloud, turn: asyncio.Semaphore, projects: Sequence[str], at: int, granularity: int, *, per_vcpu: bool
) -> Samples:
    """See ports.Sampler."""
    types = ("instance", "instance_network_interface", "instance_disk")
    some = [list(projects[start : start + PROJECTS]) for start in range(0, len(projects), PROJECTS)]
    found = await gathered(_search(cloud, turn, type_, part) for type_ in types for part in some)
    rows: dict[str, list[dict[str, Any]]] = {type_: [] for type_ in types}
    for number, part in enumerate(found):
        rows[types[number // max(1, len(some))]] += part
    servers = {str(row["id"]): row for row in rows["instance"]}
    parts: dict[str, list[dict[str, Any]]] = {id_: [] for id_ in servers}
    for type_ in types[1:]:
        for row in rows[type_]:
            if row.get("instance_id") in parts:
                parts[row["instance_id"]].append(row)
    start = at - SPANS * granularity * 1_000_000
    rates = Reading(cloud, turn, "rate:mean", granularity, start, at, _last)
    means = Reading(cloud, turn, "mean", granularity, start, at, _last)
    # Sizes change seldom and are told seldom: any measure of the last day will do.
    sizes = Reading(cloud, turn, "mean", granularity, at - 86_400 * 1_000_000, at, _last)
    wanted = [_metric(row, "cpu") for row in servers.values()]
    wanted += [_metric(row, name) for several in parts.values() for row in several for name in _RATES]
    rated, used, sized = await gathered(
        (
            rates.every(_known(wanted)),
            means.every(_known(_metric(row, "memory.usage") for row in servers.values())),
            sizes.every(_known(_metric(row, name) for row in servers.values() for name in _sizes(per_vcpu))),
        )
    )
    told: list[Sample] = []
    missing = 0
    for id_, row in servers.items():
        values = _of_server(row, parts[id_], rated, used, sized, granularity, per_vcpu=per_vcpu)
        project = str(row.get("project_id") or "")
        told += [Sample(id_, project, name, value) for name, value in values.items() if value is not None]
        missing += sum(value is None for value in values.values())
    refused = [f"{one.how} of {one.without} metrics: {one.refused}" for one in (rates, means, sizes) if one.refused]
    return Samples(at, tuple(told), len(servers), missing, "; ".join(refused))


def _sizes(per_vcpu: bool) -> tuple[str, ...]:
    return ("memory", "vcpus") if per_vcpu else ("memory",)


def _of_server(
    row: Mapping[str, Any],
    parts: Sequence[Mapping[str, Any]],
    rated: Mapping[str, float],
    used: Mapping[str, float],
    sized: Mapping[str, float],
    granularity: int,
    *,
    per_vcpu: bool,
) -> dict[SampleName, float | None]:
    """None: no data. A part that a server has not (no disk that is measured) is no value at all."""
    values: dict[SampleName, float | None] = {"cpu_load": None, "ram_usage": None}
    cpu = rated.get(_metric(row, "cpu"))
    if cpu is not None:
        # Nanoseconds of a span. After a migration the counter begins anew: less than nothing was not used.
        load = max(0.0, cpu) / (granularity * 1e9) * 100
        vcpus = sized.get(_metric(row, "vcpus")) if per_vcpu else 1.0
        values["cpu_load"] = load / vcpus if vcpus else None
    memory, usage = sized.get(_metric(row, "memory")), used.get(_metric(row, "memory.usage"))
    if memory and usage is not None:
        values["ram_usage"] = usage / memory * 100
    for metric, (name, type_) in _RATES.items():
        for part in parts:
            if part.get("type") == type_:
                value = rated.get(_metric(part, metric))
                if value is not None:
                    values[name] = (values.get(name) or 0.0) + max(0.0, value) / granularity
                else:
                    values.setdefault(name, None)
    return values


async def _search(cloud: Cloud, turn: asyncio.Semaphore, type_: str, projects: list[str]) -> list[dict[str, Any]]:
    """Resources that have not ended, whole."""
    query = {"and": [{"in": {"project_id": projects}}, {"=": {"ended_at": None}}]}
    found: list[dict[str, Any]] = []
    marker: list[tuple[str, str]] = []
    while len(found) < MOST:
        async with turn:
            try:
                rows = await cloud.query(METRIC, f"/search/resource/{type_}", query, [("limit", str(PAGE)), *marker])
            except NotFound:
                break  # nothing of this type was ever measured
        if not isinstance(rows, list):
            raise TryLater("Gnocchi's answer is no list of resources", delay=30)
        found += [row for row in rows if isinstance(row, dict) and row.get("id")]
        if len(rows) < PAGE:
            break
        marker = [("marker", str(rows[-1]["id"]))]
    return found


def _metric(row: Mapping[str, Any], name: str) -> str:
    """The id of a resource's metric; "": it has none."""
    metrics = row.get("metrics")
    return str(metrics.get(name) or "") if isinstance(metrics, dict) else ""


def _known(metrics: Iterable[str]) -> list[str]:
    return [one for one in dict.fromkeys(metrics) if one]


def _last(values: Sequence[float]) -> float:
    return values[-1]
