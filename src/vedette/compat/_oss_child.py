"""The inside of a process that runs one plugin of the OSS framework: what its code finds is what it found there.

Run by vedette/worker.py. In: `{"node_detail": {…}, "created": true, "idempotency_key": "…"}`, from handlers/oss.py; the plugin's
`notify` is called with it. Before the plugin is imported, here and in no other process: `oslo.config` is another name of
`oslo_config` (it was the only one until 2015), `cfg.CONF` is read from oss.conf, and the operator's folder is a part of
`oss_framework.plugins`, so nothing has to be installed.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import sys
import types
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec
import oslo_config
import oslo_config.cfg
import oslo_config.types

import oss_framework.plugins
from oss_framework.plugins.base import BasePlugin
from vedette.compat._oss_options import read
from vedette.errors import ConfigError

GROUP = "oss_framework.plugins"
"""Entry points whose names are `<dir>.<Class>` are plugins as well."""
SHIPPED_WITHOUT = frozenset({"base"})
"""Modules there that are no plugins."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What handlers/oss.py sends."""

    plugin: str
    """`<dir>.<Class>`"""
    conf: str = ""
    """oss.conf; none: every key has its default."""
    plugins_dir: str = ""
    """The operator's folder."""


def build(options: Options, needs: object) -> Plugin:
    """The plugin, made. Raises ConfigError: there is none of this name, or it is no plugin."""
    install_old_name()
    if options.conf:
        read(oslo_config.cfg.CONF, options.conf)
    keep_what_is_registered(oslo_config.cfg.CONF)
    return Plugin(find(options.plugin, options.plugins_dir)())


class Plugin:
    """See the module."""

    def __init__(self, plugin: Any) -> None:
        self._plugin = plugin

    def call(self, message: Mapping[str, Any]) -> None:
        """Returns when the plugin is done; raises what it raised."""
        # (A plugin that defines __slots__ doesn't get the key.)
        if hasattr(self._plugin, "__dict__"):
            self._plugin.idempotency_key = message["idempotency_key"]
        self._plugin.notify(message["node_detail"], message["created"])


def install_old_name() -> None:
    """`from oslo.config import cfg` gives what `from oslo_config import cfg` gives: the same `CONF`."""
    oslo = sys.modules.get("oslo")
    if oslo is None:
        oslo = types.ModuleType("oslo")
        oslo.__path__ = []
        sys.modules["oslo"] = oslo
    oslo.config = oslo_config  # type: ignore[attr-defined]
    sys.modules["oslo.config"] = oslo_config
    for name in ("cfg", "types"):
        sys.modules[f"oslo.config.{name}"] = getattr(oslo_config, name)


def keep_what_is_registered(conf: oslo_config.cfg.ConfigOpts) -> None:
    """A plugin may register a key of ours itself, such as `host` in `[rest]`; that was no error when nobody else had done it."""
    register = conf.register_opt

    def register_opt(*given: Any, **more: Any) -> bool:
        try:
            return bool(register(*given, **more))
        except oslo_config.cfg.DuplicateOptError:
            return False

    conf.register_opt = register_opt


def find(name: str, folder: str) -> type[Any]:
    """The class `<dir>.<Class>`: shipped, from the operator's folder, or an entry point. Raises ConfigError, and whatever the
    plugin's own code raises when it is imported."""
    module_name, _, class_name = name.rpartition(".")
    path = oss_framework.plugins.__path__
    if folder:
        if not Path(folder).is_dir():
            raise ConfigError(f"there is no such folder: {folder}", path="plugins_dir")
        if folder not in path:
            path.append(folder)
    entry = next(iter(importlib.metadata.entry_points(group=GROUP, name=name)), None)
    if entry is not None:
        found = entry.load()
    else:
        there = _names(path)
        if module_name.partition(".")[0] not in there:
            near = get_close_matches(module_name, there, n=1)
            meant = f"did you mean {near[0]}.{class_name}? There are" if near else "there are"
            raise ConfigError(f"no plugin {name}: no folder of this name; {meant}: {', '.join(there)}", path="enabled_plugins")
        module = importlib.import_module(f"{GROUP}.{module_name}")
        found = getattr(module, class_name, None)
        if found is None:
            classes = ", ".join(key for key, value in vars(module).items() if _is_plugin(value)) or "no class with notify"
            raise ConfigError(
                f"no plugin {name}: {module.__file__} has no {class_name}; it has: {classes}", path="enabled_plugins"
            )
    if not _is_plugin(found) or inspect.iscoroutinefunction(found.notify):
        wanted = "it has to be a class with notify(self, node_detail, created), which is no `async def`"
        raise ConfigError(f"{name} is no plugin: {wanted}", path="enabled_plugins")
    plugin: type[Any] = found
    return plugin


def _is_plugin(thing: Any) -> bool:
    return inspect.isclass(thing) and getattr(thing, "notify", BasePlugin.notify) is not BasePlugin.notify


def _names(path: Any) -> list[str]:
    """Folders and files that may be plugins."""
    found = {
        file.stem
        for folder in path
        for file in Path(folder).iterdir()
        if (file / "__init__.py").is_file() or (file.suffix == ".py" and file.is_file())
    }
    return sorted(name for name in found - SHIPPED_WITHOUT if name.isidentifier() and not name.startswith("_"))
