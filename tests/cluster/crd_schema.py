"""The schema of a custom resource as a JSON schema that refuses what the API server would refuse or drop."""

import functools
from pathlib import Path
from typing import Any

import jsonschema
import yaml


@functools.cache  # a file has 20,000 lines
def validator_of(crd_file: Path, version: str) -> jsonschema.Draft7Validator:
    """Give a validator of whole objects of a resource.

    Args:
        crd_file: of the CustomResourceDefinition.
        version: of the API, such as `v1`.
    """
    crd = yaml.load(crd_file.read_text(), yaml.CSafeLoader)
    (structural,) = (each["schema"] for each in crd["spec"]["versions"] if each["name"] == version)
    schema = _closed(structural["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return jsonschema.Draft7Validator(schema)


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Unknown fields are refused (the API server drops them silently), and its extensions said as JSON schema does."""
    closed = {key: value for key, value in schema.items() if not key.startswith("x-kubernetes") and key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if "properties" in schema:
        closed["properties"] = {name: _closed(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            closed[name] = _closed(schema[name])
    if schema.pop("nullable", False) and "type" in closed:
        closed["type"] = [closed["type"], "null"]
    return closed
