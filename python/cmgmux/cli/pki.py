"""``cmgmux pki``."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cmgmux.pki import DevelopmentPki


def pki(
    folder: Path,
    /,
    *,
    site: str = DevelopmentPki.site,
    point: str = DevelopmentPki.point,
    server_name: list[str] | None = None,
    client: str = DevelopmentPki.client,
    days: int = DevelopmentPki.days,
    force: Annotated[bool, Parameter(negative="")] = False,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Make certificates for development: never use them in production.

    Writes an authority each for gateways, connection points and clients, and one certificate of
    each; prints the files written, one a line.

    Args:
        folder: Where to write; made if it is not there.
        site: The site of the connection point: three characters of A-Z and 0-9.
        point: The connection point's name within its site.
        server_name: A DNS name or IP address of the gateway; may be given several times.
        client: The client's common name.
        days: How long everything is valid.
        force: Replace what is there.
        json: Print one JSON object instead of a line a file.
    """
    names = tuple(server_name) if server_name else DevelopmentPki.server_names
    plan = DevelopmentPki(site=site, point=point, server_names=names, client=client, days=days)
    files = [str(path) for path in plan.write(folder, force=force)]
    print(json_module.dumps({"files": files}) if json else "\n".join(files))
