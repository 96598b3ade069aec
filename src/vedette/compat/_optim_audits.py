"""Audits and templates of Watcher's API: from a request's body to a record, or to what is wrong with it.

(watcher/api/controllers/v1/audit.py and audit_template.py, release 17; texts are theirs where clients look at them.)
"""

from __future__ import annotations

import copy
import hashlib
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from jsonschema import Draft7Validator

from vedette.compat._optim_http import Item, fields_of, flag, mapping, patch_error, patch_of, patched, text
from vedette.engine.audit_times import check_interval
from vedette.engine.records import Records
from vedette.engine.scope import normal
from vedette.errors import BadRequest, Conflict, NotAcceptable, NotFound
from vedette.kit.clock import parse_us, rfc3339, rfc3339_us
from vedette.model import goals
from vedette.model.audit import AUDIT, Audit, AuditTemplate, GoalRecord, StrategyRecord

Version = tuple[int, int]

TYPES = ("ONESHOT", "CONTINUOUS", "EVENT")
LONGEST_NAME = 63
LONGEST_DESCRIPTION = 255
LARGEST_PARAMETERS = 256 * 1024
"""Bytes of JSON."""


def _interval(value: Any) -> bool:
    return (isinstance(value, str) and len(value) <= 100) or (isinstance(value, int) and not isinstance(value, bool))


_POSTED = {
    "name": text,
    "audit_template_uuid": text,
    "goal": text,
    "strategy": text,
    "audit_type": text,
    "state": text,
    "parameters": mapping,
    "interval": _interval,
    "scope": lambda value: isinstance(value, list | dict),
    "auto_trigger": flag,
    "hostname": text,
    "start_time": text,
    "end_time": text,
    "force": flag,
}
_READ_ONLY = ("state", "scope", "hostname")


def audit_of(body: Any, records: Records, version: Version, now: int) -> Audit:
    """The audit that a POST asks for. Raises BadRequest, NotAcceptable, Conflict, NotFound."""
    said = fields_of(body, _POSTED, required=("audit_type",))
    for name in _READ_ONLY:
        if said.get(name) not in (None, "", [], {}):
            raise BadRequest(f"Invalid input for field/attribute {name}. Cannot set read only field.")
    kind = said["audit_type"]
    if kind not in TYPES:
        raise BadRequest(f"Audit type {kind[:60]} could not be found")
    template_ident, goal_ident = said.get("audit_template_uuid", ""), said.get("goal", "")
    if not template_ident and not goal_ident:
        raise BadRequest("A valid goal or audit_template_id must be provided")
    if template_ident and goal_ident:
        raise BadRequest("Either audit_template_uuid or goal should be provided.")
    interval = None if said.get("interval") is None else str(said["interval"]).strip()
    start, end = said.get("start_time"), said.get("end_time")
    if kind == "ONESHOT" and interval is not None:
        raise BadRequest("Interval of audit must not be set for ONESHOT.")
    if kind == "CONTINUOUS" and interval is None:
        raise BadRequest("Interval of audit must be specified for CONTINUOUS.")
    if kind == "ONESHOT" and (start or end):
        raise BadRequest("Start or End time of audit must not be set for ONESHOT.")
    if version < (1, 1) and (start or end):
        raise NotAcceptable("Request not acceptable.")
    if version < (1, 2) and said.get("force") is not None:
        raise NotAcceptable("Request not acceptable.")
    if kind == "EVENT" and (interval is not None or start or end):
        # Watcher takes them and does nothing with them.
        raise BadRequest("Interval, start and end time of audit must not be set for EVENT: it runs when it is triggered.")
    if interval is not None:
        check_interval(interval)
    template = _template(records, template_ident) if template_ident else None
    goal = _found(records, GoalRecord, template.goal_uuid if template else goal_ident, "Goal")
    strategy_ident = said.get("strategy") or (template.strategy_uuid if template else None)
    strategy = _found(records, StrategyRecord, strategy_ident, "Strategy") if strategy_ident else None
    if strategy is not None and strategy.goal_uuid != goal.uuid:
        raise BadRequest(f"Strategy {strategy.name} does not serve the goal {goal.name}")
    given = {**(template.default_parameters if template else {}), **said.get("parameters", {})}
    return Audit(
        uuid=str(uuid.uuid4()),
        name=_name(records, said.get("name", ""), strategy or template or goal, now),
        audit_type=kind,
        goal_uuid=goal.uuid,
        goal_name=goal.name,
        strategy_uuid=strategy.uuid if strategy else None,
        strategy_name=strategy.name if strategy else None,
        parameters=parameters(strategy, given, "parameters") if strategy or given else _usual(records, goal),
        interval=interval,
        scope=template.scope if template else [],
        auto_trigger=said.get("auto_trigger", False),
        start_time=_time(start, "start_time"),
        end_time=_time(end, "end_time"),
        force=said.get("force", False),
    )


