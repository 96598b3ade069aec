"""The API of a Concertim front end, both generations, against a cloud whose services answer as real ones do."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from fronting import JWT_SECRET, Front, fronting, furnish

from vedette.kit.clock import SystemClock
from vedette.model.audit import Action, ActionPlan
from vedette.testing.cloud import FakeCloud

NEW_PASSWORD = "another-password-that-is-in-no-log"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPublicKeysMayBeSeenByAnybodyWhoLikesTo me@here"
NOBODY = "6a7c3f1e-1111-4222-8333-444455556666"

ROUTES = [
    ("POST", "/create_user_project"),
    ("POST", "/user"),
    ("PATCH", "/user"),
    ("DELETE", "/user"),
    ("POST", "/team"),
    ("DELETE", "/team"),
    ("GET", "/team/limits"),
    ("GET", "/team/some/quotas"),
    ("POST", "/team_role"),
    ("PATCH", "/team_role"),
    ("DELETE", "/team_role"),
    ("POST", "/update_status/racks/some"),
    ("POST", "/update_status/devices/some"),
    ("POST", "/key_pairs"),
    ("GET", "/key_pairs"),
    ("DELETE", "/key_pairs"),
    ("GET", "/statistics"),
    ("GET", "/whatever"),
]


async def logged_in(front: Front, user_id: str, password: str, project: str) -> int:
    """What Keystone answers to who signs in so."""
    identity = {"methods": ["password"], "password": {"user": {"id": user_id, "password": password}}}
    body = {"auth": {"identity": identity, "scope": {"project": {"id": project}}}}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{front.cloud.identity.url}/auth/tokens", json=body) as answer,
    ):
        return answer.status


def roles(front: Front, user: str, project: str) -> set[str]:
    return {role for who, role, where in front.cloud.identity.grants if (who, where) == (user, ("project", project))}


# --- who may ask -----------------------------------------------------------------------------------------------------------


async def test_no_route_answers_without_the_front_ends_signature(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        main = f"{front.place.main_url}/concertim"
        forged = [
            "",
            "nonsense",
            "n\udcffonsense",
            front.token(secret="a-secret-of-somebody-else-entirely, as long"),
            front.token(exp=time.time() - 120),
            jwt.encode({"iat": time.time()}, JWT_SECRET, algorithm="HS256"),
            jwt.encode({"exp": time.time() + 60}, JWT_SECRET, algorithm="HS512"),
            jwt.encode({"exp": time.time() + 60}, "", algorithm="none"),
            front.cloud.token("admin"),
        ]
        before = sum(front.cloud.identity.requests.values())
        for at in (front.url, main):
            for method, path in ROUTES:
                for token in forged:
                    status, answer = await front.ask(method, path, token=token, at=at)
                    assert (status, answer["success"], answer["error"]) == (401, False, "APIAuthenticationError"), (path, token)
        assert sum(front.cloud.identity.requests.values()) == before, "nobody was asked with the credentials of who was refused"
        assert await front.ask("GET", "/", token="", user="") == (200, "Running\n")
        assert await front.ask("GET", "", token="", user="", at=main) == (200, "Running\n")
        # The rest of the main port is as closed as ever.
        status, _ = await front.ask("GET", "/apis", user="", at=front.place.main_url)
        assert status == 401


async def test_credentials_go_to_our_keystone_and_to_no_other(tmp_path: Path) -> None:
    async with FakeCloud(SystemClock()) as other, fronting(tmp_path, auth_urls=["http://keystone.inside:5000/v3/"]) as front:
        for url in (other.identity.url, "http://127.0.0.1:1/v3", "file:///etc/passwd", "http://127.0.0.1"):
            body = {"cloud_env": front.env(auth_url=url)}
            status, answer = await front.ask("GET", "/key_pairs", body)
            assert status == 401
            assert "is not this cloud's Keystone" in answer["message"]
        assert not other.identity.requests
        # By another of its names it is ours, and is asked where we know it.
        await front.good("GET", "/key_pairs", {"cloud_env": front.env(auth_url="http://keystone.inside:5000")})
        wrong = front.env(password="wrong")
        assert (await front.ask("GET", "/key_pairs", {"cloud_env": wrong}))[0] == 401


async def test_a_front_end_that_does_not_sign_is_served_when_that_is_said(tmp_path: Path) -> None:
    async with fronting(tmp_path, signs=False) as front:
        assert await front.good("GET", "/key_pairs", status=202) == {"success": True, "key_pairs": []}
        # The second generation's statuses for who signs, whatever he signs with.
        await front.good("GET", "/key_pairs", token="anything", status=201)
        assert await front.ask("GET", "/key_pairs", {"cloud_env": front.env(password="wrong")}) == (
            400,
            {"success": False, "error": "OpStkAuthenticationError", "message": "Keystone refused these credentials"},
        )


# --- what is wrong with a request ------------------------------------------------------------------------------------------

BAD: list[tuple[str, str, Any, int, int, str, str]] = [
    # method, path, body, status (second, first generation), error, in the message
    ("GET", "/key_pairs", {"cloud_env": None}, 415, 400, "MissingRequiredArgs", "cloud_env is missing"),
    ("GET", "/key_pairs", {"cloud_env": []}, 400, 400, "BadRequest", "cloud_env is no object"),
    ("GET", "/key_pairs", {"cloud_env": {"auth_url": "x"}}, 415, 400, "MissingRequiredArgs", "cloud_env.password"),
    (
        "GET",
        "/key_pairs",
        {"cloud_env": {"auth_url": 1, "password": "x"}},
        415,
        400,
        "MissingRequiredArgs",
        "cloud_env.auth_url",
    ),
    ("POST", "/key_pairs", {}, 415, 400, "MissingRequiredArgs", "key_pair is missing"),
    ("POST", "/key_pairs", {"key_pair": "x"}, 400, 400, "BadRequest", "key_pair is no object"),
    ("POST", "/key_pairs", {"key_pair": {}}, 415, 400, "MissingRequiredArgs", "key_pair.name is missing"),
    ("POST", "/key_pairs", {"key_pair": {"name": ["a"]}}, 400, 400, "BadRequest", "key_pair.name is no text"),
    ("POST", "/key_pairs", {"key_pair": {"name": "a" * 256}}, 400, 400, "BadRequest", "at most 255"),
    ("POST", "/key_pairs", {"key_pair": {"name": "a\x00b"}}, 400, 400, "BadRequest", "control characters"),
    (
        "POST",
        "/key_pairs",
        {"key_pair": {"name": "a", "public_key": "rubbish"}},
        400,
        400,
        "BadRequest",
        "Keypair data is invalid",
    ),
    ("POST", "/key_pairs", b"{", 400, 400, "BadRequest", "no JSON"),
    ("POST", "/key_pairs", b"[1]", 400, 400, "BadRequest", "no JSON object"),
    ("POST", "/key_pairs", b"[" * 100_000, 400, 400, "BadRequest", "no JSON"),
    ("DELETE", "/key_pairs", {}, 415, 400, "MissingRequiredArgs", "keypair_name is missing"),
    ("POST", "/update_status/cupboards/x", {"action": "on"}, 406, 400, "InvalidAPICall", "there are no cupboards"),
    ("POST", "/update_status/racks/x", {"action": "explode"}, 406, 400, "InvalidAPICall", "suspend, resume, destroy"),
    ("POST", "/update_status/volumes/x", {"action": "on"}, 406, 400, "InvalidAPICall", "destroy, detach"),
    ("POST", "/update_status/racks/x", {}, 415, 400, "MissingRequiredArgs", "action is missing"),
    ("POST", f"/update_status/racks/{NOBODY}", {"action": "destroy"}, 404, 404, "NotFound", "no stack"),
    ("POST", f"/update_status/instances/{NOBODY}", {"action": "destroy"}, 404, 404, "NotFound", "could not be found"),
    ("POST", f"/update_status/volumes/{NOBODY}", {"action": "destroy"}, 404, 404, "NotFound", "could not be found"),
    ("POST", f"/update_status/networks/{NOBODY}", {"action": "destroy"}, 404, 404, "NotFound", "could not be found"),
    ("POST", "/update_status/networks/%2E%2E%2Fports%2Fx", {"action": "destroy"}, 404, 404, "NotFound", ""),
    ("POST", "/update_status/networks/a/b", {"action": "destroy"}, 404, 404, "NotFound", "there is no POST"),
    ("POST", "/user", {"username": "x"}, 415, 400, "MissingRequiredArgs", "password is missing"),
    ("PATCH", "/user", {"user_info": {"cloud_user_id": "x"}}, 415, 400, "MissingRequiredArgs", "new_data is missing"),
    ("POST", "/team", {}, 415, 400, "MissingRequiredArgs", "name is missing"),
    ("POST", "/team_role", {"team_role": {"role": "member"}}, 415, 400, "MissingRequiredArgs", "team_role.project_id"),
    (
        "POST",
        "/team_role",
        {"team_role": {"role": "king", "project_id": "p", "user_id": "u"}},
        404,
        404,
        "NotFound",
        "openstack role create king",
    ),
    ("PUT", "/user", {}, 404, 404, "NotFound", "there is no PUT user"),
    ("GET", "/nothing", {}, 404, 404, "NotFound", "there is no GET nothing"),
]


@pytest.mark.parametrize("signs", [True, False])
async def test_every_error_has_its_status_and_its_form(tmp_path: Path, signs: bool) -> None:
    async with fronting(tmp_path, signs=signs) as front:
        for method, path, body, second, first, error, words in BAD:
            status, answer = await front.ask(method, path, body)
            told = (method, path, body if not isinstance(body, bytes) else body[:20], status, answer)
            assert status == (second if signs else first), told
            assert set(answer) == {"success", "error", "message"}, told
            assert answer["success"] is False, told
            assert answer["error"] == error, told
            assert words in answer["message"], told
            assert "Traceback" not in answer["message"], told
        front.cloud.compute.door.fail(503)
        status, answer = await front.ask("GET", "/key_pairs")
        assert (status, answer["error"]) == (503, "ServiceUnavailable")
        assert "127.0.0.1" not in answer["message"]
        front.cloud.compute.door.heal()
        front.cloud.compute.door.fail(403, "/os-keypairs*")
        status, answer = await front.ask("GET", "/key_pairs")
        assert (status, answer["error"]) == (403, "Forbidden")


# --- users, teams, roles ---------------------------------------------------------------------------------------------------


async def test_a_user_and_a_project_of_the_first_generation(tmp_path: Path) -> None:
    async with fronting(tmp_path, signs=False) as front:
        body = {"username": "ann", "password": NEW_PASSWORD, "email": "ann@example.org"}
        env = {"cloud_env": front.env(billing_enabled="True"), **body}
        made = await front.ten_times("POST", "/create_user_project", env)
        assert made["username"] == "ann"
        identity = front.cloud.identity
        user, project = identity.users[made["user_id"]], identity.projects[made["project_id"]]
        assert (user.name, user.email, project.name) == ("CM_ann", "ann@example.org", "CM_ann_proj")
        assert [one.name for one in identity.users.values()].count("CM_ann") == 1
        assert roles(front, user.id, project.id) == {"member"}
        assert roles(front, front.cloud.user_id("concertim"), project.id) == {"watcher", "member"}
        assert roles(front, front.cloud.user_id("admin"), project.id) == {"admin"}
        assert roles(front, front.cloud.user_id("cloudkitty"), project.id) == {"rating"}
        assert await logged_in(front, user.id, NEW_PASSWORD, project.id) == 201
        # A word is no program: the service that this replaces evaluated it.
        status, answer = await front.ask("POST", "/create_user_project", {**env, "cloud_env": front.env(billing_enabled="1+1")})
        assert (status, "neither true nor false" in answer["message"]) == (400, True)
        assert (await front.ask("POST", "/create_user_project", {**body, "cloud_env": front.env(password="wrong")}))[0] == 401
        status, _ = await front.ask("POST", "/create_user_project", {**body, "username": "bob"}, user="demo")
        assert status == 403, "a tenant makes no users"


async def test_what_was_made_goes_again_when_the_rest_fails(tmp_path: Path) -> None:
    async with fronting(tmp_path, signs=False) as front:
        identity = front.cloud.identity
        front.cloud.delete_user("concertim")
        before = (set(identity.users), set(identity.projects))
        body = {"username": "ann", "password": NEW_PASSWORD}
        status, answer = await front.ask("POST", "/create_user_project", body)
        assert (status, answer["error"]) == (404, "NotFound")
        assert "no user concertim" in answer["message"]
        assert (set(identity.users), set(identity.projects)) == before
        # What was there before this request stays.
        front.cloud.user("concertim", project="service")
        made = await front.good("POST", "/create_user_project", body)
        front.cloud.delete_user("concertim")
        assert (await front.ask("POST", "/create_user_project", body))[0] == 404
        assert made["user_id"] in identity.users
        assert made["project_id"] in identity.projects


async def test_users_teams_and_roles_of_the_second_generation(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        identity = front.cloud.identity
        body = {"username": "ann", "name": "Ann", "email": "ann@example.org", "password": NEW_PASSWORD}
        made = await front.ten_times("POST", "/user", body)
        assert (made["success"], made["username"]) == (True, "ann")
        user = made["user_cloud_id"]
        # Somebody else of that name is not given the account.
        assert (await front.ask("POST", "/user", {**body, "password": "of-somebody-else"}))[0] == 409
        team = await front.ten_times("POST", "/team", {"name": "physics"})
        project = team["project_id"]
        assert team["billing_acct_id"] is None
        assert identity.projects[project].name == "CM_physics_proj"
        assert roles(front, front.cloud.user_id("concertim"), project) == {"watcher", "member"}
        grant = {"team_role": {"role": "member", "project_id": project, "user_id": user}}
        await front.ten_times("POST", "/team_role", grant)
        assert roles(front, user, project) == {"member"}
        change = {"team_role": {"current_role": "member", "new_role": "admin", "project_id": project, "user_id": user}}
        await front.ten_times("PATCH", "/team_role", change)
        assert roles(front, user, project) == {"admin"}
        new = {"user_info": {"cloud_user_id": user, "new_data": {"email": "a@example.org", "password": "its-new-password"}}}
        assert (await front.ten_times("PATCH", "/user", new))["updated"] == ["email", "password"]
        assert identity.users[user].email == "a@example.org"
        assert await logged_in(front, user, NEW_PASSWORD, project) == 401
        assert await logged_in(front, user, "its-new-password", project) == 201
        await front.ten_times("DELETE", "/team_role", {"team_role": {"role": "admin", "project_id": project, "user_id": user}})
        assert roles(front, user, project) == set()
        # A project that has something in it is not deleted: nobody could reach that any more.
        made_there = {
            "stacks": front.cloud.create("stack", project=project, announce=False),
            "servers": front.cloud.server(project=project, announce=False),
            "volumes": front.cloud.create("volume", project=project, announce=False),
        }
        status, answer = await front.ask("DELETE", "/team", {"team_info": {"project_id": project}})
        assert (status, "still has servers and volumes and stacks" in answer["message"]) == (409, True), answer
        assert (await front.ask("DELETE", "/team", {"team_info": {"project_id": project}}, user="demo"))[0] == 403
        for kind, id_ in made_there.items():
            front.cloud.delete(kind[:-1], id_)
        await front.ten_times("DELETE", "/team", {"team_info": {"project_id": project}})
        assert project not in identity.projects
        await front.ten_times("DELETE", "/user", {"user_info": {"cloud_user_id": user}})
        assert user not in identity.users


async def test_what_was_not_made_for_the_front_end_is_left_alone(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        admin, demo = front.cloud.user_id("admin"), front.cloud.project_id("demo")
        for method, body in (
            ("DELETE", {"user_info": {"cloud_user_id": admin}}),
            ("PATCH", {"user_info": {"cloud_user_id": admin, "new_data": {"password": "taken-over"}}}),
        ):
            status, answer = await front.ask(method, "/user", body)
            assert (status, "was not made for the front end" in answer["message"]) == (403, True)
        assert admin in front.cloud.identity.users
        assert front.cloud.identity.users[admin].password != "taken-over"
        # A team of a project that was there before: the team goes, the project stays.
        await front.good("DELETE", "/team", {"team_info": {"project_id": front.cloud.project_id("service")}})
        assert demo in front.cloud.identity.projects
        assert front.cloud.project_id("service") in front.cloud.identity.projects
        made = await front.good("POST", "/team", {"name": "old", "project_id": demo, "billing_account_id": "b-1"})
        assert (made["project_id"], made["billing_acct_id"]) == (demo, "b-1")


async def test_quotas_limits_and_statistics(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        demo = front.cloud.project_id("demo")
        front.cloud.server()
        quotas = (await front.good("GET", f"/team/{demo}/quotas", user=""))["quotas"]
        assert {"cores", "instances", "volumes", "gigabytes", "network", "floatingip"} <= quotas.keys()
        limits = (await front.good("GET", "/team/limits", user="demo"))["limits"]
        assert (limits["totalInstancesUsed"], limits["maxTotalVolumes"]) == (1, 10)
        stats = (await front.good("GET", "/statistics", user=""))["stats"]
        assert (stats["running_vms"], stats["total_vcpus"], stats["total_ram"]) == (1, 24, 49152)
        assert set(stats) == {
            "total_vcpus", "used_vcpus", "total_disk_space", "used_disk_space", "total_ram", "used_ram", "running_vms",
        }  # fmt: skip
        assert (await front.ask("GET", "/statistics", user="demo"))[0] == 403


# --- key pairs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signs", [True, False])
async def test_key_pairs_there_and_back(tmp_path: Path, signs: bool) -> None:
    done = 201 if signs else 202
    async with fronting(tmp_path, signs=signs) as front:
        body = {"key_pair": {"name": "made", "key_type": "ssh", "public_key": None}}
        made = await front.good("POST", "/key_pairs", body, user="demo", status=done)
        assert made["key_pair"]["private_key"].startswith("-----BEGIN")
        # It can't be given out twice.
        status, answer = await front.ask("POST", "/key_pairs", body, user="demo")
        assert (status, answer["error"]) == (409, "Conflict")
        mine = {"key_pair": {"name": "mine", "public_key": KEY}}
        for _ in range(10):
            kept = await front.good("POST", "/key_pairs", mine, user="demo", status=done)
            assert kept["key_pair"]["name"] == "mine"
        status, _ = await front.ask(
            "POST", "/key_pairs", {"key_pair": {"name": "mine", "public_key": KEY.replace("P", "Q")}}, user="demo"
        )
        assert status == 409
        every = await front.good("GET", "/key_pairs", user="demo", status=done)
        assert [one["keypair"]["name"] for one in every["key_pairs"]] == ["made", "mine"]
        assert (await front.good("GET", "/key_pairs", user="admin", status=done))["key_pairs"] == []
        env = front.env("demo")
        query = "&".join(f"{name}={value.replace(' ', '%20')}" for name, value in env.items())
        asked = await front.good("GET", f"/key_pairs?{query}", user="", status=done)
        assert len(asked["key_pairs"]) == 2
        for _ in range(10):
            gone = await front.good("DELETE", "/key_pairs", {"keypair_name": "made"}, user="demo", status=done)
            assert gone == {"success": True, "key_pair_name": "made"}
        assert len((await front.good("GET", "/key_pairs", user="demo", status=done))["key_pairs"]) == 1


# --- buttons ---------------------------------------------------------------------------------------------------------------


async def test_instances_are_switched_with_the_users_own_rights(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        id_ = front.cloud.server(name="web-1")
        moves = front.cloud.compute.moves
        for word, asked, state in (
            ("off", "os-stop", "stopped"),
            ("on", "os-start", "active"),
            ("suspend", "suspend", "suspended"),
            ("resume", "resume", "active"),
        ):
            answer = await front.ten_times("POST", f"/update_status/instances/{id_}", {"action": word}, user="demo")
            assert answer["success"] is True
            assert answer["cloud_response"]
            await front.over()
            assert front.cloud.compute.servers[id_]["OS-EXT-STS:vm_state"] == state
            assert moves.asked[asked, id_] == 1, "ten requests are one action"
        status, answer = await front.ask("POST", f"/update_status/instances/{id_}", {"action": "resume"}, user="demo")
        assert status == 201, "it is so already"
        front.cloud.compute.state(id_, "stopped")
        status, answer = await front.ask("POST", f"/update_status/instances/{id_}", {"action": "suspend"}, user="demo")
        assert (status, answer["error"]) == (409, "Conflict")
        assert "is SHUTOFF" in answer["message"]
        # Another tenant's server is not there for him.
        foreign = front.cloud.server(project="admin")
        assert (await front.ask("POST", f"/update_status/instances/{foreign}", {"action": "off"}, user="demo"))[0] == 404
        await front.ten_times("POST", f"/update_status/devices/{id_}", {"action": "destroy"}, user="demo", status=202)
        assert id_ not in front.cloud.compute.servers
        over = await front.over()
        assert [one for one in over if one[0] != "server_delete"] == [
            ("stop", "SUCCEEDED", "done"),
            ("start", "SUCCEEDED", "done"),
            ("suspend", "SUCCEEDED", "done"),
            ("resume", "SUCCEEDED", "done"),
        ]
        assert over[-1] == ("server_delete", "SUCCEEDED", "done")
        # They are in the log, with who asked, and Watcher's clients see them.
        plan, action = front.plans()[0]
        assert plan.requested_by == f"concertim: {front.cloud.user_id('demo')}"
        assert (action.input_parameters["resource_name"], action.request_id in moves.request_ids) == ("web-1", True)
        listed = await front.place.good("GET", "/v1/action_plans/detail")
        assert plan.uuid in [one["uuid"] for one in listed["action_plans"]]
        patch = [{"op": "replace", "path": "/state", "value": "CANCELLED"}]
        assert (await front.place.ask("PATCH", f"/v1/action_plans/{plan.uuid}", patch))[0] == 400


async def test_between_two_that_are_the_same_something_else_may_be_wanted(tmp_path: Path) -> None:
    """Off, and nobody is there to hear it; on; and off again is off again."""
    async with fronting(tmp_path) as front:
        id_ = front.cloud.server()
        path = f"/update_status/instances/{id_}"
        held = front.cloud.compute.door.hold("/servers/*/action", times=1)
        asking = asyncio.create_task(front.ask("POST", path, {"action": "off"}, user="demo"))

        async def begun() -> bool:
            return len(front.plans()) == 1

        await front.place.until(begun)
        asking.cancel()
        await asyncio.wait([asking])
        held.set()
        await front.over()
        for word, state in (("on", "active"), ("off", "stopped")):
            await front.good("POST", path, {"action": word}, user="demo")
            await front.over()
            assert front.cloud.compute.servers[id_]["OS-EXT-STS:vm_state"] == state


async def test_keystone_is_not_asked_again_and_again_with_what_it_refused(tmp_path: Path) -> None:
    """It locks accounts that fail too often, and the front end asks ten times."""
    async with fronting(tmp_path) as front:
        wrong = {"cloud_env": front.env("demo", password="of last year")}
        before = front.cloud.identity.logins
        for _ in range(10):
            assert (await front.ask("GET", "/key_pairs", wrong))[0] == 401
        assert front.cloud.identity.logins == before + 1
        await front.good("GET", "/key_pairs", user="demo")
        # Without a role there is no token for a project either; with one, there is at once.
        project = front.cloud.project_id("service")
        other = {"cloud_env": front.env("demo", project_id=project)}
        assert (await front.ask("GET", "/key_pairs", other))[0] == 401
        role = {"role": "member", "project_id": project, "user_id": front.cloud.user_id("demo")}
        await front.good("POST", "/team_role", {"team_role": role})
        await front.good("GET", "/key_pairs", other)


async def test_a_refusal_is_told_as_one(tmp_path: Path) -> None:
    """The service that this replaces answered 202 to what the cloud had refused."""
    async with fronting(tmp_path, signs=False) as front:
        id_ = front.cloud.server()
        front.cloud.compute.door.fail(403, "/servers/*/action", undone=True)
        status, answer = await front.ask("POST", f"/update_status/devices/{id_}", {"action": "off"}, user="demo")
        assert (status, answer["error"]) == (403, "Forbidden")
        assert (await front.over())[-1] == ("stop", "FAILED", "failed")
        assert front.cloud.compute.servers[id_]["OS-EXT-STS:vm_state"] == "active"


async def test_racks_are_suspended_resumed_and_destroyed(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        heat = front.cloud.orchestration
        heat.seconds = 0.3
        stack = front.cloud.create("stack", {"stack_name": "cluster"})
        servers = [front.cloud.server() for _ in range(3)]
        for one in servers:
            heat.add_resource(stack, "OS::Nova::Server", one)
        for word, status, state in (("suspend", "SUSPEND_COMPLETE", "suspended"), ("resume", "RESUME_COMPLETE", "active")):
            await front.ten_times("POST", f"/update_status/racks/{stack}", {"action": word}, user="demo")
            await front.over()
            assert heat.stacks[stack]["stack_status"] == status
            assert {front.cloud.compute.servers[one]["OS-EXT-STS:vm_state"] for one in servers} == {state}
            assert heat.asked[word, stack] == 1
        heat.fails.add(stack)
        await front.good("POST", f"/update_status/racks/{stack}", {"action": "suspend"}, user="demo")
        failed = (await front.over())[-1]
        assert failed == ("stack_suspend", "FAILED", "unsure")
        assert "SUSPEND_FAILED" in str(front.plans()[-1][0].status_message)
        await front.ten_times("POST", f"/update_status/racks/{stack}", {"action": "destroy"}, user="demo")
        assert (await front.over())[-1] == ("stack_delete", "SUCCEEDED", "done")
        assert stack not in heat.stacks
        assert not set(servers) & set(front.cloud.compute.servers)
        assert heat.asked["delete", stack] == 1
        # Gone it may be asked for again; what never was is not there.
        await front.good("POST", f"/update_status/racks/{stack}", {"action": "destroy"}, user="demo")
        assert (await front.ask("POST", f"/update_status/racks/{stack}", {"action": "suspend"}, user="demo"))[0] == 404


async def test_where_heat_refuses_the_servers_are_asked_one_by_one(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        heat = front.cloud.orchestration
        stack = front.cloud.create("stack", {"stack_name": "cluster"})
        servers = [front.cloud.server() for _ in range(3)]
        for one in servers:
            heat.add_resource(stack, "OS::Nova::Server", one)
        heat.refuses.add(stack)
        answer = await front.good("POST", f"/update_status/racks/{stack}", {"action": "suspend"}, user="demo")
        assert "of its 3 servers 3 were asked" in answer["cloud_response"]
        await front.over()
        assert {front.cloud.compute.servers[one]["OS-EXT-STS:vm_state"] for one in servers} == {"suspended"}
        # One of them can't be: that is told, and of which.
        front.cloud.compute.state(servers[1], "error")
        status, answer = await front.ask("POST", f"/update_status/racks/{stack}", {"action": "resume"}, user="demo")
        assert (status, answer["error"], answer["success"]) == (207, "PartialFailure", False)
        assert {one["id"]: one["success"] for one in answer["results"]} == {
            servers[0]: True,
            servers[1]: False,
            servers[2]: True,
        }
        empty = front.cloud.create("stack", {"stack_name": "empty"})
        heat.refuses.add(empty)
        status, answer = await front.ask("POST", f"/update_status/racks/{empty}", {"action": "suspend"}, user="demo")
        assert (status, "Heat refused it" in answer["message"]) == (409, True)


async def test_volumes_and_networks(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        cinder = front.cloud.block_storage
        server, volume = front.cloud.server(), front.cloud.create("volume", {"name": "disk"})
        cinder.attach(volume, server)
        status, answer = await front.ask("POST", f"/update_status/volumes/{volume}", {"action": "destroy"}, user="demo")
        assert (status, "a server uses it" in answer["message"]) == (409, True)
        await front.ten_times("POST", f"/update_status/volumes/{volume}", {"action": "detach"}, user="demo")
        await front.over()
        assert cinder.volumes[volume]["status"] == "available"
        await front.ten_times("POST", f"/update_status/volumes/{volume}", {"action": "destroy"}, user="demo")
        assert volume not in cinder.volumes
        net = front.cloud.create("network", {"name": "lan"})
        port = front.cloud.port(network=net)
        status, answer = await front.ask("POST", f"/update_status/networks/{net}", {"action": "destroy"}, user="demo")
        assert (status, "still in use" in answer["message"]) == (409, True)
        front.cloud.delete("port", port)
        await front.ten_times("POST", f"/update_status/networks/{net}", {"action": "destroy"}, user="demo")
        assert net not in front.cloud.network.networks
        over = await front.over()
        assert [one for one in over if one[1] == "SUCCEEDED"] == [
            ("volume_detach", "SUCCEEDED", "done"),
            ("volume_delete", "SUCCEEDED", "done"),
            ("network_delete", "SUCCEEDED", "done"),
        ]


async def test_asked_for_ten_times_at_once_it_is_done_once(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        front.cloud.compute.moves.seconds = 0.5
        id_ = front.cloud.server()
        answers = await asyncio.gather(
            *(front.ask("POST", f"/update_status/instances/{id_}", {"action": "off"}, user="demo") for _ in range(10))
        )
        assert [status for status, _ in answers] == [201] * 10
        assert await front.over() == [("stop", "SUCCEEDED", "done")]
        assert front.cloud.compute.moves.asked["os-stop", id_] == 1


async def test_no_answer_is_no_end(tmp_path: Path) -> None:
    """Nova does it, and its answer is lost: the cloud is looked at, and it is not done twice."""
    async with fronting(tmp_path) as front:
        front.cloud.compute.moves.seconds = 0.3
        id_ = front.cloud.server()
        front.cloud.compute.door.cut("/servers/*/action", times=1)
        status, _ = await front.ask("POST", f"/update_status/instances/{id_}", {"action": "off"}, user="demo")
        assert status == 201
        assert await front.over() == [("stop", "SUCCEEDED", "done")]
        assert front.cloud.compute.moves.asked["os-stop", id_] == 1
        # And one that never got there is told, and can be asked for again.
        front.cloud.compute.door.fail(503, "/servers/*/action", times=1, undone=True)
        status, _ = await front.ask("POST", f"/update_status/instances/{id_}", {"action": "on"}, user="demo")
        assert status == 503
        await front.good("POST", f"/update_status/instances/{id_}", {"action": "on"}, user="demo")
        assert (await front.over())[1:] == [("start", "FAILED", "failed"), ("start", "SUCCEEDED", "done")]


async def test_what_was_under_way_is_followed_after_a_restart(tmp_path: Path) -> None:
    async with FakeCloud(SystemClock()) as cloud:
        furnish(cloud)
        cloud.orchestration.seconds = 1.5
        stack = cloud.create("stack")
        async with fronting(tmp_path, cloud=cloud) as front:
            await front.good("POST", f"/update_status/racks/{stack}", {"action": "suspend"}, user="demo")
            assert [plan.state for plan, _ in front.plans()] == ["ONGOING"]
        async with fronting(tmp_path, cloud=cloud) as front:
            assert await front.over() == [("stack_suspend", "SUCCEEDED", "done")]
        assert cloud.orchestration.asked["suspend", stack] == 1


async def test_what_was_written_down_and_never_asked_for_is_done_when_it_is_asked_for_again(tmp_path: Path) -> None:
    """The process died between the two."""
    async with FakeCloud(SystemClock()) as cloud:
        furnish(cloud)
        id_ = cloud.server()
        async with fronting(tmp_path, cloud=cloud) as front:
            records = front.place.service.records
            assert records is not None
            plan = ActionPlan(
                uuid=str(uuid.uuid4()), audit_uuid="", strategy_uuid="", strategy_name="", state="ONGOING", requested_by="x"
            )
            action = Action(
                uuid=str(uuid.uuid4()),
                action_plan_uuid=plan.uuid,
                audit_uuid="",
                action_type="stop",
                state="ONGOING",
                input_parameters={"resource_id": id_},
                before={"status": "ACTIVE"},
            )
            await records.write([plan, action])
        async with fronting(tmp_path, cloud=cloud) as front:
            answer = await front.good("POST", f"/update_status/instances/{id_}", {"action": "off"}, user="demo")
            assert "asked for" in answer["cloud_response"]
            assert await front.over() == [("stop", "FAILED", "failed"), ("stop", "SUCCEEDED", "done")]
        assert cloud.compute.moves.asked["os-stop", id_] == 1


async def test_who_hangs_up_stops_nothing(tmp_path: Path) -> None:
    async with fronting(tmp_path) as front:
        id_ = front.cloud.server()
        held = front.cloud.compute.door.hold("/servers/*/action", times=1)
        asking = asyncio.create_task(front.ask("POST", f"/update_status/instances/{id_}", {"action": "off"}, user="demo"))

        async def begun() -> bool:
            return len(front.plans()) == 1

        await front.place.until(begun)
        asking.cancel()
        await asyncio.wait([asking])
        held.set()
        assert await front.over() == [("stop", "SUCCEEDED", "done")]


# --- the cluster builder, and what is in no log ----------------------------------------------------------------------------


async def test_no_secret_is_in_any_log_or_in_the_store(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with fronting(tmp_path) as front:
        body = {"username": "ann", "password": NEW_PASSWORD}
        user = (await front.good("POST", "/user", body))["user_cloud_id"]
        project = (await front.good("POST", "/team", {"name": "t"}))["project_id"]
        await front.good("POST", "/team_role", {"team_role": {"role": "member", "project_id": project, "user_id": user}})
        key = await front.good("POST", "/key_pairs", {"key_pair": {"name": "k"}}, user="demo")
        id_ = front.cloud.server()
        await front.good("POST", f"/update_status/instances/{id_}", {"action": "off"}, user="demo")
        for method, path, bad, *_ in BAD:
            await front.ask(method, path, bad, user="demo")
        front.cloud.keystone.fail(500)
        await front.ask("POST", "/user", body)
        front.cloud.keystone.heal()
        front.cloud.keystone.garble(b"{}", "/users*")
        assert (await front.ask("POST", "/user", body))[0] == 500
        await front.over()
        secrets = [
            NEW_PASSWORD,
            JWT_SECRET,
            front.cloud.credentials("demo")["password"],
            front.cloud.credentials("admin")["password"],
            key["key_pair"]["private_key"].split("\n")[1],
            *front.cloud.identity.tokens,
        ]
    text = "\n".join(f"{record.getMessage()} {record.exc_text or ''} {record.__dict__}" for record in caplog.records)
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert "a user was made for the front end" in text
    for secret in secrets:
        assert secret not in text
        assert secret.encode() not in kept
        assert json.dumps(secret)[1:-1].encode() not in kept


# --- what the cloud has to have --------------------------------------------------------------------------------------------


async def test_what_the_cloud_lacks_is_named_with_what_makes_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeCloud(SystemClock()) as cloud:
        cloud.metric.in_catalog = True
        meters = {"meters": [{"name": "gnocchi", "type": "gnocchi"}], "polling": {"meter": "gnocchi", "projects": ["p"]}}
        async with fronting(tmp_path / "one", cloud=cloud, more=meters) as front:
            numbers = front.place.service.telemetry

            async def looked() -> bool:
                return b"vedette_prerequisites_missing 4.0" in numbers.render()

            await front.place.until(looked)
        said = [one.getMessage() for one in caplog.records if one.name == "vedette.engine.prerequisites"]
        assert said == [
            "the cloud has no role watcher, which a front end needs: openstack role create watcher",
            "the cloud has no user concertim, which a front end needs: openstack user create --password-prompt concertim",
            "the cloud has no archive policy concertim_rate_policy, which a front end needs: "
            "deploy/ceilometer/archive-policies.sh",
            "the cloud has no archive policy concertim_policy, which a front end needs: deploy/ceilometer/archive-policies.sh",
        ]
        cloud.metric.archive_policies |= {"concertim_rate_policy"}
        async with fronting(tmp_path / "two", cloud=cloud, more=meters, create_missing=True) as front:

            async def made() -> bool:
                return b"vedette_prerequisites_missing 1.0" in front.place.service.telemetry.render()

            await front.place.until(made)
        assert "watcher" in cloud.identity.roles()
        assert cloud.user_id("concertim")


# --- once more -------------------------------------------------------------------------------------------------------------


async def test_an_answer_that_nobody_took_is_given_to_who_asks_the_same_again(tmp_path: Path) -> None:
    """A private key is told once: its name would be taken, and the key lost."""
    async with fronting(tmp_path) as front:
        body = {"key_pair": {"name": "made"}}
        held = front.cloud.compute.door.hold("/os-keypairs", times=1, stale=True)
        asking = asyncio.create_task(front.ask("POST", "/key_pairs", body, user="demo"))

        async def made() -> bool:
            return len(front.cloud.compute.keypairs) == 1

        await front.place.until(made)
        asking.cancel()
        await asyncio.wait([asking])
        second = asyncio.create_task(front.ask("POST", "/key_pairs", body, user="demo"))
        await asyncio.sleep(0.1)
        held.set()
        status, answer = await second
        assert (status, answer["key_pair"]["private_key"][:10]) == (201, "-----BEGIN")
        # It was taken: nobody gets it once more, and nobody else gets it at all.
        assert (await front.ask("POST", "/key_pairs", body, user="demo"))[0] == 409
        held = front.cloud.compute.door.hold("/os-keypairs", times=1, stale=True)
        body = {"key_pair": {"name": "another"}}
        asking = asyncio.create_task(front.ask("POST", "/key_pairs", body, user="demo"))

        async def two() -> bool:
            return len(front.cloud.compute.keypairs) == 2

        await front.place.until(two)
        asking.cancel()
        await asyncio.wait([asking])
        held.set()
        await asyncio.sleep(0.3)
        wrong = {**body, "cloud_env": front.env("demo", password="not the password")}
        assert (await front.ask("POST", "/key_pairs", wrong))[0] == 401
        assert (await front.ask("POST", "/key_pairs", body, user="demo"))[0] == 201
        assert len(front.cloud.compute.keypairs) == 2
