"""Windows: which of the matching events call a handler, by what else happens to their group within a time.

Matches come in from `engine/dispatch.py` in the order of the log; out goes a verdict for each (call, not, not yet) and the calls
that timers make. All of it is pure: time is the events' own, and no clock is asked. State is bytes that the caller keeps with its
cursor: keys, counters, times and places in the log, never payloads.

Events are taken in the order of the log, each at its own time. The *watermark* is the newest time seen less the rule's
lateness. What is older than it is late and counts for nothing; a timer whose time it has passed fires. So the same log gives the
same calls, however it is cut into batches and wherever the service was restarted. (Only a log that stands still needs a clock:
`Groups.idle`.)

`feed` and `fire` are one group's; `Groups` holds the groups of one rule, at most `max_groups`: then the one that was touched
longest ago is let go.
"""

from __future__ import annotations

import bisect
import hashlib
import heapq
from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from vedette.kit.clock import rfc3339

Kind = Literal["once_within", "once_after", "accumulate_within", "all", "any", "not_all", "absent_for"]

MAX_KEY = 512
"""Characters of a group's key; of a longer one the end is a digest."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One window. Times are microseconds."""

    kind: Kind
    span: int
    """The time of the rule: `once_within: 10m` → 600,000,000."""
    threshold: int = 0
    """Of `accumulate_within`."""
    conditions: int = 0
    """How many conditions `all`, `any` and `not_all` have: `holds` has as many verdicts."""
    lateness: int = 10_000_000
    max_groups: int = 10_000

    @property
    def mark(self) -> str:
        """Written into each state: one of another rule begins anew."""
        return f"1/{self.kind}/{self.span}/{self.threshold}/{self.conditions}"


