"""Watcher's data model: one row for each server with its host, and one for each host that has none."""

from __future__ import annotations

from typing import Any

from vedette.model.snapshot import Host, Server, Snapshot


def rows(snapshot: Snapshot) -> list[dict[str, Any]]:
    """In the order of hosts and servers. (API reference of infra-optim, GET /v1/data_model.)"""
    found: list[dict[str, Any]] = []
    for host in snapshot.hosts:
        servers = snapshot.servers_on[host.hostname]
        found += [{**_server(server, host), **_host(host)} for server in servers] or [_host(host)]
    return found


def _host(host: Host) -> dict[str, Any]:
    return {
        "node_uuid": host.uuid,
        "node_hostname": host.hostname,
        "node_status": host.status,
        "node_disabled_reason": host.disabled_reason or None,
        "node_state": host.state,
        "node_memory": host.memory,
        "node_memory_mb_reserved": host.memory_reserved,
        "node_disk": host.disk,
        "node_disk_gb_reserved": host.disk_reserved,
        "node_vcpus": host.vcpus,
        "node_vcpu_reserved": host.vcpus_reserved,
        "node_memory_ratio": host.memory_ratio,
        "node_vcpu_ratio": host.vcpus_ratio,
        "node_disk_ratio": host.disk_ratio,
    }


def _server(server: Server, host: Host) -> dict[str, Any]:
    return {
        "server_uuid": server.uuid,
        "server_watcher_exclude": server.excluded,
        "server_name": server.name,
        "server_state": _STATES.get(server.status, server.status.lower()),
        "server_memory": server.memory,
        "server_disk": server.disk,
        "server_vcpus": server.vcpus,
        "server_metadata": server.metadata,
        "server_project_id": server.project,
        "server_locked": server.locked,
        "server_host": host.service_host,
        "server_hypervisor_hostname": host.hostname,
        "server_created": server.created,
        "server_pinned_az": server.pinned_zone,
        "server_flavor_extra_specs": server.extra_specs,
    }


_STATES = {"SHUTOFF": "stopped", "SHELVED_OFFLOADED": "shelved_offloaded", "BUILD": "building", "VERIFY_RESIZE": "resized"}
"""Where Nova's vm_state is called otherwise than the status; else it is the status in lower case."""
