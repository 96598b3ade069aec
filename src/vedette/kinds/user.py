"""Users, from Keystone's `identity.user.*`, which carry only the id, and from its API. Admins see them."""

from __future__ import annotations

from vedette.kinds._keystone import every_user, identity_api, identity_reader
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Their name; Keystone's notifications don't say it."),
    "description": Field("string", "Free text; Keystone's notifications don't say it."),
    "domain_id": Field("string", "The domain they are in; Keystone's notifications don't say it."),
    "default_project_id": Field("string", "Their default project; Keystone's notifications don't say it."),
    "enabled": Field("boolean", "Whether they may log in, where a notice said it."),
}

KIND = Kind(
    kind="User",
    plural="users",
    singular="user",
    doc="A Keystone user.",
    events=tuple(f"identity.user.{action}" for action in ("created", "updated", "enabled", "disabled", "deleted")),
    read=identity_reader("User", "user"),
    api=identity_api("User", "user", FIELDS, every_user),
    fields=FIELDS,
    columns=(
        Column("User-Name", ("name",)),
        Column("Enabled", ("enabled",), "boolean"),
        Column("Domain", ("domain_id",), priority=1),
    ),
    audience="admin",
)
