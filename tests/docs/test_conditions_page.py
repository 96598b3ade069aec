"""docs/howto/conditions.md: its conditions can be read, its error is the one that comes, its timelines are what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vedette.engine.conditions import compile
from vedette.engine.windows import Groups, Kind, Place, Rule
from vedette.errors import ConfigError
from vedette.kit.units import parse_duration

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "conditions.md").read_text()
NOON = 1_795_176_000_000_000


def blocks(name: str) -> list[str]:
    return re.findall(rf"```{name}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", [line for block in blocks("cel") for line in block.splitlines()])
def test_a_condition_of_the_page_can_be_read(text: str) -> None:
    compile(text)


def test_the_error_of_the_page_is_the_one_that_comes() -> None:
    (said,) = blocks("text")
    with pytest.raises(ConfigError) as why:
        compile(said.splitlines()[1].strip())
    assert f"{why.value}\n" == said


@pytest.mark.parametrize("block", blocks("timeline"), ids=lambda block: block.split(":")[0])
def test_a_timeline_of_the_page_is_what_happens(block: str) -> None:
    head, *lines = block.splitlines()
    given = dict(re.findall(r"(\w+): (\[.*?\]|\w+)", head))
    kind, first = next(iter(given.items()))
    kinds: dict[str, Kind] = {one: one for one in Kind.__args__}  # type: ignore[attr-defined]
    conditions = first.strip("[]").split(", ") if "[" in first else []
    span = parse_duration(given.get("within", first)) * 1e6
    threshold = int(given.get("threshold", "0"))
    groups = Groups(Rule(kind=kinds[kind], span=int(span), threshold=threshold, conditions=len(conditions)))
    for line in lines:
        found = re.fullmatch(r"(\d+) s +(?:([ab]) +)?(\w+)(?:, calls with (\d+) s)?", line)
        assert found is not None, line
        at, holds, word, earlier = found.groups()
        seconds = int(at)
        fed = groups.feed(
            "", at=NOON + seconds * 1_000_000, place=Place(seconds + 1, 0, 0, ""), holds=tuple(one == holds for one in conditions)
        )
        assert type(fed.verdict).__name__.lower() == word, line
        assert [call.place.revision - 1 for call in fed.fired] == ([int(earlier)] if earlier else []), line
