"""Finds a plug by slot and file name: `kinds/port.py` is the kind `port`. Nothing is registered anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Literal

import msgspec

from vedette.errors import ConfigError
from vedette.ports import Action, Kind, Strategy

ENTRY_POINTS = "vedette.handlers"
"""The group in which an installed package names its handlers."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A handler's plug, and where it is. Nothing of it has been imported."""

    name: str
    kind: Literal["shipped", "folder", "entry_point"]
    """Only what is shipped runs in the service itself; the others in worker processes."""
    module: str
    """What `ports.WorkerCode.module` takes: a dotted name (an entry point's, perhaps with `:attribute`), or a path."""
    path: str
    """For people: the file, or the package that has the entry point."""


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


def strategies() -> dict[str, Strategy]:
    """Every strategy, by name."""
    return {name: importlib.import_module(f"vedette.strategies.{name}").STRATEGY for name in names("strategies")}


def scoring_engines() -> Sequence[Mapping[str, str]]:
    """Name, description and metainfo of what strategies score data with."""
    engines = importlib.import_module("vedette.strategies._scoring").SCORING_ENGINES
    return [{"name": one.name, "description": one.description, "metainfo": one.metainfo} for one in engines]


def actions() -> dict[str, Action]:
    """Every kind of action, by name."""
    return {name: importlib.import_module(f"vedette.actions.{name}").ACTION for name in names("actions")}


def handlers(folder: str = "", installed: Sequence[EntryPoint] | None = None) -> Sequence[Found]:
    """Every handler that can be used, by name: shipped, in the operator's folder, and in installed packages (`installed`: in
    these). Raises ConfigError when two have one name, or the folder is none."""
    found = [
        Found(name=name, kind="shipped", module=f"vedette.handlers.{name}", path=f"vedette/handlers/{name}.py")
        for name in names("handlers")
    ]
    found += _in_folder(folder) if folder else []
    for point in entry_points(group=ENTRY_POINTS) if installed is None else installed:
        owner = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        found.append(Found(name=point.name, kind="entry_point", module=point.value, path=f"{owner} ({point.value})"))
    found.sort(key=lambda one: one.name)
    for one, other in pairwise(found):
        if one.name == other.name:
            raise ConfigError(f"two handlers are called {one.name!r}: {one.path} and {other.path}; rename one of them")
    return found


def find_handler(name: str, folder: str = "", installed: Sequence[EntryPoint] | None = None) -> Found:
    """The handler that `use: name` means. Raises ConfigError, with names that are near."""
    there = {one.name: one for one in handlers(folder, installed)}
    if name not in there:
        near = get_close_matches(name, there, n=3)
        meant = f"did you mean {' or '.join(map(repr, near))}? There are" if near else "there are"
        raise ConfigError(f"no handler is called {name!r}; {meant}: {', '.join(there) or 'none'}")
    return there[name]


def _in_folder(folder: str) -> list[Found]:
    """`greet.py` and `greet/__init__.py`; what begins with an underscore is shared by others."""
    place = Path(folder)
    try:
        inside = sorted(place.iterdir())
    except OSError as why:
        raise ConfigError(f"can't be read as a folder: {why.strerror}", path="plugins.folder") from None
    files = [one for one in inside if one.suffix == ".py" or (one / "__init__.py").is_file()]
    return [
        Found(name=one.stem, kind="folder", module=str(one.absolute()), path=str(one))
        for one in files
        if one.stem.isidentifier() and not one.name.startswith("_")
    ]
