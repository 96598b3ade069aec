"""testing/concertim.py is as strict as a real front end: each of its rules refuses something."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import jwt
import pytest

from vedette.testing.concertim import PASSWORD, Dialect, FakeConcertim

BOTH: tuple[Dialect, ...] = ("v1", "v2")
METRIC = {"type": "double", "name": "cpu_load", "value": 3.5, "units": "%", "slope": "both", "ttl": 3600}


class Session:
    """Somebody who is signed in."""

    def __init__(self, front: FakeConcertim, http: aiohttp.ClientSession) -> None:
        self.front, self.http = front, http
        self.headers: dict[str, str] = {}
        self.owner: Any = front.add_user("ada", project_id="p") if front.dialect == "v1" else front.add_team("a", "p")
        self.template = front.add_template(name="m1", height=2)

    async def sign_in(self, password: str = PASSWORD, path: str = "/users/sign_in.json", login: str = "admin") -> int:
        body = {"user": {"login": login, "password": password}}
        async with self.http.post(self.front.url + path, json=body) as answer:
            self.headers = {"Authorization": answer.headers.get("Authorization", "")}
            return answer.status

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        async with self.http.request(method, self.front.url + path, json=body, headers=self.headers) as answer:
            return answer.status, await answer.json()

    async def good(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.ask(method, path, body)
        assert status == 200, (status, answer)
        return answer

    def rack(self, **more: Any) -> dict[str, Any]:
        owner = "team_id" if self.front.dialect == "v2" else "user_id"
        order = {"order_id": "o1"} if self.front.dialect == "v2" else {}
        plain = {"name": "rack-1", "u_height": 10, "status": "ACTIVE", "metadata": {"openstack_stack_id": "s"}}
        return {"rack": {owner: self.owner, **order, **plain, **more}}

    def device(self, rack: Any, **more: Any) -> dict[str, Any]:
        plain = {"name": "node-1", "status": "ACTIVE", "metadata": {"openstack_instance_id": "i"}}
        typed = {"type": "Instance"} if self.front.dialect == "v2" else {}
        location = {"facing": "f", "rack_id": rack, "start_u": 3} | more.pop("location", {})
        return {"template_id": more.pop("template_id", self.template), "device": {**plain, **typed, "location": location, **more}}


@asynccontextmanager
async def signed_in(dialect: Dialect = "v2") -> AsyncIterator[Session]:
    async with FakeConcertim(dialect) as front, aiohttp.ClientSession() as http:
        session = Session(front, http)
        assert await session.sign_in() == 200
        yield session


async def test_who_is_not_signed_in_gets_nothing() -> None:
    async with signed_in() as here:
        for path in ("/users/sign_in.json", "/accounts/sign_in.json"):
            assert await here.sign_in("wrong", path) == 401
            assert (await here.ask("GET", "/api/v1/racks"))[0] == 401
            assert await here.sign_in(path=path) == 200
            await here.good("GET", "/api/v1/racks")
        here.front.revoke_tokens()
        assert (await here.ask("GET", "/api/v1/racks"))[0] == 401
        here.headers = {"Authorization": f"Bearer {here.front.token(jti='forged')}"}
        assert (await here.ask("GET", "/api/v1/racks"))[0] == 401
        here.front.token_seconds = -1.0
        await here.sign_in()
        assert (await here.ask("GET", "/api/v1/racks"))[0] == 401


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": ""}, "name"),
        ({"height": 7}, "height"),
        ({"height": "2"}, "height"),
        ({"height": True}, "height"),
        ({"height": 2.0}, "height"),
        ({"name": 5}, "name"),
        ({"ram": 0}, "ram"),
        ({"disk": 0}, "disk"),
        ({"disk": 1.5}, "disk"),
        ({"vcpus": -1}, "vcpus"),
        ({"vcpus": "1"}, "vcpus"),
    ],
)
async def test_templates(wrong: dict[str, Any], field: str) -> None:
    async with signed_in() as here:
        plain = {"name": "m1", "description": "", "height": 1, "ram": 1, "disk": 1, "vcpus": 1, "foreign_id": "f"}
        status, answer = await here.ask("POST", "/api/v1/templates", {"template": {**plain, **wrong}})
        assert (status, list(answer)) == (422, [field])
        made = await here.good("POST", "/api/v1/templates", {"template": plain})
        changed = await here.good("PATCH", f"/api/v1/templates/{made['id']}", {"template": {"ram": 2, "height": 5}})
        assert (changed["ram"], changed["height"]) == (2, 1)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "a.b"}, "name"),
        ({"name": "ä"}, "name"),
        ({"name": "taken"}, "name"),
        ({"u_height": 0}, "u_height"),
        ({"u_height": 73}, "u_height"),
        ({"u_height": "9"}, "u_height"),
        ({"status": "SUSPENDED"}, "status"),
        ({"status": "AVAILABLE"}, "status"),
        ({"status": []}, "status"),
        ({"status": {}}, "status"),
        ({"cost": -1}, "cost"),
        ({"cost": "inf"}, "cost"),
        ({"cost": True}, "cost"),
        ({"team_id": "nobody", "user_id": "nobody"}, "owner"),
        ({"order_id": None}, "order_id"),
        ({"order_id": "taken"}, "order_id"),
    ],
)
async def test_racks(dialect: Dialect, wrong: dict[str, Any], field: str) -> None:
    async with signed_in(dialect) as here:
        here.front.add_rack(here.owner, "taken", order_id="taken")
        status, answer = await here.ask("POST", "/api/v1/racks", here.rack(**wrong))
        if dialect == "v1" and field == "order_id":
            assert status == 200  # it knows of none
            assert "order_id" not in answer
        else:
            field = {"owner": "team" if dialect == "v2" else "user"}.get(field, field)
            assert (status, list(answer)) == (422, [field])
        made = await here.good("POST", "/api/v1/racks", here.rack(name="good", order_id="o2"))
        assert made["owner"]["id"] == here.owner
        (listed,) = [row for row in await here.good("GET", "/api/v1/racks") if row["id"] == made["id"]]
        assert "devices" in made
        assert "devices" not in listed


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"name": "a_b"}, "name"),
        ({"name": "a" * 151}, "name"),
        ({"name": "taken"}, "name"),
        ({"status": "AVAILABLE"}, "status"),
        ({"status": []}, "status"),
        ({"cost": "free"}, "cost"),
        ({"location": {"start_u": 0}}, "start_u"),
        ({"location": {"start_u": 10}}, "start_u"),  # two units, and the rack has ten
        ({"location": {"start_u": 6}}, "start_u"),  # in the other one
        ({"location": {"facing": "x"}}, "facing"),
        ({"location": {"rack_id": "nowhere"}}, "rack"),
        ({"template_id": "none"}, "template"),
    ],
)
async def test_devices(dialect: Dialect, wrong: dict[str, Any], field: str) -> None:
    async with signed_in(dialect) as here:
        rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
        await here.good("POST", "/api/v1/nodes", here.device(rack, name="taken", location={"start_u": 7}))
        status, answer = await here.ask("POST", "/api/v1/nodes", here.device(rack, **wrong))
        assert (status, list(answer)) == (422, [field])
        made = await here.good("POST", "/api/v1/nodes", here.device(rack))
        assert (made["location"]["start_u"], made["location"]["end_u"]) == (3, 4)
        (listed,) = [row for row in await here.good("GET", "/api/v1/devices") if row["id"] == made["id"]]
        assert made["template"]["id"] == listed["template_id"] == here.template
        shown = await here.good("GET", f"/api/v1/racks/{rack}")
        assert {row["name"] for row in shown["devices"]} == {"taken", "node-1"}


async def test_a_dot_in_a_devices_name_is_new() -> None:
    for dialect, status in (("v1", 422), ("v2", 200)):
        async with signed_in(dialect) as here:  # type: ignore[arg-type]
            rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
            assert (await here.ask("POST", "/api/v1/nodes", here.device(rack, name="a.b")))[0] == status


@pytest.mark.parametrize(
    ("kind", "status", "good"),
    [
        ("Instance", "SUSPENDED", True),
        ("Volume", "AVAILABLE", True),
        ("Volume", "STOPPED", False),
        ("Network", "STOPPED", True),
        ("Network", "SUSPENDED", False),
        ("Printer", "ACTIVE", False),
    ],
)
async def test_types_have_their_statuses_and_their_templates(kind: str, status: str, good: bool) -> None:
    async with signed_in() as here:
        rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
        tagged = {row["tag"]: row["id"] for row in here.front.templates.values()}
        template = {"Volume": tagged["volume"], "Network": tagged["network"]}.get(kind, here.template)
        body = here.device(rack, type=kind, status=status, template_id=template)
        assert (await here.ask("POST", "/api/v1/nodes", body))[0] == (200 if good else 422)
        for other in {tagged["volume"], tagged["network"], here.template} - {template} if good else ():
            wrong = here.device(rack, type=kind, status=status, template_id=other, name=f"n{other[:4]}", location={"start_u": 8})
            code, answer = await here.ask("POST", "/api/v1/nodes", wrong)
            assert (code, list(answer)) == (422, ["template"])


async def test_a_device_moves_within_its_rack() -> None:
    async with signed_in() as here:
        rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
        other = (await here.good("POST", "/api/v1/racks", here.rack(name="other", order_id="o2")))["id"]
        made = await here.good("POST", "/api/v1/nodes", here.device(rack))
        path = f"/api/v1/devices/{made['id']}"
        moved = await here.good("PATCH", path, {"device": {"location": {"facing": "f", "rack_id": rack, "start_u": 9}}})
        assert moved["location"]["start_u"] == 9
        status, answer = await here.ask("PATCH", path, {"device": {"location": {"facing": "f", "rack_id": other, "start_u": 1}}})
        assert (status, list(answer)) == (422, ["rack_id"])
        status, answer = await here.ask("PATCH", f"/api/v1/racks/{rack}", {"rack": {"u_height": 9}})
        assert (status, list(answer)) == (422, ["u_height"])


@pytest.mark.parametrize("dialect", BOTH)
async def test_what_should_be_an_object_and_is_none_is_dropped(dialect: Dialect) -> None:
    async with signed_in(dialect) as here:
        rack = await here.good("POST", "/api/v1/racks", here.rack(network_details="{'a': 1}"))
        assert rack["network_details"] == {}
        made = await here.good("POST", "/api/v1/nodes", here.device(rack["id"], volume_details="{}", ssh_key="k"))
        assert (made["volume_details"], made["ssh_key"]) == (None, "k")
        changed = await here.good(
            "PATCH", f"/api/v1/devices/{made['id']}", {"device": {"metadata": "text", "volume_details": {}}}
        )
        assert changed["metadata"] == {"openstack_instance_id": "i"}
        assert changed["volume_details"] == {}


async def test_details_have_their_types() -> None:
    async with signed_in() as here:
        rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
        details = {"type": "Device::ComputeDetails", "public_ips": "a:1", "size": 5}
        made = await here.good("POST", "/api/v1/nodes", here.device(rack, details=details))
        assert made["public_ips"] == "a:1"
        assert "size" not in made
        wrong = {"details": {"type": "Device::VolumeDetails"}}
        assert (await here.ask("PATCH", f"/api/v1/devices/{made['id']}", {"device": wrong}))[0] == 422


@pytest.mark.parametrize("dialect", BOTH)
async def test_what_is_not_empty_wants_recurse(dialect: Dialect) -> None:
    async with signed_in(dialect) as here:
        rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
        made = await here.good("POST", "/api/v1/nodes", here.device(rack))
        for path in (f"/api/v1/racks/{rack}", f"/api/v1/templates/{here.template}"):
            assert (await here.ask("DELETE", path))[0] == 422
        assert await here.good("DELETE", f"/api/v1/racks/{rack}?recurse=true") == {}
        for path in (f"/api/v1/racks/{rack}", f"/api/v1/devices/{made['id']}"):
            assert (await here.ask("GET", path))[0] == 404
        assert await here.good("DELETE", f"/api/v1/templates/{here.template}") == {}


async def test_dialects_are_told_apart_by_teams() -> None:
    async with signed_in("v1") as here:
        assert (await here.ask("GET", "/api/v1/teams"))[0] == 404
        assert (await here.good("GET", "/api/v1/users"))[1]["project_id"] == "p"
    async with signed_in("v2") as here:
        (team,) = await here.good("GET", "/api/v1/teams")
        changed = await here.good("PATCH", f"/api/v1/teams/{team['id']}", {"team": {"credits": 5, "name": "no"}})
        assert (changed["credits"], changed["name"]) == (5, "a")
        assert (await here.ask("PATCH", f"/api/v1/teams/{team['id']}", {"team": {"cost": -5}}))[0] == 422


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({}, 200),
        ({"value": 0.0}, 200),
        ({"value": "3"}, 422),
        ({"value": True}, 422),
        ({"type": "decimal"}, 422),
        ({"type": []}, 422),
        ({"slope": {}}, 422),
        ({"units": "a>b"}, 422),
        ({"units": "a'b"}, 422),
        ({"units": 'a"b'}, 422),
        ({"units": "a&b"}, 422),
        ({"name": ""}, 422),
        ({"units": "B<s"}, 422),
        ({"units": None}, 422),
        ({"slope": "up"}, 422),
        ({"ttl": 0}, 422),
        ({"ttl": "3600"}, 422),
    ],
)
async def test_metrics(wrong: dict[str, Any], status: int) -> None:
    async with signed_in() as here:
        here.front.auto_refresh = False
        rack = (await here.good("POST", "/api/v1/racks", here.rack()))["id"]
        made = await here.good("POST", "/api/v1/nodes", here.device(rack))
        path = f"/mrd/{made['id']}/metrics"
        code, answer = await here.ask("PUT", path, METRIC)
        assert (code, answer["errors"][0]["title"]) == (404, "Host Not Found")
        here.front.refresh()
        code, _ = await here.ask("PUT", path, METRIC | wrong)
        assert code == status
        assert here.front.metrics.get(str(made["id"]), {}) == ({"cpu_load": [(METRIC | wrong)["value"]]} if status == 200 else {})
        here.headers = {}
        assert (await here.ask("PUT", path, METRIC))[0] == 401


async def test_faults_happen_once_each() -> None:
    async with signed_in() as here:
        here.front.trouble.next.extend([503, "drop", "cut"])
        assert (await here.ask("POST", "/api/v1/racks", here.rack()))[0] == 503
        assert here.front.racks == {}
        for left in (0, 1):
            with pytest.raises(aiohttp.ClientError):
                await here.ask("POST", "/api/v1/racks", here.rack())
            assert len(here.front.racks) == left
        await here.front.stop()
        with pytest.raises(aiohttp.ClientError):
            await here.ask("GET", "/api/v1/racks")
        await here.front.start()
        assert len(await here.good("GET", "/api/v1/racks")) == 1


@pytest.mark.parametrize("path", ["/api/v1/racks", "/mrd/{id}/metrics"])
async def test_a_token_of_somebody_else_is_none(path: str) -> None:
    async with signed_in() as here:
        rack = here.front.add_rack(here.owner, "r")
        device = here.front.add_device(rack, here.template, "n", 1)
        method, url = ("PUT" if "mrd" in path else "GET"), path.format(id=device)
        good = here.headers["Authorization"]
        forged = jwt.encode({"jti": "1"}, "a secret that the front end has never heard of", algorithm="HS256")
        unsigned = jwt.encode({"jti": "1"}, None, algorithm="none")
        past = here.front.token(exp=1)
        for wrong in ("", "Bearer", good.removeprefix("Bearer "), *(f"Bearer {one}" for one in (forged, unsigned, past))):
            here.headers = {"Authorization": wrong}
            assert (await here.ask(method, url, METRIC))[0] == 401, wrong
        here.headers = {"Authorization": good}
        await here.good(method, url, METRIC)


@pytest.mark.parametrize("dialect", BOTH)
async def test_who_is_no_admin_only_looks(dialect: Dialect) -> None:
    async with signed_in(dialect) as here:
        rack = here.front.add_rack(here.owner, "r")
        here.front.add_user("eve", password="her own")
        assert await here.sign_in(login="eve") == 401
        assert await here.sign_in("her own", login="eve") == 200
        assert (await here.good("GET", "/api/v1/users/current"))["login"] == "eve"
        shown = await here.good("GET", f"/api/v1/racks/{rack}")
        assert ("owner" in shown) == (dialect == "v2")  # of old it is for admins
        for method, path in (("POST", "/api/v1/racks"), ("DELETE", f"/api/v1/racks/{rack}")):
            status, answer = await here.ask(method, path, here.rack())
            assert (status, answer["errors"][0]["status"]) == (403, "403")
        assert len(here.front.racks) == 1


async def test_a_type_that_is_no_text_is_refused() -> None:
    async with signed_in() as here:
        rack = here.front.add_rack(here.owner, "r")
        status, answer = await here.ask("POST", "/api/v1/nodes", here.device(rack, type=[]))
        assert (status, list(answer)) == (422, ["type"])


async def test_a_number_may_come_as_text() -> None:
    async with signed_in("v1") as here:
        here.owner, number = str(here.owner), here.owner
        made = await here.good("POST", "/api/v1/racks", here.rack())
        assert made["owner"]["id"] == number
        status, answer = await here.ask("POST", "/api/v1/racks", here.rack(user_id=number))
        assert (status, list(answer)) == (422, ["name"])
        device = await here.good("POST", "/api/v1/nodes", here.device(str(made["id"]), template_id=str(here.template)))
        assert device["location"]["rack_id"] == made["id"]
        move = {"device": {"location": {"facing": "b", "rack_id": str(made["id"]), "start_u": 1}}}
        assert (await here.good("PATCH", f"/api/v1/devices/{device['id']}", move))["location"]["facing"] == "b"


@pytest.mark.parametrize("dialect", BOTH)
async def test_what_was_written_is_what_is_read(dialect: Dialect) -> None:
    async with signed_in(dialect) as here:
        plain = {"name": "m2", "description": "d", "height": 1, "ram": 1, "disk": 1, "vcpus": 1, "foreign_id": "f"}
        template = await here.good("POST", "/api/v1/templates", {"template": plain})
        rack = await here.good("POST", "/api/v1/racks", here.rack())
        device = await here.good("POST", "/api/v1/nodes", here.device(rack["id"], template_id=template["id"]))
        changes: list[tuple[str, Any, dict[str, Any]]] = [
            ("template", template, {"name": "m3", "vcpus": 4}),
            ("rack", rack, {"name": "r2", "u_height": 11, "status": "STOPPED", "cost": "1.50", "metadata": {"a": "b"}}),
            ("device", device, {"name": "n2", "status": "FAILED", "cost": "0.25", "metadata": {"a": "b"}}),
        ]
        for what, made, change in changes:
            path = f"/api/v1/{what}s/{made['id']}"
            changed = await here.good("PATCH", path, {what: change})
            assert changed.items() >= change.items()
            shown = await here.good("GET", path)
            assert shown.items() >= change.items()
            (listed,) = [one for one in await here.good("GET", f"/api/v1/{what}s") if one["id"] == made["id"]]
            assert listed.items() >= change.items()
        for what, made, _ in reversed(changes):
            assert await here.good("DELETE", f"/api/v1/{what}s/{made['id']}") == {}
            assert (await here.ask("GET", f"/api/v1/{what}s/{made['id']}"))[0] == 404


async def test_what_the_metric_daemon_shows_is_open() -> None:
    async with signed_in() as here:
        device = here.front.add_device(here.front.add_rack(here.owner, "r"), here.template, "n", 1)
        assert (await here.good("GET", "/api/v1/data-source-maps"))["grid"]["cluster"] == {device: device}
        async with here.http.put(f"{here.front.url}/mrd/{device}/metrics", data=b"{", headers=here.headers) as answer:
            assert answer.status == 400
        for value in (1.0, 2.0):
            await here.good("PUT", f"/mrd/{device}/metrics", METRIC | {"value": value})
        here.headers = {}
        assert await here.good("GET", "/mrd/status") == {"status": 200}
        assert await here.good("GET", f"/mrd/devices/{device}/metrics/current") == [{"name": "cpu_load", "value": 2.0}]
        assert (await here.ask("GET", "/mrd/devices/none/metrics/current"))[0] == 404


async def test_a_share_of_faults_is_the_same_for_the_same_seed() -> None:
    seen = []
    for _ in range(2):
        async with signed_in() as here:
            here.front.trouble.share, here.front.trouble.kinds = 0.5, (500, 503, 0.001)
            seen.append([(await here.ask("GET", "/api/v1/racks"))[0] for _ in range(20)])
    assert seen[0] == seen[1]
    assert set(seen[0]) == {200, 500, 503}
