"""Where news enters: the sum is exact, whatever a cloud sends."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import pytest

from vedette.engine.ingest import Ingest
from vedette.errors import NotUnderstood, StoreUnavailable
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import GAP, NOT_UNDERSTOOD, Notice
from vedette.model.reading import Reading
from vedette.ports import EVERYTHING, Kind, Selection
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock


def notice(id_: str, event_type: str = "port.update.end", **more: object) -> Notice:
    said = {"sent_at": 10**15, "payload": msgspec.Raw(b"{}"), **more}
    return Notice(id=id_, source="one", event_type=event_type, **said)  # type: ignore[arg-type]


def kind(read: object, *events: str) -> Kind:
    return Kind(kind="Port", plural="ports", singular="port", doc="", events=events, read=read, fields={}, columns=())  # type: ignore[arg-type]


def reads(notice: Notice) -> Iterable[Reading]:
    return [Reading(kind="Port", id="p1", verb="update", as_of=notice.sent_at, fields={"said": notice.id})]


def counted(telemetry: Telemetry) -> dict[str, float]:
    sums: dict[str, float] = {}
    for metric in telemetry.registry.collect():
        for sample in metric.samples:
            if sample.name.startswith("vedette_notices_") and sample.name.endswith("_total"):
                name = sample.name.removeprefix("vedette_notices_").removesuffix("_total")
                sums[name] = sums.get(name, 0) + sample.value
    return sums


def is_exact(sums: dict[str, float]) -> bool:
    parts = ("events", "duplicates", "not_interesting", "not_understood")
    return sums.get("received", 0) == sum(sums.get(part, 0) for part in parts)


async def test_an_entry_with_its_readings_is_taken_as_it_is_and_counted_and_dropped_like_a_notice() -> None:
    store, telemetry = MemoryStore(FakeClock()), Telemetry()
    ingest = Ingest(store, [kind(reads, "*")], telemetry, {"one": ("*.exists",)})
    own = Reading(kind="Pod", group="", id="a/p", verb="create", as_of=1, fields={"spec": {}}, whole=True)
    await ingest.offer([NewEntry(notice("made", "kubernetes.pods.added"), (own,)), NewEntry(notice("dull", "x.exists"), (own,))])
    (kept,), _ = await store.entries(store.oldest)
    assert kept.entry.readings == (own,)
    sums = counted(telemetry)
    assert (sums["received"], sums["events"], sums["not_interesting"]) == (2, 1, 1)


async def test_received_is_the_exact_sum_of_what_became_of_it() -> None:
    store, telemetry = MemoryStore(FakeClock()), Telemetry()
    ingest = Ingest(store, [kind(reads, "port.*")], telemetry, {"one": ("*.exists",)})
    await ingest.offer([notice("a"), notice("b", "unclaimed.thing"), notice("a"), notice("c", "compute.instance.exists")])
    await ingest.offer([notice("d", NOT_UNDERSTOOD), notice("gap", GAP, origin="vedette"), notice("b", "unclaimed.thing")])
    sums = counted(telemetry)
    assert sums["received"] == 6  # a gap is our own word, not received
    assert (sums["events"], sums["duplicates"], sums["not_interesting"], sums["not_understood"]) == (2, 2, 1, 1)
    assert is_exact(sums)
    kept, _ = await store.entries(store.oldest)
    assert [one.entry.notice.id for one in kept] == ["a", "b", "d", "gap"]


async def test_no_pattern_drops_our_own_word() -> None:
    store, telemetry = MemoryStore(FakeClock()), Telemetry()
    await Ingest(store, [], telemetry, {"one": ("*",)}).offer([notice("gap", GAP), notice("odd", NOT_UNDERSTOOD), notice("a")])
    kept, _ = await store.entries(store.oldest)
    assert [one.entry.notice.id for one in kept] == ["gap", "odd"]
    assert is_exact(counted(telemetry))


async def test_a_kind_that_fails_loses_its_reading_and_never_the_notice() -> None:
    def fails(notice: Notice) -> Iterable[Reading]:
        raise ZeroDivisionError

    def puzzled(notice: Notice) -> Iterable[Reading]:
        raise NotUnderstood("odd")

    store, telemetry = MemoryStore(FakeClock()), Telemetry()
    ingest = Ingest(store, [kind(fails, "port.*"), kind(puzzled, "port.*"), kind(reads, "port.*")], telemetry)
    await ingest.offer([notice("a")])
    page = await store.objects(Selection(EVERYTHING))
    assert len(page.items) == 1
    assert b'vedette_notices_unread_total{kind="port",source="one"} 2.0' in telemetry.render()
    assert is_exact(counted(telemetry))


class Refusing(MemoryStore):
    """A store that is full for a while."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.full = True

    async def append(self, entries: Sequence[NewEntry], expect: object = None, work: object = ()) -> Sequence[int | None]:
        if self.full:
            raise StoreUnavailable("full")
        return await super().append(entries)


async def test_an_offer_that_failed_counts_once_when_it_comes_again() -> None:
    store, telemetry = Refusing(), Telemetry()
    ingest = Ingest(store, [], telemetry, {"one": ("*.exists",)})
    batch = [notice("a"), notice("b", "compute.instance.exists")]
    with pytest.raises(StoreUnavailable):
        await ingest.offer(batch)
    assert counted(telemetry).get("received", 0) == 0
    store.full = False
    await ingest.offer(batch)
    assert counted(telemetry)["received"] == 2
    assert is_exact(counted(telemetry))


class Picky(MemoryStore):
    """Refuses what can't be stored, as SQLite does a lone surrogate."""

    async def append(self, entries: Sequence[NewEntry], expect: object = None, work: object = ()) -> Sequence[int | None]:
        if any("\ud800" in entry.notice.id for entry in entries):
            raise NotUnderstood("not UTF-8")
        return await super().append(entries)


async def test_a_notice_that_no_store_can_hold_is_set_aside_and_the_others_go_their_way() -> None:
    store, telemetry = Picky(FakeClock()), Telemetry()
    ingest = Ingest(store, [], telemetry)
    await ingest.offer([notice("a"), notice("odd\ud800"), notice("b")])
    kept, _ = await store.entries(store.oldest)
    assert [one.entry.notice.event_type for one in kept] == ["port.update.end", NOT_UNDERSTOOD, "port.update.end"]
    assert b"odd" in bytes(kept[1].entry.notice.payload)
    sums = counted(telemetry)
    assert (sums["events"], sums["not_understood"]) == (2, 1)
    assert is_exact(sums)
