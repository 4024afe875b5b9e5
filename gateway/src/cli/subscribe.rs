//! `groupcast subscribe GROUP…` and `--query NAME`: one line of JSON for each push, across reconnects.
//!
//! What a frame means for the connection is decided in `follow`; here are the arguments and the loop around it.

mod follow;
mod socket;

use std::time::Duration;

use groupcast_protocol::GroupName;

use self::follow::{Follow, Wanted};
use self::socket::Lost;
use super::client::Target;
use super::query::params;
use super::{CliError, output};
use crate::clock;

/// The longest first delay before a reconnect; it doubles with each failure, up to [`DELAY_MAX`].
const DELAY_BASE: Duration = Duration::from_millis(500);
const DELAY_MAX: Duration = Duration::from_secs(30);

/// Arguments of `subscribe`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  groupcast subscribe my_group
  groupcast subscribe room.1 room.2 | jq -c .message
  groupcast subscribe my_group --count 1        # one push, then the end
  groupcast subscribe my_group --after x7:40    # what was missed first; for groups that keep history
  groupcast subscribe --query worst_routes origin=JFK   # its rows, and then what changes

Prints pushes as they come: message, gap, joined, left. After a cut it connects again, with a delay at random, and goes
on where it was in groups that keep history. Where it begins is told on standard error, as in `my_group at x7:40`.")]
pub struct SubscribeArgs {
    /// The groups; with --query its parameters, as in `origin=JFK`.
    #[arg(required_unless_present = "query", value_name = "GROUP")]
    words: Vec<String>,
    /// Follows this live query.
    #[arg(long, value_name = "NAME")]
    query: Option<String>,
    /// Begins after this position of the group; with one group only.
    #[arg(long, value_name = "EPOCH:OFFSET", conflicts_with = "query")]
    after: Option<String>,
    /// Ends after so many pushes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    target: Target,
}

/// Prints what the groups get, or what becomes of the query's rows, until `--count` or for ever.
///
/// # Errors
/// When the gateway cannot be reached at first, refuses, or closes for a reason that a reconnect does not heal.
pub async fn subscribe(args: SubscribeArgs) -> Result<(), CliError> {
    let request = socket::request(&args.target)?;
    let wanted = match &args.query {
        None => Wanted::Groups(groups(&args.words)?),
        Some(query) => Wanted::Query(query.clone(), params(&args.words)?),
    };
    let mut follow = Follow::new(wanted, args.count);
    if let Some(text) = &args.after {
        follow.begin_after(text)?;
    }
    let mut failures = 0;
    loop {
        let lost = match socket::run(&request, &mut follow).await {
            Ok(()) => return Ok(()),
            Err(Lost::ForGood(error)) => return Err(error),
            Err(Lost::ForNow { why, .. }) if !follow.was_subscribed() => {
                return Err(CliError::Failed(format!("the gateway at {}: {why}", args.target.url)));
            }
            Err(Lost::ForNow { why, after }) => (why, after),
        };
        failures = if follow.take_progress() { 0 } else { failures + 1 };
        let delay = lost.1 + jitter(failures, clock::random_fraction());
        output::note(&format!("{}; connecting again in {:.1} s", lost.0, delay.as_secs_f64()));
        tokio::time::sleep(delay).await;
    }
}

fn groups(names: &[String]) -> Result<Vec<GroupName>, CliError> {
    let mut groups: Vec<GroupName> = Vec::new();
    for name in names {
        let group = GroupName::parse(name).map_err(|e| CliError::Usage(e.to_string()))?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    Ok(groups)
}

/// Full jitter: anything between nothing and a bound that doubles, so that many clients do not come back at once.
fn jitter(failures: u32, fraction: f64) -> Duration {
    DELAY_BASE.saturating_mul(1 << failures.min(10)).min(DELAY_MAX).mul_f64(fraction)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_are_spread() {
        assert_eq!(jitter(0, 0.5), Duration::from_millis(250));
        assert_eq!(jitter(2, 0.5), Duration::from_secs(1));
        assert_eq!((jitter(60, 1.0), jitter(60, 0.0)), (DELAY_MAX, Duration::ZERO));
    }

    #[test]
    fn a_group_that_is_named_twice_is_one() {
        let names = ["a", "b", "a"].map(str::to_owned);
        assert_eq!(groups(&names).expect("good names").len(), 2);
        assert!(matches!(groups(&["a/b".to_owned()]), Err(CliError::Usage(_))));
    }
}
