"""asyncio and uvloop: the loop watches the port's descriptor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary, ref

from cmgmux import _logging
from cmgmux._native import LogRecord, Port
from cmgmux.exceptions import EventLoopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmgmux._backends import Event
    from cmgmux._native import ServiceEvent

_backends: WeakKeyDictionary[asyncio.AbstractEventLoop, AsyncioBackend] = WeakKeyDictionary()
"""The backends that have services. A loop that is closed and forgotten takes its own with it."""


def backend_of(loop: asyncio.AbstractEventLoop) -> AsyncioBackend:
    """Give the one backend of `loop`."""
    return _backends.get(loop) or AsyncioBackend(loop)


class AsyncioBackend:
    """One port, watched by one loop for as long as a service of the loop lives."""

    cancelled = asyncio.CancelledError

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch a new port with `loop`, which is the running one."""
        self.port = Port()
        self._loop = ref(loop)
        self._callbacks: dict[int, Callable[[ServiceEvent], None]] = {}
        _logging.follow_python_level()
        try:
            loop.add_reader(self.port.fileno(), self._pump)
        except NotImplementedError:
            raise EventLoopError(
                f"{type(loop).__name__} cannot watch file descriptors: use asyncio's selector "
                "event loop or uvloop"
            ) from None

    def subscribe(self, service: int, callback: Callable[[ServiceEvent], None]) -> None:
        """Call `callback` with each event of `service`."""
        self._callbacks[service] = callback
        if loop := self._loop():
            _backends[loop] = self

    def unsubscribe(self, service: int) -> None:
        """Forget `service`; with the last one, stop watching and let the port go."""
        if self._callbacks.pop(service, None) and not self._callbacks:
            if loop := self._loop():
                _backends.pop(loop, None)
                loop.remove_reader(self.port.fileno())
            for item in self.port.drain():
                if isinstance(item, LogRecord):
                    _logging.emit(item)
            self.port.close()

    def new_event(self) -> asyncio.Event:
        """A flag that is down."""
        return asyncio.Event()

    async def wait(self, event: Event, timeout_s: float | None) -> bool:
        """Wait until `event` is set, at most `timeout_s` seconds."""
        assert isinstance(event, asyncio.Event)  # noqa: S101 - ours, from new_event
        try:
            async with asyncio.timeout(timeout_s):
                await event.wait()
        except TimeoutError:
            return event.is_set()
        return True

    async def wait_shielded(self, event: Event, timeout_s: float) -> None:
        """Wait until `event` is set, at most `timeout_s` seconds, whoever cancels."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        waiter = loop.create_task(self.wait(event, timeout_s))
        cancelled = None
        while not waiter.done() and (left_s := deadline - loop.time()) > 0:
            try:
                await asyncio.wait({waiter}, timeout=left_s)
            except asyncio.CancelledError as error:
                cancelled = error
        waiter.cancel()
        if cancelled is not None:
            raise cancelled

    def _pump(self) -> None:
        for item in self.port.drain():
            if isinstance(item, LogRecord):
                _logging.emit(item)
            elif callback := self._callbacks.get(item.service):
                callback(item)
