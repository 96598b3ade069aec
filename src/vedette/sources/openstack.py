"""OpenStack's notifications, from RabbitMQ to `offer`.

In: message bodies as oslo.messaging sends them (bare, or wrapped in `oslo.message`). Out: notices, scrubbed, offered in
batches; a batch is acknowledged when the offer has returned. Next is engine/ingest.py. Connections, queues and bindings are
clients/amqp.py's; what a payload means is `kinds/`'. The same cloud's API, for what is not announced, is `cloud_use`'s.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
import uuid
import zlib
from collections import deque
from typing import Any, Literal, Protocol

import msgspec

from vedette.clients.amqp import AmqpBroker, Broker, Found, Queue, Session, Wanted, address
from vedette.clients.deliveries import Delivery
from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.errors import BrokerUnavailable, CannotStart, ConfigError, NotUnderstood, QueueShared, TryLater
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock, parse_us, rfc3339_us
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.kit.units import FilePath, Seconds
from vedette.model.notice import GAP, NOT_UNDERSTOOD, Notice
from vedette.model.scrub import scrub, scrub_text
from vedette.ports import CloudUse, Offer, SourceStatus

log = logging.getLogger("vedette.sources.openstack")

MAX_BODY = 16 * 1024 * 1024
"""Bytes of one message, compressed or not. Nova's largest captured one has 8.4 kB."""

MAX_NAME = 255
"""Characters of an event type or an id."""

SHOWN = 64 * 1024
"""Bytes of a message that was not understood that are kept for a person to read."""

BATCH = 1000
"""Notices offered together at the most."""

BATCH_BYTES = 32 * 1024 * 1024
"""Bytes of payload offered together, at the most (and one message more): a few compressed messages can hold much."""

SLICE = 0.002
"""Seconds of decoding after which others get their turn."""

GAPS = 100
"""Gaps that wait for being offered; past this the newest two become one."""


class QueueOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The source's own queue. Durable; made if it isn't there."""

    name: str = "vedette"
    """Nobody else may read it. Two Vedettes on one broker need two names."""
    type: Literal["quorum", "classic"] = "quorum"
    """`quorum`: on several nodes of the broker. `classic`: on one."""
    max_length: int = 1_000_000
    """Messages; the oldest go when there are more (a gap is recorded). 0: no limit."""
    expires_s: int = 7 * 86_400
    """Time without a consumer until the broker removes it, so that a Vedette that is no more fills no disk. 0: never."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.encode(errors="replace")) <= 200 or self.name.startswith("amq."):
            raise ValueError("name: wants 1 to 200 bytes, and not to begin with amq.")
        if not 0 <= self.max_length < 1 << 31:
            raise ValueError("max_length: wants a number from 0 to 2147483647")
        if not 0 <= self.expires_s * 1000 < 1 << 32:
            # RabbitMQ takes milliseconds in 32 bits.
            raise ValueError("expires: wants at most 49 days")


class ApiOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The cloud's API, for what its notifications don't say, and an account there that sees every project. Without credentials
    here those of OS_* variables or of clouds.yaml are taken; without `api` the source runs on notifications alone."""

    cloud: str = ""
    """An entry of clouds.yaml; what is also given here goes before it."""
    auth_url: str = ""
    """Keystone's address, such as `https://keystone:5000/v3`."""
    username: str = ""
    """Vedette's own user."""
    user_id: str = ""
    """Its id, instead of `username` and its domain."""
    password: Secret = Secret()
    """Its password."""
    user_domain_name: str = ""
    """The domain of `username`."""
    user_domain_id: str = ""
    """The same by id."""
    project_name: str = ""
    """The project to sign in to, such as `service`."""
    project_id: str = ""
    """The same by id."""
    project_domain_name: str = ""
    """The domain of `project_name`."""
    project_domain_id: str = ""
    """The same by id."""
    domain_name: str = ""
    """A domain to sign in to instead of a project."""
    domain_id: str = ""
    """The same by id."""
    system_scope: str = ""
    """`all`: sign in to the whole system instead of a project."""
    tenant_name: str = ""
    """What `project_name` was called in the days of Keystone v2."""
    tenant_id: str = ""
    """What `project_id` was called in the days of Keystone v2."""
    application_credential_id: str = ""
    """An application credential instead of a user and password."""
    application_credential_name: str = ""
    """The same by name; wants the user too."""
    application_credential_secret: Secret = Secret()
    """Its secret."""
    cacert: FilePath = ""
    """A file of certificates to trust; none: the system's. Certificates are always verified."""
    cert: FilePath = ""
    """A client certificate, where the API wants one."""
    key: FilePath = ""
    """Its private key."""
    region_name: str = ""
    """The region whose endpoints are asked; needed where the catalog has several."""
    interface: Literal["public", "internal", "admin"] | None = None
    """Which of the catalog's endpoints; not set: what clouds.yaml or OS_INTERFACE says, else `public`."""
    timeout_s: float = 30.0
    """For connecting and for each silence of the other side; an answer as a whole may take four times as long."""
    threads: int = 4
    """Requests at one time."""
    page: int = 500
    """Objects asked for at a time."""
    resync: Seconds = 600.0
    """Between two comparisons of everything with the API; 0: only on start, after gaps and on demand."""
    admin_roles: tuple[str, ...] = ("admin",)
    """Roles of the account that let it see every project's objects. Nothing is deleted on the word of an account without one."""
    verify: bool = True
    """Look at what changes without a word, while somebody follows it."""
    requests_per_second: float = 10.0
    """Of `verify`, at the most, for each service."""
    scan_s: float = 5.0
    """Between two looks of `verify` at kinds that are never announced, such as listeners and members."""

    def __post_init__(self) -> None:
        if self.auth_url and not self.auth_url.startswith(("http://", "https://")):
            raise ValueError("auth_url: wants an address such as https://keystone:5000/v3")
        for old, new in (("tenant_name", "project_name"), ("tenant_id", "project_id")):
            if getattr(self, old) and getattr(self, new):
                raise ValueError(f"{old}: is an older name of {new}: give one of them")
        if self.system_scope not in ("", "all"):
            raise ValueError("system_scope: wants `all`, or is left out")
        if not 1 <= self.timeout_s <= 600:
            raise ValueError("timeout: wants 1 second to 10 minutes")
        if not 1 <= self.threads <= 64:
            raise ValueError("threads: wants a number from 1 to 64")
        if not 1 <= self.page <= 10_000:
            raise ValueError("page: wants a number from 1 to 10000")
        if 0 < self.resync < 10:
            raise ValueError("resync: wants 10 seconds or more, or 0")
        if not 0.1 <= self.requests_per_second <= 1000:
            raise ValueError("requests_per_second: wants a number from 0.1 to 1000")
        if not 0.5 <= self.scan_s <= 3600:
            raise ValueError("scan: wants half a second to 1 hour")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one OpenStack source."""

    name: str
    amqp: tuple[str, ...]
    """`amqp[s]://[user:password@]host[:port][/vhost]`; several are tried in turn."""
    username: str = ""
    """Goes before the one in the address."""
    password: Secret = Secret()
    """The same for the password."""
    exchanges: tuple[str, ...] = ("nova", "neutron", "octavia", "heat", "cinder", "openstack", "glance", "keystone")
    """Those that do not exist yet are waited for. (Cinder publishes to `openstack` unless it is told otherwise.)"""
    topics: tuple[str, ...] = ("notifications", "versioned_notifications")
    """As `topics` in the services' `[oslo_messaging_notifications]`, and Nova's `versioned_notifications_topics`."""
    priorities: tuple[str, ...] = ("info", "error", "warn", "critical", "debug", "audit", "sample")
    """Bound as `<topic>.<priority>`; never `#`: the exchanges carry the services' RPC too."""
    queue: QueueOptions = QueueOptions()
    """The source's own queue."""
    prefetch: int = 2000
    """Messages on their way that are not yet acknowledged."""
    shared_queue: bool = False
    """Consume the queue although others do: each then gets a part of the messages."""
    heartbeat_s: int = 30
    """A connection without a sign of life for about this long is given up."""
    check_s: float = 30.0
    """How often the broker is asked whether it still knows our consumer, and the bindings are renewed."""
    inactivity_s: float = 120.0
    """Messages waiting and none delivered for this long: the connection is built anew."""
    timeout_s: float = 30.0
    """For connecting and for each check."""
    tls_ca: FilePath = ""
    """A file of certificates to trust; none: the system's."""
    tls_cert: FilePath = ""
    """A client certificate, where the broker wants one."""
    tls_key: FilePath = ""
    """Its private key."""
    api: ApiOptions | None = None
    """The cloud's API, for what its notifications don't say."""

    def __post_init__(self) -> None:
        if not 1 <= self.prefetch <= 65_535:
            raise ValueError("prefetch: wants a number from 1 to 65535")
        if not 1 <= self.heartbeat_s <= 3600:
            raise ValueError("heartbeat: wants 1 second to 1 hour")
        if min(self.check_s, self.inactivity_s, self.timeout_s) <= 0:
            raise ValueError("check, inactivity and timeout want more than 0 seconds")


