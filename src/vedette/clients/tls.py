"""The TLS of a connection that we open: always verified, against the system's authorities or a file of the operator's."""

from __future__ import annotations

import ssl

from vedette.errors import ConfigError


def client_context(*, ca: str = "", cert: str = "", key: str = "", whose: str = "") -> ssl.SSLContext:
    """Paths of PEM files; "": the system's authorities, no certificate of our own. `whose` is named in the ConfigError that says
    which file can't be read."""
    if key and not cert:
        raise ConfigError(f"{whose} has a key and no certificate" if whose else "a key without its certificate")
    at = ca
    try:
        context = ssl.create_default_context(cafile=ca or None)
        if cert:
            at = cert
            context.load_cert_chain(cert, key or None)
    except (OSError, ssl.SSLError) as why:
        raise ConfigError(f"the TLS file {at} of {whose or 'a client'} can't be read: {why}") from None
    return context
