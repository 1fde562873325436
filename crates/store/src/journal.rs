//! A log on disk, in segments: files that are only ever appended to.
//!
//! One commit is one frame, written and flushed in one step: what is written is little more than what has changed, which
//! spares flash memory. Records that are no longer wanted stay where they are until they are more than half of what is on
//! disk; then the oldest segment is cleaned: what is still wanted in it is written once more, at the end, and the file
//! goes.
//!
//! # On disk
//! All numbers are little endian. A segment is named by its number, starts with a head (magic, format (4), its
//! number (8), where the segment before it ended (8), CRC-32 of these (4)) and holds frames: length of the payload (4 bytes; 0 where nothing follows), CRC-32 of length and payload (4), payload. A
//! payload is: ceiling (8), compacted (8), the number of the last segment that this frame makes superfluous (8), how many
//! records follow (4) and how many revisions after them (4); each record is: revision (8), create revision (8), length of
//! the key (4), length of the value (4; all bits set is a deletion), key, value; the revisions are those of records that
//! are no longer wanted.
//!
//! A frame is there as a whole or not at all. Only the last one can be torn by a power cut, and it has not been
//! acknowledged then; a damaged frame anywhere else is an error, never skipped.

use std::collections::{HashSet, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};
use bytes::Bytes;
use rustix::fs::FallocateFlags;

use crate::log::{Garbage, Log, LogState, Record};

const MAGIC: &[u8; 8] = b"knarrlog";
/// Raised when the layout changes; a newer one is refused, never guessed at.
const FORMAT: u32 = 1;
const SEGMENT_HEAD: usize = 32;
const FRAME_HEAD: usize = 8;
const PAYLOAD_HEAD: usize = 32;
/// The length of a value that stands for a deletion.
const DELETED: u32 = u32::MAX;
/// How long a segment is; only a single frame may make one longer. It is allocated at once, so that a commit changes
/// nothing of the file but its content, and a full disk is met before anything is written.
const SEGMENT: u64 = 8 << 20;
/// The most segments that are cleaned after one commit: nobody waits for more.
const CLEANED_AT_ONCE: usize = 2;
/// The longest buffer that is kept from one commit to the next.
const BUFFER_MAX: usize = 256 << 10;

/// A log in a directory of segments.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    /// How long a segment is, in bytes.
    segment: u64,
    /// Held for as long as the journal is open.
    _lock: File,
    state: LogState,
    /// All segments, oldest first.
    segments: VecDeque<Segment>,
    /// The last of them; `None` until the journal has been read.
    current: Option<File>,
    /// Records on disk that are no longer wanted, by their revisions.
    dead: HashSet<u64>,
    /// How many bytes the others take.
    live: u64,
    buffer: Vec<u8>,
    /// Why nothing more can be written.
    broken: Option<String>,
}

/// A file of frames.
#[derive(Debug, Clone, Copy)]
struct Segment {
    number: u64,
    /// Where the next frame goes, in bytes.
    end: u64,
}

/// A frame of a segment: where its payload is.
#[derive(Debug, Clone, Copy)]
struct Frame {
    start: usize,
    end: usize,
}

/// What a payload says.
#[derive(Debug)]
struct Payload<'a> {
    state: LogState,
    superfluous: u64,
    records: Vec<RawRecord<'a>>,
    unwanted: Vec<u64>,
}

#[derive(Debug, Clone, Copy)]
struct RawRecord<'a> {
    revision: u64,
    create_revision: u64,
    key: &'a str,
    value: Option<&'a [u8]>,
}

