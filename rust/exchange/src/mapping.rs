//! URL mappings: which external URL prefix leads to which internal URL, and on what terms.

mod compile;
mod route;
mod table;

use std::path::PathBuf;

use http::HeaderValue;
use serde::{Deserialize, Serialize};

pub use self::route::{RewriteError, Route};
pub use self::table::{DuplicateExternal, Entry, MappingTable};

/// The most mappings that one site may have.
pub const MAX_MAPPINGS: usize = 1024;
/// The longest external prefix and the longest internal URL, in bytes.
pub const MAX_URL_BYTES: usize = 2048;
/// The most segments that an external prefix may have.
pub const MAX_SEGMENTS: usize = 16;
/// The most methods that a mapping may list.
pub const MAX_METHODS: usize = 32;
/// The longest response timeout, in seconds.
pub const MAX_RESPONSE_TIMEOUT_S: f64 = 86_400.0;

/// What a mapping demands of a client.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Authentication {
    /// A certificate that a root of the mapping's site vouches for.
    #[default]
    Certificate,
    /// Nothing: whoever can reach the gateway may use the mapping.
    None,
}

/// One mapping as it is configured and published. [`compile`](Self::compile) checks it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The path prefix that clients use, such as `/CCM_Proxy_MutualAuth/72057594037927939`.
    /// Matched by whole segments, without regard to letter case; the longest match wins.
    pub external: String,
    /// What the prefix is replaced by: `http://host:port/path` or `https://host:port/path`, port and
    /// path optional.
    pub internal: String,
    /// What clients have to show. Default: a certificate.
    #[serde(default)]
    pub authentication: Authentication,
    /// The methods that pass, with regard to letter case. Default: GET, HEAD, POST, PROPFIND,
    /// `CCM_POST`, `BITS_POST`, OPTIONS.
    #[serde(default = "default_methods")]
    pub methods: Vec<String>,
    /// The longest request body, in bytes. Default: 100 MiB. Bodies are streamed, so a larger limit
    /// costs no memory.
    #[serde(default = "default_max_body_bytes")]
    pub max_body_bytes: u64,
    /// How long the role may take until the head of its answer, in seconds. Default: 60. While it
    /// lasts, each waiting request holds a connection to the role.
    #[serde(default = "default_response_timeout_s")]
    pub response_timeout_s: f64,
    /// Whether requests are held until the role has something to say: no response timeout then.
    /// Default: no.
    #[serde(default)]
    pub hold: bool,
    /// PEM file with the authorities that may vouch for a role behind an `https://` URL, which must
    /// have it. The connection point's own business: it is not published.
    #[serde(default, skip_serializing)]
    pub upstream_ca: Option<PathBuf>,
}

impl Mapping {
    /// The settings that may be left out, with their defaults.
    #[must_use]
    pub fn defaults() -> serde_json::Value {
        serde_json::json!({
            "authentication": Authentication::default(),
            "methods": default_methods(),
            "max_body_bytes": default_max_body_bytes(),
            "response_timeout_s": default_response_timeout_s(),
            "hold": false,
            "upstream_ca": null,
        })
    }

    /// Checks the mapping and brings it into the form that requests are matched against.
    ///
    /// # Errors
    ///
    /// [`MappingError`] with the key of the setting at fault, such as `internal`.
    pub fn compile(&self) -> Result<Route, MappingError> {
        let external = compile::external(&self.external)?;
        let (scheme, authority, base) = compile::internal(&self.internal)?;
        let methods = compile::methods(&self.methods)?;
        let allow = HeaderValue::try_from(self.methods.join(", "))
            .map_err(|_| MappingError::new("methods", "is not a list of method names"))?;
        let response_timeout = compile::timeout(self.response_timeout_s)?;
        Ok(Route {
            external,
            scheme,
            authority,
            base,
            methods,
            allow,
            authentication: self.authentication,
            max_body_bytes: self.max_body_bytes,
            response_timeout: if self.hold { None } else { Some(response_timeout) },
        })
    }

    /// Checks all mappings of a site.
    ///
    /// # Errors
    ///
    /// [`MappingError`] with the key of the setting at fault, such as `mappings[2].internal`.
    pub fn compile_all(mappings: &[Self]) -> Result<Vec<Route>, MappingError> {
        if mappings.len() > MAX_MAPPINGS {
            let message = format!("has {} entries; at most {MAX_MAPPINGS} are", mappings.len());
            return Err(MappingError::new("mappings", format!("{message} possible")));
        }
        let compiled = mappings
            .iter()
            .enumerate()
            .map(|(index, mapping)| mapping.compile().map_err(|error| error.within(index)));
        let routes = compiled.collect::<Result<Vec<_>, _>>()?;
        MappingTable::build(routes.iter().map(|route| (route.clone(), ()))).map_err(|error| {
            let message = format!("is the same prefix as that of mappings[{}]", error.first);
            MappingError::new("external", message).within(error.second)
        })?;
        Ok(routes)
    }
}

