"""One strategy of OpenStack Watcher on a cloud of bench/strategies.py, by Watcher's own code and in-memory model. Prints JSON.

Run by the Python that `python-watcher` is installed in: `python strategies_watcher.py CLOUD STRATEGY`. Watcher would ask Gnocchi
for each measurement; here they are in memory.
"""

from __future__ import annotations

import datetime
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

from watcher import conf
from watcher.common import utils
from watcher.decision_engine.model import element
from watcher.decision_engine.model.model_root import ModelRoot
from watcher.decision_engine.strategy import strategies
from watcher.objects import register_all

CLASSES = {
    "basic": strategies.BasicConsolidation,
    "vm_workload_consolidation": strategies.VMWorkloadConsolidation,
    "workload_stabilization": strategies.WorkloadStabilization,
    "node_resource_consolidation": strategies.NodeResourceConsolidation,
}


class InMemory:
    """What a strategy asks its datasource."""

    NAME = "memory"

    def __init__(self, values: dict[str, dict[str, float]]) -> None:
        self._values = values

    def statistic_aggregation(self, resource: Any, resource_type: str, meter_name: str, *_: Any, **__: Any) -> float | None:
        name = resource.hostname if resource_type == "compute_node" else resource.uuid
        return self._values[meter_name].get(name)

    def get_host_cpu_usage(self, resource: Any, *_: Any, **__: Any) -> float | None:
        return self.statistic_aggregation(resource, "compute_node", "host_cpu_usage")

    def get_host_ram_usage(self, resource: Any, *_: Any, **__: Any) -> float | None:
        used = self.statistic_aggregation(resource, "compute_node", "host_ram_usage")
        return None if used is None else used * 1024  # Watcher has KiB here

    def get_instance_cpu_usage(self, resource: Any, *_: Any, **__: Any) -> float | None:
        return self.statistic_aggregation(resource, "instance", "instance_cpu_usage")

    def get_instance_ram_usage(self, resource: Any, *_: Any, **__: Any) -> float | None:
        return self.statistic_aggregation(resource, "instance", "instance_ram_usage")

    def get_instance_ram_allocated(self, resource: Any, *_: Any, **__: Any) -> float:
        return float(resource.memory)

    def get_instance_root_disk_size(self, resource: Any, *_: Any, **__: Any) -> float:
        return float(resource.disk)


def model_of(said: dict[str, Any]) -> ModelRoot:
    found = ModelRoot()
    nodes = {}
    for host in said["hosts"]:
        nodes[host["hostname"]] = node = element.ComputeNode(
            uuid=host["uuid"], hostname=host["hostname"], status="enabled", disabled_reason="", state="up",
            vcpus=host["vcpus"], vcpu_reserved=0, vcpu_ratio=host["vcpus_ratio"],
            memory=host["memory"], memory_mb_reserved=0, memory_ratio=1.0,
            disk=host["disk"], disk_gb_reserved=0, disk_ratio=1.0,
        )  # fmt: skip
        found.add_node(node)
    created = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)
    for server in said["servers"]:
        instance = element.Instance(
            uuid=server["uuid"], name=server["name"], state="active", vcpus=server["vcpus"], memory=server["memory"],
            disk=server["disk"], metadata={}, project_id="11111111-1111-4111-8111-111111111111", locked=False,
            host=server["host"], hypervisor_hostname=server["host"], created=created, pinned_az="", flavor_extra_specs={},
        )  # fmt: skip
        found.add_instance(instance)
        found.map_instance(instance, nodes[server["host"]])
    return found


def main(file: str, name: str) -> None:
    said = json.loads(Path(file).read_text())
    conf.CONF([], project="watcher", default_config_files=[])
    register_all()
    kind = CLASSES[name]
    strategy = kind(utils.Struct(**{option.name: option.default for option in kind.get_config_opts()}))
    strategy._compute_model = model_of(said)
    strategy._datasource_backend = InMemory(said["values"])
    parameters = utils.Struct()
    for key, schema in kind.get_schema().get("properties", {}).items():
        parameters[key] = schema.get("default")
    parameters.update(said["parameters"].get(name, {}))
    strategy.input_parameters = parameters
    begun = time.perf_counter()
    strategy.pre_execute()
    strategy.do_execute(None)
    strategy.post_execute()
    seconds = time.perf_counter() - begun
    actions = [{"type": one["action_type"], **one["input_parameters"]} for one in strategy.solution.actions]
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "actions": actions}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