def _usual(records: Records, goal: GoalRecord) -> Item:
    """What the goal's default strategy takes when nobody says anything."""
    default = goals.BY_NAME[goal.name].default_strategy if goal.name in goals.BY_NAME else ""
    ident = records.named(StrategyRecord, default)
    if not ident:
        return {}
    return _with_defaults(records.get(StrategyRecord, ident).parameters_spec, {})


def _name(records: Records, given: str, after: StrategyRecord | AuditTemplate | GoalRecord, now: int) -> str:
    if len(given) > LONGEST_NAME:
        raise BadRequest(f"Invalid input for field/attribute name: at most {LONGEST_NAME} characters, not {len(given)}")
    if given:
        if records.named(Audit, given):
            raise Conflict(f"An audit with UUID or name {given} already exists")
        return given
    # One that is made up is never refused, whatever was made in the same moment.
    for number in range(1, 1000):
        name = f"{after.name}-{rfc3339_us(now)[:-1]}" + (f"-{number}" if number > 1 else "")
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
        if not records.named(Audit, name):
            return name
    raise Conflict("too many audits are made at the same moment: give them names")


def _time(value: str | None, name: str) -> str | None:
    if not value:
        return None
    moment = parse_us(value)
    if moment is None:
        raise BadRequest(f"Invalid input for field/attribute {name}. Value: '{value[:60]}'. not a time (ISO 8601)")
    return rfc3339(moment)


def _template(records: Records, ident: str) -> AuditTemplate:
    try:
        return records.find(AuditTemplate, ident)
    except NotFound:
        raise BadRequest("The audit template UUID or name specified is invalid") from None


def _found(records: Records, kind: Any, ident: str, what: str) -> Any:
    try:
        return records.find(kind, ident)
    except NotFound:
        raise BadRequest(f"{what} {ident[:60]} is invalid") from None


def parameters(strategy: StrategyRecord | None, given: Item, what: str) -> Item:
    """The parameters with the strategy's defaults. Raises BadRequest: no strategy, one that it doesn't have, a wrong value."""
    if strategy is None:
        raise BadRequest("Specify parameters but no predefined strategy for audit, or no parameter spec in predefined strategy")
    schema = strategy.parameters_spec
    if len(msgspec.json.encode(given)) > LARGEST_PARAMETERS:
        raise BadRequest(f"{what} have more than {LARGEST_PARAMETERS} bytes")
    strict = {"type": "object", "additionalProperties": False, **schema}
    problem = next(iter(sorted(Draft7Validator(strict).iter_errors(given), key=lambda one: str(one.absolute_path))), None)
    if problem is not None:
        place = ".".join(str(part) for part in problem.absolute_path)
        raise BadRequest(f"Invalid {what} for strategy: {place + ': ' if place else ''}{problem.message[:500]}")
    return _with_defaults(schema, given)


def _with_defaults(schema: Mapping[str, Any], given: Item) -> Item:
    properties = schema.get("properties", {})
    usual = {name: copy.deepcopy(one["default"]) for name, one in properties.items() if "default" in one}
    return {**usual, **given}


