"""Clients that know nothing of Vedette: kr8s, kubernetes_asyncio, kopf, Kuryr's watch loop, curl, a browser's EventSource.

Left out: kubectl (test_kubectl.py), WEaaS' clients (test_weaas.py), rights (test_tenancy.py).
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import kr8s.asyncio
import kubernetes_asyncio.client as kubernetes
import kubernetes_asyncio.watch
import pytest
import requests
from kr8s.asyncio.objects import new_class
from serving import APIS, GROUP, HOST, SECONDS, A, Asker, B, Cloud, Running, asking, cloud, open_service, uuid_of

from vedette.testing.proxy import Proxy


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path, watch={"bookmark_seconds": "200ms"}) as running:
        yield running


@pytest.fixture
async def asker(running: Running) -> AsyncIterator[Asker]:
    async with asking(running) as asker:
        yield asker


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Cloud]:
    async with cloud(tmp_path) as place:
        yield place


# --- Python clients --------------------------------------------------------------------------------------------------------


async def test_kr8s_lists_gets_and_watches(running: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    await running.port(uuid_of(1), name="web")
    await running.port(uuid_of(2), project=B)
    api = await kr8s.asyncio.api(url=running.url)
    port_class = new_class("Port", version=f"{GROUP}/v1", namespaced=True, plural="ports")
    found = [one.name async for one in api.get(f"ports.{GROUP}", namespace=kr8s.ALL)]
    assert found == [uuid_of(1), uuid_of(2)]
    selected = [one.name async for one in api.get(f"ports.{GROUP}", namespace=kr8s.ALL, field_selector={"status.name": "web"})]
    assert selected == [uuid_of(1)]
    one = await port_class.get(uuid_of(1), namespace=A, api=api)
    assert one.raw["status"]["name"] == "web"
    assert await one.exists()
    with pytest.raises(kr8s.NotFoundError):
        await port_class.get(uuid_of(9), namespace=A, api=api, timeout=0)

    async def watch() -> list[tuple[str, str]]:
        seen: list[tuple[str, str]] = []
        async for verb, item in api.watch(f"ports.{GROUP}", namespace=kr8s.ALL):
            seen.append((verb, item.name))
            if verb == "DELETED":
                return seen
        raise AssertionError("the watch ended")

    watching = asyncio.create_task(watch())
    await running.until_watched()
    await running.port(uuid_of(1), "update", name="other")
    await running.port(uuid_of(1), "delete", name="other")
    async with asyncio.timeout(SECONDS):
        seen = await watching
    assert seen[-2:] == [("MODIFIED", uuid_of(1)), ("DELETED", uuid_of(1))]


@asynccontextmanager
async def objects(url: str, **options: Any) -> AsyncIterator[kubernetes.CustomObjectsApi]:
    configuration = kubernetes.Configuration(host=url)
    for name, value in options.items():
        setattr(configuration, name, value)
    async with kubernetes.ApiClient(configuration) as client:
        yield kubernetes.CustomObjectsApi(client)


async def test_kubernetes_asyncio_watches_and_resumes_after_cuts(running: Running) -> None:
    """It sends watch=True. Its watch resumes by itself where the server ended one; after a cut its user goes on from
    `resource_version`."""
    async with Proxy(*running.service.addresses[0]) as proxy, objects(f"http://127.0.0.1:{proxy.port}") as api:
        await running.port(uuid_of(0))
        listed = await api.list_cluster_custom_object(GROUP, "v1", "ports")
        place = listed["metadata"]["resourceVersion"]
        seen: list[tuple[str, str]] = []
        watch = kubernetes_asyncio.watch.Watch()
        watch.resource_version = place
        for number in range(1, 13):
            # What is told while nobody listens is not missed.
            await running.port(uuid_of(number))
        cuts = 0
        async with asyncio.timeout(SECONDS):
            while len(seen) < 12:
                stream = watch.stream(
                    api.list_cluster_custom_object,
                    GROUP,
                    "v1",
                    "ports",
                    resource_version=watch.resource_version,
                    timeout_seconds=30,
                )
                try:
                    async for event in stream:
                        seen.append((event["type"], event["object"]["metadata"]["name"]))
                        if len(seen) in (3, 7) and cuts < 2:
                            cuts += 1
                            proxy.cut()
                        if len(seen) == 12:
                            break
                except (aiohttp.ClientError, ConnectionError):
                    continue
        await watch.close()
    assert seen == [("ADDED", uuid_of(number)) for number in range(1, 13)]


async def test_kubernetes_asyncio_watches_with_a_token_over_tls_and_bookmarks(tmp_path: Path) -> None:
    async with (
        cloud(tmp_path, watch={"bookmark_seconds": "100ms"}) as place,
        objects(
            place.url, ssl_ca_cert=str(place.authority.ca), api_key={"BearerToken": f"Bearer {place.tokens['alice']}"}
        ) as api,
    ):
        watch = kubernetes_asyncio.watch.Watch()
        verbs = []
        options = {"resource_version": str(place.head), "allow_watch_bookmarks": True}
        async with asyncio.timeout(SECONDS):
            async for event in watch.stream(api.list_namespaced_custom_object, GROUP, "v1", A, "ports", **options):
                verbs.append(event["type"])
                if verbs == ["BOOKMARK"]:
                    await place.port(uuid_of(1), project=B)
                    await place.port(uuid_of(2))
                if event["type"] == "ADDED":
                    assert event["object"]["metadata"]["name"] == uuid_of(2)
                    break
        await watch.close()
        assert verbs[0] == "BOOKMARK"
        with pytest.raises(kubernetes.ApiException) as refused:
            await api.list_namespaced_custom_object(GROUP, "v1", A, "nothings")
        assert (refused.value.status, json.loads(refused.value.body)["reason"]) == (404, "NotFound")


async def test_kubernetes_asyncio_is_told_to_list_again_when_its_place_is_gone(running: Running) -> None:
    place = await running.port(uuid_of(0))
    await running.port(uuid_of(1))
    store = running.service.store
    assert store is not None
    while await store.retain(horizon=running.service.clock.now_us() + 10**9):
        pass
    async with objects(running.url) as api:
        watch = kubernetes_asyncio.watch.Watch()
        with pytest.raises(kubernetes.ApiException) as gone:
            async for _event in watch.stream(api.list_cluster_custom_object, GROUP, "v1", "ports", resource_version=str(place)):
                pass
        await watch.close()
    assert gone.value.status == 410


# --- kopf ------------------------------------------------------------------------------------------------------------------

OPERATOR = """
import kopf