def build(options: Options, *, clock: Clock, telemetry: Telemetry) -> OpenStackSource:
    """The source for these settings, on a real broker; nothing is opened yet. Raises ConfigError."""
    addresses = [address(url, username=options.username, password=options.password.reveal()) for url in options.amqp]
    tls = None
    if any(one.tls for one in addresses):
        try:
            tls = ssl.create_default_context(cafile=options.tls_ca or None)
            if options.tls_cert:
                tls.load_cert_chain(options.tls_cert, options.tls_key or None)
        except (OSError, ssl.SSLError) as why:
            raise ConfigError(f"the TLS files of source {options.name!r} can't be read: {why}") from None
    broker = AmqpBroker(addresses, name=options.name, heartbeat_s=options.heartbeat_s, tls=tls)
    return OpenStackSource(options, clock, telemetry, broker=broker)


def account_of(api: ApiOptions) -> dict[str, Any]:
    """For `clients.keystone.credentials()`."""
    return {name: value for name in _ACCOUNT if (value := getattr(api, name))}


class HasApi(Protocol):
    """What of a source's settings its cloud is known by."""

    @property
    def name(self) -> str: ...

    @property
    def api(self) -> ApiOptions | None: ...


def cloud_use(options: HasApi, *, clock: Clock, telemetry: Telemetry) -> CloudUse | None:
    """The cloud's API and how much of it may be asked for; None where none is set. Nothing is opened yet. Raises ConfigError."""
    api = options.api
    if api is None:
        return None
    try:
        cloud = OpenStackCloud(
            credentials(account_of(api)),
            name=options.name,
            clock=clock,
            telemetry=telemetry,
            timeout_s=api.timeout_s,
            threads=api.threads,
            page=api.page,
        )
    except ConfigError as why:
        raise ConfigError(f"the API of source {options.name!r} can't be used: {why}") from None
    return CloudUse(
        cloud=cloud,
        admin_roles=frozenset(role.lower() for role in api.admin_roles),
        resync_seconds=api.resync,
        verify=api.verify,
        requests_per_second=api.requests_per_second,
        scan_seconds=api.scan_s,
    )


_ACCOUNT = ApiOptions.__struct_fields__[: ApiOptions.__struct_fields__.index("timeout_s")]
"""The settings that say who we are there, and where that is."""


