"""Kind by kind: recorded payloads, and older forms written by hand."""

from __future__ import annotations

import json
from typing import Any

import corpus
import pytest
from corpus import notice
from kinds_fold import Inventory, readings

from vedette.errors import NotUnderstood
from vedette.kinds._nova import STATUSES, status
from vedette.model.notice import Notice
from vedette.model.reading import Reading


def one(event_type: str, payload: Any, **more: Any) -> Reading:
    (reading,) = readings(notice(event_type, payload, **more))
    return reading


def recorded(event_type: str, containing: str = "") -> Notice:
    return next(item for item in corpus.every() if item.event_type == event_type and containing.encode() in bytes(item.payload))


def read(event_type: str, containing: str = "") -> Reading:
    (reading,) = readings(recorded(event_type, containing))
    return reading


# --- servers ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vm_state", "task_state", "shown"),
    [
        ("active", None, "ACTIVE"),
        ("active", "", "ACTIVE"),
        ("active", "spawning", "ACTIVE"),
        ("active", "reboot_started", "REBOOT"),
        ("active", "rebooting_hard", "HARD_REBOOT"),
        ("active", "updating_password", "PASSWORD"),
        ("active", "migrating", "MIGRATING"),
        ("paused", "migrating", "MIGRATING"),
        ("active", "resize_finish", "RESIZE"),
        ("stopped", "resize_prep", "RESIZE"),
        ("stopped", None, "SHUTOFF"),
        ("building", "networking", "BUILD"),
        ("resized", None, "VERIFY_RESIZE"),
        ("resized", "resize_reverting", "REVERT_RESIZE"),
        ("error", "rebuild_spawning", "REBUILD"),
        ("error", None, "ERROR"),
        ("rescued", None, "RESCUE"),
        ("suspended", None, "SUSPENDED"),
        ("soft-delete", None, "SOFT_DELETED"),
        ("shelved", None, "SHELVED"),
        ("shelved_offloaded", None, "SHELVED_OFFLOADED"),
        ("deleted", None, "DELETED"),
        ("new_in_2030", "x", "UNKNOWN"),
        (None, None, "UNKNOWN"),
    ],
)
def test_the_status_of_a_server_is_what_the_api_shows(vm_state: str | None, task_state: str | None, shown: str) -> None:
    assert status(vm_state, task_state) == shown
    assert all("" in tasks for tasks in STATUSES.values())


def test_a_server_goes_through_the_states_that_the_run_asked_for() -> None:
    """The actions in the capture's own log: rename, reboot, stop, suspend, pause, rescue, resize, rebuild, shelve, migrate."""
    (busiest,) = {
        json.loads(bytes(item.payload))["instance_id"]
        for item in corpus.notices("full-1")
        if item.event_type == "compute.instance.rescue.end"
    }
    inventory = Inventory()
    went_through: list[str] = []
    for item in corpus.notices("full-1"):
        inventory.tell(item)
        state = inventory.objects.get(("Server", busiest))
        if state is not None and went_through[-1:] != [state.fields["status"]]:
            went_through.append(state.fields["status"])
    assert went_through[0] == "BUILD"
    assert went_through[-1] == "DELETED"
    told = [
        "BUILD ACTIVE REBOOT ACTIVE HARD_REBOOT ACTIVE SHUTOFF ACTIVE SUSPENDED ACTIVE PAUSED ACTIVE RESCUE ACTIVE RESIZE",
        "VERIFY_RESIZE ACTIVE RESIZE VERIFY_RESIZE REVERT_RESIZE ACTIVE REBUILD",
        "SHELVED_OFFLOADED ACTIVE MIGRATING ACTIVE MIGRATING ACTIVE RESIZE VERIFY_RESIZE ACTIVE",
    ]
    rest = iter(went_through)
    missing = [step for line in told for step in line.split() if step not in rest]
    assert missing == [], went_through


