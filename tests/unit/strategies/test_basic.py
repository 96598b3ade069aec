"""Which hosts are emptied onto which: small clouds whose answer can be told by hand."""

from __future__ import annotations

from typing import Any

import pytest
from small_clouds import found, host, moves, query, server

from vedette.model.advice import Query, Solution
from vedette.model.snapshot import Host, Server
from vedette.strategies.basic import STRATEGY

HOSTS = [host("a"), host("b"), host("c"), host("empty")]
LOAD = {"a": 10.0, "b": 50.0, "c": 30.0, "empty": 0.0}
SERVERS = [server("s", "a"), server("t", "b", vcpus=5), server("u", "c", vcpus=3)]
USE = {"s": 100.0, "t": 100.0, "u": 100.0}


def of(
    servers: list[Server] = SERVERS,
    load: dict[str, float] = LOAD,
    use: dict[str, float] = USE,
    hosts: list[Host] = HOSTS,
    **given: Any,
) -> Solution:
    return found(STRATEGY, hosts, servers, {"host_cpu_usage": load, "instance_cpu_usage": use}, **given)


def test_the_least_loaded_goes_onto_the_most_loaded_then_the_next_one() -> None:
    """Hosts without servers are neither filled nor disabled, as in Watcher: nobody says what they are there for."""
    solution = of()
    assert moves(solution) == ["s:a>b", "u:c>b", "disabled:a", "disabled:c"]
    assert solution.actions[0].parameters["migration_type"] == "live"
    assert solution.actions[2].parameters["disabled_reason"] == "watcher_disabled"
    assert solution.indicators == {
        "compute_nodes_count": 4,
        "released_compute_nodes_count": 2,
        "instance_migrations_count": 2,
    }
    assert [query(STRATEGY, n) for n in (0, 1)] == [
        Query("host_cpu_usage", "mean", 7200, 300),
        Query("instance_cpu_usage", "mean", 7200, 300),
    ]


def test_the_old_name_of_an_aggregate_is_the_hosts() -> None:
    given = {"aggregation_method": {"instance": "min", "compute_node": "mean", "node": "max"}}
    assert [query(STRATEGY, n, **given).aggregate for n in (0, 1)] == ["max", "min"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"locked": True}, "is locked"),
        ({"excluded": True}, "is left out by the audit's scope"),
        ({"task_state": "x"}, "is busy (x)"),
        ({"status": "SHUTOFF"}, "does not run"),
    ],
)
def test_a_host_that_holds_who_stays_is_not_emptied_by_half(more: dict[str, Any], why: str) -> None:
    solution = of([server("s", "a"), server("r", "a", **more), *SERVERS[1:]], use={**USE, "r": 5.0})
    assert moves(solution) == ["u:c>b", "disabled:c"]
    assert solution.notes == (f"host a can't be emptied: server r (r) {why}",)


def test_no_data_is_neither_0_nor_100() -> None:
    solution = of(use={"t": 100.0, "u": 100.0})
    assert moves(solution) == ["u:c>b", "disabled:c"]
    assert solution.notes == ("host a can't be emptied: server s (s) has no data",)
    solution = of(load={"a": 10.0, "c": 30.0})
    assert moves(solution) == ["s:a>c", "disabled:a"]
    assert solution.notes == ("host b takes no part: no data of it",)
    assert moves(of(load={"a": float("nan"), "b": 50.0, "c": 30.0})) == ["u:c>b", "disabled:c"]


def test_no_host_gets_more_load_or_more_flavors_than_it_takes() -> None:
    assert moves(of(load={**LOAD, "b": 95.0})) == ["s:a>c", "t:b>c", "disabled:a", "disabled:b"], "b would use 10.5 of 10"
    full = [host("a"), host("b", memory_reserved=9_950), host("c")]
    assert moves(of(hosts=full)) == ["s:a>c", "t:b>c", "disabled:a", "disabled:b"]
    zones = [host("a", zone="x"), host("b", zone="y"), host("c", zone="x")]
    assert moves(of([server("s", "a", pinned_zone="x"), *SERVERS[1:]], hosts=zones)) == [
        "s:a>c",
        "t:b>c",
        "disabled:a",
        "disabled:b",
    ]
    off = [host("a"), host("b", status="disabled"), host("c", state="down")]
    assert moves(of(hosts=off)) == []


def test_it_gives_up_after_so_many_attempts() -> None:
    """The two with the least can't be emptied: what they hold is too large for the others."""
    hosts = [host("a", vcpus=20), host("b", vcpus=20), host("c"), host("d")]
    servers = [server("s", "a", vcpus=11), server("t", "b", vcpus=11), server("u", "c"), server("v", "d")]
    load, use = {"a": 1.0, "b": 2.0, "c": 30.0, "d": 40.0}, dict.fromkeys("stuv", 1.0)
    assert moves(of(servers, load, use, hosts)) == ["u:c>d", "disabled:c"]
    assert moves(of(servers, load, use, hosts, migration_attempts=3)) == ["u:c>d", "disabled:c"]
    assert moves(of(servers, load, use, hosts, migration_attempts=2)) == []
