"""compat/infra_optim.py, table by table: what Watcher's API takes, refuses and shows. (No engine: states are written by hand.)"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from auditing import Asked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.api.server import IDENTITY
from vedette.compat.infra_optim import OptimNeeds, face
from vedette.engine.catalogue import id_of, sync
from vedette.engine.records import Records
from vedette.errors import BadRequest, StoreUnavailable, TooBusy, Unauthenticated
from vedette.model.advice import Trigger
from vedette.model.audit import (
    ACTION,
    AUDIT,
    AUDIT_DELETABLE,
    PLAN_BY_USER,
    PLAN_DELETABLE,
    Action,
    ActionPlan,
    Audit,
    GoalRecord,
    StrategyRecord,
)
from vedette.ports import EVERYTHING, Identity, Scope, Strategy
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock

WHO: Mapping[str, Identity] = {
    "admin": Identity(name="admin", scope=EVERYTHING, key="a", roles=frozenset({"admin"})),
    "administrator": Identity(name="b", scope=Scope(), key="b", roles=frozenset({"Administrator"})),
    "service": Identity(name="s", scope=Scope(), key="s", roles=frozenset({"service"})),
    "reader": Identity(name="r", scope=EVERYTHING, key="r", roles=frozenset({"reader"}), reads_only=True),
    "member": Identity(name="m", scope=Scope(projects=frozenset({"p"})), key="m", roles=frozenset({"member"})),
}
STRICT = Strategy(
    name="strict",
    display_name="Strict",
    goal="dummy",
    doc="",
    schema={
        "properties": {
            "threshold": {"type": "number", "minimum": 1, "maximum": 100, "default": 35},
            "host": {"type": "string"},
        },
    },
    propose=Asked().strategy.propose,
)
OTHER = msgspec.structs.replace(Asked("other").strategy, goal="unclassified")


class Place:
    def __init__(self, client: TestClient[Any, Any], records: Records, prefix: str) -> None:
        self.client = client
        self.records = records
        self.prefix = prefix
        self.triggered: list[tuple[str, Trigger]] = []
        self.trouble: Exception | None = None

    async def trigger(self, ident: str, trigger: Trigger) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.triggered.append((ident, trigger))

    async def ask(
        self, method: str, path: str, body: Any = None, *, who: str = "admin", version: str = "1.7", **headers: str
    ) -> tuple[int, Any, Mapping[str, str]]:
        """(status, body or the fault's text, headers)"""
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        sent = {"X-Who": who, **({"OpenStack-API-Version": f"infra-optim {version}"} if version else {}), **headers}
        async with self.client.request(method, self.prefix + path, data=data, headers=sent) as answer:
            raw = await answer.read()
            found = json.loads(raw) if raw else None
            if answer.status >= 400:
                found = json.loads(found["error_message"])["faultstring"]
            return answer.status, found, answer.headers

    async def good(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        status, found, _ = await self.ask(method, path, body, **more)
        assert status < 300, (status, found)
        return found

    async def audit(self, state: str = "PENDING", kind: str = "EVENT", name: str = "a") -> Audit:
        audit = Audit(
            uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, name)),
            name=name,
            audit_type=kind,  # type: ignore[arg-type]
            goal_uuid=id_of(GoalRecord, "dummy"),
            goal_name="dummy",
            state=state,  # type: ignore[arg-type]
        )
        (kept,) = await self.records.write([audit])
        assert isinstance(kept, Audit)
        return kept

    async def plan(self, state: str = "RECOMMENDED", audit: str = "a", action: str = "PENDING") -> tuple[ActionPlan, Action]:
        plan = ActionPlan(
            uuid=str(uuid.uuid4()),
            audit_uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, audit)),
            strategy_uuid=id_of(StrategyRecord, "dummy"),
            strategy_name="dummy",
            state=state,  # type: ignore[arg-type]
        )
        step = Action(
            uuid=str(uuid.uuid4()),
            action_plan_uuid=plan.uuid,
            audit_uuid=plan.audit_uuid,
            action_type="nop",
            state=action,  # type: ignore[arg-type]
        )
        await self.records.write([plan, step])
        return plan, step


