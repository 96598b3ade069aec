"""What `vedette doctor` looks at on a source's RabbitMQ: the way there, exchanges, permissions, our queue, strangers, what is
announced. clients/rabbit_checks.py asks; what it means is decided here.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import ssl
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from vedette import config as settings
from vedette import plugins
from vedette.cli.certificates import check_certificate
from vedette.cli.finding import SKEW_SECONDS, Asked, Broker, Finding, Findings, Level, skew_of
from vedette.clients import rabbit_checks
from vedette.clients.amqp import Address, address
from vedette.errors import ConfigError, VedetteError
from vedette.kit.clock import SystemClock, parse_us
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry

OSLO_PRIORITIES = ("info", "error", "warn", "critical", "debug", "audit", "sample")


FIXES: Mapping[rabbit_checks.Trouble, str] = {
    "name": "correct the host in amqp, or the name server",
    "refused": "is RabbitMQ up? `systemctl status rabbitmq-server` there; port 5672 for amqp://, 5671 for amqps://; a firewall?",
    "timeout": "a firewall drops it, or the host is down",
    "tls": "amqps:// wants the TLS port (5671); name the CA's file in tls_ca",
    "login": "correct username and password; `guest` may log in from the broker's own machine only",
    "vhost": "correct the vhost in amqp (no path means /), and allow the user to use it",
    "other": "look at the broker's log",
}


async def check_broker(source: settings.SourceConfig, asked: Asked, broker: Broker, *, running: bool) -> Findings:
    """One source's RabbitMQ; what is found of it is noted in `broker`."""
    about = f"source {source.name}"
    options = source.options
    try:
        plugins.load("sources", source.type).build(options, clock=SystemClock(), telemetry=Telemetry())
        password = options.password.reveal() if isinstance(options.password, Secret) else options.password
        urls = [url.reveal() if isinstance(url, Secret) else url for url in options.amqp]
        addresses = [address(url, username=options.username, password=password) for url in urls]
        tls = ssl.create_default_context(cafile=options.tls_ca or None)
        if options.tls_cert:
            tls.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (ConfigError, OSError) as why:
        yield Finding("fail", about, str(why), "correct the source's settings")
        return
    looked: rabbit_checks.Look | None = None
    where = addresses[0]
    for one in addresses:
        try:
            found = await asyncio.to_thread(
                rabbit_checks.look,
                one,
                tls=tls,
                exchanges=options.exchanges,
                routing_keys=[f"{topic}.{priority}" for topic in options.topics for priority in options.priorities],
                queue=options.queue.name,
                well_known=_well_known(options.topics),
                listen_s=asked.listen_s if looked is None else 0.0,
            )
        except rabbit_checks.NoConnection as why:
            yield Finding("fail", about, f"{one}: {why}", _connection_fix(why.trouble, one, options.queue.name))
        else:
            yield Finding("ok", about, f"{one}: logged in as {one.username} ({found.product} {found.version})")
            if one.tls:
                async for finding in check_certificate(about, one.host, one.port, options.tls_ca):
                    yield finding
            if looked is None:
                looked, where = found, one
    if looked is None:
        return
    broker.where, broker.looked, broker.tls = where, looked, tls
    managed: rabbit_checks.Managed | None = None
    if asked.management_url:
        try:
            managed = await rabbit_checks.manage(asked.management_url, where, options.queue.name, tls=tls)
        except (VedetteError, KeyError, TypeError) as why:
            yield Finding(
                "warn",
                about,
                f"the management API can't be asked: {why}",
                f"rabbitmq-plugins enable rabbitmq_management\nrabbitmqctl set_user_tags {where.username} monitoring",
            )
    for finding in (
        *_exchanges(about, options, looked),
        *_permissions(about, options, looked, where),
        *_queue(about, options, looked, managed, running=running),
        *_bindings(about, options, looked, managed, running=running),
        *_unread(about, looked, managed, where, options.queue.name),
        *_heard(about, looked),
    ):
        yield finding
    for alarm in managed.alarms if managed else ():
        yield Finding("fail", about, f"the broker has a {alarm}: it lets nobody publish", "free memory or disk on the broker")


def _connection_fix(trouble: rabbit_checks.Trouble, where: Address, queue: str) -> str:
    fix = FIXES[trouble]
    if trouble == "vhost":
        fix += f"\nrabbitmqctl add_vhost {shlex.quote(where.vhost)}\n{_permit(where, queue)}"
    if trouble == "login":
        user = shlex.quote(where.username)
        fix += f"\nrabbitmqctl add_user {user} '<password>'   (or change_password)\n{_permit(where, queue)}"
    return fix


