"""Who takes the cache of whom: small clouds whose answer can be told by hand."""

from __future__ import annotations

from typing import Any

import pytest
from small_clouds import host, moves, server

from vedette.model.advice import Query, Solution
from vedette.model.snapshot import Host, Server, Snapshot
from vedette.strategies.noisy_neighbor import STRATEGY, priority, propose
from vedette.testing.strategy_suite import with_defaults

HOSTS = [host("a"), host("b"), host("c")]
LOST, GAINED, SAME = (50.0, 100.0), (200.0, 100.0), (100.0, 100.0)


def of(cache: dict[str, tuple[float, float]], *servers: Server, hosts: list[Host] = HOSTS, **given: Any) -> Solution:
    """`cache`: server → (in the last period, in the one before)."""
    snapshot = Snapshot(revision=1, hosts=tuple(hosts), servers=servers)
    last = {name: now for name, (now, _) in cache.items()}
    both = {name: (now + before) / 2 for name, (now, before) in cache.items()}
    metrics = {Query("instance_l3_cache_usage", "mean", 100, 300): last, Query("instance_l3_cache_usage", "mean", 200, 300): both}
    return propose(snapshot, metrics, with_defaults(STRATEGY, given), ())


def matters(name: str, on: str, much: Any = None, **more: Any) -> Server:
    return server(name, on, metadata={} if much is None else {"watcher-priority": much}, **more)


def test_who_gained_what_another_lost_goes_to_the_host_with_fewest_servers() -> None:
    """Bug 16 of Watcher: hosts are named as `migrate` takes them."""
    servers = (matters("db", "a", "1"), matters("batch", "a", "9"), matters("web", "a", "9"), server("x", "b"))
    solution = of({"db": LOST, "batch": GAINED, "web": SAME, "x": SAME}, *servers)
    assert moves(solution) == ["batch:a>c"]
    assert solution.actions[0].parameters["migration_type"] == "live"
    assert solution.notes == ("server batch (batch) takes the cache of server db (db) on a",)


@pytest.mark.parametrize(
    ("db", "batch", "wanted"),
    [
        ((64.9, 100.0), (135.1, 100.0), ["batch:a>b"]),
        ((65.0, 100.0), GAINED, []),
        (LOST, (135.0, 100.0), []),
        (SAME, GAINED, []),
        (LOST, SAME, []),
    ],
)
def test_both_have_to_pass_the_threshold(db: tuple[float, float], batch: tuple[float, float], wanted: list[str]) -> None:
    assert moves(of({"db": db, "batch": batch}, matters("db", "a", 1), matters("batch", "a", 9))) == wanted


def test_who_matters_more_is_never_called_noisy() -> None:
    assert moves(of({"db": GAINED, "batch": LOST}, matters("db", "a", 1), matters("batch", "a", 9))) == []
    assert moves(of({"db": GAINED, "batch": LOST}, matters("db", "a", 5), matters("batch", "a"))) == ["db:a>b"]


@pytest.mark.parametrize(
    ("said", "wanted"), [(None, 5), ("1", 1), (9, 9), ("high", 5), ([], 5), ("nan", 5), ("inf", 5), (2.5, 2.5), (10**400, 5)]
)
def test_priorities(said: Any, wanted: float) -> None:
    """Bug 17 of Watcher: it compares None with text, and never uses its default."""
    assert priority(matters("s", "a", said)) == wanted


@pytest.mark.parametrize("more", [{"locked": True}, {"excluded": True}, {"task_state": "x"}, {"status": "PAUSED"}])
def test_who_stays(more: dict[str, Any]) -> None:
    servers = (matters("db", "a", 1), matters("batch", "a", 9, **more), matters("loud", "a", 8))
    assert moves(of({"db": LOST, "batch": GAINED, "loud": GAINED}, *servers)) == ["loud:a>b"]


def test_who_matters_most_is_helped_first_and_troubled_hosts_get_nothing() -> None:
    servers = (matters("db", "b", 1), matters("batch", "b", 9), matters("web", "a", 3), matters("loud", "a", 9))
    cache = {"db": LOST, "batch": GAINED, "web": LOST, "loud": GAINED}
    assert moves(of(cache, *servers)) == ["batch:b>c"]
    assert moves(of(cache, *servers, hosts=HOSTS[:2])) == []
    tight = [host("a"), host("b", vcpus=40), host("c")]
    large = (servers[0], matters("batch", "b", 9, vcpus=11), *servers[2:])
    solution = of(cache, *large, hosts=tight)
    assert moves(solution) == ["loud:a>c"]
    assert solution.notes[0] == "server batch (batch) takes the cache of server db (db), and no other host has room for it"


def test_without_data_nobody_is_called_anything() -> None:
    solution = of({"batch": GAINED}, matters("db", "a", 1), matters("batch", "a", 9))
    assert (moves(solution), solution.notes) == ([], ("1 servers take no part: no data of their cache",))
    assert moves(propose(Snapshot(revision=1), {}, with_defaults(STRATEGY, {}), ())) == []


def test_a_period_before_that_comes_out_below_0_is_no_data() -> None:
    servers = (matters("db", "a", 1), matters("batch", "a", 9))
    assert moves(of({"db": LOST, "batch": (100.0, 0.0)}, *servers)) == ["batch:a>b"]
    solution = of({"db": LOST, "batch": (100.0, -40.0)}, *servers)
    assert (moves(solution), solution.notes) == ([], ("1 servers take no part: no data of their cache",))


def test_hosts_that_are_off_take_no_part() -> None:
    servers = (matters("db", "a", 1), matters("batch", "a", 9))
    cache = {"db": LOST, "batch": GAINED}
    assert moves(of(cache, *servers, hosts=[host("a"), host("b", status="disabled"), host("c", state="down")])) == []
    assert moves(of(cache, *servers, hosts=[host("a", state="down"), host("b")])) == []
    assert moves(of(cache, *servers, hosts=[host("a", status="disabled"), host("b")])) == ["batch:a>b"]
