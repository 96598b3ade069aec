"""`vedette doctor` against a real RabbitMQ in the states that operators find it in, a Keystone, and the service running or not.

Each test makes one thing wrong and looks for the one finding that says so, with its fix.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pika
import pytest
import yaml
from cli_processes import free_port, port_created, run, running

from vedette import plugins
from vedette.cli.diagnose_broker import check_broker
from vedette.cli.diagnose_cloud import check_cloud
from vedette.cli.finding import Asked, Broker
from vedette.clients.vedette import VedetteClient
from vedette.config import load
from vedette.kit.clock import SystemClock
from vedette.testing.cloud import Announcement, FakeCloud
from vedette.testing.keystone import FakeKeystone
from vedette.testing.rabbit import Publisher, Rabbit, RabbitMissing, free_ports
from vedette.testing.tls import Authority

Findings = list[dict[str, str]]


class Patient:
    """A configuration, and what the doctor says of it."""

    def __init__(self, folder: Path, source: dict[str, Any] | None = None, **more: Any) -> None:
        self.path = folder / "vedette.yaml"
        self.port = free_port()
        recording = folder / "recording.jsonl"
        recording.write_text(port_created("a", 1))
        replay = {"name": "one", "type": "replay", "path": str(recording)}
        self.settings = {
            "listen": f"127.0.0.1:{self.port}", "data_dir": str(folder / "data"), "sources": [source or replay],
            "retention": {"max_bytes": "1MiB"}, "watch": {"max_watchers": 100}, **more,
        }  # fmt: skip
        self.path.write_text(yaml.safe_dump(self.settings))

    async def examined(self, *words: str, **environ: str) -> tuple[int, Findings]:
        code, out, err = await run("doctor", "--config", str(self.path), "-o", "json", *words, **environ)
        assert err == ""
        return code, [json.loads(line) for line in out.splitlines()]


def the(findings: Findings, text: str) -> dict[str, str]:
    """The one finding whose message has this text."""
    found = [one for one in findings if text in one["message"]]
    assert len(found) == 1, f"{text!r} in: {json.dumps(findings, indent=1)}"
    return found[0]


def source(node: Rabbit, **more: Any) -> dict[str, Any]:
    """An openstack source with names of its own, so that tests that share a node don't meet."""
    url = more.pop("amqp", node.url)
    return {"name": "one", "type": "openstack", "amqp": url, "queue": {"name": "vedette"}, **more}


def message(
    event_type: str = "port.create.end", publisher: str = "network.ctl", seconds: float = 0.0, *, bare: bool = False
) -> bytes:
    sent = datetime.now(UTC) + timedelta(seconds=seconds)
    inner = {
        "message_id": f"m{time.monotonic_ns()}", "publisher_id": publisher, "event_type": event_type, "priority": "INFO",
        "timestamp": sent.strftime("%Y-%m-%d %H:%M:%S.%f"), "payload": {"port": {"id": "p", "project_id": "x"}},
    }  # fmt: skip
    return json.dumps(inner if bare else {"oslo.version": "2.0", "oslo.message": json.dumps(inner)}).encode()


# --- no broker needed ------------------------------------------------------------------------------------------------------


async def test_a_well_set_up_machine_has_no_failure(tmp_path: Path) -> None:
    code, findings = await Patient(tmp_path).examined()
    assert code == 0
    assert {one["level"] for one in findings} == {"ok", "note"}
    assert the(findings, "nothing answers at")["level"] == "note"


async def test_a_configuration_that_is_wrong_is_a_finding_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "v.yaml"
    path.write_text("sources: []\n")
    code, out, _ = await run("doctor", "-c", str(path))
    assert code == 1
    assert out.startswith("fail  configuration: ")
    assert f"→ vedette check-config {path}" in out


