"""When certificates end: the listener's own, and those of whoever we connect to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path

from vedette.cli.finding import Finding, Findings

CERT_DAYS = 21
TLS_SECONDS = 5.0


async def check_certificate(
    about: str, host: str, port: int, ca: str, *, name: str = "", setting: str = "tls_ca, cacert"
) -> Findings:
    """The certificate of somebody we connect to. `name`: what it is made for, where that isn't `host`; `setting`: where the
    configuration names the CA."""
    try:
        context = ssl.create_default_context(cafile=ca or None)
        ends = await asyncio.to_thread(remote_certificate_end, host, port, context, name)
    except ssl.SSLCertVerificationError as why:
        yield Finding(
            "fail",
            about,
            f"the certificate of {host}:{port} is not accepted: {why.verify_message}",
            f"name the file of its CA in the configuration ({setting}), or use the host name it is made for",
        )
    except (OSError, ValueError) as why:
        # Whoever connects in earnest says more.
        yield Finding("note", about, f"no TLS handshake with {host}:{port}: {why}")
    else:
        yield expiry(about, f"of {host}:{port}", ends)


def expiry(about: str, what: str, ends: float) -> Finding:
    """A certificate's end (Unix seconds), judged."""
    days = (ends - time.time()) / 86_400
    when = datetime.fromtimestamp(ends, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if days < 0:
        return Finding(
            "fail", about, f"the certificate {what} ended at {when}", "renew it; the service reads the files again by itself"
        )
    if days < CERT_DAYS:
        return Finding("warn", about, f"the certificate {what} ends at {when}, in {days:.0f} days", "renew it")
    return Finding("ok", about, f"the certificate {what} is good until {when}")


def certificate_end(cert: Path, key: Path) -> float:
    """When a certificate ends, Unix seconds. Raises SSLError when it and the key don't belong together.

    Python reads a certificate's fields only out of a handshake; so one is made, in memory, with ourselves.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(cert, key)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.verify_mode = ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server)
    done: set[int] = set()
    for _ in range(10):
        for number, one in enumerate((client, server)):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
                done.add(number)
        if len(done) == 2:
            break
    der = client.getpeercert(binary_form=True)
    if der is None:
        raise ssl.SSLError("no certificate came out of a handshake")
    return not_after(der)


def not_after(der: bytes) -> float:
    """The end of a certificate's validity (RFC 5280 §4.1: Certificate → TBSCertificate → validity → notAfter), Unix seconds."""
    body = _inside(_inside(der, 0)[0], 0)[0]
    at = 0
    # version is tagged [0] and may be missing; then serial, signature, issuer come before validity.
    skip = 4 if body[0] == 0xA0 else 3
    for _ in range(skip):
        at = _inside(body, at)[1]
    validity = _inside(body, at)[0]
    _, second = _inside(validity, 0)
    text = _inside(validity, second)[0].decode("ascii")
    if validity[second] == 0x17:
        # UTCTime: two digits of a year, 50 and above are 19xx.
        text = ("19" if text[:2] >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _inside(der: bytes, at: int) -> tuple[bytes, int]:
    """The content of the value that begins at `at` (X.690 §8.1), and where the next one begins."""
    length = der[at + 1]
    start = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(der[start : start + count])
        start += count
    if start + length > len(der):
        raise ValueError("not a certificate")
    return der[start : start + length], start + length


def remote_certificate_end(host: str, port: int, context: ssl.SSLContext, name: str = "") -> float:
    """When the certificate of a TLS listener ends. Blocks for TLS_SECONDS at the most. Raises OSError (SSLError too)."""
    with (
        socket.create_connection((host, port), TLS_SECONDS) as raw,
        context.wrap_socket(raw, server_hostname=name or host) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        if der is None:
            raise ssl.SSLError("no certificate")
        return not_after(der)
