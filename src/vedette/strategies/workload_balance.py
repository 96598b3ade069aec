"""One migration off the host with the largest load to the one with the least: what a cloud can digest that is audited often.

A host's load is what its servers use; those that were not measured are not in it, so a host with such servers is no target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from vedette.model.advice import MetricName, Metrics, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done, JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, ended, migration
from vedette.strategies._measured import deviation, first_that_takes, known, number, running

LEAST = 1e-9
"""A move that makes the variance smaller by less makes it none."""
CPU, RAM = "instance_cpu_usage", "instance_ram_usage"


def _query(parameters: JsonObject) -> Query:
    return Query(cast("MetricName", parameters["metrics"]), "mean", int(parameters["period"]), int(parameters["granularity"]))


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    return [_query(parameters)]


class _Loads:
    """In vCPUs or MiB, of hosts that are enabled and up."""

    def __init__(self, snapshot: Snapshot, values: Mapping[str, float], metric: str) -> None:
        self.of: dict[str, float] = {}
        """Of each server that was measured. One that is shut off uses nothing."""
        for server in snapshot.servers:
            value = 0.0 if server.status == "SHUTOFF" else known(values, server.uuid)
            if value is not None:
                self.of[server.uuid] = value * server.vcpus / 100 if metric == CPU else value
        self.hosts = [host for host in snapshot.hosts if host.usable and _all_of(host, metric) > 0]
        self.share: dict[str, float] = {}
        """Of each host: its load as a part of what it has."""
        self.unknown: dict[str, list[Server]] = {}
        """Host → servers of which there is no data."""
        for host in self.hosts:
            on = snapshot.servers_on[host.hostname]
            self.share[host.hostname] = sum(self.of.get(one.uuid, 0.0) for one in on) / _all_of(host, metric)
            if missing := [one for one in on if one.uuid not in self.of]:
                self.unknown[host.hostname] = missing

    def deviation(self) -> float:
        return deviation(list(self.share.values()))


def _all_of(host: Host, metric: str) -> float:
    return float(host.vcpus if metric == CPU else host.memory)


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    loads = _Loads(snapshot, metrics.get(_query(parameters), {}), parameters["metrics"])
    notes = [
        f"host {name} is given nothing: no data of {called(some[0])}{f' and {len(some) - 1} more' if some[1:] else ''}"
        for name, some in sorted(loads.unknown.items())
    ]
    before = loads.deviation()
    move = _move(snapshot, loads, parameters, notes)
    if move is not None:
        server, source, target = move
        loads.share[source.hostname] -= loads.of[server.uuid] / _all_of(source, parameters["metrics"])
        loads.share[target.hostname] += loads.of[server.uuid] / _all_of(target, parameters["metrics"])
    return Solution(
        actions=() if move is None else (migration(move[0], "live", move[2].hostname),),
        indicators={
            "instance_migrations_count": 0 if move is None else 1,
            "instances_count": sum(len(snapshot.servers_on[host.hostname]) for host in loads.hosts),
            "standard_deviation_before_audit": before,
            "standard_deviation_after_audit": loads.deviation(),
        },
        notes=ended(notes),
    )


def _move(snapshot: Snapshot, loads: _Loads, parameters: JsonObject, notes: list[str]) -> tuple[Server, Host, Host] | None:
    """(server, from, to): off the fullest host on which there is one to move, whose load is the closest below what the host has
    above the mean; to the emptiest one that stays below the threshold."""
    metric, limit = parameters["metrics"], parameters["threshold"] / 100
    by_share = sorted(loads.hosts, key=lambda host: (loads.share[host.hostname], host.hostname))
    above = [host for host in reversed(by_share) if loads.share[host.hostname] >= limit]
    below = [host for host in by_share if loads.share[host.hostname] < limit and host.hostname not in loads.unknown]
    if not above:
        notes.append("no host is above the threshold")
        return None
    mean = sum(loads.share[host.hostname] * _all_of(host, metric) for host in loads.hosts) / len(loads.hosts)
    room = Room(snapshot)
    # The variance is squares / count - (total / count)²: what a move changes in it is known without looking at all hosts again.
    count, total = len(loads.hosts), sum(loads.share.values())
    places = [(host, loads.share[host.hostname], _all_of(host, metric)) for host in below]
    for host in above:
        too_much = loads.share[host.hostname] * _all_of(host, metric) - mean
        candidates = [one for one in running(snapshot, host, notes) if 0 < loads.of.get(one.uuid, 0.0) <= too_much]
        for server in sorted(candidates, key=lambda one: (-loads.of[one.uuid], one.uuid)):
            load, a = loads.of[server.uuid], loads.share[host.hostname]
            less = load / _all_of(host, metric)
            evener = (
                target
                for target, b, capacity in places
                if b + (more := load / capacity) < limit
                and ((a - less) ** 2 + (b + more) ** 2 - a * a - b * b) * count < (total - less + more) ** 2 - total**2 - LEAST
            )
            target = first_that_takes(evener, server, room)
            if target is not None:
                return server, host, target
    notes.append("nothing that could be moved makes the load more even: the threshold stays exceeded")
    return None


def measure(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """How even the load is now."""
    loads = _Loads(after, metrics.get(_query(parameters), {}), parameters["metrics"])
    return {
        "instance_migrations_count": sum(one.action_type == "migrate" and one.state == "SUCCEEDED" for one in done),
        "instances_count": sum(len(after.servers_on[host.hostname]) for host in loads.hosts),
        "standard_deviation_after_audit": loads.deviation(),
    }


STRATEGY = Strategy(
    name="workload_balance",
    display_name="Workload Balance Migration Strategy",
    goal="workload_balancing",
    doc="Moves one server off the host with the largest load above a threshold to the host with the least.",
    schema={
        "properties": {
            "metrics": {
                "description": "What counts as load: processors or memory.",
                "type": "string",
                "enum": [CPU, RAM],
                "default": CPU,
            },
            "threshold": number("Per cent of a host, for those that give and those that take.", 25.0),
            "period": number("Seconds that measurements are of.", 300),
            "granularity": number("Seconds of one point.", 300),
        },
    },
    metrics=_queries,
    propose=propose,
    measure=measure,
)
