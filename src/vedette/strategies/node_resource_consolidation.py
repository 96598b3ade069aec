"""Packs servers onto few hosts by the processors and memory of their flavors; measures nothing, and disables no host for good.

`specify`: each migration says where to. `auto`: Nova's scheduler chooses; until the servers have left, the hosts that shall be
empty are disabled, so that it can't choose them. Whatever it chooses then, every server has to find a place (`_Leaving`).
"""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Query, Solution, Trigger
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done, JsonObject, Strategy
from vedette.strategies._consolidate import HOPELESS, Moves, emptied_onto, leavable
from vedette.strategies._evacuate import Room, disabling, enabling, ended, migration

REASON = "Watcher node resource consolidation strategy"
"""Hosts are disabled for, as Watcher has it."""


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    return ()


class _Flavors:
    """Nothing counts but what flavors ask for, which is room's affair."""

    def fits(self, host: Host, server: Server) -> bool:
        return True

    def move(self, server: Server, source: str, target: str) -> None:
        return

    def of(self, server: Server) -> tuple[float, float]:
        return float(server.vcpus), float(server.memory)


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    notes: list[str] = []
    usable = [host for host in snapshot.hosts if host.usable]
    order = sorted(usable, key=lambda host: (_vcpus(snapshot, host), host.hostname))
    if parameters["host_choice"] == "auto":
        released, moved, actions = _by_scheduler(snapshot, order, notes)
    else:
        moves = Moves()
        released = emptied_onto(snapshot, order, order[::-1], _Flavors(), Room(snapshot), moves, notes)
        actions = [migration(server, _how(server), target) for server, target in moves]
        moved = len(moves)
    indicators: dict[str, float] = {
        "compute_nodes_count": len(usable),
        "released_compute_nodes_count": len(released),
        "instance_migrations_count": moved,
    }
    return Solution(actions=tuple(actions), indicators=indicators, notes=ended(notes))


def _vcpus(snapshot: Snapshot, host: Host) -> int:
    return sum(server.vcpus for server in snapshot.servers_on[host.hostname])


def _how(server: Server) -> str:
    return "live" if server.live else "cold"


def _by_scheduler(snapshot: Snapshot, order: Sequence[Host], notes: list[str]) -> tuple[list[Host], int, list[Proposed]]:
    """(hosts that are emptied, servers that are moved, the actions)."""
    room = Room(snapshot)
    empty = [host for host in order if not snapshot.servers_on[host.hostname]]
    leaving = _Leaving()
    sources: dict[str, Host] = {}
    failed = 0
    for host in order:
        servers = snapshot.servers_on[host.hostname]
        if not servers or not leavable(snapshot, host, notes):
            continue
        takers = [to for to in order if to is not host and to.hostname not in sources and snapshot.servers_on[to.hostname]]
        more = leaving.with_these(servers)
        if more.always_finds_a_place(takers, room):
            sources[host.hostname] = host
            leaving, failed = more, 0
        else:
            failed += 1
            if failed >= HOPELESS:
                break
    if not sources:
        notes.append("no host can be emptied so that the others take its servers whichever of them the scheduler chooses")
        return [], 0, []
    switched = sorted([*sources.values(), *empty], key=lambda host: host.hostname)
    actions = [disabling(host, REASON) for host in switched]
    for host in sources.values():
        # Large ones first: they have the fewest places.
        servers = sorted(snapshot.servers_on[host.hostname], key=lambda one: (-one.vcpus, -one.memory, one.uuid))
        actions += [migration(server, _how(server)) for server in servers]
    return list(sources.values()), leaving.number, [*actions, *(enabling(host) for host in switched)]


class _Leaving:
    """Servers that the scheduler has to find places for: their sums, the largest and the smallest, in vCPUs, MiB and GiB."""

    def __init__(self) -> None:
        self.number = 0
        self.totals = [0, 0, 0]
        self.largest = [0, 0, 0]
        self.smallest = [0, 0, 0]
        """Of those that need any."""
        self.zones: frozenset[str] = frozenset()
        """That one of them is pinned to; "" for those that aren't."""

    def with_these(self, servers: Sequence[Server]) -> _Leaving:
        found = _Leaving()
        found.number = self.number + len(servers)
        found.zones = self.zones | {one.pinned_zone for one in servers}
        for at in range(3):
            needs = [(one.vcpus, one.memory, one.disk)[at] for one in servers]
            found.totals[at] = self.totals[at] + sum(needs)
            found.largest[at] = max(self.largest[at], *needs)
            found.smallest[at] = min((one for one in (self.smallest[at], *needs) if one), default=0)
        return found

    def always_finds_a_place(self, takers: Sequence[Host], room: Room) -> bool:
        """Wherever the others went, in each of the zones there is room for the largest."""
        return all(self._always([host for host in takers if zone in ("", host.zone)], room) for zone in self.zones)

    def _always(self, takers: Sequence[Host], room: Room) -> bool:
        """A host refuses the largest server when it lacks one of vCPUs, memory and disk for it. How many hosts all that is moved
        can bring so far is bounded for each of the three: those with the least to spare first. If these are fewer than the
        hosts that there are, one has room at any time."""
        refusing = 0
        for at in range(3):
            if not self.largest[at]:
                continue
            # What the others take: the one that looks for a place is none of them.
            total = float(self.totals[at] - self.smallest[at])
            for spare in sorted(room.left(host)[at] - self.largest[at] for host in takers):
                if spare >= total:
                    break
                total -= max(0.0, spare)
                refusing += 1
        return refusing < len(takers)


def measure(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """Hosts that held servers and hold none now, and servers that were moved."""
    usable = [host for host in before.hosts if host.usable]
    released = sum(bool(before.servers_on[host.hostname]) and not after.servers_on.get(host.hostname) for host in usable)
    moved = sum(one.action_type == "migrate" and one.state == "SUCCEEDED" for one in done)
    return {
        "compute_nodes_count": len(usable),
        "released_compute_nodes_count": released,
        "instance_migrations_count": moved,
    }


STRATEGY = Strategy(
    name="node_resource_consolidation",
    display_name="Node Resource Consolidation strategy",
    goal="server_consolidation",
    doc="Packs servers onto few hosts by the processors and memory of their flavors.",
    schema={
        "properties": {
            "host_choice": {
                "description": "Who chooses where a server goes: Nova's scheduler (auto) or the strategy (specify).",
                "type": "string",
                "enum": ["auto", "specify"],
                "default": "auto",
            },
        },
    },
    metrics=_queries,
    propose=propose,
    measure=measure,
    planner="node_resource_consolidation",
)
