"""``cmgmux config``."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from cmgmux.cli.reference import reference
from cmgmux.config import FileModel, GatewayConfig, PointConfig, load_any

if TYPE_CHECKING:
    from collections.abc import Iterator

MODELS: Final[dict[str, type[FileModel]]] = {
    "gateway": GatewayConfig,
    "connection-point": PointConfig,
}
"""The settings of each kind of file."""

config = App(name="config", help="Look at configuration files.")


@config.command
def check(file: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Check FILE and the files that it names, as a start would, and warn of what is unwise.

    Exit status 2 for the first error; warnings leave it 0.

    Args:
        file: A gateway's or connection point's TOML file.
        json: Print one JSON object instead of words.
    """
    settings = load_any(file)
    settings.check()
    warnings = settings.warnings()
    if json:
        found = {"file": str(file), "kind": settings.kind, "warnings": warnings}
        print(json_module.dumps(found))
        return
    for warning in warnings:
        print(f"cmgmux: warning: {warning}", file=sys.stderr)
    print(f"{file}: a {settings.kind} can start with it")


@config.command
def show(file: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Print every setting of FILE as it is in force: defaults filled in, paths resolved.

    Args:
        file: A gateway's or connection point's TOML file.
        json: Print one JSON object instead of one line a setting.
    """
    resolved = load_any(file).model_dump(mode="json")
    if json:
        print(json_module.dumps(resolved))
        return
    for key, value in flat(resolved):
        print(f"{key} = {json_module.dumps(value, ensure_ascii=False)}")


@config.command
def schema(kind: Literal["gateway", "connection-point"], /) -> None:
    """Print the JSON Schema of a configuration file, for editors and generators.

    Args:
        kind: Whose file.
    """
    print(json_module.dumps(MODELS[kind].model_json_schema(), indent=2))


@config.command(name="reference")
def print_reference(kind: Literal["gateway", "connection-point"], /) -> None:
    """Print what may stand in a configuration file, as tables in Markdown.

    Args:
        kind: Whose file.
    """
    print(reference(MODELS[kind]), end="")


def flat(settings: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Give each single setting with its key path, such as ``mappings[2].internal``."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            yield from flat(value, f"{prefix}.{key}".removeprefix("."))
    elif isinstance(settings, list) and settings and isinstance(settings[0], dict):
        for index, value in enumerate(settings):
            yield from flat(value, f"{prefix}[{index}]")
    else:
        yield prefix, settings
