"""Gives each route an address in DNS: an A record of its host, by dynamic updates (RFC 2136) over TCP, signed with TSIG.

`[plugin_dns]`: `application_router_ip`, `dns_server` (none: the primary that the zone's SOA names, found by the resolvers of
`resolv_conf`), `dns_port`, `dns_key_file` (as BIND's tsig-keygen writes it), `message_log_level`.

ADDED puts the record in the place of what is there; DELETED takes out this router's address and leaves others; MODIFIED does both
when the host has changed, and takes the record out when the route is gone by now. Errors are raised, so that the call is made
again (clients/dns.py says which wait).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from vedette.clients.dns import Nameserver, Write, host_name, read_key_file
from vedette.clients.kubernetes import Kubernetes, static
from vedette.errors import ConfigError, GiveUp, NotFound
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret

TTL = 180
"""Seconds."""
GROUPED = "routes.route.openshift.io"
"""Where routes are served since OpenShift 3.6; before, a search finds them (`/oapi/v1`)."""


def handle_event(
    watcher: Any, event: Mapping[str, Any], config: Mapping[str, str], *args: Any, old: Any = None, **kwargs: Any
) -> tuple[str, str]:
    """(message, level)."""
    found, metadata = event["object"], event["object"]["metadata"]
    host, before = _host(found), _host(old)
    did = asyncio.run(_keep(watcher, event["type"], found, host, before if before != host else "", config))
    message = f"Kind: {found['kind']}; Name: {metadata['name']}; {did}"
    return message, config.get("message_log_level") or "INFO"


async def _keep(watcher: Any, verb: str, route: Any, host: str, before: str, config: Mapping[str, str]) -> str:
    """`before`: the host that it had and has no more."""
    if not host and not before:
        return "nothing to do"
    address = config.get("application_router_ip")
    if not address:
        raise ConfigError("is missing: the address that routes have in DNS", path="[plugin_dns] application_router_ip")
    nameserver = _nameserver(config)
    gone = verb == "DELETED" or (verb == "MODIFIED" and not await _is_there(watcher.config, route))
    did = []
    for name in (before, host if gone else ""):
        if name:
            await nameserver.remove(await nameserver.zone(name), name, "A", address)
            did.append(f"{name} A {address} removed")
    if host and not gone and (verb == "ADDED" or before):
        write = Write(name=host, type="A", values=(address,), ttl=TTL)
        await nameserver.write(await nameserver.zone(host), [write])
        did.append(f"{host} A {address}")
    return ", ".join(did) or "nothing to do"


def _nameserver(config: Mapping[str, str]) -> Nameserver:
    key_file = config.get("dns_key_file")
    return Nameserver(
        config.get("dns_server") or "",
        port=int(config.get("dns_port") or 53),
        key=read_key_file(key_file) if key_file else None,
        resolv_conf=config.get("resolv_conf") or "",
    )


def _host(route: Any) -> str:
    """ "": it has none."""
    spec = route.get("spec") if isinstance(route, dict) else None
    host = spec.get("host") if isinstance(spec, dict) else None
    if not isinstance(host, str) or not host:
        return ""
    if host.startswith("*"):
        raise GiveUp(f"{host} would be every free name of its zone: it gets no record")
    return host_name(host)


async def _is_there(config: Any, route: Mapping[str, Any]) -> bool:
    """Whether the route (this one, not another of its name) is there now."""
    metadata = route["metadata"]
    api = Kubernetes(static(config.k8s_endpoint, token=Secret(config.k8s_token), ca_file=config.k8s_ca), SystemClock())
    try:
        try:
            served = await api.resolve(GROUPED)
        except NotFound:
            served = await api.resolve("routes")
        try:
            now = await api.get(served, metadata.get("namespace", ""), metadata["name"])
        except NotFound:
            return False
    finally:
        await api.close()
    return bool(now["metadata"].get("uid") == metadata.get("uid"))
