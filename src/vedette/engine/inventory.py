"""The present state of objects, as handlers ask for it: what the store holds, in the form that admins are served."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from vedette.errors import NotFound
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import EVERYTHING, JsonObject, Selection, Store

PAGE = 500
"""Objects decoded before somebody else gets a turn."""


class StoredObjects:
    """See ports.Inventory."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, key: Key) -> JsonObject | None:
        try:
            version = await self._store.get(key, EVERYTHING)
        except NotFound:
            return None
        found: JsonObject = msgspec.json.decode(version.admin_form())
        return found

    async def last(self, key: Key) -> JsonObject | None:
        (held,) = await self._store.held([key])
        if held is None:
            return None
        if held.fields.get("metadata") and "kind" in held.fields:  # as another Kubernetes API serves it
            return held.fields
        status = {"id": key.id, **held.fields, **held.admin}
        return {"kind": key.kind, "metadata": {"namespace": held.project, "uid": held.uid}, "status": status}

    async def all(self, source: str, kind: str) -> Mapping[str, JsonObject]:
        selection = Selection(EVERYTHING, source=source, group=OPENSTACK, kind=kind)
        found: dict[str, JsonObject] = {}
        after: tuple[str, str] | None = None
        while True:
            page = await self._store.objects(selection, after=after, limit=PAGE)
            found |= {key.id: msgspec.json.decode(version.admin_form()) for key, version in page.items}
            after = page.after
            if after is None:
                return found
