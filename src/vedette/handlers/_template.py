"""Texts with places in them that an event fills: `{object.status.name}`. Addresses, bodies, subjects, headers, arguments.

A text of the configuration comes in once, at the start, and is checked: `template()`. Each event then gives a text: `fill()`.
There is nothing to call, no attribute of anything in Python and no arithmetic: a place is a path through JSON values.

- `{event.type}`, `{object.status.addresses.0.addr}`, `{old["status"]["OS-EXT-SRV-ATTR:host"]}`: names, numbers in lists, and
  quoted names for what is no plain word. `{{` and `}}` are plain braces.
- The first word is one of `event`, `object`, `old`, `key`, `idempotency_key`, `handler`. `{key}` alone is `source/group/Kind/id`.
- `|json` writes the value as JSON, `|urlquote` percent-encodes it; in an address every value is, unasked.
- What isn't there is empty (in JSON `null`), or an error where `missing="fail"`.

What a value can't do, by the form of the text: in a `url` leave its path segment or its place in the query; in a `line` (a
header, a subject, a log line) begin another line; in `json` be anything but a value, or a piece of the string that it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal
from urllib.parse import quote, unquote

import msgspec

from vedette.errors import ConfigError, GiveUp
from vedette.kit.clock import rfc3339_us
from vedette.ports import Event

Form = Literal["text", "line", "url", "json"]
Missing = Literal["empty", "fail"]

LONGEST_TEMPLATE = 65_536
"""Characters of a text in the configuration."""
MOST_PLACES = 200
"""Places in it."""
DEEPEST = 20
"""Steps of a path."""
LARGEST_TEXT = 4 * 1024 * 1024
"""Characters of a filled text; what would be larger goes to the dead letters."""

VARIABLES = ("event", "object", "old", "key", "idempotency_key", "handler")
_KEY = ("source", "group", "kind", "id")
_FILTERS = ("json", "urlquote")

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:-]*", re.ASCII)
_QUOTED = re.compile(r"""\[(?:"([^"\\\x00-\x1f]*)"|'([^'\\\x00-\x1f]*)'|(0|[1-9][0-9]{0,8}))\]""")
_BRACE = re.compile(r"[{}]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
"""What ends a line somewhere, or is not for reading."""


class Nothing:
    """In the place of a value that isn't there."""


NOTHING = Nothing()


class Values:
    """What an event offers to paths; each part of it is decoded once, when it is first asked for."""

    def __init__(self, event: Event) -> None:
        self._event = event
        self._made: dict[str, Any] = {}

    def find(self, path: tuple[str, ...]) -> Any:
        """The value at the end of a path; NOTHING where there is none. A JSON null is none either."""
        if path == ("key",):
            key = self._event.key
            return NOTHING if key is None else f"{key.source}/{key.group}/{key.kind}/{key.id}"
        if path[:2] == ("event", "payload"):  # often large, and seldom wanted
            path = path[1:]
        value = self._variable(path[0])
        for step in path[1:]:
            if isinstance(value, dict):
                value = value.get(step, NOTHING)
            elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 10 and int(step) < len(value):
                value = value[int(step)]
            else:
                return NOTHING
        return NOTHING if value is None else value

    def _variable(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _VALUES[name](self._event)
        return self._made[name]


def _event(event: Event) -> dict[str, Any]:
    notice = event.notice
    return {
        "type": notice.event_type,
        "source": notice.source,
        "id": notice.id,
        "time": rfc3339_us(notice.sent_at or event.appended_at),
        "verb": event.verb or None,
        "revision": event.revision,
        "request_id": notice.request_id or None,
        "user": notice.actor_user or None,
        "project": notice.actor_project or None,
        "priority": notice.priority or None,
        "publisher": notice.publisher or None,
        "origin": notice.origin,
    }


_VALUES: dict[str, Callable[[Event], Any]] = {
    "event": _event,
    "payload": lambda event: event.payload,
    "object": lambda event: event.object,
    "old": lambda event: event.old,
    "key": lambda event: None if event.key is None else msgspec.structs.asdict(event.key),
    "idempotency_key": lambda event: event.idempotency_key,
    "handler": lambda event: event.handler,
}
_EVENT = {
    *("type", "source", "id", "time", "verb", "revision", "request_id", "user", "project"),
    *("priority", "publisher", "origin", "payload"),
}


class Place(msgspec.Struct, frozen=True):
    """Where a value goes."""

    written: str
    """As it stands in the configuration, braces and all."""
    path: tuple[str, ...]
    filters: tuple[str, ...]
    quoted: bool = False
    """It stands inside a JSON string."""


class Template(msgspec.Struct, frozen=True):
    """A text that was checked. Made by `template()`."""

    parts: tuple[str | Place, ...]
    form: Form
    missing: Missing = "empty"

    @property
    def fixed(self) -> bool:
        """It has no places."""
        return all(isinstance(part, str) for part in self.parts)

    def fill(self, values: Values) -> str:
        """The text for one event. Raises GiveUp: a value is missing where it must not be, or would break the text."""
        texts: list[str] = []
        length = 0
        for part in self.parts:
            text = part if isinstance(part, str) else self._value(part, values)
            length += len(text)
            if length > LARGEST_TEXT:
                raise GiveUp(f"the text would have more than {LARGEST_TEXT} characters")
            texts.append(text)
        filled = "".join(texts)
        if self.form == "url":
            _check_segments(filled)
        return filled

    def _value(self, place: Place, values: Values) -> str:
        value = values.find(place.path)
        if self.missing == "fail" and (value is NOTHING or value == ""):
            raise GiveUp(f"{place.written} has no value in this event")
        if self.form == "json" and not place.filters:
            return _in_string(value) if place.quoted else _json(value)
        if place.filters[:1] != ("json",):
            value = _text(value)
        for name in place.filters:
            value = _json(value) if name == "json" else quote(value, safe="")
        text: str = value
        if self.form == "url" and "urlquote" not in place.filters:
            text = quote(text, safe="")
        if self.form == "line":
            text = _CONTROL.sub(" ", text)
        if self.form == "json" and place.quoted:
            text = _in_string(text)
        return text


def template(text: str, form: Form = "text", *, missing: Missing = "empty", path: str = "") -> Template:
    """Check a text of the configuration. `path` is its key there, for the ConfigError, which says at which character."""

    def wrong(at: int, why: str) -> ConfigError:
        where = f"line {text.count(chr(10), 0, at) + 1}, " if "\n" in text else ""
        return ConfigError(f"{where}character {at - text.rfind(chr(10), 0, at)}: {why}", path=path)

    if len(text) > LONGEST_TEMPLATE:
        raise ConfigError(f"has more than {LONGEST_TEMPLATE} characters", path=path)
    parts: list[str | Place] = []
    plain: list[str] = []
    at = places = 0
    in_string = False
    while at < len(text):
        brace = _BRACE.search(text, at)
        end = brace.start() if brace else len(text)
        if end > at:
            plain.append(text[at:end])
            in_string = _ends_in_string(text[at:end], in_string) if form == "json" else False
        at = end
        if text[at : at + 2] in ("{{", "}}"):
            plain.append(text[at])
            at += 2
        elif at < len(text) and text[at] == "}":
            raise wrong(at, "a single } ends nothing; a plain one is written }}")
        elif at < len(text):
            place, at = _read_place(text, at, wrong)
            if plain:
                parts.append("".join(plain))
                plain = []
            parts.append(msgspec.structs.replace(place, quoted=in_string))
            places += 1
            if places > MOST_PLACES:
                raise wrong(at, f"there are more than {MOST_PLACES} places")
    if plain:
        parts.append("".join(plain))
    made = Template(tuple(parts), form, missing)
    _check_form(made, path)
    return made


def _read_place(text: str, start: int, wrong: Callable[[int, str], ConfigError]) -> tuple[Place, int]:
    """The place that begins at `start`, and where the text goes on."""
    path: list[str] = []
    at = start + 1
    name = _NAME.match(text, at)
    if name is None:
        raise wrong(at, "a name must follow {; a plain brace is written {{")
    path.append(name[0])
    at = name.end()
    while at < len(text) and text[at] in ".[":
        if text[at] == "[":
            quoted = _QUOTED.match(text, at)
            if quoted is None:
                raise wrong(at, 'wants a name in quotes or a number, such as ["name"] or [0]')
            path.append(next(one for one in quoted.groups() if one is not None))
            at = quoted.end()
        else:
            name = _NAME.match(text, at + 1)
            if name is None:
                raise wrong(at + 1, "a name must follow the dot")
            path.append(name[0])
            at = name.end()
        if len(path) > DEEPEST:
            raise wrong(at, f"a path has at most {DEEPEST} steps")
    filters: list[str] = []
    while at < len(text) and text[at] == "|":
        name = _NAME.match(text, at + 1)
        if name is None or name[0] not in _FILTERS or name[0] in filters:
            raise wrong(at + 1, f"wants one of the filters {', '.join(_FILTERS)}, each once")
        filters.append(name[0])
        at = name.end()
    if at >= len(text) or text[at] != "}":
        raise wrong(at, "wants a } here" if at < len(text) else "the } is missing")
    if path[0] not in VARIABLES:
        raise wrong(start + 1, f"there is no {path[0]}; there are: {', '.join(VARIABLES)}")
    if path[0] == "event" and (len(path) == 1 or path[1] not in _EVENT):
        raise wrong(start + 1, f"of event there are: {', '.join(sorted(_EVENT))}")
    if path[0] == "key" and (len(path) > 2 or path[1:] not in ([], *([one] for one in _KEY))):
        raise wrong(start + 1, f"of key there are: {', '.join(_KEY)}")
    if path[0] in ("handler", "idempotency_key") and len(path) > 1:
        raise wrong(start + 1, f"{path[0]} is a text, and has nothing inside")
    return Place(text[start : at + 1], tuple(path), tuple(filters)), at + 1


def _check_form(made: Template, path: str) -> None:
    """What is right in itself may still be wrong where it is used."""
    if made.form == "line" and any(isinstance(part, str) and _CONTROL.search(part) for part in made.parts):
        raise ConfigError("must be one line, without control characters", path=path)
    if made.form == "json":
        sample = "".join(
            part if isinstance(part, str) else "x" if part.quoted else '"x"' if part.filters[-1:] == ("urlquote",) else "null"
            for part in made.parts
        )
        if any(isinstance(part, Place) and not part.quoted and part.filters[-1:] == ("urlquote",) for part in made.parts):
            raise ConfigError("a percent-encoded value is text: put it between quotes", path=path)
        try:
            msgspec.json.decode(sample)
        except (msgspec.DecodeError, UnicodeError) as why:
            raise ConfigError(
                f"is not JSON once it is filled in (a plain brace is written {{{{ or }}}}): {why}", path=path
            ) from None


def _check_segments(url: str) -> None:
    """`..` as a segment would lead out of the path that the configuration names; many servers take `%2E%2E` for it too."""
    for segment in re.split(r"[/\\]", unquote(url.partition("?")[0])):
        if segment in (".", ".."):
            raise GiveUp(f"a segment of the address would be {segment!r}")


def _ends_in_string(text: str, inside: bool) -> bool:
    """Whether a JSON string is open at the end of a piece of JSON."""
    for found in re.finditer(r'\\.|"', text, re.DOTALL):
        if found[0] == '"':
            inside = not inside
    return inside


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is NOTHING else _json(value)


def _json(value: Any) -> str:
    return "null" if value is NOTHING else msgspec.json.encode(value).decode()


def _in_string(value: Any) -> str:
    """A value's text as it stands between the quotes of a JSON string."""
    return msgspec.json.encode(_text(value)).decode()[1:-1]
