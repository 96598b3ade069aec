"""`watch.py` and `event-watcher` as users run them: the seed's command line and plugin byte for byte, a cluster over TLS."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import dns.resolver
import pytest

from vedette.app import Service
from vedette.compat.event_watcher import load
from vedette.testing.freeipa import PASSWORD, FakeFreeIpa
from vedette.testing.kubernetes import FakeKubernetes
from vedette.testing.named import ZONE, Named, NamedMissing
from vedette.testing.tls import Authority

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "event-watcher"
SEED = ROOT / "tests" / "unit" / "event_watcher_seed" / "plugin_simple.py.txt"
SEED_LINE = (
    "K8S_TOKEN=`oc whoami -t` K8S_API_ENDPOINT='master.example.com:8443' K8S_NAMESPACE=event-watcher "
    "ENV_K8S_CA=./kubernetes.io/serviceaccount/ca.crt K8S_RESOURCE=routes python watch.py"
)
COMMAND = (sys.executable, "-m", "vedette.cli.event_watcher")
SECONDS = 60.0
TOKEN = "sha256~of-whoever-logged-in"

RECORDS = """
def handle_event(watcher, event, config, *args, **kwargs):
    metadata = event["object"]["metadata"]
    return "said {} {} {}".format(event["type"], metadata["name"], metadata["resourceVersion"]), "INFO"
"""
RAISES = """
from pathlib import Path
from vedette.errors import GiveUp

def handle_event(event):
    name = event["object"]["metadata"]["name"]
    if name == "hopeless":
        raise GiveUp("no retry helps")
    if name == "poison" and not Path("fixed").exists():
        raise RuntimeError("not this one")
    return "handled " + name, "WARNING"
"""
TELLS = """
def handle_event(watcher, event, config):
    watcher.logger.debug("the token is %s", watcher.config.k8s_token)
    print("config", watcher.config, dict(config))
    return "told " + watcher.config.k8s_token, "INFO"
"""


class Watcher:
    """The command while it runs, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self._more = asyncio.Condition()

    async def read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            async with self._more:
                self.lines.append(line.decode().rstrip("\n"))
                self._more.notify_all()
        async with self._more:
            self._more.notify_all()

    async def says(self, text: str, times: int = 1) -> None:
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS), self._more:
            await self._more.wait_for(lambda: self._count(text) >= times or self.process.returncode is not None)
        assert self._count(text) >= times, "\n".join(self.lines)

    def _count(self, text: str) -> int:
        return sum(text in line for line in self.lines)

    def said(self, pattern: str) -> list[str]:
        """What follows the pattern, of each line that has it."""
        return [match[1] for line in self.lines if (match := re.search(pattern, line))]


class Place:
    """A cluster with routes, and a folder with watch.py."""

    def __init__(self, folder: Path, cluster: FakeKubernetes, authority: Authority) -> None:
        self.folder, self.cluster = folder, cluster
        self.routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        shutil.copy(EXAMPLE / "watch.py", folder / "watch.py")
        account = folder / "kubernetes.io" / "serviceaccount"
        account.mkdir(parents=True)
        shutil.copy(authority.ca, account / "ca.crt")
        self.environ = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("K8S_", "WATCHER_"))},
            "PATH": f"{folder}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        oc = folder / "bin" / "oc"
        oc.parent.mkdir()
        oc.write_text(f"#!/bin/sh\nset -eu\necho {TOKEN}\n")
        oc.chmod(0o755)

    @property
    def settings(self) -> dict[str, str]:
        """What the seed's line sets."""
        return {
            "K8S_TOKEN": TOKEN,
            "K8S_API_ENDPOINT": f"127.0.0.1:{self.cluster.port}",
            "K8S_NAMESPACE": "event-watcher",
            "ENV_K8S_CA": "./kubernetes.io/serviceaccount/ca.crt",
            "K8S_RESOURCE": "routes",
        }

    def put(self, name: str, host: str = "", *, namespace: str = "event-watcher", **more: Any) -> str:
        """Its resourceVersion."""
        found = self.cluster.put(self.routes, f"{namespace}/{name}", {"spec": {"host": host or f"{name}.example.org"}, **more})
        return str(found["metadata"]["resourceVersion"])

    def remove(self, name: str) -> str:
        return str(self.cluster.remove(self.routes, f"event-watcher/{name}")["metadata"]["resourceVersion"])

    def plugin(self, name: str, text: str) -> None:
        (self.folder / f"plugin_{name}").mkdir()
        (self.folder / f"plugin_{name}" / "__init__.py").write_text(text)

    @asynccontextmanager
    async def running(self, *command: str, **environ: str) -> AsyncIterator[Watcher]:
        process = await asyncio.create_subprocess_exec(
            *command, env={**self.environ, **environ}, cwd=self.folder, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, limit=1 << 20,
        )  # fmt: skip
        watcher = Watcher(process)
        reading = asyncio.create_task(watcher.read())
        try:
            yield watcher
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(SECONDS):
                await process.wait()
                await reading
        assert process.returncode == 0, "\n".join(watcher.lines)

    def watching(self, *arguments: str, **environ: str) -> Any:
        return self.running(sys.executable, "watch.py", *arguments, **{**self.settings, **environ})

    async def followed(self, watches: int = 1) -> None:
        """Until the cluster is watched."""
        async with asyncio.timeout(SECONDS):
            while self.cluster.watchers < watches:
                await asyncio.sleep(0.05)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    folder = tmp_path / "watcher"
    folder.mkdir()
    authority = Authority(tmp_path / "ca")
    async with FakeKubernetes(token=TOKEN, tls=authority.server("api").server_context()) as cluster:
        yield Place(folder, cluster, authority)