fn default_methods() -> Vec<String> {
    ["GET", "HEAD", "POST", "PROPFIND", "CCM_POST", "BITS_POST", "OPTIONS"].map(String::from).into()
}

fn default_max_body_bytes() -> u64 {
    100 * 1024 * 1024
}

fn default_response_timeout_s() -> f64 {
    60.0
}

/// A setting of a mapping that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {message}")]
pub struct MappingError {
    /// The key, such as `internal` or `mappings[2].internal`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl MappingError {
    fn new(key: &str, message: impl Into<String>) -> Self {
        Self { key: key.to_owned(), message: message.into() }
    }

    fn within(self, index: usize) -> Self {
        Self { key: format!("mappings[{index}].{}", self.key), message: self.message }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn mapping(json: &str) -> Mapping {
        serde_json::from_str(json).expect("a mapping")
    }

    fn with(external: &str, internal: &str) -> Mapping {
        let mut mapping = mapping(r#"{"external": "/a", "internal": "http://mp"}"#);
        mapping.external = external.into();
        mapping.internal = internal.into();
        mapping
    }

    #[test]
    fn what_is_left_out_has_the_documented_default() {
        let mapping = mapping(r#"{"external": "/a", "internal": "http://mp"}"#);
        let mut written = serde_json::to_value(&mapping).expect("JSON");
        for required in ["external", "internal"] {
            written.as_object_mut().expect("an object").remove(required);
        }
        let mut defaults = Mapping::defaults();
        // Not a word of it leaves the connection point.
        assert!(defaults.as_object_mut().expect("an object").remove("upstream_ca").is_some());
        assert_eq!(written, defaults);
        let route = mapping.compile().expect("valid");
        assert_eq!(route.authentication(), Authentication::Certificate);
        assert_eq!(route.response_timeout(), Some(Duration::from_secs(60)));
    }

    #[test]
    fn unknown_settings_are_refused() {
        let json = r#"{"external": "/a", "internal": "http://mp", "metods": ["GET"]}"#;
        let error = serde_json::from_str::<Mapping>(json).expect_err("a misspelt key");
        assert!(error.to_string().contains("metods"), "{error}");
    }

    #[test]
    fn a_held_mapping_has_no_response_timeout() {
        let held = Mapping { hold: true, ..with("/a", "http://mp") };
        assert_eq!(held.compile().expect("valid").response_timeout(), None);
    }

    #[test]
    fn errors_name_the_setting_and_say_what_would_be_right() {
        let valid = with("/a", "http://mp");
        let methods = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        for (mapping, key, words) in [
            (with("a", "http://mp"), "external", "such as /name"),
            (with("/a?b", "http://mp"), "external", "query"),
            (with("/a/../..", "http://mp"), "external", "above the root"),
            (with(&"/a".repeat(17), "http://mp"), "external", "16 segments"),
            (with("/a", "mp:80"), "internal", "such as http://host"),
            (with("/a", "/path"), "internal", "such as http://host"),
            (with("/a", "ftp://mp"), "internal", "such as http://host"),
            (with("/a", "http://u@mp/"), "internal", "user"),
            (with("/a", "http://mp/?a"), "internal", "query"),
            (with("/a", "http://mp/#a"), "internal", "fragment"),
            (with("/a", "http://mp/a%2fb"), "internal", "path"),
            (Mapping { methods: vec![], ..valid.clone() }, "methods", "1 to 32"),
            (Mapping { methods: methods(&["GET", "GET"]), ..valid.clone() }, "methods", "twice"),
            (Mapping { methods: methods(&["G T"]), ..valid.clone() }, "methods", "such as GET"),
            (Mapping { methods: methods(&["CONNECT"]), ..valid.clone() }, "methods", "cannot pass"),
            (Mapping { response_timeout_s: 0.0, ..valid.clone() }, "response_timeout_s", "hold"),
            (
                Mapping { response_timeout_s: f64::NAN, ..valid.clone() },
                "response_timeout_s",
                "NaN",
            ),
        ] {
            let error = mapping.compile().expect_err("refused");
            assert_eq!(error.key, key, "{error}");
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn errors_in_a_list_name_the_entry() {
        let error = Mapping::compile_all(&[with("/a", "http://mp"), with("/b", "ftp://mp")])
            .expect_err("refused");
        assert_eq!(error.key, "mappings[1].internal");
        let error = Mapping::compile_all(&[
            with("/x/a", "http://mp"),
            with("/b", "http://mp"),
            with("/X/%41/", "http://sup"),
        ])
        .expect_err("refused");
        assert_eq!(
            error.to_string(),
            "mappings[2].external: is the same prefix as that of mappings[0]"
        );
    }
}
