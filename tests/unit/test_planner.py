"""What waits for what: golden plans of each planner, and what has to hold for every plan of our own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.engine.planner import MOST_PARENTS, PLANNERS, Planned, PlannerOptions, backwards, plan
from vedette.errors import BadRequest, ConfigError
from vedette.model.advice import Proposed
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    return Ready()


async def _nothing(hands: Hands, parameters: JsonObject, before: JsonObject) -> None: ...


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    return "done"


def _action(name: str, resource: str) -> Action:
    return Action(name=name, doc="", schema={}, check=_check, run=_nothing, verify=_nothing, look=_look, resource=resource)


RESOURCES = {
    "nop": "",
    "sleep": "",
    "stop": "server",
    "pause": "server",
    "migrate": "server",
    "resize": "server",
    "volume_migrate": "volume",
    "change_nova_service_state": "host",
    "change_node_power_state": "node",
}
ACTIONS = {name: _action(name, resource) for name, resource in RESOURCES.items()}


def move(server: str, source: str, target: str = "") -> Proposed:
    given = {"resource_id": server, "migration_type": "live", "source_node": source}
    return Proposed("migrate", given | ({"destination_node": target} if target else {}))


def service(host: str, state: str) -> Proposed:
    return Proposed("change_nova_service_state", {"resource_id": f"uuid-{host}", "resource_name": host, "state": state})


def power(host: str, state: str) -> Proposed:
    return Proposed("change_node_power_state", {"resource_id": f"node-{host}", "resource_name": host, "state": state})


def do(action_type: str, id_: str = "", *after: int, **more: Any) -> Proposed:
    return Proposed(action_type, ({"resource_id": id_} if id_ else {}) | more, after)


def name(one: Proposed | Planned) -> str:
    """A word for an action, as in the tables below."""
    given = one.parameters
    match one.action_type:
        case "migrate":
            return f"{given['resource_id']}:{given['source_node']}>{given.get('destination_node', '?')}"
        case "change_nova_service_state" | "change_node_power_state":
            return f"{given['state']} {given['resource_name']}"
        case other:
            return f"{other} {given.get('resource_id', '')}".strip()


def drawn(planned: Sequence[Planned]) -> list[str]:
    """`name < parents`, in the order of the plan."""
    names = [name(one) for one in planned]
    return [names[i] + (" < " + ", ".join(names[p] for p in one.parents) if one.parents else "") for i, one in enumerate(planned)]


WEIGHT = [
    (
        "types by weight, each chunk waits for all of the one before",
        [move("s1", "a", "b"), move("s2", "a", "b"), move("s3", "a", "b"), do("nop"), service("b", "enabled")],
        [
            "nop",
            "enabled b < nop",
            "s1:a>b < enabled b",
            "s2:a>b < enabled b",
            "s3:a>b < s1:a>b, s2:a>b",
        ],
    ),
    (
        "two types in chunks of two",
        [do("resize", "s9"), do("volume_migrate", "v1"), do("volume_migrate", "v2"), do("volume_migrate", "v3"), move("s1", "a")],
        [
            "volume_migrate v1",
            "volume_migrate v2",
            "volume_migrate v3 < volume_migrate v1, volume_migrate v2",
            "s1:a>? < volume_migrate v3",
            "resize s9 < s1:a>?",
        ],
    ),
    (
        "a type without a weight comes last, one at a time",
        [do("pause", "s1"), do("pause", "s2"), do("stop", "s3")],
        ["stop s3", "pause s1 < stop s3", "pause s2 < pause s1"],
    ),
    ("nothing", [], []),
]
STABILIZATION = [
    (
        "a resize waits for the migration of its own server",
        [do("resize", "s1"), move("s1", "a", "b"), move("s2", "a", "c"), do("resize", "s3"), service("c", "enabled"), do("nop")],
        ["nop", "enabled c", "s1:a>b", "s2:a>c", "resize s1 < s1:a>b", "resize s3"],
    ),
]
CONSOLIDATION = [
    (
        "disable all, empty each host one by one, enable all",
        [
            service("a", "disabled"),
            service("c", "disabled"),
            move("s1", "a"),
            move("s2", "b"),
            move("s3", "a"),
            service("a", "enabled"),
            service("c", "enabled"),
        ],
        [
            "disabled a",
            "disabled c",
            "s1:a>? < disabled a, disabled c",
            "s3:a>? < s1:a>?",
            "s2:b>? < disabled a, disabled c",
            "enabled a < s3:a>?, s2:b>?",
            "enabled c < s3:a>?, s2:b>?",
        ],
    ),
    (
        "without migrations there is still an order",
        [service("a", "enabled"), service("a", "disabled")],
        ["disabled a", "enabled a < disabled a"],
    ),
]
GRAPH = [
    (
        "what has nothing to do with each other waits for nothing",
        [
            move("s1", "a", "b"),
            move("s2", "a", "c"),
            move("s3", "d", "b"),
            do("nop"),
            do("resize", "s4"),
            service("e", "disabled"),
        ],
        ["disabled e", "s1:a>b", "s2:a>c", "s3:d>b", "nop", "resize s4"],
    ),
    (
        "one server's actions keep their order",
        [do("stop", "s1"), do("resize", "s1"), do("resize", "s2"), move("s1", "a", "b")],
        ["stop s1", "resize s1 < stop s1", "resize s2", "s1:a>b < resize s1"],
    ),
    (
        "a host is disabled before its servers leave, also when that was thought of last",
        [move("s1", "a", "b"), move("s2", "a", "c"), service("a", "disabled")],
        ["disabled a", "s1:a>b < disabled a", "s2:a>c < disabled a"],
    ),
    (
        "a target is enabled before the first arrives",
        [move("s1", "a", "b"), move("s2", "c", "d"), service("b", "enabled")],
        ["enabled b", "s1:a>b < enabled b", "s2:c>d"],
    ),
    (
        "a host that is switched on, then enabled",
        [power("b", "on"), service("b", "enabled"), move("s1", "a", "b")],
        ["on b", "enabled b < on b", "s1:a>b < enabled b"],
    ),
    (
        "a host is switched off after its servers have left, also when that was thought of first",
        [power("a", "off"), move("s1", "a", "b"), move("s2", "c", "b"), move("s3", "a", "b"), do("nop")],
        ["s1:a>b", "s2:c>b", "s3:a>b", "off a < s1:a>b, s3:a>b", "nop"],
    ),
    (
        "disabled, emptied, switched off",
        [move("s1", "a", "b"), service("a", "disabled"), power("a", "off")],
        ["disabled a", "s1:a>b < disabled a", "off a < disabled a, s1:a>b"],
    ),
    (
        "room is made first where the strategy says so",
        [move("s1", "a", "b"), move("s2", "c", "a"), move("s3", "b", "d")],
        ["s1:a>b", "s2:c>a < s1:a>b", "s3:b>d"],
    ),
    (
        "a host gets its last server before it is disabled and emptied",
        [move("s1", "a", "b"), move("s1", "b", "c"), service("b", "disabled")],
        ["s1:a>b", "disabled b < s1:a>b", "s1:b>c < s1:a>b, disabled b"],
    ),
    (
        "the scheduler chooses: hosts are disabled first, and enabled again when all have moved",
        [
            service("a", "disabled"),
            service("x", "disabled"),
            move("s1", "a"),
            move("s2", "b"),
            service("a", "enabled"),
            service("x", "enabled"),
        ],
        [
            "disabled a",
            "disabled x",
            "s1:a>? < disabled a, disabled x",
            "s2:b>? < disabled a, disabled x",
            "enabled a < disabled a, s1:a>?, s2:b>?",
            "enabled x < disabled x, s1:a>?, s2:b>?",
        ],
    ),
    (
        "a server after the volumes proposed right before it, another not",
        [do("volume_migrate", "v1"), do("volume_migrate", "v2"), move("s1", "a", "b"), move("s2", "a", "b")],
        ["volume_migrate v1", "volume_migrate v2", "s1:a>b < volume_migrate v1, volume_migrate v2", "s2:a>b"],
    ),
    (
        "what the strategy says of the order",
        [do("volume_migrate", "v1"), do("nop"), do("stop", "s1", 0), do("sleep", "", 1, 2)],
        ["volume_migrate v1", "nop", "stop s1 < volume_migrate v1", "sleep < nop, stop s1"],
    ),
    (
        "a host by its id and by its name is one host",
        [service("a", "disabled"), move("s1", "uuid-a", "b"), power("a", "off")],
        ["disabled a", "s1:uuid-a>b < disabled a", "off a < disabled a, s1:uuid-a>b"],
    ),
]
GOLDEN = [
    pytest.param(planner, proposed, drawing, id=f"{planner}: {text}")
    for planner, table in (
        ("weight", WEIGHT),
        ("workload_stabilization", STABILIZATION),
        ("node_resource_consolidation", CONSOLIDATION),
        ("graph", GRAPH),
    )
    for text, proposed, drawing in table
]


@pytest.mark.parametrize(("planner", "proposed", "drawing"), GOLDEN)
def test_golden(planner: str, proposed: Sequence[Proposed], drawing: list[str]) -> None:
    assert drawn(plan(proposed, planner, ACTIONS)) == drawing


@pytest.mark.parametrize(
    ("done", "drawing"),
    [
        (
            [service("a", "disabled"), move("s1", "a", "b"), move("s2", "a", "c"), power("a", "off")],
            ["on a", "enabled a < on a", "s2:c>a < enabled a", "s1:b>a < enabled a"],
        ),
        ([service("b", "enabled"), move("s1", "a", "b")], ["disabled b", "s1:b>a < disabled b"]),
        ([move("s1", "a", "b"), move("s2", "c", "a")], ["s2:a>c", "s1:b>a < s2:a>c"]),
        ([do("stop", "s1"), move("s1", "a")], ["s1:None>a", "stop s1 < s1:None>a"]),
        ([service("a", "up"), power("a", "on")], ["off a", "down a < off a"]),
    ],
)
def test_the_way_back_is_a_plan_too(done: Sequence[Proposed], drawing: list[str]) -> None:
    """A host is enabled again before its servers come back."""
    assert drawn(plan([backwards(one) for one in reversed(done)], "graph", ACTIONS)) == drawing


@pytest.mark.parametrize(
    ("planner", "proposed", "text"),
    [
        ("best", [], "there is no planner 'best': there are graph, weight"),
        ("graph", [Proposed("explode", {})], "there is no action 'explode': there are change_node_power_state"),
        ("node_resource_consolidation", [do("nop")], "not nop: choose the planner graph"),
        ("graph", [do("nop", "", 0)], "proposal 0 (nop) can only come after earlier ones"),
    ],
)
def test_what_no_plan_can_be_made_of_says_why(planner: str, proposed: Sequence[Proposed], text: str) -> None:
    with pytest.raises(BadRequest) as told:
        plan(proposed, planner, ACTIONS)
    assert text in str(told.value)


def test_two_types_of_one_weight_are_refused() -> None:
    with pytest.raises(ConfigError, match="migrate and stop have the weight 3"):
        PlannerOptions(weights={"migrate": 3, "nop": 4, "stop": 3})


def test_weights_and_parallelization_can_be_set() -> None:
    options = PlannerOptions(weights={"migrate": 2, "stop": 1}, parallelization={"migrate": 3})
    proposed = [do("stop", "s8"), do("stop", "s9"), *(move(f"s{i}", "a", "b") for i in range(4))]
    assert drawn(plan(proposed, "weight", ACTIONS, options)) == [
        "s0:a>b",
        "s1:a>b",
        "s2:a>b",
        "s3:a>b < s0:a>b, s1:a>b, s2:a>b",
        "stop s8 < s3:a>b",
        "stop s9 < stop s8",
    ]


# --- what holds for every plan -------------------------------------------------------------------------------------------------

hosts = st.sampled_from("abcd")
moves = st.builds(move, st.sampled_from(["s1", "s2", "s3", "s4"]), hosts, st.one_of(hosts, st.just("")))
services = st.builds(service, hosts, st.sampled_from(["enabled", "disabled"]))
powers = st.builds(power, hosts, st.sampled_from(["on", "off"]))
others = st.builds(do, st.sampled_from(["stop", "resize", "volume_migrate"]), st.sampled_from(["s1", "s2", "v1"]))
anything = st.lists(st.one_of(moves, moves, services, powers, others, st.just(do("nop"))), max_size=25)


def placed(proposed: Sequence[Proposed], planner: str) -> tuple[list[Planned], dict[int, int], list[set[int]]]:
    """The plan, the place of each proposal in it, and for each place all that it waits for."""
    told = [Proposed(one.action_type, one.parameters | {"n": i}, one.after) for i, one in enumerate(proposed)]
    planned = plan(told, planner, ACTIONS)
    waits: list[set[int]] = []
    for one in planned:
        waits.append(set(one.parents).union(*(waits[parent] for parent in one.parents)))
    return planned, {one.parameters["n"]: place for place, one in enumerate(planned)}, waits


@given(proposed=anything, planner=st.sampled_from(["graph", "weight", "workload_stabilization"]))
def test_a_plan_has_every_action_once_and_parents_are_earlier(proposed: list[Proposed], planner: str) -> None:
    told = [Proposed(one.action_type, one.parameters | {"n": i}) for i, one in enumerate(proposed)]
    planned = plan(told, planner, ACTIONS)
    assert sorted(one.parameters["n"] for one in planned) == list(range(len(proposed)))
    for place, one in enumerate(planned):
        assert all(0 <= parent < place for parent in one.parents)
        assert list(one.parents) == sorted(set(one.parents))


def _of_host(one: Proposed, host: str) -> str:
    """`enabled`, `off`, … if it changes this host."""
    return str(one.parameters["state"]) if one.parameters.get("resource_name") == host else ""


@settings(max_examples=300)
@given(proposed=anything)
def test_our_own_plan_keeps_every_order_that_matters(proposed: list[Proposed]) -> None:
    _, place, waits = placed(proposed, "graph")

    def needs(after: int, before: int) -> bool:
        return place[before] in waits[place[after]]

    for i, first in enumerate(proposed):
        for j in range(i + 1, len(proposed)):
            second = proposed[j]
            one, two = first.parameters, second.parameters
            kinds = RESOURCES[first.action_type], RESOURCES[second.action_type]
            if kinds[0] == kinds[1] and kinds[0] in ("server", "volume") and one["resource_id"] == two["resource_id"]:
                assert needs(j, i), "one resource, in the order proposed"
            if one.get("resource_name") and one.get("resource_name") == two.get("resource_name"):
                assert needs(j, i), "one host, in the order proposed"
            if one.get("source_node") and one["source_node"] == two.get("destination_node"):
                assert needs(j, i), "an arrival after the departures proposed before it"
    for host in "abcd":
        changes = [i for i, one in enumerate(proposed) if _of_host(one, host)]
        leaving = [i for i, one in enumerate(proposed) if one.parameters.get("source_node") == host]
        arriving = [i for i, one in enumerate(proposed) if one.parameters.get("destination_node") == host]
        for n, i in enumerate(changes):
            state = _of_host(proposed[i], host)
            until = changes[n + 1] if n + 1 < len(changes) else len(proposed)
            if state == "disabled" and n == 0 and not any(one < i for one in arriving):
                for one in leaving:
                    if one < until:
                        assert needs(one, i), "disabled before its servers leave"
            if state in ("enabled", "on") and n == 0:
                for one in arriving:
                    if one < until:
                        assert needs(one, i), "enabled and on before the first arrives"
            if state == "off":
                for one in leaving:
                    if one < until:
                        assert needs(i, one), "off after its servers have left"
            if state == "enabled" and n and _of_host(proposed[changes[n - 1]], host) == "disabled":
                for one in leaving:
                    if one < i:
                        assert needs(i, one), "enabled again after they have left"


@given(count=st.integers(MOST_PARENTS, MOST_PARENTS * 3), more=st.integers(1, MOST_PARENTS * 2))
def test_many_that_leave_and_many_that_arrive_still_wait_for_all_of_them(count: int, more: int) -> None:
    proposed = [move(f"out{i}", "a", "b") for i in range(count)] + [move(f"in{i}", "c", "a") for i in range(more)]
    planned, place, waits = placed(proposed, "graph")
    for i in range(count, count + more):
        assert {place[one] for one in range(count)} <= waits[place[i]]
    assert sum(len(one.parents) for one in planned) <= max(count + more, more * MOST_PARENTS)


@pytest.mark.parametrize("planner", PLANNERS)
def test_ten_thousand_actions_have_few_parents(planner: str) -> None:
    """A figure that doesn't hang on the machine; the time is in bench/."""
    hosts = [f"h{i}" for i in range(100)]
    proposed = [service(host, "disabled") for host in hosts[:50]]
    proposed += [move(f"s{i}", hosts[i % 50], hosts[50 + i % 50]) for i in range(9_900)]
    proposed += [service(host, "enabled") for host in hosts[50:]]
    planned = plan(proposed, planner, ACTIONS)
    assert len(planned) == 10_000
    assert sum(len(one.parents) for one in planned) < 30_000


def test_ten_thousand_on_one_host_are_no_hundred_million_parents() -> None:
    proposed: list[Proposed] = []
    for i in range(2_000):
        proposed += [move(f"a{i}", "x", "y"), move(f"b{i}", "z", "x"), service("x", ("disabled", "enabled")[i % 2])]
        proposed += [move(f"c{i}", "x"), power("x", ("off", "on")[i % 2])]
    planned = plan(proposed, "graph", ACTIONS)
    assert len(planned) == 10_000
    assert sum(len(one.parents) for one in planned) < 10_000 * (4 * MOST_PARENTS)
