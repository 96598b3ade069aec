"""Puts what a strategy proposes into an order: which action waits for which.

In: a strategy's `Proposed`, in the order in which it thought of them. Out: `Planned`, in the order of the plan, each with its
parents; engine/audits.py makes records of them and engine/applier.py carries them out. Pure: the same input gives the same plan.

`graph` is ours and the default: an action waits only for what it needs. The other three are Watcher's. How many things may
happen to a host, a pair of hosts or a pool at a time is no matter of order: the applier counts that (`Action.places`).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.errors import BadRequest, ConfigError
from vedette.model.advice import Proposed
from vedette.ports import Action

WEIGHTS: dict[str, int] = {
    "nop": 70,
    "volume_migrate": 60,
    "change_nova_service_state": 50,
    "sleep": 40,
    "shelve": 37,
    "stop": 35,
    "migrate": 30,
    "resize": 20,
    "turn_host_to_acpi_s3_state": 10,
    "change_node_power_state": 9,
}
PARALLELIZATION: dict[str, int] = {
    "turn_host_to_acpi_s3_state": 2,
    "resize": 2,
    "stop": 2,
    "shelve": 2,
    "migrate": 2,
    "sleep": 1,
    "change_nova_service_state": 1,
    "nop": 1,
    "change_node_power_state": 2,
    "volume_migrate": 2,
}
STABILIZATION: tuple[str, ...] = ("nop", "change_nova_service_state", "sleep", "migrate", "resize")
"""The order of `workload_stabilization`, first to last."""
MOST_PARENTS = 32
"""Of one group of actions that several others wait for (the servers that leave a host, for those that arrive there). With more,
the first that waits for all of them stands for them: 5,000 that leave and 5,000 that arrive need no 25 million parents."""


class PlannerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Of the planner `weight`."""

    weights: dict[str, int] = msgspec.field(default_factory=lambda: dict(WEIGHTS))
    """Types with a higher weight come first; no two may have the same. A type that has none comes last."""
    parallelization: dict[str, int] = msgspec.field(default_factory=lambda: dict(PARALLELIZATION))
    """How many actions of a type may run at a time; 1 for a type that isn't named."""

    def __post_init__(self) -> None:
        named: dict[int, str] = {}
        for name, weight in self.weights.items():
            if weight in named:
                raise ConfigError(f"{named[weight]} and {name} have the weight {weight}: give each type one of its own")
            named[weight] = name


Arranged = tuple[Sequence[int], Sequence[Iterable[int]]]
"""The order, as indexes of `proposed`, and for each of `proposed` the indexes of its parents."""


class Planned(msgspec.Struct, frozen=True):
    """One action of a plan."""

    action_type: str
    parameters: dict[str, Any]
    parents: tuple[int, ...] = ()
    """Places in the plan of those that have to be over before it begins: all of them earlier ones, in rising order."""


def plan(
    proposed: Sequence[Proposed], planner: str, actions: Mapping[str, Action], options: PlannerOptions | None = None
) -> list[Planned]:
    """The plan. Raises BadRequest: no such planner, no such action, or one that this planner knows no place for."""
    order, parents = arranged(proposed, planner, actions, options)
    place = {index: at for at, index in enumerate(order)}
    return [
        Planned(proposed[i].action_type, proposed[i].parameters, tuple(sorted(place[parent] for parent in parents[i])))
        for i in order
    ]


def arranged(
    proposed: Sequence[Proposed], planner: str, actions: Mapping[str, Action], options: PlannerOptions | None = None
) -> Arranged:
    """The same as places in `proposed`: in which order, and for each of them its parents."""
    make = PLANNERS.get(planner)
    if make is None:
        raise BadRequest(f"there is no planner {planner!r}: there are {', '.join(PLANNERS)}")
    for one in proposed:
        if one.action_type not in actions:
            raise BadRequest(f"there is no action {one.action_type!r}: there are {', '.join(sorted(actions))}")
    return make(proposed, actions, options or PlannerOptions())


