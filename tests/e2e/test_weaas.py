"""WEaaS' own face, on the main port and on its own listener: the rows W1–W10 and W27 of what it was.

Left out: the client command (tests/e2e/test_cli_demo.py), other tenants (tests/e2e/test_tenancy.py).
"""

from __future__ import annotations

import asyncio
import json
import logging
import textwrap
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from serving import (
    APIS,
    HOST,
    SECONDS,
    A,
    Asker,
    B,
    Cloud,
    Running,
    Stream,
    asking,
    cloud,
    instance,
    open_service,
    port,
    uuid_of,
)

from vedette import plugins
from vedette.compat.weaas import read_config
from vedette.config import load_text
from vedette.errors import ConfigError

OWN = {"faces": {"weaas": {"listen": "127.0.0.1:0"}}}
NOW = "sendInitialEvents=false"


@pytest.fixture(params=["main port", "own listener"])
def at(request: pytest.FixtureRequest) -> Any:
    """Where the face is asked."""
    return lambda running: running.url if request.param == "main port" else running.weaas_url


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path, watch={"bookmark_seconds": "100ms", "max_watchers": 1000}, **OWN) as running:
        yield running


@pytest.fixture
async def asker(running: Running) -> AsyncIterator[Asker]:
    async with asking(running) as asker:
        yield asker


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path, **OWN) as place:
        yield place


async def tell_one(running: Running, endpoint: str, number: int, project: str = A) -> str:
    """News for an endpoint; the id of the object it is about."""
    id_ = uuid_of(number)
    said: dict[str, tuple[str, dict[str, Any]]] = {
        "port": ("port.create.end", {"port": port(id_, project)}),
        "loadbalancer": ("octavia.loadbalancer.create.end", {"loadbalancer_id": id_, "project_id": project, "name": "lb"}),
        "listener": ("listener.create.end", {"listener": {"id": id_, "project_id": project, "name": "l"}}),
        "pool": ("pool.create.end", {"pool": {"id": id_, "project_id": project, "name": "p"}}),
        "member": ("member.create.end", {"member": {"id": id_, "project_id": project, "name": "m"}}),
        "compute": ("compute.instance.create.end", instance(id_, project)),
    }
    await running.tell(*said[endpoint])
    return id_


KIND_OF = {
    "port": "Port",
    "loadbalancer": "LoadBalancer",
    "listener": "Listener",
    "pool": "Pool",
    "member": "Member",
    "compute": "Server",
}


async def test_w01_each_endpoint_streams_its_own_kind_and_nothing_else(running: Running, asker: Asker, at: Any) -> None:
    async with AsyncExitStack() as stack:
        streams: dict[str, Stream] = {}
        for endpoint in KIND_OF:
            streams[endpoint] = await stack.enter_async_context(asker.watch(f"{at(running)}/{endpoint}?{NOW}"))
        await running.until_watched(len(streams))
        told = {}
        for number, endpoint in enumerate(KIND_OF):
            told[endpoint] = await tell_one(running, endpoint, number)
        for number, endpoint in enumerate(KIND_OF):
            told[endpoint + " again"] = await tell_one(running, endpoint, 100 + number)
        for endpoint, stream in streams.items():
            assert stream.response.headers["Content-Type"].startswith("application/json")
            assert stream.response.headers["Transfer-Encoding"] == "chunked"
            for which in ("", " again"):
                event = await stream.event()
                while event["type"] == "BOOKMARK":
                    event = await stream.event()
                assert event["type"] == "ADDED"
                assert event["object"]["kind"] == KIND_OF[endpoint]
                assert event["object"]["metadata"]["name"] == told[endpoint + which]


async def test_w02_two_hundred_clients_get_every_event_once_and_in_order(running: Running, asker: Asker, at: Any) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(asker.watch(f"{at(running)}/port?{NOW}")) for _ in range(200)]
        await running.until_watched(200)
        for number in range(25):
            await running.port(uuid_of(number))
        wanted = [("ADDED", uuid_of(number)) for number in range(25)]

        async def all_of(stream: Stream) -> list[tuple[str, str]]:
            return [await stream.change() for _ in wanted]

        for seen in await asyncio.gather(*(all_of(stream) for stream in streams)):
            assert seen == wanted


