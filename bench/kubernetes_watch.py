"""What a line of a Kubernetes watch costs: ours decoded, folded and durable in SQLite, beside kubernetes_asyncio's doing nothing.

The same lines (Pods as a real cluster has them, some 3.5 kB each, 1,000 objects that change over and over) come from a server in
a process of its own. Ours is the whole path: sources/kubernetes.py, engine/ingest.py, store/sqlite.py. Theirs is
`async for event in Watch().stream(v1.list_pod_for_all_namespaces)`, and nothing is made of the events; for comparison also its
watch of custom objects, which makes no models. Printed: lines/s of each, and the ratio.
`python bench/kubernetes_watch.py [lines]`
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec
from kubernetes_asyncio import client as official
from kubernetes_asyncio import watch as official_watch

from vedette.clients.kubernetes import Kubernetes, decode_line, static
from vedette.engine.ingest import Ingest
from vedette.kit.clock import SystemClock
from vedette.kit.memory import look_for_cycles_seldom
from vedette.kit.tasks import cancel
from vedette.kit.telemetry import Telemetry
from vedette.model.entry import NewEntry
from vedette.model.notice import Notice
from vedette.sources.kubernetes import KubernetesSource, Options, Watched
from vedette.store.sqlite import SqliteStore

OBJECTS = 1000
MUST = 4.0
"""Our lines/s over theirs."""


def pod(number: int, revision: int) -> dict[str, Any]:
    """As kubectl shows one of a Deployment, with its managed fields."""
    name = f"web-5d8f7c9b6d-{number:05d}"
    conditions = [
        {"type": kind, "status": "True", "lastProbeTime": None, "lastTransitionTime": "2026-11-20T15:18:30Z"}
        for kind in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    container = {
        "name": "web",
        "image": "registry.example.com/shop/web:1.42.0",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"SETTING_{n}", "value": f"value-{n}"} for n in range(8)],
        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": "kube-api-access", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "timeoutSeconds": 1,
            "periodSeconds": 10,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
    }
    managed = {
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
        "f:spec": {"f:containers": {'k:{"name":"web"}': {".": {}, "f:env": {}}}},
    }
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "generateName": "web-5d8f7c9b6d-",
            "namespace": f"team-{number % 20}",
            "uid": f"5a9c3c0e-3b1f-4d7e-9d7c-{number:012d}",
            "resourceVersion": str(revision),
            "creationTimestamp": "2026-11-20T15:18:30Z",
            "labels": {"app": "web", "pod-template-hash": "5d8f7c9b6d"},
            "annotations": {"example.com/revision": str(revision)},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-5d8f7c9b6d", "uid": "1", "controller": True}
            ],
            "managedFields": [
                {
                    "manager": manager,
                    "operation": "Update",
                    "apiVersion": "v1",
                    "time": "2026-11-20T15:18:30Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": managed,
                }
                for manager in ("kube-controller-manager", "kubelet")
            ],
        },
        "spec": {
            "volumes": [
                {
                    "name": "kube-api-access",
                    "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token"}}]},
                }
            ],
            "containers": [container],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": "web",
            "nodeName": f"node-{revision % 30}",
            "securityContext": {},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            ],
            "priority": 0,
            "enableServiceLinks": True,
        },
        "status": {
            "phase": "Running",
            "conditions": conditions,
            "hostIP": "192.0.2.10",
            "podIP": f"10.128.{number % 250}.{revision % 250}",
            "podIPs": [{"ip": f"10.128.{number % 250}.{revision % 250}"}],
            "startTime": "2026-11-20T15:18:30Z",
            "containerStatuses": [
                {
                    "name": "web",
                    "state": {"running": {"startedAt": "2026-11-20T15:18:31Z"}},
                    "lastState": {},
                    "ready": True,
                    "restartCount": revision % 7,
                    "image": "registry.example.com/shop/web:1.42.0",
                    "imageID": "registry.example.com/shop/web@sha256:0123456789abcdef",
                    "containerID": f"cri-o://{revision:064x}",
                    "started": True,
                }
            ],
            "qosClass": "Burstable",
        },
    }


def serve(lines: int, pipe: Connection) -> None:
    """The server's process: discovery of Pods, and a watch that begins with nothing and then says all lines at once."""
    encode = msgspec.json.Encoder().encode
    resources = {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list", "watch"]}
        ],
    }
    end = {"resourceVersion": "1000", "annotations": {"k8s.io/initial-events-end": "true"}}
    bookmark = {"type": "BOOKMARK", "object": {"kind": "Pod", "apiVersion": "v1", "metadata": end}}
    events = [
        encode({"type": "ADDED" if n < OBJECTS else "MODIFIED", "object": pod(n % OBJECTS, 1001 + n)}) + b"\n"
        for n in range(lines)
    ]
    size = sum(map(len, events)) // lines

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
                if b"watch=" not in request:
                    body = encode(resources)
                    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
                    writer.write(head.encode() + body)
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                said = [encode(bookmark) + b"\n"] if b"sendInitialEvents" in request else []
                for line in (*said, *events):  # each its own chunk, as a real server sends them
                    writer.write(b"%x\r\n%b\r\n" % (len(line), line))
                    if writer.transport.get_write_buffer_size() > 1 << 20:
                        await writer.drain()
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        pipe.send((server.sockets[0].getsockname()[1], size))
        while not pipe.poll():
            await asyncio.sleep(0.05)
        server.close()

    asyncio.run(run())


