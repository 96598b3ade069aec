"""The OSS framework's own face: its `oss.conf` comes in, a `Config` of ours goes out, and what the start says in its words.

The command `oss_watcher` (cli/oss_watcher.py) runs it. Notifications come by a queue of our own, bound to the topic that
`watch_queue` names: whoever else reads that queue still gets every message. Each enabled plugin is a handler (handlers/oss.py)
with a process of its own.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from oslo_config import cfg

from vedette.compat._oss_options import MAX_FILE, dump, read, strange
from vedette.config import Config, load_text
from vedette.engine.worker import validate
from vedette.errors import ConfigError
from vedette.handlers import oss
from vedette.kit.clock import Clock

SOURCE = "openstack"
"""The source's name, in labels and in what `vedette …` commands show."""
DATA = Path("/var/lib/oss_watcher")
PRIORITIES = ("info", "error", "warn", "critical", "debug", "audit", "sample")
"""What may stand behind the topic in `watch_queue`."""
RETRY = {"attempts": 1000, "first": "1s", "most": "1m", "deadline": "3d"}
"""A target that is down for a weekend is told all the same."""
TIMEOUT = "1m"
"""Of one call: what the cloud has to be asked for, and the plugin."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What oss.conf says."""

    config: Config
    lines: tuple[tuple[str, str], ...]
    """(module, text) of each line that the start logs."""
    warnings: tuple[str, ...]
    log_file: str
    log_level: str
    log_format: str
    shown: str
    """The settings as an oss.conf, secrets as ***."""


def load(path: Path) -> Watched:
    """Read an oss.conf. `OS_<SECTION>__<KEY>` variables of the environment go before it. Raises ConfigError."""
    _look_at(path)
    conf = cfg.ConfigOpts()
    read(conf, str(path))
    folder = path.resolve().parent
    topic = _topic(conf.rabbit.watch_queue)
    if conf.rabbit.queue == conf.rabbit.watch_queue:
        raise ConfigError("is a queue of our own: reading watch_queue itself would take its messages away", path="[rabbit] queue")
    plugins = list(dict.fromkeys(name.strip() for name in conf.enabled_plugins if name.strip()))
    if not plugins:
        raise ConfigError("names no plugin, such as rest_plugin.RESTNotify", path="[DEFAULT] enabled_plugins")
    secrets = {name: f"_{uuid.uuid4().hex}" for name in ("rabbit", "openstack")}
    settings = {
        "listen": conf.listen,
        "data_dir": _beside(folder, conf.data_dir) or str(_data_dir()),
        "auth": {"mode": "none"},
        "log": {"level": conf.log_level, "format": conf.log_format},
        "sources": [_source(conf, folder, topic, secrets)],
        "handlers": [_handler(conf, path.resolve(), folder, plugin) for plugin in plugins],
    }
    # JSON is YAML. Passwords are put in behind its back; a ${ anywhere else is no variable.
    text = json.dumps(settings).replace("${", "$${")
    for mark in secrets.values():
        text = text.replace(mark, f"${{{mark}}}")
    warnings = [*strange(str(path)), *_odd(conf)]
    return Watched(
        config=load_text(text, {mark: conf[name].password for name, mark in secrets.items()}),
        lines=_lines(conf, plugins),
        warnings=tuple(warnings),
        log_file=_beside(folder, conf.log_file),
        log_level=conf.log_level,
        log_format=conf.log_format,
        shown=dump(conf),
    )


async def check_plugins(config: Config, clock: Clock) -> None:
    """Import each plugin in a process, as it will be, and let it go again. Raises ConfigError: what is wrong with the first one
    that can't be loaded."""
    for handler in config.handlers:
        wrong = await validate(oss.code(handler.name, handler.options), clock=clock)
        if wrong:
            raise ConfigError(f"the plugin {handler.options.plugin} can't be loaded: {wrong}")


def _look_at(path: Path) -> None:
    try:
        size = path.stat().st_size
    except OSError as why:
        raise ConfigError(f"can't be read: {why.strerror}", path=str(path)) from None
    if size > MAX_FILE:
        raise ConfigError(f"has more than {MAX_FILE} bytes", path=str(path))


