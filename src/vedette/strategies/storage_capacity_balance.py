"""Moves volumes off storage pools that are too full, to those with the most room, until no pool is.

What nobody uses goes first, then what servers use beside their boot volumes, then boot volumes. A volume whose type allows the
other pool is migrated; one whose type doesn't gets the type of the other pool's back end that asks for the same otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from vedette.model.advice import Metrics, Proposed, Query, Solution, Trigger
from vedette.model.snapshot import Pool, Snapshot, Volume, VolumeType
from vedette.ports import Done, JsonObject, Strategy
from vedette.strategies._evacuate import ended
from vedette.strategies._measured import deviation, number
from vedette.strategies._storage import stuck

BACK_END = "volume_backend_name"


def _queries(snapshot: Snapshot, parameters: JsonObject) -> Sequence[Query]:
    return ()


class _Room:
    """How full pools are, while volumes are given to them. GiB."""

    def __init__(self, snapshot: Snapshot, threshold: float) -> None:
        """Pools of which nobody knows how large they are take no part."""
        self._threshold = threshold
        self.pools = [one for one in snapshot.pools if one.total > 0]
        self._used = {one.name: one.total - one.free for one in self.pools}
        self._promised = {one.name: one.allocated for one in self.pools}

    def too_much(self, pool: Pool) -> float:
        """What has to leave it; 0 or less: nothing."""
        return self._used[pool.name] - self._threshold * pool.total

    def share(self, pool: Pool) -> float:
        return self._used[pool.name] / pool.total

    def takes(self, pool: Pool, size: int, source: Pool) -> bool:
        """It stays below the threshold, what may be promised of it is enough, and pools are more even afterwards."""
        below = self._used[pool.name] + size < self._threshold * pool.total
        return (
            below and self._promised[pool.name] + size <= pool.total * pool.oversubscription and self._evener(pool, size, source)
        )

    def _evener(self, pool: Pool, size: int, source: Pool) -> bool:
        a, b, less, more = self.share(source), self.share(pool), size / source.total, size / pool.total
        # The variance is squares / count - (total / count)²: what a move changes in it is known without looking at the others.
        total, count = sum(map(self.share, self.pools)), len(self.pools)
        squares = (a - less) ** 2 + (b + more) ** 2 - a * a - b * b
        return squares * count < (total - less + more) ** 2 - total**2

    def deviation(self) -> float:
        return deviation([self.share(one) for one in self.pools])

    def move(self, volume: Volume, target: Pool) -> None:
        for name, sign in ((volume.pool, -1), (target.name, 1)):
            self._used[name] += sign * volume.size
            self._promised[name] += sign * volume.size


def propose(snapshot: Snapshot, metrics: Metrics, parameters: JsonObject, triggers: Sequence[Trigger]) -> Solution:
    """See the module."""
    room = _Room(snapshot, parameters["volume_threshold"] / 100)
    notes = [f"pool {one.name} takes no part: how much it has is not known" for one in snapshot.pools if one.total <= 0]
    types = {one.name: one for one in snapshot.volume_types}
    actions: list[Proposed] = []
    before = room.deviation()
    for source in sorted(room.pools, key=lambda pool: (-room.share(pool), pool.name)):
        if room.too_much(source) < 0:
            break
        left = _movable(snapshot, source, notes)
        while left and room.too_much(source) >= 0:
            volume = _next(left, room.too_much(source))
            left.remove(volume)
            action, target = _move(volume, source, room, types)
            if action is None or target is None:
                notes.append(f"volume {volume.name or volume.uuid} stays in {source.name}: no pool of its kind has room for it")
                continue
            room.move(volume, target)
            actions.append(action)
        if room.too_much(source) >= 0:
            notes.append(f"pool {source.name} stays too full: {100 * room.share(source):.0f} %")
    indicators = {
        "instance_migrations_count": len(actions),
        "instances_count": sum(len(snapshot.volumes_in[one.name]) for one in room.pools),
        "standard_deviation_before_audit": before,
        "standard_deviation_after_audit": room.deviation(),
    }
    return Solution(actions=tuple(actions), indicators=indicators, notes=ended(notes))


def _movable(snapshot: Snapshot, pool: Pool, notes: list[str]) -> list[Volume]:
    found: list[Volume] = []
    for volume in snapshot.volumes_in[pool.name]:
        if why := stuck(snapshot, volume):
            notes.append(f"volume {volume.name or volume.uuid} stays in {pool.name}: {why}")
        else:
            found.append(volume)
    return found


def _next(volumes: Sequence[Volume], too_much: float) -> Volume:
    """Of those that disturb least the smallest that is enough, or else the largest: few moves, and little that is moved."""
    least = min(_disturbs(one) for one in volumes)
    alike = sorted((one for one in volumes if _disturbs(one) == least), key=lambda one: (one.size, one.uuid))
    return next((one for one in alike if one.size > too_much), alike[-1])


def _disturbs(volume: Volume) -> int:
    if volume.status == "available":
        return 0
    return 2 if volume.boot or volume.bootable else 1


def _move(volume: Volume, source: Pool, room: _Room, types: dict[str, VolumeType]) -> tuple[Proposed | None, Pool | None]:
    """The action, and the pool that it fills: the emptiest that takes it, in the same zone."""
    named = {"resource_name": volume.name} if volume.name else {}
    for pool in sorted(room.pools, key=lambda one: (room.share(one), one.name)):
        usable = pool.status == "enabled" and pool.state == "up" and pool.zone in ("", source.zone)
        if pool is source or not usable or not room.takes(pool, volume.size, source):
            continue
        if not volume.type or types.get(volume.type, VolumeType(name="")).extra_specs.get(BACK_END) in (None, pool.backend_name):
            given = {"migration_type": "migrate", "destination_node": pool.name}
            return Proposed("volume_migrate", {"resource_id": volume.uuid, **given, **named}), pool
        if other := _type_for(types[volume.type], pool, types):
            given = {"migration_type": "retype", "destination_type": other}
            return Proposed("volume_migrate", {"resource_id": volume.uuid, **given, **named}), pool
    return None, None


def _type_for(own: VolumeType, pool: Pool, types: dict[str, VolumeType]) -> str:
    """A type of the pool's back end that asks for the same as this one otherwise."""
    wanted = {**own.extra_specs, BACK_END: pool.backend_name}
    return next((name for name in sorted(types) if pool.backend_name and types[name].extra_specs == wanted), "")


def measure(
    before: Snapshot, after: Snapshot, metrics: Metrics, parameters: JsonObject, done: Sequence[Done]
) -> dict[str, float]:
    """How even pools are now; volumes are counted where the goal counts servers."""
    room = _Room(after, parameters["volume_threshold"] / 100)
    return {
        "instance_migrations_count": sum(one.action_type == "volume_migrate" and one.state == "SUCCEEDED" for one in done),
        "instances_count": sum(len(after.volumes_in[one.name]) for one in room.pools),
        "standard_deviation_after_audit": room.deviation(),
    }


STRATEGY = Strategy(
    name="storage_capacity_balance",
    display_name="Storage Capacity Balance Strategy",
    goal="workload_balancing",
    doc="Moves volumes off storage pools that are fuller than a threshold to those with the most room.",
    schema={"properties": {"volume_threshold": number("Per cent of a pool from which on it is too full.", 80.0)}},
    metrics=_queries,
    propose=propose,
    measure=measure,
    models=("compute", "storage"),
)
