"""Verify: what moves without a word is seen while somebody waits for it, by one reader, and nothing is asked when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from toy_cloud import LOOKS, SCAN, Toys

from vedette.engine.verify import MOST_SECONDS, PATIENCE_SECONDS, Verify
from vedette.errors import BadRequest, CloudUnavailable, Forbidden, NoService, StoreUnavailable, VedetteError
from vedette.kit.tasks import cancel
from vedette.model.reading import OPENSTACK
from vedette.ports import EVERYTHING, Scope, Selection

ALL = Selection(scope=EVERYTHING, group=OPENSTACK, kind="Thing")


def of_project(project: str, **more: Any) -> Selection:
    return Selection(scope=Scope(projects=frozenset({project})), group=OPENSTACK, kind="Thing", **more)


class Watched:
    """A verify that is running, and who follows."""

    def __init__(self, toys: Toys) -> None:
        self.toys = toys
        self.followed: list[Selection] = []
        self.verify: Verify

    async def follow(self, *selections: Selection) -> None:
        self.followed[:] = selections
        self.verify.followers_changed()
        await self.over(0.1)

    def now(self) -> Collection[Selection]:
        return frozenset(self.followed)

    async def over(self, seconds: float) -> None:
        for _ in range(20):
            await self.toys.clock.advance(seconds / 20)

    async def status(self, id_: str) -> Any:
        return (await self.toys.inventory())[id_]["status"]


@asynccontextmanager
async def verifying(toys: Toys, **use: Any) -> AsyncIterator[Watched]:
    one = Watched(toys)
    one.verify = Verify(
        toys.store, toys.ingest.record, [toys.kind], {"one": toys.use(**use)}, one.now, toys.clock, toys.telemetry
    )
    task = asyncio.create_task(one.verify.run("one"))
    await toys.clock.advance(0.1)
    try:
        yield one
    finally:
        await cancel(task)


async def announced(toys: Toys, id_: str, **fields: Any) -> None:
    """There in the cloud, and everybody knows."""
    toys.cloud.put(id_, **fields)
    await toys.announce("create", id_, **{name: value for name, value in toys.cloud.things[id_].items() if name != "id"})
    await toys.clock.advance(0.01)


@pytest.fixture
def toys() -> Toys:
    return Toys()


async def test_what_goes_active_without_a_word_is_seen_soon(toys: Toys) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        await one.over(2)
        assert await one.status("a") == "DOWN"
        toys.cloud.put("a", status="ACTIVE")
        await one.over(2)
        assert await one.status("a") == "ACTIVE"
        assert toys.told("verify") == [("thing.update.verify", "a")]
        asked = len(toys.cloud.requests)
        await one.over(600)
        assert len(toys.cloud.requests) == asked, "it has settled: nobody asks any more"
        assert toys.number("verify_changes_total", source="one", kind="thing", reason="settle") == 1


async def test_without_a_follower_nothing_is_asked(toys: Toys) -> None:
    async with verifying(toys) as one:
        await announced(toys, "a", status="DOWN")
        await one.over(100)
        assert toys.cloud.requests == []
        await one.follow(ALL)
        await one.over(1)
        asked = len(toys.cloud.requests)
        assert asked >= 1
        await one.follow()
        await one.over(100)
        assert len(toys.cloud.requests) == asked


@pytest.mark.parametrize(
    ("selection", "asks"),
    [
        (ALL, True),
        (of_project("p1"), True),
        (of_project("p2"), False),
        (of_project("p1", id="a"), True),
        (of_project("p1", id="b"), False),
        (Selection(scope=EVERYTHING, group=OPENSTACK, kind="Thing", project="p2"), False),
        (Selection(scope=EVERYTHING, group=OPENSTACK, kind="Thing", source="two"), False),
        (Selection(scope=EVERYTHING, group=OPENSTACK, kind="Thing", source="one"), True),
        (Selection(scope=EVERYTHING, group=OPENSTACK, kind="Other"), False),
        (Selection(scope=EVERYTHING, group="other", kind="Thing"), False),
    ],
)
async def test_only_what_somebody_can_see_is_looked_after(toys: Toys, selection: Selection, asks: bool) -> None:
    async with verifying(toys) as one:
        await announced(toys, "a", status="DOWN")
        await one.follow(selection)
        await one.over(5)
        assert bool(toys.cloud.requests) is asks


async def test_the_number_of_followers_costs_nothing(toys: Toys) -> None:
    counts = []
    for followers in (1, 100):
        toys = Toys()
        async with verifying(toys) as one:
            await one.follow(ALL, *(of_project("p1", id=f"{n}") for n in range(followers - 1)))
            for number in range(50):
                await announced(toys, f"{number:02}", status="DOWN")
            await one.over(8)
            for number in range(50):
                toys.cloud.put(f"{number:02}", status="ACTIVE")
            await one.over(20)
            assert len(toys.told("verify")) == 50
            counts.append(len(toys.cloud.requests))
    assert counts[0] == counts[1]
    assert counts[0] < 20, "50 objects are asked for together"


async def test_it_asks_ever_more_seldom_and_begins_anew_after_a_change(toys: Toys) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        times: list[float] = []
        for _ in range(1200):
            before = len(toys.cloud.requests)
            await toys.clock.advance(0.05)
            if len(toys.cloud.requests) > before:
                times.append(toys.clock.monotonic())
        pauses = [later - earlier for earlier, later in pairwise(times)]
        assert all(later >= earlier - 0.06 for earlier, later in pairwise(pauses)), pauses  # it was looked at every 0.05 s
        assert pauses[0] < 1.0
        assert pauses[-1] == pytest.approx(MOST_SECONDS, abs=0.2)
        toys.cloud.put("a", step=2)  # still DOWN
        before = len(toys.cloud.requests)
        await one.over(2 * MOST_SECONDS + 2)
        assert len(toys.cloud.requests) - before >= 5, "the old pace would be two or three"


async def test_what_stays_transient_is_left_to_resync_and_read_again_for_somebody_new(toys: Toys) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        await one.over(PATIENCE_SECONDS + 2 * MOST_SECONDS)
        asked = len(toys.cloud.requests)
        await one.over(600)
        assert len(toys.cloud.requests) == asked
        assert toys.number("verify_given_up_total", source="one", kind="thing") == 1
        assert toys.number("verify_waiting", source="one", kind="thing") == 0
        toys.cloud.put("a", status="ACTIVE")
        await one.over(60)
        assert await one.status("a") == "DOWN", "that is resync's"
        await one.follow(ALL, of_project("p1"))
        await one.over(1)
        assert await one.status("a") == "ACTIVE"


async def test_who_begins_to_follow_sees_at_once_what_moved_long_ago(toys: Toys) -> None:
    await announced(toys, "old", status="DOWN")
    toys.cloud.put("old", status="ACTIVE")
    await toys.clock.advance(3600)
    async with verifying(toys) as one:
        await one.follow(ALL)
        await one.over(1)
        assert await one.status("old") == "ACTIVE"


async def test_a_notice_settles_it_too(toys: Toys) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        toys.cloud.put("a", status="ACTIVE")
        await toys.announce("update", "a", status="ACTIVE")
        await one.over(60)
        assert toys.cloud.requests == []
        await announced(toys, "b", status="DOWN")
        await toys.announce("delete", "b")
        await one.over(60)
        assert toys.cloud.requests == []


async def test_what_is_gone_is_told_when_the_account_sees_everything(toys: Toys) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        del toys.cloud.things["a"]
        await one.over(5)
        assert toys.told("verify") == [("thing.delete.verify", "a")]
        assert "/things/a" in toys.cloud.requests
        assert "/proof" in toys.cloud.requests


async def test_an_account_that_may_not_see_everything_deletes_nothing(toys: Toys) -> None:
    toys.cloud.roles = ("member",)
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        del toys.cloud.things["a"]
        await one.over(60)
        assert toys.told("verify") == []
        assert await one.status("a") == "DOWN"


async def test_kinds_that_can_not_be_asked_for_together_are_asked_one_by_one() -> None:
    toys = Toys(some=None)
    async with verifying(toys) as one:
        await one.follow(ALL)
        for id_ in "abc":
            await announced(toys, id_, status="DOWN")
        toys.cloud.put("b", status="ACTIVE")
        await one.over(3)
        assert toys.told("verify") == [("thing.update.verify", "b")]
        assert {"/things/a", "/things/b", "/things/c"} <= set(toys.cloud.requests)


async def test_it_stays_within_its_budget(toys: Toys) -> None:
    toys = Toys(some=None)
    async with verifying(toys, requests_per_second=5.0) as one:
        await one.follow(ALL)
        for number in range(200):
            await announced(toys, f"{number:03}", status="DOWN")
        began, before = toys.clock.monotonic(), len(toys.cloud.requests)
        await one.over(60)
        rate = (len(toys.cloud.requests) - before) / (toys.clock.monotonic() - began)
        assert 4 <= rate <= 5.2
        asked = toys.number("verify_requests_total", source="one", service="toys")
        assert asked - 1 <= len(toys.cloud.requests) <= asked


@pytest.mark.parametrize(
    "why", [CloudUnavailable("down"), NoService("not here"), Forbidden("no"), BadRequest("400"), KeyError("x")]
)
async def test_an_unwell_api_is_told_and_left_alone_for_a_while(toys: Toys, why: Exception) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        toys.cloud.fail["/things?a"] = why
        await one.over(60)
        (report,) = one.verify.reports()
        assert (str(why) if isinstance(why, VedetteError) else "an error in Vedette: KeyError") in report.detail
        assert len(toys.cloud.requests) < 30
        toys.cloud.fail.clear()
        toys.cloud.put("a", status="ACTIVE")
        await one.over(130)
        assert await one.status("a") == "ACTIVE"
        (report,) = one.verify.reports()
        assert (report.detail, report.waiting, report.followed) == ("", {}, ["thing"])


async def test_a_log_that_takes_nothing_now_gets_it_later(toys: Toys) -> None:
    record, times = toys.ingest.record, 0

    async def refuses(entries: Any, expect: Any) -> None:
        nonlocal times
        times += 1
        if times <= 2:
            raise StoreUnavailable("the disk is full", delay=1)
        await record(entries, expect)

    toys.ingest.record = refuses  # type: ignore[method-assign]
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN")
        toys.cloud.put("a", status="ACTIVE")
        await one.over(10)
        assert toys.told("verify") == [("thing.update.verify", "a")]


async def test_a_change_that_was_announced_while_it_was_read_is_not_undone(toys: Toys) -> None:
    async with verifying(toys) as one:
        await one.follow(ALL)
        await announced(toys, "a", status="DOWN", step=1)

        async def meanwhile() -> None:
            await asyncio.sleep(0)
            toys.clock.tick(0.001)
            await toys.announce("update", "a", status="ACTIVE", step=2)

        toys.cloud.put("a", status="BUILD", step=1)
        toys.cloud.before[1] = lambda: asyncio.ensure_future(meanwhile())
        await one.over(1)
        assert await one.status("a") == "ACTIVE"
        assert len(toys.cloud.requests) == 1


# --- scan ----------------------------------------------------------------------------------------------------------------------


def scanned() -> Toys:
    return Toys(scan=SCAN, transient=None)


async def test_a_scan_looks_while_somebody_follows_and_tells_only_what_differs() -> None:
    toys = scanned()
    toys.cloud.put("a", size=1)
    async with verifying(toys) as one:
        await one.over(60)
        assert toys.cloud.requests == []
        await one.follow(ALL)
        await one.over(6)
        assert toys.told("verify") == [("thing.create.verify", "a")]
        looked = toys.cloud.asked["/things"]
        LOOKS.clear()
        await one.over(50)
        assert list(range(LOOKS[0], LOOKS[0] + len(LOOKS))) == LOOKS, "it remembers"
        assert looked + 9 <= toys.cloud.asked["/things"] <= looked + 11
        toys.cloud.put("a", size=2)
        toys.cloud.put("b")
        await one.over(6)
        assert toys.told("verify")[1:] == [("thing.update.verify", "a"), ("thing.create.verify", "b")]
        assert toys.number("verify_changes_total", source="one", kind="thing", reason="scan") == 3
        del toys.cloud.things["a"]
        await one.over(6)
        assert toys.told("verify")[3:] == [("thing.delete.verify", "a")]
        await one.follow()
        await one.over(6)
        asked = len(toys.cloud.requests)
        await one.over(60)
        assert len(toys.cloud.requests) == asked


async def test_a_scans_suspicion_is_confirmed_before_anybody_hears_of_it() -> None:
    toys = scanned()
    async with verifying(toys) as one:
        await announced(toys, "a")
        gone = toys.cloud.things.pop("a")

        def back() -> None:
            toys.cloud.things["a"] = gone

        toys.cloud.before[2] = back
        await one.follow(ALL)
        await one.over(4)
        assert toys.cloud.requests[:2] == ["/things", "/things/a"]
        assert toys.told("verify") == []
        assert await one.status("a") == "ACTIVE"
        toys.cloud.roles = ("member",)
        del toys.cloud.things["a"]
        await one.over(30)
        assert toys.told("verify") == [], "a 404 says nothing to an account that may not see it"


async def test_a_scan_that_fails_goes_on_later() -> None:
    toys = scanned()
    toys.cloud.fail["/things"] = CloudUnavailable("down")
    async with verifying(toys) as one:
        await one.follow(ALL)
        await one.over(100)
        (report,) = one.verify.reports()
        assert "scan toys: down" in report.detail
        toys.cloud.fail.clear()
        toys.cloud.put("a")
        await one.over(100)
        assert toys.told("verify") == [("thing.create.verify", "a")]
        (report,) = one.verify.reports()
        assert report.detail == ""


async def test_a_source_without_verify_asks_nothing(toys: Toys) -> None:
    verify = Verify(
        toys.store, toys.ingest.record, [toys.kind], {"one": toys.use(verify=False)}, list, toys.clock, toys.telemetry
    )
    assert list(verify.sources) == []
    assert list(verify.reports()) == []