class OpenStackSource:
    """Consumes a cloud's notifications until it is cancelled. One connection, channel, queue, bindings and consumer, rebuilt
    together whenever one of them fails.

    What may have been missed is offered as a notice of its own, a *gap* (`vedette.gap`), before what comes after it:
    `{"cause": …, "from": …, "to": …, "detail": …}`. `from` is the last time at which nothing was missing, null when that
    isn't known: a queue that was not there when this process started is a gap from null, because nobody can say whether it
    is new or had expired. Causes: `queue-created`, `queue-gone`, `reconnect`, `queue-full`, `exchange-gone`,
    `foreign-consumer`.
    """

    def __init__(self, options: Options, clock: Clock, telemetry: Telemetry, *, broker: Broker) -> None:
        if not options.exchanges or not options.topics or not options.priorities:
            raise ConfigError(f"source {options.name!r} needs at least one exchange, topic and priority")
        self._options = options
        self._clock = clock
        self._broker = broker
        self._wanted = Wanted(
            queue=Queue(**msgspec.structs.asdict(options.queue)),
            exchanges=options.exchanges,
            routing_keys=tuple(f"{topic}.{priority}" for topic in options.topics for priority in options.priorities),
            prefetch=options.prefetch,
            shared=options.shared_queue,
            timeout_s=options.timeout_s,
        )
        self._ready = False
        self._detail = "not started"
        self._sure_until: int | None = None
        """Until when (wall clock, microseconds) nothing can be missing; what waits in the queue isn't here. None: unknown."""
        self._had_session = False
        self._last_progress = 0
        self._delivered_at = 0.0
        self._full_since: int | None = None
        self._foreign_since: int | None = None
        self._gone_since: dict[str, int] = {}
        self._seen_bound: set[str] = set()
        self._gaps: deque[Notice] = deque()
        self._offering_gaps = asyncio.Lock()
        self._connected = ""
        self._gaps_total = 0
        self._numbers = _Numbers(telemetry, options.name)

    @property
    def name(self) -> str:
        return self._options.name

    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            type="openstack",
            ready=self._ready,
            detail=self._detail,
            last_progress=self._last_progress,
            gaps=self._gaps_total,
        )

    async def run(self, offer: Offer) -> None:
        """Raises CannotStart (QueueShared among them) when a person has to act."""
        clock = self._clock
        waits = delays()
        shared_since: float | None = None
        while True:
            try:
                session = await self._broker.open(self._wanted)
            except QueueShared as why:
                # Our own consumer of before a cut counts until the broker misses two of its heartbeats.
                shared_since = clock.monotonic() if shared_since is None else shared_since
                if clock.monotonic() - shared_since > 2.5 * self._options.heartbeat_s:
                    self._down(f"refused: {why}")
                    raise
                self._down(f"waiting for another consumer of the queue to go: {why}")
                await clock.sleep(min(1.0, self._options.heartbeat_s / 4))
                continue
            except CannotStart as why:
                self._down(str(why))
                raise
            except BrokerUnavailable as why:
                wait = next(waits)
                self._down(str(why))
                log.warning("no broker: %s", why, extra=kv(source=self.name, again_in_s=round(wait, 1)))
                await clock.sleep(wait)
                continue
            shared_since = None
            began = clock.monotonic()
            try:
                await self._follow(session, offer)
            except BrokerUnavailable as why:
                self._down(str(why))
                log.warning("the session ended: %s", why, extra=kv(source=self.name))
            except BaseException:
                self._down("stopped")
                raise
            finally:
                await session.close()
            if clock.monotonic() - began > 60:
                waits = delays()
            await clock.sleep(next(waits))

    async def _follow(self, session: Session, offer: Offer) -> None:
        """One session, to its end: raises BrokerUnavailable."""
        self._opened(session.found)
        watch = asyncio.create_task(self._watch(session, offer), name=f"{self.name}: checks")
        pending: deque[Delivery] = deque()
        keeping: asyncio.Task[None] | None = None
        try:
            await self._offer_gaps(session, offer)
            while True:
                if not pending:
                    pending.extend(await session.deliveries(BATCH))
                    self._progressed()
                    self._delivered_at = self._clock.monotonic()
                notices, last = await self._decoded(pending)
                # One batch is being made durable while the next is decoded; a third would only be memory.
                if keeping is not None:
                    await keeping
                keeping = asyncio.create_task(self._keep(session, offer, notices, last), name=f"{self.name}: offer")
        except BrokerUnavailable:
            if keeping is not None:
                # The session is over, the offer may not be: cut short, it would be in the log and in no count.
                await asyncio.wait({keeping})
            raise
        finally:
            await cancel(watch)
            if keeping is not None:
                if not keeping.done():
                    await cancel(keeping)
                elif (why := keeping.exception()) is not None and not isinstance(why, BrokerUnavailable):
                    raise why  # the session ended because of it, and not the other way round

    async def _keep(self, session: Session, offer: Offer, notices: list[Notice], last: int) -> None:
        """Offer a batch and acknowledge it. Raises BrokerUnavailable; whatever it raises, it also ends the session."""
        try:
            # A gap that was noticed meanwhile goes first: what follows it can't be trusted to be complete.
            await self._offer_gaps(session, offer)
            await self._offer(session, offer, notices)
            # Only now: a crash before this line means redelivery, never loss.
            session.ack(last)
        except Exception as why:
            session.end(str(why))  # nobody may be waiting for this task: whoever waits for deliveries has to learn of it
            raise
        # A queue is in the order of publishing, so nothing from before the last one's own time is missing. (Not: from before now.
        # What is still waiting would go with the queue.)
        heard = min(notices[-1].sent_at, self._clock.now_us())
        self._sure_until = max(heard, self._sure_until or 0) or None
        self._numbers.unacked.set(session.unacked)

    async def _decoded(self, pending: deque[Delivery]) -> tuple[list[Notice], int]:
        """The next notices of `pending`, and the tag of the last."""
        notices: list[Notice] = []
        size = last = 0
        until = self._clock.monotonic() + SLICE
        while pending and len(notices) < BATCH and size < BATCH_BYTES:
            delivery = pending.popleft()
            notice = self._read(delivery)
            notices.append(notice)
            size += memoryview(notice.payload).nbytes
            last = delivery.tag
            if len(notices) % 16 == 0 and self._clock.monotonic() > until:
                await asyncio.sleep(0)
                until = self._clock.monotonic() + SLICE
        return notices, last

    def _read(self, delivery: Delivery) -> Notice:
        try:
            return decode(
                delivery.body,
                self.name,
                content_encoding=delivery.content_encoding,
                traceparent=delivery.traceparent,
            )
        except NotUnderstood as why:
            reason = str(why)
        except Exception as why:
            # An error of ours must not stop the queue for ever: the broker would deliver this message again and again.
            log.exception("a message broke the decoder", extra=kv(source=self.name, routing_key=delivery.routing_key))
            reason = f"an error in Vedette: {type(why).__name__}"
        return set_aside(
            delivery.body,
            self.name,
            reason,
            exchange=delivery.exchange,
            routing_key=delivery.routing_key,
            content_encoding=delivery.content_encoding,
        )

    async def _offer(self, session: Session, offer: Offer, notices: list[Notice]) -> None:
        """Until it is taken. Raises BrokerUnavailable when the session ends first: all of it will come again."""
        while True:
            try:
                await offer(notices)
            except TryLater as why:
                self._detail = f"the log takes nothing now: {why}"
                await self._clock.sleep(why.delay)
                if session.ended:
                    raise BrokerUnavailable(session.ended) from None
                continue
            self._detail = self._connected
            return

    async def _offer_gaps(self, session: Session, offer: Offer) -> None:
        """Both the consumer and the checks come here: a gap doesn't wait for the next message."""
        async with self._offering_gaps:
            while self._gaps:
                gap = self._gaps[0]
                await self._offer(session, offer, [gap])
                if self._gaps and self._gaps[0] is gap:
                    self._gaps.popleft()

    async def _watch(self, session: Session, offer: Offer) -> None:
        """Ask now and then whether all is well; end the session if it isn't."""
        try:
            while not session.ended:
                await self._clock.sleep(self._options.check_s)
                before = self._delivered_at
                found = await session.check()
                self._checked(session, found)
                await self._offer_gaps(session, offer)
                quiet = self._clock.monotonic() - self._delivered_at
                if found.messages and before == self._delivered_at and not session.unacked and quiet > self._options.inactivity_s:
                    session.end(f"{found.messages} messages are waiting and none was delivered for {quiet:.0f} s")
        except BrokerUnavailable:
            pass  # The session has ended then, and whoever waits for deliveries is told why.
        except Exception as why:
            log.exception("the checks failed", extra=kv(source=self.name))
            session.end(f"the checks failed: {type(why).__name__}")

    def _opened(self, found: Found) -> None:
        """A session begins: what may be missing from before?"""
        now = self._clock.now_us()
        if found.created:
            self._gap("queue-gone" if self._had_session else "queue-created", self._sure_until, now)
        elif self._had_session:
            # The queue was there all the time; its bindings may not have been (they go with a broker's restart).
            self._gap("reconnect", self._sure_until, now)
        if self._had_session:
            self._numbers.reconnects.inc()
        self._had_session = True
        self._delivered_at = self._clock.monotonic()
        self._look_over(found, now)
        if not found.messages:
            self._sure_until = now
        self._progressed()
        self._numbers.connected.set(1)
        log.info("connected", extra=kv(source=self.name, messages=found.messages, missing=",".join(found.missing)))

    def _checked(self, session: Session, found: Found) -> None:
        now = self._clock.now_us()
        self._look_over(found, now)
        foreign = found.consumers > 1 and not self._options.shared_queue
        if foreign and self._foreign_since is None:
            self._foreign_since = now
            self._gap("foreign-consumer", self._sure_until, now, "somebody else consumes the queue, and gets a part of it")
        elif not foreign and self._foreign_since is not None:
            self._gap("foreign-consumer", self._foreign_since, now, "the other consumer has gone")
            self._foreign_since = None
        if foreign:
            self._ready = False
            self._detail = f"somebody else consumes the queue {self._options.queue.name!r}"
        if not session.unacked and not found.messages:
            self._sure_until = now
        self._progressed()
        self._numbers.unacked.set(session.unacked)

    def _look_over(self, found: Found, now: int) -> None:
        """What opening and checking have in common: a full queue, and exchanges that went."""
        limit = self._options.queue.max_length
        if limit and found.messages >= limit:
            # Recorded when it is noticed, and again when it is over: the oldest messages went meanwhile.
            if self._full_since is None:
                self._full_since = now
                self._gap("queue-full", self._sure_until, now, f"{found.messages} messages waited")
        elif self._full_since is not None:
            self._gap("queue-full", self._full_since, now, "there is room again")
            self._full_since = None
        for exchange in found.missing:
            if exchange in self._seen_bound and exchange not in self._gone_since:
                self._gone_since[exchange] = self._sure_until or now
        for exchange in found.bound:
            if exchange in self._gone_since:
                self._gap("exchange-gone", self._gone_since.pop(exchange), now, exchange)
        self._seen_bound.update(found.bound)
        self._numbers.bound.set(len(found.bound))
        self._numbers.missing.set(len(found.missing))
        self._numbers.depth.set(found.messages)
        self._ready = bool(found.bound)
        waiting = f"; waiting for {', '.join(found.missing)}" if found.missing else ""
        self._connected = f"consuming {self._options.queue.name}, bound to {len(found.bound)} exchanges{waiting}"
        self._detail = self._connected

    def _progressed(self) -> None:
        self._last_progress = self._clock.now_us()
        self._numbers.progress.set(self._last_progress / 1_000_000)

    def _down(self, detail: str) -> None:
        self._ready = False
        self._detail = detail
        self._numbers.connected.set(0)
        self._numbers.unacked.set(0)

    def _gap(self, cause: str, since: int | None, until: int, detail: str = "") -> None:
        """Note a time in which news may have been missed; it is offered before anything else."""
        self._gaps_total += 1
        self._numbers.gap(cause)
        log.warning("a gap: %s", cause, extra=kv(source=self.name, since=since and rfc3339_us(since), detail=detail))
        if len(self._gaps) >= GAPS:
            merged = msgspec.json.decode(self._gaps.pop().payload)
            cause, since, detail = "several", parse_us(merged["from"] or ""), "too many gaps at once"
        payload = {
            "cause": cause,
            "from": rfc3339_us(since) if since is not None else None,
            "to": rfc3339_us(until),
            "detail": detail,
        }
        self._gaps.append(
            Notice(
                id=str(uuid.uuid4()),
                source=self.name,
                event_type=GAP,
                sent_at=until,
                payload=msgspec.Raw(_encoder.encode(payload)),
                origin="vedette",
            )
        )


