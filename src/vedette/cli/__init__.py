"""The command line: words come in, one function of a room below is called, lines go out.

Each file holds the commands of one subject; what they share is in reach.py (which server, which token), show.py (tables, colours)
and errors.py (exit codes). Exit codes: 0 well, 1 failed, 2 wrong words or a wrong configuration.
"""

from __future__ import annotations

import os

import typer

from vedette.cli.access import add_to as add_access
from vedette.cli.audits import add_to as add_audits
from vedette.cli.deadletters import add_to as add_deadletters
from vedette.cli.doctor import add_to as add_doctor
from vedette.cli.errors import OneLineErrors
from vedette.cli.events import add_to as add_events
from vedette.cli.explain import add_to as add_explain
from vedette.cli.handlers import add_to as add_handlers
from vedette.cli.objects import add_to as add_objects
from vedette.cli.resync import add_to as add_resync
from vedette.cli.service import add_to as add_service
from vedette.cli.status import add_to as add_status

HELP = """Makes an OpenStack cloud watchable, and able to react.

To see it live: `vedette demo`, and in another shell `vedette watch port`.

Client commands find the server by --server or VEDETTE_URL (default http://127.0.0.1:8470), and a token by VEDETTE_TOKEN,
OS_TOKEN, the OS_* variables or clouds.yaml (OS_CLOUD).
"""

app = typer.Typer(
    name="vedette",
    cls=OneLineErrors,
    help=HELP,
    no_args_is_help=True,
    # A traceback with local variables would show tokens; `--debug` gives Python's own.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    ctx: typer.Context,
    debug: bool = typer.Option(False, "--debug", envvar="VEDETTE_DEBUG", help="Show tracebacks of errors."),
) -> None:
    """Options of every command; `--debug` is looked at in errors.py."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False


for _add_to in (
    add_service,
    add_objects,
    add_events,
    add_resync,
    add_status,
    add_handlers,
    add_deadletters,
    add_explain,
    add_audits,
    add_access,
    add_doctor,
):
    _add_to(app)


def main() -> None:
    """The entry point of the `vedette` command."""
    app()
