"""How log lines look."""

from __future__ import annotations

import json
import logging
from typing import Any

from cmgmux import _logging
from cmgmux.cli.logs import JsonFormatter, TextFormatter


def record(message: str, **fields: Any) -> logging.LogRecord:
    """A record with a fixed time."""
    made = logging.LogRecord("cmgmux.net.driver", logging.INFO, "", 0, message, None, None)
    made.created = 1_700_000_000.0625
    made.fields = fields
    return made


def test_text_lines_quote_what_is_no_plain_word() -> None:
    line = TextFormatter().format(
        record("opened", address="[::1]:443", peer="NYC/cp1", why='said "no"\n', empty="", n=3)
    )
    assert line == (
        "2023-11-14T22:13:20.062Z INFO    cmgmux.net.driver: opened "
        'address="[::1]:443" peer=NYC/cp1 why="said \\"no\\"\\n" empty="" n=3'
    )


def test_json_lines_are_one_object_that_no_value_can_forge() -> None:
    line = JsonFormatter().format(record("opened", msg="fake", text="a\nb", ok=True))
    assert "\n" not in line
    assert json.loads(line) == {
        "ts": "2023-11-14T22:13:20.062Z",
        "level": "info",
        "logger": "cmgmux.net.driver",
        "msg": "opened",
        "field.msg": "fake",
        "text": "a\nb",
        "ok": True,
    }


def test_records_of_others_have_no_fields() -> None:
    other = logging.LogRecord("cmgmux", logging.ERROR, "", 0, "%d left", (3,), None)
    assert TextFormatter().format(other).endswith("ERROR   cmgmux: 3 left")


def test_rust_modules_become_child_loggers() -> None:
    assert _logging.logger_name("cmgmux_net::driver") == "cmgmux.net.driver"
    assert _logging.logger_name("cmgmux_mux") == "cmgmux.mux"
