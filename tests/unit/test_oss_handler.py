"""The OSS framework's handler: who is called for what, and with which detail."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oss_rig import (
    FIP,
    IMAGE,
    METADATA,
    OTHER,
    OTHER_PORT,
    PORT,
    SERVER,
    SOURCE,
    Rig,
    ToyCloud,
    deleted,
    floatingip,
    instance,
    key,
    port,
    versioned,
)

from vedette.errors import CloudUnavailable, Forbidden, GiveUp, TryLater, VedetteError
from vedette.handlers._oss_node import DetailOptions, detail, from_api, from_payload
from vedette.handlers.oss import GONE, Options, event_types, unversioned

sys.path.insert(0, str(Path(__file__).parents[1] / "captures"))
import corpus

SAMPLE = {
    "FQDN": "fake.hostname.com",
    "IP": "172.18.66.54",
    "IPType": "Public",
    "OS": "Ubuntu",
    "Storage": 80,
    "Ram": 8,
    "CPU": 2,
    "Datacenter": "KDC",
    "SecurityDomain": "DQT",
    "Owner": "some_owner",
    "AdditionalUsers": [],
    "ApplicationName": "Fake name",
    "EnvironmentCI": "Environment info",
    "Description": "Description of VM",
    "CreationDate": "2015-03-19",
}
"""The original's own example."""


def options(**more: Any) -> Options:
    return Options(plugin="rest_plugin.RESTNotify", detail=DetailOptions(domain="hostname.com"), **more)


# --- the detail ------------------------------------------------------------------------------------------------------------


async def test_the_detail_is_the_originals_own_example_field_for_field() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.create.end", instance())
    [(created, found)] = rig.calls
    assert created is True
    assert list(found.items()) == list(SAMPLE.items())
    assert {name: type(value) for name, value in found.items()} == {name: type(value) for name, value in SAMPLE.items()}


async def test_the_versioned_format_gives_the_same_detail() -> None:
    rig = Rig(options(), cloud=ToyCloud({("image", f"/images/{IMAGE}"): {"id": IMAGE, "os_distro": "Ubuntu"}}))
    await rig.tell("instance.create.end", versioned())
    assert rig.calls == [(True, SAMPLE)]


def test_what_nobody_says_is_empty_and_of_the_right_type() -> None:
    found = detail(from_payload({}), DetailOptions())
    empty = {**dict.fromkeys(SAMPLE, ""), "AdditionalUsers": [], "Storage": 0, "Ram": 0, "CPU": 0}
    assert found == {**empty, "IPType": "Public", "Datacenter": "KDC", "SecurityDomain": "DQT"}


@pytest.mark.parametrize(("mib", "gigabytes"), [(8192, 8), (512, 0.5), (1536, 1.5), (1000, 0.98), (0, 0)])
def test_memory_is_in_gigabytes_and_whole_where_it_can_be(mib: int, gigabytes: float) -> None:
    found = detail(from_payload(instance(memory_mb=mib)), DetailOptions())["Ram"]
    assert (found, type(found)) == (gigabytes, type(gigabytes))


def test_static_fields_and_names_of_keys_can_be_set() -> None:
    chosen = DetailOptions(
        iptype="Elastic",
        fixed_iptype="Private",
        datacenter="B",
        securitydomain="C",
        fqdn="dns",
        os=("flavour",),
        owner="contact",
        additionalusers="team",
        applicationname="app",
        environmentci="ci",
        description="about",
    )
    metadata = {"contact": "o", "team": "a, b,,c", "app": "x", "ci": "y", "about": "z", "DNS": "vm.example.org"}
    found = detail(from_payload(instance(metadata=metadata, image_meta={"flavour": "Debian"})), chosen)
    told = (
        "FQDN",
        "OS",
        "IPType",
        "Datacenter",
        "SecurityDomain",
        "Owner",
        "AdditionalUsers",
        "ApplicationName",
        "EnvironmentCI",
    )
    assert [found[name] for name in (*told, "Description")] == [
        *("vm.example.org", "Debian", "Private", "B", "C", "o", ["a", "b", "c"], "x", "y", "z")
    ]
    assert detail(from_payload(instance()), chosen, address="203.0.113.1")["IPType"] == "Elastic"


