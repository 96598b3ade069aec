"""What the running server has, for tab completion: names of handlers, ids of dead letters.

The server is the one that the words so far name; one that does not answer at once has nothing to offer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperGroup

from vedette.cli.reach import DEFAULT_URL, Reach

if TYPE_CHECKING:
    from vedette.clients.vedette import VedetteClient

SECONDS = 2.0
"""What a person waits for who pressed Tab."""
MOST = 100
"""Ids that are offered."""


class ListFirst(TyperGroup):
    """A group of commands of which `list` is meant when none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def handler_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Those of the configuration that begin so."""

    async def ask(client: VedetteClient) -> list[str]:
        return [one.name for one in await client.handlers()]

    return those(ctx, incomplete, ask)


def letter_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Dead letters whose ids begin so."""

    async def ask(client: VedetteClient) -> list[str]:
        from vedette.clients.vedette import Which

        return [one.id for one in (await client.dead_letters(Which(), limit=10_000)).items]

    return those(ctx, incomplete, ask)


def those(ctx: typer.Context, incomplete: str, ask: Callable[[VedetteClient], Awaitable[list[str]]]) -> list[str]:
    given = ctx.params
    reach = Reach(given.get("server") or DEFAULT_URL, given.get("ca"), given.get("os_cloud"), bool(given.get("allow_insecure")))

    async def asked() -> list[str]:
        async with asyncio.timeout(SECONDS), reach.client() as client:
            return await ask(client)

    try:
        found = asyncio.run(asked())
    except Exception:  # noqa: BLE001 - a shell's prompt is no place for any error
        return []
    return [name for name in found if name.startswith(incomplete)][:MOST]
