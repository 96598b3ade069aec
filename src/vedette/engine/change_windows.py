"""When plans may be started: `mon-fri 22:00-04:00`.

In: texts of the configuration and a time zone. Out: whether a moment is inside a window, and when the next one opens. The days
name the day on which a window opens; one that ends at or before its beginning ends on the day after. Pure: the moment is given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from vedette.errors import ConfigError

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_EXAMPLE = "write it like `mon-fri 22:00-04:00`, `sat,sun 00:00-24:00` or `22:00-04:00` (every day)"


class Window(msgspec.Struct, frozen=True):
    """One window, in local time."""

    days: frozenset[int]
    """On which it opens: 0 is Monday."""
    begin: int
    """Minutes after midnight."""
    end: int
    """Minutes after the midnight of the day on which it opens: more than `begin`, at most 2,880."""


class ChangeWindows:
    """All windows of a service; none: always open."""

    def __init__(self, texts: Sequence[str], timezone: str = "UTC") -> None:
        """Raises ConfigError."""
        self._windows = tuple(parse(text) for text in texts)
        self.timezone = timezone
        self._zone: tzinfo = UTC
        try:
            if timezone != "UTC":  # which needs no files on the machine
                self._zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ConfigError(
                f"there is no time zone {timezone!r} on this machine: write one like `Europe/Vienna`, or `UTC`"
            ) from None

    def opens(self, now: int) -> int:
        """When plans may be started, from this moment on: `now` itself inside a window. UTC microseconds."""
        if not self._windows:
            return now
        today = datetime.fromtimestamp(now / 1_000_000, self._zone).date()
        found: list[int] = []
        for window in self._windows:
            # The one of yesterday may still be open; there is one within a week.
            for day in (today + timedelta(days=more) for more in range(-2, 9)):
                if day.weekday() in window.days:
                    begin, end = self._moment(day, window.begin), self._moment(day, window.end)
                    if begin <= now < end:
                        return now
                    if begin > now:
                        found.append(begin)
                        break
        return min(found)

    def says(self, when: int) -> str:
        """A moment as its people read it: `Fri 2026-11-20 22:00 Europe/Vienna`."""
        return f"{datetime.fromtimestamp(when / 1_000_000, self._zone):%a %Y-%m-%d %H:%M} {self.timezone}"

    def _moment(self, day: date, minutes: int) -> int:
        """Of a local time that there are two of, the first; of one that is left out, the same distance from midnight by the
        clock before."""
        local = datetime.combine(day + timedelta(days=minutes // 1440), time(minutes % 1440 // 60, minutes % 60), self._zone)
        return round(local.astimezone(UTC).timestamp()) * 1_000_000


def parse(text: str) -> Window:
    """Raises ConfigError."""
    words = text.lower().split()
    if len(words) not in (1, 2):
        raise ConfigError(f"{text!r} is no change window: {_EXAMPLE}")
    days = _days(words[0], text) if len(words) == 2 else frozenset(range(7))
    matched = _TIMES.fullmatch(words[-1])
    if matched is None:
        raise ConfigError(f"{text!r} is no change window, {words[-1]!r} is no time from-to: {_EXAMPLE}")
    begin_hour, begin_minute, end_hour, end_minute = map(int, matched.groups())
    begin, end = begin_hour * 60 + begin_minute, end_hour * 60 + end_minute
    if begin_minute > 59 or end_minute > 59 or begin >= 1440 or end > 1440:
        raise ConfigError(f"{text!r} is no change window: times go from 00:00 to 24:00")
    return Window(days, begin, end if end > begin else end + 1440)


def _days(word: str, text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in word.split(","):
        first, _, last = part.partition("-")
        last = last or first
        if first not in DAYS or last not in DAYS:
            raise ConfigError(f"{text!r} is no change window, {part!r} is no day: {_EXAMPLE}")
        at, until = DAYS.index(first), DAYS.index(last)
        found.update((at + more) % 7 for more in range((until - at) % 7 + 1))
    return frozenset(found)
