"""What `vedette doctor` says of one thing: values that the diagnose_*.py files make and doctor.py prints."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from pathlib import Path
from typing import Literal

import msgspec

from vedette.clients.amqp import Address
from vedette.clients.rabbit_checks import Look
from vedette.clients.vedette import VedetteClient

Level = Literal["ok", "note", "warn", "fail"]

SKEW_SECONDS = 5.0
"""A clock that is further off makes as-of times and tokens wrong in ways that people notice."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    level: Level
    about: str
    message: str
    fix: str = ""
    """What to do, a line each; commands and settings exactly."""


Findings = AsyncGenerator[Finding, None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line gave."""

    config: Path | None
    environ: Mapping[str, str]
    server: str
    management_url: str
    listen_s: float
    try_port: bool
    hear_s: float = 20.0
    """How long the notification of that port may take."""
    reach: Callable[[str], VedetteClient]


class Broker(msgspec.Struct):
    """What was found of a source's broker, for whoever looks further."""

    where: Address | None = None
    """The address that answered."""
    looked: Look | None = None
    tls: ssl.SSLContext | None = None


def skew_of(what: str, seconds: float, fix: str, *, most: float = SKEW_SECONDS) -> Finding:
    """A clock's distance from ours; positive: it is ahead."""
    if abs(seconds) > most:
        side = "ahead of" if seconds > 0 else "behind"
        return Finding("warn", "clock", f"{what} is {abs(seconds):.0f} s {side} this machine's", fix)
    return Finding("ok", "clock", f"{what} agrees with this machine's")
