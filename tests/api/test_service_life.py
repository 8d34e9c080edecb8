"""The life of a service in Python: start, status, stop, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import gc
import http.client
import os
import threading

import pytest

from cmgmux import _native
from cmgmux._backends import _asyncio
from cmgmux.exceptions import ConfigError, EventLoopError, ForkedError, UsageError
from cmgmux.load import SampleRole, Swarm

DEADLINE_S = 20.0


def hello(address: str) -> int:
    """Ask the role at `address` for its small answer."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    try:
        connection.request("GET", "/hello")
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.anyio
async def test_a_service_serves_while_it_is_entered() -> None:
    role = SampleRole({})
    async with role:
        assert await asyncio.to_thread(hello, role.address) == 200
        assert role.status()["requests"]["hello"] == 1
    with pytest.raises(OSError, match="refused"):
        hello(role.address)


@pytest.mark.anyio
async def test_the_last_status_stays_after_the_end() -> None:
    async with SampleRole({}) as role:
        await asyncio.to_thread(hello, role.address)
    assert role.status()["requests"]["hello"] == 1


@pytest.mark.anyio
async def test_a_wrong_setting_is_named_and_leaves_nothing_behind() -> None:
    with pytest.raises(ConfigError, match="listen: ") as caught:
        async with SampleRole({"listen": "nonsense"}):
            pytest.fail("must not start")
    assert caught.value.key == "listen"
    assert not _asyncio._backends


@pytest.mark.anyio
async def test_a_port_in_use_is_a_wrong_setting() -> None:
    async with SampleRole({}) as first:
        with pytest.raises(ConfigError, match=r"listen: .*in use"):
            async with SampleRole({"listen": first.address}):
                pytest.fail("must not start")
        assert await asyncio.to_thread(hello, first.address) == 200


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
    async with SampleRole({}) as role, asyncio.timeout(DEADLINE_S):
        waiter = asyncio.create_task(role.wait_ended())
        role.request_stop(0.0)
        await waiter
        await role.aclose()


@pytest.mark.anyio
async def test_waiting_for_the_end_can_be_cancelled_and_repeated() -> None:
    async with SampleRole({}) as role:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await role.wait_ended()
        assert await asyncio.to_thread(hello, role.address) == 200


@pytest.mark.anyio
async def test_a_start_that_is_cancelled_ends_in_the_background() -> None:
    role = SampleRole({})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await role.__aenter__()
    async with asyncio.timeout(DEADLINE_S):
        await role.wait_ended()
    assert not _asyncio._backends


@pytest.mark.anyio
async def test_several_services_share_one_port_and_let_it_go_in_the_end() -> None:
    async with SampleRole({}) as first, SampleRole({}) as second:
        assert first.address != second.address
        assert len(_asyncio._backends) == 1
    assert not _asyncio._backends


@pytest.mark.anyio
async def test_a_swarm_ends_by_itself_and_reports(pki: object) -> None:
    settings = {
        "target": "127.0.0.1:1",
        "server_name": "localhost",
        "ca": f"{pki}/gateway-ca.pem",
        "path": "/poll",
        "clients": 3,
    }
    async with Swarm(settings) as swarm, asyncio.timeout(DEADLINE_S):
        await swarm.wait_ended()
    report = swarm.report()
    assert (report["clients"], report["failed"]) == (3, 3)
    assert sum(report["reasons"].values()) == 3


def test_two_event_loops_have_their_own_services() -> None:
    both_run = threading.Barrier(2, timeout=DEADLINE_S)
    answers: list[int] = []

    async def serve() -> None:
        async with SampleRole({}) as role:
            await asyncio.to_thread(both_run.wait)
            answers.append(await asyncio.to_thread(hello, role.address))
            await asyncio.to_thread(both_run.wait)

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
        _, code = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(code) == 4
        assert await asyncio.to_thread(hello, role.address) == 200
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
