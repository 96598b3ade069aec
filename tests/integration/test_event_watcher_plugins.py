"""Plugins of the Event Watcher in their real processes: the seed's own, those that are shipped, and the example of an alert."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import dns.resolver
import msgspec
import pytest

from vedette.clients.dns import Key, Nameserver, Write
from vedette.clients.kubernetes import Resource
from vedette.engine.worker import WorkerProcess, validate
from vedette.errors import GiveUp, PluginFailed, TargetUnavailable
from vedette.handlers.event_watcher import EventWatcherHandler, Options, build, code
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry
from vedette.model.fold import ORIGIN_VERSION
from vedette.model.reading import Key as ObjectKey
from vedette.ports import Event, JsonObject
from vedette.testing.freeipa import PASSWORD, FakeFreeIpa
from vedette.testing.handling import FakeContext, change, handler_needs
from vedette.testing.kubernetes import FakeKubernetes
from vedette.testing.named import OTHER_KEY, ZONE, Named, NamedMissing
from vedette.testing.rest import FakeRest
from vedette.testing.tls import Authority

ROOT = Path(__file__).parents[2]
SEED = ROOT / "tests" / "unit" / "event_watcher_seed" / "plugin_simple.py.txt"
MARK = "openshift.io/managed.cert"
ROUTER = "192.0.2.10"


@asynccontextmanager
async def plugin(**options: Any) -> AsyncIterator[EventWatcherHandler]:
    """The handler of one plugin, with its process."""

    def worker(what: Any) -> WorkerProcess:
        return WorkerProcess(what, clock=SystemClock(), telemetry=Telemetry())

    options["config"] = {key: Secret(str(value)) for key, value in options.get("config", {}).items()}
    handler = build(Options(**options), msgspec.structs.replace(handler_needs(name="plugin"), worker=worker))
    try:
        yield handler
    finally:
        await handler.close()


def told(found: JsonObject, verb: str = "ADDED", old: JsonObject | None = None) -> Event:
    """The event, with the object as it is in our log."""
    name = f"{found['metadata'].get('namespace', '')}/{found['metadata']['name']}"
    return msgspec.structs.replace(
        change(verb=verb),  # type: ignore[arg-type]
        key=ObjectKey("kubernetes", "route.openshift.io", "Route", name),
        raw_object=served(found),
        raw_old=served(old) if old else msgspec.Raw(b"{}"),
    )


def served(found: JsonObject) -> msgspec.Raw:
    metadata = found["metadata"]
    notes = {**metadata.get("annotations", {}), ORIGIN_VERSION: metadata.get("resourceVersion", "")}
    metadata = {**metadata, "annotations": notes, "resourceVersion": "1795187946000042"}
    return msgspec.Raw(json.dumps({**found, "metadata": metadata}).encode())


async def tell(handler: EventWatcherHandler, found: JsonObject, verb: str = "ADDED", old: JsonObject | None = None) -> str | None:
    return await handler.handle(told(found, verb, old), FakeContext(timeout=60.0))


class Cluster:
    """A cluster over TLS, and what a plugin needs to get in."""

    def __init__(self, cluster: FakeKubernetes, authority: Authority) -> None:
        self.cluster = cluster
        self.access = {
            "k8s_endpoint": f"127.0.0.1:{cluster.port}",
            "k8s_namespace": "shop",
            "k8s_token": Secret(cluster.token),
            "k8s_ca": str(authority.ca),
        }
        self.routes: Resource = cluster.define("route.openshift.io/v1", "routes", "Route")

    def put(self, name: str, host: str, **more: Any) -> JsonObject:
        return self.cluster.put(self.routes, f"shop/{name}", {"spec": {"host": host}, **more})


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    authority = Authority(tmp_path / "cluster-ca")
    async with FakeKubernetes(tls=authority.server("api").server_context()) as fake:
        yield Cluster(fake, authority)


# --- the operator's --------------------------------------------------------------------------------------------------------


async def test_the_seeds_own_plugin_runs_unchanged_from_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vedette")
    (tmp_path / "plugin_simple").mkdir()
    (tmp_path / "plugin_simple" / "__init__.py").write_bytes(SEED.read_bytes())
    async with plugin(plugin="simple", folders=(str(tmp_path),)) as handler:
        found = {"kind": "Route", "metadata": {"name": "web"}}
        assert await tell(handler, found) == "Kind: Route; Name: web"
    assert ("INFO", "Kind: Route; Name: web") in [(one.levelname, one.getMessage()) for one in caplog.records]


async def test_the_shipped_simple_says_the_same_and_with_a_level_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    found = {"kind": "Route", "metadata": {"name": "web"}}
    async with plugin(plugin="simple") as handler:
        assert await tell(handler, found) == "Kind: Route; Name: web"
    async with plugin(plugin="simple", config={"message_log_level": "WARNING"}) as handler:
        assert await tell(handler, found, "DELETED") == "Kind: Route; Name: web; Event Type:DELETED"
    assert [one.levelname for one in caplog.records if "Event Type" in one.getMessage()] == ["WARNING"]


RAISES = """
import os, sys

