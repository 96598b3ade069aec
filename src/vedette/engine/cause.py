"""Which of the events that come in a handler has caused itself: the request ids that its calls carry, made and recognised.

A call to an OpenStack API may carry a request id of the caller's (`X-Openstack-Request-Id: req-<uuid>`); what comes of it is
notified with that id as its `global_request_id`. Ours say by whom and how deep in a chain, so nothing has to be kept: version 8
UUIDs (RFC 9562 §5.8, "vendor-specific") of 6 bytes that name the handler, the depth, a mark, and 7 that tell calls apart.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import msgspec

from vedette.model.notice import Notice

_MARK = 0xE5
"""The byte that tells our version 8 UUIDs from others'."""
DEEPEST = 15
"""Four bits of depth; a chain is cut long before (`max_depth`)."""
_ID = re.compile(r"req-([0-9a-f]{8})-([0-9a-f]{4})-(8[0-9a-f]{3})-([0-9a-f]{4})-([0-9a-f]{12})", re.ASCII)


class Cause(msgspec.Struct, frozen=True):
    """Where an event comes from: a handler's reaction to an event that …"""

    handler: bytes
    """Its name's digest, see `named`."""
    depth: int
    """1: a reaction to an event that nobody of ours caused."""


@lru_cache(maxsize=10_000)
def named(handler: str) -> bytes:
    return hashlib.blake2b(handler.encode(), digest_size=6).digest()


def request_id(handler: str, revision: int, number: int, depth: int) -> str:
    """The same for the same delivery, so a call made twice has one id."""
    rest = hashlib.blake2b(f"{handler}/{revision}/{number}".encode(), digest_size=8).digest()
    raw = bytearray(named(handler) + bytes((0x80 | min(depth, DEEPEST), _MARK)) + rest)
    raw[8] = 0x80 | (raw[8] & 0x3F)  # the variant of RFC 9562
    text = raw.hex()
    return f"req-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def cause_of(notice: Notice) -> Cause | None:
    """None: nobody of ours caused it, as far as it says."""
    for text in (notice.global_request_id, notice.request_id):
        if text and (match := _ID.fullmatch(text)):
            raw = bytes.fromhex("".join(match.groups()))
            if raw[7] == _MARK:
                return Cause(raw[:6], raw[6] & 0x0F)
    return None
