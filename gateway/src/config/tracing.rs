//! `[tracing]`: where traces are sent to, and how much is traced.

use http::{HeaderName, HeaderValue};
use reqwest::Url;
use serde::{Deserialize, Serialize};

use super::hidden::Hidden;
use super::sources::Sources;

/// `[tracing]`. Without an `endpoint`, here or in `OTEL_EXPORTER_OTLP_ENDPOINT`, nothing is traced.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct TracingConfig {
    /// The collector's address for OTLP over HTTP, to which `/v1/traces` is added, as in `http://127.0.0.1:4318`. Default
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, else none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The share of the traces that begin here which is recorded, from 0.0 to 1.0. Those that come with a `traceparent` are
    /// recorded as it says. Default `0.01`.
    pub sample: f64,
    /// What traces call this program. Default `OTEL_SERVICE_NAME`, else `groupcast`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_name: Option<String>,
    /// What the variables of OpenTelemetry say.
    #[serde(skip)]
    pub found: Standard,
}

/// The variables that every program with OpenTelemetry knows ("OpenTelemetry Protocol Exporter", "Environment Variable
/// Specification").
#[derive(Debug, Clone, Default)]
pub struct Standard {
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`, which is used as it is; else the base `OTEL_EXPORTER_OTLP_ENDPOINT` with
    /// `/v1/traces`.
    pub traces: Option<String>,
    /// Names and values of `OTEL_EXPORTER_OTLP_HEADERS`, or of `…_TRACES_HEADERS`, sent with each request.
    pub headers: Vec<(String, Hidden)>,
    /// Names and values of `OTEL_RESOURCE_ATTRIBUTES`.
    pub attributes: Vec<(String, String)>,
    /// `OTEL_SERVICE_NAME`.
    pub service_name: Option<String>,
    /// `OTEL_SDK_DISABLED`: nothing is traced, whatever else is said.
    pub disabled: bool,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self { endpoint: None, sample: 0.01, service_name: None, found: Standard::default() }
    }
}

impl TracingConfig {
    /// Where spans are posted to. `None`: nothing is traced.
    pub fn traces(&self) -> Option<String> {
        if self.found.disabled {
            return None;
        }
        self.endpoint.as_deref().map(below).or_else(|| self.found.traces.clone())
    }

    /// What traces call this program.
    pub fn service_name(&self) -> &str {
        let of_attributes = || self.found.attributes.iter().find(|(name, _)| name == "service.name");
        let found = self.service_name.as_deref().or(self.found.service_name.as_deref());
        found.or_else(|| of_attributes().map(|(_, value)| value.as_str())).unwrap_or("groupcast")
    }

    /// Reads the standard variables.
    pub(super) fn read(&mut self, sources: &Sources) {
        let variable = |name: &str| {
            let found = sources.environment.iter().find(|(known, text)| known == name && !text.is_empty());
            found.map(|(_, text)| text.as_str())
        };
        let of_traces = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT").map(str::to_owned);
        self.found = Standard {
            traces: of_traces.or_else(|| variable("OTEL_EXPORTER_OTLP_ENDPOINT").map(below)),
            headers: variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
                .or_else(|| variable("OTEL_EXPORTER_OTLP_HEADERS"))
                .map(pairs)
                .unwrap_or_default()
                .into_iter()
                .map(|(name, value)| (name, Hidden::new(value)))
                .collect(),
            attributes: variable("OTEL_RESOURCE_ATTRIBUTES").map(pairs).unwrap_or_default(),
            service_name: variable("OTEL_SERVICE_NAME").map(str::to_owned),
            disabled: variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")),
        };
    }

    /// What is wrong with it: the last part of a key, and why.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let Some(Err(why)) = self.endpoint.as_deref().map(address) {
            found.push(("endpoint", why));
        }
        let of_variable = self.found.traces.as_deref().filter(|_| self.endpoint.is_none()).map(address);
        if let Some(Err(why)) = of_variable {
            found.push(("endpoint", format!("as OTEL_EXPORTER_OTLP_ENDPOINT says it, {why}")));
        }
        let is_header = |(name, value): &(String, Hidden)| {
            HeaderName::try_from(name).is_ok() && HeaderValue::try_from(value.expose()).is_ok()
        };
        if !self.found.headers.iter().all(is_header) {
            let why = "cannot be called: OTEL_EXPORTER_OTLP_HEADERS has what is no header; write name=value,name=value";
            found.push(("endpoint", why.to_owned()));
        }
        if !(0.0..=1.0).contains(&self.sample) {
            found.push(("sample", "is a share: from 0.0, none, to 1.0, all".to_owned()));
        }
        if self.service_name.as_deref().is_some_and(str::is_empty) {
            found.push(("service_name", "is empty; say what traces call this program".to_owned()));
        }
        found
    }
}

/// Reads an address that spans are posted to.
///
/// # Errors
/// A sentence that says what to write, without the address: it may have a password.
pub(crate) fn address(text: &str) -> Result<Url, String> {
    let what = "write the collector's base address, as in \"http://127.0.0.1:4318\"";
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}; {what}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("is not an address of HTTP; {what}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("has a user or password in it; send a header, by the variable OTEL_EXPORTER_OTLP_HEADERS".into());
    }
    Ok(url)
}

fn below(base: &str) -> String {
    format!("{}/v1/traces", base.trim_end_matches('/'))
}

/// `a=1,b=2`, in which values may be percent-encoded (W3C Baggage, which the variables follow). What is no pair is passed over.
fn pairs(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let (name, value) = (name.trim(), value.trim());
        (!name.is_empty()).then(|| (decoded(name), decoded(value)))
    };
    text.split(',').filter_map(pair).collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let [first, after @ ..] = rest {
        let hex = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, variables: &[(&str, &str)]) -> TracingConfig {
        let mut config: TracingConfig = toml::from_str(text).expect("good keys");
        let environment = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        config.read(&Sources { environment, ..Sources::default() });
        config
    }

    #[test]
    fn the_configuration_wins_over_the_standard_variables() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/spans");
        let traces = |text: &str, variables: &[_]| read(text, variables).traces();
        assert_eq!(traces("", &[]), None);
        assert_eq!(traces("", &[base]).as_deref(), Some("http://a:4318/v1/traces"));
        assert_eq!(traces("", &[base, whole]).as_deref(), Some("http://b/spans"));
        assert_eq!(traces("endpoint = \"http://c\"", &[base, whole]).as_deref(), Some("http://c/v1/traces"));
        assert_eq!(traces("endpoint = \"http://c\"", &[("OTEL_SDK_DISABLED", "true")]), None);
        assert_eq!(traces("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), None, "an empty variable is as none");
    }

    #[test]
    fn a_name_is_found_in_its_order() {
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=c, deployment.environment.name=a%20b");
        let name = ("OTEL_SERVICE_NAME", "b");
        assert_eq!(read("service_name = \"a\"", &[name, attributes]).service_name(), "a");
        assert_eq!(read("", &[name, attributes]).service_name(), "b");
        let of_attributes = read("", &[attributes]);
        assert_eq!(of_attributes.service_name(), "c");
        assert_eq!(of_attributes.found.attributes[1], ("deployment.environment.name".to_owned(), "a b".to_owned()));
        assert_eq!(read("", &[]).service_name(), "groupcast");
    }

    #[test]
    fn headers_are_never_shown() {
        let config = read("", &[("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20Y2FuYXJ5,x=%zz")]);
        let headers: Vec<_> =
            config.found.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(headers, [("authorization", "Basic Y2FuYXJ5"), ("x", "%zz")]);
        assert!(!format!("{config:?}").contains("Y2FuYXJ5"));
        assert!(!toml::to_string(&config).expect("it can be printed").contains("Y2FuYXJ5"));
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let wrong = |text: &str| -> Vec<_> { read(text, &[]).problems().into_iter().map(|(key, _)| key).collect() };
        assert!(wrong("endpoint = \"https://collector.example:4318/otlp\"\nsample = 1.0").is_empty());
        for (text, key) in [
            ("endpoint = \"collector:4318\"", "endpoint"),
            ("endpoint = \"http://user:canary@collector\"", "endpoint"),
            ("sample = 1.5", "sample"),
            ("sample = nan", "sample"),
            ("service_name = \"\"", "service_name"),
        ] {
            assert_eq!(wrong(text), [key], "{text}");
        }
        assert!(!read("endpoint = \"http://user:canary@x\"", &[]).problems()[0].1.contains("canary"));
    }
}
