"""Asks and changes a DNS server that takes dynamic updates (RFC 2136), signed with TSIG (RFC 8945), over TCP.

In: names, types and values as text. Out: what the server has (`lookup`), the zone a name is in (`zone`), and a change of one zone
that happens as a whole or not at all (`write`). Each change may say what has to be there before; when it isn't, Conflict: look
again and decide anew. Whose a record is, and what to do about another's, is decided by handlers/dns.py.

Errors: TargetUnavailable (nobody answers), TryLater (the server is unwell), GiveUp (a person has to act: the key, the zone's
policy, the clocks, the name), Conflict.
"""

from __future__ import annotations

import asyncio
import binascii
import ipaddress
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.resolver
import dns.tsig
import dns.update
import msgspec

from vedette.errors import ConfigError, Conflict, GiveUp, TargetUnavailable, TryLater
from vedette.kit.secret import Secret

TIMEOUT_SECONDS = 10.0
"""For one question or one update, the connection included."""
UNWELL_SECONDS = 5.0
"""After a server that said that something is wrong with it: until the next attempt."""
MAX_KEY_FILE = 64 * 1024
"""Bytes of a key file; real ones have a hundred."""
MAX_ADDRESSES = 4
"""Addresses of the server's name that are tried, one after the other."""
MAX_ZONES = 1_000
"""Names whose zone is remembered; then all are forgotten, and asked for again."""

ALGORITHMS = ("hmac-md5", "hmac-sha1", "hmac-sha224", "hmac-sha256", "hmac-sha384", "hmac-sha512")
_TSIG_NAMES = {"hmac-md5": "hmac-md5.sig-alg.reg.int"}


class Key(msgspec.Struct, frozen=True):
    """A TSIG key."""

    name: str
    secret: Secret
    """Base64, as BIND writes it."""
    algorithm: str = "hmac-sha256"


class RRset(msgspec.Struct, frozen=True):
    """All records of one type at one name; no values: there are none."""

    name: str
    type: str
    values: tuple[str, ...] = ()
    """Sorted, each in its one form (`canonical`)."""
    ttl: int = 0


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """These values take the place of all that are there."""

    name: str
    type: str
    values: tuple[str, ...] = ()
    """None: there will be no such records."""
    ttl: int = 0
    """Seconds."""
    expect: tuple[str, ...] | None = None
    """Exactly these values have to be there now (`()`: none); None: whatever there is."""


