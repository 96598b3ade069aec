"""engine/alarms.py: a transition of an alarm whose webhook never came triggers its audit, once, and no other one does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from auditing import Place

from vedette.clients.keystone import credentials
from vedette.clients.openstack import OpenStackCloud
from vedette.engine.alarms import GRACE, Alarms, _all, equalities, ident_of
from vedette.errors import CloudUnavailable, Forbidden, NoService, StoreUnavailable
from vedette.kit.clock import SystemClock, rfc3339_us
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.advice import Trigger
from vedette.testing.cloud import FakeCloud

INTERVAL = 300.0
HOOK = "trust+https://vedette:9322/v1/webhooks/a"


class Aodh:
    """What of a cloud is asked: a list of alarms."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.alarms: dict[str, dict[str, Any]] = {}
        self.reasons = 0
        self.trouble: Exception | None = None
        self.meanwhile: Callable[[], Awaitable[None]] | None = None
        """Once, between the answer's making and its arrival."""

    def set(self, id_: str, state: str, *, actions: Sequence[str] = (HOOK,), **more: Any) -> None:
        """As of now: for a reason of its own. Like Aodh's evaluator, which leaves `state_timestamp` as it was made with."""
        self.reasons += 1
        now = rfc3339_us(self.place.clock.now_us())[:-1]
        self.alarms[id_] = {
            **{"alarm_id": id_, "name": f"the alarm {id_}", "type": "gnocchi_resources_threshold", "severity": "low"},
            **{"ok_actions": [], "insufficient_data_actions": [], "alarm_actions": list(actions)},
            **{"gnocchi_resources_threshold_rule": {"resource_id": "h1", "metric": "cpu"}},
            **{"state": state, "state_timestamp": self.alarms.get(id_, {}).get("state_timestamp", now)},
            **{"state_reason": f"most recent: {self.reasons}", **more},
        }

    async def query(self, service: str, path: str, body: Any = None, params: Any = ()) -> Any:
        assert (service, path) == ("alarming", "/alarms")
        if self.trouble is not None:
            raise self.trouble
        answer = [self.alarms[id_] for id_ in sorted(self.alarms)]
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            await meanwhile()
        return answer


class World:
    def __init__(self, place: Place) -> None:
        self.place, self.aodh = place, Aodh(place)
        self.alarms = self.fresh()

    def fresh(self) -> Alarms:
        """As after a restart."""
        place = self.place
        cloud: Any = self.aodh
        return Alarms(place.store, lambda: cloud, place.audits.trigger, place.clock, Telemetry(), interval=INTERVAL)

    async def later(self, seconds: float = INTERVAL) -> int:
        """How many transitions were missed, as looks find then and when the grace is over."""
        return await self.look(seconds) + await self.look(GRACE)

    async def look(self, seconds: float) -> int:
        self.place.clock.tick(seconds)
        found = await self.alarms.look()
        await self.place.rest()
        return found

    async def webhook(self, id_: str, state: str = "alarm", *, previous: str = "ok", audit: str = "a", **more: Any) -> None:
        """As Aodh sends it, with the reason that it has for the alarm's state."""
        reason = self.aodh.alarms.get(id_, {}).get("state_reason")
        body = {"alarm_id": id_, "current": state, "previous": previous, "reason": reason, **more}
        await self.place.audits.trigger(audit, Trigger(at=self.place.clock.now_us(), alarm=body))
        await self.place.rest()

    @property
    def runs(self) -> int:
        return self.place.now(self.audit).runs

    audit: Any = None


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    place = Place()
    async with place.running():
        one = World(place)
        one.audit = await place.audit()
        await place.rest()
        yield one


async def test_a_transition_whose_webhook_never_came_triggers_its_audit_once() -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        assert await one.later() == 0
        one.place.clock.tick(30)
        one.aodh.set("x", "alarm")
        assert await one.later() == 1
        assert one.runs == 1
        (plan,) = one.place.plans(one.audit)
        (trigger,) = plan.trigger
        assert (trigger["cause"], trigger["objects"]) == ("reconcile", ["h1"])
        alarm = trigger["alarm"]
        assert (alarm["alarm_id"], alarm["alarm_name"], alarm["previous"], alarm["current"]) == (
            "x",
            "the alarm x",
            "ok",
            "alarm",
        )
        entries = (await one.place.store.entries(one.place.store.oldest, limit=1000))[0]
        told = [one.entry.notice for one in entries if one.entry.notice.event_type == "vedette.audit.trigger"]
        assert [notice.origin for notice in told] == ["reconcile"]
        for _ in range(3):
            assert await one.later() == 0
        one.alarms = one.fresh()
        assert await one.later() == 0
        assert one.runs == 1


