"""`watcher-db-manage`, `watcher-sync` and `watcher-status`: the commands of OpenStack Watcher, for scripts that call them.

They speak with the running server, as `vedette` does (VEDETTE_URL, VEDETTE_TOKEN, OS_*): there is no database to be reached from
outside. What Vedette does by itself says so and ends well; what there is not ends with 2 and says what to do.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from vedette.cli.audits import purged
from vedette.cli.errors import OneLineErrors
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption
from vedette.cli.show import counted, plain, say
from vedette.errors import BadRequest, NotFound, VedetteError

NO_AUDITS = "there are none: the configuration has no section `audits`"
_SETTINGS = {"help_option_names": ["-h", "--help"]}
ConfigFile = Annotated[
    list[Path] | None,
    typer.Option("--config-file", help="Taken, not read: it is Watcher's.", metavar="FILE", show_default=False),
]
ConfigDir = Annotated[
    list[Path] | None,
    typer.Option("--config-dir", help="Taken, not read: it is Watcher's.", metavar="DIR", show_default=False),
]

# --- watcher-db-manage -----------------------------------------------------------------------------------------------------

db_manage_app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
    no_args_is_help=True,
    help="Watcher's database command on Vedette, whose store looks after itself: of these `purge` does something.",
)
PURGE_EXAMPLES = """Examples:

\b
watcher-db-manage purge --age-in-days 90 --dry-run
watcher-db-manage purge -d 90 -t server_consolidation -n 10000
"""


@db_manage_app.callback()
def _with_configuration(config_file: ConfigFile = None, config_dir: ConfigDir = None) -> None:
    """Both options are there for scripts that give them."""


def _itself(what: str) -> None:
    say(f"Nothing to do: {what}.")


@db_manage_app.command()
def upgrade(revision: Annotated[str, typer.Option("--revision", help="Not used.", show_default=False)] = "") -> None:
    """Nothing: a store is brought forward when a newer Vedette opens it."""
    _itself("a store is brought forward when a newer Vedette opens it")


@db_manage_app.command("create_schema")
def create_schema() -> None:
    """Nothing: a store is made at the first start."""
    _itself("a store is made when Vedette starts for the first time")


@db_manage_app.command()
def version() -> None:
    """The version of Vedette here; its store is of the same."""
    from vedette import __version__

    typer.echo(__version__)


def _not_here(what: str, instead: str) -> NoReturn:
    raise BadRequest(f"a store of Vedette can't be {what}: {instead}")


@db_manage_app.command()
def downgrade(revision: Annotated[str, typer.Option("--revision", help="Not used.", show_default=False)] = "") -> None:
    """Not possible: go back to a copy of data_dir from before."""
    _not_here("downgraded", "go back to a copy of its data_dir that the older version made")


@db_manage_app.command()
def stamp(revision: Annotated[str, typer.Argument(show_default=False)] = "") -> None:
    """Not possible: the version stands in the store itself."""
    _not_here("stamped", "its version stands in it, and is changed with it")


@db_manage_app.command("revision")
def new_revision(
    message: Annotated[str, typer.Option("-m", "--message", show_default=False)] = "",
    autogenerate: Annotated[bool, typer.Option("--autogenerate")] = False,
) -> None:
    """Not possible: revisions are made by who develops Vedette."""
    _not_here("given a revision", "that is done by who develops Vedette")


@db_manage_app.command(epilog=PURGE_EXAMPLES)
def purge(
    age_in_days: Annotated[
        int,
        typer.Option("-d", "--age-in-days", min=0, help="Days since it was deleted. Default: any.", show_default=False),
    ] = 0,
    max_number: Annotated[
        int | None, typer.Option("-n", "--max-number", min=1, help="If there are more, nothing is purged.", show_default=False)
    ] = None,
    goal: Annotated[str, typer.Option("-t", "--goal", help="Of this goal only (a name or uuid).", show_default=False)] = "",
    exclude_orphans: Annotated[
        bool, typer.Option("-e", "--exclude-orphans", help="Nothing changes: there are no orphans here.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Forget what was deleted: `vedette audits purge` does the same."""
    body = {"before": f"{age_in_days}d", "goal": goal, "most": max_number or 0, "dry_run": dry_run}
    purged(Reach(server, ca, os_cloud, allow_insecure), body)


def db_manage() -> None:
    db_manage_app()