def test_a_partial_server_keeps_the_rest() -> None:
    inventory = Inventory()
    inventory.tell(
        notice("compute.instance.update", {"instance_id": "s", "display_name": "n", "host": "h", "tenant_id": "p"}, sent_at=1)
    )
    inventory.tell(
        notice("compute.instance.update", {"instance_id": "s", "state": "active", "state_description": None}, sent_at=2)
    )
    assert inventory.fields("Server", "s")["name"] == "n"
    assert inventory.fields("Server", "s")["status"] == "ACTIVE"
    assert inventory.admin("Server", "s") == {"OS-EXT-SRV-ATTR:host": "h"}
    assert inventory.objects["Server", "s"].project == "p"


def test_a_failed_server_shows_its_fault_until_it_is_well() -> None:
    broken = {"instance_id": "s", "state": "error", "state_description": ""}
    for event, said in (
        ("compute.instance.create.error", {**broken, "message": "disk full\nTraceback", "code": 500, "exception": "X"}),
        (
            "instance.create.error",
            {
                "nova_object.data": {
                    "uuid": "s",
                    "state": "error",
                    "task_state": None,
                    "fault": {"nova_object.data": {"exception": "X", "exception_message": "disk full", "traceback": "…"}},
                }
            },
        ),
    ):
        inventory = Inventory([notice(event, said, sent_at=1)])
        assert inventory.fields("Server", "s")["status"] == "ERROR"
        assert inventory.fields("Server", "s")["fault"] == {"message": "disk full"}
        inventory.tell(notice("compute.instance.update", broken, sent_at=2))
        assert inventory.fields("Server", "s")["fault"] == {"message": "disk full"}
        inventory.tell(notice("compute.instance.update", {**broken, "state": "active"}, sent_at=3))
        assert inventory.fields("Server", "s")["fault"] is None


def test_volumes_come_and_go_on_a_server_in_both_formats() -> None:
    attached = "os-extended-volumes:volumes_attached"
    inventory = Inventory([notice("compute.instance.update", {"instance_id": "s", "state": "active"}, sent_at=1)])
    inventory.tell(notice("compute.instance.volume.attach", {"instance_id": "s", "volume_id": "v"}, sent_at=2))
    inventory.tell(notice("instance.volume_attach.end", {"nova_object.data": {"uuid": "s", "volume_id": "v"}}, sent_at=3))
    assert inventory.fields("Server", "s")[attached] == [{"id": "v"}]
    assert len(inventory.changes) == 2
    swap = {"nova_object.data": {"uuid": "s", "old_volume_id": "v", "new_volume_id": "w"}}
    inventory.tell(notice("instance.volume_swap.end", swap, sent_at=4))
    assert inventory.fields("Server", "s")[attached] == [{"id": "w"}]
    inventory.tell(notice("compute.instance.volume.detach", {"instance_id": "s", "volume_id": "w"}, sent_at=5))
    inventory.tell(notice("instance.volume_detach.end", {"nova_object.data": {"uuid": "s", "volume_id": "w"}}, sent_at=6))
    assert inventory.fields("Server", "s")[attached] == []


def test_a_server_that_boots_from_a_volume_has_no_image() -> None:
    assert one("compute.instance.update", {"instance_id": "s", "image_ref_url": "http://glance/images/"}).fields == {
        "image": None
    }
    assert one("instance.update", {"nova_object.data": {"uuid": "s", "image_uuid": ""}}).fields == {"image": None}


def test_a_deleted_server_shows_its_last_addresses() -> None:
    inventory = Inventory()
    last: dict[str, Any] = {}
    for item in corpus.notices("core-1"):
        inventory.tell(item)
        for (kind, id_), state in inventory.live().items():
            if kind == "Server" and state.fields.get("addresses"):
                last[id_] = state.fields["addresses"]
    assert last
    for id_, addresses in last.items():
        assert inventory.fields("Server", id_)["addresses"] == addresses


def test_metadata_in_the_form_of_old_novas() -> None:
    listed = {"instance_id": "s", "metadata": [{"key": "a", "value": "b"}]}
    assert one("compute.instance.update", listed).fields == {"metadata": {"a": "b"}}
    assert one("compute.instance.update", {"instance_id": "s", "metadata": []}).fields == {"metadata": {}}


# --- Neutron ---------------------------------------------------------------------------------------------------------------


