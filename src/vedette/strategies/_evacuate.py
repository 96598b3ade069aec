"""What strategies share that empty a host: may a server leave, and how; how much room is left where it goes; notes that end."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from vedette.model.advice import Proposed
from vedette.model.snapshot import Host, Server, Snapshot

MOST_NOTES = 100
LONGEST_NOTE = 400
"""Characters."""
MAINTAINING = "watcher_maintaining"
"""The reason a host is disabled for, as Watcher has it."""


def host_named(snapshot: Snapshot, name: str) -> Host | None:
    """By its own name, or by that of its nova-compute if only one host has that."""
    found = snapshot.host.get(name)
    if found is None:
        of_service = [one for one in snapshot.hosts if one.service_host == name]
        found = of_service[0] if len(of_service) == 1 else None
    return found


def held(server: Server) -> str:
    """Why nobody may touch it, as the end of a sentence; "" if one may."""
    if server.excluded:
        return "is left out by the audit's scope"
    if server.locked:
        return "is locked"
    return f"is busy ({server.task_state})" if server.task_state else ""


def called(server: Server) -> str:
    """For a note."""
    return f"server {server.name} ({server.uuid})" if server.name else f"server {server.uuid}"


def migration(server: Server, how: str, target: str = "") -> Proposed:
    """`how`: live or cold. Without a target Nova's scheduler finds one."""
    parameters: dict[str, Any] = {"resource_id": server.uuid, "migration_type": how, "source_node": server.host}
    if target:
        parameters["destination_node"] = target
    if server.name:
        parameters["resource_name"] = server.name
    return Proposed("migrate", parameters)


def enabling(host: Host) -> Proposed:
    return Proposed("change_nova_service_state", {"resource_id": host.uuid, "resource_name": host.hostname, "state": "enabled"})


def disabling(host: Host, reason: str) -> Proposed:
    parameters = {"resource_id": host.uuid, "resource_name": host.hostname, "state": "disabled", "disabled_reason": reason}
    return Proposed("change_nova_service_state", parameters)


class Room:
    """What hosts have left, while servers are given to them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._left: dict[str, list[float]] = {}

    def missing(self, host: Host, servers: Sequence[Server]) -> str:
        """What there is too little of for all of these; "" if they fit. A server that needs none of a thing fits where there is
        none left of it."""
        left = self.left(host)
        for at, what in enumerate(("vCPUs", "memory", "disk")):
            need = sum((one.vcpus, one.memory, one.disk)[at] for one in servers)
            if need and need > left[at]:
                return what
        return ""

    def takes(self, host: Host, server: Server) -> bool:
        """It fits, and it may be in that zone."""
        return server.pinned_zone in ("", host.zone) and not self.missing(host, (server,))

    def take(self, host: Host, server: Server) -> None:
        left = self.left(host)
        for at, much in enumerate((server.vcpus, server.memory, server.disk)):
            left[at] -= much

    def give_back(self, host: Host, server: Server) -> None:
        """It was only tried."""
        left = self.left(host)
        for at, much in enumerate((server.vcpus, server.memory, server.disk)):
            left[at] += much

    def full(self, host: Host) -> bool:
        """Not even the smallest server there can be fits."""
        left = self.left(host)
        return left[0] < 1 or left[1] < 1

    def left(self, host: Host) -> list[float]:
        """vCPUs, MiB, GiB. Not to be changed."""
        left = self._left.get(host.hostname)
        if left is None:
            on = self._snapshot.servers_on.get(host.hostname, ())
            left = self._left[host.hostname] = [
                host.vcpus_capacity - sum(one.vcpus for one in on),
                host.memory_capacity - sum(one.memory for one in on),
                host.disk_capacity - sum(one.disk for one in on),
            ]
        return left


def ended(notes: Iterable[str]) -> tuple[str, ...]:
    """As many as are kept, the last one saying how many there are besides."""
    every = [note if len(note) <= LONGEST_NOTE else note[: LONGEST_NOTE - 1] + "…" for note in notes]
    if len(every) <= MOST_NOTES:
        return tuple(every)
    return (*every[: MOST_NOTES - 1], f"and {len(every) - MOST_NOTES + 1} more like these")
