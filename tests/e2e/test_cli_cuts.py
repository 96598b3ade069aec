"""What `vedette watch` promises across cuts, on the real service: a recorded cloud is played, one client watches undisturbed,
others through a proxy that resets their connection again and again. All must have seen the same, once each, in order.

The worst single places are in tests/unit/test_cli_client.py.
"""

from __future__ import annotations

import asyncio
import gzip
import random
from contextlib import aclosing
from importlib import resources
from pathlib import Path

import pytest
from cli_processes import port_created

from vedette.app import Service
from vedette.cli.service import recordings
from vedette.clients.vedette import Cut, Event, Form, ListedAgain, Target, Told, VedetteClient
from vedette.config import load_text
from vedette.testing.proxy import Proxy

Change = tuple[str, str, str, int]
SECONDS = 120.0
LAST = "the-last-one"


async def no_wait(_seconds: float) -> None:
    await asyncio.sleep(0)


def settings(folder: Path) -> str:
    """The shipped recording in a few seconds, and a last port that says it is over."""
    recording = folder / "recording.jsonl"
    with resources.as_file(recordings()["recorded"]) as shipped:
        recording.write_bytes(gzip.decompress(shipped.read_bytes()) + port_created(LAST, 7).encode())
    return (
        f"listen: 127.0.0.1:0\ndata_dir: {folder}/store\nwatch: {{bookmark_seconds: 0.2}}\n"
        f"sources: [{{name: one, type: replay, path: {recording}, speed: 100, max_gap: 0.05}}]\n"
    )


async def seen(
    client: VedetteClient, kind: str, form: Form, since: int, cuts: random.Random | None, proxy: Proxy | None
) -> list[Change]:
    """Every change of one kind, until the last port is there."""
    target = Target(await client.resource(kind))
    found: list[Change] = []
    left = cuts.randint(1, 12) if cuts else 0
    async with aclosing(client.watch(target, form=form, since=since)) as stream:
        async for news in stream:
            assert not isinstance(news, ListedAgain)
            if not isinstance(news, Event):
                continue
            found.append((news.verb, news.item.namespace, news.item.name, news.item.revision))
            if news.item.name.endswith("000000000007"):
                return found
            if cuts and proxy:
                left -= 1
                if left <= 0:
                    left = cuts.randint(1, 12)
                    proxy.cut()
    raise AssertionError("the watch ended")


async def told(client: VedetteClient, since: int, until: int, cuts: random.Random | None, proxy: Proxy | None) -> list[int]:
    """Revisions of all events up to `until`."""
    found: list[int] = []
    cut = 0
    async with aclosing(client.events({}, after=since)) as stream:
        async for news in stream:
            cut += isinstance(news, Cut)
            if isinstance(news, Told):
                found.append(news.revision)
                if news.revision >= until:
                    assert not proxy or cut, "it was cut at least once"
                    return found
                if cuts and proxy and cuts.random() < 0.02:
                    proxy.cut()
    raise AssertionError("the events ended")


@pytest.mark.parametrize("seed", [1, 2])
async def test_whoever_was_cut_saw_what_the_others_saw(tmp_path: Path, seed: int) -> None:
    service = Service(load_text(settings(tmp_path), {}))
    await service.start()
    rng = random.Random(seed)
    try:
        host, port = service.addresses[0]
        async with (
            Proxy(host, port) as first,
            Proxy(host, port) as second,
            Proxy(host, port) as third,
            VedetteClient(f"http://{host}:{port}") as direct,
            VedetteClient(f"http://127.0.0.1:{first.port}", sleep=no_wait) as one,
            VedetteClient(f"http://127.0.0.1:{second.port}", sleep=no_wait) as two,
            VedetteClient(f"http://127.0.0.1:{third.port}", sleep=no_wait) as three,
            asyncio.timeout(SECONDS),
        ):
            async with aclosing(direct.events({}, after=0)) as stream:
                first_event = await anext(stream)
                assert isinstance(first_event, Told)
                since = first_event.revision - 1
            undisturbed, cut_json, cut_table = await asyncio.gather(
                seen(direct, "port", "json", since, None, None),
                seen(one, "port", "json", since, rng, first),
                seen(two, "port", "table", since, rng, second),
            )
            head = await direct.head()
            all_events, cut_events = await asyncio.gather(
                told(direct, since, head, None, None), told(three, since, head, rng, third)
            )
    finally:
        await service.stop()
    assert len(undisturbed) > 50
    assert [change[3] for change in undisturbed] == sorted(change[3] for change in undisturbed)
    assert cut_json == undisturbed
    assert cut_table == undisturbed
    assert first.accepted > 5
    assert second.accepted > 5
    assert cut_events == all_events
    assert all_events == sorted(set(all_events))
