"""A recording played back: at its pace, faster, at once, and round and round to other objects."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import uuid
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vedette.errors import CannotStart, TryLater
from vedette.kit.clock import parse_us
from vedette.kit.telemetry import Telemetry
from vedette.model.notice import NOT_UNDERSTOOD, Notice
from vedette.sources.replay import Options, ReplaySource, _Shift, build

CAPTURES = Path(__file__).parents[1] / "captures"
CORE = CAPTURES / "core-1.jsonl.gz"
START = 1_800_000_000_000_000
"""What the clock says when a test begins: long after the recordings."""


class JumpingClock:
    """Sleeping is instant, and time goes on only by it."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now_us(self) -> int:
        return START + int(self.passed * 1_000_000)

    def monotonic(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.passed += seconds
        await asyncio.sleep(0)


class Enough(Exception):
    """Ends a source that would go on for ever."""


class Log:
    """Takes what is offered, up to `most` notices."""

    def __init__(self, clock: JumpingClock, most: int) -> None:
        self.clock = clock
        self.most = most
        self.taken: list[tuple[float, Notice]] = []
        self.sizes: list[int] = []
        self.refuse = 0

    async def __call__(self, notices: Sequence[Notice]) -> None:
        if self.refuse:
            self.refuse -= 1
            raise TryLater("not now", delay=0.5)
        self.sizes.append(len(notices))
        self.taken += [(self.clock.passed, notice) for notice in notices]
        if len(self.taken) >= self.most:
            raise Enough

    @property
    def notices(self) -> list[Notice]:
        return [notice for _, notice in self.taken]


async def play(path: Path, most: int, *, refuse: int = 0, **given: Any) -> Log:
    clock = JumpingClock()
    log = Log(clock, most)
    log.refuse = refuse
    source = build(Options(name="recorded", path=str(path), **given), clock=clock, telemetry=Telemetry())
    with pytest.raises(Enough):
        await source.run(log)
    return log


def recorded(path: Path = CORE) -> list[dict[str, Any]]:
    with gzip.open(path) as file:
        return [json.loads(line) for line in file]


def inner(line: dict[str, Any]) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(json.loads(line["body"])["oslo.message"])
    return message


async def test_at_speed_1_each_message_comes_when_it_came() -> None:
    lines = recorded()
    log = await play(CORE, len(lines))
    assert [notice.id for notice in log.notices] == [inner(line)["message_id"] for line in lines]
    begin = lines[0]["recv_ts"]
    for line, (when, notice) in zip(lines, log.taken, strict=True):
        assert when == pytest.approx(line["recv_ts"] - begin, abs=0.001)
        assert notice.source == "recorded"
        assert notice.sent_at == parse_us(inner(line)["timestamp"])


async def test_faster_is_in_proportion() -> None:
    lines = recorded()
    log = await play(CORE, len(lines), speed=10)
    assert log.taken[-1][0] == pytest.approx((lines[-1]["recv_ts"] - lines[0]["recv_ts"]) / 10, abs=0.01)


async def test_at_speed_0_all_comes_at_once_in_batches() -> None:
    lines = recorded()
    log = await play(CORE, len(lines), speed=0)
    assert log.clock.passed == 0
    assert log.sizes == [len(lines)]
    twice = await play(CORE, 2 * len(lines), speed=0, loop=True)
    assert max(twice.sizes) <= 1000


async def test_silence_is_cut_down_and_bursts_are_spread() -> None:
    lines = recorded()
    log = await play(CORE, len(lines), max_gap_s=1.5, min_gap_s=0.05)
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(log.taken)]
    assert max(gaps) <= 1.5 + 1e-6
    assert min(gaps) >= 0.05 - 1e-6


async def test_a_log_that_takes_nothing_is_waited_for_and_nothing_is_lost() -> None:
    lines = recorded()
    log = await play(CORE, len(lines), refuse=100)
    assert [notice.id for notice in log.notices] == [inner(line)["message_id"] for line in lines]
    # Fifty seconds were lost; the recording goes on at its pace and doesn't race to catch up.
    assert log.taken[-1][0] > lines[-1]["recv_ts"] - lines[0]["recv_ts"] + 45


UUID = re.compile(r"(?<![0-9A-Fa-f])(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})(?![0-9A-Fa-f])")


def text(notice: Notice) -> str:
    return bytes(notice.payload).decode()


async def test_every_pass_has_other_ids_and_the_same_shape() -> None:
    lines = recorded()
    count = len(lines)
    log = await play(CORE, 3 * count, speed=0, loop=True)
    passes = [log.notices[start : start + count] for start in range(0, 3 * count, count)]
    assert len({notice.id for notice in log.notices}) == 3 * count
    originals = set()
    for line in lines:
        originals |= {found.replace("-", "") for found in UUID.findall(line["body"])}
    seen: list[set[str]] = []
    for one in passes:
        assert [notice.event_type for notice in one] == [inner(line)["event_type"] for line in lines]
        mapping: dict[str, str] = {}
        for line, notice in zip(lines, one, strict=True):
            mapping_of(inner(line)["payload"], json.loads(text(notice)), mapping)
            mapping_of(inner(line)["message_id"], notice.id, mapping)
            mapping_of(inner(line).get("_context_project_id") or "", notice.actor_project, mapping)
            mapping_of(inner(line).get("_context_request_id") or "", notice.request_id, mapping)
        assert len(set(mapping.values())) == len(mapping)
        assert not originals & set(mapping.values())
        seen.append(set(mapping.values()))
    assert not seen[0] & seen[1]
    assert not seen[1] & seen[2]


