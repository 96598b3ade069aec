"""Looks after what moves without a word, while somebody waits for it: ports that go ACTIVE, listeners, hypervisors.

In: what open watches (and handlers, audits) follow, the changes of the log, the source's cloud. Out: entries with the origin
`verify`, through `Ingest.record`. Two ways, both declared by the kind (`Kind.api`):

- *settle*: an object in a transient state is read again, first after half a second and ever more seldom, all that are due in one
  request where the service allows it. A change begins anew; what stays transient for five minutes is left to resync.
- *scan*: kinds that notifications never speak of are looked at with one cheap list every few seconds.

One reader for however many followers, none when nobody follows; at most so many requests a second for each service.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET

from vedette.engine.confirm import look, sees_all
from vedette.engine.differences import Difference, Record, by_name, tell
from vedette.errors import TryLater, VedetteError
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock, parse_us
from vedette.kit.log import kv
from vedette.kit.tasks import closable, wait_for_event
from vedette.kit.telemetry import Telemetry
from vedette.model.change import Change, Version
from vedette.model.reading import Key, Reading
from vedette.ports import (
    EVERYTHING,
    Answer,
    Api,
    Appended,
    Cloud,
    CloudUse,
    Items,
    JsonObject,
    Kind,
    Params,
    Scan,
    Selection,
    Store,
    Verified,
)

log = logging.getLogger("vedette.engine.verify")

FIRST_SECONDS = 0.5
MOST_SECONDS = 10.0
GROWTH = 1.6
"""An object that did not change is read again after 0.5, 0.8, 1.3 … 10 seconds."""
PATIENCE_SECONDS = 300.0
"""What is transient for longer is left to resync."""
BATCH = 50
"""Objects asked for in one request: 50 ids are a URL of 2 kB."""
UNWELL_SECONDS = 60.0
"""After the account was refused, or the service isn't there."""
PROVEN_SECONDS = 600.0
"""How long the account's proof that it sees everything is good."""
COALESCE_SECONDS = 0.05
"""Watches that come and go at once are looked at together."""

Named = tuple[str, str]
"""Group and kind."""


class VerifyReport(msgspec.Struct, frozen=True):
    """What is looked after in one source, for the status page."""

    source: str
    followed: Sequence[str]
    """Singulars of the kinds that somebody follows."""
    waiting: Mapping[str, int]
    """Kind → objects that are read again and again until they have settled."""
    detail: str
    """What keeps it from looking; "" when nothing does."""


class Verify:
    """All sources that have an API. `run(source)` for each, until cancelled."""

    def __init__(
        self,
        store: Store,
        record: Record,
        kinds: Sequence[Kind],
        uses: Mapping[str, CloudUse],
        followed: Callable[[], Collection[Selection]],
        clock: Clock,
        telemetry: Telemetry,
    ) -> None:
        """`followed`: what is waited for now; call `followers_changed` when it changes."""
        numbers = _Numbers(telemetry)
        named = by_name(kinds)
        self._sources = {
            source: _Source(source, use, store, record, named, followed, clock, numbers)
            for source, use in uses.items()
            if use.verify
        }

    @property
    def sources(self) -> Sequence[str]:
        return list(self._sources)

    def followers_changed(self) -> None:
        for source in self._sources.values():
            source.followers_changed.set()

    def reports(self) -> Sequence[VerifyReport]:
        return [source.report() for source in self._sources.values()]

    async def run(self, source: str) -> None:
        """Look after one source, for ever."""
        await self._sources[source].run()


class _Waiting:
    """One object that will move on."""

    __slots__ = ("interval", "next_at", "read_at", "scope", "since")

    def __init__(self, scope: Version, now: float, since: float) -> None:
        self.scope = scope
        """Who may see it; without the bytes."""
        self.since = since
        self.read_at = -math.inf
        self.interval = FIRST_SECONDS
        self.next_at = now + FIRST_SECONDS

    def due(self, now: float) -> bool:
        """More than half of its pause is over when the request for others goes out: one request for all of them."""
        return self.next_at - self.interval / 2 <= now


class _Interest:
    """What is followed of one kind."""

    def __init__(self, selections: Iterable[Selection]) -> None:
        self.selections = frozenset(selections)
        self._by_id: dict[str, list[Selection]] = {}
        self._rest: list[Selection] = []
        for selection in self.selections:
            if selection.id:
                self._by_id.setdefault(selection.id, []).append(selection)
            else:
                self._rest.append(selection)
        self._decided: dict[tuple[str, bool, str], bool] = {}

    def holds(self, key: Key, version: Version) -> bool:
        """Whether somebody waits for this object. Objects of one project are decided once."""
        if any(selection.holds(key, version) for selection in self._by_id.get(key.id, ())):
            return True
        scope = (version.project, version.shared, version.owner)
        found = self._decided.get(scope)
        if found is None:
            found = self._decided[scope] = any(selection.holds(key, version) for selection in self._rest)
        return found


