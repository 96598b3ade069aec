"""engine/mirroring.py: when a mirror is compared, what is kept of it, and how it is known that something is gone."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from vedette.engine.mirroring import Keeper, Mirroring, absent
from vedette.errors import CloudUnavailable, NotFound, TargetUnavailable
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import GAP, Notice
from vedette.model.reading import OPENSTACK, VEDETTE, Key, Reading
from vedette.plugins import kinds
from vedette.ports import EVERYTHING, Compared, Mirrored, Selection
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

KINDS = {kind.kind: kind for kind in kinds()}


def mirrored(id_: str, state: str = "ACTIVE", mirror: str = "racks") -> Mirrored:
    return Mirrored(mirror=mirror, type="device", target_id="7", kind="Server", object_id=id_, name=f"n-{id_}", state=state)


async def shown(store: MemoryStore) -> dict[str, int]:
    """Id → revision."""
    page = await store.objects(Selection(EVERYTHING, group=VEDETTE, kind="MirroredObject"))
    return {key.id: version.revision for key, version in page.items}


async def test_what_is_known_already_is_not_written_again() -> None:
    store, clock = MemoryStore(FakeClock()), FakeClock()
    keeper = Keeper("racks", store, clock)
    await keeper.load()
    await keeper.keep([mirrored("a"), mirrored("b")], ())
    head = store.head
    await keeper.keep([mirrored("a"), mirrored("b")], ())
    assert store.head == head
    # Nor by a process that comes after it, or by another mirror.
    other = Keeper("other", store, clock)
    await other.load()
    await other.keep([mirrored("a", mirror="other")], ())
    again = Keeper("racks", store, clock)
    await again.load()
    head = store.head
    await again.keep([mirrored("a"), mirrored("b")], ())
    assert store.head == head
    await again.keep([mirrored("a", "STOPPED")], [mirrored("b"), mirrored("never")])
    assert set(await shown(store)) == {"racks:device:a", "other:device:a"}
    assert store.head == head + 2


async def test_after_a_comparison_only_what_is_there_is_kept() -> None:
    store = MemoryStore(FakeClock())
    keeper = Keeper("racks", store, FakeClock())
    await keeper.load()
    await keeper.keep([mirrored(str(number)) for number in range(500)], ())
    await keeper.keep_only([mirrored("7"), mirrored("new")])
    assert set(await shown(store)) == {"racks:device:7", "racks:device:new"}


async def test_a_clock_that_was_set_back_loses_nothing() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    keeper = Keeper("racks", store, clock)
    await keeper.keep([mirrored("a")], ())
    clock.step(-3600)
    await keeper.keep([mirrored("a", "STOPPED")], ())
    await keeper.keep((), [mirrored("a")])
    assert await shown(store) == {}


async def test_what_a_mirror_remembers() -> None:
    store = MemoryStore(FakeClock())
    keeper = Keeper("racks", store, FakeClock())
    await keeper.remember({"a": b"1", "b": b"2"})
    await keeper.remember({"a": None, "c": b"3"})
    assert await Keeper("racks", store, FakeClock()).recall() == {"b": b"2", "c": b"3"}
    assert await Keeper("other", store, FakeClock()).recall() == {}


class Cloud:
    """A cloud whose answer to everything a test says."""

    def __init__(self, why: Exception | None) -> None:
        self.why = why

    async def get(self, *_: Any, **__: Any) -> Any:
        if self.why is not None:
            raise self.why
        raise CloudUnavailable("nobody should have asked")


async def test_gone_is_what_was_announced_or_what_the_api_says() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    cloud: Any = Cloud(NotFound("no such server"))

    async def say(id_: str, verb: Any) -> Key:
        reading = Reading(kind="Server", id=id_, verb=verb, as_of=clock.now_us(), project="p", fields={"name": "x"})
        notice = Notice(id=f"{id_}{verb}", source="one", event_type="x", sent_at=clock.now_us(), payload=b"{}")  # type: ignore[arg-type]
        await store.append([NewEntry(notice, (reading,))])
        return Key("one", OPENSTACK, "Server", id_)

    there = await say("there", "create")
    await say("gone", "create")
    await clock.advance(1)
    gone = await say("gone", "delete")
    never = Key("one", OPENSTACK, "Server", "never")
    assert await absent(gone, store, KINDS, None)
    # What the log has as present is there, whatever the API says now: its news comes.
    assert not await absent(there, store, KINDS, cloud)
    assert await absent(never, store, KINDS, cloud)
    assert not await absent(never, store, KINDS, None)
    cloud.why = CloudUnavailable("away")
    assert not await absent(never, store, KINDS, cloud)


class Mirror:
    def __init__(self) -> None:
        self.compared = 0
        self.trouble: Exception | None = None

    async def compare(self) -> Compared:
        self.compared += 1
        if self.trouble is not None:
            raise self.trouble
        return Compared(objects=3, created=1)


class Place:
    def __init__(self, *, settled: bool = True) -> None:
        self.clock = FakeClock()
        self.store = MemoryStore(self.clock)
        self.mirror = Mirror()
        self.settled = settled
        self.telemetry = Telemetry()
        mirror: Any = self.mirror
        self.mirroring = Mirroring(
            "racks", mirror, self.store, self.clock, self.telemetry, source="one", every=150.0, settled=lambda: self.settled
        )

    async def after(self, seconds: float) -> int:
        """How often it was compared by then."""
        await self.clock.advance(seconds)
        for _ in range(20):
            await asyncio.sleep(0)
        return self.mirror.compared


async def test_compared_at_the_start_and_on_the_timer() -> None:
    here = Place()
    task = asyncio.create_task(here.mirroring.run())
    try:
        assert await here.after(0) == 1
        assert await here.after(149) == 1
        assert await here.after(2) == 2
        assert await here.after(151) == 3
    finally:
        task.cancel()


async def test_the_first_comparison_waits_for_the_inventory_but_not_for_ever() -> None:
    here = Place(settled=False)
    task = asyncio.create_task(here.mirroring.run())
    try:
        for _ in range(10):
            assert await here.after(1) == 0
        here.settled = True
        assert await here.after(1) == 1
    finally:
        task.cancel()
    here = Place(settled=False)
    task = asyncio.create_task(here.mirroring.run())
    try:
        for _ in range(300):
            await here.after(0.25)
        assert here.mirror.compared == 1
    finally:
        task.cancel()


async def test_a_gap_of_its_source_is_a_reason() -> None:
    here = Place()
    task = asyncio.create_task(here.mirroring.run())
    try:
        assert await here.after(1) == 1
        for source, count in (("another", 1), ("one", 2)):
            notice = Notice(id=source, source=source, event_type=GAP, sent_at=here.clock.now_us(), payload=b"{}")  # type: ignore[arg-type]
            await here.store.append([NewEntry(notice)])
            assert await here.after(1) == count
    finally:
        task.cancel()


async def test_what_can_not_be_compared_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    here = Place()
    here.mirror.trouble = TargetUnavailable("the front end is away")
    task = asyncio.create_task(here.mirroring.run())
    try:
        for _ in range(120):
            await here.after(1)
        assert 4 <= here.mirror.compared <= 20
        here.mirror.trouble = None
        before = here.mirror.compared
        assert await here.after(61) == before + 1
    finally:
        task.cancel()
    said = [one.message.partition(":")[0] for one in caplog.records if one.name == "vedette.engine.mirroring"]
    assert said == ["a mirror can't be compared, and is tried again", "a mirror can be compared again", "a mirror was compared"]
    assert 'vedette_mirror_comparisons_total{mirror="racks",outcome="done"} 1.0' in here.telemetry.render().decode()
