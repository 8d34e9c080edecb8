//! Canonical form of a path: escapes first, dot segments second, in one pass.

use super::TargetError;

/// What a raw byte of a path becomes.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Class {
    /// Stays as it is.
    Plain,
    /// Ends a segment.
    Slash,
    /// Starts an escape.
    Percent,
    /// Is sent raw by real clients though RFC 3986 wants it escaped.
    Escape,
    /// Is refused.
    Refuse,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Refuse; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        classes[byte as usize] = match byte {
            b'/' => Class::Slash,
            b'%' => Class::Percent,
            b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Class::Escape,
            b'#' | b'?' | b'\\' => Class::Refuse,
            other if other.is_ascii_graphic() => Class::Plain,
            _ => Class::Refuse,
        };
        byte += 1;
    }
    classes
};

/// Whether `path` needs no change. May say no of a path that is canonical.
pub(super) fn is_canonical(path: &str) -> bool {
    let mut after_slash = false;
    path.bytes().all(|byte| {
        let class = CLASSES[usize::from(byte)];
        let fine = match class {
            Class::Plain => !(after_slash && byte == b'.'),
            Class::Slash => true,
            Class::Percent | Class::Escape | Class::Refuse => false,
        };
        after_slash = class == Class::Slash;
        fine
    })
}

/// Appends the canonical form of `path`, which starts with `/`, to the empty `out`.
pub(super) fn canonicalise(path: &str, out: &mut String) -> Result<(), TargetError> {
    debug_assert!(path.starts_with('/') && out.is_empty());
    let bytes = path.as_bytes();
    out.push('/');
    let mut segment_start = 1;
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        at += 1;
        match CLASSES[usize::from(byte)] {
            Class::Plain => out.push(char::from(byte)),
            Class::Slash => {
                if !remove_dot_segment(out, &mut segment_start)? {
                    out.push('/');
                    segment_start = out.len();
                }
            }
            Class::Percent => {
                push_escape(out, unescape(bytes.get(at..at + 2))?)?;
                at += 2;
            }
            Class::Escape => push_hex(out, byte),
            Class::Refuse => return Err(TargetError::Byte(byte)),
        }
    }
    remove_dot_segment(out, &mut segment_start)?;
    Ok(())
}

/// Takes `.` or `..` off the end of `out`; says whether there was one. `out` ends in `/` then.
fn remove_dot_segment(out: &mut String, segment_start: &mut usize) -> Result<bool, TargetError> {
    match &out[*segment_start..] {
        "." => out.truncate(*segment_start),
        ".." => {
            let parent = out[..*segment_start - 1].rfind('/').ok_or(TargetError::AboveRoot)? + 1;
            out.truncate(parent);
            *segment_start = parent;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn unescape(digits: Option<&[u8]>) -> Result<u8, TargetError> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    };
    match digits {
        Some(&[high, low]) => nibble(high).zip(nibble(low)).map(|(high, low)| high << 4 | low),
        _ => None,
    }
    .ok_or(TargetError::Escape)
}

fn push_escape(out: &mut String, byte: u8) -> Result<(), TargetError> {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            out.push(char::from(byte));
        }
        b'/' | b'\\' | 0..=0x1f | 0x7f => return Err(TargetError::EscapedByte(byte)),
        _ => push_hex(out, byte),
    }
    Ok(())
}

fn push_hex(out: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(DIGITS[usize::from(byte >> 4)]));
    out.push(char::from(DIGITS[usize::from(byte & 0xf)]));
}
