"""sources/kubernetes.py against an API server that cuts, stalls, forgets, refuses and restarts; on a clock that tests move."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.clients.kubernetes import Kubernetes, Resource, static
from vedette.engine.ingest import Ingest
from vedette.errors import ConfigError, TryLater
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import GAP, NOT_UNDERSTOOD, Notice
from vedette.model.reading import Key
from vedette.ports import EVERYTHING, Selection
from vedette.sources.kubernetes import KubernetesSource, Options, Watched, last_manager, path_of, without
from vedette.store.memory import MemoryStore
from vedette.testing.clock import FakeClock
from vedette.testing.kubernetes import FakeKubernetes

SOURCE = "prod"
PATIENCE = 20.0


class Rig:
    """A cluster, a store, and a source between them that can be started anew."""

    def __init__(self, cluster: FakeKubernetes, clock: FakeClock, **options: Any) -> None:
        self.cluster = cluster
        self.clock = clock
        self.store = MemoryStore(clock)
        self.options = options
        self.offered: list[Notice | NewEntry] = []
        self.sizes: list[int] = []
        self.refuse = 0
        self.source = self.new_source()
        self._task: asyncio.Task[None] | None = None

    def new_source(self) -> KubernetesSource:
        options = Options(name=SOURCE, **{"server": self.cluster.url, "token": Secret(self.cluster.token), **self.options})
        enter = static(options.server, token=options.token, token_file=options.token_file)
        client = Kubernetes(enter, self.clock, timeout_s=options.timeout_s)
        source = KubernetesSource(options, self.clock, Telemetry(), client=client, rng=random.Random(4))
        source.remember(self.store)
        return source

    async def offer(self, notices: Sequence[Notice | NewEntry]) -> None:
        if self.refuse:
            self.refuse -= 1
            raise TryLater("the log is full", delay=1)
        self.sizes.append(len(notices))
        await Ingest(self.store, [], Telemetry()).offer(notices)
        self.offered += notices

    def start(self) -> None:
        self._task = asyncio.create_task(self.source.run(self.offer))

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def restart(self) -> None:
        await self.stop()
        self.clock.tick(1)  # nobody starts twice in a second
        self.source = self.new_source()
        self.start()

    async def until(self, condition: Callable[[], Any], *, step: float = 0.0) -> None:
        """Wait in real time for what goes over a socket; the clock moves `step` seconds at each look."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    if self._task is not None and self._task.done():
                        self._task.result()
                    await self.clock.advance(step)
                    await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(
                f"in vain; {self.source.status()}, asked {[one.verb for one in self.cluster.requests]}"
            ) from None

    async def ready(self, *, step: float = 0.1) -> None:
        await self.until(lambda: self.source.status().ready, step=step)

    async def equal(self, *resources: Resource, step: float = 0.1) -> None:
        """Wait until the store serves exactly what the cluster has."""
        async with asyncio.timeout(PATIENCE):
            while True:
                served = [bare(await self.served(one)) for one in resources]
                if served == [bare(self.cluster.objects(one)) for one in resources]:
                    return
                await self.clock.advance(step)
                await asyncio.sleep(0.002)

    async def served(self, resource: Resource) -> dict[str, Any]:
        selection = Selection(scope=EVERYTHING, source=SOURCE, group=resource.group, kind=resource.kind)
        page = await self.store.objects(selection, limit=100_000)
        return {key.id: json.loads(version.body) for key, version in page.items}

    async def changes(self, resource: Resource) -> list[tuple[str, str]]:
        """(verb, id) of every change so far, in order."""
        selection = Selection(scope=EVERYTHING, source=SOURCE, group=resource.group, kind=resource.kind)
        found, _ = await self.store.changes(self.store.oldest, selection=selection, limit=100_000)
        return [(change.verb, change.key.id) for change in found]

    @property
    def types(self) -> list[str]:
        return [notice_of(one).event_type for one in self.offered]

    @property
    def news(self) -> list[str]:
        return [one for one in self.types if one.startswith("kubernetes.")]

    @property
    def causes(self) -> list[str]:
        return [json.loads(bytes(notice_of(one).payload))["cause"] for one in self.offered if notice_of(one).event_type == GAP]


def notice_of(one: Notice | NewEntry) -> Notice:
    return one.notice if isinstance(one, NewEntry) else one


def bare(objects: dict[str, Any]) -> dict[str, Any]:
    """Without what differs on purpose: versions, managed fields, our annotations."""
    found = {}
    for id_, obj in objects.items():
        metadata = {name: value for name, value in obj["metadata"].items() if name not in ("resourceVersion", "managedFields")}
        marks = {name: value for name, value in metadata.pop("annotations", {}).items() if not name.startswith("vedette.dev/")}
        found[id_] = {**obj, "metadata": {**metadata, **({"annotations": marks} if marks else {})}}
    return found


