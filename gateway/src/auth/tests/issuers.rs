//! Tokens that somebody else signs, with keys of which only the public half is here. They are signed by aws-lc-rs alone.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::config::Time;

#[test]
fn a_token_of_each_kind_of_key_is_taken_from_a_set_and_from_a_file() {
    let pairs = [Pair::rsa(), Pair::p256(), Pair::ed25519()];
    let set = set(&pairs.iter().map(|pair| pair.jwk("k")).collect::<Vec<_>>());
    for pair in &pairs {
        let token = pair.sign(&json!({"alg": pair.name(), "kid": "k"}), &good());
        let caller = of_set(&set).identify(Some(&token), NOW).expect("a good token");
        assert_eq!(caller.user(), Some("alice"));
        assert!(of_pem(&pair.pem()).identify(Some(&token), NOW).is_ok(), "{}", pair.name());
        let without_kid = pair.sign(&json!({"alg": pair.name()}), &good());
        assert!(of_set(&set).identify(Some(&without_kid), NOW).is_ok(), "{}", pair.name());
        for other in pairs.iter().filter(|other| other.name() != pair.name()) {
            assert!(of_pem(&other.pem()).identify(Some(&token), NOW).is_err());
        }
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let pair = Pair::rsa();
    let set = set(&[pair.jwk("k")]);
    let (pem, der) = (pair.pem(), pair.info());
    let jwk = pair.jwk("k").to_string();
    for auth in [of_set(&set), of_pem(&pem)] {
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), &der, jwk.as_bytes(), set.as_bytes()] {
            for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
                let mut head = Header::new(algorithm);
                head.kid = Some("k".to_owned());
                let forged = encode(&head, &good(), &EncodingKey::from_secret(secret)).expect("it is signed");
                let refusal = auth.identify(Some(&forged), NOW).map(drop).expect_err("confusion of keys");
                assert_eq!(refusal.code, ErrorCode::Unauthenticated);
            }
        }
    }
}

#[test]
fn a_set_gives_no_secrets_and_no_keys_for_something_else() {
    let secret = "a secret that somebody has published by mistake";
    let oct = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode(secret), "alg": "HS256", "kid": "o"});
    let pair = Pair::p256();
    let with = |name: &str, value: Value| {
        let mut jwk = pair.jwk("k");
        jwk[name] = value;
        jwk
    };
    let useless = [
        oct.clone(),
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("ES384")),
        with("crv", json!("secp256k1")),
        with("kty", json!("RSA")),
        with("x", json!("not base64!")),
        json!({"kty": "RSA", "n": 7}),
        json!("nonsense"),
    ];
    let error = issuer_of(&set(&useless)).map(drop).expect_err("no key").to_string();
    assert!(error.contains("has 9 keys, and none"), "{error}");
    let auth = of_set(&set(&[oct, pair.jwk("k")]));
    let forged = encode(&Header::new(Algorithm::HS256), &good(), &EncodingKey::from_secret(secret.as_bytes()));
    assert!(auth.identify(Some(&forged.expect("it is signed")), NOW).is_err());
    for (bad, word) in [("", "no set"), ("[]", "no set"), ("{}", "no set"), (r#"{"keys":[]}"#, "has 0 keys")] {
        let error = issuer_of(bad).map(drop).expect_err(bad).to_string();
        assert!(error.contains(word), "{error}");
    }
    assert!(issuer_of(&set(&vec![pair.jwk("k"); 101])).is_err());
}

#[test]
fn for_whom_by_whom_and_when_a_token_is_good() {
    let pair = Pair::ed25519();
    let auth = of_set(&set(&[pair.jwk("k")]));
    let says = |more: Value| {
        let mut claims = good();
        more.as_object().expect("an object").iter().for_each(|(name, value)| claims[name] = value.clone());
        claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        auth.identify(Some(&pair.sign(&json!({"alg": "EdDSA", "kid": "k"}), &claims)), NOW)
    };
    let seconds = NOW / 1000;
    assert!(says(json!({"aud": ["other", "gateway"]})).is_ok());
    assert!(says(json!({"nbf": seconds + 10})).is_ok(), "within the leeway");
    let late = says(json!({"exp": seconds - 10})).expect("within the leeway");
    assert_eq!(late.check_lasts(NOW).expect_err("no leeway for what lasts").code, ErrorCode::Unauthenticated);
    for refused in [
        json!({"aud": null}),
        json!({"aud": "other"}),
        json!({"aud": []}),
        json!({"aud": 7}),
        json!({"iss": null}),
        json!({"iss": "https://issuer.example/"}),
        json!({"iss": ["https://issuer.example"]}),
        json!({"nbf": seconds + 11}),
        json!({"nbf": "soon"}),
        json!({"exp": seconds - 11}),
    ] {
        assert!(says(refused.clone()).is_err(), "{refused}");
    }
    let refusal = refused(&signed(&claims(&json!({"aud": "somebody"}))));
    assert!(refusal.message.contains("[auth] audience"), "{}", refusal.message);
}

