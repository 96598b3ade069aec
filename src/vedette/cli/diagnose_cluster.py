"""What `vedette doctor` looks at of a cluster that is followed: does its API answer, how is it verified, who are we there and for
how long, is everything served that is to be followed and may we follow it, its clock, its namespaces.

clients/kubernetes.py asks, as the source does; what the answers mean is decided here. Nothing of any object is shown.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from vedette import config as settings
from vedette.cli.certificates import certificate_end, check_certificate, expiry
from vedette.cli.finding import Finding, Findings, skew_of
from vedette.cli.show import counted
from vedette.clients.kubernetes import Access, Kubernetes, Resource, metadata_of
from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    FixInput,
    Forbidden,
    NotAllowed,
    NotFound,
    Unauthenticated,
    VedetteError,
)
from vedette.kit.clock import SystemClock, rfc3339

if TYPE_CHECKING:
    from vedette.sources.kubernetes import Options, Watched

MOST_TIMEOUT = 10.0
"""Seconds: a doctor doesn't wait as long as the service does."""
ENTER_SECONDS = 30.0
"""For the files and for the program of a kubeconfig."""
LOOK_SECONDS = 120.0
"""For all resources of a source together, and again for its namespaces."""
PARALLEL = 8
"""Resources looked at at one time."""
MOST_NAMESPACES = 100
"""Namespaces asked for one by one, where they can't be listed."""
SKEW_SECONDS = 2.0
ALIKE = 0.7
"""How like two plurals are (difflib's ratio) when one may be meant by the other."""
TOKEN_SECONDS = 86_400
"""A token that ends sooner is worth a word."""
LAST_SECOND = 253_402_300_799
"""The end of the year 9999: a token that ends later says nothing that can be shown."""

ANONYMOUS = "system:anonymous"
RIGHTS = "deploy/kubernetes/watch.yaml"
CLOCKS = "chronyc makestep, here and there"
NAMESPACES = Resource(version="v1", plural="namespaces", kind="Namespace", namespaced=False)

_NAMED = re.compile(r"(?:^|,)metadata\.name==?([^,=]+)(?:,|$)")


class Claims(msgspec.Struct, frozen=True):
    """What a token says of itself; nobody has verified it."""

    sub: str = ""
    exp: float = 0
    """Unix seconds; 0: it doesn't say."""


class _Version(msgspec.Struct):
    gitVersion: str = ""


class Looked(msgspec.Struct):
    """What was found of one entry of `resources`."""

    watched: Watched
    resource: Resource | None = None
    done: bool = False
    lacks: tuple[str, ...] = ()
    """Verbs that the account may not."""
    trouble: VedetteError | None = None


async def check_cluster(source: settings.SourceConfig) -> Findings:
    """One source's cluster."""
    from vedette.sources.kubernetes import way_in

    about = f"cluster {source.name}"
    options: Options = source.options
    # What the client would say in a log is among the findings.
    logging.getLogger("vedette.clients.kubernetes").setLevel(logging.CRITICAL)
    try:
        client = Kubernetes(way_in(options), SystemClock(), timeout_s=min(options.timeout_s, MOST_TIMEOUT))
    except ConfigError as why:
        yield Finding("fail", about, str(why), "correct `server`")
        return
    try:
        async for finding in _check(about, client, options):
            yield finding
    finally:
        await client.close()