def backwards(one: Proposed) -> Proposed:
    """What undoing it is, as far as the order goes: a server comes back, a host is enabled again."""
    given = dict(one.parameters)
    if "source_node" in given:
        given["source_node"], given["destination_node"] = given.get("destination_node"), given["source_node"]
    if "state" in given:
        given["state"] = _OPPOSITE.get(str(given["state"]), given["state"])
    return Proposed(one.action_type, given)


_OPPOSITE = {"enabled": "disabled", "disabled": "enabled", "up": "down", "down": "up", "on": "off", "off": "on"}


# --- Watcher's ---------------------------------------------------------------------------------------------------------------


def _weight(proposed: Sequence[Proposed], actions: Mapping[str, Action], options: PlannerOptions) -> Arranged:
    """Types by their weight, in chunks of as many as may run at a time; each action waits for all of the chunk before."""
    by_type: dict[str, list[int]] = {}
    for i, one in enumerate(proposed):
        by_type.setdefault(one.action_type, []).append(i)
    ranked = sorted(by_type, key=lambda name: (name not in options.weights, -options.weights.get(name, 0), name))
    order: list[int] = []
    parents: list[Sequence[int]] = [()] * len(proposed)
    before: Sequence[int] = ()
    for name in ranked:
        size = max(1, options.parallelization.get(name, 1))
        of_type = by_type[name]
        for at in range(0, len(of_type), size):
            chunk = of_type[at : at + size]
            for i in chunk:
                parents[i] = before
            order += chunk
            before = chunk
    return order, parents


def _workload_stabilization(proposed: Sequence[Proposed], actions: Mapping[str, Action], options: PlannerOptions) -> Arranged:
    """Types in a fixed order; each action waits for the one before on the same resource."""
    rank = {name: at for at, name in enumerate(STABILIZATION)}
    order = sorted(range(len(proposed)), key=lambda i: rank.get(proposed[i].action_type, len(rank)))
    parents: list[Sequence[int]] = [()] * len(proposed)
    last: dict[str, int] = {}
    for i in order:
        resource = _resource(proposed[i], actions)
        if resource:
            parents[i] = (last[resource],) if resource in last else ()
            last[resource] = i
    return order, parents


def _node_resource_consolidation(
    proposed: Sequence[Proposed], actions: Mapping[str, Action], options: PlannerOptions
) -> Arranged:
    """First all hosts that are disabled, then the migrations, those from one host one after the other, then all that are
    enabled."""
    disabled: list[int] = []
    enabled: list[int] = []
    leaving: dict[str, list[int]] = {}
    for i, one in enumerate(proposed):
        if one.action_type == "migrate":
            leaving.setdefault(str(one.parameters.get("source_node", "")), []).append(i)
        elif one.action_type == "change_nova_service_state":
            (disabled if one.parameters.get("state") == "disabled" else enabled).append(i)
        else:
            raise BadRequest(
                f"the planner node_resource_consolidation takes migrate and change_nova_service_state, not {one.action_type}: "
                "choose the planner graph"
            )
    parents: list[Sequence[int]] = [()] * len(proposed)
    for servers in leaving.values():
        parents[servers[0]] = disabled
        for before, after in itertools.pairwise(servers):
            parents[after] = (before,)
    for i in enabled:
        # Without a migration there is still no enabling before the disabling.
        parents[i] = [servers[-1] for servers in leaving.values()] or disabled
    return [*disabled, *(i for servers in leaving.values() for i in servers), *enabled], parents


# --- ours --------------------------------------------------------------------------------------------------------------------


def _graph(proposed: Sequence[Proposed], actions: Mapping[str, Action], options: PlannerOptions) -> Arranged:
    """What needs what:

    - what happens to one server, volume or host, in the order proposed; `Proposed.after`
    - a server after the volumes that were proposed right before it
    - a host is disabled before its servers leave, and enabled and switched on before the first one arrives
    - a host that was disabled is enabled again after its servers have left, and after those that the scheduler finds a host for
    - a host is switched off after its servers have left
    - a server arrives on a host after those have left it that were proposed to leave before
    - where the scheduler chooses a host, the hosts that were proposed to be disabled and enabled are so

    First hosts' own actions are moved to where that puts them; from then on everything waits for earlier ones only, so there
    can be no circle.
    """
    moves = [_read(one, actions) for one in _checked(proposed)]
    _name_hosts(moves)
    order = _ordered(proposed, moves)
    parents = _parents(proposed, moves, order)
    return order, parents