class Nameserver:
    """One server, one key. Made anywhere, used in one event loop; holds no connection between calls."""

    def __init__(
        self,
        server: str = "",
        *,
        port: int = 53,
        key: Key | None = None,
        zone: str = "",
        reverse_zone: str = "",
        resolv_conf: str = "",
        resolver_port: int = 53,
        timeout_s: float = TIMEOUT_SECONDS,
    ) -> None:
        """`server`: an address or a name; "": the primary that a zone's SOA names, found by the resolvers of `resolv_conf` (or
        the system's). `zone`, `reverse_zone`: "" for asking the server. Raises ConfigError."""
        self._server, self._port, self._timeout = server, port, timeout_s
        self._key = _tsig(key) if key else None
        self._fixed = tuple(_config_name(one) for one in (zone, reverse_zone) if one)
        self._zones: dict[str, dns.name.Name] = {}
        self._resolver = _resolver(resolv_conf, resolver_port, timeout_s) if resolv_conf or not server else None

    async def zone(self, name: str) -> str:
        """The zone of the server that holds `name`. GiveUp: it has none. https://www.rfc-editor.org/rfc/rfc2136#section-3.1"""
        wanted = _name(name)
        for fixed in self._fixed:
            if wanted.is_subdomain(fixed):
                return _text(fixed)
        kept = self._zones.get(name)
        if kept is None:
            kept = await self._find_zone(wanted)
            if len(self._zones) >= MAX_ZONES:
                self._zones.clear()
            self._zones[name] = kept
        return _text(kept)

    async def lookup(self, name: str, type_: str) -> RRset:
        """What the server itself has there. GiveUp: the name is an alias."""
        wanted, rdtype = _name(name), dns.rdatatype.from_text(type_)
        answer = await self._ask(dns.message.make_query(wanted, rdtype, flags=0), wanted)
        for rrset in answer.answer:
            if rrset.name == wanted and rrset.rdtype == dns.rdatatype.CNAME:
                raise GiveUp(f"{name} is an alias (CNAME) of {_text(rrset[0].target)}: remove that record, or use another name")
            if rrset.name == wanted and rrset.rdtype == rdtype:
                return RRset(name, type_, tuple(sorted(_value(rdata) for rdata in rrset)), rrset.ttl)
        return RRset(name, type_)

    async def write(self, zone: str, writes: Sequence[Write]) -> None:
        """All of them or none, in one message. Raises Conflict when one's `expect` doesn't hold, or its name is an alias.
        https://www.rfc-editor.org/rfc/rfc2136#section-2.4"""
        origin = _name(zone)
        update = dns.update.UpdateMessage(origin)
        for write in writes:
            name = _name(write.name)
            if write.values and write.type != "CNAME":
                # Beside an alias a server ignores the addition and says NOERROR (RFC 2136, 3.4.2.2).
                update.absent(name, "CNAME")
            if write.expect is not None:
                if write.expect:
                    update.present(name, *(_rdata(write.type, value) for value in write.expect))
                else:
                    update.absent(name, write.type)
            update.delete(name, write.type)
            if write.values:
                update.add(name, write.ttl, *(_rdata(write.type, value) for value in write.values))
        await self._change(update, origin)

    async def remove(self, zone: str, name: str, type_: str, value: str) -> None:
        """Take out one record, whatever stands beside it; nothing happens when it isn't there."""
        origin = _name(zone)
        update = dns.update.UpdateMessage(origin)
        update.delete(_name(name), _rdata(type_, value))
        await self._change(update, origin)

    async def _find_zone(self, wanted: dns.name.Name) -> dns.name.Name:
        at = wanted
        # At most one question a label; the first answer nearly always has it, here or in its authority section.
        while at != dns.name.root:
            answer = await self._ask(dns.message.make_query(at, dns.rdatatype.SOA, flags=0), wanted)
            for rrset in (*answer.answer, *answer.authority):
                if rrset.rdtype == dns.rdatatype.SOA and answer.flags & dns.flags.AA and wanted.is_subdomain(rrset.name):
                    return rrset.name
            at = at.parent()
        raise GiveUp(f"{self._who()} has no zone for {_text(wanted)}: add the zone there, or name its primary server")

    async def _change(self, update: dns.update.UpdateMessage, origin: dns.name.Name) -> None:
        try:
            await self._exchange(update, origin)
        except GiveUp:
            self._zones.clear()  # what was known of its zones may be why
            raise

    async def _ask(self, query: dns.message.Message, about: dns.name.Name) -> dns.message.Message:
        return await self._exchange(query, about)

    async def _exchange(self, message: dns.message.Message, about: dns.name.Name) -> dns.message.Message:
        if self._key is not None:
            message.use_tsig(self._key)
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._send(message, about)
        except (TimeoutError, dns.exception.Timeout):
            raise TargetUnavailable(f"{self._who()} did not answer within {self._timeout:g} s") from None
        except (OSError, EOFError) as why:
            raise TargetUnavailable(f"{self._who()} can't be reached: {why}") from why
        except (dns.tsig.PeerError, dns.tsig.BadTime, dns.tsig.BadSignature, dns.message.UnknownTSIGKey) as why:
            raise GiveUp(self._tsig_text(why)) from why
        except dns.exception.DNSException as why:
            raise TryLater(f"{self._who()} gave an answer that can't be read: {why}", delay=UNWELL_SECONDS) from why
        self._judge(answer, about)
        return answer

    async def _send(self, message: dns.message.Message, about: dns.name.Name) -> dns.message.Message:
        last: OSError | None = None
        for address in await self._addresses(about):
            try:
                return await dns.asyncquery.tcp(message, address, port=self._port)
            except OSError as why:  # asyncio's own timeout is one too, and is not for the next address
                if isinstance(why, TimeoutError):
                    raise
                last = why
        raise last or OSError("its name has no address")

    async def _addresses(self, about: dns.name.Name) -> list[str]:
        server = self._server
        try:
            return [str(ipaddress.ip_address(server))]
        except ValueError:
            pass
        if self._resolver is None:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(server, self._port, type=socket.SOCK_STREAM)
            return [str(address[0]) for *_, address in found][:MAX_ADDRESSES]
        try:
            if not server:
                zone = await dns.asyncresolver.zone_for_name(about, resolver=self._resolver, tcp=True)
                soa = await self._resolver.resolve(zone, "SOA", search=False)
                server = _text(soa[0].mname)
            return list((await self._resolver.resolve_name(server)).addresses())[:MAX_ADDRESSES]
        except dns.exception.Timeout:
            raise
        except dns.exception.DNSException as why:
            raise OSError(f"no address of {server or 'the primary of ' + _text(about)} is found ({type(why).__name__})") from why

    def _judge(self, answer: dns.message.Message, about: dns.name.Name) -> None:
        """https://www.rfc-editor.org/rfc/rfc2136#section-2.2 and #section-3"""
        who, zone, rcode = self._who(), _text(about), answer.rcode()
        query = answer.opcode() == dns.opcode.QUERY
        if rcode == dns.rcode.NOERROR or (query and rcode == dns.rcode.NXDOMAIN):
            if self._key is not None and not answer.had_tsig:
                raise TryLater(f"{who} did not sign its answer, and it is not believed", delay=UNWELL_SECONDS)
            return
        if rcode in (dns.rcode.YXDOMAIN, dns.rcode.YXRRSET, dns.rcode.NXRRSET, dns.rcode.NXDOMAIN):
            raise Conflict(f"{zone} at {who} is not what it was when it was looked at ({dns.rcode.to_text(rcode)})")
        if rcode == dns.rcode.REFUSED and query:
            raise GiveUp(
                f"{who} refuses questions for {zone}: it has no such zone, or {self._key_text()} may not ask (allow-query)"
            )
        if rcode == dns.rcode.REFUSED:
            raise GiveUp(f"{who} refuses to change {zone} with {self._key_text()}: allow it in the zone's update-policy")
        if rcode == dns.rcode.NOTAUTH:
            raise GiveUp(f"{who} is not the primary server of {zone}, or wants a signature: {self._key_text()} was used")
        if rcode == dns.rcode.NOTZONE:
            raise GiveUp(f"{who} says that the name is outside the zone {zone} (NOTZONE): correct the option `zone`")
        if rcode in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
            raise GiveUp(f"{who} takes no dynamic updates ({dns.rcode.to_text(rcode)}): name the zone's primary server")
        raise TryLater(f"{who} is unwell: {dns.rcode.to_text(rcode)} for {zone}", delay=UNWELL_SECONDS)

    def _tsig_text(self, why: Exception) -> str:
        if isinstance(why, dns.tsig.PeerBadTime | dns.tsig.BadTime):
            return f"{self._who()} and this machine don't agree what time it is (BADTIME): set both clocks, with NTP"
        if isinstance(why, dns.tsig.PeerBadKey | dns.message.UnknownTSIGKey):
            return f"{self._who()} does not know {self._key_text()} with this algorithm (BADKEY): add it there"
        return f"{self._who()} has another secret for {self._key_text()} (BADSIG): copy its key file anew"

    def _key_text(self) -> str:
        return f"the key {_text(self._key.name)!r}" if self._key is not None else "no key"

    def _who(self) -> str:
        return f"the DNS server {self._server or 'that the SOA names'} (port {self._port})"


