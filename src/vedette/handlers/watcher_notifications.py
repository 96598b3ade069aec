"""Publishes what the log tells of audits, plans and actions to a RabbitMQ, as OpenStack Watcher's versioned notifications.

An event of engine/record_notices.py comes in, an `oslo.message` 2.0 goes out with persistence and the broker's confirm: event
type, payload and publisher are Watcher's. The routing key is the topic with the priority behind it, as oslo.messaging has it; the
exchange, and a queue bound to it, have to be there (whoever listens with oslo.messaging has made them). Other events are none of
its business: `on: {sources: vedette, types: [audit.*, action_plan.*, action.*]}`.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Literal

import msgspec

from vedette.clients.amqp import address
from vedette.clients.amqp_publish import AmqpPublisher, Message, Publisher
from vedette.clients.tls import client_context
from vedette.errors import ConfigError
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.model.reading import VEDETTE_SOURCE
from vedette.ports import Context, Event, HandlerNeeds

_LEVELS = ("debug", "info", "warning", "error")
_OURS = ("audit.", "action_plan.", "action.", "service.")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Watcher's notifications of audits, plans and actions to a RabbitMQ."""

    amqp: tuple[str, ...]
    """Where it is: `amqps://host:5671/vhost`, or several of a cluster, tried in turn."""
    username: str = ""
    """Its user; none: the one in the address, else `guest`."""
    password: Secret = Secret()
    """Its password."""
    exchange: str = "watcher"
    """Watcher's `control_exchange`; it has to be there."""
    topic: str = "versioned_notifications"
    """The beginning of the routing key; `.info`, `.warning` or `.error` follow."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """Watcher's `notification_level`: the least that is published."""
    tls_ca: FilePath = ""
    """PEM file of the authorities to trust with `amqps`; none: the system's."""
    tls_cert: FilePath = ""
    """PEM file of a client certificate, where the broker wants one."""
    tls_key: FilePath = ""
    """PEM file of its private key, if it is not in `tls_cert`."""
    timeout: Seconds = 10.0
    """For connecting, and for the broker's word on one message."""


def build(options: Options, needs: HandlerNeeds) -> WatcherNotifications:
    """Raises ConfigError."""
    return WatcherNotifications(options, needs)


class WatcherNotifications:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds, *, publisher: Publisher | None = None) -> None:
        if not options.amqp:
            raise ConfigError("wants at least one address", path="amqp")
        addresses = [address(url, username=options.username, password=options.password.reveal()) for url in options.amqp]
        tls = None
        if any(one.tls for one in addresses):
            whose = f"handler {needs.name}"
            tls = client_context(ca=options.tls_ca, cert=options.tls_cert, key=options.tls_key, whose=whose)
        self._options = options
        self._publisher: Publisher = publisher or AmqpPublisher(
            addresses, name=f"handler {needs.name}", timeout_s=options.timeout, tls=tls
        )

    async def handle(self, event: Event, context: Context) -> str:
        notice = event.notice
        if notice.source != VEDETTE_SOURCE or not event.type.startswith(_OURS):
            return "no notification of Watcher's"
        priority = (notice.priority or "INFO").lower()
        if _LEVELS.index(priority if priority in _LEVELS else "info") < _LEVELS.index(self._options.level):
            return f"{priority} is below {self._options.level}"
        routing_key = f"{self._options.topic}.{priority}"
        await self._publisher.publish(
            Message(
                exchange=self._options.exchange,
                routing_key=routing_key,
                body=envelope(event, priority),
                content_type="application/json",
                # The same when it is published again.
                message_id=event.idempotency_key,
                type="",
                headers={},
            )
        )
        return f"{event.type} to {self._options.exchange} with {routing_key}"

    async def close(self) -> None:
        await self._publisher.close()


def envelope(event: Event, priority: str) -> bytes:
    """The message as oslo.messaging 2.0 writes it: JSON in JSON."""
    notice = event.notice
    said = datetime.fromtimestamp((notice.sent_at or event.appended_at) / 1_000_000, UTC)
    message = {
        "message_id": _message_id(notice.id),
        "publisher_id": notice.publisher,
        "event_type": notice.event_type,
        "priority": priority.upper(),
        "payload": event.payload,
        "timestamp": said.strftime("%Y-%m-%d %H:%M:%S.%f"),
        "_unique_id": uuid.uuid5(uuid.NAMESPACE_URL, event.idempotency_key).hex,
        **({"_context_request_id": notice.request_id} if notice.request_id else {}),
        **({"_context_global_request_id": notice.global_request_id} if notice.global_request_id else {}),
    }
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}).encode()


def _message_id(id_: str) -> str:
    try:
        return str(uuid.UUID(id_))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, id_))
