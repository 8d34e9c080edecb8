"""Native log records in Python's `logging`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from cmgmux import _logging, _native
from cmgmux.load import SampleRole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DEADLINE_S = 20.0


@pytest.fixture(autouse=True)
def _levels_as_before() -> Iterator[None]:
    """Leave the logger as it was."""
    level = _logging.logger.level
    yield
    _logging.logger.setLevel(level)
    _logging.follow_python_level()


async def provoke_a_record(folder: Path) -> None:
    """Have a native thread log at debug level: somebody talks nonsense to an admin socket."""
    admin = folder / "role.sock"
    async with SampleRole({"admin_socket": str(admin)}):
        with anyio.fail_after(DEADLINE_S):
            async with await anyio.connect_unix(admin) as stream:
                await stream.send(b"nonsense\r\n\r\n")
                async for _ in stream:
                    pass


@pytest.mark.anyio
async def test_native_records_arrive_with_level_name_and_fields(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with caplog.at_level(logging.DEBUG, "cmgmux"):
        await provoke_a_record(tmp_path)
    native = {record.getMessage(): record for record in caplog.records}
    record = native["admin connection failed"]
    assert (record.name, record.levelno) == ("cmgmux.net.admin", logging.DEBUG)
    assert vars(record)["fields"]["error"]
    assert abs(record.created - time.time()) < 3_600


@pytest.mark.anyio
async def test_records_below_the_loggers_level_are_not_even_made(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.CRITICAL, "cmgmux")
    await provoke_a_record(tmp_path)
    _logging.logger.setLevel(_logging.TRACE)
    port = _native.Port()
    assert port.drain() == []


def test_a_record_is_handed_to_its_own_logger(caplog: pytest.LogCaptureFixture) -> None:
    class Record:
        level = 20
        target = "cmgmux_net::driver"
        message = "100 % literal"
        fields: dict[str, int] = {"n": 1}  # noqa: RUF012 - stands for a native record
        time = 1_700_000_000.5

    caplog.set_level(logging.WARNING, "cmgmux.net")
    _logging.emit(Record())  # type: ignore[arg-type] # native records cannot be made in Python
    assert not caplog.records
    caplog.set_level(logging.INFO, "cmgmux.net")
    _logging.emit(Record())  # type: ignore[arg-type] # native records cannot be made in Python
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("cmgmux.net.driver", "100 % literal")
    assert (record.created, record.msecs) == (1_700_000_000.5, 500.0)
