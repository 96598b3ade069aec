"""`vedette audits` and `vedette plans` against a whole service."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from optimizing import Place, optimizing
from typer.testing import CliRunner, Result

from vedette.cli import app
from vedette.model.audit import ActionPlan


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with optimizing(tmp_path, audits={"approval": True}) as place:
        yield place


async def run(place: Place, *words: str, user: str = "admin") -> Result:
    environ = {"VEDETTE_URL": place.main_url, "VEDETTE_TOKEN": place.cloud.token(user)}
    return await asyncio.to_thread(CliRunner().invoke, app, list(words), env=environ)


async def done(place: Place, *words: str) -> str:
    result = await run(place, *words)
    assert result.exit_code == 0, (words, result.output, result.stderr)
    return result.stdout + result.stderr


async def made(place: Place, **more: Any) -> Any:
    body = {"name": "hot-hosts", "audit_type": "EVENT", "goal": "dummy", "strategy": "dummy", **more}
    return await place.good("POST", "/v1/audits", body)


async def test_from_a_trigger_to_an_approved_plan(place: Place) -> None:
    audit = await made(place, auto_trigger=True)
    assert "hot-hosts" in await done(place, "audits")
    assert "Audit hot-hosts is triggered" in await done(place, "audits", "trigger", "hot-hosts")
    await place.audit_in("hot-hosts", "SUCCEEDED")
    (plan,) = await place.plans_of(audit["uuid"])
    plan = await place.plan_in(plan["uuid"], "PENDING")

    async def waits() -> bool:
        return "approval" in str((await place.good("GET", f"/v1/action_plans/{plan['uuid']}"))["status_message"])

    await place.until(waits)
    assert "PENDING" in await done(place, "plans")
    shown = await done(place, "plans", "show", plan["uuid"])
    assert "Set off by user" in shown
    assert "nop" in shown
    assert "sleep" in shown
    assert "approved by admin" in await done(place, "plans", "approve", plan["uuid"])
    await place.plan_in(plan["uuid"], "SUCCEEDED")
    assert "SUCCEEDED" in await done(place, "plans", "show", plan["uuid"])
    refused = await run(place, "plans", "approve", plan["uuid"])
    assert refused.exit_code == 1
    assert "is SUCCEEDED: only one that was not begun can be approved" in refused.stderr
    assert (await run(place, "plans", "start", plan["uuid"])).exit_code == 1


async def test_replay_shows_actions_and_does_nothing(place: Place) -> None:
    await made(place)
    head = place.service.store.head if place.service.store else 0
    assert "3 actions. Nothing was done." in await done(place, "audits", "replay", "hot-hosts")
    told = json.loads((await run(place, "audits", "replay", "hot-hosts", "-o", "json")).stdout)
    assert [one["action_type"] for one in told["actions"]] == ["nop", "nop", "sleep"]
    assert (await run(place, "audits", "replay", "hot-hosts", "--at", "1h")).exit_code in (0, 1)
    assert place.service.store is not None
    assert place.service.records is not None
    assert place.service.records.all(ActionPlan) == []
    assert place.service.store.head >= head
    missing = await run(place, "audits", "replay", "nothing")
    assert missing.exit_code == 1
    assert "could not be found" in missing.stderr


async def test_a_plan_is_cancelled_and_a_tenant_may_nothing(place: Place) -> None:
    audit = await made(place)
    await done(place, "audits", "trigger", "hot-hosts")
    await place.audit_in("hot-hosts", "SUCCEEDED")
    (plan,) = await place.plans_of(audit["uuid"])
    for words in (("audits", "trigger", "hot-hosts"), ("plans", "cancel", plan["uuid"]), ("audits", "replay", "hot-hosts")):
        refused = await run(place, *words, user="demo")
        assert refused.exit_code == 1
        assert "admin" in refused.stderr
    assert "is CANCELLED" in await done(place, "plans", "cancel", plan["uuid"])


async def test_what_was_deleted_is_purged(place: Place) -> None:
    await made(place)
    await place.good("PATCH", "/v1/audits/hot-hosts", [{"op": "replace", "path": "/state", "value": "CANCELLED"}])
    await place.good("DELETE", "/v1/audits/hot-hosts")
    gone = await place.good("GET", "/v1/audits", **{"X-Show-Deleted": "true"})
    assert [one["name"] for one in gone["audits"]] == ["hot-hosts"]
    headers = {"X-Auth-Token": place.cloud.token("admin")}
    async with aiohttp.ClientSession() as session:
        for body, counts in (({"before": "1h"}, {}), ({"before": "2099-01-01T00:00:00Z"}, {"Audit": 1})):
            async with session.post(f"{place.main_url}/v1/audits/purge", json=body, headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                assert await answer.json() == counts
    gone = await place.good("GET", "/v1/audits", **{"X-Show-Deleted": "true"})
    assert gone["audits"] == []
