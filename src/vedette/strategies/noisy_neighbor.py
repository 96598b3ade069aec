"""Moves away who takes the last-level cache from a server that matters more: one server off one host.

A server suffers that has lost more of its cache than the threshold since the period before; it is noisy if it has gained as much
meanwhile, on the same host, and does not matter more (metadata `watcher-priority`; 5 where there is none; small numbers matter
most).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vedette.model.advice import Metrics, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, ended, held, migration
from vedette.strategies._measured import first_that_takes, known, number

PRIORITY = 5
"""Of a server that has none, as in Watcher."""
GRANULARITY = 300


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    """The last period, and the last two together: so the one before is known."""
    return [Query("instance_l3_cache_usage", "mean", int(parameters["period"] * n), GRANULARITY) for n in (1, 2)]


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    changes = _changes(snapshot, metrics, parameters)
    notes: list[str] = []
    unknown = sum(server.status == "ACTIVE" and server.uuid not in changes for server in snapshot.servers)
    if unknown:
        notes.append(f"{unknown} servers take no part: no data of their cache")
    lost = 1 - parameters["cache_threshold"] / 100
    gained = 1 + parameters["cache_threshold"] / 100
    pairs = [
        (*pair, host)
        for host in snapshot.hosts
        if host.state == "up" and (pair := _pair(snapshot, host, changes, lost, gained, notes))
    ]
    # Who matters most is helped first.
    pairs.sort(key=lambda pair: (priority(pair[0]), pair[0].uuid))
    troubled = {host.hostname for _, _, host in pairs}
    quiet = [host for host in snapshot.hosts if host.usable and host.hostname not in troubled]
    quiet.sort(key=lambda host: (len(snapshot.servers_on[host.hostname]), host.hostname))
    room = Room(snapshot)
    for suffers, noisy, host in pairs:
        target = first_that_takes((one for one in quiet if one is not host), noisy, room)
        if target is not None:
            notes.append(f"{called(noisy)} takes the cache of {called(suffers)} on {host.hostname}")
            return Solution(actions=(migration(noisy, "live", target.hostname),), notes=ended(notes))
        notes.append(f"{called(noisy)} takes the cache of {called(suffers)}, and no other host has room for it")
    return Solution(notes=ended(notes))


def _changes(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject) -> dict[str, tuple[float, float]]:
    """Server → (its cache in the last period, in the one before)."""
    last, both = (metrics.get(query, {}) for query in _queries(snapshot, parameters))
    found: dict[str, tuple[float, float]] = {}
    for server in snapshot.servers:
        now, together = known(last, server.uuid), known(both, server.uuid)
        # Both spans have to be of the same points: where they are not, the span before may come out below 0, which is no data.
        if now is not None and together is not None and 2 * together >= now:
            found[server.uuid] = (now, 2 * together - now)
    return found


def priority(server: Server) -> float:
    """What its metadata says, if it says a number."""
    said = server.metadata.get("watcher-priority")
    try:
        found = float(PRIORITY if said is None else said)
    except (TypeError, ValueError, OverflowError):
        return float(PRIORITY)
    return found if math.isfinite(found) else float(PRIORITY)


def _pair(
    snapshot: Snapshot, host: Host, changes: Mapping[str, tuple[float, float]], lost: float, gained: float, notes: list[str]
) -> tuple[Server, Server] | None:
    """(who suffers, who is noisy) on this host: of those who suffer who matters most, of the noisy ones who matters least."""
    measured = [one for one in snapshot.servers_on[host.hostname] if one.uuid in changes]
    measured.sort(key=lambda one: (priority(one), one.uuid))
    suffers = next((one for one in measured if changes[one.uuid][0] < lost * changes[one.uuid][1]), None)
    if suffers is None:
        return None
    for one in reversed(measured):
        now, before = changes[one.uuid]
        if priority(one) < priority(suffers):
            break
        if one is suffers or one.status != "ACTIVE" or now <= gained * before:
            continue
        if held(one):
            notes.append(f"{called(one)} stays: it {held(one)}")
            continue
        return suffers, one
    return None


STRATEGY = Strategy(
    name="noisy_neighbor",
    display_name="Noisy Neighbor",
    goal="noisy_neighbor",
    doc="Moves away the server that takes the last-level cache from one on the same host that matters more.",
    schema={
        "properties": {
            "cache_threshold": number("Per cent of its cache that a server has to lose, and another to gain.", 35.0),
            "period": number("Seconds that are compared with the same span before.", 100.0),
        },
    },
    metrics=_queries,
    propose=propose,
)
