"""The inside of a process that runs one plugin of the OpenShift Event Watcher: `plugin_<name>` and its `handle_event`.

Run by vedette/worker.py. In: `{"event": {"type": …, "object": {…}}, "old": {…} | null}`, from handlers/event_watcher.py. The
plugin is called in the form that it has, `handle_event(event)` or `handle_event(watcher, event, config)`; one that has a
parameter `old` is given the object as it was before. Out: `{"message": …, "level": …}` of what it gave.

It is found in the operator's folders, else where Python finds modules (PYTHONPATH, installed packages), else among the shipped
ones (event_watcher_plugins/). The token, and what the plugin's settings call a password, appears in no message, no error
and no log record of it.
"""

from __future__ import annotations

import configparser
import importlib
import importlib.util
import inspect
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from vedette.errors import ConfigError, TryLater
from vedette.kit.secret import MASK, Secret

SHIPPED = Path(__file__).parent / "event_watcher_plugins"
LEVELS = {"DEBUG": "DEBUG", "INFO": "INFO", "WARNING": "WARNING", "WARN": "WARNING", "ERROR": "ERROR", "CRITICAL": "CRITICAL"}
LEVELS |= {"FATAL": "CRITICAL"}
LONGEST = 16_384
"""Characters of a plugin's message that are passed on."""
SHORTEST_SECRET = 4
"""Characters; what is shorter would be found everywhere."""
MAX_TOKEN = 1024 * 1024
"""Bytes of a token's file."""
_SECRET_KEY = re.compile(r"password|passwd|passphrase|secret|token", re.IGNORECASE)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What handlers/event_watcher.py sends."""

    plugin: str
    folders: tuple[str, ...] = ()
    config: dict[str, Secret] = {}
    k8s_endpoint: str = ""
    k8s_namespace: str = ""
    k8s_token: Secret = Secret()
    k8s_token_file: str = ""
    k8s_ca: str = ""


def build(options: Options, needs: object) -> Plugin:
    """The plugin, imported. Raises ConfigError: there is none of this name, or it is no plugin."""
    plugin = Plugin(find(options.plugin, options.folders), options)
    plugin.code_folder = str(Path(sys.modules[f"plugin_{options.plugin}"].__file__ or ".").parent)
    for handler in logging.getLogger().handlers:
        handler.addFilter(plugin.mask_record)
    return plugin


class WatcherConfig:
    """`watcher.config`: `k8s_endpoint`, `k8s_namespace`, `k8s_token`, `k8s_ca`, as attributes and by name."""

    names = ("k8s_endpoint", "k8s_namespace", "k8s_token", "k8s_ca")

    def __init__(self, options: Options) -> None:
        self.k8s_endpoint = options.k8s_endpoint
        self.k8s_namespace = options.k8s_namespace
        self.k8s_ca = options.k8s_ca
        self._token, self._token_file = options.k8s_token, options.k8s_token_file

    @property
    def k8s_token(self) -> str:
        """A file is read each time: it is replaced while we run. Raises TryLater."""
        if self._token_file:
            try:
                with Path(self._token_file).open("rb") as file:
                    self._token = Secret(file.read(MAX_TOKEN).decode().strip())
            except (OSError, UnicodeDecodeError) as why:
                reason = getattr(why, "strerror", None) or "it is no text"
                raise TryLater(f"the token in {self._token_file} can't be read: {reason}") from None
        return self._token.reveal()

    @property
    def token_seen(self) -> str:
        """As it was last asked for."""
        return self._token.reveal()

    def __getitem__(self, name: str) -> str:
        if name not in self.names:
            raise KeyError(name)
        return str(getattr(self, name))

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name) if name in self.names else default


class Watcher:
    """What a plugin is given as `watcher`."""

    def __init__(self, options: Options) -> None:
        self.config = WatcherConfig(options)
        self.logger = logging.getLogger("event_watcher")
        # Everything is sent: what is below the service's own level is left out there.
        self.logger.setLevel(logging.DEBUG)


class Plugin:
    """See the module."""

    def __init__(self, handle_event: Callable[..., Any], options: Options) -> None:
        """Raises ConfigError: it can't be called in any of the forms."""
        self._handle = handle_event
        self.code_folder = ""
        """The folder of its file: what it raises is told with a line in it."""
        self._three = takes_three(handle_event, options.plugin)
        self._old = "old" in inspect.signature(handle_event).parameters
        self._watcher = Watcher(options)
        self._config = section(f"plugin_{options.plugin}", options.config)
        self._secrets = [value.reveal() for key, value in options.config.items() if _SECRET_KEY.search(key)]

    def call(self, message: Mapping[str, Any]) -> dict[str, str]:
        """What the plugin says; raises what it raises."""
        more = {"old": message["old"]} if self._old else {}
        event = message["event"]
        try:
            gave = self._handle(self._watcher, event, self._config, **more) if self._three else self._handle(event, **more)
        except Exception as why:
            # It goes to the log, and may be kept in a dead letter.
            why.args = tuple(self.mask(one) if isinstance(one, str) else one for one in why.args)
            if self.mask(str(why)) == str(why):
                raise
            raise RuntimeError(self.mask(f"{type(why).__name__}: {why}")) from None
        text, level = said(gave)
        return {"message": self.mask(text)[:LONGEST].encode(errors="replace").decode(), "level": level}

    def mask(self, text: str) -> str:
        """The text without anything that is secret here."""
        for secret in (self._watcher.config.token_seen, *self._secrets):
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, MASK)
        return text

    def mask_record(self, record: logging.LogRecord) -> bool:
        """A logging filter."""
        text = record.getMessage()
        masked = self.mask(text)
        if masked != text:
            record.msg, record.args = masked, None
        if record.exc_info and record.exc_info[1] is not None:
            record.exc_text = self.mask("".join(traceback.format_exception(record.exc_info[1])).rstrip())
        return True


