"""Takes secrets out of JSON before anything is stored, streamed or logged. Called by a source's `decode`.

Nearly every payload has no secret, so the first question is cheap: squeeze the bytes to ten letters, search those for what
is left of the secret words, and stop when nothing is there. Only a hit is parsed, scrubbed by key at every depth, and
encoded anew; what can't be parsed is cut off before the first hit.

A key is secret by its letters alone, in any case: `adminPass`, `admin_pass` and `admin-pass` are one word.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import msgspec

from vedette.errors import NotUnderstood

MASK = "***"
"""What stands where a secret was."""

MAX_DEPTH = 200
"""Levels of nesting, JSON inside strings included. Real payloads have up to 14; the parser's own limit is near 1,000."""

WORDS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "adminpass",
    "secret",
    "token",
    "privatekey",
    "credential",
    "connectioninfo",
    "connector",
    "userdata",
    "servicecatalog",
    "apikey",
    "providerauth",
)
"""A key whose letters contain one of these is secret; so is one that ends in `pass`."""


def scrub(payload: bytes) -> bytes:
    """The same JSON with every secret replaced by `"***"`; the very same bytes when there is none.

    Raises NotUnderstood when a payload is nested deeper than MAX_DEPTH, or may hold a secret and isn't JSON.
    """
    few = payload.translate(_FEW, _NOT_FEW)
    # Counting the brackets that open answers it for all but huge payloads.
    if few.count(b"{") > MAX_DEPTH and _too_deep(payload):
        raise NotUnderstood(f"the payload is nested deeper than {MAX_DEPTH} levels")
    if not _suspicious(payload, few):
        return payload
    try:
        value = _decoder.decode(payload)
    except msgspec.DecodeError as why:
        raise NotUnderstood(f"the payload is not JSON: {why}") from None
    return _encoder.encode(_clean(value, 0))


def scrub_text(body: bytes, most: int) -> tuple[str, int]:
    """What a person may see of a message that could not be read, at most `most` bytes of it; and how many of its bytes
    are withheld because a secret may be in them (not those that `most` leaves out)."""
    try:
        shown = scrub(body)
        if shown is not body or _is_json(body):
            return _cut(shown, most), 0
    except NotUnderstood:
        pass  # Not JSON (or absurd): what stands before the first hit can be shown.
    if not suspicious(body):
        return _cut(body, most), 0
    shown = _before_hit(body)
    return _cut(shown, most), len(body) - len(shown)


def is_secret(key: str) -> bool:
    """Whether a value under this key is a secret."""
    # The same few keys come again and again; those that no service would use are not remembered (a key may have megabytes).
    return _is_secret(key) if len(key) <= 100 else _is_secret.__wrapped__(key)


@functools.lru_cache(maxsize=8192)
def _is_secret(key: str) -> bool:
    return _SECRET_KEY.search(_NO_LETTERS.sub("", key.lower())) is not None


def suspicious(payload: bytes) -> bool:
    """Whether a secret may be in these bytes: never wrongly no.

    Two strokes, since each search for a word costs about a microsecond in 2 KB: on a few of the letters first, and on
    all letters for the few that are left. Escapes (`\\u0070assword`) hide letters, so they count as a hit.
    """
    return _suspicious(payload, payload.translate(_FEW, _NOT_FEW))


def _suspicious(payload: bytes, few: bytes) -> bool:
    for stem in _FEW_STEMS:
        if stem in few:
            letters = payload.translate(_LETTERS, _NOT_LETTERS)
            if any(stem in letters for stem in _STEMS):
                return True
            break
    return b"gAAAA" in payload or (b"\\" in payload and b"\\u00" in payload)


def _too_deep(payload: bytes) -> bool:
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", payload)):
        depth += 1 if bracket in b"{[" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def _keep(letters: bytes) -> tuple[bytes, bytes]:
    """Arguments for bytes.translate that leave only these letters, in lower case (and `[` as `{`)."""
    lower = bytes(range(256)).lower().replace(b"[", b"{")
    return lower, bytes(c for c in range(256) if lower[c] not in letters)


_STEMS = tuple(word.encode() for word in ("pass", *(w for w in WORDS if "pass" not in w)))
"""What to look for among the letters: a hit is not yet a secret."""

# Found by hill-climbing over the captured payloads: these letters leave a fifth of their bytes, and every word leaves one of
# these stems, which one payload in twenty has by chance (`connectivity`). A test holds words and stems together.
_FEW, _NOT_FEW = _keep(b"abchkprstu{")
_FEW_STEMS = (b"crt", b"tk", b"cct", b"pass", b"srcca", b"apk", b"prrau", b"usrat")
_LETTERS, _NOT_LETTERS = _keep(b"abcdefghijklmnopqrstuvwxyz{")

