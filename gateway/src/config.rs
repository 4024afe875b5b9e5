//! Configuration: what `groupcast.toml`, the environment and the flags say, checked before anything starts.
//!
//! Reading order: the sections ([`server`], [`limits`], [`layer`], [`consumer`], [`query`]), then how they are
//! brought together ([`sources`], `read`), what is refused (`unbuilt`, `check`) and how it is told ([`problem`]).
//! Whether a query can be prepared against its source is not decided here: that needs the source.

pub mod api_key;
pub mod auth;
pub(crate) mod backend;
pub mod budget;
pub mod consumer;
pub mod hidden;
pub mod hooks;
pub mod layer;
pub mod limits;
pub mod network;
pub mod problem;
pub mod query;
pub mod rate;
pub mod schedule;
pub mod secret;
pub mod server;
pub mod sources;
pub mod tracing;
pub mod units;

mod check;
mod check_auth;
mod check_backend;
mod check_hooks;
mod check_layer;
mod check_params;
mod check_server;
mod nearest;
mod read;
mod secrets;
mod unbuilt;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::auth::Auth;

pub use api_key::{ApiKeyConfig, ScopesConfig};
pub use auth::{AnonymousConfig, AuthConfig};
pub use budget::Budget;
pub use consumer::{ConsumerConfig, CpuMode, Durability, JobsConfig, Mode, Run, StoreKind};
pub use hidden::Hidden;
pub use hooks::{GrantsConfig, HookEvent, HooksConfig};
pub use layer::{
    CapacityConfig, Dialect, GroupConfig, HistoryConfig, LayerConfig, LayerDurability, LayerKind, SerializerKind,
};
pub use limits::LimitsConfig;
pub use network::Network;
pub use problem::{Origins, Problem, Problems};
pub use query::{ParamConfig, ParamKind, QueryConfig, SourceConfig, SourceKind};
pub use rate::Rate;
pub use schedule::{CatchUp, ScheduleConfig};
pub use secret::Secret;
pub use server::{Role, ServerConfig, TlsConfig};
pub use sources::{Setting, Sources};
pub use tracing::TracingConfig;
pub use units::{Size, Time};

/// The whole configuration. Every key has a default but those of `[[…]]` entries and sources.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Config {
    /// `[server]`: addresses, data, name of this process.
    pub server: ServerConfig,
    /// `[limits]`: every bound and deadline of the front door.
    pub limits: LimitsConfig,
    /// `[layer]`: the channel layer.
    pub layer: LayerConfig,
    /// `[jobs]`: the store of jobs.
    pub jobs: JobsConfig,
    /// `[[group]]`: settings of groups.
    pub group: Vec<GroupConfig>,
    /// `[source.NAME]`: the databases that queries read from.
    pub source: BTreeMap<String, SourceConfig>,
    /// `[[query]]`: the named queries.
    pub query: Vec<QueryConfig>,
    /// `[[consumer]]`: who claims which messages.
    pub consumer: Vec<ConsumerConfig>,
    /// `[[schedule]]`: messages that are sent by the clock.
    pub schedule: Vec<ScheduleConfig>,
    /// `[auth]`: who may do what. `None`: everybody may do everything, and only loopback is listened on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthConfig>,
    /// `[hooks]`: the team's own service, which is asked about clients. `None`: nobody is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<HooksConfig>,
    /// `[tracing]`: where traces are sent to.
    pub tracing: TracingConfig,
}

/// A configuration that passed its checks, and where each setting came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Names file, variable or flag of a key in later problems.
    pub origins: Origins,
}

impl Config {
    /// What its jobs are to survive, at most.
    pub fn durability(&self) -> Durability {
        self.consumer.iter().map(|consumer| consumer.durability).max().unwrap_or(Durability::Memory)
    }

