"""What a handler owes: deliveries, cursors and remembered state, and the writes that a store takes together with entries.

Made by engine/dispatch.py, kept by a store in the transaction that appends (`Store.append(entries, work=...)`), so position and
state are one write. A store does what a `Work` says and knows nothing of handlers.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Outcome = Literal["pending", "done", "dead", "discarded", "suppressed", "coalesced"]
"""`pending`: not settled yet, tried or not. `dead`: in the dead letters. `discarded`: a person took it out of them.
`suppressed`: a window or a guard decided that nobody is called. `coalesced`: a later one of the object stands for it."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One match of one handler: (handler, revision, number) names it."""

    handler: str
    revision: int
    number: int
    """0 for an entry's first match, 1 for the next …: an entry may change several objects."""
    subject: str
    """The object, as `source/group/Kind/id`: deliveries of one subject are made one after the other. "" has no order."""
    change: int
    """Which of the entry's changes it is about, by its place; -1: the notice itself."""
    outcome: Outcome = "pending"
    attempt: int = 0
    """Calls made so far."""
    next_at: int = 0
    """Not before this (UTC microseconds)."""
    at: int = 0
    """When it was settled or last tried; 0: not yet."""
    first_at: int = 0
    """When it was first tried: its deadline counts from here."""
    detail: str = ""
    """What the handler said, the last error, or why nobody was called."""
    event: bytes = b""
    """Its own copy of the event (JSON), once it has failed: it outlives the log. b"": it is in the log."""
    replay: bool = False
    """A person asked for it to be made again."""

    @property
    def idempotency_key(self) -> str:
        """`<handler>/<revision>`; a further match in the same entry has `/<number>` behind it."""
        return f"{self.handler}/{self.revision}" + (f"/{self.number}" if self.number else "")


class Cursor(msgspec.Struct, frozen=True):
    """Up to where a handler's changes were sorted."""

    position: int
    live: bool = False
    """It goes along with the shared cursor (`LIVE`), and `position` is where it joined."""


LIVE = "*"
"""Name of the cursor that all handlers share which have caught up: one row moves, not a thousand."""


class PutCursor(msgspec.Struct, frozen=True, tag=True):
    handler: str
    cursor: Cursor


class PutDelivery(msgspec.Struct, frozen=True, tag=True):
    """Insert or replace."""

    delivery: Delivery


class Settle(msgspec.Struct, frozen=True, tag=True, gc=False):
    """Set the outcome of a delivery that is there; its own copy of the event goes, except of a dead letter."""

    handler: str
    revision: int
    number: int
    outcome: Outcome
    attempt: int
    at: int
    detail: str


class PutState(msgspec.Struct, frozen=True, tag=True):
    """Something small that a handler or a window remembers. `value` None: forget it."""

    owner: str
    """The handler's name."""
    space: str
    """`window`, `memory`, …"""
    key: str
    value: bytes | None
    due: int = 0
    """UTC microseconds at which somebody wants to look at it; 0: never."""


class DropHandler(msgspec.Struct, frozen=True, tag=True):
    """Cursor, deliveries and state of a handler: all gone."""

    handler: str


Work = PutCursor | PutDelivery | Settle | PutState | DropHandler


class State(msgspec.Struct, frozen=True):
    """A remembered value as it is read back."""

    key: str
    value: bytes
    due: int
