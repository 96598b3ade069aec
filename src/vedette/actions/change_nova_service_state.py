"""Enables or disables a host for new servers, by its nova-compute."""

from __future__ import annotations

from typing import Any

from vedette.actions._nova import COMPUTE, NAME
from vedette.errors import GiveUp, Refused
from vedette.ports import Action, Hands, JsonObject, Ready, Skip, Standing

MICROVERSION = "2.53"
"""Services have UUIDs."""

_WANTED = {"enabled": "enabled", "up": "enabled", "disabled": "disabled", "down": "disabled"}


async def _service(hands: Hands, parameters: JsonObject) -> JsonObject:
    """The nova-compute that is meant: by the host's name, else by the hypervisor's id or name. Raises GiveUp."""
    named = [parameters.get("resource_name"), parameters["resource_id"]]
    services: list[JsonObject] = []
    answer = await hands.cloud.get(COMPUTE, "/os-services", [("binary", "nova-compute")], microversion=MICROVERSION)
    services += answer.body["services"]
    for name in named:
        for one in services:
            if name and name in (one["host"], one["id"]):
                return one
    async for page in hands.cloud.pages(COMPUTE, "/os-hypervisors/detail", "hypervisors", microversion=MICROVERSION):
        for hypervisor in page.items:
            if any(name and name in (hypervisor["id"], hypervisor["hypervisor_hostname"]) for name in named):
                runs = hypervisor["service"]["host"]
                for one in services:
                    if one["host"] == runs:
                        return one
    raise GiveUp(f"there is no nova-compute on {named[0] or named[1]}")


async def _set(hands: Hands, service: JsonObject, status: str, reason: Any) -> None:
    body: JsonObject = {"status": status}
    if status == "disabled" and reason:
        body["disabled_reason"] = str(reason)[:255]
    try:
        await hands.cloud.send(
            "PUT", COMPUTE, f"/os-services/{service['id']}", body, microversion=MICROVERSION, request_id=hands.request_id
        )
    except Refused as why:
        raise GiveUp(str(why)) from None


def _is_so(service: JsonObject, parameters: JsonObject) -> bool:
    """As it is wanted; one that is disabled for another reason isn't: whoever disabled it may enable it again."""
    if service["status"] != _WANTED[parameters["state"]]:
        return False
    reason = parameters.get("disabled_reason")
    return service["status"] == "enabled" or not reason or service.get("disabled_reason") == reason


async def _check(hands: Hands, parameters: JsonObject) -> Ready | Skip:
    service = await _service(hands, parameters)
    if _is_so(service, parameters):
        return Skip(f"nova-compute on {service['host']} is {service['status']} already")
    return Ready({"id": service["id"], "status": service["status"], "disabled_reason": service.get("disabled_reason")})


async def _run(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    service = await _service(hands, parameters)
    if not _is_so(service, parameters):
        await _set(hands, service, _WANTED[parameters["state"]], parameters.get("disabled_reason"))


async def _verify(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    service = await _service(hands, parameters)
    if not _is_so(service, parameters):
        raise GiveUp(f"nova-compute on {service['host']} is {service['status']} ({service.get('disabled_reason')})")


async def _look(hands: Hands, parameters: JsonObject, before: JsonObject) -> Standing:
    service = await _service(hands, parameters)
    return "done" if _is_so(service, parameters) else "undone"


async def _undo(hands: Hands, parameters: JsonObject, before: JsonObject) -> None:
    service = await _service(hands, parameters)
    if (service["status"], service.get("disabled_reason")) != (before["status"], before.get("disabled_reason")):
        await _set(hands, service, before["status"], before.get("disabled_reason"))


ACTION = Action(
    name="change_nova_service_state",
    doc="Disables or enables the nova-compute service. A disabled nova-compute service can not be selected by the nova scheduler "
    "for future deployment of a server",
    schema={
        "type": "object",
        "properties": {
            "resource_id": {"type": "string", "minLength": 1},
            "resource_name": NAME,
            "state": {"type": "string", "enum": ["enabled", "disabled", "up", "down"]},
            "disabled_reason": {"type": ["string", "null"]},
        },
        "required": ["resource_id", "state"],
        "additionalProperties": False,
    },
    check=_check,
    run=_run,
    verify=_verify,
    look=_look,
    undo=_undo,
    resource="host",
)
