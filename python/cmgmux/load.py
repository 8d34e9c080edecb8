"""The sample role and the client swarm, for demo, tests and load measurements."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cmgmux import _native
from cmgmux._service import DEFAULT_GRACE_S, Service

if TYPE_CHECKING:
    from collections.abc import Mapping


class SampleRole(Service):
    """An HTTP service that holds notification streams and takes pushes for their clients."""

    def __init__(self, settings: Mapping[str, Any], *, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Prepare a role; unset settings have their native defaults."""
        self._role = _native.SampleRole(json.dumps(dict(settings), default=str))
        super().__init__(self._role, grace_s=grace_s)

    @property
    def address(self) -> str:
        """Where it listens, as ``address:port``."""
        return self._role.address()


class Swarm(Service):
    """Many clients that hold notification streams through a gateway, and requests beside them.

    Each client has its own TLS connection. It ends by itself when its last client has, or when the
    requests have gone on for their duration.
    """

    def __init__(self, settings: Mapping[str, Any], *, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Prepare a swarm; unset settings have their native defaults."""
        self._swarm = _native.Swarm(json.dumps(dict(settings), default=str))
        super().__init__(self._swarm, grace_s=grace_s)

    def report(self) -> dict[str, Any]:
        """Say what has become of the clients so far; final once the swarm has ended."""
        report: dict[str, Any] = json.loads(self._swarm.report())
        return report
