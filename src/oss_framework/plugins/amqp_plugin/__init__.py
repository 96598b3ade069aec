"""Publishes each node that came or went to RabbitMQ, by `[amqp]`: JSON, persistent, and confirmed by the broker."""

from __future__ import annotations

import json
import logging
import ssl
import time

import pika
import pika.exceptions
from oslo_config import cfg

from oss_framework.plugins import base
from vedette.errors import GiveUp, TargetUnavailable, TryLater

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

TIMEOUT_SECONDS = 10.0
MOST_BYTES = 1024 * 1024
"""Of one message; a detail has some hundred."""


class AMQPNotify(base.BasePlugin):
    """To `exchange` with `routing_key_creation` or `routing_key_deletion`; nodes come seldom, so each message has a connection of
    its own. With the default exchange ("") the key is a queue's name, and the queue has to be there."""

    def notify(self, node_detail: base.NodeDetail, created: bool) -> None:
        """Raises TargetUnavailable, TryLater (no such exchange, no queue that takes it, or the broker says no), GiveUp (the
        message is too large)."""
        key = CONF.amqp.routing_key_creation if created else CONF.amqp.routing_key_deletion
        where = f"{CONF.amqp.host}:{CONF.amqp.port}"
        body = json.dumps(node_detail).encode()
        if len(body) > MOST_BYTES:
            raise GiveUp(f"the message has {len(body)} bytes, more than {MOST_BYTES}")
        properties = pika.BasicProperties(
            content_type="application/json",
            delivery_mode=pika.DeliveryMode.Persistent.value,
            message_id=self.idempotency_key[:255] or None,
            type="created" if created else "deleted",
            timestamp=int(time.time()),
        )
        try:
            connection = pika.BlockingConnection(_parameters())
            try:
                channel = connection.channel()
                channel.confirm_delivery()
                channel.basic_publish(CONF.amqp.exchange, key, body, properties, mandatory=True)
            finally:
                if connection.is_open:
                    connection.close()
        except pika.exceptions.UnroutableError:
            raise TryLater(f"{where}: no queue takes {key!r} from the exchange {CONF.amqp.exchange!r}", delay=30) from None
        except pika.exceptions.NackError:
            raise TryLater(f"{where} did not take the message") from None
        except pika.exceptions.ChannelClosedByBroker as why:
            raise TryLater(f"{where}: {why.reply_text}", delay=30) from None
        except (pika.exceptions.AMQPError, OSError) as why:
            raise TargetUnavailable(f"{where} can't be reached: {type(why).__name__} {why}") from None
        LOG.info("%s has it, for %s", where, key)


def _parameters() -> pika.ConnectionParameters:
    tls = None
    if CONF.amqp.ssl:
        tls = pika.SSLOptions(ssl.create_default_context(cafile=CONF.amqp.cacert or None), CONF.amqp.host)
    return pika.ConnectionParameters(
        host=CONF.amqp.host,
        port=CONF.amqp.port,
        virtual_host=CONF.amqp.virtual_host,
        credentials=pika.PlainCredentials(CONF.amqp.user, CONF.amqp.password),
        ssl_options=tls,
        socket_timeout=TIMEOUT_SECONDS,
        stack_timeout=TIMEOUT_SECONDS,
        blocked_connection_timeout=TIMEOUT_SECONDS,
    )