@contextlib.asynccontextmanager
async def rigged(
    *define: tuple[str, str, str], started: bool = True, **options: Any
) -> AsyncIterator[tuple[Rig, list[Resource]]]:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        defined = [cluster.define(*one) for one in (define or (("route.openshift.io/v1", "routes", "Route"),))]
        watched = options.pop("resources", tuple(Watched(resource=one.name) for one in defined))
        rig = Rig(cluster, clock, resources=watched, **options)
        try:
            if started:
                rig.start()
                await rig.ready()
            yield rig, defined
        finally:
            await rig.stop()
            await rig.store.close()


def host(name: str) -> dict[str, Any]:
    return {"spec": {"host": name}}


# --- the path


async def test_what_is_there_and_what_happens_is_served_as_it_is_there() -> None:
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "shop/web", host("a"))
        rig.cluster.put(routes, "shop/web", host("b"))
        rig.cluster.put(routes, "shop/api", host("c"))
        last = rig.cluster.remove(routes, "shop/api")
        await rig.until(lambda: len(rig.news) == 4)
        assert rig.news == [
            "kubernetes.routes.added",
            "kubernetes.routes.modified",
            "kubernetes.routes.added",
            "kubernetes.routes.deleted",
        ]
        await rig.equal(routes)
        assert await rig.changes(routes) == [
            ("ADDED", "shop/web"),
            ("MODIFIED", "shop/web"),
            ("ADDED", "shop/api"),
            ("DELETED", "shop/api"),
        ]
        served = (await rig.served(routes))["shop/web"]
        origin = rig.cluster.objects(routes)["shop/web"]["metadata"]["resourceVersion"]
        assert served["metadata"]["annotations"]["vedette.dev/origin-resource-version"] == origin
        assert "managedFields" not in served["metadata"]
        deleted = notice_of(rig.offered[-1])
        assert deleted.id == f"{last['metadata']['uid']}/{last['metadata']['resourceVersion']}/deleted"
        assert deleted.origin == "notification"


async def test_each_resource_is_told_to_the_log_as_the_api_names_it() -> None:
    async with rigged(("v1", "pods", "Pod")) as (rig, _):
        key = Key(SOURCE, "vedette.dev", "Resource", "pods/v1")
        told = json.loads((await rig.store.get(key, EVERYTHING)).body)["status"]
        assert told["plural"] == "pods"
        assert (told["kind"], told["group"], told["version"], told["namespaced"]) == ("Pod", "", "v1", True)


async def test_a_word_without_a_group_means_what_the_api_serves_and_openshift_3_s_old_path_at_last() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        routes = cluster.define("v1", "routes", "Route", root="/oapi/v1")
        cluster.put(routes, "shop/web", host("a"))
        rig = Rig(cluster, clock, resources=(Watched(resource="routes"),))
        rig.start()
        await rig.equal(routes)
        assert cluster.asked("watch")[0].path == "/oapi/v1/routes"
        await rig.stop()


async def test_objects_of_a_mapped_namespace_belong_to_its_project() -> None:
    async with rigged(projects={"shop": "p1"}) as (rig, [routes]):
        rig.cluster.put(routes, "shop/web", host("a"))
        rig.cluster.put(routes, "other/web", host("b"))
        await rig.equal(routes)
        page = await rig.store.objects(Selection(scope=EVERYTHING, source=SOURCE, kind="Route", group="route.openshift.io"))
        assert {key.id: version.project for key, version in page.items} == {"shop/web": "p1", "other/web": ""}


async def test_one_namespace_and_labels_are_asked_for_and_what_leaves_the_labels_is_deleted() -> None:
    watched = (Watched(resource="routes.route.openshift.io/v1", namespace="shop", label_selector="app=web"),)
    async with rigged(resources=watched) as (rig, [routes]):
        rig.cluster.put(routes, "shop/web", {"metadata": {"labels": {"app": "web"}}, **host("a")})
        rig.cluster.put(routes, "other/web", {"metadata": {"labels": {"app": "web"}}, **host("a")})
        rig.cluster.put(routes, "shop/web", {"metadata": {"labels": {"app": "none"}}, **host("b")})
        await rig.until(lambda: len(rig.news) == 2)
        assert await rig.changes(routes) == [("ADDED", "shop/web"), ("DELETED", "shop/web")]
        assert rig.cluster.asked("watch")[0].path == "/apis/route.openshift.io/v1/namespaces/shop/routes"


async def test_two_entries_for_the_same_objects_are_refused() -> None:
    twice = (Watched(resource="routes"), Watched(resource="route", namespace="shop"))
    async with rigged(started=False, resources=twice) as (rig, _):
        with pytest.raises(ConfigError, match="name it once"):
            async with asyncio.timeout(PATIENCE):
                await rig.source.run(rig.offer)


