//! Control groups: version 1, version 2, and both side by side.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The version 1 controllers that are used where the machine has them.
const CONTROLLERS: [&str; 9] = ["cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb"];

/// The control group hierarchies of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchies {
    /// Version 1 mounts: the controllers of each, and where it is mounted.
    v1: Vec<(Vec<String>, PathBuf)>,
    /// The version 2 mount, if there is one.
    v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Finds the hierarchies mounted in this process's view of the machine.
    pub fn detect() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let found = Self::from_mountinfo(&mounts);
        if found.v1.is_empty() && found.v2.is_none() {
            bail!("no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup");
        }
        Ok(found)
    }

    /// What a `/proc/<pid>/mountinfo` says about control groups.
    pub fn from_mountinfo(mountinfo: &str) -> Self {
        let mut found = Self { v1: Vec::new(), v2: None };
        for line in mountinfo.lines() {
            // "36 35 98:0 /root /mount/point options [optional…] - type source super-options"
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let Some(point) = left.split(' ').nth(4) else {
                continue;
            };
            let mut right = right.split(' ');
            let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
            match kind {
                "cgroup2" if found.v2.is_none() => found.v2 = Some(PathBuf::from(point)),
                "cgroup" => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|option| CONTROLLERS.contains(option)).map(str::to_owned).collect();
                    let known = found.v1.iter().any(|(c, _)| *c == controllers);
                    if !controllers.is_empty() && !known {
                        found.v1.push((controllers, PathBuf::from(point)));
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// True if every controller is in the version 2 hierarchy.
    pub fn is_unified(&self) -> bool {
        self.v1.is_empty()
    }

    /// The group at `path` (such as `/knarr/kubepods/pod1/abc`), which need not exist yet.
    pub fn group(&self, path: &str) -> Group {
        let relative = path.trim_matches('/');
        Group {
            v1: self.v1.iter().map(|(c, at)| (c.clone(), at.clone(), at.join(relative))).collect(),
            v2: self.v2.as_ref().map(|at| (at.clone(), at.join(relative))),
        }
    }
}

/// One control group, in every hierarchy of the machine.
#[derive(Clone, Debug)]
pub struct Group {
    /// Controllers, mount point, directory.
    v1: Vec<(Vec<String>, PathBuf, PathBuf)>,
    /// Mount point, directory.
    v2: Option<(PathBuf, PathBuf)>,
}

/// Limits of a group. What is absent is left as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Resources {
    /// Relative weight, in the scale of version 1 (2 to 262144; 1024 is one core's worth).
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period; negative for no limit.
    pub cpu_quota: Option<i64>,
    /// Length of the period, in microseconds.
    pub cpu_period: Option<u64>,
    /// Most memory, in bytes; negative for no limit.
    pub memory: Option<i64>,
    /// Most memory and swap together, in bytes; negative for no limit.
    pub memory_and_swap: Option<i64>,
    /// Most processes and threads; negative for no limit.
    pub pids: Option<i64>,
    /// Allowed processors, such as `0-1`.
    pub cpuset_cpus: Option<String>,
    /// Allowed memory nodes.
    pub cpuset_mems: Option<String>,
    /// Files of version 2 and what to write into them.
    pub unified: BTreeMap<String, String>,
    /// Rules of the version 1 device list, such as `c 1:3 rwm`; everything else is denied. `None` denies nothing.
    pub devices: Option<Vec<String>>,
}

/// What a group has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the group exists, in nanoseconds.
    pub cpu_nanos: Option<u64>,
    /// Memory in use, in bytes.
    pub memory: Option<u64>,
    /// Memory in use without file pages that could be dropped at once, in bytes.
    pub working_set: Option<u64>,
    /// Anonymous memory, in bytes.
    pub rss: Option<u64>,
    /// Page faults that needed no IO, and those that did.
    pub page_faults: Option<(u64, u64)>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

impl Group {
    /// Makes the group and whatever parents it lacks. Says which controllers it could not have.
    pub fn create(&self) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for (controllers, mount, dir) in &self.v1 {
            let cpuset = controllers.iter().any(|c| c == "cpuset");
            for level in levels(mount, dir) {
                make_dir(&level)?;
                if cpuset {
                    // A new cpuset is empty, and an empty one takes no process.
                    for file in ["cpuset.cpus", "cpuset.mems"] {
                        inherit_cpuset(&level, file)?;
                    }
                }
            }
        }
        if let Some((mount, dir)) = &self.v2 {
            let mut parent = mount.clone();
            for level in levels(mount, dir) {
                // Each controller by itself: one that cannot be had must not take the others with it.
                let offered = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
                let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
                for controller in offered.split_whitespace() {
                    if !CONTROLLERS.contains(&controller) && !matches!(controller, "io") {
                        continue;
                    }
                    if enabled.split_whitespace().any(|on| on == controller) {
                        continue;
                    }
                    if let Err(e) = fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}")) {
                        notes.push(format!("no {controller} controller under {}: {e}", parent.display()));
                    }
                }
                make_dir(&level)?;
                parent = level;
            }
        }
        Ok(notes)
    }

    /// The directories of the group: a process enters the group by its number in `cgroup.procs` of each.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let v2 = self.v2.iter().map(|(_, dir)| dir.clone());
        self.v1.iter().map(|(_, _, dir)| dir.clone()).chain(v2).collect()
    }

    /// The names under which a container sees its version 1 hierarchies, and the directory of each.
    pub fn v1_views(&self) -> Vec<(String, PathBuf)> {
        self.v1.iter().map(|(controllers, _, dir)| (controllers.join(","), dir.clone())).collect()
    }

    /// The directory that holds `controller`, in either version.
    fn dir_of(&self, controller: &str) -> Option<(&Path, bool)> {
        if let Some((_, _, dir)) = self.v1.iter().find(|(c, _, _)| c.iter().any(|c| c == controller)) {
            return Some((dir, false));
        }
        let (_, dir) = self.v2.as_ref()?;
        let controllers = fs::read_to_string(dir.join("cgroup.controllers")).ok()?;
        controllers.split_whitespace().any(|c| c == controller).then_some((dir.as_path(), true))
    }

    /// Sets limits. A limit whose controller is missing is not an error: the answer names it.
    pub fn set(&self, resources: &Resources) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        let mut need = |controller: &str, wanted: bool| match self.dir_of(controller) {
            _ if !wanted => None,
            Some(found) => Some(found),
            None => {
                notes.push(format!("the {controller} controller is missing: its limits are not enforced"));
                None
            }
        };
        let wants_cpu =
            resources.cpu_shares.is_some() || resources.cpu_quota.is_some() || resources.cpu_period.is_some();
        if let Some((dir, unified)) = need("cpu", wants_cpu) {
            set_cpu(dir, unified, resources)?;
        }
        let wants_memory = resources.memory.is_some() || resources.memory_and_swap.is_some();
        if let Some((dir, unified)) = need("memory", wants_memory) {
            set_memory(dir, unified, resources)?;
        }
        if let Some((dir, _)) = need("pids", resources.pids.is_some()) {
            let value = resources.pids.filter(|n| *n >= 0).map_or("max".to_owned(), |n| n.to_string());
            write(dir, "pids.max", &value)?;
        }
        let sets = [("cpuset.cpus", &resources.cpuset_cpus), ("cpuset.mems", &resources.cpuset_mems)];
        if let Some((dir, _)) = need("cpuset", sets.iter().any(|(_, value)| value.is_some())) {
            for (file, value) in sets {
                if let Some(value) = value {
                    write(dir, file, value)?;
                }
            }
        }
        if let (Some(rules), Some((dir, false))) = (&resources.devices, self.dir_of("devices")) {
            write(dir, "devices.deny", "a")?;
            for rule in rules {
                write(dir, "devices.allow", rule)?;
            }
        }
        if let Some((_, dir)) = self.v2.as_ref().filter(|_| !resources.unified.is_empty()) {
            for (file, value) in &resources.unified {
                if file.contains('/') {
                    bail!("set cgroup file {file:?}: the name must not contain a slash");
                }
                write(dir, file, value)?;
            }
        }
        Ok(notes)
    }

    /// What the group has used so far.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        if let Some((dir, _)) = self.dir_of("cpuacct").filter(|(_, unified)| !unified) {
            usage.cpu_nanos = read_number(dir, "cpuacct.usage");
        } else if let Some((_, dir)) = &self.v2 {
            usage.cpu_nanos = read_key(dir, "cpu.stat", "usage_usec").map(|micros| micros * 1000);
        }
        if let Some((dir, unified)) = self.dir_of("memory") {
            let (current, inactive, rss, fault, major) = if unified {
                ("memory.current", "inactive_file", "anon", "pgfault", "pgmajfault")
            } else {
                ("memory.usage_in_bytes", "total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault")
            };
            usage.memory = read_number(dir, current);
            let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
            usage.working_set = usage.memory.map(|used| used.saturating_sub(key_in(&stat, inactive).unwrap_or(0)));
            usage.rss = key_in(&stat, rss);
            usage.page_faults = key_in(&stat, fault).zip(key_in(&stat, major));
        }
        if let Some((dir, _)) = self.dir_of("pids") {
            usage.pids = read_number(dir, "pids.current");
        }
        usage
    }

    /// Removes the group where it holds neither processes nor groups, and leaves it otherwise.
    pub fn remove_if_empty(&self) {
        for dir in self.dirs() {
            // The kernel refuses to remove one that holds anything, which is the question asked here.
            let _ = fs::remove_dir(dir);
        }
    }

    /// Removes the group, first killing whatever is still in it. Nothing to remove is success.
    pub fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        for dir in self.dirs() {
            remove_tree(&dir, deadline)?;
        }
        Ok(())
    }
}

