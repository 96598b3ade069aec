"""Projects, from Keystone's `identity.project.*`, which carry only the id, and from its API. A project belongs to itself, so its
members see it."""

from __future__ import annotations

from vedette.kinds._keystone import every_project, identity_api, identity_reader
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name; Keystone's notifications don't say it."),
    "description": Field("string", "Free text; Keystone's notifications don't say it."),
    "domain_id": Field("string", "The domain it is in; Keystone's notifications don't say it."),
    "parent_id": Field("string", "The project or domain above it; Keystone's notifications don't say it."),
    "enabled": Field("boolean", "Whether it may be used, where a notice said it."),
    "is_domain": Field("boolean", "Whether it is a domain; Keystone's notifications don't say it."),
    "tags": Field("array", "Its tags; Keystone's notifications don't say them."),
}

KIND = Kind(
    kind="Project",
    plural="projects",
    singular="project",
    short_names=("proj",),
    doc="A Keystone project.",
    events=tuple(f"identity.project.{action}" for action in ("created", "updated", "enabled", "disabled", "deleted")),
    read=identity_reader("Project", "project", own_project=True),
    api=identity_api("Project", "project", FIELDS, every_project, own_project=True),
    fields=FIELDS,
    columns=(
        Column("Project-Name", ("name",)),
        Column("Enabled", ("enabled",), "boolean"),
        Column("Domain", ("domain_id",), priority=1),
    ),
)
