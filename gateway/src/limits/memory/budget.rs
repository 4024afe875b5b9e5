//! How much memory there is for this process: the least of what its control groups allow and what the machine has.

use std::path::{Path, PathBuf};

use crate::config::Budget;

/// The bytes that a budget means here. `u64::MAX`, no bound, for a share of what is not told: only Linux tells.
pub(in crate::limits) fn bytes(budget: Budget) -> u64 {
    match budget {
        Budget::Bytes(size) => size.0 as u64,
        Budget::Share(percent) => match available(machine(), &|path| std::fs::read_to_string(path).ok()) {
            Some(available) => available / 100 * u64::from(percent),
            None => u64::MAX,
        },
    }
}

fn available(machine: Option<u64>, read: &impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let allowed = groups.lines().flat_map(files).filter_map(|path| read(&path)?.trim().parse::<u64>().ok());
    allowed.chain(machine).min()
}

/// By a system call: what is in `/proc` beside a process's own is hidden from hardened services.
#[cfg(target_os = "linux")]
fn machine() -> Option<u64> {
    let rustix::system::Sysinfo { totalram, mem_unit, .. } = rustix::system::sysinfo();
    totalram.checked_mul(u64::from(mem_unit)).filter(|bytes| *bytes > 0)
}

#[cfg(not(target_os = "linux"))]
fn machine() -> Option<u64> {
    None
}

/// Where the bounds of a control group and of those it lies in are, by its line in `/proc/self/cgroup`: `0::/a/b` in version 2,
/// `4:memory:/a/b` in version 1. What is no number there (`max`) bounds nothing.
fn files(line: &str) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':');
    let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
        return Vec::new();
    };
    let (root, file) = match (number, controllers) {
        ("0", "") => ("/sys/fs/cgroup", "memory.max"),
        (_, controllers) if controllers.split(',').any(|name| name == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    // In a container the path may be one that only its host knows: then the root is what there is.
    let within = Path::new(path.trim_start_matches('/'));
    within.ancestors().map(|part| Path::new(root).join(part).join(file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: u64 = 1_024_000;

    fn check(machine: Option<u64>, files: &[(&str, &str)], expected: Option<u64>) {
        let read =
            |path: &Path| files.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned());
        assert_eq!(available(machine, &read), expected, "{files:?}");
    }

    #[test]
    fn the_narrowest_bound_counts() {
        check(None, &[], None);
        check(Some(MACHINE), &[], Some(MACHINE));
        let unified = ("/proc/self/cgroup", "0::/a/b\n");
        check(Some(MACHINE), &[unified, ("/sys/fs/cgroup/a/b/memory.max", "5000\n")], Some(5000));
        check(Some(MACHINE), &[unified, ("/sys/fs/cgroup/a/memory.max", "6000\n")], Some(6000));
        check(Some(MACHINE), &[unified, ("/sys/fs/cgroup/a/b/memory.max", "max\n")], Some(MACHINE));
        let root = ("/proc/self/cgroup", "0::/\n");
        check(Some(MACHINE), &[root, ("/sys/fs/cgroup/memory.max", "7000\n")], Some(7000));
        let first = ("/proc/self/cgroup", "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n");
        check(Some(MACHINE), &[first, ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8000\n")], Some(8000));
        let none = ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712\n");
        check(Some(MACHINE), &[first, none], Some(MACHINE));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_machine_has_as_much_as_it_says() {
        let text = std::fs::read_to_string("/proc/meminfo").expect("Linux tells");
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("it is there");
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        assert_eq!(machine(), Some(kib * 1024));
    }
}
