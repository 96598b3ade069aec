"""The clock that tests own: sleepers wake at their own moment, in order, and see the time it is then."""

from __future__ import annotations

import asyncio

import pytest

from vedette.kit.clock import Clock
from vedette.testing.clock import START_US, FakeClock


async def test_sleepers_wake_in_order_each_at_its_moment() -> None:
    clock = FakeClock()
    port: Clock = clock
    woke: list[tuple[str, float, int]] = []

    async def every(name: str, seconds: float, times: int) -> None:
        for _ in range(times):
            await port.sleep(seconds)
            woke.append((name, port.monotonic(), port.now_us() - START_US))

    tasks = [asyncio.create_task(every("three", 3, 2)), asyncio.create_task(every("two", 2, 3))]
    await clock.advance(5)
    assert woke == [("two", 2, 2_000_000), ("three", 3, 3_000_000), ("two", 4, 4_000_000)]
    assert (clock.monotonic(), clock.sleeping) == (5, 2)
    await clock.advance(1)
    assert woke[3:] == [("three", 6, 6_000_000), ("two", 6, 6_000_000)]
    await asyncio.gather(*tasks)


async def test_a_sleeper_that_was_cancelled_wakes_nobody() -> None:
    clock = FakeClock()
    task = asyncio.create_task(clock.sleep(1))
    await asyncio.sleep(0)
    assert clock.sleeping == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.sleeping == 0
    await clock.advance(2)
    assert clock.monotonic() == 2


async def test_no_sleep_is_still_a_turn_for_others() -> None:
    clock = FakeClock()
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.monotonic() == 0


def test_a_step_moves_the_wall_clock_alone_and_small_steps_add_up() -> None:
    clock = FakeClock()
    clock.step(-60)
    assert (clock.monotonic(), clock.now_us()) == (0, START_US - 60_000_000)
    for _ in range(1000):
        clock.tick(0.1)
    assert clock.monotonic() == 100
    assert clock.now_us() == START_US + 40_000_000