class _Numbers:
    """What an operator sees of one source."""

    def __init__(self, telemetry: Telemetry, source: str) -> None:
        def gauge(name: str, sentence: str) -> Any:
            return telemetry.gauge(name, sentence, "source").labels(source)

        self.connected = gauge("source_connected", "1 while a source is connected.")
        self.progress = gauge("source_last_progress_timestamp_seconds", "When a source last heard something (Unix time).")
        self.unacked = gauge("source_unacked", "Messages delivered to a source and not yet acknowledged.")
        self.bound = gauge("source_exchanges_bound", "Exchanges that a source's queue is bound to.")
        self.missing = gauge("source_exchanges_missing", "Exchanges that do not exist yet.")
        self.depth = gauge("source_queue_messages", "Messages ready in a source's queue when last asked.")
        self.reconnects = telemetry.counter("source_reconnects", "Sessions that followed another.", "source").labels(source)
        self._gaps = telemetry.counter("source_gaps", "Times in which news may have been missed.", "source", "cause")
        self._source = source

    def gap(self, cause: str) -> None:
        self._gaps.labels(self._source, cause).inc()


def decode(body: bytes, source: str, *, content_encoding: str = "", traceparent: str = "") -> Notice:
    """One message as a notice, its payload scrubbed. Raises NotUnderstood with the reason.

    Both of oslo.messaging's envelopes (`oslo_messaging/_drivers/common.py`: bare, and `oslo.version` 2.0 with the message as a
    JSON string); gzip and deflate where `content_encoding` says so.
    """
    if content_encoding and content_encoding not in _PLAIN:
        body = _inflated(body, content_encoding)
    if len(body) > MAX_BODY:
        raise NotUnderstood(f"the body has {len(body)} bytes, more than {MAX_BODY}")
    try:
        try:
            message = _decode(body)
            if message.wrapped is not None:
                message = _decode(message.wrapped)
        except msgspec.ValidationError as why:
            message = _decode_odd(body, str(why))
    except msgspec.DecodeError as why:
        raise NotUnderstood(f"not JSON: {why}") from None
    except UnicodeDecodeError as why:
        raise NotUnderstood(f"not UTF-8: {why}") from None
    except RecursionError:
        raise NotUnderstood("nested too deep") from None
    event_type = message.event_type
    if not event_type:
        raise NotUnderstood("no event_type")
    if len(event_type) > MAX_NAME:
        raise NotUnderstood(f"the event_type has {len(event_type)} characters, more than {MAX_NAME}")
    payload = bytes(message.payload)
    if not payload:
        raise NotUnderstood("no payload")
    id_ = message.message_id or message.unique_id
    if not id_ or len(id_) > MAX_NAME:
        id_ = content_id(body)
    return Notice(
        id=id_,
        source=source,
        event_type=event_type,
        sent_at=(parse_us(message.timestamp) or 0) if message.timestamp else 0,
        payload=msgspec.Raw(scrub(payload)),
        priority=message.priority or "",
        publisher=message.publisher_id or "",
        request_id=message.request_id or "",
        global_request_id=message.global_request_id or "",
        actor_user=message.user_id or message.user or "",
        actor_project=message.project_id or message.tenant or "",
        traceparent=traceparent,
    )


