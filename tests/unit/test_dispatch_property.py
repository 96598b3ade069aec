"""Whatever fails and whenever the dispatcher dies: every match is called for or says why not, in the order of its object.

A seeded simulation on both stores: handlers of every setting that fail in every way, a store that refuses writes and reads,
crashes at any await, redriving, replaying and retention in between; then everything heals, and the books are balanced. A failure
prints its seed: `pytest -k "memory and 17"`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from dispatching import KINDS, on

from vedette.engine.dispatch import Dispatch
from vedette.engine.letters import letter_id
from vedette.engine.line import Rule
from vedette.engine.matching import subject_of
from vedette.errors import Expired, GiveUp, StoreUnavailable, TargetUnavailable, TryLater
from vedette.kit.telemetry import Telemetry
from vedette.model.change import Change
from vedette.model.delivery import Delivery, PutCursor, PutDelivery, Settle, Work
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE, Reading
from vedette.ports import EVERYTHING, Appended, Context, Event, Selection, Store
from vedette.store.memory import MemoryStore
from vedette.store.sqlite import SqliteStore
from vedette.testing.clock import FakeClock

SEEDS = range(10)
STEPS = 40
OBJECTS = "abcdef"

Place = tuple[int, int]
"""A delivery of a handler: (revision, number)."""


class Books:
    """What a handler was called with and what became of it, over all lives of the dispatcher."""

    def __init__(self) -> None:
        self.life = 0
        self.first: dict[str, list[Place]] = defaultdict(list)
        """Subject → its deliveries, in the order of their first calls."""
        self.called: set[Place] = set()
        self.asked: set[Place] = set()
        """Those that were first called because somebody asked for it."""
        self.ended: dict[Place, tuple[str, str]] = {}
        """Outcome and reason, as the store has them for sure."""
        self.under_way: dict[tuple[int, str], Place] = {}
        self.begins: int | None = None
        """Its place in the log when it was first seen."""
        self.lost: list[range] = []
        """Revisions that were gone from the log before it had sorted them, and a dead letter says so: age took what a handler
        would have begun with that was only just configured, and whose first cursor was not durable yet."""
        self.wrong: list[str] = []


class Unreliable:
    """A store that now and then refuses, before anything is kept; and that sees each outcome before the dispatcher does."""

    def __init__(self, store: Store, dice: random.Random, books: Mapping[str, Books]) -> None:
        self.store, self.dice, self.books = store, dice, books
        self.refuses = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    async def append(self, entries: Sequence[NewEntry], expect: Any = None, work: Sequence[Work] = ()) -> Any:
        if self.dice.random() < self.refuses:
            raise StoreUnavailable("not now", delay=0.2)
        try:
            revisions = await self.store.append(entries, expect, work)
        except asyncio.CancelledError:
            self._note(work)  # it is written all the same
            raise
        self._note(work)
        return revisions

    def _note(self, work: Sequence[Work]) -> None:
        for one in work:
            if isinstance(one, Settle):
                self.books[one.handler].ended[one.revision, one.number] = one.outcome, one.detail
            elif isinstance(one, PutDelivery) and one.delivery.outcome != "pending":
                d = one.delivery
                books = self.books[d.handler]
                if lost := re.match(r"revisions (\d+) to (\d+) left the log", d.detail):
                    books.lost.append(range(int(lost[1]), int(lost[2]) + 1))
                else:
                    books.ended[d.revision, d.number] = d.outcome, d.detail
            elif isinstance(one, PutCursor) and self.books[one.handler].begins is None:
                self.books[one.handler].begins = one.cursor.position

    async def entries(self, after: int, **more: Any) -> Any:
        if self.dice.random() < self.refuses:
            raise StoreUnavailable("not now", delay=0.2)
        return await self.store.entries(after, **more)


class Dicey:
    """A handler that does what the dice say, until it is healed."""

    def __init__(self, books: Books, dice: random.Random) -> None:
        self.books, self.dice = books, dice
        self.bad = 0.0
        self.wanted: Callable[[str], Sequence[Place]] = lambda subject: ()

    async def handle(self, event: Event, context: Context) -> str | None:
        books, place = self.books, _place(event)
        subject = _subject(event)
        if place not in books.called:
            books.called.add(place)
            if event.replay:  # a person may ask for one from before its time, or that had been coalesced long ago
                books.asked.add(place)
            else:
                books.first[subject].append(place)
        if subject:
            for earlier in self.wanted(subject):
                if earlier < place and not event.replay and earlier not in books.ended:
                    books.wrong.append(f"{place} of {subject} began before {earlier} was settled")
            mine = books.life, subject
            if mine in books.under_way:
                books.wrong.append(f"two calls for {subject} at a time: {books.under_way[mine]} and {place}")
            books.under_way[mine] = place
        try:
            return await self._do(context)
        finally:
            if subject:
                books.under_way.pop(mine, None)

    async def _do(self, context: Context) -> str | None:
        dice = self.dice
        for _ in range(dice.randrange(4)):
            await asyncio.sleep(0)
        if dice.random() >= self.bad:
            context.remember("last", dice.random())
            return "fine"
        match dice.randrange(8):
            case 0:
                raise TryLater("later", delay=dice.random() * 10)
            case 1 | 2:
                raise TargetUnavailable("nobody there", delay=dice.random())
            case 3:
                raise GiveUp("never")
            case 4:
                await asyncio.sleep(3600)  # until its timeout, or the crash
            case 5:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(3600)
                return "it swallowed its cancellation"
            case 6:
                raise asyncio.CancelledError("itself")
        raise RuntimeError("not today")

    async def close(self) -> None:
        pass


def _place(event: Event) -> Place:
    _, revision, *number = event.idempotency_key.split("/")
    return int(revision), int(number[0]) if number else 0


def _subject(event: Event) -> str:
    key = event.key
    return "" if key is None else f"{key.source}/{key.group}/{key.kind}/{key.id}"


class World:
    """One history."""

    def __init__(self, store: Store, clock: FakeClock, dice: random.Random) -> None:
        self.clock, self.dice = clock, dice
        self.log: list[Appended] = []
        store.follow(self.log.extend)
        self.books: dict[str, Books] = defaultdict(Books)
        self.store = store
        self.seen_by_dispatch = Unreliable(store, dice, self.books)
        self.handlers: dict[str, Dicey] = {}
        self.rules = [self.rule(f"h{n}") for n in range(dice.randrange(2, 6))]
        self.late = self.rule("late", start="earliest")
        self.said = 0
        self.task: asyncio.Task[None] | None = None
        self.dispatch: Dispatch | None = None

    def rule(self, name: str, **more: Any) -> Rule:
        dice = self.dice
        handler = self.handlers[name] = Dicey(self.books[name], dice)
        handler.wanted = lambda subject: [
            place for about, places in self.wanted(rule).items() if about == subject for place in places
        ]
        matches = [
            on(kinds=("port",)),
            on(kinds=("port",), verbs=("ADDED", "DELETED")),
            on(types=("port.*",)),
            (*on(kinds=("port",)), *on(types=("port.update.end",))),
        ]
        settings = {
            "on": dice.choice(matches),
            "attempts": dice.choice([2, 4, 20]),
            "first": dice.choice([0.1, 1.0]),
            "most": 20.0,
            "timeout": 0.02,
            "concurrency": dice.choice([1, 2, 10]),
            "rate": dice.choice([0.0, 0.0, 20.0]),
            "coalesce": dice.choice([0.0, 0.0, 2.0]),
            "max_pending": dice.choice([1, 3, 20, 10_000]),
            "start": dice.choice(["now", "earliest"]),
        }
        rule = Rule(name=name, use="dicey", handler=handler, **{**settings, **more})
        return rule

    def wanted(self, rule: Rule) -> dict[str, list[Place]]:
        """By the plain reading of `on`: subject → every (revision, number) that the handler is to be called for."""
        found: dict[str, list[Place]] = defaultdict(list)
        books = self.books[rule.name]
        for one in self.log:
            revision = one.entry.revision
            if (
                one.entry.notice.source == "vedette"
                or revision <= (books.begins or 0)
                or any(revision in lost for lost in books.lost)
            ):
                continue
            about: list[Change | None] = [
                change
                for change in one.changes
                if any(match.of_changes and (not match.verbs or change.verb in match.verbs) for match in rule.on)
            ]
            if any(not match.of_changes and _fits(one.entry.notice.event_type, match.types) for match in rule.on):
                about.append(None)
            for number, change in enumerate(about):
                found[subject_of(one, change)].append((one.entry.revision, number))
        return found

    # --- what happens ---

    async def start(self) -> None:
        for books in self.books.values():
            books.life += 1
            books.under_way.clear()
        rules = [*self.rules, self.late] if self.said > 30 else self.rules
        self.dispatch = Dispatch(
            cast(Store, self.seen_by_dispatch), rules, KINDS, self.clock, Telemetry(), rng=random.Random(self.dice.random())
        )
        self.task = asyncio.create_task(self.dispatch.run())

    async def crash(self) -> None:
        """At whatever it awaits just now."""
        for _ in range(self.dice.randrange(60)):
            await asyncio.sleep(0)
        assert self.task is not None
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
            await self.task

    async def keep_up(self) -> None:
        """It ends by itself only when it could not begin."""
        assert self.task is not None
        while self.task.done():
            with contextlib.suppress(StoreUnavailable):
                self.task.result()
            await self.start()
            await self.rest()

    async def say(self) -> None:
        dice = self.dice
        entries = []
        for _ in range(dice.choice([1, 1, 3, 12])):
            self.said += 1
            self.clock.tick(0.000001)
            now = self.clock.now_us()
            some = dice.sample(OBJECTS, dice.choice([0, 1, 1, 1, 2]))
            verb = dice.choice(["create", "update", "update", "delete"])
            readings = tuple(
                Reading(kind="Port", id=id_, verb=verb, as_of=now, project="p", fields={"n": self.said})  # type: ignore[arg-type]
                for id_ in some
            )
            notice = Notice(
                id=f"n{self.said}", source="one", event_type=f"port.{verb}.{dice.choice(['start', 'end'])}", sent_at=now,
                payload=msgspec.Raw(b"{}"),
            )  # fmt: skip
            entries.append(NewEntry(notice, readings))
        await self.store.append(entries)

    async def rest(self, seconds: float = 0.0) -> None:
        """Let everything come to rest: the store's thread, the loop, and the calls that hang for some milliseconds."""
        await self.clock.advance(seconds)
        await self.store.retain(horizon=0)
        await self.clock.advance(0)

    async def ask(self) -> None:
        """What a person does, at the same time as everything else; the crash may take it along."""
        dispatch, dice = self.dispatch, self.dice
        assert dispatch is not None
        if not dispatch.ready.is_set():
            return
        dead = await dispatch.dead_letters()
        some = dice.sample(dead, min(len(dead), dice.randrange(4)))
        some = [one for one in some if any(rule.name == one.handler for rule in dispatch._rules)]
        match dice.randrange(3):
            case 0:
                await dispatch.redrive(some, rate=dice.choice([0.0, 5.0]), who="me")
            case 1:
                await dispatch.discard(some, who="me")
            case 2:
                after = max(self.store.oldest, self.store.head - 6)
                name = dice.choice(self.rules).name
                with contextlib.suppress(Expired):
                    async for _ in dispatch.replay(name, after, self.store.head, dry_run=False):
                        pass

    async def live(self) -> None:
        dice = self.dice
        await self.start()
        await self.rest()
        asking: set[asyncio.Task[None]] = set()
        for _ in range(STEPS):
            await self.keep_up()
            for handler in self.handlers.values():
                handler.bad = dice.choice([0.0, 0.2, 0.9])
            self.seen_by_dispatch.refuses = dice.choice([0.0, 0.0, 0.3])
            match dice.randrange(10):
                case 0:
                    await self.crash()
                    for one in asking:
                        one.cancel()
                    await asyncio.gather(*asking, return_exceptions=True)
                    asking.clear()
                    await self.start()
                case 1:
                    await self.store.retain(horizon=self.clock.now_us() - 5_000_000, most=20)
                case 2:
                    asking.add(asyncio.create_task(self.ask()))
                case 3:
                    await self.rest(dice.random() * 30)
                case 4:
                    await asyncio.sleep(0.01)
                case _:
                    await self.say()
                    if dice.random() < 0.5:
                        await self.rest(dice.random())
        await self.heal(asking)

    async def heal(self, asking: set[asyncio.Task[None]]) -> None:
        self.seen_by_dispatch.refuses = 0.0
        for handler in self.handlers.values():
            handler.bad = 0.0
        await self.crash()
        await self.start()
        for one in asking:
            one.cancel()
        for outcome in await asyncio.gather(*asking, return_exceptions=True):
            assert not isinstance(outcome, Exception) or isinstance(outcome, TryLater), outcome
        for _ in range(400):
            await self.rest(5.0)
            await self.keep_up()
            assert self.dispatch is not None
            there = self.dispatch.status()
            if self.dispatch.ready.is_set() and not any(one["pending"] or one["lag"] for one in there):
                return
            await asyncio.sleep(0.002)
        raise AssertionError(f"it does not come to rest: {there}")

    # --- what has to hold ---

    async def balance(self) -> None:
        assert self.dispatch is not None
        rows = [d async for d in _all(self.store)]
        assert [f"{d}" for d in rows if d.outcome == "pending"] == []
        for rule in self.dispatch._rules:
            books = self.books[rule.name]
            assert books.wrong == [], f"{rule.name}: {books.wrong[:3]}"
            mine = {(d.revision, d.number): d for d in rows if d.handler == rule.name}
            wanted = self.wanted(rule)
            every = {place for places in wanted.values() for place in places}
            for place in every:
                outcome, reason = books.ended[place]
                if place not in books.called:
                    assert outcome in ("coalesced", "suppressed", "dead", "discarded"), (rule.name, place, outcome)
                    assert reason, (rule.name, place, outcome)
                if outcome == "dead":
                    assert mine[place].outcome == "dead", "a dead letter stays until somebody settles it"
            assert books.called - books.asked <= every
            for subject, order in books.first.items():
                if subject:
                    assert order == sorted(order), f"{rule.name}: first calls of {subject} out of order: {order}"
            assert all(d.attempt <= rule.attempts for d in mine.values())
            self._empty(rule.name)
        dead = {letter_id(d) for d in rows if d.outcome == "dead"}
        assert await self._letters() == dead
        for one in self.dispatch.status():
            assert one["deadLetters"] == sum(1 for d in rows if d.outcome == "dead" and d.handler == one["name"])
            assert one["lag"] == 0

    def _empty(self, name: str) -> None:
        assert self.dispatch is not None
        line = self.dispatch._lines[name]
        assert (line.pending, line.runners, self.dispatch._held_bytes) == (0, 0, 0)
        assert [*line.subjects, *line.ready, *line.memory, *line.coalescing] == []

    async def _letters(self) -> set[str]:
        page = await self.store.objects(Selection(EVERYTHING, group=VEDETTE, kind="DeadLetter"), limit=100_000)
        return {key.id for key, _ in page.items}


