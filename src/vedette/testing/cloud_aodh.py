"""The fake cloud's Aodh: alarms, and a list of them. Not in the catalog until it is asked for
(`cloud.alarming.in_catalog = True`). It evaluates nothing and posts nothing: `transition` says what an alarm is now.

https://docs.openstack.org/aodh/latest/admin/telemetry-alarms.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vedette.testing.cloud_service import Ask, Handler, House, Refused, Reply, Row, Service

STATES = ("ok", "alarm", "insufficient data")


class Aodh(Service):
    type = "alarming"
    name = "aodh"
    root = "/v2"

    def __init__(self, house: House) -> None:
        super().__init__(house)
        self.in_catalog = False
        self.alarms: dict[str, Row] = {}
        """Id → alarm."""
        self.knows_all_projects = True
        """False: it refuses that filter, as an old one does, and shows an admin every project's alarms without it."""

    def alarm(self, name: str, state: str = "insufficient data", *, project: str = "demo", **fields: Any) -> str:
        """Its id. `fields`: `alarm_actions`, `ok_actions`, a rule …"""
        id_ = self.house.id()
        self.alarms[id_] = {
            "alarm_id": id_,
            "name": name,
            "type": "gnocchi_resources_threshold",
            "severity": "low",
            "enabled": True,
            "repeat_actions": False,
            "project_id": project,
            "alarm_actions": [],
            "ok_actions": [],
            "insufficient_data_actions": [],
            **fields,
        }
        assert state in STATES, state
        self.alarms[id_] |= {"state": state, "state_reason": "Not evaluated yet", "state_timestamp": self.house.micro()}
        return id_

    def transition(self, id_: str, state: str, reason: str) -> None:
        """By the evaluator, which leaves `state_timestamp` as it was. Raises KeyError."""
        assert state in STATES, state
        self.alarms[id_] |= {"state": state, "state_reason": reason}

    # --- what it answers

    def discovery(self, path: str) -> Reply | None:
        if path.rstrip("/"):
            return None
        return Reply(
            {"versions": {"values": [{"id": "v2", "status": "stable", "links": [{"rel": "self", "href": f"{self.url}/v2"}]}]}}
        )

    def error(self, why: Refused) -> Reply:
        return Reply({"error_message": {"faultcode": "Client", "faultstring": str(why), "debuginfo": None}}, why.status)

    def routes(self) -> Iterable[tuple[str, str, Handler]]:
        return (("GET", r"/alarms", self._list),)

    def _list(self, ask: Ask) -> Reply:
        if ask.one("q.field") and not self.knows_all_projects:
            raise Refused(400, f"Invalid input for field/attribute q. Value: {ask.one('q.field')}")
        everybody = ask.who.admin and (not self.knows_all_projects or ask.one("q.value") == "true")
        mine: Mapping[str, Row] = {
            id_: row for id_, row in sorted(self.alarms.items()) if everybody or row["project_id"] == ask.who.project
        }
        after = ask.one("marker")
        if after and after not in mine:
            raise Refused(404, f"Alarm {after} not found")
        found = [row for id_, row in mine.items() if id_ > after]
        return Reply(found[: int(ask.one("limit") or 1000)])
