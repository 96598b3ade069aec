"""Asks the process of advice.py: sends it the inventory as of one revision, has things measured, and fetches what it proposes.

engine/audits.py uses it, one audit at a time. Nothing is decoded on the way: bodies go from the store's page into the message. If
the process ends in the middle, the run that had it in hand fails (Interrupted) and may be begun anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from vedette.engine.planner import Planned
from vedette.engine.snapshots import GROUP, KINDS
from vedette.errors import BadRequest, GiveUp, VedetteError, WorkerDied
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.model.advice import Done, Query, Resource, Trigger
from vedette.model.asked import (
    Answered,
    Build,
    Built,
    Did,
    Forget,
    Measure,
    Model,
    More,
    Propose,
    Question,
    Resources,
    Rows,
    Values,
    Wants,
)
from vedette.ports import EVERYTHING, JsonObject, Meter, Selection, Store, Strategy, Worker

log = logging.getLogger("vedette.engine.advising")

MESSAGE = 512 * 1024
"""Bytes of bodies in one message, roughly: well below what a worker takes (model/frames.py)."""
PAGE = 500
"""Objects that the store is asked for at a time."""
CHUNK = 2_000
"""Values or outcomes in one message."""
AHEAD = 4
"""Messages on their way at a time: the next one is there when the process wants it."""
MOST_ACTIONS = 50_000
"""Of one proposal; more is a strategy gone wrong."""
MOST_QUERIES = 50
SHARE = 0.25
"""Of the time, while a snapshot is built, that its pages are read in: the rest is for who else wants the loop and the store. With
more, ingest would lose more than a fifth of its speed (bench/audits.py)."""
LONGEST_REST = 0.2
"""Seconds between two pages: a slow disk makes a snapshot slow once, not four times."""
ROW_TIMEOUT = 60.0
"""Seconds for taking a page of rows."""

Say = Callable[[str], None]


class Interrupted(WorkerDied):
    """The process ended, or was killed at a limit, with the run in its hands."""


class Measurements(msgspec.Struct, frozen=True):
    """What was measured, and what could not be."""

    queries: int = 0
    missing: tuple[str, ...] = ()
    """A sentence for each query in which somebody has no data."""


class Proposal(msgspec.Struct, frozen=True):
    """What a strategy proposes, as a plan."""

    actions: tuple[Planned, ...]
    indicators: dict[str, float]
    notes: tuple[str, ...]


class Advising:
    """One process with strategies. `lend` it for a whole run: it has one run's snapshots in hand at a time."""

    def __init__(self, store: Store, worker: Worker, strategies: Mapping[str, Strategy], clock: Clock, *, timeout: float) -> None:
        """`timeout`: seconds that a strategy may think."""
        self._clock = clock
        self._store = store
        self._worker = worker
        self._strategies = strategies
        self._timeout = timeout
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def lend(self) -> AsyncIterator[Run]:
        """A run with nothing in hand. Others wait for their turn."""
        async with self._turn:
            run = Run(self._store, self._worker, self._strategies, self._clock, self._timeout)
            try:
                yield run
            finally:
                await run.forget()

    async def close(self) -> None:
        await self._worker.close()


