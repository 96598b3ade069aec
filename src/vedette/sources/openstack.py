"""OpenStack's notifications, from RabbitMQ to `offer`.

In: message bodies as oslo.messaging sends them (bare, or wrapped in `oslo.message`). Out: notices, scrubbed, offered in
batches; a batch is acknowledged when the offer has returned. Next is engine/ingest.py. Connections, queues and bindings are
clients/amqp.py's; what a payload means is `kinds/`'.
"""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kit.clock import parse_us
from vedette.model.notice import NOT_UNDERSTOOD, Notice
from vedette.model.scrub import scrub, scrub_text

MAX_BODY = 16 * 1024 * 1024
"""Bytes of one message, compressed or not. Nova's largest captured one has 8.4 kB."""

MAX_NAME = 255
"""Characters of an event type or an id."""

SHOWN = 64 * 1024
"""Bytes of a message that was not understood that are kept for a person to read."""


def decode(body: bytes, source: str, *, content_encoding: str = "", traceparent: str = "") -> Notice:
    """One message as a notice, its payload scrubbed. Raises NotUnderstood with the reason.

    Both of oslo.messaging's envelopes (`oslo_messaging/_drivers/common.py`: bare, and `oslo.version` 2.0 with the message as a
    JSON string); gzip and deflate where `content_encoding` says so.
    """
    if content_encoding and content_encoding != "utf-8":
        body = _inflated(body, content_encoding)
    if len(body) > MAX_BODY:
        raise NotUnderstood(f"the body has {len(body)} bytes, more than {MAX_BODY}")
    try:
        message = _decode(body)
        if message.wrapped is not None:
            message = _decode(message.wrapped)
    except msgspec.ValidationError as why:
        message = _decode_odd(body, why)
    except msgspec.DecodeError as why:
        raise NotUnderstood(f"not JSON: {why}") from None
    except UnicodeDecodeError as why:
        raise NotUnderstood(f"not UTF-8: {why}") from None
    except RecursionError:
        raise NotUnderstood("nested too deep") from None
    event_type = message.event_type
    if not event_type:
        raise NotUnderstood("no event_type")
    if len(event_type) > MAX_NAME:
        raise NotUnderstood(f"the event_type has {len(event_type)} characters, more than {MAX_NAME}")
    payload = bytes(message.payload)
    if not payload:
        raise NotUnderstood("no payload")
    id_ = message.message_id or message.unique_id
    if not id_ or len(id_) > MAX_NAME:
        id_ = content_id(body)
    return Notice(
        id=id_,
        source=source,
        event_type=event_type,
        sent_at=(parse_us(message.timestamp) or 0) if message.timestamp else 0,
        payload=msgspec.Raw(scrub(payload)),
        priority=message.priority or "",
        publisher=message.publisher_id or "",
        request_id=message.request_id or "",
        global_request_id=message.global_request_id or "",
        actor_user=message.user_id or message.user or "",
        actor_project=message.project_id or message.tenant or "",
        traceparent=traceparent,
    )


def set_aside(
    body: bytes, source: str, reason: str, *, exchange: str = "", routing_key: str = "", content_encoding: str = ""
) -> Notice:
    """A notice about a message that could not be read, for a person to look at: the reason, and its scrubbed bytes as text
    (`withheld` says how many were left out because a secret may be in them). The same bytes give the same id."""
    if content_encoding and content_encoding != "utf-8":
        # Compressed bytes can hide a secret from every search.
        text, withheld = "", len(body)
    else:
        text, withheld = scrub_text(body, SHOWN)
    payload: dict[str, Any] = {
        "reason": reason,
        "body": text,
        "bytes": len(body),
        "withheld": withheld,
        "exchange": exchange,
        "routing_key": routing_key,
    }
    return Notice(
        id=content_id(body),
        source=source,
        event_type=NOT_UNDERSTOOD,
        sent_at=0,
        payload=msgspec.Raw(_encoder.encode(payload)),
    )


def content_id(body: bytes) -> str:
    """An id for a message that brings none: `sha256:` and 32 hex digits."""
    return f"sha256:{hashlib.sha256(body).hexdigest()[:32]}"


class _Message(msgspec.Struct, gc=False):
    """Both envelopes in one shape: bare messages have no `oslo.message`, wrapped ones nothing else."""

    wrapped: str | None = msgspec.field(default=None, name="oslo.message")
    event_type: str = ""
    payload: msgspec.Raw = msgspec.Raw(b"")
    message_id: str | None = None
    unique_id: str | None = msgspec.field(default=None, name="_unique_id")
    publisher_id: str | None = None
    priority: str | None = None
    timestamp: str | None = None
    request_id: str | None = msgspec.field(default=None, name="_context_request_id")
    global_request_id: str | None = msgspec.field(default=None, name="_context_global_request_id")
    user_id: str | None = msgspec.field(default=None, name="_context_user_id")
    user: str | None = msgspec.field(default=None, name="_context_user")
    project_id: str | None = msgspec.field(default=None, name="_context_project_id")
    tenant: str | None = msgspec.field(default=None, name="_context_tenant")


_decode = msgspec.json.Decoder(_Message).decode
_decode_any = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encoder = msgspec.json.Encoder()

_NEEDED = ("oslo.message", "event_type", "message_id")
"""What must be of the right type; any other field of a wrong type is left out: it only describes the message."""


def _decode_odd(body: bytes, why: msgspec.ValidationError) -> _Message:
    """A message with a field of an unexpected type: read what is of the right one."""
    text: bytes | str = body
    for _ in range(2):
        try:
            fields = _decode_any(text)
        except msgspec.DecodeError as odd:
            raise NotUnderstood(f"not a notification: {odd}") from None
        kept: dict[str, Any] = {}
        for field in _FIELDS:
            raw = fields.get(field.encode_name)
            if raw is None:
                continue
            try:
                kept[field.name] = raw if field.name == "payload" else msgspec.json.decode(raw, type=field.type)
            except msgspec.ValidationError:
                if field.encode_name in _NEEDED:
                    raise NotUnderstood(f"{field.encode_name} is of the wrong type: {why}") from None
        message = _Message(**kept)
        if message.wrapped is None:
            return message
        text = message.wrapped
    raise NotUnderstood("an envelope within an envelope")


_FIELDS = msgspec.structs.fields(_Message)


def _inflated(body: bytes, content_encoding: str) -> bytes:
    """The body behind a content-encoding, at most MAX_BODY bytes of it: a few kB can hold gigabytes of zeros."""
    name = content_encoding.lower()
    if name in ("gzip", "x-gzip"):
        windows = [31]
    elif name == "deflate":
        # RFC 9110 §8.4.1.2 means zlib's format; some send the bare deflate stream.
        windows = [15, -15]
    elif name in ("utf8", "utf-8", "us-ascii", "ascii", "binary", "identity", "8bit", "7bit"):
        return body
    else:
        raise NotUnderstood(f"unknown content-encoding {content_encoding!r}")
    reason = "empty"
    for window in windows:
        inflater = zlib.decompressobj(window)
        try:
            out = inflater.decompress(body, MAX_BODY + 1)
        except zlib.error as why:
            reason = str(why)
            continue
        if len(out) > MAX_BODY:
            raise NotUnderstood(f"the body has more than {MAX_BODY} bytes when inflated")
        if not inflater.eof:
            raise NotUnderstood(f"the {name} body is cut off")
        return out
    raise NotUnderstood(f"not {name}: {reason}")
