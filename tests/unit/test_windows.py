"""Windows: who is called and when, and that batches, restarts and repetition change nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.engine.windows import NEWEST, Call, Groups, Hold, Kind, Place, Rule, Suppress, feed, fire, group, let_go

SECOND = 1_000_000
NOON = 1_795_176_000 * SECOND  # 2026-11-20T12:00:00Z


def rule(kind: Kind, span: int = 60, **more: Any) -> Rule:
    return Rule(kind=kind, span=span * SECOND, **{"lateness": 10 * SECOND, **more})


def place(number: int) -> Place:
    return Place(1000 + number, 0, 0, f"region-one/g/Port/{number}")


def told(rule: Rule, events: Sequence[tuple[Any, ...]], key: str = "a") -> Iterator[str]:
    """What becomes of events `(seconds after noon, which conditions hold, group)`, in a word each; timers' calls behind it."""
    groups = Groups(rule)
    for number, (at, *more) in enumerate(events):
        holds = tuple(letter == "1" for letter in (more[0] if more else ""))
        fed = groups.feed(more[1] if len(more) > 1 else key, at=NOON + at * SECOND, place=place(number), holds=holds)
        word = type(fed.verdict).__name__.lower()
        yield word + "".join(f" +{call.place.revision - 1000}" for call in fed.fired)


@pytest.mark.parametrize(
    ("window", "events", "words"),
    [
        (rule("once_within"), [(0,), (10,), (60,), (61,), (70,)], ["call", "suppress", "suppress", "call", "suppress"]),
        (rule("once_within"), [(0,), (30, "", "b"), (50,)], ["call", "call", "suppress"]),
        (rule("once_within"), [(0,), (-5,), (-15,)], ["call", "suppress", "suppress"]),
        # The last one calls when the time is over; the timer is seen by the next event of any group beyond the lateness.
        (rule("once_after"), [(0,), (50,), (40,), (65, "", "b"), (71, "", "b")], ["hold", "hold", "suppress", "hold", "hold +1"]),
        (rule("once_after"), [(0,), (61,), (140,)], ["hold", "hold +0", "hold +1"]),
        (rule("accumulate_within", threshold=3), [(0,), (30,), (60,), (61,)], ["suppress", "suppress", "call", "suppress"]),
        (rule("accumulate_within", threshold=3), [(0,), (30,), (61,), (62,)], ["suppress", "suppress", "suppress", "call"]),
        (rule("accumulate_within", threshold=2), [(0,), (-5,)], ["suppress", "call"]),
        (rule("accumulate_within", threshold=1), [(0,), (1,)], ["call", "call"]),
        (rule("all", conditions=2), [(0, "10"), (5, "10"), (9, "00"), (60, "01")], ["suppress", "suppress", "suppress", "call"]),
        (rule("all", conditions=2), [(0, "10"), (61, "01"), (65, "10"), (66, "11")], ["suppress", "suppress", "call", "call"]),
        (rule("any", conditions=2), [(0, "00"), (1, "01"), (5, "10"), (61, "10"), (62, "10")],
         ["suppress", "call", "suppress", "suppress", "call"]),
        (rule("not_all", conditions=2), [(0, "10"), (30, "01"), (200, "10")], ["hold", "suppress", "hold"]),
        (rule("not_all", conditions=2), [(0, "10"), (30, "10"), (61, "01"), (200, "00")],
         ["hold", "suppress", "hold +0", "suppress +2"]),
        (rule("absent_for"), [(0,), (50,), (110,), (171,)], ["hold", "hold", "hold", "hold +2"]),
        (rule("absent_for"), [(0,), (5, "", "b"), (60,), (76, "", "c")], ["hold", "hold", "hold", "hold +1"]),
    ],
)  # fmt: skip
def test_who_is_called_and_when(window: Rule, events: Sequence[tuple[Any, ...]], words: list[str]) -> None:
    assert list(told(window, events)) == words


