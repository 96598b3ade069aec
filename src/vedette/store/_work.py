"""What handlers owe, kept beside the log: the SQL of `Work` (model/delivery.py) for sqlite.py, and the same in memory.

Work comes in with an append and is done in its transaction; engine/dispatch.py reads it back when it starts.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from vedette.model.delivery import (
    LIVE,
    Cursor,
    Delivery,
    DropHandler,
    Outcome,
    PutCursor,
    PutDelivery,
    PutState,
    Settle,
    State,
    Work,
)

_COLUMNS = "handler, revision, number, subject, change, outcome, attempt, next_at, at, first_at, detail, event, replay"
_PUT = f"INSERT OR REPLACE INTO deliveries ({_COLUMNS})"
_SETTLE = (
    "UPDATE deliveries SET outcome = s.column1, attempt = s.column2, at = s.column3, detail = s.column4, "
    "event = CASE WHEN s.column1 = 'dead' THEN event ELSE x'' END FROM (VALUES {}) AS s "
    "WHERE deliveries.revision = s.column5 AND deliveries.handler = s.column6 AND deliveries.number = s.column7"
)
_UNSETTLED = ("pending", "dead")


def write(db: sqlite3.Connection, works: Sequence[Work]) -> None:
    """Do it, in order; runs of one sort in one go. Inside the caller's transaction."""
    for sort, run in groupby(works, key=type):
        if sort is PutDelivery:
            insert(db, _PUT, [_row(one.delivery) for one in run])  # type: ignore[union-attr]
        elif sort is Settle:
            rows = [(s.outcome, s.attempt, s.at, s.detail, s.revision, s.handler, s.number) for s in _settles(run)]
            many(db, _SETTLE, rows)
        else:
            for one in run:
                _write_one(db, one)