def handle_event(event):
    name = event["object"]["metadata"]["name"]
    if name == "gone":
        os._exit(3)
    if name == "exit":
        sys.exit(4)
    return str(event["object"]["spec"]["host"]), "INFO"
"""


async def test_what_a_plugin_raises_is_told_with_its_line_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "plugin_raises.py").write_text(RAISES)
    async with plugin(plugin="raises", folders=(str(tmp_path),)) as handler:
        with pytest.raises(PluginFailed, match=r"KeyError: 'spec' \(plugin_raises\.py line 10, in handle_event\)"):
            await tell(handler, {"kind": "Route", "metadata": {"name": "web"}})
        with pytest.raises(PluginFailed, match="SystemExit: 4"):
            await tell(handler, {"kind": "Route", "metadata": {"name": "exit"}})
        with pytest.raises(Exception, match="exit"):
            await tell(handler, {"kind": "Route", "metadata": {"name": "gone"}})
        assert await tell(handler, {"kind": "Route", "metadata": {"name": "web"}, "spec": {"host": "a.example"}}) == "a.example"


async def test_a_plugin_is_checked_before_anything_starts(tmp_path: Path) -> None:
    wrong = await validate(code("x", Options(plugin="nobodys", folders=(str(tmp_path),))), clock=SystemClock())
    assert wrong == "WATCHER_PLUGIN: no module plugin_nobodys is found; there are: dns, ipa, simple"


async def test_the_example_of_an_alert_tells_alertmanager(caplog: pytest.LogCaptureFixture) -> None:
    folder = str(ROOT / "examples" / "event-watcher")
    async with FakeRest() as rest:
        url = f"http://127.0.0.1:{rest.port}/api/v2/alerts"
        async with plugin(plugin="alert", folders=(folder,), config={"url": url, "severity": "info"}) as handler:
            web = {"kind": "Route", "metadata": {"name": "web", "namespace": "shop"}, "spec": {"host": "a.example"}}
            other = {**web, "spec": {"host": "b.example"}}
            assert await tell(handler, web) == "RouteAdded: web (a.example) was added"
            assert await tell(handler, web, "MODIFIED", web) == "Route web: no alert"
            await tell(handler, other, "MODIFIED", web)
            rest.answers.append(503)
            with pytest.raises(PluginFailed, match="HTTPError: 503"):
                await tell(handler, other, "DELETED")
            await tell(handler, other, "DELETED")
    alerts = [json.loads(one.body)[0] for one in rest.sent]
    assert [one["labels"]["alertname"] for one in alerts] == ["RouteAdded", "RouteModified", "RouteDeleted", "RouteDeleted"]
    assert alerts[0]["labels"] == {"alertname": "RouteAdded", "severity": "info", "namespace": "shop", "name": "web"}
    assert rest.sent[0].path == "/api/v2/alerts"


# --- plugin_dns ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    """Without one on the machine: a skip on a laptop, a failure in CI."""
    try:
        named = Named(Path(tmp_path_factory.mktemp("named")))
    except NamedMissing as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    try:
        named.start()
        yield named
    finally:
        named.kill()


def resolve(named: Named, name: str) -> list[str]:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], named.port, 10.0
    try:
        return sorted(answer.to_text() for answer in resolver.resolve(f"{name}.{ZONE}", "A", search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []


def dns_config(named: Named, **more: Any) -> dict[str, Any]:
    return {
        "application_router_ip": ROUTER,
        "dns_server": "127.0.0.1",
        "dns_port": named.port,
        "dns_key_file": named.key_file,
        "message_log_level": "DEBUG",
        **more,
    }


async def test_a_routes_host_is_in_dns_while_the_route_has_it(bind: Named, cluster: Cluster) -> None:
    async with plugin(plugin="dns", config=dns_config(bind), **cluster.access) as handler:
        web = cluster.put("web", f"one.{ZONE}")
        assert await tell(handler, web) == f"Kind: Route; Name: web; one.{ZONE} A {ROUTER}"
        assert resolve(bind, "one") == [ROUTER]
        await tell(handler, web)  # at least once
        moved = cluster.put("web", f"two.{ZONE}")
        said = await tell(handler, moved, "MODIFIED", web)
        assert said == f"Kind: Route; Name: web; one.{ZONE} A {ROUTER} removed, two.{ZONE} A {ROUTER}"
        assert (resolve(bind, "one"), resolve(bind, "two")) == ([], [ROUTER])
        assert await tell(handler, moved, "MODIFIED", moved) == "Kind: Route; Name: web; nothing to do"
        cluster.cluster.remove(cluster.routes, "shop/web")
        assert await tell(handler, moved, "DELETED", moved) == f"Kind: Route; Name: web; two.{ZONE} A {ROUTER} removed"
        assert resolve(bind, "two") == []


async def test_a_modified_route_that_is_gone_by_now_loses_its_record(bind: Named, cluster: Cluster) -> None:
    async with plugin(plugin="dns", config=dns_config(bind), **cluster.access) as handler:
        web = cluster.put("web", f"three.{ZONE}")
        await tell(handler, web)
        cluster.cluster.remove(cluster.routes, "shop/web")
        await tell(handler, web, "MODIFIED", web)
        assert resolve(bind, "three") == []


async def test_what_another_wrote_stays_when_a_route_goes(bind: Named, cluster: Cluster) -> None:
    secret = bind.key_file.read_text().split('"')[3]
    others = Nameserver("127.0.0.1", port=bind.port, key=Key("vedette", Secret(secret)))
    async with plugin(plugin="dns", config=dns_config(bind), **cluster.access) as handler:
        web = cluster.put("web", f"four.{ZONE}")
        await others.write(ZONE, [Write(name=f"four.{ZONE}", type="A", values=("192.0.2.99",), ttl=60)])
        await tell(handler, web, "DELETED")
        assert resolve(bind, "four") == ["192.0.2.99"]
        await tell(handler, web)
        assert resolve(bind, "four") == [ROUTER]
        with pytest.raises(GiveUp, match="every free name"):
            await tell(handler, cluster.put("star", f"*.{ZONE}"))


async def test_a_wrong_key_is_no_success_and_a_server_that_is_down_is_waited_for(
    bind: Named, cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "wrong.key").write_text(OTHER_KEY.replace("other", "vedette"))
    web = cluster.put("web", f"five.{ZONE}")
    async with plugin(plugin="dns", config=dns_config(bind, dns_key_file=tmp_path / "wrong.key"), **cluster.access) as handler:
        with pytest.raises(GiveUp, match="BADSIG"):
            await tell(handler, web)
    async with plugin(plugin="dns", config=dns_config(bind), **cluster.access) as handler:
        bind.kill()
        with pytest.raises(TargetUnavailable, match="can't be reached"):
            await tell(handler, web)
        bind.start()
        await tell(handler, web)
        assert resolve(bind, "five") == [ROUTER]


async def test_other_objects_have_no_record(bind: Named, cluster: Cluster) -> None:
    async with plugin(plugin="dns", config=dns_config(bind), **cluster.access) as handler:
        pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p", "namespace": "shop"}, "spec": {}}
        assert await tell(handler, pod, "MODIFIED", pod) == "Kind: Pod; Name: p; nothing to do"
    async with plugin(plugin="dns", **cluster.access) as handler:
        with pytest.raises(PluginFailed, match=r"\[plugin_dns\] application_router_ip: is missing"):
            await tell(handler, cluster.put("web", f"six.{ZONE}"))


# --- plugin_ipa ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def ipa(tmp_path: Path) -> AsyncIterator[FakeFreeIpa]:
    async with FakeFreeIpa(Authority(tmp_path / "ipa-ca")) as fake:
        yield fake


def ipa_config(ipa: FakeFreeIpa) -> dict[str, Any]:
    return {
        "need_cert_annotation": MARK,
        "ipa_user": ipa.user,
        "ipa_password": PASSWORD,
        "ipa_url": f"{ipa.url}/",
        "ipa_realm": ipa.realm,
        "ipa_ca_cert": ipa.ca,
    }


ASKS = {"metadata": {"annotations": {MARK: "true"}}}


@pytest.mark.parametrize("served_at", ["route.openshift.io/v1", "/oapi/v1"])
async def test_a_route_that_asks_gets_its_certificate_where_routes_are_served(
    cluster: Cluster, ipa: FakeFreeIpa, served_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    if served_at == "/oapi/v1":
        cluster.cluster.undefine(cluster.routes)
        cluster.routes = cluster.cluster.define("v1", "routes", "Route", root=served_at)
    async with plugin(plugin="ipa", config=ipa_config(ipa), **cluster.access) as handler:
        web = cluster.put("web", "www.example.org", **ASKS)
        said = await tell(handler, web)
        assert said == "Kind: Route; Name: web; host www.example.org added; certificate for www.example.org put into the route"
        route = cluster.cluster.objects(cluster.routes)["shop/web"]
        assert route["metadata"]["annotations"] == {MARK: "true", f"{MARK}.state": "created"}
        assert "BEGIN CERTIFICATE" in route["spec"]["tls"]["certificate"]
        key = route["spec"]["tls"]["key"]
        # Our own change comes back.
        assert "has its certificate" in (await tell(handler, route, "MODIFIED", web) or "")
        assert len(ipa.certificates) == 1
        cluster.cluster.remove(cluster.routes, "shop/web")
        assert "host www.example.org removed" in (await tell(handler, route, "DELETED", route) or "")
    (patch,) = cluster.cluster.asked("patch")
    assert patch.path.startswith("/oapi/v1/" if served_at == "/oapi/v1" else "/apis/route.openshift.io/v1/")
    assert ipa.hosts == {}
    for line in caplog.text.splitlines():
        assert not any(secret in line for secret in (PASSWORD, cluster.cluster.token, "PRIVATE KEY", key.splitlines()[1]))


async def test_a_route_that_does_not_ask_and_a_host_of_somebody_else_are_left_alone(cluster: Cluster, ipa: FakeFreeIpa) -> None:
    async with plugin(plugin="ipa", config=ipa_config(ipa), **cluster.access) as handler:
        plain = cluster.put("plain", "plain.example.org")
        assert await tell(handler, plain) == "Kind: Route; Name: plain; nothing to do"
        assert not ipa.requests
        ipa.hosts["db.example.org"] = {"fqdn": ["db.example.org"]}
        theirs = cluster.put("theirs", "db.example.org", **ASKS)
        assert "was not added here: left alone" in (await tell(handler, theirs, "DELETED") or "")
        assert "db.example.org" in ipa.hosts
        pod = {"kind": "Pod", "metadata": {"name": "p", "namespace": "shop"}}
        assert await tell(handler, pod) == "Kind: Pod; Name: p; nothing to do"


async def test_a_freeipa_that_is_down_is_waited_for_and_a_missing_key_is_named(cluster: Cluster, ipa: FakeFreeIpa) -> None:
    web = cluster.put("web", "www.example.org", **ASKS)
    async with plugin(plugin="ipa", config=ipa_config(ipa), **cluster.access) as handler:
        await ipa.stop()
        with pytest.raises(TargetUnavailable, match="can't be reached"):
            await tell(handler, web)
        await ipa.start()
        assert "put into the route" in (await tell(handler, web) or "")
    async with plugin(plugin="ipa", config={"ipa_url": ipa.url}, **cluster.access) as handler:
        with pytest.raises(PluginFailed, match=r"\[plugin_ipa\] ipa_user: is missing"):
            await tell(handler, web)
