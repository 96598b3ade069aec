"""Security groups, from Neutron's `security_group.*.end`; rules also come and go with `security_group_rule.*.end`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from vedette.kinds._neutron import COMMON, OWNED, Resource, tags
from vedette.kinds._said import decoded
from vedette.model.notice import Notice
from vedette.model.reading import Part, Reading
from vedette.ports import Column, Field, Kind

FIELDS = {
    "name": Field("string", "Its name."),
    "description": Field("string", "Free text."),
    **OWNED,
    "security_group_rules": Field("array", "Its rules, whole."),
    "stateful": Field("boolean", "Whether replies are let through by themselves."),
    "shared": Field("boolean", "Whether it is shared with the one who asked."),
    "is_default": Field("boolean", "Whether it is its project's default group."),
    "tags": Field("array", "Its tags."),
    **COMMON,
}


class _RuleNotice(msgspec.Struct, gc=False):
    security_group_rule: dict[str, Any] | UnsetType = UNSET
    security_group_rules: list[dict[str, Any]] | UnsetType = UNSET


_rule_notice = msgspec.json.Decoder(_RuleNotice)


def _tidy(public: dict[str, Any]) -> None:
    rules = public.get("security_group_rules")
    if rules:
        public["security_group_rules"] = [_rule(rule) for rule in rules if isinstance(rule, dict)]


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Without what only a group's own list has, and a rule's own notification not: the database's id, and tags."""
    return {name: value for name, value in rule.items() if name not in ("standard_attr_id", "tags")}


def _rules(notice: Notice) -> Iterable[Reading]:
    """Rules as parts of their group. A delete that names only the rule (before Newton) can't be placed."""
    if notice.event_type not in ("security_group_rule.create.end", "security_group_rule.delete.end"):
        return ()
    said: _RuleNotice = decoded(_rule_notice.decode, notice.payload, notice.event_type)
    one, many = said.security_group_rule, said.security_group_rules
    there = notice.event_type == "security_group_rule.create.end"
    readings = []
    for rule in [one] if one is not UNSET else many if many is not UNSET else []:
        id_, group = rule.get("id"), rule.get("security_group_id")
        if isinstance(id_, str) and isinstance(group, str) and id_ and group:
            part = Part("security_group_rules", "id", id_, _rule(rule) if there else None)
            readings.append(
                Reading(
                    kind="SecurityGroup",
                    id=group,
                    verb="update",
                    as_of=notice.sent_at,
                    parts=(part,),
                    only_known=True,
                )
            )
    return readings


SECURITYGROUP = Resource(
    "SecurityGroup",
    "security_group",
    FIELDS,
    path="/security-groups",
    tidy=_tidy,
    unordered=("security_group_rules", "tags"),
)

KIND = Kind(
    kind="SecurityGroup",
    plural="securitygroups",
    singular="securitygroup",
    short_names=("sg",),
    doc="A Neutron security group: a named set of firewall rules.",
    events=("security_group.*.end", "security_group_rule.*.end", "tag.*.end"),
    read=SECURITYGROUP.reader(more={"tag": tags("SecurityGroup", "security_groups"), "security_group_rule": _rules}),
    api=SECURITYGROUP.api(),
    fields=FIELDS,
    columns=(
        Column("Group-Name", ("name",)),
        Column("Description", ("description",)),
        Column("Stateful", ("stateful",), "boolean", priority=1),
    ),
)
