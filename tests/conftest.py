"""For all tests: what the command line sets for its whole process does not outlive a test that ran it in this one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def our_loggers() -> Iterator[None]:
    """`serve` and `demo` take our log lines away from pytest (kit/log.configure), the doctor says some of them itself."""
    ours = logging.getLogger("vedette")
    before, levels = (list(ours.handlers), ours.propagate), _levels()
    yield
    ours.handlers[:], ours.propagate = before
    for name in _levels():
        logging.getLogger(name).setLevel(levels.get(name, logging.NOTSET))


def _levels() -> dict[str, int]:
    there = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "vedette"]
    return {name: logging.getLogger(name).level for name in there}
