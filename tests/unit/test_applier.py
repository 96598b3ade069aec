"""How plans are carried out: order, limits, policies, cancelling, skipping, approval, windows, deadlines, crashes."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest
from applying import Rig, Slow, move, note
from msgspec.structs import replace

from vedette.engine.plan_run import Limits, Walk
from vedette.errors import ConfigError
from vedette.model.audit import Action, ActionPlan, Record
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Store

CHAIN = [move("s0"), move("s1", "a", "c", 0), move("s2", "a", "d", 1), move("s3", "x", "y")]
"""Three one after the other, and one beside them."""


async def test_a_plan_is_carried_out_in_its_order_and_says_so_at_each_step() -> None:
    async with Rig() as rig:
        await rig.plan(*CHAIN)
        assert rig.of_plan().state == "ONGOING"
        assert rig.ends() == ["ONGOING", "PENDING", "PENDING", "ONGOING"]
        first = rig.actions()[0]
        assert first.before == {"from": "a"}
        assert first.request_id.startswith("req-")
        assert first.attempt == 1
        assert first.started_at == "2026-11-20T15:19:06Z"
        assert first.status_message == "moving to b"
        await rig.pass_time(30)
        assert rig.ends() == ["SUCCEEDED/done", "ONGOING", "PENDING", "SUCCEEDED/done"]
        await rig.pass_time(60)
        assert rig.ends() == ["SUCCEEDED/done"] * 4
        plan = rig.of_plan()
        assert (plan.state, plan.status_message, plan.hostname) == ("SUCCEEDED", None, "here")
        assert [one.state for one in rig.ended] == ["SUCCEEDED"]
        assert rig.world.hosts == {"s0": "b", "s1": "c", "s2": "d", "s3": "y"}
        assert rig.history["plan/0"] == ["PENDING", "ONGOING", "SUCCEEDED"]
        assert rig.actions()[0].ended_at is not None
        assert rig.actions()[0].status_message is None
        assert not rig.wrong


async def test_each_request_was_written_down_before_it_was_made() -> None:
    rig = Rig()

    async def at(where: str) -> None:
        if where == "before":
            ongoing = {action.request_id for action in rig.actions() if action.state == "ONGOING"}
            seen.append(len(ongoing))
            assert ongoing

    seen: list[int] = []
    rig.world.at = at
    async with rig:
        await rig.plan(*CHAIN)
        await rig.pass_time(90)
        assert len(seen) == 4
        asked = {request: server for request, server, _ in rig.world.asked}
        assert asked == {action.request_id: action.input_parameters["resource_id"] for action in rig.actions()}


# --- what fails ----------------------------------------------------------------------------------------------------------------

FAILING = [
    # (policy, the step of the second action that fails, ends, the plan's message)
    ("stop", "run", ["SUCCEEDED/done", "FAILED/failed", "CANCELLED/cancelled", "SUCCEEDED/done", "CANCELLED/cancelled"]),
    ("stop", "check", ["SUCCEEDED/done", "FAILED/failed", "CANCELLED/cancelled", "SUCCEEDED/done", "CANCELLED/cancelled"]),
    ("stop", "verify", ["SUCCEEDED/done", "FAILED/failed", "CANCELLED/cancelled", "SUCCEEDED/done", "CANCELLED/cancelled"]),
    ("stop", "bug", ["SUCCEEDED/done", "FAILED/failed", "CANCELLED/cancelled", "SUCCEEDED/done", "CANCELLED/cancelled"]),
    ("continue", "run", ["SUCCEEDED/done", "FAILED/failed", "CANCELLED/cancelled", "SUCCEEDED/done", "SUCCEEDED/done"]),
    ("rollback", "run", ["SUCCEEDED/undone", "FAILED/failed", "CANCELLED/cancelled", "SUCCEEDED/undone", "CANCELLED/cancelled"]),
    (
        "rollback",
        "verify",
        ["SUCCEEDED/undone", "FAILED/undone", "CANCELLED/cancelled", "SUCCEEDED/undone", "CANCELLED/cancelled"],
    ),
]


@pytest.mark.parametrize(("policy", "step", "ends"), FAILING)
async def test_what_becomes_of_the_others_when_one_fails(policy: str, step: str, ends: list[str]) -> None:
    async with Rig() as rig:
        await rig.plan(
            move("s0"),
            move("s1", "a", "c", 0, fails=step),
            move("s2", "a", "d", 1),
            move("s3", "x", "y", seconds=50),
            move("s4", "x", "z", 3),
            policy=policy,
        )
        await rig.pass_time(250)
        assert rig.ends() == ends
        plan = rig.of_plan()
        assert plan.state == "FAILED"
        assert not plan.undoing
        assert plan.status_message is not None
        assert "Action plan/1 (move s1) failed" in plan.status_message
        assert rig.history["plan"] == ["PENDING", "ONGOING", "FAILED"]
        assert not rig.wrong
        late = rig.actions()[2].status_message
        assert late == "Not begun: action plan/1 (move s1) failed."
        if policy == "rollback":
            undone = sum(end.endswith("undone") for end in ends)
            assert plan.status_message.endswith(f"Rolled back: {undone} undone.")
            assert {server: rig.world.hosts[server] for server in ("s0", "s1", "s3")} == {"s0": "a", "s1": "a", "s3": "x"}
            assert (rig.actions()[0].status_message or "").startswith("Undone: the action plan was rolled back.")


async def test_undoing_goes_backwards_and_says_what_it_could_not_undo() -> None:
    async with Rig() as rig:
        await rig.plan(
            move("s0"),
            move("s1", "a", "c", 0, how="push"),
            move("s2", "a", "d", 1, fails="undo"),
            move("s3", "a", "e", 2),
            note(3, fails="run"),
            policy="rollback",
        )
        await rig.pass_time(300)
        assert rig.ends() == [
            "SUCCEEDED/undone",
            "SUCCEEDED/not undone",
            "SUCCEEDED/not undone",
            "SUCCEEDED/undone",
            "FAILED/failed",
        ]
        assert [(server, target) for _, server, target in rig.world.asked][4:] == [("s3", "a"), ("s0", "a")]
        text = rig.of_plan().status_message or ""
        assert "Rolled back: 2 undone. Not undone: 2: plan/1 (push s1): Not undone: push can't be undone" in text
        assert "plan/2 (move s2): Not undone: undo of s2 is made to fail" in text
        assert len({request for request, _, _ in rig.world.asked}) == 6, "each undoing is a request of its own"


async def test_continue_goes_on_with_what_does_not_depend_on_it_and_ends_failed() -> None:
    async with Rig() as rig:
        await rig.plan(note(fails="check"), note(0), note(1), note(), note(3), policy="continue")
        await rig.pass_time(2)
        assert rig.ends() == ["FAILED/failed", *["CANCELLED/cancelled"] * 2, *["SUCCEEDED/done"] * 2]
        assert rig.of_plan().state == "FAILED"


async def test_a_cloud_that_does_not_answer_is_asked_again_and_nothing_is_done_twice() -> None:
    async with Rig() as rig:
        rig.world.unwell, rig.world.deaf = 1, 1
        await rig.plan(move("s0"))
        await rig.pass_time(60)
        assert rig.ends() == ["SUCCEEDED/done"]
        assert len(rig.world.asked) == 1, "the one that was not answered was done"
        assert rig.actions()[0].attempt == 3
        assert rig.actions()[0].request_id != rig.world.asked[0][0], "each time it is begun is an intent of its own"


async def test_a_cloud_that_never_answers_is_given_up() -> None:
    async with Rig() as rig:
        rig.world.unwell = 1_000
        await rig.plan(move("s0"))
        await rig.pass_time(200, 5)
        assert rig.ends() == ["FAILED/unsure"]
        assert rig.actions()[0].status_message == "Given up after 5 attempts: nova: 503"


async def test_a_cloud_that_is_away_for_a_while_is_waited_for() -> None:
    async with Rig() as rig:
        rig.world.ill = True
        await rig.plan(move("s0", seconds=300))
        await rig.pass_time(60, 5)
        assert rig.ends() == ["PENDING"]
        rig.world.ill = False
        await rig.pass_time(40, 5)
        assert rig.ends() == ["ONGOING"]
        rig.world.ill = True
        await rig.pass_time(60, 5)
        rig.world.ill = False
        await rig.pass_time(300, 5)
        assert rig.ends() == ["SUCCEEDED/done"]


@pytest.mark.parametrize(
    ("since", "ends", "text"),
    [
        (0, "FAILED/failed", "The pre-condition can't be looked at: nova: 502"),
        (10, "FAILED/unsure", "The post-condition can't be looked at: nova: 502"),
    ],
)
async def test_a_cloud_that_stays_away_is_no_answer(since: float, ends: str, text: str) -> None:
    async with Rig() as rig:
        rig.world.ill = not since
        await rig.plan(move("s0"))
        await rig.pass_time(since)
        rig.world.ill = True
        await rig.pass_time(600, 5)
        assert rig.ends() == [ends]
        assert rig.actions()[0].status_message == text


async def test_cancelling_does_not_wait_for_a_cloud_that_is_away() -> None:
    async with Rig() as rig:
        rig.world.ill = True
        await rig.plan(move("s0"))
        await rig.pass_time(10)
        await rig.set_state("CANCELLING")
        await rig.pass_time(31)
        assert rig.ends() == ["CANCELLED/cancelled"]
        assert rig.of_plan().state == "CANCELLED"


async def test_after_a_crash_a_cloud_that_is_away_is_waited_for() -> None:
    rig = Rig()
    async with rig:
        await rig.plan(move("s0"))
        await rig.pass_time(5)
    rig.world.ill = True
    async with rig:
        await rig.pass_time(1_500, 5)
        assert rig.ends() == ["ONGOING"]
        rig.world.ill = False
        await rig.pass_time(60, 5)
        assert rig.ends() == ["SUCCEEDED/done"]


async def test_an_action_that_no_file_has_fails() -> None:
    async with Rig() as rig:
        await rig.plan(("explode", {}, ()))
        await rig.pass_time(1)
        assert rig.ends() == ["FAILED/failed"]
        assert rig.actions()[0].status_message == "there is no action explode: its file is missing in this version"


async def test_parameters_that_are_none_fail_their_own_action_alone() -> None:
    async with Rig() as rig:
        await rig.plan(("move", {"destination_node": "b"}, ()), move("s1"), policy="continue")
        await rig.pass_time(40)
        assert rig.ends() == ["FAILED/failed", "SUCCEEDED/done"]
        assert "an error in the action itself: KeyError: 'resource_id'" in (rig.actions()[0].status_message or "")


async def test_records_that_wait_for_each_other_end() -> None:
    async with Rig() as rig:
        await rig.plan(note(1), note(0), note(), note(99))
        await rig.pass_time(1)
        assert rig.ends() == ["CANCELLED/cancelled", "CANCELLED/cancelled", "SUCCEEDED/done", "CANCELLED/cancelled"]
        assert rig.of_plan().state == "FAILED"
        assert rig.of_plan().status_message == "Not all actions could be begun."


# --- what is skipped -----------------------------------------------------------------------------------------------------------


async def test_what_is_so_already_is_skipped_and_those_behind_it_go_on() -> None:
    async with Rig() as rig:
        rig.world.hosts["s0"] = "b"
        rig.world.hosts["s1"] = "q"
        await rig.plan(move("s0"), move("s1", "a", "c", 0), move("s2", "a", "d", 1))
        await rig.pass_time(30)
        assert rig.ends() == ["SKIPPED/skipped", "SKIPPED/skipped", "SUCCEEDED/done"]
        assert [action.status_message for action in rig.actions()] == ["it is there already", "it is not on a", None]
        assert (rig.of_plan().state, rig.of_plan().status_message) == ("SUCCEEDED", "One or more actions were skipped.")


async def test_what_a_user_has_skipped_stays_so() -> None:
    async with Rig(approval=True) as rig:
        await rig.plan(move("s0"), move("s1", "a", "c", 0))
        text = "Action skipped by user. Reason: no"
        await rig.records.update(Action, "plan/0", lambda now: replace(now, state="SKIPPED", status_message=text))
        await rig.records.update(ActionPlan, "plan", lambda plan: replace(plan, approved_by="ada"))
        await rig.pass_time(30)
        assert rig.ends() == ["SKIPPED", "SUCCEEDED/done"]
        assert rig.actions()[0].status_message == text
        assert rig.of_plan().status_message == "One or more actions were skipped."


async def test_a_dry_run_looks_and_does_nothing() -> None:
    async with Rig(approval=True, change_windows=("sat 00:00-01:00",)) as rig:
        rig.world.hosts["s1"] = "c"
        await rig.plan(move("s0"), move("s1", "a", "c", 0), move("s2", "a", "d", 1, fails="check"), dry_run=True)
        await rig.pass_time(1)
        assert [action.status_message for action in rig.actions()] == [
            "Dry run: would be done.",
            "Dry run: would be skipped: it is there already",
            "Dry run: would fail: check of s2 is made to fail",
        ]
        assert {action.state for action in rig.actions()} == {"SKIPPED"}
        assert not rig.world.asked
        plan = rig.of_plan()
        assert plan.state == "SUCCEEDED"
        assert plan.status_message == "Dry run: 1 would be done, 1 would fail, 1 would be skipped."


# --- limits --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({}, {"all": 7, "pair:a>b": 1, "host:a": 2, "host:b": 1}),
        ({"parallel": 3, "per_host": 0, "per_pair": 0}, {"all": 3}),
        ({"per_pair": 2, "per_host": 4}, {"pair:a>b": 2, "host:a": 4}),
        ({"per_host": 1}, {"host:a": 1, "all": 4}),
        ({"parallel": 50, "per_zone": 2, "per_host": 0, "per_pair": 0}, {"all": 2}),
    ],
)
async def test_limits_hold_and_are_used_up(limits: dict[str, Any], most: dict[str, int]) -> None:
    rig = Rig(**limits)
    rig.zones = dict.fromkeys("abcdefghijkl", "z")
    async with rig:
        pairs = [("a", "b"), ("a", "c"), ("a", "d"), ("e", "f"), ("e", "g"), ("h", "i"), ("h", "i"), ("j", "k"), ("j", "l")]
        await rig.plan(*(move(f"s{n}", *pairs[n % len(pairs)], seconds=5) for n in range(54)))
        await rig.pass_time(300, 2.5)
        assert rig.ends() == ["SUCCEEDED/done"] * 54
        assert {place: rig.world.most[place] for place in most} == most


async def test_one_resource_has_one_action_at_a_time_whatever_the_records_say() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0", "a", "b"), move("s0", "b", "c"))
        await rig.pass_time(60)
        assert rig.ends() == ["SUCCEEDED/done"] * 2
        assert rig.world.hosts["s0"] == "c"


async def test_a_full_place_holds_up_only_what_needs_it() -> None:
    async with Rig() as rig:
        await rig.plan(*(move(f"s{n}", "a", "b", seconds=1_000) for n in range(3)), move("s9", "x", "y"))
        await rig.pass_time(30)
        assert rig.ends() == ["ONGOING", "PENDING", "PENDING", "SUCCEEDED/done"]


def test_ten_thousand_that_wait_for_one_place_are_not_looked_at_again_and_again() -> None:
    uuids = [str(n) for n in range(10_000)]
    walk = Walk(uuids, dict.fromkeys(uuids, ()), dict.fromkeys(uuids, ("host:a", "pair:a>b")), Limits())
    done = []
    while (uuid := walk.take()) is not None:
        assert walk.take() is None
        walk.release(uuid)
        walk.over(uuid)
        done.append(uuid)
    assert done == uuids


# --- cancelling ----------------------------------------------------------------------------------------------------------------


async def test_cancelling_stops_what_can_be_stopped_and_waits_for_the_rest() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0"), move("s1", "c", "d", how="push"), move("s2", "a", "e", 0), move("s3", "f", "g", fails="abort"))
        await rig.pass_time(5)
        await rig.set_state("CANCELLING")
        await rig.pass_time(10)
        assert rig.ends() == ["CANCELLED/cancelled", "ONGOING", "CANCELLED/cancelled", "CANCELLING"]
        assert rig.of_plan().state == "CANCELLING"
        await rig.pass_time(30)
        assert rig.ends() == ["CANCELLED/cancelled", "SUCCEEDED/done", "CANCELLED/cancelled", "CANCELLED/done"]
        plan = rig.of_plan()
        assert (plan.state, plan.status_message) == ("CANCELLED", "Cancelled: 2 of 4 actions were done.")
        assert rig.history["plan"] == ["PENDING", "ONGOING", "CANCELLING", "CANCELLED"]
        assert rig.history["plan/0"] == ["PENDING", "ONGOING", "CANCELLING", "CANCELLED"]
        assert sorted(rig.world.aborted) == ["s0", "s3"]
        assert rig.world.hosts == {"s0": "a", "s1": "d", "s2": "a", "s3": "g"}
        assert not rig.wrong


async def test_a_plan_cancelled_while_its_last_action_ends_is_never_succeeded() -> None:
    """Watcher overwrote the one by the other."""
    in_time = []
    for turns in range(20):
        rig = Rig()
        rig.store = cast(Store, Slow(rig.store, 3))
        async with rig:
            tasks: list[asyncio.Task[None]] = []
            found: list[str] = []

            async def cancels(rig: Rig = rig, turns: int = turns, found: list[str] = found) -> None:
                for _ in range(turns):
                    await asyncio.sleep(0)

                def change(plan: ActionPlan) -> ActionPlan:
                    found.append(plan.state)
                    return replace(plan, state="CANCELLING") if plan.state == "ONGOING" else plan

                await rig.records.update(ActionPlan, "plan", change)

            def last(before: Record | None, now: Record | None, tasks: list[asyncio.Task[None]] = tasks) -> None:
                if isinstance(now, Action) and now.state == "SUCCEEDED":
                    tasks.append(asyncio.create_task(cancels()))

            rig.records.on_change.append(last)
            await rig.plan(move("s0"))
            await rig.pass_time(30)
            await asyncio.gather(*tasks)
            await rig.turn()
            in_time.append(found[-1] == "ONGOING")
            assert rig.of_plan().state == ("CANCELLED" if in_time[-1] else "SUCCEEDED")
            assert rig.ends() == ["SUCCEEDED/done"]
    assert set(in_time) == {True, False}, "both sides of the moment were tried"


@pytest.mark.parametrize("turns", range(30))
async def test_cancelled_at_any_turn_of_its_beginning(turns: int) -> None:
    async with Rig() as rig:
        rig.world.hosts["s0"] = "a"
        await rig.plan(move("s0"), move("s1", "c", "d"), state="RECOMMENDED")
        await rig.records.update(ActionPlan, "plan", lambda plan: replace(plan, state="PENDING"))
        for _ in range(turns):
            await asyncio.sleep(0)
        now = rig.of_plan().state
        await rig.records.update(
            ActionPlan, "plan", lambda plan: replace(plan, state="CANCELLING" if plan.state == "ONGOING" else "CANCELLED")
        )
        await rig.pass_time(5)
        assert now in ("PENDING", "ONGOING")
        assert rig.of_plan().state == "CANCELLED"
        assert rig.ends() == ["CANCELLED/cancelled"] * 2
        assert {rig.world.where("s0"), rig.world.where("s1")} == {"a", "c"}
        assert not rig.world.moving
        assert not rig.wrong


@pytest.mark.parametrize("state", ["RECOMMENDED", "PENDING"])
async def test_a_plan_cancelled_before_it_is_begun_takes_its_actions_along(state: str) -> None:
    async with Rig(approval=True) as rig:
        await rig.plan(move("s0"), note(), state=state)
        await rig.set_state("CANCELLED")
        assert rig.ends() == ["CANCELLED/cancelled"] * 2
        assert rig.ended == []


async def test_cancelled_while_nobody_was_there() -> None:
    rig = Rig(approval=True)
    async with rig:
        await rig.plan(note())
    await rig.records.update(ActionPlan, "plan", lambda plan: replace(plan, state="CANCELLED"))
    async with rig:
        assert rig.ends() == ["CANCELLED/cancelled"]


async def test_cancelling_while_it_is_rolled_back_stops_there() -> None:
    async with Rig(per_host=1) as rig:
        await rig.plan(move("s0"), move("s1", "a", "b", 0), note(1, fails="run"), policy="rollback")
        await rig.pass_time(50)
        assert rig.of_plan().undoing
        await rig.set_state("CANCELLING")
        await rig.pass_time(50)
        assert rig.ends() == ["SUCCEEDED/not undone", "SUCCEEDED/undone", "FAILED/failed"]
        assert rig.of_plan().state == "CANCELLED"
        assert "Rolled back: 1 undone. Not undone: 1: plan/0" in (rig.of_plan().status_message or "")


async def test_a_failure_while_it_is_cancelled_is_told_and_it_is_still_cancelled() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0", how="push", fails="late"))
        await rig.set_state("CANCELLING")
        await rig.pass_time(40)
        assert rig.ends() == ["FAILED/failed"]
        assert rig.of_plan().state == "CANCELLED"
        assert "Action plan/0 (push s0) failed: late of s0" in (rig.of_plan().status_message or "")


# --- deadlines -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "ends", "text"),
    [
        ({"seconds": 500}, "FAILED/failed", "It took longer than 100 seconds: it was not done."),
        (
            {"seconds": 500, "how": "push"},
            "FAILED/unsure",
            "It took longer than 100 seconds, and the cloud can't tell what becomes of it.",
        ),
        (
            {"seconds": 500, "blind": True},
            "FAILED/unsure",
            "It took longer than 100 seconds, and the cloud can't tell what becomes of it.",
        ),
        ({"seconds": 50}, "SUCCEEDED/done", None),
    ],
)
async def test_an_action_has_its_time(more: dict[str, Any], ends: str, text: str | None) -> None:
    async with Rig(action_timeout=100.0) as rig:
        await rig.plan(move("s0", **more))
        await rig.pass_time(250, 5)
        assert rig.ends() == [ends]
        assert rig.actions()[0].status_message == text


async def test_a_wait_that_is_given_up_is_no_end_of_what_goes_on() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0", seconds=500, patience=30))
        await rig.pass_time(40)
        assert rig.ends() == ["FAILED/unsure"]
        assert rig.actions()[0].status_message == "s0 on b: not so after 30 seconds"
        assert rig.world.moving


async def test_an_undoing_that_is_given_up_is_unsure_as_long_as_it_goes_on() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0", patience=25), note(0, fails="run"), policy="rollback")
        await rig.pass_time(25)
        target, _ = rig.world.moving["s0"]
        rig.world.moving["s0"] = (target, 1e9)
        await rig.pass_time(120)
        assert rig.ends() == ["SUCCEEDED/unsure", "FAILED/failed"]
        text = "Not undone, as far as the cloud can tell: s0 on a: not so after 25 seconds"
        assert rig.actions()[0].status_message == text
        assert text in (rig.of_plan().status_message or "")


async def test_news_of_the_object_ends_the_wait_at_once() -> None:
    """It is looked for after 20.8 seconds and then after 30.8."""
    async with Rig() as rig:
        await rig.plan(move("s0", seconds=25))
        await rig.pass_time(26)
        assert rig.ends() == ["ONGOING"]
        told = Reading(kind="Server", id="s0", verb="create", as_of=1, project="p", fields={"host": "b"})
        payload = msgspec.Raw(b"{}")
        await rig.store.append([NewEntry(Notice(id="n", source="one", event_type="x", sent_at=1, payload=payload), (told,))])
        await rig.turn()
        assert rig.ends() == ["SUCCEEDED/done"]


async def test_what_an_action_says_is_written_once_a_second() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0"))
        await rig.pass_time(5, 0.1)
        said = [change for change in await _changes(rig) if change == "moving to b"]
        assert len(said) == 1


async def _changes(rig: Rig) -> list[str | None]:
    found, _ = await rig.store.entries(rig.store.oldest)
    bodies = [change.now.body for one in found for change in one.changes if change.key.kind == "Action"]
    messages = [msgspec.json.decode(body)["status"].get("status_message") for body in bodies]
    return [message for n, message in enumerate(messages) if n == 0 or messages[n - 1] != message]


# --- when --------------------------------------------------------------------------------------------------------------------


async def test_one_plan_at_a_time_and_the_others_say_for_what_they_wait() -> None:
    async with Rig() as rig:
        await rig.plan(move("s0"), uuid="one")
        await rig.plan(move("s1"), uuid="two")
        await rig.plan(note(), uuid="three")
        await rig.turn()
        assert [rig.of_plan(one).state for one in ("one", "two", "three")] == ["ONGOING", "PENDING", "PENDING"]
        assert rig.of_plan("two").status_message == "waits for action plan one"
        assert rig.of_plan("three").status_message == "waits for action plan two"
        await rig.pass_time(30)
        assert [rig.of_plan(one).state for one in ("one", "two", "three")] == ["SUCCEEDED", "ONGOING", "PENDING"]
        await rig.pass_time(30)
        assert [plan.uuid for plan in rig.ended] == ["one", "two", "three"]
        assert {plan.status_message for plan in rig.ended} == {None}


async def test_approval() -> None:
    async with Rig(approval=True) as rig:
        await rig.plan(note(), uuid="one")
        await rig.plan(note(), uuid="two", approved_by="ada")
        assert rig.of_plan("one").status_message == "waits for approval: vedette plans approve one"
        assert [plan.uuid for plan in rig.ended] == ["two"]
        await rig.records.update(ActionPlan, "one", lambda plan: replace(plan, approved_by="ada"))
        await rig.turn()
        assert [plan.uuid for plan in rig.ended] == ["two", "one"]


async def test_outside_the_window_a_plan_waits_and_says_until_when() -> None:
    # It is Friday 15:19:06 UTC, 16:19:06 in Vienna.
    async with Rig(change_windows=("mon-fri 18:00-19:00",), timezone="Europe/Vienna") as rig:
        await rig.plan(move("s0"))
        assert rig.of_plan().state == "PENDING"
        assert rig.of_plan().status_message == "waits for the next change window: Fri 2026-11-20 18:00 Europe/Vienna"
        await rig.clock.advance(100 * 60)
        assert rig.of_plan().state == "PENDING"
        await rig.clock.advance(60)
        assert rig.of_plan().state == "ONGOING"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"parallel": 0}, "parallel is 0"),
        ({"change_windows": ("sometimes",)}, "'sometimes' is no change window"),
        ({"timezone": "Mars/Olympus"}, "there is no time zone 'Mars/Olympus'"),
    ],
)
async def test_settings_that_can_not_be(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        await Rig(**wrong).start()


async def test_what_nobody_started_expires() -> None:
    async with Rig(expiry=3_600.0) as rig:
        await rig.plan(note(), state="RECOMMENDED", uuid="old")
        await rig.clock.advance(1_800)
        await rig.plan(note(), state="RECOMMENDED", uuid="new")
        await rig.clock.advance(3_600)
        assert [rig.of_plan(one).state for one in ("old", "new")] == ["SUPERSEDED", "RECOMMENDED"]
        assert rig.of_plan("old").status_message == "Nobody started it within 1 hours."
        await rig.clock.advance(1_800)
        assert rig.of_plan("new").state == "SUPERSEDED"


async def test_what_is_counted() -> None:
    async with Rig() as rig:
        await rig.plan(note(), note(fails="run"), policy="continue")
        await rig.plan(note(), uuid="next", state="RECOMMENDED")
        text = rig.telemetry.render().decode()
        assert 'vedette_actions_total{outcome="done",type="note"} 1.0' in text
        assert 'vedette_actions_total{outcome="failed",type="note"} 1.0' in text
        assert 'vedette_action_plans{state="RECOMMENDED"} 1.0' in text
        assert 'vedette_action_plans{state="ONGOING"} 0.0' in text
        assert 'vedette_action_plans{state="FAILED"} 1.0' in text
        assert 'vedette_action_plans_ended_total{state="FAILED"} 1.0' in text
        assert "vedette_actions_running 0.0" in text


# --- crashes -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("during", "found", "ends", "asked"),
    [
        (5, "running", "SUCCEEDED/done", 1),
        (5, "done", "SUCCEEDED/done", 1),
        (5, "undone", "SUCCEEDED/done", 2),
        (5, "elsewhere", "FAILED/unsure", 1),
    ],
)
async def test_a_new_process_takes_up_what_was_begun(during: float, found: str, ends: str, asked: int) -> None:
    rig = Rig()
    async with rig:
        await rig.plan(move("s0"), move("s1", "a", "c", 0))
        await rig.pass_time(during)
    if found != "running":
        rig.world.moving.clear()
        rig.world.hosts["s0"] = {"done": "b", "undone": "a", "elsewhere": "q"}[found]
    async with rig:
        await rig.pass_time(60)
        assert rig.ends()[0] == ends
        assert len([server for _, server, _ in rig.world.asked if server == "s0"]) == asked
        assert rig.actions()[0].attempt == (1 if found in ("done", "elsewhere") else 2)
        if ends.startswith("FAILED"):
            assert "the cloud can't tell" in (rig.actions()[0].status_message or "")
            assert rig.of_plan().state == "FAILED"


async def test_a_process_that_comes_back_to_a_cancelled_plan_begins_nothing() -> None:
    rig = Rig()
    async with rig:
        await rig.plan(move("s0"), move("s1", "c", "d", how="push"), move("s2", "a", "e", 0))
        await rig.pass_time(5)
    await rig.records.update(ActionPlan, "plan", lambda plan: replace(plan, state="CANCELLING"))
    async with rig:
        await rig.pass_time(60)
        assert rig.ends() == ["CANCELLED/cancelled", "CANCELLED/done", "CANCELLED/cancelled"]
        assert rig.of_plan().state == "CANCELLED"
        assert len(rig.world.asked) == 2


async def test_a_rollback_goes_on_after_a_crash() -> None:
    rig = Rig()
    async with rig:
        await rig.plan(move("s0"), move("s1", "a", "c", 0), note(1, fails="run"), policy="rollback")
        await rig.pass_time(50)
        assert rig.of_plan().undoing
        assert rig.ends()[:2] == ["SUCCEEDED/done", "SUCCEEDED/undoing"]
    async with rig:
        await rig.pass_time(60)
        assert rig.ends() == ["SUCCEEDED/undone", "SUCCEEDED/undone", "FAILED/failed"]
        assert rig.world.hosts == {"s0": "a", "s1": "a"}
        assert len(rig.world.asked) == 4
        assert rig.of_plan().state == "FAILED"
        assert not rig.of_plan().undoing
        assert not rig.wrong
