"""A host whose fans blow is emptied, or relieved: small clouds whose answer can be told by hand."""

from __future__ import annotations

from typing import Any

import pytest
from small_clouds import found, host, moves, query, server

from vedette.model.advice import Query, Solution
from vedette.strategies.uniform_airflow import STRATEGY

HOSTS = [host("a"), host("b"), host("c")]
WIND = {"a": 500.0, "b": 300.0, "c": 100.0}


def of(
    *servers: Any,
    airflow: dict[str, float] = WIND,
    inlet: float | None = 20.0,
    power: float | None = 100.0,
    hosts: Any = HOSTS,
    **given: Any,
) -> Solution:
    values = {
        "host_airflow": airflow,
        "host_inlet_temp": {} if inlet is None else dict.fromkeys("abc", inlet),
        "host_power": {} if power is None else dict.fromkeys("abc", power),
    }
    return found(STRATEGY, hosts, list(servers), values, **given)


def test_fans_that_blow_for_nothing_empty_the_host_large_servers_first() -> None:
    hosts = [host("a", vcpus=20), host("b"), host("c")]
    solution = of(server("s", "a"), server("large", "a", vcpus=9), server("t", "a", status="PAUSED", vcpus=2), hosts=hosts)
    assert moves(solution) == ["large:a>c", "t:a>b", "s:a>c"]
    assert {one.parameters["migration_type"] for one in solution.actions} == {"live"}
    assert [query(STRATEGY, n) for n in range(3)] == [
        Query("host_airflow", "mean", 300, 300),
        Query("host_inlet_temp", "mean", 300, 300),
        Query("host_power", "mean", 300, 300),
    ]


@pytest.mark.parametrize(("inlet", "power"), [(28.0, 100.0), (20.0, 350.0), (40.0, 900.0)])
def test_fans_that_blow_for_the_load_let_one_server_go(inlet: float, power: float) -> None:
    assert moves(of(server("s", "a"), server("t", "a"), inlet=inlet, power=power)) == ["s:a>c"]


def test_a_host_is_emptied_altogether_or_not_at_all() -> None:
    hosts = [host("a", vcpus=40), host("b"), host("c")]
    solution = of(server("s", "a"), server("large", "a", vcpus=11), hosts=hosts)
    assert moves(solution) == []
    assert solution.notes == ("host a can't be emptied: no host with less airflow has room for server large (large)",)
    for more, why in (
        ({"locked": True}, "is locked"),
        ({"excluded": True}, "is left out by the audit's scope"),
        ({"task_state": "x"}, "is busy (x)"),
    ):
        solution = of(server("s", "a"), server("t", "a", **more))
        assert (moves(solution), solution.notes) == ([], (f"host a can't be emptied: server t (t) {why}",))


def test_what_is_shut_off_stays_and_who_is_held_lets_another_go() -> None:
    """Bug 19 of Watcher: it moves what doesn't run, and what it was told to leave alone."""
    assert moves(of(server("off", "a", status="SHUTOFF"), server("s", "a"))) == ["s:a>c"]
    assert moves(of(server("r", "a", locked=True), server("s", "a"), inlet=30.0)) == ["s:a>c"]
    assert moves(of(server("r", "a", vcpus=11), server("s", "a"), hosts=[host("a", vcpus=40), *HOSTS[1:]], inlet=30.0)) == [
        "s:a>c"
    ]


def test_without_data_a_host_is_left_alone() -> None:
    """Bug 19 of Watcher: it compares nothing with a number."""
    for missing, what in (({"inlet": None}, "inlet temperature"), ({"power": None}, "power")):
        solution = of(server("s", "a"), **missing)  # type: ignore[arg-type]
        assert (moves(solution), solution.notes) == ([], (f"host a is left alone: no {what} of it",))
    solution = of(server("s", "a"), server("t", "b"), airflow={"a": 500.0, "c": 100.0})
    assert (moves(solution), solution.notes) == (["s:a>c"], ("host b takes no part: no airflow of it",))


def test_the_next_host_has_its_turn_when_the_first_has_nothing() -> None:
    both = {"a": 600.0, "b": 500.0, "c": 100.0}
    assert moves(of(server("t", "b"), airflow=both)) == ["t:b>c"]
    assert moves(of(server("s", "a"), server("t", "b"), airflow=both, threshold_airflow=700)) == []
    assert of(airflow={}, threshold_airflow=700).notes[-1] == "no host has too much airflow"
    assert moves(of(server("s", "a"), hosts=[host("a"), host("b", status="disabled"), host("c", state="down")])) == []
