"""What the dispatcher does when something beside it fails: the store's reads, a person who hangs up, deaf handlers."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import msgspec
import pytest
from dispatching import KINDS, PORTS, Place, Told, on, rule

from vedette.engine.dispatch import Dispatch
from vedette.errors import GiveUp, StoreUnavailable, TargetUnavailable, TryLater
from vedette.kit.telemetry import Telemetry
from vedette.model.delivery import PutDelivery
from vedette.ports import Context, Event, Store
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

MANY = 20_000


class Blind:
    """A store that can't be read now and then: `blind` times from now on."""

    def __init__(self, clock: FakeClock) -> None:
        self._store = MemoryStore(clock)
        self.blind = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def entries(self, after: int, **more: Any) -> Any:
        if self.blind:
            self.blind -= 1
            raise StoreUnavailable("the disk is slow", delay=2.0)
        return await self._store.entries(after, **more)


async def test_a_store_that_can_not_be_read_stops_no_handler_and_costs_no_attempt() -> None:
    clock = FakeClock()
    store = Blind(clock)
    place, told = Place(cast(Store, store), clock), Told()
    await place.say_all([("a", 1), ("b", 1)])
    store.blind = 3
    async with place.running(rule(told, on=PORTS, start="earliest")):
        await place.rest(1)
        assert told.events == []
        await place.say("a", 2)
        await place.rest(10)
    assert told.seen == [("a", 1), ("b", 1), ("a", 2)]
    assert {one.attempt for one in await place.deliveries()} == {1}


async def test_a_copy_of_an_event_that_no_version_understands_is_a_dead_letter() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS)):
        await place.say("a", 1)
        await place.rest()
    (one,) = await place.deliveries()
    strange = msgspec.structs.replace(one, outcome="pending", attempt=1, event=b'{"handler": "h"}')
    await place.store.append((), work=[PutDelivery(strange)])
    async with place.running(rule(told, on=PORTS)):
        await place.say("b", 1)
        await place.rest()
    dead, done = await place.deliveries()
    assert (dead.outcome, done.outcome) == ("dead", "done")
    assert "can't be read" in dead.detail


async def test_who_hangs_up_while_redriving_has_redriven_all_the_same() -> None:
    place = Place()
    bad = [True]

    async def does(event: Event, context: Context) -> None:
        if bad[0]:
            raise GiveUp("no")

    async with place.running(rule(Told(does), on=PORTS)) as dispatch:  # type: ignore[arg-type]
        await place.say("a", 1)
        await place.rest()
        bad[0] = False
        asking = asyncio.create_task(dispatch.redrive(await dispatch.dead_letters()))
        while not dispatch._outbox:
            await asyncio.sleep(0)
        asking.cancel()
        await place.rest(2)
        assert asking.cancelled()
        assert await place.outcomes() == ["done"]
        assert dispatch.status()[0]["pending"] == 0


async def test_a_letter_that_two_people_redrive_is_redriven_once() -> None:
    place = Place()
    bad = [True]

    async def does(event: Event, context: Context) -> None:
        if bad[0]:
            raise GiveUp("no")

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS)) as dispatch:
        await place.say("a", 1)
        await place.rest()
        bad[0] = False
        dead = await dispatch.dead_letters()
        assert sorted(await asyncio.gather(dispatch.redrive(dead), dispatch.redrive(dead))) == [0, 1]
        assert await dispatch.discard(dead) == 0
        await place.rest(2)
        assert len(told.events) == 2
        assert dispatch.status()[0]["deadLetters"] == 0


async def test_a_replay_settles_the_dead_letters_that_it_makes_again_and_leaves_alone_what_waits() -> None:
    place = Place()
    bad = [True]

    async def does(event: Event, context: Context) -> None:
        if bad[0]:
            raise GiveUp("no") if event.object["status"]["n"] == 1 else TryLater("later", delay=100)

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS)) as dispatch:
        start = place.store.head
        await place.say_all([("a", 1), ("b", 2)])
        await place.rest(2)
        bad[0] = False
        async for _ in dispatch.replay("h", start, place.store.head, dry_run=False):
            pass
        await place.rest(2)
        (dead, waiting) = await place.deliveries()
        assert (dead.outcome, waiting.outcome) == ("done", "pending")
        assert await place.object("DeadLetter", f"h.{dead.revision}") is None
        assert dispatch.status()[0]["deadLetters"] == 0
        await place.rest(200)
    assert [event.key.id for event in told.events if event.key is not None] == ["a", "b", "a", "b"]


