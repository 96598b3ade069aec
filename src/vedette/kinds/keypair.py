"""Keypairs, from Nova's `keypair.{create,import,delete}.end`, which both formats name alike. The id is `<user id>:<name>`.

They belong to a user, not to a project. The private key is in no notification, and would not be read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from vedette.errors import NotUnderstood
from vedette.kinds._said import Verb, decoded
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "user_id": Field("string", "The user it belongs to."),
    "type": Field("string", "ssh or x509."),
    "fingerprint": Field("string", "Fingerprint of the public key."),
    "public_key": Field("string", "The public key."),
}


class _Versioned(msgspec.Struct, gc=False):
    user_id: str | None = None
    name: str | None = None
    fingerprint: str | None = None
    public_key: str | None = None
    type: str | None = None


class _Keypair(msgspec.Struct, gc=False):
    user_id: str | None = None
    key_name: str | None = None
    data: _Versioned | None = msgspec.field(name="nova_object.data", default=None)


_keypair = msgspec.json.Decoder(_Keypair)
_VERBS: dict[str, Verb] = {"keypair.create.end": "create", "keypair.import.end": "create", "keypair.delete.end": "delete"}


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice of either format says of one keypair."""
    verb = _VERBS.get(notice.event_type)
    if verb is None:
        return ()
    said: _Keypair = decoded(_keypair.decode, notice.payload, notice.event_type)
    fields: dict[str, Any] = {}
    if said.data is None:
        user, name = said.user_id, said.key_name
    else:
        user, name = said.data.user_id, said.data.name
        for field in ("type", "fingerprint", "public_key"):
            value = getattr(said.data, field)
            if value is not None:
                fields[field] = value
    if not user or not name:
        raise NotUnderstood(f"{notice.event_type}: a keypair without a user or a name")
    fields = {"name": name, "user_id": user, **fields}
    return (
        Reading(
            kind="Keypair",
            id=f"{user}:{name}",
            verb=verb,
            as_of=notice.sent_at,
            project="",
            owner=user,
            fields=fields,
        ),
    )


KIND = Kind(
    kind="Keypair",
    plural="keypairs",
    singular="keypair",
    short_names=("kp",),
    doc="A Nova keypair: a user's public key.",
    events=tuple(_VERBS),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Key-Name", ("name",)),
        Column("Fingerprint", ("fingerprint",)),
        Column("Type", ("type",), priority=1),
    ),
    audience="owner",
)
