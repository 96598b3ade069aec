"""oss.conf and the command `oss_watcher`: what the file says becomes settings of ours, and the start says what it always did."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from typer.testing import CliRunner

from oss_framework.plugins.rest_plugin import address, without_query
from oss_framework.plugins.rest_plugin import shown as shown_address
from vedette.cli.oss_watcher import Formatter, app, configure
from vedette.compat import oss
from vedette.compat._oss_options import OPTIONS
from vedette.config import show
from vedette.errors import ConfigError
from vedette.handlers.oss import Options
from vedette.kit.clock import SystemClock
from vedette.kit.telemetry import Telemetry
from vedette.sources import openstack
from vedette.testing.cloud import FakeCloud

SEED = Path(__file__).parent / "oss_seed" / "oss.conf"
EXAMPLE = Path(__file__).parents[2] / "examples" / "oss.conf"


def written(folder: Path, text: str) -> Path:
    path = folder / "oss.conf"
    path.write_text(text)
    return path


# --- the file --------------------------------------------------------------------------------------------------------------


def test_the_seeds_own_file_becomes_a_source_with_a_queue_of_its_own() -> None:
    [source] = oss.load(SEED).config.sources
    options: openstack.Options = source.options
    assert options.amqp == ("amqp://localhost:5672",)
    assert (options.username, options.password.reveal()) == ("user", "passwprd")
    assert options.topics == ("monitoring",)
    assert {"nova", "neutron", "openstack"} <= set(options.exchanges)
    assert options.queue.name == "oss_watcher"
    assert "info" in options.priorities
    assert not options.shared_queue


def test_the_seeds_own_file_becomes_a_handler_for_each_plugin() -> None:
    [handler] = oss.load(SEED).config.handlers
    assert (handler.name, handler.use, handler.concurrency) == ("rest_plugin.RESTNotify", "oss", 1)
    [on] = handler.on
    assert {"compute.instance.create.end", "instance.delete.end", "floatingip.update.end", "server.*.resync"} <= set(on.types)
    options: Options = handler.options
    assert options.plugin == "rest_plugin.RESTNotify"
    assert options.conf == str(SEED.resolve())
    assert options.events_deletion == ("compute.instance.delete.end", "floatingip.update.end")
    assert options.detail.datacenter == "KDC"
    assert handler.retry.deadline == 3 * 86_400


async def test_credentials_of_keystone_v2_work_with_v3(tmp_path: Path) -> None:
    async with FakeCloud(SystemClock()) as cloud:
        server = cloud.server(announce=False)
        given = cloud.credentials("admin")
        path = written(
            tmp_path,
            f"[openstack]\nauth_url={given['auth_url'].removesuffix('/v3')}/v2.0\nuser={given['username']}\n"
            f"password={given['password']}\ntenant=admin\n",
        )
        [source] = oss.load(path).config.sources
        use = openstack.cloud_use(source.options, clock=SystemClock(), telemetry=Telemetry())
        assert use is not None
        try:
            answer = await use.cloud.get("compute", f"/servers/{server}", microversion="2.47")
        finally:
            await use.cloud.close()
        assert answer.body["server"]["id"] == server


def test_every_key_of_the_seed_is_read_and_none_is_strange() -> None:
    watched = oss.load(SEED)
    known = {f"{section}.{option.dest}" for section, options in OPTIONS.items() for option in options}
    section = ""
    for line in SEED.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line:
            assert f"{section}.{line.partition('=')[0]}" in known
    assert not [warning for warning in watched.warnings if "known" in warning or "section" in warning]
    assert any("port is 80" in warning for warning in watched.warnings)


def test_secrets_are_shown_nowhere(tmp_path: Path) -> None:
    text = SEED.read_text().replace("password=passwprd", "password=hush-one").replace("password=password", "password=hush-two")
    watched = oss.load(written(tmp_path, text))
    for shown in (watched.shown, show(watched.config), repr(watched), str(watched.lines), str(watched.warnings)):
        assert "hush" not in shown
    assert watched.shown.count("password=***") == 4  # (amqp's has a default)
    assert watched.config.sources[0].options.password.reveal() == "hush-one"
    assert watched.config.sources[0].options.api.password.reveal() == "hush-two"


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    again = oss.load(written(tmp_path, oss.load(SEED).shown))
    assert again.lines == oss.load(SEED).lines


def test_a_value_never_becomes_yaml_or_a_variable(tmp_path: Path) -> None:
    odd = "a: [b], ${HOME}\\ 'c' #d \"e"
    text = f"[rabbit]\nuser={odd.replace('$', '$$')}\npassword={odd.replace('$', '$$')}\n[node_detail]\ndatacenter=$${{PATH}}\n"
    config = oss.load(written(tmp_path, text)).config
    assert config.sources[0].options.username == odd
    assert config.sources[0].options.password.reveal() == odd
    assert config.handlers[0].options.detail.datacenter == "${PATH}"


def test_the_environment_goes_before_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_RABBIT__PORT", "5673")
    monkeypatch.setenv("OS_DEFAULT__LISTEN", "127.0.0.1:0")
    config = oss.load(SEED).config
    assert config.sources[0].options.amqp == ("amqp://localhost:5673",)
    assert config.listen[0].port == 0


def test_relative_paths_are_beside_the_file(tmp_path: Path) -> None:
    watched = oss.load(written(tmp_path, "[DEFAULT]\nlog_file=log/oss.log\nplugins_dir=own\ndata_dir=data\n"))
    assert watched.log_file == str(tmp_path / "log" / "oss.log")
    assert watched.config.handlers[0].options.plugins_dir == str(tmp_path / "own")
    assert watched.config.data_dir == str(tmp_path / "data")


def test_several_plugins_are_several_handlers_and_none_twice(tmp_path: Path) -> None:
    plugins = "rest_plugin.RESTNotify, new_plugin.YourPlugin,rest_plugin.RESTNotify"
    config = oss.load(written(tmp_path, f"[DEFAULT]\nenabled_plugins={plugins}\n")).config
    assert [handler.name for handler in config.handlers] == ["rest_plugin.RESTNotify", "new_plugin.YourPlugin"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rabbit]\nhots=x\n", "[rabbit] hots is not known: did you mean host?"),
        ("[rabbit]\nzzz=x\n", "[rabbit] zzz is not known: there are: host,"),
        ("[rabit]\nhost=x\n", "[rabit] is no section of ours: did you mean [rabbit]?"),
        ("[my_plugin]\nhost=x\n", "[my_plugin] is no section of ours; a plugin may read it"),
        ("[rest]\nhost=http://a\nuser=b\n", "plain http"),
        ("", "has no auth_url"),
    ],
)
def test_what_is_strange_is_a_warning_with_what_was_meant(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in warning for warning in oss.load(written(tmp_path, text)).warnings)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[rabbit]\nport=many\n", r"\[rabbit\] port: has a value"),
        ("[rabbit]\npassword=hush$x\n", r"\[rabbit\] password: a \$ begins"),
        ("[rabbit]\nhush\n", r"oss.conf \(line 2\): is not an INI file"),
        ("[rabbit]\nqueue=monitoring.info\n", "would take its messages away"),
        ("[rabbit]\nwatch_queue=\n", "topic"),
        ("[DEFAULT]\nenabled_plugins=\n", "names no plugin"),
        ("[DEFAULT]\nenabled_plugins=RESTNotify\n", "<dir>.<Class>"),
        ("[DEFAULT]\nevents_creation=volume.create.end\nevents_deletion=volume.create.end\n", "nothing in it says which"),
        ("[DEFAULT]\nlisten=0.0.0.0:8470\n", "other machines can reach this"),
        ("[openstack]\nauth_url=localhost\n", "auth_url"),
        ("[openstack]\nauth_url=http://a\nresync=1\n", "resync"),
        ("x" * 300_000, "more than 262144 bytes"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_with_it(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as wrong:
        oss.load(written(tmp_path, text))
    assert "hush" not in str(wrong.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.conf"):
        oss.load(tmp_path / "nowhere.conf")
    (tmp_path / "odd.conf").write_bytes(b"[rabbit]\nhost=\xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        oss.load(tmp_path / "odd.conf")


@pytest.mark.parametrize(
    ("queue", "topic"),
    [("monitoring.info", "monitoring"), ("a.b.error", "a.b"), ("monitoring", "monitoring"), ("a.b", "a.b")],
)
def test_the_topic_is_what_stands_before_the_priority(tmp_path: Path, queue: str, topic: str) -> None:
    config = oss.load(written(tmp_path, f"[rabbit]\nwatch_queue={queue}\n")).config
    assert config.sources[0].options.topics == (topic,)


def test_the_brokers_address_takes_what_hosts_and_virtual_hosts_can_be(tmp_path: Path) -> None:
    text = "[rabbit]\nhost=::1\nport=5671\nssl=true\nvirtual_host=/open stack\nexchanges=nova,neutron\n"
    options = oss.load(written(tmp_path, text)).config.sources[0].options
    assert options.amqp == ("amqps://[::1]:5671/%2Fopen%20stack",)
    assert options.exchanges == ("nova", "neutron")


def test_the_example_is_the_seeds_file_with_comments() -> None:
    def said(path: Path) -> list[str]:
        return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]

    assert said(EXAMPLE) == said(SEED)
    assert oss.load(EXAMPLE).lines == oss.load(SEED).lines


def test_every_key_of_the_example_is_one(tmp_path: Path) -> None:
    text = re.sub(r"^# (?=[\[a-z_]+[\]=])", "", EXAMPLE.read_text(), flags=re.MULTILINE)
    assert not [warning for warning in oss.load(written(tmp_path, text)).warnings if "known" in warning or "section" in warning]


# --- where a REST call goes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "port", "path", "url"),
    [
        ("https://some_host", 80, "/some_url", "https://some_host:80/some_url"),
        ("some_host", 80, "some_url", "http://some_host:80/some_url"),
        ("some_host", 443, "/a", "https://some_host:443/a"),
        ("https://some_host", None, "/a", "https://some_host/a"),
        ("https://some_host:8443", 80, "/a", "https://some_host:8443/a"),
        ("https://some_host/api/", 8443, "/a?b=c", "https://some_host:8443/api/a?b=c"),
        ("https://some_host", 80, "https://other/a", "https://other/a"),
        ("[::1]", 8080, "/a", "http://[::1]:8080/a"),
    ],
)
def test_host_port_and_path_make_the_address(host: str, port: int | None, path: str, url: str) -> None:
    assert address(host, port, path) == url


# --- the command -----------------------------------------------------------------------------------------------------------

runner = CliRunner()


def test_the_start_says_what_it_always_did() -> None:
    formatter, said = Formatter(), []
    for module, text in oss.load(SEED).lines:
        said.append(formatter.format(logging.LogRecord(f"vedette.oss.{module}", logging.INFO, "", 0, "%s", (text,), None)))
    events = "compute.instance.create.end,floatingip.update.end"
    expected = [
        "INFO (service) Listen queue monitoring.info",
        f"INFO (service) Handled events of creation: {events}",
        f"INFO (service) Handled events of deletion: {events.replace('create', 'delete')}",
        "INFO (service) Plugin `oss_framework.plugins.rest_plugin.RESTNotify`is loaded.",
        "INFO (base_connection) Connecting to localhost:5672",
    ]
    assert [line[20:] for line in said] == expected
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", line[:20]) for line in said)


def test_lines_have_their_values_and_their_traceback_behind_them() -> None:
    record = logging.LogRecord("vedette.engine.worker", logging.ERROR, "", 0, "over", (), None)
    record.kv = {"plugin": "a b", "number": 7}
    assert Formatter().format(record)[20:] == 'ERROR (worker) over plugin="a b" number=7'


def test_the_folder_of_the_log_is_made_and_lines_are_on_stdout_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "logs" / "deep" / "oss.log"
    assert configure("info", "text", str(file)) == []
    logging.getLogger("vedette.oss.service").info("Listen queue %s", "q")
    written = file.read_text()
    assert written.endswith("INFO (service) Listen queue q\n")
    assert capsys.readouterr().out == written
    close_logs()


def test_a_log_that_cannot_be_written_is_said_and_is_no_reason_not_to_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    [trouble] = configure("info", "json", str(tmp_path / "file" / "oss.log"))
    assert "can't be written" in trouble


def test_a_check_shows_every_key_and_no_secret(tmp_path: Path) -> None:
    done = runner.invoke(app, ["--config-file", str(SEED), "--check"])
    assert done.exit_code == 0, done.output
    assert "[rest]\nhost=https://some_host\nport=80\nuser=user\npassword=***\n" in done.output
    assert "passwprd" not in done.output


@pytest.mark.parametrize(
    ("plugins", "said"),
    [("rst_plugin.RESTNotify", "did you mean rest_plugin.RESTNotify"), ("rest_plugin.Nobody", "it has: RESTNotify")],
)
def test_an_unknown_plugin_ends_it_before_anything_is_connected_to(tmp_path: Path, plugins: str, said: str) -> None:
    path = written(tmp_path, f"[DEFAULT]\nenabled_plugins=rest_plugin.RESTNotify,{plugins}\nlog_file=l/oss.log\ndata_dir=data\n")
    done = runner.invoke(app, ["--config-file", str(path)])
    assert done.exit_code == 2
    assert said in done.output
    assert "Connecting" not in done.output
    assert not (tmp_path / "data").exists()
    close_logs()


def test_a_wrong_file_is_one_line_and_an_exit_code(tmp_path: Path) -> None:
    done = runner.invoke(app, ["--config-file", str(tmp_path / "nowhere")])
    assert done.exit_code == 2
    assert done.output.startswith("Error: ")
    assert len(done.output.splitlines()) == 1


def test_help_has_examples() -> None:
    done = runner.invoke(app, ["--help"])
    assert done.exit_code == 0
    assert "oss_watcher --config-file=/etc/oss.conf" in done.output


def test_settings_of_a_plugin_that_nobody_knows_are_no_error(tmp_path: Path) -> None:
    conf: Any = cfg.ConfigOpts()
    conf.register_opts([cfg.StrOpt("target")], group="mine")
    conf(["--config-file", str(written(tmp_path, "[mine]\ntarget=x\n"))], default_config_files=[])
    assert conf.mine.target == "x"
    assert oss.load(tmp_path / "oss.conf").warnings


def close_logs() -> None:
    for handler in logging.getLogger("vedette").handlers:
        handler.close()


def test_what_is_told_of_an_address_has_no_password_and_no_query() -> None:
    url = "https://u:hidden@h:1/created?token=hidden"
    assert shown_address(url) == "https://h:1/created"
    assert "hidden" not in without_query(ValueError("Max retries exceeded with url: /created?token=hidden"), url)
