"""Reads deliveries off a pika connection's bytes by itself, and leaves every other frame to pika.

In: what the socket gave. Out: `Delivery` values, straight to the session's list; next is clients/amqp.py.

A delivery is three frames (Basic.Deliver, its header, its body), and pika takes each through five layers: 37–46 µs of CPU a
message, more than all that Vedette does with it. Read here it is about 3. Everything else (handshake, heartbeats, Basic.Cancel,
closes, answers) is rare and stays pika's. Layout: AMQP 0-9-1 §2.3.5 and §4.2 (general frame), §4.2.6 (content header),
Basic.Deliver is class 60, method 60.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pika
import pika.exceptions
from pika.adapters.asyncio_connection import AsyncioConnection

LARGEST = 128 * 1024 * 1024
"""Bytes of one body that are believed; RabbitMQ's own limit (`max_message_size`) is this by default."""
LARGEST_FRAME = 16 * 1024 * 1024
"""Bytes of one frame. RabbitMQ sends at most its `frame_max`, 128 KiB by default."""
_DELIVER = b"\x00\x3c\x00\x3c"
_END = 0xCE


class Delivery(NamedTuple):
    """One message. Tags count from 1 in a session."""

    tag: int
    body: bytes
    content_encoding: str
    exchange: str
    routing_key: str
    redelivered: bool
    traceparent: str


class Connection(AsyncioConnection):  # type: ignore[misc]
    """pika's connection, with a short way for the deliveries of one channel."""

    remembered = 1_000
    """Properties, and pairs of exchange and routing key, that are kept decoded."""
    _frame_buffer: bytes
    _deliver: Callable[[Delivery], None] | None = None
    _channel_bytes = b""
    _places: dict[bytes, tuple[str, str]]
    _properties: dict[bytes, tuple[str, str]]

    def hand_deliveries_to(self, deliver: Callable[[Delivery], None], channel: int) -> None:
        """From the next bytes on, deliveries on this channel are handed to `deliver` and not to pika's consumer callback."""
        self._deliver = deliver
        self._channel_bytes = channel.to_bytes(2, "big")
        # What repeats from message to message is decoded once: exchange and routing key, and the properties.
        self._places = {}
        self._properties = {}

    def cut(self) -> None:
        """Drop the line: a polite close waits for an answer that a silent broker never gives."""
        self._terminate_stream(pika.exceptions.StreamLostError("dropped by us"))

    def _on_data_available(self, data_in: bytes) -> None:
        if self._deliver is None:
            super()._on_data_available(data_in)
            return
        data = self._frame_buffer + data_in if self._frame_buffer else bytes(data_in)
        at, end = 0, len(data)
        while end - at >= 12:
            if data[at] == 1 and data[at + 7 : at + 11] == _DELIVER and data[at + 1 : at + 3] == self._channel_bytes:
                after = self._read_delivery(data, at, end)
            else:
                after = at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")
                if after - at > LARGEST_FRAME:
                    self._broken("a frame of absurd size")
                    return
                if after <= end:
                    self._frame_buffer = b""
                    super()._on_data_available(data[at:after])
                    if self.is_closed or self._frame_buffer:
                        return  # pika found the frame wrong, and has ended the connection
            if after > end or after == 0:
                break
            at = after
        else:
            # Under 12 bytes: only a frame of pika's can be as short as that (a heartbeat has 8).
            if end - at >= 8 and at + 8 + int.from_bytes(data[at + 3 : at + 7], "big") <= end:
                self._frame_buffer = b""
                super()._on_data_available(data[at:])
                return
        self._frame_buffer = data[at:]

    def _read_delivery(self, data: bytes, at: int, end: int) -> int:
        """Hand over the delivery whose method frame starts at `at`; where it ends, or 0 while it isn't all there."""
        header = at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")
        if header + 22 > end:
            return 0
        body_at = header + 8 + int.from_bytes(data[header + 3 : header + 7], "big")
        if body_at > end:
            return 0
        size = int.from_bytes(data[header + 11 : header + 19], "big")
        if data[header] != 2 or data[header - 1] != _END or data[body_at - 1] != _END or size > LARGEST:
            self._broken("a delivery without its header")
            return 0
        # The body: one frame, or several of the negotiated frame_max.
        parts: list[bytes] = []
        left, after = size, body_at
        while left > 0:
            if after + 7 > end:
                return 0
            length = int.from_bytes(data[after + 3 : after + 7], "big")
            if data[after] != 3 or length > left or length == 0:
                self._broken("a delivery without its body")
                return 0
            if after + 8 + length > end:
                return 0
            parts.append(data[after + 7 : after + 7 + length])
            left -= length
            after += 8 + length
            if data[after - 1] != _END:
                self._broken("a frame without its end")
                return 0
        place = at + 11
        place += 1 + data[place]  # the consumer's tag: there is one consumer
        tag = int.from_bytes(data[place : place + 8], "big")
        redelivered = data[place + 8] & 1 == 1
        where = data[place + 9 : header - 1]
        exchange, routing_key = self._places.get(where) or self._read_place(where)
        said = data[header + 19 : body_at - 1]
        encoding, traceparent = self._properties.get(said) or self._read_properties(said)
        self.bytes_received += after - at
        self.frames_received += 3
        assert self._deliver is not None
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._deliver(Delivery(tag, body, encoding, exchange, routing_key, redelivered, traceparent))
        return after

    def _read_place(self, where: bytes) -> tuple[str, str]:
        """Exchange and routing key: two short strings (a length byte, then UTF-8)."""
        length = where[0]
        exchange = where[1 : 1 + length].decode(errors="replace")
        found = exchange, where[2 + length : 2 + length + where[1 + length]].decode(errors="replace")
        return self._remember(self._places, where, found)

    def _read_properties(self, said: bytes) -> tuple[str, str]:
        """content_encoding, and the traceparent among the headers. pika decodes them; most messages say the same."""
        try:
            properties: Any = pika.BasicProperties()
            properties.decode(said)
            headers = properties.headers or {}
            encoding = properties.content_encoding or ""
        except (ValueError, IndexError, UnicodeDecodeError, pika.exceptions.AMQPError):
            headers, encoding = {}, ""  # odd properties don't make a body unreadable
        value = headers.get("traceparent")
        traceparent = value if isinstance(value, str) and len(value) <= 256 else ""
        return self._remember(self._properties, said, (encoding, traceparent))

    def _broken(self, why: str) -> None:
        self._terminate_stream(pika.exceptions.StreamLostError(f"the broker sent {why}"))

    def _remember(self, known: dict[bytes, tuple[str, str]], raw: bytes, value: tuple[str, str]) -> tuple[str, str]:
        if len(known) >= self.remembered:  # each message with a trace of its own: nothing repeats
            known.clear()
        known[raw] = value
        return value
