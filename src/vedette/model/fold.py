"""The one place where news becomes state: `fold(object, reading)`. Pure: no clock, no configuration, no I/O.

Every store calls it, so two stores that fold the same entries hold the same objects and the same bytes.

Objects of another Kubernetes API (`Reading.whole`) are folded and served whole, in the form they have there. What is ours in
them is the resourceVersion and a few annotations; their labels stay as they are.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from vedette.kit.clock import rfc3339, rfc3339_us
from vedette.model.change import Change, Object, Verb, Version
from vedette.model.entry import Entry
from vedette.model.notice import Notice
from vedette.model.reading import Key, Reading, has_namespaces

NO_PROJECT = "no-project"
"""Namespace of objects without a project, or whose project isn't known yet."""

_UUID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", re.ASCII)
_NAMESPACE = uuid.UUID("5a9c3c0e-3b1f-5d7e-9d7c-7d2f4c0a6b11")
"""For the uids of objects whose id is not a UUID."""

ORIGIN_VERSION = "vedette.dev/origin-resource-version"
"""Annotation of an object of another API server: the resourceVersion that it has there. Put there by the source."""
_OURS = ("vedette.dev/source", "vedette.dev/origin", "vedette.dev/event-type", "vedette.dev/observed-at")
"""Annotations that say where we have such an object from. Those of another Vedette give way to ours."""


def fold(known: Object | None, reading: Reading, key: Key, revision: int) -> tuple[Object | None, Verb | None]:
    """The object after `reading`, and the verb of the change that this is (None: no served field moved).

    - older than what is known: nothing changes, equal is folded (`_older`);
    - `update` on a tombstone: nothing; `create` that is newer revives it; a later `delete` moves its as-of;
    - no served field differs: the same state with a later as-of, and no change.

    A `whole` reading takes the place of all that was known (`parts`, `admin` and `only_known` mean nothing there), but for a
    delete without fields, which keeps the last content. The same object under another resourceVersion of its origin is no
    change, as an API server gives no event for an update that changes nothing (what differed was dropped by the source,
    managedFields for one): its version and as-of move, and the annotation says at which version it was last seen different.
    What is said in part of an object that is known whole changes nothing, but for its deletion.
    """
    if known is None:
        if reading.verb == "delete":
            # A delete of something never seen leaves a tombstone, so that late news can't bring it to life.
            return _tombstone(key, reading, revision), None
        return (None, None) if reading.only_known and not reading.whole else (_created(key, reading, revision), "ADDED")
    if _older(reading, known):
        return known, None
    as_of = max(known.as_of, reading.as_of)
    version = known.version if reading.version is None else reading.version
    if known.deleted:
        if reading.verb == "create" and (reading.whole or not reading.only_known) and _newer(reading, known):
            return _created(key, reading, revision), "ADDED"
        if reading.verb == "delete" and (as_of, version) != (known.as_of, known.version):
            # Gone as of later: a create from between the two deletes, coming late, must not bring it to life.
            return msgspec.structs.replace(known, as_of=as_of, version=version), None
        return known, None
    if known.whole or reading.whole:
        return _fold_whole(known, reading, revision, as_of, version)
    fields = _merged(known.fields, reading.fields)
    admin = _merged(known.admin, reading.admin)
    for part in reading.parts:
        items = _with_part(fields.get(part.field), part.id_field, part.id, part.value)
        if items is not None:
            fields = {**fields, part.field: items}
    fields, admin = _apart(fields, admin, reading)
    project = known.project if reading.project is None else reading.project
    shared = known.shared if reading.shared is None else reading.shared
    owner = known.owner if reading.owner is None else reading.owner
    # The first news may have been partial, and only guessed when the object was made.
    created = known.created if reading.created is None else _whole_seconds(reading.created)
    deleted = reading.verb == "delete"
    served_alike = (
        not deleted
        and _alike(fields, known.fields)
        and _alike(admin, known.admin)
        and project == known.project
        and shared == known.shared
        and owner == known.owner
        and created == known.created
    )
    if served_alike:
        # Equal is not identical (the order of keys in a value): hold what the served bytes say, as after a restart.
        fields, admin = known.fields, known.admin
    after = Object(
        key=key,
        uid=known.uid,
        created=created,
        project=project,
        shared=shared,
        owner=owner,
        fields=fields,
        admin=admin,
        as_of=as_of,
        version=version,
        deleted=deleted,
        revision=known.revision if served_alike else revision,
    )
    return after, None if served_alike else ("DELETED" if deleted else "MODIFIED")


