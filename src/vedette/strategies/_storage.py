"""What strategies share that move volumes: may a volume leave, and what a pool takes."""

from __future__ import annotations

from vedette.model.snapshot import Pool, Snapshot, Volume
from vedette.strategies._evacuate import called, held


def stuck(snapshot: Snapshot, volume: Volume) -> str:
    """Why it can't be migrated now, as the end of a sentence; "" if it can."""
    if volume.status not in ("available", "in-use"):
        return f"it is {volume.status}"
    if volume.snapshots:
        return f"it has {volume.snapshots} snapshots, and Cinder migrates none that has any"
    for server in (snapshot.server[one] for one in volume.servers if one in snapshot.server):
        why = held(server)
        if not why and not server.live:
            why = f"is {server.status}"
        if why:
            return f"{called(server)}, which uses it, {why}"
    return ""


def free(pool: Pool) -> float:
    """GiB that it takes; what a pool without a known total takes is Cinder's matter."""
    if pool.total <= 0:
        return float("inf")
    return max(pool.free, pool.virtual_free) if pool.oversubscription > 1 else pool.free
