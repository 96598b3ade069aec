"""What the running service tells `vedette doctor` of itself, and what its log says of the cloud."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from vedette import config as settings
from vedette.cli.diagnose_broker import skews
from vedette.cli.finding import SKEW_SECONDS, Asked, Finding, Findings, Level
from vedette.cli.show import ago, counted, seconds_ago, size
from vedette.cli.status import BEHIND, alike, last_whole, named
from vedette.clients.vedette import CloudNow, HandlerNow, KindReport, ResyncNow, StatusNow, Told, VedetteClient
from vedette.errors import ConfigError, NotAllowed, VedetteError
from vedette.kit.clock import parse_us

PAUSES = 5
"""Of the timer: the longest pause between two comparisons, in terms of `resync`, and some."""
SELDOM = 6
ACCOUNT = "vedette doctor --config FILE asks with that account what it may, and says which role it lacks"


class Service(msgspec.Struct, frozen=True):
    """A service of OpenStack: where it publishes, how its events are called, and what makes it publish."""

    name: str
    exchanges: tuple[str, ...]
    events: tuple[str, ...]
    file: str
    more: str = ""


SERVICES = (
    Service(
        "nova",
        ("nova",),
        ("compute.*", "instance.*", "scheduler.*", "flavor.*", "service.*", "aggregate.*", "keypair.*", "server*group.*"),
        "nova.conf",
        "[notifications] notification_format = both, notify_on_state_change = vm_and_task_state",
    ),
    Service(
        "neutron",
        ("neutron",),
        ("port.*", "network.*", "subnet.*", "router.*", "floatingip.*", "security_group*"),
        "neutron.conf",
    ),
    Service("octavia", ("octavia",), ("octavia.*",), "octavia.conf", "[controller_worker] event_notifications = true"),
    Service("heat", ("heat",), ("orchestration.*",), "heat.conf"),
    Service("cinder", ("openstack", "cinder"), ("volume.*", "snapshot.*", "backup.*", "volume_type.*"), "cinder.conf"),
    Service("glance", ("glance",), ("image.*",), "glance-api.conf"),
    Service("keystone", ("keystone",), ("identity.*",), "keystone.conf"),
)


def server_url(config: settings.Config) -> str:
    """Where the service of this configuration is asked from its own machine."""
    first = config.listen[0]
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound
    host = anywhere.get(first.host, first.host)
    return f"{'https' if config.tls else 'http'}://{settings.Address(host, first.port)}"


async def check_service(url: str, asked: Asked, config: settings.Config | None, *, running: bool) -> Findings:
    """What the running service tells of itself, and what its log says of the cloud."""
    about = "service"
    async with asked.reach(url) as client:
        try:
            await client.document("/healthz")
        except VedetteError as why:
            level: Level = "fail" if running or asked.server else "note"
            yield Finding(
                level, about, f"no answer at {url}: {why}" if level == "fail" else f"nothing answers at {url}: not started"
            )
            return
        yield Finding("ok", about, f"answers at {url}")
        try:
            status = await client.status()
        except VedetteError as why:
            fix = "set VEDETTE_TOKEN or OS_* of an admin" if isinstance(why, NotAllowed | ConfigError) else ""
            yield Finding("warn", about, f"its status can't be asked: {why}", fix)
            return
        for finding in judged(status, config, time.time()):
            yield finding
        async for finding in _log(client, config):
            yield finding


def judged(status: StatusNow, config: settings.Config | None, now: float) -> Iterator[Finding]:
    for source in status.sources:
        about = f"source {source.name}"
        if not source.ready:
            yield Finding("fail", about, f"not ready: {source.detail}", "it tries again by itself; see above, and its log")
        else:
            yield Finding("ok", about, f"ready: {source.detail}")
        if source.gaps:
            yield Finding(
                "note",
                about,
                f"{source.gaps} times news may have been missed since the start",
                f"vedette events --type vedette.gap --source {source.name} --since 24h -o json",
            )
    yield Finding(
        "ok",
        "log",
        f"{status.store.entries} entries, {status.store.objects} objects, {size(status.store.bytes)}; "
        f"{status.watch.watchers} watchers",
    )
    yield from _handlers(status.handlers)
    configured = {one.name: one.options.api for one in config.sources if one.type == "openstack"} if config is not None else {}
    for cloud in status.clouds:
        yield from _cloud(cloud, configured.get(cloud.source), now)


def _handlers(there: Sequence[HandlerNow]) -> Iterator[Finding]:
    """Each that waits, is paused or has dead letters; what to do about it."""
    for one in there:
        about = f"handler {one.name}"
        settle = (
            f"vedette deadletters --handler {one.name}\n"
            f"mend the cause, then: vedette deadletters redrive --handler {one.name}\n"
            f"what is of no use any more: vedette deadletters discard --handler {one.name}"
        )
        dead = counted(one.dead_letters, "dead letter")
        if one.state == "paused":
            yield Finding("fail", about, f"paused, it has {dead}: {one.pending} deliveries wait", settle)
            continue
        if one.state == "waiting":
            fix = "see to its target; the handler tries again by itself, at least once a minute, and loses nothing meanwhile"
            yield Finding("warn", about, f"its target does not answer: {one.detail}; {one.pending} deliveries wait", fix)
        if one.dead_letters:
            last = f", the last error is: {one.last_error}" if one.last_error else ""
            yield Finding("warn", about, f"{dead}{last}", settle)
        if one.lag > BEHIND:
            fix = "it catches up by itself; if it doesn't: concurrency, rate and max_pending in its configuration"
            yield Finding(
                "note", about, f"{one.lag} entries of the log are still to be sorted, {one.pending} deliveries wait", fix
            )
    well = [one for one in there if one.state in ("ready", "behind") and not one.dead_letters]
    if well:
        yield Finding("ok", "handlers", f"{counted(len(well), 'handler')} without dead letters, no target that is down")


def _cloud(cloud: CloudNow, api: Any, now: float) -> Iterator[Finding]:
    """How well the service knows a source's cloud. `api`: its settings, as far as they are known here."""
    about = f"API of {cloud.source}"
    if not cloud.api or cloud.resync is None:
        if api is not None:
            yield Finding("warn", about, "the running service doesn't know of `api:` yet", "restart it")
        return
    resync = cloud.resync
    if resync.state == "waiting":
        yield Finding("note", about, f"nothing was compared yet: {resync.detail}")
        return
    odd = [kind for kind in resync.kinds if kind.detail and kind.ended and kind.state != "absent"]
    refused = [kind for kind in odd if kind.state == "refused"]  # each in words of its own, and it is one account
    for kinds in [*alike([kind for kind in odd if kind.state != "refused"]), *([refused] if refused else [])]:
        yield _odd(about, cloud.source, kinds, resync.kinds, now)
    partly = [kind.kind for kind in resync.kinds if kind.partly and not kind.detail]
    if partly:
        said = f"{', '.join(partly)}: the service's account does not see every project's objects: nothing is taken for deleted"
        yield Finding("warn", about, said, ACCOUNT)
    old = list(_old(resync, api, now))
    if old:
        yield Finding(
            "warn",
            about,
            f"not compared for long: {', '.join(old)}",
            f"vedette resync --source {cloud.source}\nif that doesn't help: the service's log",
        )
    verify = cloud.verify.detail if cloud.verify is not None else ""
    if verify:
        yield Finding("warn", about, f"what changes without a word can't be looked after: {verify}", "it tries again by itself")
    whole = [kind.complete_at for kind in resync.kinds if kind.complete_at]
    if whole and not (odd or old or partly):
        yield Finding("ok", about, f"{counted(len(whole), 'kind')} compared as a whole, the oldest {ago(min(whole), now)}")


