//! Tokens that were not made by whoever may make them, at every door. The gateway knows a public key and nothing secret.

use std::sync::Arc;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use groupcast_tests::home::BARE;
use groupcast_tests::token::{seconds_from_now, signed};
use groupcast_tests::{Events, Gateway, Home, Socket};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::scene::Scene;

const AUTH: &str = r#"
[auth]
jwt_public_key_file = "issuer.pem"
issuer = "https://issuer.example"
audience = "gateway"
anonymous = { subscribe = ["calm"], send = ["calm"] }
"#;

#[tokio::test]
async fn a_forged_token_opens_no_door_and_leads_nowhere() {
    let issuer = Key::new();
    let home = Home::new(&format!("{BARE}{AUTH}"));
    home.write("issuer.pem", &issuer.pem());
    // Where a path that leads out of a folder of keys would lead: nothing, which is a secret that anybody knows.
    home.write("empty", "");
    let mut scene = Scene::with(Gateway::start_in(Arc::new(home)).await).await;
    // Whoever follows an address in a token comes here.
    let lure = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let lured = lure.local_addr().expect("it is bound");

    let good = issuer.sign(&json!({"alg": "RS256"}), &claims());
    assert_eq!(doors(&scene, &good).await, [200, 101, 101, 101, 200], "the doors are there");
    for (what, forgery) in forgeries(&issuer, &good, &format!("http://{lured}/keys")) {
        let opened = scene_doors(&mut scene, &forgery).await;
        assert!(opened.iter().all(|status| matches!(status, 400..=403 | 431)), "{what}: {opened:?}");
    }
    assert_eq!(doors(&scene, &good).await, [200, 101, 101, 101, 200], "the good one is good still");
    let nobody = tokio::time::timeout(std::time::Duration::from_millis(1), lure.accept()).await;
    assert!(nobody.is_err(), "somebody has come to fetch a key");
}

async fn scene_doors(scene: &mut Scene, token: &str) -> Vec<u16> {
    let opened = doors(scene, token).await;
    scene.check().await;
    opened
}

/// What comes of a token by header, by a socket's header, its subprotocol and its first command, and on a stream.
async fn doors(scene: &Scene, token: &str) -> Vec<u16> {
    let bearer = format!("Bearer {token}");
    let header = [("authorization", &*bearer)];
    let address = scene.gateway.address();
    let dial = async |headers: &[(&str, &str)]| match Socket::dial(address, "/ws?group=secret", headers, None).await {
        Ok(_) => 101,
        Err(reply) => reply.status,
    };
    let asked = scene.http.request("GET", "/v1/groups/secret", &header, Vec::new()).await.status;
    let by_header = dial(&header).await;
    // What cannot stand in a subprotocol at all is refused by whoever sends it.
    let plain = token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    let protocol = format!("groupcast.v1, groupcast.token.{token}");
    let by_protocol = if plain { dial(&[("sec-websocket-protocol", &protocol)]).await } else { 400 };
    let mut socket = Socket::open(&scene.gateway).await;
    let answer = socket.command(json!({"type": "authenticate", "token": token})).await;
    let by_command = if answer["type"] == "authenticated" { 101 } else { 401 };
    let stream = Events::dial(address, "group=secret", &header, None).await;
    vec![asked, by_header, by_protocol, by_command, stream.map_or_else(|reply| reply.status, |_| 200)]
}

