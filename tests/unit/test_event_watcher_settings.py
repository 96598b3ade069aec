"""compat/event_watcher.py: every option of the Event Watcher from every place that it may be in, and how it ends without."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from vedette.cli.event_watcher import app
from vedette.compat.event_watcher import CannotWatch, Watch, check_plugins, load
from vedette.config import show
from vedette.errors import ConfigError
from vedette.kit.clock import SystemClock

SEED = {
    "K8S_TOKEN": "sha256~of-the-seed",
    "K8S_API_ENDPOINT": "master.example.com:8443",
    "K8S_NAMESPACE": "event-watcher",
    "K8S_RESOURCE": "routes",
}
"""The command line of the seed, but for the CA's file."""
NO_POD = Path("/nonexistent")


def loaded(environ: Mapping[str, str], ini: str = "", *, tmp_path: Path, account: Path = NO_POD) -> Watch:
    file = None
    if ini:
        file = tmp_path / "config.ini"
        file.write_text(ini)
    return load(file, environ, account=account)


def source(watch: Watch) -> Any:
    return watch.config.sources[0].options


def handler(watch: Watch, number: int = 0) -> Any:
    return watch.config.handlers[number].options


@pytest.fixture
def pod(tmp_path: Path) -> Path:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("of-the-pod\n")
    (folder / "namespace").write_text("pods-own\n")
    (folder / "ca.crt").write_text("CA")
    return folder


