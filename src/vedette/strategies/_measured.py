"""What strategies share that go by one measurement of hosts: those above a threshold, those below, and where a server may go."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vedette.model.snapshot import Host, Server, Snapshot
from vedette.strategies._evacuate import Room, called, held


def known(values: Mapping[str, float], id_: str) -> float | None:
    """None: it was not measured. NaN and infinity are no measurements."""
    value = values.get(id_)
    return value if value is not None and math.isfinite(value) else None


def divided(
    snapshot: Snapshot, values: Mapping[str, float], threshold: float, what: str, notes: list[str]
) -> tuple[list[Host], list[Host]]:
    """(hosts at the threshold or above it, the highest first; hosts below it, the lowest first), of those that are enabled and
    up. A host without data is in neither."""
    measured: dict[str, float] = {}
    for host in snapshot.hosts:
        value = known(values, host.hostname)
        if not host.usable:
            continue
        if value is None:
            notes.append(f"host {host.hostname} takes no part: no {what} of it")
        else:
            measured[host.hostname] = value
    by_value = sorted(measured, key=lambda name: (measured[name], name))
    above = [snapshot.host[name] for name in reversed(by_value) if measured[name] >= threshold]
    return above, [snapshot.host[name] for name in by_value if measured[name] < threshold]


def running(snapshot: Snapshot, host: Host, notes: list[str]) -> list[Server]:
    """Those of its servers that run and may be moved; the others that run are noted."""
    found: list[Server] = []
    for server in snapshot.servers_on[host.hostname]:
        if server.status != "ACTIVE":
            continue
        if held(server):
            notes.append(f"{called(server)} stays: it {held(server)}")
        else:
            found.append(server)
    return found


def first_that_takes(hosts: Iterable[Host], server: Server, room: Room) -> Host | None:
    """As `Room.takes` has it, without its way over names: where nothing fits, millions of pairs are looked at."""
    vcpus, memory, disk, zone = server.vcpus, server.memory, server.disk, server.pinned_zone
    for host in hosts:
        if zone and zone != host.zone:
            continue
        left = room.left(host)
        if (vcpus <= left[0] or not vcpus) and (memory <= left[1] or not memory) and (disk <= left[2] or not disk):
            return host
    return None


def number(description: str, default: float, **more: Any) -> dict[str, Any]:
    """A parameter's schema."""
    return {"description": description, "type": "number", "default": default, **more}


def deviation(shares: Sequence[float]) -> float:
    """The standard deviation of these."""
    if not shares:
        return 0.0
    mean = math.fsum(shares) / len(shares)
    return math.sqrt(math.fsum((one - mean) ** 2 for one in shares) / len(shares))
