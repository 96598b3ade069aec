"""Hands mail to an SMTP server: a message and its recipients come in, what the server refused goes out.

A connection for each message: mails are seldom, and servers end idle connections. What a refusal means for the delivery is
decided in handlers/mail.py. RFC 5321, over aiosmtplib.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal, cast

import aiosmtplib
import msgspec

from vedette.errors import GiveUp, TargetUnavailable, TryLater
from vedette.kit.secret import Secret

Security = Literal["starttls", "tls", "none"]

CLOSING = 3.0
"""Seconds for a polite goodbye, once the message is handed over."""
LONGEST = 500
"""Characters of a server's answer that are kept."""
CLOSES = 421
"""The server's code for: I am closing the connection, come again when I am back."""


class Refusal(msgspec.Struct, frozen=True):
    """The server's answer to one recipient. 4xx: perhaps later; 5xx: never."""

    code: int
    text: str

    def __str__(self) -> str:
        return f"{self.code} {self.text}"


class MailClient:
    """One server and how to speak to it."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        security: Security,
        tls: ssl.SSLContext,
        username: str = "",
        password: Secret | None = None,
        timeout: float,
    ) -> None:
        """`security`: TLS by STARTTLS, from the first byte, or none. `timeout`: seconds for one message, connecting included."""
        self._host, self._port = host, port
        self._security = security
        self._tls = tls
        self._username, self._password = username, password or Secret()
        self._timeout = timeout

    async def send(self, sender: str, recipients: Sequence[str], message: bytes) -> Mapping[str, Refusal]:
        """The recipients that were refused, with why; the others' mail is the server's now. When all were, it has none.

        Raises TargetUnavailable (no connection, TLS that isn't right, we or our credentials are refused, no answer in time),
        TryLater (4xx for the message), GiveUp (5xx for it).
        """
        smtp = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            timeout=self._timeout,
            use_tls=self._security == "tls",
            start_tls=self._security == "starttls",
            tls_context=self._tls,
            # Its default asks the resolver, perhaps for a long time.
            local_hostname=socket.gethostname() or "localhost",
        )
        transport: asyncio.BaseTransport | None = None
        try:
            async with asyncio.timeout(self._timeout):
                await smtp.connect()
                transport = smtp.transport
                if self._username:
                    await smtp.login(self._username, self._password.reveal())
                answers, _ = await smtp.sendmail(sender, list(recipients), message)
            refused = {one: _refusal(answer.code, answer.message) for one, answer in answers.items()}
            # It is handed over: whatever happens now must not make it come twice.
            with suppress(aiosmtplib.SMTPException, OSError):
                await smtp.quit(timeout=CLOSING)
        except TimeoutError:
            raise TargetUnavailable(f"no answer within {self._timeout:g} s") from None
        except aiosmtplib.SMTPRecipientsRefused as why:
            refused = {one.recipient: _refusal(one.code, one.message) for one in why.recipients}
        except aiosmtplib.SMTPAuthenticationError as why:
            raise TargetUnavailable(f"our user name or password is refused: {_refusal(why.code, why.message)}") from None
        except (aiosmtplib.SMTPConnectResponseError, aiosmtplib.SMTPHeloError) as why:
            raise TargetUnavailable(str(_refusal(why.code, why.message))) from None
        except aiosmtplib.SMTPResponseException as why:
            said = str(_refusal(why.code, why.message))
            if why.code == CLOSES or not 200 <= why.code < 600:  # what is no answer at all has the code -1
                raise TargetUnavailable(said) from None
            raise (GiveUp if 500 <= why.code < 600 else TryLater)(said) from None
        except ssl.SSLError as why:
            raise TargetUnavailable(f"TLS: {why.reason or why}") from None
        except (aiosmtplib.SMTPException, OSError) as why:
            raise TargetUnavailable(" ".join(str(why).split())[:LONGEST] or type(why).__name__) from None
        finally:
            transport = transport or smtp.transport
            smtp.close()
            if transport is not None:
                # Closing alone waits for a TLS goodbye, up to half a minute.
                cast(asyncio.WriteTransport, transport).abort()
        if any(one.code == CLOSES for one in refused.values()):
            raise TargetUnavailable(str(next(one for one in refused.values() if one.code == CLOSES)))
        return refused


def _refusal(code: int, text: str) -> Refusal:
    return Refusal(code, " ".join(text.split())[:LONGEST])
