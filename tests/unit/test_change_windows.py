"""When plans may be begun."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.engine.change_windows import ChangeWindows, parse
from vedette.errors import ConfigError

VIENNA = "Europe/Vienna"


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000


OPENS = [
    # windows, time zone, now (UTC), when they open (UTC); 2026-11-20 is a Friday
    ((), "UTC", "2026-11-20T15:00", "2026-11-20T15:00"),
    (("22:00-04:00",), "UTC", "2026-11-20T15:00", "2026-11-20T22:00"),
    (("22:00-04:00",), "UTC", "2026-11-20T22:00", "2026-11-20T22:00"),
    (("22:00-04:00",), "UTC", "2026-11-21T03:59", "2026-11-21T03:59"),
    (("22:00-04:00",), "UTC", "2026-11-21T04:00", "2026-11-21T22:00"),
    # the days are those on which it opens: Friday's ends on Saturday, and there is none on Saturday
    (("mon-fri 22:00-04:00",), "UTC", "2026-11-21T03:00", "2026-11-21T03:00"),
    (("mon-fri 22:00-04:00",), "UTC", "2026-11-21T22:30", "2026-11-23T22:00"),
    (("sat,sun 00:00-24:00",), "UTC", "2026-11-20T15:00", "2026-11-21T00:00"),
    (("sat,sun 00:00-24:00",), "UTC", "2026-11-22T23:59", "2026-11-22T23:59"),
    (("sat,sun 00:00-24:00",), "UTC", "2026-11-23T00:00", "2026-11-28T00:00"),
    (("fri-mon 12:00-13:00",), "UTC", "2026-11-23T12:30", "2026-11-23T12:30"),
    (("fri-mon 12:00-13:00",), "UTC", "2026-11-23T13:00", "2026-11-27T12:00"),
    (("fri 12:00-12:00",), "UTC", "2026-11-21T11:59", "2026-11-21T11:59"),
    (("fri 12:00-12:00",), "UTC", "2026-11-21T12:00", "2026-11-27T12:00"),
    (("wed 01:00-02:00", "tue 23:00-23:30"), "UTC", "2026-11-20T15:00", "2026-11-24T23:00"),
    (("mon-fri 22:00-04:00",), VIENNA, "2026-11-20T15:00", "2026-11-20T21:00"),
    (("mon-fri 22:00-04:00",), VIENNA, "2026-07-17T15:00", "2026-07-17T20:00"),
    # the night in which the clocks go back has one hour more, the other one hour less
    (("sat 22:00-04:00",), VIENNA, "2026-10-25T02:59", "2026-10-25T02:59"),
    (("sat 22:00-04:00",), VIENNA, "2026-10-25T03:00", "2026-10-31T21:00"),
    (("sat 22:00-04:00",), VIENNA, "2026-03-29T01:59", "2026-03-29T01:59"),
    (("sat 22:00-04:00",), VIENNA, "2026-03-29T02:00", "2026-04-04T20:00"),
]


@pytest.mark.parametrize(("windows", "zone", "now", "opens"), OPENS)
def test_when_a_window_opens(windows: tuple[str, ...], zone: str, now: str, opens: str) -> None:
    assert ChangeWindows(windows, zone).opens(us(now)) == us(opens)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is no change window: write it like"),
        ("mon fri 22:00-04:00", "is no change window: write it like"),
        ("montag 22:00-04:00", "'montag' is no day"),
        ("mon- 22:00-04:00", None),
        ("mon-fri 22-4", "'22-4' is no time from-to"),
        ("mon-fri 22:00", "'22:00' is no time from-to"),
        ("24:00-04:00", "times go from 00:00 to 24:00"),
        ("22:00-24:01", "times go from 00:00 to 24:00"),
        ("22:60-23:00", "times go from 00:00 to 24:00"),
        (",mon 22:00-23:00", "'' is no day"),
    ],
)
def test_what_is_no_window_says_what_is(text: str, says: str | None) -> None:
    if says is None:
        assert parse(text).days == {0}
        return
    with pytest.raises(ConfigError) as told:
        parse(text)
    assert says in str(told.value)


@pytest.mark.parametrize("zone", ["Europe/Nowhere", "../etc/passwd", ""])
def test_a_time_zone_that_is_none(zone: str) -> None:
    with pytest.raises(ConfigError, match="there is no time zone"):
        ChangeWindows((), zone)


def test_a_moment_as_people_read_it() -> None:
    assert ChangeWindows((), VIENNA).says(us("2026-11-20T21:00")) == "Fri 2026-11-20 22:00 Europe/Vienna"


@given(
    now=st.integers(us("2025-01-01T00:00"), us("2028-01-01T00:00")),
    text=st.sampled_from(["mon-fri 22:00-04:00", "sun 23:59-00:01", "03:00-02:59", "tue,thu 02:30-02:31", "fri 00:00-24:00"]),
    zone=st.sampled_from(["UTC", VIENNA, "America/New_York", "Australia/Lord_Howe"]),
)
def test_it_opens_at_a_moment_at_which_it_is_open_and_within_a_week(now: int, text: str, zone: str) -> None:
    windows = ChangeWindows((text,), zone)
    opens = windows.opens(now)
    assert now <= opens <= now + 8 * 86_400 * 1_000_000
    assert windows.opens(opens) == opens
    if opens > now:
        assert windows.opens(opens - 1_000_000) == opens, "and not before"
