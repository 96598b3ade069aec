"""What the cloud's API shows and its notifications don't say, or say otherwise: each with its reason.

Whatever differs at the end of the lifecycle (test_1_notifications.py) is here, or it is a fault: a notification that was lost or
is misread. docs/realcloud.md prints the table. Where a reason can be seen in the difference itself, it is looked for: `when`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from comparing import Difference, How

NEUTRON = ("FloatingIP", "Network", "Port", "Router", "SecurityGroup", "Subnet")


class Seen(NamedTuple):
    """What else the log says that a reason may point to."""

    interfaces: frozenset[str] = frozenset()
    """Ports that were given to a router, or taken with an interface from one (`router.interface.*`)."""


class Reason(NamedTuple):
    """Why these fields differ; no fields: why whole objects do."""

    kinds: tuple[str, ...]
    fields: tuple[str, ...]
    how: tuple[How, ...]
    why: str
    when: Callable[[Difference, Seen], bool] = lambda _one, _seen: True
    seldom: bool = False
    """It depends on what happens when, or on others' use of the cloud: not in every run."""

    def explains(self, one: Difference, seen: Seen) -> bool:
        return (
            one.kind in self.kinds
            and (one.field in self.fields if self.fields else not one.field)
            and one.how in self.how
            and self.when(one, seen)
        )


def _later(one: Difference, _seen: Seen) -> bool:
    return bool(one.served < one.listed)


def _interface(one: Difference, seen: Seen) -> bool:
    return one.id in seen.interfaces


def _migrated(one: Difference, _seen: Seen) -> bool:
    return "migrating_to" in (one.status.get("binding:profile") or {})


def _only_drivers(one: Difference, _seen: Seen) -> bool:
    return {name: value for name, value in one.listed.items() if name != "bound_drivers"} == (one.served or {})


def _internal(one: Difference, _seen: Seen) -> bool:
    return str(one.status["device_owner"]).startswith("network:")


def _lost_some(one: Difference, _seen: Seen) -> bool:
    return _parts(one.listed) < _parts(one.served)


def _parts(value: Any) -> set[str]:
    """What a list or the lists of an object hold."""
    if isinstance(value, dict):
        return {part for items in value.values() for part in _parts(items)}
    return {str(item) for item in value}


def _never_built(one: Difference, _seen: Seen) -> bool:
    return one.status["OS-EXT-STS:vm_state"] == "error" and not one.status.get("OS-SRV-USG:launched_at")


