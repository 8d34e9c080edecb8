"""The commands that end by themselves, run in this process."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from cmgmux.cli.app import run
from cmgmux.cli.status import sections


@pytest.fixture
def gateway_file(tmp_path: Path, pki: Path) -> Path:
    """A valid configuration file."""
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'certificate = "{pki}/gateway.pem"\nkey = "{pki}/gateway.key"\n'
        f'[[trusted]]\nca = "{pki}/site-ca.pem"\nsites = ["NYC"]\n'
    )
    return file


def test_pki_writes_private_keys_for_the_owner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "pki"
    assert run(["pki", str(folder), "--site", "PAR", "--point", "p2"]) == 0
    written = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(written) == sorted(folder.iterdir())
    keys = [path for path in written if path.suffix == ".key"]
    assert len(keys) == 6
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys)


def test_pki_overwrites_nothing_unless_forced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "client.key").write_text("precious")
    assert run(["pki", str(tmp_path)]) == 1
    assert "client.key exist already" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["client.key"]
    assert run(["pki", str(tmp_path), "--force"]) == 0
    assert (tmp_path / "client.key").read_text() != "precious"


def test_pki_refuses_names_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["pki", str(tmp_path), "--site", "nyc"]) == 1
    assert "three characters" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_config_show_prints_the_settings_in_force(
    gateway_file: Path, pki: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "show", str(gateway_file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert 'listen = "0.0.0.0:443"' in lines
    assert f'trusted[0].ca = "{pki}/site-ca.pem"' in lines
    assert run(["config", "show", str(gateway_file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["idle_timeout_s"] == 75.0


def test_config_check_says_that_nothing_is_wrong(
    gateway_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "check", str(gateway_file)]) == 0
    said = capsys.readouterr()
    assert said.out == f"{gateway_file}: a gateway can start with it\n"
    assert said.err == ""


def test_config_check_warns_of_a_mapping_that_everybody_may_use(
    tmp_path: Path, pki: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "point.toml"
    file.write_text(
        f'site = "NYC"\ncertificate = "{pki}/connection-point.pem"\n'
        f'key = "{pki}/connection-point.key"\ngateway_ca = "{pki}/gateway-ca.pem"\n'
        '[[instances]]\nindex = 0\naddress = "localhost:10140"\n'
        '[[mappings]]\nexternal = "/open"\ninternal = "http://mp"\nauthentication = "none"\n'
    )
    assert run(["config", "check", str(file)]) == 0
    warning = capsys.readouterr().err
    assert warning.startswith(f"cmgmux: warning: {file}:11: mappings[0].authentication: ")
    assert "/open" in warning
    assert run(["config", "check", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kind"], len(found["warnings"])) == ("connection-point", 1)


@pytest.mark.parametrize("kind", ["gateway", "connection-point"])
def test_config_schema_describes_each_setting(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["config", "schema", kind]) == 0
    schema = json.loads(capsys.readouterr().out)
    tables = [schema, *schema["$defs"].values()]
    settings = [setting for table in tables for setting in table["properties"].values()]
    assert len(settings) > 10
    assert all(setting["description"] for setting in settings)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in ("connection-point", "status", "config"))


def test_config_check_names_the_file_line_and_key_of_a_bad_certificate(
    gateway_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway_file.write_text(gateway_file.read_text().replace("gateway.key", "client.key"))
    assert run(["config", "check", str(gateway_file)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cmgmux: {gateway_file}:2: key: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["demo", "--clients", "0"], ["gateway"], ["pki", "x", "--dayz", "3"]],
)
def test_wrong_options_are_one_line_and_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_status_of_nobody_is_a_failure_not_a_wrong_setting(
    gateway_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    socket = tmp_path / "admin.sock"
    gateway_file.write_text(f'admin_socket = "{socket}"\n' + gateway_file.read_text())
    assert run(["status", str(gateway_file)]) == 1
    assert f"{socket}: no status" in capsys.readouterr().err


def test_status_needs_a_socket_to_ask(
    gateway_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", str(gateway_file)]) == 2
    assert "admin_socket: is not set" in capsys.readouterr().err


def test_a_status_becomes_tables_of_values_objects_and_lists() -> None:
    status = {
        "held": 3,
        "requests": {"push": 1},
        "sites": [{"site": "NYC", "mappings": [{"external": "/a"}]}, {"site": "PAR"}],
        "none": [],
    }
    tables = dict(sections(status))
    assert [row[""] for row in tables[""]] == ["held", "none"]
    assert tables["requests"] == [{"": "push", " ": 1}]
    assert tables["sites"] == [{"site": "NYC"}, {"site": "PAR"}]
    assert tables["sites[0].mappings"] == [{"external": "/a"}]
