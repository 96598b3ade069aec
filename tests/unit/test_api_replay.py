"""How a replay is told while it goes: a line now and then where nothing matches, and an end when nobody listens.

Left out: the route over HTTP (tests/e2e/test_handlers_api.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from vedette.api.routes.handlers import patiently
from vedette.errors import Expired


class Matches:
    """Gives numbers instead of matches; waits for `go` before each that is negative."""

    def __init__(self, *numbers: int) -> None:
        self._numbers = numbers
        self.go = asyncio.Event()
        self.closed = False

    async def all(self) -> AsyncGenerator[Any, None]:
        try:
            for number in self._numbers:
                if number < 0:
                    await self.go.wait()
                yield number
        finally:
            self.closed = True


async def test_a_caller_hears_that_it_waits() -> None:
    matches = Matches(1, -2)
    heard = []
    async with aclosing(matches.all()) as whole, aclosing(patiently(whole, seconds=0.001)) as told:
        async for one in told:
            heard.append(one)
            if heard.count(None) == 3:
                matches.go.set()
    # A slow machine may have it wait once more.
    assert heard[:4] == [1, None, None, None]
    assert heard[-1] == -2
    assert matches.closed


async def test_when_the_caller_leaves_nothing_goes_on() -> None:
    matches = Matches(1, -2)
    async with aclosing(matches.all()) as whole, aclosing(patiently(whole, seconds=0.001)) as told:
        async for one in told:
            if one is None:
                break
    assert matches.closed


async def test_an_error_comes_through() -> None:
    async def gone() -> AsyncGenerator[Any, None]:
        yield 1
        raise Expired("gone")

    async with aclosing(gone()) as whole, aclosing(patiently(whole)) as told:
        assert await anext(told) == 1  # type: ignore[comparison-overlap]
        with pytest.raises(Expired):
            await anext(told)
