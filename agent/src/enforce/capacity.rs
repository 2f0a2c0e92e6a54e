//! What a host has.

use std::{fs, path::Path};

use super::{EnforceError, Reading};
use crate::model::{Amounts, HUGE_PAGE_BYTES};

/// What an uplink counts as that does not tell its speed, as virtual ones do:
/// the slowest that servers have. Mbit/s.
const SPEED_UNKNOWN: u64 = 1000;

/// Bytes a second of one Mbit/s.
const MBIT: u64 = 125_000;

/// Memory, CPUs, and the bandwidth of the slowest uplink. `root` is `/`, but
/// for tests.
pub fn read_capacity<'n>(
    root: &Path,
    uplinks: impl Iterator<Item = &'n str>,
) -> Result<Amounts, EnforceError> {
    let memory_bytes = meminfo(root, "MemTotal")?;
    let speeds = uplinks.map(|name| speed(root, name).unwrap_or(SPEED_UNKNOWN));
    Ok(Amounts {
        memory_bytes,
        huge_pages: memory_bytes / HUGE_PAGE_BYTES,
        cpu_milli: cpus(root)? * 1000,
        bandwidth: speeds.min().unwrap_or(0) * MBIT,
    })
}

/// How short the host is of memory. Kernels without PSI, or where it is off,
/// say nothing of waiting.
pub fn read_pressure(root: &Path) -> Result<Reading, EnforceError> {
    let stalled = fs::read_to_string(root.join("proc/pressure/memory"));
    let stalled = stalled.ok().and_then(|text| {
        let some = text.lines().find_map(|line| line.strip_prefix("some "))?;
        let avg10 = some
            .split(' ')
            .find_map(|word| word.strip_prefix("avg10="))?;
        let (whole, hundredths) = avg10.split_once('.')?;
        let whole: u32 = whole.parse().ok()?;
        let hundredths: u32 = hundredths.parse().ok()?;
        whole.checked_mul(100)?.checked_add(hundredths)
    });
    Ok(Reading {
        stalled,
        available_bytes: meminfo(root, "MemAvailable")?,
        total_bytes: meminfo(root, "MemTotal")?,
    })
}

fn meminfo(root: &Path, name: &str) -> Result<u64, EnforceError> {
    let path = root.join("proc/meminfo");
    let text = read(&path)?;
    let found = text.lines().find_map(|line| {
        let (_, kib) = line.split_once(':').filter(|(key, _)| *key == name)?;
        let kib = kib.trim().strip_suffix("kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    found.ok_or_else(|| EnforceError::Parse {
        path,
        what: format!("there is no {name}"),
    })
}

/// CPUs that are online: ranges such as `0-3,8`.
fn cpus(root: &Path) -> Result<u64, EnforceError> {
    let path = root.join("sys/devices/system/cpu/online");
    let text = read(&path)?;
    let range = |range: &str| -> Option<u64> {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    let count: Option<u64> = text.trim().split(',').map(range).sum();
    let count = count.filter(|count| (1..=1 << 20).contains(count));
    count.ok_or_else(|| EnforceError::Parse {
        path,
        what: format!("`{}` is no list of CPUs", text.trim().escape_debug()),
    })
}

/// Mbit/s, if the interface is there and tells.
fn speed(root: &Path, interface: &str) -> Option<u64> {
    let path = root.join("sys/class/net").join(interface).join("speed");
    // -1 is what a driver says that does not know.
    let speed: u64 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    (1..=10_000_000).contains(&speed).then_some(speed)
}

pub(super) fn read(path: &Path) -> Result<String, EnforceError> {
    fs::read_to_string(path).map_err(|source| EnforceError::Read {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::tree::Tree;

    fn host(online: &str, meminfo: &str) -> Tree {
        Tree::of(&[
            ("proc/meminfo", meminfo),
            ("sys/devices/system/cpu/online", online),
            ("sys/class/net/fast/speed", "25000\n"),
            ("sys/class/net/slow/speed", "100\n"),
            ("sys/class/net/virtual/speed", "-1\n"),
        ])
    }

    const MEMINFO: &str = "MemTotal:       24576000 kB\nMemFree:  1 kB\n";

    #[test]
    fn a_host_is_read() {
        let tree = host("0-3,8\n", MEMINFO);
        let bandwidth = |uplinks: &[&str]| {
            let read = read_capacity(&tree.path, uplinks.iter().copied()).unwrap();
            assert_eq!(read.memory_bytes, 24_576_000 * 1024);
            assert_eq!((read.huge_pages, read.cpu_milli), (12_000, 5000));
            read.bandwidth / MBIT
        };
        assert_eq!(bandwidth(&["fast"]), 25_000);
        assert_eq!(bandwidth(&["fast", "slow"]), 100);
        assert_eq!(bandwidth(&["fast", "virtual"]), 1000);
        assert_eq!(bandwidth(&["absent"]), 1000);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (online, meminfo, expected) in [
            ("3-1\n", MEMINFO, "cpu/online: `3-1` is no list of CPUs"),
            ("\n", MEMINFO, "cpu/online: `` is no list of CPUs"),
            ("0\n", "MemFree: 1 kB\n", "meminfo: there is no MemTotal"),
        ] {
            let tree = host(online, meminfo);
            let error = read_capacity(&tree.path, ["fast"].into_iter()).unwrap_err();
            assert!(error.to_string().ends_with(expected), "{error}");
        }
    }

    #[test]
    fn pressure_is_read_where_the_kernel_tells() {
        let meminfo = "MemTotal: 100 kB\nMemAvailable: 40 kB\n";
        let psi = "some avg10=12.05 avg60=1.00 avg300=0.00 total=5\nfull avg10=1.00\n";
        let tree = Tree::of(&[("proc/meminfo", meminfo), ("proc/pressure/memory", psi)]);
        let reading = read_pressure(&tree.path).unwrap();
        assert_eq!(reading.stalled, Some(1205));
        assert_eq!(
            (reading.available_bytes, reading.total_bytes),
            (40 << 10, 100 << 10)
        );
        let tree = Tree::of(&[("proc/meminfo", meminfo)]);
        assert_eq!(read_pressure(&tree.path).unwrap().stalled, None);
    }

    #[test]
    fn this_host_is_read() {
        let read = read_capacity(Path::new("/"), ["lo"].into_iter()).unwrap();
        assert!(read.memory_bytes > 1 << 26 && read.cpu_milli >= 1000);
    }
}
