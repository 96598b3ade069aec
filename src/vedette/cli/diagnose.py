"""What `vedette doctor` looks at, in the order in which news travels: configuration, machine, Keystone, broker, service.

Settings come in, findings go out, each with the exact fix. Every look is bounded in time; one that can't be had is a finding too,
never the end. What a broker or a Keystone says is asked in `clients/`; what it means is decided here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import shlex
import socket
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from vedette import config as settings
from vedette import plugins
from vedette.clients import keystone, rabbit_checks
from vedette.clients.amqp import Address, address
from vedette.clients.vedette import Told, VedetteClient
from vedette.errors import ConfigError, IdentityUnavailable, NotAllowed, Unauthenticated, VedetteError
from vedette.kit.clock import SystemClock, parse_us
from vedette.kit.secret import Secret
from vedette.kit.telemetry import Telemetry

Level = Literal["ok", "note", "warn", "fail"]

SPARE_FILES = 100
"""Descriptors beside the watchers': the store, the broker, the log (app.py refuses to start with less)."""
LEAST_FREE = 256 * 1024 * 1024
SKEW_SECONDS = 5.0
"""A clock that is further off makes as-of times and tokens wrong in ways that people notice."""
CERT_DAYS = 21
OSLO_PRIORITIES = ("info", "error", "warn", "critical", "debug", "audit", "sample")
TLS_SECONDS = 5.0


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    level: Level
    about: str
    message: str
    fix: str = ""
    """What to do, a line each; commands and settings exactly."""


Findings = AsyncGenerator[Finding, None]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line gave."""

    config: Path | None
    environ: Mapping[str, str]
    server: str
    management_url: str
    listen_s: float
    reach: Callable[[str], VedetteClient]


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


async def examine(asked: Asked) -> Findings:
    """Everything there is to look at."""
    config: settings.Config | None = None
    if asked.config is None:
        yield Finding("note", "configuration", "none given: only the service is looked at", "vedette doctor --config FILE")
    else:
        try:
            config = settings.load(asked.config, asked.environ)
        except ConfigError as why:
            yield Finding("fail", "configuration", f"{asked.config}: {why}", f"vedette check-config {asked.config}")
        else:
            yield Finding("ok", "configuration", str(asked.config))
    running = False
    if config is not None:
        holder = lock_holder(Path(config.data_dir)) if config.data_dir else ""
        running = bool(holder)
        for finding in (*check_data(config, holder), *check_limits(config, holder), *check_listener(config)):
            yield finding
        if config.auth.mode == "keystone":
            async for finding in check_keystone(config):
                yield finding
        for source in config.sources:
            if source.type == "openstack":
                async for finding in check_broker(source, asked, running=running):
                    yield finding
            elif source.type == "replay":
                yield check_recording(source)
    url = asked.server or (server_url(config) if config is not None else "")
    if url or config is None:
        async for finding in check_service(url or "http://127.0.0.1:8470", asked, config, running=running):
            yield finding


def size(count: int) -> str:
    """Bytes for a person: `78.9 GiB`."""
    number, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.1f} {unit}" if unit != "B" else f"{count} B"


# --- this machine ----------------------------------------------------------------------------------------------------------


def lock_holder(folder: Path) -> str:
    """Who holds a data folder: `pid 12 on host`; "" for nobody. Only looks: a lock taken here could stop one from starting."""
    try:
        found = os.stat(folder / "lock")
        locks = Path("/proc/locks").read_text()
    except OSError:
        return ""
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    for line in locks.splitlines():
        words = line.split()
        if inode in words and "FLOCK" in words:
            with contextlib.suppress(OSError):
                return (folder / "lock").read_text(errors="replace").strip() or f"pid {words[4]}"
            return f"pid {words[4]}"
    return ""


def check_data(config: settings.Config, holder: str) -> Iterator[Finding]:
    """The folder of the log: writable, and room for what retention promises."""
    if not config.data_dir:
        yield Finding("warn", "data_dir", "the log is in memory, and gone when the service ends", "set data_dir to a folder")
        return
    folder = Path(config.data_dir)
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    user = os.environ.get("USER") or str(os.getuid())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "fail", "data_dir", f"{there} is not writable for {user}", f"install -d -o <the service's user> -m 0700 {folder}"
        )
    else:
        made = "" if there == folder else " (will be made)"
        yield Finding("ok", "data_dir", f"{folder}{made}")
    yield Finding(
        "ok" if holder else "note", "service", f"running: {holder} holds {folder}" if holder else f"nobody holds {folder}"
    )
    room = os.statvfs(there)
    free = room.f_bavail * room.f_frsize
    used = sum(file.stat().st_size for file in folder.glob("*") if file.is_file()) if folder.exists() else 0
    most = config.retention.max_bytes
    said = f"{size(free)} free at {there}, the log has {size(used)}"
    if free < LEAST_FREE:
        yield Finding("fail", "disk", f"{said}: the log will soon take nothing more", f"make room, at least {size(LEAST_FREE)}")
    elif most and free + used < most:
        fits = (free + used) * 9 // 10 // 1024**2
        yield Finding(
            "warn",
            "disk",
            f"{said}; retention.max_bytes allows {size(most)}, so the disk is full before the oldest entries go",
            f"set retention.max_bytes to {fits}MiB at the most, or make room",
        )
    else:
        yield Finding("ok", "disk", said)


def check_limits(config: settings.Config, holder: str) -> Iterator[Finding]:
    """Every watcher is an open file. The running service's own limit where it can be seen, else ours."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    whose = "a process started from here"
    pid = re.match(r"pid (\d+) on (\S+)", holder)
    if pid and pid[2] == socket.gethostname():
        with contextlib.suppress(OSError, ValueError, StopIteration):
            lines = Path(f"/proc/{pid[1]}/limits").read_text().splitlines()
            words = next(line for line in lines if line.startswith("Max open files")).split()
            hard, whose = int(words[4]), "the service"
    wanted = config.watch.max_watchers + SPARE_FILES
    if hard != resource.RLIM_INFINITY and hard < wanted:
        yield Finding(
            "fail",
            "open files",
            f"{whose} may open {hard}, but watch.max_watchers is {config.watch.max_watchers}",
            f"LimitNOFILE={wanted} in the systemd unit (or `ulimit -n {wanted}`)\n"
            f"or watch.max_watchers: {max(1, hard - SPARE_FILES)}",
        )
    else:
        yield Finding("ok", "open files", f"{whose} may open {'any number' if hard == resource.RLIM_INFINITY else hard}")


