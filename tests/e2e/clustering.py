"""A cluster that changes at random and remembers every state that it was in; a client of a Vedette which follows it.

`Life` is what happened there, in the server's order; `Follower` is what our watch told of it; `hold` compares the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

from vedette.clients.kubernetes import Resource
from vedette.kit.tasks import cancel
from vedette.model.fold import ORIGIN_VERSION
from vedette.testing.kubernetes import FakeKubernetes

PATIENCE = 60.0
"""Seconds after which a wait is a failure."""
OPS = "token-of-the-admin-0123456789"
HEADERS = {"Authorization": f"Bearer {OPS}"}
AUTH = {"mode": "tokens", "tokens": [{"token": OPS, "name": "ops", "projects": ["*"], "roles": ["admin"]}]}


class HurriedClock:
    """The machine's clock, `times` as fast: what waits for a minute waits for a few seconds, in the same order."""

    def __init__(self, times: float) -> None:
        self._times = times
        self._began = time.monotonic()
        self._began_us = time.time_ns() // 1000

    def now_us(self) -> int:
        return self._began_us + round(self.monotonic() * 1_000_000)

    def monotonic(self) -> float:
        return (time.monotonic() - self._began) * self._times

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._times)


def bare(obj: Any) -> Any:
    """Without versions, managed fields and annotations of ours."""
    metadata = {name: value for name, value in obj["metadata"].items() if name not in ("resourceVersion", "managedFields")}
    marks = {name: value for name, value in (metadata.pop("annotations", None) or {}).items() if "vedette.dev/" not in name}
    return {**obj, "metadata": {**metadata, **({"annotations": marks} if marks else {})}}


