"""What the demo runs, as values: files, command lines, and the verdict. Starts nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PREFIX: Final = "/CCM_Proxy_MutualAuth/72057594037927939"
"""The external path of the sample role."""

HOST: Final = "localhost"
"""The name in the gateway's certificate."""

PROCESSES: Final = ("role", "gateway", "point", "swarm")
"""The names of the processes, in the order of their start."""

_DESCRIPTORS_BESIDE_CLIENTS: Final = 256

_STOP_WITH_US: Final = ("--stop-at-eof", "--grace-s", "1")


@dataclass(frozen=True)
class Plan:
    """A demo in `folder` with `clients` clients."""

    folder: Path
    clients: int
    endless: bool
    """The clients poll again after each notification."""

    @property
    def pki(self) -> Path:
        """Where the certificates are."""
        return self.folder / "pki"

    def admin_socket(self, name: str) -> Path:
        """Where the process called `name` serves its status."""
        return self.folder / f"{name}.sock"

    def log(self, name: str) -> Path:
        """Where the process called `name` writes its log."""
        return self.folder / f"{name}.log"

    def output(self, name: str) -> Path:
        """Where the standard output of the process called `name` goes."""
        return self.folder / f"{name}.out"

    def role_command(self) -> list[str]:
        """Arguments of the sample role, on a free port."""
        return [
            "sample-role",
            f"--admin-socket={self.admin_socket('role')}",
            f"--max-held={self.clients + 1_000}",
            *_STOP_WITH_US,
        ]

    def gateway_command(self) -> list[str]:
        """Arguments of the gateway instance, on free ports; writes its configuration."""
        settings = {
            "listen": "127.0.0.1:0",
            "channel_listen": "127.0.0.1:0",
            "certificate": str(self.pki / "gateway.pem"),
            "key": str(self.pki / "gateway.key"),
            "admin_socket": str(self.admin_socket("gateway")),
            "max_clients": self.clients + 1_000,
            "trusted": [{"ca": str(self.pki / "site-ca.pem"), "sites": ["NYC"]}],
        }
        return ["gateway", self._configuration("gateway", settings), *_STOP_WITH_US]

    def point_command(self, *, role: str, channels: str) -> list[str]:
        """Arguments of the connection point; writes its configuration."""
        settings = {
            "site": "NYC",
            "certificate": str(self.pki / "connection-point.pem"),
            "key": str(self.pki / "connection-point.key"),
            "gateway_ca": str(self.pki / "gateway-ca.pem"),
            "admin_socket": str(self.admin_socket("point")),
            "client_roots": [str(self.pki / "client-ca.pem")],
            "instances": [{"index": 0, "address": channels, "server_name": HOST}],
            "mappings": [
                {
                    "external": PREFIX,
                    "internal": f"http://{role}",
                    "authentication": "certificate",
                    "hold": True,
                }
            ],
        }
        return ["connection-point", self._configuration("point", settings), *_STOP_WITH_US]

    def swarm_command(self, *, gateway: str) -> list[str]:
        """Arguments of the client swarm."""
        return [
            "load",
            f"--target={gateway}",
            f"--server-name={HOST}",
            f"--ca={self.pki / 'gateway-ca.pem'}",
            f"--certificate={self.pki / 'client.pem'}",
            f"--key={self.pki / 'client.key'}",
            f"--path={PREFIX}/notifications",
            f"--clients={self.clients}",
            f"--messages-per-client={0 if self.endless else 1}",
            f"--admin-socket={self.admin_socket('swarm')}",
            "--json",
            *_STOP_WITH_US,
        ]

    def curl_command(self, *, gateway: str) -> str:
        """A command line that sends one request the whole way."""
        port = gateway.rpartition(":")[2]
        return (
            f"curl --cacert {self.pki / 'gateway-ca.pem'} --cert {self.pki / 'client.pem'} "
            f"--key {self.pki / 'client.key'} https://{HOST}:{port}{PREFIX}/hello"
        )

    def push_command(self, *, role: str) -> str:
        """A command line that notifies every client."""
        return f"curl --data news 'http://{role}/push?client=*'"

    def _configuration(self, name: str, settings: Mapping[str, Any]) -> str:
        path = self.folder / f"{name}.toml"
        path.write_text(to_toml(settings))
        return str(path)


def to_toml(settings: Mapping[str, Any]) -> str:
    """Write settings as TOML: values first, then each list of tables."""
    lines = []
    tables = []
    for key, value in settings.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            tables += [f"\n[[{key}]]\n{to_toml(item)}" for item in value]
        else:
            # JSON's strings, numbers, booleans and lists of them are TOML's too.
            lines.append(f"{key} = {json.dumps(value)}\n")
    return "".join(lines + tables)


def most_clients(descriptor_limit: int) -> int:
    """How many clients fit when a process may have `descriptor_limit` descriptors.

    A client costs the connection point none but its upstream connection, the gateway, the role
    and the swarm one each.
    """
    return max(0, descriptor_limit - _DESCRIPTORS_BESIDE_CLIENTS)
