"""concertim-openstack-service's own face: its `config.yaml` comes in, a `Config` of ours goes out, for one of its components or
for all of them in one.

The command `concertim-openstack-service` (cli/concertim_service.py) runs it. In one process everything follows one log. One for
each component, `updates_mq` has the queue at the broker, and the others follow it as a Vedette (sources/vedette.py), each with a
log of its own; without it they still see what the cloud's API says, now and then.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import yaml

from vedette.config import Config, load_text
from vedette.errors import ConfigError

Component = Literal["all", "updates_mq", "updates_bulk", "metrics", "api"]
COMPONENTS: tuple[Component, ...] = ("all", "updates_mq", "updates_bulk", "metrics", "api")
PROCESSES: Mapping[str, Component] = {
    "fe_updates": "updates_bulk",
    "fe_metrics": "metrics",
    "view_sync": "updates_bulk",
    "view_queue": "updates_mq",
    "api": "api",
}
"""The second generation's words: there is no view that would have to be kept beside the front end, so two of them are one."""
LOGS: Mapping[Component, str] = {"api": "api_server"}
"""Names of log files that are not the component's."""
LISTEN: Mapping[Component, int] = {"all": 8470, "updates_mq": 8470, "updates_bulk": 8471, "metrics": 8472, "api": 8473}
"""Ports of 127.0.0.1 where each has Vedette's own API."""
API_LISTEN = "0.0.0.0:42356"
FOLLOW = "http://127.0.0.1:8470"

SOURCE, MIRROR, METER = "openstack", "concertim", "gnocchi"
MAX_FILE = 1_048_576
LEVELS = {"debug": "debug", "info": "info", "warn": "warning", "warning": "warning", "error": "error", "critical": "error"}

_NAMES = ("username", "user_id", "password", "project_name", "project_id", "user_domain_name", "project_domain_name")
_OLD = ("tenant_name", "tenant_id")
_EXTRA = ("user_domain_id", "project_domain_id", "region_name", "interface", "cacert")
_RMQ = ("rmq_username", "rmq_password", "rmq_address", "rmq_port", "rmq_path")
KEYS: Mapping[str, frozenset[str]] = {
    "": frozenset({"log_level", "openstack", "rmq", "concertim", "billing_platform", "cloud_type", "message_queue", "killbill"}),
    "openstack": frozenset({"auth_url", *_NAMES, *_OLD, *_EXTRA, *_RMQ}),
    "rmq": frozenset(_RMQ),
    "killbill": frozenset({"api_host", "username", "password", "apikey", "apisecret", "plan_name"}),
    "concertim": frozenset(
        {
            "concertim_url",
            "concertim_username",
            "concertim_password",
            "default_rack_height",
            "concertim_ca",
            "jwt_secret",
            "api_authentication",
        }
    ),
}
"""All keys that mean something; the last three of `concertim` are ours."""

SETS = (
    "wants one of these sets: username, password, project_name, user_domain_name, project_domain_name; or username, password, "
    "project_id, user_domain_name; or user_id, password, project_id"
)


class Read(msgspec.Struct, frozen=True, kw_only=True):
    """What config.yaml says."""

    config: Config
    warnings: tuple[str, ...]
    log_file: str
    log_level: str


