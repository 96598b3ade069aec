"""Objects as rows of a Table, or reduced to their metadata: what `Accept: …;as=Table` and `as=PartialObjectMetadata` ask for.

In come the bytes of an object in the form that the caller may see; a cell whose field is not in that form is `<none>`, so columns
of admin-only fields need no rule of their own. Routes put the rows into a list or an event.
https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from vedette.ports import Kind

Include = Literal["None", "Metadata", "Object"]
"""`?includeObject=`: what each row carries beside its cells. kubectl asks for Object to sort, and needs Metadata for `-A`."""

NONE = "<none>"
"""A cell with nothing in it: absent, null, "" or an empty list. As kubectl prints it, so a line splits into as many words."""
LONGEST_CELL = 1024
"""Characters; a cell is for reading."""


def columns(kind: Kind) -> list[dict[str, Any]]:
    """`columnDefinitions`: Name, the kind's own, Age."""
    name = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": f"The {kind.singular}'s id, as it is written in a path.",
        "priority": 0,
    }
    # kubectl prints the cell as it comes: the age is counted here, for built-in kinds (string) as for custom ones (date).
    age = {"name": "Age", "type": "date", "format": "", "description": "How long ago it was created.", "priority": 0}
    own = [
        {
            "name": column.name,
            "type": column.type,
            "format": "",
            "description": column.doc or f"status.{'.'.join(key for key in column.path if key != '*')}",
            "priority": column.priority,
        }
        for column in kind.columns
    ]
    return [name, *own, age]


def row(kind: Kind, body: bytes, include: str = "Metadata", *, now_us: int | None = None) -> dict[str, Any]:
    """One row. `body` is the object's JSON, `include` an `Include`, `now_us` (default: the wall clock) what ages are counted to.

    The row holds msgspec.Raw: encode it with msgspec.
    """
    served = _served.decode(body)
    metadata = _metadata.decode(served.metadata)
    cells: list[Any] = [metadata.name]
    cells += [_cell(served.status, column.path) for column in kind.columns]
    cells.append(age(metadata.creationTimestamp, time.time_ns() // 1000 if now_us is None else now_us))
    if include == "Object":
        return {"cells": cells, "object": msgspec.Raw(body)}
    if include == "None":
        return {"cells": cells, "object": None}
    return {"cells": cells, "object": {"kind": "PartialObjectMetadata", "apiVersion": META, "metadata": served.metadata}}


META = "meta.k8s.io/v1"


def table(
    kind: Kind, rows: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any], *, definitions: bool = True
) -> dict[str, Any]:
    """A Table of `row`s. `metadata` is a list's (resourceVersion, continue).

    Without `definitions` the columns are left out: what a real server does from the second event of a watch on.
    """
    return {
        "kind": "Table",
        "apiVersion": META,
        "metadata": metadata,
        "columnDefinitions": columns(kind) if definitions else None,
        "rows": rows,
    }


def partial(body: bytes) -> bytes:
    """The object as PartialObjectMetadata: its metadata, as it stands."""
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":%b}' % bytes(_only.decode(body).metadata)


def age(created: str | None, now_us: int) -> str:
    """How long ago, in two or three figures: `5s`, `3m20s`, `7h5m`, `2d3h`, `41d`, `2y10d`, as kubectl has it."""
    if not created:
        return "<unknown>"
    try:
        seconds = now_us // 1_000_000 - int(datetime.fromisoformat(created).timestamp())
    except ValueError:
        return "<invalid>"
    if seconds < -1:
        return "<invalid>"  # the clocks differ
    seconds = max(seconds, 0)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if days < 2 * 365:
        return f"{days}d"
    if days < 8 * 365:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(more: int, more_unit: str, less: int, less_unit: str) -> str:
    return f"{more}{more_unit}{less}{less_unit}" if less else f"{more}{more_unit}"


def _cell(status: Any, path: tuple[str, ...]) -> Any:
    """What `path` leads to: a number or boolean as it is, everything else as text, several joined by commas."""
    found = [value for value in _walk(status, path) if value is not None and value != "" and value != [] and value != {}]
    if not found:
        return NONE
    if len(found) == 1 and isinstance(found[0], bool | int | float):
        return found[0]
    text = ",".join(value if isinstance(value, str) else msgspec.json.encode(value).decode() for value in found)
    return text if len(text) <= LONGEST_CELL else text[: LONGEST_CELL - 1] + "…"


def _walk(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """Every value at the end of the path; `*` are all elements of a list, or all values of an object."""
    for at, key in enumerate(path):
        if key == "*":
            elements = value if isinstance(value, list) else value.values() if isinstance(value, dict) else ()
            for element in elements:
                yield from _walk(element, path[at + 1 :])
            return
        if not isinstance(value, dict):
            return
        value = value.get(key)
    yield value


class _Only(msgspec.Struct):
    metadata: msgspec.Raw


class _Served(msgspec.Struct):
    metadata: msgspec.Raw
    status: Any = None
    """An object, of ours; another API server's may be anything."""


class _Metadata(msgspec.Struct):
    name: str = ""
    creationTimestamp: str | None = None


_only = msgspec.json.Decoder(_Only)
_served = msgspec.json.Decoder(_Served)
_metadata = msgspec.json.Decoder(_Metadata)
