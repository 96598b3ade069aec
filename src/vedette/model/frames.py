"""What a worker process and the service say to each other: frames of JSON, each behind its length (4 bytes, big-endian).

engine/worker.py speaks for the service, worker.py (`python -m vedette.worker`) for the process. Nothing is pickled: what comes
out of foreign code is data of these shapes, or it is not understood.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgspec

from vedette.errors import NotUnderstood

MAX_MESSAGE = 1024 * 1024
"""Bytes of one call's message; a larger one is given up."""
MAX_ANSWER = 64 * 1024
"""Bytes of what comes back from one call: the outcome, what is remembered, an error's text."""
_ENVELOPE = 4096
"""Bytes for what a frame has around a message or an answer."""
MAX_DOWN = MAX_MESSAGE + _ENVELOPE
"""Bytes of a frame to the process."""
MAX_UP = MAX_ANSWER + _ENVELOPE
"""Bytes of a frame from it."""
MAX_TEXT = 4096
"""Characters of an error's text or of a log line."""

# --- to the process --------------------------------------------------------------------------------------------------------


class Start(msgspec.Struct, frozen=True, tag=True):
    """The first frame: a `ports.WorkerCode`, and its limits."""

    name: str
    module: str
    options: dict[str, Any]
    path: tuple[str, ...]
    concurrency: int
    max_memory: int
    """Bytes of resident memory after a call; with more the process leaves. 0: no limit."""
    validate: bool = False
    """Import and build, say how that went, and end."""


class Call(msgspec.Struct, frozen=True, tag=True):
    """One message. Calls are begun in the order in which they came."""

    number: int
    timeout: float
    """Seconds from its beginning."""
    message: msgspec.Raw


class Recalled(msgspec.Struct, frozen=True, tag=True):
    """The answer to a `Recall`."""

    number: int
    value: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


Down = Start | Call | Recalled

# --- from the process ------------------------------------------------------------------------------------------------------


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The code is imported and built."""

    slots: int
    """Calls that it has in hand at a time: 1 for blocking code, whatever was wished for."""
    cancels: bool
    """It ends a call at its deadline itself (async code does)."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The code can't be imported or built. The last frame."""

    text: str


class Done(msgspec.Struct, frozen=True, tag=True):
    """A call came back."""

    number: int
    answer: msgspec.Raw


class Raised(msgspec.Struct, frozen=True, tag=True):
    """A call raised. `other`: anything but our own errors; its text has the type, the message and the line."""

    number: int
    error: Literal["try_later", "target_unavailable", "give_up", "other"]
    text: str
    delay: float = 0.0


class Recall(msgspec.Struct, frozen=True, tag=True):
    """A call in hand wants to know what its handler remembered."""

    number: int
    """Of this request."""
    call: int
    name: str


class Log(msgspec.Struct, frozen=True, tag=True):
    """A record of Python's `logging`."""

    level: int
    logger: str
    text: str


class Leaving(msgspec.Struct, frozen=True, tag=True):
    """The process ends of its own will, between two calls. Those that it has not answered it has not begun."""

    text: str


Up = Ready | Failed | Done | Raised | Recall | Log | Leaving


class Handled(msgspec.Struct, frozen=True):
    """The answer of a handler."""

    outcome: str | None = None
    remember: dict[str, Any] = {}


# --- bytes -----------------------------------------------------------------------------------------------------------------

_encode = msgspec.json.Encoder().encode
_Frame = TypeVar("_Frame")


def pack(frame: Down | Up) -> bytes:
    """One frame with its length before it."""
    body = _encode(frame)
    return len(body).to_bytes(4, "big") + body


class Unpacker(Generic[_Frame]):
    """Bytes as they come in, frames out. Holds at most one frame that isn't whole yet."""

    def __init__(self, decoder: msgspec.json.Decoder[_Frame], limit: int) -> None:
        self._decode = decoder.decode
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[_Frame]:
        """The frames that are whole now. Raises NotUnderstood: nothing behind this place means anything."""
        rest = self._rest
        rest += data
        frames: list[_Frame] = []
        at, end = 0, len(rest)
        while end - at >= 4:
            size = int.from_bytes(rest[at : at + 4], "big")
            if size > self._limit:
                raise NotUnderstood(f"a frame of {size} bytes, more than {self._limit}")
            if end - at - 4 < size:
                break
            try:
                frames.append(self._decode(bytes(rest[at + 4 : at + 4 + size])))
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
                raise NotUnderstood(f"a frame that is none: {why}") from None
            at += 4 + size
        del rest[:at]
        return frames


def frames_down() -> Unpacker[Down]:
    """For the process."""
    return Unpacker(msgspec.json.Decoder(Down), MAX_DOWN)


def frames_up() -> Unpacker[Up]:
    """For the service."""
    return Unpacker(msgspec.json.Decoder(Up), MAX_UP)
