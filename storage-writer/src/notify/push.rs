//! What is sent to a browser: encrypted so that only it can read it (RFC 8291), and authorized by the cluster's key (RFC 8292). The one file
//! that names web-push-native.

use std::time::Duration;

use common::{ids::ChatId, time::Millis, vapid::Vapid};
use serde::Deserialize;
use web_push_native::{Auth, p256::PublicKey};

/// How long a push service keeps it for a browser that is away, in seconds: a day.
const TTL: u32 = 24 * 3600;

/// How long an authorization counts: half of what it may (RFC 8292, section 2), so that clocks may differ.
const AUTHORIZED: Duration = Duration::from_secs(12 * 3600);

/// Bytes of a payload: what every push service takes (4,096, RFC 8030, section 7.2) without the header with the key (86, RFC 8188,
/// section 2.1), the delimiter and the tag.
pub(super) const PAYLOAD_BYTES: usize = 4_096 - 86 - 1 - 16;

/// Bytes of the secret that is shared with a browser.
const AUTH_BYTES: usize = 16;

/// What is sent.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
}

/// What of a payload matters for how it is sent.
#[derive(Deserialize)]
struct Payload {
    chat: ChatId,
}

/// One attempt to send `body` to the browser with these keys, through the push service of this origin. What can never be sent is told in a
/// few words.
pub(super) fn push(
    vapid: &Vapid,
    contact: Option<&str>,
    origin: &str,
    (p256dh, auth): (&[u8], &[u8]),
    body: &str,
    now: Millis,
) -> Result<Push, &'static str> {
    let Payload { chat } = serde_json::from_str(body).map_err(|_| "the notification names no chat")?;
    let body = sealed(p256dh, auth, body)?;
    let authorization = vapid.authorization(origin, contact, now.plus(AUTHORIZED));
    let headers = vec![
        ("authorization", authorization.map_err(|_| "it cannot be signed")?),
        ("content-type", "application/octet-stream".to_owned()),
        ("content-encoding", "aes128gcm".to_owned()),
        ("ttl", TTL.to_string()),
        // What waits for a browser that is away is replaced by what is newer: 32 characters of base64url at most (RFC 8030, section 5.4).
        ("topic", chat.0.as_simple().to_string()),
    ];
    Ok(Push { headers, body })
}

fn sealed(p256dh: &[u8], auth: &[u8], body: &str) -> Result<Vec<u8>, &'static str> {
    let key = PublicKey::from_sec1_bytes(p256dh).map_err(|_| "the browser's key is none")?;
    let auth: [u8; AUTH_BYTES] = auth.try_into().map_err(|_| "the browser's secret has not 16 bytes")?;
    web_push_native::encrypt(body.as_bytes().to_vec(), &key, &Auth::from(auth))
        .map_err(|_| "it cannot be encrypted")
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    use common::store::sqlite::Sqlite;
    use web_push_native::{decrypt, p256::SecretKey};

    use super::*;

    /// The example of RFC 8291, section 5.
    const PRIVATE: &str = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94";
    const PUBLIC: &str =
        "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
    const ENCRYPTED: &str = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8w\
                             EqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    fn opened(body: Vec<u8>) -> String {
        let secret = SecretKey::from_slice(&bytes(PRIVATE)).unwrap();
        let auth: [u8; AUTH_BYTES] = bytes(AUTH).try_into().unwrap();
        let opened = decrypt(body, &secret, &Auth::from(auth)).unwrap();
        String::from_utf8(opened).unwrap()
    }

    #[tokio::test]
    async fn no_1_a_push_is_read_by_whom_it_is_for_and_nobody_else() {
        // What opens ours opens what the standard shows.
        assert_eq!(opened(bytes(ENCRYPTED)), "When I grow up, I want to be a watermelon");
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("store.db")).await.unwrap();
        let vapid = Vapid::load(&store).await.unwrap();
        let chat = ChatId::random();
        let text = "x".repeat(PAYLOAD_BYTES - 53);
        let body = format!(r#"{{"chat":"{chat}","body":"{text}"}}"#);
        assert_eq!(body.len(), PAYLOAD_BYTES);

        let (public, auth) = (bytes(PUBLIC), bytes(AUTH));
        let keys = (public.as_slice(), auth.as_slice());
        let sent = |keys, body: &str| {
            push(&vapid, Some("mailto:us@example.com"), "https://push.example", keys, body, Millis::now())
        };
        let one = sent(keys, &body).unwrap();
        assert_eq!(one.body.len(), 4_096, "as long as every service takes");
        assert_ne!(one.body, sent(keys, &body).unwrap().body, "with another key each time");
        assert_eq!(opened(one.body), body);
        let header = |name: &str| one.headers.iter().find(|(known, _)| *known == name).unwrap().1.as_str();
        assert_eq!(header("content-encoding"), "aes128gcm");
        assert_eq!(header("ttl"), "86400");
        assert_eq!(header("topic"), chat.to_string().replace('-', ""));
        assert!(header("authorization").starts_with("vapid t=ey"));

        assert!(sent((&public[1..], &auth), &body).is_err());
        assert!(sent((&[4; 65], &auth), &body).is_err(), "not on the curve");
        assert!(sent((&public, &auth[1..]), &body).is_err());
        assert!(sent(keys, "{}").is_err());
    }
}
