"""What an action works with: the cloud, the time, a way to say how far it is and a way to wait.

Given out by engine/action_run.py, one for each time an action is begun. `wait` asks again at growing intervals, and at once when
the log has news of the action's object; what `say` is told becomes the action's `status_message`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec

from vedette.engine.records import Records
from vedette.errors import GiveUp, NotFound, TryLater, VedetteError
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.tasks import cancel, wait_for_event
from vedette.model.audit import Action
from vedette.ports import Appended, Store

log = logging.getLogger("vedette.engine.hands")

FIRST_SECONDS, MOST_SECONDS, GROWTH = 1.0, 10.0, 1.5
"""Between two looks of `wait`."""
NEWS_SECONDS = 0.5
"""So much at least between two looks, however much news there is."""
SAY_SECONDS = 1.0
"""What an action says is written at most this often."""
MOST_SAID = 500
"""Characters."""


class News:
    """Who waits for news of which object."""

    def __init__(self, store: Store) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.close = store.follow(self._heard)

    def add(self, id_: str, event: asyncio.Event) -> None:
        self._waiting.setdefault(id_, set()).add(event)

    def remove(self, id_: str, event: asyncio.Event) -> None:
        events = self._waiting.get(id_, set())
        events.discard(event)
        if not events:
            self._waiting.pop(id_, None)

    def _heard(self, appended: Sequence[Appended]) -> None:
        if not self._waiting:
            return
        for one in appended:
            for change in one.changes:
                for event in self._waiting.get(change.key.id, ()):
                    event.set()


class Waiting:
    """`Hands.wait` of one action."""

    def __init__(self, clock: Clock, news: News, resource: str) -> None:
        self._clock = clock
        self._news = news
        self._resource = resource

    async def __call__(self, ready: Callable[[], Awaitable[bool]], seconds: float, what: str) -> None:
        """See `ports.Hands.wait`. A cloud that can't be asked now is asked again, as long as there is time."""
        clock, heard = self._clock, asyncio.Event()
        until, step, why = clock.monotonic() + seconds, FIRST_SECONDS, ""
        if self._resource:
            self._news.add(self._resource, heard)
        try:
            while True:
                heard.clear()  # before the look: what comes while we look is news
                asked_at = clock.monotonic()
                try:
                    if await ready():
                        return
                    why = ""
                except TryLater as unwell:
                    why = f" (the last time it was asked: {unwell})"
                left = until - clock.monotonic()
                if left <= 0.001:
                    raise GiveUp(f"{what}: not so after {seconds:.0f} seconds{why}")
                if await wait_for_event(heard, min(step, left), clock.sleep):
                    await clock.sleep(min(max(0.0, asked_at + NEWS_SECONDS - clock.monotonic()), left))
                else:
                    step = min(step * GROWTH, MOST_SECONDS)
        finally:
            if self._resource:
                self._news.remove(self._resource, heard)


class Saying:
    """`Hands.say` of one action. `close` before its end is written: nothing is said behind it."""

    def __init__(self, records: Records, clock: Clock, uuid: str) -> None:
        self._records = records
        self._clock = clock
        self._uuid = uuid
        self._text: str | None = None
        self._task: asyncio.Task[Any] | None = None
        self._resting = False
        self._closed = False

    def __call__(self, text: str) -> None:
        if self._closed:
            return
        self._text = text[:MOST_SAID]
        if self._task is None:
            self._task = asyncio.create_task(self._write(), name=f"what action {self._uuid} says")

    async def _write(self) -> None:
        try:
            while self._text is not None and not self._closed:
                text, self._text = self._text, None
                await self._records.update(Action, self._uuid, partial(_said, text))
                self._resting = True
                await self._clock.sleep(SAY_SECONDS)
                self._resting = False
        except NotFound:
            pass
        except VedetteError as why:
            # The action goes on: what counts is its end, and that is written by somebody who doesn't give up.
            log.warning("what an action says could not be written: %s", why, extra=kv(action=self._uuid))
        finally:
            self._resting, self._task = False, None

    async def close(self) -> None:
        self._closed = True
        task = self._task
        if task is None:
            return
        if self._resting:
            task.cancel()
        try:
            # A write is waited for: one that was cancelled is written all the same, and would come behind the end.
            await asyncio.wait([task])
        except asyncio.CancelledError:
            await cancel(task)
            raise


def _said(text: str, action: Action) -> Action:
    # One that failed keeps the reason, also while it is undone.
    at_it = action.state == "ONGOING" or (action.state == "SUCCEEDED" and action.outcome == "undoing")
    if not at_it or action.status_message == text:
        return action
    return msgspec.structs.replace(action, status_message=text)
