"""A fixture for pytest: one Exim for the tests of a module, with TLS by a certificate of the run's own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from vedette.testing.mail import Exim, EximMissing
from vedette.testing.tls import Authority


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signs the certificates of servers in tests."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def exim(authority: Authority) -> Iterator[Exim]:
    """A started server with an empty mailbox. Without one on the machine: a skip on a laptop, a failure in CI (`CI` is set)."""
    try:
        server = Exim(tls=authority.server("mail"))
    except EximMissing as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    try:
        server.start()
        yield server
    finally:
        server.close()
