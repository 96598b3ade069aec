"""Plugins of the OSS framework in their real processes: the seed's own, and those that are shipped."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vedette.engine.worker import WorkerProcess, validate
from vedette.errors import GiveUp, PluginFailed, TargetUnavailable, TryLater, WorkerDied
from vedette.handlers.oss import Options, OssHandler, build, code
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.testing.handling import FakeContext, handler_needs, notice_event
from vedette.testing.mail import FakeMail
from vedette.testing.rabbit import Rabbit, free_ports
from vedette.testing.rest import FakeRest
from vedette.testing.tls import Authority

SEED = Path(__file__).parents[1] / "unit" / "oss_seed"
DETAIL_KEYS = (
    *("FQDN", "IP", "IPType", "OS", "Storage", "Ram", "CPU", "Datacenter", "SecurityDomain", "Owner"),
    *("AdditionalUsers", "ApplicationName", "EnvironmentCI", "Description", "CreationDate"),
)
SERVER = {"instance_id": "s1", "hostname": "vm", "memory_mb": 2048, "vcpus": 1, "root_gb": 10, "ephemeral_gb": 0}


@asynccontextmanager
async def plugin(options: Options) -> AsyncIterator[OssHandler]:
    """The handler of one plugin, with its process."""
    clock = SystemClock()

    def worker(what: Any) -> WorkerProcess:
        return WorkerProcess(what, clock=clock, telemetry=Telemetry())

    handler = build(options, msgspec.structs.replace(handler_needs(name="plugin"), worker=worker))
    try:
        yield handler
    finally:
        await handler.close()


async def tell(handler: OssHandler, word: str = "create", *, revision: int = 7, timeout: float = 30.0) -> str | None:
    event = notice_event(SERVER, event_type=f"compute.instance.{word}.end", handler="plugin", revision=revision)
    return await handler.handle(event, FakeContext(timeout=timeout))


def conf(folder: Path, **sections: Mapping[str, Any]) -> str:
    path = folder / "oss.conf"
    lines = [line for name, keys in sections.items() for line in (f"[{name}]", *(f"{key}={keys[key]}" for key in keys))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def write(folder: Path, name: str, text: str) -> str:
    """A plugin of the operator's; the folder it is in."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(text)
    return str(folder)


# --- the operator's --------------------------------------------------------------------------------------------------------


async def test_the_seeds_own_plugin_runs_unchanged_from_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = write(tmp_path, "new_plugin", (SEED / "new_plugin.py.txt").read_text())
    with caplog.at_level(logging.INFO):
        async with plugin(Options(plugin="new_plugin.YourPlugin", conf=str(SEED / "oss.conf"), plugins_dir=own)) as handler:
            said = await tell(handler)
            async with asyncio.timeout(30):
                while "Handled by YourPlugin." not in caplog.text:
                    await asyncio.sleep(0.02)
    assert said == "new_plugin.YourPlugin: vm came"
    assert "'FQDN': 'vm'" in caplog.text
    assert "oslo.config" not in sys.modules, "the old name is the plugin's process' own"


PROBE = """
import json
from oslo.config import cfg
import oslo.config.cfg as again
from oslo_config import cfg as today
from oss_framework.plugins import base
from oss_framework.plugins.helper import WHERE

assert cfg is again is today
cfg.CONF.register_opts([cfg.StrOpt("target")], group="probe")
cfg.CONF.register_opts([cfg.StrOpt("password", default="another", help="of another version")], group="rest")


class Probe(base.BasePlugin):
    def notify(self, node_detail, created):
        told = [node_detail, created, self.idempotency_key, cfg.CONF.rest.password, cfg.CONF.probe.target, WHERE]
        with open(cfg.CONF.probe.target, "a") as file:
            file.write(json.dumps(told) + "\\n")
"""


