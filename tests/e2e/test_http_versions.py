"""HTTP/1.1 and HTTP/2 at the front mean the same; httpx is the client."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx
import pytest

from tests.e2e.processes import DEADLINE_S
from tests.e2e.refusals import Origin, check_unharmed, check_words

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.e2e.path import GatedPath
    from tests.e2e.roles import Files, OddRoles

VERSIONS: Final = ("HTTP/1.1", "HTTP/2")


def client(path: GatedPath, version: str, *, certificates: Path | None = None) -> httpx.Client:
    """Give a client of the gateway that speaks one version, and shows a certificate if given."""
    return httpx.Client(**options(path, version, certificates))


def options(path: GatedPath, version: str, certificates: Path | None = None) -> dict[str, Any]:
    """Give what such a client is made with."""
    tls = ssl.create_default_context(cafile=path.pki / "gateway-ca.pem")
    if certificates is not None:
        tls.load_cert_chain(certificates / "client.pem", certificates / "client.key")
    return {
        "base_url": path.url(""),
        "verify": tls,
        "http1": version == "HTTP/1.1",
        "http2": version == "HTTP/2",
        "timeout": DEADLINE_S,
        "trust_env": False,
    }


@pytest.fixture(params=VERSIONS, ids=["h1", "h2"])
def version(request: pytest.FixtureRequest) -> str:
    """Give each version in turn."""
    value: str = request.param
    return value


@pytest.fixture
def http(path: GatedPath, version: str) -> Iterator[httpx.Client]:
    """A client of either version, without a certificate."""
    with client(path, version) as http:
        yield http


def test_the_client_chooses_the_version(http: httpx.Client, version: str) -> None:
    answer = http.get("/files/small")
    assert (answer.status_code, answer.http_version) == (200, version)
    assert answer.text == "a small file\n"


@pytest.mark.parametrize(
    ("request_arguments", "status", "code"),
    [
        ({"method": "GET", "url": "/unmapped"}, 404, "no-mapping"),
        ({"method": "GET", "url": "/filesystem"}, 404, "no-mapping"),
        ({"method": "DELETE", "url": "/files/small"}, 405, "method-not-allowed"),
        ({"method": "GET", "url": "/secret/x"}, 403, "certificate-missing"),
        ({"method": "GET", "url": "/open/%2fx"}, 400, "bad-target"),
        ({"method": "GET", "url": "/open/%00"}, 400, "bad-target"),
        ({"method": "GET", "url": "/open/" + "x" * 8_190}, 414, "target-too-long"),
        ({"method": "GET", "url": "/open", "headers": {"a": "b" * 20_000}}, 431, "head-too-large"),
        (
            {"method": "GET", "url": "/open", "headers": {f"a-{n}": "b" for n in range(120)}},
            431,
            "head-too-large",
        ),
        (
            {"method": "POST", "url": "/open", "headers": {"expect": "miracles"}, "content": b"x"},
            417,
            "expectation-failed",
        ),
        ({"method": "POST", "url": "/limited", "content": b"x" * 1_001}, 413, "body-too-large"),
        (
            {"method": "POST", "url": "/limited", "content": [b"x" * 1_001]},
            413,
            "body-too-large",
        ),
        ({"method": "GET", "url": "/nobody"}, 502, "role-refused"),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else None,
)
def test_bad_input_gets_the_same_answer(
    path: GatedPath, odd: OddRoles, request_arguments: dict[str, Any], status: int, code: str
) -> None:
    answers = []
    for version in VERSIONS:
        with client(path, version) as http:
            answer = http.request(**request_arguments)
        assert (answer.http_version, answer.status_code) == (version, status)
        fields = {
            name: value
            for name, value in answer.headers.items()
            if name not in {"date", "connection"}
        }
        answers.append((fields, answer.text))
    assert answers[0] == answers[1]
    fields, text = answers[0]
    origin: Origin = "connection-point" if status == 502 else "gateway"
    error = fields["proxy-status"].split("error=")[1].split(";")[0]
    check_words(fields["proxy-status"], text, code, error=error, origin=origin)
    check_unharmed(path)
    assert odd.showing.heads.empty(), "nothing that was refused has reached the role"


def test_the_role_sees_exactly_what_was_accepted(
    path: GatedPath, odd: OddRoles, version: str
) -> None:
    with client(path, version, certificates=path.pki) as http:
        accepted = []
        for number, (method, target) in enumerate(
            [
                ("GET", "/open/a"),
                ("GET", "/secret/b"),
                ("PUT", "/open/refused"),
                ("CCM_POST", "/open/c"),
                ("GET", "/open/%2f"),
                ("PROPFIND", "/secret/d"),
                ("BITS_POST", "/open/e"),
                ("OPTIONS", "/open/f"),
                ("GET", "/opening"),
            ]
        ):
            answer = http.request(
                method, f"{target}?{number}", headers={"ccmclientid": f"x{number}"}
            )
            if answer.status_code == 200:
                accepted.append(f"{method} /{target.rpartition('/')[2]}?{number}")
                assert f"ccmclientid: x{number}" in answer.text
    seen = []
    while not odd.showing.heads.empty():
        head = odd.showing.heads.get().decode()
        seen.append(head.partition(" HTTP/1.1")[0])
    assert len(accepted) == 6
    assert seen == accepted


def test_a_download_arrives_whole(http: httpx.Client, files: Files) -> None:
    digest = hashlib.sha256()
    with http.stream("GET", "/files/big") as answer:
        for piece in answer.iter_raw():
            digest.update(piece)
    assert digest.hexdigest() == files.sha256


def test_a_range_and_a_head_pass(http: httpx.Client) -> None:
    part = http.get("/files/small", headers={"range": "bytes=2-6"})
    assert (part.status_code, part.text) == (206, "small")
    head = http.head("/files/small")
    assert (head.headers["content-length"], head.content) == ("13", b"")


def test_an_upload_of_undeclared_length_arrives_whole(http: httpx.Client) -> None:
    piece = bytes(range(256)) * 256
    digest = hashlib.sha256()
    for _ in range(320):
        digest.update(piece)
    answer = http.post("/role/echo", content=(piece for _ in range(320)))
    assert answer.status_code == 200
    assert answer.json()["length"] == 320 * len(piece)
    assert answer.json()["sha256"] == digest.hexdigest()


def test_requests_of_one_connection_do_not_wait_for_one_another(
    path: GatedPath, odd: OddRoles
) -> None:
    # Threads must not share a TLS connection of Python's, tasks may.
    async def ask() -> None:
        async with httpx.AsyncClient(**options(path, "HTTP/2")) as http:
            # The connection is there, and both requests share it.
            assert (await http.get("/files/small")).status_code == 200
            held = asyncio.create_task(http.get("/pausing"))
            await asyncio.to_thread(odd.pausing.heads.get, timeout=DEADLINE_S)
            for _ in range(20):
                assert (await http.get("/files/small")).status_code == 200
            with pytest.raises(httpx.RemoteProtocolError, match="StreamReset"):
                await held

    asyncio.run(ask())


def test_an_answer_that_breaks_off_is_an_error(
    path: GatedPath, odd: OddRoles, version: str
) -> None:
    for behaviour in ("half", "chunks"):
        with client(path, version) as http, http.stream("GET", f"/{behaviour}") as answer:
            pieces = answer.iter_raw()
            assert next(pieces) == b"hello"
            getattr(odd, behaviour).release.release()
            with pytest.raises(httpx.TransportError):
                list(pieces)
