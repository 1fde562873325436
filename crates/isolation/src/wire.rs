//! Frames on a unix socket: a length (four bytes, little-endian), JSON, and file descriptors beside it.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Serialize, de::DeserializeOwned};

/// Longest frame, in bytes: a container's specification with a very large environment fits.
const LONGEST: usize = 8 * 1024 * 1024;

/// Most descriptors beside one frame.
const MOST_FDS: usize = 3;

/// Sends one frame.
pub(crate) fn send(socket: &UnixStream, message: &impl Serialize, fds: &[RawFd]) -> Result<()> {
    let body = serde_json::to_vec(message).context("encode a frame")?;
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend(body);
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let sent = loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&frame)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => break other.context("send a frame")?,
        }
    };
    (&*socket).write_all(&frame[sent..]).context("send a frame")
}

/// Receives one frame; `None` when the other side has closed.
pub(crate) fn receive<T: DeserializeOwned>(socket: &UnixStream) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 4];
    let (got, fds) = {
        let mut control = nix::cmsg_space!([RawFd; MOST_FDS]);
        let mut slices = [IoSliceMut::new(&mut length)];
        let message = loop {
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other.context("receive a frame")?,
            }
        };
        let mut fds = Vec::new();
        for part in message.cmsgs().context("read descriptors beside a frame")? {
            if let ControlMessageOwned::ScmRights(received) = part {
                // SAFETY: the kernel has just opened these descriptors for us; nobody else knows them.
                fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (message.bytes, fds)
    };
    if got == 0 {
        return Ok(None);
    }
    let mut reader: &UnixStream = socket;
    reader.read_exact(&mut length[got..]).context("receive a frame")?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        bail!("receive a frame: {length} bytes are more than {LONGEST}");
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).context("receive a frame")?;
    Ok(Some((serde_json::from_slice(&body).context("decode a frame")?, fds)))
}

/// A connected pair of sockets, not inherited across exec.
pub(crate) fn pair() -> io::Result<(UnixStream, UnixStream)> {
    UnixStream::pair()
}
