"""One migration off the fullest host: small clouds whose answer can be told by hand."""

from __future__ import annotations

import random
from typing import Any

import pytest
from small_clouds import found, host, moves, query, server

from vedette.model.advice import Query, Solution
from vedette.model.snapshot import Snapshot
from vedette.ports import Done
from vedette.strategies.workload_balance import STRATEGY, measure
from vedette.testing.strategy_suite import with_defaults

A_B_C = [host("a"), host("b"), host("c")]


def of(use: dict[str, float], *servers: Any, hosts: Any = A_B_C, **given: Any) -> Solution:
    return found(STRATEGY, hosts, list(servers), {"instance_cpu_usage": use, "instance_ram_usage": use}, **given)


def test_the_server_that_is_closest_below_what_is_too_much_goes_to_the_emptiest_host() -> None:
    """a: 6 of 10 vCPUs, b: 1, c: 0; the mean is 2.33, too much are 3.67: the server of 3 goes, not that of 2, nor that of 1."""
    servers = [server("s1", "a"), server("s2", "a", vcpus=2), server("s3", "a", vcpus=3), server("t", "b")]
    solution = of(dict.fromkeys(("s1", "s2", "s3", "t"), 100.0), *servers, threshold=50)
    assert moves(solution) == ["s3:a>c"]
    assert solution.actions[0].parameters["migration_type"] == "live"
    assert solution.indicators == pytest.approx(
        {
            "instance_migrations_count": 1,
            "instances_count": 4,
            "standard_deviation_before_audit": 0.262467,
            "standard_deviation_after_audit": 0.094281,
        },
        abs=1e-6,
    )
    assert STRATEGY.metrics(Snapshot(revision=1), with_defaults(STRATEGY, {})) == [Query("instance_cpu_usage", "mean", 300, 300)]


def test_below_the_threshold_nothing_moves() -> None:
    solution = of({"s": 100.0, "t": 100.0}, server("s", "a"), server("t", "a"))
    assert (moves(solution), solution.notes) == ([], ("no host is above the threshold",))
    assert solution.indicators["standard_deviation_before_audit"] == solution.indicators["standard_deviation_after_audit"] > 0


@pytest.mark.parametrize(
    "more",
    [{"locked": True}, {"excluded": True}, {"task_state": "rebooting"}, {"status": "PAUSED"}, {"pinned_zone": "elsewhere"}],
)
def test_who_stays(more: dict[str, Any]) -> None:
    use = {"large": 100.0, "small": 100.0}
    servers = [server("large", "a", vcpus=3), server("small", "a")]
    assert moves(of(use, *servers, threshold=30)) == ["small:a>b"], "2.67 are too much: 3 are more"
    servers = [server("large", "a", vcpus=2, **more), server("small", "a", vcpus=1)]
    assert moves(of(use, *servers, threshold=30)) == ["small:a>b"]


def test_no_data_is_neither_0_nor_100() -> None:
    """Bug 18 of Watcher: a server without data fails its audit."""
    servers = [server("s", "a", vcpus=4), server("unknown", "a"), server("t", "a", vcpus=2), server("u", "b")]
    solution = of({"s": 100.0, "t": 100.0}, *servers, threshold=50)
    assert moves(solution) == ["s:a>c"], "what is on b is not known"
    assert solution.notes == (
        "host a is given nothing: no data of server unknown (unknown)",
        "host b is given nothing: no data of server u (u)",
    )
    assert moves(of({"s": float("nan"), "t": 100.0}, *servers, threshold=50)) == []
    assert moves(of({"s": 100.0, "t": 100.0}, *servers[:3], server("u", "b", status="SHUTOFF"), threshold=50)) == ["s:a>b"]


def test_who_takes_stays_below_the_threshold_and_has_room() -> None:
    servers = [server("s", "a", vcpus=4), server("t", "a", vcpus=2)]
    use = {"s": 100.0, "t": 100.0}
    assert moves(of(use, *servers, threshold=40)) == ["t:a>b"], "s alone would make b reach it"
    assert moves(of(use, *servers, threshold=41)) == ["s:a>b"]
    full = [host("a"), host("b", memory_reserved=9_950), host("c")]
    assert moves(of(use, *servers, hosts=full, threshold=41)) == ["s:a>c"]
    off = [host("a"), host("b", status="disabled"), host("c", state="down")]
    assert moves(of(use, *servers, hosts=off, threshold=41)) == []
    alone = of(use, *servers, hosts=[host("a")], threshold=41)
    assert (moves(alone), alone.notes) == (
        [],
        ("nothing that could be moved makes the load more even: the threshold stays exceeded",),
    )


def test_memory_is_a_load_too() -> None:
    servers = [server("s", "a", memory=4_000), server("t", "a", memory=500)]
    solution = of({"s": 3_000.0, "t": 500.0}, *servers, metrics="instance_ram_usage")
    assert moves(solution) == ["t:a>b"], "2,333 MiB are too much: 3,000 are more"
    assert query(STRATEGY, metrics="instance_ram_usage") == Query("instance_ram_usage", "mean", 300, 300)


def test_on_many_hosts_it_never_makes_the_load_less_even() -> None:
    dice = random.Random(3)
    hosts = [host(f"h{n:02}", vcpus=dice.choice((4, 8, 32)), vcpus_ratio=16.0) for n in range(30)]
    moved = 0
    for _ in range(50):
        servers = [server(f"s{n:03}", dice.choice(hosts).hostname, vcpus=dice.choice((1, 2, 4))) for n in range(90)]
        solution = of({one.uuid: dice.uniform(0, 100) for one in servers}, *servers, hosts=hosts, threshold=30)
        told = solution.indicators
        moved += len(solution.actions)
        if solution.actions:
            assert told["standard_deviation_after_audit"] < told["standard_deviation_before_audit"]
    assert moved > 10


def test_it_is_measured_afterwards() -> None:
    snapshot = Snapshot(revision=1, hosts=(host("a"), host("b")), servers=(server("s", "b"), server("t", "a", vcpus=3)))
    parameters = with_defaults(STRATEGY, {})
    told = measure(snapshot, snapshot, {query(STRATEGY): {"s": 100, "t": 100}}, parameters, [Done("migrate", {}, "SUCCEEDED")])
    assert told == pytest.approx({"instance_migrations_count": 1, "instances_count": 2, "standard_deviation_after_audit": 0.1})
