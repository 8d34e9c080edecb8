"""Reading configuration files, and what their errors say."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from cmgmux.config import GatewayConfig, PointConfig, Trusted, format_key, load_any, parse_key
from cmgmux.exceptions import ConfigError

GATEWAY = """\
index = 3
listen = "127.0.0.1:8443"
certificate = "pki/gateway.pem"
key = "/abs/gateway.key"

[[trusted]]
ca = "pki/site-ca.pem"
sites = ["NYC"]
"""

POINT = """\
site = "NYC"
certificate = "point.pem"
key = "point.key"
gateway_ca = "gateway-ca.pem"
client_roots = ["a.pem", "b.pem"]

[[instances]]
index = 0
address = "localhost:10140"

[[mappings]]
external = "/CCM_Proxy_MutualAuth/72057594037927939"
internal = "http://127.0.0.1:8080"
authentication = "certificate"

[[mappings]]
external = "/other"
internal = "http://mp/path"
authentication = "none"
hold = true
"""


def gateway_error(tmp_path: Path, text: str) -> str:
    """Load `text` as a gateway's file and give the one line that its error prints."""
    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        GatewayConfig.load(file)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{tmp_path}/")


def test_a_gateway_file_gives_its_settings_and_defaults(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    config = GatewayConfig.load(tmp_path / "gateway.toml")
    assert (config.index, config.listen, config.max_clients) == (3, "127.0.0.1:8443", 16_000)
    assert config.admin_socket is None
    assert config.trusted[0].sites == ("NYC",)


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "point.toml").write_text(POINT)
    config = PointConfig.load(tmp_path / "point.toml")
    assert config.certificate == tmp_path / "point.pem"
    assert config.client_roots == (tmp_path / "a.pem", tmp_path / "b.pem")
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    gateway = GatewayConfig.load(tmp_path / "gateway.toml")
    assert gateway.key == Path("/abs/gateway.key")
    assert gateway.trusted[0].ca == tmp_path / "pki/site-ca.pem"


def test_native_settings_leave_unset_ones_out(tmp_path: Path) -> None:
    (tmp_path / "gateway.toml").write_text(GATEWAY)
    settings = json.loads(GatewayConfig.load(tmp_path / "gateway.toml").to_native())
    assert settings["certificate"] == str(tmp_path / "pki/gateway.pem")
    assert not {"admin_socket", "channel_listen", "shards"} & set(settings)


def test_the_serial_defaults_to_the_files_modification_time(tmp_path: Path) -> None:
    file = tmp_path / "point.toml"
    file.write_text(POINT)
    os.utime(file, (1_700_000_000.9, 1_700_000_000.9))
    assert json.loads(PointConfig.load(file).to_native())["serial"] == 1_700_000_000
    file.write_text("serial = 7\n" + POINT)
    assert json.loads(PointConfig.load(file).to_native())["serial"] == 7


def test_models_are_immutable() -> None:
    config = GatewayConfig(
        certificate=Path("c"), key=Path("k"), trusted=(Trusted(ca=Path("ca"), sites=("NYC",)),)
    )
    with pytest.raises(ValidationError):
        config.index = 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            GATEWAY.replace("listen", "lisen"),
            "gateway.toml:2: lisen: is no setting: remove it or correct its name",
        ),
        (
            GATEWAY.replace("sites", "site"),
            "gateway.toml:8: trusted[0].site: is no setting: remove it or correct its name",
        ),
        (
            GATEWAY.replace("index = 3", "index = 16"),
            "gateway.toml:1: index: input should be less than or equal to 15",
        ),
        (
            GATEWAY.replace('"NYC"', '"NYC",\n 7'),
            "gateway.toml:9: trusted[0].sites[1]: input should be a valid string",
        ),
        (GATEWAY.replace("key = ", "# "), "gateway.toml: key: is required"),
        (GATEWAY.replace("ca = ", "# "), "gateway.toml:6: trusted[0].ca: is required"),
        (
            "admission_timeout_s = nan\n" + GATEWAY,
            "gateway.toml:1: admission_timeout_s: input should be a finite number",
        ),
        (
            GATEWAY + "more = [1,\n 2",
            "gateway.toml: not valid TOML: Unclosed array (at end of document)",
        ),
        (
            GATEWAY.replace("index = 3", "index = = 3"),
            "gateway.toml:1: not valid TOML: Invalid value in column 9",
        ),
        (
            GATEWAY + 'ca = "twice"\n',
            "gateway.toml:9: not valid TOML: Cannot overwrite a value in column 13",
        ),
    ],
)
def test_errors_are_one_line_with_file_line_and_key(
    tmp_path: Path, text: str, message: str
) -> None:
    assert gateway_error(tmp_path, text) == message


