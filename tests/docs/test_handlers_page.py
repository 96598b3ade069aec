"""docs/howto/handlers.md: every key is on it, every command can be typed, what it quotes is what comes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from vedette import config
from vedette.api.routes import deadletters, explain, handlers
from vedette.cli import app

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "handlers.md").read_text(encoding="utf-8")
DISPATCH = (ROOT / "src" / "vedette" / "engine" / "dispatch.py").read_text(encoding="utf-8")


def rows(heading: str) -> list[str]:
    """The first cells of the table with this heading."""
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return [line.split(" | ")[0].strip("| ") for line in table.splitlines()[2:]]


def words(heading: str) -> set[str]:
    return {word for row in rows(heading) for word in re.findall(r"`(\w+)`", row)}


def test_every_key_of_a_handler_is_on_the_page() -> None:
    assert words("`on.`") == {field.name for field in msgspec.structs.fields(config.On)}
    assert words("key | default") == {field.name for field in msgspec.structs.fields(config.HandlerConfig)}
    for field in msgspec.structs.fields(config.Retry):
        assert f"`{field.name}`" in PAGE


def test_the_defaults_of_the_page_are_those_of_the_code() -> None:
    retry, one = config.Retry(), config.HandlerConfig(name="h", use="log")
    assert f"`attempts` ({retry.attempts})" in PAGE
    assert (retry.first, retry.most, retry.deadline) == (1.0, 300.0, 86_400.0)
    assert "`first` (1s) and `most` (5m) of the growing waits, `deadline` (1d)" in PAGE
    assert (one.timeout, one.concurrency, one.max_pending, one.max_depth, one.start) == (30.0, 10, 10_000, 5, "now")


@pytest.mark.parametrize("row", rows("log line"))
def test_a_log_line_of_the_page_is_one_that_is_written(row: str) -> None:
    assert f'"{row.strip("`")}"' in DISPATCH


def test_the_metrics_of_the_page_are_those_that_there_are() -> None:
    assert set(re.findall(r"`vedette_(\w+)", "\n".join(rows("metric")))) == set(re.findall(r'"(handler_\w+)"', DISPATCH))
    (alarms,) = [block for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if block.startswith("groups:")]
    for rule in yaml.safe_load(alarms)["groups"][0]["rules"]:
        (name,) = re.findall(r"vedette_(\w+)", rule["expr"])
        assert f'"{name}"' in DISPATCH


def commands() -> list[str]:
    typed = re.findall(r"^\$ (vedette .*)$", PAGE, re.MULTILINE)
    return sorted({*typed, *(one for one in re.findall(r"`(vedette [^`]*)`", PAGE))})


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_page_can_be_typed(command: str) -> None:
    """Its options are known; the help that is asked for behind them comes instead of what it does."""
    result = CliRunner(env={"HOME": "/nonexistent"}).invoke(app, [*shlex.split(command)[1:], "--help"])
    assert result.exit_code == 0, result.output


def test_what_explain_says_on_the_page_is_what_it_says() -> None:
    golden = "".join(
        file.read_text(encoding="utf-8") for file in sorted((ROOT / "tests" / "e2e" / "golden").glob("explain-*.txt"))
    )
    (shown,) = re.findall(r"\$ vedette explain \d+\n(.*?)```", PAGE, re.DOTALL)
    for line in shown.splitlines():
        assert line in golden.splitlines(), line


def test_every_route_is_on_the_page() -> None:
    needs: Any = None
    for route in (one for module in (handlers, deadletters, explain) for one in module.routes(needs)):
        path = route.path.replace("{about:.+}", "{revision or letter}")
        assert f"{route.method} {path}" in PAGE, route.path
