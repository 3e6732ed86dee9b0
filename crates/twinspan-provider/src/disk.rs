//! Files as a store needs them: read and written at a place, durable after a sync.
//!
//! ```
//! use twinspan_provider::{Disk, DiskFile, FolderDisk, OpenMode, TokioEnv};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = std::env::temp_dir().join(format!("twinspan-disk-{}", std::process::id()));
//! let env = TokioEnv::new(None)?;
//! let read = env.block_on(async {
//!     let disk = FolderDisk::new(&env, &folder).await?;
//!     let file = disk.open("players", OpenMode::Create).await?;
//!     file.write_at(0, b"somebody").await?;
//!     file.sync().await?;
//!     file.read_at(4, 100).await
//! })?;
//! assert_eq!(read, b"body");
//! # std::fs::remove_dir_all(folder)?;
//! # Ok(())
//! # }
//! ```

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::{OffloadError, TaskProvider};

/// Bytes of a file's name.
pub const FILE_NAME_BYTES_MAX: usize = 128;
/// Bytes that one call reads or writes.
pub const DISK_CALL_BYTES_MAX: usize = 16 << 20;
/// The longest file.
pub const FILE_BYTES_MAX: u64 = 1 << 40;

/// Whether a file must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// It must.
    Existing,
    /// It is made where it is not.
    Create,
}

/// Why a file could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// It cannot be the name of a file.
    #[error("{name:?} cannot name a file; use up to 128 letters, digits, '-', '_' and inner dots")]
    NoName {
        /// What was asked for, cut to a name's length.
        name: String,
    },
    /// There is no file of this name.
    #[error("there is no file {name:?}; create it")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The volume has no room. Nothing was written.
    #[error("no room is left for {name:?}; remove something")]
    Full {
        /// The file.
        name: String,
    },
    /// More than [`DISK_CALL_BYTES_MAX`] bytes in a call, or a place beyond [`FILE_BYTES_MAX`].
    #[error("{bytes} bytes are too many for {name:?}; use parts")]
    TooLarge {
        /// The file.
        name: String,
        /// The bytes of the call, or the length that the file would have.
        bytes: u64,
    },
    /// A sync failed: what was written since the last good one may be lost, also where a later one
    /// succeeds.
    #[error("{name:?} could not be made durable: {source}; write it anew")]
    Sync {
        /// The file.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The work could not be done off the thread, or its host was stopped.
    #[error("cannot use {name:?}: {source}")]
    Offload {
        /// The file.
        name: String,
        /// Why not.
        source: OffloadError,
    },
    /// Anything else the operating system says.
    #[error("cannot use {name:?}: {source}")]
    Os {
        /// The file.
        name: String,
        /// What the operating system said.
        source: io::Error,
    },
}

impl DiskError {
    fn from_io(name: &str, source: io::Error) -> Self {
        let name = name.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { name },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full { name },
            _ => Self::Os { name, source },
        }
    }
}

/// Files of one node, all in one place.
///
/// That a file was created or removed is durable when the call has ended; what is in it, after
/// [`DiskFile::sync`].
pub trait Disk: 'static {
    /// An open file.
    type File: DiskFile;

    /// Opens a file.
    ///
    /// # Errors
    /// [`DiskError::NoName`], [`DiskError::NotFound`], [`DiskError::Full`] and what the system says.
    ///
    /// # Cancel safety
    /// Work that has begun goes on when the future is dropped.
    fn open(
        &self,
        name: &str,
        mode: OpenMode,
    ) -> impl Future<Output = Result<Self::File, DiskError>>;

    /// Removes a file. Who has it open should not use it any more.
    ///
    /// # Errors
    /// As [`Disk::open`].
    ///
    /// # Cancel safety
    /// Work that has begun goes on when the future is dropped.
    fn remove(&self, name: &str) -> impl Future<Output = Result<(), DiskError>>;
}

