//! Whether the kernel killed a process for want of memory, and how much its control group may have.
//!
//! Reads nothing itself: whoever asks brings the reading along.

use std::fmt;
use std::path::{Path, PathBuf};

/// Gives the text of a file, if it can be read.
pub type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// A limit beyond what any machine has: version 1 writes down no limit as such a number.
const NO_LIMIT: u64 = 1 << 60;

/// The control group of a process, as far as memory goes, and how many of its processes the kernel had killed when it was
/// looked at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryGroup {
    folder: PathBuf,
    /// Where the hierarchy ends as this process sees it.
    top: PathBuf,
    files: Files,
    killed: u64,
}

/// The kernel killed a process because memory ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The most that its control group may have, in bytes; `None` where nothing but the machine limits it.
    pub limit: Option<u64>,
}

impl fmt::Display for OutOfMemory {
    /// As what follows "the worker process".
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("was killed by the kernel because memory ran out: ")?;
        match self.limit {
            Some(limit) => {
                let mib = limit as f64 / f64::from(1 << 20);
                write!(f, "its control group may have {mib:.0} MiB")
            }
            None => f.write_str("all of the machine's was in use"),
        }
    }
}

/// Where a version of control groups has its figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Files {
    events: &'static str,
    limit: &'static str,
    used: &'static str,
}

const VERSION_2: Files = Files { events: "memory.events", limit: "memory.max", used: "memory.current" };
const VERSION_1: Files =
    Files { events: "memory.oom_control", limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes" };

impl MemoryGroup {
    /// The group that a process (`self`, or its number) is in; `None` where the system counts no memory for it.
    pub fn of(process: &str, read: Read<'_>) -> Option<Self> {
        let groups = read(Path::new(&format!("/proc/{process}/cgroup")))?;
        let mounts = read(Path::new("/proc/self/mountinfo"))?;
        let found = |controller: &str, files: Files| {
            let path = path_of(&groups, controller)?;
            let (root, top) = mount_of(&mounts, controller)?;
            // A container may see the whole path, but only what is below its own group.
            let folder = match path.strip_prefix(root.as_str()) {
                Some(rest) => top.join(rest.trim_start_matches('/')),
                None => top.clone(),
            };
            let killed = kills(&read(&folder.join(files.events))?)?;
            Some(Self { folder, top, files, killed })
        };
        found("", VERSION_2).or_else(|| found("memory", VERSION_1))
    }

    /// What a process of the group died of that was killed by SIGKILL: of want of memory, where the kernel has killed one
    /// for it since the group was looked at first.
    pub fn cause(&self, read: Read<'_>) -> Option<OutOfMemory> {
        let now = read(&self.folder.join(self.files.events)).and_then(|text| kills(&text))?;
        (now > self.killed).then(|| OutOfMemory { limit: self.limit(read) })
    }

    /// The most memory that the group may have, in bytes: its own limit, or a lower one of a group around it.
    pub fn limit(&self, read: Read<'_>) -> Option<u64> {
        self.tightest(read).map(|(limit, _)| limit)
    }

    /// What is left of that, in bytes, with what the group could give back at once.
    pub fn left(&self, read: Read<'_>) -> Option<u64> {
        let (limit, folder) = self.tightest(read)?;
        let used: u64 = read(&folder.join(self.files.used))?.trim().parse().ok()?;
        let figures = read(&folder.join("memory.stat")).unwrap_or_default();
        let figure = |name: &str| {
            figures.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let cache = figure("inactive_file ").saturating_add(figure("active_file "));
        Some(limit.saturating_sub(used.saturating_sub(cache)))
    }

    fn tightest(&self, read: Read<'_>) -> Option<(u64, &Path)> {
        let groups = self.folder.ancestors().take_while(|folder| folder.starts_with(&self.top));
        let limits = groups.filter_map(|folder| {
            let limit: u64 = read(&folder.join(self.files.limit))?.trim().parse().ok()?;
            (limit < NO_LIMIT).then_some((limit, folder))
        });
        limits.min_by_key(|(limit, _)| *limit)
    }
}

/// A process's path in the hierarchy of a controller (version 2 has one hierarchy, without a name).
fn path_of<'a>(groups: &'a str, controller: &str) -> Option<&'a str> {
    groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let found = if controller.is_empty() {
            number == "0" && controllers.is_empty()
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        found.then_some(path)
    })
}

