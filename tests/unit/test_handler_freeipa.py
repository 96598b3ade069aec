"""Hosts in FreeIPA, and certificates in Routes: each once, none lost, and no key anywhere but in its Route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vedette.clients.freeipa import FreeIpa, Refused
from vedette.errors import ConfigError, GiveUp, TargetUnavailable, TryLater
from vedette.handlers import freeipa
from vedette.handlers._cluster import Cluster
from vedette.handlers.freeipa import Options
from vedette.kit.secret import Secret
from vedette.model.reading import Key
from vedette.ports import Event, JsonObject
from vedette.testing.clock import FakeClock
from vedette.testing.freeipa import PASSWORD, FakeFreeIpa
from vedette.testing.handling import FakeContext, change, handler_needs
from vedette.testing.kubernetes import FakeKubernetes
from vedette.testing.tls import Authority

HOST = "www.example.org"
MARK = "openshift.io/managed.cert"


class Rig:
    def __init__(self, ipa: FakeFreeIpa, cluster: FakeKubernetes) -> None:
        self.ipa, self.cluster = ipa, cluster
        self.routes = cluster.define("route.openshift.io/v1", "routes", "Route")
        self.clock = FakeClock()
        self.context = FakeContext()
        self.handler = self.build()

    def build(self, **options: Any) -> freeipa.FreeIpaHandler:
        settings = {
            "url": self.ipa.url,
            "user": self.ipa.user,
            "password": Secret(PASSWORD),
            "realm": self.ipa.realm,
            "ca": str(self.ipa.ca),
            "cluster": Cluster(server=self.cluster.url, token=Secret(self.cluster.token)),
            **options,
        }
        return freeipa.build(Options(**settings), handler_needs("certs", clock=self.clock))

    def put(self, host: str = HOST, *, name: str = "web", asks: str = "true", **spec: Any) -> JsonObject:
        known = self.cluster.objects(self.routes).get(f"shop/{name}", {})
        notes = {**known.get("metadata", {}).get("annotations", {}), MARK: asks}
        content = {"metadata": {"annotations": notes}, "spec": {**known.get("spec", {}), "host": host, **spec}}
        return self.cluster.put(self.routes, f"shop/{name}", content)

    def route(self, name: str = "web") -> JsonObject:
        return self.cluster.objects(self.routes)[f"shop/{name}"]

    async def does(self, found: JsonObject, verb: str = "MODIFIED") -> str | None:
        return await self.handler.handle(told(found, verb), self.context)


def told(found: JsonObject, verb: str = "MODIFIED") -> Event:
    """The event, with our own resourceVersion in the object."""
    name = found["metadata"]["name"]
    served = {**found, "metadata": {**found["metadata"], "resourceVersion": "1795187946000042"}}
    return msgspec.structs.replace(
        change(verb=verb),  # type: ignore[arg-type]
        key=Key("prod", "route.openshift.io", "Route", f"shop/{name}"),
        raw_object=msgspec.Raw(msgspec.json.encode(served)),
    )


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with FakeFreeIpa(Authority(tmp_path)) as ipa, FakeKubernetes() as cluster:
        rig = Rig(ipa, cluster)
        yield rig
        await rig.handler.close()


async def test_a_route_that_asks_gets_a_key_and_a_certificate_that_fit_and_are_signed(rig: Rig) -> None:
    said = await rig.does(rig.put(), "ADDED")
    assert said == f"host {HOST} added; certificate for {HOST} put into the route"
    route = rig.route()
    assert route["metadata"]["annotations"] == {MARK: "true", f"{MARK}.state": "created"}
    assert route["spec"]["tls"]["termination"] == "edge"
    certificate = x509.load_pem_x509_certificate(route["spec"]["tls"]["certificate"].encode())
    key = serialization.load_pem_private_key(route["spec"]["tls"]["key"].encode(), None)
    assert certificate.public_key() == key.public_key()
    rig.ipa.public_key.verify(certificate.signature, certificate.tbs_certificate_bytes, ec.ECDSA(hashes.SHA256()))
    # our own change comes back, and the route changes otherwise
    assert await rig.does(route) == "nothing to do"
    assert await rig.does(rig.put(path="/new")) == "nothing to do"
    assert len(rig.ipa.certificates) == 1


async def test_a_route_that_does_not_ask_is_left_alone(rig: Rig) -> None:
    assert await rig.does(rig.put(asks="false"), "ADDED") == "nothing to do"
    assert await rig.does(rig.route(), "DELETED") == "nothing to do"
    assert not rig.ipa.requests


async def test_where_tls_ends_is_left_as_it_is(rig: Rig) -> None:
    await rig.does(rig.put(tls={"termination": "reencrypt", "destinationCACertificate": "mine"}), "ADDED")
    assert rig.route()["spec"]["tls"]["termination"] == "reencrypt"
    assert rig.route()["spec"]["tls"]["destinationCACertificate"] == "mine"


async def test_the_host_goes_with_its_last_route(rig: Rig) -> None:
    await rig.does(rig.put(), "ADDED")
    await rig.does(rig.put(name="blog", path="/blog"), "ADDED")
    assert await rig.does(rig.route(), "DELETED") == f"host {HOST} is kept for prod/route.openshift.io/Route/shop/blog"
    assert await rig.does(rig.route("blog"), "DELETED") == f"host {HOST} removed"
    assert (rig.ipa.hosts, rig.context.memory) == ({}, {})
    assert await rig.does(rig.route("blog"), "DELETED") == f"host {HOST} was gone"


async def test_a_host_that_somebody_else_enrolled_is_used_and_stays(rig: Rig) -> None:
    rig.ipa.hosts[HOST] = {"fqdn": [HOST], "description": ["a web server"]}
    assert await rig.does(rig.put(), "ADDED") == f"host {HOST} was there; certificate for {HOST} put into the route"
    assert await rig.does(rig.route(), "DELETED") == f"host {HOST} was not added here: left alone"
    assert HOST in rig.ipa.hosts


async def test_a_route_of_another_namespace_gets_no_certificate_for_a_host_that_is_held(rig: Rig) -> None:
    """Who may make a Route can put anybody's name into it; that it is not admitted is seen only in its status."""
    await rig.does(rig.put(), "ADDED")
    theirs = {"metadata": {"annotations": {MARK: "true"}}, "spec": {"host": HOST}}
    event = told(rig.cluster.put(rig.routes, "evil/web", theirs), "ADDED")
    event = msgspec.structs.replace(event, key=Key("prod", "route.openshift.io", "Route", "evil/web"))
    with pytest.raises(GiveUp, match="held by prod/"):
        await rig.handler.handle(event, rig.context)
    assert len(rig.ipa.certificates) == 1
    # Another path of the same host in the same namespace is the same owner's.
    assert "certificate" in str(await rig.does(rig.put(name="more"), "ADDED"))
    await rig.does(rig.route(), "DELETED")
    await rig.does(rig.route("more"), "DELETED")
    assert "certificate" in str(await rig.handler.handle(event, rig.context))


