//! Whose work a message is, and what is refused.

use super::*;
use crate::config::consumer::Durability;
use crate::config::query::{QueryConfig, SourceConfig};
use crate::consumer::testing::message;

#[test]
fn the_mission_line_becomes_one_job() {
    let jobs = claim(r#"{"type":"execute_query","queryset_id":7}"#).expect("claimed");
    let [Claimed { job, mode: Mode::Work }] = &jobs[..] else { panic!("{jobs:?}") };
    assert_eq!((job.consumer.as_str(), job.durability, job.max_attempts), ("queries", Durability::Os, 5));
    assert_eq!(job.message.as_str(), r#"{"type":"execute_query","queryset_id":7}"#);
    assert_eq!(job.reply_to, ReplyTo::Group(group("my_group")));
}

#[test]
fn group_and_type_decide() {
    for (group_name, json, consumers) in [
        ("my_group", r#"{"type":"execute.query","query":"worst"}"#, &["queries"][..]),
        ("other", r#"{"type":"execute_query","query":"worst"}"#, &[]),
        ("my_group", r#"{"type":"chat.message"}"#, &[]),
        ("room.1", r#"{"type":"resize"}"#, &["images", "audit"]),
        ("room", r#"{"type":"resize"}"#, &[]),
    ] {
        let jobs =
            claims().claim(&By::gateway(), &group(group_name), &message(json), ReplyTo::Nobody).expect("claimed");
        let found: Vec<_> = jobs.iter().map(|claimed| claimed.job.consumer.as_str()).collect();
        assert_eq!(found, consumers, "{group_name} {json}");
        assert_eq!(claims().is_work(&group(group_name), &message(json)), !consumers.is_empty());
    }
}

#[test]
fn the_fields_of_the_contract_are_read() {
    let json = r#"{"type":"execute_query","query":"worst","params":{"origin":"LGA"},"reply_to":"gw1!c1","unique_key":"k",
        "priority":-3,"delay_ms":1000,"deadline_ms":60000,"max_attempts":2,"limit":10,"format":null,"other":[1]}"#;
    let before = clock::now_ms();
    let job = claim(json).expect("claimed").remove(0).job;
    let after = clock::now_ms();
    assert!(matches!(&job.reply_to, ReplyTo::Channel(name) if name.as_str() == "gw1!c1"));
    assert_eq!((job.unique_key.as_deref(), job.priority, job.max_attempts), (Some("k"), -3, 2));
    assert!((before + 1000..=after + 1000).contains(&job.run_at.expect("delayed")));
    assert!((before + 60_000..=after + 60_000).contains(&job.deadline_at.expect("a deadline")));
}

#[test]
fn a_wrong_field_is_named() {
    for (fields, named) in [
        (r#""query":7"#, "`query`"),
        (r#""queryset_id":"7""#, "`queryset_id`"),
        (r#""queryset_id":-7"#, "`queryset_id`"),
        (r#""queryset_id":7.5"#, "`queryset_id`"),
        (r#""query":"other","queryset_id":7"#, "`queryset_id`"),
        (r#""params":{}"#, "`query`"),
        (r#""queryset_id":7,"params":[]"#, "`params`"),
        (r#""queryset_id":7,"params":{"origin":"XXX"}"#, "`origin`"),
        (r#""queryset_id":7,"params":{"orign":"JFK"}"#, "did you mean `origin`"),
        (r#""queryset_id":7,"reply_to":{}"#, "`reply_to`"),
        (r#""queryset_id":7,"reply_to":"a b""#, "`reply_to`"),
        (r#""queryset_id":7,"unique_key":"""#, "`unique_key`"),
        (r#""queryset_id":7,"priority":1e99"#, "`priority`"),
        (r#""queryset_id":7,"priority":2147483648"#, "`priority`"),
        (r#""queryset_id":7,"delay_ms":-1"#, "`delay_ms`"),
        (r#""queryset_id":7,"delay_ms":99999999999"#, "`delay_ms`"),
        (r#""queryset_id":7,"deadline_ms":0"#, "`deadline_ms`"),
        (r#""queryset_id":7,"max_attempts":0"#, "`max_attempts`"),
        (r#""queryset_id":7,"limit":0"#, "`limit`"),
    ] {
        let refused = claim(&format!(r#"{{"type":"execute_query",{fields}}}"#)).expect_err(fields);
        assert_eq!(refused.code, ErrorCode::BadParams, "{fields}: {refused}");
        assert!(refused.message.contains(named), "{fields}: {refused}");
    }
    let report = claims().claim(
        &By::gateway(),
        &group("my_group"),
        &message(r#"{"type":"generate_report","queryset_id":7,"format":"pdf"}"#),
        ReplyTo::Nobody,
    );
    assert!(report.expect_err("no such format").message.contains("`format`"));
}

#[test]
fn unknown_queries_list_the_known_ones() {
    let by_name = claim(r#"{"type":"execute_query","query":"wrost"}"#).expect_err("unknown");
    assert_eq!(by_name.code, ErrorCode::UnknownQuery);
    assert_eq!(by_name.message, "there is no query `wrost`; did you mean `worst`? known are `other`, `worst`");
    let by_id = claim(r#"{"type":"execute_query","queryset_id":70}"#).expect_err("unknown");
    assert_eq!(by_id.message, "there is no query with id 70; known are 7 (`worst`), 8 (`other`)");
}

#[test]
fn events_feed_only_consumers_that_ask_for_them() {
    let claim = |json: &str| {
        let jobs =
            claims().claim(&By::gateway(), &group("my_group"), &message(json), ReplyTo::Nobody).expect("claimed");
        jobs.iter().map(|claimed| (claimed.job.consumer.clone(), claimed.job.hops)).collect::<Vec<_>>()
    };
    assert_eq!(claim(r#"{"type":"job.result","job":"x"}"#), [("chained".to_owned(), 1)]);
    assert_eq!(claim(r#"{"type":"job.result","hops":7}"#), [("chained".to_owned(), 8)]);
    assert_eq!(claim(r#"{"type":"job.result","hops":8}"#), [], "the chain is cut");
    assert_eq!(claim(r#"{"type":"job_result"}"#), [], "a client's message is no event");
    assert_eq!(claim(r#"{"type":"job.failed"}"#), []);
}

#[test]
fn a_query_by_name_is_a_job_of_the_consumer_that_runs_queries() {
    let params: Box<RawValue> = serde_json::from_str(r#"{"origin":"EWR"}"#).expect("JSON");
    let job = claims().query(&By::gateway(), "worst", Some(&params), ReplyTo::Nobody).expect("claimed");
    assert_eq!(job.consumer, "queries");
    let expected = r#"{"type":"execute_query","query":"worst","params":{"origin":"EWR"}}"#;
    assert_eq!(job.message.as_str(), expected);
    assert!(claims().query(&By::gateway(), "worst", None, ReplyTo::Nobody).is_ok());
    let code = |name, json: &str| {
        let params: Box<RawValue> = serde_json::from_str(json).expect("JSON");
        claims().query(&By::gateway(), name, Some(&params), ReplyTo::Nobody).expect_err("refused").code
    };
    assert_eq!(code("nothing", "{}"), ErrorCode::UnknownQuery);
    assert_eq!(code("worst", "[]"), ErrorCode::BadParams);
    let none = Claims::new(&[], queries()).expect("valid").query(&By::gateway(), "worst", None, ReplyTo::Nobody);
    assert_eq!(none.expect_err("refused").code, ErrorCode::NotFound);
}

#[test]
fn who_asks_for_himself_always_shares_and_a_group_where_it_is_configured() {
    let params = |json: &str| -> Box<RawValue> { serde_json::from_str(json).expect("JSON") };
    let alone = |json: &str| {
        claims()
            .query(&By::gateway(), "worst", Some(&params(json)), ReplyTo::Nobody)
            .expect("claimed")
            .coalesce_key
            .expect("a key")
    };
    assert_eq!(alone("{}"), alone(r#"{"origin":"JFK"}"#));
    assert_ne!(alone("{}"), alone(r#"{"origin":"LGA"}"#));
    let of = |kind: &str, fields: &str| {
        let message = message(&format!(r#"{{"type":"{kind}",{fields}}}"#));
        let group = group("shared");
        claims().claim(&By::gateway(), &group, &message, ReplyTo::Nobody).expect("claimed").remove(0).job.coalesce_key
    };
    let key = of("execute_query", r#""queryset_id":7"#);
    assert!(key.is_some());
    assert_eq!(key, of("execute_query", r#""query":"worst","params":{"origin":"JFK"},"priority":9,"reply_to":"x""#));
    assert_ne!(key, of("execute_query", r#""queryset_id":7,"limit":3"#));
    assert_ne!(key, of("execute_query", r#""queryset_id":8"#));
    let report = of("generate_report", r#""queryset_id":7"#);
    assert!(report.is_some() && report != key);
    assert_ne!(report, of("generate_report", r#""queryset_id":7,"format":"csv""#));
    let unshared = claim(r#"{"type":"execute_query","queryset_id":7}"#).expect("claimed");
    assert_eq!(unshared[0].job.coalesce_key, None);
}

#[test]
fn a_bad_configuration_is_told_with_its_key() {
    for (config, key) in [
        ("name = 'a b'\ngroup = 'g'\ntype = 't'\nrun = 'query'", "consumer.a b.name"),
        ("name = 'a'\ngroup = 'g*h'\ntype = 't'\nrun = 'query'", "consumer.a.group"),
        ("name = 'a'\ngroup = 'g'\ntype = ''\nrun = 'query'", "consumer.a.type"),
        ("name = 'a'\ngroup = 'g'\ntype = 'job.result'\nrun = 'query'", "consumer.a.type"),
        ("name = 'a'\ngroup = 'g'\ntype = 't'\nrun = 'query'\nconcurrency = 0", "consumer.a.concurrency"),
        ("name = 'a'\ngroup = 'g'\ntype = 't'\nrun = 'query'\nmax_attempts = 0", "consumer.a.max_attempts"),
    ] {
        let problems = Claims::new(&[toml::from_str(config).expect("a consumer")], queries()).expect_err(config);
        assert_eq!(problems[0].key, key);
    }
    let twice = ["name = 'a'\ngroup = 'g'\ntype = 't'\nrun = 'query'"; 2].map(|one| toml::from_str(one).expect("one"));
    assert_eq!(Claims::new(&twice, queries()).expect_err("twice")[0].key, "consumer.a.name");
}

fn claim(json: &str) -> Result<Vec<Claimed>, Refusal> {
    claims().claim(&By::gateway(), &group("my_group"), &message(json), ReplyTo::Group(group("my_group")))
}

fn claims() -> Claims {
    let consumers = [
        "name = 'queries'\ngroup = 'my_group'\ntype = 'execute_query'\nrun = 'query'\ndurability = 'os'",
        "name = 'reports'\ngroup = 'my_group'\ntype = 'generate_report'\nrun = 'report'",
        "name = 'images'\ngroup = 'room.*'\ntype = 'resize'\nrun = 'embedded'\nmode = 'both'",
        "name = 'audit'\ngroup = 'room.*'\ntype = 'resize'\nrun = 'embedded'",
        "name = 'chained'\ngroup = 'my_group'\ntype = 'job.result'\nrun = 'embedded'\nchain = true",
        "name = 'sharing'\ngroup = 'shared'\ntype = 'execute_query'\nrun = 'query'\ncoalesce = true",
        "name = 'sharing_reports'\ngroup = 'shared'\ntype = 'generate_report'\nrun = 'report'\ncoalesce = true",
        "name = 'broken_chain'\ngroup = 'my_group'\ntype = 'job_failed'\nrun = 'embedded'",
    ]
    .map(|config| toml::from_str(config).expect("a consumer"));
    Claims::new(&consumers, queries()).expect("valid")
}

fn queries() -> Arc<Queries> {
    let source: SourceConfig = toml::from_str("kind = 'sqlite'\npath = 'demo.db'").expect("a source");
    let configs: Vec<QueryConfig> = [
        "id = 7\nname = 'worst'\nsource = 'demo'\nsql = 'select :origin'\n\
            params.origin = { type = 'text', enum = ['JFK', 'LGA', 'EWR'], default = 'JFK' }",
        "id = 8\nname = 'other'\nsource = 'demo'\nsql = 'select 1'",
    ]
    .map(|config| toml::from_str(config).expect("a query"))
    .into();
    Arc::new(Queries::new(&[("demo".to_owned(), source)].into(), &configs).expect("valid"))
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).expect("a name")
}
