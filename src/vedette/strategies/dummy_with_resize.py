"""Proposes messages, a pause, two migrations and a resize of servers that it makes up. Not for use."""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Snapshot
from vedette.ports import JsonObject, Strategy

FIRST = "b199db0c-1408-4d52-b5a5-5ca14de0ff36"
SECOND = "8db1b3c1-7938-4c34-8c03-6de14b874f8f"
"""Watcher's; no cloud has them, so that the actions end as skipped or failed."""


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    where = {"source_node": "compute2", "destination_node": "compute3", "migration_type": "live"}
    return Solution(
        actions=(
            Proposed("nop", {"message": "hello World"}),
            Proposed("nop", {"message": "Welcome"}),
            Proposed("sleep", {"duration": 5.0}),
            Proposed("migrate", {"resource_id": FIRST, **where}),
            Proposed("migrate", {"resource_id": SECOND, **where}),
            Proposed("resize", {"resource_id": SECOND, "flavor": "x2"}),
        ),
        notes=("its servers are made up: no cloud has them",),
    )


STRATEGY = Strategy(
    name="dummy_with_resize",
    display_name="Dummy strategy with resize",
    goal="dummy",
    doc="Migrations and a resize of servers that no cloud has. It shows what a plan of such actions looks like.",
    schema={
        "properties": {
            "para1": {
                "description": "Not used.",
                "type": "number",
                "default": 3.2,
                "minimum": 1.0,
                "maximum": 10.2,
            },
            "para2": {"description": "Not used.", "type": "string", "default": "hello"},
        }
    },
    models=(),
    propose=propose,
)
