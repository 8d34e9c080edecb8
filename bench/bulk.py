"""Bulk through one connection, each way, with curl."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from bench.processes import BenchError, Process
from bench.sides import HOLDING_PREFIX, SERVER_NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.sides import Setting, Side

Direction = Literal["download", "upload"]

DIRECTIONS: Final[tuple[Direction, ...]] = ("download", "upload")

_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True)
class Bulk:
    """What one transfer gave."""

    side: str
    direction: Direction
    round: int
    size_bytes: int
    mb_per_s: float
    """In 10⁶ bytes."""
    cpu_s_per_gb: Mapping[str, float]
    """Processor time of each process for 10⁹ bytes."""

    def to_json(self) -> dict[str, Any]:
        """Give the measurement as an object."""
        return {"measurement": "bulk", **vars(self)}

    def line(self) -> str:
        """Give the measurement as text."""
        cpu = ", ".join(f"{name} {cpu_s:.2f}" for name, cpu_s in self.cpu_s_per_gb.items())
        return (
            f"round {self.round} {self.side:5} {self.direction}: {self.mb_per_s:,.0f} MB/s, "
            f"CPU s/GB: {cpu}"
        )


def measure(
    curl: str,
    side: Side,
    setting: Setting,
    *,
    direction: Direction,
    size_bytes: int,
    number: int,
) -> Bulk:
    """Move `size_bytes` through one TLS connection; an upload does not declare its size.

    Raises:
        BenchError: The transfer failed.
    """
    port = side.address.rpartition(":")[2]
    base = f"https://{SERVER_NAME}:{port}{HOLDING_PREFIX}"
    pki = setting.pki
    command = [
        curl,
        *("-q", "-sS", "--fail", "--http1.1", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256"),
        *("--cacert", f"{pki}/gateway-ca.pem"),
        *("--cert", f"{pki}/client.pem", "--key", f"{pki}/client.key"),
        *("--resolve", f"{SERVER_NAME}:{port}:127.0.0.1", "--output", "/dev/null"),
    ]
    if direction == "download":
        command += ["--write-out", "%{speed_download}", f"{base}/bytes?n={size_bytes}"]
    else:
        upload = setting.folder / "upload"
        if not upload.exists() or upload.stat().st_size != size_bytes:
            with upload.open("wb") as file:
                file.truncate(size_bytes)
        command += ["--write-out", "%{speed_upload}", "-X", "POST", "--upload-file", str(upload)]
        command += ["-H", "Transfer-Encoding: chunked", "-H", "Expect:", f"{base}/echo"]
    before = {name: process.cpu_s() for name, process in side.parts.items()}
    with Process("curl", command, log=setting.folder / "curl.log") as process:
        output = process.wait(_TIMEOUT_S)
    used = {name: process.cpu_s() - before[name] for name, process in side.parts.items()}
    try:
        bytes_per_s = float(output)
    except ValueError:
        raise BenchError(f"curl printed something else than a speed: {output}") from None
    return Bulk(
        side=side.name,
        direction=direction,
        round=number,
        size_bytes=size_bytes,
        mb_per_s=bytes_per_s / 1e6,
        cpu_s_per_gb={name: cpu_s * 1e9 / size_bytes for name, cpu_s in used.items()},
    )
