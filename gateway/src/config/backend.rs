//! The address of a backend: what `[[consumer]] url` may be.

use std::net::IpAddr;

use reqwest::Url;

use crate::address::is_public;

/// Reads the address of a backend.
///
/// # Errors
/// A sentence that says what to write: it is no URL of HTTP, has a user or a fragment in it, or is that of a host that is
/// not public without `allow_private`. Where a name leads is found out when it is connected to.
pub(crate) fn backend_url(text: &str, allow_private: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}; write it as in {EXAMPLE}"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(format!("is not an address of HTTP; write it as in {EXAMPLE}"));
    }
    // Not shown: it may be a password.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "has a user or password in it, which would be sent in the clear; requests are signed with `secret_env`"
                .into(),
        );
    }
    if url.fragment().is_some() {
        return Err("has a fragment (`#…`), which is not sent; take it out".into());
    }
    if !allow_private && !may_be_public(&url) {
        let host = url.host_str().unwrap_or_default();
        return Err(format!(
            "leads to `{host}`, which is not a public address; set `allow_private = true` if that is meant"
        ));
    }
    Ok(url)
}

const EXAMPLE: &str = "\"https://backend.example.org/jobs\"";

/// An address has to be public, a name may be.
fn may_be_public(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => is_public(address),
        Err(_) => {
            let name = host.trim_end_matches('.');
            name != "localhost" && !name.ends_with(".localhost")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_addresses_and_names_are_taken() {
        for text in
            ["https://example.org/jobs?x=1", "http://example.org:8080", "https://1.1.1.1/", "http://[2606:4700::1]/x"]
        {
            assert!(backend_url(text, false).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_not_public_needs_leave_however_it_is_written() {
        for text in [
            "http://127.0.0.1:8001/jobs",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://[::1]/",
            "http://[::ffff:10.0.0.1]/",
            "http://[64:ff9b::a00:1]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://0.0.0.0/",
            "https://192.168.1.5/",
        ] {
            let told = backend_url(text, false).expect_err(text);
            assert!(told.contains("allow_private"), "{text}: {told}");
            assert!(backend_url(text, true).is_ok(), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_of_http_is_refused() {
        for text in ["", "example.org", "/jobs", "ftp://example.org/", "file:///etc/passwd", "unix:/x", "http://"] {
            assert!(backend_url(text, true).is_err(), "{text}");
        }
        for text in ["http://user@example.org/", "http://:secret@example.org/", "http://example.org/#x"] {
            let told = backend_url(text, true).expect_err(text);
            assert!(!told.contains("secret@"), "{told}");
        }
    }
}
