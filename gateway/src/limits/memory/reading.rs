//! What the system says of this process.

/// The bytes of memory that the process alone has and that the kernel cannot take back: no files, which it can read again.
/// `None` where it is not told: only Linux tells.
pub(super) fn resident_bytes() -> Option<u64> {
    parse(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse(status: &str) -> Option<u64> {
    let kib = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    // Old kernels only tell the sum.
    let resident = kib("RssAnon").map(|anonymous| anonymous + kib("RssShmem").unwrap_or(0)).or_else(|| kib("VmRSS"))?;
    Some(resident * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_not_counted() {
        let status = "Name:\tgroupcast\nVmRSS:\t   10240 kB\nRssAnon:\t    4096 kB\nRssFile:\t    6140 kB\nRssShmem:\t       4 kB\n";
        assert_eq!(parse(status), Some(4100 * 1024));
        assert_eq!(parse("VmRSS:\t 12 kB\n"), Some(12 * 1024));
        assert_eq!(parse("Name:\tx\n"), None);
    }
}
