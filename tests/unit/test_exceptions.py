"""The tree of exceptions."""

from __future__ import annotations

from pathlib import Path

from cmgmux import exceptions
from cmgmux.exceptions import CmgmuxError, ConfigError, ServiceError


def test_every_exception_is_in_the_tree_and_says_whether_to_retry() -> None:
    for name, value in vars(exceptions).items():
        if isinstance(value, type) and issubclass(value, Exception):
            assert issubclass(value, CmgmuxError), name
            assert isinstance(value.retryable, bool)
            assert name.endswith("Error")


def test_a_wrong_setting_is_never_retryable_and_a_dead_service_is() -> None:
    assert not ConfigError.retryable
    assert ServiceError.retryable


def test_a_config_error_names_what_it_knows() -> None:
    assert str(ConfigError("no")) == "no"
    assert str(ConfigError("no", key="a.b")) == "a.b: no"
    assert str(ConfigError("no", key="a", path=Path("f.toml"), line=3)) == "f.toml:3: a: no"
