"""Switches a machine of Ironic on or off.

It is not switched off while servers are on the host that it is. Ironic answers 202 and does it in its own time: what became of it
is read back.
https://docs.openstack.org/api-ref/baremetal/#change-node-power-state
"""

from __future__ import annotations

from vedette.actions._nova import COMPUTE, HOST, NAME, SETTLE_SECONDS
from vedette.actions._nova import MICROVERSION as NOVA
from vedette.errors import GiveUp, NotFound, Refused
from vedette.model.paths import segment
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

BAREMETAL = "baremetal"
MICROVERSION = "1.46"
_POWER = {"on": "power on", "off": "power off"}


async def _node(hands: Hands, id_: str) -> JsonObject | None:
    """None: it is gone."""
    try:
        return (await hands.cloud.get(BAREMETAL, f"/nodes/{segment(id_)}", microversion=MICROVERSION)).body
    except NotFound:
        return None


async def _the_node(hands: Hands, parameters: JsonObject) -> JsonObject:
    found = await _node(hands, parameters["resource_id"])
    if found is None:
        raise GiveUp(f"machine {parameters['resource_id']} is gone")
    return found


async def _has_servers(hands: Hands, node: JsonObject) -> bool:
    """The hypervisor that it is has any: that bears its name or its uuid. Each server's own word counts, not the filter alone."""
    for name in sorted({node.get("name"), node["uuid"]} - {None}):
        params = [("all_tenants", "1"), ("node", name)]
        async for page in hands.cloud.pages(COMPUTE, "/servers/detail", "servers", params, microversion=NOVA):
            if any(one.get(HOST) == name for one in page.items):
                return True
    return False


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    wanted = _POWER[parameters["state"]]
    found = await _node(hands, parameters["resource_id"])
    if found is None:
        return Skip(f"machine {parameters['resource_id']} is gone")
    if found.get("power_state") == wanted and not found.get("target_power_state"):
        return Skip(f"machine {found['uuid']} is {wanted} already")
    if found.get("maintenance"):
        raise GiveUp(f"machine {found['uuid']} is in maintenance: {found.get('maintenance_reason') or 'no reason given'}")
    await _empty(hands, parameters, found)
    return Ready({"power_state": found.get("power_state")})


async def _empty(hands: Hands, parameters: JsonObject, node: JsonObject) -> None:
    """Raises GiveUp: it would be switched off below servers."""
    if parameters["state"] == "off" and (node.get("instance_uuid") or await _has_servers(hands, node)):
        raise GiveUp(f"machine {node['uuid']} is not switched off: there are servers on it")


async def _switch(hands: Hands, parameters: JsonObject, wanted: str) -> None:
    """Ask for it, unless it is under way, and wait. Raises GiveUp."""
    found = await _the_node(hands, parameters)
    if found.get("power_state") != wanted and found.get("target_power_state") != wanted:
        path = f"/nodes/{segment(found['uuid'])}/states/power"
        try:
            await hands.cloud.send(
                "PUT", BAREMETAL, path, {"target": wanted}, microversion=MICROVERSION, request_id=hands.request_id
            )
        except Refused as why:
            raise GiveUp(str(why)) from None

    async def over() -> bool:
        now = await _the_node(hands, parameters)
        if now.get("target_power_state"):
            hands.say(f"{now.get('power_state')}, going to {now['target_power_state']}")
            return False
        if now.get("power_state") == wanted:
            return True
        raise GiveUp(
            f"Ironic left machine {now['uuid']} at {now.get('power_state')}: {now.get('last_error') or 'no reason given'}"
        )

    await hands.wait(over, SETTLE_SECONDS, f"machine {found['uuid']} to {wanted}")


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    # Servers may have come since it was checked.
    await _empty(hands, parameters, await _the_node(hands, parameters))
    await _switch(hands, parameters, _POWER[parameters["state"]])


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    found = await _the_node(hands, parameters)
    if found.get("power_state") != _POWER[parameters["state"]]:
        raise GiveUp(f"machine {found['uuid']} is {found.get('power_state')}")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    found = await _node(hands, parameters["resource_id"])
    if found is None:
        return "unsure"
    if found.get("target_power_state"):
        return "running"
    return "done" if found.get("power_state") == _POWER[parameters["state"]] else "undone"


async def _undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    wanted = _POWER["off" if parameters["state"] == "on" else "on"]
    if before.get("power_state") not in (None, wanted):
        return
    if wanted == _POWER["off"]:
        await _empty(hands, {**parameters, "state": "off"}, await _the_node(hands, parameters))
    await _switch(hands, parameters, wanted)


ACTION = Action(
    name="change_node_power_state",
    doc="Compute node power on/off.",
    schema={
        "type": "object",
        "properties": {
            "resource_id": {"type": "string", "minLength": 1},
            "resource_name": NAME,
            "state": {"type": "string", "enum": ["on", "off"]},
        },
        "required": ["resource_id", "state"],
        "additionalProperties": False,
    },
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    undo=_undo,
    resource="node",
)
