"""The broadcaster, with sockets that do what sockets do: full, slow, stalled, closed."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from vedette.engine.watch import ChangeFeed, Ended, Form, Limits, NoticeFeed, Watcher
from vedette.errors import Expired, TooBusy
from vedette.model.selector import parse
from vedette.ports import EVERYTHING, Appended, Scope, Selection, Store
from vedette.store.memory import MemoryStore
from vedette.testing.watch_suite import (
    ADMIN_PORTS,
    FORM,
    SMALL,
    WISHES,
    Client,
    LoopClock,
    Socket,
    Stage,
    View,
    advance,
    rest,
    run,
    unchunked,
)


def on(play: Callable[[Stage], Awaitable[None]], limits: Limits = SMALL) -> None:
    async def opener(clock: LoopClock) -> Store:
        return MemoryStore(clock)

    async def main() -> None:
        async with Stage(opener, limits) as stage:
            await play(stage)

    run(main())


async def follower(stage: Stage, view: View = ADMIN_PORTS, *, bookmarks: bool = True, open_: bool = True) -> Client:
    """A client that is live at the head."""
    await stage.truth.learn(stage.store)
    client = stage.client(view, bookmarks=bookmarks)
    client.list(stage.store.head)
    stage.connect(client, socket=Socket(open_=open_))
    await rest()
    return client


async def port(stage: Stage, id_: str, size: int = 0, **rest_: object) -> int:
    return await stage.add(stage.said("create", id_, fields={"name": "z" * size}, **rest_))


def socket_of(client: Client) -> Socket:
    assert client.socket is not None
    return client.socket


def lines(client: Client) -> list[bytes]:
    return unchunked(bytes(socket_of(client).got)).splitlines()


# --- back pressure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[300] * 40, [1500] * 10, [20_000, 10, 20_000], [50_000], [5, 9_000, 5]])
@pytest.mark.parametrize("limit", [2_048, 4_096, 65_536])
def test_unsent_bytes_never_pass_the_limit_and_everything_arrives(sizes: list[int], limit: int) -> None:
    async def play(stage: Stage) -> None:
        client = await follower(stage, open_=False)
        for number, size in enumerate(sizes):
            await port(stage, str(number), size)
            await rest()
        socket = socket_of(client)
        while len(lines(client)) < len(sizes):
            socket.take(700)
            await rest()
        assert socket.most <= limit
        await stage.check()

    on(play, msgspec.structs.replace(SMALL, max_buffer_bytes=limit, ring_bytes=10_000_000))


def test_a_stalled_watcher_harms_no_other() -> None:
    async def play(stage: Stage) -> None:
        stalled, quick = await follower(stage, open_=False), await follower(stage)
        for number in range(60):
            await port(stage, str(number), 400)
            await rest()
            assert len(lines(quick)) == number + 1, "it had to wait for another"
        assert not stalled.watcher.live
        assert socket_of(stalled).most <= SMALL.max_buffer_bytes
        await stage.check()

    on(play)


def test_a_live_watcher_whose_socket_takes_nothing_is_cut_and_can_resume() -> None:
    async def play(stage: Stage) -> None:
        client = await follower(stage, open_=False)
        await port(stage, "a", 100)
        await advance(59)
        assert not client.task.done()
        await advance(SMALL.bookmark_seconds + 1)
        assert client.task.done()
        assert socket_of(client).aborted
        assert stage.count("watch_cut_total") == 1
        await stage.ended(client, Ended.STALLED)
        await stage.check()
        assert client.seen["ADDED"] == 1

    on(play)


def test_a_lagging_watcher_whose_socket_takes_nothing_is_cut_and_can_resume() -> None:
    async def play(stage: Stage) -> None:
        client = await follower(stage, open_=False)
        for number in range(30):
            await port(stage, str(number), 500)
            await rest()
        assert not client.watcher.live
        await advance(59)
        assert not client.task.done()
        await advance(2)
        assert client.task.done()
        await stage.ended(client, Ended.STALLED)
        await stage.check()

    on(play)


def test_a_slow_one_is_not_a_stalled_one_also_when_more_comes_in_than_it_takes() -> None:
    async def play(stage: Stage) -> None:
        live, lagging = await follower(stage), await follower(stage, open_=False)
        for number in range(130):
            await port(stage, f"first {number}", 1000)
            await rest()
        socket_of(live).stop()
        assert live.watcher.live
        assert not lagging.watcher.live
        before = 0
        for number in range(120):
            await port(stage, f"then {number}")
            await advance(5)
            unsent = len(socket_of(live).unsent)
            if live.watcher.live:
                assert unsent > before, "this test wants one that falls behind"
                before = unsent
            socket_of(live).take(100)
            socket_of(lagging).take(20)
            before = max(0, before - 100)
        assert stage.count("watch_cut_total") == 0
        await stage.check()

    on(play, msgspec.structs.replace(SMALL, max_buffer_bytes=131_072, ring_bytes=10_000_000))


def test_the_ring_stays_small_and_who_is_behind_reads_the_store() -> None:
    async def play(stage: Stage) -> None:
        behind, live = await follower(stage, open_=False), await follower(stage)
        for number in range(300):
            await port(stage, str(number), 300)
            await rest()
            assert stage.hub._ring_bytes <= SMALL.ring_bytes
        assert len(stage.hub._ring) < 40
        assert behind.watcher.position < stage.hub._ring_starts
        assert live.watcher.live
        await stage.check()

    on(play)


def test_a_ring_that_runs_over_is_dropped_and_nothing_is_missed() -> None:
    async def play(stage: Stage) -> None:
        clients = [await follower(stage) for _ in range(3)]
        news = [stage.news(stage.said("create", str(number), fields={"name": "z" * 500})) for number in range(200)]
        await stage.store.append(news)
        await stage.arrive()
        assert stage.hub._ring_bytes <= SMALL.ring_bytes
        await stage.check()
        assert [client.seen["ADDED"] for client in clients] == [200] * 3

    on(play)


# --- connections that go ----------------------------------------------------------------------------------------------------


def test_a_connection_that_closed_a_moment_ago_harms_no_other() -> None:
    """uvloop raises on a write to a transport that is closed, and the watch is cancelled only after that."""

    async def play(stage: Stage) -> None:
        clients = [await follower(stage) for _ in range(5)]
        for number, client in enumerate(clients[:-1]):
            socket_of(client).lose()
            await port(stage, str(number))
            await rest()
            await stage.ended(client)
        assert len(lines(clients[-1])) == 4
        await advance(SMALL.bookmark_seconds + 1)
        for client in clients[:-1]:
            stage.connect(client)
        await rest()
        socket_of(clients[0]).lose()
        await advance(SMALL.bookmark_seconds + 1)  # a bookmark meets a closed connection
        await stage.ended(clients[0])
        await stage.check()

    on(play)


def test_a_cancelled_watch_is_gone_even_if_it_was_woken_at_that_moment() -> None:
    async def play(stage: Stage) -> None:
        client = await follower(stage, open_=False)
        for number in range(30):
            await port(stage, str(number), 500)
        await rest()
        client.socket.lose()  # wakes it out of drain
        client.task.cancel()
        await rest()
        assert client.task.cancelled()
        client.task = None
        assert stage.hub.watchers == 0

    on(play)


def test_a_broadcaster_that_is_cancelled_as_news_comes_ends() -> None:
    async def play(stage: Stage) -> None:
        await port(stage, "a")
        stage._running.cancel()
        await rest()
        assert stage._running.done()

    on(play)


def test_the_broadcaster_can_fail_and_run_again_and_nobody_misses_anything() -> None:
    async def play(stage: Stage) -> None:
        clients = [await follower(stage), await follower(stage, View(EVERYTHING, "Port", "one", None, WISHES[2]))]
        await port(stage, "before")
        await rest()
        stage._running.cancel()  # as good an end as any: what counts is what the next run does
        await asyncio.wait([stage._running])
        for number in range(5):
            await port(stage, f"between {number}")
        stage._running = asyncio.create_task(stage.hub.run())
        await rest()
        await port(stage, "after")
        await stage.check()
        assert [client.seen["ADDED"] for client in clients] == [7, 7]

    on(play)


def test_watchers_may_come_before_the_broadcaster_runs() -> None:
    async def play(stage: Stage) -> None:
        await stage.stop_hub()
        stage.hub = type(stage.hub)(stage.store, SMALL, stage.telemetry, stage.clock)
        client = await follower(stage)
        await port(stage, "early")
        await rest()
        stage._running = asyncio.create_task(stage.hub.run())
        await port(stage, "late")
        await stage.check()
        assert client.seen["ADDED"] == 2

    on(play)


def test_an_event_that_can_not_be_rendered_ends_only_the_streams_that_want_it(caplog: pytest.LogCaptureFixture) -> None:
    def poisoned(verb: str, key: object, body: bytes) -> bytes:
        if b'"poison"' in body:
            raise ValueError("odd object")
        return FORM.event(verb, key, body)  # type: ignore[arg-type]

    async def play(stage: Stage) -> None:
        good = await follower(stage)
        feed = ChangeFeed(ADMIN_PORTS.selection(), parse("", ""), Form("poisoned", poisoned, FORM.bookmark))
        socket = Socket()
        watcher = Watcher(feed, socket, socket.drain, chunked=True, bookmarks=True, owner="x")
        task = asyncio.create_task(stage.hub.serve(watcher, after=stage.store.head))
        await rest()
        await stage.store.append([stage.news(stage.said("create", id_)) for id_ in ("fine", "poison", "more")])
        await rest()
        with pytest.raises(ValueError, match="odd object"):
            await task
        assert unchunked(bytes(socket.got)).count(b"\n") <= 1
        await port(stage, "later")
        await stage.check()
        assert good.seen["ADDED"] == 4

    with caplog.at_level(logging.CRITICAL):
        on(play)


# --- ends -------------------------------------------------------------------------------------------------------------------


def test_timeout_is_exact_and_clean() -> None:
    async def play(stage: Stage) -> None:
        client = stage.client(ADMIN_PORTS)
        client.list(stage.store.head)
        stage.connect(client, timeout=7)
        await advance(6.9)
        await port(stage, "a")
        assert not client.task.done()
        await advance(0.2)
        await stage.ended(client, Ended.TIMEOUT)
        assert client.seen["ADDED"] == 1

    on(play)


def test_timeout_ends_a_watch_that_still_catches_up_or_sends_its_initial_events() -> None:
    async def play(stage: Stage) -> None:
        await stage.truth.learn(stage.store)
        start = stage.store.head
        for number in range(250):
            await port(stage, str(number), 500)
        await stage.truth.learn(stage.store)
        behind, initial = stage.client(ADMIN_PORTS), stage.client(ADMIN_PORTS)
        behind.list(start)
        for client in (behind, initial):
            stage.connect(client, socket=Socket(open_=False), timeout=10)
        for _ in range(11):
            for client in (behind, initial):
                socket_of(client).take(6_000)
            await advance(1)
        for client in (behind, initial):
            socket_of(client).flow()  # a part that was begun is sent to its end: no half line before a clean end
            await rest()
            assert client.task.done()
        await stage.ended(behind, Ended.TIMEOUT)
        assert 0 < behind.seen["ADDED"] < 250
        await initial.task
        initial.task = None
        assert 0 < len(lines(initial)) < 250
        stage.clients.remove(initial)
        await stage.check()

    on(play)


def test_a_timeout_of_nothing_ends_at_once() -> None:
    async def play(stage: Stage) -> None:
        client = stage.client(ADMIN_PORTS)
        client.list(stage.store.head)
        stage.connect(client, timeout=0)
        await rest()
        await stage.ended(client, Ended.TIMEOUT)

    on(play)


def test_close_ends_all_in_whatever_they_do() -> None:
    async def play(stage: Stage) -> None:
        live = await follower(stage)
        lagging = await follower(stage, open_=False)
        for number in range(30):
            await port(stage, str(number), 500)
        await rest()
        assert not lagging.watcher.live
        waiting = stage.client(ADMIN_PORTS)
        waiting.begun, waiting.place = True, stage.store.head + 1
        stage.connect(waiting)
        await rest()
        stage.hub.close()
        await rest()
        assert live.task.done()
        socket_of(lagging).flow()
        await rest()
        assert lagging.task.done()
        with pytest.raises(TooBusy):
            stage.hub.check_room()
        late = stage.client(ADMIN_PORTS)
        late.list(stage.truth.head)
        stage.connect(late)
        await rest()
        for client in (live, lagging, late):
            await stage.ended(client, Ended.SHUTDOWN)
        await advance(4)
        with pytest.raises(Expired):
            await waiting.task
        waiting.task = None
        assert stage.hub.watchers == 0

    on(play)


def test_end_revokes_one_owner_and_no_other() -> None:
    async def play(stage: Stage) -> None:
        clients = []
        for owner in ("alice", "bob", "alice"):
            client = stage.client(ADMIN_PORTS)
            client.list(stage.store.head)
            stage.connect(client, owner=owner)
            clients.append(client)
        await rest()
        assert [stage.hub.streams(owner) for owner in ("alice", "bob", "carol")] == [2, 1, 0]
        stage.hub.end("alice", Ended.REVOKED)
        await rest()
        for client in (clients[0], clients[2]):
            await stage.ended(client, Ended.REVOKED)
        assert not clients[1].task.done()
        assert stage.hub.streams("alice") == 0

    on(play)


def test_there_is_room_for_so_many_and_who_waits_for_a_place_counts() -> None:
    async def play(stage: Stage) -> None:
        await follower(stage)
        waiting = stage.client(ADMIN_PORTS)
        waiting.begun, waiting.place = True, stage.store.head + 1
        stage.connect(waiting)
        stage.hub.check_room()
        await rest()
        assert stage.hub.watchers == 2
        with pytest.raises(TooBusy, match="max_watchers"):
            stage.hub.check_room()
        await stage.cut(waiting, 0, check=False)
        stage.clients.remove(waiting)
        stage.hub.check_room()

    on(play, msgspec.structs.replace(SMALL, max_watchers=2))


# --- bookmarks --------------------------------------------------------------------------------------------------------------


def test_bookmarks_come_at_their_interval_and_only_where_they_are_wanted() -> None:
    async def play(stage: Stage) -> None:
        wanted, unwanted = await follower(stage), await follower(stage, bookmarks=False)
        await port(stage, "a")
        await advance(61)
        assert sum(b"BOOKMARK" in line for line in lines(wanted)) == 4
        assert len(lines(unwanted)) == 1
        await stage.check()

    on(play)


def test_no_bookmark_is_put_behind_unsent_events() -> None:
    async def play(stage: Stage) -> None:
        client = await follower(stage, open_=False)
        await port(stage, "a", 100)
        await rest()
        unsent = len(socket_of(client).unsent)
        await advance(31)
        assert len(socket_of(client).unsent) == unsent
        await stage.check()

    on(play)


def test_one_that_catches_up_through_what_it_does_not_want_gets_bookmarks_too() -> None:
    """Otherwise a client that is far behind, with a selection of which nothing comes, would have no new place for a long time."""

    class Slow(ChangeFeed):
        async def read(self, store: Store, after: int) -> tuple[bytes, int]:
            await asyncio.sleep(4)
            changes, upto = await store.changes(after, selection=Selection(EVERYTHING), limit=1)
            return b"".join(self.line(change, _memo()) for change in changes), upto

    async def play(stage: Stage) -> None:
        start = stage.store.head
        for number in range(20):
            await port(stage, str(number), project="p1")
        await rest()
        socket = Socket()
        selection = Selection(Scope(projects=frozenset({"p2"})), "", "")
        watcher = Watcher(Slow(selection, parse("", ""), FORM), socket, socket.drain, chunked=False, bookmarks=True, owner="x")
        task = asyncio.create_task(stage.hub.serve(watcher, after=start))
        await advance(50)
        places = [int(msgspec.json.decode(line)["object"]["metadata"]["resourceVersion"]) for line in socket.got.splitlines()]
        assert len(places) == 3
        assert places == sorted(set(places))
        assert all(start < place <= start + 13 for place in places), "ahead of what was read"
        task.cancel()
        await asyncio.wait([task])

    on(play, msgspec.structs.replace(SMALL, ring_bytes=1))


def _memo():  # type: ignore[no-untyped-def]
    from vedette.engine.watch import Memo

    return Memo()


# --- one revision, several events -------------------------------------------------------------------------------------------


def test_all_events_of_one_revision_are_in_one_write() -> None:
    async def play(stage: Stage) -> None:
        client = await follower(stage)
        socket_of(client).writes.clear()
        await stage.add(*[stage.said("create", f"{number}") for number in range(6)])
        await rest()
        assert len(socket_of(client).writes) == 1
        assert len(lines(client)) == 6

    on(play)


def test_what_a_cut_inside_a_revision_costs() -> None:
    """The one residue of `atomic` and `reliable`: a connection cut inside the bytes of one revision that has several events.

    A client that goes on from the last *complete* revision gets the whole of it again and misses nothing. One that goes on from
    the last event it saw (as Kubernetes' own clients do) misses the rest of that revision. Every cut is tried.
    """
    lost = whole = 0
    for cut in itertools.count(step=31):
        told: dict[str, int] = {}

        async def play(stage: Stage, cut: int = cut, told: dict[str, int] = told) -> None:
            careful = await follower(stage, open_=False)
            last = await stage.add(*[stage.said("create", f"{number}") for number in range(3)])
            await rest()
            told["size"] = len(socket_of(careful).unsent)
            await stage.cut(careful, cut)
            arrived = [line for line in unchunked(bytes(socket_of(careful).got)).split(b"\n")[:-1] if line]
            told["arrived"], told["torn"] = len(arrived), careful.torn
            # As Kubernetes' clients: from the last event that arrived.
            naive = stage.client(ADMIN_PORTS)
            naive.begun, naive.place = True, last if arrived else careful.place
            stage.connect(naive)
            await rest()
            told["naive"] = len(arrived) + len(lines(naive))
            await stage.cut(naive, 0, check=False)
            stage.clients.remove(naive)
            await stage.check()  # the careful one has the list

        on(play)
        if told["arrived"] in (1, 2):
            assert told["naive"] == told["arrived"]
            assert told["torn"] == 1
            lost += 1
        else:
            assert told["naive"] == 3
            assert told["torn"] == 0
            whole += 1
        if cut > told["size"]:
            break
    assert lost > 0
    assert whole > 0


# --- notices ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring_bytes", [1, 10_000_000])
@pytest.mark.parametrize("types", [(), ("port.*",), ("port.create.*", "network.*")])
def test_every_notice_of_a_selection_comes_once_and_in_order(ring_bytes: int, types: tuple[str, ...]) -> None:
    def render(appended: Appended) -> bytes:
        return b"%d %b\n" % (appended.entry.revision, appended.entry.notice.id.encode())

    async def play(stage: Stage) -> None:
        scopes = [EVERYTHING, Scope(projects=frozenset({"p1"})), Scope(projects=frozenset({"p3"}))]
        sockets = [Socket(open_=number % 2 == 0) for number in range(6)]
        tasks = []
        start = stage.store.head
        for number, socket in enumerate(sockets):
            feed = NoticeFeed("plain", Selection(scopes[number % 3]), types, render, lambda revision: b"%d\n" % revision)
            watcher = Watcher(feed, socket, socket.drain, chunked=False, bookmarks=False, owner="x")
            tasks.append(asyncio.create_task(stage.hub.serve(watcher, after=start)))
        await rest()
        expected: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        for number in range(120):
            kind, project = ("port", "p1") if number % 3 else ("network", "p2")
            event_type = f"{kind}.{'create' if number % 2 else 'update'}.end"
            id_ = f"n{number}" + "x" * (100 * (number % 5))
            readings = [stage.said("update", f"{number % 7}", project=project)] if number % 4 else []
            revision = await stage.add(*readings, event_type=event_type, id_=id_)
            wanted = not types or (event_type.startswith("network") and "network.*" in types) or any(
                event_type.startswith(one.rstrip("*")) for one in types
            )  # fmt: skip
            if wanted:
                expected[0].append(b"%d %b" % (revision, id_.encode()))
                if readings and project == "p1":  # not the notice that takes an object away: it is shown whole
                    expected[1].append(b"%d %b" % (revision, id_.encode()))
            if number % 10 == 0:
                await rest()
                sockets[1].take(500)
        for socket in sockets:
            socket.flow()
        await rest()
        while any(len(socket.got.splitlines()) < len(expected[number % 3]) for number, socket in enumerate(sockets)):
            await rest()
        for number, socket in enumerate(sockets):
            assert socket.got.splitlines() == expected[number % 3]
            assert socket.most <= stage.limits.max_buffer_bytes
        assert expected[0]
        assert expected[1]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    on(play, msgspec.structs.replace(SMALL, ring_bytes=ring_bytes, max_buffer_bytes=4096))
