"""`vedette audits` and `vedette plans`: what there is, setting audits off, looking at what they propose, letting plans go on."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from vedette.cli.events import Form
from vedette.cli.named import ListFirst, those
from vedette.cli.objects import get
from vedette.cli.reach import DEFAULT_URL, CaOption, CloudOption, InsecureOption, Reach, ServerOption
from vedette.cli.show import Lines, Output, counted, plain, say

if TYPE_CHECKING:
    from vedette.clients.vedette import VedetteClient

AUDIT_EXAMPLES = """Examples:

\b
vedette audits
vedette audits trigger hot-hosts
vedette audits replay hot-hosts --at 2h
vedette audits purge --before 90d --dry-run
vedette watch audit
"""
PLAN_EXAMPLES = """Examples:

\b
vedette plans
vedette plans show 0b6f…
vedette plans approve 0b6f…
vedette watch action
"""
COLOURS = {
    "SUCCEEDED": typer.colors.GREEN,
    "FAILED": typer.colors.RED,
    "ONGOING": typer.colors.CYAN,
    "CANCELLED": typer.colors.YELLOW,
    "SKIPPED": typer.colors.YELLOW,
}


def _idents(ctx: typer.Context, incomplete: str, kind: str, field: str) -> list[str]:
    async def ask(client: VedetteClient) -> list[str]:
        listed = json.loads(await client.document(f"/apis/vedette.dev/v1/{kind}"))
        return [str(one["status"].get(field)) for one in listed["items"]]

    return those(ctx, incomplete, ask)


def audit_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Audits whose names begin so."""
    return _idents(ctx, incomplete, "audits", "name")


def plan_ids(ctx: typer.Context, incomplete: str) -> list[str]:
    """Plans whose ids begin so."""
    return _idents(ctx, incomplete, "actionplans", "uuid")


AuditArgument = Annotated[
    str, typer.Argument(help="Its name or uuid.", autocompletion=audit_names, show_default=False, metavar="AUDIT")
]
PlanArgument = Annotated[str, typer.Argument(help="Its uuid.", autocompletion=plan_ids, show_default=False, metavar="PLAN")]


def add_to(app: typer.Typer) -> None:
    audits = typer.Typer(cls=ListFirst, help="Audits; without a command: list.")
    audits.command("list", epilog=AUDIT_EXAMPLES)(list_audits)
    audits.command("trigger", epilog=AUDIT_EXAMPLES)(trigger)
    audits.command("replay", epilog=AUDIT_EXAMPLES)(replay)
    audits.command("purge", epilog=AUDIT_EXAMPLES)(purge)
    app.add_typer(audits, name="audits")
    plans = typer.Typer(cls=ListFirst, help="Action plans; without a command: list.")
    plans.command("list", epilog=PLAN_EXAMPLES)(list_plans)
    plans.command("show", epilog=PLAN_EXAMPLES)(show)
    plans.command("start", epilog=PLAN_EXAMPLES)(start)
    plans.command("cancel", epilog=PLAN_EXAMPLES)(cancel)
    plans.command("approve", epilog=PLAN_EXAMPLES)(approve)
    app.add_typer(plans, name="plans")


# --- audits ----------------------------------------------------------------------------------------------------------------


