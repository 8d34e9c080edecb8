//! `traceparent` (W3C Trace Context): passed if valid, else started.

use http::{HeaderMap, HeaderValue};

use super::{TRACEPARENT, TRACESTATE};

/// Leaves a valid `traceparent` as it is; otherwise starts a trace with the bytes of `random` and
/// removes `tracestate`, which belonged to the trace that is not known.
pub fn ensure_traceparent(fields: &mut HeaderMap, random: impl FnOnce() -> [u8; 24]) {
    let mut values = fields.get_all(TRACEPARENT).iter();
    let valid = values.next().is_some_and(is_valid) && values.next().is_none();
    if !valid {
        fields.insert(TRACEPARENT, start(random()));
        fields.remove(TRACESTATE);
    }
}

/// `version-trace id-parent id-flags`, in lower-case hexadecimal digits. A later version may go on
/// after another `-`.
fn is_valid(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    if bytes.len() < 55 {
        return false;
    }
    let (known, rest) = bytes.split_at(55);
    let hex = |part: &[u8]| part.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let id = |part: &[u8]| hex(part) && part.iter().any(|&digit| digit != b'0');
    let (version, trace, parent, flags) =
        (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    [2, 35, 52].iter().all(|&dash| known[dash] == b'-')
        && hex(version)
        && version != b"ff"
        && id(trace)
        && id(parent)
        && hex(flags)
        && (rest.is_empty() || version != b"00" && rest[0] == b'-')
}

fn start(mut random: [u8; 24]) -> HeaderValue {
    // An id of zeros only would be invalid.
    random[15] |= 1;
    random[23] |= 1;
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    push_hex(&mut text, &random[..16]);
    text.push('-');
    push_hex(&mut text, &random[16..]);
    text.push_str("-00");
    // Only hexadecimal digits and dashes were put in.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("00"))
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 0xf)]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn after(values: &[&'static str]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for &value in values {
            fields.append(TRACEPARENT, HeaderValue::from_static(value));
        }
        fields.insert(TRACESTATE, HeaderValue::from_static("a=b"));
        ensure_traceparent(&mut fields, || [0; 24]);
        fields
    }

    #[test]
    fn a_valid_trace_goes_on() {
        for value in [VALID, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"] {
            let fields = after(&[value]);
            assert_eq!(fields[TRACEPARENT], value);
            assert!(fields.contains_key(TRACESTATE));
        }
    }

    #[test]
    fn anything_else_starts_a_valid_trace() {
        for values in [
            &[] as &[&'static str],
            &[VALID, VALID],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
            &["00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01"],
            &["00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
            &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
            &["00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01"],
            &["00"],
        ] {
            let fields = after(values);
            assert!(is_valid(&fields[TRACEPARENT]), "{values:?}");
            assert_eq!(fields.get_all(TRACEPARENT).iter().count(), 1);
            assert!(!values.contains(&fields[TRACEPARENT].to_str().expect("ASCII")));
            assert!(!fields.contains_key(TRACESTATE));
        }
    }
}