def test_hosts_and_wiring_are_for_admins_and_the_vnic_type_is_not() -> None:
    reading = read("port.update.end", '"binding:host_id": "fake')
    assert set(reading.admin) >= {"binding:host_id", "binding:profile", "binding:vif_type", "binding:vif_details"}
    assert reading.fields["binding:vnic_type"] == "normal"
    assert "standard_attr_id" not in reading.fields
    (network,) = readings(recorded("network.delete.end", '"provider:network_type": "vxlan"'))
    assert set(network.admin) == {"provider:network_type", "provider:physical_network", "provider:segmentation_id"}


@pytest.mark.parametrize(
    ("said", "shared"),
    [
        ({"shared": True, "router:external": False}, True),
        ({"shared": False, "router:external": True}, True),
        ({"shared": False, "router:external": False}, False),
        ({"shared": False}, None),
        ({"router:external": True}, True),
        ({}, None),
    ],
)
def test_everybody_sees_a_shared_or_external_network(said: dict[str, Any], shared: bool | None) -> None:
    assert one("network.create.end", {"network": {"id": "n", **said}}).shared is shared


def test_a_network_knows_its_subnets() -> None:
    inventory = Inventory(
        [notice("network.create.end", {"network": {"id": "n", "subnets": [], "revision_number": 1}}, sent_at=1)]
    )
    for at, id_ in enumerate(("a", "b"), 2):
        inventory.tell(notice("subnet.create.end", {"subnet": {"id": id_, "network_id": "n"}}, sent_at=at))
    assert inventory.fields("Network", "n")["subnets"] == ["a", "b"]
    inventory.tell(notice("subnet.delete.end", {"subnet_id": "a", "subnet": {"id": "a", "network_id": "n"}}, sent_at=5))
    assert inventory.fields("Network", "n")["subnets"] == ["b"]
    assert inventory.fields("Network", "n")["revision_number"] == 1, "that is the network's own, a subnet's is another"
    inventory.tell(notice("subnet.delete.end", {"subnet_id": "b"}, sent_at=6))
    assert ("Subnet", "b") not in inventory.live()
    bulk = {"subnets": [{"id": "c", "network_id": "n"}, {"id": "d", "network_id": "elsewhere"}]}
    inventory.tell(notice("subnet.create.end", bulk, sent_at=7))
    assert "c" in inventory.fields("Network", "n")["subnets"]
    assert ("Network", "elsewhere") not in inventory.objects


def test_sharing_a_network_shares_its_subnets_and_unsharing_ends_both() -> None:
    inventory = Inventory(
        [
            notice("network.create.end", {"network": {"id": "n", "shared": False, "router:external": False}}, sent_at=1),
            notice("subnet.create.end", {"subnet": {"id": "s", "network_id": "n"}}, sent_at=2),
        ]
    )
    for at, shared in ((3, True), (4, False)):
        said = {"id": "n", "shared": shared, "router:external": False, "subnets": ["s", "unknown"]}
        inventory.tell(notice("network.update.end", {"network": said}, sent_at=at))
        assert inventory.objects["Network", "n"].shared is shared
        assert inventory.objects["Subnet", "s"].shared is shared
    assert ("Subnet", "unknown") not in inventory.objects


def test_a_network_that_is_deleted_takes_its_subnets_with_it() -> None:
    inventory = Inventory([notice("network.create.end", {"network": {"id": "n", "subnets": []}}, sent_at=1)])
    for at, id_ in enumerate(("a", "b"), 2):
        inventory.tell(notice("subnet.create.end", {"subnet": {"id": id_, "network_id": "n"}}, sent_at=at))
    inventory.tell(notice("network.delete.end", {"network": {"id": "n", "subnets": ["b"]}, "network_id": "n"}, sent_at=5))
    assert inventory.live().keys() == {("Subnet", "a")}
    assert [reading.kind for reading in readings(notice("network.delete.end", {"network_id": "n"}))] == ["Network"]


