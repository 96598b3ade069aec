"""Relieves hosts that are overloaded, then empties hosts with little load onto hosts with much, and disables what is empty.

A host counts by what its servers use, as far as that was measured, and by their flavors where it wasn't. It is given no more than
it has by either. A host is emptied altogether or not at all: half-emptied ones help nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vedette.model.advice import MetricName, Metrics, Proposed, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done, JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, disabling, ended, held, migration

DISABLED = "watcher_disabled"
"""The reason that emptied hosts are disabled for, as Watcher has it."""
HOPELESS = 25
"""Hosts in a row that can't be emptied: then the others, which hold more, can't be either."""

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
    given = {target for _, target in moves}
    taken = {server.host for server, _ in moves}
    emptied = _empty(snapshot, usable, use, room, given, taken, moves, notes)
    unused = [host for host in usable if not snapshot.servers_on[host.hostname] and host.hostname not in {to for _, to in moves}]
    released = [*unused, *emptied]
    actions: list[Proposed] = [migration(server, "live" if server.live else "cold", target) for server, target in moves]
    actions += [disabling(host, DISABLED) for host in sorted(released, key=lambda host: host.hostname)]
    indicators: dict[str, float] = {
        "compute_nodes_count": len(usable),
        "released_compute_nodes_count": len(released),
        "instance_migrations_count": len(moves),
    }
    return Solution(actions=tuple(actions), indicators=indicators, notes=ended(notes))


Moves = list[tuple[Server, str]]


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
            if _why_not(server):
                continue
            target = next((to for to in _fullest(others, use) if _takes(to, server, use, room)), None)
            if target is not None:
                _go(server, target, use, room, moves)
        if use.overloaded(host):
            notes.append(f"host {host.hostname} stays overloaded: no other host with servers takes more of its servers")
    return moves


def _empty(
    snapshot: Snapshot,
    usable: Sequence[Host],
    use: _Use,
    room: Room,
    given: set[str],
    taken: set[str],
    moves: Moves,
    notes: list[str],
) -> list[Host]:
    """Hosts that are emptied, least load first; their moves are added. One that was given something is not emptied."""
    order = sorted(usable, key=lambda host: (use.share(host), len(snapshot.servers_on[host.hostname]), host.hostname))
    # Who was overloaded is given nothing.
    targets = [host for host in reversed(order) if host.hostname not in taken and snapshot.servers_on[host.hostname]]
    received, emptied, hopeless = set(given), [], 0
    for host in order:
        servers = snapshot.servers_on[host.hostname]
        if not servers or host.hostname in received or host.hostname in taken:
            continue
        stays = next((one for one in servers if _why_not(one)), None)
        if stays is not None:
            notes.append(f"host {host.hostname} can't be emptied: {called(stays)} {_why_not(stays)}")
            continue
        others = [to for to in targets if to is not host]
        planned: Moves = []
        for server in sorted(servers, key=lambda one: (-use.of(one)[0], -one.memory, one.uuid)):
            target = next((to for to in others if _takes(to, server, use, room)), None)
            if target is None:
                break
            _go(server, target, use, room, planned)
        if len(planned) < len(servers):
            for server, name in planned:
                use.move(server, name, server.host)
                room.give_back(snapshot.host[name], server)
            hopeless += 1
            if hopeless >= HOPELESS:
                break
            continue
        hopeless = 0
        moves += planned
        emptied.append(host)
        received.update(name for _, name in planned)
        # Neither it nor what has no room for the smallest server is looked at again.
        targets = [to for to in others if not room.full(to)]
    return emptied


def _fullest(hosts: Sequence[Host], use: _Use) -> list[Host]:
    return sorted(hosts, key=lambda host: (-use.share(host), host.hostname))


def _takes(host: Host, server: Server, use: _Use, room: Room) -> bool:
    return use.fits(host, server) and room.takes(host, server)


def _go(server: Server, target: Host, use: _Use, room: Room, moves: Moves) -> None:
    use.move(server, server.host, target.hostname)
    room.take(target, server)
    moves.append((server, target.hostname))


def _why_not(server: Server) -> str:
    if held(server):
        return held(server)
    return "" if server.live or server.status == "SHUTOFF" else f"is {server.status}"


def measure(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """Hosts that took servers and take none any more, and servers that were moved."""
    usable = [host for host in before.hosts if host.usable]
    released = sum(
        1
        for host in usable
        if not after.servers_on.get(host.hostname) and host.hostname in after.host and not after.host[host.hostname].usable
    )
    moved = sum(one.action_type == "migrate" and one.state == "SUCCEEDED" for one in done)
    return {
        "compute_nodes_count": len(usable),
        "released_compute_nodes_count": released,
        "instance_migrations_count": moved,
    }


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
    measure=measure,
)
