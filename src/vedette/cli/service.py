"""`vedette serve`, `demo`, `check-config` and `version`: a configuration comes in, app.py runs it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import platform
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vedette import __version__
from vedette.cli.reach import DEFAULT_URL
from vedette.cli.show import closing, say
from vedette.errors import CannotStart, ConfigError
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.tasks import cancel, keep_running

if TYPE_CHECKING:
    from vedette.app import Service
    from vedette.config import Config, SourceConfig
    from vedette.kit.clock import Clock
    from vedette.kit.telemetry import Telemetry
    from vedette.ports import Source

DEFAULT_CONFIG = Path("/etc/vedette/vedette.yaml")
DEFAULT_LISTEN = "127.0.0.1:8470"
RECORDINGS = "recordings"
"""The folder of `sources/` that holds what `vedette demo` plays."""
SPEED = 1.5
MOST_QUIET = 1.0
"""Seconds of silence in the demo: the recording's own pauses (someone waits for a server to be built) are cut down to this."""
COUNTER_SECONDS = 1.0
FAKE = "fake"
"""The cloud that isn't played: it is made up as it goes, and has an API."""
RESYNC_SECONDS = 20
"""Between two comparisons with that API: often, so that what was missed is found while somebody looks."""

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", envvar="VEDETTE_CONFIG", help="The configuration file.", metavar="FILE")
]


def add_to(app: typer.Typer) -> None:
    app.command("serve", epilog=SERVE_EXAMPLES)(serve)
    app.command("demo", epilog=DEMO_EXAMPLES)(demo)
    app.command("check-config", epilog=CHECK_EXAMPLES)(check_config)
    app.command("version")(version)


SERVE_EXAMPLES = """Examples:

\b
vedette check-config vedette.yaml && vedette serve --config vedette.yaml
RABBIT_PASSWORD=… vedette serve --config /etc/vedette/vedette.yaml
"""

DEMO_EXAMPLES = """Examples:

\b
vedette demo
vedette demo --cloud fake
vedette demo --listen 127.0.0.1:9000
"""

CHECK_EXAMPLES = """Examples:

\b
vedette check-config vedette.yaml
vedette check-config vedette.yaml > effective.yaml
"""


