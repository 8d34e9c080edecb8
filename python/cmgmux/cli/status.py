"""``cmgmux status``."""

from __future__ import annotations

import json as json_module
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console
from rich.table import Table

from cmgmux.admin import fetch_status
from cmgmux.exceptions import ConfigError, StatusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Rows = list[dict[str, Any]]


def status(
    first: Path,
    /,
    *others: Path,
    json: Annotated[bool, Parameter(negative="")] = False,
    timeout_s: float = 5.0,
    watch: Annotated[float | None, Parameter(validator=Number(gte=0.1, lte=3_600))] = None,
) -> int:
    """Show counters and state of running processes.

    Of several processes each is shown, even if another does not answer; the exit status is 1 then.

    Args:
        first: The admin socket of a process, or the configuration file that names it.
        others: Those of further processes.
        json: Print each status as one line of JSON; of several with its socket as ``socket``.
        timeout_s: How long each may take to answer.
        watch: Show them again and again, with this pause in seconds, until Ctrl-C or until none
            answers.
    """
    sockets = [_socket(where) for where in (first, *others)]
    console = Console(highlight=False)
    while True:
        if not json and watch is not None and console.is_terminal:
            console.clear()
        silent = [
            socket
            for socket in sockets
            if not _show(socket, console, json=json, timeout_s=timeout_s, alone=not others)
        ]
        if watch is None or len(silent) == len(sockets):
            return 1 if silent else 0
        time.sleep(watch)


def _show(socket: Path, console: Console, *, json: bool, timeout_s: float, alone: bool) -> bool:
    """Show one status; of several, say which one does not answer and go on.

    Raises:
        StatusError: The only one does not answer.
    """
    try:
        current = fetch_status(socket, timeout_s=timeout_s)
    except StatusError as error:
        if alone:
            raise
        print(f"cmgmux: {error}", file=sys.stderr)
        return False
    if json:
        named = current if alone else {"socket": str(socket), **current}
        print(json_module.dumps(named), flush=True)
        return True
    if not alone:
        console.rule(str(socket), align="left")
    for title, rows in sections(current):
        console.print(_table(title, rows))
    return True


def sections(status: Mapping[str, Any], title: str = "") -> Iterator[tuple[str, Rows]]:
    """Split a status into tables: single values, then each object and list of objects in it."""
    single, nested = _split(status)
    if single:
        yield title, [{"": key, " ": value} for key, value in single.items()]
    for key, value in nested.items():
        yield from _section(value, f"{title}.{key}".removeprefix("."))


def _section(value: Any, title: str) -> Iterator[tuple[str, Rows]]:
    if isinstance(value, dict):
        yield from sections(value, title)
        return
    parts = [_split(item) for item in value]
    yield title, [single for single, _ in parts]
    for index, (_, nested) in enumerate(parts):
        for key, inner in nested.items():
            yield from _section(inner, f"{title}[{index}].{key}")


def _split(status: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tell single values from objects and lists of objects."""
    single: dict[str, Any] = {}
    nested: dict[str, Any] = {}
    for key, value in status.items():
        is_table = isinstance(value, list) and value and isinstance(value[0], dict)
        target = nested if is_table or (isinstance(value, dict) and value) else single
        target[key] = value
    return single, nested


def _table(title: str, rows: Rows) -> Table:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = Table(title=title or None, title_justify="left", show_header=False)
    if keys == ["", " "]:
        lines = [[_cell(row[""]), _cell(row[" "])] for row in rows]
    else:
        lines = [keys, *([_cell(row.get(key)) for key in keys] for row in rows)]
        if len(keys) > len(rows):
            # The longer side goes down, so that a channel's many counters fit the screen.
            lines = [list(line) for line in zip(*lines, strict=True)]
    for line in lines:
        table.add_row(*line)
    return table


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case str():
            return value
        case float():
            return f"{value:.3f}"
        case _:
            return json_module.dumps(value)


def _socket(where: Path) -> Path:
    if where.is_socket():
        return where
    from cmgmux.config import load_any

    config = load_any(where)
    if config.admin_socket is None:
        raise ConfigError("is not set, so there is nothing to ask", key="admin_socket", path=where)
    return config.admin_socket