class Place(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which match it is: where a delivery finds its event again."""

    revision: int
    number: int
    change: int
    subject: str


class Call(msgspec.Struct, frozen=True):
    """The handler is called with the event at this place."""

    place: Place


class Suppress(msgspec.Struct, frozen=True):
    """This event calls nobody; `detail` says why."""

    detail: str


class Hold(msgspec.Struct, frozen=True):
    """Not now: the event may still be the one that a timer calls with."""

    detail: str


class Step(msgspec.Struct, frozen=True):
    """What became of one event, or of a timer."""

    verdict: Call | Suppress | Hold | None
    """None: a timer that calls nobody, or an event that was fed already."""
    state: bytes | None
    """To be kept for the group; None: nothing."""
    due: int
    """`fire` wants to be called when the watermark is beyond this; 0: never."""
    fired: Call | None = None
    """The call of a timer that this event has found due: it comes before the event's own."""


class _State(msgspec.Struct, array_like=True, gc=False):
    """One group's. `touched` is the place of the event that was fed last."""

    mark: str
    touched: tuple[int, int]
    start: int = 0
    until: int = 0
    open: bool = False
    """A window has begun at `start`."""
    mask: int = 0
    """Which conditions have held."""
    times: list[int] = []
    place: Place | None = None
    """What a timer would call with."""
    last: int = 0
    """The time of `place`."""


_decode = msgspec.msgpack.Decoder(_State).decode
_encode = msgspec.msgpack.Encoder().encode


def feed(
    rule: Rule, state: bytes | None, *, at: int, place: Place, holds: tuple[bool, ...] = (), watermark: int = 0
) -> Step:  # fmt: skip
    """One more event of a group. `at`: its time; `holds`: of each condition of `all`, `any`, `not_all`."""
    known = _known(rule, state)
    if known is not None and (place.revision, place.number) <= known.touched:
        return Step(None, state, known.until)
    if at < watermark:
        late = f"late: its time is {_when(at)}, and {_when(watermark)} has passed"
        return Step(Suppress(late), state, known.until if known is not None else 0)
    fired: Call | None = None
    if known is not None and at > known.until:
        fired, known = _due(known), None
    now = known if known is not None else _State(rule.mark, (0, 0))
    now.touched = (place.revision, place.number)
    verdict = _RULES[rule.kind](rule, now, at, place, holds)
    return Step(verdict, _encode(now), now.until, fired)


def fire(rule: Rule, state: bytes | None, now: int) -> Step:
    """The watermark has come to `now`: a window whose time it has passed ends, and with it the state."""
    known = _known(rule, state)
    if known is None:
        return Step(None, None, 0)
    if now <= known.until:
        return Step(None, state, known.until)
    return Step(_due(known), None, 0)


def let_go(rule: Rule, state: bytes | None) -> Call | None:
    """A group goes before its time: what `once_after` holds is called now, since it would have been anyway. Of `absent_for` and
    `not_all` nothing is known yet, and nobody is called."""
    known = _known(rule, state)
    return _due(known) if known is not None and rule.kind == "once_after" else None


def group(values: Sequence[str]) -> str:
    """A group's key from the values of its expressions."""
    key = msgspec.json.encode(list(values)).decode()
    if len(key) <= MAX_KEY:
        return key
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return f"{key[: MAX_KEY - len(digest) - 1]}…{digest}"


def _known(rule: Rule, state: bytes | None) -> _State | None:
    if state is None:
        return None
    try:
        known = _decode(state)
    except msgspec.DecodeError:  # of another version
        return None
    return known if known.mark == rule.mark else None


def _due(known: _State) -> Call | None:
    return Call(known.place) if known.open and known.place is not None else None


# --- the rules: each changes the state, whose window is still open at `at` or was never begun ---------------------------------


def _once_within(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    if now.open:
        return Suppress(f"suppressed by once_within until {_when(now.until)}")
    _begin(rule, now, at)
    return Call(place)


def _once_after(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    if not now.open:
        _begin(rule, now, at)
    if now.place is None or at >= now.last:
        now.place, now.last = place, at
        return Hold(f"held by once_after until {_when(now.until)}; a later event takes its place")
    return Suppress("suppressed by once_after: a later event is held already")


def _accumulate(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    bisect.insort(now.times, at)
    newest = now.times[-1]
    now.times = [time for time in now.times if time >= newest - rule.span][-max(1, rule.threshold) :]
    now.open, now.until = True, newest + rule.span
    if len(now.times) < rule.threshold:
        return Suppress(f"{len(now.times)} of {rule.threshold} within {rule.span / 1e6:g} s (accumulate_within)")
    now.times = []
    return Call(place)


def _all(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    held = _mask(holds)
    if not held:
        return _none(rule, now, at)
    if not now.open or not now.mask:
        _begin(rule, now, at)
    now.mask |= held
    if now.mask == _whole(rule):
        now.mask = 0
        return Call(place)
    return Suppress(f"{now.mask.bit_count()} of {rule.conditions} conditions have held; all until {_when(now.until)}")


def _any(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    if not _mask(holds):
        return _none(rule, now, at)
    if now.mask:
        return Suppress(f"suppressed by any until {_when(now.until)}")
    _begin(rule, now, at)
    now.mask = 1
    return Call(place)


def _not_all(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    held = _mask(holds)
    if not held:
        return _none(rule, now, at)
    first = not now.mask
    if first:
        _begin(rule, now, at)
        now.place = place
    now.mask |= held
    if now.mask == _whole(rule):
        now.mask, now.place = 0, None
        return Suppress("all conditions of not_all have held")
    if first:
        return Hold(f"held by not_all until {_when(now.until)}; nobody is called when all have held by then")
    return Suppress(f"{now.mask.bit_count()} of {rule.conditions} conditions have held; not_all until {_when(now.until)}")


def _absent(rule: Rule, now: _State, at: int, place: Place, holds: tuple[bool, ...]) -> Call | Suppress | Hold:
    if now.place is not None and at < now.last:
        return Suppress("a later event is held by absent_for already")
    now.open, now.start, now.until, now.place, now.last = True, at, at + rule.span, place, at
    return Hold(f"held by absent_for until {_when(now.until)}; the next event takes its place")


_RULES = {
    "once_within": _once_within,
    "once_after": _once_after,
    "accumulate_within": _accumulate,
    "all": _all,
    "any": _any,
    "not_all": _not_all,
    "absent_for": _absent,
}


def _begin(rule: Rule, now: _State, at: int) -> None:
    now.open, now.start, now.until = True, at, at + rule.span


def _none(rule: Rule, now: _State, at: int) -> Suppress:
    if not now.open:
        now.until = max(now.until, at)  # remembered only so that it is not fed twice
    return Suppress(f"none of the conditions of {rule.kind} holds")


def _mask(holds: tuple[bool, ...]) -> int:
    return sum(1 << place for place, held in enumerate(holds) if held)


def _whole(rule: Rule) -> int:
    return (1 << rule.conditions) - 1


def _when(us: int) -> str:
    return rfc3339(us)


# --- the groups of one rule ---------------------------------------------------------------------------------------------------

NEWEST = "newest"
"""Name under which the newest time that was seen is kept; a group's is `=` and its key."""


class Fed(msgspec.Struct, frozen=True):
    """What became of one event, and what it has set going."""

    verdict: Call | Suppress | Hold | None
    """None: it was fed already."""
    fired: tuple[Call, ...] = ()
    """Calls of timers, of whatever group, that were due before it."""
    let_go: tuple[str, ...] = ()
    """Keys of groups that had to go for its own."""


class Groups:
    """The groups of one rule in memory; `dirty` is what to write. Made anew from what was written, it goes on the same."""

    def __init__(self, rule: Rule, states: Iterable[tuple[str, bytes]] = ()) -> None:
        """`states`: name and value of all that `dirty` ever gave and that is still kept."""
        self.rule = rule
        self._newest = 0
        self._states: dict[str, bytes] = {}
        """In the order in which they were touched."""
        self._dues: dict[str, int] = {}
        self._timers: list[tuple[int, str]] = []
        self._dirty: set[str] = set()
        found: list[tuple[tuple[int, int], str, bytes, int]] = []
        for name, value in states:
            if name == NEWEST:
                self._newest = msgspec.msgpack.decode(value, type=int)
                continue
            known = _known(rule, value)
            if known is None:  # of another rule: forgotten
                self._dirty.add(name)
            else:
                found.append((known.touched, name, value, known.until))
        for _, name, value, due in sorted(found):
            self._put(name.removeprefix("="), value, due)
        self._dirty -= {f"={key}" for key in self._states}

    def __len__(self) -> int:
        return len(self._states)

    @property
    def watermark(self) -> int:
        return self._newest - self.rule.lateness

    @property
    def due(self) -> int:
        """When the next timer fires, if the log stands still until then (on the wall clock); 0: there is none."""
        while self._timers and self._dues.get(self._timers[0][1]) != self._timers[0][0]:
            heapq.heappop(self._timers)
        return self._timers[0][0] + self.rule.lateness + 1 if self._timers else 0

    def feed(self, key: str, *, at: int, place: Place, holds: tuple[bool, ...] = ()) -> Fed:
        """One more event, in the order of the log. `key`: its group's (`group`)."""
        if at > self._newest:
            self._newest = at
            self._dirty.add(NEWEST)
        fired = self._fire(self.watermark)
        step = feed(self.rule, self._states.get(key), at=at, place=place, holds=holds, watermark=self.watermark)
        if step.fired is not None:
            fired.append(step.fired)
        gone: list[str] = []
        if step.state is not None and step.state != self._states.get(key):
            self._put(key, step.state, step.due)
            while len(self._states) > self.rule.max_groups:
                oldest = next(iter(self._states))
                call = let_go(self.rule, self._states[oldest])
                if call is not None:
                    fired.append(call)
                self._drop(oldest)
                gone.append(oldest)
        return Fed(step.verdict, tuple(fired), tuple(gone))

    def idle(self, now: int) -> tuple[Call, ...]:
        """Nothing has come up to `now` (the wall clock): the timers that this lets fire."""
        return tuple(self._fire(max(self._newest, now) - self.rule.lateness))

    def dirty(self) -> list[tuple[str, bytes | None, int]]:
        """What has changed since this was last asked: name, value (None: forget it), and when it is due (0: never)."""
        found: list[tuple[str, bytes | None, int]] = []
        for name in sorted(self._dirty):
            if name == NEWEST:
                found.append((name, msgspec.msgpack.encode(self._newest), 0))
            else:
                key = name.removeprefix("=")
                found.append((name, self._states.get(key), self._dues.get(key, 0)))
        self._dirty.clear()
        return found

    def _fire(self, watermark: int) -> list[Call]:
        calls: list[Call] = []
        while self._timers and self._timers[0][0] < watermark:
            due, key = heapq.heappop(self._timers)
            if self._dues.get(key) != due:
                continue  # it was moved since
            step = fire(self.rule, self._states[key], watermark)
            if isinstance(step.verdict, Call):
                calls.append(step.verdict)
            self._drop(key)
        return calls

    def _put(self, key: str, state: bytes, due: int) -> None:
        self._states.pop(key, None)
        self._states[key] = state
        self._dirty.add(f"={key}")
        if due and self._dues.get(key) != due:
            self._dues[key] = due
            heapq.heappush(self._timers, (due, key))
            if len(self._timers) > 2 * len(self._states) + 1000:  # those that were moved
                self._timers = sorted((due, key) for key, due in self._dues.items())

    def _drop(self, key: str) -> None:
        del self._states[key]
        self._dues.pop(key, None)
        self._dirty.add(f"={key}")