async def test_an_offer_has_at_most_500_entries_and_a_full_log_holds_the_stream_back() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        pods = cluster.define("v1", "pods", "Pod")
        for number in range(1200):
            cluster.put(pods, f"a/p{number}", {"spec": {"n": number}})
        rig = Rig(cluster, clock, resources=(Watched(resource="pods"),))
        rig.refuse = 3
        rig.start()
        await rig.equal(pods, step=1)
        assert max(rig.sizes) <= 500
        assert len(rig.news) == 1200  # refused ones came again, and once
        await rig.stop()


# --- the faults of a server


@pytest.mark.parametrize("streaming", ["refused", "etcd-3.4", "ignored"])
async def test_a_server_that_can_t_stream_lists_is_asked_for_pages(streaming: Any) -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        cluster.streaming = streaming
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        for number in range(7):
            cluster.put(routes, f"a/r{number}", host(str(number)))
        rig = Rig(cluster, clock, resources=(Watched(resource="routes"),), page=3)
        rig.start()
        await rig.ready(step=0.5)
        assert len(cluster.asked("list")) == 3
        cluster.put(routes, "a/r1", host("new"))
        cluster.remove(routes, "a/r2")
        await rig.equal(routes)
        assert [one for one in rig.news if "added" not in one] == ["kubernetes.routes.modified", "kubernetes.routes.deleted"]
        await rig.stop()


async def test_a_silent_stream_is_opened_anew_within_75_seconds_and_nothing_is_missed() -> None:
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "a/one", host("1"))
        await rig.equal(routes)
        rig.cluster.stall()
        rig.cluster.put(routes, "a/two", host("2"))
        began = rig.clock.monotonic()
        await rig.clock.advance(69)
        assert len(rig.cluster.asked("watch")) == 1
        await rig.clock.advance(2)
        await rig.until(lambda: len([one for one in rig.cluster.requests if one.verb in ("list", "watch")]) == 2)
        rig.cluster.resume()
        await rig.equal(routes, step=0.01)
        assert rig.clock.monotonic() - began < 75
        assert len(rig.news) == 2


async def test_bookmarks_are_a_sign_of_life_and_the_place_to_go_on_from() -> None:
    async with rigged(("v1", "pods", "Pod"), ("v1", "services", "Service"), watch_s=3600.0) as (rig, [pods, services]):
        for number in range(5):
            rig.cluster.put(services, f"a/s{number}")
        await rig.equal(services)
        for _ in range(4):
            await rig.until(lambda: True, step=60)
        watches = len(rig.cluster.asked("watch"))
        assert watches == 2
        rig.cluster.compact()  # without bookmarks the place of the pods would be too old now
        rig.cluster.end()
        rig.cluster.put(pods, "a/p")
        await rig.equal(pods, step=1)
        assert not rig.causes


async def test_events_have_no_bookmarks_and_a_quiet_watch_of_them_stays_ready() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        events = cluster.define("v1", "events", "Event", cached=False)
        rig = Rig(cluster, clock, resources=(Watched(resource="events"),), relist=0.0)
        rig.start()
        await rig.ready()
        for _ in range(3):
            watches = len(cluster.asked("watch"))
            await clock.advance(70)
            await rig.until(lambda watches=watches: len(cluster.asked("watch")) > watches)
        await rig.ready(step=0)
        cluster.put(events, "a/e", {"reason": "Started"})
        await rig.equal(events, step=0)
        await rig.stop()


async def test_a_place_that_is_forgotten_means_to_list_again_and_only_differences_are_news() -> None:
    async with rigged() as (rig, [routes]):
        for number in range(20):
            rig.cluster.put(routes, f"a/r{number}", host(str(number)))
        await rig.equal(routes)
        before = len(rig.news)
        rig.cluster.stall()
        rig.cluster.put(routes, "a/r1", host("changed"))
        rig.cluster.remove(routes, "a/r2")
        rig.cluster.remove(routes, "a/r3")
        rig.cluster.put(routes, "a/r3", host("another of that name"))
        rig.cluster.compact()
        rig.cluster.cut()
        rig.cluster.resume()
        await rig.equal(routes, step=1)
        await rig.until(lambda: len(rig.news) == before + 4, step=0)
        assert Counter(rig.news[before:]) == {
            "kubernetes.routes.modified": 1,
            "kubernetes.routes.deleted": 2,
            "kubernetes.routes.added": 1,
        }
        assert rig.causes == ["expired"]
        assert rig.source.status().gaps == 1
        resynced = [notice_of(one) for one in rig.offered if notice_of(one).event_type.startswith("kubernetes.")][before:]
        assert {one.origin for one in resynced} == {"resync"}
        changes = await rig.changes(routes)
        assert [one for one in changes[20:] if one[1] == "a/r3"] == [("DELETED", "a/r3"), ("ADDED", "a/r3")]


