"""Long-running tasks, held on to: one that ends by an error is seen, logged and started again or brings the service down."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from vedette.kit.backoff import delays
from vedette.kit.log import kv

T = TypeVar("T")

log = logging.getLogger("vedette.kit.tasks")


async def keep_running(
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    fatal: tuple[type[BaseException], ...] = (),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Run `work` until cancelled; start it anew with backoff when it raises. `fatal` errors go up: no retry helps there."""
    waits = delays()
    while True:
        try:
            await work()
        except fatal:
            raise
        except Exception as why:
            delay = next(waits)
            log.error("%s failed, starting it again: %s", name, why, exc_info=True, extra=kv(in_seconds=round(delay, 1)))
            await sleep(delay)
        else:
            return


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """Cancel and wait until they are gone; their errors are logged, since nobody else will look."""
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception):
            log.error("a task ended badly while stopping", exc_info=outcome)


async def wait_for_event(event: asyncio.Event, seconds: float, sleep: Callable[[float], Coroutine[Any, Any, None]]) -> bool:
    """Until the event is set or `sleep(seconds)` is over, whichever comes first; whether it is set."""
    tasks = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(sleep(seconds))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return event.is_set()


async def closable(parts: AsyncIterator[T]) -> AsyncGenerator[T, None]:
    """The same parts; closing it in the middle closes them, too, and not when the garbage collector comes by."""
    try:
        async for part in parts:
            yield part
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()


def spawn(group: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
    """Start a task and keep a reference in `group` until it ends (the loop itself holds only a weak one)."""
    task = asyncio.create_task(work, name=name)
    group.add(task)
    task.add_done_callback(group.discard)
    return task
