//! What an issuer publishes (JWKS), and the list of what is revoked.

#![no_main]

use groupcast::auth::Auth;
use groupcast::config::AuthConfig;
use groupcast_fuzz::text;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// A key of RFC 8037, appendix A.2, so that there is a set from the beginning.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

fuzz_target!(|data: &[u8]| {
    let auth = auth();
    let issuer = auth.issuer().expect("it publishes its keys");
    if let Ok(count) = issuer.publish(data) {
        assert!((1..=100).contains(&count) && issuer.is_known());
        let tree: Value = serde_json::from_slice(data).expect("a set is JSON");
        let keys = tree["keys"].as_array().expect("keys");
        // Nobody publishes a secret; and what is for encryption signs nothing.
        let signs =
            |key: &&Value| key["kty"] != "oct" && key.get("use").is_none_or(|usage| usage == "sig" || usage.is_null());
        assert!(count <= keys.iter().filter(signs).count());
    }
    let Some(list) = text(data) else { return };
    let lines: Vec<&str> =
        list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let said = auth.revoke(list);
    if said.is_ok() {
        assert!(lines.iter().all(|line| line.starts_with("token") || line.starts_with("user")), "{list:?}");
    }
    // A list is as good as its lines.
    assert_eq!(said.is_ok(), lines.iter().all(|line| auth.revoke(line).is_ok()), "{list:?}");
});

fn auth() -> Auth {
    thread_local!(static AUTH: Auth = {
        let (issuer, audience) = (Some("https://issuer.example".to_owned()), Some("chat".to_owned()));
        let config = AuthConfig { jwks: Some(KEYS.to_owned()), issuer, audience, ..AuthConfig::default() };
        Auth::new(Some(&config)).expect("a good set")
    });
    AUTH.with(Clone::clone)
}
