//! Seals on what is handed out and comes back: whether a service of this cluster wrote it, and nobody changed it since (the one place that
//! names hmac).

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::store::{self, SharedStore, StoreError};

/// Bytes of a seal: HMAC-SHA-256 cut to half, which RFC 2104, section 5, allows. Nobody can try seals but by asking a service.
pub const SEAL_BYTES: usize = 16;
/// The shortest secret that seals.
const MIN_SECRET_BYTES: usize = 32;

/// Seals with one secret of the cluster. Cheap to clone.
#[derive(Clone)]
pub struct Sealer(Hmac<Sha256>);

impl fmt::Debug for Sealer {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl Sealer {
    /// With a secret (at least 32 bytes); none when it is shorter.
    pub fn new(secret: &[u8]) -> Option<Self> {
        Hmac::new_from_slice(secret).ok().filter(|_| secret.len() >= MIN_SECRET_BYTES).map(Self)
    }

    /// With the cluster's secret of this name ([`crate::store::Accounts::cluster_secret`]), made by whoever asks first. Asks again until the
    /// store answers; none when `shutdown` came first.
    pub async fn load(store: &SharedStore, name: &str, shutdown: &CancellationToken) -> Option<Self> {
        store::until_answered("a secret", shutdown, || async move {
            let secret = store.cluster_secret(name, &rand::random::<[u8; MIN_SECRET_BYTES]>()).await?;
            let short = || StoreError::Corrupt(format!("the secret {name} is shorter than 32 bytes"));
            Self::new(&secret).ok_or_else(short)
        })
        .await
    }

    /// The seal on these parts, in this order.
    pub fn seal(&self, parts: &[&[u8]]) -> [u8; SEAL_BYTES] {
        let whole = self.over(parts).finalize().into_bytes();
        let mut seal = [0; SEAL_BYTES];
        seal.iter_mut().zip(whole).for_each(|(to, byte)| *to = byte);
        seal
    }

    /// Whether `seal` is the one on these parts. Takes as long whatever is wrong.
    pub fn holds(&self, parts: &[&[u8]], seal: &[u8; SEAL_BYTES]) -> bool {
        self.over(parts).verify_truncated_left(seal).is_ok()
    }

    fn over(&self, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut hash = self.0.clone();
        for part in parts {
            // Lengths keep two lists of parts with the same bytes apart.
            hash.update(&(part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::new(&[byte; MIN_SECRET_BYTES]).unwrap()
    }

    #[test]
    fn a_seal_is_the_hmac_of_rfc_4231_with_the_lengths_of_the_parts() {
        // Worked out apart: python3 -c 'import hmac; print(hmac.digest(b"\7"*32, b"\0"*7+b"\2hi"+b"\0"*8, "sha256").hex()[:32])'
        let seal = u128::from_str_radix(GOLDEN, 16).unwrap().to_be_bytes();
        assert_eq!(sealer(7).seal(&[b"hi", b""]), seal);
        assert!(sealer(7).holds(&[b"hi", b""], &seal));
    }

    const GOLDEN: &str = "4682ebd5d072ee12f20a8000f809e552";

    #[test]
    fn a_seal_holds_for_what_was_sealed_alone() {
        let seal = sealer(7).seal(&[b"ab", b"c"]);
        for (sealer, parts) in [
            (sealer(8), [b"ab".as_slice(), b"c"]),
            (sealer(7), [b"a", b"bc"]),
            (sealer(7), [b"ab", b"d"]),
            (sealer(7), [b"c", b"ab"]),
        ] {
            assert!(!sealer.holds(&parts, &seal), "{parts:?}");
        }
        for bit in 0..SEAL_BYTES * 8 {
            let mut other = seal;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!sealer(7).holds(&[b"ab", b"c"], &other), "bit {bit}");
        }
    }

    #[test]
    fn a_short_secret_seals_nothing() {
        assert!(Sealer::new(&[7; MIN_SECRET_BYTES - 1]).is_none());
    }
}
