"""Sends a mail for each event.

An event comes in, a message goes to an SMTP server. A second delivery of the same event has the same Message-ID, by which mail
systems and people know it again. 4xx is tried later and 5xx is a dead letter. When the server takes the message for some of the
recipients, it is not sent to them again; those with 4xx are tried later, those with 5xx are named in the outcome.
(RFC 5321, 5322; RFC 3834 for `Auto-Submitted`)
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email import policy
from email.message import EmailMessage
from email.utils import format_datetime
from typing import Any

import msgspec

from vedette.clients.mail import MailClient, Refusal, Security
from vedette.clients.tls import client_context
from vedette.errors import ConfigError, GiveUp, TryLater
from vedette.handlers._target import excerpt
from vedette.handlers._template import Values, template
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.ports import Context, Event, HandlerNeeds

MOST_RECIPIENTS = 100
"""What every server has to take in one message (RFC 5321 §4.5.3.1.8)."""
LONGEST_SUBJECT = 500
MOST_KEPT = 1_000
"""Half-delivered messages of which we remember who has them. Past that (or after a restart) the oldest is forgotten, and its next
attempt goes to all recipients again, with the same Message-ID."""

_PORTS = {"starttls": 587, "tls": 465, "none": 25}
_POLICY = policy.SMTP.clone(cte_type="7bit")
"""Every server takes it, also one that knows no 8BITMIME."""
_ADDRESS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)

BODY = """\
{event.type} {event.verb}

object: {key}
source: {event.source}
time:   {event.time}
key:    {idempotency_key}

{object}
"""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """A mail for each event."""

    host: str
    """The SMTP server."""
    port: int = 0
    """Its port; 0: 587 with `starttls`, 465 with `tls`, 25 with `none`."""
    security: Security = "starttls"
    """`starttls`: TLS that is begun on a plain connection, and insisted on. `tls`: from the first byte. `none`: no TLS."""
    ca: FilePath = ""
    """PEM file of the authorities to trust; none: the system's."""
    username: str = ""
    """Where the server wants one. Not with `security: none`."""
    password: Secret = Secret()
    """Its password."""
    sender: str
    """Whose mail it is: `vedette@example.org` or `Vedette <vedette@example.org>`. What can't be delivered comes back there."""
    recipients: tuple[str, ...]
    """Who gets it, at most 100; in the same form."""
    subject: str = "{event.type} {key.kind} {key.id}"
    """The subject, a template of one line."""
    body: str = ""
    """The text, a template; none: what happened to what, when, and the object as JSON."""
    timeout: Seconds = 20.0
    """For one message, connecting included."""


def build(options: Options, needs: HandlerNeeds) -> MailHandler:
    """Raises ConfigError."""
    return MailHandler(options, needs)


class MailHandler:
    """See the module."""

    def __init__(self, options: Options, needs: HandlerNeeds) -> None:
        if not options.host or re.search(r"[\s\x00-\x1f/@]", options.host):
            raise ConfigError("wants a host's name or address", path="host")
        if not 0 <= options.port <= 65_535:
            raise ConfigError("wants a port, or 0", path="port")
        if bool(options.username) != bool(options.password):
            raise ConfigError("username and password go together", path="username")
        if options.username and options.security == "none":
            raise ConfigError("a password would travel in the open: set security to starttls or tls", path="security")
        if not 1 <= len(options.recipients) <= MOST_RECIPIENTS:
            raise ConfigError(f"wants 1 to {MOST_RECIPIENTS} recipients", path="recipients")
        if options.timeout <= 0:
            raise ConfigError("must be more than 0", path="timeout")
        self._sender = _address(options.sender, "sender")
        self._recipients = tuple(dict.fromkeys(_address(one, "recipients") for one in options.recipients))
        self._subject = template(options.subject, "line", path="subject")
        self._body = template(options.body or BODY, path="body")
        self._options = options
        self._clock = needs.clock
        self._settled: dict[str, dict[str, Refusal | None]] = {}
        """Idempotency key → recipient → None (has it) or why never; of messages that somebody is still to get."""
        self._client = MailClient(
            options.host,
            options.port or _PORTS[options.security],
            security=options.security,
            tls=client_context(ca=options.ca, whose=f"handler {needs.name}"),
            username=options.username,
            password=options.password,
            timeout=options.timeout,
        )

    async def handle(self, event: Event, context: Context) -> str:
        settled = self._settled.get(event.idempotency_key, {})
        waiting = [one for one in self._recipients if one not in settled]
        refused = await self._client.send(self._sender, waiting, self._message(event))
        later = {one: why for one, why in refused.items() if not 500 <= why.code < 600}
        settled = {**settled, **{one: refused.get(one) for one in waiting if one not in later}}
        has_it = sum(why is None for why in settled.values())
        if later:
            self._keep(event.idempotency_key, settled)
            raise TryLater(f"{has_it} of {len(self._recipients)} have it; not yet: {_said(later)}")
        self._settled.pop(event.idempotency_key, None)
        never = {one: why for one, why in settled.items() if why is not None}
        if not has_it:
            raise GiveUp(f"every recipient is refused: {_said(never)}")
        return f"sent to {has_it}" + (f"; refused: {_said(never)}" if never else "")

    async def close(self) -> None:
        """Nothing is open between messages."""

    def _message(self, event: Event) -> bytes:
        values = Values(event)
        message = EmailMessage(policy=_POLICY)
        message["From"] = self._options.sender
        message["To"] = ", ".join(self._options.recipients)
        message["Subject"] = excerpt(self._subject.fill(values), LONGEST_SUBJECT)
        message["Date"] = format_datetime(datetime.fromtimestamp(self._clock.now_us() / 1_000_000, UTC))
        name = hashlib.sha256(event.idempotency_key.encode()).hexdigest()[:32]
        message["Message-ID"] = f"<{name}@{self._sender.partition('@')[2]}>"
        # No vacation answers, please.
        message["Auto-Submitted"] = "auto-generated"
        message["X-Vedette-Idempotency-Key"] = excerpt(event.idempotency_key)
        message.set_content(self._body.fill(values).replace("\0", " "))
        return message.as_bytes()

    def _keep(self, key: str, settled: dict[str, Refusal | None]) -> None:
        if key not in self._settled and len(self._settled) >= MOST_KEPT:
            del self._settled[next(iter(self._settled))]
        self._settled[key] = settled


def _address(text: str, path: str) -> str:
    """`a@b` of `Name <a@b>`. Raises ConfigError."""
    message = EmailMessage(policy=_POLICY)
    found: tuple[Any, ...] = ()
    try:
        message["To"] = text
        found = () if message["To"].defects else message["To"].addresses
    except (ValueError, IndexError):
        pass
    if len(found) != 1 or not _ADDRESS.fullmatch(found[0].addr_spec):
        raise ConfigError(f"{text[:100]!a} is no address such as ops@example.org or Ops <ops@example.org>", path=path)
    return str(found[0].addr_spec)


def _said(refused: Mapping[str, Refusal]) -> str:
    return excerpt(", ".join(f"{one} ({why})" for one, why in refused.items()), 1_000)