def _fold_whole(known: Object, reading: Reading, revision: int, as_of: int, version: int | None) -> tuple[Object, Verb | None]:
    deleted = reading.verb == "delete"
    if reading.whole and (reading.fields or not deleted):
        after = _created(known.key, reading, revision, known.uid)
    elif deleted:
        after = known
    else:
        return known, None
    project = known.project if reading.project is None else reading.project
    if reading.whole and not deleted:
        # A namespace that is mapped to a project no longer is nobody's. (What is gone is told to those who saw it.)
        project = reading.project or ""
    same = not deleted and known.whole and project == known.project and _alike_at_origin(after.fields, known.fields)
    after = msgspec.structs.replace(
        known if same else after,
        project=project,
        as_of=as_of,
        version=version,
        deleted=deleted,
        revision=known.revision if same else revision,
    )
    return after, None if same else ("DELETED" if deleted else "MODIFIED")


class Held(msgspec.Struct, frozen=True):
    """An object as a store has it: the state, and the bytes of its last change (None: a tombstone of something never seen)."""

    state: Object
    version: Version | None


def bare(entry: Entry) -> Entry:
    """The entry without its readings: what a store keeps of one that `apply` can't fold. The notice is still in the log."""
    return msgspec.structs.replace(entry, readings=())


def apply(entry: Entry, hold: Callable[[Key], Held | None]) -> tuple[list[Change], dict[Key, Held]]:
    """Fold all readings of one entry: its changes (one per object at the most, in the order of the readings), and every
    object it touched, for the store to keep. `hold` gives what is known before this entry.

    Several readings of one object in one entry are one change: an entry is atomic. Raises whatever odd values in a reading
    lead to (a lone surrogate, a version beyond 64 bits); a store then keeps the entry `bare`, since no retry would help.
    """
    before: dict[Key, Held | None] = {}
    after: dict[Key, Object | None] = {}
    for reading in entry.readings:
        key = Key(entry.notice.source, reading.group, reading.kind, reading.id)
        if key not in before:
            before[key] = held = hold(key)
            after[key] = held.state if held else None
        if not (_fits(reading.as_of) and (reading.version is None or _fits(reading.version))):
            raise ValueError(f"as-of or version of {reading.kind} {reading.id} is beyond 64 bits")
        after[key], _ = fold(after[key], reading, key, entry.revision)
    changes: list[Change] = []
    touched: dict[Key, Held] = {}
    for key, state in after.items():
        was = before[key]
        if state is None or (was is not None and state is was.state):
            continue
        if was is not None and was.state.deleted and state.deleted:
            # Still gone (perhaps made and deleted again by this very entry): at the most its as-of moved.
            touched[key] = Held(msgspec.structs.replace(was.state, as_of=state.as_of, version=state.version), was.version)
            continue
        if state.revision != entry.revision or (state.deleted and was is None):
            # Only the as-of moved, or a tombstone for something never seen: kept, and nothing to tell.
            touched[key] = Held(state, was.version if was else None)
            continue
        lived = was is not None and not was.state.deleted
        verb: Verb = "DELETED" if state.deleted else ("MODIFIED" if lived else "ADDED")
        version = encode(state, entry.notice, entry.appended_at)
        changes.append(Change(entry.revision, key, verb, version, was.version if was is not None and lived else None))
        touched[key] = Held(state, version)
    return changes, touched