def insert(db: sqlite3.Connection, into: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """All of them; see `many`."""
    many(db, f"{into} VALUES {{}}", rows)


ROWS = 50
"""Rows a statement: 650 values at the most, and a remainder that is not worth a statement of its own."""


def many(db: sqlite3.Connection, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Many rows by few statements; `{}` is where they go, and what a row names may be in it once only. Python gives up its lock
    for each step of a statement and has to queue for it again: row by row, a busy event loop would be waited for a thousand
    times a batch."""
    if not rows:
        return
    row = f"({', '.join('?' * len(rows[0]))})"
    whole = len(rows) // ROWS * ROWS
    for start in range(0, whole, ROWS):
        db.execute(statement.format(", ".join([row] * ROWS)), [value for one in rows[start : start + ROWS] for value in one])
    db.executemany(statement.format(row), rows[whole:])


def _settles(run: Iterable[Work]) -> Iterable[Settle]:
    return (one for one in run if isinstance(one, Settle))


def _write_one(db: sqlite3.Connection, work: Work) -> None:
    match work:
        case PutCursor(handler, cursor):
            db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (handler, cursor.position, cursor.live))
        case PutState(owner, space, key, None, _):
            db.execute("DELETE FROM state WHERE owner = ? AND space = ? AND key = ?", (owner, space, key))
        case PutState(owner, space, key, value, due):
            db.execute("INSERT OR REPLACE INTO state VALUES (?, ?, ?, ?, ?)", (owner, space, key, value, due))
        case DropHandler(handler):
            db.execute("DELETE FROM cursors WHERE handler = ?", (handler,))
            db.execute("DELETE FROM deliveries WHERE handler = ?", (handler,))
            db.execute("DELETE FROM state WHERE owner = ?", (handler,))


def _row(d: Delivery) -> tuple[Any, ...]:
    return (
        *(d.handler, d.revision, d.number, d.subject, d.change, d.outcome),
        *(d.attempt, d.next_at, d.at, d.first_at, d.detail, d.event, d.replay),
    )


def read_cursors(db: sqlite3.Connection) -> dict[str, Cursor]:
    return {row[0]: Cursor(row[1], bool(row[2])) for row in db.execute("SELECT handler, position, live FROM cursors")}


def read_deliveries(
    db: sqlite3.Connection,
    handler: str,
    outcomes: Sequence[Outcome],
    revision: int,
    after: tuple[int, str, int],
    limit: int,
) -> list[Delivery]:
    where, values = ["(revision, handler, number) > (?, ?, ?)"], [*after]
    if handler:
        where.append("handler = ?")
        values.append(handler)
    if revision:
        where.append("revision = ?")
        values.append(revision)
    if len(outcomes) == 1 and outcomes[0] in _UNSETTLED:
        where.append(f"outcome = '{outcomes[0]}'")  # a constant, so that the small index is seen to fit
    elif outcomes:
        where.append(f"outcome IN ({', '.join('?' * len(outcomes))})")
        values += outcomes
    sql = f"SELECT {_COLUMNS} FROM deliveries WHERE {' AND '.join(where)} ORDER BY revision, handler, number LIMIT ?"
    return [Delivery(*row[:12], replay=bool(row[12])) for row in db.execute(sql, (*values, limit))]  # type: ignore[misc]


def read_state(db: sqlite3.Connection, owner: str, space: str, key: str) -> list[State]:
    sql = "SELECT key, value, due FROM state WHERE owner = ? AND space = ?"
    if key:
        return [State(*row) for row in db.execute(f"{sql} AND key = ?", (owner, space, key))]
    return [State(*row) for row in db.execute(f"{sql} ORDER BY key", (owner, space))]


def held_from(db: sqlite3.Connection) -> int | None:
    """The oldest entry that a handler still needs from the log; None: nobody needs any. Age may not pass it."""
    first = db.execute("SELECT min(revision) FROM deliveries WHERE outcome = 'pending' AND event = x''").fetchone()[0]
    return _held(read_cursors(db), first)


def _held(cursors: Mapping[str, Cursor], first_pending: int | None) -> int | None:
    shared = cursors[LIVE].position if LIVE in cursors else 0
    places = [max(one.position, shared) if one.live else one.position for name, one in cursors.items() if name != LIVE]
    needed = [place + 1 for place in places] + ([] if first_pending is None else [first_pending])
    return min(needed, default=None)


def forget_settled(db: sqlite3.Connection, upto: int) -> None:
    """What was settled of entries that leave the log."""
    db.execute("DELETE FROM deliveries WHERE revision <= ? AND outcome NOT IN ('pending', 'dead')", (upto,))


class MemoryWork:
    """The same in memory."""

    def __init__(self) -> None:
        self.cursors: dict[str, Cursor] = {}
        self._deliveries: dict[tuple[int, str, int], Delivery] = {}
        self._state: dict[tuple[str, str, str], State] = {}

    def write(self, works: Sequence[Work]) -> None:
        for work in works:
            match work:
                case PutCursor(handler, cursor):
                    self.cursors[handler] = cursor
                case PutDelivery(d):
                    self._deliveries[d.revision, d.handler, d.number] = d
                case Settle():
                    self._settle(work)
                case PutState(owner, space, key, None, _):
                    self._state.pop((owner, space, key), None)
                case PutState(owner, space, key, bytes() as value, due):
                    self._state[owner, space, key] = State(key, value, due)
                case DropHandler(handler):
                    self.cursors.pop(handler, None)
                    self._deliveries = {place: d for place, d in self._deliveries.items() if d.handler != handler}
                    self._state = {place: one for place, one in self._state.items() if place[0] != handler}

    def _settle(self, s: Settle) -> None:
        known = self._deliveries.get((s.revision, s.handler, s.number))
        if known is not None:
            event = known.event if s.outcome == "dead" else b""
            settled = {"outcome": s.outcome, "attempt": s.attempt, "at": s.at, "detail": s.detail, "event": event}
            self._deliveries[s.revision, s.handler, s.number] = msgspec.structs.replace(known, **settled)

    def deliveries(
        self, handler: str, outcomes: Sequence[Outcome], revision: int, after: tuple[int, str, int], limit: int
    ) -> list[Delivery]:
        found = [
            d
            for place, d in sorted(self._deliveries.items())
            if place > after
            and (not handler or d.handler == handler)
            and (not outcomes or d.outcome in outcomes)
            and (not revision or d.revision == revision)
        ]
        return found[:limit]

    def state(self, owner: str, space: str, key: str) -> list[State]:
        return [one for place, one in sorted(self._state.items()) if place[:2] == (owner, space) and key in ("", one.key)]

    def held_from(self) -> int | None:
        pending = [d.revision for d in self._deliveries.values() if d.outcome == "pending" and not d.event]
        return _held(self.cursors, min(pending, default=None))

    def forget_settled(self, upto: int) -> None:
        self._deliveries = {place: d for place, d in self._deliveries.items() if place[0] > upto or d.outcome in _UNSETTLED}
