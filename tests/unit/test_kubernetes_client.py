"""clients/kubernetes.py: lines, errors, ways in, words for resources, writes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vedette.clients.kubernetes import (
    Enter,
    Kubernetes,
    Line,
    Lines,
    Metadata,
    Status,
    decode_line,
    error,
    in_cluster,
    kubeconfig,
    metadata_of,
    static,
    status_of,
)
from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    Conflict,
    Expired,
    Forbidden,
    NotFound,
    NotUnderstood,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.secret import Secret
from vedette.testing.clock import FakeClock
from vedette.testing.kubernetes import FakeKubernetes
from vedette.testing.tls import Authority

ROUTES = ("route.openshift.io/v1", "routes", "Route")


@contextlib.asynccontextmanager
async def speaking(
    cluster: FakeKubernetes, enter: Enter | None = None, clock: FakeClock | None = None
) -> AsyncIterator[Kubernetes]:
    way = enter or static(cluster.url, token=Secret(cluster.token))
    client = Kubernetes(way, clock or FakeClock(), timeout_s=5)
    try:
        yield client
    finally:
        await client.close()


# --- lines


@given(st.lists(st.binary(max_size=60).map(lambda one: one.replace(b"\n", b"x"))), st.integers(1, 50))
def test_lines_are_the_same_however_they_are_cut_up(lines: list[bytes], size: int) -> None:
    whole = b"".join(line + b"\n" for line in lines)
    splitter = Lines()
    found = [line for at in range(0, len(whole), size) for line in splitter.feed(whole[at : at + size])]
    assert found == [line for line in lines if line.strip()]
    assert splitter.waiting == 0


@given(st.lists(st.binary(max_size=300)))
def test_no_line_longer_than_the_limit_comes_out_or_is_kept(chunks: list[bytes]) -> None:
    splitter = Lines(100)
    with contextlib.suppress(NotUnderstood):
        for chunk in chunks:
            assert all(len(line) <= 100 for line in splitter.feed(chunk))
            assert splitter.waiting <= 100


def test_an_endless_line_is_refused_before_it_ends() -> None:
    splitter = Lines(1000)
    for _ in range(10):
        assert splitter.feed(b"x" * 100) == []
    with pytest.raises(NotUnderstood, match="more than 1000 bytes"):
        splitter.feed(b"x")


@given(
    st.one_of(
        st.binary(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["type", "object", "metadata", "name", "x"]), inner),
        ).map(msgspec.json.encode),
    )
)
def test_garbage_is_a_line_or_not_understood_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(NotUnderstood):
        line = decode_line(data)
        assert isinstance(line, Line)
        assert isinstance(line.metadata, Metadata)
    assert isinstance(status_of(data), Status)


def test_an_error_never_quotes_the_line_it_is_about() -> None:
    for line in (b'{"type":"ADDED","object":{"data":{"key":"hunter2"', b'{"type":7,"object":"hunter2"}', b"hunter2"):
        with pytest.raises(NotUnderstood) as why:
            decode_line(line)
        assert "hunter2" not in str(why.value)
    with pytest.raises(NotUnderstood) as why:
        metadata_of(b'{"metadata":{"name":["hunter2"]}}')
    assert "hunter2" not in str(why.value)


def test_nesting_without_end_is_not_understood() -> None:
    with pytest.raises(NotUnderstood):
        decode_line(b'{"type":"ADDED","object":' + b"[" * 100_000)


# --- errors


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (400, BadRequest),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (405, BadRequest),
        (406, BadRequest),
        (408, CloudUnavailable),
        (409, Conflict),
        (410, Expired),
        (415, BadRequest),
        (422, BadRequest),
        (429, CloudUnavailable),
        (500, CloudUnavailable),
        (503, CloudUnavailable),
        (504, CloudUnavailable),
    ],
)
async def test_every_status_is_an_error_of_ours(code: int, expected: type[VedetteError]) -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        routes = cluster.define(*ROUTES)
        cluster.fail(code, message="as scripted", times=2)
        with pytest.raises(expected, match="as scripted"):
            await client.get(routes, "a", "web")


async def test_retry_after_is_kept_from_the_header_in_both_forms_and_from_the_status() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster, speaking(cluster, clock=clock) as client:
        routes = cluster.define(*ROUTES)
        cluster.fail(429, retry_after=17)
        with pytest.raises(CloudUnavailable) as why:
            await client.get(routes, "a", "web")
        assert why.value.delay == 17
        with pytest.raises(CloudUnavailable) as why:
            await client.page(routes, "", {"resourceVersion": "999999"})
        assert why.value.delay == 1
        assert client._retry_after("Fri, 20 Nov 2026 15:19:16 GMT") == 10
        assert client._retry_after("soon") == 0
        assert client._retry_after("9" * 400) == 0
    assert isinstance(status := error(Status(details=None), code=503), CloudUnavailable)
    assert status.delay == 1


async def test_no_answer_and_a_reset_are_both_unavailable() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster:
        routes = cluster.define(*ROUTES)
        client = Kubernetes(static(cluster.url, token=Secret(cluster.token)), clock, timeout_s=0.2)
        for status in (0, -1):
            cluster.fail(status, times=2)  # (aiohttp itself asks again when a kept connection turns out to be closed)
            with pytest.raises(CloudUnavailable):
                await client.get(routes, "a", "web")
            cluster.faults.clear()
        await client.close()
    with pytest.raises(CloudUnavailable):
        await client.get(routes, "a", "web")
    await client.close()


# --- ways in


async def test_certificates_are_verified_and_what_to_trust_is_a_file_or_a_text(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with FakeKubernetes(FakeClock(), tls=authority.server().server_context()) as cluster:
        token = Secret(cluster.token)
        for good in (
            static(cluster.url, token=token, ca_file=str(authority.ca)),
            static(cluster.url, token=token, ca_data=authority.ca.read_text()),
        ):
            async with speaking(cluster, good) as client:
                await client.request("GET", "/version")
        async with speaking(cluster, static(cluster.url, token=token)) as client:
            with pytest.raises(CloudUnavailable, match="certificate can't be verified"):
                await client.request("GET", "/version")
        async with speaking(cluster, static(cluster.url, token=token, ca_file=str(tmp_path / "none"))) as client:
            with pytest.raises(ConfigError, match="ca"):
                await client.request("GET", "/version")


async def test_a_pod_s_account_is_its_files_and_a_new_token_is_read_after_a_401(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    clock = FakeClock()
    async with FakeKubernetes(clock, tls=authority.server().server_context()) as cluster:
        (tmp_path / "ca.crt").write_bytes(authority.ca.read_bytes())
        (tmp_path / "token").write_text(cluster.token)
        (tmp_path / "namespace").write_text("shop\n")
        environ = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(cluster.port)}
        async with speaking(cluster, in_cluster(tmp_path, environ), clock) as client:
            await client.request("GET", "/version")
            assert (await client.access()).namespace == "shop"
            cluster.rotate_token("second")
            (tmp_path / "token").write_text("second")
            await client.request("GET", "/version")
            assert [one.token for one in cluster.requests] == ["sha256~fake-token", "sha256~fake-token", "second"]
            # Before anybody complains, too.
            (tmp_path / "token").write_text("third")
            await client.request("GET", "/version")
            clock.tick(61)
            cluster.rotate_token("third")
            await client.request("GET", "/version")
            assert [one.token for one in cluster.requests][3:] == ["second", "third"]
    with pytest.raises(ConfigError, match="not a pod"):
        await in_cluster(tmp_path, {})()


async def test_a_token_that_stays_wrong_is_sent_twice_and_then_said(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        FakeKubernetes(FakeClock()) as cluster,
        speaking(cluster, static(cluster.url, token=Secret("wrong-token"))) as client,
    ):
        with caplog.at_level(logging.DEBUG), pytest.raises(Unauthenticated) as why:
            await client.request("GET", "/version")
        assert len(cluster.requests) == 2
        assert "wrong-token" not in caplog.text + str(why.value)


async def test_a_kubeconfig_s_contexts_are_ways_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    async with FakeKubernetes(FakeClock(), tls=authority.server().server_context()) as cluster:
        file = tmp_path / "kubeconfig"
        known = {"server": cluster.url, "certificate-authority": "ca/ca.pem"}
        file.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "good",
                    "clusters": [
                        {"name": "c", "cluster": known},
                        {"name": "unsafe", "cluster": {"server": cluster.url, "insecure-skip-tls-verify": True}},
                    ],
                    "users": [{"name": "u", "user": {"token": cluster.token}}, {"name": "no", "user": {"token": "wrong"}}],
                    "contexts": [
                        {"name": "good", "context": {"cluster": "c", "user": "u", "namespace": "shop"}},
                        {"name": "bad", "context": {"cluster": "c", "user": "no"}},
                        {"name": "unsafe", "context": {"cluster": "unsafe", "user": "u"}},
                    ],
                }
            )
        )
        async with speaking(cluster, kubeconfig(str(file))) as client:
            await client.request("GET", "/version")
            assert (await client.access()).namespace == "shop"
        async with speaking(cluster, kubeconfig(str(file), "bad")) as client:
            with pytest.raises(Unauthenticated):
                await client.request("GET", "/version")
        with pytest.raises(ConfigError, match="certificates are always verified"):
            await kubeconfig(str(file), "unsafe")()
        with pytest.raises(ConfigError, match="can't be used"):
            await kubeconfig(str(file), "none")()
        with pytest.raises(ConfigError, match="can't be used"):
            await kubeconfig(str(tmp_path / "none"))()
        file.write_text("secret: [hunter2")
        with pytest.raises(ConfigError) as why:
            await kubeconfig(str(file))()
        assert "hunter2" not in str(why.value)


@pytest.mark.parametrize("address", ["ftp://host", "https://", "https://user:pw@host", "https://host?x=1"])
def test_an_address_that_is_none_is_refused_at_the_start(address: str) -> None:
    with pytest.raises(ConfigError, match="wants an address"):
        static(address)


# --- what there is


async def test_a_resource_is_found_by_any_of_its_names() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        pods = cluster.define("v1", "pods", "Pod", short_names=("po",))
        routes = cluster.define(*ROUTES)
        other = cluster.define("aaa.example.com/v1", "routes", "Route")
        newest = cluster.define("example.com/v2", "things", "Thing", namespaced=False, categories=("all",))
        older = cluster.define("example.com/v1", "things", "Thing")
        for text, expected in (
            ("pods", pods),
            ("Pod", pods),
            ("po", pods),
            ("pods/v1", pods),
            ("routes", routes),
            ("routes.aaa.example.com", other),
            ("routes.route.openshift.io/v1", routes),
            ("things", newest),
            ("things.example.com", newest),
            ("thing.example.com/v1", older),
        ):
            assert msgspec.structs.replace(await client.resolve(text), verbs=expected.verbs) == expected, text
        assert newest.path("ignored", "a b") == "/apis/example.com/v2/things/a%20b"
        for none in ("nothing", "pods.example.com", "things.example.com/v9", "things.none.example.com"):
            with pytest.raises(NotFound, match="serves no"):
                await client.resolve(none)
        with pytest.raises(BadRequest, match=r"plural\.group/version"):
            await client.resolve("/v1")


async def test_a_group_that_is_down_hides_no_other_and_is_told_when_it_may_be_the_one() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        cluster.define("metrics.example.com/v1", "usages", "Usage")
        things = cluster.define("example.com/v1", "things", "Thing")
        cluster.hidden_groups.add("metrics.example.com")
        assert (await client.resolve("things")).name == things.name
        with pytest.raises(CloudUnavailable):
            await client.resolve("usages")


async def test_a_path_behind_the_address_is_kept() -> None:
    async with FakeKubernetes(FakeClock()) as cluster:
        enter = static(cluster.url + "/clusters/prod/", token=Secret(cluster.token))
        async with speaking(cluster, enter) as client:
            with pytest.raises(NotFound):
                await client.request("GET", "/version")
        assert cluster.requests[-1].path == "/clusters/prod/version"


# --- objects


async def test_objects_are_created_read_patched_in_every_form_and_deleted() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        services = cluster.define("v1", "services", "Service")
        made = await client.create(
            services, "a", {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}}
        )
        assert made["metadata"]["uid"]
        with pytest.raises(Conflict, match="already exists"):
            await client.create(services, "a", {"metadata": {"name": "web"}})
        await client.patch(services, "a", "web", {"spec": {"ports": [{"name": "https", "port": 443}]}}, "strategic")
        assert [one["port"] for one in (await client.get(services, "a", "web"))["spec"]["ports"]] == [80, 443]
        await client.patch(
            services, "a", "web", {"spec": {"ports": [{"name": "only", "port": 1}]}, "metadata": {"labels": {"x": "y"}}}
        )
        await client.patch(services, "a", "web", [{"op": "replace", "path": "/spec/ports/0/port", "value": 2}], "json")
        found = await client.get(services, "a", "web")
        assert found["spec"]["ports"] == [{"name": "only", "port": 2}]
        await client.patch(services, "a", "web", {"status": {"loadBalancer": {}}}, subresource="status")
        applied = await client.apply(services, "a", "other", {"spec": {"type": "ClusterIP"}}, force=True)
        assert applied["metadata"]["managedFields"][0]["manager"] == "vedette"
        with pytest.raises(Conflict, match="has been modified"):
            await client.patch(services, "a", "web", {"metadata": {"resourceVersion": "1"}})
        await client.delete(services, "a", "web")
        with pytest.raises(NotFound):
            await client.get(services, "a", "web")
        assert {one.content_type for one in cluster.asked("patch")} == {
            "application/strategic-merge-patch+json",
            "application/merge-patch+json",
            "application/json-patch+json",
            "application/apply-patch+yaml",
        }


async def test_a_strategic_patch_of_a_crd_is_refused_as_a_real_server_does() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        routes = cluster.define(*ROUTES)
        cluster.put(routes, "a/web")
        with pytest.raises(BadRequest):
            await client.patch(routes, "a", "web", {}, "strategic")


# --- collections


async def test_a_list_comes_page_by_page_at_one_revision() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        pods = cluster.define("v1", "pods", "Pod")
        for number in range(7):
            cluster.put(pods, f"a/p{number}", {"metadata": {"labels": {"odd": str(number % 2)}}})
        pages = []
        async for page in client.pages(pods, limit=3):
            pages.append(page)
            cluster.put(pods, "a/p-later")
        assert [len(page.items) for page in pages] == [3, 3, 1]
        assert len({page.metadata.resourceVersion for page in pages}) == 1
        odd = [item async for page in client.pages(pods, "a", {"labelSelector": "odd=1"}, limit=2) for item in page.items]
        assert [metadata_of(item).name for item in odd] == ["p1", "p3", "p5"]


async def test_a_page_that_comes_too_late_is_expired() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        pods = cluster.define("v1", "pods", "Pod")
        for number in range(4):
            cluster.put(pods, f"a/p{number}")
        pages = client.pages(pods, limit=2)
        await anext(pages)
        cluster.put(pods, "a/p0", {"spec": {}})
        cluster.compact()
        with pytest.raises(Expired, match="too old"):
            await anext(pages)


async def test_a_watch_ends_cleanly_or_is_cut_and_that_is_not_the_same() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        pods = cluster.define("v1", "pods", "Pod")
        async with await client.watch(pods, "", {"resourceVersion": "100"}) as watching:
            cluster.put(pods, "a/p")
            (line,) = await watching.lines()
            assert decode_line(line).type == "ADDED"
            cluster.end()
            assert await watching.lines() == []
        async with await client.watch(pods, "", {"resourceVersion": str(cluster.revision)}) as watching:
            while not cluster.watchers:
                await asyncio.sleep(0.001)
            cluster.cut()
            with pytest.raises(CloudUnavailable, match="was cut"):
                await watching.lines()
            assert not watching.silent


async def test_a_stream_that_says_nothing_is_cut_after_its_limit_and_not_while_we_are_the_slow_ones() -> None:
    clock = FakeClock()
    async with FakeKubernetes(clock) as cluster, speaking(cluster, clock=clock) as client:
        cluster.bookmark_s = 0
        pods = cluster.define("v1", "pods", "Pod")
        async with await client.watch(pods, "", {"resourceVersion": "100"}, inactivity_s=70) as watching:
            await clock.advance(500)  # nobody reads: nobody waits
            cluster.put(pods, "a/p")
            assert len(await watching.lines()) == 1
            waiting = asyncio.create_task(watching.lines())
            await clock.advance(69)
            assert not waiting.done()
            await clock.advance(71)
            with pytest.raises(CloudUnavailable, match="nothing was heard for 70 s"):
                await waiting
            assert watching.silent


async def test_a_watch_from_before_what_is_kept_says_410_in_the_stream() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        pods = cluster.define("v1", "pods", "Pod")
        cluster.put(pods, "a/p")
        cluster.compact()
        async with await client.watch(pods, "", {"resourceVersion": "50"}) as watching:
            (line,) = await watching.lines()
            event = decode_line(line)
            assert event.type == "ERROR"
            assert isinstance(error(status_of(event.object)), Expired)
            assert await watching.lines() == []


async def test_a_finalizer_holds_an_object_until_it_is_gone() -> None:
    async with FakeKubernetes(FakeClock()) as cluster, speaking(cluster) as client:
        pods = cluster.define("v1", "pods", "Pod")
        cluster.put(pods, "a/p", {"metadata": {"finalizers": ["example.com/hold"]}})
        await client.delete(pods, "a", "p")
        assert (await client.get(pods, "a", "p"))["metadata"]["deletionTimestamp"]
        await client.patch(pods, "a", "p", {"metadata": {"finalizers": None}})
        with pytest.raises(NotFound):
            await client.get(pods, "a", "p")
        async with await client.watch(pods, "", {"resourceVersion": "100"}) as watching:
            lines: list[Any] = []
            while len(lines) < 3:
                lines += [json.loads(line) for line in await watching.lines()]
        assert [line["type"] for line in lines] == ["ADDED", "MODIFIED", "DELETED"]
        assert lines[-1]["object"]["metadata"]["finalizers"] == ["example.com/hold"]