@pytest.mark.parametrize("name", ["AdditionalUsers", "additional_users", "additional-users", "ADDITIONALUSERS"])
def test_keys_of_metadata_are_known_in_any_spelling(name: str) -> None:
    assert detail(from_payload(instance(metadata={name: "a,b"})), DetailOptions())["AdditionalUsers"] == ["a", "b"]


def test_a_host_name_with_a_dot_is_whole_already() -> None:
    found = detail(from_payload(instance(hostname="vm.example.org")), DetailOptions(domain="hostname.com"))
    assert found["FQDN"] == "vm.example.org"


def test_a_floating_address_goes_before_fixed_ones_and_ipv4_before_ipv6() -> None:
    ips = [
        {"address": "fd00::5", "type": "fixed", "version": 6},
        {"address": "10.0.0.5", "type": "fixed", "version": 4, "floating_ips": [{"address": "203.0.113.9", "type": "floating"}]},
    ]
    assert detail(from_payload(instance(fixed_ips=ips)), DetailOptions())["IP"] == "203.0.113.9"
    assert detail(from_payload(instance(fixed_ips=ips[:1])), DetailOptions())["IP"] == "fd00::5"


def test_a_server_as_the_api_shows_it_gives_the_same_detail() -> None:
    shown = {
        "id": SERVER,
        "name": "another name",
        "OS-EXT-SRV-ATTR:hostname": "fake",
        "created": "2015-03-19T16:44:01Z",
        "flavor": {"original_name": "m1.big", "vcpus": 2, "ram": 8192, "disk": 60, "ephemeral": 20},
        "image": {"id": IMAGE},
        "addresses": {"net": [{"addr": "172.18.66.54", "version": 4, "OS-EXT-IPS:type": "fixed"}]},
        "metadata": METADATA,
    }
    node = msgspec.structs.replace(from_api(shown), properties={"os_distro": "Ubuntu"})
    assert detail(node, DetailOptions(domain="hostname.com")) == SAMPLE


# --- instances -------------------------------------------------------------------------------------------------------------


async def test_a_deletion_tells_of_the_same_node_as_the_creation_did() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.create.end", instance())
    await rig.tell("compute.instance.update", instance(display_name="renamed", metadata={}), to=False)
    await rig.tell("compute.instance.delete.end", deleted())
    assert rig.calls == [(True, SAMPLE), (False, SAMPLE)]
    assert f"node/{SERVER}" not in rig.memory


async def test_a_deletion_of_what_nobody_announced_is_told_from_the_inventory() -> None:
    rig = Rig(options(), cloud=ToyCloud({("image", f"/images/{IMAGE}"): {"id": IMAGE, "os_distro": "Ubuntu"}}))
    await rig.tell("compute.instance.create.end", instance(), to=False)
    await rig.tell("compute.instance.delete.end", deleted())
    assert rig.calls == [(False, SAMPLE)]


async def test_a_deletion_of_what_nobody_knows_is_told_from_its_notification() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.delete.end", deleted())
    [(created, found)] = rig.calls
    assert not created
    assert (found["FQDN"], found["Storage"], found["Ram"], found["IP"]) == ("fake.hostname.com", 80, 8, "")


@pytest.mark.parametrize("first", ["unversioned", "versioned"])
async def test_both_formats_of_one_fact_call_once(first: str) -> None:
    rig = Rig(options(), cloud=ToyCloud({}))
    for word, old, new in (("create", instance(), versioned()), ("delete", deleted(), versioned(state="deleted"))):
        both = [(f"compute.instance.{word}.end", old), (f"instance.{word}.end", new)]
        for event_type, payload in both if first == "unversioned" else reversed(both):
            await rig.tell(event_type, payload, request=f"req-{word}")
    assert [created for created, _ in rig.calls] == [True, False]


async def test_an_event_added_to_a_list_is_told_as_that_list_says() -> None:
    rig = Rig(options(events_creation=("compute.instance.resize.end",), events_deletion=("compute.instance.shelve.end",)))
    await rig.tell("compute.instance.resize.end", instance(), request="req-1")
    await rig.tell("instance.resize.end", versioned(), request="req-1")
    await rig.tell("compute.instance.resize.end", instance(vcpus=4), request="req-2")
    await rig.tell("compute.instance.shelve.end", instance(), request="req-3")
    await rig.tell("instance.shelve.end", versioned(), request="req-3")
    await rig.tell("compute.instance.create.end", instance())
    assert [(created, found["CPU"]) for created, found in rig.calls] == [(True, 2), (True, 4), (False, 4)]


