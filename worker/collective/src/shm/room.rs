//! How much memory there is to be had. The system grants a memory file more than there is and then ends
//! processes, not necessarily ours, so we look before we ask.

use std::fs;
use std::io;
use std::path::Path;

/// Part of the free memory that is left for others: one in so many.
const RESERVE: u64 = 16;

/// Refuses what does not fit into the memory that the system, and the control group of this process, have left.
/// What cannot be found out refuses nothing.
pub(crate) fn check(bytes: usize) -> io::Result<()> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok();
    let system = meminfo.and_then(|text| field(&text, "MemAvailable:")).map(|kilobytes| kilobytes * 1024);
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    match system.into_iter().chain(group(Path::new("/sys/fs/cgroup"), &membership)).min() {
        Some(free) if bytes as u64 > free - free / RESERVE => {
            let message = format!("{bytes} bytes of shared memory wanted, {free} bytes free");
            Err(io::Error::new(io::ErrorKind::OutOfMemory, message))
        }
        _ => Ok(()),
    }
}

/// The number behind `name`, which begins a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

/// Bytes left to the control group that `membership` names, and to those that it lies in.
fn group(root: &Path, membership: &str) -> Option<u64> {
    let name = membership.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let here = root.join(name);
    here.ancestors().take_while(|path| path.starts_with(root)).filter_map(left).min()
}

/// Bytes left to one control group: up to its limit, and what it could give back. `None` without a limit.
fn left(group: &Path) -> Option<u64> {
    let read = |file| fs::read_to_string(group.join(file)).ok();
    let number = |file| read(file)?.trim().parse::<u64>().ok();
    let (limit, used) = (number("memory.max")?, number("memory.current")?);
    let stat = read("memory.stat").unwrap_or_default();
    let cache = ["inactive_file ", "active_file "].into_iter().filter_map(|name| field(&stat, name)).sum();
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_fits_and_more_than_any_machine_has_does_not() {
        check(1).unwrap();
        let error = check(1 << 60).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(error.to_string().contains("1152921504606846976 bytes"), "{error}");
    }

    #[test]
    fn the_narrowest_control_group_counts() {
        let root = std::env::temp_dir().join(format!("squad-collective-room-{}", std::process::id()));
        let inner = root.join("outer/inner");
        fs::create_dir_all(&inner).unwrap();
        let write = |group: &Path, limit: &str, used: &str| {
            fs::write(group.join("memory.max"), limit).unwrap();
            fs::write(group.join("memory.current"), used).unwrap();
        };
        assert_eq!(group(&root, "0::/outer/inner\n"), None);
        write(&inner, "max\n", "70\n");
        write(&root.join("outer"), "1000\n", "700\n");
        assert_eq!(group(&root, "0::/outer/inner\n"), Some(300));
        fs::write(root.join("outer/memory.stat"), "anon 5\ninactive_file 40\nactive_file 10\n").unwrap();
        assert_eq!(group(&root, "0::/outer/inner\n"), Some(350));
        write(&inner, "200\n", "70\n");
        assert_eq!(group(&root, "3:cpu:/x\n0::/outer/inner\n"), Some(130));
        assert_eq!(group(&root, "4:memory:/x\n"), None);
        fs::remove_dir_all(&root).unwrap();
    }
}