@pytest.mark.parametrize("own", [False, True], ids=["shipped", "the seed's own plugin"])
async def test_the_seeds_command_line_logs_what_happens_in_the_namespace(place: Place, own: bool) -> None:
    if own:
        place.plugin("simple", SEED.read_text())
    place.put("there-before")
    place.put("elsewhere", namespace="other")
    line = SEED_LINE.replace("master.example.com:8443", f"127.0.0.1:{place.cluster.port}")
    async with place.running("bash", "-c", line) as watcher:
        await watcher.says("INFO (plugin_simple) Kind: Route; Name: there-before")
        place.put("web")
        await watcher.says("INFO (plugin_simple) Kind: Route; Name: web")
        place.put("web", "other.example.org")
        await watcher.says("Name: web", 2)
        place.remove("web")
        await watcher.says("Name: web", 3)
    said = watcher.said(r"^[\d-]{10} [\d:]{8} INFO \(plugin_simple\) (.*)$")
    assert said == ["Kind: Route; Name: there-before"] + ["Kind: Route; Name: web"] * 3
    assert not any("elsewhere" in line or TOKEN in line for line in watcher.lines)
    assert {one.path for one in place.cluster.requests if one.verb == "watch"} == {
        "/apis/route.openshift.io/v1/namespaces/event-watcher/routes"
    }


async def test_routes_of_an_old_openshift_are_found_in_oapi(place: Place) -> None:
    place.cluster.undefine(place.routes)
    place.routes = place.cluster.define("v1", "routes", "Route", root="/oapi/v1")
    place.put("web")
    async with place.watching() as watcher:
        await watcher.says("Kind: Route; Name: web")


async def test_all_namespaces_are_watched_where_none_is_wanted(place: Place) -> None:
    place.put("elsewhere", namespace="other")
    async with place.watching(K8S_NAMESPACED="False", K8S_NAMESPACE="") as watcher:
        await watcher.says("Kind: Route; Name: elsewhere")
    assert {one.path for one in place.cluster.asked("watch")} == {"/apis/route.openshift.io/v1/routes"}


async def test_plugins_see_each_change_once_whatever_the_server_does(place: Place) -> None:
    place.plugin("records", RECORDS)
    expected = [f"ADDED a {place.put('a')}", f"ADDED b {place.put('b')}"]
    async with place.watching(WATCHER_PLUGIN="records") as watcher:
        await watcher.says("said ADDED b")
        place.cluster.cut()
        expected.append(f"MODIFIED a {place.put('a', 'new.example.org')}")
        await watcher.says("said MODIFIED a")
        await place.followed()
        place.cluster.bookmark()
        place.cluster.end()
        expected.append(f"ADDED c {place.put('c')}")
        await watcher.says("said ADDED c")
        # It has forgotten where we were, and says so in the stream.
        place.cluster.fail_watch({"code": 410, "reason": "Expired", "message": "too old resource version"})
        place.cluster.compact()
        place.cluster.cut()
        expected.append(f"MODIFIED b {place.put('b', 'newer.example.org')}")
        await watcher.says("said MODIFIED b")
        await place.followed()
        await place.cluster.restart()
        expected.append(f"DELETED c {place.remove('c')}")
        await watcher.says("said DELETED c")
    said = watcher.said(r"\(plugin_records\) said (.*)")
    # What a list tells of a deletion, it tells of the last state.
    assert [one.rsplit(" ", 1)[0] for one in said] == [one.rsplit(" ", 1)[0] for one in expected]
    assert said[:-1] == expected[:-1]