async def test_a_list_of_what_has_not_changed_is_no_news() -> None:
    async with rigged(relist=60.0) as (rig, [routes]):
        for number in range(50):
            rig.cluster.put(routes, f"a/r{number}", host(str(number)))
        await rig.equal(routes)
        before = len(rig.offered)
        starts = len([one for one in rig.cluster.asked("watch") if "sendInitialEvents" in one.query])
        await rig.until(
            lambda: len([one for one in rig.cluster.asked("watch") if "sendInitialEvents" in one.query]) >= starts + 2, step=5
        )
        await rig.ready()
        assert len(rig.offered) == before


async def test_a_continue_token_that_is_too_old_begins_the_list_again_in_one_page() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        cluster.streaming = "refused"
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        for number in range(9):
            cluster.put(routes, f"a/r{number}", host(str(number)))
        rig = Rig(cluster, clock, resources=(Watched(resource="routes"),), page=3)
        cluster.fail(410, verb="list", reason="Expired", message="The provided continue parameter is too old")
        rig.start()
        await rig.ready(step=0.5)
        # The first request was refused; again, and then in the middle.
        await rig.stop()
        assert len(cluster.asked("list")) == 4


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_server_that_is_unwell_is_asked_again_and_its_retry_after_is_kept(status: int) -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        cluster.put(routes, "a/one", host("1"))
        cluster.fail(status, verb="watch", retry_after=7, message="storage is (re)initializing", plain=status == 502)
        rig = Rig(cluster, clock, resources=(Watched(resource="routes"),))
        rig.start()
        await rig.until(lambda: cluster.asked("watch"))
        await rig.until(lambda: clock.sleeping)
        await clock.advance(6.9)
        assert len(cluster.asked("watch")) == 1
        assert not rig.source.status().ready
        await rig.equal(routes)
        await rig.stop()


async def test_resets_refusals_and_error_events_of_every_kind_are_survived() -> None:
    async with rigged() as (rig, [routes]):
        cluster = rig.cluster
        for round_, hurt in enumerate(
            (
                lambda: cluster.fail(0, times=2),
                lambda: cluster.fail(500, times=3),
                lambda: cluster.fail(404, plain=True, message="404 page not found", verb="watch"),
                lambda: cluster.fail_watch({"code": 410, "reason": "Expired", "message": "too old resource version: 1 (2)"}),
                lambda: cluster.fail_watch({"code": 410, "reason": "Gone", "message": "gone"}),
                lambda: cluster.fail_watch({"code": 500, "reason": "InternalError", "message": "an error on the server"}),
                lambda: cluster.fail_watch({"code": 429, "reason": "TooManyRequests", "message": "slowly"}),
                lambda: cluster.fail(410, verb="watch", reason="Expired", message="too old"),
                lambda: cluster.fail(400, verb="watch", reason="BadRequest", message="invalid resource version"),
            )
        ):
            hurt()
            cluster.cut()
            cluster.put(routes, f"a/r{round_}", host("1"))
            await rig.equal(routes, step=1)
        await rig.ready(step=1)
        assert len(rig.news) == 9


async def test_a_restarted_server_has_forgotten_every_place_and_nothing_is_lost() -> None:
    async with rigged() as (rig, [routes]):
        for round_ in range(3):
            rig.cluster.put(routes, "a/r", host(f"{round_}"))
            await rig.equal(routes)
            await rig.cluster.stop()
            await rig.until(lambda: not rig.source.status().ready, step=1)
            rig.cluster.put(routes, "a/r", host(f"{round_} while it was down"))
            await rig.cluster.start()
            rig.cluster.compact()
            await rig.equal(routes, step=1)
        assert [verb for verb, _ in await rig.changes(routes)] == ["ADDED"] + ["MODIFIED"] * 5


async def test_rights_that_were_taken_away_are_noticed_and_said_and_come_back() -> None:
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "a/r", host("1"))
        await rig.equal(routes)
        rig.cluster.revoke("routes", "watch")
        rig.cluster.put(routes, "a/r", host("2"))
        await rig.equal(routes)  # the open stream goes on
        await rig.until(lambda: not rig.source.status().ready, step=10)
        detail = rig.source.status().detail
        assert "not allowed: give the account get, list and watch on routes.route.openshift.io/v1" in detail
        assert 'cannot watch resource "routes"' in detail
        assert await rig.served(routes)  # what was known stays
        rig.cluster.grant("routes")
        rig.cluster.put(routes, "a/r", host("3"))
        await rig.equal(routes, step=1)
        await rig.ready()


