"""Measurements from Prometheus: node_exporter's of hosts, Ceilometer's of servers. One query for all of them.

The queries are those that Watcher's datasource makes, without the name of the host or server in them: what comes back is matched
by label. What a host is called there is its fqdn or the part before the first dot. NaN is no data. (Prometheus HTTP API,
`/api/v1/query`.)
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from vedette.clients.http import HttpClient
from vedette.clients.tls import client_context
from vedette.errors import BadRequest, ConfigError, GiveUp, TryLater
from vedette.kit.backoff import delays
from vedette.kit.clock import Clock
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath, Seconds
from vedette.model.advice import Query, Resource
from vedette.ports import MeterNeeds

LARGEST = 64 * 1024 * 1024
"""Bytes of an answer: 100,000 servers have some 20 MB."""
TRIES = 3
MIB = 1024 * 1024

_AGGREGATES = {"mean": "avg", "min": "min", "max": "max", "count": "count"}


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements from Prometheus."""

    url: str
    """Its address, such as `https://prometheus:9090`."""
    fqdn_label: str = "fqdn"
    """The label that names a host in node_exporter's metrics."""
    instance_uuid_label: str = "resource"
    """The label that names a server in Ceilometer's metrics."""
    host_cpu: str = "node_cpu_seconds_total"
    """Seconds of processor time by mode."""
    host_memory_total: str = "node_memory_MemTotal_bytes"
    """A host's memory, in bytes."""
    host_memory_available: str = "node_memory_MemAvailable_bytes"
    """What of it is free, in bytes."""
    instance_cpu: str = "ceilometer_cpu"
    """A server's processor time, in nanoseconds."""
    instance_memory: str = "ceilometer_memory_usage"
    """A server's memory in use, in MiB."""
    username: str = ""
    """For basic authentication, with `password`."""
    password: Secret = Secret()
    """Its password."""
    token: Secret = Secret()
    """For `Authorization: Bearer …`."""
    ca: FilePath = ""
    """PEM file of the authorities to trust; none: the system's."""
    cert: FilePath = ""
    """A client certificate (PEM), with `key`."""
    key: FilePath = ""
    """Its private key."""
    allow_insecure: bool = False
    """Send passwords and tokens over plain http to other machines too."""
    timeout: Seconds = 60.0
    """What one query may take."""