async def _check(about: str, client: Kubernetes, options: Options) -> Findings:
    try:
        async with asyncio.timeout(ENTER_SECONDS):
            access = await client.access()
    except ConfigError as why:
        yield Finding("fail", about, str(why), f"correct {_settings(options)}")
        return
    except TimeoutError:
        yield Finding("fail", about, f"no credentials in {ENTER_SECONDS:g} s", f"what does {_origin(options)} wait for?")
        return
    verified = True
    async for finding in _tls(about, access, options):
        verified = verified and finding.level != "fail"
        yield finding
    if not verified:
        return  # every request would say the same
    claims = claims_of(_token(access))
    refused: VedetteError | None = None
    try:
        raw = await client.request("GET", "/version")
    except Unauthenticated as why:
        refused = why
    except Forbidden as why:
        yield Finding("ok", about, f"{access.server} answers, and does not tell its version ({why})")
    except FixInput as why:
        fix = f"correct {_settings(options)}; what answers there: curl -i {access.server}/version"
        yield Finding("fail", about, f"{access.server} answers, but not as a Kubernetes API does: {why}", fix)
        return
    except VedetteError as why:
        fix = f"is it up, and can this machine reach it? curl -i {access.server}/version"
        yield Finding("fail", about, f"{access.server} can't be asked: {why}", fix)
        return
    else:
        version = version_of(raw)
        yield Finding("ok", about, f"{access.server} answers: Kubernetes {version}" if version else f"{access.server} answers")
    ahead = client.clock_difference()
    if ahead is not None:
        yield skew_of(f"the clock of {about}", ahead, CLOCKS, most=SKEW_SECONDS)
    if refused is not None:
        ended = f"; it ended at {rfc3339(int(claims.exp) * 1_000_000)}" if 0 < claims.exp < time.time() else ""
        yield Finding("fail", about, f"{_origin(options)} is not accepted{ended}: {refused}", _renewal(options, claims))
        return
    who = ""
    with suppress(VedetteError):  # before Kubernetes 1.28 nobody can ask
        who = await client.who()
    for finding in _identity(about, access, options, claims, who or claims.sub):
        yield finding
    for finding in (
        *await _resources(about, client, options, who or claims.sub),
        *_secrets(about, options),
        *await _namespaces(about, client, options),
    ):
        yield finding


# --- the connection --------------------------------------------------------------------------------------------------------


async def _tls(about: str, access: Access, options: Options) -> Findings:
    parts = urlsplit(access.server)
    host = parts.hostname or ""
    if parts.scheme != "https":
        if not settings.Address(host, 0).loopback:
            yield Finding(
                "warn", about, f"{access.server} is asked over plain http: the token can be read on the way", "use https"
            )
        return
    by = "the system's certificates"
    if options.ca:
        by = f"`ca` {options.ca}"
    elif access.ca_file:
        by = f"the CA of {_origin(options)}"
    if access.proxy:
        yield Finding("ok", about, f"TLS is verified by {by}; the way leads through the proxy of {_origin(options)}")
        return
    setting = "certificate-authority in the kubeconfig" if options.kubeconfig else "ca"
    # (A kubeconfig's certificates are files by now, too.)
    certificate = check_certificate(about, host, parts.port or 443, access.ca_file, name=access.tls_name, setting=setting)
    async for finding in certificate:
        said = f"TLS is verified by {by}; {finding.message}" if finding.level in ("ok", "warn") else finding.message
        yield msgspec.structs.replace(finding, message=said)


def version_of(raw: bytes) -> str:
    """`v1.36.0` of what /version says; "" when it says nothing of the kind."""
    try:
        return msgspec.json.decode(raw, type=_Version).gitVersion[:64]
    except (msgspec.DecodeError, RecursionError):
        return ""


# --- who we are ------------------------------------------------------------------------------------------------------------