async def test_w03_the_root_says_what_there_is_to_anybody(place: Cloud, at: Any) -> None:
    async with asking(place) as asker:
        code, headers, body = await asker.get(f"{at(place)}/")
        assert (code, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
        assert body.startswith(b"No endpoint specified in the URL!\n")
        for endpoint in KIND_OF:
            assert f"/{endpoint}\n".encode() in body


async def test_w04_w05_a_token_is_taken_from_the_path_in_both_orders_and_from_headers_and_never_logged(
    place: Cloud, at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    token = place.tokens["alice"]
    with caplog.at_level(logging.DEBUG):
        async with asking(place) as asker, AsyncExitStack() as stack:
            base = at(place)
            streams = [
                await stack.enter_async_context(asker.watch(f"{url}?{NOW}", headers=headers))
                for url, headers in (
                    (f"{base}/{token}/port", {}),
                    (f"{base}/port/{token}", {}),
                    (f"{base}/port", {"X-Auth-Token": token}),
                    (f"{base}/port", {"Authorization": f"Bearer {token}"}),
                    (f"{base}/port/{token}", {"X-Auth-Token": token}),
                )
            ]
            await place.until_watched(len(streams))
            assert place.keystone.validations == 1, "one verdict for all of them"
            await place.port(uuid_of(1))
            for stream in streams:
                assert await stream.change() == ("ADDED", uuid_of(1))
            for path in (
                f"/port/{token}x",
                f"/{token}x/port",
                f"/{token}/nothing",
                f"/{token}",
                f"/port/{token}?fieldSelector=x",
            ):
                code, _, body = await asker.get(base + path)
                assert 400 <= code < 500
                assert token.encode() not in body
            # What is no HTTP at all, with a token in it.
            host, port_ = base.rpartition("/")[2].split(":")
            reader, writer = await asyncio.open_connection(host, int(port_), ssl=place.context)
            writer.write(f"GET /port/{token} x y HTTP/1.1\r\n\r\n".encode())
            async with asyncio.timeout(SECONDS):
                assert b" 400 " in await reader.readline()
            writer.close()
    for record in caplog.records:
        told = f"{record.getMessage()} {record.__dict__} {record.exc_text or ''}"
        for one in place.tokens.values():
            assert one[:20] not in told, record


async def test_w06_without_authentication_a_token_is_optional_and_the_log_warns(
    running: Running, asker: Asker, at: Any, caplog: pytest.LogCaptureFixture
) -> None:
    base = at(running)
    long = "gAAAAAB" + "x" * 180
    paths = (f"{base}/port?{NOW}", f"{base}/port/{long}?{NOW}", f"{base}/{long}/port?{NOW}", f"{base}/port/{A}?{NOW}")
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(asker.watch(path)) for path in paths]
        streams.append(await stack.enter_async_context(asker.watch(paths[0], headers={"X-Auth-Token": "any"})))
        await running.until_watched(len(streams))
        await running.port(uuid_of(2), project=B)
        await running.port(uuid_of(1))
        for stream in streams:
            # A project's id in the path is the one project to look at, as the original's client asked for it.
            if f"/{A}" not in str(stream.response.url):
                assert await stream.change() == ("ADDED", uuid_of(2))
            assert await stream.change() == ("ADDED", uuid_of(1))


async def test_w06_the_start_without_authentication_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_service(tmp_path):
        assert "authentication is off" in caplog.text


async def test_w07_a_project_sees_its_own_and_an_admin_all_or_one(place: Cloud, at: Any) -> None:
    async with asking(place) as asker, AsyncExitStack() as stack:
        base = at(place)

        async def open_(path: str, who: str) -> Stream:
            return await stack.enter_async_context(asker.watch(base + path, headers=place.token(who)))

        alice, bob = await open_(f"/port?{NOW}", "alice"), await open_(f"/port/{B}?{NOW}", "bob")
        everything, one = await open_(f"/port?{NOW}", "root"), await open_(f"/port/{B}?{NOW}", "root")
        also = await open_(f"/port?project={B}&{NOW}", "root")
        await place.until_watched(5)
        await place.port(uuid_of(1))
        await place.port(uuid_of(2), project=B)
        assert await alice.change() == ("ADDED", uuid_of(1))
        for stream in (bob, one, also):
            assert await stream.change() == ("ADDED", uuid_of(2))
        assert [await everything.change(), await everything.change()] == [("ADDED", uuid_of(1)), ("ADDED", uuid_of(2))]
        assert HOST.encode() not in alice.raw + bob.raw
        assert HOST.encode() in everything.raw


async def test_w08_errors_have_their_codes_and_the_texts_of_old(place: Cloud, at: Any) -> None:
    async with asking(place) as asker:
        base, alice = at(place), place.token("alice")
        for path, code, says, headers in (
            ("/nothing", 404, "Invalid endpoint!", alice),
            ("/port", 401, "Unable to authenticate token!", {}),
            ("/port", 401, "Unable to authenticate token!", {"X-Auth-Token": "wrong"}),
            ("/port/wrong", 401, "Unable to authenticate token!", {}),
            ("/wrong/port", 401, "Unable to authenticate token!", {}),
            (f"/port/{B}", 403, "Unauthorized request.", alice),
            (f"/{B}/port", 403, "Unauthorized request.", alice),
            (f"/port?project={B}", 403, "Unauthorized request.", alice),
            ("/port?resourceVersion=x", 400, "resourceVersion", alice),
            ("/port?timeoutSeconds=x", 400, "timeoutSeconds", alice),
            ("/port?format=raw&fieldSelector=status.x=1", 400, "object.id", alice),
        ):
            said = await asker.status(base + path, code, headers=headers)
            assert says in said["message"], path
        await place.keystone.stop()
        code, headers, _ = await asker.get(f"{base}/port", headers={"X-Auth-Token": "new"})
        assert (code, "Retry-After" in headers) == (503, True)


async def test_w08_too_many_streams_are_a_503(tmp_path: Path, at: Any) -> None:
    async with open_service(tmp_path, watch={"max_watchers": 1}, **OWN) as running, asking(running) as asker:
        async with asker.watch(f"{at(running)}/port"):
            await running.until_watched()
            code, headers, body = await asker.get(f"{at(running)}/port")
        assert (code, int(headers["Retry-After"]) >= 1) == (503, True)
        assert json.loads(body)["message"] == "1 watches are open (watch.max_watchers)"


SEED_ERA = "neutron:\n  - port\noctavia:\n  - loadbalancer\n  - listener\n  - pool\n  - member\nnova:\n  - compute\n"
LATER = "neutron:\n  - port\nlbaasv2:\n  - loadbalancer\n  - listener\n  - pool\n  - member\n"


@pytest.mark.parametrize("text", [SEED_ERA, LATER])
async def test_w09_the_config_of_both_eras_is_taken_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    face = {"faces": {"weaas": {"listen": "127.0.0.1:0", "config": str(file)}}}
    names = [line.strip(" -") for line in text.splitlines() if "-" in line]
    async with open_service(tmp_path, **face) as running, asking(running) as asker:
        _, _, body = await asker.get(f"{running.weaas_url}/")
        assert body.decode().split("There are:\n")[1].split() == [f"/{name}" for name in names]
        for name in KIND_OF:
            code = (await asker.get(f"{running.weaas_url}/{name}?timeoutSeconds=-1"))[0]
            assert code == (200 if name in names else 404)


async def test_w09_another_endpoint_needs_only_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text('neutron: [port, quota, network]\nheat:\n  - stacks: "orchestration.stack.*"\n')
    face = {"faces": {"weaas": {"config": str(file)}}}
    async with open_service(tmp_path, **face) as running, asking(running) as asker, AsyncExitStack() as stack:
        streams = {
            name: await stack.enter_async_context(asker.watch(f"/{name}?{NOW}")) for name in ("quota", "stacks", "network")
        }
        await running.until_watched(3)
        await running.tell("quota.update.end", {"quota": {"port": 5}})
        await running.tell("orchestration.stack.create.end", {"stack_identity": uuid_of(3), "tenant_id": A})
        await running.tell("network.create.end", {"network": {"id": uuid_of(4), "project_id": A}})
        assert (await streams["quota"].event())["payload"] == {"quota": {"port": 5}}
        assert (await streams["stacks"].event())["event_type"] == "orchestration.stack.create.end"
        assert await streams["network"].change() == ("ADDED", uuid_of(4))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- port", "must map services"),
        ("neutron: port", "must be a list of endpoints"),
        ("neutron: [{a: b, c: d}]", "is not an endpoint"),
        ("neutron: ['a/b']", "is not an endpoint"),
        ("neutron: [apis]", "is a path of Vedette itself"),
        ("neutron: [port", "is not YAML"),
        ("neutron: !!python/object/apply:os.system [true]", "is not YAML"),
    ],
)
def test_w09_a_config_that_can_not_be_read_says_where(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=says) as caught:
        read_config(file, plugins.kinds())
    assert str(file) in str(caught.value)


