"""`vedette explain`: for each handler whether an event was for it, or why not, and what became of each delivery."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.cli.events import Form
from vedette.cli.handlers import object_of
from vedette.cli.named import letter_ids
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption
from vedette.cli.show import ago, coming, counted, plain, say, seconds_ago

if TYPE_CHECKING:
    from vedette.clients.vedette import DeliveryNow, Explanation, HandlerSays, Part

GREEN, RED, YELLOW, GREY = typer.colors.GREEN, typer.colors.RED, typer.colors.YELLOW, typer.colors.BRIGHT_BLACK

EXAMPLES = """Examples:

\b
vedette explain 1795187946000042
vedette explain table.1795187946000042
vedette events --kind port --since 1h     (the last column is the revision)
"""


def add_to(app: typer.Typer) -> None:
    app.command("explain", epilog=EXAMPLES)(explain)


def explain(
    about: Annotated[
        str,
        typer.Argument(
            help="A revision, as `vedette events` shows it, or the id of a dead letter.",
            autocompletion=letter_ids,
            show_default=False,
            metavar="REVISION|LETTER",
        ),
    ],
    output: Annotated[Form, typer.Option("--output", "-o", help="json: all that the server tells.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Say of every handler whether an event was for it or why not, and what became of each delivery.

    Conditions are taken apart where `&&` joins them: each part with what the event has there. It is today's configuration that is
    asked; deliveries are as they were.
    """
    asyncio.run(_explain(Reach(server, ca, os_cloud, allow_insecure), about, output))


async def _explain(reach: Reach, about: str, output: Form) -> None:
    from urllib.parse import quote

    async with reach.client() as client:
        if output is Form.json:
            typer.echo((await client.document(f"/v1/explain/{quote(about, safe='')}")).decode().strip())
            return
        told = await client.explain(about)
    for line in lines(told, time.time()):
        typer.echo(line)
    if not told.handlers:
        say("No handler is configured.")


def lines(told: Explanation, now: float) -> Iterator[str]:
    """What is shown; `now`: our clock, Unix seconds."""
    yield f"revision {plain(told.revision)}: {plain(told.type)} from {plain(told.source)}, id {plain(told.id)}"
    if told.gone:
        yield typer.style(plain(told.gone), fg=YELLOW)
    width = max((len(one.handler) for one in told.handlers), default=0)
    for one in told.handlers:
        yield from _handler(one, width, bool(told.gone), now)


def _handler(one: HandlerSays, width: int, gone: bool, now: float) -> Iterator[str]:
    name = plain(one.handler).ljust(width)
    if one.matched:
        yield f"{typer.style('✓', fg=GREEN)} {name}  matched"
    elif one.matched is None:
        yield f"? {name}  {'' if gone else 'not in the configuration any more'}".rstrip()
    else:
        yield f"{typer.style('·', fg=GREY)} {name}  no: {plain(_why_not(one))}"
    for about in one.about:
        if not any(verdict.parts for verdict in about.on):
            continue
        margin = "    "
        if len(one.about) > 1:
            what = "the notification" if about.of == "notification" else f"{about.verb} {object_of(about.of)}"
            yield f"{margin}{_mark(about.matched)} {plain(what)}"
            margin += "  "
        some = [verdict.parts for verdict in about.on if verdict.parts]
        for number, parts in enumerate(some):
            if number:
                yield f"{margin}or"
            yield from (f"{margin}{_part(part)}" for part in parts)
    for delivery in one.deliveries:
        yield f"    → {plain(_delivery(delivery, now))}"


def _why_not(one: HandlerSays) -> str:
    """Every reason once; a handler that has no say in this event has none."""
    reasons = dict.fromkeys(why for about in one.about for verdict in about.on for why in verdict.why_not)
    return "; ".join(reasons) or "it is called for changes of objects, and this notification changed none"


def _mark(good: bool) -> str:
    return typer.style("✓", fg=GREEN) if good else typer.style("✗", fg=RED)


def _part(part: Part) -> str:
    detail = f"   ({part.detail})" if part.detail else ""
    return f"{_mark(part.verdict is True)} {plain(part.text)}{typer.style(plain(detail), dim=True)}"


def _delivery(one: DeliveryNow, now: float) -> str:
    when = ago(one.at, now)
    again = ", replayed" if one.replay else ""
    said = f": {one.detail}" if one.detail else ""
    tries = counted(one.attempts, "attempt")
    if one.outcome == "done":
        return f"done at the {_th(one.attempts)} attempt, {when}{again}{said}"
    if one.outcome == "dead":
        return f"dead letter {one.id} after {tries}, {when}{again}{said}"
    if one.outcome == "pending":
        due = seconds_ago(one.next_at, now) if one.next_at else None
        coming_next = "" if one.next_at is None else "; next try " + ("now" if due else _until(one.next_at, now))
        if not one.attempts:
            return f"waits to be delivered{again}{coming_next}"
        return f"failed {counted(one.attempts, 'time')}, last {when}{again}{said}{coming_next}"
    if one.outcome in ("suppressed", "coalesced"):
        return one.detail or one.outcome
    return f"{one.outcome} after {tries}, {when}{said}"


def _until(when: str, now: float) -> str:
    from vedette.kit.clock import parse_us

    return coming((parse_us(when) or 0) / 1_000_000 - now)


def _th(number: int) -> str:
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ends.get(number % 10, 'th')}"