def claims_of(token: str) -> Claims:
    """Of a JWT (RFC 7519), unverified; empty for any other token."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)), type=Claims)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        return Claims()
    return claims if 0 < claims.exp <= LAST_SECOND else Claims(sub=claims.sub)


def _token(access: Access) -> str:
    return access.authorization.reveal().removeprefix("Bearer ")


def _origin(options: Options) -> str:
    """Where the token comes from."""
    if options.in_cluster:
        return "the pod's service account"
    if options.kubeconfig:
        return f"the kubeconfig {options.kubeconfig}"
    return f"the token in `token_file` {options.token_file}" if options.token_file else "the token in `token`"


def _settings(options: Options) -> str:
    if options.in_cluster:
        return "`in_cluster`, or give `server` or `kubeconfig`"
    return "`kubeconfig`" if options.kubeconfig else "`server`, `token_file` and `ca`"


def _renewal(options: Options, claims: Claims) -> str:
    """How to get a new token."""
    space, name = _account(claims.sub)
    if options.in_cluster:
        return (
            f"is the service account still there? kubectl -n {space} get serviceaccount {name}\n"
            "the kubelet renews its token, and the file is read again each minute; a new pod gets a new one"
        )
    if options.kubeconfig:
        file, context = shlex.quote(options.kubeconfig), f" --context {shlex.quote(options.context)}" if options.context else ""
        return (
            f"sign in again with that kubeconfig (oc login, or as its `exec` wants it); the same without Vedette: "
            f"kubectl --kubeconfig {file}{context} get --raw /version\n"
            "it is read again every ten minutes, and at once when its token is refused: no restart"
        )
    where = f" > {shlex.quote(options.token_file)}" if options.token_file else ""
    again = (
        "the file is read again each minute, and at once when its token is refused: no restart"
        if options.token_file
        else "then restart the service; with `token_file` in the place of `token` the file is read again as it is replaced"
    )
    return (
        f"kubectl -n {space} create token {name} --duration 720h{where}\n"
        f"or one that doesn't end: deploy/kubernetes/token.yaml says how\n{again}"
    )


def _account(user: str) -> tuple[str, str]:
    """Namespace and name of a service account, for a shell; of the one in deploy/ where it is none."""
    parts = user.split(":")
    if len(parts) == 4 and parts[:2] == ["system", "serviceaccount"]:
        return shlex.quote(parts[2]), shlex.quote(parts[3])
    return "vedette", "vedette"


def _identity(about: str, access: Access, options: Options, claims: Claims, who: str) -> Iterator[Finding]:
    """As whom we are let in, and for how long."""
    token = _token(access)
    name = f", as {who}" if who else ""
    if who == ANONYMOUS or not (token or access.cert_file):
        sent = f"{_origin(options)} doesn't count there" if token else "neither a token nor a certificate is sent"
        yield Finding("warn", about, f"{sent}{name or f', so we are {ANONYMOUS}'}", _renewal(options, claims))
        return
    if not token:
        yield Finding("ok", about, f"the client certificate of {_origin(options)} is accepted{name}")
        with suppress(OSError, ValueError):  # (ssl's errors are OSErrors)
            ends = certificate_end(Path(access.cert_file), Path(access.key_file or access.cert_file))
            yield expiry(about, "of the client", ends)
        return
    said = f"{_origin(options)} is accepted{name}"
    ends = claims.exp or access.expires_at / 1_000_000
    if not ends:
        if token.startswith("sha256~"):
            fix = f"a service account's token lasts:\n{_renewal(options, claims)}"
            yield Finding(
                "note", about, f"{said}; it is one of OpenShift's OAuth server, by default they end after 24 hours", fix
            )
        else:
            yield Finding("ok", about, f"{said}; it does not say that it ends")
        return
    said = f"{said}; it ends at {rfc3339(int(ends) * 1_000_000)}"
    if options.in_cluster or access.expires_at:
        by = (
            "the kubelet renews it, and the file is read again each minute"
            if options.in_cluster
            else "it is asked for anew before"
        )
        yield Finding("ok", about, f"{said}: {by}")
    elif (left := ends - time.time()) < TOKEN_SECONDS:
        yield Finding("warn", about, f"{said}, in {max(0, left) / 3600:.1f} hours", _renewal(options, claims))
    else:
        yield Finding("ok", about, said)


# --- what is followed ------------------------------------------------------------------------------------------------------


async def _resources(about: str, client: Kubernetes, options: Options, who: str) -> list[Finding]:
    """Whether each is served, and may be listed and watched."""
    every = [Looked(watched) for watched in options.resources]
    turns = asyncio.Semaphore(PARALLEL)

    async def look(one: Looked) -> None:
        async with turns:
            await _look(client, one)

    found: list[Finding] = []
    served: list[str] = []
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await asyncio.gather(*(look(one) for one in every))
            if any(isinstance(one.trouble, NotFound) for one in every):
                with suppress(VedetteError):
                    served = await client.served()
    except TimeoutError:
        late = sum(not one.done for one in every)
        found.append(Finding("warn", about, f"{counted(late, 'resource')} could not be looked at in {LOOK_SECONDS:g} s"))
    found += [_troubled(about, one, served) for one in every if one.trouble is not None]
    spaces = dict.fromkeys(one.watched.namespace for one in every if one.lacks)
    for namespace in spaces:
        found.append(_lacking(about, namespace, [one for one in every if one.lacks and one.watched.namespace == namespace], who))
    astray = [one for one in every if one.resource is not None and one.watched.namespace and not one.resource.namespaced]
    for one in astray:
        said = f"{_named(one)}: there are no namespaces of it, so all of them are followed"
        found.append(Finding("warn", about, said, "leave out `namespace` there"))
    well = [one for one in every if one.done and one.trouble is None and not one.lacks]
    if well:
        found.append(Finding("ok", about, f"may be listed and watched: {', '.join(_named(one) for one in well)}"))
    return found


async def _look(client: Kubernetes, one: Looked) -> None:
    watched = one.watched
    params = {"labelSelector": watched.label_selector, "fieldSelector": watched.field_selector}
    params = {name: value for name, value in params.items() if value}
    try:
        one.resource = await client.resolve(watched.resource)
        verbs = one.resource.verbs
        if verbs and not {"list", "watch"} <= set(verbs):
            raise BadRequest(f"it can only {', '.join(verbs)}: that can't be followed")
        one.lacks = await _lacks(client, one.resource, watched, params)
        if params and not one.lacks:
            # Rights say nothing of selectors: the API has its own mind about what it selects by.
            await client.page(one.resource, watched.namespace, {**params, "limit": "1"})
    except VedetteError as why:
        one.trouble = why
    one.done = True


async def _lacks(client: Kubernetes, resource: Resource, watched: Watched, params: dict[str, str]) -> tuple[str, ...]:
    """Of list and watch those that the account may not."""
    # One object by its name is another right than all of them.
    name = named[1] if (named := _NAMED.search(watched.field_selector)) else ""
    try:
        return tuple([verb for verb in ("list", "watch") if not await client.may(resource, verb, watched.namespace, name)])
    except (Forbidden, FixInput):
        pass  # it can't be asked; so it is tried
    lacks: list[str] = []
    begin = ""
    try:
        begin = (await client.page(resource, watched.namespace, {**params, "limit": "1"})).metadata.resourceVersion
    except Forbidden:
        lacks.append("list")
    try:
        place = {"resourceVersion": begin} if begin else {}
        await (
            await client.watch(resource, watched.namespace, {**params, **place, "timeoutSeconds": "1"}, inactivity_s=0)
        ).close()
    except Forbidden:
        lacks.append("watch")
    return tuple(lacks)


def _troubled(about: str, one: Looked, served: Sequence[str]) -> Finding:
    """A resource that can't be followed as it is configured, for another reason than rights."""
    why = one.trouble
    if isinstance(why, NotFound):
        near = near_to(one.watched.resource, served)
        fix = f"there are: {', '.join(near)}" if near else "kubectl api-resources has all there are"
        fix += "\na resource whose definition comes later is waited for"
        return Finding("fail", about, f"{_named(one)} is not served", fix)
    if isinstance(why, CloudUnavailable):
        return Finding("fail", about, f"{_named(one)}: {why}", "kubectl get apiservices says who doesn't answer")
    if isinstance(why, NotAllowed):
        fix = "discovery is what every account may, unless somebody took system:discovery from system:authenticated"
        return Finding("fail", about, f"{_named(one)}: {why}", fix)
    return Finding("fail", about, f"{_named(one)}: {why}", "correct `resource`, `label_selector` and `field_selector` there")