/// An open file. One call at a time has an effect; a dropped future's may still come.
#[expect(clippy::len_without_is_empty, reason = "a length is asked of a disk, and may fail")]
pub trait DiskFile: 'static {
    /// Up to `len` bytes from `offset` on: fewer at the end of the file, none behind it.
    ///
    /// # Errors
    /// [`DiskError::TooLarge`] and what the system says.
    fn read_at(&self, offset: u64, len: usize) -> impl Future<Output = Result<Vec<u8>, DiskError>>;

    /// Writes all of `bytes` at `offset`; a gap before it reads as zeros.
    ///
    /// # Errors
    /// [`DiskError::Full`] or [`DiskError::TooLarge`], and what the system says.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> impl Future<Output = Result<(), DiskError>>;

    /// Makes durable what was written and how long the file is. Before it ends, a crash may leave any
    /// part of that.
    ///
    /// # Errors
    /// [`DiskError::Sync`].
    fn sync(&self) -> impl Future<Output = Result<(), DiskError>>;

    /// The length in bytes.
    ///
    /// # Errors
    /// What the system says.
    fn len(&self) -> impl Future<Output = Result<u64, DiskError>>;

    /// Makes the file this long: cuts it, or adds zeros.
    ///
    /// # Errors
    /// [`DiskError::Full`] or [`DiskError::TooLarge`], and what the system says.
    fn truncate(&self, len: u64) -> impl Future<Output = Result<(), DiskError>>;
}

/// Refuses what cannot name a file: path separators, a dot at either end, anything unusual.
///
/// # Errors
/// [`DiskError::NoName`].
pub fn check_file_name(name: &str) -> Result<(), DiskError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if (1..=FILE_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !name.starts_with('.')
        && !name.ends_with('.')
    {
        return Ok(());
    }
    Err(DiskError::NoName { name: name.chars().take(FILE_NAME_BYTES_MAX).collect() })
}

/// Refuses a call of too many bytes, or a place beyond the longest file.
///
/// # Errors
/// [`DiskError::TooLarge`].
pub fn check_disk_call(name: &str, offset: u64, len: usize) -> Result<(), DiskError> {
    let end = offset.saturating_add(len as u64);
    if len > DISK_CALL_BYTES_MAX || end > FILE_BYTES_MAX {
        let bytes = if len > DISK_CALL_BYTES_MAX { len as u64 } else { end };
        return Err(DiskError::TooLarge { name: name.to_owned(), bytes });
    }
    Ok(())
}

/// A folder of the real file system; all work is done off the thread.
#[derive(Clone, Debug)]
pub struct FolderDisk<E> {
    env: E,
    folder: Arc<PathBuf>,
}

impl<E: TaskProvider + Clone + 'static> FolderDisk<E> {
    /// The folder at `path`, which is made where it is not.
    ///
    /// # Errors
    /// [`DiskError`] names the folder.
    ///
    /// # Cancel safety
    /// The folder may be made all the same.
    pub async fn new(env: &E, path: &Path) -> Result<Self, DiskError> {
        let folder = Arc::new(path.to_owned());
        let disk = Self { env: env.clone(), folder };
        let made = Arc::clone(&disk.folder);
        let name = path.display().to_string();
        offload(env, &name, move || fs::create_dir_all(&*made)).await?;
        Ok(disk)
    }
}

/// Does work off the thread, and sorts what comes of it.
async fn offload<T: Send + 'static>(
    env: &impl TaskProvider,
    name: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, DiskError> {
    match env.offload("disk", work).await {
        Ok(outcome) => outcome.map_err(|source| DiskError::from_io(name, source)),
        Err(source) => Err(DiskError::Offload { name: name.to_owned(), source }),
    }
}

/// Makes durable which files there are. Where folders cannot be opened as files it is left to the
/// system.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { File::open(folder)?.sync_all() } else { Ok(()) }
}

