//! `knarr uninstall`: leaves the host as it was before knarr came.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use container_engine::Engine;
use image_store::ImageStore;
use nix::mount::{MntFlags, umount2};

use crate::options::{Dirs, UninstallOptions};
use crate::{host, server};

/// Stops every pod and removes everything.
///
/// # Errors
/// When a server still runs, or something could not be removed; what could be is gone all the same.
pub async fn run(options: UninstallOptions) -> Result<()> {
    host::require_root("knarr uninstall")?;
    let dirs = &options.server.dirs;
    if !dirs.data_dir.exists() && !dirs.run_dir.exists() {
        println!("Nothing to remove: neither {} nor {} exists.", dirs.data_dir.display(), dirs.run_dir.display());
        return Ok(());
    }
    check_ours(dirs)?;
    if !options.yes && !confirmed(dirs)? {
        println!("Nothing was removed.");
        return Ok(());
    }
    fs::create_dir_all(&dirs.data_dir).with_context(|| format!("make directory {}", dirs.data_dir.display()))?;
    let hold = host::hold(&dirs.data_dir).context("stop the server first")?;
    let root = dirs.images();
    let images =
        tokio::task::spawn_blocking(move || ImageStore::open(&root)).await.context("open the image store")??;
    let engine =
        Engine::start(server::engine_config(&options.server, dirs), images).await.context("look for running pods")?;
    let mut problems = engine.remove_everything().await;
    problems.extend(service_proxy::remove(&service_proxy::table_name(&options.server.bridge)).await.err());
    drop((engine, hold));
    for dir in [&dirs.run_dir, &dirs.data_dir] {
        problems.extend(unmount_below(dir));
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                problems.push(anyhow::Error::new(error).context(format!("remove {}", dir.display())));
            }
            _ => {}
        }
    }
    if dirs.data_dir.exists()
        && let Err(error) = fs::write(dirs.data_dir.join("lock"), "").context("keep the mark of a data directory")
    {
        // Without it another try would take the rest for a directory of somebody else.
        problems.push(error);
    }
    if problems.is_empty() {
        println!("knarr is gone: its pods, links, mounts, cgroups, sockets and files.");
        return Ok(());
    }
    for problem in &problems {
        eprintln!("knarr: {problem:#}");
    }
    bail!("not everything could be removed: {} failed; `knarr uninstall` may be tried again", problems.len())
}

/// Takes away what is mounted below a directory, last mount first: volumes in memory, parts of volumes.
fn unmount_below(dir: &Path) -> Vec<anyhow::Error> {
    let table = match fs::read_to_string("/proc/self/mounts").context("read the table of mounts") {
        Ok(table) => table,
        Err(error) => return vec![error],
    };
    let below: Vec<PathBuf> = table
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        // The kernel writes blanks and backslashes of a path in octal.
        .map(|path| PathBuf::from(path.replace("\\040", " ").replace("\\134", "\\")))
        .filter(|path| path.starts_with(dir) && path != dir)
        .collect();
    let unmount = |path: &PathBuf| {
        umount2(path, MntFlags::MNT_DETACH)
            .err()
            .map(|e| anyhow::Error::new(e).context(format!("unmount {}", path.display())))
    };
    below.iter().rev().filter_map(unmount).collect()
}

/// Refuses directories that are not knarr's, before anything below them is removed.
fn check_ours(dirs: &Dirs) -> Result<()> {
    let foreign = |dir: &Path, known: &[&str]| -> Result<bool> {
        match fs::read_dir(dir) {
            Ok(mut entries) => Ok(entries.next().is_some() && !known.iter().any(|name| dir.join(name).exists())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("read {}", dir.display())),
        }
    };
    if foreign(&dirs.data_dir, &["lock", "store/lock", "store.redb"])? {
        bail!("{} is not a data directory of knarr: it holds other things", dirs.data_dir.display());
    }
    if foreign(&dirs.run_dir, &["knarr.sock", "cri.sock", "docker.sock", "sandboxes", "network"])? {
        bail!("{} is not a run directory of knarr: it holds other things", dirs.run_dir.display());
    }
    Ok(())
}

fn confirmed(dirs: &Dirs) -> Result<bool> {
    print!(
        "This stops all pods and deletes all objects, images and volumes in {}. Are you sure you want to continue? [y/N] ",
        dirs.data_dir.display()
    );
    std::io::stdout().flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
