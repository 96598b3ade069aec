"""Moves servers off hosts and volumes off storage pools, some at a time, for work at the hardware below them.

A plan holds no more than `parallel_total` moves, and no more than `parallel_per_node` and `parallel_per_pool` from one host and
one pool; what is left waits for the next run (a CONTINUOUS audit goes on until nothing is left). Volumes come first. Who comes
first among servers and among volumes is told by `priority`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from vedette.model.advice import Done, Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot, Volume
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import Room, called, ended, held, host_named, migration
from vedette.strategies._storage import free, stuck

_COUNTS = ("live_migrate_instance", "cold_migrate_instance", "volume_migrate", "volume_update")


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    run = _Run(snapshot, parameters)
    servers, volumes = run.servers(), run.volumes()
    along = {server.uuid: server for server in servers} if parameters.get("with_attached_volume", False) else {}
    left = Counter(one for volume in volumes for one in volume.servers)
    for volume in volumes:
        run.move_volume(volume)
        left.subtract(volume.servers)
        for one in volume.servers:
            # After the last of its volumes: while a server moves, Nova takes no other volume for it.
            if one in along and not left[one] and one in run.volumes_of:
                run.move_server(along[one], early=True)
    for server in servers:
        run.move_server(server)
    if run.waiting:
        run.notes.append(f"{run.waiting} more have to wait for another run: the limits of one plan are reached")
    planned = run.counts
    indicators: dict[str, float] = {f"planned_{name}_count": planned[name] for name in _COUNTS}
    # What is foretold is that all of it succeeds; `measure` tells what did.
    indicators |= {f"{name}_count": planned[name] for name in _COUNTS}
    return Solution(actions=tuple(run.actions), indicators=indicators, notes=ended(run.notes))


def measure(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """How many were planned of each, and how many succeeded."""
    attached = {one.uuid for one in before.volumes if one.status == "in-use"}
    found: dict[str, float] = {f"{kind}{name}_count": 0 for name in _COUNTS for kind in ("", "planned_")}
    for one in done:
        if one.action_type == "migrate":
            name = "live_migrate_instance" if one.parameters.get("migration_type") == "live" else "cold_migrate_instance"
        elif one.action_type == "volume_migrate":
            name = "volume_update" if one.parameters.get("resource_id") in attached else "volume_migrate"
        else:
            continue
        found[f"planned_{name}_count"] += 1
        found[f"{name}_count"] += one.state == "SUCCEEDED"
    return found


class _Run:
    """One plan while it is made."""

    def __init__(self, snapshot: Snapshot, parameters: JsonObject) -> None:
        self._snapshot, self._parameters = snapshot, parameters
        self._room = Room(snapshot)
        self._pool_room = {one.name: free(one) for one in snapshot.pools}
        self._types = {one.name for one in snapshot.volume_types}
        self._from: dict[str, int] = {}
        """Host or pool → how many leave it."""
        self._seen: set[str] = set()
        self.volumes_of: dict[str, list[int]] = {}
        """Server → places of the actions that move its volumes: it goes after them."""
        self.actions: list[Proposed] = []
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.notes: list[str] = []
        self.waiting = 0

        self._targets: dict[str, tuple[str, Host | None]] = {}
        """Source host → destination, as it was named ("": the scheduler finds one) and as it is. The first of two holds."""
        for one in parameters.get("compute_nodes") or ():
            host = host_named(snapshot, one["src_node"])
            if host is None:
                self.notes.append(f"the audit's scope has no host {one['src_node']}: none leaves it")
            elif host.state != "up":
                self.notes.append(f"host {host.hostname} is {host.state}: its servers can't be migrated")
            else:
                to = one.get("dst_node") or ""
                self._targets.setdefault(host.hostname, (to, host_named(snapshot, to) if to else None))

    # --- who ---

    def servers(self) -> list[Server]:
        """Those that may leave, by their priority; of the others the notes tell."""
        found: list[Server] = []
        for name in self._targets:
            for server in self._snapshot.servers_on[name]:
                why = held(server)
                if not why and not server.live and server.status != "SHUTOFF":
                    why = f"is {server.status}, and Nova migrates none in that state"
                if why:
                    self.notes.append(f"{called(server)} {why}: it stays on {name}")
                else:
                    found.append(server)
        priority = self._parameters.get("priority") or {}
        project, node = _rank(priority.get("project")), _rank(priority.get("compute_node"))
        size = _SERVER_SIZE[priority.get("compute", "")]
        found.sort(key=lambda one: (project(one.project), node(one.host), size(one)))
        return found

    def volumes(self) -> list[Volume]:
        wanted: dict[str, list[JsonObject]] = {}
        for one in self._parameters.get("storage_pools") or ():
            if one["src_pool"] not in self._snapshot.pool:
                self.notes.append(f"the audit's scope has no pool {one['src_pool']}: none leaves it")
            wanted.setdefault(one["src_pool"], []).append(one)
        found = [
            volume
            for name, rules in wanted.items()
            for volume in self._snapshot.volumes_in.get(name, ())
            if any(rule.get("src_type") in (None, volume.type) for rule in rules)
        ]
        priority = self._parameters.get("priority") or {}
        project, pool = _rank(priority.get("project")), _rank(priority.get("storage_pool"))
        size = _VOLUME_SIZE[priority.get("storage", "")]
        found.sort(key=lambda one: (project(one.project), pool(one.pool), size(one)))
        return found

    # --- where to ---

    def move_server(self, server: Server, early: bool = False) -> None:
        """`early`: it will be asked for once more."""
        if server.uuid in self._seen:
            return
        name, host = self._targets[server.host]
        why = self._unfit(server, name, host) if name else ""
        if why:
            self._seen.add(server.uuid)
            self.notes.append(f"{called(server)} stays on {server.host}: {why}")
            return
        if self._full(server.host, "parallel_per_node"):
            if not early:
                self.waiting += 1
            return
        self._seen.add(server.uuid)
        how = "live" if server.live else "cold"
        if host is not None:
            self._room.take(host, server)
        move = migration(server, how, host.hostname if host is not None else "")
        self._add(server.host, msgspec.structs.replace(move, after=tuple(self.volumes_of.get(server.uuid, ()))))
        self.counts[f"{how}_migrate_instance"] += 1

    def move_volume(self, volume: Volume) -> None:
        pool, type_ = self._destination(volume)
        why = stuck(self._snapshot, volume) or self._homeless(volume, pool, type_)
        if why:
            self.notes.append(f"volume {volume.name or volume.uuid} stays in {volume.pool}: {why}")
            return
        if self._full(volume.pool, "parallel_per_pool"):
            self.waiting += 1
            return
        parameters: dict[str, Any] = {"resource_id": volume.uuid}
        if type_:
            parameters |= {"migration_type": "retype", "destination_type": type_}
        else:
            parameters |= {"migration_type": "migrate", "destination_node": pool}
            self._pool_room[pool] -= volume.size
        if volume.name:
            parameters["resource_name"] = volume.name
        for one in volume.servers:
            self.volumes_of.setdefault(one, []).append(len(self.actions))
        self._add(volume.pool, Proposed("volume_migrate", parameters))
        self.counts["volume_update" if volume.status == "in-use" else "volume_migrate"] += 1

    def _destination(self, volume: Volume) -> tuple[str, str]:
        """(pool, type): one of them, or neither. An entry that names the volume's type goes before one that names none."""
        of_pool = [one for one in self._parameters["storage_pools"] if one["src_pool"] == volume.pool]
        exact = [one for one in of_pool if one.get("src_type") == volume.type]
        one = (exact or [one for one in of_pool if one.get("src_type") is None])[0]
        type_ = one.get("dst_type", "")
        return one.get("dst_pool", ""), "" if type_ == volume.type else type_

    def _unfit(self, server: Server, name: str, host: Host | None) -> str:
        if host is None:
            return f"the audit's scope has no host {name}"
        if host.hostname == server.host:
            return "it would go to where it is"
        if not host.usable:
            return f"host {name} is {host.status} and {host.state}"
        if server.pinned_zone not in ("", host.zone):
            return f"host {name} is in zone {host.zone}, and it has to stay in {server.pinned_zone}"
        missing = self._room.missing(host, [server])
        return f"host {name} has too little {missing}" if missing else ""

    def _homeless(self, volume: Volume, name: str, type_: str) -> str:
        if type_:
            return "" if type_ in self._types else f"there is no volume type {type_}"
        if not name:
            return f"it is of type {volume.type} already, and no dst_pool is given"
        pool = self._snapshot.pool.get(name)
        if pool is None:
            return f"the audit's scope has no pool {name}"
        if name == volume.pool:
            return "it would go to where it is"
        if pool.status != "enabled" or pool.state != "up":
            return f"pool {name} is {pool.status} and {pool.state}"
        if volume.size > self._pool_room[name]:
            return f"pool {name} has too little room"
        return ""

    # --- how many ---

    def _full(self, source: str, limit: str) -> bool:
        in_all: int = self._parameters["parallel_total"]
        of_one: int = self._parameters[limit]
        return len(self.actions) >= in_all or self._from.get(source, 0) >= of_one

    def _add(self, source: str, action: Proposed) -> None:
        self.actions.append(action)
        self._from[source] = self._from.get(source, 0) + 1


