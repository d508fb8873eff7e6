"""The JSON Schema of the file (draft 2020-12), by which editors complete and check it."""

import json
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from app.settings.fields import Fields
from app.settings.names import TABLES


def schema() -> dict[str, Any]:
    """The schema. What no schema can say, `keycache check` does: that a rule is never reached."""
    found = Fields.model_json_schema(schema_generator=_Generator)
    properties = found["properties"]
    for name, field in TABLES.items():
        properties[name] = properties.pop(field)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        "title": "sanic-keycache",
        "description": "The file that KEYCACHE_CONFIG names.",
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "$defs": found["$defs"],
    }


def schema_text() -> str:
    """The schema as it is printed and kept."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


class _Generator(GenerateJsonSchema):
    """Without titles, which repeat the names, and without null, which TOML does not have."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - as it is declared
        """No."""
        return False

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        """What may be unset is left out."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        """Nothing is said of a default that is nothing."""
        found = super().default_schema(schema)
        if found.get("default") in (None, "", []):
            found.pop("default", None)
        return found

    def encode_default(self, dft: Any) -> Any:  # noqa: ANN401 - as it is declared
        """A default as the file would have it; None for one that no file could have."""
        if isinstance(dft, tuple) and all(isinstance(item, str) for item in dft):
            return list(dft)
        return dft if isinstance(dft, str | int | float) else None
