"""Handlers follow the log: each entry is sorted into deliveries, each delivery is made, retried, and settled, whatever dies.

Entries come in from the store (`follow`); `Handler.handle` of a plug is next; outcomes go back to the store. Three things happen,
all of them by one writer, in order, and each as one transaction with what it belongs to (`Store.append(work=…)`):

- *sorting*: what an entry matches becomes rows of `deliveries`, in the write that moves the cursor. Handlers that have caught up
  share one cursor (`LIVE`) and one look at each entry; one that is new, or that had more waiting than `max_pending`, reads the
  log at its own pace until it is back.
- *making*: of each object one delivery at a time, the next when the earlier one's outcome is durable; objects side by side up to
  `concurrency`. A failed one waits by the schedule in its row and keeps a copy of its event. When nobody answers, or five
  different objects fail in a row, the circuit opens: the handler waits and tries with one delivery at a time.
- *settling*: done, dead (with an entry that says so), suppressed, coalesced.

What happens at the limits: at `max_pending` a handler's deliveries wait in the log; at 10,000 dead letters it pauses until a
person looks; revisions that the log lost by size before they were sorted are a dead letter that names them.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import cache, partial
from itertools import count
from typing import Any

import msgspec

from vedette.engine import letters
from vedette.engine.cause import cause_of
from vedette.engine.conditions import View
from vedette.engine.explain import explained
from vedette.engine.letters import letter_id
from vedette.engine.line import MOST_DEAD, MOST_DELAY, OPENS_AT, Context, Job, Line, Rule, event_of
from vedette.engine.matching import Index, Names, subject_of
from vedette.engine.windows import Call, Groups, Hold, Place, Suppress, group
from vedette.errors import (
    BadRequest,
    ConfigError,
    Conflict,
    Expired,
    GiveUp,
    NotFound,
    TargetUnavailable,
    TryLater,
)
from vedette.kit.clock import Clock, parse_us
from vedette.kit.log import kv
from vedette.kit.tasks import wait_for_event
from vedette.kit.telemetry import Telemetry
from vedette.model.delivery import (
    LIVE,
    Cursor,
    Delivery,
    DropHandler,
    Outcome,
    PutCursor,
    PutDelivery,
    PutState,
    Settle,
    Work,
)
from vedette.model.entry import NewEntry
from vedette.model.reading import VEDETTE
from vedette.ports import EVERYTHING, Appended, Event, Kind, Selection, Store, Tracer

log = logging.getLogger("vedette.engine.dispatch")

SLICE = 50
"""Entries sorted before somebody else gets a turn. Matching one takes 1 µs, or 12 with one condition that has to be looked at."""
TURN = 0.002
"""Seconds of calls that wait for nothing before somebody else gets a turn."""
READ = 200
"""Entries read from the log at a time."""
KEPT_BYTES = 64 * 1024 * 1024
"""Entries that were just appended and wait to be sorted; beyond it they are read from the log. And as much of those that wait
to be handled: the others are read when it is their turn."""
UNWRITTEN = 5_000
"""Works that wait to be written before sorting waits for them."""
EARLY = 1e-6
"""Seconds: what is due so soon is due now, since no clock sleeps for less."""
CURSOR_SECONDS = 1.0
"""How long the shared cursor may be behind in the store while nothing matches."""
STATUS_SECONDS = 1.0
"""A handler's status is told at most this often."""
MOST_DETAIL = 2_000
"""Characters of an outcome or an error that are kept."""

_Asked = tuple[Sequence[Work], Sequence[NewEntry], Sequence[tuple[Line, Job]]]
"""What a person's wish comes to: what is written, what the log is told, what is made."""


