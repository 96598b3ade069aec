"""Reading one JSON object: the declared fields, typed, and nothing else. The kinds are next.

What comes in are bytes of a payload, or an item of an API's answer; what goes out is a dict of exactly those declared fields
that it speaks of. Undeclared keys of a payload are skipped by the parser without becoming Python objects: that is what makes
reading cheap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import NotUnderstood
from vedette.kit.clock import parse_us, rfc3339
from vedette.ports import Field, FieldType

TYPES: dict[FieldType, Any] = {
    "string": str | None,
    "integer": int | None,
    "number": int | float | None,
    "boolean": bool | None,
    "array": list[Any] | None,
    "object": dict[str, Any] | None,
}
"""Declared type to Python's. OpenStack sends null for nearly everything that has no value."""

Verb = Literal["create", "update", "delete"]
"""What a reading does to its object."""


class Shape:
    """A JSON object with an id and declared fields: `row` splits it into the id, the public and the admin-only fields."""

    def __init__(self, name: str, fields: Mapping[str, Field], *, ids: Sequence[str] = ("id",)) -> None:
        """`ids`: the keys under which the id may stand, tried in turn."""
        self.public = tuple(name for name, field in fields.items() if not field.admin)
        self.admin = tuple(name for name, field in fields.items() if field.admin)
        self._types = {name: TYPES[field.type] for name, field in fields.items()}
        self._ids = tuple(ids)
        keys = (*self._ids, *self.public, *self.admin)
        self.struct: Any = msgspec.defstruct(
            name,
            [(f"f{at}", (str if at < len(self._ids) else self._types[key]) | UnsetType, UNSET) for at, key in enumerate(keys)],
            rename={f"f{at}": key for at, key in enumerate(keys)},
            # Lives for one read and points at no struct: nothing that a cycle could go through.
            gc=False,
        )
        self._public_at = len(self._ids)
        self._admin_at = self._public_at + len(self.public)

    def split(self, item: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """A decoded `struct` as (id or "", public fields, admin fields): only what the object spoke of."""
        values = msgspec.structs.astuple(item)
        public = {
            name: value
            for name, value in zip(self.public, values[self._public_at : self._admin_at], strict=True)
            if value is not UNSET
        }
        admin = {name: value for name, value in zip(self.admin, values[self._admin_at :], strict=True) if value is not UNSET}
        for id_ in values[: self._public_at]:
            if id_ is not UNSET and id_:
                return id_, public, admin
        return "", public, admin

    def of(self, item: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The same of an object that is decoded already: an API's."""
        try:
            return self.split(msgspec.convert(item, self.struct))
        except msgspec.ValidationError:
            return self.forgive(item)

    def forgive(self, item: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        """The same of an object whose types are not all as declared: the odd fields are left out, the others still count.

        One field that a release sends in another type must not make every change of the kind unreadable.
        """
        fields: dict[str, Any] = {}
        for name, type_ in self._types.items():
            if name in item:
                try:
                    fields[name] = msgspec.convert(item[name], type_)
                except msgspec.ValidationError:
                    continue
        id_ = next((item[key] for key in self._ids if isinstance(item.get(key), str) and item[key]), "")
        return (
            id_,
            {name: fields[name] for name in self.public if name in fields},
            {name: fields[name] for name in self.admin if name in fields},
        )


def decoded(decode: Callable[[Any], Any], payload: msgspec.Raw, event_type: str) -> Any:
    """`decode(payload)`. Raises NotUnderstood with the reason and the path."""
    try:
        return decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise NotUnderstood(f"{event_type}: {why}") from why


_untyped = msgspec.json.Decoder(dict[str, Any])


def untyped(payload: msgspec.Raw, event_type: str) -> dict[str, Any]:
    """The whole payload as a dict, for what is too rare or too odd to be typed. Raises NotUnderstood."""
    said: dict[str, Any] = decoded(_untyped.decode, payload, event_type)
    return said


@functools.lru_cache(maxsize=8192)
def moment(text: Any) -> int | None:
    """`kit.clock.parse_us` of a timestamp; the same creation time comes with every notice of an object, hence the cache."""
    return parse_us(text) if isinstance(text, str) else None


@functools.lru_cache(maxsize=8192)
def second(text: Any) -> str | None:
    """A timestamp of any form as `…Z` with whole seconds, so that two services' forms of one moment are equal; None for none.

    Cut, not rounded: that is what Nova and Cinder do when they store it.
    """
    us = moment(text)
    return None if us is None else rfc3339(us)