async def test_the_disk_the_folder_the_open_files_and_the_certificate(tmp_path: Path) -> None:
    pair = Authority(tmp_path / "tls").server(days=-2)
    tls = {"cert": str(pair.cert), "key": str(pair.key)}
    patient = Patient(tmp_path, retention={"max_bytes": "900TiB"}, watch={"max_watchers": 10_000_000}, tls=tls)
    code, findings = await patient.examined()
    assert code == 1
    disk = the(findings, "the disk is full before the oldest entries go")
    assert disk["level"] == "warn"
    assert "set retention.max_bytes to" in disk["fix"]
    files = the(findings, "watch.max_watchers is 10000000")
    assert files["fix"].startswith("LimitNOFILE=10000100 in the systemd unit")
    assert the(findings, "ended at")["level"] == "fail"
    (tmp_path / "file").write_text("")
    code, findings = await Patient(tmp_path, data_dir=str(tmp_path / "file" / "data")).examined()
    assert the(findings, "is not writable")["about"] == "data_dir"


async def test_who_holds_the_folder_and_what_the_running_service_says(tmp_path: Path) -> None:
    patient = Patient(tmp_path)
    async with running("serve", "--config", str(patient.path)) as serving:
        await serving.said("listening")
        environ = {"VEDETTE_URL": f"http://127.0.0.1:{patient.port}"}
        async with running("watch", "port", "-o", "name", **environ) as watching:
            await watching.line_with("port.openstack")
        code, findings = await patient.examined()
    assert code == 0
    assert the(findings, "running: pid ")["level"] == "ok"
    assert the(findings, "the service may open")["level"] == "ok"
    assert the(findings, "answers at http://127.0.0.1:")["level"] == "ok"
    assert the(findings, "1 entries, 1 objects")["about"] == "log"
    # Nobody holds it once it has ended, though the file is there.
    code, findings = await patient.examined()
    assert the(findings, "nobody holds")["level"] == "note"


@pytest.fixture
async def cloud() -> AsyncIterator[FakeCloud]:
    async with FakeCloud(SystemClock()) as one:
        yield one


def looking_at(cloud: FakeCloud, user: str = "admin", **more: Any) -> dict[str, Any]:
    """A source with an API; its broker is not there."""
    api = {**cloud.credentials(user), **more}
    return {"name": "one", "type": "openstack", "amqp": "amqp://me:secret1@127.0.0.1:1/", "api": api}


def of_the_api(findings: Findings) -> Findings:
    return [one for one in findings if one["about"] == "API of one"]


def levels(findings: Findings) -> set[str]:
    return {one["level"] for one in findings}


async def test_an_account_that_sees_everything(tmp_path: Path, cloud: FakeCloud) -> None:
    _, findings = await Patient(tmp_path, looking_at(cloud)).examined()
    found = of_the_api(findings)
    assert levels(found) == {"ok", "note"}
    assert the(found, "admin in project admin has the roles")["message"].startswith(f"{cloud.identity.url}: ")
    assert the(found, "network: ")["message"] == f"network: {cloud.network.url}/v2.0"
    assert re.search(r"compute: .*, microversions 2\.1 to 2\.\d+", the(found, "compute: ")["message"])
    everything = the(found, "sees every project's objects: ")["message"].partition(": ")[2].split(", ")
    listed = [kind for kind in plugins.kinds() if kind.api is not None]
    assert everything == sorted(kind.singular for kind in listed if kind.api and kind.api.service != "baremetal")
    assert "Not compared: baremetalnode" in the(found, "the catalog has no baremetal")["message"]
    assert "vedette doctor --try-port" in the(found, "was not tried")["fix"]
    assert the(findings, "the APIs' clocks agree")["level"] == "ok"
    # It looked, and that was all.
    assert cloud.count(method="POST") == cloud.count("identity", "/auth/tokens", method="POST")
    assert cloud.count(method="DELETE") == cloud.count(method="PUT") == 0


async def test_an_account_that_does_not(tmp_path: Path, cloud: FakeCloud) -> None:
    _, findings = await Patient(tmp_path, looking_at(cloud, "demo")).examined()
    found = of_the_api(findings)
    refused = the(found, "the account may not list them")
    assert refused["message"].startswith("aggregate, computeservice, hypervisor, project, server, storagepool, user: ")
    partly = the(found, "nothing is taken for deleted on its word")
    assert {refused["level"], partly["level"]} == {"warn"}
    assert ", port, " in partly["message"]
    user, project = cloud.user_id("demo"), cloud.project_id("demo")
    for one in (refused, partly):
        assert one["fix"].splitlines()[0] == f"openstack role add --user {user} --project {project} admin"
    assert not any("sees every project's objects: " in one["message"] for one in found)