# --- changing one ----------------------------------------------------------------------------------------------------------

_FIXED = frozenset({"audit_template_uuid", "type", "audit_type"})
_OURS = frozenset({"runs", "skipped", "triggers", "status_message", "hostname", "next_run_time", "goal_name", "strategy_name"})


def changed(audit: Audit, body: Any, records: Records, version: Version) -> Audit:
    """The audit after a PATCH. Raises BadRequest, Conflict."""
    patch = patch_of(body, internal=_OURS, fixed=_FIXED)
    for one in patch:
        if one["path"] == "/state" and (one["op"] == "remove" or one.get("value") is None):
            raise BadRequest(patch_error(patch, "/state can't be updated."))
    document: Item = msgspec.to_builtins(audit)
    document["goal"], document["strategy"] = audit.goal_uuid, audit.strategy_uuid
    after = patched(document, patch)
    for name in ("name", "goal"):
        if not after.get(name):
            raise BadRequest(f"'/{name}' is a mandatory attribute and can not be removed")
    state = after["state"]
    if state != audit.state and not (isinstance(state, str) and state in AUDIT.get(audit.state, ())):
        raise BadRequest(patch_error(patch, f"State transition not allowed: ({audit.state} -> {str(state)[:40]})"))
    if state == "DELETED":
        raise BadRequest(patch_error(patch, "to delete an audit, use DELETE"))
    goal = _found(records, GoalRecord, str(after.pop("goal")), "Goal")
    strategy_ident = after.pop("strategy", None)
    strategy = _found(records, StrategyRecord, str(strategy_ident), "Strategy") if strategy_ident else None
    if strategy is not None and strategy.goal_uuid != goal.uuid:
        raise BadRequest(f"Strategy {strategy.name} does not serve the goal {goal.name}")
    interval = after.get("interval")
    after["interval"] = None if interval is None else str(interval).strip()
    if audit.audit_type == "CONTINUOUS" and after["interval"] is None:
        raise BadRequest("Interval of audit must be specified for CONTINUOUS.")
    if audit.audit_type != "CONTINUOUS" and after["interval"] is not None:
        raise BadRequest(f"Interval of audit must not be set for {audit.audit_type}.")
    if after["interval"] != audit.interval:
        if after["interval"] is not None:
            check_interval(after["interval"])
        after["next_run_time"] = None  # by the new interval, from now on
    for name in ("start_time", "end_time"):
        if after.get(name) != getattr(audit, name):
            if version < (1, 1):
                raise NotAcceptable("Request not acceptable.")
            if audit.audit_type != "CONTINUOUS":
                raise BadRequest(f"Start or End time of audit must not be set for {audit.audit_type}.")
            if after.get(name) is not None and not isinstance(after[name], str):
                raise BadRequest(f"Invalid input for field/attribute {name}.")
            after[name] = _time(after.get(name), name)
    name = after["name"]
    if not text(name) or not name or len(name) > LONGEST_NAME:
        raise BadRequest(f"Invalid input for field/attribute name: 1 to {LONGEST_NAME} characters")
    if records.named(Audit, name) not in ("", audit.uuid):
        raise Conflict(f"An audit with UUID or name {name} already exists")
    after["scope"] = normal(after.get("scope") or [])
    after.setdefault("parameters", {})
    if after["parameters"] != audit.parameters or (strategy.uuid if strategy else None) != audit.strategy_uuid:
        if not isinstance(after["parameters"], dict):
            raise BadRequest("Invalid input for field/attribute parameters.")
        if strategy is not None or after["parameters"]:
            after["parameters"] = parameters(strategy, after["parameters"], "parameters")
    after |= {
        "goal_uuid": goal.uuid,
        "goal_name": goal.name,
        "strategy_uuid": strategy.uuid if strategy else None,
        "strategy_name": strategy.name if strategy else None,
    }
    try:
        return msgspec.convert(after, Audit)
    except msgspec.ValidationError as why:
        raise BadRequest(patch_error(patch, str(why))) from None