@pytest.mark.parametrize("host", ["ipa.example.org", "example.org", "notapps.example.org", "apps.example.org.evil.net"])
async def test_hosts_outside_of_the_domains_get_nothing(rig: Rig, host: str) -> None:
    handler = rig.build(domains=("Apps.example.org",))
    with pytest.raises(GiveUp, match="in none of"):
        await handler.handle(told(rig.put(host), "ADDED"), rig.context)
    assert not rig.ipa.requests
    assert "certificate" in str(await handler.handle(told(rig.put("a.APPS.example.org"), "ADDED"), rig.context))
    await handler.close()


@pytest.mark.parametrize("host", ["a/b.example.org", "a@B", "*.example.org", "a..b", "é.example.org", "a b", "-a.example.org"])
async def test_what_is_no_host_is_never_sent(rig: Rig, host: str) -> None:
    with pytest.raises(GiveUp, match="is no host's name"):
        await rig.does(rig.put(host), "ADDED")
    assert not rig.ipa.requests


async def test_a_host_that_changed_gets_a_certificate_of_its_own_and_the_old_host_goes(rig: Rig) -> None:
    await rig.does(rig.put(), "ADDED")
    assert await rig.does(rig.put("new.example.org")) == (
        f"host new.example.org added; certificate for new.example.org put into the route; host {HOST} removed"
    )
    assert list(rig.ipa.hosts) == ["new.example.org"]
    certificate = x509.load_pem_x509_certificate(rig.route()["spec"]["tls"]["certificate"].encode())
    assert freeipa._is_for(rig.route()["spec"]["tls"]["certificate"], "new.example.org")
    assert certificate.serial_number not in rig.ipa.revoked


