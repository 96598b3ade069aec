"""concertim-openstack-service's config.yaml, key by key, and its command's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner

from vedette.cli.concertim_service import app
from vedette.compat.concertim_service import COMPONENTS, PROCESSES, Component, load
from vedette.errors import ConfigError

CLOUD = {
    "auth_url": "http://keystone:5000/v3",
    "username": "admin",
    "password": "os$ec{ret}${HOME}",
    "project_name": "admin",
    "user_domain_name": "Default",
    "project_domain_name": "Default",
}
RMQ = {"rmq_username": "nova", "rmq_password": "rmq/secret", "rmq_address": "10.0.0.1", "rmq_port": 5673, "rmq_path": "/cloud"}
FRONT = {
    "concertim_url": "https://front.example.org",
    "concertim_username": "boss",
    "concertim_password": "front-secret",
    "default_rack_height": 40,
}
WHOLE: dict[str, Any] = {"log_level": "DEBUG", "openstack": CLOUD, "rmq": RMQ, "concertim": FRONT}
JWT = {"JWT_SECRET": "a secret of more than thirty-two bytes"}


def read(tmp_path: Path, component: str, given: Any = WHOLE, environ: dict[str, str] = JWT, **more: Any) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(given if isinstance(given, str) else yaml.safe_dump(given))
    return load(path, cast("Component", component), environ=environ, **more)


def test_every_key_means_what_it_did(tmp_path: Path) -> None:
    found = read(tmp_path, "all")
    config = found.config
    (source,), (mirror,) = config.sources, config.mirrors
    assert source.options.amqp == ("amqp://10.0.0.1:5673/%2Fcloud",)
    assert (source.options.username, source.options.password.reveal()) == ("nova", "rmq/secret")
    api = source.options.api
    assert (api.auth_url, api.username, api.project_name) == ("http://keystone:5000/v3", "admin", "admin")
    assert api.password.reveal() == CLOUD["password"], "what looks like a variable is a password"
    assert (mirror.options.url, mirror.options.login) == ("https://front.example.org", "boss")
    assert (mirror.options.password.reveal(), mirror.options.rack_height, mirror.compare) == ("front-secret", 40, 150.0)
    assert mirror.options.writes
    assert (config.polling.interval, config.polling.push) == (15.0, ("concertim",))
    face = config.faces.concertim
    assert [str(one) for one in face.listen] == ["0.0.0.0:42356"]
    assert face.authenticate
    assert face.jwt_secret.reveal() == JWT["JWT_SECRET"]
    assert (found.log_level, found.warnings) == ("debug", ())


def test_each_component_has_its_part_and_a_log_and_a_place_of_its_own(tmp_path: Path) -> None:
    parts: dict[str, tuple[str, int, bool, bool, bool]] = {}
    files, folders, listens = set(), set(), set()
    for component in COMPONENTS[1:]:
        found = read(tmp_path, component)
        config = found.config
        writes = any(one.options.writes for one in config.mirrors)
        parts[component] = (
            config.sources[0].type, len(config.mirrors), writes, config.polling is not None, config.faces.concertim is not None,
        )  # fmt: skip
        files.add(found.log_file)
        folders.add(config.data_dir)
        listens.add(str(config.listen[0]))
    assert parts == {
        "updates_mq": ("openstack", 0, False, False, False),
        "updates_bulk": ("vedette", 1, True, False, False),
        "metrics": ("vedette", 1, False, True, False),
        "api": ("vedette", 0, False, False, True),
    }, "one of them alone hears the broker, and one of them alone writes"
    assert {Path(one).name for one in files} == {"updates_mq.log", "updates_bulk.log", "metrics.log", "api_server.log"}
    assert len(folders) == len(listens) == 4
    assert set(PROCESSES.values()) == set(COMPONENTS[1:])
    found = read(tmp_path, "metrics", data="/srv/data", logs="/srv/log", listen="127.0.0.1:9000", follow="http://mq:8470")
    assert (found.config.data_dir, found.log_file) == ("/srv/data", "/srv/log/metrics.log")
    assert found.config.sources[0].options.url == "http://mq:8470"
    found = read(tmp_path, "api", environ={**JWT, "STATE_DIRECTORY": "/var/lib/x/api", "LOGS_DIRECTORY": "/var/log/x"})
    assert (found.config.data_dir, found.log_file) == ("/var/lib/x/api", "/var/log/x/api_server.log")


def test_the_brokers_keys_may_be_where_the_readme_had_them(tmp_path: Path) -> None:
    given = {"openstack": {**CLOUD, **RMQ, "rmq_path": "/"}, "concertim": FRONT}
    assert read(tmp_path, "updates_mq", given).config.sources[0].options.amqp == ("amqp://10.0.0.1:5673/%2F",)
    both = {**given, "rmq": {"rmq_address": "10.0.0.9"}}
    assert read(tmp_path, "updates_mq", both).config.sources[0].options.amqp == ("amqp://10.0.0.9:5673/%2F",)
    least = {"openstack": {**CLOUD, "rmq_address": "mq", "rmq_password": "p"}, "concertim": FRONT}
    options = read(tmp_path, "updates_mq", least).config.sources[0].options
    assert (options.amqp, options.username) == (("amqp://mq:5672/%2F",), "openstack")


@pytest.mark.parametrize(
    "account",
    [
        CLOUD,
        {name: CLOUD[name] for name in ("auth_url", "username", "password", "user_domain_name")} | {"project_id": "p" * 32},
        {"auth_url": CLOUD["auth_url"], "user_id": "u" * 32, "password": "x", "project_id": "p" * 32},
        {"auth_url": "http://keystone:5000/v2.0", "username": "admin", "password": "x", "tenant_name": "admin"},
        {"auth_url": "http://keystone:5000/v2.0", "username": "admin", "password": "x", "tenant_id": "t" * 32},
    ],
)
def test_every_set_of_credentials_is_one(tmp_path: Path, account: dict[str, str]) -> None:
    api = read(tmp_path, "updates_mq", {**WHOLE, "openstack": account}).config.sources[0].options.api
    assert api.username or api.user_id
    assert api.project_name or api.project_id or api.tenant_name or api.tenant_id


def without(section: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}


@pytest.mark.parametrize(
    ("component", "given", "words"),
    [
        ("all", "- a list", "no mapping of sections"),
        ("all", "a: [", "line 1"),
        ("all", {**WHOLE, "openstack": None}, "openstack.auth_url: is missing"),
        ("all", {**WHOLE, "openstack": without(CLOUD, "password")}, "password is missing"),
        ("all", {**WHOLE, "openstack": without(CLOUD, "username")}, "wants one of these sets"),
        ("all", {**WHOLE, "openstack": without(CLOUD, "project_name")}, "wants one of these sets"),
        ("all", {**WHOLE, "openstack": without(CLOUD, "user_domain_name")}, "user_domain_name is missing"),
        ("all", {**WHOLE, "openstack": {**CLOUD, "user_id": "x"}}, "username and user_id say the same thing"),
        ("updates_mq", {**WHOLE, "rmq": None}, "rmq.rmq_address: is missing"),
        ("updates_mq", {**WHOLE, "rmq": without(RMQ, "rmq_password")}, "rmq.rmq_password: is missing"),
        ("updates_bulk", {**WHOLE, "concertim": {}}, "concertim.concertim_url: is missing"),
        ("updates_bulk", {**WHOLE, "concertim": {**FRONT, "default_rack_height": "high"}}, "default_rack_height"),
        ("all", {**WHOLE, "log_level": "chatty"}, "log_level"),
        ("all", {**WHOLE, "cloud_type": "aws"}, "cloud_type: wants openstack"),
        ("api", {**WHOLE, "concertim": {**FRONT, "jwt_secret": ["x"]}}, "concertim.jwt_secret: is no text"),
    ],
)
def test_what_is_wrong_is_named_and_no_secret_is(tmp_path: Path, component: str, given: Any, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, component, given, {})
    assert words in str(caught.value)
    for secret in ("os$ec", "rmq/secret", "front-secret"):
        assert secret not in str(caught.value)


def test_without_a_secret_the_api_is_not_served_unless_that_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set JWT_SECRET"):
        read(tmp_path, "api", environ={})
    open_ = {**WHOLE, "concertim": {**FRONT, "api_authentication": False}}
    assert not read(tmp_path, "api", open_, {}).config.faces.concertim.authenticate


def test_what_means_nothing_is_said(tmp_path: Path) -> None:
    odd = {**WHOLE, "speed": 9, "rmq": {**RMQ, "rmq_host": "y"}}
    warnings = read(tmp_path, "all", odd).warnings
    assert [one.partition(" ")[0] for one in warnings] == ["speed", "rmq.rmq_host"]


def test_its_kill_bill_is_ours(tmp_path: Path) -> None:
    bill = {
        "api_host": "http://127.0.0.1:8080", "username": "admin", "password": "bill-secret", "apikey": "bob",
        "apisecret": "lazar-secret", "plan_name": "standard",
    }  # fmt: skip
    found = read(tmp_path, "api", {**WHOLE, "billing_platform": "killbill", "killbill": bill})
    billing = found.config.faces.concertim.billing
    assert (billing.url, billing.api_key, billing.plan) == ("http://127.0.0.1:8080", "bob", "standard")
    assert (billing.password.reveal(), billing.api_secret.reveal()) == ("bill-secret", "lazar-secret")
    assert "not yet worked out" in found.warnings[0]
    with pytest.raises(ConfigError, match=r"killbill\.plan_name: is missing") as caught:
        read(tmp_path, "api", {**WHOLE, "killbill": without(bill, "plan_name")})
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigError, match="billing_platform: wants killbill"):
        read(tmp_path, "api", {**WHOLE, "billing_platform": "paper"})


def test_the_words_of_the_command(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(WHOLE))
    runner = CliRunner()
    for words, said, code in (
        ([], "No 'run' command found", 2),
        (["run=everything"], "there is no component 'everything'", 2),
        (["walk=metrics"], "'walk=metrics' is none of run=", 2),
        (["--process", "fe_cleaning"], "--process wants one of", 2),
        (["run=api", "test=True"], "leave test=True out", 2),
        ([f"config={tmp_path}/none.yaml", "run=metrics"], "can't be read", 2),
        ([f"config={path}", "run=metrics", "--check"], "metrics can be run", 0),
        ([f"config={path}", "--process", "view_queue", "-t", "--check"], "updates_mq can be run", 0),
    ):
        result = runner.invoke(app, words)
        assert said in result.output.replace("\n", " "), (words, result.output)
        assert result.exit_code == code, (words, result.output)
    assert "concertim-openstack-service run=all" in runner.invoke(app, ["--help"]).output


def test_the_old_packages_names_can_be_imported() -> None:
    from con_opstk.concertim.components.device import ConcertimDevice
    from con_opstk.concertim.components.location import Location
    from con_opstk.concertim.components.rack import ConcertimRack
    from con_opstk.concertim.components.template import ConcertimTemplate
    from con_opstk.concertim.components.user import ConcertimUser

    rack = ConcertimRack(id=(1, "s"), rack_name="r", user_id=1, height=4)
    one = ConcertimDevice((1, "a"), "a", rack.id, (1, "f"), Location(4, 4))
    rack.add_device(one)
    assert rack.find_empty_slot(3) == 1
    assert rack.find_empty_slot(4) is None
    with pytest.raises(ValueError, match="does not fit"):
        rack.add_device(ConcertimDevice((2, "b"), "b", rack.id, (1, "f"), Location(3, 4)))
    rack.remove_device(one)
    assert (rack.find_empty_slot(4), rack.concertim_id, rack.openstack_id) == (1, 1, "s")
    assert ConcertimTemplate((1, "f"), "t", 512, 1, 1).description == "Flavor from Openstack"
    assert ConcertimUser((1, "u"), "ann").openstack_project_id is None
