"""clients/vedette.py against a scripted server: what a watch promises must hold across cuts at the worst places.

Left out: the real server (tests/e2e/test_cli_demo.py).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from vedette.clients.vedette import (
    Columns,
    Cut,
    Event,
    Gap,
    Listed,
    ListedAgain,
    News,
    Place,
    Resource,
    Resumed,
    Target,
    Told,
    VedetteClient,
)
from vedette.errors import BadRequest, Expired, FixInput, Forbidden, NotFound, TooBusy, TryLater, Unauthenticated

PORTS = Resource("openstack.vedette.dev", "Port", "ports", "port", ("p",))
TARGET = Target(PORTS)
PATH = "/apis/openstack.vedette.dev/v1/ports"

Step = bytes | str
"""Bytes are one chunk; a word is what happens then: cut (the socket is gone), end (the answer is complete), wait (silence)."""


def thing(name: str, revision: int, namespace: str = "p1") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "resourceVersion": str(revision)}, "status": {"name": f"n-{name}"}}


def line(verb: str, name: str, revision: int, namespace: str = "p1") -> bytes:
    return json.dumps({"type": verb, "object": thing(name, revision, namespace)}).encode() + b"\n"


def bookmark(revision: int) -> bytes:
    return json.dumps({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(revision)}}}).encode() + b"\n"


def status(code: int, message: str = "no") -> bytes:
    return json.dumps({"kind": "Status", "message": message, "code": code}).encode()


def error(code: int, message: str = "no") -> bytes:
    return b'{"type":"ERROR","object":' + status(code, message) + b"}\n"


class Script:
    """A server that answers each request with the next thing in a list, and remembers what it was asked."""

    def __init__(self) -> None:
        self.lists: list[Any] = []
        self.streams: list[list[Step]] = []
        self.posts: list[list[Step]] = []
        self.bodies: list[Any] = []
        self.asked: list[dict[str, str]] = []
        self.tokens: list[str] = []
        self.good_tokens: set[str] | None = None

    @asynccontextmanager
    async def served(self, **options: Any) -> AsyncIterator[VedetteClient]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        app.router.add_post("/{path:.*}", self._answer)
        async with TestServer(app) as server, VedetteClient(str(server.make_url("/")), **options) as client:
            yield client

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        self.tokens.append(token)
        if self.good_tokens is not None and token not in self.good_tokens:
            return web.Response(status=401, body=status(401, "no token"))
        query = dict(request.query)
        self.asked.append({"path": request.path, **query})
        if request.method == "POST":
            assert request.content_type == "application/json"
            self.bodies.append(await request.json())
            return await self._stream(request, self.posts)
        if query.get("watch") == "true" or request.path == "/v1/events":
            return await self._stream(request, self.streams)
        answer = self.lists.pop(0)
        if isinstance(answer, web.Response):
            return answer
        return web.json_response(answer)

    async def _stream(self, request: web.Request, scripts: list[list[Step]]) -> web.StreamResponse:
        steps = scripts.pop(0)
        if steps and isinstance(steps[0], str) and steps[0].isdigit():
            return web.Response(status=int(steps[0]), body=status(int(steps[0])), headers={"Retry-After": "7"})
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for step in steps:
            if isinstance(step, bytes):
                await response.write(step)
            elif step == "cut":
                assert request.transport is not None
                request.transport.close()
                return response
            elif step == "wait":
                await asyncio.Event().wait()
        await response.write_eof()
        return response


def listing(revision: int, *items: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"metadata": {"resourceVersion": str(revision), "continue": more}, "items": list(items)}


async def no_wait(_seconds: float) -> None:
    await asyncio.sleep(0)


async def seen(client: VedetteClient, until: Callable[[News], bool], **options: Any) -> list[News]:
    """Everything up to and with the first news that `until` holds for."""
    found: list[News] = []
    async with asyncio.timeout(20), aclosing(client.watch(TARGET, **options)) as stream:
        async for news in stream:
            found.append(news)
            if until(news):
                return found
    raise AssertionError("the watch ended")


def changes(found: list[News]) -> list[tuple[str, str, int]]:
    return [(one.verb, one.item.name, one.item.revision) for one in found if isinstance(one, Event) and not one.initial]


def is_change(name: str) -> Callable[[News], bool]:
    return lambda news: isinstance(news, Event) and not news.initial and news.item.name == name


async def test_a_watch_gives_the_state_page_by_page_then_the_changes() -> None:
    script = Script()
    script.lists = [listing(10, thing("a", 3), more="next"), listing(10, thing("b", 4))]
    script.streams = [[line("MODIFIED", "a", 11), line("ADDED", "z", 12), "wait"]]
    async with script.served() as client:
        found = await seen(client, is_change("z"))
    initial = [news.item.name for news in found if isinstance(news, Event) and news.initial]
    assert initial == ["a", "b"]
    assert Listed(10) in found
    assert changes(found) == [("MODIFIED", "a", 11), ("ADDED", "z", 12)]
    assert script.asked[1]["continue"] == "next"
    assert script.asked[2]["resourceVersion"] == "10"
    assert script.asked[2]["allowWatchBookmarks"] == "true"


@pytest.mark.parametrize("arrived", [0, 1, 2, 3])
async def test_a_cut_between_the_changes_of_one_entry_loses_and_doubles_nothing(arrived: int) -> None:
    """Three changes share revision 12; the connection breaks after some of them."""
    entry = [line("DELETED", "a", 12), line("ADDED", "a", 12, "p2"), line("MODIFIED", "b", 12)]
    script = Script()
    script.lists = [listing(10)]
    script.streams = [
        [line("ADDED", "first", 11), *entry[:arrived], "cut"],
        # As the real server does: everything after the place asked for.
        [*([line("ADDED", "first", 11)] if arrived == 0 else []), *entry, line("ADDED", "last", 13), "wait"],
    ]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, is_change("last"))
    # Whichever bytes had arrived when the socket went, the place asked for fits what was seen.
    place = int(script.asked[2]["resourceVersion"])
    first = [("ADDED", "first", 11)]
    told = [("DELETED", "a", 12), ("ADDED", "a", 12), ("MODIFIED", "b", 12), ("ADDED", "last", 13)]
    assert place == (10 if arrived == 0 else 11)
    assert changes(found) == first + told
    assert [type(news) for news in found if isinstance(news, Cut | Resumed)] == [Cut, Resumed]


async def test_a_bookmark_moves_the_place_and_a_clean_end_is_resumed() -> None:
    script = Script()
    script.lists = [listing(10)]
    script.streams = [[line("ADDED", "a", 11), bookmark(40), "end"], [line("ADDED", "b", 41), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, is_change("b"))
    assert script.asked[2]["resourceVersion"] == "40"
    assert Place(40) in found
    assert changes(found) == [("ADDED", "a", 11), ("ADDED", "b", 41)]


async def test_lines_may_be_split_anywhere_and_half_a_line_at_the_end_counts_for_nothing() -> None:
    whole = line("ADDED", "a", 11) + line("ADDED", "b", 12)
    script = Script()
    script.lists = [listing(10)]
    script.streams = [
        [*(whole[at : at + 7] for at in range(0, len(whole), 7)), line("ADDED", "c", 13)[:20], "end"],
        [line("ADDED", "b", 12), line("ADDED", "c", 13), "wait"],
    ]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, is_change("c"))
    assert changes(found) == [("ADDED", "a", 11), ("ADDED", "b", 12), ("ADDED", "c", 13)]


async def test_when_the_place_is_gone_it_lists_again_and_tells_the_difference() -> None:
    script = Script()
    script.lists = [
        listing(10, thing("same", 1), thing("moved", 2), thing("gone", 3)),
        listing(90, thing("same", 1), thing("moved", 80), thing("new", 81)),
    ]
    script.streams = [["end"], [error(410, "too old resource version: 10 (70)"), "end"], [line("ADDED", "last", 91), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, is_change("last"))
    assert changes(found) == [("MODIFIED", "moved", 80), ("ADDED", "new", 81), ("DELETED", "gone", 90), ("ADDED", "last", 91)]
    assert any(isinstance(news, ListedAgain) and news.revision == 90 for news in found)
    assert script.asked[-1]["resourceVersion"] == "90"


async def test_with_since_there_is_no_list_and_a_place_that_is_gone_is_said() -> None:
    script = Script()
    script.streams = [[line("MODIFIED", "a", 51), "wait"]]
    async with script.served() as client:
        found = await seen(client, is_change("a"), since=50)
        assert script.asked == [{"path": PATH, "watch": "true", "allowWatchBookmarks": "true", "resourceVersion": "50"}]
        assert not any(isinstance(news, Listed) for news in found)
        script.streams = [["410"]]
        with pytest.raises(Expired):
            await seen(client, is_change("a"), since=5)


async def test_a_stream_that_says_nothing_is_left_for_another_with_more_patience() -> None:
    script = Script()
    script.lists = [listing(10)]
    script.streams = [["wait"], ["wait"], [line("ADDED", "a", 11), "wait"]]
    async with script.served(sleep=no_wait, silent_seconds=0.02) as client:
        found = await seen(client, is_change("a"))
    assert [news.why for news in found if isinstance(news, Cut)] == ["nothing was heard for 0 s"] * 2


async def test_a_busy_server_is_asked_again_after_the_time_it_names() -> None:
    script = Script()
    script.lists = [listing(10)]
    script.streams = [["end"], ["429"], ["503"], [line("ADDED", "a", 11), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, is_change("a"))
    assert [news.delay >= 7 for news in found if isinstance(news, Cut)] == [False, True, True]


@pytest.mark.parametrize(
    ("code", "raised"), [("403", Forbidden), ("404", NotFound), ("400", BadRequest), ("429", TooBusy), ("500", TryLater)]
)
async def test_the_first_answer_decides_at_once(code: str, raised: type[Exception]) -> None:
    script = Script()
    script.streams = [[code]]
    async with script.served() as client:
        with pytest.raises(raised):
            await seen(client, is_change("a"), since=5)


async def test_rights_that_are_gone_end_the_watch() -> None:
    script = Script()
    script.lists = [listing(10)]
    script.streams = [["end"], ["403"]]
    async with script.served(sleep=no_wait) as client:
        with pytest.raises(Forbidden):
            await seen(client, is_change("a"))


async def test_a_token_that_ends_is_replaced_once_and_the_stream_goes_on() -> None:
    script = Script()
    script.good_tokens = {"one"}
    script.lists = [listing(10)]
    script.streams = [[error(401, "ended"), "end"], [line("ADDED", "a", 11), "wait"]]
    held = "one"

    async def find(refused: bool) -> str:
        nonlocal held
        if refused:
            held = "two"
        return held

    async def later(_seconds: float) -> None:
        script.good_tokens = {"two"}

    async with script.served(token=find, sleep=later) as client:
        found = await seen(client, is_change("a"))
    assert changes(found) == [("ADDED", "a", 11)]
    assert script.tokens == ["one", "one", "one", "two"]


async def test_a_server_that_wants_a_token_gets_none_until_it_asks_and_the_same_one_not_twice() -> None:
    script = Script()
    script.good_tokens = {"good"}
    script.lists = [listing(1), listing(1)]

    async def lazily(refused: bool) -> str:
        return "good" if refused else ""

    async def stubborn(_refused: bool) -> str:
        return "bad"

    async with script.served(token=lazily) as client:
        assert [page.revision async for page in client.pages(TARGET)] == [1]
    assert script.tokens == ["", "good"]
    async with script.served(token=stubborn) as client:
        with pytest.raises(Unauthenticated):
            await anext(client.pages(TARGET))
    assert script.tokens == ["", "good", "bad"]


async def test_a_token_goes_over_plain_http_to_this_machine_only() -> None:
    async def find(_refused: bool) -> str:
        return "secret-token"

    async with VedetteClient("http://192.0.2.1:8470", token=find) as client:
        with pytest.raises(FixInput, match="clear text") as why:
            await client.document("/version")
    assert "secret-token" not in str(why.value)


async def test_a_server_that_is_not_there_is_said_with_what_to_do() -> None:
    script = Script()
    async with script.served() as client:
        url = client.url
    async with VedetteClient(url) as client:
        with pytest.raises(TryLater, match=f"can't reach {url}: .*--server or VEDETTE_URL"):
            await client.document("/version")


async def test_something_else_that_listens_there_is_no_vedette() -> None:
    script = Script()
    script.lists = [web.Response(text="<html>hello</html>"), web.Response(status=302, headers={"Location": "https://x/"})]
    async with script.served() as client:
        with pytest.raises(FixInput, match="not a Vedette"):
            await client.resources()
        with pytest.raises(FixInput, match="redirection"):
            await client.resources()


@pytest.mark.parametrize("url", ["vedette:8470", "ftp://x", "http://", "/run/vedette"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(FixInput, match="not the address of a server"):
        VedetteClient(url)


async def test_in_table_form_columns_come_once_before_the_first_row() -> None:
    def table(rows: list[Any], columns: bool = True) -> dict[str, Any]:
        definitions = [{"name": "Name", "type": "string", "priority": 0}, {"name": "Host", "type": "string", "priority": 1}]
        return {"metadata": {"resourceVersion": "10"}, "columnDefinitions": definitions if columns else None, "rows": rows}

    def row(name: str, revision: int) -> dict[str, Any]:
        return {"cells": [name, None], "object": thing(name, revision)}

    changed = json.dumps({"type": "MODIFIED", "object": table([row("a", 12)], columns=False)}).encode() + b"\n"
    marked = json.dumps({"type": "BOOKMARK", "object": {"rows": [{"cells": ["", ""], "object": thing("", 30)}]}}).encode() + b"\n"
    script = Script()
    script.lists = [table([row("a", 3)])]
    script.streams = [[changed, marked, "end"], [changed.replace(b'"12"', b'"31"'), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, lambda news: isinstance(news, Event) and news.item.revision == 31, form="table")
    assert isinstance(found[0], Columns)
    assert [column.name for column in found[0].columns] == ["Name", "Host"]
    assert isinstance(found[1], Event)
    assert found[1].item.cells == ("a", None)
    assert sum(isinstance(news, Columns) for news in found) == 1
    assert script.asked[2]["resourceVersion"] == "30"


async def test_a_kind_is_found_by_every_word_that_people_use() -> None:
    groups = {"groups": [{"name": PORTS.group, "preferredVersion": {"groupVersion": f"{PORTS.group}/v1"}}]}
    ports = {
        "resources": [
            {"name": "ports", "singularName": "port", "kind": "Port", "shortNames": ["p"]},
            {"name": "ports/log", "kind": "X"},
        ]
    }
    core = {"resources": [{"name": "namespaces", "singularName": "namespace", "kind": "Namespace", "shortNames": ["ns"]}]}
    script = Script()
    async with script.served() as client:
        for word in ("port", "ports", "Port", "p", "ports.openstack.vedette.dev"):
            script.lists = [groups, ports, core]
            assert await client.resource(word) == PORTS
        script.lists = [groups, ports, core]
        assert Target(await client.resource("ns")).path() == "/api/v1/namespaces"
        script.lists = [groups, ports, core]
        with pytest.raises(NotFound, match="there are: namespace, port"):
            await client.resource("prot")


def test_paths_quote_what_a_person_typed() -> None:
    assert Target(PORTS, source="*", project="a/b").path() == "/clusters/*/apis/openstack.vedette.dev/v1/namespaces/a%2Fb/ports"


# --- events ----------------------------------------------------------------------------------------------------------------


def told(revision: int, type_: str = "openstack.port.update.end") -> bytes:
    return json.dumps({"specversion": "1.0", "type": type_, "revision": str(revision), "data": {}}).encode() + b"\n"


async def events_seen(client: VedetteClient, until: int, **options: Any) -> list[Any]:
    found: list[Any] = []
    async with asyncio.timeout(20), aclosing(client.events({}, **options)) as stream:
        async for news in stream:
            found.append(news)
            if isinstance(news, Told) and news.revision == until:
                break
    return found


async def test_events_go_on_after_a_cut_where_they_were() -> None:
    script = Script()
    script.streams = [[told(5), told(9, "vedette.bookmark"), told(7)[:10], "cut"], [told(12), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await events_seen(client, 12, after=4)
    assert [news.revision for news in found if isinstance(news, Told)] == [5, 12]
    assert [asked["after"] for asked in script.asked] == ["4", "9"]


async def test_events_from_now_mean_the_moment_of_asking_even_if_the_stream_is_cut_before_its_first_line() -> None:
    script = Script()
    script.lists = [listing(77)]
    script.streams = [["cut"], [told(78), "wait"]]
    async with script.served(sleep=no_wait) as client:
        await events_seen(client, 78)
    assert [asked.get("after") for asked in script.asked] == [None, "77", "77"]


async def test_events_that_retention_took_are_a_gap_not_an_end() -> None:
    script = Script()
    script.streams = [[error(410, "too old")], [told(500), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await events_seen(client, 500, after=3)
    assert any(isinstance(news, Gap) for news in found)
    assert [asked["after"] for asked in script.asked] == ["3", "0"]


async def test_events_without_follow_end() -> None:
    script = Script()
    script.streams = [[told(5), told(6), "end"]]
    async with script.served() as client:
        found = [
            news.revision async for news in client.events({"type": "port.*"}, since="15m", follow=False) if isinstance(news, Told)
        ]
    assert found == [5, 6]
    assert script.asked == [{"path": "/v1/events", "type": "port.*", "since": "15m", "follow": "false"}]


@pytest.mark.parametrize("first", [["503"], ["cut"]])
async def test_a_server_that_goes_away_between_the_list_and_the_watch_is_waited_for(first: list[Step]) -> None:
    script = Script()
    script.lists = [listing(5, thing("a", 5))]
    script.streams = [first, [line("ADDED", "b", 6), "wait"]]
    async with script.served(sleep=no_wait) as client:
        found = await seen(client, is_change("b"))
    assert changes(found) == [("ADDED", "b", 6)]
    assert sum(isinstance(news, Cut) for news in found) == 1


async def test_a_watch_from_a_place_that_is_not_answered_at_all_fails_at_once() -> None:
    script = Script()
    script.streams = [["503"]]
    async with script.served(sleep=no_wait) as client:
        with pytest.raises(TryLater):
            await seen(client, is_change("b"), since=5)


# --- the service itself ----------------------------------------------------------------------------------------------------


def reported(kind: str, state: str, **more: Any) -> bytes:
    return json.dumps({"kind": kind, "state": state, "detail": "", "news": "of a newer server", **more}).encode() + b"\n"


async def reports(client: VedetteClient, *kinds: str, **asked: Any) -> list[tuple[str, str]]:
    async with asyncio.timeout(20), aclosing(client.resync(kinds, **asked)) as stream:
        return [(one.kind, one.state) async for one in stream]


async def test_a_resync_is_asked_for_as_json_and_told_as_it_goes() -> None:
    script = Script()
    script.posts = [[reported("port", "listing")[:9], reported("port", "listing")[9:] + reported("port", "done"), "end"]]
    async with script.served() as client:
        assert await reports(client, "port", source="one", confirm=True) == [("port", "listing"), ("port", "done")]
    assert script.bodies == [{"kinds": ["port"], "source": "one", "confirm": True}]


async def test_a_report_says_whether_its_kind_is_over_and_well() -> None:
    states = ("never", "waiting", "listing", "confirming", "done", "absent", "incomplete", "refused", "held", "unheard-of")
    script = Script()
    missed = {"created": 1, "updated": 2, "deleted": 3}
    lines = [reported("port", state, missed=missed, seesAll=True, completeAt="2026-11-20T15:00:00Z") for state in states]
    script.posts = [[b"".join(lines), "end"]]
    async with script.served() as client:
        found = [one async for one in client.resync()]
    assert [one.state for one in found if one.ended] == list(states[4:])
    assert [one.state for one in found if one.well] == ["done", "absent"]
    assert (found[0].missed.created, found[0].missed.updated, found[0].missed.deleted) == (1, 2, 3)
    assert found[0].sees_all
    assert found[0].complete_at == "2026-11-20T15:00:00Z"


@pytest.mark.parametrize("steps", [[reported("port", "listing"), "cut"], ["cut"]])
async def test_a_resync_whose_connection_breaks_goes_on_at_the_server_and_is_not_asked_for_again(steps: list[Step]) -> None:
    script = Script()
    script.posts = [steps]
    async with script.served(sleep=no_wait) as client:
        with pytest.raises(TryLater, match="the comparison goes on there, and `vedette status` tells how"):
            await reports(client)
    assert len(script.bodies) == 1


@pytest.mark.parametrize(
    ("code", "error"), [(400, BadRequest), (403, Forbidden), (404, NotFound), (429, TooBusy), (503, TryLater)]
)
async def test_a_resync_that_is_refused(code: int, error: type[Exception]) -> None:
    script = Script()
    script.posts = [[str(code)], [str(code)]]
    async with script.served() as client:
        with pytest.raises(error):
            await reports(client, "port")
        with pytest.raises(error):
            await client.ask_resync(["port"])


async def test_a_resync_that_nobody_waits_for() -> None:
    script = Script()
    script.posts = [[b'{"source":"one","kinds":["port"]}\n', "end"]]
    async with script.served() as client:
        assert json.loads(await client.ask_resync(["port"])) == {"source": "one", "kinds": ["port"]}
    assert script.asked == [{"path": "/v1/resync", "wait": "false"}]


async def test_a_token_that_is_refused_for_a_resync_is_replaced() -> None:
    script = Script()
    script.good_tokens = {"second"}
    script.posts = [[reported("port", "done"), "end"]]

    async def find(refused: bool) -> str:
        return "second" if refused else "first"

    async with script.served(token=find) as client:
        assert await reports(client, "port") == [("port", "done")]
    assert script.tokens == ["first", "second"]


async def test_the_status_is_read_whatever_a_server_leaves_out_or_adds() -> None:
    script = Script()
    cloud = {"source": "one", "api": True, "resync": {"state": "idle", "nextInSeconds": 7.5, "kinds": []}, "verify": None}
    script.lists = [
        {"sources": [{"name": "one", "ready": True, "lastProgress": None}], "clouds": [cloud], "news": 1},
        {},
        {"sources": "none"},
    ]
    async with script.served() as client:
        status = await client.status()
        assert status.sources[0].ready
        assert status.clouds[0].resync is not None
        assert status.clouds[0].resync.next_in_seconds == 7.5
        assert (await client.status()).clouds == ()
        with pytest.raises(FixInput, match="not a Vedette's"):
            await client.status()
