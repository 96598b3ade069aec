"""A recording played back: a file of captured notifications, offered at its own pace, faster, or as fast as can be.

In: a `.jsonl` or `.jsonl.gz` file, one message a line: `{"recv_ts": …, "exchange": …, "routing_key": …, "body": "…"}`. Out:
notices, exactly as sources/openstack.py makes them from a broker. With `loop` each pass happens now, to other objects.
"""

from __future__ import annotations

import asyncio
import bisect
import gzip
import logging
import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from io import BufferedReader
from pathlib import Path

import msgspec

from vedette.errors import CannotStart, NotUnderstood, TryLater
from vedette.kit.clock import Clock
from vedette.kit.log import kv
from vedette.kit.telemetry import Telemetry
from vedette.kit.units import FilePath
from vedette.model.notice import Notice
from vedette.ports import Offer, SourceStatus
from vedette.sources.openstack import MAX_BODY, decode, set_aside

log = logging.getLogger("vedette.sources.replay")

BATCH = 1000
"""Notices offered together at the most."""

MAX_LINE = 4 * MAX_BODY
"""Bytes of one line: a body is a JSON string in it, with its quotes escaped."""

TURNS = 10_000
"""How many turns of the recording's clock are remembered; a timestamp from before the oldest moves like the oldest."""

LATE = 1.0
"""Seconds that a recording may fall behind its pace. What is more (the log took nothing for a while) is not made up for."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one replay source."""

    name: str
    path: FilePath
    """A `.jsonl` or `.jsonl.gz` file."""
    speed: float = 1.0
    """How much faster than recorded; 0: as fast as the log takes it."""
    loop: bool = False
    """Begin again at the end. Each pass is moved to now, and every UUID of the recording becomes another one."""
    max_gap_s: float = 0.0
    """Silence in the recording is cut down to this many seconds, after `speed`; 0: left as it is."""
    min_gap_s: float = 0.0
    """At least this many seconds between two messages: spreads what came in bursts."""
    pause_s: float = 2.0
    """Seconds between two passes."""


def build(options: Options, *, clock: Clock, telemetry: Telemetry) -> ReplaySource:
    """The source for these settings; nothing is opened yet."""
    return ReplaySource(options, clock, telemetry)


class ReplaySource:
    """Plays a file. Without `loop` it then stays, done, until it is cancelled."""

    def __init__(self, options: Options, clock: Clock, telemetry: Telemetry) -> None:
        self._options = options
        self._clock = clock
        self._ready = False
        self._detail = "not started"
        self._last_progress = 0
        self._progress = telemetry.gauge(
            "source_last_progress_timestamp_seconds", "When a source last heard something (Unix time).", "source"
        ).labels(options.name)

    @property
    def name(self) -> str:
        return self._options.name

    def status(self) -> SourceStatus:
        return SourceStatus(
            name=self.name,
            type="replay",
            ready=self._ready,
            detail=self._detail,
            last_progress=self._last_progress,
        )

    async def run(self, offer: Offer) -> None:
        """Raises CannotStart when the file can't be read (to its end)."""
        started = self._clock.now_us()
        number = 0
        while True:
            # A pass is named by the start of the run too: the log may already hold passes of an earlier run.
            shift = _Shift(f"{started}/{number}") if self._options.loop else None
            count = await self._play(offer, shift)
            number += 1
            log.info("played a recording", extra=kv(source=self.name, path=self._options.path, messages=count, number=number))
            if not self._options.loop or count == 0:
                break
            await self._clock.sleep(self._options.pause_s)
        self._ready = True  # nothing more will come, and nothing is missing
        self._detail = f"done: {count} messages of {self._options.path}"
        await asyncio.Event().wait()

    async def _play(self, offer: Offer, shift: _Shift | None) -> int:
        """One pass; the number of messages."""
        options, clock = self._options, self._clock
        batch: list[Notice] = []
        count = 0
        previous: float | None = None
        start = due = clock.monotonic()
        start_us = clock.now_us()
        async for line in _lines(Path(options.path)):
            count += 1
            self._ready, self._detail = True, f"message {count} of {options.path}"
            recorded = line.recv_ts if line.recv_ts is not None else (previous or 0.0)
            pause = self._pause(recorded - previous) if previous is not None else 0.0
            previous = recorded
            if options.speed > 0:
                due = max(due + pause, clock.monotonic() - LATE)
                ahead = due - clock.monotonic()
                if ahead > 0:
                    await self._offer(offer, batch)
                    await clock.sleep(ahead)
            else:
                # As fast as can be: the time it happens at still goes on, so that what came later is later.
                due = max(due + 1e-6, clock.monotonic())
            if shift is not None:
                shift.turn(int(recorded * 1_000_000), start_us + int((due - start) * 1_000_000))
            batch.append(self._notice(line, count, shift))
            if len(batch) >= BATCH:
                await self._offer(offer, batch)
        await self._offer(offer, batch)
        return count

    def _pause(self, recorded: float) -> float:
        options = self._options
        pause = max(recorded, 0.0) / (options.speed or 1.0)
        if options.max_gap_s:
            pause = min(pause, options.max_gap_s)
        return max(pause, options.min_gap_s)

    def _notice(self, line: _Line, number: int, shift: _Shift | None) -> Notice:
        body = line.body if shift is None else shift.text(line.body)
        raw = body.encode()
        try:
            if line.odd:
                raise NotUnderstood(f"line {number}: {line.odd}")
            return decode(raw, self.name)
        except NotUnderstood as why:
            return set_aside(raw, self.name, str(why), exchange=line.exchange, routing_key=line.routing_key)

    async def _offer(self, offer: Offer, batch: list[Notice]) -> None:
        while batch:
            try:
                await offer(tuple(batch))
            except TryLater as why:
                self._detail = f"waiting: {why}"
                await self._clock.sleep(why.delay)
                continue
            batch.clear()
            self._last_progress = self._clock.now_us()
            self._progress.set(self._last_progress / 1_000_000)