@asynccontextmanager
async def placed(prefix: str = "", auth: bool = True) -> AsyncIterator[Place]:
    clock = FakeClock()
    records = Records(MemoryStore(clock), clock, "here")
    await records.load()
    dummy = Asked("dummy").strategy
    await sync(
        records,
        {one.name: one for one in (dummy, STRICT, OTHER)},
        [{"name": "dummy_scorer", "description": "scores", "metainfo": ""}],
    )
    found: list[Place] = []

    async def state(name: str) -> list[dict[str, Any]]:
        return [{"type": "Name", "state": name, "mandatory": "", "comment": ""}]

    async def model(audit: str) -> list[dict[str, Any]]:
        return [{"node_hostname": "h1", "server_pinned_az": "", "server_flavor_extra_specs": {}, "audit": audit}]

    async def trigger(ident: str, said: Trigger) -> None:
        await found[0].trigger(ident, said)

    service = {"name": "watcher-applier", "host": "here", "status": "ACTIVE", "last_seen_up": "2026-11-20T15:19:06Z"}
    needs = OptimNeeds(
        records=records,
        clock=clock,
        trigger=trigger,
        strategy_state=state,
        data_model=model,
        services=lambda: [{"id": 1, **service}],
        enable_webhooks_auth=auth,
        max_limit=100,
    )
    ours = face(needs, prefix)

    @web.middleware
    async def gate(request: web.Request, handler: Any) -> web.StreamResponse:
        """As api/server.py has it: who asks, and errors in the face's form."""
        try:
            name = request.match_info.route.resource
            if (name.canonical if name else "") not in ours.public:
                if request.headers.get("X-Who") not in WHO:
                    raise Unauthenticated("no token")
                request[IDENTITY] = WHO[request.headers["X-Who"]]
            answer: web.StreamResponse = await handler(request)
            return answer
        except Exception as why:  # noqa: BLE001 - the form of all of them is what is tested
            said = ours.error(request, why)
            assert said is not None
            return said

    app = web.Application(middlewares=[gate])
    app.router.add_routes(ours.routes)
    async with TestClient(TestServer(app)) as client:
        found.append(Place(client, records, prefix))
        yield found[0]


# --- versions and errors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "status", "told"),
    [
        ("", 200, "1.0"),
        ("1", 200, "1.0"),
        ("1.0", 200, "1.0"),
        ("1.5", 200, "1.5"),
        ("1.7", 200, "1.7"),
        ("latest", 200, "1.7"),
        ("1.8", 406, "1.0"),
        ("0.9", 406, "1.0"),
        ("2.0", 406, "1.0"),
        ("x", 406, "1.0"),
    ],
)
async def test_microversions(version: str, status: int, told: str) -> None:
    async with placed() as place:
        found, _, headers = await place.ask("GET", "/v1/audits", version=version)
        assert found == status
        assert headers["OpenStack-API-Version"] == f"infra-optim {told}"
        assert headers["OpenStack-API-Minimum-Version"] == "infra-optim 1.0"
        assert headers["OpenStack-API-Maximum-Version"] == "infra-optim 1.7"
        assert headers["Vary"] == "OpenStack-API-Version"


async def test_what_a_microversion_brings() -> None:
    async with placed() as place:
        await place.audit()
        fields = {
            version: set(await place.good("GET", "/v1/audits/a", version=version)) for version in ("1.0", "1.1", "1.2", "1.5")
        }
        assert fields["1.1"] - fields["1.0"] == {"start_time", "end_time"}
        assert fields["1.2"] - fields["1.1"] == {"force"}
        assert fields["1.5"] - fields["1.2"] == {"status_message"}
        await place.good("POST", "/v1/audit_templates", {"name": "t", "goal": "dummy"})
        assert "default_parameters" not in await place.good("GET", "/v1/audit_templates/t", version="1.6")
        assert "default_parameters" in await place.good("GET", "/v1/audit_templates/t", version="1.7")
        assert (await place.ask("GET", "/v1/data_model", version="1.2"))[0] == 406
        (row,) = (await place.good("GET", "/v1/data_model", version="1.5"))["context"]
        assert set(row) == {"node_hostname", "audit"}
        (row,) = (await place.good("GET", "/v1/data_model?audit_uuid=a", version="1.6"))["context"]
        assert row["audit"] == (await place.audit(name="a")).uuid
        root = await place.good("GET", "/v1", version="1.2")
        assert {"data_model", "webhooks"}.isdisjoint(root)
        assert {"data_model", "webhooks", "audits", "goals"} <= set(await place.good("GET", "/v1", version="1.4"))


@pytest.mark.parametrize("prefix", ["", "/infra-optim"])
async def test_links_are_as_the_caller_reached_us(prefix: str) -> None:
    async with placed(prefix) as place:
        made, _, headers = (await place.ask("POST", "/v1/audits", {"audit_type": "EVENT", "goal": "dummy"}))[0:3]
        assert made == 201
        assert f"{prefix}/v1/audits/" in headers["Location"]
        audit = (await place.good("GET", "/v1/audits"))["audits"][0]
        assert [link["rel"] for link in audit["links"]] == ["self", "bookmark"]
        assert audit["links"][0]["href"].endswith(f"{prefix}/v1/audits/{audit['uuid']}")
        assert audit["links"][1]["href"].endswith(f"{prefix}/audits/{audit['uuid']}")
        root = await place.good("GET", "/" if not prefix else "")
        assert root["default_version"]["id"] == "v1"


