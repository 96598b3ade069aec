"""Where news enters: `offer(notices)` asks the kinds to read each notice and appends it; done means durable.

Notices come in from sources (and from the service itself); the store is next. What a source's `drop` patterns name is counted as
*not interesting* and goes no further; everything else is an entry, claimed by a kind or not. The sum is exact:
received = events + duplicates + not interesting + not understood.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from vedette.errors import NotUnderstood
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import GAP, NOT_UNDERSTOOD, Notice
from vedette.model.reading import Key, Reading
from vedette.ports import Kind, Store

log = logging.getLogger("vedette.engine.ingest")

SLICE_SECONDS = 0.002
"""How long reading notices may hold the loop before somebody else gets a turn."""

_OWN = frozenset((GAP, NOT_UNDERSTOOD))


class Ingest:
    """See the module. One for all sources; `drop` is per source: fnmatch patterns of event types."""

    def __init__(
        self, store: Store, kinds: Sequence[Kind], telemetry: Telemetry, drop: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        self._store = store
        self._kinds = kinds
        self._drop = dict(drop or {})
        self._readers: dict[str, tuple[Kind, ...]] = {}
        self._dropped: dict[tuple[str, str], bool] = {}
        self._received = telemetry.counter("notices_received_total", "Messages delivered by a source", "source")
        self._events = telemetry.counter("notices_events_total", "Messages that became an entry of the log", "source")
        self._duplicates = telemetry.counter("notices_duplicates_total", "Messages whose id the log has already", "source")
        self._boring = telemetry.counter(
            "notices_not_interesting_total", "Messages that the source's `drop` names", "source", "event_type"
        )
        self._puzzling = telemetry.counter(
            "notices_not_understood_total", "Messages that could not be read; see `vedette not-understood`", "source"
        )
        self._unread = telemetry.counter(
            "notices_unread_total", "Entries whose payload a kind could not read (kept all the same)", "source", "kind"
        )

    async def offer(self, notices: Sequence[Notice | NewEntry]) -> None:
        """Make them durable. See `ports.Offer`. Raises StoreUnavailable: nothing was kept, nothing counted; offer again."""
        entries: list[NewEntry] = []
        revisions: list[int | None]
        boring: list[Notice] = []
        until = time.perf_counter() + SLICE_SECONDS
        for number, offered in enumerate(notices):
            notice = offered.notice if isinstance(offered, NewEntry) else offered
            if self._drop and notice.event_type not in _OWN and self._is_dropped(notice):
                boring.append(notice)
                continue
            entries.append(offered if isinstance(offered, NewEntry) else NewEntry(notice, self._read(notice)))
            if not number & 15 and time.perf_counter() >= until:
                await asyncio.sleep(0)
                until = time.perf_counter() + SLICE_SECONDS
        try:
            revisions = list(await self._store.append(entries))
        except NotUnderstood:
            # One of them can't be stored at all (a lone surrogate in an id): it is set aside, the others go their way.
            revisions = []
            for index, entry in enumerate(entries):
                try:
                    revisions += await self._store.append([entry])
                except NotUnderstood as why:
                    entries[index] = NewEntry(_aside(entry.notice, str(why)))
                    revisions += await self._store.append([entries[index]])
        self._count(entries, revisions, boring)

    async def record(self, entries: Sequence[NewEntry], expect: Mapping[Key, int]) -> None:
        """News that Vedette read from an API itself, with its readings: durable when this returns. Not *received*: no source
        was told yes for it. Raises StoreUnavailable; Conflict when an object is at another revision than expected."""
        await self._store.append(entries, expect)

    def _count(self, entries: Sequence[NewEntry], revisions: Sequence[int | None], boring: Sequence[Notice]) -> None:
        """After the append, so that an offer that failed and comes again counts once."""
        sums: Counter[tuple[str, str]] = Counter()
        for notice in boring:
            self._boring.labels(notice.source, notice.event_type).inc()
            sums[notice.source, "received"] += 1
        # Counted by what is equal first: a batch is a thousand entries of one source, and nearly all of them are events.
        kinds = Counter(
            (entry.notice.source, entry.notice.event_type in _OWN and entry.notice.event_type, revision is None)
            for entry, revision in zip(entries, revisions, strict=True)
        )
        for (source, own, duplicate), number in kinds.items():
            if own == GAP:  # the source's own word, not received; it counts its gaps by cause
                continue
            sums[source, "duplicate" if duplicate else "puzzling" if own else "event"] += number
            sums[source, "received"] += number
        counters = {
            "received": self._received,
            "event": self._events,
            "duplicate": self._duplicates,
            "puzzling": self._puzzling,
        }
        for (source, what), number in sums.items():
            counters[what].labels(source).inc(number)

    def _read(self, notice: Notice) -> tuple[Reading, ...]:
        readers = self._readers.get(notice.event_type)
        if readers is None:
            readers = self._claimed(notice.event_type)
        if not readers:
            return ()
        if len(readers) == 1:
            return self._ask(readers[0], notice)
        return tuple(reading for kind in readers for reading in self._ask(kind, notice))

    def _ask(self, kind: Kind, notice: Notice) -> tuple[Reading, ...]:
        """A kind that can't read a payload loses that reading, never the notice."""
        try:
            return tuple(kind.read(notice))
        except Exception as why:  # noqa: BLE001 - kinds get whatever a cloud sends; the notice is kept, and this is told
            self._unread.labels(notice.source, kind.singular).inc()
            level = logging.INFO if isinstance(why, NotUnderstood) else logging.ERROR
            told = kv(kind=kind.singular, event_type=notice.event_type, id=notice.id)
            log.log(level, "a notice was kept but could not be read: %s", type(why).__name__, extra=told)
            return ()

    def _claimed(self, event_type: str) -> tuple[Kind, ...]:
        if len(self._readers) > 10_000:  # event types come from outside
            self._readers.clear()
        found = tuple(kind for kind in self._kinds if any(fnmatchcase(event_type, pattern) for pattern in kind.events))
        self._readers[event_type] = found
        return found

    def _is_dropped(self, notice: Notice) -> bool:
        key = (notice.source, notice.event_type)
        found = self._dropped.get(key)
        if found is None:
            if len(self._dropped) > 10_000:
                self._dropped.clear()
            patterns = self._drop.get(notice.source, ())
            found = self._dropped[key] = any(fnmatchcase(notice.event_type, pattern) for pattern in patterns)
        return found


def _aside(notice: Notice, reason: str) -> Notice:
    """What stands in the not-understood box for a notice that no store can hold: said in ASCII, so that it can."""
    told = {"reason": reason, "body": ascii((notice.event_type, notice.id, notice.publisher)), "bytes": len(notice.payload)}
    digest = hashlib.sha256(ascii((notice.source, notice.id, notice.event_type)).encode()).hexdigest()
    return Notice(
        id=digest,
        source=notice.source,
        event_type=NOT_UNDERSTOOD,
        sent_at=notice.sent_at,
        payload=msgspec.Raw(msgspec.json.encode(told)),
    )
