"""Conditions in CEL: a text comes in, a `Condition` goes out that says of each event whether it holds, and why not.

An expression sees four variables: `event` (the notice), `object` (the whole object as it is served, of DELETED its last content),
`old` (the state before) and `changed` (the dotted paths that differ between them). `engine/dispatch.py` asks for each handler,
`api/routes/events.py` for `filter=`. An evaluation that fails (a field that isn't there, a type that doesn't fit) is false and
never an error: `error` and `explain` tell.

CEL itself (github.com/google/cel-spec) is the library's. What is done here is around it: errors at load time with their position;
top-level conjuncts of the usual forms (`path == 'text'`, `'status.host' in changed`, …) are decided without it, with its own
outcome; and it is handed only the values that the rest refers to, since handing over an object costs it 5 µs a field.

Limits: an expression has 4,096 characters, 8 macros (`exists`, `all`, …) nested twice, 16 `+`. A list handed to CEL has 500
items, a text 64 KiB, all of it 20,000 values: with more, the evaluation fails. What a stranger sends (`filter=`) is held
tighter: also what all of its words could cost together is bounded, before CEL is asked.
"""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any, Literal, cast

import cel
import msgspec

from vedette.errors import ConfigError
from vedette.kit.clock import rfc3339_us
from vedette.model.change import Change, Version
from vedette.ports import EVERYTHING, Appended, Scope

MAX_TEXT = 4096
"""Characters of an expression."""
MAX_FILTER = 2048
"""Characters of an expression that a stranger sends."""
MAX_MACROS = 8
MAX_PLUS = 16
"""Texts can be doubled by it again and again."""
MAX_ITEMS = 500
"""Items of a list handed to CEL: what `map` and `filter` cost grows with the square of it (35 ms with 500)."""
MAX_CHARACTERS = 64 * 1024
"""Characters of a text handed to CEL."""
MAX_VALUES = 20_000
"""Values handed to CEL in all: 100 ms."""
FILTER_VALUES = 5_000
"""The same for a stranger: 25 ms."""
FILTER_WORK = 1_000_000
"""What a stranger's expression may cost at the worst: each of its words looks at every value that it is handed (and at every 16
characters of its texts), and inside a macro at what is named there for each item. 50 ms; a filter on a port is at some
hundreds."""
MAX_VALUE = 256
"""Characters of an expression's value as text; of a longer one the end is a digest."""
MAX_DEPTH = 32
"""Levels down to which `changed` looks; what is deeper is one path."""
MAX_SHOWN = 120
"""Characters of a value in an explanation."""

Verdict = bool | Literal["error"]
Path = tuple[str, ...]

EVENT_FIELDS = (
    "type", "source", "id", "time", "priority", "publisher", "request_id", "user", "project", "origin", "verb", "revision",
    "payload",
)  # fmt: skip
ROOTS = ("event", "object", "old", "changed")

_MACROS = frozenset({"exists", "all", "exists_one", "map", "filter"})
_METHODS = _MACROS | {
    "contains", "startsWith", "endsWith", "matches", "size",
    "getFullYear", "getMonth", "getDayOfYear", "getDayOfMonth", "getDate", "getDayOfWeek", "getHours", "getMinutes", "getSeconds",
    "getMilliseconds",
}  # fmt: skip
_FUNCTIONS = frozenset({"has", "size", "string", "int", "uint", "double", "bytes", "dyn", "type", "timestamp", "duration"})
_BOOLEAN_CALLS = frozenset({"has", "dyn", "exists", "all", "exists_one", "contains", "startsWith", "endsWith", "matches"})
_TYPES = frozenset({"int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"})
_WORDS = frozenset({"true", "false", "null", "in"})
_COMPARES = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_MISSING: Any = object()
_FAILED = (KeyError, TypeError)


class Part(msgspec.Struct, frozen=True):
    """One of the conditions that have to hold together."""

    text: str
    verdict: Verdict
    detail: str
    """What the event has there (`object.status.status is 'BUILD'`), or the error."""


# --- what is looked at ------------------------------------------------------------------------------------------------------