def list_audits(
    output: Annotated[Output, typer.Option("--output", "-o", help="The form.")] = Output.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """List the audits: their state, how often they ran, and why the last run did not take place or failed."""
    get("audit", output=output, server=server, ca=ca, os_cloud=os_cloud, allow_insecure=allow_insecure)


def trigger(
    audit: AuditArgument,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Set an EVENT audit off, as its webhook would."""
    told = _post(Reach(server, ca, os_cloud, allow_insecure), f"/v1/audits/{quote(audit, safe='')}/trigger")
    say(f"Audit {told['name']} is triggered: `vedette watch actionplan` shows what it proposes.")


def replay(
    audit: AuditArgument,
    at: Annotated[
        str,
        typer.Option(
            "--at", help="A revision, a time (RFC 3339), or a span ago (2h). Default: now.", metavar="WHEN", show_default=False
        ),
    ] = "",
    output: Annotated[Form, typer.Option("--output", "-o", help="json: all that the server tells.")] = Form.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Show what an audit would propose now, or would have proposed then. Nothing is kept, and nothing is done.

    The inventory is as it was at that revision; measurements are asked for as of that time.
    """
    told = _post(Reach(server, ca, os_cloud, allow_insecure), f"/v1/audits/{quote(audit, safe='')}/replay", {"at": at})
    if output is Form.json:
        typer.echo(json.dumps(told))
        return
    lines = Lines(["ACTION", "PARAMETERS"])
    rows = [[plain(one["action_type"]), plain(_parameters(one["input_parameters"]))] for one in told["actions"]]
    lines.fit(rows)
    for row in rows:
        lines.row(row)
    for one in (*told["efficacy_indicators"], *told["global_efficacy"]):
        say(f"{one['name']}: {one['value']:g}{' ' + one['unit'] if one['unit'] else ''}")
    for note in told["notes"]:
        say(note)
    there = told["snapshot"]
    say(
        f"{told['strategy']} at revision {told['revision']} ({told['at']}), {counted(there['hosts'], 'host')} and "
        f"{counted(there['servers'], 'server')}: {counted(len(rows), 'action')}. Nothing was done."
    )


def purge(
    before: Annotated[
        str, typer.Option("--before", help="Deleted before this: a time (RFC 3339), or a span ago (90d).", metavar="WHEN")
    ] = "90d",
    goal: Annotated[
        str, typer.Option("--goal", help="Of this goal only (a name or uuid).", metavar="GOAL", show_default=False)
    ] = "",
    most: Annotated[
        int | None,
        typer.Option("--max", help="Forget nothing if there are more than so many.", min=1, metavar="N", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many there are.")] = False,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Forget audits, templates, plans and actions that were deleted long ago. Watcher's API shows them until then when it is
    asked for what is deleted."""
    purged(Reach(server, ca, os_cloud, allow_insecure), {"before": before, "goal": goal, "most": most or 0, "dry_run": dry_run})


def purged(reach: Reach, body: dict[str, Any]) -> None:
    """Have it done, and say what was."""
    counts = _post(reach, "/v1/audits/purge", body)
    for kind, number in sorted(counts.items()):
        typer.echo(f"{kind}: {number}")
    what = counted(sum(counts.values()), "deleted record")
    say(f"{what} would be forgotten." if body["dry_run"] else f"{what} forgotten.")


# --- plans -----------------------------------------------------------------------------------------------------------------


def list_plans(
    output: Annotated[Output, typer.Option("--output", "-o", help="The form.")] = Output.table,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """List the action plans: their state, and what they wait for or why they ended so."""
    get("actionplan", output=output, server=server, ca=ca, os_cloud=os_cloud, allow_insecure=allow_insecure)


def show(
    plan: PlanArgument,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Show a plan: what set it off, what it promises, and each of its actions with what became of it."""
    asyncio.run(_show(Reach(server, ca, os_cloud, allow_insecure), plan))


async def _show(reach: Reach, ident: str) -> None:
    async with reach.client() as client:
        plan = json.loads(await client.document(f"/apis/vedette.dev/v1/actionplans/{quote(ident, safe='')}"))["status"]
        query = {"fieldSelector": f"status.action_plan_uuid={plan['uuid']}"}
        actions = json.loads(await client.document("/apis/vedette.dev/v1/actions", query))["items"]
    typer.echo(f"Plan {plan['uuid']} of audit {plain(plan['audit_name'])}, by {plain(plan['strategy_name'])}: {plan['state']}")
    if plan.get("status_message"):
        typer.echo(plain(plan["status_message"]))
    for one in plan["trigger"]:
        about = f": {', '.join(one['objects'][:5])}" if one.get("objects") else ""
        typer.echo(plain(f"Set off by {one.get('rule') or one['cause']}{about}"))
    measured = {one["name"]: one["value"] for one in (*plan["measured_indicators"], *plan["measured_efficacy"])}
    for one in (*plan["efficacy_indicators"], *plan["global_efficacy"]):
        after = f", measured {measured[one['name']]:g}" if one["name"] in measured else ""
        typer.echo(f"{one['name']}: {one['value']:g}{' ' + one['unit'] if one['unit'] else ''}{after}")
    for note in plan["notes"]:
        typer.echo(plain(note))
    lines = Lines(["#", "ACTION", "STATE", "OUTCOME", "PARAMETERS", "MESSAGE"])
    rows = [_row(one["status"]) for one in sorted(actions, key=lambda one: int(one["status"]["order"]))]
    lines.fit(rows)
    for row in rows:
        lines.row(row, colour=COLOURS.get(row[2]), at=2)


def _row(action: dict[str, Any]) -> list[str]:
    cells = (
        str(action["order"]),
        action["action_type"],
        action["state"],
        action["outcome"],
        _parameters(action["input_parameters"]),
        action["status_message"] or "",
    )
    return [plain(cell) for cell in cells]


def _parameters(parameters: dict[str, Any]) -> str:
    """The short form: names before ids."""
    named = parameters.get("resource_name") or parameters.get("resource_id") or ""
    way = " → ".join(str(parameters[name]) for name in ("source_node", "destination_node") if parameters.get(name))
    rest = [
        f"{name}={value}"
        for name, value in parameters.items()
        if name not in ("resource_name", "resource_id", "source_node", "destination_node") and value is not None
    ]
    return " ".join(str(part) for part in (named, way, *rest) if part)


def start(
    plan: PlanArgument,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Have a recommended plan carried out."""
    _told(_post(Reach(server, ca, os_cloud, allow_insecure), f"/v1/actionplans/{quote(plan, safe='')}/start"))


def cancel(
    plan: PlanArgument,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Cancel a plan: nothing more of it is begun, and what is under way is aborted where that can be done."""
    _told(_post(Reach(server, ca, os_cloud, allow_insecure), f"/v1/actionplans/{quote(plan, safe='')}/cancel"))


def approve(
    plan: PlanArgument,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Let a plan be carried out where `audits.approval` wants somebody's word."""
    _told(_post(Reach(server, ca, os_cloud, allow_insecure), f"/v1/actionplans/{quote(plan, safe='')}/approve"))


def _told(plan: dict[str, Any]) -> None:
    by = f", approved by {plan['approved_by']}" if plan.get("approved_by") else ""
    say(plain(f"Plan {plan['uuid']} is {plan['state']}{by}."))


def _post(reach: Reach, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        async with reach.client() as client:
            told: dict[str, Any] = json.loads(await client.document(path, post=json.dumps(body or {}).encode()))
            return told

    return asyncio.run(ask())
