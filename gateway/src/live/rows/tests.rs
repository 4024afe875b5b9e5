//! A difference that is applied to the old rows gives the new ones.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

#[test]
fn what_came_changed_and_went_is_told() {
    let before = keyed(&[json!(["LAX", 11]), json!(["SFO", 8]), json!(["BOS", 1])]);
    let after = keyed(&[json!(["LAX", 12]), json!(["BOS", 1]), json!(["MIA", 2])]);
    let diff = after.since(&before);
    assert_eq!(diff.upsert, [r#"["LAX",12]"#, r#"["MIA",2]"#]);
    assert_eq!(diff.delete, [Box::<str>::from(r#"["SFO"]"#)]);
    assert_eq!(diff.bytes(), 10 + 9 + 7 + 3);
}

#[test]
fn order_alone_is_no_difference() {
    let (one, other) = (keyed(&[json!(["a", 1]), json!(["b", 2])]), keyed(&[json!(["b", 2]), json!(["a", 1])]));
    assert!(one.since(&other).is_empty());
}

#[test]
fn what_is_no_key_is_none() {
    let is_key = |rows: &[Value], key: &[usize]| Keyed::read(&ndjson(rows), key).is_some();
    let twice = [json!(["a", 1]), json!(["a", 2])];
    assert!(!is_key(&twice, &[0]), "two rows have it");
    assert!(is_key(&twice, &[1]) && is_key(&twice, &[0, 1]), "one alone, or both together");
    assert!(!is_key(&twice, &[2]), "there is no third column");
    assert!(!is_key(&[json!([null, 1])], &[0]) && !is_key(&[json!([1, null])], &[0, 1]), "null is no key");
    assert!(!is_key(&[json!({"a": 1})], &[0]), "that is no row");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applied_to_the_old_rows_it_gives_the_new_ones(before in table(), after in table()) {
        let diff = read(&after).since(&read(&before));
        let mut client = before.clone();
        for key in &diff.delete {
            let key: Vec<Value> = serde_json::from_str(key).expect("JSON");
            prop_assert!(client.remove(&key[0].to_string()).is_some(), "only what was there is deleted");
        }
        for row in &diff.upsert {
            let row: Vec<Value> = serde_json::from_slice(row).expect("JSON");
            let key = row[0].to_string();
            prop_assert_ne!(client.get(&key), Some(&row), "only what has changed is told");
            client.insert(key, row);
        }
        prop_assert_eq!(&client, &after);
        prop_assert_eq!(diff.is_empty(), before == after);
    }
}

/// Few keys, so that rows change and go; texts with all that JSON escapes.
fn table() -> impl Strategy<Value = BTreeMap<String, Vec<Value>>> {
    let key = prop_oneof![(0..6i64).prop_map(Value::from), "[a\"\\\\\\n,\\]é]{0,2}".prop_map(Value::from)];
    let cell = prop_oneof![Just(Value::Null), (0..3i64).prop_map(Value::from), "[a\"\\n]{0,2}".prop_map(Value::from)];
    prop::collection::vec((key, cell), 0..8)
        .prop_map(|rows| rows.into_iter().map(|(key, cell)| (key.to_string(), vec![key, cell])).collect())
}

fn read(table: &BTreeMap<String, Vec<Value>>) -> Keyed {
    let rows: Vec<Value> = table.values().map(|row| Value::from(row.clone())).collect();
    keyed(&rows)
}

fn keyed(rows: &[Value]) -> Keyed {
    Keyed::read(&ndjson(rows), &[0]).expect("the first column is a key")
}

fn ndjson(rows: &[Value]) -> Bytes {
    rows.iter().map(|row| format!("{row}\n")).collect::<String>().into()
}
