"""`vedette doctor` and the clusters that a configuration follows: a server over TLS, in the states that operators find one in.

Each test makes one thing wrong and looks for the one finding that says so, with its fix.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_processes import free_port, run
from hypothesis import given
from hypothesis import strategies as st

from vedette.cli.diagnose_cluster import Claims, claims_of, near_to, version_of
from vedette.clients.kubernetes import Kubernetes, static
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.testing.kubernetes import USER, FakeKubernetes
from vedette.testing.tls import Authority

Findings = list[dict[str, str]]


def jwt(seconds: float, **more: Any) -> str:
    """A service account's token that ends in so many seconds; its signature is none."""
    claims = {"exp": int(time.time() + seconds), "sub": USER, **more}
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (*parts, b"signed"))


class Patient:
    """A cluster with a few resources, a configuration that follows it, and what the doctor says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority(folder / "tls")
        self.token_file = folder / "prod.token"
        good = jwt(90 * 86_400)
        self.cluster = FakeKubernetes(token=good, tls=self.authority.server(days=90).server_context())
        self.token_file.write_text(good)
        self.namespaces = self.cluster.define("v1", "namespaces", "Namespace", namespaced=False)
        self.cluster.define("v1", "secrets", "Secret")
        self.cluster.define("v1", "pods", "Pod", short_names=("po",))
        self.cluster.define("route.openshift.io/v1", "routes", "Route")
        for name in ("shop", "blog"):
            self.cluster.put(self.namespaces, name)

    async def examined(self, *resources: Any, **more: Any) -> tuple[int, Findings]:
        entries = [{"resource": one} if isinstance(one, str) else one for one in resources]
        way = {"server": self.cluster.url, "token_file": str(self.token_file), "ca": str(self.authority.ca)}
        source = {"name": "prod", "type": "kubernetes", "resources": entries or [{"resource": "pods/v1"}], **way, **more}
        source = {name: value for name, value in source.items() if value is not None}
        path = self.folder / "vedette.yaml"
        limits = {"retention": {"max_bytes": "1MiB"}, "watch": {"max_watchers": 100}}
        own = {"listen": f"127.0.0.1:{free_port()}", "data_dir": str(self.folder / "data"), "sources": [source], **limits}
        path.write_text(yaml.safe_dump(own))
        code, out, err = await run("doctor", "--config", str(path), "-o", "json", KUBERNETES_SERVICE_HOST="")
        assert err == ""
        assert not self.cluster.token or self.cluster.token not in out
        return code, [json.loads(line) for line in out.splitlines()]


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Patient]:
    one = Patient(tmp_path)
    async with one.cluster:
        yield one


def the(findings: Findings, text: str) -> dict[str, str]:
    """The one finding whose message has this text."""
    found = [one for one in findings if text in one["message"]]
    assert len(found) == 1, f"{text!r} in: {json.dumps(findings, indent=1)}"
    return found[0]


async def test_a_cluster_that_is_well(patient: Patient) -> None:
    shop = {"resource": "po", "namespace": "shop"}
    code, findings = await patient.examined("routes.route.openshift.io/v1", shop, projects={"blog": "p1"})
    assert code == 0
    assert {one["level"] for one in findings} == {"ok", "note"}
    assert the(findings, f"{patient.cluster.url} answers: Kubernetes v1.36.0")["about"] == "cluster prod"
    assert f"TLS is verified by `ca` {patient.authority.ca}; " in the(findings, "TLS is verified")["message"]
    accepted = the(findings, "is accepted")
    assert f"`token_file` {patient.token_file} is accepted, as {USER}; it ends at 20" in accepted["message"]
    assert the(findings, "may be listed and watched: routes.route.openshift.io/v1, pods/v1 in shop")["level"] == "ok"
    assert the(findings, "the namespaces that are named exist: blog, shop")["level"] == "ok"
    assert the(findings, "the clock of cluster prod agrees")["level"] == "ok"
    # It only looked.
    assert {one.verb for one in patient.cluster.requests} <= {"", "list"}
    assert not [one for one in patient.cluster.requests if one.method == "POST" and "/selfsubject" not in one.path]


async def test_a_server_that_is_not_there_and_one_that_is_no_cluster(patient: Patient) -> None:
    code, findings = await patient.examined(server=f"https://127.0.0.1:{free_port()}")
    assert code == 1
    unheard = the(findings, "can't be asked")
    assert (unheard["level"], unheard["fix"][-8:]) == ("fail", "/version")
    code, findings = await patient.examined(server=f"{patient.cluster.url}/elsewhere", timeout=5)
    assert code == 1
    assert "curl -i" in the(findings, "not as a Kubernetes API does")["fix"]


async def test_a_certificate_of_somebody_else_stops_the_rest(patient: Patient) -> None:
    other = Authority(patient.folder / "other")
    code, findings = await patient.examined(ca=str(other.ca))
    assert code == 1
    assert "in the configuration (ca)" in the(findings, "is not accepted")["fix"]
    assert not patient.cluster.requests
    code, findings = await patient.examined(ca=str(patient.folder / "none.crt"))
    assert code == 1


async def test_a_token_that_is_refused_says_where_it_is_from_and_how_to_get_another(patient: Patient) -> None:
    patient.token_file.write_text(jwt(-60))
    code, findings = await patient.examined()
    assert code == 1
    refused = the(findings, "is not accepted; it ended at 20")
    assert str(patient.token_file) in refused["message"]
    assert refused["fix"].startswith(f"kubectl -n vedette create token watcher --duration 720h > {patient.token_file}\n")
    assert "the file is read again each minute, and at once when its token is refused: no restart" in refused["fix"]
    assert "deploy/kubernetes/token.yaml" in refused["fix"]
    code, findings = await patient.examined(token="wrong", token_file=None)
    assert code == 1
    refused = the(findings, "the token in `token` is not accepted: ")
    assert "restart the service" in refused["fix"]
    assert "wrong" not in json.dumps(findings)


async def test_a_token_that_ends_today_and_those_that_do_not_say(patient: Patient) -> None:
    async def with_token(token: str) -> dict[str, str]:
        patient.cluster.rotate_token(token)
        patient.token_file.write_text(f"{token}\n")
        code, findings = await patient.examined()
        assert code == 0
        return the(findings, "is accepted")

    soon = await with_token(jwt(7200))
    assert soon["level"] == "warn"
    assert "in 2.0 hours" in soon["message"]
    assert "the file is read again" in soon["fix"]
    oauth = await with_token("sha256~abc")
    assert (oauth["level"], "by default they end after 24 hours" in oauth["message"]) == ("note", True)
    assert (await with_token("opaque-token"))["level"] == "ok"


async def test_a_kubeconfig_s_token_and_its_certificates(patient: Patient) -> None:
    file = patient.folder / "kubeconfig"
    ca = base64.b64encode(patient.authority.ca.read_bytes()).decode()

    def write(token: str) -> None:
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": patient.cluster.url, "certificate-authority-data": ca}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip
        file.write_text(yaml.safe_dump(content))

    way = {"kubeconfig": str(file), "context": "c", "server": None, "token_file": None, "ca": None}
    write(patient.cluster.token)
    code, findings = await patient.examined(**way)
    assert code == 0
    assert the(findings, f"TLS is verified by the CA of the kubeconfig {file}")["level"] == "ok"
    assert the(findings, f"the kubeconfig {file} is accepted, as {USER}")["level"] == "ok"
    write("old")
    code, findings = await patient.examined(**way)
    assert code == 1
    assert f"kubectl --kubeconfig {file} --context c get --raw /version" in the(findings, "is not accepted")["fix"]
    file.write_text("kind: [\n")
    code, findings = await patient.examined(**way)
    assert code == 1
    assert the(findings, "can't be used")["fix"] == "correct `kubeconfig`"


async def test_a_client_certificate_is_looked_at_like_a_token(patient: Patient) -> None:
    patient.cluster.rotate_token("")
    patient.cluster.user = "vedette"
    pair = patient.authority.server("client", days=3)
    file = patient.folder / "kubeconfig"
    known = {"server": patient.cluster.url, "certificate-authority": str(patient.authority.ca)}
    content = {
        "apiVersion": "v1", "kind": "Config", "current-context": "c", "clusters": [{"name": "c", "cluster": known}],
        "users": [{"name": "u", "user": {"client-certificate": str(pair.cert), "client-key": str(pair.key)}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }  # fmt: skip
    file.write_text(yaml.safe_dump(content))
    code, findings = await patient.examined(kubeconfig=str(file), server=None, token_file=None, ca=None)
    assert code == 0
    assert the(findings, f"the client certificate of the kubeconfig {file} is accepted, as vedette")["level"] == "ok"
    assert the(findings, "the certificate of the client ends at")["level"] == "warn"


async def test_what_is_no_pod_has_no_service_account(patient: Patient) -> None:
    code, findings = await patient.examined(in_cluster=True, server=None, token_file=None, ca=None)
    assert code == 1
    assert "give `server` or `kubeconfig`" in the(findings, "this is not a pod")["fix"]


async def test_who_sends_nothing_is_told_so(patient: Patient) -> None:
    patient.cluster.rotate_token("")
    code, findings = await patient.examined(token_file=None)
    assert code == 0
    assert the(findings, "neither a token nor a certificate is sent, as system:anonymous")["level"] == "warn"


async def test_a_resource_that_is_not_served_has_its_near_names(patient: Patient) -> None:
    code, findings = await patient.examined("pods/v1", "route.route.openshift.io/v2", "podz/v1", "sprockets.example.com/v1")
    assert code == 1
    assert the(findings, "may be listed and watched: pods/v1")["level"] == "ok"
    assert the(findings, "route.route.openshift.io/v2 is not served")["fix"].startswith(
        "there are: routes.route.openshift.io/v1\n"
    )
    assert the(findings, "podz/v1 is not served")["fix"].startswith("there are: pods/v1\n")
    assert the(findings, "sprockets.example.com/v1 is not served")["fix"].startswith("kubectl api-resources ")


async def test_an_api_group_that_is_down(patient: Patient) -> None:
    patient.cluster.hidden_groups.add("route.openshift.io")
    code, findings = await patient.examined("routes.route.openshift.io/v1")
    assert code == 1
    assert the(findings, "service unavailable")["fix"].startswith("kubectl get apiservices")


@pytest.mark.parametrize("reviews", [True, False], ids=["asked", "tried"])
async def test_rights_that_are_missing_are_told_with_the_rule(patient: Patient, reviews: bool) -> None:
    patient.cluster.revoke("routes")
    patient.cluster.revoke("pods", "watch")
    if not reviews:
        patient.cluster.fail(403, path="/apis/authorization.k8s.io/*", times=100)
    code, findings = await patient.examined(
        "routes.route.openshift.io/v1", {"resource": "pods/v1", "namespace": "shop"}, "secrets"
    )
    assert code == 1
    everywhere = the(findings, "may not follow in all namespaces: routes.route.openshift.io/v1 (list and watch)")
    assert everywhere["level"] == "fail"
    head, rule, check = everywhere["fix"].splitlines()
    assert "ClusterRole vedette-watch in deploy/kubernetes/watch.yaml" in head
    (parsed,) = yaml.safe_load(rule)
    assert parsed == {"apiGroups": ["route.openshift.io"], "resources": ["routes"], "verbs": ["get", "list", "watch"]}
    assert f"kubectl auth can-i list routes.route.openshift.io -A --as {USER}" in check
    here = the(findings, "may not follow in the namespace shop: pods/v1 (watch)")
    assert "Role vedette-watch of the namespace shop" in here["fix"]
    assert '- {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}' in here["fix"]
    assert the(findings, "may be listed and watched: secrets/v1")["level"] == "ok"
    # Whoever was asked for a watch was let go at once.
    assert patient.cluster.watchers == 0


async def test_a_selector_that_the_api_does_not_know(patient: Patient) -> None:
    code, findings = await patient.examined({"resource": "pods/v1", "field_selector": "status.colour=red"})
    assert code == 1
    assert "field_selector" in the(findings, "field label not supported")["fix"]
    # One object by its name is asked for as such.
    await patient.examined({"resource": "pods/v1", "namespace": "shop", "field_selector": "metadata.name=web"})
    reviews = [one.body["spec"]["resourceAttributes"] for one in patient.cluster.requests if "/selfsubjectaccess" in one.path]
    assert {"verb": "watch", "group": "", "version": "v1", "resource": "pods", "namespace": "shop", "name": "web"} in reviews


async def test_a_clock_that_is_off(patient: Patient) -> None:
    patient.cluster.ahead_s = 90
    code, findings = await patient.examined()
    assert code == 0
    skewed = the(findings, "the clock of cluster prod is")
    assert (skewed["level"], skewed["about"]) == ("warn", "clock")
    assert "ahead of" in skewed["message"]
    assert skewed["fix"].startswith("chronyc")


async def test_secrets_that_are_followed(patient: Patient) -> None:
    code, findings = await patient.examined("secrets/v1")
    assert code == 0
    assert the(findings, "only the names of the keys enter the log, never a value")["level"] == "note"


async def test_namespaces_that_do_not_exist(patient: Patient) -> None:
    entries = ({"resource": "pods/v1", "namespace": "elsewhere"}, {"resource": "namespaces", "namespace": "shop"})
    code, findings = await patient.examined(*entries, projects={"shopp": "p1"})
    assert code == 0
    assert the(findings, "`projects` names the namespace shopp, which is not there")["fix"].startswith("there are: shop\n")
    assert the(findings, "a resource's `namespace` names the namespace elsewhere")["level"] == "warn"
    assert the(findings, "namespaces/v1 in shop: there are no namespaces of it")["level"] == "warn"
    # Where they can't be listed, each is asked for; and where that isn't allowed, nothing is claimed.
    patient.cluster.revoke("namespaces", "list")
    code, findings = await patient.examined(projects={"shopp": "p1", "shop": "p2"})
    assert the(findings, "names the namespace shopp, which is not there")["level"] == "warn"
    patient.cluster.revoke("namespaces")
    code, findings = await patient.examined(projects={"shopp": "p1"})
    assert code == 0
    assert the(findings, "whether these namespaces exist can't be told")["level"] == "note"


# --- what is read --------------------------------------------------------------------------------------------------------


@given(st.one_of(st.text(), st.binary().map(lambda raw: "a." + base64.urlsafe_b64encode(raw).decode() + ".b")))
def test_any_text_may_be_a_token(text: str) -> None:
    assert isinstance(claims_of(text), Claims)


@pytest.mark.parametrize("exp", [-1, 1e300, "soon", None, [1], 253_402_300_800])
def test_an_end_that_is_none_is_not_shown(exp: Any) -> None:
    assert claims_of(jwt(0, exp=exp)).exp == 0
    assert claims_of(jwt(0, exp=1_900_000_000)) == Claims(sub=USER, exp=1_900_000_000)


@given(st.binary())
def test_any_answer_may_be_a_version(raw: bytes) -> None:
    assert len(version_of(raw)) <= 64


def test_near_names_are_of_the_same_plural_first() -> None:
    served = ["pods/v1", "deployments.apps/v1", "podtemplates/v1", "deployments.example.com/v2"]
    assert near_to("deployments.extensions/v1beta1", served) == ["deployments.apps/v1", "deployments.example.com/v2"]
    assert near_to("nothing", []) == []


async def test_what_is_served_is_told_without_the_groups_that_are_down(patient: Patient) -> None:
    enter = static(patient.cluster.url, token=Secret(patient.cluster.token), ca_file=str(patient.authority.ca))
    client = Kubernetes(enter, SystemClock())
    try:
        assert client.clock_difference() is None
        assert "routes.route.openshift.io/v1" in await client.served()
        patient.cluster.hidden_groups.add("route.openshift.io")
        assert sorted(await client.served()) == ["namespaces/v1", "pods/v1", "secrets/v1"]
        assert client.clock_difference() is not None
    finally:
        await client.close()
