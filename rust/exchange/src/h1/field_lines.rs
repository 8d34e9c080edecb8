//! What the field lines of a head amount to: what is passed on, where the body ends, and what
//! becomes of the connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use httparse::Header;

use super::BodyLength;
use crate::fields;
use crate::head::{HeadError, field};

/// What the field lines say of the connection and of where the body ends.
#[derive(Debug, Default)]
pub(super) struct Framing {
    pub(super) content_length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) options: ConnectionOptions,
    /// Whether `Upgrade` names WebSocket.
    pub(super) names_websocket: bool,
}

impl Framing {
    /// Takes one field into account; says whether it goes further than this connection.
    pub(super) fn add(
        &mut self,
        name: &HeaderName,
        value: &HeaderValue,
    ) -> Result<bool, HeadError> {
        match name.as_str() {
            "content-length" => {
                if self.content_length.is_some() {
                    return Err(HeadError::Framing("Content-Length is there more than once"));
                }
                self.content_length = Some(fields::parse_content_length(value)?);
                return Ok(true);
            }
            "transfer-encoding" => {
                if self.chunked {
                    return Err(HeadError::Framing("Transfer-Encoding is there more than once"));
                }
                if !value.as_bytes().eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Framing("Transfer-Encoding is not chunked alone"));
                }
                self.chunked = true;
            }
            "connection" => self.options.add(value)?,
            "upgrade" => self.names_websocket |= fields::names_websocket(value),
            _ => return Ok(!fields::is_hop_by_hop(name)),
        }
        Ok(false)
    }
}

/// What the fields `Connection` of one head ask for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ConnectionOptions {
    pub(super) close: bool,
    /// Whether they name `Upgrade`.
    pub(super) upgrade: bool,
    /// Whether they name fields that are not hop-by-hop by themselves.
    names_fields: bool,
}

impl ConnectionOptions {
    /// Adds what one field `Connection` says.
    fn add(&mut self, value: &HeaderValue) -> Result<(), HeadError> {
        for option in fields::connection_options(value) {
            if option.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if !option.eq_ignore_ascii_case(b"keep-alive") {
                let name = HeaderName::from_bytes(option)
                    .map_err(|_| HeadError::Malformed("the field Connection is malformed"))?;
                if name == header::HOST || name == header::CONTENT_LENGTH {
                    return Err(HeadError::Framing("Connection names Host or Content-Length"));
                }
                self.upgrade |= name == header::UPGRADE;
                self.names_fields |= !fields::is_hop_by_hop(&name);
            }
        }
        Ok(())
    }

    /// Removes from `kept` what the fields `Connection` among `lines` name.
    pub(super) fn remove_named(
        self,
        kept: &mut HeaderMap,
        block: &Bytes,
        lines: &[Header<'_>],
    ) -> Result<(), HeadError> {
        if !self.names_fields {
            return Ok(());
        }
        for line in lines.iter().filter(|line| line.name.eq_ignore_ascii_case("connection")) {
            let (_, value) = field(block, line)?;
            for name in fields::connection_options(&value).flat_map(HeaderName::from_bytes) {
                kept.remove(name);
            }
        }
        Ok(())
    }
}

/// What the field lines of a request amount to.
pub(crate) struct Fields {
    pub(crate) kept: HeaderMap,
    pub(super) framing: Framing,
    pub(crate) expects_continue: bool,
}

impl Fields {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            // Room for the fields that the gateway adds.
            kept: HeaderMap::with_capacity(capacity + 4),
            framing: Framing::default(),
            expects_continue: false,
        }
    }

    pub(crate) fn add(&mut self, name: HeaderName, value: HeaderValue) -> Result<(), HeadError> {
        match name.as_str() {
            "host" if self.kept.contains_key(header::HOST) => {
                return Err(HeadError::Host("the field Host is there more than once"));
            }
            "expect" => {
                if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
                    return Err(HeadError::Expectation);
                }
                self.expects_continue = true;
            }
            _ if fields::is_identity(&name) => {}
            _ => {
                if self.framing.add(&name, &value)? {
                    self.kept.append(name, value);
                }
            }
        }
        Ok(())
    }

    /// Checks that there is one `Host`, that it is an authority, and that an absolute target says
    /// the same.
    pub(crate) fn check_host(&self, authority: Option<&str>) -> Result<(), HeadError> {
        let Some(host) = self.kept.get(header::HOST) else {
            return Err(HeadError::Host("the field Host is missing"));
        };
        if !is_authority(host.as_bytes()) {
            return Err(HeadError::Host("the field Host is no host and port"));
        }
        let agrees = |said: &str| host.as_bytes().eq_ignore_ascii_case(said.as_bytes());
        if authority.is_some_and(|said| !agrees(said)) {
            return Err(HeadError::Host("the field Host contradicts the request target"));
        }
        Ok(())
    }

    /// Keeps the wish to switch to WebSocket (RFC 6455, section 4.1), if it is one; every other wish
    /// is ignored, as RFC 9110, section 7.8, allows.
    pub(crate) fn keep_switch(&mut self, method: &Method, body: BodyLength) {
        let may_switch = *method == Method::GET && body == BodyLength::Empty;
        if may_switch && self.framing.options.upgrade && self.framing.names_websocket {
            self.kept.insert(header::UPGRADE, fields::WEBSOCKET);
        }
    }

    pub(crate) fn body(&self) -> Result<BodyLength, HeadError> {
        match (self.framing.content_length, self.framing.chunked) {
            (Some(_), true) => {
                Err(HeadError::Framing("both Content-Length and Transfer-Encoding are there"))
            }
            (None, true) => Ok(BodyLength::Chunked),
            (Some(length), false) => Ok(BodyLength::Exact(length)),
            (None, false) => Ok(BodyLength::Empty),
        }
    }
}

/// Whether a value is a host, and perhaps a port (RFC 3986, section 3.2). Escapes in names are
/// refused: readers differ in whether they decode them.
fn is_authority(value: &[u8]) -> bool {
    let find = |text: &[u8], wanted| text.iter().position(|&byte| byte == wanted);
    let is_in_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte);
    let is_in_address = |byte: &u8| byte.is_ascii_hexdigit() || b":.".contains(byte);
    let (host, behind, is_host) = if let Some(rest) = value.strip_prefix(b"[") {
        let Some(end) = find(rest, b']') else {
            return false;
        };
        (&rest[..end], &rest[end + 1..], rest[..end].iter().all(is_in_address))
    } else {
        let (host, behind) = value.split_at(find(value, b':').unwrap_or(value.len()));
        (host, behind, host.iter().all(is_in_name))
    };
    let is_port = |port: &[u8]| port.iter().all(u8::is_ascii_digit);
    let ends = behind.is_empty() || behind.strip_prefix(b":").is_some_and(is_port);
    is_host && !host.is_empty() && ends
}
