//! Reads container logs as the runtime writes them: one line each of `time stream tags content`, where tag `P` marks a
//! piece of a longer line.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::net::unix::pipe;

use crate::context::Context;
use crate::view::{ContainerState, container as find_container};
use crate::volumes::PodDirectory;

/// The longest termination message, in bytes (upstream's value).
const MAX_MESSAGE: u64 = 4096;
/// The most of the log that stands in for a termination message, in bytes (upstream's value).
const MAX_LOG_MESSAGE: usize = 2048;

/// What part of a log is wanted, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on as the log grows.
    pub follow: bool,
    /// Only so many lines from the end.
    pub tail: Option<usize>,
    /// Only what was written at or after this time.
    pub since: Option<Timestamp>,
    /// Begin each line with its time.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit: Option<usize>,
    /// Only what was written to this stream: `stdout` or `stderr`.
    pub stream: Option<String>,
}

/// Takes log lines apart and writes what is wanted.
pub struct Reader {
    options: Options,
    /// Bytes that do not make a line yet.
    rest: Vec<u8>,
    /// Whether the next piece continues a line that has been begun: then its time is not written again.
    inside_line: bool,
    written: usize,
}

impl Reader {
    /// A reader for these options; `tail` is up to [`tail`].
    pub fn new(options: Options) -> Reader {
        Reader { options, rest: Vec::new(), inside_line: false, written: 0 }
    }

    /// Takes in raw bytes of the file and appends what they say to `out`. False once the limit is reached.
    pub fn feed(&mut self, raw: &[u8], out: &mut Vec<u8>) -> bool {
        self.rest.extend_from_slice(raw);
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest[start..start + length].to_vec();
            start += length + 1;
            let before = out.len();
            self.line(&line, out);
            self.written += out.len() - before;
            if let Some(limit) = self.options.limit
                && self.written >= limit
            {
                out.truncate(out.len() - (self.written - limit));
                return false;
            }
        }
        self.rest.drain(..start);
        true
    }

    fn line(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tags)) = (parts.next(), parts.next(), parts.next()) else { return };
        // Pieces of both streams may alternate: those of the other one change nothing.
        if self.options.stream.as_ref().is_some_and(|wanted| wanted.as_bytes() != stream) {
            return;
        }
        let content = parts.next().unwrap_or_default();
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        let old = self.options.since.is_some_and(|since| {
            std::str::from_utf8(time)
                .ok()
                .and_then(|time| time.parse::<Timestamp>().ok())
                .is_some_and(|time| time < since)
        });
        if !old {
            if self.options.timestamps && !self.inside_line {
                out.extend_from_slice(time);
                out.push(b' ');
            }
            out.extend_from_slice(content);
            if !partial {
                out.push(b'\n');
            }
        }
        self.inside_line = partial;
    }
}

/// Where the last `count` whole lines of a log begin. Pieces of one line count once.
pub fn tail(file: &mut File, count: usize) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut starts: VecDeque<u64> = VecDeque::with_capacity(count.min(4096) + 1);
    let (mut at, mut fresh) = (0u64, true);
    let mut reader = BufReader::new(&mut *file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        if fresh {
            starts.push_back(at);
            if starts.len() > count {
                starts.pop_front();
            }
        }
        let tags = line.splitn(4, |byte| *byte == b' ').nth(2).unwrap_or_default();
        fresh = !tags.starts_with(b"P");
        at += length as u64;
    }
    Ok(starts.front().copied().filter(|_| count > 0).unwrap_or(at))
}

/// Reads a log into `send` until its end; with `follow`, until `ended` completes, after which nothing will be added.
/// `send` returns false when nobody listens any more.
pub async fn read<S>(
    path: &Path,
    options: Options,
    ended: impl Future<Output = ()>,
    mut send: impl FnMut(Vec<u8>) -> S,
) -> anyhow::Result<()>
where
    S: Future<Output = bool>,
{
    let mut file = File::open(path).with_context(|| format!("open the log {}", path.display()))?;
    let start = match options.tail {
        Some(count) => tail(&mut file, count)?,
        None => 0,
    };
    file.seek(SeekFrom::Start(start))?;
    let follow = options.follow;
    let mut reader = Reader::new(options);
    // Watched before the first read: what is written after it makes an event.
    let watch = if follow { Some(watch(path)?) } else { None };
    let mut buffer = vec![0; 64 << 10];
    let mut last = !follow;
    tokio::pin!(ended);
    loop {
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            let mut out = Vec::new();
            let more = reader.feed(&buffer[..count], &mut out);
            if (!out.is_empty() && !send(out).await) || !more {
                return Ok(());
            }
        }
        let Some(watch) = &watch else { return Ok(()) };
        if last {
            return Ok(());
        }
        tokio::select! {
            // What was written until then is still read.
            () = &mut ended => last = true,
            outcome = changed(watch) => outcome?,
        }
    }
}

/// Watches a file. The queue of events is read like a pipe: only that something came matters.
fn watch(path: &Path) -> anyhow::Result<pipe::Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).context("watch the log")?;
    let flags = AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_ATTRIB;
    inotify.add_watch(path, flags).context("watch the log")?;
    let queue = inotify.as_fd().try_clone_to_owned().context("watch the log")?;
    pipe::Receiver::from_owned_fd_unchecked(queue).context("watch the log")
}

