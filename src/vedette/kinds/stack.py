"""Stacks, from Heat's `orchestration.stack.*` and from its API.

`.start` is read here: it carries no request, but the stack with its new state (CREATE_IN_PROGRESS …), and is the only news of
it. An `.end` or an `.error` always follows. Heat's `user_id` is a name; the id is in `user_identity`.

Heat's list has no descriptions. It keeps deleted stacks until they are purged, and shows them by id as if they were there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.errors import Forbidden, NotFound, NotUnderstood
from vedette.kinds._api import in_seconds, readings
from vedette.kinds._said import Shape, decoded, moment, second
from vedette.model.notice import Notice
from vedette.model.reading import Reading
from vedette.ports import Api, Cloud, Column, Field, JsonObject, Kind

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
_UPDATED = ("create.", "adopt.", "update.", "rollback.", "restore.")
"""The others (suspend, resume, check, snapshot) send the time of the action as `updated_at`, which Heat never stores."""


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
    if "tags" in fields:
        fields["tags"] = sorted(said.tags or ())
    created = said.create_at if said.create_at is not UNSET else said.created_at
    if created is not UNSET:
        fields["creation_time"] = second(created)
    action = event[20:]
    if said.updated_at is not UNSET and action.startswith(_UPDATED):
        fields["updated_time"] = second(said.updated_at)
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


ORCHESTRATION = "orchestration"
ADMINS_ONLY = "/services"
EVERY = (("show_nested", "true"), ("show_hidden", "true"))
"""Nested stacks are announced as others are."""

_shape = Shape("Stack", FIELDS)


async def list_stacks(cloud: Cloud) -> AsyncIterator[Sequence[Reading]]:
    """Every project's, to whom Heat takes for an admin; their own to others. (`global_tenant` is refused to nearly everybody,
    and isn't needed.)"""
    async for page in cloud.pages(ORCHESTRATION, "/stacks", "stacks", EVERY):
        yield readings(page.items, page.as_of, shown)


async def get_stack(cloud: Cloud, id_: str) -> Sequence[Reading]:
    """One of them, by a filter: what has the id of its own address in Heat is shown long after it is gone.

    Raises NotFound when it is shown as deleted, or not at all to somebody who is shown every project's stacks; Forbidden when
    that isn't known.
    """
    answer = await cloud.get(ORCHESTRATION, "/stacks", (*EVERY, ("show_deleted", "true"), ("id", id_)))
    items = answer.body.get("stacks")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("id") == id_:
            reading = shown(item, answer.as_of)
            if reading is None:
                raise NotFound(f"the stack {id_} is deleted")
            return (reading,)
    if await _sees_all(cloud):
        raise NotFound(f"Heat has no stack {id_}")
    raise Forbidden(f"Heat doesn't show a stack {id_}, nor whether it would show one of another project")


async def _sees_all(cloud: Cloud) -> bool:
    """Heat names the project of a stack only to whom it shows every project's. One that was deleted will do."""
    answer = await cloud.get(ORCHESTRATION, "/stacks", (*EVERY, ("show_deleted", "true"), ("limit", "1")))
    items = answer.body.get("stacks")
    return isinstance(items, list) and any(isinstance(item, dict) and bool(item.get("project")) for item in items)


async def some_stacks(cloud: Cloud, ids: Sequence[str]) -> Sequence[Reading]:
    """Those of these that are there."""
    answer = await cloud.get(ORCHESTRATION, "/stacks", (*EVERY, *(("id", id_) for id_ in ids)))
    items = answer.body.get("stacks")
    wanted = set(ids)
    found = readings(items if isinstance(items, list) else (), answer.as_of, shown)
    return [reading for reading in found if reading.id in wanted]


def shown(item: JsonObject, as_of: int) -> Reading | None:
    """What the API shows of one stack; None when it is deleted."""
    id_, fields, _ = _shape.of(item)
    if not id_ or item.get("deletion_time") or fields.get("stack_status") == "DELETE_COMPLETE":
        return None
    created = fields.get("creation_time")
    in_seconds(fields, "creation_time", "updated_time")
    fields.pop("description", None)  # "" for every stack
    if "tags" in fields:
        fields["tags"] = sorted(tag for tag in fields["tags"] or () if isinstance(tag, str))
    project = fields.get("project") or _project_of(item)
    if project:
        fields["project"] = project
    else:
        fields.pop("project", None)
    return Reading(
        kind="Stack",
        id=id_,
        verb="create",
        as_of=as_of,
        created=moment(created),
        project=project,
        fields=fields,
    )


def _project_of(item: JsonObject) -> str | None:
    """From a stack's own address, `…/v1/<project>/stacks/<name>/<id>`: it isn't named to others than admins."""
    links = item.get("links")
    for link in links if isinstance(links, list) else ():
        words = link["href"].split("/") if isinstance(link, dict) and isinstance(link.get("href"), str) else []
        if len(words) > 4 and words[-3] == "stacks":
            return words[-4] or None
    return None


def transient(stack: JsonObject) -> bool:
    """Whether Heat is at work on it. A heat-engine that is lost announces no end."""
    return str(stack.get("stack_status")).endswith("_IN_PROGRESS")


KIND = Kind(
    kind="Stack",
    plural="stacks",
    singular="stack",
    short_names=("stk",),
    doc="A Heat stack: resources made from a template.",
    events=("orchestration.stack.*",),
    read=read,
    api=Api(
        service=ORCHESTRATION,
        list=list_stacks,
        get=get_stack,
        some=some_stacks,
        proof=ADMINS_ONLY,
        transient=transient,
        transient_fields=("stack_status",),
    ),
    fields=FIELDS,
    columns=(
        Column("Stack-Name", ("stack_name",)),
        Column("Stack-Status", ("stack_status",)),
        Column("Updated", ("updated_time",), priority=1),
        Column("Reason", ("stack_status_reason",), priority=1),
    ),
)