def set_aside(
    body: bytes, source: str, reason: str, *, exchange: str = "", routing_key: str = "", content_encoding: str = ""
) -> Notice:
    """A notice about a message that could not be read, for a person to look at: the reason, and its scrubbed bytes as text
    (`withheld` says how many were left out because a secret may be in them). The same bytes give the same id."""
    if content_encoding and content_encoding not in _PLAIN:
        # Compressed bytes can hide a secret from every search.
        text, withheld = "", len(body)
    else:
        text, withheld = scrub_text(body, SHOWN)
    payload: dict[str, Any] = {
        "reason": reason,
        "body": text,
        "bytes": len(body),
        "withheld": withheld,
        "exchange": exchange,
        "routing_key": routing_key,
    }
    return Notice(
        id=content_id(body),
        source=source,
        event_type=NOT_UNDERSTOOD,
        sent_at=0,
        payload=msgspec.Raw(_encoder.encode(payload)),
    )


def content_id(body: bytes) -> str:
    """An id for a message that brings none: `sha256:` and 32 hex digits."""
    return f"sha256:{hashlib.sha256(body).hexdigest()[:32]}"


class _Message(msgspec.Struct, gc=False):
    """Both envelopes in one shape: bare messages have no `oslo.message`, wrapped ones nothing else."""

    wrapped: str | None = msgspec.field(default=None, name="oslo.message")
    event_type: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"")
    message_id: str | None = None
    unique_id: str | None = msgspec.field(default=None, name="_unique_id")
    publisher_id: str | None = None
    priority: str | None = None
    timestamp: str | None = None
    request_id: str | None = msgspec.field(default=None, name="_context_request_id")
    global_request_id: str | None = msgspec.field(default=None, name="_context_global_request_id")
    user_id: str | None = msgspec.field(default=None, name="_context_user_id")
    user: str | None = msgspec.field(default=None, name="_context_user")
    project_id: str | None = msgspec.field(default=None, name="_context_project_id")
    tenant: str | None = msgspec.field(default=None, name="_context_tenant")


