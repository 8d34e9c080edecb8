"""What the demo runs, as values: files, command lines, and who the clients are. Starts nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from cmgmux.pki import DevelopmentPki

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from cmgmux.demo.topology import Site, Topology

HOST: Final = "localhost"
"""The name in the gateway's certificate."""

KINDS: Final = ("long-poll", "sse", "websocket")
"""What the clients hold, in turn."""

REQUESTS_PER_S: Final = 100.0
"""Beside the streams, in all."""

_REQUEST_CONNECTIONS: Final = 4
_DESCRIPTORS_BESIDE_CLIENTS: Final = 256

_STOP_WITH_US: Final = ("--stop-at-eof", "--grace-s", "1")


@dataclass(frozen=True)
class Swarm:
    """Clients of one site at one gateway instance."""

    name: str
    site: Site
    instance: int
    clients: range
    """Their ids."""


@dataclass(frozen=True)
class Plan:
    """A demo of `topology` in `folder`."""

    folder: Path
    topology: Topology
    clients: int
    """In all."""
    endless: bool
    """The clients wait for a further notification after each."""

    @property
    def swarms(self) -> list[Swarm]:
        """The clients, shared out evenly among sites and instances."""
        places = [
            (site, instance)
            for site in self.topology.sites
            for instance in range(self.topology.instances)
        ]
        swarms = []
        first = 0
        for number, (site, instance) in enumerate(places):
            share = self.clients // len(places) + (number < self.clients % len(places))
            name = f"clients-{site.code}-{instance}"
            if share:
                swarms.append(Swarm(name, site, instance, range(first, first + share)))
            first += share
        return swarms

    def clients_of(self, site: Site) -> list[int]:
        """Give the ids of the clients of `site`."""
        return [client for swarm in self.swarms if swarm.site == site for client in swarm.clients]

    def pki(self, point: str) -> Path:
        """Where the certificates of a connection point, and of its site's authorities, are."""
        return self.folder / f"pki-{point}"

    @property
    def gateway_pki(self) -> Path:
        """Where the gateway's certificates are."""
        return self.pki(self.topology.sites[0].points[0])

    def admin_socket(self, name: str) -> Path:
        """Where the process called `name` serves its status."""
        return self.folder / f"{name}.sock"

    def log(self, name: str) -> Path:
        """Where the process called `name` writes its log."""
        return self.folder / f"{name}.log"

    def output(self, name: str) -> Path:
        """Where the standard output of the process called `name` goes."""
        return self.folder / f"{name}.out"

    def write_certificates(self) -> None:
        """Make an authority for each connection point, one for the gateway, and clients."""
        for site in self.topology.sites:
            for point in site.points:
                pki = DevelopmentPki(site=site.code, point=point, server_names=(HOST, "127.0.0.1"))
                pki.write(self.pki(point))

    def role_command(self, site: Site) -> list[str]:
        """Arguments of the sample role of `site`, on a free port."""
        return [
            "sample-role",
            f"--admin-socket={self.admin_socket(role_name(site))}",
            f"--max-held={self.clients + 1_000}",
            *_STOP_WITH_US,
        ]

    def gateway_command(self, index: int) -> list[str]:
        """Arguments of a gateway instance, on free ports; writes its configuration."""
        name = gateway_name(index)
        settings = {
            "index": index,
            "listen": "127.0.0.1:0",
            "channel_listen": "127.0.0.1:0",
            "certificate": str(self.gateway_pki / "gateway.pem"),
            "key": str(self.gateway_pki / "gateway.key"),
            "admin_socket": str(self.admin_socket(name)),
            "max_clients": self.clients + 1_000,
            "trusted": [
                {"ca": str(self.pki(point) / "site-ca.pem"), "sites": [site.code]}
                for site in self.topology.sites
                for point in site.points
            ],
        }
        return ["gateway", self._configuration(name, settings), *_STOP_WITH_US]

    def point_command(
        self, site: Site, point: str, *, role: str, channels: Sequence[str]
    ) -> list[str]:
        """Arguments of a connection point that dials `channels`; writes its configuration."""
        settings = {
            "site": site.code,
            "certificate": str(self.pki(point) / "connection-point.pem"),
            "key": str(self.pki(point) / "connection-point.key"),
            "gateway_ca": str(self.gateway_pki / "gateway-ca.pem"),
            "admin_socket": str(self.admin_socket(point)),
            # Connection points of one site publish the same.
            "serial": 1,
            "client_roots": [str(self.pki(site.points[0]) / "client-ca.pem")],
            "instances": [
                {"index": index, "address": address, "server_name": HOST}
                for index, address in enumerate(channels)
            ],
            "mappings": [
                {
                    "external": site.prefix,
                    "internal": f"http://{role}",
                    "authentication": "certificate",
                    "hold": True,
                }
            ],
        }
        return ["connection-point", self._configuration(point, settings), *_STOP_WITH_US]

    def swarm_command(self, swarm: Swarm, *, gateway: str) -> list[str]:
        """Arguments of the clients of one site at one instance."""
        pki = self.pki(swarm.site.points[0])
        prefix = swarm.site.prefix
        share = len(swarm.clients) / self.clients
        return [
            "load",
            f"--target={gateway}",
            f"--server-name={HOST}",
            f"--ca={self.gateway_pki / 'gateway-ca.pem'}",
            f"--certificate={pki / 'client.pem'}",
            f"--key={pki / 'client.key'}",
            f"--path={prefix}/notifications",
            *(f"--kind={kind}" for kind in KINDS),
            f"--clients={len(swarm.clients)}",
            f"--first-client={swarm.clients.start}",
            f"--messages-per-client={0 if self.endless else 1}",
            f"--requests-per-s={REQUESTS_PER_S * share:.6f}",
            f"--request-path={prefix}/hello",
            f"--request-connections={_REQUEST_CONNECTIONS}",
            f"--admin-socket={self.admin_socket(swarm.name)}",
            "--processes=1",
            "--json",
            *_STOP_WITH_US,
        ]

    def curl_command(self, *, gateway: str) -> str:
        """A command line that sends one request the whole way."""
        site = self.topology.sites[0]
        port = gateway.rpartition(":")[2]
        pki = self.pki(site.points[0])
        return (
            f"curl --cacert {pki / 'gateway-ca.pem'} --cert {pki / 'client.pem'} "
            f"--key {pki / 'client.key'} https://{HOST}:{port}{site.prefix}/hello"
        )

    def push_command(self, *, role: str) -> str:
        """A command line that notifies every client of the role's site."""
        return f"curl --data news 'http://{role}/push?client=*'"

    def _configuration(self, name: str, settings: Mapping[str, Any]) -> str:
        path = self.folder / f"{name}.toml"
        path.write_text(to_toml(settings))
        return str(path)


def role_name(site: Site) -> str:
    """Name the process of a site's sample role."""
    return f"role-{site.code}"


def gateway_name(index: int) -> str:
    """Name the process of a gateway instance."""
    return f"gateway-{index}"


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

    A client costs the connection point its upstream connection, and the gateway, the role and the
    swarm one each; at worst one process of each has all of them.
    """
    return max(0, descriptor_limit - _DESCRIPTORS_BESIDE_CLIENTS)
