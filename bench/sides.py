"""What is compared: two ways from a client's TLS connection to the same role."""

from __future__ import annotations

import http.client
import os
import ssl
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from bench.processes import Process, free_addresses, wait_until
from cmgmux.admin import fetch_status
from cmgmux.exceptions import StatusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

HOST: Final = "127.0.0.1"
"""Where everything listens."""

SERVER_NAME: Final = "localhost"
"""The name in the certificate of either side."""

FAST_PREFIX: Final = "/CCM_Proxy_ServerAuth/1"
"""The external path of the role that answers at once; open to every client."""

HOLDING_PREFIX: Final = "/CCM_Proxy_MutualAuth/2"
"""The external path of the role that holds requests; for clients with a certificate."""

START_TIMEOUT_S: Final = 20.0

_REQUEST_TIMEOUT_S: Final = 10.0
_STOP_WITH_US: Final = ("--stop-at-eof", "--grace-s=0")


@dataclass(frozen=True)
class Setting:
    """What both sides have in common."""

    folder: Path
    """For configurations, sockets and logs; ends with the run."""
    fast_role: str
    """Address of the role that answers at once."""
    holding_role: str
    """Address of the role that holds requests."""

    @property
    def pki(self) -> Path:
        """The folder of the certificates."""
        return self.folder / "pki"

    def client_tls(self) -> ssl.SSLContext:
        """TLS of a client that trusts either side and shows a certificate."""
        context = ssl.create_default_context(cafile=self.pki / "gateway-ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.pki / "client.pem", self.pki / "client.key")
        return context


@dataclass(frozen=True)
class Side:
    """One of the two ways, running."""

    name: str
    address: str
    """Where clients connect."""
    parts: Mapping[str, Process] = field(repr=False)
    """The processes between client and role."""

    def connect(self, tls: ssl.SSLContext) -> http.client.HTTPSConnection:
        """Give a client of this side, which connects with its first request."""
        port = int(self.address.rpartition(":")[2])
        return http.client.HTTPSConnection(HOST, port, timeout=_REQUEST_TIMEOUT_S, context=tls)


def get(connection: http.client.HTTPConnection, path: str) -> int:
    """Send one request, read the answer, and give its status; the connection stays open."""
    connection.request("GET", path)
    response = connection.getresponse()
    response.read()
    return response.status


def wait_for_answers(side: Side, setting: Setting) -> None:
    """Wait until the side serves both roles.

    Raises:
        BenchError: It does not.
    """
    tls = setting.client_tls()

    def look() -> bool | None:
        connection = side.connect(tls)
        try:
            paths = (f"{FAST_PREFIX}/hello", f"{HOLDING_PREFIX}/hello")
            return all(get(connection, path) == http.client.OK for path in paths) or None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    wait_until(f"{side.name} serves", look, side.parts.values(), timeout_s=START_TIMEOUT_S)


@contextmanager
def path(setting: Setting) -> Iterator[Side]:
    """Run a gateway instance and a connection point: the way that is measured."""
    clients, channels = free_addresses(2)
    folder, pki = setting.folder, setting.pki
    gateway_socket = folder / "gateway.sock"
    gateway = folder / "gateway.toml"
    gateway.write_text(f"""\
listen = "{clients}"
channel_listen = "{channels}"
certificate = "pki/gateway.pem"
key = "pki/gateway.key"
admin_socket = "{gateway_socket}"
max_clients = 1000000

[[trusted]]
ca = "{pki / "site-ca.pem"}"
sites = ["NYC"]
""")
    point = folder / "point.toml"
    point.write_text(f"""\
site = "NYC"
certificate = "pki/connection-point.pem"
key = "pki/connection-point.key"
gateway_ca = "pki/gateway-ca.pem"
client_roots = ["pki/client-ca.pem"]

[[instances]]
index = 0
address = "{channels}"
server_name = "{SERVER_NAME}"

[[mappings]]
external = "{FAST_PREFIX}"
internal = "http://{setting.fast_role}"
authentication = "none"

[[mappings]]
external = "{HOLDING_PREFIX}"
internal = "http://{setting.holding_role}"
authentication = "certificate"
hold = true
max_body_bytes = 4000000000
""")
    with (
        _cmgmux("gateway", ["gateway", str(gateway)], folder) as gateway_process,
        _cmgmux("point", ["connection-point", str(point)], folder) as point_process,
    ):
        parts = {"gateway": gateway_process, "point": point_process}

        def every_shard_has_its_channel() -> bool | None:
            status = status_of(gateway_socket)
            return len(status.get("channels", [])) == len(status.get("shards", [None])) or None

        wait_until(
            "the connection point connects",
            every_shard_has_its_channel,
            parts.values(),
            timeout_s=START_TIMEOUT_S,
        )
        side = Side("path", clients, parts)
        wait_for_answers(side, setting)
        yield side


@contextmanager
def holding_role(folder: Path, address: str, *, max_held: int) -> Iterator[Path]:
    """Run the sample role, which holds requests; gives the socket of its status."""
    admin_socket = folder / "holding-role.sock"
    command = [
        "sample-role",
        f"--listen={address}",
        f"--admin-socket={admin_socket}",
        f"--max-held={max_held}",
    ]
    with _cmgmux("holding-role", command, folder) as role:
        wait_until(
            "the holding role serves",
            lambda: status_of(admin_socket) or None,
            [role],
            timeout_s=START_TIMEOUT_S,
        )
        yield admin_socket


def swarm(
    side: Side,
    setting: Setting,
    admin_socket: Path,
    *,
    kind: str,
    first_client: int,
    clients: int,
    rate: int,
) -> Process:
    """Start clients that each hold a stream of `kind`, at most `rate` a second."""
    pki = setting.pki
    command = [
        "load",
        f"--target={side.address}",
        f"--server-name={SERVER_NAME}",
        f"--ca={pki / 'gateway-ca.pem'}",
        f"--certificate={pki / 'client.pem'}",
        f"--key={pki / 'client.key'}",
        f"--path={HOLDING_PREFIX}/notifications",
        f"--kind={kind}",
        f"--first-client={first_client}",
        f"--clients={clients}",
        f"--connect-rate-per-s={rate}",
        f"--admin-socket={admin_socket}",
        "--processes=1",
    ]
    return _cmgmux(admin_socket.stem, command, setting.folder)


def make_certificates(setting: Setting) -> None:
    """Make the certificates that both sides use.

    Raises:
        BenchError: They cannot be made.
    """
    command = [sys.executable, "-m", "cmgmux", "pki", str(setting.pki)]
    names = [f"--server-name={name}" for name in (SERVER_NAME, HOST)]
    with Process("pki", [*command, *names], log=setting.folder / "pki.log") as process:
        process.wait(START_TIMEOUT_S)


def status_of(admin_socket: Path) -> dict[str, Any]:
    """Read the counters of a process; empty while it does not serve them."""
    try:
        return fetch_status(admin_socket)
    except StatusError:
        return {}


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


def _cmgmux(name: str, arguments: list[str], folder: Path) -> Process:
    command = [sys.executable, "-m", "cmgmux", *arguments, *_STOP_WITH_US]
    return Process(name, command, log=folder / f"{name}.log")