async def test_errors_have_watchers_form() -> None:
    async with placed() as place:
        async with place.client.get("/v1/audits/nothing", headers={"X-Who": "admin"}) as answer:
            body = await answer.json()
        assert answer.status == 404
        assert json.loads(body["error_message"]) == {
            "faultcode": "Client",
            "faultstring": "Audit nothing could not be found",
            "debuginfo": None,
        }
        assert (await place.ask("GET", "/v1/nothing"))[0] == 404
        assert (await place.ask("PUT", "/v1/audits"))[0] == 405
        assert (await place.ask("POST", "/v1/audits", b"{"))[:2] == (400, "Request is not in valid JSON format")
        assert (await place.ask("GET", "/v1/audits", who="nobody"))[0] == 401


# --- who may ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "reads", "writes", "triggers"),
    [
        ("admin", 200, 201, 202),
        ("administrator", 200, 201, 202),
        ("reader", 200, 403, 403),
        ("service", 403, 403, 202),
        ("member", 403, 403, 403),
        ("nobody", 401, 401, 401),
    ],
)
async def test_roles(who: str, reads: int, writes: int, triggers: int) -> None:
    """A26, and nothing for a tenant."""
    async with placed() as place:
        await place.audit()
        assert (await place.ask("GET", "/v1/audits", who=who))[0] == reads
        assert (await place.ask("POST", "/v1/audits", {"audit_type": "EVENT", "goal": "dummy"}, who=who))[0] == writes
        assert (await place.ask("POST", "/v1/webhooks/a", who=who))[0] == triggers


async def test_a_tenant_gets_nothing_on_any_route() -> None:
    async with placed() as place:
        await place.audit()
        routes = {(route.method, route.resource.canonical) for route in place.client.app.router.routes() if route.resource}
        assert len(routes) > 70
        for method, path in sorted(routes):
            if path == "/" or method == "HEAD":
                continue
            status, said, _ = await place.ask(method, path.replace("{ident}", "a"), [], who="member")
            assert status == 403, (method, path, status)
            assert said.startswith("Policy doesn't allow ")


# --- audits ----------------------------------------------------------------------------------------------------------------

GOOD = {"audit_type": "ONESHOT", "goal": "dummy"}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({}, 400, "audit_type"),
        ({"audit_type": "NEVER", "goal": "dummy"}, 400, "Audit type NEVER could not be found"),
        ({"audit_type": "ONESHOT"}, 400, "A valid goal or audit_template_id must be provided"),
        ({**GOOD, "audit_template_uuid": "t"}, 400, "Either audit_template_uuid or goal should be provided."),
        ({"audit_type": "ONESHOT", "audit_template_uuid": "x"}, 400, "The audit template UUID or name specified is invalid"),
        ({"audit_type": "ONESHOT", "goal": "nothing"}, 400, "Goal nothing is invalid"),
        ({**GOOD, "strategy": "nothing"}, 400, "Strategy nothing is invalid"),
        ({**GOOD, "strategy": "other"}, 400, "Strategy other does not serve the goal dummy"),
        ({**GOOD, "interval": "60"}, 400, "Interval of audit must not be set for ONESHOT."),
        ({**GOOD, "audit_type": "CONTINUOUS"}, 400, "Interval of audit must be specified for CONTINUOUS."),
        ({**GOOD, "start_time": "2026-01-01T00:00:00"}, 400, "Start or End time of audit must not be set for ONESHOT."),
        ({**GOOD, "audit_type": "EVENT", "interval": 60}, 400, "must not be set for EVENT"),
        ({**GOOD, "audit_type": "CONTINUOUS", "interval": "* * *"}, 400, "interval"),
        ({**GOOD, "audit_type": "CONTINUOUS", "interval": "61 * * * *"}, 400, "interval"),
        ({**GOOD, "audit_type": "CONTINUOUS", "interval": "0"}, 400, "interval"),
        ({**GOOD, "audit_type": "CONTINUOUS", "interval": "60", "start_time": "soon"}, 400, "start_time"),
        ({**GOOD, "parameters": {"a": 1}}, 400, "Specify parameters but no predefined strategy"),
        ({**GOOD, "strategy": "strict", "parameters": {"nothing": 1}}, 400, "Invalid parameters for strategy"),
        ({**GOOD, "strategy": "strict", "parameters": {"threshold": 0}}, 400, "threshold: 0 is less than the minimum of 1"),
        ({**GOOD, "state": "ONGOING"}, 400, "read only"),
        ({**GOOD, "scope": [{"compute": []}]}, 400, "read only"),
        ({**GOOD, "hostname": "h"}, 400, "read only"),
        ({**GOOD, "nothing": 1}, 400, "Unknown attribute"),
        ({**GOOD, "name": 5}, 400, "name"),
        ({**GOOD, "name": "x" * 64}, 400, "at most 63 characters"),
        ({**GOOD, "auto_trigger": "yes"}, 400, "auto_trigger"),
        ([], 400, "not a JSON object"),
    ],
)
async def test_audits_that_are_refused(body: Any, status: int, said: str) -> None:
    async with placed() as place:
        found, why, _ = await place.ask("POST", "/v1/audits", body)
        assert (found, said in why) == (status, True), why
        assert place.records.all(Audit) == []


