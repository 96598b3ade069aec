"""The OpenShift Event Watcher's own face: its variables and its ini file come in, a `Config` of ours goes out.

The command `event-watcher` (cli/event_watcher.py) runs it. A setting is looked for in the environment, then in the section
`[global]` of the ini file, then where a pod finds it, and then it has its default. Each plugin is a handler
(handlers/event_watcher.py) with a process of its own; they follow one Kubernetes source.
"""

from __future__ import annotations

import configparser
import ipaddress
import json
import re
import uuid
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from vedette.clients.kubernetes import ACCOUNT
from vedette.config import MAX_FILE, Config, load_text
from vedette.engine.worker import validate
from vedette.errors import ConfigError
from vedette.handlers import event_watcher
from vedette.kit.clock import Clock

SOURCE = "kubernetes"
"""The source's name, in labels and in what `vedette …` commands show."""
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
ENDPOINT = "kubernetes.default.svc.cluster.local"
GROUP = "oapi"
"""Where every resource of OpenShift once was; now it means that the API is asked where it has it."""
RETRY = {"attempts": 100, "first": "1s", "most": "5m", "deadline": "1d"}
TIMEOUT = "2m"
"""Of one call of a plugin."""
IN_MEMORY = {"max_age": "1h"}
"""How much history is kept where there is no DATA_DIR; what is owed to plugins stays in any case."""
SECTION = "global"
SETTINGS = (
    "k8s_api_endpoint", "k8s_token", "k8s_namespace", "k8s_resource", "k8s_ca", "log_level", "watcher_plugin", "k8s_namespaced",
    "k8s_api_path", "k8s_api_group", "k8s_api_version", "plugins_dir", "data_dir", "listen",
)  # fmt: skip
"""Keys of `[global]`; in the environment in upper case. The last three are new."""
NO_FILE, NO_RESOURCE, NO_NAMESPACE, NO_ENDPOINT, NO_TOKEN, FATAL = 1, 31, 32, 33, 34, 21
"""Exit codes: the ini file can't be read, InvalidResource, InvalidNamespace, InvalidEndpoint, InvalidToken, anything else."""
INSECURE = 40
"""InsecureError, which is a warning."""

_PATH = re.compile(
    r"/?(?:apis/(?P<group>[^/]+)/(?P<version>[^/]+)|api/(?P<core>[^/]+)|oapi/v1)"
    r"(?:/watch)?(?:/namespaces/(?P<namespace>[^/]+))?/(?P<plural>[^/]+)",
    re.ASCII,
)
_RESOURCE = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9.-]+)?(/[A-Za-z0-9]+)?", re.ASCII)
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_GROUP = re.compile(r"(?:apis/)?(?P<group>[a-z0-9][a-z0-9.-]*)(?:/(?P<version>[a-z0-9]+))?", re.ASCII)


class CannotWatch(ConfigError):
    """A setting is wrong; `code` is what the command ends with."""

    def __init__(self, code: int, message: str, *, path: str = "") -> None:
        super().__init__(message, path=path)
        self.code = code


