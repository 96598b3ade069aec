"""Which hosts are emptied, and which are relieved: small clouds whose answer can be told by hand."""

from __future__ import annotations

from typing import Any

import pytest

from vedette.model.advice import Query, Solution
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.ports import Done
from vedette.strategies._consolidate import released_of
from vedette.strategies.vm_workload_consolidation import STRATEGY, propose
from vedette.testing.strategy_suite import with_defaults

CPU, RAM, HOST_CPU, HOST_RAM = (
    Query(name, "mean", 3600, 300, optional=True)
    for name in ("instance_cpu_usage", "instance_ram_usage", "host_cpu_usage", "host_ram_usage")
)


def host(name: str, **more: Any) -> Host:
    return Host(uuid=f"u-{name}", hostname=name, **{"vcpus": 10, "memory": 10_000, "disk": 1_000, **more})


def server(name: str, on: str, **more: Any) -> Server:
    return Server(uuid=name, name=name, host=on, **{"vcpus": 2, "memory": 1_000, "disk": 1, **more})


def found(hosts: list[Host], servers: list[Server], metrics: dict[Query, dict[str, float]] | None = None) -> Solution:
    snapshot = Snapshot(revision=1, hosts=tuple(hosts), servers=tuple(servers))
    return propose(snapshot, metrics or {}, with_defaults(STRATEGY, {}), ())


def told(solution: Solution) -> list[str]:
    """Each action in a word."""
    return [
        f"{one.parameters['resource_id']}:{one.parameters['source_node']}>{one.parameters['destination_node']}"
        if one.action_type == "migrate"
        else f"{one.parameters['state']}:{one.parameters['resource_name']}"
        for one in solution.actions
    ]


A_B_C = [host("a"), host("b"), host("c")]
THREE = [server("s", "a"), server("t", "b"), server("u", "b")]


def test_the_host_with_least_goes_onto_the_one_with_most_and_empty_ones_are_disabled() -> None:
    solution = found(A_B_C, THREE)
    assert told(solution) == ["s:a>b", "disabled:a", "disabled:c"]
    assert solution.actions[0].parameters == {
        "resource_id": "s",
        "resource_name": "s",
        "migration_type": "live",
        "source_node": "a",
        "destination_node": "b",
    }
    assert solution.actions[1].parameters["disabled_reason"] == "watcher_disabled"
    assert solution.indicators == {
        "compute_nodes_count": 3,
        "released_compute_nodes_count": 2,
        "instance_migrations_count": 1,
    }
    assert solution.notes == ("3 of 3 servers count by their flavors: no data of them",)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"locked": True}, "is locked"),
        ({"excluded": True}, "is left out by the audit's scope"),
        ({"task_state": "rebooting"}, "is busy (rebooting)"),
        ({"status": "ERROR"}, "is ERROR"),
    ],
)
def test_a_host_that_holds_who_stays_is_not_emptied_by_half(more: dict[str, Any], why: str) -> None:
    servers = [server("s", "a", vcpus=1, **more), server("s2", "a", vcpus=1), *(server(f"t{n}", "b") for n in range(2))]
    solution = found([host("a", vcpus=3), host("b")], servers)
    assert told(solution) == []
    assert f"host a can't be emptied: server s (s) {why}" in solution.notes


def test_who_is_shut_off_is_migrated_cold_and_who_is_pinned_stays_in_its_zone() -> None:
    servers = [server("s", "a", status="SHUTOFF"), server("t", "b"), server("u", "b")]
    assert found(A_B_C, servers).actions[0].parameters["migration_type"] == "cold"
    zones = [host("a", zone="east"), host("b", zone="west"), host("c", zone="east")]
    pinned = [server("s", "a", pinned_zone="east"), server("t", "b", pinned_zone="west"), server("u", "b", pinned_zone="west")]
    assert told(found(zones, pinned)) == ["disabled:c"]


