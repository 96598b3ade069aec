"""What `vedette doctor` looks at, in the order in which news travels: configuration, machine, Keystone, broker, API, service.

Settings come in, findings go out, each with the exact fix. Every look is bounded in time; one that can't be had is a finding too,
never the end. What a broker, a Keystone or an API says is asked in `clients/`; what it means is decided here, and in
diagnose_broker.py, diagnose_cloud.py, diagnose_cluster.py, diagnose_mirror.py, diagnose_front_end.py, diagnose_service.py.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from vedette import config as settings
from vedette.cli.certificates import certificate_end, check_certificate, expiry
from vedette.cli.diagnose_broker import check_broker
from vedette.cli.diagnose_cloud import check_cloud
from vedette.cli.diagnose_cluster import check_cluster
from vedette.cli.diagnose_front_end import check_front_end
from vedette.cli.diagnose_mirror import check_mirror
from vedette.cli.diagnose_service import check_service, server_url
from vedette.cli.finding import Asked, Broker, Finding, Findings, skew_of
from vedette.cli.show import size
from vedette.clients import keystone
from vedette.errors import ConfigError, IdentityUnavailable, Unauthenticated
from vedette.kit.secret import Secret

SPARE_FILES = 100
"""Descriptors beside the watchers': the store, the broker, the log (app.py refuses to start with less)."""
LEAST_FREE = 256 * 1024 * 1024


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
                broker = Broker()
                async for finding in check_broker(source, asked, broker, running=running):
                    yield finding
                async for finding in check_cloud(source, asked, broker):
                    yield finding
            elif source.type == "kubernetes":
                async for finding in check_cluster(source):
                    yield finding
            elif source.type == "replay":
                yield check_recording(source)
        for mirror in config.mirrors:
            async for finding in check_mirror(mirror):
                yield finding
        if config.faces.concertim is not None:
            async for finding in check_front_end(config, config.faces.concertim):
                yield finding
    url = asked.server or (server_url(config) if config is not None else "")
    if url or config is None:
        async for finding in check_service(url or "http://127.0.0.1:8470", asked, config, running=running):
            yield finding


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


# --- a recording -----------------------------------------------------------------------------------------------------------


def check_recording(source: settings.SourceConfig) -> Finding:
    """The file of a replay source."""
    path = Path(str(source.options.path))
    if os.access(path, os.R_OK):
        return Finding("ok", f"source {source.name}", f"the recording {path}")
    return Finding("fail", f"source {source.name}", f"the recording {path} can't be read", "correct `path`")
