"""Label and field selectors: two texts of a query come in, a value that decides about objects goes out.

The grammar is Kubernetes' (apimachinery `labels.Parse` and `fields.ParseSelector`). `api/` parses, `engine/watch.py` groups equal
values and asks `matches` for every change, a list asks it for every item. Who may see what is not decided here: `ports.Scope`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from vedette.errors import BadRequest
from vedette.model.fold import name_of

LONGEST = 4096
"""Characters of one selector."""
MOST_TERMS = 32
"""Terms of both selectors together. With LONGEST it bounds what one event may cost."""
SOURCE_LABEL = "vedette.dev/source"

Operator = Literal["in", "notin", "exists", "absent", "gt", "lt"]


class LabelTerm(msgspec.Struct, frozen=True):
    """One requirement. `=` and `==` are `in` with one value, `!=` is `notin`."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()
    bound: int = 0
    """Of `gt` and `lt`."""

    def holds(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        if self.operator == "in":
            return value is not None and value in self.values
        if self.operator == "notin":
            return value is None or value not in self.values
        if self.operator == "exists":
            return value is not None
        if self.operator == "absent":
            return value is None
        if value is None or not _INTEGER.fullmatch(value):
            return False
        return int(value) > self.bound if self.operator == "gt" else int(value) < self.bound

    def order(self) -> tuple[str, str, list[str], int]:
        return self.key, self.operator, sorted(self.values), self.bound


class FieldTerm(msgspec.Struct, frozen=True):
    """`path=value` or, not `equal`, `path!=value`. `path` are keys under `status` (of the object itself, where the selector is
    `whole`), or ("metadata", "name" | "namespace")."""

    path: tuple[str, ...]
    value: str
    equal: bool


class Selector(msgspec.Struct, frozen=True):
    """Which objects a caller asked for. Equal however it was written: sorted, without repetitions. Made by `parse`."""

    meta: tuple[FieldTerm, ...] = ()
    """About metadata.name and metadata.namespace."""
    labels: tuple[LabelTerm, ...] = ()
    status: tuple[FieldTerm, ...] = ()
    """About fields under `status`, their path starts below it; where it is `whole`, about any field of the object."""
    whole: bool = False
    """For objects of another Kubernetes API, which have a `spec` and more: `matches` is given the whole object as `status`."""
    everything: bool = True
    """It selects every object."""
    needs_body: bool = False
    """`matches` looks at `status` or at a label other than SOURCE_LABEL; when False `status` may be left empty."""
    name: str | None = None
    """The metadata.name that an object must have, for a look-up by name; None: any. It still has to match."""
    namespace: str | None = None
    """The same for metadata.namespace."""

    def matches(self, name: str, namespace: str, labels: Mapping[str, str], status: Mapping[str, Any]) -> bool:
        """Whether the object is selected. All terms must hold.

        Label terms are Kubernetes': `!=` and `notin` hold for an object that lacks the label.

        Field terms compare text. true, false and numbers are the text they are served as. A path goes through lists: it leads
        to every element, and `=` holds when one of them is equal; `!=` is always the opposite of `=`. What is not there (no such
        key, an empty list or object) is "", as in Kubernetes, and null is both "" and "null". An object with content equals
        nothing. Where keys themselves have dots (a server's `metadata`), the rest of the path is tried as one key too.
        """
        for field in self.meta:
            if ((name if field.path[1] == "name" else namespace) == field.value) is not field.equal:
                return False
        for label in self.labels:
            if not label.holds(labels):
                return False
        return all(_has(status, field.path, field.value) is field.equal for field in self.status)


EVERYTHING = Selector()


def parse(label_selector: str, field_selector: str, *, whole: bool = False) -> Selector:
    """Both selectors of a request as one value; "" selects everything. Raises BadRequest, whose text says what is wrong.

    Fields that may be named: metadata.name, metadata.namespace, anything under `status.`, and `object.id`: the object's id
    (WEaaS' name for it). `whole`: any path of the object (`spec.host`, `type`), which is more than an API server takes.
    """
    if not label_selector and not field_selector:
        return EVERYTHING
    labels = _labels(_short(label_selector, "labelSelector"))
    fields = _fields(_short(field_selector, "fieldSelector"))
    if len(labels) + len(fields) > MOST_TERMS:
        raise BadRequest(f"the selectors have {len(labels) + len(fields)} terms; at most {MOST_TERMS} are allowed")
    meta: set[FieldTerm] = set()
    status: set[FieldTerm] = set()
    for path, equal, value in fields:
        if path in ("metadata.name", "metadata.namespace"):
            meta.add(FieldTerm(tuple(path.split(".")), value, equal))
        elif whole and all(path.split(".")):
            status.add(FieldTerm(tuple(path.split(".")), value, equal))
        elif path == "object.id":
            meta.add(FieldTerm(("metadata", "name"), name_of(value), equal))
        elif path.startswith("status.") and all(path.split(".")):
            status.add(FieldTerm(tuple(path.split("."))[1:], value, equal))
        else:
            raise BadRequest(
                f"field label not supported: {_quoted(path)}; "
                f"a field selector may name {'any path of the object' if whole else _NAMED}"
            )
    pinned = {term.path[1]: term.value for term in sorted(meta, key=_field_order) if term.equal}
    return Selector(
        meta=tuple(sorted(meta, key=_field_order)),
        labels=tuple(sorted(set(labels), key=LabelTerm.order)),
        status=tuple(sorted(status, key=_field_order)),
        whole=whole,
        everything=not (meta or labels or status),
        needs_body=bool(status) or any(term.key != SOURCE_LABEL for term in labels),
        name=pinned.get("name"),
        namespace=pinned.get("namespace"),
    )


_NAMED = "metadata.name, metadata.namespace, object.id and status.…"


def _field_order(term: FieldTerm) -> tuple[tuple[str, ...], str, bool]:
    return term.path, term.value, term.equal


def _short(text: str, what: str) -> str:
    if len(text) > LONGEST:
        raise BadRequest(f"{what} has {len(text)} characters; at most {LONGEST} are allowed")
    return text


def _quoted(text: str) -> str:
    """For an error's text: never long, nothing that a terminal acts on."""
    return ascii(text if len(text) <= 80 else text[:80] + "…")


# --- fields ----------------------------------------------------------------------------------------------------------------


def _has(value: Any, path: tuple[str, ...], wanted: str) -> bool:
    """Whether `wanted` is the text of what `path` leads to; see `Selector.matches`."""
    for at, key in enumerate(path):
        if isinstance(value, dict):
            rest = ".".join(path[at:])
            if rest != key and rest in value:
                value = value[rest]
                break
            if key not in value:
                return wanted == ""
            value = value[key]
        elif isinstance(value, list):
            return any(_has(item, path[at:], wanted) for item in value) if value else wanted == ""
        else:
            return wanted == ""
    if isinstance(value, str):
        return value == wanted
    if value is None:
        return wanted in ("", "null")
    if isinstance(value, list):
        return any(_has(item, (), wanted) for item in value) if value else wanted == ""
    if isinstance(value, dict):
        return not value and wanted == ""
    # As it is served: `true`, `4`, `1.5`, `1e22`.
    return msgspec.json.encode(value) == wanted.encode()


def _fields(text: str) -> list[tuple[str, bool, str]]:
    """(path, equal, value) of each term."""
    return [_field(term) for term in _FIELD_TERM.findall(text) if term]


_FIELD_TERM = re.compile(r"(?:\\.|[^,\\]|\\$)+", re.DOTALL)
"""Up to a comma that no backslash escapes."""
_FIELD_OPERATOR = re.compile(r"!=|==|=")
_ESCAPED = re.compile(r"\\([\\,=])")


def _field(term: str) -> tuple[str, bool, str]:
    found = _FIELD_OPERATOR.search(term)
    if found is None:
        raise BadRequest(f"invalid field selector {_quoted(term)}: there is no =, == or != in it")
    value = term[found.end() :]
    plain = _ESCAPED.sub("", value)
    if "\\" in plain or "=" in plain:
        raise BadRequest(
            f"invalid field selector {_quoted(term)}: a value writes \\ , = as \\\\ \\, \\= and escapes nothing else"
        )
    return term[: found.start()], found[0] != "!=", _ESCAPED.sub(r"\1", value)


# --- labels ----------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[ \t\r\n]*(?:(==|!=|[=!(),<>])|([^ \t\r\n=!(),<>]+))")
_LABEL_NAME = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9]")
_LABEL_PREFIX = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*")
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_END = ""