class Watch(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment and the ini file say."""

    config: Config
    log_level: str
    lines: tuple[str, ...]
    """What the start logs."""
    warnings: tuple[str, ...]


class _Followed(msgspec.Struct, frozen=True, kw_only=True):
    """A resource, and which of its objects."""

    resource: str
    namespace: str = ""
    """"": all of them."""
    label_selector: str = ""
    field_selector: str = ""


def load(file: Path | None, environ: Mapping[str, str], *, beside: Path | None = None, account: Path = ACCOUNT) -> Watch:
    """`file`: the ini file, if there is one. `beside`: the folder of `watch.py`, where plugins are looked for, too. `account`:
    where a pod finds who it is. Raises CannotWatch, ConfigError."""
    ini = _read(file)
    said = _Settings(ini, environ)
    level = _level(said.get("log_level", "INFO"))
    followed = _followed(said, account)
    endpoint = _endpoint(said.get("k8s_api_endpoint", ENDPOINT))
    token, token_file = _token(said, account)
    ca, warnings = _ca(said, environ, account)
    warnings += _strange(ini)
    folders = [str(Path(one).absolute()) for one in _listed(said.get("plugins_dir"))] + ([str(beside)] if beside else [])
    plugins = _plugins(said.get("watcher_plugin", "simple"))
    data_dir = said.get("data_dir")
    secrets = _Secrets()
    k8s = {
        "k8s_endpoint": endpoint,
        "k8s_namespace": followed.namespace or said.get("k8s_namespace") or _in_pod(account / "namespace"),
        "k8s_token": secrets.mark(token),
        "k8s_token_file": token_file,
        "k8s_ca": ca,
    }
    settings = {
        "listen": said.get("listen", "127.0.0.1:0"),
        "data_dir": str(Path(data_dir).absolute()) if data_dir else "",
        "auth": {"mode": "none"},
        "log": {"level": "error" if level == "CRITICAL" else level.lower()},
        "sources": [
            {
                "name": SOURCE,
                "type": "kubernetes",
                "server": endpoint if "://" in endpoint else f"https://{endpoint}",
                "token": secrets.mark(token),
                "token_file": token_file,
                "ca": ca,
                "resources": [{name: value for name, value in msgspec.structs.asdict(followed).items() if value}],
            }
        ],
        "handlers": [_handler(plugin, folders, _section(ini, f"plugin_{plugin}"), k8s, secrets) for plugin in plugins],
        **({} if data_dir else {"retention": IN_MEMORY}),
    }
    # JSON is YAML. What is secret is put in behind its back; a ${ anywhere else is no variable.
    text = secrets.put_in(json.dumps(settings).replace("${", "$${"))
    where = f"in the namespace {followed.namespace}" if followed.namespace else "in all namespaces"
    lines = [f"Watching {followed.resource} {where} of {endpoint}", *(f"Plugin plugin_{plugin} is loaded" for plugin in plugins)]
    if not data_dir:
        lines.append("DATA_DIR is not set: after a restart plugins are called again, with ADDED, for everything that is there")
    return Watch(config=load_text(text, secrets.values), log_level=level, lines=tuple(lines), warnings=tuple(warnings))


async def check_plugins(config: Config, clock: Clock) -> None:
    """Import each plugin in a process, as it will be, and let it go again. Raises CannotWatch: what is wrong with the first one
    that can't be loaded."""
    for handler in config.handlers:
        wrong = await validate(event_watcher.code(handler.name, handler.options), clock=clock)
        if wrong:
            raise CannotWatch(FATAL, f"plugin_{handler.options.plugin} can't be loaded: {wrong}")


# --- where settings come from ----------------------------------------------------------------------------------------------


class _Settings:
    """An empty value is none."""

    def __init__(self, ini: configparser.ConfigParser, environ: Mapping[str, str]) -> None:
        self._ini, self._environ = _section(ini, SECTION), environ

    def get(self, name: str, default: str = "") -> str:
        return self._environ.get(name.upper(), "").strip() or self._ini.get(name, "").strip() or default


class _Secrets:
    """Marks that stand for secrets in a text, as variables of an environment of their own."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def mark(self, secret: str) -> str:
        """Stands for the secret; "" for none."""
        if not secret:
            return ""
        name = f"_{uuid.uuid4().hex}"
        self.values[name] = secret
        return name

    def put_in(self, text: str) -> str:
        for name in self.values:
            text = text.replace(name, f"${{{name}}}")
        return text


def _read(file: Path | None) -> configparser.ConfigParser:
    """Never quotes a line of the file: it may hold a token."""
    parser = configparser.ConfigParser()
    if file is None:
        return parser
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE + 1)
        if len(text) > MAX_FILE:
            raise CannotWatch(NO_FILE, f"has more than {MAX_FILE} bytes", path=str(file))
        parser.read_string(text.decode("utf-8-sig"))
    except OSError as why:
        raise CannotWatch(NO_FILE, f"can't be read: {why.strerror}", path=str(file)) from None
    except UnicodeDecodeError:
        raise CannotWatch(NO_FILE, "is not UTF-8", path=str(file)) from None
    except configparser.Error as why:
        errors = getattr(why, "errors", None)
        line = errors[0][0] if errors else getattr(why, "lineno", None)
        where = f" (line {line})" if line else ""
        raise CannotWatch(NO_FILE, f"is no ini file: {type(why).__name__}{where}", path=str(file)) from None
    return parser


def _section(ini: configparser.ConfigParser, name: str) -> dict[str, str]:
    """`%%` stands for a percent sign, as it did; a lonely one is taken as it is."""
    if not ini.has_section(name):
        return {}
    found = {}
    for key, raw in ini.items(name, raw=True):
        try:
            found[key] = ini.get(name, key)
        except configparser.InterpolationError:
            found[key] = raw
    return found


def _strange(ini: configparser.ConfigParser) -> list[str]:
    warnings = [
        f"the section [{section}] is nobody's: there are [{SECTION}] and [plugin_<name>]"
        for section in ini.sections()
        if section != SECTION and not section.startswith("plugin_")
    ]
    for key in _section(ini, SECTION):
        if key not in SETTINGS and key not in ini.defaults():
            near = get_close_matches(key, SETTINGS, n=1)
            warnings.append(f"[{SECTION}] {key} is nobody's" + (f"; did you mean {near[0]}?" if near else ""))
    return warnings


def _in_pod(file: Path) -> str:
    try:
        with file.open(encoding="utf-8") as opened:
            return opened.read(MAX_FILE).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _listed(text: str) -> list[str]:
    return list(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))


# --- what each means -------------------------------------------------------------------------------------------------------


def _level(text: str) -> str:
    if text.upper() not in LEVELS:
        raise CannotWatch(FATAL, f"is one of {', '.join(LEVELS)}, not {text[:40]!r}", path="LOG_LEVEL")
    return text.upper()


def _plugins(text: str) -> list[str]:
    found = list(dict.fromkeys(name.removeprefix("plugin_") for name in _listed(text)))
    if not found:
        raise CannotWatch(FATAL, "names no plugin, such as simple", path="WATCHER_PLUGIN")
    for name in found:
        if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_]{0,60}[A-Za-z0-9])?", name, re.ASCII):
            raise CannotWatch(FATAL, f"{name[:40]!r} is no plugin's name: `dns` is the module plugin_dns", path="WATCHER_PLUGIN")
    return found


def _endpoint(text: str) -> str:
    """`host:port`; with `http://` before it where nobody can listen."""
    try:
        parts = urlsplit(text if "://" in text else f"https://{text}")
        fine = bool(parts.hostname) and parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError:
        fine = False
    if not fine or parts.username or parts.query or parts.fragment or re.search(r"[^!-~]", text):
        wanted = "wants hostname:port, such as master.example.com:8443"
        raise CannotWatch(NO_ENDPOINT, f"InvalidEndpoint: {wanted}", path="K8S_API_ENDPOINT")
    if parts.scheme == "http" and not _is_here(parts.hostname or ""):
        raise CannotWatch(NO_ENDPOINT, "InvalidEndpoint: the token would travel in plain http", path="K8S_API_ENDPOINT")
    return text.removeprefix("https://").rstrip("/")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _followed(said: _Settings, account: Path) -> _Followed:
    if path := said.get("k8s_api_path"):
        return _of_path(path)
    resource = _resource(said)
    if not _truth(said.get("k8s_namespaced", "True")):
        return _Followed(resource=resource)
    namespace = said.get("k8s_namespace") or _in_pod(account / "namespace")
    if not namespace:
        raise CannotWatch(
            NO_NAMESPACE,
            "InvalidNamespace: is not set, and this is no pod; K8S_NAMESPACED=False watches all namespaces",
            path="K8S_NAMESPACE",
        )
    _check_namespace(namespace, "K8S_NAMESPACE")
    return _Followed(resource=resource, namespace=namespace)


def _check_namespace(namespace: str, path: str) -> None:
    if not _NAMESPACE.fullmatch(namespace):
        raise CannotWatch(NO_NAMESPACE, f"InvalidNamespace: {namespace[:70]!r} is no namespace's name", path=path)


def _truth(text: str) -> bool:
    found = configparser.ConfigParser.BOOLEAN_STATES.get(text.lower())
    if found is None:
        raise CannotWatch(FATAL, f"is True or False, not {text[:40]!r}", path="K8S_NAMESPACED")
    return found


def _resource(said: _Settings) -> str:
    """`plural`, `plural/version` or `plural.group/version`."""
    resource = said.get("k8s_resource")
    if not resource:
        raise CannotWatch(NO_RESOURCE, "InvalidResource: is not set; it is a resource such as routes", path="K8S_RESOURCE")
    if not _RESOURCE.fullmatch(resource):
        raise CannotWatch(
            NO_RESOURCE, f"InvalidResource: {resource[:70]!r} names no resource, such as routes", path="K8S_RESOURCE"
        )
    group, version = said.get("k8s_api_group", GROUP).strip("/"), said.get("k8s_api_version")
    if "." in resource or "/" in resource or group == GROUP:
        return resource
    if group == "api":
        return f"{resource}/{version or 'v1'}"
    match = _GROUP.fullmatch(group)
    if match is None:
        raise CannotWatch(NO_RESOURCE, "InvalidResource: wants a group such as apis/route.openshift.io", path="K8S_API_GROUP")
    version = match["version"] or version
    return f"{resource}.{match['group']}" + (f"/{version}" if version else "")


def _of_path(text: str) -> _Followed:
    """A whole path, perhaps with the query that was sent."""
    path, _, query = text.partition("?")
    match = _PATH.fullmatch(path)
    resource = ""
    if match is not None:
        resource = match["plural"]
        if match["group"]:
            resource += f".{match['group']}/{match['version']}"
        elif match["core"]:
            resource += f"/{match['core']}"
    if match is None or not _RESOURCE.fullmatch(resource):
        wanted = "wants a path such as /apis/route.openshift.io/v1/namespaces/shop/routes"
        raise CannotWatch(NO_RESOURCE, f"InvalidResource: {wanted}", path="K8S_API_PATH")
    if match["namespace"]:
        _check_namespace(match["namespace"], "K8S_API_PATH")
    asked = parse_qs(query)
    return _Followed(
        resource=resource,
        namespace=match["namespace"] or "",
        label_selector=",".join(asked.get("labelSelector", ())),
        field_selector=",".join(asked.get("fieldSelector", ())),
    )


def _token(said: _Settings, account: Path) -> tuple[str, str]:
    """(the token, the file with it): one of them. A pod's is replaced while we run, and read again."""
    token = said.get("k8s_token")
    if any(not "\x21" <= one <= "\x7e" for one in token):
        raise CannotWatch(NO_TOKEN, "InvalidToken: has characters that no token has", path="K8S_TOKEN")
    if token:
        return token, ""
    file = account / "token"
    if not _in_pod(file):
        raise CannotWatch(NO_TOKEN, "InvalidToken: is not set, and this is no pod; `oc whoami -t` shows yours", path="K8S_TOKEN")
    return "", str(file)


def _ca(said: _Settings, environ: Mapping[str, str], account: Path) -> tuple[str, list[str]]:
    """The file, and what to say when there is none. `ENV_K8S_CA` is how the Event Watcher's own page calls it once."""
    name = environ.get("K8S_CA", "").strip() or environ.get("ENV_K8S_CA", "").strip() or said.get("k8s_ca")
    file = Path(name) if name else account / "ca.crt"
    if file.is_file():
        return str(file.absolute()), []
    missing = f"K8S_CA names {name}, and there is no such file" if name else "K8S_CA is not set, and this is no pod"
    return "", [f"InsecureError ({INSECURE}): {missing}: the API's certificate is verified with the system's CAs"]


def _handler(
    plugin: str, folders: list[str], section: Mapping[str, str], k8s: Mapping[str, str], secrets: _Secrets
) -> dict[str, Any]:
    return {
        "name": plugin,
        "use": "event_watcher",
        "on": [{"sources": [SOURCE], "verbs": ["ADDED", "MODIFIED", "DELETED"], "types": ["kubernetes.*"]}],
        "options": {
            "plugin": plugin,
            "folders": folders,
            "config": {key: secrets.mark(value) for key, value in section.items()},
            **{key: value for key, value in k8s.items() if value},
        },
        # What is there when a plugin is new is ADDED for it.
        "start": "earliest",
        "retry": RETRY,
        "timeout": TIMEOUT,
        # One after the other, in the order of the log, as it was.
        "concurrency": 1,
    }
