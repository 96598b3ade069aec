"""Two readers that share no code, over every recorded notification: after each one, all objects are the same.

No broker and no HTTP here (test_captures_rabbitmq.py has both): decode, the kinds, the fold and a store in memory.
"""

from __future__ import annotations

import random
from typing import Any

import corpus
import expectation
import pytest
from rig import Shown, compare, wanted

from vedette import plugins
from vedette.engine.ingest import Ingest
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.model.reading import OPENSTACK
from vedette.ports import EVERYTHING, Selection
from vedette.sources.openstack import decode
from vedette.store.memory import MemoryStore

ALL = Selection(scope=EVERYTHING)

Line = tuple[dict[str, Any], dict[str, Any]]


async def play(lines: list[Line]) -> int:
    """Offer the lines one by one to both; how many objects were compared."""
    store = MemoryStore(SystemClock())
    ingest = Ingest(store, plugins.kinds(), Telemetry(), {"one": ["*.exists"]})
    inventory = expectation.Inventory()
    compared = 0
    try:
        for number, (line, message) in enumerate(lines):
            await ingest.offer([decode(line["body"].encode(), "one")])
            inventory.feed(message)
            page = await store.objects(ALL, limit=10_000)
            assert page.after is None
            got = {(key.kind, key.id): Shown.read(version.admin_form(), version.tenant_form()) for key, version in page.items}
            for key, version in page.items:
                thing = inventory.things[key.kind, key.id]
                assert (version.shared, version.owner) == (thing.shared, thing.owner), (number, message["event_type"], key)
            compare(got, wanted(inventory), f"after {number}, {message['event_type']}")
            compared += len(got)
    finally:
        await store.close()
    return compared


@pytest.mark.parametrize("capture", corpus.CAPTURES)
async def test_after_every_notification_both_readers_say_the_same(capture: str) -> None:
    compared = await play(list(corpus.messages(capture)))
    print(f"\n{capture}: {compared} objects compared")
    assert compared > 100


@pytest.mark.parametrize("seed", range(2))
async def test_also_in_any_order_of_delivery(seed: int) -> None:
    """Late news, children before parents, the end before the beginning."""
    lines = [line for capture in corpus.CAPTURES for line in corpus.messages(capture)]
    random.Random(seed).shuffle(lines)
    assert await play(lines[:800]) > 100


def test_the_published_table_has_every_kind_with_its_fields() -> None:
    """What the second reader goes by is what the service serves by."""
    kinds = plugins.kinds()
    assert expectation.plurals() == {kind.kind: kind.plural for kind in kinds if kind.group == OPENSTACK}
    table = expectation.contract()
    for kind in kinds:
        assert table[kind.kind] == {name: expectation.Promise(field.type, field.admin) for name, field in kind.fields.items()}, (
            kind.kind
        )
