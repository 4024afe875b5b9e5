//! SQL with names for PostgreSQL, and what processes that share a store on it tell each other.

#![no_main]

use groupcast::fuzzing::{carried, hint, number};
use groupcast_fuzz::text;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some(text) = text(data) else { return };
    if let Some(again) = hint(text) {
        assert_eq!(again.to_ascii_uppercase(), text.to_ascii_uppercase(), "ids may be of either case");
    }
    if let Some(message) = carried(text, "gw1") {
        assert!(!message.kind().is_empty());
    }
    let (sql, names, has_more) = number(text);
    for (at, name) in names.iter().enumerate() {
        assert!(text.contains(&format!(":{name}")) && sql.contains(&format!("${}", at + 1)), "{name}");
        assert!(!names[..at].contains(name), "a name has two numbers");
        assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric()));
    }
    if names.is_empty() && !text.contains(';') {
        assert_eq!((sql.as_str(), has_more), (text, false), "nothing else is changed");
    }
    // What has been numbered has no names any more.
    assert_eq!(number(&sql), (sql.clone(), Vec::new(), false));
});
