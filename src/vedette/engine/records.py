"""Audits, plans, actions and what they refer to: in memory as the log has them, and written by appending to it.

compat/infra_optim.py, engine/audits.py and engine/applier.py all read and write here and nowhere else; each of them acts on what
it sees in the states of the records, so it does not matter who wrote them, or whether this process was another one then.

Every write names the state it was made from: who comes second gets Conflict, or with `update` is asked again. Deleting is soft,
as in Watcher: watchers see DELETED, and a copy stays until it is purged.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import msgspec

from vedette.engine.record_notices import Told, told
from vedette.errors import Conflict, NotFound, Refused
from vedette.kit.clock import Clock, rfc3339, rfc3339_us
from vedette.model.audit import RECORDS, Action, ActionPlan, Audit, AuditTemplate, Record
from vedette.model.delivery import PutState, Work
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.model.reading import VEDETTE, VEDETTE_SOURCE, Key, Reading
from vedette.ports import EVERYTHING, Appended, Selection, Store

log = logging.getLogger("vedette.engine.records")

OWNER = "audits"
"""Owner of the remembered state (model/delivery.py)."""
DELETED = "deleted"
"""Space of the copies of deleted records: `<Kind>/<uuid>` → the record's JSON."""
TRIES = 20
"""`update` is tried again this often; then somebody writes the same record all the time."""

R = TypeVar("R", bound=Record)
_TYPES: Mapping[str, type[Record]] = {one.KIND: one for one in RECORDS}
_NAMED = ("Goal", "Strategy", "ScoringEngine", "AuditTemplate", "Audit")