async def test_audits_that_are_taken() -> None:
    async with placed() as place:
        made = await place.good("POST", "/v1/audits", {**GOOD, "strategy": "strict", "name": "one", "auto_trigger": True})
        assert (made["state"], made["audit_type"], made["name"]) == ("PENDING", "ONESHOT", "one")
        assert (made["goal_name"], made["strategy_name"], made["auto_trigger"]) == ("dummy", "strict", True)
        assert made["parameters"] == {"threshold": 35}
        assert (made["updated_at"], made["deleted_at"], made["force"]) == (None, None, False)
        assert made["created_at"] == "2026-11-20T15:19:06+00:00"
        again = await place.ask("POST", "/v1/audits", {**GOOD, "name": "one"})
        assert again[:2] == (409, "An audit with UUID or name one already exists")
        named = await place.good("POST", "/v1/audits", {**GOOD, "strategy": "strict"})
        assert named["name"].startswith("strict-2026-11-20T15:19:06")
        cron = {**GOOD, "audit_type": "CONTINUOUS", "interval": "*/5 * * * *", "start_time": "2026-12-01T00:00:00+01:00"}
        made = await place.good("POST", "/v1/audits", cron)
        assert (made["interval"], made["start_time"]) == ("*/5 * * * *", "2026-11-30T23:00:00+00:00")
        seconds = await place.good("POST", "/v1/audits", {**GOOD, "audit_type": "CONTINUOUS", "interval": 60})
        assert seconds["interval"] == "60"
        assert (await place.ask("POST", "/v1/audits", {**GOOD, "force": True}, version="1.1"))[0] == 406
        assert (await place.ask("POST", "/v1/audits", {**cron, "name": "c"}, version="1.0"))[0] == 406


async def test_a_template_gives_goal_strategy_scope_and_parameters() -> None:
    """A14."""
    scope = [{"storage": [{"availability_zones": [{"name": "nova"}]}]}]
    async with placed() as place:
        template = {"name": "t", "goal": "dummy", "strategy": "strict", "scope": scope, "default_parameters": {"host": "h1"}}
        made = await place.good("POST", "/v1/audit_templates", template)
        assert (made["goal_name"], made["strategy_name"], made["scope"]) == ("dummy", "strict", scope)
        body = {"audit_type": "EVENT", "audit_template_uuid": made["uuid"], "parameters": {"threshold": 50}}
        audit = await place.good("POST", "/v1/audits", body)
        assert audit["parameters"] == {"threshold": 50, "host": "h1"}
        assert audit["scope"] == scope
        assert audit["name"].startswith("strict-")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"goal": "dummy"}, 400, "name"),
        ({"name": "t"}, 400, "goal"),
        ({"name": "t", "goal": "x"}, 400, "Goal x is invalid"),
        ({"name": "t", "goal": "dummy", "strategy": "other"}, 400, "Possible choices: dummy, strict"),
        ({"name": "t", "goal": "dummy", "description": "x" * 256}, 400, "at most 255 characters"),
        ({"name": "t", "goal": "dummy", "scope": [{"compute": [{"nothing": 1}]}]}, 400, "scope"),
        (
            {
                "name": "t",
                "goal": "dummy",
                "scope": [
                    {"compute": [{"host_aggregates": [{"id": 1}]}, {"exclude": [{"host_aggregates": [{"id": 2}]}]}]},
                ],
            },
            400,
            "host_aggregates",
        ),
        ({"name": "t", "goal": "dummy", "default_parameters": {"a": 1}}, 400, "requires a strategy"),
        ({"name": "t", "goal": "dummy", "strategy": "strict", "default_parameters": {"a": 1}}, 400, "default_parameters"),
        ({"name": "there", "goal": "dummy"}, 409, "already exists"),
    ],
)
async def test_templates_that_are_refused(body: Any, status: int, said: str) -> None:
    async with placed() as place:
        await place.good("POST", "/v1/audit_templates", {"name": "there", "goal": "dummy"})
        found, why, _ = await place.ask("POST", "/v1/audit_templates", body)
        assert (found, said in why) == (status, True), why


async def test_templates_are_changed_and_deleted() -> None:
    async with placed() as place:
        body = {"name": "t", "goal": "dummy", "strategy": "strict", "default_parameters": {"threshold": 50}}
        await place.good("POST", "/v1/audit_templates", body)
        at = "/v1/audit_templates/t"
        changed = await place.good("PATCH", at, [{"op": "replace", "path": "/description", "value": "why"}])
        assert changed["description"] == "why"
        # The parameters are those of the present strategy.
        moved = [{"op": "replace", "path": "/strategy", "value": "dummy"}]
        assert (await place.ask("PATCH", at, moved))[0] == 409
        both = [*moved, {"op": "replace", "path": "/default_parameters", "value": {}}]
        assert (await place.good("PATCH", at, both))["strategy_name"] == "dummy"
        assert (await place.ask("PATCH", at, [{"op": "remove", "path": "/goal"}]))[0] == 400
        assert (await place.ask("PATCH", at, [{"op": "replace", "path": "/uuid", "value": "x"}]))[0] == 400
        assert (await place.ask("DELETE", at))[0] == 204
        assert (await place.ask("GET", at))[0] == 404


