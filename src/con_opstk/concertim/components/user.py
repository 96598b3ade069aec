"""A user of a front end, with the project that is its own in the cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class ConcertimUser:
    """`id` is (the front end's, the cloud's)."""

    id: tuple[Any, Any]
    login: str
    openstack_project_id: str | None = None
    full_name: str = ""
    email: str = ""
    cost: float = 0.0
    billing_period_start: str | None = None
    billing_period_end: str | None = None
