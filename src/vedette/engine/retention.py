"""Keeps the log within its age and size, in short batches between which writers get their turn."""

from __future__ import annotations

import logging

import msgspec

from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.ports import Store

log = logging.getLogger("vedette.engine.retention")

EVERY_SECONDS = 10.0
BATCH = 500
"""Entries a batch: a few milliseconds of the writer."""
BREATH_SECONDS = 0.05


class Keep(msgspec.Struct, frozen=True):
    """How much history. 0 is no limit."""

    max_age: float = 7 * 86_400.0
    """Seconds since the append (never the notice's own timestamp)."""
    max_bytes: int = 20 * 1024**3


class Retention:
    def __init__(self, store: Store, keep: Keep, clock: Clock, telemetry: Telemetry) -> None:
        self._store = store
        self._keep = keep
        self._clock = clock
        self._gone = telemetry.counter("retention_entries_total", "Entries that age or size took out of the log")

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            gone = await self.once()
            if gone:
                log.info("retention removed entries", extra=kv(entries=gone, oldest=self._store.oldest))
            await self._clock.sleep(EVERY_SECONDS)

    async def once(self) -> int:
        """Remove all that is due; how many entries went."""
        total = 0
        horizon = self._clock.now_us() - int(self._keep.max_age * 1_000_000) if self._keep.max_age else 0
        while gone := await self._store.retain(horizon=horizon, max_bytes=self._keep.max_bytes, most=BATCH):
            total += gone
            self._gone.inc(gone)
            await self._clock.sleep(BREATH_SECONDS)
        return total
