"""Objects as they stand, and the changes that watchers follow. Made by fold.py, kept by a store, sent by engine/watch.py."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from vedette.model.reading import Key

Verb = Literal["ADDED", "MODIFIED", "DELETED"]


class Object(msgspec.Struct, kw_only=True):
    """The present state of one object, or its tombstone. Treated as immutable: fold makes a new one."""

    key: Key
    uid: str
    created: int
    project: str
    """"" when unknown or none."""
    shared: bool
    owner: str
    fields: dict[str, Any]
    admin: dict[str, Any]
    as_of: int
    version: int | None
    deleted: bool
    revision: int
    """Revision of its last change."""
    whole: bool = False
    """`fields` is a whole Kubernetes object of another API server (`Reading.whole`), not what stands under `status`."""


class Version(msgspec.Struct, frozen=True, gc=False):
    """One state of an object as it is served: the bytes, and who may see them.

    `body` is the whole Kubernetes object for admins; its admin-only fields come last, so `body[:cut] + b"}}"` is what
    tenants get: one encoding, two forms. An object of another API server has one form, and ends with its metadata.
    """

    revision: int
    body: bytes
    cut: int
    project: str
    shared: bool
    owner: str

    def admin_form(self) -> bytes:
        return self.body

    def tenant_form(self) -> bytes:
        return self.body[: self.cut] + b"}}"


class Change(msgspec.Struct, frozen=True, gc=False):
    """What one entry did to one object. `now` of a DELETED is the last content with the deletion's own revision."""

    revision: int
    key: Key
    verb: Verb
    now: Version
    before: Version | None
    """The state that this change replaced; None for ADDED."""
