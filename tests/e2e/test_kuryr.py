"""Who waits on Vedette instead of polling: examples/controller as its readers run it, and `kubectl wait`, with tenants' tokens
over TLS, on a cloud that says nothing of what they wait for. What docs/howto/kuryr.md says is checked here."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import signal
import ssl
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from serving import SECONDS, Kubectl, Running, kubectls

from vedette.engine.verify import FIRST_SECONDS, GROWTH
from vedette.testing.cloud import FakeCloud

EXAMPLES = Path(__file__).parents[2] / "examples" / "controller"
sys.path.insert(0, str(EXAMPLES))
example = import_module("cloud")
waiting = import_module("waiting")
sys.path.remove(str(EXAMPLES))

CONTROLLER = (sys.executable, str(EXAMPLES / "controller.py"))
VEDETTE = str(Path(sys.executable).parent / "vedette")
PENDING = {"provisioning_status": "PENDING_CREATE", "operating_status": "OFFLINE"}


class Place(Running):
    """The example's cloud and Vedette, in this process."""

    cloud: FakeCloud
    folder: Path

    def environ(self, tenant: str = "demo") -> dict[str, str]:
        """As after `. openrc`."""
        name = "openrc" if tenant == "demo" else f"openrc-{tenant}"
        return sourced(self.folder / name)

    async def command(self, *arguments: str, tenant: str = "demo") -> tuple[int, str, str]:
        """A program, as this tenant: exit code, stdout, stderr."""
        process = await self.start(*arguments, tenant=tenant)
        async with asyncio.timeout(SECONDS):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def start(self, *arguments: str, tenant: str = "demo") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *arguments, env={"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **self.environ(tenant)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    def follow(self, *plurals: str, **more: Any) -> Any:
        """The example's own client."""
        tls = ssl.create_default_context(cafile=self.environ()["VEDETTE_CACERT"])
        return waiting.Vedette(self.url, self.cloud.project_id("demo"), Login(self.cloud), plurals, tls, **more)

    def calls(self, tenant: str) -> int:
        """Requests of this user to Neutron and Octavia."""
        user = self.cloud.user_id(tenant)
        return sum(call.user == user and call.service in ("network", "load-balancer") for call in self.cloud.log)


class Login:
    """As much of a keystoneauth session as the example needs."""

    def __init__(self, cloud: FakeCloud) -> None:
        self._cloud = cloud

    def get_auth_headers(self) -> dict[str, str]:
        return {"X-Auth-Token": self._cloud.token("demo")}

    def invalidate(self) -> None:
        raise AssertionError("no token is refused here")


def sourced(file: Path) -> dict[str, str]:
    """The variables that a file of `export` lines sets, as a shell reads it."""
    said = dict(shlex.split(line)[1].split("=", 1) for line in file.read_text().splitlines())
    assert all(line.startswith("export ") for line in file.read_text().splitlines())
    return said


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with example.world(tmp_path, scan="500ms") as (cloud, service):
        found = Place(service, ssl.create_default_context())
        found.cloud, found.folder = cloud, tmp_path
        yield found


@asynccontextmanager
async def busy(cloud: FakeCloud) -> AsyncIterator[None]:
    """Agents and drivers are at work."""
    working = asyncio.create_task(example.agents(cloud, (0.5, 1.0)))
    try:
        yield
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


# --- the controller --------------------------------------------------------------------------------------------------------


async def test_the_controller_makes_everything_and_asks_nothing_to_know_when_it_is_ready(place: Place) -> None:
    cloud = place.cloud
    async with busy(cloud):
        code, out, err = await place.command(*CONTROLLER, "web", "--once")
        assert (code, err) == (0, ""), out
        (balancer,) = cloud.load_balancer.loadbalancers.values()
        lines = out.splitlines()
        assert f"web is served at {balancer['vip_address']}:80" in lines[-2]
        # The network; and each of seven things is looked for and made.
        assert "15 requests to the cloud's API, 0 of them to wait" in lines[-1]
        assert place.calls("demo") == 15
        made = re.findall(r" s  (\w+ \S+) is made", out)
        assert sorted(made[:2]) == ["port web-0", "port web-1"]
        assert made[2:] == ["loadbalancer web", "listener web", "pool web", "member web-0", "member web-1"]
        states = {one["provisioning_status"] for rows in cloud.load_balancer.rows.values() for one in rows.values()}
        assert states == {"ACTIVE"}
        ports = {
            one["fixed_ips"][0]["ip_address"] for one in cloud.network.ports.values() if one["device_owner"] == "compute:kuryr"
        }
        assert {one["address"] for one in cloud.load_balancer.members.values()} == ports
        # Once more: all of it is found.
        code, out, err = await place.command(*CONTROLLER, "web", "--once")
        assert (code, err) == (0, ""), out
        assert "8 requests to the cloud's API, 0 of them to wait" in out
        assert " is made" not in out


async def test_the_controller_makes_again_what_somebody_has_deleted(place: Place) -> None:
    cloud = place.cloud
    async with busy(cloud):
        process = await place.start(*CONTROLLER, "web", "--members", "1")
        assert process.stdout is not None
        try:
            await line_with(process.stdout, "to wait")
            (port,) = [id_ for id_, one in cloud.network.ports.items() if one["device_owner"] == "compute:kuryr"]
            cloud.delete("port", port)
            made = await line_with(process.stdout, "port web-0 is made")
            assert port not in made
            await line_with(process.stdout, "port web-0 is ACTIVE")
            await line_with(process.stdout, "0 of them to wait")
            calls = place.calls("demo")
            # What happens to others costs nothing.
            cloud.change("port", cloud.port(), name="someone else's")
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(SECONDS):
                out, err = await process.communicate()
            assert (process.returncode, out, err) == (0, b"", b"")
            assert place.calls("demo") == calls
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


async def test_the_controller_says_what_is_broken(place: Place) -> None:
    place.cloud.loadbalancer(name="web", provisioning_status="ERROR")
    async with busy(place.cloud):
        code, out, err = await place.command(*CONTROLLER, "web", "--once")
    assert code == 1, out
    assert "is in ERROR" in err


async def line_with(out: asyncio.StreamReader, text: str) -> str:
    async with asyncio.timeout(SECONDS):
        while line := (await out.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"no line with {text!r}")


async def test_the_cloud_to_try_it_on_is_a_program_that_ends_with_ctrl_c(tmp_path: Path) -> None:
    folder = tmp_path / "try"
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(EXAMPLES / "cloud.py"), str(folder), env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        await line_with(process.stdout, "Ctrl-C ends it.")
        asked = await asyncio.create_subprocess_exec(
            VEDETTE, "get", "network", "private", "-o", "name",
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), **sourced(folder / "openrc")},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(SECONDS):
            out, err = await asked.communicate()
        assert out.decode().startswith("network.openstack.vedette.dev/"), err
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(SECONDS):
            await process.communicate()
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


