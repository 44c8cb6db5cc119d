use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::ids::{Incarnation, NodeId};

/// As tickets have it: for ever, for services of other versions check it.
const TICKET_AUDIENCE: &str = "chat-ticket";

const NOW: Millis = Millis(1_795_252_554_120);
const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const OTHER_SECRET: &[u8] = b"fedcba9876543210fedcba9876543210";
const OTHER_APP: AppId = AppId(Uuid::from_u128(2));

fn application(id: AppId, secret: &[u8]) -> Application {
    Application {
        id,
        name: "test".into(),
        token_secret: secret.to_vec(),
        token_kid: "k1".into(),
        settings: Default::default(),
    }
}

fn tokens() -> Tokens {
    Tokens::new(&[application(AppId::DEFAULT, SECRET), application(OTHER_APP, OTHER_SECRET)])
}

fn ana() -> Caller {
    Caller {
        app: AppId::DEFAULT,
        user: UserId(Uuid::from_u128(7)),
        session: SessionId(Uuid::from_u128(8)),
        expires_at: Millis::from_secs(NOW.as_secs() + 3_600),
        signed_by: None,
    }
}

/// A token's claims as this module writes them, to be spoiled.
fn claims() -> Value {
    let ana = ana();
    json!({
        "iss": ana.app, "aud": "chat", "sub": ana.user, "sid": ana.session,
        "iat": NOW.as_secs(), "nbf": NOW.as_secs(), "exp": ana.expires_at.as_secs(),
    })
}

fn with(field: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[field] = value;
    claims
}

fn without(field: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(field);
    claims
}

fn header(algorithm: Algorithm) -> Header {
    let mut header = Header::new(algorithm);
    header.kid = Some("k1".into());
    header
}

fn signed(claims: &Value) -> String {
    encode(&header(Algorithm::HS256), claims, &EncodingKey::from_secret(SECRET)).unwrap()
}

/// A token of any header, signed with `secret` whatever the header says. Empty: not signed at all.
fn raw(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| {
        // The library's own base64, by way of a token of its own.
        let carrier = encode(&Header::default(), value, &EncodingKey::from_secret(b"any")).unwrap();
        carrier.split('.').nth(1).unwrap().to_owned()
    };
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = if secret.is_empty() {
        String::new()
    } else {
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap()
    };
    format!("{message}.{signature}")
}

#[test]
fn a_token_says_who_it_was_issued_to() {
    let token = tokens().issue(&ana(), NOW).unwrap();
    assert_eq!(tokens().check(&token, NOW), Ok(ana()));
    assert_eq!(tokens().check(&signed(&claims()), NOW), Ok(ana()));
    assert_eq!(tokens().check(&signed(&with("aud", json!(["other", "chat"]))), NOW), Ok(ana()));
    assert_eq!(tokens().check(&signed(&without("nbf")), NOW), Ok(ana()), "issuers need not say nbf");
    assert!(token.len() < 500, "{} bytes", token.len());
}

#[test]
fn a_token_is_good_for_five_seconds_after_it_expired_and_before_it_begins() {
    let exp = ana().expires_at;
    let token = tokens().issue(&ana(), NOW).unwrap();
    assert!(tokens().check(&token, Millis(exp.0 + 4_999)).is_ok());
    assert_eq!(tokens().check(&token, Millis(exp.0 + 5_000)), Err(BadToken::Expired));
    let begin = NOW.as_secs() * 1_000;
    assert!(tokens().check(&token, Millis(begin - 5_000)).is_ok());
    assert_eq!(tokens().check(&token, Millis(begin - 5_001)), Err(BadToken::Forged));
}

