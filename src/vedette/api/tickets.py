"""Tickets: what a browser's EventSource shows instead of a token, since it can send no headers and a query ends up in logs.

`POST /v1/tickets` with a token issues one, `GET /v1/events?ticket=…` redeems it: once, within half a minute. Only hashes of
tickets are kept, in memory; the token stays behind them, so that the stream's rights are looked at again like any other's.
"""

from __future__ import annotations

import hashlib
import secrets

import msgspec

from vedette.errors import TooBusy, Unauthenticated
from vedette.kit.clock import Clock
from vedette.ports import Identity

LIFE_SECONDS = 30.0
MOST = 10_000
"""Tickets that wait to be redeemed."""
MOST_EACH = 100
"""Of one identity."""
LONGEST = 200
"""Characters that are looked at; ours have 43."""


class _Ticket(msgspec.Struct, frozen=True):
    identity: Identity
    token: str
    ends: float

    def __repr__(self) -> str:
        return f"_Ticket(identity={self.identity.name!r}, token='***')"


class Tickets:
    """See the module."""

    def __init__(self, clock: Clock, *, life_seconds: float = LIFE_SECONDS, most: int = MOST, most_each: int = MOST_EACH) -> None:
        self._clock = clock
        self.life_seconds = life_seconds
        self._most = most
        self._most_each = most_each
        self._waiting: dict[bytes, _Ticket] = {}
        """In the order in which they end."""
        self._held: dict[str, int] = {}

    def __len__(self) -> int:
        self._sweep()
        return len(self._waiting)

    def issue(self, identity: Identity, token: str) -> str:
        """A ticket for `life_seconds`. Raises TooBusy."""
        self._sweep()
        if self._held.get(identity.key, 0) >= self._most_each:
            raise TooBusy(f"{self._most_each} tickets of this token wait to be redeemed", delay=self.life_seconds)
        if len(self._waiting) >= self._most:
            raise TooBusy(f"{self._most} tickets wait to be redeemed", delay=self.life_seconds)
        ticket = secrets.token_urlsafe(32)
        self._waiting[_digest(ticket)] = _Ticket(identity, token, self._clock.monotonic() + self.life_seconds)
        self._held[identity.key] = self._held.get(identity.key, 0) + 1
        return ticket

    def redeem(self, ticket: str) -> tuple[Identity, str]:
        """Whose it is, and the token behind it. Raises Unauthenticated: unknown, too old, or used before."""
        self._sweep()
        found = self._waiting.pop(_digest(ticket), None) if len(ticket) <= LONGEST else None
        if found is None:
            raise Unauthenticated("this ticket is not valid: each is good once, for half a minute")
        self._leave(found)
        if 0 < found.identity.expires_at <= self._clock.now_us():
            raise Unauthenticated("the token behind this ticket has ended")
        return found.identity, found.token

    def _sweep(self) -> None:
        now = self._clock.monotonic()
        while self._waiting:
            oldest = next(iter(self._waiting))
            if now < self._waiting[oldest].ends:
                return
            self._leave(self._waiting.pop(oldest))

    def _leave(self, ticket: _Ticket) -> None:
        left = self._held[ticket.identity.key] - 1
        if left:
            self._held[ticket.identity.key] = left
        else:
            del self._held[ticket.identity.key]


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogateescape")).digest()
