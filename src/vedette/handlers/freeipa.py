"""Enrols hosts in FreeIPA, and gives the routes of a cluster certificates from it.

In: changes of Routes that ask for it by an annotation (`openshift.io/managed.cert: "true"`), and of other objects by the option
`name`. Out: a host in FreeIPA (clients/freeipa.py); for a Route a new key, a certificate for it, and both in the Route, marked
`<annotation>.state: created` (clients/kubernetes.py). With the last object of its name the host goes, if this handler added it.

The private key is made here and is nowhere but in the Route: not in the log, not in the store, not in an error. So a call
that ended between FreeIPA's signature and the Route has to begin anew: FreeIPA has then issued a certificate that nobody has a
key for. Whether a Route has its certificate is read from the Route itself, as it is now.

A host is its first Route's: one in another namespace that says the same host goes to the dead letters, for who may make a Route
can put anybody's name into it. `domains` says which hosts there may be at all.

Remembered: `object <source/group/Kind/id>` has the host's name, _claims.py keeps who holds it. A host that this handler added
says so in its description; another's is used, and never taken out.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any, Literal

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from vedette.clients.freeipa import FreeIpa
from vedette.clients.kubernetes import Kubernetes, Resource
from vedette.errors import BadRequest, ConfigError, Conflict, GiveUp, NotFound, TryLater
from vedette.handlers import _claims as claims
from vedette.handlers._claims import Claims
from vedette.handlers._cluster import Cluster, connect, judged
from vedette.handlers._template import Values, template
from vedette.kit.log import kv
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.ports import Context, Event, HandlerNeeds, JsonObject

log = logging.getLogger("vedette.handlers.freeipa")

CREATED = "created"
ROUNDS = 5
"""How often the Route is looked at again when somebody else changed it meanwhile."""
LONGEST_HOST = 64
"""Characters: what a certificate's subject takes (RFC 5280, ub-common-name)."""

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one `freeipa` handler."""

    url: str
    """FreeIPA, such as `https://ipa.example.org/ipa`."""
    user: str
    """An account that may enrol hosts and request their certificates."""
    password: Secret
    """Its password."""
    realm: str
    """The Kerberos realm, such as `EXAMPLE.ORG`."""
    ca: FilePath = ""
    """FreeIPA's CA, a PEM file (`/etc/ipa/ca.crt`); none: the system's."""
    annotation: str = "openshift.io/managed.cert"
    """Routes that have this annotation with the value `true` get a certificate; then `<annotation>.state` is `created`."""
    cluster: Cluster = Cluster()
    """The cluster that the Routes are from."""
    resource: str = "routes.route.openshift.io"
    """The Routes' resource; `routes` for an OpenShift 3."""
    termination: Literal["edge", "reencrypt"] = "edge"
    """Where TLS ends, for Routes that don't say it."""
    key_bits: int = 2048
    """The size of the RSA keys."""
    name: str = ""
    """The host's name, such as `{object.status.name}.example.org`, for objects that are no Routes: they get a host, and no
    certificate."""
    domains: tuple[str, ...] = ()
    """Domains such as `apps.example.org`: hosts outside of them go to the dead letters. None: whoever may make a Route gets a
    certificate for any host that the account may have certificates for."""
    updatedns: bool = False
    """Have FreeIPA remove a host's DNS records with it."""
    timeout: Seconds = 30.0
    """What one request to FreeIPA may take. A certificate takes four: give the handler a `timeout` of two minutes."""


def build(options: Options, needs: HandlerNeeds) -> FreeIpaHandler:
    """The handler for these settings. Raises ConfigError; nothing is sent yet."""
    if not 2048 <= options.key_bits <= 8192:
        raise ConfigError("is not between 2048 and 8192", path="key_bits")
    ipa = FreeIpa(options.url, options.user, options.password, needs.clock, ca=options.ca, timeout_s=options.timeout)
    return FreeIpaHandler(options, ipa, connect(options.cluster, needs.clock), needs.name)


