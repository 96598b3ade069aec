"""A broker in memory, with the port of clients/amqp.py: what a RabbitMQ does to a source, without one.

Held to the real one by `testing/source_suite.py`, which runs on both. It has topic exchanges with plain keys, durable queues
with a limit, redelivery, and the ways in which brokers fail.
"""

from __future__ import annotations

import asyncio
from collections import deque

import msgspec

from vedette.clients.amqp import Found, Queue, Session, Wanted
from vedette.clients.deliveries import Delivery
from vedette.errors import BrokerUnavailable, CannotStart, QueueShared


class FakeBroker:
    """Opens sessions, and fails when it is told to."""

    def __init__(self) -> None:
        self.up = True
        self.silent = False
        """Sessions hear nothing, and no question is answered."""
        self.forgetful = False
        """Says that nobody consumes, whoever does."""
        self.exchanges: dict[str, bool] = {}
        """Name to durable."""
        self.queues: dict[str, FakeQueue] = {}
        self.opened = 0
        """Sessions so far."""

    async def open(self, wanted: Wanted) -> Session:
        if not self.up or self.silent:
            raise BrokerUnavailable("the fake broker is down")
        queue = self.queues.get(wanted.queue.name)
        created = queue is None
        if queue is None:
            queue = self.queues[wanted.queue.name] = FakeQueue(wanted.queue)
        if queue.consumers and not wanted.shared:
            raise QueueShared(f"the queue {wanted.queue.name!r} is consumed by somebody else")
        if queue.settings != wanted.queue:
            raise CannotStart(f"the queue {wanted.queue.name!r} is there with other settings")
        self.opened += 1
        session = FakeSession(self, queue, wanted)
        session.found = session.bind(created=created, messages=len(queue.ready))
        queue.sessions.append(session)
        queue.deal()
        return session

    def publish(self, exchange: str, body: bytes, *, routing_key: str, content_encoding: str = "utf-8") -> None:
        for queue in self.queues.values():
            if (exchange, routing_key) in queue.bindings:
                queue.put(Delivery(0, body, content_encoding, exchange, routing_key, False, ""))

    def declare_exchange(self, name: str, *, durable: bool = False) -> None:
        self.exchanges.setdefault(name, durable)

    def delete_exchange(self, name: str) -> None:
        self.exchanges.pop(name, None)
        for queue in self.queues.values():
            queue.bindings = {(exchange, key) for exchange, key in queue.bindings if exchange != name}

    def delete_queue(self, name: str) -> None:
        for session in self.queues.pop(name).sessions.copy():
            session.end("the broker cancelled the consumer")

    def cancel_consumers(self, name: str) -> None:
        for session in self.queues[name].sessions.copy():
            session.end("the broker cancelled the consumer")

    def cut(self) -> None:
        """Every connection is lost; everything else stays."""
        for queue in self.queues.values():
            for session in queue.sessions.copy():
                session.end("the connection was lost")

    def stop(self) -> None:
        """Go down, as in a restart: transient exchanges and their bindings are gone, queues and messages stay."""
        self.up = False
        self.cut()
        for name in [name for name, durable in self.exchanges.items() if not durable]:
            self.delete_exchange(name)

    def start(self) -> None:
        self.up = True


class FakeQueue:
    """Messages ready, and who consumes them."""

    def __init__(self, settings: Queue) -> None:
        self.settings = settings
        self.ready: deque[Delivery] = deque()
        self.bindings: set[tuple[str, str]] = set()
        self.sessions: list[FakeSession] = []
        self.foreign = 0
        """Consumers that aren't ours (they take nothing)."""
        self.stuck = False
        """Delivers nothing, and looks well."""

    @property
    def consumers(self) -> int:
        return len(self.sessions) + self.foreign

    def put(self, message: Delivery) -> None:
        self.ready.append(message)
        limit = self.settings.max_length
        while limit and len(self.ready) > limit:
            self.ready.popleft()
        self.deal()

    def give_back(self, messages: list[Delivery]) -> None:
        """Not acknowledged: first in the queue again, in their order, marked."""
        self.ready.extendleft(message._replace(redelivered=True) for message in reversed(messages))
        self.deal()

    def deal(self) -> None:
        for session in self.sessions:
            session.take()


class FakeSession:
    """A consumer."""

    def __init__(self, broker: FakeBroker, queue: FakeQueue, wanted: Wanted) -> None:
        self.found = Found()
        self.ended = ""
        self._broker = broker
        self._queue = queue
        self._wanted = wanted
        self._tag = 0
        self._unacked: list[Delivery] = []
        self._arrived: list[Delivery] = []
        self._changed = asyncio.Event()

    @property
    def unacked(self) -> int:
        return len(self._unacked)

    def bind(self, *, created: bool = False, messages: int = 0) -> Found:
        bound = tuple(name for name in self._wanted.exchanges if name in self._broker.exchanges)
        self._queue.bindings |= {(name, key) for name in bound for key in self._wanted.routing_keys}
        return Found(
            created=created,
            messages=messages,
            consumers=0 if self._broker.forgetful else self._queue.consumers,
            bound=bound,
            missing=tuple(name for name in self._wanted.exchanges if name not in bound),
        )

    def take(self) -> None:
        """Deliver what is ready, up to the prefetch count."""
        if self.ended or self._queue.stuck or self._broker.silent:
            return
        while self._queue.ready and len(self._unacked) < self._wanted.prefetch:
            self._tag += 1
            message = self._queue.ready.popleft()._replace(tag=self._tag)
            self._unacked.append(message)
            self._arrived.append(message)
            self._changed.set()

    async def deliveries(self, most: int) -> list[Delivery]:
        while True:
            if self.ended:
                raise BrokerUnavailable(self.ended)
            if self._arrived:
                batch, self._arrived = self._arrived[:most], self._arrived[most:]
                return batch
            self._changed.clear()
            await self._changed.wait()

    def ack(self, tag: int) -> None:
        if self.ended:
            raise BrokerUnavailable(self.ended)
        self._unacked = [message for message in self._unacked if message.tag > tag]
        self.take()

    async def check(self) -> Found:
        if self.ended:
            raise BrokerUnavailable(self.ended)
        if self._broker.silent:
            self.end("no answer")
            raise BrokerUnavailable("no answer")
        found = self.bind()
        if not found.consumers:
            self.end("the broker knows no consumer of the queue")
            raise BrokerUnavailable(self.ended)
        return msgspec.structs.replace(found, messages=len(self._queue.ready))

    def end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = reason
        self._changed.set()
        self._queue.sessions.remove(self)
        back, self._unacked, self._arrived = self._unacked, [], []
        self._queue.give_back(back)

    async def close(self) -> None:
        self.end("closed")