# --- kubectl wait ----------------------------------------------------------------------------------------------------------


async def kubectl_of(place: Place, tenant: str = "demo") -> Kubectl:
    """The newest, with a kubeconfig of `vedette kubeconfig`. Skips when it can't wait for a field."""
    environ = place.environ(tenant)
    code, _, err = await place.command(VEDETTE, "kubeconfig", "--write", environ["KUBECONFIG"], tenant=tenant)
    assert code == 0, err
    home = place.folder / f"home-{tenant}"
    some = [Kubectl(path, home, "--kubeconfig", environ["KUBECONFIG"], **environ) for path in kubectls()]
    minors = [await one.minor() for one in some]
    if max(minors) < 23:
        pytest.skip("wait --for=jsonpath came with kubectl 1.23")
    return some[minors.index(max(minors))]


async def met(process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err
    assert out.decode().endswith("condition met\n")


async def seen(place: Place, plural: str, id_: str, field: str, value: str) -> None:
    """Return when Vedette has it so, in the tenant's own view."""
    async with place.follow(plural) as vedette:
        await vedette.until(plural, id_, lambda status: status is not None and status[field] == value, SECONDS, never)


async def never() -> None:
    raise AssertionError("Vedette should have known")


READY = "--for=jsonpath={.status.provisioning_status}=ACTIVE"


@pytest.mark.kubectl
async def test_kubectl_waits_for_a_port_that_goes_active_silently(place: Place) -> None:
    kubectl = await kubectl_of(place)
    port = place.cloud.port(device_id="pod-1", device_owner="compute:kuryr")
    await seen(place, "ports", port, "status", "DOWN")
    process = await kubectl.start("wait", "--for=jsonpath={.status.status}=ACTIVE", f"port/{port}", "--timeout=60s")
    await place.until_watched()
    place.cloud.port_active(port)
    await met(process)
    # Afterwards, too; and another tenant finds nothing to wait for.
    await met(await kubectl.start("wait", "--for=jsonpath={.status.status}=ACTIVE", f"port/{port}", "--timeout=60s"))
    other, project = await kubectl_of(place, "other"), place.cloud.project_id("demo")
    wait = ("wait", "--for=jsonpath={.status.status}=ACTIVE", f"port/{port}")
    for where in ((), ("-n", project)):
        code, out, err = await other.run(*wait, *where)
        assert (code, out) == (1, "")
        assert "NotFound" in err


@pytest.mark.kubectl
async def test_kubectl_waits_for_a_load_balancer_and_what_is_under_it(place: Place) -> None:
    cloud = place.cloud
    kubectl = await kubectl_of(place)
    # Nothing under a load balancer is ever announced: it is seen because somebody follows it.
    async with place.follow("loadbalancers", "listeners", "members"):
        balancer = cloud.loadbalancer(**PENDING)
        await seen(place, "loadbalancers", balancer, "provisioning_status", "PENDING_CREATE")
        process = await kubectl.start("wait", READY, f"lb/{balancer}", "--timeout=60s")
        await place.until_watched(4)
        cloud.lb_settled(balancer)
        await met(process)
        cloud.lb_status(balancer, provisioning="PENDING_UPDATE")
        listener = cloud.listener(balancer, **PENDING)
        member = cloud.member(cloud.pool(listener=listener, **PENDING), **PENDING)
        await seen(place, "listeners", listener, "provisioning_status", "PENDING_CREATE")
        await seen(place, "members", member, "provisioning_status", "PENDING_CREATE")
        both = [await kubectl.start("wait", READY, one, "--timeout=60s") for one in (f"listener/{listener}", f"member/{member}")]
        await place.until_watched(5)
        cloud.lb_settled(balancer)
        for process in both:
            await met(process)


@pytest.mark.kubectl
async def test_kubectl_waits_for_a_load_balancer_that_nobody_has_heard_of(place: Place) -> None:
    kubectl = await kubectl_of(place)
    if await kubectl.minor() < 31:
        pytest.skip("wait --for=create came with kubectl 1.31")
    balancer = place.cloud.loadbalancer(**PENDING)
    code, _, err = await kubectl.run("wait", READY, f"lb/{balancer}", "--timeout=60s")
    assert code == 1
    assert "NotFound" in err
    process = await kubectl.start("wait", "--for=create", f"lb/{balancer}", "--timeout=60s")
    place.cloud.lb_settled(balancer)
    await met(process)
    await met(await kubectl.start("wait", READY, f"lb/{balancer}", "--timeout=60s"))


# --- what waiting costs ----------------------------------------------------------------------------------------------------


def reads(seconds: float) -> int:
    """How often one object is read in so long at the most: at once, and again after pauses that grow. (The first answer tells
    what a tenant's notification lacks; that is a change, so the pauses begin at the shortest.)"""
    number, pause = 1, FIRST_SECONDS
    while pause <= seconds:
        number, seconds, pause = number + 1, seconds - pause, pause * GROWTH
    return number


def looks(place: Place, port: str) -> int:
    """How often Vedette asked for this port: by its id, as verify does."""
    return sum(call.service == "network" and ("id", port) in call.query for call in place.cloud.log)


@pytest.mark.kubectl
async def test_neutron_is_asked_no_more_often_however_many_wait(place: Place) -> None:
    kubectl = await kubectl_of(place)
    for waiters in (1, 25):
        await ports_waited_for(place, kubectl, waiters)
    # Nobody else asked: the tenant's own account was not used at all.
    assert place.calls("demo") == 0


async def ports_waited_for(place: Place, kubectl: Kubectl, waiters: int) -> None:
    began = time.monotonic()
    port = place.cloud.port(device_id="pod-1", device_owner="compute:kuryr")
    async with AsyncExitStack() as stack:
        some = [await stack.enter_async_context(place.follow("ports")) for _ in range(waiters)]
        tasks = [asyncio.create_task(one.until("ports", port, is_active, SECONDS, never)) for one in some]
        for one in some:
            await one.until("ports", port, lambda status: status is not None, SECONDS, never)
        by_kubectl = [
            await kubectl.start("wait", "--for=jsonpath={.status.status}=ACTIVE", f"port/{port}", "--timeout=60s")
            for _ in range(min(waiters, 3))
        ]
        await place.until_watched(waiters + len(by_kubectl))
        async with asyncio.timeout(SECONDS):
            while looks(place, port) < 4:
                await asyncio.sleep(0.05)
        place.cloud.port_active(port)
        async with asyncio.timeout(SECONDS):
            assert [status["status"] for status in await asyncio.gather(*tasks)] == ["ACTIVE"] * waiters
        for process in by_kubectl:
            await met(process)
        assert looks(place, port) <= reads(time.monotonic() - began)
    await place.until_unwatched()


async def test_octavia_is_asked_no_more_often_however_many_wait(place: Place) -> None:
    for waiters in (1, 25):
        await balancers_waited_for(place, waiters)
    assert place.calls("demo") == 0


async def balancers_waited_for(place: Place, waiters: int) -> None:
    cloud = place.cloud
    (source,) = place.service.config.sources
    api = source.options.api
    began, lists, calls = time.monotonic(), cheap_lists(place), cloud.count("load-balancer")
    async with AsyncExitStack() as stack:
        some = [await stack.enter_async_context(place.follow("loadbalancers", "listeners")) for _ in range(waiters)]

        async def all_see(plural: str, id_: str, done: Any) -> None:
            async with asyncio.timeout(SECONDS):
                await asyncio.gather(*(one.until(plural, id_, done, SECONDS, never) for one in some))

        balancer = cloud.loadbalancer(**PENDING)
        await all_see("loadbalancers", balancer, lambda status: status is not None)
        cloud.lb_settled(balancer)
        await all_see("loadbalancers", balancer, is_provisioned)
        cloud.lb_status(balancer, provisioning="PENDING_UPDATE")
        listener = cloud.listener(balancer, **PENDING)
        await all_see("listeners", listener, lambda status: status is not None)
        cloud.lb_settled(balancer)
        await all_see("listeners", listener, is_provisioned)
        seconds = time.monotonic() - began
        lists, calls = cheap_lists(place) - lists, cloud.count("load-balancer") - calls
    assert lists <= 1 + seconds / api.scan_s
    # A second's worth may go at once.
    assert calls <= api.requests_per_second * (1 + seconds)
    await place.until_unwatched()


def cheap_lists(place: Place) -> int:
    """Looks of the scan: lists of a few fields."""
    return sum(call.path == "/lbaas/loadbalancers" and ("fields", "updated_at") in call.query for call in place.cloud.log)


def is_active(status: Mapping[str, Any] | None) -> bool:
    return status is not None and status["status"] == "ACTIVE"


def is_provisioned(status: Mapping[str, Any] | None) -> bool:
    return status is not None and status["provisioning_status"] == "ACTIVE"


# --- when Vedette is away --------------------------------------------------------------------------------------------------


class Asking:
    """The cloud's own API, which is asked once at the most."""

    def __init__(self, cloud: FakeCloud, port: str) -> None:
        self._cloud, self._port = cloud, port
        self.times = 0

    async def __call__(self) -> Mapping[str, Any] | None:
        self.times += 1
        return self._cloud.network.ports.get(self._port)


async def test_while_vedette_is_away_the_cloud_is_asked_once(place: Place) -> None:
    cloud = place.cloud
    port = cloud.port(device_id="pod-1")
    ask = Asking(cloud, port)
    async with place.follow("ports", away_seconds=0.5) as vedette:
        await vedette.until("ports", port, lambda status: status is not None, SECONDS, never)
        await place.service.stop()
        with pytest.raises(waiting.NotYet, match="not ready"):
            await vedette.until("ports", port, is_active, SECONDS, ask)
        assert ask.times == 1
        cloud.port_active(port)
        assert (await vedette.until("ports", port, is_active, SECONDS, ask))["status"] == "ACTIVE"
        assert ask.times == 2, "once for each wait"


async def test_when_the_time_is_over_the_cloud_is_asked_once_and_a_deletion_is_told_at_once(place: Place) -> None:
    port = place.cloud.port(device_id="pod-1")
    ask, gone = Asking(place.cloud, port), Asking(place.cloud, "nobody")
    async with place.follow("ports") as vedette:
        await vedette.until("ports", port, lambda status: status is not None, SECONDS, never)
        with pytest.raises(waiting.NotYet, match="not ready"):
            await vedette.until("ports", port, is_active, 0.2, ask)
        with pytest.raises(waiting.NotYet, match="not there"):
            await vedette.until("ports", "nobody", is_active, 0.2, gone)
        assert (ask.times, gone.times) == (1, 1)
        going = asyncio.create_task(vedette.until("ports", port, lambda status: status is None, SECONDS, never))
        wanted = asyncio.create_task(vedette.until("ports", port, is_active, SECONDS, never))
        await asyncio.sleep(0)
        place.cloud.delete("port", port)
        async with asyncio.timeout(SECONDS):
            assert await going is None
            with pytest.raises(waiting.NotYet, match="gone"):
                await wanted


# --- the watch loop, against a server that does as it is told --------------------------------------------------------------


class Scripted:
    """Answers lists and watches of ports from a script, and notes what it was asked."""

    def __init__(self, *script: Sequence[dict[str, Any]] | int) -> None:
        self._script = list(script)
        self.asked: list[str] = []
        self.invalidated = 0
        self.over = asyncio.Event()

    def get_auth_headers(self) -> dict[str, str]:
        return {"X-Auth-Token": f"token-{self.invalidated}"}

    def invalidate(self) -> None:
        self.invalidated += 1

    async def answer(self, request: web.Request) -> web.StreamResponse:
        what = request.query.get("resourceVersion", "list")
        self.asked.append(what if self.invalidated == 0 else f"{what} {request.headers['X-Auth-Token']}")
        if not self._script:
            self.over.set()
            await asyncio.sleep(SECONDS)
        said = self._script.pop(0)
        if isinstance(said, int):
            return web.Response(status=said)
        if "watch" not in request.query:
            (listed,) = said
            return web.json_response(listed)
        return web.Response(body=b"".join(json.dumps(event).encode() + b"\n" for event in said))


def listed(revision: int, *names: str) -> list[dict[str, Any]]:
    items = [{"metadata": {"name": name}, "status": {"status": "DOWN"}} for name in names]
    return [{"metadata": {"resourceVersion": str(revision)}, "items": items}]


def told(type_: str, revision: int, name: str, status: str = "ACTIVE") -> dict[str, Any]:
    return {"type": type_, "object": {"metadata": {"name": name, "resourceVersion": str(revision)}, "status": {"status": status}}}


BOOKMARK = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "30"}}}
EXPIRED = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old", "metadata": {}}}
ENDED = {"type": "ERROR", "object": {"kind": "Status", "code": 401, "message": "ended", "metadata": {}}}


