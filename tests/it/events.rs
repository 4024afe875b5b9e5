//! Server-Sent Events, as a program without a WebSocket reads them.

use std::time::Instant;

use groupcast_tests::gateway::Process;
use groupcast_tests::home::BARE;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Events, Gateway, Http, Socket};
use serde_json::{Value, json};

/// Logs that a reader falls off soon.
const SMALL_LOGS: &str = "\n[limits]\nlog_bytes = \"256KiB\"\nwrite_timeout = \"80s\"\n";

#[tokio::test]
async fn subscribed_comes_first_and_then_every_push_in_order() {
    let gateway = Gateway::start(BARE).await;
    let mut events = Events::open(&gateway, "group=my_group").await;
    assert_eq!(events.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(events.head.header("cache-control"), Some("no-store"));
    assert_eq!(events.head.header("x-accel-buffering"), Some("no"));
    assert_eq!(events.expect("subscribed", "subscribed").await, json!({"type": "subscribed", "group": "my_group"}));
    assert!(events.retry().is_some_and(|ms| (1000..=3000).contains(&ms)), "{:?}", events.retry());

    let http = gateway.http();
    for n in 0..200 {
        assert_eq!(http.group_send("my_group", &json!({"type": "tick", "n": n})).await["members"], 1);
    }
    for n in 0..200 {
        let push = events.expect("message", "message").await;
        assert_eq!(push, json!({"type": "message", "group": "my_group", "message": {"type": "tick", "n": n}}));
    }
    assert_eq!(events.last_id(), "", "a group without history has no positions");
}

#[tokio::test]
async fn several_groups_share_one_stream() {
    let gateway = Gateway::start(BARE).await;
    let mut events = Events::open(&gateway, "group=a&group=b&group=a").await;
    for group in ["a", "b"] {
        assert_eq!(events.expect("subscribed", "subscribed").await["group"], group);
    }
    let http = gateway.http();
    for group in ["a", "c", "b", "a"] {
        http.group_send(group, &json!({"type": "hello", "to": group})).await;
    }
    let mut to_a = 0;
    for _ in 0..3 {
        let push = events.expect("message", "message").await;
        assert_eq!(push["group"], push["message"]["to"]);
        to_a += usize::from(push["group"] == "a");
    }
    assert_eq!(to_a, 2);
}

#[tokio::test]
async fn whatever_line_ends_a_payload_has_it_arrives_as_it_was_meant() {
    let gateway = Gateway::start(BARE).await;
    let mut events = Events::open(&gateway, "group=g").await;
    events.expect("subscribed", "subscribed").await;
    for (raw, lines) in [
        ("{\"type\":\"x\",\n\"a\":1}", 2),
        ("{\"type\":\"x\",\r\n \"a\":\r[1,\n\n2]}", 5),
        ("{\"type\":\"x\",\"a\":\"data: 1\\n\\nid: 7\\u2028\\r\"}", 1),
    ] {
        let headers = [("content-type", "application/json")];
        let sent = gateway.http().request("POST", "/v1/groups/g/send", &headers, raw.as_bytes().to_vec()).await;
        sent.expect(202);
        let event = events.next().await.expect("the stream goes on");
        let meant: Value = serde_json::from_str(raw).expect("JSON");
        assert_eq!((&event.data["message"], event.lines), (&meant, lines), "{raw:?}");
        assert_eq!((event.name.as_str(), event.id.as_str()), ("message", ""), "nothing in a payload is a field");
    }
}

#[tokio::test]
async fn a_stream_is_a_connection_with_a_channel() {
    let gateway = Gateway::start(BARE).await;
    let mut events = Events::open(&gateway, "group=a").await;
    events.expect("subscribed", "subscribed").await;
    let (http, channel) = (gateway.http(), events.channel());
    let all = http.get("/v1/connections").await.expect(200);
    assert_eq!(all["connections"], json!([{"channel": channel}]));
    let path = format!("/v1/connections/{channel}");
    let one = http.get(&path).await.expect(200);
    assert_eq!((&one["groups"], &one["peer"]), (&json!(["a"]), &json!("127.0.0.1")), "{one}");

    http.post(&format!("/v1/channels/{channel}/send"), &json!({"type": "for.you"})).await.expect(202);
    let push = events.expect("message", "message").await;
    assert_eq!(push, json!({"type": "message", "channel": channel, "message": {"type": "for.you"}}));
    http.put(&format!("/v1/groups/club/members/{channel}")).await.expect(204);
    assert_eq!(events.expect("subscribed", "subscribed").await["group"], "club");
    http.group_send("club", &json!({"type": "hello"})).await;
    assert_eq!(events.message().await["type"], "hello");

    http.delete(&path).await.expect(204);
    assert!(events.end().await, "it ends as an answer of HTTP ends");
    http.get(&path).await.problem(404, "not_found");
    assert_eq!(http.group_send("a", &json!({"type": "x"})).await["members"], 0);
}

#[tokio::test]
async fn a_client_that_goes_is_forgotten_at_once() {
    let gateway = Gateway::start(BARE).await;
    let mut events = Events::open(&gateway, "group=a").await;
    events.expect("subscribed", "subscribed").await;
    drop(events);
    members(&gateway.http(), "a", 0).await;
    assert_eq!(gateway.http().get("/v1/connections").await.expect(200)["connections"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_streamed_is_refused() {
    let limits = "\n[limits]\nsubscriptions_per_connection = 3\n";
    let gateway = Gateway::start(&format!("{BARE}{limits}")).await;
    let http = gateway.http();
    for (query, status, code) in [
        ("", 422, "invalid_name"),
        ("group=", 422, "invalid_name"),
        ("group=a%20b", 422, "invalid_name"),
        ("group=a&group=a!b", 422, "invalid_name"),
        ("group=a&group=b&group=c&group=d", 400, "bad_request"),
        ("grup=a", 400, "bad_request"),
        ("group=a&after=nowhere", 400, "bad_request"),
        ("after=x:1&group=a", 400, "bad_request"),
    ] {
        let reply = http.get(&format!("/v1/events?{query}")).await;
        assert_eq!((reply.status, &reply.json()["code"]), (status, &json!(code)), "{query}: {}", reply.text());
    }
    let long = "x".repeat(5000);
    for id in ["x", "x:-1", "x:1:2", "a=x:1", "é:1", "x: 1", long.as_str()] {
        let reply = http.request("GET", "/v1/events?group=a", &[("last-event-id", id)], vec![]).await;
        reply.problem(400, "bad_request");
    }
    http.get_as("/v1/events?group=a", "application/json").await.problem(406, "not_acceptable");
    http.post("/v1/events?group=a", &json!({})).await.problem(405, "method_not_allowed");
    let foreign = [("origin", "https://elsewhere.example")];
    http.request("GET", "/v1/events?group=a", &foreign, vec![]).await.problem(403, "forbidden");
    assert_eq!(http.get("/v1/connections").await.expect(200)["connections"], json!([]), "none of them is left");
}

#[tokio::test]
async fn a_page_of_an_origin_that_is_let_in_may_read() {
    let config = BARE.replace("data_dir", "origins = [\"https://app.example\"]\ndata_dir");
    let gateway = Gateway::start(&config).await;
    let mut events = Events::open_with(&gateway, "group=a", &[("Origin", "https://app.example")]).await;
    assert_eq!(events.head.header("access-control-allow-origin"), Some("https://app.example"));
    events.expect("subscribed", "subscribed").await;
    let http = gateway.http();
    let page = ("origin", "https://app.example");
    let asks = [page, ("access-control-request-method", "GET"), ("access-control-request-headers", "authorization")];
    for (path, method) in
        [("/v1/events?group=a", "GET"), ("/v1/queries/numbers", "POST"), ("/v1/groups/a/send", "POST")]
    {
        let asked = http.request("OPTIONS", path, &[asks[0], (asks[1].0, method), asks[2]], Vec::new()).await;
        assert_eq!(asked.status, 200, "{path}: {}", asked.text());
        assert_eq!(asked.header("access-control-allow-origin"), Some(page.1), "{path}");
        assert!(asked.header("access-control-allow-headers").is_some_and(|names| names.contains("authorization")));
        assert!(asked.header("access-control-allow-methods").is_some_and(|names| names.contains(method)));
    }
    // What is refused is read as well, and so is what goes the straight way.
    for (method, path, body, status) in
        [("GET", "/v1/jobs/x", "", 404), ("POST", "/v1/groups/a/send", r#"{"type":"chat"}"#, 202)]
    {
        let answer = http.request(method, path, &[page], body.as_bytes().to_vec()).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (status, Some(page.1)), "{path}");
    }
    // Others are told nothing, and the operators' page is for nobody's.
    let other =
        http.request("OPTIONS", "/v1/events", &[("origin", "https://other.example"), asks[1]], Vec::new()).await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (403, None));
    let admin = http.request("OPTIONS", "/admin/api/overview", &asks, Vec::new()).await;
    assert_eq!(admin.header("access-control-allow-origin"), None, "{}", admin.status);
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nping_interval = \"100ms\"\n")).await;
    let mut events = Events::open(&gateway, "group=a").await;
    events.expect("subscribed", "subscribed").await;
    events.comments(3).await;
    gateway.http().group_send("a", &json!({"type": "hello"})).await;
    assert_eq!(events.message().await["type"], "hello");
}

#[tokio::test]
async fn a_reader_that_sleeps_is_told_what_it_missed_and_costs_no_more_than_the_log() {
    const SENT: u64 = 4000;
    let gateway = Gateway::start(&format!("{BARE}{SMALL_LOGS}")).await;
    let mut sleeper = Events::narrow(&gateway, "group=ticks", 4096).await;
    sleeper.expect("subscribed", "subscribed").await;
    let http = gateway.http();
    let padding = "x".repeat(4096);
    let mut most = 0;
    // 16 MB: more than the kernel's buffers, the pipe and the group's log can hold for somebody who does not read.
    for n in 0..SENT {
        http.group_send("ticks", &json!({"n": n, "type": "tick", "padding": padding})).await;
        if n % 500 == 0 {
            most = most.max(metric(&http, "groupcast_log_bytes").await);
        }
    }
    assert!(most <= 2 * (256 << 10), "logs held {most} bytes");
    let blocked = http.get(&format!("/v1/connections/{}", sleeper.channel())).await.expect(200);
    assert_eq!(blocked["blocked"], true, "{blocked}");

    let (mut next, mut missed) = (0, 0);
    while next < SENT {
        let push = sleeper.next().await.expect("the stream goes on").data;
        if push["type"] == "gap" {
            assert_eq!((&push["group"], &push["reason"]), (&json!("ticks"), &json!("slow_consumer")), "{push}");
            let count = push["missed"].as_u64().expect("it is known how many");
            (next, missed) = (next + count, missed + count);
        } else {
            assert_eq!(push["message"]["n"], next, "what is not told as missed is there, in order");
            next += 1;
        }
    }
    assert!(missed > 0, "a reader that slept through 16 MB has missed something");
}

#[tokio::test]
async fn a_reader_that_stalls_for_too_long_is_cut() {
    let gateway = Gateway::start(&format!("{BARE}\n[limits]\nwrite_timeout = \"1s\"\n")).await;
    let mut deaf = Events::narrow(&gateway, "group=ticks", 4096).await;
    deaf.expect("subscribed", "subscribed").await;
    let http = gateway.http();
    let padding = "x".repeat(60_000);
    for n in 0..200 {
        http.group_send("ticks", &json!({"n": n, "type": "tick", "padding": padding})).await;
    }
    let gone =
        || async { http.get("/v1/connections").await.expect(200)["connections"].as_array()?.is_empty().then_some(()) };
    eventually("the stalled stream is forgotten", gone).await;
    assert!(!deaf.end().await, "a stream that was cut does not look as if it had ended");
}

#[tokio::test]
async fn a_stream_that_always_has_something_to_read_is_not_taken_for_stalled() {
    const KEPT: u64 = 3000;
    let limits = "\n[limits]\nping_interval = \"50ms\"\nwrite_timeout = \"500ms\"\n";
    let history = KEEPING.replace("1000", "10000");
    let gateway = Gateway::start(&format!("{BARE}{limits}{history}")).await;
    let http = gateway.http();
    let padding = "x".repeat(10_000);
    let mut epoch = Value::Null;
    for n in 1..=KEPT {
        let tick = json!({"n": n, "type": "tick", "padding": padding});
        epoch = http.group_send("room.1", &tick).await["epoch"].take();
    }
    // 30 MB at once, for a client whose window is small: for some seconds the pipe to it is hardly ever empty.
    let query = format!("group=room.1&after={}:0", epoch.as_str().expect("a group with history has an epoch"));
    let mut events = Events::narrow(&gateway, &query, 4096).await;
    events.expect("subscribed", "subscribed").await;
    let began = Instant::now();
    for n in 1..=KEPT {
        assert_eq!(events.message().await["n"], n);
    }
    eprintln!("read in {:?}", began.elapsed());
}

#[tokio::test]
async fn a_drain_tells_streams_ends_them_and_exits_with_0() {
    let gateway = Gateway::start(BARE).await;
    let mut streams = Vec::new();
    for _ in 0..5 {
        let mut events = Events::open(&gateway, "group=g").await;
        events.expect("subscribed", "subscribed").await;
        streams.push(events);
    }
    let mut socket = Socket::subscribed(&gateway, &["g"]).await;
    gateway.terminate();
    socket.expect("closing").await;
    for events in &mut streams {
        let closing = events.expect("message", "closing").await;
        assert!(closing["retry_after_ms"].is_u64(), "{closing}");
        assert_eq!(events.retry(), closing["retry_after_ms"].as_u64(), "a browser waits as long");
        assert!(events.end().await, "it ends as an answer of HTTP ends");
    }
    assert_eq!(gateway.ended().await.0, Some(0));
}

/// Groups that keep history.
const KEEPING: &str = "\n[[group]]\nname = \"room.*\"\nhistory = { messages = 1000, age = \"1h\" }\n";

#[tokio::test]
async fn every_event_of_one_group_has_its_place_as_id() {
    let gateway = Gateway::start(&format!("{BARE}{KEEPING}")).await;
    let http = gateway.http();
    http.group_send("room.1", &json!({"type": "tick"})).await;
    let mut events = Events::open(&gateway, "group=room.1").await;
    let subscribed = events.next().await.expect("the stream begins");
    let epoch = subscribed.data["epoch"].as_str().expect("a group with history has an epoch").to_owned();
    assert_eq!((&subscribed.data["offset"], subscribed.id), (&json!(1), format!("{epoch}:1")));
    for offset in 2..=20 {
        http.group_send("room.1", &json!({"type": "tick"})).await;
        let event = events.next().await.expect("the stream goes on");
        assert_eq!((&event.data["offset"], event.id), (&json!(offset), format!("{epoch}:{offset}")));
    }
}

#[tokio::test]
async fn a_stream_that_was_cut_goes_on_where_it_was() {
    let gateway = Gateway::start(&format!("{BARE}{KEEPING}")).await;
    let http = gateway.http();
    let mut events = Events::open(&gateway, "group=room.1").await;
    events.expect("subscribed", "subscribed").await;
    let mut sent = 0;
    for round in 1..=5 {
        send_ticks(&http, "room.1", &mut sent, 40).await;
        // What is not read before the cut counts as not seen.
        while events.message().await["n"] != json!(sent - 7 * round) {}
        let (id, seen) = (events.last_id().to_owned(), sent - 7 * round);
        drop(events);
        send_ticks(&http, "room.1", &mut sent, 10).await;
        events = Events::go_on(&gateway, "group=room.1", &id).await;
        let subscribed = events.expect("subscribed", "subscribed").await;
        assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&json!(true), &json!(sent)), "{subscribed}");
        assert_eq!(events.last_id(), id, "of what follows nothing has been seen");
        for n in seen + 1..=sent {
            assert_eq!(events.message().await["n"], n, "none missing, none twice");
        }
    }
    // `after` in the address does the same; the header wins over it.
    let (epoch, _) = events.last_id().split_once(':').expect("a position");
    let mut by_address = Events::open(&gateway, &format!("group=room.1&after={epoch}:{}", sent - 3)).await;
    assert_eq!(by_address.expect("subscribed", "subscribed").await["recovered"], true);
    assert_eq!(by_address.message().await["n"], sent - 2);
    let id = format!("{epoch}:{}", sent - 1);
    let mut by_header = Events::go_on(&gateway, &format!("group=room.1&after={epoch}:1"), &id).await;
    by_header.expect("subscribed", "subscribed").await;
    assert_eq!(by_header.message().await["n"], sent);
}