REASONS = (
    # --- Neutron ---
    Reason(
        NEUTRON, ("revision_number", "updated_at"), ("said otherwise",),
        "Neutron counts on, silently, when it changes an object itself or another request changes what belongs to it (a port "
        "goes ACTIVE, a network gets a subnet, a router an interface).",
        _later,
    ),
    Reason(
        ("Port", "FloatingIP"), ("status",), ("said otherwise",),
        "Neutron announces no change of a status: an agent's word becomes ACTIVE or DOWN without a notification.",
    ),
    Reason(
        ("Port",), ("binding:host_id", "binding:profile", "binding:vif_details", "binding:vif_type", "resource_request"),
        ("never said",),
        "A notification shows what its caller may see. A tenant's has no binding; it comes with the first request of an admin or "
        "of Nova.",
    ),
    Reason(
        ("Network",), ("provider:network_type", "provider:physical_network", "provider:segmentation_id"), ("never said",),
        "As with bindings: a tenant's request announces no provider attributes.",
    ),
    Reason(
        ("Router",), ("distributed", "ha"), ("never said",),
        "As with bindings: a tenant's request doesn't announce them.",
    ),
    Reason(
        ("Port",), ("binding:vif_details",), ("said otherwise",),
        "The API adds `bound_drivers`; notifications don't have it.",
        _only_drivers,
    ),
    Reason(
        ("Port",), ("binding:host_id", "binding:profile", "binding:vif_details", "binding:vif_type"), ("said otherwise",),
        "The last step of a live migration switches the port to the other host without a port event.",
        _migrated,
    ),
    Reason(
        ("Port",), ("trunk_details",), ("never said",),
        "A trunk is announced as `trunk.*`, its parent port isn't.",
    ),
    Reason(
        ("Port",), (), ("not announced",),
        "Ports that Neutron makes for itself (gateways, router interfaces, floating IPs) have no port event.",
        _internal,
    ),
    Reason(
        ("Port",), ("device_id", "device_owner", "fixed_ips"), ("said otherwise",),
        "A port that is given to a router changes without a port event.",
        _interface,
    ),
    Reason(
        ("Port",), (), ("gone",),
        "A port that was given to a router goes with the interface: `router.interface.delete` is all that is said.",
        _interface,
        seldom=True,
    ),
    Reason(
        ("Network",), ("is_default",), ("said alone",),
        "Notifications say false for every network; the API has it for external ones only.",
        lambda one, _seen: one.served is False,
    ),
    Reason(
        ("SecurityGroup",), (), ("not announced",),
        "A project's group `default` is made silently, when something first needs it.",
        lambda one, _seen: one.status["name"] == "default",
    ),
    # --- Nova ---
    Reason(
        ("Hypervisor",), (), ("not announced",),
        "Nova has no notification about hypervisors.",
    ),
    Reason(
        ("ComputeService",), ("state", "updated_at"), ("never said", "said otherwise"),
        "Whether a service is alive is never announced; only that somebody declared it down.",
        seldom=True,
    ),
    Reason(
        ("Flavor",), ("access_project_ids",), ("said alone",),
        "The API shows it flavor by flavor, and not for public ones.",
        lambda one, _seen: one.served == [],
    ),
    Reason(
        ("Server",), ("addresses",), ("said otherwise",),
        "When a port is deleted under a server, Nova takes its address away and says nothing.",
        _lost_some,
    ),
    Reason(
        ("Server",), ("OS-EXT-SRV-ATTR:instance_name", "os-extended-volumes:volumes_attached", "trusted_image_certificates"),
        ("never said",),
        "A server that no host took is announced without what only `instance.create.end` has.",
        _never_built,
    ),
    Reason(
        ("Server",), ("fault",), ("said alone",),
        "A listing leaves the fault out for a server that no host took, and for one that was set to ERROR by hand; it is shown "
        "by GET of that server.",
        lambda one, _seen: one.status["status"] == "ERROR",
    ),
    Reason(
        ("Server",), ("progress",), ("said alone",),
        "The API shows it only in some states.",
        lambda one, _seen: one.served == 0,
    ),
    Reason(
        ("ServerGroup",), ("members",), ("said otherwise",),
        "A server that is deleted leaves its group without an event of the group.",
        _lost_some,
    ),
    # --- Placement ---
    Reason(
        ("ResourceProvider",), (), ("not announced",),
        "Placement has no notifications.",
    ),
    # --- Glance ---
    Reason(
        ("Image",), ("os_hash_algo", "os_hash_value", "os_hidden"), ("never said",),
        "They aren't in Glance's notifications.",
    ),
    # --- Octavia ---
    Reason(
        ("Listener", "Pool", "Member", "HealthMonitor"), (), ("not announced",),
        "Octavia announces load balancers only.",
    ),
    Reason(
        ("LoadBalancer",),
        (
            "additional_vips", "created_at", "flavor_id", "listeners", "operating_status", "pools", "provider",
            "provisioning_status", "tags", "tenant_id", "updated_at",
        ),
        ("never said",),
        "They aren't in Octavia's notifications.",
    ),
    Reason(
        ("LoadBalancer",), ("metadata.creationTimestamp",), ("said otherwise",),
        "Octavia announces a load balancer only when it went ACTIVE, and doesn't say when it was made.",
        lambda one, _seen: bool(one.served > one.listed),
    ),
    Reason(
        ("LoadBalancer",), ("description", "name"), ("said otherwise",),
        "An update is announced with the values from before it.",
    ),
    # --- Keystone ---
    Reason(
        ("Project",), ("description", "domain_id", "enabled", "is_domain", "name", "parent_id", "tags"), ("never said",),
        "Keystone's notifications carry the id alone.",
    ),
    Reason(
        ("User",), ("default_project_id", "description", "domain_id", "enabled", "name"), ("never said",),
        "Keystone's notifications carry the id alone.",
    ),
    # --- Heat ---
    Reason(
        ("Stack",), ("description",), ("said alone",),
        "Heat's list has an empty one for every stack.",
    ),
    # --- Cinder ---
    Reason(
        ("Volume",), ("bootable", "multiattach"), ("never said",),
        "They aren't in Cinder's notifications.",
    ),
    Reason(
        ("VolumeType",), (), ("not announced",),
        "What Cinder announces of types is not read: it lacks what they are for (`extra_specs`).",
    ),
    Reason(
        ("StoragePool",), (), ("not announced",),
        "Cinder announces capacities now and then, and says nothing when a pool appears.",
        seldom=True,
    ),
    Reason(
        ("StoragePool",),
        (
            "allocated_capacity_gb", "availability_zone", "driver_version", "free_capacity_gb", "max_over_subscription_ratio",
            "name", "provisioned_capacity_gb", "reserved_percentage", "service_state", "service_status", "storage_protocol",
            "total_capacity_gb", "vendor_name", "virtual_free", "volume_backend_name",
        ),
        ("never said", "said otherwise", "said alone"),
        "`capacity.pool` has the capacities alone, as of when it was sent.",
        seldom=True,
    ),
    Reason(
        ("Volume",), ("metadata",), ("said otherwise",),
        "The metadata calls of Cinder's API announce nothing.",
    ),
    Reason(
        ("Volume",), ("status",), ("said otherwise",),
        "An extension that fails is announced by its `.start` alone.",
        lambda one, _seen: one.listed == "error_extending",
    ),
)  # fmt: skip


def unexplained(found: Iterable[Difference], seen: Seen) -> list[Difference]:
    """Those without a reason."""
    return [one for one in found if not any(reason.explains(one, seen) for reason in REASONS)]


def used(found: Iterable[Difference], seen: Seen) -> dict[Reason, int]:
    """How many differences have each reason."""
    counts = dict.fromkeys(REASONS, 0)
    for one in found:
        for reason in REASONS:
            if reason.explains(one, seen):
                counts[reason] += 1
                break
    return counts


def table() -> str:
    """For docs/realcloud.md."""
    rows = ["| kind | field | notifications | why |", "|---|---|---|---|"]
    for reason in REASONS:
        fields = ", ".join(f"`{field}`" for field in reason.fields) or "(whole objects)"
        rows.append(f"| {', '.join(reason.kinds)} | {fields} | {', '.join(reason.how)} | {reason.why} |")
    return "\n".join(rows) + "\n"
