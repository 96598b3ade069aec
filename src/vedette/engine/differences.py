"""What an API says that the inventory doesn't: readings come in from resync and verify, entries for the log go out.

A reading is folded onto what is known, here as in the store. What changes nothing is no news and makes no entry, however often it
is read; what a notice has said since the reading was taken is newer and stays.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from vedette.errors import Conflict
from vedette.model.change import Object, Verb
from vedette.model.entry import NewEntry
from vedette.model.fold import fold
from vedette.model.notice import Notice
from vedette.model.reading import Key, Reading
from vedette.ports import Kind, Store

TURN = 64
"""Readings compared before others get their turn: about a millisecond."""

Origin = Literal["resync", "verify"]

Record = Callable[[Sequence[NewEntry], Mapping[Key, int]], Awaitable[None]]
"""Makes entries durable, if these objects still stand at these revisions; else raises Conflict (`Ingest.record`)."""

_WORDS: Mapping[Verb, Literal["create", "update", "delete"]] = {"ADDED": "create", "MODIFIED": "update", "DELETED": "delete"}


class Difference(msgspec.Struct, frozen=True):
    """One reading that is news, and what it does to its object."""

    key: Key
    reading: Reading
    word: Literal["create", "update", "delete"]
    after: Object
    changed: tuple[str, ...]
    """Names of the fields that every reader of the object may see and that are not what they were."""
    expected: int
    """The revision that the object stands at, for the store to check; 0: there is none, or it is deleted."""
    fills: bool
    """Nothing that was known has changed: these fields are in no notification, and are known from now on."""


async def differences(store: Store, source: str, readings: Iterable[Reading]) -> list[Difference]:
    """Those of the readings that would make a change now, in their order."""
    keyed = [(Key(source, one.group, one.kind, one.id), one) for one in readings]
    keys = list(dict.fromkeys(key for key, _ in keyed))
    known: dict[Key, Object | None] = dict(zip(keys, await store.held(keys), strict=True))
    at = {key: 0 if held is None or held.deleted else held.revision for key, held in known.items()}
    found: list[Difference] = []
    for number, (key, reading) in enumerate(keyed):
        if number % TURN == TURN - 1:
            await asyncio.sleep(0)
        before = known[key]
        if before is not None and before.as_of > reading.as_of:
            # Something was heard of it since the request was sent, and not all news has a version that could tell which is newer.
            continue
        after, verb = fold(before, reading, key, 0)
        known[key] = after
        if verb is not None and after is not None:
            found.append(
                Difference(
                    key=key,
                    reading=reading,
                    word=_WORDS[verb],
                    after=after,
                    changed=_changed(before, after),
                    expected=at[key],
                    fills=_fills(before, after),
                )
            )
    return found


async def tell(
    store: Store,
    record: Record,
    source: str,
    readings: Sequence[Reading],
    origin: Origin,
    kinds: Mapping[tuple[str, str], Kind],
    reason: Callable[[Difference], str],
) -> Sequence[Difference]:
    """Make entries of what differs, and give it back. What somebody else says of these objects in the meantime comes first: the
    store refuses, and it is compared anew. Raises what `record` raises."""
    size = max(1, len(readings))
    told: list[Difference] = []
    start = 0
    while start < len(readings):
        found = await differences(store, source, readings[start : start + size])
        try:
            if found:
                await record([entry(one, origin, kinds, reason) for one in found], {one.key: one.expected for one in found})
        except Conflict:
            size = max(1, size // 4)  # so that the busiest object keeps no other waiting
            continue
        told += found
        start += size
    return told


def entry(
    difference: Difference, origin: Origin, kinds: Mapping[tuple[str, str], Kind], reason: Callable[[Difference], str]
) -> NewEntry:
    """The difference as the log keeps it: a notice of ours in the form of Neutron's own, and its reading. `kinds`: by group and
    kind."""
    key, reading = difference.key, difference.reading
    word = kinds[key.group, key.kind].singular
    payload: dict[str, Any] = {
        word: {"id": key.id, **difference.after.fields},
        "reason": reason(difference),
        "changed": difference.changed,
    }
    # All of the reading is its name, the moment too: one answer may speak of an object twice, and the same state, read again
    # later, is other news.
    said = msgspec.json.encode((origin, key.source, reading))
    notice = Notice(
        id=hashlib.sha256(said).hexdigest()[:32],
        source=key.source,
        event_type=f"{word}.{difference.word}.{origin}",
        sent_at=reading.as_of,
        payload=msgspec.Raw(msgspec.json.encode(payload)),
        priority="INFO",
        origin=origin,
    )
    return NewEntry(notice, (reading,))


def by_name(kinds: Sequence[Kind]) -> dict[tuple[str, str], Kind]:
    return {(kind.group, kind.kind): kind for kind in kinds}


def _changed(before: Object | None, after: Object) -> tuple[str, ...]:
    if before is None or before.deleted or after.deleted:
        return ()
    return tuple(sorted(name for name, value in after.fields.items() if before.fields.get(name, _ABSENT) != value))


def _fills(before: Object | None, after: Object) -> bool:
    return (
        before is not None
        and not before.deleted
        and not after.deleted
        and (before.project, before.shared, before.owner) == (after.project, after.shared, after.owner)
        and all(after.fields.get(name, _ABSENT) == value for name, value in before.fields.items())
        and all(after.admin.get(name, _ABSENT) == value for name, value in before.admin.items())
    )


_ABSENT = object()