async def test_a_token_that_was_replaced_is_read_again_at_once(tmp_path: Any) -> None:
    clock = FakeClock()
    file = tmp_path / "token"
    async with FakeKubernetes(clock) as cluster:
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        file.write_text(cluster.token + "\n")
        rig = Rig(cluster, clock, resources=(Watched(resource="routes"),), token=Secret(), token_file=str(file))
        rig.start()
        await rig.ready()
        cluster.rotate_token("another")
        file.write_text("another\n")
        cluster.cut()
        cluster.put(routes, "a/r", host("1"))
        await rig.equal(routes)
        cluster.rotate_token("the-third")
        cluster.cut()
        await rig.until(lambda: "refuses our token" in rig.source.status().detail, step=1)
        file.write_text("the-third")
        await rig.ready(step=1)
        await rig.stop()


async def test_a_definition_that_comes_later_is_waited_for_and_one_that_goes_leaves_nothing() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        rig = Rig(cluster, clock, resources=(Watched(resource="things.example.com/v1"),))
        rig.start()
        await rig.until(lambda: "no such resource" in rig.source.status().detail)
        things = cluster.define("example.com/v1", "things", "Thing", namespaced=False)
        cluster.put(things, "one", {"spec": {}})
        await rig.equal(things, step=1)
        cluster.undefine(things)
        await rig.until(lambda: rig.news[-1] == "kubernetes.things.deleted")
        await rig.until(lambda: "no such resource" in rig.source.status().detail, step=1)
        assert not await rig.served(things)
        await rig.stop()


async def test_a_cluster_that_was_set_back_is_taken_as_it_is_now() -> None:
    async with rigged() as (rig, [routes]):
        cluster = rig.cluster
        cluster.put(routes, "a/stays", host("1"))
        cluster.put(routes, "a/comes-back", host("1"))
        backup = cluster.revision
        cluster.put(routes, "a/stays", host("2"))
        cluster.remove(routes, "a/comes-back")
        cluster.put(routes, "a/goes", host("1"))
        cluster.put(routes, "a/again", host("1"))
        cluster.remove(routes, "a/again")
        await rig.equal(routes)
        cluster.rewind(backup)
        # A watch from its future gets silence, and no error.
        for _ in range(3):
            await rig.until(lambda: True, step=72)
        await rig.equal(routes, step=1)
        cluster.put(routes, "a/again", host("2"))  # at a version that it had once
        cluster.put(routes, "a/stays", host("3"))
        await rig.equal(routes)
        assert rig.causes[-1] in ("set-back", "expired")


async def test_a_line_that_can_t_be_read_is_set_aside_unseen_and_the_list_says_what_it_was() -> None:
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "a/r", host("1"))
        await rig.equal(routes)
        rig.cluster.fail_watch({}, times=1)
        rig.cluster.faults[0].event = {"type": "ADDED", "object": {"metadata": {"name": 7, "password": "hunter2"}}}
        rig.cluster.cut()
        rig.cluster.put(routes, "a/r", host("2"))
        await rig.equal(routes, step=1)
        aside = [notice_of(one) for one in rig.offered if notice_of(one).event_type == NOT_UNDERSTOOD]
        assert len(aside) == 1
        assert b"hunter2" not in bytes(aside[0].payload)
        assert rig.causes == ["not-understood"]


@pytest.mark.parametrize("streaming", ["yes", "refused"])
async def test_an_odd_object_in_a_list_is_set_aside_once_and_holds_nothing_up(streaming: Any) -> None:
    async with rigged(started=False, relist=60.0) as (rig, [routes]):
        rig.cluster.streaming = streaming
        rig.cluster.put(routes, "a/odd", {"metadata": {"uid": 7}, "spec": {"secret": "hunter2"}})
        rig.cluster.put(routes, "a/strange", {"metadata": {"annotations": ["x"]}})
        rig.cluster.put(routes, "a/well", host("1"))
        rig.start()
        await rig.ready(step=1)
        assert set(await rig.served(routes)) == {"a/strange", "a/well"}
        watches = len(rig.cluster.asked("watch"))
        await rig.until(lambda: len(rig.cluster.asked("watch")) >= watches + 2, step=10)
        await rig.ready(step=1)
        entries, _ = await rig.store.entries(rig.store.oldest, types=[NOT_UNDERSTOOD])
        assert len(entries) == 1
        assert b"hunter2" not in bytes(entries[0].entry.notice.payload)


async def test_what_a_list_brought_before_it_broke_off_is_not_lost() -> None:
    async with rigged(started=False, page=1) as (rig, [routes]):
        rig.cluster.streaming = "refused"
        old = rig.cluster.put(routes, "a/one", host("1"))
        rig.cluster.put(routes, "a/two", host("1"))
        rig.start()
        await rig.ready()
        rig.cluster.remove(routes, "a/one")
        new = rig.cluster.put(routes, "a/one", host("2"))
        rig.cluster.fail(500, verb="list", after=1)
        await rig.cluster.restart()
        await rig.equal(routes, step=1)
        assert not rig.cluster.faults
        told = [entry.notice.id.split("/")[::2] for entry in rig.offered if isinstance(entry, NewEntry)]
        assert [old["metadata"]["uid"], "deleted"] in told
        assert [new["metadata"]["uid"], "added"] in told


