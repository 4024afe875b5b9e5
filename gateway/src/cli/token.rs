//! `groupcast token`: mints a token of a client, for trying things out and for scripts.

use std::time::Duration;

use serde_json::Value;

use super::check::ConfigFile;
use super::{CliError, output};
use crate::auth::Auth;
use crate::auth::mint::{Claims, mint};
use crate::clock;
use crate::config::{AuthConfig, Time};

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast token --sub alice --subscribe 'room.*' --send room.7
  groupcast token --sub alice --subscribe '*' --claim tenant=acme
  GROUPCAST_TOKEN=$(groupcast token --sub alice --query worst_routes --for 10m) groupcast query worst_routes

Signs with the secret that [auth] of the configuration names (jwt_secret_env or jwt_secret_file), and prints the token alone. It has an `iat` and a `jti`, and the `iss` and `aud` that the configuration asks for.")]
pub struct TokenArgs {
    /// Whose it is.
    #[arg(long, value_name = "USER")]
    sub: String,
    /// Groups that it may subscribe to: names, or prefixes that end in `*`. May be given several times.
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// Groups that it may send to.
    #[arg(long, value_name = "PATTERN")]
    send: Vec<String>,
    /// Named queries that it may run and follow.
    #[arg(long, value_name = "PATTERN")]
    query: Vec<String>,
    /// Another claim, such as the tenant's: a text, or a number, true or false as JSON has them. May be given several times.
    #[arg(long, value_name = "NAME=VALUE", value_parser = claim)]
    claim: Vec<(String, Value)>,
    /// How long it is good: a number with ms, s, m, h or d.
    #[arg(long = "for", value_name = "TIME", default_value = "1h")]
    good_for: Time,
    #[command(flatten)]
    file: ConfigFile,
}

/// Prints a token.
///
/// # Errors
/// When the configuration names no secret, or the gateway would not take the token.
pub fn token(args: TokenArgs, environment: Vec<(String, String)>) -> Result<(), CliError> {
    let TokenArgs { sub, subscribe, send, query, claim, good_for: Time(good_for), file } = args;
    let auth = file.load(environment, Vec::new())?.config.auth;
    let secret = auth.as_ref().and_then(|auth| auth.jwt_secret.as_ref()).ok_or_else(|| {
        let why = "the configuration names no secret for tokens; set [auth] jwt_secret_env, or name another file with --config";
        CliError::Usage(why.to_owned())
    })?;
    let now_ms = clock::now_ms();
    let exp = now_ms / 1000 + good_for.max(Duration::from_secs(1)).as_secs();
    let (iat, jti, more) = (now_ms / 1000, clock::new_id().to_string(), claim.into_iter().collect());
    let asked = |of: fn(&AuthConfig) -> &Option<String>| auth.as_ref().and_then(|auth| of(auth).clone());
    let (iss, aud) = (asked(|auth| &auth.issuer), asked(|auth| &auth.audience));
    let token = mint(secret.expose(), &Claims { sub, exp, iat, jti, subscribe, send, query, iss, aud, more });
    // Better told here than by the gateway, later.
    let taken = Auth::new(auth.as_ref()).map_err(|error| error.to_string());
    let taken = taken.and_then(|auth| auth.identify(Some(&token), now_ms).map_err(|refusal| refusal.message));
    taken.map_err(CliError::Usage)?;
    output::line(&token)
}

/// Claims that have an argument of their own, or that the token cannot be without.
const OWN: [&str; 10] = ["sub", "exp", "nbf", "iat", "jti", "iss", "aud", "subscribe", "send", "query"];

fn claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() || OWN.contains(&name) {
        return Err(format!("`{name}` is no claim to be given here"));
    }
    let value = match serde_json::from_str(value) {
        Ok(plain @ (Value::Bool(_) | Value::Number(_))) => plain,
        _ => Value::from(value),
    };
    Ok((name.to_owned(), value))
}
