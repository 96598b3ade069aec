"""Waits on Vedette for what becomes of OpenStack's objects: one watch a kind, however many wait, and nothing is polled.

    async with Vedette("https://vedette:8470", project, session, ["ports"], tls) as vedette:
        port = await vedette.until("ports", id_, is_active, 300, ask)

Nothing of Vedette's is imported: it is a Kubernetes list and watch, on aiohttp. A watch goes on from its last place after every
cut; when the server no longer has that place (410), it lists again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp

log = logging.getLogger("waiting")

Status = Mapping[str, Any]
"""An object's fields, named as OpenStack's API names them."""
Done = Callable[[Status | None], bool]
"""Whether what is waited for has come; None: there is no such object. Raises Failed when it won't come."""

APIS = "/apis/openstack.vedette.dev/v1"
SILENT_SECONDS = 60.0
"""A bookmark comes every 15 s: a stream that says nothing for so long is dead."""
MOST_SECONDS = 30.0
"""The longest pause before Vedette is tried again."""


class NotYet(Exception):
    """It has not come in time. Whoever wanted it begins again, later."""


class Failed(Exception):
    """It won't come by itself."""


class Gone(Exception):
    """The place to resume from is no longer kept."""


class Vedette:
    """Some kinds of one project, as Vedette has them."""

    def __init__(
        self,
        url: str,
        project: str,
        login: Any,
        plurals: Sequence[str],
        tls: ssl.SSLContext | None = None,
        *,
        away_seconds: float = 10.0,
    ) -> None:
        """`login`: a keystoneauth session, such as `openstack.connect().session`. `away_seconds`: how long one waits for Vedette
        itself."""
        self._base = f"{url}{APIS}/namespaces/{project}"
        self._login = login
        self._tls = tls
        self._away_seconds = away_seconds
        self._objects: dict[str, dict[str, Status]] = {plural: {} for plural in plurals}
        self._away_since: dict[str, float] = {}
        """Kinds that are not followed now."""
        self._places: dict[str, str] = {}
        """Where each kind's next watch begins."""
        self.news = 0
        """How often anything has changed."""
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Vedette:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=SILENT_SECONDS)
        connector = aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=1 << 22)
        for plural in self._objects:
            self._away(plural)
            self._tasks.append(asyncio.create_task(self._follow(plural), name=f"follow {plural}"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._session.close()

    # --- for who waits

    def get(self, plural: str, id_: str) -> Status | None:
        return self._objects[plural].get(id_)

    async def changed(self, since: int) -> None:
        """Return when there is more news than `since`: what `news` was before one looked."""
        while self.news == since:
            await self._news.wait()

    async def until(
        self, plural: str, id_: str, done: Done, seconds: float, ask: Callable[[], Awaitable[Status | None]]
    ) -> Status | None:
        """The object, when `done` says so. `ask` is one GET at the cloud's own API: it is sent when the time is over, or when
        Vedette has been away for too long, and never twice. Raises NotYet (also when the object has gone), Failed."""
        clock = asyncio.get_running_loop()
        end = clock.time() + seconds
        there = False
        while not done(status := self.get(plural, id_)):
            if there and status is None:
                raise NotYet(f"{plural} {id_} is gone")
            there = status is not None
            until = min(end, self._away_since.get(plural, end) + self._away_seconds)
            if until <= clock.time():
                status = await ask()
                if not done(status):
                    raise NotYet(f"{plural} {id_} is not there yet" if status is None else f"{plural} {id_} is not ready yet")
                return status
            try:
                async with asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                pass
        return status

    # --- what Vedette says

    def _tell(self) -> None:
        self.news += 1
        self._news.set()
        self._news = asyncio.Event()

    def _away(self, plural: str) -> None:
        self._away_since.setdefault(plural, asyncio.get_running_loop().time())
        self._tell()

    def _back(self, plural: str) -> None:
        if self._away_since.pop(plural, None) is not None:
            self._tell()

    async def _follow(self, plural: str) -> None:
        """List, then watch from there; for ever."""
        pause = 0.0
        while True:
            before = self._places.get(plural, "")
            try:
                if not before:
                    await self._list(plural)
                await self._watch(plural)
                # The server has ended the stream, in order: it goes on from there.
            except Gone:
                self._places[plural] = ""
            except (aiohttp.ClientError, TimeoutError, ValueError) as why:
                log.warning("%s: %s: %s", plural, type(why).__name__, why)
            self._away(plural)
            if self._places.get(plural, "") != before:
                pause = 0.0
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(max(2 * pause, 0.5), MOST_SECONDS)

    async def _get(self, plural: str, **query: str) -> aiohttp.ClientResponse:
        # It has a token already, and asks for another when that one is about to end.
        headers = await asyncio.to_thread(self._login.get_auth_headers)
        answer = await self._session.get(f"{self._base}/{plural}", params=query, headers=headers)
        if answer.status == 410:
            answer.close()
            raise Gone
        if answer.status == 401:
            self._login.invalidate()  # it was revoked: the next attempt has a new one
        answer.raise_for_status()
        return answer

    async def _list(self, plural: str) -> None:
        """Take what is there, and the place to watch from."""
        async with await self._get(plural) as answer:
            said = await answer.json()
        self._objects[plural] = {item["metadata"]["name"]: item["status"] for item in said["items"]}
        self._places[plural] = said["metadata"]["resourceVersion"]
        self._tell()

    async def _watch(self, plural: str) -> None:
        """Take every change, and keep the place to resume from, until the stream ends."""
        newest = self._places[plural]
        async with await self._get(plural, watch="1", allowWatchBookmarks="1", resourceVersion=newest) as answer:
            self._back(plural)
            async for line in answer.content:
                event = json.loads(line)
                said = event["object"]
                if event["type"] == "ERROR":
                    if said.get("code") == 410:
                        raise Gone
                    raise aiohttp.ClientPayloadError(said.get("message", "the stream ended with an error"))
                name, revision = said["metadata"].get("name", ""), said["metadata"]["resourceVersion"]
                if event["type"] == "BOOKMARK":
                    self._places[plural] = newest = revision
                    continue
                if revision != newest:
                    # One revision may be several changes: that all of them are here is known when the next one comes.
                    self._places[plural], newest = newest, revision
                if event["type"] == "DELETED":
                    self._objects[plural].pop(name, None)
                else:
                    self._objects[plural][name] = said["status"]
                self._tell()