def test_the_seeds_command_line_is_enough_without_an_ini_file(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    ca.write_text("CA")
    watch = loaded({**SEED, "ENV_K8S_CA": str(ca)}, tmp_path=tmp_path)
    options = source(watch)
    assert (options.server, options.token.reveal(), options.ca) == ("https://master.example.com:8443", SEED["K8S_TOKEN"], str(ca))
    assert [(one.resource, one.namespace) for one in options.resources] == [("routes", "event-watcher")]
    assert [one.name for one in watch.config.handlers] == ["simple"]
    assert (watch.log_level, watch.warnings) == ("INFO", ())
    assert handler(watch).k8s_token.reveal() == SEED["K8S_TOKEN"]
    assert handler(watch).k8s_endpoint == SEED["K8S_API_ENDPOINT"]


READ = {
    "K8S_API_ENDPOINT": lambda watch: source(watch).server.removeprefix("https://"),
    "K8S_TOKEN": lambda watch: source(watch).token.reveal(),
    "K8S_NAMESPACE": lambda watch: source(watch).resources[0].namespace,
    "K8S_RESOURCE": lambda watch: source(watch).resources[0].resource,
    "K8S_CA": lambda watch: Path(source(watch).ca).name,
    "LOG_LEVEL": lambda watch: watch.log_level,
    "WATCHER_PLUGIN": lambda watch: ",".join(one.name for one in watch.config.handlers),
    "K8S_NAMESPACED": lambda watch: str(bool(source(watch).resources[0].namespace)),
    "K8S_API_PATH": lambda watch: source(watch).resources[0].resource,
    "K8S_API_GROUP": lambda watch: source(watch).resources[0].resource,
    "K8S_API_VERSION": lambda watch: source(watch).resources[0].resource,
    "PLUGINS_DIR": lambda watch: ",".join(Path(one).name for one in handler(watch).folders),
    "DATA_DIR": lambda watch: Path(watch.config.data_dir).name,
    "LISTEN": lambda watch: str(watch.config.listen[0]),
}
TABLE = [
    # variable, value in the environment → what is meant, value in the ini file → what is meant, with neither
    ("K8S_API_ENDPOINT", ("a.example:1", "a.example:1"), ("b.example:2", "b.example:2"), "kubernetes.default.svc.cluster.local"),
    ("K8S_TOKEN", ("from-env", "from-env"), ("from-ini", "from-ini"), None),
    ("K8S_NAMESPACE", ("env-ns", "env-ns"), ("ini-ns", "ini-ns"), None),
    ("K8S_RESOURCE", ("pods", "pods"), ("services", "services"), None),
    ("K8S_CA", ("{tmp}/env.crt", "env.crt"), ("{tmp}/ini.crt", "ini.crt"), ""),
    ("LOG_LEVEL", ("debug", "DEBUG"), ("ERROR", "ERROR"), "INFO"),
    ("WATCHER_PLUGIN", ("dns,ipa", "dns,ipa"), ("plugin_dns", "dns"), "simple"),
    ("K8S_NAMESPACED", ("False", "False"), ("no", "False"), "True"),
    ("K8S_API_PATH", ("/api/v1/pods", "pods/v1"), ("oapi/v1/namespaces/x/routes", "routes"), "routes"),
    ("K8S_API_GROUP", ("apis/apps", "routes.apps"), ("api", "routes/v1"), "routes"),
    ("K8S_API_VERSION", ("v2", "routes.g.io/v2"), ("v3", "routes.g.io/v3"), "routes.g.io"),
    ("PLUGINS_DIR", ("{tmp}/one,{tmp}/two", "one,two"), ("{tmp}/three", "three"), ""),
    ("DATA_DIR", ("{tmp}/data", "data"), ("{tmp}/other", "other"), ""),
    ("LISTEN", ("127.0.0.1:1", "127.0.0.1:1"), ("127.0.0.1:2", "127.0.0.1:2"), "127.0.0.1:0"),
]


@pytest.mark.parametrize(("name", "env", "ini", "default"), TABLE, ids=[row[0] for row in TABLE])
def test_an_option_is_the_environments_then_the_files_then_its_default(
    tmp_path: Path, name: str, env: tuple[str, str], ini: tuple[str, str], default: str | None
) -> None:
    for file in ("env.crt", "ini.crt"):
        (tmp_path / file).write_text("CA")
    others = {key: value for key, value in SEED.items() if key != name}
    if name == "K8S_API_VERSION":
        others["K8S_API_GROUP"] = "g.io"
    text = f"[global]\n{name.lower()} = {ini[0]}\n".replace("{tmp}", str(tmp_path))
    given = {name: env[0].replace("{tmp}", str(tmp_path))}
    assert READ[name](loaded({**others, **given}, text, tmp_path=tmp_path)) == env[1]
    assert READ[name](loaded(others, text, tmp_path=tmp_path)) == ini[1]
    assert READ[name](loaded({**others, name: ""}, text, tmp_path=tmp_path)) == ini[1]
    if default is not None:
        assert READ[name](loaded(others, tmp_path=tmp_path)) == default


def test_a_pod_is_who_its_files_say(tmp_path: Path, pod: Path) -> None:
    watch = loaded({"K8S_RESOURCE": "routes"}, tmp_path=tmp_path, account=pod)
    options = source(watch)
    assert options.server == "https://kubernetes.default.svc.cluster.local"
    # The file, and not what it holds: it is replaced while we run.
    assert (options.token_file, options.token.reveal(), options.ca) == (str(pod / "token"), "", str(pod / "ca.crt"))
    assert handler(watch).k8s_token_file == str(pod / "token")
    assert options.resources[0].namespace == handler(watch).k8s_namespace == "pods-own"
    watch = loaded(SEED, tmp_path=tmp_path, account=pod)
    assert (source(watch).token_file, source(watch).resources[0].namespace) == ("", "event-watcher")


CODES = [
    (31, {"K8S_RESOURCE": ""}),
    (31, {"K8S_RESOURCE": "../secrets"}),
    (31, {"K8S_RESOURCE": "routes?watch=true"}),
    (31, {"K8S_API_PATH": "/healthz"}),
    (31, {"K8S_API_GROUP": "apis/../x"}),
    (32, {"K8S_NAMESPACE": ""}),
    (32, {"K8S_NAMESPACE": "../kube-system"}),
    (32, {"K8S_API_PATH": "/api/v1/namespaces/Not_One/pods"}),
    (33, {"K8S_API_ENDPOINT": "host:port"}),
    (33, {"K8S_API_ENDPOINT": "ftp://host"}),
    (33, {"K8S_API_ENDPOINT": "http://master.example.com"}),
    (33, {"K8S_API_ENDPOINT": "user:pass@host:8443"}),
    (33, {"K8S_API_ENDPOINT": "two words"}),
    (34, {"K8S_TOKEN": ""}),
    (34, {"K8S_TOKEN": "two words"}),
    (21, {"LOG_LEVEL": "LOUD"}),
    (21, {"WATCHER_PLUGIN": "../../etc/x"}),
    (21, {"WATCHER_PLUGIN": ","}),
    (21, {"K8S_NAMESPACED": "perhaps"}),
    (21, {"WATCHER_PLUGIN": "nobodys"}),
    (21, {"PLUGINS_DIR": "/nonexistent/plugins"}),
    (21, {"LISTEN": "0.0.0.0:8470"}),
    (1, {"CONFIG_FILE": "/nonexistent/config.ini"}),
]


@pytest.mark.parametrize(
    ("code", "changed"), CODES, ids=lambda value: "-".join(map(str, value)) if isinstance(value, dict) else value
)
def test_what_is_wrong_ends_the_command_with_its_code(code: int, changed: Mapping[str, str]) -> None:
    none = dict.fromkeys(("K8S_CA", "ENV_K8S_CA", "CONFIG_FILE", "WATCHER_PLUGIN", "K8S_API_PATH"), "")
    result = CliRunner().invoke(app, ["--check"], env={**none, **SEED, **changed})
    assert result.exit_code == code, result.output
    assert "Error: " in result.output
    (name,) = changed
    if name != "CONFIG_FILE":
        assert name in result.output or name in ("WATCHER_PLUGIN", "PLUGINS_DIR", "LISTEN")
    assert SEED["K8S_TOKEN"] not in result.output


def test_check_loads_the_plugins_and_ends(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--check"], env={**SEED, "WATCHER_PLUGIN": "simple,dns,ipa", "K8S_CA": ""})
    assert result.exit_code == 0, result.output
    assert "Plugin plugin_ipa is loaded" in result.output
    assert "InsecureError (40)" in result.output
    assert SEED["K8S_TOKEN"] not in result.output


@pytest.mark.parametrize(
    "text", ["[global\n", "no section = 1\n", "[global]\nk8s_token sha256~secret\n", "[a]\nb=1\nb=2\n", "\0"]
)
def test_a_file_that_is_none_is_not_quoted(tmp_path: Path, text: str) -> None:
    with pytest.raises(CannotWatch) as caught:
        loaded(SEED, text, tmp_path=tmp_path)
    assert caught.value.code == 1
    assert "sha256" not in str(caught.value)


@given(st.binary(max_size=300))
def test_no_file_is_more_than_a_wrong_one(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file, suppress(ConfigError):
        file.write(data)
        file.flush()
        load(Path(file.name), SEED, account=NO_POD)


@given(st.dictionaries(st.sampled_from(sorted(READ)), st.text(max_size=60)))
def test_no_value_is_more_than_a_wrong_one(environ: dict[str, str]) -> None:
    with suppress(ConfigError):
        load(None, {**SEED, **environ}, account=NO_POD)


PATHS = [
    ("/apis/route.openshift.io/v1/namespaces/shop/routes", "routes.route.openshift.io/v1", "shop"),
    ("/apis/route.openshift.io/v1/routes?watch=true", "routes.route.openshift.io/v1", ""),
    ("api/v1/watch/namespaces/shop/pods", "pods/v1", "shop"),
    ("/oapi/v1/namespaces/shop/routes", "routes", "shop"),
]


@pytest.mark.parametrize(("path", "resource", "namespace"), PATHS)
def test_a_whole_path_says_everything(tmp_path: Path, path: str, resource: str, namespace: str) -> None:
    environ = {**SEED, "K8S_API_PATH": path, "K8S_RESOURCE": "", "K8S_NAMESPACE": ""}
    (watched,) = source(loaded(environ, tmp_path=tmp_path)).resources
    assert (watched.resource, watched.namespace) == (resource, namespace)


def test_selectors_of_a_path_are_kept(tmp_path: Path) -> None:
    path = "/api/v1/pods?watch=true&labelSelector=app%3Dweb&fieldSelector=metadata.name%3Da"
    (watched,) = source(loaded({**SEED, "K8S_API_PATH": path}, tmp_path=tmp_path)).resources
    assert (watched.label_selector, watched.field_selector) == ("app=web", "metadata.name=a")


GROUPS = [
    ({}, "routes"),
    ({"K8S_API_GROUP": "oapi", "K8S_API_VERSION": "v1"}, "routes"),
    ({"K8S_API_GROUP": "api"}, "routes/v1"),
    ({"K8S_API_GROUP": "apis/route.openshift.io", "K8S_API_VERSION": "v1"}, "routes.route.openshift.io/v1"),
    ({"K8S_API_GROUP": "/apis/batch/v1"}, "routes.batch/v1"),
    ({"K8S_RESOURCE": "deployments.apps/v1", "K8S_API_GROUP": "api"}, "deployments.apps/v1"),
]


@pytest.mark.parametrize(("environ", "resource"), GROUPS)
def test_group_and_version_are_those_of_the_url_that_was(tmp_path: Path, environ: dict[str, str], resource: str) -> None:
    (watched,) = source(loaded({**SEED, **environ}, tmp_path=tmp_path)).resources
    assert (watched.resource, watched.namespace) == (resource, "event-watcher")


def test_plugins_know_the_namespace_also_where_all_are_watched(tmp_path: Path) -> None:
    watch = loaded({**SEED, "K8S_NAMESPACED": "False"}, tmp_path=tmp_path)
    assert (source(watch).resources[0].namespace, handler(watch).k8s_namespace) == ("", "event-watcher")


def test_a_ca_that_is_not_there_is_a_warning_and_certificates_are_verified_all_the_same(tmp_path: Path) -> None:
    for environ in ({}, {"K8S_CA": "/nonexistent/ca.crt"}):
        watch = loaded({**SEED, **environ}, tmp_path=tmp_path)
        (warning,) = watch.warnings
        assert warning.startswith("InsecureError (40): ")
        assert "verified with the system's CAs" in warning
        assert source(watch).ca == ""


def test_a_plugins_section_is_its_config_and_is_shown_nowhere(tmp_path: Path) -> None:
    ini = "[plugin_ipa]\nipa_password = 100%%\nipa_user = ad%min\nport = 8443\n[global]\nwatcher_plugin = simple, ipa\n"
    watch = loaded(SEED, ini, tmp_path=tmp_path)
    config = {key: value.reveal() for key, value in handler(watch, 1).config.items()}
    assert config == {"ipa_password": "100%", "ipa_user": "ad%min", "port": "8443"}
    assert handler(watch).config == {}
    shown = show(watch.config) + repr(watch)
    assert "100%" not in shown
    assert SEED["K8S_TOKEN"] not in shown


def test_what_nobody_knows_is_a_warning_with_what_was_meant(tmp_path: Path) -> None:
    watch = loaded(SEED, "[global]\nk8s_resorce = pods\n[plugins]\na = b\n", tmp_path=tmp_path)
    assert "[global] k8s_resorce is nobody's; did you mean k8s_resource?" in watch.warnings
    assert any("[plugins]" in warning for warning in watch.warnings)


def test_everything_that_is_there_is_told_to_a_new_plugin_one_after_the_other(tmp_path: Path) -> None:
    one = loaded(SEED, tmp_path=tmp_path).config.handlers[0]
    assert (one.start, one.concurrency) == ("earliest", 1)


def test_without_a_data_dir_the_start_says_what_a_restart_does(tmp_path: Path) -> None:
    assert any("DATA_DIR" in line for line in loaded(SEED, tmp_path=tmp_path).lines)
    assert not any("DATA_DIR" in line for line in loaded({**SEED, "DATA_DIR": str(tmp_path)}, tmp_path=tmp_path).lines)


async def test_a_plugin_that_cannot_be_imported_says_where(tmp_path: Path) -> None:
    (tmp_path / "plugin_broken.py").write_text("import nothing_of_this_name\n")
    watch = load(None, {**SEED, "WATCHER_PLUGIN": "broken"}, beside=tmp_path, account=NO_POD)
    with pytest.raises(CannotWatch, match=r"plugin_broken can't be loaded: .*nothing_of_this_name.*plugin_broken\.py line 1"):
        await check_plugins(watch.config, SystemClock())


def test_a_file_that_may_not_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(CannotWatch, match="can't be read: Is a directory"):
        load(tmp_path, SEED, account=NO_POD)
