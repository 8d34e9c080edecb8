"""A development PKI in a folder: three authorities and one certificate of each.

Not for production: the authorities' keys lie beside what they issue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmgmux import _native
from cmgmux.exceptions import PkiError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class DevelopmentPki:
    """What the certificates are to say."""

    site: str = "NYC"
    """The site of the connection point: three characters of A-Z and 0-9."""
    point: str = "cp1"
    """The connection point's name within its site."""
    server_names: Sequence[str] = ("localhost", "127.0.0.1", "::1")
    """What the gateway is reached by: DNS names and IP addresses."""
    client: str = "client"
    """The client's common name."""
    days: int = 365
    """How long everything is valid, 1 to 36,500."""

    def write(self, folder: Path, *, force: bool = False) -> list[Path]:
        """Make the certificates and write them to `folder`, which is made if need be.

        Private keys are readable by their owner alone.

        Returns:
            The files written.

        Raises:
            PkiError: A file is there already and `force` is false (nothing is written then), or
                a name or time cannot be used.
            OSError: A file cannot be written.
        """
        texts = {folder / name: text for name, text in self._make()}
        if not force and (there := [path.name for path in texts if path.exists()]):
            raise PkiError(f"{folder}: {', '.join(there)} exist already; --force replaces them")
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            if path.suffix == ".key":
                _native.write_private(path, text)
            else:
                path.write_text(text)
        return list(texts)

    def _make(self) -> Iterator[tuple[str, str]]:
        authorities = {}
        for kind in ("gateway", "site", "client"):
            authority = _native.Authority(f"cmgmux development {kind} CA", days=self.days)
            authorities[kind] = authority
            yield from _named(f"{kind}-ca", authority.pem())
        server = authorities["gateway"].issue_server(list(self.server_names))
        point = authorities["site"].issue_connection_point(self.site, self.point)
        yield from _named("gateway", server)
        yield from _named("connection-point", point)
        yield from _named("client", authorities["client"].issue_client(self.client))


def _named(name: str, pair: tuple[str, str]) -> Iterator[tuple[str, str]]:
    certificate, key = pair
    yield f"{name}.pem", certificate
    yield f"{name}.key", key