async def test_what_a_resize_told_is_what_the_deletion_tells() -> None:
    rig = Rig(options(events_creation=("compute.instance.create.end", "compute.instance.finish_resize.end")))
    await rig.tell("compute.instance.create.end", instance(), request="req-1")
    await rig.tell("compute.instance.finish_resize.end", instance(vcpus=4), request="req-2")
    await rig.tell("instance.resize_finish.end", versioned(), request="req-2")
    await rig.tell("compute.instance.delete.end", deleted(), request="req-3")
    assert [(created, found["CPU"]) for created, found in rig.calls] == [(True, 2), (True, 4), (False, 4)]


async def test_a_call_that_failed_leaves_nothing_behind_and_is_made_again() -> None:
    rig = Rig(options())
    rig.process.failures = [TryLater("full"), TryLater("full")]
    with pytest.raises(TryLater):
        await rig.tell("compute.instance.create.end", instance())
    assert f"node/{SERVER}" not in rig.memory
    with pytest.raises(TryLater):
        await rig.tell("compute.instance.create.end", instance())
    await rig.tell("compute.instance.create.end", instance())
    rig.process.failures = [TryLater("full")]
    with pytest.raises(TryLater):
        await rig.tell("compute.instance.delete.end", deleted())
    await rig.tell("compute.instance.delete.end", deleted())
    assert rig.calls == [(True, SAMPLE), (False, SAMPLE)]


async def test_each_call_has_the_key_of_its_event() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.create.end", instance())
    assert rig.process.calls[0]["idempotency_key"] == f"plugin/{rig.store.head}"


async def test_a_creation_that_comes_after_the_deletion_calls_nobody() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.delete.end", deleted())
    with rig.nobody_is_called():
        await rig.tell("compute.instance.create.end", instance())


async def test_deleted_instances_are_known_up_to_a_limit() -> None:
    rig = Rig(options())
    for number in range(GONE + 5):
        rig.handler._gone[str(number)] = None
    await rig.tell("compute.instance.delete.end", deleted())
    assert len(rig.handler._gone) == GONE
    assert SERVER in rig.handler._gone


async def test_a_replay_calls_again_and_moves_only_what_still_holds() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.create.end", instance())
    await rig.tell("compute.instance.create.end", instance(), replay=True)
    await rig.tell("compute.instance.delete.end", deleted())
    await rig.handle(rig.notice("compute.instance.create.end", instance()), replay=True)
    assert [created for created, _ in rig.calls] == [True, True, False, True]
    assert f"node/{SERVER}" not in rig.memory


@pytest.mark.parametrize("payload", [b"[]", b"{}", b'{"instance_id": 7}', b'{"nova_object.data": {"uuid": null}}', b'"x"'])
async def test_a_notification_that_names_no_instance_goes_to_the_dead_letters(payload: bytes) -> None:
    with pytest.raises(GiveUp):
        await Rig(options()).tell("compute.instance.create.end", payload)


# --- what was missed -------------------------------------------------------------------------------------------------------


async def test_what_was_created_while_nobody_listened_is_told_once() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.create.end", instance())
    rig.restart()
    later = "2026-11-21T09:00:00Z"
    await rig.found(OTHER, "create", created=later)
    await rig.found(OTHER, "update", created=later)
    await rig.tell("compute.instance.create.end", instance(OTHER))
    assert [(created, found["CreationDate"]) for created, found in rig.calls] == [(True, "2015-03-19"), (True, "2026-11-21")]


async def test_what_was_there_before_the_handler_is_no_news_and_its_deletion_is() -> None:
    rig = Rig(options())
    with rig.nobody_is_called():
        await rig.found(SERVER, "create", created="2026-11-20T15:00:00Z")
        await rig.found(SERVER, "update", created="2026-11-20T15:00:00Z")
        await rig.found(OTHER, "create", created="2026-11-20T15:00:00Z")
    await rig.tell("compute.instance.delete.end", deleted())
    rig.restart()
    await rig.found(OTHER, "delete", created="2026-11-20T15:00:00Z")
    assert [(created, found["IP"]) for created, found in rig.calls] == [(False, "172.18.66.54")] * 2


