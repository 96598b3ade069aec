"""Goals, strategies and scoring engines that this version has, as records: written at the start where they differ.

Their ids follow from their names, so that they are the same in every installation and after a wiped store.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from vedette.engine.records import Records
from vedette.model.audit import GoalRecord, Record, ScoringEngineRecord, StrategyRecord
from vedette.model.goals import GOALS
from vedette.ports import Strategy

_NAMESPACE = uuid.UUID("5ba2c1a6-7f0e-4f0b-9c53-6f2c8a7f1d10")


def id_of(kind: type[Record], name: str) -> str:
    """The uuid of a goal, a strategy or a scoring engine."""
    return str(uuid.uuid5(_NAMESPACE, f"{kind.KIND}/{name}"))


async def sync(records: Records, strategies: Mapping[str, Strategy], engines: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write what is new or differs, delete what is no more. `engines`: name, description and metainfo of each."""
    wanted: list[Record] = [
        GoalRecord(
            uuid=id_of(GoalRecord, goal.name),
            name=goal.name,
            display_name=goal.display_name,
            efficacy_specification=[msgspec.to_builtins(one) for one in goal.indicators],
        )
        for goal in GOALS
    ]
    wanted += [
        StrategyRecord(
            uuid=id_of(StrategyRecord, one.name),
            name=one.name,
            display_name=one.display_name,
            goal_uuid=id_of(GoalRecord, one.goal),
            goal_name=one.goal,
            parameters_spec=one.schema,
        )
        for one in strategies.values()
    ]
    wanted += [
        ScoringEngineRecord(
            uuid=id_of(ScoringEngineRecord, one["name"]),
            name=one["name"],
            description=one["description"],
            metainfo=one.get("metainfo", ""),
        )
        for one in engines
    ]
    there = {one.uuid: one for kind in (GoalRecord, StrategyRecord, ScoringEngineRecord) for one in records.all(kind)}
    puts = [one for one in wanted if not _same(there.get(one.uuid), one)]
    gone = [one for key, one in there.items() if key not in {one.uuid for one in wanted}]
    if puts or gone:
        await records.write(puts, gone)


def _same(kept: Record | None, wanted: Record) -> bool:
    if kept is None:
        return False
    return msgspec.structs.replace(kept, created_at="", updated_at=None) == wanted
