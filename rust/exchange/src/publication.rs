//! The messages of the control stream: what a connection point publishes about its site, and what
//! the gateway answers.
//!
//! Each message is JSON, ended by the end of its part, and at most [`MAX_MESSAGE_BYTES`] long.

mod message;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::message::{MAX_MESSAGE_BYTES, MessageError, MessageReader};
use self::message::{from_json, to_json};
use crate::mapping::{Mapping, MappingError, Route};
use crate::text::cut;

/// The most trusted client roots of a site.
pub const MAX_ROOTS: usize = 256;
/// The longest trusted client root, in bytes of its PEM form.
pub const MAX_ROOT_BYTES: usize = 64 * 1024;
/// The most reasons in an answer; further ones are dropped.
pub const MAX_REASONS: usize = 32;
/// The longest reason in an answer, in bytes; what is longer is cut.
pub const MAX_REASON_BYTES: usize = 512;

/// Everything a gateway has to know about a site. The last one accepted holds as a whole.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// Grows with every change. The same serial with another hash is an alarm.
    pub serial: u64,
    /// SHA-256 of the content, in lower-case hexadecimal digits.
    pub hash: String,
    /// The site: three upper-case letters or digits.
    pub site: String,
    /// The URL mappings.
    pub mappings: Vec<Mapping>,
    /// The roots that vouch for the site's clients, in PEM form.
    pub roots: Vec<String>,
}

impl Publication {
    /// A publication with the hash of its content.
    #[must_use]
    pub fn new(serial: u64, site: String, mappings: Vec<Mapping>, roots: Vec<String>) -> Self {
        let mut publication = Self { serial, hash: String::new(), site, mappings, roots };
        publication.hash = publication.content_hash();
        publication
    }

    /// The hash of everything but the serial. The order of mappings, methods and roots makes no
    /// difference, so two connection points that publish the same agree.
    #[must_use]
    pub fn content_hash(&self) -> String {
        let mut mappings: Vec<_> = self.mappings.iter().map(canonical_mapping).collect();
        mappings.sort_unstable();
        let mut roots: Vec<_> = self.roots.iter().map(String::as_str).collect();
        roots.sort_unstable();
        let content = serde_json::json!([self.site, mappings, roots]);
        let digest = Sha256::digest(content.to_string().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Checks the publication and brings its mappings into the form that requests are matched
    /// against. Whether the peer may speak for the site, and whether the roots are certificates, is
    /// the gateway's to check.
    ///
    /// # Errors
    ///
    /// [`PublicationError`] says what is wrong, for the answer's reasons.
    pub fn validate(&self) -> Result<Vec<Route>, PublicationError> {
        if !is_site_code(&self.site) {
            return Err(PublicationError::Site);
        }
        if self.roots.len() > MAX_ROOTS {
            return Err(PublicationError::TooManyRoots);
        }
        if let Some(index) = self.roots.iter().position(|root| root.len() > MAX_ROOT_BYTES) {
            return Err(PublicationError::RootTooLong { index });
        }
        let routes = Mapping::compile_all(&self.mappings)?;
        if self.hash != self.content_hash() {
            return Err(PublicationError::Hash);
        }
        Ok(routes)
    }

    /// The message.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLong`].
    pub fn encode(&self) -> Result<Bytes, MessageError> {
        to_json(self)
    }

    /// Reads the message; [`validate`](Self::validate) is the next step.
    ///
    /// # Errors
    ///
    /// [`MessageError`]; unknown settings are errors, because they could be restrictions.
    pub fn decode(message: &[u8]) -> Result<Self, MessageError> {
        from_json(message)
    }
}

/// What the gateway says to a publication.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PublicationAnswer {
    /// The serial of the publication.
    pub serial: u64,
    /// Whether it holds from now on. If not, the one before still does.
    pub accepted: bool,
    /// Why it was not accepted, in words; empty if it was.
    pub reasons: Vec<String>,
}

impl PublicationAnswer {
    /// Accepts the publication of this serial.
    #[must_use]
    pub fn accept(serial: u64) -> Self {
        Self { serial, accepted: true, reasons: Vec::new() }
    }

    /// Refuses the publication of this serial.
    #[must_use]
    pub fn refuse(serial: u64, reasons: impl IntoIterator<Item = String>) -> Self {
        let bounded = |mut reason: String| {
            cut(&mut reason, MAX_REASON_BYTES);
            reason
        };
        let reasons = reasons.into_iter().take(MAX_REASONS).map(bounded).collect();
        Self { serial, accepted: false, reasons }
    }

    /// The message.
    ///
    /// # Errors
    ///
    /// [`MessageError::TooLong`].
    pub fn encode(&self) -> Result<Bytes, MessageError> {
        to_json(self)
    }

