"""`vedette status`: one screen that says how the running service is, and what in it is not well."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.cli.events import Form
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption
from vedette.cli.show import ago, coming, counted, plain, size

if TYPE_CHECKING:
    from vedette.clients.vedette import (
        CloudNow,
        HandlerNow,
        KindReport,
        MirrorNow,
        PollingNow,
        ResyncNow,
        SourceNow,
        StatusNow,
        VerifyNow,
    )

BEHIND = 1000
"""Entries of the log that may be still to be sorted or told before it is worth a word."""
MOST_HANDLERS = 20
"""Handlers that are named."""
GREEN, RED, YELLOW = typer.colors.GREEN, typer.colors.RED, typer.colors.YELLOW


def add_to(app: typer.Typer) -> None:
    app.command("status", epilog=EXAMPLES)(status)


EXAMPLES = """Examples:

\b
vedette status
vedette status --server https://vedette.example:8470
vedette status -o json | jq '.clouds[].resync.kinds[] | select(.held > 0)'
"""


def status(
    output: Annotated[Form, typer.Option("--output", "-o", help="json: all that the server tells.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Show how the service is: sources, how true the inventory is, handlers, log, watchers. Wants an admin's token.

    Kinds of objects and handlers are named when they are not well. `vedette doctor` looks further, and says what to do.
    """
    asyncio.run(_status(Reach(server, ca, os_cloud, allow_insecure), output))


async def _status(reach: Reach, output: Form) -> None:
    async with reach.client() as client:
        if output is Form.json:
            typer.echo((await client.document("/v1/status")).decode().strip())
            return
        now = await client.status()
    for line in lines(now, time.time()):
        typer.echo(line)


def lines(now: StatusNow, at: float) -> Iterator[str]:
    """What is shown; `at`: our clock, Unix seconds."""
    clouds = {one.source: one for one in now.clouds}
    for source in now.sources:
        yield from _source(source, at)
        cloud = clouds.get(source.name)
        if source.gaps:
            times = "once" if source.gaps == 1 else f"{source.gaps} times"
            said = f"{times} since the start news may have been missed (vedette events --type vedette.gap --since 24h)"
            # After a gap everything is compared.
            yield _under(said if cloud is not None and cloud.api else _odd(said))
        if cloud is not None:
            yield from _cloud(cloud, at)
    yield from _handlers(now.handlers)
    for mirror in now.mirrors:
        yield _row("mirror", f"{plain(mirror.name)}: {_mirror(mirror, at)}")
    if now.polling is not None:
        yield _row("measured", _polling(now.polling, at))
    store, watch = now.store, now.watch
    behind = _number(store.head_revision) - _number(watch.position)
    late = _odd(f"; {behind:,} entries are still to be told") if behind > BEHIND else ""
    yield _row("log", f"{store.entries:,} entries, {store.objects:,} objects, {size(store.bytes)}")
    yield _row("watchers", f"{watch.watchers:,}{late}")


def _row(name: str, text: str) -> str:
    return f"{typer.style(f'{name:<10}', bold=True)}{text}"


def _under(text: str) -> str:
    return " " * 10 + text


def _odd(text: str, colour: str = YELLOW) -> str:
    return typer.style(text, fg=colour)


def _source(source: SourceNow, at: float) -> Iterator[str]:
    state = typer.style("ready", fg=GREEN) if source.ready else typer.style("NOT READY", fg=RED, bold=True)
    heard = f", last sign of life {ago(source.last_progress, at)}" if source.last_progress else ""
    yield _row("source", f"{plain(source.name)}: {state}: {plain(source.detail)}{heard}")


def _cloud(cloud: CloudNow, at: float) -> Iterator[str]:
    if not cloud.api or cloud.resync is None:
        yield _under(f"API: {plain(cloud.detail) or 'none'}")
        return
    resync = cloud.resync
    yield _under(f"API: {_compared(resync, at)}")
    for line in _odd_kinds(resync, at):
        yield _under(f"     {line}")
    partly = sum(kind.partly for kind in resync.kinds)
    if partly:
        yield _under(f"     {_odd(nothing_deleted(partly))}")
    if cloud.verify is not None:
        yield _under(f"     {_verify(cloud.verify)}")


def _compared(resync: ResyncNow, at: float) -> str:
    """How old the truth is."""
    if resync.state == "waiting":
        return f"the first comparison has yet to come: {plain(resync.detail)}"
    times = [kind.complete_at for kind in resync.kinds if kind.complete_at]
    whole = (
        f"{counted(len(times), 'kind')} compared as a whole, the oldest {ago(min(times), at)}"
        if times
        else "no kind was ever compared as a whole"
    )
    if resync.state == "running":
        return f"{whole}; comparing now"
    return f"{whole}; next {coming(resync.next_in_seconds)}" if resync.next_in_seconds else f"{whole}; next on demand only"


