//! What this process has in memory.

/// A line of `/proc/self/status` in MiB: `VmRSS` is what is resident, `VmHWM` the most that was. `None` where there is no such
/// file.
pub fn memory(line: &str) -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
    Some(found.split_whitespace().next()?.parse::<f64>().ok()? / 1024.0)
}
