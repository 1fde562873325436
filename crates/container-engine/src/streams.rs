//! Pipes and terminals as asynchronous streams.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::net::unix::pipe::{Receiver, Sender};

/// A pipe end or a terminal. One that is read and written is shared by reference.
pub struct Stream {
    /// Tokio's pipes ask of a descriptor what a terminal offers as well: readiness, reads and writes.
    reader: Option<Receiver>,
    writer: Option<Sender>,
}

impl Stream {
    pub(crate) fn new(fd: OwnedFd) -> Result<Self> {
        let flags = OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL).context("read stream flags")?);
        fcntl(fd.as_fd(), FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).context("set stream flags")?;
        let mode = flags & OFlag::O_ACCMODE;
        let reader = (mode != OFlag::O_WRONLY).then(|| fd.try_clone().and_then(Receiver::from_owned_fd_unchecked));
        let writer = (mode != OFlag::O_RDONLY).then(|| Sender::from_owned_fd_unchecked(fd));
        Ok(Self {
            reader: reader.transpose().context("watch a stream")?,
            writer: writer.transpose().context("watch a stream")?,
        })
    }

    /// Reads what there is; 0 at the end.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = self.reader.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        loop {
            reader.readable().await?;
            match reader.try_read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // How a terminal says that the last program has let go of it.
                Err(e) if e.raw_os_error() == Some(nix::errno::Errno::EIO as i32) => return Ok(0),
                other => return other,
            }
        }
    }

    /// Writes all of it.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let writer = self.writer.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        while !bytes.is_empty() {
            writer.writable().await?;
            match writer.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => bytes = &bytes[other?..],
            }
        }
        Ok(())
    }

    /// Reads to the end into `all`, which keeps at most `most` bytes.
    pub(crate) async fn collect(&self, all: &mut Vec<u8>, most: usize) -> io::Result<()> {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let count = self.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let room = most.saturating_sub(all.len());
            all.extend_from_slice(&buffer[..count.min(room)]);
        }
    }

    /// Sets the size of a terminal, in characters.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        let writer = self.writer.as_ref().context("resize a stream that is not a terminal")?;
        isolation::set_terminal_size(writer.as_fd(), width, height)
    }
}
