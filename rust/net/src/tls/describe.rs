//! TLS errors in words for whoever has to act on them, from the view of either side.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::{
    AlertDescription, CertificateError, Error, InconsistentKeys, InvalidMessage, PeerIncompatible,
};
use rustls_pki_types::UnixTime;

/// Says what went wrong on a TLS connection: in the handshake, or later.
///
/// Takes a [`rustls::Error`], an [`io::Error`] (with a TLS error inside or not), or any other error,
/// whose message it keeps. The words describe the peer from our side: an alert from it is about us,
/// a verdict of our verifier is about it.
pub fn describe(error: &(dyn StdError + 'static)) -> String {
    if let Some(error) = error.downcast_ref::<Error>() {
        return describe_tls(error);
    }
    let Some(error) = error.downcast_ref::<io::Error>() else {
        return error.to_string();
    };
    match error.get_ref() {
        Some(inner) => {
            let inner: &(dyn StdError + 'static) = inner;
            match error.kind() {
                // tokio-rustls says so when the peer leaves without a goodbye.
                io::ErrorKind::UnexpectedEof if !inner.is::<Error>() => closed(),
                _ => describe(inner),
            }
        }
        None => describe_io(error),
    }
}

fn closed() -> String {
    "the peer closed the connection unexpectedly".to_owned()
}

fn describe_io(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => closed(),
        io::ErrorKind::ConnectionRefused => {
            "connection refused: nobody listens there, or a firewall rejects it".to_owned()
        }
        io::ErrorKind::ConnectionReset => "the peer reset the connection".to_owned(),
        io::ErrorKind::BrokenPipe => "the peer has closed the connection".to_owned(),
        io::ErrorKind::TimedOut => "the peer did not answer in time".to_owned(),
        _ => error.to_string(),
    }
}

fn describe_tls(error: &Error) -> String {
    let words = match error {
        Error::AlertReceived(alert) => return describe_alert(*alert),
        Error::InvalidCertificate(error) => return describe_certificate(error),
        Error::PeerIncompatible(reason) => return describe_incompatible(reason),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType
            | InvalidMessage::UnknownProtocolVersion
            | InvalidMessage::MessageTooLarge,
        ) => "the peer does not speak TLS",
        Error::NoCertificatesPresented => "the peer showed no certificate, which is required",
        Error::NoApplicationProtocol => "the peer offers no application protocol that we speak",
        Error::PeerSentOversizedRecord => "the peer sent a larger record than TLS allows",
        Error::DecryptError => "the peer's data was damaged on the way: it cannot be decrypted",
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the private key does not belong to the certificate"
        }
        Error::FailedToGetCurrentTime => "the system's clock cannot be read",
        _ => return format!("TLS failed: {error}"),
    };
    words.to_owned()
}

/// An alert is what the peer holds against us.
fn describe_alert(alert: AlertDescription) -> String {
    let words = match alert {
        AlertDescription::UnknownCA => "the peer does not trust the CA that issued our certificate",
        AlertDescription::CertificateExpired => {
            "the peer says that our certificate has expired or is not valid yet"
        }
        AlertDescription::CertificateRevoked => "the peer says that our certificate is revoked",
        AlertDescription::CertificateRequired => {
            "the peer requires a certificate and we showed none"
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::NoCertificate => "the peer does not accept our certificate",
        AlertDescription::AccessDenied => "the peer denies us access",
        AlertDescription::ProtocolVersion => "the peer speaks no TLS version that we speak",
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            "the peer accepts none of the cryptographic methods that we offer"
        }
        AlertDescription::NoApplicationProtocol => {
            "the peer speaks none of the application protocols that we offer"
        }
        AlertDescription::UnrecognisedName => "the peer does not know the name that we asked for",
        AlertDescription::DecryptError => {
            "the peer says that a signature in our certificate or handshake is wrong; perhaps it \
             trusts another CA of the same name"
        }
        AlertDescription::BadRecordMac => "the peer says that our data was damaged on the way",
        AlertDescription::InternalError => "the peer reports an internal error",
        AlertDescription::UserCanceled => "the peer cancelled the handshake",
        _ => return format!("the peer ended the connection with the TLS alert {alert:?}"),
    };
    words.to_owned()
}

