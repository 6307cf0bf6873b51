"""The JSON Schema of a policy file, by which editors complete and check it; docs/policy.schema.json is its text."""

from __future__ import annotations

import json

from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import CoreSchema

from beear_gate.policy_files.schema import PolicyFile


class _Untitled(GenerateJsonSchema):
    """Without a title for each key, which would only repeat the key."""

    def field_title_should_be_set(self, schema: CoreSchema) -> bool:
        return False


def policy_schema() -> str:
    """The schema as JSON text. It holds of each file by itself, included ones too; the whole only loading can check."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:beear-gate:policy:v1"}
    found = PolicyFile.model_json_schema(schema_generator=_Untitled)
    said = {"title": "Policy of beear-gate", "description": "What a model must not do, and how that is measured."}
    return json.dumps({**head, **found, **said}, indent=1) + "\n"
