"""A cloud's API as it answered once: a `ports.Cloud` over a recording, and the recorder that makes one.

A recording (`tests/captures/api-*.jsonl.gz`) holds notifications in the captures' own form, and then, one a line, answers:
`{"service", "path", "params": [[name, value]], "microversion", "as_of", "status", "body", "account"}`. A list is one line,
however many pages it came in: `params` are those that the kind asked with, without limit and marker. A recording may name its
`moment`s.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import IO, Any

from vedette.errors import BadRequest, CloudUnavailable, Forbidden, NotFound, Unauthenticated
from vedette.ports import Answer, Cloud, Items, Params, Verified

CAPTURES = Path(__file__).parents[2] / "captures"

Asked = tuple[str, str, tuple[tuple[str, str], ...], str]
"""Service, path, params, microversion."""


@cache
def answers(recording: str) -> Sequence[dict[str, Any]]:
    """The answers of `tests/captures/<recording>.jsonl.gz`, oldest first. Read once: nobody may change them."""
    with gzip.open(CAPTURES / f"{recording}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return tuple(line for line in map(json.loads, lines) if "service" in line)


def end_of(recording: str, moment: str) -> int:
    """When the last answer of a recording's moment was asked for: `RecordedCloud(..., at=…)` is the cloud as it was then."""
    return max(int(line["as_of"]) for line in answers(recording) if line["moment"] == moment)


class RecordedCloud:
    """Says what was recorded for one account. Asked for anything else it fails the test."""

    def __init__(
        self, recording: str | Iterable[Mapping[str, Any]], account: str = "admin", *, page: int = 2, at: int = 0
    ) -> None:
        """`recording`: a name for `answers`, or such lines. `page`: items of a page. `at`: as `go` has it."""
        self.page = page
        self.asked: list[Asked] = []
        """Every question so far; a list counts once."""
        self._account = account
        lines = answers(recording) if isinstance(recording, str) else recording
        self._lines = sorted((line for line in lines if line["account"] == account), key=lambda line: int(line["as_of"]))
        self._said: dict[Asked, Mapping[str, Any]] = {}
        self.go(at)

    def go(self, at: int) -> None:
        """Be the cloud as it was then: only answers up to `at` count (UTC µs; 0: all); of several to one question the newest."""
        self._said = {
            (line["service"], line["path"], tuple((n, v) for n, v in line["params"]), line["microversion"]): line
            for line in self._lines
            if not at or line["as_of"] <= at
        }

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        line = self._answer(service, path, params, microversion)
        return Answer(body=line["body"], as_of=line["as_of"])

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        line = self._answer(service, path, params, microversion)
        items = line["body"][key]
        for start in range(0, len(items), self.page) or (0,):
            yield Items(items=items[start : start + self.page], as_of=line["as_of"])

    async def account(self) -> Verified:
        roles = ("admin", "member", "reader") if self._account == "admin" else ("member", "reader")
        return Verified(user_id=self._account, user_name=self._account, roles=roles, expires_at=0, seconds_left=3600.0)

    async def close(self) -> None:
        pass

    def _answer(self, service: str, path: str, params: Params, microversion: str) -> Mapping[str, Any]:
        asked = service, path, tuple((n, v) for n, v in params), microversion
        self.asked.append(asked)
        line = self._said.get(asked)
        if line is None:
            alike = [other for other in self._said if other[:2] == asked[:2]]
            raise AssertionError(f"not recorded for {self._account}: {asked}; of that path: {alike}")
        status, where = line["status"], f"GET {path}: {line['status']}"
        if status < 300:
            return line
        if status >= 500:
            raise CloudUnavailable(where)
        raise {401: Unauthenticated, 403: Forbidden, 404: NotFound}.get(status, BadRequest)(where)


class Recorder:
    """Asks a real cloud and writes down each question with its answer. `Kind.api` over this records just what it asks."""

    def __init__(self, cloud: Cloud, account: str, out: IO[str]) -> None:
        self._cloud, self._name, self._out = cloud, account, out

    async def get(self, service: str, path: str, params: Params = (), *, microversion: str = "") -> Answer:
        try:
            answer = await self._cloud.get(service, path, params, microversion=microversion)
        except (NotFound, Forbidden, BadRequest) as why:
            self._write(service, path, params, microversion, time.time_ns() // 1000, _STATUS[type(why)], {})
            raise
        self._write(service, path, params, microversion, answer.as_of, 200, answer.body)
        return answer

    async def pages(
        self, service: str, path: str, key: str, params: Params = (), *, microversion: str = ""
    ) -> AsyncIterator[Items]:
        items: list[Any] = []
        as_of = 0
        try:
            async for page in self._cloud.pages(service, path, key, params, microversion=microversion):
                as_of = as_of or page.as_of
                items += page.items
                yield page
        except (NotFound, Forbidden, BadRequest) as why:
            self._write(service, path, params, microversion, time.time_ns() // 1000, _STATUS[type(why)], {})
            raise
        self._write(service, path, params, microversion, as_of, 200, {key: items})

    async def account(self) -> Verified:
        return await self._cloud.account()

    async def close(self) -> None:
        await self._cloud.close()

    def _write(self, service: str, path: str, params: Params, microversion: str, as_of: int, status: int, body: Any) -> None:
        line = {
            "service": service,
            "path": path,
            "params": [list(pair) for pair in params],
            "microversion": microversion,
            "as_of": as_of,
            "status": status,
            "body": body,
            "account": self._name,
        }
        self._out.write(json.dumps(line) + "\n")


_STATUS: dict[type[Exception], int] = {NotFound: 404, Forbidden: 403, BadRequest: 400}