def _rank(names: Sequence[str] | None) -> Callable[[str], int]:
    """The place in the list; who isn't in it comes after."""
    places = {name: at for at, name in reversed(list(enumerate(names or ())))}
    return lambda name: places.get(name, len(places))


_LAST = "~"
"""Sorts behind every time."""
_SERVER_SIZE: dict[str, Callable[[Server], Any]] = {
    "": lambda server: 0,
    "vcpu_num": lambda server: -server.vcpus,
    "mem_size": lambda server: -server.memory,
    "disk_size": lambda server: -server.disk,
    "created_at": lambda server: server.created or _LAST,
}
_VOLUME_SIZE: dict[str, Callable[[Volume], Any]] = {
    "": lambda volume: 0,
    "size": lambda volume: -volume.size,
    "created_at": lambda volume: volume.created or _LAST,
}

_NAMES = {"type": "array", "items": {"type": "string"}}


def _limit(description: str, default: int) -> dict[str, Any]:
    return {"description": description, "type": "integer", "minimum": 0, "default": default}


STRATEGY = Strategy(
    name="zone_migration",
    display_name="Zone migration",
    goal="hardware_maintenance",
    doc="Moves servers off hosts and volumes off storage pools, some at a time, in an order of one's own, for work at hardware.",
    schema={
        "properties": {
            "compute_nodes": {
                "description": "Hosts that servers leave, and where they go; without dst_node Nova's scheduler chooses.",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "src_node": {"description": "The host that servers leave.", "type": "string"},
                        "dst_node": {"description": "The host that they go to.", "type": "string"},
                    },
                    "required": ["src_node"],
                    "additionalProperties": False,
                },
            },
            "storage_pools": {
                "description": "Pools that volumes leave, and the pool or the volume type that they go to.",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "src_pool": {"description": "The pool that volumes leave.", "type": "string"},
                        "dst_pool": {"description": "The pool that they go to.", "type": "string"},
                        "src_type": {"description": "Only volumes of this type.", "type": "string"},
                        "dst_type": {"description": "The type that they get.", "type": "string"},
                    },
                    "oneOf": [
                        {"required": ["src_pool", "dst_pool"], "not": {"required": ["dst_type"]}},
                        {"required": ["src_pool", "dst_type"], "not": {"required": ["dst_pool"]}},
                    ],
                    "additionalProperties": False,
                },
            },
            "parallel_total": _limit("Moves in one plan.", 6),
            "parallel_per_node": _limit("Moves from one host in one plan.", 2),
            "parallel_per_pool": _limit("Moves from one pool in one plan.", 2),
            "priority": {
                "description": "Who comes first: projects, then hosts or pools, then size (largest) or age (oldest).",
                "type": "object",
                "properties": {
                    "project": _NAMES,
                    "compute_node": _NAMES,
                    "storage_pool": _NAMES,
                    "compute": {"enum": ["vcpu_num", "mem_size", "disk_size", "created_at"]},
                    "storage": {"enum": ["size", "created_at"]},
                },
                "additionalProperties": False,
            },
            "with_attached_volume": {
                "description": "A server that is to move too goes right after the last of its volumes that move.",
                "type": "boolean",
                "default": False,
            },
        },
        "additionalProperties": False,
    },
    models=("compute", "storage"),
    propose=propose,
    measure=measure,
)
