"""The dns handler on a real BIND, with TSIG: what resolves, what is refused, and what a killed server loses."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import msgspec
import pytest

from vedette.clients.dns import Key, Nameserver, Write
from vedette.config import load_text
from vedette.errors import GiveUp, TargetUnavailable
from vedette.handlers.dns import Options, build
from vedette.kit.secret import Secret
from vedette.model.reading import OPENSTACK
from vedette.model.reading import Key as ObjectKey
from vedette.ports import Event
from vedette.testing.handling import FakeContext, FakeInventory, change, handler_needs
from vedette.testing.named import OTHER_KEY, REVERSE, REVERSE6, ZONE, Named, NamedMissing

WWW = f"www.{ZONE}"
INVENTORY = FakeInventory()
INVENTORY.there = {
    ObjectKey("region-one", OPENSTACK, "Port", "p1"): {"status": {"device_owner": "compute:nova", "device_id": "s1"}},
    ObjectKey("region-one", OPENSTACK, "Server", "s1"): {"status": {"name": "My Server"}},
}


PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "dns.md").read_text()


def a_bind(folder: Path, **more: Any) -> Named:
    """Without one on the machine: a skip on a laptop, a failure in CI."""
    try:
        return Named(folder, **more)
    except NamedMissing as why:
        if os.environ.get("CI"):
            pytest.fail(str(why))
        pytest.skip(str(why))


@pytest.fixture(scope="module")
def bind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Named]:
    named = a_bind(Path(tmp_path_factory.mktemp("named")))
    try:
        named.start()
        yield named
    finally:
        named.kill()


@pytest.fixture
async def empty(bind: Named) -> Named:
    """Nothing in its zones that another test left."""
    nameserver = client(bind)
    for name in ("www", "old", "new", "web", "alias", "two"):
        await nameserver.write(ZONE, [Write(name=f"{name}.{ZONE}", type=type_) for type_ in ("A", "AAAA", "CNAME")])
    for number in range(1, 20):
        await nameserver.write(REVERSE, [Write(name=f"{number}.{REVERSE}", type="PTR")])
    return bind


def client(named: Named, **options: Any) -> Nameserver:
    return Nameserver("127.0.0.1", port=named.port, key=Key("vedette", Secret(_secret(named))), **options)


def _secret(named: Named) -> str:
    return named.key_file.read_text().split('"')[3]


def handler(named: Named, **options: Any) -> Any:
    settings = {"server": "127.0.0.1", "port": named.port, "zone": ZONE, "key_file": str(named.key_file), **options}
    return build(Options(**settings), handler_needs())


def resolve(named: Named, name: str, type_: str = "A") -> list[str]:
    """As any other program asks: dnspython's own resolver, over UDP."""
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], named.port, 10.0
    try:
        return sorted(answer.to_text() for answer in resolver.resolve(name, type_, search=False))
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return []


def route(host: str, *, verb: str = "MODIFIED") -> Event:
    raw = msgspec.Raw(msgspec.json.encode({"kind": "Route", "spec": {"host": host}}))
    key = ObjectKey("prod", "route.openshift.io", "Route", "shop/web")
    return msgspec.structs.replace(change(verb=verb), key=key, raw_object=raw)  # type: ignore[arg-type]


def server(name: str, *addresses: str, verb: str = "MODIFIED", id: str = "s1") -> Event:
    status = {"name": name, "addresses": {"blue": [{"addr": one} for one in addresses]}}
    return change(status, verb=verb, kind="Server", id=id)  # type: ignore[arg-type]


async def test_a_route_resolves_until_it_is_gone_and_its_old_host_does_not(empty: Named) -> None:
    dns, context = handler(empty, address=("192.0.2.10",)), FakeContext()
    await dns.handle(route(f"old.{ZONE}", verb="ADDED"), context)
    assert resolve(empty, f"old.{ZONE}") == ["192.0.2.10"]
    await dns.handle(route(f"new.{ZONE}"), context)
    assert (resolve(empty, f"old.{ZONE}"), resolve(empty, f"new.{ZONE}")) == ([], ["192.0.2.10"])
    await dns.handle(route(f"new.{ZONE}", verb="DELETED"), context)
    assert resolve(empty, f"new.{ZONE}") == []


async def test_a_server_resolves_both_ways(empty: Named) -> None:
    dns, context = handler(empty, ptr=True), FakeContext()
    await dns.handle(server("web", "192.0.2.1", "192.0.2.2", "2001:db8::1", verb="ADDED"), context)
    assert resolve(empty, f"web.{ZONE}") == ["192.0.2.1", "192.0.2.2"]
    assert resolve(empty, f"web.{ZONE}", "AAAA") == ["2001:db8::1"]
    back = "1." + "0." * 23 + REVERSE6
    assert resolve(empty, back, "PTR") == resolve(empty, f"2.{REVERSE}", "PTR") == [f"web.{ZONE}."]
    await dns.handle(server("web", "192.0.2.3"), context)
    assert (resolve(empty, f"web.{ZONE}"), resolve(empty, f"web.{ZONE}", "AAAA")) == (["192.0.2.3"], [])
    assert (resolve(empty, back, "PTR"), resolve(empty, f"3.{REVERSE}", "PTR")) == ([], [f"web.{ZONE}."])
    await dns.handle(server("web", "192.0.2.3", verb="DELETED"), context)
    assert (resolve(empty, f"web.{ZONE}"), resolve(empty, f"3.{REVERSE}", "PTR")) == ([], [])


