"""What strategies share that empty hosts: onto which other hosts, altogether or not at all, and how it turned out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from vedette.model.advice import Metrics
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done, JsonObject
from vedette.strategies._evacuate import Room, called, held

DISABLED = "watcher_disabled"
"""The reason that emptied hosts are disabled for, as Watcher has it."""
HOPELESS = 25
"""Hosts in a row that can't be emptied: then the others, which hold more, can't be either."""

Moves = list[tuple[Server, str]]
"""(server, the host that it goes to), in their order."""


class Load(Protocol):
    """What a strategy counts beside flavors."""

    def fits(self, host: Host, server: Server) -> bool: ...
    def move(self, server: Server, source: str, target: str) -> None: ...
    def of(self, server: Server) -> tuple[float, float]:
        """(processors, MiB): large ones are placed first."""


def why_not(server: Server) -> str:
    """Why it can't leave, as the end of a sentence; "" if it can."""
    if held(server):
        return held(server)
    return "" if server.live or server.status == "SHUTOFF" else f"is {server.status}"


def go(server: Server, target: Host, load: Load, room: Room, moves: Moves) -> None:
    load.move(server, server.host, target.hostname)
    room.take(target, server)
    moves.append((server, target.hostname))


def leavable(snapshot: Snapshot, host: Host, notes: list[str]) -> bool:
    """All of its servers can leave it; else a note says who can't."""
    stays = next((one for one in snapshot.servers_on[host.hostname] if why_not(one)), None)
    if stays is not None:
        notes.append(f"host {host.hostname} can't be emptied: {called(stays)} {why_not(stays)}")
    return stays is None


def emptied_onto(
    snapshot: Snapshot,
    order: Sequence[Host],
    takers: Sequence[Host],
    load: Load,
    room: Room,
    moves: Moves,
    notes: list[str],
    attempts: int = 0,
) -> list[Host]:
    """Hosts that are emptied, in this order, onto the first takers that do; their moves are added to those that are there.

    Who was given something is not emptied; who gave something, and who is empty, is given nothing. `attempts`: hosts in a row
    that can't be emptied, after which it gives up (0: `HOPELESS`).
    """
    gave = {server.host for server, _ in moves}
    received = {name for _, name in moves}
    targets = [host for host in takers if host.hostname not in gave and snapshot.servers_on[host.hostname]]
    emptied: list[Host] = []
    failed = 0
    for host in order:
        servers = snapshot.servers_on[host.hostname]
        if not servers or host.hostname in received or host.hostname in gave or not leavable(snapshot, host, notes):
            continue
        others = [to for to in targets if to is not host]
        planned: Moves = []
        for server in sorted(servers, key=lambda one: (-load.of(one)[0], -one.memory, one.uuid)):
            target = next((to for to in others if load.fits(to, server) and room.takes(to, server)), None)
            if target is None:
                break
            go(server, target, load, room, planned)
        if len(planned) < len(servers):
            for server, name in planned:
                load.move(server, name, server.host)
                room.give_back(snapshot.host[name], server)
            failed += 1
            if failed >= (attempts or HOPELESS):
                break
            continue
        failed = 0
        moves += planned
        emptied.append(host)
        received.update(name for _, name in planned)
        # Neither it nor what has no room for the smallest server is looked at again.
        targets = [to for to in others if not room.full(to)]
    return emptied


def released_of(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """Hosts that took servers, hold none now and take none any more; and servers that were moved."""
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
