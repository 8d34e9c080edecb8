"""Which Python module may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE = Path(__file__).parents[2] / "python"
MODULES = sorted(SOURCE.glob("cmgmux/**/*.py"))

LAYERS = [
    {"exceptions", "_native", "_toml_lines"},
    {"_logging", "admin", "config", "pki", "report"},
    {"_backends", "_supervisor"},
    {"_service"},
    {"gateway", "connection_point", "load"},
    {"", "demo"},
    {"cli"},
    {"__main__"},
]
"""Parts of the package, lowest first. Each imports parts of lower layers and of itself."""

LIBRARIES = {
    "_backends": {"trio"},
    "config": {"pydantic"},
    "cli": {"cyclopts", "rich"},
    "demo": {"rich"},
}
"""The foreign packages that each part may import; the others none."""


def part_of(module: str) -> str:
    """Name the part of the package that a module belongs to."""
    return module.removeprefix("cmgmux").removeprefix(".").split(".")[0]


def part_of_file(path: Path) -> str:
    """Name the part that a source file belongs to."""
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    return part_of(name.removesuffix(".__init__"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Name each module that is imported when the code runs."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                continue
            case ast.Import(names=names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module="cmgmux", names=names):
                yield from (f"cmgmux.{name.name}" for name in names)
            case ast.ImportFrom(module=str(module)):
                yield module
            case _:
                yield from imports(node)


def layer(part: str) -> int:
    """Give the height of a part."""
    return next(height for height, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_modules_import_downwards_only(path: Path) -> None:
    own = part_of_file(path)
    for module in imports(ast.parse(path.read_text())):
        root = module.split(".")[0]
        if root == "cmgmux":
            part = part_of(module)
            # The public names in `__init__` import `config` only when it is asked for.
            assert part == own or layer(part) < layer(own), f"{own or '__init__'} imports {part}"
        elif root not in sys.stdlib_module_names:
            assert root in LIBRARIES.get(own, set()), f"{own or '__init__'} imports {root}"


def test_importing_the_package_imports_no_library_of_the_commands() -> None:
    code = "import sys, cmgmux; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in result.stdout.split()}
    assert "cmgmux" in loaded
    assert not loaded & {"pydantic", "rich", "cyclopts", "uvloop", "trio", "asyncio"}


def test_the_configuration_models_are_there_when_asked_for() -> None:
    import cmgmux
    from cmgmux import config

    assert cmgmux.GatewayConfig is config.GatewayConfig
    assert all(hasattr(cmgmux, name) for name in cmgmux.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = cmgmux.nonsense
