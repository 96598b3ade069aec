"""A template: a flavor, as a front end shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class ConcertimTemplate:
    """`id` is (the front end's, the flavor's). `ram` in MiB, `disk` in GiB."""

    id: tuple[Any, Any]
    name: str
    ram: int
    disk: int
    vcpus: int
    size: int = 1
    """Units of a rack."""
    description: str = "Flavor from Openstack"