def _odd_kinds(resync: ResyncNow, at: float) -> Iterator[str]:
    """Kinds that are not well; those of which the same is to be said together."""
    odd = [kind for kind in resync.kinds if (kind.ended and not kind.well) or (kind.state == "done" and kind.detail)]
    if resync.state == "idle":
        odd += [kind for kind in resync.kinds if kind.state == "never"]
    for kinds in alike(odd):
        state, detail = kinds[0].state, plain(kinds[0].detail)
        names = named(kinds, resync.kinds)
        if state == "held":
            yield f"{names}: {_odd('deletions wait for you', RED)}: {detail}"
        elif state == "done":
            yield f"{names}: {_odd(detail)}"
        elif state == "never":
            yield f"{names}: {_odd('never compared')}"
        else:
            yield f"{names}: {_odd(plain(state), RED)}, {last_whole(kinds, at)}: {detail}"


def alike(kinds: Sequence[KindReport]) -> list[list[KindReport]]:
    """Those together whose state and detail are the same: a service that is down, or a login that is refused, concerns many."""
    found: dict[tuple[str, str], list[KindReport]] = {}
    for kind in kinds:
        found.setdefault((kind.state, kind.detail), []).append(kind)
    return list(found.values())


def named(kinds: Sequence[KindReport], every: Sequence[KindReport]) -> str:
    """`port, router`; or that it is all of them."""
    if len(kinds) == len(every) > 3:
        return f"all {len(every)} kinds"
    return plain(", ".join(kind.kind for kind in kinds))


def last_whole(kinds: Sequence[KindReport], at: float) -> str:
    """When the one was compared as a whole for which that is longest ago."""
    times = [kind.complete_at for kind in kinds if kind.complete_at]
    return "never whole" if len(times) < len(kinds) else f"last whole {ago(min(times), at)}"


def nothing_deleted(kinds: int) -> str:
    """What it means for so many kinds that the account may not see everything."""
    return f"{counted(kinds, 'kind')}: nothing is taken for deleted, since the account may not see every project (vedette doctor)"


def _verify(verify: VerifyNow) -> str:
    followed = f"looked after while followed: {plain(', '.join(verify.followed))}" if verify.followed else "nothing is followed"
    count = sum(verify.waiting.values())
    waiting = f"; {counted(count, 'object')} yet to settle" if count else ""
    return followed + waiting + (_odd(f"; {plain(verify.detail)}", RED) if verify.detail else "")


def _handlers(there: Sequence[HandlerNow]) -> Iterator[str]:
    """All of them in a line, and one for each that is not well."""
    if not there:
        return
    states = Counter(one.state for one in there)
    told = ", ".join(f"{number} {plain(state)}" for state, number in states.items())
    pending = sum(one.pending for one in there)
    yield _row("handlers", f"{told}; {pending:,} {'delivery' if pending == 1 else 'deliveries'} pending")
    odd = [one for one in there if one.state != "ready" or one.dead_letters or one.lag > BEHIND]
    for one in odd[:MOST_HANDLERS]:
        yield _under(f"{plain(one.name)}: {_how(one)}")
    if len(odd) > MOST_HANDLERS:
        yield _under(f"and {len(odd) - MOST_HANDLERS} more that are not well (vedette handlers)")


def _how(one: HandlerNow) -> str:
    parts = []
    if one.state == "waiting":
        parts.append(_odd(f"waits for its target: {plain(one.detail)}", RED))
    elif one.state == "paused":
        parts.append(_odd("paused by its dead letters", RED))
    elif one.state != "ready":
        parts.append(plain(one.state))
    if one.lag > BEHIND or one.state == "behind":
        parts.append(f"{one.lag:,} entries behind")
    if one.pending:
        parts.append(f"{one.pending:,} pending")
    if one.dead_letters:
        letters = counted(one.dead_letters, "dead letter")
        parts.append(_odd(f"{letters} (vedette deadletters --handler {plain(one.name)})"))
    return "; ".join(parts)


def _mirror(one: MirrorNow, at: float) -> str:
    compared = f"compared {ago(one.compared_at, at)}" if one.compared_at else "not compared yet"
    parts = [f"{counted(one.objects, 'object')}, {compared}"]
    if one.trouble:
        parts.append(_odd(plain(one.trouble), RED))
    if one.failed:
        parts.append(_odd(f"{one.failed:,} refused there (the log names them)"))
    if one.kept:
        parts.append(_odd(f"{one.kept:,} left, since nobody confirms that the cloud has them no more"))
    return "; ".join(parts)


def _polling(one: PollingNow, at: float) -> str:
    read = ago(one.read_at, at) if one.read_at else "not yet"
    missing = f", {one.missing:,} without data" if one.missing else ""
    trouble = f"; {_odd(plain(one.trouble), RED)}" if one.trouble else ""
    return f"{read}: {counted(one.servers, 'server')}, {counted(one.samples, 'value')}{missing}{trouble}"


def _number(revision: str) -> int:
    return int(revision) if revision.isdigit() else 0
