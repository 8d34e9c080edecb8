"""A gateway instance embedded in Python."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import anyio
import pytest

from cmgmux import ConfigError, Gateway, GatewayConfig

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 20.0


@pytest.fixture
def config(tmp_path: Path, pki: Path) -> GatewayConfig:
    """An instance on free ports of loopback."""
    file = tmp_path / "gateway.toml"
    file.write_text(
        'listen = "127.0.0.1:0"\nchannel_listen = "127.0.0.1:0"\nshards = 1\n'
        f'certificate = "{pki}/gateway.pem"\nkey = "{pki}/gateway.key"\n'
        f'[[trusted]]\nca = "{pki}/site-ca.pem"\nsites = ["NYC"]\n'
    )
    return GatewayConfig.load(file)


@pytest.mark.anyio
async def test_a_gateway_serves_both_addresses_and_says_who_failed(
    config: GatewayConfig, pki: Path
) -> None:
    tls = ssl.create_default_context(cafile=pki / "gateway-ca.pem")
    async with Gateway(config) as gateway:
        assert gateway.client_address != gateway.channel_address
        host, _, port = gateway.client_address.rpartition(":")
        answer = b""
        with anyio.fail_after(DEADLINE_S):
            stream = await anyio.connect_tcp(
                host, int(port), ssl_context=tls, tls_hostname="localhost"
            )
            async with stream:
                await stream.send(
                    b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                async for part in stream:
                    answer += part
        assert answer.startswith(b"HTTP/1.1 404 ")
        assert b"\r\nproxy-status: cmgmux-gateway" in answer.lower()
        assert gateway.status()["state"] == "waiting for a connection point"


@pytest.mark.anyio
async def test_a_native_error_names_file_line_and_key(config: GatewayConfig) -> None:
    async with Gateway(config) as gateway:
        taken = config.model_copy(update={"listen": gateway.client_address})
        with pytest.raises(ConfigError, match="in use") as caught:
            async with Gateway(taken):
                pytest.fail("must not start")
    assert caught.value.key == "listen"
    assert caught.value.line == 1
    assert caught.value.path is not None