async def test_what_was_deleted_while_nobody_listened_is_told_once() -> None:
    rig = Rig(options())
    await rig.tell("compute.instance.create.end", instance())
    rig.restart()
    await rig.found(SERVER, "delete")
    await rig.found(SERVER, "delete")
    await rig.found(OTHER, "delete")
    await rig.tell("compute.instance.delete.end", deleted())
    assert rig.calls == [(True, SAMPLE), (False, SAMPLE)]


async def test_a_server_that_is_being_built_is_told_of_when_it_is() -> None:
    rig = Rig(options())
    new = {"created": "2026-11-21T09:00:00Z"}
    with rig.nobody_is_called():
        await rig.found(SERVER, "create", status="BUILD", **{"OS-SRV-USG:launched_at": None}, **new)
        await rig.found(OTHER, "create", status="ERROR", **{"OS-SRV-USG:launched_at": None}, **new)
        await rig.found(OTHER, "update", status="SOFT_DELETED", **new)
    await rig.found(SERVER, "update", origin="verify", **new)
    assert [created for created, _ in rig.calls] == [True]


# --- floating IPs ----------------------------------------------------------------------------------------------------------


async def associated(rig: Rig) -> None:
    """An instance with a port is there; what it was told of is left aside."""
    await rig.tell("compute.instance.create.end", instance(), to=False)
    await rig.tell("port.create.end", port(), to=False)
    await rig.tell("floatingip.create.end", floatingip(None))


WITH_IMAGE = {("image", f"/images/{IMAGE}"): {"id": IMAGE, "os_distro": "Ubuntu"}}


async def test_an_association_comes_and_goes_with_the_same_detail_and_nothing_else_calls() -> None:
    rig = Rig(options(), cloud=ToyCloud(dict(WITH_IMAGE)))
    await associated(rig)
    await rig.tell("floatingip.update.end", floatingip())
    await rig.tell("floatingip.update.end", floatingip(description="new"))
    await rig.tell("floatingip.update.end", floatingip(fixed="172.18.66.55"))
    await rig.tell("floatingip.update.end", floatingip())
    await rig.tell("compute.instance.delete.end", deleted(), to=False)
    await rig.tell("floatingip.update.end", floatingip(None))
    await rig.tell("floatingip.update.end", floatingip(None, description="old"))
    await rig.tell("floatingip.delete.end", floatingip(None))
    expected = {**SAMPLE, "IP": "203.0.113.227"}
    assert rig.calls == [(True, expected), (False, expected)]
    assert f"fip/{FIP}" not in rig.memory


async def test_a_floating_ip_is_followed_across_a_restart() -> None:
    rig = Rig(options(), cloud=ToyCloud(dict(WITH_IMAGE)))
    await associated(rig)
    await rig.tell("floatingip.update.end", floatingip())
    rig.restart()
    await rig.tell("floatingip.update.end", floatingip(description="new"))
    rig.restart()
    await rig.tell("floatingip.update.resync", floatingip(None))
    assert [created for created, _ in rig.calls] == [True, False]


async def test_one_that_is_made_with_its_port_came_and_one_that_is_deleted_with_it_went() -> None:
    rig = Rig(options())
    await associated(rig)
    await rig.tell("floatingip.create.end", floatingip())
    await rig.tell("floatingip.delete.end", {"floatingip_id": FIP})
    assert [created for created, _ in rig.calls] == [True, False]
    assert f"fip/{FIP}" not in rig.memory


async def test_one_that_moves_left_the_first_and_came_to_the_second_with_two_keys() -> None:
    rig = Rig(options())
    await associated(rig)
    await rig.tell("compute.instance.create.end", instance(OTHER, hostname="other"), to=False)
    await rig.tell("port.create.end", port(OTHER_PORT, OTHER), to=False)
    await rig.tell("floatingip.update.end", floatingip())
    await rig.tell("floatingip.update.end", floatingip(OTHER_PORT))
    assert [(created, found["FQDN"]) for created, found in rig.calls] == [
        (True, "fake.hostname.com"),
        (False, "fake.hostname.com"),
        (True, "other.hostname.com"),
    ]
    keys = [call["idempotency_key"] for call in rig.process.calls]
    assert len(set(keys)) == 3