def takes_three(handle_event: Callable[..., Any], name: str) -> bool:
    """Whether it is `handle_event(watcher, event, config)`; else it is `handle_event(event)`. Raises ConfigError."""
    parameters = list(inspect.signature(handle_event).parameters.values())
    places = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = [one for one in places if one.default is one.empty]
    any_number = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    alone = any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    if not alone and len(places) >= 3 and len(required) <= 3 and places[0].name != "event":
        return True
    if not alone and len(required) <= 1 and (places or any_number):
        return False
    wanted = "handle_event(event) or handle_event(watcher, event, config, *args, **kwargs)"
    raise ConfigError(f"plugin_{name} has to have {wanted}, not handle_event{inspect.signature(handle_event)}")


def said(gave: Any) -> tuple[str, str]:
    """(message, level) of what `handle_event` gave. What is odd in it is no reason to do the work again."""
    text, level = gave if isinstance(gave, tuple | list) and len(gave) == 2 else (gave, "INFO")
    name = logging.getLevelName(level) if isinstance(level, int) else str(level)
    return "" if text is None else str(text), LEVELS.get(name.upper(), "INFO")


def section(name: str, config: Mapping[str, Secret]) -> configparser.SectionProxy:
    """As configparser gives a section: `config["key"]`, `config.get("key")`, `config.getboolean("key")`."""
    parser = configparser.ConfigParser(interpolation=None)
    parser.read_dict({name: {key: value.reveal() for key, value in config.items()}})
    return parser[name]


def find(name: str, folders: Iterable[str]) -> Callable[..., Any]:
    """`handle_event` of `plugin_<name>`. Raises ConfigError, and whatever the plugin's own code raises when it is imported."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"there is no such folder: {folder}", path="plugins_dir")
    sys.path[:0] = [folder for folder in folders if folder not in sys.path]
    if str(SHIPPED) not in sys.path:
        sys.path.append(str(SHIPPED))
    module_name = f"plugin_{name}"
    if importlib.util.find_spec(module_name) is None:
        there = _names([*folders, str(SHIPPED)])
        near = get_close_matches(name, there, n=1)
        meant = f"did you mean {near[0]}? There are" if near else "there are"
        raise ConfigError(f"no module {module_name} is found; {meant}: {', '.join(there)}", path="WATCHER_PLUGIN")
    module = importlib.import_module(module_name)
    handle_event = getattr(module, "handle_event", None)
    if not callable(handle_event) or inspect.iscoroutinefunction(handle_event):
        raise ConfigError(f"{module_name} is no plugin: it has to have a function handle_event(event), which is no `async def`")
    return handle_event  # type: ignore[no-any-return]


def _names(folders: Iterable[str]) -> list[str]:
    found = {
        one.stem.removeprefix("plugin_")
        for folder in folders
        for one in Path(folder).glob("plugin_*")
        if one.suffix == ".py" or (one / "__init__.py").is_file()
    }
    return sorted(found)
