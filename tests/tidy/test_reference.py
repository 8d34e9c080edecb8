"""The configuration reference says what the models say."""

from __future__ import annotations

from pathlib import Path

from cmgmux.cli.config import MODELS
from cmgmux.cli.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_reference_is_what_the_models_say() -> None:
    text = PAGE.read_text()
    for kind, model in MODELS.items():
        said = reference(model)
        assert said in text, f"run `cmgmux config reference {kind}` and put that into {PAGE.name}"
        keys = model.model_json_schema()["properties"]
        assert all(f"| `{key}` |" in said for key in keys)
