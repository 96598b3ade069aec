"""Errors as one line that says what to do, and exit codes: 1 failed, 2 wrong words or a wrong configuration."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from vedette.cli.show import plain
from vedette.errors import BadRequest, ConfigError, FixInput, NotFound, NotUnderstood, VedetteError

FAILED = 1
WRONG_INPUT = 2


def exit_code(why: VedetteError) -> int:
    """2 where other words on the command line, or in the configuration, are what helps."""
    if isinstance(why, ConfigError | BadRequest):
        return WRONG_INPUT
    if isinstance(why, FixInput) and not isinstance(why, NotFound | NotUnderstood):
        return WRONG_INPUT
    return FAILED


class OneLineErrors(TyperGroup):
    """The group of all commands. With `--debug` errors go up as they are."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except VedetteError as why:
            if ctx.params.get("debug"):
                raise
            # What is wrong in a condition is pointed at, below a line of it.
            complain(*(str(why).split("\n") if isinstance(why, ConfigError) else [str(why)]))
            raise typer.Exit(exit_code(why)) from why


def complain(*lines: str) -> None:
    """One line on stderr (or a few of ours), coloured where somebody looks."""
    text = "\n".join(map(plain, lines))
    sys.stdout.flush()
    typer.secho("Error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(text, err=True)
