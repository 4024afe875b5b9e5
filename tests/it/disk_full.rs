//! A full disk: nothing is acknowledged that is not stored, everybody is told, and it passes by itself.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use groupcast_tests::home::JOBS;
use groupcast_tests::wait::eventually;
use groupcast_tests::{Gateway, Home, Http, Reply, Socket};
use serde_json::{Value, json};

#[tokio::test]
async fn a_full_disk_refuses_work_keeps_the_rest_alive_and_passes_by_itself() {
    let home = Arc::new(Home::new(JOBS));
    let disk = Disk::mount(&home.path().join("data"));
    let gateway = Gateway::start_in(Arc::clone(&home)).await;
    let http = gateway.http();
    let done = http.job("my_group", &json!({"type": "execute_query", "query": "numbers"})).await;
    assert_eq!(http.ended(&done).await["state"], "succeeded");
    let mut reader = Socket::subscribed(&gateway, &["chat"]).await;

    disk.fill();
    let mut accepted = Vec::new();
    let refused = fill_until_refused(&http, &disk, &mut accepted).await;
    refused.problem(507, "storage_full");
    let seconds: Option<u64> = refused.header("retry-after").and_then(|text| text.parse().ok());
    assert!(seconds > Some(0), "{:?}", refused.headers);
    for _ in 0..5 {
        enqueue(&http).await.problem(507, "storage_full");
    }

    // Sockets and reads do not notice.
    let chat = json!({"type": "chat", "text": "still here"});
    http.group_send("chat", &chat).await;
    assert_eq!(reader.message().await, chat);
    assert_eq!(http.get(&format!("/v1/jobs/{done}/result")).await.expect(200)["row_count"], 10);
    assert_eq!(http.get("/healthz").await.status, 200);

    disk.empty();
    let taken = || async {
        let reply = enqueue(&http).await;
        (reply.status == 202).then(|| job(&reply))
    };
    accepted.push(eventually("work is taken again, without a restart", taken).await);
    check_all(&http, &accepted).await;
    let later = http.job("my_group", &json!({"type": "execute_query", "query": "numbers"})).await;
    assert_eq!(http.ended(&later).await["state"], "succeeded", "and done");

    let home = gateway.kill().await;
    let gateway = Gateway::start_in(home).await;
    check_all(&gateway.http(), &accepted).await;
    assert_eq!(gateway.http().ended(&later).await["state"], "succeeded");
    drop(gateway);
    drop(disk);
}

/// Asks until it is refused; what was accepted before had room in what the store had taken of the disk already.
async fn fill_until_refused(http: &Http, disk: &Disk, accepted: &mut Vec<String>) -> Reply {
    for _ in 0..10_000 {
        let reply = enqueue(http).await;
        if reply.status != 202 {
            return reply;
        }
        accepted.push(job(&reply));
        disk.fill();
    }
    panic!("{} jobs are on a disk that is full", accepted.len());
}

/// Asks for work that is not due for an hour.
async fn enqueue(http: &Http) -> Reply {
    let work = json!({"type": "execute_query", "query": "numbers", "delay_ms": 3_600_000});
    http.post("/v1/groups/my_group/send", &work).await
}

fn job(reply: &Reply) -> String {
    reply.json()["jobs"][0]["id"].as_str().expect("one job").to_owned()
}

async fn check_all(http: &Http, accepted: &[String]) {
    for job in accepted {
        let record: Value = http.get(&format!("/v1/jobs/{job}")).await.expect(200);
        assert_eq!(record["state"], "scheduled", "{record}");
    }
}

/// A disk of a few megabytes, in memory.
struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount(path: &Path) -> Self {
        fs::create_dir_all(path).expect("a folder");
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", "size=6m", "groupcast-test"]).arg(path).output();
        let output = output.expect("`mount` can be started");
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "a small disk cannot be mounted; run the tests as root: {why}");
        Self { path: path.to_owned() }
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.filler()).expect("a file");
        // Down to the last block.
        for size in [64 << 10, 4 << 10, 1] {
            let block = vec![0x55; size];
            while file.write_all(&block).is_ok() {}
        }
    }

    /// Gives it back.
    fn empty(&self) {
        fs::remove_file(self.filler()).expect("it was filled");
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a gateway that a failed test left may still hold it.
        let ended = Command::new("umount").arg("--lazy").arg(&self.path).status();
        if !ended.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.path.display());
        }
    }
}