async def test_a_plugin_has_its_settings_its_neighbours_and_a_key_for_each_call(tmp_path: Path) -> None:
    own = write(tmp_path / "own", "probe", PROBE)
    (tmp_path / "own" / "helper.py").write_text("WHERE = 'beside it'\n")
    target = tmp_path / "told"
    path = conf(tmp_path, rest={"password": "s3cret"}, probe={"target": target})
    async with plugin(Options(plugin="probe.Probe", conf=path, plugins_dir=own)) as handler:
        await tell(handler)
        await tell(handler, "delete", revision=8)
    came, went = [json.loads(line) for line in target.read_text().splitlines()]
    assert tuple(came[0]) == DETAIL_KEYS
    assert came[1:] == [True, "plugin/7", "s3cret", str(target), "beside it"]
    assert went[1:3] == [False, "plugin/8"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("rst_plugin.RESTNotify", "", "did you mean rest_plugin.RESTNotify"),
        ("broken.Plugin", "import nothing_of_this_name\n", "nothing_of_this_name"),
        ("broken.Plugin", "class Plugin: pass\n", "is no plugin"),
        ("broken.Plugin", "class Plug:\n    def notify(self, node_detail, created): ...\n", "it has: Plug"),
        ("broken.Plug", "from oss_framework.plugins.base import BasePlugin\nclass Plug(BasePlugin): pass\n", "is no plugin"),
        ("broken.Plug", "class Plug:\n    async def notify(self, node_detail, created): ...\n", "no `async def`"),
        ("base.BasePlugin", "", "no plugin base.BasePlugin"),
    ],
)
async def test_a_plugin_that_is_none_is_found_before_anything_starts(tmp_path: Path, name: str, text: str, said: str) -> None:
    own = write(tmp_path, "broken", text)
    wrong = await validate(code("plugin", Options(plugin=name, plugins_dir=own)), clock=SystemClock())
    assert said in wrong