STATES = ("PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLED", "SUSPENDED")


@pytest.mark.parametrize("before", STATES)
async def test_states_of_an_audit(before: str) -> None:
    """§2.3, from every state to every state."""
    async with placed() as place:
        for number, after in enumerate((*STATES, "DELETED", "NOTHING")):
            audit = await place.audit(before, name=f"a{number}")
            patch = [{"op": "replace", "path": "/state", "value": after}]
            status, said, _ = await place.ask("PATCH", f"/v1/audits/{audit.name}", patch)
            allowed = (after in AUDIT.get(before, ()) and after != "DELETED") or after == before
            assert status == (200 if allowed else 400), (before, after, said)
            if not allowed and after != "DELETED":
                assert f"State transition not allowed: ({before} -> {after})" in said
            assert place.records.get(Audit, audit.uuid).state == (after if allowed else before)
        there = await place.audit(before, name="gone")
        status, said, _ = await place.ask("DELETE", "/v1/audits/gone")
        assert status == (204 if before in AUDIT_DELETABLE else 400)
        if status == 400:
            assert said == f"Couldn't delete when state is '{before}'."
            assert place.records.get(Audit, there.uuid).state == before


@pytest.mark.parametrize(
    ("patch", "said"),
    [
        ([{"op": "replace", "path": "/audit_template_uuid", "value": "x"}], "can't be updated"),
        ([{"op": "replace", "path": "/type", "value": "x"}], "can't be updated"),
        ([{"op": "replace", "path": "/state", "value": None}], "/state can't be updated."),
        ([{"op": "remove", "path": "/state"}], "/state can't be updated."),
        ([{"op": "remove", "path": "/name"}], "'/name' is a mandatory attribute and can not be removed"),
        ([{"op": "remove", "path": "/goal"}], "'/goal' is a mandatory attribute and can not be removed"),
        ([{"op": "replace", "path": "/goal", "value": None}], "'/goal' is a mandatory attribute and can not be removed"),
        ([{"op": "replace", "path": "/status_message", "value": "x"}], "internal attribute"),
        ([{"op": "replace", "path": "/created_at", "value": "x"}], "internal attribute"),
        ([{"op": "add", "path": "/nothing", "value": "x"}], "not allowed"),
        ([{"op": "replace", "path": "/nothing", "value": "x"}], "Couldn't apply patch"),
        ([{"op": "move", "path": "/name", "value": "x"}], "op"),
        ([{"op": "replace", "path": "name", "value": "x"}], "path"),
        ([{"op": "replace", "path": "/name"}], "needs value"),
        ([{"op": "replace", "path": "/interval", "value": "60"}], "must not be set for EVENT"),
        ([{"op": "replace", "path": "/goal", "value": "nothing"}], "invalid"),
        ([{"op": "replace", "path": "/scope", "value": [{"x": 1}]}], "scope"),
        ({"op": "replace"}, "list"),
        ([5], "op, path and value"),
        ([{"op": "replace", "path": "/name", "value": "x"}] * 101, "at most 100"),
    ],
)
async def test_patches_of_an_audit_that_are_refused(patch: Any, said: str) -> None:
    async with placed() as place:
        audit = await place.audit()
        status, why, _ = await place.ask("PATCH", "/v1/audits/a", patch)
        assert (status, said in why) == (400, True), why
        assert place.records.get(Audit, audit.uuid) == audit


async def test_patches_of_an_audit_that_are_taken() -> None:
    async with placed() as place:
        await place.audit(kind="CONTINUOUS")
        changed = await place.good(
            "PATCH",
            "/v1/audits/a",
            [
                {"op": "replace", "path": "/interval", "value": "0 * * * *"},
                {"op": "replace", "path": "/name", "value": "b"},
                {"op": "replace", "path": "/end_time", "value": "2027-01-01T00:00:00"},
                {"op": "replace", "path": "/auto_trigger", "value": True},
                {"op": "remove", "path": "/strategy"},
                {"op": "remove", "path": "/parameters"},
            ],
        )
        assert (changed["strategy_uuid"], changed["parameters"]) == (None, {})
        assert (changed["interval"], changed["name"], changed["auto_trigger"]) == ("0 * * * *", "b", True)
        assert changed["end_time"] == "2027-01-01T00:00:00+00:00"
        assert changed["updated_at"] is not None


