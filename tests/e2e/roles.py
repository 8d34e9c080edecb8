"""The roles behind a connection point: nginx, the sample role, and odd ones of bare sockets."""

from __future__ import annotations

import grp
import os
import pwd
import queue
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from tests.e2e.path import read_count
from tests.e2e.processes import DEADLINE_S, HOST, Process, Service, free_address

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEBIBYTE: Final = 1 << 20

_NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
user {user} {group};
worker_processes 1;
error_log {folder}/nginx.error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {address};
        root {root};
    }}
}}
"""


@dataclass(frozen=True)
class Files:
    """What nginx serves."""

    folder: Path
    sha256: str
    """Of ``big``, 32 MiB."""


class Nginx(Process):
    """nginx, serving the files of a folder."""

    def __init__(self, program: str, folder: Path, root: Path) -> None:
        """Start it on a free port."""
        self.address = free_address()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _NGINX.format(
                folder=folder,
                root=root,
                address=self.address,
                # Otherwise root's nginx serves as a user who cannot read the folder.
                user=pwd.getpwuid(os.getuid()).pw_name,
                group=grp.getgrgid(os.getgid()).gr_name,
            )
        )
        log = str(folder / "nginx.error.log")
        super().__init__("nginx", [program, "-e", log, "-c", str(configuration)], folder)


class SampleRole(Service):
    """The sample role."""

    def __init__(self, folder: Path, *options: str) -> None:
        """Start it on a free port."""
        admin = folder / "role.sock"
        arguments = ["sample-role", f"--admin-socket={admin}", "--grace-s=0.5", *options]
        super().__init__("role", arguments, folder, admin)
        self.address: str = self.started().status()["address"]


class Visit:
    """One connection to an odd role, after the head of a request has come."""

    def __init__(
        self, connection: socket.socket, head: bytes, release: threading.Semaphore
    ) -> None:
        """Answer on `connection`."""
        self._connection = connection
        self._release = release
        self.head = head

    def say(self, text: bytes) -> None:
        """Send something."""
        self._connection.sendall(text)

    def hear(self, count: int) -> None:
        """Read `count` bytes of the request's body."""
        read_count(self._connection, count - len(self.head.partition(b"\r\n\r\n")[2]))

    def wait_until_released(self) -> None:
        """Wait for the test."""
        self._release.acquire(timeout=DEADLINE_S)

    def wait_until_left(self) -> None:
        """Read whatever comes until the connection point closes the connection."""
        with suppress(ConnectionResetError):
            while self._connection.recv(65_536):
                pass


class OddRole:
    """A role in this process. Each connection is treated as `behave` says and then closed."""

    def __init__(self, behave: Callable[[Visit], None]) -> None:
        """Listen on a free port."""
        self._behave = behave
        self._listener = socket.create_server((HOST, 0))
        self._connections: list[socket.socket] = []
        self.heads: queue.Queue[bytes] = queue.Queue()
        """The heads of requests as they came."""
        self.ends: queue.Queue[None] = queue.Queue()
        """Has something for each visit that is over."""
        self.release = threading.Semaphore(0)
        """Lets one visit go on that waits for it."""
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection and wait for the threads."""
        for each in (self._listener, *self._connections):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(DEADLINE_S)

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{HOST}:{self._listener.getsockname()[1]}"

    def forget(self) -> None:
        """Forget the visits so far."""
        for seen in (self.heads, self.ends):
            while not seen.empty():
                seen.get()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            connection.settimeout(DEADLINE_S)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(65_536)
                if not piece:
                    return
                head += piece
            self.heads.put(head)
            try:
                self._behave(Visit(connection, head, self.release))
            finally:
                self.ends.put(None)


@dataclass(frozen=True)
class OddRoles:
    """Roles that misbehave, each under the path of its name."""

    silent: OddRole
    half: OddRole
    chunks: OddRole
    closing: OddRole
    pausing: OddRole
    nonsense: OddRole
    showing: OddRole


def stay_silent(visit: Visit) -> None:
    """Take the request and never answer."""
    visit.wait_until_left()


def break_off_a_length(visit: Visit) -> None:
    """Answer with a length and close after half of it, when released."""
    visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    visit.wait_until_released()


def pause_in_mid_answer(visit: Visit) -> None:
    """Answer with half of it and never go on."""
    visit.say(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
    visit.wait_until_left()


def break_off_chunks(visit: Visit) -> None:
    """Answer in chunks and close without the last one, when released."""
    visit.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    visit.wait_until_released()


def break_off_at_once(visit: Visit) -> None:
    """Close without an answer."""


def talk_nonsense(visit: Visit) -> None:
    """Answer with what is not HTTP."""
    visit.say(b"220 mail.example ESMTP\r\n")


def show_the_head(visit: Visit) -> None:
    """Answer with the head of the request."""
    start = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(visit.head)
    visit.say(start + visit.head)


class NobodyThere:
    """An address at which connections are refused, for as long as this is entered."""

    def __enter__(self) -> Self:
        """Take a port without listening on it."""
        self._socket = socket.socket()
        self._socket.bind((HOST, 0))
        return self

    def __exit__(self, *_: object) -> None:
        """Let the port go."""
        self._socket.close()

    @property
    def address(self) -> str:
        """The address."""
        return f"{HOST}:{self._socket.getsockname()[1]}"
