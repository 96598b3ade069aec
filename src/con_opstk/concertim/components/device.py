"""A device: a server, as a front end shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from con_opstk.concertim.components.location import Location


@dataclass
class ConcertimDevice:
    """`id` is (the front end's, the server's)."""

    id: tuple[Any, Any]
    device_name: str
    rack_id: tuple[Any, Any]
    template_id: tuple[Any, Any]
    location: Location
    description: str = ""
    status: str = "IN_PROGRESS"
    public_ips: str = ""
    private_ips: str = ""
    ssh_key: str = ""
    volume_details: dict[str, Any] = field(default_factory=dict)
    login_user: str = ""
    network_interfaces: list[Any] = field(default_factory=list)

    @property
    def concertim_id(self) -> Any:
        return self.id[0]

    @property
    def openstack_id(self) -> Any:
        return self.id[1]
