"""Lists what the cloud has, compares, and tells only what differs: what notifications missed.

In: kinds that can list themselves (`Kind.api`) and the source's cloud. Out: entries with the origin `resync`, through
`Ingest.record`. When: on start, after every gap of the source, on demand, and on a timer with jitter: sooner after something was
missed, later as long as nothing ever is.

Nothing that a notice says meanwhile is undone: a reading is as of the moment at which its request was sent, and older than any
later notice. Deletions come last, and only after a whole listing by an account that has proved that it sees every project; each
one is confirmed by a request for that object alone that is answered with 404. A pass that would delete more than a tenth of a
kind (and more than 20 objects) deletes nothing and waits for a person.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

import msgspec

from vedette.engine.confirm import doubt as doubt_of
from vedette.engine.confirm import look
from vedette.engine.differences import Difference, Record, by_name, differences, tell
from vedette.errors import Forbidden, NoService, NotFound, TooBusy, TryLater, Unauthenticated, VedetteError
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.tasks import closable, wait_for_event
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import GAP
from vedette.model.reading import Reading
from vedette.ports import EVERYTHING, Api, Appended, CloudUse, Kind, Selection, Store

log = logging.getLogger("vedette.engine.resync")

GRACE_SECONDS = 2.0
"""A difference is looked at again after this long, before it is told: its notice may be on its way."""
START_SECONDS = 15.0
"""How long the first pass waits for the source to be connected: what happens before that is in no queue."""
SETTLE_SECONDS = 1.0
"""And so much longer: a source that finds a gap says so right after it connected, and one pass is enough for both."""
MOST_DELETED = 20
SHARE_DELETED = 0.1
"""A pass deletes up to 20 objects, or a tenth of the kind, without asking."""
ASKED = 100
"""Demands that wait for their pass."""
SELDOM = 6
"""A listing that costs a request per user is part of every sixth pass of the timer."""
CONFIRMING = 4
"""Objects that are looked for at the same time before they are deleted."""
SHORTEST_SECONDS = 60.0
RETRY_SECONDS = 30.0
"""After a pass that an unwell API cut short; doubled up to the pace of the timer."""

State = Literal["never", "waiting", "listing", "confirming", "done", "incomplete", "refused", "absent", "held"]
"""`done`: whole. `incomplete`: cut short by an error. `refused`: the account may not list it. `absent`: the cloud has no such
service. `held`: whole, but its deletions wait for a person."""
FINAL: frozenset[State] = frozenset(("done", "incomplete", "refused", "absent", "held"))


class KindReport(msgspec.Struct):
    """How the last pass of one kind went, or how the present one goes."""

    kind: str
    """Its singular, as on the command line."""
    state: State = "never"
    detail: str = ""
    listed: int = 0
    """Objects in the listing (so far)."""
    created: int = 0
    updated: int = 0
    deleted: int = 0
    """What was missed, by this pass."""
    completed: int = 0
    """Objects that got fields which no notification carries; nothing that was known of them had changed."""
    held: int = 0
    """Objects that would be deleted if a person confirmed it."""
    sees_all: bool = False
    """Whether the account proved that its listing holds every project's objects: nothing is deleted otherwise."""
    took: float = 0.0
    """Seconds."""
    ended_at: int = 0
    """UTC microseconds; 0: not yet."""
    complete_at: int = 0
    """When the last whole pass ended; 0: never."""

    @property
    def missed(self) -> int:
        return self.created + self.updated + self.deleted


class CloudReport(msgspec.Struct, frozen=True):
    """How well the inventory of one source is known to equal the cloud."""

    source: str
    state: Literal["waiting", "running", "idle"]
    detail: str
    next_in: float
    """Seconds until the next pass of the timer; 0: none is planned."""
    kinds: Sequence[KindReport]


class Demand(msgspec.Struct):
    """Somebody asked for a pass. `done` gets the reports of its kinds."""

    kinds: frozenset[str]
    confirm: bool
    done: asyncio.Future[Sequence[KindReport]]


