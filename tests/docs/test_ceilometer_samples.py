"""deploy/ceilometer: what is polled and kept is what meters/_gnocchi_servers.py reads, and the scripts are well-formed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from vedette.meters import _gnocchi_servers as servers

FOLDER = Path(__file__).parents[2] / "deploy" / "ceilometer"
RATES = {"cpu", *servers._RATES}
MEANS = {"memory.usage", *servers._sizes(per_vcpu=True)}


def test_everything_that_is_read_is_polled_and_kept_as_it_is_read() -> None:
    (source,) = yaml.safe_load((FOLDER / "polling.yaml").read_text())["sources"]
    assert set(source["meters"]) >= RATES | MEANS
    pipeline = yaml.safe_load((FOLDER / "pipeline.yaml").read_text())
    sinks = {sink["name"]: sink["publishers"] for sink in pipeline["sinks"]}
    kept = {one["sinks"][0]: set(one["meters"]) for one in pipeline["sources"]}
    assert not kept["rates"] & kept["means"], "each meter has one archive policy"
    assert kept["rates"] >= RATES
    assert kept["means"] >= MEANS
    script = (FOLDER / "archive-policies.sh").read_text()
    for sink, policy, aggregations in (
        ("rates", "concertim_rate_policy", "-m rate:mean -m mean"),
        ("means", "concertim_policy", "-m mean"),
    ):
        assert f"archive_policy={policy}&" in sinks[sink][0]
        assert f"make {policy} {aggregations}\n" in script


@pytest.mark.parametrize("name", ["archive-policies.sh", "clean-up.sh"])
def test_scripts(name: str, tmp_path: Path) -> None:
    """With an `openstack` that writes down what it is asked."""
    fake = tmp_path / "openstack"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n[ "$3" = list ] && echo concertim_policy\nexit 0\n')
    fake.chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([FOLDER / name], env=environ, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    points = "-d granularity:5s,points:720 -d granularity:60s,points:720 -d granularity:3600s,points:720"
    assert (
        asked
        == {
            "archive-policies.sh": [
                "metric archive-policy list -f value -c name",
                f"metric archive-policy create concertim_rate_policy {points} -m rate:mean -m mean",
            ],
            "clean-up.sh": [
                f"metric resource batch delete -t {type_} ended_at < '-30days'"
                for type_ in ("instance", "instance_network_interface", "instance_disk")
            ],
        }[name]
    )
    if name == "clean-up.sh":
        wrong = subprocess.run([FOLDER / name, "a week"], env=environ, capture_output=True, text=True, timeout=20, check=False)
        assert wrong.returncode == 2
