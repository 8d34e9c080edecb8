"""The life of a service in Python: start, status, stop, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import pytest
import trio

from cmgmux import _native
from cmgmux._backends import _asyncio, _trio
from cmgmux.exceptions import ConfigError, EventLoopError, ForkedError, UsageError
from cmgmux.load import SampleRole, Swarm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEADLINE_S = 20.0


def hello(address: str) -> int:
    """Ask the role at `address` for its small answer."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/hello")
        return connection.getresponse().status
    finally:
        connection.close()


@contextmanager
def unread_answer(address: str) -> Iterator[None]:
    """Have the role at `address` give an answer that nobody reads, and that its end waits for."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request("GET", f"/bytes?n={1 << 30}")
        connection.getresponse().read(1)
        yield
    finally:
        connection.close()


def no_backend_is_left() -> bool:
    """Whether every event loop has let its port go."""
    return not _asyncio._backends and not _trio._backends


@pytest.mark.anyio
async def test_a_service_serves_while_it_is_entered() -> None:
    role = SampleRole({})
    async with role:
        assert await anyio.to_thread.run_sync(hello, role.address) == 200
        assert role.status()["requests"]["hello"] == 1
    with pytest.raises(OSError, match="refused"):
        hello(role.address)


@pytest.mark.anyio
async def test_the_last_status_stays_after_the_end() -> None:
    async with SampleRole({}) as role:
        await anyio.to_thread.run_sync(hello, role.address)
    assert role.status()["requests"]["hello"] == 1


@pytest.mark.anyio
async def test_a_wrong_setting_is_named_and_leaves_nothing_behind() -> None:
    with pytest.raises(ConfigError, match="listen: ") as caught:
        async with SampleRole({"listen": "nonsense"}):
            pytest.fail("must not start")
    assert caught.value.key == "listen"
    assert no_backend_is_left()


@pytest.mark.anyio
async def test_a_port_in_use_is_a_wrong_setting() -> None:
    async with SampleRole({}) as first:
        with pytest.raises(ConfigError, match=r"listen: .*in use"):
            async with SampleRole({"listen": first.address}):
                pytest.fail("must not start")
        assert await anyio.to_thread.run_sync(hello, first.address) == 200


def test_settings_that_do_not_fit_are_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="unknown field `lisen`"):
        SampleRole({"lisen": "127.0.0.1:0"})


@pytest.mark.anyio
async def test_a_service_runs_once() -> None:
    role = SampleRole({})
    async with role:
        with pytest.raises(UsageError, match="once"):
            await role.__aenter__()
    with pytest.raises(UsageError, match="once"):
        await role.__aenter__()


@pytest.mark.anyio
async def test_stopping_wakes_who_waits_for_the_end() -> None:
    async with SampleRole({}) as role, anyio.create_task_group() as tasks:
        tasks.start_soon(role.wait_ended)
        await anyio.lowlevel.checkpoint()
        role.request_stop(0.0)
        with anyio.fail_after(DEADLINE_S):
            await role.wait_ended()
            await role.aclose()


@pytest.mark.anyio
async def test_waiting_for_the_end_can_be_cancelled_and_repeated() -> None:
    async with SampleRole({}) as role:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0):
                    await role.wait_ended()
        assert await anyio.to_thread.run_sync(hello, role.address) == 200


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_leaves_nothing_behind() -> None:
    role = SampleRole({})
    with pytest.raises(TimeoutError):
        with anyio.fail_after(0):
            await role.__aenter__()
    with anyio.fail_after(DEADLINE_S):
        await role.wait_ended()
    assert no_backend_is_left()


@pytest.mark.anyio
async def test_a_cancelled_block_gives_up_its_grace_and_has_ended() -> None:
    role = SampleRole({}, grace_s=3_600.0)
    with anyio.CancelScope() as scope:
        async with role:
            address = role.address
            scope.cancel()
            await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert no_backend_is_left()
    with pytest.raises(OSError, match="refused"):
        hello(address)


@pytest.mark.anyio
async def test_closing_inside_a_cancelled_scope_still_ends_the_service() -> None:
    async with SampleRole({}, grace_s=3_600.0) as role:
        with unread_answer(role.address), anyio.CancelScope() as scope:
            scope.cancel()
            await role.aclose()
        assert scope.cancelled_caught
        assert no_backend_is_left()


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("loop", [asyncio.run, trio.run])
def test_ctrl_c_leaves_no_service_behind(loop: Callable[..., object]) -> None:
    addresses: list[str] = []

    async def serve() -> None:
        async with SampleRole({}, grace_s=3_600.0) as role:
            addresses.append(role.address)
            signal.raise_signal(signal.SIGINT)
            await role.wait_ended()

    with pytest.raises(KeyboardInterrupt):
        loop(serve) if loop is trio.run else loop(serve())
    assert no_backend_is_left()
    with pytest.raises(OSError, match="refused"):
        hello(addresses[0])


def test_a_trio_run_that_ends_while_a_service_runs_lets_its_port_go() -> None:
    role = SampleRole({})
    trio.run(role.__aenter__)
    assert no_backend_is_left()
    assert hello(role.address) == 200
    role.request_stop(0.0)


@pytest.mark.anyio
async def test_several_services_share_one_port_and_let_it_go_in_the_end() -> None:
    async with SampleRole({}) as first, SampleRole({}) as second:
        assert first.address != second.address
        assert len(_asyncio._backends) + len(_trio._backends) == 1
    assert no_backend_is_left()


@pytest.mark.anyio
async def test_a_swarm_ends_by_itself_and_reports(pki: object) -> None:
    settings = {
        "target": "127.0.0.1:1",
        "server_name": "localhost",
        "ca": f"{pki}/gateway-ca.pem",
        "path": "/notifications",
        "clients": 3,
    }
    async with Swarm(settings) as swarm:
        with anyio.fail_after(DEADLINE_S):
            await swarm.wait_ended()
    report = swarm.report()
    assert (report["clients"], report["failed"]) == (3, 3)
    assert sum(report["reasons"].values()) == 3


def test_two_event_loops_have_their_own_services() -> None:
    both_run = threading.Barrier(2, timeout=DEADLINE_S)
    answers: list[int] = []

    async def serve() -> None:
        async with SampleRole({}) as role:
            await anyio.to_thread.run_sync(both_run.wait)
            answers.append(await anyio.to_thread.run_sync(hello, role.address))
            await anyio.to_thread.run_sync(both_run.wait)

    threads = [threading.Thread(target=asyncio.run, args=(serve(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert answers == [200, 200]


def test_without_an_event_loop_the_error_says_so() -> None:
    coroutine = SampleRole({}).__aenter__()
    with pytest.raises(EventLoopError, match="asyncio"):
        coroutine.send(None)


def test_what_never_ran_has_no_status_and_can_be_stopped() -> None:
    role = SampleRole({})
    with pytest.raises(UsageError, match="not running"):
        role.status()
    role.request_stop(0.0)


@pytest.mark.parametrize("grace_s", [-1.0, float("nan"), float("inf")])
def test_a_grace_that_is_no_time_is_refused(grace_s: float) -> None:
    with pytest.raises(UsageError, match="no length of time"):
        SampleRole({}).request_stop(grace_s)


@pytest.mark.anyio
async def test_handles_are_dead_in_a_forked_child() -> None:
    async with SampleRole({}) as role:
        port = _native.Port()
        child = os.fork()
        if child == 0:
            refused = 0
            for call in (role.status, port.drain, port.close, lambda: role.request_stop(0.0)):
                try:
                    call()
                except ForkedError:
                    refused += 1
            os._exit(refused)
        _, code = await anyio.to_thread.run_sync(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(code) == 4
        assert await anyio.to_thread.run_sync(hello, role.address) == 200
        port.close()


def test_a_forked_child_can_run_services_of_its_own() -> None:
    child = os.fork()
    if child == 0:
        answer = 0

        async def serve() -> None:
            nonlocal answer
            async with SampleRole({}) as role:
                answer = hello(role.address)

        asyncio.run(serve())
        os._exit(answer // 10)
    _, code = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(code) == 20


def test_a_service_that_is_forgotten_stops() -> None:
    port = _native.Port()
    role = _native.SampleRole("{}")
    role.start(port)
    events = wait_for_events(port, 1)
    address = role.address()
    del role
    gc.collect()
    events += wait_for_events(port, 1)
    assert [event.kind for event in events] == ["started", "ended"]
    with pytest.raises(OSError, match="refused"):
        hello(address)


def wait_for_events(port: _native.Port, count: int) -> list[_native.ServiceEvent]:
    """Wait until `port` has delivered `count` events of services."""
    import select

    events: list[_native.ServiceEvent] = []
    while len(events) < count:
        readable, _, _ = select.select([port.fileno()], [], [], DEADLINE_S)
        assert readable, f"only {events} within {DEADLINE_S} s"
        items = port.drain()
        events += [item for item in items if isinstance(item, _native.ServiceEvent)]
    return events
