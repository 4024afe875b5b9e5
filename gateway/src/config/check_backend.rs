//! The keys of a consumer that are for `run = "http"`: they name a backend that may be called, and belong to no other.

use super::backend::backend_url;
use super::check::Found;
use super::{ConsumerConfig, Secret};

/// Checks a consumer that posts to a backend.
pub(super) fn check_backend(consumer: &ConsumerConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    match &consumer.url {
        None => found.push((key("url"), "is missing; name the address that jobs are posted to".to_owned())),
        Some(url) => found.extend(backend_url(url, consumer.allow_private).err().map(|message| (key("url"), message))),
    }
    if let Some(Err(error)) = consumer.secret.as_ref().map(Secret::keys) {
        let said = [("secret_env", consumer.secret_env.is_some()), ("secret_file", consumer.secret_file.is_some())];
        let last = said.into_iter().find(|(_, is)| *is).map_or("secret", |(last, _)| last);
        found.push((key(last), error.to_string()));
    }
    if consumer.max_bytes.is_some_and(|size| size.0 == 0) {
        found.push((key("max_bytes"), "must be more than 0".to_owned()));
    }
}

/// A key that does nothing is a mistake: probably `run` is.
pub(super) fn check_no_backend(consumer: &ConsumerConfig, key: &dyn Fn(&str) -> String, found: &mut Vec<Found>) {
    for (last, is_set) in [
        ("url", consumer.url.is_some()),
        ("allow_private", consumer.allow_private),
        ("secret_env", consumer.secret_env.is_some()),
        ("secret_file", consumer.secret_file.is_some()),
        ("secret", consumer.secret.is_some() && consumer.secret_env.is_none() && consumer.secret_file.is_none()),
        ("ca", consumer.ca.is_some()),
        ("max_bytes", consumer.max_bytes.is_some()),
    ] {
        if is_set {
            found.push((key(last), "is for `run = \"http\"` alone; take it out".to_owned()));
        }
    }
}
