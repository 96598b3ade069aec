"""Publishes to a RabbitMQ, each message with the broker's word that it has it (publisher confirms).

A message comes in; `publish` returns when a queue holds it, on disk where the queue is durable. One connection and one channel,
opened with the first message and anew after they are lost. Messages are mandatory: one that reaches no queue is an error.
(AMQP 0-9-1 with RabbitMQ's confirms, returns and `connection.blocked`)
"""

from __future__ import annotations

import asyncio
import functools
import logging
import ssl
from collections.abc import Sequence
from typing import Any, Protocol

import msgspec
import pika
import pika.exceptions

from vedette.clients.amqp import CLOSING, Address, Channel, Line, Refused, parameters, plain
from vedette.errors import BrokerUnavailable, ConfigError, GiveUp, TargetUnavailable, TryLater
from vedette.kit.log import kv

log = logging.getLogger("vedette.clients.amqp_publish")

MOST_IN_HAND = 1_000
"""Messages that wait for the broker's word at one time; further ones are turned away, to be tried again."""
LONGEST_KEY = 255
"""Bytes of a routing key, an exchange's name, a message id: what a short string of the protocol holds."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """What is published."""

    exchange: str
    """"": the default one, in which the routing key is the queue's name."""
    routing_key: str
    body: bytes
    content_type: str
    message_id: str
    """The same when the message is sent again."""
    type: str = ""
    headers: dict[str, str] = {}


class Publisher(Protocol):
    """Somewhere to publish to."""

    async def publish(self, message: Message) -> None: ...

    async def close(self) -> None: ...


