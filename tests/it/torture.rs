//! `groupcast torture`: a gateway that is killed again and again loses nothing it accepted, and who does lose is found out.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use groupcast_tests::gateway::{groupcast, groupcast_with_kill_points};
use groupcast_tests::home::BARE;
use groupcast_tests::wait::within_time;
use groupcast_tests::{Home, Postgres, kernel};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

/// The run ends itself before that.
const DEADLINE: Duration = Duration::from_secs(150);

/// Not what recovery should take, but what it may on a machine that is busy with other tests.
const PATIENT: &str = "--recovery-max 30s --seconds-max 120 --json";

/// Those that every store has.
const POINTS: [&str; 6] = [
    "after_insert_before_sync",
    "after_sync_before_202",
    "after_claim",
    "mid_rows",
    "after_result_before_ack",
    "after_ack_before_publish",
];

const FAULTS: [&str; 7] = ["lost", "unfinished", "wrong", "contradicted", "half", "stored_again", "excessive"];

#[tokio::test]
async fn nothing_that_was_accepted_is_lost_over_many_kills() {
    let home = Home::new(BARE);
    let output = torture(&home, &format!("--kills 12 --jobs 600 {PATIENT}")).await;
    let figures = figures(&output);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert!(figures["acked"].as_u64() >= Some(600), "{figures}");
    assert_eq!(figures["kills"], json!({"at random": 12}));
    for fault in FAULTS {
        assert_eq!(figures[fault], 0, "{fault}: {figures}");
    }
    let ended = figures["succeeded"].as_u64().expect("a number") + figures["dead"].as_u64().expect("a number");
    assert_eq!(Some(ended), figures["acked"].as_u64(), "every job has one end: {figures}");
    assert!(figures["events"].as_u64() > Some(100), "a subscriber heard of them: {figures}");
    assert_eq!(figures["integrity_checks"], 2, "after ten kills, and in the end: {figures}");
    assert!(figures["recovery_ms"]["p50"].as_f64() > Some(0.0), "{figures}");
    assert_eq!(leftovers(&home), [] as [String; 0], "a good run leaves nothing behind");
}

#[tokio::test]
async fn no_window_between_two_steps_loses_anything() {
    let home = Home::new(BARE);
    let command = groupcast_with_kill_points(&home, &["torture"]);
    let output = run(command, &format!("--kills 14 --jobs 700 --kill-point all {PATIENT}")).await;
    let figures = figures(&output);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    for point in POINTS.into_iter().chain(["mid_checkpoint"]) {
        assert_eq!(figures["kills"][point], 1, "{point} was hit: {figures}");
    }
    assert_eq!((&figures["kills"]["at random"], &figures["lost"]), (&json!(7), &json!(0)), "{figures}");
    // Two of the points leave stored what nobody was told of, or would but for the transaction.
    assert_eq!(figures["half"], 0, "{figures}");
}

#[tokio::test]
async fn several_gateways_on_one_server_lose_nothing_either() {
    let (home, url) = (Home::new(BARE), Postgres::shared().database());
    let mut command = groupcast(&home, &["torture", "--store", "postgres", "--lease", "2s"]);
    command.env("GROUPCAST_TORTURE_URL", &url);
    let output = run(command, &format!("--kills 10 --jobs 300 {PATIENT}")).await;
    let figures = figures(&output);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!((&figures["kills"], &figures["stalls"]), (&json!({"at random": 10}), &json!(1)), "{figures}");
    assert!(figures["acked"].as_u64() >= Some(300), "{figures}");
    for fault in FAULTS {
        assert_eq!(figures[fault], 0, "{fault}: {figures}");
    }
    let schemas = "select count(*) from pg_namespace where nspname like 'torture%'";
    assert_eq!(Postgres::shared().query_in(&url, schemas), "0", "a good run leaves nothing behind");
}

