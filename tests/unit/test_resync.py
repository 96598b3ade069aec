"""Resync: the inventory comes to equal the cloud, only what differs is told, and nothing is deleted that may be there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_cloud import Toys, reading

from vedette.engine.differences import by_name, differences, entry
from vedette.engine.differences import tell as tell_all
from vedette.engine.resync import GRACE_SECONDS, KindReport, Resync
from vedette.errors import CloudUnavailable, Forbidden, NoService, NotFound, StoreUnavailable, TooBusy, Unauthenticated
from vedette.kit.tasks import cancel
from vedette.model.notice import GAP, Notice


class Pass:
    """A resync that is running."""

    def __init__(self, toys: Toys, resync: Resync) -> None:
        self.toys = toys
        self.resync = resync

    async def over(self, seconds: float = 10.0) -> None:
        """Time for what is due."""
        for _ in range(20):
            await self.toys.clock.advance(seconds / 20)

    async def ask(self, **more: Any) -> KindReport:
        done = self.resync.ask("one", ["thing"], **more)
        await self.over()
        (report,) = done.result()
        return report

    @property
    def report(self) -> KindReport:
        (cloud,) = self.resync.reports()
        (report,) = cloud.kinds
        return report


@asynccontextmanager
async def resyncing(toys: Toys, *, connected: Any = lambda _source: True, **use: Any) -> AsyncIterator[Pass]:
    resync = Resync(
        toys.store,
        toys.ingest.record,
        [toys.kind],
        {"one": toys.use(**use)},
        toys.clock,
        toys.telemetry,
        connected=connected,
        rng=random.Random(1),
    )
    task = asyncio.create_task(resync.run("one"))
    try:
        yield Pass(toys, resync)
    finally:
        await cancel(task)
        resync.close()


@pytest.fixture
def toys() -> Toys:
    return Toys()


async def test_on_start_the_inventory_comes_to_equal_the_cloud_and_each_miss_is_told_once(toys: Toys) -> None:
    await toys.announce("create", "same", size=1)
    await toys.announce("create", "moved", size=1)
    await toys.announce("create", "gone")
    toys.cloud.put("same", size=1)
    toys.cloud.put("moved", size=2)
    toys.cloud.put("new", size=3)
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
        assert await toys.inventory() == toys.cloud.things
        assert sorted(toys.told()) == [
            ("thing.create.resync", "new"),
            ("thing.delete.resync", "gone"),
            ("thing.update.resync", "moved"),
        ]
        assert (one.report.created, one.report.updated, one.report.deleted, one.report.state) == (1, 1, 1, "done")
        assert toys.number("resync_missed_total", source="one", kind="thing", reason="missed-update") == 1
        assert toys.number("resync_last_complete_timestamp_seconds", source="one", kind="thing") > 1e9
        await one.ask()
        assert len(toys.told()) == 3, "told once"


async def test_what_is_told_says_why_and_what_changed_and_nothing_that_admins_see_only(toys: Toys) -> None:
    await toys.announce("create", "a", size=1, host="h1")
    toys.cloud.put("a", size=2, host="h2")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
    told = next(one.entry.notice for one in toys.entries if one.entry.notice.origin == "resync")
    said = msgspec.json.decode(told.payload)
    assert (said["reason"], said["changed"]) == ("missed-update", ["size"])
    assert said["thing"] == {"id": "a", "project_id": "p1", "status": "ACTIVE", "size": 2}
    (held,) = await toys.store.held([toys.key("a")])
    assert held is not None
    assert held.admin == {"host": "h2"}


async def test_fields_that_no_notification_carries_are_no_miss(toys: Toys) -> None:
    await toys.announce("create", "a", size=1, host="h1")
    await toys.announce("create", "b", size=1)
    await toys.announce("create", "c", size=1)
    toys.cloud.put("a", size=1, host="h2", extra="x")
    toys.cloud.put("b", size=1, host="h1", extra="x")
    toys.cloud.put("c", size=2, extra="x")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
        reasons = [
            msgspec.json.decode(one.entry.notice.payload)["reason"] for one in toys.entries if one.entry.notice.origin == "resync"
        ]
        assert reasons == ["missed-update", "completed", "missed-update"]
        assert (one.report.updated, one.report.completed, one.report.missed) == (2, 1, 2)
        assert await toys.inventory() == toys.cloud.things


async def test_a_listing_of_what_is_known_makes_no_entry(toys: Toys) -> None:
    for number in range(100):
        await toys.announce("create", f"{number:03}", size=number)
        toys.cloud.put(f"{number:03}", size=number)
    head = toys.store.head
    async with resyncing(toys) as one:
        await one.over()
        assert one.report.listed == 100
        assert toys.store.head == head


async def test_news_that_comes_during_the_listing_is_never_undone(toys: Toys) -> None:
    for id_ in ("a", "b", "c", "d", "e"):
        await toys.announce("create", id_, size=1)
        toys.cloud.put(id_, size=1)
    await toys.clock.advance(1)

    async def meanwhile() -> None:
        """After the first page was read, before the second: the cloud moves on, and says so."""
        await toys.clock.advance(0.01)
        toys.cloud.put("a", size=9)
        await toys.announce("update", "a", size=9)
        del toys.cloud.things["b"]
        await toys.announce("delete", "b")
        toys.cloud.put("0", size=1)
        await toys.announce("create", "0", size=1)

    toys.cloud.put("a", size=5)  # the first page still has this, and nobody announced it
    async with resyncing(toys) as one:
        toys.cloud.before[3] = lambda: asyncio.ensure_future(meanwhile())
        await one.over()
        assert (await toys.inventory())["a"]["size"] == 9
        assert await toys.inventory() == toys.cloud.things
        assert toys.told() == []


async def test_a_notice_that_is_on_its_way_is_no_miss(toys: Toys) -> None:
    toys.cloud.put("a", size=1)
    async with resyncing(toys) as one:
        await toys.clock.advance(1.0)  # it settles, then lists
        created = toys.clock.now_us()
        await toys.clock.advance(GRACE_SECONDS / 2)
        await toys.announce("create", "a", size=1, sent_at=created)
        await one.over()
        assert toys.told() == []
        assert one.report.missed == 0


async def test_a_listing_that_is_cut_short_deletes_nothing(toys: Toys) -> None:
    for id_ in "abcdefgh":
        await toys.announce("create", id_)
    toys.cloud.put("a", size=7)
    toys.cloud.put("b")
    toys.cloud.put("c")
    toys.cloud.fail["/things after c"] = CloudUnavailable("cut")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
        assert one.report.state == "incomplete"
        assert "cut" in one.report.detail
        assert len(await toys.inventory()) == 8
        assert (await toys.inventory())["a"]["size"] == 7, "what was listed counts"
        assert one.report.complete_at == 0
        del toys.cloud.fail["/things after c"]
        await one.over(60)  # long before the timer
        assert one.report.state == "done"
        assert await toys.inventory() == toys.cloud.things


@pytest.mark.parametrize("lack", ["role", "proof", "domain"])
async def test_an_account_that_may_not_see_everything_deletes_nothing(toys: Toys, lack: str) -> None:
    for id_ in "abcdef":
        await toys.announce("create", id_)
    toys.cloud.put("a", size=7)
    if lack == "role":
        toys.cloud.roles = ("member",)
    elif lack == "domain":
        toys.cloud.domain = "d1"
    else:
        toys.cloud.fail["/proof"] = Forbidden("admins only")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
        assert len(await toys.inventory()) == 6
        assert (await toys.inventory())["a"]["size"] == 7
        assert (one.report.state, one.report.sees_all, one.report.deleted) == ("done", False, 0)
        assert "and stay: " in one.report.detail
        assert not [path for path in toys.cloud.requests if path.startswith("/things/")], "and asks for none of them"


async def test_an_object_that_is_there_after_all_stays(toys: Toys) -> None:
    """A page that skipped it: the question for it alone decides."""
    await toys.announce("create", "a", size=1)
    await toys.announce("create", "b", size=1)
    await toys.clock.advance(1)

    def back() -> None:
        toys.cloud.put("a", size=4)

    async with resyncing(toys) as one:
        toys.cloud.before[3] = back  # proof, list, then the questions
        await one.over()
        assert await toys.inventory() == toys.cloud.things
        assert toys.told() == [("thing.update.resync", "a"), ("thing.delete.resync", "b")]


async def test_an_answer_other_than_404_is_no_proof(toys: Toys) -> None:
    await toys.announce("create", "a")
    await toys.announce("create", "b")
    toys.cloud.fail["/things/a"] = CloudUnavailable("503")
    toys.cloud.fail["/things/b"] = Forbidden("no")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
        assert len(await toys.inventory()) == 2
        assert "2 objects" in one.report.detail


async def test_many_deletions_wait_for_a_person(toys: Toys) -> None:
    for number in range(100):
        await toys.announce("create", f"{number:03}")
        if number >= 21:
            toys.cloud.put(f"{number:03}")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over()
        assert (one.report.state, one.report.held, one.report.deleted) == ("held", 21, 0)
        assert "vedette resync thing --source one --confirm" in one.report.detail
        assert toys.number("resync_held_deletions", source="one", kind="thing") == 21
        assert len(await toys.inventory()) == 100
        report = await one.ask()
        assert report.state == "held", "asking again is not a confirmation"
        report = await one.ask(confirm=True)
        assert (report.state, report.deleted) == ("done", 21)
        assert await toys.inventory() == toys.cloud.things
        assert toys.number("resync_held_deletions", source="one", kind="thing") == 0


@pytest.mark.parametrize(("known", "gone"), [(100, 20), (300, 30), (20, 20)])
async def test_few_deletions_or_a_small_share_need_nobody(toys: Toys, known: int, gone: int) -> None:
    for number in range(known):
        await toys.announce("create", f"{number:03}")
        if number >= gone:
            toys.cloud.put(f"{number:03}")
    await toys.clock.advance(1)
    async with resyncing(toys) as one:
        await one.over(20)
        assert (one.report.state, one.report.deleted) == ("done", gone)


async def test_after_a_gap_it_lists_again(toys: Toys) -> None:
    async with resyncing(toys, resync_seconds=0) as one:
        await one.over()
        toys.cloud.put("a")
        await one.over(5_000)
        assert await toys.inventory() == {}, "no timer"
        now = toys.clock.now_us()
        gap = Notice(id="gap", source="one", event_type=GAP, sent_at=now, payload=msgspec.Raw(b"{}"), origin="vedette")
        await toys.ingest.offer([msgspec.structs.replace(gap, id="other", source="two")])
        await one.over()
        assert await toys.inventory() == {}, "somebody else's gap"
        await toys.ingest.offer([gap])
        await one.over()
        assert await toys.inventory() == toys.cloud.things


async def test_the_timer_comes_sooner_after_a_miss_and_later_when_nothing_is_missed(toys: Toys) -> None:
    def listings() -> int:
        return toys.cloud.asked["/things"]

    async with resyncing(toys) as one:
        await one.over()
        assert listings() == 1
        await one.over(680)
        assert listings() == 2
        (cloud,) = one.resync.reports()
        assert 780 < cloud.next_in < 1000, "nothing was missed: 900 s, and jitter"
        toys.cloud.put("a")
        await one.over(1000)
        assert listings() == 3
        (cloud,) = one.resync.reports()
        assert 0 < cloud.next_in < 340, "something was: 300 s"
        for _ in range(6):
            await one.over(1200)
        (cloud,) = one.resync.reports()
        assert cloud.next_in <= 2640, "at the most four times the setting"


async def test_the_first_pass_waits_for_the_source_but_not_for_ever(toys: Toys) -> None:
    there = False
    async with resyncing(toys, connected=lambda _source: there) as one:
        await one.over(5)
        assert toys.cloud.requests == []
        there = True
        await one.over(5)
        assert toys.cloud.asked["/things"] == 1
    other = Toys()
    async with resyncing(other, connected=lambda _source: False) as one:
        await one.over(20)
        assert other.cloud.asked["/things"] == 1


@pytest.mark.parametrize(
    ("why", "state"),
    [
        (NoService("no toys here"), "absent"),
        (Forbidden("the role is missing"), "refused"),
        (Unauthenticated("the password is wrong"), "refused"),
        (CloudUnavailable("down"), "incomplete"),
        (RuntimeError("ours"), "incomplete"),
    ],
)
async def test_what_keeps_a_listing_from_its_end_is_told(toys: Toys, why: Exception, state: str) -> None:
    await toys.announce("create", "a")
    toys.cloud.fail["/things"] = why
    async with resyncing(toys) as one:
        await one.over()
        assert one.report.state == state
        assert one.report.detail
        assert len(await toys.inventory()) == 1
        # A pass that could not be whole may have been tried again by now.
        assert toys.number("resync_passes_total", source="one", kind="thing", state=state) == toys.cloud.asked["/things"] >= 1


async def test_a_log_that_takes_nothing_now_loses_nothing(toys: Toys) -> None:
    toys.cloud.put("a")
    times = 0
    record = toys.ingest.record

    async def refuses(entries: Any, expect: Any) -> None:
        nonlocal times
        times += 1
        if times <= 3:
            raise StoreUnavailable("the disk is full", delay=2)
        await record(entries, expect)

    toys.ingest.record = refuses  # type: ignore[method-assign]
    async with resyncing(toys) as one:
        await one.over(20)
        assert await toys.inventory() == toys.cloud.things
        assert one.report.created == 1


async def test_what_is_asked_for_and_can_not_be_is_refused(toys: Toys) -> None:
    async with resyncing(toys) as one:
        with pytest.raises(NotFound, match="api:"):
            one.resync.ask("two")
        with pytest.raises(NotFound, match="thing"):
            one.resync.ask("one", ["port"])
        for _ in range(100):
            one.resync.ask("one").add_done_callback(lambda done: done.exception())
        with pytest.raises(TooBusy):
            one.resync.ask("one")


async def test_who_waits_when_the_service_stops_is_told(toys: Toys) -> None:
    resync = Resync(toys.store, toys.ingest.record, [toys.kind], {"one": toys.use()}, toys.clock, toys.telemetry)
    done = resync.ask("one")
    resync.close()
    with pytest.raises(TooBusy, match="stopping"):
        await done


async def test_a_seldom_kind_is_listed_every_sixth_time_and_whenever_asked() -> None:
    toys = Toys(seldom=True)

    async with resyncing(toys) as one:
        await one.over()
        assert toys.cloud.asked["/things"] == 1, "on start"
        await one.over(700)
        assert toys.cloud.asked["/things"] == 1
        await one.ask()
        assert toys.cloud.asked["/things"] == 2
        await one.over(14_000)
        assert 3 <= toys.cloud.asked["/things"] <= 4


async def test_what_was_heard_since_the_request_was_sent_counts_more_whatever_its_version(toys: Toys) -> None:
    """A part of an object is told without a version: the listing's higher one says nothing of which is newer."""
    await toys.announce("create", "a", size=1)
    asked_us = toys.clock.now_us() + 1
    await toys.clock.advance(1)
    await toys.announce("update", "a", size=1, part="new")
    item = {"id": "a", "project_id": "p1", "status": "ACTIVE", "size": 1, "part": "old"}
    assert await differences(toys.store, "one", [reading(item, asked_us, version=2)]) == []
    assert len(await differences(toys.store, "one", [reading(item, toys.clock.now_us(), version=2)])) == 1


