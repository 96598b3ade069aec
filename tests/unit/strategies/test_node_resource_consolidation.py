"""Packing by flavors, with and without the scheduler: small clouds whose answer can be told by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest
from small_clouds import found, host, moves, server

from vedette.engine.planner import plan
from vedette.model.advice import Solution
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.plugins import actions
from vedette.ports import Done
from vedette.strategies.node_resource_consolidation import STRATEGY, measure
from vedette.testing.strategy_suite import Simulated, with_defaults

HOSTS = [host("a"), host("b"), host("c"), host("empty")]
SERVERS = [server("s", "a"), server("t", "b", vcpus=4), server("u", "c", vcpus=2), server("v", "c", status="SHUTOFF")]


def of(servers: list[Server] = SERVERS, hosts: list[Host] = HOSTS, **given: Any) -> Solution:
    return found(STRATEGY, hosts, servers, {}, **given)


def test_specify_says_where_to_and_disables_nothing() -> None:
    solution = of(host_choice="specify")
    assert moves(solution) == ["s:a>b", "u:c>b", "v:c>b"]
    assert [one.parameters["migration_type"] for one in solution.actions] == ["live", "live", "cold"]
    assert solution.indicators == {
        "compute_nodes_count": 4,
        "released_compute_nodes_count": 2,
        "instance_migrations_count": 3,
    }


def test_auto_lets_the_scheduler_choose_among_the_hosts_that_stay() -> None:
    """Bug 20 of Watcher: it migrates live what is shut off."""
    solution = of()
    assert moves(solution) == [
        *("disabled:a", "disabled:c", "disabled:empty"),
        *("s:a>", "u:c>", "v:c>"),
        *("enabled:a", "enabled:c", "enabled:empty"),
    ]
    assert [one.parameters.get("migration_type") for one in solution.actions[3:6]] == ["live", "live", "cold"]
    assert solution.actions[0].parameters["disabled_reason"] == "Watcher node resource consolidation strategy"
    assert solution.indicators["released_compute_nodes_count"] == 2


def test_its_planner_is_one_that_there_is() -> None:
    """Migrations wait for the hosts to be disabled, enabling for the migrations."""
    planned = plan(of().actions, STRATEGY.planner, actions())
    kinds = [one.parameters.get("state", "migrate") for one in planned]
    assert kinds == ["disabled"] * 3 + ["migrate"] * 3 + ["enabled"] * 3


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"locked": True}, "is locked"),
        ({"excluded": True}, "is left out by the audit's scope"),
        ({"task_state": "x"}, "is busy (x)"),
        ({"status": "ERROR"}, "is ERROR"),
    ],
)
@pytest.mark.parametrize("choice", ["auto", "specify"])
def test_a_host_that_holds_who_stays_is_not_emptied(more: dict[str, Any], why: str, choice: str) -> None:
    solution = of([server("s", "a", **more), *SERVERS[1:]], host_choice=choice)
    assert {one.parameters.get("source_node") for one in solution.actions if one.action_type == "migrate"} == {"c"}
    assert f"host a can't be emptied: server s (s) {why}" in solution.notes


def test_what_the_scheduler_might_break_up_is_not_proposed() -> None:
    """On b and c four vCPUs are left each."""
    hosts = [host("a"), host("b"), host("c")]
    full = [server("t", "b", vcpus=6), server("u", "c", vcpus=6)]
    two = [server(f"s{n}", "a", vcpus=2) for n in range(3)]
    assert moves(of([*two, *full], hosts))[:4] == ["disabled:a", "s0:a>", "s1:a>", "s2:a>"], "to keep one out takes three on each"
    odd = [server("s0", "a", vcpus=4), server("s1", "a", vcpus=2), server("s2", "a", vcpus=2)]
    solution = of([*odd, *full], hosts)
    assert moves(solution) == [], "one of two on each host, and the one of four has no place"
    assert "whichever of them the scheduler chooses" in solution.notes[-1]
    assert moves(of([*odd, *full], hosts, host_choice="specify")) == ["s0:a>c", "s1:a>b", "s2:a>b"]


def test_whatever_the_scheduler_chooses_every_server_finds_a_place() -> None:
    """Clouds that are nearly full, and a scheduler that throws dice."""
    dice = random.Random(11)
    moved = 0
    for _ in range(300):
        hosts = [host(f"h{n}", vcpus=dice.choice((8, 16)), zone=dice.choice("xy")) for n in range(8)]
        left = {one.hostname: one.vcpus for one in hosts}
        servers: list[Server] = []
        for n in range(dice.randrange(5, 40)):
            much, at = dice.choice((1, 1, 2, 4)), dice.choice(hosts)
            if left[at.hostname] >= much:
                left[at.hostname] -= much
                pinned = at.zone if dice.random() < 0.1 else ""
                servers.append(server(f"s{n:02}", at.hostname, vcpus=much, pinned_zone=pinned))
        snapshot = Snapshot(revision=1, hosts=tuple(hosts), servers=tuple(servers))
        solution = of(servers, hosts)
        cloud = Simulated(snapshot)
        for action in solution.actions:
            if action.action_type == "migrate":
                mine = cloud.servers[action.parameters["resource_id"]]
                places = [
                    one.hostname
                    for one in cloud.hosts.values()
                    if one.usable and one.hostname != mine.host and mine.pinned_zone in ("", one.zone) and cloud.fits(mine, one)
                ]
                assert places, (solution, mine)
                action.parameters["destination_node"] = dice.choice(places)
                moved += 1
            cloud.do(action)
        after = cloud.snapshot()
        done = [Done(one.action_type, one.parameters, "SUCCEEDED") for one in solution.actions]
        assert measure(snapshot, after, {}, {}, done) == solution.indicators
        assert {one.status for one in after.hosts} == {"enabled"}
    assert moved > 200


def test_room_zones_and_hosts_that_are_off() -> None:
    tight = [host("a"), host("b", memory_reserved=9_950), host("c", status="disabled"), host("d", state="down")]
    servers = [server("s", "a", memory=1_000), server("t", "b", vcpus=4)]
    assert moves(of(servers, tight, host_choice="specify")) == ["t:b>a"]
    assert moves(of(servers, tight, host_choice="auto")) == ["disabled:b", "t:b>", "enabled:b"]
    for choice in ("auto", "specify"):
        assert moves(of([], HOSTS, host_choice=choice)) == []
    zones = [host("a", zone="x"), host("b", zone="y")]
    assert moves(of([server("s", "a", pinned_zone="x"), server("t", "b", pinned_zone="y")], zones)) == []
    assert with_defaults(STRATEGY, {}) == {"host_choice": "auto"}
