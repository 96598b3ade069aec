"""Words of others as parts of a path: ids come in notices, and in the parameters of actions."""

from __future__ import annotations

from urllib.parse import quote

from vedette.errors import NotFound


def segment(id_: str) -> str:
    """An id as one segment of a path. Raises NotFound for what can't be one: it mustn't lead elsewhere."""
    if id_ in ("", ".", ".."):
        raise NotFound(f"{id_!r} is no id")
    return quote(id_, safe="")
