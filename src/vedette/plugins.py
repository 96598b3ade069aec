"""Finds a plug by slot and file name: `kinds/port.py` is the kind `port`. Nothing is registered anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from vedette.errors import ConfigError
from vedette.ports import Kind


def names(slot: str) -> list[str]:
    """File names of a slot (`kinds`, `sources`), sorted, without importing any of them."""
    package = importlib.import_module(f"vedette.{slot}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def load(slot: str, name: str) -> ModuleType:
    """One plug's module. Raises ConfigError with the names there are."""
    there = names(slot)
    if name not in there:
        raise ConfigError(f"no {slot.rstrip('s')} is called {name!r}; there are: {', '.join(there)}")
    return importlib.import_module(f"vedette.{slot}.{name}")


def kinds() -> tuple[Kind, ...]:
    """Every kind, by file name."""
    return tuple(importlib.import_module(f"vedette.kinds.{name}").KIND for name in names("kinds"))
