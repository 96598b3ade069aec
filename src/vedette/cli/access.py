"""`vedette token` and `vedette kubeconfig`: how kubectl and other Kubernetes clients get in."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import msgspec
import typer

from vedette.cli.reach import (
    DEFAULT_URL,
    CaOption,
    CloudOption,
    InsecureOption,
    Reach,
    ServerOption,
    given_token,
    issue,
)
from vedette.cli.show import say
from vedette.errors import FixInput
from vedette.kit.clock import rfc3339

if TYPE_CHECKING:
    from vedette.clients.keystone import Issued

EXEC_VERSION = "client.authentication.k8s.io/v1beta1"
"""kubectl 1.20 knows v1beta1 only (v1 came with 1.22), and recent ones still take it; client-go wants the answer in the version
that the kubeconfig names, which it repeats in KUBERNETES_EXEC_INFO."""
CLUSTER_NAME = "vedette"


def add_to(app: typer.Typer) -> None:
    app.command("token", epilog=EXEC_EXAMPLES)(token)
    app.command("kubeconfig", epilog=KUBECONFIG_EXAMPLES)(kubeconfig)


EXEC_EXAMPLES = """Examples:

\b
curl -H "X-Auth-Token: $(vedette token)" https://vedette.example:8470/v1/status
vedette token --os-cloud mycloud
vedette token --exec
"""

KUBECONFIG_EXAMPLES = """Examples:

\b
vedette kubeconfig --server https://vedette.example:8470 --ca ca.pem --os-cloud mycloud --write ~/.kube/vedette
kubectl --kubeconfig ~/.kube/vedette get ports -w
"""


def token(
    exec_: Annotated[bool, typer.Option("--exec", help="Print an ExecCredential: what kubectl asks of an exec plugin.")] = False,
    os_cloud: CloudOption = None,
) -> None:
    """Print a token: VEDETTE_TOKEN or OS_TOKEN, else a new one from Keystone (OS_* variables, clouds.yaml)."""
    text, issued = asyncio.run(_token(os_cloud))
    if not exec_:
        typer.echo(text)
        return
    status: dict[str, Any] = {"token": text}
    if issued is not None:
        # By the clock here, which is the one that kubectl compares it with.
        status["expirationTimestamp"] = rfc3339(time.time_ns() // 1000 + int(issued.seconds_left * 1_000_000))
    answer = {"apiVersion": _exec_version(), "kind": "ExecCredential", "status": status}
    typer.echo(msgspec.json.encode(answer).decode())


async def _token(os_cloud: str | None) -> tuple[str, Issued | None]:
    given = given_token()
    if given:
        return given, None
    issued = await issue(os_cloud)
    return issued.token, issued


def _exec_version() -> str:
    """The version that the caller wants to be answered in."""
    info = os.environ.get("KUBERNETES_EXEC_INFO", "")
    try:
        wanted = msgspec.json.decode(info)["apiVersion"] if info else EXEC_VERSION
    except (msgspec.DecodeError, KeyError, TypeError):
        return EXEC_VERSION
    return str(wanted) if str(wanted).startswith("client.authentication.k8s.io/") else EXEC_VERSION


def kubeconfig(
    write: Annotated[
        Path | None,
        typer.Option("--write", "-w", help="Write it to this file (mode 0600) instead of printing it.", metavar="FILE"),
    ] = None,
    project: Annotated[
        str | None, typer.Option("--project", "-p", help="The namespace; default: the project of the token.", metavar="ID")
    ] = None,
    source: Annotated[
        str, typer.Option("--source", help="Of this source of the server's; '*' for all of them.", metavar="NAME")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    server: ServerOption = DEFAULT_URL,
    ca: CaOption = None,
    os_cloud: CloudOption = None,
    allow_insecure: InsecureOption = False,
) -> None:
    """Make a kubeconfig, so that `kubectl get ports -w` asks Vedette.

    Its namespace is the token's project; its user gets a token from `vedette token --exec` whenever kubectl needs one. No secret
    is in the file: OS_* variables (or clouds.yaml) are read then.
    """
    reach = Reach(server, ca, os_cloud, allow_insecure)
    namespace, with_user = asyncio.run(_who(reach, project))
    document = _kubeconfig(reach, namespace or "default", source, with_user)
    if with_user and urlsplit(server).scheme == "http":
        say("Note: kubectl sends no token over plain http://. Give the server a certificate (tls: in its configuration).")
    if not namespace:
        say("Note: the token has no one project of its own, so the namespace is `default`, which is empty: use `kubectl … -A`.")
    import yaml

    text = yaml.safe_dump(document, sort_keys=False)
    if write is None:
        typer.echo(text, nl=False)
        return
    path = write.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if force else os.O_EXCL)
        with os.fdopen(os.open(path, flags, 0o600), "w") as file:
            file.write(text)
    except FileExistsError:
        raise FixInput(f"{path} is there already; --force replaces it") from None
    except OSError as why:
        raise FixInput(f"can't write {path}: {why.strerror}") from None
    say(f"Wrote {path}. Try: kubectl --kubeconfig {path} get ports -w")


def _kubeconfig(reach: Reach, namespace: str, source: str, with_user: bool) -> dict[str, Any]:
    base = reach.server.rstrip("/")
    cluster: dict[str, Any] = {"server": f"{base}/clusters/{source}" if source else base}
    if reach.ca is not None:
        cluster["certificate-authority"] = str(reach.ca.expanduser().resolve())
    user: dict[str, Any] = {}
    if with_user:
        user["exec"] = {
            "apiVersion": EXEC_VERSION,
            "command": command(),
            "args": ["token", "--exec", *(["--os-cloud", reach.os_cloud] if reach.os_cloud else [])],
            "env": None,
            "interactiveMode": "Never",
            "installHint": "vedette is not where this kubeconfig expects it; install it, or run `vedette kubeconfig` again.",
        }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": CLUSTER_NAME, "cluster": cluster}],
        "users": [{"name": CLUSTER_NAME, "user": user}],
        "contexts": [{"name": CLUSTER_NAME, "context": {"cluster": CLUSTER_NAME, "user": CLUSTER_NAME, "namespace": namespace}}],
        "current-context": CLUSTER_NAME,
    }


def command() -> str:
    """How this program is called from anywhere: its full path, since kubectl may run with another PATH."""
    called = sys.argv[0]
    found = shutil.which(called) if os.sep not in called else called
    return str(Path(found).absolute()) if found else called


async def _who(reach: Reach, project: str | None) -> tuple[str, bool]:
    """The namespace ("" when there is no single one), and whether the server wants to know who asks."""
    given = given_token()
    async with reach.client() as client:
        anonymous = await client.answers_anyone()
        if project is not None:
            return project, not anonymous
        if not anonymous and not given:
            issued = await issue(reach.os_cloud)
            if issued.project_id:
                return issued.project_id, True
        # A token that was given doesn't say its project, but what it sees does when that is one.
        namespaces = await client.resource("namespace")
        names: list[str] = []
        from vedette.clients.vedette import Target

        async with aclosing(client.pages(Target(namespaces))) as pages:
            async for page in pages:
                names += [item.name for item in page.items if item.name != "no-project"]
        return names[0] if len(names) == 1 else "", not anonymous
