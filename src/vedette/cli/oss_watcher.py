"""`oss_watcher --config-file=FILE`: the OSS framework's command on Vedette. compat/oss.py reads the file, app.py runs it.

Log lines have the original's form, on stdout and in `log_file`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vedette.cli.errors import complain, exit_code
from vedette.errors import CannotStart, VedetteError
from vedette.kit.log import JsonFormatter
from vedette.kit.memory import look_for_cycles_seldom

if TYPE_CHECKING:
    from vedette.config import Config

EXAMPLES = """Examples:

\b
oss_watcher --config-file=/etc/oss.conf
oss_watcher --config-file=oss.conf --check
OS_RABBIT__PASSWORD=… OS_REST__PASSWORD=… oss_watcher --config-file=oss.conf

\b
While it runs:
vedette deadletters
vedette get server -A
"""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


@app.command(epilog=EXAMPLES)
def oss_watcher(
    config_file: Annotated[Path, typer.Option("--config-file", help="The oss.conf.", metavar="FILE")],
    check: Annotated[
        bool, typer.Option("--check", help="Read it, load the plugins, show every key (secrets as ***), and end.")
    ] = False,
) -> None:
    """Call plugins when an instance or a floating IP of an OpenStack cloud comes or goes.

    Runs until SIGTERM or Ctrl-C. Every key can also be set by the environment, as OS_<SECTION>__<KEY>.
    """
    try:
        _run(config_file, check)
    except VedetteError as why:
        complain(str(why))
        raise typer.Exit(exit_code(why)) from None


def _run(file: Path, check: bool) -> None:
    from vedette.compat import oss
    from vedette.kit.clock import SystemClock

    watched = oss.load(file)
    log = logging.getLogger("vedette.oss.service")
    trouble = configure(watched.log_level, watched.log_format, "" if check else watched.log_file)
    for warning in (*watched.warnings, *trouble):
        log.warning("%s", warning)
    asyncio.run(oss.check_plugins(watched.config, SystemClock()))
    if check:
        typer.echo(watched.shown, nl=False)
        return
    for module, text in watched.lines:
        logging.getLogger(f"vedette.oss.{module}").info("%s", text)
    _serve(watched.config)


def _serve(config: Config) -> None:
    import uvloop

    from vedette import app as service

    look_for_cycles_seldom()
    try:
        uvloop.run(service.serve(config))
    except OSError as why:
        raise CannotStart(f"{why}; `listen` in oss.conf is where") from why


class Formatter(logging.Formatter):
    """`2015-03-19 18:44:01 INFO (service) Listen queue monitoring.info`: local time, and the last part of the logger's name."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s (%(room)s) %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        record.room = record.name.rpartition(".")[2]
        values = getattr(record, "kv", None) or {}
        line = super().format(record)
        first, newline, rest = line.partition("\n")
        return first + "".join(f" {key}={json.dumps(value, default=str)}" for key, value in values.items()) + newline + rest


def configure(level: str, form: str, file: str) -> list[str]:
    """Our log lines go to stdout, and to the file where one is named: its folder is made. What keeps it from being written is
    given back, and is no reason not to start."""
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stdout)]
    trouble = []
    if file:
        try:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
            # (Watched: logrotate may move it away.)
            handlers.append(logging.handlers.WatchedFileHandler(file, encoding="utf-8"))
        except OSError as why:
            trouble.append(f"log_file {file} can't be written ({why.strerror}): lines are on stdout only")
    root = logging.getLogger("vedette")
    for handler in handlers:
        handler.setFormatter(JsonFormatter() if form == "json" else Formatter())
    root.handlers[:] = handlers
    root.setLevel(level.upper())
    root.propagate = False
    return trouble


def main() -> None:
    """The entry point of the `oss_watcher` command."""
    app()
