"""Evens out the load of hosts: moves that lower the deviation, until it is under its threshold.

Each step takes the host that is furthest above the mean and the move off it that lowers the weighted deviation most. A move is
tried in constant time (sums of loads and of their squares are kept), so a thousand hosts are a matter of seconds.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from vedette.model.advice import MetricName, Metrics, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done, JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, ended, held, migration

METRICS = ("instance_cpu_usage", "instance_ram_usage")
NEAR = 64
"""Hosts that `fullsearch` tries a server on: those with the least load. The best one is among them unless they have no room."""
LEAST_LOADED = 4
"""Hosts with the least load that a server is tried on in any case."""
LEAST = 1e-9
"""A move that lowers the deviation by less is none."""

_AGGREGATES = ("mean", "min", "max", "count")


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    found: list[Query] = []
    for metric in parameters["metrics"]:
        found += [_of_servers(metric, parameters), _of_hosts(metric, parameters)]
    return found


def _of_servers(metric: str, parameters: JsonObject) -> Query:
    how = parameters["aggregation_method"].get("instance", "mean")
    return _query(metric, how, parameters["periods"].get("instance", 720), parameters)


def _of_hosts(metric: str, parameters: JsonObject) -> Query:
    named = parameters["instance_metrics"].get(metric, metric.replace("instance_", "host_"))
    how = parameters["aggregation_method"].get("compute_node", "mean")
    return _query(named, how, parameters["periods"].get("compute_node", 600), parameters)


def _query(metric: str, how: str, period: float, parameters: JsonObject) -> Query:
    aggregate: Any = how if how in _AGGREGATES else "mean"
    return Query(cast("MetricName", metric), aggregate, int(period), int(parameters["granularity"]))


class _Loads:
    """The load of each host by each metric, as a share of what it has, and the weighted deviation of them all."""

    def __init__(self, hosts: Mapping[str, tuple[float, ...]], weights: Sequence[float]) -> None:
        self.hosts = {name: list(loads) for name, loads in hosts.items()}
        self._weights = weights
        self._sums = [sum(loads[at] for loads in hosts.values()) for at in range(len(weights))]
        self._squares = [sum(loads[at] ** 2 for loads in hosts.values()) for at in range(len(weights))]

    def deviations(self) -> list[float]:
        """Of each metric."""
        return [self._deviation(at, self._sums[at], self._squares[at]) for at in range(len(self._weights))]

    def weighted(self) -> float:
        return sum(weight * one for weight, one in zip(self._weights, self.deviations(), strict=True))

    def after(self, source: str, target: str, less: Sequence[float], more: Sequence[float]) -> float:
        """The weighted deviation if this were moved: `less` of the one, `more` of the other."""
        found = 0.0
        for at, weight in enumerate(self._weights):
            a, b = self.hosts[source][at], self.hosts[target][at]
            squares = self._squares[at] - a * a - b * b + (a - less[at]) ** 2 + (b + more[at]) ** 2
            found += weight * self._deviation(at, self._sums[at] - less[at] + more[at], squares)
        return found

    def move(self, source: str, target: str, less: Sequence[float], more: Sequence[float]) -> None:
        for at in range(len(self._weights)):
            for name, by in ((source, -less[at]), (target, more[at])):
                was = self.hosts[name][at]
                self.hosts[name][at] = was + by
                self._sums[at] += by
                self._squares[at] += (was + by) ** 2 - was * was

    def weight_of(self, name: str) -> float:
        """How much a host has, all metrics together."""
        return sum(weight * load for weight, load in zip(self._weights, self.hosts[name], strict=True))

    def _deviation(self, at: int, total: float, squares: float) -> float:
        number = len(self.hosts)
        return math.sqrt(max(0.0, squares / number - (total / number) ** 2)) if number else 0.0


def _loads(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject) -> tuple[_Loads, list[str]]:
    """Of the hosts that take part, and what to say of the others."""
    wanted = parameters["metrics"]
    weights = [float(parameters["weights"].get(f"{metric}_weight", 1.0)) for metric in wanted]
    hosts: dict[str, tuple[float, ...]] = {}
    notes: list[str] = []
    for host in snapshot.hosts:
        if not host.usable:
            continue
        found = [_share(host, metric, metrics.get(_of_hosts(metric, parameters), {}).get(host.hostname)) for metric in wanted]
        if any(one is None for one in found):
            notes.append(f"host {host.hostname} takes no part: no data of it")
        else:
            hosts[host.hostname] = tuple(one for one in found if one is not None)
    return _Loads(hosts, weights), notes


def _share(host: Host, metric: str, value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    if metric == "instance_cpu_usage":
        return value / 100
    return value / host.memory if host.memory else None


def _weighs(server: Server, host: Host, values: Sequence[float], wanted: Sequence[str]) -> list[float]:
    """What a server adds to the load of this host."""
    found: list[float] = []
    for metric, value in zip(wanted, values, strict=True):
        if metric == "instance_cpu_usage":
            found.append(value / 100 * server.vcpus / host.vcpus if host.vcpus else 0.0)
        else:
            found.append(value / host.memory if host.memory else 0.0)
    return found


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    wanted: list[str] = parameters["metrics"]
    loads, notes = _loads(snapshot, metrics, parameters)
    thresholds = [float(parameters["thresholds"].get(metric, 0.1)) for metric in wanted]
    before = loads.weighted()
    actions = []
    if not _even(loads, thresholds) and len(loads.hosts) > 1:
        room = Room(snapshot)
        movable, left_out = _movable(snapshot, metrics, parameters, loads)
        notes += left_out
        stuck: set[str] = set()
        turn = 0
        while not _even(loads, thresholds):
            source = max(
                (name for name in loads.hosts if name not in stuck), key=lambda name: (loads.weight_of(name), name), default=""
            )
            if not source:
                break
            best = _best(snapshot, source, movable, loads, room, parameters, turn)
            turn += 1
            if best is None:
                stuck.add(source)
                continue
            server, target, values = best
            host, to = snapshot.host[source], snapshot.host[target]
            loads.move(source, target, _weighs(server, host, values, wanted), _weighs(server, to, values, wanted))
            room.take(to, server)
            del movable[source][server.uuid]
            actions.append(migration(server, "live", target))
            # What was stuck may have somewhere to go now.
            stuck.discard(target)
        if not _even(loads, thresholds):
            notes.append("no more moves lower the deviation: it stays above its threshold")
    audited = sum(len(snapshot.servers_on[name]) for name in loads.hosts)
    return Solution(
        actions=tuple(actions),
        indicators={
            "instance_migrations_count": len(actions),
            "instances_count": audited,
            "standard_deviation_before_audit": before,
            "standard_deviation_after_audit": loads.weighted(),
        },
        notes=ended(notes),
    )


def _even(loads: _Loads, thresholds: Sequence[float]) -> bool:
    return all(one <= threshold for one, threshold in zip(loads.deviations(), thresholds, strict=True))


def _movable(
    snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, loads: _Loads
) -> tuple[dict[str, dict[str, tuple[Server, tuple[float, ...]]]], list[str]]:
    """Host → server → it and its measurements; and what to say of those that are left out."""
    wanted = parameters["metrics"]
    tables = [metrics.get(_of_servers(metric, parameters), {}) for metric in wanted]
    found: dict[str, dict[str, tuple[Server, tuple[float, ...]]]] = {name: {} for name in loads.hosts}
    notes: list[str] = []
    for name in loads.hosts:
        for server in snapshot.servers_on[name]:
            values = tuple(table[server.uuid] for table in tables if server.uuid in table)
            if not server.live:
                continue
            if held(server):
                notes.append(f"{called(server)} stays: it {held(server)}")
            elif len(values) < len(tables):
                notes.append(f"{called(server)} stays: no data of it")
            else:
                found[name][server.uuid] = (server, values)
    return found, notes


def _best(
    snapshot: Snapshot,
    source: str,
    movable: Mapping[str, Mapping[str, tuple[Server, tuple[float, ...]]]],
    loads: _Loads,
    room: Room,
    parameters: JsonObject,
    turn: int,
) -> tuple[Server, str, tuple[float, ...]] | None:
    """The move off this host that lowers the deviation most; None: none does."""
    wanted: list[str] = parameters["metrics"]
    others = (name for name in loads.hosts if name != source)
    targets = heapq.nsmallest(NEAR, others, key=lambda name: (loads.weight_of(name), name))
    now, found = loads.weighted(), None
    host = snapshot.host[source]
    for server, values in movable[source].values():
        less = _weighs(server, host, values, wanted)
        for target in _tried(targets, parameters, turn):
            to = snapshot.host[target]
            if not room.takes(to, server):
                continue
            after = loads.after(source, target, less, _weighs(server, to, values, wanted))
            if after < now - LEAST:
                now, found = after, (server, target, values)
    return found


def _tried(targets: Sequence[str], parameters: JsonObject, turn: int) -> Iterable[str]:
    """The hosts that a server is tried on. `retry`: so many of those with the least load, where Watcher takes any; `cycle`: one
    more, in turn; `fullsearch`: all."""
    least = targets[: max(LEAST_LOADED, int(parameters["retry_count"]))]
    match parameters["host_choice"]:
        case "fullsearch":
            return targets
        case "cycle" if targets:
            # Beside the next one in turn, those with the least load: else nothing moves while its turn is another's.
            return dict.fromkeys((targets[turn % len(targets)], *least))
    return least


def measure(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """How even the load is now."""
    loads, _ = _loads(after, metrics, parameters)
    return {
        "instance_migrations_count": sum(one.action_type == "migrate" and one.state == "SUCCEEDED" for one in done),
        "instances_count": sum(len(after.servers_on[name]) for name in loads.hosts),
        "standard_deviation_after_audit": loads.weighted(),
    }


_PART = {"type": "number", "minimum": 0, "maximum": 1}
_SPAN = {"type": "integer", "minimum": 0}

STRATEGY = Strategy(
    name="workload_stabilization",
    display_name="Workload stabilization",
    goal="workload_balancing",
    doc="Moves servers from hosts with much load to hosts with little, until the standard deviation of the load over all hosts "
    "is under its threshold.",
    schema={
        "properties": {
            "metrics": {
                "description": "What counts as load.",
                "type": "array",
                "items": {"type": "string", "enum": list(METRICS)},
                "default": ["instance_cpu_usage"],
            },
            "thresholds": {
                "description": "The deviation up to which all is well, by metric, as a share of a host.",
                "type": "object",
                "properties": dict.fromkeys(METRICS, _PART),
                "default": dict.fromkeys(METRICS, 0.1),
            },
            "weights": {
                "description": "How much each metric counts, by `<metric>_weight`.",
                "type": "object",
                "properties": {f"{name}_weight": _PART for name in METRICS},
                "default": {f"{name}_weight": 1.0 for name in METRICS},
            },
            "instance_metrics": {
                "description": "The measurement of a host that goes with each metric.",
                "type": "object",
                "default": {"instance_cpu_usage": "host_cpu_usage", "instance_ram_usage": "host_ram_usage"},
            },
            "host_choice": {
                "description": "Where a server is tried: one host after the other (cycle), some (retry), or all (fullsearch).",
                "type": "string",
                "default": "retry",
            },
            "retry_count": {
                "description": "Of `retry`: how many.",
                "type": "number",
                "minimum": 1,
                "default": 1,
            },
            "periods": {
                "description": "Seconds that measurements are of.",
                "type": "object",
                "properties": {"instance": _SPAN, "compute_node": _SPAN, "node": {**_SPAN, "default": 0}},
                "default": {"instance": 720, "compute_node": 600, "node": 0},
            },
            "aggregation_method": {
                "description": "How several points become one: mean, min, max or count.",
                "type": "object",
                "properties": {
                    "instance": {"type": "string", "default": "mean"},
                    "compute_node": {"type": "string", "default": "mean"},
                    "node": {"type": "string", "default": ""},
                },
                "default": {"instance": "mean", "compute_node": "mean", "node": ""},
            },
            "granularity": {
                "description": "Seconds of one point.",
                "type": "number",
                "minimum": 0,
                "default": 300,
            },
        },
    },
    metrics=_queries,
    propose=propose,
    measure=measure,
)