async def test_a_call_that_ended_before_the_route_had_it_begins_anew_and_one_after_does_not(rig: Rig) -> None:
    found = rig.put()
    rig.cluster.fail(0, verb="patch", times=1)
    with pytest.raises(TryLater):
        await rig.does(found, "ADDED")
    assert await rig.does(found, "ADDED") == f"host {HOST} was there; certificate for {HOST} put into the route"
    assert len(rig.ipa.certificates) == 2  # nobody has the first one's key
    rig.context.memory.clear()  # as if the service had died before it was noted
    assert await rig.does(found, "ADDED") == f"the route has its certificate for {HOST}"
    assert len(rig.ipa.certificates) == 2


async def test_a_route_that_somebody_changes_meanwhile_keeps_that_change(rig: Rig) -> None:
    found = rig.put()

    def meanwhile(method: str) -> None:
        if method == "cert_request":
            rig.put(path="/meanwhile")

    rig.ipa.after = meanwhile
    await rig.does(found, "ADDED")
    assert rig.route()["spec"]["path"] == "/meanwhile"
    assert "certificate" in rig.route()["spec"]["tls"]
    assert len(rig.cluster.asked("patch")) == 2


async def test_a_route_that_is_gone_or_another_by_now_gets_nothing(rig: Rig) -> None:
    found = rig.put()
    rig.cluster.remove(rig.routes, "shop/web")
    assert "is gone" in str(await rig.does(found, "ADDED"))
    rig.put()
    assert "is gone" in str(await rig.does(found, "ADDED"))
    assert not rig.ipa.certificates