class Resync:
    """All sources that have an API. `run(source)` for each, until cancelled."""

    def __init__(
        self,
        store: Store,
        record: Record,
        kinds: Sequence[Kind],
        uses: Mapping[str, CloudUse],
        clock: Clock,
        telemetry: Telemetry,
        *,
        connected: Callable[[str], bool] = lambda _source: True,
        rng: random.Random | None = None,
    ) -> None:
        """`record`: makes entries durable (`Ingest.record`). `connected`: whether a source hears its notifications now."""
        self._store = store
        self._clock = clock
        self._kinds = {kind.singular: kind for kind in kinds if kind.api is not None}
        self._named = by_name(kinds)
        self._record = record
        self._connected = connected
        self._rng = rng or random.Random()
        self._numbers = _Numbers(telemetry)
        self._clouds = {source: _Cloud(source, use, list(self._kinds)) for source, use in uses.items()}
        for one in self._clouds.values():
            for kind in self._kinds:
                self._numbers.begin(one.source, kind)
        self._stop_following = store.follow(self._heard) if uses else lambda: None

    @property
    def kinds(self) -> Sequence[str]:
        """Singulars of the kinds that can be listed."""
        return list(self._kinds)

    @property
    def sources(self) -> Sequence[str]:
        """Sources that have an API."""
        return list(self._clouds)

    def ask(self, source: str, kinds: Iterable[str] = (), *, confirm: bool = False) -> asyncio.Future[Sequence[KindReport]]:
        """A pass over these kinds (none: all) as soon as the present one is over; the reports, when it is.

        `confirm`: delete however many are gone. Raises NotFound (no such source or kind, or the source has no API), TooBusy.
        """
        cloud = self._clouds.get(source)
        if cloud is None:
            raise NotFound(f"source {source!r} has no API to list from (set `api:`)")
        wanted = frozenset(kinds or self._kinds)
        for kind in sorted(wanted - self._kinds.keys()):
            raise NotFound(f"{kind!r} can't be listed; these can: {', '.join(self._kinds)}")
        if len(cloud.demands) >= ASKED:
            raise TooBusy(f"{ASKED} resyncs wait for their turn", delay=5)
        demand = Demand(wanted, confirm, asyncio.get_running_loop().create_future())
        cloud.demands.append(demand)
        cloud.woken.set()
        return demand.done

    def settled(self, source: str, kinds: Collection[str]) -> bool:
        """Whether each of these kinds was listed since we run, and no pass is under way or about to begin; of a source without an
        API there is nothing to wait for."""
        cloud = self._clouds.get(source)
        if cloud is None:
            return True
        listed = all(report.state in FINAL for kind, report in cloud.reports.items() if kind in kinds)
        return listed and not cloud.running and not cloud.after_gap

    def reports(self) -> Sequence[CloudReport]:
        """How it stands with each source that has an API."""
        now = self._clock.monotonic()
        return [
            CloudReport(
                source=one.source,
                state="running" if one.running else "idle" if one.ran else "waiting",
                detail=one.detail,
                next_in=max(0.0, one.due_at - now) if one.due_at is not None else 0.0,
                kinds=[msgspec.structs.replace(report) for report in one.reports.values()],
            )
            for one in self._clouds.values()
        ]

    def close(self) -> None:
        """Whoever waits for a pass is told that none will come."""
        self._stop_following()
        for one in self._clouds.values():
            while one.demands:
                demand = one.demands.popleft()
                if not demand.done.done():
                    demand.done.set_exception(TooBusy("the service is stopping"))

    async def run(self, source: str) -> None:
        """Passes over one source, for ever."""
        cloud, clock = self._clouds[source], self._clock
        began = clock.monotonic()
        while not self._connected(source) and clock.monotonic() - began < START_SECONDS:
            cloud.detail = "waiting for the source to be connected"
            await clock.sleep(0.2)
        await clock.sleep(SETTLE_SECONDS)
        cause = "start"
        while True:
            demands = list(cloud.demands)
            cloud.demands.clear()
            cloud.woken.clear()
            cloud.after_gap = cloud.after_gap and cause == "demand"
            asked = frozenset(kind for demand in demands for kind in demand.kinds)
            wanted = asked if cause == "demand" else frozenset(self._of_pass(cloud, cause)) | asked
            confirmed = frozenset(kind for demand in demands if demand.confirm for kind in demand.kinds)
            try:
                await self._pass(cloud, wanted, confirmed, cause)
            finally:
                for demand in demands:
                    if not demand.done.done():
                        demand.done.set_result([msgspec.structs.replace(cloud.reports[kind]) for kind in sorted(demand.kinds)])
            if cause != "demand":
                self._plan(cloud, cause)
            cause = await self._next(cloud)

    # --- when ---

    def _heard(self, appended: Sequence[Appended]) -> None:
        """After each commit: a gap of the source means that something may be missing since."""
        for one in appended:
            notice = one.entry.notice
            if notice.event_type == GAP and notice.source in self._clouds:
                cloud = self._clouds[notice.source]
                cloud.after_gap = True
                cloud.woken.set()

    async def _next(self, cloud: _Cloud) -> str:
        """Until there is a reason for a pass; which."""
        while True:
            if cloud.after_gap:
                # A source that has just come back has a queue to read first: most of what differs now is told by that.
                await self._clock.sleep(self._rng.uniform(0.5, 1.5))
                return "gap"
            if cloud.demands:
                return "demand"
            if cloud.due_at is None:
                await cloud.woken.wait()
            else:
                left = cloud.due_at - self._clock.monotonic()
                if left < 0.001:  # a clock of whole microseconds may never come closer
                    return "timer"
                await wait_for_event(cloud.woken, left, self._clock.sleep)
            cloud.woken.clear()

    def _of_pass(self, cloud: _Cloud, cause: str) -> Iterable[str]:
        cloud.passes += 1
        for name, kind in self._kinds.items():
            assert kind.api is not None
            if not kind.api.seldom or cause != "timer" or cloud.passes % SELDOM == 0:
                yield name

    def _plan(self, cloud: _Cloud, cause: str) -> None:
        """When the timer's next pass is. What a start or a gap finds says nothing of how well notifications do."""
        base = cloud.use.resync_seconds
        reports = cloud.reports.values()
        if base and cause == "timer":
            if any(report.missed for report in reports if report.state in FINAL):
                cloud.interval = max(min(base, SHORTEST_SECONDS), base / 2)
            else:
                cloud.interval = min(cloud.interval * 1.5, base * 4)
        wait = cloud.interval * self._rng.uniform(0.9, 1.1) if base else None
        if any(report.state == "incomplete" for report in reports):
            retry = next(cloud.retries)
            wait = retry if wait is None else min(retry, wait)
        else:
            cloud.retries = delays(RETRY_SECONDS, max(RETRY_SECONDS, base))
        cloud.due_at = None if wait is None else self._clock.monotonic() + wait

    # --- one pass ---

    async def _pass(self, cloud: _Cloud, wanted: frozenset[str], confirmed: frozenset[str], cause: str) -> None:
        cloud.running, cloud.detail = True, f"a pass ({cause})"
        services: dict[str, list[Kind]] = {}
        for name in wanted:
            kind = self._kinds[name]
            assert kind.api is not None
            services.setdefault(kind.api.service, []).append(kind)
            before = cloud.reports[name]
            cloud.reports[name] = KindReport(name, state="waiting", complete_at=before.complete_at)
        began = self._clock.monotonic()
        try:
            # One service that is slow or down keeps nobody else waiting.
            async with asyncio.TaskGroup() as group:
                for of_service in services.values():
                    group.create_task(self._service(cloud, of_service, confirmed), name=f"{cloud.source}: resync")
        finally:
            cloud.running, cloud.ran = False, True
            for name in wanted:
                if cloud.reports[name].state not in FINAL:
                    cloud.reports[name].state = "incomplete"
        reports = [cloud.reports[name] for name in wanted]
        states = Counter(report.state for report in reports)
        cloud.detail = f"the last pass ({cause}): {', '.join(f'{number} {state}' for state, number in states.items())}"
        log.info(
            "resynced",
            extra=kv(
                source=cloud.source,
                cause=cause,
                kinds=len(reports),
                listed=sum(report.listed for report in reports),
                missed=sum(report.missed for report in reports),
                not_done=" ".join(sorted(report.kind for report in reports if report.state != "done")) or "none",
                seconds=round(self._clock.monotonic() - began, 1),
            ),
        )

    async def _service(self, cloud: _Cloud, kinds: Sequence[Kind], confirmed: frozenset[str]) -> None:
        """One listing after the other: the cloud has more to do. What is left of one goes on during the next."""
        doubts: dict[str, str] = {}
        async with asyncio.TaskGroup() as group:
            for kind in sorted(kinds, key=lambda one: one.singular):
                before = cloud.reports[kind.singular]
                report = cloud.reports[kind.singular] = KindReport(kind.singular, state="listing", complete_at=before.complete_at)
                one = _Listing(kind, report, self._clock.monotonic(), self._clock.now_us())
                if await self._guarded(cloud, one, self._list(cloud, one, doubts)):
                    finish = self._finish(cloud, one, kind.singular in confirmed)
                    group.create_task(self._guarded(cloud, one, finish), name=f"{cloud.source}: resync {kind.singular}")

    async def _guarded(self, cloud: _Cloud, one: _Listing, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the work was done; else the report says why not."""
        report = one.report
        try:
            await work
        except NoService as why:
            report.state, report.detail = "absent", str(why)
        except (Forbidden, Unauthenticated) as why:
            report.state, report.detail = "refused", str(why)
        except VedetteError as why:
            report.state, report.detail = "incomplete", str(why)
        except Exception as why:
            report.state, report.detail = "incomplete", f"an error in Vedette: {type(why).__name__}"
            log.exception("a kind could not be listed", extra=kv(source=cloud.source, kind=report.kind))
        if report.state in FINAL:
            report.took = self._clock.monotonic() - one.began
            report.ended_at = self._clock.now_us()
            if report.state in ("done", "held"):
                report.complete_at = report.ended_at
            self._numbers.ended(cloud.source, report)
            if report.state in ("incomplete", "refused", "held"):
                told = kv(source=cloud.source, kind=report.kind, listed=report.listed)
                log.warning("resync %s: %s", report.state, report.detail, extra=told)
        return report.state not in FINAL

    async def _list(self, cloud: _Cloud, one: _Listing, doubts: dict[str, str]) -> None:
        """The whole listing, compared page by page. Raises what the cloud raises."""
        kind, report = one.kind, one.report
        api = kind.api
        assert api is not None
        one.doubt = await self._doubt(cloud.use, api, doubts)
        report.sees_all = not one.doubt
        try:
            async with aclosing(closable(api.list(cloud.use.cloud))) as pages:
                async for readings in pages:
                    one.there.update(said.id for said in readings if said.kind == kind.kind and said.group == kind.group)
                    report.listed = len(one.there)
                    await self._compare(cloud, readings, one.waiting)
                    await self._tell_due(cloud, one)
        except VedetteError:
            await self._tell_all(cloud, one)  # it was cut short: what it did show is true
            raise

    async def _finish(self, cloud: _Cloud, one: _Listing, confirmed: bool) -> None:
        """What the last pages showed, and then what is gone."""
        await self._tell_all(cloud, one)
        await self._delete(cloud, one, confirmed)

    async def _doubt(self, use: CloudUse, api: Api, doubts: dict[str, str]) -> str:
        """Once a pass and service."""
        if api.proof not in doubts:
            doubts[api.proof] = await doubt_of(use, api)
        return doubts[api.proof]

    async def _compare(self, cloud: _Cloud, readings: Sequence[Reading], waiting: deque[tuple[float, list[Reading]]]) -> None:
        found = await differences(self._store, cloud.source, readings)
        if found:
            waiting.append((self._clock.monotonic() + GRACE_SECONDS, [one.reading for one in found]))

    async def _tell_all(self, cloud: _Cloud, one: _Listing) -> None:
        while one.waiting:
            await self._clock.sleep(max(0.001, one.waiting[0][0] - self._clock.monotonic()))
            await self._tell_due(cloud, one)

    async def _tell_due(self, cloud: _Cloud, one: _Listing) -> None:
        while one.waiting and one.waiting[0][0] <= self._clock.monotonic():
            _, readings = one.waiting.popleft()
            await self._tell(cloud, one.report, readings)

    async def _tell(self, cloud: _Cloud, report: KindReport, readings: Sequence[Reading]) -> None:
        while True:
            try:
                found = await tell(self._store, self._record, cloud.source, readings, "resync", self._named, _reason)
                break
            except TryLater as why:
                report.detail = str(why)
                await self._clock.sleep(why.delay)
        report.detail = ""
        for one in found:
            kind = self._named[one.key.group, one.key.kind].singular
            self._numbers.missed(cloud.source, kind, _reason(one))
            if one.fills:
                report.completed += 1
            elif one.word == "create":
                report.created += 1
            elif one.word == "update":
                report.updated += 1
            else:
                report.deleted += 1

    # --- what is gone ---

    async def _delete(self, cloud: _Cloud, one: _Listing, confirmed: bool) -> None:
        kind, report = one.kind, one.report
        known, gone = await self._unlisted(cloud, one)
        if one.doubt:
            report.state = "done"
            if gone:
                report.detail = f"{len(gone)} known objects are not in the listing, and stay: {one.doubt}"
            return
        if len(gone) > MOST_DELETED and len(gone) > known * SHARE_DELETED and not confirmed:
            report.state, report.held = "held", len(gone)
            report.detail = (
                f"{len(gone)} of {known} objects are not in the listing: nothing was deleted. If they are gone indeed: "
                f"vedette resync {kind.singular} --source {cloud.source} --confirm"
            )
            return
        report.state = "confirming"
        unsure = 0
        for start in range(0, len(gone), CONFIRMING):
            looked = await asyncio.gather(*(look(cloud.use, kind, id_, self._clock) for id_ in gone[start : start + CONFIRMING]))
            unsure += sum(said is None for said in looked)
            readings = [reading for said in looked if said is not None for reading in said]
            await self._tell(cloud, report, readings)
        report.state = "done"
        if unsure:
            report.detail = f"{unsure} objects are not in the listing, and the API did not say that they are gone: they stay"

    async def _unlisted(self, cloud: _Cloud, one: _Listing) -> tuple[int, list[str]]:
        """How many objects are known, and those that the listing should have had. (What came by notice while it ran may be
        younger than its page.)"""
        selection = Selection(scope=EVERYTHING, group=one.kind.group, kind=one.kind.kind, source=cloud.source)
        after: tuple[str, str] | None = None
        revision = known = 0
        gone: list[str] = []
        while True:
            page = await self._store.objects(selection, revision=revision, after=after)
            revision, after = page.revision, page.after
            known += len(page.items)
            states = await self._store.held([key for key, _ in page.items if key.id not in one.there])
            gone += [held.key.id for held in states if held is not None and not held.deleted and held.as_of < one.began_us]
            if after is None:
                return known, gone


def _reason(difference: Difference) -> str:
    return "completed" if difference.fills else f"missed-{difference.word}"


class _Listing:
    """One kind in one pass."""

    def __init__(self, kind: Kind, report: KindReport, began: float, began_us: int) -> None:
        self.kind = kind
        self.report = report
        self.began, self.began_us = began, began_us
        self.doubt = ""
        """Why objects may be missing in it although they are there."""
        self.there: set[str] = set()
        self.waiting: deque[tuple[float, list[Reading]]] = deque()
        """Differences, and when to look at them again."""


class _Cloud:
    """One source's passes."""

    def __init__(self, source: str, use: CloudUse, kinds: Sequence[str]) -> None:
        self.source = source
        self.use = use
        self.reports = {kind: KindReport(kind) for kind in kinds}
        self.demands: deque[Demand] = deque()
        self.woken = asyncio.Event()
        self.after_gap = False
        self.running = self.ran = False
        self.detail = "not started"
        self.passes = 0
        self.interval = use.resync_seconds
        self.due_at: float | None = None
        self.retries = delays(RETRY_SECONDS, max(RETRY_SECONDS, use.resync_seconds))


class _Numbers:
    def __init__(self, telemetry: Telemetry) -> None:
        self._missed = telemetry.counter(
            "resync_missed_total", "Changes that no notification told of, found by listing", "source", "kind", "reason"
        )
        self._passes = telemetry.counter("resync_passes_total", "Listings of a kind, by their end", "source", "kind", "state")
        self._complete = telemetry.gauge(
            "resync_last_complete_timestamp_seconds", "When a kind was last listed as a whole (Unix time)", "source", "kind"
        )
        self._took = telemetry.gauge("resync_duration_seconds", "How long the last listing of a kind took", "source", "kind")
        self._listed = telemetry.gauge("resync_objects", "Objects in the last listing of a kind", "source", "kind")
        self._held = telemetry.gauge(
            "resync_held_deletions", "Objects that are gone, it seems, and that a person has to confirm", "source", "kind"
        )

    def begin(self, source: str, kind: str) -> None:
        """Series that an alarm waits for are there before anything happened."""
        for reason in ("missed-create", "missed-update", "missed-delete", "completed"):
            self._missed.labels(source, kind, reason)
        self._complete.labels(source, kind)
        self._held.labels(source, kind)

    def missed(self, source: str, kind: str, reason: str) -> None:
        self._missed.labels(source, kind, reason).inc()

    def ended(self, source: str, report: KindReport) -> None:
        self._passes.labels(source, report.kind, report.state).inc()
        self._took.labels(source, report.kind).set(report.took)
        self._listed.labels(source, report.kind).set(report.listed)
        self._held.labels(source, report.kind).set(report.held)
        if report.complete_at:
            self._complete.labels(source, report.kind).set(report.complete_at / 1_000_000)