@pytest.mark.parametrize("less", [{"vcpus": 5}, {"memory": 2_500}, {"disk": 2}, {"vcpus_reserved": 5}, {"memory_ratio": 0.25}])
def test_what_has_no_room_gets_nothing(less: dict[str, Any]) -> None:
    assert told(found([host("a"), host("b", **less)], THREE)) == ["t:b>a", "u:b>a", "disabled:b"]
    big = [server("s", "a", vcpus=6, memory=6_000, disk=600), *THREE[1:]]
    assert told(found([host("a", vcpus=6, memory=6_000, disk=600), host("b", **less)], big)) == []


def test_measurements_count_and_more_than_the_ratio_allows_is_never_given() -> None:
    """By their flavors the servers would not fit, but a ratio of 2 lets them, and they use little."""
    hosts = [host("a", vcpus=4, vcpus_ratio=2.0), host("b", vcpus=4, vcpus_ratio=2.0)]
    servers = [server("s", "a", vcpus=3), server("t", "b", vcpus=4)]
    assert told(found(hosts, servers)) == []
    use = {"s": 10.0, "t": 50.0}
    assert told(found(hosts, servers, {CPU: use, RAM: {"s": 100.0, "t": 100.0}})) == ["s:a>b", "disabled:a"]
    narrow = [host("a", vcpus=4), host("b", vcpus=4)]
    assert told(found(narrow, servers, {CPU: use, RAM: {"s": 100.0, "t": 100.0}})) == []


def test_load_that_is_no_servers_fills_a_host_too() -> None:
    assert told(found([host("a"), host("b")], THREE)) == ["s:a>b", "disabled:a"]
    assert told(found([host("a"), host("b")], THREE, {HOST_CPU: {"b": 90.0}})) == ["t:b>a", "u:b>a", "disabled:b"]
    assert told(found([host("a"), host("b")], THREE, {HOST_RAM: {"b": 9_500.0}})) == ["t:b>a", "u:b>a", "disabled:b"]


def test_an_overloaded_host_is_relieved_first_and_given_nothing() -> None:
    hosts = [host("a", vcpus=4, vcpus_ratio=4.0), host("b"), host("c")]
    servers = [server("small", "a"), server("large", "a", vcpus=4), server("t", "b", vcpus=6)]
    solution = found(hosts, servers)
    assert told(solution) == ["small:a>b", "disabled:c"]
    alone = found([hosts[0], hosts[2]], servers[:2])
    assert told(alone) == ["disabled:c"]
    assert "host a stays overloaded: no other host with servers takes more of its servers" in alone.notes


def test_hosts_that_are_off_take_no_part() -> None:
    hosts = [host("a"), host("b", status="disabled"), host("c", state="down")]
    servers = [server("s", "a"), server("t", "b"), server("u", "c")]
    solution = found(hosts, servers)
    assert (told(solution), solution.indicators["compute_nodes_count"]) == ([], 1)
    assert told(found([], [])) == []


def test_it_is_measured_afterwards() -> None:
    before = Snapshot(revision=1, hosts=tuple(A_B_C), servers=tuple(THREE))
    off = [host("a", status="disabled"), host("b"), host("c", status="disabled")]
    after = Snapshot(revision=2, hosts=tuple(off), servers=(server("s", "b"), server("t", "c"), server("u", "b")))
    done = [Done("migrate", {}, "SUCCEEDED"), Done("migrate", {}, "FAILED"), Done("nop", {}, "SUCCEEDED")]
    assert released_of(before, after, {}, with_defaults(STRATEGY, {}), done) == {
        "compute_nodes_count": 3,
        "released_compute_nodes_count": 1,
        "instance_migrations_count": 1,
    }


def test_no_meter_is_no_reason_not_to_run() -> None:
    assert STRATEGY.metrics(Snapshot(revision=1), with_defaults(STRATEGY, {})) == [CPU, RAM, HOST_CPU, HOST_RAM]
    assert all(query.optional for query in (CPU, RAM, HOST_CPU, HOST_RAM))
