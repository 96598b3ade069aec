"""What every store has to pass: subclass `StoreSuite` and say where a store lives.

    class TestMemory(StoreSuite):
        durable = False

        @contextmanager
        def place(self):
            yield memory_opener

A durable store is also closed and opened again in the middle. The expectations come from `Ledger`, a model of its own that
shares no code with `model/fold.py`: its readings are complete and never late, so that a dict is enough.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vedette.errors import Conflict, Expired, NotFound, StoreUnavailable
from vedette.model.change import Change, Version
from vedette.model.delivery import (
    LIVE,
    Cursor,
    Delivery,
    DropHandler,
    PutCursor,
    PutDelivery,
    PutState,
    Settle,
    Work,
)
from vedette.model.delivery import State as Remembered
from vedette.model.entry import Entry, NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import OPENSTACK, Key, Reading
from vedette.ports import EVERYTHING, Appended, Scope, Selection, Store
from vedette.store.memory import MemoryStore

T0 = 1_795_187_946_000_000
SECOND = 1_000_000
ALL = Selection(EVERYTHING)


class SetClock:
    """A wall clock that stands still until it is told otherwise."""

    def __init__(self, now: int = T0) -> None:
        self.now = now

    def now_us(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / SECOND

    async def sleep(self, seconds: float) -> None:
        self.now += int(seconds * SECOND)


Opener = Callable[[SetClock], Awaitable[Store]]


class State(NamedTuple):
    """All that the model knows of an object."""

    project: str
    shared: bool
    owner: str
    size: int
    revision: int
    """of its last change"""


def notice(
    id_: str, *, source: str = "one", event_type: str = "port.update.end", payload: bytes = b"{}", sent_at: int = T0
) -> Notice:
    return Notice(id=id_, source=source, event_type=event_type, sent_at=sent_at, payload=msgspec.Raw(payload))


def reading(verb: str, id_: str, as_of: int, *, kind: str = "Port", **rest: Any) -> Reading:
    return Reading(kind=kind, id=id_, verb=verb, as_of=as_of, **rest)  # type: ignore[arg-type]


def port(id_: str, *, source: str = "one") -> Key:
    return Key(source, OPENSTACK, "Port", id_)


def status_of(version: Version) -> dict[str, Any]:
    status: dict[str, Any] = json.loads(version.body)["status"]
    return status


class Lab:
    """A store that is open, its clock, and short words for what tests do with it."""

    def __init__(self, opener: Opener, durable: bool, clock: SetClock | None = None) -> None:
        self.opener = opener
        self.durable = durable
        self.clock = clock or SetClock()
        self.store: Store
        self._ids = 0

    async def open(self) -> Lab:
        self.store = await self.opener(self.clock)
        return self

    async def reopen(self) -> None:
        """Close and open again; a store that isn't durable stays."""
        if self.durable:
            await self.store.close()
            self.store = await self.opener(self.clock)

    def news(self, *readings: Reading, **rest: Any) -> NewEntry:
        self._ids += 1
        return NewEntry(notice(rest.pop("id", f"n{self._ids}"), **rest), readings)

    def said(self, verb: str, id_: str, **rest: Any) -> NewEntry:
        """News of one port, later than all before."""
        self.clock.now += SECOND
        entry_words = {word: rest.pop(word) for word in ("source", "event_type", "payload", "id") if word in rest}
        return self.news(reading(verb, id_, self.clock.now, **rest), **entry_words)

    async def add(self, verb: str, id_: str, **rest: Any) -> int:
        (revision,) = await self.store.append([self.said(verb, id_, **rest)])
        assert revision is not None
        return revision

    async def ids(self, selection: Selection = ALL, **rest: Any) -> list[str]:
        return [key.id for key, _ in (await self.store.objects(selection, **rest)).items]

    async def all_changes(self, after: int, selection: Selection = ALL, limit: int = 500) -> list[Change]:
        """Page by page, up to the head."""
        found: list[Change] = []
        while True:
            some, upto = await self.store.changes(after, selection=selection, limit=limit)
            assert upto > after or upto == self.store.head
            found += some
            after = upto
            if after == self.store.head:
                return found

    async def all_entries(self, after: int, limit: int = 500, **rest: Any) -> list[Appended]:
        found: list[Appended] = []
        while True:
            some, upto = await self.store.entries(after, limit=limit, **rest)
            assert upto > after or upto == self.store.head
            found += some
            after = upto
            if after == self.store.head:
                return found

    async def retain_all(self, horizon: int, most: int = 1000) -> int:
        total = 0
        while gone := await self.store.retain(horizon=horizon, most=most):
            assert gone <= most
            total += gone
        return total


# --- the model --------------------------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """One reading of a random history."""

    kind: str
    id: str
    verb: str
    project: str
    shared: bool
    owner: str
    size: int


class Ledger:
    """What a store must answer, from nothing but what was appended."""

    def __init__(self, start: int) -> None:
        self.start = self.head = self.oldest = start
        self.states: dict[int, dict[Key, State]] = {start: {}}
        """What lives, at each revision."""
        self.gone: dict[int, dict[Key, State]] = {}
        """What each entry deleted: the last content, under the deletion's revision."""
        self.entries: list[tuple[int, int, NewEntry]] = []
        """(revision, appended at, what)"""
        self.tombs: dict[Key, int] = {}
        """What is known to be gone, and the revision at which it went."""
        self.seen: set[str] = set()
        self._last_at = 0

    def append(self, new: NewEntry, said: Sequence[Said], now: int) -> int | None:
        if new.notice.id in self.seen:
            return None
        self.seen.add(new.notice.id)
        self._last_at = max(self._last_at, now)
        before = self.states[self.head]
        self.head += 1
        self.entries.append((self.head, self._last_at, new))
        living, tombs = dict(before), dict(self.tombs)
        gone: dict[Key, State] = {}
        for one in said:
            key = Key(new.notice.source, OPENSTACK, one.kind, one.id)
            state = State(one.project, one.shared, one.owner, one.size, self.head)
            if one.verb == "delete":
                if key in living and key in before:
                    gone[key] = state
                living.pop(key, None)
                tombs.setdefault(key, self.head)
            elif key in living:
                was = living[key]
                living[key] = was if was[:4] == state[:4] else state
            elif one.verb == "create" or key not in tombs:
                living[key] = state
                tombs.pop(key, None)
                gone.pop(key, None)
        # Gone before and after: nothing happened to it.
        self.tombs = {key: self.tombs.get(key, revision) for key, revision in tombs.items()}
        self.states[self.head] = living
        self.gone[self.head] = gone
        return self.head

    def retain(self, horizon: int, most: int) -> int:
        going = [entry for entry in self.entries[:most] if entry[1] < horizon]
        self.entries = self.entries[len(going) :]
        if going:
            self.oldest = going[-1][0]
            self.seen -= {new.notice.id for _, _, new in going}
            self.tombs = {key: revision for key, revision in self.tombs.items() if revision > self.oldest}
        return len(going)

    def objects(self, revision: int, selection: Selection) -> list[tuple[Key, State]]:
        rows = [(key, state) for key, state in self.states[revision].items() if holds(selection, key, state)]
        return sorted(rows, key=lambda row: (row[0].source, row[0].id, row[0].group, row[0].kind))

    def changes(self, after: int, upto: int, selection: Selection) -> list[tuple[int, str, Key, State, State | None]]:
        """Within an entry sorted by key: the order of the readings is the fold's affair."""
        found = []
        for revision in range(after + 1, upto + 1):
            before, now, gone = self.states[revision - 1], self.states[revision], self.gone[revision]
            rows: list[tuple[int, str, Key, State, State | None]] = []
            for key in sorted(before.keys() | now.keys()):
                was, is_ = before.get(key), now.get(key)
                if was == is_:
                    continue
                if is_ is None:
                    rows.append((revision, "DELETED", key, gone[key], was))
                else:
                    rows.append((revision, "ADDED" if was is None else "MODIFIED", key, is_, was))
            found += [r for r in rows if holds(selection, r[2], r[3]) or (r[4] is not None and holds(selection, r[2], r[4]))]
        return found