def _permit(where: Address, queue: str) -> str:
    """Configure and write our own queues, read them and every exchange: no more is needed."""
    ours = shlex.quote(f"^{re.escape(queue)}")
    return f"rabbitmqctl set_permissions -p {shlex.quote(where.vhost)} {shlex.quote(where.username)} {ours} {ours} '.*'"


def _well_known(topics: Sequence[str]) -> list[str]:
    """The queues that every publisher declares for whoever might listen, whether somebody does or not."""
    names = dict.fromkeys((*topics, "notifications", "versioned_notifications"))
    return [f"{topic}.{priority}" for topic in names for priority in OSLO_PRIORITIES]


def _exchanges(about: str, options: Any, looked: rabbit_checks.Look) -> Iterator[Finding]:
    there = [name for name, why in looked.exchanges.items() if not why]
    missing = [name for name, why in looked.exchanges.items() if why and "NOT_FOUND" in why]
    refused = {name: why for name, why in looked.exchanges.items() if why and "NOT_FOUND" not in why}
    if there:
        yield Finding("ok", about, f"exchanges: {', '.join(there)}")
    if not there and not refused:
        yield Finding(
            "fail",
            about,
            f"none of the exchanges is there ({', '.join(missing)})",
            "is this the broker and the vhost that the services use? Compare transport_url in nova.conf\n"
            "another name than the service's: see control_exchange in its configuration, and set `exchanges:`",
        )
    elif missing:
        # Normal: keystone and glance make theirs at their first notification, and cinder uses `openstack`.
        yield Finding("note", about, f"not there yet, and waited for: {', '.join(missing)}")
    for name, why in refused.items():
        yield Finding("fail", about, f"exchange {name}: {why}", "give the user the permission to read it")


def _permissions(about: str, options: Any, looked: rabbit_checks.Look, where: Address) -> Iterator[Finding]:
    fix = _permit(where, options.queue.name)
    if looked.refused:
        yield Finding("fail", about, f"a queue can't be made: {looked.refused}", fix)
    elif looked.refused_exchanges:
        names = ", ".join(looked.refused_exchanges)
        yield Finding("fail", about, f"can't bind to {names}: {next(iter(looked.refused_exchanges.values()))}", fix)
    else:
        yield Finding("ok", about, "permissions: may make a queue of its own and bind it")


def _queue(
    about: str, options: Any, looked: rabbit_checks.Look, managed: rabbit_checks.Managed | None, *, running: bool
) -> Iterator[Finding]:
    name = options.queue.name
    queue = looked.queue
    if looked.queue_trouble:
        yield Finding("fail", about, f"queue {name}: {looked.queue_trouble}", "give this source a queue name of its own")
        return
    if queue is None:
        if running:
            yield Finding("fail", about, f"the queue {name} is not there, and the service runs", "look at the service's log")
        else:
            yield Finding(
                "note", about, f"the queue {name} will be made at the first start; what is announced before is not heard"
            )
        return
    said = f"queue {name}: {queue.messages} waiting, {queue.consumers} consumer{'' if queue.consumers == 1 else 's'}"
    foreign = [one for one in managed.consumers if not one.connection.startswith("vedette ")] if managed else []
    ours = 1 if running else 0
    if foreign or (queue.consumers > ours and not options.shared_queue):
        who = f" ({', '.join(f'{one.connection} as {one.user}' for one in foreign)})" if foreign else ""
        yield Finding(
            "fail",
            about,
            f"{said}; somebody else reads it{who}: each message reaches only one of them",
            "give this source a queue of its own (queue: {name: vedette-2}), or stop the other\n"
            + ("is another Vedette running with this queue name?" if not foreign else ""),
        )
    elif running and queue.consumers == 0:
        yield Finding("fail", about, f"{said}, and the service runs", "look at the service's log; it tries again by itself")
    elif options.queue.max_length and queue.messages >= options.queue.max_length:
        yield Finding("fail", about, f"{said}: full, the oldest are lost", "start the service; a resync is due")
    elif not running and queue.messages:
        yield Finding("note", about, f"{said}; they are read at the next start")
    else:
        yield Finding("ok", about, said)


def _bindings(
    about: str, options: Any, looked: rabbit_checks.Look, managed: rabbit_checks.Managed | None, *, running: bool
) -> Iterator[Finding]:
    if managed is None or managed.queue is None:
        if looked.queue is not None:
            yield Finding(
                "note", about, "bindings can't be seen over AMQP (the service renews them at each connect and at each `check`)",
                "--management-url http://<broker>:15672 shows them",
            )  # fmt: skip
        return
    wanted = {
        (exchange, f"{topic}.{priority}")
        for exchange, why in looked.exchanges.items()
        if not why
        for topic in options.topics
        for priority in options.priorities
    }
    bound = {(one.source, one.routing_key) for one in managed.bindings}
    missing = sorted({exchange for exchange, _ in wanted - bound})
    if missing:
        level: Level = "fail" if running else "note"
        fix = "restart the service; it binds anew at each connect" if running else "made at the next start"
        yield Finding(level, about, f"queue {options.queue.name} is not (fully) bound to {', '.join(missing)}", fix)
    else:
        yield Finding("ok", about, f"bindings: {len(wanted)}, all there")
    odd = sorted(f"{source} {key}" for source, key in bound - wanted if key == "#" or source not in looked.exchanges)
    if odd:
        yield Finding(
            "warn", about, f"also bound, by somebody else: {', '.join(odd[:5])}", "rabbitmqadmin delete binding …, if not meant"
        )


