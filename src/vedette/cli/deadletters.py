"""`vedette deadletters`: what no retry delivered; look at it, have it delivered again, or throw it away."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from vedette.cli.events import Form, local_time
from vedette.cli.moving import Moving, sure
from vedette.cli.named import ListFirst, handler_names, letter_ids
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption, until_stopped
from vedette.cli.show import Lines, ago, as_json, closing, counted, plain, say
from vedette.errors import BadRequest

if TYPE_CHECKING:
    from vedette.clients.vedette import Letter, Settled, Which

LONGEST = 100
"""Characters of an error in the list; `show` has all of it."""

HandlerOption = Annotated[
    str, typer.Option("--handler", help="Only of this handler.", autocompletion=handler_names, metavar="HANDLER")
]
SinceOption = Annotated[
    str, typer.Option("--since", help="Only what failed since then: a time (RFC 3339), or how long ago (2h).", metavar="WHEN")
]
UntilOption = Annotated[str, typer.Option("--until", help="Only what failed before: likewise.", metavar="WHEN")]
ContainsOption = Annotated[
    str, typer.Option("--contains", help="Only those with this piece of text in their error or event.", metavar="TEXT")
]
IdsArgument = Annotated[
    list[str] | None,
    typer.Argument(help="Which, by id; or choose by the options.", autocompletion=letter_ids, show_default=False, metavar="ID"),
]
AllOption = Annotated[bool, typer.Option("--all", help="Every one of every handler.")]

LIST_EXAMPLES = """Examples:

\b
vedette deadletters
vedette deadletters --handler table --since 2h
vedette deadletters -o json | jq -r .error | sort | uniq -c
"""

SHOW_EXAMPLES = """Examples:

\b
vedette deadletters show table.1795187946000042
vedette deadletters show table.1795187946000042 -o json | jq .event.object
"""

REDRIVE_EXAMPLES = """Examples:

\b
vedette deadletters redrive table.1795187946000042
vedette deadletters redrive --handler table --contains 'no column' --rate 10
vedette deadletters redrive --all
"""

DISCARD_EXAMPLES = """Examples:

\b
vedette deadletters discard table.1795187946000042
vedette deadletters discard --handler table --until 7d --yes
"""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(cls=ListFirst, help="Deliveries that no retry will make; without a command: list.")
    group.command("list", epilog=LIST_EXAMPLES)(list_)
    group.command("show", epilog=SHOW_EXAMPLES)(show)
    group.command("redrive", epilog=REDRIVE_EXAMPLES)(redrive)
    group.command("discard", epilog=DISCARD_EXAMPLES)(discard)
    app.add_typer(group, name="deadletters")


def list_(
    handler: HandlerOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    contains: ContainsOption = "",
    limit: Annotated[int, typer.Option("--limit", help="At most so many.", min=1, max=10_000)] = 100,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: one letter a line, without its event.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """List dead letters: events whose delivery failed for good, and why. They are kept until somebody redrives or discards them.

    `vedette watch deadletters` shows them as they come and go.
    """
    from vedette.clients.vedette import Which

    which = Which(handler=handler, since=since, until=until, contains=contains)
    asyncio.run(_list(Reach(server, ca, os_cloud, allow_insecure), which, limit, output))


async def _list(reach: Reach, which: Which, limit: int, output: Form) -> None:
    async with reach.client() as client:
        found = await client.dead_letters(which, limit=limit)
    if output is Form.json:
        for one in found.items:
            typer.echo(msgspec.json.encode(one).decode())
        return
    if not found.total:
        say("No dead letters.")
        return
    lines = Lines(["ID", "EVENT", "OBJECT", "ATTEMPTS", "FAILED", "ERROR"])
    now = time.time()
    rows = [[plain(text) or "-" for text in _cells(one, now)] for one in found.items]
    lines.fit(rows)
    for row in rows:
        lines.row(row)
    if found.total > len(found.items):
        say(f"The first {len(found.items)} of {found.total}; --limit shows more.")


def _cells(one: Letter, now: float) -> list[str]:
    error = one.error.strip()
    error = error if len(error) <= LONGEST else error[: LONGEST - 1] + "…"
    return [one.id, one.event_type, object_of(one), str(one.attempts), ago(one.failed_at, now), error]


def object_of(one: Letter) -> str:
    return f"{one.subject.get('kind', '').lower()}/{one.subject.get('id', '')}" if one.subject else ""


def show(
    id_: Annotated[str, typer.Argument(help="Which.", autocompletion=letter_ids, show_default=False, metavar="ID")],
    output: Annotated[Form, typer.Option("--output", "-o", help="json: all of it in one object.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Show one dead letter: the error, what to do next, and the event as the handler was given it."""
    asyncio.run(_show(Reach(server, ca, os_cloud, allow_insecure), id_, output))


