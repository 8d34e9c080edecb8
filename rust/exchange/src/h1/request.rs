//! Request heads of a client.

use std::mem::MaybeUninit;

use bytes::{Buf, Bytes, BytesMut};

use super::field_lines::Fields;
use super::{BodyLength, MAX_FIELDS, MAX_HEAD_BYTES, MAX_REQUEST_LINE_BYTES};
use crate::head::{HeadError, RequestHead, check_complete, field, method_of};
use crate::lines::{BlockLimits, BlockScanner};
use crate::target::Target;

const LIMITS: BlockLimits = BlockLimits {
    first_line_bytes: MAX_REQUEST_LINE_BYTES,
    block_bytes: MAX_HEAD_BYTES,
    start_lines: 1,
    fields: MAX_FIELDS,
};

/// A request as its head announces it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The head, without hop-by-hop fields, `Expect` and identity fields. Only the wish to switch to
    /// WebSocket stays: see [`asks_to_switch`](RequestHead::asks_to_switch).
    pub head: RequestHead,
    /// The body that follows.
    pub body: BodyLength,
    /// Whether the client wants the connection closed after the answer.
    pub close: bool,
    /// Whether there is a body that the client holds back until it gets `100 Continue`.
    pub expects_continue: bool,
}

/// Reads request heads, one after the other, as their bytes come.
///
/// Looks at each byte once while a head is incomplete, and parses it when it is there. Holds no
/// buffer: its own state is a few numbers.
#[derive(Debug, Default)]
pub struct RequestReader {
    scanner: BlockScanner,
    blank_line: bool,
}

impl RequestReader {
    /// A reader for the first request of a connection.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next head off the front of `input`, which holds all that came since the last one,
    /// and leaves what follows it. `None` while it is not complete. One empty line before a request
    /// is skipped, as RFC 9112 asks.
    ///
    /// The fields share the memory of the head's bytes.
    ///
    /// # Errors
    ///
    /// [`HeadError`]: answer with its [`reason`](HeadError::reason) and close.
    pub fn read(&mut self, input: &mut BytesMut) -> Result<Option<Request>, HeadError> {
        while self.scanner.in_first_line() && input.starts_with(b"\r\n") {
            if self.blank_line {
                return Err(HeadError::Malformed("empty lines come before the request line"));
            }
            *self = Self { blank_line: true, ..Self::default() };
            input.advance(2);
        }
        let end = self.scanner.scan(input, LIMITS);
        let Some(end) = end.map_err(|error| HeadError::of_block(error, LIMITS))? else {
            return Ok(None);
        };
        *self = Self::default();
        let block = input.split_to(end).freeze();
        parse(&block).map(Some)
    }
}

fn parse(block: &Bytes) -> Result<Request, HeadError> {
    let mut table = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(block, &mut table) {
        Err(httparse::Error::Version) if names_other_version(block) => {
            return Err(HeadError::Version);
        }
        parsed => check_complete(parsed, block)?,
    }
    let (method, target) = match (request.method, request.path, request.version) {
        (Some(method), Some(target), Some(1)) => (method, target),
        _ => return Err(HeadError::Version),
    };
    let method = method_of(method)?;
    let (target, authority) = Target::parse_request(target)?;
    let mut fields = Fields::new(request.headers.len());
    for line in &*request.headers {
        let (name, value) = field(block, line)?;
        fields.add(name, value)?;
    }
    fields.check_host(authority)?;
    fields.framing.options.remove_named(&mut fields.kept, block, request.headers)?;
    let body = fields.body()?;
    fields.keep_switch(&method, body);
    let has_body = !matches!(body, BodyLength::Empty | BodyLength::Exact(0));
    Ok(Request {
        body,
        close: fields.framing.options.close,
        expects_continue: fields.expects_continue && has_body,
        head: RequestHead { method, target, fields: fields.kept },
    })
}

