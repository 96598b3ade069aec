"""Speaks to a Concertim front end: signs in, reads what it shows, makes, changes and removes racks, devices and templates.

In: paths and bodies, in the front end's own names. Out: its JSON. A token that has ended (401) is replaced once a call. What
should be there is decided by mirrors/concertim.py. Neither the password, nor tokens, nor bodies are logged or quoted in errors;
of a refusal the fields and the front end's words for them are.

Errors: TargetUnavailable (nobody answers, or our account is refused: everything waits), TryLater (the front end is unwell),
GiveUp (`Rejected` where it says which fields), NotFound. A POST is made once: whoever gets TargetUnavailable or TryLater of
`create` does not know whether the object is there, and has to look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec

from vedette.clients.http import Answer, HttpClient
from vedette.clients.tls import client_context
from vedette.errors import ConfigError, GiveUp, NotFound, TargetUnavailable, TryLater
from vedette.kit.clock import Clock
from vedette.kit.secret import Secret
from vedette.ports import JsonObject

TIMEOUT_SECONDS = 30.0
"""For one request; an index of 20,000 devices takes a front end some seconds."""
LARGEST = 128 * 1024 * 1024
"""Bytes of an answer: an index of 100,000 devices."""
AT_A_TIME = 8
"""Requests."""
REFUSED_SECONDS = 60.0
"""After our account was refused: until the next attempt."""
UNWELL_SECONDS = 10.0
LONGEST_WORDS = 500
"""Characters of the front end's own words in an error."""

SIGN_IN = "/users/sign_in.json"


class Rejected(GiveUp):
    """The front end does not take these fields (422)."""

    def __init__(self, message: str, fields: Mapping[str, Sequence[str]]) -> None:
        super().__init__(message)
        self.fields = fields