def _labels(text: str) -> list[LabelTerm]:
    """The terms in the order of the text. One pass over the words, one term at a time."""
    words = _words(text)
    at = 0

    def take() -> str:
        nonlocal at
        at += 1
        return words[at - 1]

    terms: list[LabelTerm] = []
    if words[0] == _END:
        return terms
    while True:
        terms.append(_label(take, lambda: words[at]))
        after = take()
        if after == _END:
            return terms
        if after != ",":
            raise _unexpected(after, "',' or the end")
        if words[at] == _END:
            raise _unexpected(_END, "a label after ','")


def _words(text: str) -> list[str]:
    """Words and symbols, and `_END`."""
    words: list[str] = []
    at = 0
    text = text.rstrip(" \t\r\n")
    while at < len(text):
        found = _TOKEN.match(text, at)
        assert found is not None  # every character is white space, a symbol or part of a word
        words.append(found[1] or found[2])
        at = found.end()
    return [*words, _END]


def _label(take: Callable[[], str], look: Callable[[], str]) -> LabelTerm:
    word = take()
    if word == "!":
        return LabelTerm(_key(take()), "absent")
    key = _key(word)
    if look() in (_END, ","):
        return LabelTerm(key, "exists")
    operator = take()
    if operator in ("=", "==", "!="):
        return LabelTerm(key, "notin" if operator == "!=" else "in", frozenset((_one(take, look),)))
    if operator in ("in", "notin"):
        return LabelTerm(key, "in" if operator == "in" else "notin", _several(take, look))
    if operator in (">", "<"):
        value = _one(take, look)
        if not _INTEGER.fullmatch(value):
            raise BadRequest(f"unable to parse the label selector: {key} {operator} {_quoted(value)}: not an integer")
        return LabelTerm(key, "gt" if operator == ">" else "lt", bound=int(value))
    raise _unexpected(operator, "one of in, notin, =, ==, !=, >, <")


