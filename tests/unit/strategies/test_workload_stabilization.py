"""Which moves even out the load: small clouds whose best moves can be told by hand."""

from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest

from vedette.model.advice import Query, Solution
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done
from vedette.strategies.workload_stabilization import STRATEGY, measure, propose
from vedette.testing.strategy_suite import with_defaults

CPU, HOST_CPU = Query("instance_cpu_usage", "mean", 720, 300), Query("host_cpu_usage", "mean", 600, 300)
RAM, HOST_RAM = Query("instance_ram_usage", "mean", 720, 300), Query("host_ram_usage", "mean", 600, 300)


def host(name: str, **more: Any) -> Host:
    return Host(uuid=f"u-{name}", hostname=name, vcpus=10, memory=10_000, disk=1_000, **more)


def server(name: str, on: str, **more: Any) -> Server:
    return Server(uuid=name, name=name, host=on, **{"vcpus": 1, "memory": 100, "disk": 1, **more})


def found(
    hosts: list[Host], servers: list[Server], of_hosts: dict[str, float], of_servers: dict[str, float], **given: Any
) -> Solution:
    snapshot = Snapshot(revision=1, hosts=tuple(hosts), servers=tuple(servers))
    return propose(snapshot, {HOST_CPU: of_hosts, CPU: of_servers}, with_defaults(STRATEGY, given), ())


def moves(solution: Solution) -> list[str]:
    return [
        f"{one.parameters['resource_id']}:{one.parameters['source_node']}>{one.parameters['destination_node']}"
        for one in solution.actions
    ]


A_B = [host("a"), host("b")]


def test_one_move_evens_two_hosts() -> None:
    """90 % and 10 %: of 40 % of a host and 10 %, the larger one leaves 50 and 50."""
    servers = [server("large", "a", vcpus=4), server("small", "a")]
    solution = found(A_B, servers, {"a": 90, "b": 10}, {"large": 100, "small": 100})
    assert moves(solution) == ["large:a>b"]
    assert solution.actions[0].parameters == {
        "resource_id": "large",
        "resource_name": "large",
        "migration_type": "live",
        "source_node": "a",
        "destination_node": "b",
    }
    assert solution.indicators == pytest.approx(
        {
            "instance_migrations_count": 1,
            "instances_count": 2,
            "standard_deviation_before_audit": 0.4,
            "standard_deviation_after_audit": 0.0,
        },
        abs=1e-9,
    )


def test_below_the_threshold_nothing_moves() -> None:
    solution = found(A_B, [server("s", "a")], {"a": 50, "b": 35}, {"s": 100})
    assert (moves(solution), solution.indicators["standard_deviation_after_audit"]) == ([], pytest.approx(0.075))
    strict = {"thresholds": {"instance_cpu_usage": 0.01}}
    assert moves(found(A_B, [server("s", "a")], {"a": 50, "b": 35}, {"s": 100}, **strict)) == ["s:a>b"]


@pytest.mark.parametrize(
    "more",
    [{"locked": True}, {"excluded": True}, {"task_state": "rebooting"}, {"status": "SHUTOFF"}, {"pinned_zone": "elsewhere"}],
)
def test_who_stays(more: dict[str, Any]) -> None:
    servers = [server("s", "a", vcpus=4, **more), server("other", "a")]
    solution = found(A_B, servers, {"a": 90, "b": 10}, {"s": 100, "other": 100})
    assert moves(solution) == ["other:a>b"]


def test_no_data_is_neither_0_nor_100() -> None:
    hosts = [*A_B, host("c")]
    servers = [server("s", "a", vcpus=4), server("t", "a", vcpus=4)]
    solution = found(hosts, servers, {"a": 90, "b": 10}, {"s": 100})
    assert moves(solution) == ["s:a>b"]
    assert solution.notes == ("host c takes no part: no data of it", "server t (t) stays: no data of it")
    assert moves(found(hosts, servers, {"a": math.nan, "b": 10}, {"s": 100})) == []
    assert moves(propose_nothing()) == []


def propose_nothing() -> Solution:
    return propose(Snapshot(revision=1), {}, with_defaults(STRATEGY), ())


def test_where_there_is_no_room_or_no_host_nothing_goes() -> None:
    full = [host("a"), host("b", memory_reserved=9_950)]
    solution = found(full, [server("s", "a", vcpus=4)], {"a": 90, "b": 10}, {"s": 100})
    assert moves(solution) == []
    assert "no more moves lower the deviation" in solution.notes[-1]
    off = [host("a"), host("b", status="disabled"), host("c")]
    assert moves(found(off, [server("s", "a", vcpus=4)], {"a": 90, "b": 0, "c": 20}, {"s": 100})) == ["s:a>c"]


def test_memory_counts_too() -> None:
    snapshot = Snapshot(revision=1, hosts=tuple(A_B), servers=(server("s", "a", memory=4_000), server("t", "a")))
    metrics = {HOST_RAM: {"a": 9_000.0, "b": 1_000.0}, RAM: {"s": 4_000.0, "t": 50.0}}
    solution = propose(snapshot, metrics, with_defaults(STRATEGY, {"metrics": ["instance_ram_usage"]}), ())
    assert moves(solution) == ["s:a>b"]
    assert STRATEGY.metrics(snapshot, with_defaults(STRATEGY, {"metrics": ["instance_ram_usage"]})) == [RAM, HOST_RAM]


@pytest.mark.parametrize("choice", ["retry", "cycle", "fullsearch"])
def test_many_hosts_come_below_the_threshold_and_the_sums_are_right(choice: str) -> None:
    """The deviation that is kept as sums is the one that statistics finds."""
    dice = random.Random(5)
    hosts = [host(f"h{n:02}", vcpus_ratio=16.0) for n in range(20)]
    servers, of_servers = [], {}
    load = {one.hostname: 0.0 for one in hosts}
    for n in range(200):
        on = hosts[min(int(dice.expovariate(0.25)), 19)].hostname
        servers.append(server(f"s{n:03}", on))
        of_servers[f"s{n:03}"] = dice.uniform(5, 60)
        load[on] += of_servers[f"s{n:03}"] / 10
    solution = found(hosts, servers, load, of_servers, host_choice=choice)
    before = statistics.pstdev(value / 100 for value in load.values())
    for one in solution.actions:
        share = of_servers[one.parameters["resource_id"]] / 10
        load[one.parameters["source_node"]] -= share
        load[one.parameters["destination_node"]] += share
    after = statistics.pstdev(value / 100 for value in load.values())
    assert before > 0.1 >= after
    assert solution.indicators["standard_deviation_before_audit"] == pytest.approx(before)
    assert solution.indicators["standard_deviation_after_audit"] == pytest.approx(after)


def test_it_is_measured_afterwards() -> None:
    snapshot = Snapshot(revision=1, hosts=tuple(A_B), servers=(server("s", "b"), server("t", "a")))
    done = [Done("migrate", {}, "SUCCEEDED"), Done("migrate", {}, "FAILED")]
    told = measure(snapshot, snapshot, {HOST_CPU: {"a": 60, "b": 40}}, with_defaults(STRATEGY), done)
    assert told == pytest.approx({"instance_migrations_count": 1, "instances_count": 2, "standard_deviation_after_audit": 0.1})
