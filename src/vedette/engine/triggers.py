"""Triggers of EVENT audits that wait for a run: durable before anybody is told yes, taken by the write that begins the run.

engine/audits.py asks. Each trigger is an entry of the log (`vedette.audit.trigger`, with the alarm), and a row beside it until
its run has begun. Of very many for one run only the first are rows: the others are entries, and counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import msgspec

from vedette.engine.alarms import remembered
from vedette.engine.records import OWNER
from vedette.kit.clock import Clock
from vedette.model.advice import Trigger
from vedette.model.audit import Audit
from vedette.model.delivery import PutState, Work
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE_SOURCE
from vedette.ports import Store

WAITING, RUNNING = "trigger", "run"
"""Spaces of the rows: those that wait, by `<audit>/<time>/<number>`; those that a run has taken, by the audit."""
TRIGGER_EVENT = "vedette.audit.trigger"

MOST_KEPT = 100
"""Triggers that a strategy is shown, and that stand on a plan."""


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has begun, as it is kept until it has ended."""

    number: int
    """The audit's run, from 1."""
    started_at: int
    """UTC microseconds."""
    attempt: int = 1
    """More after a crash in the middle."""
    triggers: list[Trigger] = []
    """Oldest first, at most MOST_KEPT."""
    count: int = 0
    """How many there were."""


class Waiting:
    """What waits for one audit."""

    def __init__(self) -> None:
        self.kept: deque[tuple[str, Trigger]] = deque()
        """(row, trigger)"""
        self.more = 0
        """Those beyond that are only in the log."""
        self.taking = 0
        """The first so many are being taken by a run that begins: what comes now waits for the next one."""
        self.more_taking = 0

    @property
    def count(self) -> int:
        return len(self.kept) + self.more

    def full(self, keep: int) -> bool:
        return len(self.kept) - self.taking >= keep


class Triggers:
    """All that wait. `load` first."""

    def __init__(self, store: Store, clock: Clock, *, remember_alarms: bool = False) -> None:
        """`remember_alarms`: somebody compares alarms (engine/alarms.py), and what a webhook told is kept for that."""
        self._store = store
        self._clock = clock
        self._waiting: dict[str, Waiting] = {}
        self._last = 0
        self._remember_alarms = remember_alarms

    async def load(self) -> dict[str, Taken]:
        """What waits; and the runs that were under way, by their audits."""
        for row in await self._store.state(OWNER, WAITING):
            audit = row.key.partition("/")[0]
            trigger = msgspec.json.decode(row.value, type=Trigger)
            self._waiting.setdefault(audit, Waiting()).kept.append((row.key, trigger))
        return {row.key: msgspec.json.decode(row.value, type=Taken) for row in await self._store.state(OWNER, RUNNING)}

    def number(self) -> int:
        """Of all audits."""
        return sum(one.count for one in self._waiting.values())

    def waiting(self, audit: str) -> Waiting | None:
        """None: nothing waits."""
        return self._waiting.get(audit)

    async def add(
        self, audit: Audit, trigger: Trigger, *, keep: int = MOST_KEPT, key: str = "", work: Sequence[Work] = ()
    ) -> None:
        """Returns when it is durable, and `work` with it. `key`: an idempotency key; the same one that still waits is not counted
        again. `keep`: rows at a time; what comes beyond is covered by the run that those wait for. Raises StoreUnavailable."""
        now = self._last = max(self._clock.now_us(), self._last + 1)
        there = self._waiting.get(audit.uuid)
        row = f"{audit.uuid}/{key or f'{now:020d}'}"
        if there is not None and any(row == known for known, _ in there.kept):
            if work:
                await self._store.append([], work=work)
            return
        payload = {
            "audit": {"uuid": audit.uuid, "name": audit.name},
            "cause": trigger.cause,
            "rule": trigger.rule,
            "objects": list(trigger.objects),
            "alarm": trigger.alarm,
        }
        notice = Notice(
            id=f"{TRIGGER_EVENT}/{row}",
            source=VEDETTE_SOURCE,
            event_type=TRIGGER_EVENT,
            sent_at=now,
            payload=msgspec.Raw(msgspec.json.encode(payload)),
            origin="reconcile" if trigger.cause == "reconcile" else "vedette",
        )
        also = [*work, *(remembered(audit, trigger) if self._remember_alarms else ())]
        waits = PutState(OWNER, WAITING, row, msgspec.json.encode(trigger), due=now)
        full = there is not None and there.full(keep)
        revision = (await self._store.append([NewEntry(notice)], work=also if full else [waits, *also]))[0] or 0
        if full:
            there = self._waiting.get(audit.uuid)
            if there is not None and there.full(keep):
                there.more += 1
                return
            # The run that it was to go along with has begun while this was written.
            await self._store.append([], work=[waits])
        there = self._waiting.setdefault(audit.uuid, Waiting())
        there.kept.append((row, msgspec.structs.replace(trigger, revision=revision)))

    def take(self, audit: str, most: int) -> tuple[list[Trigger], int, list[Work]]:
        """(the first triggers, how many they stand for, the writes that take them away) for the write that begins a run; then
        `taken`, or `kept` when it wasn't written."""
        there = self._waiting.get(audit)
        if there is None:
            return [], 0, []
        some = list(there.kept)[:most]
        there.taking = len(some)
        there.more_taking = there.more if len(some) == len(there.kept) else 0
        count = len(some) + there.more_taking
        return [one for _, one in some], count, [PutState(OWNER, WAITING, row, None) for row, _ in some]

    def taken(self, audit: str) -> None:
        """They went with the write that began the run."""
        there = self._waiting.get(audit)
        if there is None:
            return
        there.more -= there.more_taking
        for _ in range(there.taking):
            there.kept.popleft()
        there.taking = there.more_taking = 0
        if not there.kept:
            self._waiting.pop(audit)

    def kept(self, audit: str) -> None:
        """They wait on: the run did not begin."""
        there = self._waiting.get(audit)
        if there is not None:
            there.taking = there.more_taking = 0

    def dropped(self, audit: str) -> list[Work]:
        """The writes that forget what waits for an audit that is gone."""
        there = self._waiting.pop(audit, None)
        return [] if there is None else [PutState(OWNER, WAITING, row, None) for row, _ in there.kept]
