"""Durations and sizes, as people write them."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vedette.kit.units import LARGEST, LONGEST, parse_duration, parse_size, show_duration, show_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7d", 604_800),
        ("60s", 60),
        ("1h30m", 5_400),
        ("90", 90),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("1w1d", 691_200),
        ("2m1s", 121),
        (15, 15),
    ],
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "7 d",
        "d",
        "7x",
        "1m1h",
        "1h1h",
        "-1s",
        "1e3",
        "١s",
        "7d ",
        "9" * 400,
        float("inf"),
        float("nan"),
        -1,
        "200000000w",
    ],
)
def test_what_is_no_duration(text: str | float) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20GiB", 20 * 2**30),
        ("256KiB", 2**18),
        ("1kB", 1000),
        ("1KB", 1000),
        ("3M", 3_000_000),
        ("1.5 GiB", 3 * 2**29),
        ("7", 7),
        ("7B", 7),
        (9, 9),
    ],
)
def test_sizes(text: str | float, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "1gib", "1 KIB", "-1", "1e3", "0.3B", "1Gib", "99999999PiB", float("inf"), float("nan"), 0.5, -1]
)
def test_what_is_no_size(text: str | float) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


@given(st.floats(0, LONGEST) | st.integers(0, LONGEST))
def test_a_shown_duration_reads_back(seconds: float) -> None:
    assert parse_duration(show_duration(seconds)) == seconds


@example(1_051_188_097_508_211_712)
@given(st.integers(0, LARGEST) | st.integers(0, 2000).map(lambda n: n * 2**30))
def test_a_shown_size_reads_back(size: int) -> None:
    assert parse_size(show_size(size)) == size


@given(st.text(max_size=20))
def test_any_text_is_a_number_or_a_value_error(text: str) -> None:
    for parse in (parse_duration, parse_size):
        with suppress(ValueError):
            assert parse(text) >= 0