class _Move:
    """What the order has to know of one action."""

    __slots__ = ("again", "change", "host", "host_id", "leaves", "reaches", "resource", "scheduled", "volume")

    def __init__(self) -> None:
        self.resource = ""
        """The server or volume that it is about."""
        self.volume = False
        self.leaves = self.reaches = ""
        """Hosts of a server's move; "" none, or not known."""
        self.scheduled = False
        """A server's move for which the scheduler chooses the host."""
        self.host = self.host_id = ""
        """The host that is changed: its name and its id, where there are both."""
        self.change = ""
        """`disable`, `enable`, `off`, `on`, or another."""
        self.again = False
        """The host is enabled that was disabled before in this plan."""


_CHANGES = {"disabled": "disable", "enabled": "enable", "up": "enable", "down": "disable", "off": "off", "on": "on"}


def _read(one: Proposed, actions: Mapping[str, Action]) -> _Move:
    move, given = _Move(), one.parameters
    about = actions[one.action_type].resource
    id_ = str(given.get("resource_id") or "")
    if about in ("host", "node"):
        move.host, move.host_id = str(given.get("resource_name") or id_), id_
        move.change = _CHANGES.get(str(given.get("state", "")), "other")
    elif about:
        move.resource = _resource(one, actions)
        move.volume = about == "volume"
        if about == "server":
            move.leaves = str(given.get("source_node") or "")
            move.reaches = str(given.get("destination_node") or "")
            move.scheduled = bool(move.leaves) and not move.reaches
    return move


def _checked(proposed: Sequence[Proposed]) -> Sequence[Proposed]:
    for i, one in enumerate(proposed):
        if any(not 0 <= before < i for before in one.after):
            raise BadRequest(f"proposal {i} ({one.action_type}) can only come after earlier ones, not after {list(one.after)}")
    return proposed


def _resource(one: Proposed, actions: Mapping[str, Action]) -> str:
    about = actions[one.action_type].resource
    id_ = one.parameters.get("resource_id")
    return f"{about}/{id_}" if about and id_ else ""


def _name_hosts(moves: Sequence[_Move]) -> None:
    """A host is called by its name in a migration, and by its id in what is done to the host itself."""
    names: dict[str, str] = {}
    for move in moves:
        if move.host:
            names.setdefault(move.host_id, move.host)
    for move in moves:
        move.host = names.get(move.host, move.host)
        move.leaves = names.get(move.leaves, move.leaves)
        move.reaches = names.get(move.reaches, move.reaches)