async def test_a_plugin_that_raises_stops_neither_the_watch_nor_another_plugin(place: Place) -> None:
    place.plugin("raises", RAISES)
    place.put("hopeless")
    place.put("poison")
    async with place.watching(WATCHER_PLUGIN="raises,simple") as watcher:
        await watcher.says("RuntimeError: not this one")
        place.put("web")
        await watcher.says("WARNING (plugin_raises) handled web")
        await watcher.says("Kind: Route; Name: poison")
        await watcher.says("Kind: Route; Name: web")
        assert not watcher.said(r"(handled poison)")
        (place.folder / "fixed").touch()
        await watcher.says("handled poison")
        (url,) = watcher.said(r"--server (http://127\.0\.0\.1:\d+)$")
        async with aiohttp.ClientSession() as session, session.get(f"{url}/apis/vedette.dev/v1/deadletters") as answer:
            (letter,) = (await answer.json())["items"]
        assert (letter["status"]["handler"], "no retry helps" in str(letter["status"])) == ("raises", True)


async def test_after_a_restart_only_news_is_told_where_there_is_a_data_dir(place: Place) -> None:
    place.plugin("records", RECORDS)
    place.put("a")
    environ = {"WATCHER_PLUGIN": "records", "DATA_DIR": "data"}
    async with place.watching(**environ) as watcher:
        await watcher.says("said ADDED a")
    place.put("b")
    place.put("gone")
    async with place.watching(**environ) as watcher:
        await watcher.says("said ADDED b")
        await watcher.says("said ADDED gone")
    assert not watcher.said("said ADDED (a)")
    place.remove("gone")
    async with place.watching(**environ) as watcher:
        await watcher.says("said DELETED gone")
    assert not watcher.said("said (ADDED)")
    async with place.watching(**environ | {"WATCHER_PLUGIN": "records,simple"}) as watcher:
        await watcher.says("(plugin_simple) Kind: Route; Name: a")
        await watcher.says("(plugin_simple) Kind: Route; Name: b")
    assert not watcher.said("said (ADDED)")
    async with place.watching(WATCHER_PLUGIN="records") as watcher:
        await watcher.says("after a restart plugins are called again")
        await watcher.says("said ADDED a")
        await watcher.says("said ADDED b")


async def test_a_pods_token_is_read_again_when_it_is_replaced(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "vedette")
    account = place.folder / "kubernetes.io" / "serviceaccount"
    (account / "token").write_text(f"{TOKEN}\n")
    (account / "namespace").write_text("event-watcher\n")
    environ = {"K8S_API_ENDPOINT": place.settings["K8S_API_ENDPOINT"], "K8S_RESOURCE": "routes"}
    service = Service(load(None, environ, account=account).config)
    await service.start()
    try:
        place.put("before")
        await logged(caplog, "Kind: Route; Name: before")
        (account / "token").write_text("another-token")
        place.cluster.rotate_token("another-token")
        place.cluster.cut()
        place.put("after")
        await logged(caplog, "Kind: Route; Name: after")
    finally:
        await service.stop()
    assert {one.token for one in place.cluster.asked("watch")} == {TOKEN, "another-token"}


async def logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(SECONDS):
        while text not in caplog.messages:
            await asyncio.sleep(0.05)