async def theirs(url: str, lines: int, *, models: bool) -> float:
    """kubernetes_asyncio's watch, in lines/s."""
    configuration = official.Configuration(host=url)
    async with official.ApiClient(configuration) as api:
        if models:
            watching = official_watch.Watch().stream(official.CoreV1Api(api).list_pod_for_all_namespaces)
        else:
            custom = official.CustomObjectsApi(api)
            watching = official_watch.Watch().stream(custom.list_cluster_custom_object, "example.com", "v1", "pods")
        count, began = 0, time.perf_counter()
        async with watching as stream:
            async for _ in stream:
                count += 1
                if count == lines:
                    break
        return lines / (time.perf_counter() - began)


async def decoded(url: str, lines: int) -> float:
    """Our client alone: type and metadata of each line, in lines/s."""
    client = Kubernetes(static(url), SystemClock())
    pods = await client.resolve("pods/v1")
    began, count = time.perf_counter(), 0
    async with await client.watch(pods) as watching:
        while count < lines:
            for line in await watching.lines():
                if decode_line(line).metadata.resourceVersion:
                    count += 1
    took = time.perf_counter() - began
    await client.close()
    return lines / took


async def followed(url: str, lines: int, offer: Callable[[Sequence[Notice | NewEntry]], Awaitable[None]]) -> float:
    """Our source, up to what `offer` does, in lines/s."""
    clock, telemetry = SystemClock(), Telemetry()
    options = Options(name="bench", server=url, resources=(Watched(resource="pods/v1"),))
    source = KubernetesSource(options, clock, telemetry, client=Kubernetes(static(url), clock))
    done, count, began = asyncio.Event(), 0, 0.0

    async def counted(notices: Sequence[Notice | NewEntry]) -> None:
        nonlocal count, began
        began = began or time.perf_counter()
        await offer(notices)
        count += sum(isinstance(one, NewEntry) and one.notice.event_type.startswith("kubernetes.") for one in notices)
        if count >= lines:
            done.set()

    task = asyncio.create_task(source.run(counted))
    await done.wait()
    took = time.perf_counter() - began
    await cancel(task)
    return lines / took


async def nothing(_: Sequence[Notice | NewEntry]) -> None:
    """An offer that costs nothing."""


async def measure(url: str, lines: int, size: int, folder: Path) -> float:
    store = await SqliteStore.open(folder, SystemClock())
    few = min(lines, 1500)  # theirs is slow, and a rate
    peer = await theirs(url, few, models=True)
    bare = await theirs(url, lines, models=False)
    alone = await decoded(url, lines)
    unkept = await followed(url, lines, nothing)
    head = store.head
    ours = await followed(url, lines, Ingest(store, [], Telemetry()).offer)
    assert store.head - head >= lines, "every line is an entry of the log"
    await store.close()
    print(f"{lines:,} lines of {size:,} bytes")
    print(f"kubernetes_asyncio, doing nothing:       {peer:>8,.0f} lines/s")
    print(f"the same without models:                 {bare:>8,.0f} lines/s  {bare / peer:5.1f} ×")
    print(f"our client, doing nothing:               {alone:>8,.0f} lines/s  {alone / peer:5.1f} ×")
    print(f"our source, offered to nobody:           {unkept:>8,.0f} lines/s  {unkept / peer:5.1f} ×")
    print(f"our source, durable and folded (SQLite): {ours:>8,.0f} lines/s  {ours / peer:5.1f} ×  (must reach {MUST:g} ×)")
    return ours / peer


def main(lines: int) -> None:
    ours, other = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(lines, other))
    server.start()
    try:
        port, size = ours.recv()
        look_for_cycles_seldom()  # as the service does
        with tempfile.TemporaryDirectory(prefix="vedette-bench-") as folder:
            ratio = asyncio.run(measure(f"http://127.0.0.1:{port}", lines, size, Path(folder)))
    finally:
        ours.send("stop")
        server.join()
    if ratio < MUST:
        sys.exit(f"{ratio:.1f} × is less than {MUST:g} ×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 6_000)
