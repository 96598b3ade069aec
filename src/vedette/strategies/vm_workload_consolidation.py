"""Relieves hosts that are overloaded, then empties hosts with little load onto hosts with much, and disables what is empty.

A host counts by what its servers use, as far as that was measured, and by their flavors where it wasn't. It is given no more than
it has by either. A host is emptied altogether or not at all: half-emptied ones help nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vedette.model.advice import MetricName, Metrics, Proposed, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._consolidate import DISABLED, Moves, emptied_onto, go, released_of, why_not
from vedette.strategies._evacuate import Room, disabling, ended, migration

_METRICS: tuple[MetricName, ...] = ("instance_cpu_usage", "instance_ram_usage", "host_cpu_usage", "host_ram_usage")


def _query(metric: MetricName, parameters: JsonObject) -> Query:
    return Query(metric, "mean", int(parameters["period"]), int(parameters["granularity"]), optional=True)


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    return [_query(metric, parameters) for metric in _METRICS]


class _Use:
    """What servers use of their hosts: processors and MiB."""

    def __init__(self, snapshot: Snapshot, metrics: Metrics, parameters: JsonObject) -> None:
        cpu, ram, of_host_cpu, of_host_ram = (metrics.get(_query(metric, parameters), {}) for metric in _METRICS)
        self.by_flavor = 0
        self._of: dict[str, tuple[float, float]] = {}
        for server in snapshot.servers:
            share, used = cpu.get(server.uuid), ram.get(server.uuid)
            self.by_flavor += share is None or used is None
            off = server.status == "SHUTOFF"
            self._of[server.uuid] = (
                (0.0 if off else float(server.vcpus)) if share is None else share / 100 * server.vcpus,
                (0.0 if off else float(server.memory)) if used is None else used,
            )
        self.hosts: dict[str, list[float]] = {}
        for host in snapshot.hosts:
            on = [self._of[server.uuid] for server in snapshot.servers_on[host.hostname]]
            # What is not a server's is used as well.
            self.hosts[host.hostname] = [
                max(sum(one[0] for one in on), of_host_cpu.get(host.hostname, 0.0) / 100 * host.vcpus),
                max(sum(one[1] for one in on), of_host_ram.get(host.hostname, 0.0)),
            ]

    def of(self, server: Server) -> tuple[float, float]:
        return self._of[server.uuid]

    def overloaded(self, host: Host) -> bool:
        cpu, ram = self.hosts[host.hostname]
        return cpu > host.vcpus or ram > host.memory

    def fits(self, host: Host, server: Server) -> bool:
        (cpu, ram), (more_cpu, more_ram) = self.hosts[host.hostname], self._of[server.uuid]
        return cpu + more_cpu <= host.vcpus and ram + more_ram <= host.memory

    def move(self, server: Server, source: str, target: str) -> None:
        cpu, ram = self._of[server.uuid]
        for name, sign in ((source, -1), (target, 1)):
            self.hosts[name][0] += sign * cpu
            self.hosts[name][1] += sign * ram

    def share(self, host: Host) -> float:
        """Of the processors."""
        return self.hosts[host.hostname][0] / host.vcpus if host.vcpus else 0.0


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    use, room = _Use(snapshot, metrics, parameters), Room(snapshot)
    usable = [host for host in snapshot.hosts if host.usable]
    notes: list[str] = []
    if use.by_flavor and snapshot.servers:
        notes.append(f"{use.by_flavor} of {len(snapshot.servers)} servers count by their flavors: no data of them")
    moves = _relieve(snapshot, usable, use, room, notes)
    order = sorted(usable, key=lambda host: (use.share(host), len(snapshot.servers_on[host.hostname]), host.hostname))
    emptied = emptied_onto(snapshot, order, order[::-1], use, room, moves, notes)
    released = [*(host for host in usable if not snapshot.servers_on[host.hostname]), *emptied]
    actions: list[Proposed] = [migration(server, "live" if server.live else "cold", target) for server, target in moves]
    actions += [disabling(host, DISABLED) for host in sorted(released, key=lambda host: host.hostname)]
    indicators: dict[str, float] = {
        "compute_nodes_count": len(usable),
        "released_compute_nodes_count": len(released),
        "instance_migrations_count": len(moves),
    }
    return Solution(actions=tuple(actions), indicators=indicators, notes=ended(notes))


def _relieve(snapshot: Snapshot, usable: Sequence[Host], use: _Use, room: Room, notes: list[str]) -> Moves:
    """Servers off hosts that are overloaded, those that use least first, to the fullest host that takes them. An empty one stays
    empty: fewer hosts are what was asked for."""
    moves: Moves = []
    overloaded = [host for host in usable if use.overloaded(host)]
    others = [host for host in usable if snapshot.servers_on[host.hostname] and not use.overloaded(host)]
    for host in overloaded:
        for server in sorted(snapshot.servers_on[host.hostname], key=lambda one: (use.of(one)[0], one.uuid)):
            if not use.overloaded(host):
                break
            if why_not(server):
                continue
            target = next((to for to in _fullest(others, use) if use.fits(to, server) and room.takes(to, server)), None)
            if target is not None:
                go(server, target, use, room, moves)
        if use.overloaded(host):
            notes.append(f"host {host.hostname} stays overloaded: no other host with servers takes more of its servers")
    return moves


def _fullest(hosts: Sequence[Host], use: _Use) -> list[Host]:
    return sorted(hosts, key=lambda host: (-use.share(host), host.hostname))


def _seconds(description: str, default: int) -> dict[str, Any]:
    return {"description": description, "type": "number", "default": default}


STRATEGY = Strategy(
    name="vm_workload_consolidation",
    display_name="VM Workload Consolidation Strategy",
    goal="server_consolidation",
    doc="Relieves hosts that are overloaded, then packs servers onto few hosts and disables those that are empty.",
    schema={
        "properties": {
            "period": _seconds("Seconds that measurements are of.", 3600),
            "granularity": _seconds("Seconds of one point.", 300),
        },
    },
    metrics=_queries,
    propose=propose,
    measure=released_of,
)
