"""The schemas describe every kind, and every reference in them leads somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from vedette import plugins
from vedette.api import openapi
from vedette.api.discovery import groups
from vedette.ports import Field, Kind

KIND = Kind(
    kind="Port",
    plural="ports",
    singular="port",
    doc="A port.",
    events=(),
    read=lambda notice: (),
    fields={
        "fixed_ips": Field("array", "Its addresses."),
        "profile": Field("object", "Its profile."),
        "binding:host_id": Field("string", "Its host.", admin=True),
    },
    columns=(),
)
NAME = "dev.vedette.openstack.v1.Port"


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def at(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for key in reference.removeprefix("#/").split("/"):
        node = node[key]
    return node


@pytest.mark.parametrize("kinds", [(KIND,), plugins.kinds()], ids=["one", "all"])
def test_every_reference_leads_somewhere(kinds: tuple[Kind, ...]) -> None:
    documents = [openapi.v2(kinds), *(openapi.v3(kinds, group) for group in ("", *groups(kinds)))]
    for document in documents:
        found = list(references(document))
        assert found
        assert all(at(document, reference) for reference in found)


def test_fields_are_described_and_admin_only_ones_say_so() -> None:
    status = openapi.v3((KIND,), KIND.group)["components"]["schemas"][NAME]["properties"]["status"]["properties"]
    assert status["fixed_ips"] == {"description": "Its addresses.", "type": "array", "nullable": True, "items": {}}
    assert status["profile"]["x-kubernetes-preserve-unknown-fields"] is True
    assert status["binding:host_id"]["description"] == "Its host. Shown to admins only."
    assert status["id"]["type"] == "string"


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_a_kind_is_found_from_its_path(version: str) -> None:
    document = openapi.v2((KIND,)) if version == "v2" else openapi.v3((KIND,), KIND.group)
    schemas = document["definitions"] if version == "v2" else document["components"]["schemas"]
    gvk = {"group": "openstack.vedette.dev", "version": "v1", "kind": "Port"}
    base = "/apis/openstack.vedette.dev/v1"
    for path in (f"{base}/ports", f"{base}/namespaces/{{namespace}}/ports", f"{base}/namespaces/{{namespace}}/ports/{{name}}"):
        assert document["paths"][path]["get"]["x-kubernetes-group-version-kind"] == gvk
    assert [name for name, schema in schemas.items() if gvk in schema.get("x-kubernetes-group-version-kind", [])] == [NAME]


@pytest.mark.parametrize("kinds", [(KIND,), plugins.kinds()], ids=["one", "all"])
def test_every_operation_has_a_name_of_its_own_and_its_paths_parameters(kinds: tuple[Kind, ...]) -> None:
    for document in (openapi.v2(kinds), openapi.v3(kinds, KIND.group)):
        names = [item["get"]["operationId"] for item in document["paths"].values()]
        assert len(names) == len(set(names))
        for path, item in document["paths"].items():
            declared = {parameter["name"] for parameter in item["parameters"] if parameter["in"] == "path"}
            assert declared == {part[1:-1] for part in path.split("/") if part.startswith("{")}


def test_namespaces_are_in_the_core_document_only() -> None:
    assert "io.k8s.api.core.v1.Namespace" in openapi.v3((KIND,), "")["components"]["schemas"]
    assert "io.k8s.api.core.v1.Namespace" not in openapi.v3((KIND,), KIND.group)["components"]["schemas"]
    assert openapi.v2((KIND,))["definitions"].keys() >= {"io.k8s.api.core.v1.Namespace", NAME}
