"""Text that never prints. Whoever needs it says `reveal()`, and that word can be searched for."""

from __future__ import annotations

import hmac
import re

MASK = "***"

_PASSWORD = re.compile(r"(://[^:/?#]*):.*@", re.DOTALL)
_IN_QUERY = re.compile(
    r"([?&][\w.-]*(?:password|passwd|secret|token|signature|credential|api[_-]?key|access[_-]?key|auth)=)[^&#\s]+", re.IGNORECASE
)


class Secret:
    """A password or a token. `str`, `repr` and `format` give `***`; JSON encoders refuse it."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself: for the one call that needs it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(_bytes(self), _bytes(other))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __str__(self) -> str:
        return MASK if self._text else ""

    def __repr__(self) -> str:
        return f"Secret({str(self)!r})"

    def __format__(self, spec: str) -> str:
        return format(str(self), spec)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is not pickled")


def _bytes(secret: Secret) -> bytes:
    return secret.reveal().encode(errors="surrogatepass")


def without_password(text: str) -> str:
    """A URL with `***` in the place of its password, and of what its query calls a token or the like; any other text as it is."""
    return _IN_QUERY.sub(rf"\1{MASK}", _PASSWORD.sub(rf"\1:{MASK}@", text))
