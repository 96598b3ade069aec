"""`vedette get` and `vedette watch`: objects as the server lists them, and every change of them as it happens."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption, until_stopped
from vedette.cli.show import (
    VERB_COLOURS,
    Lines,
    Output,
    as_event,
    as_json,
    as_name,
    as_yaml,
    cell,
    closing,
    plain,
    remark,
    say,
    shown,
)
from vedette.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from vedette.clients.vedette import Column, Event, Item, Target, VedetteClient

_ID = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
AGE = "Age"
"""The server's column that counts from now: of no use in a line that stays on the screen."""


def kind_names(incomplete: str) -> list[str]:
    """For tab completion: every kind of this version, without asking a server."""
    from vedette.plugins import names

    return [name for name in names("kinds") if name.startswith(incomplete.lower())]


KindArgument = Annotated[
    str,
    typer.Argument(
        help="What to look at: port, server, loadbalancer (lb) … `vedette get nothing` lists them.",
        autocompletion=kind_names,
        show_default=False,
    ),
]
NameArgument = Annotated[str | None, typer.Argument(help="An id; else the name it has in OpenStack.", show_default=False)]
ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", help="Only this project (its id).", metavar="ID", show_default=False)
]
AllOption = Annotated[
    bool, typer.Option("--all-projects", "-A", help="Every project that the token sees; so it is without --project too.")
]
OutputOption = Annotated[Output, typer.Option("--output", "-o", help="The form.", show_default=True)]
SelectorOption = Annotated[
    str, typer.Option("--selector", "-l", help="By label, e.g. vedette.dev/source=region-one.", metavar="SELECTOR")
]
FieldSelectorOption = Annotated[
    str, typer.Option("--field-selector", help="By field, e.g. status.device_owner=compute:nova.", metavar="SELECTOR")
]
SourceOption = Annotated[
    str, typer.Option("--source", help="Of this source of the server's; '*' for all of them.", metavar="NAME")
]


def add_to(app: typer.Typer) -> None:
    app.command("get", epilog=GET_EXAMPLES)(get)
    app.command("watch", epilog=WATCH_EXAMPLES)(watch)


WATCH_EXAMPLES = """Examples:

\b
vedette watch port
vedette watch server web-1 -o wide
vedette watch port --project 5b0e… --field-selector status.status=ACTIVE
vedette watch lb -o json | jq .object.status.provisioning_status
vedette watch port --since 1795187946000042
"""

GET_EXAMPLES = """Examples:

\b
vedette get port
vedette get server web-1 -o yaml
vedette get floatingip -o name
vedette get port --source '*' -o wide
"""