async def test_another_port_of_the_same_instance_is_no_news() -> None:
    rig = Rig(options())
    await associated(rig)
    await rig.tell("port.create.end", port(OTHER_PORT), to=False)
    await rig.tell("floatingip.update.end", floatingip())
    with rig.nobody_is_called():
        await rig.tell("floatingip.update.end", floatingip(OTHER_PORT))
    await rig.tell("floatingip.update.end", floatingip(None))
    assert rig.calls[0][1] == rig.calls[1][1]


@pytest.mark.parametrize("owner", ["network:router_interface", "Octavia", "", "network:ha_router_replicated_interface"])
async def test_one_of_a_router_or_a_load_balancer_is_no_node_and_counted(owner: str) -> None:
    rig = Rig(options(), cloud=ToyCloud({}))
    await rig.tell("port.create.end", port(device="lb-1" if owner else "", owner=owner), to=False)
    with rig.nobody_is_called():
        await rig.tell("floatingip.update.end", floatingip())
        await rig.tell("floatingip.update.end", floatingip(description="x"))
        await rig.tell("floatingip.update.end", floatingip(None))
    assert rig.ignored("the port is no instance's") == 2


async def test_a_port_that_was_given_to_an_instance_later_is_known_when_the_floating_ip_leaves() -> None:
    rig = Rig(options())
    await rig.tell("port.create.end", port(device="", owner=""), to=False)
    await rig.tell("floatingip.update.end", floatingip())
    await rig.tell("compute.instance.create.end", instance(), to=False)
    await rig.tell("port.update.end", port(), to=False)
    await rig.tell("floatingip.update.end", floatingip(None))
    assert [(created, found["IP"]) for created, found in rig.calls] == [(False, "203.0.113.227")]


async def test_an_association_that_failed_is_told_again_and_so_is_what_it_left() -> None:
    rig = Rig(options())
    await associated(rig)
    rig.process.failures = [TryLater("full")]
    with pytest.raises(TryLater):
        await rig.tell("floatingip.update.end", floatingip())
    await rig.tell("floatingip.update.end", floatingip())
    rig.process.failures = [TryLater("full")]
    with pytest.raises(TryLater):
        await rig.tell("floatingip.update.end", floatingip(None))
    await rig.tell("floatingip.update.end", floatingip(None))
    assert [created for created, _ in rig.calls] == [True, False]


async def test_an_association_that_was_there_before_is_no_news_and_its_end_is() -> None:
    cloud = ToyCloud({})
    rig = Rig(options(), cloud=cloud)
    await associated(rig)
    with rig.nobody_is_called():
        await rig.tell("floatingip.create.resync", floatingip(updated_at="2026-11-20T15:00:00Z"))
        await rig.tell("floatingip.update.end", floatingip(description="x", updated_at="2026-11-20T16:00:00Z"))
    assert cloud.asked == [], "a thousand of them at the first start ask nobody"
    await rig.tell("floatingip.update.end", floatingip(None))
    assert [(created, found["IP"]) for created, found in rig.calls] == [(False, "203.0.113.227")]


async def test_a_request_is_no_association_yet() -> None:
    rig = Rig(options())
    notice = rig.notice("floatingip.update.start", {"floatingip": {"port_id": PORT}, "id": FIP})
    with rig.nobody_is_called():
        assert await rig.handle(notice) == "nobody was called: it says nothing of the association"


async def test_a_list_without_floating_ips_calls_for_none() -> None:
    rig = Rig(options(events_creation=("compute.instance.create.end",), events_deletion=("compute.instance.delete.end",)))
    await associated(rig)
    with rig.nobody_is_called():
        await rig.tell("floatingip.update.end", floatingip())
        await rig.tell("floatingip.update.end", floatingip(None))
    only = Rig(options(events_creation=("floatingip.update.end",), events_deletion=()))
    await associated(only)
    await only.tell("floatingip.update.end", floatingip())
    await only.tell("floatingip.update.end", floatingip(None))
    assert [created for created, _ in only.calls] == [True]