_NAME = re.compile(r"[A-Za-z_-]{1,40}", re.ASCII)
_NO_LETTERS = re.compile(r"[^a-z{\[]+")
_SECRET_KEY = re.compile("|".join((*WORDS, "pass$")))
_KEY_IN_TEXT = (
    "(?:"
    + "|".join(
        "[^a-z]{0,2}".join(parts)
        for parts in (
            ("pass",),
            ("secret",),
            ("token",),
            ("private", "key"),
            ("credential",),
            ("connection", "info"),
            ("connector",),
            ("user", "data"),
            ("service", "catalog"),
            ("api", "key"),
            ("provider", "auth"),
        )
    )
    + ")"
)
_FIRST_HIT = re.compile((_KEY_IN_TEXT + r"|gaaaa|\\u00").encode(), re.IGNORECASE)
_ASSIGNED = re.compile(
    # token=abc, password = 'abc' and the repr of a dict ('auth_token': 'abc'), as found in tracebacks.
    rf"""([\w-]*{_KEY_IN_TEXT}[\w-]*(?:["']?\s*=\s*|["']\s*:\s*)u?)("[^"]*"|'[^']*'|[^\s"',;&)}}\]]+)""",
    re.IGNORECASE,
)
_FERNET = re.compile(r"gAAAA[\w=-]*")
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[][{}]")

# Numbers with a fraction keep their text: what is no secret stays as it was sent.
_decoder = msgspec.json.Decoder(float_hook=msgspec.Raw)
_encoder = msgspec.json.Encoder()


def _clean(value: Any, depth: int) -> Any:
    """Secrets out by key first; then, if what is left could still hold one inside a text, text by text."""
    texts: list[str] = []
    masked = _mask(value, depth, texts)
    # One look at all texts together: each look has a price, and hardly any text has a secret. (A word that stands across the
    # border of two is a look for nothing.)
    return _clean_texts(masked, depth) if suspicious("\n".join(texts).encode("utf-8", "surrogatepass")) else masked


def _mask(value: Any, depth: int, texts: list[str]) -> Any:
    """The value with what stands under secret keys replaced; the texts that are left are put into `texts`."""
    if isinstance(value, str):
        texts.append(value)
        return value
    if isinstance(value, dict):
        if depth > MAX_DEPTH:
            raise NotUnderstood(f"the payload is nested deeper than {MAX_DEPTH} levels")
        found = {}
        for key, item in value.items():
            if is_secret(key):
                found[key] = MASK if item is not None else None
                if _NAME.fullmatch(key):
                    continue  # the name of a secret, not one that somebody used as a key
            else:
                found[key] = _mask(item, depth + 1, texts)
            texts.append(key)
        return found
    if isinstance(value, list):
        if depth > MAX_DEPTH:
            raise NotUnderstood(f"the payload is nested deeper than {MAX_DEPTH} levels")
        return [_mask(item, depth + 1, texts) for item in value]
    return value


def _clean_texts(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _clean_text(value, depth)
    if isinstance(value, dict):
        return {_clean_text(key, depth): _clean_texts(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean_texts(item, depth + 1) for item in value]
    return value


def _clean_text(text: str, depth: int) -> str:
    """A string: tokens and keys in it, JSON in it, `name=secret` in it."""
    raw = text.encode()
    if not suspicious(raw):
        return text
    if text.lstrip()[:1] in ("{", "["):
        try:
            inner = _decoder.decode(raw)
        except (msgspec.DecodeError, RecursionError):
            return _withheld(raw)
        cleaned = _clean(inner, depth + 1)
        return text if cleaned == inner else _encoder.encode(cleaned).decode()
    text = _FERNET.sub(MASK, text)
    text = _PEM.sub(MASK, text)
    return _ASSIGNED.sub(rf"\1{MASK}", text)


def _withheld(raw: bytes) -> str:
    """For JSON that was cut off, or the repr of a dict: nobody can say where the secret ends."""
    shown = _before_hit(raw)
    return f"{shown.decode(errors='replace')}{MASK} ({len(raw) - len(shown)} bytes withheld)"


def _before_hit(raw: bytes) -> bytes:
    hit = _FIRST_HIT.search(raw)
    # A word that only shows between foreign bytes (UTF-16, binary) has no place to cut at: nothing is shown.
    return raw[: hit.start()] if hit else b""


def _is_json(body: bytes) -> bool:
    try:
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _cut(shown: bytes, most: int) -> str:
    return shown[:most].decode(errors="replace")
