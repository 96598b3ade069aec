"""Plans of real actions, put in order by the planner and carried out by the applier, against a Nova over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from acting import SECONDS, Place, place
from msgspec.structs import replace

from vedette import plugins
from vedette.engine.applier import Applier, ApplierSettings
from vedette.engine.planner import plan
from vedette.engine.records import Records
from vedette.kit.clock import SystemClock
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.advice import Proposed
from vedette.model.audit import Action, ActionPlan
from vedette.store.memory import MemoryStore

ENDS = ("SUCCEEDED", "FAILED", "CANCELLED")


class Carried:
    """One plan and what becomes of it."""

    def __init__(self, records: Records) -> None:
        self.records = records

    @property
    def plan(self) -> ActionPlan:
        return self.records.get(ActionPlan, "plan")

    @property
    def ends(self) -> list[str]:
        return [f"{action.action_type}: {action.state}/{action.outcome}" for action in self.records.actions_of("plan")]

    async def until(self, *states: str) -> ActionPlan:
        async with asyncio.timeout(SECONDS):
            while self.plan.state not in states:
                await asyncio.sleep(0.01)
        return self.plan


@asynccontextmanager
async def carried(here: Place, proposed: Sequence[Proposed], policy: str = "stop", stops: float = 0.0) -> AsyncIterator[Carried]:
    """`stops`: after so many seconds the process ends, and another one goes on."""
    clock, kinds = SystemClock(), plugins.actions()
    store = MemoryStore(clock)
    records = Records(store, clock)
    await records.load()
    made = plan(proposed, "graph", kinds)
    await records.write(
        [
            ActionPlan(uuid="plan", audit_uuid="a", strategy_uuid="s", strategy_name="s", state="PENDING", policy=policy),
            *(
                Action(
                    uuid=f"plan/{n}",
                    action_plan_uuid="plan",
                    audit_uuid="a",
                    action_type=one.action_type,
                    input_parameters=one.parameters,
                    parents=[f"plan/{parent}" for parent in one.parents],
                    order=n,
                )
                for n, one in enumerate(made)
            ),
        ]
    )

    async def process() -> None:
        applier = Applier(records, store, kinds, lambda: here.hands.cloud, clock, Telemetry(), ApplierSettings())
        try:
            await applier.run()
        finally:
            applier.close()

    task = asyncio.create_task(process())
    if stops:
        await asyncio.sleep(stops)
        await cancel(task)
        task = asyncio.create_task(process())
    try:
        yield Carried(records)
    finally:
        await cancel(task)


def leave(*servers: str, host: str = "fake-1") -> list[Proposed]:
    """A host is emptied for maintenance."""
    service = {"resource_id": host, "resource_name": host, "state": "disabled", "disabled_reason": "maintenance"}
    moves = [
        {"resource_id": id_, "migration_type": "live", "source_node": host, "destination_node": f"fake-{2 + n % 2}"}
        for n, id_ in enumerate(servers)
    ]
    return [*(Proposed("migrate", given) for given in moves), Proposed("change_nova_service_state", service)]


def status(here: Place, host: str) -> str:
    return next(row["status"] for row in here.fake.compute.services.values() if row["host"] == host)


async def test_a_host_is_emptied() -> None:
    async with place() as here:
        servers = [here.server() for _ in range(4)]
        async with carried(here, leave(*servers)) as it:
            ended = await it.until(*ENDS)
            assert (ended.state, ended.status_message) == ("SUCCEEDED", None)
            assert it.ends == ["change_nova_service_state: SUCCEEDED/done", *["migrate: SUCCEEDED/done"] * 4]
            assert [here.at(id_) for id_ in servers] == [("fake-2", "ACTIVE"), ("fake-3", "ACTIVE")] * 2
            assert status(here, "fake-1") == "disabled"
            written = {action.request_id for action in it.records.actions_of("plan")}
            assert set(here.fake.compute.moves.request_ids) <= written
            assert len(here.fake.compute.moves.request_ids) == 4


async def test_one_that_fails_takes_the_others_back() -> None:
    async with place() as here:
        servers = [here.server() for _ in range(3)]
        last = {"resource_id": servers[0], "migration_type": "live", "source_node": "fake-2", "destination_node": "fake-3"}
        proposed = [*leave(*servers), Proposed("migrate", last), Proposed("stop", {"resource_id": servers[0]})]
        here.fake.compute.moves.seconds = 0.1
        here.fake.compute.moves.fails.add(servers[2])
        async with carried(here, proposed, "rollback") as it:
            ended = await it.until(*ENDS)
            assert ended.state == "FAILED"
            assert "Nova did not move server" in (ended.status_message or "")
            assert [here.at(id_) for id_ in servers] == [("fake-1", "ACTIVE")] * 3
            assert status(here, "fake-1") == "enabled"
            outcomes = [end.rpartition("/")[2] for end in it.ends]
            assert outcomes.count("failed") == 1
            assert set(outcomes) <= {"undone", "failed", "cancelled"}


async def test_cancelling_aborts_a_migration_that_hangs() -> None:
    async with place() as here:
        id_ = here.server()
        here.fake.compute.moves.hangs.add(id_)
        async with carried(here, [*leave(id_), Proposed("sleep", {"duration": 3_600})]) as it:
            async with asyncio.timeout(SECONDS):
                while here.at(id_)[1] != "MIGRATING" or it.ends[2] != "sleep: ONGOING/":
                    await asyncio.sleep(0.01)
            await it.records.update(ActionPlan, "plan", lambda now: replace(now, state="CANCELLING"))
            ended = await it.until(*ENDS)
            assert ended.state == "CANCELLED"
            assert it.ends == [
                "change_nova_service_state: SUCCEEDED/done",
                "migrate: CANCELLED/cancelled",
                "sleep: CANCELLED/cancelled",
            ]
            assert here.at(id_) == ("fake-1", "ACTIVE")


async def test_a_process_that_comes_after_waits_for_the_migration_of_the_one_before() -> None:
    async with place() as here:
        servers = [here.server() for _ in range(2)]
        here.fake.compute.moves.seconds = 0.6
        async with carried(here, leave(*servers), stops=0.5) as it:
            ended = await it.until(*ENDS)
            assert ended.state == "SUCCEEDED"
            assert [here.at(id_) for id_ in servers] == [("fake-2", "ACTIVE"), ("fake-3", "ACTIVE")]
            assert [here.asked("os-migrateLive", id_) for id_ in servers] == [1, 1]
            assert max(action.attempt for action in it.records.actions_of("plan")) == 2
