"""The two reference topologies, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

TopologyName = Literal["example1", "example2"]


@dataclass(frozen=True)
class Site:
    """A site with its own sample role and clients."""

    code: str
    points: tuple[str, ...]
    """The names of its connection points."""
    prefix: str
    """The external path of its role."""


@dataclass(frozen=True)
class Topology:
    """Gateway instances, and the sites whose connection points dial each of them."""

    instances: int
    sites: tuple[Site, ...]


TOPOLOGIES: Final[dict[TopologyName, Topology]] = {
    # One site; its traffic goes through both connection points.
    "example1": Topology(2, (Site("NYC", ("nyc1", "nyc2"), "/CCM_Proxy_MutualAuth/1"),)),
    # A hierarchy: two primary sites share the gateway, each has a connection point of its own.
    "example2": Topology(
        2,
        (
            Site("SEA", ("sea1",), "/CCM_Proxy_MutualAuth/1"),
            Site("PAR", ("par1",), "/CCM_Proxy_MutualAuth/2"),
        ),
    ),
}
