//! The roots of the site's clients, as they are published.

use std::fs;
use std::path::PathBuf;

use cmgmux_net::ConfigError;
use cmgmux_net::tls::{FileSetting, load_roots};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The certificates of each file as PEM text. Whatever else a file holds, such as comments or a key,
/// stays here.
pub(super) fn read(files: &[PathBuf]) -> Result<Vec<String>, ConfigError> {
    let read_one = |(index, path): (usize, &PathBuf)| {
        let key = format!("client_roots[{index}]");
        load_roots(FileSetting::new(&key, path))?;
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::new(key, format!("{}: {error}", path.display())))?;
        Ok(certificates(&text))
    };
    files.iter().enumerate().map(read_one).collect()
}

/// The certificate blocks of a PEM text, one after the other.
fn certificates(text: &str) -> String {
    let mut blocks = String::with_capacity(text.len());
    let mut is_inside = false;
    for line in text.lines().map(str::trim_end) {
        is_inside |= line == BEGIN;
        if is_inside {
            blocks.push_str(line);
            blocks.push('\n');
        }
        is_inside &= line != END;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_certificates_are_published() {
        let file = "# our root\r\n-----BEGIN PRIVATE KEY-----\nsecret\n-----END PRIVATE KEY-----\n\
                    -----BEGIN CERTIFICATE-----\r\nAAAA\r\n-----END CERTIFICATE-----\r\nrest\n\
                    -----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----";
        assert_eq!(certificates(file), format!("{BEGIN}\nAAAA\n{END}\n{BEGIN}\nBBBB\n{END}\n"));
    }
}
