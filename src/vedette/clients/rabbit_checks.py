"""Looks at a RabbitMQ the way a doctor does: read-only, in one short visit, and says what is there.

In: an address and the names one cares about. Out: values; what they mean and what to do is `cli/doctor.py`'s. Two ways: AMQP
itself (passive declares on throw-away channels, and a queue of our own that is exclusive, bounded and gone with the connection),
and the management API where there is one. Nothing that exists is changed, consumed or purged.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import aiohttp
import msgspec
import pika
import pika.exceptions

from vedette.clients.amqp import Address
from vedette.errors import BrokerUnavailable, FixInput, NotAllowed, NotFound, TryLater

Trouble = Literal["name", "refused", "timeout", "tls", "login", "vhost", "other"]

TIMEOUT_SECONDS = 10.0
SAMPLE_BODIES = 2_000
"""Messages that are kept of those heard; more are only counted."""
SAMPLE_BYTES = 65_536
LOOK_SECONDS = 0.2
"""How often somebody who listens looks whether to stop."""
LARGEST_ANSWER = 32 * 1024 * 1024


class NoConnection(BrokerUnavailable):
    """It didn't come to a conversation; `trouble` says how far it came."""

    def __init__(self, message: str, trouble: Trouble) -> None:
        super().__init__(message)
        self.trouble = trouble


class Queue(msgspec.Struct, frozen=True):
    """A queue as the broker counts it."""

    name: str
    messages: int
    consumers: int


class Heard(msgspec.Struct, frozen=True):
    """One message that came while we listened. `at`: our clock, Unix seconds."""

    exchange: str
    routing_key: str
    at: float
    body: bytes
    """Up to SAMPLE_BYTES; longer ones are left out (empty)."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What one visit found."""

    product: str
    version: str
    exchanges: Mapping[str, str]
    """name → "" when it is there, else the broker's words."""
    queue: Queue | None
    queue_trouble: str = ""
    unread: Sequence[Queue]
    """Of the well-known queues, those that are there."""
    refused: str = ""
    """Why a queue of ours could not be made, or bound; "" when it could."""
    refused_exchanges: Mapping[str, str] = msgspec.field(default_factory=dict)
    heard: Sequence[Heard] = ()
    heard_count: int = 0
    listened: float = 0.0


class Binding(msgspec.Struct, frozen=True):
    source: str
    routing_key: str


class Consumer(msgspec.Struct, frozen=True):
    """Who reads a queue: the connection's name (or address) and user."""

    connection: str
    user: str


class Managed(msgspec.Struct, frozen=True, kw_only=True):
    """What the management API told."""

    version: str
    queue: Queue | None
    bindings: Sequence[Binding]
    consumers: Sequence[Consumer]
    unread: Sequence[Queue]
    """Queues of the vhost with messages and without a consumer."""
    alarms: Sequence[str]