class AmqpPublisher:
    """A RabbitMQ with one or several addresses, tried in turn."""

    def __init__(
        self,
        addresses: Sequence[Address],
        *,
        name: str,
        timeout_s: float,
        heartbeat_s: int = 30,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """`timeout_s`: for connecting, and for the broker's word on one message."""
        if not addresses:
            raise ConfigError("no AMQP address")
        self._addresses = list(addresses)
        self._name, self._timeout_s, self._heartbeat_s, self._tls = name, timeout_s, heartbeat_s, tls
        self._open: _Open | None = None
        self._opening = asyncio.Lock()
        # What pika would log at its own discretion is in our errors already.
        logging.getLogger("pika").setLevel(logging.CRITICAL)

    async def publish(self, message: Message) -> None:
        """Return when the broker has it in a queue.

        Raises TargetUnavailable (no connection, the exchange is missing or not ours to use, the broker is blocked by an alarm of
        its own, no word in time), TryLater (no queue for it, or the broker could not keep it), GiveUp (it is refused for itself).
        After any of them the broker may still have it: it can come twice.
        """
        for text in (message.exchange, message.routing_key, message.message_id, message.type):
            if len(text.encode(errors="replace")) > LONGEST_KEY:
                raise GiveUp(f"exchange, routing key, type and message id have at most {LONGEST_KEY} bytes")
        async with self._opening:
            there = await self._ready()
        told = there.send(message)
        try:
            async with asyncio.timeout(self._timeout_s):
                await told
        except TimeoutError:
            why = f"the broker did not say within {self._timeout_s:g} s that it has the message"
            there.end(TargetUnavailable(why))
            raise TargetUnavailable(why) from None

    async def close(self) -> None:
        """Say goodbye. A later message opens it again."""
        there, self._open = self._open, None
        if there is not None:
            there.end(TargetUnavailable("closed"))
            await there.line.close(CLOSING)

    async def _ready(self) -> _Open:
        if self._open is not None and self._open.ended is None:
            return self._open
        await self.close()
        failed: list[str] = []
        for _ in range(len(self._addresses)):
            where = self._addresses[0]
            try:
                self._open = await self._connect(where)
                return self._open
            except BrokerUnavailable as why:
                failed.append(f"{where}: {why}")
                self._addresses.append(self._addresses.pop(0))
        raise TargetUnavailable("; ".join(failed))

    async def _connect(self, where: Address) -> _Open:
        line = Line(parameters(where, name=self._name, heartbeat_s=self._heartbeat_s, tls=self._tls, timeout_s=self._timeout_s))
        try:
            async with asyncio.timeout(self._timeout_s):
                await line.opened()
                there = _Open(line, await line.channel())
                await there.start()
                log.info("publishing", extra=kv(broker=where, handler=self._name))
                return there
        except TimeoutError:
            line.drop()
            raise BrokerUnavailable(f"no answer within {self._timeout_s:g} s") from None
        except (Refused, pika.exceptions.AMQPError) as why:
            line.drop()
            raise BrokerUnavailable(plain(why)) from None
        except BaseException:
            line.drop()
            raise


class _Open:
    """A connection with its channel in confirm mode, until one of them ends."""

    def __init__(self, line: Line, channel: Channel) -> None:
        self.line = line
        self.ended: Exception | None = None
        self._channel = channel
        self._blocked = ""
        self._last = 0
        """Number of the newest message: the broker counts along."""
        self._waiting: dict[int, tuple[asyncio.Future[None], str]] = {}
        """Number → who waits, and the message's id."""
        self._returned: dict[str, str] = {}
        """Message id → why; the broker returns a message before it confirms it, and there it is taken out again."""

    async def start(self) -> None:
        raw = self._channel.raw
        self.line.on_lost(lambda why: self.end(TargetUnavailable(why)))
        self.line.on_blocked(self._on_blocked)
        raw.add_on_close_callback(self._on_channel_closed)
        raw.add_on_return_callback(self._on_return)
        await self._channel.call(functools.partial(raw.confirm_delivery, self._on_confirm))

    def send(self, message: Message) -> asyncio.Future[None]:
        """Done when the broker has it."""
        if self._blocked:
            raise TargetUnavailable(f"the broker takes no messages: {self._blocked}")
        if self.ended is not None:
            raise self.ended
        if len(self._waiting) >= MOST_IN_HAND:
            raise TryLater(f"{MOST_IN_HAND} messages wait for the broker's word already")
        properties = pika.BasicProperties(
            content_type=message.content_type,
            delivery_mode=2,
            message_id=message.message_id,
            type=message.type or None,
            headers=message.headers or None,
            app_id="vedette",
        )
        try:
            self._channel.raw.basic_publish(message.exchange, message.routing_key, message.body, properties, mandatory=True)
        except pika.exceptions.AMQPError as why:
            self.end(TargetUnavailable(plain(why)))
            raise TargetUnavailable(plain(why)) from None
        self._last += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[self._last] = (future, message.message_id)
        return future

    def end(self, why: Exception) -> None:
        """Whoever waits learns of it."""
        if self.ended is None:
            self.ended = why
        waiting, self._waiting = self._waiting, {}
        for future, _ in waiting.values():
            _fail(future, why)
        self._returned.clear()

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        tag, taken = method.delivery_tag, isinstance(method, pika.spec.Basic.Ack)
        # 0 with `multiple` means all; else with `multiple` all up to it. Numbers are in order.
        numbers = [tag] if not method.multiple else [one for one in self._waiting if not tag or one <= tag]
        for number in numbers:
            future, message_id = self._waiting.pop(number, (None, ""))
            if future is None:
                continue
            why = self._returned.pop(message_id, "")
            if why:
                _fail(future, TryLater(f"no queue takes it: {why}. Bind one to the exchange for this routing key"))
            elif not taken:
                _fail(future, TryLater("the broker could not keep it (a full queue that rejects, or an error of its own)"))
            elif not future.done():
                future.set_result(None)

    def _on_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        self._returned[properties.message_id] = f"{method.reply_text} ({method.reply_code})"

    def _on_blocked(self, why: str) -> None:
        self._blocked = why
        if why:
            waiting, self._waiting = self._waiting, {}
            for future, _ in waiting.values():
                _fail(future, TargetUnavailable(f"the broker takes no messages: {why}"))

    def _on_channel_closed(self, _raw: Any, why: BaseException) -> None:
        said = plain(why)
        code = why.reply_code if isinstance(why, pika.exceptions.ChannelClosedByBroker) else 0
        if code in (403, 404):
            self.end(TargetUnavailable(f"{said}: make the exchange, or let our user write to it"))
        elif code:
            # It was one of those in hand; with only one, it is known which.
            self.end(GiveUp(said) if len(self._waiting) == 1 else TryLater(said))
        else:
            self.end(TargetUnavailable(said))


def _fail(future: asyncio.Future[None], why: Exception) -> None:
    if not future.done():
        future.set_exception(why)
