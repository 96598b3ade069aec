"""engine/audits.py: which audits run, what a trigger leads to, and what is left after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from auditing import Asked, Place, Told

from vedette.engine.audits import MOST_DEATHS
from vedette.engine.triggers import MOST_KEPT
from vedette.errors import BadRequest, CloudUnavailable, NotFound, TooBusy
from vedette.model.advice import Proposed, Query, Solution, Trigger
from vedette.model.audit import ActionPlan, Audit
from vedette.model.delivery import PutState
from vedette.testing.clock import FakeClock


def alarm(n: int = 0, *objects: str) -> Trigger:
    return Trigger(at=0, alarm={"n": n}, objects=objects)


async def test_a_oneshot_audit_runs_once_and_leaves_a_plan() -> None:
    place = Place()
    async with place.running():
        await place.host("h1")
        await place.host("h2", status="disabled")
        await place.server("s1", "h1", metadata={"a": "b"}, locked=True)
        await place.server("s2", "h2")
        audit = await place.audit("ONESHOT", parameters={"para1": 1})
        await place.rest()
        assert place.now(audit).state == "SUCCEEDED"
        assert place.now(audit).runs == 1
        (plan,) = place.plans(audit)
        assert (plan.state, plan.strategy_name, plan.run) == ("RECOMMENDED", "dummy", 1)
        (action,) = place.records.actions_of(plan.uuid)
        assert (action.action_type, action.input_parameters, action.state) == ("nop", {"message": "hello"}, "PENDING")
        ((snapshot, _, parameters, triggers),) = place.asked[0].calls
        assert parameters == {"para1": 1}
        assert triggers == ()
        assert [one.hostname for one in snapshot.hosts] == ["h1", "h2"]
        assert (snapshot.host["h1"].vcpus, snapshot.host["h1"].memory, snapshot.host["h1"].disk) == (8, 16_384, 100)
        assert [(one.uuid, one.host, one.memory, one.locked) for one in snapshot.servers] == [
            ("s1", "h1", 1024, True),
            ("s2", "h2", 1024, False),
        ]
        await place.clock.advance(3600)
        assert len(place.plans(audit)) == 1


async def test_the_snapshot_is_of_the_log_as_it_is_when_the_run_begins() -> None:
    """A28: a server that a notice moved is where the notice said, without any rebuilding."""
    place = Place()
    async with place.running():
        await place.host("h1")
        await place.host("h2")
        await place.server("s1", "h1")
        audit = await place.audit()
        await place.audits.trigger(audit.uuid, alarm(1))
        await place.rest()
        place.clock.tick(1)
        await place.server("s1", "h2")
        await place.audits.trigger(audit.uuid, alarm(2))
        await place.rest()
        first, second = (call[0] for call in place.asked[0].calls)
        assert (first.server["s1"].host, second.server["s1"].host) == ("h1", "h2")
        assert second.revision > first.revision
        assert [plan.snapshot_revision for plan in place.plans(audit)] == [first.revision, second.revision]


@pytest.mark.parametrize("number", [100])
async def test_an_event_audit_runs_for_each_of_many_triggers_one_after_the_other(number: int) -> None:
    """A7: it never sticks."""
    place = Place()
    async with place.running():
        audit = await place.audit()
        await place.rest()
        assert place.now(audit).state == "PENDING"
        for n in range(number):
            await place.audits.trigger("a", alarm(n, f"s{n}"))
            await place.rest()
            assert place.now(audit).state == "SUCCEEDED"
        assert place.now(audit).runs == number
        plans = place.plans(audit)
        assert [plan.trigger[0]["alarm"] for plan in plans] == [{"n": n} for n in range(number)]
        # A31: each new one supersedes the one before.
        assert [plan.state for plan in plans] == ["SUPERSEDED"] * (number - 1) + ["RECOMMENDED"]
        assert plans[-1].uuid in (plans[0].status_message or "") or plans[1].uuid in (plans[0].status_message or "")
        assert place.asked[0].calls[7][3][0].objects == ("s7",)


def held(place: Place) -> tuple[asyncio.Event, Callable[[], int]]:
    """Runs stop before the strategy is asked, until the event is set."""
    go = asyncio.Event()
    stopped = 0

    async def gate(message: bytes) -> None:
        nonlocal stopped
        if b'"Propose"' in message:
            stopped += 1
            await go.wait()

    place.inside.gate = gate
    return go, lambda: stopped


async def test_a_thousand_triggers_during_a_run_are_one_run_after_it() -> None:
    """A8: none is refused, and the follow-up began after all of them."""
    place = Place()
    async with place.running():
        audit = await place.audit()
        go, stopped = held(place)
        await place.audits.trigger("a", alarm(-1))
        await place.rest()
        assert stopped() == 1
        for n in range(1000):
            await place.audits.trigger("a", alarm(n))
        await place.rest()
        assert stopped() == 1
        go.set()
        await place.rest()
        assert place.now(audit).runs == 2
        first, second = place.plans(audit)
        assert (first.triggers, second.triggers) == (1, 1000)
        assert [one["alarm"]["n"] for one in second.trigger] == list(range(MOST_KEPT))
        assert place.now(audit).triggers == 1001
        assert place.now(audit).state == "SUCCEEDED"
        await place.audits.trigger("a", alarm(2000))
        await place.rest()
        assert place.now(audit).runs == 3


async def test_triggers_at_once_are_each_in_a_run_that_began_after_them() -> None:
    place = Place()
    async with place.running():
        audit = await place.audit()

        async def one(n: int) -> int:
            await place.audits.trigger("a", alarm(n))
            return place.now(audit).runs

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(n)) for n in range(5)]
        await place.rest()
        runs = [task.result() for task in tasks]
        seen = {entry["alarm"]["n"]: plan.run for plan in place.plans(audit) for entry in plan.trigger}
        assert sorted(seen) == list(range(5))
        # The run that was under way when a trigger was accepted is not the one that takes it up.
        assert all(seen[n] > runs[n] or runs[n] == 0 or seen[n] == runs[n] for n in range(5))
        assert place.now(audit).state == "SUCCEEDED"


async def test_queued_triggers_have_a_run_each_and_a_full_queue_says_so() -> None:
    place = Place(on_busy="queue", max_queued=3)
    async with place.running():
        audit = await place.audit()
        go, _ = held(place)
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        for n in range(1, 4):
            await place.audits.trigger("a", alarm(n))
        with pytest.raises(TooBusy, match="3 triggers of audit a wait"):
            await place.audits.trigger("a", alarm(4))
        go.set()
        for _ in range(4):
            await place.rest()
        assert [[one["alarm"]["n"] for one in plan.trigger] for plan in place.plans(audit)] == [[0], [1], [2], [3]]


async def test_a_busy_audit_refuses_as_watcher_does_where_that_is_wished_for() -> None:
    place = Place(on_busy="reject")
    async with place.running():
        audit = await place.audit()
        go, _ = held(place)
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        with pytest.raises(BadRequest, match=r"^Audit state ONGOING is disallowed\.$"):
            await place.audits.trigger("a", alarm(1))
        go.set()
        await place.rest()
        assert place.now(audit).runs == 1


@pytest.mark.parametrize(
    ("kind", "state", "said"),
    [
        ("ONESHOT", "PENDING", "Audit type ONESHOT is disallowed."),
        ("CONTINUOUS", "ONGOING", "Audit type CONTINUOUS is disallowed."),
        ("EVENT", "CANCELLED", "Audit state CANCELLED is disallowed."),
        ("EVENT", "SUSPENDED", "Audit state SUSPENDED is disallowed."),
    ],
)
async def test_what_can_not_be_triggered(kind: str, state: str, said: str) -> None:
    place = Place()
    async with place.running():
        await place.audit(kind, state=state, start_time="2099-01-01T00:00:00Z", interval="60")
        with pytest.raises(BadRequest) as caught:
            await place.audits.trigger("a", alarm())
        assert str(caught.value) == said
        with pytest.raises(NotFound):
            await place.audits.trigger("b", alarm())


@pytest.mark.parametrize("rerun", [True, False])
async def test_a_failed_audit_can_be_triggered_again_unless_that_is_not_wished_for(rerun: bool) -> None:
    """A9."""
    place = Place(rerun_failed=rerun)
    async with place.running():
        audit = await place.audit()

        def refuses() -> Solution:
            raise BadRequest("there is no such host")

        usual, place.asked[0].answer = place.asked[0].answer, refuses
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        assert (place.now(audit).state, place.now(audit).status_message) == ("FAILED", "there is no such host")
        assert place.plans(audit) == []
        place.asked[0].answer = usual
        if not rerun:
            with pytest.raises(BadRequest, match="FAILED is disallowed"):
                await place.audits.trigger("a", alarm(1))
            return
        await place.audits.trigger("a", alarm(1))
        await place.rest()
        assert place.now(audit).state == "SUCCEEDED"
        assert len(place.plans(audit)) == 1


@pytest.mark.parametrize("at", ["before the run", "in the run"])
async def test_a_trigger_that_was_accepted_has_its_run_after_a_crash(at: str) -> None:
    """A10."""
    place = Place()
    async with place.running():
        audit = await place.audit()
        if at == "in the run":
            _, stopped = held(place)
            await place.audits.trigger("a", alarm(7, "h1"))
            await place.rest()
            assert stopped() == 1
            assert place.now(audit).state == "ONGOING"
        else:
            await place.set(audit, state="ONGOING")  # so that no run begins before the end
            await place.audits.trigger("a", alarm(7, "h1"))
            await place.set(audit, state="PENDING")
        # No more is done: nothing of this process is there any more.
    again = Place(store=place.store, clock=place.clock)
    async with again.running():
        await again.rest()
        assert again.now(audit).state == "SUCCEEDED"
        (plan,) = again.plans(audit)
        assert plan.trigger[0]["alarm"] == {"n": 7}
        assert again.asked[0].calls[0][3][0].objects == ("h1",)
        await again.clock.advance(3600)
        assert again.now(audit).runs == 1
    third = Place(store=place.store, clock=place.clock)
    async with third.running():
        await third.rest()
        assert third.now(audit).runs == 1
        assert third.asked[0].calls == []


async def test_a_run_that_ends_the_service_again_and_again_fails_in_the_end() -> None:
    store, clock = Place().store, FakeClock()
    place = Place(store=store, clock=clock)
    async with place.running():
        audit = await place.audit()
        held(place)
        await place.audits.trigger("a", alarm(0))
        await place.rest()
    for _ in range(MOST_DEATHS - 1):
        place = Place(store=store, clock=clock)
        async with place.running():
            held(place)
            await place.rest()
            assert place.now(audit).state == "ONGOING"
    place = Place(store=store, clock=clock)
    async with place.running():
        await place.rest()
        assert place.now(audit).state == "FAILED"
        assert f"{MOST_DEATHS} times" in (place.now(audit).status_message or "")
        await place.audits.trigger("a", alarm(1))
        await place.rest()
        assert place.now(audit).state == "SUCCEEDED"


async def test_cancelling_during_a_run_is_not_overwritten() -> None:
    place = Place()
    async with place.running():
        audit = await place.audit()
        go, _ = held(place)
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        await place.set(audit, state="CANCELLED")
        go.set()
        await place.rest()
        assert place.now(audit).state == "CANCELLED"
        assert place.plans(audit) == []


async def test_a_change_of_the_audit_during_a_run_is_kept() -> None:
    place = Place()
    async with place.running():
        audit = await place.audit()
        go, _ = held(place)
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        await place.set(audit, auto_trigger=True)
        go.set()
        await place.rest()
        assert place.now(audit).state == "SUCCEEDED"
        assert place.now(audit).auto_trigger is True
        assert [plan.state for plan in place.plans(audit)] == ["PENDING"]


async def a_plan_under_way(place: Place) -> ActionPlan:
    other = await place.audit("ONESHOT", name="other")
    await place.rest()
    (plan,) = place.plans(other)
    return await place.records.update(ActionPlan, plan.uuid, lambda one: msgspec.structs.replace(one, state="ONGOING"))


async def ended(place: Place, plan: ActionPlan) -> None:
    await place.records.update(ActionPlan, plan.uuid, lambda one: msgspec.structs.replace(one, state="SUCCEEDED"))
    await place.rest()


async def test_a_plan_that_is_carried_out_makes_triggers_wait_and_others_skip_with_the_reason() -> None:
    """A32; nothing is dropped after 202."""
    place = Place()
    async with place.running():
        plan = await a_plan_under_way(place)
        event = await place.audit("EVENT")
        once = await place.audit("ONESHOT", name="once")
        forced = await place.audit("ONESHOT", name="forced", force=True)
        again = await place.audit("CONTINUOUS", name="again", interval="60")
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        assert place.now(event).state == "PENDING"
        assert (place.now(once).state, place.now(once).skipped) == ("CANCELLED", 1)
        assert plan.uuid in (place.now(once).status_message or "")
        assert place.now(forced).state == "SUCCEEDED"
        assert (place.now(again).state, place.now(again).skipped) == ("ONGOING", 1)
        await ended(place, plan)
        assert place.now(event).state == "SUCCEEDED"
        await place.clock.advance(61)
        assert place.now(again).runs == 1
        assert place.now(again).status_message is None


async def test_what_a_front_ends_user_asked_for_holds_up_no_audit() -> None:
    place = Place()
    async with place.running():
        plan = ActionPlan(
            uuid="p", audit_uuid="", strategy_uuid="", strategy_name="", state="ONGOING", requested_by="concertim: somebody"
        )
        await place.records.write([plan])
        once, event = await place.audit("ONESHOT", name="once"), await place.audit("EVENT")
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        assert place.now(once).state == place.now(event).state == "SUCCEEDED"


async def test_a_continuous_audit_runs_by_its_seconds_until_its_end_and_supersedes_its_plans() -> None:
    """A13."""
    place = Place()
    async with place.running():
        audit = await place.audit("CONTINUOUS", interval="60", start_time="2026-11-20T15:20:06Z", end_time="2026-11-20T15:23:30Z")
        await place.rest()
        assert (place.now(audit).state, place.now(audit).runs) == ("PENDING", 0)
        await place.clock.advance(61)  # it is 15:19:06 to begin with
        assert (place.now(audit).state, place.now(audit).runs) == ("ONGOING", 1)
        assert place.now(audit).next_run_time == "2026-11-20T15:21:06Z"
        await place.clock.advance(120)
        assert place.now(audit).runs == 3
        assert [plan.state for plan in place.plans(audit)] == ["SUPERSEDED", "SUPERSEDED", "RECOMMENDED"]
        await place.clock.advance(120)
        assert place.now(audit).state == "SUCCEEDED"
        assert place.now(audit).runs == 4
        assert place.now(audit).next_run_time is None


async def test_a_cron_audit_keeps_its_date_over_a_restart() -> None:
    place = Place()
    async with place.running():
        audit = await place.audit("CONTINUOUS", interval="*/10 * * * *")
        await place.rest()
        assert place.now(audit).runs == 0
        await place.clock.advance(60)
        assert place.now(audit).runs == 1  # 15:20
        assert place.now(audit).next_run_time == "2026-11-20T15:30:00Z"
    place.clock.tick(3 * 3600)
    again = Place(store=place.store, clock=place.clock)
    async with again.running():
        await again.rest()
        # What was missed is one run, at once.
        assert again.now(audit).runs == 2
        assert again.now(audit).next_run_time == "2026-11-20T18:30:00Z"


async def test_a_cool_down_makes_triggers_wait_and_loses_none() -> None:
    place = Place(cooldown=60.0)
    async with place.running():
        audit = await place.audit()
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        for n in range(1, 4):
            await place.audits.trigger("a", alarm(n))
        await place.clock.advance(50)
        assert place.now(audit).runs == 1
        await place.clock.advance(11)
        assert place.now(audit).runs == 2
        assert place.plans(audit)[1].triggers == 3


async def test_a_cool_down_of_an_object_is_its_own() -> None:
    place = Place(object_cooldown=60.0)
    async with place.running():
        audit = await place.audit()
        await place.audits.trigger("a", alarm(0, "h1"))
        await place.rest()
        await place.audits.trigger("a", alarm(1, "h1"))
        await place.rest()
        assert place.now(audit).runs == 1
        await place.audits.trigger("a", alarm(2, "h2"))
        await place.rest()
        assert place.now(audit).runs == 2
        assert place.plans(audit)[1].triggers == 2
    again = Place(store=place.store, clock=place.clock, object_cooldown=60.0)
    async with again.running():
        await again.audits.trigger("a", alarm(3, "h2"))
        await again.clock.advance(30)
        assert again.now(audit).runs == 2
        await again.clock.advance(31)
        assert again.now(audit).runs == 3


async def test_measurements_come_in_one_question_each_and_no_data_is_said() -> None:
    query = Query("host_cpu_usage", "mean", 300, 300)
    meter = Told({"host_cpu_usage": {"h1": 12.5}})
    place = Place(Asked(wants=(query,)), meters=[meter])
    async with place.running():
        await place.host("h1")
        await place.host("h2")
        audit = await place.audit("ONESHOT")
        await place.rest()
        (asked,) = meter.asked
        assert asked[:2] == (query, ("h1", "h2"))
        assert place.asked[0].calls[0][1] == {query: {"h1": 12.5}}
        assert place.plans(audit)[0].notes == ["no data of host_cpu_usage for 1 of 2: h2"]


async def test_a_meter_that_can_not_be_asked_is_asked_again_and_then_the_audit_fails_with_its_words() -> None:
    """Bug 24 of Watcher: that is not "no data"."""
    meter = Told({"host_cpu_usage": {}})
    meter.trouble = CloudUnavailable("gnocchi does not answer", delay=1)
    place = Place(Asked(wants=(Query("host_cpu_usage"),)), meters=[meter])
    async with place.running():
        await place.host("h1")
        audit = await place.audit("ONESHOT")
        await place.rest()
        assert place.now(audit).state == "ONGOING"
        assert "tried again" in (place.now(audit).status_message or "")
        await place.clock.advance(60)
        assert len(meter.asked) == 3
        assert (place.now(audit).state, place.now(audit).status_message) == ("FAILED", "gnocchi does not answer")


async def test_without_a_meter_for_what_is_needed_the_audit_says_which() -> None:
    place = Place(Asked(wants=(Query("host_power"),)))
    async with place.running():
        audit = await place.audit("ONESHOT")
        await place.rest()
        assert place.now(audit).state == "FAILED"
        assert "host_power" in (place.now(audit).status_message or "")


async def test_a_trigger_that_waits_already_is_not_counted_again_and_what_goes_with_it_is_written() -> None:
    place = Place()
    async with place.running():
        audit = await place.audit()
        for value in (b"1", b"2"):
            await place.audits.trigger(audit.uuid, alarm(1), key="same", work=[PutState("test", "space", "row", value)])
        assert [row.value for row in await place.store.state("test", "space")] == [b"2"]
        await place.rest()
        assert (place.now(audit).runs, place.plans(audit)[0].triggers) == (1, 1)


async def test_what_a_strategy_can_do_without_is_said_and_no_reason_to_fail() -> None:
    place = Place(
        Asked(wants=(Query("host_power", optional=True), Query("host_cpu_usage"))), meters=[Told({"host_cpu_usage": {}})]
    )
    async with place.running():
        await place.host("h1")
        audit = await place.audit("ONESHOT")
        await place.rest()
        assert place.now(audit).state == "SUCCEEDED"
        assert place.plans(audit)[0].notes == ["no meter tells host_power", "no data of host_cpu_usage for 1 of 1: h1"]


async def test_nothing_to_do_is_a_plan_that_succeeded() -> None:
    place = Place()
    async with place.running():
        place.asked[0].answer = lambda: Solution(notes=("all is well",))
        audit = await place.audit("ONESHOT", auto_trigger=True)
        await place.rest()
        (plan,) = place.plans(audit)
        assert (plan.state, plan.notes) == ("SUCCEEDED", ["all is well"])


async def test_replay_shows_what_it_would_have_proposed_then_and_changes_nothing() -> None:
    place = Place()
    async with place.running():
        await place.host("h1")
        await place.server("s1", "h1")
        audit = await place.audit()
        await place.audits.trigger("a", alarm(5))
        await place.rest()
        (plan,) = place.plans(audit)
        place.clock.tick(5)
        await place.server("s2", "h1")
        head = place.store.head
        told = await place.audits.replay("a", plan.snapshot_revision)
        now = await place.audits.replay("a")
        assert place.store.head == head
        assert told["actions"] == [{"action_type": "nop", "input_parameters": {"message": "hello"}}]
        then, today = place.asked[0].calls[1], place.asked[0].calls[2]
        assert ([one.uuid for one in then[0].servers], then[3][0].alarm) == (["s1"], {"n": 5})
        assert ([one.uuid for one in today[0].servers], list(today[3])) == (["s1", "s2"], [])
        assert (told["snapshot"]["servers"], now["snapshot"]["servers"]) == (1, 2)


async def test_many_audits_run_as_many_at_a_time_as_may() -> None:
    place = Place(runs=1)
    async with place.running():
        audits = [await place.audit("ONESHOT", name=f"a{n}") for n in range(3)]
        for _ in range(4):
            await place.rest()
        assert [place.now(audit).state for audit in audits] == ["SUCCEEDED"] * 3


async def test_the_last_word_of_a_delete_during_a_run() -> None:
    place = Place()
    async with place.running():
        audit = await place.audit()
        go, _ = held(place)
        await place.audits.trigger("a", alarm(0))
        await place.rest()
        cancelled = await place.set(audit, state="CANCELLED")
        await place.records.write(deletes=[cancelled])
        go.set()
        await place.rest()
        with pytest.raises(NotFound):
            place.now(audit)
        assert place.plans(audit) == []
        (kept,) = await place.records.deleted(Audit)
        assert (kept.name, kept.state) == ("a", "DELETED")


async def test_actions_without_a_plug_are_refused_by_name() -> None:
    place = Place()
    async with place.running():
        place.asked[0].answer = lambda: Solution(actions=(Proposed("teleport", {}),))
        audit = await place.audit("ONESHOT")
        await place.rest()
        assert place.now(audit).state == "FAILED"
        assert "teleport" in (place.now(audit).status_message or "")


async def test_an_audit_without_a_strategy_has_its_goals() -> None:
    place = Place(Asked("zebra"), Asked("ape"))
    async with place.running():
        audit = await place.audit("ONESHOT", strategy="dummy")
        await place.set(audit, strategy_uuid=None, strategy_name=None, state="PENDING")
        other = await place.audit("ONESHOT", name="b", strategy="zebra")
        none = await place.audit("ONESHOT", name="c", strategy="zebra")
        await place.set(none, strategy_uuid=None, strategy_name=None, goal_name="thermal_optimization")
        for _ in range(3):
            await place.rest()
        assert [plan.strategy_name for plan in place.plans(audit)] == ["ape"]
        assert [plan.strategy_name for plan in place.plans(other)] == ["zebra"]
        assert place.now(none).status_message == "No strategy could be found to achieve the 'thermal_optimization' goal."