async def test_credentials_that_are_wrong_and_a_keystone_that_is_down(tmp_path: Path, cloud: FakeCloud) -> None:
    patient = Patient(tmp_path, looking_at(cloud, password="a-guess"))
    code, findings = await patient.examined()
    refused = the(findings, "refused our credentials")
    assert (code, refused["level"]) == (1, "fail")
    assert f"--os-auth-url {cloud.identity.url} --os-username admin token issue" in refused["fix"]
    assert cloud.identity.logins == 1, "Keystone locks accounts that fail too often"
    await cloud.stop()
    _, findings = await patient.examined()
    assert the(of_the_api(findings), "Connection refused")["fix"] == f"curl -i {cloud.identity.url}"
    assert "a-guess" not in json.dumps(findings)


async def test_services_that_are_out_of_order_or_not_there(tmp_path: Path, cloud: FakeCloud) -> None:
    cloud.load_balancer.in_catalog = False
    await cloud.orchestration.stop()
    cloud.image.fail(400, "/images")
    _, findings = await Patient(tmp_path, looking_at(cloud)).examined()
    found = of_the_api(findings)
    absent = the(found, "the catalog has no load-balancer")
    assert absent["level"] == "note"
    assert "Not compared: healthmonitor, listener, loadbalancer, member, pool" in absent["message"]
    down = the(found, "Not compared: stack")
    assert down["level"] == "fail"
    assert "Connection refused" in down["message"]
    assert the(found, "image can't be listed: image answered 400")["level"] == "warn"
    assert the(found, "sees every project's objects: ")["level"] == "ok", "the others are well all the same"


async def test_a_region_in_which_there_is_nothing(tmp_path: Path, cloud: FakeCloud) -> None:
    _, findings = await Patient(tmp_path, looking_at(cloud, region_name="Atlantis")).examined()
    nothing = the(of_the_api(findings), "Nor is there any other service: ")
    assert nothing["level"] == "fail"
    assert "in region Atlantis" in nothing["message"]
    assert "region_name" in nothing["fix"]


async def test_apis_whose_clocks_are_off(tmp_path: Path) -> None:
    class Ahead(SystemClock):
        def now_us(self) -> int:
            return super().now_us() + 10_000_000

    async with FakeCloud(Ahead()) as cloud:
        _, findings = await Patient(tmp_path, looking_at(cloud)).examined()
    assert "ahead of" in the(findings, "the clock of the network API is")["message"]


async def test_a_source_without_an_api_is_told_what_it_misses(tmp_path: Path, cloud: FakeCloud) -> None:
    alone = {name: value for name, value in looking_at(cloud).items() if name != "api"}
    _, findings = await Patient(tmp_path, alone).examined()
    missed = the(findings, "notifications are all there is")
    assert (missed["level"], missed["about"]) == ("note", "API of one")
    assert "api: {auth_url: " in missed["fix"]


async def test_without_a_broker_no_port_is_made(tmp_path: Path, cloud: FakeCloud) -> None:
    _, findings = await Patient(tmp_path, looking_at(cloud)).examined("--try-port")
    assert the(findings, "no port was made: there is no broker")["level"] == "warn"
    assert cloud.count("network", method="POST") == 0