    /// Brings flags, environment, file and defaults together, in this order of precedence, and checks the outcome.
    ///
    /// # Errors
    /// With every problem that could be told apart. Problems of meaning (names used twice, a query without its source)
    /// are looked for only when every key could be read.
    pub fn load(sources: &Sources) -> Result<Loaded, Problems> {
        let (mut table, origins) = sources.merge()?;
        let mut problems = unbuilt::refuse(&mut table, &origins);
        let mut config = read::read(table, &origins, &mut problems);
        problems.extend(secrets::read(&mut config, sources, &origins));
        config.tracing.read(sources);
        if problems.is_empty() {
            problems = check::check(&config).into_iter().map(|(key, message)| origins.problem(&key, message)).collect();
        }
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        config.resolve_paths(sources);
        config.read_secrets(sources).map_err(|(key, message)| Problems(vec![origins.problem(&key, message)]))?;
        Auth::with_groups(config.auth.as_ref(), &config.group)
            .map_err(|error| Problems(vec![origins.problem(&format!("auth.{}", error.key), error.why)]))?;
        Ok(Loaded { config, origins })
    }

    /// Checks the meaning of a configuration that was built in code.
    ///
    /// # Errors
    /// With every problem found.
    pub fn check(&self) -> Result<(), Problems> {
        let origins = Origins::default();
        let problems: Vec<_> =
            check::check(self).into_iter().map(|(key, message)| origins.problem(&key, message)).collect();
        if problems.is_empty() { Ok(()) } else { Err(Problems(problems)) }
    }

    /// The effective configuration as TOML, with every default. There are no secrets in it: they are named by
    /// variable or file, never written here.
    pub fn print(&self) -> String {
        toml::to_string(self).expect("maps of this configuration have text keys, and numbers are within TOML's range")
    }

    /// Reads what variables and files are named for.
    fn read_secrets(&mut self, sources: &Sources) -> Result<(), (String, String)> {
        self.jobs.found_url = self.jobs.places().read(sources)?;
        self.layer.found_url = self.layer.places().read(sources)?;
        self.layer.found_keys = self.layer.key_places().read(sources)?;
        if let Some(auth) = &mut self.auth {
            auth.jwt_secret = auth.jwt_secret_places().read(sources)?.or(auth.jwt_secret.take());
            let read = |key: &str, path: &Option<std::path::PathBuf>| match path {
                Some(path) => std::fs::read_to_string(path)
                    .map(Some)
                    .map_err(|error| (format!("auth.{key}"), format!("`{}` cannot be read: {error}", path.display()))),
                None => Ok(None),
            };
            auth.jwt_public_key =
                read("jwt_public_key_file", &auth.jwt_public_key_file)?.or(auth.jwt_public_key.take());
            auth.jwks = read("jwks_file", &auth.jwks_file)?.or(auth.jwks.take());
            auth.revoked = read("revoked_file", &auth.revoked_file)?.or(auth.revoked.take());
            auth.api_keys = auth.api_keys_places().read(sources)?.or(auth.api_keys.take());
        }
        for (name, source) in &mut self.source {
            source.found_url = source.places(name).read(sources)?;
        }
        Ok(())
    }

    /// Paths of sources, certificates and keys are relative to the file that names them.
    fn resolve_paths(&mut self, sources: &Sources) {
        let Some(folder) = sources.file.as_deref().and_then(std::path::Path::parent) else { return };
        for source in self.source.values_mut() {
            source.path = source.path.take().map(|path| folder.join(path));
        }
        self.layer.ca_file = self.layer.ca_file.take().map(|path| folder.join(path));
        for consumer in &mut self.consumer {
            consumer.ca = consumer.ca.take().map(|path| folder.join(path));
        }
        if let Some(hooks) = &mut self.hooks {
            hooks.ca = hooks.ca.take().map(|path| folder.join(path));
        }
        if let Some(auth) = &mut self.auth {
            for path in [&mut auth.jwt_public_key_file, &mut auth.jwks_file, &mut auth.revoked_file] {
                *path = path.take().map(|path| folder.join(path));
            }
        }
        if let Some(tls) = &mut self.server.tls {
            tls.cert = folder.join(&tls.cert);
            tls.key = folder.join(&tls.key);
        }
    }
}

#[cfg(test)]
mod tests;