def _one(take: Callable[[], str], look: Callable[[], str]) -> str:
    """The value after `=`; none is ""."""
    return "" if look() in (_END, ",") else _value(take())


def _several(take: Callable[[], str], look: Callable[[], str]) -> frozenset[str]:
    """`(a, b)`. An empty place, as in `(a,)`, is ""."""
    if (word := take()) != "(":
        raise _unexpected(word, "'('")
    if look() == ")":
        raise BadRequest("unable to parse the label selector: for in and notin the values can't be empty")
    values: list[str] = []
    while True:
        values.append("" if look() in (",", ")") else _value(take()))
        word = take()
        if word == ")":
            return frozenset(values)
        if word != ",":
            raise _unexpected(word, "',' or ')'")


def _key(word: str) -> str:
    prefix, slash, name = word.rpartition("/")
    if (
        not _LABEL_NAME.fullmatch(name)
        or (slash and not _LABEL_PREFIX.fullmatch(prefix))
        or len(prefix) > 253
    ):  # fmt: skip
        raise BadRequest(
            f"unable to parse the label selector: {_quoted(word)} is no label: a label is `name` or `prefix/name`, the name "
            "at most 63 of A-Z a-z 0-9 - _ . with a letter or digit at both ends, the prefix a lower-case DNS name"
        )
    return word


def _value(word: str) -> str:
    if not _LABEL_NAME.fullmatch(word):
        raise BadRequest(
            f"unable to parse the label selector: {_quoted(word)} is no label value: at most 63 of A-Z a-z 0-9 - _ . "
            "with a letter or digit at both ends"
        )
    return word


def _unexpected(word: str, expected: str) -> BadRequest:
    return BadRequest(f"unable to parse the label selector: found {_quoted(word) if word else 'the end'}, expected {expected}")