# --- names, values, keys ---------------------------------------------------------------------------------------------------


def host_name(text: str) -> str:
    """A name in its one form: lower case, no dot behind it, IDNA where it is not ASCII. Raises GiveUp."""
    return _text(_name(text))


def canonical(type_: str, value: str) -> str:
    """A value in its one form (`192.0.2.1`, `2001:db8::1`, `www.example.org.`). Raises GiveUp."""
    return _value(_rdata(type_, value))


def within(name: str, zone: str) -> bool:
    """Whether a name is the zone's or below it."""
    return _name(name).is_subdomain(_name(zone))


_TOKEN = re.compile(r'\s+|//[^\n]*|#[^\n]*|/\*.*?\*/|"([^"\n]{0,1000})"|([^\s"{};#]{1,1000})|([{};])', re.DOTALL)


def read_key(text: str, name: str = "") -> Key:
    """A key of a BIND key file, as tsig-keygen and rndc-confgen write it: `key "name" { algorithm …; secret "…"; };`. With
    several in it, the one called `name`. Raises ValueError that never holds the file's text."""
    words = _words(text)
    found: dict[str, Key] = {}
    at = 0
    while at < len(words):
        if words[at] != "key":
            at += 1
            continue
        end = next((place for place in range(at, len(words)) if words[place] == "}"), 0)
        if not end or words[at + 2 : at + 3] != ["{"]:
            raise ValueError('a key is written as: key "name" { algorithm hmac-sha256; secret "…"; };')
        body = words[at + 3 : end]
        said = {body[place]: body[place + 1] for place in range(0, len(body) - 2, 3) if body[place + 2] == ";"}
        if not said.get("secret"):
            raise ValueError("a key has no secret")
        found[words[at + 1]] = Key(words[at + 1], Secret(said["secret"]), said.get("algorithm", "hmac-sha256").lower())
        at = end + 1
    if name and name not in found:
        raise ValueError(f"no key is called {name!r}; there are: {', '.join(sorted(found)) or 'none'}")
    if not found or (not name and len(found) > 1):
        raise ValueError("there is no key" if not found else "there are several keys: say which by `key_name`")
    return found[name] if name else next(iter(found.values()))


