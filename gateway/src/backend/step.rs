//! `Step`: what is recorded of a call ("Semantic conventions for HTTP spans", client).

use groupcast_protocol::Trace;
use reqwest::{StatusCode, Url};

use crate::telemetry::{Kind, Scope, Span};

/// One request of this task's trace. Boxed: most requests have none. Its address is not kept: it may have a secret.
pub(crate) struct Step(Box<Span>);

impl Step {
    /// Begins, if the trace of this task is recorded.
    pub(super) fn post(url: &Url) -> Option<Self> {
        let mut span = Scope::begin(Kind::Client, "POST")?;
        span.set("http.request.method", "POST");
        span.set("server.address", url.host_str().unwrap_or_default().to_owned());
        if let Some(port) = url.port_or_known_default() {
            span.set("server.port", u32::from(port));
        }
        Some(Self(Box::new(span)))
    }

    /// What is called is part of this.
    pub(crate) fn trace(&self) -> Trace {
        self.0.trace()
    }

    /// Notes what the answer was, or by a word why there is none. It ends when it is dropped.
    pub(crate) fn answered(&mut self, answer: Result<StatusCode, &str>) {
        match answer {
            Ok(status) => {
                self.0.set("http.response.status_code", u32::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    self.0.fail(status.as_str().to_owned(), "");
                }
            }
            Err(why) => self.0.fail(why.to_owned(), ""),
        }
    }

    /// Notes that it failed, by a word.
    pub(crate) fn ended(&mut self, failure: Option<&'static str>) {
        if let Some(why) = failure {
            self.0.fail(why, "");
        }
    }

    /// Adds an attribute.
    pub(crate) fn set(&mut self, name: &'static str, word: &'static str) {
        self.0.set(name, word);
    }
}