#[tokio::test]
async fn a_stream_of_three_groups_loses_nothing_when_it_is_cut_anywhere() {
    const GROUPS: [&str; 3] = ["room.1", "room.2", "room.3"];
    const QUERY: &str = "group=room.1&group=room.2&group=room.3&group=plain";
    const EACH: u64 = 300;
    let gateway = Gateway::start(&format!("{BARE}{KEEPING}")).await;
    let http = gateway.http();
    let mut events = Events::open(&gateway, QUERY).await;
    for _ in 0..4 {
        events.expect("subscribed", "subscribed").await;
    }
    let publisher = tokio::spawn(async move {
        for n in 1..=EACH {
            for group in GROUPS {
                http.group_send(group, &json!({"type": "tick", "n": n})).await;
            }
        }
    });
    let (mut seen, mut repeated, mut cuts, mut read) = ([0; 3], 0, 0, 0);
    while seen != [EACH; 3] {
        let event = events.next().await.expect("the stream goes on");
        if event.name == "subscribed" {
            let group = event.data["group"].as_str().expect("a name");
            assert_eq!(event.data["recovered"] == true, group != "plain", "{event:?}");
            continue;
        }
        let at = GROUPS.iter().position(|group| event.data["group"] == *group).expect("a group of ours");
        let offset = event.data["offset"].as_u64().expect("a group with history has offsets");
        assert_eq!(event.data["message"]["n"], offset, "{event:?}");
        assert!(GROUPS.iter().all(|group| event.id.contains(group)) && !event.id.contains("plain"), "{event:?}");
        match offset {
            again if again <= seen[at] => repeated += 1,
            next => {
                assert_eq!(next, seen[at] + 1, "nothing of {} is missing", GROUPS[at]);
                seen[at] = next;
            }
        }
        read += 1;
        // In the middle of a batch, most often.
        if read % 37 == 0 {
            let id = events.last_id().to_owned();
            events = Events::go_on(&gateway, QUERY, &id).await;
            cuts += 1;
        }
    }
    publisher.await.expect("everything was taken");
    eprintln!("{cuts} cuts, {repeated} repeats");
    assert!(cuts >= 20, "{cuts}");
}