fn forgeries(issuer: &Key, good: &str, lure: &str) -> Vec<(&'static str, String)> {
    let own = Key::new();
    let (head, rest) = good.split_once('.').expect("three parts");
    let (body, signature) = rest.split_once('.').expect("three parts");
    let rs256 = |more: Value| {
        let mut head = json!({"alg": "RS256", "typ": "JWT"});
        more.as_object().expect("an object").iter().for_each(|(name, value)| head[name] = value.clone());
        head
    };
    let none = |alg: &str| format!("{}.{body}.", URL_SAFE_NO_PAD.encode(json!({"alg": alg}).to_string()));
    let hs256 = |secret: &str, more: Value| {
        let mut head = rs256(more);
        head["alg"] = json!("HS256");
        signed(secret, &head, &claims())
    };
    let raw = |head: &str| format!("{}.{body}.{signature}", URL_SAFE_NO_PAD.encode(head));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut claims = claims();
        change(&mut claims);
        format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
    };
    let wrong = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        issuer.sign(&json!({"alg": "RS256"}), &claims)
    };
    vec![
        ("no signature", format!("{head}.{body}.")),
        ("two parts", format!("{head}.{body}")),
        ("five parts", format!("{good}.{body}.{signature}")),
        ("nothing", ".".to_owned()),
        ("two dots", "..".to_owned()),
        ("none", none("none")),
        ("None", none("None")),
        ("NONE", none("NONE")),
        ("no algorithm", none("")),
        ("none with a signature", format!("{}{signature}", none("none"))),
        ("the public key as a secret", hs256(&issuer.pem(), json!({}))),
        ("the public key without its last line end", hs256(issuer.pem().trim_end(), json!({}))),
        ("the body of the public key", hs256(&STANDARD.encode(issuer.der()), json!({}))),
        ("a path to an empty file", hs256("", json!({"kid": "empty"}))),
        ("a path out of the folder", hs256("", json!({"kid": "../../../../../dev/null"}))),
        ("a key id that is SQL", hs256("x", json!({"kid": "x' union select 'x' --"}))),
        ("a key id that is an address", own.sign(&rs256(json!({"kid": lure})), &claims())),
        ("a key of its own", own.sign(&rs256(json!({})), &claims())),
        ("a key of its own in the head", own.sign(&rs256(json!({"jwk": own.jwk()})), &claims())),
        ("an address of a set", own.sign(&rs256(json!({"jku": lure})), &claims())),
        ("an address of a certificate", own.sign(&rs256(json!({"x5u": lure})), &claims())),
        ("a certificate in the head", own.sign(&rs256(json!({"x5c": [STANDARD.encode(own.der())]})), &claims())),
        ("an extension that nobody knows", issuer.sign(&rs256(json!({"crit": ["x"], "x": 1})), &claims())),
        ("a body that is not encoded", issuer.sign(&rs256(json!({"crit": ["b64"], "b64": false})), &claims())),
        ("another algorithm of the same key", issuer.sign(&json!({"alg": "RS512"}), &claims())),
        ("an algorithm of no name", issuer.sign(&json!({"alg": 7}), &claims())),
        ("two algorithms", raw(r#"{"alg":"none","alg":"RS256"}"#)),
        ("another name", changed(&|claims| claims["sub"] = json!("root"))),
        ("a later end", changed(&|claims| claims["exp"] = json!(u64::MAX))),
        ("another issuer", wrong("iss", json!("https://evil.example"))),
        ("another audience", wrong("aud", json!("other"))),
        ("an end that is a text", wrong("exp", json!("never"))),
        ("an end before 1970", wrong("exp", json!(-1))),
        ("a beginning in a year", wrong("nbf", json!(seconds_from_now(31_536_000)))),
        ("no name", wrong("sub", Value::Null)),
        ("rights that are no list", wrong("subscribe", json!("*"))),
        ("spaces in it", format!("{head}. {body}.{signature}")),
        ("filled up", format!("{head}=.{body}==.{signature}==")),
        ("a signature cut short", format!("{head}.{body}.{}", &signature[..signature.len() - 4])),
        ("a long head", format!("{}.{body}.{signature}", "A".repeat(9000))),
    ]
}

fn claims() -> Value {
    json!({
        "sub": "alice", "exp": seconds_from_now(600), "iss": "https://issuer.example", "aud": "gateway",
        "subscribe": ["secret"], "send": ["secret"],
    })
}

/// Whom the gateway trusts, or would like it to.
struct Key(RsaKeyPair);

impl Key {
    fn new() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"))
    }

    fn der(&self) -> Vec<u8> {
        self.0.public_key().as_der().expect("a public key has its form").as_ref().to_vec()
    }

    fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.der()))
    }

    fn jwk(&self) -> Value {
        let (n, e) = (self.0.public_key().modulus(), self.0.public_key().exponent());
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"kty": "RSA", "n": text(n.big_endian_without_leading_zero()), "e": text(e.big_endian_without_leading_zero())})
    }

    fn sign(&self, head: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(head), part(claims));
        let mut signature = vec![0; self.0.public_modulus_len()];
        let signs = self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature);
        signs.expect("it is signed");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
