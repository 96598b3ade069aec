"""`log`: a line for each event."""

from __future__ import annotations

import logging

import pytest

from vedette.errors import ConfigError
from vedette.handlers.log import LONGEST, Options, build
from vedette.testing.handling import PORT, FakeContext, change, handler_needs


async def test_a_line_says_what_happened_to_what(caplog: pytest.LogCaptureFixture) -> None:
    handler = build(Options(), handler_needs())
    with caplog.at_level(logging.INFO, logger="vedette.handlers.log"):
        said = await handler.handle(change({"status": "ACTIVE"}), FakeContext())
    assert said == f"port.update.end MODIFIED region-one/openstack.vedette.dev/Port/{PORT}"
    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [("INFO", said)]
    await handler.close()


async def test_no_name_begins_a_line_or_is_a_format(caplog: pytest.LogCaptureFixture) -> None:
    handler = build(Options(message="{object.status.name}", level="warning"), handler_needs())
    with caplog.at_level(logging.INFO, logger="vedette.handlers.log"):
        await handler.handle(change({"name": "a\r\n2026-11-20 ERROR %s %(x)d\x1b[31m"}), FakeContext())
        await handler.handle(change({"name": "x" * 100_000}), FakeContext())
    first, second = caplog.records
    assert (first.levelname, first.getMessage()) == ("WARNING", "a 2026-11-20 ERROR %s %(x)d [31m")
    assert len(second.getMessage()) == LONGEST + 1


def test_a_template_that_is_wrong_is_found_at_the_start() -> None:
    with pytest.raises(ConfigError, match="message: character 2"):
        build(Options(message="{ x }"), handler_needs())
    with pytest.raises(ConfigError, match="one line"):
        build(Options(message="a\nb"), handler_needs())
