"""One handler at work: its rule, what waits for it and in which order, whether its target answers, what it remembers.

Made by engine/dispatch.py, which moves deliveries through it.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

import msgspec

from vedette.engine import windows
from vedette.engine.cause import cause_of, named, request_id
from vedette.engine.conditions import Condition, Expression
from vedette.engine.matching import Index, Match, Names, key_of
from vedette.model.delivery import Delivery
from vedette.ports import Appended, Event, Handler, Store

MOST_DEAD = 10_000
"""Dead letters of a handler at which it pauses: something is wrong that no retry will mend."""
OPENS_AT = 5
"""Different objects that fail in a row before the circuit opens."""
CIRCUIT_FIRST, CIRCUIT_MOST = 1.0, 60.0
"""Seconds until it is tried again with one delivery: a random part of the first, twice that, … up to the most."""
MOST_DELAY = 3_600.0
"""Seconds that a target may ask us to wait (Retry-After)."""
MOST_MEMORY = 64 * 1024
"""Bytes of JSON that a handler may remember under one name."""


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the matching events call the handler; see engine/windows.py."""

    rule: windows.Rule
    group_by: tuple[Expression, ...] = ()
    conditions: tuple[Condition, ...] = ()
    """Of `all`, `any` and `not_all`."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One handler of the configuration; see config.HandlerConfig for what each means."""

    name: str
    use: str
    handler: Handler
    on: tuple[Match, ...] = ()
    start: str = "now"
    attempts: int = 20
    first: float = 1.0
    most: float = 300.0
    deadline: float = 86_400.0
    timeout: float = 30.0
    counts_itself: bool = False
    """The handler keeps to `Context.timeout` by itself (a worker process)."""
    concurrency: int = 10
    rate: float = 0.0
    coalesce: float = 0.0
    window: Window | None = None
    max_pending: int = 10_000
    own_events: bool = False
    users: frozenset[str] = frozenset()
    max_depth: int = 5


class Job:
    """A delivery in hand."""

    __slots__ = ("appended", "delivery")

    def __init__(self, delivery: Delivery, appended: Appended | None) -> None:
        self.delivery = delivery
        self.appended = appended


class Circuit:
    """Whether the target is there. Closed: calls go through. Open until a moment; then one call at a time tries it."""

    __slots__ = ("failed", "opened", "probing", "step", "until", "why")

    def __init__(self) -> None:
        self.failed: set[str] = set()
        """Subjects that failed since the last success."""
        self.opened = False
        self.probing = False
        self.until = 0.0
        self.step = CIRCUIT_FIRST
        self.why = ""

    def open(self, now: float, why: str, rng: random.Random, delay: float = 0.0) -> None:
        if self.opened and not self.probing and now < self.until:
            # One of those that were under way when it opened: nothing new is known.
            self.until = max(self.until, now + min(delay, MOST_DELAY))
            return
        wait = max(min(delay, MOST_DELAY), rng.uniform(self.step / 4, self.step))
        self.step = min(self.step * 2, CIRCUIT_MOST)
        self.opened, self.probing, self.until, self.why = True, False, now + wait, why

    def close(self) -> None:
        self.opened = self.probing = False
        self.failed.clear()
        self.step = CIRCUIT_FIRST


class Line:
    """One handler at work: where it is in the log, and what waits for it."""

    def __init__(self, number: int, rule: Rule, names: Names) -> None:
        self.number = number
        self.rule = rule
        self.on = rule.on or (Match(),)
        self.digest = named(rule.name)
        self.index = Index((self.on,), names)
        self.position = 0
        self.live = False
        self.pending = 0
        self.subjects: dict[str, deque[Job]] = {}
        self.ready: deque[Job] = deque()
        self.runners = 0
        self.circuit = Circuit()
        self.next_slot = 0.0
        self.memory: dict[str, bytes | None] = {}
        """What was remembered and is not written yet."""
        self.wakes_at = 0.0
        """When it is looked at again because it may not call now; 0: nobody asked."""
        self.coalescing: dict[str, Job] = {}
        self.groups: windows.Groups | None = None
        """Of its window; loaded by the dispatcher."""
        self.idle_at = 0.0
        """When its window is looked at although nothing came; 0: not at all."""
        self.dead = 0
        self.last_error = ""
        self.told: dict[str, Any] | None = None
        self.changed = True
        self.room = asyncio.Event()
        self.room.set()

    @property
    def full(self) -> bool:
        return self.pending >= self.rule.max_pending

    @property
    def state(self) -> tuple[str, str]:
        """One word, and what a person would want to know besides."""
        if self.dead >= MOST_DEAD:
            return "paused", f"{self.dead} dead letters: look at them, then redrive or discard them"
        if self.circuit.opened:
            return "waiting", self.circuit.why
        return ("ready", "") if self.live else ("behind", "it reads the log to where the others are")


class Context:
    """See ports.Context."""

    def __init__(self, store: Store, line: Line) -> None:
        self._store = store
        self._line = line
        self.remembered: dict[str, bytes | None] = {}
        """JSON; None: to be forgotten."""

    @property
    def timeout(self) -> float:
        return self._line.rule.timeout

    async def recall(self, name: str) -> Any:
        for known in (self.remembered, self._line.memory):
            if name in known:
                break
        else:
            found = await self._store.state(self._line.rule.name, "memory", name)
            known = {name: found[0].value if found else None}
        value = known[name]
        return None if value is None else msgspec.json.decode(value)

    def remember(self, name: str, value: Any) -> None:
        if not name or len(name) > 1_000:
            raise ValueError("the name of what is to be remembered wants 1 to 1,000 characters")
        name.encode()  # half of a surrogate pair: no store takes it
        kept = None if value is None else msgspec.json.encode(value)
        if kept is not None and len(kept) > MOST_MEMORY:
            raise ValueError(f"what is to be remembered as {name[:80]!r} has more than {MOST_MEMORY} bytes of JSON")
        self.remembered[name] = kept


def event_of(appended: Appended, d: Delivery) -> Event:
    """What a handler is called with, of an entry."""
    entry = appended.entry
    change = appended.changes[d.change] if d.change >= 0 else None
    cause = cause_of(entry.notice)
    return Event(
        handler=d.handler,
        idempotency_key=d.idempotency_key,
        revision=d.revision,
        attempt=d.attempt + 1,
        verb="" if change is None else change.verb,
        key=key_of(appended, change),
        notice=entry.notice,
        appended_at=entry.appended_at,
        raw_object=_NOTHING if change is None else msgspec.Raw(change.now.admin_form()),
        raw_old=_NOTHING if change is None or change.before is None else msgspec.Raw(change.before.admin_form()),
        request_id=request_id(d.handler, d.revision, d.number, 1 if cause is None else cause.depth + 1),
        traceparent=entry.notice.traceparent,
        replay=d.replay,
    )


_NOTHING = msgspec.Raw(b"{}")