async def test_the_zone_is_found_by_its_soa_and_the_server_by_the_resolvers(empty: Named, tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    nameserver = client(empty, resolv_conf=str(tmp_path / "resolv.conf"), resolver_port=empty.port)
    assert await nameserver.zone(f"a.b.c.{ZONE}") == ZONE
    assert await nameserver.zone(f"7.{REVERSE}") == REVERSE
    with pytest.raises(GiveUp, match="refuses questions for"):
        await nameserver.zone("www.example.com")
    # its SOA names localhost, of which this BIND knows nothing
    lost = Nameserver(port=empty.port, resolv_conf=str(tmp_path / "resolv.conf"), resolver_port=empty.port)
    with pytest.raises(TargetUnavailable, match="no address of localhost is found"):
        await lost.zone(WWW)


async def test_a_key_that_may_not_is_told_so_and_nothing_is_written(empty: Named, tmp_path: Path) -> None:
    (tmp_path / "other.key").write_text(OTHER_KEY)
    (tmp_path / "strange.key").write_text(OTHER_KEY.replace("other", "strange"))
    (tmp_path / "wrong.key").write_text(OTHER_KEY.replace("other", "vedette"))
    for file, why in (("other", "update-policy"), ("strange", "BADKEY"), ("wrong", "BADSIG")):
        dns = handler(empty, address=("192.0.2.10",), key_file=str(tmp_path / f"{file}.key"))
        with pytest.raises(GiveUp, match=why):
            await dns.handle(route(WWW, verb="ADDED"), FakeContext())
    with pytest.raises(GiveUp, match="with no key"):
        await handler(empty, address=("192.0.2.10",), key_file="").handle(route(WWW, verb="ADDED"), FakeContext())
    assert resolve(empty, WWW) == []


async def test_a_name_that_somebody_else_has_is_not_taken(empty: Named) -> None:
    others, dns = client(empty), handler(empty, address=("192.0.2.10",))
    await others.write(ZONE, [Write(name=WWW, type="A", values=("192.0.2.99",), ttl=60)])
    with pytest.raises(GiveUp, match="did not write"):
        await dns.handle(route(WWW, verb="ADDED"), FakeContext())
    await others.write(ZONE, [Write(name=f"alias.{ZONE}", type="CNAME", values=(f"{WWW}.",), ttl=60)])
    with pytest.raises(GiveUp, match="is an alias"):
        await dns.handle(route(f"alias.{ZONE}", verb="ADDED"), FakeContext())
    await others.write(ZONE, [Write(name=f"two.{ZONE}", type="A", values=("192.0.2.1", "192.0.2.2"))])
    await others.remove(ZONE, f"two.{ZONE}", "A", "192.0.2.1")
    await others.remove(ZONE, f"two.{ZONE}", "A", "192.0.2.1")
    assert resolve(empty, f"two.{ZONE}") == ["192.0.2.2"]
    bold, context = handler(empty, address=("192.0.2.10",), take_over=True), FakeContext()
    await bold.handle(route(WWW, verb="ADDED"), context)
    assert resolve(empty, WWW) == ["192.0.2.10"]
    # and who changed it back keeps it
    await others.write(ZONE, [Write(name=WWW, type="A", values=("192.0.2.99",), ttl=60)])
    assert "left alone" in await bold.handle(route(WWW, verb="DELETED"), context)
    assert resolve(empty, WWW) == ["192.0.2.99"]


async def test_a_killed_server_is_waited_for_and_has_everything_afterwards(empty: Named) -> None:
    dns, context = handler(empty, address=("192.0.2.10",)), FakeContext()
    await dns.handle(route(f"old.{ZONE}", verb="ADDED"), context)
    empty.kill()
    with pytest.raises(TargetUnavailable, match="can't be reached"):
        await dns.handle(route(f"new.{ZONE}"), context)
    empty.start()
    await dns.handle(route(f"new.{ZONE}"), context)
    assert (resolve(empty, f"old.{ZONE}"), resolve(empty, f"new.{ZONE}")) == ([], ["192.0.2.10"])


async def test_the_name_server_and_the_handlers_of_the_page_do_what_it_says(tmp_path: Path) -> None:
    (conf,) = re.findall(r"^```conf\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (settings,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    folder = tmp_path / "named"
    named = a_bind(folder, statements=conf.replace("/etc/bind/", f"{folder}/").replace("/var/lib/bind/", f"{folder}/"))
    configured = load_text(f"{settings}\nsources: [{{name: one, type: replay, path: none.jsonl}}]\n", {}).handlers
    routes, servers, floating = (
        build(
            msgspec.structs.replace(one.options, server="127.0.0.1", port=named.port, key_file=str(named.key_file)),
            handler_needs(inventory=INVENTORY),
        )
        for one in configured
    )
    named.start()
    try:
        await routes.handle(route(WWW, verb="ADDED"), FakeContext())
        status = {"name": "My Server", "addresses": {"provider": [{"addr": "192.0.2.5"}], "own": [{"addr": "10.0.0.5"}]}}
        await servers.handle(change(status, verb="ADDED", kind="Server", id="s1"), FakeContext())
        behind = {"floating_ip_address": "192.0.2.7", "port_id": "p1"}
        await floating.handle(change(behind, verb="ADDED", kind="FloatingIP", id="f1"), FakeContext())
        assert resolve(named, WWW) == ["192.0.2.10"]
        assert resolve(named, f"my-server.{ZONE}") == ["192.0.2.5"]
        assert resolve(named, f"5.{REVERSE}", "PTR") == [f"my-server.{ZONE}."]
        assert resolve(named, f"my-server-ext.{ZONE}") == ["192.0.2.7"]
        with pytest.raises(GiveUp, match="update-policy"):
            await client(named).write(ZONE, [Write(name=WWW, type="TXT", values=("x",))])
    finally:
        named.kill()
