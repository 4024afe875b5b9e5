//! What can be read, and yet does not do what its writer meant: said at the start instead of found out at night.

use super::*;

#[test]
fn a_word_that_is_no_level_is_no_silence() {
    for filter in ["info", "off", "info,groupcast=debug", "warn,groupcast::server=trace,", "groupcast[span]=debug"] {
        assert!(load(&format!("[server]\nlog = \"{filter}\"\n"), &[], vec![]).is_ok(), "{filter}");
    }
    for filter in ["inf", "info,groupcast", "verbose", "groupcast=verbos"] {
        refused(&format!("[server]\nlog = \"{filter}\"\n"), &[("server.log", "write a level")]);
    }
}

#[test]
fn nobody_is_a_proxy_of_ours_because_everybody_is() {
    for network in ["0.0.0.0/0", "::/0"] {
        let text = format!("[server]\ntrusted_proxies = [\"{network}\"]\n");
        refused(&text, &[("server.trusted_proxies[0]", "every address")]);
    }
}

#[test]
fn tenants_are_said_whole() {
    let auth = |rest: &str| format!("[auth]\nanonymous = {{ subscribe = [\"a\"] }}\n{rest}\n");
    assert!(load(&auth("tenant_claim = \"org\"\ntenant_prefix = \"org.{tenant}.\""), &[], vec![]).is_ok());
    assert!(load(&auth("tenant_claim = \"sub\""), &[], vec![]).is_ok());
    refused(&auth("tenant_prefix = \"org.{tenant}.\""), &[("auth.tenant_prefix", "without `tenant_claim`")]);
    for claim in ["iss", "jti", "subscribe"] {
        refused(&auth(&format!("tenant_claim = \"{claim}\"")), &[("auth.tenant_claim", "no tenant")]);
    }
}

#[test]
fn a_claim_that_is_never_bound_is_no_parameter() {
    let params = |name: &str| {
        COMPLETE.replace("params.origin = {", &format!("params.{name} = {{ type = \"text\" }}\nparams.origin = {{"))
    };
    assert!(load(&params("claim_org"), &[], vec![]).is_ok());
    assert!(load(&params("claim_sub"), &[], vec![]).is_ok());
    for name in ["claim_iss", "claim_jti", "claim_exp"] {
        refused(&params(name), &[(&format!("query[0].params.{name}"), "is not bound")]);
    }
}

#[test]
fn a_key_has_one_set_of_scopes() {
    let key = |name: &str, digest: &str, scopes: &str| {
        format!("[[auth.api_key]]\nname = \"{name}\"\nsha256 = \"{}\"\nscopes = {{ {scopes} }}\n", digest.repeat(64))
    };
    assert!(load(&(key("a", "a", "admin = true") + &key("b", "b", "send = [\"x\"]")), &[], vec![]).is_ok());
    let twice = key("a", "a", "admin = true") + &key("b", "A", "send = [\"x\"]");
    refused(&twice, &[("auth.api_key[1].sha256", "auth.api_key[0]")]);
    refused(&key("a", "a", "admin = true, send = [\"x\"]"), &[("auth.api_key[0].scopes.admin", "everything")]);
}
