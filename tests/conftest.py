"""For all tests: what the command line sets for its whole process does not outlive a test that ran it in this one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def our_loggers() -> Iterator[None]:
    """`serve` and `demo` take our log lines away from pytest (kit/log.configure)."""
    ours = logging.getLogger("vedette")
    before = (list(ours.handlers), ours.level, ours.propagate)
    yield
    ours.handlers[:], ours.propagate = before[0], before[2]
    ours.setLevel(before[1])
