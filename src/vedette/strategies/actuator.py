"""Proposes the actions that it is given, as they are: for an EVENT audit that answers an alarm with fixed steps."""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._evacuate import ended

_KNOWN = frozenset({"action_type", "resource_id", "input_parameters"})


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    actions: list[Proposed] = []
    notes: list[str] = []
    for i, one in enumerate(parameters["actions"]):
        given = dict(one["input_parameters"])
        if "resource_id" in one:
            given["resource_id"] = one["resource_id"]
        actions.append(Proposed(one["action_type"], given))
        strange = sorted(one.keys() - _KNOWN)
        if strange:
            notes.append(f"actions[{i}] has {', '.join(strange)}, which mean nothing: parameters go into input_parameters")
    return Solution(actions=tuple(actions), notes=ended(notes))


STRATEGY = Strategy(
    name="actuator",
    display_name="Actuator",
    goal="unclassified",
    doc="Proposes the actions given as its parameters, as they are: fixed steps that answer an event, or a trial of actions.",
    schema={
        "$schema": "http://json-schema.org/draft-04/schema#",
        "type": "object",
        "properties": {
            "actions": {
                "description": "The actions, in their order.",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "action_type": {"type": "string"},
                        "resource_id": {"type": "string"},
                        "input_parameters": {"type": "object", "properties": {}, "additionalProperties": True},
                    },
                    "required": ["action_type", "input_parameters"],
                    "additionalProperties": True,
                },
            }
        },
        "required": ["actions"],
    },
    models=(),
    propose=propose,
)
