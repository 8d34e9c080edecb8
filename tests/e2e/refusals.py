"""What every error answer of ours has to show, and that it is counted and harms nothing."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.curl import Answer
    from tests.e2e.path import GatedPath
    from tests.e2e.processes import Service

Origin = Literal["gateway", "connection-point"]


def check_refusal(
    answer: Answer, status: int, code: str, *words: str, error: str, origin: Origin = "gateway"
) -> None:
    """Check that an answer says where it comes from, what happened, and what to do about it."""
    assert answer.exit_status == 0, answer.complaint
    assert answer.status == status
    check_words(
        answer.fields["proxy-status"], answer.text, code, *words, error=error, origin=origin
    )
    assert answer.fields["content-type"] == "text/plain; charset=utf-8"


def check_raw_refusal(
    answer: bytes, status: int, code: str, *words: str, error: str, close: bool = True
) -> None:
    """Check an answer of the gateway that was read from a bare connection to its end."""
    head, separator, body = answer.decode().partition("\r\n\r\n")
    assert separator, answer
    lines = head.split("\r\n")
    assert lines[0].split()[:2] == ["HTTP/1.1", str(status)], lines[0]
    fields = {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])
    }
    assert (fields.get("connection") == "close") is close, head
    assert int(fields["content-length"]) == len(body.encode()), "one answer and no second"
    check_words(fields["proxy-status"], body, code, *words, error=error, origin="gateway")


def check_words(
    proxy_status: str, body: str, code: str, *words: str, error: str, origin: Origin
) -> None:
    """Check the words of an error answer."""
    assert proxy_status.startswith(f"cmgmux-{origin}; error={error}; details="), proxy_status
    assert f"cmgmux-{origin} ({code}) says: " in body
    for word in words:
        assert word in body
    remedy = body.splitlines()[-1]
    assert remedy.endswith("."), "the last line is a sentence on what to do"


@contextmanager
def counted(path: GatedPath, code: str, *, at: Origin = "gateway") -> Iterator[None]:
    """Check that what happens meanwhile is refused once for a reason, and harms nothing."""
    service: Service = path.gateway if at == "gateway" else path.point
    before = service.status()["refusals"].get(code, 0)
    yield
    service.wait_for(
        f"one refusal {code} more", lambda status: status["refusals"].get(code, 0) == before + 1
    )
    check_unharmed(path)


def check_unharmed(path: GatedPath) -> None:
    """Check that the path serves the next request, and that nothing has panicked."""
    answer = path.curl("/files/small")
    assert (answer.exit_status, answer.status, answer.text) == (0, 200, "a small file\n")
    assert path.gateway.status()["panics_total"] == 0
    assert path.point.status()["panics_total"] == 0