def test_an_rbac_policy_for_everybody_shares_a_network() -> None:
    inventory = Inventory(
        [notice("network.create.end", {"network": {"id": "n", "shared": False, "router:external": False}}, sent_at=1)]
    )
    policy = {"object_type": "network", "object_id": "n", "action": "access_as_shared", "target_tenant": "*"}
    inventory.tell(notice("rbac_policy.create.end", {"rbac_policy": policy}, sent_at=2))
    assert inventory.objects["Network", "n"].shared is True
    assert inventory.fields("Network", "n")["shared"] is True
    inventory.tell(notice("rbac_policy.delete.end", {"rbac_policy": policy, "rbac_policy_id": "x"}, sent_at=3))
    assert inventory.objects["Network", "n"].shared is False
    for other in ({"target_tenant": "p"}, {"object_type": "qos_policy"}, {"action": "access_as_other"}, {"object_id": None}):
        assert readings(notice("rbac_policy.create.end", {"rbac_policy": {**policy, **other}})) == []


def test_rules_change_their_group() -> None:
    inventory = Inventory(
        [
            notice(
                "security_group.create.end",
                {"security_group": {"id": "g", "security_group_rules": [{"id": "r0", "standard_attr_id": 7}]}},
                sent_at=1,
            )
        ]
    )
    assert inventory.fields("SecurityGroup", "g")["security_group_rules"] == [{"id": "r0"}]
    rule = {"id": "r1", "security_group_id": "g", "protocol": "tcp", "revision_number": 0}
    inventory.tell(notice("security_group_rule.create.end", {"security_group_rule": rule}, sent_at=2))
    assert [item["id"] for item in inventory.fields("SecurityGroup", "g")["security_group_rules"]] == ["r0", "r1"]
    inventory.tell(
        notice("security_group_rule.delete.end", {"security_group_rule_id": "r1", "security_group_rule": rule}, sent_at=3)
    )
    assert [item["id"] for item in inventory.fields("SecurityGroup", "g")["security_group_rules"]] == ["r0"]
    assert readings(notice("security_group_rule.delete.end", {"security_group_rule_id": "r1"})) == []
    bulk = {"security_group_rules": [rule, {**rule, "id": "r2"}]}
    inventory.tell(notice("security_group_rule.create.end", bulk, sent_at=4))
    assert len(inventory.fields("SecurityGroup", "g")["security_group_rules"]) == 3


def test_two_ipv6_subnets_on_one_router_port_come_and_go_one_by_one() -> None:
    inventory = Inventory([notice("router.create.end", {"router": {"id": "r"}}, sent_at=1)])
    for at, subnet in enumerate(("a", "b"), 2):
        said = {"id": "r", "port_id": "p", "network_id": "n", "subnet_id": subnet, "subnet_ids": [subnet]}
        inventory.tell(notice("router.interface.create", {"router_interface": said}, sent_at=at))
    inventory.tell(
        notice("router.interface.delete", {"router_interface": {**said, "subnet_id": "a", "subnet_ids": ["a"]}}, sent_at=4)
    )
    assert inventory.fields("Router", "r")["interfaces_info"] == [{"port_id": "p", "subnet_id": "b", "network_id": "n"}]
    old = {"router_interface": {"id": "r", "port_id": "p", "subnet_id": "b"}}
    inventory.tell(notice("router.interface.delete", old, sent_at=5))
    assert inventory.fields("Router", "r")["interfaces_info"] == []


def test_an_object_without_a_project_is_said_to_have_none() -> None:
    assert one("port.create.end", {"port": {"id": "p", "project_id": ""}}).project == ""
    assert one("port.create.end", {"port": {"id": "p", "tenant_id": "t"}}).project == "t"
    assert one("port.create.end", {"port": {"id": "p"}}).project is None


def test_a_deletion_is_later_than_any_revision() -> None:
    """Nova unbinds and deletes at once: the object in the delete may be older than the last update that was told."""
    inventory = Inventory([notice("port.update.end", {"port": {"id": "p", "revision_number": 9}}, sent_at=1)])
    inventory.tell(notice("port.delete.end", {"port_id": "p", "port": {"id": "p", "revision_number": 4}}, sent_at=2))
    assert not inventory.live()
    inventory.tell(notice("port.update.end", {"port": {"id": "p", "revision_number": 10}}, sent_at=3))
    assert not inventory.live()


