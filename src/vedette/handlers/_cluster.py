"""A Kubernetes or OpenShift cluster that handlers write to: how it is reached, and what its errors mean for a delivery."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from vedette.clients.kubernetes import Kubernetes, in_cluster, kubeconfig, static
from vedette.errors import (
    BadRequest,
    CloudUnavailable,
    ConfigError,
    Conflict,
    Forbidden,
    GiveUp,
    NotFound,
    TargetUnavailable,
    Unauthenticated,
)
from vedette.kit.clock import Clock
from vedette.kit.secret import Secret
from vedette.kit.units import FilePath

REFUSED_SECONDS = 60.0
"""After the cluster refused our token, or its files could not be read: until the next attempt."""


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach a cluster: one of `server`, `kubeconfig` and `in_cluster`, as for a source."""

    server: str = ""
    """Its API, such as `https://api.example.org:6443`."""
    token: Secret = Secret()
    """A service account's token."""
    token_file: FilePath = ""
    """A file with the token instead; read again when it is replaced."""
    ca: FilePath = ""
    """A file of certificates to trust; none: the system's."""
    kubeconfig: FilePath = ""
    """A kubeconfig instead of the settings above."""
    context: str = ""
    """Which of its contexts; none: the current one."""
    in_cluster: bool = False
    """The service account of the pod that Vedette runs in; so it is, too, when nothing is given."""


def connect(cluster: Cluster, clock: Clock) -> Kubernetes:
    """Nothing is sent yet. Raises ConfigError."""
    ways = [way for way in ("server", "kubeconfig", "in_cluster") if getattr(cluster, way)]
    if len(ways) > 1:
        raise ConfigError(f"is there beside `{ways[0]}`: keep one of them", path=f"cluster.{ways[1]}")
    if not cluster.server and (cluster.token or cluster.token_file or cluster.ca):
        raise ConfigError("is missing: `token`, `token_file` and `ca` belong to it", path="cluster.server")
    if cluster.kubeconfig:
        enter = kubeconfig(cluster.kubeconfig, cluster.context)
    elif cluster.server:
        enter = static(cluster.server, token=cluster.token, token_file=cluster.token_file, ca_file=cluster.ca)
    else:
        enter = in_cluster()
    return Kubernetes(enter, clock)


@asynccontextmanager
async def judged(api: Kubernetes) -> AsyncIterator[None]:
    """What the API's errors inside mean for a delivery: TargetUnavailable, TryLater or GiveUp. Conflict goes up as it is."""
    try:
        yield
    except CloudUnavailable as why:
        # One request that the API can't cope with is not an API that is down: the next event may have better luck.
        if await _is_down(api):
            raise TargetUnavailable(str(why), delay=why.delay) from None
        raise
    except (Unauthenticated, ConfigError) as why:
        raise TargetUnavailable(f"the cluster does not let us in: {why}", delay=REFUSED_SECONDS) from None
    except Forbidden as why:
        raise GiveUp(f"{why}: give the account a Role with this verb") from None
    except (NotFound, BadRequest) as why:
        raise GiveUp(str(why)) from None


async def _is_down(api: Kubernetes) -> bool:
    try:
        await api.request("GET", "/version")
    except CloudUnavailable:
        return True
    except (Unauthenticated, Forbidden, NotFound, BadRequest, Conflict, ConfigError):
        return False
    return False