class Records:
    """All records that there are. `load` first. Reads cost no I/O; a write returns when it is durable and shows in reads."""

    def __init__(self, store: Store, clock: Clock, hostname: str = "") -> None:
        self._store = store
        self._clock = clock
        self.hostname = hostname
        """Ours, in notices and on records."""
        self._held: dict[str, dict[str, Record]] = {kind: {} for kind in _TYPES}
        """Kind → uuid → record, in the order of creation."""
        self._revisions: dict[Key, int] = {}
        """Of what is there; 0 for what is gone since we run."""
        self._names: dict[tuple[str, str], str] = {}
        """(kind, name) → uuid."""
        self._actions: dict[str, dict[str, None]] = {}
        """Plan → its actions."""
        self._plans: dict[str, dict[str, None]] = {}
        """Audit → its plans."""
        self._last = 0
        self.on_change: list[Callable[[Record | None, Record | None], None]] = []
        """Called with (before, now) for each change, in the order of the log: None before it was there, and when it is gone."""

    async def load(self) -> None:
        """Everything that the log has; from then on what is appended, by whomever."""
        self._store.follow(self._appended)
        for kind in _TYPES:
            found: list[tuple[Record, int]] = []
            selection = Selection(EVERYTHING, group=VEDETTE, kind=kind)
            after: tuple[str, str] | None = None
            while True:
                page = await self._store.objects(selection, after=after, limit=1000)
                for key, version in page.items:
                    record = _decoded(key, version.body)
                    if record is not None:
                        found.append((record, version.revision))
                after = page.after
                if after is None:
                    break
            for record, revision in sorted(found, key=_age):
                if _key(record) not in self._revisions:  # else it changed while we read, and we have that already
                    self._take(record, revision)

    # --- reading -----------------------------------------------------------------------------------------------------------

    def all(self, kind: type[R]) -> list[R]:
        """In the order of their creation."""
        return cast("list[R]", list(self._held[kind.KIND].values()))

    def get(self, kind: type[R], ident: str) -> R:
        """Raises NotFound."""
        found = self._held[kind.KIND].get(ident)
        if found is None:
            raise NotFound(f"{kind.KIND} {ident} could not be found")
        return cast("R", found)

    def find(self, kind: type[R], ident: str) -> R:
        """By uuid, or by name where there are names. Raises NotFound."""
        return self.get(kind, self._names.get((kind.KIND, ident), ident) if ident not in self._held[kind.KIND] else ident)

    def named(self, kind: type[Record], name: str) -> str:
        """The uuid of the one with this name; "": none has it."""
        return self._names.get((kind.KIND, name), "")

    def actions_of(self, plan: str) -> list[Action]:
        """In the order of the plan."""
        found = [self.get(Action, one) for one in self._actions.get(plan, ())]
        return sorted(found, key=lambda action: action.order)

    def plans_of(self, audit: str) -> list[ActionPlan]:
        """Oldest first."""
        return [self.get(ActionPlan, one) for one in self._plans.get(audit, ())]

    async def deleted(self, kind: type[R]) -> list[R]:
        """Copies of those that were deleted and not purged."""
        rows = await self._store.state(OWNER, DELETED)
        prefix = f"{kind.KIND}/"
        return [msgspec.json.decode(row.value, type=kind) for row in rows if row.key.startswith(prefix)]

    # --- writing -----------------------------------------------------------------------------------------------------------

    async def write(
        self,
        puts: Sequence[Record] = (),
        deletes: Sequence[Record] = (),
        *,
        work: Sequence[Work] = (),
        notes: Sequence[Told] = (),
    ) -> Sequence[Record]:
        """All of it or nothing, in one transaction, with `work` and entries for `notes`; the records as they are kept.

        A record that is there already has to be made from the present one: read, `msgspec.structs.replace`, write, with no await
        in between; or use `update`. Raises Conflict (one is not the present one any more), StoreUnavailable.
        """
        now = max(self._clock.now_us(), self._last + 1)
        self._last = now + len(puts)
        # Which of two states is the newer one is a matter of their order in the log, whatever a clock that was set back says.
        version = self._store.head + 1
        entries: list[NewEntry] = []
        kept: list[Record] = []
        together = _Together(self, puts)
        expect: dict[Key, int] = {}
        more: list[Work] = list(work)
        for record in puts:
            key = _key(record)
            before = self._held[record.KIND].get(record.uuid)
            if before is None:
                # One after the other, also within a write: the order of lists.
                made = rfc3339_us(now + len(kept))
                record = msgspec.structs.replace(record, created_at=record.created_at or made)
            else:
                record = msgspec.structs.replace(record, created_at=before.created_at, updated_at=rfc3339(now))
            expect[key] = self._revisions.get(key, 0)
            entries += self._entries(now, told(before, record, together), _reading(record, now, version))
            kept.append(record)
        for record in deletes:
            key = _key(record)
            expect[key] = self._revisions.get(key, 0)
            gone = msgspec.structs.replace(record, deleted_at=rfc3339(now))
            if hasattr(gone, "state"):
                gone = msgspec.structs.replace(gone, state="DELETED")
            reading = Reading(kind=record.KIND, group=VEDETTE, id=record.uuid, verb="delete", as_of=now, version=version)
            entries += self._entries(now, told(record, None, self), reading)
            more.append(PutState(OWNER, DELETED, f"{record.KIND}/{record.uuid}", msgspec.json.encode(gone), due=now))
            kept.append(gone)
        for note in notes:
            entries.append(NewEntry(_notice(now, note, self.hostname)))
        await self._store.append(entries, expect, work=more)
        return kept

    async def update(self, kind: type[R], ident: str, change: Callable[[R], R]) -> R:
        """The record as `change` makes it of the present one; asked again when somebody was faster. What `change` raises goes
        through. Raises NotFound."""
        for _ in range(TRIES):
            before = self.get(kind, ident)
            after = change(before)
            if after is before:
                return before
            try:
                (kept,) = await self.write([after])
            except Conflict:
                continue
            return cast("R", kept)
        raise Conflict(f"{kind.KIND} {ident} changes all the time")

    async def purge(
        self, before: int, kinds: Iterable[str] = (), *, goal: str = "", dry_run: bool = False, most: int = 0
    ) -> dict[str, int]:
        """Forget the copies of what was deleted before this (UTC microseconds), of these kinds (none: all), of one goal (a uuid;
        "": all); how many of each. `most`: if there are more, nothing is forgotten (0: no bound). Raises Refused (there are
        more)."""
        rows = [(row.key.partition("/")[0], row) for row in await self._store.state(OWNER, DELETED)]
        of_goal = self._of_goal(goal, [msgspec.json.decode(row.value, type=_TYPES[kind]) for kind, row in rows]) if goal else None
        counts: dict[str, int] = {}
        gone: list[Work] = []
        wanted = frozenset(kinds)
        for kind, row in rows:
            if row.due < before and (not wanted or kind in wanted) and (of_goal is None or row.key.partition("/")[2] in of_goal):
                counts[kind] = counts.get(kind, 0) + 1
                gone.append(PutState(OWNER, DELETED, row.key, None))
        if most and len(gone) > most:
            raise Refused(f"there are {len(gone)} to forget, more than {most}: nothing was forgotten")
        for at in range(0, 0 if dry_run else len(gone), 1000):
            await self._store.append([], work=gone[at : at + 1000])
        return counts

    def _of_goal(self, goal: str, deleted: Sequence[Record]) -> set[str]:
        """Ids of what belongs to this goal: templates and audits, the plans of these audits, and their actions."""
        every = [*deleted, *(record for held in self._held.values() for record in held.values())]
        found = {one.uuid for one in every if isinstance(one, Audit | AuditTemplate) and one.goal_uuid == goal}
        return found | {one.uuid for one in every if isinstance(one, Action | ActionPlan) and one.audit_uuid in found}

    # --- inside ------------------------------------------------------------------------------------------------------------

    def _entries(self, now: int, notices: Sequence[Told], reading: Reading) -> list[NewEntry]:
        """The first notice carries the record itself."""
        return [
            NewEntry(_notice(now, note, self.hostname), (reading,) if number == 0 else ()) for number, note in enumerate(notices)
        ]

    def _appended(self, appended: Sequence[Appended]) -> None:
        for one in appended:
            for change in one.changes:
                if change.key.group != VEDETTE or change.key.kind not in _TYPES:
                    continue
                before = self._held[change.key.kind].get(change.key.id)
                if change.verb == "DELETED":
                    self._drop(change.key)
                    self._tell(before, None)
                elif (record := _decoded(change.key, change.now.body)) is not None:
                    self._take(record, change.revision)
                    self._tell(before, record)

    def _tell(self, before: Record | None, now: Record | None) -> None:
        for listener in self.on_change:
            listener(before, now)

    def _take(self, record: Record, revision: int) -> None:
        held = self._held[record.KIND]
        before = held.get(record.uuid)
        held[record.uuid] = record
        self._revisions[_key(record)] = revision
        if record.KIND in _NAMED:
            if before is not None:
                self._names.pop((record.KIND, before.name), None)  # type: ignore[attr-defined]
            self._names[record.KIND, record.name] = record.uuid  # type: ignore[attr-defined]
        if isinstance(record, Action):
            self._actions.setdefault(record.action_plan_uuid, {})[record.uuid] = None
        if isinstance(record, ActionPlan):
            self._plans.setdefault(record.audit_uuid, {})[record.uuid] = None

    def _drop(self, key: Key) -> None:
        record = self._held[key.kind].pop(key.id, None)
        self._revisions[key] = 0
        if record is None:
            return
        if record.KIND in _NAMED:
            self._names.pop((record.KIND, record.name), None)  # type: ignore[attr-defined]
        if isinstance(record, Action):
            self._actions.get(record.action_plan_uuid, {}).pop(record.uuid, None)
        if isinstance(record, ActionPlan):
            self._plans.get(record.audit_uuid, {}).pop(record.uuid, None)
            self._actions.pop(record.uuid, None)


