"""The watch over HTTP, on bare sockets, against a service in this process."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving import APIS, A, Running, open_service, port
from watching import SECONDS, Answer, Gone

WATCH = f"{APIS}/ports?watch=1"


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with open_service(tmp_path, watch={"bookmark_seconds": "200ms", "max_streams": 400}) as found:
        yield found


def port_of(running: Running) -> int:
    return running.service.addresses[0][1]


async def watch(running: Running, more: str = "", **options: Any) -> Answer:
    answer = await Answer.of(port_of(running), WATCH + more, **options)
    assert answer.code == 200
    return answer


def name(event: dict[str, Any]) -> str:
    return str(event["object"]["metadata"]["name"])


async def test_200_clients_on_one_endpoint_each_get_every_event_once_and_in_order(running: Running) -> None:
    """W2: WEaaS gave each event to one of its clients."""
    answers = await asyncio.gather(*[watch(running) for _ in range(200)])
    await running.until_watched(200)

    async def read(answer: Answer) -> list[bytes]:
        return [await answer.line() for _ in range(120)]

    reading = [asyncio.create_task(read(answer)) for answer in answers]
    for number in range(120):
        await running.port(f"p{number}", name="n" * (number * 7 % 900))
    async with asyncio.timeout(SECONDS):
        got = await asyncio.gather(*reading)
    assert [name(json.loads(line)) for line in got[0]] == [f"p{number}" for number in range(120)]
    revisions = [int(json.loads(line)["object"]["metadata"]["resourceVersion"]) for line in got[0]]
    assert revisions == sorted(set(revisions))
    assert all(lines == got[0] for lines in got)
    for answer in answers:
        await answer.close()


async def test_one_who_reads_nothing_is_cut_others_do_not_notice_and_it_can_resume(tmp_path: Path) -> None:
    limits = {"bookmark_seconds": "200ms", "stall_timeout": "1s", "max_buffer_bytes": "64KiB"}
    async with open_service(tmp_path, watch=limits) as running:
        start = running.head
        stopped, quick = await watch(running, receive_buffer=4096), await watch(running)
        await running.until_watched(2)
        hub = running.service.hub
        assert hub is not None
        most, number = 0, 0
        async with asyncio.timeout(SECONDS):
            while hub.watchers == 2:  # until the kernel's buffers and ours are full, and a second has passed
                await running.port(f"p{number}", name="n" * 20_000)
                assert name(await quick.event()) == f"p{number}"
                most = max([most, *(watcher.transport.get_write_buffer_size() for watcher in hub._watchers)])
                number += 1
        assert 0 < most <= 64 * 1024
        with pytest.raises(Gone):
            await stopped.rest()
        await stopped.close()
        again = await watch(running, f"&resourceVersion={start}")
        assert [name(await again.event()) for _ in range(number)] == [f"p{number}" for number in range(number)]
        for answer in (quick, again):
            await answer.close()


async def test_clients_that_vanish_with_a_reset_are_forgotten_and_harm_nobody(running: Running) -> None:
    steady = await watch(running)
    for round_ in range(10):
        vanishing = [await watch(running) for _ in range(5)]
        await running.until_watched(6)
        for answer in vanishing:
            await answer.reset()
        await running.port(f"p{round_}")
        assert name(await steady.event()) == f"p{round_}"
    hub = running.service.hub
    assert hub is not None
    async with asyncio.timeout(SECONDS):
        while hub.watchers > 1:
            await running.port("again")
            await steady.event()
    await steady.close()


async def test_timeout_seconds_ends_with_the_last_chunk_and_keeps_the_connection(running: Running) -> None:
    answer = await watch(running, "&timeoutSeconds=1")
    await running.until_watched()
    await running.port("p")
    assert name(await answer.event()) == "p"
    assert await answer.rest() == b""
    assert answer.clean
    answer.writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert (await answer.reader.readline()).startswith(b"HTTP/1.1 200")
    await answer.close()


async def test_initial_events_end_with_a_bookmark_that_says_so(running: Running) -> None:
    for number in range(1200):  # several pages
        if number % 100 == 0:
            await running.tell("port.create.end", {"ports": [port(f"p{number + more}", A) for more in range(100)]})
    more = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    answer = await watch(running, more)
    got = [await answer.event() for _ in range(1200)]
    assert {name(event) for event in got} == {f"p{number}" for number in range(1200)}
    assert {event["type"] for event in got} == {"ADDED"}
    bookmark = await answer.event()
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(bookmark["object"]["metadata"]["resourceVersion"]) == running.head
    await running.until_watched()
    await running.port("new")
    event = await answer.event()
    while event["type"] == "BOOKMARK":  # a place to resume from, and nothing else
        assert "annotations" not in event["object"]["metadata"]
        event = await answer.event()
    assert (event["type"], name(event)) == ("ADDED", "new")
    await answer.close()


async def test_a_revision_that_is_gone_is_an_error_event_410_and_a_clean_end(running: Running) -> None:
    answer = await watch(running, "&resourceVersion=5")
    event = await answer.event()
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert await answer.rest() == b""
    assert answer.clean
    await answer.close()


async def test_stopping_ends_every_stream_with_its_last_chunk(tmp_path: Path) -> None:
    async with open_service(tmp_path) as running:
        answers = [await watch(running, version=version) for version in ("1.1", "1.1", "1.0")]
        await running.until_watched(3)
        await running.port("p")
        for answer in answers:
            assert name(await answer.event()) == "p"
    for answer in answers:
        assert await answer.rest() == b""
        assert answer.clean
        await answer.close()


async def test_accepted_sockets_notice_that_a_client_vanished(running: Running) -> None:
    """Keepalive for a silent stream; unacknowledged data, too, has an end. (A lost FIN can't be made on loopback.)"""
    answer = await watch(running)
    await running.until_watched()
    hub = running.service.hub
    assert hub is not None
    (watcher,) = hub._watchers
    sock = watcher.transport.get_extra_info("socket")  # type: ignore[attr-defined]
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    idle, interval, count = (
        sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, option))
        for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    )
    assert 0 < idle + interval * count <= 60
    assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 60_000
    await answer.close()