def test_of_several_faults_the_first_in_the_file_is_named(tmp_path: Path) -> None:
    text = GATEWAY.replace("key = ", "# ").replace("index = 3", 'index = "x"') + "unknown = 1\n"
    assert gateway_error(tmp_path, text).startswith("gateway.toml:1: index: ")


def test_faults_inside_arrays_of_tables_name_the_item(tmp_path: Path) -> None:
    file = tmp_path / "point.toml"
    file.write_text(POINT.replace('"http://mp/path"', "1"))
    with pytest.raises(ConfigError) as caught:
        PointConfig.load(file)
    assert (caught.value.key, caught.value.line) == ("mappings[1].internal", 18)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        GatewayConfig.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        GatewayConfig.load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"a = 1\nb = '\xe9'\n")
    with pytest.raises(ConfigError, match=r"latin\.toml:2: is not UTF-8 text"):
        GatewayConfig.load(tmp_path / "latin.toml")


def test_native_errors_are_mapped_back_to_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "point.toml"
    file.write_text(POINT)
    error = PointConfig.load(file).error("mappings[1].internal", "no such\nhost")
    assert str(error) == f"{file}:18: mappings[1].internal: no such host"


def test_the_native_side_has_the_last_word(tmp_path: Path, pki: Path) -> None:
    file = tmp_path / "gateway.toml"
    text = GATEWAY.replace("pki/gateway.pem", f"{pki}/gateway.pem")
    text = text.replace("/abs/gateway.key", f"{pki}/gateway.key")
    text = text.replace("pki/site-ca.pem", f"{pki}/site-ca.pem")
    file.write_text(text)
    GatewayConfig.load(file).check()
    for old, new, place in [
        ("gateway.key", "client.key", "4: key: "),
        ("gateway.pem", "missing.pem", "3: certificate: "),
        ("site-ca.pem", "site-ca.key", "7: trusted[0].ca: "),
        ("NYC", "nyc", "8: trusted[0].sites: "),
    ]:
        file.write_text(text.replace(old, new))
        with pytest.raises(ConfigError) as caught:
            GatewayConfig.load(file).check()
        assert str(caught.value).startswith(f"{file}:{place}")


def test_an_error_without_a_file_still_names_its_key() -> None:
    config = GatewayConfig(
        certificate=Path("c"), key=Path("k"), trusted=(Trusted(ca=Path("ca"), sites=("NYC",)),)
    )
    assert str(config.error("listen", "port in use")) == "listen: port in use"


def test_either_kind_of_file_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text(GATEWAY)
    (tmp_path / "b.toml").write_text(POINT)
    assert isinstance(load_any(tmp_path / "a.toml"), GatewayConfig)
    assert isinstance(load_any(tmp_path / "b.toml"), PointConfig)


@pytest.mark.parametrize("key", ["listen", "mappings[2].internal", "trusted[0].sites[1]", "a.b.c"])
def test_key_paths_survive_splitting_and_joining(key: str) -> None:
    assert format_key(parse_key(key)) == key


def test_every_setting_explains_itself() -> None:
    for model in (GatewayConfig, PointConfig):
        for name, setting in model.model_fields.items():
            assert setting.description, f"{model.__name__}.{name}"
