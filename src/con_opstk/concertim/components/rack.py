"""A rack: a Heat stack, as a front end shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from con_opstk.concertim.components.device import ConcertimDevice
from con_opstk.concertim.components.location import Location


@dataclass
class ConcertimRack:
    """`id` is (the front end's, the stack's), as everywhere in this package."""

    id: tuple[Any, Any]
    rack_name: str
    user_id: Any
    height: int
    description: str = ""
    status: str = "IN_PROGRESS"
    output: str = ""
    network_details: dict[str, Any] = field(default_factory=dict)
    creation_output: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)
    devices: list[ConcertimDevice] = field(default_factory=list)

    @property
    def concertim_id(self) -> Any:
        return self.id[0]

    @property
    def openstack_id(self) -> Any:
        return self.id[1]

    @property
    def occupied(self) -> set[int]:
        """The units that have a device."""
        return {unit for one in self.devices for unit in range(one.location.start_u, one.location.end_u + 1)}

    def add_device(self, device: ConcertimDevice) -> None:
        """Raises ValueError: something is there already, or the rack has no such unit."""
        wanted = set(range(device.location.start_u, device.location.end_u + 1))
        if wanted & self.occupied or not wanted or min(wanted) < 1 or max(wanted) > self.height:
            raise ValueError(f"{device.device_name} does not fit at {device.location.start_u} of {self.rack_name}")
        self.devices.append(device)

    def remove_device(self, device: ConcertimDevice) -> None:
        """Nothing, if it isn't there."""
        self.devices = [one for one in self.devices if one.id != device.id]

    def find_empty_slot(self, size: int) -> int | None:
        """The `start_u` of the highest free place of so many units; None: there is none."""
        taken = self.occupied
        starts = range(self.height - size + 1, 0, -1)
        return next((start for start in starts if not taken & set(range(start, start + size))), None)


__all__ = ["ConcertimDevice", "ConcertimRack", "Location"]