/// How often the kernel killed a process of the group in `dirs` for want of memory.
pub(crate) fn oom_kills(dirs: &[PathBuf]) -> u64 {
    let of = |dir: &PathBuf| {
        read_key(dir, "memory.events", "oom_kill").or_else(|| read_key(dir, "memory.oom_control", "oom_kill"))
    };
    dirs.iter().filter_map(of).max().unwrap_or(0)
}

/// Kills every process of the group in `dirs`, also those that are being forked meanwhile.
pub(crate) fn kill_all(dirs: &[PathBuf]) {
    for dir in dirs {
        // `cgroup.kill` exists in version 2 since Linux 5.14.
        if fs::write(dir.join("cgroup.kill"), "1").is_ok() {
            return;
        }
    }
    let Some(dir) = dirs.iter().find(|dir| dir.join("cgroup.procs").exists()) else {
        return;
    };
    for _ in 0..16 {
        let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        if procs.is_empty() {
            return;
        }
        for pid in procs.lines().filter_map(|line| line.parse().ok()) {
            // Whoever is gone already needs no signal.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
}

/// Version 1 shares (2 to 262144) on the scale of version 2 (1 to 10000), as the OCI runtimes convert them.
pub fn weight_of_shares(shares: u64) -> u64 {
    if shares == 0 { 100 } else { 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142 }
}

fn set_cpu(dir: &Path, unified: bool, resources: &Resources) -> Result<()> {
    if unified {
        if let Some(shares) = resources.cpu_shares {
            write(dir, "cpu.weight", &weight_of_shares(shares).to_string())?;
        }
        if resources.cpu_quota.is_some() || resources.cpu_period.is_some() {
            let quota = resources.cpu_quota.filter(|q| *q > 0).map_or("max".to_owned(), |q| q.to_string());
            write(dir, "cpu.max", &format!("{quota} {}", resources.cpu_period.unwrap_or(100_000)))?;
        }
        return Ok(());
    }
    if let Some(shares) = resources.cpu_shares {
        write(dir, "cpu.shares", &shares.to_string())?;
    }
    if let Some(period) = resources.cpu_period {
        write(dir, "cpu.cfs_period_us", &period.to_string())?;
    }
    if let Some(quota) = resources.cpu_quota {
        write(dir, "cpu.cfs_quota_us", &quota.max(-1).to_string())?;
    }
    Ok(())
}

fn set_memory(dir: &Path, unified: bool, resources: &Resources) -> Result<()> {
    let text = |n: i64| {
        if n < 0 { "max".to_owned() } else { n.to_string() }
    };
    if unified {
        if let Some(limit) = resources.memory {
            write(dir, "memory.max", &text(limit))?;
        }
        if let Some(both) = resources.memory_and_swap {
            let swap = if both < 0 { both } else { (both - resources.memory.unwrap_or(0)).max(0) };
            if dir.join("memory.swap.max").exists() {
                write(dir, "memory.swap.max", &text(swap))?;
            }
        }
        return Ok(());
    }
    let swap = resources.memory_and_swap.filter(|_| dir.join("memory.memsw.limit_in_bytes").exists());
    let limit = resources.memory.map(|n| n.max(-1).to_string());
    let swap = swap.map(|n| n.max(-1).to_string());
    // Memory alone may never be allowed more than both together, so the order depends on the direction.
    let first = limit.as_ref().map_or(Ok(()), |l| write(dir, "memory.limit_in_bytes", l));
    if let Some(swap) = swap {
        write(dir, "memory.memsw.limit_in_bytes", &swap)?;
    }
    match (first, limit) {
        (Err(_), Some(limit)) => write(dir, "memory.limit_in_bytes", &limit),
        (result, _) => result,
    }
}

/// The directories from below `mount` down to `dir`, highest first.
fn levels(mount: &Path, dir: &Path) -> Vec<PathBuf> {
    let mut levels: Vec<PathBuf> = dir.ancestors().take_while(|level| *level != mount).map(Path::to_path_buf).collect();
    levels.reverse();
    levels
}

fn make_dir(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("create cgroup {}", dir.display()))
        }
        _ => Ok(()),
    }
}

