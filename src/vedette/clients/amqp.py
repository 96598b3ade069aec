"""Consumes one queue of a RabbitMQ, through a narrow port: `Broker.open` gives a `Session`, and a session ends only once.

In: what is wanted (queue, exchanges, routing keys). Out: deliveries in the batches they arrive in, acknowledged by their last
tag. A session is connection, channel, queue, bindings and consumer as one unit: when any of it goes, all of it goes, and the
caller opens another. Retrying, gaps and what a message means are the caller's: sources/openstack.py.

AMQP 0-9-1 with RabbitMQ's extensions, over pika's asyncio adapter. `testing/broker.py` is the same port in memory. `Line` and
`Channel` at the end are what clients/amqp_publish.py stands on too.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol
from urllib.parse import unquote, urlsplit

import msgspec
import pika
import pika.exceptions

from vedette.clients.deliveries import Connection, Delivery
from vedette.errors import BrokerUnavailable, CannotStart, ConfigError, QueueShared
from vedette.kit.log import kv

log = logging.getLogger("vedette.clients.amqp")

CLOSING = 3.0
"""Seconds for a polite goodbye; then the connection is dropped, and the broker gives back what was not acknowledged."""


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue of our own, durable."""

    name: str
    type: Literal["quorum", "classic"] = "quorum"
    max_length: int = 1_000_000
    """Messages; 0: no limit. At the limit the oldest goes (drop-head): with reject-publish a full queue of ours would be an
    error in the publishing service, and the newest news is what converges."""
    expires_s: int = 7 * 86_400
    """Seconds without a consumer until the broker removes it; 0: never."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a session consumes."""

    queue: Queue
    exchanges: tuple[str, ...]
    """Looked for, never created: a guessed flag would break the service that owns it."""
    routing_keys: tuple[str, ...]
    """Each is bound for each exchange."""
    prefetch: int = 2000
    shared: bool = False
    """Consume although others do; and let others."""
    timeout_s: float = 30.0
    """For opening, and for each check."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker had to say."""

    created: bool = False
    """The queue was not there: whatever was said before now was not heard."""
    messages: int = 0
    """Ready in the queue."""
    consumers: int = 0
    bound: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    """Exchanges that aren't there (yet)."""


class Session(Protocol):
    """A consumer at work."""

    @property
    def found(self) -> Found:
        """When it was opened."""
        ...

    @property
    def ended(self) -> str:
        """Why it is over; empty while it works."""
        ...

    @property
    def unacked(self) -> int: ...

    async def deliveries(self, most: int) -> list[Delivery]:
        """What has arrived, at most so many, oldest first; waits for the first. Raises BrokerUnavailable once ended."""
        ...

    def ack(self, tag: int) -> None:
        """This one and all before it are kept. Raises BrokerUnavailable once ended: they will come again."""
        ...

    async def check(self) -> Found:
        """Ask the broker how things are, and bind what wasn't. Raises BrokerUnavailable (and has ended then)."""
        ...

    def end(self, reason: str) -> None:
        """Make it be over: whoever waits for deliveries learns of it."""
        ...

    async def close(self) -> None:
        """Say goodbye. What was not acknowledged goes back to the queue. Never raises, never hangs."""
        ...


class Broker(Protocol):
    """A place where sessions can be opened."""

    async def open(self, wanted: Wanted) -> Session:
        """Raises BrokerUnavailable, QueueShared (somebody consumes it), CannotStart (the queue has other settings)."""
        ...


class Address(msgspec.Struct, frozen=True):
    """Where a RabbitMQ listens. Its text never shows the password."""

    host: str
    port: int
    vhost: str
    username: str
    password: str
    tls: bool

    def __str__(self) -> str:
        return f"{'amqps' if self.tls else 'amqp'}://{self.host}:{self.port}/{self.vhost.replace('/', '%2F')}"

    __repr__ = __str__