async def test_whatever_is_removed_or_replaced_by_something_odd_is_the_callers_fault_at_worst() -> None:
    """Every attribute that is shown of each resource."""
    async with placed() as place:
        template = await place.good("POST", "/v1/audit_templates", {"name": "t", "goal": "dummy", "strategy": "dummy"})
        await place.audit()
        plan, step = await place.plan()
        for at in (
            "/v1/audits/a",
            f"/v1/audit_templates/{template['uuid']}",
            f"/v1/action_plans/{plan.uuid}",
            f"/v1/actions/{step.uuid}",
        ):
            names = {"goal", "strategy", *(await place.good("GET", at))}
            for name in sorted(names - {"state"}):
                patches = [{"op": "remove", "path": f"/{name}"}]
                patches += [
                    {"op": "replace", "path": f"/{name}", "value": odd} for odd in (None, 5, "x", [], {}, [5], {"x": []}, True)
                ]
                for patch in patches:
                    status, said, _ = await place.ask("PATCH", at, [patch])
                    assert status < 500, (at, patch, said)
                    if at == "/v1/audits/a" and name == "name" and status == 200:
                        await place.good(
                            "PATCH", f"/v1/audits/{said['name']}", [{"op": "replace", "path": "/name", "value": "a"}]
                        )


# --- lists -----------------------------------------------------------------------------------------------------------------


async def test_pages_sorting_and_filters() -> None:
    """A25."""
    async with placed() as place:
        for name in ("c", "a", "b"):
            await place.audit(name=name, state="FAILED" if name == "a" else "PENDING")

        async def names(query: str = "") -> list[str]:
            return [one["name"] for one in (await place.good("GET", f"/v1/audits{query}"))["audits"]]

        assert await names() == ["c", "a", "b"]
        assert await names("?sort_dir=desc") == ["b", "a", "c"]
        assert await names("?sort_key=name") == ["a", "b", "c"]
        assert await names("?sort_key=name&sort_dir=desc") == ["c", "b", "a"]
        assert await names("?sort_key=state") == ["a", "c", "b"]
        assert await names("?limit=0") == ["c", "a", "b"]
        first = await place.good("GET", "/v1/audits?limit=2&sort_key=name&goal=dummy")
        assert [one["name"] for one in first["audits"]] == ["a", "b"]
        assert "sort_key=name&goal=dummy&limit=2&marker=" in first["next"]
        rest = await place.good("GET", first["next"].partition("/v1")[1] + first["next"].partition("/v1")[2])
        assert [one["name"] for one in rest["audits"]] == ["c"]
        assert "next" not in rest
        assert await names("?goal=unclassified") == []
        assert await names(f"?goal={id_of(GoalRecord, 'dummy')}") == ["c", "a", "b"]
        for query in ("?sort_key=nothing", "?sort_dir=up", "?limit=-1", "?limit=x", "?marker=nothing", "?nothing=1"):
            assert (await place.ask("GET", f"/v1/audits{query}"))[0] == 400, query
        detail = (await place.good("GET", "/v1/audits/detail"))["audits"][0]
        assert {"parameters", "created_at", "hostname"} <= set(detail)
        assert {"parameters", "created_at", "hostname"}.isdisjoint((await place.good("GET", "/v1/audits"))["audits"][0])


async def test_what_was_deleted_is_shown_to_who_asks_for_it() -> None:
    async with placed() as place:
        audit = await place.audit("FAILED")
        await place.good("DELETE", "/v1/audits/a")
        assert (await place.good("GET", "/v1/audits"))["audits"] == []
        (gone,) = (await place.good("GET", "/v1/audits/detail", **{"X-Show-Deleted": "true"}))["audits"]
        assert (gone["uuid"], gone["state"], gone["deleted_at"] is not None) == (audit.uuid, "DELETED", True)
        one = await place.good("GET", f"/v1/audits/{audit.uuid}", **{"X-Show-Deleted": "true"})
        assert one["state"] == "DELETED"
        assert (await place.ask("GET", f"/v1/audits/{audit.uuid}"))[0] == 404


@pytest.mark.parametrize("name", ["goals", "strategies", "scoring_engines", "services"])
async def test_what_can_only_be_read(name: str) -> None:
    """A15, A23."""
    async with placed() as place:
        listed = (await place.good("GET", f"/v1/{name}"))[name]
        assert listed
        detail = (await place.good("GET", f"/v1/{name}/detail"))[name]
        assert set(listed[0]) < set(detail[0])
        first = detail[0]
        for ident in {str(first.get("uuid", first.get("id"))), first["name"]}:
            assert await place.good("GET", f"/v1/{name}/{ident}") == first
        assert (await place.ask("GET", f"/v1/{name}/nothing"))[0] == 404
        assert (await place.ask("POST", f"/v1/{name}", {}))[0] == 405
    assert set(ACTION) == {"PENDING", "ONGOING", "CANCELLING"}


# --- plans and actions -----------------------------------------------------------------------------------------------------

PLAN_STATES = ("RECOMMENDED", "PENDING", "ONGOING", "SUCCEEDED", "FAILED", "CANCELLING", "CANCELLED", "SUPERSEDED")


