"""What the commands write to standard error: log records as text or as JSON, one a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

from cmgmux._logging import TRACE

if TYPE_CHECKING:
    from collections.abc import Mapping

LogFormat = Literal["text", "json"]
LogLevel = Literal["error", "warning", "info", "debug", "trace"]

_LEVELS: Final[Mapping[str, int]] = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
}
_PLAIN: Final = frozenset("-._:/@+")


def set_up(log_format: LogFormat, log_level: LogLevel) -> None:
    """Write records of ``cmgmux`` from `log_level` upwards to standard error."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logger = logging.getLogger("cmgmux")
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(_LEVELS[log_level])


class TextFormatter(logging.Formatter):
    """``time LEVEL logger: message key=value``; values that are not plain words are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line for `record`."""
        values = "".join(f" {key}={_quoted(value)}" for key, value in _fields(record).items())
        text = f"{_time(record)} {record.levelname:<7} {record.name}: {record.getMessage()}{values}"
        return (
            text if record.exc_info is None else f"{text}\n{self.formatException(record.exc_info)}"
        )


class JsonFormatter(logging.Formatter):
    """One object with ``ts``, ``level``, ``logger``, ``msg`` and the record's own values."""

    def format(self, record: logging.LogRecord) -> str:
        """Give the line for `record`."""
        line: dict[str, Any] = {
            "ts": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info is not None:
            line["exception"] = self.formatException(record.exc_info)
        for key, value in _fields(record).items():
            line[f"field.{key}" if key in line else key] = value
        return json.dumps(line, ensure_ascii=False, default=str)


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _time(record: logging.LogRecord) -> str:
    time = datetime.fromtimestamp(record.created, UTC)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _quoted(value: object) -> str:
    text = str(value)
    plain = text and all(letter.isalnum() or letter in _PLAIN for letter in text)
    return text if plain else json.dumps(text, ensure_ascii=False)