async def test_what_is_asked_for_when_nothing_runs_is_to_be_asked_for_again() -> None:
    place = Place()

    async def no(event: Event, context: Context) -> str:
        raise GiveUp("no")

    async with place.running(rule(Told(no), on=PORTS)) as dispatch:
        await place.say("a", 1)
        await place.rest()
        dead = await dispatch.dead_letters()
    with pytest.raises(TryLater, match="started or stopped"):
        await dispatch.redrive(dead)
    assert await place.outcomes() == ["dead"]


async def test_a_handler_that_heeds_no_cancellation_starts_nothing_new_while_it_is_stopped() -> None:
    place = Place()

    async def deaf(event: Event, context: Context) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done all the same"

    told = Told(deaf)
    async with place.running(rule(told, on=PORTS, concurrency=1)):
        await place.say_all([(f"p{n}", n) for n in range(5)])
        await place.rest()
        assert len(told.events) == 1
    assert len(told.events) == 1
    assert set(await place.outcomes()) == {"pending"}


async def test_ten_calls_that_find_nobody_open_the_circuit_once() -> None:
    place = Place()
    there = [False]

    async def does(event: Event, context: Context) -> None:
        await asyncio.sleep(0)
        if not there[0]:
            raise TargetUnavailable("nobody")

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS, concurrency=10)):
        await place.say_all([(f"p{n}", n) for n in range(10)])
        await place.rest()
        there[0] = True
        await place.rest(1.1)  # the first wait is a second at the most, not 2 ** 10
        assert await place.outcomes() == ["done"] * 10


async def test_a_handler_that_fails_on_what_is_said_of_handlers_is_not_told_of_its_own_failures() -> None:
    place = Place()

    async def no(event: Event, context: Context) -> str:
        raise GiveUp("no")

    told = Told(no)
    async with place.running(rule(told, "watcher", on=on(kinds=("handler",))), rule(Told(), "other", on=PORTS)):
        await place.rest(20)
    assert len(told.events) == 1
    assert told.events[0].object["status"]["name"] == "other"


async def test_a_name_that_no_store_takes_is_refused_where_it_is_remembered() -> None:
    place = Place()

    async def does(event: Event, context: Context) -> None:
        context.remember("half a pair: \ud800", 1)

    async with place.running(rule(Told(does), on=PORTS, attempts=1)):  # type: ignore[arg-type]
        await place.say("a", 1)
        await place.rest()
    assert await place.outcomes() == ["dead"]


async def test_handlers_that_wait_for_nothing_leave_others_their_turn() -> None:
    place, turns = Place(), [0]
    told = Told()

    async def other() -> None:
        while True:
            turns[0] += 1
            await asyncio.sleep(0)

    async def busy(event: Event, context: Context) -> None:
        told.events.append(event)
        for _ in range(20_000):
            pass

    await place.say_all([(f"p{n}", n) for n in range(300)])
    async with place.running(rule(Told(busy), on=PORTS, start="earliest", concurrency=1)):  # type: ignore[arg-type]
        beside = asyncio.create_task(other())
        while len(told.events) < 300:
            await asyncio.sleep(0)
        beside.cancel()
        assert turns[0] > 5


async def test_twenty_thousand_deliveries_leave_nothing_behind() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    place = Place(store, clock)

    async def does(event: Event, context: Context) -> None:
        if event.revision % 97 == 0 and event.attempt == 1:
            raise RuntimeError("once")
        context.remember("n", event.revision)

    told = Told(does)  # type: ignore[arg-type]
    rules = [rule(told, on=PORTS, first=0.1), rule(Told(), "slow", on=PORTS, coalesce=0.5, max_pending=500)]
    dispatch = Dispatch(store, rules, KINDS, clock, Telemetry())
    running = asyncio.create_task(dispatch.run())
    await dispatch.ready.wait()
    for start in range(0, MANY, 500):
        await place.say_all([(f"p{n % 1_000}", n) for n in range(start, start + 500)])
        await place.rest(0.2)
        told.events.clear()
        await store.retain(horizon=clock.now_us() - 1_000_000, most=10_000)
    await place.rest(60)
    for line in dispatch._by_number:
        assert (line.pending, line.runners) == (0, 0)
        left = [line.subjects, line.ready, line.memory, line.coalescing, line.circuit.failed]
        assert [len(one) for one in left] == [0] * len(left)
    own = [dispatch._timers, dispatch._outbox, dispatch._heard, dispatch._in_hand]
    assert [len(one) for one in own] == [0] * len(own)
    assert (dispatch._heard_bytes, dispatch._held_bytes, dispatch._unwritten) == (0, 0, 0)
    assert dispatch._tasks is not None
    assert len(dispatch._tasks._tasks) == 4, "only its own tasks are left"  # type: ignore[attr-defined]
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