class FreeIpaHandler:
    """See the module."""

    def __init__(self, options: Options, ipa: FreeIpa, cluster: Kubernetes, name: str) -> None:
        self._options = options
        self._ipa = ipa
        self._cluster = cluster
        self._resource: Resource | None = None
        self._name = template(options.name, missing="fail", path="name") if options.name else None
        self._mark = f"Added by Vedette for the handler {name}"
        self._claims = Claims()

    async def handle(self, event: Event, context: Context) -> str | None:
        """Errors as in clients/freeipa.py and _cluster.py."""
        subject = claims.subject(event)
        assert event.key is not None
        found = event.object
        before = str((await context.recall(f"object {subject}") or {}).get("host", ""))
        if event.verb == "DELETED":
            return await self._gone(subject, before or self._last_host(event), context)
        route = event.key.kind == "Route"
        if route and (not self._asks(found) or (before == self._host(event) and _state(found, self._options) == CREATED)):
            return "nothing to do"
        host = self._host(event)
        async with self._claims.alone([host]):
            holders = [one for one in await self._claims.holders(host, context) if one[0] != subject]
            if route:
                _refuse_others(host, subject, [holder for holder, _ in holders])
            said = await self._certify(found, host) if route else await self._enrol(host)
            self._claims.keep(host, [*holders, (subject, "")], context)
        if before and before != host:
            said += "; " + await self._gone(subject, before, context)
        context.remember(f"object {subject}", {"host": host})
        return said

    async def close(self) -> None:
        await self._ipa.close()
        await self._cluster.close()

    def _asks(self, found: JsonObject) -> bool:
        return _annotation(found, self._options.annotation) == "true"

    def _last_host(self, event: Event) -> str:
        """Of an object that is gone, and of which nothing is remembered; "": it had none."""
        assert event.key is not None
        try:
            return self._host(event) if event.key.kind != "Route" or self._asks(event.object) else ""
        except GiveUp:
            return ""

    def _host(self, event: Event) -> str:
        assert event.key is not None
        found = event.object
        host = _text(found, "spec", "host") if event.key.kind == "Route" else self._name.fill(Values(event)) if self._name else ""
        if event.key.kind != "Route" and self._name is None:
            raise GiveUp(f"which name a {event.key.kind} has is not known: set the option `name`")
        if not host or len(host) > LONGEST_HOST:
            raise GiveUp(f"{host[:100]!r} can't be a host in FreeIPA: it takes 1 to {LONGEST_HOST} characters")
        host = host.lower()
        if not _HOST.fullmatch(host):
            raise GiveUp(f"{host!r} is no host's name")
        domains = [one.lower().strip(".") for one in self._options.domains]
        if domains and not any(host == one or host.endswith(f".{one}") for one in domains):
            raise GiveUp(f"{host} is in none of `domains`")
        return host

    async def _enrol(self, host: str) -> str:
        added = await self._ipa.host_add(host, description=self._mark)
        return f"host {host} added" if added else f"host {host} was there"

    async def _gone(self, subject: str, host: str, context: Context) -> str:
        """The object holds this host no longer."""
        context.remember(f"object {subject}", None)
        if not host:
            return "nothing to do"
        async with self._claims.alone([host]):
            holders = [one for one in await self._claims.holders(host, context) if one[0] != subject]
            if holders:
                said = f"host {host} is kept for {holders[0][0]}"
            else:
                known = await self._ipa.host_show(host)
                if known is None:
                    said = f"host {host} was gone"
                elif self._mark not in (known.get("description") or ()):
                    said = f"host {host} was not added here: left alone"
                else:
                    await self._ipa.host_del(host, updatedns=self._options.updatedns)
                    said = f"host {host} removed"
            self._claims.keep(host, holders, context)
        return said

    # --- routes

    async def _certify(self, seen: JsonObject, host: str) -> str:
        """A host, a key, a certificate, and both in the Route as it is now."""
        now = await self._route(seen, host)
        if now is None:
            return "the route is gone, or was changed again: nothing to do"
        if _state(now, self._options) == CREATED and _is_for(_text(now, "spec", "tls", "certificate"), host):
            return f"the route has its certificate for {host}"
        said = await self._enrol(host)
        # Half a second of arithmetic, not in the event loop.
        key, csr = await asyncio.to_thread(_key_and_request, host, self._options.key_bits)
        certificate = await self._ipa.cert_request(csr, f"host/{host}@{self._options.realm}")
        for _ in range(ROUNDS):
            body = _patch(now, key, certificate, self._options)
            try:
                await self._put(now, body)
            except Conflict:
                log.info("the route was changed meanwhile", extra=kv(host=host))
                again = await self._route(now, host)
                if again is None:
                    return f"{said}; the route is gone, or was changed again: its certificate is not used"
                now = again
                continue
            return f"{said}; certificate for {host} put into the route"
        raise TryLater(f"somebody else keeps changing the route of {host}")

    async def _route(self, seen: JsonObject, host: str) -> JsonObject | None:
        """The Route as it is; None: it is gone, or is another one, or has another host. Then another event tells of that."""
        resource = await self._resolved()
        async with judged(self._cluster):
            try:
                now = await self._cluster.get(resource, _text(seen, "metadata", "namespace"), _text(seen, "metadata", "name"))
            except NotFound:
                return None
        uid = _text(seen, "metadata", "uid")
        if _text(now, "spec", "host").lower() != host or (uid and uid != _text(now, "metadata", "uid")):
            return None
        return now

    async def _put(self, now: JsonObject, body: JsonObject) -> None:
        resource = await self._resolved()
        async with judged(self._cluster):
            try:
                await self._cluster.patch(resource, _text(now, "metadata", "namespace"), _text(now, "metadata", "name"), body)
            except BadRequest as why:
                # An API may quote what it refuses, and a key is in it.
                raise GiveUp(re.sub(r"-----BEGIN.*", "***", str(why), flags=re.DOTALL)) from None

    async def _resolved(self) -> Resource:
        if self._resource is None:
            async with judged(self._cluster):
                self._resource = await self._cluster.resolve(self._options.resource)
        return self._resource


