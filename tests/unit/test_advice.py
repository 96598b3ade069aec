"""advice.py: the limits within which a strategy is asked, and the options of the planner."""

from __future__ import annotations

import resource
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from auditing import NOP, Asked

from vedette.advice import Adviser, Options
from vedette.app import _planner_options
from vedette.config import Audits
from vedette.engine.planner import Planned, PlannerOptions
from vedette.errors import ConfigError
from vedette.model.advice import Proposed, Solution
from vedette.model.asked import Answered, Build, More, Propose, Question


def adviser(answer: Callable[[], Solution], **options: Any) -> Callable[[Question], Any]:
    asked = Asked()
    asked.answer = answer
    inside = Adviser({"dummy": asked.strategy}, {"nop": NOP, "sleep": NOP}, Options(**options))

    def ask(question: Question) -> Any:
        return inside.call(msgspec.json.encode(question))

    ask(Build("now", 7, []))
    return ask


PROPOSE = Propose("now", "dummy", "weight", {}, [])


def spins() -> Solution:
    while True:
        pass


def catches_everything() -> Solution:
    while True:
        with suppress(Exception):
            spins()


@pytest.mark.parametrize("answer", [spins, catches_everything])
def test_a_strategy_that_spins_is_interrupted(answer: Callable[[], Solution]) -> None:
    slow = [True]
    ask = adviser(lambda: answer() if slow else Solution(actions=(Proposed("nop", {}),)), max_cpu=0.1)
    said = ask(PROPOSE)
    assert isinstance(said, Answered)
    assert said.refused == "the strategy needs more processor time than the 0.1 s of audits.max_cpu"
    # The process is as good as before, and what it used is not held against the next one.
    slow.clear()
    assert ask(PROPOSE) == Answered(1, {}, [])
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    assert soft == hard


def test_the_planner_has_the_weights_it_was_given() -> None:
    both = Solution(actions=(Proposed("nop", {"n": 1}), Proposed("sleep", {"n": 2}), Proposed("sleep", {"n": 3})))

    def planned(options: PlannerOptions) -> list[tuple[str, tuple[int, ...]]]:
        ask = adviser(lambda: both, planner=options)
        assert ask(PROPOSE).actions == 3
        plan = msgspec.json.decode(msgspec.json.encode(ask(More(0))), type=list[Planned])
        return [(one.action_type, one.parents) for one in plan]

    assert planned(PlannerOptions()) == [("nop", ()), ("sleep", (0,)), ("sleep", (1,))]
    assert planned(PlannerOptions(weights={"sleep": 2, "nop": 1}, parallelization={"sleep": 2})) == [
        ("sleep", ()), ("sleep", ()), ("nop", (0, 1)),
    ]  # fmt: skip


def test_options_of_the_planner_are_checked() -> None:
    assert _planner_options(Audits()) == {}
    told = _planner_options(Audits(weights={"migrate": 2, "turn_host_to_acpi_s3_state": 1}, parallelization={"migrate": 5}))
    assert msgspec.convert(told, PlannerOptions).parallelization == {"migrate": 5}
    with pytest.raises(ConfigError, match=r"audits.weights: there is no action 'migrat': there are change_"):
        _planner_options(Audits(weights={"migrat": 2}))
    with pytest.raises(ConfigError, match=r"audits.parallelization: there is no action 'x'"):
        _planner_options(Audits(parallelization={"x": 2}))
    with pytest.raises(ConfigError, match="nop and migrate have the weight 2: give each type one of its own"):
        _planner_options(Audits(weights={"nop": 2, "migrate": 2}))
