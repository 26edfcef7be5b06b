//! Whether the weights of a fusion fit into memory, asked before the first of them is read.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use align_models::checkpoint::SafetensorsFile;
use anyhow::{Context as _, Result};
use indicatif::HumanBytes;

use super::FusionFileError;
use super::members::{Loaded, Members};
use crate::device::is_cpu;

/// Compares what the members' weights need with what the machine has left. Members on other devices are not counted, and where
/// nothing is known of the machine nothing is refused.
pub(super) fn check(members: &Members, loaded: &Loaded<'_>) -> Result<()> {
    let Some(available) = available() else { return Ok(()) };
    let (mut counted, mut needed, mut parts) = (BTreeSet::new(), 0, Vec::new());
    for (role, place) in members.iter() {
        if !is_cpu(&loaded.device_of(place)?) || !counted.insert(&place.folder) {
            continue;
        }
        let bytes = numbers(&place.folder)? * loaded.dtype().size() as u64;
        parts.push(format!("{role} {}", HumanBytes(bytes)));
        needed += bytes;
    }
    compare(needed, available, parts)
}

fn compare(needed: u64, available: u64, parts: Vec<String>) -> Result<()> {
    match needed > available {
        true => Err(FusionFileError::Memory { needed, available, parts: parts.join(", ") }.into()),
        false => Ok(()),
    }
}

/// How many numbers the weights in a folder are; 0 of a folder without weights, which loading will refuse.
fn numbers(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for path in weight_files(folder)? {
        let file = SafetensorsFile::open(&path)?;
        let shapes = file.entries().values().map(|entry| &entry.shape);
        total += shapes.map(|shape| shape.iter().map(|&size| size as u64).product::<u64>()).sum::<u64>();
    }
    Ok(total)
}

/// `model.safetensors`, or the shards that an index names.
fn weight_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let whole = folder.join("model.safetensors");
    if whole.exists() {
        return Ok(vec![whole]);
    }
    let index = folder.join("model.safetensors.index.json");
    let Ok(text) = std::fs::read_to_string(&index) else { return Ok(Vec::new()) };
    let index: serde_json::Value =
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", index.display()))?;
    let names = index["weight_map"].as_object().into_iter().flat_map(|map| map.values());
    let names: BTreeSet<&str> = names.filter_map(serde_json::Value::as_str).collect();
    // A shard that is not there, or not in the folder, is refused by whoever reads it.
    let inside = |name: &&str| Path::new(name).components().count() == 1 && folder.join(name).exists();
    Ok(names.into_iter().filter(inside).map(|name| folder.join(name)).collect())
}

/// Bytes that can still be had: what the kernel says, and no more than is left of the control group's limit.
#[cfg(target_os = "linux")]
fn available() -> Option<u64> {
    let kernel = of_kernel(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    let group = |name: &str| std::fs::read_to_string(format!("/sys/fs/cgroup/memory.{name}"));
    let left = match (group("max"), group("current"), group("stat")) {
        (Ok(limit), Ok(used), Ok(stat)) => of_group(&limit, &used, &stat),
        _ => None,
    };
    Some(left.map_or(kernel, |left| left.min(kernel)))
}

#[cfg(not(target_os = "linux"))]
fn available() -> Option<u64> {
    None
}

/// `MemAvailable` of /proc/meminfo.
#[cfg(target_os = "linux")]
fn of_kernel(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The limit less what is used; cached files give way.
#[cfg(target_os = "linux")]
fn of_group(limit: &str, used: &str, stat: &str) -> Option<u64> {
    let (limit, used): (u64, u64) = (limit.trim().parse().ok()?, used.trim().parse().ok()?);
    let cached = stat.lines().find_map(|line| line.strip_prefix("inactive_file "))?.trim().parse().ok()?;
    Some(limit.saturating_sub(used.saturating_sub(cached)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_said_where_memory_does_not_suffice() {
        assert!(compare(3 << 30, 3 << 30, Vec::new()).is_ok());
        let message = compare(3 << 30, 2 << 30, vec!["the base 3.00 GiB".into()]).unwrap_err().to_string();
        assert!(
            message.contains("need 3.00 GiB of memory (the base 3.00 GiB), and 2.00 GiB are available"),
            "{message}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_the_kernel_and_the_control_group_say_is_read() {
        let meminfo = "MemTotal:  2000 kB\nMemFree: 1 kB\nMemAvailable:     1000 kB\n";
        assert_eq!(of_kernel(meminfo), Some(1_024_000));
        assert_eq!(of_kernel("MemTotal: 1 kB\n"), None);
        let stat = "anon 5\ninactive_file 30\nactive_file 7\n";
        assert_eq!(of_group("100\n", "80\n", stat), Some(50));
        assert_eq!(of_group("max\n", "80\n", stat), None, "no limit");
        assert_eq!(of_group("10\n", "80\n", stat), Some(0));
    }
}
