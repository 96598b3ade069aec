"""`event-watcher`: the OpenShift Event Watcher's command on Vedette. compat/event_watcher.py reads its settings, app.py runs it.

`python -m vedette.cli.event_watcher` is the same, and so is `python watch.py` with examples/event-watcher/watch.py. What a plugin
says goes to stdout at its level.
"""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.cli.errors import complain
from vedette.cli.oss_watcher import configure
from vedette.errors import VedetteError

if TYPE_CHECKING:
    from vedette.app import Service

EXAMPLES = """Examples:

\b
K8S_TOKEN=$(oc whoami -t) K8S_API_ENDPOINT=master.example.com:8443 K8S_NAMESPACE=shop K8S_RESOURCE=routes event-watcher
event-watcher --config conf/config.ini
event-watcher --config conf/config.ini --check

\b
Exit codes: 1 the file can't be read, 31 InvalidResource, 32 InvalidNamespace, 33 InvalidEndpoint, 34 InvalidToken, 21 others.
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})
log = logging.getLogger("vedette.event_watcher")


@app.command(epilog=EXAMPLES)
def event_watcher(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", envvar="CONFIG_FILE", help="The ini file.", metavar="FILE")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read the settings, load the plugins, and end.")] = False,
) -> None:
    """Call plugins for each change of a Kubernetes or OpenShift resource.

    Runs until SIGTERM or Ctrl-C. Every key of the section `global` can also be set by the environment, in upper case.
    """
    from vedette.compat.event_watcher import FATAL, CannotWatch

    try:
        _run(config, check, context.obj)
    except CannotWatch as why:
        complain(str(why))
        raise typer.Exit(why.code) from None
    except (VedetteError, OSError) as why:
        complain(str(why))
        raise typer.Exit(FATAL) from None


def _run(file: Path | None, check: bool, beside: Path | None) -> None:
    import uvloop

    from vedette import app as service
    from vedette.compat import event_watcher as face
    from vedette.kit.clock import SystemClock

    watch = face.load(file, os.environ, beside=beside)
    configure(watch.log_level, "text", "")
    for warning in watch.warnings:
        log.warning("%s", warning)
    asyncio.run(face.check_plugins(watch.config, SystemClock()))
    for line in watch.lines:
        log.info("%s", line)
    if not check:
        uvloop.run(service.serve(watch.config, ready=_ready))


def _ready(service: Service) -> None:
    host, port = service.addresses[0]
    log.info("`vedette deadletters`, `vedette events` and the others find this at --server http://%s:%s", host, port)


def main(beside: Path | None = None) -> None:
    """The entry point of the `event-watcher` command. `beside`: a folder where plugins are looked for, too."""
    app(obj=beside)


if __name__ == "__main__":
    main()
