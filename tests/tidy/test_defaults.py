"""Defaults live in Rust; Python repeats them."""

from __future__ import annotations

import inspect
import json
from typing import TYPE_CHECKING, Any

import pytest

from cmgmux import _native
from cmgmux.cli.load import load
from cmgmux.cli.sample_role import sample_role
from cmgmux.config import GatewayConfig, Mapping, PointConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel


OF_THE_COMMAND = {"run", "json", "processes", "watch", "report"}
"""Options that the native side does not know."""


def native(kind: str) -> dict[str, Any]:
    """Give the native side's optional settings with their defaults."""
    defaults: dict[str, Any] = json.loads(_native.config_defaults(kind))
    return defaults


def of_model(model: type[BaseModel]) -> dict[str, Any]:
    """Give a model's optional settings with their defaults, as in JSON."""
    defaults = {
        name: field.get_default(call_default_factory=True, validated_data={})
        for name, field in model.model_fields.items()
        if not field.is_required()
    }
    parsed: dict[str, Any] = json.loads(json.dumps(defaults))
    return parsed


def of_command(command: Callable[..., object]) -> dict[str, Any]:
    """Give a command's options with their defaults, without those that are no settings."""
    options = {
        name: list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
        for name, parameter in inspect.signature(command).parameters.items()
        if parameter.default is not parameter.empty
    }
    return {name: default for name, default in options.items() if name not in OF_THE_COMMAND}


@pytest.mark.parametrize(
    ("kind", "model"),
    [("gateway", GatewayConfig), ("connection-point", PointConfig), ("mapping", Mapping)],
)
def test_the_models_have_the_native_defaults(kind: str, model: type[BaseModel]) -> None:
    assert of_model(model) == native(kind)


@pytest.mark.parametrize(("kind", "command"), [("sample-role", sample_role), ("load", load)])
def test_the_commands_have_the_native_defaults(kind: str, command: Callable[..., object]) -> None:
    assert of_command(command) == native(kind)