#[test]
fn a_token_with_claims_that_are_missing_or_of_another_type_or_value_is_refused() {
    let spoiled = [
        ("no exp", without("exp")),
        ("no iss", without("iss")),
        ("no aud", without("aud")),
        ("no sub", without("sub")),
        ("no sid", without("sid")),
        ("null exp", with("exp", Value::Null)),
        ("text in exp", with("exp", json!("99999999999"))),
        ("list in exp", with("exp", json!([99_999_999_999_u64]))),
        ("huge exp", with("exp", json!(1e300))),
        ("text in nbf", with("nbf", json!("0"))),
        ("another audience", with("aud", json!("mail"))),
        ("a ticket's audience", with("aud", json!(TICKET_AUDIENCE))),
        ("no audience of several", with("aud", json!([]))),
        ("an unknown issuer", with("iss", json!(AppId(Uuid::from_u128(9))))),
        ("another application's issuer", with("iss", json!(OTHER_APP))),
        ("several issuers", with("iss", json!([AppId::DEFAULT]))),
        ("an issuer that is no id", with("iss", json!("chat"))),
        ("a sub that is no id", with("sub", json!("ana"))),
        ("a number in sub", with("sub", json!(7))),
    ];
    for (what, claims) in spoiled {
        assert_eq!(tokens().check(&signed(&claims), NOW), Err(BadToken::Forged), "{what}");
    }
}

#[test]
fn a_token_is_checked_with_our_algorithm_and_key_whatever_it_asks_for() {
    let good = json!({"alg": "HS256", "typ": "JWT", "kid": "k1"});
    assert_eq!(
        tokens().check(&raw(&good, &claims(), SECRET), NOW),
        Ok(ana()),
        "the test's own way of signing is right"
    );
    let with = |field: &str, value: Value| {
        let mut header = good.clone();
        header[field] = value;
        header
    };
    for alg in ["none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "PS256", "EdDSA", "hs256"] {
        for secret in [SECRET, b""] {
            let token = raw(&with("alg", json!(alg)), &claims(), secret);
            assert_eq!(tokens().check(&token, NOW), Err(BadToken::Forged), "{alg}");
        }
    }
    for (what, header) in [
        ("another kid", with("kid", json!("k2"))),
        ("no kid", with("kid", Value::Null)),
        ("a path in kid", with("kid", json!("../../dev/null"))),
        ("something critical", with("crit", json!(["b64"]))),
    ] {
        assert_eq!(tokens().check(&raw(&header, &claims(), SECRET), NOW), Err(BadToken::Forged), "{what}");
    }
    // A key that the token brings along, and other people's keys.
    let jwk = json!({"kty": "oct", "k": "AAAA", "alg": "HS256"});
    assert_eq!(tokens().check(&raw(&with("jwk", jwk), &claims(), &[0, 0, 0]), NOW), Err(BadToken::Forged));
    assert_eq!(tokens().check(&raw(&good, &claims(), OTHER_SECRET), NOW), Err(BadToken::Forged));
    for algorithm in [Algorithm::HS384, Algorithm::HS512] {
        let token = encode(&header(algorithm), &claims(), &EncodingKey::from_secret(SECRET)).unwrap();
        assert_eq!(tokens().check(&token, NOW), Err(BadToken::Forged), "{algorithm:?}, well signed");
    }
}

#[test]
fn mangled_tokens_are_refused_and_nothing_panics() {
    let token = tokens().issue(&ana(), NOW).unwrap();
    for cut in 0..token.len() {
        assert!(tokens().check(&token[..cut], NOW).is_err(), "cut at {cut}");
    }
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        // The last character of a part may have spare bits, which a strict reader refuses as well.
        assert!(tokens().check(std::str::from_utf8(&bytes).unwrap(), NOW).is_err(), "changed at {at}");
    }
    for text in ["", ".", "..", "...", "a.b.c", "é.é.é", &"a".repeat(MAX_BYTES + 1), &format!("{token}.x")]
    {
        assert!(tokens().check(text, NOW).is_err(), "{text:.20}");
    }
    let long = signed(&with("name", json!("x".repeat(MAX_BYTES))));
    assert_eq!(tokens().check(&long, NOW), Err(BadToken::Forged), "longer than what is looked at");
}

