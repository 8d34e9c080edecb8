"""The settings of a configuration file as Markdown, from their models. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

Schema = dict[str, Any]


def reference(model: type[BaseModel]) -> str:
    """Write tables of the settings of `model` and of the tables in it."""
    schema = model.model_json_schema()
    parts = ["\n".join(_table(schema))]
    for key, table in _inner(schema):
        parts.append(f"`[[{key}]]`: {_line(table['description'])}")
        parts.append("\n".join(_table(table)))
    return "\n\n".join(parts) + "\n"


def _inner(schema: Schema) -> Iterator[tuple[str, Schema]]:
    for key, setting in schema["properties"].items():
        if (name := setting.get("items", {}).get("$ref", "").rpartition("/")[2]) != "":
            yield key, schema["$defs"][name]


def _table(schema: Schema) -> Iterator[str]:
    yield "| key | type | default | meaning |"
    yield "| --- | --- | --- | --- |"
    required = schema.get("required", [])
    for key, setting in schema["properties"].items():
        default = "required" if key in required else _default(setting)
        yield f"| `{key}` | {_type(setting)} | {default} | {_line(setting['description'])} |"


def _default(setting: Mapping[str, Any]) -> str:
    match setting["default"]:
        case None | []:
            return ""
        case list() as values:
            return f"`{', '.join(map(str, values))}`"
        case value:
            return f"`{json.dumps(value)}`"


def _type(setting: Mapping[str, Any]) -> str:
    """Say what may be written, with its bounds."""
    if "anyOf" in setting:
        return _type(next(each for each in setting["anyOf"] if each["type"] != "null"))
    if "enum" in setting:
        return " or ".join(f"`{value}`" for value in setting["enum"])
    if setting["type"] == "array":
        return "tables" if "$ref" in setting["items"] else f"list of {_type(setting['items'])}s"
    kind = "path" if setting.get("format") == "path" else str(setting["type"])
    bounds = {
        "minimum": "from {}",
        "exclusiveMinimum": "more than {}",
        "maximum": "up to {}",
        "exclusiveMaximum": "less than {}",
    }
    told = [
        text.format(f"{setting[bound]:,}" if setting[bound] < 2**53 else "2⁶⁴")
        for bound, text in bounds.items()
        if bound in setting
    ]
    return " ".join([kind, *told])


def _line(text: str) -> str:
    return " ".join(text.replace("``", "`").replace("|", "\\|").split())