def load(
    path: Path,
    component: Component,
    *,
    data: str = "",
    logs: str = "",
    listen: str = "",
    api_listen: str = "",
    follow: str = "",
    environ: Mapping[str, str] = os.environ,
) -> Read:
    """`data`, `logs`: folders. `listen`: where Vedette's own API is, `api_listen` the front end's, as `HOST:PORT`. `follow`:
    where `updates_mq` has its own. Raises ConfigError, which repeats no secret."""
    given = _sections(path)
    secrets: dict[str, str] = {}

    def hidden(text: str) -> str:
        # Put in behind JSON's back (`load_text`): no secret is in a text that an error may quote.
        mark = f"_{uuid.uuid4().hex}"
        secrets[mark] = text
        return f"${{{mark}}}"

    account = _account(given["openstack"], hidden)
    level = str(given[""].get("log_level") or "info").lower()
    if level not in LEVELS:
        raise ConfigError(f"is {level[:20]!r}: wants one of {', '.join(LEVELS)}", path="log_level")
    for key, only in (("cloud_type", "openstack"), ("message_queue", "rmq"), ("billing_platform", "killbill")):
        if given[""].get(key) not in (None, "", only):
            raise ConfigError(f"wants {only}", path=key)
    hears = component in ("all", "updates_mq")
    source = _heard(given, account, hidden) if hears else _followed(account, follow or environ.get("CONCERTIM_FOLLOW") or FOLLOW)
    source["api"]["resync"] = "150s" if component == "updates_bulk" else "10m"
    settings: dict[str, Any] = {
        "listen": listen or environ.get("CONCERTIM_LISTEN") or f"127.0.0.1:{LISTEN[component]}",
        "data_dir": str(_folder(data or environ.get("STATE_DIRECTORY", ""), f"/var/lib/concertim-openstack-service/{component}")),
        "auth": {"mode": "keystone", "keystone": {name: value for name, value in account.items() if name != "interface"}},
        "log": {"level": LEVELS[level]},
        # Its services spoke plain http to each other, as its front end does to it.
        "allow_insecure": True,
        "sources": [source],
    }
    if component in ("all", "updates_bulk", "metrics"):
        settings["mirrors"] = [_mirror(given["concertim"], hidden, writes=component != "metrics")]
    if component in ("all", "metrics"):
        settings["meters"] = [{"name": METER, "type": "gnocchi"}]
        settings["polling"] = {"meter": METER, "push": [MIRROR]}
    if component in ("all", "api"):
        face = _face(given["concertim"], hidden, environ)
        if given["killbill"]:
            face["billing"] = _billing(given["killbill"], hidden)
        settings["faces"] = {"concertim": {"listen": api_listen or API_LISTEN, **face}}
    folder = _folder(logs or environ.get("LOGS_DIRECTORY", ""), "/var/log/concertim-openstack-service")
    text = json.dumps(settings)
    return Read(
        config=load_text(text, secrets),
        warnings=tuple(_odd(given)),
        log_file=str(folder / f"{LOGS.get(component, component)}.log"),
        log_level=LEVELS[level],
    )


def _folder(named: str, usual: str) -> Path:
    """(systemd names several with colons between.)"""
    return Path(named.partition(":")[0] or usual)


def _sections(path: Path) -> dict[str, dict[str, Any]]:
    """Section → its keys; "": the whole file. Raises ConfigError."""
    try:
        raw = path.read_bytes()
    except OSError as why:
        raise ConfigError(f"can't be read: {why.strerror}", path=str(path)) from None
    if len(raw) > MAX_FILE:
        raise ConfigError(f"has more than {MAX_FILE} bytes", path=str(path))
    try:
        whole = yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as why:
        line = getattr(getattr(why, "problem_mark", None), "line", -1) + 1
        raise ConfigError("is no YAML", path=str(path), line=line) from None
    if not isinstance(whole, dict):
        raise ConfigError("is no mapping of sections", path=str(path))
    found: dict[str, dict[str, Any]] = {"": whole}
    for name in ("openstack", "rmq", "concertim", "killbill"):
        section = whole.get(name)
        if section is not None and not isinstance(section, dict):
            raise ConfigError("is no mapping", path=name)
        found[name] = section or {}
    return found