@pytest.mark.parametrize("before", PLAN_STATES)
async def test_states_of_a_plan(before: str) -> None:
    """A20."""
    async with placed() as place:
        for after in (*PLAN_STATES, "DELETED", "NOTHING", None):
            plan, step = await place.plan(before)
            patch = [{"op": "replace", "path": "/state", "value": after}]
            status, said, _ = await place.ask("PATCH", f"/v1/action_plans/{plan.uuid}", patch)
            allowed = after in PLAN_BY_USER.get(before, ())
            assert status == (200 if allowed else 400), (before, after, said)
            assert place.records.get(ActionPlan, plan.uuid).state == (after if allowed else before)
            withdrawn = allowed and after == "CANCELLED"
            assert place.records.get(Action, step.uuid).state == ("CANCELLED" if withdrawn else "PENDING")
        plan, _ = await place.plan(before)
        status, said, _ = await place.ask("POST", f"/v1/action_plans/{plan.uuid}/start")
        assert status == (200 if before == "RECOMMENDED" else 400)
        if status == 400:
            assert said == f"Couldn't start when state is '{before}'."
        plan, step = await place.plan(before)
        status, said, _ = await place.ask("DELETE", f"/v1/action_plans/{plan.uuid}")
        assert status == (204 if before in PLAN_DELETABLE else 400)
        if status == 204:
            assert (await place.ask("GET", f"/v1/actions/{step.uuid}"))[0] == 404
        else:
            assert said == f"Couldn't delete when state is '{before}'."


@pytest.mark.parametrize("plan_state", PLAN_STATES)
async def test_skipping_an_action(plan_state: str) -> None:
    """A21."""
    skip = [{"op": "replace", "path": "/state", "value": "SKIPPED"}]
    async with placed() as place:
        _, step = await place.plan(plan_state)
        at = f"/v1/actions/{step.uuid}"
        assert (await place.ask("PATCH", at, skip, version="1.4"))[0] == 400
        status, said, _ = await place.ask("PATCH", at, skip)
        if plan_state not in ("RECOMMENDED", "PENDING"):
            assert (status, said) == (409, f"State update not allowed for actionplan state: {plan_state}")
            return
        assert status == 200
        assert (said["state"], said["status_message"]) == ("SKIPPED", "Action skipped by user.")
        reason = [{"op": "replace", "path": "/status_message", "value": "not now"}]
        assert (await place.good("PATCH", at, reason))["status_message"] == "Action skipped by user. Reason: not now"
        _, other = await place.plan(plan_state)
        told = await place.good("PATCH", f"/v1/actions/{other.uuid}", [*skip, *reason])
        assert told["status_message"] == "Action skipped by user. Reason: not now"


async def test_actions_are_not_changed_otherwise() -> None:
    async with placed() as place:
        for state in ("ONGOING", "SUCCEEDED", "FAILED", "CANCELLED"):
            _, step = await place.plan("RECOMMENDED", action=state)
            for after in ("SKIPPED", "PENDING", "SUCCEEDED"):
                if after != state:
                    patch = [{"op": "replace", "path": "/state", "value": after}]
                    status, said, _ = await place.ask("PATCH", f"/v1/actions/{step.uuid}", patch)
                    assert (status, f"({state} -> {after})" in said) == (409, True)
            message = [{"op": "replace", "path": "/status_message", "value": "x"}]
            assert (await place.ask("PATCH", f"/v1/actions/{step.uuid}", message))[0] == 409
        _, step = await place.plan()
        patch = [{"op": "replace", "path": "/action_type", "value": "x"}]
        assert (await place.ask("PATCH", f"/v1/actions/{step.uuid}", patch))[0] == 400


async def test_actions_are_found_by_plan_or_by_audit() -> None:
    async with placed() as place:
        audit = await place.audit()
        plan, step = await place.plan()
        await place.plan(audit="other")

        async def found(query: str) -> list[str]:
            return [one["uuid"] for one in (await place.good("GET", f"/v1/actions{query}"))["actions"]]

        assert len(await found("")) == 2
        assert await found(f"?action_plan_uuid={plan.uuid}") == [step.uuid]
        assert await found(f"?audit_uuid={audit.uuid}") == [step.uuid]
        both = f"?action_plan_uuid={plan.uuid}&audit_uuid={audit.uuid}"
        assert (await place.ask("GET", f"/v1/actions{both}"))[0] == 400
        plans = await place.good("GET", f"/v1/action_plans?audit_uuid={audit.uuid}")
        assert [one["uuid"] for one in plans["action_plans"]] == [plan.uuid]
        assert (await place.good("GET", "/v1/action_plans?strategy=strict"))["action_plans"] == []