def get(
    kind: KindArgument,
    name: NameArgument = None,
    project: ProjectOption = None,
    all_projects: AllOption = False,
    output: OutputOption = Output.table,
    selector: SelectorOption = "",
    field_selector: FieldSelectorOption = "",
    source: SourceOption = "",
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """List objects, or show one, as they are now."""
    _check(project, all_projects)
    reach = Reach(server, ca, os_cloud, allow_insecure)
    asked = _Asked(kind, name, project, selector, field_selector, source, output)
    asyncio.run(_get(reach, asked))


def watch(
    kind: KindArgument,
    name: NameArgument = None,
    project: ProjectOption = None,
    all_projects: AllOption = False,
    output: OutputOption = Output.table,
    selector: SelectorOption = "",
    field_selector: FieldSelectorOption = "",
    source: SourceOption = "",
    since: Annotated[
        int, typer.Option("--since", help="Begin after this revision instead of with the present state.", metavar="REVISION")
    ] = 0,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Show objects as they are, then a line for every change.

    After a cut it goes on by itself where it was: nothing is lost, nothing comes twice. Ctrl-C ends it.
    """
    _check(project, all_projects)
    reach = Reach(server, ca, os_cloud, allow_insecure)
    asked = _Asked(kind, name, project, selector, field_selector, source, output)
    watching = _Watching(output, namespaces=project is None)
    if until_stopped(watching.follow(reach, asked, since)):
        changes = f"{watching.changes} change{'' if watching.changes == 1 else 's'}"
        place = f"; resume with --since {watching.place}" if watching.place else ""
        closing(f"Closed after {changes}{place}")


def _check(project: str | None, all_projects: bool) -> None:
    if project is not None and all_projects:
        raise BadRequest("--project and --all-projects exclude each other")


class _Asked(msgspec.Struct, frozen=True):
    """The words of the command line."""

    kind: str
    name: str | None
    project: str | None
    selector: str
    field_selector: str
    source: str
    output: Output

    async def target(self, client: VedetteClient) -> Target:
        from vedette.clients.vedette import Target

        resource = await client.resource(self.kind, self.source)
        return Target(
            resource=resource,
            source=self.source,
            project=self.project or "",
            label_selector=self.selector,
            field_selector=self.field_selector,
        )

    def named(self, target: Target, path: str) -> Target:
        """The same, of this name only."""
        if self.name is None:
            return target
        value = re.sub(r"([\\,=])", r"\\\1", self.name)
        both = ",".join(part for part in (self.field_selector, f"{path}={value}") if part)
        return msgspec.structs.replace(target, field_selector=both)


# --- get -------------------------------------------------------------------------------------------------------------------


async def _get(reach: Reach, asked: _Asked) -> None:
    table = asked.output in (Output.table, Output.wide)
    async with reach.client() as client:
        target = await asked.target(client)
        # By id, and when none has that id by the name in OpenStack.
        for path in ("metadata.name", "status.name"):
            selected = asked.named(target, path)
            count = 0
            writing = _Writing(asked.output, selected, one=asked.name is not None, namespaces=asked.project is None)
            async with aclosing(client.pages(selected, form="table" if table else "json")) as pages:
                async for page in pages:
                    count += len(page.items)
                    if count:
                        writing.page(page.columns, page.items)
            if count or asked.name is None:
                break
        writing.end(count)
        if asked.name is not None and not count:
            raise NotFound(f"no {target.resource.singular} has the id or name {asked.name!r}")
        if not count and asked.output is not Output.json:
            say(f"No {target.resource.plural} found.")


class _Writing:
    """Prints pages of a list."""

    def __init__(self, output: Output, target: Target, *, one: bool, namespaces: bool) -> None:
        self._output = output
        self._target = target
        self._one = one
        self._namespaces = namespaces
        self._lines: Lines | None = None
        self._count = 0

    def page(self, columns: tuple[Column, ...], items: tuple[Item, ...]) -> None:
        if self._output in (Output.table, Output.wide):
            self._table(columns, items)
            return
        for item in items:
            self._count += 1
            if self._output is Output.name:
                typer.echo(as_name(self._target.resource, item))
            elif self._output is Output.yaml:
                typer.echo(("---\n" if self._count > 1 else "") + as_yaml(item.raw), nl=False)
            elif self._one:
                typer.echo(as_json(item.raw))
            else:
                opening = '{"apiVersion": "v1", "kind": "List", "items": [\n' if self._count == 1 else ",\n"
                typer.echo(opening + as_json(item.raw), nl=False)

    def end(self, count: int) -> None:
        if self._output is Output.json and not self._one:
            typer.echo("\n]}" if count else '{"apiVersion": "v1", "kind": "List", "items": []}')

    def _table(self, columns: tuple[Column, ...], items: tuple[Item, ...]) -> None:
        at = shown(columns, self._output)
        space = self._namespaces and self._target.resource.namespaced
        if self._lines is None:
            headings = [columns[one].name.upper() for one in at]
            self._lines = Lines(["NAMESPACE", *headings] if space else headings)
        rows = [[*([plain(item.namespace)] if space else []), *(cell(item.cells[one]) for one in at)] for item in items]
        self._lines.fit(rows)
        for row in rows:
            self._lines.row(row)


# --- watch -----------------------------------------------------------------------------------------------------------------


class _Watching:
    """Prints a watch; knows how far it came."""

    def __init__(self, output: Output, *, namespaces: bool) -> None:
        self.changes = 0
        self.place = 0
        self._output = output
        self._namespaces = namespaces
        self._columns: tuple[Column, ...] = ()
        self._at: list[int] = []
        self._lines: Lines | None = None
        self._waiting: list[Event] = []
        self._documents = 0

    async def follow(self, reach: Reach, asked: _Asked, since: int) -> None:
        from vedette.clients import vedette as said

        table = self._output in (Output.table, Output.wide)
        async with reach.client() as client:
            target = await asked.target(client)
            selected = await self._named(client, asked, target)
            async with aclosing(client.watch(selected, form="table" if table else "json", since=since)) as stream:
                async for news in stream:
                    match news:
                        case said.Columns():
                            self._headings(news.columns)
                        case said.Event():
                            self.changes += not news.initial
                            self._event(news, target)
                        case said.Listed():
                            self._flush()
                        case said.Place():
                            self.place = news.revision
                        case said.Cut():
                            pause = f"; trying again in {news.delay:.1f} s" if news.delay else ""
                            remark(f"-- {news.why}{pause}")
                        case said.Resumed():
                            remark(f"-- resumed after revision {news.revision}")
                        case said.ListedAgain():
                            self._flush()
                            remark(f"-- {news.why}: listed again at revision {news.revision}; steps in between are not shown")

    async def _named(self, client: VedetteClient, asked: _Asked, target: Target) -> Target:
        """By id where it is one or exists, else by name: what has it now, or will have it."""
        if asked.name is None or _ID.fullmatch(asked.name):
            return asked.named(target, "metadata.name")
        by_id = asked.named(target, "metadata.name")
        async with aclosing(client.pages(by_id)) as pages:
            async for page in pages:
                if page.items:
                    return by_id
        return asked.named(target, "status.name")

    def _headings(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._at = shown(columns, self._output, without=(AGE,))
        space = ["NAMESPACE"] if self._namespaces else []
        self._lines = Lines(["TIME", "EVENT", *space, *(columns[one].name.upper() for one in self._at)])

    def _event(self, event: Event, target: Target) -> None:
        if self._output is Output.json:
            typer.echo(as_event(event))
        elif self._output is Output.yaml:
            self._documents += 1
            document = msgspec.json.encode({"type": event.verb, "object": event.item.raw})
            typer.echo(("---\n" if self._documents > 1 else "") + as_yaml(document), nl=False)
        elif self._output is Output.name:
            name = as_name(target.resource, event.item)
            typer.echo(name if event.initial else f"{event.verb} {name}")
        elif event.initial and len(self._waiting) < 500:
            # Held back until their widths are known.
            self._waiting.append(event)
        else:
            self._flush()
            self._line(event)

    def _flush(self) -> None:
        """Print what was held back; the headings even when there is nothing yet."""
        if self._lines is None:
            return
        waiting, self._waiting = self._waiting, []
        self._lines.fit([self._cells(event) for event in waiting])
        # What most of the lines to come will need: ids have 36 characters, projects 32.
        spaces = ["0" * 32] if self._namespaces else []
        self._lines.fit([["00:00:00", "MODIFIED", *spaces, "0" * 36, *[""] * (len(self._at) - 1)]])
        self._lines.begin()
        for event in waiting:
            self._line(event)

    def _line(self, event: Event) -> None:
        if self._lines is not None:
            colour = None if event.initial else VERB_COLOURS.get(event.verb)
            self._lines.row(self._cells(event), colour=colour, at=1)

    def _cells(self, event: Event) -> list[str]:
        when = "" if event.initial else datetime.now().astimezone().strftime("%H:%M:%S")
        item = event.item
        cells = [cell(item.cells[one]) if one < len(item.cells) else "" for one in self._at]
        return [when, "" if event.initial else event.verb, *([plain(item.namespace)] if self._namespaces else []), *cells]
