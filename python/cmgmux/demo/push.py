"""Notifying clients through the sample role, over a few kept-alive connections."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_CONNECTIONS: Final = 4
_TIMEOUT_S: Final = 30.0


def push_to_each(address: str, clients: Sequence[int]) -> int:
    """Push one message of its own to each of the clients with these ids.

    Returns:
        How many the role handed to a held stream.

    Raises:
        OSError: The role does not answer.
    """
    shares = [clients[first::_CONNECTIONS] for first in range(_CONNECTIONS)]
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        return sum(pool.map(lambda share: _push(address, share), shares))


def _push(address: str, clients: Sequence[int]) -> int:
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