# --- starting anew


async def test_a_start_without_objects_says_nothing_again() -> None:
    async with rigged() as (rig, _):
        before = len(rig.offered)
        await rig.restart()
        await rig.ready(step=1)
        assert len(rig.offered) == before == 1


async def test_settings_that_go_to_and_fro_are_followed_each_time() -> None:
    """An object that never moves meanwhile is told again, at the same version."""
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "a/r", {"spec": {"host": "a"}})
        rig.cluster.put(routes, "a/r", {"metadata": {"labels": {"app": "r"}}, "spec": {"host": "b", "noise": 1}})
        await rig.equal(routes)
        selection = Selection(scope=EVERYTHING, source=SOURCE, kind="Route", group="route.openshift.io")
        for number in range(6):
            mapped, dropped, out = number % 2 == 0, number % 3 == 0, number in (2, 4)
            rig.options["projects"] = {"a": "p1"} if mapped else {}
            rig.options["drop_fields"] = ("spec.noise",) if dropped else ()
            rig.options["resources"] = (Watched(resource=routes.name, label_selector="app=none" if out else ""),)
            await rig.restart()
            await rig.ready(step=1)
            found = [
                (version.project, json.loads(version.body)["spec"]) for _, version in (await rig.store.objects(selection)).items
            ]
            spec = {"host": "b"} if dropped else {"host": "b", "noise": 1}
            assert found == ([] if out else [("p1" if mapped else "", spec)]), number


async def test_versions_that_a_restored_etcd_gives_a_second_time_are_news() -> None:
    async with rigged(relist=60.0) as (rig, [routes]):
        rig.cluster.put(routes, "a/one", host("1"))
        there = rig.cluster.revision
        for _ in range(3):
            rig.cluster.put(routes, "a/one", host("2"))
            await rig.equal(routes, step=1)
            rig.cluster.rewind(there)
            await rig.equal(routes, step=5)
            rig.cluster.put(routes, "a/one", host("3"))
            await rig.equal(routes, step=5)
            rig.cluster.rewind(there)
            await rig.equal(routes, step=5)


async def test_a_clock_that_was_ahead_hides_no_deletion() -> None:
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "a/one", host("1"))
        rig.cluster.put(routes, "a/two", host("1"))
        await rig.equal(routes)
        await rig.stop()
        rig.clock.step(-3600)
        rig.cluster.remove(routes, "a/one")
        await rig.restart()
        await rig.equal(routes, step=1)


async def test_a_lease_that_only_beat_while_we_were_down_is_no_news() -> None:
    async with rigged(("coordination.k8s.io/v1", "leases", "Lease")) as (rig, [leases]):
        for name in ("a/one", "a/two"):
            rig.cluster.put(leases, name, {"spec": {"holderIdentity": "x", "renewTime": "1"}})
        await rig.equal(leases)
        await rig.stop()
        rig.cluster.put(leases, "a/one", {"spec": {"holderIdentity": "x", "renewTime": "2"}})
        rig.cluster.put(leases, "a/two", {"spec": {"holderIdentity": "y", "renewTime": "2"}})
        before = len(rig.offered)
        await rig.restart()
        await rig.ready(step=1)
        assert [one.readings[0].id for one in rig.offered[before:] if isinstance(one, NewEntry)] == ["a/two"]


async def test_a_restart_offers_nothing_that_the_log_has_and_finds_what_was_deleted_meanwhile() -> None:
    async with rigged() as (rig, [routes]):
        for number in range(30):
            rig.cluster.put(routes, f"a/r{number}", host(str(number)))
        await rig.equal(routes)
        await rig.stop()
        rig.cluster.remove(routes, "a/r7")
        rig.cluster.put(routes, "a/r8", host("changed"))
        rig.offered.clear()
        await rig.restart()
        await rig.equal(routes)
        await rig.ready()
        assert sorted(rig.news) == ["kubernetes.routes.deleted", "kubernetes.routes.modified"]
        rig.offered.clear()
        await rig.restart()
        await rig.ready()
        assert rig.news == []


async def test_other_settings_for_what_is_kept_have_everything_looked_at_again() -> None:
    async with rigged() as (rig, [routes]):
        rig.cluster.put(routes, "a/r", {"spec": {"host": "a", "noise": 1}})
        await rig.equal(routes)
        rig.options["drop_fields"] = ("spec.noise",)
        await rig.restart()
        await rig.ready()
        assert (await rig.served(routes))["a/r"]["spec"] == {"host": "a"}
        rig.options["projects"] = {"a": "p1"}
        await rig.restart()
        await rig.ready()
        page = await rig.store.objects(Selection(scope=EVERYTHING, source=SOURCE, kind="Route", group="route.openshift.io"))
        assert [version.project for _, version in page.items] == ["p1"]