class View:
    """One event, seen by many conditions: decoded when it is first asked for and once; equal conditions are decided once.

    With another scope than an admin's it is what that caller is served: tenants' forms, no `old` that it may not see, no
    `publisher` and `user`, and of the payload what `payload` (raw JSON → raw JSON) leaves; without one, nothing.
    """

    __slots__ = (
        "_changed", "_object", "_old", "_paths", "_payload", "_payload_form", "_values", "_verdicts", "appended", "change",
        "scope",
    )  # fmt: skip

    def __init__(
        self,
        appended: Appended,
        change: Change | None,
        *,
        scope: Scope = EVERYTHING,
        payload: Callable[[msgspec.Raw], bytes] | None = None,
    ) -> None:
        self.appended = appended
        self.change = change
        self.scope = scope
        self._payload_form = payload
        self._verdicts: dict[str, bool] = {}
        self._object: Any = None
        self._old: Any = None
        self._payload: Any = _MISSING
        self._changed: list[str] | None = None
        self._paths: dict[str, bool] = {}
        self._values: dict[Path, Any] = {}

    @property
    def object(self) -> Any:
        """`{}` for a bare notice."""
        if self._object is None:
            self._object = self._decoded(self.change.now) if self.change is not None else {}
        return self._object

    @property
    def old(self) -> Any:
        """The state before; `{}` when there was none that the caller could see."""
        if self._old is None:
            before = self._before()
            self._old = self._decoded(before) if before is not None else {}
        return self._old

    @property
    def changed(self) -> list[str]:
        """The dotted paths that differ between `old` and `object`: leaves, and what they are in below the first level."""
        if self._changed is None:
            self._changed = changed_paths(self.old, self.object)
        return self._changed

    def has_changed(self, path: str) -> bool:
        """Whether a path is one of them."""
        found = self._paths.get(path)
        if found is None:
            found = path in self._changed if self._changed is not None else has_changed(self.old, self.object, path)
            self._paths[path] = found
        return found

    @property
    def payload(self) -> Any:
        """What the service said; `{}` when it isn't JSON or not for the caller."""
        if self._payload is _MISSING:
            raw: Any = self.appended.entry.notice.payload
            try:
                if self._payload_form is not None:
                    raw = self._payload_form(raw)
                elif not self.scope.admin:
                    raw = b"{}"
                self._payload = msgspec.json.decode(raw)
            except (msgspec.DecodeError, RecursionError):
                self._payload = {}
        return self._payload

    def event_field(self, name: str) -> Any:
        """One field of `event`; raises KeyError."""
        notice = self.appended.entry.notice
        match name:
            case "type":
                return notice.event_type
            case "payload":
                return self.payload
            case "source" | "id" | "request_id" | "origin":
                return getattr(notice, name)
            case "priority":
                return notice.priority.lower()
            case "publisher":
                return notice.publisher if self.scope.admin else ""
            case "user":
                return notice.actor_user if self.scope.admin else ""
            case "time":
                return rfc3339_us(notice.sent_at or self.appended.entry.appended_at)
            case "revision":
                return self.appended.entry.revision
            case "project":
                return self._project()
            case "verb":
                return self._verb()
        raise KeyError(name)

    def find(self, path: Path) -> Any:
        """The value at a path. Raises KeyError (not there), TypeError (nothing can be in what is on the way)."""
        found = self._values.get(path, _MISSING)
        if found is _MISSING:
            found = self._find(path)
            if len(path) > 1:  # a root is there already
                self._values[path] = found
        return found

    def _find(self, path: Path) -> Any:
        root = path[0]
        if root == "event":
            if len(path) == 1:
                return {name: self.event_field(name) for name in EVENT_FIELDS}
            value, start = self.event_field(path[1]), 2
        else:
            value, start = getattr(self, root), 1
        for name in path[start:]:
            if type(value) is not dict:
                raise TypeError(name)
            value = value[name]
        return value

    def _before(self) -> Version | None:
        before = self.change.before if self.change is not None else None
        return before if before is not None and (self.scope.admin or self.scope.sees(before)) else None

    def _verb(self) -> str:
        if self.change is None:
            return ""
        # As in a watch: what the caller could not see before is new to it.
        return "ADDED" if self.change.verb == "MODIFIED" and self._before() is None else self.change.verb

    def _project(self) -> str:
        """The object's, as everywhere: never the caller's."""
        if self.change is not None:
            return self.change.now.project
        return next((reading.project for reading in self.appended.entry.readings if reading.project), "")

    def _decoded(self, version: Version) -> Any:
        try:
            return msgspec.json.decode(version.admin_form() if self.scope.admin else version.tenant_form())
        except (msgspec.DecodeError, RecursionError):
            return {}


def changed_paths(old: Any, new: Any) -> list[str]:
    """What differs between two objects: the dotted path of each leaf (a list is one), and of each object around it below the
    first level, in the order of `new`. Not what changes with every revision or is only ours (`metadata.resourceVersion`,
    `generation`, `managedFields`, annotations under `vedette.dev/`)."""
    found: list[str] = []
    _changed_in("", old, new, 0, found)
    return found


def _changed_in(prefix: str, old: dict[str, Any], new: dict[str, Any], depth: int, found: list[str]) -> None:
    known = old.get
    for name, value in new.items():
        before = known(name, _MISSING)
        # Most fields are equal texts.
        if value is not before and not (type(value) is str and value == before):
            _changed_at(prefix + name, before, value, depth, found)
    if not old.keys() <= new.keys():
        for name, before in old.items():
            if name not in new:
                _changed_at(prefix + name, before, _MISSING, depth, found)


def _changed_at(path: str, before: Any, value: Any, depth: int, found: list[str]) -> None:
    if path in _OURS or path.startswith("metadata.annotations.vedette.dev/"):
        return
    inside = [one for one in (before, value) if one is not _MISSING]
    if depth < MAX_DEPTH and all(type(one) is dict for one in inside) and any(inside):
        place = len(found)
        _changed_in(f"{path}.", {} if before is _MISSING else before, {} if value is _MISSING else value, depth + 1, found)
        if depth and len(found) > place:
            found.insert(place, path)
    elif not _alike(before, value):
        found.append(path)


