"""A Vedette whose cluster is another Vedette, over TLS and with a token: the same objects and order at both, also when either
begins anew.

The first plays recordings. Left out: a chain behind a real cluster (test_kubernetes_chain.py).
"""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from cli_processes import free_port
from clustering import AUTH, HEADERS, OPS, PATIENCE, Follower, HurriedClock, State, bare, following, hold, listed, where
from rig import PLURALS

from vedette.app import Service
from vedette.config import load_text
from vedette.model.reading import OPENSTACK
from vedette.ports import EVERYTHING, Selection
from vedette.testing.proxy import Proxy
from vedette.testing.tls import Authority

CAPTURES = Path(__file__).parents[1] / "captures"
KINDS = ("Server", "Port", "Network", "Subnet", "Router", "FloatingIP", "Volume", "SecurityGroup")
"""Known by UUIDs: what has another name gets another uid in another store."""
APIS = f"/apis/{OPENSTACK}/v1"
FAR = "/clusters/far"


def recorded(name: str) -> list[str]:
    with gzip.open(CAPTURES / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return list(lines)


class Chain:
    """The first Vedette, always at the same port, and the second one; each can be started anew."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.pair = authority.server()
        self.port = free_port()

    @asynccontextmanager
    async def first(self, lines: Sequence[str], **pace: Any) -> AsyncIterator[Service]:
        """A store of its own that is gone with it; `lines` are what its cloud says."""
        recording = self.folder / "recording.jsonl"
        recording.write_text("".join(lines))
        one = {"name": "region-one", "type": "replay", "path": str(recording), **pace}
        tls = {"cert": str(self.pair.cert), "key": str(self.pair.key)}
        async with running({"listen": f"127.0.0.1:{self.port}", "data_dir": "", "tls": tls, "sources": [one]}) as service:
            yield service

    @asynccontextmanager
    async def second(self, port: int) -> AsyncIterator[Service]:
        """Over the proxy's port; on a store that stays. Its waits are short ones."""
        one = {
            "name": "far",
            "type": "kubernetes",
            "server": f"https://127.0.0.1:{port}",
            "token": OPS,
            "ca": str(self.authority.ca),
            "resources": [{"resource": f"{PLURALS[kind]}.{OPENSTACK}/v1"} for kind in KINDS],
        }
        async with running({"data_dir": str(self.folder / "second"), "sources": [one]}, clock=HurriedClock(20)) as service:
            yield service


@asynccontextmanager
async def running(settings: dict[str, Any], **more: Any) -> AsyncIterator[Service]:
    service = Service(load_text(json.dumps({"listen": "127.0.0.1:0", "auth": AUTH, **settings}), {}), **more)
    await service.start()
    try:
        yield service
        assert service.failed is not None
        assert not service.failed.done()
    finally:
        await service.stop()


def url(service: Service) -> str:
    return "{}://{}:{}".format("https" if service.config.tls else "http", *service.addresses[0])


async def played(service: Service, ca: Path) -> None:
    """Until the recording is in the first one's log."""
    context = ssl.create_default_context(cafile=str(ca))
    async with aiohttp.ClientSession(headers=HEADERS) as session, asyncio.timeout(PATIENCE):
        while True:
            async with session.get(url(service) + "/v1/status", ssl=context) as answer:
                if (await answer.json())["sources"][0]["detail"].startswith("done"):
                    return
            await asyncio.sleep(0.05)


async def gaps_of(second: Service) -> int:
    async with aiohttp.ClientSession(headers=HEADERS) as session, session.get(f"{url(second)}/v1/status") as answer:
        return int((await answer.json())["sources"][0]["gaps"])


async def lists(service: Service, root: str, context: ssl.SSLContext | None = None) -> dict[str, dict[str, Any] | None]:
    connector = aiohttp.TCPConnector(ssl=context if context is not None else True)
    async with aiohttp.ClientSession(headers=HEADERS, connector=connector) as session:
        return {kind: await listed(session, f"{url(service)}{root}{APIS}/{PLURALS[kind]}") for kind in KINDS}


async def states_of(service: Service, kind: str) -> dict[str, list[State]]:
    """Every state that the first one's log knows of each object."""
    assert service.store is not None
    found: dict[str, list[State]] = defaultdict(list)
    selection = Selection(scope=EVERYTHING, group=OPENSTACK, kind=kind)
    changes, _ = await service.store.changes(service.store.oldest, selection=selection, limit=100_000)
    for change in changes:
        obj = json.loads(change.now.body)
        gone = change.verb == "DELETED"
        found[where(obj)].append(State(str(change.now.revision), None if gone else bare(obj), bare(obj)))
    return found


async def until_alike(first: Service, second: Service, context: ssl.SSLContext, followers: Sequence[Follower]) -> None:
    last: Any = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                here, there = await lists(first, "", context), await lists(second, FAR)
                copies = {kind: one.objects for kind, one in zip(KINDS, followers, strict=True)}
                last = {kind: (len(here[kind] or ()), len(there[kind] or ()), len(copies[kind])) for kind in KINDS}
                if here == there == copies:
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"in vain: {last}") from None


async def test_both_have_the_same_objects_and_order_whichever_begins_anew(tmp_path: Path) -> None:
    chain = Chain(tmp_path, Authority(tmp_path / "tls"))
    context = chain.authority.client_context()
    lines = recorded("full-1")[:900]
    now: list[Service] = []

    def there() -> str:
        return url(now[-1]) if now else "http://127.0.0.1:1"

    paths = [f"{FAR}{APIS}/{PLURALS[kind]}" for kind in KINDS]
    async with following(there, paths) as followers, Proxy("127.0.0.1", chain.port) as proxy:
        async with chain.first(lines[:400], speed=1000, min_gap="5ms") as first:
            async with chain.second(proxy.port) as second:
                now.append(second)
                async with asyncio.timeout(PATIENCE):
                    while sum(len(one.told) for one in followers) < 40:
                        await asyncio.sleep(0.02)
                proxy.cut()
            async with chain.second(proxy.port) as second:
                now.append(second)
                await played(first, chain.authority.ca)
                await until_alike(first, second, context, followers)
                for kind, one in zip(KINDS, followers, strict=True):
                    hold(one.told, await states_of(first, kind))
                before = await lists(first, "", context)
                counts = [len(one.told) for one in followers]
                gaps = await gaps_of(second)

                # Another store at the first, and its cloud some time later: no place of before means anything to it.
                proxy.refuse()
                proxy.cut()
                await first.stop()
                async with chain.first(lines, speed=0) as anew:
                    await played(anew, chain.authority.ca)
                    proxy.resume()
                    await until_alike(anew, second, context, followers)
                    after = await lists(anew, "", context)
                    async with asyncio.timeout(PATIENCE):
                        while await gaps_of(second) < gaps + len(KINDS):  # each place was refused: 410
                            await asyncio.sleep(0.02)
        told = 0
        for kind, one, count in zip(KINDS, followers, counts, strict=True):
            old, new = before[kind], after[kind]
            assert old is not None
            assert new is not None
            differ = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
            assert sorted(each.name for each in one.told[count:]) == sorted(differ), kind
            told += len(differ)
        assert told, "the recordings differ"