def build(options: Options, needs: MeterNeeds) -> PrometheusMeter:
    """Raises ConfigError."""
    address = urlsplit(options.url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError("wants an address such as https://prometheus:9090", path="url")
    secret = bool(options.password or options.token)
    local = address.hostname in ("localhost", "127.0.0.1", "::1")
    if secret and address.scheme == "http" and not local and not options.allow_insecure:
        raise ConfigError("secrets would travel in plain http: use https, or say allow_insecure: true", path="url")
    tls = client_context(ca=options.ca, cert=options.cert, key=options.key) if address.scheme == "https" else None
    client = HttpClient(timeout=options.timeout, tls=tls, largest=LARGEST)
    return PrometheusMeter(options, client, needs.clock)


class PrometheusMeter:
    """See the module."""

    metrics = frozenset(
        {
            "host_cpu_usage",
            "host_ram_usage",
            "instance_cpu_usage",
            "instance_ram_usage",
            "instance_ram_allocated",
            "instance_root_disk_size",
        }
    )

    def __init__(self, options: Options, client: HttpClient, clock: Clock) -> None:
        self._options = options
        self._client = client
        self._clock = clock

    async def read(self, query: Query, resources: Sequence[Resource], at: int) -> Mapping[str, float]:
        if query.metric == "instance_ram_allocated":
            return {one.id: float(one.memory) for one in resources}
        if query.metric == "instance_root_disk_size":
            return {one.id: float(one.disk) for one in resources}
        label = self._options.fqdn_label if query.of_hosts else self._options.instance_uuid_label
        found = await self._ask(self._expression(query), label, at)
        if query.of_hosts:
            short = {name.partition(".")[0]: value for name, value in found.items()}
            return {
                one.id: found.get(one.id, short.get(one.id.partition(".")[0], 0.0))
                for one in resources
                if one.id in found or one.id.partition(".")[0] in short
            }
        if query.metric == "instance_cpu_usage":
            # Of its own processors; clocks that differ give a little more than there is.
            return {one.id: min(100.0, max(0.0, found[one.id] / (one.vcpus or 1))) for one in resources if one.id in found}
        return {one.id: found[one.id] for one in resources if one.id in found}

    def _expression(self, query: Query) -> str:
        o, span = self._options, f"[{query.period}s]"
        how = _AGGREGATES[query.aggregate]
        match query.metric:
            case "host_cpu_usage":
                return f"100 - ({how} by ({o.fqdn_label}) (rate({o.host_cpu}{{mode='idle'}}{span})) * 100)"
            case "host_ram_usage":
                free = f"{how}_over_time({o.host_memory_available}{span})"
                return f"({o.host_memory_total} - {free}) / {MIB}"
            case "instance_cpu_usage":
                return f"{how} by ({o.instance_uuid_label}) (rate({o.instance_cpu}{span})) / 1e9 * 100"
            case "instance_ram_usage":
                return f"{how}_over_time({o.instance_memory}{span})"
        raise BadRequest(f"Prometheus does not tell {query.metric}")

    async def _ask(self, expression: str, label: str, at: int) -> dict[str, float]:
        """Label → value. Raises TryLater, BadRequest."""
        form = urlencode({"query": expression, "time": f"{at / 1e6:.3f}"}).encode()
        body = await self._request("/api/v1/query", form)
        if body.get("status") != "success":
            raise BadRequest(f"Prometheus refuses {expression!r}: {str(body.get('error'))[:300]}")
        found: dict[str, float] = {}
        for row in body.get("data", {}).get("result", ()):
            name = row.get("metric", {}).get(label)
            try:
                value = float(row["value"][1])
            except (KeyError, IndexError, TypeError, ValueError):
                continue
            if isinstance(name, str) and math.isfinite(value):
                found[name] = value
        return found

    async def _request(self, path: str, form: bytes) -> Any:
        waits = delays()
        for attempt in range(1, TRIES + 1):
            try:
                return await self._once(path, form)
            except TryLater:
                if attempt == TRIES:
                    raise
                await self._clock.sleep(next(waits))
        raise AssertionError("the last try returns or raises")

    async def _once(self, path: str, form: bytes) -> Any:
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json", **self._authorization()}
        try:
            answer = await self._client.request("POST", self._options.url.rstrip("/") + path, headers=headers, body=form)
        except GiveUp as why:
            raise BadRequest(str(why)) from None
        if answer.status in (408, 429) or answer.status >= 500:
            raise TryLater(f"Prometheus answered {answer.status}", delay=5.0)
        if answer.status in (401, 403):
            raise BadRequest(f"Prometheus answered {answer.status}: are its username, password or token right?")
        try:
            return msgspec.json.decode(answer.body)
        except msgspec.MsgspecError:
            raise TryLater(f"Prometheus answered {answer.status} with no JSON (or with more than {LARGEST} bytes)") from None

    def _authorization(self) -> dict[str, str]:
        o = self._options
        if o.token:
            return {"Authorization": f"Bearer {o.token.reveal()}"}
        if o.username:
            pair = base64.b64encode(f"{o.username}:{o.password.reveal()}".encode()).decode()
            return {"Authorization": f"Basic {pair}"}
        return {}

    async def state(self) -> str:
        try:
            await self._once("/api/v1/query", urlencode({"query": "1"}).encode())
        except (TryLater, BadRequest) as why:
            return f"not available: {why}"
        return "available"

    async def close(self) -> None:
        await self._client.close()
