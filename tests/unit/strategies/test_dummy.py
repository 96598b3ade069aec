"""The dummies propose what Watcher's do, and the scoring engines score as its samples do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vedette.errors import BadRequest
from vedette.model.advice import Proposed
from vedette.model.snapshot import Snapshot
from vedette.strategies import dummy, dummy_with_resize, dummy_with_scorer
from vedette.strategies._scoring import SCORING_ENGINES, WORKLOADS, MiB, scored
from vedette.testing.strategy_suite import with_defaults

EMPTY = Snapshot(revision=1)


def test_two_messages_and_a_pause() -> None:
    asked = with_defaults(dummy.STRATEGY, {"para1": 7.5, "para2": "there"})
    assert dummy.propose(EMPTY, {}, asked, ()).actions == (
        Proposed("nop", {"message": "hello World"}),
        Proposed("nop", {"message": "there"}),
        Proposed("sleep", {"duration": 7.5}),
    )
    usual = dummy.propose(EMPTY, {}, with_defaults(dummy.STRATEGY), ()).actions
    assert [one.parameters for one in usual[1:]] == [{"message": "hello"}, {"duration": 3.2}]


def test_migrations_and_a_resize_of_servers_that_are_made_up() -> None:
    found = dummy_with_resize.propose(EMPTY, {}, with_defaults(dummy_with_resize.STRATEGY), ())
    assert [one.action_type for one in found.actions] == ["nop", "nop", "sleep", "migrate", "migrate", "resize"]
    assert found.actions[3].parameters == {
        "resource_id": "b199db0c-1408-4d52-b5a5-5ca14de0ff36",
        "source_node": "compute2",
        "destination_node": "compute3",
        "migration_type": "live",
    }
    assert found.actions[5].parameters == {"resource_id": found.actions[4].parameters["resource_id"], "flavor": "x2"}


def test_what_was_scored_follows_from_the_revision() -> None:
    def said(revision: int) -> list[Any]:
        found = dummy_with_scorer.propose(Snapshot(revision=revision), {}, with_defaults(dummy_with_scorer.STRATEGY), ())
        assert [one.action_type for one in found.actions] == ["nop", "nop", "nop", "sleep"]
        return [one.parameters["message"] for one in found.actions[:3]]

    assert said(1) == said(1)
    every = [said(revision) for revision in range(40)]
    assert {one[0] for one in every} == {"Hello from Dummy Strategy with Scorer!"}
    assert {one[1].removeprefix("Detected Workload: ") for one in every} == set(WORKLOADS)
    averages = [float(one[2].removeprefix("AVG Scorer result: ")) for one in every]
    assert len(set(averages)) > 30
    assert all(0 <= one < 1000 for one in averages)


def features(**some: float) -> list[float]:
    names = ["busy", "total", "available", "reads", "writes", "disk_reads", "disk_writes", "received", "sent"]
    return [some.get(name, 0) for name in names]


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (features(), [0, 100.0, 0.0, 0.0, 0.0]),
        (features(busy=40), [0, 100.0, 50.0, 0.0, 0.0]),
        (features(busy=39, writes=500), [0, 100.0, 0.0, 50.0, 0.0]),
        (features(reads=500), [0, 100.0, 0.0, 50.0, 0.0]),
        (features(busy=80, reads=2000, writes=2000), [1, 0.0, 100.0, 0.0, 0.0]),
        (features(busy=79, reads=1000, writes=1000), [2, 0.0, 0.0, 100.0, 0.0]),
        (features(reads=1000, writes=999), [0, 100.0, 0.0, 50.0, 0.0]),
        (features(disk_reads=50 * MiB, disk_writes=50 * MiB), [3, 0.0, 0.0, 0.0, 100.0]),
        (features(disk_reads=50 * MiB, disk_writes=50 * MiB - 1), [0, 100.0, 0.0, 0.0, 0.0]),
    ],
)
def test_workloads(given: list[float], result: list[float]) -> None:
    assert scored("dummy_scorer", given) == result


def test_minimum_maximum_and_average() -> None:
    assert [scored(f"dummy_{name}_scorer", [4, 1, 7]) for name in ("min", "max", "avg")] == [[1], [7], [4.0]]


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("oracle", [1], "there are dummy_scorer, dummy_min_scorer, dummy_max_scorer, dummy_avg_scorer"),
        ("dummy_scorer", [1, 2], "takes 9 numbers"),
        ("dummy_avg_scorer", [], "at least one number"),
    ],
)
def test_numbers_that_an_engine_does_not_take(name: str, given: list[float], text: str) -> None:
    with pytest.raises(BadRequest, match=text):
        scored(name, given)


def test_engines_say_what_their_numbers_are() -> None:
    assert [one.name for one in SCORING_ENGINES] == [
        "dummy_scorer",
        "dummy_min_scorer",
        "dummy_max_scorer",
        "dummy_avg_scorer",
    ]
    told = json.loads(SCORING_ENGINES[0].metainfo)
    assert (len(told["feature_columns"]), len(told["result_columns"])) == (9, 5)
    assert told["workloads"] == ["idle", "cpu-intensive", "memory-intensive", "disk-intensive"]
