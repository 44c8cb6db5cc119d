//! The key by which push services know this cluster (VAPID, RFC 8292): a secret of the cluster, made by whoever asks first. Browsers are given
//! its public part when they subscribe, and each push is authorized with a token that it signs.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::Serialize;

use crate::{
    store::{Accounts, Result, StoreError},
    time::Millis,
};

/// The secret's name among the cluster's ([`Accounts::cluster_secret`]). It is kept as PKCS#8.
const SECRET: &str = "vapid";

/// The cluster's key.
#[derive(Clone)]
pub struct Vapid {
    public: String,
    key: EncodingKey,
}

impl fmt::Debug for Vapid {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vapid").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What a token says (RFC 8292, section 2).
#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
}

impl Vapid {
    /// The cluster's.
    ///
    /// # Errors
    /// As the store's; [`StoreError::Corrupt`] when what it has is no key.
    pub async fn load(accounts: &dyn Accounts) -> Result<Self> {
        let no_key = |error| StoreError::Corrupt(format!("the secret {SECRET} is no key on P-256: {error}"));
        let fresh = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(no_key)?.serialize_der();
        Self::new(&accounts.cluster_secret(SECRET, &fresh).await?).map_err(no_key)
    }

    fn new(secret: &[u8]) -> std::result::Result<Self, rcgen::Error> {
        let pair = KeyPair::try_from(secret)?;
        if !pair.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            return Err(rcgen::Error::UnsupportedSignatureAlgorithm);
        }
        let public = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        Ok(Self { public, key: EncodingKey::from_ec_der(secret) })
    }

    /// Its public part, as browsers take it: an uncompressed point, base64url.
    pub fn public_key(&self) -> &str {
        &self.public
    }

    /// The `Authorization` of a request to a push service: `origin` is the service's (`https://push.example`), `contact` is whom its
    /// operators may ask (`mailto:` or `https:`). Good until `until`, which may be at most 24 hours away.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn authorization(
        &self,
        origin: &str,
        contact: Option<&str>,
        until: Millis,
    ) -> std::result::Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims { aud: origin, exp: until.as_secs(), sub: contact };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &self.key)?;
        Ok(format!("vapid t={token}, k={}", self.public))
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;

    use super::*;
    use crate::store::sqlite::Sqlite;

    #[tokio::test]
    async fn no_1_all_services_have_one_key_and_its_public_part_proves_what_it_signs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
        let vapid = Vapid::load(&store).await.unwrap();
        assert_eq!(Vapid::load(&store).await.unwrap().public_key(), vapid.public_key());
        let point = URL_SAFE_NO_PAD.decode(vapid.public_key()).unwrap();
        assert_eq!((point.len(), point[0]), (65, 4));

        let until = Millis::now().plus(std::time::Duration::from_secs(60));
        let header =
            vapid.authorization("https://push.example", Some("mailto:us@example.com"), until).unwrap();
        let (token, key) = header.strip_prefix("vapid t=").unwrap().split_once(", k=").unwrap();
        assert_eq!(key, vapid.public_key());
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_audience(&["https://push.example"]);
        let proof = DecodingKey::from_ec_components(&x, &y).unwrap();
        let claims = jsonwebtoken::decode::<Value>(token, &proof, &rules).unwrap().claims;
        assert_eq!(
            (claims["exp"].as_i64(), &claims["sub"]),
            (Some(until.as_secs()), &"mailto:us@example.com".into())
        );
    }

    #[tokio::test]
    async fn no_1_what_is_no_key_is_said_to_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
        store.cluster_secret(SECRET, b"none").await.unwrap();
        assert!(matches!(Vapid::load(&store).await, Err(StoreError::Corrupt(_))));
    }
}
