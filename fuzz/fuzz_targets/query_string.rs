//! Query strings and headers of HTTP: of event streams (`group`, `after`, `query`, `Last-Event-ID`), and of all else.

#![no_main]

use std::time::Duration;

use groupcast::fuzzing::{asked, query_string};
use groupcast_fuzz::head;
use http::{HeaderMap, HeaderValue, Uri};
use libfuzzer_sys::fuzz_target;

const GROUPS_MAX: usize = 4;

fuzz_target!(|data: &[u8]| {
    let (query, header) = head(data);
    let target = [b"/v1/events?", query].concat();
    let Ok(uri) = Uri::try_from(target.as_slice()) else { return };
    let Ok(value) = HeaderValue::from_bytes(header) else { return };
    let with = |names: &[&'static str]| {
        names.iter().map(|name| (http::HeaderName::from_static(name), value.clone())).collect::<HeaderMap>()
    };
    match asked(&uri, &with(&["last-event-id"]), GROUPS_MAX) {
        Ok((groups, queries)) => {
            assert!((1..=GROUPS_MAX).contains(&(groups.len() + queries.len())));
            for (at, (group, _)) in groups.iter().enumerate() {
                assert!(!group.is_of_live_query() && groups[..at].iter().all(|(other, _)| other != group));
            }
            for (_, params) in &queries {
                assert!(
                    params
                        .iter()
                        .enumerate()
                        .all(|(at, (name, _))| params[..at].iter().all(|(other, _)| other != name))
                );
            }
        }
        Err(status) => assert!(matches!(status, 400 | 403 | 422), "{status}"),
    }
    match query_string(&uri, &with(&["accept", "prefer", "idempotency-key"])) {
        Ok(read) => {
            assert!((1..=1000).contains(&read.limit));
            assert!(read.wait <= Duration::from_secs(60) && read.preferred.is_none_or(|wait| wait.as_secs() <= 60));
            assert!(read.best.is_none_or(|at| at < 3));
            assert!(read.has_key && (1..=255).contains(&header.len()));
        }
        Err(status) => assert_eq!(status, 400),
    }
});