@pytest.mark.parametrize(
    ("script", "asked", "there"),
    [
        pytest.param([listed(10, "a"), []], ["list", "10", "10"], {"a": "DOWN"}, id="the stream ends at once"),
        pytest.param(
            [listed(10, "a"), [told("MODIFIED", 11, "a"), told("ADDED", 12, "b"), told("ADDED", 12, "c")]],
            # Whether 12 was all is not known.
            ["list", "10", "11"],
            {"a": "ACTIVE", "b": "ACTIVE", "c": "ACTIVE"},
            id="the place is the last one that is over",
        ),
        pytest.param(
            [listed(10, "a"), [told("DELETED", 11, "a"), BOOKMARK], [told("ADDED", 31, "b")]],
            ["list", "10", "30", "30"],
            {"b": "ACTIVE"},
            id="a bookmark is a place",
        ),
        pytest.param(
            [listed(10, "a"), [told("ADDED", 11, "b"), EXPIRED], listed(40, "c")],
            ["list", "10", "list", "40"],
            {"c": "DOWN"},
            id="410 in the stream: list again",
        ),
        pytest.param([listed(10, "a"), 410, listed(40, "c")], ["list", "10", "list", "40"], {"c": "DOWN"}, id="410: list again"),
        pytest.param(
            [listed(10, "a"), [ENDED], 401, [told("MODIFIED", 11, "a")]],
            ["list", "10", "10", "10 token-1", "10 token-1"],
            {"a": "ACTIVE"},
            id="401: another token",
        ),
        pytest.param([503, 500, listed(10, "a")], ["list", "list", "list", "10"], {"a": "DOWN"}, id="it is not well"),
    ],
)
async def test_the_loop_lists_watches_and_resumes(script: list[Any], asked: list[str], there: dict[str, str]) -> None:
    scripted = Scripted(*script)
    app = web.Application()
    app.router.add_get("/{path:.*}", scripted.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        async with waiting.Vedette(f"http://127.0.0.1:{runner.addresses[0][1]}", "p", scripted, ["ports"]) as vedette:
            async with asyncio.timeout(SECONDS):
                await scripted.over.wait()
            assert scripted.asked == asked
            names = {name: vedette.get("ports", name) for name in "abc"}
            assert {name: status["status"] for name, status in names.items() if status is not None} == there
    finally:
        await runner.cleanup()
