//! The little of structured fields (RFC 9651) that the identity needs: items with parameters whose
//! values are strings, display strings and tokens.

/// Appends `value` as a quoted string. Bytes outside printable ASCII become `?`.
pub(crate) fn push_string(out: &mut String, value: &str) {
    out.push('"');
    for char in value.chars() {
        match char {
            '"' | '\\' => {
                out.push('\\');
                out.push(char);
            }
            ' '..='~' => out.push(char),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

/// Appends `value` without loss: as a quoted string if it is printable ASCII, else as a display
/// string.
pub(super) fn push_text(out: &mut String, value: &str) {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return push_string(out, value);
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.push_str("%\"");
    for byte in value.bytes() {
        match byte {
            b'%' | b'"' | 0..=0x1f | 0x7f..=0xff => {
                out.push('%');
                out.push(char::from(DIGITS[usize::from(byte >> 4)]));
                out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
            }
            _ => out.push(char::from(byte)),
        }
    }
    out.push('"');
}

/// Reads an item from the front. `None` from any method means that the text is not well formed.
#[derive(Debug)]
pub(super) struct Parser<'text> {
    rest: &'text [u8],
}

impl<'text> Parser<'text> {
    pub(super) fn new(text: &'text [u8]) -> Self {
        Self { rest: text }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// A token or key of lower-case letters, digits, `-` and `_`.
    pub(super) fn word(&mut self) -> Option<&'text str> {
        let end = self
            .rest
            .iter()
            .position(|byte| !matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_'))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        std::str::from_utf8(word).ok().filter(|word| !word.is_empty())
    }

    /// `;key=`, with spaces after the semicolon.
    pub(super) fn parameter(&mut self) -> Option<&'text str> {
        self.literal(b";")?;
        while self.literal(b" ").is_some() {}
        let key = self.word()?;
        self.literal(b"=")?;
        Some(key)
    }

    /// A string or display string.
    pub(super) fn text(&mut self) -> Option<String> {
        let display = self.literal(b"%").is_some();
        self.literal(b"\"")?;
        let mut value = Vec::new();
        loop {
            match self.byte()? {
                b'"' => return String::from_utf8(value).ok(),
                b'\\' if !display => match self.byte()? {
                    escaped @ (b'"' | b'\\') => value.push(escaped),
                    _ => return None,
                },
                b'%' if display => {
                    let (high, low) = (lower_hex(self.byte()?)?, lower_hex(self.byte()?)?);
                    value.push(high << 4 | low);
                }
                byte @ b' '..=b'~' => value.push(byte),
                _ => return None,
            }
        }
    }

    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn literal(&mut self, wanted: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(wanted)?;
        Some(())
    }
}

fn lower_hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}
