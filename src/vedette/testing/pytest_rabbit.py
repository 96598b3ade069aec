"""A fixture for pytest: one RabbitMQ for a whole run, whichever modules ask for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vedette.testing.rabbit import Rabbit, RabbitMissing

_STARTED: pytest.StashKey[Rabbit] = pytest.StashKey()


@pytest.fixture(scope="session")
def rabbit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Rabbit:
    """A started node. Without one on the machine: a skip on a laptop, a failure in CI (`CI` is set)."""
    stash = request.config.stash
    if _STARTED not in stash:
        folder = Path(tmp_path_factory.mktemp("rabbitmq"))
        try:
            node = Rabbit(folder)
        except RabbitMissing as why:
            if os.environ.get("CI"):
                pytest.fail(str(why))
            pytest.skip(str(why))
        request.config.add_cleanup(node.close)
        node.start()
        stash[_STARTED] = node
    return stash[_STARTED]
