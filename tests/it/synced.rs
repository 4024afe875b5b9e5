//! What `disk` adds to `os`, seen from the kernel: a sync of the queue's log between the request and its 202.
//!
//! A kill cannot show this: what was written and not synced outlives the process in the system's cache.

use std::fs;
use std::process::Command;

use groupcast_tests::Gateway;
use groupcast_tests::gateway::Process;
use groupcast_tests::home::JOBS;
use groupcast_tests::wait::eventually;
use rustix::process::Signal;
use serde_json::{Value, json};

/// What reads requests, writes answers and syncs files.
const CALLS: &str = "trace=read,readv,recvfrom,recvmsg,write,writev,sendto,sendmsg,fsync,fdatasync";

#[tokio::test]
async fn disk_is_synced_before_it_is_acknowledged() {
    let trace = trace_of_an_enqueue("my_group", "disk").await;
    assert!(is_synced_before_the_answer(&trace, "my_group"), "no sync of the log:\n{}", trace.join("\n"));
}

#[tokio::test]
async fn os_is_not_so_the_assertion_can_fail() {
    let trace = trace_of_an_enqueue("kernel", "os").await;
    assert!(!is_synced_before_the_answer(&trace, "kernel"), "a sync of the log:\n{}", trace.join("\n"));
}

/// Between the request and the first byte of its answer, has a sync of the queue's log been asked for and ended well?
#[track_caller]
fn is_synced_before_the_answer(trace: &[String], group: &str) -> bool {
    let request = format!("POST /v1/groups/{group}/send");
    let request = trace.iter().position(|line| line.contains(&request)).expect("the request was read");
    let rest = &trace[request..];
    let answer = rest.iter().position(|line| line.contains("HTTP/1.1 202")).expect("the answer was written");
    let between = &rest[..answer];
    let begun = between.iter().enumerate().filter(|(_, line)| is_sync(line) && line.contains("jobs.db-wal"));
    begun.into_iter().any(|(at, line)| {
        let thread = line.split_whitespace().next().expect("a line begins with its thread");
        let resumed = |line: &&String| line.starts_with(thread) && line.contains("sync resumed>");
        let end = if line.contains("<unfinished") { between[at..].iter().find(resumed) } else { Some(line) };
        end.is_some_and(|line| line.trim_end().ends_with("= 0"))
    })
}

fn is_sync(line: &str) -> bool {
    line.contains(" fdatasync(") || line.contains(" fsync(")
}

/// The system calls of a gateway while it takes one job of a group.
async fn trace_of_an_enqueue(group: &str, durability: &str) -> Vec<String> {
    let gateway = Gateway::start(JOBS).await;
    let http = gateway.http();
    // Never due, so nothing but the enqueue is written.
    let work = json!({"type": "execute_query", "query": "numbers", "delay_ms": 3_600_000});
    // The first write to a fresh log syncs its head at either level.
    let level = |accepted: &Value| accepted["jobs"][0]["durability"].clone();
    assert_eq!(level(&http.group_send(group, &work).await), durability);
    let path = gateway.home().path().join("trace");
    let pid = gateway.pid().as_raw_nonzero().to_string();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-s", "200", "-e", CALLS, "-o", &path.to_string_lossy(), "-p", &pid]);
    let mut strace = Process::spawn(strace);
    let attached = || {
        let printed = strace.printed();
        let refused =
            ["Operation not permitted", "Could not attach", "ptrace("].iter().any(|word| printed.contains(word));
        assert!(!refused, "strace may not look at the gateway here; allow ptrace (CAP_SYS_PTRACE): {printed}");
        std::future::ready(printed.contains("attached").then_some(()))
    };
    eventually("strace looks at the gateway", attached).await;
    assert_eq!(level(&http.group_send(group, &work).await), durability);
    let read = || {
        let trace = fs::read_to_string(&path).unwrap_or_default();
        std::future::ready(trace.contains("HTTP/1.1 202").then_some(()))
    };
    eventually("the answer is in the trace", read).await;
    strace.signal(Signal::INT);
    strace.ended().await;
    let trace = fs::read_to_string(&path).expect("the trace is there");
    trace.lines().map(str::to_owned).collect()
}

/// The checks above see what they are to see.
mod planted {
    use super::*;

    fn judged(lines: &[&str]) -> bool {
        let all: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        is_synced_before_the_answer(&all, "g")
    }

    const REQUEST: &str =
        "11 recvfrom(9<socket:[1]>, \"POST /v1/groups/g/send HTTP/1.1\"..., 4096, 0, NULL, NULL) = 99";
    const ANSWER: &str = "11 sendto(9<socket:[1]>, \"HTTP/1.1 202 Accepted\\r\\n\"..., 99, 0, NULL, 0) = 99";
    const SYNC: &str = "12 fdatasync(7</x/jobs.db-wal>) = 0";

    #[test]
    fn a_sync_counts_only_in_between_and_on_the_queue() {
        assert!(judged(&[REQUEST, SYNC, ANSWER]));
        assert!(!judged(&[SYNC, REQUEST, ANSWER, SYNC]));
        assert!(!judged(&[REQUEST, "12 fdatasync(7</x/results.db-wal>) = 0", ANSWER]));
        assert!(!judged(&[REQUEST, "12 fdatasync(7</x/jobs.db-wal>) = -1 EIO (Input/output error)", ANSWER]));
    }

    #[test]
    fn a_sync_counts_when_it_has_ended() {
        let (begun, ended) = ("12 fdatasync(7</x/jobs.db-wal> <unfinished ...>", "12 <... fdatasync resumed>)  = 0");
        assert!(judged(&[REQUEST, begun, ended, ANSWER]));
        assert!(!judged(&[REQUEST, begun, ANSWER, ended]));
        assert!(!judged(&[REQUEST, begun, "13 <... fdatasync resumed>)  = 0", ANSWER]));
    }
}