def near_to(text: str, served: Iterable[str]) -> list[str]:
    """Up to five of what is served whose plural is the one of `text`, or much like it."""
    plurals: dict[str, list[str]] = {}
    for name in served:
        plurals.setdefault(_word(name), []).append(name)
    return [name for plural in get_close_matches(_word(text), list(plurals), cutoff=ALIKE) for name in plurals[plural]][:5]


def _word(name: str) -> str:
    return name.partition("/")[0].partition(".")[0].lower()


def _named(one: Looked) -> str:
    name = one.resource.name if one.resource is not None else one.watched.resource
    return f"{name} in {one.watched.namespace}" if one.watched.namespace else name


def _lacking(about: str, namespace: str, those: Sequence[Looked], who: str) -> Finding:
    """What the account may not in one namespace, or in all of them; the rules that let it."""
    where = f"in the namespace {namespace}" if namespace else "in all namespaces"
    told: list[str] = []
    groups: dict[str, list[str]] = {}
    for one in those:
        assert one.resource is not None
        told.append(f"{one.resource.name} ({' and '.join(one.lacks)})")
        groups.setdefault(one.resource.group, []).append(one.resource.plural)
    role = f"Role vedette-watch of the namespace {namespace}" if namespace else "ClusterRole vedette-watch"
    rules = [
        f'- {{apiGroups: ["{group}"], resources: [{", ".join(dict.fromkeys(plurals))}], verbs: [get, list, watch]}}'
        for group, plurals in groups.items()
    ]
    group, plurals = next(iter(groups.items()))
    asked = ".".join(part for part in (plurals[0], group) if part)
    scope = f"-n {shlex.quote(namespace)}" if namespace else "-A"
    as_whom = shlex.quote(who) if who else "system:serviceaccount:vedette:vedette"
    fix = (
        f"add to the rules of the {role} in {RIGHTS}, then kubectl apply -f {RIGHTS}:",
        *rules,
        f"afterwards this says yes: kubectl auth can-i {those[0].lacks[0]} {asked} {scope} --as {as_whom}",
    )
    return Finding(
        "fail", about, f"the account{f' {who}' if who else ''} may not follow {where}: {', '.join(told)}", "\n".join(fix)
    )