async def test_a_replay_of_an_association_calls_again_and_moves_only_what_still_holds() -> None:
    rig = Rig(options())
    await associated(rig)
    await rig.tell("floatingip.update.end", floatingip())
    arrived = rig.memory[f"fip/{FIP}"]
    await rig.tell("floatingip.update.end", floatingip(), replay=True)
    await rig.tell("floatingip.update.end", floatingip(None))
    left = rig.memory[f"fip/{FIP}"]
    await rig.handle(rig.notice("floatingip.update.end", floatingip()), replay=True)
    assert [created for created, _ in rig.calls] == [True, True, False, True]
    await rig.handle(rig.notice("floatingip.update.end", floatingip(None)), replay=True)
    assert rig.calls[-1] == (False, rig.calls[0][1])
    assert arrived["port"] == PORT
    assert rig.memory[f"fip/{FIP}"] == left


# --- asking the cloud ------------------------------------------------------------------------------------------------------


async def test_what_the_inventory_lacks_is_asked_of_the_api() -> None:
    server = {
        "id": SERVER,
        "name": "fake",
        "created": "2015-03-19T16:44:01Z",
        "flavor": {"id": "3"},
        "image": {"id": IMAGE},
        "addresses": {},
        "metadata": METADATA,
    }
    cloud = ToyCloud(
        {
            ("network", f"/ports/{PORT}"): port(),
            ("compute", f"/servers/{SERVER}"): {"server": server},
            ("compute", "/flavors/3"): {"flavor": {"vcpus": 2, "ram": 8192, "disk": 60, "OS-FLV-EXT-DATA:ephemeral": 20}},
            **WITH_IMAGE,
        }
    )
    rig = Rig(options(), cloud=cloud)
    await rig.tell("floatingip.update.end", floatingip())
    assert rig.calls == [(True, {**SAMPLE, "IP": "203.0.113.227"})]
    assert len(cloud.asked) == 4


async def test_what_the_inventory_has_is_asked_of_nobody() -> None:
    cloud = ToyCloud({})
    rig = Rig(options(), cloud=cloud)
    await rig.tell("image.create", {"id": IMAGE, "name": "u", "properties": {"os_distro": "Ubuntu"}}, to=False)
    await rig.tell("compute.instance.create.end", instance(image_meta={}))
    await rig.tell("port.create.end", port(), to=False)
    await rig.tell("floatingip.update.end", floatingip())
    assert cloud.asked == []
    assert [found["OS"] for _, found in rig.calls] == ["Ubuntu", "Ubuntu"]


@pytest.mark.parametrize("error", [CloudUnavailable("down"), Forbidden("no")])
async def test_an_api_that_does_not_answer_is_waited_for(error: VedetteError) -> None:
    cloud = ToyCloud({("image", f"/images/{IMAGE}"): error})
    rig = Rig(options(), cloud=cloud)
    with pytest.raises(TryLater):
        await rig.tell("compute.instance.create.end", instance(image_meta={}))
    assert rig.calls == []
    cloud.answers.update(WITH_IMAGE)
    await rig.tell("compute.instance.create.end", instance(image_meta={}))
    assert rig.calls == [(True, SAMPLE)]


async def test_a_process_is_asked_for_with_the_plugin_and_its_settings() -> None:
    rig = Rig(Options(plugin="new_plugin.YourPlugin", conf="/etc/oss.conf", plugins_dir="/opt/plugins"))
    [code] = rig.codes
    assert code.module == "vedette.compat._oss_child"
    assert code.options == {"plugin": "new_plugin.YourPlugin", "conf": "/etc/oss.conf", "plugins_dir": "/opt/plugins"}
    await rig.handler.close()
    assert rig.process.closed


# --- other events ----------------------------------------------------------------------------------------------------------


async def test_any_other_event_can_be_listed_and_its_plugin_gets_what_it_says() -> None:
    rig = Rig(options(events_creation=("volume.create.end",), events_deletion=("volume.delete.end",)))
    await rig.tell("volume.create.end", {"volume_id": "v1"})
    await rig.tell("volume.delete.end", {"volume_id": "v1"})
    said = {"source": SOURCE, "payload": {"volume_id": "v1"}}
    assert rig.calls == [(True, {"type": "volume.create.end", **said}), (False, {"type": "volume.delete.end", **said})]