def serve(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Run the service until SIGTERM or Ctrl-C."""
    from vedette import app
    from vedette.config import load
    from vedette.kit.log import configure, kv

    settings = load(config, os.environ)
    configure(settings.log.level, settings.log.format)
    log = logging.getLogger("vedette.cli")

    def ready(service: Service) -> None:
        for host, port in service.addresses:
            log.info("listening", extra=kv(host=host, port=port, tls=settings.tls is not None, version=__version__))

    _run(app.serve(settings, ready=ready))


def check_config(file: Annotated[Path, typer.Argument(help="The configuration file.", metavar="FILE")]) -> None:
    """Check a configuration without starting anything; show what it means, defaults included, secrets as ***."""
    from vedette.config import load, show

    settings = load(file, os.environ)
    _build_sources(settings)
    asyncio.run(_build_handlers(settings))
    typer.echo(show(settings), nl=False)
    say(f"{file} is well.")


def _build_sources(settings: Config) -> None:
    """What a source finds wrong with its settings it says when it is built; nothing is opened by that."""
    from vedette import plugins
    from vedette.kit.clock import SystemClock
    from vedette.kit.telemetry import Telemetry

    for at, source in enumerate(settings.sources):
        try:
            plugins.load("sources", source.type).build(source.options, clock=SystemClock(), telemetry=Telemetry())
        except ConfigError as why:
            raise ConfigError(str(why), path=f"sources[{at}]") from None


async def _build_handlers(settings: Config) -> None:
    """The same of handlers: what is shipped is built here, foreign code in a process of its own, as when it runs."""
    from vedette import plugins
    from vedette.config import secret_variables
    from vedette.engine.inventory import StoredObjects
    from vedette.engine.worker import WorkerProcess, validate
    from vedette.kit.clock import SystemClock
    from vedette.kit.telemetry import Telemetry
    from vedette.ports import HandlerNeeds, WorkerCode
    from vedette.store.memory import MemoryStore

    clock, telemetry = SystemClock(), Telemetry()
    for at, one in enumerate(settings.handlers):
        found = plugins.find_handler(one.use, settings.plugins.folder)
        if found.kind == "shipped":
            needs = HandlerNeeds(
                name=one.name,
                clock=clock,
                telemetry=telemetry,
                inventory=StoredObjects(MemoryStore(clock)),
                cloud=lambda _source: None,
                worker=lambda code: WorkerProcess(code, clock=clock, telemetry=telemetry),
            )
            try:
                await plugins.load("handlers", one.use).build(one.options, needs).close()
            except ConfigError as why:
                raise ConfigError(str(why), path=f"handlers[{at}].options") from None
            continue
        code = WorkerCode(name=one.name, module=found.module, options=one.options or {}, concurrency=one.concurrency)
        wrong = await validate(code, clock=clock, withheld=secret_variables(settings, os.environ))
        if wrong:
            raise ConfigError(f"{one.use} ({found.path}) can't be used: {wrong}", path=f"handlers[{at}]")


def version() -> None:
    """Print the version."""
    typer.echo(f"vedette {__version__} (Python {platform.python_version()})")


# --- demo ------------------------------------------------------------------------------------------------------------------


def _clouds(incomplete: str) -> list[str]:
    return [name for name in (*recordings(), FAKE) if name.startswith(incomplete)]


def demo(
    listen: Annotated[
        str, typer.Option("--listen", help="Where to serve; this machine only, since nobody has to log in.", metavar="HOST:PORT")
    ] = DEFAULT_LISTEN,
    cloud: Annotated[
        str,
        typer.Option(
            "--cloud",
            help=f"Which recording to play; `{FAKE}`: a cloud that is made up as it goes, with an API to be asked.",
            autocompletion=_clouds,
            metavar="NAME",
        ),
    ] = "recorded",
) -> None:
    """Play a recorded cloud, over and over, as if it happened now; or follow a fake one.

    Notifications of a real OpenStack, an empty store in a temporary folder, nothing else to install.

    `--cloud fake` also shows what no notification says, read from the cloud's API: ports that go ACTIVE, the state of listeners
    and members, and what was missed.
    """
    from vedette.kit.log import configure

    there = recordings()
    if cloud not in (*there, FAKE):
        raise ConfigError(f"no recording is called {cloud!r}; there are: {', '.join((*there, FAKE))}")
    configure("error")
    playing = _Playing(cloud)
    with tempfile.TemporaryDirectory(prefix="vedette-demo-") as folder:
        if cloud == FAKE:
            _run(playing.until_stopped(lambda ready: _follow_fake(listen, Path(folder), playing, ready)))
        else:
            with resources.as_file(there[cloud]) as recording:
                _run(playing.until_stopped(lambda ready: _play(listen, Path(folder), recording, ready)))
    playing.ended()


async def _play(listen: str, folder: Path, recording: Path, ready: Callable[[Service], None]) -> None:
    from vedette import app

    source = {"type": "replay", "path": str(recording), "loop": True, "speed": SPEED, "max_gap": MOST_QUIET}
    await app.serve(_demo_settings(listen, folder, source), ready=ready)


async def _follow_fake(listen: str, folder: Path, playing: _Playing, ready: Callable[[Service], None]) -> None:
    """The real source, client and engine on a cloud and a broker that are not."""
    from vedette import app
    from vedette.kit.clock import SystemClock
    from vedette.sources.openstack import OpenStackSource
    from vedette.testing.cloud import FakeCloud
    from vedette.testing.cloud_life import Life, on_a_broker

    async with FakeCloud(SystemClock()) as cloud:
        broker = on_a_broker(cloud)
        playing.calls = cloud.count
        source = {
            "type": "openstack",
            "amqp": ["amqp://127.0.0.1"],
            "api": {**cloud.credentials("admin"), "resync": RESYNC_SECONDS},
        }

        def build(one: SourceConfig, clock: Clock, telemetry: Telemetry) -> Source:
            return OpenStackSource(one.options, clock, telemetry, broker=broker)

        settings = _demo_settings(listen, folder, source)
        name = "the life of the fake cloud"
        living = asyncio.create_task(keep_running(name, Life(cloud).run), name=name)
        try:
            await app.serve(settings, ready=ready, build_source=build)
        finally:
            await cancel(living)


def recordings() -> dict[str, Any]:
    """What ships with the package: name → file (importlib's Traversable)."""
    folder = resources.files("vedette.sources") / RECORDINGS
    return {
        file.name.removesuffix(".jsonl.gz"): file
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".jsonl.gz")
    }


def _demo_settings(listen: str, folder: Path, source: dict[str, Any]) -> Config:
    """As a file would say it, so that a wrong address is refused in the same words."""
    from vedette.config import load_text

    settings = {
        "listen": listen,
        "data_dir": str(folder / "store"),
        "retention": {"max_age": "1d", "max_bytes": "2GiB"},
        "auth": {"mode": "none"},
        "sources": [{"name": "demo", **source}],
    }
    try:
        # JSON is YAML; a ${ in a path is no variable.
        return load_text(json.dumps(settings).replace("${", "$${"), {})
    except ConfigError as why:
        if not why.path.startswith("listen"):
            raise
        raise ConfigError(f"--listen {listen}: {str(why).partition(': ')[2]}") from None


class _Playing:
    """What the demo tells: what to try, then how much has happened."""

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._service: Service | None = None
        self._live = sys.stderr.isatty()
        self.calls: Callable[[], int] | None = None
        """How often the cloud's API was asked, where it has one."""

    async def until_stopped(self, serve: Callable[[Callable[[Service], None]], Coroutine[Any, Any, None]]) -> None:
        counting: list[asyncio.Task[None]] = []

        def ready(service: Service) -> None:
            self._service = service
            # A terminal that was closed ends the demo like Ctrl-C, so that its folder goes too.
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, os.kill, os.getpid(), signal.SIGTERM)
            self._greet(*service.addresses[0])
            if self._live:
                counting.append(asyncio.create_task(self._count(), name="demo counter"))

        try:
            await serve(ready)
        finally:
            for task in counting:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _greet(self, host: str, port: int) -> None:
        from rich.console import Console
        from rich.text import Text

        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        here = "" if url == DEFAULT_URL else f" --server {url}"
        command = _called()
        fake = self._cloud == FAKE
        lines = [
            ("every port, then every change of one", f"{command} watch port{here}"),
            ("the same for kubectl, and whatever speaks Kubernetes", f"kubectl --server {url} get ports -A -w"),
            ("the same for curl: a list and a watch", f"curl -N '{url}/apis/openstack.vedette.dev/v1/ports?watch=true'"),
            ("the same in one word: WEaaS' path", f"curl -N {url}/port"),
            ("every notification as a CloudEvent", f"{command} events --follow{here}"),
        ]
        if fake:
            lines[0] = ("every port: made DOWN, soon ACTIVE, which no notification says", f"{command} watch port{here}")
            lines[3:] = [
                ("members of load balancers, of which OpenStack announces nothing", f"{command} watch member{here}"),
                (
                    "what nobody announced: read from the API",
                    f"{command} events --follow --type '*.verify,*.resync'{here}",
                ),
            ]
        console = Console(soft_wrap=True, highlight=False)
        does = " follows a fake cloud at " if fake else f" plays the cloud {self._cloud!r} at "
        console.print(Text.assemble(("Vedette", "bold"), does, (url, "bold cyan"), "\n"))
        console.print("In another shell, try:\n")
        for what, line in lines:
            console.print(Text.assemble("  ", (f"# {what}", "dim")))
            console.print(Text.assemble("  ", (line, "green"), "\n"))
        console.print(Text("Ctrl-C ends it; nothing is kept.", style="dim"))
        sys.stdout.flush()

    async def _count(self) -> None:
        """One line that counts, where a person looks."""
        while True:
            sys.stderr.write(f"\r\x1b[2K\x1b[2m{self._numbers()}\x1b[0m")
            sys.stderr.flush()
            await asyncio.sleep(COUNTER_SECONDS)

    def _numbers(self) -> str:
        assert self._service is not None
        value = self._service.telemetry.registry.get_sample_value
        events = int(value("vedette_notices_events_total", {"source": "demo"}) or 0)
        watchers = int(value("vedette_watchers") or 0)
        written = int(value("vedette_watch_events_total") or 0)
        asked = f" · {self.calls():,} calls of the API" if self.calls is not None else ""
        return f"{events:,} notifications{asked} · {watchers} watching · {written:,} events sent to watchers"

    def ended(self) -> None:
        if self._service is not None:
            closing(f"Stopped after {self._numbers()}.")


def _called() -> str:
    """How this program was called, so that what is printed works: `vedette`, or `.venv/bin/vedette` when it isn't on PATH."""
    from shutil import which

    name = sys.argv[0]
    if Path(name).name == "vedette":
        found = which("vedette")
        if found and Path(found).resolve() == Path(name).resolve():
            return "vedette"
        return name
    return "vedette" if which("vedette") else f"{Path(sys.executable).name} -m vedette.cli"


def _run(work: Coroutine[Any, Any, None]) -> None:
    """On uvloop. What keeps it from listening is said with what to do."""
    import uvloop

    try:
        look_for_cycles_seldom()
        uvloop.run(work)
    except OSError as why:
        if "can't listen on" not in str(why):
            raise CannotStart(str(why)) from why
        reason = str(why).partition("] ")[2] or str(why)
        raise CannotStart(f"{reason}. Stop what listens there, or choose another address (--listen, or `listen:`)") from why