async def test_no_key_and_no_password_is_logged_remembered_or_told(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = str(await rig.does(rig.put(), "ADDED"))
    pem = rig.route()["spec"]["tls"]["key"]
    rig.put(name="odd")
    rig.cluster.fail(422, verb="patch", message=f"Invalid value: {pem}: is odd")
    with pytest.raises(GiveUp, match=r"Invalid value: \*\*\*$") as caught:
        await rig.does(rig.route("odd"), "ADDED")
    everything = caplog.text + said + str(caught.value) + repr(rig.context.memory) + repr(vars(rig.handler))
    for secret in (PASSWORD, pem, pem.splitlines()[3], "PRIVATE KEY"):
        assert secret not in everything


async def test_what_the_cluster_says_decides_what_becomes_of_the_event(rig: Rig) -> None:
    found = rig.put()
    rig.cluster.revoke("routes", "patch")
    with pytest.raises(GiveUp, match="give the account a Role"):
        await rig.does(found, "ADDED")
    rig.cluster.rotate_token("another")
    with pytest.raises(TargetUnavailable, match="does not let us in"):
        await rig.does(found, "ADDED")
    await rig.cluster.stop()
    with pytest.raises(TargetUnavailable):
        await rig.does(found, "ADDED")


async def test_an_object_that_is_no_route_gets_a_host_under_the_name_that_is_set(rig: Rig) -> None:
    handler = rig.build(name="{object.status.name}.example.org")
    event = change({"name": "Web"}, verb="ADDED", kind="Server", id="s1")
    assert await handler.handle(event, rig.context) == "host web.example.org added"
    gone = msgspec.structs.replace(event, verb="DELETED")
    assert await handler.handle(gone, rig.context) == "host web.example.org removed"
    with pytest.raises(GiveUp, match="set the option `name`"):
        await rig.handler.handle(event, rig.context)
    await handler.close()


def test_settings_that_can_not_work_are_refused_at_the_start() -> None:
    some = {
        "url": "https://ipa.example.org",
        "user": "u",
        "password": Secret("p"),
        "realm": "R",
        "cluster": Cluster(server="https://c"),
    }
    for wrong in ({"url": "http://ipa"}, {"ca": "/nowhere"}, {"key_bits": 512}, {"cluster": Cluster(server="x", kubeconfig="y")}):
        with pytest.raises(ConfigError):
            freeipa.build(Options(**{**some, **wrong}), handler_needs())  # type: ignore[arg-type]


# --- the client


@pytest.fixture
async def ipa(tmp_path: Path) -> AsyncIterator[FakeFreeIpa]:
    async with FakeFreeIpa(Authority(tmp_path)) as ipa:
        yield ipa


def client(ipa: FakeFreeIpa, password: str = PASSWORD, **more: Any) -> FreeIpa:
    settings = {"ca": str(ipa.ca), **more}
    return FreeIpa(ipa.url, ipa.user, Secret(password), settings.pop("clock", FakeClock()), **settings)


async def test_one_login_serves_all_and_a_session_that_ended_is_opened_anew_once(ipa: FakeFreeIpa) -> None:
    one = client(ipa)
    await asyncio.gather(*(one.host_add(f"h{number}.example.org") for number in range(8)))
    assert ipa.requests["login"] == 1
    ipa.sessions.clear()
    assert await asyncio.gather(*(one.host_add(f"h{number}.example.org") for number in range(8))) == [False] * 8
    assert ipa.requests["login"] == 2
    await one.close()


async def test_an_account_that_is_refused_is_not_tried_until_it_is_locked(ipa: FakeFreeIpa) -> None:
    clock = FakeClock()
    one = client(ipa, "wrong", clock=clock)
    for _ in range(20):
        with pytest.raises(TargetUnavailable, match="refuses the user 'vedette': invalid-password"):
            await one.host_show("a.example.org")
    assert ipa.requests["login"] == 1
    await clock.advance(61)
    with pytest.raises(TargetUnavailable):
        await one.host_show("a.example.org")
    assert ipa.requests["login"] == 2
    await one.close()


async def test_each_of_its_errors_says_what_the_caller_does_next(ipa: FakeFreeIpa) -> None:
    one = client(ipa)
    assert await one.host_show("a.example.org") is None
    assert await one.host_del("a.example.org") is False
    with pytest.raises(Refused, match=r"unknown command 'nonsense' \(CommandError\)"):
        await one.call("nonsense", [])
    with pytest.raises(Refused, match="Unknown option: what"):
        await one.call("host_show", ["a.example.org"], what=1)
    with pytest.raises(GiveUp, match="host not found"):
        await one.cert_request("", "host/a.example.org@EXAMPLE.ORG")
    ipa.error["cert_request"] = (4301, "CertificateOperationError", "Unable to communicate with CMS (503)")
    with pytest.raises(TryLater, match="Unable to communicate with CMS"):
        await one.cert_request("", "host/a.example.org@EXAMPLE.ORG")
    for status, error in ((500, TryLater), (503, TryLater), (302, GiveUp), (404, GiveUp)):
        ipa.fault = status
        with pytest.raises(error, match=str(status)):
            await one.host_show("a.example.org")
    await ipa.stop()
    with pytest.raises(TargetUnavailable, match="can't be reached"):
        await one.host_show("a.example.org")
    ipa.fault = 0
    await ipa.start()
    assert await one.host_add("a.example.org") is True
    await one.close()


async def test_a_server_whose_certificate_is_not_trusted_gets_no_password(ipa: FakeFreeIpa, tmp_path: Path) -> None:
    stranger = client(ipa, ca=str(Authority(tmp_path / "other").ca))
    with pytest.raises(TargetUnavailable, match="is not accepted"):
        await stranger.host_show("a.example.org")
    assert not ipa.requests
    await stranger.close()
