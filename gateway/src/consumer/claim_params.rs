//! Parameters that the token of the asker fills in: those whose names begin with `claim_`.
//!
//! What a user may see is so part of the SQL (`where tenant = :claim_tenant`), and of the key by which executions are shared.
//! A user cannot give them; who is no user (the gateway's own services, schedules, a gateway without `[auth]`) gives them like
//! any other parameter.

use groupcast_protocol::{ErrorCode, Refusal};

use super::params::Given;
use super::queries::Query;
use crate::jobs::Asker;

/// The beginning of their names; the rest is the claim's.
const PREFIX: &str = "claim_";

/// The claim that a parameter stands for.
pub(crate) fn claim_of(param: &str) -> Option<&str> {
    param.strip_prefix(PREFIX)
}

/// The parameters as given, with those of the token.
///
/// # Errors
/// `bad_params` when a user gives what the token says, `forbidden` when the token does not say it.
pub(crate) fn with_claims(query: &Query, mut given: Given, asker: Option<&Asker>) -> Result<Given, Refusal> {
    let Some(asker) = asker else { return Ok(given) };
    let name = &query.config.name;
    if let Some(own) = given.keys().find(|param| claim_of(param).is_some()) {
        let own: String = own.chars().take(60).collect();
        let why = format!("query `{name}`: parameter `{own}` is what the asker's token says; leave it out");
        return Err(Refusal::new(ErrorCode::BadParams, why));
    }
    for param in &query.params {
        let Some(claim) = claim_of(param.name()) else { continue };
        let said = asker.claims.get(claim).and_then(|value| serde_json::value::to_raw_value(value).ok());
        let missing = || {
            let why = format!(
                "query `{name}` is for askers whose token has the claim `{claim}`, a text, a number or true or false"
            );
            Refusal::new(ErrorCode::Forbidden, why)
        };
        given.insert(param.name().to_owned(), said.ok_or_else(missing)?);
    }
    Ok(given)
}

/// What has to be kept with a job of this query, so that it can be asked again later.
pub(crate) fn keep_needed(asker: &mut Asker, query: Option<&Query>) {
    let needed =
        |claim: &str| query.is_some_and(|query| query.params.iter().any(|param| claim_of(param.name()) == Some(claim)));
    asker.claims.retain(|claim, _| needed(claim));
}