# --- load balancing --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "resource", "said"),
    [
        ("LoadBalancer", "loadbalancer", {"vip_address": "192.0.2.1", "provisioning_status": "ACTIVE", "provider": "haproxy"}),
        ("Listener", "listener", {"protocol": "HTTP", "protocol_port": 80, "loadbalancers": [{"id": "lb"}]}),
        ("Pool", "pool", {"protocol": "HTTP", "lb_algorithm": "ROUND_ROBIN", "members": []}),
        ("Member", "member", {"address": "10.0.0.1", "protocol_port": 80, "weight": 1}),
        ("HealthMonitor", "healthmonitor", {"type": "HTTP", "delay": 5, "pools": [{"id": "pl"}]}),
        ("HealthMonitor", "health_monitor", {"type": "PING", "delay": 5, "timeout": 3, "max_retries": 2}),
    ],
)
def test_neutron_lbaas(kind: str, resource: str, said: dict[str, Any]) -> None:
    full = {"id": "x", "tenant_id": "p", "admin_state_up": True, "name": "n", **said}
    created = one(f"{resource}.create.end", {resource: full})
    assert (created.kind, created.verb, created.project) == (kind, "create", "p")
    assert said.items() <= created.fields.items()
    inventory = Inventory([notice(f"{resource}.create.end", {resource: full}, sent_at=1)])
    inventory.tell(notice(f"{resource}.update.end", {resource: {**full, "name": "m"}}, sent_at=2))
    inventory.tell(notice(f"{resource}.delete.start", {f"{resource}_id": "x"}, sent_at=3))
    assert inventory.fields(kind, "x")["name"] == "m"
    assert inventory.live()
    inventory.tell(notice(f"{resource}.delete.end", {f"{resource}_id": "x"}, sent_at=4))
    assert not inventory.live()


@pytest.mark.parametrize(
    ("kind", "resource", "said", "expected"),
    [
        ("LoadBalancer", "loadbalancer", {"vip_address": "192.0.2.1"}, {"vip_address": "192.0.2.1"}),
        (
            "Listener",
            "listener",
            {"loadbalancer_id": "lb", "protocol_port": 80},
            {"loadbalancers": [{"id": "lb"}], "protocol_port": 80},
        ),
        ("Pool", "pool", {"loadbalancer_id": "lb", "listener_id": None}, {"loadbalancers": [{"id": "lb"}]}),
        ("Member", "member", {"pool_id": "pl", "address": "10.0.0.1"}, {"pool_id": "pl", "address": "10.0.0.1"}),
        (
            "HealthMonitor",
            "healthmonitor",
            {"pool_id": "pl", "type": "HTTP", "http_version": 1.1},
            {"pools": [{"id": "pl"}], "type": "HTTP", "http_version": 1.1},
        ),
    ],
)
def test_the_flat_form_of_octavia_and_its_forks(kind: str, resource: str, said: dict[str, Any], expected: dict[str, Any]) -> None:
    payload = {f"{resource}_id": "x", "project_id": "p", **said}
    for verb in ("create", "delete"):
        reading = one(f"octavia.{resource}.{verb}.end", payload)
        assert (reading.kind, reading.id, reading.verb, reading.project) == (kind, "x", verb, "p")
        assert reading.fields == {"project_id": "p", **expected}
    assert readings(notice(f"octavia.{resource}.create.start", payload)) == []
    with pytest.raises(NotUnderstood):
        readings(notice(f"octavia.{resource}.create.end", {"project_id": "p"}))


# --- the other services ----------------------------------------------------------------------------------------------------


def test_a_volume_as_cinder_tells_it() -> None:
    reading = read("volume.attach.end")
    assert reading.admin == {"os-vol-host-attr:host": "ctl@fake#fake"}
    assert reading.fields["status"] == "in-use"
    (attachment,) = reading.fields["attachments"]
    assert attachment["server_id"]
    assert attachment["device"] == "/dev/sdb"
    assert attachment["attached_at"].endswith("Z")
    assert read("volume.detach.end").fields["attachments"] == []
    rows = {"volume_id": "v", "metadata": [{"key": "a", "value": "b", "volume_id": "v"}]}
    assert one("volume.update.end", rows).fields == {"metadata": {"a": "b"}}
    detaching = {"volume_id": "v", "volume_attachment": [{"id": "a", "attach_status": "detached", "instance_uuid": "s"}]}
    assert one("volume.update.end", detaching).fields == {"attachments": []}
    assert one("volume.create.error", {"volume_id": "v", "status": "error"}).fields == {"status": "error"}