_decode = msgspec.json.Decoder(_Message).decode
_decode_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encoder = msgspec.json.Encoder()

_PLAIN = frozenset({"utf-8", "UTF-8", "utf8", "us-ascii", "ascii", "binary", "identity", "8bit", "7bit"})
"""Content-encodings (most of them are no such thing) that leave the bytes as they are. oslo.messaging says `utf-8`."""

_NEEDED = ("oslo.message", "event_type", "message_id")
"""What must be of the right type; any other field of a wrong type is left out: it only describes the message."""


def _decode_odd(body: bytes, why: str) -> _Message:
    """A message with a field of an unexpected type: read what is of the right one. Raises what `decode` translates."""
    text: bytes | str = body
    for _ in range(2):
        try:
            fields = _decode_any(text)
        except msgspec.ValidationError as odd:
            raise NotUnderstood(f"not a notification: {odd}") from None
        kept: dict[str, Any] = {}
        for field in _FIELDS:
            raw = fields.get(field.encode_name)
            if raw is None:
                continue
            try:
                kept[field.name] = raw if field.name == "payload" else msgspec.json.decode(raw, type=field.type)
            except msgspec.ValidationError:
                if field.encode_name in _NEEDED:
                    raise NotUnderstood(f"{field.encode_name} is of the wrong type: {why}") from None
        message = _Message(**kept)
        if message.wrapped is None:
            return message
        text = message.wrapped
    raise NotUnderstood("an envelope within an envelope")


_FIELDS = msgspec.structs.fields(_Message)


def _inflated(body: bytes, content_encoding: str) -> bytes:
    """The body behind a content-encoding, at most MAX_BODY bytes of it: a few kB can hold gigabytes of zeros."""
    name = content_encoding.lower()
    if name in _PLAIN:
        return body
    if name in ("gzip", "x-gzip"):
        windows = [31]
    elif name == "deflate":
        # RFC 9110 §8.4.1.2 means zlib's format; some send the bare deflate stream.
        windows = [15, -15]
    else:
        raise NotUnderstood(f"unknown content-encoding {content_encoding!r}")
    reason = "empty"
    for window in windows:
        inflater = zlib.decompressobj(window)
        try:
            out = inflater.decompress(body, MAX_BODY + 1)
        except zlib.error as why:
            reason = str(why)
            continue
        if len(out) > MAX_BODY:
            raise NotUnderstood(f"the body has more than {MAX_BODY} bytes when inflated")
        if not inflater.eof:
            raise NotUnderstood(f"the {name} body is cut off")
        return out
    raise NotUnderstood(f"not {name}: {reason}")