#[test]
fn an_application_whose_secret_is_short_has_no_tokens() {
    let tokens = Tokens::new(&[application(AppId::DEFAULT, b"short")]);
    assert_eq!(tokens.issue(&ana(), NOW), Err(BadToken::Forged));
    let token = encode(&header(Algorithm::HS256), &claims(), &EncodingKey::from_secret(b"short")).unwrap();
    assert_eq!(tokens.check(&token, NOW), Err(BadToken::Forged));
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?} {:?}", tokens(), Tickets::new(SECRET));
    assert!(!shown.contains("0123456789"), "{shown}");
}

fn ticket() -> Ticket {
    Ticket {
        caller: ana(),
        node: NodeId::new("node-1").unwrap(),
        incarnation: Incarnation(u64::MAX),
        id: u128::MAX - 1,
        expires_at: Millis::from_secs(NOW.as_secs() + 30),
    }
}

fn check(text: &str, now: Millis) -> Result<Ticket, BadToken> {
    Tickets::new(SECRET).check(text, &ticket().node, ticket().incarnation, now)
}

#[test]
fn a_ticket_is_for_one_life_of_one_node_and_soon_over() {
    let tickets = Tickets::new(SECRET);
    let text = tickets.issue(&ticket(), NOW).unwrap();
    assert!(
        text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)),
        "fits a URL as it is"
    );
    assert_eq!(check(&text, NOW), Ok(ticket()));
    let end = ticket().expires_at;
    assert!(check(&text, Millis(end.0 + 4_999)).is_ok());
    assert_eq!(check(&text, Millis(end.0 + 5_000)), Err(BadToken::Expired));
    let elsewhere = NodeId::new("node-2").unwrap();
    assert_eq!(tickets.check(&text, &elsewhere, ticket().incarnation, NOW), Err(BadToken::Forged));
    assert_eq!(tickets.check(&text, &ticket().node, Incarnation(1), NOW), Err(BadToken::Forged));
    assert_eq!(
        Tickets::new(OTHER_SECRET).check(&text, &ticket().node, ticket().incarnation, NOW),
        Err(BadToken::Forged)
    );
}

#[test]
fn a_ticket_never_lives_longer_than_thirty_seconds() {
    let long = Ticket { expires_at: NOW.plus(Duration::from_secs(3_600)), ..ticket() };
    let text = Tickets::new(SECRET).issue(&long, NOW).unwrap();
    assert_eq!(check(&text, NOW).unwrap().expires_at, ticket().expires_at);
    // Even one that was signed with the right secret and for longer.
    let early = Millis(NOW.0 - 60_000);
    assert_eq!(check(&text, early), Err(BadToken::Forged));
}

#[test]
fn a_token_is_no_ticket_and_a_ticket_no_token() {
    // The same secret for both, so that only the audience and the issuer stand between them.
    let token = tokens().issue(&ana(), NOW).unwrap();
    assert_eq!(check(&token, NOW), Err(BadToken::Forged));
    let text = Tickets::new(SECRET).issue(&ticket(), NOW).unwrap();
    assert_eq!(tokens().check(&text, NOW), Err(BadToken::Forged));
    // A ticket's claims under a token's header and issuer, and the other way round.
    let body: Value = insecure_decode_claims(&text).unwrap();
    let mut as_token = body.clone();
    as_token["iss"] = json!(AppId::DEFAULT);
    assert_eq!(tokens().check(&signed(&as_token), NOW), Err(BadToken::Forged));
    let mut as_ticket = body;
    as_ticket["aud"] = json!(TOKEN_AUDIENCE);
    assert_eq!(check(&signed(&as_ticket), NOW), Err(BadToken::Forged));
}

