"""`vedette doctor`: looks at everything around a Vedette and says for each thing whether it is well, and if not, what to do.

The findings come from diagnose.py, one after the other; here they are printed. With the service running or not.
"""

from __future__ import annotations

import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from vedette.cli.events import Form
from vedette.cli.reach import CaOption, CloudOption, InsecureOption, Reach, until_stopped
from vedette.cli.service import DEFAULT_CONFIG
from vedette.cli.show import closing, plain

if TYPE_CHECKING:
    from vedette.cli.finding import Asked, Finding

COLOURS = {"ok": typer.colors.GREEN, "note": typer.colors.BLUE, "warn": typer.colors.YELLOW, "fail": typer.colors.RED}


def add_to(app: typer.Typer) -> None:
    app.command("doctor", epilog=EXAMPLES)(doctor)


EXAMPLES = """Examples:

\b
vedette doctor --config /etc/vedette/vedette.yaml
vedette doctor --config vedette.yaml --try-port
vedette doctor --config vedette.yaml --management-url http://rabbit:15672 --listen 60
vedette doctor --server https://vedette.example:8470 -o json
"""


def doctor(
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            envvar="VEDETTE_CONFIG",
            help=f"The configuration file. Default: {DEFAULT_CONFIG}, if it is there.",
            metavar="FILE",
        ),
    ] = None,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", envvar="VEDETTE_URL", help="Where Vedette listens. Default: as the configuration says.", metavar="URL"
        ),
    ] = None,
    management_url: Annotated[
        str | None,
        typer.Option(
            "--management-url",
            help="RabbitMQ's management API: it alone tells bindings and who consumes. As the source's user, or user:password@.",
            metavar="URL",
        ),
    ] = None,
    listen: Annotated[
        float,
        typer.Option(
            "--listen",
            help="Hear for so many seconds what is announced, on a throw-away queue.",
            min=0,
            max=3600,
            metavar="SECONDS",
        ),
    ] = 5.0,
    try_port: Annotated[
        bool,
        typer.Option(
            "--try-port",
            help="Make a port (and a network for it) at each source's API, see it announced, delete both.",
        ),
    ] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="json: one object a line.")] = Form.table,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Check broker, cloud, clusters, Keystone, disk and the running service, and print the fix for what is wrong.

    Changes nothing, but for what --try-port makes and deletes: on the broker it only looks, and listens on a queue of its own
    that is gone with its connection. Exit code 1 when something fails.
    """
    from vedette.cli.finding import Asked

    file = config or (DEFAULT_CONFIG if DEFAULT_CONFIG.exists() else None)
    asked = Asked(
        config=file,
        environ=dict(os.environ),
        server=server or "",
        management_url=management_url or "",
        listen_s=listen,
        try_port=try_port,
        reach=lambda url: Reach(url, ca, os_cloud, allow_insecure).client(),
    )
    counts = dict.fromkeys(COLOURS, 0)
    if until_stopped(_examine(asked, output, counts)):
        closing("Stopped before the end.")
        raise typer.Exit(1)
    if output is Form.table:
        typer.echo("")
        typer.echo(", ".join(f"{number} {level}" for level, number in counts.items() if number) or "nothing to check")
    if counts["fail"]:
        raise typer.Exit(1)


async def _examine(asked: Asked, output: Form, counts: dict[str, int]) -> None:
    """Print every finding as it comes, and count them."""
    from vedette.cli.diagnose import examine

    async with aclosing(examine(asked)) as findings:
        async for finding in findings:
            counts[finding.level] += 1
            _print(finding, output)


def _print(finding: Finding, output: Form) -> None:
    if output is Form.json:
        typer.echo(msgspec.json.encode(finding).decode())
        return
    level = typer.style(f"{finding.level:<4}", fg=COLOURS[finding.level], bold=finding.level == "fail")
    typer.echo(f"{level}  {plain(finding.about)}: {plain(finding.message)}")
    for line in finding.fix.splitlines():
        typer.echo(f"      → {plain(line)}")