# --- watcher-sync ----------------------------------------------------------------------------------------------------------

sync_app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False, context_settings=_SETTINGS)


@sync_app.callback(invoke_without_command=True)
def sync_command(
    config_file: ConfigFile = None,
    config_dir: ConfigDir = None,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Say which goals and strategies the server has. It takes them up itself, whenever it starts."""
    counts = asyncio.run(_counts(Reach(server, ca, os_cloud, allow_insecure)))
    if not counts:
        raise NotFound(NO_AUDITS)
    say(f"There are {' and '.join(counts)}: the server takes them up itself when it starts.")


async def _counts(reach: Reach) -> list[str]:
    """Raises VedetteError."""
    async with reach.client() as client:
        goals = json.loads(await client.document("/apis/vedette.dev/v1/goals"))["items"]
        strategies = json.loads(await client.document("/apis/vedette.dev/v1/strategies"))["items"]
    return [counted(len(goals), "goal"), counted(len(strategies), "strategy", "strategies")] if strategies else []


def sync() -> None:
    sync_app()


# --- watcher-status --------------------------------------------------------------------------------------------------------

status_app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings=_SETTINGS,
    no_args_is_help=True,
    help="Watcher's status command on Vedette.",
)
upgrade_app = typer.Typer(context_settings=_SETTINGS, no_args_is_help=True, help="Is everything there that audits need?")
status_app.add_typer(upgrade_app, name="upgrade")
WIDTH = 68
SUCCESS, WARNING, FAILURE = 0, 1, 2
"""Exit codes, as of oslo.upgradecheck."""
_WORDS = {SUCCESS: "Success", WARNING: "Warning", FAILURE: "Failure"}


@status_app.callback()
def _with_configuration_too(config_file: ConfigFile = None, config_dir: ConfigDir = None) -> None:
    """Both options are there for scripts that give them."""


@upgrade_app.callback()
def _upgrade() -> None:
    """So that `check` stays a word of its own."""


@upgrade_app.command()
def check(
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Look at the server, its clouds and its strategies. 0: all is well, 1: there are warnings, 2: something is missing.

    `vedette doctor` looks more closely, and says what to do.
    """
    results = asyncio.run(_checked(Reach(server, ca, os_cloud, allow_insecure)))
    rule = f"+{'-' * (WIDTH + 2)}+"
    typer.echo(f"{rule}\n| {'Upgrade Check Results':<{WIDTH}} |\n{rule}")
    for name, code, details in results:
        for line in (f"Check: {name}", f"Result: {_WORDS[code]}", *_folded(f"Details: {details}")):
            typer.echo(f"| {line:<{WIDTH}} |")
        typer.echo(rule)
    raise typer.Exit(max(code for _, code, _ in results))


def _folded(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(plain(text), WIDTH, subsequent_indent="  ")


async def _checked(reach: Reach) -> list[tuple[str, int, str]]:
    """(name, code, details) of each check. What can't be asked is a failure that says why."""
    try:
        async with reach.client() as client:
            status = await client.status()
    except VedetteError as why:
        return [("Service", FAILURE, str(why))]
    results = [("Service", SUCCESS, f"{reach.server} answers, {counted(status.store.entries, 'entry', 'entries')} in its log")]
    compared = {one.source: one.resync.kinds for one in status.clouds if one.api and one.resync is not None}
    trouble = [
        f"{name}: {one.kind} {one.state} {one.detail}".rstrip()
        for name, kinds in compared.items()
        for one in kinds
        if not one.well
    ]
    if not compared:
        results.append(("Clouds", FAILURE, "no source has an API for actions to act on: give one its `api:`"))
    elif trouble:
        results.append(("Clouds", WARNING, "; ".join(trouble[:5]) + ("; …" if len(trouble) > 5 else "")))
    else:
        results.append(("Clouds", SUCCESS, f"{', '.join(compared)}: the inventory is what there is"))
    try:
        counts = await _counts(reach)
    except VedetteError as why:
        results.append(("Strategies", FAILURE, str(why)))
    else:
        results.append(("Strategies", SUCCESS, ", ".join(counts)) if counts else ("Strategies", FAILURE, NO_AUDITS))
    return results


def status() -> None:
    try:
        status_app()
    except Exception as why:
        sys.stderr.write(f"Error: {type(why).__name__}: {why}\n")
        raise SystemExit(255) from why
