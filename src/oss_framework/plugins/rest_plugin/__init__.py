"""Makes a REST call: what came is POSTed as JSON to `[rest] host:port` + `url_creation`, what went to `url_deletion`."""

from __future__ import annotations

import json
import logging
import time
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests
from oslo_config import cfg

from oss_framework.plugins import base
from vedette.errors import GiveUp, TargetUnavailable, TryLater

LOG = logging.getLogger(__name__)
CONF = cfg.CONF

TIMEOUT_SECONDS = 10.0
"""For connecting, and for each silence of the other side."""
LONGEST_WAIT = 3600.0
"""Seconds that a server may ask us to wait."""
SHOWN = 200
"""Bytes of an answer that are kept for a person to read."""


class RESTNotify(base.BasePlugin):
    """Basic authentication with `user` and `password`; TLS is verified, by `cacert` where the system's certificates don't do."""

    def __init__(self) -> None:
        self._session = requests.Session()
        # Proxies and .netrc of whoever started the service are not this call's settings.
        self._session.trust_env = False
        self._session.verify = CONF.rest.cacert or True

    def notify(self, node_detail: base.NodeDetail, created: bool) -> None:
        """Raises TargetUnavailable, TryLater (401, 429, 5xx), GiveUp (it will never be taken as it is)."""
        path = CONF.rest.url_creation if created else CONF.rest.url_deletion
        if not path:
            LOG.info("nothing is sent: [rest] has no url_%s", "creation" if created else "deletion")
            return
        url = address(CONF.rest.host, CONF.rest.port, path)
        try:
            answer = self._session.post(
                url,
                data=json.dumps(node_detail),
                headers={"Content-Type": "application/json", "Idempotency-Key": self.idempotency_key},
                auth=(CONF.rest.user.encode(), CONF.rest.password.encode()) if CONF.rest.user else None,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
                stream=True,
            )
            with answer:
                text = next(answer.iter_content(SHOWN), b"").decode(errors="replace")
        except requests.exceptions.SSLError as why:
            raise TryLater(f"{shown(url)}: the connection can't be trusted: {without_query(why, url)}", delay=30) from None
        except (
            requests.exceptions.ConnectionError,
            requests.exceptions.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as why:
            raise TargetUnavailable(f"{shown(url)} can't be reached: {without_query(why, url)}") from None
        code = answer.status_code
        if 200 <= code < 300:
            LOG.info("%s took it: %s", shown(url), code)
            return
        said = f"{shown(url)} answered {code}: {text}"
        if code == 401:
            # A person has to change user or password; until then every node waits.
            raise TryLater(said, delay=60)
        if code in (408, 425, 429) or code >= 500:
            raise TryLater(said, delay=_asked_for(answer.headers.get("Retry-After", "")))
        raise GiveUp(said)


def address(host: str, port: int | None, path: str) -> str:
    """`host` with or without `https://`, and the port behind it unless it brings its own; http where nobody says otherwise."""
    if urlsplit(path).scheme in ("http", "https"):
        return path
    scheme = "" if "://" in host else "https://" if port == 443 else "http://"
    base_url = (scheme + host).rstrip("/")
    if port and urlsplit(base_url).port is None:
        begin, _, rest = base_url.partition("://")
        name, slash, tail = rest.partition("/")
        base_url = f"{begin}://{name}:{port}{slash}{tail}"
    return f"{base_url}/{path.lstrip('/')}"


def shown(url: str) -> str:
    """Without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def without_query(why: Exception, url: str) -> str:
    """An error's text; requests puts the whole path into it."""
    query = urlsplit(url).query
    return str(why).replace(query, "***") if query else str(why)


def _asked_for(retry_after: str) -> float:
    """Seconds, from a number or a date."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError):
            seconds = 1.0
    return min(max(seconds, 0.1), LONGEST_WAIT) if seconds == seconds else 1.0
