//! What the host is and allows: its name and address, who holds a port, whether we may run at all.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

/// Refuses to go on without root.
///
/// # Errors
/// When the user is not root.
pub fn require_root(what: &str) -> Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    bail!("{what} needs root: it makes namespaces, mounts and network links. Run it with sudo")
}

/// The host's name as a node name: lower case, as RFC 1123 wants it.
///
/// # Errors
/// When the kernel does not tell, or the name cannot name a node.
pub fn node_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("read the host's name")?;
    let name = name.to_string_lossy().to_lowercase();
    let problems = object_model::names::dns_subdomain(&name);
    if let Some(problem) = problems.first() {
        bail!("the host's name {name:?} cannot name a node: {problem}. Choose one with --node-name");
    }
    Ok(name)
}

/// The address other hosts reach this one by: the source of the default route. Nothing is sent. A host without a default
/// route has the loopback address.
pub fn address() -> IpAddr {
    let probe = || -> std::io::Result<IpAddr> {
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        // A documentation address (RFC 5737): connecting a UDP socket only picks the route.
        socket.connect(("192.0.2.254", 9))?;
        Ok(socket.local_addr()?.ip())
    };
    probe().unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

/// Listens, or says who has the port.
///
/// # Errors
/// When the port is taken or may not be had.
pub fn listen(address: SocketAddr, what: &str, option: &str) -> Result<std::net::TcpListener> {
    let listener = match std::net::TcpListener::bind(address) {
        Ok(listener) => listener,
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let owner = port_owner(address.port())
                .map_or_else(|| "another process".to_owned(), |(pid, name)| format!("{name} (process {pid})"));
            bail!("{what} cannot listen on {address}: {owner} has the port. Stop it, or choose another with {option}");
        }
        Err(error) => return Err(error).with_context(|| format!("listen on {address} for {what}")),
    };
    listener.set_nonblocking(true).with_context(|| format!("listen on {address} for {what}"))?;
    Ok(listener)
}

/// Process id and name of who listens on a TCP port.
fn port_owner(port: u16) -> Option<(u32, String)> {
    let listening = "0A";
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let local = fields.get(1)?.rsplit(':').next()?;
            (u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == listening)
                .then(|| (*fields.get(9).unwrap_or(&"")).to_owned())
        })
    })?;
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        if files.flatten().any(|f| fs::read_link(f.path()).is_ok_and(|target| target == wanted)) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

/// Holds a data directory, so that no second server uses it.
pub struct Hold {
    _file: Flock<fs::File>,
}

/// Takes hold of a data directory.
///
/// # Errors
/// When another process has it, or it cannot be written.
pub fn hold(data_dir: &Path) -> Result<Hold> {
    let path = data_dir.join("lock");
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            file.set_len(0)
                .and_then(|()| writeln!(&mut *file, "{}", std::process::id()))
                .with_context(|| format!("write {}", path.display()))?;
            Ok(Hold { _file: file })
        }
        Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
            let mut pid = String::new();
            file.read_to_string(&mut pid).with_context(|| format!("read {}", path.display()))?;
            bail!(
                "the data directory {} is in use by another knarr (process {}). Stop it, or choose another directory with --data-dir",
                data_dir.display(),
                pid.trim()
            )
        }
        Err((_, error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_port_is_refused_with_its_owners_name() {
        let first = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind");
        let address = first.local_addr().expect("address");
        let error = listen(address, "the API", "--listen").unwrap_err().to_string();
        assert!(error.contains(&format!("(process {})", std::process::id())) && error.contains("--listen"), "{error}");
    }

    #[test]
    fn a_data_directory_has_one_holder() {
        let dir = tempfile::tempdir().expect("directory");
        let held = hold(dir.path()).expect("first");
        let error = hold(dir.path()).err().expect("second").to_string();
        assert!(error.contains("in use by another knarr"), "{error}");
        drop(held);
        assert!(hold(dir.path()).is_ok());
    }
}
