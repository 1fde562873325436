//! `docker logs`: what a container has printed, out of the log that its shim writes, and what it prints from now on.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc;

use crate::error::{Answer, bad};
use crate::http::{Body, Call, stream_answer};
use crate::streams::{STDERR, STDOUT, content_type, frame};
use crate::{Container, DockerApi, time};

/// How often the log of a container is looked at while somebody follows it.
const LOOK: Duration = Duration::from_millis(50);

/// What is asked of a log.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pub stdout: bool,
    pub stderr: bool,
    pub timestamps: bool,
    /// Nanoseconds since 1970; 0 is not asked for.
    pub since: i64,
    pub until: i64,
    /// Only so many of the last lines.
    pub tail: Option<usize>,
}

/// One line of the log: its time, its stream, and what was printed.
#[derive(Debug, PartialEq, Eq)]
struct Line<'a> {
    time: &'a str,
    stream: u8,
    /// With its line feed, if it had one.
    text: Vec<u8>,
}

/// Reads `<time> <stream> <F or P> <text>`.
fn parse(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let time = std::str::from_utf8(parts.next()?).ok()?;
    let stream = match parts.next()? {
        b"stderr" => STDERR,
        _ => STDOUT,
    };
    let whole = parts.next()? == b"F";
    let mut text = parts.next()?.to_vec();
    if whole {
        text.push(b'\n');
    }
    Some(Line { time, stream, text })
}

impl Query {
    fn piece(&self, line: &[u8], raw: bool) -> Option<Bytes> {
        let line = parse(line)?;
        let wanted = if line.stream == STDERR { self.stderr } else { self.stdout };
        if !wanted {
            return None;
        }
        if self.since != 0 || self.until != 0 {
            let at = time::read(line.time);
            if at < self.since || (self.until != 0 && at > self.until) {
                return None;
            }
        }
        let mut text = line.text;
        if self.timestamps {
            text = [line.time.as_bytes(), b" ", &text].concat();
        }
        Some(frame(line.stream, &text, raw))
    }
}

/// Sends a log, and what is added to it while `follow` runs. Ends when the receiver has gone.
pub(crate) async fn send(
    path: &Path,
    query: &Query,
    raw: bool,
    outbox: &mpsc::Sender<Bytes>,
    follow: Option<&Arc<Container>>,
) {
    let mut last: VecDeque<Bytes> = VecDeque::new();
    let mut reader = None;
    let mut line = Vec::new();
    let mut caught_up = false;
    loop {
        // Looked at before the reading: what was printed before the end is read after it.
        let runs = follow.is_some_and(|container| container.record().is_running());
        if reader.is_none() {
            reader = tokio::fs::File::open(path).await.ok().map(BufReader::new);
        }
        if let Some(reader) = &mut reader {
            while let Ok(1..) = reader.read_until(b'\n', &mut line).await {
                if !line.ends_with(b"\n") {
                    break;
                }
                let piece = query.piece(&line, raw);
                line.clear();
                let Some(piece) = piece else { continue };
                match query.tail.filter(|_| !caught_up) {
                    Some(most) => {
                        last.push_back(piece);
                        if last.len() > most {
                            last.pop_front();
                        }
                    }
                    None => {
                        if outbox.send(piece).await.is_err() {
                            return;
                        }
                    }
                }
            }
        }
        caught_up = true;
        for piece in last.drain(..) {
            if outbox.send(piece).await.is_err() {
                return;
            }
        }
        if !runs || outbox.is_closed() || (query.until != 0 && time::now() > query.until) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl DockerApi {
    pub(crate) fn container_logs(&self, call: &Call, id: &str) -> Answer<Response<Body>> {
        let container = self.find(id)?;
        let record = container.record();
        let moment = |name: &str| match call.text(name).unwrap_or_default() {
            "" | "0" => Ok(0),
            word => time::moment(word, time::now()),
        };
        let query = Query {
            stdout: call.flag("stdout"),
            stderr: call.flag("stderr"),
            timestamps: call.flag("timestamps"),
            since: moment("since")?,
            until: moment("until")?,
            tail: call.text("tail").and_then(|tail| tail.parse().ok()),
        };
        if !(query.stdout || query.stderr) {
            return Err(bad("Bad parameters: you must choose at least one stream"));
        }
        let (outbox, pieces) = mpsc::channel(16);
        let follow = call.flag("follow").then_some(container);
        let path = self.dir("containers", &record.id).join("log");
        let stop = self.stop.clone();
        let raw = record.config.tty;
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = outbox.closed() => {}
                () = send(&path, &query, raw, &outbox, follow.as_ref()) => {}
            }
        });
        Ok(stream_answer(content_type(raw, call.version), pieces))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_chosen_by_stream_and_time() {
        let at = "2026-11-23T15:00:00.000000001Z";
        let line = format!("{at} stderr F oh no\n");
        let parsed = parse(line.as_bytes()).unwrap();
        assert_eq!(parsed, Line { time: at, stream: STDERR, text: b"oh no\n".to_vec() });
        assert_eq!(parse(b"T stdout P part").unwrap().text, b"part");
        assert_eq!(parse(b"nonsense"), None);
        let query = |since| Query { stderr: true, timestamps: true, since, ..Query::default() };
        let shown = query(time::read(at)).piece(line.as_bytes(), true).unwrap();
        assert_eq!(shown, Bytes::from(format!("{at} oh no\n")));
        assert_eq!(query(time::read(at) + 1).piece(line.as_bytes(), true), None);
        assert_eq!(Query { stdout: true, ..Query::default() }.piece(line.as_bytes(), true), None);
    }
}
