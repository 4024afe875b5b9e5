//! `Tenancy`: which claim names a user's tenant, and where its groups are.

use std::collections::BTreeMap;

use groupcast_protocol::Refusal;
use serde_json::Value;

use super::unauthenticated;
use crate::config::AuthConfig;

/// What stands for the tenant in patterns.
pub(crate) const TENANT: &str = "{tenant}";
/// Characters of a tenant's name.
const TENANT_CHARS_MAX: usize = 40;

/// See the [module](self).
#[derive(Debug, Clone)]
pub(super) struct Tenancy {
    claim: String,
    prefix: String,
}

impl Tenancy {
    /// What the configuration says; `None`: there are no tenants.
    pub(super) fn of(config: &AuthConfig) -> Option<Self> {
        let claim = config.tenant_claim.clone()?;
        Some(Self { claim, prefix: config.tenant_prefix.clone() })
    }

    /// What the names of a tenant's groups begin with.
    pub(super) fn prefix(&self, tenant: &str) -> Box<str> {
        self.prefix.replace(TENANT, tenant).into()
    }

    /// The tenant's name, which can be nothing but a part of a name: no separator, no wildcard, no placeholder.
    ///
    /// # Errors
    /// `unauthenticated` when the claims name none.
    pub(super) fn tenant<'a>(&self, sub: &'a str, more: &'a BTreeMap<String, Value>) -> Result<&'a str, Refusal> {
        let said = if self.claim == "sub" { Some(sub) } else { more.get(&self.claim).and_then(Value::as_str) };
        let is_name = |text: &&str| {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (1..=TENANT_CHARS_MAX).contains(&text.len()) && text.bytes().all(fine)
        };
        said.filter(is_name).ok_or_else(|| {
            let form = format!("1 to {TENANT_CHARS_MAX} letters, digits, `-` and `_`");
            unauthenticated(format!("the token's claim `{}` has to name a tenant by {form}", self.claim))
        })
    }
}
