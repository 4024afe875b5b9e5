//! `groupcast key new`: makes an API key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;

use super::{CliError, output};
use crate::auth::{Auth, digest_of_key};
use crate::clock;
use crate::config::{ApiKeyConfig, AuthConfig, ScopesConfig};

/// Arguments of `key`.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Makes a key and prints it once, with its entry for the configuration.
    New(NewArgs),
}

/// Arguments of `key new`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast key new --name backend --admin
  groupcast key new --name billing --send 'invoice.*' --type invoice.paid

The first line is the key, which is kept nowhere; the rest belongs into the configuration.")]
struct NewArgs {
    /// What the service is called.
    #[arg(long)]
    name: String,
    /// Groups that it may subscribe to, and add channels to: names, or prefixes that end in `*`. May be given several times.
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// Groups and channels that it may send to.
    #[arg(long, value_name = "PATTERN")]
    send: Vec<String>,
    /// Named queries that it may run and follow.
    #[arg(long, value_name = "PATTERN")]
    query: Vec<String>,
    /// Types of messages that it may send; without any all of them.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// It may do everything, also what operators do.
    #[arg(long)]
    admin: bool,
}

/// Carries out `key …`.
///
/// # Errors
/// When the gateway would not take the entry.
pub fn key(args: KeyArgs) -> Result<(), CliError> {
    let KeyCommand::New(args) = args.command;
    let random = [clock::random().to_le_bytes(), clock::random().to_le_bytes()].concat();
    // A prefix by which scanners of published code find it.
    let key = format!("gck_{}", URL_SAFE_NO_PAD.encode(random));
    let NewArgs { name, subscribe, send, query, types, admin } = args;
    let types = if types.is_empty() { None } else { Some(types) };
    let scopes = ScopesConfig { subscribe, send, query, types, admin };
    let entry = ApiKeyConfig { name, sha256: digest_of_key(&key), scopes };
    let auth = AuthConfig { api_key: vec![entry.clone()], ..AuthConfig::default() };
    Auth::new(Some(&auth)).map_err(|error| CliError::Usage(error.why))?;
    output::line(&key)?;
    output::line("")?;
    output::line(&shown(&entry))
}

fn shown(entry: &ApiKeyConfig) -> String {
    let ApiKeyConfig { name, sha256, scopes } = entry;
    let list = |name: &str, items: &[String]| (!items.is_empty()).then(|| format!("{name} = {items:?}"));
    let parts = [
        list("subscribe", &scopes.subscribe),
        list("send", &scopes.send),
        list("query", &scopes.query),
        list("types", scopes.types.as_deref().unwrap_or_default()),
        scopes.admin.then(|| "admin = true".to_owned()),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("[[auth.api_key]]\nname = {name:?}\nsha256 = {sha256:?}\nscopes = {{ {} }}", parts.join(", "))
}