# --- what never enters


async def test_no_secret_s_data_enters_the_log() -> None:
    async with rigged(("v1", "secrets", "Secret")) as (rig, [secrets]):
        rig.cluster.put(
            secrets,
            "a/s",
            {
                "metadata": {
                    "annotations": {
                        "kubectl.kubernetes.io/last-applied-configuration": '{"data":{"key":"aHVudGVyMg=="}}',
                        "kapp.k14s.io/original": '{"stringData":{"plain":"aHVudGVyMg=="}}',
                        "objectset.rio.cattle.io/applied": "aHVudGVyMg" * 30,
                        "example.com/of": "a YAML text\nkey: aHVudGVyMg==",
                        "example.com/team": "web",
                    }
                },
                "data": {"key": "aHVudGVyMg==", "other": "aHVudGVyMg=="},
                "stringData": {"plain": "aHVudGVyMg=="},
                "type": "Opaque",
            },
        )
        await rig.until(lambda: rig.news)
        rig.cluster.remove(secrets, "a/s")
        await rig.until(lambda: len(rig.news) == 2)
        entries, _ = await rig.store.entries(rig.store.oldest, limit=1000)
        assert b"aHVudGVyMg" not in msgspec.json.encode(entries)
        reading = rig.offered[-1].readings[0]  # type: ignore[union-attr]
        assert reading.fields["data"] == {"key": "***", "other": "***"}
        assert list(reading.fields["metadata"]["annotations"]) == ["example.com/team", "vedette.dev/origin-resource-version"]


async def test_a_private_key_of_any_object_stays_where_it_is() -> None:
    key = "-----BEGIN RSA PRIVATE KEY-----\nMIIBOgIBAAJBAK\n-----END RSA PRIVATE KEY-----\n"
    async with rigged() as (rig, [routes]):
        applied = json.dumps({"spec": {"tls": {"key": key}}})
        rig.cluster.put(
            routes,
            "a/r",
            {"metadata": {"annotations": {"last": applied}}, "spec": {"host": "a", "tls": {"key": key, "certificate": "PEM"}}},
        )
        await rig.until(lambda: rig.news)
        entries, _ = await rig.store.entries(rig.store.oldest, limit=1000)
        assert b"MIIBOgIBAAJBAK" not in msgspec.json.encode(entries)
        assert (await rig.served(routes))["a/r"]["spec"]["tls"]["certificate"] == "PEM"


async def test_heartbeats_are_no_news_unless_asked_for() -> None:
    lease = ("coordination.k8s.io/v1", "leases", "Lease")
    async with rigged(lease) as (rig, [leases]):
        for second in range(5):
            rig.cluster.put(leases, "a/l", {"spec": {"holderIdentity": "one", "renewTime": f"2026-11-20T15:00:0{second}Z"}})
        rig.cluster.put(leases, "a/l", {"spec": {"holderIdentity": "two", "renewTime": "2026-11-20T15:00:09Z"}})
        await rig.equal(leases)
        assert rig.news == ["kubernetes.leases.added", "kubernetes.leases.modified"]
    async with rigged(lease, heartbeats=True) as (rig, [leases]):
        for second in range(5):
            rig.cluster.put(leases, "a/l", {"spec": {"renewTime": f"2026-11-20T15:00:0{second}Z"}})
        await rig.equal(leases)
        assert len(rig.news) == 5


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("spec.a", {"spec": {"b": [{"x": 1, "y": 2}], "c.d/e": 3}}),
        ("spec.b.*.x", {"spec": {"a": 1, "b": [{"y": 2}], "c.d/e": 3}}),
        ("spec['c.d/e']", {"spec": {"a": 1, "b": [{"x": 1, "y": 2}]}}),
        ("spec.*", {"spec": {}}),
        ("spec.a.deeper", {"spec": {"a": 1, "b": [{"x": 1, "y": 2}], "c.d/e": 3}}),
    ],
)
def test_a_path_names_what_is_left_out(path: str, left: dict[str, Any]) -> None:
    value = {"spec": {"a": 1, "b": [{"x": 1, "y": 2}], "c.d/e": 3}}
    assert without(value, path_of(path)) == left
    assert value["spec"]["b"] == [{"x": 1, "y": 2}]


@pytest.mark.parametrize("path", ["", ".", "a..b", ".a", "a[b]", "a['b", "metadata", "metadata.name", "kind"])
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"path|known by"):
        path_of(path)


