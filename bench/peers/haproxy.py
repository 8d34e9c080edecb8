"""HAProxy as a plain TLS proxy to compare with."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from bench.processes import Process, free_addresses
from bench.sides import FAST_PREFIX, HOLDING_PREFIX, Side, cores, wait_for_answers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.sides import Setting

# A thread a core and connections to the role that any client's request may use.
_CONFIGURATION: Final = """\
global
    nbthread {threads}
    maxconn 4000
    ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 900s
    timeout server 900s
frontend clients
    bind {address} ssl crt {pki}/gateway-pair.pem ca-file {pki}/client-ca.pem verify optional \
alpn h2,http/1.1
    acl is_fast path_beg {fast_prefix}/
    use_backend fast if is_fast
    default_backend holding
backend fast
    http-request replace-path {fast_prefix}(/.*) \\1
    server role {fast_role}
backend holding
    http-request replace-path {holding_prefix}(/.*) \\1
    server role {holding_role}
"""


@contextmanager
def proxy(program: str, setting: Setting) -> Iterator[Side]:
    """Run an HAProxy that ends TLS and passes requests on to the roles."""
    (address,) = free_addresses(1)
    pair = [(setting.pki / f"gateway.{kind}").read_text() for kind in ("pem", "key")]
    (setting.pki / "gateway-pair.pem").write_text("".join(pair))
    configuration = setting.folder / "haproxy.cfg"
    configuration.write_text(
        _CONFIGURATION.format(
            threads=cores(),
            address=address,
            pki=setting.pki,
            fast_role=setting.fast_role,
            holding_role=setting.holding_role,
            fast_prefix=FAST_PREFIX,
            holding_prefix=HOLDING_PREFIX,
        )
    )
    command = [program, "-f", str(configuration), "-db"]
    with Process("haproxy", command, log=setting.folder / "haproxy.log") as process:
        side = Side("haproxy", address, {"haproxy": process})
        wait_for_answers(side, setting)
        yield side
