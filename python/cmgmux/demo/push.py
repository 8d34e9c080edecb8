"""Notifying clients through the sample role, over a few kept-alive connections."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from typing import Final

_CONNECTIONS: Final = 4
_TIMEOUT_S: Final = 30.0


def push_to_each(address: str, clients: int) -> int:
    """Push one message of its own to each of the clients 0, 1, 2 and so on.

    Returns:
        How many the role handed to a held poll.

    Raises:
        OSError: The role does not answer.
    """
    shares = [range(first, clients, _CONNECTIONS) for first in range(_CONNECTIONS)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return sum(pool.map(lambda share: _push(address, share), shares))


def _push(address: str, clients: range) -> int:
    connection = http.client.HTTPConnection(address, timeout=_TIMEOUT_S)
    delivered = 0
    try:
        for client in clients:
            connection.request("POST", f"/push?client={client}", body=f"news for {client}")
            response = connection.getresponse()
            response.read()
            delivered += response.status == http.client.ACCEPTED
    except http.client.HTTPException as error:
        raise OSError(f"the role broke off: {error!r}") from error
    finally:
        connection.close()
    return delivered
