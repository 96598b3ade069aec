"""deploy/kubernetes: an account may get, list and watch what the example's configuration names, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from vedette.config import load_text

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("watch*.yaml"))


def parts(path: Path) -> list[dict[str, Any]]:
    return [part for part in yaml.safe_load_all(path.read_text()) if part]


def allowed(path: Path) -> set[tuple[str, str]]:
    """(namespace, resource.group) of every rule."""
    found = set()
    for part in parts(path):
        for rule in part.get("rules", ()):
            namespace = part["metadata"].get("namespace", "")
            found |= {(namespace, f"{name}.{group}".rstrip(".")) for name in rule["resources"] for group in rule["apiGroups"]}
    return found


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_nothing_but_reading_is_allowed_and_nothing_by_a_wildcard(path: Path) -> None:
    rules = [rule for part in parts(path) for rule in part.get("rules", ())]
    assert rules
    for rule in rules:
        assert rule["verbs"] == ["get", "list", "watch"]
        assert "*" not in [*rule["apiGroups"], *rule["resources"]]
        assert "secrets" not in rule["resources"]
        assert "nonResourceURLs" not in rule


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_role_is_bound_to_the_account_that_is_made_there(path: Path) -> None:
    made = parts(path)
    accounts = {(one["metadata"]["name"], one["metadata"]["namespace"]) for one in made if one["kind"] == "ServiceAccount"}
    roles = {(one["kind"], one["metadata"].get("namespace", "")) for one in made if one["kind"].endswith("Role")}
    bound = set()
    for one in made:
        if one["kind"].endswith("RoleBinding"):
            assert {(subject["name"], subject["namespace"]) for subject in one["subjects"]} == accounts
            bound.add((one["roleRef"]["kind"], one["metadata"].get("namespace", "")))
    assert bound == roles


def test_the_rights_are_those_that_the_example_needs() -> None:
    text = (ROOT / "examples" / "kubernetes.yaml").read_text()
    config = load_text(text, {"RABBIT_PASSWORD": "x"})
    (options,) = [one.options for one in config.sources if one.type == "kubernetes"]
    needed = {(watched.namespace, watched.resource.partition("/")[0]) for watched in options.resources}
    assert allowed(ROOT / "deploy" / "kubernetes" / "watch.yaml") == needed
