//! A program of its own that embeds the gateway and does the work of a consumer in Rust.
//!
//! Run it with `cargo run --release --example embedded_consumer`. It starts a gateway on a free port, sends one message
//! to a group as any service would, waits for the answer as any subscriber would, and ends.
//!
//! The work: count the primes below a number, on the low-priority threads, with progress.

use std::sync::Arc;
use std::time::Duration;

use groupcast::Groupcast;
use groupcast::config::{Config, Sources};
use groupcast::consumer::{BoxFuture, Consumer, Failure, JobContext, Outcome};
use groupcast_protocol::{ChannelName, GroupName, Message};

/// What would stand in `groupcast.toml`.
const CONFIG: &str = r#"
[server]
listen = "127.0.0.1:0"

[[consumer]]
name = "primes"                       # the name that the code below is registered under
group = "numbers"
type = "count_primes"
run = "embedded"
durability = "memory"                 # nothing is written, so there is no data directory either
"#;

/// Answers `{"type":"count_primes","below":100}` with how many there are.
struct CountPrimes;

#[derive(serde::Deserialize)]
struct Ask {
    below: u64,
}

impl Consumer for CountPrimes {
    fn run<'a>(&'a self, job: &'a JobContext) -> BoxFuture<'a, Result<Outcome, Failure>> {
        Box::pin(async move {
            let ask: Ask = serde_json::from_slice(job.message().raw())
                .map_err(|error| Failure::permanent("bad_message", error.to_string()))?;
            let primes = job.compute(move |job| count_primes(ask.below, job)).await?;
            Outcome::json(&primes)
        })
    }
}

/// Slowly, and looking up now and then: a job that computes asks whether it is to stop, and says how far it is.
fn count_primes(below: u64, job: &JobContext) -> u64 {
    let mut primes = 0;
    for number in 2..below {
        if number % 1000 == 0 {
            job.progress(number, Some(below), "numbers");
            if job.is_cancelled() {
                break;
            }
        }
        let divisors = (2..).take_while(|divisor| divisor * divisor <= number);
        primes += u64::from(divisors.into_iter().all(|divisor| number % divisor != 0));
    }
    primes
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let config = Config::load(&Sources::text(CONFIG))?.config;
    let gateway = Groupcast::new(config).consumer("primes", Arc::new(CountPrimes)).start().await?;

    // A channel of our own, in the group: what a subscriber is.
    let layer = gateway.layer().clone();
    let numbers = GroupName::parse("numbers")?;
    let inbox: ChannelName = layer.new_channel("specific")?;
    layer.group_add(&numbers, &inbox).await?;

    // A service sends by HTTP.
    let url = format!("http://{}/v1/groups/numbers/send", gateway.address());
    let ask = serde_json::json!({"type": "count_primes", "below": 200_000});
    let accepted = reqwest::Client::new().post(url).json(&ask).send().await?.text().await?;
    report(&format!("accepted: {accepted}"));

    // The events of the job come to the group, as messages.
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), layer.receive(&inbox)).await??;
        report(&format!("event:    {}", Message::as_str(&event.message)));
        match event.message.kind() {
            "job.result" => break,
            "job.failed" | "job.cancelled" => anyhow::bail!("the job did not succeed"),
            _ => {}
        }
    }
    gateway.stop().await;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "an example talks to a terminal")]
fn report(line: &str) {
    println!("{line}");
}
