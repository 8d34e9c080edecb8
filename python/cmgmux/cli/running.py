"""How the long-running commands run a service, and how they end."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter
from cyclopts.validators import Number

from cmgmux.cli import logs, memory
from cmgmux.cli.logs import LogFormat, LogLevel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cmgmux._service import Service

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

logger = logging.getLogger("cmgmux.cli")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of every long-running command."""

    log_format: LogFormat = "text"
    """How log lines look on standard error."""
    log_level: LogLevel = "info"
    """The least important records to write."""
    grace_s: Annotated[float, Parameter(validator=Number(gte=0, lte=86_400))] = 10.0
    """How many seconds exchanges get to finish when the process is told to stop."""
    stop_at_eof: Annotated[bool, Parameter(negative="")] = False
    """Also stop when standard input ends, so that the process does not outlive what started it."""


def run_service(
    make: Callable[[], Service],
    options: RunOptions,
    started: Callable[[Service], dict[str, Any]] = lambda _: {},
) -> None:
    """Run the service that `make` makes until it ends, or SIGINT or SIGTERM stops it.

    A second signal ends the process at once. What `started` returns is logged when it runs.

    Raises:
        ConfigError: A setting cannot be used.
        ServiceError: The service ended by itself.
    """
    logs.set_up(options.log_format, options.log_level)
    raise_descriptor_limit()
    asyncio.run(_run(make(), options, started))


async def _run(
    service: Service, options: RunOptions, started: Callable[[Service], dict[str, Any]]
) -> None:
    def stop(reason: str) -> None:
        logger.info("stopping", extra={"fields": {"reason": reason, "grace_s": options.grace_s}})
        service.request_stop(options.grace_s)

    with _stop_signals(stop):
        if options.stop_at_eof:
            _watch_standard_input(stop)
        async with service:
            logger.info("started", extra={"fields": started(service)})
            keeping = asyncio.create_task(memory.give_back())
            try:
                await service.wait_ended()
            finally:
                keeping.cancel()
    logger.info("stopped")


@contextmanager
def _stop_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Call `stop` at the first signal; leave the second to the system."""
    loop = asyncio.get_running_loop()

    def handle(number: signal.Signals) -> None:
        give_back()
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        stop(number.name)

    def give_back() -> None:
        for each in _SIGNALS:
            loop.remove_signal_handler(each)

    for number in _SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        give_back()


def _watch_standard_input(stop: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()

    def watch() -> None:
        with suppress(OSError):  # no standard input is an ended one
            while os.read(0, 4096):
                pass
        with suppress(RuntimeError):  # the loop is closed: the process ends already
            loop.call_soon_threadsafe(stop, "end of standard input")

    threading.Thread(target=watch, name="standard-input", daemon=True).start()


@contextmanager
def interruptible() -> Iterator[None]:
    """Have SIGTERM unwind as Ctrl-C does, and both also where a shell has switched Ctrl-C off."""
    before = [(number, signal.signal(number, signal.default_int_handler)) for number in _SIGNALS]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def raise_descriptor_limit() -> int:
    """Allow this process as many open descriptors as it may have, and return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