def encode(state: Object, notice: Notice, observed_at: int) -> Version:
    """The Kubernetes object as it is served, once: admin-only fields last, so that tenants get a slice of the same bytes.

    `resourceVersion` always has 16 digits and stands where `restamp` finds it without parsing: first in the metadata, before
    which nothing comes from outside; in the whole object of another API server at the very end.
    """
    key = state.key
    if state.whole:
        return _encode_whole(state, notice, observed_at)
    annotations = {
        "vedette.dev/origin": notice.origin,
        "vedette.dev/event-type": notice.event_type,
        "vedette.dev/observed-at": rfc3339_us(observed_at),
    }
    head = {
        "apiVersion": f"{key.group}/v1",
        "kind": key.kind,
        "metadata": {
            "resourceVersion": str(state.revision),
            "name": name_of(key.id),
            **({"namespace": state.project or NO_PROJECT} if has_namespaces(key.group) else {}),
            "uid": state.uid,
            "creationTimestamp": rfc3339(state.created),
            "labels": {"vedette.dev/source": key.source},
            "annotations": annotations,
        },
        # `id` stands first, so the public part is never empty and the cut never needs to think about commas.
        "status": {"id": key.id, **state.fields},
    }
    public = _encoder.encode(head)[:-2]
    body = b"".join((public, b",", _encoder.encode(state.admin)[1:], b"}")) if state.admin else public + b"}}"
    return Version(
        revision=state.revision,
        body=body,
        cut=len(public),
        project=state.project,
        shared=state.shared,
        owner=state.owner,
    )


def _encode_whole(state: Object, notice: Notice, observed_at: int) -> Version:
    """As at the origin, with `kind` as the first key (`is_whole`), and the metadata last, so that the bytes end with `}}`: the
    tenants' form is the same. Last in the metadata are the annotations, with ours, and our resourceVersion."""
    metadata = dict(state.fields["metadata"])
    annotations = {
        **metadata.pop("annotations", {}),
        **dict(zip(_OURS, (state.key.source, notice.origin, notice.event_type, rfc3339_us(observed_at)), strict=True)),
    }
    metadata.update(annotations=annotations, resourceVersion=str(state.revision))
    body = _encoder.encode({**state.fields, "metadata": metadata})
    return Version(
        revision=state.revision, body=body, cut=len(body) - 2, project=state.project, shared=state.shared, owner=state.owner
    )


def is_whole(version: Version) -> bool:
    """Whether these are the bytes of a whole object of another API server: ours begin with `apiVersion`."""
    return version.body.startswith(_WHOLE)


_WHOLE = b'{"kind":'


def place_of(key: Key, version: Version) -> tuple[str, str]:
    """(metadata.name, metadata.namespace) of what is served; "" for the namespace of what has none at another API server."""
    if is_whole(version):
        return _place_at_origin(key)
    return name_of(key.id), version.project or NO_PROJECT


def decode(version: Version, key: Key, *, as_of: int, newest: int | None, deleted: bool) -> Object:
    """The object behind served bytes: how a store reads back what `encode` wrote. (`newest`: the object's own version.)"""
    if is_whole(version):
        whole = msgspec.json.decode(version.body)
        metadata = whole["metadata"]
        del metadata["resourceVersion"]
        annotations = metadata.pop("annotations")
        theirs = {name: value for name, value in annotations.items() if name not in _OURS}
        if theirs:
            metadata["annotations"] = theirs
        return Object(
            key=key,
            uid=metadata["uid"],
            created=_created_at_origin(whole),
            project=version.project,
            shared=version.shared,
            owner=version.owner,
            fields=whole,
            admin={},
            as_of=as_of,
            version=newest,
            deleted=deleted,
            revision=version.revision,
            whole=True,
        )
    served = _decoder.decode(version.tenant_form())
    rest = version.body[version.cut + 1 : -1]
    fields = served.status
    del fields["id"]
    return Object(
        key=key,
        uid=served.metadata.uid,
        created=_seconds(served.metadata.creationTimestamp),
        project=version.project,
        shared=version.shared,
        owner=version.owner,
        fields=fields,
        admin=msgspec.json.decode(b"{" + rest) if rest != b"}" and rest else {},
        as_of=as_of,
        version=newest,
        deleted=deleted,
        revision=version.revision,
    )


def restamp(version: Version, revision: int) -> Version:
    """The same content under another revision: what a DELETED for leaving a selector carries."""
    old = b'"resourceVersion":"%d"' % version.revision
    new = b'"resourceVersion":"%d"' % revision
    body = version.body[: -len(old) - 2] + new + b"}}" if is_whole(version) else version.body.replace(old, new, 1)
    return Version(
        revision=revision,
        body=body,
        cut=version.cut + len(body) - len(version.body),
        project=version.project,
        shared=version.shared,
        owner=version.owner,
    )