@kopf.on.startup()
def settings(settings, **_):
    settings.posting.enabled = False
    settings.scanning.disabled = True

@kopf.index("openstack.vedette.dev", "v1", "networks")
def names(name, status, **_):
    return {name: status["name"]}

@kopf.on.event("openstack.vedette.dev", "v1", "ports")
def told(event, name, namespace, status, names, **_):
    network = next(iter(names.get(status.get("network_id"), ["?"])))
    print("TOLD", event["type"], name, namespace, status.get("status"), network, flush=True)
"""


async def test_a_kopf_operator_gets_every_event_and_its_indices(running: Running, tmp_path: Path) -> None:
    network = uuid_of(1, "4e000000")
    await running.tell("network.create.end", {"network": {"id": network, "project_id": A, "name": "blue-net"}})
    await running.port(uuid_of(1))
    (tmp_path / "operator.py").write_text(OPERATOR)
    config = {
        "apiVersion": "v1", "kind": "Config", "current-context": "v",
        "clusters": [{"name": "v", "cluster": {"server": running.url}}],
        "users": [{"name": "v", "user": {}}],
        "contexts": [{"name": "v", "context": {"cluster": "v", "user": "v"}}],
    }  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "kopf", "run", "-A", "--standalone", str(tmp_path / "operator.py"),
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "KUBECONFIG": str(tmp_path / "config")},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    heard: list[str] = []

    async def told() -> list[str]:
        assert process.stdout is not None
        async with asyncio.timeout(SECONDS):
            while line := (await process.stdout.readline()).decode():
                heard.append(line)
                if line.startswith("TOLD"):
                    return line.split()[1:]
        raise AssertionError("".join(heard))

    try:
        # kopf has no type for what it listed at first.
        assert await told() == ["None", uuid_of(1), A, "DOWN", "blue-net"]
        await running.until_watched(2)
        await running.port(uuid_of(2), project=B, status="ACTIVE")
        assert await told() == ["ADDED", uuid_of(2), B, "ACTIVE", "blue-net"]
        await running.tell("network.update.end", {"network": {"id": network, "project_id": A, "name": "green-net"}})
        await running.port(uuid_of(1), "update", status="ACTIVE")
        after = await told()
        assert after[:4] == ["MODIFIED", uuid_of(1), A, "ACTIVE"]
        await running.port(uuid_of(2), "delete", project=B)
        assert (await told())[:3] == ["DELETED", uuid_of(2), B]
    finally:
        process.terminate()
        async with asyncio.timeout(SECONDS):
            rest, _ = await process.communicate()
    assert b"Traceback" not in rest, rest.decode()
    assert not [line for line in heard if "Traceback" in line], "".join(heard)


# --- Kuryr -----------------------------------------------------------------------------------------------------------------


class Kuryr:
    """Watches as Kuryr's client does: `?watch=true`, one JSON object a line, remembers each object's resourceVersion, connects
    again when the read times out or the connection is cut."""

    def __init__(self, url: str, read_timeout: float) -> None:
        self.url = url
        self.read_timeout = read_timeout
        self.resource_version = ""
        self.connections = 0

    def watch(self) -> Iterator[dict[str, Any]]:
        with requests.Session() as session:
            while True:
                parameters = {"watch": "true"}
                if self.resource_version:
                    parameters["resourceVersion"] = self.resource_version
                self.connections += 1
                try:
                    with session.get(self.url, params=parameters, stream=True, timeout=(30, self.read_timeout)) as response:
                        assert response.ok, response.text
                        for line in response.iter_lines():
                            event = json.loads(line)
                            version = event.get("object", {}).get("metadata", {}).get("resourceVersion")
                            if version:
                                self.resource_version = version
                            yield event
                except (requests.ReadTimeout, requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                    # (A timeout in the middle of a stream is a ConnectionError to `requests`.)
                    continue


class InThread:
    """A Kuryr in a thread of its own; its events come to the loop."""

    def __init__(self, kuryr: Kuryr) -> None:
        self.kuryr = kuryr
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        for event in self.kuryr.watch():
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)
            if self._stop.is_set():
                return

    async def __aenter__(self) -> InThread:
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.to_thread(self._thread.join, SECONDS)
        assert not self._thread.is_alive()

    async def change(self) -> tuple[str, str]:
        async with asyncio.timeout(SECONDS):
            while (event := await self._events.get())["type"] == "BOOKMARK":
                pass
        return event["type"], event["object"]["metadata"]["name"]

    async def event(self) -> dict[str, Any]:
        async with asyncio.timeout(SECONDS):
            return await self._events.get()


@pytest.mark.parametrize("path", [f"{APIS}/ports", "/port"])
async def test_kuryrs_loop_follows_across_cuts_and_misses_nothing(running: Running, path: str) -> None:
    await running.port(uuid_of(0))
    async with Proxy(*running.service.addresses[0]) as proxy:
        kuryr = Kuryr(f"http://127.0.0.1:{proxy.port}{path}", read_timeout=SECONDS)
        async with InThread(kuryr) as watching:
            assert await watching.change() == ("ADDED", uuid_of(0))
            for number in range(1, 5):
                await running.port(uuid_of(number))
                assert await watching.change() == ("ADDED", uuid_of(number))
                proxy.cut()
                await running.port(uuid_of(number), "update", status="ACTIVE")
                assert await watching.change() == ("MODIFIED", uuid_of(number))
            assert kuryr.connections >= 4
            await running.port(uuid_of(99))
            assert await watching.change() == ("ADDED", uuid_of(99))
            watching._stop.set()
            await running.port(uuid_of(98))


async def test_bookmarks_keep_kuryrs_read_timeout_from_firing(running: Running) -> None:
    """On WEaaS' face they come unasked; Kuryr cuts a stream that was silent for its read timeout."""
    kuryr = Kuryr(f"{running.url}/port", read_timeout=2)
    async with InThread(kuryr) as watching:
        bookmarks = [await watching.event() for _ in range(12)]  # at 200 ms each: longer than the timeout
        assert {event["type"] for event in bookmarks} == {"BOOKMARK"}
        assert kuryr.connections == 1
        assert kuryr.resource_version == str(running.head)
        watching._stop.set()
        await running.port(uuid_of(1))