async def test_changes_of_objects_can_be_what_a_plugin_is_called_for() -> None:
    rig = Rig(options())
    notice = rig.notice("route.deleted", {})
    route = msgspec.Raw(b'{"kind":"Route","spec":{"host":"a"}}')
    await rig.handle(notice, verb="DELETED", key=key("Route", "ns/a"), raw_object=route)
    server = msgspec.Raw(b'{"kind":"Server","status":{"id":"s","name":"vm","image":null}}')
    await rig.handle(notice, verb="ADDED", key=key("Server", SERVER), raw_object=server)
    [(gone, first), (came, second)] = rig.calls
    assert (gone, first["kind"], first["object"]["spec"]) == (False, "Route", {"host": "a"})
    assert (came, second["FQDN"], list(second)) == (True, "vm.hostname.com", list(SAMPLE))


# --- lists -----------------------------------------------------------------------------------------------------------------


def test_both_formats_and_what_was_missed_are_listened_to() -> None:
    types = event_types(("compute.instance.create.end", "floatingip.update.end"), ("compute.instance.delete.end",))
    assert {"compute.instance.create.end", "instance.create.end", "instance.delete.end"} <= set(types)
    assert {"floatingip.create.end", "floatingip.delete.end", "floatingip.*.resync", "server.*.resync"} <= set(types)
    assert "server.*.resync" not in event_types(("volume.create.end",), ())


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("instance.create.end", "compute.instance.create.end"),
        ("instance.resize_finish.end", "compute.instance.finish_resize.end"),
        ("instance.volume_attach.end", "compute.instance.volume.attach.end"),
        ("instance.update", "compute.instance.update"),
    ],
)
def test_a_versioned_name_and_its_older_one_are_each_others(new: str, old: str) -> None:
    assert unversioned(new) == old
    assert new in event_types((old,), ())
    assert unversioned("volume.create.end") == "volume.create.end"


@pytest.mark.parametrize("plugin", ["RESTNotify", "../rest.X", "a b.C", "", "rest_plugin."])
def test_a_plugins_name_has_a_folder_and_a_class(plugin: str) -> None:
    with pytest.raises(ValueError, match="plugin"):
        Options(plugin=plugin)


def test_an_event_in_both_lists_must_say_which_it_is() -> None:
    with pytest.raises(ValueError, match="resize"):
        options(events_creation=("compute.instance.resize.end",), events_deletion=("instance.resize.end",))


# --- recorded clouds, and garbage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capture", corpus.CAPTURES)
async def test_recorded_clouds_call_once_for_each_that_came_and_went(capture: str) -> None:
    rig = Rig(options())
    for notice in corpus.notices(capture):
        await rig.offer(msgspec.structs.replace(notice, source=SOURCE))
    notices = corpus.notices(capture)

    def named(event_type: str) -> list[str]:
        return sorted({msgspec.json.decode(n.payload)["instance_id"] for n in notices if n.event_type == event_type})

    outcomes = {}
    for call in rig.process.calls:
        if set(call["node_detail"]) != set(SAMPLE):
            pytest.fail(f"other keys: {call['node_detail']}")
        outcomes[call["created"]] = outcomes.get(call["created"], 0) + 1
    floating = sum(n.event_type == "floatingip.update.end" for n in notices)
    came, went = len(named("compute.instance.create.end")), len(named("compute.instance.delete.end"))
    assert came <= outcomes[True] <= came + floating
    assert went <= outcomes[False] <= went + floating
    assert not [name for name in rig.memory if name.startswith("node/")]


garbage = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    which=st.sampled_from(sorted(instance())),
    inner=st.sampled_from(sorted(versioned()["nova_object.data"])),
    fip=st.sampled_from(sorted(floatingip()["floatingip"])),
    value=garbage,
)
async def test_garbage_is_told_or_given_up_and_never_worse(which: str, inner: str, fip: str, value: Any) -> None:
    rig = Rig(options())
    await rig.tell("port.create.end", port(), to=False)
    for event_type, payload in (
        ("compute.instance.create.end", instance(**{which: value})),
        ("instance.create.end", versioned(OTHER, **{inner: value})),
        ("compute.instance.create.end", value),
        ("floatingip.update.end", floatingip(**{fip: value})),
        ("floatingip.update.end", {"floatingip": value}),
        ("server.create.resync", {"server": value}),
        ("compute.instance.delete.end", instance(**{which: value})),
    ):
        try:
            await rig.tell(event_type, payload)
        except GiveUp:
            continue
    for call in rig.process.calls:
        assert list(call["node_detail"]) == list(SAMPLE)
        assert isinstance(call["node_detail"]["AdditionalUsers"], list)