def _topic(watch_queue: str) -> str:
    """`monitoring` of `monitoring.info`."""
    topic, dot, priority = watch_queue.rpartition(".")
    found = topic if dot and priority in PRIORITIES else watch_queue
    if not found:
        raise ConfigError("wants a topic and a priority, such as monitoring.info", path="[rabbit] watch_queue")
    return found


def _source(conf: cfg.ConfigOpts, folder: Path, topic: str, secrets: Mapping[str, str]) -> dict[str, Any]:
    """`secrets`: what stands in the place of each section's password."""
    rabbit, api = conf.rabbit, conf.openstack
    host = f"[{rabbit.host}]" if ":" in rabbit.host else rabbit.host
    vhost = "" if rabbit.virtual_host == "/" else f"/{quote(rabbit.virtual_host, safe='')}"
    source: dict[str, Any] = {
        "name": SOURCE,
        "type": "openstack",
        "amqp": f"{'amqps' if rabbit.ssl else 'amqp'}://{host}:{rabbit.port}{vhost}",
        "username": rabbit.user,
        "password": secrets["rabbit"],
        "topics": [topic],
        "queue": {"name": rabbit.queue},
        "tls_ca": _beside(folder, rabbit.ssl_ca_file),
    }
    if rabbit.exchanges:
        source["exchanges"] = rabbit.exchanges
    if api.auth_url:
        source["api"] = {
            "auth_url": api.auth_url,
            "username": api.user,
            "password": secrets["openstack"],
            "user_domain_name": api.user_domain,
            "project_name": api.tenant,
            "project_domain_name": api.project_domain,
            "region_name": api.region,
            "cacert": _beside(folder, api.cacert),
            "resync": api.resync,
            **({"interface": api.interface} if api.interface else {}),
        }
    return source


def _handler(conf: cfg.ConfigOpts, path: Path, folder: Path, plugin: str) -> dict[str, Any]:
    creation, deletion = ([name.strip() for name in names] for names in (conf.events_creation, conf.events_deletion))
    return {
        "name": plugin,
        "use": "oss",
        "on": [{"sources": [SOURCE], "types": list(oss.event_types(creation, deletion))}],
        "options": {
            "plugin": plugin,
            "conf": str(path),
            "plugins_dir": _beside(folder, conf.plugins_dir),
            "events_creation": creation,
            "events_deletion": deletion,
            "detail": {name: conf.node_detail[name] for name in conf.node_detail},
        },
        "retry": RETRY,
        "timeout": TIMEOUT,
        # One after the other, in the order of the log.
        "concurrency": 1,
    }


def _lines(conf: cfg.ConfigOpts, plugins: list[str]) -> tuple[tuple[str, str], ...]:
    """As the original said them, but with a comma between two events."""
    return (
        ("service", f"Listen queue {conf.rabbit.watch_queue}"),
        ("service", f"Handled events of creation: {','.join(conf.events_creation)}"),
        ("service", f"Handled events of deletion: {','.join(conf.events_deletion)}"),
        *(("service", f"Plugin `oss_framework.plugins.{plugin}`is loaded.") for plugin in plugins),
        ("base_connection", f"Connecting to {conf.rabbit.host}:{conf.rabbit.port}"),
    )


def _odd(conf: cfg.ConfigOpts) -> list[str]:
    """What works as it is written, and was perhaps not meant."""
    said = []
    if conf.rest.host.startswith("https://") and conf.rest.port == 80:
        said.append("[rest] host is https:// and port is 80: TLS is spoken at port 80. Usual is port=443")
    if conf.rest.host.startswith("http://") and conf.rest.user:
        said.append("[rest] user and password go to host in plain http: https:// keeps them secret")
    if not conf.openstack.auth_url:
        said.append("[openstack] has no auth_url: what notifications leave out, or what is missed, is asked of nobody")
    return said


def _data_dir() -> Path:
    """/var/lib/oss_watcher; where this user may not write there, its own folder for such things."""
    nearest = DATA if DATA.exists() else DATA.parent
    if os.access(nearest, os.W_OK):
        return DATA
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / DATA.name


def _beside(folder: Path, text: str) -> str:
    """A relative path is looked for beside oss.conf; none stays none."""
    return str(folder / text) if text else ""