/// A verdict of our verifier on the peer's certificate.
fn describe_certificate(error: &CertificateError) -> String {
    let words = match error {
        CertificateError::UnknownIssuer => "the peer's certificate was not issued by a trusted CA",
        CertificateError::Expired => "the peer's certificate has expired",
        CertificateError::ExpiredContext { time, not_after } => {
            return format!("the peer's certificate expired {} ago", between(*not_after, *time));
        }
        CertificateError::NotValidYet => "the peer's certificate is not valid yet",
        CertificateError::NotValidYetContext { time, not_before } => {
            let wait = between(*time, *not_before);
            return format!(
                "the peer's certificate becomes valid in {wait} only; check the clocks"
            );
        }
        CertificateError::NotValidForName => {
            "the peer's certificate is not valid for the name that we dialled"
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = match presented.as_slice() {
                [] => "no name at all".to_owned(),
                names => names.join(", "),
            };
            let expected = expected.to_str();
            return format!(
                "the peer's certificate is not valid for {expected}; it is valid for {presented}"
            );
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the peer's certificate is not meant for this purpose (extended key usage)"
        }
        CertificateError::Revoked => "the peer's certificate is revoked",
        CertificateError::BadSignature => {
            "a signature in the peer's certificate or handshake is wrong; perhaps another CA of the \
             same name issued the certificate"
        }
        CertificateError::BadEncoding => "the peer's certificate cannot be read",
        _ => return format!("the peer's certificate is refused: {error}"),
    };
    words.to_owned()
}

fn describe_incompatible(reason: &PeerIncompatible) -> String {
    let words = match reason {
        PeerIncompatible::SupportedVersionsExtensionRequired
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
        | PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled => {
            "the peer speaks no TLS version that we accept"
        }
        PeerIncompatible::NoCipherSuitesInCommon
        | PeerIncompatible::NoKxGroupsInCommon
        | PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the peer offers no cryptographic method that we accept"
        }
        _ => return format!("the peer's TLS is not compatible with ours: {reason:?}"),
    };
    words.to_owned()
}

/// The time between two moments in its largest unit, such as `3 days`.
fn between(from: UnixTime, until: UnixTime) -> String {
    let seconds = Duration::from_secs(until.as_secs().saturating_sub(from.as_secs())).as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io_error(kind: io::ErrorKind, error: Error) -> io::Error {
        io::Error::new(kind, error)
    }

    #[test]
    fn a_tls_error_inside_an_io_error_is_found() {
        let error =
            io_error(io::ErrorKind::InvalidData, Error::AlertReceived(AlertDescription::UnknownCA));
        assert_eq!(describe(&error), "the peer does not trust the CA that issued our certificate");
    }

    #[test]
    fn expiry_says_how_long_ago() {
        let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let expired = |not_after, time| {
            describe(&Error::InvalidCertificate(CertificateError::ExpiredContext {
                time: at(time),
                not_after: at(not_after),
            }))
        };
        assert_eq!(expired(0, 59), "the peer's certificate expired 59 seconds ago");
        assert_eq!(expired(0, 60), "the peer's certificate expired 1 minute ago");
        assert_eq!(expired(0, 7_200), "the peer's certificate expired 2 hours ago");
        assert_eq!(expired(0, 90_000), "the peer's certificate expired 1 day ago");
    }

    #[test]
    fn a_system_error_keeps_its_words_and_number() {
        let error = io::Error::from_raw_os_error(113);
        assert!(describe(&error).contains("os error 113"), "{}", describe(&error));
    }

    #[test]
    fn an_error_of_another_kind_keeps_its_message() {
        let error = "x".parse::<u8>().expect_err("not a number");
        assert_eq!(describe(&error), error.to_string());
    }

    #[test]
    fn a_vanished_peer_is_said_so_with_or_without_tls_words() {
        let plain = io::Error::from(io::ErrorKind::UnexpectedEof);
        let wordy = io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof");
        assert_eq!(describe(&plain), describe(&wordy));
        assert_eq!(describe(&plain), "the peer closed the connection unexpectedly");
    }
}
