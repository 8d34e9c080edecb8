"""``cmgmux config check``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from cmgmux.config import load_any

if TYPE_CHECKING:
    from collections.abc import Iterator

config = App(name="config", help="Look at configuration files.")


@config.command
def check(file: Path, /, *, json: Annotated[bool, Parameter(negative="")] = False) -> None:
    """Check FILE and the files that it names, and print the resolved settings.

    Args:
        file: A gateway's or connection point's TOML file.
        json: Print one JSON object instead of one line a setting.
    """
    settings = load_any(file)
    settings.check()
    resolved = settings.model_dump(mode="json")
    if json:
        print(json_module.dumps(resolved))
        return
    for key, value in flat(resolved):
        print(f"{key} = {json_module.dumps(value, ensure_ascii=False)}")


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
