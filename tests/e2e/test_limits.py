"""What the API does at its limits, and with what is no request at all: always an answer, mostly a Status, never a crash.

Left out: the broadcaster's buffers (tests/suites/test_watches.py), the settings themselves (tests/unit/test_config.py).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
import yarl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import APIS, SECONDS, A, Asker, Running, asking, configured, in_a_loop, open_service, port, serving, uuid_of

from vedette.app import Service
from vedette.errors import StoreInUse
from vedette.testing.tls import Authority


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path) as running:
        yield running


@pytest.fixture
async def asker(running: Running) -> AsyncIterator[Asker]:
    async with asking(running) as asker:
        yield asker


# --- sizes -----------------------------------------------------------------------------------------------------------------


async def test_too_long_a_path_query_or_header_is_a_status(asker: Asker) -> None:
    await asker.status("/apis/" + "x" * 20_000, 414)
    await asker.status(f"{APIS}/ports?labelSelector=" + "x" * 20_000, 414)
    await asker.status(f"{APIS}/ports", 431, headers={f"X-{number}": "y" * 5_000 for number in range(8)})
    await asker.status(f"{APIS}/ports", 431, headers={"X-Auth-Token": "t" * 40_000})
    assert await asker.names(f"{APIS}/ports", headers={"X-Auth-Token": "t" * 8_000}) == []


async def test_what_the_parser_itself_refuses_is_a_4xx(running: Running) -> None:
    for request in (
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
    ):
        assert (await raw(running, request))[:10] in (b"HTTP/1.0 4", b"HTTP/1.1 4")


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("labelSelector=" + "x" * 4097, 400, "labelSelector has 4097 characters"),
        ("fieldSelector=" + "status.x=" + "y" * 4097, 400, "fieldSelector has"),
        ("fieldSelector=" + ",".join(f"status.a{n}=1" for n in range(33)), 400, "at most 32"),
        ("fieldSelector=spec.x=1", 400, "field label not supported"),
        ("labelSelector=((", 400, "label"),
        ("limit=x", 400, "limit must be a whole number"),
        ("limit=" + "9" * 400, 400, "limit must be a whole number"),
        ("limit=%D9%A1", 400, "limit"),
        ("watch=maybe", 400, "no boolean"),
        ("watch=true&timeoutSeconds=abc", 400, "timeoutSeconds"),
        ("watch=true&timeoutSeconds=" + "9" * 400, 400, "timeoutSeconds"),
        ("watch=true&resourceVersion=abc", 400, "resourceVersion"),
        ("watch=true&resourceVersion=%D9%A1", 400, "resourceVersion"),
        ("watch=true&sendInitialEvents=true", 422, "resourceVersionMatch"),
        ("watch=true&resourceVersionMatch=Exact", 422, "resourceVersionMatch"),
        ("resourceVersionMatch=Exact", 422, "resourceVersionMatch"),
        ("resourceVersion=1&resourceVersionMatch=Never", 422, "resourceVersionMatch"),
        ("resourceVersion=1&resourceVersionMatch=Exact", 410, "too old"),
        ("continue=%00%00", 400, "continue"),
        ("continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIifQ", 400, "continue"),
        ("includeObject=All", 400, "includeObject"),
    ],
)
async def test_a_query_that_can_not_be_answered_says_why(asker: Asker, query: str, code: int, says: str) -> None:
    said = await asker.status(f"{APIS}/ports?{query}", code, headers={"Accept": "application/json"})
    assert says in said["message"]


async def test_a_revision_from_the_future_is_waited_for_and_then_expired(asker: Asker) -> None:
    said = await asker.status(f"{APIS}/ports?resourceVersion=9999999999999999999", 410)
    assert said["reason"] == "Expired"
    async with asker.watch(f"{APIS}/ports?watch=1&resourceVersion=9999999999999999999") as stream:
        event = await stream.event()
        assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
        assert await stream.line() == b""


async def test_a_timeout_of_years_is_as_long_as_it_gets_and_a_negative_one_ends_at_once(running: Running, asker: Asker) -> None:
    async with asker.watch(f"{APIS}/ports?watch=1&timeoutSeconds=-1") as stream:
        assert await stream.rest() == b""
    async with asker.watch(f"{APIS}/ports?watch=1&timeoutSeconds=999999999999999999") as stream:
        await running.until_watched()
        await running.port(uuid_of(1))
        assert await stream.change() == ("ADDED", uuid_of(1))


# --- bodies, methods, paths ------------------------------------------------------------------------------------------------


async def test_a_body_that_is_too_large_is_refused_before_it_is_read(running: Running) -> None:
    head = b"POST /v1/tickets HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n"
    reader, writer = await connect(running)
    writer.write(head)
    async with asyncio.timeout(SECONDS):
        assert b" 413 " in await reader.readline()
    writer.close()


async def test_what_is_not_there_is_a_status_404_whatever_the_method(asker: Asker) -> None:
    for path in (
        "/nothing/here/at/all",
        "/apis/none/v1/ports",
        f"{APIS}/nothings",
        "/clusters/none" + APIS + "/ports",
        "/v1/none",
    ):
        said = await asker.status(path, 404)
        assert said["reason"] == "NotFound"
    await asker.status("/clusters/none/api/v1/namespaces", 404)
    await asker.status("/none/of/this/kind", 404, method="POST")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_a_method_that_a_path_does_not_have_is_a_405_with_allow(asker: Asker, method: str) -> None:
    for path in (f"{APIS}/ports", f"{APIS}/namespaces/x/ports/y", "/api/v1/namespaces", "/v1/events", "/port"):
        code, headers, body = await asker.get(path, method=method)
        assert (code, headers.get("Allow")) == (405, "GET"), path
        if method != "HEAD":
            assert json.loads(body)["reason"] == "MethodNotAllowed"


async def test_documents_answer_head_without_a_body(asker: Asker) -> None:
    for path in ("/healthz", "/version", "/api", "/apis", APIS):
        code, headers, body = await asker.get(path, method="HEAD")
        assert (code, body) == (200, b"")
        assert int(headers["Content-Length"]) > 0


async def test_http_1_0_gets_lists_and_watches_that_end_with_the_connection(running: Running) -> None:
    await running.port(uuid_of(1))
    answer = await raw(running, f"GET {APIS}/ports HTTP/1.0\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert b"chunked" not in head
    assert json.loads(body)["items"][0]["metadata"]["name"] == uuid_of(1)
    answer = await raw(running, f"GET {APIS}/ports?watch=1&timeoutSeconds=1 HTTP/1.0\r\n\r\n".encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200")
    assert b"chunked" not in head
    (event,) = map(json.loads, body.splitlines())
    assert event["type"] == "ADDED"


# --- how many --------------------------------------------------------------------------------------------------------------


async def test_one_watcher_too_many_is_told_to_come_back(tmp_path: Path) -> None:
    async with open_service(tmp_path, watch={"max_watchers": 2}) as running, asking(running) as asker:
        async with asker.watch(f"{APIS}/ports?watch=1"), asker.watch("/v1/events"):
            await running.until_watched(2)
            for path, code in (
                (f"{APIS}/ports?watch=1", 429),
                ("/v1/events", 429),
                ("/port", 503),
                ("/api/v1/namespaces?watch=1", 429),
            ):
                found, headers, body = await asker.get(path)
                assert (found, int(headers["Retry-After"]) >= 1) == (code, True)
                assert "max_watchers" in json.loads(body)["message"]
            assert await asker.names(f"{APIS}/ports") == []
        await running.until_unwatched()
        async with asker.watch(f"{APIS}/ports?watch=1"):
            await running.until_watched()


async def test_one_token_has_its_share_of_streams(tmp_path: Path) -> None:
    tokens = [
        {"token": "first-token-of-sixteen", "name": "one", "projects": [A]},
        {"token": "second-token-of-sixteen", "name": "two", "projects": [A]},
    ]
    config = configured(tmp_path, json.dumps({"auth": {"mode": "tokens", "tokens": tokens}}), max_streams=1)
    one, two = ({"Authorization": f"Bearer {entry['token']}"} for entry in tokens)
    path = f"{APIS}/ports?watch=1"
    async with (
        serving(config) as running,
        asking(running) as asker,
        asker.watch(path, headers=one),
        asker.watch(path, headers=two),
    ):
        await running.until_watched(2)
        code, headers, body = await asker.get(path, headers=one)
        assert (code, "Retry-After" in headers) == (429, True)
        assert "max_streams" in json.loads(body)["message"]


async def test_without_authentication_all_callers_together_have_only_the_limit_of_watchers(tmp_path: Path) -> None:
    path = f"{APIS}/ports?watch=1"
    async with (
        open_service(tmp_path, watch={"max_streams": 1}) as running,
        asking(running) as asker,
        asker.watch(path),
        asker.watch(path),
    ):
        await running.until_watched(2)


async def test_the_open_files_that_are_needed_are_asked_for_at_the_start(tmp_path: Path) -> None:
    source = {"name": "one", "type": "replay", "path": str(tmp_path / "quiet.jsonl")}
    config = {"listen": "127.0.0.1:0", "data_dir": str(tmp_path), "sources": [source], "watch": {"max_watchers": 1000}}
    (tmp_path / "vedette.yaml").write_text(json.dumps(config))
    program = "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (300, 500)); from vedette.cli import main; main()"
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", program, "serve", "--config", str(tmp_path / "vedette.yaml")],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "watch.max_watchers is 1000, but this process may open 500 files" in done.stderr
    assert "LimitNOFILE=1100" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_second_service_on_one_folder_says_who_holds_it(tmp_path: Path) -> None:
    config = configured(tmp_path, json.dumps({"auth": {"mode": "none"}, "data_dir": str(tmp_path / "store")}))
    async with serving(config) as running, asking(running) as asker:
        second = Service(config)
        with pytest.raises(StoreInUse, match=rf"in use by pid {os.getpid()}"):
            await second.start()
        await running.port(uuid_of(1))
        assert await asker.names(f"{APIS}/ports") == [uuid_of(1)]


async def test_two_services_live_in_one_process(tmp_path: Path) -> None:
    async with open_service(tmp_path) as one, open_service(tmp_path) as two, asking(one) as asker:
        await one.port(uuid_of(1))
        assert await asker.names(f"{one.url}{APIS}/ports") == [uuid_of(1)]
        assert await asker.names(f"{two.url}{APIS}/ports") == []


# --- answers that can't be completed ---------------------------------------------------------------------------------------


async def test_a_list_whose_place_goes_while_it_is_sent_is_cut_and_not_mended(running: Running, asker: Asker) -> None:
    """The reader must see that it is incomplete: a second answer inside the first would be read as objects."""
    store = running.service.store
    assert store is not None
    assert running.service.ingest is not None
    large = "x" * 20_000
    await running.tell("port.create.end", {"ports": [port(uuid_of(n), name=large) for n in range(600)]})
    reader, writer = await connect(running, limit=4096)
    writer.write(f"GET {APIS}/ports HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    async with asyncio.timeout(SECONDS):
        assert b"200" in await reader.readline()
        # The first page is more than the sockets take, so the second one is still to be read.
        await running.port(uuid_of(599), "update", name="y")
        while await store.retain(horizon=running.service.clock.now_us() + 10**9):
            pass
        body = await reader.read()
    assert b"HTTP/1.1" not in body
    assert not body.endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_list_that_nobody_reads_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with open_service(tmp_path, watch={"stall_timeout": "1s"}) as running:
        await running.tell("port.create.end", {"ports": [port(uuid_of(n), name="x" * 50_000) for n in range(300)]})
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(client, running.service.addresses[0])
            await loop.sock_sendall(client, f"GET {APIS}/ports HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            async with asyncio.timeout(SECONDS):
                # Ours is the only connection: gone from the server's side when its handler has ended.
                while not [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]:
                    await asyncio.sleep(0.01)
                while [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task)]:
                    await asyncio.sleep(0.05)


async def test_a_client_that_is_gone_ends_its_watch(running: Running) -> None:
    reader, writer = await connect(running)
    writer.write(f"GET {APIS}/ports?watch=1 HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await running.until_watched()
    writer.close()
    await running.until_unwatched()
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")


# --- what is no request ----------------------------------------------------------------------------------------------------

GARBAGE = [
    b"\x00" * 100,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET /a b HTTP/1.1\r\n\r\n",
    b"\r\n\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"POST /v1/tickets HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    b"GET /\xff\xfe/port HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /%ff%fe/%00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET " + APIS.encode() + b"/namespaces/%ff/ports/\xff?fieldSelector=status.x=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET http://[::1/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET //port HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT x:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]


async def test_garbage_is_answered_or_cut_and_the_service_goes_on(
    running: Running, asker: Asker, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for garbage in GARBAGE:
            assert b" 5" not in await first_line(running, garbage), garbage
            assert (await asker.get("/healthz"))[0] == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.binary(max_size=300), about=st.sampled_from([b"", b"GET ", b"GET /port?", b"GET /apis/", b"POST /v1/tickets "]))
async def test_any_bytes(running: Running, data: bytes, about: bytes) -> None:
    assert b" 5" not in await first_line(running, about + data + b"\r\n\r\n")


VALUES = st.one_of(
    st.text(max_size=40),
    st.integers().map(str),
    st.sampled_from(
        ["0", "-1", "9" * 19, "9" * 25, "true", "\ud800", "\x00", "a=b", "status.x=\x00", "metadata.name=~", "x in (a,b)"]
    ),
    st.binary(max_size=20).map(lambda raw: base64.urlsafe_b64encode(raw).decode()),
    st.tuples(st.integers(0, 2**70), st.text(max_size=8)).map(lambda at: continue_token(*at)),
)
NAMES = (
    "limit", "continue", "resourceVersion", "resourceVersionMatch", "fieldSelector", "labelSelector", "sendInitialEvents",
    "allowWatchBookmarks", "includeObject", "after", "since", "type", "kind", "id", "project", "source", "format", "ticket",
)  # fmt: skip
PATHS = (
    f"{APIS}/ports", f"{APIS}/namespaces/{{x}}/ports", f"{APIS}/namespaces/no-project/ports/{{x}}",
    "/clusters/*" + APIS + "/servers", "/clusters/{x}/api/v1/namespaces", "/api/v1/namespaces", "/api/v1/namespaces/{x}",
    "/v1/events", "/port", "/port/{x}", "/{x}/port", "/{x}", "/apis/{x}/v1/ports", "/openapi/v3/{x}",
)  # fmt: skip


def continue_token(revision: int, start: str) -> str:
    raw = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": f"one\0{start}"})
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


@pytest.mark.parametrize("data_dir", ["", "store"])
async def test_no_query_is_an_error_of_ours(tmp_path: Path, data_dir: str) -> None:
    """Whatever is asked, in memory and on SQLite, is answered, or refused with a reason."""

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        path=st.sampled_from(PATHS),
        inside=VALUES,
        query=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4),
        accept=st.sampled_from(["application/json", "application/json;as=Table;v=v1;g=meta.k8s.io", "text/event-stream", "*"]),
    )
    async def asked(path: str, inside: str, query: dict[str, str], accept: str) -> None:
        # `resourceVersion`s that are to come are waited for (3 s): not those.
        if query.get("resourceVersion", "").isdigit():
            query["resourceVersion"] = "1"
        if query.get("after", "").isdigit():
            query["after"] = "1"
        query |= {"timeoutSeconds": "-1", "follow": "false"}
        where = path.replace("{x}", quote(inside, safe="", errors="surrogateescape" if inside.isascii() else "replace"))
        text = urlencode(query, errors="replace")
        code, _, body = await asker.get(yarl.URL(f"{running.url}{where}?{text}", encoded=True), headers={"Accept": accept})
        assert code < 500, (where, query, body)
        if code >= 400:
            assert json.loads(body)["kind"] == "Status"

    folder = str(tmp_path / data_dir) if data_dir else ""
    async with open_service(tmp_path, data_dir=folder) as running, asking(running) as asker:
        for number in range(5):
            await running.port(uuid_of(number))
        await asyncio.to_thread(in_a_loop, asked, asyncio.get_running_loop())


# --- TLS -------------------------------------------------------------------------------------------------------------------


async def test_a_new_certificate_is_served_to_the_next_handshake_and_a_bad_one_never(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path / "tls")
    pair = authority.server()
    tls = {"cert": str(pair.cert), "key": str(pair.key)}
    config = configured(tmp_path, json.dumps({"auth": {"mode": "none"}, "tls": tls}))

    async def shown(running: Running) -> bytes | None:
        host, port_ = running.service.addresses[0]
        _, writer = await asyncio.open_connection(host, port_, ssl=authority.client_context())
        found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return found

    def of(path: Path) -> bytes:
        return ssl.PEM_cert_to_DER_cert(path.read_text())

    async with serving(config, context=authority.client_context()) as running, asking(running) as asker:
        first = of(pair.cert)
        assert await shown(running) == first
        # Half of a new pair: its certificate without its key.
        key = pair.key.read_bytes()
        other = Authority(tmp_path / "other").server()
        pair.cert.write_bytes(other.cert.read_bytes())
        with caplog.at_level(logging.ERROR, "vedette.api"):
            async with asyncio.timeout(SECONDS):
                while "the old one stays" not in caplog.text:  # it looks once a second
                    assert await shown(running) == first
        assert await shown(running) == first
        assert pair.key.read_bytes() == key
        authority.server()  # the same files, another key
        async with asyncio.timeout(SECONDS):
            while await shown(running) == first:
                pass
        assert await shown(running) == of(pair.cert)
        assert (await asker.get("/healthz"))[0] == 200


# --- small things ----------------------------------------------------------------------------------------------------------


async def raw(running: Running, request: bytes) -> bytes:
    """What is answered up to the connection's end (HTTP/1.0 and errors close it)."""
    reader, writer = await connect(running)
    writer.write(request)
    async with asyncio.timeout(SECONDS):
        found = await reader.read()
    writer.close()
    return found


async def first_line(running: Running, garbage: bytes) -> bytes:
    """What it is answered with; b"" when it is cut, or when it waits for the rest of what it takes for a request."""
    reader, writer = await connect(running)
    writer.write(garbage)
    found = b""
    with contextlib.suppress(ConnectionError):
        # A whole request behind it: if that is answered, or the connection is cut, the garbage has been dealt with.
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                found = await reader.readline()
    writer.close()
    return found


async def connect(running: Running, limit: int = 65_536) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port_ = running.service.addresses[0]
    return await asyncio.open_connection(host, port_, limit=limit)