class _Source:
    """One source's readers."""

    def __init__(
        self,
        name: str,
        use: CloudUse,
        store: Store,
        record: Record,
        kinds: Mapping[Named, Kind],
        followed: Callable[[], Collection[Selection]],
        clock: Clock,
        numbers: _Numbers,
    ) -> None:
        self._name = name
        self._clock = clock
        self._store = store
        self._record = record
        self._kinds = kinds
        self._followed = followed
        self._numbers = numbers
        self.followers_changed = asyncio.Event()
        self._use = msgspec.structs.replace(use, cloud=_Budgeted(use, name, clock, numbers))
        self._looks = {named: _fields_decoder(_api(kind).transient_fields) for named, kind in kinds.items() if _settles(kind)}
        scans: dict[str, Scan] = {}
        self._scanned: dict[str, list[Named]] = {}
        for named, kind in kinds.items():
            if kind.api is not None and kind.api.scan is not None:
                scans[kind.api.scan.name] = kind.api.scan
                self._scanned.setdefault(kind.api.scan.name, []).append(named)
        self._scans = scans
        self._sees = _seen_fields(scans.values(), kinds)
        self._seen_decoders = {named: _fields_decoder(fields) for named, fields in self._sees.items()}
        self._interest: dict[Named, _Interest] = {}
        self._waiting: dict[Named, dict[str, _Waiting]] = {}
        self._known: dict[Named, dict[str, JsonObject]] = {}
        self._touched: dict[Named, set[str]] = {}
        """Per kind that is just being read from the store: what the log said of meanwhile."""
        self._events: dict[str, asyncio.Event] = {}
        """One for each reader: something may be due, or followed."""
        self._proofs: dict[tuple[str, str], tuple[float, bool]] = {}
        self._details: dict[str, str] = {}
        for named in self._looks:
            numbers.waiting.labels(name, kinds[named].singular).set_function(partial(self._count, named))

    def _count(self, named: Named) -> int:
        return sum(one.next_at < math.inf for one in self._waiting.get(named, {}).values())

    def report(self) -> VerifyReport:
        waiting = {self._kinds[named].singular: self._count(named) for named in self._waiting}
        return VerifyReport(
            source=self._name,
            followed=sorted(self._kinds[named].singular for named in self._interest),
            waiting={kind: number for kind, number in waiting.items() if number},
            detail="; ".join(sorted(set(filter(None, self._details.values())))),
        )

    async def run(self) -> None:
        stop = self._store.follow(self._heard)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow(), name=f"{self._name}: who follows")
                for service in sorted({_api(self._kinds[named]).service for named in self._looks}):
                    group.create_task(self._settle(service), name=f"{self._name}: settle {service}")
                for scan in self._scans.values():
                    group.create_task(self._scan(scan), name=f"{self._name}: scan {scan.name}")
        finally:
            stop()
            for table in (self._interest, self._waiting, self._known, self._touched):
                table.clear()

    # --- who follows ---

    async def _follow(self) -> None:
        while True:
            await self._interests()
            await self.followers_changed.wait()
            await self._clock.sleep(COALESCE_SECONDS)

    async def _interests(self) -> None:
        self.followers_changed.clear()
        wanted: dict[Named, list[Selection]] = {}
        for selection in self._followed():
            named = (selection.group, selection.kind)
            kind = self._kinds.get(named)
            if kind is not None and kind.api is not None and selection.source in ("", self._name):
                wanted.setdefault(named, []).append(selection)
        before, self._interest = self._interest, {named: _Interest(some) for named, some in wanted.items()}
        scanned = {named for name in self._scans if self._is_followed(name) for named in self._sees if self._of(name, named)}
        for named in [named for named in self._waiting if named not in self._interest]:
            del self._waiting[named]
        for named in [named for named in self._known if named not in scanned]:
            del self._known[named]
        for named in self._interest.keys() | scanned:
            new_waiting = named in self._interest and named in self._looks and named not in self._waiting
            new_known = named in scanned and named not in self._known
            if new_waiting or new_known:
                await self._fill(named, new_waiting, new_known)
            elif named in self._waiting:
                self._again(named, self._interest[named].selections - before[named].selections if named in before else None)
        self._wake()

    def _wake(self) -> None:
        for event in self._events.values():
            event.set()

    def _is_followed(self, scan: str) -> bool:
        return any(named in self._interest for named in self._scanned[scan])

    def _of(self, scan: str, named: Named) -> bool:
        """Whether the scan is shown what is known of this kind."""
        return named[1] in self._scans[scan].sees

    async def _fill(self, named: Named, waiting: bool, known: bool) -> None:
        """Begin to look after a kind: what the inventory has of it. What the log says meanwhile is newer."""
        touched = self._touched[named] = set()
        if waiting:
            self._waiting[named] = {}
        if known:
            self._known[named] = {}
        selection = Selection(scope=EVERYTHING, group=named[0], kind=named[1], source=self._name)
        revision, after = 0, None
        try:
            while True:
                page = await self._store.objects(selection, revision=revision, after=after)
                revision, after = page.revision, page.after
                for key, version in page.items:
                    if key.id not in touched:
                        self._note(key, version, fresh=False, waiting=waiting, known=known)
                if after is None:
                    break
                await asyncio.sleep(0)
        finally:
            del self._touched[named]

    def _again(self, named: Named, new: frozenset[Selection] | None) -> None:
        """Somebody new waits: what was given up is read once more, since it may have moved on long ago."""
        if not new:
            return
        interest, now = _Interest(new), self._clock.monotonic()
        for id_, one in self._waiting[named].items():
            if one.next_at < math.inf or now - one.read_at <= MOST_SECONDS:
                continue
            if interest.holds(Key(self._name, named[0], named[1], id_), one.scope):
                one.next_at, one.interval = now, MOST_SECONDS

    # --- what moves ---

    def _heard(self, appended: Sequence[Appended]) -> None:
        """After each commit. Costs a look-up per change of a kind that nobody follows."""
        if not self._waiting and not self._known:
            return
        for one in appended:
            for change in one.changes:
                if change.key.source == self._name:
                    self._changed(change)

    def _changed(self, change: Change) -> None:
        key = change.key
        named = (key.group, key.kind)
        waiting, known = self._waiting.get(named), self._known.get(named)
        if waiting is None and known is None:
            return
        if named in self._touched:
            self._touched[named].add(key.id)
        if change.verb == "DELETED":
            if waiting is not None:
                waiting.pop(key.id, None)
            if known is not None:
                known.pop(key.id, None)
            return
        self._note(key, change.now, fresh=True, waiting=waiting is not None, known=known is not None)

    def _note(self, key: Key, version: Version, *, fresh: bool, waiting: bool, known: bool) -> None:
        """`fresh`: it has just changed."""
        named = (key.group, key.kind)
        if known:
            self._known[named][key.id] = _fields(self._seen_decoders[named].decode(version.body), self._sees[named])
        if not waiting:
            return
        api = _api(self._kinds[named])
        assert api.transient is not None
        served = self._looks[named].decode(version.body)
        if not api.transient(_fields(served, api.transient_fields)):
            self._waiting[named].pop(key.id, None)
            return
        now = self._clock.monotonic()
        since = now
        if not fresh:
            observed = parse_us(served.metadata.annotations.get("vedette.dev/observed-at", ""))
            since -= max(0.0, (self._clock.now_us() - (observed or 0)) / 1_000_000)
        scope = Version(version.revision, b"", 0, version.project, version.shared, version.owner)
        one = self._waiting[named][key.id] = _Waiting(scope, now, since)
        if not fresh:
            one.next_at = now  # nobody looked so far
        self._wake()

    # --- settle ---

    async def _settle(self, service: str) -> None:
        kinds = [named for named in self._looks if _api(self._kinds[named]).service == service]
        woken = self._events[f"settle {service}"] = asyncio.Event()
        waits = delays(1.0, UNWELL_SECONDS)
        while True:
            woken.clear()
            now = self._clock.monotonic()
            due, soonest = self._due(kinds, now)
            if not due:
                if soonest == math.inf:
                    await woken.wait()
                else:
                    await wait_for_event(woken, max(0.05, soonest - now), self._clock.sleep)
                continue
            try:
                for named, ids in due.items():
                    for start in range(0, len(ids), BATCH):
                        await self._read(named, ids[start : start + BATCH])
            except Exception as why:  # noqa: BLE001 - one service, or one kind's mistake, must not stop the others
                await self._unwell(f"settle {service}", why, waits)
            else:
                waits = delays(1.0, UNWELL_SECONDS)
                self._well(f"settle {service}")

    def _due(self, kinds: Sequence[Named], now: float) -> tuple[dict[Named, list[str]], float]:
        """Which objects to read now, and when the next one wants to be."""
        due: dict[Named, list[str]] = {}
        soonest = math.inf
        for named in kinds:
            interest = self._interest.get(named)
            if interest is None or named not in self._waiting:
                continue
            ready: list[str] = []
            pressing = False
            for id_, one in self._waiting[named].items():
                if one.next_at == math.inf or not interest.holds(Key(self._name, named[0], named[1], id_), one.scope):
                    continue
                soonest = min(soonest, one.next_at)
                if one.due(now):
                    ready.append(id_)
                    pressing = pressing or one.next_at <= now
            if pressing:
                due[named] = ready
        return due, soonest

    async def _read(self, named: Named, ids: Sequence[str]) -> None:
        """Read some objects of a kind, and say what differs. Raises what the cloud raises."""
        kind = self._kinds[named]
        api = _api(kind)
        asked: dict[str, _Waiting] = {}
        now = self._clock.monotonic()
        for id_ in ids:
            one = self._waiting.get(named, {}).get(id_)
            if one is None:
                continue
            asked[id_] = one
            one.read_at = now
            one.interval = min(one.interval * GROWTH, MOST_SECONDS)
            one.next_at = now + one.interval
            if now - one.since > PATIENCE_SECONDS:
                one.next_at = math.inf
                self._numbers.given_up(self._name, kind.singular)
        if not asked:
            return
        readings: list[Reading] = []
        if api.some is not None:
            readings += await api.some(self._use.cloud, list(asked))
            there = {one.id for one in readings if (one.group, one.kind) == named}
            for id_ in asked.keys() - there:
                readings += await self._suspected(named, id_)
        else:
            for id_ in asked:
                readings += await self._suspected(named, id_)
        await self._tell(readings, "settle")

    async def _suspected(self, named: Named, id_: str) -> Sequence[Reading]:
        """What one request for an object says of it: that it is gone, when nothing else can be meant."""
        kind = self._kinds[named]
        readings = await look(self._use, kind, id_, self._clock)
        if readings is None:
            return ()
        if any(one.verb == "delete" for one in readings) and not await self._sees_all(_api(kind)):
            return tuple(one for one in readings if one.verb != "delete")
        return readings

    async def _sees_all(self, api: Api) -> bool:
        now = self._clock.monotonic()
        asked, proven = self._proofs.get((api.service, api.proof), (-math.inf, False))
        if now - asked > PROVEN_SECONDS:
            proven = await sees_all(self._use, api)
            self._proofs[api.service, api.proof] = (now, proven)
        return proven

    async def _tell(self, readings: Sequence[Reading], reason: str) -> None:
        def why(_difference: Difference) -> str:
            return reason

        while True:
            try:
                found = await tell(self._store, self._record, self._name, readings, "verify", self._kinds, why)
                break
            except TryLater as later:
                await self._clock.sleep(later.delay)
        for one in found:
            self._numbers.changed(self._name, self._kinds[one.key.group, one.key.kind].singular, reason)

    # --- scan ---

    async def _scan(self, scan: Scan) -> None:
        sees = [named for named in self._sees if self._of(scan.name, named)]
        woken = self._events[f"scan {scan.name}"] = asyncio.Event()
        memory: dict[str, Any] = {}
        waits = delays(1.0, UNWELL_SECONDS)
        while True:
            woken.clear()
            if not self._is_followed(scan.name) or not all(one in self._known and one not in self._touched for one in sees):
                await woken.wait()
                continue
            try:
                known = {one[1]: dict(self._known[one]) for one in sees}
                async with aclosing(closable(scan.look(self._use.cloud, known, memory))) as parts:
                    async for readings in parts:
                        await self._tell(await self._confirmed(readings), "scan")
            except Exception as why:  # noqa: BLE001 - as above
                await self._unwell(f"scan {scan.name}", why, waits)
            else:
                waits = delays(1.0, UNWELL_SECONDS)
                self._well(f"scan {scan.name}")
            await self._clock.sleep(self._use.scan_seconds)

    async def _confirmed(self, readings: Sequence[Reading]) -> list[Reading]:
        """The readings; of what is said to be gone, what a request for it alone says."""
        found: list[Reading] = []
        for one in readings:
            if one.verb == "delete":
                found += await self._suspected((one.group, one.kind), one.id)
            else:
                found.append(one)
        return found

    # --- something is unwell ---

    async def _unwell(self, what: str, why: Exception, waits: Any) -> None:
        ours = not isinstance(why, VedetteError)
        detail = f"{what}: an error in Vedette: {type(why).__name__}" if ours else f"{what}: {why}"
        if self._details.get(what) != detail:
            log.warning("can't look: %s", why, extra=kv(source=self._name, what=what), exc_info=why if ours else None)
        self._details[what] = detail
        wait = max(why.delay, next(waits)) if isinstance(why, TryLater) else UNWELL_SECONDS
        await self._clock.sleep(wait)

    def _well(self, what: str) -> None:
        if self._details.pop(what, ""):
            log.info("can look again", extra=kv(source=self._name, what=what))


