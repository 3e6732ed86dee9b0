//! Recordings of runs: every datagram that was sent, in a record file; and their replay, which runs
//! the same scenario again and compares.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufReader, BufWriter};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use twinspan_core::bytes::{NoRoom, ReadError as BytesError, Reader, Writer};
use twinspan_core::time::Timestamp;
use twinspan_game::scenario::{ScenarioError, WorldReport, WorldScenario};
use twinspan_record::{
    AppendError, Entry, FileHead, Purpose, ReadError, RecordReader, RecordWriter,
};
use twinspan_sim::SentDatagram;

/// A frame of datagrams is written when it has so many bytes.
const BATCH_BYTES: usize = 32 << 10;
/// Most bytes of a datagram's entry: its time, two addresses, its length and itself.
const ENTRY_BYTES_MAX: usize = 8 + 2 * 19 + 4 + 65_536;
/// What a frame holds, its first byte.
const SETTINGS: u8 = 0;
const DATAGRAMS: u8 = 1;
const END: u8 = 2;

/// What a run is a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Settings {
    clients: u32,
    seconds: u64,
    seed: u64,
}

/// Why a run could not be recorded or replayed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapeError {
    /// The scenario cannot be run.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The file cannot be written.
    #[error("the recording cannot be written: {0}")]
    Write(#[from] AppendError),
    /// The file cannot be opened or made.
    #[error("{file} cannot be opened: {error}")]
    Open {
        /// Its name.
        file: String,
        /// Why.
        error: io::Error,
    },
    /// The file cannot be read.
    #[error("the recording cannot be read: {0}")]
    Read(#[from] ReadError),
    /// Another scenario than the world.
    #[error("--record is for the scenario world; leave it out")]
    OnlyWorld,
    /// The file does not begin with a run's settings.
    #[error("this is no recording of `twinspan sim run --record`, or its first frame is damaged")]
    NoSettings,
}

fn open_error(file: &Path) -> impl FnOnce(io::Error) -> TapeError {
    let file = file.display().to_string();
    move |error| TapeError::Open { file, error }
}

/// Writes datagrams into frames.
struct Recorder {
    out: RecordWriter<BufWriter<File>>,
    batch: Vec<u8>,
    entry: Vec<u8>,
    number: u64,
    failed: Option<AppendError>,
}

impl Recorder {
    fn push(&mut self, datagram: &SentDatagram<'_>) {
        if self.batch.is_empty() {
            self.batch.push(DATAGRAMS);
            self.batch.extend(self.number.to_le_bytes());
        }
        let mut writer = Writer::new(&mut self.entry);
        // There is room for the longest entry.
        if write_entry(&mut writer, datagram).is_ok() {
            self.batch.extend_from_slice(writer.written());
        }
        self.number += 1;
        if self.batch.len() >= BATCH_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.append_batch();
        }
    }

    fn append_batch(&mut self) {
        if let Err(error) = self.out.append(&self.batch) {
            // The first failure says why; what follows it only says that it was given up.
            self.failed.get_or_insert(error);
        }
        self.batch.clear();
    }

    fn end(mut self, report: &WorldReport) -> Result<(), TapeError> {
        self.flush();
        self.batch.push(END);
        self.batch.extend(report.trace_hash.to_le_bytes());
        self.batch.extend(self.number.to_le_bytes());
        self.append_batch();
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        Ok(self.out.flush().map_err(AppendError::from)?)
    }
}

fn write_entry(writer: &mut Writer<'_>, datagram: &SentDatagram<'_>) -> Result<(), NoRoom> {
    writer.u64(datagram.at.as_nanos())?;
    for address in [datagram.from, datagram.to] {
        match address.ip() {
            IpAddr::V4(ip) => {
                writer.u8(4)?;
                writer.put(&ip.octets())?;
            }
            IpAddr::V6(ip) => {
                writer.u8(6)?;
                writer.put(&ip.octets())?;
            }
        }
        writer.u16(address.port())?;
    }
    writer.u32(datagram.bytes.len() as u32)?;
    writer.put(datagram.bytes)
}

