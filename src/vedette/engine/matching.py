"""Whom an entry concerns: handlers are found by source, kind, verb, event type and project first, and only then by a condition.

Rules come in from app.py; engine/dispatch.py asks `Index.matches` for each entry, and `why_not` for `explain`. What an index
remembers is per (source, kind, verb, event type), of which a cloud has some hundreds: a thousand handlers cost an event no more
than those that could take it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec

from vedette.engine.conditions import Condition, Path, View
from vedette.model.change import Change
from vedette.model.reading import VEDETTE, VEDETTE_SOURCE, Key
from vedette.ports import Appended, Kind

KNOWN = 10_000
"""Combinations that are remembered; event types come from outside, so above this it begins anew."""
WORTHWHILE = 4
"""Different texts that are asked for at one path before it is looked up instead of compared."""


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """One `on:` of a handler; everything given has to hold. See config.On."""

    sources: frozenset[str] = frozenset()
    kinds: tuple[str, ...] = ()
    """Any of a kind's names, also with its group behind it; lower case."""
    verbs: frozenset[str] = frozenset()
    types: tuple[str, ...] = ()
    projects: frozenset[str] = frozenset()
    when: Condition | None = None

    @property
    def of_changes(self) -> bool:
        return bool(self.kinds or self.verbs)


class Hit(msgspec.Struct, frozen=True, gc=False):
    """What a handler is to be called for: a change of the entry, by its place, or the notice (-1)."""

    handler: int
    """Its place in the rules."""
    change: int


class Names:
    """What kinds are called. Those of Kubernetes sources are learned from their `Resource` objects."""

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._names: dict[tuple[str, str], frozenset[str]] = {}
        for kind in kinds:
            self.learn(kind.group, kind.kind, (kind.singular, kind.plural, *kind.short_names))

    def learn(self, group: str, kind: str, names: Iterable[str]) -> bool:
        """Whether that was new."""
        plain = {kind.lower(), *(name.lower() for name in names if name)}
        every = frozenset(plain | {f"{name}.{group.lower()}" for name in plain if group})
        known = self._names.get((group, kind), frozenset())
        self._names[group, kind] = known | every
        return not every <= known

    def of(self, group: str, kind: str) -> frozenset[str]:
        found = self._names.get((group, kind))
        if found is None:
            # Not told yet: the plural by the rule of English that most follow.
            low = kind.lower()
            plural = low + "es" if low.endswith(("s", "x", "ch")) else low[:-1] + "ies" if low.endswith("y") else low + "s"
            plain = {low, plural}
            found = frozenset(plain | {f"{name}.{group.lower()}" for name in plain if group})
        return found


class Index:
    """Finds the handlers of an entry. `rules`: each handler's matches, in the order of the handlers."""

    def __init__(self, rules: Sequence[Sequence[Match]], names: Names) -> None:
        self._rules = rules
        self._names = names
        self._found: dict[tuple[str, str, str, str, str], _Some] = {}

    def forget(self) -> None:
        """Kinds have new names."""
        self._found.clear()

    def matches(self, appended: Appended) -> list[Hit]:
        """In the order of the entry's changes; the notice itself comes last. A handler is named once for each of them."""
        entry = appended.entry
        source, event_type = entry.notice.source, entry.notice.event_type
        hits: list[Hit] = []
        for number, change in enumerate(appended.changes):
            key = change.key
            some = self._candidates(source, key.group, key.kind, change.verb, event_type)
            if some.any:
                self._take(hits, some, appended, number, change)
        some = self._candidates(source, "", "", "", event_type)
        if some.any:
            self._take(hits, some, appended, -1, None)
        return hits

    def _take(self, hits: list[Hit], some: _Some, appended: Appended, number: int, change: Change | None) -> None:
        view: View | None = None
        few: Sequence[tuple[int, Match]] = some.always
        if some.path:
            view = View(appended, change)
            few = some.those(view)
        last = -1
        for handler, match in few:
            if handler == last:  # one of its `on:` holds already
                continue
            if match.projects and match.projects.isdisjoint(projects_of(appended, change)):
                continue
            if match.when is not None:
                if view is None:
                    view = View(appended, change)
                if not match.when.holds(view):
                    continue
            hits.append(Hit(handler, number))
            last = handler

    def _candidates(self, source: str, group: str, kind: str, verb: str, event_type: str) -> _Some:
        place = (source, group, kind, verb, event_type)
        found = self._found.get(place)
        if found is None:
            if len(self._found) > KNOWN:
                self._found.clear()
            found = self._found[place] = _Some(
                [
                    (number, match)
                    for number, matches in enumerate(self._rules)
                    for match in matches
                    if not refusals(match, self._names, *place)
                ]
            )
        return found