def check_listener(config: settings.Config) -> Iterator[Finding]:
    """The certificate that clients see."""
    if config.tls is None:
        if config.auth.mode != "none":
            yield Finding(
                "warn",
                "tls",
                "the listener speaks plain http: kubectl sends no token over it",
                "set tls.cert and tls.key",
            )
        return
    try:
        ends = certificate_end(Path(config.tls.cert), Path(config.tls.key))
    except (OSError, ssl.SSLError, ValueError) as why:
        yield Finding("fail", "tls", f"{config.tls.cert} can't be used: {why}", "name a PEM certificate (chain) and its own key")
        return
    yield expiry("tls", config.tls.cert, ends)


def expiry(about: str, what: str, ends: float) -> Finding:
    """A certificate's end (Unix seconds), judged."""
    days = (ends - time.time()) / 86_400
    when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if days < 0:
        return Finding(
            "fail", about, f"the certificate {what} ended at {when}", "renew it; the service reads the files again by itself"
        )
    if days < CERT_DAYS:
        return Finding("warn", about, f"the certificate {what} ends at {when}, in {days:.0f} days", "renew it")
    return Finding("ok", about, f"the certificate {what} is good until {when}")


def certificate_end(cert: Path, key: Path) -> float:
    """When a certificate ends, Unix seconds. Raises SSLError when it and the key don't belong together.

    Python reads a certificate's fields only out of a handshake; so one is made, in memory, with ourselves.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.verify_mode = ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server)
    done: set[int] = set()
    for _ in range(10):
        for number, one in enumerate((client, server)):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
                done.add(number)
        if len(done) == 2:
            break
    der = client.getpeercert(binary_form=True)
    if der is None:
        raise ssl.SSLError("no certificate came out of a handshake")
    return not_after(der)


def not_after(der: bytes) -> float:
    """The end of a certificate's validity (RFC 5280 §4.1: Certificate → TBSCertificate → validity → notAfter), Unix seconds."""
    body = _inside(_inside(der, 0)[0], 0)[0]
    at = 0
    # version is tagged [0] and may be missing; then serial, signature, issuer come before validity.
    skip = 4 if body[0] == 0xA0 else 3
    for _ in range(skip):
        at = _inside(body, at)[1]
    validity = _inside(body, at)[0]
    _, second = _inside(validity, 0)
    text = _inside(validity, second)[0].decode("ascii")
    if validity[second] == 0x17:
        # UTCTime: two digits of a year, 50 and above are 19xx.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _inside(der: bytes, at: int) -> tuple[bytes, int]:
    """The content of the value that begins at `at` (X.690 §8.1), and where the next one begins."""
    length = der[at + 1]
    start = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count])
        start += count
    if start + length > len(der):
        raise ValueError("not a certificate")
    return der[start : start + length], start + length