class Dispatch:
    """See the module. `run` until cancelled; it may be run again, and begins from the store each time."""

    def __init__(
        self,
        store: Store,
        rules: Sequence[Rule],
        kinds: Sequence[Kind],
        clock: Clock,
        telemetry: Telemetry,
        *,
        tracer: Tracer | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._tracer = tracer
        self._store = store
        self._rules = tuple(rules)
        self._clock = clock
        self._rng = rng or random.Random()
        self._names = Names(kinds)
        self.ready = asyncio.Event()
        """Set while what was owed is loaded and new entries are followed."""
        # Looked up once for each handler and word: the client's own look-up takes as long as a whole call's other accounts.
        self._outcomes = cache(
            telemetry.counter("handler_deliveries_total", "Deliveries by how they ended", "handler", "outcome").labels
        )
        self._attempts = cache(telemetry.counter("handler_attempts_total", "Calls of a handler", "handler", "result").labels)
        buckets = (0.001, 0.005, 0.025, 0.1, 0.5, 1, 5, 30)
        self._seconds = cache(telemetry.histogram("handler_seconds", "How long a call took", "handler", buckets=buckets).labels)
        self._let_go = telemetry.counter("handler_window_groups_let_go_total", "Groups beyond max_groups", "handler")
        for name, sentence, value in (
            ("handler_pending", "Deliveries that wait or are being made", lambda line: line.pending),
            ("handler_lag_entries", "Entries of the log that were not sorted yet", self._lag),
            ("handler_dead_letters", "Dead letters", lambda line: line.dead),
            ("handler_circuit_open", "1: its target does not answer, it waits", lambda line: int(line.circuit.opened)),
        ):
            gauge = telemetry.gauge(name, sentence, "handler")
            for rule in self._rules:
                gauge.labels(rule.name).set_function(self._measured(rule.name, value))
        self._reset()

    def _measured(self, name: str, value: Callable[[Line], float]) -> Callable[[], float]:
        return lambda: value(self._lines[name])

    def _reset(self) -> None:
        self._lines = {rule.name: Line(number, rule, self._names) for number, rule in enumerate(self._rules)}
        self._by_number = list(self._lines.values())
        self._index = Index([line.on for line in self._by_number], self._names)
        self._shared = 0
        """Up to where the live ones were sorted."""
        self._heard: deque[Appended] = deque()
        self._heard_bytes = 0
        self._cursor_due = False
        """The shared cursor has moved on with nothing to write, and is written soon."""
        self._held_bytes = 0
        """Of the entries that jobs hold, one of several handlers counted several times."""
        self._heard_from = 0
        """What was heard is complete above this."""
        self._news = asyncio.Event()
        self._outbox: list[tuple[Sequence[Work], Sequence[NewEntry], Callable[[], None]]] = []
        self._unwritten = 0
        self._to_write = asyncio.Event()
        self._written = asyncio.Event()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timed = asyncio.Event()
        self._order = count()
        self._tasks: asyncio.TaskGroup | None = None
        self._stopping = False
        self._in_hand: dict[tuple[str, int, int], asyncio.Future[None]] = {}
        """Deliveries that a person has asked something for, until it is written."""

    # --- its life ---

    async def run(self) -> None:
        """Until cancelled."""
        self._reset()
        # Without handlers there is nothing to sort; only what a person asks of those that were is written.
        stop = self._store.follow(self._hear) if self._rules else _nothing
        try:
            await self._load()
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._write(), name="dispatch write")
                self._tasks.create_task(self._time(), name="dispatch time")
                if self._rules:
                    self._tasks.create_task(self._sort(), name="dispatch sort")
                    self._tasks.create_task(self._tell(), name="dispatch tell")
                for line in self._by_number:
                    if not line.live:
                        self._catch_up_soon(line)
                    self._pump(line)
                self.ready.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    # Before its tasks are cancelled: one that does not heed it starts nothing new.
                    self._tasks = None
        except ExceptionGroup as several:
            raise several.exceptions[0] from several
        finally:
            stop()
            self._tasks = None
            self._drop_hands()
            self.ready.clear()

    async def drain(self, seconds: float) -> None:
        """Before `run` is cancelled: start no more calls, and let those under way end and be written, for so long."""
        self._stopping = True
        try:
            async with asyncio.timeout(seconds):
                while self._tasks is not None and (
                    self._outbox or self._unwritten or any(line.runners for line in self._by_number)
                ):
                    await self._wait_written()
        except TimeoutError:
            left = sum(line.runners for line in self._by_number)
            log.warning("calls that did not end in time are made again at the next start", extra=kv(calls=left))

    async def close(self) -> None:
        """Let go of the handlers; after `run` has ended."""
        for rule in self._rules:
            try:
                await rule.handler.close()
            except Exception:
                log.exception("a handler could not be closed", extra=kv(handler=rule.name))

    async def _load(self) -> None:
        """What the store knows: cursors, what is owed, what is dead, what kinds of other clusters are called."""
        store = self._store
        # What a run before this one handed over may not be written yet; behind this, which changes nothing, it is.
        await store.append((), work=[PutState(LIVE, "", "", None)])
        cursors = await store.cursors()
        head = store.head
        shared = cursors.get(LIVE)
        any_live = any(one.live for name, one in cursors.items() if name != LIVE)
        # With nobody on it the shared cursor may stand days back: then it begins at the newest.
        self._shared = shared.position if shared is not None and any_live else head
        self._heard_from = head
        works: list[Work] = [PutCursor(LIVE, Cursor(self._shared))]
        entries: list[NewEntry] = []
        for name, cursor in cursors.items():
            if name != LIVE and name not in self._lines:
                log.warning(
                    "a handler that has a place in the log is not configured any more: its entries are kept from there on; "
                    "`vedette handlers forget %s` lets go of them",
                    name,
                )
                place = max(cursor.position, self._shared) if cursor.live else cursor.position
                if cursor.live:
                    works.append(PutCursor(name, Cursor(place)))
                said = {"state": "unconfigured", "detail": f"vedette handlers forget {name}", "position": str(place)}
                entries.append(letters.status(self._clock.now_us(), self._store.head, name, said))
        for line in self._by_number:
            known = cursors.get(line.rule.name)
            place = await self._start(line.rule) if known is None else known.position
            cursor = known or Cursor(place, live=place >= self._shared)
            works.append(PutCursor(line.rule.name, cursor))
            line.live = cursor.live
            line.position = (
                max(cursor.position, self._shared) if cursor.live and cursor.position <= self._shared else cursor.position
            )
            if line.rule.window is not None:
                states = await store.state(line.rule.name, "window")
                line.groups = Groups(line.rule.window.rule, [(one.key, one.value) for one in states])
                self._look_when_idle(line)
        async for delivery in self._all(("pending",)):
            owner = self._lines.get(delivery.handler)
            if owner is not None:
                owner.pending += 1
                self._enqueue(owner, Job(delivery, None))
        async for delivery in self._all(("dead",)):
            owner = self._lines.get(delivery.handler)
            if owner is not None:
                owner.dead += 1
        await self._learn_names()
        await store.append(entries, work=works)

    async def _start(self, rule: Rule) -> int:
        """Where a new handler begins."""
        if rule.start == "now":
            return self._store.head
        if rule.start == "earliest":
            return self._store.oldest
        if rule.start.isdecimal():
            revision = int(rule.start)
            if not self._store.oldest <= revision <= self._store.head:
                raise ConfigError(
                    f"handler {rule.name}: start {revision} is not in the log ({self._store.oldest} to {self._store.head})"
                )
            return revision
        when = parse_us(rule.start)
        assert when is not None, "the configuration was checked"
        return await self._store.revision_at(when)

    async def _all(self, outcomes: tuple[Outcome, ...], handler: str = "") -> AsyncIterator[Delivery]:
        after = (0, "", 0)
        while some := await self._store.deliveries(handler=handler, outcomes=outcomes, after=after, limit=1000):
            for delivery in some:
                yield delivery
            after = (some[-1].revision, some[-1].handler, some[-1].number)

    async def _learn_names(self) -> None:
        after: tuple[str, str] | None = None
        while True:
            page = await self._store.objects(Selection(EVERYTHING, group=VEDETTE, kind="Resource"), after=after)
            for _, version in page.items:
                self._learn(msgspec.json.decode(version.body)["status"])
            if page.after is None:
                return
            after = page.after

    def _learn(self, resource: dict[str, Any]) -> None:
        names = [str(resource.get("plural", "")), str(resource.get("singular", "")), *map(str, resource.get("shortNames") or ())]
        if self._names.learn(str(resource.get("group", "")), str(resource.get("kind", "")), names):
            self._index.forget()
            for line in self._by_number:
                line.index.forget()

    # --- sorting ---

    def _hear(self, appended: Sequence[Appended]) -> None:
        """In the store's callback: keep what was appended, as long as there is room, and wake the sorter."""
        for one in appended:
            self._heard.append(one)
            self._heard_bytes += _weight(one)
        while self._heard_bytes > KEPT_BYTES:
            gone = self._heard.popleft()
            self._heard_bytes -= _weight(gone)
            self._heard_from = gone.entry.revision
        self._news.set()

    async def _sort(self) -> None:
        """The live ones, all by one look at each entry; until it is told to stop: what comes then is sorted at the next start."""
        while not self._stopping:
            while self._unwritten > UNWRITTEN:
                await self._wait_written()
            if self._shared >= self._heard_from:
                if not self._sort_heard():
                    self._news.clear()
                    await self._news.wait()
                else:
                    await asyncio.sleep(0)
                continue
            try:
                some, upto = await self._look(self._shared, READ, self._heard_from)
            except Expired:
                self._lose_live()
                continue
            for start in range(0, len(some), SLICE):
                part = some[start : start + SLICE]
                self._sort_these(part, part[-1].entry.revision if start + SLICE < len(some) else upto)
                await asyncio.sleep(0)
            if not some:
                self._sort_these((), upto)

    def _sort_heard(self) -> bool:
        """A slice of what was heard; whether there was any."""
        some: list[Appended] = []
        while self._heard and len(some) < SLICE:
            one = self._heard.popleft()
            self._heard_bytes -= _weight(one)
            self._heard_from = one.entry.revision
            if one.entry.revision > self._shared:
                some.append(one)
        if some:
            self._sort_these(some, some[-1].entry.revision)
        return bool(some or self._heard)

    def _sort_these(self, some: Sequence[Appended], upto: int) -> None:
        """Without giving up the loop: whoever joins or leaves the live ones does so between two entries."""
        works: list[Work] = []
        jobs: list[tuple[Line, Job]] = []
        for one in some:
            hits = self._index.matches(one)
            if hits:
                numbers: dict[int, int] = {}
                for hit in hits:
                    line = self._by_number[hit.handler]
                    if line.live and one.entry.revision > line.position:
                        number = numbers.get(hit.handler, 0)
                        numbers[hit.handler] = number + 1
                        self._sorted(line, one, hit.change, number, works, jobs)
                for handler in numbers:
                    line = self._by_number[handler]
                    if line.full:
                        # From here on its deliveries wait in the log.
                        line.live, line.position = False, one.entry.revision
                        works.append(PutCursor(line.rule.name, Cursor(line.position)))
                        self._catch_up_soon(line)
            self._notice_ours(one)
        self._shared = upto
        if works:
            self._put_shared(works, jobs)
        elif not self._cursor_due:
            # What nobody wanted may be sorted again after a crash: that costs less than a write for each of the sources' writes.
            self._cursor_due = True
            self._at(self._clock.monotonic() + CURSOR_SECONDS, lambda: self._put_shared([], []) if self._cursor_due else None)

    def _put_shared(self, works: list[Work], jobs: Sequence[tuple[Line, Job]]) -> None:
        self._cursor_due = False
        works.append(PutCursor(LIVE, Cursor(self._shared)))
        self._queue(works, (), lambda: self._enqueue_all(jobs))

    def _sorted(
        self,
        line: Line,
        appended: Appended,
        change: int,
        number: int,
        works: list[Work],
        jobs: list[tuple[Line, Job]],
    ) -> None:
        """One match: a delivery to make, or a suppressed one and why."""
        about = appended.changes[change] if change >= 0 else None
        revision = appended.entry.revision
        delivery = Delivery(line.rule.name, revision, number, subject_of(appended, about), change)
        why = self._guarded(line, appended)
        if why:
            works.append(PutDelivery(self._suppressed(delivery, why)))
            return
        if line.groups is not None and not self._through_window(line, appended, delivery, works, jobs):
            return
        if line.rule.coalesce:
            delivery = self._coalesced(line, delivery, works)
        works.append(PutDelivery(delivery))
        line.pending += 1
        job = Job(delivery, None)
        if self._held_bytes < KEPT_BYTES:
            job.appended = appended
            self._held_bytes += _weight(appended)
        if line.rule.coalesce and delivery.subject:
            line.coalescing[delivery.subject] = job
        jobs.append((line, job))

    def _through_window(
        self, line: Line, appended: Appended, delivery: Delivery, works: list[Work], jobs: list[tuple[Line, Job]]
    ) -> bool:
        """Whether the handler's window lets this one call; what its timers found due comes first."""
        window, groups = line.rule.window, line.groups
        assert window is not None
        assert groups is not None
        view = View(appended, appended.changes[delivery.change] if delivery.change >= 0 else None)
        fed = groups.feed(
            group([one.value(view) for one in window.group_by]),
            at=appended.entry.notice.sent_at or appended.entry.appended_at,
            place=Place(delivery.revision, delivery.number, delivery.change, delivery.subject),
            holds=tuple(one.holds(view) for one in window.conditions),
        )
        self._called(line, fed.fired, works, jobs)
        works += [PutState(line.rule.name, "window", *one) for one in groups.dirty()]
        if fed.let_go:
            self._let_go.labels(line.rule.name).inc(len(fed.let_go))
            log.warning("a window let go of groups (max_groups)", extra=kv(handler=line.rule.name, groups=len(fed.let_go)))
        if isinstance(fed.verdict, Suppress | Hold):
            works.append(PutDelivery(self._suppressed(delivery, fed.verdict.detail)))
        self._look_when_idle(line)
        return isinstance(fed.verdict, Call)

    def _called(self, line: Line, calls: Iterable[Call], works: list[Work], jobs: list[tuple[Line, Job]]) -> None:
        """What a window's timers call with: events that were sorted before, and held."""
        for call in calls:
            place = call.place
            delivery = Delivery(line.rule.name, place.revision, place.number, place.subject, place.change)
            works.append(PutDelivery(delivery))
            line.pending += 1
            jobs.append((line, Job(delivery, None)))

    def _look_when_idle(self, line: Line) -> None:
        """A timer of a window fires by the events' time; when none come, by the clock."""
        assert line.groups is not None
        due = line.groups.due
        if not due:
            return
        when = self._clock.monotonic() + max(0.0, (due - self._clock.now_us()) / 1_000_000)
        if line.idle_at and line.idle_at <= when:
            return
        line.idle_at = when
        self._at(when, lambda: self._idle(line, when))

    def _idle(self, line: Line, when: float) -> None:
        if line.idle_at != when or line.groups is None:
            return
        line.idle_at = 0.0
        if self._position(line) < self._store.head:
            # There are events to be sorted yet: their time counts, not the clock's.
            line.idle_at = again = self._clock.monotonic() + 1.0
            self._at(again, lambda: self._idle(line, again))
            return
        works: list[Work] = []
        jobs: list[tuple[Line, Job]] = []
        self._called(line, line.groups.idle(self._clock.now_us()), works, jobs)
        works += [PutState(line.rule.name, "window", *one) for one in line.groups.dirty()]
        if works:
            self._queue(works, (), lambda: self._enqueue_all(jobs))
        self._look_when_idle(line)

    def _suppressed(self, delivery: Delivery, why: str) -> Delivery:
        self._outcomes(delivery.handler, "suppressed").inc()
        return msgspec.structs.replace(delivery, outcome="suppressed", at=self._clock.now_us(), detail=why)

    def _guarded(self, line: Line, appended: Appended) -> str:
        """Why an event is not handled although it matches: this handler's own calls brought it about, or too long a chain did."""
        rule, notice = line.rule, appended.entry.notice
        cause = cause_of(notice)
        if not rule.own_events:
            if cause is not None and cause.handler == line.digest:
                return "suppressed: this handler's own call caused it"
            if notice.actor_user and notice.actor_user in rule.users:
                return "suppressed: the handler's own user caused it"
        if cause is not None and cause.depth >= rule.max_depth:
            return f"suppressed: it is number {cause.depth} in a chain of reactions to reactions (max_depth)"
        return ""

    def _coalesced(self, line: Line, delivery: Delivery, works: list[Work]) -> Delivery:
        """The newest of an object waits in the place of the one that waits already, and no longer than that one would have."""
        now = self._clock.now_us()
        waiting = line.coalescing.get(delivery.subject) if delivery.subject else None
        due = now + round(line.rule.coalesce * 1_000_000)
        if waiting is not None and waiting.delivery.outcome == "pending":
            was = waiting.delivery
            detail = f"coalesced: {delivery.revision} stands for it"
            works.append(Settle(was.handler, was.revision, was.number, "coalesced", 0, now, detail))
            self._outcomes(was.handler, "coalesced").inc()
            waiting.delivery = msgspec.structs.replace(was, outcome="coalesced")
            due = was.next_at
        return msgspec.structs.replace(delivery, next_at=due)

    def _notice_ours(self, appended: Appended) -> None:
        """A cluster told what its kinds are called."""
        for change in appended.changes:
            if change.key.group == VEDETTE and change.key.kind == "Resource" and change.verb != "DELETED":
                self._learn(msgspec.json.decode(change.now.body)["status"])

    def _catch_up_soon(self, line: Line) -> None:
        assert self._tasks is not None
        self._tasks.create_task(self._catch_up(line), name=f"dispatch {line.rule.name}")

    async def _catch_up(self, line: Line) -> None:
        """Read the log for one handler until it is where the live ones are."""
        line.changed = True
        while not self._stopping:
            if line.full:
                line.room.clear()
                await line.room.wait()
                continue
            while self._unwritten > UNWRITTEN:
                await self._wait_written()
            if line.position >= self._shared:
                line.live = line.changed = True
                self._queue([PutCursor(line.rule.name, Cursor(line.position, live=True))], (), _nothing)
                return
            try:
                some, upto = await self._look(line.position, READ, self._shared)
            except Expired:
                if self._store.oldest > line.position:  # else its word for it is still under way
                    self._lose(line)
                continue
            works: list[Work] = []
            jobs: list[tuple[Line, Job]] = []
            for index, one in enumerate(some):
                for number, hit in enumerate(line.index.matches(one)):
                    self._sorted(line, one, hit.change, number, works, jobs)
                if line.full or index >= SLICE:
                    upto = one.entry.revision
                    break
            line.position = upto
            works.append(PutCursor(line.rule.name, Cursor(upto)))
            self._queue(works, (), lambda jobs=jobs: self._enqueue_all(jobs))  # type: ignore[misc]
            await asyncio.sleep(0)

    def _lose_live(self) -> None:
        """Size took entries that nobody had sorted: each live handler gets a dead letter that names them."""
        shared, oldest = self._shared, self._store.oldest
        if oldest <= shared:
            return  # retention has only just moved on, and the store's word for it is still under way
        for line in self._by_number:
            if line.live and line.position < oldest:
                line.position = max(line.position, shared)
                self._lose(line, live=True)
        self._shared = oldest
        self._queue([PutCursor(LIVE, Cursor(oldest))], (), _nothing)

    def _lose(self, line: Line, live: bool = False) -> None:
        first, last = line.position + 1, self._store.oldest
        detail = (
            f"revisions {first} to {last} left the log (retention.max_bytes) before they were sorted: what they held for this "
            f"handler is lost. Compare with the cloud: vedette resync"
        )
        delivery = Delivery(line.rule.name, first, 0, "", -1, outcome="dead", at=self._clock.now_us(), detail=detail)
        line.position = last
        works: list[Work] = [PutDelivery(delivery), PutCursor(line.rule.name, Cursor(last, live=live))]
        log.error("the log lost what a handler had not seen yet", extra=kv(handler=line.rule.name, first=first, last=last))
        self._queue(works, [letters.appeared(self._clock.now_us(), self._store.head, delivery, None)], _nothing)
        self._count_dead(line)

    # --- the queue of a handler ---

    def _enqueue_all(self, jobs: Iterable[tuple[Line, Job]]) -> None:
        """They are durable now."""
        touched: dict[Line, None] = {}
        for line, job in jobs:
            self._enqueue(line, job)
            touched[line] = None
        for line in touched:
            self._pump(line)

    def _enqueue(self, line: Line, job: Job) -> None:
        if job.delivery.outcome != "pending":  # coalesced before it was written
            self._left(line, job)
            return
        subject = job.delivery.subject
        if not subject:
            self._make_ready(line, job)
            return
        waiting = line.subjects.get(subject)
        if waiting is None:
            line.subjects[subject] = deque((job,))
            self._make_ready(line, job)
        else:
            waiting.append(job)

    def _make_ready(self, line: Line, job: Job) -> None:
        """It is its turn, now or when its schedule says."""
        wait = (job.delivery.next_at - self._clock.now_us()) / 1_000_000 if job.delivery.next_at else 0.0
        if wait > 0:
            self._at(self._clock.monotonic() + wait, lambda: self._due(line, job))
        else:
            line.ready.append(job)

    def _due(self, line: Line, job: Job) -> None:
        line.ready.append(job)
        self._pump(line)

    def _release(self, line: Line, job: Job) -> None:
        """It is settled, durably: the object's next one may go."""
        self._left(line, job)
        subject = job.delivery.subject
        waiting = line.subjects.get(subject) if subject else None
        if waiting is not None:
            waiting.popleft()
            while waiting and waiting[0].delivery.outcome != "pending":
                self._left(line, waiting.popleft())
            if waiting:
                self._make_ready(line, waiting[0])
            else:
                del line.subjects[subject]
        self._pump(line)

    def _left(self, line: Line, job: Job) -> None:
        line.pending -= 1
        self._let_entry_go(job)
        if line.coalescing.get(job.delivery.subject) is job:
            del line.coalescing[job.delivery.subject]
        if not line.room.is_set() and line.pending <= line.rule.max_pending // 2:
            line.room.set()

    def _let_entry_go(self, job: Job) -> None:
        if job.appended is not None:
            self._held_bytes -= _weight(job.appended)
            job.appended = None

    def _pump(self, line: Line) -> None:
        """Start as many runners as there is work and leave for."""
        while self._tasks is not None and line.ready and line.runners < line.rule.concurrency and self._may(line):
            line.runners += 1
            self._tasks.create_task(self._serve(line, line.ready.popleft()), name=f"handler {line.rule.name}")

    async def _serve(self, line: Line, job: Job) -> None:
        """Make one, and what else is ready, until there is nothing or it may not."""
        try:
            begun = time.perf_counter()
            await self._make(line, job)
            while self._tasks is not None and line.ready and self._may(line):
                await self._make(line, line.ready.popleft())
                if time.perf_counter() - begun > TURN:  # handlers that wait for nothing
                    await asyncio.sleep(0)
                    begun = time.perf_counter()
        finally:
            line.runners -= 1
            if self._stopping and not line.runners:
                self._written.set()

    def _may(self, line: Line) -> bool:
        """Whether a call may start now; else the handler is looked at again when it may."""
        circuit, rate = line.circuit, line.rule.rate
        if self._stopping or line.dead >= MOST_DEAD or circuit.probing:
            return False
        if circuit.opened or rate:
            now = self._clock.monotonic()
            until = max(circuit.until if circuit.opened else 0.0, line.next_slot if rate else 0.0)
            if now + EARLY < until:
                self._wake(line, until)
                return False
            if rate:
                # A timer may be late by some milliseconds: what that took away is made up for.
                line.next_slot = max(line.next_slot, now - (0.1 if rate > 10 else 0.0)) + 1.0 / rate
            circuit.probing = circuit.opened
        return True

    def _wake(self, line: Line, when: float) -> None:
        """Look at it again then; asked for once, however many would like to."""
        if line.wakes_at and line.wakes_at <= when:
            return
        line.wakes_at = when

        def awake() -> None:
            if line.wakes_at == when:
                line.wakes_at = 0.0
                self._pump(line)

        self._at(when, awake)

    # --- making one ---

    async def _make(self, line: Line, job: Job) -> None:
        rule, delivery = line.rule, job.delivery
        if delivery.outcome != "pending":  # coalesced while it waited its turn
            line.circuit.probing = False
            self._release(line, job)
            return
        if line.coalescing.get(delivery.subject) is job:
            del line.coalescing[delivery.subject]
        try:
            event = await self._event(line, job)
        except Expired:
            line.circuit.probing = False
            self._die(line, job, "its event left the log (retention.max_bytes) before it was delivered", None)
            return
        except msgspec.DecodeError as why:
            line.circuit.probing = False
            self._die(line, job, f"its copy of the event can't be read (another version wrote it): {why}", None)
            return
        context = Context(self._store, line)
        began = time.perf_counter()
        try:
            # A worker counts from when its process begins with the call; waiting for its turn is no fault of the call's.
            async with asyncio.timeout(None if rule.counts_itself else rule.timeout) as limit:
                said = await self._call(rule, event, context)
        except GiveUp as why:
            self._attempts(rule.name, "gave up").inc()
            line.circuit.close()  # somebody was there to say so
            self._die(line, job, _text(why), event)
        except TargetUnavailable as why:
            self._attempts(rule.name, "target unavailable").inc()
            self._open(line, _text(why), why.delay)
            line.ready.append(job)
        except TryLater as why:
            self._failed(line, job, event, _text(why), why.delay, counts=not line.circuit.opened)
        except asyncio.CancelledError as why:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            self._failed(line, job, event, f"it cancelled itself: {_text(why)}", 0.0, counts=True)
        except TimeoutError as why:
            late = f"it took longer than {rule.timeout:g} s (timeout)" if limit.expired() else _text(why)
            self._failed(line, job, event, late, 0.0, counts=True)
        except Exception as why:  # noqa: BLE001 - a plug may raise anything: that is a failed attempt
            self._failed(line, job, event, _text(why), 0.0, counts=True)
        else:
            self._attempts(rule.name, "done").inc()
            if line.circuit.opened:
                log.info("a handler's target answers again", extra=kv(handler=rule.name))
                line.changed = True
            line.circuit.close()
            self._done(line, job, "" if said is None else _clean(str(said)), context)
            self._pump(line)
        self._seconds(rule.name).observe(time.perf_counter() - began)

    async def _call(self, rule: Rule, event: Event, context: Context) -> str | None:
        if self._tracer is None:
            return await rule.handler.handle(event, context)
        about: dict[str, str | int] = {
            "messaging.system": "vedette",
            "messaging.operation.type": "process",
            "messaging.message.id": event.idempotency_key,
            "vedette.handler": rule.name,
            "vedette.event_type": event.notice.event_type,
            "vedette.attempt": event.attempt,
        }
        with self._tracer.call(f"handle {rule.name}", event.traceparent, about) as traceparent:
            return await rule.handler.handle(msgspec.structs.replace(event, traceparent=traceparent), context)

    def _done(self, line: Line, job: Job, said: str, context: Context) -> None:
        d = job.delivery
        works: list[Work] = [Settle(d.handler, d.revision, d.number, "done", d.attempt + 1, self._clock.now_us(), said)]
        for name, value in context.remembered.items():
            line.memory[name] = value
            works.append(PutState(d.handler, "memory", name, value))
        self._outcomes(d.handler, "done").inc()

        def durable() -> None:
            for name, value in context.remembered.items():
                if name in line.memory and line.memory[name] is value:
                    del line.memory[name]
            self._release(line, job)

        self._queue(works, (), durable)

    def _failed(self, line: Line, job: Job, event: Event, why: str, delay: float, *, counts: bool) -> None:
        """A call that didn't succeed: again later, by the schedule; or it was the last."""
        rule, d, now = line.rule, job.delivery, self._clock.now_us()
        self._attempts(rule.name, "failed").inc()
        line.last_error = why
        circuit = line.circuit
        if circuit.opened:
            self._open(line, why, delay)
            if not counts:
                # Still not there: nobody's attempt. At the end of the row, so that the next trial is another's.
                line.ready.append(job)
                return
        else:
            circuit.failed.add(d.subject or d.idempotency_key)
            if len(circuit.failed) >= OPENS_AT:
                self._open(line, f"{OPENS_AT} in a row failed, the last with: {why}", delay)
        attempt, first_at = d.attempt + 1, d.first_at or now
        if attempt >= rule.attempts or (rule.deadline and now - first_at > rule.deadline * 1_000_000):
            self._die(line, job, why, event)
            return
        step = min(rule.first * 2 ** min(attempt - 1, 40), rule.most)
        wait = max(min(delay, MOST_DELAY), self._rng.uniform(step / 4, step))
        job.delivery = msgspec.structs.replace(
            d, attempt=attempt, next_at=now + round(wait * 1_000_000), at=now, first_at=first_at, detail=why,
            event=d.event or msgspec.json.encode(event),
        )  # fmt: skip
        self._let_entry_go(job)
        log.warning(
            "a call failed, trying again",
            extra=kv(handler=rule.name, event=d.idempotency_key, attempt=attempt, in_seconds=round(wait, 1), why=why),
        )

        def durable() -> None:
            self._make_ready(line, job)
            self._pump(line)

        self._queue([PutDelivery(job.delivery)], (), durable)

    def _open(self, line: Line, why: str, delay: float) -> None:
        if not line.circuit.opened:
            log.warning("a handler's target does not answer, it waits", extra=kv(handler=line.rule.name, why=why))
        line.changed = True
        line.last_error = why
        line.circuit.open(self._clock.monotonic(), why, self._rng, delay)
        self._wake(line, line.circuit.until)

    def _die(self, line: Line, job: Job, why: str, event: Event | None) -> None:
        d, now = job.delivery, self._clock.now_us()
        dead = msgspec.structs.replace(
            d, outcome="dead", attempt=d.attempt + (event is not None), at=now, first_at=d.first_at or now, detail=why,
            event=d.event or (b"" if event is None else msgspec.json.encode(event)),
        )  # fmt: skip
        log.error("a dead letter", extra=kv(handler=d.handler, event=d.idempotency_key, attempts=dead.attempt, why=why))
        self._count_dead(line)
        line.last_error = why
        self._outcomes(d.handler, "dead").inc()
        self._queue(
            [PutDelivery(dead)],
            [letters.appeared(self._clock.now_us(), self._store.head, dead, event)],
            lambda: self._release(line, job),
        )

    def _count_dead(self, line: Line) -> None:
        line.dead += 1
        line.changed = True

    async def _event(self, line: Line, job: Job) -> Event:
        """Raises Expired when the log has it no more."""
        d = job.delivery
        if d.event:
            event = msgspec.json.decode(d.event, type=Event)
            return msgspec.structs.replace(event, attempt=d.attempt + 1, replay=event.replay or d.replay)
        appended = job.appended or await self._entry(d.revision)
        return event_of(appended, d)

    async def _look(self, after: int, limit: int, before: int) -> tuple[Sequence[Appended], int]:
        """As `Store.entries`; when the store can't be read, later. Raises Expired."""
        while True:
            try:
                return await self._store.entries(after, limit=limit, before=before)
            except TryLater as why:
                log.error("the log can't be read, trying again: %s", why)
                await self._clock.sleep(why.delay)

    async def _entry(self, revision: int) -> Appended:
        some, _ = await self._look(revision - 1, 1, revision)
        if not some:
            raise Expired(f"revision {revision} is not in the log")
        return some[0]

    # --- writing ---

    def _queue(self, works: Sequence[Work], entries: Sequence[NewEntry], durable: Callable[[], None]) -> None:
        """To be written, in order; `durable` is called when it is."""
        self._outbox.append((works, entries, durable))
        self._unwritten += len(works)
        self._to_write.set()

    async def _wait_written(self) -> None:
        self._written.clear()
        await self._written.wait()

    async def _write(self) -> None:
        """One writer: what came together while the last write ran is the next."""
        while True:
            await self._to_write.wait()
            self._to_write.clear()
            batch, self._outbox = self._outbox, []
            works = [work for one, _, _ in batch for work in one]
            entries = [entry for _, some, _ in batch for entry in some]
            while True:
                try:
                    await self._store.append(entries, work=works)
                    break
                except TryLater as why:
                    log.error("what handlers did can't be written, trying again: %s", why)
                    await self._clock.sleep(why.delay)
            self._unwritten -= len(works)
            self._written.set()
            for _, _, durable in batch:
                durable()

    # --- time ---

    def _at(self, when: float, call: Callable[[], None]) -> None:
        """Call at a moment of the monotonic clock."""
        heapq.heappush(self._timers, (when, next(self._order), call))
        if self._timers[0][0] >= when:
            self._timed.set()

    async def _time(self) -> None:
        while True:
            self._timed.clear()
            while self._timers and self._timers[0][0] <= self._clock.monotonic() + EARLY:
                heapq.heappop(self._timers)[2]()
            if self._timers:
                await wait_for_event(self._timed, self._timers[0][0] - self._clock.monotonic(), self._clock.sleep)
            else:
                await self._timed.wait()

    # --- what is served of it ---

    async def _tell(self) -> None:
        """Handlers' status as objects: when it has changed, at most once a second each."""
        while True:
            entries = []
            for line in self._by_number:
                if line.changed:
                    line.changed = False
                    fields = self._fields(line)
                    watched = {name: fields[name] for name in ("use", "state", "detail", "deadLetters")}
                    if watched != line.told:
                        line.told = watched
                        entries.append(letters.status(self._clock.now_us(), self._store.head, line.rule.name, fields))
            if entries:
                self._queue((), entries, _nothing)
            await self._clock.sleep(STATUS_SECONDS)

    def _fields(self, line: Line) -> dict[str, Any]:
        state, detail = line.state
        return {
            "use": line.rule.use,
            "state": state,
            "detail": detail,
            "position": str(self._position(line)),
            "pending": line.pending,
            "deadLetters": line.dead,
            "lastError": line.last_error,
        }

    def _position(self, line: Line) -> int:
        return max(line.position, self._shared) if line.live else line.position

    def _lag(self, line: Line) -> int:
        return max(0, self._store.head - self._position(line))

    def status(self) -> list[dict[str, Any]]:
        """Every handler, for the status page."""
        found = []
        for line in self._by_number:
            fields = self._fields(line)
            found.append({"name": line.rule.name, **fields, "lag": self._lag(line)})
        return found

    # --- what a person asks for ---

    def _line(self, name: str) -> Line:
        line = self._lines.get(name)
        if line is None:
            there = ", ".join(sorted(self._lines)) or "none is configured"
            raise NotFound(f"no handler is called {name[:80]!a}; there are: {there}")
        return line

    async def dead_letters(
        self, *, handler: str = "", ids: Sequence[str] = (), since: int = 0, until: int = 0, contains: str = ""
    ) -> list[Delivery]:
        """Those that a person means: by handler, by id, by when they died (µs), by a piece of their error or event type."""
        wanted = set(ids)
        found = []
        async for d in self._all(("dead",), handler):
            if wanted and letter_id(d) not in wanted:
                continue
            if (since and d.at < since) or (until and d.at > until):
                continue
            if contains and contains not in d.detail and contains.encode() not in d.event[:4096]:
                continue
            found.append(d)
        return found

    async def redrive(self, dead: Sequence[Delivery], *, rate: float = 0.0, who: str = "") -> int:
        """Make dead ones again, as if for the first time, at most `rate` a second; how many. Those whose event is lost can only
        be discarded. Raises NotFound when their handler isn't configured."""
        begun, done = self._clock.now_us(), 0
        for d in dead:
            line = self._line(d.handler)
            if not d.event:
                continue
            due = begun + round(done / rate * 1_000_000) if rate else 0

            def again(row: Delivery | None, line: Line = line, due: int = due) -> _Asked | None:
                if row is None or row.outcome != "dead":
                    return None
                line.dead -= 1
                gone = letters.settled(self._clock.now_us(), self._store.head, row, "redrive", who)
                fresh = msgspec.structs.replace(
                    row, outcome="pending", attempt=0, next_at=due, at=0, first_at=0, detail="", replay=True
                )
                return self._asked_again(line, fresh, [gone])

            done += await self._by_hand((d.handler, d.revision, d.number), again)
        return done

    async def discard(self, dead: Sequence[Delivery], *, who: str = "") -> int:
        """Take dead ones out; how many. The log keeps that somebody did."""

        def out(row: Delivery | None) -> _Asked | None:
            if row is None or row.outcome != "dead":
                return None
            now = self._clock.now_us()
            detail = _clean(f"discarded by {who}: {row.detail}")
            self._outcomes(row.handler, "discarded").inc()
            line = self._lines.get(row.handler)
            if line is not None:
                line.dead -= 1
                line.changed = True
                self._pump(line)
            work = Settle(row.handler, row.revision, row.number, "discarded", row.attempt, now, detail)
            return [work], [letters.settled(now, self._store.head, row, "discard", who)], []

        return sum([await self._by_hand((d.handler, d.revision, d.number), out) for d in dead])

    def _asked_again(self, line: Line, delivery: Delivery, entries: Sequence[NewEntry]) -> _Asked:
        line.pending += 1
        line.changed = True
        return [PutDelivery(delivery)], entries, [(line, Job(delivery, None))]

    async def _by_hand(self, place: tuple[str, int, int], decide: Callable[[Delivery | None], _Asked | None]) -> bool:
        """What a person asks for one delivery: `decide` sees it as the store has it now, and says what is to be written. Returns
        when that is durable, whether there was anything; who stops waiting earlier changes nothing of it."""
        if self._tasks is None:
            raise TryLater("handlers are being started or stopped just now: ask again in a moment")
        hands = self._in_hand
        if place in hands:
            return False  # somebody else asks for the same just now
        done = hands[place] = asyncio.get_running_loop().create_future()
        asked = None
        try:
            rows = await self._store.deliveries(handler=place[0], revision=place[1])
            if self._in_hand is hands and not done.done():
                asked = decide(next((d for d in rows if d.number == place[2]), None))
        finally:
            if asked is None:
                hands.pop(place, None)
        if asked is not None:
            works, entries, jobs = asked

            def durable() -> None:
                del hands[place]
                self._enqueue_all(jobs)
                if not done.done():
                    done.set_result(None)

            self._queue(works, entries, durable)
        elif not done.done():
            return False
        await done
        return True

    def _drop_hands(self) -> None:
        """Nobody writes any more what was asked for."""
        for done in self._in_hand.values():
            if not done.done():
                done.set_exception(TryLater("handlers were stopped before this was written: look, and ask again"))
                done.exception()  # whoever waits has it; it is no news that nobody does
        self._in_hand = {}

    async def forget(self, name: str) -> None:
        """Let go of the place and all that is owed of a handler that is not configured any more. Raises Conflict, NotFound."""
        if name in self._lines:
            raise Conflict(f"handler {name} is configured: take it out of the configuration and restart first")
        if name == LIVE or name not in await self._store.cursors():
            raise NotFound(f"no handler {name[:80]!a} has a place in the log")
        now = self._clock.now_us()
        gone = [letters.settled(now, self._store.head, d, "discard", "forget") async for d in self._all(("dead",), name)]
        await self._by_hand(
            (name, 0, 0), lambda _: ([DropHandler(name)], [*gone, letters.forgotten(now, self._store.head, name)], [])
        )

    async def replay(self, name: str, after: int, before: int, *, dry_run: bool) -> AsyncIterator[tuple[Appended, int, str]]:
        """Deliver again what matches in (after, before]: yields each match as (entry, change's place, subject). Without `dry_run`
        it is durable when the next one comes; what the handler has yet to come to, or has in hand, is not made twice. Windows and
        guards are not asked. Raises NotFound, Expired."""
        line = self._line(name)
        if before < after:
            raise BadRequest("the end of what is to be replayed is before its beginning")
        if not dry_run:
            before = min(before, self._position(line))
        while after < before:
            some, after = await self._store.entries(after, limit=READ, before=before)
            for one in some:
                for number, hit in enumerate(line.index.matches(one)):
                    about = one.changes[hit.change] if hit.change >= 0 else None
                    subject = subject_of(one, about)
                    if not dry_run:
                        while line.full:
                            line.room.clear()
                            await line.room.wait()
                        fresh = Delivery(name, one.entry.revision, number, subject, hit.change, replay=True)
                        await self._by_hand((name, one.entry.revision, number), partial(self._replayed, line, fresh))
                    yield one, hit.change, subject

    def _replayed(self, line: Line, fresh: Delivery, row: Delivery | None) -> _Asked | None:
        if row is not None and row.outcome == "pending":
            return None
        if row is None or row.outcome != "dead":
            return self._asked_again(line, fresh, [])
        line.dead -= 1
        return self._asked_again(line, fresh, [letters.settled(self._clock.now_us(), self._store.head, row, "redrive", "replay")])

    async def explain(self, revision: int) -> dict[str, Any]:
        """For each handler whether an entry matches or why not, and what became of each delivery. Raises Expired, NotFound."""
        appended = await self._entry(revision)
        deliveries = await self._store.deliveries(revision=revision, limit=10_000)
        return explained(appended, self._by_number, self._names, deliveries)


def _nothing() -> None:
    pass


def _text(why: BaseException) -> str:
    """An error's text, storable and bounded; the type's name when it has none."""
    return _clean(str(why) or type(why).__name__)


def _clean(text: str) -> str:
    """Bounded, and without what no store takes (half of a surrogate pair)."""
    return text[:MOST_DETAIL].encode(errors="replace").decode()


def _weight(one: Appended) -> int:
    return 512 + len(one.entry.notice.payload) + sum(512 + len(change.now.body) for change in one.changes)
