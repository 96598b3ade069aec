"""What every plugin derives from.

    class YourPlugin(base.BasePlugin):
        def notify(self, node_detail, created):
            ...

Its settings are in `cfg.CONF` (oslo.config), read from oss.conf before the plugin is imported.
"""

from __future__ import annotations

from typing import Any

NodeDetail = dict[str, Any]
"""`FQDN IP IPType OS Storage Ram CPU Datacenter SecurityDomain Owner AdditionalUsers ApplicationName EnvironmentCI Description
CreationDate`, as JSON has them: Storage, Ram (both in GB) and CPU are numbers, AdditionalUsers is a list, the rest is text."""


class BasePlugin:
    """One is made when the service starts; its calls come one after the other."""

    idempotency_key = ""
    """Of the call that is being made: the same when the same call is made again. Set before each call."""

    def notify(self, node_detail: NodeDetail, created: bool) -> None:
        """A node came (`created`) or went. Returning means done; any exception means that the call is made again later, with
        growing waits. `vedette.errors` has exceptions that say more: TryLater (when), TargetUnavailable (nobody is there),
        GiveUp (never)."""
        raise NotImplementedError(f"{type(self).__name__} has no notify(self, node_detail, created)")
