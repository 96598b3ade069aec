"""docs/howto/rabbitmq.md, run: the user that it makes can do what a source needs, and no more."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pika
import pika.exceptions
import pytest

from vedette.config import load_text
from vedette.kit.clock import SystemClock
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.sources import openstack
from vedette.testing.rabbit import Rabbit
from vedette.testing.source_suite import Taker, ids, messages

pytestmark = pytest.mark.rabbitmq

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "rabbitmq.md"


def commands(start: str) -> list[list[str]]:
    """The page's `rabbitmqctl …` lines that begin so, as words without the first."""
    lines = re.findall(rf"^rabbitmqctl {start}.*$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines, start
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def user(rabbit: Rabbit) -> Iterator[str]:
    """The page's user, made as the page says. Its URL without user and password."""
    for words in [*commands("add_user"), *commands("set_permissions")]:
        rabbit.ctl(*words)
    yield f"amqp://127.0.0.1:{rabbit.port}/%2F"
    rabbit.ctl("delete_user", "vedette")


async def test_a_source_works_with_the_permissions_of_the_page(rabbit: Rabbit, user: str) -> None:
    password = commands("add_user")[0][2]
    config = load_text(
        f"sources: [{{name: cloud, type: openstack, amqp: '{user}', username: vedette, password: '${{PASSWORD}}'}}]",
        {"PASSWORD": password},
    )
    options = config.sources[0].options
    publisher = await asyncio.to_thread(rabbit.publisher)
    for exchange in options.exchanges:
        await asyncio.to_thread(publisher.exchange, exchange)
    taker = Taker()
    source = openstack.build(options, clock=SystemClock(), telemetry=Telemetry())
    running = asyncio.create_task(source.run(taker))
    try:
        await taker.until(lambda: bool(taker.causes), "the queue")
        assert source.status().ready, source.status().detail
        for number, exchange in enumerate(options.exchanges):
            await asyncio.to_thread(publisher.publish, exchange, messages(1, number))
        await taker.heard(ids(len(options.exchanges)))
    finally:
        await cancel(running)
        await asyncio.to_thread(publisher.delete_queue, "vedette")
        for exchange in options.exchanges:
            await asyncio.to_thread(publisher.delete_exchange, exchange)
        await asyncio.to_thread(publisher.close)


def test_that_user_can_do_nothing_else(rabbit: Rabbit, user: str) -> None:
    services = rabbit.publisher()
    services.exchange("nova")
    services.queue("notifications.info", exchange="nova", keys=["notifications.info"])
    parameters = pika.URLParameters(user)
    parameters.credentials = pika.PlainCredentials("vedette", commands("add_user")[0][2])
    connection = pika.BlockingConnection(parameters)
    body = pika.BasicProperties()
    refused = {
        "publish to nova": lambda channel: (
            channel.confirm_delivery(),
            channel.basic_publish("nova", "notifications.info", b"x", body),
        ),
        "publish to a queue": lambda channel: (
            channel.confirm_delivery(),
            channel.basic_publish("", "notifications.info", b"x", body),
        ),
        "read another's queue": lambda channel: channel.basic_get("notifications.info"),
        "purge it": lambda channel: channel.queue_purge("notifications.info"),
        "delete it": lambda channel: channel.queue_delete("notifications.info"),
        "make a queue": lambda channel: channel.queue_declare("vedette2"),
        "make an exchange": lambda channel: channel.exchange_declare("nova2", exchange_type="topic"),
        "delete an exchange": lambda channel: channel.exchange_delete("nova"),
    }
    try:
        for what, attempt in refused.items():
            with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
                attempt(connection.channel())
            assert caught.value.reply_code == 403, what
        # What the doctor listens on is gone with its connection.
        channel = connection.channel()
        channel.queue_declare("vedette.doctor.1", exclusive=True)
        channel.queue_bind("vedette.doctor.1", "nova", "notifications.info")
    finally:
        connection.close()
        services.delete_queue("notifications.info")
        services.delete_exchange("nova")
        services.close()


def test_the_policy_keeps_the_shared_queues_short_and_ours_alone(rabbit: Rabbit) -> None:
    (words,) = commands("set_policy")
    rabbit.ctl(*words)
    services = rabbit.publisher()
    try:
        for queue in ("notifications.info", "versioned_notifications.error", "vedette"):
            services.queue(queue)
        lines = rabbit.ctl("list_queues", "name", "policy").splitlines()
        applied = dict(line.split("\t") for line in lines if "\t" in line)
        assert applied["notifications.info"] == applied["versioned_notifications.error"] == "unread-notifications"
        assert applied["vedette"] != "unread-notifications"
    finally:
        for queue in ("notifications.info", "versioned_notifications.error", "vedette"):
            services.delete_queue(queue)
        services.close()
        rabbit.ctl("clear_policy", "unread-notifications")