class Concertim:
    """One front end, one account. Made anywhere, used in one event loop; `close` when done."""

    def __init__(
        self,
        url: str,
        login: str,
        password: Secret,
        clock: Clock,
        *,
        ca: str = "",
        rate: float = 0.0,
        timeout: float = TIMEOUT_SECONDS,
    ) -> None:
        """`url`: where the front end is, such as `https://concertim.example.org`. `rate`: requests a second, 0 for no limit.
        Raises ConfigError."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise ConfigError("wants an address such as https://concertim.example.org", path="url")
        self._url = url.rstrip("/")
        self._who = f"the front end at {parts.netloc}"
        self._login, self._password = login, password
        self._clock = clock
        tls = client_context(ca=ca, whose="the front end") if parts.scheme == "https" else None
        self._http = HttpClient(timeout=timeout, tls=tls, largest=LARGEST)
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._between = 1 / rate if rate else 0.0
        self._slot = 0.0
        """Monotonic seconds: when the next request may be made."""
        self._entering = asyncio.Lock()
        self._token = ""
        self._logins = 0
        """How often we signed in: names the token that a request was made with."""
        self._refused_until = 0.0
        self._why_refused = ""

    async def get(self, path: str) -> Any:
        """What is shown at a path such as `/api/v1/racks`."""
        return await self.ask("GET", path)

    async def rows(self, path: str) -> list[JsonObject]:
        """A list that is shown. Raises TryLater when it is none."""
        found = await self.get(path)
        if not isinstance(found, list):
            raise TryLater(f"{self._who} shows no list at {path}", delay=UNWELL_SECONDS)
        return [row for row in found if isinstance(row, dict)]

    async def create(self, path: str, body: JsonObject) -> JsonObject:
        """The object as it is then."""
        made = await self.ask("POST", path, body)
        if not isinstance(made, dict) or made.get("id") in (None, ""):
            raise TryLater(f"{self._who} answered POST {path} without an object", delay=UNWELL_SECONDS)
        return made

    async def change(self, path: str, body: JsonObject) -> JsonObject:
        """The object as it is then."""
        changed = await self.ask("PATCH", path, body)
        return changed if isinstance(changed, dict) else {}

    async def remove(self, path: str) -> bool:
        """False: it was gone already."""
        try:
            await self.ask("DELETE", path)
        except NotFound:
            return False
        return True

    async def ask(self, method: str, path: str, body: JsonObject | None = None) -> Any:
        """One request, and what it was answered with."""
        data = b"" if body is None else msgspec.json.encode(body)
        seen = 0
        async with self._turn:
            for _ in ("with the token we have", "with a new one"):
                seen, token = await self._enter(seen)
                answer = await self._send(method, path, data, {"Authorization": token})
                if answer.status != 401:
                    break
            else:
                raise TryLater(f"{self._who} takes no token, not even a new one", delay=UNWELL_SECONDS)
        if answer.status >= 400 or answer.status < 200:
            raise self._complaint(method, path, answer)
        return self._decoded(method, path, answer)

    async def close(self) -> None:
        await self._http.close()

    async def _enter(self, seen: int) -> tuple[int, str]:
        """Sign in, unless somebody has since the login `seen`: which one it is, and its token as the header has it."""
        async with self._entering:
            if self._logins > seen:
                return self._logins, self._token
            if self._clock.monotonic() < self._refused_until:
                raise TargetUnavailable(self._why_refused, delay=self._refused_until - self._clock.monotonic())
            form = msgspec.json.encode({"user": {"login": self._login, "password": self._password.reveal()}})
            answer = await self._send("POST", SIGN_IN, form, {})
            if answer.status in (401, 403, 422):
                self._refused_until = self._clock.monotonic() + REFUSED_SECONDS
                self._why_refused = f"{self._who} refuses the login of {self._login!r}: look at its password there"
                raise TargetUnavailable(self._why_refused, delay=REFUSED_SECONDS)
            if answer.status >= 400:
                raise self._complaint("POST", SIGN_IN, answer)
            token = answer.headers.get("Authorization", "")
            if not token.startswith("Bearer "):
                raise TargetUnavailable(
                    f"{self._who} answered the login without a token (is it a Concertim front end?)", delay=UNWELL_SECONDS
                )
            self._token = token
            self._logins += 1
            return self._logins, token

    async def _send(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        await self._pace()
        sent = {"Accept": "application/json", **headers}
        if body:
            sent["Content-Type"] = "application/json"
        try:
            return await self._http.request(method, self._url + path, headers=sent, body=body, again=method != "POST")
        except TargetUnavailable as why:
            raise TargetUnavailable(f"{self._who}: {why}", delay=why.delay) from None
        except TryLater as why:
            raise TryLater(f"{self._who}: {why}", delay=why.delay) from None

    async def _pace(self) -> None:
        if self._between:
            now = self._clock.monotonic()
            self._slot = max(self._slot + self._between, now)
            if self._slot > now:
                await self._clock.sleep(self._slot - now)

    def _decoded(self, method: str, path: str, answer: Answer) -> Any:
        if not answer.body or answer.status == 204:
            return None
        try:
            return msgspec.json.decode(answer.body)
        except (msgspec.DecodeError, RecursionError):
            size = f"more than {LARGEST} bytes" if len(answer.body) >= LARGEST else "no JSON, or half of it"
            raise TryLater(f"{self._who} answered {method} {path} with {size}", delay=UNWELL_SECONDS) from None

    def _complaint(self, method: str, path: str, answer: Answer) -> Exception:
        what = f"{self._who} answered {method} {path} with {answer.status}"
        if answer.status == 404:
            return NotFound(what)
        if answer.status == 422:
            fields = _fields(answer.body)
            words = "; ".join(f"{name} {', '.join(said)}" for name, said in fields.items())
            return Rejected(f"{what}: {words or 'no reason given'}"[:LONGEST_WORDS], fields)
        if answer.status in (408, 409, 425, 429) or answer.status >= 500:
            delay = _retry_after(answer.headers.get("Retry-After", ""))
            if answer.status in (502, 503, 504):
                return TargetUnavailable(what, delay=delay)  # its proxy speaks, and nobody is behind it
            return TryLater(what, delay=delay)
        if answer.status == 403:
            return GiveUp(f"{what}: the login {self._login!r} may not do that there")
        return GiveUp(f"{what}: is the address right?")


def _fields(body: bytes) -> dict[str, list[str]]:
    """`{field: [messages]}`, `{errors: {field: [messages]}}`, `{errors: "…"}` or JSON:API's list."""
    try:
        said = msgspec.json.decode(body[:65_536])
    except (msgspec.DecodeError, RecursionError):
        return {}
    if isinstance(said, dict) and "errors" in said:
        said = said["errors"]
    if isinstance(said, list):
        said = {"": [one.get("description") or one.get("title") for one in said if isinstance(one, dict)]}
    if not isinstance(said, dict):
        said = {"": said}
    return {
        str(name)[:100]: [str(one)[:200] for one in (words if isinstance(words, list) else [words])][:10]
        for name, words in list(said.items())[:50]
    }


def _retry_after(text: str) -> float:
    return min(3600.0, float(text)) if text.isascii() and text.isdecimal() and len(text) < 6 else UNWELL_SECONDS
