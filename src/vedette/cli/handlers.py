"""`vedette handlers` and `vedette replay`: how each handler is, and having it called again for what is in the log."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from vedette.cli.events import Form, local_time
from vedette.cli.moving import Moving, sure
from vedette.cli.named import ListFirst, handler_names
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption, until_stopped
from vedette.cli.show import Lines, closing, counted, plain, say

if TYPE_CHECKING:
    from vedette.clients.vedette import HandlerNow, Match, Replayed

COLOURS = {"ready": typer.colors.GREEN, "waiting": typer.colors.YELLOW, "paused": typer.colors.RED, "behind": typer.colors.CYAN}

HandlerArgument = Annotated[
    str,
    typer.Argument(help="Its name.", autocompletion=handler_names, show_default=False, metavar="HANDLER"),
]

LIST_EXAMPLES = """Examples:

\b
vedette handlers
vedette handlers -o json | jq 'select(.state != "ready")'
"""

FORGET_EXAMPLES = """Examples:

\b
vedette handlers forget old-mailer --yes
"""

REPLAY_EXAMPLES = """Examples:

\b
vedette replay table --from 2h --dry-run
vedette replay table --from 2026-11-20T15:00:00Z --to 2026-11-20T16:00:00Z
vedette replay table --from 1795187946000042 --to 1795187946000042
"""


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(cls=ListFirst, help="How the handlers are; without a command: list.")
    group.command("list", epilog=LIST_EXAMPLES)(list_)
    group.command("forget", epilog=FORGET_EXAMPLES)(forget)
    app.add_typer(group, name="handlers")
    app.command("replay", epilog=REPLAY_EXAMPLES)(replay)


def list_(
    output: Annotated[Form, typer.Option("--output", "-o", help="json: one handler a line.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """List the handlers: their state, what waits, what is dead. (`vedette get handlers` has those too that are not configured.)

    ready; behind: it reads the log to where the others are; waiting: its target does not answer; paused: it has too many dead
    letters.
    """
    asyncio.run(_list(Reach(server, ca, os_cloud, allow_insecure), output))


async def _list(reach: Reach, output: Form) -> None:
    async with reach.client() as client:
        there = await client.handlers()
    if output is Form.json:
        for one in there:
            typer.echo(msgspec.json.encode(one).decode())
        return
    if not there:
        say("No handler is configured.")
        return
    lines = Lines(["NAME", "USE", "STATE", "LAG", "PENDING", "DEAD", "DETAIL"])
    rows = [_cells(one) for one in there]
    lines.fit(rows)
    for one, row in zip(there, rows, strict=True):
        lines.row(row, colour=COLOURS.get(one.state, typer.colors.RED), at=2)


def _cells(one: HandlerNow) -> list[str]:
    detail = one.detail or (f"last error: {one.last_error}" if one.last_error else "")
    return [plain(text) for text in (one.name, one.use, one.state, f"{one.lag}", f"{one.pending}", f"{one.dead_letters}", detail)]


def forget(
    handler: Annotated[str, typer.Argument(help="The name that it had.", show_default=False, metavar="HANDLER")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Let go of a handler that is not in the configuration any more: its place in the log, and its dead letters.

    Until then the log is kept from that place on, so that it could come back and miss nothing.
    """
    sure(f"this throws away what handler {handler} still owes, dead letters too", yes)
    asyncio.run(_forget(Reach(server, ca, os_cloud, allow_insecure), handler))


async def _forget(reach: Reach, handler: str) -> None:
    async with reach.client() as client:
        await client.forget(handler)
    say(f"Handler {handler} is forgotten.")


# --- replay ----------------------------------------------------------------------------------------------------------------


def replay(
    handler: HandlerArgument,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            help="Where to begin: a revision, a time (RFC 3339), or a span ago (2h).",
            metavar="WHEN",
            show_default=False,
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", help="Where to end, itself included. Default: the newest.", metavar="WHEN", show_default=False)
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be delivered, and deliver nothing.")] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: each event, one a line.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Have a handler called again for what matches in a part of the log, with the idempotency keys of the first time.

    Conditions (`on:`) are asked, windows and guards against loops are not. When it is stopped, or the connection breaks, it ends
    there and says how to go on.
    """
    replaying = _Replaying(handler, dry_run, output)
    try:
        stopped = until_stopped(replaying.follow(Reach(server, ca, os_cloud, allow_insecure), from_, to))
    except BaseException:
        replaying.cut()
        raise
    if stopped:
        replaying.cut()
        raise typer.Exit(1)
    replaying.end()


class _Replaying:
    """Shows matches as they come, and remembers how far it came."""

    def __init__(self, handler: str, dry_run: bool, output: Form) -> None:
        self._handler = handler
        self._dry_run = dry_run
        self._output = output
        self._count = 0
        self._place = ""
        self._ended: Replayed | None = None
        self._lines = Lines(["REVISION", "SENT", "EVENT", "VERB", "OBJECT"])
        self._lines.fit([["0" * 16, "2026-11-20 15:00:00", "compute.instance.update", "MODIFIED", "server/" + "0" * 36]])

    async def follow(self, reach: Reach, from_: str, to: str) -> None:
        from vedette.clients import vedette as said

        wanted = self._output is Form.table and not self._dry_run
        async with reach.client() as client:
            with Moving(f"replaying to {self._handler}", wanted=wanted) as moving:
                async with aclosing(client.replay(self._handler, from_, to, dry_run=self._dry_run)) as stream:
                    async for news in stream:
                        match news:
                            case said.Match():
                                self._count += 1
                                self._place = news.revision
                                self._match(news)
                                moving.at(self._count, None, f"{counted(self._count, 'event')}, at revision {self._place}")
                            case said.Waiting():
                                moving.at(self._count, None, f"{counted(self._count, 'event')}, waiting: it has no room")
                            case said.Replayed():
                                self._ended = news

    def _match(self, one: Match) -> None:
        if self._output is Form.json:
            typer.echo(msgspec.json.encode(one).decode())
        elif self._dry_run:
            row = [one.revision, local_time(one.sent_at or ""), one.event_type, one.verb, object_of(one.subject)]
            self._lines.row([plain(text) or "-" for text in row])

    def end(self) -> None:
        if self._output is Form.json:
            return
        if not self._count:
            say(f"Nothing in this part of the log is for {self._handler}: `vedette explain REVISION` says why.")
        elif self._dry_run:
            say(f"{counted(self._count, 'event')} would be delivered to {self._handler} again. Nothing was delivered.")
        else:
            say(f"{counted(self._count, 'event')} of the log will be delivered to {self._handler} again (vedette handlers).")

    def cut(self) -> None:
        """It ended too early: how to go on."""
        if self._place:
            begun = "shown" if self._dry_run else "taken"
            closing(f"{counted(self._count, 'event')} {begun} before it ended; go on with --from {self._place}")


def object_of(subject: str) -> str:
    """`port/<id>` of a subject."""
    _, _, kind, id_ = (subject.split("/", 3) + [""] * 4)[:4]
    return f"{kind.lower()}/{id_}" if kind else ""
