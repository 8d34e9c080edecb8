"""A process that cannot start says so in one line that names file and key, with exit status 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.path import GatedPath, mapping
from tests.e2e.processes import DEADLINE_S, HOST, free_address, to_toml

if TYPE_CHECKING:
    from pathlib import Path

EXIT_CONFIG = 2


@pytest.fixture
def path(tmp_path: Path, pki: Path, curl: str) -> GatedPath:
    """A path that is not started: its settings are good."""
    return GatedPath(tmp_path, pki, curl, [mapping("/files", free_address())])


def complaint_of(command: str, file: Path) -> str:
    """Run a command that must fail to start; give its one line."""
    done = subprocess.run(
        [sys.executable, "-m", "cmgmux", command, str(file)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert done.returncode == EXIT_CONFIG, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(f"cmgmux: {file}:")
    return done.stderr


def check_fails(
    path: GatedPath, command: str, settings: dict[str, Any], key: str, *words: str
) -> None:
    """Check that settings are refused with a line that names file, line, key and cause."""
    file = path.folder / "wrong.toml"
    text = to_toml(settings)
    file.write_text(text)
    complaint = complaint_of(command, file)
    assert f" {key}: " in complaint or f" {key} " in complaint
    for word in words:
        assert word in complaint


def test_a_port_in_use_is_named(path: GatedPath) -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"{HOST}:{other.getsockname()[1]}"
        for key in ("listen", "channel_listen"):
            settings = {**path.gateway_settings, key: address}
            check_fails(path, "gateway", settings, key, address, "already in use")


def test_a_port_in_use_by_another_gateway_is_named(path: GatedPath) -> None:
    with path:
        path.start_gateway()
        for key, spare in (("listen", "channel_listen"), ("channel_listen", "listen")):
            settings = {**path.gateway_settings, spare: free_address(), "admin_socket": "b.sock"}
            check_fails(path, "gateway", settings, key, settings[key], "already in use")
        assert path.gateway.status()["state"] == "waiting for a connection point"


def test_a_port_that_others_may_share_is_in_use_too(path: GatedPath) -> None:
    with socket.create_server((HOST, 0), reuse_port=True) as other:
        settings = {**path.gateway_settings, "listen": f"{HOST}:{other.getsockname()[1]}"}
        check_fails(path, "gateway", settings, "listen", "already in use")


@pytest.mark.parametrize("command", ["gateway", "connection-point"])
def test_an_admin_socket_of_a_running_process_is_named(path: GatedPath, command: str) -> None:
    with path:
        path.start_gateway()
        good = path.gateway_settings if command == "gateway" else path.point_settings
        settings = {**good, "admin_socket": "gateway.sock"}
        settings |= {"listen": free_address()} if command == "gateway" else {}
        settings |= {"channel_listen": free_address()} if command == "gateway" else {}
        check_fails(path, command, settings, "admin_socket", "in use by a running process")
        assert path.gateway.status()["role"] == "gateway"


def test_an_admin_socket_that_a_killed_process_left_is_replaced(path: GatedPath) -> None:
    with path:
        path.start_gateway().kill()
        assert (path.folder / "gateway.sock").is_socket()
        path.start_gateway()


@pytest.mark.parametrize("command", ["gateway", "connection-point"])
@pytest.mark.parametrize("key", ["certificate", "key"])
def test_a_missing_file_is_named(path: GatedPath, command: str, key: str) -> None:
    good = path.gateway_settings if command == "gateway" else path.point_settings
    missing = str(path.folder / "missing.pem")
    check_fails(path, command, {**good, key: missing}, key, missing, "No such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_certificate_is_named(path: GatedPath) -> None:
    secret = path.folder / "secret.pem"
    secret.write_bytes((path.pki / "gateway.pem").read_bytes())
    secret.chmod(0)
    settings = {**path.gateway_settings, "certificate": str(secret)}
    check_fails(path, "gateway", settings, "certificate", str(secret), "Permission denied")


def test_a_certificate_file_that_is_a_folder_is_named(path: GatedPath) -> None:
    settings = {**path.gateway_settings, "certificate": str(path.folder)}
    check_fails(path, "gateway", settings, "certificate", str(path.folder))


@pytest.mark.parametrize(
    ("text", "words"),
    [("nonsense", "no certificate"), ("", "no certificate")],
    ids=["nonsense", "empty"],
)
def test_a_file_without_a_certificate_is_named(path: GatedPath, text: str, words: str) -> None:
    file = path.folder / "wrong.pem"
    file.write_text(text)
    settings = {**path.gateway_settings, "certificate": str(file)}
    check_fails(path, "gateway", settings, "certificate", str(file), words)


def test_a_certificate_that_cannot_be_parsed_is_named(path: GatedPath) -> None:
    file = path.folder / "wrong.pem"
    file.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    settings = {**path.gateway_settings, "certificate": str(file)}
    check_fails(path, "gateway", settings, "certificate", str(file))


def test_a_key_that_does_not_match_is_named(path: GatedPath) -> None:
    settings = {**path.gateway_settings, "key": str(path.pki / "client.key")}
    check_fails(path, "gateway", settings, "key", "does not belong to the certificate")


def test_a_site_that_the_certificate_does_not_have_is_named(path: GatedPath) -> None:
    settings = {**path.point_settings, "site": "PAR"}
    check_fails(path, "connection-point", settings, "site", "NYC")


def test_an_unreadable_authority_is_named(path: GatedPath) -> None:
    missing = str(path.folder / "missing.pem")
    settings = {**path.gateway_settings, "trusted": [{"ca": missing, "sites": ["NYC"]}]}
    check_fails(path, "gateway", settings, "trusted[0].ca", missing)


@pytest.mark.parametrize(
    ("command", "change", "key"),
    [
        ("gateway", {"lisen": "127.0.0.1:1"}, "lisen"),
        ("gateway", {"shards": "two"}, "shards"),
        ("gateway", {"shards": 17}, "shards"),
        ("gateway", {"index": 16}, "index"),
        ("gateway", {"listen": "localhost"}, "listen"),
        ("gateway", {"head_timeout_s": -1}, "head_timeout_s"),
        ("gateway", {"trusted": []}, "trusted"),
        ("gateway", {"trusted": [{"ca": "ca.pem", "sites": "NYC"}]}, "trusted[0].sites"),
        ("connection-point", {"instances": []}, "instances"),
        ("connection-point", {"mappings": [{"external": "/a"}]}, "mappings[0].internal"),
        (
            "connection-point",
            {"mappings": [{"external": "/a", "internal": "ftp://x"}]},
            "mappings[0].internal",
        ),
        (
            "connection-point",
            {"mappings": [{"external": "a", "internal": "http://x"}]},
            "mappings[0].external",
        ),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    path: GatedPath, command: str, change: dict[str, Any], key: str
) -> None:
    good = path.gateway_settings if command == "gateway" else path.point_settings
    check_fails(path, command, {**good, **change}, key)


@pytest.mark.parametrize(
    ("text", "line"),
    [('listen = "127.0.0.1:1"\nindex = \n', 2), ("index = 1\nindex = 2\n", 2), ("[[trusted\n", 1)],
    ids=["no-value", "twice", "open-bracket"],
)
def test_toml_that_cannot_be_read_is_named_with_its_line(
    path: GatedPath, text: str, line: int
) -> None:
    file = path.folder / "wrong.toml"
    file.write_text(text)
    assert f"{file}:{line}: not valid TOML: " in complaint_of("gateway", file)


def test_a_configuration_file_that_is_not_there_is_named(path: GatedPath) -> None:
    for command in ("gateway", "connection-point"):
        complaint = complaint_of(command, path.folder / "missing.toml")
        assert "No such file" in complaint


def test_faults_name_the_line_in_the_file(path: GatedPath) -> None:
    file = path.folder / "wrong.toml"
    file.write_text("# a comment\nindex = 1\n\nshards = 99\n")
    assert complaint_of("gateway", file).startswith(f"cmgmux: {file}:4: shards: ")