async def test_w11_a_stop_ends_every_stream_with_its_last_chunk(tmp_path: Path, at: Any) -> None:
    before = asyncio.all_tasks()
    async with (
        open_service(tmp_path, **OWN) as running,
        asking(running) as asker,
        asker.watch(f"{at(running)}/port") as one,
        asker.watch(f"{at(running)}/compute?format=raw") as two,
    ):
        await running.until_watched(2)
        await running.service.stop()
        # aiohttp raises when a chunked answer has no end.
        for stream in (one, two):
            await stream.rest()
    assert asyncio.all_tasks() == before


async def test_w17_w18_a_new_client_gets_what_is_there_then_a_bookmark(running: Running, asker: Asker, at: Any) -> None:
    for number in range(3):
        await running.port(uuid_of(number))
    async with asker.watch(f"{at(running)}/port") as stream:
        events = [await stream.event() for _ in range(4)]
        assert [event["type"] for event in events] == ["ADDED"] * 3 + ["BOOKMARK"]
        assert events[3]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        metadata = events[0]["object"]["metadata"]
        assert (metadata["uid"], metadata["name"], metadata["namespace"]) == (uuid_of(0), uuid_of(0), A)
        assert int(events[3]["object"]["metadata"]["resourceVersion"]) == running.head


async def test_w19_a_client_resumes_and_misses_nothing_or_is_told_410(running: Running, asker: Asker, at: Any) -> None:
    place = await running.port(uuid_of(0))
    for number in range(1, 11):
        await running.port(uuid_of(number))
    async with asker.watch(f"{at(running)}/port?resourceVersion={place}") as stream:
        assert [await stream.change() for _ in range(10)] == [("ADDED", uuid_of(number)) for number in range(1, 11)]
    store = running.service.store
    assert store is not None
    while await store.retain(horizon=running.service.clock.now_us() + 10**9):
        pass
    async with asker.watch(f"{at(running)}/port?resourceVersion={place}") as stream:
        event = await stream.event()
        assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")
        assert await stream.line() == b""