/// Runs the scenario of `settings` while every datagram sent goes to `tape`.
fn run(
    settings: Settings,
    tape: impl FnMut(&SentDatagram<'_>) + 'static,
) -> Result<WorldReport, ScenarioError> {
    let Settings { clients, seconds, seed } = settings;
    let duration = Duration::from_secs(seconds);
    let scenario = WorldScenario { clients, duration, seed, ..WorldScenario::default() };
    scenario.run_tampered(|sim| sim.set_tape(tape))
}

/// Runs the scenario and records every datagram into `file`.
pub(super) fn record(
    file: &Path,
    (clients, seconds, seed): (u32, u64, u64),
) -> Result<WorldReport, TapeError> {
    let settings = Settings { clients, seconds, seed };
    let out = BufWriter::new(File::create(file).map_err(open_error(file))?);
    let head = FileHead { purpose: Purpose::RECORDING, id: seed };
    let mut out = RecordWriter::create(out, head).map_err(AppendError::from)?;
    let mut first = vec![SETTINGS];
    // Three numbers: nothing in them can fail to be written.
    serde_json::to_writer(&mut first, &settings)
        .map_err(|error| AppendError::from(io::Error::from(error)))?;
    out.append(&first)?;
    let (batch, entry) = (Vec::with_capacity(2 * BATCH_BYTES), vec![0; ENTRY_BYTES_MAX]);
    let recorder = Recorder { out, batch, entry, number: 0, failed: None };
    let shared = Rc::new(RefCell::new(Some(recorder)));
    let tape = Rc::clone(&shared);
    let report = run(settings, move |datagram| {
        if let Some(recorder) = tape.borrow_mut().as_mut() {
            recorder.push(datagram);
        }
    })?;
    let recorder = shared.borrow_mut().take();
    recorder.map_or(Ok(()), |recorder| recorder.end(&report))?;
    Ok(report)
}

/// What a replay found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Replay {
    /// Datagrams that were compared and are the same.
    pub(super) same: u64,
    /// Datagrams of the run that the file does not have: their frames are damaged or torn off.
    pub(super) missing: u64,
    /// Bytes of the file that are damaged.
    pub(super) damaged_bytes: u64,
    /// The first datagram that is not as recorded.
    pub(super) difference: Option<String>,
    /// Whether the trace hash is the recorded one; `None` where the file does not say.
    pub(super) same_trace: Option<bool>,
}

/// A recorded run, read as it is needed.
struct Recording {
    reader: RecordReader<BufReader<File>>,
    batch: Vec<u8>,
    /// Where in the batch the next entry stands.
    at: usize,
    /// The number of that entry's datagram.
    next: u64,
    trace_hash: Option<u64>,
    number: u64,
    failed: Option<ReadError>,
    found: Replay,
}

impl Recording {
    /// Reads frames until one holds datagrams.
    fn refill(&mut self) -> Result<bool, ReadError> {
        while let Some(entry) = self.reader.next_entry()? {
            match entry {
                Entry::Frame { payload, .. } => match payload.split_first() {
                    Some((&DATAGRAMS, rest)) => {
                        let Some((first, entries)) = rest.split_first_chunk() else { continue };
                        self.next = u64::from_le_bytes(*first);
                        self.batch.clear();
                        self.batch.extend_from_slice(entries);
                        self.at = 0;
                        return Ok(true);
                    }
                    Some((&END, rest)) => {
                        self.trace_hash = rest.first_chunk().map(|hash| u64::from_le_bytes(*hash));
                    }
                    _ => {}
                },
                Entry::Damaged { bytes, .. } | Entry::Torn { bytes, .. } => {
                    self.found.damaged_bytes += bytes;
                }
                _ => {}
            }
        }
        Ok(false)
    }

    fn compare(&mut self, datagram: &SentDatagram<'_>) {
        let number = self.number;
        self.number += 1;
        if self.failed.is_some() {
            return;
        }
        while self.at >= self.batch.len() || self.next < number {
            match self.refill() {
                Ok(true) => {}
                Ok(false) => {
                    self.found.missing += 1;
                    return;
                }
                Err(error) => {
                    self.failed = Some(error);
                    return;
                }
            }
        }
        if self.next > number {
            self.found.missing += 1;
            return;
        }
        let entries = self.batch.get(self.at..).unwrap_or_default();
        let mut reader = Reader::new(entries);
        let what = match read_entry(&mut reader) {
            Err(error) => Some(format!("datagram {number} cannot be read: {error}")),
            Ok(recorded) => difference(number, &recorded, datagram),
        };
        self.at += entries.len() - reader.rest().len();
        self.next += 1;
        match what {
            None => self.found.same += 1,
            Some(what) => {
                self.found.difference.get_or_insert(what);
            }
        }
    }
}

fn read_entry<'a>(reader: &mut Reader<'a>) -> Result<SentDatagram<'a>, BytesError> {
    let at = Timestamp::from_nanos(reader.u64()?);
    let mut address = || {
        let ip = if reader.u8()? == 4 {
            IpAddr::from(reader.array::<4>()?)
        } else {
            IpAddr::from(reader.array::<16>()?)
        };
        Ok(SocketAddr::new(ip, reader.u16()?))
    };
    let (from, to) = (address()?, address()?);
    let len = reader.u32()? as usize;
    Ok(SentDatagram { at, from, to, bytes: reader.take(len)? })
}