#[test]
fn a_ticket_without_or_with_another_algorithm_is_refused() {
    let text = Tickets::new(SECRET).issue(&ticket(), NOW).unwrap();
    let claims: Value = insecure_decode_claims(&text).unwrap();
    for alg in ["none", "HS512", "RS256"] {
        assert_eq!(check(&raw(&json!({"alg": alg}), &claims, b""), NOW), Err(BadToken::Forged), "{alg}");
        assert_eq!(check(&raw(&json!({"alg": alg}), &claims, SECRET), NOW), Err(BadToken::Forged), "{alg}");
    }
    let spoiled =
        [("exp", json!("99999999999")), ("jti", json!("x")), ("inc", json!("")), ("node", json!(""))];
    for (field, value) in spoiled {
        let mut claims = claims.clone();
        claims[field] = value;
        assert_eq!(check(&signed(&claims), NOW), Err(BadToken::Forged), "{field}");
    }
}

/// A key of an application's own, for tests only: what signs, and what checks.
fn chosen(algorithm: Algorithm) -> (EncodingKey, VerificationKey) {
    use applications::Algorithm as Chosen;
    let (signs, key, chosen) = match algorithm {
        Algorithm::RS256 => (
            EncodingKey::from_rsa_pem(include_bytes!("keys/rsa.pem")).unwrap(),
            include_str!("keys/rsa.pub"),
            Chosen::RS256,
        ),
        Algorithm::ES256 => (
            EncodingKey::from_ec_pem(include_bytes!("keys/ec.pem")).unwrap(),
            include_str!("keys/ec.pub"),
            Chosen::ES256,
        ),
        Algorithm::EdDSA => (
            EncodingKey::from_ed_pem(include_bytes!("keys/ed.pem")).unwrap(),
            include_str!("keys/ed.pub"),
            Chosen::EdDSA,
        ),
        _ => (
            EncodingKey::from_secret(OTHER_SECRET),
            std::str::from_utf8(OTHER_SECRET).unwrap(),
            Chosen::HS256,
        ),
    };
    let key = VerificationKey { kid: format!("{algorithm:?}"), algorithm: chosen, key: key.to_owned() };
    (signs, key)
}

const CHOSEN: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn with_keys(algorithms: &[Algorithm]) -> Application {
    let keys = algorithms.iter().map(|algorithm| chosen(*algorithm).1).collect();
    let settings = applications::AppSettings { keys, ..Default::default() };
    Application { settings: Arc::new(settings), ..application(AppId::DEFAULT, SECRET) }
}

/// A token that an application signs itself under the name of one of its keys, with whatever signs.
fn foreign_token(kid: Algorithm, signs_as: Algorithm, claims: &Value) -> String {
    let mut header = Header::new(signs_as);
    header.kid = Some(format!("{kid:?}"));
    encode(&header, claims, &chosen(signs_as).0).unwrap()
}

