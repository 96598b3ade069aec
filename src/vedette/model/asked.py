"""What engine/advising.py and the process of advice.py say to each other: one question a call, one answer to each.

Everything that may be long goes in pages, each well below what a worker's message holds (model/frames.py). A *slot* names one of
the snapshots that the process has in hand.
"""

from __future__ import annotations

from typing import Any

import msgspec

from vedette.model.advice import Done, Query, Trigger

# --- questions -------------------------------------------------------------------------------------------------------------


class Rows(msgspec.Struct, frozen=True, tag=True):
    """Objects of a kind, as the store serves them to admins. Answer: null."""

    slot: str
    kind: str
    rows: list[msgspec.Raw]


class Build(msgspec.Struct, frozen=True, tag=True):
    """That was all. Answer: `Built`."""

    slot: str
    revision: int
    scope: list[dict[str, Any]]


class Wants(msgspec.Struct, frozen=True, tag=True):
    """What has to be measured? Answer: a list of `Query`."""

    slot: str
    strategy: str
    parameters: dict[str, Any]


class Resources(msgspec.Struct, frozen=True, tag=True):
    """Hosts or servers from this place on. Answer: a list of `Resource`, empty at the end."""

    slot: str
    of_hosts: bool
    after: int


class Values(msgspec.Struct, frozen=True, tag=True):
    """Some measurements. Answer: null."""

    query: Query
    values: dict[str, float]


class Propose(msgspec.Struct, frozen=True, tag=True):
    """Ask the strategy, and put what it proposes into an order. Answer: `Answered`; the actions are fetched by `More`."""

    slot: str
    strategy: str
    planner: str
    parameters: dict[str, Any]
    triggers: list[Trigger]


class More(msgspec.Struct, frozen=True, tag=True):
    """Planned actions from this place on. Answer: a list of `planner.Planned`, empty at the end."""

    after: int


class Did(msgspec.Struct, frozen=True, tag=True):
    """What became of some actions. Answer: null."""

    done: list[Done]


class Measure(msgspec.Struct, frozen=True, tag=True):
    """How did it turn out? Answer: indicators by name."""

    before: str
    after: str
    strategy: str
    parameters: dict[str, Any]


class Model(msgspec.Struct, frozen=True, tag=True):
    """Rows of Watcher's data model from this place on. Answer: a list of objects, empty at the end."""

    slot: str
    after: int


class Forget(msgspec.Struct, frozen=True, tag=True):
    """Everything. Answer: null."""


Question = Rows | Build | Wants | Resources | Values | Propose | More | Did | Measure | Model | Forget

# --- answers ---------------------------------------------------------------------------------------------------------------


class Built(msgspec.Struct, frozen=True):
    hosts: int
    servers: int
    pools: int
    volumes: int
    machines: int
    odd: int
    """Objects that could not be read."""


class Answered(msgspec.Struct, frozen=True):
    actions: int
    indicators: dict[str, float]
    notes: list[str]
    refused: str = ""
    """The strategy can't answer, or no plan can be made of its answer, and why (BadRequest)."""
