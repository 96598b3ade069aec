"""What a mirror keeps elsewhere, as objects: engine/mirroring.py tells of them with the readings made."""

from __future__ import annotations

from vedette.model.reading import VEDETTE
from vedette.ports import Column, Field, Kind

KIND = Kind(
    kind="MirroredObject",
    plural="mirroredobjects",
    singular="mirroredobject",
    short_names=("mo",),
    group=VEDETTE,
    doc="An object that a mirror keeps in another system, and what of the cloud it stands for.",
    events=(),
    read=lambda notice: (),
    audience="admin",
    fields={
        "mirror": Field("string", "The mirror's name in the configuration."),
        "type": Field("string", "The other system's word for it: rack, device, template."),
        "target_id": Field("string", "Its id there."),
        "kind": Field("string", "The kind of what it stands for."),
        "object_id": Field("string", "The id of what it stands for."),
        "name": Field("string", "What it is called there."),
        "state": Field("string", "The status that it has there."),
    },
    columns=(
        Column("Mirror", ("mirror",)),
        Column("Type", ("type",)),
        Column("Target", ("target_id",)),
        Column("Kind", ("kind",)),
        Column("Object", ("object_id",)),
        Column("Called", ("name",)),
        Column("State", ("state",)),
    ),
)
