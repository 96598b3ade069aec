"""One server off the hottest host: small clouds whose answer can be told by hand."""

from __future__ import annotations

from typing import Any

import pytest
from small_clouds import found, host, moves, query, server

from vedette.model.advice import Query, Solution
from vedette.strategies.outlet_temperature import STRATEGY

HOSTS = [host("a"), host("b"), host("c")]
HOT = {"a": 36.0, "b": 30.0, "c": 20.0}


def of(temperatures: dict[str, float], *servers: Any, hosts: Any = HOSTS, **given: Any) -> Solution:
    return found(STRATEGY, hosts, list(servers), {"host_outlet_temp": temperatures}, **given)


def test_one_server_goes_from_the_hottest_host_to_the_coolest() -> None:
    """Bug 16 of Watcher: hosts are named as `migrate` takes them, not by their uuids."""
    solution = of({"a": 36.0, "b": 40.0, "c": 20.0}, server("s", "a"), server("t", "b"), server("u", "b"))
    assert moves(solution) == ["t:b>c"]
    assert solution.actions[0].parameters["migration_type"] == "live"
    assert query(STRATEGY) == Query("host_outlet_temp", "mean", 30, 300)


@pytest.mark.parametrize(("threshold", "wanted"), [(35.0, ["s:a>c"]), (36.0, ["s:a>c"]), (36.1, [])])
def test_the_threshold_itself_is_too_hot(threshold: float, wanted: list[str]) -> None:
    assert moves(of(HOT, server("s", "a"), threshold=threshold)) == wanted


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"locked": True}, "is locked"),
        ({"excluded": True}, "is left out by the audit's scope"),
        ({"task_state": "resizing"}, "is busy (resizing)"),
        ({"status": "SHUTOFF"}, ""),
    ],
)
def test_who_stays(more: dict[str, Any], why: str) -> None:
    solution = of(HOT, server("s", "a", **more), server("t", "a"))
    assert moves(solution) == ["t:a>c"]
    assert solution.notes == ((f"server s (s) stays: it {why}",) if why else ())


def test_who_has_no_place_lets_the_next_one_go() -> None:
    """Watcher gives up with the first."""
    solution = of(HOT, server("s", "a", vcpus=11), server("t", "a"), hosts=[host("a", vcpus=20), host("b"), host("c")])
    assert moves(solution) == ["t:a>c"]
    assert solution.notes == ("server s (s) stays on a: no host that is cool enough has room for it",)
    zones = [host("a", zone="east"), host("b", zone="east"), host("c", zone="west")]
    assert moves(of(HOT, server("s", "a", pinned_zone="east"), hosts=zones)) == ["s:a>b"]
    assert moves(of({"a": 40.0, "b": 39.0, "c": 20.0}, server("t", "b"))) == ["t:b>c"], "a has none"


def test_a_host_without_data_gives_nothing_and_gets_nothing() -> None:
    solution = of({"a": 36.0, "c": 20.0}, server("s", "a"), server("t", "b"))
    assert moves(solution) == ["s:a>c"]
    assert solution.notes == ("host b takes no part: no outlet temperature of it",)
    assert moves(of({"b": float("nan"), "c": 20.0}, server("t", "b"))) == []
    nobody = of({"a": 36.0}, server("s", "a"))
    assert (moves(nobody), nobody.notes[-1]) == ([], "no server can be taken off a host that is too hot")


def test_hosts_that_are_off_take_no_part() -> None:
    off = [host("a"), host("b", status="disabled"), host("c", state="down")]
    assert moves(of(HOT, server("s", "a"), hosts=off)) == []
    assert moves(of({"a": 20.0, "b": 50.0, "c": 50.0}, server("t", "b"), server("u", "c"), hosts=off)) == []