def address(url: str, *, username: str = "", password: str = "") -> Address:
    """Read `amqp[s]://[user:password@]host[:port][/vhost]`; `username` and `password` go before those of the address.

    No vhost means `/` (as in RabbitMQ's URI specification, percent-encoded). Raises ConfigError, without the password in it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError("not an AMQP address (a password with special characters must be percent-encoded)") from None
    if parts.scheme not in ("amqp", "amqps") or not parts.hostname:
        raise ConfigError("an AMQP address looks like amqps://user:password@host:5671/vhost")
    if parts.query or parts.fragment:
        raise ConfigError(f"nothing may follow the vhost in an AMQP address, as in that of {parts.hostname}")
    tls = parts.scheme == "amqps"
    return Address(
        host=parts.hostname,
        port=port or (5671 if tls else 5672),
        vhost=unquote(parts.path[1:]) or "/",
        username=username or unquote(parts.username or "guest"),
        password=password or unquote(parts.password or "guest"),
        tls=tls,
    )


class AmqpBroker:
    """A RabbitMQ with one or several addresses (the nodes of a cluster), tried in turn."""

    def __init__(
        self, addresses: Sequence[Address], *, name: str, heartbeat_s: int = 30, tls: ssl.SSLContext | None = None
    ) -> None:
        """`name` is shown by the broker (`rabbitmqctl list_connections client_properties`). `tls` for amqps addresses:
        None means verified with the system's authorities."""
        if not addresses:
            raise ConfigError("no AMQP address")
        self._addresses = list(addresses)
        self._name = name
        self._heartbeat_s = heartbeat_s
        self._tls = tls
        # What pika would log at its own discretion is in our errors already, once and with the source's name.
        logging.getLogger("pika").setLevel(logging.CRITICAL)

    async def open(self, wanted: Wanted) -> Session:
        """The first address that answers."""
        failed: list[str] = []
        for _ in range(len(self._addresses)):
            where = self._addresses[0]
            try:
                return await self._open(where, wanted)
            except BrokerUnavailable as why:
                failed.append(f"{where}: {why}")
                self._addresses.append(self._addresses.pop(0))
        raise BrokerUnavailable("; ".join(failed))

    async def _open(self, where: Address, wanted: Wanted) -> Session:
        connection = Line(
            parameters(where, name=self._name, heartbeat_s=self._heartbeat_s, tls=self._tls, timeout_s=wanted.timeout_s)
        )
        session = AmqpSession(connection, wanted)
        try:
            async with asyncio.timeout(wanted.timeout_s):
                await connection.opened()
                await session.start()
                log.info("consuming", extra=kv(broker=where, queue=wanted.queue.name, server=connection.version))
                return session
        except TimeoutError:
            connection.drop()
            raise BrokerUnavailable(f"no answer within {wanted.timeout_s:g} s when {session.step}") from None
        except pika.exceptions.AMQPError as why:
            connection.drop()
            raise BrokerUnavailable(plain(why)) from None
        except BaseException:
            connection.drop()
            raise


def parameters(
    where: Address, *, name: str, heartbeat_s: int, tls: ssl.SSLContext | None, timeout_s: float
) -> pika.ConnectionParameters:
    """How to connect. `name` is what the broker shows for the connection."""
    options = None
    if where.tls:
        options = pika.SSLOptions(tls or ssl.create_default_context(), where.host)
    return pika.ConnectionParameters(
        host=where.host,
        port=where.port,
        virtual_host=where.vhost,
        credentials=pika.PlainCredentials(where.username, where.password),
        ssl_options=options,
        heartbeat=heartbeat_s,
        # The broker says so when an alarm of its own stops it from reading us; past this, a new connection is tried.
        blocked_connection_timeout=60.0,
        socket_timeout=min(10.0, timeout_s),
        stack_timeout=min(15.0, timeout_s),
        client_properties={"connection_name": f"vedette {name}"},
    )