def _secrets(about: str, options: Options) -> Iterator[Finding]:
    if any(one.resource.partition("/")[0].lower() in ("secret", "secrets") for one in options.resources):
        said = "Secrets are followed: of their data only the names of the keys enter the log, never a value"
        yield Finding(
            "note", about, said, "the account can read them all the same: leave secrets out of `resources` if nobody needs them"
        )


# --- namespaces ------------------------------------------------------------------------------------------------------------


async def _namespaces(about: str, client: Kubernetes, options: Options) -> list[Finding]:
    """Those that the configuration names and the cluster doesn't have."""
    wanted = {one.namespace: "a resource's `namespace`" for one in options.resources if one.namespace}
    wanted |= dict.fromkeys(options.projects, "`projects`")
    if not wanted:
        return []
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            there, unsure = await _there(client, wanted)
    except (VedetteError, TimeoutError) as why:
        return [Finding("warn", about, f"whether the namespaces that are named exist can't be told: {why or 'no answer'}")]
    found: list[Finding] = []
    for name in sorted(wanted.keys() - there - unsure):
        near = get_close_matches(name, sorted(there))
        fix = f"there are: {', '.join(near)}" if near else "kubectl get namespaces has all there are"
        said = f"{wanted[name]} names the namespace {name}, which is not there"
        found.append(Finding("warn", about, said, f"{fix}\none that is made later is taken as it comes"))
    if unsure:
        said = f"whether these namespaces exist can't be told, the account may not get them: {', '.join(sorted(unsure))}"
        rule = '- {apiGroups: [""], resources: [namespaces], verbs: [get, list, watch]}'
        found.append(Finding("note", about, said, f"nothing has to be done; to have it told, in {RIGHTS}:\n{rule}"))
    if not found:
        found.append(Finding("ok", about, f"the namespaces that are named exist: {', '.join(sorted(wanted))}"))
    return found


async def _there(client: Kubernetes, wanted: Iterable[str]) -> tuple[set[str], set[str]]:
    """Namespaces that exist, and those of which it can't be told."""
    there: set[str] = set()
    try:
        async for page in client.pages(NAMESPACES):
            there.update(metadata_of(item).name for item in page.items)
    except NotAllowed:
        there.clear()
    else:
        return there, set()
    names = sorted(wanted)
    unsure = set(names[MOST_NAMESPACES:])
    for name in names[:MOST_NAMESPACES]:
        try:
            await client.get(NAMESPACES, "", name)
            there.add(name)
        except NotFound:
            continue
        except NotAllowed:
            unsure.add(name)
    return there, unsure