impl Journal {
    /// Opens the journal in a directory, which is made if it is not there.
    ///
    /// # Errors
    /// When another process has it open or the directory cannot be made.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::open_with(dir, SEGMENT)
    }

    fn open_with(dir: &Path, segment: u64) -> Result<Self> {
        let what = || format!("open store {}", dir.display());
        fs::create_dir_all(dir).with_context(what)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("lock"));
        let lock = lock.with_context(what)?;
        lock.try_lock().map_err(|error| anyhow!("{}: another process has it open ({error})", what()))?;
        Ok(Self {
            dir: dir.to_owned(),
            segment,
            _lock: lock,
            state: LogState::default(),
            segments: VecDeque::new(),
            current: None,
            dead: HashSet::new(),
            live: 0,
            buffer: Vec::new(),
            broken: None,
        })
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.log"))
    }

    /// The numbers of the segments that are there, rising.
    fn numbers(&self) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| u64::from_str_radix(name.strip_suffix(".log")?, 16).ok());
            numbers.extend(number);
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Reads all segments, newest first: what is unwanted is known then before it is met, and never kept.
    fn read(&mut self) -> Result<(LogState, Vec<Record>)> {
        let mut numbers = self.numbers()?;
        let mut records: Vec<Record> = Vec::new();
        let mut unwanted: HashSet<u64> = HashSet::new();
        let (mut superfluous, mut state) = (0, None);
        // Where the next segment to be read ended, as the one after it says.
        let mut ended = None;
        (self.live, self.dead) = (0, HashSet::new());
        self.segments.clear();
        while let Some(number) = numbers.pop() {
            if number <= superfluous {
                // Its cleaning had been written when the process ended.
                self.delete(number)?;
                continue;
            }
            let is_last = self.segments.is_empty();
            let text = fs::read(self.path(number)).with_context(|| format!("read segment {number:x}"))?;
            if is_last && !text.starts_with(MAGIC) && text.iter().take(SEGMENT_HEAD).all(|byte| *byte == 0) {
                // The process ended while it was made.
                self.delete(number)?;
                continue;
            }
            if let Some(next) = self.segments.front() {
                ensure!(next.number == number + 1, "segment {:x} is missing", number + 1);
            }
            let (frames, before, end) = frames(&text, number, is_last)?;
            if let Some(told) = ended.replace(before) {
                ensure!(told == end as u64, "segment {number:x} is damaged: it ends at {end} and not at {told}");
            }
            self.segments.push_front(Segment { number, end: end as u64 });
            for frame in frames.iter().rev() {
                let payload = payload(&text[frame.start..frame.end])
                    .with_context(|| format!("read the frame at {} of segment {number:x}", frame.start))?;
                state.get_or_insert(payload.state);
                superfluous = superfluous.max(payload.superfluous);
                unwanted.extend(payload.unwanted);
                for raw in payload.records.iter().rev() {
                    if unwanted.contains(&raw.revision) {
                        self.dead.insert(raw.revision);
                    } else {
                        let record = raw.to_record();
                        self.live += size(&record) as u64;
                        records.push(record);
                    }
                }
            }
            if is_last && text[end..].iter().any(|byte| *byte != 0) {
                self.erase_behind(number, end as u64)?;
            }
        }
        if let Some(first) = self.segments.front() {
            ensure!(first.number == superfluous + 1, "segment {:x} is missing", superfluous + 1);
            let last = self.segments.back().unwrap_or(first).number;
            let file = OpenOptions::new().write(true).open(self.path(last));
            self.current = Some(file.with_context(|| format!("open segment {last:x}"))?);
        } else {
            self.begin_segment(1, 0)?;
        }
        records.sort_by_key(|record| record.revision);
        self.state = state.unwrap_or_default();
        Ok((self.state, records))
    }

    /// Takes away what stands behind the end of the last segment: the remains of a frame that was torn.
    fn erase_behind(&self, number: u64, end: u64) -> Result<()> {
        tracing::warn!("the last write before a power cut was torn; it had not been acknowledged and is dropped");
        let erase = || {
            let file = OpenOptions::new().write(true).open(self.path(number))?;
            file.set_len(end)?;
            allocate(&file, self.segment)?;
            file.sync_all()
        };
        erase().with_context(|| format!("clear the end of segment {number:x}"))
    }

    fn delete(&self, number: u64) -> Result<()> {
        fs::remove_file(self.path(number)).with_context(|| format!("delete segment {number:x}"))
    }

    /// Makes the next segment, with room for a frame of this length.
    fn begin_segment(&mut self, number: u64, frame: u64) -> Result<()> {
        let path = self.path(number);
        let before = self.segments.back().map_or(0, |segment| segment.end);
        let make = || {
            let file = OpenOptions::new().create_new(true).write(true).open(&path)?;
            allocate(&file, self.segment.max(SEGMENT_HEAD as u64 + frame))?;
            let mut head = Vec::with_capacity(SEGMENT_HEAD);
            head.extend_from_slice(MAGIC);
            head.extend_from_slice(&FORMAT.to_le_bytes());
            head.extend_from_slice(&number.to_le_bytes());
            head.extend_from_slice(&before.to_le_bytes());
            head.extend_from_slice(&crc32fast::hash(&head).to_le_bytes());
            file.write_all_at(&head, 0)?;
            file.sync_all()?;
            // The name of the file is on disk with the directory alone.
            File::open(&self.dir)?.sync_all()?;
            Ok::<_, io::Error>(file)
        };
        match make() {
            Ok(file) => {
                self.current = Some(file);
                self.segments.push_back(Segment { number, end: SEGMENT_HEAD as u64 });
                Ok(())
            }
            Err(error) => {
                // Half a segment would be in the way of the next try. Where not even this succeeds, that try says why.
                _ = fs::remove_file(&path);
                Err(error).with_context(|| format!("make segment {number:x}"))
            }
        }
    }

    /// Writes one frame. If it fails, nothing of it is there, or nothing can be written any more.
    fn append(
        &mut self,
        superfluous: u64,
        records: impl ExactSizeIterator<Item = impl WriteRecord>,
        unwanted: impl ExactSizeIterator<Item = u64>,
    ) -> Result<()> {
        if let Some(why) = &self.broken {
            bail!("write store: the disk failed before, and what is on it is not certain: {why}");
        }
        let mut frame = std::mem::take(&mut self.buffer);
        frame.clear();
        frame.extend_from_slice(&[0; FRAME_HEAD]);
        for number in [self.state.ceiling, self.state.compacted, superfluous] {
            frame.extend_from_slice(&number.to_le_bytes());
        }
        for count in [records.len(), unwanted.len()] {
            frame.extend_from_slice(&u32::try_from(count)?.to_le_bytes());
        }
        for record in records {
            record.write(&mut frame)?;
        }
        for revision in unwanted {
            frame.extend_from_slice(&revision.to_le_bytes());
        }
        let length = u32::try_from(frame.len() - FRAME_HEAD)?.to_le_bytes();
        let sum = checksum(length, &frame[FRAME_HEAD..]).to_le_bytes();
        frame[..4].copy_from_slice(&length);
        frame[4..FRAME_HEAD].copy_from_slice(&sum);
        let written = self.write(&frame);
        if frame.capacity() <= BUFFER_MAX {
            self.buffer = frame;
        }
        written
    }

    fn write(&mut self, frame: &[u8]) -> Result<()> {
        let length = frame.len() as u64;
        let Some(last) = self.segments.back().copied() else { bail!("the store has not been read") };
        if last.end + length > self.segment && last.end > SEGMENT_HEAD as u64 {
            self.begin_segment(last.number + 1, length)?;
        }
        let (Some(file), Some(segment)) = (&self.current, self.segments.back_mut()) else {
            bail!("the store has not been read");
        };
        if let Err(error) = file.write_all_at(frame, segment.end) {
            // What has been written of it must not be taken for a frame later.
            if let Err(error) = file.set_len(segment.end) {
                self.broken = Some(error.to_string());
            }
            return Err(error).context("write store");
        }
        if let Err(error) = file.sync_data() {
            // The kernel may have dropped what it could not write, and would say that all is well the next time.
            self.broken = Some(error.to_string());
            return Err(error).context("flush store");
        }
        segment.end += length;
        Ok(())
    }

    /// Whether more than half of what is on disk is not wanted any more, beyond what segments under way hold.
    fn is_wasteful(&self) -> bool {
        self.segments.iter().map(|segment| segment.end).sum::<u64>() > 2 * self.live + 2 * self.segment
    }

    /// Writes what is wanted of the oldest segment once more, at the end, and deletes it.
    fn clean_oldest(&mut self) -> Result<()> {
        let Some(Segment { number, end }) = self.segments.front().copied() else { return Ok(()) };
        let mut text = fs::read(self.path(number)).with_context(|| format!("read segment {number:x}"))?;
        text.truncate(end as usize);
        let (frames, ..) = frames(&text, number, false)?;
        let (mut wanted, mut gone) = (Vec::new(), Vec::new());
        for frame in frames {
            for record in payload(&text[frame.start..frame.end])?.records {
                if self.dead.contains(&record.revision) {
                    gone.push(record.revision);
                } else {
                    wanted.push(record);
                }
            }
        }
        self.append(number, wanted.into_iter(), std::iter::empty())?;
        self.segments.pop_front();
        for revision in gone {
            self.dead.remove(&revision);
        }
        // Once it is superfluous, it does no harm where it stays: it goes when the store is read the next time.
        self.delete(number)
    }
}

