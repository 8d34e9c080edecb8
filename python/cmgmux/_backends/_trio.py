"""Trio: a system task watches the port's descriptor."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import trio

from cmgmux import _logging
from cmgmux._native import LogRecord, Port

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmgmux._backends import Event
    from cmgmux._native import ServiceEvent

_backends: dict[trio.lowlevel.TrioToken, TrioBackend] = {}
"""The backends that have services."""

_logger: Final = logging.getLogger("cmgmux.trio")


def backend_of(token: trio.lowlevel.TrioToken) -> TrioBackend:
    """Give the one backend of the run that `token` stands for."""
    return _backends.get(token) or TrioBackend(token)


class TrioBackend:
    """One port, watched by one run for as long as a service of the run lives."""

    cancelled = trio.Cancelled

    def __init__(self, token: trio.lowlevel.TrioToken) -> None:
        """Make a port; the first subscription starts the task that watches it."""
        self.port = Port()
        self._token = token
        self._callbacks: dict[int, Callable[[ServiceEvent], None]] = {}
        self._watching = trio.CancelScope()
        _logging.follow_python_level()

    def subscribe(self, service: int, callback: Callable[[ServiceEvent], None]) -> None:
        """Call `callback` with each event of `service`."""
        if not self._callbacks:
            _backends[self._token] = self
            trio.lowlevel.spawn_system_task(self._watch, name="cmgmux port")
        self._callbacks[service] = callback

    def unsubscribe(self, service: int) -> None:
        """Forget `service`; with the last one, stop watching and let the port go."""
        if self._callbacks.pop(service, None) and not self._callbacks:
            del _backends[self._token]
            self._watching.cancel()

    def new_event(self) -> trio.Event:
        """A flag that is down."""
        return trio.Event()

    async def wait(self, event: Event, timeout_s: float | None) -> bool:
        """Wait until `event` is set, at most `timeout_s` seconds."""
        assert isinstance(event, trio.Event)  # noqa: S101 - ours, from new_event
        with trio.move_on_after(float("inf") if timeout_s is None else timeout_s):
            await event.wait()
        return event.is_set()

    async def wait_shielded(self, event: Event, timeout_s: float) -> None:
        """Wait until `event` is set, at most `timeout_s` seconds, whoever cancels."""
        with trio.CancelScope(shield=True):
            await self.wait(event, timeout_s)

    async def _watch(self) -> None:
        """Hand out what arrives, until the last service is gone or the run ends."""
        try:
            with self._watching:
                while True:
                    await trio.lowlevel.wait_readable(self.port.fileno())
                    self._pump()
        finally:
            _backends.pop(self._token, None)
            self._pump()
            self.port.close()

    def _pump(self) -> None:
        for item in self.port.drain():
            try:
                if isinstance(item, LogRecord):
                    _logging.emit(item)
                elif callback := self._callbacks.get(item.service):
                    callback(item)
            except Exception:
                # Out of a system task it would take the whole run down.
                _logger.exception("an item of the port was not handled")
