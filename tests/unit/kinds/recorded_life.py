"""The recording api-compute, told and listed: what the tests of the kinds of Nova, Cinder, Glance, Heat and Keystone share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import corpus
from hypothesis import strategies as st
from kinds_fold import KINDS, Inventory
from recorded_cloud import RecordedCloud, answers, end_of
from test_kinds_garbage import VALUES

from vedette.errors import NotFound
from vedette.model.fold import fold
from vedette.model.reading import Key, Reading
from vedette.ports import Api, Verified

RECORDING = "api-compute"
NOVA = ("Server", "Flavor", "ServerGroup", "Aggregate", "Keypair", "ComputeService", "Hypervisor")
MINE = (*NOVA, "Volume", "Snapshot", "Image", "Stack", "User", "Project")
DOCS = Path(__file__).parents[3] / "docs" / "howto"
T = TypeVar("T")

Line = dict[str, Any]


@cache
def recording() -> Sequence[Line]:
    """The answers, oldest first."""
    return answers(RECORDING)


@cache
def ended(moment: str) -> int:
    return end_of(RECORDING, moment)


def api(kind: str) -> Api:
    found = KINDS[kind].api
    assert found is not None
    return found


class Recorded(RecordedCloud):
    """The recorded cloud, whose accounts have the ids that they had."""

    async def account(self) -> Verified:
        said = await super().account()
        ids = {
            dict(line["params"])["user_id"]
            for line in recording()
            if line["path"] == "/os-keypairs" and line["account"] == "demo"
        }
        (demo,) = ids
        return said if said.user_id == "admin" else Verified(**{**_fields(said), "user_id": demo})


def _fields(said: Verified) -> dict[str, Any]:
    return {name: getattr(said, name) for name in said.__struct_fields__}


def cloud(moment: str = "there", account: str = "admin", **more: Any) -> Recorded:
    return Recorded(recording(), account, at=ended(moment), **more)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


async def everything(kind: str, of: RecordedCloud) -> list[Reading]:
    return [one async for page in api(kind).list(of) for one in page]


def listed(kind: str, moment: str = "there", account: str = "admin", **more: Any) -> list[Reading]:
    return run(everything(kind, cloud(moment, account, **more)))


def by_id(readings: Iterable[Reading]) -> dict[str, Reading]:
    return {one.id: one for one in readings}


def named(readings: Iterable[Reading], ending: str) -> Reading:
    (found,) = [one for one in readings if str(one.fields.get("name", one.fields.get("stack_name"))).endswith(ending)]
    return found


def began(moment: str) -> int:
    return min(int(line["as_of"]) for line in recording() if line["moment"] == moment)


@cache
def told(moment: str = "there") -> Inventory:
    """What the notifications alone say until then."""
    return Inventory(one for one in corpus.notices(RECORDING) if one.sent_at < began(moment))


@cache
def followed(moment: str) -> Inventory:
    """What is known right before it is listed at that moment, by notifications and by what was listed before."""
    if moment == "there":
        return told("there")
    inventory = Inventory(one for one in corpus.notices(RECORDING) if one.sent_at < began("there"))
    for kind in MINE:
        folded(inventory.objects, listed(kind, "there"))
    inventory.tell(*(one for one in corpus.notices(RECORDING) if began("there") <= one.sent_at < began(moment)))
    return inventory


def folded(objects: dict[tuple[str, str], Any], readings: Sequence[Reading]) -> list[tuple[str, str, str]]:
    """Fold them in place; (kind, id, verb) of each change."""
    changes = []
    for one in readings:
        at = (one.kind, one.id)
        objects[at], verb = fold(objects.get(at), one, Key("test", one.group, *at), 1)
        if verb is not None:
            changes.append((*at, str(verb)))
    return changes


class Differs(NamedTuple):
    """A field that both speak of, and not alike."""

    id: str
    field: str
    said: Any
    shown: Any


def differences(kind: str, moment: str, objects: Mapping[tuple[str, str], Any]) -> list[Differs]:
    found = []
    for one in listed(kind, moment):
        known = objects.get((kind, one.id))
        if known is None:
            continue
        for said, shown in ((known.fields, one.fields), (known.admin, one.admin)):
            found += [
                Differs(one.id, name, said[name], shown[name]) for name in said.keys() & shown.keys() if said[name] != shown[name]
            ]
    return found


def lists(kind: str, moment: str = "there") -> list[Line]:
    """The answers that listing a kind needs."""
    of = cloud(moment)
    run(everything(kind, of))
    newest = {}
    for line in recording():
        asked = line["service"], line["path"], tuple((name, value) for name, value in line["params"]), line["microversion"]
        if line["account"] == "admin" and line["as_of"] <= ended(moment) and asked in of.asked:
            newest[asked] = line
    return list(newest.values())


def again(line: Line, **body: Any) -> Line:
    """The same answer with another body."""
    return line | {"body": line["body"] | body}


def answer(service: str, path: str, body: Any, *, params: Any = (), microversion: str = "", status: int = 200) -> Line:
    """One made by hand."""
    return {
        "service": service,
        "path": path,
        "params": [list(pair) for pair in params],
        "microversion": microversion,
        "as_of": 1_795_500_000_000_000,
        "status": status,
        "body": body,
        "account": "admin",
    }


class Lenient(Recorded):
    """Knows nothing of what wasn't recorded: odd ids lead to odd questions."""

    async def get(self, service: str, path: str, params: Any = (), *, microversion: str = "") -> Any:
        try:
            return await super().get(service, path, params, microversion=microversion)
        except AssertionError:
            raise NotFound(path) from None

    async def pages(self, service: str, path: str, key: str, params: Any = (), *, microversion: str = "") -> Any:
        try:
            async for page in super().pages(service, path, key, params, microversion=microversion):
                yield page
        except AssertionError:
            if path not in ("/os-keypairs", "/users", "/types"):
                raise


def shuffled(line: Line, meaning: Iterable[str]) -> Line:
    """The answer with every list in another order, but for those whose order has a meaning."""
    chance = random.Random(line["path"])

    def turn(value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: turn(inner, key) for key, inner in value.items()}
        if isinstance(value, list):
            items = [turn(inner) for inner in value]
            return items if name in meaning else chance.sample(items, len(items))
        return value

    return line | {"body": turn(line["body"])}


def odd(items: Sequence[dict[str, Any]]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """The items with values of any type in any place, and without some."""

    def changed(item: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        names = st.sampled_from(sorted(item))
        deeper = st.one_of(VALUES, st.lists(st.sampled_from(list(item.values())), max_size=2), st.just([item]), st.just(item))
        return st.builds(
            lambda more, less: {name: value for name, value in (item | more).items() if name not in less},
            st.dictionaries(names, deeper, max_size=4),
            st.sets(names, max_size=3),
        )

    return st.tuples(*(changed(item) for item in items)).map(list)