def _odd(given: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What is in the file and means nothing."""
    found = [
        f"{section}{'.' if section else ''}{key} is no key of this service, and does nothing"
        for section, known in KEYS.items()
        for key in given[section]
        if key not in known
    ]
    if given["killbill"]:
        found.append("killbill: credits, orders and invoices are served; what servers cost is not yet worked out and sent")
    return found


def _text(section: Mapping[str, Any], name: str, path: str, default: str | None = None) -> str:
    value = section.get(name)
    if value is None or value == "":
        if default is None:
            raise ConfigError("is missing", path=f"{path}.{name}")
        return default
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError("is no text", path=f"{path}.{name}")
    return str(value)


def _account(section: Mapping[str, Any], hidden: Any) -> dict[str, Any]:
    """How to be somebody at Keystone, named as `api` has it. Raises ConfigError."""
    url = _text(section, "auth_url", "openstack")
    has = {name for name in (*_NAMES, *_OLD) if section.get(name) not in (None, "")}
    if "password" not in has:
        raise ConfigError(f"password is missing: {SETS}", path="openstack")
    for one, other in (("username", "user_id"), ("project_name", "project_id"), ("tenant_name", "tenant_id")):
        if {one, other} <= has:
            raise ConfigError(f"{one} and {other} say the same thing: give one of them", path="openstack")
    if not has & {"username", "user_id"} or not has & {"project_name", "project_id", *_OLD}:
        raise ConfigError(SETS, path="openstack")
    if "username" in has and "project_name" in has and not {"user_domain_name", "project_domain_name"} <= has:
        missing = sorted({"user_domain_name", "project_domain_name"} - has)
        raise ConfigError(f"{' and '.join(missing)} is missing: {SETS}", path="openstack")
    found: dict[str, Any] = {"auth_url": url}
    for name in (*sorted(has), *(name for name in _EXTRA if section.get(name))):
        found[name] = _text(section, name, "openstack").replace("${", "$${")
    for old, new in zip(_OLD, ("project_name", "project_id"), strict=True):
        if old in found:
            found[new] = found.pop(old)
    found["password"] = hidden(_text(section, "password", "openstack"))
    return found


def _heard(given: Mapping[str, Mapping[str, Any]], account: Mapping[str, Any], hidden: Any) -> dict[str, Any]:
    """The cloud's notifications, from a queue of our own. `rmq_*` under `rmq`, or under `openstack`, as the README had it."""
    merged = {name: given["openstack"].get(name) for name in _RMQ} | {
        name: value for name, value in given["rmq"].items() if name in _RMQ and value not in (None, "")
    }
    host = _text(merged, "rmq_address", "rmq")
    port = _text(merged, "rmq_port", "rmq", "5672")
    vhost = quote(_text(merged, "rmq_path", "rmq", "/"), safe="")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return {
        "name": SOURCE,
        "type": "openstack",
        "amqp": f"amqp://{host}:{port}/{vhost}".replace("${", "$${"),
        "username": _text(merged, "rmq_username", "rmq", "openstack").replace("${", "$${"),
        "password": hidden(_text(merged, "rmq_password", "rmq")),
        "api": dict(account),
    }


def _followed(account: Mapping[str, Any], url: str) -> dict[str, Any]:
    return {"name": SOURCE, "type": "vedette", "url": url, "source": SOURCE, "allow_insecure": True, "api": dict(account)}


def _mirror(section: Mapping[str, Any], hidden: Any, *, writes: bool) -> dict[str, Any]:
    height = section.get("default_rack_height", 42)
    if isinstance(height, bool) or not isinstance(height, int):
        raise ConfigError("is no whole number", path="concertim.default_rack_height")
    return {
        "name": MIRROR,
        "type": "concertim",
        "url": _text(section, "concertim_url", "concertim").replace("${", "$${"),
        "login": _text(section, "concertim_username", "concertim", "admin").replace("${", "$${"),
        "password": hidden(_text(section, "concertim_password", "concertim")),
        "ca": _text(section, "concertim_ca", "concertim", "").replace("${", "$${"),
        "rack_height": height,
        "writes": writes,
        "compare": "150s" if writes else "30s",
    }


def _billing(section: Mapping[str, Any], hidden: Any) -> dict[str, Any]:
    return {
        "url": _text(section, "api_host", "killbill").replace("${", "$${"),
        "username": _text(section, "username", "killbill", "admin").replace("${", "$${"),
        "password": hidden(_text(section, "password", "killbill")),
        "api_key": _text(section, "apikey", "killbill").replace("${", "$${"),
        "api_secret": hidden(_text(section, "apisecret", "killbill")),
        "plan": _text(section, "plan_name", "killbill").replace("${", "$${"),
    }


def _face(section: Mapping[str, Any], hidden: Any, environ: Mapping[str, str]) -> dict[str, Any]:
    secret = environ.get("JWT_SECRET") or _text(section, "jwt_secret", "concertim", "")
    if section.get("api_authentication") is False:
        return {"authenticate": False}
    if not secret:
        raise ConfigError(
            "what the front end signs its requests with is missing: set JWT_SECRET in the environment, as the front end has it; "
            "for a front end of the first generation, which signs nothing, say api_authentication: false",
            path="concertim.jwt_secret",
        )
    return {"jwt_secret": hidden(secret)}