async def test_w20_bookmarks_come_by_themselves(running: Running, asker: Asker, at: Any) -> None:
    async with asker.watch(f"{at(running)}/port?{NOW}") as stream, asker.watch(f"{at(running)}/port?format=raw") as raw:
        for _ in range(3):
            event = await stream.event()
            assert event["type"] == "BOOKMARK"
            assert event["object"]["metadata"]["resourceVersion"] == str(running.head)
            assert await raw.line() == b"\n"


async def test_w27_raw_notifications_are_json_and_a_blank_line_and_tell_tenants_of_no_host(place: Cloud, at: Any) -> None:
    async with asking(place) as asker, AsyncExitStack() as stack:
        streams = {
            who: await stack.enter_async_context(asker.watch(f"{at(place)}/port?format=raw", headers=place.token(who)))
            for who in ("alice", "bob", "root")
        }
        await place.until_watched(3)
        more = {"request_id": "req-1", "actor_project": B}
        await place.tell("port.create.end", {"port": port(uuid_of(1))}, id="the-message", **more)
        await place.tell("network.create.end", {"network": {"id": uuid_of(9), "project_id": A}})
        # News of a network's tags has the same event type as that of a port's.
        tags = {"parent_resource": "networks", "parent_resource_id": uuid_of(9), "tags": ["t"]}
        await place.tell("tag.create.end", tags)
        await place.port(uuid_of(2), project=B)
        found: dict[str, list[dict[str, Any]]] = {}
        for who, count in (("alice", 1), ("bob", 1), ("root", 2)):
            for _ in range(count):
                found.setdefault(who, []).append(json.loads(await streams[who].line()))
                assert await streams[who].line() == b"\n"
        (one,) = found["alice"]
        assert (one["message_id"], one["event_type"], one["priority"]) == ("the-message", "port.create.end", "INFO")
        assert one["payload"]["port"]["id"] == uuid_of(1)
        assert one["_context_request_id"] == "req-1"
        assert one["_context_project_id"] is None
        assert int(one["resourceVersion"]) < place.head
        assert [item["payload"]["port"]["id"] for item in found["bob"]] == [uuid_of(2)]
        assert [item["payload"]["port"]["id"] for item in found["root"]] == [uuid_of(1), uuid_of(2)]
        assert found["root"][0]["_context_project_id"] == B
        assert found["root"][0]["payload"]["port"]["binding:host_id"] == HOST
        assert HOST.encode() not in streams["alice"].raw + streams["bob"].raw
        path = f"{at(place)}/port?format=raw&resourceVersion={one['resourceVersion']}"
        async with asker.watch(path, headers=place.token("root")) as resumed:
            assert json.loads(await resumed.line())["payload"]["port"]["id"] == uuid_of(2)


