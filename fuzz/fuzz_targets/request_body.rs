//! Bodies of HTTP: many messages in one request, and parameters of queries.

#![no_main]

use groupcast::fuzzing::{batch, bind};
use groupcast_fuzz::{no_beginning_is_accepted, text};
use groupcast_protocol::{ChannelName, GroupName};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(items) = batch(data) {
        no_beginning_is_accepted(data.trim_ascii_end(), |part| batch(part).is_ok());
        for item in items.iter().flatten() {
            assert!(if item.is_group {
                GroupName::parse(&item.target).is_ok()
            } else {
                ChannelName::parse(&item.target).is_ok()
            });
        }
        if let Ok(Value::Array(tree)) = serde_json::from_slice::<Value>(data) {
            assert_eq!(tree.len(), items.len());
            for (told, item) in tree.iter().zip(&items) {
                let Some(item) = item else { continue };
                let (name, other) = if item.is_group { ("group", "channel") } else { ("channel", "group") };
                assert_eq!(told[name], item.target, "{told}");
                assert!(told.get(other).is_none_or(Value::is_null));
                assert_eq!(told["message"]["type"], item.message.kind());
            }
        }
    }
    let Some(given) = text(data) else { return };
    let Some(canonical) = bind(given) else { return };
    // The same values have the same text, however they are given: jobs are shared by it.
    assert_eq!(bind(&canonical), Some(canonical.clone()));
    let bound: Value = serde_json::from_str(&canonical).expect("the canonical text is JSON");
    assert!(bound["integer"].as_i64().is_some_and(|n| (-5..=5).contains(&n)), "{canonical}");
    assert!(bound["choice"] == "JFK" || bound["choice"] == "LGA", "{canonical}");
});
