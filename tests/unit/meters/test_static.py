"""meters/static.py: measurements from a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.errors import BadRequest, ConfigError
from vedette.kit.telemetry import Telemetry
from vedette.meters import static
from vedette.model.advice import Query, Resource
from vedette.ports import MeterNeeds
from vedette.testing.clock import FakeClock

NEEDS = MeterNeeds(name="m", clock=FakeClock(), telemetry=Telemetry(), cloud=lambda name: None)
HOSTS = [Resource("h1", "u1"), Resource("h2", "u2"), Resource("h3", "u3")]


async def test_who_has_no_data_is_missing_and_a_changed_file_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text("host_cpu_usage: {h1: 81.5, u2: 0}\n")
    meter = static.build(static.Options(path=str(file)), NEEDS)
    assert meter.metrics == {"host_cpu_usage"}
    assert await meter.read(Query("host_cpu_usage"), HOSTS, 0) == {"h1": 81.5, "h2": 0}
    assert await meter.read(Query("host_power"), HOSTS, 0) == {}
    file.write_text('{"host_cpu_usage": {"h3": 5}, "host_power": {"h1": 200}}')
    os.utime(file, ns=(1, 1))
    assert await meter.read(Query("host_cpu_usage"), HOSTS, 0) == {"h3": 5}
    assert meter.metrics == {"host_cpu_usage", "host_power"}
    assert await meter.state() == "available"
    file.unlink()
    assert (await meter.state()).startswith("not available: measurements in ")
    with pytest.raises(BadRequest, match="can't be read"):
        await meter.read(Query("host_cpu_usage"), HOSTS, 0)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "no mapping"),
        ("host_cpu_usage: 5", "no mapping"),
        ("host_cpu_usage: {h1: much}", "no mapping"),
        ("nothing: {h1: 1}", "there is no metric 'nothing'"),
        ("a: [", "can't be read"),
        ("!!python/object:os.system {}", "can't be read"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=said):
        static.build(static.Options(path=str(file)), NEEDS)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"path: .*can't be read"):
        static.build(static.Options(path=str(tmp_path / "none")), NEEDS)