class _Together:
    """Where the notices of a write look things up: what is written with them is there already."""

    def __init__(self, records: Records, puts: Sequence[Record]) -> None:
        self._records = records
        self._puts = {(one.KIND, one.uuid): one for one in puts if not isinstance(one, Action)}

    def get(self, kind: type[R], ident: str) -> R:
        found = self._puts.get((kind.KIND, ident))
        return self._records.get(kind, ident) if found is None else cast("R", found)


def _key(record: Record) -> Key:
    return Key(VEDETTE_SOURCE, VEDETTE, record.KIND, record.uuid)


def _age(one: tuple[Record, int]) -> tuple[str, int]:
    return one[0].created_at, one[1]


def _reading(record: Record, now: int, version: int) -> Reading:
    fields: dict[str, Any] = msgspec.to_builtins(record)
    return Reading(kind=record.KIND, group=VEDETTE, id=record.uuid, verb="create", as_of=now, version=version, fields=fields)


def _notice(now: int, note: Told, hostname: str) -> Notice:
    return Notice(
        id=str(uuid.uuid4()),
        source=VEDETTE_SOURCE,
        event_type=note.event_type,
        sent_at=now,
        payload=msgspec.Raw(msgspec.json.encode(note.payload)),
        priority=note.priority,
        publisher=f"infra-optim:{hostname}",
        origin="vedette",
        global_request_id=note.request_id,
    )


class _Served(msgspec.Struct):
    status: msgspec.Raw


_served = msgspec.json.Decoder(_Served)


def _decoded(key: Key, body: bytes) -> Record | None:
    try:
        return msgspec.json.decode(_served.decode(body).status, type=_TYPES[key.kind])
    except msgspec.MsgspecError as why:
        # Written by another version of Vedette: said once, and left alone.
        log.error("%s %s in the log can't be read by this version: %s", key.kind, key.id, why)
        return None