async def test_keystone(tmp_path: Path) -> None:
    async with FakeKeystone(SystemClock()) as keystone:
        project = keystone.add_project("service")
        user = keystone.add_user("vedette", "own")
        keystone.grant(user, "member", project=project)
        own = {
            "auth_url": keystone.url, "username": "vedette", "password": "own", "project_name": "service",
            "user_domain_name": "Default", "project_domain_name": "Default",
        }  # fmt: skip
        patient = Patient(tmp_path, auth={"mode": "keystone", "keystone": own})
        code, findings = await patient.examined()
        assert code == 1
        fix = the(findings, "needs the role `service` or `admin`")["fix"]
        assert fix.splitlines()[0] == f"openstack role add --user {user} --project {project} service"
        keystone.grant(user, "service", project=project)
        code, findings = await patient.examined()
        assert code == 0
        assert the(findings, "has the roles member, service")["level"] == "ok"
        assert the(findings, "Keystone's clock agrees")["level"] == "ok"
        assert the(findings, "plain http: kubectl sends no token")["level"] == "warn"
        wrong = Patient(tmp_path, auth={"mode": "keystone", "keystone": {**own, "password": "guess"}})
        code, findings = await wrong.examined()
        assert code == 1
        assert the(findings, "refused the credentials of vedette")["level"] == "fail"
        assert "guess" not in json.dumps(findings)
    code, findings = await patient.examined()
    assert the(findings, "can't be asked")["fix"].startswith("curl -i ")


async def test_a_keystone_whose_clock_is_off(tmp_path: Path) -> None:
    class Ahead(SystemClock):
        def now_us(self) -> int:
            return super().now_us() + 90_000_000

    async with FakeKeystone(Ahead()) as keystone:
        project = keystone.add_project("service")
        keystone.grant(keystone.add_user("vedette", "own"), "service", project=project)
        own = {"auth_url": keystone.url, "username": "vedette", "password": "own", "project_name": "service"}
        _, findings = await Patient(tmp_path, auth={"mode": "keystone", "keystone": own}).examined()
    skewed = the(findings, "Keystone's clock is")
    assert skewed["level"] == "warn"
    assert "ahead of" in skewed["message"]


@pytest.mark.parametrize(
    ("amqp", "said"),
    [
        ("amqp://me:secret1@127.0.0.1:1/", "Connection refused"),
        ("amqp://me:secret1@no-such-host.invalid/", "has no address"),
    ],
)
async def test_a_broker_that_is_not_there(tmp_path: Path, amqp: str, said: str) -> None:
    patient = Patient(tmp_path, {"name": "one", "type": "openstack", "amqp": amqp})
    code, findings = await patient.examined()
    assert code == 1
    found = the(findings, said)
    assert (found["level"], found["about"]) == ("fail", "source one")
    assert found["fix"]
    assert "secret1" not in json.dumps(findings)


# --- a real RabbitMQ -------------------------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
async def test_logins_vhosts_permissions_and_exchanges(tmp_path: Path, rabbit: Rabbit) -> None:
    rabbit.ctl("add_vhost", "doctor")
    rabbit.ctl("add_user", "narrow", "pass")
    rabbit.ctl("set_permissions", "-p", "doctor", "narrow", "^other$", "^other$", ".*")
    rabbit.ctl("set_permissions", "-p", "doctor", "guest", ".*", ".*", ".*")
    host = f"127.0.0.1:{rabbit.port}"

    async def of(user: str, vhost: str) -> tuple[int, Findings]:
        return await Patient(tmp_path, source(rabbit, amqp=f"amqp://{user}@{host}/{vhost}")).examined("--listen", "0")

    code, findings = await of("guest:wrong", "doctor")
    refused = the(findings, "refuses the user 'guest' or its password")
    assert code == 1
    assert "rabbitmqctl set_permissions -p doctor guest '^vedette' '^vedette' '.*'" in refused["fix"]
    code, findings = await of("guest:guest", "nowhere")
    assert "rabbitmqctl add_vhost nowhere" in the(findings, "vhost nowhere not found")["fix"]
    code, findings = await of("narrow:pass", "doctor")
    assert "rabbitmqctl set_permissions -p doctor narrow" in the(findings, "a queue can't be made")["fix"]
    code, findings = await of("guest:guest", "doctor")
    assert code == 1
    assert "transport_url" in the(findings, "none of the exchanges is there")["fix"]
    publisher = Publisher(f"amqp://guest:guest@{host}/doctor")
    publisher.exchange("nova")
    publisher.exchange("neutron")
    code, findings = await of("guest:guest", "doctor")
    assert code == 0
    assert the(findings, "exchanges: nova, neutron")["level"] == "ok"
    assert the(findings, "not there yet, and waited for: octavia, heat, cinder")["level"] == "note"
    assert the(findings, "may make a queue of its own")["level"] == "ok"
    assert the(findings, "will be made at the first start")["level"] == "note"
    # It left nothing behind.
    assert rabbit.ctl("list_queues", "-p", "doctor", "name").split() in ([], ["name"])
    publisher.close()