@pytest.mark.parametrize("form", ["", "&format=raw"])
async def test_w28_one_object_can_be_selected(running: Running, asker: Asker, at: Any, form: str) -> None:
    async with asker.watch(f"{at(running)}/port?{NOW}&fieldSelector=object.id={uuid_of(2)}{form}") as stream:
        await running.until_watched()
        for number in range(4):
            await running.port(uuid_of(number))
        await running.port(uuid_of(2), "update", name="new")
        seen = []
        while len(seen) < 2:
            line = await stream.line()
            if line.strip() and b"BOOKMARK" not in line:
                assert uuid_of(2).encode() in line
                seen.append(json.loads(line))


async def test_endpoints_and_vedettes_own_paths_do_not_meet(running: Running, asker: Asker) -> None:
    for path in ("/apis", "/api", "/version", "/healthz", "/v1/status", f"{APIS}/ports"):
        assert (await asker.get(path))[0] == 200
    await asker.status(f"{running.weaas_url}/apis", 404)
    await asker.status(f"{running.weaas_url}{APIS}/ports", 404)
    await asker.status("/apis/port", 404)
    await asker.status("/port/apis", 404)


def test_the_configuration_in_the_howto_is_one() -> None:
    text = (Path(__file__).parents[2] / "docs" / "howto" / "from-weaas.md").read_text()
    example = textwrap.dedent(text.partition("```yaml\n")[2].partition("```")[0])
    config = load_text(example, {"RABBIT_PASSWORD": "never-shown"})
    assert config.faces.weaas is not None
    assert config.faces.weaas.config == "/etc/weaas/config.yml"
