"""Several of everything: gateway instances, sites, connection points, and clients of them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from cmgmux.pki import DevelopmentPki
from tests.e2e.curl import Curl
from tests.e2e.path import SERVER_NAME, is_connected
from tests.e2e.processes import HOST, Service, free_address, split, to_toml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from tests.e2e.curl import Answer

SHARDS = 2
"""Of every process."""


@dataclass(frozen=True)
class Site:
    """A site: its code, its connection points, and what they publish."""

    code: str
    points: Sequence[str]
    mappings: Sequence[Mapping[str, Any]]


@dataclass
class Instance:
    """One gateway instance."""

    index: int
    clients: str = field(default_factory=free_address)
    channels: str = field(default_factory=free_address)


class Estate:
    """Gateway instances and the connection points of all sites. Leaving it ends them."""

    def __init__(self, folder: Path, curl: str, sites: Sequence[Site], *, instances: int) -> None:
        """Make the certificates; start nothing.

        Each connection point has an authority of its own, which the gateway trusts for its site.
        The first one of a site also has the authority of the site's clients.
        """
        self._folder = folder
        self._sites = sites
        self._stack = ExitStack()
        self.instances = [Instance(index) for index in range(instances)]
        self.gateways: list[Service] = []
        self.points: dict[str, Service] = {}
        for site in sites:
            for name in site.points:
                DevelopmentPki(site=site.code, point=name).write(self._pki(name))
        self._home = self._pki(sites[0].points[0])
        self._curl = Curl(curl, folder, self._home / "gateway-ca.pem")

    def __enter__(self) -> Self:
        """Start everything and wait until it is connected."""
        with ExitStack() as starting:
            starting.push(self._stack)
            for instance in self.instances:
                self.gateways.append(self._start_gateway(instance))
            for site in self._sites:
                for name in site.points:
                    self.start_point(name)
            for point in self.points.values():
                point.wait_for("all channels", is_connected)
            starting.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything, the last started first."""
        self._stack.__exit__(kind, error, traceback)

    def curl(self, path: str, *options: str, instance: int = 0, site: str | None = None) -> Answer:
        """Fetch `path` from an instance, with the certificate of a client of `site` if given."""
        port = split(self.instances[instance].clients)[1]
        if site is not None:
            pki = self._client_pki(site)
            options = (
                *options,
                "--cert",
                str(pki / "client.pem"),
                "--key",
                str(pki / "client.key"),
            )
        resolve = f"{SERVER_NAME}:{port}:{HOST}"
        url = f"https://{SERVER_NAME}:{port}{path}"
        return self._curl.start(url, "--resolve", resolve, *options).finish()

    @property
    def gateway_ca(self) -> Path:
        """The authority of the gateway's certificate."""
        return self._home / "gateway-ca.pem"

    def exchanges(self, point: str) -> int:
        """How many exchanges a connection point has served."""
        total: int = self.points[point].status()["exchanges"]["total"]
        return total

    def _pki(self, point: str) -> Path:
        return self._folder / f"pki-{point}"

    def _client_pki(self, code: str) -> Path:
        site = next(site for site in self._sites if site.code == code)
        return self._pki(site.points[0])

    def _start_gateway(self, instance: Instance) -> Service:
        trusted = [
            {"ca": str(self._pki(name) / "site-ca.pem"), "sites": [site.code]}
            for site in self._sites
            for name in site.points
        ]
        settings = {
            "index": instance.index,
            "listen": instance.clients,
            "channel_listen": instance.channels,
            "certificate": str(self._home / "gateway.pem"),
            "key": str(self._home / "gateway.key"),
            "shards": SHARDS,
            "admission_timeout_s": 0.5,
            "trusted": trusted,
        }
        return self._start(f"gateway-{instance.index}", "gateway", settings)

    def start_point(self, name: str) -> None:
        """Start a connection point, or start it again."""
        site = next(site for site in self._sites if name in site.points)
        pki = self._pki(name)
        settings = {
            "site": site.code,
            "certificate": str(pki / "connection-point.pem"),
            "key": str(pki / "connection-point.key"),
            "gateway_ca": str(self.gateway_ca),
            "client_roots": [str(self._client_pki(site.code) / "client-ca.pem")],
            "shards": SHARDS,
            "serial": 1,
            "reconnect_min_s": 0.05,
            "reconnect_max_s": 0.5,
            "instances": [
                {"index": each.index, "address": each.channels, "server_name": SERVER_NAME}
                for each in self.instances
            ],
            "mappings": [dict(mapping) for mapping in site.mappings],
        }
        self.points[name] = self._start(name, "connection-point", settings)

    def _start(self, name: str, command: str, settings: dict[str, Any]) -> Service:
        admin = self._folder / f"{name}.sock"
        file = self._folder / f"{name}.toml"
        file.write_text(to_toml({"admin_socket": str(admin), **settings}))
        arguments = [command, str(file), "--log-level=debug", "--grace-s=2"]
        return self._stack.enter_context(Service(name, arguments, self._folder, admin)).started()