async def test_what_is_said_between_the_look_and_the_append_comes_first(toys: Toys) -> None:
    for id_ in "abc":
        await toys.announce("create", id_, size=1)
    await toys.clock.advance(1)
    as_of = toys.clock.now_us()
    readings = [reading({"id": id_, "project_id": "p1", "status": "ACTIVE", "size": 2}, as_of, version=2) for id_ in "abc"]
    times = 0

    async def record(entries: Any, expect: Any) -> None:
        nonlocal times
        times += 1
        if times <= 2:
            await toys.clock.advance(1)
            await toys.announce("update", "b", size=10 + times)
        await toys.ingest.record(entries, expect)

    told = await tell_all(toys.store, record, "one", readings, "resync", by_name([toys.kind]), lambda _: "x")
    assert [one.key.id for one in told] == ["a", "c"]
    assert {id_: thing["size"] for id_, thing in (await toys.inventory()).items()} == {"a": 2, "b": 12, "c": 2}


async def test_two_things_that_one_answer_says_of_an_object_are_both_told(toys: Toys) -> None:
    await toys.announce("create", "a", status="ACTIVE", size=1)
    as_of = toys.clock.now_us() + 1
    item = {"id": "a", "project_id": "p1"}
    found = await differences(
        toys.store, "one", [reading({**item, "status": "DOWN"}, as_of), reading({**item, "size": 2}, as_of)]
    )
    await toys.ingest.record([entry(one, "resync", by_name([toys.kind]), lambda _: "x") for one in found], {})
    assert (await toys.inventory())["a"] == {"id": "a", "project_id": "p1", "status": "DOWN", "size": 2}


