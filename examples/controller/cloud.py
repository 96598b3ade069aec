"""A cloud to try it on: a fake OpenStack and a Vedette that follows it, with Keystone tokens over TLS, on this machine only.

    python cloud.py [FOLDER]        and in another shell: . FOLDER/openrc

Ports that have a device are wired after a few seconds, load balancers are busy for a few seconds with everything that is asked of
them, and nobody is told: as in a real cloud. There are two tenants, `demo` and `other`. Wants `vedette[testing]`.
"""

from __future__ import annotations

import asyncio
import json
import random
import shlex
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from vedette.app import Service
from vedette.config import SourceConfig, load_text
from vedette.kit.clock import Clock, SystemClock
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.ports import Source
from vedette.sources.openstack import OpenStackSource
from vedette.testing.cloud import FakeCloud
from vedette.testing.cloud_life import EXCHANGES, on_a_broker
from vedette.testing.cloud_octavia import PENDING
from vedette.testing.tls import Authority

TENANTS = ("demo", "other")


async def agents(cloud: FakeCloud, seconds: tuple[float, float] = (2.0, 4.0)) -> None:
    """What Neutron's agents and Octavia's drivers do, in so many seconds each time."""
    clock = asyncio.get_running_loop()
    done_at: dict[str, float] = {}
    while True:
        now = clock.time()
        for id_, port in [*cloud.network.ports.items()]:
            if port["status"] == "DOWN" and port["device_id"] and now >= done_at.setdefault(id_, now + random.uniform(*seconds)):
                cloud.port_active(id_)
        for id_, balancer in [*cloud.load_balancer.loadbalancers.items()]:
            if balancer["provisioning_status"] not in PENDING:
                done_at.pop(id_, None)
            elif id_ not in done_at:
                done_at[id_] = now + random.uniform(*seconds)
                for kind, child in cloud.load_balancer.tree(id_):
                    # A real Octavia has these busy too, with whatever is new below them.
                    if kind in ("listener", "pool") and cloud.rows(kind)[child]["provisioning_status"] == "ACTIVE":
                        cloud.lb_status(child, provisioning="PENDING_UPDATE")
            elif now >= done_at[id_]:
                cloud.lb_settled(id_)
        await asyncio.sleep(0.1)


@asynccontextmanager
async def world(folder: Path, **api: str) -> AsyncIterator[tuple[FakeCloud, Service]]:
    """Both of them, while it is open; for each tenant a file of variables in the folder (`openrc`, `openrc-other`). `api`: more
    settings of the source's `api`."""
    async with FakeCloud(SystemClock()) as cloud:
        cloud.user("other", project="other")
        authority = Authority(folder / "tls")
        pair = authority.server()
        broker = on_a_broker(cloud)

        def build(one: SourceConfig, clock: Clock, telemetry: Telemetry) -> Source:
            return OpenStackSource(one.options, clock, telemetry, broker=broker)

        account = cloud.credentials("admin")
        settings = {
            "listen": "127.0.0.1:0",
            "tls": {"cert": str(pair.cert), "key": str(pair.key)},
            "data_dir": str(folder / "store"),
            "auth": {"mode": "keystone", "keystone": account},
            "sources": [
                {
                    "name": "cloud",
                    "type": "openstack",
                    "amqp": "amqp://127.0.0.1",
                    "exchanges": EXCHANGES,
                    "api": account | api,
                }
            ],
        }
        service = Service(load_text(json.dumps(settings), {}), build_source=build)
        await service.start()
        try:
            url = f"https://127.0.0.1:{service.addresses[0][1]}"
            for tenant in TENANTS:
                name = "" if tenant == TENANTS[0] else f"-{tenant}"
                variables = cloud.environ(tenant) | {
                    "VEDETTE_URL": url,
                    "VEDETTE_CACERT": str(authority.ca),
                    "KUBECONFIG": str(folder / f"kubeconfig{name}"),
                }
                lines = [f"export {key}={shlex.quote(value)}\n" for key, value in variables.items()]
                (folder / f"openrc{name}").write_text("".join(lines))
            assert service.resync is not None
            # What is there already is known after the first listing.
            while any(one.state != "idle" for one in service.resync.reports()):  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.05)
            yield cloud, service
        finally:
            await service.stop()


async def main(folder: Path) -> None:
    async with world(folder) as (cloud, service):
        print(f"A cloud, and a Vedette that follows it at https://127.0.0.1:{service.addresses[0][1]}. In another shell:\n")
        print(f"  . {folder}/openrc\n\nCtrl-C ends it.", flush=True)
        working = asyncio.create_task(agents(cloud))
        try:
            await working
        finally:
            await cancel(working)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt), tempfile.TemporaryDirectory(prefix="vedette-try-") as made:
        given = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(made)
        given.mkdir(parents=True, exist_ok=True)
        asyncio.run(main(given.absolute()))