# --- webhooks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "alarm", "objects"),
    [
        (None, None, ()),
        (b"  ", None, ()),
        (b"not json \xff", "not json �", ()),
        ({"a": 1}, {"a": 1}, ()),
        ({"alarm_id": "00000000-0000-4000-8000-000000000001", "password": "x"}, {"password": "***"}, ()),
        (
            {
                "reason_data": {
                    "event": {"traits": [["instance_id", 1, "6f0ed0e5-1f3c-4f2f-9f0d-3c1d4a1e5d0a"], ["host", 1, "h1"]]}
                }
            },
            None,
            ("6f0ed0e5-1f3c-4f2f-9f0d-3c1d4a1e5d0a", "h1"),
        ),
        ({"commonLabels": {"instance": "node-7:9100", "job": "node"}}, None, ("node-7",)),
        ({"reason_data": {"resource_id": "fake-1"}, "user_id": "00000000-0000-4000-8000-000000000001"}, None, ("fake-1",)),
    ],
)
async def test_what_a_webhook_makes_of_its_body(body: Any, alarm: Any, objects: tuple[str, ...]) -> None:
    """A2, A11."""
    async with placed() as place:
        audit = await place.audit()
        status, said, _ = await place.ask("POST", "/v1/webhooks/a", body, version="1.0")
        assert (status, said) == (202, None)
        ((ident, trigger),) = place.triggered
        assert (ident, trigger.objects, trigger.cause) == (audit.uuid, objects, "webhook")
        if isinstance(alarm, dict):
            assert {key: trigger.alarm[key] for key in alarm} == alarm
        elif alarm is not None or body in (None, b"  "):
            assert trigger.alarm == alarm


@pytest.mark.parametrize(
    ("trouble", "status"),
    [
        (BadRequest("Audit state SUSPENDED is disallowed."), 400),
        (BadRequest("Audit type ONESHOT is disallowed."), 400),
        (TooBusy("too many", delay=7.0), 429),
        (StoreUnavailable("the disk is full", delay=2.0), 503),
    ],
)
async def test_webhooks_that_are_refused(trouble: Exception, status: int) -> None:
    """A3; and 2xx only for what is kept."""
    async with placed() as place:
        await place.audit()
        place.trouble = trouble
        found, said, headers = await place.ask("POST", "/v1/webhooks/a")
        assert (found, said) == (status, str(trouble))
        assert ("Retry-After" in headers) == (status in (429, 503))
        assert (await place.ask("POST", "/v1/webhooks/nothing"))[:2] == (404, "Audit nothing could not be found")
        assert (await place.ask("POST", "/v1/webhooks/a", b"x" * 65_537))[0] == 413


async def test_a_webhook_that_is_public_is_the_only_thing_that_is() -> None:
    """A4."""
    async with placed(auth=False) as place:
        await place.audit()
        for path in ("/v1/webhooks/a", "/v1/webhooks/a/"):
            assert (await place.ask("POST", path, who="nobody"))[0] == 202
        for method, path in (("GET", "/v1/audits"), ("GET", "/v1/webhooks/a"), ("DELETE", "/v1/audits/a"), ("GET", "/v1")):
            assert (await place.ask(method, path, who="nobody"))[0] == 401


# --- garbage ---------------------------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.sampled_from(
    ["name", "audit_type", "goal", "strategy", "parameters", "interval", "scope", "auto_trigger", "start_time", "force", "state"]
)
BODIES = VALUES | st.dictionaries(FIELDS, VALUES | st.sampled_from(["ONESHOT", "EVENT", "CONTINUOUS", "dummy", "strict"]))
PATCHES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(["add", "replace", "remove", "x"]),
            "path": st.text(max_size=8) | FIELDS.map(lambda name: f"/{name}") | FIELDS.map(lambda name: f"/{name}/0"),
            "value": VALUES,
        },
    ),
    max_size=3,
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(
    bodies=st.lists(BODIES, min_size=3, max_size=6), patches=st.lists(PATCHES, min_size=3, max_size=6), raw=st.binary(max_size=60)
)
async def test_garbage_is_the_callers_fault(bodies: list[Any], patches: list[Any], raw: bytes) -> None:
    async with placed() as place:
        await place.audit()
        plan, step = await place.plan()
        for body in (*bodies, raw):
            for path in ("/v1/audits", "/v1/audit_templates", "/v1/webhooks/a"):
                status, said, _ = await place.ask("POST", path, body)
                assert status < 500, (path, body, said)
        for patch in (*patches, raw):
            for path in (
                f"/v1/audits/{(await place.audit(name='p')).uuid}",
                f"/v1/action_plans/{plan.uuid}",
                f"/v1/actions/{step.uuid}",
            ):
                status, said, _ = await place.ask("PATCH", path, patch)
                assert status < 500, (path, patch, said)


@pytest.mark.parametrize("state", [[], {}, ["CANCELLED"], 1, True])
async def test_a_state_that_is_no_word_is_the_callers_fault(state: Any) -> None:
    async with placed() as place:
        audit = await place.audit()
        plan, step = await place.plan()
        patch = [{"op": "replace", "path": "/state", "value": state}]
        for path in (f"/v1/audits/{audit.uuid}", f"/v1/action_plans/{plan.uuid}", f"/v1/actions/{step.uuid}"):
            status, said, _ = await place.ask("PATCH", path, patch)
            assert status in (400, 409), (path, said)