# --- every history converges ---------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "drop"]),
        st.sampled_from("abcdefgh"),
        st.integers(0, 3),
        st.sampled_from(["heard", "lost", "late"]),
        st.integers(0, 4),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.integers(1, 4))
def test_whatever_was_lost_or_came_late_the_inventory_equals_the_cloud(
    steps: list[tuple[str, str, int, str, int]], page: int
) -> None:
    async def play() -> None:
        toys = Toys()
        toys.cloud.page = page
        late: list[tuple[str, str, int, dict[str, Any]]] = []
        async with resyncing(toys) as one:
            for what, id_, size, heard, wait in steps:
                there = id_ in toys.cloud.things
                if what == "drop" and not there:
                    continue
                if what == "put":
                    toys.cloud.put(id_, size=size)
                    verb, fields = ("update" if there else "create"), toys.cloud.things[id_]
                else:
                    verb, fields = "delete", toys.cloud.things.pop(id_)
                said = (verb, id_, toys.clock.now_us(), dict(fields))
                if heard == "heard":
                    await tell(toys, *said)
                elif heard == "late":
                    late.append(said)
                await toys.clock.advance(0.01 + wait * 0.4)
                if late and wait == 4:
                    await tell(toys, *late.pop(0))
            await one.ask()
            assert await toys.inventory() == toys.cloud.things
            for said in late:
                await tell(toys, *said)
            # A listing that found nothing to tell left no trace in the log: news from before it may be believed once more.
            await one.ask()
            assert await toys.inventory() == toys.cloud.things
            told = len(toys.told())
            await one.ask()
            assert len(toys.told()) == told

    asyncio.run(play())


async def tell(toys: Toys, verb: str, id_: str, sent_at: int, fields: dict[str, Any]) -> None:
    await toys.announce(verb, id_, sent_at=sent_at, **{name: value for name, value in fields.items() if name != "id"})
