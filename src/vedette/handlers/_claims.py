"""Names that objects claim from the world outside, such as one in DNS: who holds which, kept in a handler's memory.

A name's holders are in the order in which they came. They are remembered under `name <name>`, and the latest ones also here:
another object's call may come before the store has what was remembered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from vedette.errors import GiveUp
from vedette.ports import Context, Event

MAX_HOLDERS = 50
"""Objects that share one name; one more goes to the dead letters. A value that is remembered has at most 64 KiB."""
RECENT = 10_000
"""Names whose holders are kept here too; the one that was kept first goes first."""

Holders = list[tuple[str, Any]]
"""(`source/group/Kind/id`, what it says of the name: JSON values)"""


def subject(event: Event) -> str:
    """The object's name among holders. Raises GiveUp: the event is of none."""
    if event.key is None or not event.verb:
        raise GiveUp("this is no change of an object: give the handler `kinds` in its `on`")
    return f"{event.key.source}/{event.key.group}/{event.key.kind}/{event.key.id}"


class Claims:
    """One for a handler."""

    def __init__(self) -> None:
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}
        self._recent: dict[str, Holders] = {}

    @asynccontextmanager
    async def alone(self, names: Iterable[str]) -> AsyncIterator[None]:
        """One call at a time for each of these names; taken in one order, so that two calls never wait for each other. A call
        has as many locks as its object has names, and they go when nobody wants them."""
        async with AsyncExitStack() as stack:
            for name in sorted(set(names)):
                await stack.enter_async_context(self._lock(name))
            yield

    async def holders(self, name: str, context: Context) -> Holders:
        """A list of the caller's own."""
        known = self._recent.get(name)
        if known is None:
            known = [(str(holder), said) for holder, said in await context.recall(f"name {name}") or ()]
        return list(known)

    def keep(self, name: str, holders: Holders, context: Context) -> None:
        """Once the world is so. Raises GiveUp: there are too many."""
        if len(holders) > MAX_HOLDERS:
            raise GiveUp(f"{name} is shared by {MAX_HOLDERS} objects already")
        self._recent.pop(name, None)
        if len(self._recent) >= RECENT:
            self._recent.pop(next(iter(self._recent)))
        self._recent[name] = holders
        context.remember(f"name {name}", holders or None)

    @asynccontextmanager
    async def _lock(self, name: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(name, (asyncio.Lock(), 0))
        self._locks[name] = (lock, users + 1)
        try:
            async with lock:
                yield
        finally:
            _, users = self._locks.pop(name)
            if users > 1:
                self._locks[name] = (lock, users - 1)