async def test_levels_are_kept_and_debug_shows_no_token(place: Place) -> None:
    place.plugin("tells", TELLS)
    (place.folder / "config.ini").write_text("[plugin_tells]\npassword = geheim-in-the-file\n")
    place.put("web")
    async with place.watching("-c", "config.ini", WATCHER_PLUGIN="tells", LOG_LEVEL="DEBUG") as watcher:
        await watcher.says("told ***")
        await watcher.says("the token is ***")
    shown = "\n".join(watcher.lines)
    assert TOKEN not in shown
    assert "InsecureError" not in shown
    async with place.watching(LOG_LEVEL="ERROR") as watcher:
        await place.followed()
    assert watcher.said("(Kind: Route)") == []


async def test_a_server_with_another_ca_is_not_spoken_to(place: Place) -> None:
    async with place.watching(ENV_K8S_CA="./nowhere/ca.crt") as watcher:
        await watcher.says("InsecureError (40)")
        await watcher.says("certificate can't be verified")
    assert not place.cluster.requests


@pytest.mark.parametrize(
    ("code", "environ", "text"),
    [
        (31, {"K8S_RESOURCE": ""}, "InvalidResource"),
        (32, {"K8S_NAMESPACE": ""}, "InvalidNamespace"),
        (33, {"K8S_API_ENDPOINT": "https://"}, "InvalidEndpoint"),
        (34, {"K8S_TOKEN": ""}, "InvalidToken"),
        (1, {"CONFIG_FILE": "conf/config.ini"}, "No such file"),
    ],
)
async def test_what_is_wrong_ends_it_with_its_code(place: Place, code: int, environ: dict[str, str], text: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "watch.py", env={**place.environ, **place.settings, **environ}, cwd=place.folder,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    shown, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == code, shown.decode()
    assert text in shown.decode()


# --- the shipped plugins together ------------------------------------------------------------------------------------------


@pytest.fixture
def bind(tmp_path: Path) -> Any:
    """Without one on the machine: a skip on a laptop, a failure in CI."""
    try:
        named = Named(tmp_path / "named")
    except NamedMissing as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    try:
        named.start()
        yield named
    finally:
        named.kill()


def resolve(named: Named, name: str) -> Sequence[str]:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], named.port, 10.0
    try:
        return [answer.to_text() for answer in resolver.resolve(name, "A", search=False)]
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []


async def test_a_route_gets_its_address_and_its_certificate_from_one_ini_file(place: Place, bind: Named, tmp_path: Path) -> None:
    host = f"www.{ZONE}"
    async with FakeFreeIpa(Authority(tmp_path / "ipa-ca")) as ipa:
        (place.folder / "config.ini").write_text(f"""
[global]
k8s_api_endpoint = 127.0.0.1:{place.cluster.port}
k8s_token = {TOKEN}
k8s_namespace = event-watcher
k8s_ca = ./kubernetes.io/serviceaccount/ca.crt
k8s_resource = routes
log_level = DEBUG
watcher_plugin = dns, ipa

[plugin_dns]
application_router_ip = 192.0.2.10
dns_server = 127.0.0.1
dns_port = {bind.port}
dns_key_file = {bind.key_file}
message_log_level = WARNING

[plugin_ipa]
need_cert_annotation = openshift.io/managed.cert
ipa_user = {ipa.user}
ipa_password = {PASSWORD}
ipa_url = {ipa.url}/
ipa_realm = {ipa.realm}
ipa_ca_cert = {ipa.ca}
""")
        async with place.running(*COMMAND, "--config", "config.ini") as watcher:
            place.put("web", host, metadata={"annotations": {"openshift.io/managed.cert": "true"}})
            await watcher.says(f"WARNING (plugin_dns) Kind: Route; Name: web; {host} A 192.0.2.10")
            await watcher.says(f"certificate for {host} put into the route")
            route = place.cluster.objects(place.routes)["event-watcher/web"]
            assert route["metadata"]["annotations"]["openshift.io/managed.cert.state"] == "created"
            key = route["spec"]["tls"]["key"]
            assert resolve(bind, host) == ["192.0.2.10"]
            # Our own change has come back, and calls for nothing.
            await watcher.says("the route has its certificate")
            place.remove("web")
            await watcher.says(f"host {host} removed")
            await watcher.says(f"{host} A 192.0.2.10 removed")
            assert resolve(bind, host) == []
        assert len(ipa.certificates) == 1
    shown = "\n".join(watcher.lines)
    assert not any(secret in shown for secret in (TOKEN, PASSWORD, "PRIVATE KEY", *key.splitlines()[1:-1]))