def test_a_suppressed_event_says_by_what_and_until_when() -> None:
    window = rule("once_within", 3600)
    first = feed(window, None, at=NOON, place=place(0))
    assert first.verdict == Call(place(0))
    assert feed(window, first.state, at=NOON + 1, place=place(1)).verdict == Suppress(
        "suppressed by once_within until 2026-11-20T13:00:00Z"
    )
    counting = feed(rule("accumulate_within", threshold=3), None, at=NOON, place=place(0))
    assert counting.verdict == Suppress("1 of 3 within 60 s (accumulate_within)")
    held = feed(rule("once_after"), None, at=NOON, place=place(0)).verdict
    assert held == Hold("held by once_after until 2026-11-20T12:01:00Z; a later event takes its place")


def test_late_news_counts_for_nothing_and_says_so() -> None:
    groups = Groups(rule("once_within"))
    groups.feed("a", at=NOON + 60 * SECOND, place=place(0))
    late = groups.feed("b", at=NOON + 49 * SECOND, place=place(1)).verdict
    assert late == Suppress("late: its time is 2026-11-20T12:00:49Z, and 2026-11-20T12:00:50Z has passed")
    assert isinstance(groups.feed("b", at=NOON + 50 * SECOND, place=place(2)).verdict, Call)


def test_a_log_that_stands_still_needs_a_clock() -> None:
    groups = Groups(rule("absent_for"))
    groups.feed("a", at=NOON, place=place(0))
    assert groups.due == NOON + 70 * SECOND + 1
    assert groups.idle(groups.due - 1) == ()
    assert groups.idle(groups.due) == (Call(place(0)),)
    assert groups.due == 0
    assert len(groups) == 0
    assert ("=a", None, 0) in groups.dirty()


def test_a_timer_fires_once_its_time_has_passed() -> None:
    window = rule("once_after")
    step = feed(window, None, at=NOON, place=place(0))
    assert fire(window, step.state, step.due).state == step.state
    over = fire(window, step.state, step.due + 1)
    assert (over.verdict, over.state, over.due) == (Call(place(0)), None, 0)
    assert fire(window, None, NOON).verdict is None


def test_the_group_touched_longest_ago_is_let_go_for_a_new_one() -> None:
    groups = Groups(rule("once_within", max_groups=2))
    for number, key in enumerate("aba"):
        groups.feed(key, at=NOON + number, place=place(number))
    assert groups.feed("c", at=NOON + 5, place=place(5)).let_go == ("b",)
    assert ("=b", None, 0) in groups.dirty()
    held = Groups(rule("once_after", max_groups=1))
    held.feed("a", at=NOON, place=place(0))
    assert held.feed("b", at=NOON, place=place(1)).fired == (Call(place(0)),)
    absent = rule("absent_for")
    assert let_go(absent, feed(absent, None, at=NOON, place=place(0)).state) is None


def test_the_state_of_another_rule_is_forgotten() -> None:
    groups = Groups(rule("once_within"))
    groups.feed("a", at=NOON, place=place(0))
    kept = [(name, value) for name, value, _ in groups.dirty() if value is not None]
    other = Groups(rule("once_within", 61), kept)
    assert ("=a", None, 0) in other.dirty()
    assert isinstance(other.feed("a", at=NOON + 1, place=place(1)).verdict, Call)
    assert feed(rule("any", conditions=1), b"nonsense", at=NOON, place=place(0), holds=(True,)).verdict == Call(place(0))


def test_a_state_holds_no_more_than_the_rule_needs() -> None:
    window, state = rule("accumulate_within", 10_000, threshold=4), None
    sizes = []
    for number in range(50):
        state = feed(window, state, at=NOON + number, place=place(number)).state
        assert state is not None
        sizes.append(len(state))
    assert max(sizes) < 120


