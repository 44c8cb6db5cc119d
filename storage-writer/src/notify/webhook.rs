//! What is sent to an application's own server, signed as Standard Webhooks says (NO-1).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::{
    notifications::{WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP},
    time::Millis,
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

/// The headers of one attempt. A receiver sees by the id that it has had it before, and by the time that it is not an old one that
/// somebody sends again.
pub(super) fn headers(secret: &[u8], id: Uuid, now: Millis, body: &str) -> Vec<(&'static str, String)> {
    let (id, timestamp) = (id.to_string(), now.as_secs().to_string());
    let signature = signature(secret, &id, &timestamp, body);
    vec![
        ("content-type", "application/json".to_owned()),
        (WEBHOOK_ID, id),
        (WEBHOOK_TIMESTAMP, timestamp),
        (WEBHOOK_SIGNATURE, signature),
    ]
}

fn signature(secret: &[u8], id: &str, timestamp: &str, body: &str) -> String {
    // A key may have any length.
    let Ok(mut hash) = Hmac::<Sha256>::new_from_slice(secret) else { return String::new() };
    for part in [id, ".", timestamp, ".", body] {
        hash.update(part.as_bytes());
    }
    format!("v1,{}", STANDARD.encode(hash.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_1_the_signature_is_the_one_that_the_specification_shows() {
        // The vector of github.com/standard-webhooks/standard-webhooks: secret whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw.
        let secret = STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed =
            signature(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn no_1_what_is_signed_is_what_is_sent() {
        let (secret, id) = ([7; 32], Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
        let headers = headers(&secret, id, Millis(1_795_252_554_999), "{\"a\":\"é\"}");
        let value = |name: &str| headers.iter().find(|(known, _)| *known == name).unwrap().1.clone();
        assert_eq!(value("webhook-id"), "01900000-0000-7000-8000-000000000001");
        assert_eq!(value("webhook-timestamp"), "1795252554");
        assert_eq!(value("content-type"), "application/json");
        // Worked out apart: python3 -c 'import base64,hmac; print(base64.b64encode(hmac.digest(b"\7"*32,
        // "01900000-0000-7000-8000-000000000001.1795252554.{\"a\":\"é\"}".encode(), "sha256")).decode())'
        assert_eq!(value("webhook-signature"), "v1,4hdzCAORqAMlvaJllHnRb5qcyCAtvT7GkfcoAdyXPfU=");
    }
}