def _unread(
    about: str, looked: rabbit_checks.Look, managed: rabbit_checks.Managed | None, where: Address, own: str
) -> Iterator[Finding]:
    """Queues that fill because nobody reads them: publishers declare them for listeners that may not exist."""
    seen = {queue.name: queue for queue in (*looked.unread, *(managed.unread if managed else ()))}
    filling = [queue for queue in seen.values() if queue.messages > 0 and queue.consumers == 0 and queue.name != own]
    notifying = [queue for queue in filling if re.search(r"notifications?\.\w+$", queue.name)]
    others = [queue for queue in filling if queue not in notifying and queue.messages >= 1000]
    if notifying:
        names = ", ".join(f"{queue.name} ({queue.messages})" for queue in notifying)
        yield Finding(
            "warn",
            about,
            f"nobody reads these queues, and they grow for ever: {names}",
            f"rabbitmqctl set_policy -p {shlex.quote(where.vhost)} --apply-to queues unread-notifications "
            r"""'^(versioned_)?notifications\.' '{"max-length": 1000, "overflow": "drop-head"}'"""
            "\nVedette has a queue of its own and doesn't need them; a telemetry service that reads them comes to no harm\n"
            f"rabbitmqctl purge_queue -p {shlex.quote(where.vhost)} {shlex.quote(notifying[0].name)}   (what is in it is lost)",
        )
    else:
        yield Finding("ok", about, "no notification queue fills without a reader")
    if others:
        names = ", ".join(f"{queue.name} ({queue.messages})" for queue in others[:5])
        yield Finding("note", about, f"other queues without a reader: {names}")


class _Inner(msgspec.Struct):
    event_type: str = ""
    timestamp: str = ""
    publisher_id: str | None = None


class _Envelope(msgspec.Struct):
    wrapped: str | None = msgspec.field(default=None, name="oslo.message")


def _heard(about: str, looked: rabbit_checks.Look) -> Iterator[Finding]:
    """What came while we listened: from whom, in which envelope, by which clock."""
    if not looked.listened or looked.refused:
        return
    if not looked.heard:
        yield Finding(
            "note",
            about,
            f"nothing was announced in {looked.listened:g} s",
            "--listen 60 hears longer; meanwhile change something: openstack server set --property doctor=1 <server>",
        )
        return
    exchanges = Counter(one.exchange for one in looked.heard)
    told = ", ".join(f"{name} {number}" for name, number in exchanges.most_common())
    yield Finding("ok", about, f"heard {looked.heard_count} notifications in {looked.listened:g} s: {told}")
    bare: set[str] = set()
    offsets: dict[str, list[float]] = {}
    for one in looked.heard:
        try:
            envelope = msgspec.json.decode(one.body, type=_Envelope)
            inner = msgspec.json.decode(envelope.wrapped or one.body, type=_Inner)
        except msgspec.DecodeError:
            continue
        if envelope.wrapped is None:
            bare.add(one.exchange)
        sent = parse_us(inner.timestamp)
        if sent:
            host = (inner.publisher_id or one.exchange).replace(":", ".").partition(".")[2] or one.exchange
            offsets.setdefault(host, []).append(sent / 1e6 - one.at)
    if bare:
        yield Finding(
            "note",
            about,
            f"old envelope from {', '.join(sorted(bare))}: understood, but newer services send the other",
            "[oslo_messaging_notifications] driver = messagingv2",
        )
    yield from skews(offsets)


def skews(offsets: Mapping[str, Sequence[float]]) -> Iterator[Finding]:
    """Hosts whose clocks are off, from message timestamps minus our clock at arrival. The smallest distance counts: a message
    may have waited on its way, but never arrives before it was sent."""
    off = {host: max(values) for host, values in offsets.items() if abs(max(values)) > SKEW_SECONDS}
    for host, seconds in sorted(off.items()):
        yield skew_of(f"the clock of {host}", seconds, f"chronyc tracking on {host}; chronyc makestep")
    if offsets and not off:
        yield Finding("ok", "clock", f"timestamps of {', '.join(sorted(offsets))} agree with this machine's clock")