#[test]
fn an_unknown_key_leads_to_one_reading_in_an_interval() {
    let (old, new) = (Pair::ed25519(), Pair::ed25519());
    let auth = of_set(&set(&[old.jwk("old")]));
    let issuer = auth.issuer().expect("there is one");
    let token = |pair: &Pair, kid: &str| pair.sign(&json!({"alg": "EdDSA", "kid": kid}), &good());
    let code = |token: &str, now_ms: u64| auth.identify(Some(token), now_ms).map(drop).map_err(|refusal| refusal.code);
    assert_eq!(
        code(&token(&new, "old"), NOW),
        Err(ErrorCode::Unauthenticated),
        "the key is known, and has not signed it"
    );
    assert_eq!(code(&token(&new, "new"), NOW), Err(ErrorCode::Unavailable), "about to be read");
    assert_eq!(code(&token(&new, "new"), NOW + 1), Err(ErrorCode::Unavailable), "still");
    issuer.answered();
    assert_eq!(code(&token(&new, "made.up"), NOW + 2), Err(ErrorCode::Unauthenticated), "not again so soon");
    issuer.publish(set(&[new.jwk("new")]).as_bytes()).expect("a good set");
    assert_eq!(code(&token(&new, "new"), NOW + 3), Ok(()));
    assert_eq!(code(&token(&old, "old"), NOW + 4), Err(ErrorCode::Unauthenticated), "withdrawn");
    assert!(issuer.publish(b"nonsense").is_err());
    assert_eq!(code(&token(&new, "new"), NOW + 5), Ok(()), "what was there is kept");
    assert_eq!(code(&token(&old, "old"), NOW + 10_000), Err(ErrorCode::Unavailable), "another interval");
}

#[test]
fn a_file_that_holds_no_public_key_is_told() {
    let told = |pem: &str| {
        let config = AuthConfig { jwt_public_key: Some(pem.to_owned()), ..AuthConfig::default() };
        let error = Auth::new(Some(&config)).map(drop).expect_err(pem);
        assert_eq!(error.key, "jwt_public_key_file");
        error.why
    };
    let pem =
        |kind: &str, der: &[u8]| format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", STANDARD.encode(der));
    assert!(told("").contains("no public key"));
    assert!(told("-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----").contains("no public key"));
    assert!(told(&pem("PUBLIC KEY", b"nonsense")).contains("neither RSA"));
    let secret = told(&pem("PRIVATE KEY", b"canary"));
    assert!(secret.contains("private key") && !secret.contains("canary"), "{secret}");
}

/// A key pair of an issuer.
enum Pair {
    Rsa(Box<RsaKeyPair>),
    P256(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl Pair {
    fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key")))
    }

    fn p256() -> Self {
        Self::P256(Box::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key")))
    }

    fn ed25519() -> Self {
        Self::Ed25519(Box::new(Ed25519KeyPair::generate().expect("a key")))
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (text(n.big_endian_without_leading_zero()), text(e.big_endian_without_leading_zero()));
                json!({"kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256", "n": n, "e": e})
            }
            Self::P256(pair) => {
                let point = pair.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": text(&point[1..33]), "y": text(&point[33..])})
            }
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(pair.public_key().as_ref())})
            }
        }
    }

    /// SubjectPublicKeyInfo.
    fn info(&self) -> Vec<u8> {
        let der = match self {
            Self::Rsa(pair) => pair.public_key().as_der(),
            Self::P256(pair) => pair.public_key().as_der(),
            Self::Ed25519(pair) => pair.public_key().as_der(),
        };
        der.expect("a public key has its form").as_ref().to_vec()
    }

    fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.info()))
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(head), part(claims));
        let random = SystemRandom::new();
        let signature = match self {
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).expect("it is signed");
                signature
            }
            Self::P256(pair) => pair.sign(&random, text.as_bytes()).expect("it is signed").as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(text.as_bytes()).as_ref().to_vec(),
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn good() -> Value {
    claims(&json!({"iss": "https://issuer.example", "aud": "gateway", "subscribe": ["*"]}))
}

fn set(keys: &[Value]) -> String {
    json!({"keys": keys}).to_string()
}

fn base() -> AuthConfig {
    AuthConfig {
        issuer: Some("https://issuer.example".to_owned()),
        audience: Some("gateway".to_owned()),
        leeway: Time(std::time::Duration::from_millis(10_500)),
        jwks_interval: Time(std::time::Duration::from_secs(5)),
        ..AuthConfig::default()
    }
}

fn issuer_of(set: &str) -> Result<Auth, AuthError> {
    Auth::new(Some(&AuthConfig { jwks: Some(set.to_owned()), ..base() }))
}

fn of_set(set: &str) -> Auth {
    issuer_of(set).expect("a good set")
}

fn of_pem(pem: &str) -> Auth {
    Auth::new(Some(&AuthConfig { jwt_public_key: Some(pem.to_owned()), ..base() })).expect("a good key")
}
