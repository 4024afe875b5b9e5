//! Reads the secrets that a configuration names: from the environment that was gathered, and from files.

use std::path::PathBuf;

use super::Config;
use super::problem::{Origins, Problem};
use super::secret::Secret;
use super::sources::Sources;

/// Puts the secrets of consumers and hooks where they are used, and tells of those that cannot be had.
pub(super) fn read(config: &mut Config, sources: &Sources, origins: &Origins) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, consumer) in config.consumer.iter_mut().enumerate() {
        let said = Said { text: &consumer.secret, env: &consumer.secret_env, file: &consumer.secret_file };
        match said.read(sources) {
            Ok(Some(secret)) => consumer.secret = Some(secret),
            Ok(None) => {}
            Err((key, message)) => problems.push(origins.problem(&format!("consumer[{at}].{key}"), message)),
        }
    }
    if let Some(hooks) = &mut config.hooks {
        let said = Said { text: &hooks.secret, env: &hooks.secret_env, file: &hooks.secret_file };
        match said.read(sources) {
            Ok(Some(secret)) => hooks.secret = Some(secret),
            Ok(None) => {}
            Err((key, message)) => problems.push(origins.problem(&format!("hooks.{key}"), message)),
        }
    }
    problems
}

/// Where a secret is said.
struct Said<'a> {
    text: &'a Option<Secret>,
    env: &'a Option<String>,
    file: &'a Option<PathBuf>,
}

type Refused = (&'static str, String);

impl Said<'_> {
    fn read(&self, sources: &Sources) -> Result<Option<Secret>, Refused> {
        match (self.text, self.env, self.file) {
            (_, None, None) => Ok(None),
            (None, Some(name), None) => {
                let found = sources.environment.iter().find(|(known, _)| known == name);
                let missing = || ("secret_env", format!("the variable `{name}` is not set; set it to the secret"));
                found.map(|(_, text)| Some(Secret::new(text))).ok_or_else(missing)
            }
            (None, None, Some(path)) => {
                let folder = sources.file.as_deref().and_then(std::path::Path::parent);
                let path = folder.map_or_else(|| path.clone(), |folder| folder.join(path));
                let unreadable = |error| ("secret_file", format!("`{}` cannot be read: {error}", path.display()));
                std::fs::read_to_string(&path).map(|text| Some(Secret::new(text))).map_err(unreadable)
            }
            _ => {
                Err(("secret", "is said in several ways; give one of `secret_env`, `secret_file` and `secret`".into()))
            }
        }
    }
}
