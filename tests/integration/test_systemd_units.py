"""deploy/systemd: what systemd says of the units. Nothing is started, installed or left behind."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = {
    "vedette.service": "vedette.service",
    **{
        f"concertim-openstack-service@{component}.service": "concertim-openstack-service@.service"
        for component in ("api", "updates_bulk", "updates_mq", "metrics")
    },
}
MOST_EXPOSURE = 20
"""Tenths of `systemd-analyze security`'s figure, which is 9.6 for a unit that says nothing."""


@pytest.fixture(scope="module")
def analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("there is no systemd-analyze")
        pytest.skip("there is no systemd-analyze (package systemd)")
    return found


def said(*command: str) -> tuple[int, str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy whose command is there."""
    text = (FOLDER / UNITS[request.param]).read_text()
    text, times = re.subn(r"^ExecStart=\S+", f"ExecStart={sys.executable}", text, flags=re.MULTILINE)
    assert times == 1
    copy = tmp_path / str(request.param)
    copy.write_text(text)
    return copy


def verified(analyze: str, unit: Path) -> tuple[int, list[str]]:
    """The exit code, and what is said of this unit: systemd reads those of the machine too, and remarks on them."""
    code, words = said(analyze, "verify", "--man=no", str(unit))
    return code, [line for line in words.splitlines() if unit.name in line]


def test_systemd_takes_the_unit_and_has_nothing_to_remark(analyze: str, unit: Path) -> None:
    assert verified(analyze, unit) == (0, [])


def test_a_mistake_in_a_unit_would_be_seen(analyze: str, tmp_path: Path) -> None:
    for line in ("ProtectSytem=strict", "Type=often", "RestartSec=soon", "ExecStart=/nonexistent/vedette"):
        broken = tmp_path / "broken.service"
        broken.write_text(f"[Service]\nExecStart={sys.executable}\n{line}\n")
        _, words = verified(analyze, broken)
        assert words, line


def test_a_unit_is_exposed_to_little(analyze: str, unit: Path) -> None:
    code, words = said(analyze, "security", "--no-pager", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(unit))
    assert code == 0, words
