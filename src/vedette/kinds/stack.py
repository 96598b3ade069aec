"""Stacks, from Heat's `orchestration.stack.*`.

`.start` is read here: it carries no request, but the stack with its new state (CREATE_IN_PROGRESS …), and is the only news of
it. An `.end` or an `.error` always follows. Heat's `user_id` is a name; the id is in `user_identity`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import NotUnderstood
from vedette.kinds._said import decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "stack_name": Field("string", "Its name."),
    "stack_status": Field("string", "An action and how it stands: CREATE_IN_PROGRESS, UPDATE_COMPLETE, DELETE_FAILED …"),
    "stack_status_reason": Field("string", "Why."),
    "description": Field("string", "The description in its template."),
    "project": Field("string", "The project that owns it."),
    "stack_owner": Field("string", "Name of the user who made it."),
    "creation_time": Field("string", "When it was created."),
    "updated_time": Field("string", "When it was last updated; null for never."),
    "tags": Field("array", "Its tags."),
}

_Text = str | UnsetType | None


class _Stack(msgspec.Struct, gc=False):
    stack_identity: str
    tenant_id: _Text = UNSET
    username: _Text = UNSET
    stack_name: _Text = UNSET
    state: _Text = UNSET
    state_reason: _Text = UNSET
    create_at: _Text = UNSET
    created_at: _Text = UNSET
    updated_at: _Text = UNSET
    description: _Text = UNSET
    tags: list[str] | UnsetType | None = UNSET


_stack = msgspec.json.Decoder(_Stack)
_NAMES = (
    ("stack_name", "stack_name"),
    ("state", "stack_status"),
    ("state_reason", "stack_status_reason"),
    ("description", "description"),
    ("tenant_id", "project"),
    ("username", "stack_owner"),
    ("tags", "tags"),
)
"""Heat's word in the notification, and in the API."""


def read(notice: Notice) -> Iterable[Reading]:
    """What one notice says of one stack."""
    event = notice.event_type
    if not event.startswith("orchestration.stack.") or not event.endswith((".start", ".end", ".error")):
        return ()
    said: _Stack = decoded(_stack.decode, notice.payload, event)
    # Until Kilo an ARN: arn:openstack:heat::<project>:stacks/<name>/<id>
    id_ = said.stack_identity.rpartition("/")[2]
    if not id_:
        raise NotUnderstood(f"{event}: a stack without an id")
    fields: dict[str, Any] = {}
    for word, name in _NAMES:
        value = getattr(said, word)
        if value is not UNSET:
            fields[name] = value
    created = said.create_at if said.create_at is not UNSET else said.created_at
    if created is not UNSET:
        fields["creation_time"] = second(created)
    if said.updated_at is not UNSET:
        fields["updated_time"] = second(said.updated_at)
    action = event[20:]
    return (
        Reading(
            kind="Stack",
            id=id_,
            verb="delete" if action == "delete.end" else "create" if action in ("create.end", "adopt.end") else "update",
            as_of=notice.sent_at,
            created=None if created is UNSET else moment(created),
            project=None if said.tenant_id is UNSET else (said.tenant_id or ""),
            fields=fields,
        ),
    )


KIND = Kind(
    kind="Stack",
    plural="stacks",
    singular="stack",
    short_names=("stk",),
    doc="A Heat stack: resources made from a template.",
    events=("orchestration.stack.*",),
    read=read,
    fields=FIELDS,
    columns=(
        Column("Stack-Name", ("stack_name",)),
        Column("Stack-Status", ("stack_status",)),
        Column("Updated", ("updated_time",), priority=1),
        Column("Reason", ("stack_status_reason",), priority=1),
    ),
)
