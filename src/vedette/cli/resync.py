"""`vedette resync`: has the running server compare its inventory with the cloud now, and shows how it goes.

The server does the work (engine/resync.py, POST /v1/resync); here its reports become a table.
"""

from __future__ import annotations

import sys
import time
from contextlib import AbstractContextManager, aclosing, nullcontext
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from vedette.cli.events import Form
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption, until_stopped
from vedette.cli.show import Lines, closing, counted, plain, say
from vedette.cli.status import alike, named, nothing_deleted
from vedette.errors import BadRequest

if TYPE_CHECKING:
    from rich.table import Table

    from vedette.clients.vedette import KindReport

HEADINGS = ("KIND", "STATE", "LISTED", "CREATED", "UPDATED", "DELETED", "SECONDS")
COLOURS = {"done": "green", "absent": "bright_black", "held": "red", "incomplete": "red", "refused": "red"}
_LONGEST_STATE = "incomplete"


def add_to(app: typer.Typer) -> None:
    app.command("resync", epilog=EXAMPLES)(resync)


def listed_kinds(incomplete: str) -> list[str]:
    """Those that an API lists, of this version: for tab completion, and for who names another."""
    from vedette.plugins import kinds

    return sorted(kind.singular for kind in kinds() if kind.api is not None and kind.singular.startswith(incomplete.lower()))


EXAMPLES = """Examples:

\b
vedette resync
vedette resync port server
vedette resync port --source region-one --confirm
vedette resync --no-wait
vedette resync -o json | jq 'select(.missed.deleted > 0)'
"""


