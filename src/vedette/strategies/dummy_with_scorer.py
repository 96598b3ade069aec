"""Shows how a strategy asks scoring engines: it scores numbers that it makes up, and proposes to say what came out. Not for use.

The numbers follow from the snapshot's revision: Watcher's are drawn by lot, but the same question has to have the same answer.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Solution, Trigger
from vedette.model.snapshot import Snapshot
from vedette.ports import JsonObject, Strategy
from vedette.strategies._scoring import WORKLOADS, MiB, scored

_MOST = (100, 4096 * MiB, 4096 * MiB, 2000, 2000, 200 * MiB, 200 * MiB, 20 * MiB, 10 * MiB)
"""Of each feature of `dummy_scorer`."""
_SAMPLES = 20


def _number(revision: int, at: int, below: int) -> int:
    return zlib.crc32(f"{revision}/{at}".encode()) % below


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    features = [_number(snapshot.revision, at, most + 1) for at, most in enumerate(_MOST)]
    features[1] = _MOST[1]
    workload = WORKLOADS[int(scored("dummy_scorer", features)[0])]
    average = scored("dummy_avg_scorer", [_number(snapshot.revision, 100 + at, 1000) for at in range(_SAMPLES)])[0]
    return Solution(
        actions=(
            Proposed("nop", {"message": "Hello from Dummy Strategy with Scorer!"}),
            Proposed("nop", {"message": f"Detected Workload: {workload}"}),
            Proposed("nop", {"message": f"AVG Scorer result: {average}"}),
            Proposed("sleep", {"duration": 5.0}),
        )
    )


STRATEGY = Strategy(
    name="dummy_with_scorer",
    display_name="Dummy Strategy using sample Scoring Engines",
    goal="dummy",
    doc="Shows how a strategy asks scoring engines, with numbers that it makes up. It changes nothing.",
    schema={
        "properties": {
            "param1": {
                "description": "Not used.",
                "type": "number",
                "default": 3.2,
                "minimum": 1.0,
                "maximum": 10.2,
            },
            "param2": {"description": "Not used.", "type": "string", "default": "hello"},
        }
    },
    models=(),
    propose=propose,
)
