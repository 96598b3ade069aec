"""What DNS says follows what the objects say, and nobody's record is taken from them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_nameserver import ToyNameserver

from vedette.errors import ConfigError, GiveUp, TryLater
from vedette.handlers import dns
from vedette.handlers.dns import DnsHandler, Options
from vedette.kit.secret import Secret
from vedette.model.reading import OPENSTACK, Key
from vedette.ports import Event
from vedette.testing.handling import FakeContext, FakeInventory, change, handler_needs, notice_event

ROUTER = ("192.0.2.10",)
NOTHING = msgspec.Raw(b"{}")


class Context(FakeContext):
    """Keeps what was remembered as a store does: as JSON, and only of calls that returned."""

    def __init__(self, kept: dict[str, bytes] | None = None) -> None:
        super().__init__()
        self.kept = {} if kept is None else kept
        self._new: dict[str, Any] = {}

    async def recall(self, name: str) -> Any:
        return msgspec.json.decode(self.kept[name]) if name in self.kept else None

    def remember(self, name: str, value: Any) -> None:
        self._new[name] = value

    def done(self) -> None:
        for name, value in self._new.items():
            self.kept.pop(name, None)
            if value is not None:
                self.kept[name] = msgspec.json.encode(value)


class Rig:
    def __init__(self, **options: Any) -> None:
        self.options = Options(**{"server": "127.0.0.1", "zone": "cloud.example.org", **options})
        self.dns = ToyNameserver()
        self.inventory = FakeInventory()
        self.memory: dict[str, bytes] = {}
        self.restart()

    def restart(self) -> None:
        self.handler = DnsHandler(self.options, self.dns, self.inventory)  # type: ignore[arg-type]

    async def does(self, event: Event) -> str | None:
        context = Context(self.memory)
        said = await self.handler.handle(event, context)
        context.done()
        return said


def route(host: str, old: str = "", *, verb: str = "MODIFIED", name: str = "web") -> Event:
    def whole(host: str) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode({"kind": "Route", "metadata": {"name": name}, "spec": {"host": host}}))

    return msgspec.structs.replace(
        change(verb=verb),  # type: ignore[arg-type]
        key=Key("prod", "route.openshift.io", "Route", f"shop/{name}"),
        raw_object=whole(host),
        raw_old=whole(old) if old else NOTHING,
    )


def server(name: str, *addresses: str, verb: str = "MODIFIED", id: str = "s1", network: str = "blue") -> Event:
    status = {"name": name, "addresses": {network: [{"addr": one} for one in addresses]}}
    return change(status, status if verb == "MODIFIED" else None, verb=verb, kind="Server", id=id)  # type: ignore[arg-type]


async def test_a_route_has_a_record_while_it_is_there() -> None:
    rig = Rig(address=ROUTER, ttl=180.0)
    assert await rig.does(route("www.cloud.example.org", verb="ADDED")) == "www.cloud.example.org A 192.0.2.10"
    assert rig.dns.records == {("www.cloud.example.org", "A"): (ROUTER, 180)}
    assert await rig.does(route("www.cloud.example.org", verb="ADDED")) == "nothing to change"
    assert await rig.does(route("www.cloud.example.org", verb="DELETED")) == "www.cloud.example.org A removed"
    assert (rig.dns.records, rig.memory) == ({}, {})


@pytest.mark.parametrize("remembers", [True, False])
async def test_a_host_that_changed_leaves_no_old_record_also_after_a_restart(remembers: bool) -> None:
    rig = Rig(address=ROUTER)
    await rig.does(route("old.cloud.example.org", verb="ADDED"))
    rig.restart()
    if not remembers:
        rig.memory.clear()
    event = route("new.cloud.example.org", "old.cloud.example.org")
    await rig.does(msgspec.structs.replace(event, raw_old=NOTHING) if remembers else event)
    assert rig.dns.records == {("new.cloud.example.org", "A"): (ROUTER, 180)}
    assert len(rig.dns.messages[-1]) == 2  # one message: nobody sees both, or none


async def test_a_name_outside_the_zone_is_left_alone_and_a_route_that_leaves_it_is_removed() -> None:
    rig = Rig(address=ROUTER)
    assert await rig.does(route("www.elsewhere.example.com", verb="ADDED")) == "nothing to change"
    await rig.does(route("www.cloud.example.org"))
    await rig.does(route("www.elsewhere.example.com", "www.cloud.example.org"))
    assert rig.dns.records == {}


async def test_a_record_of_somebody_elses_is_not_touched_unless_asked_for() -> None:
    rig = Rig(address=ROUTER)
    rig.dns.records["www.cloud.example.org", "A"] = (("192.0.2.99",), 60)
    with pytest.raises(GiveUp, match=r"has A 192\.0\.2\.99, which this handler did not write"):
        await rig.does(route("www.cloud.example.org", verb="ADDED"))
    # and the route's end does not end it either
    assert await rig.does(route("www.cloud.example.org", verb="DELETED")) == (
        "www.cloud.example.org has A 192.0.2.99 now, which is not ours: left alone"
    )
    assert rig.dns.values("www.cloud.example.org") == ("192.0.2.99",)
    bold = Rig(address=ROUTER, take_over=True)
    bold.dns.records["www.cloud.example.org", "A"] = (("192.0.2.99",), 60)
    await bold.does(route("www.cloud.example.org", verb="ADDED"))
    assert bold.dns.values("www.cloud.example.org") == ROUTER


async def test_what_somebody_changed_meanwhile_is_not_removed_with_the_object() -> None:
    rig = Rig(address=ROUTER)
    await rig.does(route("www.cloud.example.org", verb="ADDED"))
    rig.dns.records["www.cloud.example.org", "A"] = (("192.0.2.99",), 60)
    assert "left alone" in str(await rig.does(route("www.cloud.example.org", verb="DELETED")))
    assert rig.dns.values("www.cloud.example.org") == ("192.0.2.99",)


async def test_two_routes_share_a_host_until_the_last_one_goes() -> None:
    rig = Rig(address=ROUTER)
    for name in ("shop", "blog"):
        await rig.does(route("www.cloud.example.org", verb="ADDED", name=name))
    await rig.does(route("www.cloud.example.org", verb="DELETED", name="shop"))
    assert rig.dns.values("www.cloud.example.org") == ROUTER
    rig.restart()
    await rig.does(route("www.cloud.example.org", verb="DELETED", name="blog"))
    assert (rig.dns.records, rig.memory) == ({}, {})


async def test_a_second_server_of_one_name_does_not_steal_it_nor_take_it_along() -> None:
    rig = Rig()
    await rig.does(server("web", "192.0.2.1", verb="ADDED", id="s1"))
    rig.restart()
    with pytest.raises(GiveUp, match=r"held by region-one/openstack.vedette.dev/Server/s1"):
        await rig.does(server("web", "192.0.2.2", verb="ADDED", id="s2"))
    assert await rig.does(server("web", "192.0.2.2", verb="DELETED", id="s2")) == "nothing to change"
    assert rig.dns.values("web.cloud.example.org") == ("192.0.2.1",)
    await rig.does(server("web", "192.0.2.1", verb="DELETED", id="s1"))
    await rig.does(server("web", "192.0.2.2", id="s2"))  # redriven
    assert rig.dns.values("web.cloud.example.org") == ("192.0.2.2",)


async def test_two_that_come_at_once_do_not_both_get_it() -> None:
    rig = Rig()
    done = await asyncio.gather(
        *(rig.does(server("web", f"192.0.2.{number}", verb="ADDED", id=f"s{number}")) for number in range(1, 9)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, GiveUp) for one in done) == 7
    assert len(rig.dns.values("web.cloud.example.org")) == 1
    assert rig.handler._claims._locks == {}


async def test_a_server_has_its_addresses_of_both_families_and_their_names() -> None:
    rig = Rig(ptr=True, networks=("blue",))
    rig.dns.zones = (*rig.dns.zones, "8.b.d.0.1.0.0.2.ip6.arpa")
    event = server("My Web_Server!", "192.0.2.2", "192.0.2.1", "2001:db8::1", verb="ADDED")
    await rig.does(event)
    assert rig.dns.values("my-web_server.cloud.example.org") == ("192.0.2.1", "192.0.2.2")
    assert rig.dns.values("my-web_server.cloud.example.org", "AAAA") == ("2001:db8::1",)
    assert rig.dns.values("1.2.0.192.in-addr.arpa", "PTR") == ("my-web_server.cloud.example.org.",)
    await rig.does(server("My Web_Server!", "192.0.2.2"))
    assert sorted(rig.dns.records) == [("2.2.0.192.in-addr.arpa", "PTR"), ("my-web_server.cloud.example.org", "A")]
    await rig.does(server("My Web_Server!", "192.0.2.2", network="red"))
    assert rig.dns.records == {}


async def test_an_address_outside_of_the_reverse_zone_has_no_ptr_record() -> None:
    """Whoever makes a network of their own gives its addresses: they name no server that we speak to."""
    rig = Rig(ptr=True, reverse_zone="2.0.192.in-addr.arpa")
    await rig.does(server("web", "192.0.2.1", "198.51.100.1", "2001:db8::1", verb="ADDED"))
    assert sorted(rig.dns.records) == [
        ("1.2.0.192.in-addr.arpa", "PTR"), ("web.cloud.example.org", "A"), ("web.cloud.example.org", "AAAA")
    ]  # fmt: skip


async def test_nobody_gets_every_name_of_a_zone_by_calling_a_server_star() -> None:
    rig, bold = Rig(), Rig(wildcards=True, address=ROUTER)
    for name in ("*", "*.web", "a.*", "*a"):
        await rig.does(server(name, "192.0.2.1", verb="ADDED", id=name))
    assert rig.dns.records == {("a.cloud.example.org", "A"): (("192.0.2.1",), 180)}
    await bold.does(route("*.apps.cloud.example.org", verb="ADDED"))
    assert bold.dns.values("*.apps.cloud.example.org") == ROUTER


async def test_a_floating_ip_is_named_by_itself_or_by_the_server_behind_it() -> None:
    own = Rig()
    status = {"floating_ip_address": "192.0.2.7", "dns_name": "www", "dns_domain": "cloud.example.org."}
    await own.does(change(status, verb="ADDED", kind="FloatingIP", id="f1"))
    assert own.dns.values("www.cloud.example.org") == ("192.0.2.7",)
    await own.does(change({**status, "dns_name": ""}, status, kind="FloatingIP", id="f1"))
    assert own.dns.records == {}

    rig = Rig(name="{object.server.status.name}.cloud.example.org")
    free = {"floating_ip_address": "192.0.2.7", "port_id": None}
    used = {"floating_ip_address": "192.0.2.7", "port_id": "p1"}
    assert await rig.does(change(free, verb="ADDED", kind="FloatingIP", id="f1")) == "nothing to change"
    with pytest.raises(TryLater, match="the Port p1 behind this floating IP is not known yet"):
        await rig.does(change(used, free, kind="FloatingIP", id="f1"))
    rig.inventory.there[Key("region-one", OPENSTACK, "Port", "p1")] = {
        "status": {"device_owner": "compute:nova", "device_id": "s1"}
    }
    rig.inventory.there[Key("region-one", OPENSTACK, "Server", "s1")] = {"status": {"name": "web"}}
    await rig.does(change(used, free, kind="FloatingIP", id="f1"))
    assert rig.dns.values("web.cloud.example.org") == ("192.0.2.7",)
    await rig.does(change(free, used, kind="FloatingIP", id="f1"))
    assert rig.dns.records == {}


async def test_a_name_that_changes_under_its_hands_is_looked_at_again() -> None:
    rig = Rig(address=ROUTER)

    async def somebody() -> None:
        rig.dns.between = None
        rig.dns.records["www.cloud.example.org", "A"] = (ROUTER, 180)

    rig.dns.between = somebody
    assert await rig.does(route("www.cloud.example.org", verb="ADDED")) == "nothing to change"
    ttl = 0

    async def always() -> None:
        nonlocal ttl
        ttl += 1
        rig.dns.records["old.cloud.example.org", "A"] = ((f"192.0.2.{ttl}",), ttl)

    bold = Rig(address=ROUTER, take_over=True)
    bold.dns.between, rig.dns = always, bold.dns
    with pytest.raises(TryLater, match="somebody else is changing these records"):
        await bold.does(route("old.cloud.example.org", verb="ADDED"))


async def test_a_call_that_ended_between_two_messages_is_made_good_by_the_next() -> None:
    rig = Rig(ptr=True)
    count = 0

    async def dies() -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise TryLater("cut")

    rig.dns.between = dies
    with pytest.raises(TryLater):
        await rig.does(server("web", "192.0.2.1", verb="ADDED"))
    assert (len(rig.dns.records), rig.memory) == (1, {})
    rig.dns.between = None
    await rig.does(server("web", "192.0.2.1", verb="ADDED"))
    assert len(rig.dns.records) == 2
    await rig.does(server("web", "192.0.2.1", verb="DELETED"))
    assert rig.dns.records == {}


async def test_what_can_not_be_said_in_dns_is_a_dead_letter_with_its_reason() -> None:
    rig = Rig(address=ROUTER)
    for event, why in (
        (notice_event({}), "no change of an object"),
        (change({}, kind="Port"), "set the option `name`"),
        (route("a" * 64 + ".cloud.example.org"), "no name for DNS"),
    ):
        with pytest.raises(GiveUp, match=why):
            await rig.does(event)
    with pytest.raises(GiveUp, match="is no IP address"):
        await Rig(address=("{object.status.host}",), name="x.cloud.example.org").does(change({"host": "me"}))
    with pytest.raises(GiveUp, match="set the option `address`"):
        await Rig().does(route("www.cloud.example.org"))
    with pytest.raises(GiveUp, match="set the option `zone` or `name`"):
        await Rig(zone="").does(server("web", "192.0.2.1"))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"key_name": "a"}, "a key has a name and a secret"),
        ({"key_name": "a", "key_secret": Secret("%%%")}, "base64"),
        ({"key_file": "/nowhere"}, "key file"),
        ({"name": "{object.status.name"}, "name"),
        ({"address": ("{what}",)}, "address"),
        ({"zone": "a..b"}, "no name for DNS"),
        ({"ttl": 2.0**40}, "ttl"),
        ({"server": ""}, "`zone`, whose SOA record"),
        ({"server": "", "zone": "cloud.example.org", "ptr": True}, "`reverse_zone`, whose SOA record"),
        ({"server": "", "reverse_zone": "2.0.192.in-addr.arpa"}, "`zone`, whose SOA record"),
    ],
)
def test_settings_that_can_not_work_are_refused_at_the_start(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        dns.build(Options(**{"server": "127.0.0.1", **options}), handler_needs())


class Act(msgspec.Struct, frozen=True):
    """What happens to one server: its name (None: it is deleted), its address; where its calls are cut; a restart after that."""

    server: int
    name: str | None
    address: int
    cuts: tuple[str, ...]
    restart: bool


ACTS = st.lists(
    st.builds(
        Act,
        server=st.integers(1, 3),
        name=st.sampled_from(["a", "b", "taken", None]),
        address=st.integers(1, 2),
        cuts=st.lists(st.sampled_from(["before", "after"]), max_size=2).map(tuple),
        restart=st.booleans(),
    ),
    max_size=12,
)
THEIRS = {("taken.cloud.example.org", "A"): (("192.0.2.99",), 60)}


@given(ACTS)
@settings(max_examples=150, deadline=None)
def test_whatever_happens_dns_ends_as_the_objects_say_and_others_keep_theirs(acts: list[Act]) -> None:
    async def run() -> None:
        rig = Rig()
        rig.dns.records.update(THEIRS)
        state: dict[int, Event] = {}
        refused: set[int] = set()
        had: dict[int, str | None] = {}
        end = [Act(number, None, 1, ("after",), False) for number in (1, 2, 3)]
        for act in [*acts, *end]:
            before = state.pop(act.server, None)
            if before is None and act.name is None:
                continue
            if act.name is None:
                event = msgspec.structs.replace(before, verb="DELETED", raw_old=before.raw_object)  # type: ignore[union-attr,type-var]
            else:
                event = server(act.name, f"192.0.2.{act.address}", verb="ADDED", id=f"s{act.server}")
                if before is not None:
                    event = msgspec.structs.replace(event, verb="MODIFIED", raw_old=before.raw_object)
                state[act.server] = event
            refused.discard(act.server)
            if await delivered(rig, event, act):
                had[act.server] = act.name
            else:
                refused.add(act.server)
            assert {key: rig.dns.records[key] for key in THEIRS} == THEIRS
            asked: dict[str, set[str]] = {}
            for number, said in state.items():
                if number not in refused:
                    status = said.object["status"]
                    asked.setdefault(status["name"], set()).add(status["addresses"]["blue"][0]["addr"])
            # A dead letter has changed nothing: its object has its earlier name until it is redriven, or changes, or goes.
            for name in asked.keys() - {had.get(number) for number in refused}:
                addresses = asked[name]
                # The first one that has the name may change its address; who shares it follows.
                assert set(rig.dns.values(f"{name}.cloud.example.org")) <= addresses
                assert len(rig.dns.values(f"{name}.cloud.example.org")) == 1
        assert (rig.dns.records, rig.memory) == (THEIRS, {})

    asyncio.run(run())


async def delivered(rig: Rig, event: Event, act: Act) -> bool:
    """Call until it is done (True) or given up; each cut ends a call before or after its message was taken."""
    for cut in (*act.cuts, ""):
        rig.dns.cut = cut
        try:
            await rig.does(event)
            return True
        except TryLater:
            if act.restart:
                rig.restart()
        except GiveUp:
            return False
    raise AssertionError("it never ends")
