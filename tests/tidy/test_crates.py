"""Which crate may depend on what, and which versions are too old."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CRATES = sorted(path.parent for path in ROOT.glob("rust/*/Cargo.toml"))

OURS = {
    "mux": set(),
    "exchange": set(),
    "net": {"mux", "exchange"},
    "gateway": {"mux", "exchange", "net"},
    "point": {"mux", "exchange", "net"},
    "load": {"exchange", "net"},
    "sim": {"mux"},
    "fuzz": {"mux", "exchange"},
    "py": {"exchange", "net", "gateway", "point", "load"},
}
"""The crates of the workspace that each may depend on."""

PURE = {
    "mux": {"bytes", "thiserror", "tracing"},
    "exchange": {"base64", "bytes", "http", "httparse", "serde", "serde_json", "sha2", "thiserror"},
}
"""The only foreign crates that the cores may depend on: none that could do I/O."""

MINIMUM = {
    "h2": (0, 4, 16),
    "hyper": (1, 11, 0),
    "rustls": (0, 23, 18),
    "rustls-webpki": (0, 103, 13),
    "tokio": (1, 44, 2),
    "bytes": (1, 11, 1),
    "tungstenite": (0, 20, 1),
    "ring": (0, 17, 12),
    "aws-lc-sys": (0, 39, 0),
    "jsonwebtoken": (10, 3, 0),
    "time": (0, 3, 47),
    "idna": (1, 0, 0),
    "pyo3": (0, 29, 0),
    "crossbeam-channel": (0, 5, 15),
    "hickory-proto": (0, 26, 1),
}
"""The first versions without known security faults; refreshed with each release."""

FORBIDDEN = {
    "openssl": "one TLS stack: rustls",
    "openssl-sys": "one TLS stack: rustls",
    "native-tls": "one TLS stack: rustls",
    "rustls-pemfile": "unmaintained: rustls-pki-types reads PEM",
}


def manifest(crate: Path) -> dict[str, Any]:
    """Read a crate's Cargo.toml."""
    return tomllib.loads((crate / "Cargo.toml").read_text())


def dependencies(crate: Path) -> set[str]:
    """Name what a crate needs outside its tests."""
    return set(manifest(crate).get("dependencies", {}))


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_crates_depend_downwards_only(crate: Path) -> None:
    ours = {name.removeprefix("cmgmux-") for name in dependencies(crate) if "cmgmux" in name}
    assert ours <= OURS[crate.name]


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_cores_depend_on_nothing_that_does_io(name: str) -> None:
    assert dependencies(ROOT / "rust" / name) <= PURE[name]


def test_only_py_knows_python() -> None:
    assert [crate.name for crate in CRATES if "pyo3" in dependencies(crate)] == ["py"]


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_crates_take_lints_and_versions_from_the_workspace(crate: Path) -> None:
    read = manifest(crate)
    assert read["lints"] == {"workspace": True}
    for table in ("dependencies", "dev-dependencies"):
        for name, wanted in read.get(table, {}).items():
            assert wanted.get("workspace") is True, f"{name} has a version of its own"


@pytest.mark.parametrize("crate", CRATES, ids=lambda crate: crate.name)
def test_crates_forbid_unsafe_code(crate: Path) -> None:
    if crate.name == "py":
        # PyO3's macros expand to unsafe code, so the lint cannot be used; we write none.
        written = "".join(path.read_text() for path in crate.glob("src/**/*.rs"))
        assert not re.search(r"\bunsafe\b", written)
    else:
        assert "#![forbid(unsafe_code)]" in (crate / "src/lib.rs").read_text()


def locked() -> list[tuple[str, tuple[int, ...]]]:
    """Name every locked crate with its version."""
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    number = re.compile(r"\d+\.\d+\.\d+")
    versions = [(package["name"], number.match(package["version"])) for package in packages]
    return [
        (name, tuple(int(part) for part in version[0].split(".")))
        for name, version in versions
        if version is not None
    ]


def test_no_crate_is_older_than_its_last_security_fix() -> None:
    old = [
        f"{name} {'.'.join(map(str, version))}"
        for name, version in locked()
        if version < MINIMUM.get(name, ())
    ]
    assert not old


def test_no_forbidden_crate_is_used() -> None:
    assert not {name for name, _ in locked()} & set(FORBIDDEN)


def test_the_version_check_sees_an_old_crate() -> None:
    names = [name for name, _ in locked()]
    assert {"rustls", "tokio", "pyo3", "aws-lc-sys"} <= set(names)
    assert (0, 23, 17) < MINIMUM["rustls"] <= (0, 23, 18)
