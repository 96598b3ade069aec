"""Folds notices as a store does, for tests: no store, no source."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from vedette.model.change import Object
from vedette.model.fold import fold
from vedette.model.notice import Notice
from vedette.model.reading import Key, Reading
from vedette.plugins import kinds

KINDS = {kind.kind: kind for kind in kinds()}


def readings(notice: Notice) -> list[Reading]:
    """What all kinds that claim its event type read in it."""
    return [
        reading
        for kind in KINDS.values()
        if any(fnmatchcase(notice.event_type, pattern) for pattern in kind.events)
        for reading in kind.read(notice)
    ]


class Inventory:
    """The fold of what it was told."""

    def __init__(self, notices: Iterable[Notice] = ()) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.changes: list[tuple[str, str, str, str]] = []
        """(event type, kind, id, verb)"""
        self.revision = 0
        self.tell(*notices)

    def tell(self, *notices: Notice) -> None:
        for notice in notices:
            self.revision += 1
            for reading in readings(notice):
                key = Key(notice.source, reading.group, reading.kind, reading.id)
                after, verb = fold(self.objects.get((reading.kind, reading.id)), reading, key, self.revision)
                if after is not None:
                    self.objects[reading.kind, reading.id] = after
                if verb is not None:
                    self.changes.append((notice.event_type, reading.kind, reading.id, verb))

    def live(self) -> dict[tuple[str, str], Object]:
        return {at: state for at, state in self.objects.items() if not state.deleted}

    def fields(self, kind: str, id_: str) -> dict[str, Any]:
        return self.objects[kind, id_].fields

    def admin(self, kind: str, id_: str) -> dict[str, Any]:
        return self.objects[kind, id_].admin
