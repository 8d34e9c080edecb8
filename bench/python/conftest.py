"""What the Python benchmarks share: event loops, certificates and configuration files."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trio
import uvloop

from cmgmux.pki import DevelopmentPki

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    Main = Callable[[], Coroutine[Any, Any, None]]


class Benchmark(Protocol):
    """The fixture of pytest-benchmark, which comes without types."""

    def __call__(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        """Measure a function that can be called very often."""

    def pedantic(
        self, function: Callable[..., Any], /, args: Any = (), *, rounds: int, warmup_rounds: int
    ) -> Any:
        """Measure just so many calls."""


class Run(Protocol):
    """Runs an asynchronous function in a new event loop."""

    def __call__(self, main: Main, /) -> None:
        """Run it to its end."""


def run_asyncio(main: Main) -> None:
    """Run on the standard library's loop."""
    with asyncio.Runner() as runner:
        runner.run(main())


def run_uvloop(main: Main) -> None:
    """Run on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def run_trio(main: Main) -> None:
    """Run on Trio."""
    trio.run(main)


@pytest.fixture(params=[run_asyncio, run_uvloop, run_trio], ids=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Repeat each asynchronous benchmark on every supported event loop."""
    runner: Run = request.param
    return runner


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with development certificates: site NYC, gateway localhost."""
    folder = tmp_path_factory.mktemp("pki")
    DevelopmentPki().write(folder)
    return folder


@pytest.fixture
def gateway_file(tmp_path: Path, pki: Path) -> Path:
    """The configuration of an instance on free ports."""
    file = tmp_path / "gateway.toml"
    file.write_text(
        'listen = "127.0.0.1:0"\nchannel_listen = "127.0.0.1:0"\nshards = 1\n'
        f'certificate = "{pki}/gateway.pem"\nkey = "{pki}/gateway.key"\n'
        f'[[trusted]]\nca = "{pki}/site-ca.pem"\nsites = ["NYC"]\n'
    )
    return file


@pytest.fixture
def point_file(tmp_path: Path, pki: Path) -> Path:
    """The configuration of a connection point whose instance is nowhere."""
    file = tmp_path / "point.toml"
    file.write_text(
        f'site = "NYC"\nshards = 1\ncertificate = "{pki}/connection-point.pem"\n'
        f'key = "{pki}/connection-point.key"\ngateway_ca = "{pki}/gateway-ca.pem"\n'
        f'client_roots = ["{pki}/client-ca.pem"]\n'
        '[[instances]]\nindex = 0\naddress = "127.0.0.1:1"\nserver_name = "localhost"\n'
        '[[mappings]]\nexternal = "/a"\ninternal = "http://127.0.0.1:1"\n'
    )
    return file