class _Refused(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text


def look(
    where: Address,
    *,
    tls: ssl.SSLContext | None,
    exchanges: Sequence[str],
    routing_keys: Sequence[str],
    queue: str,
    well_known: Sequence[str],
    listen_s: float = 0.0,
    timeout_s: float = TIMEOUT_SECONDS,
    now: Callable[[], float] = time.time,
) -> Look:
    """Visit the broker; blocks for `timeout_s` plus `listen_s` at the most. Raises NoConnection."""
    connection = _connect(where, tls, timeout_s)
    try:
        properties: Any = connection._impl.server_properties or {}
        there = {name: _exchange(connection, name) for name in exchanges}
        own, own_trouble = _queue(connection, queue)
        unread = [found for name in well_known if (found := _queue(connection, name)[0]) is not None]
        present = [name for name, why in there.items() if not why]
        refused, refused_exchanges, heard, count = _listen(connection, queue, present, routing_keys, listen_s, now)
        return Look(
            product=str(properties.get("product", "?")),
            version=str(properties.get("version", "?")),
            exchanges=there,
            queue=own,
            queue_trouble=own_trouble,
            unread=unread,
            refused=refused,
            refused_exchanges=refused_exchanges,
            heard=heard,
            heard_count=count,
            listened=listen_s,
        )
    except pika.exceptions.AMQPError as why:
        raise NoConnection(f"the connection broke: {_said(why)}", "other") from None
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            connection.close()


def _connect(where: Address, tls: ssl.SSLContext | None, timeout_s: float) -> pika.BlockingConnection:
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    options = pika.SSLOptions(tls or ssl.create_default_context(), where.host) if where.tls else None
    parameters = pika.ConnectionParameters(
        host=where.host,
        port=where.port,
        virtual_host=where.vhost,
        credentials=pika.PlainCredentials(where.username, where.password),
        ssl_options=options,
        socket_timeout=timeout_s,
        stack_timeout=timeout_s,
        blocked_connection_timeout=timeout_s,
        connection_attempts=1,
        client_properties={"connection_name": "vedette doctor"},
    )
    # pika's own errors lose what the socket said, so it is asked first.
    _probe(where, tls, timeout_s)
    try:
        return pika.BlockingConnection(parameters)
    except pika.exceptions.ProbableAuthenticationError:
        raise NoConnection(f"the broker refuses the user {where.username!r} or its password", "login") from None
    except pika.exceptions.ProbableAccessDeniedError as why:
        raise NoConnection(_said(why), "vhost") from None
    except pika.exceptions.ConnectionClosedByBroker as why:
        trouble: Trouble = "vhost" if why.reply_code in (402, 530) else "login" if why.reply_code == 403 else "other"
        raise NoConnection(_said(why), trouble) from None
    except (pika.exceptions.AMQPError, OSError) as why:
        raise NoConnection(_said(why), "other") from None


def _probe(where: Address, tls: ssl.SSLContext | None, timeout_s: float) -> None:
    """A socket, and TLS where it is wanted. Raises NoConnection."""
    try:
        with socket.create_connection((where.host, where.port), timeout_s) as raw:
            if where.tls:
                context = tls or ssl.create_default_context()
                with context.wrap_socket(raw, server_hostname=where.host):
                    pass
    except socket.gaierror:
        raise NoConnection(f"the name {where.host!r} has no address", "name") from None
    except TimeoutError:
        raise NoConnection(f"no answer within {timeout_s:g} s", "timeout") from None
    except ssl.SSLCertVerificationError as why:
        raise NoConnection(f"its certificate is not accepted: {why.verify_message}", "tls") from None
    except ssl.SSLError as why:
        raise NoConnection(f"TLS failed ({why.reason or why}): does this port speak TLS?", "tls") from None
    except OSError as why:
        raise NoConnection(why.strerror or str(why), "refused") from None


def _said(why: BaseException) -> str:
    """What a pika error has to tell, without Python around it."""
    text = getattr(why, "reply_text", "") or " ".join(str(part) for part in why.args if part)
    # An error of the adapter's wraps another one as text: ConnectionClosedByBroker: (530) 'NOT_ALLOWED - …'
    wrapped = re.search(r"\(\d+\) '(.*)'$", text)
    return (wrapped[1] if wrapped else text).strip() or type(why).__name__


def _channel(connection: pika.BlockingConnection, ask: Callable[[Any], Any]) -> Any:
    """Do one thing on a channel of its own: a refusal closes the channel. Raises _Refused."""
    channel = connection.channel()
    try:
        answer = ask(channel)
    except pika.exceptions.ChannelClosedByBroker as why:
        raise _Refused(why.reply_code, why.reply_text) from None
    channel.close()
    return answer


def _exchange(connection: pika.BlockingConnection, name: str) -> str:
    try:
        _channel(connection, lambda channel: channel.exchange_declare(name, passive=True))
    except _Refused as why:
        return why.text
    return ""


def _queue(connection: pika.BlockingConnection, name: str) -> tuple[Queue | None, str]:
    try:
        answer = _channel(connection, lambda channel: channel.queue_declare(name, passive=True))
    except _Refused as why:
        return None, "" if why.code == 404 else why.text
    return Queue(name, answer.method.message_count, answer.method.consumer_count), ""


def _listen(
    connection: pika.BlockingConnection,
    queue: str,
    exchanges: Sequence[str],
    routing_keys: Sequence[str],
    seconds: float,
    now: Callable[[], float],
) -> tuple[str, dict[str, str], list[Heard], int]:
    """Make a queue like ours, bind it as ours would be, hear what comes; gone when the connection is."""
    heard: list[Heard] = []
    count = 0
    try:
        name, refused_exchanges = _bound(connection, queue, exchanges, routing_keys)
    except _Refused as why:
        return why.text, {}, [], 0

    def arrived(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        nonlocal count
        count += 1
        if len(heard) < SAMPLE_BODIES:
            heard.append(Heard(method.exchange, method.routing_key, now(), body if len(body) <= SAMPLE_BYTES else b""))

    if seconds > 0:
        channel = connection.channel()
        channel.basic_consume(name, arrived, auto_ack=True, exclusive=True)
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            connection.process_data_events(time_limit=left)
        # Closing the channel cancels the consumer, and that removes the queue.
        channel.close()
    return "", refused_exchanges, heard, count


def _bound(
    connection: pika.BlockingConnection, queue: str, exchanges: Sequence[str], routing_keys: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """A throw-away queue, bound to what lets it; its name, and the broker's words for exchanges that don't. Raises _Refused."""
    # Named like the real one, since permissions are patterns of names; and unlike any other's.
    name = f"{queue}.doctor.{time.time_ns():x}"

    def declare(channel: Any) -> None:
        arguments = {"x-max-length": 10_000, "x-overflow": "drop-head"}
        channel.queue_declare(name, exclusive=True, auto_delete=True, arguments=arguments)

    _channel(connection, declare)
    refused: dict[str, str] = {}
    for exchange in exchanges:
        try:
            for key in routing_keys:
                _channel(connection, lambda channel, exchange=exchange, key=key: channel.queue_bind(name, exchange, key))  # type: ignore[misc]
        except _Refused as why:
            refused[exchange] = why.text
    return name, refused


def hear(
    where: Address,
    *,
    tls: ssl.SSLContext | None,
    exchanges: Sequence[str],
    routing_keys: Sequence[str],
    queue: str,
    wanted: Callable[[bytes], bool],
    listening: Callable[[], None],
    stop: threading.Event,
    timeout_s: float = TIMEOUT_SECONDS,
    now: Callable[[], float] = time.time,
) -> Heard | None:
    """Listen on a throw-away queue until a message is `wanted`, which is the answer, or until `stop` is set (None). `listening`
    is called when nothing can be missed any more. Blocks. Raises NoConnection, NotAllowed when the queue can't be made or
    bound."""
    connection = _connect(where, tls, timeout_s)
    found: list[Heard] = []

    def arrived(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        if not found and wanted(body):
            found.append(Heard(method.exchange, method.routing_key, now(), body if len(body) <= SAMPLE_BYTES else b""))

    try:
        name, refused = _bound(connection, queue, exchanges, routing_keys)
        if refused and len(refused) == len(exchanges):
            raise NotAllowed(next(iter(refused.values())))
        channel = connection.channel()
        channel.basic_consume(name, arrived, auto_ack=True, exclusive=True)
        listening()
        while not found and not stop.is_set():
            connection.process_data_events(time_limit=LOOK_SECONDS)
        channel.close()
        return found[0] if found else None
    except _Refused as why:
        raise NotAllowed(why.text) from None
    except pika.exceptions.AMQPError as why:
        raise NoConnection(f"the connection broke: {_said(why)}", "other") from None
    finally:
        with contextlib.suppress(pika.exceptions.AMQPError, OSError):
            connection.close()


# --- the management API ----------------------------------------------------------------------------------------------------


async def manage(
    url: str, where: Address, queue: str, *, tls: ssl.SSLContext | None, timeout_s: float = TIMEOUT_SECONDS
) -> Managed:
    """Ask the management API (https://www.rabbitmq.com/docs/http-api-reference) with the user of `where`, or the one in `url`.

    Raises FixInput for an address that is none, TryLater, NotAllowed.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise FixInput("the management address looks like http://rabbit:15672")
    base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    auth = aiohttp.BasicAuth(parts.username or where.username, parts.password or where.password)
    vhost = quote(where.vhost, safe="")
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    connector = aiohttp.TCPConnector(ssl=tls if tls is not None else True)
    async with aiohttp.ClientSession(auth=auth, timeout=timeout, connector=connector) as http:
        overview = await _get(http, base, "/api/overview")
        nodes = await _get(http, base, "/api/nodes")
        alarms = [
            f"{node.get('name')}: {word}"
            for node in nodes
            for key, word in (("mem_alarm", "memory alarm"), ("disk_free_alarm", "disk alarm"))
            if node.get(key)
        ]
        unread: list[Queue] = []
        page = 1
        while page <= 20:
            query = f"page={page}&page_size=500&columns=name,messages,consumers&disable_stats=false"
            answer = await _get(http, base, f"/api/queues/{vhost}?{query}")
            unread += [
                Queue(item["name"], item.get("messages", 0), item.get("consumers", 0))
                for item in answer["items"]
                if item.get("messages", 0) > 0 and item.get("consumers", 0) == 0
            ]
            if page >= answer["page_count"]:
                break
            page += 1
        name = quote(queue, safe="")
        try:
            own = await _get(http, base, f"/api/queues/{vhost}/{name}")
            bindings = await _get(http, base, f"/api/queues/{vhost}/{name}/bindings")
        except NotFound:
            own, bindings = None, []
    return Managed(
        version=str(overview.get("rabbitmq_version", "?")),
        queue=Queue(queue, own.get("messages", 0), own.get("consumers", 0)) if own else None,
        bindings=[Binding(one["source"], one["routing_key"]) for one in bindings if one["source"]],
        consumers=[
            Consumer(
                details.get("connection_name") or f"{details.get('peer_host')}:{details.get('peer_port')}",
                str(details.get("user", "?")),
            )
            for one in (own or {}).get("consumer_details", [])
            for details in [one.get("channel_details") or {}]
        ],
        unread=unread,
        alarms=alarms,
    )


async def _get(http: aiohttp.ClientSession, base: str, path: str) -> Any:
    try:
        async with http.get(base + path, allow_redirects=False) as response:
            if response.status in (401, 403):
                raise NotAllowed("the management API refuses the user: it needs the tag `monitoring`")
            if response.status == 404:
                raise NotFound(path)
            if response.status != 200:
                raise TryLater(f"the management API answered {response.status}")
            parts: list[bytes] = []
            size = 0
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise TryLater(f"{base} answered more than {LARGEST_ANSWER} bytes")
            return msgspec.json.decode(b"".join(parts))
    except TimeoutError:
        raise TryLater(f"{base} didn't answer in time") from None
    except aiohttp.ClientError as why:
        raise TryLater(f"can't ask {base}: {why}") from None
    except msgspec.DecodeError:
        raise TryLater(f"{base} is no management API") from None
