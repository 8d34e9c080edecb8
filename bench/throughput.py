"""Requests a second, their times, and the processor time of each, with h2load."""

from __future__ import annotations

import re
import resource
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from bench.processes import BenchError, Process, machine_cpu_s
from bench.sides import FAST_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from bench.sides import Side

CONNECTIONS: Final = 64

WARM_UP_S: Final = 1

_LONGER_THAN_ASKED_S: Final = 20.0
_CIPHER: Final = "TLS_AES_128_GCM_SHA256"


@dataclass(frozen=True)
class Throughput:
    """What one run of h2load against one side gave."""

    side: str
    round: int
    requests: int
    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_us: Mapping[str, float]
    """Processor time a request, in microseconds, of each process; the kernel's work included."""
    others: float
    """Share of the machine's processor time that went to processes that are none of these."""
    command: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        """Give the measurement as an object."""
        return {"measurement": "throughput", **vars(self)}

    def line(self) -> str:
        """Give the measurement as text."""
        cpu = ", ".join(f"{name} {time_us:.1f}" for name, time_us in self.cpu_us.items())
        return (
            f"round {self.round} {self.side:5} {self.requests_per_s:8,.0f} requests/s, "
            f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, CPU us a request: {cpu}; "
            f"others had {self.others:.0%} of the machine"
        )


def measure(
    h2load: str,
    side: Side,
    role: Process,
    *,
    http: str,
    number: int,
    duration_s: int,
    folder: Path,
) -> Throughput:
    """Run h2load against a side for `duration_s` seconds after a warm-up of one.

    `http` is ``h1`` or ``h2``; either way each connection has one request at a time.

    Raises:
        BenchError: A request failed, or h2load did.
    """
    log = folder / "h2load.requests"
    log.unlink(missing_ok=True)  # h2load would add to it
    command = [
        h2load,
        *(["--h1"] if http == "h1" else ["--max-concurrent-streams=1"]),
        f"--clients={CONNECTIONS}",
        "--threads=1",
        f"--duration={duration_s}",
        f"--warm-up-time={WARM_UP_S}",
        f"--tls13-ciphers={_CIPHER}",
        f"--log-file={log}",
        f"https://{side.address}{FAST_PREFIX}/hello",
    ]
    processes = {**side.parts, "role": role}
    before = _cpu_s(processes)
    machine_before = machine_cpu_s()
    with Process("h2load", command, log=folder / "h2load.log") as process:
        output = process.wait(WARM_UP_S + duration_s + _LONGER_THAN_ASKED_S)
    used = {name: cpu_s - before[name] for name, cpu_s in _cpu_s(processes).items()}
    busy_s, all_s = (now - then for now, then in zip(machine_cpu_s(), machine_before, strict=True))
    for part in processes.values():
        part.check()
    requests, requests_per_s = parse_output(output)
    times_ms = parse_log(log.read_text())
    if len(times_ms) != requests:
        raise BenchError(f"h2load logged {len(times_ms)} requests and counted {requests}")
    # The warm-up's requests cost as much as the others, and come at the same rate.
    all_requests = requests * (duration_s + WARM_UP_S) / duration_s
    return Throughput(
        side=side.name,
        round=number,
        requests=requests,
        requests_per_s=requests_per_s,
        p50_ms=percentile(times_ms, 50),
        p99_ms=percentile(times_ms, 99),
        max_ms=times_ms[-1],
        cpu_us={name: cpu_s * 1e6 / all_requests for name, cpu_s in used.items()},
        others=max(0.0, (busy_s - sum(used.values())) / all_s),
        command=command,
    )


def _cpu_s(processes: Mapping[str, Process]) -> dict[str, float]:
    """Processor time of each process so far, and of h2load, which has ended when it counts."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = {name: process.cpu_s() for name, process in processes.items()}
    return {**used, "h2load": children.ru_utime + children.ru_stime}


def parse_output(output: str) -> tuple[int, float]:
    """Take the requests that succeeded, and those a second, from what h2load printed.

    Raises:
        BenchError: Some failed, none succeeded, or the numbers are not there.
    """
    rate = re.search(r"^finished in .*?, ([\d.]+) req/s", output, re.MULTILINE)
    counts = re.search(
        r"^requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output, re.M
    )
    statuses = re.search(r"^status codes: (\d+) 2xx, (.*)$", output, re.MULTILINE)
    if not (rate and counts and statuses):
        raise BenchError(f"h2load printed something else than expected:\n{output}")
    succeeded, *unhappy = map(int, counts.groups())
    if succeeded == 0 or any(unhappy) or int(statuses[1]) != succeeded:
        raise BenchError(f"not all requests succeeded: {counts[0]}; {statuses[0]}")
    return succeeded, float(rate[1])


def parse_log(text: str) -> list[float]:
    """Take the times of the requests that h2load logged, in milliseconds, shortest first."""
    return sorted(int(line.rpartition("\t")[2]) / 1000 for line in text.splitlines())


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Give the smallest value that at least `percent` % of the values do not exceed."""
    return ascending[max(0, -int(-len(ascending) * percent // 100) - 1)]
