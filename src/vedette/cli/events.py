"""`vedette events` and `vedette not-understood`: the notices themselves, as the log holds them."""

from __future__ import annotations

import asyncio
import collections
from contextlib import aclosing
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec
import typer

from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption, until_stopped
from vedette.cli.show import Lines, closing, plain, remark, say

NOT_UNDERSTOOD = "vedette.not-understood"
SHOWN_BYTES = 160
"""Characters of a message's bytes in the list; `-o json` has what was kept."""


def add_to(app: typer.Typer) -> None:
    app.command("events", epilog=EVENTS_EXAMPLES)(events)
    app.command("not-understood", epilog=BOX_EXAMPLES)(not_understood)


class Form(StrEnum):
    """The forms of `-o` here."""

    table = "table"
    json = "json"


EVENTS_EXAMPLES = """Examples:

\b
vedette events --follow
vedette events --type 'port.*.end,floatingip.*' --since 2h
vedette events --kind server --id 6f9d… --since 2026-11-20T15:00:00Z -o json
vedette events --follow --since 1795187946000042
vedette events --follow --filter "'status.host' in changed && object.status.status == 'ACTIVE'"
"""

BOX_EXAMPLES = """Examples:

\b
vedette not-understood
vedette not-understood --limit 1 -o json
"""


class _Data(msgspec.Struct):
    """What is shown of a CloudEvent."""

    id: str = ""
    source: str = ""
    type: str = ""
    subject: str = "-"
    time: str = ""
    revision: str = ""
    origin: str = ""
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


_event = msgspec.json.Decoder(_Data).decode


def events(
    type_: Annotated[
        str, typer.Option("--type", help="Only these event types: patterns, comma separated.", metavar="PATTERNS")
    ] = "",
    kind: Annotated[str, typer.Option("--kind", help="Only news of this kind, e.g. port.", metavar="KIND")] = "",
    id_: Annotated[str, typer.Option("--id", help="Only news of the object with this id.", metavar="ID")] = "",
    project: Annotated[str | None, typer.Option("--project", "-p", help="Only this project (its id).", metavar="ID")] = None,
    source: Annotated[str, typer.Option("--source", help="Only of this source.", metavar="NAME")] = "",
    filter_: Annotated[
        str,
        typer.Option(
            "--filter",
            help="Only those for which a condition holds: CEL over event, object, old and changed.",
            metavar="CONDITION",
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since",
            help="From when: 15m, 2h, a time (RFC 3339), or a revision. Default: with --follow now, else 15m.",
            metavar="WHEN",
        ),
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show what comes.")] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: CloudEvents, one a line.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Show what the cloud announced: every notification that is in the log, understood by a kind or not."""
    asked = {"type": type_, "kind": kind, "id": id_, "source": source, "filter": filter_}
    query = {name: value for name, value in asked.items() if value}
    if project is not None:
        query["project"] = project
    showing = _Showing(output)
    reach = Reach(server, ca, os_cloud, allow_insecure)
    when = since or ("" if follow else "15m")
    if until_stopped(showing.show(reach, query, when, follow)):
        count = f"{showing.count} event{'' if showing.count == 1 else 's'}"
        place = f"; resume with --since {showing.place}" if showing.place else ""
        closing(f"Closed after {count}{place}")


class _Showing:
    """Prints events; knows how far it came."""

    def __init__(self, output: Form) -> None:
        self.count = 0
        self.place = 0
        self._output = output
        self._lines = Lines(["TIME", "SOURCE", "TYPE", "SUBJECT", "REVISION"])
        self._lines.fit([["2026-11-20 15:00:00", "", "compute.instance.update", "server/" + "0" * 36, "0" * 16]])

    async def show(self, reach: Reach, query: dict[str, str], since: str, follow: bool) -> None:
        from vedette.clients import vedette as said

        after = int(since) if since.isascii() and since.isdigit() else None
        when = "" if after is not None else since
        async with (
            reach.client() as client,
            aclosing(client.events(query, after=after, since=when, follow=follow)) as stream,
        ):
            if self._output is not Form.json and follow:
                self._lines.begin()
            async for news in stream:
                match news:
                    case said.Told():
                        self.count += 1
                        self._event(news.raw)
                    case said.Place():
                        self.place = news.revision
                    case said.Cut():
                        remark(f"-- {news.why}; trying again in {news.delay:.1f} s")
                    case said.Resumed():
                        remark(f"-- resumed after revision {news.revision}")
                    case said.Gap():
                        remark(f"-- some events are gone from the log ({news.why}); going on with the oldest there is")
        if not self.count:
            say("No events.")

    def _event(self, raw: msgspec.Raw) -> None:
        if self._output is Form.json:
            typer.echo(bytes(raw).decode())
            return
        event = _event(raw)
        name = event.type.removeprefix("openstack.")
        cells = [local_time(event.time), event.source.removeprefix("/sources/"), name, event.subject, event.revision]
        colour = typer.colors.RED if name.startswith("vedette.") or name.endswith(".error") else None
        self._lines.row([plain(text) or "-" for text in cells], colour=colour, at=2)


def local_time(text: str) -> str:
    """An RFC 3339 time as the clock on the wall shows it."""
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


# --- the box ---------------------------------------------------------------------------------------------------------------


class _Odd(msgspec.Struct):
    reason: str = ""
    body: str = ""
    bytes: int = 0
    withheld: int = 0
    exchange: str = ""
    routing_key: str = ""


def not_understood(
    limit: Annotated[int, typer.Option("--limit", help="At most so many, the newest.", min=1, max=10_000)] = 20,
    source: Annotated[str, typer.Option("--source", help="Only of this source.", metavar="NAME")] = "",
    output: Annotated[Form, typer.Option("--output", "-o", help="json: all that was kept.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """List messages that could not be read as notifications: why, and their bytes (secrets removed)."""
    asyncio.run(_box(Reach(server, ca, os_cloud, allow_insecure), limit, source, output))


async def _box(reach: Reach, limit: int, source: str, output: Form) -> None:
    from vedette.clients.vedette import Told

    query = {"type": NOT_UNDERSTOOD, **({"source": source} if source else {})}
    kept: collections.deque[msgspec.Raw] = collections.deque(maxlen=limit)
    total = 0
    async with reach.client() as client, aclosing(client.events(query, after=0, follow=False)) as stream:
        async for news in stream:
            if isinstance(news, Told):
                total += 1
                kept.append(news.raw)
    if output is Form.json:
        for raw in kept:
            typer.echo(bytes(raw).decode())
        return
    if not total:
        say("Every message was understood.")
        return
    for raw in kept:
        event = _event(raw)
        odd = msgspec.json.decode(event.data, type=_Odd, strict=False)
        where = " ".join(part for part in (odd.exchange, odd.routing_key) if part)
        heading = f"{local_time(event.time)}  {event.source.removeprefix('/sources/')}  {where}".rstrip()
        typer.secho(plain(heading), bold=True)
        typer.echo(f"  reason: {plain(odd.reason)}")
        withheld = f", {odd.withheld} withheld because a secret may be in them" if odd.withheld else ""
        typer.echo(f"  bytes:  {odd.bytes}{withheld}")
        if odd.body:
            cut = plain(odd.body[:SHOWN_BYTES])
            typer.echo(f"  begins: {cut}{'…' if len(odd.body) > SHOWN_BYTES else ''}")
    if total > len(kept):
        say(f"The newest {len(kept)} of {total}; --limit shows more.")
