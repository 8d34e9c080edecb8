"""The life of a native service, written once for every kind of service and event loop."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from cmgmux import _backends
from cmgmux.exceptions import ConfigError, ServiceError, UsageError

if TYPE_CHECKING:
    from types import TracebackType

    from cmgmux._native import Port, ServiceEvent

DEFAULT_GRACE_S: Final = 10.0
"""How long a stopped service lets exchanges finish before it resets them."""

_STOP_MARGIN_S: Final = 30.0
"""How much longer than the grace a service may take to end before that is an error."""


class NativeService(Protocol):
    """What the classes of `_native` have in common."""

    @property
    def id(self) -> int:
        """The number that the events of this service carry."""

    def start(self, port: Port, /) -> None:
        """Start on a thread of its own."""

    def status(self) -> str:
        """Counters and state as a JSON object."""

    def request_stop(self, grace_s: float, /) -> None:
        """Begin to stop."""


class Service:
    """An asynchronous context manager around a native service.

    Entering starts it and waits until its listeners accept; leaving stops it and waits until it
    has ended. A service runs once. All methods belong to the event loop that entered, except
    `status` and `request_stop`, which any thread may call at any time.

    Cancelling means the same on asyncio, uvloop and Trio. A block that is left by a cancellation or
    by Ctrl-C gives up the grace: what is under way is reset, and the cancellation goes on when the
    service has ended, its sockets closed. To be graceful then, call `aclose` before, shielded.
    A service that is left running when its loop closes stops when it is forgotten.
    """

    def __init__(self, native: NativeService, *, grace_s: float = DEFAULT_GRACE_S) -> None:
        """Wrap `native`, which is not started yet."""
        self._native = native
        self._grace_s = grace_s
        self._backend: _backends.Backend | None = None
        self._started: _backends.Event
        self._ended: _backends.Event
        self._failure: Exception | None = None

    async def __aenter__(self) -> Self:
        """Start. Cancelling stops what has started by then, and waits for that.

        Raises:
            ConfigError: A setting cannot be used; it is named.
            ServiceError: Something else is in the way.
        """
        if self._backend is not None:
            raise UsageError("a service runs once: create another")
        self._backend = backend = _backends.current()
        self._started, self._ended = backend.new_event(), backend.new_event()
        backend.subscribe(self._native.id, self._handle_event)
        try:
            self._native.start(backend.port)
        except BaseException:
            backend.unsubscribe(self._native.id)
            raise
        try:
            await backend.wait(self._started, None)
        except BaseException as error:
            await self._abandon(backend, error)
            raise
        if self._failure is not None:
            raise self._failure
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop and wait for the end; without the grace if the block was cancelled."""
        assert self._backend is not None  # noqa: S101 - entered before
        abrupt = isinstance(error, (self._backend.cancelled, KeyboardInterrupt))
        await self.aclose(grace_s=0.0 if abrupt else None)

    async def aclose(self, *, grace_s: float | None = None) -> None:
        """Stop: nothing new is accepted, what is under way may finish within `grace_s` seconds.

        Closing what has ended is fine. Cancelling gives up the grace: what is under way is reset,
        and the cancellation goes on when the service has ended, or has not for half a minute.

        Raises:
            ServiceError: It ended by itself before, or does not end.
        """
        grace_s = self._grace_s if grace_s is None else grace_s
        self.request_stop(grace_s)
        try:
            ended = await self._wait(grace_s + _STOP_MARGIN_S)
        except BaseException as error:
            if self._backend is not None and not self._ended.is_set():
                await self._abandon(self._backend, error)
            raise
        if not ended:
            raise ServiceError(
                f"the service did not end within {grace_s + _STOP_MARGIN_S:g} s of being stopped"
            )

    def request_stop(self, grace_s: float) -> None:
        """Begin to stop and return at once. A second call can only shorten the grace."""
        self._native.request_stop(grace_s)

    async def wait_ended(self) -> None:
        """Wait until the service has ended. Cancelling loses nothing.

        Raises:
            ServiceError: It ended by itself.
        """
        await self._wait(None)

    def status(self) -> dict[str, Any]:
        """Give counters and state as of now: what the admin socket serves.

        Raises:
            UsageError: It never ran.
        """
        status: dict[str, Any] = json.loads(self._native.status())
        return status

    async def _wait(self, timeout_s: float | None) -> bool:
        if self._backend is None:
            raise UsageError("not started: use `async with`")
        ended = await self._backend.wait(self._ended, timeout_s)
        if ended and self._failure is not None:
            raise self._failure
        return ended

    async def _abandon(self, backend: _backends.Backend, error: BaseException) -> None:
        """Reset everything and wait for the end, whatever else `error` cancels."""
        self._native.request_stop(0.0)
        if not isinstance(error, GeneratorExit):  # a coroutine that is thrown away cannot wait
            await backend.wait_shielded(self._ended, _STOP_MARGIN_S)

    def _config_error(self, key: str, reason: str) -> ConfigError:
        """Build the error about a setting; a subclass that knows its file adds it."""
        return ConfigError(reason, key=key)

    def _handle_event(self, event: ServiceEvent) -> None:
        if event.kind == "started":
            self._started.set()
            return
        if event.key is not None:
            self._failure = self._config_error(event.key, event.message or "")
        elif event.message is not None:
            self._failure = ServiceError(event.message)
        self._started.set()
        self._ended.set()
        assert self._backend is not None  # noqa: S101 - events come after the start
        self._backend.unsubscribe(event.service)
