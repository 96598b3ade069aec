"""Where credentials come from: settings, OS_* variables, clouds.yaml. openstacksdk reads the same files and is asked too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from vedette.clients.keystone import Credentials, credentials, places
from vedette.errors import ConfigError
from vedette.kit.secret import Secret

URL = "https://keystone.test:5000/v3"
PASSWORD = "hunter2-very-secret"


def write(folder: Path, name: str, clouds: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(yaml.safe_dump({"clouds": clouds}))
    return path


def entry(**auth: Any) -> dict[str, Any]:
    return {"auth": {"auth_url": URL, "username": "ann", "password": PASSWORD, "project_name": "one", **auth}}


def of(settings: Mapping[str, Any] | None = None, *folders: Path, **environ: str) -> Credentials:
    return credentials(settings, environ=environ, folders=folders)


# --- settings


def test_a_user_with_a_password_and_names_in_the_default_domain() -> None:
    made = of({"auth_url": URL, "username": "ann", "password": Secret(PASSWORD), "project_name": "service"})
    assert made == Credentials(
        auth_url=URL,
        username="ann",
        password=Secret(PASSWORD),
        user_domain_id="default",
        project_name="service",
        project_domain_id="default",
    )


@pytest.mark.parametrize(
    ("written", "asked"),
    [
        ("http://ks:5000", "http://ks:5000/v3"),
        ("http://ks:5000/", "http://ks:5000/v3"),
        ("http://ks:5000/v3/", "http://ks:5000/v3"),
        ("http://ks:5000/v2.0", "http://ks:5000/v3"),
        ("https://cloud/identity", "https://cloud/identity/v3"),
        ("https://cloud/identity/v2.0/", "https://cloud/identity/v3"),
        ("https://[::1]:5000/v3", "https://[::1]:5000/v3"),
    ],
)
def test_an_address_is_understood_however_it_is_written(written: str, asked: str) -> None:
    assert of({"auth_url": written, "username": "ann", "password": PASSWORD}).auth_url == asked


@pytest.mark.parametrize(
    "written",
    [
        "",
        "keystone:5000",
        "ftp://ks/v3",
        "https://",
        "https://ann:hunter2-very-secret@ks/v3",
        "https://ks/v3?x=1",
        "http://ks:no/v3",
    ],
)
def test_what_is_no_address_is_refused_without_repeating_it(written: str) -> None:
    with pytest.raises(ConfigError, match="auth_url") as refused:
        of({"auth_url": written, "username": "ann", "password": PASSWORD})
    assert PASSWORD not in str(refused.value)


def test_the_tenant_of_identity_v2_is_a_project() -> None:
    old = {"auth_url": "http://localhost:5000/v2.0", "user": "ann", "password": PASSWORD, "tenant": "admin"}
    made = of(old)
    assert (made.auth_url, made.username, made.project_name, made.project_domain_id) == (
        "http://localhost:5000/v3",
        "ann",
        "admin",
        "default",
    )
    assert of({**old, "tenant_name": "newer", "project_name": "newest"}).project_name == "newest"
    assert of({"auth_url": URL, "username": "ann", "password": PASSWORD, "tenant_id": "abc"}).project_id == "abc"


def test_domains_by_name_by_default_and_by_a_plain_domain() -> None:
    base = {"auth_url": URL, "username": "ann", "password": PASSWORD, "project_name": "one"}
    by_default = of({**base, "default_domain_name": "Corp"})
    assert (by_default.user_domain_name, by_default.project_domain_name) == ("Corp", "Corp")
    plain = of({**base, "domain_id": "d1"})
    assert (plain.user_domain_id, plain.project_domain_id, plain.domain_id) == ("d1", "d1", "")
    scope = of({"auth_url": URL, "user_id": "u1", "password": PASSWORD, "domain_id": "d1"})
    assert (scope.user_domain_id, scope.domain_id) == ("", "d1")


def test_an_application_credential_brings_its_own_scope() -> None:
    made = of(
        {
            "auth_url": URL,
            "auth_type": "v3applicationcredential",
            "application_credential_id": "c1",
            "application_credential_secret": PASSWORD,
            "project_name": "ignored: Keystone would refuse it",
        }
    )
    assert made.application_credential_secret.reveal() == PASSWORD
    assert (made.project_name, made.password) == ("", Secret())


@pytest.mark.parametrize(
    ("settings", "about"),
    [
        ({"username": "ann"}, "no credentials"),
        ({"password": PASSWORD}, "username"),
        ({"auth_type": "password", "username": "ann", "token": PASSWORD}, "password"),
        ({"application_credential_secret": PASSWORD}, "application_credential_id"),
        ({"application_credential_secret": PASSWORD, "application_credential_name": "x"}, "application_credential_id"),
        ({"auth_type": "v3oidcpassword", "password": PASSWORD, "username": "ann"}, "v3oidcpassword"),
        ({"username": "ann", "password": PASSWORD, "project_id": "p", "system_scope": "all"}, "one scope"),
        ({"username": "ann", "password": PASSWORD, "verify": False}, "always verified"),
        ({"username": "ann", "password": PASSWORD, "insecure": "True"}, "always verified"),
        ({"username": "ann", "passwort": PASSWORD}, "passwort"),
        ({"username": ["ann"], "password": PASSWORD}, "username"),
    ],
)
def test_what_cannot_work_is_said_by_name_and_never_with_the_secret(settings: dict[str, Any], about: str) -> None:
    # An entry that openstacksdk would have found: what is wrong above must not be completed from it by chance.
    with pytest.raises(ConfigError, match=about) as refused:
        credentials({"auth_url": URL, **settings}, environ={"OS_AUTH_URL": URL}, folders=())
    assert PASSWORD not in str(refused.value)


def test_no_text_of_credentials_shows_a_secret() -> None:
    made = of({"auth_url": URL, "username": "ann", "password": PASSWORD})
    assert PASSWORD not in f"{made} {made!r} {made.__rich_repr__()}"
    assert "ann" in repr(made)


# --- variables


def test_variables_of_a_current_and_of_an_old_openrc() -> None:
    current = {
        "OS_AUTH_URL": URL,
        "OS_USERNAME": "ann",
        "OS_PASSWORD": PASSWORD,
        "OS_PROJECT_NAME": "one",
        "OS_USER_DOMAIN_NAME": "Corp",
        "OS_PROJECT_DOMAIN_NAME": "Corp",
        "OS_CACERT": "/etc/ca.pem",
        "OS_REGION_NAME": "RegionOne",
        "OS_IDENTITY_API_VERSION": "3",
        "OS_INTERFACE": "public",
        "OS_TENANT_NAME": "",
    }
    made = of(None, **current)
    assert (made.username, made.user_domain_name, made.project_name, made.cacert) == ("ann", "Corp", "one", "/etc/ca.pem")
    old = {"OS_AUTH_URL": "http://ks:5000/v2.0", "OS_USERNAME": "ann", "OS_PASSWORD": PASSWORD, "OS_TENANT_NAME": "one"}
    assert (of(None, **old).auth_url, of(None, **old).project_name) == ("http://ks:5000/v3", "one")


def test_settings_that_log_in_by_themselves_take_nothing_from_the_environment() -> None:
    made = of(
        {"auth_url": URL, "username": "vedette", "password": PASSWORD},
        OS_AUTH_URL="https://elsewhere/v3",
        OS_PROJECT_NAME="admin",
        OS_USERNAME="ann",
    )
    assert (made.auth_url, made.username, made.project_name) == (URL, "vedette", "")


def test_a_cloud_goes_before_variables_and_settings_before_the_cloud(tmp_path: Path) -> None:
    write(tmp_path, "clouds.yaml", {"lab": entry(), "other": entry(username="bob")})
    environ = {"OS_CLOUD": "lab", "OS_USERNAME": "zoe", "OS_PASSWORD": "x", "OS_AUTH_URL": "https://elsewhere/v3"}
    assert of(None, tmp_path, **environ).username == "ann"
    assert of({"cloud": "other"}, tmp_path, **environ).username == "bob"
    mine = of({"cloud": "lab", "project_id": "p9"}, tmp_path, **environ)
    assert (mine.username, mine.project_id, mine.project_name) == ("ann", "p9", "")
    app = of({"cloud": "lab", "application_credential_id": "c", "application_credential_secret": "s"}, tmp_path)
    assert (app.password, app.application_credential_id) == (Secret(), "c")


# --- clouds.yaml


def test_the_first_folder_with_the_file_wins_and_secure_yaml_is_laid_over_it(tmp_path: Path) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    write(far, "clouds.yaml", {"lab": entry(username="far")})
    assert of({"cloud": "lab"}, near, far).username == "far"
    without = entry()
    del without["auth"]["password"]
    write(near, "clouds.yml", {"lab": without})
    write(far, "secure.yaml", {"lab": {"auth": {"password": "from-secure"}}, "unrelated": {}})
    made = of({"cloud": "lab"}, near, far)
    assert (made.username, made.password.reveal()) == ("ann", "from-secure")


def test_the_files_named_by_variables_are_looked_at_first(tmp_path: Path) -> None:
    write(tmp_path, "clouds.yaml", {"lab": entry()})
    mine = write(tmp_path / "mine", "my-clouds.yaml", {"lab": entry(username="mine")})
    secure = write(tmp_path / "mine", "my-secure.yaml", {"lab": {"auth": {"password": "mine too"}}})
    made = of({"cloud": "lab"}, tmp_path, OS_CLIENT_CONFIG_FILE=str(mine), OS_CLIENT_SECURE_FILE=str(secure))
    assert (made.username, made.password.reveal()) == ("mine", "mine too")


def test_the_only_cloud_is_taken_and_of_several_one_must_be_named(tmp_path: Path) -> None:
    write(tmp_path, "clouds.yaml", {"lab": entry()})
    assert of(None, tmp_path).username == "ann"
    write(tmp_path, "clouds.yaml", {"lab": entry(), "prod": entry()})
    with pytest.raises(ConfigError, match="lab, prod"):
        of(None, tmp_path)
    with pytest.raises(ConfigError, match=r"'test'.*lab, prod"):
        of({"cloud": "test"}, tmp_path)
    with pytest.raises(ConfigError, match=r"no clouds\.yaml was found in"):
        of({"cloud": "test"}, tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"OS_\*"):
        of(None, tmp_path / "empty")


@pytest.mark.parametrize(
    "text",
    [
        f"clouds:\n  lab:\n    auth: {{password: {PASSWORD}\n",
        f"clouds:\n  lab: {PASSWORD}\n",
        f"clouds: [{PASSWORD}]\n",
        f"clouds:\n  lab:\n    auth: {PASSWORD}\n",
        f"clouds:\n  lab:\n    auth: {{auth_url: '{URL}', password: [{PASSWORD}]}}\n",
        f"- {PASSWORD}\n",
        "",
        "\x00\xff",
    ],
)
def test_a_file_that_is_no_clouds_yaml_is_refused_without_showing_what_is_in_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "clouds.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        of({"cloud": "lab"}, tmp_path)
    assert PASSWORD not in str(refused.value)
    assert refused.value.__context__ is None or PASSWORD not in repr(refused.value.__context__)


def test_a_file_is_data_and_runs_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "clouds.yaml").write_text(f"clouds:\n  lab: !!python/object/apply:os.mkdir ['{ran}']\n")
    with pytest.raises(ConfigError, match=r"line 2.*is not YAML"):
        of({"cloud": "lab"}, tmp_path)
    assert not ran.exists()


def test_places_are_those_of_openstacksdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert places({"HOME": "/home/ann"}) == (tmp_path, Path("/home/ann/.config/openstack"), Path("/etc/openstack"))


NAMES = st.sampled_from(["ann", "bob", "default", "d 1", "ümlaut", "0"])
AUTHS = st.fixed_dictionaries(
    {"auth_url": st.just(URL), "username": NAMES, "password": st.just(PASSWORD)},
    optional={
        "user_domain_name": NAMES,
        "project_name": NAMES,
        "project_domain_name": NAMES,
        "tenant_name": NAMES,
        "project_id": NAMES,
    },
)


@pytest.mark.filterwarnings("ignore:Support for InfluxDB")
@settings(deadline=None)
@given(auth=AUTHS, secure=st.one_of(st.none(), st.just({"password": "other"})), flat=st.booleans())
def test_openstacksdk_reads_the_same_out_of_the_same_files(
    tmp_path_factory: pytest.TempPathFactory, auth: dict[str, str], secure: dict[str, str] | None, flat: bool
) -> None:
    sdk = pytest.importorskip("openstack.config")
    folder = tmp_path_factory.mktemp("clouds")
    cloud: dict[str, Any] = {"auth": dict(auth), "region_name": "r1", "identity_api_version": 3}
    if flat and "project_name" in auth:
        cloud["project_name"] = cloud["auth"].pop("project_name")
    write(folder, "clouds.yaml", {"lab": cloud})
    if secure:
        write(folder, "secure.yaml", {"lab": {"auth": secure}})
    theirs = sdk.OpenStackConfig(
        config_files=[str(folder / "clouds.yaml")],
        secure_files=[str(folder / "secure.yaml")],
        vendor_files=[],
        load_envvars=False,
    ).get_one("lab", validate=False)
    expected = theirs.config["auth"]
    made = of({"cloud": "lab"}, folder)
    assert made.password.reveal() == expected["password"]
    assert made.username == expected["username"]
    if expected.get("project_id"):
        assert made.project_id == expected["project_id"]
    if expected.get("project_name"):
        assert made.project_name == expected["project_name"]
    for ours, name in ((made.user_domain_name, "user_domain_name"), (made.project_domain_name, "project_domain_name")):
        if name in expected:
            assert ours == expected[name]
