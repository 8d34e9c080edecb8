"""Native log records become records of Python's `logging`, under the logger ``cmgmux``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from cmgmux import _native

if TYPE_CHECKING:
    from cmgmux._native import LogRecord

TRACE: Final = 5
"""The level below debug: a record for each frame."""

logger: Final = logging.getLogger("cmgmux")


def follow_python_level() -> None:
    """Have the native side make only records that the ``cmgmux`` logger would pass.

    Read once for each event loop, when its first service starts: set the logger's level before.
    """
    _native.set_log_level(min(logger.getEffectiveLevel(), 255))


def logger_name(target: str) -> str:
    """Name the logger of a Rust module: ``cmgmux_net::driver`` is ``cmgmux.net.driver``."""
    return target.replace("::", ".").replace("cmgmux_", "cmgmux.", 1)


def emit(record: LogRecord) -> None:
    """Hand `record` to its logger. Its values are the record's attribute ``fields``."""
    target = logging.getLogger(logger_name(record.target))
    if not target.isEnabledFor(record.level):
        return
    message = logging.LogRecord(
        target.name, record.level, "(native)", 0, record.message, None, None
    )
    message.fields = record.fields
    message.created = record.time
    message.msecs = record.time % 1 * 1000
    target.handle(message)
