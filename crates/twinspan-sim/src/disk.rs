//! Disks of simulated hosts: what is written is durable after a sync, and a crash tells.
//!
//! A crash keeps of the sectors that were not synced those that the seed says, so that writes of
//! several sectors are torn. Syncs may fail, reads may be corrupt, the volume may be full, and all
//! may stall: by [`DiskConditions`], or by planned faults.

use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use twinspan_core::link::FaultKind;
use twinspan_core::random::{draw, unit};
use twinspan_provider::{
    Disk, DiskError, DiskFile, OffloadError, OpenMode, Timer, check_disk_call, check_file_name,
};
use xxhash_rust::xxh3::xxh3_64;

use crate::chaos::{DiskCall, DiskStrikes};
use crate::env::SimEnv;
use crate::sim::Sim;
use crate::timer::SimTimer;
use crate::trace::TraceKind;
use crate::world::{HostId, State, World};

/// What survives a crash whole or not at all, in bytes.
pub const SECTOR_BYTES: usize = 512;
/// Files of one host.
pub const FILES_MAX: usize = 4_096;
/// Room on one host's disk, in bytes, unless it is told less.
pub const DISK_BYTES_MAX: u64 = 1 << 30;

/// What a host's disk is like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DiskConditions {
    /// Room for all files together, in bytes, up to [`DISK_BYTES_MAX`].
    pub capacity_bytes: u64,
    /// How long each call takes.
    pub delay: Duration,
    /// Share of syncs that fail, 0 to 1. What was to be made durable then never is, but by being
    /// written again.
    pub sync_failure: f64,
    /// Share of reads in which a bit is turned, 0 to 1. What is on the disk stays as it is.
    pub corrupt_read: f64,
}

impl Default for DiskConditions {
    /// A disk that does what it is told, at once.
    fn default() -> Self {
        Self {
            capacity_bytes: DISK_BYTES_MAX,
            delay: Duration::ZERO,
            sync_failure: 0.0,
            corrupt_read: 0.0,
        }
    }
}

/// What befell a host's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskReport {
    /// Bytes of all files.
    pub bytes: u64,
    /// Syncs that failed.
    pub syncs_failed: u64,
    /// Reads in which a bit was turned.
    pub reads_corrupted: u64,
    /// Calls that found no room.
    pub full: u64,
    /// Sectors that had not been synced and that a crash kept.
    pub sectors_kept: u64,
    /// Sectors that had not been synced and that a crash took.
    pub sectors_lost: u64,
}

/// The disk of one host. It outlives the host's crashes.
#[derive(Default)]
pub(crate) struct HostDisk {
    conditions: DiskConditions,
    files: BTreeMap<String, FileState>,
    report: DiskReport,
    calls: u64,
    /// Calls that began, which planned faults are numbered by.
    begun: u64,
    crashes: u64,
    /// What befalls the call that is at work.
    struck: DiskStrikes,
    /// The planned fault that it showed.
    effect: Option<FaultKind>,
}

#[derive(Default)]
struct FileState {
    /// As it is read.
    view: Vec<u8>,
    /// As it is after a crash.
    durable: Vec<u8>,
    /// Which sectors of the two may differ.
    dirty: BTreeSet<usize>,
}