def holds(selection: Selection, key: Key, state: State) -> bool:
    scope = selection.scope
    sees = (
        scope.admin
        or state.shared
        or (state.project in scope.projects and state.project != "")
        or (state.owner == scope.user != "")
    )
    return (
        sees
        and selection.kind in ("", key.kind)
        and selection.source in ("", key.source)
        and selection.id in ("", key.id)
        and key.id[: len(selection.prefix)] == selection.prefix
        and selection.project in (None, state.project)
    )


def state_of(version: Version) -> State:
    return State(version.project, version.shared, version.owner, status_of(version)["size"], version.revision)


def flat(change: Change) -> tuple[int, str, Key, State, State | None]:
    return (
        change.revision,
        change.verb,
        change.key,
        state_of(change.now),
        None if change.before is None else state_of(change.before),
    )


# --- random histories -------------------------------------------------------------------------------------------------------

saids = st.builds(
    Said,
    kind=st.sampled_from(["Port", "Server"]),
    id=st.sampled_from(["a", "b", "b/c", "d"]),
    verb=st.sampled_from(["create", "update", "update", "delete"]),
    project=st.sampled_from(["p1", "p1", "p2", ""]),
    shared=st.sampled_from([False, False, False, True]),
    owner=st.sampled_from(["", "", "u1"]),
    size=st.integers(0, 2),
)
scopes = st.sampled_from(
    [
        EVERYTHING,
        Scope(projects=frozenset({"p1"})),
        Scope(projects=frozenset({"p1", "p2"})),
        Scope(projects=frozenset({"p2"}), user="u1"),
        Scope(user="u1"),
        Scope(),
        Scope(projects=frozenset({""})),
    ]
)
selections = st.builds(
    lambda scope, kind, source, project, id_, prefix: Selection(
        scope, OPENSTACK if kind else "", kind, source, project, id_, prefix
    ),
    scopes,
    st.sampled_from(["", "Port", "Port", "Server"]),
    st.sampled_from(["", "", "one", "two"]),
    st.sampled_from([None, None, "p1", "p2", ""]),
    st.sampled_from(["", "", "", "b"]),
    st.sampled_from(["", "", "", "b", "b/"]),
)


class Write(NamedTuple):
    entries: list[tuple[str, str, list[Said]]]
    """(notice id, source, readings): one append"""


class StartList(NamedTuple):
    selection: Selection
    limit: int


class NextPage(NamedTuple):
    which: int


class Follow(NamedTuple):
    back: int
    """how far behind the head"""
    selection: Selection
    limit: int


class Retain(NamedTuple):
    age: int
    """seconds that stay"""
    most: int


class Reopen(NamedTuple):
    pass


Step = Write | StartList | NextPage | Follow | Retain | Reopen

writes = st.builds(
    Write,
    st.lists(
        st.tuples(st.integers(0, 60).map(lambda n: f"m{n}"), st.sampled_from(["one", "one", "two"]), st.lists(saids, max_size=3)),
        min_size=1,
        max_size=4,
    ),
)
steps = st.lists(
    st.one_of(
        writes,
        writes,
        writes,
        st.builds(StartList, selections, st.integers(1, 3)),
        st.builds(NextPage, st.integers(0, 5)),
        st.builds(Follow, st.integers(0, 12), selections, st.integers(1, 5)),
        st.builds(Retain, st.integers(0, 8), st.integers(1, 6)),
        st.just(Reopen()),
    ),
    min_size=4,
    max_size=30,
)
random_history = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors], database=None
)


class Historian:
    """Plays a random history on a store and on the model, and compares every answer."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.ledger = Ledger(lab.store.head)
        self.lists: list[tuple[Selection, int, int, list[tuple[Key, State]], tuple[str, str]]] = []
        """Lists under way: selection, limit, revision, what came, where it goes on."""
        self.heard: list[Appended] = []
        self.answers: list[Any] = []
        """Everything the store said, to be compared with another's."""
        lab.store.follow(self.heard.extend)

    async def play(self, history: Sequence[Step]) -> None:
        for step in history:
            match step:
                case Write():
                    await self._write(step)
                case StartList():
                    await self._page(step.selection, step.limit, 0, [], None)
                case NextPage():
                    if self.lists:
                        await self._page(*self.lists.pop(step.which % len(self.lists)))
                case Follow():
                    await self._follow(step)
                case Retain():
                    horizon = self.lab.clock.now - step.age * SECOND
                    gone = await self.lab.store.retain(horizon=horizon, most=step.most)
                    assert gone == self.ledger.retain(horizon, step.most)
                    assert self.lab.store.oldest == self.ledger.oldest
                case Reopen():
                    if self.lab.durable:
                        await self.lab.reopen()
                        self.lab.store.follow(self.heard.extend)
        while self.lists:
            await self._page(*self.lists.pop())
        await self._last_look()

    async def _write(self, step: Write) -> None:
        self.lab.clock.now += SECOND
        news, expected = [], []
        for id_, source, said in step.entries:
            # A second later each: never late, and a tombstone's creator is always newer.
            readings = []
            for one in said:
                self.lab.clock.now += 1
                readings.append(
                    reading(
                        one.verb,
                        one.id,
                        self.lab.clock.now,
                        kind=one.kind,
                        project=one.project,
                        shared=one.shared,
                        owner=one.owner,
                        created=T0,
                        fields={"size": one.size},
                        admin={"host": "h"},
                    )
                )
            news.append(NewEntry(notice(f"{source}-{id_}", source=source, event_type=f"{id_}.end"), tuple(readings)))
        for new, (_, _, said) in zip(news, step.entries, strict=True):
            expected.append(self.ledger.append(new, said, self.lab.clock.now))
        answer = list(await self.lab.store.append(news))
        assert answer == expected
        assert self.lab.store.head == self.ledger.head
        self.answers.append(answer)

    async def _page(
        self, selection: Selection, limit: int, revision: int, came: list[tuple[Key, State]], after: tuple[str, str] | None
    ) -> None:
        if revision and revision < self.ledger.oldest:
            with pytest.raises(Expired):
                await self.lab.store.objects(selection, revision=revision, after=after, limit=limit)
            return
        page = await self.lab.store.objects(selection, revision=revision, after=after, limit=limit)
        self.answers.append(page)
        assert page.revision == (revision or self.ledger.head)
        rows = [(key, state_of(version)) for key, version in page.items]
        came = came + rows
        whole = self.ledger.objects(page.revision, selection)
        assert came == whole[: len(came)]
        if page.after is None:
            assert came == whole
        else:
            assert len(rows) >= limit
            assert len({(key.source, key.id) for key, _ in rows}) <= limit, "more than asked for only to end an id"
            self.lists.append((selection, limit, page.revision, came, page.after))

    async def _follow(self, step: Follow) -> None:
        after = max(self.ledger.head - step.back, self.ledger.start)
        if after < self.ledger.oldest:
            with pytest.raises(Expired):
                await self.lab.store.changes(after, selection=step.selection, limit=step.limit)
            return
        while True:
            changes, upto = await self.lab.store.changes(after, selection=step.selection, limit=step.limit)
            self.answers.append((list(changes), upto))
            assert after <= upto <= self.ledger.head
            expected = self.ledger.changes(after, upto, step.selection)
            assert sorted(map(flat, changes), key=lambda c: (c[0], c[2])) == expected
            assert [change.revision for change in changes] == sorted(change.revision for change in changes)
            if upto < self.ledger.head:
                assert len(changes) >= step.limit, "less than asked for, and not at the head"
            if upto == self.ledger.head:
                return
            after = upto

    async def _last_look(self) -> None:
        store, ledger = self.lab.store, self.ledger
        living = ledger.states[ledger.head]
        assert list(await store.projects()) == sorted({state.project for state in living.values()} - {""})
        stats = await store.stats()
        assert (stats.objects, stats.entries) == (len(living), len(ledger.entries))
        assert (stats.head, stats.oldest) == (ledger.head, ledger.oldest)
        entries = await self.lab.all_entries(ledger.oldest, limit=3)
        assert [(one.entry.revision, one.entry.appended_at) for one in entries] == [entry[:2] for entry in ledger.entries]
        assert [one.entry.notice for one in entries] == [new.notice for _, _, new in ledger.entries]
        assert [one.entry.readings for one in entries] == [new.readings for _, _, new in ledger.entries]
        # What followers were told is what the log says, each entry once, in order.
        assert [one for one in self.heard if one.entry.revision > ledger.oldest] == entries
        revisions = [one.entry.revision for one in self.heard]
        assert revisions == list(range(ledger.start + 1, ledger.head + 1))
        for key, state in living.items():
            assert state_of(await store.get(key, EVERYTHING)) == state
        self.answers.append((entries, stats.objects, await self.lab.all_changes(ledger.oldest)))