#[tokio::test]
async fn who_cannot_be_caught_up_is_told_why() {
    let gateway = Gateway::start(&format!("{BARE}{KEEPING}")).await;
    let http = gateway.http();
    let mut sent = 0;
    send_ticks(&http, "room.1", &mut sent, 1010).await;
    let page = http.get("/v1/groups/room.1").await.expect(200);
    let epoch = page["epoch"].as_str().expect("a group with history has an epoch");
    for (id, reason) in
        [(format!("{epoch}:3"), "trimmed"), (format!("{epoch}:2000"), "ahead"), ("x7:3".to_owned(), "epoch_changed")]
    {
        let mut events = Events::go_on(&gateway, "group=room.1", &id).await;
        let subscribed = events.expect("subscribed", "subscribed").await;
        assert_eq!((&subscribed["recovered"], &subscribed["reason"]), (&json!(false), &json!(reason)), "{subscribed}");
        assert_eq!(events.last_id(), format!("{epoch}:{sent}"), "from here it goes on");
    }
}

#[tokio::test]
async fn a_reader_that_sleeps_in_a_group_with_history_is_caught_up() {
    let history = KEEPING.replace("1000", "10000");
    let gateway = Gateway::start(&format!("{BARE}{SMALL_LOGS}{history}")).await;
    let http = gateway.http();
    let mut sleeper = Events::narrow(&gateway, "group=room.1", 4096).await;
    sleeper.expect("subscribed", "subscribed").await;
    let padding = "x".repeat(4096);
    for n in 1..=3000 {
        http.group_send("room.1", &json!({"type": "tick", "n": n, "padding": padding})).await;
    }
    for n in 1..=3000 {
        assert_eq!(sleeper.message().await["n"], n, "nothing is missing and nothing comes twice");
    }
}