async def _show(reach: Reach, id_: str, output: Form) -> None:
    async with reach.client() as client:
        one = await client.dead_letter(id_)
    if output is Form.json:
        typer.echo(msgspec.json.encode(one).decode())
        return
    now = time.time()
    times = f"first tried {ago(one.first_at, now)}, " if one.first_at else ""
    for name, text in (
        ("id", one.id),
        ("handler", one.handler),
        ("event", " ".join(part for part in (one.event_type, one.verb, object_of(one)) if part) or "-"),
        ("key", one.idempotency_key),
        ("attempts", f"{one.attempts}; {times}failed {ago(one.failed_at, now)} ({local_time(one.failed_at or '-')})"),
        ("error", one.error),
        ("next", one.next_step),
    ):
        typer.echo(f"{typer.style(f'{name:<10}', bold=True)}{plain(text)}")
    if one.event != msgspec.Raw(b"null"):
        typer.secho("event", bold=True)
        for line in as_json(one.event).splitlines():
            typer.echo(f"  {plain(line)}")


def redrive(
    ids: IdsArgument = None,
    handler: HandlerOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    contains: ContainsOption = "",
    every: AllOption = False,
    rate: Annotated[
        float, typer.Option("--rate", help="At most so many calls a second. Default: no limit.", min=0, metavar="NUMBER")
    ] = 0.0,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: the sum as an object.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Have dead letters delivered again, as if for the first time. Mend the cause first.

    Those whose event is lost can only be discarded; then the exit code is 1.
    """
    which = _which(ids, handler, since, until, contains, every)
    _settle(Reach(server, ca, os_cloud, allow_insecure), "redrive", which, rate, output)


def discard(
    ids: IdsArgument = None,
    handler: HandlerOption = "",
    since: SinceOption = "",
    until: UntilOption = "",
    contains: ContainsOption = "",
    every: AllOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: the sum as an object.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Throw dead letters away. The log keeps that somebody did."""
    which = _which(ids, handler, since, until, contains, every)
    reach = Reach(server, ca, os_cloud, allow_insecure)
    if not yes:
        count = len(which.ids) or asyncio.run(_count(reach, which))
        if count:
            sure(f"this throws {counted(count, 'dead letter')} away", yes)
    _settle(reach, "discard", which, 0.0, output)


async def _count(reach: Reach, which: Which) -> int:
    async with reach.client() as client:
        return (await client.dead_letters(which, limit=1)).total


def _which(ids: list[str] | None, handler: str, since: str, until: str, contains: str, every: bool) -> Which:
    from vedette.clients.vedette import Which

    chosen = handler or since or until or contains
    if not (ids or chosen or every):
        raise BadRequest(
            "no dead letter is chosen: name ids, or use --handler, --since, --until, --contains; --all for every one"
        )
    if ids and (chosen or every):
        raise BadRequest("ids name the letters: leave the options that choose out")
    return Which(ids=tuple(ids or ()), handler=handler, since=since, until=until, contains=contains, all=every)


def _settle(reach: Reach, verb: Literal["redrive", "discard"], which: Which, rate: float, output: Form) -> None:
    ended: list[Settled] = []
    if until_stopped(_follow(reach, verb, which, rate, ended)):
        closing("Stopped: those that are done are done; the same command goes on with the rest.")
        raise typer.Exit(1)
    (sum_,) = ended
    if output is Form.json:
        told: dict[str, Any] = {"redriven": sum_.redriven} if verb == "redrive" else {"discarded": sum_.discarded}
        typer.echo(msgspec.json.encode({**told, "lost": sum_.lost}).decode())
    else:
        count = sum_.redriven if verb == "redrive" else sum_.discarded
        word = "redriven" if verb == "redrive" else "discarded"
        if count or not sum_.lost:
            say(f"{counted(count, 'dead letter')} {word}." if count else "No dead letter matches.")
        if sum_.lost:
            some = ", ".join(sum_.lost[:3]) + (" …" if len(sum_.lost) > 3 else "")
            say(f"The event of {counted(len(sum_.lost), 'letter')} is lost, they can only be discarded: {some}")
    if sum_.lost:
        raise typer.Exit(1)


async def _follow(reach: Reach, verb: Literal["redrive", "discard"], which: Which, rate: float, ended: list[Settled]) -> None:
    from vedette.clients.vedette import Settling

    text = "redriving" if verb == "redrive" else "discarding"
    async with reach.client() as client:
        with Moving(text) as moving:
            async with aclosing(client.settle(verb, which, rate=rate)) as stream:
                async for news in stream:
                    if isinstance(news, Settling):
                        moving.at(news.done, news.of, f"{news.done} of {news.of}")
                    else:
                        ended.append(news)
