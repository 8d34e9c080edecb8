"""What a program pays before anything runs: imports and configuration files."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cmgmux import GatewayConfig, PointConfig

if TYPE_CHECKING:
    from pathlib import Path

    from bench.python.conftest import Benchmark


@pytest.mark.parametrize(
    "code",
    [
        pytest.param("pass", id="nothing"),
        pytest.param("import cmgmux", id="cmgmux"),
        pytest.param("import cmgmux.config", id="cmgmux.config"),
    ],
)
def test_start_python_and_import(benchmark: Benchmark, code: str) -> None:
    def start() -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    benchmark.pedantic(start, rounds=20, warmup_rounds=2)


def test_load_the_configuration_of_a_gateway(benchmark: Benchmark, gateway_file: Path) -> None:
    benchmark(GatewayConfig.load, gateway_file)


def test_load_the_configuration_of_a_point(benchmark: Benchmark, point_file: Path) -> None:
    benchmark(PointConfig.load, point_file)
