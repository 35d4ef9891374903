//! Secrets: how they are made, kept and compared.
//!
//! Tokens are 256 random bits, so one round of SHA-256 is what they are kept as: there is nothing to guess that a slow
//! hash, made for passwords that people choose, could protect. Whoever reads the hashes cannot find a token.

use rand::TryRngCore as _;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The SHA-256 of a secret.
#[derive(Clone)]
pub(crate) struct Secret([u8; 32]);

impl Secret {
    /// What is kept of a secret.
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    /// What was kept, in hexadecimal; `None` for what is none.
    pub(crate) fn from_hex(text: &str) -> Option<Self> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }

    /// In hexadecimal.
    pub(crate) fn to_hex(&self) -> String {
        hex::encode(self.0)
    }

    /// Whether both are of the same secret. The time it takes does not tell how much of them is equal.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// So many bytes from the system's source of randomness, in hexadecimal.
///
/// # Errors
/// When the system has none to give.
pub(crate) fn random(bytes: usize) -> std::io::Result<String> {
    let mut buffer = vec![0; bytes];
    rand::rngs::OsRng.try_fill_bytes(&mut buffer).map_err(std::io::Error::other)?;
    Ok(hex::encode(buffer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_again_and_not_told() {
        let secret = Secret::of("abc");
        assert!(secret.equals(&Secret::of("abc")));
        for wrong in ["", "ab", "abd", "abcd", "ABC"] {
            assert!(!secret.equals(&Secret::of(wrong)), "{wrong}");
        }
        assert!(Secret::from_hex(&secret.to_hex()).unwrap().equals(&secret));
        assert!(Secret::from_hex("12").is_none());
        assert!(secret.to_hex().starts_with("ba7816bf"), "SHA-256 of abc, from FIPS 180-2");
        assert_eq!(format!("{secret:?}"), "Secret");
        assert_ne!(random(32).unwrap(), random(32).unwrap());
    }
}