impl Log for Journal {
    fn load(&mut self) -> Result<(LogState, Vec<Record>)> {
        self.read().with_context(|| format!("read store {}", self.dir.display()))
    }

    fn commit(&mut self, state: LogState, add: &[&Record], remove: &[Garbage]) -> Result<()> {
        let before = std::mem::replace(&mut self.state, state);
        if let Err(error) = self.append(0, add.iter().copied(), remove.iter().map(|garbage| garbage.revision)) {
            self.state = before;
            return Err(error);
        }
        self.live += add.iter().map(|record| size(record) as u64).sum::<u64>();
        for garbage in remove {
            self.live = self.live.saturating_sub(garbage.size as u64);
            self.dead.insert(garbage.revision);
        }
        for _ in 0..CLEANED_AT_ONCE {
            if !self.is_wasteful() {
                break;
            }
            // What was to be written is written; the next commit tries again.
            if let Err(error) = self.clean_oldest() {
                tracing::error!("clean store {}: {error:#}", self.dir.display());
                break;
            }
        }
        Ok(())
    }
}

fn allocate(file: &File, length: u64) -> io::Result<()> {
    match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length) {
        // Not every file system can; then the file grows as it is written.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
        outcome => outcome.map_err(io::Error::from),
    }
}

fn size(record: &Record) -> usize {
    crate::log::size(record.key.len(), record.value.as_ref().map_or(0, Bytes::len))
}

fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&length);
    sum.update(payload);
    sum.finalize()
}

/// A record that can be written.
trait WriteRecord {
    fn write(&self, out: &mut Vec<u8>) -> Result<()>;
}

impl WriteRecord for &Record {
    fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let (revision, create_revision) = (self.revision, self.create_revision);
        RawRecord { revision, create_revision, key: &self.key, value: self.value.as_deref() }.write(out)
    }
}

impl WriteRecord for RawRecord<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let value = match self.value {
            Some(value) => u32::try_from(value.len()).ok().filter(|length| *length != DELETED),
            None => Some(DELETED),
        };
        let value = value.with_context(|| format!("the value of {} is too long", self.key))?;
        out.extend_from_slice(&self.revision.to_le_bytes());
        out.extend_from_slice(&self.create_revision.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.key.len())?.to_le_bytes());
        out.extend_from_slice(&value.to_le_bytes());
        out.extend_from_slice(self.key.as_bytes());
        out.extend_from_slice(self.value.unwrap_or_default());
        Ok(())
    }
}

impl RawRecord<'_> {
    fn to_record(self) -> Record {
        Record {
            revision: self.revision,
            create_revision: self.create_revision,
            key: self.key.into(),
            value: self.value.map(Bytes::copy_from_slice),
        }
    }
}

/// The frames of a segment, where the segment before it ended, and where they end. The last segment may end with a torn one.
fn frames(text: &[u8], number: u64, is_last: bool) -> Result<(Vec<Frame>, u64, usize)> {
    let mut head = Reader(text);
    let known = head.take(MAGIC.len()).is_some_and(|magic| magic == MAGIC);
    let (format, named, before) = (head.u32(), head.u64(), head.u64());
    ensure!(known, "segment {number:x} is none of knarr's");
    ensure!(format == Some(FORMAT), "segment {number:x} has format {format:?}, this version of knarr reads {FORMAT}");
    ensure!(named == Some(number), "segment {number:x} is in truth segment {named:x?}");
    let whole = head.u32() == text.get(..SEGMENT_HEAD - 4).map(crc32fast::hash);
    let before = before.filter(|_| whole).with_context(|| format!("segment {number:x} is damaged at its head"))?;
    let mut frames = Vec::new();
    let mut at = SEGMENT_HEAD;
    while let Some(frame) = frame(text, at) {
        at = frame.end;
        frames.push(frame);
    }
    let is_over = text[at..].iter().all(|byte| *byte == 0);
    // With a whole frame somewhere behind it, this one was whole once, too.
    let is_torn = || is_last && !(at + 1..text.len()).any(|at| self::frame(text, at).is_some());
    ensure!(is_over || is_torn(), "segment {number:x} is damaged at {at}");
    Ok((frames, before, at))
}

/// The frame at a place; `None` where there is none, or a broken one.
fn frame(text: &[u8], at: usize) -> Option<Frame> {
    let mut reader = Reader(text.get(at..)?);
    let (length, sum) = (reader.u32()?, reader.u32()?);
    // Nothing is that short but the zeros at the end.
    let payload = reader.take(length as usize).filter(|payload| payload.len() >= PAYLOAD_HEAD)?;
    let start = at + FRAME_HEAD;
    let whole = checksum(length.to_le_bytes(), payload) == sum;
    whole.then_some(Frame { start, end: start + payload.len() })
}

fn payload(text: &[u8]) -> Result<Payload<'_>> {
    let mut reader = Reader(text);
    let mut read = || {
        let state = LogState { ceiling: reader.u64()?, compacted: reader.u64()? };
        let superfluous = reader.u64()?;
        let (records, unwanted) = (reader.u32()?, reader.u32()?);
        let records = (0..records).map(|_| reader.record()).collect::<Option<_>>()?;
        let unwanted = (0..unwanted).map(|_| reader.u64()).collect::<Option<_>>()?;
        Some(Payload { state, superfluous, records, unwanted })
    };
    let payload = read().context("the frame is not what it should be")?;
    ensure!(reader.0.is_empty(), "the frame is longer than what it says");
    Ok(payload)
}

/// Bytes that are read one piece after the other; `None` at their end.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn record(&mut self) -> Option<RawRecord<'a>> {
        let (revision, create_revision) = (self.u64()?, self.u64()?);
        let (key, value) = (self.u32()?, self.u32()?);
        let key = std::str::from_utf8(self.take(key as usize)?).ok()?;
        let value = if value == DELETED { None } else { Some(self.take(value as usize)?) };
        Some(RawRecord { revision, create_revision, key, value })
    }
}

#[cfg(test)]
mod tests;