def _fits(event_type: str, patterns: Sequence[str]) -> bool:
    return any(event_type == pattern or (pattern.endswith("*") and event_type.startswith(pattern[:-1])) for pattern in patterns)


async def _all(store: Store) -> AsyncIterator[Delivery]:
    after = (0, "", 0)
    while some := await store.deliveries(after=after, limit=500):
        for one in some:
            yield one
        after = (some[-1].revision, some[-1].handler, some[-1].number)


@asynccontextmanager
async def _store(name: str, clock: FakeClock, folder: Path) -> AsyncIterator[Store]:
    store: Store = MemoryStore(clock) if name == "memory" else await SqliteStore.open(folder, clock, pragmas={"synchronous": 0})
    try:
        yield store
    finally:
        await store.close()


async def history(name: str, seed: int, folder: Path) -> Mapping[str, int]:
    dice, clock = random.Random(seed), FakeClock()
    async with _store(name, clock, folder) as store:
        world = World(store, clock, dice)
        try:
            await world.live()
            await world.balance()
        except BaseException:
            print(f"seed {seed}, store {name}")
            raise
        finally:
            if world.task is not None:
                await world.crash()
        ended: dict[str, int] = defaultdict(int)
        for books in world.books.values():
            for outcome, _ in books.ended.values():
                ended[outcome] += 1
        return ended


@pytest.mark.parametrize("seed", [*SEEDS, None])
@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_every_match_is_called_for_or_says_why_not(
    name: str, seed: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    seed = random.SystemRandom().randrange(10**9) if seed is None else seed
    ended = await history(name, seed, tmp_path / "data")
    assert ended["done"] > 0