def has_changed(old: Any, new: Any, wanted: str, prefix: str = "", depth: int = 0) -> bool:
    """Whether `wanted` is one of `changed_paths`, without finding the others."""
    rest = wanted[len(prefix) :]
    ends = [place for place, letter in enumerate(rest) if letter == "."]
    for end in (*ends, len(rest)):  # a name may have dots in it
        name = rest[:end]
        before, value = old.get(name, _MISSING), new.get(name, _MISSING)
        if before is value:
            continue
        if end == len(rest):
            found: list[str] = []
            _changed_at(wanted, before, value, depth, found)
            if wanted in found:
                return True
            continue
        inside = [one for one in (before, value) if one is not _MISSING]
        if depth < MAX_DEPTH and all(type(one) is dict for one in inside) and wanted[: len(prefix) + end] not in _OURS:
            was, now = ({} if one is _MISSING else one for one in (before, value))
            if has_changed(was, now, wanted, f"{prefix}{name}.", depth + 1):
                return True
    return False


_OURS = frozenset({"metadata.resourceVersion", "metadata.generation", "metadata.managedFields"})


def _alike(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1, and 1 is 1.0."""
    if one != other:
        return False
    if type(one) is list:
        return all(map(_alike, one, other))
    if type(one) is dict:
        return all(_alike(value, other[name]) for name, value in one.items())
    return (type(one) is bool) == (type(other) is bool)


# --- conditions -------------------------------------------------------------------------------------------------------------


class Condition:
    """A compiled expression that holds or not. Equal texts are the same condition."""

    __slots__ = ("_conjuncts", "_native", "_rest", "text")

    def __init__(self, text: str, conjuncts: Sequence[_Conjunct], rest: _Program | None) -> None:
        self.text = text
        self._conjuncts = conjuncts
        self._native = tuple(one.native for one in conjuncts if one.native is not None)
        self._rest = rest

    @property
    def equalities(self) -> dict[Path, str]:
        """Paths that have to be at these texts for it to hold, as far as they are written `path == 'x'`."""
        return {one.path: one.wanted for one in self._native if isinstance(one, _Equals)}

    def holds(self, view: View) -> bool:
        """Never raises: what can't be evaluated doesn't hold."""
        verdicts = view._verdicts
        found = verdicts.get(self.text)
        if found is None:
            found = verdicts[self.text] = self._decide(view)
        return found

    def _decide(self, view: View) -> bool:
        # A conjunction holds when each part does, whatever the order; so what costs little comes first.
        for native in self._native:
            if native(view) is not True:
                return False
        return self._rest is None or self._rest.run(view)[0] is True

    def error(self, view: View) -> str:
        """Why it could not be evaluated; "" when it could."""
        if any(one.verdict(view)[0] is False for one in self._conjuncts):
            return ""
        return next((why for verdict, why in (one.verdict(view) for one in self._conjuncts) if verdict == "error"), "")

    def explain(self, view: View) -> list[Part]:
        """Each of the conditions joined by `&&`, whether it holds, and what the event has there."""
        return [one.explain(view) for one in self._conjuncts]


class Expression:
    """A compiled expression with a value: what events are grouped by."""

    __slots__ = ("_path", "_program", "text")

    def __init__(self, text: str, program: _Program, path: Path | None) -> None:
        self.text = text
        self._program = program
        self._path = path

    def value(self, view: View) -> str:
        """As text: a list or map is its JSON, what can't be evaluated is ""."""
        if self._path is None:
            found, why = self._program.run(view)
            return "" if why else _text(found)
        try:
            return _text(view.find(self._path))
        except _FAILED:
            return ""


def compile(text: str, *, path: str = "", stranger: bool = False) -> Condition:
    """Read a condition. `path` is where it stands in the configuration; `stranger`: a caller of the API sent it.

    Raises ConfigError with the position and a caret under it."""
    read = _Read(text, path, MAX_FILTER if stranger else MAX_TEXT, stranger=stranger)
    read.check()
    if stranger:
        read.check_stranger()
    if (place := _not_boolean(read.tokens)) is not None:
        raise read.wrong(place, "the expression is not a condition: it gives something else than true or false")
    conjuncts = [_conjunct(read, piece) for piece in _split(read.tokens)]
    others = [one for one in conjuncts if one.native is None]
    rest = None
    if others:
        rest = others[0].program if len(others) == 1 else _program(read, [one.tokens for one in others])
    return Condition(text, conjuncts, rest)


def expression(text: str, path: str = "") -> Expression:
    """Read an expression of any type. Raises ConfigError with the position."""
    read = _Read(text, path, MAX_TEXT)
    read.check()
    reference = _reference(read.tokens, 0)
    whole = reference is not None and reference[1] == len(read.tokens) and reference[0][0] in ROOTS
    return Expression(text, _program(read, [read.tokens]), reference[0] if whole and reference is not None else None)


def _text(value: Any) -> str:
    match value:
        case str():
            text = value
        case bool():
            text = "true" if value else "false"
        case None:
            text = "null"
        case int():
            text = str(value)
        case _:
            text = msgspec.json.encode(value, order="sorted", enc_hook=str).decode()
    if len(text) <= MAX_VALUE:
        return text
    digest = hashlib.blake2b(text.encode(errors="replace"), digest_size=16).hexdigest()
    return f"{text[: MAX_VALUE - len(digest) - 1]}…{digest}"


# --- evaluation -------------------------------------------------------------------------------------------------------------

_Native = Callable[[View], bool | None]
"""Decides without CEL; None: the evaluation fails."""


class _TooMuch(Exception):
    """More than may be handed to CEL."""


class _Program:
    """What CEL runs. What it refers to is found by us and handed over under names of our own, each value alone."""

    __slots__ = ("_given", "_program", "_repeated", "_words")

    def __init__(self, program: Any, given: dict[str, _Given], repeated: frozenset[str] = frozenset(), words: int = 0) -> None:
        """`repeated`: what is looked at inside a macro. `words`: of a stranger's expression, whose cost is bounded by them; 0: it
        is one of our own operator's."""
        self._program = program
        self._given = given
        self._repeated = repeated
        self._words = words

    def run(self, view: View) -> tuple[Any, str]:
        """The value, or why there is none."""
        try:
            values: dict[str, Any] = {}
            count = _Count(FILTER_VALUES if self._words else MAX_VALUES)
            for name, given in self._given.items():
                value = given.get(view)
                if value is not _MISSING:  # CEL finds it missing only when it comes to it: it may not need it
                    before = count.weight
                    count.add(value)
                    count.repeated += count.weight - before if name in self._repeated else 0
                    values[name] = value
            if self._words:
                count.check_work(self._words)
            return self._program.execute(values), ""
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as why:  # noqa: BLE001 - a panic of the Rust library is no Exception
            return None, self._reason(why)

    def _reason(self, why: BaseException) -> str:
        text = str(why)
        if isinstance(why, KeyError):
            return f"there is no {why.args[0] if why.args else 'such field'}"
        if isinstance(why, TypeError) and text.startswith("No such overload"):
            return "the types don't fit"
        if unknown := re.match(r"Undefined variable or function: '(.*?)'", text):
            given = self._given.get(unknown[1])
            return given.absent if given is not None else f"{unknown[1]} can't be called on this"
        return text.split(". ", 1)[0].split("\n", 1)[0][:200] or type(why).__name__


class _Given(msgspec.Struct, frozen=True):
    """A part of an expression that we work out ourselves."""

    get: Callable[[View], Any]
    """Its value; _MISSING: it has none."""
    absent: str
    """What to say then."""


class _Count:
    """Keeps what is handed to CEL bounded."""

    __slots__ = ("_characters", "_longest", "_most", "repeated", "values")

    def __init__(self, most: int) -> None:
        self.values = 0
        self.repeated = 0
        """Of the weight, what is looked at inside a macro."""
        self._most = most
        self._characters = 0
        self._longest = 1
        """Items of the longest list or map."""

    @property
    def weight(self) -> int:
        return self.values + self._characters // 16

    def check_work(self, words: int) -> None:
        """Raises _TooMuch."""
        # A list may also stand in the expression itself: it has no more items than that has words.
        times = max(self._longest, words)
        if words * (self.weight + times + times * self.repeated) > FILTER_WORK:
            raise _TooMuch("so long an expression on so much data would take too long")

    def add(self, value: Any) -> None:
        """Raises _TooMuch."""
        self.values += 1
        if self.values > self._most:
            raise _TooMuch(f"more than {self._most} values are referred to")
        if type(value) in (dict, list):
            self._longest = max(self._longest, len(value))
        elif type(value) is str:
            self._characters += len(value)
        if type(value) is dict:
            for item in value.values():
                self.add(item)
        elif type(value) is list:
            if len(value) > MAX_ITEMS:
                raise _TooMuch(f"a list of {len(value)} items; {MAX_ITEMS} can be evaluated")
            for item in value:
                self.add(item)
        elif type(value) is str and len(value) > MAX_CHARACTERS:
            raise _TooMuch(f"a text of {len(value)} characters; {MAX_CHARACTERS} can be evaluated")


class _Conjunct:
    """One of the conditions joined by `&&`."""

    __slots__ = ("_program", "_read", "_references", "native", "text", "tokens")

    def __init__(self, text: str, tokens: Sequence[_Token], native: _Native | None, read: _Read) -> None:
        self.text = text
        self.tokens = tokens
        self.native = native
        self._read = read
        self._program: _Program | None = None
        self._references = tuple(dict.fromkeys(_references(tokens)))

    @property
    def program(self) -> _Program:
        """Made when it is first asked for: most are decided without, or together."""
        if self._program is None:
            self._program = _program(self._read, [self.tokens])
        return self._program

    def verdict(self, view: View) -> tuple[Verdict, str]:
        if self.native is not None:
            found = self.native(view)
            if found is not None:
                return found, ""
        value, why = self.program.run(view)
        if not why and type(value) is not bool:
            why = f"it is {_shown(value)}, neither true nor false"
        return (value, "") if not why else ("error", why)

    def explain(self, view: View) -> Part:
        verdict, why = self.verdict(view)
        seen = [why] if why else []
        for path in self._references:
            name = ".".join(path)
            if path == ("changed",):
                seen.append(f"changed is {_shown(view.changed)}" if view.changed else "nothing has changed")
                continue
            try:
                seen.append(f"{name} is {_shown(view.find(path))}")
            except _FAILED:
                seen.append(f"{name} is not there")
        return Part(self.text, verdict, "; ".join(dict.fromkeys(seen)))


def _shown(value: Any) -> str:
    text = f"'{value}'" if isinstance(value, str) else msgspec.json.encode(value, enc_hook=str).decode(errors="replace")
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


# --- what is decided without CEL --------------------------------------------------------------------------------------------


def _native(tokens: Sequence[_Token]) -> _Native | None:
    """`path == 'x'`, `path != 'x'`, `'x' == path`, `path in ['x', 'y']`, `'x' in changed`, `'x' in path`, `has(path)`."""
    while len(tokens) > 2 and tokens[0].text == "(" and _closing(tokens, 0) == len(tokens) - 1:
        tokens = tokens[1:-1]
    if len(tokens) > 3 and tokens[0].text == "has" and tokens[1].text == "(":
        reference = _reference(tokens, 2)
        if reference is not None and reference[1] == len(tokens) - 1 and _dotted(tokens[2:-1]) and len(reference[0]) > 1:
            return _has(reference[0]) if reference[0][0] in ROOTS else None
        return None
    if len(tokens) < 3:
        return None
    first = _literal(tokens[0])
    if first is not None and tokens[1].text in ("==", "!=", "in"):
        reference = _reference(tokens, 2)
        if reference is None or reference[1] != len(tokens) or reference[0][0] not in ROOTS:
            return None
        path = reference[0]
        if tokens[1].text == "in":
            return _changed(first) if path == ("changed",) else _member(first, path)
        return _compare(path, first, tokens[1].text) if path[0] != "changed" else None
    reference = _reference(tokens, 0)
    if reference is None or reference[0][0] not in ROOTS or reference[0][0] == "changed":
        return None
    path, end = reference
    behind = tokens[end:]
    if len(behind) == 2 and behind[0].text in ("==", "!="):
        wanted = _literal(behind[1])
        return None if wanted is None else _compare(path, wanted, behind[0].text)
    if len(behind) >= 3 and behind[0].text == "in" and behind[1].text == "[" and _closing(behind, 1) == len(behind) - 1:
        inner = behind[2:-1]
        texts = [_literal(token) for token in inner[::2]]
        if all(token.text == "," for token in inner[1::2]) and None not in texts:
            return _among(path, frozenset(cast(list[str], texts)))
    return None


def _compare(path: Path, wanted: str, operator: str) -> _Native:
    equal = operator == "=="
    if path == ("event", "type"):
        return lambda view: (view.appended.entry.notice.event_type == wanted) is equal

    same = _Equals(path, wanted)

    def differs(view: View) -> bool | None:
        found = same(view)
        if found is False and type(view.find(path)) in (list, dict):
            return None if _unfit(view.find(path)) else True
        return None if found is None else not found

    return same if equal else differs


class _Equals:
    """`path == 'x'`."""

    __slots__ = ("path", "wanted")

    def __init__(self, path: Path, wanted: str) -> None:
        self.path, self.wanted = path, wanted

    def __call__(self, view: View) -> bool | None:
        try:
            found = view.find(self.path)
        except _FAILED:
            return None
        if type(found) is int and not -_LARGEST < found < _LARGEST:
            return None  # can't be handed to CEL
        return bool(found == self.wanted)


_LARGEST = 10**308
"""Whole numbers beyond a double's range."""


def _unfit(value: Any) -> bool:
    """Whether CEL would refuse it."""
    if type(value) is list:
        return any(map(_unfit, value))
    if type(value) is dict:
        return any(map(_unfit, value.values()))
    return type(value) is int and not -_LARGEST < value < _LARGEST


def _among(path: Path, wanted: frozenset[str]) -> _Native:
    def among(view: View) -> bool | None:
        try:
            found = view.find(path)
        except _FAILED:
            return None
        return type(found) is str and found in wanted

    return among


def _changed(wanted: str) -> _Native:
    return lambda view: view.has_changed(wanted)


def _member(wanted: str, path: Path) -> _Native:
    def member(view: View) -> bool | None:
        try:
            found = view.find(path)
        except _FAILED:
            return None
        return wanted in found if type(found) in (list, dict) and not _unfit(found) else None

    return member


def _has(path: Path) -> _Native:
    def has(view: View) -> bool | None:
        try:
            around = view.find(path[:-1])
        except _FAILED:
            return None
        return path[-1] in around if type(around) is dict else None

    return has


# --- reading ----------------------------------------------------------------------------------------------------------------


class _Token(msgspec.Struct, frozen=True, gc=False):
    kind: Literal["name", "text", "number", "op"]
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\f]|//[^\n]*)+)
    |(?P<text>(?:[bB]?[rR]?)(?:'{3}(?s:.*?)'{3}|"{3}(?s:.*?)"{3}|'(?:[^'\\\r\n]|\\[^\r\n])*'|"(?:[^"\\\r\n]|\\[^\r\n])*"))
    |(?P<number>0x[0-9a-fA-F]+[uU]?|(?:\d+\.\d+|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+|\d+[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<op>&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()\[\]{}])""",
    re.VERBOSE | re.ASCII,
)
_SIMPLE = re.compile(r"'([^'\\\r\n]*)'|\"([^\"\\\r\n]*)\"")
_RAISED = re.compile(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?(.*)")
_PAIRS = {"(": ")", "[": "]", "{": "}"}


class _Read:
    """An expression's tokens, and errors that say where."""

    def __init__(self, text: str, path: str, most: int, *, stranger: bool = False) -> None:
        self.text = text
        self.path = path
        self.stranger = stranger
        self._lines = [0, *(found.end() for found in re.finditer("\n", text))]
        if len(text) > most:
            raise ConfigError(f"an expression has at most {most} characters, not {len(text)}", path=path)
        if not text.strip():
            raise ConfigError("the expression is empty", path=path)
        self.tokens: list[_Token] = []
        place = 0
        while place < len(text):
            found = _TOKEN.match(text, place)
            if found is None:
                raise self.wrong(place, self._strange(text[place]))
            if found.lastgroup != "space":
                self.tokens.append(_Token(cast(Any, found.lastgroup), found[0], place))
            place = found.end()
        self.compiled(text)

    def compiled(self, text: str) -> Any:
        """CEL's program for the text, or for a piece of it. Raises ConfigError."""
        try:
            return cel.compile(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as why:  # noqa: BLE001 - a panic of the Rust library is no Exception
            raise self._syntax(str(why)) from None

    def wrong(self, place: int, why: str) -> ConfigError:
        """The error at a character: line:column, the line, and a caret under it."""
        line = bisect.bisect_right(self._lines, place)
        return self._at(line, place - self._lines[line - 1] + 1, why)

    def _at(self, line: int, column: int, why: str) -> ConfigError:
        text = self.text.split("\n")[line - 1] if line <= len(self._lines) else ""
        start = max(0, column - 61)
        shown = "".join(character if character.isprintable() else " " for character in text[start : start + 100])
        return ConfigError(f"{line}:{column}: {why}\n  {shown}\n  {' ' * (column - 1 - start)}^", path=self.path)

    def _strange(self, character: str) -> str:
        match character:
            case "'" | '"':
                return "the text that begins here has no end, or a \\ in it that CEL doesn't know"
            case "=":
                return "= alone means nothing; == compares"
            case "&" | "|":
                return f"{character} alone means nothing; {character * 2} joins conditions"
        return f"{character!a} has no meaning in CEL"

    def _syntax(self, raised: str) -> ConfigError:
        found = _RAISED.search(raised, len(self.text))
        if found is None:
            return self._at(1, 1, "the expression can't be read")
        line, column, why = int(found[1]), int(found[2]), found[3]
        if "OtherError" in why or "recursion" in why.lower():
            why = "the expression is nested too deeply"
        elif "input '<EOF>'" in why:
            why = "something is missing at the end"
        elif "Incomplete" in why:
            why = "something is missing here"
        elif given := re.match(r"(?:mismatched|extraneous) input '(.*?)' expecting|no viable alternative at input '(.*?)'", why):
            why = f"{(given[1] or given[2])[:40]} is not expected here"
        return self._at(line, column, why[:200])

    def check(self) -> None:
        """Names, functions and limits. Raises ConfigError."""
        tokens = self.tokens
        bound = self._bound()
        depths: list[int] = []
        """Where the macros that are open here end."""
        macros = plus = 0
        for place, token in enumerate(tokens):
            while depths and depths[-1] <= place:
                depths.pop()
            if token.kind == "op" and token.text == "+":
                plus += 1
                if plus > MAX_PLUS:
                    raise self.wrong(token.start, f"at most {MAX_PLUS} + in one expression")
            if token.kind != "name" or token.text in _WORDS:
                continue
            after = tokens[place + 1].text if place + 1 < len(tokens) else ""
            member = place > 0 and tokens[place - 1].text == "."
            if after == "{":
                raise self.wrong(token.start, "messages can't be made here")
            if after == "(":
                known = _METHODS if member else _FUNCTIONS
                if token.text not in known:
                    raise self.wrong(token.start, f"no function is called {token.text}{_near(token.text, known)}")
                if member and token.text in _MACROS:
                    macros += 1
                    depths.append(_closing(tokens, place + 1))
                    if macros > MAX_MACROS or len(depths) > 2:
                        raise self.wrong(token.start, f"at most {MAX_MACROS} of exists, all, map, filter; two inside each other")
            elif not member:
                self._check_variable(place, token, bound)
            elif place == 1 or (tokens[place - 2].kind == "op" and tokens[place - 2].text not in (")", "]", "}")):
                raise self.wrong(tokens[place - 1].start, "a . must follow something")

    def _check_variable(self, place: int, token: _Token, bound: frozenset[str]) -> None:
        tokens = self.tokens
        name = token.text
        if name not in ROOTS and name not in bound and name not in _TYPES:
            raise self.wrong(token.start, f"no variable is called {name}; there are event, object, old and changed")
        reference = _reference(tokens, place)
        if name == "event" and reference is not None and len(reference[0]) > 1 and reference[0][1] not in EVENT_FIELDS:
            near = _near(reference[0][1], EVENT_FIELDS) or f"; it has {', '.join(EVENT_FIELDS)}"
            raise self.wrong(tokens[place + 2].start, f"event has no {reference[0][1]}{near}")

    def _bound(self) -> frozenset[str]:
        """The names that macros give to items."""
        found = set()
        for place, token in enumerate(self.tokens[:-2]):
            if token.text in _MACROS and self.tokens[place + 1].text == "(" and self.tokens[place + 2].kind == "name":
                name = self.tokens[place + 2]
                if place > 0 and self.tokens[place - 1].text == "." and self.tokens[place + 3].text == ",":
                    if name.text in ROOTS or name.text in _TYPES:
                        raise self.wrong(name.start, f"an item can't be called {name.text}: that name is taken")
                    found.add(name.text)
        return frozenset(found)

    def check_stranger(self) -> None:
        """Nothing whose cost grows faster than what it is shown. Raises ConfigError."""
        open_until = -1
        for place, token in enumerate(self.tokens[:-1]):
            if token.kind != "name" or self.tokens[place + 1].text != "(":
                continue
            if token.text in ("map", "filter", "matches"):
                raise self.wrong(token.start, f"{token.text} can't be used here; exists, contains and startsWith can")
            if token.text in _MACROS:
                if place < open_until:
                    raise self.wrong(token.start, f"{token.text} can't be used inside another one here")
                open_until = _closing(self.tokens, place + 1)


def _near(name: str, names: Any) -> str:
    near = get_close_matches(name, sorted(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def _closing(tokens: Sequence[_Token], place: int) -> int:
    """Where the bracket that opens at `place` is closed."""
    depth = 0
    for index in range(place, len(tokens)):
        text = tokens[index].text
        if text in ("(", "[", "{"):
            depth += 1
        elif text in (")", "]", "}"):
            depth -= 1
            if not depth:
                return index
    return len(tokens)


def _outside(tokens: Sequence[_Token]) -> Iterator[tuple[int, _Token]]:
    """The tokens outside all brackets; of a bracket, the one that opens it."""
    depth = 0
    for place, token in enumerate(tokens):
        if token.kind == "op" and token.text in (")", "]", "}"):
            depth -= 1
            continue
        if not depth:
            yield place, token
        if token.kind == "op" and token.text in _PAIRS:
            depth += 1


def _split(tokens: Sequence[_Token]) -> list[Sequence[_Token]]:
    """At `&&` outside all brackets, unless `||` or `?` are there too: they bind less."""
    outside = list(_outside(tokens))
    if any(token.text in ("||", "?") for _, token in outside if token.kind == "op"):
        return [tokens]
    pieces, start = [], 0
    for place, token in outside:
        if token.text == "&&":
            pieces.append(tokens[start:place])
            start = place + 1
    return [*pieces, tokens[start:]]


def _not_boolean(tokens: Sequence[_Token]) -> int | None:
    """Where an expression begins that can't be true or false; None: it may be."""
    while len(tokens) > 2 and tokens[0].text == "(" and _closing(tokens, 0) == len(tokens) - 1:
        tokens = tokens[1:-1]
    pieces = _split(tokens)
    if len(pieces) > 1:
        return next((place for place in map(_not_boolean, pieces) if place is not None), None)
    outside = list(_outside(tokens))
    operators = {token.text for _, token in outside if token.kind == "op" or token.text == "in"}
    if operators & {"||", "?"} or operators & _COMPARES:
        return None
    if tokens[0].text == "!":
        return None
    start = tokens[0].start
    if operators & {"+", "-", "*", "/", "%"} or (tokens[0].kind in ("text", "number") and len(tokens) == 1):
        return start
    if tokens[0].text in ("[", "{") and _closing(tokens, 0) == len(tokens) - 1:
        return start
    if tokens[0].text in ("null", "changed", "object", "old", "event") and len(tokens) == 1:
        return start
    reference = _reference(tokens, 0)
    if reference is not None and reference[1] == len(tokens):
        path = reference[0]
        return start if path[0] == "event" and len(path) == 2 and path[1] != "payload" else None
    last = outside[-1][0]
    if tokens[-1].text == ")" and tokens[last].text == "(" and last > 0 and tokens[last - 1].kind == "name":
        return None if tokens[last - 1].text in _BOOLEAN_CALLS else start
    return None


def _literal(token: _Token) -> str | None:
    """The text of a plain literal; None: it is none, or has something in it that only CEL reads."""
    found = _SIMPLE.fullmatch(token.text) if token.kind == "text" else None
    return None if found is None else found[1] if found[1] is not None else found[2]


def _dotted(tokens: Sequence[_Token]) -> bool:
    return len(tokens) > 1 and tokens[-2].text == "."


def _reference(tokens: Sequence[_Token], place: int) -> tuple[Path, int] | None:
    """The dotted path that begins at a token (`['name']` is a step too), and where it ends; None: no variable begins there."""
    first = tokens[place]
    if first.kind != "name" or first.text in _WORDS or (place > 0 and tokens[place - 1].text == "."):
        return None
    if place + 1 < len(tokens) and tokens[place + 1].text == "(":
        return None
    path, end = [first.text], place + 1
    while end + 1 < len(tokens):
        after = tokens[end + 2].text if end + 2 < len(tokens) else ""
        if tokens[end].text == "." and tokens[end + 1].kind == "name" and after != "(":
            path.append(tokens[end + 1].text)
            end += 2
        elif tokens[end].text == "[" and after == "]" and (step := _literal(tokens[end + 1])) is not None:
            path.append(step)
            end += 3
        else:
            break
    return tuple(path), end


def _references(tokens: Sequence[_Token]) -> Iterator[Path]:
    for place in range(len(tokens)):
        reference = _reference(tokens, place)
        if reference is not None and reference[0][0] in ROOTS:
            yield reference[0]


def _program(read: _Read, pieces: Sequence[Sequence[_Token]]) -> _Program:
    """What CEL runs for pieces of an expression that hold together: their text, with names for what we work out."""
    prefix = "ref"
    while any(token.text.startswith(prefix) for token in read.tokens):
        prefix += "_"
    given: dict[str, _Given] = {}
    names: dict[tuple[str, ...], str] = {}
    repeated: set[str] = set()
    texts = []
    for tokens in pieces:
        inside = _inside_macros(tokens)
        text, done = "", tokens[0].start
        for place in range(len(tokens)):
            if tokens[place].start < done:
                continue
            found = _worked_out(tokens, place)
            if found is not None:
                what, end, one = found
                name = names.setdefault(what, f"{prefix}{len(names)}")
                given[name] = one
                if place in inside:
                    repeated.add(name)
                text += f"{read.text[done : tokens[place].start]}{name} "
                done = tokens[end - 1].end
        texts.append(text + read.text[done : tokens[-1].end])
    words = sum(map(len, pieces)) if read.stranger else 0
    return _Program(read.compiled("\n&& ".join(texts)), given, frozenset(repeated), words)


def _inside_macros(tokens: Sequence[_Token]) -> set[int]:
    """The places of what is looked at for each item."""
    found: set[int] = set()
    for place, token in enumerate(tokens[:-1]):
        if token.text in _MACROS and tokens[place + 1].text == "(":
            found.update(range(place + 2, _closing(tokens, place + 1)))
    return found


def _worked_out(tokens: Sequence[_Token], place: int) -> tuple[tuple[str, ...], int, _Given] | None:
    """What begins at a token and can be worked out without CEL (a name for it, where it ends, how); None: nothing."""
    if (wanted := _literal(tokens[place])) is not None:
        # `'path' in changed`, where it stands alone: nothing beside it takes a side of it.
        before = tokens[place - 1].text if place else "("
        after = tokens[place + 3].text if place + 3 < len(tokens) else ")"
        asks = [token.text for token in tokens[place + 1 : place + 3]] == ["in", "changed"]
        if asks and before in _ALONE and after in _ALONE:
            return ("in", wanted), place + 3, _Given(_changed(wanted), "")
        return None
    if tokens[place].text == "has" and place + 2 < len(tokens):
        end = _closing(tokens, place + 1)
        reference = _reference(tokens, place + 2)
        if reference is None or reference[0][0] not in ROOTS or reference[1] != end or len(reference[0]) < 2:
            return None
        path, has = reference[0], _has(reference[0])
        absent = f"{'.'.join(path[:-1])} is not there"
        return ("has", *path), end + 1, _Given(lambda view: _MISSING if (found := has(view)) is None else found, absent)
    reference = _reference(tokens, place)
    if reference is None or reference[0][0] not in ROOTS:
        return None
    return ("", *reference[0]), reference[1], _Given(_finder(reference[0]), f"{'.'.join(reference[0])} is not there")


_ALONE = frozenset({"(", ")", "&&", "||", "?", ":", ","})


def _finder(path: Path) -> Callable[[View], Any]:
    def find(view: View) -> Any:
        try:
            return view.find(path)
        except _FAILED:
            return _MISSING

    return find


def _conjunct(read: _Read, tokens: Sequence[_Token]) -> _Conjunct:
    text = " ".join(read.text[tokens[0].start : tokens[-1].end].split())
    return _Conjunct(text, tokens, _native(tokens), read)