def _odd(about: str, source: str, kinds: Sequence[KindReport], every: Sequence[KindReport], now: float) -> Finding:
    """Kinds of which the same is to be said."""
    state, said = kinds[0].state, f"{named(kinds, every)}: {kinds[0].detail}"
    if state == "held":
        fix = (
            f"look first: `vedette get {kinds[0].kind} --source {source} -o name | wc -l` is what is known, and the "
            "openstack command lists what there is"
        )
        return Finding("warn", about, said, fix)
    if state == "done":
        return Finding("warn", about, said, ACCOUNT)
    if state == "refused":
        said = f"{named(kinds, every)} (such as {kinds[0].kind}: {kinds[0].detail})"
        return Finding("warn", about, f"the service's account may not list {said}", ACCOUNT)
    these = "" if len(kinds) == len(every) else " ".join(kind.kind for kind in kinds) + " "
    last = last_whole(kinds, now)
    fix = f"it tries again by itself; now: vedette resync {these}--source {source}"
    return Finding("warn", about, f"the last comparison is {state} ({last}): {said}", fix)


def _old(resync: ResyncNow, api: Any, now: float) -> Iterator[str]:
    """Kinds whose last whole comparison is older than the timer explains, whatever is said of them."""
    if api is None or not api.resync:
        return
    from vedette import plugins

    seldom = {kind.singular for kind in plugins.kinds() if kind.api is not None and kind.api.seldom}
    for kind in resync.kinds:
        seconds = seconds_ago(kind.complete_at, now)
        # The pauses grow to four times `resync`, and jitter; some kinds are part of every sixth pass.
        most = api.resync * PAUSES * (SELDOM if kind.kind in seldom else 1)
        if kind.state in ("done", "held", "waiting", "listing", "confirming") and seconds is not None and seconds > most:
            yield f"{kind.kind} ({ago(kind.complete_at, now)})"


