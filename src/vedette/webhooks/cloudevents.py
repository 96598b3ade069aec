"""CloudEvents 1.0 over HTTP: binary, structured and batched content.

In: what https://github.com/cloudevents/spec (v1.0.2) `bindings/http-protocol-binding.md` and `formats/json-format.md` describe.
Out: a notice for each event: its `type` and `time`, source and id together as the id, `traceparent`, and its data as the payload
(or, with `payload: event`, all of it). `origins` are those whose handshake is answered (`http-webhook.md` §4); who may send is
the hook's own `token` and its like.

Data that is neither JSON nor text stays base64. A batch with one event that can't be read is refused as a whole.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import unquote_to_bytes

import msgspec

from vedette.errors import NotUnderstood, UnsupportedFormat
from vedette.kit.clock import parse_us
from vedette.model.notice import Notice
from vedette.model.scrub import MASK, suspicious
from vedette.ports import Request, Webhook
from vedette.webhooks._body import event_type, header, json_object, json_value, notice, raw_items, short_id, text, traceparent

STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"

_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")
_DATA = ("data", "data_base64")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one hook for CloudEvents."""

    origins: tuple[str, ...] = ()
    """Senders (`WebHook-Request-Origin`) whose handshake is answered with yes, such as `eventemitter.example.com`; `"*"`: any.
    None: the handshake is not answered."""
    payload: Literal["data", "event"] = "data"
    """What is kept: the event's data alone, or the whole event with all its attributes."""


def build(options: Options) -> Webhook:
    """The format with these settings."""
    return CloudEvents(options)


class CloudEvents:
    """See the module."""

    def __init__(self, options: Options) -> None:
        self._whole = options.payload == "event"
        self._origins = frozenset(origin.lower() for origin in options.origins)

    def invites(self, origin: str) -> bool:
        """Whether this sender is told that it may send here (`api.hooks.Invites`)."""
        return "*" in self._origins or origin.lower() in self._origins

    def parse(self, request: Request) -> Sequence[Notice]:
        """The notices. Raises NotUnderstood; UnsupportedFormat for an event format other than JSON."""
        content_type = header(request, "content-type")
        media, charset = _media(content_type)
        if not media.startswith("application/cloudevents"):
            return (self._notice(request, _binary(request, content_type, media, charset), ""),)
        if media not in (STRUCTURED, BATCHED):
            raise UnsupportedFormat(f"of CloudEvents' formats only JSON is read: {STRUCTURED}, {BATCHED}")
        if media == STRUCTURED:
            return (self._notice(request, _structured(request.body, ""), ""),)
        if not isinstance(json_value(request.body), list):
            raise NotUnderstood("the body of a batch is not a JSON list")
        return tuple(
            self._notice(request, _structured(raw, f"event {number}: "), f"event {number}: ")
            for number, raw in enumerate(raw_items(request.body))
        )

    def _notice(self, request: Request, event: _Event, where: str) -> Notice:
        said = event.attributes
        if said.get("specversion") != "1.0":
            raise NotUnderstood(f'{where}specversion is not "1.0"')
        id_, source, type_ = (text(said, name, where) for name in ("id", "source", "type"))
        time = said.get("time")
        when = parse_us(time) if isinstance(time, str) else None
        if time is not None and when is None:
            raise NotUnderstood(f"{where}time is not a time as RFC 3339 has it")
        return notice(
            request,
            # A source is a URI and has no spaces; where one has, the pair must still be told from every other.
            id=short_id(f"{source.replace(' ', '%20')} {id_}"),
            # What another Vedette has from its cloud begins so (model/cloudevent.py).
            type=event_type(type_.removeprefix("openstack.") or type_),
            payload=event.whole() if self._whole else event.payload(),
            sent_at=max(when or 0, 0),
            publisher=short_id(source),
            traceparent=traceparent(said.get("traceparent")) or traceparent(header(request, "traceparent")),
        )