class Run:
    """What one audit asks, in the order of the methods."""

    def __init__(self, store: Store, worker: Worker, strategies: Mapping[str, Strategy], clock: Clock, timeout: float) -> None:
        self._store, self._worker, self._strategies, self._clock, self._timeout = store, worker, strategies, clock, timeout

    async def snapshot(
        self,
        slot: str,
        models: Sequence[str],
        scope: list[JsonObject],
        source: str,
        *,
        revision: int = 0,
        say: Say = lambda text: None,
    ) -> tuple[int, Built]:
        """Have the snapshot of a revision (0: now) built; the revision that it is of. Raises Expired (the log doesn't go back
        that far), Interrupted."""
        revision = revision or self._store.head
        sent = 0
        pending: set[asyncio.Task[Any]] = set()
        try:
            for kind in (kind for model in models for kind in KINDS[model]):
                selection = Selection(EVERYTHING, group=GROUP, kind=kind, source=source)
                after: tuple[str, str] | None = None
                while True:
                    begun = self._clock.monotonic()
                    page = await self._store.objects(selection, revision=revision, after=after, limit=PAGE)
                    for rows in _chunks([version.body for _, version in page.items]):
                        question = Rows(slot, kind, [msgspec.Raw(body) for body in rows])
                        pending.add(asyncio.ensure_future(self._ask(question, Any)))
                        if len(pending) >= AHEAD:
                            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                            for one in done:
                                one.result()
                    sent += len(page.items)
                    if sent:
                        say(f"snapshot: {sent} objects")
                    after = page.after
                    if after is None:
                        break
                    await self._clock.sleep(min(LONGEST_REST, (self._clock.monotonic() - begun) * (1 / SHARE - 1)))
            for one in pending:
                await one
        finally:
            for one in pending:
                one.cancel()
        built = await self._ask(Build(slot, revision, scope), Built, self._timeout)
        if built.odd:
            log.warning("objects that can't be read are not in the snapshot", extra=kv(objects=built.odd))
        return revision, built

    async def measured(
        self,
        slot: str,
        strategy: str,
        parameters: JsonObject,
        meters: Sequence[Meter],
        at: int,
        *,
        say: Say = lambda text: None,
    ) -> Measurements:
        """Have measured what the strategy wants, each by the first of the meters that can tell it. Raises BadRequest (no meter
        can), TryLater (one can't be asked), Interrupted."""
        queries = await self._ask(Wants(slot, strategy, parameters), list[Query], self._timeout)
        if len(queries) > MOST_QUERIES:
            raise BadRequest(f"{strategy} wants {len(queries)} measurements, more than {MOST_QUERIES}")
        resources: dict[bool, list[Resource]] = {}
        missing: list[str] = []
        for query in queries:
            meter = next((one for one in meters if query.metric in one.metrics), None)
            if meter is None and query.optional:
                missing.append(f"no meter tells {query.metric}")
                continue
            if meter is None:
                raise BadRequest(f"{strategy} needs {query.metric}, and no meter of the configuration (`meters:`) tells it")
            if query.of_hosts not in resources:
                resources[query.of_hosts] = await self._resources(slot, query.of_hosts)
            of = resources[query.of_hosts]
            say(f"measuring {query.metric} of {len(of)}")
            values = await meter.read(query, of, at) if of else {}
            named = list(values.items())
            for start in range(0, len(named), CHUNK):
                await self._ask(Values(query, dict(named[start : start + CHUNK])), Any)
            unknown = [one.id for one in of if one.id not in values]
            if unknown:
                some = ", ".join(unknown[:5]) + (" …" if len(unknown) > 5 else "")
                missing.append(f"no data of {query.metric} for {len(unknown)} of {len(of)}: {some}")
        return Measurements(len(queries), tuple(missing))

    async def propose(
        self, slot: str, strategy: str, parameters: JsonObject, triggers: Sequence[Trigger], planner: str
    ) -> Proposal:
        """What the strategy proposes, in the order that the planner gives it (a strategy may need one of its own). Raises
        BadRequest (it can't answer), Interrupted, PluginFailed (it has a bug)."""
        question = Propose(slot, strategy, planner, parameters, list(triggers))
        answered = await self._ask(question, Answered, self._timeout)
        if answered.refused:
            raise BadRequest(answered.refused)
        if answered.actions > MOST_ACTIONS:
            raise BadRequest(f"{strategy} proposes {answered.actions} actions, more than {MOST_ACTIONS}: narrow its scope")
        actions: list[Planned] = []
        while len(actions) < answered.actions:
            actions += await self._ask(More(len(actions)), list[Planned])
        return Proposal(tuple(actions), answered.indicators, tuple(answered.notes))

    async def outcome(
        self, before: str, after: str, strategy: str, parameters: JsonObject, done: Sequence[Done]
    ) -> dict[str, float]:
        """The indicators as they turned out; both snapshots are in hand."""
        for start in range(0, len(done), CHUNK):
            await self._ask(Did(list(done[start : start + CHUNK])), Any)
        indicators: dict[str, float] = await self._ask(
            Measure(before, after, strategy, parameters), dict[str, float], self._timeout
        )
        return indicators

    async def model(self, slot: str) -> list[JsonObject]:
        """Rows of Watcher's data model."""
        rows: list[JsonObject] = []
        while page := await self._ask(Model(slot, len(rows)), list[dict[str, Any]]):
            rows += page
        return rows

    async def forget(self) -> None:
        """Best effort: a process that is gone has forgotten."""
        try:
            await self._ask(Forget(), Any)
        except VedetteError as why:
            log.debug("the process of strategies was not told to forget: %s", why)

    async def _resources(self, slot: str, of_hosts: bool) -> list[Resource]:
        found: list[Resource] = []
        while page := await self._ask(Resources(slot, of_hosts, len(found)), list[Resource]):
            found += page
        return found

    async def _ask(self, question: Question, answer: Any, timeout: float = ROW_TIMEOUT) -> Any:
        try:
            told = await self._worker.call(msgspec.json.encode(question), timeout)
        except (WorkerDied, GiveUp) as why:
            raise Interrupted(str(why)) from why
        return None if answer is Any else msgspec.json.decode(told, type=answer)


def _chunks(bodies: Sequence[bytes]) -> list[list[bytes]]:
    """Some at a time, by their bytes."""
    chunks: list[list[bytes]] = []
    size = MESSAGE
    for body in bodies:
        if size + len(body) > MESSAGE:
            chunks.append([])
            size = 0
        chunks[-1].append(body)
        size += len(body)
    return chunks