impl FileState {
    fn touch(&mut self, from: usize, to: usize) {
        if from < to {
            self.dirty.extend(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES));
        }
    }

    fn resize(&mut self, len: usize) {
        let was = self.view.len();
        self.view.resize(len, 0);
        self.touch(was.min(len), was.max(len));
    }

    fn write(&mut self, offset: usize, bytes: &[u8]) {
        let end = offset + bytes.len();
        if end > self.view.len() && !bytes.is_empty() {
            self.resize(end);
        }
        if let Some(room) = self.view.get_mut(offset..end) {
            room.copy_from_slice(bytes);
            self.touch(offset, end);
        }
    }

    /// Copies a sector, as far as the file goes, to what is durable.
    fn keep(&mut self, sector: usize) {
        let from = sector * SECTOR_BYTES;
        let to = (from + SECTOR_BYTES).min(self.view.len());
        let Some(bytes) = self.view.get(from..to) else { return };
        if self.durable.len() < to {
            self.durable.resize(to, 0);
        }
        if let Some(room) = self.durable.get_mut(from..to) {
            room.copy_from_slice(bytes);
        }
    }

    fn sync(&mut self) {
        for sector in std::mem::take(&mut self.dirty) {
            self.keep(sector);
        }
        self.durable.resize(self.view.len(), 0);
    }

    /// Leaves of what is not durable what `keeps` says; how many sectors were kept and lost.
    fn crash(&mut self, mut keeps: impl FnMut(u64) -> bool) -> [u64; 2] {
        let mut counts = [0, 0];
        for sector in std::mem::take(&mut self.dirty) {
            let is_kept = keeps(sector as u64);
            counts[usize::from(!is_kept)] += 1;
            if is_kept {
                self.keep(sector);
            }
        }
        // That it was cut is kept or not, too.
        if self.view.len() < self.durable.len() && keeps(u64::MAX) {
            self.durable.truncate(self.view.len());
        }
        self.view.clone_from(&self.durable);
        counts
    }
}

impl HostDisk {
    fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.view.len() as u64).sum()
    }

    /// Whether a file may become this long, `was` bytes before.
    fn has_room(&mut self, was: u64, len: u64) -> bool {
        let capacity = self.conditions.capacity_bytes.min(DISK_BYTES_MAX);
        let fits = len <= was || self.bytes() - was + len <= capacity;
        self.report.full += u64::from(!fits);
        fits
    }

    /// What a power cut does.
    fn crash(&mut self, seed: u64) {
        self.crashes += 1;
        for (name, file) in &mut self.files {
            let key = draw(seed, &[self.crashes, xxh3_64(name.as_bytes())]);
            let [kept, lost] = file.crash(|sector| draw(key, &[sector]) & 1 == 1);
            self.report.sectors_kept += kept;
            self.report.sectors_lost += lost;
        }
    }
}

impl State {
    /// A host is stopped as by a power cut.
    pub(crate) fn crash_disk(&mut self, id: HostId) {
        let seed = self.hosts.get(id).map_or(0, |host| host.seed);
        if let Some(disk) = self.disks.get_mut(&id) {
            disk.crash(draw(seed, &[DISK]));
        }
    }
}

/// What a call does, by its number in the trace.
const fn disk_call(code: u64) -> DiskCall {
    match code {
        2 => DiskCall::Read,
        3 => DiskCall::Write,
        4 => DiskCall::Sync,
        _ => DiskCall::Other,
    }
}

/// For the trace: that the disk is like something else from now on.
const SET: u64 = 7;
/// Apart from the host's other draws.
const DISK: u64 = 0xd15c;

impl Sim {
    /// What the disk of the host at `ip` is like from now on; false when there is no such host.
    pub fn set_disk(&mut self, ip: IpAddr, conditions: DiskConditions) -> bool {
        let now = self.now();
        let state = &mut *self.world.state.borrow_mut();
        let Some(id) = state.hosts.at(ip) else { return false };
        state.disks.entry(id).or_default().conditions = conditions;
        let ids = [u64::from(id.0), 0, SET << 1, conditions.capacity_bytes];
        state.trace.record(now, TraceKind::Disk, ids);
        true
    }

    /// What befell the disk of the host at `ip`.
    pub fn disk_report(&self, ip: IpAddr) -> DiskReport {
        let state = self.world.state.borrow();
        let disk = state.hosts.at(ip).and_then(|id| state.disks.get(&id));
        disk.map_or_else(DiskReport::default, |disk| DiskReport {
            bytes: disk.bytes(),
            ..disk.report
        })
    }
}

