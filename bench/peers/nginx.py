"""nginx, as the role that answers at once and as the plain TLS proxy to compare with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.processes import Process, accepts, free_addresses, wait_until
from bench.sides import FAST_PREFIX, HOLDING_PREFIX, START_TIMEOUT_S, Side, cores, wait_for_answers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.sides import Setting

ANSWER: Final = "0123456789" * 10
"""What the role answers: 100 bytes."""

_KEPT_UPSTREAM: Final = 64
_CONNECTIONS: Final = 20_000
_MANY_REQUESTS: Final = 1_000_000_000

# Access logs off, connections kept for as many requests as come, a worker a core: as its users tune
# it. A worker's connections include those to the role.
_FRAME: Final = """\
daemon off;
pid {folder}/{name}.pid;
error_log {folder}/{name}.error.log;
worker_processes {workers};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests {many};
    keepalive_timeout 900s;
    client_body_temp_path {folder}/{name}.body;
    proxy_temp_path {folder}/{name}.proxy;
    fastcgi_temp_path {folder}/{name}.fastcgi;
    uwsgi_temp_path {folder}/{name}.uwsgi;
    scgi_temp_path {folder}/{name}.scgi;
{servers}
}}
"""

_ROLE: Final = """\
    server {{
        listen {address} reuseport;
        location / {{ return 200 "{answer}"; }}
    }}
"""

_PROXY: Final = """\
    map $http_upgrade $connection_to_role {{
        websocket upgrade;
        default "";
    }}
    upstream fast_role {{
        server {fast_role};
        keepalive {kept};
        keepalive_requests {many};
    }}
    upstream holding_role {{
        server {holding_role};
        keepalive {kept};
        keepalive_requests {many};
    }}
    server {{
        listen {address} ssl http2 reuseport;
        ssl_protocols TLSv1.3;
        ssl_certificate {pki}/gateway.pem;
        ssl_certificate_key {pki}/gateway.key;
        ssl_client_certificate {pki}/client-ca.pem;
        ssl_verify_client optional;
        proxy_http_version 1.1;
        proxy_read_timeout 900s;
        location {fast_prefix}/ {{
            proxy_set_header Connection "";
            proxy_pass http://fast_role/;
        }}
        # Streams and bulk are passed on as they come.
        location {holding_prefix}/ {{
            client_max_body_size 0;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_to_role;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_pass http://holding_role/;
        }}
    }}
"""


@contextmanager
def role(program: str, folder: Path, address: str) -> Iterator[Process]:
    """Run an nginx that answers every request with `ANSWER`."""
    servers = _ROLE.format(address=address, answer=ANSWER)
    with _nginx(program, folder, "fast-role", servers) as process:
        wait_until(
            "the fast role serves", lambda: accepts(address), [process], timeout_s=START_TIMEOUT_S
        )
        yield process


@contextmanager
def proxy(program: str, setting: Setting) -> Iterator[Side]:
    """Run an nginx that ends TLS and passes requests on to the roles."""
    (address,) = free_addresses(1)
    servers = _PROXY.format(
        address=address,
        fast_role=setting.fast_role,
        holding_role=setting.holding_role,
        pki=setting.pki,
        kept=_KEPT_UPSTREAM,
        many=_MANY_REQUESTS,
        fast_prefix=FAST_PREFIX,
        holding_prefix=HOLDING_PREFIX,
    )
    with _nginx(program, setting.folder, "nginx", servers) as process:
        side = Side("nginx", address, {"nginx": process})
        wait_for_answers(side, setting)
        yield side


def _nginx(program: str, folder: Path, name: str, servers: str) -> Process:
    configuration = folder / f"{name}.conf"
    configuration.write_text(
        _FRAME.format(
            folder=folder,
            name=name,
            workers=cores(),
            connections=_CONNECTIONS,
            many=_MANY_REQUESTS,
            servers=servers,
        )
    )
    command = [program, "-e", str(folder / f"{name}.error.log"), "-c", str(configuration)]
    return Process(name, command, log=folder / f"{name}.log")
