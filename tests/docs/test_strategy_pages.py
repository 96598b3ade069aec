"""docs/plugs/strategies: a page for every strategy with all its parameters, an index of them, and an example that works."""

from __future__ import annotations

import json
import random
import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from vedette import plugins
from vedette.ports import Strategy
from vedette.testing.strategy_suite import case, faults

PAGES = Path(__file__).parents[2] / "docs" / "plugs" / "strategies"
STRATEGIES = plugins.strategies()
HEADINGS = ["Parameters", "Measurements", "What it proposes", "Differences from Watcher"]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_page_has_what_all_pages_have(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {name}\n\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_page_has_every_parameter_with_its_default(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    properties: dict[str, Any] = STRATEGIES[name].schema.get("properties", {})
    rows = {row.split("|")[1].strip(" `"): row for row in text.splitlines() if row.startswith("| `")}
    assert set(properties) <= set(rows)
    for parameter, schema in properties.items():
        default = schema.get("default")
        if isinstance(default, bool | int | float | str):
            shown = default if isinstance(default, str) else json.dumps(default)
            assert shown in rows[parameter], f"{parameter} has the default {shown}"


def test_the_index_names_every_strategy_with_its_goal() -> None:
    text = (PAGES / "README.md").read_text(encoding="utf-8")
    named = dict(re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| (\w+) \|", text, re.MULTILINE))
    assert named == {name: one.goal for name, one in STRATEGIES.items()}


def test_the_example_keeps_the_rules(tmp_path: Path) -> None:
    text = (PAGES / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "idle_servers.py"
    file.write_text(example, encoding="utf-8")
    strategy: Strategy = runpy.run_path(str(file))["STRATEGY"]
    proposed = 0
    for seed in range(40):
        one = case(random.Random(seed), strategy)
        assert faults(strategy, one, plugins.actions()) == []
        proposed += len(strategy.propose(one.snapshot, one.values, one.parameters, ()).actions)
    assert proposed > 3
