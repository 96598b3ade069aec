"""mirrors/_wanted.py: names, places, states and bodies, without a front end."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vedette.mirrors import _wanted as wanted
from vedette.mirrors._wanted import Detail, Member, World
from vedette.testing.concertim import STATUSES

VM_STATES = (
    "active", "building", "paused", "suspended", "stopped", "rescued", "resized", "soft-delete", "deleted", "error", "shelved",
    "shelved_offloaded",
)  # fmt: skip
"""nova/compute/vm_states.py"""
TASK_STATES = (
    "scheduling", "block_device_mapping", "networking", "spawning", "image_snapshot", "image_snapshot_pending",
    "image_pending_upload", "image_uploading", "image_backup", "updating_password", "resize_prep", "resize_migrating",
    "resize_migrated", "resize_finish", "resize_reverting", "resize_confirming", "rebooting", "reboot_pending", "reboot_started",
    "rebooting_hard", "reboot_pending_hard", "reboot_started_hard", "pausing", "unpausing", "suspending", "resuming",
    "powering-off", "powering-on", "rescuing", "unrescuing", "rebuilding", "rebuild_block_device_mapping", "rebuild_spawning",
    "migrating", "deleting", "soft-deleting", "restoring", "shelving", "shelving_image_pending_upload",
    "shelving_image_uploading", "shelving_offloading", "unshelving",
)  # fmt: skip
"""nova/compute/task_states.py"""
VOLUME_STATES = (
    "creating", "available", "deleting", "error", "error_deleting", "error_managing", "managing", "attaching", "in-use",
    "detaching", "maintenance", "restoring-backup", "error_restoring", "reserved", "awaiting-transfer", "backing-up",
    "error_backing-up", "error_extending", "downloading", "uploading", "retyping", "extending", "error_managing_deleting",
)  # fmt: skip
"""cinder/objects/fields.py, VolumeStatus"""


def test_every_state_has_a_status_of_the_front_end() -> None:
    for vm_state in VM_STATES:
        for task in (None, "", *TASK_STATES):
            assert wanted.server_status(vm_state, task) in STATUSES["Instance"], (vm_state, task)
    for state in VOLUME_STATES:
        assert wanted.volume_status(state) in STATUSES["Volume"], state
    for state in ("ACTIVE", "BUILD", "DOWN", "ERROR"):
        assert wanted.network_status(state) in STATUSES["Network"]
    actions = ("CREATE", "DELETE", "UPDATE", "ROLLBACK", "SUSPEND", "RESUME", "ADOPT", "SNAPSHOT", "CHECK", "RESTORE", "INIT")
    for action in actions:
        for how in ("IN_PROGRESS", "FAILED", "COMPLETE"):
            assert wanted.stack_status(f"{action}_{how}") in STATUSES["rack"], (action, how)


@pytest.mark.parametrize(
    ("vm_state", "task", "status"),
    [
        ("active", None, "ACTIVE"),
        ("active", "image_uploading", "ACTIVE"),
        ("active", "powering-off", "IN_PROGRESS"),
        ("stopped", None, "STOPPED"),
        ("paused", None, "SUSPENDED"),
        ("suspended", None, "SUSPENDED"),
        ("error", None, "FAILED"),
        ("error", "deleting", "IN_PROGRESS"),
        ("shelved_offloaded", None, "STOPPED"),
        ("never heard of", None, None),
        ("active", "never heard of", None),
        (None, None, None),
    ],
)
def test_states_of_servers(vm_state: str | None, task: str | None, status: str | None) -> None:
    assert wanted.server_status(vm_state, task) == status


@pytest.mark.parametrize(
    ("stack", "status"),
    [
        ("CREATE_COMPLETE", "ACTIVE"),
        ("UPDATE_COMPLETE", "ACTIVE"),
        ("RESUME_IN_PROGRESS", "IN_PROGRESS"),
        ("SUSPEND_COMPLETE", "STOPPED"),
        ("DELETE_FAILED", "FAILED"),
        ("CHECK_FAILED", "FAILED"),
        ("ROLLBACK_COMPLETE", "ACTIVE"),
        ("DANCE_COMPLETE", None),
        ("", None),
    ],
)
def test_states_of_stacks(stack: str, status: str | None) -> None:
    assert wanted.stack_status(stack) == status


@given(st.text(max_size=300), st.text(min_size=1, max_size=60))
def test_names_are_what_the_front_end_takes(name: str, id_: str) -> None:
    for word in (wanted.rack_name(name), wanted.device_name(name)):
        (found,) = wanted.unique([(id_, word)]).values()
        assert re.fullmatch(r"[a-zA-Z0-9-]{1,150}", found)


@given(st.lists(st.sampled_from(("a", "b", "x" * 150, "")), max_size=30), st.sets(st.sampled_from(("a", "b")), max_size=2))
def test_names_are_unique(names: list[str], taken: set[str]) -> None:
    ids = [f"{number:08x}-4d4d" for number in range(len(names))]
    found = wanted.unique(zip(ids, names, strict=True), taken)
    assert len({*found.values(), *taken}) == len(names) + len(taken)
    assert all(0 < len(name) <= wanted.LONGEST_NAME for name in found.values())
    # Who is there first keeps the plain name.
    first = {name: id_ for id_, name in reversed(list(zip(ids, names, strict=True)))}
    for name, id_ in first.items():
        if name and name not in taken:
            assert found[id_] == name


@given(st.integers(1, 72), st.lists(st.integers(1, 6), max_size=40))
def test_nothing_overlaps(height: int, sizes: list[int]) -> None:
    occupied: list[tuple[int, int]] = []
    for size in sizes:
        start = wanted.slot(height, occupied, size)
        taken = {unit for low, many in occupied for unit in range(low, low + many)}
        if start is None:
            # There really is none.
            for low in range(1, height - size + 2):
                assert taken & set(range(low, low + size))
            continue
        units = set(range(start, start + size))
        assert not units & taken
        assert min(units) >= 1
        assert max(units) <= height
        occupied.append((start, size))


def test_places_are_taken_from_the_top() -> None:
    assert wanted.slot(42, [], 2) == 41
    assert wanted.slot(42, [(41, 2)], 1) == 40
    assert wanted.slot(3, [(1, 1), (3, 1)], 2) is None
    assert wanted.slot(3, [(0, 9)], 1) is None


def test_templates_have_heights_by_dialect() -> None:
    def heights(dialect: wanted.Dialect) -> list[int]:
        return [wanted.template({"id": "f", "vcpus": vcpus}, dialect)["height"] for vcpus in (0, 1, 2, 3, 4, 5, 8, 64)]

    assert heights("v1") == [1, 1, 2, 3, 3, 4, 4, 4]
    assert heights("v2") == [1, 1, 2, 2, 3, 3, 4, 4]


def test_a_device_in_both_dialects() -> None:
    world = World(
        servers={
            "s": {
                "id": "s",
                "name": "web",
                "OS-EXT-STS:vm_state": "active",
                "key_name": "k",
                "addresses": {"lan": [{"addr": "10.0.0.5"}, {"addr": "203.0.113.7", "OS-EXT-IPS:type": "floating"}]},
                "os-extended-volumes:volumes_attached": [{"id": "v"}],
            }
        },
        volumes={"v": {"id": "v", "name": "data", "size": 5}},
        details={"stack": Detail("CREATE_COMPLETE", "", members=(Member("Instance", "s"),))},
    )
    flat = {
        "public_ips": "lan:203.0.113.7",
        "private_ips": "lan:10.0.0.5",
        "ssh_key": "k",
        "volume_details": {"v": {"name": "data", "size": 5}},
        "login_user": "",
    }
    plain = {"name": "web", "description": "Server from Openstack", "status": "ACTIVE"}
    metadata = {"openstack_instance_id": "s", "net_interfaces": []}
    assert wanted.device(world, Member("Instance", "s"), "stack", "web", "v1") == {**plain, "metadata": metadata, **flat}
    assert wanted.device(world, Member("Instance", "s"), "stack", "web", "v2") == {
        **plain,
        "metadata": {**metadata, "openstack_stack_id": "stack"},
        "details": {"type": "Device::ComputeDetails", **flat},
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_odd_values_of_the_inventory_do_no_harm(odd: object) -> None:
    names = (
        "name", "description", "OS-EXT-STS:vm_state", "addresses", "key_name", "os-extended-volumes:volumes_attached", "flavor",
        "bootable", "size", "mtu", "status",
    )  # fmt: skip
    status = {"id": "x", **dict.fromkeys(names, odd)}
    world = World(servers={"x": status}, volumes={"x": status}, networks={"x": status})
    for type_ in wanted.KINDS:
        wanted.device(world, Member(type_, "x"), "stack", "x", "v2")
    wanted.flavor_of(status)
    wanted.template({"id": "x", "vcpus": odd, "ram": odd, "disk": odd, "name": odd}, "v2")