class _Budgeted:
    """The same cloud, at most so many requests a second for each service: what verify asks for is never more than that,
    whatever happens in the cloud."""

    def __init__(self, use: CloudUse, source: str, clock: Clock, numbers: _Numbers) -> None:
        self._cloud: Cloud = use.cloud
        self._rate = use.requests_per_second
        self._source = source
        self._clock = clock
        self._numbers = numbers
        self._free_at: dict[str, float] = {}

    async def _turn(self, service: str) -> None:
        """A second's worth may go at once; then at the pace."""
        wait = self._take(service)
        if wait > 0:
            await self._clock.sleep(wait)

    def _take(self, service: str) -> float:
        """One request; how long to wait before it."""
        now = self._clock.monotonic()
        at = max(self._free_at.get(service, 0.0), now - 1.0) + 1.0 / self._rate
        self._free_at[service] = at
        self._numbers.asked(self._source, service)
        return at - now

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        await self._turn(service)
        return await self._cloud.get(service, path, params, microversion=microversion)

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        await self._turn(service)
        pages = self._cloud.pages(service, path, key, params, microversion=microversion)
        async with aclosing(closable(pages)) as closing:
            first = True
            async for page in closing:
                if not first:  # nobody knows before that there is one more: it is paid for now
                    self._take(service)
                first = False
                yield page

    async def account(self) -> Verified:
        return await self._cloud.account()

    async def close(self) -> None:
        await self._cloud.close()