def resync(
    kinds: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to compare: port, server, loadbalancer (lb) … Nothing: all of it.",
            autocompletion=listed_kinds,
            show_default=False,
            metavar="KIND",
        ),
    ] = None,
    source: Annotated[
        str, typer.Option("--source", help="Which source's cloud. Default: the only one that has an API.", metavar="NAME")
    ] = "",
    confirm: Annotated[
        bool,
        typer.Option("--confirm", help="Delete what is gone from the cloud, however much it is. Wants the KIND that was held."),
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Ask for it, and don't wait until it is over.")] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: how each kind ended, one a line.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Compare with the cloud now, and make known what notifications missed.

    The server does so by itself too: on start, after each gap, and on a timer. Ctrl-C leaves it at work. Exit code 1 when a kind
    could not be compared as a whole, or its deletions wait for you.
    """
    asked = list(kinds or ())
    if confirm and not asked:
        raise BadRequest(
            "--confirm wants the KIND whose deletions are right: look at what would go first (`vedette status` names it), then "
            "`vedette resync KIND --confirm`"
        )
    reach = Reach(server, ca, os_cloud, allow_insecure)
    showing = _Showing(output)
    work = _ask(reach, asked, source, confirm, output) if no_wait else showing.follow(reach, asked, source, confirm)
    try:
        stopped = until_stopped(work)
    except BadRequest as why:
        raise _with_names(why, asked) from None
    if stopped:
        closing("The server goes on comparing; `vedette status` tells how.")
        raise typer.Exit(1)
    if not (no_wait or showing.end()):
        raise typer.Exit(1)


def _with_names(why: BadRequest, asked: list[str]) -> BadRequest:
    """What kinds there are, where one of these words is none that is known here."""
    there = listed_kinds("")
    unknown = [word for word in asked if not any(word.lower() in (name, f"{name}s") for name in there)]
    near = [match for word in unknown for match in get_close_matches(word.lower(), there, n=1)]
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return BadRequest(f"{why}{meant} There are: {', '.join(there)}") if unknown and "is called" in str(why) else why


class _Asked(msgspec.Struct):
    source: str = ""
    kinds: tuple[str, ...] = ()


async def _ask(reach: Reach, kinds: list[str], source: str, confirm: bool, output: Form) -> None:
    async with reach.client() as client:
        raw = await client.ask_resync(kinds, source=source, confirm=confirm)
    if output is Form.json:
        typer.echo(raw.decode().strip())
        return
    asked = msgspec.json.decode(raw, type=_Asked)
    what = f"{len(asked.kinds)} kinds" if len(asked.kinds) > 3 else ", ".join(asked.kinds)
    say(f"{plain(asked.source)}: {plain(what)} will be compared; `vedette status` tells how it goes.")


class _Showing:
    """Shows reports as they come: a table that moves where somebody looks, a line for each kind that has ended otherwise."""

    def __init__(self, output: Form) -> None:
        self._output = output
        self._reports: dict[str, KindReport] = {}
        self._printed: dict[str, KindReport] = {}
        self._began = time.monotonic()
        self._live = output is Form.table and sys.stdout.isatty()
        self._lines = Lines(HEADINGS)
        self._lines.fit([["computeservice", _LONGEST_STATE, *[""] * 5]])

    async def follow(self, reach: Reach, kinds: list[str], source: str, confirm: bool) -> None:
        moving = _moving() if self._live else None
        shown: AbstractContextManager[Any] = moving if moving is not None else nullcontext()
        async with (
            reach.client() as client,
            aclosing(client.resync(kinds, source=source, confirm=confirm)) as reports,
        ):
            with shown:
                async for report in reports:
                    self._reports[report.kind] = report
                    if moving is not None:
                        moving.update(self._table())
                    elif self._output is Form.table:
                        self._line(report)

    def end(self) -> bool:
        """The last words; whether everything is well."""
        reports = sorted(self._reports.values(), key=lambda one: one.kind)
        if self._output is Form.json:
            for report in reports:
                typer.echo(msgspec.json.encode(report).decode())
            return bool(reports) and all(one.well for one in reports)
        for kinds in alike([one for one in reports if one.detail and one.state != "absent"]):
            typer.secho(f"{named(kinds, reports)}: ", fg=typer.colors.YELLOW if kinds[0].well else typer.colors.RED, nl=False)
            typer.echo(plain(kinds[0].detail))
        say(self._summary(reports))
        odd = [one for one in reports if not one.well]
        partly = sum(one.partly for one in reports)
        if partly:
            say(nothing_deleted(partly))
        if any(one.state in ("refused", "incomplete") for one in odd):
            say("`vedette doctor` looks at the cloud's API and at the account, and says what to do.")
        return bool(reports) and not odd

    def _summary(self, reports: list[KindReport]) -> str:
        created, updated, deleted = (
            sum(getattr(one.missed, name) for one in reports) for name in ("created", "updated", "deleted")
        )
        listed, completed = (sum(getattr(one, name) for one in reports) for name in ("listed", "completed"))
        missed = created + updated + deleted
        parts = ", ".join(
            f"{number} {word}" for number, word in ((created, "created"), (updated, "updated"), (deleted, "deleted")) if number
        )
        told = f"{missed} missed ({parts})" if missed else "nothing was missed"
        if completed:
            told += f", {completed} completed with what no notification says"
        odd = [one for one in reports if not one.well]
        absent = [one.kind for one in reports if one.state == "absent"]
        compared = sum(one.state in ("done", "held") for one in reports)
        lines = f"{counted(listed, 'object')} of {counted(compared, 'kind')} in {time.monotonic() - self._began:.1f} s: {told}."
        if not compared:
            lines = "Nothing was compared."
        if absent:
            lines += f" This cloud has no {', '.join(absent)}."
        if odd:
            states = ", ".join(f"{one.kind} {one.state if one.ended else 'unknown'}" for one in odd)
            lines += f" Not well: {states if len(odd) <= 3 else counted(len(odd), 'kind')}."
        return lines

    # --- on paper

    def _line(self, report: KindReport) -> None:
        if not report.ended or self._printed.get(report.kind) == report:
            return
        self._printed[report.kind] = report
        colour = {"green": typer.colors.GREEN, "red": typer.colors.RED}.get(COLOURS.get(report.state, ""))
        self._lines.row(_cells(report), colour=colour, at=1)

    # --- where somebody looks

    def _table(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        for at, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="left" if at < 2 else "right")
        for kind in sorted(self._reports):
            report = self._reports[kind]
            name, state, *numbers = _cells(report)
            style = COLOURS.get(report.state, "yellow" if report.state in ("listing", "confirming") else "dim")
            table.add_row(Text(name), Text(state, style), *(Text(one, "" if one != "0" else "dim") for one in numbers))
        return table


def _moving() -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(console=Console(highlight=False), refresh_per_second=8)


def _cells(report: KindReport) -> list[str]:
    if report.state in ("never", "waiting"):
        # What else it has is of the pass before.
        return [plain(report.kind), plain(report.state), *[""] * 5]
    missed = report.missed
    numbers = (report.listed, missed.created, missed.updated, missed.deleted)
    seconds = f"{report.seconds:.1f}" if report.ended else ""
    return [plain(report.kind), plain(report.state), *(str(number) for number in numbers), seconds]