class AmqpSession:
    """A consumer on a real broker."""

    def __init__(self, connection: Line, wanted: Wanted) -> None:
        self._connection = connection
        self._wanted = wanted
        self._found = Found()
        self._ended = ""
        self.step = "connecting"
        """What the broker was last asked for, for the person who reads why nothing came of it."""
        self._arrived: list[Delivery] = []
        self._waiter: asyncio.Future[None] | None = None
        self._channel: Channel | None = None
        self._last_arrived = 0
        self._last_acked = 0
        self._bound: set[str] = set()
        connection.on_lost(self.end)

    @property
    def found(self) -> Found:
        return self._found

    @property
    def ended(self) -> str:
        return self._ended

    @property
    def unacked(self) -> int:
        return 0 if self._ended else self._last_arrived - self._last_acked

    async def start(self) -> None:
        """Look, declare, bind, consume; in this order."""
        wanted = self._wanted
        found = await self._look()
        if found is not None and found.consumers and not wanted.shared:
            raise QueueShared(
                f"the queue {wanted.queue.name!r} is consumed by somebody else: each of its messages reaches only one of its "
                f"consumers. Give this source a queue name of its own, or set `shared_queue: true`"
            )
        await self._declare()
        bound = await self._bind_all()
        self._found = msgspec.structs.replace(bound, created=found is None, messages=found.messages if found else 0)
        # Seen with 3.10: a quorum queue that was made seconds before a kill -9 of its only node never answers this again.
        self.step = "starting to consume (if it stays so, the queue is broken: rabbitmqctl delete_queue)"
        channel = self._channel = await self._connection.channel()
        channel.on_closed(lambda why: self.end(f"the channel was closed: {why}"))
        channel.raw.add_on_cancel_callback(
            lambda _: self.end("the broker cancelled the consumer: the queue was deleted or moved")
        )
        await channel.call(channel.raw.basic_qos, prefetch_count=wanted.prefetch)
        self._connection.hand_deliveries_to(self._on_delivery, channel.raw.channel_number)
        try:
            # pika wants a callback; the deliveries never get that far.
            consume = functools.partial(channel.raw.basic_consume, wanted.queue.name, lambda *_: None)
            await channel.call(functools.partial(consume, exclusive=not wanted.shared))
        except Refused as why:
            if why.code in (403, 405):
                raise QueueShared(f"the queue {wanted.queue.name!r} is in somebody else's exclusive use: {why}") from None
            raise BrokerUnavailable(f"can't consume: {why}") from None

    async def deliveries(self, most: int) -> list[Delivery]:
        while not self._arrived or self._ended:
            if self._ended:
                raise BrokerUnavailable(self._ended)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        batch = self._arrived[:most]
        del self._arrived[:most]
        return batch

    def ack(self, tag: int) -> None:
        if self._ended or self._channel is None:
            raise BrokerUnavailable(self._ended or "not consuming")
        try:
            self._channel.raw.basic_ack(tag, multiple=True)
        except pika.exceptions.AMQPError as why:
            self.end(plain(why))
            raise BrokerUnavailable(plain(why)) from None
        self._last_acked = tag

    async def check(self) -> Found:
        wanted = self._wanted
        try:
            async with asyncio.timeout(wanted.timeout_s):
                looked = await self._look()
                if looked is None:
                    raise BrokerUnavailable("the queue is gone")
                if not looked.consumers:
                    raise BrokerUnavailable("the broker knows no consumer of the queue")
                bound = await self._bind_all()
        except BrokerUnavailable as why:
            self.end(str(why))
            raise
        except TimeoutError:
            self.end(f"no answer within {wanted.timeout_s:g} s when {self.step}")
            raise BrokerUnavailable(self._ended) from None
        except pika.exceptions.AMQPError as why:
            self.end(plain(why))
            raise BrokerUnavailable(plain(why)) from None
        return msgspec.structs.replace(bound, messages=looked.messages, consumers=looked.consumers)

    def end(self, reason: str) -> None:
        if self._ended:
            return
        self._ended = reason or "closed"
        self._arrived.clear()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def close(self) -> None:
        broken = bool(self._ended)
        self.end("closed")
        if broken:
            # A broker that fell silent would not answer a goodbye either.
            self._connection.drop()
        await self._connection.close(CLOSING)

    def _on_delivery(self, delivery: Delivery) -> None:
        """Called for each message: as little as can be. Bounded by the prefetch count."""
        self._arrived.append(delivery)
        self._last_arrived = delivery.tag
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _look(self) -> Found | None:
        """The queue as it is, asked on a channel of its own (a 404 closes the channel); None: there is none."""
        self.step = "looking at the queue"
        name = self._wanted.queue.name
        channel = await self._connection.channel()
        try:
            answer = await channel.call(functools.partial(channel.raw.queue_declare, name, passive=True))
        except Refused as why:
            if why.code == 404:
                return None
            if why.code == 405:
                raise QueueShared(f"the queue {name!r} is another connection's own: {why}") from None
            raise BrokerUnavailable(f"can't look at the queue: {why}") from None
        channel.close()
        return Found(messages=answer.method.message_count, consumers=answer.method.consumer_count)

    async def _declare(self) -> None:
        self.step = "declaring the queue"
        queue = self._wanted.queue
        arguments: dict[str, Any] = {"x-queue-type": queue.type}
        if queue.max_length:
            arguments |= {"x-max-length": queue.max_length, "x-overflow": "drop-head"}
        if queue.expires_s:
            arguments["x-expires"] = queue.expires_s * 1000
        unlimited = {}
        if queue.type == "quorum" and self._connection.version >= (4,):
            # From 4.0 on a message is dropped after 20 deliveries, and each lost connection counts as one. 3.x would read -1
            # as 0: dropped after the first (rabbitmq-server #12250, #14202). It can't be set by policy.
            unlimited = {"x-delivery-limit": -1}
        try:
            await self._declare_with({**arguments, **unlimited})
        except Refused as why:
            if unlimited and why.code == 406 and "x-delivery-limit" in why.text:
                # Made before the broker was upgraded: still ours, only with the broker's limit.
                log.warning(
                    "the queue has RabbitMQ 4's delivery limit; delete it once when it is empty, to be made without",
                    extra=kv(queue=queue.name),
                )
                try:
                    await self._declare_with(arguments)
                except Refused as still:
                    raise self._refusal(still) from None
                return
            raise self._refusal(why) from None

    async def _declare_with(self, arguments: dict[str, Any]) -> None:
        channel = await self._connection.channel()
        declare = functools.partial(channel.raw.queue_declare, self._wanted.queue.name, durable=True, arguments=arguments)
        await channel.call(declare)
        channel.close()

    def _refusal(self, why: Refused) -> Exception:
        queue = self._wanted.queue
        if why.code == 406:
            return CannotStart(
                f"the queue {queue.name!r} is there with other settings: {why.text}. Set this source's `queue` to what it is, or "
                f"give it another name, or remove it (its messages are lost): rabbitmqctl delete_queue {queue.name}"
            )
        return BrokerUnavailable(f"can't declare the queue {queue.name!r}: {why}")

    async def _bind_all(self) -> Found:
        """Bind the queue to every exchange that is there. Binding again changes nothing, and brings back what was lost with
        an exchange that went and came."""
        self.step = "binding the queue"
        bound: list[str] = []
        missing: list[str] = []
        channel: Channel | None = None
        for exchange in self._wanted.exchanges:
            if channel is None:
                channel = await self._connection.channel()
            try:
                await channel.call(functools.partial(channel.raw.exchange_declare, exchange, passive=True))
                *most, last = self._wanted.routing_keys
                for key in most:
                    channel.raw.queue_bind(self._wanted.queue.name, exchange, key)
                # Only the last is answered; an error in any of them closes the channel before that.
                await channel.call(functools.partial(channel.raw.queue_bind, self._wanted.queue.name, exchange, last))
            except Refused as why:
                channel = None
                missing.append(exchange)
                if why.code != 404:
                    log.warning("can't bind to an exchange", extra=kv(exchange=exchange, why=why))
                continue
            bound.append(exchange)
        if channel is not None:
            channel.close()
        if set(bound) != self._bound:
            log.info("bound", extra=kv(queue=self._wanted.queue.name, exchanges=",".join(bound), missing=",".join(missing)))
            self._bound = set(bound)
        return Found(bound=tuple(bound), missing=tuple(missing))