class _Event(msgspec.Struct, frozen=True):
    """One event in either mode. Its data is JSON (`data`), or bytes that aren't (`opaque`, base64), or there is none."""

    attributes: dict[str, Any]
    data: bytes | None = None
    opaque: str | None = None

    def payload(self) -> bytes:
        if self.data is not None:
            return self.data
        if self.opaque is None:
            return b"{}"
        kind = self.attributes.get("datacontenttype")
        return msgspec.json.encode({"datacontenttype": kind, "data_base64": self.opaque})

    def whole(self) -> bytes:
        found = dict(self.attributes)
        if self.data is not None:
            found["data"] = msgspec.Raw(self.data)
        elif self.opaque is not None:
            found["data_base64"] = self.opaque
        return msgspec.json.encode(found)


def _structured(raw: bytes | msgspec.Raw, where: str) -> _Event:
    """JSON format §3. null is the same as absent, but for `data`."""
    said = json_object(raw, f"{where}the event" if where else "the body")
    attributes = {name: value for name, value in said.items() if value is not None and name not in _DATA}
    kind = attributes.get("datacontenttype", "application/json")
    if not isinstance(kind, str):
        raise NotUnderstood(f"{where}datacontenttype is not a text")
    encoded = said.get("data_base64")
    if encoded is None:
        if "data" not in said:
            return _Event(attributes)
        # The bytes as they were sent, so that no number changes its form.
        return _Event(attributes, data=bytes(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])["data"]))
    if "data" in said:
        raise NotUnderstood(f"{where}data and data_base64 can't both be there")
    if not isinstance(encoded, str):
        raise NotUnderstood(f"{where}data_base64 is not a text")
    try:
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise NotUnderstood(f"{where}data_base64 is not base64") from None
    return _of_bytes(attributes, decoded, *_media(kind), where)


def _binary(request: Request, content_type: str, media: str, charset: str) -> _Event:
    """HTTP binding §3.1: attributes are `ce-` headers, the body is the data."""
    attributes: dict[str, Any] = {
        name[3:]: _attribute(name, value) for name, value in request.headers.items() if name.startswith("ce-") and len(name) > 3
    }
    if "specversion" not in attributes:
        raise NotUnderstood(
            f"there is no header ce-specversion, and Content-Type is not {STRUCTURED}: this is not a CloudEvent"
            " (where requests are signed, events have to be structured: headers are not signed)"
        )
    if content_type:
        attributes["datacontenttype"] = content_type
    if not request.body:
        return _Event(attributes)
    return _of_bytes(attributes, request.body, media, charset, "")


def _of_bytes(attributes: dict[str, Any], raw: bytes, media: str, charset: str, where: str) -> _Event:
    """Data that came as bytes: JSON and text are kept as such."""
    subtype = media.partition("/")[2]
    if subtype == "json" or subtype.endswith("+json"):
        json_value(raw, f"{where}data")
        return _Event(attributes, data=raw.strip())
    if charset in ("utf-8", "us-ascii") and (media.startswith("text/") or subtype == "xml" or subtype.endswith("+xml")):
        try:
            return _Event(attributes, data=msgspec.json.encode(raw.decode()))
        except UnicodeDecodeError:
            pass  # not what it says it is: as good as any other bytes
    # Nobody can take a secret out of bytes of an unknown form: where one may be, none of it is kept.
    return _Event(attributes, opaque=MASK if suspicious(raw) else base64.b64encode(raw).decode())


def _attribute(name: str, value: str) -> str:
    """HTTP binding §3.1.3.2: double quotes off, then percent-decoded once, and strictly UTF-8."""
    quoted = _QUOTED.fullmatch(value.strip())
    if quoted:
        value = _ESCAPED.sub(r"\1", quoted[1])
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeError:
        raise NotUnderstood(f"the header {name} is not UTF-8") from None


def _media(content_type: str) -> tuple[str, str]:
    """Media type and charset, in lower case."""
    media, *parameters = content_type.split(";")
    found = dict(part.strip().lower().partition("=")[::2] for part in parameters)
    return media.strip().lower(), found.get("charset", "utf-8").strip('"')
