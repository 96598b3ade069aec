"""Empties hosts with little processor load onto hosts with much, one after the other, and disables them.

Load is measured, of hosts and of servers; room is what flavors leave. Only what runs is moved; a host without data takes no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vedette.model.advice import Metrics, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._consolidate import DISABLED, Moves, emptied_onto, released_of
from vedette.strategies._evacuate import Room, called, disabling, ended, migration
from vedette.strategies._measured import known, number


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    """Of hosts, and of servers."""
    said = parameters["aggregation_method"]
    # `node` is what Watcher used to call `compute_node`.
    of_hosts = said.get("node") or said.get("compute_node", "mean")
    period, granularity = int(parameters["period"]), int(parameters["granularity"])
    return [
        Query("host_cpu_usage", _aggregate(of_hosts), period, granularity),
        Query("instance_cpu_usage", _aggregate(said.get("instance", "mean")), period, granularity),
    ]


def _aggregate(how: str) -> Any:
    return how if how in ("mean", "min", "max", "count") else "mean"


class _Use:
    """Processors in use."""

    def __init__(self, snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, notes: list[str]) -> None:
        of_hosts, of_servers = (metrics.get(query, {}) for query in _queries(snapshot, parameters))
        self._of = {one.uuid: known(of_servers, one.uuid) for one in snapshot.servers}
        self.hosts: dict[str, float] = {}
        for host in snapshot.hosts:
            share = known(of_hosts, host.hostname)
            if not host.usable or not snapshot.servers_on[host.hostname]:
                continue
            if share is None:
                notes.append(f"host {host.hostname} takes no part: no data of it")
            else:
                self.hosts[host.hostname] = share / 100 * host.vcpus

    def measured(self, server: Server) -> bool:
        return self._of[server.uuid] is not None

    def of(self, server: Server) -> tuple[float, float]:
        share = self._of[server.uuid]
        return (0.0 if share is None else share / 100 * server.vcpus), 0.0

    def fits(self, host: Host, server: Server) -> bool:
        return self.hosts[host.hostname] + self.of(server)[0] <= host.vcpus

    def move(self, server: Server, source: str, target: str) -> None:
        used, _ = self.of(server)
        self.hosts[source] -= used
        self.hosts[target] += used


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    notes: list[str] = []
    use, room, moves = _Use(snapshot, metrics, parameters, notes), Room(snapshot), Moves()
    usable = [host for host in snapshot.hosts if host.usable]
    measured = [host for host in usable if host.hostname in use.hosts]
    measured.sort(key=lambda host: (use.hosts[host.hostname] / (host.vcpus or 1), host.hostname))
    order = [host for host in measured if not _holds(snapshot, host, use, notes)]
    attempts = int(parameters["migration_attempts"])
    emptied = emptied_onto(snapshot, order, measured[::-1], use, room, moves, notes, attempts)
    actions = [migration(server, "live", target) for server, target in moves]
    actions += [disabling(host, DISABLED) for host in sorted(emptied, key=lambda host: host.hostname)]
    indicators: dict[str, float] = {
        "compute_nodes_count": len(usable),
        "released_compute_nodes_count": len(emptied),
        "instance_migrations_count": len(moves),
    }
    return Solution(actions=tuple(actions), indicators=indicators, notes=ended(notes))


def _holds(snapshot: Snapshot, host: Host, use: _Use, notes: list[str]) -> bool:
    """Somebody on it isn't measured, or doesn't run: it isn't emptied."""
    for server in snapshot.servers_on[host.hostname]:
        why = "does not run" if not server.live else "" if use.measured(server) else "has no data"
        if why:
            notes.append(f"host {host.hostname} can't be emptied: {called(server)} {why}")
            return True
    return False


_HOW = {"type": "string", "default": "mean"}

STRATEGY = Strategy(
    name="basic",
    display_name="Basic offline consolidation",
    goal="server_consolidation",
    doc="Empties hosts with little processor load onto hosts with much, and disables them.",
    schema={
        "properties": {
            "migration_attempts": number("Hosts in a row that can't be emptied, after which it gives up; 0: a bound of ours.", 0),
            "period": number("Seconds that measurements are of.", 7200),
            "granularity": number("Seconds of one point.", 300),
            "aggregation_method": {
                "description": "How several points become one: mean, min, max or count.",
                "type": "object",
                "properties": {"instance": _HOW, "compute_node": _HOW, "node": {"type": "string", "default": ""}},
                "default": {"instance": "mean", "compute_node": "mean", "node": ""},
            },
        },
    },
    metrics=_queries,
    propose=propose,
    measure=released_of,
)
