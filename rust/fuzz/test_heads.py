"""Heads of HTTP/1.1 are understood as h11 understands them.

What our readers must make of a head follows from h11 alone and from rules, each of which is
something that h11 takes and we refuse. So a head that only we take fails, and so does one whose
body ends elsewhere for us.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

import h11
import pytest

# What decides in h11 where a body ends is not public.
from h11._connection import _body_framing
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Check: TypeAlias = Callable[[int, bytes], None]

ROOT: Final = Path(__file__).parents[2]
CORPUS: Final = ROOT / "rust/fuzz/corpus/head"
ASK: Final = ["cargo", "run", "--quiet", "--locked", "-p", "cmgmux-fuzz", "--bin", "cmgmux-heads"]
REQUEST, ANSWER, ANSWER_TO_HEAD, ANSWER_TO_SWITCH = KINDS = range(4)

HOP_BY_HOP: Final = set(
    b"connection close keep-alive proxy-connection proxy-authenticate proxy-authorization te "
    b"transfer-encoding upgrade http2-settings".split()
)
IDENTITY: Final = re.compile(
    rb"client[-_]cert([-_]chain)?|forwarded|x[-_]real[-_]ip|cmgmux[-_].*|x[-_]forwarded[-_].*"
)
AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=-]+)(:[0-9]*)?")
ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#@]+)([/?].*)?")
TOKEN: Final = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")


class Seen(NamedTuple):
    """A head that h11 takes, and what it says of it."""

    kind: int
    text: bytes
    event: h11.Request | h11.Response | h11.InformationalResponse
    switches: bool
    waits: bool
    rest: int

    def values(self, name: bytes) -> list[bytes]:
        """Give the values of a field, those too that h11 leaves out because they are repeated."""
        lines = (line.partition(b":") for line in self.text.split(b"\r\n")[1:])
        return [value.strip() for has, _, value in lines if has.lower() == name]

    def members(self, name: bytes) -> list[bytes]:
        """Give the members of the list in a field, in lower case."""
        members = b",".join(self.values(name)).lower().split(b",")
        return [member.strip() for member in members if member.strip()]

    def names_websocket(self) -> bool:
        return b"upgrade" in self.members(b"connection") and b"websocket" in self.members(
            b"upgrade"
        )


def see(kind: int, text: bytes) -> Seen | None:
    """Read a head with h11."""
    role = h11.SERVER if kind == REQUEST else h11.CLIENT
    connection = h11.Connection(role, max_incomplete_event_size=1 << 20)
    if kind == REQUEST:
        # An empty line before a request is skipped (RFC 9112, 2.2), which h11 does not do.
        text = text.removeprefix(b"\r\n")
    else:
        method = "HEAD" if kind == ANSWER_TO_HEAD else "GET"
        asks = [("Connection", "upgrade"), ("Upgrade", "websocket")]
        fields = [("Host", "h"), *(asks if kind == ANSWER_TO_SWITCH else [])]
        connection.send(h11.Request(method=method, target="/", headers=fields))
        connection.send(h11.EndOfMessage())
    connection.receive_data(text)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request | h11.Response | h11.InformationalResponse):
        return None
    rest = len(connection.trailing_data[0])
    switches = connection.their_state is h11.SWITCHED_PROTOCOL
    waits = connection.they_are_waiting_for_100_continue
    return Seen(kind, text[: len(text) - rest], event, switches, waits, rest)


def canonical(target: bytes) -> bytes | None:
    """Give the one form of a request target, if it has one."""
    if absolute := ABSOLUTE.fullmatch(target):
        target = absolute[2] or b"/"
        target = target if target.startswith(b"/") else b"/" + target
    path, mark, query = target.partition(b"?")
    if not re.fullmatch(rb"/([^#\\%]|%[0-9A-Fa-f]{2})*", path) or re.search(rb'["#<>]', query):
        return None
    if re.search(rb"(?i)%([01].|7f|2f|5c)", path):
        return None

    def escape(match: re.Match[bytes]) -> bytes:
        byte = bytes([int(match[1], 16)]) if match[1] else match[0]
        return byte if re.match(rb"[A-Za-z0-9._~-]", byte) else b"%%%02X" % ord(byte)

    path = re.sub(rb'%(..)|["<>\[\]^`{|}]', escape, path)
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    for segment in segments:
        if segment == b"..":
            if not kept:
                return None
            kept.pop()
        elif segment != b".":
            kept.append(segment)
    end = [b""] if segments[-1] in {b".", b".."} else []
    form = b"/" + b"/".join(kept + end) + mark + query
    return form if max(len(target), len(form)) <= 8192 else None


def is_too_large(seen: Seen) -> bool:
    line, whole, fields = (8256, 16384, 100) if seen.kind == REQUEST else (32768, 32768, 128)
    lines = seen.text.splitlines(keepends=True)
    return len(lines[0]) > line or len(seen.text) > whole or len(lines) - 2 > fields


def has_odd_version(seen: Seen) -> bool:
    return seen.event.http_version not in ({b"1.1"} if seen.kind == REQUEST else {b"1.0", b"1.1"})


def has_odd_length(seen: Seen) -> bool:
    lengths = seen.values(b"content-length")
    return bool(lengths) and (len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,19}", lengths[0]))


def has_two_lengths(seen: Seen) -> bool:
    names = {name for name, _ in seen.event.headers}
    return seen.kind == REQUEST and {b"content-length", b"transfer-encoding"} <= names


def has_chunks_in_http_1_0(seen: Seen) -> bool:
    return seen.event.http_version == b"1.0" and bool(seen.values(b"transfer-encoding"))


def has_odd_option(seen: Seen) -> bool:
    options = seen.members(b"connection")
    return any(
        not TOKEN.fullmatch(name) or name in {b"host", b"content-length"} for name in options
    )


def has_odd_host(seen: Seen) -> bool:
    if not isinstance(seen.event, h11.Request):
        return False
    host = dict(seen.event.headers).get(b"host", b"")
    absolute = ABSOLUTE.fullmatch(seen.event.target)
    differs = absolute is not None and absolute[1].lower() != host.lower()
    return differs or not AUTHORITY.fullmatch(host)


def has_odd_target(seen: Seen) -> bool:
    return isinstance(seen.event, h11.Request) and canonical(seen.event.target) is None


def expects_more(seen: Seen) -> bool:
    values = {value.lower() for value in seen.values(b"expect")}
    return seen.kind == REQUEST and bool(values - {b"100-continue"})


class Rule(NamedTuple):
    """What h11 takes and we refuse: why, how it is recognised, and an example."""

    why: str
    applies: Callable[[Seen], object]
    example: tuple[int, bytes]


GET: Final = b"GET / HTTP/1.1\r\nHost: h\r\n"
RULES: Final = [
    Rule(
        "LF alone ends no line: other readers may see one line (RFC 9112, 2.2)",
        lambda seen: re.search(rb"(?<!\r)\n", seen.text),
        (REQUEST, GET + b"a: b\nc: d\r\n\r\n"),
    ),
    Rule(
        "lines are not folded: a server refuses or replaces that (RFC 9112, 5.2)",
        lambda seen: re.search(rb"\n[ \t]", seen.text),
        (REQUEST, GET + b"a: b\r\n c\r\n\r\n"),
    ),
    Rule(
        "values hold no control characters (RFC 9110, 5.5)",
        lambda seen: re.search(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", seen.text),
        (REQUEST, GET + b"a: \x01\r\n\r\n"),
    ),
    Rule(
        "heads have limits (RFC 9110, 5.4, and RFC 9112, 3)",
        is_too_large,
        (REQUEST, GET + b"a: b\r\n" * 100 + b"\r\n"),
    ),
    Rule(
        "clients speak HTTP/1.1, roles HTTP/1.0 too (RFC 9110, 15.6.6)",
        has_odd_version,
        (REQUEST, b"GET / HTTP/1.0\r\nHost: h\r\n\r\n"),
    ),
    Rule(
        "Content-Length is there once and fits 64 bits: lists may be refused (RFC 9110, 8.6)",
        has_odd_length,
        (ANSWER, b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n"),
    ),
    Rule(
        "Content-Length and Transfer-Encoding together may smuggle a request (RFC 9112, 6.3)",
        has_two_lengths,
        (REQUEST, GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ),
    Rule(
        "Transfer-Encoding in HTTP/1.0 is faulty framing (RFC 9112, 6.1)",
        has_chunks_in_http_1_0,
        (ANSWER, b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ),
    Rule(
        "Connection has tokens, and names no field that is for all recipients (RFC 9110, 7.6.1)",
        has_odd_option,
        (REQUEST, GET + b"Connection: host\r\n\r\n"),
    ),
    Rule(
        "Host is a host and port, those of the target if that has them (RFC 9112, 3.2)",
        has_odd_host,
        (REQUEST, b"GET / HTTP/1.1\r\nHost: h:x\r\n\r\n"),
    ),
    Rule(
        "a target has a path that means the same to all (RFC 9110, 4.2, and RFC 3986, 6.2)",
        has_odd_target,
        (REQUEST, b"GET /a/%2e%2e/../b HTTP/1.1\r\nHost: h\r\n\r\n"),
    ),
    Rule(
        "no expectation but 100-continue can be met (RFC 9110, 10.1.1)",
        expects_more,
        (REQUEST, GET + b"Expect: wonders\r\n\r\n"),
    ),
    Rule(
        "a role switches to what it was asked for (RFC 9110, 7.8)",
        lambda seen: seen.switches and not seen.names_websocket(),
        (ANSWER_TO_SWITCH, b"HTTP/1.1 101 Go\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
    ),
]


def expected(kind: int, text: bytes) -> dict[str, Any] | None:
    """Say what our readers must make of a head; None is a refusal, or a wait for more of it."""
    seen = see(kind, text) if text else None
    if seen is None or any(rule.applies(seen) for rule in RULES):
        return None
    event, start = seen.event, list[Any]()
    drops = HOP_BY_HOP | set(seen.members(b"connection"))
    has_length = bool(seen.values(b"content-length"))
    has_both = has_length and bool(seen.values(b"transfer-encoding"))
    body: int | str = "until close" if seen.switches else 0
    if not isinstance(event, h11.InformationalResponse):
        framing, length = _body_framing(b"HEAD" if kind == ANSWER_TO_HEAD else b"GET", event)
        body = length[0] if length else framing.replace("http/1.0", "until close")
    # Who says both lengths may not know where its body ends (RFC 9112, 6.3).
    close = has_both or body == "until close" or event.http_version == b"1.0"
    close |= b"close" in seen.members(b"connection")
    if isinstance(event, h11.Request):
        start = [event.method.decode(), (canonical(event.target) or b"").decode()]
        drops |= {b"expect"} | {name for name, _ in event.headers if IDENTITY.fullmatch(name)}
        asks = event.method == b"GET" and not has_length and body == 0 and seen.names_websocket()
    else:
        start = [event.status_code]
        asks = seen.switches
        if event.status_code < 200 or event.status_code == 204 or has_both:
            drops.add(b"content-length")
    kept = [(name, value) for name, value in event.headers if name not in drops]
    kept += [(b"upgrade", b"websocket")] if asks else []
    fields = [[name.decode(), value.decode("latin-1")] for name, value in kept]
    return {
        "start": start,
        "fields": in_order(fields),
        "body": body,
        "close": close,
        "waits": seen.waits and body != 0,
        "rest": seen.rest,
    }


def in_order(fields: list[list[str]]) -> list[list[str]]:
    """Sort by name; what has the same one keeps its order."""
    return sorted(fields, key=lambda field: field[0])


@pytest.fixture(scope="module")
def check() -> Iterator[Check]:
    """Give a function that compares what h11 and our readers make of a head."""
    with subprocess.Popen(ASK, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ours:
        assert ours.stdin is not None
        assert ours.stdout is not None
        heads, answers = ours.stdin, ours.stdout

        def compare(kind: int, text: bytes) -> None:
            heads.write(bytes([kind]) + len(text).to_bytes(4) + text)
            heads.flush()
            head = json.loads(answers.readline())
            head["fields"] = in_order(head.get("fields", []))
            assert expected(kind, text) == (None if "refused" in head else head), (text, head)

        yield compare


def words(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from(text.split("|"))


METHODS: Final = words("GET|HEAD|POST|CONNECT|BITS_POST|get|G@T")
TARGETS: Final = words("/|/a?b|https://h/a|HTTP://H?c|*|h:1") | st.lists(
    words("/|.|?|#|%|{|\\|a|@|:|/..|/%2e|%2F|%41|%c3|%7f"), max_size=6
).map(lambda parts: "/" + "".join(parts))
VERSIONS: Final = words("HTTP/1.1|" * 9 + "HTTP/1.0|HTTP/1.2|HTTP/2.0")
HOSTS: Final = words(
    "Host: h|" * 9 + "host:H:80|Host: h:x|Host: [::1]:8|Host: a[::1]|Host: u@h|A: b"
)
STATUSES: Final = words("200 OK|200|200 |204 a\tb|304 \xe9|100 |101 |103 |099 |999 |20")
LINES: Final = (
    words("Content-Length: 5|Transfer-Encoding: Chunked")
    | words(
        "Connection: close,a|Connection: Upgrade|A:b\t|"
        "Upgrade: websocket|Expect: 100-continue|Close: 1|X_Real-IP: 1|Host: h"
    )
    | st.tuples(
        words("Content-Length:|Transfer-Encoding:|Connection:|Upgrade:|Expect:|cookie:"),
        words("0|007|+5|5,5|5,6|gzip,chunked|a b|host|h2c,WebSocket|wonders|"),
    ).map("".join)
)
EDITS: Final = st.tuples(
    st.integers(0, 150), st.integers(0, 2), words("|\0|\1|\t|\n|\r|\x7f|\xe9| |:|,|0|\r\n")
)


@st.composite
def heads(draw: st.DrawFn) -> tuple[int, bytes]:
    """Draw heads that are good or nearly so."""
    kind = draw(st.sampled_from(KINDS))
    if kind == REQUEST:
        odd = st.tuples(METHODS, TARGETS, VERSIONS).map(" ".join)
        lines = [draw(words("GET / HTTP/1.1|POST /a HTTP/1.1") | odd), draw(HOSTS)]
    else:
        odd = st.tuples(VERSIONS, STATUSES).map(" ".join)
        lines = [draw(words("HTTP/1.1 200 OK") | odd)]
    text = "\r\n".join([*lines, *draw(st.lists(LINES, max_size=4)), "", "rest"])
    for at, length, instead in draw(st.lists(EDITS, max_size=1)):
        text = text[:at] + instead + text[at + length :]
    return kind, text.encode("latin-1")


def test_heads_of_the_corpus_are_understood_alike(check: Check) -> None:
    inputs = [path.read_bytes() for path in sorted(CORPUS.iterdir())]
    known = [(data[0] % 6, data[1:]) for data in inputs if data and data[0] % 6 in KINDS]
    assert known
    for kind, text in known:
        check(kind, text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.why)
def test_each_rule_alone_refuses_its_example(rule: Rule, check: Check) -> None:
    seen = see(*rule.example)
    assert seen is not None
    assert [other.why for other in RULES if other.applies(seen)] == [rule.why]
    check(*rule.example)


@given(head=heads())
@settings(max_examples=3000, deadline=None)
def test_any_head_is_understood_alike(check: Check, head: tuple[int, bytes]) -> None:
    check(*head)
