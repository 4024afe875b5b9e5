//! Whom the team's own service names at connect, and what he may do: never more than the configuration lets it give.

use std::sync::Arc;

use groupcast_protocol::GroupName;
use groupcast_protocol::asgi::{Accept, RightsSaid};

use super::Auth;
use super::caller::{Caller, User};
use super::rights::{Rights, RightsError};
use super::tenancy::TENANT;
use super::token::claims::bindable;
use crate::config::GrantsConfig;

/// An answer that the configuration does not allow. It is a defect of the service or of the configuration, and nothing of it
/// is done.
#[derive(Debug, thiserror::Error)]
pub enum NotGiven {
    /// The connection is somebody's already.
    #[error("it names another user than the token that was shown")]
    OtherUser,
    /// A list that cannot be read.
    #[error("its rights: {0}")]
    Rights(#[from] RightsError),
    /// `[auth] tenant_claim` is said, and the claims name no tenant.
    #[error("its claims name no tenant, and [auth] tenant_claim is said")]
    Tenant,
    /// A group that may not be given.
    #[error("it puts the connection into group `{0}`, which [hooks] grants.subscribe or the tenant does not allow")]
    Group(GroupName),
}

impl Auth {
    /// The most that the service can give. Without a word about it: nothing; without `[auth]`: everything.
    ///
    /// # Errors
    /// When a list cannot be read.
    pub fn grants(&self, said: Option<&GrantsConfig>) -> Result<Arc<Rights>, RightsError> {
        let all = ["*".to_owned()];
        let rights = match said {
            Some(said) => Rights::parse(&said.subscribe, &said.send, &said.query)?,
            None if self.is_on() => Rights::default(),
            None => Rights::parse(&all, &all, &all)?,
        };
        Ok(Arc::new(rights))
    }

    /// Who a caller is from here on. A token stays what it is: the service can take from its rights, and end it sooner.
    ///
    /// # Errors
    /// When the configuration does not allow what the service says.
    pub fn named(&self, caller: &Caller, accept: &Accept, grants: &Arc<Rights>) -> Result<Caller, NotGiven> {
        let caller = match (caller, &accept.user) {
            (_, None) | (Caller::Service(_), Some(_)) => caller.clone(),
            (Caller::User(user), Some(name)) if user.name == *name => Caller::User(Arc::new(less(user, accept)?)),
            (Caller::User(_), Some(_)) => return Err(NotGiven::OtherUser),
            (Caller::Everybody | Caller::Anonymous(_), Some(name)) => {
                Caller::User(Arc::new(self.given(name, accept, grants)?))
            }
        };
        let within = |group: &GroupName| match &caller {
            Caller::User(user) => user.rights.is_within(group.as_str()),
            Caller::Everybody | Caller::Anonymous(_) | Caller::Service(_) => true,
        };
        let is_given = |group: &GroupName| grants.allow_subscribe(group.as_str()) && within(group);
        match accept.groups.iter().find(|group| !is_given(group)) {
            Some(group) => Err(NotGiven::Group(group.clone())),
            None => Ok(caller),
        }
    }

    fn given(&self, name: &str, accept: &Accept, grants: &Arc<Rights>) -> Result<User, NotGiven> {
        let authority = self.authority();
        let authority = authority.as_deref();
        let tenancy = authority.and_then(|authority| authority.tenancy.as_ref());
        let tenant = tenancy.map(|tenancy| tenancy.tenant(name, &accept.claims)).transpose();
        let tenant = tenant.map_err(|_| NotGiven::Tenant)?;
        let rights = match &accept.rights {
            Some(said) => read(said, tenant)?,
            None => Rights::clone(grants),
        };
        let rights = Rights {
            within: tenant.zip(tenancy).map(|(tenant, tenancy)| tenancy.prefix(tenant)),
            types_of_groups: authority.map(|authority| authority.types_of_groups.clone()).unwrap_or_default(),
            bound: Some(grants.clone()),
            ..rights
        };
        let claims = bindable(name, accept.claims.clone());
        Ok(User { name: name.to_owned(), rights, claims, expires_ms: accept.expires_ms, proof: None })
    }
}

/// A user with a token, of whose rights only those are left that the service names too.
fn less(user: &User, accept: &Accept) -> Result<User, NotGiven> {
    let bound = accept.rights.as_ref().map(|said| read(said, None)).transpose()?.map(Arc::new);
    let expires_ms = user.expires_ms.into_iter().chain(accept.expires_ms).min();
    let rights = Rights { bound, ..user.rights.clone() };
    Ok(User { name: user.name.clone(), rights, claims: user.claims.clone(), expires_ms, proof: user.proof.clone() })
}

fn read(said: &RightsSaid, tenant: Option<&str>) -> Result<Rights, RightsError> {
    let fill = |patterns: &[String]| -> Vec<String> {
        let fill = |pattern: &String| tenant.map_or_else(|| pattern.clone(), |tenant| pattern.replace(TENANT, tenant));
        patterns.iter().map(fill).collect()
    };
    Rights::parse(&fill(&said.subscribe), &fill(&said.send), &said.query)
}