def test_a_snapshot_as_cinder_tells_it() -> None:
    reading = read("snapshot.create.end")
    assert (reading.kind, reading.verb, reading.fields["status"], reading.fields["size"]) == (
        "Snapshot",
        "create",
        "available",
        1,
    )
    assert reading.project == reading.fields["os-extended-snapshot-attributes:project_id"]


def test_a_stack_as_heat_tells_it() -> None:
    inventory = Inventory()
    states: list[str] = []
    for item in corpus.notices("full-1"):
        inventory.tell(item)
        states += [
            state.fields["stack_status"]
            for (kind, _), state in inventory.objects.items()
            if kind == "Stack" and state.revision == inventory.revision
        ]
    assert states == [f"{action}_{how}" for action in ("CREATE", "UPDATE", "DELETE") for how in ("IN_PROGRESS", "COMPLETE")]
    failed = {"stack_identity": "st", "tenant_id": "p", "state": "CREATE_FAILED", "state_reason": "no quota"}
    inventory = Inventory([notice("orchestration.stack.create.start", {**failed, "state": "CREATE_IN_PROGRESS"}, sent_at=1)])
    inventory.tell(notice("orchestration.stack.create.error", failed, sent_at=2))
    assert inventory.fields("Stack", "st")["stack_status"] == "CREATE_FAILED"
    assert inventory.fields("Stack", "st")["stack_status_reason"] == "no quota"
    gone = {"stack_identity": "st", "state": "DELETE_FAILED"}
    inventory.tell(notice("orchestration.stack.delete.error", gone, sent_at=3))
    assert inventory.live(), "a deletion that failed deleted nothing"
    arn = {"stack_identity": "arn:openstack:heat::p:stacks/name/0c1", "created_at": "2014-01-01T00:00:00Z"}
    old = one("orchestration.stack.create.end", arn)
    assert (old.id, old.fields) == ("0c1", {"creation_time": "2014-01-01T00:00:00Z"})


@pytest.mark.parametrize(
    ("said", "shared", "visibility"),
    [
        ({"visibility": "public"}, True, "public"),
        ({"visibility": "community"}, True, "community"),
        ({"visibility": "shared", "is_public": False}, False, "shared"),
        ({"visibility": "private"}, False, "private"),
        ({"is_public": True}, True, "public"),
        ({"is_public": False}, False, "private"),
        ({}, None, None),
    ],
)
def test_who_sees_an_image(said: dict[str, Any], shared: bool | None, visibility: str | None) -> None:
    reading = one("image.update", {"id": "i", "owner": "p", **said})
    assert (reading.shared, reading.fields.get("visibility"), reading.project) == (shared, visibility, "p")
    assert "is_public" not in reading.fields


def test_an_image_from_creation_to_deletion() -> None:
    inventory = Inventory(corpus.notices("core-1"))
    went = [verb for _, kind, _, verb in inventory.changes if kind == "Image"]
    assert went.count("ADDED") == went.count("DELETED") == 3
    for (kind, _), state in inventory.objects.items():
        if kind == "Image":
            assert state.fields["status"] == "deleted"


def test_a_flavor_is_seen_by_everybody_when_public() -> None:
    reading = read("flavor.create")
    assert (reading.verb, reading.shared, reading.project) == ("create", True, "")
    assert reading.fields["ram"] == 256
    private = {"flavorid": "f", "is_public": False, "projects": ["p"], "extra_specs": {"a": "b"}}
    reading = one("flavor.update", {"nova_object.data": private})
    assert (reading.shared, reading.admin, reading.fields["extra_specs"]) == (False, {"access_project_ids": ["p"]}, {"a": "b"})


