"""Publishes a message to a RabbitMQ for each event, and is done when a queue has it.

An event comes in, a persistent message goes to an exchange, with the idempotency key as its `message_id`. A message that no queue
takes is tried again and ends in the dead letters; a broker that is away, blocked by an alarm, or without the exchange is waited
for.
"""

from __future__ import annotations

import msgspec

from vedette.clients.amqp import address
from vedette.clients.amqp_publish import LONGEST_KEY, AmqpPublisher, Message, Publisher
from vedette.clients.tls import client_context
from vedette.errors import ConfigError, GiveUp
from vedette.handlers._target import Body
from vedette.handlers._template import Missing, Values, template
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.ports import Context, Event, HandlerNeeds


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a RabbitMQ for each event."""

    amqp: tuple[str, ...]
    """Where it is: `amqps://host:5671/vhost`, or several of a cluster, tried in turn."""
    username: str = ""
    """Its user; none: the one in the address, else `guest`."""
    password: Secret = Secret()
    """Its password."""
    exchange: str
    """Where messages go; it has to be there. `""`: the default exchange, in which the routing key is a queue's name."""
    routing_key: str = "{event.type}"
    """A template, such as `{key.kind}.{event.verb}`; at most 255 bytes once it is filled in."""
    body: str = "cloudevent"
    """`cloudevent` (the event as a CloudEvent 1.0 in JSON), `object` (the object alone), or a template."""
    content_type: str = "application/json"
    """What a template gives. In JSON every value is encoded as JSON."""
    missing: Missing = "fail"
    """When the routing key names a value that an event doesn't have: `fail` (a dead letter), or `empty`."""
    tls_ca: FilePath = ""
    """PEM file of the authorities to trust with `amqps`; none: the system's."""
    tls_cert: FilePath = ""
    """PEM file of a client certificate, where the broker wants one."""
    tls_key: FilePath = ""
    """PEM file of its private key, if it is not in `tls_cert`."""
    timeout: Seconds = 10.0
    """For connecting, and for the broker's word on one message."""


def build(options: Options, needs: HandlerNeeds) -> AmqpHandler:
    """Raises ConfigError."""
    return AmqpHandler(options, needs)


class AmqpHandler:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds, *, publisher: Publisher | None = None) -> None:
        if not options.amqp:
            raise ConfigError("wants at least one address", path="amqp")
        if options.timeout <= 0:
            raise ConfigError("must be more than 0", path="timeout")
        if len(options.exchange.encode()) > LONGEST_KEY:
            raise ConfigError(f"has more than {LONGEST_KEY} bytes", path="exchange")
        addresses = [address(url, username=options.username, password=options.password.reveal()) for url in options.amqp]
        tls = None
        if any(one.tls for one in addresses):
            whose = f"handler {needs.name}"
            tls = client_context(ca=options.tls_ca, cert=options.tls_cert, key=options.tls_key, whose=whose)
        self._key = template(options.routing_key, "line", missing=options.missing, path="routing_key")
        if not 0 < len(options.content_type.encode()) <= LONGEST_KEY:
            raise ConfigError(f"wants 1 to {LONGEST_KEY} bytes", path="content_type")
        self._body = Body(options.body, options.content_type)
        self._exchange = options.exchange
        self._publisher: Publisher = publisher or AmqpPublisher(
            addresses, name=f"handler {needs.name}", timeout_s=options.timeout, tls=tls
        )

    async def handle(self, event: Event, context: Context) -> str:
        values = Values(event)
        routing_key = self._key.fill(values)
        if len(routing_key.encode()) > LONGEST_KEY:
            raise GiveUp(f"the routing key would have more than {LONGEST_KEY} bytes")
        headers = {"traceparent": event.traceparent, "x-openstack-request-id": event.request_id}
        message = Message(
            exchange=self._exchange,
            routing_key=routing_key,
            body=self._body.fill(event, values),
            content_type=self._body.content_type,
            message_id=event.idempotency_key,
            type=event.type if len(event.type.encode()) <= LONGEST_KEY else "",
            headers={name: value for name, value in headers.items() if value},
        )
        await self._publisher.publish(message)
        return f"to {self._exchange or 'the queue'} with {routing_key}"

    async def close(self) -> None:
        await self._publisher.close()
