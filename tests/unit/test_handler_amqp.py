"""`amqp`: what is published, and what the broker's word means. A real broker: tests/integration/test_handlers_real.py."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pika
import pika.exceptions
import pika.spec
import pytest

from vedette.clients.amqp import address
from vedette.clients.amqp_publish import MOST_IN_HAND, AmqpPublisher, Message, _Open
from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater, VedetteError
from vedette.handlers.amqp import AmqpHandler, Options, build
from vedette.ports import Event
from vedette.testing.handling import FakeContext, change, handler_needs
from vedette.testing.rabbit import free_ports


class Kept:
    """A publisher that keeps what it was given."""

    def __init__(self) -> None:
        self.messages: list[Message] = []

    async def publish(self, message: Message) -> None:
        self.messages.append(message)

    async def close(self) -> None:
        pass


async def published(event: Event | None = None, **more: Any) -> Message:
    options: dict[str, Any] = {"amqp": ("amqp://127.0.0.1",), "exchange": "site", **more}
    kept = Kept()
    handler = AmqpHandler(Options(**options), handler_needs(), publisher=kept)
    event = event or change({"name": "web"}, request_id="req-9", traceparent="00-aa-bb-01")
    said = await handler.handle(event, FakeContext())
    [message] = kept.messages
    assert said == f"to {message.exchange or 'the queue'} with {message.routing_key}"
    return message


async def test_a_message_is_the_cloudevent_under_the_idempotency_key() -> None:
    message = await published(routing_key="{key.kind}.{event.verb}")
    assert (message.exchange, message.routing_key) == ("site", "Port.MODIFIED")
    assert message.message_id == "here/1795187946000042"
    assert message.type == "port.update.end"
    assert message.content_type == "application/cloudevents+json; charset=UTF-8"
    assert message.headers == {"traceparent": "00-aa-bb-01", "x-openstack-request-id": "req-9"}
    assert json.loads(message.body)["type"] == "vedette.object.modified"


async def test_the_object_or_a_body_of_ones_own() -> None:
    event = change({"name": 'a"b'})
    assert json.loads((await published(event, body="object")).body) == event.object
    assert json.loads((await published(event, body='{{"n": {object.status.name}}}')).body) == {"n": 'a"b'}
    assert (await published(event, body="{object.status.name}", content_type="text/plain")).body == b'a"b'


async def test_a_routing_key_that_is_missing_or_too_long_is_a_dead_letter() -> None:
    with pytest.raises(GiveUp, match="has no value"):
        await published(routing_key="{object.status.nothing}")
    assert (await published(routing_key="a{object.status.nothing}", missing="empty")).routing_key == "a"
    with pytest.raises(GiveUp, match="255 bytes"):
        await published(change({"name": "ü" * 128}), routing_key="{object.status.name}")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"amqp": ()}, "at least one address"),
        ({"amqp": ("http://host",)}, "amqps://"),
        ({"exchange": "x" * 256}, "255 bytes"),
        ({"routing_key": "{x}"}, "routing_key: character 2"),
        ({"body": "{{}"}, "body"),
        ({"content_type": ""}, "content_type"),
        ({"amqp": ("amqps://host",), "tls_ca": "/nowhere"}, "can't be read"),
        ({"timeout": 0.0}, "more than 0"),
    ],
)
def test_what_is_wrong_is_said_at_the_start(options: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"amqp": ("amqp://host",), "exchange": "site", **options}
    with pytest.raises(ConfigError, match=says):
        build(Options(**given), handler_needs())


async def test_nobody_there_is_no_attempt() -> None:
    first, second = free_ports(2)
    options = Options(amqp=(f"amqp://127.0.0.1:{first}", f"amqp://127.0.0.1:{second}"), exchange="site")
    handler = build(options, handler_needs())
    with pytest.raises(TargetUnavailable, match=rf"{first}.*refused.*; .*{second}"):
        await handler.handle(change({}), FakeContext())
    await handler.close()


# --- the broker's word -----------------------------------------------------------------------------------------------------


class Raw:
    """pika's channel, as far as publishing goes."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, bytes, Any]] = []
        self.broken = False

    def add_on_close_callback(self, call: Any) -> None:
        self.closed = call

    def add_on_return_callback(self, call: Any) -> None:
        self.returned = call

    def confirm_delivery(self, call: Any, callback: Any = None) -> None:
        self.confirm = call
        callback(None)

    def basic_publish(self, exchange: str, key: str, body: bytes, properties: Any, *, mandatory: bool) -> None:
        assert mandatory
        assert properties.delivery_mode == 2
        if self.broken:
            raise pika.exceptions.ChannelWrongStateError("closed")
        self.sent.append((exchange, key, body, properties))

    def says(self, method: Any) -> None:
        self.confirm(type("Frame", (), {"method": method}))

    def ack(self, tag: int, *, multiple: bool = False) -> None:
        self.says(pika.spec.Basic.Ack(tag, multiple))


