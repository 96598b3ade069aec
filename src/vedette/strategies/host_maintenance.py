"""Empties a host that somebody has to work at: it is disabled, and its servers go to a backup host or where Nova puts them.

All of them go to the backup host, or, if it can't take all, none: then the scheduler chooses for each. With both kinds of
migration forbidden, running servers are stopped instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedette.errors import BadRequest
from vedette.model.advice import Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import MAINTAINING, Room, called, disabling, enabling, ended, held, host_named, migration

FROM_TRIGGER = "$trigger"
"""As `maintenance_node`: the first host that the audit's triggers speak of."""


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    host = _maintained(snapshot, parameters["maintenance_node"], triggers)
    backup = _backup(snapshot, parameters.get("backup_node", ""), host)
    notes: list[str] = []
    there = snapshot.servers_on[host.hostname]
    maintained = host.status == "disabled" and host.disabled_reason == MAINTAINING
    if maintained and not there:
        return Solution(notes=(f"host {host.hostname} is empty and disabled for maintenance: nothing is to do",))

    live = not parameters.get("disable_live_migration", False)
    cold = not parameters.get("disable_cold_migration", False)
    leaving: list[tuple[Server, str]] = []
    stopped: list[Server] = []
    for server in there:
        why, how = held(server), _way(server, live, cold)
        if not why and host.state != "up":
            why = f"can't be moved while the host is {host.state}"
        if not why and how == "stop":
            stopped.append(server)
        elif not why and how:
            leaving.append((server, how))
        elif not why and not (live or cold) and server.status == "SHUTOFF":
            continue  # it is as the others will be
        else:
            notes.append(f"{called(server)} {why or _stays(server, live, cold)}: it stays")
    if len(leaving) < len(there):
        notes.insert(0, f"host {host.hostname} won't be empty: {len(there) - len(leaving)} of {len(there)} servers stay on it")

    actions: list[Proposed] = []
    target = ""
    if backup is not None and leaving:
        why_not = _unfit(snapshot, backup, [server for server, _ in leaving])
        if why_not:
            notes.append(f"backup host {backup.hostname} {why_not}: the scheduler finds a host for each server")
        else:
            target = backup.hostname
            if backup.status != "enabled":
                actions.append(enabling(backup))
    if not maintained:
        actions.append(disabling(host, MAINTAINING))
    actions += [migration(server, how, target) for server, how in leaving]
    actions += [Proposed("stop", {"resource_id": server.uuid}) for server in stopped]
    return Solution(actions=tuple(actions), notes=ended(notes))


def _maintained(snapshot: Snapshot, name: str, triggers: Sequence[Trigger]) -> Host:
    if name != FROM_TRIGGER:
        host = host_named(snapshot, name)
        if host is None:
            raise BadRequest(f"maintenance_node: the audit's scope has no host {name!r}")
        return host
    by_id = {one.uuid: one for one in snapshot.hosts}
    for trigger in triggers:
        for named in trigger.objects:
            host = host_named(snapshot, named) or by_id.get(named)
            if host is not None:
                return host
    raise BadRequest(
        f"maintenance_node is {FROM_TRIGGER}, and "
        + (
            "none of the triggers names a host of the audit's scope"
            if triggers
            else "nothing triggered this run: give a host's name"
        )
    )


def _backup(snapshot: Snapshot, name: str, host: Host) -> Host | None:
    if not name:
        return None
    backup = host_named(snapshot, name)
    if backup is None:
        raise BadRequest(f"backup_node: the audit's scope has no host {name!r}")
    if backup.hostname == host.hostname:
        raise BadRequest(f"backup_node is {name!r}, the host that is maintained: give another, or none")
    return backup


def _way(server: Server, live: bool, cold: bool) -> str:
    """How it leaves: live, cold, stop; "" not at all."""
    match server.status:
        case "ACTIVE":
            return "live" if live else "cold" if cold else "stop"
        case "PAUSED":
            return "live" if live else ""
        case "SHUTOFF":
            return "cold" if cold else ""
    return ""


def _stays(server: Server, live: bool, cold: bool) -> str:
    match server.status:
        case "PAUSED":
            return "is PAUSED and could only be migrated live, which disable_live_migration forbids"
        case "SHUTOFF":
            return "is SHUTOFF and could only be migrated cold, which disable_cold_migration forbids"
    return f"is {server.status}, and Nova migrates none in that state"


def _unfit(snapshot: Snapshot, backup: Host, servers: Sequence[Server]) -> str:
    """Why the backup can't take them all, as the end of a sentence; "" if it can."""
    if backup.state != "up":
        return f"is {backup.state}"
    pinned = next((one for one in servers if one.pinned_zone not in ("", backup.zone)), None)
    if pinned is not None:
        return f"is in zone {backup.zone}, and {called(pinned)} has to stay in {pinned.pinned_zone}"
    missing = Room(snapshot).missing(backup, servers)
    return f"has too little {missing} for all {len(servers)} servers" if missing else ""


STRATEGY = Strategy(
    name="host_maintenance",
    display_name="Host Maintenance Strategy",
    goal="cluster_maintaining",
    doc="Disables a host and moves its servers away, to a backup host or where Nova puts them, so that somebody can work at it.",
    schema={
        "properties": {
            "maintenance_node": {
                "description": "The name of the host that needs maintenance; `$trigger`: the first one that the audit's triggers "
                "speak of.",
                "type": "string",
            },
            "backup_node": {
                "description": "The name of the host that takes its servers; without it, Nova's scheduler chooses.",
                "type": "string",
            },
            "disable_live_migration": {
                "description": "No live migrations: running servers are migrated cold, or stopped if that is disabled too.",
                "type": "boolean",
                "default": False,
            },
            "disable_cold_migration": {
                "description": "No cold migrations: servers that don't run stay.",
                "type": "boolean",
                "default": False,
            },
        },
        "required": ["maintenance_node"],
    },
    propose=propose,
)