fn difference(number: u64, was: &SentDatagram<'_>, is: &SentDatagram<'_>) -> Option<String> {
    if was == is {
        return None;
    }
    let name = |datagram: &SentDatagram<'_>| {
        let SentDatagram { at, from, to, bytes } = datagram;
        format!("{} bytes from {from} to {to} at {} ns", bytes.len(), at.as_nanos())
    };
    let byte = was.bytes.iter().zip(is.bytes).position(|(was, is)| was != is);
    let place = byte.map_or_else(String::new, |at| format!(", which differ from byte {at} on"));
    Some(format!("datagram {number}: recorded {}, now {}{place}", name(was), name(is)))
}

/// Runs the scenario of a recording again and compares every datagram.
pub(super) fn replay(file: &Path) -> Result<Replay, TapeError> {
    let opened = BufReader::new(File::open(file).map_err(open_error(file))?);
    let mut reader = RecordReader::open(opened)?;
    let settings = match reader.next_entry()? {
        Some(Entry::Frame { number: 0, payload: [SETTINGS, json @ ..] }) => {
            serde_json::from_slice(json).map_err(|_| TapeError::NoSettings)?
        }
        _ => return Err(TapeError::NoSettings),
    };
    let recording = Rc::new(RefCell::new(Recording {
        reader,
        batch: Vec::new(),
        at: 0,
        next: 0,
        trace_hash: None,
        number: 0,
        failed: None,
        found: Replay::default(),
    }));
    let tape = Rc::clone(&recording);
    let report = run(settings, move |datagram| tape.borrow_mut().compare(datagram))?;
    let mut recording = recording.borrow_mut();
    // What is left of the file: its end, and datagrams that the run did not send.
    while recording.failed.is_none() && recording.refill()? {
        let sent = recording.number;
        recording.found.difference.get_or_insert_with(|| {
            format!("the run ends after {sent} datagrams, the file goes on")
        });
    }
    if let Some(error) = recording.failed.take() {
        return Err(error.into());
    }
    let mut found = std::mem::take(&mut recording.found);
    found.same_trace = recording.trace_hash.map(|hash| hash == report.trace_hash);
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is gone when the test is over.
    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("twinspan-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            // A test that failed before it wrote leaves nothing.
            let _ = std::fs::remove_file(&self.0);
        }
    }

    #[test]
    fn a_recorded_run_is_replayed_to_the_byte() {
        let scratch = Scratch::new("same");
        record(&scratch.0, (2, 1, 5)).unwrap();
        let found = replay(&scratch.0).unwrap();
        assert!(found.same > 200, "{found:?}");
        let expected = Replay { same: found.same, same_trace: Some(true), ..Replay::default() };
        assert_eq!(found, expected);
    }

    #[test]
    fn a_damaged_frame_costs_its_own_datagrams_and_a_torn_end_those_behind_it() {
        let scratch = Scratch::new("damaged");
        record(&scratch.0, (3, 4, 5)).unwrap();
        let whole = replay(&scratch.0).unwrap();
        let mut file = std::fs::read(&scratch.0).unwrap();
        assert!(file.len() > 3 * BATCH_BYTES, "{} bytes", file.len());
        file[BATCH_BYTES / 2] ^= 0x40;
        let torn = file.len() - 100;
        file.truncate(torn);
        std::fs::write(&scratch.0, &file).unwrap();
        let found = replay(&scratch.0).unwrap();
        assert_eq!(found.same + found.missing, whole.same, "{found:?}");
        assert!(found.same > whole.same / 4 && found.missing > 20, "{found:?}");
        assert!(found.damaged_bytes > BATCH_BYTES as u64, "{found:?}");
        assert_eq!((found.difference, found.same_trace), (None, None));
    }

    #[test]
    fn a_datagram_that_is_not_as_recorded_is_named() {
        let bytes: [&[u8]; 2] = [b"abc", b"abd"];
        let [was, is] = bytes.map(|bytes| SentDatagram {
            at: Timestamp::from_nanos(7),
            from: "10.0.0.1:1".parse().unwrap(),
            to: "[::1]:2".parse().unwrap(),
            bytes,
        });
        assert_eq!(difference(3, &was, &was), None);
        assert_eq!(
            difference(3, &was, &is).unwrap(),
            "datagram 3: recorded 3 bytes from 10.0.0.1:1 to [::1]:2 at 7 ns, \
             now 3 bytes from 10.0.0.1:1 to [::1]:2 at 7 ns, which differ from byte 2 on"
        );
        let mut space = vec![0; 100];
        let mut writer = Writer::new(&mut space);
        write_entry(&mut writer, &was).unwrap();
        assert_eq!(read_entry(&mut Reader::new(writer.written())), Ok(was));
    }

    #[test]
    fn another_file_is_refused() {
        let scratch = Scratch::new("other");
        std::fs::write(&scratch.0, b"not a recording, but long enough for a head").unwrap();
        assert!(matches!(replay(&scratch.0), Err(TapeError::Read(_))));
        let missing = replay(Path::new("no/such/file")).unwrap_err();
        assert!(missing.to_string().starts_with("no/such/file cannot be opened"), "{missing}");
    }
}