def remote_certificate_end(host: str, port: int, context: ssl.SSLContext) -> float:
    """When the certificate of a TLS listener ends. Blocks for TLS_SECONDS at the most. Raises OSError (SSLError too)."""
    with (
        socket.create_connection((host, port), TLS_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=host) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        if der is None:
            raise ssl.SSLError("no certificate")
        return not_after(der)


# --- Keystone --------------------------------------------------------------------------------------------------------------


async def check_keystone(config: settings.Config) -> Findings:
    """Reachable, our credentials good and allowed to look at tokens, its clock, its certificate."""
    about = "keystone"
    given = {
        name: value.reveal() if isinstance(value, Secret) else value
        for name, value in msgspec.structs.asdict(config.auth.keystone or settings.Keystone()).items()
        if value and name != "admin_roles"
    }
    try:
        credentials = keystone.credentials(given)
    except ConfigError as why:
        yield Finding("fail", about, str(why), "correct auth.keystone")
        return
    parts = urlsplit(credentials.auth_url)
    if parts.scheme == "https":
        async for finding in check_certificate(about, parts.hostname or "", parts.port or 443, credentials.cacert):
            yield finding
    elif not settings.Address(parts.hostname or "", 0).loopback:
        yield Finding(
            "warn", about, f"{credentials.auth_url} is asked over plain http: passwords can be read on the way", "use https"
        )
    try:
        issued = await keystone.issue_token(credentials)
    except Unauthenticated as why:
        yield Finding("fail", about, str(why), "correct username, password, domain and project in auth.keystone")
        return
    except (IdentityUnavailable, ConfigError) as why:
        yield Finding("fail", about, str(why), f"curl -i {credentials.auth_url}")
        return
    yield skew_of(
        "Keystone's clock", issued.expires_at / 1e6 - issued.seconds_left - time.time(), "chronyc makestep, here and there"
    )
    grant = f"openstack role add --user {issued.user_id} --project {issued.project_id or '<project>'} service"
    client = keystone.Keystone(credentials)
    try:
        verified = await client.validate(issued.token)
    except (IdentityUnavailable, Unauthenticated) as why:
        yield Finding("fail", about, str(why), f"{grant}\nif it has that role: look at Keystone's log")
        return
    finally:
        await client.close()
    project = f" in project {issued.project_name}" if issued.project_name else ""
    said = f"{credentials.auth_url}: {issued.user_name}{project} has the roles {', '.join(verified.roles) or '(none)'}"
    if {"admin", "service"} & set(verified.roles) or (verified.system and "reader" in verified.roles):
        yield Finding("ok", about, said)
    else:
        # Everybody may look at tokens of their own, so asking about ours proves nothing; Keystone's default policy does.
        yield Finding(
            "fail",
            about,
            f"{said}: not enough to look at other people's tokens",
            grant,
        )


async def check_certificate(about: str, host: str, port: int, ca: str) -> Findings:
    """The certificate of somebody we connect to."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
        ends = await asyncio.to_thread(remote_certificate_end, host, port, context)
    except ssl.SSLCertVerificationError as why:
        yield Finding(
            "fail",
            about,
            f"the certificate of {host}:{port} is not accepted: {why.verify_message}",
            "name the file of its CA in the configuration (tls_ca, cacert), or use the host name it is made for",
        )
    except (OSError, ValueError) as why:
        # Whoever connects in earnest says more.
        yield Finding("note", about, f"no TLS handshake with {host}:{port}: {why}")
    else:
        yield expiry(about, f"of {host}:{port}", ends)


def skew_of(what: str, seconds: float, fix: str) -> Finding:
    """A clock's distance from ours; positive: it is ahead."""
    if abs(seconds) > SKEW_SECONDS:
        side = "ahead of" if seconds > 0 else "behind"
        return Finding("warn", "clock", f"{what} is {abs(seconds):.0f} s {side} this machine's", fix)
    return Finding("ok", "clock", f"{what} agrees with this machine's")


# --- the broker ------------------------------------------------------------------------------------------------------------


FIXES: Mapping[rabbit_checks.Trouble, str] = {
    "name": "correct the host in amqp, or the name server",
    "refused": "is RabbitMQ up? `systemctl status rabbitmq-server` there; port 5672 for amqp://, 5671 for amqps://; a firewall?",
    "timeout": "a firewall drops it, or the host is down",
    "tls": "amqps:// wants the TLS port (5671); name the CA's file in tls_ca",
    "login": "correct username and password; `guest` may log in from the broker's own machine only",
    "vhost": "correct the vhost in amqp (no path means /), and allow the user to use it",
    "other": "look at the broker's log",
}


async def check_broker(source: settings.SourceConfig, asked: Asked, *, running: bool) -> Findings:
    """One source's RabbitMQ."""
    about = f"source {source.name}"
    options = source.options
    try:
        plugins.load("sources", source.type).build(options, clock=SystemClock(), telemetry=Telemetry())
        password = options.password.reveal() if isinstance(options.password, Secret) else options.password
        urls = [url.reveal() if isinstance(url, Secret) else url for url in options.amqp]
        addresses = [address(url, username=options.username, password=password) for url in urls]
        tls = ssl.create_default_context(cafile=options.tls_ca or None)
        if options.tls_cert:
            tls.load_cert_chain(options.tls_cert, options.tls_key or None)
    except (ConfigError, OSError) as why:
        yield Finding("fail", about, str(why), "correct the source's settings")
        return
    looked: rabbit_checks.Look | None = None
    where = addresses[0]
    for one in addresses:
        try:
            found = await asyncio.to_thread(
                rabbit_checks.look,
                one,
                tls=tls,
                exchanges=options.exchanges,
                routing_keys=[f"{topic}.{priority}" for topic in options.topics for priority in options.priorities],
                queue=options.queue.name,
                well_known=_well_known(options.topics),
                listen_s=asked.listen_s if looked is None else 0.0,
            )
        except rabbit_checks.NoConnection as why:
            yield Finding("fail", about, f"{one}: {why}", _connection_fix(why.trouble, one, options.queue.name))
        else:
            yield Finding("ok", about, f"{one}: logged in as {one.username} ({found.product} {found.version})")
            if one.tls:
                async for finding in check_certificate(about, one.host, one.port, options.tls_ca):
                    yield finding
            if looked is None:
                looked, where = found, one
    if looked is None:
        return
    managed: rabbit_checks.Managed | None = None
    if asked.management_url:
        try:
            managed = await rabbit_checks.manage(asked.management_url, where, options.queue.name, tls=tls)
        except (VedetteError, KeyError, TypeError) as why:
            yield Finding(
                "warn",
                about,
                f"the management API can't be asked: {why}",
                f"rabbitmq-plugins enable rabbitmq_management\nrabbitmqctl set_user_tags {where.username} monitoring",
            )
    for finding in (
        *_exchanges(about, options, looked),
        *_permissions(about, options, looked, where),
        *_queue(about, options, looked, managed, running=running),
        *_bindings(about, options, looked, managed, running=running),
        *_unread(about, looked, managed, where, options.queue.name),
        *_heard(about, looked),
    ):
        yield finding
    for alarm in managed.alarms if managed else ():
        yield Finding("fail", about, f"the broker has a {alarm}: it lets nobody publish", "free memory or disk on the broker")


def _connection_fix(trouble: rabbit_checks.Trouble, where: Address, queue: str) -> str:
    fix = FIXES[trouble]
    if trouble == "vhost":
        fix += f"\nrabbitmqctl add_vhost {shlex.quote(where.vhost)}\n{_permit(where, queue)}"
    if trouble == "login":
        user = shlex.quote(where.username)
        fix += f"\nrabbitmqctl add_user {user} '<password>'   (or change_password)\n{_permit(where, queue)}"
    return fix


def _permit(where: Address, queue: str) -> str:
    """Configure and write our own queues, read them and every exchange: no more is needed."""
    ours = shlex.quote(f"^{re.escape(queue)}")
    return f"rabbitmqctl set_permissions -p {shlex.quote(where.vhost)} {shlex.quote(where.username)} {ours} {ours} '.*'"


def _well_known(topics: Sequence[str]) -> list[str]:
    """The queues that every publisher declares for whoever might listen, whether somebody does or not."""
    names = dict.fromkeys((*topics, "notifications", "versioned_notifications"))
    return [f"{topic}.{priority}" for topic in names for priority in OSLO_PRIORITIES]


def _exchanges(about: str, options: Any, looked: rabbit_checks.Look) -> Iterator[Finding]:
    there = [name for name, why in looked.exchanges.items() if not why]
    missing = [name for name, why in looked.exchanges.items() if why and "NOT_FOUND" in why]
    refused = {name: why for name, why in looked.exchanges.items() if why and "NOT_FOUND" not in why}
    if there:
        yield Finding("ok", about, f"exchanges: {', '.join(there)}")
    if not there and not refused:
        yield Finding(
            "fail",
            about,
            f"none of the exchanges is there ({', '.join(missing)})",
            "is this the broker and the vhost that the services use? Compare transport_url in nova.conf\n"
            "another name than the service's: see control_exchange in its configuration, and set `exchanges:`",
        )
    elif missing:
        # Normal: keystone and glance make theirs at their first notification, and cinder uses `openstack`.
        yield Finding("note", about, f"not there yet, and waited for: {', '.join(missing)}")
    for name, why in refused.items():
        yield Finding("fail", about, f"exchange {name}: {why}", "give the user the permission to read it")


def _permissions(about: str, options: Any, looked: rabbit_checks.Look, where: Address) -> Iterator[Finding]:
    fix = _permit(where, options.queue.name)
    if looked.refused:
        yield Finding("fail", about, f"a queue can't be made: {looked.refused}", fix)
    elif looked.refused_exchanges:
        names = ", ".join(looked.refused_exchanges)
        yield Finding("fail", about, f"can't bind to {names}: {next(iter(looked.refused_exchanges.values()))}", fix)
    else:
        yield Finding("ok", about, "permissions: may make a queue of its own and bind it")


def _queue(
    about: str, options: Any, looked: rabbit_checks.Look, managed: rabbit_checks.Managed | None, *, running: bool
) -> Iterator[Finding]:
    name = options.queue.name
    queue = looked.queue
    if looked.queue_trouble:
        yield Finding("fail", about, f"queue {name}: {looked.queue_trouble}", "give this source a queue name of its own")
        return
    if queue is None:
        if running:
            yield Finding("fail", about, f"the queue {name} is not there, and the service runs", "look at the service's log")
        else:
            yield Finding(
                "note", about, f"the queue {name} will be made at the first start; what is announced before is not heard"
            )
        return
    said = f"queue {name}: {queue.messages} waiting, {queue.consumers} consumer{'' if queue.consumers == 1 else 's'}"
    foreign = [one for one in managed.consumers if not one.connection.startswith("vedette ")] if managed else []
    ours = 1 if running else 0
    if foreign or (queue.consumers > ours and not options.shared_queue):
        who = f" ({', '.join(f'{one.connection} as {one.user}' for one in foreign)})" if foreign else ""
        yield Finding(
            "fail",
            about,
            f"{said}; somebody else reads it{who}: each message reaches only one of them",
            "give this source a queue of its own (queue: {name: vedette-2}), or stop the other\n"
            + ("is another Vedette running with this queue name?" if not foreign else ""),
        )
    elif running and queue.consumers == 0:
        yield Finding("fail", about, f"{said}, and the service runs", "look at the service's log; it tries again by itself")
    elif options.queue.max_length and queue.messages >= options.queue.max_length:
        yield Finding("fail", about, f"{said}: full, the oldest are lost", "start the service; a resync is due")
    elif not running and queue.messages:
        yield Finding("note", about, f"{said}; they are read at the next start")
    else:
        yield Finding("ok", about, said)


def _bindings(
    about: str, options: Any, looked: rabbit_checks.Look, managed: rabbit_checks.Managed | None, *, running: bool
) -> Iterator[Finding]:
    if managed is None or managed.queue is None:
        if looked.queue is not None:
            yield Finding(
                "note", about, "bindings can't be seen over AMQP (the service renews them at each connect and at each `check`)",
                "--management-url http://<broker>:15672 shows them",
            )  # fmt: skip
        return
    wanted = {
        (exchange, f"{topic}.{priority}")
        for exchange, why in looked.exchanges.items()
        if not why
        for topic in options.topics
        for priority in options.priorities
    }
    bound = {(one.source, one.routing_key) for one in managed.bindings}
    missing = sorted({exchange for exchange, _ in wanted - bound})
    if missing:
        level: Level = "fail" if running else "note"
        fix = "restart the service; it binds anew at each connect" if running else "made at the next start"
        yield Finding(level, about, f"queue {options.queue.name} is not (fully) bound to {', '.join(missing)}", fix)
    else:
        yield Finding("ok", about, f"bindings: {len(wanted)}, all there")
    odd = sorted(f"{source} {key}" for source, key in bound - wanted if key == "#" or source not in looked.exchanges)
    if odd:
        yield Finding(
            "warn", about, f"also bound, by somebody else: {', '.join(odd[:5])}", "rabbitmqadmin delete binding …, if not meant"
        )


def _unread(
    about: str, looked: rabbit_checks.Look, managed: rabbit_checks.Managed | None, where: Address, own: str
) -> Iterator[Finding]:
    """Queues that fill because nobody reads them: publishers declare them for listeners that may not exist."""
    seen = {queue.name: queue for queue in (*looked.unread, *(managed.unread if managed else ()))}
    filling = [queue for queue in seen.values() if queue.messages > 0 and queue.consumers == 0 and queue.name != own]
    notifying = [queue for queue in filling if re.search(r"notifications?\.\w+$", queue.name)]
    others = [queue for queue in filling if queue not in notifying and queue.messages >= 1000]
    if notifying:
        names = ", ".join(f"{queue.name} ({queue.messages})" for queue in notifying)
        yield Finding(
            "warn",
            about,
            f"nobody reads these queues, and they grow for ever: {names}",
            f"rabbitmqctl set_policy -p {shlex.quote(where.vhost)} --apply-to queues unread-notifications "
            r"""'^(versioned_)?notifications\.' '{"max-length": 1000, "overflow": "drop-head"}'"""
            "\nVedette has a queue of its own and doesn't need them; a telemetry service that reads them comes to no harm\n"
            f"rabbitmqctl purge_queue -p {shlex.quote(where.vhost)} {shlex.quote(notifying[0].name)}   (what is in it is lost)",
        )
    else:
        yield Finding("ok", about, "no notification queue fills without a reader")
    if others:
        names = ", ".join(f"{queue.name} ({queue.messages})" for queue in others[:5])
        yield Finding("note", about, f"other queues without a reader: {names}")


class _Inner(msgspec.Struct):
    event_type: str = ""
    timestamp: str = ""
    publisher_id: str | None = None


class _Envelope(msgspec.Struct):
    wrapped: str | None = msgspec.field(default=None, name="oslo.message")


def _heard(about: str, looked: rabbit_checks.Look) -> Iterator[Finding]:
    """What came while we listened: from whom, in which envelope, by which clock."""
    if not looked.listened or looked.refused:
        return
    if not looked.heard:
        yield Finding(
            "note",
            about,
            f"nothing was announced in {looked.listened:g} s",
            "--listen 60 hears longer; meanwhile change something: openstack server set --property doctor=1 <server>",
        )
        return
    exchanges = Counter(one.exchange for one in looked.heard)
    told = ", ".join(f"{name} {number}" for name, number in exchanges.most_common())
    yield Finding("ok", about, f"heard {looked.heard_count} notifications in {looked.listened:g} s: {told}")
    bare: set[str] = set()
    offsets: dict[str, list[float]] = {}
    for one in looked.heard:
        try:
            envelope = msgspec.json.decode(one.body, type=_Envelope)
            inner = msgspec.json.decode(envelope.wrapped or one.body, type=_Inner)
        except msgspec.DecodeError:
            continue
        if envelope.wrapped is None:
            bare.add(one.exchange)
        sent = parse_us(inner.timestamp)
        if sent:
            host = (inner.publisher_id or one.exchange).replace(":", ".").partition(".")[2] or one.exchange
            offsets.setdefault(host, []).append(sent / 1e6 - one.at)
    if bare:
        yield Finding(
            "note",
            about,
            f"old envelope from {', '.join(sorted(bare))}: understood, but newer services send the other",
            "[oslo_messaging_notifications] driver = messagingv2",
        )
    yield from skews(offsets)


def skews(offsets: Mapping[str, Sequence[float]]) -> Iterator[Finding]:
    """Hosts whose clocks are off, from message timestamps minus our clock at arrival. The smallest distance counts: a message
    may have waited on its way, but never arrives before it was sent."""
    off = {host: max(values) for host, values in offsets.items() if abs(max(values)) > SKEW_SECONDS}
    for host, seconds in sorted(off.items()):
        yield skew_of(f"the clock of {host}", seconds, f"chronyc tracking on {host}; chronyc makestep")
    if offsets and not off:
        yield Finding("ok", "clock", f"timestamps of {', '.join(sorted(offsets))} agree with this machine's clock")


# --- a recording -----------------------------------------------------------------------------------------------------------


def check_recording(source: settings.SourceConfig) -> Finding:
    """The file of a replay source."""
    path = Path(str(source.options.path))
    if os.access(path, os.R_OK):
        return Finding("ok", f"source {source.name}", f"the recording {path}")
    return Finding("fail", f"source {source.name}", f"the recording {path} can't be read", "correct `path`")


# --- the service -----------------------------------------------------------------------------------------------------------


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
            status = msgspec.json.decode(await client.document("/v1/status"))
        except (VedetteError, msgspec.DecodeError) as why:
            fix = "set VEDETTE_TOKEN or OS_* of an admin" if isinstance(why, NotAllowed | ConfigError) else ""
            yield Finding("warn", about, f"its status can't be asked: {why}", fix)
            return
        for finding in _status(status):
            yield finding
        async for finding in _log(client, config):
            yield finding


def _status(status: Mapping[str, Any]) -> Iterator[Finding]:
    for source in status.get("sources", []):
        about = f"source {source['name']}"
        if not source["ready"]:
            yield Finding("fail", about, f"not ready: {source['detail']}", "it tries again by itself; see above, and its log")
        else:
            yield Finding("ok", about, f"ready: {source['detail']}")
        if source.get("gaps"):
            yield Finding(
                "note",
                about,
                f"{source['gaps']} times news may have been missed since the start",
                f"vedette events --type vedette.gap --source {source['name']} --since 24h -o json",
            )
    store, watch = status.get("store", {}), status.get("watch", {})
    yield Finding(
        "ok",
        "log",
        f"{store.get('entries', '?')} entries, {store.get('objects', '?')} objects, {size(int(store.get('bytes', 0)))}; "
        f"{watch.get('watchers', '?')} watchers",
    )


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