# --- the suite --------------------------------------------------------------------------------------------------------------


class StoreSuite:
    """Subclass it as `Test…`; see the module."""

    durable: bool

    def place(self) -> AbstractContextManager[Opener]:
        """Where one store lives. The opener may be called again after a close: a durable store is then what it was."""
        raise NotImplementedError

    @pytest.fixture
    async def lab(self) -> AsyncIterator[Lab]:
        with self.place() as opener:
            lab = await Lab(opener, self.durable).open()
            yield lab
            await lab.store.close()

    def run(self, work: Callable[[Lab], Awaitable[None]]) -> None:
        """For hypothesis: a store of its own for each example."""

        async def one() -> None:
            with self.place() as opener:
                lab = await Lab(opener, self.durable).open()
                try:
                    await work(lab)
                finally:
                    await lab.store.close()

        asyncio.run(one())

    # append

    async def test_revisions_start_at_the_time_of_creation_and_count_up_by_one(self, lab: Lab) -> None:
        assert lab.store.head == lab.store.oldest == T0
        assert len(str(T0)) == 16
        lab.clock.now += 3600 * SECOND
        assert list(await lab.store.append([lab.news(), lab.news()])) == [T0 + 1, T0 + 2]
        await lab.reopen()
        assert lab.store.head == T0 + 2
        assert list(await lab.store.append([lab.news()])) == [T0 + 3]
        assert lab.store.oldest == T0

    async def test_the_same_notice_twice_is_one_entry(self, lab: Lab) -> None:
        one, other = lab.said("create", "a"), lab.said("create", "b")
        assert list(await lab.store.append([one, one, other])) == [T0 + 1, None, T0 + 2]
        assert list(await lab.store.append([other])) == [None]
        await lab.reopen()
        assert list(await lab.store.append([one, lab.said("create", "c"), other])) == [None, T0 + 3, None]
        elsewhere = NewEntry(msgspec.structs.replace(one.notice, source="two"), one.readings)
        assert list(await lab.store.append([elsewhere])) == [T0 + 4], "an id means something within its source only"
        assert [one.entry.revision for one in await lab.all_entries(T0)] == [T0 + 1, T0 + 2, T0 + 3, T0 + 4]

    async def test_appends_at_the_same_time_each_get_their_own_revisions_in_order(self, lab: Lab) -> None:
        batches = [[lab.said("update", f"o{n % 7}", fields={"n": n}) for n in range(b, b + 3)] for b in range(0, 300, 3)]
        answers = await asyncio.gather(*(lab.store.append(batch) for batch in batches))
        assert [revision for answer in answers for revision in answer] == list(range(T0 + 1, T0 + 301))
        entries = await lab.all_entries(T0)
        assert [one.entry.notice.id for one in entries] == [new.notice.id for batch in batches for new in batch]

    async def test_the_same_notice_offered_by_many_at_the_same_time_is_one_entry(self, lab: Lab) -> None:
        one = lab.said("create", "a")
        answers = await asyncio.gather(*(lab.store.append([one]) for _ in range(50)))
        assert sorted(answer[0] or 0 for answer in answers) == [0] * 49 + [T0 + 1]

    async def test_nothing_appended_is_nothing(self, lab: Lab) -> None:
        assert list(await lab.store.append([])) == []
        assert lab.store.head == T0

    async def test_an_entry_comes_back_as_it_went_in(self, lab: Lab) -> None:
        full = Notice(
            id="n",
            source="one",
            event_type="compute.instance.update",
            sent_at=T0 + 5,
            payload=msgspec.Raw(b'{ "a" : [1.50, "\xc3\xa9", 123456789012345678901234567890] }'),
            priority="INFO",
            publisher="compute.host1",
            request_id="req-1",
            global_request_id="req-2",
            actor_user="u",
            actor_project="p",
            origin="resync",
            traceparent="00-1-2-01",
        )
        readings = (
            reading(
                "create",
                "a",
                5,
                version=3,
                created=7,
                project="p",
                shared=False,
                owner="u",
                fields={"x": 2**70},
                admin={"y": None},
            ),
            reading("update", "b", -5, only_known=True, group="other.example"),
        )
        await lab.store.append([NewEntry(full, readings)])
        await lab.reopen()
        (one,) = await lab.all_entries(T0)
        assert one.entry == Entry(T0 + 1, T0, full, readings)
        assert bytes(one.entry.notice.payload) == bytes(full.payload)
        assert status_of(await lab.store.get(port("a"), EVERYTHING)) == {"id": "a", "x": 2**70, "y": None}

    async def test_the_time_of_the_append_never_goes_back(self, lab: Lab) -> None:
        lab.clock.now = T0 + 100
        await lab.store.append([lab.news()])
        lab.clock.now = T0 - 100 * SECOND
        await lab.store.append([lab.news()])
        await lab.reopen()
        await lab.store.append([lab.news()])
        assert [one.entry.appended_at for one in await lab.all_entries(T0)] == [T0 + 100] * 3
        await lab.retain_all(horizon=T0 + 101)
        await lab.reopen()
        await lab.store.append([lab.news()])
        (one,) = await lab.all_entries(lab.store.oldest)
        assert one.entry.appended_at == T0 + 100, "not even when the log is empty"

    async def test_a_reading_that_cannot_be_folded_never_stands_in_the_way(self, lab: Lab) -> None:
        deep: Any = "x"
        for _ in range(100_000):
            deep = [deep]
        odd = [
            lab.news(reading("create", "a", 2**63)),
            lab.news(reading("create", "a", 1, version=2**64)),
            lab.news(reading("create", "a", 1, fields={"x": "\ud800"})),
            lab.news(reading("create", "a", 1, fields={"x": deep})),
            lab.news(reading("create", "a\ud800", 1)),
        ]
        good = lab.said("create", "b")
        assert list(await lab.store.append([*odd, good])) == [T0 + n for n in range(1, 7)]
        await lab.reopen()
        assert await lab.ids() == ["b"]
        entries = await lab.all_entries(T0)
        assert [one.entry.readings for one in entries] == [(), (), (), (), (), good.readings]
        assert list(await lab.store.append(odd[:1])) == [None], "it is in the log: a source that offers it again can go on"

    async def test_big_batches_and_big_payloads(self, lab: Lab) -> None:
        many = [lab.said("update", f"o{n % 50}", fields={"n": n}) for n in range(5_000)]
        assert list(await lab.store.append(many)) == list(range(T0 + 1, T0 + 5_001))
        payload = b'"' + b"x" * 8_388_608 + b'"'
        big = lab.said("update", "o1", payload=payload, fields={"n": "y" * 1_000_000})
        await lab.store.append([big, lab.said("update", "o2", payload=payload)])
        (one, other) = await lab.all_entries(T0 + 5_000)
        assert bytes(one.entry.notice.payload) == bytes(other.entry.notice.payload) == payload
        assert len(await lab.all_changes(T0, limit=1_000)) == 5_001

    # expect

    async def test_expect_holds_or_nothing_is_kept(self, lab: Lab) -> None:
        key = port("a")
        (first,) = await lab.store.append([lab.said("create", "a")], {key: 0})
        assert first is not None
        for wrong in (0, first - 1, first + 1):
            with pytest.raises(Conflict):
                await lab.store.append([lab.said("update", "a", fields={"x": wrong}), lab.said("create", "z")], {key: wrong})
        assert lab.store.head == first
        assert await lab.ids() == ["a"]
        await lab.reopen()
        (second,) = await lab.store.append([lab.said("update", "a", fields={"x": 1})], {key: first})
        assert second is not None
        # An entry that changes nothing doesn't move the object on.
        await lab.store.append([lab.said("update", "a", fields={"x": 1})])
        await lab.store.append([lab.said("delete", "a")], {key: second})
        await lab.store.append([lab.said("create", "a")], {key: 0, port("b"): 0})
        with pytest.raises(Conflict):
            await lab.store.append([], {port("b"): 7})

    async def test_of_those_who_expect_the_same_one_wins_and_others_are_not_harmed(self, lab: Lab) -> None:
        await lab.add("create", "a")
        revision = lab.store.head
        rivals = [lab.store.append([lab.said("update", "a", fields={"by": n})], {port("a"): revision}) for n in range(20)]
        bystanders = [lab.store.append([lab.said("create", f"x{n}")]) for n in range(20)]
        answers = await asyncio.gather(
            *(pair for both in zip(rivals, bystanders, strict=True) for pair in both), return_exceptions=True
        )
        assert [type(answer) for answer in answers[0::2]].count(Conflict) == 19
        assert all(isinstance(answer, list) for answer in answers[1::2])
        assert status_of(await lab.store.get(port("a"), EVERYTHING))["by"] == 0

    # get

    async def test_get_shows_each_caller_what_is_theirs_and_the_rest_looks_missing(self, lab: Lab) -> None:
        await lab.add("create", "mine", project="p1")
        await lab.add("create", "theirs", project="p2")
        await lab.add("create", "all", project="p2", shared=True)
        await lab.add("create", "key", owner="u1")
        await lab.add("create", "nobody")
        await lab.add("create", "gone", project="p1")
        await lab.add("delete", "gone")
        ids = ["mine", "theirs", "all", "key", "nobody", "gone", "never"]

        async def seen(scope: Scope) -> list[str]:
            found = []
            for id_ in ids:
                try:
                    await lab.store.get(port(id_), scope)
                    found.append(id_)
                except NotFound:
                    pass
            return found

        await lab.reopen()
        assert await seen(EVERYTHING) == ["mine", "theirs", "all", "key", "nobody"]
        assert await seen(Scope(projects=frozenset({"p1"}))) == ["mine", "all"]
        assert await seen(Scope(projects=frozenset({"p2"}), user="u1")) == ["theirs", "all", "key"]
        assert await seen(Scope(projects=frozenset({""}))) == ["all"], "no project is nobody's project"
        assert await seen(Scope()) == ["all"]
        with pytest.raises(NotFound):
            await lab.store.get(port("mine", source="two"), EVERYTHING)
        await lab.add("update", "mine", project="p2")
        assert "mine" not in await seen(Scope(projects=frozenset({"p1"})))

    async def test_held_is_what_the_fold_begins_from(self, lab: Lab) -> None:
        await lab.add("create", "there", project="p1", fields={"size": 1}, admin={"host": "h"}, version=7)
        await lab.add("update", "there")
        late = lab.clock.now
        await lab.add("create", "gone", fields={"size": 2})
        await lab.add("delete", "gone")
        await lab.add("delete", "never seen")
        await lab.reopen()
        there, gone, tombstone, nothing, again = await lab.store.held(
            [port("there"), port("gone"), port("never seen"), port("nothing"), port("there")]
        )
        assert there is not None
        assert again is not None
        assert gone is not None
        assert tombstone is not None
        assert nothing is None
        assert (there.fields, there.admin, there.project, there.version) == ({"size": 1}, {"host": "h"}, "p1", 7)
        assert there.as_of == late, "a reading that changed nothing moved it"
        assert not there.deleted
        assert again == there
        assert gone.deleted
        assert gone.fields == {"size": 2}
        assert tombstone.deleted
        assert tombstone.as_of > gone.as_of
        assert await lab.store.held([]) == []

    # objects

    async def test_pages_follow_each_other_by_source_and_id(self, lab: Lab) -> None:
        for source, id_ in [("two", "a"), ("one", "c"), ("one", "a"), ("one", "b")]:
            await lab.add("create", id_, source=source)
        selection = Selection(EVERYTHING, OPENSTACK, "Port")
        first = await lab.store.objects(selection, limit=3)
        assert [(key.source, key.id) for key, _ in first.items] == [("one", "a"), ("one", "b"), ("one", "c")]
        assert (first.after, first.revision) == (("one", "c"), lab.store.head)
        await lab.add("create", "d", source="two")
        await lab.add("delete", "a", source="two")
        last = await lab.store.objects(selection, revision=first.revision, after=first.after, limit=3)
        assert [(key.source, key.id) for key, _ in last.items] == [("two", "a")]
        assert last.after is None
        whole = await lab.store.objects(selection, limit=4)
        assert (len(whole.items), whole.after) == (4, None), "a page that is just full is the last when nothing follows"

    async def test_a_prefix_is_a_range_of_ids_in_every_question(self, lab: Lab) -> None:
        last = "\U0010ffff"
        ids = ["a", "n", "n-a/x", "n/", "n/a", "n/b", "n0", "n0/a", f"n{last}", f"n{last}/z", "\ud7ff", "\ue000", "ö/a"]
        revisions = {id_: await lab.add("create", id_) for id_ in ids}
        for prefix in ("n", "n/", "n/a", "n0", f"n{last}", last, "\ud7ff", "ö/", "z"):
            selection = Selection(EVERYTHING, OPENSTACK, "Port", "one", prefix=prefix)
            wanted = [id_ for id_ in ids if id_.startswith(prefix)]
            assert await lab.ids(selection) == sorted(wanted)
            assert await lab.ids(msgspec.structs.replace(selection, source="")) == sorted(wanted)
            assert await lab.ids(Selection(EVERYTHING, prefix=prefix)) == sorted(wanted)
            paged: list[str] = []
            after: tuple[str, str] | None = ("one", "b")
            while after is not None:
                page = await lab.store.objects(selection, after=after, limit=1)
                paged += [key.id for key, _ in page.items]
                after = page.after
            assert paged == sorted(wanted)
            assert [change.key.id for change in await lab.all_changes(T0, selection)] == wanted
            told, _ = await lab.store.entries(T0, selection=selection)
            assert [one.entry.revision for one in told] == [revisions[id_] for id_ in wanted]

    async def test_whole_objects_of_another_api_server_are_kept_and_shown_as_they_are_there(self, lab: Lab) -> None:
        def route(name: str, version: int, **spec: Any) -> dict[str, Any]:
            metadata = {"name": name, "namespace": "shop", "uid": f"u-{name}", "labels": {"app": name}}
            return {"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": metadata, "spec": spec, "status": version}

        async def said(verb: str, name: str, version: int, project: str | None = None, **spec: Any) -> Sequence[Change]:
            lab.clock.now += SECOND
            fields = route(name, version, **spec) if verb != "delete" else {}
            before = lab.store.head
            new = reading(
                verb, f"shop/{name}", lab.clock.now, kind="Route", group="route.openshift.io", fields=fields, whole=True,
                version=version, project=project,
            )  # fmt: skip
            await lab.store.append([lab.news(new)])
            return (await lab.store.changes(before, selection=ALL))[0]

        await said("create", "front", 1, "p1", host="a")
        await said("create", "back", 2)
        await lab.reopen()
        (change,) = await said("update", "front", 3, "p1", host="b")
        assert change.before is not None
        assert (change.verb, json.loads(change.before.body)["spec"]) == ("MODIFIED", {"host": "a"})
        await lab.reopen()
        (gone,) = await said("delete", "front", 4)
        body = json.loads(gone.now.body)
        assert (gone.verb, body["spec"], body["status"], gone.now.project) == ("DELETED", {"host": "b"}, 3, "p1")
        assert body["metadata"]["resourceVersion"] == str(gone.revision)
        assert await lab.ids(Selection(EVERYTHING, "route.openshift.io", "Route", prefix="shop/")) == ["shop/back"]
        assert await lab.ids(Selection(Scope(projects=frozenset({"p1"})))) == []
        (held,) = await lab.store.held([Key("one", "route.openshift.io", "Route", "shop/back")])
        assert held is not None
        assert (held.whole, held.uid, held.fields["spec"], held.version) == (True, "u-back", {}, 2)

    async def test_objects_of_several_kinds_with_one_id_are_never_split(self, lab: Lab) -> None:
        now = lab.clock.now
        kinds = ["Aggregate", "Flavor", "Hypervisor"]
        await lab.store.append([lab.news(reading("create", str(n), now, kind=kind)) for n in range(3) for kind in kinds])
        after, came, rounds = None, [], 0
        while True:
            page = await lab.store.objects(ALL, after=after, limit=2)
            came += [(key.id, key.kind) for key, _ in page.items]
            rounds += 1
            after = page.after
            if after is None:
                break
        assert came == [(str(n), kind) for n in range(3) for kind in kinds]
        assert rounds == 3

    async def test_a_page_of_a_place_that_is_not_there_is_expired(self, lab: Lab) -> None:
        for n in range(4):
            await lab.add("create", f"o{n}")
        await lab.retain_all(horizon=lab.clock.now - SECOND)
        assert lab.store.oldest == T0 + 2
        for revision in (1, T0, T0 + 1, T0 + 5, 2**60):
            with pytest.raises(Expired):
                await lab.store.objects(ALL, revision=revision)
        assert await lab.ids(revision=T0 + 2) == ["o0", "o1"]

    @random_history
    @given(steps)
    def test_every_answer_is_what_the_ledger_says(self, history: list[Step]) -> None:
        """Lists as of their first page while others write, move, delete and revive; changes from any place; retention in
        any batches; restarts: everything at once."""

        async def play(lab: Lab) -> None:
            await Historian(lab).play(history)

        self.run(play)

    # changes

    async def test_an_entry_is_never_split_even_by_the_limit(self, lab: Lab) -> None:
        now = lab.clock.now
        await lab.store.append([lab.news(*(reading("create", f"{e}{n}", now) for n in range(5))) for e in "ab"])
        changes, upto = await lab.store.changes(T0, selection=ALL, limit=2)
        assert ([change.key.id for change in changes], upto) == ([f"a{n}" for n in range(5)], T0 + 1)
        changes, upto = await lab.store.changes(upto, selection=ALL, limit=2)
        assert ([change.key.id for change in changes], upto) == ([f"b{n}" for n in range(5)], T0 + 2)
        assert await lab.store.changes(upto, selection=ALL, limit=2) == ([], T0 + 2)
        (one,) = (await lab.store.entries(T0, limit=1))[0]
        assert len(one.changes) == 5

    async def test_a_tenant_is_told_of_what_comes_and_of_what_leaves(self, lab: Lab) -> None:
        tenant = Selection(Scope(projects=frozenset({"p1"})), OPENSTACK, "Port")
        await lab.add("create", "a", project="p2")
        await lab.add("update", "a", project="p1")
        await lab.add("update", "a", fields={"x": 1})
        await lab.add("update", "a", project="p2")
        await lab.add("delete", "a")
        seen = [(change.revision - T0, change.verb) for change in await lab.all_changes(T0, tenant, limit=1)]
        assert seen == [(2, "MODIFIED"), (3, "MODIFIED"), (4, "MODIFIED")]
        moved = (await lab.all_changes(T0 + 3, tenant))[0]
        assert moved.before is not None
        assert (moved.before.project, moved.now.project) == ("p1", "p2")

    async def test_a_place_that_is_not_in_the_log_is_expired(self, lab: Lab) -> None:
        for n in range(3):
            await lab.add("create", f"o{n}")
        for after in (0, T0 - 1, T0 + 4, 2**60):
            with pytest.raises(Expired, match="list again"):
                await lab.store.changes(after, selection=ALL)
            with pytest.raises(Expired, match="list again"):
                await lab.store.entries(after)

    # entries

    async def test_entries_are_found_by_type_source_and_place(self, lab: Lab) -> None:
        types = ["port.create.end", "port.update.end", "vedette.gap", "compute.instance.update", "vedette.not-understood"]
        for n, event_type in enumerate(types * 2):
            await lab.add("create", f"o{n}", event_type=event_type, source="one" if n < 5 else "two")

        async def found(after: int = T0, **rest: Any) -> list[int]:
            some, upto = await lab.store.entries(after, **rest)
            assert upto >= after
            return [one.entry.revision - T0 for one in some]

        await lab.reopen()
        assert await found() == list(range(1, 11))
        assert await found(types=["port.*"]) == [1, 2, 6, 7]
        assert await found(types=["port.[cu]*.end", "compute.instance.update"]) == [1, 2, 4, 6, 7, 9]
        assert await found(types=["PORT.*"]) == []
        assert await found(types=["vedette.gap"]) == [3, 8]
        assert await found(types=["vedette.gap", "vedette.not-understood"], source="two") == [8, 10]
        assert await found(types=["vedette.*"]) == [3, 5, 8, 10]
        assert await found(types=["vedette.ga?"]) == [3, 8]
        assert await found(source="one") == [1, 2, 3, 4, 5]
        assert await found(before=T0 + 3) == [1, 2, 3]
        assert await found(after=T0 + 2, before=T0 + 4, types=["compute.*"]) == [4]
        assert await found(selection=Selection(EVERYTHING, OPENSTACK, "Port", id="o3")) == [4]
        assert await lab.store.entries(T0, types=["port.*"], limit=2) != ([], T0)
        _, upto = await lab.store.entries(T0, types=["port.*"], limit=3)
        assert upto == T0 + 6
        assert (await lab.store.entries(T0, before=T0 + 3))[1] == T0 + 3
        assert (await lab.store.entries(T0, before=T0 + 99))[1] == T0 + 10
        assert await lab.store.entries(T0 + 5, before=T0 + 3) == ([], T0 + 5), "never back"

    async def test_an_entry_carries_its_changes_with_what_was_before(self, lab: Lab) -> None:
        await lab.add("create", "a", fields={"x": 1})
        await lab.add("update", "a", fields={"x": 1})
        await lab.add("update", "a", fields={"x": 2})
        one, two, three = await lab.all_entries(T0)
        assert [change.verb for change in one.changes] == ["ADDED"]
        assert two.changes == ()
        assert three.changes[0].before == one.changes[0].now

    # time

    async def test_a_time_has_a_place_in_the_log(self, lab: Lab) -> None:
        assert await lab.store.revision_at(T0 + 99) == T0
        for n in (10, 10, 20, 30):
            lab.clock.now = T0 + n
            await lab.store.append([lab.news()])

        async def places(*whens: int) -> list[int]:
            return [await lab.store.revision_at(T0 + when) - T0 for when in whens]

        assert await places(0, 10, 11, 20, 21, 30, 31, 10**9) == [0, 0, 2, 2, 3, 3, 4, 4]
        await lab.store.retain(horizon=T0 + 11, most=1)
        assert await places(0, 10, 11, 21) == [1, 1, 2, 3]
        await lab.retain_all(horizon=T0 + 21)
        await lab.reopen()
        assert await places(0, 11, 21, 30, 31) == [3, 3, 3, 3, 4]
        await lab.retain_all(horizon=T0 + 99)
        assert await places(0, 99) == [4, 4]

    async def test_projects_are_those_that_have_something(self, lab: Lab) -> None:
        for id_, project in [("a", "p2"), ("b", "p1"), ("c", "p3"), ("d", "")]:
            await lab.add("create", id_, project=project)
        await lab.add("delete", "c")
        await lab.add("update", "a", project="p4")
        await lab.reopen()
        assert list(await lab.store.projects()) == ["p1", "p4"]

    # follow

    async def test_followers_hear_each_entry_once_and_in_order(self, lab: Lab) -> None:
        heard: list[list[Appended]] = [[], []]
        heads: list[tuple[int, int]] = []
        stop = [lab.store.follow(one.extend) for one in heard]
        lab.store.follow(lambda appended: heads.append((appended[-1].entry.revision, lab.store.head)))
        batches = [[lab.said("update", "a", fields={"n": n}), lab.said("update", "b")] for n in range(50)]
        await asyncio.gather(*(lab.store.append(batch) for batch in batches))
        assert [one.entry.revision for one in heard[0]] == list(range(T0 + 1, T0 + 101))
        assert heard[1] == heard[0] == await lab.all_entries(T0)
        assert all(revision == head for revision, head in heads), "the head has moved when followers are called"
        stop[0]()
        stop[0]()
        await lab.add("create", "c")
        assert (len(heard[0]), len(heard[1])) == (100, 101)

    async def test_one_may_follow_twice_and_stop_once(self, lab: Lab) -> None:
        heard: list[Appended] = []
        stop, _ = lab.store.follow(heard.extend), lab.store.follow(heard.extend)
        await lab.add("create", "a")
        stop()
        await lab.add("create", "b")
        assert len(heard) == 3

    async def test_a_follower_that_fails_harms_nobody(self, lab: Lab) -> None:
        heard: list[Appended] = []

        def fails(_: Sequence[Appended]) -> None:
            raise RuntimeError("no")

        lab.store.follow(fails)
        lab.store.follow(heard.extend)
        revision = await lab.add("create", "a")
        await lab.store.wait_folded(revision)
        assert [one.entry.revision for one in heard] == [revision]

    async def test_a_follower_may_stop_while_it_is_told(self, lab: Lab) -> None:
        heard: list[int] = []

        def once(appended: Sequence[Appended]) -> None:
            heard.append(appended[-1].entry.revision)
            stop()

        stop = lab.store.follow(once)
        lab.store.follow(lambda appended: heard.append(appended[-1].entry.revision))
        await lab.add("create", "a")
        await lab.add("create", "b")
        assert heard == [T0 + 1, T0 + 1, T0 + 2]

    async def test_what_was_waited_for_shows_in_reads(self, lab: Lab) -> None:
        await lab.store.wait_folded(T0)
        waiting = asyncio.create_task(lab.store.wait_folded(T0 + 2))
        await lab.add("create", "a")
        assert not waiting.done()
        await lab.add("create", "b")
        await waiting
        assert await lab.ids() == ["a", "b"]

    async def test_a_closed_store_says_so_and_leaves_nobody_waiting(self, lab: Lab) -> None:
        waiting = asyncio.create_task(lab.store.wait_folded(T0 + 99))
        await asyncio.sleep(0)
        await lab.store.close()
        await lab.store.close()
        with pytest.raises(StoreUnavailable, match="closed"):
            await waiting
        with pytest.raises(StoreUnavailable, match="closed"):
            await lab.store.wait_folded(T0 + 99)
        with pytest.raises(StoreUnavailable, match="closed"):
            await lab.store.append([lab.news()])
        with pytest.raises(StoreUnavailable, match="closed"):
            await lab.store.objects(ALL)
        with pytest.raises(StoreUnavailable, match="closed"):
            await lab.store.get(port("a"), EVERYTHING)

    # retention

    @pytest.mark.parametrize("most", [1, 2, 3, 7, 1000])
    async def test_retention_takes_what_is_old_and_never_the_present(self, lab: Lab, most: int) -> None:
        for n in range(3):
            await lab.add("create", f"still{n}", fields={"n": 0})
        for n in range(10):
            await lab.add("update", "busy", fields={"n": n})
        middle = lab.clock.now
        at_middle = lab.store.head
        for n in range(10, 14):
            await lab.add("update", "busy", fields={"n": n})
        whole = await lab.all_changes(at_middle)
        assert await lab.retain_all(horizon=middle + 1, most=most) == 13
        assert lab.store.oldest == at_middle
        await lab.reopen()
        assert await lab.ids() == ["busy", "still0", "still1", "still2"]
        assert await lab.all_changes(at_middle) == whole, "the state before a change that is kept is kept too"
        (key, version) = (await lab.store.objects(ALL, revision=at_middle)).items[0]
        assert (key.id, status_of(version)["n"]) == ("busy", 9)
        with pytest.raises(Expired):
            await lab.store.changes(at_middle - 1, selection=ALL)
        await lab.retain_all(horizon=lab.clock.now + 1, most=most)
        assert lab.store.oldest == lab.store.head
        assert await lab.ids() == ["busy", "still0", "still1", "still2"]
        assert status_of(await lab.store.get(port("busy"), EVERYTHING))["n"] == 13
        # And what is left goes on.
        await lab.add("update", "still0", fields={"n": 1})
        (change,) = await lab.all_changes(lab.store.oldest)
        assert change.before is not None
        assert status_of(change.before)["n"] == 0

    async def test_age_counts_from_the_append_not_from_the_notice(self, lab: Lab) -> None:
        old = NewEntry(notice("old", sent_at=1), ())
        await lab.store.append([old])
        assert await lab.store.retain(horizon=lab.clock.now) == 0
        assert await lab.store.retain(horizon=lab.clock.now + 1) == 1

    async def test_the_id_of_an_entry_goes_with_it(self, lab: Lab) -> None:
        one = lab.said("create", "a")
        await lab.store.append([one])
        await lab.retain_all(horizon=lab.clock.now + 1)
        assert list(await lab.store.append([one])) == [T0 + 2]
        assert (await lab.all_entries(T0 + 1))[0].changes == (), "known already: no change"

    async def test_tombstones_live_as_long_as_the_log(self, lab: Lab) -> None:
        when = lab.clock.now
        await lab.store.append([lab.news(reading("create", "a", when)), lab.news(reading("delete", "a", when + 10))])
        await lab.store.append([lab.news(reading("delete", "never-seen", when + 10))])
        lab.clock.now += SECOND
        late = [lab.news(reading("create", id_, when + 5)) for id_ in ("a", "never-seen")]
        await lab.reopen()
        await lab.store.append(late)
        assert await lab.ids() == []
        await lab.retain_all(horizon=lab.clock.now + 1)
        await lab.reopen()
        again = [lab.news(reading("create", id_, when + 5)) for id_ in ("a", "never-seen")]
        await lab.store.append(again)
        assert await lab.ids() == ["a", "never-seen"], "nobody knows any more that this is late"
        assert [change.verb for change in await lab.all_changes(lab.store.oldest)] == ["ADDED", "ADDED"]

    async def test_who_was_revived_keeps_its_life_when_its_tombstone_goes(self, lab: Lab) -> None:
        await lab.add("create", "a", fields={"life": 1})
        await lab.add("delete", "a")
        await lab.add("create", "a", fields={"life": 2})
        await lab.store.retain(horizon=lab.clock.now, most=2)
        assert await lab.ids() == ["a"]
        assert await lab.ids(revision=lab.store.oldest) == []
        (change,) = await lab.all_changes(lab.store.oldest)
        assert (change.verb, change.before) == ("ADDED", None)
        await lab.retain_all(horizon=lab.clock.now + 1)
        await lab.reopen()
        assert status_of(await lab.store.get(port("a"), EVERYTHING))["life"] == 2

    async def test_retention_while_others_write_and_read(self, lab: Lab) -> None:
        """Nobody gets a wrong page or a lost change, only Expired."""
        for n in range(20):
            await lab.add("create", f"o{n:02}", fields={"n": -1})
        writing = True

        async def write() -> None:
            nonlocal writing
            for n in range(150):
                await lab.store.append([lab.said("update", f"o{m:02}", fields={"n": n}) for m in range(20)])
                await asyncio.sleep(0)
            writing = False

        async def retain() -> None:
            while writing:
                await lab.store.retain(horizon=lab.clock.now - 100 * SECOND, most=30)
                await asyncio.sleep(0)

        async def look() -> int:
            looks = 0
            while writing:
                await asyncio.sleep(0)
                page = await lab.store.objects(ALL, limit=7)
                rows = [version for _, version in page.items]
                try:
                    while page.after is not None:
                        page = await lab.store.objects(ALL, revision=page.revision, after=page.after, limit=7)
                        rows += [version for _, version in page.items]
                    await lab.store.changes(page.revision, selection=ALL)
                except Expired:
                    continue
                looks += 1
                assert len(rows) == 20
                assert max(version.revision for version in rows) == page.revision
            return looks

        results = await asyncio.gather(write(), retain(), look(), look())
        assert lab.store.head == T0 + 20 + 3000
        assert min(results[2], results[3]) >= 1

    # two folders of one log

    # --- what handlers owe ---

    async def test_what_handlers_owe_is_written_with_the_entries_and_read_back(self, lab: Lab) -> None:
        first = Delivery("h", 7, 0, "one/g/Port/a", 0)
        tried = {"attempt": 2, "next_at": 9, "at": 8, "first_at": 5, "detail": "500", "event": b"{}", "replay": True}
        second = Delivery("h", 7, 1, "one/g/Port/b", 1, **tried)  # type: ignore[arg-type]
        other = Delivery("g", 6, 0, "", -1, outcome="suppressed", at=4, detail="by a window")
        work: list[Work] = [
            PutCursor("h", Cursor(7)),
            PutCursor(LIVE, Cursor(9)),
            PutDelivery(first),
            PutDelivery(second),
            PutDelivery(other),
        ]
        work += [
            PutState("h", "memory", "k2", b"v2", 3),
            PutState("h", "memory", "k1", b"v1"),
            PutState("h", "window", "k1", b"w"),
        ]
        (revision,) = await lab.store.append([lab.said("create", "a")], work=work)
        assert revision == lab.store.head
        await lab.reopen()
        store = lab.store
        assert await store.cursors() == {"h": Cursor(7), LIVE: Cursor(9)}
        assert await store.deliveries() == [other, first, second]
        assert await store.deliveries(handler="h") == [first, second]
        assert await store.deliveries(revision=6) == [other]
        assert await store.deliveries(outcomes=("pending",)) == [first, second]
        assert await store.deliveries(outcomes=("pending", "suppressed"), limit=2) == [other, first]
        assert await store.deliveries(after=(7, "h", 0)) == [second]
        assert await store.state("h", "memory") == [Remembered("k1", b"v1", 0), Remembered("k2", b"v2", 3)]
        assert await store.state("h", "memory", "k2") == [Remembered("k2", b"v2", 3)]
        assert await store.state("g", "memory") == []

    async def test_what_handlers_owe_may_be_written_alone_and_makes_no_entry(self, lab: Lab) -> None:
        head = lab.store.head
        heard: list[Appended] = []
        lab.store.follow(heard.extend)
        assert list(await lab.store.append([], work=[PutCursor("h", Cursor(1))])) == []
        assert (lab.store.head, heard) == (head, [])
        assert await lab.store.cursors() == {"h": Cursor(1)}

    async def test_work_is_done_in_its_order(self, lab: Lab) -> None:
        pending = Delivery("h", 7, 0, "s", 0)
        await lab.store.append(
            [],
            work=[
                PutDelivery(pending),
                Settle("h", 7, 0, "done", 1, 5, "204"),
                PutState("h", "memory", "k", b"v"),
                PutState("h", "memory", "k", None),
                PutDelivery(Delivery("h", 8, 0, "s", 0, event=b"copy")),
                Settle("h", 8, 0, "dead", 3, 6, "500"),
                PutDelivery(Delivery("h", 9, 0, "s", 0, event=b"copy")),
                Settle("h", 9, 0, "done", 2, 7, ""),
                Settle("h", 99, 0, "done", 2, 7, "was never there"),
            ],
        )
        assert await lab.store.deliveries() == [
            Delivery("h", 7, 0, "s", 0, outcome="done", attempt=1, at=5, detail="204"),
            Delivery("h", 8, 0, "s", 0, outcome="dead", attempt=3, at=6, detail="500", event=b"copy"),
            Delivery("h", 9, 0, "s", 0, outcome="done", attempt=2, at=7),
        ]
        assert await lab.store.state("h", "memory") == []

    async def test_a_handler_that_is_dropped_leaves_nothing(self, lab: Lab) -> None:
        for name in ("h", "g"):
            await lab.store.append(
                [],
                work=[
                    PutCursor(name, Cursor(1)),
                    PutDelivery(Delivery(name, 7, 0, "s", 0)),
                    PutState(name, "memory", "k", b"v"),
                ],
            )
        await lab.store.append([], work=[DropHandler("h")])
        assert set(await lab.store.cursors()) == {"g"}
        assert [one.handler for one in await lab.store.deliveries()] == ["g"]
        assert (await lab.store.state("h", "memory"), len(await lab.store.state("g", "memory"))) == ([], 1)

    async def test_a_conflict_does_no_work_either(self, lab: Lab) -> None:
        revision = await lab.add("create", "a")
        with pytest.raises(Conflict):
            await lab.store.append([lab.said("update", "a")], {port("a"): revision - 1}, [PutCursor("h", Cursor(1))])
        assert await lab.store.cursors() == {}
        await lab.store.append([], {port("a"): revision}, [PutCursor("h", Cursor(1))])
        assert await lab.store.cursors() == {"h": Cursor(1)}

    async def test_age_never_passes_a_cursor_nor_an_event_that_is_only_in_the_log(self, lab: Lab) -> None:
        revisions = [await lab.add("create", f"o{number}") for number in range(6)]
        await lab.store.append(
            [],
            work=[
                PutCursor("slow", Cursor(revisions[3])),
                PutCursor(LIVE, Cursor(revisions[5])),
                PutCursor("fast", Cursor(revisions[0], live=True)),
                PutDelivery(Delivery("slow", revisions[1], 0, "s", 0)),
                PutDelivery(Delivery("slow", revisions[0], 0, "s", 0, outcome="done")),
                PutDelivery(Delivery("slow", revisions[2], 0, "s", 0, attempt=1, event=b"copy")),
            ],
        )
        later = lab.clock.now + SECOND
        assert await lab.retain_all(horizon=later) == 1
        assert lab.store.oldest == revisions[0]
        # What was settled of that entry went with it; what is owed did not.
        assert [one.revision for one in await lab.store.deliveries()] == [revisions[1], revisions[2]]
        await lab.store.append([], work=[Settle("slow", revisions[1], 0, "done", 1, 1, "")])
        assert await lab.retain_all(horizon=later) == 3
        assert lab.store.oldest == revisions[3]
        assert [one.revision for one in await lab.store.deliveries()] == [revisions[2]]
        await lab.store.append([], work=[PutCursor("slow", Cursor(revisions[3], live=True))])
        assert await lab.retain_all(horizon=later) == 2
        assert lab.store.oldest == revisions[5]

    async def test_size_passes_cursors_and_leaves_dead_letters(self, lab: Lab) -> None:
        revisions = [await lab.add("create", f"o{number}") for number in range(4)]
        dead = Delivery("slow", revisions[0], 0, "s", 0, outcome="dead", event=b"copy")
        await lab.store.append([], work=[PutCursor("slow", Cursor(revisions[0])), PutDelivery(dead)])
        assert await lab.store.retain(horizon=0, max_bytes=1, most=3) == 3
        assert lab.store.oldest == revisions[2]
        assert await lab.store.cursors() == {"slow": Cursor(revisions[0])}
        assert await lab.store.deliveries(outcomes=("dead",)) == [dead]

    async def test_a_log_taken_over_folds_to_the_same(self, lab: Lab) -> None:
        for n in range(40):
            verb = ("create", "update", "delete")[n % 3]
            await lab.add(verb, f"o{n % 7}", project=f"p{n % 2}", fields={"n": n}, admin={"h": n}, source=("one", "two")[n % 2])
        entries = [one.entry for one in await lab.all_entries(T0)]
        with self.place() as opener:
            other = await Lab(opener, self.durable).open()
            await other.store.adopt(entries[:15])
            await other.store.adopt(entries[10:20])
            await other.reopen()
            await other.store.adopt(entries)
            assert other.store.head == lab.store.head
            assert await other.all_changes(T0) == await lab.all_changes(T0)
            assert await other.all_entries(T0) == await lab.all_entries(T0)
            assert await other.store.objects(ALL) == await lab.store.objects(ALL)
            # And it goes on: it knows the ids, and when the last came.
            assert list(await other.store.append([NewEntry(entries[0].notice)])) == [None]
            await other.store.close()

    async def test_a_log_with_holes_can_be_taken_over(self, lab: Lab) -> None:
        """As after a restore, which jumps to the present."""
        entries = [
            Entry(T0 + 5, T0 + 50, notice("a"), (reading("create", "a", 1),)),
            Entry(T0 + 900_000_000, T0 + 60, notice("b"), (reading("create", "b", 1),)),
        ]
        await lab.store.adopt(entries)
        assert lab.store.head == T0 + 900_000_000
        assert (await lab.store.stats()).entries == 2
        assert await lab.store.revision_at(T0 + 55) == T0 + 5
        assert [change.key.id for change in await lab.all_changes(T0)] == ["a", "b"]
        assert list(await lab.store.append([lab.news()])) == [T0 + 900_000_001]
        assert await lab.retain_all(horizon=T0 + 55) == 1
        assert lab.store.oldest == T0 + 5

    async def test_an_adopted_log_says_itself_what_is_a_duplicate(self, lab: Lab) -> None:
        """Its own store may have forgotten an id when it came again."""
        entries = [Entry(T0 + n, T0 + n, notice("same"), (reading("create", f"o{n}", n),)) for n in (1, 2)]
        await lab.store.adopt(entries)
        assert await lab.ids() == ["o1", "o2"]
        await lab.store.retain(horizon=T0 + 2)
        assert list(await lab.store.append([NewEntry(notice("same"))])) == [None]
        await lab.retain_all(horizon=T0 + 3)
        assert list(await lab.store.append([NewEntry(notice("same"))])) == [T0 + 3]


