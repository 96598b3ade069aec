"""What a caller wants back: the `Accept` header and the booleans of a query come in, choices go out. Routes are next.

Chosen as a kube-apiserver chooses (apiserver `negotiation.NegotiateMediaTypeOptions`): the first media type, by q and then by
order, that we can serve. An `as=` that we don't know is passed over, so every client that names plain JSON last gets it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec

from vedette.errors import BadRequest, NotAcceptable

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
MOST_TYPES = 64
"""Media types of one header that are looked at; what stands behind them is not."""


class MediaType(msgspec.Struct, frozen=True):
    """One entry of an Accept header, all lower case but the values of its parameters."""

    type: str
    """`application/json`, `*/*`"""
    params: Mapping[str, str]
    q: float = 1.0

    def covers(self, type_: str) -> bool:
        """Whether `type_` is what it names: itself, `application/*` or `*/*`."""
        return self.type in ("*/*", type_) or self.type == type_.partition("/")[0] + "/*"

    def transform(self) -> tuple[str, str, str] | None:
        """(as, group, version), e.g. ("Table", "meta.k8s.io", "v1"); None without an `as`."""
        return (self.params["as"], self.params.get("g", ""), self.params.get("v", "")) if self.params.get("as") else None


class Accepted(msgspec.Struct, frozen=True):
    """How to answer."""

    form: Literal["json", "table", "partial"] = "json"
    """`partial`: PartialObjectMetadata, or the list of it."""
    sse: bool = False
    """As Server-Sent Events, where the route streams."""


_FORMS: Mapping[tuple[str, str, str], Literal["table", "partial"]] = {
    ("Table", "meta.k8s.io", "v1"): "table",
    ("PartialObjectMetadata", "meta.k8s.io", "v1"): "partial",
    ("PartialObjectMetadataList", "meta.k8s.io", "v1"): "partial",
}


@functools.lru_cache(maxsize=256)
def accepted(header: str) -> Accepted:
    """The answer that an `Accept` header asks for; "" is plain JSON. Raises NotAcceptable when it names nothing we have."""
    if not header.strip():
        return Accepted()
    for wanted in media_types(header):
        if wanted.type == EVENT_STREAM:
            return Accepted(sse=True)
        if not wanted.covers(JSON):
            continue
        transform = wanted.transform()
        if transform is None:
            return Accepted()
        if transform in _FORMS:
            return Accepted(form=_FORMS[transform])
    raise not_acceptable((JSON, EVENT_STREAM))


def media_types(header: str) -> list[MediaType]:
    """The entries of an Accept header, the most wanted first (RFC 9110 §12.5.1). What can't be read, or has q=0, is left out.

    Only q orders them, as in Kubernetes; that the more specific one wins is not followed there either.
    """
    found: list[MediaType] = []
    for entry in header.split(",", MOST_TYPES)[:MOST_TYPES]:
        name, *rest = entry.split(";")
        type_ = name.strip().lower()
        if type_ == "*":
            type_ = "*/*"  # Java's URLConnection says it so
        if type_.count("/") != 1 or not all(type_.split("/")):
            continue
        params: dict[str, str] = {}
        for part in rest:
            key, _, value = part.partition("=")
            params[key.strip().lower()] = value.strip().strip('"')
        q = _quality(params.pop("q", "1"))
        if q > 0:
            found.append(MediaType(type_, params, q))
    return sorted(found, key=lambda media: -media.q)


def not_acceptable(types: Iterable[str]) -> NotAcceptable:
    return NotAcceptable(f"only the following media types are accepted: {', '.join(types)}")


def _quality(text: str) -> float:
    """As Kubernetes' parser: what is no number is 1."""
    try:
        q = float(text)
    except ValueError:
        return 1.0
    return q if 0 <= q <= 1 else 1.0


def truthy(text: str) -> bool:
    """A boolean of a query, as Go's strconv.ParseBool reads it; "" (it isn't there) is False. Raises BadRequest."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("", "0", "f", "F", "false", "FALSE", "False"):
        return False
    raise BadRequest(f"{text[:40]!a} is no boolean: use true or false")