async def _log(client: VedetteClient, config: settings.Config | None) -> Findings:
    """What was heard in the last day, and what was not."""
    sources = [source for source in config.sources if source.type == "openstack"] if config is not None else []
    configured = {name for source in sources for name in source.options.exchanges}
    heard: dict[str, bool] = {}
    try:
        for service in SERVICES:
            if configured and not configured & set(service.exchanges):
                continue
            heard[service.name] = await _any(client, ",".join(service.events))
        puzzling = await _count(client, "vedette.not-understood", 100)
        unversioned = heard.get("nova", False) and await _any(client, "compute.instance.*")
        versioned = heard.get("nova", False) and await _any(client, "instance.*")
        updates = heard.get("nova", False) and await _any(client, "compute.instance.update,instance.update")
        skewed = [finding async for finding in _ahead(client)]
    except VedetteError as why:
        yield Finding("warn", "log", f"can't be read: {why}")
        return
    said = [name for name, was in heard.items() if was]
    if said:
        yield Finding("ok", "log", f"heard in the last 24 hours: {', '.join(said)}")
    elif heard:
        yield Finding(
            "warn", "log", "no OpenStack service was heard in the last 24 hours", "see the findings about the broker above"
        )
    for service in SERVICES:
        if said and heard.get(service.name) is False:
            more = f"\n{service.more}" if service.more else ""
            yield Finding(
                "note",
                "log",
                f"nothing was heard of {service.name} in the last 24 hours: not used, or it doesn't announce",
                f"{service.file}: [oslo_messaging_notifications] driver = messagingv2, topics = notifications{more}",
            )
    if unversioned and not versioned:
        yield Finding(
            "note",
            "log",
            "nova announces in the old format only: flavors, aggregates, services, locks and attached interfaces stay unheard",
            "nova.conf: [notifications] notification_format = both",
        )
    if heard.get("nova") and not updates:
        yield Finding(
            "warn",
            "log",
            "nova announces no instance.update: state changes between the start and the end of an action stay unheard",
            "nova.conf: [notifications] notify_on_state_change = vm_and_task_state",
        )
    if puzzling:
        number = "100 or more" if puzzling >= 100 else str(puzzling)
        yield Finding("warn", "log", f"{number} messages of the last 24 hours could not be read", "vedette not-understood")
    for finding in skewed:
        yield finding


async def _any(client: VedetteClient, types: str) -> bool:
    """Whether there was such an event in the last day: asks until the first one."""
    return await _count(client, types, 1) > 0


async def _count(client: VedetteClient, types: str, most: int) -> int:
    count = 0
    async with aclosing(client.events({"type": types}, since="24h", follow=False)) as stream:
        async for news in stream:
            count += isinstance(news, Told)
            if count >= most:
                break
    return count


class _Stamped(msgspec.Struct):
    time: str = ""
    publisher: str = ""
    origin: str = ""


async def _ahead(client: VedetteClient) -> Findings:
    """Hosts whose newest events are from the future. (Those behind show only while listening.)"""
    offsets: dict[str, list[float]] = {}
    now = time.time()
    seen = 0
    async with aclosing(client.events({}, since="10m", follow=False)) as stream:
        async for news in stream:
            if not isinstance(news, Told):
                continue
            event = msgspec.json.decode(news.raw, type=_Stamped)
            sent = parse_us(event.time)
            if sent and event.publisher and event.origin == "notification":
                host = event.publisher.replace(":", ".").partition(".")[2] or event.publisher
                offsets.setdefault(host, []).append(sent / 1e6 - now)
            seen += 1
            if seen >= 20_000:
                break
    late = {host: values for host, values in offsets.items() if max(values) > SKEW_SECONDS}
    for finding in skews(late):
        yield finding
