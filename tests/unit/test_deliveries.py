"""The short way from a socket's bytes to deliveries: held to frames cut at every place, and to what pika itself would read."""

from __future__ import annotations

import itertools
from typing import Any

import pika
import pika.frame
import pika.spec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.clients.deliveries import Connection, Delivery

CHANNEL = 3


class Wire(Connection):
    """The parser without a socket: pika's share is a list of the frames it was left."""

    remembered = 5

    def __init__(self) -> None:
        self._frame_buffer = b""
        self.bytes_received = self.frames_received = 0
        self.left_to_pika: list[Any] = []
        self.broken: list[str] = []
        self.connection_state = self.CONNECTION_OPEN

    def _process_frame(self, frame: Any) -> None:
        self.left_to_pika.append(frame)

    def _terminate_stream(self, error: Any) -> None:
        self.broken.append(str(error))

    def __repr__(self) -> str:
        return "Wire()"


def message(tag: int, body: bytes, *, channel: int = CHANNEL, frame_max: int = 131072, **properties: Any) -> bytes:
    """What a broker sends for one message, marshalled by pika."""
    deliver = pika.spec.Basic.Deliver("ctag1", tag, False, "nova", "notifications.info")
    parts = [
        pika.frame.Method(channel, deliver).marshal(),
        pika.frame.Header(channel, len(body), pika.BasicProperties(**properties)).marshal(),
    ]
    room = frame_max - 8
    parts += [pika.frame.Body(channel, body[at : at + room]).marshal() for at in range(0, len(body), room)]
    return b"".join(parts)


def feed(data: bytes, cuts: list[int]) -> tuple[Wire, list[Delivery]]:
    wire, got = Wire(), []
    wire.hand_deliveries_to(got.append, CHANNEL)
    places = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    for start, end in itertools.pairwise(places):
        if start != end:
            wire._on_data_available(data[start:end])
    return wire, got


HEARTBEAT = pika.frame.Heartbeat().marshal()
OTHERS = pika.frame.Method(CHANNEL, pika.spec.Basic.Cancel("ctag1", True)).marshal()


@given(
    st.lists(st.tuples(st.binary(max_size=3000), st.sampled_from([b"", HEARTBEAT, OTHERS])), max_size=8),
    st.lists(st.integers(0, 30_000), max_size=12),
    st.sampled_from([64, 512, 131072]),
)
def test_every_message_comes_whole_and_in_order_wherever_the_stream_is_cut(
    sent: list[tuple[bytes, bytes]], cuts: list[int], frame_max: int
) -> None:
    data = b"".join(between + message(tag, body, frame_max=frame_max) for tag, (body, between) in enumerate(sent, 1))
    wire, got = feed(data, cuts)
    assert [(one.tag, one.body) for one in got] == [(tag, body) for tag, (body, _) in enumerate(sent, 1)]
    assert all(one.exchange == "nova" and one.routing_key == "notifications.info" for one in got)
    assert len(wire.left_to_pika) == sum(1 for _, between in sent if between)
    assert wire.bytes_received == len(data)
    assert wire._frame_buffer == b""
    assert not wire.broken


def test_encoding_and_trace_are_read_and_another_channel_is_left_to_pika() -> None:
    headers = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "n": 1}
    data = message(1, b"x", content_encoding="gzip", headers=headers) + message(9, b"other", channel=CHANNEL + 1)
    wire, got = feed(data, [])
    assert got == [Delivery(1, b"x", "gzip", "nova", "notifications.info", False, headers["traceparent"])]
    assert len(wire.left_to_pika) == 3


def test_what_repeats_is_remembered_within_a_bound() -> None:
    data = b"".join(message(tag, b"x", headers={"traceparent": f"00-{tag}"}) for tag in range(1, 40))
    wire, got = feed(data, [])
    assert [one.traceparent for one in got] == [f"00-{tag}" for tag in range(1, 40)]
    assert len(wire._properties) <= 5


@pytest.mark.parametrize("at", ["header", "body", "end"])
def test_a_broken_stream_ends_the_connection_and_hands_over_nothing(at: str) -> None:
    data = bytearray(message(1, b"hello"))
    header = data.index(b"\xce") + 1
    body = data.index(b"hello") - 7
    data[{"header": header, "body": body, "end": len(data) - 1}[at]] = 7
    wire, got = feed(bytes(data), [])
    assert got == []
    assert wire.broken


def test_a_frame_of_absurd_size_is_refused_and_not_waited_for() -> None:
    wire, _ = feed(b"\x01\x00\x00\xff\xff\xff\xff" + bytes(20), [])
    assert wire.broken


@given(st.binary(max_size=400))
def test_garbage_never_raises_anything_but_what_pika_itself_raises(data: bytes) -> None:
    wire, got = Wire(), []
    wire.hand_deliveries_to(got.append, CHANNEL)
    theirs = Wire()
    ours_raised = theirs_raised = False
    try:
        wire._on_data_available(data)
    except Exception:  # noqa: BLE001 - compared with pika's own
        ours_raised = True
    try:
        theirs._on_data_available(data)
    except Exception:  # noqa: BLE001
        theirs_raised = True
    assert not ours_raised or theirs_raised
