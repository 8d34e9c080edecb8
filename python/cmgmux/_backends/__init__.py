"""What differs between event loops, behind one interface."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from cmgmux.exceptions import EventLoopError

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmgmux._native import Port, ServiceEvent


class Event(Protocol):
    """A flag that tasks can wait for."""

    def set(self) -> None:
        """Raise the flag and wake everybody who waits. Only on the loop's thread."""

    def is_set(self) -> bool:
        """Whether the flag is up."""


class Backend(Protocol):
    """One event loop and its native port."""

    @property
    def port(self) -> Port:
        """Where services of this loop report to."""

    @property
    def cancelled(self) -> type[BaseException]:
        """What a wait raises when it is cancelled."""

    def subscribe(self, service: int, callback: Callable[[ServiceEvent], None]) -> None:
        """Call `callback` on the loop's thread with each event of `service`.

        Until its last subscription is gone the backend watches the port.
        """

    def unsubscribe(self, service: int) -> None:
        """Forget `service`."""

    def new_event(self) -> Event:
        """A flag that is down."""

    async def wait(self, event: Event, timeout_s: float | None) -> bool:
        """Wait until `event` is set, at most `timeout_s` seconds. False if it is still down.

        Cancelling loses nothing.
        """

    async def wait_shielded(self, event: Event, timeout_s: float) -> None:
        """Wait until `event` is set, at most `timeout_s` seconds, even if cancelled.

        A cancellation that arrives meanwhile is raised afterwards.
        """


def current() -> Backend:
    """Give the backend of the event loop that runs in this thread.

    Neither loop's library is imported before it runs. Inside Trio's guest mode, Trio's tasks are
    Trio's and the host's are asyncio's.

    Raises:
        EventLoopError: None runs, or one of a kind that is not supported.
    """
    if (trio := sys.modules.get("trio")) and trio.lowlevel.in_trio_task():
        from cmgmux._backends import _trio

        return _trio.backend_of(trio.lowlevel.current_trio_token())
    if asyncio := sys.modules.get("asyncio"):
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            from cmgmux._backends import _asyncio

            return _asyncio.backend_of(loop)
    raise EventLoopError(
        "no event loop is running in this thread: "
        "cmgmux works on asyncio, with or without uvloop, and on Trio"
    )
