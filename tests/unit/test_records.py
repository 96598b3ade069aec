"""engine/records.py: what is written is what is read, by whomever, also after a restart."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from vedette.engine.records import Records
from vedette.errors import Conflict, NotFound, Refused
from vedette.model.audit import Action, ActionPlan, Audit, Record
from vedette.model.reading import VEDETTE
from vedette.ports import EVERYTHING, Selection
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock


def audit(uuid: str = "u1", name: str = "one", **more: object) -> Audit:
    return Audit(uuid=uuid, name=name, audit_type="EVENT", goal_uuid="g", goal_name="dummy", **more)  # type: ignore[arg-type]


async def loaded(store: MemoryStore, clock: FakeClock) -> Records:
    records = Records(store, clock, "here")
    await records.load()
    return records


async def test_what_is_written_is_there_for_others_and_after_a_restart() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    one, other = await loaded(store, clock), await loaded(store, clock)
    await one.write([audit(), audit("u2", "two")])
    assert [found.name for found in other.all(Audit)] == ["one", "two"]
    assert other.find(Audit, "two") == other.find(Audit, "u2") == one.get(Audit, "u2")
    await other.update(Audit, "u1", lambda found: msgspec.structs.replace(found, name="uno", state="ONGOING"))
    assert one.get(Audit, "u1").state == "ONGOING"
    assert (one.named(Audit, "uno"), one.named(Audit, "one")) == ("u1", "")
    again = await loaded(store, clock)
    assert again.all(Audit) == one.all(Audit)
    page = await store.objects(Selection(EVERYTHING, group=VEDETTE, kind="Audit"))
    assert [msgspec.json.decode(version.body)["status"]["name"] for _, version in page.items] == ["uno", "two"]


async def test_a_clock_that_was_set_back_loses_no_write() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    records = await loaded(store, clock)
    await records.write([audit()])
    clock.step(-3600)
    again = await loaded(store, clock)
    await again.update(Audit, "u1", lambda found: msgspec.structs.replace(found, state="ONGOING"))
    assert again.get(Audit, "u1").state == "ONGOING"
    await again.write(deletes=[again.get(Audit, "u1")])
    assert again.all(Audit) == []


async def test_who_comes_second_gets_a_conflict_and_update_asks_again() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    one, other = await loaded(store, clock), await loaded(store, clock)
    await one.write([audit()])
    stale = Records(store, clock)  # it knows of none
    with pytest.raises(Conflict):
        await stale.write([audit(state="FAILED")])
    assert one.get(Audit, "u1").state == "PENDING"

    async def add(records: Records) -> None:
        for _ in range(20):
            await records.update(Audit, "u1", lambda found: msgspec.structs.replace(found, runs=found.runs + 1))

    await asyncio.gather(add(one), add(other))
    assert one.get(Audit, "u1").runs == 40


async def test_all_of_a_write_or_nothing() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    records = await loaded(store, clock)
    await records.write([audit()])
    stale = Records(store, clock)
    with pytest.raises(Conflict):
        await stale.write([audit("u9", "nine"), audit()])
    assert [found.uuid for found in records.all(Audit)] == ["u1"]


async def test_deleting_is_soft_until_it_is_purged() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    records = await loaded(store, clock)
    seen: list[tuple[str, str]] = []
    records.on_change.append(
        lambda before, now: seen.append((before.uuid if before else "", now.uuid if now else ""))  # type: ignore[func-returns-value]
    )
    await records.write([audit(), audit("u2", "two")])
    await records.write(deletes=[records.get(Audit, "u1")])
    with pytest.raises(NotFound):
        records.find(Audit, "one")
    assert seen == [("", "u1"), ("", "u2"), ("u1", "")]
    (kept,) = await records.deleted(Audit)
    assert (kept.name, kept.state, kept.deleted_at is not None) == ("one", "DELETED", True)
    clock.tick(10)
    await records.write(deletes=[records.get(Audit, "u2")])
    old = clock.now_us() - 5_000_000
    assert await records.purge(old, dry_run=True) == {"Audit": 1}
    assert len(await records.deleted(Audit)) == 2
    assert await records.purge(old, ["ActionPlan"]) == {}
    assert await records.purge(old) == {"Audit": 1}
    assert [found.name for found in await records.deleted(Audit)] == ["two"]
    await records.write([audit("u1", "one")])
    assert records.find(Audit, "one").state == "PENDING"


async def test_purging_is_bounded_and_may_be_for_one_goal() -> None:
    clock = FakeClock()
    records = await loaded(MemoryStore(clock), clock)
    other = msgspec.structs.replace(audit("u2", "two"), goal_uuid="another")
    plans = [ActionPlan(uuid=f"p{n}", audit_uuid=f"u{n}", strategy_uuid="s", strategy_name="dummy") for n in (1, 2)]
    actions = [Action(uuid=f"a{n}", action_plan_uuid=f"p{n}", audit_uuid=f"u{n}", action_type="nop", order=1) for n in (1, 2)]
    await records.write([audit(), other, *plans, *actions])
    await records.write(deletes=[other, *plans, *actions])
    clock.tick(1)
    now = clock.now_us()
    with pytest.raises(Refused, match="there are 5 to forget, more than 4"):
        await records.purge(now, most=4)
    # The audit of p1 is still there, so that its goal is known.
    assert await records.purge(now, goal=audit().goal_uuid, dry_run=True) == {"ActionPlan": 1, "Action": 1}
    assert await records.purge(now, goal="another", most=3) == {"Audit": 1, "ActionPlan": 1, "Action": 1}
    assert [one.uuid for one in await records.deleted(ActionPlan)] == ["p1"]
    assert await records.purge(now, goal="nobody's") == {}


async def test_plans_and_actions_are_found_by_what_they_belong_to() -> None:
    clock = FakeClock()
    store = MemoryStore(clock)
    records = await loaded(store, clock)
    plan = ActionPlan(uuid="p1", audit_uuid="u1", strategy_uuid="s", strategy_name="dummy")
    actions: list[Record] = [
        Action(uuid=f"a{n}", action_plan_uuid="p1", audit_uuid="u1", action_type="nop", order=3 - n) for n in range(3)
    ]
    await records.write([audit(), plan, *actions])
    for known in (records, await loaded(store, clock)):
        assert [one.uuid for one in known.plans_of("u1")] == ["p1"]
        assert [one.uuid for one in known.actions_of("p1")] == ["a2", "a1", "a0"]
    await records.write(deletes=[records.get(Action, "a1")])
    assert [one.uuid for one in records.actions_of("p1")] == ["a2", "a0"]
