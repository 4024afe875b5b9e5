//! What a run tells of what it found.

use groupcast_channel_layer::LayerConfig;
use groupcast_protocol::NodeId;

use super::known::Known;
use super::run::{compare, failed};
use super::table::Told;
use super::*;
use crate::consumer::Failure;
use crate::jobs::results::{Chunk, RowSet};

#[test]
fn only_what_has_changed_is_told() {
    let question = keyed();
    let mut told = Told::default();
    let first = tell(&question, &mut told, r#"["LAX",11]["SFO",8]["BOS",1]"#).expect("all of it");
    assert_eq!(first, snapshot(1, r#"["LAX",11],["SFO",8],["BOS",1]"#));
    assert_eq!(tell(&question, &mut told, r#"["LAX",11]["SFO",8]["BOS",1]"#), None);
    let diff = tell(&question, &mut told, r#"["LAX",12]["BOS",1]["SEA",2]"#).expect("a change");
    let rows = r#""version":2,"since":1,"digest":"","upsert":[["LAX",12],["SEA",2]],"delete":[["SFO"]]}"#;
    assert_eq!(diff, format!(r#"{{"type":"query.diff","query":"q","params":{{}},{rows}"#));
}

#[test]
fn the_order_of_keyed_rows_is_no_change_and_of_others_it_is() {
    for (question, is_told) in [(keyed(), false), (plain(), true)] {
        let mut told = Told::default();
        tell(&question, &mut told, r#"["a",1]["b",2]"#);
        assert_eq!(tell(&question, &mut told, r#"["b",2]["a",1]"#).is_some(), is_told);
    }
}

#[test]
fn a_difference_that_is_longer_than_the_rows_is_not_told() {
    let mut told = Told::default();
    tell(&keyed(), &mut told, r#"["a",1]["b",2]["c",3]"#);
    let change = tell(&keyed(), &mut told, r#"["d",4]"#);
    assert_eq!(change.as_deref(), Some(snapshot(2, r#"["d",4]"#).as_str()));
}

#[test]
fn rows_without_a_key_are_told_whole() {
    for (question, before, after) in [
        (plain(), r#"["a",1]["b",2]"#, r#"["a",1]["b",3]"#),
        (keyed(), r#"["a",1]["b",2]"#, r#"["a",1]["a",3]"#),
        (keyed(), r#"["a",1][null,2]"#, r#"["a",1]["b",2]"#),
    ] {
        let mut told = Told::default();
        tell(&question, &mut told, before);
        let change = tell(&question, &mut told, after).expect("a change");
        assert_eq!(change, snapshot(2, &after.replace("][", "],[")));
    }
}

#[test]
fn a_failure_is_told_once_and_its_end_too() {
    let (question, mut told) = (keyed(), Told::default());
    tell(&question, &mut told, r#"["a",1]"#);
    let broken = |why: &str| Failure::permanent("query_failed", why);
    assert!(fail(&question, &mut told, broken("no such table")).is_some());
    assert!(fail(&question, &mut told, broken("no such table")).is_none());
    assert!(fail(&question, &mut told, broken("no such column")).is_some());
    // The same rows as before, told again: the failure is over.
    assert_eq!(tell(&question, &mut told, r#"["a",1]"#), Some(snapshot(2, r#"["a",1]"#)));
    assert!(told.failed.is_none() && told.known.is_some_and(|known| known.version == 2));
}

#[test]
fn a_failure_that_passes_by_itself_is_not_told() {
    let (question, mut told) = (keyed(), Told::default());
    tell(&question, &mut told, r#"["a",1]"#);
    let locked = || Failure::transient("source_unavailable", "database is locked");
    for _ in 0..2 {
        assert!(fail(&question, &mut told, locked()).is_none());
    }
    assert_eq!(tell(&question, &mut told, r#"["a",1]"#), None, "nobody knows of it");
    for _ in 0..2 {
        assert!(fail(&question, &mut told, locked()).is_none());
    }
    assert!(fail(&question, &mut told, locked()).is_some_and(|text| text.contains("database is locked")));
    assert!(fail(&question, &mut told, locked()).is_none(), "that is known");
    assert!(tell(&question, &mut told, r#"["a",1]"#).is_some(), "and over");
}

#[test]
fn what_the_layer_did_not_take_is_told_whole() {
    let (question, mut told) = (keyed(), Told::default());
    tell(&question, &mut told, r#"["a",1]"#);
    told.untold = true;
    assert_eq!(tell(&question, &mut told, r#"["a",1]"#), Some(snapshot(2, r#"["a",1]"#)));
    assert_eq!(tell(&question, &mut told, r#"["a",1]"#), None);
}

#[test]
fn a_key_that_the_query_does_not_give_is_a_failure() {
    let question = question("key = ['nope']\nrefresh = '1s'", "{}").expect("live");
    let refused = Known::new(&question, 1, String::new(), rows(r#"["a",1]"#)).err().expect("a failure");
    assert_eq!(refused.code, "query_failed");
    assert!(refused.message.contains("`nope`") && refused.message.contains("`dest`, `n`"), "{}", refused.message);
}

#[test]
fn the_same_question_has_the_same_group_however_it_is_put() {
    let with = "refresh = '1s'\nparams.origin = { type = 'text', default = 'JFK' }";
    let group = |params: &str| question(with, params).expect("live").group.clone();
    assert_eq!(group("{}"), group(r#"{ "origin" : "\u004aFK" }"#));
    assert_ne!(group("{}"), group(r#"{"origin":"LGA"}"#));
    let other = question("refresh = '1s'\nparams.origin = { type = 'text', default = 'LGA' }", "{}").expect("live");
    assert_eq!(group(r#"{"origin":"LGA"}"#), other.group);
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let code =
        |config: &str, params: &str| question(config, params).map(|_| ()).map_err(|refusal| refusal.code.as_str());
    assert_eq!(code("", "{}"), Err("bad_request"));
    assert_eq!(code("tags = ['t']", "{}"), Ok(()));
    assert_eq!(code("tags = ['t']", r#"{"x":1}"#), Err("bad_params"));
    let long = format!(r#"{{"x":"{}"}}"#, "x".repeat(4090));
    assert_eq!(code("tags = ['t']\nparams.x = { type = 'text' }", &long), Err("too_large"));
}

#[tokio::test]
async fn a_panic_costs_one_run() {
    let question = plain();
    let sources = [("demo".to_owned(), toml::from_str("kind = 'sqlite'\npath = 'none.db'").expect("a source"))];
    let config = Config { source: sources.into(), ..Config::default() };
    let opened = Sources::open(&config.source, std::path::Path::new(".")).map_err(|problems| format!("{problems:?}"));
    let (layer, _inboxes) = ChannelLayer::new(LayerConfig::new(NodeId::parse("gw1").expect("a good name")));
    let live = Live::new(&config, Arc::default(), Arc::new(opened.expect("good sources")), layer);
    live.join(&question).expect("there is room");
    assert_eq!(live.0.table.lock().start_due(Instant::now(), |_| true).len(), 1);
    assert_eq!(live.0.table.lock().next_due(), None, "it runs");
    guard(live.0.clone(), question.group.clone(), async { panic!("on purpose") }).await;
    assert!(live.0.table.lock().next_due().is_some(), "it is asked again");
    assert_eq!(live.counters().failures.get(), 1);
}

/// What is told after a run that gave these rows, without its digest.
fn tell(question: &Question, told: &mut Told, lines: &str) -> Option<String> {
    let news = compare(question, told, rows(lines)).expect("good rows");
    *told = news.told;
    let (message, digest) = (news.message?, &told.known.as_ref().expect("known").digest);
    Some(message.as_str().replace(digest.as_str(), ""))
}

fn fail(question: &Question, told: &mut Told, failure: Failure) -> Option<String> {
    let news = failed(question, told.clone(), failure);
    *told = news.told;
    news.message.map(|message| message.as_str().to_owned())
}

fn snapshot(version: u64, rows: &str) -> String {
    let head = format!(r#"{{"type":"query.snapshot","query":"q","params":{{}},"version":{version},"digest":"""#);
    format!(r#"{head},"columns":["dest","n"],"rows":[{rows}],"truncated":false}}"#)
}

fn rows(lines: &str) -> RowSet {
    let ndjson = lines.replace("][", "]\n[") + "\n";
    let chunks = vec![Chunk { first_row: 0, rows: ndjson.lines().count() as u64, ndjson: ndjson.into() }];
    RowSet { columns: vec!["dest".into(), "n".into()], chunks, truncated: false }
}

fn keyed() -> Arc<Question> {
    question("key = ['dest']\nrefresh = '1s'", "{}").expect("live")
}

fn plain() -> Arc<Question> {
    question("refresh = '1s'", "{}").expect("live")
}

/// A question about a query with these settings.
pub(super) fn question(config: &str, params: &str) -> Result<Arc<Question>, Refusal> {
    let config = format!("id = 1\nname = 'q'\nsource = 'demo'\nsql = 'select 1'\n{config}");
    let source = toml::from_str("kind = 'sqlite'\npath = 'demo.db'").expect("a source");
    let sources = [("demo".to_owned(), source)].into();
    let queries = Queries::new(&sources, &[toml::from_str(&config).expect("a query")]).expect("good queries");
    let params = RawObject::parse(Bytes::copy_from_slice(params.as_bytes())).expect("an object");
    Question::new(queries.by_name("q").expect("it is there"), &given(&params)?).map(Arc::new)
}