#[tokio::test]
async fn curl_reads_a_stream_line_by_line() {
    let gateway = Gateway::start(&format!("{BARE}{KEEPING}")).await;
    check_curl(&gateway, &["-N"]).await;
}

#[tokio::test]
async fn a_stream_over_http2_is_the_same_and_each_counts_as_a_connection() {
    let gateway = Gateway::start(&format!("{BARE}{KEEPING}\n[limits]\nconnections = 3\n")).await;
    let first = check_curl(&gateway, &["-N", "--http2-prior-knowledge"]).await;
    // The client of the tests has one place, the connection and the stream of curl have the others.
    let refused = Http::new(gateway.address()).try_get("/healthz").await;
    assert!(refused.is_none_or(|reply| reply.status == 503), "there is no place left");
    drop(first);
    let free = || async { Http::new(gateway.address()).try_get("/healthz").await.filter(|reply| reply.status == 200) };
    eventually("both places are free again", free).await;
}

/// A stream by curl, from the second of three messages to the fourth, byte by byte.
async fn check_curl(gateway: &Gateway, arguments: &[&str]) -> Process {
    let http = gateway.http();
    let mut sent = 0;
    send_ticks(&http, "room.1", &mut sent, 3).await;
    let page = http.get("/v1/groups/room.1").await.expect(200);
    let epoch = page["epoch"].as_str().expect("a group with history has an epoch");
    let url = format!("http://{}/v1/events?group=room.1", gateway.address());
    let mut curl = std::process::Command::new("curl");
    curl.args(arguments).args(["-sS", "--noproxy", "*", "-H", &format!("Last-Event-ID: {epoch}:1"), &url]);
    let curl = Process::spawn(curl);
    members(&http, "room.1", 1).await;
    send_ticks(&http, "room.1", &mut sent, 1).await;
    let printed = || async { Some(curl.printed()).filter(|text| text.contains("\"n\":4")) };
    let printed = eventually("curl has printed the last message", printed).await;
    let subscribed = format!(
        "event: subscribed\nid: {epoch}:1\n\
         data: {{\"type\":\"subscribed\",\"group\":\"room.1\",\"epoch\":\"{epoch}\",\"offset\":3,\"recovered\":true}}"
    );
    let message = |n: u64| {
        let message = format!("{{\"n\":{n},\"type\":\"tick\"}}");
        let data = format!("{{\"type\":\"message\",\"group\":\"room.1\",\"offset\":{n},\"message\":{message}}}");
        format!("id: {epoch}:{n}\ndata: {data}")
    };
    let (retry, rest) = printed.split_once("\n\n").expect("a block of its own");
    assert!(retry.starts_with("retry: "), "{printed}");
    assert_eq!(rest.trim_end(), [subscribed, message(2), message(3), message(4)].join("\n\n"));
    curl
}

/// Sends messages numbered on from `sent`.
async fn send_ticks(http: &Http, group: &str, sent: &mut u64, count: u64) {
    for _ in 0..count {
        *sent += 1;
        http.group_send(group, &json!({"type": "tick", "n": sent})).await;
    }
}

/// Waits until a group has so many members.
async fn members(http: &Http, group: &str, count: u64) {
    let path = format!("/v1/groups/{group}");
    let reached = || async { (http.get(&path).await.expect(200)["members"] == count).then_some(()) };
    eventually("the group has its members", reached).await;
}

async fn metric(http: &Http, name: &str) -> u64 {
    let text = http.get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {text}"))
}
