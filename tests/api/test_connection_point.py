"""A connection point embedded in Python, beside the gateway instance that it dials."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anyio
import pytest

from cmgmux import ConfigError, ConnectionPoint, Gateway, GatewayConfig, PointConfig

if TYPE_CHECKING:
    from pathlib import Path

DEADLINE_S = 20.0


def point_config(folder: Path, pki: Path, channels: str) -> PointConfig:
    """A point that dials one instance."""
    file = folder / "point.toml"
    file.write_text(
        f'site = "NYC"\nshards = 1\ncertificate = "{pki}/connection-point.pem"\n'
        f'key = "{pki}/connection-point.key"\ngateway_ca = "{pki}/gateway-ca.pem"\n'
        f'client_roots = ["{pki}/client-ca.pem"]\n'
        f'[[instances]]\nindex = 0\naddress = "{channels}"\nserver_name = "localhost"\n'
        '[[mappings]]\nexternal = "/a"\ninternal = "http://127.0.0.1:1"\n'
    )
    return PointConfig.load(file)


@pytest.mark.anyio
async def test_a_point_and_its_gateway_live_in_one_event_loop(tmp_path: Path, pki: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text(
        'listen = "127.0.0.1:0"\nchannel_listen = "127.0.0.1:0"\nshards = 1\n'
        f'certificate = "{pki}/gateway.pem"\nkey = "{pki}/gateway.key"\n'
        f'[[trusted]]\nca = "{pki}/site-ca.pem"\nsites = ["NYC"]\n'
    )
    async with Gateway(GatewayConfig.load(file)) as gateway:
        config = point_config(tmp_path, pki, gateway.channel_address)
        async with ConnectionPoint(config, grace_s=1.0) as point:
            with anyio.fail_after(DEADLINE_S):
                while gateway.status()["state"] != "ready":  # noqa: ASYNC110 - it has no event
                    await anyio.sleep(0.01)
            assert gateway.status()["channels"][0]["peer"] == "NYC/cp1"
            assert point.status()["site"] == "NYC"


@pytest.mark.anyio
async def test_a_native_error_names_file_line_and_key(tmp_path: Path, pki: Path) -> None:
    config = point_config(tmp_path, pki, "127.0.0.1:1")
    wrong = config.model_copy(update={"site": "PAR"})
    with pytest.raises(ConfigError) as caught:
        async with ConnectionPoint(wrong):
            pytest.fail("must not start")
    assert (caught.value.key, caught.value.line) == ("site", 1)
