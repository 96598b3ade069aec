"""The real `python-watcherclient` against a whole service: each resource and each verb, with a Keystone that knows us."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1 import session as sessions
from keystoneauth1.identity import v3
from optimizing import Place, optimizing
from watcherclient import client as watcher
from watcherclient.common.apiclient import exceptions


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with optimizing(tmp_path) as place:
        yield place


def signed_in(place: Place, user: str = "admin") -> Any:
    who = place.cloud.credentials(user)
    auth = v3.Password(
        auth_url=who["auth_url"],
        username=who["username"],
        password=who["password"],
        user_domain_id="default",
        project_id=who["project_id"],
    )
    return watcher.get_client("1", session=sessions.Session(auth=auth), os_infra_optim_api_version="1.7")


async def in_thread(work: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(work)


async def test_every_resource_and_every_verb(place: Place) -> None:
    client = await in_thread(lambda: signed_in(place))

    def reading() -> None:
        goals = client.goal.list()
        assert {goal.name for goal in goals} >= {"dummy", "server_consolidation", "workload_balancing"}
        assert len(goals) == 10
        assert client.goal.get("dummy").uuid == next(goal.uuid for goal in goals if goal.name == "dummy")
        strategies = client.strategy.list(goal="dummy")
        assert {one.name for one in strategies} == {"dummy", "dummy_with_scorer", "dummy_with_resize"}
        assert client.strategy.get("dummy").parameters_spec["properties"]["para1"]["default"] == 3.2
        state = client.strategy.state("dummy")
        assert {one.type for one in state} == {"Datasource", "Metrics", "CDM", "Name"}
        assert {one.name for one in client.scoring_engine.list()} >= {"dummy_scorer"}
        services = client.service.list(detail=True)
        assert {(one.name, one.status) for one in services} == {
            ("watcher-decision-engine", "ACTIVE"),
            ("watcher-applier", "ACTIVE"),
        }
        assert client.service.get(1).name == "watcher-decision-engine"
        model = client.data_model.list()
        assert {row["node_hostname"] for row in model.to_dict()["context"]} == {"fake-1", "fake-2", "fake-3"}

    await in_thread(reading)

    def template() -> Any:
        made = client.audit_template.create(name="t1", goal="dummy", strategy="dummy", description="a first one")
        changed = client.audit_template.update("t1", [{"op": "replace", "path": "/description", "value": "another"}])
        assert changed.description == "another"
        assert [one.name for one in client.audit_template.list()] == ["t1"]
        return made

    made = await in_thread(template)
    audit = await in_thread(lambda: client.audit.create(name="a1", audit_type="ONESHOT", audit_template_uuid=made.uuid))
    assert (audit.audit_type, audit.goal_name, audit.strategy_name) == ("ONESHOT", "dummy", "dummy")
    assert audit.parameters == {"para1": 3.2, "para2": "hello"}
    await place.audit_in("a1", "SUCCEEDED")

    def plan_of() -> Any:
        (plan,) = client.action_plan.list(audit=audit.uuid)
        actions = client.action.list(action_plan=plan.uuid, detail=True)
        assert {one.action_type for one in actions} == {"nop", "sleep"}
        assert client.action.get(actions[0].uuid).state == "PENDING"
        return plan

    plan = await in_thread(plan_of)
    assert plan.state == "RECOMMENDED"
    assert (await in_thread(lambda: client.action_plan.start(plan.uuid))).state in ("PENDING", "ONGOING")
    await place.plan_in(plan.uuid, "SUCCEEDED")

    def ending() -> None:
        assert {one.state for one in client.action.list(action_plan=plan.uuid)} == {"SUCCEEDED"}
        client.action_plan.delete(plan.uuid)
        with pytest.raises(exceptions.NotFound):
            client.action_plan.get(plan.uuid)
        client.audit.delete("a1")
        client.audit_template.delete("t1")
        assert client.audit.list() == []
        assert client.audit_template.list() == []

    await in_thread(ending)


async def test_what_is_refused_has_watchers_words(place: Place) -> None:
    client = await in_thread(lambda: signed_in(place))

    def said(work: Callable[[], Any]) -> str:
        with pytest.raises(Exception) as caught:
            work()
        return str(caught.value)

    def asked() -> None:
        assert "Audit type NEVER could not be found" in said(lambda: client.audit.create(audit_type="NEVER", goal="dummy"))
        assert "could not be found" in said(lambda: client.audit.get("nothing"))
        assert "Interval of audit must be specified for CONTINUOUS." in said(
            lambda: client.audit.create(audit_type="CONTINUOUS", goal="dummy")
        )

    await in_thread(asked)
    tenant = await in_thread(lambda: signed_in(place, "demo"))
    assert "Policy doesn't allow audit:get_all to be performed." in await in_thread(lambda: said(lambda: tenant.audit.list()))


@pytest.mark.parametrize("command", [("watcher",), ("openstack", "optimize")])
async def test_the_command_line(place: Place, command: tuple[str, ...]) -> None:
    """`watcher`, which comes with the client, and python-openstackclient's `openstack`, whose plugin it is."""
    program, *before = command
    environ = {"PATH": str(Path(sys.executable).parent), **place.cloud.environ(), "OS_INFRA_OPTIM_API_VERSION": "1.7"}

    def run(*arguments: str) -> Any:
        whole = [str(Path(sys.executable).parent / program), *before, *arguments]
        done = subprocess.run(whole, env=environ, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, (whole, done.stdout, done.stderr)
        return json.loads(done.stdout) if "-f" in arguments else done.stdout

    def reading() -> None:
        assert "dummy" in {row["Name"] for row in run("goal", "list", "-f", "json")}
        assert len(run("strategy", "state", "dummy", "-f", "json")) == 4
        assert "dummy_scorer" in {row["Name"] for row in run("scoringengine", "list", "-f", "json")}
        assert {row["Status"] for row in run("service", "list", "-f", "json")} == {"ACTIVE"}

    await in_thread(reading)
    await in_thread(lambda: run("audittemplate", "create", "t1", "dummy", "-s", "dummy"))
    audit = await in_thread(lambda: run("audit", "create", "-a", "t1", "-t", "ONESHOT", "--name", "cli", "-f", "json"))
    assert (audit["Name"], audit["Strategy"]) == ("cli", "dummy")
    await place.audit_in("cli", "SUCCEEDED")
    (plan,) = await in_thread(lambda: run("actionplan", "list", "--audit", audit["UUID"], "-f", "json"))
    assert plan["State"] == "RECOMMENDED"
    await in_thread(lambda: run("actionplan", "start", plan["UUID"]))
    await place.plan_in(plan["UUID"], "SUCCEEDED")

    def ending() -> None:
        actions = run("action", "list", "--action-plan", plan["UUID"], "-f", "json")
        assert {row["State"] for row in actions} == {"SUCCEEDED"}
        run("actionplan", "delete", plan["UUID"])
        run("audit", "delete", "cli")
        assert run("audit", "list", "-f", "json") == []

    await in_thread(ending)
