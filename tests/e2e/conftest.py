"""Fixtures of the end-to-end tests: roles, the path in front of them, and logs of what failed."""

from __future__ import annotations

import hashlib
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from cmgmux.pki import DevelopmentPki
from tests.e2e.path import GatedPath, mapping
from tests.e2e.processes import Process, accepts, wait_until
from tests.e2e.roles import (
    MEBIBYTE,
    Files,
    Nginx,
    NobodyThere,
    OddRole,
    OddRoles,
    SampleRole,
    break_off_a_length,
    break_off_at_once,
    break_off_chunks,
    pause_in_mid_answer,
    show_the_head,
    stay_silent,
    talk_nonsense,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the end of each process's log with a failed test."""
    report = yield
    if report.failed:
        for process in (*Process.running, *Process.left):
            report.sections.append((f"the log of {process.name}", process.tail()))
    Process.left.clear()
    return report


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """``small`` is a line, ``big`` 32 MiB of noise, ``sparse`` 256 MiB of zeros."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "small").write_bytes(b"a small file\n")
    noise = os.urandom(32 * MEBIBYTE)
    (folder / "big").write_bytes(noise)
    with (folder / "sparse").open("wb") as file:
        file.truncate(256 * MEBIBYTE)
    return Files(folder, hashlib.sha256(noise).hexdigest())


@pytest.fixture(scope="session")
def nginx(
    program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory, files: Files
) -> Iterator[Nginx]:
    """Serve the files by nginx."""
    with Nginx(program("nginx"), tmp_path_factory.mktemp("nginx"), files.folder) as nginx:
        wait_until("nginx serves", lambda: accepts(nginx.address), watched=[nginx])
        yield nginx


@pytest.fixture(scope="session")
def role(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SampleRole]:
    """A sample role."""
    with SampleRole(tmp_path_factory.mktemp("role")) as role:
        yield role


@pytest.fixture(scope="session")
def curl(program: Callable[[str], str]) -> str:
    """Where curl is."""
    return program("curl")


@pytest.fixture(scope="session")
def foreign_pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates for the same names by other authorities."""
    folder = tmp_path_factory.mktemp("foreign")
    DevelopmentPki().write(folder)
    return folder


@pytest.fixture
def odd(misbehaving: OddRoles) -> OddRoles:
    """Roles that misbehave, with no visit so far."""
    for role in vars(misbehaving).values():
        role.forget()
    return misbehaving


@pytest.fixture(scope="session")
def misbehaving() -> Iterator[OddRoles]:
    """Roles that misbehave, with all visits of the tests so far."""
    with ExitStack() as stack:
        yield OddRoles(
            silent=stack.enter_context(OddRole(stay_silent)),
            half=stack.enter_context(OddRole(break_off_a_length)),
            chunks=stack.enter_context(OddRole(break_off_chunks)),
            closing=stack.enter_context(OddRole(break_off_at_once)),
            pausing=stack.enter_context(OddRole(pause_in_mid_answer)),
            nonsense=stack.enter_context(OddRole(talk_nonsense)),
            showing=stack.enter_context(OddRole(show_the_head)),
        )


@pytest.fixture(scope="session")
def path(
    tmp_path_factory: pytest.TempPathFactory,
    pki: Path,
    curl: str,
    nginx: Nginx,
    role: SampleRole,
    misbehaving: OddRoles,
) -> Iterator[GatedPath]:
    """A path with a mapping for each role, for tests that leave it as it was."""
    with NobodyThere() as nobody:
        path = GatedPath(
            tmp_path_factory.mktemp("path"),
            pki,
            curl,
            [
                mapping("/files", nginx.address),
                mapping("/role", role.address, hold=True),
                mapping("/limited", f"{role.address}/echo", max_body_bytes=1_000),
                mapping("/secret", misbehaving.showing.address, authentication="certificate"),
                mapping("/open", misbehaving.showing.address),
                mapping("/nobody", nobody.address),
                mapping("/silent", misbehaving.silent.address, response_timeout_s=1.0),
                mapping("/held", misbehaving.silent.address, hold=True),
                mapping("/half", misbehaving.half.address),
                mapping("/chunks", misbehaving.chunks.address),
                mapping("/closing", misbehaving.closing.address),
                mapping("/pausing", misbehaving.pausing.address, response_timeout_s=1.0),
                mapping("/pausing-held", misbehaving.pausing.address, hold=True),
                mapping("/nonsense", misbehaving.nonsense.address),
            ],
        )
        with path.running():
            yield path