def name_of(id_: str) -> str:
    """`metadata.name` of an id: every byte outside `A-Za-z0-9._:@-` as `~` and two hex digits; `.` and `..` too."""
    if _PLAIN.fullmatch(id_) and id_ not in (".", ".."):
        return id_
    if id_ in (".", ".."):
        return "~2e" * len(id_)
    return "".join(chr(b) if chr(b) in _SAFE else f"~{b:02x}" for b in id_.encode())


def id_of(name: str) -> str:
    """The id behind a name; the inverse of `name_of`. A name that `name_of` never gives is returned as it is."""
    if "~" not in name:
        return name
    try:
        id_ = re.sub(rb"~([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), name.encode()).decode()
    except UnicodeError:
        return name
    return id_ if name_of(id_) == name else name


_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:@-")
_PLAIN = re.compile(r"[A-Za-z0-9._:@-]+", re.ASCII)
_encoder = msgspec.json.Encoder()
_LAST = 253_402_300_799_000_000
"""9999-12-31T23:59:59Z"""


class _Metadata(msgspec.Struct):
    uid: str
    creationTimestamp: str


class _Served(msgspec.Struct):
    metadata: _Metadata
    status: dict[str, Any]


_decoder = msgspec.json.Decoder(_Served)


def _fits(number: int) -> bool:
    return -(1 << 63) <= number < 1 << 63


def _whole_seconds(us: int) -> int:
    """Whole seconds: that is what is served, and what can be read back. Between 1970 and 9999, where RFC 3339 can say it:
    "0001-01-01" is what some services send for never."""
    return min(max(us, 0), _LAST) // 1_000_000 * 1_000_000


def _seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def _older(reading: Reading, known: Object) -> bool:
    # Some fields move without their version (a floating IP's status): of two readings of one version the later is right.
    if reading.version is not None and known.version is not None and reading.version != known.version:
        return reading.version < known.version
    return reading.as_of < known.as_of


def _newer(reading: Reading, known: Object) -> bool:
    if reading.version is not None and known.version is not None and reading.version != known.version:
        return reading.version > known.version
    return reading.as_of > known.as_of


def _merged(known: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """What is known, with what is said now. The same dict when nothing differs, and always one key order, so that two
    stores that fold the same log hold the same bytes."""
    for name, value in said.items():
        was = known.get(name, _ABSENT)
        if was is value:
            continue
        kind = type(value)
        if type(was) is not kind:
            return {**known, **said}
        # Most fields are texts and numbers; only what nests needs a closer look than `!=`.
        if was != value if kind is str or kind is int else not _alike(was, value):
            return {**known, **said}
    return known


_ABSENT = object()


def _alike(one: Any, other: Any) -> bool:
    """Whether two JSON values are served alike: the order of keys doesn't matter, and `1`, `1.0` and `true` are three."""
    if one is other:
        return True
    if one != other or type(one) is not type(other):
        return False
    if not isinstance(one, (dict, list)) or _encoder.encode(one) == _encoder.encode(other):
        return True
    if isinstance(one, dict):
        return all(_alike(value, other[name]) for name, value in one.items())
    return all(_alike(a, b) for a, b in zip(one, other, strict=True))


def _apart(fields: dict[str, Any], admin: dict[str, Any], reading: Reading) -> tuple[dict[str, Any], dict[str, Any]]:
    """Each name once: `status.id` is the key's, and a name said to be for admins is not shown to tenants as well."""
    if "id" in reading.fields:
        fields = {name: value for name, value in fields.items() if name != "id"}
    if "id" in reading.admin:
        admin = {name: value for name, value in admin.items() if name != "id"}
    if admin and not fields.keys().isdisjoint(admin):
        fields = {name: value for name, value in fields.items() if name not in admin}
    return fields, admin


def _with_part(items: Any, id_field: str, id_: str, value: Any) -> list[Any] | None:
    """The list with the item put or taken out; None when that changes nothing. What comes new is put in the order of the ids:
    the order of what comes one by one means nothing, and the whole list, when it is read, has it too."""
    before: list[Any] = items if isinstance(items, list) else []
    for index, item in enumerate(before):
        if (item.get(id_field) if isinstance(item, dict) else item) == id_:
            if value is None:
                return before[:index] + before[index + 1 :]
            return None if _alike(item, value) else [*before[:index], value, *before[index + 1 :]]
    if value is None:
        return None if isinstance(items, list) else before
    return sorted([*before, value], key=lambda item: str(item.get(id_field) if isinstance(item, dict) else item))


def _at_origin(key: Key, fields: dict[str, Any], uid: str) -> dict[str, Any]:
    """A whole object as it is held: always in one order of keys (`_encode_whole`), without its resourceVersion and what only
    says where it is from. The key names it; what metadata must be and isn't (a text, an object) is put right or left out."""
    said = fields.get("metadata")
    metadata = dict(said) if isinstance(said, dict) else {}
    annotations = metadata.pop("annotations", None)
    metadata.pop("resourceVersion", None)
    metadata["name"], namespace = _place_at_origin(key)
    metadata.pop("namespace", None)
    if namespace:
        metadata["namespace"] = namespace
    if not (isinstance(metadata.get("uid"), str) and metadata["uid"]):
        metadata["uid"] = uid
    if not isinstance(metadata.get("creationTimestamp", ""), str):
        del metadata["creationTimestamp"]
    if isinstance(annotations, dict):
        theirs = {name: value for name, value in annotations.items() if name not in _OURS}
        if theirs:
            metadata["annotations"] = theirs
    api_version = fields.get("apiVersion")
    if not isinstance(api_version, str):
        api_version = f"{key.group}/v1" if key.group else "v1"
    rest = {name: value for name, value in fields.items() if name not in ("kind", "apiVersion", "metadata")}
    return {"kind": key.kind, "apiVersion": api_version, **rest, "metadata": metadata}


def _place_at_origin(key: Key) -> tuple[str, str]:
    namespace, _, name = key.id.rpartition("/")
    return name, namespace


def _alike_at_origin(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether they are the same but for the resourceVersion at the origin."""
    return _alike(_unversioned(one), _unversioned(other))


def _unversioned(fields: dict[str, Any]) -> dict[str, Any]:
    metadata = fields["metadata"]
    annotations = metadata.get("annotations", {})
    theirs = {name: value for name, value in annotations.items() if name != ORIGIN_VERSION}
    return {**fields, "metadata": {**metadata, "annotations": theirs}}


def _created_at_origin(fields: dict[str, Any]) -> int:
    """0 when it doesn't say: what is held is what can be read back from the served bytes."""
    try:
        when = datetime.fromisoformat(fields["metadata"].get("creationTimestamp", ""))
        return _whole_seconds(int(when.timestamp()) * 1_000_000) if when.tzinfo is not None else 0
    except (ValueError, OverflowError):
        return 0


def _created(key: Key, reading: Reading, revision: int, uid: str = "") -> Object:
    if reading.whole:
        whole = _at_origin(key, reading.fields, uid or _uid(key, revision))
        return Object(
            key=key,
            uid=whole["metadata"]["uid"],
            created=_created_at_origin(whole),
            project=reading.project or "",
            shared=False,
            owner="",
            fields=whole,
            admin={},
            as_of=reading.as_of,
            version=reading.version,
            deleted=False,
            revision=revision,
            whole=True,
        )
    fields = dict(reading.fields)
    for part in reading.parts:
        if part.value is not None:
            items = _with_part(fields.get(part.field), part.id_field, part.id, part.value)
            if items is not None:
                fields[part.field] = items
    fields, admin = _apart(fields, dict(reading.admin), reading)
    return Object(
        key=key,
        uid=_uid(key, revision),
        created=_whole_seconds(reading.as_of if reading.created is None else reading.created),
        project=reading.project or "",
        shared=bool(reading.shared),
        owner=reading.owner or "",
        fields=fields,
        admin=admin,
        as_of=reading.as_of,
        version=reading.version,
        deleted=False,
        revision=revision,
    )


def _tombstone(key: Key, reading: Reading, revision: int) -> Object:
    return msgspec.structs.replace(_created(key, reading, revision), deleted=True)


def _uid(key: Key, revision: int) -> str:
    if _UUID.fullmatch(key.id):
        return key.id if len(key.id) == 36 else str(uuid.UUID(key.id))
    return str(uuid.uuid5(_NAMESPACE, "\0".join((key.source, key.group, key.kind, key.id, str(revision)))))