def mapping_of(before: Any, after: Any, mapping: dict[str, str]) -> None:
    """Walk both, and check that each UUID became another one, always the same, in the form it had."""
    if isinstance(before, dict):
        for key, value in before.items():
            if key in after:  # Keys that are UUIDs became others.
                mapping_of(value, after[key], mapping)
    elif isinstance(before, list):
        assert len(before) == len(after)
        for one, other in zip(before, after, strict=True):
            mapping_of(one, other, mapping)
    elif isinstance(before, str) and after != "***":
        old, new = UUID.findall(before), UUID.findall(after)
        assert len(old) == len(new), (before, after)
        for one, other in zip(old, new, strict=True):
            assert ("-" in one) == ("-" in other)
            known = mapping.setdefault(one.replace("-", ""), other.replace("-", ""))
            assert known == other.replace("-", "")


async def test_a_later_run_has_other_ids_than_an_earlier_one() -> None:
    first = await play(CORE, 10, loop=True)
    later = JumpingClock()
    later.passed = 3600.0
    log = Log(later, 10)
    with pytest.raises(Enough):
        await ReplaySource(Options(name="r", path=str(CORE), loop=True), later, Telemetry()).run(log)
    assert not {notice.id for notice in first.notices} & {notice.id for notice in log.notices}


async def test_a_pass_happens_now_and_its_order_in_time_is_that_of_the_recording() -> None:
    lines = recorded()
    count = len(lines)
    log = await play(CORE, 2 * count, loop=True, max_gap_s=1.5, min_gap_s=0.02)
    for when, notice in log.taken:
        assert abs(notice.sent_at - (START + when * 1_000_000)) < 3_000_000
    stamps = [parse_us(inner(line)["timestamp"]) for line in lines]
    for start in (0, count):
        moved = [notice.sent_at for notice in log.notices[start : start + count]]
        order = sorted(range(count), key=lambda at: (stamps[at], at))
        assert [moved[at] for at in order] == sorted(moved)


async def test_one_instant_stays_one_instant_and_times_keep_their_form() -> None:
    """`created_at` of an object is the same in every message of a pass, and later ones are later."""
    lines = recorded()
    log = await play(CORE, len(lines), loop=True, max_gap_s=1.5, min_gap_s=0.02)
    created: dict[str, set[str]] = {}
    forms: dict[str, set[str]] = {}
    for line, notice in zip(lines, log.notices, strict=True):
        port = inner(line)["payload"].get("port") or {}
        if "created_at" in port:
            now = json.loads(text(notice))["port"]["created_at"]
            created.setdefault(port["id"], set()).add(now)
        stamp = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[^\s\"\\]*"
        for old, new in zip(re.findall(stamp, json.dumps(inner(line)["payload"])), re.findall(stamp, text(notice)), strict=False):
            forms.setdefault(re.sub(r"\d", "0", old), set()).add(re.sub(r"\d", "0", new))
    assert created
    assert all(len(values) == 1 for values in created.values())
    assert len(forms) > 3
    assert all(values == {form} for form, values in forms.items())


async def test_without_loop_it_ends_its_work_and_stays() -> None:
    clock = JumpingClock()
    log = Log(clock, 10**9)
    source = build(Options(name="recorded", path=str(CORE), speed=0), clock=clock, telemetry=Telemetry())
    assert not source.status().ready
    task = asyncio.create_task(source.run(log))
    while not source.status().detail.startswith("done"):
        await asyncio.sleep(0)
    assert source.status().ready
    assert len(log.notices) == len(recorded())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_lines_that_are_no_messages_are_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    good = json.dumps({"recv_ts": 1.0, "exchange": "nova", "routing_key": "k", "body": recorded()[0]["body"]})
    lines = ["not json", '{"recv_ts": 1}', json.dumps({"body": "{}", "exchange": "nova", "routing_key": "k"}), "", good]
    path.write_text("\n".join(lines))
    log = await play(path, 4)
    assert [notice.event_type == NOT_UNDERSTOOD for notice in log.notices] == [True, True, True, False]
    assert json.loads(text(log.notices[2]))["routing_key"] == "k"


@pytest.mark.parametrize("name", ["none.jsonl", "cut.jsonl.gz", "foreign.jsonl.gz"])
async def test_a_file_that_can_not_be_read_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "cut.jsonl.gz").write_bytes(CORE.read_bytes()[:5000])
    (tmp_path / "foreign.jsonl.gz").write_bytes(b"something else")
    clock = JumpingClock()
    source = build(Options(name="r", path=str(tmp_path / name), speed=0), clock=clock, telemetry=Telemetry())
    with pytest.raises(CannotStart, match=name):
        await source.run(Log(clock, 10**9))


def test_uuids_are_version_5() -> None:
    shift = _Shift("salt")
    one = uuid.uuid4()
    mapped = uuid.UUID(shift.text(str(one)))
    assert mapped.version == 5
    assert shift.text(one.hex) == mapped.hex
    assert shift.text(f"req-{one}") == f"req-{mapped}"
    assert shift.text("f" * 64) == "f" * 64