async def compare(first: Lab, second: Lab, history: Sequence[Step]) -> None:
    """Play the same history on two stores: every answer, bytes included, is the same."""
    one, other = Historian(first), Historian(second)
    await one.play(history)
    await other.play(history)
    assert one.answers == other.answers
    assert one.heard == other.heard


def memory_place() -> Iterator[Opener]:
    """The body of `place` for the store in memory, which others compare themselves with."""

    async def opener(clock: SetClock) -> Store:
        return MemoryStore(clock)

    yield opener


def nothing_is_orphaned(folder: Path) -> None:
    """Of a folder of SqliteStore that nobody holds: each body in `changes` is the present of an object, in the kept window, or
    what stood before a change in it; each entry has its id; and SQLite finds no fault."""
    with closing(sqlite3.connect(folder / "vedette.db")) as db:
        (oldest,) = db.execute("SELECT value FROM meta WHERE name = 'oldest'").fetchone()
        there = {seq for (seq,) in db.execute("SELECT seq FROM changes")}
        present = {seq for (seq,) in db.execute("SELECT seq FROM objects WHERE seq IS NOT NULL")}
        window = db.execute("SELECT seq, before FROM changes WHERE revision > ?", (oldest,)).fetchall()
        wanted = present | {seq for seq, _ in window} | {before for _, before in window if before is not None}
        assert there == wanted
        assert db.execute("SELECT count(*) FROM seen").fetchone() == db.execute("SELECT count(*) FROM entries").fetchone()
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
