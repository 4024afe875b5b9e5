//! The gateway's process, when it runs on this machine: found by the port it listens on, read from `/proc`.
//!
//! Whatever cannot be read (another user's process, another system than Linux) is unknown, and said to be.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// The processes that hold the listening socket, and their children.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server {
    /// The one with the lowest id.
    pub(super) pid: u32,
    /// Its name.
    pub(super) name: String,
    pids: BTreeSet<u32>,
    ticks_per_second: u64,
}

/// What the processes have used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// User and system time of all threads, those that have ended included.
    pub(super) cpu: Duration,
    /// Resident memory.
    pub(super) rss_bytes: u64,
}

impl Server {
    /// Who listens on the address; `None` when it is not here, or not for us to see.
    pub(super) fn find(address: SocketAddr) -> Option<Self> {
        if !address.ip().is_loopback() {
            return None;
        }
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
        let sockets: BTreeSet<String> = tables.iter().flat_map(|table| listening(table, address.port())).collect();
        let processes: Vec<u32> = numbers_in(Path::new("/proc")).collect();
        let holders: BTreeSet<u32> = processes.iter().copied().filter(|pid| holds(*pid, &sockets)).collect();
        let pid = *holders.first()?;
        let parents: Vec<(u32, u32)> = processes.iter().filter_map(|pid| Some((*pid, stat(*pid)?.parent))).collect();
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
        Some(Self { pid, name, pids: with_children(holders, &parents), ticks_per_second: ticks_per_second()? })
    }

    /// What they have used; `None` when one of them has ended.
    pub(super) fn usage(&self) -> Option<Usage> {
        let mut usage = Usage::default();
        for pid in &self.pids {
            let ticks = stat(*pid)?.ticks;
            usage.cpu += Duration::from_nanos(ticks * (1_000_000_000 / self.ticks_per_second));
            usage.rss_bytes += rss_bytes(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
        }
        Some(usage)
    }
}

/// Inodes of the sockets that listen on a port, out of a table of the kernel.
fn listening(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let local = fields.get(1)?.rsplit_once(':')?.1;
        let matches = u16::from_str_radix(local, 16) == Ok(port) && fields.get(3) == Some(&LISTEN);
        matches.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

fn holds(pid: u32, sockets: &BTreeSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|to| sockets.contains(&*to.to_string_lossy()))
}

fn with_children(mut family: BTreeSet<u32>, parents: &[(u32, u32)]) -> BTreeSet<u32> {
    loop {
        let before = family.len();
        let children: Vec<u32> =
            parents.iter().filter(|(_, parent)| family.contains(parent)).map(|(pid, _)| *pid).collect();
        family.extend(children);
        if family.len() == before {
            return family;
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// proc(5): fields 4 (ppid), 14 (utime) and 15 (stime); the name before them may contain anything.
fn parse_stat(text: &str) -> Option<Stat> {
    let fields: Vec<&str> = text.get(text.rfind(')')? + 2..)?.split(' ').collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, ticks })
}

fn rss_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The unit of process times, as the kernel told this process at its start (getauxval(3), `AT_CLKTCK`).
fn ticks_per_second() -> Option<u64> {
    const AT_CLKTCK: usize = 17;
    const WORD: usize = size_of::<usize>();
    let vector = fs::read("/proc/self/auxv").ok()?;
    let word = |bytes: &[u8]| usize::from_ne_bytes(bytes.try_into().expect("it is cut into words"));
    let mut entries = vector.chunks_exact(2 * WORD).map(|entry| (word(&entry[..WORD]), word(&entry[WORD..])));
    let ticks = entries.find(|(key, _)| *key == AT_CLKTCK)?.1 as u64;
    (ticks > 0).then_some(ticks)
}

fn numbers_in(folder: &Path) -> impl Iterator<Item = u32> {
    fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_listener_is_found_in_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4242 1\n\
            1: 0100007F:1F40 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  0 0 4243 1\n\
            2: 0100007F:1F41 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4244 1\n";
        assert_eq!(listening(table, 8000), ["socket:[4242]"]);
        assert!(listening("", 8000).is_empty());
    }

    #[test]
    fn fields_are_counted_from_the_end_of_the_name() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 0 0 0 25 17 0 0 20 0 1 0 100 1 1";
        assert_eq!(parse_stat(text), Some(Stat { parent: 3, ticks: 42 }));
        assert_eq!(rss_bytes("VmPeak:\t1 kB\nVmRSS:\t    2048 kB\n"), Some(2 << 20));
        assert_eq!((parse_stat("nonsense"), rss_bytes("")), (None, None));
    }

    #[test]
    fn children_of_children_belong_to_the_family() {
        let parents = [(5, 4), (4, 2), (3, 1), (2, 1)];
        assert_eq!(with_children(BTreeSet::from([2]), &parents), BTreeSet::from([2, 4, 5]));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_process_finds_itself_by_its_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let server = Server::find(address).expect("its own files are readable");
        assert!(server.pids.contains(&std::process::id()), "{server:?}");
        let usage = server.usage().expect("it has not ended");
        assert!(usage.rss_bytes > 100_000, "{usage:?}");
        drop(listener);
        assert_eq!(Server::find(address), None, "nobody listens any more");
        assert_eq!(Server::find(([192, 0, 2, 1], address.port()).into()), None);
    }
}