async fn changed(watch: &pipe::Receiver) -> anyhow::Result<()> {
    let mut events = [0; 4096];
    loop {
        watch.readable().await.context("watch the log")?;
        match watch.try_read(&mut events) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("watch the log"),
        }
    }
}

/// Where the log of a container is.
pub(crate) fn path(context: &Context, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    context.log_directory(pod).join(container).join(format!("{attempt}.log"))
}

/// What a container left behind as its last words, by its termination message policy.
pub(crate) fn termination_message(context: &Context, pod: &Pod, state: &ContainerState) -> Option<String> {
    let directory = PodDirectory::new(&context.config.data_dir, pod.metadata.uid.as_deref()?);
    let mut message = Vec::new();
    if let Ok(file) = File::open(directory.message(&state.name, state.attempt)) {
        file.take(MAX_MESSAGE).read_to_end(&mut message).ok()?;
    }
    let policy = find_container(pod, &state.name).and_then(|container| container.termination_message_policy.clone());
    if message.is_empty() && policy.as_deref() == Some("FallbackToLogsOnError") && state.exit_code != 0 {
        let mut file = File::open(path(context, pod, &state.name, state.attempt)).ok()?;
        let start = tail(&mut file, 80).ok()?;
        file.seek(SeekFrom::Start(start)).ok()?;
        let mut raw = Vec::new();
        file.read_to_end(&mut raw).ok()?;
        Reader::new(Options::default()).feed(&raw, &mut message);
        let cut = message.len().saturating_sub(MAX_LOG_MESSAGE);
        message.drain(..cut);
    }
    (!message.is_empty()).then(|| String::from_utf8_lossy(&message).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Mutex;

    const LOG: &str = "\
2026-01-01T00:00:00.000000001Z stdout F one
2026-01-01T00:00:01.000000001Z stdout P two, 
2026-01-01T00:00:01.000000002Z stdout F and on
2026-01-01T00:00:02.000000001Z stderr F 
2026-01-01T00:00:03.000000001Z stdout F four
";

    async fn text(options: Options) -> String {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(LOG.as_bytes()).unwrap();
        let out = Mutex::new(Vec::new());
        let send = |bytes: Vec<u8>| {
            out.lock().unwrap().extend(bytes);
            std::future::ready(true)
        };
        read(file.path(), options, std::future::pending(), send).await.unwrap();
        String::from_utf8(out.into_inner().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn options_choose_the_lines() {
        let plain = Options::default();
        assert_eq!(text(plain.clone()).await, "one\ntwo, and on\n\nfour\n");
        assert_eq!(text(Options { tail: Some(3), ..plain.clone() }).await, "two, and on\n\nfour\n");
        assert_eq!(text(Options { tail: Some(0), ..plain.clone() }).await, "");
        assert_eq!(text(Options { tail: Some(9), ..plain.clone() }).await.lines().count(), 4);
        let since = Some("2026-01-01T00:00:02Z".parse().unwrap());
        assert_eq!(text(Options { since, ..plain.clone() }).await, "\nfour\n");
        assert_eq!(text(Options { limit: Some(6), ..plain.clone() }).await, "one\ntw");
        let of = |stream: &str| Options { stream: Some(stream.to_owned()), ..plain.clone() };
        assert_eq!(text(of("stdout")).await, "one\ntwo, and on\nfour\n");
        assert_eq!(text(of("stderr")).await, "\n");
        let stamped = text(Options { timestamps: true, tail: Some(3), ..plain }).await;
        assert_eq!(
            stamped,
            "2026-01-01T00:00:01.000000001Z two, and on\n2026-01-01T00:00:02.000000001Z \n2026-01-01T00:00:03.000000001Z four\n"
        );
    }

    #[tokio::test]
    async fn following_shows_what_is_written_until_the_container_ends() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(LOG.as_bytes()).unwrap();
        let path = file.path().to_owned();
        let (over, ended) = tokio::sync::oneshot::channel::<()>();
        let (lines, mut heard) = tokio::sync::mpsc::unbounded_channel();
        #[expect(clippy::disallowed_methods, reason = "the test joins it below")]
        let following = tokio::task::spawn(async move {
            let options = Options { follow: true, tail: Some(1), ..Options::default() };
            let ended = async { ended.await.expect("the test says when it is over") };
            read(&path, options, ended, |bytes| std::future::ready(lines.send(bytes).is_ok())).await
        });
        assert_eq!(heard.recv().await.unwrap(), b"four\n");
        file.write_all(b"2026-01-01T00:00:04.000000001Z stdout F five\n").unwrap();
        assert_eq!(heard.recv().await.unwrap(), b"five\n");
        file.write_all(b"2026-01-01T00:00:05.000000001Z stdout F six\n").unwrap();
        over.send(()).unwrap();
        assert_eq!(heard.recv().await.unwrap(), b"six\n");
        following.await.unwrap().unwrap();
    }
}
