"""Runs a mirror (mirrors/): full comparisons at the start, after a gap and on a timer; what it keeps goes to the log.

Changes reach a mirror as a handler, by engine/dispatch.py: in the order of each object, retried, to the dead letters when the
other system refuses one. What that can't tell (it was down for longer than the log goes back, somebody changed things there)
is found by `Mirror.compare`, which is called here. Objects that are mirrored are objects of the log too (`mirroredobjects`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from vedette.errors import NotFound, TryLater, VedetteError
from vedette.kit.clock import Clock, rfc3339_us
from vedette.kit.log import kv
from vedette.kit.tasks import wait_for_event
from vedette.kit.telemetry import Telemetry
from vedette.model.delivery import PutState, Work
from vedette.model.entry import NewEntry
from vedette.model.notice import GAP, Notice
from vedette.model.reading import VEDETTE, VEDETTE_SOURCE, Key, Reading
from vedette.ports import EVERYTHING, Appended, Cloud, Compared, Kind, Mirror, Mirrored, Selection, Store

log = logging.getLogger("vedette.engine.mirroring")

KIND = "MirroredObject"
EVENT = "mirrored_object"
SPACE = "mirror"
"""Of the state that a mirror remembers (model/delivery.py); its owner is the mirror."""
PATIENCE = 60.0
"""Seconds that the first comparison waits for the inventory to be listed: without it little can be removed, and nothing wrong be
done."""
LOOK = 0.25
"""Seconds between two looks at whether it is."""
FIRST_WAIT, MOST_WAIT = 1.0, 60.0
"""Seconds after a comparison that failed, doubled each time."""
CHUNK = 200
"""Entries of one write."""


class Keeper:
    """What a mirror tells and remembers, in the store. `load` first."""

    def __init__(self, name: str, store: Store, clock: Clock) -> None:
        self._name, self._store, self._clock = name, store, clock
        self._known: dict[str, Mirrored] = {}
        """By the id of the object in the log."""

    async def load(self) -> None:
        after: tuple[str, str] | None = None
        selection = Selection(EVERYTHING, group=VEDETTE, kind=KIND, prefix=f"{self._name}:")
        while True:
            page = await self._store.objects(selection, after=after, limit=1000)
            for key, version in page.items:
                self._known[key.id] = msgspec.json.decode(version.body, type=_Served).status
            after = page.after
            if after is None:
                return

    async def keep(self, there: Sequence[Mirrored], gone: Sequence[Mirrored]) -> None:
        """See ports.MirrorNeeds."""
        now = self._clock.now_us()
        new = {id_: one for one in there if self._known.get(id_ := ident(one)) != one}
        old = {id_: one for one in gone if (id_ := ident(one)) in self._known and id_ not in new}
        entries = [self._entry(now, id_, one, "create") for id_, one in new.items()]
        entries += [self._entry(now, id_, one, "delete") for id_, one in old.items()]
        for start in range(0, len(entries), CHUNK):
            await self._store.append(entries[start : start + CHUNK])
        self._known.update(new)
        for id_ in old:
            self._known.pop(id_, None)

    async def keep_only(self, there: Sequence[Mirrored]) -> None:
        """See ports.MirrorNeeds."""
        ids = {ident(one) for one in there}
        await self.keep(there, [one for id_, one in self._known.items() if id_ not in ids])

    async def recall(self) -> Mapping[str, bytes]:
        return {row.key: row.value for row in await self._store.state(self._name, SPACE)}

    async def remember(self, values: Mapping[str, bytes | None]) -> None:
        work: list[Work] = [PutState(self._name, SPACE, key, value) for key, value in values.items()]
        for start in range(0, len(work), 1_000):
            await self._store.append([], work=work[start : start + 1_000])

    def _entry(self, now: int, id_: str, one: Mirrored, verb: str) -> NewEntry:
        fields = msgspec.to_builtins(one)
        reading = Reading(
            kind=KIND,
            group=VEDETTE,
            id=id_,
            verb="delete" if verb == "delete" else "create",
            as_of=now,
            # The order of the log says which is newer, whatever a clock that was set back does.
            version=self._store.head + 1,
            fields=fields,
        )
        notice = Notice(
            id=str(uuid.uuid4()),
            source=VEDETTE_SOURCE,
            event_type=f"{EVENT}.{'delete' if verb == 'delete' else 'update'}",
            sent_at=now,
            payload=msgspec.Raw(msgspec.json.encode(fields)),
            publisher=f"mirror:{one.mirror}",
            origin="vedette",
        )
        return NewEntry(notice, (reading,))


def ident(one: Mirrored) -> str:
    """Its name in the log: `<mirror>:<type>:<id of what it stands for>`."""
    return f"{one.mirror}:{one.type}:{one.object_id}"


async def absent(key: Key, store: Store, kinds: Mapping[str, Kind], cloud: Cloud | None) -> bool:
    """Whether it is certain that there is no such object; see ports.MirrorNeeds."""
    (held,) = await store.held([key])
    if held is not None:
        # What the log has as deleted was announced, or confirmed by a resync.
        return held.deleted
    api = kinds[key.kind].api
    if cloud is None or api is None:
        return False
    try:
        await api.get(cloud, key.id)
    except NotFound:
        return True
    except VedetteError as why:
        log.info("it can't be confirmed that an object is gone, so it stays: %s", why, extra=kv(kind=key.kind, id=key.id))
    return False


class Mirroring:
    """One mirror's comparisons. `run` until cancelled."""

    def __init__(
        self,
        name: str,
        mirror: Mirror,
        store: Store,
        clock: Clock,
        telemetry: Telemetry,
        *,
        source: str,
        every: float,
        settled: Callable[[], bool],
    ) -> None:
        """`every`: seconds from the end of one comparison to the next. `settled`: whether the inventory was listed."""
        self._name, self.mirror, self._store, self._clock = name, mirror, store, clock
        self._source, self._every, self._settled = source, every, settled
        self._due = asyncio.Event()
        self._rng = random.Random()
        self.last: Compared | None = None
        self._compared_at = 0
        """UTC microseconds."""
        self.trouble = ""
        """Why the last comparison failed; "" it did not."""
        self._seconds = telemetry.gauge("mirror_compare_seconds", "What the last full comparison of a mirror took", "mirror")
        self._objects = telemetry.gauge("mirror_objects", "Objects that a mirror keeps", "mirror")
        self._compared = telemetry.counter("mirror_comparisons_total", "Full comparisons, by their end", "mirror", "outcome")
        self._kept = telemetry.gauge(
            "mirror_unconfirmed",
            "Objects that a mirror left because nobody confirms that the cloud has them no more",
            "mirror",
        )
        self._failed = telemetry.gauge("mirror_refused", "Objects that the other system refused in the last comparison", "mirror")
        store.follow(self._heard)

    async def run(self) -> None:
        await self._until_settled()
        wait = FIRST_WAIT
        while True:
            self._due.clear()
            if await self.look():
                wait = FIRST_WAIT
                await wait_for_event(self._due, self._every, self._clock.sleep)
                if self._due.is_set():
                    await self._until_settled()
            else:
                await self._clock.sleep(self._rng.uniform(wait / 2, wait))
                wait = min(MOST_WAIT, wait * 2)

    async def look(self) -> bool:
        """Compare once; whether that was possible."""
        began = self._clock.monotonic()
        try:
            done = await self.mirror.compare()
        except VedetteError as why:
            self._compared.labels(self._name, "failed").inc()
            if str(why) != self.trouble:
                level = logging.WARNING if isinstance(why, TryLater) else logging.ERROR
                log.log(level, "a mirror can't be compared, and is tried again: %s", why, extra=kv(mirror=self._name))
            self.trouble = str(why)
            return False
        took = self._clock.monotonic() - began
        if self.trouble:
            log.info("a mirror can be compared again", extra=kv(mirror=self._name))
        self.trouble = ""
        self.last, self._compared_at = done, self._clock.now_us()
        self._compared.labels(self._name, "done").inc()
        self._seconds.labels(self._name).set(took)
        self._objects.labels(self._name).set(done.objects)
        self._kept.labels(self._name).set(done.kept)
        self._failed.labels(self._name).set(done.failed)
        wrote = done.created + done.changed + done.removed
        log.log(
            logging.INFO if wrote or done.failed else logging.DEBUG,
            "a mirror was compared",
            extra=kv(mirror=self._name, seconds=round(took, 3), **msgspec.to_builtins(done)),
        )
        return True

    def status(self) -> dict[str, Any]:
        """For `/v1/status`."""
        done = self.last or Compared()
        return {
            "name": self._name,
            "comparedAt": rfc3339_us(self._compared_at) if self._compared_at else None,
            **msgspec.to_builtins(done),
            "trouble": self.trouble,
        }

    async def _until_settled(self) -> None:
        if not self._settled():
            log.info("a mirror waits until the inventory has been listed", extra=kv(mirror=self._name, most_s=PATIENCE))
        end = self._clock.monotonic() + PATIENCE
        while not self._settled() and self._clock.monotonic() < end:
            await self._clock.sleep(LOOK)

    def _heard(self, appended: Sequence[Appended]) -> None:
        for one in appended:
            notice = one.entry.notice
            if notice.event_type == GAP and notice.source == self._source:
                self._due.set()


class _Served(msgspec.Struct):
    status: Mirrored