def test_a_flavor_may_come_back_under_its_id() -> None:
    said = {"nova_object.data": {"flavorid": "m1.tiny", "name": "m1.tiny"}}
    inventory = Inventory([notice("flavor.create", said, sent_at=1), notice("flavor.delete", said, sent_at=2)])
    assert not inventory.live()
    inventory.tell(notice("flavor.create", said, sent_at=3))
    assert set(inventory.live()) == {("Flavor", "m1.tiny")}


@pytest.mark.parametrize("unversioned", [True, False])
def test_an_aggregate_in_each_format_alone(unversioned: bool) -> None:
    inventory = Inventory()
    hosts: list[list[str]] = []
    for item in corpus.notices("core-1"):
        if item.event_type.startswith("aggregate.") and (b"nova_object" not in bytes(item.payload)) is unversioned:
            inventory.tell(item)
            if ("Aggregate", "1") in inventory.live():
                hosts.append(inventory.fields("Aggregate", "1")["hosts"])
    assert [state for at, state in enumerate(hosts) if hosts[at - 1 : at] != [state]] == [[], ["fake-1"], []]
    assert not inventory.live()


def test_a_server_group_in_each_format() -> None:
    old = {"server_group_id": "g", "name": "n", "policies": ["affinity"], "project_id": "p", "user_id": "u"}
    inventory = Inventory([notice("servergroup.create", old, sent_at=1)])
    assert inventory.fields("ServerGroup", "g")["policy"] == "affinity"
    inventory.tell(notice("servergroup.addmember", {"server_group_id": "g", "instance_uuids": ["a", "b"]}, sent_at=2))
    inventory.tell(notice("server_group.add_member", {"nova_object.data": {"uuid": "g", "members": ["a", "b"]}}, sent_at=3))
    assert inventory.fields("ServerGroup", "g")["members"] == ["a", "b"]
    assert [verb for *_, verb in inventory.changes] == ["ADDED", "MODIFIED"]
    recorded_twice = Inventory(
        [item for item in corpus.notices("full-1") if item.event_type.startswith(("servergroup", "server_group"))]
    )
    assert [verb for *_, verb in recorded_twice.changes] == ["ADDED", "DELETED"], "the two formats say the same"


def test_a_keypair_belongs_to_its_user_and_may_come_back() -> None:
    inventory = Inventory([item for item in corpus.notices("full-1") if item.event_type.startswith("keypair.")])
    ((at, state),) = inventory.objects.items()
    assert at[1] == f"{state.fields['user_id']}:{state.fields['name']}"
    assert (state.owner, state.project) == (state.fields["user_id"], "")
    assert state.fields["public_key"].startswith("ssh-rsa ")
    said = {"user_id": "u", "key_name": "k"}
    inventory = Inventory(
        [notice(f"keypair.{verb}.end", said, sent_at=at) for at, verb in enumerate(("create", "delete", "import"), 1)]
    )
    assert set(inventory.live()) == {("Keypair", "u:k")}


@pytest.mark.parametrize("kind", ["project", "user"])
def test_keystone_in_both_forms(kind: str) -> None:
    for said in (
        {"outcome": "success", "target": {"id": "x"}, "resource_info": "x"},
        {"resource_info": "x"},
        {"target": {"id": "x"}},
    ):
        created = one(f"identity.{kind}.created", said)
        assert (created.id, created.verb, created.fields) == ("x", "create", {})
        assert created.project == ("x" if kind == "project" else ""), "a project belongs to itself"
        assert one(f"identity.{kind}.disabled", said).fields == {"enabled": False}
        assert one(f"identity.{kind}.deleted", said).verb == "delete"
    with pytest.raises(NotUnderstood):
        readings(notice(f"identity.{kind}.created", {"outcome": "success"}))


def test_a_compute_service() -> None:
    said = {"uuid": "c", "host": "h", "binary": "nova-compute", "disabled": False, "forced_down": True, "availability_zone": None}
    reading = one("service.update", {"nova_object.data": said})
    assert reading.fields == {
        "binary": "nova-compute",
        "host": "h",
        "status": "enabled",
        "forced_down": True,
        "state": "down",
        "updated_at": None,
    }
    assert reading.project == ""