class _Numbers:
    def __init__(self, telemetry: Telemetry) -> None:
        self._requests = telemetry.counter(
            "verify_requests_total", "Requests to a cloud's API for what somebody waits for", "source", "service"
        )
        self._changes = telemetry.counter(
            "verify_changes_total", "Changes that no notification told of, found by looking", "source", "kind", "reason"
        )
        self._given_up = telemetry.counter(
            "verify_given_up_total", "Objects that stayed in a transient state for 5 minutes", "source", "kind"
        )
        self.waiting = telemetry.gauge("verify_waiting", "Objects in a transient state that are looked after", "source", "kind")

    def asked(self, source: str, service: str) -> None:
        self._requests.labels(source, service).inc()

    def changed(self, source: str, kind: str, reason: str) -> None:
        self._changes.labels(source, kind, reason).inc()

    def given_up(self, source: str, kind: str) -> None:
        self._given_up.labels(source, kind).inc()


def _api(kind: Kind) -> Api:
    assert kind.api is not None
    return kind.api


def _settles(kind: Kind) -> bool:
    return kind.api is not None and kind.api.transient is not None


def _seen_fields(scans: Iterable[Scan], kinds: Mapping[Named, Kind]) -> dict[Named, tuple[str, ...]]:
    """What all scans together are shown of each kind."""
    found: dict[Named, tuple[str, ...]] = {}
    for scan in scans:
        for word, fields in scan.sees.items():
            for named in kinds:
                if named[1] == word:
                    found[named] = tuple(dict.fromkeys((*found.get(named, ()), *fields)))
    return found


class _Metadata(msgspec.Struct):
    annotations: dict[str, str] = {}


def _fields_decoder(fields: Sequence[str]) -> msgspec.json.Decoder[Any]:
    """Reads these fields under `status` of a served object, and skips the rest without making Python objects of it."""
    status = msgspec.defstruct(
        "Status",
        [(f"f{at}", Any, UNSET) for at in range(len(fields))],
        rename={f"f{at}": name for at, name in enumerate(fields)},
    )
    return msgspec.json.Decoder(msgspec.defstruct("Served", [("metadata", _Metadata), ("status", status)]))


def _fields(served: Any, names: Sequence[str]) -> JsonObject:
    values = msgspec.structs.astuple(served.status)
    return {name: value for name, value in zip(names, values, strict=True) if value is not UNSET}
