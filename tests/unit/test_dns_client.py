"""What a DNS server can answer, and what it means for the caller; and key files, whatever is in them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.rcode
import dns.tsig
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from toy_nameserver import ToyWire

from vedette.clients.dns import Key, Nameserver, Write, canonical, host_name, read_key, read_key_file
from vedette.errors import ConfigError, Conflict, GiveUp, TargetUnavailable, TryLater
from vedette.kit.secret import Secret

SECRET = "dmVkZXR0ZQ=="
KEY = Key("vedette", Secret(SECRET))
WRITE = Write(name="www.cloud.example.org", type="A", values=("192.0.2.1",))


def signed(rcode: int, tsig_error: int = 0) -> Callable[[bytes], dns.message.Message]:
    """A server that has the key, and says this."""
    key = dns.tsig.Key("vedette.", SECRET, "hmac-sha256.")

    def answer(wire: bytes) -> dns.message.Message:
        question = dns.message.from_wire(wire, keyring=key)
        said = dns.message.make_response(question, tsig_error=tsig_error)
        said.use_tsig(key, tsig_error=tsig_error)
        said.set_rcode(rcode)
        return said

    return answer


def unsigned(rcode: int) -> Callable[[bytes], dns.message.Message]:
    def answer(wire: bytes) -> dns.message.Message:
        question = dns.message.from_wire(wire, keyring=False)
        said = dns.message.make_response(question) if not question.had_tsig else dns.message.Message(question.id)
        said.flags = question.flags | dns.flags.QR
        said.set_rcode(rcode)
        return said

    return answer


@pytest.mark.parametrize(
    ("answer", "error", "text"),
    [
        (signed(dns.rcode.SERVFAIL), TryLater, "unwell: SERVFAIL"),
        (signed(dns.rcode.REFUSED), GiveUp, "allow it in the zone's update-policy"),
        (signed(dns.rcode.NOTAUTH), GiveUp, "not the primary server of cloud.example.org"),
        (signed(dns.rcode.NOTZONE), GiveUp, "NOTZONE"),
        (signed(dns.rcode.NOTIMP), GiveUp, "takes no dynamic updates"),
        (signed(dns.rcode.YXRRSET), Conflict, "YXRRSET"),
        (signed(dns.rcode.NXRRSET), Conflict, "NXRRSET"),
        (signed(dns.rcode.NOTAUTH, dns.rcode.BADTIME), GiveUp, "set both clocks"),
        (signed(dns.rcode.NOTAUTH, dns.rcode.BADKEY), GiveUp, "does not know the key 'vedette'"),
        (signed(dns.rcode.NOTAUTH, dns.rcode.BADSIG), GiveUp, "another secret for the key 'vedette'"),
        (unsigned(dns.rcode.NOERROR), TryLater, "did not sign its answer|requires a TSIG"),
        (lambda wire: b"not DNS at all, whatever", TryLater, "can't be read"),
        (lambda wire: b"", TryLater, "can't be read"),
        (lambda wire: None, TargetUnavailable, "did not answer within"),
    ],
)
async def test_each_answer_says_what_the_caller_does_next(answer: Callable[[bytes], bytes], error: type, text: str) -> None:
    async with ToyWire(answer) as wire:
        nameserver = Nameserver("127.0.0.1", port=wire.port, key=KEY, timeout_s=0.5)
        with pytest.raises(error, match=text) as caught:
            await nameserver.write("cloud.example.org", [WRITE])
    assert caught.type is error
    assert SECRET not in str(caught.value)


async def test_a_server_that_is_not_there_is_waited_for() -> None:
    async with ToyWire(signed(0)) as wire:
        port = wire.port
        await Nameserver("localhost", port=port, key=KEY).write("cloud.example.org", [WRITE])
    with pytest.raises(TargetUnavailable, match="can't be reached"):
        await Nameserver("127.0.0.1", port=port, key=KEY).write("cloud.example.org", [WRITE])


async def test_a_server_that_is_responsible_for_nothing_here_has_no_zone() -> None:
    async with ToyWire(signed(dns.rcode.NOERROR)) as wire:
        with pytest.raises(GiveUp, match=r"has no zone for www\.cloud\.example\.org"):
            await Nameserver("127.0.0.1", port=wire.port, key=KEY).zone("www.cloud.example.org")


async def test_a_given_zone_is_not_asked_for() -> None:
    nameserver = Nameserver("127.0.0.1", port=1, zone="Cloud.Example.org.", reverse_zone="2.0.192.in-addr.arpa")
    assert await nameserver.zone("www.cloud.example.org") == "cloud.example.org"
    assert await nameserver.zone("7.2.0.192.in-addr.arpa") == "2.0.192.in-addr.arpa"


def test_names_and_values_have_one_form() -> None:
    assert host_name("WWW.Bücher.example.") == "www.xn--bcher-kva.example"
    assert canonical("AAAA", "2001:DB8:0:0::1") == "2001:db8::1"
    assert canonical("PTR", "WWW.example.org.") == "www.example.org."
    for type_, value in (("A", "::1"), ("AAAA", "x"), ("A", "")):
        with pytest.raises(GiveUp):
            canonical(type_, value)


@given(st.text(max_size=300))
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    with contextlib.suppress(GiveUp):
        assert host_name(host_name(text)) == host_name(text)


# --- key files


FILE = """# made by tsig-keygen
key "vedette" { /* the
one */ algorithm hmac-sha512; // strong
  secret "dmVkZXR0ZQ=="; };
"""


def test_a_key_file_of_binds_is_read() -> None:
    assert read_key(FILE) == Key("vedette", Secret(SECRET), "hmac-sha512")
    assert read_key('key k { secret "dmVkZXR0ZQ=="; algorithm HMAC-SHA256; };').algorithm == "hmac-sha256"
    assert read_key(FILE + 'key "b" { secret "YQ=="; };', "b").secret.reveal() == "YQ=="


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "there is no key"),
        (FILE * 2, None),
        (FILE + 'key "b" { secret "YQ=="; };', "several keys"),
        ('key "a" { algorithm hmac-sha256; };', "no secret"),
        ('key "a"', "is written as"),
        ('key "a" { secret "YQ==" }', "no secret"),
    ],
)
def test_a_key_file_that_is_none_says_why(text: str, why: str | None) -> None:
    if why is None:
        assert read_key(text).name == "vedette"
        return
    with pytest.raises(ValueError, match=why):
        read_key(text)


@given(st.text(alphabet='key {};"\n/*#abc=', max_size=200) | st.text(max_size=200))
@example('key "a" {')
@example('key key { ; ; ; secret "')
def test_any_text_is_a_key_or_is_refused_without_showing_it(text: str) -> None:
    said = ""
    try:
        read_key(f'{text}\nkey "x" {{ secret "{SECRET}"; }};')
    except ValueError as why:
        said = str(why)
    assert SECRET not in said


def test_a_key_file_that_can_not_be_used_is_refused_at_the_start(tmp_path: Path) -> None:
    for name, text in (
        ("big", "#" * 70_000),
        ("odd", 'key a { secret "%%"; };'),
        ("md4", 'key a { secret "YQ=="; algorithm md4; };'),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError):
            read_key_file(str(tmp_path / name))
    with pytest.raises(ConfigError, match="No such file"):
        read_key_file(str(tmp_path / "none"))