/// Which part of a controller's hierarchy is mounted, and where.
fn mount_of(mounts: &str, controller: &str) -> Option<(String, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split(' ').skip(3);
        let (root, at) = (place.next()?, place.next()?);
        let mut kind = kind.split(' ');
        let (system, options) = (kind.next()?, kind.nth(1)?);
        let found = match controller {
            "" => system == "cgroup2",
            name => system == "cgroup" && options.split(',').any(|option| option == name),
        };
        // The root of all is no prefix of its own.
        let root = if root == "/" { "" } else { root };
        found.then(|| (root.to_owned(), PathBuf::from(at)))
    })
}

/// How many processes of a group the kernel has killed for want of memory.
fn kills(events: &str) -> Option<u64> {
    events.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Tree = Vec<(&'static str, &'static str)>;

    fn reader(tree: Tree) -> impl Fn(&Path) -> Option<String> {
        move |path| tree.iter().find(|(name, _)| Path::new(name) == path).map(|(_, text)| (*text).to_owned())
    }

    const MOUNTS_2: &str = "24 1 0:21 / /proc rw - proc proc rw\n\
        33 24 0:29 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn a_kill_is_counted_where_the_process_is() {
        let at = |events| {
            reader(vec![
                ("/proc/7/cgroup", "0::/jobs/one\n"),
                ("/proc/self/mountinfo", MOUNTS_2),
                ("/sys/fs/cgroup/jobs/one/memory.events", events),
                ("/sys/fs/cgroup/jobs/one/memory.max", "max\n"),
                ("/sys/fs/cgroup/jobs/memory.max", "536870912\n"),
                ("/sys/fs/cgroup/jobs/memory.current", "536870000\n"),
                ("/sys/fs/cgroup/jobs/memory.stat", "anon 5\ninactive_file 80\nactive_file 8\n"),
            ])
        };
        let before = at("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n");
        let group = MemoryGroup::of("7", &before).unwrap();
        assert_eq!(group.cause(&before), None);
        let cause = group.cause(&at("oom 4\noom_kill 3\n")).unwrap();
        assert!(cause.to_string().ends_with("its control group may have 512 MiB"), "{cause}");
        // The limit of the group around it counts too.
        assert_eq!(group.limit(&before), Some(512 << 20));
        assert_eq!(group.left(&before), Some(1000));
        assert_eq!(group.cause(&reader(vec![])), None, "a group that is gone says nothing");
    }

    #[test]
    fn a_container_that_sees_its_whole_path_is_found() {
        let read = reader(vec![
            ("/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/ab\n0::/\n"),
            (
                "/proc/self/mountinfo",
                "40 32 0:36 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
                 41 32 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            ),
            ("/sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        let group = MemoryGroup::of("self", &read).unwrap();
        assert_eq!(group.limit(&read), None, "the largest number is none");
    }

    #[test]
    fn a_system_that_counts_nothing_has_no_group() {
        let read = reader(vec![("/proc/7/cgroup", "0::/\n"), ("/proc/self/mountinfo", MOUNTS_2)]);
        assert_eq!(MemoryGroup::of("7", &read), None);
    }

    proptest! {
        #[test]
        fn whatever_the_files_say_is_taken(groups in ".{0,80}", mounts in ".{0,80}", events in ".{0,40}") {
            let read = |path: &Path| match path.to_str() {
                Some("/proc/7/cgroup") => Some(groups.clone()),
                Some("/proc/self/mountinfo") => Some(mounts.clone()),
                _ => Some(events.clone()),
            };
            if let Some(group) = MemoryGroup::of("7", &read) {
                prop_assert_eq!(group.cause(&read), None);
                group.left(&read);
            }
        }
    }
}