#[tokio::test]
async fn no_window_between_two_steps_with_a_server_loses_anything() {
    let (home, url) = (Home::new(BARE), Postgres::shared().database());
    let mut command = groupcast_with_kill_points(&home, &["torture", "--store", "postgres", "--lease", "2s"]);
    command.env("GROUPCAST_TORTURE_URL", &url);
    let output = run(command, &format!("--kills 14 --jobs 700 --kill-point all {PATIENT}")).await;
    let figures = figures(&output);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    for point in POINTS.into_iter().chain(["after_commit_before_answer"]) {
        assert_eq!(figures["kills"][point], 1, "{point} was hit: {figures}");
    }
    assert!(figures["acked"].as_u64() >= Some(700), "{figures}");
    for fault in FAULTS {
        assert_eq!(figures[fault], 0, "{fault}: {figures}");
    }
}

#[tokio::test]
async fn what_a_server_committed_unheard_is_known_when_it_is_asked_for_again() {
    let (home, url) = (Home::new(BARE), Postgres::shared().database());
    let mut command = groupcast_with_kill_points(&home, &["torture", "--store", "postgres", "--lease", "2s"]);
    command.env("GROUPCAST_TORTURE_URL", &url);
    let output = run(command, &format!("--kills 8 --jobs 400 --kill-point after_sync_before_202 {PATIENT}")).await;
    let figures = figures(&output);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(figures["kills"]["after_sync_before_202"], 4, "{figures}");
    // One at least for each of these kills, and never as a second job.
    assert!(figures["recognised_asks"].as_u64() >= Some(4), "{figures}");
    assert_eq!(figures["stored_again"], 0, "{figures}");
}

#[tokio::test]
async fn a_kill_point_that_cannot_be_is_refused() {
    let home = Home::new(BARE);
    let mut command = groupcast(&home, &["serve"]);
    command.env("GROUPCAST_KILL_POINT", "after_lunch");
    let output = run(command, "").await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("GROUPCAST_KILL_POINT"), "{}", told(&output));
    let mut command = groupcast_with_kill_points(&home, &["serve"]);
    command.env("GROUPCAST_KILL_POINT", "after_commit_before_answer");
    let output = run(command, "").await;
    assert_eq!(output.status.code(), Some(2), "{}", told(&output));
    assert!(told(&output).contains("`sqlite` never comes to"), "{}", told(&output));
}

#[tokio::test]
async fn what_memory_loses_is_found_out() {
    let home = Home::new(BARE);
    let output = torture(&home, &format!("--kills 3 --jobs 120 --durability memory {PATIENT}")).await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(figures(&output)["lost"].as_u64() > Some(0), "{}", told(&output));
    let [folder] = &leftovers(&home)[..] else { panic!("a bad run keeps its folder: {:?}", leftovers(&home)) };
    assert!(told(&output).contains(folder), "and says which it is: {}", told(&output));
}

#[tokio::test]
async fn a_run_that_takes_too_long_has_failed_and_leaves_no_gateway() {
    let home = Home::new(BARE);
    let output = torture(&home, "--kills 1000 --seconds-max 2").await;
    assert_eq!(output.status.code(), Some(1), "{}", told(&output));
    assert!(told(&output).contains("longer than 2 s"), "{}", told(&output));
    let left = kernel::commands().into_iter().filter(|line| line.contains(&*home.path().to_string_lossy()));
    assert_eq!(left.collect::<Vec<_>>(), [] as [String; 0]);
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let home = Home::new(BARE);
    for (line, words) in [
        ("--kills 10 --jobs 9", "at least as many"),
        ("--durability marble", "memory, os or disk"),
        ("--data-dir /does/not/exist", "--data-dir"),
    ] {
        let output = torture(&home, line).await;
        assert!(matches!(output.status.code(), Some(1 | 2)), "{}", told(&output));
        assert!(told(&output).contains(words), "`{words}` is not in: {}", told(&output));
    }
    assert_eq!(leftovers(&home), [] as [String; 0]);
}

async fn torture(home: &Home, line: &str) -> Output {
    run(groupcast(home, &["torture"]), line).await
}

async fn run(mut command: Command, line: &str) -> Output {
    command.args(line.split_whitespace());
    let ended = spawn_blocking(move || command.output().expect("the binary can be started"));
    within_time(DEADLINE, "the run ends", ended).await.expect("the command's thread does not panic")
}

fn figures(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", told(output)))
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Folders of runs that are still there.
fn leftovers(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.path()).expect("the folder can be read");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("groupcast-torture-")).collect()
}
