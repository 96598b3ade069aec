"""Keypairs, from Nova's `keypair.{create,import,delete}.end`, which both formats name alike, and from its API. The id is
`<user id>:<name>`.

They belong to a user, not to a project. The private key is in no notification, and would not be read.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec

from vedette.errors import Forbidden, NoService, NotFound, NotUnderstood, TooBusy
from vedette.kinds._keystone import every_user
from vedette.kinds._nova import ADMINS_ONLY, COMPUTE
from vedette.kinds._said import Shape, Verb, decoded
from vedette.model.notice import Notice
from vedette.model.paths import segment
from vedette.model.reading import Reading
from vedette.ports import Answer, Api, Cloud, Column, Field, JsonObject, Kind

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


MICROVERSION = "2.35"
"""2.10 other users' keypairs, 2.35 pages."""
MOST_USERS = 10_000
"""Whose keypairs one listing asks for: a request each."""

_shape = Shape("Keypair", FIELDS)


async def list_keypairs(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every user's: Nova shows one user's at a time. Only our own where we may not know the other users.

    Raises TooBusy after the first 10,000 users.
    """
    users = 0
    try:
        async for page in every_user(cloud):
            for item in page.items:
                user = item.get("id")
                if not isinstance(user, str) or not user:
                    continue
                if users == MOST_USERS:
                    raise TooBusy(f"the cloud has more than {MOST_USERS} users: the keypairs of the others are not listed")
                users += 1
                async for readings in _of_user(cloud, user):
                    yield readings
    except (Forbidden, NoService):
        if users:
            raise
        account = await cloud.account()
        async for readings in _of_user(cloud, account.user_id):
            yield readings


async def _of_user(cloud: Cloud, user: str) -> AsyncIterator[Sequence[Reading]]:
    params = (("user_id", user),)
    async for page in cloud.pages(COMPUTE, "/os-keypairs", "keypairs", params, microversion=MICROVERSION):
        items = (item.get("keypair") for item in page.items if isinstance(item, dict))
        found = [shown(item, user, page.as_of) for item in items if isinstance(item, dict)]
        if found:
            yield [reading for reading in found if reading is not None]


async def get_keypair(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them."""
    user, _, name = id_.partition(":")
    if not user:
        raise NotFound(f"{id_!r} is no keypair's id")
    params = (("user_id", user),)
    answer: Answer = await cloud.get(COMPUTE, f"/os-keypairs/{segment(name)}", params, microversion=MICROVERSION)
    item = answer.body.get("keypair")
    reading = shown(item, user, answer.as_of) if isinstance(item, dict) else None
    return () if reading is None else (reading,)


def shown(item: JsonObject, user: str, as_of: int) -> Reading | None:
    """What the API shows of one keypair. A list doesn't name the user: that is who was asked for."""
    _, fields, _ = _shape.of(item)
    name = fields.get("name")
    if not name:
        return None
    fields["user_id"] = user
    return Reading(kind="Keypair", id=f"{user}:{name}", verb="create", as_of=as_of, project="", owner=user, fields=fields)


KIND = Kind(
    kind="Keypair",
    plural="keypairs",
    singular="keypair",
    short_names=("kp",),
    doc="A Nova keypair: a user's public key.",
    events=tuple(_VERBS),
    read=read,
    api=Api(service=COMPUTE, list=list_keypairs, get=get_keypair, proof=ADMINS_ONLY, seldom=True),
    fields=FIELDS,
    columns=(
        Column("Key-Name", ("name",)),
        Column("Fingerprint", ("fingerprint",)),
        Column("Type", ("type",), priority=1),
    ),
    audience="owner",
)
