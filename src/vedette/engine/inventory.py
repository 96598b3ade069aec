"""The present state of objects, as handlers ask for it: what the store holds, in the form that admins are served."""

from __future__ import annotations

import msgspec

from vedette.errors import NotFound
from vedette.model.reading import Key
from vedette.ports import EVERYTHING, JsonObject, Store


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
