"""What the terminal shows: tables that grow line by line, colours where somebody looks, JSON and YAML for programs.

Data goes to stdout, remarks (a cut, a resume, the closing line) to stderr. Nothing that a cloud's user named something can move
the cursor: control characters are shown, not sent.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec
import typer

from vedette.clients.vedette import Column, Event, Item, Resource
from vedette.kit.clock import parse_us

VERB_COLOURS = {"ADDED": typer.colors.GREEN, "MODIFIED": typer.colors.YELLOW, "DELETED": typer.colors.RED}
WIDEST = 60
"""Characters that a column is made wide for; a longer cell pushes its own line only."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


class Output(StrEnum):
    """The forms of `-o`."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"
    name = "name"


def plain(text: str) -> str:
    """Without control characters, line breaks included: they come out as `\\x1b`."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def remark(text: str) -> None:
    """A dim line on stderr."""
    sys.stdout.flush()
    typer.secho(plain(text), dim=True, err=True)


def say(text: str) -> None:
    """A plain line on stderr."""
    sys.stdout.flush()
    typer.echo(plain(text), err=True)


def closing(text: str) -> None:
    """The last line after Ctrl-C: below the `^C` that the terminal shows."""
    sys.stdout.flush()
    if sys.stderr.isatty():
        typer.echo("", err=True)
    typer.echo(plain(text), err=True)


def cell(value: Any) -> str:
    """A Table's cell as a word or more; never empty, so that columns can be counted."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = "<none>" if value is None or value == "" else str(value)
    return plain(text)


class Lines:
    """A table whose lines come one after the other: as wide as the first ones need, and wider when a later one is."""

    def __init__(self, headings: Sequence[str]) -> None:
        self._headings = list(headings)
        self._widths = [len(heading) for heading in headings]
        self._begun = False

    def fit(self, rows: Sequence[Sequence[str]]) -> None:
        """Make room for rows that are about to be printed."""
        for row in rows:
            for at, text in enumerate(row):
                self._widths[at] = max(self._widths[at], min(len(text), WIDEST))

    def begin(self) -> None:
        """The headings, once."""
        if not self._begun:
            self._begun = True
            typer.secho(self._joined(self._headings), bold=True)

    def row(self, cells: Sequence[str], *, colour: str | None = None, at: int = 0, dim: bool = False) -> None:
        """One line; the cell at `at` in `colour`."""
        self.fit([cells])
        self.begin()
        if colour is None:
            typer.secho(self._joined(cells), dim=dim) if dim else typer.echo(self._joined(cells))
            return
        padded = [text.ljust(width) for text, width in zip(cells, self._widths, strict=True)]
        padded[at] = typer.style(padded[at], fg=colour)
        typer.echo("  ".join(padded).rstrip())

    def _joined(self, cells: Sequence[str]) -> str:
        return "  ".join(text.ljust(width) for text, width in zip(cells, self._widths, strict=True)).rstrip()


def shown(columns: Sequence[Column], output: Output, *, without: Sequence[str] = ()) -> list[int]:
    """Which of a Table's columns to show: those of priority 0, with `wide` all of them."""
    return [
        at for at, column in enumerate(columns) if (column.priority == 0 or output is Output.wide) and column.name not in without
    ]


def as_json(raw: msgspec.Raw | bytes) -> str:
    """Indented, keys as they came."""
    return msgspec.json.format(bytes(raw), indent=2).decode()


def as_yaml(raw: msgspec.Raw | bytes) -> str:
    import yaml  # 40 ms that only this needs

    text: str = yaml.safe_dump(msgspec.json.decode(bytes(raw)), sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def as_name(resource: Resource, item: Item) -> str:
    return plain(f"{resource.full_name}/{item.name}")


def as_event(event: Event) -> str:
    """One watch event as one line of JSON."""
    return msgspec.json.encode({"type": event.verb, "object": event.item.raw}).decode()


# --- numbers for a person --------------------------------------------------------------------------------------------------


def counted(number: int, word: str, plural: str = "") -> str:
    """`1 kind`, `1,200 objects`."""
    return f"{number:,} {word if number == 1 else plural or f'{word}s'}"


def size(count: int) -> str:
    """Bytes: `78.9 GiB`."""
    number, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.1f} {unit}" if unit != "B" else f"{count} B"


def seconds_ago(when: str | None, at: float) -> float | None:
    """How long an RFC 3339 time is over; None: it is none. Never negative: clocks differ a little."""
    us = parse_us(when or "")
    return None if us is None else max(0.0, at - us / 1_000_000)


def ago(when: str | None, at: float) -> str:
    """An RFC 3339 time as `5 min ago`."""
    seconds = seconds_ago(when, at)
    if seconds is None:
        return "never"
    return "just now" if seconds < 1 else f"{span(seconds)} ago"


def coming(seconds: float) -> str:
    return f"in {span(max(1.0, seconds))}"


def span(seconds: float) -> str:
    """A length of time in its largest unit: `12 s`, `5 min`, `3 h`, `2 days`."""
    for unit, length, least in (("days", 86_400, 172_800), ("h", 3600, 7200), ("min", 60, 120)):
        if seconds >= least:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
