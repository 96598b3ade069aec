"""Proposes two `nop` and a `sleep`, whatever the cloud is like: to try out audits and plans with. Not for use."""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Snapshot
from vedette.ports import JsonObject, Strategy


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    return Solution(
        actions=(
            Proposed("nop", {"message": "hello World"}),
            Proposed("nop", {"message": parameters["para2"]}),
            Proposed("sleep", {"duration": parameters["para1"]}),
        )
    )


STRATEGY = Strategy(
    name="dummy",
    display_name="Dummy strategy",
    goal="dummy",
    doc="Two messages and a pause. It shows that audits, plans and the applier work, and changes nothing.",
    schema={
        "properties": {
            "para1": {
                "description": "Seconds to sleep.",
                "type": "number",
                "default": 3.2,
                "minimum": 1.0,
                "maximum": 10.2,
            },
            "para2": {"description": "The second message.", "type": "string", "default": "hello"},
        }
    },
    models=(),
    propose=propose,
)