@pytest.mark.rabbitmq
async def test_a_queue_that_fills_and_a_stranger_on_ours(tmp_path: Path, rabbit: Rabbit) -> None:
    rabbit.ctl("add_vhost", "filling")
    rabbit.ctl("set_permissions", "-p", "filling", "guest", ".*", ".*", ".*")
    url = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/filling"
    publisher = Publisher(url)
    publisher.exchange("nova")
    publisher.queue("versioned_notifications.info", exchange="nova", keys=["versioned_notifications.info"])
    publisher.publish("nova", [message()] * 7, routing_key="versioned_notifications.info")
    publisher.queue("vedette", durable=True)
    patient = Patient(tmp_path, source(rabbit, amqp=url))
    code, findings = await patient.examined("--listen", "0")
    assert code == 0
    filling = the(findings, "nobody reads these queues, and they grow for ever: versioned_notifications.info (7)")
    assert filling["level"] == "warn"
    # The fix is a command that works as it stands.
    policy = filling["fix"].splitlines()[0]
    assert policy.startswith("rabbitmqctl set_policy -p filling --apply-to queues unread-notifications ")
    rabbit.ctl(*shlex.split(policy)[1:])
    assert "unread-notifications" in rabbit.ctl("list_policies", "-p", "filling")
    assert the(findings, "queue vedette: 0 waiting, 0 consumers")["level"] == "ok"
    reading = publisher_consuming(url, "vedette")
    try:
        code, findings = await patient.examined("--listen", "0")
    finally:
        reading.close()
    assert code == 1
    stranger = the(findings, "somebody else reads it")
    assert "give this source a queue of its own" in stranger["fix"]
    publisher.close()