impl<E: TaskProvider + Clone + 'static> Disk for FolderDisk<E> {
    type File = FolderFile<E>;

    async fn open(&self, name: &str, mode: OpenMode) -> Result<FolderFile<E>, DiskError> {
        check_file_name(name)?;
        let (folder, path) = (Arc::clone(&self.folder), self.folder.join(name));
        let file = offload(&self.env, name, move || {
            let known = OpenOptions::new().read(true).write(true).open(&path);
            match known {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                known => return known,
            }
            if mode == OpenMode::Existing {
                return Err(io::ErrorKind::NotFound.into());
            }
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            sync_folder(&folder)?;
            Ok(file)
        });
        let file = Arc::new(Mutex::new(file.await?));
        Ok(FolderFile { env: self.env.clone(), name: name.to_owned(), file })
    }

    async fn remove(&self, name: &str) -> Result<(), DiskError> {
        check_file_name(name)?;
        let (folder, path) = (Arc::clone(&self.folder), self.folder.join(name));
        let removed = offload(&self.env, name, move || {
            fs::remove_file(path)?;
            sync_folder(&folder)
        });
        removed.await
    }
}

/// An open file of a [`FolderDisk`].
#[derive(Debug)]
pub struct FolderFile<E> {
    env: E,
    name: String,
    file: Arc<Mutex<File>>,
}

impl<E: TaskProvider> FolderFile<E> {
    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut File) -> io::Result<T> + Send + 'static,
    ) -> Result<T, DiskError> {
        let file = Arc::clone(&self.file);
        let done = offload(&self.env, &self.name, move || {
            // Work that panicked left a file behind, and no half-made value.
            work(&mut file.lock().unwrap_or_else(PoisonError::into_inner))
        });
        done.await
    }
}

impl<E: TaskProvider + 'static> DiskFile for FolderFile<E> {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        check_disk_call(&self.name, offset, len)?;
        let read = self.work(move |file| {
            let mut bytes = Vec::new();
            file.seek(SeekFrom::Start(offset))?;
            file.take(len as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        read.await
    }

    async fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        check_disk_call(&self.name, offset, bytes.len())?;
        let bytes = bytes.to_vec();
        let written = self.work(move |file| {
            file.seek(SeekFrom::Start(offset))?;
            file.write_all(&bytes)
        });
        written.await
    }

    async fn sync(&self) -> Result<(), DiskError> {
        let name = self.name.clone();
        match self.work(|file| file.sync_all()).await {
            Err(DiskError::Os { source, .. }) => Err(DiskError::Sync { name, source }),
            Err(DiskError::Full { .. }) => {
                Err(DiskError::Sync { name, source: io::ErrorKind::StorageFull.into() })
            }
            outcome => outcome,
        }
    }

    async fn len(&self) -> Result<u64, DiskError> {
        self.work(|file| Ok(file.metadata()?.len())).await
    }

    async fn truncate(&self, len: u64) -> Result<(), DiskError> {
        check_disk_call(&self.name, len, 0)?;
        self.work(move |file| file.set_len(len)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["a", "players.db", "A-1_b", &"x".repeat(FILE_NAME_BYTES_MAX)] {
            assert!(check_file_name(name).is_ok(), "{name}");
        }
        let long = "x".repeat(FILE_NAME_BYTES_MAX + 1);
        for name in ["", ".", "..", ".hidden", "a/b", "a\\b", "a.", "ä", "a\0", "a b", &long] {
            assert!(matches!(check_file_name(name), Err(DiskError::NoName { .. })), "{name}");
        }
    }

    #[test]
    fn calls_are_bounded() {
        assert!(check_disk_call("a", FILE_BYTES_MAX - 1, 1).is_ok());
        for (offset, len) in [(FILE_BYTES_MAX, 1), (u64::MAX, 1), (0, DISK_CALL_BYTES_MAX + 1)] {
            let refused = check_disk_call("a", offset, len);
            assert!(matches!(refused, Err(DiskError::TooLarge { .. })), "{offset} {len}");
        }
    }
}
