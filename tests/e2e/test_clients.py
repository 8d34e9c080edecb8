"""Who a client is: shown by its certificate, told to the role by the gateway alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.e2e.refusals import check_refusal, counted

if TYPE_CHECKING:
    from pathlib import Path

    from tests.e2e.path import GatedPath


def fields_of(head: str) -> dict[str, list[str]]:
    """Give the fields of a request head, which the role has answered with."""
    fields: dict[str, list[str]] = {}
    for line in head.splitlines()[1:]:
        if line:
            name, _, value = line.partition(": ")
            fields.setdefault(name.lower(), []).append(value)
    return fields


def test_without_a_certificate_a_client_gets_403(path: GatedPath) -> None:
    with counted(path, "certificate-missing"):
        answer = path.curl("/secret/x")
        check_refusal(answer, 403, "certificate-missing", error="http_request_denied")


def test_with_a_certificate_of_a_foreign_authority_a_client_gets_403(
    path: GatedPath, foreign_pki: Path
) -> None:
    with counted(path, "certificate-untrusted"):
        answer = path.curl("/secret/x", *path.certificate_options(foreign_pki))
        check_refusal(answer, 403, "certificate-untrusted", "site NYC", error="http_request_denied")


def test_a_certificate_for_other_purposes_does_not_make_a_client(path: GatedPath) -> None:
    with counted(path, "certificate-untrusted"):
        options = ["--cert", str(path.pki / "gateway.pem"), "--key", str(path.pki / "gateway.key")]
        assert path.curl("/secret/x", *options).status == 403


def test_a_client_with_a_good_certificate_is_introduced_to_the_role(path: GatedPath) -> None:
    answer = path.curl("/secret/x?y=z", *path.certificate_options(path.pki))
    assert (answer.exit_status, answer.status) == (0, 200)
    assert answer.text.startswith("GET /x?y=z HTTP/1.1\n")
    fields = fields_of(answer.text)
    assert fields["cmgmux-identity"] == ['certificate;subject="CN=client";principal=device']
    pem = (path.pki / "client.pem").read_text().splitlines()[1:-1]
    assert fields["client-cert"] == [f":{''.join(pem)}:"]
    host = path.url("").removeprefix("https://")
    assert fields["forwarded"] == [f'for=127.0.0.1;proto=https;host="{host}"']
    assert len(fields["traceparent"][0].split("-")) == 4


def test_what_a_client_says_about_itself_is_dropped(path: GatedPath) -> None:
    lies = [
        "Client-Cert: :AAAA:",
        "Client-Cert-Chain: :AAAA:",
        'Cmgmux-Identity: certificate;subject="CN=admin"',
        "cmgmux-identity: anonymous",
        "Forwarded: for=192.0.2.1",
        "Connection: x-hop",
        "X-Hop: dropped",
        "X-Kept: kept",
    ]
    options = [word for lie in lies for word in ("--header", lie)]
    answer = path.curl("/open/x", *options)
    assert answer.status == 200
    fields = fields_of(answer.text)
    assert fields["cmgmux-identity"] == ["anonymous"]
    assert [value.startswith("for=127.0.0.1;") for value in fields["forwarded"]] == [True]
    assert fields["x-kept"] == ["kept"]
    assert not fields.keys() & {"client-cert", "client-cert-chain", "x-hop"}


def test_lies_do_not_replace_the_certificate_either(path: GatedPath) -> None:
    options = ["--header", 'Cmgmux-Identity: certificate;subject="CN=admin"']
    answer = path.curl("/secret/x", *path.certificate_options(path.pki), *options)
    fields = fields_of(answer.text)
    assert fields["cmgmux-identity"] == ['certificate;subject="CN=client";principal=device']
    with counted(path, "certificate-missing"):
        assert path.curl("/secret/x", *options).status == 403


def test_a_valid_trace_goes_on_and_fields_of_the_original_pass(path: GatedPath) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    own = {"CCMClientID": "GUID:1", "CCMClientTimestamp": "2026-01-01T00:00:00Z"}
    fields_sent = {"traceparent": trace, **own}
    options = [
        word for name, value in fields_sent.items() for word in ("--header", f"{name}: {value}")
    ]
    fields = fields_of(path.curl("/open/x", *options).text)
    assert fields["traceparent"] == [trace]
    assert {name: fields[name.lower()] for name in own} == {k: [v] for k, v in own.items()}
