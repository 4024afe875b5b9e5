//! `groupcast token`: mints a token of a client, for trying things out and for scripts.

use std::time::Duration;

use super::check::ConfigFile;
use super::{CliError, output};
use crate::auth::Auth;
use crate::auth::mint::{Claims, mint};
use crate::clock;
use crate::config::Time;

/// Arguments of `token`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast token --sub alice --subscribe 'room.*' --send room.7
  GROUPCAST_TOKEN=$(groupcast token --sub alice --query worst_routes --for 10m) groupcast query worst_routes

Signs with the secret that [auth] of the configuration names (jwt_secret_env or jwt_secret_file), and prints the token alone.")]
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
    let TokenArgs { sub, subscribe, send, query, good_for: Time(good_for), file } = args;
    let auth = file.load(environment, Vec::new())?.config.auth;
    let secret = auth.as_ref().and_then(|auth| auth.jwt_secret.as_ref()).ok_or_else(|| {
        let why = "the configuration names no secret for tokens; set [auth] jwt_secret_env, or name another file with --config";
        CliError::Usage(why.to_owned())
    })?;
    let now_ms = clock::now_ms();
    let exp = now_ms / 1000 + good_for.max(Duration::from_secs(1)).as_secs();
    let token = mint(secret.expose(), &Claims { sub, exp, subscribe, send, query });
    // Better told here than by the gateway, later.
    let taken = Auth::new(auth.as_ref()).map_err(|error| error.to_string());
    let taken = taken.and_then(|auth| auth.identify(Some(&token), now_ms).map_err(|refusal| refusal.message));
    taken.map_err(CliError::Usage)?;
    output::line(&token)
}