class Refused(Exception):
    """The broker closed the channel: its answer to what it doesn't like."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


class Line:
    """A connection, with futures where pika has callbacks."""

    def __init__(self, parameters: pika.ConnectionParameters) -> None:
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._gone = asyncio.Event()
        self._lost: list[Callable[[str], None]] = []
        self._up = False
        self._raw = Connection(
            parameters,
            on_open_callback=self._on_open,
            on_open_error_callback=self._on_gone,
            on_close_callback=self._on_gone,
            custom_ioloop=loop,
        )

    async def opened(self) -> None:
        """Return when it is. Raises BrokerUnavailable."""
        await self._opened

    @property
    def version(self) -> tuple[int, ...]:
        """The server's, e.g. (3, 10, 8); empty when it doesn't say."""
        text = (self._raw.server_properties or {}).get("version", "")
        text = text.decode() if isinstance(text, bytes) else str(text)
        return tuple(int(part) for part in text.replace("-", "+").split("+")[0].split(".") if part.isdigit())

    def on_lost(self, call: Callable[[str], None]) -> None:
        self._lost.append(call)

    async def channel(self) -> Channel:
        """A new one, open. Raises BrokerUnavailable."""
        try:
            return await Channel.opened(self._raw)
        except pika.exceptions.AMQPError as why:
            raise BrokerUnavailable(plain(why)) from None

    def on_blocked(self, call: Callable[[str], None]) -> None:
        """Call with why the broker reads us no more, and with "" when it does again."""
        self._raw.add_on_connection_blocked_callback(lambda _, frame: call(frame.method.reason or "no reason given"))
        self._raw.add_on_connection_unblocked_callback(lambda *_: call(""))

    def hand_deliveries_to(self, deliver: Callable[[Delivery], None], channel: int) -> None:
        self._raw.hand_deliveries_to(deliver, channel)

    def drop(self) -> None:
        """Cut it without a word; the broker notices by itself."""
        if self._gone.is_set():
            return
        if self._up:
            self._raw.cut()
        elif not self._raw.is_closing:
            # Not open yet: pika then ends its attempt, and nothing is said to the broker.
            self._raw.close()

    async def close(self, within: float) -> None:
        """Close it, politely for so many seconds; then without a word."""
        if not (self._raw.is_closing or self._raw.is_closed):
            self._raw.close()
        for _ in range(2):
            try:
                async with asyncio.timeout(within):
                    await self._gone.wait()
                return
            except TimeoutError:
                self.drop()
        log.error("a connection would not close")

    def _on_open(self, _connection: Any) -> None:
        self._up = True
        if not self._opened.done():
            self._opened.set_result(None)

    def _on_gone(self, _connection: Any, why: BaseException) -> None:
        self._gone.set()
        if not self._opened.done():
            self._opened.set_exception(BrokerUnavailable(plain(why)))
        for call in self._lost:
            call(f"the connection was lost: {plain(why)}")


class Channel:
    """A channel, with futures where pika has callbacks. The broker's errors close it."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self._waiting: asyncio.Future[Any] | None = None
        self._closed: list[Callable[[str], None]] = []
        raw.add_on_close_callback(self._on_close)

    @classmethod
    async def opened(cls, connection: Any) -> Channel:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel = cls(connection.channel(on_open_callback=lambda raw: _settle(future, raw)))
        channel._waiting = future
        await future
        return channel

    async def call(self, method: Callable[..., Any], **arguments: Any) -> Any:
        """Call a method of pika's and wait for the answer. Raises Refused, BrokerUnavailable."""
        future = self._waiting = asyncio.get_running_loop().create_future()
        try:
            method(**arguments, callback=functools.partial(_settle, future))
        except pika.exceptions.AMQPError as why:
            raise BrokerUnavailable(plain(why)) from None
        return await future

    def on_closed(self, call: Callable[[str], None]) -> None:
        self._closed.append(call)

    def close(self) -> None:
        """It was only for asking; nobody waits for the answer."""
        if self.raw.is_open:
            self.raw.close()

    def _on_close(self, _raw: Any, why: BaseException) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            if isinstance(why, pika.exceptions.ChannelClosedByBroker):
                waiting.set_exception(Refused(why.reply_code, why.reply_text))
            else:
                waiting.set_exception(BrokerUnavailable(plain(why)))
        for call in self._closed:
            call(plain(why))


def _settle(future: asyncio.Future[Any], answer: Any) -> None:
    if not future.done():
        future.set_result(answer)


def plain(why: BaseException) -> str:
    """What happened, in the words of the innermost error: pika wraps a refused connection four times."""
    if isinstance(why, pika.exceptions.ConnectionClosed | pika.exceptions.ChannelClosed):
        return f"{why.reply_text} ({why.reply_code})"
    if isinstance(why, pika.exceptions.ProbableAuthenticationError):
        return "the broker refused the user name or the password"
    if isinstance(why, pika.exceptions.ProbableAccessDeniedError):
        return "the broker refused the virtual host"
    if isinstance(why, pika.exceptions.IncompatibleProtocolError):
        return "the connection ended before the broker had said anything"
    inner = [part for part in _parts(why) if isinstance(part, BaseException)]
    if inner:
        return plain(inner[-1])
    return str(why) or type(why).__name__


def _parts(why: BaseException) -> Iterator[object]:
    yield from getattr(why, "exceptions", None) or ()
    yield getattr(why, "exception", None)
    yield from why.args
