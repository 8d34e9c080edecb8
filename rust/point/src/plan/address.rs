//! Host and port of an instance.

use std::fmt;
use std::net::Ipv6Addr;

/// Where to connect: a host name or IP address, and a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Address {
    host: String,
    port: u16,
}

impl Address {
    /// Reads `host:port`; an IPv6 address is in brackets. Errors are in words.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("{text:?} is not a host with a port, such as cmg.example:10140 or [::1]:10140")
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|&port| port != 0).ok_or_else(wrong)?;
        let host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            Some(v6) if v6.parse::<Ipv6Addr>().is_ok() => v6,
            None if !host.is_empty() && !host.contains([':', '[', ']', '/']) => host,
            _ => return Err(wrong()),
        };
        Ok(Self { host: host.to_owned(), port })
    }

    /// The host, an IPv6 address without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The port; never 0.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(formatter, "[{}]:{}", self.host, self.port),
            false => write!(formatter, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_name_a_host_and_a_port() {
        for (text, host) in [
            ("cmg.example:10140", "cmg.example"),
            ("192.0.2.7:10140", "192.0.2.7"),
            ("[2001:db8::7]:10140", "2001:db8::7"),
        ] {
            let address = Address::parse(text).expect(text);
            assert_eq!((address.host(), address.port()), (host, 10140));
            assert_eq!(address.to_string(), text);
        }
        for text in ["", "h", "h:", ":1", "h:0", "h:65536", "::1:1", "[h]:1", "[]:1", "h/x:1"] {
            assert!(Address::parse(text).is_err(), "{text}");
        }
    }
}