async def test_one_whose_webhook_came_does_not() -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        one.place.clock.tick(2)
        await one.webhook("x")
        assert (await one.later(), one.runs) == (0, 1)
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        assert (await one.later(), one.runs) == (1, 2), "the second time its webhook was lost"


async def test_a_webhook_may_still_be_on_its_way() -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        one.aodh.set("y", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        one.aodh.set("y", "alarm")
        assert await one.look(1) == 0
        await one.webhook("x")
        assert await one.look(GRACE - 1) == 0
        assert (await one.look(1), one.runs) == (1, 2), "but not for ever"
        assert (await one.later(), one.runs) == (0, 2)


async def test_one_that_left_its_state_and_came_back_is_another_transition() -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        await one.webhook("x")
        assert await one.later() == 0
        one.aodh.set("x", "ok")
        one.aodh.set("x", "alarm")
        assert (await one.later(), one.runs) == (1, 2)
        one.aodh.set("x", "ok")
        one.aodh.set("x", "alarm")
        await one.webhook("x")
        assert (await one.later(), one.runs) == (0, 3)


async def test_repeated_actions_are_no_transitions() -> None:
    """Each has a reason of its own, and Aodh's list keeps the transition's."""
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        await one.webhook("x")
        await one.webhook("x", previous="alarm", reason="Remaining as alarm")
        assert (await one.later(), one.runs) == (0, 2)
        assert (await one.later(), one.runs) == (0, 2)
        one.aodh.set("x", "ok")
        one.aodh.set("x", "alarm")
        assert (await one.later(), one.runs) == (1, 3), "the reason was learned meanwhile"


async def test_each_event_of_an_alarm_of_events_counts() -> None:
    """It stays in the state alarm, and its reason names the event."""
    data = {"type": "event", "event": {}}
    async with world() as one:
        one.aodh.set("x", "alarm", type="event", repeat_actions=True)
        await one.later()
        one.aodh.set("x", "alarm", type="event", repeat_actions=True)
        await one.webhook("x", previous="alarm", reason_data=data)
        assert (await one.later(), one.runs) == (0, 1)
        one.aodh.set("x", "alarm", type="event", repeat_actions=True)
        assert (await one.later(), one.runs) == (1, 2)


@pytest.mark.parametrize(
    "more",
    [
        {"state_reason": "Manually set via API"},
        {"state_reason": "Not evaluated yet"},
        {"enabled": False},
    ],
)
async def test_what_aodh_posts_nothing_of_is_no_news(more: dict[str, Any]) -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm", **more)
        assert await one.later() == 0
        assert (await one.later(), one.runs) == (0, 0)


async def test_an_alarm_that_is_made_and_not_evaluated_is_no_news() -> None:
    async with world() as one:
        await one.later()
        one.aodh.set("x", "insufficient data", insufficient_data_actions=[HOOK], state_reason="Not evaluated yet")
        one.aodh.set("of an older Aodh", "insufficient data", insufficient_data_actions=[HOOK], state_reason=None)
        assert (await one.later(), one.runs) == (0, 0)
        one.aodh.set("of an older Aodh", "alarm", state_reason=None)
        assert (await one.later(), one.runs) == (1, 1)


async def test_an_alarm_that_names_an_audit_only_now_is_no_news() -> None:
    async with world() as one:
        one.aodh.set("x", "alarm", actions=[])
        await one.later()
        one.aodh.alarms["x"]["alarm_actions"] = [HOOK]
        assert (await one.later(), one.runs) == (0, 0)


async def test_a_new_one_is_not_forgotten_by_a_restart_within_the_grace() -> None:
    async with world() as one:
        await one.later()
        one.aodh.set("x", "alarm")
        assert await one.look(INTERVAL) == 0
        one.alarms = one.fresh()
        assert await one.look(INTERVAL) == 0
        assert (await one.look(GRACE), one.runs) == (1, 1)
        assert (await one.later(), one.runs) == (0, 1)


async def test_what_was_there_before_us_is_no_news_and_what_came_since_is() -> None:
    async with world() as one:
        one.aodh.set("old", "alarm")
        assert await one.later() == 0
        one.aodh.set("new", "alarm")
        assert (await one.later(), one.runs) == (1, 1)
        one.alarms = one.fresh()
        one.aodh.set("newer", "alarm")
        assert (await one.later(86_400), one.runs) == (1, 2), "while we were not there"


async def test_only_the_actions_of_its_state_count() -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm", actions=["https://elsewhere/hook", "log://"])
        assert await one.later() == 0
        one.aodh.set("x", "ok", ok_actions=[HOOK])
        assert await one.later() == 1
        one.aodh.set("x", "insufficient data", ok_actions=[HOOK])
        assert await one.later() == 0
        assert one.runs == 1


async def test_an_audit_that_can_not_be_triggered_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as one:
        await one.place.set(one.audit, state="CANCELLED")
        nobody = ["https://vedette/infra-optim/v1/webhooks/no%20such"]
        one.aodh.set("x", "ok")
        one.aodh.set("y", "ok", actions=nobody)
        await one.later()
        one.aodh.set("x", "alarm")
        one.aodh.set("y", "alarm", actions=nobody)
        assert await one.later() == 0
        said = [record.message for record in caplog.records if "would be refused" in record.message]
        assert len(said) == 2
        await one.later()
        assert len([record for record in caplog.records if "would be refused" in record.message]) == 2


async def test_two_audits_of_one_alarm() -> None:
    async with world() as one:
        other = await one.place.audit(name="b")
        both = [HOOK, HOOK.replace("/a", "/b")]
        one.aodh.set("x", "ok", actions=both)
        await one.later()
        one.aodh.set("x", "alarm", actions=both)
        assert await one.later() == 1
        assert (one.runs, one.place.now(other).runs) == (1, 1)


async def test_the_webhook_of_one_of_two_audits_may_be_lost() -> None:
    both = [HOOK, HOOK.replace("/a", "/b")]
    async with world() as one:
        other = await one.place.audit(name="b")
        one.aodh.set("x", "ok", actions=both)
        await one.later()
        one.aodh.set("x", "alarm", actions=both)
        await one.webhook("x", audit="b")
        assert await one.later() == 1
        assert (one.runs, one.place.now(other).runs) == (1, 1)
        one.aodh.set("x", "ok", actions=both)
        await one.later()
        one.aodh.set("x", "alarm", actions=both)
        await one.place.set(other, state="CANCELLED")
        assert await one.later() == 1
        assert (one.runs, one.place.now(other).runs) == (2, 1), "that one is refused is nothing to the other"


async def test_an_audit_that_is_named_by_its_uuid() -> None:
    async with world() as one:
        hook = HOOK.replace("/a", f"/{one.audit.uuid}")
        one.aodh.set("x", "ok", actions=[hook])
        await one.later()
        one.aodh.set("x", "alarm", actions=[hook])
        await one.webhook("x")
        assert (await one.later(), one.runs) == (0, 1)


@pytest.mark.parametrize(
    ("rule", "resources"),
    [
        ({"query": '{"=": {"host": "h7"}}'}, {"host": "h7"}),
        ({"query": '{"and": [{"=": {"host": "h7"}}, {"like": {"name": "%"}}]}'}, {"host": "h7"}),
        ({"query": [{"field": "traits.host", "op": "eq", "value": "h7"}]}, {"host": "h7"}),
        ({"query": [{"field": "traits.state", "op": "ne", "value": "active"}]}, {}),
        ({"query": "no json"}, {}),
        ({"query": None}, {}),
        ({"or": [{}]}, {}),
        (None, {}),
    ],
)
def test_what_a_rule_measures(rule: Any, resources: dict[str, str]) -> None:
    assert equalities(rule) == resources


async def test_a_host_in_a_rules_query_is_known_as_such() -> None:
    async with world() as one:
        rule = {"query": '{"=": {"host": "h7"}}', "metric": "cpu"}
        more = {"type": "gnocchi_aggregation_by_resources_threshold", "gnocchi_aggregation_by_resources_threshold_rule": rule}
        one.aodh.set("x", "ok", **more)
        await one.later()
        one.aodh.set("x", "alarm", **more)
        assert await one.later() == 1
        assert one.place.plans(one.audit)[-1].trigger[0]["objects"] == ["h7"]


async def test_a_queue_that_is_full_is_tried_again() -> None:
    place = Place(on_busy="queue", max_queued=1)
    async with place.running():
        one = World(place)
        one.audit = await place.audit()
        await place.rest()
        gate = asyncio.Event()

        async def held(message: bytes) -> None:
            await gate.wait()

        place.inside.gate = held
        one.aodh.set("x", "ok")
        await one.later()
        for _ in range(2):
            await place.audits.trigger("a", Trigger(at=0))
            await place.rest()
        one.aodh.set("x", "alarm")
        assert await one.later() == 0
        place.inside.gate = None
        gate.set()
        await place.rest()
        runs = one.runs
        assert await one.later() == 1
        assert one.runs == runs + 1


async def test_aodh_that_is_away_is_said_once_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        for trouble in (CloudUnavailable("aodh is away"), CloudUnavailable("aodh is away"), Forbidden("no"), NoService("none")):
            one.aodh.trouble = trouble
            assert await one.later() == 0
            assert one.alarms.trouble == ("" if isinstance(trouble, NoService) else str(trouble))
        assert len([record for record in caplog.records if "can't be compared" in record.message]) == 2
        one.aodh.trouble = None
        assert (await one.later(), one.runs) == (1, 1)


async def test_a_store_that_refuses_the_write_loses_nothing() -> None:
    async with world() as one:
        one.aodh.set("x", "ok")
        await one.later()
        one.aodh.set("x", "alarm")
        whole = one.alarms._trigger

        async def refuses(*_: Any, **__: Any) -> None:
            raise StoreUnavailable("not now", delay=1)

        one.alarms._trigger = refuses
        assert await one.later() == 0
        assert one.alarms.trouble == "not now"
        one.alarms._trigger = whole
        assert (await one.later(), one.runs) == (1, 1)


async def test_what_is_known_of_alarms_that_are_gone_is_forgotten() -> None:
    async with world() as one:

        async def rows() -> set[str]:
            store = one.place.store
            return {row.key for space in ("alarm", "alarm-told") for row in await store.state("audits", space)}

        await one.webhook("gone")
        one.aodh.set("there", "ok")
        one.aodh.set("of others", "ok", actions=["https://elsewhere/hook"])
        await one.later()
        assert await rows() == {"gone/a", f"gone/{one.audit.uuid}", "there/a", "*"}
        await one.later(2 * 86_400)
        assert await rows() == {"there/a", "*"}


async def test_a_webhook_that_comes_while_the_list_is_read() -> None:
    """The list is older than it, and does not undo what it told."""
    async with world() as one:
        one.aodh.set("x", "alarm")
        await one.later()
        one.aodh.set("x", "ok")

        async def meanwhile() -> None:
            one.place.clock.tick(1)
            one.aodh.set("x", "alarm")
            await one.webhook("x")

        one.aodh.meanwhile = meanwhile
        assert (await one.look(INTERVAL), one.runs) == (0, 1)
        assert (await one.later(), one.runs) == (0, 1)


async def test_without_aodh_what_webhooks_told_is_forgotten_too() -> None:
    async with world() as one:
        one.aodh.trouble = NoService("none")
        await one.webhook("x")
        assert await one.later() == 0
        assert len(await one.place.store.state("audits", "alarm-told")) == 2, "by the audit's uuid and its name"
        assert await one.later(2 * 86_400) == 0
        assert await one.place.store.state("audits", "alarm-told") == []
        assert one.alarms.trouble == ""


async def test_it_looks_again_and_again() -> None:
    async with world() as one:
        task = asyncio.create_task(one.alarms.run())
        one.aodh.set("x", "ok")
        await one.place.clock.advance(INTERVAL)
        one.aodh.set("x", "alarm")
        await one.place.clock.advance(2 * INTERVAL)
        await one.place.rest()
        assert one.runs == 1
        await cancel(task)


@pytest.mark.parametrize(
    ("action", "wanted"),
    [
        ("trust+https://vedette:9322/v1/webhooks/hot-hosts", "hot-hosts"),
        ("https://vedette/infra-optim/v1/webhooks/hot%20hosts/", "hot hosts"),
        ("http://vedette/v1/webhooks/a?x=y", "a"),
        ("trust+http://u:p@vedette/v1/webhooks/a", "a"),
        ("zaqar://?topic=v1/webhooks/a", ""),
        ("log://", ""),
        ("https://vedette/v1/webhooks/", ""),
        ("https://vedette/v1/webhooks/a/b", ""),
        ("https://[vedette/v1/webhooks/a", ""),
        ("", ""),
    ],
)
def test_which_audit_an_action_names(action: str, wanted: str) -> None:
    assert ident_of(action) == wanted


@pytest.mark.parametrize("all_projects", [True, False])
async def test_alarms_of_all_projects_are_read_page_by_page(all_projects: bool) -> None:
    async with FakeCloud(SystemClock()) as fake:
        fake.alarming.in_catalog, fake.alarming.knows_all_projects = True, all_projects
        ids = [fake.alarming.alarm(f"alarm-{n}", project="demo" if n % 2 else "admin") for n in range(1_003)]
        cloud = OpenStackCloud(
            credentials(fake.credentials("admin")), name="one", clock=SystemClock(), telemetry=Telemetry(), timeout_s=5
        )
        try:
            assert [alarm["alarm_id"] async for alarm in _all(cloud)] == sorted(ids)
        finally:
            await cloud.close()
        assert fake.count("alarming", "/alarms") == (2 if all_projects else 3)
