"""Handlers are called for what matches, in order per object, at least once, and every delivery ends as done, retried or dead."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import msgspec
import pytest
from dispatching import PORTS, Place, Told, on, rule

from vedette.engine import conditions, windows
from vedette.engine.cause import request_id
from vedette.engine.line import Window
from vedette.errors import GiveUp, TargetUnavailable, TryLater
from vedette.model.delivery import LIVE, Cursor, PutCursor
from vedette.ports import Context, Event
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock


async def test_a_change_calls_the_handler_with_the_object_and_what_was_before() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS)):
        first = await place.say("a", 1)
        second = await place.say("a", 2)
        await place.rest()
    assert [event.verb for event in told.events] == ["ADDED", "MODIFIED"]
    added, modified = told.events
    assert (added.revision, added.idempotency_key, added.attempt) == (first, f"h/{first}", 1)
    assert added.old == {}
    assert (modified.old["status"]["n"], modified.object["status"]["n"]) == (1, 2)
    assert modified.key is not None
    assert (modified.key.kind, modified.key.id, modified.notice.event_type) == ("Port", "a", "port.update.end")
    assert await place.outcomes() == ["done", "done"]
    assert (await place.store.cursors())[LIVE].position >= second


async def test_a_notice_calls_the_handler_that_asks_for_types() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=on(types=("port.*.end",)))):
        await place.say("a", 1)
        await place.say("a", 1, event_type="port.update.start")
        await place.rest()
    assert [(event.verb, event.type, event.payload) for event in told.events] == [("", "port.update.end", {"n": 1})]


async def test_an_entry_that_changes_several_objects_is_several_deliveries_with_keys_of_their_own() -> None:
    from vedette.model.entry import NewEntry
    from vedette.model.notice import Notice
    from vedette.model.reading import Reading

    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS)):
        readings = tuple(Reading(kind="Port", id=id_, verb="create", as_of=1, fields={}) for id_ in "abc")
        notice = Notice(id="bulk", source="one", event_type="port.create.end", sent_at=1, payload=msgspec.Raw(b"{}"))
        (revision,) = await place.store.append([NewEntry(notice, readings)])
        await place.rest()
    assert [(event.key and event.key.id, event.idempotency_key) for event in told.events] == [
        ("a", f"h/{revision}"),
        ("b", f"h/{revision}/1"),
        ("c", f"h/{revision}/2"),
    ]


@pytest.mark.parametrize(
    ("conditions", "called"),
    [
        ({"kinds": ("port",)}, True),
        ({"kinds": ("ports.openstack.vedette.dev",)}, True),
        ({"kinds": ("server",)}, False),
        ({"verbs": ("ADDED",)}, True),
        ({"verbs": ("DELETED",)}, False),
        ({"sources": ("one",), "kinds": ("port",)}, True),
        ({"sources": ("two",), "kinds": ("port",)}, False),
        ({"projects": ("p1",), "kinds": ("port",)}, True),
        ({"projects": ("p2",), "kinds": ("port",)}, False),
        ({"types": ("port.*",), "kinds": ("port",)}, True),
        ({"types": ("server.*",), "kinds": ("port",)}, False),
        ({"kinds": ("port",), "when": "object.status.n == 7"}, True),
        ({"kinds": ("port",), "when": "object.status.n == 8"}, False),
        ({"types": ("port.*",), "when": "event.payload.n == 7"}, True),
        ({"types": ("port.*",), "projects": ("p1",)}, True),
        ({"types": ("port.*",), "projects": ("p2",)}, False),
    ],
)
async def test_everything_that_is_asked_for_has_to_hold(conditions: dict[str, object], called: bool) -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=on(**conditions))):  # type: ignore[arg-type]
        await place.say("a", 7, event_type="port.create.end")
        await place.rest()
    assert bool(told.events) == called


async def test_an_object_has_one_call_at_a_time_and_others_do_not_wait_for_it() -> None:
    place = Place()
    gate = asyncio.Event()

    async def does(event: Event, context: Context) -> None:
        if event.key is not None and event.key.id == "slow":
            await gate.wait()

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS)):
        await place.say_all([("slow", 1), ("slow", 2), ("a", 1), ("slow", 3), ("a", 2)])
        await place.rest()
        assert told.seen == [("slow", 1), ("a", 1), ("a", 2)]
        gate.set()
        await place.rest()
        assert told.seen[3:] == [("slow", 2), ("slow", 3)]


async def test_no_more_calls_than_concurrency_at_a_time() -> None:
    place, gate = Place(), asyncio.Event()

    async def does(event: Event, context: Context) -> None:
        await gate.wait()

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS, concurrency=3)):
        await place.say_all([(f"p{n}", n) for n in range(10)])
        await place.rest()
        assert len(told.events) == 3
        gate.set()
        await place.rest()
        assert len(told.events) == 10


async def test_a_failed_call_is_made_again_and_what_follows_of_the_object_waits() -> None:
    place = Place()
    fails = [2]

    async def does(event: Event, context: Context) -> str:
        if event.key is not None and event.key.id == "a" and fails[0]:
            fails[0] -= 1
            raise RuntimeError("not today")
        return "fine"

    told = Told(does)
    async with place.running(rule(told, on=PORTS)):
        await place.say_all([("a", 1), ("a", 2), ("b", 1)])
        await place.rest()
        assert told.seen == [("a", 1), ("b", 1)]
        (waiting, _, _) = await place.deliveries(handler="h")
        assert (waiting.outcome, waiting.attempt, waiting.detail) == ("pending", 1, "not today")
        assert waiting.event, "it keeps its own copy"
        await place.rest(60)
    assert told.seen == [("a", 1), ("b", 1), ("a", 1), ("a", 1), ("a", 2)]
    assert [event.attempt for event in told.events if event.object["status"]["n"] == 1] == [1, 1, 2, 3]
    assert {(one.outcome, one.detail) for one in await place.deliveries()} == {("done", "fine")}
    assert not any(one.event for one in await place.deliveries()), "the copies are gone"


async def test_retries_go_on_after_a_restart_by_the_schedule_in_the_store() -> None:
    place = Place()

    async def fails(event: Event, context: Context) -> str:
        raise RuntimeError("down")

    async with place.running(rule(Told(fails), on=PORTS, first=100.0)):
        await place.say_all([("a", 1), ("a", 2)])
        await place.rest()
    (failed, _) = await place.deliveries()
    told = Told()
    async with place.running(rule(told, on=PORTS)):
        await place.rest()
        assert told.seen == [], "its time has not come"
        await place.rest((failed.next_at - place.clock.now_us()) / 1e6 + 1)
    assert told.seen == [("a", 1), ("a", 2)]
    assert told.events[0].attempt == 2


async def test_what_gives_up_is_a_dead_letter_at_once_and_nothing_behind_it_was_delayed() -> None:
    place = Place()

    async def does(event: Event, context: Context) -> None:
        if event.object["status"]["n"] == "poison":
            raise GiveUp("this can't be right")

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS)):
        await place.say_all([("a", "poison"), ("a", 2), ("b", 1)])
        await place.rest()
        assert sorted(map(str, told.seen)) == sorted(map(str, [("a", "poison"), ("b", 1), ("a", 2)]))
        dead = (await place.deliveries(outcomes=("dead",)))[0]
        assert (dead.attempt, dead.detail) == (1, "this can't be right")
        letter = await place.object("DeadLetter", f"h.{dead.revision}")
        assert letter is not None
        assert (letter["error"], letter["attempts"], letter["eventType"]) == ("this can't be right", 1, "port.update.end")
        assert letter["subject"] == {"source": "one", "group": "openstack.vedette.dev", "kind": "Port", "id": "a"}
        await place.rest(2)
        handler = await place.object("Handler", "h")
        assert handler is not None
        assert (handler["state"], handler["deadLetters"]) == ("ready", 1)


async def test_attempts_come_to_an_end() -> None:
    place = Place()

    async def fails(event: Event, context: Context) -> str:
        raise RuntimeError("never")

    told = Told(fails)
    async with place.running(rule(told, on=PORTS, attempts=3)):
        await place.say("a", 1)
        await place.rest(100)
    assert [event.attempt for event in told.events] == [1, 2, 3]
    assert await place.outcomes() == ["dead"]


async def test_the_deadline_ends_them_too() -> None:
    place = Place()

    async def fails(event: Event, context: Context) -> str:
        raise RuntimeError("never")

    told = Told(fails)
    async with place.running(rule(told, on=PORTS, attempts=1000, deadline=60.0, most=10.0)):
        await place.say("a", 1)
        for _ in range(20):
            await place.rest(5)
    assert 5 < len(told.events) < 30
    assert await place.outcomes() == ["dead"]


async def test_the_delay_that_a_target_asks_for_is_kept_to() -> None:
    place = Place()
    times: list[int] = []

    async def does(event: Event, context: Context) -> None:
        times.append(place.clock.now_us())
        if len(times) == 1:
            raise TryLater("429", delay=120.0)

    async with place.running(rule(Told(does), on=PORTS)):  # type: ignore[arg-type]
        await place.say("a", 1)
        await place.rest(119)
        assert len(times) == 1
        await place.rest(3)
        assert len(times) == 2


async def test_nobody_there_opens_the_circuit_and_spends_no_attempt() -> None:
    place = Place()
    down = [True]

    async def does(event: Event, context: Context) -> None:
        if down[0]:
            raise TargetUnavailable("connection refused")

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS, attempts=2, concurrency=1)):
        await place.say_all([(f"p{n}", n) for n in range(20)])
        await place.rest(3600)
        tries = len(told.events)
        assert tries < 130, "one at a time, with backoff"
        assert {one.attempt for one in await place.deliveries(handler="h")} == {0}
        handler = await place.object("Handler", "h")
        assert handler is not None
        assert (handler["state"], handler["detail"]) == ("waiting", "connection refused")
        down[0] = False
        await place.rest(120)
    assert await place.outcomes() == ["done"] * 20
    assert len(told.events) == tries + 20


async def test_five_objects_in_a_row_open_it_and_ten_minutes_of_500_lose_nothing_and_keep_the_order() -> None:
    place = Place()
    down = [True]
    arrived: list[tuple[str, int]] = []

    async def does(event: Event, context: Context) -> None:
        if down[0]:
            raise TryLater("500 Internal Server Error")
        assert event.key is not None
        arrived.append((event.key.id, event.object["status"]["n"]))

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS, attempts=5)):
        for n in range(4):
            await place.say_all([(f"p{i}", n) for i in range(25)])
        await place.rest(600)
        assert len(told.events) < 200
        down[0] = False
        await place.rest(600)
    assert await place.outcomes() == ["done"] * 100
    for i in range(25):
        assert [n for id_, n in arrived if id_ == f"p{i}"] == [0, 1, 2, 3]


async def test_one_object_alone_survives_ten_minutes_of_500_too() -> None:
    place = Place()
    down = [True]

    async def does(event: Event, context: Context) -> None:
        if down[0]:
            raise TryLater("500 Internal Server Error")

    told = Told(does)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS)):
        await place.say("a", 1)
        await place.rest(600)
        down[0] = False
        await place.rest(600)
    assert await place.outcomes() == ["done"]


async def test_a_failing_handler_harms_no_other() -> None:
    place = Place()

    async def fails(event: Event, context: Context) -> str:
        raise RuntimeError("never")

    async def hangs(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    good = Told()
    async with place.running(
        rule(Told(fails), "bad", on=PORTS),
        rule(Told(hangs), "hung", on=PORTS, max_pending=5),  # type: ignore[arg-type]
        rule(good, "good", on=PORTS),
    ):
        await place.say_all([(f"p{n % 7}", n) for n in range(50)])
        await place.rest()
    assert len(good.events) == 50


async def test_a_call_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    place = Place()

    async def hangs(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    async with place.running(rule(Told(hangs), on=PORTS, attempts=1, timeout=0.01)):  # type: ignore[arg-type]
        await place.say("a", 1)
        async with asyncio.timeout(10):
            while await place.outcomes() != ["dead"]:
                await asyncio.sleep(0.005)
    assert (await place.deliveries())[0].detail == "it took longer than 0.01 s (timeout)"


async def test_a_handler_that_cancels_itself_has_failed() -> None:
    place = Place()

    async def odd(event: Event, context: Context) -> None:
        raise asyncio.CancelledError

    async with place.running(rule(Told(odd), on=PORTS, attempts=1)):  # type: ignore[arg-type]
        await place.say("a", 1)
        await place.rest()
        assert await place.outcomes() == ["dead"]


async def test_above_max_pending_deliveries_wait_in_the_log_and_come_all() -> None:
    place, gate = Place(), asyncio.Event()

    async def waits(event: Event, context: Context) -> None:
        await gate.wait()

    told = Told(waits)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS, max_pending=10), rule(Told(), "other", on=PORTS)):
        for n in range(10):
            await place.say_all([(f"p{i}", n) for i in range(10)])
        await place.rest(2)
        assert len(await place.deliveries(handler="h")) < 70
        handler = await place.object("Handler", "h")
        assert handler is not None
        assert handler["state"] == "behind"
        assert await place.outcomes("other") == ["done"] * 100
        cursor = (await place.store.cursors())["h"]
        assert not cursor.live
        gate.set()
        await place.rest(2)
        assert (await place.store.cursors())["h"].live
    assert await place.outcomes() == ["done"] * 100
    for i in range(10):
        assert [n for id_, n in told.seen if id_ == f"p{i}"] == list(range(10))


async def test_where_a_new_handler_begins() -> None:
    place = Place()
    revisions = [await place.say("a", n) for n in range(4)]
    now, earliest, there = Told(), Told(), Told()
    async with place.running(
        rule(now, "now", on=PORTS),
        rule(earliest, "earliest", on=PORTS, start="earliest"),
        rule(there, "there", on=PORTS, start=str(revisions[1])),
    ):
        await place.say("a", 4)
        await place.rest()
    assert [n for _, n in now.seen] == [4]
    assert [n for _, n in earliest.seen] == [0, 1, 2, 3, 4]
    assert [n for _, n in there.seen] == [2, 3, 4]


async def test_a_handler_goes_on_where_it_was_whatever_start_says() -> None:
    place = Place()
    async with place.running(rule(Told(), on=PORTS)):
        await place.say("a", 1)
        await place.rest()
    await place.say_all([("a", 2), ("a", 3)])
    told = Told()
    async with place.running(rule(told, on=PORTS, start="now")):
        await place.rest()
    assert [n for _, n in told.seen] == [2, 3]


async def test_a_handler_that_left_the_configuration_keeps_its_place_until_it_is_forgotten() -> None:
    place = Place()
    async with place.running(rule(Told(), on=PORTS), rule(Told(), "other", on=PORTS)):
        await place.say("a", 1)
        await place.rest()
    async with place.running(rule(Told(), "other", on=PORTS)):
        await place.say("a", 2)
        await place.rest()
        handler = await place.object("Handler", "h")
        assert handler is not None
        assert handler["state"] == "unconfigured"
    told = Told()
    async with place.running(rule(told, on=PORTS), rule(Told(), "other", on=PORTS)):
        await place.rest()
        assert [n for _, n in told.seen] == [2], "it went on where it was"
    async with place.running(rule(Told(), "other", on=PORTS)) as dispatch:
        await dispatch.forget("h")
        assert set(await place.store.cursors()) == {LIVE, "other"}
        assert await place.deliveries(handler="h") == []
        assert await place.object("Handler", "h") is None


async def test_what_the_log_lost_by_size_is_a_dead_letter_that_names_it() -> None:
    place = Place()
    async with place.running(rule(Told(), on=PORTS)):
        await place.say("a", 0)
        await place.rest()
    first = (await place.store.cursors())[LIVE].position + 1
    await place.say_all([("a", n) for n in range(1, 9)])
    await place.store.retain(horizon=0, max_bytes=1, most=8)
    lost = place.store.oldest
    told = Told()
    async with place.running(rule(told, on=PORTS)) as dispatch:
        await place.rest()
        (dead,) = await place.deliveries(outcomes=("dead",))
        assert f"revisions {first} to {lost} left the log" in dead.detail
        assert await place.object("DeadLetter", f"h.{first}") is not None
        assert await dispatch.redrive([dead]) == 0, "there is nothing to deliver"
        assert await dispatch.discard([dead], who="me") == 1
        await place.say("a", 99)
        await place.rest()
    assert told.seen[-1] == ("a", 99)


async def test_age_does_not_take_what_waits() -> None:
    place, gate = Place(), asyncio.Event()

    async def waits(event: Event, context: Context) -> None:
        await gate.wait()

    told = Told(waits)  # type: ignore[arg-type]
    async with place.running(rule(told, on=PORTS, max_pending=2, concurrency=1)):
        await place.say_all([(f"p{n}", n) for n in range(6)])
        await place.rest()
        await place.store.retain(horizon=place.clock.now_us() + 10**9)
        gate.set()
        await place.rest(2)
    assert sorted(n for _, n in told.seen) == list(range(6))
    assert await place.deliveries(outcomes=("dead",)) == []


# --- rate, coalescing ----------------------------------------------------------------------------------------------------


async def test_no_more_calls_a_second_than_the_rate() -> None:
    place = Place()
    times: list[float] = []

    async def does(event: Event, context: Context) -> None:
        times.append(place.clock.monotonic())

    async with place.running(rule(Told(does), on=PORTS, rate=2.0)):  # type: ignore[arg-type]
        await place.say_all([(f"p{n}", n) for n in range(21)])
        await place.rest(30)
    assert len(times) == 21
    assert times[-1] - times[0] == pytest.approx(10.0, abs=0.05)


async def test_a_storm_of_one_object_is_one_call_with_the_last() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS, coalesce=2.0)):
        await place.say_all([("a", n) for n in range(50)] + [("b", 1)])
        await place.rest(1)
        assert told.seen == []
        await place.say("a", 50)
        await place.rest(1.5)
        assert sorted(told.seen) == [("a", 50), ("b", 1)]
        await place.say("a", 51)
        await place.rest(3)
    assert ("a", 51) in told.seen
    counts = Counter(await place.outcomes())
    assert counts == {"coalesced": 50, "done": 3}
    coalesced = (await place.deliveries(outcomes=("coalesced",)))[0]
    assert coalesced.detail.startswith("coalesced: ")


# --- memory --------------------------------------------------------------------------------------------------------------


async def test_what_a_handler_remembers_is_kept_with_the_outcome_and_after_a_restart() -> None:
    place = Place()
    seen: list[object] = []

    async def does(event: Event, context: Context) -> None:
        seen.append(await context.recall("last"))
        context.remember("last", {"n": event.object["status"]["n"]})
        if event.object["status"]["n"] == 2 and event.attempt == 1:
            raise RuntimeError("what is remembered by a failed call does not count")

    async with place.running(rule(Told(does), on=PORTS)):  # type: ignore[arg-type]
        await place.say("a", 1)
        await place.rest()
        await place.say("a", 2)
        await place.rest(10)
    async with place.running(rule(Told(does), on=PORTS)):  # type: ignore[arg-type]
        await place.say("a", 3)
        await place.rest()
    assert seen == [None, {"n": 1}, {"n": 1}, {"n": 2}]


async def test_what_is_remembered_has_a_limit() -> None:
    place = Place()

    async def does(event: Event, context: Context) -> None:
        context.remember("big", "x" * 70_000)

    async with place.running(rule(Told(does), on=PORTS, attempts=1)):  # type: ignore[arg-type]
        await place.say("a", 1)
        await place.rest()
    assert "more than 65536 bytes" in (await place.deliveries())[0].detail


# --- loops ---------------------------------------------------------------------------------------------------------------


async def test_what_a_handlers_own_call_caused_is_not_handled_by_it_again() -> None:
    place, told, other, asking = Place(), Told(), Told(), Told()
    async with place.running(
        rule(told, on=PORTS),
        rule(other, "other", on=PORTS),
        rule(asking, "asking", on=PORTS, own_events=True),
    ):
        await place.say("a", 1)
        await place.rest()
        own = told.events[0].request_id
        assert own == request_id("h", told.events[0].revision, 0, 1)
        await place.say("a", 2, global_request_id=own)
        await place.say("a", 3, global_request_id=asking.events[0].request_id)
        await place.rest()
    assert [n for _, n in told.seen] == [1, 3]
    assert [n for _, n in other.seen] == [1, 2, 3]
    assert [n for _, n in asking.seen] == [1, 2, 3]
    (suppressed,) = await place.deliveries(outcomes=("suppressed",))
    assert (suppressed.handler, suppressed.detail) == ("h", "suppressed: this handler's own call caused it")


async def test_what_the_handlers_user_does_is_its_own() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS, users=frozenset({"u1"}))):
        await place.say("a", 1, actor_user="u1")
        await place.say("a", 2, actor_user="u2")
        await place.rest()
    assert [n for _, n in told.seen] == [2]


async def test_a_chain_of_reactions_to_reactions_is_cut() -> None:
    place = Place()
    count = [0]

    async def reacts(event: Event, context: Context) -> None:
        count[0] += 1
        await place.say("a", 100 + count[0], global_request_id=event.request_id)

    names = ("ping", "pong")
    rules = [rule(Told(reacts), name, on=PORTS, max_depth=4) for name in names]  # type: ignore[arg-type]
    async with place.running(*rules):
        await place.say("a", 1)
        await place.rest(1)
    assert 0 < count[0] <= 2 * 4
    assert any("in a chain of reactions" in one.detail for one in await place.deliveries(outcomes=("suppressed",)))


async def test_what_vedette_says_of_itself_has_to_be_asked_for() -> None:
    place = Place()

    async def gives_up(event: Event, context: Context) -> None:
        raise GiveUp("no")

    everything, ours = Told(), Told()
    async with place.running(
        rule(Told(gives_up), "bad", on=PORTS),  # type: ignore[arg-type]
        rule(everything, "everything"),
        rule(ours, "ours", on=on(kinds=("deadletter",))),
    ):
        await place.say("a", 1)
        await place.rest(3)
    assert [event.notice.source for event in everything.events] == ["one"]
    assert [(event.verb, event.object["status"]["handler"]) for event in ours.events] == [("ADDED", "bad")]


# --- a person ------------------------------------------------------------------------------------------------------------


async def test_a_poison_event_is_redriven_after_the_fix() -> None:
    place = Place()
    fixed = [False]

    async def does(event: Event, context: Context) -> str:
        if event.object["status"]["n"] == "poison" and not fixed[0]:
            raise GiveUp("no")
        return "fine"

    told = Told(does)
    async with place.running(rule(told, on=PORTS)) as dispatch:
        await place.say_all([("a", "poison"), ("b", "poison"), ("c", 1)])
        await place.rest(2)
        dead = await dispatch.dead_letters(handler="h")
        assert len(dead) == 2
        fixed[0] = True
        assert await dispatch.redrive(await dispatch.dead_letters(ids=[f"h.{dead[0].revision}"]), who="me") == 1
        await place.rest(2)
        assert sorted(await place.outcomes()) == ["dead", "done", "done"]
        assert await place.object("DeadLetter", f"h.{dead[0].revision}") is None
        assert told.events[-1].replay
        assert told.events[-1].idempotency_key == f"h/{dead[0].revision}"
        assert await dispatch.discard(await dispatch.dead_letters(contains="no"), who="me") == 1
        await place.rest(2)
        assert sorted(await place.outcomes()) == ["discarded", "done", "done"]
        handler = await place.object("Handler", "h")
        assert handler is not None
        assert handler["deadLetters"] == 0


@pytest.mark.parametrize("seconds", [0, -3600])
async def test_a_letter_that_dies_again_is_one_again_whatever_the_clock_says(seconds: float) -> None:
    """Within the same microsecond, or after the clock was set back: the order of the log decides what is newer."""
    place = Place()

    async def does(event: Event, context: Context) -> str:
        raise GiveUp("no")

    seen = Told()
    async with place.running(rule(Told(does), on=PORTS), rule(seen, "seen", on=on(kinds=("deadletter",)))) as dispatch:
        await place.say("a", 1)
        await place.rest(2)
        dead = await dispatch.dead_letters(handler="h")
        place.clock.tick(seconds)
        assert await dispatch.redrive(dead, who="me") == 1
        await place.rest()
        assert [event.verb for event in seen.events] == ["ADDED", "DELETED", "ADDED"]
        assert await place.object("DeadLetter", f"h.{dead[0].revision}") is not None


async def test_redriving_many_keeps_to_a_rate_also_after_a_restart() -> None:
    place = Place()
    times: list[float] = []
    fixed = [False]

    async def does(event: Event, context: Context) -> None:
        if not fixed[0]:
            raise GiveUp("no")
        times.append(place.clock.monotonic())

    async with place.running(rule(Told(does), on=PORTS)) as dispatch:  # type: ignore[arg-type]
        await place.say_all([(f"p{n}", n) for n in range(10)])
        await place.rest(2)
        fixed[0] = True
        assert await dispatch.redrive(await dispatch.dead_letters(), rate=1.0) == 10
        await place.rest(4)
        assert 3 <= len(times) <= 6
    async with place.running(rule(Told(does), on=PORTS)):  # type: ignore[arg-type]
        await place.rest(10)
    assert len(times) == 10
    assert times[-1] - times[0] == pytest.approx(9.0, abs=0.1)


async def test_a_replay_delivers_what_matches_again_and_a_dry_run_only_says_so() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS)) as dispatch:
        revisions = await place.say_all([("a", 1), ("b", 1), ("a", 2)])
        await place.say("s", 1, event_type="other", project="p9")
        await place.rest()
        before = len(told.events)
        dry = [one async for one in dispatch.replay("h", revisions[0] - 1, revisions[1], dry_run=True)]
        assert [(one.entry.revision, subject.rsplit("/", 1)[1]) for one, _, subject in dry] == [
            (revisions[0], "a"),
            (revisions[1], "b"),
        ]
        await place.rest()
        assert len(told.events) == before
        assert len([one async for one in dispatch.replay("h", revisions[0] - 1, revisions[1], dry_run=False)]) == 2
        await place.rest()
    again = told.events[before:]
    assert [(event.revision, event.replay) for event in again] == [(revisions[0], True), (revisions[1], True)]
    assert set(await place.outcomes()) == {"done"}


async def test_explain_says_for_each_handler_why_and_what_became_of_it() -> None:
    place = Place()

    async def gives_up(event: Event, context: Context) -> None:
        raise GiveUp("no such rack")

    async with place.running(
        rule(Told(), "fine", on=PORTS),
        rule(Told(), "picky", on=on("object.status.n == 7 && event.source == 'two'", kinds=("port",))),
        rule(Told(), "servers", on=on(kinds=("server",))),
        rule(Told(gives_up), "bad", on=PORTS),  # type: ignore[arg-type]
    ) as dispatch:
        revision = await place.say("a", 7)
        await place.rest()
        told = {one["handler"]: one for one in (await dispatch.explain(revision))["handlers"]}
    assert (told["fine"]["matched"], told["fine"]["deliveries"][0]["outcome"]) == (True, "done")
    (about,) = told["picky"]["about"]
    assert list(about["on"][0]["whyNot"]) == ["not so: event.source == 'two'"]
    assert [part["verdict"] for part in about["on"][0]["parts"]] == [True, False]
    assert told["picky"]["deliveries"] == []
    assert "the kind is Port" in str(told["servers"]["about"][0]["on"][0]["whyNot"])
    assert (told["bad"]["deliveries"][0]["outcome"], told["bad"]["deliveries"][0]["detail"]) == ("dead", "no such rack")


# --- the store -----------------------------------------------------------------------------------------------------------


async def test_a_shared_cursor_that_nobody_followed_is_not_taken_up_again() -> None:
    place = Place()
    await place.store.append([], work=[PutCursor(LIVE, Cursor(place.store.oldest))])
    await place.say_all([("a", n) for n in range(5)])
    told = Told()
    async with place.running(rule(told, on=PORTS)):
        await place.rest()
    assert told.seen == []


async def test_stopping_lets_calls_end_and_keeps_their_outcome() -> None:
    place, began, gate = Place(), asyncio.Event(), asyncio.Event()

    async def does(event: Event, context: Context) -> str:
        began.set()
        await gate.wait()
        return "done while stopping"

    async with place.running(rule(Told(does), on=PORTS, concurrency=1)) as dispatch:
        await place.say_all([("a", 1), ("b", 1)])
        await began.wait()
        draining = asyncio.create_task(dispatch.drain(10.0))
        await place.rest()
        gate.set()
        await draining
    assert [(one.outcome, one.detail) for one in await place.deliveries()] == [("done", "done while stopping"), ("pending", "")]


# --- windows -------------------------------------------------------------------------------------------------------------


def window(kind: str, seconds: float, *conditions_: str, by: str = "object.metadata.name", **more: int) -> Window:
    return Window(
        rule=windows.Rule(kind=kind, span=int(seconds * 1e6), conditions=len(conditions_), lateness=1_000_000, **more),  # type: ignore[arg-type]
        group_by=(conditions.expression(by),),
        conditions=tuple(conditions.compile(text) for text in conditions_),
    )


async def test_a_window_lets_the_first_call_and_says_why_the_others_did_not() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS, window=window("once_within", 60))):
        await place.say_all([("a", 1), ("a", 2), ("b", 1)])
        await place.rest(61)
        await place.say("a", 3)
        await place.rest()
    assert told.seen == [("a", 1), ("b", 1), ("a", 3)]
    (suppressed,) = await place.deliveries(outcomes=("suppressed",))
    assert suppressed.detail.startswith("suppressed by once_within until ")


async def test_a_window_goes_on_after_a_restart_and_its_timer_fires_when_nothing_comes() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS, window=window("once_after", 60))):
        await place.say_all([("a", 1), ("a", 2)])
        await place.rest(10)
        assert told.seen == []
    async with place.running(rule(told, on=PORTS, window=window("once_after", 60))):
        await place.rest(40)
        assert told.seen == []
        await place.say("a", 3)
        await place.rest(30)
    assert told.seen == [("a", 3)]
    outcomes = Counter(await place.outcomes())
    assert outcomes == {"suppressed": 2, "done": 1}


async def test_a_threshold_within_a_time_calls_once() -> None:
    place, told = Place(), Told()
    async with place.running(rule(told, on=PORTS, window=window("accumulate_within", 60, threshold=3))):
        await place.say_all([("a", n) for n in range(4)] + [("b", 1), ("b", 2)])
        await place.rest(2)
    assert told.seen[0] == ("a", 2)
    assert len([1 for id_, _ in told.seen if id_ == "b"]) == 0


class Counted(MemoryStore):
    """Counts what is written of handlers."""

    writes = 0

    async def append(self, entries: Any, expect: Any = None, work: Any = ()) -> Any:
        self.writes += bool(work)
        return await super().append(entries, expect, work)


async def test_what_nobody_wants_costs_a_write_a_second_and_without_handlers_none() -> None:
    clock = FakeClock()
    store = Counted(clock)
    place, told = Place(store, clock), Told()
    async with place.running(rule(told, on=on(kinds=("server",)))):
        await place.rest()
        before = store.writes
        for n in range(50):
            await place.say("a", n)
            await place.rest()
        assert store.writes == before
        await place.rest(1.1)
        assert store.writes == before + 1
        assert (await store.cursors())[LIVE].position >= store.head - 2
    async with place.running():
        before = store.writes
        await place.say("a", 99)
        await place.rest(5)
        assert store.writes == before
