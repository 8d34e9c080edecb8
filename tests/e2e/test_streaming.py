"""Exchanges that stay open: server-sent events and WebSocket, with an ASGI server as the role."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Subprotocol

from tests.e2e.path import GatedPath, mapping
from tests.e2e.processes import DEADLINE_S, Process, accepts, free_address, split, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.asyncio.client import ClientConnection


pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The client is asyncio's."""
    return "asyncio"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory, pki: Path, curl: str) -> Iterator[GatedPath]:
    """A path to an ASGI server."""
    folder = tmp_path_factory.mktemp("streaming")
    address = free_address()
    host, port = split(address)
    command = [sys.executable, "-m", "uvicorn", "tests.e2e.asgi:app", f"--host={host}"]
    command += [f"--port={port}", "--http=h11", "--ws=websockets-sansio", "--lifespan=off"]
    with Process("asgi", command, folder) as role:
        wait_until("the role serves", lambda: accepts(address), watched=[role])
        mappings = [mapping("/live", address, hold=True), mapping("/brief", address)]
        with GatedPath(folder, pki, curl, mappings).running() as path:
            yield path


@pytest.fixture
def tls(pki: Path) -> ssl.SSLContext:
    """What a client trusts."""
    return ssl.create_default_context(cafile=pki / "gateway-ca.pem")


@pytest.fixture(params=[False, True], ids=["h1", "h2"])
def http(
    request: pytest.FixtureRequest, path: GatedPath, tls: ssl.SSLContext
) -> Iterator[httpx.Client]:
    """A client of either version."""
    with httpx.Client(
        base_url=path.url(""), verify=tls, http2=request.param, timeout=DEADLINE_S, trust_env=False
    ) as http:
        yield http


def websocket(path: GatedPath, tls: ssl.SSLContext, target: str) -> connect:
    """Open a WebSocket to `target`.

    The library's other client has two threads read and write one TLS connection at the same time,
    which Python's `ssl` does not stand up to before 3.13.
    """
    return connect(
        path.url(target).replace("https:", "wss:"),
        ssl=tls,
        subprotocols=[Subprotocol("chat.v1")],
        open_timeout=DEADLINE_S,
        proxy=None,
    )


async def receive(chat: ClientConnection) -> str | bytes:
    """Receive a message."""
    async with asyncio.timeout(DEADLINE_S):
        return await chat.recv()


def test_each_event_arrives_before_the_next_is_made(http: httpx.Client) -> None:
    with http.stream("GET", "/live/events") as answer:
        assert answer.headers["content-type"] == "text/event-stream"
        events = answer.iter_text()
        for number in range(5):
            assert http.post("/live/tell", content=f"event {number}").text == "told"
            assert next(events) == f"data: event {number}\n\n"
        http.post("/live/tell", content="end")
        assert list(events) == ["data: end\n\n"]


def test_an_upload_is_digested_piece_by_piece(http: httpx.Client) -> None:
    piece = bytes(range(256)) * 256
    digest = hashlib.sha256(piece * 64).hexdigest()
    answer = http.post("/brief/digest", content=(piece for _ in range(64)))
    assert answer.text == digest


@pytest.mark.parametrize("prefix", ["/live", "/brief"])
async def test_messages_pass_both_ways(path: GatedPath, tls: ssl.SSLContext, prefix: str) -> None:
    async with websocket(path, tls, f"{prefix}/chat") as chat:
        assert chat.subprotocol == "chat.v1"
        messages: list[str | bytes] = ["hello", "x" * 200_000, b"\x00\xff" * 50_000, ""]
        for message in messages:
            await chat.send(message)
            assert await receive(chat) == message
        async with asyncio.timeout(DEADLINE_S):
            await (await chat.ping())
        # The role's own code and reason arrive.
        await chat.send("close")
        with pytest.raises(ConnectionClosedError) as closed:
            await receive(chat)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "as asked")


async def test_a_role_that_does_not_consent_answers_for_itself(
    path: GatedPath, tls: ssl.SSLContext
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await websocket(path, tls, "/live/elsewhere")
    assert refused.value.response.status_code == 403
    assert "proxy-status" not in refused.value.response.headers


async def test_what_is_not_mapped_is_refused_by_the_gateway(
    path: GatedPath, tls: ssl.SSLContext
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await websocket(path, tls, "/nowhere")
    assert refused.value.response.status_code == 404
    assert refused.value.response.headers["proxy-status"].startswith("cmgmux-gateway;")


async def test_a_killed_connection_point_ends_a_websocket_and_leaves_nothing(
    path: GatedPath, tls: ssl.SSLContext
) -> None:
    def held(status: dict[str, Any]) -> int:
        return sum(shard["exchanges_open"] for shard in status["shards"])

    path.gateway.wait_for("nothing held", lambda status: held(status) == 0)
    async with AsyncExitStack() as stack:
        chats = [
            await stack.enter_async_context(websocket(path, tls, "/live/chat")) for _ in range(20)
        ]
        path.point.wait_for("all held", lambda status: status["exchanges"]["open"] == 20)
        path.point.kill()
        path.start_point()
        for chat in chats:
            with pytest.raises(ConnectionClosedError):
                await receive(chat)
    path.gateway.wait_for("nothing held", lambda status: held(status) == 0)
    path.wait_connected()
    async with websocket(path, tls, "/live/chat") as chat:
        await chat.send("again")
        assert await receive(chat) == "again"