def publisher_consuming(url: str, queue: str) -> Any:
    """A stranger's consumer; the connection, to close."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().basic_consume(queue, lambda *_: None)
    connection.process_data_events(0)
    return connection


@pytest.mark.rabbitmq
async def test_what_is_announced_while_it_listens(tmp_path: Path, rabbit: Rabbit) -> None:
    rabbit.ctl("add_vhost", "heard")
    rabbit.ctl("set_permissions", "-p", "heard", "guest", ".*", ".*", ".*")
    url = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/heard"
    publisher = Publisher(url)
    publisher.exchange("nova")
    publisher.exchange("neutron")
    patient = Patient(tmp_path, source(rabbit, amqp=url))
    examining = asyncio.create_task(patient.examined("--listen", "3"))
    # It can't be known from outside when it listens, so it is always spoken to.
    while not examining.done():
        publisher.publish("neutron", [message(publisher="network.fast-1", seconds=120)])
        publisher.publish("nova", [message("compute.instance.update", "compute.slow-1", -300, bare=True)])
        await asyncio.wait({examining}, timeout=0.05)
    code, findings = examining.result()
    publisher.close()
    assert code == 0
    assert "neutron" in the(findings, "notifications in 3 s")["message"]
    assert the(findings, "old envelope from nova")["fix"] == "[oslo_messaging_notifications] driver = messagingv2"
    assert "ahead of" in the(findings, "the clock of fast-1")["message"]
    assert "behind" in the(findings, "the clock of slow-1")["message"]


class Bus:
    """A virtual host on which a fake cloud announces."""

    def __init__(self, rabbit: Rabbit, cloud: FakeCloud, vhost: str) -> None:
        rabbit.ctl("add_vhost", vhost)
        rabbit.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
        self.url = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/{vhost}"
        self.publisher = Publisher(self.url)
        self.publisher.exchange("neutron")
        cloud.listeners.append(self._publish)

    def _publish(self, said: Announcement) -> None:
        self.publisher.publish(said.exchange, [said.body], routing_key=said.routing_key)


def nothing_is_left(cloud: FakeCloud) -> bool:
    rows = (*cloud.network.ports.values(), *cloud.network.networks.values())
    return not any(str(row["name"]).startswith("vedette-doctor-") for row in rows)


@pytest.mark.rabbitmq
async def test_a_port_is_made_heard_of_and_deleted(tmp_path: Path, rabbit: Rabbit, cloud: FakeCloud) -> None:
    bus = Bus(rabbit, cloud, "a-port")
    patient = Patient(tmp_path, {**looking_at(cloud), "amqp": bus.url})
    code, findings = await patient.examined("--listen", "0", "--try-port")
    assert code == 0
    made = the(findings, "made a port on a network of its own and heard of it")
    assert made["level"] == "ok"
    assert "(port.create.end, neutron notifications.info)" in made["message"]
    assert cloud.count("network", "/ports", method="POST") == 1
    assert nothing_is_left(cloud)
    # Where it may make no network, it uses one of the project's.
    cloud.network.fail(403, "/networks", method="POST")
    patient = Patient(tmp_path, {**looking_at(cloud, "demo"), "amqp": bus.url})
    code, findings = await patient.examined("--listen", "0", "--try-port")
    assert code == 0
    assert the(findings, f"made a port on the network {cloud.private} and heard of it")["level"] == "ok"
    assert nothing_is_left(cloud)
    # Where it may make no port, that is no failure of anything.
    cloud.network.fail(403, "/ports", method="POST")
    code, findings = await patient.examined("--listen", "0", "--try-port")
    assert code == 0
    assert the(findings, "no port could be made: network answered 403")["level"] == "warn"
    assert nothing_is_left(cloud)
    cloud.network.heal()
    # What can't be deleted is told.
    cloud.network.fail(409, "/networks/*", method="DELETE")
    code, findings = await patient.examined("--listen", "0", "--try-port")
    assert re.fullmatch(r"openstack network delete [0-9a-f-]{36}", the(findings, "could not be deleted")["fix"])
    bus.publisher.close()


@pytest.mark.rabbitmq
async def test_a_port_that_nobody_announces(tmp_path: Path, rabbit: Rabbit, cloud: FakeCloud) -> None:
    bus = Bus(rabbit, cloud, "no-port")
    cloud.bus_up = False
    patient = Patient(tmp_path, {**looking_at(cloud), "amqp": bus.url})
    source = load(patient.path, {}).sources[0]
    asked = Asked(
        config=None, environ={}, server="", management_url="", listen_s=0, try_port=True, hear_s=0.5, reach=VedetteClient
    )
    broker = Broker()
    _ = [one async for one in check_broker(source, asked, broker, running=False)]
    found = [one async for one in check_cloud(source, asked, broker)]
    (unheard,) = [one for one in found if "nothing was announced of it in 0.5 s" in one.message]
    assert unheard.level == "fail"
    for words in ("driver = messagingv2", "notifications, versioned_notifications", f"127.0.0.1:{rabbit.port}/no-port"):
        assert words in unheard.fix
    assert "guest:guest" not in unheard.fix
    assert "control_exchange" not in unheard.fix
    assert nothing_is_left(cloud)
    bus.publisher.exchange("quantum")
    bus.publisher.delete_exchange("neutron")
    broker = Broker()
    odd = Patient(tmp_path, {**looking_at(cloud), "amqp": bus.url, "exchanges": ["quantum"]})
    source = load(odd.path, {}).sources[0]
    _ = [one async for one in check_broker(source, asked, broker, running=False)]
    (unheard,) = [one async for one in check_cloud(source, asked, broker) if "nothing was announced" in one.message]
    assert "control_exchange" in unheard.fix
    bus.publisher.close()


@pytest.mark.rabbitmq
async def test_stopping_it_leaves_no_port_behind(tmp_path: Path, rabbit: Rabbit, cloud: FakeCloud) -> None:
    bus = Bus(rabbit, cloud, "stopped")
    cloud.bus_up = False
    patient = Patient(tmp_path, {**looking_at(cloud), "amqp": bus.url})
    async with running("doctor", "-c", str(patient.path), "--listen", "0", "--try-port") as doctor:
        await cloud.asked("network", "/ports", method="POST")
        held = cloud.network.hold("/ports", times=1)
        doctor.signal(signal.SIGINT)
        assert "vedette-doctor-" in await doctor.said("Deleting")
        doctor.signal(signal.SIGINT)
        doctor.signal(signal.SIGTERM)
        held.set()
        code, _, err = await doctor.end()
    assert code == 1
    assert err == "Stopped before the end.\n"
    assert nothing_is_left(cloud)
    bus.publisher.close()


@pytest.mark.rabbitmq
async def test_with_the_service_at_work_on_the_broker(tmp_path: Path, rabbit: Rabbit) -> None:
    rabbit.ctl("add_vhost", "work")
    rabbit.ctl("set_permissions", "-p", "work", "guest", ".*", ".*", ".*")
    url = f"amqp://guest:guest@127.0.0.1:{rabbit.port}/work"
    publisher = Publisher(url)
    publisher.exchange("nova")
    publisher.exchange("neutron")
    patient = Patient(tmp_path, source(rabbit, amqp=url))
    environ = {"VEDETTE_URL": f"http://127.0.0.1:{patient.port}"}
    async with running("serve", "--config", str(patient.path)) as serving:
        await serving.said("consuming")
        publisher.publish("neutron", [message()])
        publisher.publish("nova", [message("compute.instance.create.end", "compute.one"), b"{odd"])
        async with running("events", "--follow", "--since", "1h", "--type", "vedette.not-understood", **environ) as following:
            await following.line_with("not-understood")
        code, findings = await patient.examined("--listen", "0")
    publisher.close()
    assert code == 0
    assert the(findings, "queue vedette: 0 waiting, 1 consumer")["level"] == "ok"
    assert the(findings, "heard in the last 24 hours: nova, neutron")["level"] == "ok"
    assert the(findings, "nothing was heard of glance")["fix"].startswith("glance-api.conf: ")
    assert the(findings, "nova announces in the old format only")["fix"].endswith("notification_format = both")
    assert the(findings, "nova announces no instance.update")["level"] == "warn"
    assert the(findings, "1 messages of the last 24 hours could not be read")["fix"] == "vedette not-understood"
    assert the(findings, "ready: ")["about"] == "source one"


@pytest.mark.rabbitmq
async def test_the_management_api_tells_bindings_and_strangers(tmp_path: Path) -> None:
    try:
        port = free_ports(1)[0]
        node = Rabbit(tmp_path / "rabbit", config={"management.tcp.port": str(port), "management.tcp.ip": "127.0.0.1"})
    except RabbitMissing as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))
    (node.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    try:
        node.start()
        publisher = node.publisher()
        publisher.exchange("nova")
        publisher.queue("vedette", exchange="nova", keys=["notifications.info", "#"], durable=True)
        publisher.queue("reports", durable=True)
        reading = publisher_consuming(node.url, "vedette")
        patient = Patient(tmp_path, source(node))
        words = ("--listen", "0", "--management-url", f"http://127.0.0.1:{port}")
        # The broker counts consumers and bindings at once, but lists a consumer's details a moment later.
        async with asyncio.timeout(60):
            while True:
                code, findings = await patient.examined(*words)
                if any(" as guest)" in one["message"] for one in findings):
                    break
        assert code == 1
        assert "127.0.0.1:" in the(findings, "somebody else reads it (")["message"]
        assert the(findings, "is not (fully) bound to nova")["level"] == "note"
        assert "nova #" in the(findings, "also bound, by somebody else")["message"]
        _, findings = await patient.examined("--listen", "0", "--management-url", f"http://guest:wrong@127.0.0.1:{port}")
        assert "monitoring" in the(findings, "the management API can't be asked")["fix"]
        reading.close()
        publisher.close()
    finally:
        node.close()
