"""docs/howto/configuration.md, from the settings' own structs. `python tests/docs/config_page.py` writes it; a test compares."""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from vedette import config, plugins
from vedette.kit.secret import Secret
from vedette.kit.units import UNIT, show_duration, show_size

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "configuration.md"

HEAD = """# Configuration

Written by `python tests/docs/config_page.py` from `src/vedette/config.py` and the sources' and webhooks' own `Options`; a test
keeps it so. The options of each handler: [handlers.md](../handlers.md).

One YAML file: `vedette serve --config FILE`, `/etc/vedette/vedette.yaml` without. `vedette check-config FILE` checks it
without starting and shows all of it, defaults included, with its secrets masked. Examples that a test reads:
[examples/](../../examples/).

- **What is wrong is named** by its dotted path and its line. A key that isn't in the tables below is an error.
- **`${NAME}`** in a value is the environment's variable of that name; one that isn't set is an error. It is put in after the YAML
  was parsed: what a variable holds is never read as YAML. `$${` is a plain `${`.
- **Durations** are `7d`, `60s`, `1h30m`, `500ms`, or a plain number of seconds. **Sizes** are `256KiB`, `20GiB`, `1MB`, or a
  plain number of bytes.
- **A list** with one value may be that value.
- **Paths** that are relative are looked for beside the configuration file.
- Anchors, aliases and merge keys (`<<`) work. Tags (`!!…`) don't.

"""

KINDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true, false",
    Secret: "secret text",
    config.Address: "`host:port`",
    Any: "",
}
UNITS = {"seconds": "duration", "bytes": "size", "path": "path"}


def page() -> str:
    """The whole page."""
    parts = [HEAD + section("The file", config.Config)]
    parts += [section(path, struct) for path, struct in structs(config.Config, "")]
    for slot, what, common in (
        ("sources", "sources[] of type", config.SourceConfig),
        ("webhooks", "hooks[] of format", config.HookConfig),
    ):
        for name in plugins.names(slot):
            options = plugins.load(slot, name).Options
            title = f"{what} {name}"
            about = (inspect.getdoc(plugins.load(slot, name)) or "").split("\n\n")[0].replace("\n", " ")
            parts.append(section(title, options, about=about, leave_out={one.name for one in msgspec.structs.fields(common)}))
            parts += [section(f"{title}: {path}", struct) for path, struct in structs(options, "")]
    return "\n".join(parts)


def section(title: str, struct: type[Any], *, about: str = "", leave_out: set[str] | None = None) -> str:
    """One struct: its sentence and its keys."""
    rows = [
        f"| `{key}` | {takes} | {default} | {says} |"
        for key, takes, default, says in keys(struct)
        if key not in (leave_out or set()) | {"options"}
    ]
    about = about or (inspect.getdoc(struct) or "").replace("\n", " ")
    return "\n".join((f"## {title}\n", f"{about}\n", "| key | takes | default | |\n|---|---|---|---|", *rows)) + "\n"


def keys(struct: type[Any]) -> list[tuple[str, str, str, str]]:
    """(key, what it takes, default, sentence) of each field."""
    hints = get_type_hints(struct, include_extras=True)
    said = sentences(struct)
    rows = []
    for field in msgspec.structs.fields(struct):
        key, hint = field.name, hints[field.name]
        if key.endswith("_s") and bare(hint) in (int, float):
            # Its unit is in its name in the code, and beside the number in the file.
            key, hint = key[:-2], Annotated[float, msgspec.Meta(extra={UNIT: "seconds"})]
        # (What is empty and can be filled, a dict for one, is made anew each time.)
        value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        default = "**needed**" if field.required else shown(value, hint)
        rows.append((key, takes(hint), default, said.get(field.name, "")))
    return rows


def structs(struct: type[Any], path: str) -> list[tuple[str, type[Any]]]:
    """The structs inside a struct, with their dotted paths, in the order of the file."""
    found = []
    for name, hint in get_type_hints(struct, include_extras=True).items():
        inner, suffix = bare(hint), ""
        if get_origin(inner) is tuple:
            inner, suffix = bare(get_args(inner)[0]), "[]"
        if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and inner is not config.Address:
            there = f"{path}.{name}{suffix}".lstrip(".")
            found += [(there, inner), *structs(inner, there)]
    return found


def takes(hint: Any) -> str:
    unit = unit_of(hint)
    inner = bare(hint)
    if unit:
        return UNITS[unit]
    if get_origin(inner) is Literal:
        return ", ".join(f"`{one}`" for one in get_args(inner))
    if get_origin(inner) is tuple:
        return f"list of {takes(get_args(inner)[0])}"
    if get_origin(inner) is dict:
        return f"keys of your own, each {takes(get_args(inner)[1])}"
    if isinstance(inner, type) and issubclass(inner, msgspec.Struct) and inner is not config.Address:
        return "keys, see below"
    return KINDS[inner]


def shown(default: Any, hint: Any) -> str:
    unit = unit_of(hint)
    if default is None or (isinstance(default, msgspec.Struct | Secret) and not isinstance(default, config.Address)):
        return ""
    if unit == "seconds":
        return f"`{show_duration(default)}`"
    if unit == "bytes":
        return f"`{show_size(default)}`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if isinstance(default, dict):
        return ", ".join(f"`{name}: {one}`" for name, one in default.items())
    if isinstance(default, tuple):
        return ", ".join(f"`{one}`" for one in default)
    return f"`{default}`" if default != "" else ""


def bare(hint: Any) -> Any:
    """The type without its unit and without `| None`."""
    if get_origin(hint) is Annotated:
        return bare(hint.__origin__)
    if get_origin(hint) in (Union, types.UnionType):
        return bare(next(one for one in get_args(hint) if one is not types.NoneType))
    return hint


def unit_of(hint: Any) -> str:
    if get_origin(hint) is not Annotated:
        return ""
    return next((str(one.extra[UNIT]) for one in hint.__metadata__ if isinstance(one, msgspec.Meta) and one.extra), "")


def sentences(struct: type[Any]) -> dict[str, str]:
    """The text under each field, on one line."""
    body = ast.parse(textwrap.dedent(inspect.getsource(struct))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    for field, after in zip(body.body, [*body.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            found[field.target.id] = " ".join(after.value.value.split()).replace("|", "\\|")
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