def where(obj: Any) -> str:
    metadata = obj["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


# --- what happens ----------------------------------------------------------------------------------------------------------


class State(NamedTuple):
    """One that an object was in; `obj` None: it was deleted."""

    version: str
    obj: Any
    last: Any = None
    """Of a deletion: what came with it, if that was another state still."""


class Life:
    """Changes the objects of a cluster at random."""

    def __init__(
        self, cluster: FakeKubernetes, resources: Mapping[str, Resource], rng: random.Random, *, objects: int = 6
    ) -> None:
        """`resources`: by the path under which they are listed."""
        self.cluster = cluster
        self.resources = resources
        self.rng = rng
        self.states: dict[str, dict[str, list[State]]] = {path: defaultdict(list) for path in resources}
        self.names = [f"{space}/o{number}" for space in ("shop", "infra") for number in range(objects // 2)]
        self._number = 0

    def change(self, count: int = 1) -> None:
        for _ in range(count):
            path = self.rng.choice(list(self.resources))
            name = self.rng.choice(self.names)
            there = name in self.cluster.objects(self.resources[path])
            if there and self.rng.random() < 0.25:
                self.remove(path, name)
                if self.rng.random() < 0.4:
                    self.put(path, name)  # another object of that name, at once
            else:
                self.put(path, name, again=there and self.rng.random() < 0.15)

    def put(self, path: str, name: str, *, again: bool = False, **content: Any) -> None:
        """`again`: nothing that it says is new."""
        self._number += not again
        fields = content or {"spec": {"host": f"v{self._number}"}, "metadata": {"labels": {"n": str(self._number)}}}
        if again:
            last = self.cluster.objects(self.resources[path])[name]
            fields = {key: value for key, value in last.items() if key not in ("apiVersion", "kind")}
            fields["metadata"] = {"labels": last["metadata"]["labels"]}
        obj = self.cluster.put(self.resources[path], name, fields)
        states = self.states[path][name]
        version = obj["metadata"]["resourceVersion"]
        if not states or states[-1].version != version:
            states.append(State(version, bare(obj)))

    def remove(self, path: str, name: str) -> None:
        gone = self.cluster.remove(self.resources[path], name)
        self.states[path][name].append(State(gone["metadata"]["resourceVersion"], None))

    def now(self, path: str) -> dict[str, Any]:
        return {name: bare(obj) for name, obj in self.cluster.objects(self.resources[path]).items()}


# --- what is told of it ----------------------------------------------------------------------------------------------------


class Told(NamedTuple):
    type: str
    version: str
    """At the origin."""
    name: str
    obj: Any


class Follower:
    """Follows one path of a Vedette, resuming after every cut from the last place that it was told."""

    def __init__(self, session: aiohttp.ClientSession, url: Callable[[], str], path: str) -> None:
        self._session = session
        self._url = url
        self.path = path
        self.revision = ""
        self.told: list[Told] = []
        self.cuts = 0

    async def run(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                await self._follow()
            self.cuts += 1
            await asyncio.sleep(0.05)  # it is away, or not there yet; nobody tells when it is back

    async def _follow(self) -> None:
        params = {"watch": "1", "allowWatchBookmarks": "true", **({"resourceVersion": self.revision} if self.revision else {})}
        timeout = aiohttp.ClientTimeout(total=None, sock_read=PATIENCE)
        async with self._session.get(self._url() + self.path, params=params, timeout=timeout) as answer:
            if answer.status in (404, 429, 503):
                return
            assert answer.status == 200, await answer.text()
            rest = b""
            async for part in answer.content.iter_any():
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    self._take(json.loads(line))

    def _take(self, event: Any) -> None:
        obj = event["object"]
        assert event["type"] != "ERROR", obj
        if event["type"] != "BOOKMARK":
            version = obj["metadata"]["annotations"].get(ORIGIN_VERSION, "")
            self.told.append(Told(event["type"], version, where(obj), bare(obj)))
        self.revision = obj["metadata"]["resourceVersion"]

    @property
    def objects(self) -> dict[str, Any]:
        """What its copy has now."""
        found: dict[str, Any] = {}
        for one in self.told:
            found[one.name] = one.obj
            if one.type == "DELETED":
                del found[one.name]
        return found


@contextlib.asynccontextmanager
async def following(url: Callable[[], str], paths: Sequence[str]) -> AsyncIterator[list[Follower]]:
    """One follower for each path; none of them may have failed at the end."""
    async with aiohttp.ClientSession(headers=HEADERS, connector=aiohttp.TCPConnector(limit=0)) as session:
        followers = [Follower(session, url, path) for path in paths]
        tasks = [asyncio.create_task(one.run()) for one in followers]
        try:
            yield followers
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await cancel(*tasks)


async def listed(session: aiohttp.ClientSession, url: str) -> dict[str, Any] | None:
    """None: nobody answers, or not with a list."""
    try:
        async with session.get(url) as answer:
            return {where(one): bare(one) for one in (await answer.json())["items"]} if answer.status == 200 else None
    except (aiohttp.ClientError, ConnectionError):
        return None


async def until_equal(
    url: Callable[[], str], wanted: Mapping[str, Callable[[], dict[str, Any]]], followers: Sequence[Follower] = ()
) -> None:
    """Wait until each path's list is what is wanted there, and the followers have been told of all of it."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        last: Any = None
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    want = {path: now() for path, now in wanted.items()}
                    served = {path: await listed(session, url() + path) for path in wanted}
                    copies = {one.path: one.objects for one in followers}
                    last = (want, served, copies)
                    if served == want and all(copy == want[path] for path, copy in copies.items()):
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"in vain: {last}") from None


def hold(told: Sequence[Told], states: Mapping[str, Sequence[State]]) -> int:
    """What was told of each object is its states in the server's order: none twice, none that wasn't, a deletion where there
    was one, and the last of all. States may be left out (they are, where a list stands for what was missed); how many were."""
    of: dict[str, list[Told]] = defaultdict(list)
    for one in told:
        of[one.name].append(one)
    assert of.keys() <= states.keys()
    merged = 0
    for name, history in states.items():
        at, present = -1, None
        for one in of[name]:
            if one.type == "DELETED":
                assert present is not None, f"{name} was deleted and not there"
                end = next((n for n in range(at + 1, len(history)) if history[n].obj is None), None)
                assert end is not None, f"{name} was told to be deleted, and never was after {history[at]}"
                assert one.obj in [history[end].last, *(state.obj for state in history[at:end])], (name, one, history[at:end])
                merged += end - at - 1
                at, present = end, None
                continue
            there = next((n for n, state in enumerate(history) if state.version == one.version), None)
            assert there is not None, f"{one} never was"
            assert there > at, f"{one} came after {history[at]}"
            assert history[there].obj == one.obj, (one, history[there])
            assert (present is None) == (one.type == "ADDED"), (one, present)
            if present is not None:
                between = [state.version for state in history[at:there] if state.obj is None]
                assert not between, f"{name} was deleted at {between}, and told to be modified: {of[name]}, {history}"
                assert present != one.obj, f"{name} was told to be modified and was not: {one}"
            merged += there - at - 1
            at, present = there, one.obj
        assert present == history[-1].obj, (name, of[name], history)
        merged += len(history) - 1 - at
    return merged