async def test_a_silent_watch_without_bookmarks_is_cut_by_kuryr_and_resumed(tmp_path: Path) -> None:
    async with open_service(tmp_path) as running:
        await running.port(uuid_of(0))
        kuryr = Kuryr(f"{running.url}{APIS}/ports", read_timeout=0.3)
        async with InThread(kuryr) as watching:
            assert await watching.change() == ("ADDED", uuid_of(0))
            async with asyncio.timeout(SECONDS):
                while kuryr.connections < 3:
                    await asyncio.sleep(0.05)
            await running.port(uuid_of(1))
            assert await watching.change() == ("ADDED", uuid_of(1))
            watching._stop.set()
            await running.port(uuid_of(2))


# --- curl ------------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
@pytest.mark.parametrize("version", ["--http1.1", "--http1.0"])
async def test_curl_follows(running: Running, version: str) -> None:
    await running.port(uuid_of(0))
    for path, kind in ((f"{APIS}/ports?watch=true", "json"), ("/port", "json"), ("/v1/events", "event")):
        process = await asyncio.create_subprocess_exec(
            "curl", "-sS", "-N", version, running.url + path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        await running.until_watched()
        await running.port(uuid_of(1), name=path)
        async with asyncio.timeout(SECONDS):
            while line := await process.stdout.readline():
                said = json.loads(line)
                if kind == "json" and said["object"].get("status", {}).get("name") == path:
                    break
                if kind == "event" and said["type"] == "openstack.port.create.end":
                    assert said["data"]["port"]["name"] == path
                    break
        await running.port(uuid_of(1), "delete")
        process.terminate()
        async with asyncio.timeout(SECONDS):
            await process.communicate()
        await running.until_unwatched()


# --- EventSource -----------------------------------------------------------------------------------------------------------


class Source:
    """What a browser makes of a stream (html.spec.whatwg.org §9.2.6): events with data, and the last id it saw."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last_id = ""

    async def event(self) -> tuple[str, Any]:
        """(type, parsed data) of the next event that has data."""
        kind, data = "message", []
        while True:
            line = (await self._stream.line()).decode()
            assert line, "the stream has ended"
            line = line.rstrip("\n")
            if not line:
                if data:
                    return kind, json.loads("\n".join(data))
                kind = "message"
                continue
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                self.last_id = value

    async def idle(self) -> None:
        """Read up to the next line that is no event's."""
        before = self.last_id
        while self.last_id == before:
            line = (await self._stream.line()).decode()
            if line.startswith("id: "):
                self.last_id = line[4:].strip()


SSE = {"Accept": "text/event-stream"}


async def test_an_eventsource_follows_and_resumes_with_its_last_id(running: Running, asker: Asker) -> None:
    async with asker.watch("/v1/events?type=port.*", headers=SSE) as stream:
        assert stream.response.headers["Content-Type"].startswith("text/event-stream")
        await running.until_watched()
        await running.port(uuid_of(1))
        await running.tell("network.create.end", {"network": {"id": uuid_of(9), "project_id": A}})
        await running.port(uuid_of(2))
        source = Source(stream)
        first, second = await source.event(), await source.event()
    for number, (kind, event) in enumerate((first, second), start=1):
        assert kind == "message"
        assert (event["specversion"], event["type"], event["subject"]) == (
            "1.0",
            "openstack.port.create.end",
            f"port/{uuid_of(number)}",
        )
        assert event["data"]["port"]["id"] == uuid_of(number)
    assert second[1]["revision"] == source.last_id
    await running.port(uuid_of(3))
    # A browser asks the same address again, with the header.
    async with asker.watch("/v1/events?type=port.*", headers={**SSE, "Last-Event-ID": source.last_id}) as stream:
        assert (await Source(stream).event())[1]["data"]["port"]["id"] == uuid_of(3)


async def test_an_idle_eventsource_moves_on_with_bookmarks(running: Running, asker: Asker) -> None:
    async with asker.watch("/v1/events?type=port.*", headers=SSE) as stream:
        await running.until_watched()
        source = Source(stream)
        await running.tell("network.create.end", {"network": {"id": uuid_of(9), "project_id": A}})
        async with asyncio.timeout(SECONDS):
            while source.last_id != str(running.head):
                await source.idle()


async def test_an_eventsource_whose_place_is_gone_is_told_in_an_event(running: Running, asker: Asker) -> None:
    for number in range(3):
        await running.port(uuid_of(number))
    store = running.service.store
    assert store is not None
    while await store.retain(horizon=running.service.clock.now_us() + 10**9):
        pass
    async with asker.watch("/v1/events", headers={**SSE, "Last-Event-ID": "1"}) as stream:
        kind, said = await Source(stream).event()
        assert (kind, said["object"]["code"]) == ("error", 410)
        assert await stream.rest() == b""


async def test_a_browser_comes_by_a_ticket(place: Cloud) -> None:
    async with asking(place) as asker:
        await place.port(uuid_of(1))
        _, _, body = await asker.get("/v1/tickets", method="POST", headers=place.token("alice"))
        ticket = json.loads(body)["ticket"]
        async with asker.watch(f"/v1/events?after=0&ticket={ticket}", headers=SSE) as stream:
            _, event = await Source(stream).event()
            assert event["data"]["port"]["id"] == uuid_of(1)
            await place.until_watched()
            await place.port(uuid_of(2), project=B)
            await place.port(uuid_of(3))
            assert (await Source(stream).event())[1]["data"]["port"]["id"] == uuid_of(3)
        assert HOST.encode() not in stream.raw
        assert ticket != place.tokens["alice"]


async def test_events_can_be_asked_for_by_kind_object_project_source_and_time(running: Running, asker: Asker) -> None:
    await running.port(uuid_of(1))
    await running.port(uuid_of(2), project=B)
    await running.tell("network.create.end", {"network": {"id": uuid_of(3), "project_id": A}})
    await running.tell("something.else", {"x": 1})

    async def types(query: str) -> list[str]:
        _, headers, body = await asker.get(f"/v1/events?follow=false&{query}")
        assert headers["Content-Type"].startswith("application/x-ndjson")
        return [json.loads(line)["type"] for line in body.splitlines()]

    port, net, other = "openstack.port.create.end", "openstack.network.create.end", "openstack.something.else"
    assert await types("after=0") == [port, port, net, other]
    assert await types("after=0&type=port.*,network.*") == [port, port, net]
    assert await types("after=0&type=openstack.network.create.end") == [net]
    assert await types("after=0&kind=port") == [port, port]
    assert await types("after=0&kind=net") == [net]
    assert await types(f"after=0&id={uuid_of(2)}") == [port]
    assert await types(f"after=0&project={A}") == [port, net]
    assert await types("after=0&source=one") == [port, port, net, other]
    assert await types("since=1h") == [port, port, net, other]
    assert await types("since=1h30m") == [port, port, net, other]
    assert await types("since=2026-01-01T00:00:00Z") == [port, port, net, other]
    assert await types("since=2099-01-01T00:00:00Z") == []
    assert await types("") == []
    for query in ("after=x", "since=soon", "since=99999999999999999d", "kind=nothing", "source=none", "follow=perhaps"):
        await asker.status(f"/v1/events?{query}", 400)
    assert await types("since=99999999999d") == [port, port, net, other]


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"

# --- how things are asked --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("yes", ["1", "t", "T", "true", "True", "TRUE"])
async def test_booleans_are_gos(running: Running, asker: Asker, yes: str) -> None:
    await running.port(uuid_of(1))
    async with asker.watch(f"{APIS}/ports?watch={yes}&allowWatchBookmarks={yes}&timeoutSeconds=30") as stream:
        assert (await stream.event())["type"] == "ADDED"
        assert (await stream.event())["type"] == "BOOKMARK"
    for no in ("0", "f", "F", "false", "False", "FALSE", ""):
        assert (await asker.json(f"{APIS}/ports?watch={no}"))["kind"] == "PortList"


async def test_documents_have_an_address_with_and_without_a_slash(asker: Asker) -> None:
    for path in ("/api", "/apis", "/version", "/api/v1", f"/apis/{GROUP}", APIS, "/openapi/v3"):
        assert await asker.json(path) == await asker.json(f"{path}/"), path


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "PortList"),
        ("*/*", "PortList"),
        ("application/json, */*", "PortList"),
        (f"{TABLE},application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", "Table"),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json", "PartialObjectMetadataList"),
        ("application/vnd.kubernetes.protobuf, application/json", "PortList"),
        ("application/vnd.kubernetes.protobuf;as=Table,application/json;as=Unknown;v=v9;g=x,application/json", "PortList"),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", "PortList"),
    ],
)  # fmt: skip
async def test_lists_of_accepted_types_fall_back_to_json(running: Running, asker: Asker, accept: str, kind: str) -> None:
    await running.port(uuid_of(1))
    said = await asker.json(f"{APIS}/ports", headers={"Accept": accept})
    assert said["kind"] == kind
    assert len(said["rows" if kind == "Table" else "items"]) == 1


