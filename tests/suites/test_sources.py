"""The source suite on the broker in memory, and on a real RabbitMQ with both types of queue."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.sources.openstack import GAPS, OpenStackSource
from vedette.testing import pytest_rabbit
from vedette.testing.proxy import Proxy
from vedette.testing.rabbit import Rabbit
from vedette.testing.source_suite import (
    FakeUpstream,
    RabbitUpstream,
    SourceSuite,
    Taker,
    consuming,
    ids,
    messages,
    options,
    running,
    until,
)

rabbit = pytest_rabbit.rabbit


class TestOnTheFake(SourceSuite):
    @pytest.fixture
    def upstream(self) -> FakeUpstream:
        return FakeUpstream()


@pytest.mark.rabbitmq
class TestOnRabbit(SourceSuite):
    @pytest.fixture(params=["quorum", "classic"])
    async def upstream(self, rabbit: Rabbit, request: pytest.FixtureRequest) -> AsyncIterator[RabbitUpstream]:
        async with Proxy("127.0.0.1", rabbit.port) as proxy:
            upstream = RabbitUpstream(rabbit, proxy, queue_type=request.param)
            yield upstream
            upstream.close()


class TestWhatOnlyTheFakeCanDo:
    """Failures that a real broker can't be made to have on demand."""

    @pytest.fixture
    def upstream(self) -> FakeUpstream:
        return FakeUpstream()

    async def test_a_broker_that_forgot_its_consumer_is_noticed(self, upstream: FakeUpstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker):
            await taker.until(lambda: bool(taker.causes), "the queue")
            upstream.broker.forgetful = True
            await taker.until(lambda: "reconnect" in taker.causes, "the new session")
            upstream.broker.forgetful = False
            await upstream.publish(messages(3))
            await taker.heard(ids(3))

    async def test_a_broker_that_fell_silent_is_left_and_found_again(self, upstream: FakeUpstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker) as source:
            await taker.until(lambda: bool(taker.causes), "the queue")
            upstream.broker.silent = True
            await upstream.publish(messages(3))
            await until(lambda: not source.status().ready, "the check")
            upstream.broker.silent = False
            await taker.heard(ids(3))
            assert source.status().ready

    async def test_messages_that_wait_and_are_not_delivered_end_the_session(self, upstream: FakeUpstream) -> None:
        taker = Taker()
        async with consuming(upstream, taker, inactivity_s=0.3):
            await taker.until(lambda: bool(taker.causes), "the queue")
            queue = upstream.broker.queues["vedette"]
            queue.stuck = True
            await upstream.publish(messages(3))
            await taker.until(lambda: "reconnect" in taker.causes, "the new session")
            queue.stuck = False
            queue.deal()
            await taker.heard(ids(3))

    async def test_gaps_that_nobody_takes_stay_bounded(self, upstream: FakeUpstream) -> None:
        """A log that refuses even gaps, and a broker that loses every connection."""
        source = upstream.source()
        for number in range(3 * GAPS):
            source._gap("reconnect", 1_000_000 * number, 1_000_000 * number + 1)
        taker = Taker()
        async with running(source, taker):
            await taker.until(lambda: len(taker.gaps) >= GAPS, "the gaps")
        merged = taker.gaps[GAPS - 1]
        assert merged["cause"] == "several"
        assert merged["from"] == "1970-01-01T00:01:39.000000Z"
        assert len(taker.gaps) == GAPS

    async def test_the_metrics_tell_the_same_story(self, upstream: FakeUpstream) -> None:
        telemetry, taker = Telemetry(), Taker()
        settings = options("one", {"exchanges": ("nova", "glance")})
        source = OpenStackSource(settings, SystemClock(), telemetry, broker=upstream.broker)
        async with running(source, taker):
            await until(lambda: source.status().ready, "readiness")
            await upstream.publish(messages(3))
            await taker.heard(ids(3))
            await upstream.cut()
            await taker.until(lambda: "reconnect" in taker.causes, "the gap")
            shown = telemetry.render().decode()
        for line in (
            'vedette_source_connected{source="one"} 1.0',
            'vedette_source_exchanges_bound{source="one"} 1.0',
            'vedette_source_exchanges_missing{source="one"} 1.0',
            'vedette_source_reconnects_total{source="one"} 1.0',
            'vedette_source_gaps_total{cause="reconnect",source="one"} 1.0',
            'vedette_source_gaps_total{cause="queue-created",source="one"} 1.0',
            'vedette_source_unacked{source="one"} 0.0',
        ):
            assert line in shown
        assert 'vedette_source_connected{source="one"} 0.0' in telemetry.render().decode()