@pytest.mark.parametrize(
    "wrong",
    [
        {"resources": (Watched(resource="pods"),)},
        {"resources": (Watched(resource="pods"),), "server": "a", "in_cluster": True},
        {"resources": (Watched(resource="pods"),), "kubeconfig": "k", "token": Secret("t")},
        {"resources": (Watched(resource="pods"),), "server": "a", "context": "c"},
        {"resources": (), "server": "a"},
        {"resources": (Watched(resource="pods"),), "server": "a", "relist": 5.0},
        {"resources": (Watched(resource="pods"),), "server": "a", "drop_fields": ("metadata.name",)},
    ],
)
def test_settings_that_don_t_go_together_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Options(name="prod", **wrong)


# --- every history

ACTIONS = st.sampled_from(("put", "put", "put", "put", "remove", "remove", "readd"))
FAULTS = st.sampled_from(
    (
        "",
        "",
        "",
        "",
        "cut",
        "end",
        "compact",
        "compact+cut",
        "bookmark",
        "500",
        "429",
        "reset",
        "error-410",
        "error-500",
        "list-410",
        "restart",
        "stall",
    )
)


@settings(max_examples=25, deadline=None)
@given(
    history=st.lists(st.tuples(ACTIONS, st.integers(0, 3), FAULTS), min_size=1, max_size=25),
    streaming=st.sampled_from(("yes", "refused", "etcd-3.4")),
)
def test_every_history_with_every_fault_ends_with_the_server_s_objects_in_order(
    history: list[tuple[str, int, str]], streaming: Any
) -> None:
    asyncio.run(_live(history, streaming))


async def _live(history: list[tuple[str, int, str]], streaming: Any) -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        cluster.streaming = streaming
        routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        rig = Rig(cluster, clock, resources=(Watched(resource="routes"),), page=2)
        rig.start()
        for number, (action, which, fault) in enumerate(history):
            where = f"a/r{which}"
            if action != "put" and where in cluster.objects(routes):
                cluster.remove(routes, where)
            if action != "remove":
                cluster.put(routes, where, host(str(number)))
            await _hurt(cluster, rig, fault)
            await clock.advance(0.3)
            await asyncio.sleep(0.001)
        await rig.equal(routes, step=1)
        await rig.stop()
        versions: dict[str, int] = {}
        for one in rig.offered:
            if isinstance(one, NewEntry) and (version := one.readings[0].version) is not None:
                id_ = one.readings[0].id
                assert versions.get(id_, 0) <= version, "of one object, later is offered later"
                versions[id_] = version
        await rig.store.close()


async def _hurt(cluster: FakeKubernetes, rig: Rig, fault: str) -> None:
    if fault in ("cut", "compact+cut"):
        cluster.cut()
    if fault in ("compact", "compact+cut"):
        cluster.compact()
    if fault == "end":
        cluster.end()
    if fault == "bookmark":
        cluster.bookmark()
    if fault in ("500", "429"):
        cluster.fail(int(fault), retry_after=2)
    if fault == "reset":
        cluster.fail(0)
    if fault.startswith("error-"):
        cluster.fail_watch({"code": int(fault[6:]), "reason": "x", "message": "scripted"})
    if fault == "list-410":
        cluster.fail(410, verb="list", reason="Expired")
    if fault == "restart":
        await rig.restart()
    if fault == "stall":
        cluster.stall()
        await rig.clock.advance(72)
        cluster.resume()


@pytest.mark.parametrize(
    ("managed", "manager"),
    [
        (None, ""),
        ("odd", ""),
        ([None, 7, {"manager": "a"}, {"time": "2026-11-20T15:00:00Z"}], ""),
        ([{"manager": "a", "time": "2026-11-20T15:00:00Z"}], "a"),
        ([{"manager": "a", "time": "2026-11-20T15:00:01Z"}, {"manager": "b", "time": "2026-11-20T15:00:00Z"}], "a"),
        ([{"manager": "a", "time": "2026-11-20T15:00:00Z"}, {"manager": "b", "time": "2026-11-20T15:00:00Z"}], ""),
        ([{"manager": "a", "time": "2026-11-20T15:00:00Z"}, {"manager": "a", "time": "2026-11-20T15:00:00Z"}], "a"),
    ],
)
def test_who_made_an_object_what_it_is_is_its_newest_manager_if_that_is_one(managed: Any, manager: str) -> None:
    assert last_manager(managed) == manager


async def test_a_change_has_its_maker_and_a_list_has_none() -> None:
    async with rigged(started=False) as (rig, [routes]):
        rig.cluster.put(routes, "a/listed", host("1"))
        rig.start()
        await rig.ready()
        rig.cluster.put(routes, "a/made", host("1"))
        rig.cluster.put(routes, "a/listed", host("2"))
        await rig.equal(routes)
        made = [
            (one.readings[0].id, one.notice.actor_user)
            for one in rig.offered
            if isinstance(one, NewEntry) and one.readings[0].kind == "Route"
        ]
        assert made == [("a/listed", ""), ("a/made", "kubectl"), ("a/listed", "kubectl")]
