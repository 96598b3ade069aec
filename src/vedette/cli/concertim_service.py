"""`concertim-openstack-service run=COMPONENT`: the command of the service between a cloud and a Concertim front end, on Vedette.

compat/concertim_service.py reads its config.yaml, app.py runs it. Words are as the first generation's `driver.py` took them
(`run=metrics test=True`), options as the second one's (`--process fe_metrics --run_once`).
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.cli.errors import complain, exit_code
from vedette.cli.oss_watcher import configure
from vedette.errors import BadRequest, CannotStart, VedetteError
from vedette.kit.memory import look_for_cycles_seldom

if TYPE_CHECKING:
    from vedette.app import Service
    from vedette.compat.concertim_service import Component
    from vedette.config import Config

EXAMPLES = """Examples:

\b
concertim-openstack-service run=all
concertim-openstack-service run=updates_bulk test=True
JWT_SECRET=… concertim-openstack-service run=api
concertim-openstack-service --process fe_metrics --run_once

\b
run= is one of: all, updates_mq (hears the cloud), updates_bulk (keeps the front end equal to it), metrics, api.
More words: config=FILE data=FOLDER log=FOLDER listen=HOST:PORT api_listen=HOST:PORT follow=URL (of updates_mq).
"""
CONFIG = Path("/etc/concertim-openstack-service/config.yaml")
WORDS = ("run", "test", "config", "data", "log", "listen", "api_listen", "follow")
ONCE_SECONDS = 120.0
"""What one pass may take."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command(epilog=EXAMPLES)
def concertim_openstack_service(
    words: Annotated[list[str] | None, typer.Argument(help="run=COMPONENT and more, see below.", metavar="KEY=VALUE…")] = None,
    process: Annotated[
        str, typer.Option("--process", help="The same in the second generation's words: fe_updates, fe_metrics, view_queue, api.")
    ] = "",
    run_once: Annotated[
        bool, typer.Option("--run_once", "--run-once", "-t", help="One pass, and end: 0 if it went well.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", help="Read the configuration, and end.")] = False,
) -> None:
    """Keep a Concertim front end equal to an OpenStack cloud, show it what servers use, and act on the cloud for its users.

    Runs until SIGTERM or Ctrl-C.
    """
    try:
        _run(words or [], process, run_once, check)
    except VedetteError as why:
        complain(str(why))
        raise typer.Exit(exit_code(why)) from None


def _run(words: list[str], process: str, once: bool, check: bool) -> None:
    from vedette.compat import concertim_service as compat

    said = _said(words)
    component = _component(said.get("run", ""), process)
    once = once or said.get("test", "").lower() in ("true", "1", "yes")
    if once and component == "api":
        raise BadRequest("there is no single pass of the api: leave test=True out")
    read = compat.load(
        Path(said.get("config", CONFIG)),
        component,
        data=said.get("data", ""),
        logs=said.get("log", ""),
        listen=said.get("listen", ""),
        api_listen=said.get("api_listen", ""),
        follow=said.get("follow", ""),
    )
    trouble = configure(read.log_level, "text", "" if check else read.log_file)
    log = logging.getLogger("vedette.concertim.service")
    for warning in (*read.warnings, *trouble):
        log.warning("%s", warning)
    if check:
        typer.echo(f"{said.get('config', CONFIG)}: {component} can be run")
        return
    _serve(read.config, component, once)


def _said(words: list[str]) -> dict[str, str]:
    """Raises BadRequest."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in WORDS:
            raise BadRequest(f"{word!r} is none of {', '.join(f'{one}=…' for one in WORDS)}")
        found[key] = value
    return found


def _component(run: str, process: str) -> Component:
    """Raises BadRequest."""
    from vedette.compat.concertim_service import COMPONENTS, PROCESSES

    if process:
        if process not in PROCESSES:
            raise BadRequest(f"--process wants one of {', '.join(PROCESSES)}")
        return PROCESSES[process]
    if not run:
        raise BadRequest(f"No 'run' command found: say run= and one of {', '.join(COMPONENTS)}")
    for one in COMPONENTS:
        if one == run:
            return one
    raise BadRequest(f"there is no component {run!r}: say run= and one of {', '.join(COMPONENTS)}")


def _serve(config: Config, component: Component, once: bool) -> None:
    import uvloop

    from vedette import app as service

    look_for_cycles_seldom()
    try:
        uvloop.run(_once(config, component) if once else service.serve(config))
    except OSError as why:
        raise CannotStart(f"{why}; `listen=` and `api_listen=` are where") from why


async def _once(config: Config, component: Component) -> None:
    """One pass. Raises CannotStart: it did not go well."""
    from vedette.app import Service

    service = Service(config)
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    look: Look = {"metrics": _measured, "updates_mq": _heard}.get(component, _compared)
    over, said = False, ""
    try:
        await service.start()
        async with asyncio.timeout(ONCE_SECONDS):
            while not over:
                await asyncio.sleep(0.1)
                over, said = look(service)
                if service.failed is not None and service.failed.done():
                    service.failed.result()
    except TimeoutError:
        said = said or f"no end within {ONCE_SECONDS:.0f} seconds"
    finally:
        await service.stop()
    if said:
        raise CannotStart(f"the pass of {component} did not go well: {said}")


Look = Callable[["Service"], tuple[bool, str]]
"""(whether the pass is over, what is wrong)"""


def _compared(service: Service) -> tuple[bool, str]:
    for mirroring in service.mirrors.values():
        done = mirroring.last
        if mirroring.trouble:
            return True, mirroring.trouble
        if done is None:
            return False, ""
        if done.failed:
            return True, f"{done.failed} objects were refused; the log names them"
    return True, ""


def _measured(service: Service) -> tuple[bool, str]:
    assert service.polling is not None
    trouble = str(service.polling.status()["trouble"])
    # (Before the front end was read, the first round can't be handed to it: there is another.)
    return service.polling.rounds > 0 and not trouble, trouble


def _heard(service: Service) -> tuple[bool, str]:
    (source,) = service.sources
    status = source.status()
    return status.ready, "" if status.ready else status.detail


def main() -> None:
    """The entry point of the `concertim-openstack-service` command."""
    app()
