//! Distinguished names as text, by RFC 4514.

use std::fmt::Write;

use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Writes a name as RFC 4514 does: the most specific part first, special characters escaped.
pub(super) fn to_rfc4514(name: &X509Name<'_>) -> String {
    let parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.into_iter().rev().collect::<Vec<_>>().join(",")
}

/// The common name, if there is exactly one and it is text.
pub(super) fn common_name(name: &X509Name<'_>) -> Option<String> {
    let mut names = name.iter_common_name();
    let first = names.next()?;
    if names.next().is_some() {
        return None;
    }
    first.as_str().ok().map(str::to_owned)
}

/// Lower-case hexadecimal digits, two for each byte.
pub(super) fn hex(data: &[u8]) -> String {
    data.iter().fold(String::with_capacity(data.len() * 2), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let kind = oid2abbrev(kind, oid_registry()).map_or_else(|_| kind.to_id_string(), str::to_owned);
    match attribute.as_str() {
        Ok(text) => format!("{kind}={}", escape(text)),
        Err(_) => format!("{kind}=#{}", hex(attribute.as_slice())),
    }
}

fn escape(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => {
                escaped.extend(['\\', character]);
            }
            '#' if index == 0 => escaped.push_str("\\#"),
            ' ' if index == 0 || index == last => escaped.push_str("\\ "),
            control if control.is_control() => {
                let mut bytes = [0; 4];
                for byte in control.encode_utf8(&mut bytes).bytes() {
                    // Writing to a string never fails.
                    let _ = write!(escaped, "\\{byte:02x}");
                }
            }
            plain => escaped.push(plain),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_pass_for_another_attribute() {
        assert_eq!(escape("a,O=Contoso"), "a\\,O\\=Contoso");
        assert_eq!(escape("a+b\\c\"d;<e>"), "a\\+b\\\\c\\\"d\\;\\<e\\>");
    }

    #[test]
    fn edges_and_control_characters_are_escaped() {
        assert_eq!(escape(" a b "), "\\ a b\\ ");
        assert_eq!(escape("#1#"), "\\#1#");
        assert_eq!(escape("a\r\n\0"), "a\\0d\\0a\\00");
        assert_eq!(escape("Zoë"), "Zoë");
        assert_eq!(escape(""), "");
    }
}
