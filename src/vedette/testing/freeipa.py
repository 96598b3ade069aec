"""A FreeIPA on 127.0.0.1, as far as enrolling hosts and issuing certificates goes: over TLS, with sessions and a CA of its own.

It refuses what the real one refuses: a request without a Referer of its own, without a session, an unknown option; it locks out
after too many wrong passwords; certificates are signed for the key of the request, only for enrolled hosts whose name it bears.

    async with FakeFreeIpa(Authority(folder)) as ipa:
        FreeIpa(ipa.url, ipa.user, Secret(ipa.password), clock, ca=str(ipa.ca))
"""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vedette.testing.tls import Authority

MAX_FAILURES = 6
"""Wrong passwords in a row; then the account is locked."""
PASSWORD = "wachsam-7"

_OPTIONS = {
    "host_add": {"version", "force", "description", "ip_address", "no_reverse"},
    "host_show": {"version", "all", "raw"},
    "host_del": {"version", "continue", "updatedns"},
    "cert_request": {"version", "principal", "request_type", "add", "profile_id", "cacn"},
}


class _No(Exception):
    def __init__(self, code: int, name: str, message: str) -> None:
        self.error = {"code": code, "name": name, "message": message, "data": {}}


class FakeFreeIpa:
    """See the module. What it holds is in plain attributes: look, change."""

    def __init__(
        self, authority: Authority, *, realm: str = "EXAMPLE.ORG", user: str = "vedette", password: str = PASSWORD
    ) -> None:
        self.ca: Path = authority.ca
        """What signs its own server certificate."""
        self._tls = authority.server("freeipa").server_context()
        self.realm, self.user, self.password = realm, user, password
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Certificate Authority")])
        self.hosts: dict[str, dict[str, Any]] = {}
        self.certificates: list[x509.Certificate] = []
        self.revoked: set[int] = set()
        """Serial numbers: of hosts that were taken out."""
        self.sessions: set[str] = set()
        self.failures = 0
        """Wrong passwords since the last right one."""
        self.requests: Counter[str] = Counter()
        """`login`, or a method's name → how often it came in, whatever was answered."""
        self.fault = 0
        """Answer everything with this status."""
        self.error: dict[str, tuple[int, str, str]] = {}
        """Method → code, name and message of the error that it gives."""
        self.after: Callable[[str], None] | None = None
        """Called with a method's name when it was done and before it is answered."""
        self._runner: web.AppRunner | None = None
        self._port = 0

    async def start(self) -> None:
        """Listen; at the same port as before, if there was one."""
        app = web.Application()
        app.router.add_post("/ipa/session/login_password", self._login)
        app.router.add_post("/ipa/session/json", self._json)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls, reuse_address=True)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> FakeFreeIpa:
        await self.start()
        return self

    async def __aexit__(self, *why: object) -> None:
        await self.stop()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._port}/ipa"

    @property
    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Of its CA: every certificate it issued is signed with it."""
        return self._key.public_key()

    # --- requests

    async def _login(self, request: web.Request) -> web.Response:
        self.requests["login"] += 1
        self._check(request)
        form = await request.post()
        if form.get("user") != self.user or form.get("password") != self.password or self.failures >= MAX_FAILURES:
            reason = "denied" if self.failures >= MAX_FAILURES else "invalid-password"
            self.failures += 1
            return web.Response(status=401, headers={"X-IPA-Rejection-Reason": reason})
        self.failures = 0
        session = secrets.token_urlsafe(24)
        self.sessions.add(session)
        response = web.Response()
        response.set_cookie("ipa_session", session, path="/ipa", secure=True, httponly=True)
        return response

    async def _json(self, request: web.Request) -> web.Response:
        self._check(request)
        if request.cookies.get("ipa_session") not in self.sessions:
            return web.Response(status=401)
        asked = msgspec.json.decode(await request.read())
        method, (args, options) = asked["method"], asked["params"]
        self.requests[method] += 1
        result, error = None, None
        try:
            if method not in _OPTIONS:
                raise _No(905, "CommandError", f"unknown command '{method}'")
            if unknown := set(options) - _OPTIONS[method]:
                raise _No(3005, "OptionError", f"Unknown option: {min(unknown)}")
            if method in self.error:
                raise _No(*self.error[method])
            result = getattr(self, f"_{method}")(*args, options)
        except _No as no:
            error = no.error
        if self.after is not None:
            self.after(method)
        body = {
            "result": result,
            "error": error,
            "id": asked["id"],
            "principal": f"{self.user}@{self.realm}",
            "version": "4.12.2",
        }
        return web.json_response(body)

    def _check(self, request: web.Request) -> None:
        if self.fault:
            raise _http(self.fault)
        if not request.headers.get("Referer", "").startswith(self.url):
            raise web.HTTPBadRequest(text="Invalid or missing Referer")

    # --- commands

    def _host_add(self, fqdn: str, options: dict[str, Any]) -> dict[str, Any]:
        if fqdn in self.hosts:
            raise _No(4002, "DuplicateEntry", f'host with name "{fqdn}" already exists')
        if not options.get("force"):
            raise _No(4019, "DNSNotARecordError", "Host does not have corresponding DNS A/AAAA record")
        host = {"fqdn": [fqdn], "krbprincipalname": [f"host/{fqdn}@{self.realm}"], "has_keytab": False}
        if "description" in options:
            host["description"] = [options["description"]]
        self.hosts[fqdn] = host
        return {"result": host, "value": fqdn, "summary": f'Added host "{fqdn}"'}

    def _host_show(self, fqdn: str, options: dict[str, Any]) -> dict[str, Any]:
        return {"result": self._host(fqdn), "value": fqdn, "summary": None}

    def _host_del(self, fqdn: str, options: dict[str, Any]) -> dict[str, Any]:
        self._host(fqdn)
        del self.hosts[fqdn]
        self.revoked |= {one.serial_number for one in self.certificates if _common_name(one.subject) == fqdn}
        return {"result": {"failed": []}, "value": [fqdn], "summary": f'Deleted host "{fqdn}"'}

    def _cert_request(self, csr: str, options: dict[str, Any]) -> dict[str, Any]:
        service, _, fqdn = options["principal"].partition("@")[0].partition("/")
        if options["principal"] != f"{service}/{fqdn}@{self.realm}" or service != "host":
            raise _No(3009, "ValidationError", "invalid 'principal': not a host of this realm")
        self._host(fqdn)
        try:
            request = x509.load_pem_x509_csr(csr.encode())
        except ValueError:
            raise _No(3009, "ValidationError", "invalid 'csr': Failure decoding Certificate Signing Request") from None
        if not request.is_signature_valid or _common_name(request.subject) != fqdn:
            raise _No(3009, "ValidationError", f"invalid 'csr': hostname in subject of request does not match principal '{fqdn}'")
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(request.subject)
            .issuer_name(self.issuer)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=730))
        )
        for extension in request.extensions:
            builder = builder.add_extension(extension.value, extension.critical)
        certificate = builder.sign(self._key, hashes.SHA256())
        self.certificates.append(certificate)
        raw = base64.b64encode(certificate.public_bytes(serialization.Encoding.DER)).decode()
        return {
            "result": {"certificate": raw, "serial_number": certificate.serial_number, "cacn": "ipa"},
            "value": "",
            "summary": None,
        }

    def _host(self, fqdn: str) -> dict[str, Any]:
        if fqdn not in self.hosts:
            raise _No(4001, "NotFound", f"{fqdn}: host not found")
        return self.hosts[fqdn]


def _http(status: int) -> web.HTTPException:
    class Fault(web.HTTPException):
        status_code = status

    return Fault()


def _common_name(subject: x509.Name) -> str:
    found = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""
