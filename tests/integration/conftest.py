"""Real servers for the tests in this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from vedette.testing import pytest_rabbit
from vedette.testing.proxy import Proxy
from vedette.testing.rabbit import Rabbit
from vedette.testing.source_suite import RabbitUpstream

rabbit = pytest_rabbit.rabbit


@pytest.fixture(params=["quorum", "classic"])
async def upstream(rabbit: Rabbit, request: pytest.FixtureRequest) -> AsyncIterator[RabbitUpstream]:
    """Names of one's own on the run's RabbitMQ, behind a proxy; once with each type of queue."""
    async with Proxy("127.0.0.1", rabbit.port) as proxy:
        upstream = RabbitUpstream(rabbit, proxy, queue_type=request.param)
        yield upstream
        upstream.close()
