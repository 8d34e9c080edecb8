"""The whole path: a gateway instance, a connection point, and clients in front of them."""

from __future__ import annotations

import socket
import ssl
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from tests.e2e.curl import Answer, Curl, Fetch
from tests.e2e.processes import (
    DEADLINE_S,
    HOST,
    Service,
    free_address,
    split,
    to_toml,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

SERVER_NAME: Final = "localhost"
"""The name in the gateway's certificate."""

SITE: Final = "NYC"
"""The connection point's site."""

Settings = dict[str, Any]


def mapping(external: str, role: str, **settings: Any) -> Settings:
    """Map `external` to the role at an address; open to every client unless `settings` differ."""
    return {
        "external": external,
        "internal": f"http://{role}",
        "authentication": "none",
        **settings,
    }


class GatedPath:
    """A gateway instance and a connection point in `folder`. Leaving it ends both."""

    def __init__(
        self,
        folder: Path,
        pki: Path,
        curl: str,
        mappings: Sequence[Mapping[str, Any]],
        *,
        gateway: Mapping[str, Any] | None = None,
        point: Mapping[str, Any] | None = None,
    ) -> None:
        """Prepare both with settings that go beyond those that they need; start nothing."""
        self.folder = folder
        self.pki = pki
        self._grace_s = 0.5
        self.clients = free_address()
        self.channels = free_address()
        self._curl = Curl(curl, folder, pki / "gateway-ca.pem")
        self._stack = ExitStack()
        self._services: dict[str, Service] = {}
        self.gateway_settings: Settings = {
            "listen": self.clients,
            "channel_listen": self.channels,
            "certificate": str(pki / "gateway.pem"),
            "key": str(pki / "gateway.key"),
            "admin_socket": "gateway.sock",
            "shards": 2,
            "trusted": [{"ca": str(pki / "site-ca.pem"), "sites": [SITE]}],
            **(gateway or {}),
        }
        self.point_settings: Settings = {
            "site": SITE,
            "certificate": str(pki / "connection-point.pem"),
            "key": str(pki / "connection-point.key"),
            "gateway_ca": str(pki / "gateway-ca.pem"),
            "client_roots": [str(pki / "client-ca.pem")],
            "admin_socket": "point.sock",
            "shards": 2,
            "reconnect_min_s": 0.05,
            "reconnect_max_s": 0.5,
            "instances": [{"index": 0, "address": self.channels, "server_name": SERVER_NAME}],
            "mappings": [dict(each) for each in mappings],
            **(point or {}),
        }

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything, the last started first."""
        self._stack.__exit__(kind, error, traceback)

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Start both ends and wait until the mappings are published; end both in the end."""
        with self:
            self.start_gateway()
            self.start_point()
            self.wait_connected()
            yield self

    def start_gateway(self, name: str = "gateway") -> Service:
        """Start the gateway instance, or start it again; wait until it serves."""
        return self._start(name, "gateway", self.gateway_settings).started()

    def have_long_grace(self) -> None:
        """Start the gateway again, with a grace that is longer than what a test waits for."""
        self.gateway.kill()
        self._grace_s = 3 * DEADLINE_S
        self.start_gateway()

    def start_point(self) -> Service:
        """Start the connection point, or start it again; wait until it serves its status."""
        return self._start("point", "connection-point", self.point_settings).started()

    @property
    def gateway(self) -> Service:
        """The gateway instance."""
        return self._services["gateway"]

    @property
    def point(self) -> Service:
        """The connection point."""
        return self._services["point"]

    def wait_connected(self) -> None:
        """Wait until every channel is up and the publication is accepted."""
        self.point.wait_for("all channels", is_connected)
        wanted = self.gateway_settings["shards"]
        self.gateway.wait_for("all links", lambda status: links_up(status) == wanted)

    def url(self, path: str) -> str:
        """The URL of a path as clients have it."""
        return f"https://{SERVER_NAME}:{split(self.clients)[1]}{path}"

    def start_curl(self, path: str, *options: str) -> Fetch:
        """Have curl fetch `path`, without a client certificate unless `options` give one."""
        resolve = f"{SERVER_NAME}:{split(self.clients)[1]}:{HOST}"
        return self._curl.start(self.url(path), "--resolve", resolve, *options)

    def curl(self, path: str, *options: str) -> Answer:
        """Fetch `path` as `start_curl` does, to its end. Never raises for what curl reports."""
        return self.start_curl(path, *options).finish()

    def certificate_options(self, pki: Path) -> list[str]:
        """Options for curl to show the client certificate in `pki`."""
        return ["--cert", str(pki / "client.pem"), "--key", str(pki / "client.key")]

    @contextmanager
    def connected(self, *, receive_bytes: int | None = None) -> Iterator[ssl.SSLSocket]:
        """Give a client's TLS connection, with a small receive buffer if wanted.

        To read past an end that was not announced is an `ssl.SSLEOFError`.
        """
        tls = ssl.create_default_context(cafile=self.pki / "gateway-ca.pem")
        with socket.socket() as plain:
            plain.settimeout(DEADLINE_S)
            if receive_bytes is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
            plain.connect(split(self.clients))
            wrapping = tls.wrap_socket(
                plain, server_hostname=SERVER_NAME, suppress_ragged_eofs=False
            )
            with wrapping as wrapped:
                yield wrapped

    def say(self, text: bytes) -> bytes:
        """Send bytes on a connection of their own and give all that comes until its end."""
        with self.connected() as connection:
            connection.sendall(text)
            return read_all(connection)

    def swarm(self, path: str, *options: str, name: str = "swarm") -> Swarm:
        """Start clients that poll `path`."""
        admin = self.folder / f"{name}.sock"
        swarm = Swarm(
            name,
            [
                "load",
                f"--target={self.clients}",
                f"--server-name={SERVER_NAME}",
                f"--ca={self.pki / 'gateway-ca.pem'}",
                f"--path={path}",
                f"--admin-socket={admin}",
                "--json",
                *options,
            ],
            self.folder,
            admin,
        )
        return self._stack.enter_context(swarm)

    def _start(self, name: str, command: str, settings: Settings) -> Service:
        file = self.folder / f"{name}.toml"
        file.write_text(to_toml(settings))
        arguments = [command, str(file), "--log-level=debug", f"--grace-s={self._grace_s:g}"]
        admin = self.folder / str(settings["admin_socket"])
        service = self._stack.enter_context(Service(name, arguments, self.folder, admin))
        self._services[name] = service
        return service


class Swarm(Service):
    """Clients that hold polls."""

    def wait_holding(self, clients: int) -> None:
        """Wait until that many clients hold their poll."""
        self.wait_for("all clients hold", lambda status: status["holding"] == clients)


def is_connected(point: Settings) -> bool:
    """Whether a connection point has all its channels and its publication is accepted."""
    return all(
        instance["channels_up"] == instance["channels_wanted"] > 0
        and instance["publication"]["state"] == "accepted"
        for instance in point["instances"]
    )


def links_up(gateway: Settings) -> int:
    """Tell how many of a gateway's channels have a link."""
    return sum(channel["outage_s"] is None for channel in gateway["channels"])


def read_all(connection: socket.socket) -> bytes:
    """Read until the peer says that it is done."""
    received = b""
    while piece := connection.recv(65_536):
        received += piece
    return received


def read_past(connection: socket.socket, marker: bytes) -> bytes:
    """Read until `marker` has come, and give everything read."""
    received = b""
    while marker not in received:
        piece = connection.recv(65_536)
        assert piece, f"the connection ended after {received!r}"
        received += piece
    return received


def read_count(connection: socket.socket, count: int) -> None:
    """Read `count` bytes, as fast as they come."""
    while count > 0:
        piece = connection.recv(min(count, 65_536))
        assert piece, f"the connection ended with {count} bytes missing"
        count -= len(piece)


def read_to_broken_end(connection: ssl.SSLSocket) -> bytes:
    """Read until the connection breaks, which it must do without an end that looks clean."""
    received = b""
    while True:
        try:
            piece = connection.recv(65_536)
        except (ssl.SSLEOFError, ConnectionResetError):
            return received
        assert piece, f"a clean end after {len(received)} bytes"
        received += piece
