"""Gives each route that asks for it a certificate from FreeIPA.

`[plugin_ipa]`: `need_cert_annotation` (`openshift.io/managed.cert`), `ipa_url`, `ipa_user`, `ipa_password`, `ipa_realm`,
`ipa_ca_cert` (or `ca_trust`; none: the system's), `message_log_level`.

A route whose annotation is "true" gets a host in FreeIPA, a key and a certificate, and `<annotation>.state: created`; when it
goes, the host goes, if it was enrolled by this. The work, and what is done about hosts and routes of others, is
handlers/freeipa.py's. The key is nowhere but in the route.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec

from vedette.clients.freeipa import FreeIpa
from vedette.errors import ConfigError
from vedette.handlers._cluster import Cluster, connect
from vedette.handlers.freeipa import FreeIpaHandler, Options
from vedette.kit.clock import SystemClock
from vedette.kit.secret import Secret
from vedette.model.notice import Notice
from vedette.model.reading import Key
from vedette.ports import Event

NAME = "plugin_ipa"
SERVED = "route.openshift.io"


class _Forgets:
    """A context without a memory: whether a route has its certificate is read from the route."""

    timeout = 120.0

    async def recall(self, name: str) -> Any:
        return None

    def remember(self, name: str, value: Any) -> None:
        """Kept nowhere."""


def handle_event(watcher: Any, event: Mapping[str, Any], config: Mapping[str, str], *args: Any, **kwargs: Any) -> tuple[str, str]:
    """(message, level)."""
    found = event["object"]
    did = asyncio.run(_handle(watcher.config, event, config)) if found["kind"] == "Route" else "nothing to do"
    message = f"Kind: {found['kind']}; Name: {found['metadata']['name']}; {did}"
    return message, config.get("message_log_level") or "INFO"


async def _handle(k8s: Any, event: Mapping[str, Any], config: Mapping[str, str]) -> str:
    clock, found = SystemClock(), event["object"]
    group = str(found.get("apiVersion", "")).rpartition("/")[0]
    options = Options(
        url=_wanted(config, "ipa_url"),
        user=_wanted(config, "ipa_user"),
        password=Secret(_wanted(config, "ipa_password")),
        realm=_wanted(config, "ipa_realm"),
        ca=config.get("ipa_ca_cert") or config.get("ca_trust") or "",
        annotation=config.get("need_cert_annotation") or "openshift.io/managed.cert",
        cluster=Cluster(server=k8s.k8s_endpoint, token=Secret(k8s.k8s_token), ca=k8s.k8s_ca),
        # An OpenShift 3 shows them in `/oapi/v1` too; where route.openshift.io has them, that is found first.
        resource=f"routes.{SERVED}" if group == SERVED else "routes",
    )
    ipa = FreeIpa(options.url, options.user, options.password, clock, ca=options.ca)
    handler = FreeIpaHandler(options, ipa, connect(options.cluster, clock), NAME)
    try:
        return await handler.handle(_event(event, group), _Forgets()) or ""
    finally:
        await handler.close()


def _event(event: Mapping[str, Any], group: str) -> Event:
    found = event["object"]
    metadata = found["metadata"]
    return Event(
        handler=NAME,
        idempotency_key="",
        revision=0,
        attempt=1,
        verb=event["type"],
        key=Key("", group, found["kind"], f"{metadata.get('namespace', '')}/{metadata['name']}"),
        notice=Notice(id="", source="", event_type="", sent_at=0, payload=msgspec.Raw(b"{}")),
        appended_at=0,
        raw_object=msgspec.Raw(msgspec.json.encode(found)),
    )


def _wanted(config: Mapping[str, str], name: str) -> str:
    value = config.get(name)
    if not value:
        raise ConfigError("is missing", path=f"[{NAME}] {name}")
    return value