async def test_what_nobody_can_serve_is_a_406(asker: Asker) -> None:
    said = await asker.status(f"{APIS}/ports", 406, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert said["reason"] == "NotAcceptable"


@pytest.mark.parametrize("form", ["Table", "PartialObjectMetadata"])
async def test_a_watch_in_another_form(running: Running, asker: Asker, form: str) -> None:
    headers = {"Accept": f"application/json;as={form};v=v1;g=meta.k8s.io"}
    for path, name in ((f"{APIS}/ports", uuid_of(1)), ("/api/v1/namespaces", A)):
        await running.port(uuid_of(1))
        await running.tell("identity.project.created", {"resource_info": A})
        async with asker.watch(f"{path}?watch=1&allowWatchBookmarks=1", headers=headers) as stream:
            event = await stream.event()
            assert (event["type"], event["object"]["kind"]) == ("ADDED", form)
            shown = event["object"]["rows"][0]["object"] if form == "Table" else event["object"]
            assert shown["metadata"]["name"] == name
            while event["type"] != "BOOKMARK":
                event = await stream.event()
            assert event["object"]["kind"] == form


async def test_pages_are_as_of_the_first_one(running: Running, asker: Asker) -> None:
    for number in range(10):
        await running.port(uuid_of(number))
    names, query = [], "limit=3"
    while query:
        page = await asker.json(f"{APIS}/ports?{query}")
        names += [item["metadata"]["name"] for item in page["items"]]
        await running.port(uuid_of(100 + len(names)))
        await running.port(uuid_of(9), "update", name=str(len(names)))
        query = f"limit=3&continue={page['metadata']['continue']}" if page["metadata"]["continue"] else ""
    assert names == [uuid_of(number) for number in range(10)]


async def test_a_watch_after_a_list_has_exactly_what_came_in_between(running: Running, asker: Asker) -> None:
    await running.port(uuid_of(0))
    listed = await asker.json(f"{APIS}/ports")
    await running.port(uuid_of(1))
    await running.port(uuid_of(0), "delete")
    async with asker.watch(f"{APIS}/ports?watch=1&resourceVersion={listed['metadata']['resourceVersion']}") as stream:
        assert [await stream.change(), await stream.change()] == [("ADDED", uuid_of(1)), ("DELETED", uuid_of(0))]


async def test_namespaces_are_selected_and_watched_like_any_kind(running: Running, asker: Asker) -> None:
    await running.port(uuid_of(1))
    await running.port(uuid_of(2), project=B)
    assert await asker.names("/api/v1/namespaces") == [A, B, "no-project"]
    assert await asker.names(f"/api/v1/namespaces?fieldSelector=metadata.name={A}") == [A]
    assert await asker.names(f"/api/v1/namespaces?labelSelector=kubernetes.io/metadata.name!={A}") == [B, "no-project"]
    assert await asker.names("/api/v1/namespaces?fieldSelector=status.phase=Active") == [A, B, "no-project"]
    path = f"/api/v1/namespaces?watch=1&labelSelector=kubernetes.io/metadata.name={A}"
    async with asker.watch(path) as stream:
        assert await stream.change() == ("ADDED", A)
        await running.until_watched()
        for project in (B, A):
            await running.tell("identity.project.created", {"resource_info": project})
        assert await stream.change() == ("ADDED", A)
    await asker.status("/api/v1/namespaces?watch=1&resourceVersion=x", 400)
    await asker.status("/api/v1/namespaces?watch=1&timeoutSeconds=x", 400)


# --- names of this machine -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example.org", "127.0.0.1.evil.example.org", "localhost.evil.example.org:80", "", "[::2]:1"]
)
async def test_without_authentication_other_host_names_are_refused(running: Running, asker: Asker, host: str) -> None:
    for path in (f"{APIS}/ports", "/port", "/v1/events", "/healthz", "/"):
        await asker.status(path, 403, headers={"Host": host})


@pytest.mark.parametrize("host", ["localhost", "LocalHost:99", "127.0.0.1:8470", "[::1]:8470", "[::1]"])
async def test_names_of_this_machine_are_served(asker: Asker, host: str) -> None:
    assert await asker.names(f"{APIS}/ports", headers={"Host": host}) == []


async def test_with_authentication_any_name_may_be_asked(place: Cloud) -> None:
    async with asking(place) as asker:
        headers = {"Host": "vedette.example.org", **place.token("alice")}
        assert await asker.names(f"{APIS}/ports", headers=headers) == []
