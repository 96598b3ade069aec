"""A whole service and a whole (fake) cloud over HTTP: from an alarm to servers that were really moved, and back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from optimizing import Place, optimizing
from serving import SECONDS

from vedette.testing.cloud import FakeCloud

ALARM = {
    "alarm_id": "6a0ed0e5-1f3c-4f2f-9f0d-3c1d4a1e5d0a",
    "alarm_name": "host is hot",
    "severity": "critical",
    "previous": "ok",
    "current": "alarm",
    "reason": "Transition to alarm due to 1 samples outside threshold",
    "reason_data": {"type": "threshold", "resource_id": "fake-1", "most_recent": 99.0},
}


async def an_audit(place: Place, name: str, strategy: str, goal: str, kind: str = "EVENT", **more: Any) -> Any:
    body = {"name": name, "audit_type": kind, "goal": goal, "strategy": strategy, **more}
    return await place.good("POST", "/v1/audits", body)


async def maintained(place: Place, servers: list[str]) -> Any:
    """The plan of an alarm that has fake-1 emptied, carried out."""
    audit = await an_audit(
        place,
        "empty-it",
        "host_maintenance",
        "cluster_maintaining",
        parameters={"maintenance_node": "fake-1", "backup_node": "fake-2"},
        auto_trigger=True,
    )
    status, _ = await place.ask("POST", "/v1/webhooks/empty-it", ALARM)
    assert status == 202
    await place.audit_in("empty-it", "SUCCEEDED")
    (plan,) = await place.plans_of(audit["uuid"])
    return await place.plan_in(plan["uuid"], "SUCCEEDED", "FAILED", "CANCELLED")


async def test_an_alarm_empties_a_host(tmp_path: Path) -> None:
    async with optimizing(tmp_path) as place:
        servers = [place.server("fake-1") for _ in range(3)]
        stays = place.server("fake-3")
        await place.resynced()
        plan = await maintained(place, servers)
        assert plan["state"] == "SUCCEEDED", plan
        assert {place.host_of(one) for one in servers} == {"fake-2"}
        assert place.host_of(stays) == "fake-3"
        services = [dict(one) for one in place.cloud.compute.services.values() if one["host"] == "fake-1"]
        assert {(one["status"], one["disabled_reason"]) for one in services} == {("disabled", "watcher_maintaining")}
        actions = (await place.good("GET", f"/v1/actions/detail?action_plan_uuid={plan['uuid']}"))["actions"]
        assert {one["state"] for one in actions} == {"SUCCEEDED"}
        assert sum(one["action_type"] == "migrate" for one in actions) == 3
        # Everything of it is an object that can be watched, and the trigger stands on the plan.
        headers = {"X-Auth-Token": place.cloud.token("admin")}
        url = f"{place.main_url}/apis/vedette.dev/v1/actionplans/{plan['uuid']}"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            served = await answer.json()
        assert served["status"]["trigger"][0]["alarm"] == ALARM
        assert served["status"]["trigger"][0]["objects"] == ["fake-1"]
        assert served["status"]["state"] == "SUCCEEDED"


async def test_a_plan_that_fails_half_way_is_rolled_back(tmp_path: Path) -> None:
    audits = {"policy": "rollback", "parallel": 1}
    async with optimizing(tmp_path, audits=audits) as place:
        servers = [place.server("fake-1") for _ in range(3)]
        await place.resynced()
        # Whichever of them comes last.
        place.cloud.compute.moves.fails.add(max(servers))
        plan = await maintained(place, servers)
        assert plan["state"] == "FAILED"
        assert {place.host_of(one) for one in servers} == {"fake-1"}
        assert {one["status"] for one in place.cloud.compute.services.values() if one["host"] == "fake-1"} == {"enabled"}


async def test_five_triggers_each_have_their_effect(tmp_path: Path) -> None:
    """One after another; as fast as possible on one connection; at once on five: no 4xx, and a run began after each."""
    async with optimizing(tmp_path) as place:
        audit = await an_audit(place, "e", "dummy", "dummy")
        url, headers = f"{place.url}/v1/webhooks/e", {"X-Auth-Token": place.cloud.token("admin")}

        async def one(session: aiohttp.ClientSession, n: int) -> None:
            async with session.post(url, json={"n": n}, headers=headers) as answer:
                assert answer.status == 202, await answer.text()

        async def seen(last: int) -> list[int]:
            async def all_there() -> list[int]:
                token = {"X-Auth-Token": place.cloud.token("admin")}
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(f"{place.main_url}/apis/vedette.dev/v1/actionplans", headers=token) as answer,
                ):
                    plans = (await answer.json())["items"]
                found = [trigger["alarm"]["n"] for plan in plans for trigger in plan["status"]["trigger"]]
                return found if len(found) > last else []

            found: list[int] = await place.until(all_there)
            return sorted(found)

        async with aiohttp.ClientSession() as session:
            for n in range(5):
                await one(session, n)
                await place.audit_in("e", "SUCCEEDED")
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            for n in range(5, 10):
                await one(session, n)
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            for n in range(10, 15):
                group.create_task(one(session, n))
        assert await seen(14) == list(range(15))
        await place.audit_in("e", "SUCCEEDED")
        assert (await place.good("GET", f"/v1/audits/{audit['uuid']}"))["state"] == "SUCCEEDED"


async def test_a_rule_sets_an_audit_off_without_http(tmp_path: Path) -> None:
    """A33: three failed live migrations of one host within a minute."""
    rule = {
        "name": "migrations-fail",
        "audit": "look",
        "on": {"types": "compute.instance.live_migration.*rollback.end"},
        "window": {"group_by": ["event.payload.host"], "accumulate_within": "60s", "threshold": 3},
    }
    async with optimizing(tmp_path, audits={"rules": [rule]}) as place:
        audit = await an_audit(place, "look", "dummy", "dummy")
        servers = [place.server("fake-1") for _ in range(3)]
        others = [place.server("fake-2") for _ in range(2)]
        for id_ in (*servers[:2], *others):
            place.cloud.compute.say(id_, "live_migration._rollback.end")
        await asyncio.sleep(0.3)
        assert await place.plans_of(audit["uuid"]) == []
        place.cloud.compute.say(servers[2], "live_migration._rollback.end")

        async def ran() -> Any:
            return await place.plans_of(audit["uuid"])

        await place.until(ran)
        headers = {"X-Auth-Token": place.cloud.token("admin")}
        url = f"{place.main_url}/apis/vedette.dev/v1/actionplans"
        async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
            (plan,) = (await answer.json())["items"]
        (trigger,) = plan["status"]["trigger"]
        assert (trigger["cause"], trigger["rule"]) == ("rule", "migrations-fail")
        assert set(trigger["objects"]) >= {servers[2], "fake-1"}


async def test_audits_and_plans_go_on_after_a_restart(tmp_path: Path) -> None:
    from vedette.kit.clock import SystemClock

    async with FakeCloud(SystemClock()) as cloud:
        async with optimizing(tmp_path, cloud=cloud) as place:
            servers = [place.server("fake-1") for _ in range(2)]
            await place.resynced()
            cloud.compute.moves.seconds = 0.5
            audit = await an_audit(
                place,
                "empty-it",
                "host_maintenance",
                "cluster_maintaining",
                parameters={"maintenance_node": "fake-1", "backup_node": "fake-2"},
                auto_trigger=True,
            )
            await place.ask("POST", "/v1/webhooks/empty-it", ALARM)

            async def moving() -> bool:
                return any(cloud.compute.servers[one]["status"] == "MIGRATING" for one in servers)

            await place.until(moving)
        async with optimizing(tmp_path, cloud=cloud) as place:
            (plan,) = await place.plans_of(audit["uuid"])
            plan = await place.plan_in(plan["uuid"], "SUCCEEDED", "FAILED", "CANCELLED")
            assert plan["state"] == "SUCCEEDED", plan
            assert {place.host_of(one) for one in servers} == {"fake-2"}
            assert all(cloud.compute.moves.asked["os-migrateLive", one] == 1 for one in servers)


@pytest.mark.parametrize("auth", [True, False])
async def test_who_may_trigger(tmp_path: Path, auth: bool) -> None:
    """A4, A26."""
    async with optimizing(tmp_path, audits={"enable_webhooks_auth": auth}) as place:
        place.cloud.user("alarms", project="service", roles=("service",))
        await an_audit(place, "e", "dummy", "dummy")
        hook = "/v1/webhooks/e"
        assert (await place.ask("POST", hook, ALARM, user="alarms"))[0] == 202
        status, said = await place.ask("POST", hook, ALARM, user="demo")
        assert status == (403 if auth else 202)
        if auth:
            assert "Policy doesn't allow webhook:trigger" in json.loads(said["error_message"])["faultstring"]
        assert (await place.ask("POST", hook, ALARM, user=""))[0] == (401 if auth else 202)
        # Nothing else is open, whatever the option says.
        for method, path in (("GET", "/v1/audits"), ("POST", "/v1/audits"), ("GET", hook), ("DELETE", "/v1/audits/e")):
            assert (await place.ask(method, path, user=""))[0] == 401
            assert (await place.ask(method, path, user="demo"))[0] in (403, 405)
        assert (await place.ask("POST", "/v1/audits", {}, user="alarms"))[0] == 403


async def test_dry_run_looks_and_does_nothing(tmp_path: Path) -> None:
    async with optimizing(tmp_path, audits={"dry_run": True}) as place:
        servers = [place.server("fake-1") for _ in range(2)]
        await place.resynced()
        plan = await maintained(place, servers)
        assert plan["state"] == "SUCCEEDED"
        actions = (await place.good("GET", f"/v1/actions/detail?action_plan_uuid={plan['uuid']}"))["actions"]
        assert {one["state"] for one in actions} == {"SKIPPED"}
        assert place.cloud.compute.moves.asked.total() == 0
        assert SECONDS
