"""What the kernel holds of TCP connections, as `/proc/net/tcp` tells it (proc(5))."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.processes import split


def unread_bytes(*, local: str | None = None, remote: str | None = None) -> list[int]:
    """Received and not yet read, for each connection whose ports are those of the addresses.

    Without the kernel's own cost, which is about as much again. A listener's is what waits to be
    accepted.
    """
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local_end, remote_end, _, queues, *_ = line.split()
        if all(
            address is None or int(end.partition(":")[2], 16) == split(address)[1]
            for address, end in ((local, local_end), (remote, remote_end))
        ):
            found.append(int(queues.partition(":")[2], 16))
    return found