async def test_an_installed_package_may_bring_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "their_plugin-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-plugin\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[oss_framework.plugins]\ntheirs.Plugin = their_code:Told\n")
    (tmp_path / "their_code.py").write_text("class Told:\n    def notify(self, node_detail, created): print('told')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    async with plugin(Options(plugin="theirs.Plugin")) as handler:
        assert await tell(handler) == "theirs.Plugin: vm came"


async def test_every_shipped_plugin_can_be_loaded_from_the_seeds_own_file() -> None:
    for name in ("rest_plugin.RESTNotify", "mail_plugin.MailNotify", "amqp_plugin.AMQPNotify"):
        options = Options(plugin=name, conf=str(SEED / "oss.conf"))
        assert await validate(code("plugin", options), clock=SystemClock()) == ""


FAULTS = """
import os, time
from oss_framework.plugins import base

class Plugin(base.BasePlugin):
    def notify(self, node_detail, created):
        if created:
            raise ValueError("no such rack")
        time.sleep(600)
"""


async def test_a_plugin_that_raises_or_hangs_fails_its_own_call_and_goes_on(tmp_path: Path) -> None:
    own = write(tmp_path, "faults", FAULTS)
    async with plugin(Options(plugin="faults.Plugin", plugins_dir=own)) as handler:
        with pytest.raises(PluginFailed, match="no such rack"):
            await tell(handler)
        with pytest.raises(WorkerDied):
            await tell(handler, "delete", timeout=0.5)
        with pytest.raises(PluginFailed, match="no such rack"):
            await tell(handler)


# --- rest_plugin -----------------------------------------------------------------------------------------------------------


def rest(folder: Path, host: str, port: int, **more: Any) -> Options:
    keys = {"host": host, "port": port, "user": "me", "password": "pä$$", "url_creation": "/new", "url_deletion": "old?x=1"}
    keys["password"] = keys["password"].replace("$", "$$")
    return Options(plugin="rest_plugin.RESTNotify", conf=conf(folder, rest={**keys, **more}))


async def test_a_node_is_posted_as_json_with_basic_authentication_to_the_url_of_its_group(tmp_path: Path) -> None:
    async with FakeRest() as server, plugin(rest(tmp_path, "127.0.0.1", server.port)) as handler:
        await tell(handler)
        await tell(handler, "delete", revision=8)
    came, went = server.sent
    assert [(one.method, one.path) for one in server.sent] == [("POST", "/new"), ("POST", "/old")]
    assert tuple(json.loads(came.body)) == DETAIL_KEYS
    assert came.headers["Content-Type"] == "application/json"
    assert came.headers["Authorization"] == "Basic " + base64.b64encode("me:pä$$".encode()).decode()
    assert (came.headers["Idempotency-Key"], went.headers["Idempotency-Key"]) == ("plugin/7", "plugin/8")
    assert json.loads(came.body)["FQDN"] == "vm"


async def test_what_the_server_says_decides_whether_the_call_is_made_again(tmp_path: Path) -> None:
    async with FakeRest() as server, plugin(rest(tmp_path, "http://127.0.0.1", server.port)) as handler:
        server.answers.extend(
            [500, (429, {"Retry-After": "17"}), (503, {"Retry-After": "soon"}), 401, 400, (302, {"Location": "/x"}), 404]
        )
        for delay in (1.0, 17.0, 1.0, 60.0):
            with pytest.raises(TryLater) as later:
                await tell(handler)
            assert later.value.delay == delay
            assert not isinstance(later.value, TargetUnavailable)
        for status in (400, 302, 404):
            with pytest.raises(GiveUp, match=f"answered {status}: {status} it is"):
                await tell(handler)
        assert await tell(handler)
        assert len(server.sent) == 8


async def test_nobody_there_is_not_the_nodes_fault(tmp_path: Path) -> None:
    [port] = free_ports(1)
    async with plugin(rest(tmp_path, "127.0.0.1", port)) as handler:
        with pytest.raises(TargetUnavailable, match="can't be reached"):
            await tell(handler)
        async with FakeRest(port=port) as server:
            assert await tell(handler)
            assert len(server.sent) == 1


async def test_tls_is_verified(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    async with FakeRest(tls=authority.server().server_context()) as server:
        async with plugin(rest(tmp_path, "https://localhost", server.port)) as handler:
            with pytest.raises(TryLater, match="can't be trusted"):
                await tell(handler)
        async with plugin(rest(tmp_path, "https://localhost", server.port, cacert=authority.ca)) as handler:
            await tell(handler)
        assert len(server.sent) == 1


async def test_a_group_without_a_url_is_sent_nowhere(tmp_path: Path) -> None:
    async with FakeRest() as server, plugin(rest(tmp_path, "127.0.0.1", server.port, url_deletion="")) as handler:
        await tell(handler)
        await tell(handler, "delete")
        assert [one.path for one in server.sent] == ["/new"]


# --- mail_plugin -----------------------------------------------------------------------------------------------------------


def mail(folder: Path, port: int, **more: Any) -> Options:
    keys = {"host": "localhost", "port": port, "sender": "oss@example.org", "recipients": "a@example.org,b@example.org"}
    return Options(plugin="mail_plugin.MailNotify", conf=conf(folder, mail={**keys, **more}))


async def test_a_mail_tells_of_the_node_in_words_and_as_json(tmp_path: Path) -> None:
    async with FakeMail() as server, plugin(mail(tmp_path, server.port)) as handler:
        await tell(handler)
        await tell(handler, "delete", revision=8)
    came, went = server.taken
    assert (came.sender, came.recipients) == ("oss@example.org", ("a@example.org", "b@example.org"))
    assert (came.message["Subject"], went.message["Subject"]) == ("vm was created", "vm is gone")
    assert came.message["Message-ID"] == "<plugin-7@oss-framework>"
    body = came.message.get_body()
    assert body is not None
    assert "FQDN: vm" in body.get_content()
    [attached] = came.message.iter_attachments()
    assert tuple(json.loads(attached.get_content())) == DETAIL_KEYS


async def test_mail_over_tls_with_a_login(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "tls")
    more = {"tls": "starttls", "cacert": authority.ca, "user": "me", "password": "s3cret"}
    async with FakeMail(tls=authority.server().server_context(), users={"me": "s3cret"}) as server:
        async with plugin(mail(tmp_path, server.port, **more)) as handler:
            await tell(handler)
        assert [(one.tls, one.user) for one in server.taken] == [(True, "me")]
        async with plugin(mail(tmp_path, server.port, **{**more, "password": "no"})) as handler:
            with pytest.raises(TryLater, match="refused user and password"):
                await tell(handler)


@pytest.mark.parametrize(
    ("command", "answer", "error"),
    [
        ("RCPT TO:", "550 who", GiveUp),
        ("RCPT TO:", "451 later", TryLater),
        ("MAIL FROM:", "552 no", GiveUp),
        (".", "452 full", TryLater),
        (".", "cut", TargetUnavailable),
    ],
)
async def test_what_the_mail_server_says_decides(tmp_path: Path, command: str, answer: str, error: type[Exception]) -> None:
    async with FakeMail() as server, plugin(mail(tmp_path, server.port)) as handler:
        server.answers[command] = answer
        with pytest.raises(error):
            await tell(handler)
        server.answers.clear()
        await tell(handler)
        assert len(server.taken) == 1


# --- amqp_plugin -----------------------------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
async def test_a_node_is_published_and_confirmed(tmp_path: Path, rabbit: Rabbit) -> None:
    publisher = rabbit.publisher()
    publisher.queue("oss.created")
    path = conf(tmp_path, amqp={"host": "127.0.0.1", "port": rabbit.port})
    try:
        async with plugin(Options(plugin="amqp_plugin.AMQPNotify", conf=path)) as handler:
            await tell(handler)
            with pytest.raises(TryLater, match="no queue takes"):
                await tell(handler, "delete")
        [body] = publisher.drain("oss.created")
        assert tuple(json.loads(body)) == DETAIL_KEYS
    finally:
        publisher.delete_queue("oss.created")
        publisher.close()


async def test_a_broker_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    path = conf(tmp_path, amqp={"host": "127.0.0.1", "port": free_ports(1)[0]})
    async with plugin(Options(plugin="amqp_plugin.AMQPNotify", conf=path)) as handler:
        with pytest.raises(TargetUnavailable):
            await tell(handler)
