//! File descriptors: as many as the system lets us have, and a table that does not have to grow under load.

use std::os::fd::AsFd;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors beside those of connections: databases, threads, the log.
const RESERVE: u64 = 256;

/// Raises the limit of open files to what the system allows, and makes room for all connections at once.
///
/// Called before threads start: in a process of several threads each doubling of the table stalls `accept` for 16 to
/// 22 ms (measured), because the kernel waits for every thread to let go of the old one.
pub(super) fn prepare(connections: usize, any: impl AsFd) {
    let limit = raise();
    let wanted = connections as u64 + RESERVE;
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            "the system allows fewer open files than [limits] connections needs; raise `ulimit -n` or lower the limit"
        );
    }
    let last = i32::try_from(limit.min(wanted)).unwrap_or(i32::MAX) - 1;
    // The copy is closed at once; the room for it stays. Without it all works, only slower for a moment.
    drop(fcntl_dupfd_cloexec(any, last));
}

/// The soft limit is for programs that use `select`, which ends at 1024.
fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised.current,
        Err(_) => limit.current,
    };
    // `None` is no limit.
    limit.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise(), hard.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
    }
}