class _Line(msgspec.Struct):
    """One line of a recording; `odd` says what is wrong with it."""

    body: str
    recv_ts: float | None = None
    exchange: str = ""
    routing_key: str = ""
    odd: str = ""


_decode_line = msgspec.json.Decoder(_Line).decode


async def _lines(path: Path) -> AsyncIterator[_Line]:
    """The file's messages, read line by line. Raises CannotStart."""
    number = 0
    try:
        with _open(path) as file:
            while raw := file.readline(MAX_LINE + 1):
                number += 1
                if len(raw) > MAX_LINE:
                    raise CannotStart(f"{path}: line {number} has more than {MAX_LINE} bytes: this is not a recording")
                if raw.isspace():
                    continue
                try:
                    line = _decode_line(raw)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
                    line = _Line(body=raw.decode(errors="replace"), odd=f"not a line of a recording: {why}")
                yield line
                if number % 50 == 0:
                    # Reading is quick and never waits: others get their turn here.
                    await asyncio.sleep(0)
    except (OSError, EOFError, gzip.BadGzipFile) as why:
        where = f" after line {number}" if number else ""
        raise CannotStart(f"the recording {path} can't be read{where}: {why}") from why


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")


class _Shift:
    """Moves one pass of a recording to another time and to other objects, consistently: the same recorded instant is always
    the same new instant, and the same recorded UUID (dashed or not) the same new UUID."""

    def __init__(self, salt: str) -> None:
        self._space = uuid.uuid5(_NAMESPACE, salt)
        self._recorded: list[int] = []
        self._shifted: list[int] = []

    def turn(self, recorded_us: int, now_us: int) -> None:
        """From here on the recording's clock stands at `recorded_us` when ours stands at `now_us`. Both only go forward."""
        if self._recorded and recorded_us <= self._recorded[-1]:
            return
        self._recorded.append(recorded_us)
        self._shifted.append(now_us)
        if len(self._recorded) > 2 * TURNS:
            del self._recorded[:TURNS], self._shifted[:TURNS]

    def time(self, us: int) -> int:
        """Where a recorded instant is now: between two turns in proportion, outside of them with the nearest."""
        at = bisect.bisect_right(self._recorded, us)
        if at == 0:
            return us - self._recorded[0] + self._shifted[0]
        if at == len(self._recorded):
            return us - self._recorded[-1] + self._shifted[-1]
        r0, r1, s0, s1 = self._recorded[at - 1], self._recorded[at], self._shifted[at - 1], self._shifted[at]
        return s0 + (us - r0) * (s1 - s0) // (r1 - r0)

    def text(self, body: str) -> str:
        """A body with its times and UUIDs replaced, each in the form it had."""
        return _STAMP.sub(self._stamp, _UUID.sub(self._uuid, body))

    def _uuid(self, match: re.Match[str]) -> str:
        text = match[0]
        mapped = uuid.uuid5(self._space, text.replace("-", ""))
        return str(mapped) if "-" in text else mapped.hex

    def _stamp(self, match: re.Match[str]) -> str:
        text = match[0]
        try:
            recorded = datetime.fromisoformat(text[:26]).replace(tzinfo=UTC)
        except ValueError:
            return text
        moved = _EPOCH + timedelta(microseconds=self.time((recorded - _EPOCH) // timedelta(microseconds=1)))
        fraction = f"{moved.microsecond:06d}"[: len(text) - 20] if len(text) > 20 else ""
        return f"{moved:%Y-%m-%d}{text[10]}{moved:%H:%M:%S}{'.' if fraction else ''}{fraction}"


_NAMESPACE = uuid.UUID("b1f6c0de-8a57-5c3b-9f0e-0d6a5b7c9e21")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UUID = re.compile(
    r"(?<![0-9A-Fa-f])(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|[0-9a-f]{32})(?![0-9A-Fa-f])"
)
_STAMP = re.compile(r"(?<!\d)[12]\d{3}-[01]\d-[0-3]\d[T ][0-2]\d:[0-5]\d:[0-6]\d(?:\.\d{1,6})?")
