"""A role as an ASGI application: events, WebSocket, and uploads. Run by uvicorn with h11."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Scope = dict[str, Any]
    Receive = Callable[[], Awaitable[dict[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

_events: asyncio.Queue[bytes] = asyncio.Queue(maxsize=100)
"""What `/tell` has for `/events`."""


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one connection's request."""
    if scope["type"] == "websocket":
        await _chat(scope, receive, send)
    elif scope["type"] == "http":
        await {"/events": _tell_events, "/tell": _take_event, "/digest": _digest}[scope["path"]](
            receive, send
        )


async def _tell_events(_: Receive, send: Send) -> None:
    """Send what `/tell` gets, event by event, without an end."""
    await _begin(send, b"text/event-stream")
    while True:
        data = await _events.get()
        body = b"data: " + data + b"\n\n"
        await send({"type": "http.response.body", "body": body, "more_body": data != b"end"})
        if data == b"end":
            return


async def _take_event(receive: Receive, send: Send) -> None:
    """Take the body for `/events`."""
    await _events.put(await _body(receive))
    await _answer(send, b"told")


async def _digest(receive: Receive, send: Send) -> None:
    """Answer with the SHA-256 of a body that is read piece by piece."""
    digest = hashlib.sha256()
    while True:
        message = await receive()
        digest.update(message.get("body", b""))
        if not message.get("more_body"):
            break
    await _answer(send, digest.hexdigest().encode())


async def _chat(scope: Scope, receive: Receive, send: Send) -> None:
    """Say everything back; `refuse` does not consent, and the word `close` ends with code 4001."""
    assert (await receive())["type"] == "websocket.connect"
    if scope["path"] != "/chat":
        await send({"type": "websocket.close"})
        return
    await send({"type": "websocket.accept", "subprotocol": "chat.v1"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("text") == "close":
            await send({"type": "websocket.close", "code": 4001, "reason": "as asked"})
            return
        back = {key: message[key] for key in ("text", "bytes") if message.get(key) is not None}
        await send({"type": "websocket.send", **back})


async def _body(receive: Receive) -> bytes:
    body: bytes = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _begin(send: Send, content_type: bytes) -> None:
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def _answer(send: Send, body: bytes) -> None:
    await _begin(send, b"text/plain")
    await send({"type": "http.response.body", "body": body})