def test_a_groups_key_tells_values_apart_and_is_bounded() -> None:
    assert group(["a", "b"]) == '["a","b"]'
    assert group(["a,b"]) != group(["a", "b"])
    one, other = group(["x" * 600 + "1"]), group(["x" * 600 + "2"])
    assert len(one) == 512
    assert one != other


rules = st.builds(
    rule,
    st.sampled_from(["once_within", "once_after", "accumulate_within", "all", "any", "not_all", "absent_for"]),
    st.integers(1, 20),
    lateness=st.sampled_from([0, 3 * SECOND, 10 * SECOND]),
    threshold=st.integers(1, 4),
    conditions=st.just(2),
    max_groups=st.sampled_from([2, 100]),
)
happenings = st.lists(
    st.tuples(st.integers(-8, 12), st.sampled_from("abc"), st.tuples(st.booleans(), st.booleans())), max_size=40
)


class Log(msgspec.Struct):
    """Events as they stand in a log, with times that mostly grow."""

    events: list[tuple[int, str, Place, tuple[bool, ...]]]


def log_of(steps: Sequence[tuple[int, str, tuple[bool, bool]]], *, ordered: bool = False) -> Log:
    now, events = 0, []
    for number, (step, key, holds) in enumerate(steps):
        now += abs(step) // 2 if ordered else max(0, step)
        at = now if ordered or step >= 0 else now + step
        events.append((NOON + at * SECOND, key, place(number), holds))
    return Log(events)


@given(rules, happenings, st.data())
def test_the_same_log_gives_the_same_calls_however_it_is_cut(window: Rule, steps: Any, data: st.DataObject) -> None:
    log = log_of(steps)
    whole = Groups(window)
    expected = [whole.feed(key, at=at, place=place, holds=holds) for at, key, place, holds in log.events]
    kept: dict[str, bytes] = {}
    groups, found = Groups(window), []
    for number, (at, key, place, holds) in enumerate(log.events):
        found.append(groups.feed(key, at=at, place=place, holds=holds))
        cut = data.draw(st.sampled_from(["", "", "batch", "restart", "again"]))
        if cut:
            for name, value, _ in groups.dirty():
                if value is None:
                    kept.pop(name, None)
                else:
                    kept[name] = value
        if cut in ("restart", "again"):
            groups = Groups(window, sorted(kept.items()))
        if cut == "again" and window.max_groups > 3:  # what was fed before the cut comes once more
            for at_, key_, place_, holds_ in log.events[: number + 1][-3:]:
                repeated = groups.feed(key_, at=at_, place=place_, holds=holds_)
                assert not isinstance(repeated.verdict, Call)
                assert not repeated.fired
    assert found == expected


@given(rules, happenings, st.data())
def test_a_clock_while_the_log_stands_still_changes_no_call(window: Rule, steps: Any, data: st.DataObject) -> None:
    log = log_of(steps, ordered=True)
    window = msgspec.structs.replace(window, max_groups=100)

    def calls(ticking: bool) -> list[Place]:
        groups, found = Groups(window), []
        for at, key, place, holds in log.events:
            if ticking:
                found += groups.idle(data.draw(st.integers(at - 20 * SECOND, at)))
            fed = groups.feed(key, at=at, place=place, holds=holds)
            found += [*fed.fired, fed.verdict]
        found += groups.idle(NOON * 2)
        return sorted(one.place.revision for one in found if isinstance(one, Call))  # type: ignore[misc]

    assert calls(ticking=True) == calls(ticking=False)


def test_what_is_kept_has_no_more_than_names_and_numbers() -> None:
    groups = Groups(rule("once_after"))
    groups.feed("key", at=NOON, place=place(7))
    kept = {name: msgspec.msgpack.decode(value) for name, value, _ in groups.dirty() if value is not None}
    assert set(kept) == {NEWEST, "=key"}
    assert "region-one/g/Port/7" in kept["=key"][-2]