#[test]
fn id_6_an_application_s_own_tokens_are_checked_by_the_key_they_name_with_its_algorithm_only() {
    let tokens = Tokens::new([&with_keys(&CHOSEN), &application(OTHER_APP, OTHER_SECRET)]);
    let claims = json!({
        "iss": AppId::DEFAULT, "aud": "chat", "sub": "ana@school", "name": "Ana", "exp": NOW.as_secs() + 60,
    });
    for algorithm in CHOSEN {
        let token = foreign_token(algorithm, algorithm, &claims);
        let presented = tokens.present(&token, NOW).unwrap();
        assert_eq!(presented.caller.user, UserId::external(AppId::DEFAULT, "ana@school"), "{algorithm:?}");
        let subject = Subject { subject: "ana@school".into(), name: Some("Ana".into()) };
        assert_eq!(presented.foreign, Some(subject));
        assert_eq!(tokens.present(&token, NOW).unwrap(), presented, "the same token is the same sign-in");
        assert_eq!(tokens.check(&token, NOW.plus(Duration::from_secs(66))), Err(BadToken::Expired));
        for other in CHOSEN.into_iter().filter(|other| *other != algorithm) {
            let confused = foreign_token(algorithm, other, &claims);
            assert_eq!(tokens.check(&confused, NOW), Err(BadToken::Forged), "{algorithm:?} by {other:?}");
        }
        // The same key is nothing to another application.
        let mut elsewhere = claims.clone();
        elsewhere["iss"] = json!(OTHER_APP);
        let token = foreign_token(algorithm, algorithm, &elsewhere);
        assert_eq!(tokens.check(&token, NOW), Err(BadToken::Forged));
    }
    // The classic: a public key, taken for a secret.
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("RS256".into());
    let public = EncodingKey::from_secret(include_bytes!("keys/rsa.pub"));
    assert_eq!(tokens.check(&encode(&header, &claims, &public).unwrap(), NOW), Err(BadToken::Forged));

    // Whoever opens a socket with it says by which key.
    let token = foreign_token(Algorithm::EdDSA, Algorithm::EdDSA, &claims);
    let signed_by = tokens.check(&token, NOW).unwrap().signed_by;
    assert_eq!(signed_by, Some(chosen(Algorithm::EdDSA).1.mark()));
    let with_mark = Ticket { caller: Caller { signed_by, ..ana() }, ..ticket() };
    let text = Tickets::new(SECRET).issue(&with_mark, NOW).unwrap();
    assert_eq!(check(&text, NOW), Ok(with_mark));

    // A key that is taken away counts no more, for everybody who shares the keys.
    let shared = tokens.clone();
    tokens.replace([&with_keys(&[Algorithm::EdDSA])]);
    let good = |algorithm| shared.check(&foreign_token(algorithm, algorithm, &claims), NOW).is_ok();
    assert_eq!(CHOSEN.map(good), [false, false, false, true]);
    assert_eq!(shared.check(&tokens.issue(&ana(), NOW).unwrap(), NOW), Ok(ana()), "the cluster's own stays");
}

#[test]
fn id_6_a_subject_is_a_user_of_ours_by_id_or_one_of_theirs_by_any_other_name() {
    let tokens = Tokens::new([&with_keys(&[Algorithm::HS256])]);
    let presented = |sub: Value| {
        let claims = json!({"iss": AppId::DEFAULT, "aud": "chat", "sub": sub, "exp": NOW.as_secs() + 60});
        tokens.present(&foreign_token(Algorithm::HS256, Algorithm::HS256, &claims), NOW)
    };
    let id = UserId::random();
    assert_eq!(presented(json!(id)).unwrap().caller.user, id);
    let (one, other) = (presented(json!("1")).unwrap().caller, presented(json!("2")).unwrap().caller);
    assert!(one.user != other.user && one.session != other.session);
    for bad in [json!(""), json!(7), json!("a\u{0}"), json!("x".repeat(256)), json!(UserId::APPLICATION)] {
        assert_eq!(presented(bad.clone()), Err(BadToken::Forged), "{bad}");
    }
    // Nobody speaks for the application itself with the cluster's own key either.
    let nobody = Caller { user: UserId::APPLICATION, ..ana() };
    let token = tokens.issue(&nobody, NOW).unwrap();
    assert_eq!(tokens.check(&token, NOW), Err(BadToken::Forged));
}

#[test]
fn id_6_what_is_no_key_of_its_algorithm_is_told() {
    for algorithm in CHOSEN {
        let (_, key) = chosen(algorithm);
        assert!(is_key(&key), "{algorithm:?}");
        assert!(!is_key(&VerificationKey { key: "no key".into(), ..key.clone() }), "{algorithm:?}");
        for other in CHOSEN.into_iter().filter(|other| ![algorithm, Algorithm::HS256].contains(other)) {
            let confused = VerificationKey { algorithm: chosen(other).1.algorithm, ..key.clone() };
            assert!(!is_key(&confused), "{algorithm:?} as {other:?}");
        }
    }
}
