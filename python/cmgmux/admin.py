"""Reading the counters and state of a running process through its admin socket."""

from __future__ import annotations

import http.client
import json
import socket
from typing import TYPE_CHECKING, Any, Final

from cmgmux.exceptions import StatusError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_STATUS_BYTES: Final = 64 << 20


def fetch_status(path: Path, *, timeout_s: float = 5.0) -> dict[str, Any]:
    """Ask the process that serves the Unix socket at `path` for its status.

    Raises:
        StatusError: Nobody answers there, or not with a status.
    """
    connection = _UnixConnection(path, timeout_s)
    try:
        connection.request("GET", "/status")
        response = connection.getresponse()
        body = response.read(_MAX_STATUS_BYTES)
        if response.status != http.client.OK:
            raise StatusError(f"{path}: answered {response.status} {response.reason}")
        status: dict[str, Any] = json.loads(body)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StatusError(f"{path}: no status: {reason or type(error).__name__}") from error
    finally:
        connection.close()
    return status


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
