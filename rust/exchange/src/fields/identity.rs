//! `Cmgmux-Identity` and `Client-Cert`: who a client is, as the gateway established it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::structured::{Parser, push_text};

/// The longest certificate that is passed on, in bytes of its DER form.
pub const MAX_CERTIFICATE_BYTES: usize = 8 * 1024;
/// The longest subject or tenant, in bytes.
pub const MAX_NAME_BYTES: usize = 1024;

/// How the gateway knows a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdentityKind {
    /// Not at all: the mapping demands no authentication.
    Anonymous,
    /// By a certificate that a root of the mapping's site vouches for.
    Certificate,
}

/// What kind of party a client is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Principal {
    /// A machine.
    Device,
    /// A person.
    User,
}

/// Who a client is, as the gateway established it.
///
/// As a field it is a structured item: the kind, then what is known as parameters, such as
/// `certificate;subject="CN=PC1";principal=device`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// How the gateway knows.
    pub kind: IdentityKind,
    /// The name that the certificate or token carries.
    pub subject: Option<String>,
    /// The directory that the name belongs to.
    pub tenant: Option<String>,
    /// Whether it is a machine or a person.
    pub principal: Option<Principal>,
}

impl Identity {
    /// A client of whom nothing is known.
    pub const ANONYMOUS: Self =
        Self { kind: IdentityKind::Anonymous, subject: None, tenant: None, principal: None };

    /// A device with a verified certificate of this subject.
    #[must_use]
    pub fn of_certificate(subject: String) -> Self {
        Self {
            kind: IdentityKind::Certificate,
            subject: Some(subject),
            tenant: None,
            principal: Some(Principal::Device),
        }
    }

    /// The value of `Cmgmux-Identity`.
    ///
    /// # Errors
    ///
    /// [`IdentityError::TooLong`] if a name is longer than [`MAX_NAME_BYTES`]: a name is never cut,
    /// because two could become one.
    pub fn to_field(&self) -> Result<HeaderValue, IdentityError> {
        let mut text = String::from(match self.kind {
            IdentityKind::Anonymous => "anonymous",
            IdentityKind::Certificate => "certificate",
        });
        for (key, value) in [(";subject=", &self.subject), (";tenant=", &self.tenant)] {
            if let Some(value) = value {
                if value.len() > MAX_NAME_BYTES {
                    return Err(IdentityError::TooLong);
                }
                text.push_str(key);
                push_text(&mut text, value);
            }
        }
        match self.principal {
            Some(Principal::Device) => text.push_str(";principal=device"),
            Some(Principal::User) => text.push_str(";principal=user"),
            None => {}
        }
        HeaderValue::try_from(text).map_err(|_| IdentityError::Malformed)
    }

    /// Reads the value of `Cmgmux-Identity`.
    ///
    /// # Errors
    ///
    /// [`IdentityError::Malformed`] for everything that [`to_field`](Self::to_field) would not
    /// write, unknown kinds and parameters among them.
    pub fn from_field(value: &HeaderValue) -> Result<Self, IdentityError> {
        parse(value.as_bytes()).ok_or(IdentityError::Malformed)
    }
}

fn parse(text: &[u8]) -> Option<Identity> {
    let mut parser = Parser::new(text);
    let kind = match parser.word()? {
        "anonymous" => IdentityKind::Anonymous,
        "certificate" => IdentityKind::Certificate,
        _ => return None,
    };
    let mut identity = Identity { kind, ..Identity::ANONYMOUS };
    while !parser.is_empty() {
        let repeated = match parser.parameter()? {
            "subject" => identity.subject.replace(parser.text()?).is_some(),
            "tenant" => identity.tenant.replace(parser.text()?).is_some(),
            "principal" => {
                let principal = match parser.word()? {
                    "device" => Principal::Device,
                    "user" => Principal::User,
                    _ => return None,
                };
                identity.principal.replace(principal).is_some()
            }
            _ => return None,
        };
        if repeated {
            return None;
        }
    }
    Some(identity)
}

/// The value of `Client-Cert` for a certificate in DER form.
///
/// # Errors
///
/// [`IdentityError::TooLong`] if it is longer than [`MAX_CERTIFICATE_BYTES`].
pub fn client_cert(der: &[u8]) -> Result<HeaderValue, IdentityError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(IdentityError::TooLong);
    }
    let mut text = String::with_capacity(der.len().div_ceil(3) * 4 + 2);
    text.push(':');
    STANDARD.encode_string(der, &mut text);
    text.push(':');
    HeaderValue::try_from(text).map_err(|_| IdentityError::Malformed)
}

/// An identity that cannot travel as a field.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A name or the certificate is longer than its limit.
    #[error(
        "a name is over {MAX_NAME_BYTES} bytes or the certificate over {MAX_CERTIFICATE_BYTES}"
    )]
    TooLong,
    /// The field is not what the gateway writes.
    #[error("the field Cmgmux-Identity is malformed")]
    Malformed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_survives_the_field() {
        for (identity, expected) in [
            (Identity::ANONYMOUS, "anonymous"),
            (
                Identity::of_certificate("CN=PC1, O=\"A\\B\"".into()),
                r#"certificate;subject="CN=PC1, O=\"A\\B\"";principal=device"#,
            ),
            (
                Identity {
                    tenant: Some("50 % \"ü\"".into()),
                    principal: Some(Principal::User),
                    ..Identity::of_certificate("a\r\nb".into())
                },
                r#"certificate;subject=%"a%0d%0ab";tenant=%"50 %25 %22%c3%bc%22";principal=user"#,
            ),
        ] {
            let field = identity.to_field().expect("short names");
            assert_eq!(field, expected);
            assert_eq!(Identity::from_field(&field), Ok(identity));
        }
    }

    #[test]
    fn what_the_gateway_would_not_write_is_refused() {
        for text in [
            "",
            "root",
            "Certificate",
            "certificate;",
            "certificate;subject",
            "certificate;subject=",
            "certificate;subject=a",
            "certificate;subject=\"a",
            "certificate;subject=\"\\a\"",
            "certificate;subject=%\"%C3%BC\"",
            "certificate;subject=%\"%ff\"",
            "certificate;subject=\"a\";subject=\"b\"",
            "certificate;admin=\"a\"",
            "certificate;principal=root",
            "certificate, anonymous",
        ] {
            let value = HeaderValue::from_static(text);
            assert_eq!(Identity::from_field(&value), Err(IdentityError::Malformed), "{text}");
        }
    }

    #[test]
    fn names_are_refused_rather_than_cut() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        assert!(Identity::of_certificate(longest.clone()).to_field().is_ok());
        let over = Identity::of_certificate(longest + "a");
        assert_eq!(over.to_field(), Err(IdentityError::TooLong));
    }

    #[test]
    fn a_certificate_becomes_a_byte_sequence() {
        assert_eq!(client_cert(&[0xfb, 0xff, 0x00, 0x01]).expect("short"), ":+/8AAQ==:");
        assert!(client_cert(&[0; MAX_CERTIFICATE_BYTES]).is_ok());
        assert_eq!(client_cert(&[0; MAX_CERTIFICATE_BYTES + 1]), Err(IdentityError::TooLong));
    }
}
