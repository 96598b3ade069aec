"""deploy/event-watcher: the account may do what its plugins need and no more, the pod is not root; each setting is described."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from vedette.compat.event_watcher import SETTINGS, load

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "event-watcher"
PAGE = ROOT / "docs" / "howto" / "from-event-watcher.md"
SAMPLE = ROOT / "examples" / "event-watcher" / "conf" / "config.ini.sample"
MANIFESTS = sorted(FOLDER.glob("*.yaml"))


def parts(name: str) -> dict[str, Any]:
    """Kind → the object."""
    every = [part for part in yaml.safe_load_all((FOLDER / name).read_text()) if part]
    found = {part["kind"]: part for part in every}
    assert len(found) == len(every)
    return found


def rights(name: str) -> set[tuple[str, str, str]]:
    rules = parts(name)["Role"]["rules"]
    return {
        (group, resource, verb) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]
        for verb in rule["verbs"]
    }  # fmt: skip


def test_the_account_may_read_what_the_configuration_names_and_nothing_else(tmp_path: Path) -> None:
    made = parts("event-watcher.yaml")
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text(made["Deployment"]["metadata"]["namespace"])
    (tmp_path / "ca.crt").write_text("CA")
    ini = tmp_path / "config.ini"
    ini.write_text(made["ConfigMap"]["data"]["config.ini"])
    watch = load(ini, {}, account=tmp_path)
    (watched,) = watch.config.sources[0].options.resources
    assert not watch.warnings
    assert (watched.resource, watched.namespace) == ("routes", made["Role"]["metadata"]["namespace"])
    assert rights("event-watcher.yaml") == {("route.openshift.io", "routes", verb) for verb in ("get", "list", "watch")}


def test_certificates_want_two_rights_more() -> None:
    assert rights("certificates.yaml") == {
        ("route.openshift.io", "routes", "patch"),
        ("route.openshift.io", "routes/custom-host", "create"),
        ("route.openshift.io", "routes/custom-host", "update"),
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_each_role_is_one_namespaces_and_is_bound_to_the_pods_account(path: Path) -> None:
    made = parts(path.name)
    account = parts("event-watcher.yaml")["ServiceAccount"]["metadata"]
    assert "ClusterRole" not in made
    assert "ClusterRoleBinding" not in made
    binding, role = made["RoleBinding"], made["Role"]["metadata"]
    assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == ("Role", role["name"])
    assert [(one["name"], one["namespace"]) for one in binding["subjects"]] == [(account["name"], account["namespace"])]
    assert binding["metadata"]["namespace"] == role["namespace"] == account["namespace"]


def test_the_pod_is_not_root_and_writes_into_its_volumes_only() -> None:
    made = parts("event-watcher.yaml")
    deployment = made["Deployment"]["spec"]
    pod = deployment["template"]["spec"]
    (container,) = pod["containers"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    assert pod["serviceAccountName"] == made["ServiceAccount"]["metadata"]["name"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    environ = {one["name"]: one["value"] for one in container["env"]}
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert {name.lower() for name in environ} <= {*SETTINGS, "config_file"}
    assert Path(environ["CONFIG_FILE"]).name in made["ConfigMap"]["data"]
    assert volumes[mounts[str(Path(environ["CONFIG_FILE"]).parent)]["name"]]["configMap"]["name"] == "event-watcher"
    assert "emptyDir" in volumes[mounts[str(Path(environ["DATA_DIR"]).parent)]["name"]]
    assert all("sizeLimit" in one["emptyDir"] for one in volumes.values() if "emptyDir" in one)


def test_the_image_runs_the_command_as_a_user_that_is_a_number() -> None:
    text = (FOLDER / "Containerfile").read_text()
    users = re.findall(r"^USER (\d+)", text, re.MULTILINE)
    assert users
    assert "0" not in users
    assert 'ENTRYPOINT ["event-watcher"]' in text


def test_the_page_and_the_sample_have_every_setting_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \|", PAGE.read_text(), re.MULTILINE)
    assert sorted(name.lower() for name in rows) == sorted(SETTINGS)
    head = SAMPLE.read_text().partition("[plugin_")[0]
    assert sorted(re.findall(r"^#?([a-z0-9_]+) = ", head, re.MULTILINE)) == sorted(SETTINGS)


def test_the_sample_is_what_the_command_takes(tmp_path: Path) -> None:
    text = re.sub(r"^#(?=[a-z0-9_]+ = )", "", SAMPLE.read_text(), flags=re.MULTILINE)
    for name, ini in (("as it is", SAMPLE.read_text()), ("with every key", text)):
        file = tmp_path / f"{name}.ini"
        file.write_text(ini)
        watch = load(file, {}, account=tmp_path)
        assert [one for one in watch.warnings if "InsecureError" not in one] == []
