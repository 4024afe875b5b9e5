//! `kernel`: what the kernel knows of a gateway and of its sockets, and no protocol tells.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};

/// What a process has used.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Of its memory, what lies in RAM.
    pub resident_bytes: u64,
    /// On all cores.
    pub cpu: Duration,
    /// Sockets among them.
    pub open_files: usize,
}

/// What a process has used so far.
pub fn usage(pid: Pid) -> Usage {
    let folder = format!("/proc/{}", pid.as_raw_nonzero());
    let read = |name: &str| fs::read_to_string(format!("{folder}/{name}")).expect("the process lives");
    let status = read("status");
    let resident =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse().ok());
    let resident: u64 = resident.expect("a process has memory");
    let stat = read("stat");
    // Behind the name, which may have spaces; fields 14 and 15 of proc(5), in ticks of 10 ms.
    let (_, fields) = stat.rsplit_once(')').expect("a name is in brackets");
    let ticks: u64 = fields.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("ticks")).sum();
    let open_files = fs::read_dir(format!("{folder}/fd")).expect("the process is ours").count();
    Usage { resident_bytes: resident << 10, cpu: Duration::from_millis(ticks * 10), open_files }
}

/// The command lines of all processes.
pub fn commands() -> Vec<String> {
    let entries = fs::read_dir("/proc").expect("Linux has this folder").flatten();
    // One that has ended meanwhile has none.
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).collect()
}

/// The server's end of a TCP connection, as long as its process holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerEnd {
    /// The server has not said that it will send no more.
    pub open: bool,
    /// Bytes that the server has written and the client's kernel has not taken.
    pub unsent: u64,
}

/// The server's ends of its connections, by the client's port; only those that its process has not let go of.
///
/// The table has all of the machine's connections and takes a while to read: look at many ends at once.
pub fn server_ends(server: SocketAddr) -> BTreeMap<u16, ServerEnd> {
    const ESTABLISHED: &str = "01";
    const CLOSE_WAIT: &str = "08";
    let server = hexadecimal(server);
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has this file");
    let end = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, queues, _, _, _, _, inode, ..] = fields[..] else { return None };
        // A socket that no process holds any more has no inode.
        if local != server || inode == "0" {
            return None;
        }
        let port = u16::from_str_radix(remote.split(':').nth(1)?, 16).ok()?;
        let unsent = u64::from_str_radix(queues.split(':').next()?, 16).ok()?;
        Some((port, ServerEnd { open: matches!(state, ESTABLISHED | CLOSE_WAIT), unsent }))
    };
    table.lines().filter(|line| line.contains(&server)).filter_map(end).collect()
}

/// Lets this process open as many files as it may at most: a thousand clients are a thousand sockets.
pub fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be raised up to the hard one");
}

/// As in `/proc/net/tcp`: the address as the kernel has it in memory.
fn hexadecimal(address: SocketAddr) -> String {
    let SocketAddr::V4(address): SocketAddr = address else { panic!("the tests use IPv4") };
    let address: SocketAddrV4 = address;
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_is_held_until_it_is_dropped() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let server = listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(server).expect("it listens");
        let (mut accepted, _) = listener.accept().expect("one has connected");
        let port = client.local_addr().expect("it is connected").port();
        let look = || server_ends(server).get(&port).copied();
        assert_eq!(look(), Some(ServerEnd { open: true, unsent: 0 }));
        accepted.set_nonblocking(true).expect("any socket can be");
        while accepted.write(&[0; 4096]).is_ok() {}
        let full = look().expect("it is held");
        assert!(full.open && full.unsent > 0, "nobody reads: {full:?}");
        accepted.shutdown(Shutdown::Write).expect("it is connected");
        let closed = look().expect("it is held");
        assert!(!closed.open, "{closed:?}");
        drop(accepted);
        assert_eq!(look(), None, "what was written still waits in the kernel");
    }

    #[test]
    fn this_process_is_among_all() {
        let own = std::env::current_exe().expect("a running program has a path");
        let name = own.file_name().expect("a program is a file").to_string_lossy();
        assert!(commands().iter().any(|line| line.contains(&*name)));
    }

    #[test]
    fn a_process_uses_something() {
        let usage = usage(rustix::process::getpid());
        assert!(usage.resident_bytes > 100_000 && usage.open_files > 2, "{usage:?}");
    }
}
