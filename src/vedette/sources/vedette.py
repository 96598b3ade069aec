"""Another Vedette, followed: what its cloud announced reaches ours as if we had heard it ourselves.

In: the other one's `/v1/events` (CloudEvents, as an admin sees them). Out: notices, as sources/openstack.py makes them, with the
ids that they have there, so that one that comes twice is one. For a second process that must not have a queue of its own at the
broker, or can't reach it: one of several components, or a place behind a firewall.

Only what services said comes this way. What the other one found out from the cloud's API it keeps to itself: give this source an
`api`, and it is found out here, too. The place in the other log is remembered after what was read up to there is durable here; a
crash between the two has some read twice, which does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import msgspec

from vedette.clients.keystone import credentials, issue_token
from vedette.clients.vedette import Cut, Gap, Place, Resumed, Told, VedetteClient
from vedette.errors import ConfigError, FixInput, Forbidden, TryLater, Unauthenticated, VedetteError
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock, parse_us, rfc3339_us
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.kit.units import FilePath
from vedette.model.delivery import PutState
from vedette.model.notice import GAP, Notice
from vedette.ports import CloudUse, Offer, SourceStatus, Store
from vedette.sources import openstack
from vedette.sources.openstack import ApiOptions

log = logging.getLogger("vedette.sources.vedette")

OWNER = "vedette.sources.vedette"
"""Of the places that are remembered (model/delivery.py)."""
WAITING = 2_000
"""Notices that are read and not yet durable; then reading waits."""
BATCH = 500
PLACE_SECONDS = 1.0
"""Between two writes of the place, at the least."""
MOST_WAIT = 60.0
REFUSED_SECONDS = 60.0
"""After the other one did not take our token: until the next attempt."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one Vedette that is followed."""

    name: str
    url: str
    """Where it is, such as `https://vedette.example.org:8470`."""
    source: str
    """Which of its sources. (Of several, and of its hooks, nobody could tell here who says it.)"""
    token: Secret = Secret()
    """A token that it takes, of an admin; none: one from Keystone, with the account of `api`."""
    ca: FilePath = ""
    """The CA of its certificate, a PEM file; none: the system's."""
    allow_insecure: bool = False
    """Send the token over plain http to another machine, too."""
    api: ApiOptions | None = None
    """The cloud's API, for what its notifications don't say."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError("url: wants an address such as https://vedette.example.org:8470")
        if not self.token and self.api is None:
            raise ValueError("token: is missing, and there is no api with an account that Keystone would give one to")


def build(options: Options, *, clock: Clock, telemetry: Telemetry) -> VedetteSource:
    """The source for these settings; nothing is opened yet. Raises ConfigError."""
    return VedetteSource(options, clock, telemetry)


def cloud_use(options: Options, *, clock: Clock, telemetry: Telemetry) -> CloudUse | None:
    """See sources/openstack.py: the cloud behind the other one is ours to ask as well."""
    return openstack.cloud_use(options, clock=clock, telemetry=telemetry)


class VedetteSource:
    """Follows until it is cancelled."""

    def __init__(self, options: Options, clock: Clock, telemetry: Telemetry) -> None:
        """Raises ConfigError."""
        self._options = options
        self._clock = clock
        self._store: Store | None = None
        self._ready = False
        self._detail = "not started"
        self._last_progress = 0
        self._gaps = 0
        self._place = -1
        """What was read up to, in the other log; -1: nothing yet."""
        self._kept_at = 0.0
        self._account = openstack.account_of(options.api) if options.api is not None and not options.token else None
        self._progress = telemetry.gauge(
            "source_last_progress_timestamp_seconds", "When a source last heard something (Unix time).", "source"
        ).labels(options.name)
        try:
            self._client = VedetteClient(
                options.url,
                token=self._token,
                ca=Path(options.ca) if options.ca else None,
                allow_insecure=options.allow_insecure,
                sleep=clock.sleep,
            )
        except FixInput as why:
            raise ConfigError(f"source {options.name!r}: {why}") from None

    @property
    def name(self) -> str:
        return self._options.name

    def remember(self, store: Store) -> None:
        """Where the place in the other log is kept."""
        self._store = store

    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            type="vedette",
            ready=self._ready,
            detail=self._detail,
            last_progress=self._last_progress,
            gaps=self._gaps,
        )

    async def run(self, offer: Offer) -> None:
        waits = delays(1.0, MOST_WAIT)
        await self._recall()
        async with self._client:
            while True:
                wait = next(waits)
                try:
                    await self._follow(offer)
                    continue
                except (Unauthenticated, Forbidden) as why:
                    wait = REFUSED_SECONDS
                    problem = f"it does not take our token: {why}"
                except TryLater as why:
                    wait, problem = max(wait, min(why.delay, MOST_WAIT)), str(why)
                except VedetteError as why:
                    problem = str(why)
                if problem != self._detail:
                    log.warning(
                        "another Vedette can't be followed: %s", problem, extra=kv(source=self.name, url=self._options.url)
                    )
                self._ready, self._detail = False, problem
                await self._clock.sleep(wait)

    # --- inside ---

    async def _token(self, refused: bool) -> str:
        """Raises Unauthenticated, IdentityUnavailable."""
        if self._account is None:
            return self._options.token.reveal()
        return (await issue_token(credentials(self._account), clock=self._clock)).token

    async def _recall(self) -> None:
        if self._store is None:
            return
        for row in await self._store.state(OWNER, self.name, self._options.url):
            self._place = int(row.value)

    async def _follow(self, offer: Offer) -> None:
        """Until the stream can't go on. Raises what reading and offering raise."""
        queue: asyncio.Queue[Notice | int] = asyncio.Queue(WAITING)
        reading = asyncio.create_task(self._read(queue), name=f"source {self.name}: reading")
        try:
            while True:
                first = asyncio.ensure_future(queue.get())
                await asyncio.wait({first, reading}, return_when=asyncio.FIRST_COMPLETED)
                if not first.done():
                    first.cancel()
                    reading.result()
                    return
                batch = [first.result()]
                while len(batch) < BATCH and not queue.empty():
                    batch.append(queue.get_nowait())
                notices = [one for one in batch if isinstance(one, Notice)]
                await self._offer(offer, notices)
                places = [one for one in batch if isinstance(one, int)]
                if places:
                    self._place = places[-1]
                    await self._keep(bool(notices))
        finally:
            await cancel(reading)

    async def _read(self, queue: asyncio.Queue[Notice | int]) -> None:
        query = {"source": self._options.source}
        async with aclosing(self._client.events(query, after=max(self._place, 0))) as events:
            async for news in events:
                match news:
                    case Told():
                        notice = _notice(news.raw, self.name)
                        if notice is not None:
                            await queue.put(notice)
                    case Place():
                        self._heard()
                        await queue.put(news.revision)
                    case Cut():
                        self._ready, self._detail = False, f"cut off: {news.why}"
                    case Resumed():
                        self._heard()
                    case Gap():
                        # Its log has moved on, or is a new one: it is read from its beginning, and what is between is missing.
                        self._gaps += 1
                        log.warning("a gap: %s", news.why, extra=kv(source=self.name))
                        await queue.put(self._gap(news.why))

    def _heard(self) -> None:
        self._ready, self._detail = True, f"following {self._options.url}"
        self._last_progress = self._clock.now_us()
        self._progress.set(self._last_progress / 1_000_000)

    async def _offer(self, offer: Offer, notices: Sequence[Notice]) -> None:
        while notices:
            try:
                await offer(tuple(notices))
            except TryLater as why:
                self._detail = f"waiting: {why}"
                await self._clock.sleep(why.delay)
                continue
            return

    async def _keep(self, at_once: bool) -> None:
        """After what was read up to the place is durable; a place alone (a bookmark) may wait."""
        now = self._clock.monotonic()
        if self._store is None or (now - self._kept_at < PLACE_SECONDS and not at_once) or self._place < 0:
            return
        self._kept_at = now
        row = PutState(OWNER, self.name, self._options.url, str(self._place).encode())
        try:
            await self._store.append([], work=[row])
        except TryLater as why:
            log.warning(
                "the place in another log could not be kept, some will be read twice: %s", why, extra=kv(source=self.name)
            )

    def _gap(self, why: str) -> Notice:
        now = self._clock.now_us()
        payload = {"cause": "expired", "from": None, "to": rfc3339_us(now), "detail": why}
        return Notice(
            id=str(uuid.uuid4()),
            source=self.name,
            event_type=GAP,
            sent_at=now,
            payload=msgspec.Raw(msgspec.json.encode(payload)),
            origin="vedette",
        )


class _Event(msgspec.Struct):
    """A CloudEvent, as model/cloudevent.py writes it."""

    id: str
    type: str
    source: str = ""
    time: str = ""
    priority: str = ""
    publisher: str = ""
    requestid: str = ""
    traceparent: str = ""
    origin: str = "notification"
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Event).decode


def _notice(raw: msgspec.Raw, source: str) -> Notice | None:
    """None: it is the other one's own news (its plans, its handlers, what it asked the API), except for its gaps."""
    event = _decode(raw)
    if event.type == GAP:
        kind, origin = GAP, "vedette"
    elif event.type.startswith("openstack.") and event.origin == "notification":
        kind, origin = event.type.removeprefix("openstack."), "notification"
    else:
        return None
    if event.source == "/sources/vedette":
        return None
    return Notice(
        id=event.id,
        source=source,
        event_type=kind,
        sent_at=parse_us(event.time) or 0,
        payload=event.data,
        priority=event.priority.upper(),
        publisher=event.publisher,
        request_id=event.requestid,
        traceparent=event.traceparent,
        origin=origin,
    )
