"""Which server, and who we are: options and variables come in, a VedetteClient goes out.

The token is looked for only when it is needed: VEDETTE_TOKEN or OS_TOKEN are sent at once; a Keystone token is asked for when the
server answered 401. Never on the command line, where `ps` shows it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette.errors import ConfigError

if TYPE_CHECKING:
    from vedette.clients.keystone import Issued
    from vedette.clients.vedette import VedetteClient

DEFAULT_URL = "http://127.0.0.1:8470"
_PANEL = "Server and token"

ServerOption = Annotated[
    str, typer.Option("--server", envvar="VEDETTE_URL", help="Where Vedette listens.", rich_help_panel=_PANEL, metavar="URL")
]
CaOption = Annotated[
    Path | None,
    typer.Option(
        "--ca",
        envvar=["VEDETTE_CACERT", "OS_CACERT"],
        help="A PEM file of the CA that signed the server's certificate; the system's otherwise.",
        rich_help_panel=_PANEL,
        metavar="FILE",
    ),
]
CloudOption = Annotated[
    str | None,
    typer.Option(
        "--os-cloud",
        envvar="OS_CLOUD",
        help="An entry of clouds.yaml to get a token with.",
        rich_help_panel=_PANEL,
        metavar="NAME",
    ),
]
InsecureOption = Annotated[
    bool,
    typer.Option(
        "--allow-insecure",
        envvar="VEDETTE_ALLOW_INSECURE",
        help="Send a token over plain http to another machine too.",
        rich_help_panel=_PANEL,
    ),
]


class Reach:
    """How to get to the server, as the options say."""

    def __init__(self, server: str, ca: Path | None, os_cloud: str | None, allow_insecure: bool) -> None:
        self.server = server
        self.ca = ca
        self.os_cloud = os_cloud
        self.allow_insecure = allow_insecure

    def client(self) -> VedetteClient:
        from vedette.clients.vedette import VedetteClient

        return VedetteClient(self.server, token=Tokens(self.os_cloud), ca=self.ca, allow_insecure=self.allow_insecure)


class Tokens:
    """Finds a token, and another when that one was refused."""

    def __init__(self, os_cloud: str | None) -> None:
        self._os_cloud = os_cloud
        self._issued = ""

    async def __call__(self, refused: bool) -> str:
        given = given_token()
        # A given one again would be refused again; another must come from whoever gave it.
        if not refused or given:
            return self._issued or given
        self._issued = (await issue(self._os_cloud)).token
        return self._issued


def given_token() -> str:
    """A token that is there already."""
    return os.environ.get("VEDETTE_TOKEN") or os.environ.get("OS_TOKEN") or ""


async def issue(os_cloud: str | None) -> Issued:
    """A new token from Keystone. Raises Unauthenticated, IdentityUnavailable, ConfigError."""
    from vedette.clients.keystone import credentials, issue_token

    try:
        found = credentials({"cloud": os_cloud} if os_cloud else None)
    except ConfigError as why:
        raise ConfigError(
            f"a token is needed, and there is nothing to get one with ({why}). "
            "Set VEDETTE_TOKEN or OS_TOKEN, or OS_* variables, or name an entry of clouds.yaml with --os-cloud"
        ) from None
    return await issue_token(found)


def until_stopped(work: Coroutine[Any, Any, None]) -> bool:
    """Run it to its end, or until SIGINT or SIGTERM cancel it; whether it was stopped."""
    stopped = False

    async def watched() -> None:
        nonlocal stopped
        task = asyncio.ensure_future(work)

        def stop() -> None:
            nonlocal stopped
            stopped = True
            task.cancel()

        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            await task
        except asyncio.CancelledError:
            if not stopped:
                raise

    asyncio.run(watched())
    return stopped
