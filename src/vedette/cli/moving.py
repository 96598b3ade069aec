"""A bar that moves on stderr while something takes long, where somebody looks; a question before something is thrown away."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from vedette.cli.show import plain
from vedette.errors import BadRequest

if TYPE_CHECKING:
    from rich.progress import Progress


class Moving:
    """Nothing is shown into a pipe. Use it in `with`."""

    def __init__(self, text: str, *, wanted: bool = True) -> None:
        self._text = text
        self._bar: Progress | None = None
        self._task: Any = None
        self._wanted = wanted and sys.stderr.isatty()

    def __enter__(self) -> Moving:
        if self._wanted:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
            self._bar = Progress(*columns, console=Console(stderr=True, highlight=False), transient=True)
            self._bar.start()
            self._task = self._bar.add_task(self._text, total=None, said="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def at(self, done: int, of: int | None, said: str) -> None:
        """`of`: how many there will be; None: nobody knows."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=of, said=plain(said))


def sure(what: str, yes: bool) -> None:
    """Ask whether `what` (a sentence) may be done; `yes`: it was said on the command line. Raises BadRequest where nobody can be
    asked, Exit when the answer is no."""
    if yes:
        return
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise BadRequest(f"{what}: say --yes")
    if not typer.confirm(f"{plain(what[:1].upper() + what[1:])}. Go on?", err=True):
        typer.echo("Nothing was done.", err=True)
        raise typer.Exit(1)
