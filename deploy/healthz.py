"""Ends with 0 when the service in this container answers: `python healthz.py [URL]`, else VEDETTE_URL, else the default port.

No token is needed for it, and nothing but Python, which starts faster than `vedette status` every half minute.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from urllib.parse import urlsplit

DEFAULT_URL = "http://127.0.0.1:8470"
SECONDS = 4.0


def main(arguments: list[str]) -> int:
    url = urlsplit(arguments[0] if arguments else os.environ.get("VEDETTE_URL") or DEFAULT_URL)
    host = url.hostname or "127.0.0.1"
    connection: http.client.HTTPConnection
    if url.scheme == "https":
        # The certificate names the service, not 127.0.0.1; nothing secret is sent.
        context = ssl._create_unverified_context()  # noqa: S323
        connection = http.client.HTTPSConnection(host, url.port, timeout=SECONDS, context=context)
    else:
        # Not urllib, which would ask the proxy of http_proxy.
        connection = http.client.HTTPConnection(host, url.port, timeout=SECONDS)
    try:
        connection.request("GET", url.path or "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as why:
        print(f"{url.geturl()} does not answer: {why}", file=sys.stderr)
        return 1
    finally:
        connection.close()
    if status != http.client.OK:
        print(f"{url.geturl()} answers {status}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