def _refuse_others(host: str, subject: str, holders: list[str]) -> None:
    """Raises GiveUp: a Route of another namespace (or cluster) has this host."""
    space = subject.rpartition("/")[0]
    for holder in holders:
        if holder.rpartition("/")[0] != space:
            raise GiveUp(f"{host} is held by {holder}: a route of another namespace gets no certificate for it")


def _patch(now: JsonObject, key: Secret, certificate: str, options: Options) -> JsonObject:
    """Only while the Route is what it was when it was read."""
    tls: JsonObject = {"certificate": certificate, "key": key.reveal()}
    if not _text(now, "spec", "tls", "termination"):
        tls["termination"] = options.termination
    return {
        "metadata": {
            "resourceVersion": _text(now, "metadata", "resourceVersion"),
            "annotations": {f"{options.annotation}.state": CREATED},
        },
        "spec": {"tls": tls},
    }


def _key_and_request(host: str, bits: int) -> tuple[Secret, str]:
    """A new RSA key (PEM) and a request to sign it for this name (PEM)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return Secret(pem.decode()), csr.public_bytes(serialization.Encoding.PEM).decode()


def _is_for(certificate: str, host: str) -> bool:
    """Whether a certificate (PEM, the first of several) names this host."""
    names: list[str] = []
    try:
        read = x509.load_pem_x509_certificate(certificate.encode())
        names += (str(one.value) for one in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
        names += read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    except (ValueError, x509.ExtensionNotFound):
        pass
    return host in (name.lower() for name in names)


def _state(found: JsonObject, options: Options) -> str:
    return _annotation(found, f"{options.annotation}.state")


def _annotation(found: JsonObject, name: str) -> str:
    return _text(found, "metadata", "annotations", name)


def _text(found: Any, *path: str) -> str:
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found if isinstance(found, str) else ""