def read_key_file(path: str, name: str = "") -> Key:
    """The same, of a file. Raises ConfigError."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            text = file.read(MAX_KEY_FILE + 1)
        if len(text) > MAX_KEY_FILE:
            raise ValueError(f"is larger than {MAX_KEY_FILE} bytes")
        key = read_key(text, name)
        _tsig(key)
    except (OSError, ValueError) as why:
        raise ConfigError(f"the key file {path}: {why}", path="key_file") from None
    return key


def _words(text: str) -> list[str]:
    words: list[str] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError("it is no key file of BIND's")
        at = match.end()
        if match.lastindex is not None:
            words.append(match[match.lastindex])
    return words


def _tsig(key: Key) -> dns.tsig.Key:
    algorithm = key.algorithm.removesuffix(".")
    if algorithm not in ALGORITHMS:
        raise ConfigError(f"is not one of {', '.join(ALGORITHMS)}", path="key_algorithm")
    try:
        secret = binascii.a2b_base64(key.secret.reveal(), strict_mode=True)
    except (binascii.Error, ValueError):
        secret = b""
    if not secret:
        raise ConfigError("is not base64, as tsig-keygen writes it", path="key_secret")
    return dns.tsig.Key(_config_name(key.name), secret, dns.name.from_text(_TSIG_NAMES.get(algorithm, algorithm)))


def _resolver(resolv_conf: str, port: int, timeout: float) -> dns.asyncresolver.Resolver:
    try:
        resolver = dns.asyncresolver.Resolver(resolv_conf or "/etc/resolv.conf")
    except (OSError, dns.exception.DNSException) as why:
        raise ConfigError(f"can't be read: {why}", path="resolv_conf") from None
    resolver.port, resolver.lifetime = port, timeout
    return resolver


def _name(text: str) -> dns.name.Name:
    try:
        return dns.name.from_text(text).canonicalize()
    except (dns.exception.DNSException, UnicodeError) as why:
        raise GiveUp(f"{text!r} is no name for DNS: {why}") from None


def _config_name(text: str) -> dns.name.Name:
    try:
        return _name(text)
    except GiveUp as why:
        raise ConfigError(str(why)) from None


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True)


def _rdata(type_: str, value: str) -> dns.rdata.Rdata:
    try:
        return dns.rdata.from_text(
            dns.rdataclass.IN, dns.rdatatype.from_text(type_), value, origin=dns.name.root, relativize=False
        )
    except (dns.exception.DNSException, ValueError) as why:
        raise GiveUp(f"{value!r} is no value for a record of type {type_}: {why}") from None


def _value(rdata: dns.rdata.Rdata) -> str:
    text: str = rdata.to_text()
    return text.lower() if rdata.rdtype in (dns.rdatatype.PTR, dns.rdatatype.CNAME) else text