def _ordered(proposed: Sequence[Proposed], moves: Sequence[_Move]) -> list[int]:
    """The order of the plan: as proposed, but hosts' own actions as early (switching off: as late) as they have to be."""
    count = len(moves)
    next_of: list[int] = [count] * count
    """Index of the next action on the same host."""
    behind: list[int] = [count] * count
    """Index of the first that is to come after it."""
    upcoming: dict[str, int] = {}
    leaving: dict[str, list[int]] = {}
    for i in reversed(range(count)):
        move = moves[i]
        if move.host:
            next_of[i] = upcoming.get(move.host, count)
            upcoming[move.host] = i
        for before in proposed[i].after:
            behind[before] = min(behind[before], i)
    for i, move in enumerate(moves):
        if move.leaves:
            leaving.setdefault(move.leaves, []).append(i)

    slots: list[int] = list(range(count))
    """Index of the one behind which it stands; its own: it wasn't moved; -1: at the beginning."""
    changed: dict[str, int] = {}
    """Host → slot of what was last done to it."""
    disabled: set[str] = set()
    left: dict[str, int] = {}
    arrived: dict[str, int] = {}
    scheduled = -1
    for i, move in enumerate(moves):
        if move.leaves:
            left[move.leaves] = i
        if move.reaches:
            arrived[move.reaches] = i
        if move.scheduled:
            scheduled = i
        if not move.host:
            continue
        bound = max([changed.get(move.host, -1), *(slots[before] for before in proposed[i].after)])
        if move.change == "disable":
            # What was to arrive there before still finds it enabled.
            slots[i] = max(bound, arrived.get(move.host, -1))
            disabled.add(move.host)
        elif move.change == "enable":
            move.again = move.host in disabled
            slots[i] = max(bound, left.get(move.host, -1), scheduled) if move.again else bound
            disabled.discard(move.host)
        elif move.change == "on":
            slots[i] = bound
        elif move.change == "off":
            servers = leaving.get(move.host, [])
            at = bisect.bisect_left(servers, min(next_of[i], behind[i]))
            slots[i] = max(i, servers[at - 1]) if at else i
        changed[move.host] = slots[i]
    return sorted(range(count), key=lambda i: (slots[i], slots[i] != i, i))


class _Group:
    """Actions that others wait for all together."""

    __slots__ = ("members",)

    def __init__(self) -> None:
        self.members: list[int] = []

    def before(self, waiting: int) -> list[int]:
        """The parents of `waiting`."""
        found = self.members
        if len(found) > MOST_PARENTS:
            self.members = [waiting]
        return found


def _parents(proposed: Sequence[Proposed], moves: Sequence[_Move], order: Sequence[int]) -> list[set[int]]:
    parents: list[set[int]] = [set(one.after) for one in proposed]
    last: dict[str, int] = {}
    changed: dict[str, int] = {}
    disabled: dict[str, int] = {}
    leaving: dict[str, _Group] = {}
    arriving: dict[str, _Group] = {}
    scheduled, services = _Group(), _Group()
    volumes: list[int] = []
    """Those that were proposed right before."""
    of_server: list[Sequence[int]] = [()] * len(moves)
    for i, move in enumerate(moves):
        if move.volume:
            volumes.append(i)
        elif volumes:
            if move.resource:
                of_server[i] = volumes
            volumes = []

    for i in order:
        move, mine = moves[i], parents[i]
        mine.update(of_server[i])
        if move.resource:
            if move.resource in last:
                mine.add(last[move.resource])
            last[move.resource] = i
        if move.leaves and move.leaves in disabled:
            mine.add(disabled[move.leaves])
        if move.reaches:
            if move.reaches in changed:
                mine.add(changed[move.reaches])
            if move.reaches in leaving:
                mine.update(leaving[move.reaches].before(i))
        if move.scheduled:
            mine.update(services.before(i))
        if move.host:
            if move.host in changed:
                mine.add(changed[move.host])
            if move.change in ("disable", "off") and move.host in arriving:
                mine.update(arriving[move.host].before(i))
            if (move.change == "off" or move.again) and move.host in leaving:
                mine.update(leaving[move.host].before(i))
            if move.again:
                mine.update(scheduled.before(i))
            changed[move.host] = i
            if move.change == "disable":
                disabled[move.host] = i
            elif move.change == "enable":
                disabled.pop(move.host, None)
            if move.change in ("disable", "enable"):
                services.members.append(i)
        # Only now: nothing waits for itself, not even a server that is moved to where it is.
        if move.leaves:
            leaving.setdefault(move.leaves, _Group()).members.append(i)
        if move.reaches:
            arriving.setdefault(move.reaches, _Group()).members.append(i)
        if move.scheduled:
            scheduled.members.append(i)
    return parents


PLANNERS: Mapping[str, Callable[[Sequence[Proposed], Mapping[str, Action], PlannerOptions], Arranged]] = {
    "graph": _graph,
    "weight": _weight,
    "workload_stabilization": _workload_stabilization,
    "node_resource_consolidation": _node_resource_consolidation,
}