fn inherit_cpuset(dir: &Path, file: &str) -> Result<()> {
    let current = fs::read_to_string(dir.join(file)).unwrap_or_default();
    if !current.trim().is_empty() {
        return Ok(());
    }
    let parent = dir.parent().context("find the parent of a cpuset")?;
    let value = fs::read_to_string(parent.join(file)).with_context(|| format!("read {file}"))?;
    write(dir, file, value.trim())
}

fn write(dir: &Path, file: &str, value: &str) -> Result<()> {
    fs::write(dir.join(file), value).with_context(|| format!("write {value:?} to {}/{file}", dir.display()))
}

fn read_number(dir: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok()
}

fn read_key(dir: &Path, file: &str, key: &str) -> Option<u64> {
    key_in(&fs::read_to_string(dir.join(file)).ok()?, key)
}

fn key_in(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Removes a group and all below it, lowest first.
fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.with_context(|| format!("list cgroup {}", dir.display()))?,
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path(), deadline)?;
        }
    }
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && Instant::now() < deadline => {
                kill_all(&[dir.to_owned()]);
                // A killed process leaves its group when its last thread has gone: there is no event to wait for.
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(e) => return Err(e).with_context(|| format!("remove cgroup {}", dir.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hybrid_layout_is_recognised() {
        let found = Hierarchies::from_mountinfo(
            "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
        );
        assert_eq!(
            found,
            Hierarchies {
                v1: vec![(vec!["cpu".into(), "cpuacct".into()], "/sys/fs/cgroup/cpu,cpuacct".into())],
                v2: Some("/sys/fs/cgroup/unified".into()),
            }
        );
        assert!(!found.is_unified());
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!([2, 1024, 262_144].map(weight_of_shares), [1, 39, 10_000]);
    }
}
