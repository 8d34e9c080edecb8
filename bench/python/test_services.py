"""What services cost whoever embeds them: starting, connecting, asking for the status, stopping."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import anyio

from cmgmux import ConnectionPoint, Gateway, GatewayConfig, PointConfig

if TYPE_CHECKING:
    from pathlib import Path

    from bench.python.conftest import Benchmark, Run

ROUNDS = 20
DEADLINE_S = 20.0
LOOK_AGAIN_S = 0.001


def test_start_and_stop_a_gateway(benchmark: Benchmark, run: Run, gateway_file: Path) -> None:
    config = GatewayConfig.load(gateway_file)

    async def start_and_stop() -> None:
        async with Gateway(config):
            pass

    benchmark.pedantic(run, (start_and_stop,), rounds=ROUNDS, warmup_rounds=1)


def test_start_and_stop_a_point(benchmark: Benchmark, run: Run, point_file: Path) -> None:
    config = PointConfig.load(point_file)

    async def start_and_stop() -> None:
        async with ConnectionPoint(config):
            pass

    benchmark.pedantic(run, (start_and_stop,), rounds=ROUNDS, warmup_rounds=1)


def test_start_both_connect_and_stop(
    benchmark: Benchmark, run: Run, gateway_file: Path, point_file: Path
) -> None:
    async def connect_and_stop() -> None:
        async with AsyncExitStack() as stack:
            await connect(stack, gateway_file, point_file)

    benchmark.pedantic(run, (connect_and_stop,), rounds=ROUNDS, warmup_rounds=1)


def test_read_the_status_of_a_connected_gateway(
    benchmark: Benchmark, run: Run, gateway_file: Path, point_file: Path
) -> None:
    async def read() -> None:
        async with AsyncExitStack() as stack:
            gateway = await connect(stack, gateway_file, point_file)
            benchmark(gateway.status)

    run(read)


async def connect(stack: AsyncExitStack, gateway_file: Path, point_file: Path) -> Gateway:
    """Start both and wait until the channel is up."""
    gateway = await stack.enter_async_context(Gateway(GatewayConfig.load(gateway_file)))
    config = PointConfig.load(point_file)
    instance = config.instances[0].model_copy(update={"address": gateway.channel_address})
    config = config.model_copy(update={"instances": (instance,)})
    await stack.enter_async_context(ConnectionPoint(config))
    with anyio.fail_after(DEADLINE_S):
        while gateway.status()["state"] != "ready":  # noqa: ASYNC110 - it has no event
            await anyio.sleep(LOOK_AGAIN_S)
    return gateway
