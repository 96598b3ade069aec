"""What the actuator is given goes through as it is."""

from __future__ import annotations

from vedette.model.advice import Proposed
from vedette.model.snapshot import Snapshot
from vedette.strategies.actuator import propose


def test_actions_go_through_in_their_order() -> None:
    given = {
        "actions": [
            {"action_type": "migrate", "resource_id": "s1", "input_parameters": {"migration_type": "live", "source_node": "a"}},
            {"action_type": "nop", "input_parameters": {"message": "moved"}},
            {"action_type": "stop", "input_parameters": {"resource_id": "s2"}},
        ]
    }
    found = propose(Snapshot(revision=1), {}, given, ())
    assert found.actions == (
        Proposed("migrate", {"migration_type": "live", "source_node": "a", "resource_id": "s1"}),
        Proposed("nop", {"message": "moved"}),
        Proposed("stop", {"resource_id": "s2"}),
    )
    assert found.notes == ()
    assert given["actions"][0]["input_parameters"] == {"migration_type": "live", "source_node": "a"}


def test_what_means_nothing_is_told() -> None:
    found = propose(Snapshot(revision=1), {}, {"actions": [{"action_type": "nop", "input_parameters": {}, "delay": 3}]}, ())
    assert found.actions == (Proposed("nop", {}),)
    assert found.notes == ("actions[0] has delay, which mean nothing: parameters go into input_parameters",)
