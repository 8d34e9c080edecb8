//! Random identifiers of processes and channels.

use std::fmt;

use rustls::crypto::CryptoProvider;
use serde::{Serialize, Serializer};

use crate::tls::provider;

/// 128 random bits that name one run of a process, or one channel.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Id(pub [u8; 16]);

impl Id {
    /// A new identifier from the system's random source.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    #[must_use]
    pub fn random() -> Self {
        Self(random_bytes())
    }

    /// A new identifier of a channel of the instance with this index, which is its first byte.
    ///
    /// # Panics
    ///
    /// If the system has no randomness to give.
    #[must_use]
    pub fn random_of_instance(index: u8) -> Self {
        let mut bytes = random_bytes();
        bytes[0] = index;
        Self(bytes)
    }

    /// The index of the instance to whose channel this identifier belongs.
    #[must_use]
    pub fn instance(self) -> u8 {
        self.0[0]
    }
}

/// Bytes from the system's random source.
///
/// # Panics
///
/// If the system has no randomness to give.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let CryptoProvider { secure_random, .. } = &*provider();
    secure_random.fill(&mut bytes).expect("the system has a random source");
    bytes
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
