"""A TCP relay in this process that can cut what it carries."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, Self

from tests.e2e.processes import DEADLINE_S, HOST, split

if TYPE_CHECKING:
    from collections.abc import Iterator

_RESET_AT_CLOSE: Final = struct.pack("ii", 1, 0)


class Relay:
    """Carries each connection to `target`. Leaving it closes everything."""

    target: str
    """To be set before anybody connects."""

    def __init__(self) -> None:
        """Listen on a free port."""
        self._closed = False
        self._listener = socket.create_server((HOST, 0))
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything and wait for the threads."""
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(DEADLINE_S)
        for each in (self._listener, *self._sockets):
            each.close()

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{HOST}:{self._listener.getsockname()[1]}"

    def cut(self, oldest: int | None = None) -> None:
        """End every connection, or the oldest ones, with a reset on both sides, as networks do."""
        sockets = self._sockets[: None if oldest is None else 2 * oldest]
        self._sockets = self._sockets[len(sockets) :]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE)
            # A thread that reads keeps the socket open; this wakes it.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RD)
        for each in sockets:
            each.close()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Cut everything and carry nothing meanwhile."""
        self._closed = True
        self.cut()
        yield
        self._closed = False

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self._closed:
                    raise ConnectionRefusedError
                far = socket.create_connection(split(self.target))
            except OSError:
                near.close()
                continue
            self._sockets += [near, far]
            for source, sink in ((near, far), (far, near)):
                thread = threading.Thread(target=_carry, args=(source, sink), daemon=True)
                self._threads.append(thread)
                thread.start()


def _carry(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65_536):
            sink.sendall(piece)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
