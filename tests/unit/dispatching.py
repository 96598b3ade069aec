"""What tests of the dispatcher stand on: a store in memory, a clock that is moved by hand, handlers that do as they are told."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from vedette import plugins
from vedette.engine import conditions
from vedette.engine.dispatch import Dispatch
from vedette.engine.line import Rule
from vedette.engine.matching import Match
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.delivery import Delivery
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE, VEDETTE_SOURCE, Key, Reading
from vedette.ports import EVERYTHING, Context, Event, Selection, Store
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

KINDS = plugins.kinds()


class Told:
    """A handler that keeps what it was called with, and does what `does` says."""

    def __init__(self, does: Callable[[Event, Context], Awaitable[str | None]] | None = None) -> None:
        self.events: list[Event] = []
        self.does = does
        self.closed = False

    async def handle(self, event: Event, context: Context) -> str | None:
        self.events.append(event)
        return await self.does(event, context) if self.does is not None else None

    async def close(self) -> None:
        self.closed = True

    @property
    def seen(self) -> list[tuple[str, str]]:
        """(object, attempt's place in its history) in the order of the calls."""
        return [(event.key.id if event.key else "", event.object.get("status", {}).get("n", "")) for event in self.events]


def rule(handler: Told, name: str = "h", **more: Any) -> Rule:
    return Rule(name=name, use="told", handler=handler, **more)


def on(when: str = "", **more: Any) -> tuple[Match, ...]:
    given = {name: frozenset(value) if name in ("sources", "verbs", "projects") else value for name, value in more.items()}
    return (Match(when=conditions.compile(when) if when else None, **given),)


PORTS = on(kinds=("port",))


class Place:
    """A store, a clock, and a dispatcher that may be stopped and started again."""

    def __init__(self, store: Store | None = None, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.store: Store = store or MemoryStore(self.clock)
        self.telemetry = Telemetry()
        self._ids = 0

    @asynccontextmanager
    async def running(self, *rules: Rule) -> AsyncIterator[Dispatch]:
        dispatch = Dispatch(self.store, rules, KINDS, self.clock, Telemetry(), rng=random.Random(1))
        task = asyncio.create_task(dispatch.run())
        waiting = asyncio.create_task(dispatch.ready.wait())
        try:
            await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
            yield dispatch
            assert not task.done(), task.exception()
        finally:
            await cancel(waiting)
            with contextlib.suppress(asyncio.CancelledError):
                task.cancel()
                await task

    async def say(
        self, id_: str, n: Any = 0, *, verb: str = "update", source: str = "one", event_type: str = "port.update.end", **more: Any
    ) -> int:
        """News of one port."""
        return (await self.say_all([(id_, n)], verb=verb, source=source, event_type=event_type, **more))[0]

    async def say_all(
        self,
        what: Sequence[tuple[str, Any]],
        *,
        verb: str = "update",
        source: str = "one",
        event_type: str = "port.update.end",
        project: str = "p1",
        **notice: Any,
    ) -> list[int]:
        """News of ports, an entry each."""
        entries = []
        for id_, n in what:
            self._ids += 1
            self.clock.tick(0.000001)
            now = self.clock.now_us()
            said = Reading(kind="Port", id=id_, verb=verb, as_of=now, project=project, fields={"n": n})  # type: ignore[arg-type]
            told = Notice(
                id=f"n{self._ids}", source=source, event_type=event_type, sent_at=now,
                payload=msgspec.Raw(msgspec.json.encode({"n": n})), **notice,
            )  # fmt: skip
            entries.append(NewEntry(told, (said,)))
        revisions = await self.store.append(entries)
        return [revision for revision in revisions if revision is not None]

    async def rest(self, seconds: float = 0.0) -> None:
        """Let everything come to rest, `seconds` later."""
        for _ in range(4):
            await self.clock.advance(0.0)
        if seconds:
            await self.clock.advance(seconds)
            for _ in range(4):
                await self.clock.advance(0.0)

    async def deliveries(self, **more: Any) -> list[Delivery]:
        return list(await self.store.deliveries(**more))

    async def outcomes(self, handler: str = "h") -> list[str]:
        return [one.outcome for one in await self.deliveries(handler=handler)]

    async def object(self, kind: str, id_: str) -> dict[str, Any] | None:
        page = await self.store.objects(Selection(EVERYTHING, group=VEDETTE, kind=kind, id=id_))
        if not page.items:
            return None
        assert page.items[0][0] == Key(VEDETTE_SOURCE, VEDETTE, kind, id_)
        found: dict[str, Any] = msgspec.json.decode(page.items[0][1].body)["status"]
        return found
