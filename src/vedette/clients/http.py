"""Makes HTTP requests to targets that are the operator's own: one session with keep-alive, answers of bounded size.

A method, an address, headers and a body come in; an `Answer` goes out, whatever its status: what it is worth is the caller's to
say (handlers/http.py). Redirects are not followed, cookies are not kept, no proxy is taken from the environment.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from contextlib import suppress

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from vedette.errors import GiveUp, TargetUnavailable, TryLater

MAX_ANSWER = 65_536
"""Bytes of an answer that are read, and kept; with a longer one its connection is closed."""
MAX_HEADER = 8_190
"""Bytes of one header's value in an answer."""
CONNECTIONS = 100
"""Open at one time; further requests wait for one, and that counts into their timeout."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the target said."""

    status: int
    headers: Mapping[str, str]
    """Looked up in any case."""
    body: bytes
    """At most so many bytes of it as the client keeps, not decompressed."""


class HttpClient:
    """A session, opened with the first request."""

    def __init__(self, *, timeout: float, tls: ssl.SSLContext | None = None, largest: int = MAX_ANSWER) -> None:
        """`timeout`: seconds for one request with all that belongs to it; one that met a connection which had just ended is made
        again at once. `tls`: None means verified with the system's authorities. `largest`: bytes of an answer that are kept."""
        self._timeout = timeout
        self._largest = largest
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    async def request(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes, again: bool = True) -> Answer:
        """Send as it is given: `url` is percent-encoded already. `again`: whether it may be made twice, when a kept connection
        ends just as it is sent; not for what would then be there twice.

        Raises TargetUnavailable (no address, no connection, TLS that isn't right, no answer in time), TryLater (an answer that is
        no HTTP, or cut), GiveUp (an address that is none).
        """
        try:
            try:
                return await self._request(method, url, headers, body)
            except aiohttp.ServerDisconnectedError:
                if not again:
                    raise
                # A kept connection that the target closed just now. It is the same delivery, with the same idempotency key.
                return await self._request(method, url, headers, body)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
            raise GiveUp("the address is none that can be called") from None
        except aiohttp.ClientConnectorCertificateError as why:
            raise TargetUnavailable(f"its certificate is not accepted: {why.certificate_error}") from None
        except aiohttp.ClientConnectorDNSError as why:
            raise TargetUnavailable(f"its name {why.host} is not found: {why.os_error.strerror or why.os_error}") from None
        except aiohttp.ClientConnectorError as why:
            raise TargetUnavailable(f"no connection to {why.host}:{why.port}: {why.os_error.strerror or why.os_error}") from None
        except TimeoutError:
            raise TargetUnavailable(f"no answer within {self._timeout:g} s") from None
        except (aiohttp.ClientConnectionError, OSError) as why:
            said = getattr(why, "strerror", None) or type(why).__name__
            raise TargetUnavailable(f"the connection was lost: {said}") from None
        except aiohttp.ClientResponseError as why:
            # Not its text: that has the whole address, and a token may be in it.
            raise TryLater(f"the answer can't be read: {' '.join(why.message.split())[:200] or type(why).__name__}") from None
        except aiohttp.ClientError as why:
            raise TryLater(f"the answer can't be read ({type(why).__name__})") from None

    async def close(self) -> None:
        """Close what is open. A later request opens it again."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _request(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        if self._session is None:
            self._session = self._open()
        async with self._session.request(
            method,
            URL(url, encoded=True),
            headers=CIMultiDict(headers),
            data=body or None,
            allow_redirects=False,
        ) as response:
            kept = bytearray()
            # The status is what counts, and it was said: a body that is cut or stalls changes nothing.
            with suppress(aiohttp.ClientError, TimeoutError):
                while len(kept) < self._largest and (part := await response.content.read(self._largest - len(kept))):
                    kept += part
            if not response.content.at_eof():
                response.close()
            return Answer(status=response.status, headers=response.headers, body=bytes(kept))

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=self._tls if self._tls is not None else True),
            timeout=aiohttp.ClientTimeout(total=self._timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            # A small answer may stand for a very large one.
            auto_decompress=False,
            skip_auto_headers=("Content-Type", "Accept-Encoding", "User-Agent"),
            max_line_size=MAX_HEADER,
            max_field_size=MAX_HEADER,
        )