# --- templates -------------------------------------------------------------------------------------------------------------

_TEMPLATE = {
    "name": text,
    "goal": text,
    "strategy": text,
    "description": text,
    "scope": lambda value: isinstance(value, list | dict),
    "default_parameters": mapping,
}


def template_of(body: Any, records: Records, version: Version) -> AuditTemplate:
    """The template that a POST asks for. Raises BadRequest, NotAcceptable, Conflict."""
    said = fields_of(body, _TEMPLATE, required=("name", "goal"))
    if version < (1, 7) and said.get("default_parameters"):
        raise NotAcceptable("Request not acceptable.")
    return _checked(AuditTemplate(uuid=str(uuid.uuid4()), name=said["name"], goal_uuid="", goal_name=""), said, records)


def template_changed(template: AuditTemplate, body: Any, records: Records, version: Version) -> AuditTemplate:
    """The template after a PATCH. Raises BadRequest, NotAcceptable, Conflict."""
    patch = patch_of(body, internal=frozenset({"goal_uuid", "goal_name", "strategy_uuid", "strategy_name"}))
    document: Item = {
        "name": template.name,
        "description": template.description,
        "goal": template.goal_uuid,
        "strategy": template.strategy_uuid,
        "scope": template.scope,
        "default_parameters": template.default_parameters,
    }
    touched = {one["path"].split("/")[1] for one in patch}
    if version < (1, 7) and "default_parameters" in touched:
        raise NotAcceptable("Request not acceptable.")
    if any(one["path"] == "/goal" and one["op"] == "remove" for one in patch):
        raise BadRequest("Cannot remove 'goal' attribute from an audit template")
    after = {name: value for name, value in patched(document, patch).items() if value is not None}
    for name in ("name", "goal"):
        if name not in after:
            raise BadRequest(f"'/{name}' is a mandatory attribute and can not be removed")
    said = fields_of(after, _TEMPLATE, required=("name", "goal"))
    moved = said["goal"] != template.goal_uuid or said.get("strategy") != template.strategy_uuid
    if moved and template.default_parameters and "default_parameters" not in touched:
        raise Conflict("goal or strategy can't be changed without default_parameters, which are for the present ones")
    return _checked(template, said, records)


def _checked(template: AuditTemplate, said: Item, records: Records) -> AuditTemplate:
    name = said["name"]
    if len(name) > LONGEST_NAME:
        raise BadRequest(f"Invalid input for field/attribute name: at most {LONGEST_NAME} characters, not {len(name)}")
    if records.named(AuditTemplate, name) not in ("", template.uuid):
        raise Conflict(f"An audit_template with UUID or name {name} already exists")
    description = said.get("description", "")
    if len(description) > LONGEST_DESCRIPTION:
        raise BadRequest(f"Invalid input for field/attribute description: at most {LONGEST_DESCRIPTION} characters")
    goal = _found(records, GoalRecord, said["goal"], "Goal")
    strategy = _found(records, StrategyRecord, said["strategy"], "Strategy") if said.get("strategy") else None
    if strategy is not None and strategy.goal_uuid != goal.uuid:
        choices = ", ".join(one.name for one in records.all(StrategyRecord) if one.goal_uuid == goal.uuid)
        raise BadRequest(f"'{strategy.name}' strategy does relate to the '{goal.name}' goal. Possible choices: {choices}")
    usual = said.get("default_parameters") or {}
    if usual:
        if strategy is None:
            raise BadRequest("default_parameters requires a strategy to be specified")
        parameters(strategy, usual, "default_parameters")
    return msgspec.structs.replace(
        template,
        name=name,
        description=description,
        goal_uuid=goal.uuid,
        goal_name=goal.name,
        strategy_uuid=strategy.uuid if strategy else None,
        strategy_name=strategy.name if strategy else None,
        scope=normal(said.get("scope") or []),
        default_parameters=usual,
    )