class _Some:
    """Handlers that could take an event, by their places. Where many of their conditions ask that one path be at some text, each
    with another, those are found by that text."""

    __slots__ = ("always", "any", "by_text", "path")

    def __init__(self, every: Sequence[tuple[int, Match]]) -> None:
        self.any = bool(every)
        texts: dict[Path, set[str]] = {}
        for _, match in every:
            for path, text in _equalities(match).items():
                texts.setdefault(path, set()).add(text)
        self.path: Path = max(texts, key=lambda path: len(texts[path]), default=())
        if self.path and len(texts[self.path]) < WORTHWHILE:
            self.path = ()
        self.always: list[tuple[int, Match]] = []
        self.by_text: dict[str, list[tuple[int, Match]]] = {}
        for one in every:
            asked = _equalities(one[1])
            if self.path in asked:
                self.by_text.setdefault(asked[self.path], []).append(one)
            else:
                self.always.append(one)

    def those(self, view: View) -> Sequence[tuple[int, Match]]:
        """Of these, whose condition may hold; a handler's `on:` beside each other."""
        try:
            found = view.find(self.path)
        except (KeyError, TypeError):
            return self.always
        by_text = self.by_text.get(found, ()) if type(found) is str else ()
        if not by_text or not self.always:
            return by_text or self.always
        return sorted((*self.always, *by_text), key=_handler)


def _equalities(match: Match) -> Mapping[Path, str]:
    return match.when.equalities if match.when is not None else {}


def _handler(one: tuple[int, Match]) -> int:
    return one[0]


def refusals(match: Match, names: Names, source: str, group: str, kind: str, verb: str, event_type: str) -> list[str]:
    """Why a match doesn't look at a change (`kind`, `verb`) or a notice (both "") closer, in words; []: it does."""
    why = []
    if match.of_changes != bool(kind):
        return ["it is called for changes of objects" if match.of_changes else "it is called for notifications"]
    if match.sources and source not in match.sources:
        why.append(f"the source is {source}")
    elif not match.sources and source == VEDETTE_SOURCE and not _asks_for_ours(match):
        why.append("what Vedette says of itself has to be asked for: sources: [vedette]")
    if match.kinds and names.of(group, kind).isdisjoint(match.kinds):
        why.append(f"the kind is {kind}")
    if match.verbs and verb not in match.verbs:
        why.append(f"the verb is {verb}")
    if match.types and not any(fnmatchcase(event_type, pattern) for pattern in match.types):
        why.append(f"the type is {event_type}")
    return why


def _asks_for_ours(match: Match) -> bool:
    named = (*match.types, *match.kinds)
    return any(name.startswith("vedette.") or name.endswith(f".{VEDETTE}") or name in _OURS for name in named)


_OURS = frozenset(("handler", "handlers", "deadletter", "deadletters"))


def projects_of(appended: Appended, change: Change | None) -> set[str]:
    """The projects of the object, before and after; of a notice those of all that it speaks of."""
    if change is not None:
        return {version.project for version in (change.now, change.before) if version is not None}
    found = {reading.project for reading in appended.entry.readings if reading.project}
    return found | {one.now.project for one in appended.changes}


def subject_of(appended: Appended, change: Change | None) -> str:
    """What keeps its order: the object, as `source/group/Kind/id`; "" for a notice that speaks of none."""
    key = key_of(appended, change)
    return "" if key is None else f"{key.source}/{key.group}/{key.kind}/{key.id}"


def key_of(appended: Appended, change: Change | None) -> Key | None:
    if change is not None:
        return change.key
    for reading in appended.entry.readings:
        return Key(appended.entry.notice.source, reading.group, reading.kind, reading.id)
    return None


class Verdict(msgspec.Struct, frozen=True, rename="camel"):
    """What one `on:` says of a change or a notice."""

    matched: bool
    why_not: tuple[str, ...] = ()
    parts: tuple[Mapping[str, object], ...] = ()
    """The condition, taken apart at its top-level `&&`: text, verdict, detail."""


def verdict(match: Match, names: Names, appended: Appended, change: Change | None) -> Verdict:
    """For `explain`."""
    notice = appended.entry.notice
    group, kind, verb = ("", "", "") if change is None else (change.key.group, change.key.kind, change.verb)
    why = refusals(match, names, notice.source, group, kind, verb, notice.event_type)
    if not why and match.projects and match.projects.isdisjoint(of := projects_of(appended, change)):
        why.append(f"the project is {', '.join(sorted(of)) or 'not known'}")
    if why or match.when is None:
        return Verdict(not why, tuple(why))
    view = View(appended, change)
    parts = tuple(
        {"text": part.text, "verdict": part.verdict, **({"detail": part.detail} if part.detail else {})}
        for part in match.when.explain(view)
    )
    if match.when.holds(view):
        return Verdict(True, (), parts)
    false = [str(part["text"]) for part in parts if part["verdict"] is not True]
    return Verdict(False, tuple(f"not so: {text}" for text in false), parts)
