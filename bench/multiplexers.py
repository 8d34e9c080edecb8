"""The multiplexers that are measured: which program has them, how it is built and asked."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

OURS: Final = "cmgmux"
CORE: Final = "core"
CEILING: Final = "rustls"
GO_PEERS: Final = ("go-yamux", "go-smux")
RIVALS: Final = ("rust-yamux", "tokio-yamux", "h2", "quinn", *GO_PEERS)

_FOLDER: Final = Path(__file__).parent / "peers"
_TARGET: Final = Path(__file__).parents[1] / "target" / "peers"
_RELEASE: Final = _TARGET / "release"
_BENCH_MUX: Final = _RELEASE / "bench-mux"
_BENCH_MUX_HEAP: Final = _RELEASE / "bench-mux-heap"
_BENCH_MUX_GO: Final = _RELEASE / "bench-mux-go"
_TIMEOUT_S: Final = 180.0


class PeerError(Exception):
    """A multiplexer could not be measured."""


@dataclass(frozen=True)
class Built:
    """What was built."""

    tools: Mapping[str, str]
    """The programs that built it, by name."""
    missing: Mapping[str, str]
    """Why a multiplexer cannot be measured, by its name."""


def build() -> Built:
    """Build the programs. Without a tool that only rivals need, those are missing.

    Raises:
        PeerError: Ours cannot be built.
    """
    cargo = shutil.which("cargo")
    if cargo is None:
        raise PeerError("cargo not found: install a current stable Rust (rustup.rs)")
    manifest = _FOLDER / "mux" / "Cargo.toml"
    command = [cargo, "build", "--release", "--quiet", "--locked", f"--manifest-path={manifest}"]
    if subprocess.run([*command, f"--target-dir={_TARGET}"], check=False).returncode != 0:
        raise PeerError("the peers cannot be built; cargo says why above")
    go = shutil.which("go")
    if go is None:
        return Built({"cargo": cargo}, dict.fromkeys(GO_PEERS, "go not found"))
    command = [go, "build", "-mod=readonly", "-o", str(_BENCH_MUX_GO), "."]
    if subprocess.run(command, cwd=_FOLDER / "go", check=False).returncode != 0:
        return Built({"cargo": cargo}, dict.fromkeys(GO_PEERS, "not built: go build failed"))
    return Built({"cargo": cargo, "go": go}, {})


def measure(peer: str, job: Mapping[str, Any], *, counts_heap: bool) -> dict[str, Any]:
    """Measure one multiplexer once, and give the object that it answers with.

    Raises:
        PeerError: It failed, gave nothing in time, or something else.
    """
    words = json.dumps({"peer": peer, **job})
    if peer in GO_PEERS:
        command = [str(_BENCH_MUX_GO), words, str(_BENCH_MUX)]
    else:
        command = [str(_BENCH_MUX_HEAP if counts_heap else _BENCH_MUX), words]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S + job["seconds"],
            check=True,
        )
    except subprocess.TimeoutExpired:
        raise PeerError("nothing measured in time") from None
    except subprocess.CalledProcessError as error:
        raise PeerError(error.stderr.strip() or f"exit status {error.returncode}") from None
    except OSError as error:
        raise PeerError(f"cannot be started: {error}") from error
    try:
        answer = json.loads(done.stdout)
    except json.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise PeerError(f"printed no figures but {done.stdout[:200]!r}")
    return answer
