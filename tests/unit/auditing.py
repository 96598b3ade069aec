"""What tests of audits stand on: a store in memory with a small cloud in it, strategies and meters that do as they are told."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from vedette.advice import Adviser, Options
from vedette.engine.advising import Advising
from vedette.engine.audits import Audits, AuditSettings, Settings
from vedette.engine.catalogue import id_of, sync
from vedette.engine.records import Records
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.advice import Metrics, Proposed, Query, Resource, Solution, Trigger
from vedette.model.audit import ActionPlan, Audit, GoalRecord, StrategyRecord
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.model.snapshot import Snapshot
from vedette.ports import Action, Hands, JsonObject, Meter, Ready, Store, Strategy
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

CLOUD = "region-one"


async def _check(hands: Hands, parameters: JsonObject) -> Ready:
    return Ready()


async def _nothing(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    return None


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Any:
    return "done"


NOP = Action(name="nop", doc="Says something.", schema={}, check=_check, run=_nothing, verify=_nothing, look=_look)


class Asked:
    """A strategy of goal `dummy` that keeps what it was asked, and proposes one `nop`."""

    def __init__(self, name: str = "dummy", wants: Sequence[Query] = ()) -> None:
        self.calls: list[tuple[Snapshot, Metrics, JsonObject, Sequence[Trigger]]] = []
        self.answer: Callable[[], Solution] = lambda: Solution(actions=(Proposed("nop", {"message": "hello"}),))
        self.strategy = Strategy(
            name=name,
            display_name=name,
            goal="dummy",
            doc="",
            metrics=lambda snapshot, parameters: wants,
            propose=self._propose,
        )

    def _propose(self, snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
        self.calls.append((snapshot, metrics, parameters, triggers))
        return self.answer()


class Inside:
    """The process of advice.py, without a process. `gate`: what a test holds a message up with."""

    def __init__(self, adviser: Adviser) -> None:
        self._adviser = adviser
        self.gate: Callable[[bytes], Awaitable[None]] | None = None

    async def call(self, message: bytes, timeout: float) -> bytes:
        if self.gate is not None:
            await self.gate(message)
        return msgspec.json.encode(self._adviser.call(message))

    async def close(self) -> None:
        """There is none."""


class Told:
    """A meter that tells what a test has put into `values`: metric → id → value."""

    def __init__(self, values: Mapping[str, Mapping[str, float]]) -> None:
        self.values = values
        self.metrics = frozenset(values)
        self.asked: list[tuple[Query, tuple[str, ...], int]] = []
        self.trouble: Exception | None = None

    async def read(self, query: Query, resources: Sequence[Resource], at: int) -> Mapping[str, float]:
        self.asked.append((query, tuple(one.id for one in resources), at))
        if self.trouble is not None:
            raise self.trouble
        return {one.id: self.values[query.metric][one.id] for one in resources if one.id in self.values[query.metric]}

    async def state(self) -> str:
        return "available"

    async def close(self) -> None:
        """Nothing is open."""


class Place:
    """Everything but the applier. The same store may be run on again: that is what a restart is."""

    def __init__(
        self,
        *asked: Asked,
        store: Store | None = None,
        clock: FakeClock | None = None,
        meters: Sequence[Meter] = (),
        runs: int = 2,
        **settings: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.store: Store = store or MemoryStore(self.clock)
        self.asked = list(asked) or [Asked()]
        self.strategies = {one.strategy.name: one.strategy for one in self.asked}
        self.meters = meters
        self.settings = Settings(source=CLOUD, usual=AuditSettings(**settings), runs=runs, remember_alarms=True)
        self.records: Records
        self.audits: Audits
        self.inside: Inside

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Audits]:
        self.records = Records(self.store, self.clock, "here")
        await self.records.load()
        await sync(self.records, self.strategies)
        self.inside = Inside(Adviser(self.strategies, {"nop": NOP}, Options()))
        advising = Advising(self.store, self.inside, self.strategies, self.clock, timeout=10)
        audits = self.audits = Audits(
            self.store,
            self.records,
            [advising],
            self.strategies,
            {"nop": NOP},
            self.meters,
            self.clock,
            Telemetry(),
            self.settings,
        )
        await audits.load()
        task = asyncio.create_task(audits.run())
        try:
            yield audits
        finally:
            await cancel(task)
            await advising.close()

    async def audit(self, kind: str = "EVENT", name: str = "a", strategy: str = "dummy", **more: Any) -> Audit:
        """As the API would make it."""
        audit = Audit(
            uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
            name=name,
            audit_type=kind,  # type: ignore[arg-type]
            goal_uuid=id_of(GoalRecord, "dummy"),
            goal_name="dummy",
            strategy_uuid=id_of(StrategyRecord, strategy),
            strategy_name=strategy,
            **more,
        )
        (kept,) = await self.records.write([audit])
        assert isinstance(kept, Audit)
        return kept

    async def set(self, audit: Audit, **fields: Any) -> Audit:
        return await self.records.update(Audit, audit.uuid, lambda one: msgspec.structs.replace(one, **fields))

    def now(self, audit: Audit) -> Audit:
        return self.records.get(Audit, audit.uuid)

    def plans(self, audit: Audit) -> list[ActionPlan]:
        return self.records.plans_of(audit.uuid)

    async def rest(self) -> None:
        """Until everything that is due now has come to rest."""
        await self.clock.advance(0)
        await self.clock.advance(0.001)

    async def host(self, name: str, **fields: Any) -> None:
        """A hypervisor with its compute service."""
        await self.there("Hypervisor", f"h-{name}", {
            "hypervisor_hostname": name, "state": "up", "status": "enabled", "vcpus": 8, "memory_mb": 16_384, "local_gb": 100,
            "service": {"id": f"s-{name}", "host": name, "disabled_reason": None}, **fields,
        })  # fmt: skip
        await self.there(
            "ComputeService", f"s-{name}", {"binary": "nova-compute", "host": name, "status": "enabled", "state": "up"}
        )

    async def server(self, id_: str, host: str, **fields: Any) -> None:
        admin = {"OS-EXT-SRV-ATTR:host": host, "OS-EXT-SRV-ATTR:hypervisor_hostname": host}
        flavor = {"vcpus": 1, "ram": 1024, "disk": 10, "ephemeral": 0, "original_name": "small"}
        await self.there("Server", id_, {"name": id_, "status": "ACTIVE", "flavor": flavor, **fields}, admin, project="p1")

    async def there(self, kind: str, id_: str, fields: JsonObject, admin: JsonObject | None = None, project: str = "") -> None:
        now = self.clock.now_us()
        notice = Notice(
            id=str(uuid.uuid4()), source=CLOUD, event_type=f"{kind.lower()}.update", sent_at=now, payload=msgspec.Raw(b"{}")
        )
        reading = Reading(kind=kind, id=id_, verb="create", as_of=now, project=project, fields=fields, admin=admin or {})
        await self.store.append([NewEntry(notice, (reading,))])
