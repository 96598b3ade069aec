"""How an action waits and says how far it is."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from applying import Rig, move, note

from vedette.engine.hands import News, Saying, Waiting
from vedette.errors import CloudUnavailable, GiveUp
from vedette.kit.tasks import cancel
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock


class Asked:
    """Answers yes from a moment on, and notes when it was asked."""

    def __init__(self, clock: FakeClock, at: float = 1e9, unwell: tuple[float, float] = (0, 0)) -> None:
        self.clock = clock
        self.at = at
        self.unwell = unwell
        self.times: list[float] = []

    async def __call__(self) -> bool:
        now = self.clock.monotonic()
        self.times.append(now)
        if self.unwell[0] <= now < self.unwell[1]:
            raise CloudUnavailable("nova: 503")
        return now >= self.at


def news_of(id_: str, number: int) -> NewEntry:
    told = Reading(kind="Server", id=id_, verb="create", as_of=number, project="p", fields={"n": number})
    return NewEntry(
        Notice(id=f"n{number}", source="one", event_type="x", sent_at=1, payload=msgspec.Raw(b"{}")),
        (told,),
    )


async def waits(asked: Asked, seconds: float, clock: FakeClock) -> tuple[asyncio.Task[None], MemoryStore, News]:
    store = MemoryStore(clock)
    news = News(store)
    task = asyncio.create_task(Waiting(clock, news, "s1")(asked, seconds, "s1 on b"))
    await clock.advance(0)
    return task, store, news


async def test_it_asks_at_once_and_then_ever_more_seldom() -> None:
    clock = FakeClock()
    asked = Asked(clock, at=30)
    task, _, _ = await waits(asked, 100, clock)
    await clock.advance(60)
    await task
    assert [round(time, 2) for time in asked.times] == [0, 1, 2.5, 4.75, 8.12, 13.19, 20.78, 30.78]


async def test_its_time_is_over_and_it_says_what_was_waited_for() -> None:
    clock = FakeClock()
    asked = Asked(clock)
    task, _, _ = await waits(asked, 12, clock)
    await clock.advance(12)
    with pytest.raises(GiveUp, match=r"^s1 on b: not so after 12 seconds$"):
        await task
    assert asked.times[-1] == 12, "it looks once more at the end"


async def test_a_cloud_that_is_unwell_meanwhile_is_asked_again() -> None:
    clock = FakeClock()
    task, _, _ = await waits(Asked(clock, at=20, unwell=(1, 20)), 100, clock)
    await clock.advance(30)
    await task
    task, _, _ = await waits(Asked(clock, at=1e9, unwell=(0, 1e9)), 5, clock)
    await clock.advance(5)
    with pytest.raises(GiveUp, match=r"not so after 5 seconds \(the last time it was asked: nova: 503\)"):
        await task


async def test_news_of_its_object_are_looked_at_and_no_storm_of_them_is_a_storm_of_questions() -> None:
    clock = FakeClock()
    asked = Asked(clock, at=22)
    task, store, news = await waits(asked, 100, clock)
    await clock.advance(21)
    await store.append([news_of("other", 1)])
    await clock.advance(0.5)
    before = len(asked.times)
    for number in range(2, 40):
        await store.append([news_of("s1", number)])
        await clock.advance(0.01)
    assert len(asked.times) == before + 1
    await clock.advance(0.5)
    await task
    assert asked.times[-1] < 23
    news.close()


async def test_what_is_said_is_written_at_most_once_a_second_and_nothing_behind_the_end() -> None:
    rig = Rig(approval=True)
    async with rig:
        await rig.plan(move("s0"), note(), approved_by="ada")
        first = rig.actions()[0].uuid
        written: list[str | None] = []
        rig.records.on_change.append(lambda before, now: written.append(getattr(now, "status_message", None)))
        saying = Saying(rig.records, rig.clock, first)
        for percent in range(50):
            saying(f"{percent} %")
            await rig.clock.advance(0.1)
        assert written[:2] == ["0 %", "9 %"]
        assert len(written) <= 6
        saying("99 %")
        await saying.close()
        saying("100 %")
        await rig.clock.advance(5)
        assert "99 %" not in written
        assert "100 %" not in written


async def test_what_is_said_of_an_action_that_is_over_is_not_written() -> None:
    async with Rig() as rig:
        await rig.plan(note())
        saying = Saying(rig.records, rig.clock, "plan/0")
        saying("still here")
        await rig.clock.advance(2)
        await saying.close()
        assert rig.actions()[0].status_message is None


async def test_a_wait_that_is_cancelled_leaves_nobody_behind() -> None:
    clock = FakeClock()
    task, store, news = await waits(Asked(clock), 100, clock)
    await cancel(task)
    assert not news._waiting
    news.close()
    await store.append([news_of("s1", 1)])