class Line:
    def on_lost(self, call: Any) -> None:
        self.lost = call

    def on_blocked(self, call: Any) -> None:
        self.blocked = call


class Channel:
    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    async def call(self, method: Any) -> None:
        method(callback=lambda _: None)


async def opened() -> tuple[_Open, Raw, Line]:
    raw, line = Raw(), Line()
    there = _Open(line, Channel(raw))  # type: ignore[arg-type]
    await there.start()
    return there, raw, line


def message(id_: str = "here/1") -> Message:
    return Message(exchange="site", routing_key="k", body=b"{}", content_type="application/json", message_id=id_)


async def outcome(future: asyncio.Future[None]) -> str:
    try:
        await asyncio.wait_for(future, 5)
    except VedetteError as why:
        return f"{type(why).__name__}: {why}"
    return "done"


async def test_each_message_is_done_when_the_broker_says_so() -> None:
    there, raw, _ = await opened()
    first, second, third, fourth = (there.send(message(f"here/{number}")) for number in range(4))
    raw.ack(2)
    assert (first.done(), second.done()) == (False, True)
    raw.ack(3, multiple=True)
    assert (first.done(), third.done(), fourth.done()) == (True, True, False)
    raw.says(pika.spec.Basic.Nack(4))
    raw.ack(4)  # said twice: nothing
    assert [await outcome(one) for one in (first, second, third)] == ["done"] * 3
    assert (await outcome(fourth)).startswith("TryLater: the broker could not keep it")


async def test_a_message_that_no_queue_takes_is_an_error_although_it_is_confirmed() -> None:
    there, raw, _ = await opened()
    lost, kept = there.send(message("here/1")), there.send(message("here/2"))
    raw.returned(None, pika.spec.Basic.Return(312, "NO_ROUTE"), raw.sent[0][3], b"{}")
    raw.ack(0, multiple=True)
    assert (await outcome(lost)).startswith("TryLater: no queue takes it: NO_ROUTE (312)")
    assert await outcome(kept) == "done"
    again = there.send(message("here/1"))
    raw.ack(3)
    assert await outcome(again) == "done"


async def test_a_blocked_broker_is_waited_for() -> None:
    there, raw, line = await opened()
    waiting = there.send(message())
    line.blocked("low on memory")
    assert await outcome(waiting) == "TargetUnavailable: the broker takes no messages: low on memory"
    with pytest.raises(TargetUnavailable, match="low on memory"):
        there.send(message())
    raw.ack(1)  # it took that one after all
    line.blocked("")
    sent = there.send(message())
    raw.ack(2)
    assert await outcome(sent) == "done"


@pytest.mark.parametrize(
    ("why", "alone", "with_others"),
    [
        (pika.exceptions.ChannelClosedByBroker(404, "no exchange"), "TargetUnavailable", "TargetUnavailable"),
        (pika.exceptions.ChannelClosedByBroker(403, "refused"), "TargetUnavailable", "TargetUnavailable"),
        (pika.exceptions.ChannelClosedByBroker(406, "too large"), "GiveUp", "TryLater"),
        (pika.exceptions.ChannelClosedByClient(0, "bye"), "TargetUnavailable", "TargetUnavailable"),
    ],
)
async def test_a_closed_channel_says_why_to_all_that_wait(why: Exception, alone: str, with_others: str) -> None:
    for count, name in ((1, alone), (3, with_others)):
        there, raw, _ = await opened()
        waiting = [there.send(message(f"here/{number}")) for number in range(count)]
        raw.closed(None, why)
        assert {(await outcome(one)).partition(":")[0] for one in waiting} == {name}
        with pytest.raises(VedetteError):
            there.send(message())


async def test_a_lost_connection_ends_all_that_wait_and_one_that_was_cancelled_is_left_alone() -> None:
    there, raw, line = await opened()
    waiting, cancelled = there.send(message("here/1")), there.send(message("here/2"))
    cancelled.cancel()
    line.lost("the connection was lost: reset")
    assert await outcome(waiting) == "TargetUnavailable: the connection was lost: reset"
    assert cancelled.cancelled()
    raw.ack(2, multiple=True)
    broken, raw, _ = await opened()
    raw.broken = True
    with pytest.raises(TargetUnavailable):
        broken.send(message())


async def test_what_waits_is_bounded() -> None:
    there, raw, _ = await opened()
    for number in range(MOST_IN_HAND):
        there.send(message(f"here/{number}"))
    with pytest.raises(TryLater, match="wait for the broker's word already"):
        there.send(message())
    raw.ack(0, multiple=True)
    there.send(message())
    assert len(raw.sent) == MOST_IN_HAND + 1


async def test_what_no_protocol_field_can_hold_is_a_dead_letter() -> None:
    publisher = AmqpPublisher([address("amqp://127.0.0.1:1")], name="test", timeout_s=1.0)
    with pytest.raises(GiveUp, match="255 bytes"):
        await publisher.publish(message("x" * 256))
    await publisher.close()