/// Whether the request line is whole and ends in a version of HTTP that the parser does not know.
fn names_other_version(block: &[u8]) -> bool {
    let line = block.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(_), Some(_), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    match version.strip_prefix(b"HTTP/") {
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        Some([major]) => major.is_ascii_digit(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::refusal::Reason;

    fn read(text: &str) -> Result<Option<Request>, HeadError> {
        RequestReader::new().read(&mut BytesMut::from(text))
    }

    fn request(fields: &str) -> Result<Request, HeadError> {
        read(&format!("GET /a HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
            .map(|head| head.expect("whole"))
    }

    fn reason(text: &str) -> Option<Reason> {
        read(text).err().map(|error| error.reason())
    }

    #[test]
    fn requests_follow_one_another_in_one_buffer() {
        let mut input = BytesMut::from(
            "POST /a/../b?c HTTP/1.1\r\nhost: h\r\nContent-Length: 3\r\nCCMClientID: x\r\n\r\n\
             abc\r\nBITS_POST /%41 HTTP/1.1\r\nHost: H:443\r\n\r\nGE",
        );
        let mut reader = RequestReader::new();
        let first = reader.read(&mut input).expect("valid").expect("whole");
        assert_eq!(first.head.target.as_str(), "/b?c");
        assert_eq!(first.head.fields["ccmclientid"], "x");
        assert_eq!(first.head.fields["content-length"], "3");
        assert_eq!(first.body, BodyLength::Exact(3));
        assert!(!first.close && !first.expects_continue);
        input.advance(3);
        let second = reader.read(&mut input).expect("valid").expect("whole");
        assert_eq!(second.head.method, "BITS_POST");
        assert_eq!(second.head.target.as_str(), "/A");
        assert_eq!(second.body, BodyLength::Empty);
        assert_eq!(reader.read(&mut input), Ok(None));
        assert_eq!(&input[..], b"GE");
    }

    #[test]
    fn a_waiting_reader_needs_no_buffer() {
        let mut reader = RequestReader::new();
        let mut input = BytesMut::new();
        assert_eq!(reader.read(&mut input), Ok(None));
        assert_eq!(input.capacity(), 0);
    }

    #[test]
    fn fields_of_the_connection_and_forged_identities_are_not_kept() {
        let request = request(
            "Connection: keep-alive, X-Private\r\nX-Private: 1\r\nKeep-Alive: 5\r\n\
             Close: 1\r\nUpgrade: websocket\r\nTE: trailers\r\nClient-Cert: :AA==:\r\n\
             Forwarded: for=x\r\nCmgmux-Identity: root\r\nX-Forwarded-For: x\r\n\
             Proxy-Authorization: x\r\nRange: y\r\n",
        )
        .expect("valid");
        let names: Vec<_> = request.head.fields.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["host", "range"]);
        assert!(!request.close);
    }

    #[test]
    fn only_the_whole_wish_for_websocket_is_kept() {
        let asks = |fields: &str| request(fields).expect("valid").head.asks_to_switch();
        assert!(asks("Connection: Upgrade\r\nUpgrade: WebSocket\r\n"));
        assert!(asks("Connection: keep-alive, upgrade\r\nUpgrade: h2c, websocket\r\n"));
        assert!(!asks("Connection: Upgrade\r\nUpgrade: h2c\r\n"));
        assert!(!asks("Connection: Upgrade\r\n"));
        assert!(!asks("Upgrade: websocket\r\n"));
        assert!(!asks("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n"));
        let post =
            "POST /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        assert!(!read(post).expect("valid").expect("whole").head.asks_to_switch());
    }

    #[test]
    fn close_and_expectation_are_recognised() {
        let both =
            request("connection: foo, CLOSE\r\nexpect: 100-Continue\r\ncontent-length: 1\r\n")
                .expect("valid");
        assert!(both.close && both.expects_continue);
        assert!(!both.head.fields.contains_key("expect"));
        let without_body = request("expect: 100-continue\r\n").expect("valid");
        assert!(!without_body.expects_continue);
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -5\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: chunked;x=1\r\n",
            "Transfer-Encoding:\r\n",
            "Connection: Content-Length\r\nContent-Length: 5\r\n",
            "Connection: close, host\r\n",
        ] {
            let error = request(fields).expect_err(fields);
            assert_eq!(error.reason(), Reason::AmbiguousFraming, "{fields:?}");
        }
        for fields in [
            "Content-Length : 5\r\n",
            " Content-Length: 5\r\n",
            "Content-Length: 5\r\n 6\r\n",
            "Transfer-Encoding: chun\r\n\tked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: \x0bchunked\r\n",
            "Transfer-Encoding: chunked\nX: y\r\n",
            "X: y\nTransfer-Encoding: chunked\r\n",
            "X: y\rTransfer-Encoding: chunked\r\n",
            "X: y\0\r\n",
            "X\0: y\r\n",
            ": y\r\n",
            "X y\r\n",
            "Connection: a b\r\n",
        ] {
            let error = request(fields).expect_err(fields);
            assert_eq!(error.reason(), Reason::BadHead, "{fields:?}");
        }
    }

    #[test]
    fn one_host_is_required() {
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a%41\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: :1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a[::1]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [a.example]\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [::1]b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: []\r\n\r\n",
            "GET https://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        ] {
            assert_eq!(reason(text), Some(Reason::BadHead), "{text:?}");
        }
        for text in [
            "GET https://A/ HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a_b.example:\r\n\r\n",
        ] {
            assert_eq!(reason(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_refusal_has_its_status() {
        let long_target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_REQUEST_LINE_BYTES));
        let long_head = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}", "b".repeat(MAX_HEAD_BYTES));
        let fields = "a: b\r\n".repeat(MAX_FIELDS);
        let many_fields = format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}");
        for (text, expected) in [
            (long_target.as_str(), 414),
            (long_head.as_str(), 431),
            (many_fields.as_str(), 431),
            ("GET / HTTP/1.0\r\nHost: h\r\n\r\n", 505),
            ("GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
            ("GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\n", 505),
            ("GET / HTTP/2\r\nHost: h\r\n\r\n", 505),
            ("GET / http/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.10\r\nHost: h\r\n\r\n", 400),
            ("GET /\r\n\r\n", 400),
            ("GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET /  HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1 \r\nHost: h\r\n\r\n", 400),
            ("G@T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            (" GET / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\n\n", 400),
            ("\r\n\r\n", 400),
            ("\n", 400),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET /%2e%2e/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET /é HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n", 417),
        ] {
            let status = reason(text).map(|reason| reason.status().as_u16());
            assert_eq!(status, Some(expected), "{:?}", &text[..text.len().min(60)]);
        }
    }

    #[test]
    fn limits_are_exact() {
        let fields = "a: b\r\n".repeat(MAX_FIELDS - 1);
        assert!(read(&format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).is_ok());
        let start = "GET / HTTP/1.1\r\nHost: h\r\nA: ";
        let filler = "b".repeat(MAX_HEAD_BYTES - start.len() - 4);
        assert!(matches!(read(&format!("{start}{filler}\r\n\r\n")), Ok(Some(_))));
        assert_eq!(reason(&format!("{start}{filler}b\r\n\r\n")), Some(Reason::HeadTooLarge));
    }

    #[test]
    fn one_empty_line_before_a_request_is_skipped() {
        let head = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        assert!(matches!(read(&format!("\r\n{head}")), Ok(Some(_))));
        assert_eq!(reason(&format!("\r\n\r\n{head}")), Some(Reason::BadHead));
        let mut reader = RequestReader::new();
        let mut input = BytesMut::new();
        for piece in ["\r", "\n", "GET / HTTP/1.1\r", "\nHost: h\r\n\r", "\n"] {
            assert_eq!(reader.read(&mut input), Ok(None));
            input.extend_from_slice(piece.as_bytes());
        }
        assert!(matches!(reader.read(&mut input), Ok(Some(_))));
    }
}