    /// Reads the message.
    ///
    /// # Errors
    ///
    /// [`MessageError`].
    pub fn decode(message: &[u8]) -> Result<Self, MessageError> {
        from_json(message)
    }
}

/// Whether `site` is a site code: three upper-case letters or digits.
#[must_use]
pub fn is_site_code(site: &str) -> bool {
    site.len() == 3 && site.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}

/// A publication that is refused.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicationError {
    /// The site is no site code.
    #[error("site: is not three upper-case letters or digits, such as NYC")]
    Site,
    /// More than [`MAX_ROOTS`].
    #[error("roots: has more than {MAX_ROOTS} entries")]
    TooManyRoots,
    /// Longer than [`MAX_ROOT_BYTES`].
    #[error("roots[{index}]: is longer than {MAX_ROOT_BYTES} bytes")]
    RootTooLong {
        /// Its position.
        index: usize,
    },
    /// A mapping that cannot be used.
    #[error(transparent)]
    Mapping(#[from] MappingError),
    /// The hash is not that of the content.
    #[error("hash: is not that of the content; gateway and connection point differ in version")]
    Hash,
}

/// One mapping as text in which equal mappings are equal. The timeout is in whole milliseconds,
/// because the last digit of a fraction may not survive the way through JSON.
fn canonical_mapping(mapping: &Mapping) -> String {
    let mut methods: Vec<_> = mapping.methods.iter().map(String::as_str).collect();
    methods.sort_unstable();
    let response_timeout_ms = (mapping.response_timeout_s * 1000.0).round();
    serde_json::json!([
        mapping.external,
        mapping.internal,
        mapping.authentication,
        methods,
        mapping.max_body_bytes,
        response_timeout_ms,
        mapping.hold,
    ])
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(external: &str) -> Mapping {
        let json = serde_json::json!({
            "external": external,
            "internal": "http://mp:80",
            "methods": ["GET", "POST"],
            "response_timeout_s": 0.300_000_000_000_000_04,
        });
        serde_json::from_value(json).expect("a mapping")
    }

    fn publication() -> Publication {
        let roots = vec!["root 1".to_owned(), "root 2".to_owned()];
        Publication::new(7, "NYC".into(), vec![mapping("/a"), mapping("/b")], roots)
    }

    #[test]
    fn a_publication_survives_the_control_stream() {
        let message = publication().encode().expect("short");
        let read = Publication::decode(&message).expect("valid");
        assert_eq!(read.validate().expect("valid").len(), 2);
        assert_eq!(read.hash, publication().hash);
    }

    #[test]
    fn the_hash_depends_on_content_alone() {
        let first = publication();
        let mut same = first.clone();
        same.serial = 8;
        same.mappings.reverse();
        same.mappings[0].methods.reverse();
        same.roots.reverse();
        assert_eq!(same.content_hash(), first.hash);
        assert_eq!(first.hash.len(), 64);
        let changes: [fn(&mut Publication); 6] = [
            |changed| changed.site = "PAR".into(),
            |changed| changed.roots.truncate(1),
            |changed| changed.mappings.truncate(1),
            |changed| changed.mappings[0].hold = true,
            |changed| changed.mappings[0].response_timeout_s = 0.4,
            |changed| changed.mappings[0].max_body_bytes = 1,
        ];
        for change in changes {
            let mut changed = first.clone();
            change(&mut changed);
            assert_ne!(changed.content_hash(), first.hash, "{changed:?}");
            assert!(changed.validate().is_err());
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_place() {
        let valid = publication();
        let publish = |mappings, roots| Publication::new(1, "NYC".into(), mappings, roots);
        for (publication, words) in [
            (Publication::new(1, "nyc".into(), vec![], vec![]), "site: "),
            (Publication::new(1, "NYCX".into(), vec![], vec![]), "site: "),
            (publish(vec![], vec![String::new(); MAX_ROOTS + 1]), "roots: "),
            (publish(vec![], vec![String::new(), "x".repeat(MAX_ROOT_BYTES + 1)]), "roots[1]: "),
            (publish(vec![mapping("/a"), mapping("/A")], vec![]), "mappings[1].external: "),
            (publish(vec![mapping("/a"); 1025], vec![]), "mappings: "),
            (Publication { hash: "0".repeat(64), ..valid }, "hash: "),
        ] {
            let error = publication.validate().expect_err("refused").to_string();
            assert!(error.starts_with(words), "{error}");
        }
    }

    #[test]
    fn unknown_settings_are_refused() {
        let message = br#"{"serial":1,"hash":"","site":"NYC","mappings":[],"roots":[],"x":1}"#;
        assert!(Publication::decode(message).is_err());
    }

    #[test]
    fn answers_are_bounded_and_survive() {
        let answer = PublicationAnswer::refuse(7, vec!["ü".repeat(1000); 100]);
        assert_eq!(answer.reasons.len(), MAX_REASONS);
        assert_eq!(answer.reasons[0].len(), MAX_REASON_BYTES);
        for answer in [answer, PublicationAnswer::accept(7)] {
            let message = answer.encode().expect("short");
            assert_eq!(PublicationAnswer::decode(&message), Ok(answer));
        }
    }
}
