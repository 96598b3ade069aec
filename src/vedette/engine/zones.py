"""In which availability zone a host is, as the inventory has it now: for the applier's limit by zone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from vedette.model.reading import OPENSTACK
from vedette.ports import EVERYTHING, Appended, Selection, Store

KIND = "ComputeService"


class _Status(msgspec.Struct, gc=False):
    host: str | None = None
    binary: str | None = None
    zone: str | None = None


class _Service(msgspec.Struct, gc=False):
    status: _Status


_decode = msgspec.json.Decoder(_Service).decode


class Zones:
    """Host → zone, of one source. `load` first."""

    def __init__(self, store: Store, source: str) -> None:
        self._store = store
        self._source = source
        self._zones: dict[str, str] = {}

    async def load(self) -> None:
        """What is known; from then on what is told."""
        self._store.follow(self._appended)
        after: tuple[str, str] | None = None
        while True:
            selection = Selection(EVERYTHING, group=OPENSTACK, kind=KIND, source=self._source)
            page = await self._store.objects(selection, after=after, limit=1000)
            for _, version in page.items:
                self._take(version.body)
            after = page.after
            if after is None:
                return

    def of(self, host: str) -> str:
        """Its zone, by the name of its nova-compute's host; "" where that is unknown."""
        return self._zones.get(host, "")

    def _appended(self, appended: Sequence[Appended]) -> None:
        for one in appended:
            for change in one.changes:
                if change.key.kind == KIND and change.key.source == self._source and change.verb != "DELETED":
                    self._take(change.now.body)

    def _take(self, body: bytes) -> None:
        found = _decode(body).status
        if found.binary == "nova-compute" and found.host and found.zone:
            self._zones[found.host] = found.zone
