"""The handlers `mail` and `amqp` against real servers: an Exim that delivers into a Maildir, and a RabbitMQ that is restarted,
cut off and blocked."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from vedette.errors import GiveUp, TargetUnavailable, TryLater
from vedette.handlers import amqp, mail, watcher_notifications
from vedette.kit.secret import Secret
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE_SOURCE
from vedette.sources.openstack import decode
from vedette.testing import pytest_exim
from vedette.testing.handling import FakeContext, change, handler_needs
from vedette.testing.mail import Exim
from vedette.testing.proxy import Proxy
from vedette.testing.rabbit import Publisher, Rabbit
from vedette.testing.tls import Authority

authority = pytest_exim.authority
exim = pytest_exim.exim

EVENT = change({"name": "wéb"}, {"name": "old"})

# --- mail ------------------------------------------------------------------------------------------------------------------


def mailer(exim: Exim, authority: Authority, **more: Any) -> mail.MailHandler:
    options: dict[str, Any] = {
        "host": "localhost",
        "port": exim.port,
        "ca": str(authority.ca),
        "sender": "Vedette <vedette@vedette.test>",
        "recipients": ("Ops <ops@vedette.test>",),
        **more,
    }
    return mail.build(mail.Options(**options), handler_needs())


async def test_a_mail_arrives_over_tls_with_its_text_as_it_was(exim: Exim, authority: Authority) -> None:
    handler = mailer(
        exim, authority, subject="Pört {object.status.name}", body="{object.status.name}\n.\n.. {key.id}\n" + "x" * 3000
    )
    assert await handler.handle(EVENT, FakeContext()) == "sent to 1"
    [message] = await asyncio.to_thread(exim.delivered, 1)
    assert message["Subject"] == "Pört wéb"
    assert message["Envelope-To"] == "ops@vedette.test"
    assert message["Return-Path"] in (None, "<vedette@vedette.test>")
    text = message.get_content().replace("\r\n", "\n")
    assert text == f"wéb\n.\n.. {EVENT.key.id if EVENT.key else ''}\n{'x' * 3000}\n"
    assert "TLS" in message["Received"]


async def test_it_signs_in_and_a_wrong_password_is_waited_for(exim: Exim, authority: Authority) -> None:
    good = mailer(exim, authority, username="vedette", password=Secret("s3cret"))
    assert await good.handle(EVENT, FakeContext()) == "sent to 1"
    wrong = mailer(exim, authority, username="vedette", password=Secret("guess"))
    with pytest.raises(TargetUnavailable, match="our user name or password is refused: 535"):
        await wrong.handle(EVENT, FakeContext())
    [message] = await asyncio.to_thread(exim.delivered, 1)
    assert "esmtpsa" in message["Received"]


async def test_each_recipient_gets_it_once_whatever_the_server_says_of_the_others(exim: Exim, authority: Authority) -> None:
    handler = mailer(
        exim, authority, recipients=("ops@vedette.test", "greylisted@vedette.test", "nobody@vedette.test", "x@elsewhere.test")
    )
    with pytest.raises(TryLater, match=r"1 of 4 have it; not yet: greylisted@vedette\.test \(451 come again\)"):
        await handler.handle(EVENT, FakeContext())
    await asyncio.to_thread(exim.delivered, 1)
    exim.open_up()
    said = await handler.handle(EVENT, FakeContext())
    assert said == ("sent to 2; refused: nobody@vedette.test (550 no such user), x@elsewhere.test (550 no relaying here)")
    there = await asyncio.to_thread(exim.delivered, 2)
    assert sorted(one["Envelope-To"] for one in there) == ["greylisted@vedette.test", "ops@vedette.test"]
    assert len({one["Message-ID"] for one in there}) == 1


async def test_a_message_that_the_server_will_never_take_is_a_dead_letter(exim: Exim, authority: Authority) -> None:
    with pytest.raises(GiveUp, match="550 not this"):
        await mailer(exim, authority, subject="poison").handle(EVENT, FakeContext())
    with pytest.raises(GiveUp, match="552"):
        await mailer(exim, authority, body="x" * 60_000 + "{object}").handle(change({"name": "y" * 2_000_000}), FakeContext())
    with pytest.raises(GiveUp, match="every recipient is refused"):
        await mailer(exim, authority, recipients=("nobody@vedette.test",)).handle(EVENT, FakeContext())


async def test_a_server_that_is_down_is_waited_for(exim: Exim, authority: Authority) -> None:
    handler = mailer(exim, authority)
    await asyncio.to_thread(exim.stop)
    with pytest.raises(TargetUnavailable):
        await handler.handle(EVENT, FakeContext())
    await asyncio.to_thread(exim.start)
    assert await handler.handle(EVENT, FakeContext()) == "sent to 1"
    await asyncio.to_thread(exim.delivered, 1)


# --- amqp ------------------------------------------------------------------------------------------------------------------


class Broker(msgspec.Struct):
    """Names of one's own on the run's RabbitMQ, behind a proxy."""

    rabbit: Rabbit
    proxy: Proxy
    exchange: str
    queue: str

    def handler(self, **more: Any) -> amqp.AmqpHandler:
        options: dict[str, Any] = {
            "amqp": (f"amqp://guest:guest@127.0.0.1:{self.proxy.port}/%2F",),
            "exchange": self.exchange,
            "routing_key": "{key.kind}.{event.verb}",
            **more,
        }
        return amqp.build(amqp.Options(**options), handler_needs())

    def bind(self) -> None:
        publisher = self.rabbit.publisher()
        publisher.exchange(self.exchange, durable=True)
        publisher.queue(self.queue, exchange=self.exchange, keys=["Port.*"], durable=True)
        publisher.close()

    def drain(self) -> list[Any]:
        publisher = self.rabbit.publisher()
        taken = [json.loads(body) for body in publisher.drain(self.queue)]
        publisher.close()
        return taken


@pytest.fixture
async def broker(rabbit: Rabbit) -> AsyncIterator[Broker]:
    name = f"site-{uuid.uuid4().hex[:8]}"
    async with Proxy("127.0.0.1", rabbit.port) as proxy:
        yield Broker(rabbit, proxy, name, f"{name}-queue")


@pytest.mark.rabbitmq
async def test_a_message_is_in_the_queue_when_the_call_returns_and_outlives_a_restart(broker: Broker) -> None:
    await asyncio.to_thread(broker.bind)
    handler = broker.handler()
    for number in range(5):
        said = await handler.handle(change({"n": number}, idempotency_key=f"here/{number}"), FakeContext())
        assert said == f"to {broker.exchange} with Port.MODIFIED"
    await asyncio.to_thread(broker.rabbit.restart)
    with_the_old_connection = change({"n": 5}, idempotency_key="here/5")
    await handler.handle(with_the_old_connection, FakeContext())
    events = await asyncio.to_thread(broker.drain)
    assert [one["data"]["object"]["status"]["n"] for one in events] == [0, 1, 2, 3, 4, 5]
    await handler.close()


@pytest.mark.rabbitmq
async def test_the_properties_are_what_a_consumer_needs_to_know_it_again(broker: Broker) -> None:
    await asyncio.to_thread(broker.bind)
    handler = broker.handler()
    await handler.handle(EVENT, FakeContext())
    await handler.close()

    def take() -> Any:
        publisher: Publisher = broker.rabbit.publisher()
        _, properties, body = publisher._channel.basic_get(broker.queue, auto_ack=True)
        publisher.close()
        return properties, body

    properties, body = await asyncio.to_thread(take)
    assert (properties.message_id, properties.delivery_mode) == (EVENT.idempotency_key, 2)
    assert (properties.type, properties.app_id) == ("port.update.end", "vedette")
    assert properties.content_type.startswith("application/cloudevents+json")
    assert json.loads(body)["data"]["object"]["status"]["name"] == "wéb"


@pytest.mark.rabbitmq
async def test_a_message_without_a_queue_is_an_error_and_a_missing_exchange_is_waited_for(broker: Broker) -> None:
    handler = broker.handler()
    with pytest.raises(TargetUnavailable, match=r"no exchange.*make the exchange"):
        await handler.handle(EVENT, FakeContext())
    await asyncio.to_thread(broker.bind)
    with pytest.raises(TryLater, match=r"no queue takes it: NO_ROUTE \(312\)") as raised:
        await handler.handle(change({}, kind="Server"), FakeContext())
    assert type(raised.value) is TryLater
    await handler.handle(EVENT, FakeContext())
    assert len(await asyncio.to_thread(broker.drain)) == 1
    await handler.close()


@pytest.mark.rabbitmq
async def test_a_connection_that_is_cut_is_opened_again_and_nothing_is_lost(broker: Broker) -> None:
    await asyncio.to_thread(broker.bind)
    handler = broker.handler()
    done: set[int] = set()

    async def until_done(number: int) -> None:
        event = change({"n": number}, idempotency_key=f"here/{number}")
        for _ in range(200):
            try:
                await handler.handle(event, FakeContext())
            except TargetUnavailable:
                await asyncio.sleep(0.05)
                continue
            done.add(number)
            return

    calls = [asyncio.create_task(until_done(number)) for number in range(500)]
    for _ in range(3):
        while broker.proxy.open == 0 and not all(one.done() for one in calls):
            await asyncio.sleep(0.01)
        broker.proxy.cut()
        await asyncio.sleep(0.05)
    await asyncio.gather(*calls)
    assert done == set(range(500))
    taken = [one["data"]["object"]["status"]["n"] for one in await asyncio.to_thread(broker.drain)]
    print(f"\n500 published, {len(taken)} in the queue, {len(taken) - len(set(taken))} twice")
    assert set(taken) == done
    await handler.close()


@pytest.fixture
def alarm(rabbit: Rabbit) -> Iterator[Rabbit]:
    yield rabbit
    rabbit.ctl("set_vm_memory_high_watermark", "0.6")


@pytest.mark.rabbitmq
async def test_a_broker_that_is_blocked_by_its_alarm_is_waited_for(broker: Broker, alarm: Rabbit) -> None:
    await asyncio.to_thread(broker.bind)
    handler = broker.handler(timeout=20.0)
    await handler.handle(EVENT, FakeContext())
    await asyncio.to_thread(alarm.ctl, "set_vm_memory_high_watermark", "0.0000001")
    for _ in range(2):
        with pytest.raises(TargetUnavailable, match="the broker takes no messages: low on memory"):
            await handler.handle(EVENT, FakeContext())
    await asyncio.to_thread(alarm.ctl, "set_vm_memory_high_watermark", "0.6")
    for _ in range(200):
        try:
            await handler.handle(EVENT, FakeContext())
            break
        except TargetUnavailable:
            await asyncio.sleep(0.05)
    else:
        raise AssertionError("it stayed blocked")
    assert len(await asyncio.to_thread(broker.drain)) >= 2
    await handler.close()


@pytest.mark.rabbitmq
async def test_a_wrong_password_is_said(broker: Broker) -> None:
    handler = broker.handler(amqp=(f"amqp://127.0.0.1:{broker.proxy.port}",), username="guest", password=Secret("wrong"))
    with pytest.raises(TargetUnavailable, match="refused the user name or the password"):
        await handler.handle(EVENT, FakeContext())
    await handler.close()


@pytest.mark.rabbitmq
async def test_tls_to_the_broker_is_verified(broker: Broker, authority: Authority) -> None:
    await asyncio.to_thread(broker.bind)
    async with Proxy("127.0.0.1", broker.rabbit.port, tls=authority.server("broker").server_context()) as proxy:
        url = f"amqps://guest:guest@localhost:{proxy.port}/%2F"
        trusting = broker.handler(amqp=(url,), tls_ca=str(authority.ca))
        await trusting.handle(EVENT, FakeContext())
        await trusting.close()
        stranger = broker.handler(amqp=(url,))
        with pytest.raises(TargetUnavailable, match=r"(?i)certificate"):
            await stranger.handle(EVENT, FakeContext())
        await stranger.close()
    assert len(await asyncio.to_thread(broker.drain)) == 1


# --- Watcher's notifications -------------------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
async def test_watchers_notifications_arrive_as_oslo_messaging_writes_them(broker: Broker) -> None:
    def bind() -> None:
        publisher = broker.rabbit.publisher()
        publisher.exchange(broker.exchange, durable=True)
        publisher.queue(broker.queue, exchange=broker.exchange, keys=["versioned_notifications.error"], durable=True)
        publisher.close()

    await asyncio.to_thread(bind)
    options = watcher_notifications.Options(
        amqp=(f"amqp://guest:guest@127.0.0.1:{broker.proxy.port}/%2F",), exchange=broker.exchange, level="warning"
    )
    handler = watcher_notifications.build(options, handler_needs())
    payload = {"watcher_object.name": "AuditActionPayload", "watcher_object.data": {"uuid": "u", "fault": None}}

    def event(event_type: str, priority: str, source: str = VEDETTE_SOURCE) -> Any:
        notice = Notice(
            id=str(uuid.uuid4()),
            source=source,
            event_type=event_type,
            sent_at=1_795_187_946_000_000,
            payload=msgspec.Raw(msgspec.json.encode(payload)),
            priority=priority,
            publisher="infra-optim:here",
        )
        return msgspec.structs.replace(EVENT, notice=notice, verb="", key=None)

    said = await handler.handle(event("audit.strategy.start", "INFO"), FakeContext())
    assert said == "info is below warning"
    assert await handler.handle(event("port.create.end", "ERROR", "one"), FakeContext()) == "no notification of Watcher's"
    failed = event("audit.strategy.error", "ERROR")
    assert "audit.strategy.error to" in await handler.handle(failed, FakeContext())
    await handler.close()
    (envelope,) = await asyncio.to_thread(broker.drain)
    message = json.loads(envelope["oslo.message"])
    assert envelope["oslo.version"] == "2.0"
    assert {"message_id", "publisher_id", "event_type", "priority", "payload", "timestamp"} <= set(message)
    assert (message["publisher_id"], message["event_type"], message["priority"]) == (
        "infra-optim:here",
        "audit.strategy.error",
        "ERROR",
    )
    assert message["payload"] == payload
    # Our own reader of notifications takes it too.
    read = decode(json.dumps(envelope).encode(), source="again")
    assert (read.id, read.event_type, read.publisher) == (failed.notice.id, "audit.strategy.error", "infra-optim:here")