/// The disk of a simulated host, as one start of it uses it.
#[derive(Clone)]
pub struct SimDisk {
    world: Rc<World>,
    host: HostId,
    incarnation: u32,
}

impl SimEnv {
    /// The host's disk. What is on it is there again when the host starts again.
    pub fn disk(&self) -> SimDisk {
        let (world, host, incarnation) = self.parts();
        SimDisk { world: Rc::clone(world), host, incarnation }
    }
}

impl SimDisk {
    /// Does something with the host's disk, after the time that it takes. `code` and `size` say for
    /// the trace what.
    async fn work<T>(
        &self,
        name: &str,
        (code, size): (u64, u64),
        work: impl FnOnce(&mut HostDisk, u64) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let stopped =
            || DiskError::Offload { name: name.to_owned(), source: OffloadError::HostStopped };
        let (delay, call) = {
            let state = &mut *self.world.state.borrow_mut();
            if state.hosts.running(self.host, self.incarnation).is_none() {
                return Err(stopped());
            }
            let disk = state.disks.entry(self.host).or_default();
            disk.begun += 1;
            let (delay, call) = (disk.conditions.delay, disk.begun - 1);
            (delay + state.disk_stall(self.host, call).unwrap_or_default(), call)
        };
        if !delay.is_zero() {
            let mut timer = SimTimer::new(&self.world, self.host);
            timer.set(Some(self.world.now.get().after(delay)));
            poll_fn(|cx| timer.poll_expired(cx)).await;
        }
        let state = &mut *self.world.state.borrow_mut();
        let Some(host) = state.hosts.running(self.host, self.incarnation) else {
            return Err(stopped());
        };
        let seed = draw(host.seed, &[DISK]);
        let struck = state.strike_disk(self.host, call, disk_call(code));
        let disk = state.disks.entry(self.host).or_default();
        disk.calls += 1;
        disk.struck = struck;
        let key = draw(seed, &[0, disk.calls]);
        let outcome = work(disk, key);
        if let Some(kind) = disk.effect.take() {
            state.faults.observe(kind);
        }
        let code = code << 1 | u64::from(outcome.is_err());
        let ids = [u64::from(self.host.0), xxh3_64(name.as_bytes()), code, size];
        state.trace.record(self.world.now.get(), TraceKind::Disk, ids);
        outcome
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<SimFile, DiskError> {
        check_file_name(name)?;
        let what = (0, mode as u64);
        self.work(name, what, |disk, _| {
            if disk.files.contains_key(name) {
                return Ok(());
            }
            let name = name.to_owned();
            if mode == OpenMode::Existing {
                return Err(DiskError::NotFound { name });
            }
            if disk.files.len() >= FILES_MAX {
                disk.report.full += 1;
                return Err(DiskError::Full { name });
            }
            disk.files.insert(name, FileState::default());
            Ok(())
        })
        .await?;
        Ok(SimFile { disk: self.clone(), name: name.to_owned() })
    }

    async fn remove(&self, name: &str) -> Result<(), DiskError> {
        check_file_name(name)?;
        self.work(name, (1, 0), |disk, _| {
            let removed = disk.files.remove(name).map(|_| ());
            removed.ok_or_else(|| DiskError::NotFound { name: name.to_owned() })
        })
        .await
    }
}

/// An open file of a simulated host.
pub struct SimFile {
    disk: SimDisk,
    name: String,
}

impl SimFile {
    async fn work<T>(
        &self,
        what: (u64, u64),
        work: impl FnOnce(&mut HostDisk, &str, u64) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let name = self.name.as_str();
        self.disk.work(name, what, |disk, key| work(disk, name, key)).await
    }
}

fn not_found(name: &str) -> DiskError {
    DiskError::NotFound { name: name.to_owned() }
}

impl DiskFile for SimFile {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        check_disk_call(&self.name, offset, len)?;
        self.work((2, offset), |disk, name, key| {
            let file = disk.files.get(name).ok_or_else(|| not_found(name))?;
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(file.view.len());
            let to = from.saturating_add(len).min(file.view.len());
            let mut bytes = file.view.get(from..to).unwrap_or_default().to_vec();
            let share = disk.conditions.corrupt_read;
            let bits = bytes.len() as u64 * 8;
            let mut turned = None;
            if share > 0.0 && bits > 0 && unit(draw(key, &[1])) < share {
                turned = Some(draw(key, &[2]) % bits);
            }
            if let Some(strike) = disk.struck.corrupt.filter(|_| bits > 0) {
                turned = Some(strike.below(0, bits));
                disk.effect = Some(FaultKind::CorruptRead);
            }
            if let Some(bit) = turned {
                if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                    *byte ^= 1 << (bit % 8);
                }
                disk.report.reads_corrupted += 1;
            }
            Ok(bytes)
        })
        .await
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        check_disk_call(&self.name, offset, bytes.len())?;
        self.work((3, xxh3_64(bytes)), |disk, name, _| {
            let was = disk.files.get(name).ok_or_else(|| not_found(name))?.view.len() as u64;
            let end = if bytes.is_empty() { 0 } else { offset + bytes.len() as u64 };
            if disk.struck.is_full {
                disk.report.full += 1;
                disk.effect = Some(FaultKind::DiskFull);
                return Err(DiskError::Full { name: name.to_owned() });
            }
            if !disk.has_room(was, was.max(end)) {
                return Err(DiskError::Full { name: name.to_owned() });
            }
            let torn = disk.struck.torn.filter(|_| !bytes.is_empty());
            let whole = bytes.len();
            let len = torn.map_or(whole as u64, |strike| strike.below(0, whole as u64));
            let written = usize::try_from(len).ok().and_then(|len| bytes.get(..len));
            let file = disk.files.get_mut(name).ok_or_else(|| not_found(name))?;
            // There is room for it, so it is far below the largest index.
            let offset = usize::try_from(offset).unwrap_or(usize::MAX / 2);
            file.write(offset, written.unwrap_or(bytes));
            if torn.is_some() {
                disk.effect = Some(FaultKind::TornWrite);
                let source = io::Error::other("the simulated disk stopped in the middle");
                return Err(DiskError::Os { name: name.to_owned(), source });
            }
            Ok(())
        })
        .await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        self.work((4, 0), |disk, name, key| {
            let share = disk.conditions.sync_failure;
            let is_struck = disk.struck.sync_fails;
            let fails = is_struck || share > 0.0 && unit(draw(key, &[1])) < share;
            disk.effect = is_struck.then_some(FaultKind::SyncFailure);
            disk.report.syncs_failed += u64::from(fails);
            let file = disk.files.get_mut(name).ok_or_else(|| not_found(name))?;
            if fails {
                // As kernels do: what failed is not tried again.
                file.dirty.clear();
                let source = io::Error::other("the simulated disk failed to sync");
                return Err(DiskError::Sync { name: name.to_owned(), source });
            }
            file.sync();
            Ok(())
        })
        .await
    }

    async fn len(&self) -> Result<u64, DiskError> {
        self.work((5, 0), |disk, name, _| {
            let file = disk.files.get(name).ok_or_else(|| not_found(name))?;
            Ok(file.view.len() as u64)
        })
        .await
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        check_disk_call(&self.name, len, 0)?;
        self.work((6, len), |disk, name, _| {
            let was = disk.files.get(name).ok_or_else(|| not_found(name))?.view.len() as u64;
            if !disk.has_room(was, len) {
                return Err(DiskError::Full { name: name.to_owned() });
            }
            let file = disk.files.get_mut(name).ok_or_else(|| not_found(name))?;
            file.resize(usize::try_from(len).unwrap_or(usize::MAX / 2));
            Ok(())
        })
        .await
    }
}

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimDisk").field("host", &self.host).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SimFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimFile").field("name", &self.name).finish_non_exhaustive()
    }
}
